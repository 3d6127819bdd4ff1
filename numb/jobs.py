"""What a queue adds to a training: the code that was queued, the folder in which it runs, and who has to know of it.

A queue keeps its snapshots in a folder beside the states of its entries, and pinned in git, for as long as somebody may run
them. `numb queue run` takes one when it begins; what is added meanwhile gets its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numb import alive, atomic, record, workplace
from numb.errors import GitFailed, NumbError, StorageFailed
from numb.gitstore import Head
from numb.layout import queued_ref
from numb.record import LeftOut, Nested, Run
from numb.snapshots import write_patches
from numb.workplace import Code, Workplace

if TYPE_CHECKING:
    from numb.layout import RunFolder
    from numb.queue import Claim
    from numb.snapshots import Snapshots

_FACTS = "code.json"  # written last
_OWNER = "owner"  # who runs it: the process that has begun `numb queue run`
_PATIENCE = 20.0  # seconds for an interpreter to say where it looks for modules
# Of packages that are installed to be edited there are folders on the path, or finders that know where each one is.
_FOLDERS = """
import json, os, sys
found = sys.path[1:]
for finder in sys.meta_path:
    module = sys.modules.get(getattr(finder, "__module__", None) or "")
    for place in (getattr(module, "MAPPING", None) or {}).values():
        found.append(os.path.dirname(str(place)))
print(json.dumps(found))
"""
_LOOK = 0.5  # seconds between two looks whether an entry is canceled
GRACE = 30.0  # seconds in which a script whose time is up may end by itself


class Codes:
    """The snapshots of one queue, in *folder*."""

    def __init__(self, folder: Path, snapshots: Snapshots) -> None:
        self._folder, self._snapshots, self._git = folder, snapshots, snapshots.git

    def begin(self, common: Mapping[str, Any]) -> str:
        """Say that somebody begins to run the queue in place, without a snapshot; returns the name of that."""
        name = _new_name()
        atomic.make_directory(self._folder)
        with atomic.new_directory(self._folder / name) as folder:
            self._tell(folder, {"common": record.encoded(common)})
        return name

    def take(
        self, keys: Collection[str], common: Mapping[str, Any] = MappingProxyType({}), files: Sequence[str] = ()
    ) -> Code:
        """The project as it is, for entries with these keys, which are all that the queue has now.

        *common* are the values that are set for all of them, *files* what sets some of these. Raises as `capture` does.
        """
        code = None
        while code is None:
            self._git.wait_for_gc()
            packed = self._git.packed()
            try:
                code = self._taken()
            except GitFailed:
                if not self._git.wait_for_gc() and self._git.packed() == packed:
                    raise
                continue
            if (self._git.wait_for_gc() or self._git.packed() != packed) and not self._git.is_whole(
                queued_ref(code.name)
            ):
                self._git.forget_queued(code.name)
                self._snapshots.forget_index()
                code = None
        self._write(code, keys, common, files)
        return code

    def _taken(self) -> Code:
        name = _new_name()
        with self._snapshots.folder.scratch("queued") as index:
            snapshot, tree = self._snapshots.take(index)
            self._snapshots.tell_left_out(snapshot)
            left_out = self._snapshots.hashed(snapshot.left_out)
            beside = map(os.fsdecode, self._git.others(index))
            code = Code.of(name, tree, self._git.head(), snapshot, left_out, beside)
            self._git.keep_queued(name, tree, code.head.commit, time.time())
            self._snapshots.keep_index(index)
        return code

    def _write(self, code: Code, keys: Collection[str], common: Mapping[str, Any], files: Sequence[str]) -> None:
        atomic.make_directory(self._folder)
        facts = {
            "format": 1, "tree": code.tree, "base": code.head.commit, "branch": code.head.branch,
            "left_out": [asdict(each) for each in code.left_out], "nested": [asdict(each) for each in code.nested],
            "notes": [*code.notes], "keys": sorted(keys), "patches": [*code.patches], "beside": [*code.beside],
            "common": record.encoded(common),
        }  # fmt: skip
        with atomic.new_directory(self._folder / code.name) as folder:
            for number, patch in enumerate(code.patches.values()):
                atomic.write(folder / f"patch-{number}", patch)
            for number, name in enumerate(files):
                with contextlib.suppress(OSError):  # the script's folder has it, or who reads it says what is wrong
                    atomic.write(folder / _kept(number, name), Path(name).read_bytes())
            self._tell(folder, facts)

    def _tell(self, folder: Path, facts: Mapping[str, Any]) -> None:
        atomic.write(folder / _OWNER, json.dumps(alive.whereabouts()))
        atomic.write(folder / _FACTS, record.dumps(facts))

    def kept(self, name: str, number: int, file: str) -> Path:
        """A file of hyperparameters as it was when the snapshot of this name was taken: one of those that were given then."""
        return self._folder / name / _kept(number, file)

    def common(self, name: str) -> dict[str, Any]:
        """The values that were set for all entries when a run of the queue began. Raises `StorageFailed`."""
        try:
            facts = record.loads((self._folder / name / _FACTS).read_bytes())
            return {key: record.decode(value) for key, value in facts["common"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageFailed(f"the snapshot {name} of the queue cannot be read: {error}", "numb queue run") from None

    def load(self, name: str) -> tuple[Code, frozenset[str]]:
        """One by its name, and the keys of the entries that there were then. Raises `StorageFailed`."""
        folder = self._folder / name
        try:
            facts = record.loads((folder / _FACTS).read_bytes())
            patches = {path: (folder / f"patch-{n}").read_bytes() for n, path in enumerate(facts["patches"])}
            code = Code(
                name,
                str(facts["tree"]),
                Head(facts["base"], facts["branch"]),
                tuple(LeftOut(**each) for each in facts["left_out"]),
                tuple(Nested(**each) for each in facts["nested"]),
                tuple(facts["notes"]),
                patches,
                tuple(facts["beside"]),
            )
            return code, frozenset(facts["keys"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageFailed(f"the snapshot {name} of the queue cannot be read: {error}", "numb queue run") from None

    def names(self) -> list[str]:
        """Those that are there, oldest first."""
        try:
            return sorted(name for name in os.listdir(self._folder) if not name.startswith("."))
        except OSError:
            return []

    def unused(self, is_gone: Callable[[Any], bool | None] = alive.is_gone) -> list[str]:
        """Those whose owner has gone, oldest first, where nobody is left who may run any of them."""
        names = self.names()  # before it is asked who has them: one that is made meanwhile has somebody
        return names if all(is_gone(self._owner(name)) for name in names) else []

    def in_use(self, is_gone: Callable[[Any], bool | None] = alive.is_gone) -> list[str]:
        """Those that somebody may be running, oldest first."""
        return [name for name in self.names() if not is_gone(self._owner(name))]

    def own(self, name: str, holder: Mapping[str, Any]) -> None:
        """Say who runs it from now on."""
        atomic.write(self._folder / name / _OWNER, json.dumps(dict(holder)))

    def owners(self) -> list[dict[str, Any]]:
        """Who runs them, oldest first."""
        return [self._owner(name) for name in self.names()]

    def _owner(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((self._folder / name / _OWNER).read_bytes())
            if isinstance(known, dict):
                return known
        return {}

    def drop(self, names: Iterable[str]) -> None:
        """Forget snapshots that nobody runs any more. What cannot be removed does no harm."""
        for name in names:
            self._git.forget_queued(name)
            with contextlib.suppress(NumbError):
                atomic.remove_tree(self._folder / name)


class Watch:
    """While a script runs: whether it is to be ended, for its entry is canceled, or it has not heard that its time is up."""

    def __init__(self, claim: Claim, limit: float = 0.0) -> None:
        self._claim, self._limit = claim, limit
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.ending, self._bell = os.pipe()
        self.is_late = False

    def start(self, is_ending: Callable[[], bool]) -> None:
        """The script has been started; *is_ending* says whether it has heard that it is to end."""
        self._thread = threading.Thread(target=self._look, args=(is_ending,), name="numb-cancel", daemon=True)
        self._thread.start()

    def _look(self, is_ending: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not self._over.wait(_LOOK):
            is_due = bool(self._limit) and time.monotonic() - began > self._limit + GRACE
            if is_due and is_ending():
                is_due, self._limit = False, 0.0  # it has heard, and is left to end by itself
            if self._claim.is_canceled or is_due:
                self.is_late = is_due
                os.write(self._bell, b"x")
                return

    def stop(self) -> None:
        """The script has ended, or was never started."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        os.close(self.ending)
        os.close(self._bell)


class Job:
    """One entry of a queue, as a training sees it. Without a *workplace* it runs in place, as the work tree is then."""

    def __init__(
        self, claim: Claim | None = None, code: Code | None = None, workplace: Workplace | None = None
    ) -> None:
        self.claim, self.code, self.workplace = claim, code, workplace
        self._watch: Watch | None = None

    def adapted(
        self, command: Sequence[str], home: Path, env: Mapping[str, str]
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        """A command and its environment, for where the script runs."""
        place = self.workplace
        if place is None:
            return command, env
        words = [place.moved(word) for word in command]
        folders = place.kept(f"modules of {words[0]}", lambda: found_in(words[0], home, env))
        return words, place.environment(env, folders)

    def described(self, run: Run, folder: RunFolder) -> Run:
        """The run with what is known of its code; git's index of that goes into its *folder*."""
        if self.code is None or self.workplace is None:
            raise ValueError("it runs in place")
        atomic.copy_cache(self.workplace.index, folder.borrowed)
        write_patches(self.code.patches, folder.content)
        return replace(run, left_out=self.code.left_out, nested=self.code.nested, notes=self.code.notes)

    @property
    def ending(self) -> int | None:
        """What becomes readable when the script is to be ended."""
        return self._watch.ending if self._watch else None

    def begun(self, run: Run, limit: float) -> None:
        """A run has, whose script may take so many seconds, or 0."""
        if self.claim:
            self.claim.begin(run.id)
            self._watch = Watch(self.claim, limit)

    def started(self, pid: int, is_ending: Callable[[], bool]) -> None:
        """The script has been; *is_ending* says whether it has heard that it is to end."""
        if self.workplace:
            self.workplace.use(pid)
        if self._watch:
            self._watch.start(is_ending)

    def let_go(self) -> None:
        """The script was never started."""
        if self._watch:
            self._watch.stop()
            self._watch = None

    def ended(self, run: Run) -> Sequence[str]:
        """The script has: what the record should say of it."""
        notes = ["its time was up, and it was ended"] if self._watch and self._watch.is_late else []
        self.let_go()
        into, written = self.workplace.tidy(run.id) if self.workplace else (Path(), [])
        return [*notes, workplace.note(into, written)] if written else notes


def _new_name() -> str:
    return f"{time.time_ns() // 1_000_000}-{os.urandom(3).hex()}"


def _kept(number: int, file: str) -> str:
    return f"config-{number}{Path(file).suffix}"


def found_in(python: str, home: Path, env: Mapping[str, str]) -> list[str]:
    """The folders in which an interpreter looks for modules by itself: those of a project that is installed to be edited.

    Nothing for a command that is none.
    """
    if not os.path.basename(python).startswith("python"):
        return []
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        said = subprocess.run(
            [python, "-c", _FOLDERS],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
        )
        return [str(each) for each in json.loads(said.stdout)]
    return []
