"""A `python` that has imported torch before it is asked to run a script: a process forked for each, and nothing else shared.

For scripts whose first line imports torch, which is most of what they take. It is only for those that end by themselves:
the process that numb starts passes on how the script has ended, and not what is sent to it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

# What Python and torch read when they start; whoever has another value gets a python of their own.
AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "TORCH", "TZ")

_STARTED_BY_NUMB = """#!{python} -SIE
import json, os, signal, socket, sys
wanted = {{name: value for name, value in os.environ.items() if name.startswith({names!r})}}
if len(sys.argv) < 2 or sys.argv[1].startswith("-") or wanted != {environment!r}:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
asked = dict(words=sys.argv[1:], cwd=os.getcwd(), environment=dict(os.environ), umask=os.umask(0))
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(asked := json.dumps(asked).encode()).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    answer = server.recv(8)
assert answer, "the warm python has gone"
status = int.from_bytes(answer, "big", signed=True)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@dataclass(frozen=True)
class Warm:
    """The process that waits for scripts, and a folder for PATH in which it is called `python`."""

    process: subprocess.Popen[bytes]
    folder: Path

    @classmethod
    def start(cls, folder: Path, env: dict[str, str]) -> Warm:
        folder.mkdir()
        env = {**env, "PYTHONUNBUFFERED": "1"}  # as numb starts a script
        address = str(folder / "socket")
        environment = {name: value for name, value in env.items() if name.startswith(AT_START)}
        python = folder / "python"
        python.write_text(
            _STARTED_BY_NUMB.format(python=sys.executable, names=AT_START, environment=environment, address=address)
        )
        python.chmod(0o755)
        process = subprocess.Popen(
            [sys.executable, __file__, address], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline(), "the warm python has not started"
        return cls(process, folder)

    def stop(self) -> None:
        self.process.communicate()


def forked(address: str) -> str:
    """Wait for scripts, until nobody can send any; return, in a process of its own for each, the script to be run."""
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
    sys.argv[:] = asked["words"]
    sys.orig_argv[:] = ["python", *asked["words"]]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    return sys.argv[0]


def _exactly(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    return content


def _as_main(script: str) -> None:
    """Run *script* as `python script` does, as far as it can be told from inside."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    script = os.path.abspath(script)
    vars(main).update(__annotations__={}, __builtins__=__builtins__, __cached__=None, __file__=script)
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), vars(main))
    except Exception as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this function
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


if __name__ == "__main__":
    import numpy as np
    import torch

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for a script
    script = forked(sys.argv[1])
    torch.seed()  # another for each, as when they are imported
    np.random.seed()
    _as_main(script)
