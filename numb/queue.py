"""Queue files: a JSON list of hyperparameter combinations, and how far each of them has come.

The file is the user's and only read. Beside it, below `.nmb/queues/`, stands one small state file for each entry, and a
lock that its worker holds: so two workers never run an entry twice, and an entry whose worker died is free again.
Entries are told apart by what they say, so that a file may be edited while its queue runs; equal ones are one, and share
their state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numb import atomic, config, record
from numb.errors import ConfigError, NumbError, TargetExists

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
        try:
            document = config.read_json(self.file, limit=1 << 26, non_finite=True)
        except FileNotFoundError:
            raise ConfigError(f"there is no queue file {self.file}", f"numb queue init {self.file}") from None
        if not isinstance(document.value, list):
            raise document.wrong('a list of combinations such as [{"lr": 0.1}, {"lr": 0.2}]')
        found: list[Entry] = []
        for number, item in enumerate(document.items(), 1):
            if not isinstance(item.value, dict):
                raise item.wrong('a combination such as {"lr": 0.1}')
            params = {name: record.decode(value) for name, value in item.value.items()}
            identity = {"entry": params, "common": self._common} if self._common else params
            found.append(Entry(params, record.key(identity)[:20], number))
        return found

    def repeated(self) -> list[Entry]:
        """The entries that are equal to an earlier one, with which they share their state."""
        first: dict[str, Entry] = {}
        return [entry for entry in self.entries() if first.setdefault(entry.key, entry) is not entry]

    def check(self, fits: Callable[[str, Any], object]) -> None:
        """Raise `ConfigError` with its place for the first key or value for which *fits* raises one."""
        document = config.read_json(self.file, limit=1 << 26, non_finite=True)
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
