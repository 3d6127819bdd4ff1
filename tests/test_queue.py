"""What is promised of a queue beside training: what a person says of its entries, how it is looked at, and the search."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import Scene, furnish

from numb import jobs

SCRIPT = """
import os, time
from numb import log, numb_param, numb_queue, numb_trial_result
n, how = 0, "well"
numb_queue(globals())
numb_param({"n": n, "how": how})
there = os.environ["THERE"]
with open(f"{there}/counts", "a") as counts:
    counts.write(f"{n}\\n")
try:
    if how == "killed":
        os.kill(os.getpid(), 9)
    while how == "long" and not os.path.exists(f"{there}/go"):
        time.sleep(0.01)
    if how == "badly":
        raise ValueError("no luck")
finally:
    with open(f"{there}/ends", "a") as ends:
        ends.write(f"{n}\\n")
numb_trial_result({"twice": 2 * n})
"""

SEARCHED = """
from numb import log, numb_param, numb_queue, numb_trial_result
x, kind, steps = 0.9, "far", 8
numb_queue(globals())
numb_param({"x": x, "kind": kind})
try:
    for step in range(steps):
        loss = (x - 0.3) ** 2 + (1 if kind == "far" else 0) + 0.1 / (step + 1)
        log(step=step, loss=loss)
    numb_trial_result({"loss": loss})
finally:
    print("cleaned up")
"""


@pytest.fixture
def lab(empty: Scene, tmp_path: Path) -> Scene:
    furnish(empty, {"train.py": SCRIPT})
    empty.env["THERE"] = str(tmp_path)
    return empty


@pytest.fixture
def hunt(empty: Scene) -> Scene:
    furnish(empty, {"train.py": SEARCHED})
    return empty


@pytest.fixture
def spared(lab: Scene) -> Scene:
    """One whose script has a hyperparameter more."""
    script = lab.read("train.py").replace('n, how = 0, "well"', 'n, how, spare = 0, "well", 0')
    lab.write("train.py", script.replace('{"n": n, "how": how}', '{"n": n, "how": how, "spare": spare}'))
    return lab


def lines(scene: Scene, name: str) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(line) for line in Path(scene.env["THERE"], name).read_text().split()]
    return []


def entries(scene: Scene, file: str = "q.json") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(scene.numb("queue", "status", file, "--json").stdout)
    return found


def statuses(scene: Scene, file: str = "q.json") -> list[str]:
    return [entry["status"] for entry in entries(scene, file)]


def there(scene: Scene) -> list[int]:
    """Processes that know of this scene."""
    known = ((each.pid, each.info["environ"] or {}) for each in psutil.process_iter(["environ"]))
    return [pid for pid, environment in known if environment.get("THERE") == scene.env["THERE"]]


def until(scene: Scene, name: str, count: int) -> None:
    """Wait until so many have begun, or ended."""
    for _ in range(600):
        if len(lines(scene, name)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{name}: {lines(scene, name)}")


def test_what_is_canceled_never_begins_and_what_runs_is_ended(lab: Scene) -> None:
    """Scripts are asked to end, with what stands in their `finally`; the others go on; it is queued again only when asked."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(4)]))
    process = lab.start("queue", "run", "q.json", "-j", "2")
    until(lab, "counts", 2)
    canceled = lab.numb("queue", "cancel", "q.json", "1", "4")
    until(lab, "counts", 3)  # the next one has the place of the first
    before = {entry["number"]: entry for entry in entries(lab)}
    lab.sh("touch $THERE/go")
    process.communicate(timeout=60)
    after = statuses(lab)
    again = lab.numb("queue", "run", "q.json", "-j", "2")
    lab.numb("queue", "retry", "q.json", "4")
    retried = lab.numb("queue", "run", "q.json", "-j", "2")

    assert "1 entry canceled, 1 script asked to end" in canceled.stderr
    assert ["canceled", "running", "running", "canceled"] == [before[n]["status"] for n in (1, 2, 3, 4)]
    assert before[1]["run"] and "host" in before[2] and before[2]["since"] <= time.time()
    assert ["canceled", "done", "done", "canceled"] == after and 0 == again.code
    assert "interrupted" == {run["id"]: run["status"] for run in lab.runs()}[before[1]["run"]]
    assert 0 == retried.code and ["canceled", "done", "done", "done"] == statuses(lab)
    assert sorted(lines(lab, "counts")) == [0, 1, 2, 3] and [1, 2, 3] == sorted(lines(lab, "ends"))


def test_it_is_said_when_a_script_is_to_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its entry is canceled, or its time is up and it has not heard of that; and no other."""
    monkeypatch.setattr(jobs, "GRACE", 0.1)
    monkeypatch.setattr(jobs, "_LOOK", 0.02)
    for is_canceled, limit, has_heard, is_rung in (
        (True, 0.0, False, True),
        (False, 0.1, False, True),
        (False, 0.1, True, False),
        (False, 0.0, False, False),
    ):
        watch = jobs.Watch(SimpleNamespace(is_canceled=is_canceled), limit)  # type: ignore[arg-type]
        watch.start(lambda has_heard=has_heard: has_heard)
        ready, _, _ = select.select([watch.ending], [], [], 5 if is_rung else 0.5)
        watch.stop()

        assert (bool(ready), is_rung and not is_canceled) == (is_rung, watch.is_late)


def test_a_cancel_ends_all_that_a_command_has_started(lab: Scene) -> None:
    """A shell dies of it and tells nobody; the next entry begins when its script has ended, too."""
    known = json.loads(lab.read("nmb.json"))
    command = ["bash", "-c", "cd . ; python train.py; echo over"]
    lab.write("nmb.json", json.dumps({**known, "train": {"command": command}}))
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    lab.numb("queue", "cancel", "q.json", "1")
    said = process.communicate(timeout=60)

    assert (0, ["canceled", "done"]) == (process.returncode, statuses(lab)), said
    assert [0, 1] == lines(lab, "counts") and [] == there(lab), "the first one goes on"


def test_what_nobody_watches_is_canceled(lab: Scene) -> None:
    """Its worker is dead and its script goes on: that is ended, and the entry does not begin again."""
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    [worker] = [each for each in psutil.Process(process.pid).children() if "queue work" in " ".join(each.cmdline())]
    worker.kill()
    process.communicate(timeout=60)
    canceled = lab.numb("queue", "cancel", "q.json", "1")
    while there(lab):
        time.sleep(0.02)
    done = lab.numb("queue", "run", "q.json")

    assert "1 script asked to end" in canceled.stderr and 0 == done.code, (canceled, done)
    assert (["canceled", "done"], [0, 1]) == (statuses(lab), lines(lab, "counts"))
    assert ["interrupted", "complete"] == [run["status"] for run in lab.runs()]


def test_what_runs_with_other_values_for_all_is_canceled(spared: Scene) -> None:
    """Nothing need be said of them as long as somebody runs the queue with them, and the queue without them stays."""
    spared.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(3)]))
    process = spared.start("queue", "run", "q.json", "spare=7", "-j", "1")
    until(spared, "counts", 1)
    spared.numb("queue", "add", "q.json", "n=3")
    spared.write("train.py", spared.read("train.py").replace('"twice"', '"changed"'))
    said = [spared.numb("queue", "cancel", "q.json", words).stderr for words in ("3", "1-2")]
    process.communicate(timeout=60)
    states = [
        each["status"] for each in json.loads(spared.numb("queue", "status", "q.json", "spare=7", "--json").stdout)
    ]
    spared.numb("queue", "retry", "q.json", "--canceled", "spare=7", "3")
    spared.sh("touch $THERE/go")
    again = spared.numb("queue", "run", "q.json", "spare=7")

    assert "numb: q.json: 1 entry canceled; numb queue status q.json\n" == said[0]
    assert "numb: q.json: 1 entry canceled, 1 script asked to end; numb queue status q.json\n" == said[1]
    assert (["canceled"] * 3 + ["done"], ["queued"] * 4) == (states, statuses(spared)) and 0 == again.code
    assert [0, 2, 3] == sorted(lines(spared, "counts"))
    added = next(run for run in spared.runs() if run["params"]["n"] == 3)
    assert {"twice": 6} == added["results"], "it has the code that was there when it was added"


def test_a_script_that_does_not_hear_of_its_time_is_ended(lab: Scene) -> None:
    """--time-limit asks first; then the script has half a minute."""
    hasty = "import numb.jobs\nnumb.jobs.GRACE = 0.2\n"
    lab.write("hasty/sitecustomize.py", hasty)
    lab.env["PYTHONPATH"] = f"{lab.root / 'hasty'}{os.pathsep}{lab.env['PYTHONPATH']}"
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}]')
    done = lab.numb("queue run q.json --time-limit 1s -j 1")
    first = lab.runs()[0]

    assert ["cut off", "done"] == statuses(lab), done
    assert ("interrupted", "SIGTERM") == (first["status"], first["reason"])
    assert "its time was up, and it was ended" in first["notes"]


# -- a file that is edited while it is run


def test_an_entry_that_does_not_fit_stops_no_other(lab: Scene) -> None:
    """One that was added by hand meanwhile; and code that is edited is for what is added later, also with other names."""
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    lab.write("train.py", lab.read("train.py").replace("n, how", "decay = 0.5\nn, how"))
    lab.numb("queue", "add", "q.json", "n=2", "decay=0.1")
    written = json.loads(lab.read("q.json"))
    lab.write("q.json", json.dumps([*written, {"strange": 1}, {"n": 3}]))
    lab.sh("touch $THERE/go")
    _, said = process.communicate(timeout=60)

    assert 2 == process.returncode and b"the script has no hyperparameter strange" in said, said
    assert ["done", "done", "done", "failed", "done"] == statuses(lab) and [0, 1, 2, 3] == lines(lab, "counts")


def test_a_file_that_cannot_be_read_stops_nothing(lab: Scene) -> None:
    """What was in it before counts, and that is said; with what is in it afterwards it goes on."""
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}, {"n": 2}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1},')
    refused = lab.numb("queue", "status", "q.json")
    lab.sh("touch $THERE/go")
    until(lab, "counts", 2)
    lab.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}, {"n": 2}, {"n": 3}]')
    _, said = process.communicate(timeout=60)

    assert 0 == process.returncode and said.count(b"what was read before counts until it can be read") == 1, said
    assert ["done"] * 4 == statuses(lab) and 2 == refused.code and "q.json:1:" in refused.stderr


def test_what_sets_values_for_all_is_what_it_was(spared: Scene, tmp_path: Path) -> None:
    """A -c file, in the project or not, and nmb.json, are edited before the workers of a cluster begin."""
    for where, spare in (("more.json", 7), (f"{tmp_path}/more.json", 9)):
        spared.write(where, json.dumps({"spare": spare}))
        spared.write("q.json", '[{"n": 0, "how": "long"}, {"n": 1}]')
        spared.sh("rm -f $THERE/counts $THERE/go")
        process = spared.start("queue", "run", "q.json", "-c", where, "--again")
        until(spared, "counts", 1)
        [code] = [path.name for path in spared.root.glob(".nmb/queues/*/code/*")]
        spared.write(where, json.dumps({"spare": spare + 1}))
        config = spared.read("nmb.json")
        spared.write("nmb.json", "{")
        told = ["--retries", "0", "--again", "-c", where, "--code", code, "--limit", "1"]
        worked = spared.numb("queue", "work", "q.json", *told)
        spared.write("nmb.json", config)
        spared.sh("touch $THERE/go")
        process.communicate(timeout=60)

        assert [0, 1] == lines(spared, "counts") and "[2] complete" in worked.stderr, worked
        assert {spare} == {run["params"]["spare"] for run in spared.runs()[-2:]}


@pytest.mark.parametrize("way", ["..", "a link", "a copy"])
def test_a_queue_is_the_same_by_whatever_path(lab: Scene, tmp_path: Path, way: str) -> None:
    """B8: what was done is known, and not done again."""
    lab.write("q.json", '[{"n": 0}, {"n": 1}]')
    lab.write("sub/keep.txt", "")
    lab.numb("queue run q.json")
    copy = tmp_path / "copy"
    if way == "..":
        again = lab.numb("queue run ../q.json", cwd=lab.root / "sub")
    elif way == "a link":
        copy.symlink_to(lab.root)
        again = lab.numb("queue", "run", str(copy / "q.json"))
    else:
        shutil.copytree(lab.root, copy, symlinks=True)
        again = lab.numb("queue run q.json", cwd=copy)

    assert "2 done\n      what is done stays done" in again.stderr and [0, 1] == sorted(lines(lab, "counts")), again


@pytest.mark.parametrize("words", [[], ["--live"]], ids=["queued", "live"])
def test_what_is_killed_has_one_turn(lab: Scene, words: list[str]) -> None:
    """Not one with every worker."""
    lab.write("q.json", json.dumps([{"n": 0, "how": "killed"}, *({"n": n} for n in range(1, 4))]))
    done = lab.numb("queue", "run", "q.json", "-j", "3", *words)

    assert ["cut off", "done", "done", "done"] == statuses(lab) and [0, 1, 2, 3] == sorted(lines(lab, "counts")), done


def test_a_file_may_look_like_an_option(lab: Scene) -> None:
    """Where it is said as one can."""
    lab.write("-q.json", '[{"n": 0}]')
    done = lab.numb("queue", "run", "-j", "1", "--", "-q.json")

    assert 0 == done.code and [0] == lines(lab, "counts"), done


def test_a_paused_queue_begins_nothing(lab: Scene) -> None:
    """What runs goes on, workers wait, a new run is refused with the way out; resume goes on where they are."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(3)]))
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    lab.numb("queue", "pause", "q.json")
    lab.sh("touch $THERE/go")
    until(lab, "ends", 1)
    time.sleep(1.5)
    paused, refused = statuses(lab), lab.numb("queue", "run", "q.json")
    shown = lab.numb("queue", "status", "q.json").stdout
    lab.numb("queue", "resume", "q.json")
    process.communicate(timeout=60)

    assert ["done", "queued", "queued"] == paused and shown.rstrip().endswith("paused")
    assert 1 == refused.code and "numb queue resume q.json" in refused.stderr, "as the README says of refusals"
    assert 0 == process.returncode and ["done"] * 3 == statuses(lab)


def test_entries_begin_by_their_priority(lab: Scene) -> None:
    """The highest first, then as they stand in the file; also below the usual."""
    lab.write("q.json", json.dumps([{"n": n} for n in range(6)]))
    lab.numb("queue", "priority", "q.json", "5-6", "--to", "3")
    lab.numb("queue", "priority", "q.json", "6", "--to", "4")
    lab.numb("queue", "priority", "q.json", "1", "--to", "-1")
    shown = lab.numb("queue", "status", "q.json").stdout
    lab.numb("queue", "run", "q.json", "-j", "1")

    assert [5, 4, 1, 2, 3, 0] == lines(lab, "counts") and "queued (priority 4)" in shown


def test_entries_are_named_by_numbers(lab: Scene) -> None:
    """Anything else is a mistake in the call, and nothing happens; so is to say nothing where that would mean all."""
    lab.write("q.json", '[{"n": 1}]')
    for words in (["cancel", "q.json", "x"], ["cancel", "q.json", "1-"], ["retry", "q.json"], ["priority", "q.json"]):
        done = lab.numb("queue", *words)
        assert (2, True) == (done.code, "numb queue" in done.stderr), words
    assert ["queued"] == statuses(lab)


def test_only_what_failed_is_tried_again(lab: Scene) -> None:
    """`retry --failed` puts it back, where `run --failed` also runs it."""
    lab.write("q.json", '[{"n": 1, "how": "badly"}, {"n": 2}]')
    lab.numb("queue", "run", "q.json")
    said = lab.numb("queue", "retry", "--failed", "q.json").stderr
    between = statuses(lab)
    lab.numb("queue", "run", "q.json")

    assert "1 entry queued again" in said and ["queued", "done"] == between and [1, 2, 1] == lines(lab, "counts")


def test_a_run_is_queued_with_other_values(lab: Scene) -> None:
    """J34: with the hyperparameters of the run, and what is said instead."""
    lab.write("q.json", '[{"n": 3, "how": "badly"}]')
    lab.numb("queue", "run", "q.json")
    [run] = lab.runs()
    added = lab.numb("queue", "dup", "r.json", run["id"], "how=well")
    twice = lab.numb("queue", "dup", "r.json", run["id"][-4:], "how=well")
    wrong = lab.numb("queue", "dup", "r.json", run["id"], "no=1")

    assert [{"n": 3, "how": "well"}] == json.loads(lab.read("r.json")), added
    assert "0 combinations added, 1 were there already" in twice.stderr and 2 == wrong.code


def test_a_program_lists_all_jobs(lab: Scene) -> None:
    """J51: what it lists and the file lacks is added, what only the file has is said; --dry-run writes nothing."""
    lab.write("jobs.py", "print('hello')\ndef jobs():\n    for n in range(3):\n        yield {'n': n, 'how': 'well'}\n")
    dry = lab.numb("queue", "sync", "q.json", "jobs.py", "--dry-run")
    lab.write("q.json", '[{"n": 1, "how": "well"}, {"n": 9}]')
    done = lab.numb("queue", "sync", "q.json", "jobs.py")
    again = lab.numb("queue", "sync", "q.json", "jobs.py")
    found = json.loads(lab.read("q.json"))
    lab.write("jobs.py", "jobs = [{'m': 1}]\n")
    unknown = lab.numb("queue", "sync", "q.json", "jobs.py")
    lab.write("jobs.py", "jobs = [{'n': 1 / 0}]\n")
    broken = lab.numb("queue", "sync", "q.json", "jobs.py")

    assert "3 combinations would be added, 0 were" in dry.stderr and "2 combinations added, 1 were" in done.stderr
    assert "1 combination of q.json is not in jobs.py" in done.stderr and "0 combinations added, 3" in again.stderr
    assert [1, 9, 0, 2] == [each["n"] for each in found]
    assert 2 == unknown.code and "no hyperparameter m" in unknown.stderr
    assert 1 == broken.code and "ZeroDivisionError" in broken.stderr and "Traceback" not in broken.stderr


def test_slips_of_the_finger_are_named(lab: Scene) -> None:
    """A distribution that there is none of, and a job that is no combination."""
    lab.write("jobs.py", "import os\nos.system('echo loud')\njobs = [{'n': 1}, 2]\n")
    said = [
        lab.numb("queue", *words).stderr
        for words in (
            ("sample", "q.json", "n=loguni(1,2)", "-n", "2"),
            ("search", "q.json", "--by", "results.twice", "-n", "2", "n=unifrom(1,2)"),
            ("sync", "q.json", "jobs.py"),
        )
    ]

    assert "there is no distribution loguni; did you mean loguniform?" in said[0]
    assert "there is no distribution unifrom; did you mean uniform?" in said[1]
    assert "jobs.py lists nothing: job 2 is no combination, {'lr': 0.1} say: 2" in said[2]
    assert not (lab.root / "q.json").exists()


def test_of_a_long_file_what_matters_is_shown(lab: Scene) -> None:
    """What has failed, what comes next, the count of all; --all shows every entry, and JSON has them in any case."""
    lab.write("q.json", json.dumps([{"n": n} for n in range(300)]))
    lab.numb("queue", "cancel", "q.json", "1-290")
    lab.numb("queue", "retry", "q.json", "150")
    lab.numb("queue", "priority", "q.json", "299", "--to", "7")
    short, whole = lab.numb("queue", "status", "q.json").stdout, lab.numb("queue", "status", "q.json", "--all").stdout

    assert len(short.splitlines()) < 70 < len(whole.splitlines()) and "--all shows them" in short
    assert short.splitlines()[-1] == whole.splitlines()[-1] == "289 canceled, 11 queued"
    assert " 150  queued" in short and " 299  queued (priority 7)" in short and 300 == len(entries(lab))


def test_what_would_be_done_is_said(lab: Scene) -> None:
    """--test says it and does nothing; options that do not go together are refused."""
    lab.write("q.json", '[{"n": 1}, {"n": 2}]')
    for words, said in (
        ([], "2 entries of q.json: one after another, in this process"),
        (["-j", "3"], "2 entries of q.json: 3 at the same time, forked by a process"),
        (["--gpus", "0,3", "--cold"], "2 at the same time, on GPU 0, GPU 3, each in a new interpreter"),
    ):
        assert said in lab.numb("queue", "run", "q.json", "--test", *words).stdout
    for words in (
        ["--per-gpu", "2"],
        ["--engine", "debug", "-j", "2"],
        ["--wait"],
        ["-j", "1", "--slurm", "x", "--gpus", "1"],
    ):
        assert 2 == lab.numb("queue", "run", "q.json", *words).code, words
    assert ["queued"] * 2 == statuses(lab) and [] == lab.runs()


def test_a_search_finds_what_is_good(hunt: Scene) -> None:
    """So many combinations, each once, by several workers; it goes on where it stopped, and learns from what is recorded."""
    space = ["x=uniform(0,1)", "kind=choice(near,far)"]
    first = hunt.numb("queue", "search", "q.json", "--by", "results.loss", "-n", "9", "-j", "3", *space)
    more = hunt.numb("queue", "search", "q.json", "--by", "results.loss", "--min", "-n", "18", *space)
    again = hunt.numb("queue", "search", "q.json", "-j", "2")
    found = [json.dumps(each) for each in json.loads(hunt.read("q.json"))]
    runs = hunt.runs()
    best = min(run["results"]["loss"] for run in runs[:9]), min(run["results"]["loss"] for run in runs)

    assert (0, 0, 0) == (first.code, more.code, again.code), (first, more)
    assert 18 == len(found) == len(set(found)) == len(runs) and ["done"] * 18 == statuses(hunt)
    assert 1 <= sum('"near"' in each for each in found[:9]) and sum('"near"' in each for each in found[9:]) >= 6
    assert best[1] <= best[0] and {"complete"} == {run["status"] for run in runs}


def test_a_search_ends_runs_where_others_were_better(hunt: Scene) -> None:
    """`numb.log` raises the stop: what stands in `finally` is done, the entry is done too, and is not run again."""
    hunt.write("q.json", json.dumps([{"x": x, "kind": "near"} for x in (0.25, 0.3, 0.35)]))
    hunt.numb("queue", "run", "q.json")
    how = ["--by", "results.loss", "--sampler", "random", "--prune", "loss", "--startup", "2", "--warmup", "3"]
    done = hunt.numb("queue", "search", "q.json", "-n", "9", *how, "x=uniform(0,1)", "kind=choice(near,far)")
    pruned = [run for run in hunt.runs() if run["status"] == "incomplete"]
    again = hunt.numb("queue", "run", "q.json")

    assert 0 == done.code and ["done"] * 9 == statuses(hunt) and pruned, done
    assert all(run["reason"].startswith("pruned: loss has reached") for run in pruned)
    assert "after 3 steps, where the median of the others is" in pruned[0]["reason"]
    assert "cleaned up\n" == hunt.numb("show", pruned[0]["id"], "--log").stdout and {} == pruned[0]["results"]
    assert 0 == again.code and 9 == len(hunt.runs())


def test_a_search_says_what_is_wrong_with_it(hunt: Scene) -> None:
    """Before anything is written: what the script lacks or cannot take, what is no distribution, what is missing."""
    for words, said in (
        (["--by", "results.loss", "-n", "2", "y=uniform(0,1)"], "no hyperparameter y"),
        (["--by", "results.loss", "-n", "2", "x=normal(0,1)"], "normal has no ends"),
        (["--by", "results.loss", "-n", "2", "x=0.1"], "nothing to search"),
        (["--by", "results.loss", "-n", "2", "steps=choice(1,many)"], "many"),
        (["-n", "2", "x=uniform(0,1)"], "--by"),
        ([], "nothing is searched in q.json"),
    ):
        done = hunt.numb("queue", "search", "q.json", *words)
        assert 2 == done.code and said in done.stderr and "Traceback" not in done.stderr, (words, done)
    assert not os.path.exists(hunt.root / "q.json") and [] == hunt.runs()


def test_folders_of_jobs_are_removed_when_nobody_works_there(lab: Scene) -> None:
    """`numb gc`: those of workers, and what runs that are removed have written beside themselves; what others have stays."""
    lab.write("train.py", SCRIPT + "open('beside.txt', 'w').write(str(n))\n")
    lab.write("q.json", '[{"n": 1}, {"n": 2}]')
    lab.numb("queue", "run", "q.json")
    first, second = lab.runs()
    lab.numb("rm", first["id"])
    told = lab.numb("gc", "--dry-run").stdout
    there = lab.root / ".nmb"
    before = sorted(path.name for path in (there / "left").iterdir())
    lab.numb("gc")

    assert "folders of jobs" in told and sorted([first["id"], second["id"]]) == before
    assert [second["id"]] == [path.name for path in (there / "left").iterdir()]
    assert "2" == (there / "left" / second["id"] / "beside.txt").read_text()
    assert [] == [path for path in (there / "work").iterdir() if path.is_dir()]


def test_snapshots_of_a_queue_are_forgotten_when_nobody_runs_them(lab: Scene) -> None:
    """They stay as long as somebody may; those whose queue is not there any more, doctor finds and removes."""
    lab.write("q.json", '[{"n": 1, "how": "long"}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    pinned = lab.sh("git for-each-ref refs/numb/queued")
    lab.sh("touch $THERE/go")
    process.communicate(timeout=60)
    after = lab.sh("git for-each-ref refs/numb/queued")
    lab.sh("git update-ref refs/numb/queued/1-abc HEAD")
    found, fixed = lab.numb("doctor"), lab.numb("doctor", "--fix")

    assert pinned and "" == after and [] == [*lab.root.glob(".nmb/queues/*/code/*")]
    assert 3 == found.code and "refs/numb/queued/1-abc" in found.stdout and 0 == fixed.code
    assert "" == lab.sh("git for-each-ref refs/numb/queued")


def test_snapshots_that_a_killed_run_of_a_queue_has_left_are_forgotten(lab: Scene) -> None:
    """`numb gc` lets git have them; not while a script of it may still be there."""
    lab.write("q.json", '[{"n": 1, "how": "long"}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    until(lab, "counts", 1)
    lab.numb("gc")
    pinned = lab.sh("git for-each-ref refs/numb/queued")
    process.kill()
    lab.sh("touch $THERE/go")
    process.communicate(timeout=60)
    while there(lab):
        time.sleep(0.02)
    left = lab.sh("git for-each-ref refs/numb/queued")
    lab.numb("gc")

    assert pinned and left and "" == lab.sh("git for-each-ref refs/numb/queued")
    assert ["done"] == statuses(lab) and 0 == lab.numb("doctor").code


def test_entries_are_chosen_by_what_they_say_and_how_they_stand(lab: Scene) -> None:
    """J44: values have the types of the script, several must all be there; numbers and values together choose what is both."""
    lab.write("q.json", json.dumps([{"n": n, "how": how} for n in range(3) for how in ("well", "badly")]))
    lab.numb("queue", "priority", "q.json", "--select", "how=badly", "--to", "3")
    lab.numb("queue", "cancel", "q.json", "1-5", "--select", "n=2", "--select", "how=well")
    canceled = statuses(lab)
    lab.numb("queue", "run", "q.json")

    def shown(*words: str) -> list[int]:
        done = lab.numb("queue", "status", "q.json", "--json", *words)
        return [entry["number"] for entry in json.loads(done.stdout)]

    assert ["queued"] * 4 + ["canceled", "queued"] == canceled and [0, 1, 2, 0, 1] == lines(lab, "counts")
    assert [2, 4, 6] == shown("--status", "failed") == shown("--select", "how=badly")
    assert [1, 3, 5] == shown("--status", "done", "--status", "canceled") and [3] == shown(
        "--select", "n=1", "--status", "done"
    )
    assert "numb: q.json: 1 entry queued again" in lab.numb("queue retry q.json --failed --select n=0").stderr
    assert [2] == shown("--status", "queued") and 2 == lab.numb("queue status q.json --select m=1").code


@pytest.mark.parametrize("workers", [[], ["-j", "2"]], ids=["debug", "local"])
def test_a_pause_is_said_and_is_no_reason_to_wait_for_nothing(lab: Scene, workers: list[str]) -> None:
    """Where nothing is left, the run of the queue ends; else who waits says for what."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(3)]))
    process = lab.start("queue", "run", "q.json", *workers)
    until(lab, "counts", max(1, len(workers)))
    lab.numb("queue", "pause", "q.json")
    lab.sh("touch $THERE/go; sleep 1.5")
    waiting = process.poll()
    lab.numb("queue", "cancel", "q.json")
    _, said = process.communicate(timeout=60)

    assert waiting is None and 0 == process.returncode, said
    assert said.count(b"numb: q.json is paused; numb queue resume q.json\n") == 1 and "canceled" in statuses(lab)


def test_values_that_are_set_for_all_are_seen(lab: Scene) -> None:
    """In the lines while it runs, and in the status; who looks without them hears that somebody runs it with them."""
    lab.write("q.json", '[{"n": 3, "how": "long"}, {"n": 4}]')
    process = lab.start("queue", "run", "q.json", "n=7", "-j", "1")
    until(lab, "counts", 1)
    plain = lab.numb("queue", "status", "q.json").stdout.splitlines()[-1]
    there = lab.numb("queue", "status", "q.json", "n=7").stdout.splitlines()
    lab.sh("touch $THERE/go")
    _, said = process.communicate(timeout=60)

    assert "2 queued; somebody runs it with n=7 set for all" == plain and "1 running, 1 queued" == there[-1]
    assert ["7", "7"] == [re.split(r"\s{2,}", line.strip())[2] for line in there[1:3]], there
    assert b"numb: [1/2] n=7 how=long\n" in said and [7, 7] == lines(lab, "counts")


def test_a_search_is_tried_lengthened_and_stopped(hunt: Scene) -> None:
    """--test writes nothing; -n alone makes it longer; a result that no run has ends it after the first."""
    begin = "queue search s.json --by results.loss 'x=uniform(0,1)' kind=near"
    dry = hunt.numb(f"{begin} -n 3 --test")
    none = hunt.numb("queue search s.json")
    hunt.numb(f"{begin} -n 2")
    longer = hunt.numb("queue search s.json -n 3")
    wrong = hunt.numb("queue search t.json --by results.los -n 5 'x=uniform(0,1)'")

    assert (
        0 == dry.code
        and dry.stdout.startswith("3 entries of s.json: ")
        and "nothing is searched in s.json" in none.stderr
    )
    assert (0, 3) == (longer.code, len(json.loads(hunt.read("s.json")))), longer
    assert "numb best --by results.loss; numb queue search s.json goes on, with -n N" in longer.stderr
    assert 2 == wrong.code and "is done and has no results.los; it has results.loss" in wrong.stderr
    assert 1 == len(json.loads(hunt.read("t.json"))) and 4 == len(hunt.runs())


def test_what_is_edited_at_the_end_is_not_what_was_run(spared: Scene) -> None:
    """The last lines count what was run: by the values that were set then, and by the file as it was read."""
    spared.write("more.json", '{"spare": 7}')
    spared.write("q.json", '[{"n": 0, "how": "long"}]')
    process = spared.start("queue", "run", "q.json", "-c", "more.json", "-j", "1")
    until(spared, "counts", 1)
    spared.write("more.json", '{"spare": 8}')
    spared.write("q.json", '[{"n": 0, "how": "long"}, {"n": {"$float": "abc"}}]')
    spared.sh("touch $THERE/go")
    _, said = process.communicate(timeout=60)

    assert 0 == process.returncode and b"Traceback" not in said, said
    assert {7} == {run["params"]["spare"] for run in spared.runs()} and b"numb: q.json: 1 done" == said.splitlines()[-1]
    assert (
        spared.numb("queue status q.json").stderr.startswith("numb: ") and 2 == spared.numb("queue status q.json").code
    )


def test_what_cannot_be_published_is_free_again(lab: Scene) -> None:
    """A run whose folder is damaged holds its entry no longer than its processes live."""
    lab.write("q.json", '[{"n": 0, "how": "long"}]')
    process = lab.start("queue", "run", "q.json")
    until(lab, "counts", 1)
    [folder] = (lab.root / ".nmb/runs").iterdir()
    pid = json.loads((folder / "run.json").read_text())["script"]["pid"]
    process.kill()
    os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (folder / "run.json").write_text("{")
    cut = statuses(lab)
    lab.sh("touch $THERE/go")

    assert ["cut off"] == cut and 0 == lab.numb("queue run q.json").code and ["done"] == statuses(lab)


def test_a_canceled_search_proposes_no_more(hunt: Scene) -> None:
    """Whoever was about to ask, too; with -n it may go on."""
    hunt.numb("queue search s.json --by results.loss 'x=uniform(0,1)' kind=near -n 1")
    hunt.numb("queue search s.json -n 5 --test")
    process = hunt.start("queue", "search", "s.json", "-n", "400", "-j", "2")
    while not hunt.runs()[2:]:
        time.sleep(0.05)
    hunt.numb("queue", "cancel", "s.json")
    process.communicate(timeout=60)
    count = len(json.loads(hunt.read("s.json")))
    again = hunt.numb("queue", "search", "s.json")

    assert count < 100 and count == len(json.loads(hunt.read("s.json"))) and 0 == again.code, again
