"""What is promised of charts: every point that matters is in them, whatever a script has logged, and wherever they are shown."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Scene
from hypothesis import given
from hypothesis import strategies as st

from numb import journal
from numb.errors import NotPossible
from numb.project import Project
from numb.view import plot
from numb.view.plot import Axis, Curve, Panel
from numb.view.points import Thinned, smooth, thinned

nan, inf = math.nan, math.inf
HOSTILE = "<script>alert(1)</script> $\\frac{$ & \x1b[31m\n\ud800\x00" + "x" * 5000

# A script without torch that learns as well as its lr is large; text, NaN and what is logged now and then are among its numbers.
SCRIPT = """
import math, os, time
import numb
from numb import numb_param, numb_queue, numb_trial_result
lr, opt, seed = 0.1, "sgd", 1
numb_queue()
numb_param({"lr": lr, "opt": opt, "seed": seed})
val = numb.series("val", ["epoch", "loss", "acc"])
for step in range(6):
    numb.log(step=step, loss=math.nan if step == 3 else 2.0 ** -step * lr, note="text")
    if step % 2:
        numb.log(step=step, acc=step / 10)
        val(epoch=step // 2, loss=1.0, acc=step / 10)
numb_trial_result({"acc": lr, "best": {"epoch": 2}, "loss": math.nan if opt == "adam" else 1 - lr})
"""


def texts(svg: str) -> list[str]:
    """What can be read in a picture."""
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("}text")]


def same(one: Any, other: Any) -> bool:
    return repr(list(one)) == repr(list(other))


# -- points


@pytest.mark.parametrize(
    ("values", "window", "expected"),
    [
        ([1, 2, 3, 4], 1, [1.0, 2.0, 3.0, 4.0]), ([1, 2, 3, 4, 5], 2, [1.0, 1.5, 2.5, 3.5, 4.5]),
        ([1, 2, 3], 100, [1.0, 1.5, 2.0]), ([], 3, []), ([2, nan, 4, inf, 6, None, "x"], 2, [2.0, nan, 4.0, nan, 6.0, nan, nan]),
        ([2, nan, 4, 6], 3, [2.0, nan, 3.0, 5.0]), ([1e20, 1, 1, 1], 2, [1e20, 5e19, 1.0, 1.0]), ([10**400, 1], 2, [nan, 1.0]),
    ],
)  # fmt: skip
def test_a_mean_is_of_the_last_rows(values: list[Any], window: int, expected: list[float]) -> None:
    """Fewer at the beginning; what is no number counts in none and is a gap, and a large one leaves no error behind."""
    assert same(expected, smooth(values, window))


@given(st.lists(st.one_of(st.integers(-9, 9).map(float), st.just(nan)), max_size=60), st.integers(1, 20))
def test_a_mean_is_what_the_definition_says(values: list[float], window: int) -> None:
    """However the windows lie."""
    found = list(smooth(values, window))
    for place, value in enumerate(values):
        last = [each for each in values[max(0, place + 1 - window) : place + 1] if each == each]
        assert found[place] == pytest.approx(sum(last) / len(last)) if value == value else math.isnan(found[place])


def test_a_long_curve_keeps_its_peaks_and_its_gap() -> None:
    """However many rows there are, few points are held, in their order, and the highest, the lowest and a wide gap stay."""
    points, most_held, row = Thinned(50), 0, 0
    values = [math.sin(row / 1000) for row in range(100_000)]
    values[20_000:30_000] = [nan] * 10_000
    values[54_321], values[77_777] = 9.0, -9.0
    while row < 100_000:  # blocks of any length
        part = slice(row, row + 1 + row % 977)
        points.add(range(100_000)[part], values[part])
        most_held, row = max(most_held, len(points._buckets)), part.stop
    x, y = points.points()

    assert (True, True) == (len(x) <= 200, most_held < 100) and isinstance(x, array)
    assert list(x) == sorted(x) and x[0] < 2000 and x[-1] > 98_000
    assert [54_321.0, 77_777.0] == [x[list(y).index(9.0)], x[list(y).index(-9.0)]]
    gap = [at for at, value in zip(x, y, strict=True) if value != value]
    assert gap and all(20_000 <= at < 30_000 for at in gap)
    short = ([1.0, 2.0], [3.0, nan])
    assert short == thinned(*short)


# -- pictures


def test_a_picture_is_the_same_each_time_and_runs_nothing() -> None:
    """SVG that a browser may show: no script in it, no formula, names cut and on one line, and nothing from outside."""
    curves = [Curve(HOSTILE, [1, 2, 3], [1, nan, 3])] * 2
    one, again = (plot.svg(plot.curves_figure(curves, title=HOSTILE, x_label=HOSTILE)) for _ in range(2))

    kinds = {each.tag.partition("}")[2] for each in ElementTree.fromstring(one).iter()}
    assert one == again and "script" not in {each.lower() for each in kinds}
    assert {"<script>alert(1)</script> $\\frac{$ & \\x1b[31m\\n\\ud800\\x00xx…"} == {
        t for t in texts(one) if "frac" in t
    }
    assert 'href="http' not in one and "<script" not in one and len(one) < 60_000


def test_what_the_user_has_set_for_matplotlib_stays_out(tmp_path: Path) -> None:
    """Neither a matplotlibrc nor settings of a script change a chart, nor does a chart change them; pyplot is not loaded."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\nfont.size: 40\nsvg.fonttype: path\n")
    program = """
import sys, matplotlib
from numb.view import plot
before = dict(matplotlib.rcParams)
text = plot.svg(plot.curves_figure([plot.Curve("a", [1, 2], [1, 2])]))
picture = plot.png(plot.scatter_figure(plot.Axis("lr", [1, 2]), plot.Axis("acc", [1, 2])))
assert picture.startswith(b"\\x89PNG") and before == dict(matplotlib.rcParams)
assert "matplotlib.pyplot" not in sys.modules, "pyplot"
print(text)
"""
    env = {**os.environ, "MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": str(Path(plot.__file__).parents[2])}
    env.pop("DISPLAY", None)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)

    assert "" == done.stderr
    assert plot.svg(plot.curves_figure([Curve("a", [1, 2], [1, 2])])) == done.stdout[:-1]


def test_without_matplotlib_there_is_a_command_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no traceback."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NotPossible, match="matplotlib") as raised:
        plot.curves_figure([])
    assert "pip install 'numb[plot]'" == raised.value.hint


def test_frames_share_colours_and_names() -> None:
    """One frame below the other, the names of the curves once, and where there are too many of them the first ones."""
    many = [Curve(f"run {n}", [1, 2], [n, 1]) for n in range(30)]
    figure = plot.panels_figure([Panel(many[:1], "one", "step"), Panel(many, "two", "row", log=True)])
    shown = texts(plot.svg(figure))

    assert ["linear", "log"] == [axes.get_yscale() for axes in figure.axes]
    assert [1, 30] == [sum(bool(len(line.get_xdata())) for line in axes.get_lines()) for axes in figure.axes]
    assert 0 == figure.axes[1].get_lines()[0].get_ydata()[:1].size or math.isnan(
        figure.axes[1].get_lines()[0].get_ydata()[0]
    )
    assert [f"run {n}" for n in range(20)] + ["and 10 more"] == [t for t in shown if t.startswith(("run", "and"))]


def test_parallel_coordinates_have_scales_that_fit() -> None:
    """Numbers that span decades on a logarithmic scale, others on a plain one, words by their names; ticks at what was tried."""
    axes = [
        Axis("lr", [1e-4, 1e-2, 1e-1]), Axis("opt", ["sgd", "adam", None]), Axis("width", [8, 16, 24]), Axis("on", [True, False, True]),
        Axis("results.acc", [0.1, 0.5, 0.9], log=False),
    ]  # fmt: skip
    figure = plot.parallel_figure(axes)
    shown = texts(plot.svg(figure))
    host, *upright = figure.axes
    (lines,) = host.collections

    assert ["log", "linear", "linear", "linear", "linear"] == [each.get_yscale() for each in upright]
    names = "lr opt width on results.acc 0.0001 0.01 0.1 sgd adam 8 16 24 True False"
    assert set(names.split()) <= set(shown)
    assert [0.0, 0.5, 1.0] == [round(each, 9) for each in lines.get_array()]
    assert ["0.1", "0.5", "0.9"] != [t.get_text() for t in upright[-1].get_yticklabels()], (
        "a result has ticks of its own"
    )
    assert [False, False, True] == [bool(math.isnan(each.vertices.sum())) for each in lines.get_paths()]


# -- text


def test_a_chart_in_a_terminal() -> None:
    """As it stands there, with nothing but ASCII; a gap is one, and each curve has a sign where no colour tells them apart."""
    curves = [
        Curve("falls", range(9), [9, 8, 7, nan, nan, 7, 6, 5, 4]),
        Curve("rises", range(9), [0, 0, 1, 1, 2, 2, 3, 3, 3]),
    ]
    text = plot.curves_text(curves, 40, 14, title="loss", x_label="step", ascii=True)

    assert EXPECTED == "\n" + text + "\n"
    coloured = plot.curves_text(curves, 40, 12, color=True)
    assert "\x1b[38;5;12m" in coloured and "\x1b[38;5;10m" in coloured and "*" not in coloured
    assert "\x1b" not in plot.curves_text(curves, 40, 12)
    several = [Curve(str(n), [1, 2], [n, n]) for n in range(8)]
    legend = re.sub(r"\x1b\[[\d;]*m", "", plot.curves_text(several, 40, 30, color=True)).splitlines()[-8:]
    assert [*(f"━ {n}" for n in range(6)), "% 6", "& 7"] == legend


EXPECTED = """
                   loss
   +-----------------------------------+
9.0|***                                |
   |   *******           *             |
6.8|                      *******      |
4.5|                             ******|
2.2|                      +++++++++++++|
   |        ++++++++++++++             |
0.0|++++++++                           |
   ++--------+-------+-------+--------++
    0        2       4       6        8
                   step
* falls
+ rises
"""

ODD: dict[str, list[Curve]] = {
    "nothing": [], "no points": [Curve("a", [], [])], "gaps": [Curve("a", [1, 2], [nan, inf])], "one": [Curve("a", [1], [5])],
    "constant": [Curve("a", [1, 2, 3], [5, 5, 5])], "huge": [Curve("a", [1, 2, 3], [1e299, -1e299, 1e308])],
    "tiny": [Curve("a", [1, 2, 3], [1e-320, 1e-310, 0])], "below 0": [Curve("a", [1, 2], [-1, -2])],
    "anything": [Curve("a", [1, 2, None, 4], [None, "x", 3, True])], "long": [Curve("a", [10**400, 2**70, 3], [1, 2, 3])],  # type: ignore[list-item]
    "one x": [Curve("a", [1, 1, 1], [1, 2, 3])], "hostile": [Curve(HOSTILE, [1, 2, 3], [1, 2, 3])] * 3,
    "whole": [Curve("a", array("q", [1, 2, 3]), array("q", [4, 5, 6]))], "many": [Curve(f"r{k}", [1, 2], [k, 2 * k]) for k in range(60)],
}  # fmt: skip


@pytest.mark.parametrize("case", ODD, ids=str)
def test_whatever_was_logged_is_drawn_in_a_terminal(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In any size and on either scale, within its lines and columns, and nothing is said about it."""
    for log in (False, True):
        for width, height in ((80, 24), (20, 6), (3, 2), (0, 0)):
            for ascii in (False, True):
                text = plot.curves_text(ODD[case], width, height, title=HOSTILE, x_label="·", log=log, ascii=ascii)
                lines = text.split("\n")
                assert all(len(line) <= max(1, width) and line.isprintable() for line in lines)
                assert len(lines) <= max(4, height) and (not ascii or all(map(str.isascii, lines)))
    assert ("", "") == capfd.readouterr()


def test_whatever_was_logged_is_drawn_as_a_picture(capfd: pytest.CaptureFixture[str]) -> None:
    """On the scale that takes least, and nothing is said about it."""
    panels = [Panel(curves, name, "step", log=name != "huge") for name, curves in ODD.items()]
    shown = texts(plot.svg(plot.panels_figure(panels)))
    assert set(ODD) <= set(shown) and ("", "") == capfd.readouterr()


ANYTHING: list[list[Any]] = [
    [], [None], [nan], [inf, 1], [True, False], [1, 1, 1], [1e-4, 1e-3, 1], list(range(100)), [f"x{k}" for k in range(60)],
    [10**400, 3], [{1: 2}, [], (), HOSTILE],
]  # fmt: skip


@pytest.mark.parametrize("values", ANYTHING, ids=lambda values: str(values)[:20])
def test_whatever_a_hyperparameter_is_stands_in_a_terminal(values: list[Any]) -> None:
    """Against a result."""
    result = Axis("results.acc", [float(n) for n in range(len(values))], log=False)
    drawn = plot.scatter_text(Axis("lr", values), result, 40, 10, ascii=True)
    assert drawn.isascii() and all(len(line) <= 40 for line in drawn.splitlines())


def test_whatever_a_hyperparameter_is_stands_in_a_picture() -> None:
    """All of them beside each other, and one against a result."""
    axes = [Axis(f"axis {n}", [*values, *[None] * 100][:100]) for n, values in enumerate(ANYTHING)]
    result = Axis("acc", [float(n) for n in range(100)], log=True)
    shown = texts(plot.svg(plot.parallel_figure([*axes, result])))

    assert {axis.name for axis in axes} | {"acc", "True", "x0", "0.001", "{1: 2}", "[]"} <= set(shown)
    for axis in (axes[0], axes[-1]):
        assert {axis.name, "acc"} <= set(texts(plot.svg(plot.scatter_figure(axis, result))))


# -- the command


@pytest.fixture
def runs(empty: Scene) -> Scene:
    """A project with three runs, which differ in two hyperparameters."""

    def train() -> None:
        empty.write("train.py", SCRIPT)
        empty.numb("init")
        for words in ("lr=0.1", "lr=0.01 opt=adam", "lr=0.001"):
            assert 0 == empty.numb(f"train {words}").code

    empty.once(["plotted", SCRIPT], train)
    return empty


def points(scene: Scene, words: str) -> list[dict[str, Any]]:
    done = scene.numb(f"plot {words} --json")
    assert 0 == done.code, done.stderr
    return json.loads(done.stdout)


def test_plot_shows_the_newest_run(runs: Scene) -> None:
    """Without a word: its losses first, each in a frame, over the step, in 80 columns and without colour into a pipe."""
    done = runs.numb("plot")
    newest = runs.runs()[-1]["id"]
    frames = points(runs, "")

    assert (0, "") == (done.code, done.stderr) and "\x1b" not in done.stdout
    assert [f"loss of {newest}", f"acc of {newest}"] == [frame["title"] for frame in frames]
    assert [f"loss of {newest}", f"acc of {newest}"] == [
        line.strip() for line in done.stdout.splitlines() if " of " in line
    ]
    assert 80 == max(map(len, done.stdout.splitlines())) and 24 == len(done.stdout.splitlines())
    assert ["step", "step"] == [frame["x"] for frame in frames]
    assert [[0, 1, 2, 3, 4, 5], [1, 3, 5]] == [frame["curves"][0]["x"] for frame in frames]
    assert [0.001, 0.0005, 0.00025, {"$float": "nan"}, 6.25e-05, 3.125e-05] == frames[0]["curves"][0]["y"]


def test_plot_lays_runs_over_each_other(runs: Scene) -> None:
    """By their last letters and what differs; several fields into one frame, of any series; smoothed, and without what has no log."""
    first, second, third = (run["id"][-4:] for run in runs.runs())
    [frame] = points(runs, "@-2 @-1 @ --series loss")
    [smoothed] = points(runs, "@-2 --series loss --smooth 2 --log")
    [both] = points(runs, "@-2 @ --series val:loss,acc")
    [mixed] = points(runs, "@ --series val.loss --x acc")

    assert [f"{first} lr=0.1 opt=sgd", f"{second} lr=0.01 opt=adam", f"{third} lr=0.001 opt=sgd"] == [
        curve["label"] for curve in frame["curves"]
    ]
    assert ("loss", "step") == (frame["title"], frame["x"])
    assert [
        0.1,
        0.07500000000000001,
        0.037500000000000006,
        {"$float": "nan"},
        0.00625,
        0.004687500000000001,
    ] == smoothed["curves"][0]["y"]
    assert [("val:loss", 3), ("acc", 3)] * 2 == [(curve["field"], len(curve["x"])) for curve in both["curves"]]
    assert f"{first} lr=0.1 val:loss" == both["curves"][0]["label"] and "epoch, step" == both["x"]
    assert [0.1, 0.3, 0.5] == mixed["curves"][0]["x"]
    assert [0, 1, 2] == points(runs, "--series val:acc --x row")[0]["curves"][0]["x"]
    seconds = points(runs, "--series val:acc --x elapsed")[0]
    assert "seconds" == seconds["x"] and seconds["curves"][0]["x"] == sorted(seconds["curves"][0]["x"])
    text = runs.numb(
        "plot @ @-1 --series loss --log", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ).stdout
    assert text.isascii() and f"+ {second} lr=0.01 opt=adam" in text.splitlines()


def test_a_terminal_has_colours_and_its_own_width(runs: Scene) -> None:
    """In a real one, however narrow; without colour where that is not wanted."""
    command = f"stty cols 30 rows 16; {sys.executable} -m numb plot @ @-1 --series loss"
    shown = runs.sh(f"script -qec '{command}' /dev/null | tr -d '\\r'")
    plain = runs.sh(f"NO_COLOR=1 script -qec '{command}' /dev/null | tr -d '\\r'")
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in shown.splitlines()]

    assert "\x1b[38;5;12m" in shown and "\x1b" not in plain
    assert 30 == max(map(len, lines)) == max(map(len, plain.splitlines()))
    assert [14, 14] == [len(lines), len(plain.splitlines())]


def test_plot_draws_files(runs: Scene) -> None:
    """PNG and SVG, also where there was one; nothing else, and nothing where the name is wrong."""
    runs.write("loss.svg", "an earlier one")
    done = runs.numb("plot @ @-1 --series loss --into loss.svg")
    picture = runs.numb("plot --into loss.png")
    wrong = runs.numb("plot --into loss.gif")

    assert (0, "loss.svg\n", "") == (done.code, done.stdout, done.stderr)
    assert "loss" in texts(runs.read("loss.svg")) and (runs.root / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "loss.png\n" == picture.stdout and "numb plot --into loss.svg" in wrong.stderr
    assert (2, False) == (wrong.code, (runs.root / "loss.gif").exists())
    assert {"loss.svg", "loss.png"} == {path.name for path in runs.root.glob("loss*")}


def test_plot_sets_results_against_hyperparameters(runs: Scene) -> None:
    """A bare name is a hyperparameter before it is a result; runs without a number are counted, not drawn."""
    ids = [run["id"] for run in runs.runs()]
    scatter = points(runs, "--scatter lr results.acc")
    nested = points(runs, "--scatter opt best.epoch @-1 @")
    parallel = runs.numb("plot --parallel results.loss --json")
    drawn = runs.numb("plot --parallel acc --into all.svg")
    terminal = runs.numb("plot --parallel acc")

    assert [(ids[0], {"lr": 0.1, "results.acc": 0.1}), (ids[1], {"lr": 0.01, "results.acc": 0.01})] == [
        (each["run"], each["values"]) for each in scatter[:2]
    ]
    assert [{"opt": "adam", "best.epoch": 2}, {"opt": "sgd", "best.epoch": 2}] == [each["values"] for each in nested]
    assert [{"lr": 0.1, "results.loss": 0.9}, {"lr": 0.001, "results.loss": 0.999}] == [
        each["values"] for each in json.loads(parallel.stdout)
    ]
    assert "numb: 1 of 3 runs have no number as results.loss\n" == parallel.stderr
    assert 0 == drawn.code and {"lr", "opt", "acc", "sgd", "adam"} <= set(texts(runs.read("all.svg")))
    assert (2, "") == (terminal.code, terminal.stdout) and "--into parallel.svg" in terminal.stderr
    assert "●" in runs.numb("plot --scatter lr results.acc").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--series los", 1, "there is no los; ID has step, loss, note, acc, val:epoch, val:loss, val:acc"),
        ("--series loss --x nope", 1, "log of ID has no nope; it has step, loss, note, acc"),
        ("--series note", 1, "there are no numbers of note"), ("--smooth 0", 2, "--smooth"), ("nope", 1, "there is no run nope"),
        ("--scatter nope acc", 2, "no run has nope"), ("--where 'lr > 7'", 1, "there is no run for which lr > 7 holds"),
        ("@ --where 'lr < 7'", 2, "exclude each other"),
        ("--scatter lr opt", 1, "opt is a number in no run"), ("--parallel acc @", 1, "no hyperparameter that differs"),
        ("--parallel acc --series loss", 2, "exclude"), ("--json --into a.svg", 2, "exclude"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(runs: Scene, words: str, code: int, said: str) -> None:
    """With the names that there are."""
    done = runs.numb(f"plot {words}")
    assert (code, "") == (done.code, done.stdout) and "Traceback" not in done.stderr
    assert said.replace("ID", runs.runs()[-1]["id"]) in done.stderr


def test_a_run_in_flight_is_drawn_as_far_as_it_is(empty: Scene) -> None:
    """What it has logged by now; before that, that there is nothing yet."""
    empty.write(
        "train.py",
        SCRIPT.replace(
            "    if step % 2:",
            "    if step == 2:\n        open('ready', 'w').close()\n        while not os.path.exists('go'): time.sleep(0.01)\n    if step % 2:",
        ),
    )
    empty.numb("init")
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.05; done")
    now: list[Any] = []
    while not now or len(now[0]["curves"][0]["x"]) < 3:  # rows come within a tenth of a second
        done = empty.numb("plot --series loss --json")
        now = json.loads(done.stdout or "[]")
    live = empty.numb("plot")
    empty.write("go", "")
    process.communicate(timeout=60)

    assert [0, 1, 2] == now[0]["curves"][0]["x"] and 0 == live.code and "loss of" in live.stdout
    assert 6 == len(points(empty, "--series loss")[0]["curves"][0]["x"])


def test_rows_are_read_as_they_come(runs: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series is read once for all of its fields, block by block, and no more of it is held than can be drawn."""
    project, read = Project.open(runs.root), []

    def blocks(run: Any, name: str) -> Iterator[journal.Block]:
        for start in range(0, 50_000, 1000):
            read.append(start)
            steps = array("q", range(start, start + 1000))
            yield journal.Block("log", ("step", "loss"), steps, (steps, array("d", [1.0] * 999 + [float(start)])))

    monkeypatch.setattr(project, "series", blocks)
    [panel] = project.curves(["@"], ["loss,step"]).panels
    loss, step = panel.curves

    assert list(range(0, 50_000, 1000)) == read
    assert len(loss.x) <= 2400 and 49_999.0 in loss.x and 49_000.0 == max(loss.y)
    assert 49_999.0 == max(step.y)
