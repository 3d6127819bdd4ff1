"""Workers as tasks of one array job of Slurm's, handed in through submitit; each takes one entry of a queue.

Everything that they share is files: the work tree, `.git` and `.nmb/` on a file system that all nodes see. Before Slurm takes a
node away it sends SIGUSR1: then the script is asked to end, its last checkpoint is kept, and the task is put back in the queue
of Slurm's; started again it takes the entry that was cut off, and that goes on. SIGTERM asks the script to end, too, and what
becomes of the task is Slurm's decision (a cancel, a limit, a preemption without a notice).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numb import alive
from numb.engines import Work, worker
from numb.errors import NotPossible, Usage

_OWN = ("partition", "account", "qos", "constraint", "mem", "exclude")  # what submitit calls as sbatch does
_CALLED = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}
# SIGTERM comes from Slurm, to every process of a task; what asks a worker to end its script is another signal.
PASSED_AS = {int(signal.SIGTERM): 0, int(signal.SIGHUP): int(signal.SIGTERM)}
_DELAY = 90  # seconds between SIGUSR1 and the end, or half of what a task has
_LOOK = 0.2  # seconds between two looks whether a worker has ended
_FIRST_POLL, _POLL = 0.25, 4.0  # and whether tasks have: seldom, where they take long
_PATIENCE = 20.0  # seconds for an answer of Slurm's
_REMEMBERED = 5.0  # seconds for which an answer counts
_LONG, _SILENCE = 2.0, 30.0  # seconds without an answer after which none is expected, and for how long
_ALIVE = frozenset(
    (
        "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING",
        "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "STOPPED", "RESV_DEL_HOLD",
    )
)  # fmt: skip
_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}


class Slurm:
    """Hands a task for each entry to Slurm, of which *parallel* run at the same time, and lets it go on by itself.

    *options* are those of sbatch without their dashes, with `gpus`, `cpus` and `time` (2h, or as Slurm has it) for short;
    *setup* are lines of shell that come before. With *wait* it stays until all tasks have ended.
    """

    def __init__(
        self, options: Mapping[str, str], parallel: int | None, setup: Sequence[str] = (), *, wait: bool = False
    ) -> None:
        self._options, self._parallel, self._setup, self._wait = dict(options), parallel, list(setup), wait

    def run(self, work: Work) -> int:
        """Hand the tasks in. Raises `NotPossible` where submitit or Slurm is missing, or Slurm refuses them."""
        if not work.waiting:
            return 0
        executor = _executor(work.folder)
        executor.update_parameters(**self._parameters())
        tasks, entries = _divided(work.waiting)
        task = Task([*work.words, "--limit", str(entries)], os.getcwd(), fail_fast=work.fail_fast)
        from submitit.core.utils import FailedJobError

        try:
            jobs = executor.map_array(task, range(tasks))
        except FailedJobError as error:
            said = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
            raise NotPossible(
                f"Slurm refuses the job: {said.strip()}", "numb queue run --test shows what is handed in"
            ) from None
        except FileNotFoundError as error:
            raise NotPossible(
                f"there is no {error.filename} here", "numb queue run -j 2 runs it on this machine"
            ) from None
        number = str(jobs[0].job_id).partition("_")[0]
        work.handed_to({"slurm": {"job": number}})
        work.say(f"Slurm has them as job {number}, {_said(tasks, entries)}; what workers say is in {work.folder}")
        if not self._wait:
            return 0
        pause = _FIRST_POLL
        while _states([number]) != {}:  # nor where Slurm does not answer
            work.tick()
            time.sleep(pause)
            pause = min(2 * pause, _POLL)
        return next((code if code > 0 else 128 - code for code in map(_code_of, jobs) if code), 0)

    def shown(self, work: Work) -> str:
        from importlib.util import find_spec

        if find_spec("submitit") is None:
            raise _no_submitit()
        known = self._parameters()
        plain = {
            name: value for name, value in known.items() if not isinstance(value, dict | list) and value is not None
        }
        lines = [f"  {name}={value}" for name, value in (plain | known["additional_parameters"]).items()]
        first = [f"  {line}" for line in known["setup"]]
        tasks, entries = _divided(work.waiting)
        words = shlex.join(["numb", "queue", "work", *work.words, "--limit", str(entries)])
        each = "a task for each" if entries == 1 else _said(tasks, entries)
        return "\n".join([f"an array job of Slurm, {each}", *lines, *first, f"  {words}"])

    def _parameters(self) -> dict[str, Any]:
        """As submitit has them; by the same name what is said here comes before what it would say."""
        found: dict[str, Any] = {"use_srun": False, "time": None, "job_name": "numb"}
        more: dict[str, Any] = {"requeue": True, "signal": f"B:USR1@{_DELAY}"}
        for name, value in self._options.items():
            if name == "time" and (minutes := _minutes(value)):
                found["time"] = minutes
                more["signal"] = f"B:USR1@{min(_DELAY, 60 * minutes // 2)}"
            elif name in _CALLED:
                found[_CALLED[name]] = _whole(name, value)
            elif name in _OWN:
                found[name] = value
            else:
                more[name.replace("-", "_")] = True if value == "" else value
        if self._parallel is not None:
            found["array_parallelism"] = self._parallel
        setup = ["trap '' USR1 USR2", *self._setup]  # until the task listens: they would end it
        return {**found, "additional_parameters": more, "setup": setup}


def _divided(waiting: int) -> tuple[int, int]:
    """How many tasks, and the most entries of each: one, unless Slurm takes fewer tasks in an array."""
    said = _asked("scontrol", "show", "config") or ""
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)
    most = max(1, int(limit[1])) if limit else waiting
    entries = max(1, math.ceil(waiting / max(1, most)))
    return math.ceil(waiting / entries), entries


def _said(tasks: int, entries: int) -> str:
    each = f" of up to {entries} entries each: Slurm takes no more in an array" if entries > 1 else ""
    return ("1 task" if tasks == 1 else f"{tasks} tasks") + each


def _executor(folder: Path) -> Any:
    try:
        import submitit
    except ImportError:
        raise _no_submitit() from None
    logging.getLogger("submitit").setLevel(logging.CRITICAL)  # it asks sacct, which few have
    try:
        # Without a shell in between, so that the signal reaches it.
        return submitit.SlurmExecutor(folder=folder, python=f"exec {shlex.quote(sys.executable)}")
    except RuntimeError:
        raise NotPossible(
            "there is no Slurm here: sbatch cannot be run", "numb queue run -j 2 runs it on this machine"
        ) from None


def _no_submitit() -> NotPossible:
    return NotPossible("the engine slurm needs submitit, which is not installed", "pip install 'numb[slurm]'")


def _minutes(text: str) -> int:
    """Minutes of `2h`, `90m` or `1d`; 0 for what is left to Slurm to understand."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    return max(1, round(float(match[1]) * _MINUTES[match[2]])) if match else 0


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise Usage(f"{name}={text} is no number", f"--slurm {name}=1")
    return int(text)


def options(words: Iterable[str]) -> dict[str, str]:
    """What `--slurm partition=gpu,time=2h` says; `\\,` is a comma of a value. Raises `Usage`."""
    found: dict[str, str] = {}
    parts = [part.replace("\\,", ",").strip() for text in words for part in re.split(r"(?<!\\),", text)]
    for word in filter(None, parts):
        name, _, value = word.lstrip("-").partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", name) or not value.isprintable():
            raise Usage(f"--slurm {word}: that is no option of sbatch's", "--slurm partition=gpu,gpus=1,time=2h")
        found[name] = value
    return found


class Task:
    """What each task does, which submitit calls: be a worker for one entry.

    When SIGUSR1 comes, the script is asked to end, which keeps its last checkpoint, and the task to be put back. submitit would
    do that too, but only where it knows the time limit. With *fail_fast* tasks that have not begun never do once one fails.
    """

    def __init__(self, words: Sequence[str], where: str, *, fail_fast: bool = False) -> None:
        self._words, self._where, self._fail_fast = list(words), where, fail_fast

    def __call__(self, number: int) -> int:
        asked: list[float] = []
        for each in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(each, lambda *_: asked.append(time.monotonic()))
        process = subprocess.Popen(worker(*self._words, "--task"), cwd=self._where, stdin=subprocess.DEVNULL)
        is_told = False
        while (code := process.poll()) is None and not (asked and time.monotonic() > asked[0] + _DELAY):
            if asked and not is_told:
                is_told = True
                process.send_signal(signal.SIGHUP)
            time.sleep(_LOOK)
        if asked:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True, timeout=_PATIENCE)
        elif code and self._fail_fast:
            cancel([os.environ.get("SLURM_ARRAY_JOB_ID", "")])
        return 1 if code is None else code


def _code_of(job: Any) -> int:
    """How the worker of a task that has ended ended; 1 where it could not say so."""
    from submitit.core.utils import pickle_load

    try:
        word, code = pickle_load(job.paths.result_pickle)
    except OSError:
        return 1
    return int(code) if word == "success" else 1


# -- what Slurm knows of tasks


def here(environment: Mapping[str, str]) -> dict[str, Any]:
    """What is said of a process that is part of a task: which, and how often that was begun before."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return {}
    restarts = environment.get("SLURM_RESTART_COUNT", "0")
    return {"slurm": {"job": job, "restarts": int(restarts) if restarts.isdecimal() else 0}}


def is_gone(holder: Mapping[str, Any]) -> bool | None:
    """Whether the process of a task has ended, or all tasks of a job where no process is named; None: it cannot be told."""
    known = alive.is_gone(holder) if "pid" in holder else None
    task = holder.get("slurm") or {}
    job = str(task.get("job", ""))
    if known is not None or not job.isdecimal():
        return known
    mine = here(os.environ).get("slurm", {})
    if mine.get("job") == job and "restarts" in task:
        return bool(mine["restarts"] > task["restarts"])
    return _is_over(job, task.get("restarts"))


def _is_over(job: str, restarts: int | None) -> bool | None:
    said = _known_of(job, int(time.monotonic() / _REMEMBERED))
    if said is None or restarts is None:
        return None if said is None else not said
    # The last task of an array has the number of the array. One that was put back counts as such while it still ends.
    mine = [(state, count) for task, state, count in said if task == job]
    return all(state == "PENDING" or (count > restarts and state != "COMPLETING") for state, count in mine)


@functools.lru_cache(maxsize=1000)
def _known_of(job: str, moment: int) -> tuple[tuple[str, str, int], ...] | None:
    """Number, state, and how often it was put back of each task of a job that has not ended; None: Slurm does not answer."""
    said = _asked("scontrol", "show", "job", "--oneliner", job)
    if said is None:
        return None
    found = re.findall(r"^JobId=(\d+).* JobState=(\S+).*? Restarts=(\d+)", said, re.MULTILINE)
    return tuple((task, state, int(count)) for task, state, count in found if state in _ALIVE)


def _states(jobs: Sequence[str]) -> dict[str, int] | None:
    """How many tasks there are of each state, of those that have not ended; None where Slurm does not answer."""
    said = _asked("squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={','.join(jobs)}")
    if said is None:
        return None
    found: dict[str, int] = {}
    for state in said.split():
        if state in _ALIVE:
            found[state] = found.get(state, 0) + 1
    return found


class _Controller:
    """Who answers for Slurm. Once it has kept somebody waiting for nothing it is asked no more for a while."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def ask(self, *words: str) -> str | None:
        """What Slurm answers; nothing of a job that it has forgotten, as it does some minutes after its end."""
        began = time.monotonic()
        if began < self._silent_until:
            return None
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, text=True)
            if done.returncode == 0:
                return done.stdout
            if "Invalid job id" in done.stderr:
                return ""
        now = time.monotonic()
        if now - began > _LONG:
            self._silent_until = now + _SILENCE
        return None


_asked = _Controller().ask


def summary(jobs: Sequence[str]) -> str:
    """The tasks of jobs that have not ended, in words; empty where there are none."""
    states = _states(jobs) if jobs else {}
    if states is None:
        return f"Slurm does not answer about job {', '.join(jobs)}"
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))


def cancel(jobs: Sequence[str]) -> None:
    """Let tasks that have not begun never begin."""
    if known := [job for job in jobs if job]:
        _Controller().ask("scancel", "--state=PENDING", *known)  # whatever has not been answered before
