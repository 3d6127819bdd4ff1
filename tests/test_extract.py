"""A function of the user's finds the results in what a run has left: before the commit, and again afterwards."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene
from kit import sealed_here

from numb import config, extraction
from numb.errors import ConfigError, NotPossible, Refused
from numb.project import Project

SCRIPT = """
import os, sys
import numb
print("imported", os.path.exists("imported.ignored"))
numb.numb_param({"lr": 0.5})
for epoch, err in enumerate([0.3, 0.1, 0.2]):
    numb.log(epoch=epoch, err=err)
numb.save("table.json", {"a": [1, 2]})
(numb.run().dir / "own.json").write_text("[3]")
numb.numb_trial_result({"acc": 0.9})
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""

RESULTS = """
import os
open("imported.ignored", "w").close()
def best(run):
    print("looked at", run.id)
    best = min(run.series(), key=lambda row: row["err"])
    inside = {"a": run["table"]["a"], "own": run["own.json"], "files": list(run.artifacts)}
    return {"best": {"epoch": best["epoch"], "err": best["err"]}, "seen": [run.params.lr, run.results["acc"]], **inside}
"""


def told(scene: Scene, extract: str | None, **files: str) -> None:
    """Have nmb.json name a function, and lay out what it is in."""
    for name, text in {"train": SCRIPT, **files}.items():
        scene.write(f"{name}.py", text)
    document = {"version": 1, "train": {"command": "python train.py"}}
    scene.write("nmb.json", json.dumps(document | ({"extract": extract} if extract else {})))


@contextmanager
def project_of(scene: Scene) -> Iterator[Project]:
    """The project in this process, which sees nothing but the scene's environment."""
    with sealed_here(scene), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # GitPython's, of its own parts
        project = Project.open(scene.root)
        yield project
        project.branch.close()


def notes(scene: Scene) -> list[str]:
    return scene.runs()[-1]["notes"]


def test_what_the_function_returns_are_results_of_the_run(scene: Scene) -> None:
    """AC-J4: nested as it was returned, together with what the script has said, in the one commit of the run."""
    told(scene, "results:best", results=RESULTS)
    done = scene.numb("train")
    [run] = scene.runs()

    assert (0, "imported False\n") == (done.code, done.stdout), done.stderr  # the source was enough to find it
    assert {
        "acc": 0.9, "best": {"epoch": 1, "err": 0.1}, "seen": [0.5, 0.9], "a": [1, 2], "own": [3], "files": ["table.json"],
    } == run["results"]  # fmt: skip
    assert ("complete", [], "2") == (run["status"], run["notes"], scene.sh("git rev-list --count --first-parent numb"))
    assert "best.epoch 1 best.err 0.1" in scene.sh("git log -1 --format=%s numb") and "best.err 0.1" in done.stderr
    assert f"looked at {run['id']}" == scene.sh("git show numb:.nmb/run/extraction.txt")
    assert 0 == scene.numb("doctor").code


@pytest.mark.parametrize(
    ("extract", "said"),
    [
        ("results:bset", ["results.py has no bset", "did you mean results:best?"]),
        ("result:best", ["No module named 'result'", "did you mean results:best?"]),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_the_training(
    scene: Scene, extract: str, said: list[str]
) -> None:
    """The script does not start, and nothing is recorded."""
    told(scene, extract, results=RESULTS)
    done = scene.numb("train")

    assert (125, "", []) == (done.code, done.stdout, scene.runs())
    assert all(words in done.stderr for words in said), done.stderr


@pytest.mark.parametrize(
    ("extract", "files", "said"),
    [
        ("pkg.inner:of", {"pkg/__init__": "1 / 0", "pkg/inner": ""}, "pkg/inner.py has no of,"),
        ("pkg.inner:of", {"pkg/__init__": "1 / 0", "pkg/inner": "def of(run): ..."}, None),
        ("results:of", {"results": "if True:\n    from inner import f as of"}, None),
        ("results:of", {"results": "from inner import *", "inner": "def best(run): ..."}, "has no attribute 'of'"),
        ("results:of", {"results": "from inner import *", "inner": "def of(run): ..."}, None),
        ("results:of", {"results": "def __getattr__(name): raise AttributeError(name)"}, "AttributeError: of"),
        ("results:of", {"results": "globals()['of'] = print\ndef __getattr__(name): 1 / 0"}, None),
        ("results:C.of", {"results": "class C:\n    def of(run): ..."}, None),
        ("results:C.no", {"results": "class C:\n    def of(run): ..."}, "has no attribute 'no'"),
        ("math:nothing", {}, "has no attribute 'nothing'"),
        ("results:of", {"results": "def of(run) 1"}, "SyntaxError"),
    ],
)
def test_a_function_is_found_in_the_source_or_by_trying(
    scene: Scene, extract: str, files: dict[str, str], said: str | None
) -> None:
    """However it came to its name; what is above it is not imported where reading is enough."""
    told(scene, extract, **files)
    refused = pytest.raises(Refused, match=re.escape(said)) if said else nullcontext()
    with project_of(scene) as project, refused:
        extraction.check(project)


def test_a_script_whose_python_is_not_evident_is_started(scene: Scene) -> None:
    """What cannot be decided is said, and ends nothing."""
    told(scene, "elsewhere:of")
    scene.write(
        "nmb.json", json.dumps({"train": {"command": ["env", "python", "train.py"]}, "extract": "elsewhere:of"})
    )
    done = scene.numb("train")

    assert (0, 1) == (done.code, len(scene.runs()))
    assert 2 == done.stderr.count("ModuleNotFoundError: No module named 'elsewhere'")


FAILING = [
    ("return {'a': 1 / 0}", "ZeroDivisionError: division by zero"),
    ("return [1]", "TypeError: it returned a list, and no dictionary"),
    ("return", "TypeError: it returned None, and no dictionary"),
    ("return {1: 2}", "TypeError: the key 1 is a int: keys must be strings"),
    ("return {'a': {'b': print}}", "TypeError: a.b is a builtin_function_or_method"),
    ("return run['none']", "ArtifactMissing: "),
    ("return run.series('none')", "ArtifactMissing: "),
    ("sys.exit()", "SystemExit"),
    ("os._exit(0)", "its process ended by itself (exit code 0)"),
    ("os.kill(os.getpid(), 9)", "its process died (SIGKILL)"),
    ("os.fork() or os.read(os.pipe()[0], 1); os.read(os.pipe()[0], 1)", "it took more than 0.5 s"),
]


@pytest.mark.parametrize("body", ["print('hm'); return {'a': 1 / 0}", FAILING[-1][0]])
def test_a_function_that_fails_changes_nothing_of_the_run(scene: Scene, body: str) -> None:
    """It is complete, with the results of its script and a note that says why, and how to try again."""
    told(scene, "results:of", results=f"import os, sys\ndef of(run):\n    {body}\n")
    done = scene.numb("train", env={"NUMB_EXTRACT_SECONDS": "0.5"} if "fork" in body else {})
    [run] = scene.runs()

    why = "it took more than 0.5 s" if "fork" in body else "ZeroDivisionError: division by zero"
    note = f"results:of found no results: {why}; numb extract {run['id']} tries again"
    assert (0, "complete", 0, {"acc": 0.9}) == (done.code, run["status"], run["exit_code"], run["results"])
    assert [note] == run["notes"] and note in done.stderr
    if "hm" in body:
        kept = scene.sh("git show numb:.nmb/run/extraction.txt")
        assert kept.startswith("hm\nTraceback") and kept.endswith("ZeroDivisionError: division by zero")
        assert "extracted.py" not in kept


def test_whatever_a_function_does_there_is_a_reason(scene: Scene) -> None:
    """It raises, returns what is no results, ends its process, or does not end."""
    told(scene, None)
    scene.numb("train")
    for body, why in FAILING:
        told(scene, "results:of", results=f"import os, sys\ndef of(run):\n    {body}\n")
        scene.env |= {"NUMB_EXTRACT_SECONDS": "0.5"} if "0.5 s" in why else {}
        with project_of(scene) as project:
            run = project.find("@")
            with pytest.raises(NotPossible, match=re.escape(f"results:of found no results in {run.id}: {why}")):
                project.extract(run)
    assert {"acc": 0.9} == scene.runs()[-1]["results"]


def test_only_a_run_that_is_complete_is_looked_at(scene: Scene) -> None:
    """And one of a script that ends otherwise ends as ever."""
    told(scene, "results:best", results=RESULTS)
    done = scene.numb("train -- 3")

    assert (3, "failed", {"acc": 0.9}, []) == (
        done.code, *(scene.runs()[-1][name] for name in ("status", "results", "notes")),
    )  # fmt: skip


def test_a_run_outlives_numb_while_its_results_are_looked_for(scene: Scene) -> None:
    """Where numb is killed then, the run is complete, and says what is missing."""
    told(scene, "results:of", results="import os\ndef of(run):\n    os.kill(os.getppid(), 9)\n    return {}\n")
    killed = scene.start("train")
    killed.communicate()
    [run] = scene.runs()

    assert (-9, "complete", {"acc": 0.9}) == (killed.returncode, run["status"], run["results"])
    assert [f"results:of was cut off, so its results are missing: numb extract {run['id']}"] == run["notes"]


def test_results_are_found_later_in_what_is_recorded(scene: Scene) -> None:
    """By the function that nmb.json names now; one run that has no results keeps no other from its own."""
    told(scene, None)
    scene.numb("train")
    none = scene.numb("extract @")
    later = "def of(run):\n    return {'best': {'err': min(row['err'] for row in run.series())}, 'lr': run.params.lr}\n"
    told(scene, "later:of", later=later, train="from numb import *\nnumb_param({'lr': 2})\n")
    scene.numb("train")
    first, second = (run["id"] for run in scene.runs())
    assert "ArtifactMissing" in notes(scene)[0]
    both = scene.numb("extract", "--json", first, second)
    text = scene.numb("extract", first)

    assert 1 == none.code and 'it has no "extract"' in none.stderr and '"extract": "results:of"' in none.stderr
    assert (1, {first: {"best": {"err": 0.1}, "lr": 0.5}}) == (both.code, json.loads(both.stdout))
    assert f"later:of found no results in {second}: ArtifactMissing" in both.stderr
    assert (0, f"{first} best.err=0.1 lr=0.5\n") == (text.code, text.stdout)
    rows = json.loads(scene.numb("list --json").stdout)
    assert [{"acc": 0.9, "best": {"err": 0.1}, "lr": 0.5}, {}] == [row["results"] for row in rows]
    assert 0 == scene.numb("doctor").code


@pytest.mark.usefixtures("warm")
def test_the_function_can_look_at_the_weights(torch_scene: Scene) -> None:
    """They are those that the script has ended with."""
    body = "def of(run):\n    return {'total': sum(each.double().sum().item() for each in run.state_dict().values())}\n"
    torch_scene.write("weigh.py", body)
    torch_scene.write("nmb.json", json.dumps({"train": {"command": "python train.py"}, "extract": "weigh:of"}))
    assert 0 == torch_scene.numb("train").code
    [run] = torch_scene.runs()
    total = f"import torch\n{body}class run:\n    state_dict = lambda: torch.load('own.pt')\nprint(of(run)['total'])"
    torch_scene.write("total.py", total)

    assert [] == run["notes"] and float(torch_scene.sh("python total.py")) == run["results"]["total"]


def test_a_run_that_a_process_begins_itself_is_looked_at_too(scene: Scene) -> None:
    """When its block ends, and a function that is not there is an error where it begins."""
    told(scene, "results:best", results=RESULTS)
    body = SCRIPT.replace("\n", "\n    ").replace("import numb\n", "import numb\n    run = numb.start()\n")
    scene.write("own.py", "if True:" + body)
    said = scene.sh("python own.py 2>&1")
    told(scene, "results:bset")
    refused = scene.sh("python own.py 2>&1", check=False)

    assert "imported False" == said
    assert [{"epoch": 1, "err": 0.1}] == [run["results"]["best"] for run in scene.runs()]
    assert "Refused" in refused and "results.py has no bset" in refused


@pytest.mark.parametrize(
    "value", ["results", "results:", ":of", "a b:of", "results:of()", 3, ["results:of"], "../x:of", ""]
)
def test_what_is_no_function_is_an_error_in_nmb_json(tmp_path: Path, value: Any) -> None:
    """With the line and the column."""
    path = tmp_path / "nmb.json"
    path.write_text('{\n  "extract": ' + json.dumps(value) + "\n}")
    with pytest.raises(ConfigError) as raised:
        config.load(path)

    assert str(raised.value).startswith(f"{path}:2:14: expected a function by its module and name, such as")


def test_nmb_json_names_a_function(tmp_path: Path) -> None:
    """And a misspelt key is noticed as others are."""
    path = tmp_path / "nmb.json"
    path.write_text('{"extract": "package.results:Class.of", "extrct": 1}')
    found = config.load(path)

    assert "package.results:Class.of" == found.extract
    assert [f'{path}:1:41: unknown key "extrct"; did you mean "extract"?'] == list(found.warnings)
