"""Signals to numb's own process, and other processes: their end, their descendants, what they ignore.

Where the system has no pidfd or no /proc (macOS), nothing is known of descendants, and nothing is sent to them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

Handler = Callable[[int, FrameType | None], None]

UNKNOWN = 1 << 16  # how a process has ended, where nobody was told: no wait status is that large


class Child(Protocol):
    """A process that somebody has started: `subprocess.Popen`, or what stands for one."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, signum: int, /) -> None: ...


@contextmanager
def uninterruptible() -> Iterator[list[int]]:
    """Let no SIGINT, SIGTERM or SIGHUP interrupt what is inside; yield the list of those that came.

    They are not raised again. Outside the main thread it does nothing.
    """
    seen: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)

    with handling({signal.SIGINT: note, signal.SIGTERM: note, signal.SIGHUP: note}):
        yield seen


@contextmanager
def handling(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Install *handlers*, and put back what was there.

    A signal that is ignored (SIGHUP under nohup, SIGINT in a shell's background) stays so, for numb and for the script:
    an ignored signal survives exec, a handler does not. Python allows handlers in the main thread only.
    """
    before = {signum: signal.getsignal(signum) for signum in handlers} if in_main_thread() else {}
    ours = {signum: old for signum, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for signum in ours:
            signal.signal(signum, handlers[signum])
        yield
    finally:
        for signum, old in ours.items():
            signal.signal(signum, old)


@contextmanager
def holding_back_ctrl_c() -> Iterator[None]:
    """Let what is started inside not hear of Ctrl-C before it calls `hear_ctrl_c`: an interpreter that begins knows no end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_ctrl_c() -> None:
    """Hear of it from now on, and of one that came before at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def reaping() -> Iterator[None]:
    """Make the system keep exit statuses: where SIGCHLD is ignored it drops them, and `Popen` then reports 0."""
    if not in_main_thread() or signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


@contextmanager
def wakeup() -> Iterator[int]:
    """Yield a descriptor that becomes readable when a signal comes.

    Python runs handlers between bytecodes: that of a signal which comes just before `select` sleeps would run when
    `select` returns, which may be hours later.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False) if in_main_thread() else None
    try:
        yield read
    finally:
        if before is not None:
            signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def in_foreground() -> bool:
    """Whether the keyboard's signals (Ctrl-C) go to numb's process group, and so to every process in it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def readable_at_the_end_of(child: Child) -> int:
    """Return a new descriptor that becomes readable when *child* has ended."""
    try:
        return os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # macOS, Linux before 5.3, some sandboxes
        read, write = os.pipe()

    def wait() -> None:
        child.wait()
        os.close(write)

    threading.Thread(target=wait, daemon=True, name="numb waits for the script").start()
    return read


def handle_on(pid: int) -> int | None:
    """Return a new descriptor that stands for *pid*, also when the number has been given to another process."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # no such call here, or it has just ended
        return None


def send(handle: int, signum: int) -> None:
    try:
        signal.pidfd_send_signal(handle, signum)
    except (ProcessLookupError, PermissionError):  # ended, or another user's (sudo)
        pass


def descendants(pid: int) -> list[int]:
    """Return the processes below *pid*, parents first, as /proc has them; elsewhere none are known."""
    children: dict[int, list[int]] = {}
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for number in numbers:
        try:
            stat = Path("/proc", number, "stat").read_bytes()
        except OSError:  # ended meanwhile
            continue
        parent = int(stat.rpartition(b")")[2].split()[1])  # the name before it may hold anything
        children.setdefault(parent, []).append(int(number))
    found = [pid]
    for each in found:
        found.extend(children.get(each, ()))
    return found[1:]


def terminate(pid: int) -> None:
    """Ask a process and those below it to end."""
    for each in (pid, *descendants(pid)):
        handle = handle_on(each)
        if handle is not None:
            send(handle, signal.SIGTERM)
            os.close(handle)


def outlives(pid: int, signum: int) -> bool:
    """Whether *pid* is meant to go on after *signum*: it ignores SIGHUP, as under nohup, to outlive the terminal."""
    if signum != signal.SIGHUP:
        return False
    try:
        status = Path("/proc", str(pid), "status").read_bytes()
    except OSError:
        return False
    _, known, ignored = status.partition(b"SigIgn:")
    return bool(known) and bool(int(ignored.split()[0], 16) & 1 << (signum - 1))
