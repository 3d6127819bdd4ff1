"""Files at the other end of the user's own `ssh HOST`: SFTP, version 3, spoken over OpenSSH's program.

The program, and no library, because it alone connects as the user's `ssh HOST` does (all of the configuration, jump
hosts, a connection that is open already, agents, hardware keys) and checks the host's key as it is told to. Of the two
libraries that fsspec can use, one takes any key of a new host and reads no configuration; the other checks none unless
asked to, knows part of the configuration, and takes `UserKnownHostsFile none` to mean that none is to be checked.

No shell runs at the other end, only the sftp subsystem. What comes from there is measured before it is kept.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from stat import S_ISDIR, S_ISREG
from typing import IO

# https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for the extensions.
_INIT, _VERSION = 1, 2
_OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT, _SETSTAT, _FSETSTAT = 3, 4, 5, 6, 7, 8, 9, 10
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _STAT, _RENAME, _EXTENDED = 11, 12, 13, 14, 15, 17, 18, 200
_STATUS, _HANDLE, _DATA, _NAME, _ATTRIBUTES, _EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
_FOR_READING, _FOR_WRITING, _CREATE = 0x01, 0x02, 0x08
_SIZE, _OWNER, _PERMISSIONS, _TIMES, _MORE = 0x01, 0x02, 0x04, 0x08, 0x80000000
_RENAME_OVER, _FSYNC, _STATVFS = b"posix-rename@openssh.com", b"fsync@openssh.com", b"statvfs@openssh.com"
_OK, _END = 0, 1
_MEANINGS = {
    2: errno.ENOENT,
    3: errno.EACCES,
    5: errno.EBADMSG,
    6: errno.ENOTCONN,
    7: errno.ECONNRESET,
    8: errno.ENOTSUP,
}

_PIECE = 32 << 10  # what every server takes and gives at once
_UNDER_WAY = 64  # requests that are not answered yet
_LONGEST = 1 << 20  # of a packet
_FOLDERS = 64  # that are read at once
_ANSWERS = 1024  # that wait for being looked at; more of them nobody can have asked for

WINDOW = _PIECE * _UNDER_WAY
"""Bytes at the end of a file that may have holes where the link was cut: servers may write pieces in any order."""


class SshFailed(ConnectionError):
    """What the ssh program said when it ended."""


class NoSsh(Exception):
    """There is no ssh program."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a listing says of a file."""

    size: int = 0
    mode: int = 0
    modified: int = 0

    @property
    def is_file(self) -> bool:
        return S_ISREG(self.mode)


class Sftp:
    """One connection. Raises `OSError` for what the other side refuses, `TimeoutError` after *patience* seconds without
    a byte, `ConnectionError` when the connection ends; after any of them but an answer it is of no use any more.
    """

    def __init__(self, command: Sequence[str], patience: float) -> None:
        self._patience = patience
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        try:
            # A session of its own: no terminal to ask on, and Ctrl-C is for us to answer.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise NoSsh(error.strerror or str(error)) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._out, self._in = bytearray(), bytearray()
        self._answers: dict[int, tuple[int, _Fields]] = {}
        self._number = 0
        self._unanswered: deque[int] = deque()  # writes
        try:
            self._extensions = self._greet()
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """End the program at once, with whatever it has started; who waits for an answer gets `ConnectionError`."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended by itself

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        self.cut()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                stream.close()

    def attributes(self, path: str) -> Attributes | None:
        """What is called *path*, links not followed; None if nothing is."""
        return self._attributes(_LSTAT, path)

    def is_directory(self, path: str) -> bool:
        found = self._attributes(_STAT, path)
        return found is not None and S_ISDIR(found.mode)

    def _attributes(self, kind: int, path: str) -> Attributes | None:
        try:
            return self._answer(self._ask(kind, _text(path)), _ATTRIBUTES).attributes()
        except FileNotFoundError:
            return None

    def folders(self, paths: Sequence[str]) -> Iterator[tuple[str, str, Attributes]]:
        """Yield the folder, the name and what it is of each thing in *paths*; folders that are not there are passed over.

        Many folders are read at once, so that the time does not grow with their number times that of a message's way.
        """
        for start in range(0, len(paths), _FOLDERS):
            batch = paths[start : start + _FOLDERS]
            handles: dict[str, bytes] = {}
            for path, asked in [(path, self._ask(_OPENDIR, _text(path))) for path in batch]:
                try:
                    handles[path] = self._answer(asked, _HANDLE).text()
                except FileNotFoundError:
                    pass
            unread = dict(handles)
            while unread:
                for path, asked in [(path, self._ask(_READDIR, _bytes(handle))) for path, handle in unread.items()]:
                    try:
                        names = self._answer(asked, _NAME)
                    except EOFError:
                        del unread[path]
                    else:
                        yield from ((path, name, found) for name, found in names.names())
            self._settle([self._ask(_CLOSE, _bytes(handle)) for handle in handles.values()])

    def now(self, folder: str) -> float | None:
        """The time by the clock there, from a folder that is made in *folder* and removed; None where that cannot be."""
        probe = f"{folder}/now.{os.getpid()}"
        try:
            self._answer(self._ask(_MKDIR, _text(probe), _u32(0)), _STATUS)
            found = self.attributes(probe)
            self._answer(self._ask(_RMDIR, _text(probe)), _STATUS)
        except (TimeoutError, ConnectionError):
            raise
        except OSError:
            return None
        return found.modified if found else None

    def make_folders(self, paths: Sequence[str]) -> None:
        """Make each of *paths*, in order, unless it is there."""
        for path, asked in [(path, self._ask(_MKDIR, _text(path), _u32(0))) for path in paths]:
            try:
                self._answer(asked, _STATUS)
            except OSError:
                if not self.is_directory(path):
                    raise

    def remove(self, path: str) -> None:
        """Remove the file *path*; nothing there is fine."""
        try:
            self._answer(self._ask(_REMOVE, _text(path)), _STATUS)
        except FileNotFoundError:
            pass

    def remove_what_can_be(self, paths: Iterable[str]) -> None:
        """Remove those files among *paths* that the other side lets go."""
        for path in paths:
            try:
                self.remove(path)
            except (TimeoutError, ConnectionError):
                raise
            except OSError:
                pass  # somebody else's

    def rename(self, path: str, target: str) -> None:
        """Give the file *path* the name *target*, over whatever file has it."""
        if _RENAME_OVER in self._extensions:
            self._answer(self._ask(_EXTENDED, _bytes(_RENAME_OVER), _text(path), _text(target)), _STATUS)
            return
        self.remove(target)  # this version's own rename replaces nothing
        self._answer(self._ask(_RENAME, _text(path), _text(target)), _STATUS)

    def open_to_write(self, path: str) -> bytes:
        """A handle of the file *path*, which is made if need be."""
        return self._answer(self._ask(_OPEN, _text(path), _u32(_FOR_WRITING | _CREATE), _u32(0)), _HANDLE).text()

    def write(self, handle: bytes, at: int, content: bytes) -> None:
        """Send *content* on its way to the place *at*; `seal` waits until all has come."""
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            self._unanswered.append(self._ask(_WRITE, _bytes(handle), _u64(at + start), _bytes(piece)))
            while len(self._unanswered) > _UNDER_WAY:
                self._answer(self._unanswered.popleft(), _STATUS)
            self._pump(wait=False)

    def seal(self, handle: bytes) -> None:
        """Wait until all that was written has come and is on the disk, make the file read-only, and close it."""
        asked = self._ask(_FSTAT, _bytes(handle))
        while self._unanswered:
            self._answer(self._unanswered.popleft(), _STATUS)
        mode = self._answer(asked, _ATTRIBUTES).attributes().mode & 0o777 & ~0o222
        last = [self._ask(_FSETSTAT, _bytes(handle), _u32(_PERMISSIONS), _u32(mode))] if mode else []
        if _FSYNC in self._extensions:
            last.append(self._ask(_EXTENDED, _bytes(_FSYNC), _bytes(handle)))
        self._settle([*last, self._ask(_CLOSE, _bytes(handle))])

    def make_writable(self, path: str, found: Attributes) -> None:
        """Let a file be gone on with that `seal` made read-only before the link was cut."""
        mode = found.mode & 0o777 | 0o200
        self._answer(self._ask(_SETSTAT, _text(path), _u32(_PERMISSIONS), _u32(mode)), _STATUS)

    def read(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of the file *path* from *start* on, at most until *end*."""
        handle = self._answer(self._ask(_OPEN, _text(path), _u32(_FOR_READING), _u32(0)), _HANDLE).text()
        under_way: deque[tuple[int, int, int]] = deque()
        asked_to = start
        while asked_to < end or under_way:
            while asked_to < end and len(under_way) < _UNDER_WAY:
                length = min(_PIECE, end - asked_to)
                under_way.append((asked_to, length, self._ask_to_read(handle, asked_to, length)))
                asked_to += length
            at, length, asked = under_way.popleft()
            while length:
                try:
                    piece = self._answer(asked, _DATA).text()
                except EOFError:
                    break
                if not 0 < len(piece) <= length:
                    raise _garbled()
                yield piece
                at, length = at + len(piece), length - len(piece)
                if length:
                    asked = self._ask_to_read(handle, at, length)
            if length:
                break  # it is shorter than it was said to be
        self._settle([asked for _, _, asked in under_way], _DATA)
        self._settle([self._ask(_CLOSE, _bytes(handle))])

    def _ask_to_read(self, handle: bytes, at: int, length: int) -> int:
        return self._ask(_READ, _bytes(handle), _u64(at), _u32(length))

    def why_not_written(self, path: str) -> int | None:
        """The number of the error that keeps the file system of *path* from being written to, if its state tells one."""
        if _STATVFS not in self._extensions:
            return None
        told = self._answer(self._ask(_EXTENDED, _bytes(_STATVFS), _text(path)), _EXTENDED_REPLY)
        _, unit, _, _, free, files, _, free_files, _, flags, _ = (told.u64() for _ in range(11))
        if flags & 1:
            return errno.EROFS
        return errno.ENOSPC if unit * free < _LONGEST or (files and not free_files) else None

    def _greet(self) -> set[bytes]:
        self._out += _u32(5) + bytes([_INIT]) + _u32(3)
        kind, fields = self._packet()
        if kind != _VERSION or fields.u32() < 3:
            raise _garbled()
        extensions = set()
        while not fields.is_empty():
            extensions.add(fields.text())
            fields.text()
        return extensions

    def _ask(self, kind: int, *fields: bytes) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        content = b"".join((bytes([kind]), _u32(self._number), *fields))
        self._out += _u32(len(content)) + content
        return self._number

    def _settle(self, numbers: Sequence[int], kind: int = _STATUS) -> None:
        for number in numbers:
            try:
                self._answer(number, kind)
            except EOFError:
                pass

    def _answer(self, number: int, wanted: int) -> _Fields:
        while number not in self._answers:
            if len(self._answers) > _ANSWERS:
                raise _garbled()
            kind, fields = self._packet()
            self._answers[fields.u32()] = kind, fields
        kind, fields = self._answers.pop(number)
        if kind == wanted and kind != _STATUS:
            return fields
        if kind != _STATUS:
            raise _garbled()
        status, message = fields.u32(), fields.text() if not fields.is_empty() else b""
        if status == _OK and wanted == _STATUS:
            return fields
        if status == _END:
            raise EOFError
        if status == _OK:
            raise _garbled()
        raise OSError(_MEANINGS.get(status, errno.EIO), plain(message) or f"status {status}")

    def _packet(self) -> tuple[int, _Fields]:
        while len(self._in) < 4:
            self._pump()
        length = int.from_bytes(self._in[:4], "big")
        if not 1 <= length <= _LONGEST:
            raise _garbled()
        while len(self._in) < 4 + length:
            self._pump()
        content = bytes(self._in[4 : 4 + length])
        del self._in[: 4 + length]
        return content[0], _Fields(content[1:])

    def _pump(self, *, wait: bool = True) -> None:
        """Move what can be moved either way, at least a byte unless there is no need to *wait* for one."""
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        if self._out:
            poll.register(self._to, select.POLLOUT)
        ready = dict(poll.poll(self._patience * 1000 if wait else 0))
        if wait and not ready:
            raise TimeoutError(errno.ETIMEDOUT, f"not a byte in {self._patience:g} s")
        if ready.get(self._to):
            try:
                del self._out[: os.write(self._to, self._out[: 1 << 16])]
            except BlockingIOError:
                pass  # less room than a write is let through with
            except BrokenPipeError:
                raise self._ended() from None
        if ready.get(self._from):
            content = os.read(self._from, 1 << 18)
            if not content:
                raise self._ended()
            self._in += content

    def _ended(self) -> SshFailed:
        try:
            self._process.wait(timeout=min(self._patience, 5))
        except subprocess.TimeoutExpired:
            pass
        self._said.seek(0)
        lines = [line for line in map(plain, self._said.read(1 << 16).splitlines()) if line.strip("* ")]
        return SshFailed(lines[-1] if lines else "the connection was closed")


class _Fields:
    """What is in a packet, read from its start; `OSError` where it is not what it has to be."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def is_empty(self) -> bool:
        return self._at == len(self._content)

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def text(self) -> bytes:
        return self._take(self.u32())

    def attributes(self) -> Attributes:
        flags = self.u32()
        size = self.u64() if flags & _SIZE else 0
        if flags & _OWNER:
            self._take(8)
        mode = self.u32() if flags & _PERMISSIONS else 0
        modified = (self.u32(), self.u32())[1] if flags & _TIMES else 0
        for _ in range(self.u32() if flags & _MORE else 0):
            self.text(), self.text()
        return Attributes(size, mode, modified)

    def names(self) -> Iterator[tuple[str, Attributes]]:
        for _ in range(self.u32()):
            name, _ = self.text(), self.text()
            yield os.fsdecode(name), self.attributes()

    def _take(self, length: int) -> bytes:
        taken = self._content[self._at : self._at + length]
        if len(taken) != length:
            raise _garbled()
        self._at += length
        return taken


def plain(words: bytes) -> str:
    """*words* from elsewhere, in one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else " " for c in words.decode(errors="replace")).strip()[:300]


def _garbled() -> OSError:
    return OSError(errno.EPROTO, "what answers is not SFTP")


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)


def _u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def _bytes(content: bytes) -> bytes:
    return _u32(len(content)) + content


def _text(path: str) -> bytes:
    return _bytes(os.fsencode(path))
