"""Objects in a folder of this machine, or one that is mounted."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from numb.errors import RemoteFailed
from numb.store.objects import Incoming, Objects, Ref
from numb.store.places import NO_FILE, PIECE, Remote, Upload, is_abandoned


class Folder(Remote):
    """A folder, which must be there: below a place where nothing is mounted, nothing is to be written."""

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(url)
        self._root = root
        self._objects = Objects(root / "objects")

    def sizes(self, digests: Set[str]) -> dict[str, int]:
        os.scandir(self._root).close()
        found = {}
        for entry in self._entries({digest[:2] for digest in digests}):
            if entry.name in digests:
                is_file = entry.is_file(follow_symlinks=False)
                found[entry.name] = entry.stat(follow_symlinks=False).st_size if is_file else NO_FILE
        return found

    def _entries(self, folders: Iterable[str]) -> Iterator[os.DirEntry[str]]:
        for name in sorted(folders):
            try:
                with os.scandir(self._objects.root / name) as entries:
                    yield from entries
            except FileNotFoundError:
                pass

    def prepare(self, wanted: Set[str]) -> None:
        others = [entry for entry in self._entries(["tmp"]) if entry.name[:64] not in wanted]
        old = [entry for entry in others if is_abandoned(entry.stat(follow_symlinks=False).st_mtime)]
        now = self._now() if old else None
        for entry in old:
            if is_abandoned(entry.stat(follow_symlinks=False).st_mtime, now):
                try:
                    os.unlink(entry.path)
                except OSError:
                    pass  # another's, who may still need it, or gone by now

    def _now(self) -> float | None:
        """The time by the clock that gives files their times, which is not ours where the folder is mounted."""
        probe = self._objects.root / "tmp" / f"now.{os.getpid()}"
        try:
            probe.mkdir()
            now = probe.stat().st_mtime
            probe.rmdir()
        except OSError:
            return None
        return now

    def upload(self, ref: Ref, sender: str) -> Upload:
        return _FolderUpload(self._objects.incoming(ref, sender))

    def read(self, ref: Ref, start: int) -> Iterator[bytes]:
        with self._objects.opened(ref.digest, ref.size) as fd:
            while start < ref.size and (piece := os.pread(fd, min(PIECE, ref.size - start), start)):
                yield piece
                start += len(piece)

    def explain(self, error: Exception) -> RemoteFailed:
        number = error.errno if isinstance(error, OSError) else None
        command = "mkdir -p" if number == errno.ENOENT else "ls -ld"
        reason = os.strerror(number) if number else str(error)
        return RemoteFailed(f"{self}: {reason}", f"{command} {shlex.quote(str(self._root))}")

    def removal(self, digest: str) -> str:
        return f"rm -r {shlex.quote(str(self._objects.path(digest)))}"

    def close(self) -> None:
        """There is nothing to end."""


class _FolderUpload(Upload):
    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    def __enter__(self) -> Upload:
        self._incoming.__enter__()
        self.start = self._incoming.size
        return self

    def __exit__(self, *error: object) -> None:
        self._incoming.__exit__(*error)

    def write(self, piece: bytes) -> None:
        self._incoming.write(piece)

    def keep(self) -> bool:
        if not self._incoming.is_whole():
            self._incoming.begin_again()
            self.start = 0
            return False
        self._incoming.keep()
        return True

    def remove(self) -> None:
        self._incoming.remove()
