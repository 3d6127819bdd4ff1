"""What is promised of guards and callbacks: a training that has gone wrong ends there, and whoever asked is called in order."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene

from numb import hooks
from numb.callbacks import resolved
from numb.guard import Guard

# A training whose loss becomes what LOSS says after step 6, and that keeps checkpoints before it logs.
TRAIN = """
import os, sys
import numb

class Part:
    def __init__(self): self.step = 0
    def state_dict(self): return {"step": self.step}
    def load_state_dict(self, state): self.step = state["step"]

part, run = Part(), numb.run()
run.track(part=part)
WITH = ""
for step in range(run.restore().step + 1, 12):
    part.step = step
    loss = float(os.environ["LOSS"]) if step > 6 else 1.0 * step
    if WITH == "results":
        run.checkpoint(step=step, loss=loss)
        continue
    run.checkpoint(step=step)
    numb.log(step=step, loss=loss)
    print(step, run.history["loss"].count, run.history.best("loss"), flush=True)
"""


@pytest.mark.parametrize(
    ("loss", "rules", "reason"),
    [
        ("nan", "nan,inf,loss>100", "nan at step 7 (loss)"), ("inf", "nan,inf", "inf at step 7 (loss)"),
        ("150", "nan,inf,loss>100", "loss 150 > 100 at step 7"), ("-3", "loss<=-3", "loss -3 <= -3 at step 7"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("warm")
def test_a_training_that_has_gone_wrong_ends(empty: Scene, loss: str, rules: str, reason: str) -> None:
    """AC-P3: failed, with the step and the number; its last good checkpoint is kept, also where only the last one is."""
    empty.write("train.py", TRAIN)
    empty.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}, "checkpoints": {"last": 1}}')
    empty.numb("init")
    done = empty.numb("train", "--stop-on", rules, env={"LOSS": loss})
    off = empty.numb("train --again", env={"LOSS": loss})
    failed, whole = empty.runs()
    resumed = empty.numb(f"train --resume {failed['id']}", env={"LOSS": "0"})

    assert ("failed", reason, 1, [6]) == (
        failed["status"], failed["reason"], done.code, [kept["step"] for kept in failed["checkpoints"]],
    )  # fmt: skip
    assert (7, "6 6 1.0") == (
        failed["series"]["log"]["rows"],
        done.stdout.splitlines()[-1],
    ) and f"Diverged: {reason}" in done.stderr
    assert ("complete", 0, [11]) == (whole["status"], off.code, [kept["step"] for kept in whole["checkpoints"]])
    assert (0, "7 7 0.0") == (resumed.code, resumed.stdout.splitlines()[0])


@pytest.mark.usefixtures("warm")
def test_what_a_checkpoint_is_given_is_guarded_too(empty: Scene) -> None:
    """By the rules of nmb.json: nothing of such a step is kept. Who catches the error does not make the run a good one."""
    empty.write(
        "train.py",
        TRAIN.replace('WITH = ""', 'WITH = "results"')
        .replace("for step", "try:\n  for step")
        .replace("\n    ", "\n      ")
        + "except RuntimeError as error:\n    print(error)\n",
    )
    empty.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}, "stop_on": ["nan", "loss > 100"]}')
    empty.numb("init")
    done = empty.numb("train", env={"LOSS": "nan"})
    [run] = empty.runs()

    assert (0, "nan at step 7 (loss)") == (done.code, done.stdout.strip()), done
    assert ("failed", "nan at step 7 (loss)", 6) == (run["status"], run["reason"], run["checkpoints"][-1]["step"])


def test_whoever_asked_is_called_in_order(empty: Scene) -> None:
    """AC-P6: as they were registered, with step and values; a removed one no more; by a decorator, a call, and a name."""
    script = """
import sys, numb
numb.log(step=0, loss=0.5, acc=0.1)
numb.log(step=0, loss=0.5, acc=0.1)

@numb.on("step")
def first(step, values): print("first", step, values["loss"])

gone = numb.on("step", lambda step, values: print("gone"))
numb.on("step", "mine:Named.called")
numb.on("end", lambda: 1 / 0)

@numb.on("end")
def ended():
    print("end")
    numb.log(step=9, loss=9.0, acc=0.1)
    numb.numb_trial_result({"seen": 3})

numb.on("fail", lambda reason: print("fail", reason))
other = numb.series("other", ["x"])
class Part:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
run = numb.run().track(part=Part())
numb.on("checkpoint", lambda step, results: print("checkpoint", step, results))
for step in (1, 2, 3):
    if step == 2:
        gone.remove()
    numb.log(step=step, loss=step / 2, acc=0.1)
    other(x=1)
run.checkpoint(step=3, acc=0.5)
first(7, {"loss": "itself"})
sys.stdout.flush()
if "FAIL" in sys.argv:
    raise KeyError("x")
"""
    empty.write("mine.py", "class Named:\n    @staticmethod\n    def called(step, values): print('named', step)\n")
    empty.write("train.py", script)
    empty.numb("init")
    done, failed = empty.numb("train"), empty.numb("train", "--", "FAIL")
    run, _ = empty.runs()

    assert [
        "first 1 0.5", "gone", "named 1", "first 2 1.0", "named 2", "first 3 1.5", "named 3", "checkpoint 3 {'acc': 0.5}",
        "first 7 itself", "end", "first 9 9.0", "named 9",
    ] == done.stdout.splitlines()  # fmt: skip
    assert "numb: a function that 'end' calls has failed (ZeroDivisionError" in done.stderr
    assert ("complete", {"seen": 3}, 6) == (run["status"], run["results"], run["series"]["log"]["rows"])
    assert "fail KeyError: 'x'" == failed.stdout.splitlines()[-1] and 1 == failed.code


def test_what_a_step_calls_may_end_the_script(empty: Scene) -> None:
    """Early stopping is the script's own: the error is the script's, and the row is kept."""
    empty.write(
        "train.py",
        "import numb\n@numb.on('step')\ndef enough(step, values):\n    if step == 3: raise SystemExit(4)\n"
        "for step in range(9): numb.log(step=step, loss=1.0)\n",
    )
    empty.numb("init")
    done = empty.numb("train")
    [run] = empty.runs()

    assert (4, "failed", 4) == (done.code, run["status"], run["series"]["log"]["rows"])


NETWORK = """
import torch, numb
from numb import numb_model

class Net(torch.nn.Module):
    @numb_model(torch.zeros(1, 2))
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x):
        return self.layer(x)

net = Net()
print("built", flush=True)
net(torch.ones(1, 2)).sum().backward()
for epoch in range(2):
    for step in range(2):
        numb.log(step=2 * epoch + step, epoch=epoch, loss=1.0)
"""


@pytest.mark.usefixtures("warm")
def test_what_nmb_json_names_is_called(empty: Scene) -> None:
    """P12, P14: by module and function, and by the name of an entry point of an installed package; each when its time comes."""
    empty.write("train.py", NETWORK)
    empty.write("alerts.py", "def tell(*what): print('told', *what, flush=True)\n")
    empty.write("offer.dist-info/entry_points.txt", "[numb.callbacks]\nbell = alerts:tell\n")
    empty.write("offer.dist-info/METADATA", "Metadata-Version: 2.1\nName: offer\nVersion: 1.0\n")
    named = {"start": ["alerts:tell"], "epoch": ["bell"], "end": ["alerts:tell", "bell"]}
    empty.write("nmb.json", json.dumps({"version": 1, "train": {"command": "python train.py"}, "callbacks": named}))
    empty.numb("init")
    done = empty.numb("train")

    rows = [f"told {epoch} {{'step': {2 * epoch}, 'epoch': {epoch}, 'loss': 1.0}}" for epoch in (0, 1)]
    assert ["built", "told", *rows, "told", "told"] == done.stdout.splitlines(), done


@pytest.mark.usefixtures("warm")
def test_a_callback_that_is_not_there_ends_the_script_before_its_work(empty: Scene) -> None:
    """And says what there is."""
    empty.write("train.py", NETWORK + "print('trained')")
    start = {"version": 1, "train": {"command": "python train.py"}, "callbacks": {"fail": ["nobody:here"]}}
    empty.write("nmb.json", json.dumps(start))
    empty.numb("init")
    refused = empty.numb("train")
    empty.write("nmb.json", json.dumps(start | {"callbacks": {"fail": ["bells"]}}))
    other = empty.numb("train")

    assert ("built", []) == (refused.stdout.strip(), empty.runs()) and 0 != refused.code
    assert "nobody:here cannot be called (ModuleNotFoundError: No module named 'nobody')" in refused.stderr
    assert "no installed package offers 'bells' as one of numb.callbacks; there are none" in other.stderr


def test_a_guard_that_was_caught_has_spoken_all_the_same(empty: Scene) -> None:
    """The run has failed, and whoever waits for that is called; `--stop-on ''` switches off what nmb.json says."""
    script = """
import numb, numb.errors
numb.on("fail", lambda reason: print("fail", reason))
numb.on("end", lambda: print("end"))
try:
    numb.log(step=7, loss=float("nan"))
except numb.errors.Diverged:
    print("caught")
"""
    empty.write("train.py", script)
    empty.write("nmb.json", json.dumps({"version": 1, "train": {"command": "python train.py"}, "stop_on": ["nan"]}))
    empty.numb("init")
    stopped, free = empty.numb("train"), empty.numb("train", "--stop-on", "")

    assert ["caught", "fail nan at step 7 (loss)"] == stopped.stdout.splitlines() and ["end"] == free.stdout.split()
    assert ["failed", "complete"] == [run["status"] for run in empty.runs()]


def test_without_numb_nothing_is_called(tmp_path: Path) -> None:
    """The decorated function is what it was; the history is empty; an event that there is not is an error."""
    script = """
import numb
@numb.on("step")
def called(step, values):
    "Its own words."
    return step
numb.log(step=1)
print(called(3, {}), called.__name__, called.__doc__, numb.run().history, numb.run().history.best("loss"))
called.remove()
try:
    numb.on("batch", called)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    events = "'start', 'step', 'epoch', 'checkpoint', 'end', 'fail'"
    said = f"3 called Its own words. {{}} None\nnumb.on: 'batch' is none of {events}\n"
    assert (said, "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["", "json", "json:", ":dumps", "json:__doc__"])
def test_a_name_that_names_no_function_is_refused(name: str) -> None:
    """When it is given, not when it is called an hour later."""
    with pytest.raises(ValueError, match=r"is no name|no function|offers"):
        resolved(name)
    assert json.dumps is resolved("json:dumps")
    assert callable(hooks.on)


@pytest.mark.parametrize("rule", ["", "foo", "loss", "loss>", ">3", "loss=>3", "loss>x", "loss == 3", "nan inf"])
def test_what_is_no_rule_is_refused(empty: Scene, rule: str) -> None:
    """On the command line and in nmb.json, before anything runs."""
    with pytest.raises(ValueError, match="is no rule: say nan, inf, or a limit such as loss>100"):
        Guard.of([rule])
    if rule == "foo":
        empty.write("nmb.json", '{"version": 1, "train": {"command": "true"},\n "stop_on": ["nan", "foo"]}')
        told, typed = empty.numb("train"), empty.numb("train --stop-on foo")
        assert (2, 2) == (told.code, typed.code) and "nmb.json:2:21" in told.stderr.replace(f"{empty.root}/", "")


@pytest.mark.parametrize(
    ("rules", "values", "broken"),
    [
        (["nan"], {"a": 1.0, "b": math.nan}, "nan (b)"), (["nan"], {"a": math.inf}, None), (["inf"], {"a": -math.inf}, "inf (a)"),
        (["inf"], {"a": 10**400}, None), (["loss > 1e2"], {"loss": 100}, None), (["loss>=1e2"], {"loss": 100}, "loss 100 >= 100"),
        (["loss<=-3"], {"loss": -3.0}, "loss -3 <= -3"), (["val.loss<-.5"], {"val.loss": -1}, "val.loss -1 < -0.5"), (["loss>1"], {"acc": 2}, None), (["x>0"], {"x": True}, None),
        (["x>0"], {"x": "9"}, None), (["x>0"], {"x": None}, None), (["x>0", "nan"], {"x": math.nan}, "nan (x)"),
    ],
)  # fmt: skip
def test_rules_are_about_numbers(rules: list[str], values: dict[str, Any], broken: str | None) -> None:
    """Of the names that they say; truth values and texts are none."""
    assert broken == Guard.of(rules).broken(values)
