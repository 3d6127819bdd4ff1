"""What is promised of comparing: everything that differs is shown, nothing that does not, and nothing is left behind."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess

import onnx
import pytest
import torch
from conftest import Done, Scene
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from numb import melding, network
from numb.capture import graph
from numb.errors import ArtifactMissing
from numb.project import Project
from numb.record import Model
from numb.view import difference as view


def settled(done: Done, *ids: str) -> list[str]:
    """The lines of a table whose ids, times and widths are always the same."""
    assert (0, "") == (done.code, done.stderr)
    text = done.stdout
    for name, run in zip("ABC", ids, strict=False):
        text = text.replace(run, name)
    return [re.sub(r" {2,}", "  ", line) for line in text.splitlines() if not re.match(" *(started|seconds) ", line)]


def code_of(scene: Scene, first: str, second: str) -> bytes:
    """The oracle: what git itself says of two commits."""
    return subprocess.run(
        ["git", "diff", "--binary", "--no-color", first, second, "--", ".", ":(exclude).nmb"],
        cwd=scene.root, env=scene.env, capture_output=True, check=True,
    ).stdout  # fmt: skip


# -- diff


def test_two_runs_are_shown_side_by_side(scene: Scene) -> None:
    """Hyperparameters, results with their change and the best, variables, code: what differs of each, and nothing else."""
    scene.write("own/a.txt", "one\n")
    first = scene.trained("lr=0.5", "-m", "why")
    scene.write("own/a.txt", "two\n")
    scene.write("train.py", scene.read("train.py").replace('{"acc": 1 - lr}', '{"acc": 1 - lr, "opt": {"n": 1}}'))
    scene.env["CUDA_VISIBLE_DEVICES"] = "1"
    second = scene.trained("lr=0.25")
    [table, patch] = scene.numb(f"diff {first['id']} {second['id']}").stdout.split("\n\npatch\n")

    assert [
        "  A  B",
        "  status  complete  complete",
        "  message  why",
        "hyperparameters",
        "  lr  0.5  0.25",
        "results",
        "  acc  0.5  0.75*  +0.25 (+50 %)",
        "  opt.n  -  1",
        "environment",
        "  variables.CUDA_VISIBLE_DEVICES  -  1",
    ] == settled(Done(0, table, ""), first["id"], second["id"])
    summary, _, code = patch.partition("\n\n")
    assert " own/a.txt | 2 +-\n train.py  | 2 +-\n 2 files changed, 2 insertions(+), 2 deletions(-)" == summary
    assert code_of(scene, first["commit"], second["commit"]).decode() == code
    assert "nothing differs" == scene.numb("diff @ @").stdout.splitlines()[-1]


def test_each_part_can_be_had_alone_and_as_json(scene: Scene) -> None:
    """And any of them together; values keep their types, and NaN is valid JSON."""
    scene.write("train.py", scene.read("train.py").replace("1 - lr", "float('nan') if lr > 0.2 else 1"))
    first, second = scene.trained("lr=0.1"), scene.trained("lr=0.3", "epochs=3")
    both = f"diff {first['id']} {second['id']}"
    alone = settled(scene.numb(f"{both} --params"), first["id"], second["id"])
    two = json.loads(scene.numb(f"{both} --params --results --json").stdout)
    every = json.loads(scene.numb(f"{both} --json").stdout)

    assert ["hyperparameters", "  lr  0.1  0.3", "  epochs  2  3"] == alone[1:]
    assert {
        "runs": [first["id"], second["id"]],
        "hyperparameters": {"lr": [0.1, 0.3], "epochs": [2, 3]},
        "results": {"acc": [1, {"$float": "nan"}]},
        "notes": [],
    } == two
    assert (
        two.items() <= {**every, "notes": []}.items()
        and "patch" not in every
        and ["complete"] * 2 == every["run"]["status"]
    )
    assert "" == scene.numb(f"{both} --code").stdout


def test_code_alone_is_a_patch_for_git(scene: Scene) -> None:
    """Byte for byte, names and contents that are strange included: applied to the one snapshot it makes the other."""
    scene.write("gone.txt", "x\n")
    (scene.root / "data.bin").write_bytes(bytes(range(256)) * 9)
    first = scene.trained()
    scene.sh("rm gone.txt; mv data.bin 'new\nname'; printf 'tail\\x1b[31m\\0' >> 'new\nname'; chmod +x train.py")
    second = scene.trained("--again")
    scene.numb(f"revert {first['id']} --worktree ../first")
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m numb diff {first["id"]} {second["id"]} --code > ../code.patch', os.sys.executable],  # type: ignore[attr-defined]
        cwd=scene.root, env=scene.env,
    )  # fmt: skip
    scene.sh("cd ../first && git init -q && git apply ../code.patch")
    tree = scene.sh("cd ../first && git add -A && git write-tree")

    assert 0 == done.returncode
    scene.sh(f"git read-tree --index-output=.nmb/tmp-index {second['commit']}")
    own = scene.sh(
        "GIT_INDEX_FILE=.nmb/tmp-index git rm -rq --cached .nmb && GIT_INDEX_FILE=.nmb/tmp-index git write-tree"
    )
    assert own == tree


def test_the_work_tree_is_compared_as_a_run_would_take_it(scene: Scene) -> None:
    """Untracked files are in, ignored ones and secrets are not, and neither git nor .nmb keeps anything of it."""
    run = scene.trained()
    scene.write("new.txt", "new\n")
    scene.write("old.ignored", "x\n")
    scene.write(".env", "TOKEN=1\n")
    scene.sh("echo '# edited' >> train.py && git add train.py && echo '# again' >> train.py")
    scene.sh("git init -q inner && cd inner && echo a > a && git add a && git commit -qm a && echo b >> a")
    before = scene.sh("find .git .nmb inner/.git -type f | sort")
    users = scene.users()
    seen = scene.numb(f"diff {run['id']}")
    patch = scene.numb(f"diff {run['id']} --code").stdout
    after = scene.sh("find .git .nmb inner/.git -type f | sort")

    assert (0, "", users) == (seen.code, seen.stderr, scene.users())
    assert before == after
    assert ["code", "  outside: .env  -  8"] == [re.sub(" {2,}", "  ", line) for line in seen.stdout.splitlines()][3:5]
    scene.trained("--again")
    assert scene.numb("diff @-1 @ --code").stdout == patch and "+new" in patch and "TOKEN" not in patch


def test_hyperparameters_of_the_work_tree(scene: Scene) -> None:
    """What numb train would use now; what only running tells is no difference, and neither is what the run did not reach."""
    script = """
    import sys
    from numb import numb_queue
    from numb.hp import _
    lr = 0.1
    gone = 1
    opt = {"kind": "sgd", "momentum": 0.9}
    computed = len(sys.argv)
    numb_queue()
    _("called", 1)
    if lr > 1:
        _("not.reached", 1)
    """
    scene.write("train.py", script)
    run = scene.trained("lr=0.5")
    scene.write(
        "train.py", script.replace("gone = 1", "new = 'x'").replace("0.9", "0.5").replace('"called", 1', '"called", 2')
    )
    found = json.loads(scene.numb(f"diff {run['id']} --params --json").stdout)
    told = json.loads(scene.numb("diff", run["id"], "--params", "--json", env={"NUMB_HP_LR": "0.5"}).stdout)

    changed = {"gone": [1, None], "opt.momentum": [0.9, 0.5], "called": [1, 2], "new": [None, "x"]}
    assert {"lr": [0.5, 0.1], **changed} == found["hyperparameters"] and [run["id"], None] == found["runs"]
    assert changed == told["hyperparameters"]


def test_another_python_is_not_compared(scene: Scene) -> None:
    """Whose packages are not those of numb's own: a line says so, and none of them counts as removed."""
    run = scene.trained()
    scene.write("nmb.json", '{"version": 1, "train": {"command": ["env", "python", "train.py"]}}')
    done = scene.numb(f"diff {run['id']} --environment")

    lines = [re.sub(" {2,}", "  ", line) for line in done.stdout.splitlines()]
    assert ["environment", "  command  python train.py  env python train.py", ""] == lines[1:4]
    assert re.fullmatch("environment: python and packages of the work tree are not known: .*", lines[4])


def test_what_the_work_tree_has_not_is_refused(scene: Scene) -> None:
    """It has no results and no network before a run."""
    scene.trained()
    for part in ("results", "architecture", "weights"):
        done = scene.numb(f"diff @ --{part}")
        assert (2, "", "numb: the work tree has no ") == (done.code, done.stdout, done.stderr[:27])


def test_a_run_in_flight_is_compared_as_far_as_it_is_known(scene: Scene) -> None:
    """Its snapshot is pinned, its hyperparameters are told: both are there before it ends."""
    first = scene.trained()
    os.mkfifo(scene.root / "begun.ignored"), os.mkfifo(scene.root / "go.ignored")
    script = scene.read("train.py").replace(
        "sys.exit(", "open('begun.ignored', 'w').close(); open('go.ignored').close()\nsys.exit("
    )
    scene.write("train.py", script)
    process = scene.start("train", "lr=0.5")
    (scene.root / "begun.ignored").read_bytes()
    flying = next(run["id"] for run in scene.runs() if run["status"] == "running")
    while f"refs/numb/pins/{flying}" not in scene.sh("git for-each-ref"):  # which is made while the script runs
        pass
    done = scene.numb(f"diff {first['id']} {flying} --json")
    table = scene.numb(f"compare {first['id']} {flying}")
    (scene.root / "go.ignored").write_bytes(b"")
    process.communicate()
    ended = scene.numb(f"diff {first['id']} {flying} --json")

    now, then = json.loads(done.stdout), json.loads(ended.stdout)
    assert ["complete", "running"] == now["run"]["status"] and {"lr": [0.1, 0.5]} == now["hyperparameters"]
    assert now["patch"] == then["patch"] and "begun.ignored" in now["patch"] and "environment" not in now
    assert (0, "") == (table.code, table.stderr) and "running" in table.stdout


STRANGE = '{"command": "x", "packages": [1], "script": {"seeds": {"torch": {"$float": "x"}}, "gpus": {"a": [null]}}}'


@pytest.mark.parametrize(("content", "is_known"), [("[", False), (STRANGE, True)], ids=["damaged", "strange"])
def test_what_is_damaged_or_removed_is_said(scene: Scene, content: str, is_known: bool) -> None:
    """An environment that is none, or not one of numb's: the rest is compared. A run that was removed is an error."""
    first, second = scene.trained("lr=0.1"), scene.trained("lr=0.2")
    scene.sh(
        f"""
        blob=$(echo '{content}' | git hash-object -w --stdin)
        export GIT_INDEX_FILE=.nmb/damaged
        git read-tree numb && git update-index --cacheinfo 100644,$blob,.nmb/run/environment.json
        git update-ref refs/heads/numb $(git log -1 --format=%B numb | git commit-tree $(git write-tree) -p numb~1)
        """
    )
    shown = scene.numb(f"diff {first['id']} {second['id']}")
    plain = json.loads(scene.numb(f"compare {first['id']} {second['id']} --json").stdout)
    scene.numb(f"rm {second['id']}")
    removed = scene.numb(f"compare {first['id']} {second['id']}")

    said = f"environment: the environment of {second['id']} cannot be read: it is damaged"
    assert 0 == shown.code and re.search("lr +0.1 +0.2", shown.stdout)
    assert is_known == ("environment" in plain) and ([] if is_known else [said]) == plain["notes"]
    assert (said == shown.stdout.splitlines()[-1]) is not is_known
    assert (1, f"numb: {second['id']} was removed") == (removed.code, removed.stderr.splitlines()[0])


@pytest.mark.parametrize("known", [True, False])
def test_a_lost_commit_leaves_the_rest(scene: Scene, known: bool) -> None:
    """What the listing has of it is compared; the code says that git has lost it, and alone that is the error."""
    first, second = scene.trained("lr=0.1"), scene.trained("lr=0.2")
    path = scene.root / f".git/objects/{second['commit'][:2]}/{second['commit'][2:]}"
    path.unlink()
    if known:
        scene.sh("git update-ref refs/heads/numb numb~1 || git update-ref -d refs/heads/numb")
    done = scene.numb(f"diff {first['id']} {second['id']}")
    alone = scene.numb(f"diff {first['id']} {second['id']} --code")
    table = scene.numb(f"compare {first['id']} {second['id']}")

    assert (0, 1, 0) == (done.code, alone.code, table.code), done.stderr
    assert re.search(r"lr +0.1 +0.2", done.stdout) and f"code: git has lost the commit of {second['id']}" in done.stdout
    assert f"numb: git has lost the commit of {second['id']}" in alone.stderr


# -- networks


def test_operators_are_aligned() -> None:
    """Equal ones stay, one in between is an addition, and one of the same name in its place has changed."""
    first = ["conv2d 16x1x3x3 padding=[1, 1]", "relu", "conv2d 16x16x3x3 padding=[1, 1]", "relu", "linear 10x64"]
    second = [
        "conv2d 16x1x3x3 padding=[1, 1]",
        "gelu",
        "dropout p=0.3",
        "conv2d 16x16x5x5 padding=[2, 2]",
        "relu",
        "linear 10x64",
    ]

    assert [
        ("=", "conv2d", ""), ("-", "relu", ""), ("+", "gelu", ""), ("+", "dropout", ""),
        ("~", "conv2d", "16x16x3x3 → 16x16x5x5, padding [1, 1] → [2, 2]"), ("=", "relu", ""), ("=", "linear", ""),
    ] == [(s.mark, (s.first or s.second or "").split()[0], s.changes if s.mark == "~" else "") for s in network.aligned(first, second)]  # fmt: skip


LINES = st.lists(st.sampled_from(["conv 1x1", "conv 2x2", "relu", "add", "linear 3x3 bias=True", ""]), max_size=40)


@settings(max_examples=60)
@given(LINES, LINES, st.integers(1, 40))
def test_nothing_gets_lost_in_aligning(first: list[str], second: list[str], times: int) -> None:
    """Read down one side, what is beside each other is one network, and down the other it is the other; large ones too."""
    for one, other in ((first, second), (first * times, second * times)):
        steps = network.aligned(one, other)
        assert (one, other) == (
            [step.first for step in steps if step.first is not None],
            [step.second for step in steps if step.second is not None],
        )
        assert all((step.mark == "=") == (step.first == step.second) for step in steps)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.scale = nn.Parameter(torch.ones(6))
        self.out = nn.Linear(6, 11)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.rnn(self.embed(x))[0]) * self.scale)


NETWORKS = [
    (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)),
        torch.ones(2, 1, 4, 4),
        "2x3",
    ),
    (_Tied(), torch.zeros(2, 5, dtype=torch.int64), "2x5x11"),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.ones(2, 3, 8), "2x3x8"),
]


GRAPH = onnx.helper.make_model(
    onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w.x", "w.b"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            onnx.helper.make_node("Relu", ["y"], ["z"]),
        ],
        "net",
        [
            onnx.helper.make_tensor_value_info(name, 1, shape)
            for name, shape in (("x", ["batch", 1, 4, 4]), ("w.x", [2, 1, 3, 3]), ("w.b", [2]))
        ],
        [onnx.helper.make_tensor_value_info("z", 1, None)],
    )
).SerializeToString()


@pytest.mark.parametrize(("model", "dummy", "shape"), NETWORKS, ids=["conv", "tied", "transformer"])
def test_a_graph_has_each_parameter_once(model: nn.Module, dummy: torch.Tensor, shape: str) -> None:
    """Those of the operators are those of the model, tied ones counted once and statistics not; shapes are torch's."""
    model.eval()
    found = network.from_onnx("Net", graph.to_onnx(model, dummy), model.state_dict())
    unnamed = network.from_onnx("Net", graph.to_onnx(model, dummy))

    assert sum(p.numel() for p in model.parameters()) == found.parameters
    assert found.parameters - unnamed.parameters == (6 if isinstance(model, _Tied) else 0), (
        "its own one has a name without a dot"
    )
    assert shape == found.operators[-1].shape[0]
    weights = {
        name: torch.Size(map(int, size.split("x"))) for o in found.operators for name, size in (o.weights or {}).items()
    }
    assert weights.keys() <= model.state_dict().keys() | {"out.weight"}
    assert {"Constant", "Shape"}.isdisjoint({each.name for each in found.operators})


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_graph_is_no_traceback(data: st.DataObject) -> None:
    """What is no ONNX file is said to be none; what is still one can be shown."""
    content = bytearray(GRAPH)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = network.from_onnx("Net", bytes(content), ["w.x"])
    except ValueError:
        return
    model = Model("9f3c" * 4)
    assert view.networks([found], {"Net": model}) and json.loads(view.networks_json([found], {"Net": model}))


def test_without_a_graph_there_are_the_lines() -> None:
    """The operators that the architecture has, with the shapes of their weights, and why there is no more."""
    lines = ["conv2d 16x1x3x3 padding=[1, 1]", "relu", "Linear(in_features=4, bias=True)"]
    found = network.from_lines("Net", lines, "graph", "(the exporter failed\x1b)")
    model = Model("9f3c" * 4, "graph", "Net", 178)
    shown, plain = view.networks([found], {"Net": model}), json.loads(view.networks_json([found], {"Net": model}))

    assert [
        "Net  Net·9f3c",
        "no ONNX graph: (the exporter failed\\x1b)",
        "operator  weights  attributes",
        "0  conv2d  16x1x3x3  padding=[1, 1]",
        "1  relu",
        "2  Linear  in_features=4 bias=True",
        "3 operators, 178 parameters",
    ] == [re.sub(" {2,}", "  ", line.strip()) for line in shown.splitlines()]
    assert [None] * 3 == [each["parameters"] for each in plain["Net"]["operators"]]


@pytest.mark.usefixtures("warm")
def test_networks_of_two_runs(torch_scene: Scene) -> None:
    """diff aligns their operators and tells the parameters; show --graph has a table of each, also of what was exported before."""
    first, second = torch_scene.trained("width=8"), torch_scene.trained("width=4")
    again = torch_scene.trained("width=4", "--again")
    found = settled(torch_scene.numb(f"diff {first['id']} {second['id']} --architecture"), first["id"], second["id"])
    shown = torch_scene.numb("show @ --graph")
    plain = json.loads(torch_scene.numb(f"show {first['id']} --graph --json").stdout)["Net"]
    [one, other] = [run["models"]["Net"]["architecture"][:4] for run in (first, second)]

    assert [
        f"network Net  {one} with 74 parameters → {other} with 38 parameters (-36 parameters)",
        "  ~ linear  8x4 → 4x4",
        "  ~ batch_norm  8 → 4",
        "  relu",
        "  dropout p=0.2",
        "  ~ linear  2x8 → 2x4",
    ] == found
    assert (
        again["graph"]
        and shown.stdout.endswith("4 operators, 38 parameters\n")
        and re.search("Gemm +1x4 +4x4 4 +20 ", shown.stdout)
    )
    assert (74, "onnx", [40, 16, 0, 18]) == (
        plain["parameters"], plain["source"], [each["parameters"] for each in plain["operators"]],
    )  # fmt: skip


def test_a_run_without_a_network_says_so(scene: Scene) -> None:
    """It has no table."""
    scene.trained()
    done = scene.numb("show @ --graph")
    assert (0, "") == (done.code, done.stdout) and "no network was seen" in done.stderr


# -- compare


def test_runs_beside_each_other(scene: Scene) -> None:
    """A column for each run and a line for what differs, best marked; as CSV and JSON the same; --all has the rest too."""
    runs = [scene.trained(f"lr={lr}") for lr in (0.5, 0.25)]
    scene.write("new.txt", "x")
    runs.append(scene.trained("lr=0.125"))
    ids = [run["id"] for run in runs]
    trees = [scene.sh(f"git rev-parse {run['commit']}:train.py") for run in runs]
    table = settled(scene.numb("compare", *ids), *ids)
    lines = list(csv.reader(io.StringIO(scene.numb("compare", *ids, "--csv").stdout)))
    plain = json.loads(scene.numb("compare", *ids, "--json").stdout)
    every = json.loads(scene.numb("compare", *ids, "--all", "--json").stdout)

    snapshots = plain["code"]["snapshot"]
    assert [
        "  A  B  C",
        "hyperparameters",
        "  lr  0.5  0.25  0.125",
        "results",
        "  acc  0.5  0.75  0.875*",
        "code",
        f"  snapshot  {'  '.join(snapshots)}",
    ] == table
    assert snapshots[0] == snapshots[1] != snapshots[2] and len(set(trees)) == 1
    assert ["part", "name", *ids] == lines[0] and ["hyperparameters", "lr", "0.5", "0.25", "0.125"] in lines
    assert {"lr": [0.5, 0.25, 0.125]} == plain["hyperparameters"]
    assert {"lr": [0.5, 0.25, 0.125], "epochs": [2, 2, 2]} == every["hyperparameters"] and "python" in every[
        "environment"
    ]
    own = scene.sh(f"git ls-tree {runs[0]['commit']} | grep -v '[.]nmb$' | git mktree")
    assert own.startswith(snapshots[0])
    one = scene.numb(f"compare {ids[0]}")
    assert (2, "numb: one run cannot be compared") == (one.code, one.stderr.splitlines()[0])


def test_a_narrow_terminal_gets_a_line_for_each_run(scene: Scene) -> None:
    """Where the columns do not fit, and what does not fit then is named."""
    scene.trained("lr=0.1")
    scene.trained("lr=0.2")
    project = Project.open(scene.root)
    found = project.compare([row.run for row in project.runs()])
    wide, narrow = view.compared(found, width=200), view.compared(found, width=35)
    project.branch.close()

    lines = narrow.splitlines()
    assert re.search(r"lr +0.1 +0.2", wide) and max(map(len, lines[:-1])) <= 35
    assert "too narrow for acc" == lines[-1]
    assert [run["id"] for run in scene.runs()] == [line.partition(" ")[0] for line in lines[1:-1]]


# -- series


def test_columns_are_melded() -> None:
    """AC-L8: an outer join in the order of the labels; gaps, duplicates and what has no place are settled."""
    one, other = [(0, 1.0), (1, 0.5)], [(1, 0.25), (2, 0.125)]

    assert [(0, 1.0, None), (1, 0.5, 0.25), (2, None, 0.125)] == melding.meld({"a": one, "b": other})
    assert [(0, None, 1.0), (1, 0.25, 0.5), (2, 0.125, None)] == melding.meld({"b": other, "a": one})
    assert [(1, "last"), (2.5, 1)] == melding.meld(
        {"a": [(2.5, 1), (1, 0), (1, "last"), (1, None), (None, 3), (math.nan, 4)]}
    )
    assert [("b", 1), ("a", 2)] == melding.meld({"x": [("b", 1), ("a", 2)]})
    with pytest.raises(ValueError, match="nothing to meld"):
        melding.meld({})


def test_series_of_runs_are_compared(scene: Scene) -> None:
    """A column for each run by its id; a run without such a field is an error that names what it has."""
    script = "import numb, sys\nval = numb.series('val', ['epoch', 'acc'])\nfor s in map(int, sys.argv[2]):\n"
    scene.write(
        "train.py",
        script
        + "    numb.log(step=s, loss=s / 2)\n    numb.log(step=s, **{sys.argv[1]: s})\n    val(epoch=s, acc=1)\n",
    )
    first, second = scene.trained("--", "x", "01"), scene.trained("--again", "--", "y", "12")
    ids = [first["id"], second["id"]]
    table = scene.numb("compare", *ids, "--series", "loss")
    alone, named = scene.numb("compare", *ids, "--series", "val"), scene.numb("compare", *ids, "--series", "val:acc")
    wrong = scene.numb("compare", *ids, "--series", "x")
    project = Project.open(scene.root)
    melded = project.joined({ids[1]: "b", ids[0]: "a"}, "log:loss")

    assert f"step,{ids[0]},{ids[1]}\n0,0.0,\n1,0.5,0.5\n2,,1.0\n" == table.stdout
    assert f"epoch,{ids[0]},{ids[1]}\n0,1,\n1,1,1\n2,,1\n" == alone.stdout == named.stdout
    assert (1, "") == (wrong.code, wrong.stdout)
    assert f"numb: {ids[1]} has no log:x; it has" in wrong.stderr and "log:y" in wrong.stderr
    assert ("step", ("b", "a"), ((0, None, 0.0), (1, 0.5, 0.5), (2, 1.0, None))) == (
        melded.index,
        melded.labels,
        melded.rows,
    )
    with pytest.raises(ArtifactMissing):
        project.joined({ids[0]: "a"}, "val:loss")
    project.branch.close()


# -- what a script says is shown, not obeyed


def test_a_terminal_obeys_nothing_of_it(scene: Scene) -> None:
    """Colours of git's stay, what stands in files and values is spelled out."""
    coloured = b"\x1b[31m-a\x1b[m\n\x1b[32m+\x1b]0;owned\x07\tb\x1b[2J\x1b[m\n"
    assert "\x1b[31m-a\x1b[m\n\x1b[32m+\\x1b]0;owned\\x07    b\\x1b[2J\x1b[m\n" == view.patch(coloured)
    named = 'numb_queue()\nnumb_param({"na\\x1bme": "\\x1b]0;owned\\x07" + str(lr)})'
    scene.write("train.py", scene.read("train.py").replace("numb_queue()", named))
    first, second = scene.trained("lr=0.1"), scene.trained("lr=0.2")
    for done in (scene.numb(f"diff {first['id']} {second['id']}"), scene.numb(f"compare {first['id']} {second['id']}")):
        assert (
            0 == done.code
            and "\x1b" not in done.stdout
            and "na\\x1bme" in done.stdout
            and "\\x1b]0;owned" in done.stdout
        )
