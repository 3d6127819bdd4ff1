"""What is promised of engines, once for all of them: where a queue is worked off makes no difference to what comes of it.

A further engine is one more of `ENGINES`; what only one of them can promise comes after that.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import NET, Done, Scene, furnish
from slurm import Slurm, missing, real_slurm  # noqa: F401 - the fixture

from numb import alive, engines
from numb.config import Config
from numb.engines import Work
from numb.engines import slurm as slurm_engine
from numb.errors import Usage


@dataclass(frozen=True)
class Kind:
    """An engine as it is asked for on the command line, with all that it has, and for one entry at a time."""

    all: tuple[str, ...]
    one: tuple[str, ...]


ENGINES = {
    "debug": Kind(("--engine", "debug"), ("--engine", "debug")),
    "local": Kind(("-j", "2"), ("-j", "1")),
    "cold": Kind(("-j", "2", "--cold"), ("-j", "1", "--cold")),
    "slurm": Kind(("--engine", "slurm", "--wait"), ("--engine", "slurm", "--wait", "-j", "1")),
}

# It does what an entry says, and tells whoever waits for it.
SCRIPT = """
import os, signal, sys, time
import numb
from numb import numb_param, numb_queue, numb_trial_result
from version import VERSION
n, how, factor, unit = 0, "well", 2, "m"
numb_queue(globals())
numb_param({"n": n, "how": how, "factor": factor, "unit": unit})
there = os.environ["THERE"]

def tell(name, what):
    with open(f"{there}/{name}", "a") as file:
        file.write(f"{what}\\n")

class Tally:
    total = 0
    def state_dict(self):
        return {"total": self.total}
    def load_state_dict(self, state):
        self.total = state["total"]

tell("pids", os.getpid())
tell("begun", n)
print("working on", n, flush=True)
tally = Tally()
if how == "raises":
    raise ValueError("no luck")
elif how == "exits":
    sys.exit(3)
elif how == "leaves":
    os._exit(4)
elif how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "second time" and open(f"{there}/begun").read().split().count(str(n)) < 2:
    raise ValueError("not yet")
elif how == "slow":
    time.sleep(0.3)
elif how == "net":  # of a script with a network it is asked whether the same was trained before
    from nets.one import train
    train()
    tell("trained", n)
while how == "waits" and not os.path.exists(f"{there}/go"):
    time.sleep(0.01)
while how == "asks" and not numb.run().should_stop:
    time.sleep(0.01)
if how == "steps":  # it waits in the fourth one, when the state of the third is kept
    run = numb.run()
    run.track(tally=tally)
    for step in range(run.restore().step + 1, 6):
        tally.total += step
        run.checkpoint(step=step)
        tell("steps", step)
        while step == 4 and not run.should_stop and not os.path.exists(f"{there}/go"):
            time.sleep(0.01)
        if run.should_stop:
            run.checkpoint(step=step)
            break
data, gpu = open("data.ignored").read(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
numb_trial_result({"product": factor * n, "version": VERSION, "data": data, "total": tally.total, "gpu": gpu})
"""

# In a folder of its own: for what imports torch beside the script, so do the workers here.
TRAINS = f"{NET}\ndef train():\n    Net()(torch.ones(2, 4)).sum().backward()\n"

FILES = {"train.py": SCRIPT, "version.py": 'VERSION = "first"\n', "nets/one.py": TRAINS}


class Lab:
    """A project, and one engine that works its queues off."""

    def __init__(self, scene: Scene, name: str, there: Path, slurm: Slurm | None) -> None:
        self.scene, self.name, self.there, self._slurm = scene, name, there, slurm
        self._kind = ENGINES[name]
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def slurm(self) -> Slurm:
        assert self._slurm is not None, "only there for the engine slurm"
        return self._slurm

    def queue(self, *entries: dict[str, object], file: str = "q.json") -> None:
        self.scene.write(file, json.dumps(entries))

    def run(self, *words: str, file: str = "q.json", one: bool = False) -> Done:
        return self.scene.numb("queue", "run", file, *(self._kind.one if one else self._kind.all), *words)

    def start(self, *words: str, file: str = "q.json", one: bool = False) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        started = self.scene.start("queue", "run", file, *(self._kind.one if one else self._kind.all), *words)
        self._started.append(started)
        return started

    def status(self, *words: str, file: str = "q.json") -> list[dict[str, Any]]:
        done = self.scene.numb("queue", "status", file, *words, "--json")
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def states(self, *words: str, file: str = "q.json") -> list[str]:
        return [each["status"] for each in self.status(*words, file=file)]

    def told(self, name: str) -> list[int]:
        """What scripts have told, in order."""
        with contextlib.suppress(FileNotFoundError):
            return list(map(int, (self.there / name).read_text().split()))
        return []

    def begun(self) -> list[int]:
        """Which entries have begun, each as often as it has."""
        return sorted(self.told("begun"))

    def runs(self) -> dict[int, dict[str, Any]]:
        """By their entry."""
        return {run["params"]["n"]: run for run in self.scene.runs()}

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not what():
            assert time.monotonic() < end, (self.told("begun"), self.told("steps"), self.states())
            time.sleep(0.02)

    def go(self) -> None:
        """Let those that wait go on."""
        (self.there / "go").touch()

    def holders(self) -> list[dict[str, Any]]:
        """Who has taken entries, in turn."""
        paths = self.scene.root.glob(".nmb/queues/*/*.claimed")
        return [json.loads(path.read_text()) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]

    def job(self, n: int) -> str:
        """The number that Slurm has given to the task which has taken an entry last."""
        return str(next(each["slurm"]["job"] for each in reversed(self.holders()) if each["params"]["n"] == n))

    def close(self) -> None:
        """Leave nothing running behind."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        if self._slurm and self._slurm.run("squeue", "--noheader", "--me"):
            self._slurm.run("scancel", "--me")
            self._slurm.wait(lambda: not self.slurm.run("squeue", "--noheader", "--me"), "end of all jobs")


@pytest.fixture(params=ENGINES)
def lab(request: pytest.FixtureRequest, empty: Scene, tmp_path: Path) -> Iterator[Lab]:
    slurm: Slurm | None = request.getfixturevalue("slurm") if request.param == "slurm" else None
    if slurm:
        pytest.importorskip("submitit")
        empty.env |= slurm.env
    furnish(empty, FILES)
    empty.write("data.ignored", "42")
    empty.env["THERE"] = str(tmp_path)
    lab = Lab(empty, request.param, tmp_path, slurm)
    yield lab
    lab.close()


def is_there(pid: int) -> bool:
    return bool(alive.start_token(pid))


ON_SLURM = pytest.mark.parametrize("lab", ["slurm"], indirect=True)
HERE = pytest.mark.parametrize("lab", ["debug", "local", "cold"], indirect=True)


# -- what holds for every engine


def test_each_entry_is_trained_once(lab: Lab) -> None:
    """With its values and the project's ignored data; its run names the queue, has its own log, and is named by the entry."""
    lab.queue(*({"n": n} for n in range(4)), file="plans/q.json")
    done = lab.run(file="plans/q.json")
    again = lab.run(file="plans/q.json")
    runs, status = lab.runs(), lab.status(file="plans/q.json")

    assert (0, 0, [0, 1, 2, 3]) == (done.code, again.code, lab.begun()), (done, again)
    assert "numb: plans/q.json: 4 done\n" in done.stderr and "what is done stays done" in again.stderr
    assert [("done", runs[n]["id"], 0) for n in range(4)] == [(e["status"], e["run"], e["exit_code"]) for e in status]
    for n, run in runs.items():
        assert ("complete", "plans/q.json", 0) == (run["status"], run["queue"], run["exit_code"])
        assert {"product": 2 * n, "data": "42"}.items() <= run["results"].items()
        assert f"working on {n}\n" == lab.scene.numb("logs", run["id"]).stdout


def test_what_fails_stops_nothing(lab: Lab) -> None:
    """By an exception, an exit code, at once or killed: the others are trained, and --failed is for those that have failed."""
    ways = ["raises", "exits", "leaves", "killed", "well"]
    lab.queue(*({"n": n, "how": how} for n, how in enumerate(ways)))
    done = lab.run()
    status, before = lab.status(), lab.runs()
    lab.queue(*({"n": n, "how": how} for n, how in enumerate(ways) if how != "killed"))
    failed = lab.run("--failed")

    assert 0 != done.code and 0 != failed.code, (done, failed)
    assert ["failed", "failed", "failed", "cut off", "done"] == [each["status"] for each in status]
    assert [1, 3, 4, 137, 0] == [each["exit_code"] for each in status]
    assert ["ValueError: no luck", "exit code 3", "exit code 4"] == [before[n]["reason"] for n in range(3)]
    assert "3 failed, 1 cut off, 1 done" in done.stderr and "try: numb queue run --failed q.json" in done.stderr
    assert [0, 0, 1, 1, 2, 2, 4] == [n for n in lab.begun() if n != 3]
    said = [path.read_text() for path in lab.scene.root.glob(".nmb/queues/*/engine/*.err")]
    assert "ValueError: no luck" in "".join([done.stdout, done.stderr, *said]), "nor is why"


def test_what_was_killed_comes_no_more_in_the_same_queue_run(lab: Lab) -> None:
    """A script that takes more memory than there is would do so again, in the place of those that wait."""
    lab.queue({"n": 0, "how": "killed"}, {"n": 1}, {"n": 2})
    lab.run(one=lab.name == "slurm")

    assert ([0, 1, 2], ["cut off", "done", "done"]) == (lab.begun(), lab.states())


def test_retries_are_made_at_once(lab: Lab) -> None:
    """Each is a run of its own."""
    lab.queue({"n": 1, "how": "second time"})
    done = lab.run("--retries", "2")

    assert (0, ["done"], [1, 1]) == (done.code, lab.states(), lab.begun()), done
    assert ["failed", "complete"] == [run["status"] for run in lab.scene.runs()]


def test_fail_fast_begins_nothing_more(lab: Lab) -> None:
    """What runs goes on to its end, and the rest is queued."""
    lab.queue({"n": 0, "how": "raises"}, *({"n": n, "how": "slow"} for n in range(1, 12)))
    done = lab.run("--fail-fast", one=lab.name == "slurm")
    status = lab.states()

    assert 0 != done.code and "failed" == status[0] and "queued" == status[-1], (done, status)
    assert {"failed", "done", "queued"} >= set(status) and len(lab.begun()) == 12 - status.count("queued")


def test_what_was_trained_before_is_not_trained_again(lab: Lab) -> None:
    """By whatever way it was: it is counted, until --again asks for it."""
    lab.scene.numb("train", "n=1", "how=net")
    lab.queue({"n": 1, "how": "net"})
    done = lab.run()
    trained = lab.told("trained")
    again = lab.run("--again")

    assert (0, [1], "numb: q.json: 1 done (1 trained before)") == (done.code, trained, done.stderr.splitlines()[-1])
    assert (0, [1, 1], "numb: q.json: 1 done") == (again.code, lab.told("trained"), again.stderr.splitlines()[-1])


@pytest.mark.parametrize("words", [[], ["--live"]], ids=["queued", "live"])
def test_the_code_that_was_queued_runs(lab: Lab, words: list[str]) -> None:
    """Whatever is edited meanwhile; with --live as it is when an entry begins."""
    lab.queue({"n": 1, "how": "waits"}, {"n": 2})
    process = lab.start(*words, one=True)
    lab.until(lambda: lab.begun() == [1])
    lab.scene.write("version.py", 'VERSION = "second"\n')
    lab.go()
    said = process.communicate(timeout=60)

    assert (0, ["done", "done"]) == (process.returncode, lab.states()), said
    assert ["first", "second" if words else "first"] == [lab.runs()[n]["results"]["version"] for n in (1, 2)]


def test_values_that_are_set_for_all(lab: Lab) -> None:
    """By words and by a file; with others the entries are other ones."""
    lab.queue({"n": 1}, {"n": 2})
    lab.scene.write("more.json", '{"unit": "km"}')
    done = lab.run("factor=10", "-c", "more.json")

    assert (0, [1, 2]) == (done.code, lab.begun()), done
    assert [(10, "km"), (20, "km")] == [
        (run["results"]["product"], run["params"]["unit"]) for _, run in sorted(lab.runs().items())
    ]
    assert (["done"] * 2, ["queued"] * 2) == (lab.states("factor=10", "-c", "more.json"), lab.states())


def test_a_time_limit_asks_the_script_to_stop(lab: Lab) -> None:
    """It ends by itself, and goes on another time."""
    lab.queue({"n": 1, "how": "asks"})
    lab.run("--time-limit", "1s", one=True)
    run = lab.runs()[1]

    assert ("incomplete", "time limit of 1 s", 2) == (run["status"], run["reason"], run["results"]["product"])
    assert ["cut off"] == lab.states()


def test_what_was_cut_off_is_free_again(lab: Lab) -> None:
    """Once it is proved that nobody has it any more, and not while its script goes on; where it has a checkpoint, from that."""
    how = "steps" if lab.name == "local" else "waits"  # a network's checkpoint takes seconds
    lab.queue({"n": 1, "how": how})
    process = lab.start()
    lab.until(lambda: 4 in lab.told("steps") if how == "steps" else lab.begun())
    os.kill(lab.holders()[-1]["pid"], signal.SIGKILL)
    if lab.name != "slurm":  # which ends all that a task has left
        lab.until(lambda: not is_there(lab.holders()[-1]["pid"]))
        held = lab.states()
        assert ["running"] == held
    with contextlib.suppress(ProcessLookupError):
        os.kill(lab.told("pids")[-1], signal.SIGKILL)
    process.communicate(timeout=60)
    before = lab.status()[0]
    lab.go()
    done = lab.run()
    runs = lab.scene.runs()

    assert (0, "cut off", ["done"], [1, 1]) == (done.code, before["status"], lab.states(), lab.begun()), done
    if how == "steps":
        assert [(before["run"], "complete", 15)] == [
            (run["id"], run["status"], run["results"]["total"]) for run in runs
        ]
        assert lab.told("steps") in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 4, 5])
    else:
        assert ["complete"] == [run["status"] for run in runs if run["id"] != before["run"]]


def test_two_engines_share_a_queue(lab: Lab) -> None:
    """Each entry is begun once, by one of them."""
    lab.queue({"n": 0, "how": "waits"}, {"n": 1, "how": "waits"}, {"n": 2})
    ours = lab.start(one=True)
    lab.until(lambda: len(lab.begun()) == 1)
    theirs = lab.scene.start("queue", "run", "q.json", "-j", "1")
    lab.until(lambda: len(lab.begun()) == 2)
    lab.go()
    said = [process.communicate(timeout=60) for process in (ours, theirs)]

    assert (0, 0) == (ours.returncode, theirs.returncode), said
    assert ([0, 1, 2], ["done"] * 3) == (lab.begun(), lab.states())
    assert 2 == len({each["pid"] for each in lab.holders()[:2]})
    assert lab.name != "slurm" or 1 == sum("slurm" in each for each in lab.holders()[:2])


def test_what_would_be_done_is_only_said(lab: Lab) -> None:
    """Nothing is begun, and no entry is another one than before."""
    lab.queue({"n": 1}, {"n": 2})
    said = lab.run("--test")
    words = {
        "debug": "one after another, in this process",
        "local": "2 at the same time, forked by a process",
        "cold": "2 at the same time, each in a new interpreter",
        "slurm": "an array job of Slurm, a task for each",
    }

    assert (0, "") == (said.code, said.stderr) and f"2 entries of q.json: {words[lab.name]}" in said.stdout
    assert ([], ["queued"] * 2, []) == (lab.begun(), lab.states(), lab.holders())


def test_the_gpu_of_an_entry_is_known(lab: Lab) -> None:
    """While it runs it is told who has it, and on which GPU."""
    lab.scene.env["CUDA_VISIBLE_DEVICES"] = "3"
    if lab.name == "slurm":
        del lab.scene.env["CUDA_VISIBLE_DEVICES"]
    lab.queue({"n": 1})
    lab.run(*(["--slurm-setup", "export CUDA_VISIBLE_DEVICES=3"] if lab.name == "slurm" else []))
    [holder] = lab.holders()

    assert ("3", "3") == (holder["gpu"], lab.runs()[1]["results"]["gpu"])
    assert {"pid", "token", "boot", "host", "since"} <= holder.keys() and ("slurm" in holder) == (lab.name == "slurm")


# -- engines whose work ends with `numb queue run`


@HERE
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "SIGTERM"])
def test_who_is_asked_to_end_leaves_nothing_running(lab: Lab, how: signal.Signals) -> None:
    """Ctrl-C reaches every process, SIGTERM only the first: the scripts end, their entries are cut off, the others queued."""
    lab.queue(*({"n": n, "how": "waits"} for n in range(3)))
    process = lab.start()
    count = 1 if lab.name == "debug" else 2
    lab.until(lambda: len(lab.begun()) == count)
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    said = process.communicate(timeout=60)
    states = lab.states()

    assert 128 + how == process.returncode, said
    assert ["cut off"] * count + ["queued"] * (3 - count) == states
    assert {"interrupted"} == {run["status"] for run in lab.scene.runs()}
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not any(is_there(pid) for pid in lab.told("pids"))


# -- Slurm: what it does to tasks


@ON_SLURM
def test_what_slurm_is_told(lab: Lab) -> None:
    """One array with a task for each entry, of which -j run at the same time, with the options and lines that were given."""
    lab.queue({"n": 1}, {"n": 2}, {"n": 3})
    done = lab.run(
        "-j", "2", "--slurm", "job-name=two words,time=90m", "--slurm", "cpus=2", "--slurm-setup", "export A=1"
    )
    [file] = lab.scene.root.glob(".nmb/queues/*/engine/*_submission.sh")
    number = file.name.partition("_")[0]
    given = {line.removeprefix("#SBATCH --") for line in file.read_text().splitlines() if line.startswith("#SBATCH")}
    job = lab.slurm.show(f"{number}_0")

    assert (
        0 == done.code
        and f"Slurm has them as job {number}, 3 tasks; what workers say is in {file.parent}" in done.stderr
    )
    assert {"array=0-2%2", "job-name='two words'", "time=90", "cpus-per-task=2", "signal=B:USR1@90", "requeue"} <= given
    assert 1 == sum(each.startswith("job-name=") for each in given) and "\nexport A=1\n" in file.read_text()
    assert ("2", "1", "01:30:00") == (job["CPUs/Task"], job["Requeue"], job["TimeLimit"])
    assert {number} == {lab.slurm.show(each["slurm"]["job"])["ArrayJobId"] for each in lab.holders()}


@ON_SLURM
@pytest.mark.parametrize("by", ["scancel --signal", "preemption"])
def test_sigusr1_keeps_a_checkpoint_and_the_run_goes_on(lab: Lab, by: str) -> None:
    """Sent by a person, or by Slurm before a better job takes the node: the task is put back, and it is the same run."""
    lab.queue({"n": 1, "how": "steps"})
    process = lab.start(*(["--slurm", "partition=spare"] if by == "preemption" else []))
    lab.until(lambda: 4 in lab.told("steps"))
    job = lab.job(1)
    if by == "preemption":
        nodes = str(len(lab.slurm.nodes))
        lab.slurm.until(lab.slurm.submit("true", "-o", "/dev/null", "-N", nodes, "--exclusive"))
    else:
        lab.slurm.run("scancel", "--signal=USR1", "--batch", job)
    lab.until(lambda: lab.states() == ["cut off"])
    [cut] = lab.scene.runs()
    lab.go()
    lab.slurm.begin_soon(job)
    said = process.communicate(timeout=60)
    [run] = lab.scene.runs()

    assert (0, ["done"], [1, 1]) == (process.returncode, lab.states(), lab.begun()), said
    assert ("incomplete", "SIGTERM", 4) == (cut["status"], cut["reason"], cut["checkpoints"][-1]["step"])
    assert (cut["id"], "complete", [1, 2, 3, 4, 5], 15) == (
        run["id"],
        run["status"],
        lab.told("steps"),
        run["results"]["total"],
    )
    assert "1" == lab.slurm.show(job)["Restarts"] and [0, 1] == [each["slurm"]["restarts"] for each in lab.holders()]


@ON_SLURM
@pytest.mark.parametrize("by", ["scontrol requeue", "a lost node"])
def test_a_task_that_slurm_begins_again_takes_its_entry_again(lab: Lab, by: str) -> None:
    """It was put back by hand, or its node is gone and its script was told nothing."""
    lab.queue({"n": 1, "how": "waits"})
    process = lab.start()
    lab.until(lambda: lab.begun() == [1])
    job = lab.job(1)
    if by == "a lost node":
        lab.slurm.lose_node(lab.slurm.show(job)["BatchHost"])
    else:
        lab.slurm.run("scontrol", "requeue", job)
    lab.until(lambda: lab.states() == ["cut off"])
    lab.go()
    lab.slurm.begin_soon(job)
    said = process.communicate(timeout=60)
    lab.slurm.find_nodes()

    assert (0, ["done"], [1, 1]) == (process.returncode, lab.states(), lab.begun()), said
    assert [0, 1] == [each["slurm"]["restarts"] for each in lab.holders()]
    assert ["lost" if by == "a lost node" else "interrupted", "complete"] == [run["status"] for run in lab.scene.runs()]


@ON_SLURM
def test_scancel_ends_all_and_nothing_is_lost(lab: Lab) -> None:
    """Scripts end, their entries are cut off, the others queued; handed in once more, they are all done."""
    lab.queue({"n": 1, "how": "waits"}, {"n": 2})
    process = lab.start(one=True)
    lab.until(lambda: lab.begun() == [1])
    lab.slurm.run("scancel", "--me")
    said = process.communicate(timeout=60)
    states = lab.states()
    pids = [*lab.told("pids"), *(each["pid"] for each in lab.holders())]
    left = [pid for pid in pids if is_there(pid)]
    lab.go()
    done = lab.run()

    assert 0 != process.returncode and (["cut off", "queued"], []) == (states, left), said
    assert (0, ["done"] * 2, [1, 1, 2]) == (done.code, lab.states(), lab.begun()), done


@ON_SLURM
def test_scancel_lets_a_script_keep_its_last_step(lab: Lab) -> None:
    """Slurm sends SIGTERM to every process of a task: to a script that asks, what numb passes on is no second request."""
    lab.queue({"n": 1, "how": "asks"})
    process = lab.start()
    lab.until(lambda: lab.begun() == [1])
    lab.slurm.run("scancel", "--me")
    process.communicate(timeout=60)
    [run] = lab.scene.runs()

    assert ("incomplete", "SIGTERM", 2) == (run["status"], run["reason"], run["results"].get("product"))


@ON_SLURM
def test_numb_cancels_tasks_that_wait(lab: Lab) -> None:
    """They never begin, the script that runs is asked to end, and nothing of it is left in Slurm."""
    lab.queue({"n": 1, "how": "waits"}, {"n": 2}, {"n": 3})
    process = lab.start(one=True)
    lab.until(lambda: lab.begun() == [1])
    waiting = lab.scene.numb("queue status q.json").stdout
    done = lab.scene.numb("queue cancel q.json")
    process.communicate(timeout=60)

    assert "2 pending, 1 running" in waiting.splitlines()[-1]
    assert "numb: q.json: 2 entries canceled, 1 script asked to end; numb queue status q.json\n" == done.stderr
    assert (["canceled"] * 3, [1]) == (lab.states(), lab.begun())
    assert "" == lab.slurm.run("squeue", "--noheader", "--me") and ["interrupted"] == [
        run["status"] for run in lab.scene.runs()
    ]


@ON_SLURM
def test_who_waits_for_tasks_may_go(lab: Lab) -> None:
    """Ctrl-C ends the waiting with one line and 130, and Slurm goes on with the tasks."""
    lab.queue({"n": 1, "how": "waits"})
    process = lab.start()
    lab.until(lambda: lab.begun() == [1])
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    lab.go()
    lab.until(lambda: lab.states() == ["done"])

    assert (130, [1]) == (process.returncode, lab.begun()) and b"Traceback" not in said, said


@ON_SLURM
def test_what_slurm_refuses_is_one_line(lab: Lab) -> None:
    """With what to type next; the entries are as they were, and can be handed in another way."""
    lab.queue({"n": 1}, {"n": 2})
    done = lab.run("--slurm", "partition=nowhere")

    assert 0 != done.code and "Traceback" not in done.stderr
    assert "numb: Slurm refuses the job: sbatch: error: " in done.stderr and "invalid partition" in done.stderr
    assert "      try: numb queue run --test shows what is handed in\n" in done.stderr
    assert (["queued"] * 2, []) == (lab.states(), lab.begun())


# -- Slurm: what is known of a task on another machine


@pytest.fixture
def own_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """One that forgets soon what has ended, takes four tasks in an array, and may be broken."""
    if why := missing():
        pytest.skip(why)
    with (
        tempfile.TemporaryDirectory(prefix="numb-slurm-") as folder,
        Slurm(Path(folder), MinJobAge="2", MaxArraySize="4") as slurm,
    ):
        for name, value in slurm.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", slurm._environment["PATH"])
        yield slurm


def test_slurm_says_who_has_gone(own_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits or runs is there, also while it ends to be put back; what ended or began anew is gone, known or not."""
    slurm, quiet = own_slurm, ("-o", "/dev/null")

    def gone(job: str, restarts: int | None = None) -> bool | None:
        slurm_engine._known_of.cache_clear()
        return engines.is_gone({"slurm": {"job": job} | ({} if restarts is None else {"restarts": restarts})})

    short = slurm.submit("true", *quiet)
    slurm.until(short)
    ended = gone(short, 0), gone(short)
    waits = slurm.submit("true", *quiet, "--begin=now+1hour")
    waiting = gone(waits)
    array = slurm.submit("trap '' TERM; while :; do sleep 0.05; done", *quiet, "--array=0-1")
    slurm.wait(
        lambda: slurm.run("squeue", "-h", "-r", "-t", "R", "-o", "%A", "-j", array).count("\n") == 1, "two tasks"
    )
    tasks = dict(line.split() for line in slurm.run("squeue", "-h", "-r", "-o", "%A %K", "-j", array).splitlines())
    other = next(job for job in tasks if job != array)
    running = gone(array), gone(array, 0), gone(other, 0)

    slurm.run("scontrol", "requeue", other)
    ending = slurm.until(other, "COMPLETING")["Restarts"], gone(other, 0)
    slurm.until(other, "PENDING")
    put_back = gone(other, 0), gone(array, 0)
    slurm.begin_soon(other)
    slurm.until(other, "RUNNING")
    anew = gone(other, 0), gone(other, 1)
    slurm.run("scancel", "--signal=KILL", "--full", f"{array}_{tasks[array]}")
    slurm.wait(lambda: gone(array, 1) is True, "end of one task")
    one_left = gone(array), gone(other, 1)
    slurm.run("scancel", waits, other)
    slurm.wait(lambda: not slurm.state(short), "forgetting", 60)
    forgotten = gone(short, 0), gone(short), slurm_engine.summary([short])

    assert ((True, True), False) == (ended, waiting)
    assert (False, False, False) == running
    assert (("1", False), (True, False), (True, False)) == (ending, put_back, anew)
    assert (False, False) == one_left
    assert (True, True, "") == forgotten

    assert [(1, 1), (4, 1), (3, 2), (4, 3)] == [slurm_engine._divided(n) for n in (1, 4, 5, 10)]

    controller = slurm._daemons.pop("slurmctld")
    controller.kill()
    controller.wait()
    monkeypatch.setattr(slurm_engine, "_PATIENCE", 0.5)
    assert (None, None) == (gone(array, 0), gone(array))
    assert f"Slurm does not answer about job {array}" == slurm_engine.summary([array])
    monkeypatch.setattr(slurm_engine, "_LONG", 0.2)
    controller_asked = slurm_engine._Controller()
    patience = [_seconds(lambda: controller_asked.ask("squeue")) for _ in range(3)]
    assert patience[0] >= 0.5 and max(patience[1:]) < 0.1, "nobody waits for each of a hundred jobs"
    monkeypatch.setenv("PATH", os.defpath.replace("/usr/bin", ""))
    assert (None, None) == (gone(short, 0), gone(short))


def test_a_task_takes_several_where_an_array_has_no_room(own_slurm: Slurm, empty: Scene, tmp_path: Path) -> None:
    """One array all the same, and each entry once."""
    pytest.importorskip("submitit")
    furnish(empty, FILES)
    empty.write("data.ignored", "42")
    empty.env |= {**own_slurm.env, "THERE": str(tmp_path)}
    lab = Lab(empty, "slurm", tmp_path, own_slurm)
    lab.queue(*({"n": n} for n in range(6)))
    done = lab.run()

    assert (0, ["done"] * 6, [*range(6)]) == (done.code, lab.states(), lab.begun()), done
    assert ", 3 tasks of up to 2 entries each: Slurm takes no more in an array; " in done.stderr


def _seconds(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def test_waiting_outlasts_a_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that starts anew is no end of the tasks; the exit code is the first but 0, and 1 where there is none."""

    def ended(*left: object) -> int:
        """How the waiting ends for tasks that have left these."""
        jobs = [
            SimpleNamespace(job_id=f"7_{n}", paths=SimpleNamespace(result_pickle=tmp_path / f"{n}")) for n in range(9)
        ]
        for number, each in enumerate(left):
            jobs[number].paths.result_pickle.write_bytes(pickle.dumps(each))
        executor = SimpleNamespace(update_parameters=lambda **_: None, map_array=lambda *_: jobs[: max(1, len(left))])
        monkeypatch.setattr(slurm_engine, "_executor", lambda folder: executor)
        answers = iter([{"RUNNING": 1}, None, None, {"PENDING": 1}, {}])
        monkeypatch.setattr(slurm_engine, "_states", lambda jobs: next(answers))
        code = slurm_engine.Slurm({}, None, wait=True).run(Work(Config(), tmp_path, [], 2))
        assert [] == list(answers), "it has not waited"
        return code

    pytest.importorskip("submitit")
    monkeypatch.setattr(slurm_engine, "_POLL", 0.0)
    monkeypatch.setattr(slurm_engine, "_FIRST_POLL", 0.0)
    assert 1 == ended()
    assert 0 == ended(("success", 0), ("success", 0))
    assert 3 == ended(("success", 0), ("success", 3), ("success", -9))
    assert (137, 1) == (ended(("success", -9)), ended(("success", 0), ("error", "Traceback")))


def test_a_task_knows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun again, it needs nobody to say that who had its entry was itself; of a process here the machine is asked."""
    monkeypatch.setattr(slurm_engine, "_known_of", lambda job, moment: None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    here = {"slurm": {"job": "7", "restarts": 2}}
    elsewhere = {"host": "elsewhere", "boot": "another", "pid": 1, "token": "1"}

    assert here.items() <= engines.here().items()
    assert [True, False, None] == [
        engines.is_gone({**elsewhere, "slurm": {"job": "7", "restarts": n}}) for n in (1, 2)
    ] + [engines.is_gone({**elsewhere, "slurm": {"job": "8", "restarts": 0}})]
    assert engines.is_gone({**alive.whereabouts(), "slurm": {"job": "7", "restarts": 1}}) is False
    assert engines.is_gone({**alive.whereabouts(), "token": "0", "slurm": {"job": "8", "restarts": 0}}) is True
    assert engines.is_gone({"slurm": {"job": "; rm -rf ~"}}) is None and engines.is_gone({"slurm": {}}) is None


# -- Slurm: where there is none


@pytest.fixture
def bare(empty: Scene, tmp_path: Path) -> Scene:
    """A project on a machine without Slurm."""
    furnish(empty, FILES)
    empty.write("q.json", '[{"n": 1}, {"n": 2}]')
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("git", "env", "sh", "uname"):
        (place / name).symlink_to(shutil.which(name) or "/")
    empty.env["PATH"] = f"{empty.env['PATH'].partition(os.pathsep)[0]}{os.pathsep}{place}"
    return empty


def test_without_slurm_there_is_one_line(bare: Scene) -> None:
    """And with nothing of it, or only some of its commands, the same."""
    pytest.importorskip("submitit")
    none = bare.numb("queue run q.json --engine slurm")
    folder = Path(bare.env["PATH"].rpartition(os.pathsep)[2])
    (folder / "srun").symlink_to("/bin/true")
    some = bare.numb("queue run q.json --engine slurm")

    assert none.stderr.startswith("numb: there is no Slurm here: sbatch cannot be run\n"), none
    assert some.stderr.startswith("numb: there is no sbatch here\n"), some
    assert none.code == some.code != 0
    assert ["      try: numb queue run -j 2 runs it on this machine"] * 2 == [
        each.stderr.splitlines()[-1] for each in (none, some)
    ]


def test_without_submitit_there_is_one_line(bare: Scene, tmp_path: Path) -> None:
    """It is installed with `numb[slurm]`."""
    hidden = "from importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
    hidden += "PathFinder.find_spec = lambda name, *more: None if name == 'submitit' else find(name, *more)\n"
    (tmp_path / "hides").mkdir()
    (tmp_path / "hides" / "sitecustomize.py").write_text(hidden)
    bare.env["PYTHONPATH"] = f"{tmp_path / 'hides'}{os.pathsep}{bare.env['PYTHONPATH']}"
    done = [bare.numb(f"queue run q.json --engine slurm {more}") for more in ("", "--test")]

    assert done[0] == done[1]
    assert (
        "numb: the engine slurm needs submitit, which is not installed\n      try: pip install 'numb[slurm]'\n"
        == done[0].stderr
    )


@pytest.mark.parametrize(
    "words",
    [
        "--engine debug -j 2",
        "--engine debug --cold",
        "--engine debug --gpus 1",
        "--engine local --wait",
        "--engine local -j 2 --slurm time=1h",
        "--engine slurm --gpus 0",
        "--engine slurm --stop-after 1h",
        "--per-gpu 2",
    ],
)
def test_options_of_another_engine_are_refused(bare: Scene, words: str) -> None:
    """Rather than passed over."""
    done = bare.numb(f"queue run q.json {words}")

    assert 2 == done.code and "Traceback" not in done.stderr and [] == bare.runs(), done


@pytest.mark.parametrize(
    "word",
    [
        "two words=1",
        "Partition=gpu",
        "partition gpu",
        "=gpu",
        "a$(touch x)=1",
        "a;b=1",
        "a\nb=1",
        "nodes1=2",
        "ö=1",
        "comment=a\ntouch x",
        "comment=a\x1b[31m",
        "gpus=many",
        "cpus=1.5",
        "gpus=-1",
        "gpus=",
    ],
)
def test_strange_options_are_refused(bare: Scene, word: str) -> None:
    """Names that no option of sbatch's has, lines that would be commands, and numbers that are none."""
    done = bare.numb("queue", "run", "q.json", "--test", "--slurm", word)

    assert 2 == done.code and "Traceback" not in done.stderr and "--slurm " in done.stderr, done


def test_what_would_be_done_where_nothing_is_left(bare: Scene) -> None:
    """As of any other engine."""
    pytest.importorskip("submitit")
    bare.write("q.json", "[]")
    done = bare.numb("queue run q.json --slurm partition=gpu --test")

    assert 0 == done.code and done.stdout.startswith("0 entries of q.json: an array job of Slurm"), done


def test_options_of_sbatch_are_read() -> None:
    """Separated by commas or said one by one, with or without dashes; the last of one name counts."""
    given = slurm_engine.options(["partition=gpu,gpus=1, time=2h", "--mem=4G", "-exclusive", "comment=a b=c", "gpus=2"])

    assert {"partition": "gpu", "gpus": "2", "time": "2h", "mem": "4G", "exclusive": "", "comment": "a b=c"} == given
    assert {"nodelist": "n1,n2", "time": "1h"} == slurm_engine.options([r"nodelist=n1\,n2,time=1h"])
    assert {} == slurm_engine.options([]) == slurm_engine.options(["", " , "])
    with pytest.raises(Usage, match="no option of sbatch's"):
        slurm_engine.options(["partition=gpu,Time=1"])


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("2h", 120),
        ("90m", 90),
        ("1.5h", 90),
        ("1d", 1440),
        (" 30s ", 1),
        ("150s", 2),
        ("0m", 1),
        ("120", 0),
        ("1-12:00:00", 0),
        ("2:30", 0),
        ("2h30m", 0),
        ("", 0),
        ("UNLIMITED", 0),
    ],
)
def test_times_are_minutes(text: str, minutes: int) -> None:
    """What is written as Slurm has it is left to Slurm, as 0 says."""
    assert minutes == slurm_engine._minutes(text)
