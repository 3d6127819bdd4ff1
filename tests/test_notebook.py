"""What is promised of a notebook: runs by number, id and expression, series as data frames, and nothing that is changed."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Scene, furnish

import numb
from numb import frames, journal, record, tables
from numb.errors import ArtifactMissing, RunNotFound, Usage
from numb.project import Project

SCRIPT = """
import numb
from numb.hp import _
lr = _("lr", 0.1)
first = _("first", 0)
numb.numb_param({"opt": {"name": "adam"}})
for epoch in range(first, first + 2):
    numb.log(step=epoch, loss=lr * (epoch + 1), acc=0.5)
numb.log(step=9, note="a,b \\"c\\"")
loss = numb.series("loss", ["epoch", "loss"])
for epoch in range(first, first + 2):
    loss(epoch=epoch, loss=lr * (epoch + 1))
numb.save("table.csv", [{"a": 1, "b": 0.5}])
numb.save("facts", {"n": 3})
numb.numb_trial_result({"acc": 1 - lr, "best": {"epoch": first}})
"""


def three(scene: Scene) -> None:
    for first, lr in enumerate((0.1, 0.2, 0.4)):
        assert 0 == scene.numb("train", f"lr={lr}", f"first={first}").code


@pytest.fixture
def repo(empty: Scene, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project of three runs, as `numb.open` gives it."""
    furnish(empty, {"train.py": SCRIPT, "trial.py": "import numb\n"})
    empty.once("three runs", lambda: three(empty))
    for name, value in empty.env.items():
        monkeypatch.setenv(name, value)
    return numb.open(empty.root)


def test_a_project_is_the_sequence_of_its_runs(repo: Project) -> None:
    """By number, by id and its beginning, by slices, several at once; and as long as `numb list`."""
    ids = [run.id for run in repo]

    assert 3 == len(repo) == len(ids) and repo and ids == [row.run.id for row in repo.runs()]
    assert (ids[-1], ids[0], ids[:2]) == (repo[-1].id, repo[0].id, [run.id for run in repo[:2]])
    assert (ids[1], [ids[2], ids[0]]) == (repo[ids[1][-4:]].id, [run.id for run in repo[ids[2], ids[0]]])
    assert ids[0] in repo and repo[1] in repo and "nope" not in repo and 7 not in repo
    with pytest.raises(KeyError, match=f"there is no run {ids[0][:-1]}_; near are .*{ids[0]}"):
        repo[ids[0][:-1] + "_"]
    with pytest.raises(KeyError, match=f"near are .*{ids[0]}"):
        repo[ids[0][-4:-1] + "_"]
    with pytest.raises(IndexError):
        repo[3]
    with pytest.raises(RunNotFound):
        repo["a", ids[0]]


def test_a_run_has_its_values_as_attributes(repo: Project) -> None:
    """Hyperparameters and results by name, what was saved by its name, and what was said."""
    run = repo[-1]
    repo.remark(run.record, message="why", tags=["paper"], name="good")
    run = repo["good"]

    assert (0.4, "adam", 0.6, 2) == (run.params.lr, run.params.opt.name, run.results.acc, run.results.best.epoch)
    assert ("complete", ("why",), ("paper",), "UTC") == (run.status, run.notes, run.tags, str(run.started.tzinfo))
    assert ({"n": 3}, [0.5]) == (run["facts"], list(run["table.csv"]["b"]))
    assert {"n": 3} == run["facts.json"] and 2 == len(run["loss.csv", "table.csv"])
    with pytest.raises(KeyError, match=r"has no nope; it has table.csv, facts.json"):
        run["nope"]
    with pytest.raises(AttributeError, match="there is no rl; there are lr"):
        _ = run.params.rl


def test_a_series_is_a_data_frame(repo: Project) -> None:
    """AC-L2: its index is the first field, `Date` is a time in UTC, what is missing is NaN, and texts are what they were."""
    run = repo[0]
    frame, log = run.series("loss"), run.series("log")

    assert (["loss", "Date"], "epoch", [0, 1], [0.1, 0.2]) == (
        list(frame),
        frame.index.name,
        list(frame.index),
        list(frame["loss"]),
    )
    assert "UTC" == str(frame["Date"].dt.tz) and abs((frame["Date"].iloc[0] - run.started).total_seconds()) < 60
    assert (["loss", "acc", "note", "Date"], [0, 1, 9]) == (list(log), list(log.index))
    assert math.isnan(log["acc"][9]) and 'a,b "c"' == log["note"][9]
    assert ([0.5, 0.5], [0, 1]) == (list(run.series("acc")["acc"]), list(run.series("log:acc").index))
    with pytest.raises(ArtifactMissing, match="has no series nope; it has log, loss"):
        run.series("nope")


@pytest.mark.parametrize("size", [1 << 20, 4096, 100])
def test_a_large_series_is_read_in_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they are cut: each row has its numbers and its time to the millisecond, over the end of a year too."""
    times = [1_798_761_500 + 0.377 * n for n in range(1000)]
    block = journal.Block("s", ("step", "loss"), times, (list(range(1000)), [n / 7 for n in range(1000)]))
    out = io.BytesIO()
    journal.write_csv([block], ["step", "loss"], out)
    table = out.getvalue()
    fields = {name: record.Summary(1000) for name in ("step", "loss")}
    run: Any = SimpleNamespace(series={"s": record.Series(1000, len(table), "0" * 64, None, fields)})
    cut = (table[n : n + size] for n in range(0, len(table), size))
    monkeypatch.setattr(tables, "pieces", lambda *_: cut)

    found = frames.of(None, run, "s")  # type: ignore[arg-type]

    assert [n / 7 for n in range(1000)] == list(found["loss"]) and list(range(1000)) == list(found.index)
    assert [int(t * 1000 + 0.5) for t in times] == [round(date.timestamp() * 1000) for date in found["Date"]]
    assert "2026-12-31 23:58:20+00:00" == str(found["Date"].iloc[0]) and 2027 == found["Date"].iloc[-1].year


@pytest.mark.parametrize(
    "damage", ["0,0.5\n", "0,0.5,2026-11-20_21:33:53.042Z\n", "0,0.5,2026-11-20T21:33:5x.042Z\n", ""]
)
def test_a_strange_table_is_read_line_by_line(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says what is wrong with it, or reads it all the same."""
    table = ("step,loss,Date\n" + damage).encode()
    fields = {name: record.Summary(1) for name in ("step", "loss")}
    run: Any = SimpleNamespace(series={"s": record.Series(1, len(table), "0" * 64, None, fields)})
    asked = []
    project: Any = SimpleNamespace(series=lambda *_: asked.append(1) or iter(()))
    monkeypatch.setattr(tables, "pieces", lambda *_: iter([table]))

    frames.of(project, run, "s")

    assert asked


def test_numbers_of_a_series_are_the_same_bits(empty: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way pandas reads them: NaN, infinity, the smallest, 17 digits; whole ones stay whole; live ones are the same."""
    script = """
import os, time, numb
for step, x in enumerate([0.1 + 0.2, 5e-324, 1e308 * 10, float("nan"), 2 / 3, -0.0, 1e-7]):
    numb.log(step=step, x=x, big=2**53 + 1)
open("ready", "w").close()
while not os.path.exists("go"): time.sleep(0.01)
"""
    furnish(empty, {"train.py": script})
    for name, value in empty.env.items():
        monkeypatch.setenv(name, value)
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.02; done; sleep 0.3")
    live = numb.open(empty.root)[-1].series()
    empty.write("go", "")
    process.communicate(timeout=60)
    kept = numb.open(empty.root)[-1].series()

    wanted = [0.1 + 0.2, 5e-324, math.inf, math.nan, 2 / 3, -0.0, 1e-7]
    assert repr(wanted) == repr(list(map(float, kept["x"]))) == repr(list(map(float, live["x"])))
    field = numb.open(empty.root)[-1].series("x")
    assert repr(wanted) == repr(list(map(float, field["x"]))), "NaN is a value, and no gap"
    assert {2**53 + 1} == set(kept["big"]) == set(live["big"]) and list(kept["Date"]) == list(live["Date"])


def test_runs_are_chosen_sorted_and_put_into_a_frame(repo: Project) -> None:
    """The expression of the command line; a frame has a row for each run, by its id."""
    some = repo.where("lr > 0.15").where("status = complete").sort("-results.acc")
    frame, whole = some.frame("lr", "results.acc"), repo.frame()

    assert [0.2, 0.4] == [run.params.lr for run in some] == list(frame["lr"]) and 2 == len(some)
    assert ([run.id for run in some], ["lr", "results.acc"]) == (list(frame.index), list(frame))
    assert [0.1, 0.2, 0.4] == list(whole["params.lr"]) and {
        "params.opt.name",
        "results.best.epoch",
        "series.loss.min",
    } <= set(whole)
    assert [0.4, 0.2, 0.1] == [run.params.lr for run in repo.sort("-lr")] and 0.4 == repo.sort("-lr")[0].params.lr
    for wrong in ("lr >", "lrr > 1"):
        with pytest.raises(Usage):
            len(repo.where(wrong))


def test_series_of_several_runs_are_melded(repo: Project) -> None:
    """AC-L8: a column for each label in that order, the rows of all, gaps where one has none; a wrong field is a KeyError."""
    first, second = repo[0], repo[1]
    frame = repo.meld({first: "a", second.id: "b"}, "loss.csv", "loss")

    assert (["a", "b"], [0, 1, 2], "epoch") == (list(frame), list(frame.index), frame.index.name)
    assert [[0.1, None], [0.2, 0.4], [None, pytest.approx(0.6)]] == [
        [None if math.isnan(x) else x for x in row] for row in frame.values
    ]
    for name, field in (("loss.csv", "nope"), ("nope.csv", "loss")):
        with pytest.raises(KeyError, match="has no"):
            repo.meld({first: "a"}, name, field)


def test_two_runs_are_compared(repo: Project) -> None:
    """What `numb diff` says of them."""
    found = repo[0].diff(repo[1])

    assert {"lr": (0.1, 0.2), "first": (0, 1)} == found.params and found == repo[0].diff(repo[1].id)
    assert {"acc": (0.9, 0.8), "best.epoch": (0, 1)} == found.results and "" == found.patch
    assert "lr" in repr(found) and repo[0].id in repr(found) and found and not repo[0].diff(repo[0])
    (Path(repo.home) / "train.py").write_text("changed\n")
    assert "+changed" in repo[0].diff().patch and "+changed" in repr(repo[0].diff())


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_what_a_notebook_shows_is_safe(repo: Project) -> None:
    """A run and a table of runs have a representation in HTML, in which nothing that was said does anything."""
    repo.remark(repo[0].record, message="<script>alert(1)</script><img src=x onerror=alert(2)>")
    for shown in (repo[0]._repr_html_(), repo._repr_html_(), repo.sort("lr")._repr_html_()):
        elements = Elements()
        elements.feed(shown)
        assert {"table", "tr", "td"} <= set(elements.tags) and not {"script", "img"} & set(elements.tags)
        assert set(elements.attributes) <= {"style", "class", "colspan"}
    assert repr(repo[0]).startswith(f"<run {repo[0].id} lr=0.1") and repo[1].id in repr(repo.sort("lr"))


def test_without_pandas_tables_are_lists(repo: Project, empty: Scene) -> None:
    """Of dictionaries; and nothing of pandas is imported by what does not need it."""
    program = """
import sys
sys.modules["pandas"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pandas" else find(name, *rest)
import numb, json
repo = numb.open(".")
print(json.dumps([
    [{k: v for k, v in row.items() if k != "Date"} for row in repo[0].series("loss")], repo.frame("lr")[0]["lr"],
    repo.meld({repo[0]: "a"}, "loss.csv", "loss"), repo[0].series("acc"), type(repo[0].series()[0]["Date"]).__name__,
]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=empty.root, env=empty.env, capture_output=True, text=True, check=True
    )
    rows, lr, melded, acc, date = json.loads(done.stdout)

    assert [{"epoch": 0, "loss": 0.1}, {"epoch": 1, "loss": 0.2}] == rows and (0.1, "datetime") == (lr, date)
    assert [{"epoch": 0, "a": 0.1}, {"epoch": 1, "a": 0.2}] == melded and [
        {"step": 0, "acc": 0.5},
        {"step": 1, "acc": 0.5},
    ] == acc


def test_the_notebook_of_the_examples_works(empty: Scene) -> None:
    """Executed as Jupyter does it: three runs are recorded, found again, drawn, loaded and compared."""
    for needed in ("nbformat", "nbclient", "ipykernel", "sklearn", "matplotlib"):
        pytest.importorskip(needed)
    shutil.copytree(Path(__file__).parent.parent / "examples" / "notebook", empty.root, dirs_exist_ok=True)
    empty.sh("git add -A && git commit -qm first && numb init")
    program = """
import nbclient, nbformat
notebook = nbformat.read("digits.ipynb", 4)
nbclient.NotebookClient(notebook, timeout=300).execute()
nbformat.write(notebook, "executed.ipynb")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=empty.root, env=empty.env, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stderr
    executed = json.loads(empty.read("executed.ipynb"))
    shown = [set(output.get("data", {})) for cell in executed["cells"] for output in cell.get("outputs", ())]

    assert [0.3, 0.1, 0.03] == [run["params"]["lr"] for run in empty.runs()]
    assert all(run["weights"] and run["series"]["log"]["rows"] == 30 for run in empty.runs())
    assert ["rates"] == empty.runs()[0]["tags"] and 3 == sum("text/html" in each for each in shown)
    assert any("image/png" in each for each in shown)
