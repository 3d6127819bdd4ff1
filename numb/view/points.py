"""The points of a curve: smoothed, and thinned to what a picture can show, in a memory that does not grow with their number."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

GAP = math.nan
_LARGEST = 1e300  # beyond it the difference of two numbers may be none
MOST = 600  # a curve has between two and four times as many points: two for each column of dots in a picture


def number(value: Any) -> float:
    """The value as a float, and NaN for what cannot be drawn: text, None, infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return GAP
    return float(value) if -_LARGEST < value < _LARGEST else GAP


def numbers(values: Sequence[Any]) -> Sequence[float]:
    """Each as a `number`; an array in which all can be drawn is returned as it is."""
    if isinstance(values, array) and values and -_LARGEST < min(values) and max(values) < _LARGEST and _known(values):
        return values
    return list(map(number, values))


def _known(values: Sequence[float]) -> bool:
    """Whether no NaN is among them, as quickly as that can be told."""
    return not math.isnan(sum(values))


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

    def over(self, values: Iterable[float]) -> list[float]:
        """The mean after each of the values that come next."""
        means = []
        for value in values:
            self._block.append(value)
            at = len(self._block)
            if value == value:
                self._total += value
                self._count += 1
                rest, others = self._before[at] if at < len(self._before) else (0.0, 0)
                means.append((self._total + rest) / (self._count + others))
            else:
                means.append(GAP)
            if at == self.window:
                self._before, self._block, self._total, self._count = _from_each(self._block), [], 0.0, 0
        return means


def smooth(values: Iterable[Any], window: int) -> list[float]:
    """The `Mean` after each of the values."""
    return Mean(window).over(map(number, values))


def _from_each(block: Sequence[float]) -> list[tuple[float, int]]:
    known = ((each, 1) if each == each else (0.0, 0) for each in reversed(block))
    return list(itertools.accumulate(known, lambda sofar, each: (sofar[0] + each[0], sofar[1] + each[1])))[::-1]


_Point = tuple[float, float]


@dataclass(slots=True)
class Thinned:
    """Points, of which only the lowest and the highest of so many neighbours stay, so that a peak is never lost.

    There are at most 4 * *most*, however many are added; a gap stays one as long as its neighbours can be told apart.
    """

    most: int = MOST
    _each: int = 1  # rows in a bucket
    _rows: int = 0  # in the one that is open
    _buckets: list[list[_Point]] = field(default_factory=list)
    _open: list[_Point] = field(default_factory=list)

    def add(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Add points; a y of NaN is a gap."""
        at = 0
        while at < len(y):
            part = slice(at, at + self._each - self._rows)
            came = _outermost(x[part], y[part])
            self._open = _extremes([*self._open, *came]) if self._open else came
            self._rows += len(y[part])
            at = part.stop
            if self._rows == self._each:
                self._buckets.append(self._open)
                self._open, self._rows = [], 0
                if len(self._buckets) == 2 * self.most:
                    pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
                    self._buckets = [_extremes([*first, *second]) for first, second in pairs]
                    self._each *= 2

    def points(self) -> tuple[array[float], array[float]]:
        """Their x and y."""
        points = [*itertools.chain.from_iterable(self._buckets), *self._open]
        return array("d", (x for x, _ in points)), array("d", (y for _, y in points))


def _outermost(x: Sequence[float], y: Sequence[float]) -> list[_Point]:
    """The lowest and the highest point in their order; a gap only where there is nothing else."""
    if len(y) < 8 or not _known(y):
        return _extremes(list(zip(x, y, strict=True)))
    places = sorted({y.index(min(y)), y.index(max(y))})
    return [(x[place], y[place]) for place in places]


def _extremes(points: Sequence[_Point]) -> list[_Point]:
    places = [place for place, (_, y) in enumerate(points) if y == y]
    if not places:
        return list(points[:1])
    chosen = {min(places, key=lambda place: points[place][1]), max(places, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(chosen)]


def thinned(x: Sequence[float], y: Sequence[float], most: int = MOST) -> tuple[Sequence[float], Sequence[float]]:
    """A curve with at most 4 * *most* points: see `Thinned`."""
    if len(x) <= 4 * most:
        return x, y
    points = Thinned(most)
    points.add(x, y)
    return points.points()
