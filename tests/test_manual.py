"""The manual, case by case: AC-N1 to AC-N16 of its specification."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import NET, TRIAL, Scene, furnish

OPTIMIZED = """
import sys
import torch
from net import Net
from numb import numb_param, numb_queue
lr = 0.1
width = 8
numb_queue()
numb_param({"lr": lr, "width": width})
torch.manual_seed(0)
net = Net(width)
optimizer = torch.optim.SGD(net.parameters(), lr)
x = torch.randn(32, 4)
for step in range(5):
    optimizer.zero_grad()
    loss = (net(x) ** 2).mean()
    loss.backward()
    optimizer.step()
torch.save(net.state_dict(), "own.pt")
print("loss", loss.item())
"""


@pytest.fixture
def optimized(empty: Scene) -> Scene:
    """The scene with a network, whose script trains as most do, with an optimizer of torch's."""
    furnish(empty, {"net.py": NET, "train.py": OPTIMIZED, "trial.py": TRIAL})
    return empty


def weights_of(scene: Scene, run_id: str) -> str:
    """A hash of the weights that `numb report` takes out."""
    into = scene.root.parent / f"report-{run_id}"
    done = scene.numb("report", run_id, "--into", str(into))
    assert 0 == done.code, done.stderr
    return hash_of(into / "state_dict.pt")


def hash_of(path: Path) -> str:
    """A hash of a state dict that `torch.load(weights_only=True)` reads."""
    state = torch.load(path, weights_only=True)
    return hashlib.sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in state.items())).hexdigest()


def test_init_makes_three_things_and_touches_nothing(empty: Scene) -> None:
    """AC-N1: nmb.json, .nmb/ and the branch appear; HEAD, index and the dirty files stay; a second init changes nothing."""
    empty.sh("echo one > a.txt && git add -A && git commit -qm first && echo two > a.txt && echo new > b.txt")
    before = empty.users()

    first = empty.numb("init")
    made = empty.users()
    second = empty.numb("init")

    assert (0, 0) == (first.code, second.code)
    assert "main" == empty.sh("git symbolic-ref --short HEAD")
    assert "M a.txt\n?? b.txt\n?? nmb.json" == empty.sh("git --no-optional-locks status --short")
    assert before == {**made, "files": {k: v for k, v in made["files"].items() if k != "nmb.json"}}
    assert made == empty.users()
    assert "1" == empty.sh("git rev-list --count numb")
    assert (empty.root / ".nmb").is_dir()


def test_init_outside_a_repository_creates_nothing(tmp_path: Path, home: Path) -> None:
    """AC-N2: outside a repository init says so in one line, and leaves nothing behind."""
    folder = tmp_path / "folder"
    folder.mkdir()

    done = Scene(folder, home).numb("init")

    assert (1, "", "numb: not a git repository\n      try: git init\n") == (done.code, done.stdout, done.stderr)
    assert [] == list(folder.iterdir())


def test_deinit_asks_and_destroys_only_what_init_made(scene: Scene) -> None:
    """AC-N3: without --yes and without a terminal nothing is removed; with it, numb's three things are, and no more."""
    scene.trained(lr=0.1)
    scene.trained(lr=0.2)
    scene.sh("git branch topic")
    tip = scene.sh("git rev-parse numb")

    refused = scene.numb("deinit")
    after_refusal = scene.sh("git rev-parse numb")
    done = scene.numb("deinit --yes")
    again = scene.numb("deinit --yes")

    assert 1 == refused.code
    assert "This destroys 2 runs" in refused.stderr
    assert tip == after_refusal
    assert (0, 0) == (done.code, again.code)
    assert f"git branch numb {tip}" in done.stderr
    assert not (scene.root / "nmb.json").exists()
    assert not (scene.root / ".nmb").exists()
    assert "main\ntopic" == scene.sh("git for-each-ref --format='%(refname:short)'")
    assert "lr = 0.1" in scene.read("train.py")


@pytest.mark.usefixtures("warm")
def test_train_keeps_code_and_weights(optimized: Scene) -> None:
    """AC-N4: one run, whose tree has the edited and the untracked file, and whose weights are those that were trained."""
    optimized.sh("echo '# edited' >> net.py && echo new > untracked.txt")
    main, count = optimized.sh("git rev-parse main"), int(optimized.sh("git rev-list --first-parent --count numb"))
    before = optimized.users()

    done = optimized.numb("train")

    (run,) = optimized.runs()
    after = optimized.users()
    assert (0, "complete", main) == (done.code, run["status"], optimized.sh("git rev-parse main"))
    assert before == {**after, "files": {k: v for k, v in after["files"].items() if k != "own.pt"}}
    assert count + 1 == int(optimized.sh("git rev-list --first-parent --count numb"))
    assert main == optimized.sh("git rev-parse numb^2")
    assert "new" == optimized.sh("git show numb:untracked.txt")
    assert "# edited" in optimized.sh("git show numb:net.py")
    assert hash_of(optimized.root / "own.pt") == weights_of(optimized, run["id"])


SLOW_OR_IMPOSSIBLE = """
import torch
from numb import numb_model

class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.linalg.eigvals(x.T @ x).abs()
    @staticmethod
    def backward(ctx, g):
        return g

class Net(torch.nn.Module):
    @numb_model(torch.ones(1, 4))
    def __init__(self, width=8):
        super().__init__()
        self.hidden = torch.nn.Linear(4, width)

    def forward(self, x):
        h = self.hidden(x)
        if Custom.apply(h.detach()).sum() > -1:
            h = h * len(str(h.shape))
        return h
"""


def test_a_network_that_cannot_be_exported_is_recorded_quietly(torch_scene: Scene) -> None:
    """AC-N5: the architecture has an id and a rung; no warning or traceback of an exporter reaches the user."""
    torch_scene.write("net.py", SLOW_OR_IMPOSSIBLE)

    done = torch_scene.numb("train")

    (run,) = torch_scene.runs()
    assert 0 == done.code
    assert run["models"]["Net"]["rung"] in ("graph", "calls", "tree")
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert 1 == len(done.stdout.splitlines())


@pytest.mark.usefixtures("warm")
def test_the_seed_does_not_change_the_architecture_and_the_width_does(torch_scene: Scene) -> None:
    """AC-N6: another seed is the same architecture, another width is not."""
    one = torch_scene.trained()
    torch_scene.sh("sed -i 's/manual_seed(0)/manual_seed(1)/' train.py")
    two = torch_scene.trained("--again")
    three = torch_scene.trained(width=9)

    assert one["architecture"] == two["architecture"]
    assert one["architecture"] != three["architecture"]


@pytest.mark.usefixtures("warm")
def test_redoing_is_noticed(torch_scene: Scene) -> None:
    """AC-N7: the same architecture and values in another order are refused without a terminal; --again trains."""
    first = torch_scene.trained()
    torch_scene.sh("""sed -i 's/{"lr": lr, "width": width}/{"width": width, "lr": lr}/' train.py && rm own.pt""")

    refused = torch_scene.numb("train")
    skipped = torch_scene.numb("train --skip-done")
    untrained = not (torch_scene.root / "own.pt").exists()
    count = len(torch_scene.runs())
    again = torch_scene.numb("train --again")
    other = torch_scene.trained(lr=0.2)

    assert 125 == refused.code
    assert first["id"] in refused.stderr and "--again" in refused.stderr
    assert 0 == skipped.code
    assert untrained
    assert (1, 0) == (count, again.code)
    assert 3 == len(torch_scene.runs())
    assert 0.2 == other["params"]["lr"]


def test_a_failing_script_is_kept_with_its_traceback_and_weights(optimized: Scene) -> None:
    """AC-N8: the script's own exit code, a failed run with the traceback, its last weights, a commit."""
    optimized.sh(
        """sed -i 's/^    optimizer.step()/    optimizer.step(); torch.save(net.state_dict(), "own.pt"); 1 \\/ (step - 2)/' train.py"""
    )

    done = optimized.numb("train")

    (run,) = optimized.runs()
    shown = optimized.numb("show @").stdout
    assert 1 == done.code
    assert "ZeroDivisionError" in done.stderr
    assert ("failed", "ZeroDivisionError: division by zero") == (run["status"], run["reason"])
    assert "ZeroDivisionError: division by zero" == run["weights"]["Net"]["partial"]
    assert "Traceback (most recent call last)" in shown
    assert run["commit"] == optimized.sh("git rev-parse numb")
    assert hash_of(optimized.root / "own.pt") == weights_of(optimized, run["id"])


@pytest.mark.usefixtures("warm")
def test_a_trial_of_an_unknown_architecture_evaluates_nothing(torch_scene: Scene) -> None:
    """AC-N9: the script ends before it evaluates, with 125, the hash and the nearest architecture; nothing is recorded."""
    torch_scene.trained()
    tip = torch_scene.sh("git rev-parse numb")
    torch_scene.sh("sed -i 's/width = 8/width = 5/; $ a print(\"evaluated\")' trial.py")

    done = torch_scene.numb("trial")

    assert (125, "") == (done.code, done.stdout)
    assert "no run of Net·" in done.stderr and "nearest: Net·" in done.stderr
    assert tip == torch_scene.sh("git rev-parse numb")


@pytest.mark.usefixtures("warm")
def test_a_trial_of_one_run_evaluates_that_run(torch_scene: Scene) -> None:
    """AC-N10: the network holds the chosen run's weights when it is evaluated; only that run gets a result."""
    runs = [torch_scene.trained(lr=lr) for lr in (0.1, 0.2, 0.3)]

    done = torch_scene.numb("trial", runs[1]["id"])

    shown = torch_scene.runs()
    into = torch_scene.root.parent / "two"
    torch_scene.numb("report", runs[1]["id"], "--into", str(into))
    total = sum(v.double().sum().item() for v in torch.load(into / "state_dict.pt", weights_only=True).values())
    assert 0 == done.code, done.stderr
    assert [{}, {"total": total, "lr": 0.2}, {}] == [run["results"] for run in shown]
    assert [runs[0]["id"], runs[2]["id"]] == [
        r["id"] for r in json.loads(torch_scene.numb("list --untrialed --json").stdout)
    ]


@pytest.mark.usefixtures("warm")
def test_there_may_be_several_trials(torch_scene: Scene) -> None:
    """Each has a command and a name; its results stand under that, the newest count, and --all knows which are left."""
    first, second = (torch_scene.trained(lr=lr) for lr in (0.1, 0.2))
    torch_scene.write("val.py", torch_scene.read("trial.py").replace('"lr": lr', '"acc": 1 - lr'))
    settings = json.loads(torch_scene.read("nmb.json"))
    torch_scene.write(
        "nmb.json", json.dumps(settings | {"trials": {"val": "python val.py", "none": ["python", "none.py"]}})
    )

    assert (
        0 == torch_scene.numb("trial", first["id"]).code == torch_scene.numb("trial", first["id"], "--name", "val").code
    )
    done = torch_scene.numb("trial", "--all", "--name", "val")
    again = torch_scene.numb("trial", "--all", "--name", "val")
    shown = torch_scene.runs()
    subjects = torch_scene.sh("git log --first-parent --format=%s -3 numb").splitlines()

    assert (0, 1, 0) == (done.code, done.stderr.count("numb: saved"), again.stderr.count("numb: saved")), done.stderr
    assert [(0.1, 0.9), (None, 0.8)] == [(run["results"].get("lr"), run["results"]["val"]["acc"]) for run in shown]
    assert [["val", 2], ["val", 1], ["", 1]] == [
        ["val" if " val " in f" {line} " else "", 1 if first["id"] in line else 2] for line in subjects
    ]
    assert [0.1] == [
        run["params"]["lr"] for run in json.loads(torch_scene.numb("best --by results.val.acc --json").stdout)
    ]
    wrong = torch_scene.numb("trial", second["id"], "--name", "tset")
    assert (2, "") == (wrong.code, wrong.stdout) and "nmb.json has no trial tset; there are val, none" in wrong.stderr


@pytest.mark.usefixtures("warm")
def test_all_untrialed_runs_of_the_architecture_are_trialed(torch_scene: Scene) -> None:
    """AC-N11: each untrialed run of this architecture once, no other; one that fails does not stop the rest."""
    trained = [torch_scene.trained(lr=lr) for lr in (0.1, 0.2, 0.3)]
    other = torch_scene.trained(width=5)
    assert 0 == torch_scene.numb("trial", trained[2]["id"]).code
    torch_scene.sh("sed -i 's/^net.eval()/assert lr != 0.1/' trial.py")

    done = torch_scene.numb("trial", "-all")

    results = {run["id"]: run["results"].get("lr") for run in torch_scene.runs()}
    trials = {run["id"]: len(run["trials"]) for run in torch_scene.runs()}
    assert 1 == done.code
    assert "1 of 2 trials succeeded" in done.stderr
    assert {trained[0]["id"]: None, trained[1]["id"]: 0.2, trained[2]["id"]: 0.3, other["id"]: None} == results
    assert {trained[0]["id"]: 1, trained[1]["id"]: 1, trained[2]["id"]: 1, other["id"]: 0} == trials


@pytest.mark.parametrize("command", ["queue run q.json", "train --queue q.json", "train -queue q.json"])
def test_a_queue_trains_each_combination(scene: Scene, command: str) -> None:
    """AC-N12: the template has the script's own values, each entry becomes one run, and init never overwrites."""
    made = scene.numb("queue init q.json")
    template = json.loads(scene.read("q.json"))
    refused = scene.numb("queue init q.json")
    scene.write("q.json", '[{"lr": 0.2}, {"lr": 0.3}]')

    done = scene.numb(command)

    assert (0, 1, 0) == (made.code, refused.code, done.code)
    assert [{"lr": 0.1, "epochs": 2}] == template
    assert "q.json already exists" in refused.stderr
    assert [{"lr": 0.2, "epochs": 2}, {"lr": 0.3, "epochs": 2}] == [run["params"] for run in scene.runs()]
    assert "lr 0.2\nlr 0.3\n" == done.stdout


def test_a_queue_whose_values_would_be_overwritten_fails_before_the_first_run(scene: Scene) -> None:
    """AC-N13: numb_queue above the assignment is an error that names the line; nothing is trained."""
    scene.write("train.py", "from numb import *\nnumb_queue(globals())\nlr = 0.1\nnumb_param({'lr': lr})\nprint(lr)\n")
    scene.write("q.json", '[{"lr": 0.2}, {"lr": 0.3}]')

    done = scene.numb("queue run q.json")

    assert (2, "", []) == (done.code, done.stdout, scene.runs())
    assert "train.py:3: lr is assigned below numb_queue() (line 2)" in done.stderr


def test_values_overwritten_out_of_sight_are_never_recorded(scene: Scene) -> None:
    """AC-N13, where the source does not show it: the run is stopped at numb_param, and not recorded."""
    scene.write(
        "train.py",
        "from numb import *\nlr = 0.1\nnumb_queue()\nexec('lr = 0.5')\nnumb_param({'lr': lr})\nprint('trained')\n",
    )
    scene.write("q.json", '[{"lr": 0.2}]')

    done = scene.numb("queue run q.json")

    assert (125, "", []) == (done.code, done.stdout, scene.runs())
    assert "train.py:5: lr was set to 0.2 by numb, but the script registered 0.5" in done.stderr
    assert ["queued"] == [e["status"] for e in json.loads(scene.numb("queue status q.json --json").stdout)]


def test_a_killed_queue_goes_on_where_it_was(scene: Scene) -> None:
    """AC-N14: done entries are not repeated, the one that was cut off is run again, the rest is run; states are shown."""
    scene.env["THERE"] = str(scene.root)  # where it runs there is another folder
    scene.write(
        "train.py",
        """
        import os, time
        there = os.environ["THERE"]
        from numb import numb_param, numb_queue
        lr = 0.1
        numb_queue()
        numb_param({"lr": lr})
        with open(f"{there}/seen.ignored", "a") as seen:
            print(lr, file=seen, flush=True)
        if lr == 2 and not os.path.exists(f"{there}/go.ignored"):
            open(f"{there}/waiting.ignored", "w").close()
            time.sleep(60)
        """,
    )
    scene.write("q.json", '[{"lr": 1}, {"lr": 2}, {"lr": 3}, {"lr": 4}]')

    worker = scene.start("queue", "run", "q.json")
    scene.sh("until [ -e waiting.ignored ]; do sleep 0.05; done")
    running = scene.numb("queue status q.json --json").stdout
    scene.sh(f"kill -9 -- -{worker.pid}")
    worker.communicate()
    scene.sh("touch go.ignored")
    cut_off = scene.numb("queue status q.json --json").stdout
    done = scene.numb("queue run q.json")

    assert ["done", "running", "queued", "queued"] == [e["status"] for e in json.loads(running)]
    assert ["done", "cut off", "queued", "queued"] == [e["status"] for e in json.loads(cut_off)]
    assert 0 == done.code, done.stderr
    assert ["1.0", "2.0", "2.0", "3.0", "4.0"] == scene.read("seen.ignored").split()
    assert ["done"] * 4 == [e["status"] for e in json.loads(scene.numb("queue status q.json --json").stdout)]
    assert {"complete": 4, "lost": 1} == count(run["status"] for run in scene.runs())
    assert {"q.json"} == {run["queue"] for run in scene.runs()}


def count(words) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


@pytest.mark.usefixtures("warm")
def test_list_groups_by_architecture(torch_scene: Scene) -> None:
    """AC-N15: every run stands below its architecture, with what differs, its status and its result; JSON has the same."""
    torch_scene.trained(lr=0.1)
    torch_scene.trained(lr=0.2)
    torch_scene.trained(width=5)
    torch_scene.numb("trial @")

    text = torch_scene.numb("list").stdout
    runs = torch_scene.runs()

    groups = [block.splitlines() for block in text.strip().split("\n\n")]
    assert [4, 3] == [len(group) for group in groups]
    assert groups[0][0].endswith("2 runs, all with width=8")
    assert ["id", "lr", "status", "age"] == groups[0][1].split()
    assert [runs[0]["id"], "0.1", "complete"] == groups[0][2].split()[:3]
    assert [runs[2]["id"], "0.1", "5"] == groups[1][2].split()[:3]
    assert 3 == len(runs)
    assert 0.1 == runs[2]["results"]["lr"]


def test_revert_and_report(scene: Scene) -> None:
    """AC-N16: the files become the run's, then-untracked ones included; edits are kept; report refuses a second time."""
    scene.sh("echo then > untracked.txt && echo '# then' >> train.py")
    then = scene.users()
    run = scene.trained()
    scene.sh("rm untracked.txt && echo '# now' >> trial.py && echo later > later.txt && echo i > x.ignored")
    now = scene.users()

    reverted = scene.numb("revert", run["id"])
    at_run = scene.users()
    undone = scene.numb("revert --undo")
    at_now = scene.users()
    first, second = scene.numb("report @"), scene.numb("report @")

    assert (0, 0) == (reverted.code, undone.code)
    assert {**then["files"], "x.ignored": now["files"]["x.ignored"]} == at_run["files"]
    assert "numb revert --undo" in reverted.stderr
    assert now == at_now
    assert now["HEAD"] == at_run["HEAD"] and now["index"] == at_run["index"]
    assert (0, 1) == (first.code, second.code)
    assert f"report-{run['id']} already exists" in second.stderr


def test_hooks_do_nothing_without_numb(optimized: Scene, untouched: None) -> None:
    """AC-N16: a plain `python train.py` records nothing, creates nothing, and prints what it always printed."""
    optimized.sh("rm -rf .nmb own.pt")

    out = optimized.sh("python train.py")

    assert out.startswith("loss ")
    assert not (optimized.root / ".nmb").exists()
    optimized.sh("rm own.pt")


@pytest.mark.usefixtures("warm")
def test_training_under_numb_is_bit_identical(optimized: Scene) -> None:
    """The same script ends with the same weights and prints the same, with numb and without."""
    plain = optimized.sh("python train.py")
    own = hash_of(optimized.root / "own.pt")

    done = optimized.numb("train")

    assert plain == done.stdout.strip()
    assert own == hash_of(optimized.root / "own.pt")
