"""A queue that is looked at, and what a person changes of it besides its combinations: cancel, repeat, sync."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import engines, inflight, processes, record
from numb.errors import NotPossible, StorageFailed
from numb.queue import CUT_OFF, DONE, QUEUED, RUNNING, Entry, Queue, State, read

if TYPE_CHECKING:
    from numb.project import Project
    from numb.record import Run

_SAMPLE = 50  # runs whose time says how long the others take
_PATIENCE = 600.0  # seconds for a program that lists combinations
# Writes what `jobs` of a file gives into another. The folder of the file comes first on the path, as when it is run.
_LIST = """
import json, os, runpy, sys
from collections.abc import Mapping
from numb import record
sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[1])))
found = runpy.run_path(sys.argv[1], run_name="jobs").get("jobs")
found = found() if callable(found) else found
if found is None:
    sys.exit("it has no jobs: jobs = [{'lr': 0.1}, ...], or a function of that name")
found = list(found)
strange = next((n for n, each in enumerate(found, 1) if not isinstance(each, Mapping)), None)
if strange is not None:
    sys.exit(f"job {strange} is no combination, {{'lr': 0.1}} say: {found[strange - 1]!r}")
plain = [record.encoded(each) for each in found]
with open(sys.argv[2], "w") as out:
    json.dump(plain, out)
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A queue as it was looked at: its entries, how long the rest is going to take, and what Slurm has of it."""

    states: Sequence[State]
    seconds_left: float | None
    is_paused: bool
    elsewhere: str
    beside: Sequence[str] = ()  # with which other values, set for all entries, somebody runs it

    @property
    def is_over(self) -> bool:
        """Whether nothing runs, and nothing waits."""
        return not any(state.status in (RUNNING, QUEUED, CUT_OFF) for state in self.states)


class Progress:
    """A queue that is looked at again and again."""

    def __init__(self, project: Project, file: Path, words: Sequence[str] = (), files: Sequence[str] = ()) -> None:
        from numb.hp.settings import gather

        self._project, self._queue = project, project.queue(file, words, files)
        typed = gather(project.known_table(), words=words).given if words else ()
        self._typed = {each.name: each.value for each in typed}  # which come before what an entry says

    def look(self, select: Sequence[str] = (), statuses: Collection[str] = ()) -> Seen:
        """How far it has come, only of entries that are like that. Raises `ConfigError` for a file that is none."""
        project, queue = self._project, self._queue
        project.branch.recover()
        states: Sequence[State] = queue.states()
        if select or statuses:
            numbers = matching(project, queue, select, statuses)
            states = [state for state in states if state.entry.number in numbers]
        jobs = _slurm_jobs(project, queue)
        elsewhere = ""
        if jobs:
            from numb.engines import slurm

            elsewhere = slurm.summary(jobs)
        if self._typed:
            states = [state._replace(entry=state.entry._replace(params=self._meant(state.entry))) for state in states]
        return Seen(states, self._seconds_left(states), queue.folder.is_paused, elsewhere, self._beside())

    def _meant(self, entry: Entry) -> dict[str, Any]:
        return {name: self._typed.get(name, value) for name, value in entry.params.items()}

    def _beside(self) -> list[str]:
        codes = self._project.codes(self._queue)
        found = []
        for name in codes.in_use(engines.is_gone):
            with contextlib.suppress(StorageFailed):  # it was dropped just now
                common = codes.common(name)
                if record.key(common) != record.key(self._queue.common):
                    found.append(" ".join(f"{name}={record.brief(value)}" for name, value in common.items()))
        return list(dict.fromkeys(found))

    def _seconds_left(self, states: Sequence[State]) -> float | None:
        """By what the last runs have taken, for as many at a time as run now; None where nothing runs, or none has ended."""
        running = sum(state.status == RUNNING for state in states)
        waiting = sum(state.status in (QUEUED, CUT_OFF) for state in states)
        ended = [state.run for state in states if state.status == DONE and state.run and not state.skipped][-_SAMPLE:]
        if not running or not ended:
            return None
        runs = [run for name in ended if (run := self._project.index.get(name)) is not None]
        times = [run.seconds for run in runs if run.seconds is not None]
        return sum(times) / len(times) * (waiting / running + 0.5) if times else None


def matching(project: Project, queue: Queue, select: Sequence[str], statuses: Collection[str]) -> set[int]:
    """The numbers of the entries that have all of these values, `NAME=VALUE`, and one of these statuses where any is named.

    Raises what `Project.settings` raises for a name or a value that the script does not have.
    """
    from numb.hp.settings import gather

    wanted = {each.name: each.value for each in gather(project.known_table(), words=select).given}
    there = (state for state in queue.states() if not statuses or state.status in statuses)
    return {
        state.entry.number
        for state in there
        if all(name in state.entry.params and _is_same(state.entry.params[name], v) for name, v in wanted.items())
    }


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _slurm_jobs(project: Project, queue: Queue) -> list[str]:
    """The jobs of Slurm's that were handed in for a queue, and may go on."""
    owners = project.codes(queue).owners()
    return [str(owner["slurm"]["job"]) for owner in owners if "slurm" in owner and not engines.is_gone(owner)]


def cancel(
    project: Project,
    file: Path,
    numbers: Callable[[Queue], Collection[int] | None],
    words: Sequence[str],
    files: Sequence[str],
) -> tuple[int, int]:
    """Let entries never begin, or end; it is `Project.cancel_queue`, which says more."""
    queues = project.queues(file, words, files)
    is_all = numbers(queues[0]) is None
    if is_all and queues[0].folder.search.exists():
        from numb import proposing

        proposing.stop(queues[0])
    waiting, running = queues[0].cancel(numbers(queues[0]))
    for queue in queues[1:]:
        more, those = queue.cancel(numbers(queue))
        waiting, running = max(waiting, more), [*running, *those]  # the same entries, with other values set for all
    for state in running:
        script = inflight.orphan(project.layout, state.run) if state.run else None
        if script is not None:  # its worker, which would end it, has gone
            processes.terminate(script)
    if is_all and (jobs := _slurm_jobs(project, queues[0])):
        from numb.engines import slurm

        slurm.cancel(jobs)
    return waiting, len(running)


def repeat(project: Project, file: Path, run: Run, words: Sequence[str]) -> tuple[int, int]:
    """Add the combination of a run; it is `Project.repeat_in_queue`, which says more."""
    from numb.hp.settings import gather

    table = project.known_table()
    values = {name: value for name, value in run.params.items() if name in table.known and name not in run.constants}
    found = gather(table, queue=values, origin=str(run.id), words=words).given
    from numb import sweep  # which looking does without

    combination = {each.name: each.value for each in found}
    return sweep.written(project, file, [combination])


def sync(project: Project, file: Path, program: Path, *, dry_run: bool) -> tuple[int, int, int]:
    """Add what a program lists; it is `Project.sync_queue`, which says more."""
    from numb.hp.settings import gather

    table = project.known_table()
    wanted = _listed(program)
    for number, each in enumerate(wanted, 1):
        gather(table, queue=each, origin=f"{program}, job {number}")
    there = read(file) if file.exists() else []
    known, listed = set(map(record.key, there)), {record.key(each) for each in wanted}
    new = len(listed - known)
    if not dry_run:
        from numb import sweep

        new, _ = sweep.written(project, file, wanted)
    return new, len(wanted) - new, sum(record.key(each) not in listed for each in there)


def _listed(program: Path) -> list[dict[str, Any]]:
    """The combinations that a program lists. Raises `NotPossible` with what it says where it fails."""
    with tempfile.TemporaryDirectory(prefix="numb-") as folder:
        out = Path(folder, "jobs.json")
        try:
            done = subprocess.run(
                [sys.executable, "-c", _LIST, str(program), str(out)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise NotPossible(f"{program} has listed nothing within {_PATIENCE:g} s", f"python {program}") from None
        if done.returncode or not out.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise NotPossible(f"{program} lists nothing: {said[-1] if said else 'it failed'}", f"python {program}")
        found = json.loads(out.read_bytes())
    return [{name: record.decode(value) for name, value in each.items()} for each in found]
