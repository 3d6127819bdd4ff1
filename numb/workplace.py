"""Where a job of a queue runs: the project as it was when it was queued, in a folder of its worker's below `.nmb/work/`.

What is no part of a snapshot, ignored files and folders above all, is there as symbolic links to the originals, and so is
everything beside and above the project: each relative path that leads to something from the project leads to the same from
here. What a script writes beside itself is moved out when it has ended, and the next one finds the project as it was queued.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numb import atomic, record
from numb.errors import NumbError, StorageFailed
from numb.gitstore import GitStore, Head, Snapshot
from numb.layout import FOLDER, Layout
from numb.record import LeftOut, Nested

T = TypeVar("T")

_CACHES = "__pycache__"  # stays from one job to the next
_FRESH = 10.0  # seconds after which it is looked again for what is beside the snapshot
_MOST = 20_000  # links in one folder above the project; one with more has none
_SHOWN = 5  # paths in a note


@dataclass(frozen=True, slots=True)
class Code:
    """The project as it was queued: a snapshot that is pinned, and what could not be in it."""

    name: str  # sorts by the time at which it was taken
    tree: str
    head: Head
    left_out: tuple[LeftOut, ...]
    nested: tuple[Nested, ...]
    notes: tuple[str, ...]
    patches: Mapping[str, bytes]

    @classmethod
    def of(cls, name: str, tree: str, head: Head, snapshot: Snapshot, left_out: Iterable[LeftOut]) -> Code:
        return cls(name, tree, head, tuple(left_out), snapshot.nested, snapshot.notes, snapshot.patches)


class Workplace:
    """One such folder, which one worker has at a time."""

    def __init__(self, git: GitStore, layout: Layout, name: str, lock: atomic.Lock | None) -> None:
        self._git, self._layout, self._lock = git, layout, lock
        self._folder = layout.work / name
        self._root = self._folder / "root"
        self.top = self._root / git.toplevel.relative_to(git.toplevel.anchor)
        self._index = self._folder / "index"
        self._tree: str | None = None
        self._known: dict[
            str, tuple[int, ...]
        ] = {}  # by path, what a file of the snapshot looks like when nobody has changed it
        self._links: set[str] = set()
        self._looked = 0.0
        self._kept: dict[str, Any] = {}
        self._remembered: dict[str, Any] = {}  # what was found out about the snapshot that it shows

    @classmethod
    def take(cls, git: GitStore, layout: Layout) -> Workplace:
        """One that nobody else has. Raises `StorageFailed`."""
        atomic.make_directory(layout.work)
        host = os.uname().nodename
        for number in range(1_000_000):
            name = f"{host}-{number}"
            lock = atomic.Lock(layout.work / f"{name}.lock")
            try:
                if lock.try_acquire():
                    return cls(git, layout, name, lock)
            except StorageFailed:
                break  # a file system without locks
        return cls(git, layout, f"{host}-{os.getpid()}-{time.time_ns()}", None)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()

    @property
    def index(self) -> Path:
        """The git index of what it shows."""
        return self._index

    def at(self, path: str) -> Path:
        """Where a path below the top of the work tree is here."""
        return self.top / path

    def show(self, code: Code) -> None:
        """Make it the snapshot of *code*, and everything else what it is now. Raises `GitFailed` and `StorageFailed`."""
        if code.tree != self._tree:
            self._lay_out(code)
        elif not self._looked or time.monotonic() - self._looked > _FRESH:
            self._link(code)

    def kept(self, name: str, find_out: Callable[[], T]) -> T:
        """What was found out before for whatever it shows, or is now."""
        if name not in self._kept:
            self._kept[name] = find_out()
        found: T = self._kept[name]
        return found

    def remembered(self, name: str, find_out: Callable[[], T]) -> T:
        """What was found out before about the snapshot that it shows, or is now."""
        if name not in self._remembered:
            self._remembered[name] = find_out()
        found: T = self._remembered[name]
        return found

    def files_named(self, *names: str) -> list[Path]:
        """The files of these names (`*.py`) in the snapshot that it shows."""
        found = (
            path for path in self._known if any(fnmatch.fnmatchcase(path.rpartition("/")[2], name) for name in names)
        )
        return sorted(self.top / path for path in found)

    def _lay_out(self, code: Code) -> None:
        self._tree = None
        self._remembered.clear()
        atomic.make_directory(self.top)
        self._unlink()  # where the new snapshot may have files
        self._clear_out(self._layout.left / f"unknown-{time.strftime('%Y%m%d-%H%M%S')}")
        self._git.lay_out(self._index, code.tree, self.top)
        self._link(code)
        paths = map(os.fsdecode, self._git.paths_in(self._index))
        self._known = {path: looks for path in paths if (looks := _looks(self.top / path))}
        self._tree = code.tree

    def _unlink(self) -> None:
        for folder, folders, files in os.walk(self.top):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if os.path.islink(path) and (os.readlink(path).startswith(os.fspath(self._git.toplevel) + os.sep)):
                    os.unlink(path)
        self._links.clear()

    def _clear_out(self, into: Path) -> None:
        """Move what a worker that was killed has left there out of it."""
        if self._index.exists():
            self._known = {os.fsdecode(path): () for path in self._git.paths_in(self._index)}
            strays = [path for path, is_known in self._walk("") if not is_known]
        else:
            strays = os.listdir(self.top)
        self._move_out(strays, into)

    def _link(self, code: Code) -> None:
        """Let everything that is beside the snapshot be reached."""
        self._looked = time.monotonic()
        for path in [*map(os.fsdecode, self._git.others(self._index)), *(each.path for each in code.nested)]:
            path = path.rstrip("/")
            if path.partition("/")[0] != FOLDER and os.path.basename(path) != _CACHES:
                self._link_one(path)
        above = self._git.toplevel
        while above != above.parent:
            name, above = above.name, above.parent
            _mirror(above, self._root / above.relative_to(above.anchor), name)

    def _link_one(self, path: str) -> None:
        target, here = self._git.toplevel / path, self.top / path
        with contextlib.suppress(OSError):
            if here.is_dir() and not here.is_symlink() and not os.listdir(here):
                here.rmdir()  # what git makes of a submodule
            if not os.path.lexists(here):
                here.parent.mkdir(parents=True, exist_ok=True)
                here.symlink_to(target)
            if here.is_symlink():
                self._links.add(path)

    # -- after a job

    def tidy(self, run_id: str) -> list[str]:
        """Make it what it was before the job; returns the paths of what that has written, now in `.nmb/left/ID`."""
        if self._tree is None:
            return []
        there: set[str] = set()
        strays: list[str] = []
        for path, is_known in self._walk(""):
            (there.add if is_known else strays.append)(path)
        if strays:
            self._move_out(strays, self._layout.left / run_id)
            self._looked = 0.0  # one may have taken the place of a link
        if lacking := self._known.keys() - there:
            try:
                self._git.rewrite(self._index, self.top, sorted(lacking))
                self._known.update({path: looks for path in lacking if (looks := _looks(self.top / path))})
            except NumbError:
                self._tree = None  # made anew for the next one
        return sorted(strays)

    def _walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Each path below a folder that is a file of the snapshot as it was, or is not; folders without one as a whole."""
        with os.scandir(self.top / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.name == _CACHES or (path in self._links and entry.is_symlink()):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found = list(self._walk(f"{path}/"))
                    if any(is_known for _, is_known in found) or self._has_links(path):
                        yield from found
                    else:
                        yield path, False
                else:
                    known = self._known.get(path)
                    yield path, known is not None and known in ((), _looks(self.top / path))

    def _has_links(self, folder: str) -> bool:
        return any(link.startswith(f"{folder}/") for link in self._links)

    def _move_out(self, paths: Iterable[str], into: Path) -> None:
        for path in paths:
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(StorageFailed):
                atomic.set_aside(self.top / path, target)

    # -- what a process there needs

    def environment(self, env: Mapping[str, str], found_in: Iterable[str]) -> dict[str, str]:
        """An environment for a script there: modules of the project's that are found in these folders are found here."""
        known = [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder]
        own = [here for folder in found_in if folder not in known and (here := self.moved(folder)) != folder]
        path = [*map(self.moved, known), *own]
        return {**env, "PYTHONPATH": os.pathsep.join(path)} if path else dict(env)

    def moved(self, path: str) -> str:
        """A path of the project's that is part of the snapshot, as it is here; any other path as it is."""
        top = os.fspath(self._git.toplevel)
        if path != top and not path.startswith(top + os.sep):
            return path
        here = os.fspath(self.top) + path[len(top) :]
        return here if os.path.realpath(here).startswith(os.path.realpath(self.top)) and os.path.exists(here) else path


def note(run_id: str, written: list[str]) -> str:
    """What the record says of what a job has written beside itself."""
    return f"written beside the script, and kept in {FOLDER}/left/{run_id}: {record.some(written, _SHOWN)}"


def _mirror(folder: Path, here: Path, but: str) -> None:
    """Let what is in a folder above the project be reached from its place here, and nothing else be there."""
    try:
        names = set(os.listdir(folder)) - {but}
        known = set(os.listdir(here)) - {but}
        if len(names) > _MOST:
            return
        for name in known - names:
            if (here / name).is_symlink():
                (here / name).unlink()
        for name in names - known:
            (here / name).symlink_to(folder / name)
    except OSError:
        return  # it may not be listed: nothing there could be found by its name anyway


def _looks(path: Path) -> tuple[int, ...]:
    try:
        known: Any = os.lstat(path)
    except OSError:
        return ()
    if stat.S_ISDIR(known.st_mode):
        return ()
    return known.st_mtime_ns, known.st_size, known.st_ino, known.st_mode
