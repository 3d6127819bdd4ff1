"""Values keep their types through JSON, and two sets of hyperparameters are equal exactly when a person would say so."""

from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from decimal import Decimal
from enum import IntEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from numb import record
from numb.inflight import added_up
from numb.record import Run, RunId

NAMES = st.one_of(st.text(max_size=6), st.sampled_from(["$float", "$tuple", "$dict", "lr", ""]))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=6))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=8,
)
PARAMS = st.dictionaries(NAMES, VALUES, max_size=4)


def exactly(value: Any) -> Any:
    """*value* so that `==` sees types, signs and NaN."""
    match value:
        case float():
            return ("float", "nan" if math.isnan(value) else struct.pack("d", value))
        case dict():
            return ("dict", [(key, exactly(item)) for key, item in value.items()])
        case list() | tuple():
            return (type(value).__name__, [exactly(item) for item in value])
    return (type(value).__name__, value)


def through_json(values: Any) -> Any:
    return record.decode(json.loads(record.dumps(record.encode(values)).encode()))


@given(VALUES)
@example({"$literal": "1"})
@example({"$float": "nan"})
@example({"$dict": {"$tuple": [1]}})
@example([-0.0, 0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, 2**70, True, 1, 1.0])
@example("\udc80 is how a name that is not UTF-8 arrives")
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    """What is registered and what is read back are the same: types, the sign of zero, NaN, order, look-alikes of tags."""
    assert exactly(value) == exactly(through_json(value))


HASHABLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(st.characters(), max_size=4), st.binary(max_size=4)
)
LITERALS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        SCALARS.filter(lambda value: value == value),
        st.binary(max_size=4),
        st.sets(HASHABLE, max_size=3),
        st.just(1 + 2j),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=3),
    ),
    max_leaves=6,
)


@given(LITERALS)
def test_a_literal_comes_back_with_its_type(value: Any) -> None:
    """Sets, bytes, complex numbers and dictionaries with any keys, as hyperparameters may be."""
    back = record.decode(json.loads(record.dumps(record.encode(value, literals=True)).encode()))
    assert exactly(value) == exactly(back)
    assert record.canonical(value) == record.canonical(back)


@given(PARAMS)
def test_a_record_is_utf_8_and_comes_back_whole(params: dict[str, Any]) -> None:
    """A run with any values can be written to a file, is JSON to a strict reader, and is the same run when it is read."""
    run = Run(RunId("20261120-213353-x7f2"), "train", 1.0, params=params, results=params)

    text = record.dumps(run.to_json()).encode()
    again = Run.from_json(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")))

    assert exactly(params) == exactly(again.params) == exactly(again.results)
    assert run.params_key == again.params_key
    assert "\n" not in record.subject(run) and record.subject(run).encode()


@given(VALUES, VALUES)
@example({"$float": "nan"}, math.nan)
@example({"$dict": [1]}, [1])
@example(-0.0, 0)
@example(10**23, 1e23)
@example([1], (1.0,))
@example(True, 1)
@example(False, 0.0)
def test_equal_values_have_equal_keys_and_others_do_not(one: Any, other: Any) -> None:
    """1 equals 1.0, NaN equals NaN, a tuple equals a list, the order of names does not count; True is not 1."""
    assert same(one, other) == (record.key({"x": one}) == record.key({"x": other}))


def same(one: Any, other: Any) -> bool:
    """The rule, spelled out."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return type(one) is type(other) and one == other


class Depth(IntEnum):
    DEEP = 18


class Lr(float):
    pass


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("relu"), "relu"),
        (np.array(7), 7),
        (np.array([[2.5]]), 2.5),
        (np.float64("nan"), math.nan),
        (torch.tensor(3), 3),
        (torch.tensor([0.5], requires_grad=True), 0.5),
        (torch.tensor(True), True),
        (torch.tensor(math.inf), math.inf),
        (torch.Size([1, 28]), (1, 28)),
        (Depth.DEEP, 18),
        (Lr(0.1), 0.1),
        (PurePosixPath("a/b"), "a/b"),
        (Path("c"), "c"),
        (OrderedDict(b=1, a=(2,)), {"b": 1, "a": (2,)}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        pytest.param("x" * 1_000_000, "x" * 1_000_000, id="long"),
    ],
)
def test_what_means_a_plain_value_becomes_one(value: Any, kept: Any) -> None:
    """Scalars of NumPy and torch, subclasses, paths and mappings are kept as what they stand for."""
    assert exactly(kept) == exactly(through_json(value))


def itself() -> dict[str, Any]:
    loop: dict[str, Any] = {"b": []}
    loop["b"].append(loop)
    return loop


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({1, 2}, "opt.x is a set, which numb cannot keep as a value: use sorted(…)"),
        ({3: 1}, "opt.x has the key 3, a int: keys must be strings"),
        ({None: 1}, "opt.x has the key None, a NoneType: keys must be strings"),
        ({math.nan: 1}, "opt.x has the key nan, a float: keys must be strings"),
        ([0, {"y": (1, object)}], "opt.x[1].y[1] is a type"),
        (1j, "opt.x is a complex"),
        (b"x", "opt.x is a bytes"),
        (Decimal(1), "opt.x is a Decimal"),
        (max, "opt.x is a builtin_function_or_method"),
        (np.array([1, 2]), "opt.x is a ndarray, which numb cannot keep as a value: use its .tolist()"),
        (np.array([]), "opt.x is a ndarray"),
        (np.datetime64("2026-01-01"), "opt.x is a date"),
        (torch.tensor([1.0, 2.0]), "opt.x is a Tensor, which numb cannot keep as a value: use its .tolist()"),
        (torch.empty(1, device="meta"), "opt.x is a Tensor"),
        pytest.param(itself(), "opt.x.b[0] contains itself", id="itself"),
        pytest.param(10**5000, "opt.x is an integer of more than 4000 digits", id="huge"),
        pytest.param(deep(100_000), "opt.x[0][0]", id="deep"),
    ],
)
def test_what_cannot_be_kept_is_a_type_error_that_names_its_place(value: Any, place: str) -> None:
    """The error is Python's own TypeError, and says where in the dictionary the value stands and what to write instead."""
    with pytest.raises(TypeError) as error:
        record.encode({"x": value}, "opt")

    assert str(error.value).startswith(place)
    assert len(str(error.value)) < 600


@given(st.lists(PARAMS, max_size=3), st.data())
def test_events_are_read_up_to_where_the_writer_was_killed(sets: list[dict[str, Any]], data: st.DataObject) -> None:
    """Any prefix of an events file can be read; what was whole in it counts, and the torn tail does not."""
    lines = [
        json.dumps(
            {"event": "param", "time": 1, "values": {k: record.encode(v) for k, v in values.items()}},
            ensure_ascii=False,
        ).encode(errors="surrogatepass")
        for values in sets
    ]
    content = b"".join(line + b"\n" for line in lines)
    cut = data.draw(st.integers(0, len(content)))

    told = added_up(content[:cut])

    whole: dict[str, Any] = {}
    for values in sets[: content[:cut].count(b"\n")]:
        whole = {k: v for k, v in whole.items() if k not in values} | values
    assert (exactly(whole), ()) == (exactly(dict(told.params)), told.notes)


@pytest.mark.parametrize(
    "field",
    [
        {"nested": [{"path": path, "head": "0" * 40}]}
        for path in ("", "/etc", "../other", "a/../../other", "a//b", ".", "sub/.git", ".GIT/x")
    ]
    + [{"nested": [{"path": "sub", "head": "--output=x"}]}, {"started": "yesterday"}]
    + [{"weights": {name: {"manifest": "m", "tensors": 1, "bytes": 1}}} for name in ("", "..", "../x", "a/b", "a\n")]
    + [{"models": {"../x": {"architecture": "0" * 16, "rung": "graph", "type": "Net", "parameters": 1}}}],
    ids=repr,
)
def test_a_record_names_nothing_outside_the_project(field: dict[str, Any]) -> None:
    """A record may come from anywhere: what becomes a path or an argument of git's is checked when it is read (M16)."""
    plain = Run(RunId.new(0), record.TRAIN, 0.0).to_json() | field

    with pytest.raises(ValueError, match=f"field '{next(iter(field))}' cannot be read"):
        Run.from_json(plain)
