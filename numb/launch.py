"""Start the user's command, pass its output on and keep it, pass signals on, and tell how it ended.

The script must not notice that numb is there: it finds a terminal where it would have found one, its bytes arrive
unchanged and at once, and no failure of numb's (a full disk, a lost reader, a bug in a callback) ends it. numb waits
for the process and not for the end of its output, which a stray grandchild can hold open for hours (M8).
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from numb import processes
from numb.errors import CannotStart, CommandNotFound
from numb.output import CHUNK, Log, Stream, flush_own_output, open_streams, watch
from numb.processes import Child, uninterruptible

__all__ = ["Outcome", "check", "run", "uninterruptible"]

GRACE = 30.0  # seconds between a signal that should end the script and SIGKILL
IDLE = 0.2  # seconds of silence after the script's end, when something else holds its output open
SAME = (
    0.3  # seconds within which a signal that comes again is the same: to a process group, and from who has started numb
)
DRAIN = 2.0  # seconds that such a survivor can keep numb by writing

KEYBOARD: frozenset[int] = frozenset({signal.SIGINT, signal.SIGQUIT})
ENDING: frozenset[int] = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
REQUESTS: frozenset[int] = frozenset({signal.SIGUSR1, signal.SIGUSR2})

# How a process may be started in another way: command, executable, folder, environment, and descriptors for what it prints.
Start = Callable[[Sequence[str], str, Path, Mapping[str, str], int, int], Child | None]

_HINT = 'check "command" in nmb.json'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a script ended, from the wait status, and what became of its output."""

    code: int | None  # None when a signal ended it; and the signal is None, too, where nobody knows
    signal: int | None
    passed_on: tuple[int, ...]  # what numb received, each once; the keyboard's reached the script without it
    seconds: float  # from the start to the end of the process
    survivors: bool  # something still held the output open after the script had ended
    log_error: str | None  # why the log is incomplete
    log_cut: int  # bytes that the limit left out of the log
    output_error: str | None = None  # why numb's own output is incomplete; None too when its reader went away

    @property
    def exit_code(self) -> int:
        """The script's own code, or 128 + the signal, as shells have it; 1 where nobody knows."""
        if not self.is_known:
            return 1
        return 128 + (self.signal or 0) if self.code is None else self.code

    @property
    def is_known(self) -> bool:
        """Whether anybody was told how it ended: who has forked it may have died before."""
        return self.code is not None or self.signal is not None


def check(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> str:
    """Return the absolute path of what `run` would start. Raises `CommandNotFound` or `CannotStart`."""
    if not command or not command[0]:
        raise CannotStart("the command is empty", _HINT)
    if not cwd.is_dir():
        raise CannotStart(f"{cwd} is not a directory", _HINT)
    name = command[0]
    folders = [""] if "/" in name else env.get("PATH", os.defpath).split(os.pathsep)
    candidates = [os.path.join(cwd.absolute(), folder, name) for folder in folders]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    # Shells tell a file that cannot be executed (126) from no file (127), also when they search PATH.
    found = next((path for path in candidates if os.path.exists(path)), None)
    if found is None:
        raise CommandNotFound(f"{name}: command not found", _HINT)
    reason = "is a directory" if os.path.isdir(found) else "is not executable"
    raise CannotStart(f"{found} {reason}", _HINT)


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    log_limit: int = 64 << 20,
    grace: float = GRACE,
    is_ending: Callable[[], bool] = lambda: False,
    started: Callable[[int], object] = lambda pid: None,
    doorbell: int | None = None,
    ring: Callable[[], object] | None = None,
    seen: Callable[[bytes], object] | None = None,
    start: Start | None = None,
    passed_as: Mapping[int, int] | None = None,
    ending: int | None = None,
    earlier: Sequence[int] = (),
) -> Outcome:
    """Run *command* to its end and return how it ended. Raises `CommandNotFound` or `CannotStart` if it never began.

    The script has numb's standard input, process group and session. Its output goes to descriptors 1 and 2 and is
    appended to *log*: the first *log_limit* bytes, and the last mebibyte.

    *started* is called with the process id, and *seen*, which must be quick and not raise, with what the script prints (on
    standard error, too, where numb's own two go to the same place).

    *start* may start the process in another way; where it gives None it is started as a command is.

    *passed_as* says as what some signals are passed on; as 0 where they reach the script without numb.

    *earlier* are signals that have come already, when this is ready for the next one: they are passed on as soon as can be.

    When *ending* becomes readable the script is ended as by a SIGTERM to numb, though numb itself is to go on.

    *ring* is called whenever *doorbell* is readable and the script is alive; what the script had written by then has been
    passed on. *ring* must read the doorbell, which must be open for writing too: at the end of a file a descriptor is
    readable for ever. A signal that should end the script raises `KeyboardInterrupt` inside *ring*, to abandon its
    question, and goes no further. Whatever else *started* or *ring* raises is raised when the script has ended; until then
    *ring* is not called again.

    SIGTERM, SIGHUP and SIGQUIT are passed on, and followed by SIGKILL *grace* seconds later, unless *is_ending* then says
    that the script is about to end by itself: that is believed once, until the next of these signals. A second Ctrl-C can
    interrupt what the caller does after `run`, unless all of it is inside one `uninterruptible()`. Outside the main
    thread Python handles no signals, and so numb passes none on.
    """
    executable = check(command, cwd, env)
    flush_own_output()
    with ExitStack() as stack:
        kept = Log(log, log_limit)
        stack.callback(kept.close)
        out, err = _open_streams(kept, seen)
        streams = (out,) if out is err else (out, err)
        for stream in streams:
            stack.callback(stream.close)
        script = _Script(streams, grace, is_ending, start, passed_as)
        stack.callback(script.close)
        wake = stack.enter_context(processes.wakeup())
        stack.enter_context(processes.reaping())
        stack.enter_context(processes.handling(dict.fromkeys(KEYBOARD | ENDING | REQUESTS, script.on_signal)))
        if any(stream.is_terminal for stream in streams):
            stack.enter_context(processes.handling({signal.SIGWINCH: script.on_resize}))

        script.received.update(dict.fromkeys(earlier))
        begin = time.monotonic()
        script.start(command, executable, cwd, env, out.script_end, err.script_end)
        script.call_back(lambda: started(script.child.pid))
        script.attend(wake, doorbell if ring else None, ring or (lambda: None), ending)
        _drain(streams)
    if script.fault is not None:
        raise script.fault
    status = script.child.wait()
    return Outcome(
        code=status if 0 <= status != processes.UNKNOWN else None,
        signal=-status if status < 0 else None,
        passed_on=tuple(script.received),
        seconds=script.ended_at - begin,
        survivors=not all(stream.ended for stream in streams),
        log_error=kept.error,
        log_cut=kept.cut,
        output_error=next((stream.error for stream in streams if stream.error), None),
    )


class _Script:
    """The script's process, and what a signal to numb does to it.

    The handlers run between any two lines of the main thread, also while *ring* waits for an answer. So they act
    themselves, and leave to the loop only what is a matter of time.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        grace: float,
        is_ending: Callable[[], bool] = lambda: False,
        start: Start | None = None,
        passed_as: Mapping[int, int] | None = None,
    ) -> None:
        self.received: dict[int, None] = {}  # signals, in order, each once
        self.fault: BaseException | None = None
        self.ended_at = 0.0
        self._streams = streams
        self._grace = grace
        self._is_ending: Callable[[], bool] | None = is_ending
        self._start = start or _by_nobody_else
        self._passed_as = passed_as or {}
        self._child: Child | None = None
        self._end = -1  # readable when the child has ended
        self._below: dict[int, int] = {}  # its descendants when a signal came: process id → handle
        self._kill_at: float | None = None
        self._asking = False
        self._own: set[int] = set()  # signals that numb has sent by itself
        self._came: dict[int, float] = {}  # when each signal came last

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError("the script has not been started")
        return self._child

    def start(
        self, command: Sequence[str], executable: str, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
    ) -> None:
        unbuffered = {"PYTHONUNBUFFERED": "1", **env}  # through a pipe, 0 of 50 lines of a killed script arrived (M9)
        try:
            self._child = self._start(command, executable, cwd, unbuffered, stdout, stderr) or subprocess.Popen(
                command, executable=executable, cwd=cwd, env=unbuffered, stdout=stdout, stderr=stderr
            )
        except OSError as error:
            raise CannotStart(f"{executable} cannot be started: {_reason(error)}", _HINT) from error
        except ValueError as error:  # a NUL, or what the file system's encoding cannot say
            raise CannotStart(f"{executable} cannot be started: {error}", _HINT) from error
        self._end = processes.readable_at_the_end_of(self._child)
        for stream in self._streams:
            stream.close_script_end()
        for signum in tuple(self.received):  # those that came while there was nobody to pass them on to
            self._deliver(signum, self._passed_as.get(signum) or signum)  # nor one that has reached all the others

    def attend(self, wake: int, doorbell: int | None, ring: Callable[[], object], ending: int | None = None) -> None:
        """Pass output on until the script has ended, and with it those whom a signal has left behind."""
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(self._end, selectors.EVENT_READ)
            if ending is not None:
                selector.register(ending, selectors.EVENT_READ)
            waiting = {self._end}
            settled = rung = overdue = False
            while waiting or not settled:
                for stream in self._streams:
                    stream.watch(selector)
                if doorbell is not None:
                    wanted = self._end in waiting and not rung and self.fault is None
                    watch(selector, doorbell, selectors.EVENT_READ, wanted=wanted)
                ready = {key.fd for key, _ in selector.select(self._patience())}
                if wake in ready:
                    os.read(wake, CHUNK)
                if ending in ready:
                    selector.unregister(ending)
                    self._own.add(signal.SIGTERM)
                    self._deliver(signal.SIGTERM, signal.SIGTERM)
                if self._patience() == 0 and self._believes():
                    self._kill_at = None
                if self._patience() == 0:
                    overdue = True
                    self._kill(waiting)

                for stream in self._streams:  # before the rest: what the script wrote before it rang, or ended
                    if self._end in ready or doorbell in ready:
                        stream.mark()
                    if overdue:
                        stream.give_up_waiting()
                    stream.pump()
                settled = all(stream.is_settled for stream in self._streams)

                for fd in ready & waiting:
                    waiting.remove(fd)
                    selector.unregister(fd)
                if self._end in ready:
                    self.child.wait()
                    self.ended_at = time.monotonic()
                    for fd in self._end_those_left_behind():
                        waiting.add(fd)
                        selector.register(fd, selectors.EVENT_READ)
                rung = rung or doorbell in ready
                if rung and settled and self._end in waiting:
                    rung = False
                    self.call_back(ring, asking=True)

    def call_back(self, function: Callable[[], object], *, asking: bool = False) -> None:
        """Call *function*; what it raises is kept for later, because the script needs its output to be read."""
        try:
            self._asking = asking
            try:
                function()
            finally:
                self._asking = False
        except KeyboardInterrupt:  # from `on_signal`: the question is off
            pass
        except BaseException as error:
            self.fault = self.fault or error

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        before, self._came[signum] = self._came.get(signum), time.monotonic()
        if signum not in REQUESTS and before is not None and self._came[signum] - before < SAME:
            return
        self.received[signum] = None
        if self._child is not None:
            self._pass_on(signum)
        if self._asking and signum not in REQUESTS:
            self._asking = False
            raise KeyboardInterrupt

    def on_resize(self, signum: int, frame: FrameType | None) -> None:
        for stream in self._streams:
            stream.resize()
        if self._child is not None:
            self._send(signum)  # the terminal's own may have come before the script's had the new size

    def close(self) -> None:
        for fd in (self._end, *self._below.values()):
            if fd >= 0:
                os.close(fd)

    def _send(self, signum: int) -> None:
        try:
            self.child.send_signal(signum)
        except PermissionError:  # another user's, as with sudo
            pass

    def _pass_on(self, signum: int) -> None:
        """Send *signum* to the script: to its process only, never to a group or to the whole tree.

        The group is numb's own, and may be that of the shell script that called numb. In the tree, those below a
        launcher that passes signals on (torchrun) would get it twice, and a script that saves its work on SIGTERM would
        fail: its DataLoader workers would die first, which PyTorch raises in the script as an error.
        """
        if signum not in KEYBOARD or not processes.in_foreground():
            self._deliver(signum, self._passed_as.get(signum, signum))

    def _deliver(self, signum: int, sent: int) -> None:
        """Send the script what a *signum* to numb is passed on as, and end it in time where it should end."""
        if signum in ENDING:
            if self.child.poll() is None and sent:
                self._remember_descendants(sent)
            if self._kill_at is None and not processes.outlives(self.child.pid, sent or signum):
                self._kill_at = time.monotonic() + self._grace
        if sent:
            self._send(sent)

    def _end_those_left_behind(self) -> Sequence[int]:
        """Pass the signal that ended the script on to the processes below it, and return what to wait for.

        A shell (`bash -c "cd x; python train.py"`) dies of SIGTERM at once and tells nobody. Whoever handled the signal
        has dealt with its own children: then nothing is sent.
        """
        signum = -(self.child.returncode or 0)
        passed = {self._passed_as.get(each, each) for each in self.received} | self._own
        if signum not in ENDING or signum not in passed:
            return ()
        for handle in self._below.values():
            processes.send(handle, signum)
        return tuple(self._below.values())

    def _believes(self) -> bool:
        """Whether the script is left to end by itself."""
        is_ending, self._is_ending = self._is_ending, None
        return self.child.poll() is None and is_ending is not None and is_ending()

    def _patience(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def _kill(self, waiting: set[int]) -> None:
        """End whatever is waited for. What outlives SIGKILL hangs in the kernel, and unless it is the script numb does not."""
        self._kill_at = None
        if self._end in waiting:
            self._remember_descendants(signal.SIGKILL)
            self._send(signal.SIGKILL)
        if waiting:
            for handle in self._below.values():
                processes.send(handle, signal.SIGKILL)
        waiting &= {self._end}

    def _remember_descendants(self, signum: int) -> None:
        for pid in processes.descendants(self.child.pid):
            if pid not in self._below and not processes.outlives(pid, signum):
                handle = processes.handle_on(pid)
                if handle is not None:
                    self._below[pid] = handle


def _by_nobody_else(*_: object) -> None:
    return None


def _open_streams(log: Log, seen: Callable[[bytes], object] | None) -> tuple[Stream, Stream]:
    try:
        return open_streams(log, seen)
    except OSError as error:
        raise CannotStart(f"no pipe for the script's output: {_reason(error)}") from error


def _drain(streams: Sequence[Stream]) -> None:
    """Pass on what others still write, for a moment: until all have closed it, or are silent, or time is up.

    What the script itself wrote was passed on when its end was seen. A survivor is left alone.
    """
    until = time.monotonic() + DRAIN
    with selectors.DefaultSelector() as selector:
        while True:
            for stream in streams:
                stream.watch(selector)
            left = until - time.monotonic()
            patience = left if any(stream.is_behind for stream in streams) else min(IDLE, left)
            if left <= 0 or not selector.get_map() or not selector.select(patience):
                return
            for stream in streams:
                stream.pump()


def _reason(error: OSError) -> str:
    """Say what the system meant: of a file that exists, "not found" is about the interpreter in its first line."""
    if error.errno == errno.ENOENT:
        return "the interpreter in its first line is not there"
    if error.errno == errno.ENOEXEC:
        return "it is no program, and has no first line that names an interpreter (#!/bin/sh)"
    return os.strerror(error.errno or 0)
