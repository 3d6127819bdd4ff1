"""The next entry of a queue that is searched: what was recorded is told to `searching`, what it proposes is written down.

What is searched stands beside the states of the queue. Whichever worker finds nothing to take asks for a proposal; one at a
time does, and so no two of them get the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numb import atomic, journal, record, searching
from numb.errors import NumbError, StorageFailed, Usage
from numb.hp.settings import gather
from numb.queue import DONE, FAILED, Queue, append
from numb.record import Run
from numb.searching import Aim, Space, Told

if TYPE_CHECKING:
    from numb.hp.table import Table
    from numb.project import Project

_PATIENCE = 60.0  # seconds that another worker's proposal is waited for
_TOLD = 2000  # runs at most, the newest
_COMPARED = 200  # and of those whose series say which runs are not worth it


class Search:
    """What is searched in one queue, and for what."""

    def __init__(self, space: Space, aim: Aim) -> None:
        self.space, self.aim = space, aim

    @classmethod
    def read(cls, queue: Queue) -> Search:
        """That of a queue. Raises `Usage` where there is none."""
        try:
            plain = record.loads(queue.folder.search.read_bytes())
            return cls(Space.of_json(plain["space"]), Aim.of_json(plain["aim"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise Usage(
                f"nothing is searched in {queue.file.name}",
                f"numb queue search {queue.file.name} --by results.acc --max -n 20 'lr=loguniform(1e-5,1e-1)'",
            ) from None

    def write(self, queue: Queue) -> None:
        atomic.make_directory(queue.folder.folder)
        plain = {"format": 1, "space": self.space.to_json(), "aim": self.aim.to_json()}
        atomic.write(queue.folder.search, record.dumps(plain, indent=1))

    def check(self, table: Table) -> None:
        """Raise `ConfigError` for what the script could not take: ends, choices, names."""
        for corner in self.space.corners():
            gather(table, words=_words(corner))

    def entries(self, queue: Queue) -> list[Any]:
        """Those of the queue that it may have proposed: with its names and no others."""
        entries = queue.entries() if queue.file.exists() else []
        return [
            each for each in entries if self.space.point(each.params) and not set(each.params) - set(self.space.texts)
        ]

    def of(self, count: int) -> Search:
        """The same with so many proposals in all."""
        return Search(self.space, replace(self.aim, count=count))

    def left(self, queue: Queue) -> int:
        """How many proposals there are to come."""
        return max(0, self.aim.count - len(self.entries(queue)))


def stop(queue: Queue) -> None:
    """Propose no more: as many are wanted as are there."""
    with _alone(queue):
        search = Search.read(queue)
        if search.left(queue):
            search.of(len(search.entries(queue))).write(queue)


def propose(project: Project, queue: Queue, table: Table) -> bool:
    """Write one more entry down; False where as many are there as were wanted, or nothing is left to try.

    Raises `Usage` where nothing is searched, `NotPossible` without Optuna, and `StorageFailed`.
    """
    with _alone(queue):
        search = Search.read(queue)
        if not search.left(queue):
            return False
        told, pending = _known(project, queue, search)
        _refuse_unknown(project, queue, search.aim.by)
        found = searching.propose(search.space, search.aim, told, pending)
        if found is None:
            return False
        settings = gather(table, words=_words(found)).given
        return append(queue.file, [{each.name: each.value for each in settings}]) > 0


@contextlib.contextmanager
def _alone(queue: Queue) -> Iterator[None]:
    """Let nobody else propose, or change what is searched."""
    lock = atomic.Lock(queue.folder.searching)
    if not lock.try_acquire(_PATIENCE):
        raise StorageFailed(f"another worker has been at {queue.folder.searching} for {_PATIENCE:g} s", "numb doctor")
    try:
        yield
    finally:
        lock.release()


def _refuse_unknown(project: Project, queue: Queue, by: str) -> None:
    """Raise `Usage` where no run of the queue has what is looked at: nobody would see a slip of the finger until the end."""
    states = queue.states() if queue.file.exists() else []
    names = [state.run for state in states if state.run and state.status == DONE]
    runs = [run for name in names if (run := project.index.get(name)) is not None and run.status == record.COMPLETE]
    if not runs or any(value is not None for value in _values(project, runs, by)):
        return
    there = record.some([f"results.{name}" for name in record.flat(runs[-1].results)]) or "no results"
    raise Usage(
        f"{runs[-1].id} is done and has no {by}; it has {there}", f"numb queue search {queue.file.name} --by NAME …"
    )


def _words(values: dict[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in values.items()]


def _known(project: Project, queue: Queue, search: Search) -> tuple[list[Told], list[Any]]:
    """What came of the runs of the queue and of the same networks, and the combinations of which nothing has come yet."""
    project.branch.refresh()
    states = queue.states() if queue.file.exists() else []
    ended = {state.run for state in states if state.run and state.status in (DONE, FAILED)}
    pending = [state.entry.params for state in states if state.status not in (DONE, FAILED) or not state.run]
    runs = _told(project, ended)
    values = _values(project, runs, search.aim.by)
    told = [_as_told(run, value, search.aim) for run, value in zip(runs, values, strict=True)]
    return told, pending


def _told(project: Project, own: set[str]) -> list[Run]:
    """The runs of the queue, and those of the same networks; before it has any those of the project's newest."""
    runs = project.index.runs(project=project.place)
    known = {run.architecture for run in runs if run.id in own}
    networks = known or {run.architecture for run in runs[-1:]}
    return [run for run in runs if run.id in own or run.architecture in networks][-_TOLD:]


def _values(project: Project, runs: Sequence[Run], by: str) -> list[Any]:
    try:
        return [row[0] for row in project.values(project.rows(runs), [by])]
    except Usage:  # no run has it yet
        return [None] * len(runs)


def _as_told(run: Run, value: Any, aim: Aim) -> Told:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if run.status == record.COMPLETE:
        return Told(run.params, number)
    if not record.is_pruned(run) or aim.pruning is None or journal.USUAL not in run.series:
        return Told(run.params)
    summary = run.series[journal.USUAL].fields.get(aim.pruning.series)
    if summary is None:
        return Told(run.params)
    best = summary.highest if aim.pruning.highest else summary.lowest
    return Told(run.params, best, pruned=summary.count)


def rule(project: Project, queue: Queue) -> dict[str, Any] | None:
    """By what a script is to end itself where others were better by then: limits by how many numbers it has logged."""
    search = Search.read(queue)
    pruning = search.aim.pruning
    if pruning is None:
        return None
    own = {state.run for state in queue.states() if state.status == DONE and state.run}
    runs = [run for run in project.index.runs(project=project.place) if run.id in own and run.status == record.COMPLETE]
    curves = [curve for run in runs[-_COMPARED:] if (curve := _numbers(project, run, pruning.series))]
    found = searching.limits(curves, pruning.highest, pruning.warmup, pruning.startup)
    return {"series": pruning.series, "highest": pruning.highest, "limits": [list(each) for each in found]}


def _numbers(project: Project, run: Run, name: str) -> list[tuple[float, float]]:
    """The numbers of a field of `numb.log`, counted from 1."""
    if journal.USUAL not in run.series or name not in run.series[journal.USUAL].fields:
        return []
    values: list[Any] = []
    try:
        for block in project.series(run):
            if name in block.fields:
                values += [v for v in block.columns[block.fields.index(name)] if v is not None]
    except (NumbError, KeyError):
        return []
    return [(n, float(v)) for n, v in enumerate(values, 1) if isinstance(v, int | float)]


def aim(
    by: str, lowest: bool | None, count: int, seed: int, sampler: str, prune: str | None, warmup: int, startup: int
) -> Aim:
    """What is wanted, as it is said on a command line: without a direction the name decides. Raises `Usage`."""
    highest = not (record.lower_is_better(by.rpartition(".")[2]) if lowest is None else lowest)
    pruning = None
    if prune is not None:
        pruning = searching.Pruning(prune, not record.lower_is_better(prune), warmup, startup)
    try:
        return Aim(by, highest, count, seed, sampler, pruning)
    except ValueError as error:
        raise Usage(str(error)) from None
