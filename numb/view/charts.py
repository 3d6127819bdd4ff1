"""What `numb plot` shows, each as a picture, as text for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numb import record
from numb.errors import Usage
from numb.view import plot
from numb.view.plot import Axis, Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")
_LOWEST = 12  # lines of a frame


class Chart(Protocol):
    """Something that can be shown in these ways."""

    def figure(self) -> Figure: ...
    def text(self, width: int, height: int, *, color: bool, ascii: bool) -> str: ...
    def as_json(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Curves:
    """Numbers over time."""

    panels: Sequence[Panel]

    def figure(self) -> Figure:
        return plot.panels_figure(self.panels)

    def text(self, width: int, height: int, *, color: bool, ascii: bool) -> str:
        """One frame below the other, which share the height as long as something can be seen in them."""
        each = max(_LOWEST, height // len(self.panels)) if len(self.panels) > 1 else height
        return "\n".join(
            plot.curves_text(
                panel.curves,
                width,
                each,
                title=panel.title,
                x_label=panel.x_label,
                log=panel.log,
                color=color,
                ascii=ascii,
            )
            for panel in self.panels
        )

    def as_json(self) -> str:
        """The points that are drawn, a gap as NaN."""
        panels = [
            {
                "title": panel.title,
                "x": panel.x_label,
                "curves": [
                    {"run": curve.run, "label": curve.label, "field": curve.field, **_points(curve)}
                    for curve in panel.curves
                ],
            }
            for panel in self.panels
        ]
        return record.dumps(panels)


def _points(curve: plot.Curve) -> dict[str, Any]:
    return {"x": record.encode(list(curve.x)), "y": record.encode(list(curve.y))}


@dataclass(frozen=True, slots=True)
class Scatter:
    """A point for each run."""

    runs: Sequence[str]
    x: Axis
    y: Axis

    def figure(self) -> Figure:
        return plot.scatter_figure(self.x, self.y)

    def text(self, width: int, height: int, *, color: bool, ascii: bool) -> str:
        return plot.scatter_text(self.x, self.y, width, height, color=color, ascii=ascii)

    def as_json(self) -> str:
        return _values(self.runs, (self.x, self.y))


@dataclass(frozen=True, slots=True)
class Parallel:
    """A line for each run through its hyperparameters to its result."""

    runs: Sequence[str]
    axes: Sequence[Axis]

    def figure(self) -> Figure:
        return plot.parallel_figure(self.axes)

    def text(self, width: int, height: int, *, color: bool, ascii: bool) -> str:
        name = self.axes[-1].name
        raise Usage("parallel coordinates are for pictures only", f"numb plot --parallel {name} --into parallel.svg")

    def as_json(self) -> str:
        return _values(self.runs, self.axes)


def _values(runs: Sequence[str], axes: Sequence[Axis]) -> str:
    rows = zip(*(axis.values for axis in axes), strict=True)
    names = [axis.name for axis in axes]
    found = [
        {"run": run, "values": {n: record.encode(v, n, literals=True) for n, v in zip(names, row, strict=True)}}
        for run, row in zip(runs, rows, strict=True)
    ]
    return record.dumps(found, indent=2)
