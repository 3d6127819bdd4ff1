"""The code as it ran: the work tree in an index of numb's own, what had to stay out of it, and what has changed since."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numb import atomic, record
from numb.config import Config
from numb.errors import GitFailed, NumbError, StorageFailed
from numb.folder import Folder
from numb.gitstore import GitStore, Snapshot
from numb.layout import FOLDER
from numb.record import LeftOut, Run


class Snapshots:
    """Takes the snapshots of one work tree. *say* tells the user what stays out of them."""

    def __init__(self, git: GitStore, folder: Folder, settings: Config, say: Callable[[str], None]) -> None:
        self.git, self.folder, self.layout, self.config, self._say = git, folder, folder.layout, settings, say

    def capture(self, index: Path, *, of: GitStore | None = None) -> Snapshot:
        """The state of the project's work tree in *index*; or that of a repository inside it."""
        return (of or self.git).capture(
            index,
            index if of else self.layout.index,
            max_bytes=int(self.config.max_file_mb * 1e6),
            exclude=self.config.exclude,
        )

    def capture_anew(self, index: Path) -> Snapshot:
        """Take the snapshot without the index of the last one.

        That may name what `git gc` has deleted since, or be damaged where git does not look: git trusts it for every file that
        has not changed, and only who makes a tree of it finds out.
        """
        self.forget_index()
        atomic.remove_tree(index)
        return self.capture(index)

    def take(self, index: Path) -> tuple[Snapshot, str]:
        """The work tree as it is, in an index, and its tree."""
        snapshot = self.capture(index)
        try:
            return snapshot, self.git.write_tree(index)
        except GitFailed:
            return self.capture_anew(index), self.git.write_tree(index)

    def changed_since(self, run: Run, tree: str | None = None) -> list[str] | None:
        """The files in which the work tree, or a *tree*, differs from a run's snapshot; None when that cannot be found out."""
        if run.commit is None:
            return None
        try:
            if tree is not None:
                return [path for path in names(self.git.changed(run.commit, tree)) if not path.startswith(f"{FOLDER}/")]
            with self.aside() as (git, _, tree):
                return names(git.changed(run.commit, tree))
        except NumbError:
            return None

    @contextlib.contextmanager
    def aside(self) -> Iterator[tuple[GitStore, Snapshot, str]]:
        """The snapshot that a run would take now, and its tree, in a git that forgets both at the end."""
        with self.folder.scratch("aside") as index:
            git = self.git.aside(index.with_name("objects"))
            yield git, *Snapshots(git, self.folder, self.config, self._say).take(index)

    # -- the index of the last snapshot, kept for its stat cache

    def keep_index(self, index: Path) -> None:
        """For snapshots that the branch will hold, no others: what nothing points to, `git gc` prunes."""
        atomic.copy_cache(index, self.layout.index)

    def forget_index(self) -> None:
        with contextlib.suppress(StorageFailed):
            atomic.remove_tree(self.layout.index)

    # -- what a snapshot cannot hold

    def described(self, run: Run, snapshot: Snapshot, content: Path) -> Run:
        """Put what the snapshot cannot hold into the record: into its fields, and its files into *content*."""
        write_patches(snapshot.patches, content)
        return replace(run, left_out=snapshot.left_out, nested=snapshot.nested, notes=snapshot.notes)

    def tell_left_out(self, snapshot: Snapshot) -> None:
        """Say once for each file that it is not in the snapshots."""
        known = self._known_hashes()
        for item in snapshot.left_out:
            if item.path not in known:
                self._say(f"{item.path} ({_megabytes(item.size)}) stays out of the snapshot: {item.why}")
        for note in snapshot.notes:
            self._say(note)

    def hashed(self, left_out: Sequence[LeftOut]) -> tuple[LeftOut, ...]:
        """Hash large files that stay out, once for each state; a secret's hash could be guessed back, so it has none."""
        if not left_out:
            return ()
        known = self._known_hashes()
        now: dict[str, Any] = {}
        hashed = []
        for item in left_out:
            path = self.git.toplevel / item.path
            digest = None
            with contextlib.suppress(OSError):
                status = path.lstat()
                stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
                before = known.get(item.path) or {}
                if not item.why.endswith("secret"):
                    digest = before.get("sha256") if before.get("stamp") == stamp else _sha256(path)
                now[item.path] = {"stamp": stamp, "sha256": digest}
            hashed.append(replace(item, sha256=digest))
        if now != known:
            atomic.write(self.layout.hashes, record.dumps(now))
        return tuple(hashed)

    def _known_hashes(self) -> dict[str, Any]:
        try:
            return record.loads(self.layout.hashes.read_bytes())
        except (OSError, ValueError):
            return {}


def write_patches(patches: Mapping[str, bytes], content: Path) -> None:
    """The uncommitted changes of repositories inside the work tree, as files of a record."""
    for name, patch in patches.items():
        path = content / name
        path.parent.mkdir(exist_ok=True)
        atomic.write(path, patch)


def names(paths: Iterable[bytes]) -> list[str]:
    return [os.fsdecode(path) for path in paths]


def _sha256(path: Path) -> str:
    import hashlib  # loads OpenSSL, which few snapshots need

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
