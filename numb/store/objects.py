"""Bytes named by their content: `ab/abcdef…` holds the bytes whose BLAKE3 is `abcdef…`, read-only.

`b3sum` checks an object without numb. An object is there whole, synced to the disk, or not at all; nothing is
written twice. Nothing read here is trusted: a name is checked before it becomes a path, symbolic links are not
followed, sizes are compared before anything is read, and bytes are handed out only after their hash has been compared.

Who writes objects does so within `in_use`, and names them in a manifest before it ends: what no manifest names may be
collected, and is not meanwhile.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from numb import atomic
from numb.atomic import Bytes
from numb.errors import ObjectCorrupt, ObjectMissing, StorageFailed

Content = Bytes | Iterable[Bytes]

_DIGEST = re.compile("[0-9a-f]{64}")
_PIECE = 1 << 20
_WRITERS = 4  # syncs of several files at once cost little more than one
_UNWRITTEN = 64 << 20  # bytes that may wait for a writer
_READ_ONLY = 0o444
_PATIENCE = 60.0  # seconds to wait for a collection, which takes a few
_WAY_ON = "numb doctor"

_blake3: Any = None
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
        self._sound: dict[str, tuple[int, ...]] = {}  # what has been compared with its name, as `stat` tells it apart
        self._own: dict[str, tuple[int, ...]] = {}  # what this process has written

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep objects from being collected; several processes may at the same time."""
        atomic.make_directory(self.root)
        lock = atomic.Lock(self.lock, shared=True)
        lock.try_acquire(_PATIENCE)  # without it, better a small risk for these objects than their certain loss
        try:
            yield
        finally:
            lock.release()

    @property
    def lock(self) -> Path:
        """Shared by those who write objects, and held alone by who collects them."""
        return self.root / "lock"

    @contextmanager
    def saving(self) -> Iterator[Saving]:
        """Keep many objects, which are on the disk together when the block ends. Raises what kept one of them from it."""
        saving = Saving(self)
        try:
            yield saving
        except BaseException:
            saving.give_up()
            raise
        saving.finish()

    def put(self, content: Content) -> Ref:
        """Keep *content*, on the disk when this returns.

        Content in memory (bytes, or a list or tuple of them) that is there already costs a hash and no writing, and another
        one the first time, to compare what is there. A damaged object is replaced by the good bytes at hand. Where content
        changes while it is being read, the name is that of the bytes that were kept.
        """
        chunks = _chunks(content)
        if isinstance(chunks, (list, tuple)):
            ref = _ref(chunks)
            if self.is_intact(ref):
                return ref
        with self._draft() as draft:
            ref = _fill(draft, chunks)
            if not self.is_intact(ref):
                self._keep(draft, ref)
        return ref

    def is_intact(self, ref: Ref) -> bool:
        """Whether the object is there with the bytes that its name says; it is read again only if it has changed since."""
        stamp = self._stamp(ref)
        if stamp is None:
            return False
        if self._sound.get(ref.digest) != stamp:
            try:
                self.verify(ref.digest)
            except (ObjectMissing, ObjectCorrupt):
                return False
            if self._own.get(ref.digest) != stamp:
                stamp = self._claim(ref) or stamp
            self._sound[ref.digest] = stamp
        return True

    def _claim(self, ref: Ref) -> tuple[int, ...] | None:
        """Leave a sign, a new time, that somebody else needs the object too: its writer does not `discard` it then."""
        try:
            os.utime(self.path(ref.digest), follow_symlinks=False)
        except OSError:  # another user's, whose process may then drop it; the next who saves writes it anew
            return None
        return self._stamp(ref)

    def discard(self, refs: Iterable[Ref], needed: Callable[[], Set[Ref]] = frozenset) -> bool:
        """Remove those among *refs* that this process has written and nobody else has come to need. False while others save.

        *needed* is asked when nobody saves any more.
        """
        candidates = [ref for ref in refs if ref.digest in self._own]
        if not candidates:
            return True
        lock = atomic.Lock(self.lock)
        if not lock.try_acquire():
            return False
        try:
            still = needed()
            for ref in candidates:
                if ref in still:
                    continue
                if self._stamp(ref) == self._own.pop(ref.digest):
                    self._sound.pop(ref.digest, None)
                    self.path(ref.digest).unlink(missing_ok=True)
        finally:
            lock.release()
        return True

    def _stamp(self, ref: Ref) -> tuple[int, ...] | None:
        """What is another one when the object has been written anew or damaged by a program; None where it is not there."""
        try:
            with self.opened(ref.digest, ref.size) as fd:
                found = _fstat(fd)
        except (ObjectMissing, ObjectCorrupt):
            return None
        return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_ctime_ns

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
        check_name(digest)
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
        with self.opened(digest, size) as fd, _fdopen(fd, "rb", buffering=0, closefd=False) as file:
            content = bytearray(size)
            rest = memoryview(content)
            while len(rest) and (count := file.readinto(rest)):
                rest = rest[count:]
        self._compare(digest, _ref([content]).digest)
        return content

    @contextmanager
    def opened(self, digest: str, size: int) -> Iterator[int]:
        """A descriptor of the object, to be mapped; its bytes are still to be compared, with `refuse_other_hash`.

        Raises `ObjectMissing`, and `ObjectCorrupt` if the size is another.
        """
        with self._opened(digest) as fd:
            found = _fstat(fd).st_size
            if found != size:
                raise self._corrupt(digest, f"it has {found} bytes instead of {size}")
            yield fd

    def refuse_other_hash(self, found: str, hashed: str, digest: str, size: int) -> None:
        """Raise `ObjectCorrupt` unless what was *found* to be the hash of *size* bytes of the object *digest* is *hashed*."""
        if found != hashed:
            what = "its bytes" if hashed == digest else f"some of its {size} bytes"
            raise self._corrupt(digest, f"{what} are not those that were written")

    def verify(self, digest: str) -> None:
        """Read the object and compare its hash, in constant memory; raises `ObjectMissing` or `ObjectCorrupt`."""
        with self._opened(digest) as fd, _fdopen(fd, "rb", buffering=0, closefd=False) as file:
            found = _ref(iter(lambda: file.read(_PIECE), b"")).digest
        self._compare(digest, found)

    def pieces(self, ref: Ref, length: int = _PIECE) -> Iterator[bytes]:
        """Yield the object's bytes, *length* at a time; which of them were good is known only when it has ended.

        Raises `ObjectMissing`, and `ObjectCorrupt` if the size (compared before reading) or, at the end, the hash is another.
        """
        digest, left = _hasher(), ref.size
        with self.opened(ref.digest, ref.size) as fd, _fdopen(fd, "rb", closefd=False) as file:
            while left and (piece := file.read(min(length, left))):
                digest.update(piece)
                left -= len(piece)
                yield piece
        self._compare(ref.digest, digest.hexdigest())

    def incoming(self, ref: Ref, sender: str = "") -> Incoming:
        """Begin to take an object in, or go on with what came of it the last time from the same *sender*."""
        check_name(ref.digest)
        name = f"{ref.digest}.{sender}" if sender else ref.digest
        return Incoming(self, ref, atomic.Partial(self._folder("tmp") / name))

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all objects in order, damaged ones included; other files are passed over."""
        for folder in _names(self.root):
            for name in _names(self.root / folder) if len(folder) == 2 else ():
                if _DIGEST.fullmatch(name) and name.startswith(folder):
                    yield name

    def _write(self, ref: Ref, chunks: Sequence[Bytes]) -> Path:
        """Write an object whose bytes are known, and say in which folder its name is still to be synced."""
        with self._draft() as draft:
            for chunk in chunks:
                draft.write(chunk)
            folder = self._folder(ref.digest[:2])
            try:
                draft.keep_new_unsynced(self.path(ref.digest))
            except FileExistsError:  # damaged; or another process was faster, which may drop what only it has written
                if self.is_intact(ref):
                    return folder
                draft.keep_unsynced(self.path(ref.digest))
        if (stamp := self._stamp(ref)) is not None:
            self._sound[ref.digest] = self._own[ref.digest] = stamp
        return folder

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
                f"{path} is missing", "numb pull --objects, where a remote has it, or: numb doctor"
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


class Incoming:
    """An object that comes piece by piece, perhaps in several goes; it gets its name when all of it is there.

    What has come stays when the block ends, and is gone on with by the next.
    """

    def __init__(self, objects: Objects, ref: Ref, partial: atomic.Partial) -> None:
        self._objects = objects
        self._ref = ref
        self._partial = partial
        self._digest = _hasher()

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self._partial.size

    def write(self, piece: Bytes) -> None:
        """Take the next bytes."""
        self._digest.update(piece)
        self._partial.write(piece)

    def begin_again(self) -> None:
        """Drop what has come."""
        self._partial.empty()
        self._digest = _hasher()

    def is_whole(self) -> bool:
        """Whether what has come is what the name says."""
        return bool(self.size == self._ref.size and self._digest.hexdigest() == self._ref.digest)

    def keep(self) -> None:
        """Give the object its name; on the disk when this returns. Only what `is_whole` may be kept."""
        self._objects._folder(self._ref.digest[:2])
        self._partial.keep(self._objects.path(self._ref.digest))

    def remove(self) -> None:
        """Drop what has come, and its file."""
        self._partial.remove()

    def __enter__(self) -> Incoming:
        try:
            if self.size > self._ref.size:
                self._partial.empty()
            for piece in self._partial.pieces():
                self._digest.update(piece)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._partial.__exit__()


class Saving:
    """Objects on their way to the disk: hashed by who brings them, written and synced by threads beside each other."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._waiting: deque[tuple[Ref, Sequence[Bytes]]] = deque()
        self._unwritten = 0  # bytes, of those that wait and those that are being written
        self._change = threading.Condition()
        self._writers: list[threading.Thread] = []
        self._idle = 0
        self._over = False
        self._taken: set[str] = set()
        self._folders: set[Path] = set()
        self._error: BaseException | None = None

    def put(self, chunks: Sequence[Bytes], ref: Ref | None = None) -> Ref:
        """Keep *chunks*, which must not change until the end; *ref* is theirs, where it is known already."""
        ref = ref or _ref(chunks)
        if ref.digest in self._taken or self._objects.is_intact(ref):
            return ref
        self._taken.add(ref.digest)
        with self._change:
            while self._unwritten and self._unwritten + ref.size > _UNWRITTEN and self._error is None:
                self._change.wait()
            self._waiting.append((ref, chunks))
            self._unwritten += ref.size
            self._change.notify()
            wanted = self._idle < len(self._waiting) and len(self._writers) < _WRITERS
        if wanted and not self._start():
            self._write_waiting()
        return ref

    def _start(self) -> bool:
        """Let one more thread write. False where none can begin any more, as in the exit hooks of Python 3.12 and later."""
        writer = threading.Thread(target=self._write_until_over, name="numb-objects", daemon=True)
        try:
            writer.start()
        except RuntimeError:
            return bool(self._writers)
        self._writers.append(writer)
        return True

    def _write_until_over(self) -> None:
        while True:
            with self._change:
                self._idle += 1
                while not self._waiting and not self._over:
                    self._change.wait()
                self._idle -= 1
                if not self._waiting:
                    return
            self._write_waiting()

    def _write_waiting(self) -> None:
        while True:
            with self._change:
                if not self._waiting:
                    return
                ref, chunks = self._waiting.popleft()
            try:
                if self._error is None:
                    self._folders.add(self._objects._write(ref, chunks))
            except BaseException as error:  # told by `finish`, in the thread that saves
                self._error = self._error or error
            with self._change:
                self._unwritten -= ref.size
                self._change.notify_all()

    def finish(self) -> None:
        """Wait until all is written, and bring the names to the disk. Raises what went wrong."""
        self._end()
        if self._error is not None:
            raise self._error
        for folder in sorted(self._folders):
            atomic.sync_directory(folder)

    def give_up(self) -> None:
        """Drop what has not been begun."""
        with self._change:
            self._waiting.clear()
        self._end()

    def _end(self) -> None:
        with self._change:
            self._over = True
            self._change.notify_all()
        for writer in self._writers:
            writer.join()


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


def check_name(digest: str) -> None:
    """Raise `ObjectCorrupt` if *digest*, which may come from elsewhere, is not 64 hexadecimal digits."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ObjectCorrupt(f"not the name of an object: {str(digest)[:80]!r}", _WAY_ON)


def hash_of(content: Bytes) -> str:
    """The name of an object with these bytes."""
    return str(_hasher(content).hexdigest())


def _hasher(content: Bytes = b"") -> Any:
    global _blake3
    if _blake3 is None:
        from blake3 import blake3  # 3 ms, which a script that keeps no weights need not spend

        _blake3 = blake3
    return _blake3(content)


def _size_of(content: Bytes) -> int:
    return memoryview(content).nbytes


def _ref(chunks: Iterable[Bytes]) -> Ref:
    digest, size = _hasher(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += _size_of(chunk)
    return Ref(digest.hexdigest(), size)


def _fill(draft: atomic.Draft, chunks: Iterable[Bytes]) -> Ref:
    digest, size = _hasher(), 0
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
