"""Where a job of a queue runs: the project as it was when it was queued, in a folder of its worker's below `.nmb/work/`.

What is no part of a snapshot, ignored files and folders above all, is there as symbolic links to the originals, and so is
everything beside and above the project: each relative path that leads to something from the project leads to the same from
here. What a script writes beside itself is moved out when it has ended, and the next one finds the project as it was queued.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numb import alive, atomic, record
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
    beside: tuple[str, ...] = ()  # what else was there then

    @classmethod
    def of(
        cls, name: str, tree: str, head: Head, snapshot: Snapshot, left_out: Iterable[LeftOut], beside: Iterable[str]
    ) -> Code:
        left_out, beside = tuple(left_out), tuple(beside)
        return cls(name, tree, head, left_out, snapshot.nested, snapshot.notes, snapshot.patches, beside)


class Workplace:
    """One such folder, which one worker has at a time."""

    def __init__(self, git: GitStore, layout: Layout, name: str, lock: atomic.Lock | None) -> None:
        self._git, self._layout, self._lock = git, layout, lock
        self._folder = layout.work / name
        self._root = self._folder / "root"
        self.top = self._root / git.toplevel.relative_to(git.toplevel.anchor)
        self._index = self._folder / "index"
        self._script = self._folder / "script"
        self._tree: str | None = None
        self._known: dict[str, tuple[int, ...]] = {}  # by path, what a file of the snapshot looks like when unchanged
        self._links: set[str] = set()
        self._above: dict[Path, int] = {}  # folders above the project, and when they were last as they should be
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
                    if not (place := cls(git, layout, name, lock)).is_used:
                        return place
                    lock.release()
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

    def use(self, pid: int) -> None:
        """Say which process runs there: it may outlive this one."""
        with contextlib.suppress(StorageFailed):
            atomic.write(self._script, json.dumps(alive.identity(pid)))

    @property
    def is_used(self) -> bool:
        """Whether the script of a worker that was killed goes on there."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return alive.is_alive(json.loads(self._script.read_bytes()))
        return False

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
        self._git.wait_for(self._index)
        self._unlink()  # where the new snapshot may have files
        before = self._clear_out(self._layout.left / f"unknown-{time.strftime('%Y%m%d-%H%M%S')}")
        self._git.lay_out(self._index, code.tree, self.top)
        self._link(code)
        self._known = {path: _looks(self.top / path) for path in self._paths() if path.rstrip("/") not in self._links}
        for path in [path for path, looks in self._known.items() if _is_taken_for(looks, before.get(path), path)]:
            os.utime(self.top / path, ns=(time.time_ns(), self._known[path][0] + 1_000_000_000))
            self._known[path] = _looks(self.top / path)
        for path in [path for path, is_known in self._walk("") if not is_known]:
            atomic.remove_tree(self.top / path)  # a folder that the snapshot has no more, with what Python keeps there
        self._tree = code.tree

    def _paths(self) -> list[str]:
        return [os.fsdecode(path) for path in self._git.paths_in(self._index)]

    def _unlink(self) -> None:
        for folder, folders, files in os.walk(self.top):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if os.path.islink(path) and (os.readlink(path).startswith(os.fspath(self._git.toplevel) + os.sep)):
                    os.unlink(path)
        self._links.clear()

    def _clear_out(self, into: Path) -> dict[str, tuple[int, ...]]:
        """Move what a worker that was killed has left there out of it; returns what the other files look like."""
        known = self._paths() if self._index.exists() else []
        self._known = dict.fromkeys(known, ())
        self._move_out([*(path for path, is_known in self._walk("") if not is_known), *self._strays_above()[0]], into)
        return {path: _looks(self.top / path) for path in known}

    def _link(self, code: Code) -> None:
        """Let everything that is beside the snapshot be reached: what was there then, and what is ignored now."""
        self._looked = time.monotonic()
        ignored = [os.fsdecode(path) for path in self._git.others(self._index, ignored=True)]
        beside = {path.rstrip("/") for path in (*(each.path for each in code.nested), *code.beside, *ignored)}
        for path in [path for path in self._links if not os.path.lexists(self._git.toplevel / path)]:
            (self.top / path).unlink(missing_ok=True)  # a folder could not be made there
            self._links.discard(path)
        for path in sorted(beside):
            if path.partition("/")[0] != FOLDER and os.path.basename(path) != _CACHES:
                self._link_one(path)
        for above, here, name in self._folders_above():
            _mirror(above, here, name)
            self._above[here] = here.stat().st_mtime_ns

    def _link_one(self, path: str) -> None:
        target, here = self._git.toplevel / path, self.top / path
        with contextlib.suppress(OSError):
            here.parent.mkdir(parents=True, exist_ok=True)
            if here.parent.resolve() != self.top.resolve() / os.path.dirname(path):
                return  # a link leads out of here
            if here.is_dir() and not here.is_symlink() and not os.listdir(here):
                here.rmdir()  # what git makes of a submodule
            if not os.path.lexists(here) and os.path.lexists(target):
                here.symlink_to(target)
            if _leads_to(here, target):
                self._links.add(path)

    def _folders_above(self) -> Iterator[tuple[Path, Path, str]]:
        """Each folder above the project, its place here, and the name in it that leads to the project."""
        above = self._git.toplevel
        while above != above.parent:
            name, above = above.name, above.parent
            yield above, self._root / above.relative_to(above.anchor), name

    # -- after a job

    def tidy(self, run_id: str) -> tuple[Path, list[str]]:
        """Make it what it was before the job; returns where what that has written is now, and the paths that this had."""
        into = self._layout.left / run_id
        if self._tree is None:
            return into, []
        strays: list[str] = []
        try:
            self._script.unlink(missing_ok=True)
            atomic.make_directory(self.top)
            there: set[str] = set()
            for path, is_known in self._walk(""):
                (there.add if is_known else strays.append)(path)
            above, is_changed = self._strays_above()
            strays += above
            into = self._move_out(strays, into)
            if strays or is_changed or self._links - there:
                self._looked = 0.0  # one may have taken the place of a link
            self._restore(self._known.keys() - there)
        except (NumbError, OSError):
            self._tree = None  # made anew for the next one
        return into, sorted(strays)

    def _restore(self, paths: Collection[str]) -> None:
        if files := sorted(path for path in paths if not path.endswith("/")):
            self._git.rewrite(self._index, self.top, files)
        for path in paths:
            if path.endswith("/"):
                (self.top / path).mkdir(parents=True, exist_ok=True)
            self._known[path] = _looks(self.top / path)

    def _walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Each path below a folder that is as it should be, or is not; folders without one that is as a whole."""
        here = os.path.join(self.top, folder)
        with contextlib.suppress(OSError):
            if (mode := os.lstat(here).st_mode) & 0o700 != 0o700:
                os.chmod(here, stat.S_IMODE(mode) | 0o700)  # or nothing in it could be moved
        with os.scandir(here) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.name == _CACHES:
                    continue
                if path in self._links and _leads_to(entry, self._git.toplevel / path):
                    yield path, True
                elif entry.is_dir(follow_symlinks=False):
                    found = list(self._walk(f"{path}/"))
                    if f"{path}/" in self._known:
                        yield f"{path}/", True
                        yield from found
                    elif any(is_known for _, is_known in found):
                        yield from found
                    else:
                        yield path, False
                else:
                    known = self._known.get(path)
                    yield path, known is not None and known in ((), _looks(entry))

    def _strays_above(self) -> tuple[list[str], bool]:
        """What in the folders above the project is no link of ours, by its path from there, and whether they have changed."""
        strays, is_changed = [], False
        for above, here, name in self._folders_above():
            with contextlib.suppress(OSError):
                if here.stat().st_mtime_ns == self._above.get(here):
                    continue
                is_changed = True
                with os.scandir(here) as entries:
                    found = [entry for entry in entries if entry.name != name]
                strays += [
                    os.path.relpath(entry.path, self.top) for entry in found if not _leads_to(entry, above / entry.name)
                ]
        return strays, is_changed

    def _move_out(self, paths: Sequence[str], into: Path) -> Path:
        """Move what is at some paths here into a folder that is not there yet: this, or one with a number more, which it is.

        What is above the project goes into one beside that.
        """
        if not paths:
            return into
        atomic.make_directory(into.parent)
        into = next(folder for n in itertools.count(1) if _is_made(folder := into.with_name(_numbered(into.name, n))))
        above, place = into.with_name(f"{into.name}-above"), self.top.relative_to(self._root)
        for path in paths:
            target = above / os.path.normpath(place / path) if path.startswith("../") else into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(StorageFailed):
                atomic.set_aside(self.top / path, target)
        return into

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


def note(into: Path, written: list[str]) -> str:
    """What the record says of what a job has written beside itself."""
    return f"written beside the script, and kept in {FOLDER}/{into.parent.name}/{into.name}: {record.some(written, _SHOWN)}"


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _is_made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _leads_to(link: os.DirEntry[str] | Path, target: Path) -> bool:
    try:
        return os.readlink(link) == os.fspath(target)
    except OSError:
        return False


def _is_taken_for(looks: tuple[int, ...], before: tuple[int, ...] | None, path: str) -> bool:
    """Whether Python would take what it has compiled of another source for that of this one: by the second, and the size."""
    return bool(
        before
        and looks
        and path.endswith(".py")
        and looks != before
        and (looks[0] // 10**9, looks[1]) == (before[0] // 10**9, before[1])
    )


def _mirror(folder: Path, here: Path, but: str) -> None:
    """Let what is in a folder above the project be reached from its place here, and nothing else be there."""
    try:
        names = set(os.listdir(folder)) - {but, ".git"}  # git, asked in the project, is to find that of the project
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


def _looks(path: Path | os.DirEntry[str]) -> tuple[int, ...]:
    try:
        known: Any = os.lstat(path)
    except OSError:
        return ()
    if stat.S_ISDIR(known.st_mode):
        return ()
    return known.st_mtime_ns, known.st_size, known.st_ino, known.st_mode, known.st_ctime_ns
