"""Scripts started by a `nursery`, which has imported torch already: what `launch` needs of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from numb import alive, processes
from numb.engines.nursery import at_start

# Without the current folder on the path: what lies there may have the name of a module.
_SERVE = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0)\n"
    "from numb.engines.nursery import serve; serve({descriptors}, {modules})"
)
_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_LONGEST = 100_000  # bytes of a request: a datagram has a limit
_ANSWER = 1 << 16
_LOOK = 0.2  # seconds between two looks whether a script has ended whose nursery was killed


class Nursery:
    """The process that has imported *modules*, for so many who ask: each has a socket of its own."""

    def __init__(self, executable: str, modules: Sequence[str], askers: int, cwd: Path, env: Mapping[str, str]) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(askers)]
        self.sockets = [ours for ours, _ in pairs]
        theirs = [each.fileno() for _, each in pairs]
        command = [executable, "-c", _SERVE.format(descriptors=theirs, modules=[*modules])]
        try:
            with processes.holding_back_ctrl_c():
                self._process = subprocess.Popen(
                    command, cwd=cwd, env=unbuffered(env), pass_fds=theirs, stdin=subprocess.DEVNULL
                )
        finally:
            for _, each in pairs:
                each.close()

    def close(self) -> None:
        """Let it go: it ends when nobody can ask any more."""
        for each in self.sockets:
            each.close()

    def wait(self) -> None:
        self._process.wait()


def unbuffered(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a script: through a pipe, 0 of 50 lines of a killed one arrived (M9)."""
    return {"PYTHONUNBUFFERED": "1", **env}


def is_python(command: Sequence[str]) -> bool:
    """Whether a command is an interpreter with a script: with an option before that it is a case of its own."""
    return (
        len(command) > 1
        and _PYTHON.fullmatch(os.path.basename(command[0])) is not None
        and not command[1].startswith("-")
    )


class Child:
    """A script that a nursery has forked; to `launch` it is what `subprocess.Popen` is."""

    def __init__(self, pid: int, asking: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._asking = asking
        self._handle, self._who = processes.handle_on(pid), alive.identity(pid)

    def poll(self) -> int | None:
        """How it has ended; None while it goes on."""
        return self._look(socket.MSG_DONTWAIT)

    def wait(self) -> int:
        """Wait for its end: its exit code, the negative number of a signal, or `UNKNOWN` where its nursery was killed."""
        while (status := self._look(0)) is None:
            time.sleep(_LOOK)
        return status

    def send_signal(self, signum: int) -> None:
        if self.returncode is not None:
            return
        if self._handle is not None:
            processes.send(self._handle, signum)
        elif alive.is_alive(self._who):  # where there are no pidfds, as before Linux 5.3
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def _look(self, how: int) -> int | None:
        if self.returncode is None:
            try:
                said = self._asking.recv(_ANSWER, how)
            except BlockingIOError:
                return None
            except OSError:
                said = b""
            if not said and alive.is_alive(self._who):
                return None  # without its nursery
            status = json.loads(said).get("status") if said else processes.UNKNOWN
            if status is not None:
                self.returncode = status
                if self._handle is not None:
                    os.close(self._handle)
                    self._handle = None
        return self.returncode


class Warm:
    """Starts scripts by a nursery where that can be, and else as new interpreters."""

    def __init__(self, asking: socket.socket, executable: str, env: Mapping[str, str]) -> None:
        self._asking, self._executable = asking, _in_its_folder(executable)
        self._at_start = at_start(unbuffered(env))

    def start(
        self, command: Sequence[str], executable: str, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
    ) -> Child | None:
        """The script's process; None where it needs an interpreter of its own."""
        script = cwd / command[1] if len(command) > 1 else cwd
        if not is_python(command) or _in_its_folder(executable) != self._executable or not script.is_file():
            return None
        if at_start(env) != self._at_start:
            return None
        asked = {"words": [*command[1:]], "executable": executable, "cwd": str(cwd), "environment": dict(env)}
        content = json.dumps(asked).encode(errors="surrogateescape")
        if len(content) > _LONGEST:
            return None
        with contextlib.suppress(OSError):
            socket.send_fds(self._asking, [content], [0, stdout, stderr])
            answer = self._asking.recv(_ANSWER)
            if answer and (pid := json.loads(answer)["pid"]):
                return Child(pid, self._asking)
        return None


def _in_its_folder(executable: str) -> str:
    """A program by its real folder, which a link may lead to; what its name links to is not asked, a venv is known by it."""
    folder, name = os.path.split(executable)
    return os.path.join(os.path.realpath(folder), name)
