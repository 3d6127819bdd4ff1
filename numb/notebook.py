"""Runs as a notebook has them: found by number, id or expression, with their values as attributes and their series as tables.

`numb.open(".")` gives a `Project`, which is also the sequence of its runs. Nothing here changes anything.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, overload

from numb import artifacts, comparing, frames, query, record, tables
from numb.errors import ArtifactMissing, RunNotFound
from numb.hp.params import Params
from numb.journal import SYSTEM, USUAL
from numb.record import Run
from numb.view import difference, table

if TYPE_CHECKING:
    from numb.comparing import Difference
    from numb.melding import Melded
    from numb.project import Project
    from numb.talk import Row

_SHOWN = 40  # rows of a table that a notebook shows by itself


class PastRun:
    """A run as the branch has it, or in flight as far as it is known; `row` and `record` are what numb itself has of it."""

    def __init__(self, project: Project, row: Row) -> None:
        self._project, self.row = project, row

    @property
    def record(self) -> Run:
        """Everything that the record says."""
        return self.row.run

    @property
    def id(self) -> str:
        return str(self.record.id)

    @property
    def status(self) -> str:
        return self.record.status

    @property
    def started(self) -> datetime:
        """When it began, in UTC."""
        return datetime.fromtimestamp(self.record.started, timezone.utc)

    @property
    def seconds(self) -> float | None:
        return self.record.seconds

    @property
    def commit(self) -> str | None:
        return self.record.commit

    @property
    def network(self) -> str:
        return self.record.network

    @property
    def message(self) -> str:
        return self.record.message

    @property
    def name(self) -> str | None:
        return self.row.said.name

    @property
    def tags(self) -> tuple[str, ...]:
        return self.row.said.tags

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said about it afterwards."""
        return self.row.said.notes

    @property
    def params(self) -> Params:
        """Its hyperparameters: `run.params.lr`, `run.params["opt"]["lr"]`."""
        return Params(self.record.params)

    @property
    def results(self) -> Params:
        """Its results, with those of its newest trial and what came later: `run.results.acc`."""
        return Params(self.row.results)

    @property
    def trials(self) -> list[PastRun]:
        """Its trials, oldest first."""
        return [
            PastRun(self._project, replace(self.row, run=trial, results=trial.results, trials=()))
            for trial in self.row.trials
        ]

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The names under which something was saved."""
        return tuple(self.record.artifacts)

    @property
    def log(self) -> str:
        """What its script has printed."""
        return self._project.log(self.record).decode(errors="replace")

    def series(self, name: str = USUAL) -> Any:
        """A series as a data frame whose index is its first field, with the time of each row as `Date`; or one field of it.

        *name* is that of a series, a field of `numb.log`'s, or `SERIES:FIELD`. Without pandas it is a list of dictionaries.
        Raises `KeyError` with the names that there are, `ObjectMissing` and `ObjectCorrupt`.
        """
        series, _, field = name.partition(":")
        there = self._series_names()
        if not field and series not in there and USUAL in there:
            series, field = USUAL, name
        if series not in there:
            raise self._no_series(name)
        if not field:
            return frames.of(self._project, self.record, series)
        return frames.only(frames.of(self._project, self.record, series, field), field, lambda: self._no_series(name))

    def _series_names(self) -> list[str]:
        return list(tables.fields(self._project, self.record))

    def _no_series(self, name: str) -> ArtifactMissing:
        there = ", ".join(self._series_names()) or "no series"
        return ArtifactMissing(f"{self.id} has no series {name}; it has {there}", f"numb show {self.id}")

    @overload
    def __getitem__(self, name: str) -> Any: ...
    @overload
    def __getitem__(self, name: tuple[str, ...]) -> tuple[Any, ...]: ...
    def __getitem__(self, name: str | tuple[str, ...]) -> Any:
        """What was saved under a name, or of `loss.csv` the series `loss`; of several names a tuple.

        Raises `KeyError` with the names that there are.
        """
        if isinstance(name, tuple):
            return tuple(self[each] for each in name)
        series = name.removesuffix(".csv")
        if series != name and name not in self.artifacts and series in self._series_names():
            return self.series(series)
        return self._project.load(self.record, name)

    def batches(self) -> Iterator[Any]:
        """What `run.save_batch` has kept, one batch after another. Raises `ObjectMissing` and `ObjectCorrupt`."""
        return (self[name] for name in artifacts.batches(self.artifacts))

    def state_dict(self, model: str | None = None, step: int | None = None) -> Any:
        """Its weights, those of a *model* where there are several, or what its checkpoint of a *step* has.

        Raises `ArtifactMissing`, `ObjectMissing` and `ObjectCorrupt`.
        """
        return self._project.load_state(self.record, step, model)

    def diff(self, other: PastRun | str | None = None) -> Differing:
        """What differs between this run and another, or the work tree as it is now."""
        if isinstance(other, str):
            other = self._project[other]
        return Differing(self._project.difference(self.record, other.record if other is not None else None))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PastRun) and (self.id, self.commit) == (other.id, other.commit)

    def __hash__(self) -> int:
        return hash((self.id, self.commit))

    def __repr__(self) -> str:
        words = [
            self.id,
            self.network if self.record.models else "",
            self.status if self.status != record.COMPLETE else "",
        ]
        words += [f"{name}={record.brief(value)}" for name, value in record.flat(self.params).items()]
        results = [f"{name} {record.brief(value)}" for name, value in record.flat(self.results).items()]
        return f"<run {' '.join(filter(None, words))}{' → ' + ', '.join(results) if results else ''}>"

    def _repr_html_(self) -> str:
        facts = {
            "id": self.id,
            "name": self.name,
            "tags": " ".join(self.tags) or None,
            "status": table.status(self.row),
        }
        facts |= {
            "started": f"{self.started:%Y-%m-%d %H:%M:%S} UTC",
            "network": self.network,
            "message": self.message or None,
        }
        facts |= record.flat(self.params) | {
            f"results.{name}": value for name, value in record.flat(self.results).items()
        }
        return table.html_of(["", ""], [(name, value) for name, value in facts.items() if value is not None])


@dataclass(frozen=True)
class Differing:
    """What differs between two runs, or a run and the work tree. It is shown as `numb diff` shows it."""

    found: Difference

    @property
    def params(self) -> dict[str, tuple[Any, Any]]:
        """The hyperparameters that differ, with both values; None is a missing one."""
        return self._pairs(comparing.PARAMS)

    @property
    def results(self) -> dict[str, tuple[Any, Any]]:
        """The results that differ, with both values."""
        return self._pairs(comparing.RESULTS)

    @property
    def environment(self) -> dict[str, tuple[Any, Any]]:
        """Python, packages, the machine, as far as they differ."""
        return self._pairs(comparing.ENVIRONMENT)

    @property
    def patch(self) -> str:
        """The code, as `git apply` reads it."""
        return self.found.patch.decode(errors="replace")

    def _pairs(self, part: str) -> dict[str, tuple[Any, Any]]:
        pairs = {fact.name: fact.values for fact in self.found.facts if fact.part == part}
        return {
            name: (first, second)
            for name, values in pairs.items()
            for first, second in [[None if isinstance(value, comparing.Gap) else value for value in values]]
        }

    def __bool__(self) -> bool:
        return not self.found.is_none

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def __repr__(self) -> str:
        return "\n\n".join(filter(None, [difference.shown(self.found), difference.patch(self.found.patch)]))


@dataclass(frozen=True)
class Runs(Sequence[PastRun]):
    """Runs of a project: all of them, oldest first, or those for which expressions hold, in the order that was asked for.

    They are looked up when they are used, and once.
    """

    project: Project
    condition: str | None = None
    order: tuple[str, ...] = ()

    def where(self, expression: str) -> Runs:
        """Those of them for which it holds, as `numb list --where` has it. Raises `Usage`."""
        query.parsed(expression)
        both = expression if self.condition is None else f"({self.condition}) and ({expression})"
        return replace(self, condition=both)

    def sort(self, *names: str) -> Runs:
        """The same in the order of these names; `-results.acc` begins with the highest."""
        return replace(self, order=(*names, *self.order))

    @cached_property
    def rows(self) -> list[Row]:
        """What numb itself has of them."""
        return self.project.runs(where=self.condition, sort=self.order)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PastRun]:
        return (PastRun(self.project, row) for row in self.rows)

    @overload
    def __getitem__(self, which: int) -> PastRun: ...
    @overload
    def __getitem__(self, which: slice) -> list[PastRun]: ...
    def __getitem__(self, which: int | slice) -> PastRun | list[PastRun]:
        if isinstance(which, slice):
            return [PastRun(self.project, row) for row in self.rows[which]]
        return PastRun(self.project, self.rows[which])

    def frame(self, *names: str) -> Any:
        """A data frame with a row for each run, by its id, and a column for each name, or for all that they have values under.

        Of the series `system` only columns that are named are there. Without pandas it is a list of dictionaries. Raises
        `Usage` for a name that no run has.
        """
        rows = self.rows
        wanted = list(names) or [
            name
            for name in self.project.names()
            if name not in ("id", "age") and not name.startswith(f"{record.SERIES}.{SYSTEM}.")
        ]
        cells = self.project.values(rows, wanted)
        if not names:
            kept = [i for i in range(len(wanted)) if any(line[i] is not None for line in cells)]
            wanted, cells = [wanted[i] for i in kept], [[line[i] for i in kept] for line in cells]
        ids = [row.run.id for row in rows]
        if find_spec("pandas") is None:
            return [
                {"id": run_id, **dict(zip(wanted, line, strict=True))} for run_id, line in zip(ids, cells, strict=True)
            ]
        import pandas

        columns = {name: [line[i] for line in cells] for i, name in enumerate(wanted)}
        return pandas.DataFrame(columns, index=pandas.Index(map(str, ids), name="id"))

    def __repr__(self) -> str:
        return table.runs(self.rows[-_SHOWN:] if not self.order else self.rows[:_SHOWN]) or "no runs"

    def _repr_html_(self) -> str:
        shown = self.rows[-_SHOWN:] if not self.order else self.rows[:_SHOWN]
        return table.runs(shown, form=table.HTML, groups={"": shown} if self.order and shown else None)


def found(project: Project, which: Any) -> Any:
    """What `project[which]` is: a number, a slice, an id, or several ids.

    Raises `KeyError` for an id that there is not, with those that are near, and `IndexError`.
    """
    if isinstance(which, int | slice):
        return Runs(project)[which]
    if isinstance(which, tuple):
        return tuple(found(project, each) for each in which)
    if not isinstance(which, str):
        raise TypeError(f"{which!r} is neither a number nor an id")
    try:
        run = project.find(which)
    except RunNotFound as error:
        raise RunNotFound(f"{error}{_near(project, which)}", error.hint) from None
    return PastRun(project, project.row(run))


def _near(project: Project, text: str) -> str:
    import difflib

    ids = [str(row.run.id) for row in project.runs()]
    meant = {short: each for each in ids for short in (each[-4:], each)}
    near = list(dict.fromkeys(meant[each] for each in difflib.get_close_matches(text, meant, n=3, cutoff=0.5)))
    return f"; near are {', '.join(near)}" if near else ""


def melded(project: Project, runs: Mapping[Any, str], name: str, field: str) -> Any:
    """One field of the same series of several runs as a data frame, a column for each label; see `Project.meld`."""
    ids = {which.id if isinstance(which, PastRun) else project[which].id: label for which, label in runs.items()}
    joined: Melded = project.joined(ids, f"{name.removesuffix('.csv')}:{field}")
    rows = [row[1:] for row in joined.rows]
    if find_spec("pandas") is None:
        return [{joined.index: row[0], **dict(zip(joined.labels, row[1:], strict=True))} for row in joined.rows]
    import pandas

    index = pandas.Index([row[0] for row in joined.rows], name=joined.index)
    return pandas.DataFrame(rows, index=index, columns=list(joined.labels))
