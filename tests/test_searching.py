"""What is promised of the search: the same for the same seed, better than chance, nothing twice, and no run ended for nothing."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numb import grid
from numb.errors import NotPossible, Usage
from numb.searching import RANDOM, TPE, Aim, Limits, Pruning, Space, Told, _proposed, is_worse, limits, propose

WORDS = ["lr=loguniform(1e-5,1e-1)", "layers=randint(1,8)", "opt=choice(sgd,adam)", "wd=0"]
LOW = Aim("results.loss", highest=False, count=50)
HIGH = Aim("results.acc", highest=True, count=50)


def worked(
    words: Sequence[str], aim: Aim, count: int, tried: Callable[[dict[str, float]], float | None]
) -> list[dict[str, float]]:
    """What one worker tries of a space of numbers, each proposal told what came of it."""
    space, told = Space.of(words), list[Told]()
    for _ in range(count):
        proposal = propose(space, aim, told)
        assert proposal is not None
        numbers = {name: float(text) for name, text in proposal.items()}
        told.append(Told(numbers, tried(numbers)))
    return [dict(each.params) for each in told]


def quadratic(point: Mapping[str, float]) -> float:
    return (point["x"] - 1) ** 2 + (point["y"] + 2) ** 2


def scattered(count: int, dice: random.Random, value: Callable[[dict[str, float]], float]) -> list[Told]:
    points = [{"x": dice.uniform(-5, 5), "y": dice.uniform(-5, 5)} for _ in range(count)]
    return [Told(point, value(point)) for point in points]


PLANE = ["x=uniform(-5,5)", "y=uniform(-5,5)"]


# -- spaces


def test_a_space_is_kept_as_it_was_typed() -> None:
    """Through JSON a space is the same, with its values that are given, and so is an aim."""
    space = Space.of([*WORDS, "name='a=b'", " gap = 1"])
    aim = replace(HIGH, seed=7, sampler=RANDOM, pruning=Pruning("val:loss", highest=False, warmup=10, startup=3))

    assert space == Space.of_json(json.loads(json.dumps(space.to_json())))
    assert [aim, LOW] == [Aim.of_json(json.loads(json.dumps(each.to_json()))) for each in (aim, LOW)]
    assert {"wd": "0", "name": "'a=b'", "gap": " 1"}.items() <= space.to_json().items()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x=normal(0,1)"], "x: normal has no ends"),
        (["lr=0.1", "wd=0"], "nothing to search"),
        ([], "nothing to search"),
        (["lr=uniform(0,1)", "lr=0.1"], "lr is given twice"),
        (["lr={{1,2}}", "x=uniform(0,1)"], "lr is a list"),
        (["x=uniform(0,1)", "wd"], "wd is no setting"),
        (["=uniform(0,1)"], "has no name"),
        (["lr=loguniform(0,1)"], "no such limits"),
        (["x=uniform(-1e308,1e308)"], "too much between"),
    ],
)
def test_what_is_no_space_is_refused(words: list[str], why: str) -> None:
    """The message says what is wrong, and the hint what to type instead."""
    with pytest.raises(Usage, match=why) as raised:
        Space.of(words)
    assert raised.value.hint


def test_what_has_no_ends_is_told_what_there_is() -> None:
    """Who types normal reads which distributions a search takes."""
    with pytest.raises(Usage) as raised:
        Space.of(["x=normal(0,1)"])
    assert raised.value.hint is not None
    assert all(kind in raised.value.hint for kind in ("uniform", "loguniform", "randint", "lograndint", "choice"))


@pytest.mark.parametrize(
    "plain", [None, [], "x", {"x": 1}, {"x": "normal(0,1)"}, {}, {"x": "uniform(0,1)", "y": ["a"]}]
)
def test_a_damaged_space_is_a_value_error(plain: Any) -> None:
    """What stands beside a queue file may come from anywhere."""
    with pytest.raises(ValueError, match="no space"):
        Space.of_json(plain)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {},
        [],
        {"by": "acc"},
        {"by": "", "highest": True, "count": 1},
        {"by": "acc", "highest": "yes", "count": 1},
        {"by": "acc", "highest": True, "count": "1"},
        {"by": "acc", "highest": True, "count": 1, "sampler": "grid"},
        {"by": "acc", "highest": True, "count": 1, "pruning": 3},
        {"by": "acc", "highest": True, "count": 1, "pruning": {"series": "loss"}},
        {"by": "acc", "highest": True, "count": 1, "pruning": {"series": "loss", "highest": False, "warmup": "x"}},
    ],
)
def test_a_damaged_aim_is_a_value_error(plain: Any) -> None:
    """Likewise; what a later numb has added is passed over."""
    with pytest.raises(ValueError, match=r"no (aim|rule)"):
        Aim.of_json(plain)
    assert HIGH == Aim.of_json({**HIGH.to_json(), "later": 1})


def test_the_corners_are_what_a_script_must_take() -> None:
    """Both ends of each number and every choice are in one of them, with the values that are given."""
    corners = Space.of([*WORDS, "act=choice(relu,gelu,silu)"]).corners()

    assert [
        {"lr": "1e-05", "layers": "1", "opt": "sgd", "wd": "0", "act": "relu"},
        {"lr": "0.1", "layers": "8", "opt": "adam", "wd": "0", "act": "gelu"},
        {"lr": "0.1", "layers": "8", "opt": "adam", "wd": "0", "act": "silu"},
    ] == corners


@pytest.mark.parametrize(
    ("params", "point"),
    [
        ({"lr": 0.1, "layers": 8, "opt": "sgd", "wd": 0.0, "epochs": 3}, {"lr": 0.1, "layers": 8, "opt": "sgd"}),
        ({"lr": 1e-5, "layers": 2.0, "opt": "sgd", "wd": 0}, {"lr": 1e-5, "layers": 2, "opt": "sgd"}),
        ({"lr": 0.2, "layers": 8, "opt": "sgd", "wd": 0}, None),  # beyond the ends
        ({"lr": 0.1, "layers": 2.5, "opt": "sgd", "wd": 0}, None),
        ({"lr": 0.1, "layers": True, "opt": "sgd", "wd": 0}, None),
        ({"lr": 0.1, "layers": 10**400, "opt": "sgd", "wd": 0}, None),
        ({"lr": "0.1", "layers": 8, "opt": "sgd", "wd": 0}, None),
        ({"lr": math.nan, "layers": 8, "opt": "sgd", "wd": 0}, None),
        ({"lr": None, "layers": 8, "opt": "sgd", "wd": 0}, None),
        ({"lr": 0.1, "layers": 8, "opt": "lion", "wd": 0}, None),  # no choice
        ({"lr": 0.1, "layers": 8, "opt": {"name": "sgd"}, "wd": 0}, None),
        ({"lr": 0.1, "layers": 8, "opt": "sgd", "wd": 0.1}, None),  # another value than the one that is given
        ({"lr": 0.1, "layers": 8, "opt": "sgd", "wd": [0]}, None),
        ({"lr": 0.1, "layers": 8, "opt": "sgd"}, None),
        ({}, None),
    ],
)
def test_a_run_is_in_the_space_or_it_is_not(params: dict[str, Any], point: dict[str, Any] | None) -> None:
    """What somebody has trained by hand counts where the search could have proposed it, and else for nothing."""
    assert point == Space.of(WORDS).point(params)


def test_choices_are_compared_as_what_they_say() -> None:
    """Words of a shell and values of a record: numbers, truth, nothing, lists, and names inside of a dictionary."""
    space = Space.of(
        ["bs=choice(16,32)", "flip=choice(true,false)", "l=choice([1,2],None)", "opt.lr=choice(1e-1,0.01)"]
    )

    assert {"bs": "32", "flip": "false", "l": "[1,2]", "opt.lr": "1e-1"} == space.point(
        {"bs": 32, "flip": False, "l": (1, 2), "opt": {"lr": 0.1, "momentum": 0.9}}
    )
    assert {"bs": "16", "flip": "true", "l": "None", "opt.lr": "0.01"} == space.point(
        {"bs": 16.0, "flip": True, "l": None, "opt.lr": 0.01}
    )


# -- proposals


def test_the_same_seed_proposes_the_same_in_every_process() -> None:
    """Told the same, each process proposes the same, whatever the order of its sets; another seed proposes something else."""
    program = (
        "import random; from numb.searching import *; dice = random.Random(1); aim = Aim('acc', True, 9, seed={seed});"
        "told = [Told(dict(x=dice.random(), k=dice.randint(1, 9), o=dice.choice('abc')), dice.random()) for _ in range({n})];"
        "print(propose(Space.of(['x=uniform(0,1)', 'k=randint(1,9)', 'o=choice(a,b,c)']), aim, told, [told[0].params]))"
    )

    def proposed(seed: int, told: int, hashes: str) -> str:
        words = [sys.executable, "-W", "error", "-c", program.format(seed=seed, n=told)]
        done = subprocess.run(
            words, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": hashes}
        )
        assert done.stderr == ""  # no chatter
        return done.stdout

    assert proposed(3, 30, "1") == proposed(3, 30, "2")
    assert proposed(3, 30, "1") != proposed(4, 30, "1")


@pytest.mark.parametrize("sampler", [TPE, RANDOM])
def test_each_proposal_is_another_one_and_fits(sampler: str) -> None:
    """One after another and several at once: nothing twice, all within the ends, and each is a word that says the same again."""
    space, aim = Space.of([*WORDS, "near=uniform(1000000,1000001)"]), replace(HIGH, sampler=sampler, seed=5)
    told, pending = list[Told](), list[dict[str, Any]]()
    for number in range(30):
        proposal = propose(space, aim, told, pending)
        assert proposal is not None
        assert proposal == propose(space, aim, told, pending)
        assert list(proposal) == ["lr", "layers", "opt", "wd", "near"] and proposal["wd"] == "0"
        params = {
            "lr": float(proposal["lr"]),
            "layers": int(proposal["layers"]),
            "opt": proposal["opt"],
            "wd": 0,
            "near": float(proposal["near"]),
        }
        assert [proposal[name] for name in ("lr", "near")] == [repr(params[name]) for name in ("lr", "near")]
        assert space.point(params) is not None
        assert len(proposal["lr"].replace("0.", "").lstrip("0")) <= len("1.23456e-05")
        pending.append(params)
        if number % 3 == 2:
            told += [Told(each, each["lr"]) for each in pending]
            pending.clear()
    values = [each.params["lr"] for each in told]
    assert max(len(repr(each.params["near"])) for each in told) <= len("1000000.1234567")
    assert 30 == len(set(values)) and len({each.params["near"] for each in told}) > 25  # not rounded to one
    assert min(values) < 1e-3  # by decades


def test_a_search_without_results_is_as_good_as_chance_and_no_worse() -> None:
    """Where everything has failed there is nothing to go by, and the proposals keep on being spread over all of the space."""
    found = worked(PLANE, LOW, 40, lambda point: None)

    quarters = {(each["x"] > 0, each["y"] > 0) for each in found}
    assert 4 == len(quarters) and median(abs(each["x"]) for each in found) > 1.5
    failed, outside = [Told(each) for each in found], [Told({})] * len(found)
    assert propose(Space.of(PLANE), LOW, failed) == propose(Space.of(PLANE), LOW, outside)


def test_the_estimator_finds_better_points_than_chance() -> None:
    """On a bowl, after forty trials, the best of the estimator is nearer to the bottom than that of chance."""

    def best(sampler: str, seed: int) -> float:
        return min(map(quadratic, worked(PLANE, replace(LOW, sampler=sampler, seed=seed), 40, quadratic)))

    found = {sampler: median(best(sampler, seed) for seed in range(7)) for sampler in (TPE, RANDOM)}

    assert found[TPE] < found[RANDOM] / 2


@pytest.mark.parametrize("aim", [LOW, HIGH])
def test_what_has_been_told_is_used(aim: Aim) -> None:
    """The very first proposal of a search is near to what earlier runs have found to be good: low or high, as is wanted."""
    sign = 1 if aim is LOW else -1
    told = scattered(100, random.Random(0), lambda point: sign * quadratic(point))

    found = [propose(Space.of(PLANE), replace(aim, seed=seed), told) for seed in range(15)]

    numbers = [{name: float(text) for name, text in each.items()} for each in found if each]
    assert median(map(quadratic, numbers)) < 2  # by chance it is 19


def test_choices_and_whole_numbers_are_learned() -> None:
    """So are they: what was good is proposed most of the time."""
    dice = random.Random(0)
    space = Space.of(["layers=randint(1,8)", "width=lograndint(16,1024)", "opt=choice(sgd,adam,lion)"])
    told = []
    for _ in range(120):
        params = {
            "layers": dice.randint(1, 8),
            "width": dice.randint(16, 1024),
            "opt": dice.choice(["sgd", "adam", "lion"]),
        }
        told.append(Told(params, abs(params["layers"] - 3) + (0 if params["opt"] == "adam" else 4)))

    found = [propose(space, replace(LOW, seed=seed), told) or {} for seed in range(15)]

    assert sum(each["opt"] == "adam" for each in found) >= 12
    assert sum(abs(int(each["layers"]) - 3) <= 1 for each in found) >= 12
    assert all(16 <= int(each["width"]) <= 1024 for each in found)


def test_workers_side_by_side_do_not_propose_the_same_place() -> None:
    """What is still running is kept away from: without being told of it, several workers would crowd at one place."""
    told = scattered(40, random.Random(2), quadratic)
    space = Space.of(PLANE)

    def spread(is_told: bool) -> float:
        pending = list[dict[str, float]]()
        for seed in range(12):
            found = propose(space, replace(LOW, seed=seed), told, pending if is_told else ())
            assert found is not None
            pending.append({name: float(text) for name, text in found.items()})
        return median(min(math.dist(a.values(), b.values()) for b in pending if b is not a) for a in pending)

    assert spread(is_told=True) > 1.3 * spread(is_told=False)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_place_that_has_failed_is_kept_away_from(bad: float | None) -> None:
    """A NaN, an infinity and a failure are none of the good ones, whichever way is looked for, and nothing is proposed there."""
    dice = random.Random(3)
    told = [Told(each.params, bad if each.params["x"] > 0 else 1.0) for each in scattered(60, dice, lambda point: 1.0)]

    found = [propose(Space.of(PLANE), replace(aim, seed=seed), told) or {} for seed in range(8) for aim in (LOW, HIGH)]

    assert sum(float(each["x"]) > 0 for each in found) <= 4


def test_what_is_outside_of_the_space_counts_for_nothing() -> None:
    """Runs with other values, other types, or without some, change no proposal, but for the number that seeds it."""
    strange = [{}, {"x": 99.0, "y": 0.0}, {"x": "a", "y": 0.0}, {"x": None, "y": [1]}, {"x": 10**400, "y": True}]
    told = scattered(30, random.Random(4), quadratic)
    beside = [Told(params, -1e9) for params in strange]  # which would be the best by far
    same = [{"x": 1e9, "y": 1e9}] * len(strange)

    found = propose(Space.of(PLANE), LOW, [*told, *beside], strange)

    assert found == propose(Space.of(PLANE), LOW, [*told, *map(Told, same)], same)
    assert found != propose(Space.of(PLANE), LOW, told)


def test_values_that_are_no_floats_are_told_too() -> None:
    """A whole number, also one without end, and a truth value are no reason to fail."""
    told = [Told({"x": n / 10, "y": 0}, value) for n, value in enumerate([1, 10**400, True, 0, -3] * 5)]
    assert propose(Space.of(PLANE), LOW, told) is not None


def test_a_small_space_is_tried_through_and_then_there_is_nothing() -> None:
    """Each of the combinations once, however they turn out, and then None."""
    space = Space.of(["a=choice(1,2,3)", "b=randint(1,4)", "c=7"])
    told = list[Told]()
    while (found := propose(space, LOW, told)) is not None:
        told.append(Told({"a": int(found["a"]), "b": int(found["b"]), "c": 7}, 1.0 if len(told) % 2 else None))
        assert len(told) <= 12

    assert 12 == len({(each.params["a"], each.params["b"]) for each in told}) == len(told)


@pytest.mark.parametrize("sampler", [TPE, RANDOM])
def test_a_space_without_width_has_one_point(sampler: str) -> None:
    """Where both ends are one, there is one thing to try."""
    space, aim = Space.of(["a=uniform(0.1,0.1)", "b=choice(x)", "c=randint(2,2)"]), replace(HIGH, sampler=sampler)

    assert {"a": "0.1", "b": "x", "c": "2"} == propose(space, aim, [])
    assert propose(space, aim, [], [{"a": 0.1, "b": "x", "c": 2}]) is None


@pytest.mark.parametrize(
    ("text", "value", "proposed"),
    [
        ("uniform(0,1)", 0.12345649, 0.123456),
        ("uniform(0.12345649,1)", 0.12345649, 0.1234565),  # and not below
        ("loguniform(1e-5,1e-1)", 1.23456789e-5, 1.23457e-5),
        ("uniform(1000,1000.001)", 1000.0001234567, 1000.000123457),
        ("uniform(0.1,0.30000000000000004)", 0.30000000000000004, 0.3),
    ],
)
def test_a_number_is_short_where_that_changes_nothing(text: str, value: float, proposed: float) -> None:
    """Six digits, more where the ends are near to each other, and never beyond them."""
    found = grid.distribution(text)
    assert found is not None
    assert proposed == _proposed(found, value)


def test_small_whole_numbers_are_as_frequent_as_large_ones() -> None:
    """`lograndint` goes by decades, when nothing is known yet too."""
    found = [propose(Space.of(["n=lograndint(1,1000000)"]), replace(LOW, seed=seed), []) or {} for seed in range(20)]
    assert 4 <= sum(int(each["n"]) < 1000 for each in found) <= 16


def test_numbers_without_measure_are_no_reason_to_warn() -> None:
    """Warnings are errors here: what Optuna and NumPy think of whole numbers of this size is not said."""
    dice = random.Random(0)
    space = Space.of(["a=randint(0,9223372036854775808)", "b=lograndint(1,9223372036854775807)"])
    told = [Told({"a": dice.randint(0, 2**62), "b": dice.randint(1, 2**62)}, dice.random()) for _ in range(20)]

    found = propose(space, HIGH, told)

    assert found is not None and 0 <= int(found["a"]) <= 2**63


def test_a_run_that_was_ended_early_is_behind_those_that_were_not() -> None:
    """It counts as one that was not among the best, and of two that came as far the better series is the better one."""
    dice = random.Random(5)
    aim = replace(HIGH, pruning=Pruning("val:loss", highest=False))  # a loss is low, though the result is an accuracy
    told = [Told(each.params, each.value, pruned=7) for each in scattered(60, dice, quadratic)]

    early = [propose(Space.of(PLANE), replace(aim, seed=seed), told) or {} for seed in range(11)]
    assert median(quadratic({name: float(text) for name, text in each.items()}) for each in early) < 4

    whole = scattered(20, dice, lambda point: -quadratic({"x": -point["x"], "y": -point["y"]}))  # best at -1, 2
    later = [propose(Space.of(PLANE), replace(aim, seed=seed), [*told, *whole]) or {} for seed in range(11)]
    assert median(math.dist((float(each["x"]), float(each["y"])), (-1, 2)) for each in later) < 2.5


def test_without_optuna_the_hint_is_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimator needs it, chance does not."""
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(NotPossible, match="Optuna, which searches, is not installed") as raised:
        propose(Space.of(PLANE), LOW, [])
    assert raised.value.hint == "pip install 'numb[search]'"
    assert propose(Space.of(PLANE), replace(LOW, sampler=RANDOM), []) is not None


def test_what_optuna_prints_elsewhere_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """It is silent here only: a notebook that uses it too finds it as it was."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        propose(Space.of(PLANE), LOW, scattered(12, random.Random(0), quadratic))
        assert ("", "") == capfd.readouterr()
        assert optuna.logging.DEBUG == optuna.logging.get_verbosity()
    finally:
        optuna.logging.set_verbosity(before)


def test_what_is_searched_reads_like_what_is_drawn() -> None:
    """`numb queue sample` and the search understand the same words."""
    assert grid.sampled(["x=choice(a,b)", "y=1"], 1, 0) in ([["x=a", "y=1"]], [["x=b", "y=1"]])
    assert Space.of(["x=choice(a,b)", "y=1"]).drawn == {"x": grid.distribution("choice(a,b)")}


# -- the median rule


LOSSES = [
    [(1, 5.0), (2, 4.0), (3, 6.0), (4, 2.0)],  # best: 5 4 4 2
    [(1, 3.0), (2, 3.5), (3, 1.0)],  #                  3 3 1, and no further
    [(1, 9.0), (2, 8.0), (3, 7.0), (4, 7.5)],  #        9 8 7 7
]


@pytest.mark.parametrize(
    ("startup", "warmup", "table"),
    [
        (1, 0, ((1, 5.0), (2, 4.0), (4, 4.5))),
        (3, 0, ((1, 5.0), (2, 4.0), (4, None))),  # at 4 there are two only
        (4, 0, ()),
        (1, 2, ((2, 4.0), (4, 4.5))),
        (2, 3.5, ((4, 4.5),)),
        (1, 5, ()),
        (0, 0, ((1, 5.0), (2, 4.0), (4, 4.5))),
    ],
)
def test_the_limits_are_the_medians_of_the_bests(startup: int, warmup: float, table: Limits) -> None:
    """Computed by hand: the median of what each of the others had reached by then, of those that came so far."""
    assert table == limits(LOSSES, highest=False, warmup=warmup, startup=startup)
    upside_down = [[(step, -value) for step, value in rows] for rows in LOSSES]
    assert tuple((step, limit and -limit) for step, limit in table) == limits(upside_down, True, warmup, startup)


def test_others_may_have_looked_at_other_steps() -> None:
    """A run that logs every third step has at the fourth what it had at the third; in whatever order its rows come."""
    others = [[(0, 4.0), (3, 2.0), (6, 1.0)], [(4, 3.0), (2, 5.0), (0, 8.0), (2, 6.0)]]
    assert ((0, 6.0), (2, 4.5), (3, 3.5), (4, 2.5), (6, 1.0)) == limits(others, highest=False, startup=1)


def test_nan_and_infinity_are_no_bests() -> None:
    """They are passed over, and who has nothing else is not there."""
    others = [
        [(1, math.nan), (2, 3.0), (3, -math.inf)],
        [(1, math.inf), (2, math.nan)],
        [],
        [(1, 1.0), (2, 5.0), (3, math.nan)],
    ]
    assert ((1, 1.0), (2, 2.0), (3, None)) == limits(others, highest=False, startup=1)
    assert () == limits([], highest=True)


@pytest.mark.parametrize(
    ("step", "best", "is_so"),
    [
        (0, 100.0, False),  # before the first
        (1, 5.0, False),  # as good as the median is good enough
        (1, 5.1, True),
        (1.5, 5.1, True),  # between two steps the one before counts
        (2, 4.5, True),
        (2, None, True),  # nothing but NaN, where others have numbers
        (0, None, False),
        (3, 100.0, False),  # no limit
        (1000, 100.0, False),
    ],
)
def test_a_run_is_worse_where_its_best_is(step: float, best: float | None, is_so: bool) -> None:
    """Strictly worse than the limit of the last step that has one, in both directions, and after JSON."""
    table: Limits = ((1, 5.0), (2, 4.0), (3, None))
    again = json.loads(json.dumps(table))
    other: Limits = tuple((at, limit and -limit) for at, limit in table)

    assert is_so == is_worse(table, step, best, highest=False)
    assert is_so == is_worse(again, step, best, highest=False)
    assert is_so == is_worse(other, step, None if best is None else -best, highest=True)


def test_a_long_series_becomes_a_short_table() -> None:
    """What is handed to a script is small, and reaches to the end."""
    dice = random.Random(0)
    others = [[(step, 1000 / (1 + step) + dice.random()) for step in range(5000)] for _ in range(9)]

    table = limits(others, highest=False)

    assert 100 < len(table) <= 200
    assert table[0][0] == 0 and table[-1][0] > 4000


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.floats(-9, 9)), min_size=1, max_size=12), min_size=1, max_size=6
    ),
    st.booleans(),
    st.integers(1, 3),
)
@settings(max_examples=80)
def test_the_rule_is_what_its_words_say(others: list[list[tuple[float, float]]], highest: bool, startup: int) -> None:
    """At each step that somebody has logged, the table agrees with the words, and the best of all is worse nowhere."""
    table = limits(others, highest, startup=startup)
    better = max if highest else min
    for step in sorted({step for rows in others for step, _ in rows}):
        there = [
            better(value for at, value in rows if at <= step) for rows in others if min(rows)[0] <= step <= max(rows)[0]
        ]
        limit = median(there) if len(there) >= startup else None
        assert limit == next((limit for at, limit in reversed(table) if at <= step), None)
        best = better(there)
        assert not is_worse(table, step, best, highest)
        assert is_worse(table, step, None, highest) == (limit is not None)
