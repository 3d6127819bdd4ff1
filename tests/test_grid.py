"""What is promised of queue files that few words make: grids, lists side by side, draws; nothing twice, and nothing rewritten."""

from __future__ import annotations

import json
import math
import random
import subprocess

import pytest
from conftest import Scene, furnish
from hypothesis import given
from hypothesis import strategies as st

from numb import grid
from numb.errors import Usage

SCRIPT = """
from numb import numb_param, numb_queue
a, b, first, second, third, l, seed, lr, opt = 0, 0, 0, 0, 0, [], 0, 0.1, "sgd"
numb_queue(globals())
numb_param(dict(a=a, b=b, first=first, second=second, third=third, l=l, seed=seed, lr=lr, opt=opt))
"""


@pytest.fixture
def lab(empty: Scene) -> Scene:
    furnish(empty, {"train.py": SCRIPT})
    return empty


def entries(scene: Scene) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(scene.read("q.json"))
    return found


# -- lists


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a=1"], [["a=1"]]),
        (["a={{1,2}}{{3,4}}"], [["a=13"], ["a=14"], ["a=23"], ["a=24"]]),
        (["l={{[1,2],[3,4]}}"], [["l=[1,2]"], ["l=[3,4]"]]),
        (["a={{1,2}}", "b={{x, y}}"], [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["a={{\"x,y\",'}}',(1,2)}}"], [['a="x,y"'], ["a='}}'"], ["a=(1,2)"]]),
        (['d={{{"k": 1},{"k": {"m": 2}}}}'], [['d={"k": 1}'], ['d={"k": {"m": 2}}']]),
        (["path=run-{{a,b}}/x"], [["path=run-a/x"], ["path=run-b/x"]]),
        (["word={{don't,won't}}"], [["word=don't"], ["word=won't"]]),
        (["a={{1}}", "b=2"], [["a=1", "b=2"]]),
    ],
)
def test_a_list_is_read_as_one_would_write_it(words: list[str], expected: list[list[str]]) -> None:
    """AC-J6: several lists in one word, commas within brackets and quotes, and the first word varies slowest."""
    assert expected == grid.crossed(words)


@pytest.mark.parametrize("word", ["a={{1,2", "a={{1,,2}}", "a={{}}", "={{1}}", "{{a,b}}=1", "a", 'a={{"x}}'])
def test_what_is_no_list_is_refused(word: str) -> None:
    with pytest.raises(Usage):
        grid.crossed([word])


_PLAIN_TEXTS = st.text(st.sampled_from("abc123.-_ "), min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.lists(_PLAIN_TEXTS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_grid_has_each_combination_once(lists: list[list[str]]) -> None:
    """As many as the product of the lengths, in the order of nested loops."""
    found = grid.crossed([f"n{i}={{{{{','.join(each)}}}}}" for i, each in enumerate(lists)])

    assert math.prod(map(len, lists)) == len(found)
    assert [[f"n{i}={each[0]}" for i, each in enumerate(lists)]] == found[:1]
    assert found[-1] == [f"n{i}={each[-1]}" for i, each in enumerate(lists)]


@pytest.mark.parametrize("words", ["lr={{1e-2,1e-3}} bs={{32,64}}", "a={{1,2}}{{3,4}} b={{5}}", "a=x-{{1,2}}-y"])
def test_what_a_shell_has_taken_apart_is_a_list_again(words: str) -> None:
    """Bash expands braces that nobody has quoted; of values with commas it makes rubbish, which is said."""
    expanded = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True
    ).stdout.split()
    broken = subprocess.run(
        ["bash", "-c", "printf '%s\\n' l={{[1,2],[3,4]}}"], capture_output=True, text=True, check=True
    ).stdout

    assert grid.crossed(words.split()) == grid.crossed(expanded) and expanded != words.split()
    with pytest.raises(Usage, match="the shell has taken the list of l apart"):
        grid.crossed(broken.split())
    with pytest.raises(Usage, match="a is given twice"):
        grid.crossed(["a=1", "a=2"])


def test_lists_side_by_side() -> None:
    """`--zip`: the first of each, the second of each; one value stands beside all; other lengths are refused by name."""
    assert [["a=1", "b=3", "c=5"], ["a=2", "b=4", "c=5"]] == grid.zipped(["a={{1,2}}", "b={{3,4}}", "c=5"])
    with pytest.raises(Usage, match="a has 2, b has 3"):
        grid.zipped(["a={{1,2}}", "b={{1,2,3}}"])


# -- draws


@pytest.mark.parametrize(
    ("text", "low", "high", "whole"),
    [
        ("uniform(-1,2)", -1, 2, False),
        ("loguniform(1e-5,1e-1)", 1e-5, 1e-1, False),
        ("randint(1,3)", 1, 3, True),
        ("lograndint(16,1024)", 16, 1024, True),
    ],
)
def test_what_is_drawn_lies_within_its_limits(text: str, low: float, high: float, whole: bool) -> None:
    """And reaches all of it: each tenth of the range of a uniform one, each order of magnitude of a logarithmic one."""
    found = grid.distribution(text)
    dice = random.Random(1)
    assert found is not None
    values = [float(found.draw(dice)) for _ in range(2000)]

    place = (
        (lambda x: math.log(x / low) / math.log(high / low)) if "log" in text else (lambda x: (x - low) / (high - low))
    )
    shares = [sum(place(v) < share for v in values) / 2000 for share in (0.25, 0.5, 0.75)]
    assert low <= min(values) and max(values) <= high
    assert whole == all(v.is_integer() for v in values) and (
        whole or [0.25, 0.5, 0.75] == pytest.approx(shares, abs=0.05)
    )
    assert {1.0, 2.0, 3.0} == set(values) if text == "randint(1,3)" else len(set(values)) > 100


@pytest.mark.parametrize(
    "text", ["uniform(2,1)", "loguniform(0,1)", "uniform(1)", "uniform(a,b)", "randint(0.5,2)", "normal(0,0)", "choice()", "lograndint(0,5)"]
)  # fmt: skip
def test_limits_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Usage):
        grid.distribution(text)


def test_what_is_no_distribution_is_a_value() -> None:
    """A function of another name is a text; a choice has its texts as they stand."""
    assert grid.distribution("f(1,2)") is None is grid.distribution("0.1")
    found = grid.sampled(["opt=choice(sgd,'a,b',[1,2])", "b=3"], 50, 0)

    assert {("opt=sgd", "b=3"), ("opt='a,b'", "b=3"), ("opt=[1,2]", "b=3")} == set(map(tuple, found))
    assert found == grid.sampled(["opt=choice(sgd,'a,b',[1,2])", "b=3"], 50, 0)
    assert found != grid.sampled(["opt=choice(sgd,'a,b',[1,2])", "b=3"], 50, 1)


# -- files


def test_a_grid_is_written_once(lab: Scene) -> None:
    """AC-J5: the first varies slowest; again adds nothing and says so, --force adds all; --repeat counts with its seeds."""
    words = ("first={{1,2,3,4}}", "second=3", "third={{3,5,6}}")
    added, again = lab.numb("queue", "grid", "q.json", *words), lab.numb("queue", "grid", "q.json", *words)
    once = entries(lab)
    forced = lab.numb("queue", "grid", "q.json", *words, "--force")
    repeated = lab.numb("queue", "grid", "other.json", *words, "--repeat", "3")

    assert [0] * 4 == [each.code for each in (added, again, forced, repeated)], (added, repeated)
    assert [(f, 3, t) for f in (1, 2, 3, 4) for t in (3, 5, 6)] == [(e["first"], e["second"], e["third"]) for e in once]
    assert "12 combinations added; numb queue run q.json" in added.stderr
    assert "0 combinations added, 12 were there already" in again.stderr and 24 == len(entries(lab))
    assert "36 combinations added" in repeated.stderr
    assert [0, 1, 2] == [each["seed"] for each in json.loads(lab.read("other.json"))[:3]]


def test_a_part_of_a_combination_is_another(lab: Scene) -> None:
    """AC-J7: only what is wholly equal is there already, and `1` is `1.0`."""
    lab.write("q.json", '[{"a":1,   "b":2}\n , {"lr": 1.0}]')
    done = [lab.numb("queue", "add", "q.json", *words) for words in (["a=1"], ["b=2", "a=1"], ["lr=1"])]

    assert [0, 0, 0] == [each.code for each in done]
    assert [{"a": 1, "b": 2}, {"lr": 1.0}, {"a": 1}] == entries(lab)
    assert lab.read("q.json").startswith('[{"a":1,   "b":2}\n , {"lr": 1.0},\n')


def test_draws_are_written_down(lab: Scene) -> None:
    """J12: with the types of the script; the same seed draws the same, and so adds nothing."""
    words = ("lr=loguniform(1e-5,1e-1)", "a=randint(1,8)", "opt=choice(sgd,adam)", "-n", "20", "--seed", "3")
    first, again = lab.numb("queue", "sample", "q.json", *words), lab.numb("queue", "sample", "q.json", *words)
    found = entries(lab)

    assert (0, 20) == (first.code, len(found)) and "0 combinations added, 20 were there already" in again.stderr
    assert all(type(e["a"]) is int and isinstance(e["lr"], float) and 1e-5 <= e["lr"] <= 0.1 for e in found)
    assert {"sgd", "adam"} == {e["opt"] for e in found} and 20 == len({e["lr"] for e in found})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grid", "q.json", "larning_rate={{1,2}}"], "larning_rate"),
        (["grid", "q.json", "a={{1,x}}"], "a=x"),
        (["add", "q.json", "a"], "a is no setting"),
        (["sample", "q.json", "a=1", "-n", "3"], "nothing is drawn"),
        (["grid", "q.json", "seed={{1,2}}", "--repeat", "2"], "seed is given"),
    ],
)
def test_what_does_not_fit_the_script_is_refused(lab: Scene, words: list[str], said: str) -> None:
    """Before anything is written."""
    done = lab.numb("queue", *words)

    assert 0 != done.code and said in done.stderr and "Traceback" not in done.stderr
    assert not (lab.root / "q.json").exists()


def test_a_queue_from_python(lab: Scene) -> None:
    """J14, J34: `add` one, `extend` by what a loop makes, conditions and all; it is a sequence of what stands there."""
    lab.write(
        "make.py",
        "import numb\nq = numb.queue('q.json')\nq.add(lr=0.1, opt='sgd')\n"
        "print(q.extend(dict(lr=lr, b=b) for lr in (0.1, 0.2) for b in (0, 1) if not (lr > 0.1 and b)), len(q))\n"
        "print(q.add(lr=0.1, opt='sgd'), [e['lr'] for e in q])\n",
    )
    said = lab.sh("python make.py").splitlines()

    assert ["3 4", "0 [0.1, 0.1, 0.1, 0.2]"] == said
    assert [0.1, 0.1, 0.1, 0.2] == [e["lr"] for e in entries(lab)]
