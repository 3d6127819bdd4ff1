"""What is asked about runs: which an expression chooses, what they have under a name, the best, the same, and tables."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic, query, record
from numb.errors import Usage
from numb.query import Among, Compare, Condition, Is, Name, Sort
from numb.record import RUN, TRAIN, Run, RunId
from numb.store.index import Answer
from numb.talk import SILENCE

if TYPE_CHECKING:
    from numb.project import Project
    from numb.talk import Row

_STARTED, _TAGS = Name("started", RUN), Name("tags", RUN)
_SUFFIXES = (".csv", ".json", ".parquet")


def condition(
    where: str | None, statuses: Sequence[str] = (), untrialed: bool = False, architecture: str | None = None
) -> Condition | None:
    """What all of these ask for, as one condition. Raises `Usage`."""
    found = None if where is None else query.parsed(where)
    if statuses:
        found = query.both(found, Among(Name("status", RUN), tuple(statuses)))
    if untrialed:
        found = query.both(found, Is(Name("trials", RUN), "missing"))
    if architecture:
        found = query.both(found, Compare(Name("architecture", RUN), "=", architecture))
    return found


def sorts(texts: Sequence[str]) -> tuple[Sort, ...]:
    """What to sort by: each text may be several, with commas. Raises `Usage`."""
    return tuple(Sort.of(part) for text in texts for part in text.split(","))


def flying(project: Project) -> list[Row]:
    """The train runs in flight, with what their series sum up to by now."""
    rows = [row for row in project.in_flight() if row.run.kind == TRAIN]
    if not rows:
        return []
    from numb import tables  # it reads compressed ones, too, and is not loaded in no time

    return [replace(row, run=replace(row.run, series=tables.so_far(project, row.run))) for row in rows]


def chosen(
    project: Project, condition: Condition | None, sorts: Sequence[Sort], limit: int | None, place: str | None
) -> list[Row]:
    """The runs for which a condition holds: in that order, or oldest first where there is none. Raises `Usage`."""
    beside = {row.run.id: row for row in flying(project)}
    ids = project.index.chosen(
        condition, sorts, limit=limit, project=place, flying=[row.run for row in beside.values()]
    )
    there = [run for each in ids if each not in beside and (run := project.index.get(each)) is not None]
    rows = {row.run.id: row for row in project.rows(there)} | beside
    found = [rows[each] for each in ids if each in rows]
    return found if sorts else found[::-1]


def best(project: Project, by: str | None, number: int, lowest: bool | None, where: str | None) -> list[Row]:
    """The runs with the best values under a name, which is that of the only result where none is given. Raises `Usage`."""
    project.branch.recover()
    name = Name.of(by) if by is not None else _only_result(project)
    low = record.lower_is_better(name.name) if lowest is None else lowest
    finite = query.both(Compare(name, "<", math.inf), Compare(name, ">", -math.inf))  # and so a number
    wanted = query.both(None if where is None else query.parsed(where), finite)
    return chosen(project, wanted, (Sort(name, descending=not low),), number, project.place)


def lacking(project: Project, by: str, where: str | None) -> int:
    """How many of those runs have nothing under that name. Raises `Usage`."""
    missing = Is(Name.of(by), "missing")
    wanted = query.both(None if where is None else query.parsed(where), missing)
    return len(chosen(project, wanted, (), None, project.place))


def _only_result(project: Project) -> Name:
    found = project.index.names([row.run for row in flying(project)])[record.RESULTS]
    if len(found) != 1:
        there = f"there are {record.some(found)}" if found else "no run has results"
        raise Usage(f"best by what? {there}", f"numb best --by results.{found[0]}" if found else "numb list")
    return Name(found[0], record.RESULTS)


def values(project: Project, rows: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    """What rows have under names; None where they have nothing. Raises `Usage` for a name that no run has."""
    beside = [row.run for row in flying(project)]
    wanted = [project.index.resolved(Name.of(name), beside) for name in names]
    facts = [name for name in wanted if name.space == RUN]
    found = project.index.values(facts, [row.run.id for row in rows], beside) if facts else [()] * len(rows)
    return [_values(row, wanted, dict(zip(facts, each, strict=True))) for row, each in zip(rows, found, strict=True)]


def _values(row: Row, names: Sequence[Name], facts: dict[Name, Any]) -> list[Any]:
    from numb.store import columns

    spaces = {
        record.PARAMS: record.flat(row.run.params),
        record.RESULTS: record.flat(row.results),
        record.SERIES: columns.summed(row.run.series),
    }
    if _STARTED in facts:
        facts = facts | {_STARTED: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.run.started))}
    if _TAGS in facts:
        facts = facts | {_TAGS: " ".join(row.said.tags) or None}
    return [facts[name] if name.space == RUN else spaces[name.space or ""].get(name.name) for name in names]


def names(project: Project) -> list[str]:
    """Every name that runs have values under, each as an expression spells it."""
    project.branch.recover()
    known = project.index.names([row.run for row in flying(project)])
    return [*project.index.facts(), *(f"{space}.{name}" for space, found in known.items() for name in found)]


def sql(project: Project, text: str, place: str | None) -> Answer:
    """What a query says of the runs. Raises `Usage`."""
    project.branch.recover()
    return project.index.sql(text, [row.run for row in flying(project)], project=place)


def duplicates(project: Project) -> list[Row]:
    """Runs of which there are several with the same architecture, hyperparameters and beginning; those together.

    Without a network it is the command that is the same.
    """
    return [row for rows in _alike(project.runs()) if len(rows) > 1 for row in rows]


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        what = row.run.architecture or row.run.command
        groups.setdefault((what, row.run.params_key, row.run.init_from), []).append(row)
    return list(groups.values())


def repeats(project: Project) -> dict[RunId, list[Run]]:
    """Runs that did the same with the same code, and ended in the same way, as a newer one that stays, by that one.

    What was named, tagged or noted is no repeat, nor is a run whose weights another began with, or one in flight.
    """
    found: dict[RunId, list[Run]] = {}
    for rows in _alike(row for row in project.runs() if row.run.commit is not None and not row.lost):
        staying: list[Run] = []
        for row in sorted(rows, key=lambda row: row.run.started, reverse=True):
            again = next((run for run in staying if _is_alike(project, run, row.run)), None)
            if again is None or row.said != SILENCE or project.begun_with(row.run):
                staying.append(row.run)
            else:
                found.setdefault(again.id, []).append(row.run)
    return found


def _is_alike(project: Project, one: Run, other: Run) -> bool:
    return one.status == other.status and not project.git.changed(one.commit or "", other.commit or "")


def export(project: Project, target: Path, where: str | None, sort: Sequence[str], names: Sequence[str]) -> int:
    """Write a table of the runs into a file; returns how many there are. Raises `Usage` and `StorageFailed`."""
    if target.suffix not in _SUFFIXES:
        raise Usage(f"{target} is of no known kind", f"its name ends with {', '.join(_SUFFIXES)}")
    rows = project.runs(where=where, sort=sort)
    wanted = list(names) or _present(project, rows)
    cells = values(project, rows, wanted)
    if target.suffix == ".parquet":
        atomic.write(target, _parquet(wanted, cells))
    elif target.suffix == ".json":
        plain = [_plain(zip(wanted, line, strict=True)) for line in cells]
        atomic.write(target, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        from numb.view import table

        atomic.write(target, table.csv_of(wanted, cells))
    return len(rows)


def _present(project: Project, rows: Sequence[Row]) -> list[str]:
    """The names under which some of these runs have a value."""
    every = [name for name in names(project) if name != "age"]  # which is another one tomorrow
    cells = values(project, rows, every)
    return [name for i, name in enumerate(every) if any(line[i] is not None for line in cells)]


def _plain(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: record.encode(value, name, literals=True) for name, value in pairs}


def _parquet(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> bytes:
    """Columns of whole numbers, floats, truth values or texts; where a column has several of these, texts."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Usage("Parquet needs the package pyarrow", "pip install 'numb[parquet]'") from None
    columns = [_column([line[i] for line in cells]) for i in range(len(names))]
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table([pyarrow.array(each) for each in columns], names=list(names)), out)
    return out.getvalue()


def _column(found: list[Any]) -> list[Any]:
    kinds = {type(value) for value in found if value is not None}
    if kinds <= {int} and all(value is None or -(1 << 63) <= value < 1 << 63 for value in found):
        return found
    if kinds <= {int, float} and kinds:
        return [None if value is None else float(value) for value in found]
    if len(kinds) == 1 and kinds <= {bool, str}:
        return found
    return [value if value is None or isinstance(value, str) else record.brief(value, 1 << 20) for value in found]
