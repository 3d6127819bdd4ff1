"""`numb plot`: which numbers of which runs make a chart."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic, record, tables
from numb.errors import ArtifactMissing, NotPossible
from numb.journal import SYSTEM, USUAL
from numb.record import Run
from numb.view import plot
from numb.view.charts import Chart, Curves, Parallel, Scatter
from numb.view.plot import Axis, Curve, Panel
from numb.view.points import GAP, Mean, Thinned, number, numbers

if TYPE_CHECKING:
    from numb.journal import Block
    from numb.project import Project
    from numb.talk import Row

ROW, ELAPSED = "row", "elapsed"
_STEP = re.compile(r"(?:^|.*_)(?:step|epoch|it|iter|iteration|batch|time)s?(?:_idx)?")  # it says when, and not how good
_PANELS = 4  # at once, where none is asked for
_AXES = 30


@dataclass(frozen=True, slots=True)
class Source:
    """A field of a series."""

    series: str
    field: str

    def __str__(self) -> str:
        return self.field if self.series == USUAL else f"{self.series}:{self.field}"


# Curves


def curves(
    project: Project,
    names: Sequence[str],
    series: Sequence[str],
    x: str | None,
    window: int,
    *,
    log: bool,
    where: str | None = None,
) -> Curves:
    """What `Project.curves` says."""
    is_chosen = bool(names) or where is not None
    runs = [row.run for row in project.chosen(names, where)] if is_chosen else [project.newest()]
    if not runs:
        raise NotPossible(f"there is no run for which {where} holds", "numb list")
    known: dict[str, list[Source]] = {run.id: _sources(project, run) for run in runs}
    panels = [_asked(runs, known, text) for text in dict.fromkeys(series)] if series else _usual(project, runs, known)
    drawn = _drawn(project, runs, known, panels, x, window, log=log)
    if series and (empty := [panel for panel, lines in drawn if not lines]):
        raise NotPossible(f"there are no numbers of {', '.join(map(str, empty[0]))} yet", f"numb tail {runs[-1].id}")
    if not any(lines for _, lines in drawn):
        raise NotPossible(f"{runs[-1].id} has logged no numbers", f"numb logs {runs[-1].id}")
    for panel, lines in drawn:
        _tell_without(project, runs, panel, [line.run for line in lines])
    named = labels(runs)
    return Curves([_panel(panel, lines, named, log=log) for panel, lines in drawn if lines])


def _tell_without(project: Project, runs: Sequence[Run], panel: Sequence[Source], drawn: Sequence[Run]) -> None:
    """Say which runs are not in a frame that has others."""
    ids = {run.id for run in drawn}
    if ids and (without := [run.id for run in runs if run.id not in ids]):
        project.talk.say(f"not drawn, without numbers of {', '.join(map(str, panel))}: {record.some(without, 5)}")


def every(project: Project, run: Run, *, machine: bool = False) -> list[Panel]:
    """A frame for each field of a run that has numbers and is no step; or those of what it took of the *machine*.

    Raises what `Project.series` raises.
    """
    known = [each for each in _sources(project, run) if (each.series == SYSTEM) == machine]
    sources = [each for each in known if not _is_step(each.field) and _has_numbers([run], each)]
    sources = [each for each in sources if not machine or each.field != "seconds"]  # which is their x
    x = ELAPSED if machine else None
    drawn = _drawn(project, [run], {run.id: sources}, [[source] for source in sources], x, 1, log=False)
    frames = [(source, line) for (source,), lines in drawn for line in lines]
    return [replace(_panel([source], [line], {run.id: ""}, log=False), title=str(source)) for source, line in frames]


def _drawn(
    project: Project,
    runs: Sequence[Run],
    known: Mapping[str, Sequence[Source]],
    panels: Sequence[Sequence[Source]],
    x: str | None,
    window: int,
    *,
    log: bool,
) -> list[tuple[Sequence[Source], list[_Line]]]:
    """The lines of each panel; a series is read once, whatever is drawn of it."""
    wanted = {source for panel in panels for source in panel}
    read: dict[tuple[str, Source], _Line] = {}
    for run in runs:
        here = [source for source in known[run.id] if source in wanted]
        for each in dict.fromkeys(source.series for source in here):
            lines = [_Line(run, source, x, window, log=log) for source in here if source.series == each]
            for block in project.series(run, each):
                for line in lines:
                    line.add(block)
            read |= {(run.id, line.source): line for line in lines if line.has_numbers}
            if x not in (None, ROW, ELAPSED) and not any(line.has_x for line in lines):
                fields = ", ".join(source.field for source in known[run.id] if source.series == each)
                raise ArtifactMissing(f"{each} of {run.id} has no {x}; it has {fields}", f"numb plot --x {ROW}")
    return [
        (panel, [read[run.id, each] for run in runs for each in panel if (run.id, each) in read]) for panel in panels
    ]


def _sources(project: Project, run: Run) -> list[Source]:
    """The fields of a run, those of `numb.log` first, and last what it took of the machine."""
    found = tables.fields(project, run)
    ordered = sorted(found, key=lambda name: (name == SYSTEM, name != USUAL))
    return [Source(name, each) for name in ordered for each in found[name]]


def _asked(runs: Sequence[Run], known: Mapping[str, Sequence[Source]], text: str) -> list[Source]:
    """The fields that *text* names, one or several with commas between them. Raises `ArtifactMissing`."""
    there = list(dict.fromkeys(source for run in runs for source in known[run.id]))
    words = [text] if _named(there, text) else text.split(",")
    found = [_named(there, word.strip()) for word in words]
    if None in found:
        wrong, has = words[found.index(None)], record.some([str(source) for source in there], 20) or "no series"
        raise ArtifactMissing(f"there is no {wrong.strip()}; {_together(runs)} {has}", f"numb show {runs[-1].id}")
    return [source for source in found if source]


def _together(runs: Sequence[Run]) -> str:
    return f"{runs[0].id} has" if len(runs) == 1 else f"these {len(runs)} runs have"


def _named(there: Sequence[Source], text: str) -> Source | None:
    """A field of `numb.log` comes first, then `SERIES:FIELD` or `SERIES.FIELD`, then a field that only one series has."""
    exact = [source for source in there if text in (str(source), f"{source.series}:{source.field}")]
    dotted = [source for source in there if text == f"{source.series}.{source.field}"]
    alone = [source for source in there if text == source.field]
    return next(iter(exact or dotted or (alone if len(alone) == 1 else [])), None)


def _usual(project: Project, runs: Sequence[Run], known: Mapping[str, Sequence[Source]]) -> list[list[Source]]:
    """Where nothing is asked for: of the first series each field that is no step, losses first, as many as can be looked at."""
    there = list(dict.fromkeys(source for run in runs for source in known[run.id] if source.series != SYSTEM))
    if not there:
        raise NotPossible(
            f"{runs[-1].id} has logged no numbers; numb.log(step=step, loss=loss) in the script does",
            f"numb plot {runs[-1].id} --series {SYSTEM}:cpu --x {ELAPSED}",
        )
    first = next((source.series for source in there), None)
    fields = [source for source in there if source.series == first and _has_numbers(runs, source)]
    fields = [source for source in fields if not _is_step(source.field)] or fields
    fields.sort(key=lambda source: "loss" not in source.field.lower())
    if len(fields) > _PANELS:
        left = record.some([str(source) for source in fields[_PANELS:]])
        project.talk.say(f"there are also {left}: numb plot --series NAME")
    return [[source] for source in fields[:_PANELS]]


def _has_numbers(runs: Sequence[Run], source: Source) -> bool:
    """Whether a field can be drawn; of a run in flight that is not known yet."""
    kept = [run.series[source.series].fields.get(source.field) for run in runs if source.series in run.series]
    return any(run.commit is None for run in runs) or any(summary is not None and summary.count for summary in kept)


def _is_step(name: str) -> bool:
    return _STEP.fullmatch(name.lower()) is not None


@dataclass(slots=True)
class _Line:
    """A curve while the rows of its series go by, of which it keeps no more than can be drawn."""

    run: Run
    source: Source
    x: str | None
    window: int
    log: bool
    points: Thinned = field(default_factory=Thinned)
    label: str = ROW  # of its x
    rows: int = 0
    has_x: bool = False
    has_numbers: bool = False
    mean: Mean = field(init=False)

    def __post_init__(self) -> None:
        self.mean = Mean(self.window)

    def add(self, block: Block) -> None:
        columns = dict(zip(block.fields, block.columns, strict=True))
        started, self.rows = self.rows, self.rows + len(block.times)
        self.has_x |= self.x in columns
        if (values := columns.get(self.source.field)) is None:
            return
        places = self._places(block, columns, started)
        if None in values or any(at != at for at in places):  # what was not logged in a row is no gap
            logged = [value is not None and at == at for at, value in zip(places, values, strict=True)]
            places, values = list(itertools.compress(places, logged)), list(itertools.compress(values, logged))
        y = numbers(values)
        if self.window > 1:
            y = self.mean.over(y)
        if self.log:
            y = [value if value > 0 else GAP for value in y]
        self.has_numbers = self.has_numbers or any(value == value for value in y)
        self.points.add(places, y)

    def _places(self, block: Block, columns: Mapping[str, Sequence[Any]], started: int) -> Sequence[float]:
        """The x of each row; NaN where it has none."""
        if self.x == ELAPSED:
            self.label = "seconds"
            return [moment - self.run.started for moment in block.times]
        name = self._field(block) if self.x is None else self.x
        if name == ROW or (name not in columns and self.x is None):
            return range(started, started + len(block.times))
        self.label = name
        return numbers(columns.get(name, [GAP] * len(block.times)))

    def _field(self, block: Block) -> str:
        """The first field, where it says when: by its name, or being whole numbers; else, and for itself, the row."""
        if self.label != ROW:
            return self.label
        first = next(iter(block.fields), ROW)
        if first == self.source.field:
            return ROW
        value = next((value for value in block.columns[0] if value is not None), None)
        return first if type(value) is int or (type(value) is float and _is_step(first)) else ROW


def _panel(sources: Sequence[Source], lines: Sequence[_Line], labels: Mapping[str, str], *, log: bool) -> Panel:
    drawn = []
    for line in lines:
        words = [labels[line.run.id]] * (len(labels) > 1) + [str(line.source)] * (len(sources) > 1)
        x, y = line.points.points()
        drawn.append(Curve(" ".join(words), x, y, line.run.id, str(line.source)))
    title = ", ".join(map(str, sources)) + (f" of {lines[0].run.id}" if len(labels) == 1 else "")
    return Panel(drawn, title, ", ".join(dict.fromkeys(line.label for line in lines)), "", log)


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """The last letters of each run's id, and the hyperparameters in which these runs differ."""
    params = [record.flat(run.params) for run in runs]
    names = list(differing(params))
    short = {run.id: run.id[-4:] for run in runs}
    if len(set(short.values())) < len(short):
        short = {run.id: run.id for run in runs}
    return {
        run.id: " ".join([short[run.id], *(f"{n}={record.brief(values[n], 12)}" for n in names if n in values)])
        for run, values in zip(runs, params, strict=True)
    }


def differing(params: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The names of hyperparameters that are not the same in all of these runs."""
    for name in dict.fromkeys(name for values in params for name in values):
        if len({record.canonical(values[name]) if name in values else None for values in params}) > 1:
            yield name


# Hyperparameters and results


def scatter(project: Project, names: Sequence[str], x: str, y: str, *, log: bool, where: str | None = None) -> Scatter:
    """What `Project.scatter` says."""
    rows = _rows(project, names, where, y)
    places = _values(project, rows, x)
    kept = _with_numbers(project, rows, y)
    chosen = [at for at, row in enumerate(rows) if row in kept and places[at] is not None]
    if not chosen:
        raise NotPossible(f"no run has both {x} and {y}", "numb list")
    heights = _values(project, rows, y)
    return Scatter(
        [rows[at].run.id for at in chosen],
        Axis(x, [places[at] for at in chosen]),
        Axis(y, [heights[at] for at in chosen], log),
    )


def parallel(project: Project, names: Sequence[str], result: str, *, log: bool, where: str | None = None) -> Parallel:
    """What `Project.parallel` says."""
    rows = _with_numbers(project, _rows(project, names, where, result), result)
    params = [record.flat(row.run.params) for row in rows]
    there = [name for name in differing(params) if name != result]
    if not there:
        raise NotPossible(
            f"{record.counted(len(rows), 'run')} with {result}, and no hyperparameter that differs", "numb list"
        )
    if len(there) > _AXES:
        project.talk.say(f"left out: {record.some(there[_AXES:])}")
    axes = [Axis(name, [values.get(name) for values in params]) for name in there[:_AXES]]
    return Parallel([row.run.id for row in rows], [*axes, Axis(result, _values(project, rows, result), log)])


def _rows(project: Project, names: Sequence[str], where: str | None, result: str) -> list[Row]:
    """The runs that are named, or those of the architecture of which one has the result most recently."""
    rows = project.chosen(names, where)
    if names or where is not None:
        return rows
    values = _values(project, rows, result)
    newest = next((row for row, value in zip(reversed(rows), reversed(values), strict=True) if value is not None), None)
    chosen = [row for row in rows if newest is not None and row.run.architecture == newest.run.architecture]
    others = sum(value is not None for value in values) - sum(
        value is not None for value in _values(project, chosen, result)
    )
    if newest is not None and others:
        project.talk.say(
            f"these are the runs of {newest.run.network}; {others} of other networks: name their IDs, or --where"
        )
    return chosen


def _values(project: Project, rows: Sequence[Row], name: str) -> list[Any]:
    """What each run has under a name, as expressions spell it. Raises `Usage` where no run has it."""
    return [line[0] for line in project.values(rows, [name])]


def _with_numbers(project: Project, rows: Sequence[Row], result: str) -> list[Row]:
    """Those that have a number as their result. Raises `NotPossible` where there is none."""
    values = _values(project, rows, result)
    kept = [row for row, value in zip(rows, values, strict=True) if (place := number(value)) == place]
    if not kept:
        raise NotPossible(f"{result} is a number in no run", "numb list")
    if len(kept) < len(rows):
        project.talk.say(f"{len(rows) - len(kept)} of {record.counted(len(rows), 'run')} have no number as {result}")
    return kept


# Files


def picture(chart: Chart, path: Path) -> Path:
    """Write a chart as its suffix says. Raises `NotPossible` without matplotlib, and `StorageFailed`."""
    figure = chart.figure()
    atomic.write(path, plot.svg(figure) if path.suffix.lower() == ".svg" else plot.png(figure))
    return path
