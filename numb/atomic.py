"""The one room that renames and fsyncs: what stands under its own name is whole and on the disk.

    write           a file: the old content or the new
    create          a file that must not be there yet
    replacing       a file that a library insists on writing itself
    copy_cache      a file that can be made again
    set_aside       a file that is in the way
    move            a file, to another file system if need be
    link            a symbolic link
    Draft           a file whose name is known only when it is complete
    Partial         a file that comes in several goes, found again by the next
    Appender        lines at the end of a file, one system call for each
    make_directory  a directory that is still there after a power cut
    sync_directory  the names in a directory, for several files at once
    new_directory   a directory that appears complete or not at all
    remove_tree     a directory that vanishes at once
    Lock            somebody is at it; the kernel frees it when the holder dies

What is not complete is called `.<name>.<pid>-<random>.tmp`. A crash may leave one behind, and nothing reads it. When
the disk is full, read-only or failing, everything here raises `StorageFailed`, which names the path and the reason.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from time import sleep as _sleep

from numb.errors import StorageFailed, TargetExists

# Half of numb lives in the user's process, where a script may replace `os.write` or `open` (F15).
_open, _close, _write, _pread, _lseek = os.open, os.close, os.write, os.pread, os.lseek
_fsync, _fstat, _stat, _lexists, _walk = os.fsync, os.fstat, os.stat, os.path.lexists, os.walk
_pwrite, _truncate, _utime, _chmod = os.pwrite, os.ftruncate, os.utime, os.fchmod
_rename, _replace, _link, _unlink, _mkdir = os.rename, os.replace, os.link, os.unlink, os.mkdir
_getpid, _urandom, _flock = os.getpid, os.urandom, fcntl.flock

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE = 0o222
_NOT_OURS = {errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_TRY_AGAIN_AFTER = 0.001
_TRIES_AT_LEAST = 4

Bytes = bytes | bytearray | memoryview
Name = str | os.PathLike[str]


def write(path: Name, content: Bytes | str, *, mode: int = 0o666) -> None:
    """Give the file *path* this content: afterwards, whatever happened, it has the old one or the new one, whole.

    A symbolic link at *path* is replaced, not followed. *mode* is taken less the umask.
    """
    with Draft(path, mode=mode) as draft:
        draft.write(content.encode() if isinstance(content, str) else content)
        draft.keep(path)


def create(path: Name, content: Bytes | str, *, mode: int = 0o666) -> None:
    """Make the file *path*, whole or not at all; `FileExistsError` if anything has that name, which is left alone."""
    with Draft(path, mode=mode) as draft:
        draft.write(content.encode() if isinstance(content, str) else content)
        draft.keep_new(path)


@contextmanager
def replacing(path: Name) -> Iterator[Path]:
    """Yield the name of a file to be made beside *path*, and put it in the place of *path* as `write` does."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        with _failing("write", path):
            _sync(temporary)
            _replace(temporary, path)
            _sync_directory(path.parent)
    except BaseException:
        _discard(temporary)
        raise


def copy_cache(source: Name, target: Name) -> None:
    """Copy a file that may be lost, with its times, and put the copy under its name whole. A missing one is no error.

    The times matter: git trusts an index entry that is older than the index.
    """
    import shutil  # 5 ms, for something that the user's process never does

    if Path(source) == Path(target):
        return
    temporary = _temporary(Path(target))
    with _failing("write", Path(target)):
        try:
            shutil.copy2(source, temporary)
            _replace(temporary, target)
        except FileNotFoundError:
            return
        except BaseException:
            _discard(temporary)
            raise


def set_aside(path: Name, aside: Name) -> None:
    """Rename a file out of the way, over whatever was put there before."""
    with _failing("rename", Path(path)):
        _replace(path, aside)


def move(path: Name, target: Name) -> None:
    """Give the file *path* the name *target*, over whatever has it; on the disk when this returns."""
    path, target = Path(path), Path(target)
    with _failing("move", path):
        try:
            _replace(path, target)
            _sync_directory(target.parent)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        with path.open("rb") as file, Draft(target, mode=_fstat(file.fileno()).st_mode & 0o777) as draft:
            while piece := file.read(1 << 20):
                draft.write(piece)
            draft.keep(target)
        _unlink(path)


def link(path: Name, target: Name) -> None:
    """Make *path* a symbolic link to *target*, over whatever file or link has that name."""
    path = Path(path)
    temporary = _temporary(path)
    with _failing("make", path):
        os.symlink(target, temporary)
        try:
            _replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise
        _sync_directory(path.parent)


class Draft:
    """A file that nobody knows of until `keep` gives it a name; left without one, it is removed.

    It is made beside *near*, which must be on the file system of its final name.
    """

    def __init__(self, near: Name, *, mode: int = 0o666) -> None:
        self._near = Path(near)
        self._temporary: Path | None = _temporary(self._near)
        with _failing("write", self._near):
            self._fd = _open(self._temporary, _NEW_FILE, mode)

    def write(self, content: Bytes) -> None:
        """Append all of *content*."""
        rest = memoryview(content).cast("B")
        with _failing("write", self._near):
            while len(rest):
                rest = rest[_write(self._fd, rest) :]

    def keep(self, path: Name) -> None:
        """Rename to *path* what has been written, replacing what is there; on the disk when this returns."""
        self.keep_unsynced(path)
        sync_directory(Path(path).parent)

    def keep_unsynced(self, path: Name) -> None:
        """As `keep`, but its name is on the disk only after `sync_directory`, which serves several files at once."""
        path = Path(path)
        with _failing("write", path):
            _fsync(self._fd)
            _replace(self._pending, path)
            self._temporary = None

    def keep_new(self, path: Name) -> None:
        """As `keep`, but raise `FileExistsError` if there is anything called *path*."""
        self.keep_new_unsynced(path)
        sync_directory(Path(path).parent)

    def keep_new_unsynced(self, path: Name) -> None:
        """As `keep_new`, with the name on the disk only after `sync_directory`."""
        path = Path(path)
        with _failing("write", path):
            _fsync(self._fd)
            _link_new(self._pending, path)

    @property
    def _pending(self) -> Path:
        if self._temporary is None:
            raise ValueError("this draft has been kept already")
        return self._temporary

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self._fd)
        if self._temporary is not None:
            _discard(self._temporary)


class Partial:
    """A file that comes in several goes, of one process after the other, until `keep` gives it its name, read-only.

    What is at *path* is gone on with. Where another holder is at it, or where it is no file of ours alone, this is a new
    file under a name that nobody else has, which is removed unless it is kept.
    """

    def __init__(self, path: Name) -> None:
        self._path: Path | None = Path(path)
        with _failing("write", self._path):
            found = _begun(self._path)
            self._passing = found is None
            if found is None:
                self._path = _temporary(self._path)
                found = _open(self._path, _NEW_FILE & ~os.O_WRONLY | os.O_RDWR, 0o666)
            self._fd = found
            self.size = _fstat(self._fd).st_size

    def pieces(self, length: int = 1 << 20) -> Iterator[bytes]:
        """Yield what is there, from the start."""
        at = 0
        with _failing("read", self._pending):
            while at < self.size and (piece := _pread(self._fd, min(length, self.size - at), at)):
                yield piece
                at += len(piece)

    def write(self, content: Bytes) -> None:
        """Append all of *content*."""
        rest = memoryview(content).cast("B")
        with _failing("write", self._pending):
            while len(rest):
                count = _pwrite(self._fd, rest, self.size)
                self.size, rest = self.size + count, rest[count:]

    def empty(self) -> None:
        """Drop what is there."""
        with _failing("write", self._pending):
            _truncate(self._fd, 0)
        self.size = 0

    def keep(self, path: Name) -> None:
        """Rename to *path* what has been written, replacing what is there; on the disk when this returns."""
        path = Path(path)
        with _failing("write", path):
            _chmod(self._fd, _fstat(self._fd).st_mode & 0o777 & ~_WRITABLE)
            _fsync(self._fd)
            _replace(self._pending, path)
            self._path = None
            _sync_directory(path.parent)

    def remove(self) -> None:
        """Remove what is there, so that nothing of it is gone on with."""
        path, self._path = self._pending, None
        _discard(path)

    @property
    def _pending(self) -> Path:
        if self._path is None:
            raise ValueError("this file has been kept or removed already")
        return self._path

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None and self._passing:
            self.remove()
        _close(self._fd)


class Appender:
    """The end of a file that several processes may append lines to.

    Each line is one write to a descriptor in append mode, so lines of different writers never mix (M7). A reader has to
    expect an empty line, and a torn one where the disk was full or a writer was killed.
    """

    def __init__(self, path: Name) -> None:
        self._path = Path(path)
        with _failing("write", self._path):
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = _open(self._path, flags, 0o666)
            end = _lseek(self._fd, 0, os.SEEK_END)
            self._torn = end > 0 and _pread(self._fd, 1, end - 1) != b"\n"

    def line(self, line: bytes) -> None:
        """Append *line*, and the newline if it has none; raises `StorageFailed` when not all of it went in.

        A line that was cut off is ended by the next one, so that no two events share a line.
        """
        whole = line if line.endswith(b"\n") else line + b"\n"
        if whole.index(b"\n") != len(whole) - 1:
            raise ValueError(f"a newline inside a line: {line[:80]!r}")
        if self._torn:
            whole = b"\n" + whole
        try:
            written = _write(self._fd, whole)
        except OSError as error:
            raise _failed("write", self._path, error) from error
        if written:
            self._torn = written != len(whole)
        if written != len(whole):
            raise _failed("write", self._path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close(fd)


def append(path: Name, content: Bytes) -> None:
    """Append *content* to a file of which nobody else writes; all of it, or nothing where the disk is full."""
    path = Path(path)
    with _failing("write", path):
        fd = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            end, rest = _fstat(fd).st_size, memoryview(content).cast("B")
            try:
                while len(rest):
                    rest = rest[_write(fd, rest) :]
            except BaseException:
                _truncate(fd, end)
                raise
        finally:
            _close(fd)


def make_directory(path: Name) -> None:
    """Make *path* and the directories above it, unless they are there; on the disk when this returns."""
    path = Path(path)
    if path.is_dir():
        return
    make_directory(path.parent)
    with _failing("make", path):
        try:
            _mkdir(path)
        except FileExistsError:
            return
        _sync_directory(path.parent)


def sync_directory(path: Name) -> None:
    """Bring the names of the files in the directory *path* to the disk."""
    with _failing("write", Path(path)):
        _sync_directory(path)


def reserve(path: Name, size: int) -> None:
    """Take *size* bytes of room for later, as far as the file system can: removing the file gives them back."""
    with _failing("write", Path(path)), open(path, "xb") as file:
        file.write(bytes(size))


def give_back(path: Name, size: int, least: int) -> bool:
    """Free *size* bytes of what `reserve` has taken, unless less than *least* would be left; whether that was done."""
    try:
        left = os.stat(path).st_size - size
        if left < least:
            return False
        os.truncate(path, left)
    except OSError:
        return False
    return True


@contextmanager
def new_directory(target: Name) -> Iterator[Path]:
    """Yield an empty directory that becomes *target* when the block ends, and is removed when the block raises.

    Raises `TargetExists` if *target* exists before the block or after it; what is there is left alone.
    """
    target = Path(target)
    _refuse_existing(target)
    temporary = _temporary(target)
    with _failing("make", target):
        _mkdir(temporary)
    try:
        yield temporary
        with _failing("make", target):
            _sync_tree(temporary)
            _rename_new(temporary, target)
            _sync_directory(target.parent)
    except BaseException:
        _remove(temporary, ignore_errors=True)
        raise


def remove_tree(path: Name) -> None:
    """Remove *path* and all that is below it; nothing there is fine.

    It is renamed first, so that other processes see all of it or none, even if this one is killed half way.
    """
    path = Path(path)
    aside = _temporary(path)
    with _failing("remove", path):
        try:
            _rename(path, aside)
        except FileNotFoundError:
            return
        _remove(aside)
        _sync_directory(path.parent)


class Lock:
    """A file that at most one holder has locked, or any number that are *shared*.

    The kernel frees the lock when the holder's process ends, however it ends. A child that was only forked shares the
    lock and keeps it alive (M12); one that was exec'd does not.
    """

    def __init__(self, path: Name, *, shared: bool = False) -> None:
        self._path = Path(path)
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd: int | None = None

    def try_acquire(self, timeout: float = 0.0) -> bool:
        """Take the lock, making its file if need be; False if another holder keeps it for *timeout* seconds.

        `held_elsewhere` takes the lock for microseconds, so even without a timeout there are a few tries. Tries are
        counted because the clock of a user's process may be a frozen one.
        """
        if self._fd is not None:
            return True
        for left in range(max(_TRIES_AT_LEAST, int(timeout / _TRY_AGAIN_AFTER)), 0, -1):
            with _failing("lock", self._path):
                self._fd = _lock_of(self._path, self._kind)
            if self._fd is not None:
                return True
            if left > 1:
                _sleep(_TRY_AGAIN_AFTER)
        return False

    def release(self) -> None:
        """Free the lock; its file stays. Nothing happens if it is not held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _flock(fd, fcntl.LOCK_UN)  # for a child that was forked meanwhile, too (M12)
            _close(fd)

    def forget(self) -> None:
        """In a forked child: hold it no more, so that it ends with its holder, which keeps it (M12)."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _close(fd)

    def __enter__(self) -> Lock:
        """Take the lock, or raise `BlockingIOError` if another holder has it."""
        if not self.try_acquire():
            raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process", str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def held_elsewhere(path: Name) -> bool:
    """Whether any `Lock` on *path* is held, in this process or another; False if there is no such file.

    Leaves nothing behind, and works on a read-only file system.
    """
    path = Path(path)
    with _failing("read", path):
        try:
            fd = _open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            _flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            _close(fd)
    return False


def _lock_of(path: Path, kind: int) -> int | None:
    fd = _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        _flock(fd, kind | fcntl.LOCK_NB)
        # The last holder may have removed the file between our open and our lock: then we hold a lock that the next
        # process, which makes a new file, will not see.
        if _is_still(fd, path):
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        _close(fd)
        raise
    _close(fd)
    return None


def _begun(path: Path) -> int | None:
    """The file *path*, locked, new or as it was left; None where it is in use or not to be touched."""
    try:
        fd = _lock_of(path, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NOT_OURS | _NO_LOCKS:
            return None
        raise
    if fd is None:
        return None
    found = _fstat(fd)
    # Whoever can write to the folder could have put a second name of another file of ours here.
    if not S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        _close(fd)
        return None
    _utime(fd)  # it is in use again, whatever its age was
    return fd


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(_fstat(fd), _stat(path))
    except FileNotFoundError:
        return False


def _refuse_existing(target: Path) -> None:
    if _lexists(target):
        raise TargetExists(f"{target} already exists", f"mv {target} {target}.old")


def _rename_new(temporary: Path, target: Path) -> None:
    # POSIX renames a directory over an empty one, hence the look. What can still come between the look and the rename
    # is an empty directory, which holds nothing that could be lost: anything else makes the rename fail.
    _refuse_existing(target)
    try:
        _rename(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            _refuse_existing(target)
        raise


def _link_new(temporary: Path, path: Path) -> None:
    try:
        _link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # FAT, exFAT and some network file systems: the name is taken by an empty file, then filled.
        _close(_open(path, _NEW_FILE, 0o666))
        try:
            _replace(temporary, path)
        except BaseException:
            _discard(path)
            raise


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name[:40]}.{_getpid()}-{_urandom(4).hex()}.tmp"


def _discard(temporary: Path) -> None:
    try:
        _unlink(temporary)
    except OSError:
        pass  # nothing reads it, and the error that brought us here is the one to tell


def _remove(path: Path, *, ignore_errors: bool = False) -> None:
    import shutil  # 5 ms, for something that the user's process never does

    if path.is_symlink() or path.is_file():
        _unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=ignore_errors)


def _sync(path: Path | str, flags: int = os.O_RDONLY) -> None:
    fd = _open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _fsync(fd)
    finally:
        _close(fd)


def _sync_directory(path: Name) -> None:
    fd = _open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a file system answers that cannot sync a directory
            raise
    finally:
        _close(fd)


def _sync_tree(root: Path) -> None:
    for folder, _, names in _walk(root, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                _sync(path)
        _sync_directory(folder)


@contextmanager
def _failing(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise _failed(verb, path, error) from error


def _failed(verb: str, path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"cannot {verb} {path}: {error.strerror or error}", _hint(error.errno, path.parent))


def _hint(code: int | None, folder: Path) -> str | None:
    match code:
        case errno.ENOSPC | errno.EDQUOT:
            return f"free some space and run it again; df -h {folder} shows how much there is"
        case errno.EFBIG:
            return "raise the limit on the size of a file: ulimit -f unlimited"
        case errno.EROFS:
            return f"the file system is read-only; findmnt --target {folder} shows how it is mounted"
        case errno.EACCES | errno.EPERM:
            return f"ls -ld {folder} shows who may write there"
        case errno.EIO:
            return "the disk is failing: copy what matters away, and see dmesg"
        case errno.ENOENT | errno.ENOTDIR:
            return f"mkdir -p {folder}"
        case _:
            return None
