"""What is promised of `numb watch`: how a run stands is seen while it goes on, in any terminal, and nothing is done to it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Scene
from kit import sealed_here

from numb import watching
from numb.journal import Block
from numb.project import Project
from numb.record import Summary
from numb.view import watch as view
from numb.watching import Progress

HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]x"

# Eight steps, held after the third until somebody says go; what a run is called says which one is meant.
SCRIPT = """
import math, os, sys, time
import numb
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
name = sys.argv[1] if len(sys.argv) > 1 else "one"
numb.numb_param({"steps": 8, "evil": "\\x1b]0;owned\\x07\\x1b[2J[red]x", "lr": 0.1})
for step in range(8):
    numb.log(step=step, loss=1 / (step + 1), acc=0.5 if step == 1 else math.nan)
    print(f"\\x1b]0;owned\\x07\\x1b[2J[red]line {step} of {name}", flush=True)
    if step == 2:
        wait_for(os.environ["NUMB_RUN_DIR"] + "/series")
        wait_for(os.environ["NUMB_RUN_DIR"] + "/observed")
        open(f"ready {name}", "w").close()
        wait_for(f"go {name}")
"""


class Terminal:
    """A terminal of so many columns and lines in which a command runs."""

    def __init__(self, scene: Scene, *words: str, columns: int = 100, lines: int = 30, **env: str) -> None:
        self.ours, theirs = pty.openpty()
        self.raw = b""  # the pictures that are whole
        self._said = b""
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "numb", *words],
            cwd=scene.root,
            env={**scene.env, "TERM": "xterm-256color", **env},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def until(self, *texts: str, count: int = 1) -> list[str]:
        """Read until so many pictures in a row have all of the *texts*; returns the lines of the last one."""
        found = 0
        while found < count:
            assert select.select([self.ours], [], [], 60)[0], self.shown
            self._said += os.read(self.ours, 1 << 16)
            pictures = self._said.split(b"\x1b[H")
            whole = pictures[1:-1]
            self._said = b"\x1b[H".join([b"", pictures[-1]]) if whole else self._said
            self.raw += b"".join(whole)
            for picture in whole:
                lines = plain(picture).split("\n")
                found = found + 1 if all(any(text in line for line in lines) for text in texts) else 0
        return lines

    @property
    def shown(self) -> str:
        return plain(self._said)

    def end(self) -> tuple[int, str]:
        """Wait for the end; returns the code and the last words."""
        while select.select([self.ours], [], [], 60)[0]:
            try:
                self._said += os.read(self.ours, 1 << 16)
            except OSError:
                break
        return self.process.wait(20), plain(self._said.rpartition(b"\x1b[?1049l")[2])


def plain(said: bytes) -> str:
    """What remains when the terminal has obeyed; what rich itself says is cursor, colours and the other screen."""
    text = said.decode().replace("\r\n", "\n")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def terminal(empty: Scene) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals of the scene, and closes them."""
    opened: list[Terminal] = []

    def opening(*words: str, **how: Any) -> Terminal:
        opened.append(Terminal(empty, *words, **how))
        return opened[-1]

    yield opening
    for each in opened:
        each.process.kill()
        each.process.wait()
        os.close(each.ours)


@contextmanager
def running(scene: Scene, *names: str) -> Iterator[Mapping[str, subprocess.Popen[bytes]]]:
    """Trainings of these names that wait after their third step, and go on at the end."""
    scene.write("train.py", SCRIPT)
    scene.write("nmb.json", json.dumps({"train": {"command": "python train.py"}, "metrics": 0.1}))
    if not (scene.root / ".nmb").exists():
        scene.numb("init")
    started = {name: scene.start("train", "--again", "-m", f"it is {name}", "--", name) for name in names}
    for name in names:
        scene.sh(f"until [ -e 'ready {name}' ]; do sleep 0.02; done")
    try:
        yield started
    finally:
        for name, process in started.items():
            scene.write(f"go {name}", "")
            process.communicate(timeout=60)


def test_a_run_is_watched_to_its_end(empty: Scene, terminal: Callable[..., Terminal]) -> None:
    """Header, progress, values with the best, machine, hyperparameters, curves, log; then one line, on the screen of before."""
    with running(empty, "one"):
        shown = terminal("watch")
        picture = shown.until("step 3/8", "line 2 of one", "cpu")
        empty.write("go one", "")
        code, words = shown.end()
    [run] = empty.runs()

    assert picture[0].startswith(f"{run['id']}  running  0:0") and picture[0].rstrip().endswith("it is one")
    assert re.match(r"step 3/8 .*38 %  0:0\d:\d\d left", picture[1])
    assert "loss 0.333333 (best 0.333333 at 2)   acc nan (best 0.5 at 1)" == picture[2].rstrip()
    assert re.match(r"cpu \d+ %  memory \d+ MB of \d+\.\d GB used", picture[3])
    assert r"steps=8 evil=\x1b]0;owned\x07\x1b[2J… lr=0.1" == picture[4].rstrip()
    assert re.search(r"^ +loss +acc +$", picture[5]) and any("┤" in line and "⠑" in line for line in picture)
    assert ["[red]line 0 of one", "[red]line 1 of one", "[red]line 2 of one"] == [
        each.strip() for each in picture[-4:-1]
    ]
    assert (0, f"{run['id']}  complete ") == (code, words.lstrip()[:31]) and "step 8/8  loss 0.125" in words
    assert b"\x1b]" not in shown.raw and b"\x1b[2J" not in shown.raw


def test_several_runs_stand_beside_each_other_where_there_is_room(
    empty: Scene, terminal: Callable[..., Terminal]
) -> None:
    """And below each other where there is none: the window may change its size; a run that has ended stays until all have."""
    with running(empty, "one", "two"):
        shown = terminal("watch", columns=100, lines=40)
        wide = shown.until("line 2 of one", "line 2 of two")
        shown.resize(40, 24)
        narrow = shown.until("line 2 of one", "line 2 of two", count=2)
        empty.write("go one", "")
        ended = shown.until("complete", "running")
        empty.write("go two", "")
        code, words = shown.end()

    assert 2 == wide[0].count("running") and 2 == wide[1].count("step 3/8")
    assert [1, 1] == [line.count("running") for line in narrow if "running" in line]
    assert 40 >= max(map(len, narrow)) and 24 >= len(narrow)
    assert any("step 8/8" in line for line in ended)
    assert 0 == code and 2 == words.count("complete")


def test_ctrl_c_leaves_it_and_the_run_goes_on(empty: Scene, terminal: Callable[..., Terminal]) -> None:
    """With 130, and the screen as it was before."""
    with running(empty, "one") as started:
        shown = terminal("watch")
        shown.until("step 3/8")
        shown.type(b"\x03")
        code, words = shown.end()
        assert (130, "", None) == (code, words.replace("^C", "").strip(), started["one"].poll())
    assert ["complete"] == [run["status"] for run in empty.runs()]


def test_no_colour_and_no_character_that_a_terminal_cannot_show(
    empty: Scene, terminal: Callable[..., Terminal]
) -> None:
    """NO_COLOR is honoured, ASCII is enough, and a few lines are, too."""
    with running(empty, "one"):
        shown = terminal("watch", NO_COLOR="1", PYTHONIOENCODING="ascii", columns=60, lines=24)
        picture = shown.until("step 3/8", "line 2 of one")
        shown.resize(20, 4)
        small = shown.until("step 3/8")
        while len(small) > 4:
            small = shown.until("step 3/8")
        shown.type(b"\x03")
        shown.end()

    assert shown.raw.isascii() and not re.search(rb"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])[0-9;]*m", shown.raw)
    assert any("loss" in line for line in picture) and any("+--" in line and "*" not in line for line in picture)
    assert 20 >= max(map(len, small))


def test_without_a_terminal_it_is_shown_once(empty: Scene, terminal: Callable[..., Terminal]) -> None:
    """As lines, or as JSON with all that is known; of a run that has ended what there is to know; an unknown one is an error."""
    with running(empty, "one"):
        lines = empty.numb("watch").stdout.splitlines()
        [now] = json.loads(empty.numb("watch --json").stdout)
    [then] = json.loads(empty.numb("watch @ --json").stdout)
    shown = terminal("watch", now["id"])

    assert lines[0].startswith(f"{now['id']}  running  0:0") and re.match(r"step 3/8  38 %  0:0\d:\d\d left", lines[1])
    assert "| [red]line 2 of one" == lines[-1] and "\x1b" not in "".join(lines)
    assert ("running", "new", None, "it is one") == (now["status"], now["began"], now["queue"], now["message"])
    assert {"field": "step", "value": 2, "done": 3, "total": 8.0, "percent": 37.5} == {
        name: value for name, value in now["progress"].items() if name != "seconds_left"
    }
    assert now["progress"]["seconds_left"] >= 0 and {"steps": 8, "evil": HOSTILE, "lr": 0.1} == now["params"]
    assert {"value": {"$float": "nan"}, "lowest": 0.5, "lowest_at": 1, "highest": 0.5, "highest_at": 1} == now["last"][
        "acc"
    ]
    assert now["system"]["memory"] > 0 and [] == now["errors"]
    assert ("complete", 100.0, None, {}) == (
        then["status"], then["progress"]["percent"], then["progress"]["seconds_left"], then["system"],
    )  # fmt: skip
    assert then["last"]["loss"]["value"] == 0.125 and then["log"][-1] == "[red]line 7 of one"
    assert (0, f"{now['id']}  complete ") == (shown.end()[0], shown.shown.lstrip()[:31])
    assert 1 == empty.numb("watch nothing").code


def test_a_status_has_a_line_for_each_fact(empty: Scene) -> None:
    """P09: state, progress, time left, how it began, what went wrong; of one that failed why."""
    with running(empty, "one"):
        lines = dict(line.split(maxsplit=1) for line in empty.numb("status").stdout.splitlines())
        [now] = json.loads(empty.numb("status --json").stdout)
    failed = empty.numb("train", "--stop-on", "loss<0.3", "--again", "--", "one")
    after = empty.numb("status").stdout

    assert (now["id"], "running", "new") == (lines["run"].split()[0], lines["status"], lines["began"])
    assert re.match(r"step 3/8  38 %  0:0\d:\d\d left", lines["progress"]) and "loss 0.333333" in lines["last"]
    assert re.search(r"^status +failed: loss 0.25 < 0.3 at step 3$", after, re.MULTILINE), (failed, after)
    assert 1 == empty.numb("status nothing").code


def test_a_run_whose_launcher_dies_ends_as_lost(empty: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who watches sees it: the run is put on the branch, with what had come."""
    monkeypatch.setattr(watching, "_ALIVE", 0.0)
    with sealed_here(empty), running(empty, "one") as started:
        [watched] = Project.open(empty.root).watched()
        assert watched.look().is_live
        os.kill(started["one"].pid, signal.SIGKILL)
        started["one"].wait()
        empty.write("go one", "")
        while not watched.has_ended:
            state = watched.look()

    assert state.run.commit is not None and state.run.status in ("lost", "killed") and not state.is_live
    assert 1 / 3 >= state.last["loss"].lowest  # type: ignore[operator]


def rows(*steps: float, name: str = "step", begin: float = 1000.0, **others: Any) -> Block:
    """A row each second."""
    columns = {name: list(steps), **{other: [value] * len(steps) for other, value in others.items()}}
    return Block("log", tuple(columns), [begin + place for place in range(len(steps))], tuple(columns.values()))


@pytest.mark.parametrize(
    ("block", "params", "expected"),
    [
        (rows(0, 1, 2), {"steps": 10}, Progress("step", 2, 3, 10, 1.0, 6.0)),
        (rows(1, 2, 3), {"opt": {"max_steps": 10}}, Progress("step", 3, 3, 10, 1.0, 6.0)),
        (rows(10, 20, 30), {"n_steps": 100}, Progress("step", 30, 30, 100, 0.1, 6.0)),
        (rows(1, 2, name="epoch"), {"num_epochs": 4}, Progress("epoch", 2, 2, 4, 1.0, 1.0)),
        (rows(5, 6, epoch=1), {"epochs": 2}, Progress("epoch", 1, 1, 2, None, None)),
        (rows(0, 1, 2), {"epochs": 10}, Progress("step", 2, 3, None, 1.0, None)),
        (rows(0, 1, 2), {"steps": 2}, Progress("step", 2, 3, 2, 1.0, 0.0)),
        (rows(7), {"steps": 10, "step": 3}, Progress("step", 7, 7, 10, None, None)),
        (rows(float("nan")), {"steps": 10}, Progress()),
        (rows(1, name="loss"), {"steps": 10}, Progress()),
    ],
)
def test_how_far_a_run_is(block: Block, params: Mapping[str, Any], expected: Progress) -> None:
    """By what it counts and the hyperparameter that says how many there are; where nothing says so, that is not known."""
    numbers = watching._Numbers(began=0.0)
    numbers.add([block])
    assert expected == numbers.progress(params, 1000.0 + len(block.times))


def test_what_a_resumed_run_took_before_says_nothing_of_its_pace() -> None:
    """The time between its parts is not the training's."""
    numbers = watching._Numbers(began=5000.0)
    numbers.add([rows(0, 1, 2), rows(3, 4, begin=5000.0)])
    assert Progress("step", 4, 5, 9, 1.0, 4.0) == numbers.progress({"steps": 9}, 5001.0)


def test_a_curve_of_any_length_has_so_many_points() -> None:
    """Its first one and its last one among them; losses are together, and what is no number is left out."""
    numbers = watching._Numbers(began=0.0)
    for begin in range(0, 100_000, 1000):
        steps = range(begin, begin + 1000)
        columns = (list(steps), [float(step) for step in steps], [None] * 1000, ["text"] * 1000, [0.1] * 1000)
        numbers.add([Block("log", ("step", "loss", "val_loss", "note", "lr"), [1.0] * 1000, columns)])
    numbers.add([Block("val", ("epoch", "loss"), [1.0], ([1], [2.0]))])

    (loss, val), (rate,) = numbers.drawn()
    assert ["loss", "val.loss", "lr"] == [loss.name, val.name, rate.name]
    assert 100 < len(loss.x) < 300 and (0, 99_999) == (loss.x[0], loss.x[-1]) and loss.x == tuple(map(int, loss.y))


def test_numbers_that_stand_alone_are_drawn_in_their_order() -> None:
    """Where no field says where they belong; and what counts steps is no curve."""
    numbers = watching._Numbers(began=0.0)
    for value in (3.0, 2.0):
        numbers.add([Block("log", ("loss",), [1.0], ([value],)), Block("log", ("step", "epoch"), [1.0], ([1], [1]))])

    [[loss]] = numbers.drawn()
    assert ((0, 2), (3.0, 2.0), ["loss"]) == (loss.x, loss.y, list(numbers.last))


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (9, 7), (20, 7), (200, 50)])
@pytest.mark.parametrize("y", [(1.0,), (0.5, 0.5, 0.5), (1e299, -1e299), (0.0, 1e-300)])
def test_a_curve_of_any_kind_fits_its_frame(y: tuple[float, ...], width: int, height: int, color: bool) -> None:
    """A point, a constant, the largest numbers; in no room at all, too; and ASCII where that is all there is."""
    curve = watching.Curve("loss\x1b[2J·" * 9, tuple(range(len(y))), y)
    drawn = view.curves([curve], width, height, color=color)
    lines = plain(drawn.encode()).splitlines()
    assert "\x1b[2J" not in drawn and height >= len(lines) and width >= max(map(len, lines), default=0)
    assert view.curves([curve], width, height, color=False, ascii=True).isascii()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("val_loss", " (best 1 at 5)"), ("acc", " (best 9 at 6)"), ("lr", ""), ("testErr", " (best 1 at 5)")],
)
def test_the_best_is_the_lowest_or_the_highest(name: str, expected: str) -> None:
    """By the name of a number; where that does not say it, no value is the best."""
    assert [f"{name} 3{expected}"] == view.values(state_of({name: Summary(9, 4.0, 1, 5, 9, 6, 3)}), 80)


def state_of(last: Mapping[str, Summary]) -> Any:
    return watching.State(run=None, moment=0.0, is_live=True, last=last)  # type: ignore[arg-type]
