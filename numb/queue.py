"""Queue files: a JSON list of hyperparameter combinations, and how far each of them has come.

The file is the user's: what is in it is never changed, and `append` writes at its end. Beside it, below `.nmb/queues/`, stands
one small state file for each entry, and a lock that its worker holds: so two workers never run an entry twice, and an entry
whose worker died is free again. Entries are told apart by what they say, so that a file may be edited while its queue runs;
equal ones are one, and share their state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, overload

from numb import atomic, config, record
from numb.errors import ConfigError, NumbError, StorageFailed, TargetExists

_LARGEST = 1 << 26  # bytes of a file
_PATIENCE = 5.0  # seconds that another who writes the file is waited for
QUEUED, RUNNING, DONE, FAILED, CUT_OFF = "queued", "running", "done", "failed", "cut off"


@dataclass(frozen=True, slots=True)
class Entry:
    """One combination: its values, what identifies it, and which one of the file it is, counted from 1."""

    params: Mapping[str, Any]
    key: str
    number: int


@dataclass(frozen=True, slots=True)
class State:
    """How far an entry has come, and the run that came of it."""

    entry: Entry
    status: str
    run: str | None = None
    exit_code: int | None = None
    skipped: bool = False  # done, because the same was trained before


class Claim:
    """An entry that is this worker's: nobody else starts it until `close`, or until this process dies."""

    def __init__(self, before: State, file: Path, lock: atomic.Lock) -> None:
        self.entry, self.before, self._file, self._lock = before.entry, before, file, lock

    def begin(self) -> None:
        self._write(RUNNING, None, None)

    def settle(self, status: str, run: str | None, exit_code: int, *, skipped: bool = False) -> None:
        """Write down what came of the entry."""
        self._write(status, run, exit_code, skipped)

    def close(self) -> None:
        self._lock.release()

    def _write(self, status: str, run: str | None, exit_code: int | None, skipped: bool = False) -> None:
        params = {name: record.encode(value, name, literals=True) for name, value in self.entry.params.items()}
        state = {
            "format": 1,
            "params": params,
            "status": status,
            "run": run,
            "exit_code": exit_code,
            "skipped": skipped,
        }
        atomic.write(self._file, record.dumps(state))


class Queue:
    """One queue file and the states of its entries, which stand in *folder*.

    *common* are values that were set for all of them elsewhere: with others they are other entries.
    """

    def __init__(self, file: Path, folder: Path, common: Mapping[str, Any] | None = None) -> None:
        self.file, self._folder, self._common = file, folder, dict(common or {})

    @classmethod
    def at(cls, file: Path, queues: Path, common: Mapping[str, Any] | None = None) -> Queue:
        """The queue of *file*: its states lie in a folder of *queues* that the file's path names."""
        path = file.absolute()
        digest = hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:12]
        stem = "".join(c if c.isalnum() else "-" for c in path.stem)[:40]
        return cls(path, queues / f"{stem}-{digest}", common)

    def entries(self) -> list[Entry]:
        """Read the file. Raises `ConfigError` with line and column for anything that is not a list of combinations."""
        return [self._entry(params, number) for number, params in enumerate(read(self.file), 1)]

    def _entry(self, params: Mapping[str, Any], number: int) -> Entry:
        identity = {"entry": params, "common": self._common} if self._common else params
        return Entry(params, record.key(identity)[:20], number)

    def repeated(self) -> list[Entry]:
        """The entries that are equal to an earlier one, with which they share their state."""
        first: dict[str, Entry] = {}
        return [entry for entry in self.entries() if first.setdefault(entry.key, entry) is not entry]

    def check(self, fits: Callable[[str, Any], object]) -> None:
        """Raise `ConfigError` with its place for the first key or value for which *fits* raises one."""
        document = config.read_json(self.file, limit=_LARGEST, non_finite=True)
        for item in document.items():
            for name, value in item.value.items():
                try:
                    fits(name, record.decode(value))
                except ConfigError as error:
                    raise ConfigError(f"{item.where_key(name)}: {error}", error.hint) from None

    def states(self) -> list[State]:
        return [self._state(entry) for entry in self.entries()]

    def counts(self) -> dict[str, int]:
        """How many entries there are of each status."""
        found: dict[str, int] = {}
        for state in self.states():
            found[state.status] = found.get(state.status, 0) + 1
        return found

    def claim(self, wanted: Collection[str], tried: Collection[str] = (), *, skipped: bool = False) -> Claim | None:
        """Take the first entry whose status is one of *wanted* and whose key is not in *tried*, or None.

        One that was cut off comes before those that have not begun. With *skipped* those are wanted too that are done only
        because the same was trained before. The file is read anew, so that what was added since is seen.
        """

        def is_wanted(state: State) -> bool:
            return state.status in wanted or (skipped and state.skipped)

        states = [self._state(entry) for entry in self.entries() if entry.key not in tried]
        for entry in [
            state.entry for state in sorted(filter(is_wanted, states), key=lambda each: each.status != CUT_OFF)
        ]:
            atomic.make_directory(self._folder)
            lock = atomic.Lock(self._lock_path(entry))
            if not lock.try_acquire():
                continue
            if is_wanted(before := self._recorded(entry)):  # it may have been finished between the look and the lock
                return Claim(before, self._state_path(entry), lock)
            lock.release()
        return None

    def retry(self, statuses: Collection[str]) -> int:
        """Let entries of these statuses be as if they had not begun; returns how many. Those that a worker holds stay."""
        found = 0
        for entry in self.entries():
            if self._recorded(entry).status in statuses:
                lock = atomic.Lock(self._lock_path(entry))
                if lock.try_acquire():
                    self._state_path(entry).unlink(missing_ok=True)
                    lock.release()
                    found += 1
        return found

    def _state(self, entry: Entry) -> State:
        state = self._recorded(entry)
        try:
            held = atomic.held_elsewhere(self._lock_path(entry))
        except NumbError:
            held = False
        return State(entry, RUNNING, state.run) if held else state

    def _recorded(self, entry: Entry) -> State:
        """What the state file says, as of a worker that is not there."""
        try:
            plain = json.loads(self._state_path(entry).read_bytes())
            status = plain["status"]
        except (OSError, ValueError, KeyError, TypeError):
            return State(entry, QUEUED)
        run, exit_code, skipped = (plain.get(name) for name in ("run", "exit_code", "skipped"))
        return State(entry, CUT_OFF if status == RUNNING else status, run, exit_code, bool(skipped))

    def _state_path(self, entry: Entry) -> Path:
        return self._folder / f"{entry.key}.json"

    def _lock_path(self, entry: Entry) -> Path:
        return self._folder / f"{entry.key}.lock"


def read(file: Path) -> list[dict[str, Any]]:
    """The combinations in a file. Raises `ConfigError` with line and column for anything else."""
    try:
        document = config.read_json(file, limit=_LARGEST, non_finite=True)
    except FileNotFoundError:
        raise ConfigError(f"there is no queue file {file}", f"numb queue init {file}") from None
    if not isinstance(document.value, list):
        raise document.wrong('a list of combinations such as [{"lr": 0.1}, {"lr": 0.2}]')
    for item in document.items():
        if not isinstance(item.value, dict):
            raise item.wrong('a combination such as {"lr": 0.1}')
    return [{name: record.decode(value) for name, value in item.items()} for item in document.value]


def append(file: Path, combinations: Iterable[Mapping[str, Any]], *, force: bool = False) -> int:
    """Write combinations to the end of a file, which may not be there yet; returns how many were not in it already.

    What is in the file stays as it was written. With *force* those that are there already are written once more. Raises
    `ConfigError` for a file that is no queue, `TypeError` for a value that cannot be written, and `StorageFailed`.
    """
    wanted = [(record.key(params), _line(params)) for params in combinations]
    path = file.resolve()
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            atomic.create(path, "[]\n")
    lock = atomic.Lock(path)  # of the file itself: it is a new one when another has written it, and then locked anew
    if not lock.try_acquire(_PATIENCE):
        raise StorageFailed(f"somebody else is writing {file}", "try again")
    try:
        there = read(path)
        known = set() if force else set(map(record.key, there))
        new = []
        for key, line in wanted:
            if force or key not in known:
                known.add(key)
                new.append(f"  {line}")
        if new:
            before = path.read_text().rstrip().removesuffix("]").rstrip()
            atomic.write(path, before + (",\n" if there else "\n") + ",\n".join(new) + "\n]\n")
        return len(new)
    finally:
        lock.release()


def _line(params: Mapping[str, Any]) -> str:
    encoded = {name: record.encode(value, name, literals=True) for name, value in params.items()}
    return json.dumps(encoded, ensure_ascii=False, allow_nan=False)


class Combinations(Sequence[Mapping[str, Any]]):
    """A queue file as the list that it is: `numb.queue("q.json").add(lr=0.1)`."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)

    def add(self, **params: Any) -> int:
        """Add one combination; returns 0 where it is there already. Raises what `append` raises."""
        return append(self.file, [params])

    def extend(self, combinations: Iterable[Mapping[str, Any]]) -> int:
        """Add combinations; returns how many were not there already. Raises what `append` raises."""
        return append(self.file, combinations)

    def __len__(self) -> int:
        return len(read(self.file)) if self.file.exists() else 0

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return (read(self.file) if self.file.exists() else [])[place]


class _Callable(ModuleType):
    """This module, which is what `numb.queue` names: `numb.queue("q.json")`."""

    def __call__(self, file: str | os.PathLike[str]) -> Combinations:
        return Combinations(file)


sys.modules[__name__].__class__ = _Callable


def write_template(file: Path, params: Mapping[str, Any], *, force: bool = False) -> None:
    """Write a queue file with one combination. Raises `TargetExists` rather than replace one."""
    combination = {name: record.encode(value, name, literals=True) for name, value in params.items()}
    text = json.dumps([combination], indent=2, ensure_ascii=False) + "\n"
    if force:
        atomic.write(file, text)
        return
    try:
        atomic.create(file, text)
    except FileExistsError:
        raise TargetExists(
            f"{file} already exists", f"numb queue run {file}, or numb queue init --force {file}"
        ) from None
