"""What a queue adds to a training: the code that was queued, the folder in which it runs, and who has to know of it.

A queue keeps its snapshots in a folder beside the states of its entries, and pinned in git, for as long as somebody may run
them. `numb queue run` takes one when it begins; what is added meanwhile gets its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import alive, atomic, processes, record, workplace
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

_FACTS = "code.json"
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
GRACE = 30.0  # seconds between SIGTERM and SIGKILL


class Codes:
    """The snapshots of one queue, in *folder*."""

    def __init__(self, folder: Path, snapshots: Snapshots) -> None:
        self._folder, self._snapshots, self._git = folder, snapshots, snapshots.git

    def take(self, keys: Collection[str]) -> Code:
        """The project as it is, for entries with these keys, which are all that the queue has now. Raises as `capture` does."""
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
        self._write(code, keys)
        return code

    def _taken(self) -> Code:
        name = f"{time.time_ns() // 1_000_000}-{os.urandom(3).hex()}"
        with self._snapshots.folder.scratch("queued") as index:
            snapshot, tree = self._snapshots.take(index)
            self._snapshots.tell_left_out(snapshot)
            left_out = self._snapshots.hashed(snapshot.left_out)
            beside = map(os.fsdecode, self._git.others(index))
            code = Code.of(name, tree, self._git.head(), snapshot, left_out, beside)
            self._git.keep_queued(name, tree, code.head.commit, time.time())
            self._snapshots.keep_index(index)
        return code

    def _write(self, code: Code, keys: Collection[str]) -> None:
        atomic.make_directory(self._folder)
        facts = {
            "format": 1, "tree": code.tree, "base": code.head.commit, "branch": code.head.branch,
            "left_out": [asdict(each) for each in code.left_out], "nested": [asdict(each) for each in code.nested],
            "notes": [*code.notes], "keys": sorted(keys), "patches": [*code.patches], "beside": [*code.beside],
        }  # fmt: skip
        with atomic.new_directory(self._folder / code.name) as folder:
            for number, patch in enumerate(code.patches.values()):
                atomic.write(folder / f"patch-{number}", patch)
            atomic.write(folder / _OWNER, json.dumps(alive.whereabouts()))
            atomic.write(folder / _FACTS, record.dumps(facts))

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

    def in_use(self, is_gone: Callable[[Any], bool | None] = alive.is_gone) -> list[str]:
        """Those whose owner may go on, oldest first."""
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
    """While a script runs: whether the entry that it works on is canceled. Then it is asked to end, and at last ended."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pid: int) -> None:
        handle = processes.handle_on(pid)
        if handle is not None:
            self._thread = threading.Thread(target=self._look, args=(handle,), name="numb-cancel", daemon=True)
            self._thread.start()

    def _look(self, handle: int) -> None:
        try:
            while not self._over.wait(_LOOK):
                if self._claim.is_canceled:
                    processes.send(handle, signal.SIGTERM)
                    if not self._over.wait(GRACE):
                        processes.send(handle, signal.SIGKILL)
                    return
        finally:
            os.close(handle)

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()


class Job:
    """One entry of a queue, as a training sees it. Without a *workplace* it runs in place, as the work tree is then."""

    def __init__(
        self, claim: Claim | None = None, code: Code | None = None, workplace: Workplace | None = None
    ) -> None:
        self.claim, self.code, self.workplace = claim, code, workplace
        self._watch = Watch(claim) if claim else None

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

    def begun(self, run: Run) -> None:
        if self.claim:
            self.claim.begin(run.id)

    def started(self, pid: int) -> None:
        if self.workplace:
            self.workplace.use(pid)
        if self._watch:
            self._watch.start(pid)

    def ended(self, run: Run) -> Sequence[str]:
        """The script has: what the record should say of it."""
        if self._watch:
            self._watch.stop()
        into, written = self.workplace.tidy(run.id) if self.workplace else (Path(), [])
        return [workplace.note(into, written)] if written else []


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
