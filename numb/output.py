"""The way of a script's output: through numb to where it would have gone, and into the log.

Bytes go through as they come. Nothing here decodes them, waits for the end of a line, or holds back what has arrived.
"""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import stat
import sys
import termios
from collections.abc import Callable
from pathlib import Path

CHUNK = 1 << 16
BUFFERED = 1 << 20  # what a pipe holds at most without privileges (/proc/sys/fs/pipe-max-size); a pty holds less
LOG_TAIL = 1 << 20


class Log:
    """The copy of the output on disk: the first *limit* bytes, and the last mebibyte of what came after them.

    It never raises, because it must not disturb what it records: `error` says why the file is incomplete, `cut` how
    many bytes the limit left out. Both are final once the log is closed.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.error: str | None = None
        self.cut = 0
        self._room = limit
        self._over = 0
        self._tail = bytearray()
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            self.error = os.strerror(error.errno or 0)

    def write(self, data: bytes) -> None:
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._append(head)
        if rest:
            self._keep(rest)

    def close(self) -> None:
        if self._fd < 0:
            return
        del self._tail[:-LOG_TAIL]
        self.cut = self._over - len(self._tail)
        if self.cut:
            self._append(b"\n[numb: %d bytes left out]\n" % self.cut)
        self._append(self._tail)
        try:
            os.close(self._fd)
        except OSError as error:  # NFS tells here that the disk is full
            self.error = self.error or os.strerror(error.errno or 0)
        self._fd = -1

    def _keep(self, rest: bytes) -> None:
        self._over += len(rest)
        self._tail += rest
        if len(self._tail) > 2 * LOG_TAIL:  # twice, so that each byte is moved once and not with every write
            del self._tail[:-LOG_TAIL]

    def _append(self, data: bytes | bytearray) -> None:
        if self.error is not None:
            return
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self.error = os.strerror(error.errno or 0)


class Stream:
    """One way out of the script: what it writes at `script_end` arrives at `source`, and goes to *target* and the log.

    The script finds a terminal where numb has one, and a pipe where it has none. A reader that does not read holds up this
    stream and, once the pipe is full, the script, as without numb; it does not hold up the other stream, nor numb.

    A target that takes no more is left alone from then on: the script goes on, as it does under `nohup`, and the log has
    all of it. `error` then says why, unless the reader simply went away. *seen* gets the bytes that pass, and must be quick.
    """

    def __init__(self, target: int, log: Log, seen: Callable[[bytes], object] | None = None) -> None:
        self.error: str | None = None
        self.ended = False
        self.is_settled = False
        self.target = target
        self._open = _is_ours(target)
        terminal = _terminal_like(target) if self._open else None
        self.is_terminal = terminal is not None
        self.source, self.script_end = terminal or os.pipe()
        os.set_blocking(self.source, False)
        self._log, self._seen = log, seen
        self._pending = memoryview(b"")
        self._owed = BUFFERED
        # More than this a pipe may not take at once, though it can be written to; a file takes everything.
        self._most = CHUNK if self._open and stat.S_ISREG(os.fstat(target).st_mode) else select.PIPE_BUF

    @property
    def is_behind(self) -> bool:
        """Whether something that was read waits for the target."""
        return bool(self._pending)

    def mark(self) -> None:
        """From now on `is_settled` says whether all that was written before this call has been passed on."""
        self.is_settled = False
        self._owed = BUFFERED

    def pump(self) -> None:
        """Pass on what is there, as far as the target takes it; at most so much that others get their turn."""
        fair = BUFFERED
        while self._flush():
            self.is_settled |= self.ended or self._owed <= 0
            if self.ended or fair <= 0:
                return
            try:
                data = os.read(self.source, CHUNK)
            except BlockingIOError:
                self.is_settled = True
                return
            except OSError:  # EIO: how Linux reports the end of a terminal
                data = b""
            self.ended = not data
            self._owed -= len(data)
            fair -= len(data)
            self._log.write(data)  # first the log: numb may be killed while the target keeps it waiting
            self._pending = memoryview(data)
            if self._seen is not None:
                self._seen(data)

    def give_up_waiting(self) -> None:
        """If the target keeps numb waiting now, write no more to it. The log still gets everything."""
        if self._pending:
            self._open = False
            self.error = "nobody read it"

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Let *selector* wake up when `pump` has something to do."""
        watch(selector, self.source, selectors.EVENT_READ, wanted=not self.ended and not self._pending)
        watch(selector, self.target, selectors.EVENT_WRITE, wanted=self.is_behind)

    def resize(self) -> None:
        if self.is_terminal:
            _copy_window_size(self.target, self.source)

    def close_script_end(self) -> None:
        if self.script_end >= 0:
            os.close(self.script_end)
            self.script_end = -1

    def close(self) -> None:
        self.close_script_end()
        os.close(self.source)

    def _flush(self) -> bool:
        """Write what the target takes without keeping numb waiting, and return whether that was all."""
        while self._pending and self._open:
            try:
                if not select.select([], [self.target], [], 0)[1]:
                    return False
                self._pending = self._pending[os.write(self.target, self._pending[: self._most]) :]
            except BlockingIOError:  # somebody made it non-blocking
                return False
            except BrokenPipeError:  # `numb train | head`
                self._open = False
            except OSError as error:  # a closed terminal, a full disk
                self._open = False
                self.error = os.strerror(error.errno or 0)
        self._pending = memoryview(b"")
        return True


def watch(selector: selectors.BaseSelector, fd: int, event: int, *, wanted: bool) -> None:
    """Have *fd* in *selector*, or not."""
    known = fd in selector.get_map()
    if wanted and not known:
        selector.register(fd, event)
    elif known and not wanted:
        selector.unregister(fd)


def open_streams(log: Log, seen: Callable[[bytes], object] | None = None) -> tuple[Stream, Stream]:
    """Return the ways for standard output and standard error: the same one where numb's own go to the same place.

    Two ways to one terminal or file would lose the order in which the script wrote to them. *seen* gets what passes on
    that of standard output.
    """
    out = Stream(1, log, seen)
    if _place(1) == _place(2):
        return out, out
    try:
        return out, Stream(2, log)
    except OSError:
        out.close()
        raise


def _copy_window_size(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))
    except OSError:  # the terminal has been closed: there is no size any more
        pass


def flush_own_output() -> None:
    """Write out what numb itself has said, which comes before what the script says."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # no reader, or closed
            pass


def _terminal_like(fd: int) -> tuple[int, int] | None:
    """Return a terminal with the settings and the size of *fd*; None if that is no terminal, or there are none left.

    It does not post-process: the terminal at the end of the way turns \\n into \\r\\n, once.
    """
    try:
        settings = termios.tcgetattr(fd)
        master, slave = os.openpty()
    except (OSError, termios.error):
        return None
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    _copy_window_size(fd, slave)
    return master, slave


def _place(fd: int) -> tuple[int, int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_rdev


def _is_ours(fd: int) -> bool:
    """Whether descriptor 1 or 2 was open when numb started: if not, the number may be any file's by now."""
    return (sys.__stdout__ if fd == 1 else sys.__stderr__) is not None and _place(fd) is not None
