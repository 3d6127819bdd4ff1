"""What ends a training that has gone wrong: numbers that are NaN or infinite, or beyond a limit: `nan`, `inf`, `loss > 100`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping
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
