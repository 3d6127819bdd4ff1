"""Workers on this machine: processes of numb's own that take entries of a queue, one after another, until none is left.

Each has its own project and branch, and its scripts are forked by one nursery that all of them share. What a worker knows of
the others is what the queue's files say; when who has started them is gone, they take nothing more.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from numb import launch, processes
from numb.config import Config
from numb.engines import GPUS, Work, worker
from numb.engines.warm import Nursery, Warm, is_python
from numb.errors import NotPossible
from numb.launch import Start

_LOOKED_AT = 100  # sources beside the script
_PATIENCE = 3.0  # seconds that scripts which are asked to end are waited for without a word
_LOOK = 0.05  # seconds between two looks whether workers have ended
_OPTIMIZER = re.compile(rb"\boptim\b")
_TORCH = re.compile(rb"^\s*(import\s.*\btorch\b|from\s+torch\b)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Slots:
    """How many workers there are, and which GPU each has; None is whatever the scripts find."""

    gpus: tuple[str | None, ...]

    @classmethod
    def of(cls, workers: int | None, gpus: Sequence[str] = (), per_gpu: int = 1) -> Slots:
        """So many *workers*, or one for each place on a GPU; workers share the GPUs in turn."""
        places = [gpu for _ in range(per_gpu) for gpu in gpus]
        count = workers or len(places) or 1
        return cls(tuple(places[n % len(places)] if places else None for n in range(count)))


def modules(settings: Config, home: Path) -> list[str]:
    """What a nursery for the train command imports: what `nmb.json` names, and torch where the script's folder does."""
    folder = (home / (settings.train or ("", ""))[1]).parent
    sources = [path for path in sorted(folder.glob("*.py"))[:_LOOKED_AT] if path.is_file()]
    text = b"\n".join(path.read_bytes() for path in sources)
    found = [*settings.imports]
    if _TORCH.search(text):
        found += ["torch", "numb.capture.session"]
        found += ["torch._dynamo"] if _OPTIMIZER.search(text) else []  # which the first optimizer imports, for a second
    return list(dict.fromkeys(found))


def nursery(settings: Config, home: Path, askers: int) -> Nursery | None:
    """The nursery for the train command; None where that is no script of Python's."""
    command = settings.train or ()
    if not is_python(command):
        return None
    executable = launch.check(command, home, os.environ)
    return Nursery(executable, modules(settings, home), askers, home, os.environ)


def starter(settings: Config, home: Path, asking: int) -> Start:
    """What starts the scripts of the train command by the nursery that answers at this descriptor."""
    executable = launch.check(settings.train or (), home, os.environ)
    return Warm(socket.socket(fileno=asking), executable, os.environ).start


class Local:
    """Workers on this machine, one in each of the *slots*.

    Their scripts are forked by a process that has imported torch, or when *cold* started as commands are.
    """

    def __init__(self, slots: Slots, *, cold: bool = False) -> None:
        self._slots, self._cold = slots, cold

    def shown(self, work: Work) -> str:
        where = [f"GPU {gpu}" for gpu in self._slots.gpus if gpu is not None]
        how = "each in a new interpreter" if self._cold else "forked by a process that has imported what takes long"
        return f"{len(self._slots.gpus)} at the same time{', on ' if where else ''}{', '.join(where)}, {how}"

    def run(self, work: Work) -> int:
        """Run a worker in each slot, and wait for them all.

        When time is up, or after one that fails where that is asked for, they take nothing more. So it is when this process is
        asked to end; that is passed on, but for what the keyboard sends to all of them. Raises `NotPossible`.
        """
        until = None if work.seconds is None else time.monotonic() + work.seconds
        workers: list[subprocess.Popen[bytes]] = []
        asked: list[int] = []

        def pass_on(signum: int, frame: FrameType | None) -> None:
            if signum != signal.SIGUSR2:  # which is for the scripts only; SIGUSR1 announces an end
                asked.append(signum)
            if signum not in launch.KEYBOARD or not processes.in_foreground():
                for each in workers:
                    each.send_signal(signum)

        passed = launch.KEYBOARD | launch.ENDING | launch.REQUESTS
        with processes.handling(dict.fromkeys(passed, pass_on)), contextlib.ExitStack() as stack:
            stack.callback(lambda: [each.wait() for each in workers])
            try:
                born = None if self._cold else nursery(work.config, work.home, len(self._slots.gpus))
                stack.callback(born.wait if born else lambda: None)
                stack.callback(born.close if born else lambda: None)
                gone, here = os.pipe()
                stack.callback(os.close, gone)
                open_end = stack.enter_context(os.fdopen(here, "wb"))
                for number, gpu in enumerate(self._slots.gpus):
                    asking = born.sockets[number].fileno() if born else None
                    workers.append(_worker(work.words, gpu, gone, asking, os.environ))
            except OSError as error:
                many = f"-j {max(1, len(workers) // 2)}"
                raise NotPossible(
                    f"{len(self._slots.gpus)} workers cannot be started: {error.strerror}", many
                ) from None
            if born:
                born.close()
            told: set[int] = set()
            since = None
            while True:
                codes = [each.poll() for each in workers]
                for number, code in enumerate(codes):
                    if code and code < 0 and not asked and number not in told:
                        told.add(number)
                        work.say(f"a worker was killed ({signal.strsignal(-code) or -code}); what it had is free again")
                if None not in codes:
                    break
                since = since or (time.monotonic() if asked else None)
                if since is not None and time.monotonic() - since > _PATIENCE:
                    since = math.inf
                    work.say(f"waiting for scripts to end; numb queue cancel {work.words[0]} ends them")
                if asked or (work.fail_fast and any(codes)) or (until is not None and time.monotonic() > until):
                    open_end.close()
                work.tick()
                time.sleep(_LOOK)
        if asked:
            return 128 + asked[0]
        return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _worker(
    words: Sequence[str], gpu: str | None, gone: int, asking: int | None, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    told = ["--gone", str(gone), *(["--asking", str(asking)] if asking is not None else [])]
    own = {**env, GPUS: gpu} if gpu is not None else env
    passed = [gone, *([asking] if asking is not None else [])]
    with processes.holding_back_ctrl_c():
        return subprocess.Popen(worker(*told, *words), env=own, pass_fds=passed, stdin=subprocess.DEVNULL)


def is_alone(gone: int) -> bool:
    """Whether who has started this worker has gone: nobody holds the other end any more."""
    ready, _, _ = select.select([gone], [], [], 0)
    return bool(ready)


def begin_to_work() -> None:
    """Hear of Ctrl-C. Let what scripts print go to their logs only; what numb says goes on to the terminal."""
    processes.hear_ctrl_c()
    said = os.dup(2)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    sys.stderr = os.fdopen(said, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
