"""Pythons that have imported what takes long before they are asked to run: a process forked for each, and nothing else shared.

A `python` with torch, for scripts whose first line imports it, which is most of what they take. It is only for those that end
by themselves: the process that numb starts passes on how the script has ended, and not what is sent to it. And numb, with the
modules that each command imports.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# What Python and torch read when they start; whoever has another value gets a python of their own.
AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "TORCH", "TZ")


def at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(AT_START)}


def ask(address, asked, descriptors, patience=None, born=None):  # type: ignore[no-untyped-def]  # part of the script below, too
    """Have something run, and wait for it: its exit code, or the negative number of a signal. Its process id is told first."""
    asked = json.dumps(asked).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(patience)
        server.connect(address)
        socket.send_fds(server, [len(asked).to_bytes(8, "big")], descriptors)
        server.sendall(asked)
        answers = []
        for heard in (born, None):
            answer = server.recv(8)
            assert answer, "the warm python has gone"
            answers.append(int.from_bytes(answer, "big", signed=True))
            if heard:
                heard(answers[0])
    return answers[1]


_STARTED_BY_NUMB = """#!{python} -SIE
import json, os, signal, socket, sys
wanted = {{name: value for name, value in os.environ.items() if name.startswith({names!r})}}
if len(sys.argv) < 2 or sys.argv[1].startswith("-") or wanted != {environment!r}:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
{ask}
passed = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
passed = [number for number in passed if signal.getsignal(number) != signal.SIG_IGN]
signal.pthread_sigmask(signal.SIG_BLOCK, passed)
def born(pid):
    def pass_on(number, frame):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    for number in passed:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed)
asked = dict(words=sys.argv[1:], cwd=os.getcwd(), environment=dict(os.environ), umask=os.umask(0))
status = ask({address!r}, asked, [0, 1, 2], None, born)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@dataclass(frozen=True)
class Warm:
    """The process that waits for what is to be run."""

    process: subprocess.Popen[bytes]
    address: str
    environment: dict[str, str]

    @classmethod
    def start(cls, folder: Path, env: dict[str, str], what: str) -> Warm:
        folder.mkdir()
        address = str(folder / "socket")
        process = subprocess.Popen(
            [sys.executable, __file__, address, what], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline(), "the warm python has not started"
        return cls(process, address, at_start(env))

    def stop(self) -> None:
        self.process.communicate()


def put_python(warm: Warm, folder: Path) -> None:
    """Put a `python` into a folder for PATH, which hands over to the process that waits."""
    facts = {"names": AT_START, "environment": warm.environment, "address": warm.address, "ask": inspect.getsource(ask)}
    python = folder / "python"
    python.write_text(_STARTED_BY_NUMB.format(python=sys.executable, **facts))
    python.chmod(0o755)


@dataclass(frozen=True)
class Ran:
    """How something has ended, and all that it has said."""

    code: int
    out: bytes
    err: bytes


def run(warm: Warm, words: Sequence[str], cwd: Path, env: Mapping[str, str], given: bytes, patience: float) -> Ran:
    """Have *words* run with *given* to read, as `subprocess.run` does. Raises `TimeoutError`."""
    with tempfile.TemporaryFile() as stdin, ThreadPoolExecutor(2) as readers:
        stdin.write(given)
        stdin.seek(0)
        pipes = [os.pipe(), os.pipe()]
        said = [readers.submit(_all_of, end) for end, _ in pipes]
        asked = {"words": list(words), "cwd": str(cwd), "environment": dict(env), "umask": os.umask(0)}
        os.umask(asked["umask"])
        try:
            code = ask(warm.address, asked, [stdin.fileno(), *(end for _, end in pipes)], patience)
        finally:
            for _, end in pipes:
                os.close(end)
        return Ran(code, *(each.result() for each in said))


def _all_of(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def forked(address: str) -> list[str]:
    """Wait until something is to be run, or nobody can ask any more; return its words, in a process of its own for each."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        gc.freeze()  # so that collecting does not copy what is shared
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                os._exit(0)
            connection, _ = listener.accept()
            if not os.fork():
                break
            connection.close()
    length, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    asked = json.loads(_exactly(connection, int.from_bytes(length, "big")))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(BrokenPipeError):  # who has asked may have been killed
            connection.sendall(child.to_bytes(8, "big", signed=True))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            connection.sendall(code.to_bytes(8, "big", signed=True))
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.umask(asked["umask"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    words: list[str] = asked["words"]
    sys.orig_argv[:] = ["python", *words]
    return words


def _exactly(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    return content


def _as_main(words: list[str]) -> None:
    """Run a script as `python script` does, as far as it can be told from inside."""
    script = words[0]
    sys.argv[:] = words
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    script = os.path.abspath(script)
    vars(main).update(__annotations__={}, __builtins__=__builtins__, __cached__=None, __file__=script)
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), vars(main))
    except Exception as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this function
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def _trainings(address: str) -> None:
    """With what torch imports when an optimizer is made, and the data of the examples."""
    import torch

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    with contextlib.suppress(ImportError):
        import sklearn.datasets  # noqa: F401
    _scripts(address)


def _scripts(address: str) -> None:
    import numpy as np
    import torch

    words = forked(address)
    torch.seed()  # another for each, as when they are imported
    np.random.seed()
    _as_main(words)


def _numb_with_torch(address: str) -> None:
    """For commands that import it anyway."""
    import torch  # noqa: F401

    _numb(address)


def _numb(address: str) -> None:
    """What follows `-m numb`."""
    import numb.cli
    import numb.project  # which every command imports, when it is used

    words = forked(address)
    sys.orig_argv[1:1] = ["-m", "numb"]
    sys.argv[:] = [str(Path(numb.cli.__file__).with_name("__main__.py")), *words]
    sys.path[0] = os.getcwd()
    runpy.run_module("numb", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for what is run
    kinds = {"scripts": _scripts, "trainings": _trainings, "numb": _numb, "numb with torch": _numb_with_torch}
    kinds[sys.argv[2]](sys.argv[1])
