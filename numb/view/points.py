"""The points of a curve: smoothed, and thinned to what a picture can show, in a memory that does not grow with their number."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

GAP = math.nan
_LARGEST = 1e300  # beyond it the difference of two numbers may be none
MOST = 2000  # points of a curve that are drawn: two in each column of a large picture


def number(value: Any) -> float:
    """The value as a float, and NaN for what cannot be drawn: text, None, infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return GAP
    return float(value) if -_LARGEST < value < _LARGEST else GAP


@dataclass(slots=True)
class Mean:
    """The mean of a value and those before it, at most *window* together; what is no number counts in none, and is a gap.

    The sums are only added up, never taken apart again: one large value leaves no error behind it.
    """

    window: int
    _block: list[float] = field(default_factory=list)
    _before: list[tuple[float, int]] = field(
        default_factory=list
    )  # of each place in the last block: the sum from there on
    _total: float = 0.0
    _count: int = 0

    def after(self, value: Any) -> float:
        """The mean when *value* has come."""
        value = number(value)
        self._block.append(value)
        if value == value:
            self._total += value
            self._count += 1
        rest, others = self._before[len(self._block)] if len(self._block) < len(self._before) else (0.0, 0)
        mean = (self._total + rest) / (self._count + others) if value == value else GAP
        if len(self._block) == self.window:
            self._before, self._block, self._total, self._count = _from_each(self._block), [], 0.0, 0
        return mean


def smooth(values: Iterable[Any], window: int) -> Iterator[float]:
    """The `Mean` after each of the values."""
    return map(Mean(window).after, values)


def _from_each(block: Sequence[float]) -> list[tuple[float, int]]:
    known = ((each, 1) if each == each else (0.0, 0) for each in reversed(block))
    return list(itertools.accumulate(known, lambda sofar, each: (sofar[0] + each[0], sofar[1] + each[1])))[::-1]


@dataclass(slots=True)
class Thinned:
    """Points, of which only the lowest and the highest of so many neighbours stay, so that a peak is never lost.

    There are at most 4 * *most*, however many are added; a gap stays one as long as its neighbours can be told apart.
    """

    most: int = MOST
    _each: int = 1  # rows in a bucket
    _rows: int = 0
    _buckets: list[tuple[tuple[float, float], ...]] = field(default_factory=list)
    _open: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """Add a point; a *y* of NaN is a gap."""
        self._open.append((x, y))
        self._rows += 1
        if self._rows == self._each:
            self._buckets.append(_extremes(self._open))
            self._open, self._rows = [], 0
            if len(self._buckets) >= 2 * self.most:
                pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
                self._buckets = [_extremes([*first, *second]) for first, second in pairs]
                self._each *= 2
        elif len(self._open) > 64:
            self._open = list(_extremes(self._open))

    def points(self) -> tuple[array[float], array[float]]:
        """Their x and y."""
        points = list(itertools.chain.from_iterable([*self._buckets, _extremes(self._open)]))
        return array("d", (x for x, _ in points)), array("d", (y for _, y in points))


def _extremes(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The lowest and the highest in their order; a gap only where there is nothing else."""
    places = [place for place, (_, y) in enumerate(points) if y == y]
    if not places:
        return tuple(points[:1])
    chosen = {min(places, key=lambda place: points[place][1]), max(places, key=lambda place: points[place][1])}
    return tuple(points[place] for place in sorted(chosen))


def thinned(x: Sequence[float], y: Sequence[float], most: int = MOST) -> tuple[Sequence[float], Sequence[float]]:
    """A curve with at most 4 * *most* points: see `Thinned`."""
    if len(x) <= 4 * most:
        return x, y
    points = Thinned(most)
    for place, value in zip(x, y, strict=True):
        points.add(place, value)
    return points.points()
