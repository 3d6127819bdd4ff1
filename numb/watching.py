"""What a run does just now, for who watches it: how far it is, its last numbers, the machine, the end of its output.

A `Watched` keeps its place in the files of a run in flight, and reads what has come since it looked last. What it keeps of a
curve has a limit, however long the run is.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from numb import inflight, record
from numb.errors import RunNotFound
from numb.journal import SYSTEM, USUAL, Block, Reader, summed
from numb.record import Run, Summary

if TYPE_CHECKING:
    from numb.project import Project

_POINTS = 256  # of a curve, before every other one is dropped
_TAIL = 1 << 14  # bytes of the output
_LINES = 50
_PATIENCE = 10  # looks that a run which has ended is waited for on the branch
_ALIVE = 5.0  # seconds between two looks whether a launcher lives
_COUNTS = ("step", "global_step", "iteration", "iter", "batch", "epoch")  # the finest first


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: how many of its steps, or epochs, are *done*; of how many in all, where a hyperparameter says it."""

    field: str = ""
    value: float | None = None  # what was logged last
    done: float | None = None
    total: float | None = None
    pace: float | None = None  # seconds for one
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Numbers over time, thinned: where each belongs (by the first field of its series), and what it is."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class State:
    """A run as it is at one moment."""

    run: Run
    moment: float
    is_live: bool
    progress: Progress = Progress()
    last: Mapping[str, Summary] = field(default_factory=dict)  # of each number that it logs
    curves: tuple[tuple[Curve, ...], ...] = ()  # what is drawn together; the first matters most
    rows: int = 0
    system: Mapping[str, float] = field(default_factory=dict)
    checkpoint: int | None = None  # the step of the last one
    errors: tuple[str, ...] = ()
    output: tuple[str, ...] = ()  # its last lines, as they were printed

    @property
    def seconds(self) -> float:
        """How long it has taken, or takes by now."""
        if self.run.seconds is not None and not self.is_live:
            return self.run.seconds
        before = self.run.segments[-1].seconds or 0.0 if self.run.segments else 0.0
        return max(0.0, before + self.moment - _began(self.run))


def chosen(project: Project, names: Sequence[str]) -> list[Watched]:
    """The runs of these names; without one those in flight, or the newest. Raises `RunNotFound`."""
    project.branch.recover()
    lefts = [left for left in inflight.all_left(project.layout) if left.run is not None]
    flying = {left.run.id: left.run for left in lefts if left.run is not None}
    if names:
        found = [flying.get(run.id, run) for run in map(project.find, names)]
        return [Watched(project, run) for run in {run.id: run for run in found}.values()]
    here = [run for run in flying.values() if run.project == project.place and run.in_flight]
    return [Watched(project, run) for run in here or [project.newest()]]


class Watched:
    """One run that is looked at again and again."""

    def __init__(self, project: Project, run: Run) -> None:
        self.run = run
        self.has_ended = False
        self._project = project
        self._folder = project.layout.run(run.id)
        self._readers = [Reader(path) for path in self._folder.journals]
        self._numbers = _Numbers(_began(run))
        self._told = inflight.Told()
        self._events: tuple[int, int] | None = None  # size and time of what `_told` was read from
        self._output: tuple[str, ...] = ()
        self._printed = -1  # bytes, when it was read
        self._looked_alive = 0.0
        self._looks_left = _PATIENCE

    def look(self) -> State:
        """What is so now. `has_ended` says whether it will be so for ever."""
        if self.run.commit is None and not self._is_in_flight():
            self._look_for_it()
        if self.run.commit is not None:
            return self._ended()
        for reader in self._readers:
            self._numbers.add(reader.blocks())
        self._listen()
        self._read_output()
        if not self._looks_left:
            self.has_ended = True
        told = self._told
        run = replace(self.run, models=told.models, params={**self.run.params, **told.params}, results=told.results)
        errors = (*told.errors, *([told.exception.strip().splitlines()[-1]] if told.exception else []))
        return self._state(run, max(told.checkpoints, default=None), errors, is_live=not self.has_ended)

    def _look_for_it(self) -> None:
        """On the branch, where it is a moment after it has ended."""
        self._looks_left -= 1
        try:
            found = self._project.find(self.run.id)
            if len(found.segments) >= len(self.run.segments):  # and not what it was before it was resumed
                self.run = found
        except RunNotFound:  # it was refused, or removed
            self.run = replace(self.run, status=record.LOST, reason="it was not kept")
            self._looks_left = 0

    def _is_in_flight(self) -> bool:
        """Whether the run has its folder, and somebody to keep it."""
        try:
            run = Run.from_json(inflight.InFlight(self._folder).state()["run"])
        except (OSError, ValueError, KeyError):
            return self._folder.path.exists() and self._looks_left == _PATIENCE
        self.run = run
        if (now := time.monotonic()) - self._looked_alive > _ALIVE:
            self._looked_alive = now
            if not any(left.running and left.flight.folder.path == self._folder.path for left in self._lefts()):
                self._project.branch.recover()
                return self._folder.path.exists()
        return run.in_flight

    def _lefts(self) -> list[inflight.Left]:
        return inflight.all_left(self._project.layout)

    def _ended(self) -> State:
        """The state of a run that is on the branch: all of its rows, the end of its output."""
        if not self.has_ended:
            self.has_ended = True
            self._numbers = _Numbers(_began(self.run))
            for name in self.run.series:
                self._numbers.add(self._project.series(self.run, name))
            self._output = _lines(self._project.log(self.run)[-_TAIL:])
        steps = [kept.step for kept in self.run.checkpoints]
        errors = tuple(note for note in self.run.notes if note.startswith("numb: "))
        if self.run.reason and self.run.status != record.COMPLETE:
            errors = (*errors, self.run.reason)
        return self._state(self.run, max(steps, default=None), errors, is_live=False)

    def _state(self, run: Run, checkpoint: int | None, errors: tuple[str, ...], *, is_live: bool) -> State:
        numbers, moment = self._numbers, time.time()
        return State(
            run=run,
            moment=moment,
            is_live=is_live,
            progress=numbers.progress(run.params, moment if is_live else None),
            last=dict(numbers.last),
            curves=numbers.drawn(),
            rows=numbers.rows,
            system=dict(numbers.system) if is_live else {},
            checkpoint=checkpoint,
            errors=errors,
            output=self._output,
        )

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            found = self._folder.events.stat()
            if (found.st_size, found.st_mtime_ns) != self._events:
                self._events = found.st_size, found.st_mtime_ns
                self._told = inflight.InFlight(self._folder).told()

    def _read_output(self) -> None:
        with contextlib.suppress(OSError), self._folder.log.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) != self._printed:
                self._printed = size
                file.seek(max(0, size - _TAIL))
                self._output = _lines(file.read())


def _began(run: Run) -> float:
    """When it began, or has gone on."""
    return run.segments[-1].resumed if run.segments else run.started


def _lines(content: bytes) -> tuple[str, ...]:
    """The last lines; of one that was drawn over, what was drawn last."""
    lines = content.decode(errors="replace").replace("\r\n", "\n").rstrip("\n").split("\n")[-_LINES:]
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return tuple(_CONTROL.sub("", line).expandtabs(4) for line in shown) if content else ()


_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")  # colours, movements, titles


class _Points:
    """A curve of any length in so many points."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self.y: list[float] = []
        self._last: tuple[float, float] | None = None
        self._every, self._seen = 1, 0

    def add(self, x: float, y: float) -> None:
        if self._seen % self._every == 0:
            self.x.append(x)
            self.y.append(y)
            if len(self.x) > _POINTS:
                del self.x[1::2], self.y[1::2]
                self._every *= 2
        self._seen += 1
        self._last = x, y

    def curve(self, name: str) -> Curve:
        ends = [self._last] if self._last and self._every > 1 else []
        return Curve(name, (*self.x, *(x for x, _ in ends)), (*self.y, *(y for _, y in ends)))


@dataclass(frozen=True, slots=True)
class _Count:
    """A count such as the step: its first value; with their times, the first of this part of the run, and the last."""

    first: float
    begin: tuple[float, float] | None
    last: tuple[float, float]


class _Numbers:
    """What the rows of a run add up to."""

    def __init__(self, began: float) -> None:
        self.rows = 0
        self.last: dict[str, Summary] = {}
        self.system: dict[str, float] = {}
        self._began = began  # what came before is of an earlier part of the run
        self._points: dict[str, _Points] = {}
        self._counts: dict[str, _Count] = {}

    def add(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            columns: dict[str, Sequence[Any]] = dict(zip(block.fields, block.columns, strict=True))
            rows = range(self.rows, self.rows + len(block.times))
            self.rows = rows.stop
            if block.series == SYSTEM:
                self.system = {name: column[-1] for name, column in columns.items() if _is_number(column[-1])}
                continue
            if len(columns) == 1:  # nothing says where they belong
                columns = {"": rows, **columns}
            firsts = next(iter(columns.values()), ())
            for place, (name, column) in enumerate(columns.items()):
                if name.lower() in _COUNTS:
                    self._count(name, column, block.times)
                    continue
                if place == 0 or not any(map(_is_number, column)):
                    continue
                whole = name if block.series == USUAL else f"{block.series}.{name}"
                self.last[whole] = summed(self.last.get(whole, Summary()), column, firsts)
                points = self._points.setdefault(whole, _Points())
                for x, y in zip(firsts, column, strict=True):
                    if _is_number(x) and _is_number(y):
                        points.add(x, y)

    def _count(self, name: str, column: Sequence[Any], times: Sequence[float]) -> None:
        found = [(value, at) for value, at in zip(column, times, strict=True) if _is_number(value)]
        if found:
            begin = next(((v, at) for v, at in found if at >= self._began), None)
            known = self._counts.get(name) or _Count(found[0][0], None, found[0])
            self._counts[name] = replace(known, begin=known.begin or begin, last=found[-1])

    def progress(self, params: Mapping[str, Any], now: float | None) -> Progress:
        """How far it is by the finest count that has an end, or by the finest; *now* where it goes on."""
        known = sorted(self._counts, key=lambda name: _COUNTS.index(name.lower()))
        totals = {name: _total(name, params) for name in known}
        name = next((name for name in known if totals[name] is not None), next(iter(known), None))
        if name is None:
            return Progress()
        count, total = self._counts[name], totals[name]
        value, at = count.last
        start, began = count.begin or count.last
        done = value + 1 if count.first == 0 else value  # they count from 0, or from 1
        pace = (at - began) / (value - start) if value > start and at > began else None
        left = None
        if now is not None and pace is not None and total is not None:
            left = max(0.0, (total - done) * pace - (now - at))
        return Progress(name, value, done, total, pace, left)

    def drawn(self) -> tuple[tuple[Curve, ...], ...]:
        """Losses together, and learning rates; where there is neither, the first numbers that there are."""
        names = list(self._points)
        losses = [name for name in names if "loss" in name.lower()][:3]
        rates = [name for name in names if re.search(r"(?i)(?<![a-z])lr(?![a-z])|learning_?rate", name)][:2]
        others = [name for name in names if name not in losses + rates]
        groups = [losses or others[:1], rates or (others[:1] if losses else others[1:2])]
        return tuple(tuple(self._points[name].curve(name) for name in group) for group in groups if group)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _total(name: str, params: Mapping[str, Any]) -> float | None:
    """How many steps, or epochs, there are to be, by a hyperparameter with a name such as `epochs` or `max_steps`."""
    word = name.lower().removeprefix("global_")
    meant = re.compile(rf"((max|num|n|nb|total|train)_?)?{word}s|(max|num|total)_{word}", re.IGNORECASE)
    for full, value in record.flat(params).items():
        if meant.fullmatch(full.rpartition(".")[2]) and _is_number(value) and value > 0:
            return float(value)
    return None
