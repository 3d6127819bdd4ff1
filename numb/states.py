"""How far the entries of a queue have come: a folder whose file names say it.

Each attempt at an entry is a turn with a number, and each fact about it is a file, which is made once and never changed:

    KEY.1.claimed               somebody has taken the turn; what stands in it says who
    KEY.1.run.20261122-101500-x7f2          the run that began
    KEY.1.cancel                whoever has it shall end it
    KEY.1.done.20261122-101500-x7f2.0       how it ended: the run, and the exit code of its script
    KEY.0.priority.5            what the user has said of the entry itself
    KEY.0.code.1795340000000-1f2e3d         the snapshot that was taken for it

So a list of names is the whole state. A file is made under its name whole or not at all, and of several who would make it one
can: no lock is held, and no server asked. Folders that were copied and used in two places become one by keeping all files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numb import atomic
from numb.errors import StorageFailed

QUEUED, RUNNING, DONE, FAILED, CUT_OFF, CANCELED = "queued", "running", "done", "failed", "cut off", "canceled"
STATUSES = (QUEUED, RUNNING, DONE, FAILED, CUT_OFF, CANCELED)

_DIGITS = 10  # of the number of a turn; a longer one is none
_SAME = "same"  # done, because the same was trained before
_STOPPED = "stopped"  # cut off, and not because whoever had it was to end: nothing that begins again by itself
_STUCK = "stuck"  # cut off because whoever had it was to end, and no further than before
_WORDS = {
    "queued": QUEUED,
    "done": DONE,
    _SAME: DONE,
    "failed": FAILED,
    "cut-off": CUT_OFF,
    _STOPPED: CUT_OFF,
    _STUCK: CUT_OFF,
    "canceled": CANCELED,
}
_NAMES = {status: word for word, status in _WORDS.items() if word not in (_SAME, _STOPPED, _STUCK)}
_KNOWN = frozenset((*_WORDS, "claimed", "run", "cancel", "priority", "code"))  # another word is somebody else's
# Where two ends of one turn meet, for two machines have had it that did not see each other: work that was done counts.
_WEIGHT = {
    word: weight
    for weight, word in enumerate(("queued", "cut-off", _STUCK, _STOPPED, "canceled", "failed", _SAME, "done"))
}


class Turn(NamedTuple):
    """What the folder says of an entry: its last turn, with the number 0 where there was none."""

    number: int = 0
    status: str = QUEUED  # RUNNING: claimed, and not ended
    run: str | None = None
    exit_code: int | None = None
    skipped: bool = False  # done, because the same was trained before
    canceling: bool = False  # whoever has it shall end it
    priority: int = 0
    code: str | None = None  # the snapshot that was taken for it
    stopped: bool = False  # cut off by itself: a script that was killed, or over its time
    idle: int = 0  # so many of the last turns have come to no end, or no further than the one before


class States:
    """The states in one folder, which is made when the first turn is taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[str, Turn]:
        """The last turn of each entry that there is anything about, by its key. A file that is none of these is passed over."""
        facts: dict[str, list[list[str]]] = {}
        for name in self._names():
            parts = name.split(".", 3)
            if len(parts) > 2 and parts[2] in _KNOWN and parts[0] and _is_number(parts[1]):
                facts.setdefault(parts[0], []).append(parts)
        return {key: _added_up(found) for key, found in facts.items()}

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:  # nothing is known then, and that is not the same as that nothing has begun
            raise StorageFailed(f"cannot read {self.folder}: {error.strerror}", "numb doctor") from None

    def take(self, key: str, number: int, who: Mapping[str, Any]) -> bool:
        """Take a turn that nobody has had; False where another was quicker. Raises `StorageFailed`."""
        atomic.make_directory(self.folder)
        try:
            atomic.create(self._path(key, number, "claimed"), json.dumps(who))
        except FileExistsError:
            return False
        return True

    def holder(self, key: str, number: int) -> dict[str, Any]:
        """Who has taken a turn; nothing where that cannot be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            known = json.loads(self._path(key, number, "claimed").read_bytes())
            if isinstance(known, dict):
                return known
        return {}

    def begin(self, key: str, number: int, run: str) -> None:
        """Say which run has begun."""
        self._say(key, number, "run", run)

    def end(self, key: str, number: int, end: Turn) -> None:
        """Say how a turn has ended. Raises `StorageFailed`."""
        word = _SAME if end.skipped else _STOPPED if end.stopped else _STUCK if end.idle else _NAMES[end.status]
        code = "" if end.exit_code is None else str(end.exit_code)
        self._say(key, number, word, end.run or "", code)

    def cancel(self, key: str, number: int) -> None:
        """Ask whoever has the turn to end it."""
        self._say(key, number, "cancel")

    def is_canceling(self, key: str, number: int) -> bool:
        return self._path(key, number, "cancel").exists()

    def prefer(self, keys: Collection[str], priority: int) -> None:
        """Let entries come before those of a lower priority."""
        for key in keys:
            self._say(key, 0, "priority", str(priority))
        for name in self._names():
            parts = name.split(".")
            if len(parts) == 4 and parts[0] in keys and parts[2] == "priority" and parts[3] != str(priority):
                (self.folder / name).unlink(missing_ok=True)

    def use(self, key: str, code: str) -> None:
        """Say which snapshot was taken for an entry."""
        self._say(key, 0, "code", code)

    # -- the queue as a whole

    @property
    def is_paused(self) -> bool:
        return self._pause.exists()

    def pause(self) -> None:
        atomic.make_directory(self.folder)
        with contextlib.suppress(FileExistsError):
            atomic.create(self._pause, "")

    def resume(self) -> None:
        self._pause.unlink(missing_ok=True)

    @property
    def codes(self) -> Path:
        """The folder of the snapshots."""
        return self.folder / "code"

    @property
    def keys(self) -> Path:
        """What identifies each entry of a long file: a cache."""
        return self.folder / "keys.json"

    @property
    def search(self) -> Path:
        """What is searched, and for what."""
        return self.folder / "search.json"

    @property
    def searching(self) -> Path:
        """Held by who makes a proposal."""
        return self.folder / "search.lock"

    @property
    def engine(self) -> Path:
        """What an engine keeps."""
        return self.folder / "engine"

    @property
    def _pause(self) -> Path:
        return self.folder / "paused"

    def _say(self, key: str, number: int, *words: str) -> None:
        atomic.make_directory(self.folder)
        try:
            atomic.create(self._path(key, number, *words), "")
        except FileExistsError:
            pass
        except OSError as error:
            raise StorageFailed(f"cannot write to {self.folder}: {error.strerror}", "numb doctor") from None

    def _path(self, key: str, number: int, *words: str) -> Path:
        return self.folder / ".".join((key, str(number), *words))


def _added_up(facts: list[list[str]]) -> Turn:
    """What files say of one entry, each as its key, a number, a word and perhaps more."""
    last = facts[0][1]
    if any(fact[1] != last for fact in facts):
        last = max((fact[1] for fact in facts), key=int)
    number = int(last)
    status, run, ended_run, exit_code, skipped = RUNNING if number else QUEUED, None, None, None, False
    stopped = False
    canceling, priority, heaviest, code = False, None, (-1, ""), None
    ends: dict[str, str] = {}  # of each turn one that says something
    for fact in facts:
        if fact[2] in _WEIGHT:
            if ends.get(fact[1], _STUCK) == _STUCK:
                ends[fact[1]] = fact[2]
        elif fact[2] == "claimed":
            ends.setdefault(fact[1], _STUCK)
    for fact in facts:
        word, more = fact[2], fact[3] if len(fact) > 3 else ""
        if fact[1] == last and word in _WEIGHT:
            if (_WEIGHT[word], more) > heaviest:
                heaviest, status = (_WEIGHT[word], more), _WORDS[word]
                skipped, stopped = word == _SAME, word == _STOPPED
                ended_run, _, said = more.partition(".")
                exit_code = _whole(said)
        elif word == "priority":
            said_of_it = _whole(more)
            priority = said_of_it if priority is None else max(priority, said_of_it or 0)
        elif word == "code":
            code = min(code or more, more)  # who was slower may have seen what came after the entry
        elif fact[1] != last:
            continue
        elif word == "run":
            run = max(run or "", more)
        elif word == "cancel":
            canceling = True
    idle = 0
    while idle < number and ends.get(str(number - idle)) == _STUCK:
        idle += 1
    return Turn(number, status, ended_run or run, exit_code, skipped, canceling, priority or 0, code, stopped, idle)


def _whole(text: str) -> int | None:
    """A number as it is written here; None for anything else."""
    return int(text) if _is_number(text.removeprefix("-")) else None


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < _DIGITS
