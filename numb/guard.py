"""What ends a training that has gone wrong: numbers that are NaN or infinite, or beyond a limit: `nan`, `inf`, `loss > 100`."""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LIMIT = re.compile(r"\s*([^\s<>=]+)\s*(>=|<=|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")
_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Guard:
    """Rules for the numbers of a row, or the results of a checkpoint."""

    nan: bool = False
    inf: bool = False
    limits: tuple[tuple[str, str, float], ...] = ()

    @classmethod
    def of(cls, rules: Iterable[str]) -> Guard:
        """Read rules as they are typed. Raises `ValueError`, which says what was expected."""
        words, limits = set(), []
        for rule in rules:
            limit = _LIMIT.fullmatch(rule)
            if limit is not None:
                limits.append((limit[1], limit[2], float(limit[3])))
            elif rule.strip().lower() in ("nan", "inf"):
                words.add(rule.strip().lower())
            else:
                raise ValueError(f"{rule!r:.60} is no rule: say nan, inf, or a limit such as loss>100")
        return cls("nan" in words, "inf" in words, tuple(limits))

    def __bool__(self) -> bool:
        return self.nan or self.inf or bool(self.limits)

    def broken(self, values: Mapping[str, Any]) -> str | None:
        """Which rule the numbers break, in words; None where they break none."""
        numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
        for name, value in numbers.items():
            if self.nan and value != value:
                return f"nan ({name})"
            if self.inf and type(value) is float and math.isinf(value):
                return f"inf ({name})"
        for name, sign, limit in self.limits:
            if name in numbers and _OPERATORS[sign](numbers[name], limit):
                return f"{name} {numbers[name]:.6g} {sign} {limit:g}"
        return None


Limits = Sequence[tuple[float, float | None]]  # from a step on this limit, or none


class Median:
    """The rule that ends a run which is worse than half of the others were by then, told as *limits* for one field of a row.

    Its steps are how many numbers of that field there have been.
    """

    def __init__(self, series: str, highest: bool, limits: Limits) -> None:
        self._name, self._highest, self._limits = series, highest, limits
        self._count = 0
        self._best: float | None = None

    def __bool__(self) -> bool:
        return bool(self._limits)

    def broken(self, values: Mapping[str, Any]) -> str | None:
        """In words, how far the run was, and what it should have reached; None where it is good enough."""
        value: Any = values.get(self._name)
        if type(value) not in (int, float):
            return None
        self._count += 1
        if math.isfinite(value) and (
            self._best is None or (value > self._best if self._highest else value < self._best)
        ):
            self._best = value
        if not is_worse(self._limits, self._count, self._best, self._highest):
            return None
        reached = "nothing" if self._best is None else f"{self._best:.6g}"
        limit = limit_at(self._limits, self._count)
        return f"{self._name} has reached {reached} after {self._count} steps, where the median of the others is {limit:.6g}"


def limit_at(limits: Limits, step: float) -> float | None:
    """The limit at a step, where there is one."""
    at = bisect_right(limits, step, key=_step) - 1
    return limits[at][1] if at >= 0 else None


def is_worse(limits: Limits, step: float, best: float | None, highest: bool) -> bool:
    """Whether a run whose best by this step is *best*, or None where it has no number, is worse than the limit there."""
    limit = limit_at(limits, step)
    if limit is None:
        return False
    return best is None or (best < limit if highest else best > limit)


def _step(pair: tuple[float, Any]) -> float:
    return pair[0]
