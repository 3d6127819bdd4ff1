"""Columns of several runs side by side: an outer join on what says where each value belongs, a step or an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Melded:
    """A table of an index, by its name, and a column for each label."""

    index: str
    labels: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]  # an index and a value for each label; None is a gap


def meld(columns: Mapping[str, Iterable[tuple[Any, Any]]]) -> list[tuple[Any, ...]]:
    """Join columns of `(index, value)` on the index: rows of an index and a value for each label, in the order of *columns*.

    None is a gap, and what has no index (None, NaN) or no value (None) has no place. Of several values of a column at one index
    the last one counts. Rows are sorted where every index is a number, else they come as they first did. Raises `ValueError`
    for no columns at all.
    """
    if not columns:
        raise ValueError("there is nothing to meld")
    rows: dict[Any, list[Any]] = {}
    for place, pairs in enumerate(columns.values()):
        for index, value in pairs:
            if index is None or value is None or index != index:
                continue
            row = rows.get(index)
            if row is None:
                row = rows[index] = [None] * len(columns)
            row[place] = value
    are_numbers = all(isinstance(index, int | float) for index in rows)
    return [(index, *rows[index]) for index in (sorted(rows) if are_numbers else rows)]
