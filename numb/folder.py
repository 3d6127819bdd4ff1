"""The folder `.nmb/`: made and hidden from git, its format, and the objects that all work trees of a repository share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic, inflight, layout
from numb.errors import BranchInUse, NotInitialised, NumbError, StorageFailed, StoreTooNew
from numb.gitstore import GitStore
from numb.layout import Layout

if TYPE_CHECKING:
    from numb.store.objects import Objects

FORMAT = 1


class Folder:
    """The `.nmb/` of one work tree. Raises where what is there cannot be used."""

    def __init__(self, git: GitStore) -> None:
        self.git = git
        self.layout = Layout(git.toplevel)
        _check(self.layout)

    def make(self) -> None:
        """Make the folder with the files that hide it and say its format, unless they are there."""
        _make(self.layout)
        if self.git.is_linked and not self.layout.objects.is_dir():
            with contextlib.suppress(NumbError):  # then they stay in this work tree, and doctor says so
                atomic.link(self.layout.objects, self._shared_objects())

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A place for an index of one command."""
        folder = self.layout.scratch / f"{name}-{os.urandom(4).hex()}"
        atomic.make_directory(folder)
        try:
            yield folder / "index"
        finally:
            atomic.remove_tree(folder)

    # -- its format

    def damaged_format(self) -> str | None:
        """What the file says that should say the format, when that is not a number."""
        found = _format_of(self.layout)
        return None if found is None or _is_number(found) else found

    def write_format(self) -> None:
        atomic.write(self.layout.format, f"{FORMAT}\n")

    # -- its objects

    @cached_property
    def objects(self) -> Objects:
        from numb.store.objects import Objects

        return Objects(self.layout.objects)

    def objects_at_risk(self) -> int:
        """How many objects `git worktree remove` would delete with this work tree."""
        at_risk = self.git.is_linked and not self.layout.objects.is_symlink()
        return sum(1 for _ in self.objects) if at_risk else 0

    def share_objects(self) -> None:
        """Move the objects of a linked work tree to those of all. Raises `BranchInUse` while a run may write to them."""
        from numb.store.objects import Objects

        if any(left.running for left in inflight.all_left(self.layout)):
            raise BranchInUse("a run is in flight here", "numb list")
        shared = self._shared_objects()
        with self.scratch("link") as place:
            atomic.link(place, shared)  # where there can be no links, the objects would be out of sight
        Objects(shared).take(self.objects)
        atomic.link(self.layout.objects, shared)

    def _shared_objects(self) -> Path:
        """The folder that keeps the objects of all work trees, made if need be; `git worktree remove` does not reach it."""
        main = self.git.main_work_tree()
        if main is None:
            shared = layout.objects_in_git(self.git.common_dir)
        else:
            store = Layout(main)
            _check(store)
            _make(store)
            shared = store.objects
        atomic.make_directory(shared)
        if not os.access(shared, os.W_OK | os.X_OK):
            raise StorageFailed(f"cannot write to {shared}", f"ls -ld {shared} shows who may write there")
        return shared


def _make(store: Layout) -> None:
    if store.format.exists() and store.ignore.exists():
        return
    atomic.make_directory(store.folder)
    atomic.write(store.ignore, "*\n")
    atomic.write(store.format, f"{FORMAT}\n")


def _check(store: Layout) -> None:
    if store.folder.is_symlink():
        raise NotInitialised(f"{store.folder} is a symbolic link, which numb does not follow", f"rm {store.folder}")
    found = _format_of(store)
    if found and _is_number(found) and int(found) > FORMAT:
        raise StoreTooNew(f"{store.folder} was written by a later numb (format {found})", "pip install --upgrade numb")


def _format_of(store: Layout) -> str | None:
    """What stands in the file; None when it is not made yet, or removed (`git clean -fdx`): who writes makes it again."""
    try:
        return store.format.read_bytes()[:100].decode(errors="replace").strip()
    except OSError:
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
