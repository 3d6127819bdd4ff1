"""What is promised of checkpoints: saved while the training goes on, kept by the rules, and brought back exactly."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy
import pytest
import torch
from conftest import Scene
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import numb
from numb import atomic, inflight, record
from numb.capture import requests, rng, tracking, weights
from numb.capture.checkpoints import Checkpoints
from numb.capture.manifest import Manifest
from numb.capture.requests import Requests
from numb.capture.weights import Saver, StateMismatch
from numb.errors import ArtifactMissing, StorageFailed
from numb.keep import Keep
from numb.layout import RunFolder
from numb.record import Checkpoint
from numb.store.objects import Objects

# A training that draws from every generator, and dies or is asked to end after the step that it is told.
TRAIN = """
import os, random, signal
import numpy
import torch
import numb
from net import Net
from numb import numb_param, numb_queue
lr = 0.1
steps = 12
numb_queue()
numb_param({"lr": lr, "steps": steps})
torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
net = Net()
opt = torch.optim.Adam(net.parameters(), lr)
sched = torch.optim.lr_scheduler.StepLR(opt, 5, 0.5)
run = numb.run()
run.track(model=net, opt=opt, sched=sched)
for step in range(run.restore().step + 1, steps + 1):
    x = torch.randn(16, 4) + random.random() + numpy.random.rand()
    loss = (net(x) ** 2).mean()
    opt.zero_grad(), loss.backward(), opt.step(), sched.step()
    print("loss", step, loss.item(), flush=True)
    run.checkpoint(step=step, loss=loss)
    if os.environ.get("AT") == str(step):
        os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
    if run.should_stop:
        break
torch.save(net.state_dict(), "own.pt")
"""

# A part whose state cannot be kept, as nothing but pickle could tell what it is.
ODD = """
class Odd:
    def state_dict(self):
        return {"function": lambda: 1, "count": 1}
    def load_state_dict(self, state):
        pass
run.track(odd=Odd())
"""


# A training of which only what it keeps counts; it does whatever WHEN says before it keeps the state of a step.
KEEPS = """
import os, time
import torch
import numb
run = numb.run()
net = torch.nn.Linear(2, 1)
run.track(net=net)
for step in range(run.restore().step + 1, 7):
    time.sleep(0.002)
    net.weight.data.fill_(step)
    if eval(os.environ.get("WHEN", "True")):
        run.checkpoint(step=step, acc=0.9 if step == 3 else 0.1)
"""


# A network, renamed and grown since it was kept where NEW is set; it is brought back as HOW says, and by a further rank.
RENAMED = """
import os
import torch
from torch import nn
import numb
run = numb.run()
net, new = nn.Module(), "NEW" in os.environ
setattr(net, "trunk" if new else "body", nn.Linear(2, 2, bias=False))
net.head = nn.Linear(2, 2, bias=new)
with torch.no_grad():
    for p in net.parameters():
        p.fill_(0 if new else 7)
run.track(net=net)

def restore():
    done = run.restore(**eval(os.environ.get("HOW", "dict()")))
    print(*(int(p.flatten()[0]) for p in net.parameters()), done.is_whole, *done.loaded, flush=True)
    return done.step

if new and not os.fork():  # a process that does not record
    restore()
    os._exit(0)
os.wait() if new else None
run.checkpoint(step=restore() + 1)
"""


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


class Told:
    """Checkpoints in a folder, and what they have told."""

    def __init__(self, tmp_path: Path, objects: Objects, keep: Keep = Keep()) -> None:  # noqa: B008
        self.folder, self.objects = tmp_path / "checkpoints", objects
        self.steps: list[int] = []
        self.failed: list[tuple[int, Exception]] = []
        self.checkpoints = Checkpoints(
            self.folder, objects, keep, (), self._tell, lambda step, error: self.failed.append((step, error))
        )

    def _tell(self, what: Checkpoint | int) -> None:
        if isinstance(what, int):
            self.steps.remove(what)
        else:
            self.steps.append(what.step)

    def take(self, step: int, state: dict[str, Any], **results: Any) -> None:
        self.checkpoints.take(step, state, results, {})

    def read(self, step: int) -> OrderedDict[str, Any]:
        return weights.read(record.loads((self.folder / f"{step}.json").read_bytes()), self.objects)


@pytest.fixture
def told(tmp_path: Path, objects: Objects) -> Told:
    return Told(tmp_path, objects)


def large(value: float) -> torch.Tensor:
    return torch.full((1 << 18,), float(value))


# -- in a training


@pytest.mark.usefixtures("warm_training")
def test_a_killed_training_goes_on_as_if_nothing_had_been(torch_scene: Scene) -> None:
    """AC-P1: step by step the same losses as of one that was not cut off, and bit-equal weights; and one run, told whole."""
    last = '    (run.dir / "last.txt").write_text(str(step))\n    run.checkpoint('
    torch_scene.write("train.py", TRAIN.replace("    run.checkpoint(", last))
    plain = torch_scene.sh("PYTHONUNBUFFERED=1 python train.py; mv own.pt plain.pt")
    killed = torch_scene.numb("train", env={"AT": "7", "SIGNAL": "SIGKILL"})
    before = torch_scene.runs()[0]
    resumed = torch_scene.numb("train --resume @")
    [run] = torch_scene.runs()

    assert "12" == torch_scene.numb("show @ --artifact last.txt").stdout, "what is in the run's folder is of its end"
    assert (137, 0) == (killed.code, resumed.code), resumed
    steps = [kept["step"] for kept in before["checkpoints"]]
    assert "killed" == before["status"] and steps[-1] in (6, 7)
    lines = plain.splitlines()
    assert lines[:7] == killed.stdout.splitlines() and lines[steps[-1] :] == resumed.stdout.splitlines()
    torch_scene.sh("cmp plain.pt own.pt")
    assert (before["id"], "complete") == (run["id"], run["status"])
    assert list(range(1, 13)) == [kept["step"] for kept in run["checkpoints"]]
    [segment] = run["segments"]
    earlier = torch_scene.sh("git rev-parse numb~1").strip()
    assert (earlier, "killed", steps[-1]) == (segment["commit"], segment["status"], segment["step"])
    assert f"goes on after step {steps[-1]}" in killed.stderr
    assert f"resumed after step {steps[-1]}" in torch_scene.sh("git log -1 --format=%s numb")
    assert f"resumed after step {steps[-1]}" in torch_scene.numb("show @").stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.usefixtures("warm_training")
def test_a_training_that_is_asked_to_stop_ends_by_itself(torch_scene: Scene, name: str) -> None:
    """AC-J10: it keeps its checkpoint and is incomplete; it goes on, and once it is complete only by force."""
    torch_scene.write("train.py", TRAIN)
    plain = torch_scene.sh("PYTHONUNBUFFERED=1 python train.py")
    asked = torch_scene.numb("train", env={"AT": "3", "SIGNAL": name})
    [run] = torch_scene.runs()
    resumed = torch_scene.numb(f"train --resume {run['id']}")
    refused = torch_scene.numb(f"train --resume {run['id']}")
    forced = torch_scene.numb(f"train --again --resume {run['id']}@10")

    assert ("incomplete", name, [1, 2, 3]) == (
        run["status"],
        run["reason"],
        [kept["step"] for kept in run["checkpoints"]],
    )
    assert (0, 0, 125, 0) == (asked.code, resumed.code, refused.code, forced.code)
    assert 1 == asked.stderr.count("asked to stop")
    lines = plain.splitlines()
    assert (lines[:3], lines[3:], "", lines[10:]) == (
        asked.stdout.splitlines(),
        resumed.stdout.splitlines(),
        refused.stdout,
        forced.stdout.splitlines(),
    )
    assert f"numb train --again --resume {run['id']}" in refused.stderr
    assert "complete" == torch_scene.runs()[0]["status"] and 2 == len(torch_scene.runs()[0]["segments"])


@pytest.mark.usefixtures("warm_training")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_queue_goes_on_with_what_was_cut_off(torch_scene: Scene, name: str) -> None:
    """AC-J10: before what has not begun, and from its last checkpoint; where the script cannot go on, it is trained anew."""
    entries = [{"lr": lr, "steps": 5} for lr in (0.1, 0.2, 0.3)]
    launcher = "__import__('json').load(open(os.environ['NUMB_RUN_DIR'] + '/run.json'))['launcher']['pid']"
    whole = TRAIN.replace("os.getpid()", launcher).replace(
        "    if run.should_stop", "        __import__('time').sleep(1)\n    if run.should_stop"
    )
    script = TRAIN if name == "SIGKILL" else whole  # numb is asked to end, and passes it on
    torch_scene.write("train.py", script)
    torch_scene.write("q.json", json.dumps(entries[:2]))
    ended = torch_scene.numb("queue run --fail-fast q.json", env={"AT": "3", "SIGNAL": name})
    [cut] = torch_scene.runs()
    states = json.loads(torch_scene.numb("queue status q.json --json").stdout)
    torch_scene.write("q.json", json.dumps([entries[2], *entries[:2]]))
    done = torch_scene.numb("queue run q.json")
    runs = torch_scene.runs()

    assert ["cut off", "queued"] == [state["status"] for state in states], ended.stderr
    assert "running" != cut["status"], (ended, cut["status"])
    last = cut["checkpoints"][-1]["step"]
    steps = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert 0 == done.code and [*range(last + 1, 6), *range(1, 6), *range(1, 6)] == steps, done.stderr
    assert f"{cut['id']} goes on after step {last}" in done.stderr
    assert [0.1, 0.3, 0.2] == [run["params"]["lr"] for run in runs] and cut["id"] == runs[0]["id"]
    assert {"complete"} == {run["status"] for run in runs}

    torch_scene.write("q.json", '[{"lr": 0.4}]')
    torch_scene.numb("queue run q.json steps=5", env={"AT": "3", "SIGNAL": name})
    other = torch_scene.numb("queue run q.json steps=4")
    assert 4 == len(other.stdout.splitlines()), "with other values for all it is another entry"
    torch_scene.write("q.json", '[{"lr": 0.4, "steps": 5}]')
    torch_scene.numb("queue run q.json", env={"AT": "3", "SIGNAL": name})
    torch_scene.write("train.py", script.replace("run.restore().step + 1", "1"))
    anew = torch_scene.numb("queue run q.json")

    assert 0 == anew.code and 5 == len(anew.stdout.splitlines()) and "trained anew" in anew.stderr


@pytest.mark.usefixtures("warm_training")
def test_a_script_that_does_not_restore_is_not_resumed(torch_scene: Scene) -> None:
    """It would begin anew and look like the run: it is ended before it trains, and the run stays as it was.

    That its checkpoint is not whole is said before anything is started.
    """
    torch_scene.write("train.py", TRAIN.replace("for step", f"{ODD}\nfor step"))
    torch_scene.numb("train", env={"AT": "3", "SIGNAL": "SIGTERM"})
    torch_scene.write("train.py", TRAIN.replace("run.restore().step + 1", "1"))
    tip = torch_scene.sh("git rev-parse numb")

    done = torch_scene.numb("train --resume @")

    assert (125, "") == (done.code, done.stdout)
    assert "does not call run.restore()" in done.stderr and "above the loop" in done.stderr
    assert "the checkpoint of step 3 is not whole: " in done.stderr and "odd" in done.stderr
    assert tip == torch_scene.sh("git rev-parse numb")
    assert [] == os.listdir(torch_scene.root / ".nmb" / "runs")


@pytest.mark.usefixtures("warm_training")
def test_one_that_takes_no_gradient_is_not_resumed_either(torch_scene: Scene) -> None:
    """Evolution, a fit in closed form: it ends before it keeps what it has made anew; one without checkpoints is told."""
    script = """
import numb
import torch
from net import Net
from numb import numb_param
numb_param({"lr": 0.1})
run, net = numb.run(), Net()
run.track(model=net)
for step in (1, 2):
    net.out.bias.data.add_(1)
    run.checkpoint(step=step)
raise SystemExit(3)
"""
    torch_scene.write("train.py", script)
    torch_scene.numb("train")
    done = torch_scene.numb("train --resume @")
    [run] = torch_scene.runs()
    torch_scene.write("train.py", script.replace("    run.checkpoint(step=step)\nraise SystemExit(3)\n", ""))
    without = torch_scene.numb("train --resume @")
    [resumed] = torch_scene.runs()

    assert 125 == done.code and "does not call run.restore()" in done.stderr
    assert ("failed", 2, []) == (run["status"], run["checkpoints"][-1]["step"], run["segments"])
    assert 0 == without.code and any("it has done anew" in note for note in resumed["notes"])


@pytest.mark.usefixtures("warm_training")
def test_a_run_begins_with_the_weights_of_another(torch_scene: Scene) -> None:
    """Of its end or of a checkpoint; the record of the new run tells of it, and it is not taken for the run itself."""
    torch_scene.write("train.py", TRAIN)
    torch_scene.numb("train")
    [first] = torch_scene.runs()
    torch_scene.write(
        "train.py", TRAIN.replace("for step", "print(sum(p.sum().item() for p in net.parameters()))\nfor step")
    )
    new = [torch_scene.numb(f"train --init-from {name} steps=0") for name in (first["id"], f"{first['id']}@6")]
    wrong = torch_scene.numb(f"train --init-from {first['id']}@13")
    same = torch_scene.numb("train --again steps=0")
    runs = torch_scene.runs()

    assert [0, 0, 125, 0] == [done.code for done in (*new, wrong, same)], new
    assert 3 == len({done.stdout for done in (*new, same)})
    assert [None, {"run": first["id"], "step": None}, {"run": first["id"], "step": 6}, None] == [
        run["init_from"] for run in runs
    ]
    assert f"it has {', '.join(map(str, range(1, 11)))} and 2 more" in wrong.stderr
    assert f"from {first['id']}@6" in torch_scene.sh("git log -2 --format=%s numb")
    assert f"{first['id']}@6" in torch_scene.numb(f"show {runs[2]['id']}").stdout
    parent = torch_scene.numb(f"show {first['id']}").stdout.splitlines()
    assert [runs[1]["id"], f"{runs[2]['id']}  after step 6"] == [
        line.removeprefix("begun with it").strip() for line in parent if line.startswith("begun with it")
    ]
    assert [runs[1]["id"], runs[2]["id"]] == json.loads(torch_scene.numb(f"show {first['id']} --json").stdout)["begun"]

    last, middle = (
        json.loads(torch_scene.numb(f"diff {first['id']}@{step} {other} --weights --json").stdout)
        for step, other in ((12, first["id"]), (6, f"{first['id']}@12"))
    )
    assert {"Net": {"same"}} == {name: {each["how"] for each in found} for name, found in last.items()}
    assert ["Net", "opt", "sched", "random"] == list(middle) and "changed" == middle["Net"][0]["how"]


@pytest.mark.usefixtures("warm_training")
def test_a_checkpoint_is_taken_out(torch_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has the parts of one, the last one of a run that was killed; and so has numb.load_state."""
    torch_scene.write("train.py", TRAIN)
    torch_scene.numb("train", env={"AT": "5", "SIGNAL": "SIGKILL"})
    [run] = torch_scene.runs()
    last = run["checkpoints"][-1]["step"]
    done = [torch_scene.numb(f"report {words}") for words in ("@ --into ../last", "@@2 --into ../second", "@@99")]
    whole = torch_scene.numb(f"show {run['id']}@2")
    monkeypatch.chdir(torch_scene.root)
    state, net = numb.load_state("@@2"), numb.load_state("@@2", "Net")

    assert [0, 0, 125, 1] == [each.code for each in (*done, whole)] and f"try: numb show {run['id']}\n" in whole.stderr
    for folder, step in (("last", last), ("second", 2)):
        taken = torch_scene.root.parent / folder
        parts = {path.name for path in (taken / "checkpoint").iterdir()}
        assert {"model.pt", "model.safetensors", "opt.pt", "sched.pt", "random.pt"} == parts
        assert step == torch.load(taken / "checkpoint" / "sched.pt", weights_only=True)["last_epoch"]
        assert f"after step {step}" in (taken / "README.md").read_text()
    written = torch.load(torch_scene.root.parent / "second/checkpoint/model.pt", weights_only=True)
    assert all(torch.equal(value, net[name]) and value.equal(state["model"][name]) for name, value in written.items())
    with pytest.raises(ArtifactMissing, match="and no Other"):
        numb.load_state("@@2", "Other")


@pytest.mark.usefixtures("warm_training")
def test_what_only_an_earlier_part_of_a_run_needs_is_guarded(torch_scene: Scene) -> None:
    """The checkpoints after the step that a run went on from: gc keeps them, and verify reads them."""
    torch_scene.write("train.py", TRAIN)
    torch_scene.numb("train", env={"AT": "7", "SIGNAL": "SIGTERM"})
    torch_scene.write(
        "train.py",
        TRAIN.replace("x = ", "random.randbytes(9999), numpy.random.rand(999)\n    x = torch.rand(999)[0] + "),
    )
    torch_scene.numb("train --resume @@3")
    [run] = torch_scene.runs()
    commit = run["segments"][0]["commit"]
    named = [
        set(json.loads(torch_scene.sh(f"git show {each}:.nmb/run/checkpoints/7.json"))["objects"])
        for each in (commit, run["commit"])
    ]
    only = named[0] - named[1]
    torch_scene.numb("gc")
    sound = torch_scene.numb("verify")
    path = Objects(torch_scene.root / ".nmb/objects").path(min(only))
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    damaged, one = torch_scene.numb("verify"), torch_scene.numb("verify @")

    assert (0, 3, 3) == (sound.code, damaged.code, one.code), sound
    assert all(run["id"] in done.stdout and min(only) in done.stdout for done in (damaged, one))


@pytest.mark.usefixtures("warm_training")
def test_weights_that_reach_no_network_stop_the_training(torch_scene: Scene) -> None:
    """A script whose network numb does not see would train from scratch, and be told as one that began with them."""
    torch_scene.write("train.py", TRAIN)
    torch_scene.numb("train steps=1")
    torch_scene.write("train.py", TRAIN.replace("run.restore().step", "0"))
    torch_scene.write("net.py", torch_scene.read("net.py").replace("@numb_model", "#"))
    tip = torch_scene.sh("git rev-parse numb")

    done = torch_scene.numb("train --init-from @")

    assert (125, "") == (done.code, done.stdout) and tip == torch_scene.sh("git rev-parse numb")
    assert "no network of the script has got weights of" in done.stderr and "@numb_model(dummy) above" in done.stderr


@pytest.mark.usefixtures("warm_training")
def test_a_run_that_two_machines_resumed_stays_on_both(torch_scene: Scene) -> None:
    """The branch has one of them; what came of the other is left where it is, and doctor tells of it."""
    launcher = 'int(json.load(open(os.environ["NUMB_RUN_DIR"] + "/run.json"))["launcher"]["pid"])'
    kill = f"import json; os.kill({launcher}, 9), os.kill(os.getpid(), 9)"
    torch_scene.write("train.py", TRAIN)
    torch_scene.numb("train", env={"AT": "3", "SIGNAL": "SIGTERM"})
    torch_scene.sh("cp -r . ../other")
    there = Scene(torch_scene.root.parent / "other", Path(torch_scene.env["HOME"]))
    there.env = torch_scene.env
    assert 0 == there.numb("train --resume @").code
    torch_scene.write("train.py", TRAIN.replace("if run.should_stop:", f"{kill}\n    if run.should_stop:"))
    assert -9 == torch_scene.numb("train --resume @").code
    [folder] = (torch_scene.root / ".nmb" / "runs").iterdir()
    torch_scene.sh("git fetch -q ../other numb:refs/numb/theirs && git update-ref refs/heads/numb refs/numb/theirs")
    listed, doctor, [run] = torch_scene.numb("list"), torch_scene.numb("doctor"), torch_scene.runs()
    again = torch_scene.numb(f"train --again --resume {run['id']}@3")

    assert (0, "complete", 12) == (listed.code, run["status"], run["checkpoints"][-1]["step"]) and folder.exists()
    assert 3 == doctor.code and "was resumed elsewhere too" in doctor.stdout and str(folder) in doctor.stdout
    assert 125 == again.code and "numb doctor" in again.stderr


@pytest.mark.usefixtures("warm_training")
def test_a_checkpoint_that_cannot_be_kept_is_told(torch_scene: Scene) -> None:
    """AC-P5: the training goes on to its end; the run is not complete, and says which step was lost and why."""
    in_the_way = 'open(os.environ["NUMB_RUN_DIR"] + "/record/checkpoints", "w")\nfor step'
    torch_scene.write("train.py", TRAIN.replace("for step", in_the_way))
    done = torch_scene.numb("train")
    [run] = torch_scene.runs()
    strict = torch_scene.numb("train --strict")

    assert (0, 12) == (done.code, len(done.stdout.splitlines()))
    assert "incomplete" == run["status"] and "the checkpoint of step 1, 2, 3, 4, 5" in run["reason"]
    assert 1 == done.stderr.count("; the script goes on") and 2 == done.stderr.count("a checkpoint was not kept")
    assert (1, 2) == (strict.code, len(strict.stdout.splitlines())) and "StorageFailed" in strict.stderr


@pytest.mark.usefixtures("warm_training")
def test_a_checkpoint_that_a_full_disk_has_no_room_to_tell_of(
    torch_scene: Scene, small_disk: Callable[[Path, str], Path]
) -> None:
    """AC-P5: not a byte is left when the first one fails, and the run is still not taken for a complete one."""
    store = small_disk(torch_scene.root / ".nmb", "size=6m")
    fill = f"""
events = os.environ["NUMB_RUN_DIR"] + "/events.jsonl"
with open(events, "ab") as file:  # to the end of a page, so that the next event needs one more
    file.write(b'{{"event": "none"}}'.ljust(8192 - os.path.getsize(events) % 4096 - 1) + b"\\n")
os.system("cat /dev/zero > {store}/fill 2> /dev/null")
for step"""
    torch_scene.write("train.py", TRAIN.replace("for step", fill))
    done = torch_scene.numb("train")
    (store / "fill").unlink()
    [run] = torch_scene.runs()

    assert (0, 12) == (done.code, len(done.stdout.splitlines()))
    assert ("incomplete", []) == (run["status"], run["checkpoints"])
    assert re.fullmatch("the checkpoint of step 1, 2, 3.* was not kept: .*No space left on device", run["reason"])


@pytest.mark.usefixtures("warm_training")
@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("", "incomplete", "the script's exit hook did not run, so the last checkpoint may be missing"),
        ('run.finish("complete")\n', "complete", None),
    ],
)
def test_a_script_that_leaves_at_once(torch_scene: Scene, end: str, status: str, reason: str | None) -> None:
    """`os._exit` ends the thread that writes: what was not waited for may be lost, and nobody can say that it is not."""
    torch_scene.write("train.py", TRAIN + end + "os._exit(0)\n")
    torch_scene.numb("train")
    [run] = torch_scene.runs()

    assert (status, reason) == (run["status"], run["reason"])
    assert 12 == run["checkpoints"][-1]["step"] or not end


def test_each_part_of_a_run_is_counted_once(tmp_path: Path) -> None:
    """The last one, whose launcher has died, from when it was resumed: not the time in which nothing ran."""
    now, folder = time.time(), RunFolder(tmp_path)
    folder.content.mkdir()
    folder.events.write_text("")
    segment = record.Segment("0" * 40, record.LOST, 10.0, 3, now - 5)
    run = record.Run(record.RunId.new(now), record.TRAIN, now - 1000, record.RUNNING, segments=(segment,))

    assert 15 == round(inflight.conclude(run, inflight.Told(), None, folder).seconds or 0)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("words", ["--again --resume @@1", "--init-from @@1"])
def test_a_script_says_how_it_is_brought_back(empty: Scene, words: str) -> None:
    """Strictly, and what does not fit ends it; else what fits, with other names, or a part of it: in every rank alike."""
    empty.write("train.py", RENAMED)
    empty.numb("init")
    assert 0 == empty.numb("train").code
    [first] = empty.runs()
    told = {}
    for how in ("strict=True", "strict=False", "strict=False, rename={'body.': 'trunk.'}", "only='^head.weight'"):
        done = empty.numb(f"train {words.replace('@@', first['id'] + '@')}", env={"NEW": "", "HOW": f"dict({how})"})
        told[how] = done.code, done.stdout.splitlines(), done.stderr
        last = empty.runs()[-1]["notes"]

    code, lines, said = told.pop("strict=True")
    assert (125, []) == (code, lines) and "the checkpoint does not fit" in said and "run.restore(strict=False)" in said
    assert "net.trunk.weight" in said and "net.head.bias" in said and "net.body.weight" in said
    assert {
        "strict=False": (0, ["0 7 0 False net.head.weight"] * 2),
        "strict=False, rename={'body.': 'trunk.'}": (0, ["7 7 0 False net.trunk.weight net.head.weight"] * 2),
        "only='^head.weight'": (0, ["0 7 0 True net.head.weight"] * 2),
    } == {how: (code, lines) for how, (code, lines, _) in told.items()}
    assert [] == last, "what was not asked for is not missed"


# -- by the rules


@pytest.mark.usefixtures("warm")
def test_a_training_keeps_what_the_project_says(empty: Scene) -> None:
    """AC-P4: the rules of nmb.json hold in the script; a step that was dropped is not gone on from, and those that are are named."""
    empty.write("train.py", KEEPS)
    rules = {"last": 1, "every": 4, "best": "acc:max"}
    empty.write("nmb.json", json.dumps({"version": 1, "train": {"command": "python train.py"}, "checkpoints": rules}))
    empty.numb("init")
    done = empty.numb("train")
    [run] = empty.runs()
    refused = empty.numb(f"train --again --resume {run['id']}@5")
    collected = json.loads(empty.numb("gc --json").stdout)
    resumed = empty.numb(f"train --again --resume {run['id']}@4")
    [again] = empty.runs()

    assert (0, [3, 4, 6]) == (done.code, [kept["step"] for kept in run["checkpoints"]]), done
    assert 125 == refused.code and f"{run['id']} has no checkpoint of step 5; it has 3, 4, 6" in refused.stderr
    assert (0, 3 + 1) == (collected["objects"], collected["left"]), "the first has what no step changes"
    assert (0, [3, 4, 6]) == (resumed.code, [kept["step"] for kept in again["checkpoints"]]), resumed
    assert 0 == empty.numb("verify").code


@pytest.mark.usefixtures("warm")
def test_a_checkpoint_is_due_as_often_as_was_said(empty: Scene) -> None:
    """--save-every is the interval of `run.should_save`; ten minutes where nothing is said."""
    empty.write("train.py", KEEPS)
    empty.numb("init")
    done = [
        empty.numb(f"train --again {words}", env={"WHEN": "run.should_save"}) for words in ("", "--save-every 0.001s")
    ]

    assert [0, 0] == [each.code for each in done], done
    assert [[], [1, 2, 3, 4, 5, 6]] == [[kept["step"] for kept in run["checkpoints"]] for run in empty.runs()]


def test_the_rules_say_what_stays(objects: Objects, tmp_path: Path) -> None:
    """AC-P4: the last three, every tenth and the best so far; what is dropped leaves neither manifest nor object."""
    told = Told(tmp_path, objects, Keep(last=3, every=10, best="acc"))
    for step in range(1, 26):
        told.take(step, {"w": large(step)}, acc=0.9 if step == 4 else 0.5)
        told.checkpoints.wait()

    assert [4, 10, 20, 23, 24, 25] == told.steps
    assert {f"{step}.json" for step in told.steps} == set(os.listdir(told.folder))
    assert 6 == len(list(objects)) and all(told.read(step)["w"][0] == step for step in told.steps)


def test_what_others_need_is_not_dropped(objects: Objects, tmp_path: Path) -> None:
    """Neither what another process has come to use, nor what other weights of this one name, nor while somebody saves."""
    told = Told(tmp_path, objects, Keep(last=1))
    told.take(1, {"shared": large(1), "own": large(2), "busy": large(3), "final": large(4)})
    told.checkpoints.wait()
    Saver(Objects(objects.root)).save({"theirs": large(1)})
    told.checkpoints.need(Saver(objects).save({"final": large(4)}).refs())
    with Objects(objects.root).in_use():
        told.take(2, {"w": large(5)})
        told.checkpoints.wait()
        assert 5 == len(list(objects))
    told.take(3, {"w": large(6)})
    told.checkpoints.wait()

    assert {1.0, 4.0, 6.0} == {
        torch.frombuffer(objects.open_verified(digest, 1 << 20), dtype=torch.float32)[0].item() for digest in objects
    }


results = st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0.1, 0.5, 1, float("nan"), True, "x", None])))


@given(results, st.integers(1, 5), st.integers(1, 7), st.booleans())
def test_the_best_is_the_best_of_numbers(taken: list[tuple[int, Any]], last: int, every: int, lowest: bool) -> None:
    """Whatever the results are: the rules keep the last, the multiples and the first of the best, and nothing else."""
    known = {step: Checkpoint(step, "", 0.0, (), 0, 0, {"acc": value}) for step, value in taken}
    stay = Keep(last, every, "acc", lowest).steps(known.values())

    steps = sorted(known)
    values = {
        step: kept.results["acc"]
        for step, kept in sorted(known.items())
        if type(kept.results["acc"]) in (int, float) and kept.results["acc"] == kept.results["acc"]
    }
    best = [(min if lowest else max)(values, key=lambda step: values[step])] if values else []
    assert {*steps[-last:], *(step for step in steps if step % every == 0), *best} == stay
    assert set(steps) == Keep().steps(known.values())
    assert Keep(last, every, "a:b", lowest) == Keep.of(Keep(last, every, "a:b", lowest).to_json())


# -- while the training goes on


def test_the_training_does_not_wait_for_the_disk(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """`take` returns while the last one is being written; the next waits for it, so there are never two copies."""
    writing, may_go_on = threading.Event(), threading.Event()
    save = Saver.save

    def slow(self: Saver, *args: Any, **kwargs: Any) -> Manifest:
        writing.set()
        assert may_go_on.wait(30)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Saver, "save", slow)
    told.take(1, {"w": large(1)})
    assert writing.wait(30) and [] == told.steps
    next_one = threading.Thread(target=lambda: told.take(2, {"w": large(2)}))
    next_one.start()
    next_one.join(0.1)
    assert next_one.is_alive()
    may_go_on.set()
    next_one.join()
    told.checkpoints.wait()

    assert [1, 2] == told.steps


def test_a_state_that_changes_meanwhile_is_kept_as_it_was() -> None:
    """Every tensor and array is copied, tied ones stay tied, and so do strides; the script's own objects stay its own."""
    net = nn.Linear(3, 3)
    opt = torch.optim.Adam(net.parameters())
    net(torch.ones(3)).sum().backward()
    opt.step()
    generator = torch.Generator().manual_seed(3)
    sampler = Sampler(net.weight)
    sampler.seen.append(deque([3]))
    taken = tracking.states({"net": net, "opt": opt, "generator": generator, "sampler": sampler})
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    moment = opt.state_dict()["state"][0]["exp_avg"].clone()
    draws = torch.rand(3, generator=generator)

    opt.step()
    sampler.array[:] = 9
    sampler.seen[-1].append(4)
    sampler.seen.append(4)

    assert all(torch.equal(taken["net"][name], value) for name, value in expected.items())
    assert torch.equal(taken["opt"]["state"][0]["exp_avg"], moment)
    assert [1, 2, 3, deque([3])] == taken["sampler"]["seen"] and [0.0, 0.0] == taken["sampler"]["array"].tolist()
    assert taken["sampler"]["tied"] is taken["net"]["weight"]
    generator.set_state(taken["generator"])
    assert torch.equal(draws, torch.rand(3, generator=generator))


def test_a_change_that_torch_does_not_count_is_kept(told: Told) -> None:
    """Through `.data` and NumPy, which leave no trace at the tensor; of large and small ones, and of those of an optimizer."""
    net = nn.ParameterDict({"large": nn.Parameter(large(1)), "small": nn.Parameter(torch.ones(3))})
    opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net["large"].sum().backward()
    opt.step()
    momentum = opt.state[net["large"]]["momentum_buffer"]
    versions = [each._version for each in (*net.values(), momentum)]
    for step in (1, 2, 3):
        net["large"].data.fill_(step), net["small"].detach().numpy().fill(step), momentum.data.fill_(step)
        told.take(step, tracking.states({"net": net, "opt": opt}))
    told.checkpoints.wait()
    back = [told.read(step) for step in (1, 2, 3)]

    assert versions == [each._version for each in (*net.values(), momentum)]
    assert [[1, 1, 1], [2, 2, 2], [3, 3, 3]] == [
        [each["net"]["large"][0], each["net"]["small"][0], each["opt"]["state"][0]["momentum_buffer"][0]]
        for each in back
    ]


class Sampler:
    """Something of the user's with a state of its own."""

    def __init__(self, tied: torch.Tensor) -> None:
        self.seen, self.array, self.tied = [1, 2, 3], numpy.zeros(2), tied

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "array": self.array, "tied": self.tied}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.array = state["seen"], state["array"]


def test_one_that_fails_is_told_and_the_next_is_kept(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk for a moment: the step is named with the reason, and nothing of it is half visible."""
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        told.take(1, {"w": large(1)})
        told.checkpoints.wait()
    told.take(2, {"w": large(2)})
    told.checkpoints.wait()

    [(step, error)] = told.failed
    assert (1, StorageFailed, [2]) == (step, type(error), told.steps)
    assert ["2.json"] == os.listdir(told.folder)


def test_one_that_cannot_be_told_drops_nothing(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for its event: the one before stays, and the step is lost with a word."""
    told = Told(told.folder.parent, told.objects, Keep(last=1))
    told.take(1, {"w": large(1)})
    told.checkpoints.wait()
    monkeypatch.setattr(told.checkpoints, "_tell", lambda what: (_ for _ in ()).throw(StorageFailed("full")))
    told.take(2, {"w": large(2)})
    told.checkpoints.wait()

    assert [2] == [step for step, _ in told.failed]
    assert 1 == told.read(1)["w"][0]


def test_a_wait_that_is_cut_short_is_taken_up_again(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the next one waits: whoever ends the script still finds the thread."""
    may_go_on = threading.Event()
    save = Saver.save

    def slow(self: Saver, *args: Any, **kwargs: Any) -> Manifest:
        assert may_go_on.wait(30)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Saver, "save", slow)
    told.take(1, {"w": large(1)})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            told.checkpoints.wait()
    may_go_on.set()
    told.checkpoints.wait()

    assert [1] == told.steps


def test_a_process_that_is_ending_keeps_its_last_one(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started any more, it is written at once."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("at shutdown")))
    told.take(1, {"w": large(1)})

    assert [1] == told.steps


# -- what is kept, and brought back


def test_every_state_that_trainings_have_comes_back(objects: Objects) -> None:
    """AC-P7: nested dictionaries and lists with tensors and arrays; keys as they are, the caller's object untouched."""
    one = {"w": [torch.ones(3), {"a.b__c": numpy.arange(3), 7: (None, numpy.float64(0.5))}]}
    before = repr(one)
    manifests = [Saver(objects).save({"part": one}).to_json() for _ in (1, 2)]
    back = weights.read(manifests[0], objects)["part"]

    assert before == repr(one) == repr(back)
    assert numpy.float64 is type(back["w"][1][7][1]) and back["w"][1]["a.b__c"].dtype == numpy.arange(3).dtype
    assert 1 == len(list(objects)) and manifests[0] == manifests[1]


OPTIMIZERS = [
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Adadelta,
    torch.optim.NAdam, torch.optim.RAdam, torch.optim.Rprop, torch.optim.ASGD, torch.optim.LBFGS,
]  # fmt: skip


@pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: make.__name__)
def test_an_optimizer_goes_on_exactly(objects: Objects, make: Callable[..., torch.optim.Optimizer]) -> None:
    """Saved after three steps and loaded into another one, it makes the same fourth and fifth step, bit by bit."""

    def built() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 2))
        if make is not torch.optim.LBFGS:  # which cannot
            net.to(memory_format=torch.channels_last)
        opt = make(net.parameters(), lr=0.01)
        return net, opt, torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, 10) if make is torch.optim.SGD else Sampler(None)

    def step(net: nn.Module, opt: torch.optim.Optimizer, sched: Any) -> None:
        def closure() -> torch.Tensor:
            opt.zero_grad()
            loss = (net(torch.randn(4, 2, 3, 3)) ** 2).sum()
            loss.backward()
            return loss

        opt.step(closure)
        getattr(sched, "step", lambda: None)()

    net, opt, sched = built()
    torch.manual_seed(1)
    for _ in range(3):
        step(net, opt, sched)
    state = tracking.states({"net": net, "opt": opt, "sched": sched})
    manifest = Saver(objects).save(state, private=True)
    for _ in range(2):
        step(net, opt, sched)
    other = built()
    torch.manual_seed(2)
    tracking.restore(dict(zip(("net", "opt", "sched"), other, strict=True)), weights.read(manifest.to_json(), objects))
    for _ in range(2):
        step(*other)

    assert ([], None) == (list(manifest.left_out), manifest.partial)
    for here, there in zip(net.state_dict().values(), other[0].state_dict().values(), strict=True):
        assert torch.equal(here, there) and here.stride() == there.stride()


def test_the_generators_go_on_where_they_were(objects: Objects) -> None:
    """Python's with its second Gaussian number, NumPy's and torch's; taking their states draws nothing."""
    random.gauss(0, 1)
    numpy.random.normal()

    def draw() -> list[float]:
        found = [random.gauss(0, 1), random.random(), numpy.random.normal(), numpy.random.rand(), torch.rand(1).item()]
        return [float(number) for number in found]

    manifest = Saver(objects).save({"random": rng.taken()}).to_json()
    expected = draw()
    draw()
    rng.put_back(weights.read(manifest, objects)["random"])

    assert expected == draw()


class Saved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.old = nn.Conv1d(2, 2, 1), nn.Linear(2, 2, bias=False)
        self.fc = nn.Linear(3, 2, bias=False)


class Wanted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)
        self.fc = nn.Linear(3, 2)


def test_what_does_not_fit_is_named_together() -> None:
    """AC-P2: strictly, one error names what is missing, unexpected and different, and nothing changes; else the rest is loaded."""
    saved, net = Saved(), Wanted()
    opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    state = tracking.states({"model": saved, "opt": torch.optim.SGD(saved.parameters(), 0.1), "gone": opt})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    parts = {"model": net, "opt": opt, "new": torch.Generator()}

    with pytest.raises(StateMismatch) as refused:
        tracking.restore(parts, state)
    assert (
        "the checkpoint does not fit what the script tracks: 2 missing: new, model.fc.bias; 2 unexpected: gone, "
        "model.old.weight; 1 different: model.conv.weight is float32 (2, 2, 3) in the model and float32 (2, 2, 1) in the weights"
    ) == str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())

    done = tracking.restore(parts, state, strict=False)
    assert ("model.conv.bias", "model.fc.weight", "opt") == done.loaded and not done.is_whole
    assert (("new", "model.fc.bias"), ("gone", "model.old.weight")) == (done.not_in_checkpoint, done.not_in_model)
    assert 1 == len(done.mismatched) and "model.conv.weight" in done.mismatched[0]
    assert torch.equal(net.fc.weight, saved.fc.weight) and torch.equal(net.conv.weight, before["conv.weight"])


def test_an_optimizer_does_not_take_what_belongs_to_other_shapes() -> None:
    """torch would load it, and fail at the next step, or broadcast it."""

    def adam(module: nn.Module) -> torch.optim.Optimizer:
        opt = torch.optim.Adam(module.parameters(), 0.1)
        sum(parameter.sum() for parameter in module.parameters()).backward()
        opt.step()
        return opt

    state = tracking.states({"opt": adam(nn.Conv1d(2, 2, 1))})
    net = nn.Conv1d(2, 2, 3)
    opt = torch.optim.Adam(net.parameters(), 0.1)

    with pytest.raises(StateMismatch) as refused:
        tracking.restore({"opt": opt}, state)
    said = "opt (parameter 0 is (2, 2, 3), and its exp_avg in the checkpoint (2, 2, 1))"
    assert f"the checkpoint does not fit what the script tracks: 1 different: {said}" == str(refused.value)
    assert (said,) == tracking.restore({"opt": opt}, state, strict=False).mismatched and not opt.state
    tracking.restore({"opt": torch.optim.Adam(nn.Conv1d(2, 2, 1).parameters(), 0.1)}, state)


def test_entries_are_renamed_and_picked() -> None:
    """T07: a name or a prefix that the model has otherwise, and a regular expression for a part of it."""
    source, net = nn.Sequential(OrderedDict(body=nn.Linear(2, 2), head=nn.Linear(2, 2))), nn.Module()
    net.backbone, net.top = nn.Linear(2, 2), nn.Linear(2, 2)
    state = weights.copied(source.state_dict())
    rename = {"body.": "backbone.", "head.weight": "top.weight", "head.bias": "top.bias"}

    fit = weights.load_into(net, state, rename=rename, only="^backbone")
    assert (("backbone.weight", "backbone.bias"), True) == (fit.loaded, fit.is_whole)
    assert torch.equal(net.backbone.weight, source.body.weight) and not torch.equal(net.top.weight, source.head.weight)
    assert weights.load_into(net, state, rename=rename).is_whole and torch.equal(net.top.bias, source.head.bias)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"only": "^boby"}, "only='^boby' finds nothing that fits model"),
        ({"only": "["}, "only='[' is no regular expression: unterminated character set"),
        ({"rename": {"head.": "body."}}, "rename gives body.weight and head.weight of the checkpoint the same name, body.weight"),
    ],
)  # fmt: skip
def test_a_mistake_in_what_to_restore_is_refused(how: dict[str, Any], said: str, strict: bool) -> None:
    """The training would go on with a network that was not loaded, or with weights that were not meant."""
    source, net = (nn.Sequential(OrderedDict(body=nn.Linear(2, 2), head=nn.Linear(2, 2))) for _ in (1, 2))
    state = tracking.states({"model": source})
    before = {name: value.clone() for name, value in net.state_dict().items()}

    with pytest.raises(StateMismatch) as refused:
        tracking.restore({"model": net}, state, strict=strict, **how)
    assert said in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("name", "part"), [("model", [1]), ("model", None), ("random", nn.Linear(1, 1))])
def test_only_what_has_a_state_is_tracked(name: str, part: object) -> None:
    """Said where it is tracked, not where it is saved an hour later."""
    with pytest.raises((TypeError, ValueError), match=r"^run\.track: "):
        tracking.check(name, part)


# -- being asked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(requests, "_clock", lambda: now[0])
    return iter([now]).__next__()


def test_requests_come_once_and_are_not_lost(clock: list[float]) -> None:
    """AC-J11: a stop is told once and stays; the save before it comes once; the interval of saves repeats."""
    told: list[str] = []
    asked = Requests(told.append, time_limit=1.0, save_every=0.5)
    seen = []
    for _ in range(4):
        clock[0] += 0.6
        seen.append((asked.should_save(), asked.should_stop()))

    assert [(True, False), (True, True), (True, True), (True, True)] == seen
    assert ["time limit of 1 s"] == told
    by_signal = Requests(told.append)
    assert (False, False) == (by_signal.should_save(), by_signal.should_stop())
    by_signal.stop("SIGTERM")
    by_signal.stop("SIGUSR1")
    assert (True, True, False, True) == (
        by_signal.should_save(),
        by_signal.should_stop(),
        by_signal.should_save(),
        by_signal.should_stop(),
    )
    assert ["time limit of 1 s", "SIGTERM"] == told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5m", 90),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("10 m", None),
        ("", None),
        ("x", None),
        ("0", None),
        ("-5", None),
    ],
)
def test_a_time_is_typed_as_people_write_it(text: str, seconds: float | None) -> None:
    """Anything else is a mistake in the call."""
    from numb.commands.running import Duration

    if seconds is None:
        with pytest.raises(click.BadParameter, match="is no time: say 90s, 10m, 2h or 1h30m"):
            Duration().convert(text, None, None)
    else:
        assert seconds == Duration().convert(text, None, None)


def test_a_training_ends_in_its_time(torch_scene: Scene) -> None:
    """--time-limit is a request like a signal; --save-every is told in its interval, and once more at the end."""
    script = TRAIN.replace(
        "    run.checkpoint(step=step, loss=loss)", "    if run.should_save: run.checkpoint(step=step, loss=loss)"
    )
    torch_scene.write("train.py", script)
    done = torch_scene.numb("train --time-limit 0.001s --save-every 1d")
    wrong = torch_scene.numb("train --time-limit soon")

    [run] = torch_scene.runs()
    assert (0, "incomplete", "time limit of 0.001 s") == (done.code, run["status"], run["reason"])
    assert [1] == [kept["step"] for kept in run["checkpoints"]] and 1 == len(done.stdout.splitlines())
    assert f"numb train --resume {run['id']} goes on after step 1" in done.stderr
    assert 2 == wrong.code and "'soon' is no time" in wrong.stderr


WITHOUT = """
import sys
import numb
run = numb.run()
assert run is numb.run() and run.id is None
run.track(model=3)
assert (0, ()) == (run.restore(strict=False).step, run.restore().loaded)
run.checkpoint(step="?", loss=print)
assert not run.should_stop and not run.should_save
print(*sorted(name for name in sys.modules if name.startswith("numb.")))
"""


def test_without_numb_nothing_happens(tmp_path: Path) -> None:
    """The same script runs with plain python, and imports next to nothing for it."""
    env = {name: value for name, value in os.environ.items() if name != "NUMB_RUN_DIR"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=env, capture_output=True, text=True, cwd=tmp_path)

    assert (0, "") == (done.returncode, done.stderr)
    assert "numb.capture numb.capture.restored numb.hooks numb.layout numb.version" == done.stdout.strip()
    assert [] == os.listdir(tmp_path)


# -- killed

# Three checkpoints of which the last stays, killed at the n-th call that changes the disk, for each n; by forks of one process.
KILLED = """
import json, os, signal, sys, threading
from pathlib import Path
import torch
from numb import atomic, record
from numb.capture import weights
from numb.capture.checkpoints import Checkpoints
from numb.capture.manifest import Manifest
from numb.keep import Keep
from numb.store.objects import Objects

torch.set_num_threads(1)

def take(root, at, done):
    calls = [0]
    lock = threading.Lock()
    def counted(real):
        def call(*args, **kwargs):
            with lock:
                calls[0] += 1
                if calls[0] == at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    for name in ("_open", "_write", "_fsync", "_replace", "_link", "_mkdir"):
        setattr(atomic, name, counted(getattr(atomic, name)))
    Path.unlink = counted(Path.unlink)
    told = lambda what: os.write(done, f"{what if isinstance(what, int) else what.step}\\n".encode())
    failed = lambda step, error: os.write(done, f"failed {error}\\n".encode())
    checkpoints = Checkpoints(root / "checkpoints", Objects(root / "objects"), Keep(last=1), (), told, failed)
    for step in (1, 2, 3):
        state = {"large": torch.full((1 << 18,), float(step)), "frozen": torch.zeros(1 << 18), "small": torch.ones(3) * step}
        checkpoints.take(step, state, {}, {})
        checkpoints.wait()
    os.write(done, b"end\\n")
    os._exit(0)

for at in range(1, 1000):
    root = Path(sys.argv[1]) / str(at)
    root.mkdir()
    out, done = os.pipe()
    child = os.fork()
    if not child:
        take(root, at, done)
    os.close(done)
    with open(out) as lines:
        said = lines.read().split()
    os.waitpid(child, 0)
    objects = Objects(root / "objects")
    for digest in objects:
        objects.verify(digest)
    there = sorted(path for path in (root / "checkpoints").glob("*.json")) if (root / "checkpoints").exists() else []
    for path in there:
        state = weights.read(record.loads(path.read_bytes()), objects)
        assert {float(path.stem)} == {float(state["large"][0]), float(state["small"][0])}, (at, path)
    assert "failed" not in said, (at, said)
    told = [int(word) for word in said if word != "end"]
    kept = max(told, default=0)
    assert not kept or f"{kept}.json" in {path.name for path in there}, (at, said, there)
    if "end" in said:
        assert ["3.json"] == [path.name for path in there] and 3 == len(list(objects)), (said, there)
        break
print(at)
"""


def test_a_kill_at_any_point_loses_no_checkpoint_that_was_told(tmp_path: Path) -> None:
    """kill -9 before each call that changes the disk: every object is whole, every manifest can be read, the told one is there."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=300)

    assert 0 == done.returncode, done.stderr
    assert int(done.stdout) > 60, "there are that many calls"
