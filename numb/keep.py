"""Which checkpoints of a run stay: the last few, every so many steps, and the best by a result.

Where no rule is given, all of them do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numb.record import Checkpoint


@dataclass(frozen=True, slots=True)
class Keep:
    """The rules. A checkpoint stays that any of them names."""

    last: int | None = None  # this many of the newest
    every: int | None = None  # those whose step it divides
    best: str | None = None  # the one with the best of this result
    lowest: bool = False  # which is the lowest

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Keep:
        """Read what `to_json` wrote; what is no rule there is none here."""

        def number(name: str) -> int | None:
            value = plain.get(name)
            return value if type(value) is int and value > 0 else None

        best = plain.get("best")
        result, _, way = best.rpartition(":") if isinstance(best, str) else ("", "", "")
        return cls(number("last"), number("every"), result or None, way == "min")

    def to_json(self) -> dict[str, Any]:
        """The rules as `nmb.json` has them."""
        best = f"{self.best}:{'min' if self.lowest else 'max'}" if self.best else None
        plain = {"last": self.last, "every": self.every, "best": best}
        return {name: value for name, value in plain.items() if value is not None}

    def steps(self, checkpoints: Iterable[Checkpoint]) -> set[int]:
        """The steps of those that stay."""
        known = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
        if not (self.last or self.every or self.best):
            return {checkpoint.step for checkpoint in known}
        stay = {checkpoint.step for checkpoint in known[-self.last :]} if self.last else set()
        if self.every:
            stay |= {checkpoint.step for checkpoint in known if checkpoint.step % self.every == 0}
        if self.best and (best := self._best(known)):
            stay.add(best.step)
        return stay | {known[-1].step} if known else stay  # a resumed training begins there

    def _best(self, known: Iterable[Checkpoint]) -> Checkpoint | None:
        """The first of the best; what is not a number is never among them."""
        best, value = None, math.inf if self.lowest else -math.inf
        for checkpoint in known:
            found = checkpoint.results.get(self.best or "")
            if isinstance(found, bool) or not isinstance(found, (int, float)) or found != found:
                continue
            if best is None or (found < value if self.lowest else found > value):
                best, value = checkpoint, found
        return best


ALL = Keep()
