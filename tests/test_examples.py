"""The examples are what they show: with numb and without it they train to the same bits, and each can be trialed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Scene
from scripted import kept, own, plain, runs

EXAMPLES = Path(__file__).parent.parent / "examples"

# Beside the example, so that its own files stay as they are: the networks that its script leaves behind, by class.
SAVING = """
import runpy, torch
left = runpy.run_path("train.py")
torch.save({type(v).__name__: v.state_dict() for v in left.values() if isinstance(v, torch.nn.Module)}, "own.pt")
"""


@pytest.mark.parametrize("example", ["digits", "gan", "chars", "hp", "resume", "sweep"])
@pytest.mark.usefixtures("warm_training")
def test_an_example_trains_to_the_same_bits(empty: Scene, example: str) -> None:
    """One epoch with numb and one without: equal weights, equal output; what is kept is what was trained; a trial works."""
    pytest.importorskip("sklearn")
    shutil.copytree(EXAMPLES / example, empty.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    empty.write(".gitignore", "own.pt\n__pycache__/\n")
    empty.write("saving.py", SAVING)
    empty.sh(
        "sed -i 's/^epochs = .*/epochs = 1/; s/^steps = .*/steps = 30/' train.py && sed -i 's/train.py/saving.py/' nmb.json && numb init"
    )

    bare = empty.sh("PYTHONUNBUFFERED=1 python saving.py")
    weights = plain(own(empty))
    (empty.root / "own.pt").unlink()
    done = empty.numb("train")
    (run,) = runs(empty)
    trial = empty.numb("trial @")

    (trialed,) = runs(empty)
    assert (0, bare) == (done.code, done.stdout.strip()), done.stderr
    assert weights == plain(own(empty)) == plain(kept(empty, run))
    assert 1 == run["params"].get("epochs", 1)
    assert ["graph"] * len(weights) == [model["rung"] for model in run["models"].values()]
    assert (0, "complete") == (trial.code, trialed["trials"][0]["status"]), trial.stderr
    assert trialed["results"] and all(isinstance(value, float) for value in trialed["results"].values())
    assert [] == run["notes"] == trialed["trials"][0]["notes"]


@pytest.mark.usefixtures("warm_training")
def test_a_killed_example_ends_as_one_that_was_not(empty: Scene) -> None:
    """Killed twice, resumed twice: the same lines, bit-equal weights, and one run."""
    pytest.importorskip("sklearn")
    shutil.copytree(EXAMPLES / "resume", empty.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    empty.write(".gitignore", "own.pt\n__pycache__/\n")
    empty.write("saving.py", SAVING)
    kill = "    if os.environ.get('AT') == str(step):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    text = "import os\nimport signal\n" + empty.read("train.py").replace(
        "    if run.should_stop:\n", kill + "    if run.should_stop:\n", 1
    )
    empty.write("train.py", text.replace("steps = 300", "steps = 120").replace(':.4f}")', ':.4f}", flush=True)'))
    empty.sh("sed -i 's/train.py/saving.py/' nmb.json && git add -A && git commit -qm example && numb init")

    bare = empty.sh("PYTHONUNBUFFERED=1 python saving.py").splitlines()
    weights = plain(own(empty))
    (empty.root / "own.pt").unlink()
    killed = [empty.numb("train", env={"AT": "50"}), empty.numb("train --resume @", env={"AT": "100"})]
    last = empty.numb("train --resume @")

    (run,) = runs(empty)
    assert [137, 137, 0] == [done.code for done in (*killed, last)], last.stderr
    assert ("complete", 2) == (run["status"], len(run["segments"]))
    printed = [line for done in (*killed, last) for line in done.stdout.splitlines()]
    assert bare == sorted(set(printed), key=printed.index) and 4 == len(bare)
    assert weights == plain(own(empty)) == plain(kept(empty, run))
    assert {kept["step"] for kept in run["checkpoints"]} >= {75, 100}


@pytest.mark.usefixtures("warm_training")
def test_the_hyperparameters_of_an_example_are_set_as_its_page_says(empty: Scene) -> None:
    """The commands of the page, typed in order, train and trial what they say, without a change of a file."""
    pytest.importorskip("sklearn")
    shutil.copytree(EXAMPLES / "hp", empty.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    empty.sh("printf '__pycache__/\n' > .gitignore && git add -A && git commit -qm example && numb init")
    page = (EXAMPLES / "README.md").read_text().partition("## Without editing anything")[2]
    commands = [line.removeprefix("$ numb ") for line in page.splitlines() if line.startswith("$ numb ")]

    done = {words: empty.numb(words) for words in commands}

    assert {0} == {each.code for each in done.values()}, done
    one, two = runs(empty)
    params = [
        (run["params"]["net.width"], run["params"]["net.layers"], run["params"]["opt"]["lr"]) for run in (one, two)
    ]
    assert [(32, 2, 0.003), (128, 3, 0.001)] == params
    assert [(2, 0.0), (1, 0.1)] == [(run["params"]["epochs"], run["params"]["smoothing"]) for run in (one, two)]
    assert ["net.width", "opt"] == [name for name in ("net.width", "opt") if name in done["hp"].stdout]
    assert "lr: 0.01" in done["train --dry-run opt.lr=0.01"].stdout
    assert 1 == len(two["trials"]) and "" == empty.sh("git status --porcelain -- '*.py' '*.yaml'")


@pytest.mark.usefixtures("warm_training")
def test_the_sweep_of_an_example_is_what_its_page_says(empty: Scene) -> None:
    """The page's grid writes the queue as it lies there; its other commands work, here with one epoch and two entries."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    shutil.copytree(EXAMPLES / "sweep", empty.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    written = empty.read("sweep.json")
    (empty.root / "sweep.json").unlink()
    empty.sh("sed -i 's/^epochs = .*/epochs = 1/' train.py && git add -A && git commit -qm example && numb init")
    page = (EXAMPLES / "sweep" / "README.md").read_text()
    commands = re.findall(r"^\$ numb (?!init)(.*?)(?: +#.*)?$", page, re.MULTILINE)
    assert commands[0].startswith("queue grid ")

    grid = empty.numb(commands[0])
    made = empty.read("sweep.json")
    empty.write("sweep.json", json.dumps(json.loads(made)[:1] + json.loads(made)[-1:]))
    done = {words: empty.numb(re.sub("^trial .*", "trial @", words)) for words in commands[1:]}

    assert (0, written, 24) == (grid.code, made, len(json.loads(made))), grid.stderr
    assert {0} == {each.code for each in done.values()}, done
    assert {("adam", 0.001), ("sgd", 0.1)} == {(run["params"]["opt"], run["params"]["lr"]) for run in runs(empty)}
    assert {"acc", "val_loss", "test_acc", "test_loss"} == set().union(*(run["results"] for run in runs(empty)))
    assert "<svg" in empty.read("sweep.svg")
