"""How weights differ, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numb import record
from numb.errors import printable
from numb.view.table import grid


class Difference(Protocol):
    """What is shown of one tensor."""

    @property
    def name(self) -> str: ...
    @property
    def how(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
    @property
    def largest(self) -> float | None: ...
    @property
    def relative(self) -> float | None: ...
    @property
    def elements(self) -> float | None: ...
    @property
    def other(self) -> str | None: ...


def table(models: Mapping[str, Sequence[Difference]]) -> str:
    """A table for each model of the tensors that differ, and a line on those that do not."""
    return "\n\n".join(_model(name, found) for name, found in models.items())


def _model(name: str, found: Sequence[Difference]) -> str:
    counts = Counter(each.how for each in found)
    title = f"{printable(name)}  {record.counted(len(found), 'tensor')}, {counts['same']} the same"
    rows = [
        [
            printable(each.name),
            f"{each.how}{f' {printable(each.other)}' if each.other else ''}",
            "a file" if each.shape is None else "x".join(map(str, each.shape)) or "number",
            _number(each.relative),
            _number(each.largest),
            "" if each.elements is None else f"{each.elements:.3g}",
        ]
        for each in found
        if each.how != "same"
    ]
    shown = grid(rows, ["tensor", "", "shape", "relative", "largest", "elements"], right=(3, 4, 5))
    return title + ("\n" + shown if rows else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def as_json(models: Mapping[str, Sequence[Difference]]) -> str:
    """By model a list of `name`, `how`, `shape`, `relative`, `largest`, `elements`, `other`."""
    return json.dumps(plain(models), indent=2)


def plain(models: Mapping[str, Sequence[Difference]]) -> dict[str, Any]:
    """The same as plain values."""
    names = ("name", "how", "shape", "relative", "largest", "elements", "other")
    return {
        model: [{name: record.encode(getattr(each, name)) for name in names} | {"shape": each.shape} for each in found]
        for model, found in models.items()
    }
