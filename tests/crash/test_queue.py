"""The loop of `make crash` for queues: whoever has a part in one is killed at any moment, until all is done."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Scene, furnish
from kit import users

ENTRIES = 12
ROUNDS = 40

# Each start is a line outside, in one write; so is each end, as late as a script can say it.
SCRIPT = """
import os, time
from numb import numb_param, numb_queue, numb_trial_result
n = 0
numb_queue(globals())
numb_param({"n": n})
def tell(word):
    told = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(told, f"{word} {n} {os.getpid()}\\n".encode())
    os.close(told)
tell("start")
for step in range(10):
    time.sleep(0.02)
    with open("written", "a") as written:
        written.write(f"{step}\\n")
assert open("written").read().split() == [str(step) for step in range(10)]
open("code.py", "w").write("broken")
numb_trial_result({"n": n})
tell("end")
"""


@pytest.fixture
def lab(empty: Scene, tmp_path: Path) -> Scene:
    furnish(empty, {"train.py": SCRIPT, "code.py": "x = 1\n"})
    empty.write("q.json", json.dumps([{"n": n} for n in range(ENTRIES)]))
    empty.env["TOLD"] = str(tmp_path / "told")
    return empty


def told(scene: Scene, word: str) -> Counter[int]:
    """How often each entry has started, or ended."""
    with contextlib.suppress(FileNotFoundError):
        lines = map(str.split, Path(scene.env["TOLD"]).read_text().splitlines())
        return Counter(int(n) for said, n, _ in lines if said == word)
    return Counter()


def family(supervisor: int) -> dict[str, list[psutil.Process]]:
    """Who has a part in the queue that a process works off: workers, the nursery, and scripts."""
    found: dict[str, list[psutil.Process]] = {"worker": [], "nursery": [], "script": [], "git": []}
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(supervisor).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                parent = process.parent()
                if "queue work" in words:
                    found["worker"].append(process)
                elif process.name() == "git":
                    found["git"].append(process)
                elif "nursery import serve" in words and parent is not None and parent.pid == supervisor:
                    found["nursery"].append(process)
                else:
                    found["script"].append(process)
    return found


def left(scene: Scene) -> list[psutil.Process]:
    """Processes that know of this scene."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TOLD") == scene.env["TOLD"] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def at_rest(scene: Scene) -> None:
    """Wait until what was left behind has ended by itself: a script that nobody waits for goes on to its end."""
    deadline = time.monotonic() + 60
    while left(scene):
        assert time.monotonic() < deadline, [process.cmdline() for process in left(scene)]
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["supervisor", "worker", "nursery", "script", "git", "group", "term", "ctrl-c", "any"])
def test_a_queue_is_worked_off_whoever_is_killed(lab: Scene, how: str) -> None:
    """B7, L2, L4, E7: at random moments somebody is killed, or asked to end, and the queue is run again until all is done.

    Each entry is done; what was complete is not trained again; none starts more often than it was hit; nobody is left.
    """
    moments, before = random.Random(how), users(lab)
    kills = 0
    for _ in range(ROUNDS):
        done = complete(lab)
        started = told(lab, "start")
        process = lab.start("queue", "run", "q.json", "-j", "3")
        kills += strike(lab, process, how, moments)
        at_rest(lab)
        assert before == users(lab)
        again = {n for n in done if told(lab, "start")[n] > started[n]}
        assert not again, f"complete, and trained again: {again}"
        if statuses(lab) == ["done"] * ENTRIES:
            break
    last = lab.numb("queue", "run", "q.json", "-j", "3")
    at_rest(lab)
    starts = told(lab, "start")

    assert (0, ["done"] * ENTRIES) == (last.code, statuses(lab)), last.stderr
    assert set(range(ENTRIES)) == set(starts) == complete(lab)
    assert sum(starts.values()) <= ENTRIES + 3 * kills and max(starts.values()) <= 1 + kills
    lab.numb("doctor", "--fix")  # a snapshot may have been taken for nobody
    fixed = lab.numb("doctor")
    assert 0 == fixed.code, fixed.stdout + fixed.stderr
    assert [] == os.listdir(lab.root / ".nmb/runs") and before == users(lab)
    lab.sh("git fsck --strict --no-dangling")


def statuses(scene: Scene) -> list[str]:
    return [each["status"] for each in json.loads(scene.numb("queue", "status", "q.json", "--json").stdout)]


def complete(scene: Scene) -> set[int]:
    """The entries of which there is a run that is complete."""
    listed: list[dict[str, Any]] = scene.runs()
    return {run["params"]["n"] for run in listed if run["status"] == "complete"}


def strike(scene: Scene, process: subprocess.Popen[bytes], how: str, moments: random.Random) -> int:
    """Kill somebody at some moment, and wait for the end; returns whether anybody was hit."""
    who = (
        how
        if how != "any"
        else moments.choice(["supervisor", "worker", "nursery", "script", "git", "group", "term", "ctrl-c"])
    )
    try:
        process.communicate(timeout=moments.uniform(0.3, 1.6))
        return 0
    except subprocess.TimeoutExpired:
        pass
    hit = 1
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        match who:
            case "supervisor":
                process.kill()
            case "group":
                os.killpg(process.pid, signal.SIGKILL)
            case "term":
                process.terminate()
            case "ctrl-c":
                os.killpg(process.pid, signal.SIGINT)
            case _:
                found = family(process.pid)[who]
                hit = len(found[:1])
                if found:
                    moments.choice(found).kill()
    process.communicate(timeout=60)
    return hit


def test_two_run_a_queue_and_some_are_killed(lab: Scene) -> None:
    """B7: four workers of two and forty entries, one of which dies now and then; who comes later does what is left."""
    moments, count = random.Random(7), 40
    lab.write("q.json", json.dumps([{"n": n} for n in range(count)]))
    kills = 0
    while statuses(lab) != ["done"] * count:
        both = [lab.start("queue", "run", "q.json", "-j", "2") for _ in range(2)]
        time.sleep(moments.uniform(0.5, 2))
        workers = [each for process in both for each in family(process.pid)["worker"]]
        if workers:
            with contextlib.suppress(psutil.Error):
                moments.choice(workers).kill()
                kills += 1
        for process in both:
            process.communicate(timeout=120)
    at_rest(lab)
    lab.numb("list")
    starts, ends = told(lab, "start"), told(lab, "end")
    whole = Counter(run["params"]["n"] for run in lab.runs() if run["status"] == "complete")

    assert set(range(count)) == set(starts) == set(ends) == set(whole) and kills
    assert {1} == set(whole.values()) == set(ends.values()), "an entry was done twice"
    assert sum(starts.values()) <= count + kills
