"""`numb queue`: the script's hyperparameters as a queue file, and a queue file worked off, one run for each entry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import record
from numb.errors import NumbError, ObjectCorrupt, ObjectMissing, Refused, Usage
from numb.hp.settings import gather, refuse_late
from numb.hp.values import is_plain
from numb.queue import CUT_OFF, DONE, FAILED, QUEUED, Claim, Entry, Queue, append, write_template
from numb.talk import Ended, Redo

if TYPE_CHECKING:
    from numb.hp.settings import Settings
    from numb.hp.table import Table
    from numb.order import Asking
    from numb.project import Project
    from numb.record import Run

_SEEDS = ("seed", "random_seed", "manual_seed")
_CUT_OFF = (record.INTERRUPTED, record.KILLED, record.LOST)  # which says nothing about hyperparameters


def write(project: Project, file: Path, *, force: bool) -> dict[str, Any]:
    """Write a queue file with the script's own hyperparameters as its one combination; returns them."""
    params = _hyperparameters(project)
    if not params:
        raise Refused(
            "the script has no hyperparameters that numb can see", "assign them above numb_queue() in the script"
        )
    write_template(file, params, force=force)
    return params


def extend(
    project: Project, file: Path, combinations: Sequence[Sequence[str]], *, repeat: int, force: bool
) -> tuple[int, int]:
    """Add combinations to a file; it is `Project.extend_queue`, which says more."""
    table = project.known_table()
    wanted = [[*words, *seed] for words in combinations for seed in _seeds(table, words, repeat)]
    found = [{each.name: each.value for each in gather(table, words=words).given} for words in wanted]
    added = append(file, found, force=force)
    return added, len(found) - added


def _seeds(table: Table, words: Sequence[str], repeat: int) -> list[list[str]]:
    """What tells repetitions apart: a seed, which the script has under one of its usual names. Raises `Usage`."""
    if repeat == 1:
        return [[]]
    given = {word.partition("=")[0].strip() for word in words}
    name = next((name for name in _SEEDS if name in table.known), None)
    if name is None:
        raise Usage("--repeat needs a hyperparameter called seed", 'seed = _("seed", 0), and torch.manual_seed(seed)')
    if name in given:
        raise Usage(f"{name} is given, and --repeat sets it", f"{name}={{{{0,1,2}}}} without --repeat")
    return [[f"{name}={number}"] for number in range(repeat)]


@dataclass(frozen=True, slots=True)
class How:
    """How the entries of a queue are to be trained."""

    arguments: Sequence[str]
    message: str
    redo: Redo
    failed: bool
    fail_fast: bool
    words: Sequence[str]
    files: Sequence[str]
    retries: int
    asking: Asking
    goes_on: Callable[[], bool]
    is_checked: bool


def run(project: Project, file: Path, how: How) -> Iterator[tuple[Entry, Ended]]:
    """Train with each combination that is not done; `Project.run_queue` says what that means."""
    queue = project.queue(file, how.words, how.files)
    wanted = {QUEUED, CUT_OFF, *({FAILED} if how.failed else ())}
    project.branch.recover()
    if not how.is_checked:
        check(project, file, how.words, how.files)
    tried: set[str] = set()
    while how.goes_on() and (claim := queue.claim(wanted, tried, skipped=how.redo is Redo.AGAIN)):
        try:
            table = _check(project, queue)
            tried.add(claim.entry.key)
            project.branch.refresh()  # this entry may say in other words what the last one, or another worker's, has trained
            origin = f"{file}, entry {claim.entry.number}"
            settings = project.settings(how.words, how.files, claim.entry.params, origin, table)
            settings.check()
            values = " ".join(f"{name}={record.brief(value)}" for name, value in claim.entry.params.items())
            project.talk.say(f"[{claim.entry.number}/{len(queue.entries())}] {values}".rstrip())
            claim.begin()
            name = _named_here(project, queue.file)
            ended = _train(project, claim, how, settings, name)
            for again in range(1, how.retries + 1):
                if ended.run is None or not _has_failed(ended) or not how.goes_on():
                    break
                project.talk.say(f"[{claim.entry.number}] failed, tried again ({again} of {how.retries})")
                ended = _train(project, claim, replace(how, redo=Redo.AGAIN), settings, name)
            _settle(claim, ended)
        finally:
            claim.close()
        if ended.error and ended.run is None:
            raise ended.error
        yield claim.entry, ended
        if _was_asked_to_end(ended) or (how.fail_fast and ended.exit_code):
            return


def _train(project: Project, claim: Claim, how: How, settings: Settings, queue: str) -> Ended:
    """Train with an entry; where a training with it was cut off and has kept a checkpoint, go on from there."""
    was_cut_off = claim.before.status == CUT_OFF and how.redo is not Redo.AGAIN
    earlier = _unfinished(project, claim, settings, queue) if was_cut_off else None
    if earlier is not None:
        project.talk.say(f"{earlier.id} goes on after step {earlier.checkpoints[-1].step}")
        try:
            resumed = project.train(
                how.arguments, settings=settings, queue=queue, resume=(earlier, None), asking=how.asking
            )
            if resumed.run is not None or not isinstance(resumed.error, Refused):
                return resumed
            why: NumbError = resumed.error
        except (Refused, ObjectMissing, ObjectCorrupt) as error:
            why = error
        project.talk.say(f"{earlier.id} cannot go on ({why}); trained anew")
    return project.train(
        how.arguments, message=how.message, settings=settings, redo=how.redo, queue=queue, asking=how.asking
    )


def _unfinished(project: Project, claim: Claim, settings: Settings, queue: str) -> Run | None:
    """The run of the entry that was cut off, if it has a checkpoint; its id is not known where numb was killed."""
    values = settings.values()
    for run in reversed(project.index.runs(statuses=(*_CUT_OFF, record.INCOMPLETE), project=project.place)):
        known = {name: run.params[name] for name in values if name in run.params}
        is_like_it = run.queue == queue and record.key(known) == record.key(values)
        if run.checkpoints and (run.id == claim.before.run or (claim.before.run is None and is_like_it)):
            return run
    return None


def _settle(claim: Claim, ended: Ended) -> None:
    kept = ended.run or ended.same
    if ended.run is not None and ended.run.status in (*_CUT_OFF, record.INCOMPLETE):
        claim.settle(CUT_OFF, kept.id if kept else None, ended.exit_code)
    elif ended.error and ended.run is None:
        claim.settle(QUEUED, None, ended.exit_code)  # it was refused, and nothing came of it
    else:
        status = FAILED if _has_failed(ended) else DONE
        claim.settle(status, kept.id if kept else None, ended.exit_code, skipped=ended.run is None and kept is not None)


def _has_failed(ended: Ended) -> bool:
    """Whether the script itself has failed: one that was ended from outside has not."""
    if ended.run is not None and ended.run.status in (*_CUT_OFF, record.INCOMPLETE):
        return False
    return bool(ended.exit_code) or (ended.run is not None and ended.run.status == record.FAILED)


def _was_asked_to_end(ended: Ended) -> bool:
    """Whether a run was ended from outside, and with it the queue."""
    return ended.signalled or (ended.run is not None and ended.run.status in _CUT_OFF)


def check(project: Project, file: Path, words: Sequence[str], files: Sequence[str]) -> None:
    """Before the first run: each entry with what is set for all of them, whose values may lack or contradict each other."""
    queue = project.queue(file, words, files)
    if repeated := [str(entry.number) for entry in queue.repeated()]:
        which = f"entry {repeated[0]} repeats" if len(repeated) == 1 else f"entries {record.some(repeated)} repeat"
        project.talk.say(f"{file}: {which} an earlier one; equal combinations are trained once")
    table = _check(project, queue)
    for entry in queue.entries():
        origin = f"{queue.file}, entry {entry.number}"
        gather(table, files=files, environment=os.environ, queue=entry.params, origin=origin, words=words).check()


def _check(project: Project, queue: Queue) -> Table:
    """Each value by itself, with its place in the file; again before each entry, for it may be edited meanwhile.

    Returns what it was checked against.
    """
    table = project.known_table()
    refuse_late(project.script, table, {name for entry in queue.entries() for name in entry.params})
    queue.check(lambda name, value: gather(table, queue={name: value}, origin=""))
    return table


def _hyperparameters(project: Project) -> dict[str, Any]:
    """The script's hyperparameters and their values: those in its source, else those of the last run."""
    found = {each.name: each.default for each in project.table if each.settable and each.reached}
    newest = project.index.runs(limit=1, project=project.place)
    last = newest[0].params if newest else {}
    known = {name: value for name, value in found.items() if is_plain(value)}
    known |= {name: last[name] for name in found if name in last and name not in known}
    return known or dict(last)


def _named_here(project: Project, file: Path) -> str:
    """A file as records name it: from the top of the work tree where it lies in that, for a clone lies elsewhere."""
    path = os.path.relpath(file, project.git.toplevel)
    return str(file) if path.startswith(f"..{os.sep}") else path
