"""Charts: curves, a hyperparameter against a result, and parallel coordinates; as SVG and PNG, and as text for a terminal.

matplotlib draws the pictures, without its state that a whole process shares, a display, or what the user has set; plotext draws
the text. Names come from scripts: no formula is read in them, and they are shown on one line, cut, without control characters.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numb import record
from numb.errors import NotPossible, printable
from numb.view.points import MOST, number, numbers, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = 60  # characters of a name
_TOLD = 20  # names of curves in a picture
_DECADES = 20  # times as large as the smallest: from there the scale of a hyperparameter is logarithmic
_DOTS = "braille"  # what plotext calls dots that are smaller than a character
_SIGNS = "*+ox#@%&"  # of curves that no colour tells apart
_COLORS = (12, 10, 9, 14, 13, 11)  # bright blue, green, red, cyan, magenta, yellow of a terminal
_ASCII = str.maketrans("┌┐└┘├┤┬┴┼│─·→×–…", "++++||+++|-.>x-~")
_OURS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "numb",  # the same chart is the same file
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e6e6",
    "font.size": 9.0,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together, in their order; a y that is no finite number is a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    run: str = ""  # its id
    field: str = ""  # `loss`, or `val:loss` of a series of its own


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over one x, in one frame."""

    curves: Sequence[Curve]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    log: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A hyperparameter or a result: its value in each run, None where it has none.

    Without a word on its scale it is a hyperparameter: logarithmic where its values span decades, with ticks at those tried.
    """

    name: str
    values: Sequence[Any]
    log: bool | None = None


# Pictures


def curves_figure(
    curves: Sequence[Curve], *, title: str = "", x_label: str = "", y_label: str = "", log: bool = False
) -> Figure:
    """Curves in one frame. With *log* the scale is logarithmic, and what is not above 0 a gap."""
    return panels_figure([Panel(curves, title, x_label, y_label, log)])


def panels_figure(panels: Sequence[Panel]) -> Figure:
    """Several frames, one below the other, in which the same place in the order of curves has the same colour."""
    with _matplotlib():
        from matplotlib.figure import Figure

        names = max((panel.curves for panel in panels), key=len, default=())
        labels = [shown(curve.label) for curve in names[:_TOLD]]
        labels += [f"and {len(names) - _TOLD} more"] if len(names) > _TOLD else []
        columns = max(1, min(4, 100 // (6 + max(map(len, labels), default=0))))
        figure = Figure(figsize=(8, 4.0 * len(panels) + 0.2 * math.ceil(len(labels) / columns)), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(len(panels), squeeze=False)[:, 0], strict=True):
            _draw(panel, axes)
        if any(labels):
            longest = next(axes for panel, axes in zip(panels, figure.axes, strict=True) if panel.curves is names)
            lines = [*longest.get_lines()[:_TOLD], *([longest.plot([], [], alpha=0)[0]] if len(names) > _TOLD else [])]
            figure.legend(lines, labels, loc="outside lower left", ncols=columns)
        return figure


def _draw(panel: Panel, axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(shown(panel.title), loc="left")
    axes.set_xlabel(shown(panel.x_label))
    axes.set_ylabel(shown(panel.y_label))
    if panel.log:
        _logarithmic(axes, "y")
    for place, curve in enumerate(panel.curves):
        x, y = _points(curve, log=panel.log)
        few = sum(value == value for value in y) <= 40
        axes.plot(x, y, color=_color(place, len(panel.curves)), marker="." if few else "")
    if all(map(_is_whole, (value for curve in panel.curves for value in curve.x))):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))  # there is no epoch 0.5
    _without_offset(axes)


def _is_whole(value: Any) -> bool:
    return value is None or isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _color(place: int, among: int) -> Any:
    import matplotlib

    if among <= 10:
        return matplotlib.colormaps["tab10"](place)
    return matplotlib.colormaps["viridis"](place / (among - 1))


def scatter_figure(x: Axis, y: Axis, *, title: str = "") -> Figure:
    """A point for each run. The scale of a hyperparameter is logarithmic where it spans decades, or has its values as names."""
    with _matplotlib():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.set_title(shown(title), loc="left")
        across, up = _Scale.of(x), _Scale.of(y)
        axes.set_xlabel(shown(x.name))
        axes.set_ylabel(shown(y.name))
        across.onto(axes, "x")
        up.onto(axes, "y")
        axes.scatter(across.places, up.places, s=28, alpha=0.75, linewidths=0, clip_on=False)
        return figure


def parallel_figure(axes: Sequence[Axis], *, title: str = "") -> Figure:
    """A line for each run over an axis for each hyperparameter; the last axis, the result, gives it its colour."""
    with _matplotlib():
        import matplotlib
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure

        scales = [_Scale.of(axis) for axis in axes]
        figure = Figure(figsize=(max(6.0, 1.7 * len(axes)), 4.5), layout="constrained")
        host = figure.subplots()
        host.set_title(shown(title), loc="left", pad=24)
        host.set_xlim(0, max(1, len(axes) - 1))
        host.set_ylim(0, 1)
        host.set_yticks([])
        host.grid(visible=False)
        host.spines[["left", "bottom"]].set_visible(False)
        host.tick_params(bottom=False, labelbottom=False, top=False, labeltop=True)
        host.set_xticks(range(len(axes)), [shown(axis.name, 24) for axis in axes])
        for place, scale in enumerate(scales):
            upright = host.twinx()
            upright.spines[["left", "bottom", "top"]].set_visible(False)
            upright.spines["right"].set_visible(True)
            upright.spines["right"].set_position(("data", place))
            upright.grid(visible=False)
            low, high = scale.limits()
            scale.onto(upright, "y")
            upright.set_ylim(low, high)
            for label in upright.get_yticklabels():
                label.set_bbox({"facecolor": "white", "alpha": 0.7, "pad": 0.5, "linewidth": 0})
        heights = [scale.heights() for scale in scales]
        runs = [list(enumerate(values)) for values in zip(*heights, strict=True)]
        lines = LineCollection(
            runs,
            array=[values[-1][1] for values in runs],
            cmap=matplotlib.colormaps["viridis"],
            alpha=0.7,
            linewidths=1.2,
            clip_on=False,
        )
        lines.set_clim(0, 1.1)  # without the palest colours
        host.add_collection(lines, autolim=False)
        return figure


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where the values of an axis lie: numbers as they are, and names by their order."""

    places: Sequence[float]
    names: Sequence[str] = ()
    log: bool = False
    ticks: Sequence[float] = ()

    @classmethod
    def of(cls, axis: Axis) -> _Scale:
        there = [value for value in axis.values if value is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in there):
            numbers = [number(value) for value in axis.values]
            known = [value for value in numbers if value == value]
            wide = bool(known) and min(known) > 0 and max(known) >= _DECADES * min(known)
            if axis.log is not None:
                is_log = axis.log and any(value > 0 for value in known)
                return cls([value if value > 0 or not is_log else math.nan for value in numbers], log=is_log)
            return cls(numbers, log=wide)._with_ticks()
        texts = ["" if value is None else shown(record.brief(value), 20) for value in axis.values]
        kinds = sorted({text for text in texts if text}, key=lambda text: texts.index(text))
        places = [float(kinds.index(text)) if text else math.nan for text in texts]
        return cls(places, kinds[:: max(1, len(kinds) // 20)], ticks=range(0, len(kinds), max(1, len(kinds) // 20)))

    def _with_ticks(self) -> _Scale:
        """With ticks at its values, where they are few and apart."""
        values = sorted({value for value in self.places if value == value})
        heights = sorted({height for height in self.heights() if height == height})
        apart = all(after - before > 0.06 for before, after in itertools.pairwise(heights))
        return replace(self, names=[f"{value:g}" for value in values], ticks=values) if apart and values else self

    def limits(self) -> tuple[float, float]:
        known = [value for value in self.places if value == value] or [1.0]
        low, high = min(known), max(known)
        if low == high:
            low, high = (low / 2, high * 2) if self.log else (low - 0.5, high + 0.5)
        return low, high

    def heights(self) -> list[float]:
        """Each value between 0, the lowest limit, and 1."""
        low, high = self.limits()
        if self.log:
            return [math.log(value / low) / math.log(high / low) for value in self.places]
        return [(value - low) / (high - low) for value in self.places]

    def laid(self, values: Sequence[float]) -> list[float]:
        """Where the values lie on a plain scale: that of plotext loses its ticks where it is logarithmic."""
        return [math.log10(value) for value in values] if self.log else list(values)

    def onto(self, axes: Axes, which: str) -> None:
        if self.log:
            _logarithmic(axes, which)
        if self.names:
            (axes.set_xticks if which == "x" else axes.set_yticks)(self.ticks, self.names)
            (axes.xaxis if which == "x" else axes.yaxis).set_ticks([], minor=True)


def _logarithmic(axes: Axes, which: str) -> None:
    """Make a scale logarithmic, with numbers at its ticks that no formula spells."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="mask")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _without_offset(axes: Axes) -> None:
    from matplotlib.ticker import ScalarFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(formatter := axis.get_major_formatter(), ScalarFormatter):
            formatter.set_useOffset(False)


def svg(figure: Figure) -> str:
    """The chart as SVG in one piece, the same each time; names are text in it, and nothing else."""
    with _matplotlib():
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return out.getvalue().decode()


def png(figure: Figure) -> bytes:
    """The chart as PNG."""
    with _matplotlib():
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
        return out.getvalue()


@contextmanager
def _matplotlib() -> Iterator[None]:
    """matplotlib as it is by itself, and as numb wants it. Raises `NotPossible` where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise NotPossible("matplotlib, which draws pictures, is not installed", "pip install 'numb[plot]'") from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a character that no font here has, or of too little room
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_OURS)
        yield


# Text


def curves_text(
    curves: Sequence[Curve],
    width: int,
    height: int,
    *,
    title: str = "",
    x_label: str = "",
    log: bool = False,
    color: bool = False,
    ascii: bool = False,
) -> str:
    """Curves as at most *height* lines of at most *width* characters, with their names below.

    Without *color* each curve has a sign of its own, and there are no escape sequences in the text; with *ascii* nothing but
    ASCII.
    """
    several = len(curves) > 1
    legend = []
    if several and width > 3:
        told = curves[: max(1, height // 3)]
        legend = [(place, shown(curve.label, width - 2, ascii=ascii)) for place, curve in enumerate(told)]
        if len(told) < len(curves):
            legend[-1] = (-1, f"and {len(curves) - len(told) + 1} more"[: width - 2])
    signals = []
    for place, curve in enumerate(curves):
        x, y = _points(curve, log=log, most=max(1, width))
        sign = _sign(place, color=color, ascii=ascii) if several or ascii else None
        signals.append(_Signal(x, y, sign or _DOTS, place, is_line=True))
    title = title or (curves[0].label if curves and not several else "")
    across = _Scale((), ticks=_whole_ticks(signals))
    frame = _Frame(width, height - len(legend), title, x_label, across, _Scale((), log=log), color, ascii)
    marks = [" " if place < 0 else _sign(place, color=color, ascii=ascii) or "━" for place, _ in legend]
    below = [f"{_painted(mark, place, color)} {text}" for mark, (place, text) in zip(marks, legend, strict=True)]
    return "\n".join([frame.drawn(signals), *below])


def scatter_text(
    x: Axis, y: Axis, width: int, height: int, *, title: str = "", color: bool = False, ascii: bool = False
) -> str:
    """What `scatter_figure` draws, as text: see `curves_text`."""
    across, up = _Scale.of(x), _Scale.of(y)
    frame = _Frame(width, height, title or y.name, x.name, across, up, color, ascii)
    pairs = [(a, b) for a, b in zip(across.places, up.places, strict=True) if a == a and b == b]
    sign = _SIGNS[2] if ascii else "●"
    return frame.drawn([_Signal([a for a, _ in pairs], [b for _, b in pairs], sign, 0, is_line=False)])


def _whole_ticks(signals: Sequence[_Signal]) -> Sequence[float]:
    """Ticks at whole numbers, where x is nothing else."""
    places = [x for signal in signals for x, y in zip(signal.x, signal.y, strict=True) if y == y]
    if not places or not all(float(x).is_integer() for x in places):
        return ()
    low, high = int(min(places)), int(max(places))
    return [float(tick) for tick in range(low, high + 1, max(1, math.ceil((high - low) / 6)))]


def _spelled(tick: float) -> str:
    """`0.0316`, and steps in full as long as they are no millions."""
    return f"{tick:.7g}" if float(tick).is_integer() else f"{tick:.3g}"


def _logarithmic_ticks(values: Sequence[float]) -> Sequence[float]:
    """Powers of ten among the values, or where these are too few five ticks at equal distances."""
    if not values:
        return ()
    low, high = math.log10(min(values)), math.log10(max(values))
    powers = range(math.ceil(low), math.floor(high) + 1)
    if len(powers) > 1:
        return [10.0**power for power in powers[:: max(1, len(powers) // 8)]]
    return sorted({10 ** (low + (high - low) * part / 4) for part in range(5)})


def _sign(place: int, *, color: bool, ascii: bool) -> str | None:
    """With what a curve is drawn that no colour of its own tells from the others."""
    return None if color and not ascii and place < len(_COLORS) else _SIGNS[place % len(_SIGNS)]


def _painted(text: str, place: int, color: bool) -> str:
    return f"\033[38;5;{_COLORS[place % len(_COLORS)]}m{text}\033[0m" if color and place >= 0 else text


@dataclass(frozen=True, slots=True)
class _Signal:
    """Points, how they are drawn, and their place in the order of colours."""

    x: Sequence[float]
    y: Sequence[float]
    sign: str
    place: int
    is_line: bool


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around points in a terminal."""

    width: int
    height: int
    title: str
    x_label: str
    across: _Scale
    up: _Scale
    color: bool
    ascii: bool

    def drawn(self, signals: Sequence[_Signal]) -> str:
        """The points in it. Raises `NotPossible` where plotext is not installed."""
        try:
            import plotext
        except ImportError:
            raise NotPossible("plotext, which draws in a terminal, is not installed", "pip install plotext") from None
        plotext.terminal.limit(False, False)
        figure = plotext.figure.clear()
        figure.plot_size(max(1, self.width), max(1, self.height))
        figure.theme("simple" if self.color else "colorless")
        figure.legend(False)
        figure.title(shown(self.title, self.width, ascii=self.ascii))
        figure.label(shown(self.x_label, self.width, ascii=self.ascii), "x")
        for name, scale in (("x", self.across), ("y", self.up)):
            places = [at for each in signals for at in (each.x if name == "x" else each.y) if at == at]
            ticks = scale.ticks or (_logarithmic_ticks(places) if scale.log else ())
            laid = scale.laid(places)
            if laid and min(laid) == max(laid):
                ticks, around = ticks or places[:1], abs(laid[0]) / 2 or 1.0
                figure.ruler(name).lim(laid[0] - around, laid[0] + around)
            if ticks:
                names = [shown(text, ascii=self.ascii) for text in scale.names] or [_spelled(tick) for tick in ticks]
                figure.ruler(name).ticks(scale.laid(ticks), names)
        for signal in signals:
            there = [place for place, y in enumerate(signal.y) if y == y]
            if not there:
                continue
            marker = plotext.marker(signal.sign, pixel=(_COLORS[signal.place % len(_COLORS)],) if self.color else None)
            x, y = [signal.x[at] for at in there], [signal.y[at] for at in there]
            points = figure.signal(self.across.laid(x), self.up.laid(y), marker=marker)
            if signal.is_line:
                points.lines(True)
                for index, at in enumerate(there):
                    if index and there[index - 1] != at - 1:
                        points.line(index, False)
            figure.draw(points)
        text = str(figure.build().string(colorless=not self.color))
        figure.clear()
        text = text.rstrip("\n") if self.color else "\n".join(line.rstrip() for line in text.splitlines())
        return text.translate(_ASCII) if self.ascii else text


def shown(text: str, width: int = _LABEL, *, ascii: bool = False) -> str:
    """A name as it stands in a chart: on one line, without control characters, cut to so many characters."""
    text = printable(text[: 2 * _LABEL])
    if ascii:
        text = text.translate(_ASCII).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= width else text[: max(0, width - 1)] + ("~" if ascii else "…")[: max(0, width)]


def _points(curve: Curve, *, log: bool, most: int = MOST) -> tuple[Sequence[float], Sequence[float]]:
    """What of a curve can be drawn; gaps are NaN."""
    x = numbers(curve.x)
    y = [value if at == at else math.nan for at, value in zip(x, numbers(curve.y), strict=True)]
    if log:
        y = [value if value > 0 else math.nan for value in y]
    return thinned(x, y, most)
