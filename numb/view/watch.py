"""Runs as they go on, in a terminal: rich lays out, plotext draws. What matters least is dropped where there is no room."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from numb import record
from numb.errors import printable
from numb.record import Run, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from numb.watching import Curve, Progress, State

_NARROW = 40  # columns of a run beside another
_LOWEST = 7  # lines of a curve with its axes
_HIGHER_IS_BETTER = (
    "acc",
    "score",
    "auc",
    "precision",
    "recall",
    "iou",
    "map",
    "bleu",
    "reward",
    "dice",
    "psnr",
    "top",
)
_STYLES = {record.RUNNING: "cyan", record.COMPLETE: "green", record.INCOMPLETE: "yellow"}
_COLORS = ("cyan", "magenta", "yellow")
_ASCII = str.maketrans("…·×│┤├─┌┐└┘┬┴┼", "~.x|++-+++++++")


class Screen:
    """The picture of some runs, drawn again and again; a curve only when it has new points, or another size."""

    def __init__(self, *, color: bool, ascii: bool = False) -> None:
        self._color, self._ascii = color, ascii
        self._drawn: dict[tuple[str, int, int, int, int], Text] = {}  # by run, its rows, place and size

    def picture(self, states: Sequence[State], width: int, height: int) -> RenderableType:
        """All of it, in so many columns and lines: beside each other where there is room, and below."""
        from rich.console import Group
        from rich.table import Table

        across = max(1, min(len(states), width // _NARROW))
        down = -(-len(states) // across)
        each = max(2, (height - 1) // down)
        shown = states[: across * max(1, (height - 1) // each)]
        columns = (width + 1) // across - 1
        self._drawn = {key: text for key, text in self._drawn.items() if (key[0], key[1]) in _versions(shown)}
        table = Table.grid(padding=(0, 1, 0, 0))
        for _ in range(across):
            table.add_column(width=columns, no_wrap=True)
        for first in range(0, len(shown), across):
            table.add_row(*(Group(*self._run(state, columns, each)) for state in shown[first : first + across]))
        hidden = len(states) - len(shown)
        return Group(table, self._text(f"and {record.counted(hidden, 'more run')}", width)) if hidden else table

    def _run(self, state: State, width: int, height: int) -> list[RenderableType]:
        """One run in at most so many lines. Of these, the first that are made here are the last to go."""
        lines: list[RenderableType] = [self._header(state, width), self._progress(state, width)]
        left = height - len(lines)
        facts = [
            *((text, "") for text in values(state, width)[: max(1, height // 5)]),
            *((f"error: {text}", "red") for text in state.errors[-1:]),
            (machine(state.system), ""),
            (params(state), "dim"),
        ]
        told = [self._text(text, width, style) for text, style in facts if text][: max(0, left)]
        left -= len(told)
        output = [line for line in state.output if line.strip()]
        drawn: list[RenderableType] = []
        if state.curves and left >= _LOWEST:
            tail = min(len(output), max(0, left - _LOWEST), max(3, left // 4))
            drawn = self._curves(state, width, left - tail)
            left = tail
        tail_lines = [self._text(text, width, "dim") for text in output[len(output) - min(left, len(output)) :]]
        return [*lines, *told, *drawn, *tail_lines]

    def _header(self, state: State, width: int) -> Text:
        from rich.text import Text

        text = Text()
        text.append(self._fitting(state.run.id), "bold")
        text.append("  " + self._fitting(_status(state)), _STYLES.get(state.run.status, "" if state.is_live else "red"))
        rest = (state.run.network, duration(state.seconds), state.run.message)
        text.append(self._fitting("".join(f"  {each}" for each in rest if each not in ("", "-"))))
        return self._cut(text, width)

    def _progress(self, state: State, width: int) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        said, rest = counted(state.progress), remaining(state)
        room = width - len(said) - len(rest) - 2
        if state.progress.total is None or state.progress.done is None or room < 5:
            return self._text("  ".join(filter(None, (said, rest))) or "nothing logged yet", width)
        bar = ProgressBar(state.progress.total, min(state.progress.done, state.progress.total), width=min(room, 40))
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(self._text(said, width), bar, self._text(rest, width))
        return line

    def _curves(self, state: State, width: int, height: int) -> list[RenderableType]:
        from rich.table import Table

        groups = state.curves
        if len(groups) > 1 and width >= 2 * _NARROW:
            line = Table.grid(padding=(0, 1, 0, 0))
            half = (width - 1) // 2
            line.add_row(*(self._curve(state, place, half, height) for place in range(2)))
            return [line]
        if len(groups) > 1 and height >= 2 * _LOWEST:
            return [self._curve(state, place, width, height // 2) for place in range(2)]
        return [self._curve(state, 0, width, height)]

    def _curve(self, state: State, place: int, width: int, height: int) -> Text:
        from rich.text import Text

        key = (state.run.id, state.rows, place, width, height)
        if key not in self._drawn:
            drawn = curves(state.curves[place], width, height, color=self._color, ascii=self._ascii)
            self._drawn[key] = Text.from_ansi(drawn, no_wrap=True)
        return self._drawn[key]

    def _text(self, text: str, width: int, style: str = "") -> Text:
        from rich.text import Text

        return self._cut(Text(self._fitting(text), style, no_wrap=True), width)

    def _cut(self, text: Text, width: int) -> Text:
        if text.cell_len > width:
            text.truncate(width - 1)
            text.append("~" if self._ascii else "…")
        text.no_wrap = True
        return text

    def _fitting(self, text: str) -> str:
        """What a terminal shows as it stands there."""
        text = printable(text)
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self._ascii else text


def _versions(states: Sequence[State]) -> set[tuple[str, int]]:
    return {(state.run.id, state.rows) for state in states}


def curves(group: Sequence[Curve], width: int, height: int, *, color: bool, ascii: bool = False) -> str:
    """Curves in one frame, of exactly so many columns and lines; with *color* as a terminal takes it."""
    import plotext

    plotext.terminal.limit(False, False)
    figure = plotext.figure.clear()
    figure.plot_size(width, height)
    figure.theme("simple" if color else "colorless")
    figure.legend(False)
    title = ", ".join(printable(curve.name) for curve in group)
    figure.title(title[:width].encode("ascii", "backslashreplace").decode()[:width] if ascii else title[:width])
    for place, curve in enumerate(group):
        pixel = (_COLORS[place % len(_COLORS)],) if color else None
        signal = figure.signal(
            list(curve.x), list(curve.y), marker=plotext.marker("*" if ascii else "braille", pixel=pixel)
        )
        signal.lines(len(curve.x) > 1)
        figure.draw(signal)
    text = str(figure.build().string(colorless=not color)).rstrip("\n")
    figure.clear()
    return text.translate(_ASCII) if ascii else text


def plain(states: Sequence[State]) -> str:
    """Runs as they are now, as lines for whoever reads no terminal."""
    return "\n\n".join("\n".join(_plain(state)) for state in states)


def _plain(state: State) -> Iterator[str]:
    run = state.run
    rest = (run.network, duration(state.seconds), run.message)
    yield "  ".join([run.id, printable(_status(state)), *(printable(each) for each in rest if each not in ("", "-"))])
    yield "  ".join(filter(None, (counted(state.progress), remaining(state)))) or "nothing logged yet"
    for text in (params(state), *values(state, 1), machine(state.system), *(f"error: {each}" for each in state.errors)):
        if text:
            yield printable(text)
    yield from (f"| {printable(line)}".rstrip() for line in state.output[-10:])


def final(state: State) -> str:
    """A run that has ended, in one line."""
    last = [f"{name} {record.brief(summary.last)}" for name, summary in list(state.last.items())[:5]]
    said = [state.run.id, _status(state), duration(state.seconds), counted(state.progress), *last]
    return printable("  ".join(filter(None, said)))


def facts(states: Sequence[State]) -> str:
    """What is known about each run just now, a line for each fact that there is."""
    return "\n\n".join(
        "\n".join(f"{name:<11} {printable(text)}" for name, text in _facts(state) if text) for state in states
    )


def _facts(state: State) -> Iterator[tuple[str, str]]:
    run = state.run
    yield "run", "  ".join(each for each in (run.id, run.network, run.message) if each not in ("", "-"))
    yield "status", run.status if run.reason is None else f"{run.status}: {run.reason}"
    yield "began", _beginning(run)
    yield "time", duration(state.seconds)
    yield "progress", "  ".join(filter(None, (counted(state.progress), remaining(state))))
    yield "queue", run.queue or ""
    yield "last", "   ".join(values(state, 0))
    yield "results", " ".join(f"{name}={record.brief(value)}" for name, value in record.flat(run.results).items())
    for error in state.errors:
        yield "error", error


def _beginning(run: Run) -> str:
    """How its training began: `new`, after a step of its own, or with the weights of another run."""
    return f"resumed after step {run.segments[-1].step}" if run.segments else str(run.init_from or "new")


def as_json(states: Sequence[State]) -> str:
    """A JSON list of what is known about each run just now."""
    return json.dumps([_plainly(state) for state in states], indent=2, ensure_ascii=False, allow_nan=False)


def _plainly(state: State) -> dict[str, Any]:
    run, progress = state.run, state.progress
    total, done = progress.total, progress.done
    return {
        "id": str(run.id),
        "status": run.status,
        "reason": run.reason,
        "network": run.network,
        "message": run.message,
        "queue": run.queue,
        "began": _beginning(run),
        "started": run.started,
        "seconds": round(state.seconds, 3),
        "progress": {
            "field": progress.field or None,
            "value": record.encode(progress.value),
            "done": record.encode(done),
            "total": total,
            "percent": round(100 * min(1.0, done / total), 2) if total and done is not None else None,
            "seconds_left": progress.seconds_left and round(progress.seconds_left, 1),
        },
        "params": {name: record.encode(value, name) for name, value in run.params.items()},
        "results": {name: record.encode(value, name) for name, value in run.results.items()},
        "last": {
            name: {
                "value": record.encode(each.last),
                "lowest": record.encode(each.lowest),
                "lowest_at": record.encode(each.lowest_at),
                "highest": record.encode(each.highest),
                "highest_at": record.encode(each.highest_at),
            }
            for name, each in state.last.items()
        },
        "checkpoint": state.checkpoint,
        "system": dict(state.system),
        "errors": list(state.errors),
        "log": list(state.output[-10:]),
    }


# Pieces


def _status(state: State) -> str:
    run = state.run
    return run.status if run.reason is None or run.status == record.COMPLETE else f"{run.status}: {run.reason:.60}"


def counted(progress: Progress) -> str:
    """`step 10/100`, or how far it is where nobody says how far there is to go."""
    if progress.value is None:
        return ""
    if progress.total is None or progress.done is None:
        return f"{progress.field} {progress.value:g}"
    return f"{progress.field} {progress.done:g}/{progress.total:g}"


def remaining(state: State) -> str:
    progress = state.progress
    said = []
    if progress.total and progress.done is not None:
        said.append(f"{100 * min(1.0, progress.done / progress.total):.0f} %")
    if progress.seconds_left is not None:
        said.append(f"{duration(progress.seconds_left)} left")
    elif state.is_live and progress.value is not None and progress.total is None:
        said.append("of an unknown number")
    if state.checkpoint is not None:
        said.append(f"checkpoint {state.checkpoint}")
    return "  ".join(said)


def duration(seconds: float) -> str:
    """`0:01:05`."""
    return str(timedelta(seconds=int(min(seconds, 10**9))))


def params(state: State) -> str:
    return " ".join(f"{name}={record.brief(value)}" for name, value in record.flat(state.run.params).items())


def values(state: State, width: int) -> list[str]:
    """The last value of each field, and the best so far; as many on a line as *width* takes."""
    lines: list[str] = []
    for name, summary in state.last.items():
        text = f"{name} {record.brief(summary.last)}{_best(name, summary)}"
        if lines and len(lines[-1]) + 3 + len(text) <= width:
            lines[-1] += f"   {text}"
        else:
            lines.append(text)
    return lines


def _best(name: str, summary: Summary) -> str:
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*", name)
    if record.lower_is_better(name):
        value, place = summary.lowest, summary.lowest_at
    elif any(word.lower().startswith(_HIGHER_IS_BETTER) for word in words):
        value, place = summary.highest, summary.highest_at
    else:
        return ""
    at = "" if place is None else f" at {record.brief(place)}"
    return "" if value is None else f" (best {record.brief(value)}{at})"


def machine(system: Mapping[str, float]) -> str:
    """What the run needs of the machine."""
    said = []
    if "cpu" in system:
        said.append(f"cpu {system['cpu']:.0f} %")
    if "memory" in system:
        said.append(f"memory {_bytes(system['memory'])} of {_bytes(system.get('machine_memory', 0))} used")
    gpus = dict.fromkeys(name.removesuffix("_memory") for name in system if name.startswith("gpu"))
    for gpu in gpus:
        use = [f"{system[gpu]:.0f} %"] if gpu in system else []
        room = [_bytes(system[f"{gpu}_memory"])] if f"{gpu}_memory" in system else []
        said.append(" ".join([gpu, *use, *room]))
    return "  ".join(said)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
