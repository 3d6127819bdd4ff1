"""Queue files: a JSON list of hyperparameter combinations, and how far each of them has come.

The file is the user's: what is in it is never changed, and `append` writes at its end. What has become of its entries stands
in a folder below `.nmb/queues/` (see `numb.states`): an entry is taken by making a file there, which exactly one worker can,
and it is free again when that worker is proved to be gone. Entries are told apart by what they say, so that a file may be
edited while its queue runs; equal ones are one, and share their state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, overload

from numb import alive, atomic, config, record
from numb.errors import ConfigError, NumbError, StorageFailed, TargetExists
from numb.states import CANCELED, CUT_OFF, DONE, FAILED, QUEUED, RUNNING, States, Turn

__all__ = ["CANCELED", "CUT_OFF", "DONE", "FAILED", "QUEUED", "RUNNING"]

_LARGEST = 1 << 26  # bytes of a file
_PATIENCE = 5.0  # seconds that another who writes the file is waited for
_LONG = 500  # entries of a file whose keys are kept
_TURNS = 3  # that came to nothing, one after the other, before an entry begins no more in the same run of a queue
_SCALARS = (str, int, float, bool, type(None))


class Entry(NamedTuple):
    """One combination: its values, what identifies it, and which one of the file it is, counted from 1."""

    params: Mapping[str, Any]
    key: str
    number: int


class State(NamedTuple):
    """How far an entry has come, the run that came of it, and who has it."""

    entry: Entry
    status: str
    run: str | None = None
    exit_code: int | None = None
    skipped: bool = False  # done, because the same was trained before
    canceling: bool = False  # whoever has it is asked to end it
    priority: int = 0
    holder: Mapping[str, Any] = MappingProxyType({})  # while it runs: which process, since when, on which GPU
    is_elsewhere: bool = False  # and whether that goes on cannot be told from here


@dataclass(frozen=True, slots=True)
class Proofs:
    """What is known of others: whether a worker has gone (None: it cannot be told), and what has become of its run then."""

    is_gone: Callable[[Mapping[str, Any]], bool | None] = alive.is_gone
    fate: Callable[[str], str] = lambda run: CUT_OFF


class Claim:
    """An entry that is this worker's: nobody else starts it until it is settled, or this process has ended."""

    def __init__(self, before: State, number: int, states: States) -> None:
        self.entry, self.before, self._number, self._states = before.entry, before, number, states
        self._is_settled = self._has_begun = False

    def begin(self, run: str) -> None:
        """Say which run it has become."""
        self._has_begun = True
        self._states.begin(self.entry.key, self._number, run)

    @property
    def is_canceled(self) -> bool:
        return self._states.is_canceling(self.entry.key, self._number)

    def settle(
        self,
        status: str,
        run: str | None,
        exit_code: int | None,
        *,
        skipped: bool = False,
        stopped: bool = False,
        stuck: bool = False,
    ) -> None:
        """Write down what came of the entry.

        *stopped* is one that was cut off, and not because this process is to end; *stuck* one that has come no further.
        """
        end = Turn(self._number, status, run, exit_code, skipped, stopped=stopped, idle=int(stuck))
        self._states.end(self.entry.key, self._number, end)
        self._is_settled = True

    def close(self) -> None:
        """Let go of it; where nothing came of it, it is as it was before.

        Where a run has begun, and this process is about to end, what becomes of that says what has become of the entry.
        """
        if not (self._is_settled or self._has_begun):
            before = self.before
            self.settle(before.status, before.run, before.exit_code, skipped=before.skipped)


class Queue:
    """One queue file and the states of its entries, which stand in *folder*.

    *common* are values that were set for all of them elsewhere: with others they are other entries. *who* is said of this
    process where it takes an entry, beside which process it is.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        common: Mapping[str, Any] | None = None,
        proofs: Proofs | None = None,
        who: Mapping[str, Any] | None = None,
    ) -> None:
        self.file, self.folder, self.common = file, States(folder), dict(common or {})
        self.trouble: Callable[[str], object] = lambda line: None  # told when the file cannot be read any more
        self._proofs, self._who = proofs or Proofs(), {**alive.whereabouts(), **(who or {})}
        self._known: tuple[object, list[Entry]] | None = None
        self._refused: object = None  # the state of a file that could not be read

    @classmethod
    def at(
        cls,
        file: Path,
        queues: Path,
        top: Path,
        common: Mapping[str, Any] | None = None,
        proofs: Proofs | None = None,
        who: Mapping[str, Any] | None = None,
    ) -> Queue:
        """The queue of *file*: its states lie in a folder of *queues* that is known by where the file is below *top*.

        So it is the same by whatever path, in a copy of all of it, and where another machine has mounted it.
        """
        named = named_below(file, top)
        digest = hashlib.sha256(named.encode(errors="surrogateescape")).hexdigest()[:12]
        stem = "".join(c if c.isalnum() else "-" for c in Path(named).stem)[:40]
        return cls(file.absolute(), queues / f"{stem}-{digest}", common, proofs, who)

    def with_common(self, common: Mapping[str, Any]) -> Queue:
        """The same file with other values for all of its entries."""
        return Queue(self.file, self.folder.folder, common, self._proofs, self._who)

    @property
    def stamp(self) -> object:
        """What changes when the file does."""
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns

    def entries(self) -> list[Entry]:
        """Read the file. Raises `ConfigError` with line and column for anything that is not a list of combinations.

        What was read before counts for as long as the file cannot be: somebody is editing it.
        """
        stamp = self.stamp
        if self._known is None or (stamp != self._known[0] and (stamp is None or stamp != self._refused)):
            try:
                combinations = read(self.file)
            except ConfigError as error:
                if self._known is None:
                    raise
                if self._refused is None:
                    self.trouble(f"{error}; what was read before counts until it can be read")
                self._refused = stamp or self._refused or "gone"
                return self._known[1]
            keys = self._keys(combinations, stamp)
            pairs = zip(combinations, keys, strict=True)
            self._known = (stamp, [Entry(params, key, number) for number, (params, key) in enumerate(pairs, 1)])
            self._refused = None
        return self._known[1]

    def _keys(self, combinations: Sequence[Mapping[str, Any]], stamp: object) -> list[str]:
        """What identifies each; of a long file that is kept, for as long as the file stays as it is."""
        if len(combinations) < _LONG:
            return [self._key(each) for each in combinations]
        known = [repr(stamp), record.canonical(self.common), len(combinations)]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self.folder.keys.read_bytes())
            if kept["of"] == known and len(kept["keys"]) == len(combinations):
                return [str(key) for key in kept["keys"]]
        keys = [self._key(each) for each in combinations]
        with contextlib.suppress(NumbError):
            atomic.make_directory(self.folder.folder)
            atomic.write(self.folder.keys, json.dumps({"of": known, "keys": keys}))
        return keys

    def _key(self, params: Mapping[str, Any]) -> str:
        identity = {"entry": params, "common": self.common} if self.common else params
        return record.key(identity)[:20]

    def repeated(self) -> list[Entry]:
        """The entries that are equal to an earlier one, with which they share their state."""
        first: dict[str, Entry] = {}
        return [entry for entry in self.entries() if first.setdefault(entry.key, entry) is not entry]

    def check(self, fits: Callable[[str, Any], object]) -> None:
        """Raise `ConfigError` with its place for the first key or value for which *fits* raises one."""
        passed: set[tuple[str, type, Any]] = set()
        for entry in self.entries():
            for name, value in entry.params.items():
                known = (name, type(value), value) if isinstance(value, _SCALARS) else None
                if known not in passed or known is None:
                    try:
                        fits(name, value)
                    except ConfigError as error:
                        raise ConfigError(f"{self._where(entry, name)}: {error}", error.hint) from None
                    if known:
                        passed.add(known)

    def _where(self, entry: Entry, name: str) -> str:
        document = config.read_json(self.file, limit=_LARGEST, non_finite=True)
        place: str = [*document.items()][entry.number - 1].where_key(name)
        return place

    # -- how far they have come

    def states(self) -> list[State]:
        """Of every entry, in the order of the file."""
        turns = self.folder.read()
        return [self._state(entry, turns.get(entry.key, _NEW)) for entry in self.entries()]

    def counts(self) -> dict[str, int]:
        """How many entries there are of each status."""
        found: dict[str, int] = {}
        for state in self.states():
            found[state.status] = found.get(state.status, 0) + 1
        return found

    def _state(self, entry: Entry, turn: Turn) -> State:
        if turn.status != RUNNING:
            return State(entry, turn.status, turn.run, turn.exit_code, turn.skipped, priority=turn.priority)
        holder = self.folder.holder(entry.key, turn.number)
        gone = self._proofs.is_gone(holder)
        status = RUNNING
        if gone:  # its script may go on without it, or have ended, and its run may be on the branch
            status = self._proofs.fate(turn.run) if turn.run is not None else CUT_OFF
            if turn.canceling and status == CUT_OFF:
                status = CANCELED
        if status != RUNNING:
            return State(entry, status, turn.run, priority=turn.priority)
        return State(
            entry, RUNNING, turn.run, None, False, turn.canceling, turn.priority, holder, is_elsewhere=gone is None
        )

    # -- taking one

    def claim(self, wanted: Collection[str], tried: Collection[str] = (), *, skipped: bool = False) -> Claim | None:
        """Take an entry whose status is one of *wanted* and whose key is not in *tried*, or None.

        One that was cut off comes before those that have not begun, then that of the highest priority, then the first. With
        *skipped* those are wanted too that are done only because the same was trained before. The file is read anew where it
        has changed, so that what was added since is seen.
        """
        turns = self.folder.read()
        found: list[tuple[State, int]] = []
        for entry in self.entries():
            turn = turns.get(entry.key, _NEW)
            if (turn.status in wanted or turn.status == RUNNING or turn.skipped) and entry.key not in tried:
                state = self._state(entry, turn)
                if (state.status in wanted or (skipped and state.skipped)) and not self._was_tried(entry, turn):
                    found.append((state, turn.number + 1))
        found.sort(key=lambda each: (each[0].status != CUT_OFF, -each[0].priority))
        for state, number in found:
            if self._take(state.entry, number):
                return Claim(state, number, self.folder)
        return None

    def code_of(self, entry: Entry) -> str | None:
        """The snapshot that was taken for an entry."""
        return self._turn(entry).code

    def use(self, entries: Iterable[Entry], code: str) -> None:
        """Let entries run the snapshot of this name."""
        for entry in entries:
            self.folder.use(entry.key, code)

    def begin(self, code: str) -> None:
        """Say by which snapshot this run of the queue is known."""
        self._who["code"] = code

    def _was_tried(self, entry: Entry, turn: Turn) -> bool:
        """Whether an entry has had its turn in this very run of the queue, by whatever worker.

        It was cut off by itself, or again and again without getting any further.
        """
        code = self._who.get("code")
        wanted = 1 if turn.stopped else _TURNS
        if code is None or max(turn.idle, turn.stopped) < wanted:
            return False
        return all(self.folder.holder(entry.key, turn.number - before).get("code") == code for before in range(wanted))

    def _take(self, entry: Entry, number: int) -> bool:
        known = {**self._who, "since": round(time.time(), 3), "params": record.encoded(entry.params)}
        return self.folder.take(entry.key, number, known)

    # -- what the user says of entries

    def pause(self) -> None:
        """Let no further entry begin."""
        self.folder.pause()

    def resume(self) -> None:
        self.folder.resume()

    def retry(self, statuses: Collection[str], numbers: Collection[int] | None = None, *, lost: bool = False) -> int:
        """Let entries of these statuses be as if they had not begun; returns how many. Those that a worker holds stay.

        Of all, or those with these *numbers*. With *lost* also those whose worker is where nobody can tell whether it goes on.
        """
        return sum(
            self._put(state, number, QUEUED)
            for state, number in self._chosen(numbers)
            if (state.status in statuses and state.status != RUNNING)
            or (lost and state.status == RUNNING and state.is_elsewhere)
        )

    def cancel(self, numbers: Collection[int] | None = None) -> tuple[int, list[State]]:
        """Let entries that have not begun never begin, and ask for the end of those that run; returns how many, and which."""
        waiting, running = 0, {}
        chosen = self._chosen(numbers)
        while chosen:
            missed = set()
            for state, number in chosen:
                if state.status in (QUEUED, CUT_OFF):
                    is_put = self._put(state, number, CANCELED)
                    waiting += is_put
                    missed |= set() if is_put else {state.entry.number}  # a worker was quicker, and runs it now
                elif state.status == RUNNING:
                    self.folder.cancel(state.entry.key, number)
                    running[state.entry.key] = state
            chosen = self._chosen(missed) if missed else []
        return waiting, [*running.values()]

    def prefer(self, priority: int, numbers: Collection[int] | None = None) -> int:
        """Let entries come before those of a lower priority; returns how many."""
        keys = {entry.key for entry in self.entries() if numbers is None or entry.number in numbers}
        self.folder.prefer(keys, priority)
        return len(keys)

    def _chosen(self, numbers: Collection[int] | None) -> list[tuple[State, int]]:
        """The states of entries, each once, and the number of the turn that each has had last."""
        turns = self.folder.read()
        there = {each.key: each for each in reversed(self.entries()) if numbers is None or each.number in numbers}
        pairs = ((entry, turns.get(key, _NEW)) for key, entry in there.items())
        return [
            (self._state(entry, turn), turn.number) for entry, turn in sorted(pairs, key=lambda pair: pair[0].number)
        ]

    def _turn(self, entry: Entry) -> Turn:
        return self.folder.read().get(entry.key, _NEW)

    def _put(self, state: State, number: int, status: str) -> bool:
        """Take the turn after this one only to say what the entry is from now on; False where a worker was quicker."""
        if not self._take(state.entry, number + 1):
            return False
        self.folder.end(state.entry.key, number + 1, Turn(number + 1, status, state.run, state.exit_code))
        return True


_NEW = Turn()


def named_below(file: Path, top: Path) -> str:
    """A file as others know it, whose copy of all that is below *top* lies elsewhere; one that is not there by its path."""
    real, below = os.path.realpath(file), os.path.realpath(top)
    path = os.path.relpath(real, below)
    return real if path == os.pardir or path.startswith(f"{os.pardir}{os.sep}") else path


def read(file: Path) -> list[dict[str, Any]]:
    """The combinations in a file. Raises `ConfigError` with line and column for anything else."""
    try:
        plain = config.read_plain(file, limit=_LARGEST)
        if plain is None:
            document = config.read_json(file, limit=_LARGEST, non_finite=True)
            plain = document.value
    except FileNotFoundError:
        raise ConfigError(f"there is no queue file {file}", f"numb queue init {file}") from None
    if not isinstance(plain, list) or not all(isinstance(item, dict) for item in plain):
        document = config.read_json(file, limit=_LARGEST, non_finite=True)
        if not isinstance(document.value, list):
            raise document.wrong('a list of combinations such as [{"lr": 0.1}, {"lr": 0.2}]')
        item = next(item for item in document.items() if not isinstance(item.value, dict))
        raise item.wrong('a combination such as {"lr": 0.1}')
    found: list[dict[str, Any]] = []
    try:
        for item in plain:
            found.append({name: _decoded(value) for name, value in item.items()})
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        document = config.read_json(file, limit=_LARGEST, non_finite=True)
        raise [*document.items()][len(found)].wrong(f"values as numb writes them ({error})") from None
    return found


def _decoded(value: Any) -> Any:
    return record.decode(value) if type(value) in (dict, list) else value


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
    return json.dumps(record.encoded(params), ensure_ascii=False, allow_nan=False)


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
    text = json.dumps([record.encoded(params)], indent=2, ensure_ascii=False) + "\n"
    if force:
        atomic.write(file, text)
        return
    try:
        atomic.create(file, text)
    except FileExistsError:
        raise TargetExists(f"{file} already exists", f"numb queue run {file}, or another name") from None
