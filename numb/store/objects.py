"""Bytes named by their content: `ab/abcdef…` holds the bytes whose SHA-256 is `abcdef…`, read-only.

`sha256sum` checks an object without numb. An object is there whole, synced to the disk, or not at all; nothing is
written twice. Nothing read here is trusted: a name is checked before it becomes a path, symbolic links are not
followed, sizes are compared before anything is read, and bytes are handed out only after their hash has been compared.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from numb import atomic
from numb.atomic import Bytes
from numb.errors import ObjectCorrupt, ObjectMissing, StorageFailed

Content = Bytes | Iterable[Bytes]

_DIGEST = re.compile("[0-9a-f]{64}")
_PIECE = 1 << 20
_READ_ONLY = 0o444
_WAY_ON = "numb doctor"

_open, _close, _fstat, _lstat, _scandir, _fdopen = os.open, os.close, os.fstat, os.lstat, os.scandir, os.fdopen


@dataclass(frozen=True, slots=True)
class Ref:
    """An object's name and its size in bytes."""

    digest: str
    size: int


class Objects:
    """The objects below one directory, which is made when the first object comes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, content: Content) -> Ref:
        """Keep *content*, on the disk when this returns.

        Content in memory (bytes, or a list or tuple of them) that is there already costs two hashes and no writing. A
        damaged object is replaced by the good bytes at hand. Where content changes while it is being read, the name is
        that of the bytes that were kept.
        """
        chunks = _chunks(content)
        if isinstance(chunks, (list, tuple)):
            ref = _ref(chunks)
            if self._intact(ref):
                return ref
        with self._draft() as draft:
            ref = _fill(draft, chunks)
            if not self._intact(ref):
                self._keep(draft, ref)
        return ref

    def _intact(self, ref: Ref) -> bool:
        """Whether the object is there with the bytes that its name says."""
        if not self.has(ref.digest, ref.size):
            return False
        try:
            self.verify(ref.digest)
        except (ObjectMissing, ObjectCorrupt):
            return False
        return True

    def take(self, other: Objects) -> None:
        """Move the objects of *other* here, damaged ones too, and remove its folder."""
        for digest in other:
            try:
                self.verify(digest)
            except (ObjectMissing, ObjectCorrupt):
                self._folder(digest[:2])
                atomic.move(other.path(digest), self.path(digest))
        atomic.remove_tree(other.root)

    def path(self, digest: str) -> Path:
        """Where the object is, or would be; `ObjectCorrupt` if *digest* is not 64 hexadecimal digits."""
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ObjectCorrupt(f"not the name of an object: {str(digest)[:80]!r}", _WAY_ON)
        return self.root / digest[:2] / digest

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether there is such an object, of this size if one is given; its bytes are not read."""
        try:
            with self._opened(digest) as fd:
                return size is None or _fstat(fd).st_size == size
        except (ObjectMissing, ObjectCorrupt):
            return False

    def open_verified(self, digest: str, size: int) -> bytearray:
        """Read the object's bytes; they are the caller's own, and they have the hash that the name says.

        Raises `ObjectMissing`, and `ObjectCorrupt` if the size (compared before reading) or the hash is another.
        """
        with self._opened(digest) as fd, _fdopen(fd, "rb", buffering=0, closefd=False) as file:
            found = _fstat(fd).st_size
            if found != size:
                raise self._corrupt(digest, f"it has {found} bytes instead of {size}")
            content = bytearray(size)
            rest = memoryview(content)
            while len(rest) and (count := file.readinto(rest)):
                rest = rest[count:]
        self._compare(digest, _ref([content]).digest)
        return content

    def verify(self, digest: str) -> None:
        """Read the object and compare its hash, in constant memory; raises `ObjectMissing` or `ObjectCorrupt`."""
        with self._opened(digest) as fd, _fdopen(fd, "rb", buffering=0, closefd=False) as file:
            found = _ref(iter(lambda: file.read(_PIECE), b"")).digest
        self._compare(digest, found)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all objects in order, damaged ones included; other files are passed over."""
        for folder in _names(self.root):
            for name in _names(self.root / folder) if len(folder) == 2 else ():
                if _DIGEST.fullmatch(name) and name.startswith(folder):
                    yield name

    def _draft(self) -> atomic.Draft:
        return atomic.Draft(self._folder("tmp") / "object", mode=_READ_ONLY)

    def _keep(self, draft: atomic.Draft, ref: Ref) -> None:
        self._folder(ref.digest[:2])
        draft.keep(self.path(ref.digest))

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        atomic.make_directory(folder)
        if not S_ISDIR(_lstat(folder).st_mode):
            raise ObjectCorrupt(f"{folder} is not a directory", _WAY_ON)
        return folder

    @contextmanager
    def _opened(self, digest: str) -> Iterator[int]:
        path = self.path(digest)
        try:
            folder = _open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # Non-blocking: a FIFO in the place of an object must not hold us.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = _open(path.name, flags, dir_fd=folder)
            finally:
                _close(folder)
        except FileNotFoundError:
            raise ObjectMissing(
                f"{path} is missing", "copy it from another .nmb/objects that has it, or: numb doctor"
            ) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise self._corrupt(digest, "it is not a regular file") from error
            raise _unreadable(path, error) from error
        try:
            if not S_ISREG(_fstat(fd).st_mode):
                raise self._corrupt(digest, "it is not a regular file")
            yield fd
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            _close(fd)

    def _compare(self, digest: str, found: str) -> None:
        if found != digest:
            raise self._corrupt(digest, f"its bytes are those of {found}")

    def _corrupt(self, digest: str, reason: str) -> ObjectCorrupt:
        return ObjectCorrupt(f"{self.path(digest)} is damaged: {reason}", _WAY_ON)


def _unreadable(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"cannot read {path}: {error.strerror or error}", f"ls -l {path}")


def _names(folder: Path) -> list[str]:
    try:
        with _scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _chunks(content: Content) -> Iterable[Bytes]:
    return [content] if isinstance(content, (bytes, bytearray, memoryview)) else content


def _ref(chunks: Iterable[Bytes]) -> Ref:
    digest, size = sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += memoryview(chunk).nbytes
    return Ref(digest.hexdigest(), size)


def _fill(draft: atomic.Draft, chunks: Iterable[Bytes]) -> Ref:
    digest, size = sha256(), 0
    for piece in _pieces(chunks):
        digest.update(piece)
        draft.write(piece)
        size += len(piece)
    return Ref(digest.hexdigest(), size)


def _pieces(chunks: Iterable[Bytes]) -> Iterator[memoryview]:
    """Yield the same bytes in pieces of 1 MiB, each a copy that is valid until the next.

    Copied, because another thread or process may be training on the memory that *chunks* look at: what is hashed must
    be what is written. Through one small buffer, because touching 100 MB of fresh memory costs more than hashing it.
    """
    buffer, filled = memoryview(bytearray(_PIECE)), 0
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        while len(rest):
            part = rest[: _PIECE - filled]
            buffer[filled : filled + len(part)] = part
            filled, rest = filled + len(part), rest[len(part) :]
            if filled == _PIECE:
                yield buffer
                filled = 0
    yield buffer[:filled]
