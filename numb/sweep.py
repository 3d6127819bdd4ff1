"""`numb queue`: the script's hyperparameters as a queue file, and a queue file worked off, one run for each entry."""

from __future__ import annotations

import contextlib
import filecmp
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import alive, engines, record
from numb.engines import Work
from numb.errors import ConfigError, NotPossible, NumbError, ObjectCorrupt, ObjectMissing, Refused, StorageFailed, Usage
from numb.hp.settings import PREFIX, file_of, gather, refuse_late
from numb.hp.values import is_plain
from numb.jobs import Job
from numb.order import NOTHING_ASKED, Asking
from numb.queue import CANCELED, CUT_OFF, DONE, FAILED, QUEUED, Claim, Entry, Queue, append, named_below, write_template
from numb.talk import Ended, Redo

if TYPE_CHECKING:
    from numb.engines import Engine
    from numb.hp.settings import Settings
    from numb.hp.table import Table
    from numb.jobs import Codes
    from numb.project import Project
    from numb.proposing import Search
    from numb.queue import State
    from numb.record import Run
    from numb.workplace import Code, Workplace

_PAUSE = 0.5  # seconds between two looks whether a paused queue goes on
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
    return written(project, file, found, force=force)


def written(
    project: Project, file: Path, combinations: Sequence[Mapping[str, Any]], *, force: bool = False
) -> tuple[int, int]:
    """Add combinations to a file; returns how many were not there, and how many were."""
    queue, *others = project.queues(file)
    before = [(each, _keys(each) if file.exists() else set()) for each in (queue, *others)]
    count = append(file, combinations, force=force)
    if project.codes(queue).in_use(engines.is_gone):  # somebody works on it, and what is added is queued now
        for each, keys in before:
            added(project, each, keys)
    return count, len(combinations) - count


def _keys(queue: Queue) -> set[str]:
    return {entry.key for entry in queue.entries()}


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

    arguments: Sequence[str] = ()
    message: str = ""
    redo: Redo = Redo.SKIP
    failed: bool = False
    fail_fast: bool = False
    words: Sequence[str] = ()
    files: Sequence[str] = ()
    retries: int = 0
    asking: Asking = NOTHING_ASKED
    goes_on: Callable[[], bool] = lambda: True
    is_checked: bool = False
    live: bool = False  # in place, as the work tree is then
    code: str | None = None  # the snapshot that was taken when the queue began to be run; None: now
    limit: int | None = None  # so many entries at most
    search: bool = False  # where none is left, what `queue search` has said is asked for one more
    speaks: bool = False  # of what concerns the queue as a whole, for nobody else does


def hand_out(
    project: Project,
    file: Path,
    how: How,
    options: Sequence[str],
    engine: Engine,
    here: Callable[[How], int],
    seconds: float | None,
) -> tuple[int, int, list[State]]:
    """Have an engine work a queue off; it is `Project.hand_out`, which says more."""
    queue, waiting = _checked(project, file, how)
    if queue.folder.is_paused:
        raise NotPossible(f"{file} is paused", f"numb queue resume {file}")
    if how.failed:  # here, and not by each worker for itself
        queue.retry([FAILED])
    code = begun(project, queue, how)
    known = {entry.key for entry in queue.entries()}
    seen = queue.stamp

    is_paused = False

    def tick() -> None:
        nonlocal seen, is_paused
        if queue.folder.is_paused != is_paused:
            is_paused = not is_paused
            project.talk.say(_paused(file) if is_paused else f"{file} goes on")
        if not how.live and queue.stamp != seen:
            seen = queue.stamp
            with contextlib.suppress(NumbError):  # half of an edit, which a worker will tell of if it stays
                added(project, queue, known)

    def in_here(goes_on: Callable[[], bool]) -> int:
        return here(replace(how, failed=False, is_checked=True, goes_on=goes_on, code=code, speaks=True))

    words = [_as_argument(file), *options, "--code", code]
    work = Work(
        project.config, project.home, words, waiting, how.fail_fast, seconds, in_here, tick, queue.folder.engine,
        lambda holder: project.codes(queue).own(code, holder), project.talk.say,
    )  # fmt: skip
    try:
        return engine.run(work), waiting, queue.states()
    finally:
        forget(project, queue)


def _as_argument(file: Path) -> str:
    """A file as a command takes it, also where its name looks like an option."""
    return os.path.join(os.curdir, file) if str(file).startswith("-") else str(file)


def shown(
    project: Project, file: Path, how: How, options: Sequence[str], engine: Engine, search: Search | None = None
) -> str:
    """What `hand_out` would do, with this *search* where that is not written down."""
    if search is not None and not file.exists():
        waiting = search.aim.count
    else:
        _, waiting = _checked(project, file, how, search)
    work = Work(project.config, project.home, [_as_argument(file), *options], waiting, how.fail_fast)
    entries = "1 entry" if waiting == 1 else f"{waiting} entries"
    return f"{entries} of {file}: {engine.shown(work)}"


def _checked(project: Project, file: Path, how: How, search: Search | None = None) -> tuple[Queue, int]:
    """A queue that can be run, and how many of its entries are to be."""
    project.branch.recover()
    queue = project.queue(file, how.words, how.files)
    proposals = 0
    if how.search:
        from numb import proposing

        search = search or proposing.Search.read(queue)
        search.check(project.known_table())
        proposals = search.left(queue)
        if not file.exists():
            append(file, ())
    check(project, file, how.words, how.files)
    wanted = {QUEUED, CUT_OFF, *({FAILED} if how.failed else ())}
    again = how.redo is Redo.AGAIN
    waiting = {state.entry.key for state in queue.states() if state.status in wanted or (again and state.skipped)}
    return queue, len(waiting) + proposals


def run(project: Project, file: Path, how: How) -> Iterator[tuple[Entry, Ended]]:
    """Train with each combination that is not done; `Project.run_queue` says what that means."""
    queue = project.queue(file, how.words, how.files, code=how.code)
    queue.trouble = project.talk.say
    project.branch.recover()
    if not how.is_checked:
        check(project, file, how.words, how.files)
    with contextlib.ExitStack() as stack:
        bench = Bench.of(project, queue, how)
        stack.callback(bench.close)
        yield from _worked_off(bench, file, how)


def _worked_off(bench: Bench, file: Path, how: How) -> Iterator[tuple[Entry, Ended]]:
    queue = bench.queue
    wanted = {QUEUED, CUT_OFF, *({FAILED} if how.failed else ())}
    tried: set[str] = set()
    while _may_go_on(bench.project, queue, how, wanted, tried) and (how.limit is None or len(tried) < how.limit):
        bench.notice()
        claim = queue.claim(wanted, tried, skipped=how.redo is Redo.AGAIN)
        if claim is None:
            if how.search and bench.propose():
                continue
            return
        try:
            tried.add(claim.entry.key)
            how = bench.pruning(how)
            ended = _begun(bench, claim, file, how)
        finally:
            claim.close()
        if ended.error and ended.run is None and not isinstance(ended.error, ConfigError):
            raise ended.error
        if ended.by_signal is not None:
            ended = replace(ended, exit_code=128 + ended.by_signal)
        yield claim.entry, ended
        if ended.by_signal is not None or (how.fail_fast and ended.exit_code):
            return


def _begun(bench: Bench, claim: Claim, file: Path, how: How) -> Ended:
    """Train with an entry that was taken, and say what came of it."""
    project, queue = bench.project, bench.queue
    here = bench.ready(claim)
    project.branch.refresh()  # this entry may say in other words what the last one, or another worker's, has trained
    origin = f"{file}, entry {claim.entry.number}"
    params, problem = dict(claim.entry.params), None
    try:
        settings = here.settings(how.words, bench.files(how.files), claim.entry.params, origin, here.known_table())
        settings.check()
        values = settings.values()
        params = {name: values.get(name, value) for name, value in params.items()}  # what is set for all comes before
    except ConfigError as error:  # it was added, or edited, since all of them were checked
        problem = error
    shown = " ".join(f"{name}={record.brief(value)}" for name, value in params.items())
    project.talk.say(f"[{claim.entry.number}/{len(queue.entries())}] {shown}".rstrip())
    if problem is not None:
        claim.settle(FAILED, None, problem.exit_code)
        return Ended(problem.exit_code, error=problem)
    name = named_below(queue.file, project.git.toplevel)
    ended, further = _train(here, claim, how, settings, name)
    for again in range(1, how.retries + 1):
        is_over = ended.by_signal is not None or claim.is_canceled or not how.goes_on()
        if is_over or ended.run is None or not _has_failed(ended):
            break
        project.talk.say(f"[{claim.entry.number}] failed, tried again ({again} of {how.retries})")
        ended, further = _train(bench.ready(claim), claim, replace(how, redo=Redo.AGAIN), settings, name)
    status = _settle(claim, ended, further)
    return replace(ended, exit_code=0) if status == CANCELED else ended


def _may_go_on(project: Project, queue: Queue, how: How, wanted: Collection[str], tried: Collection[str]) -> bool:
    """Whether another entry may begin; while the queue is paused, wait, unless nothing is left to wait for."""
    is_said = False
    while how.goes_on():
        if not queue.folder.is_paused:
            return True
        if not how.search and not any(
            state.status in wanted and state.entry.key not in tried for state in queue.states()
        ):
            return False
        if how.speaks and not is_said:
            is_said = True
            project.talk.say(_paused(named_below(queue.file, Path.cwd())))
        time.sleep(_PAUSE)
    return False


def _paused(file: Path | str) -> str:
    return f"{file} is paused; numb queue resume {file}"


class Bench:
    """Where a worker trains: in a folder of its own, with the code that was queued, or in place."""

    def __init__(
        self,
        project: Project,
        queue: Queue,
        codes: Codes,
        place: Workplace | None,
        code: Code | None,
        known: Collection[str],
    ) -> None:
        self.project, self.queue = project, queue
        self._codes, self._place, self._code = codes, place, code
        self._known = set(known)  # the entries that were there when the code was taken
        self._seen: object = None  # the state of the file when it was last looked at
        self._is_owner = False  # of the snapshots, and no `hand_out` is

    @classmethod
    def of(cls, project: Project, queue: Queue, how: How) -> Bench:
        codes = project.codes(queue)
        known: Collection[str] = [entry.key for entry in queue.entries()]
        name = begun(project, queue, how) if how.code is None else how.code
        queue.begin(name)
        if how.live:
            bench = cls(project, queue, codes, None, None, ())
        else:
            code, then = codes.load(name)
            bench = cls(project, queue, codes, project.workplace(), code, known if how.code is None else then)
        bench._is_owner = how.code is None
        return bench

    def close(self) -> None:
        if self._place is not None:
            self._place.close()
        if self._is_owner:
            forget(self.project, self.queue)

    def notice(self) -> None:
        """Take a snapshot for entries that were added since, unless one was taken when they were."""
        stamp = self.queue.stamp
        if self._code is not None and stamp != self._seen:
            added(self.project, self.queue, self._known)
            self._seen = stamp

    def ready(self, claim: Claim) -> Project:
        """The project as an entry was queued, where its script is going to run."""
        if self._code is None or self._place is None:
            return self.project.working(Job(claim))
        code, own = self._code, self.queue.code_of(claim.entry)
        if own is not None and own > code.name:
            with contextlib.suppress(StorageFailed):  # then by what the queue began with
                code, _ = self._codes.load(own)
        self._place.show(code)
        return self.project.working(Job(claim, code, self._place))

    def files(self, words: Sequence[str]) -> list[str]:
        """Files of hyperparameters, as they were queued: those of the project, and others that have changed since."""
        return [self._file(number, word) for number, word in enumerate(words)] if self._place else [*words]

    def _file(self, number: int, word: str) -> str:
        if self._place is None or self._code is None:
            return word
        prefix, path = file_of(word)
        found = self._place.moved(os.path.abspath(path))
        kept = self._codes.kept(self._code.name, number, str(path))
        if kept.exists() and not (os.path.exists(found) and filecmp.cmp(kept, found, shallow=False)):
            found = str(kept)
        return f"{prefix}={found}" if prefix else found

    def propose(self) -> bool:
        """Have one more entry written down; False where there is to be none."""
        if self._place is not None and self._code is not None:
            self._place.show(self._code)
        here = self.project.working(Job(None, self._code, self._place))
        from numb import proposing

        return proposing.propose(self.project, self.queue, here.known_table())

    def pruning(self, how: How) -> How:
        """With the rule by which scripts of a search end themselves, as it is now."""
        if not how.search:
            return how
        from numb import proposing

        return replace(how, asking=replace(how.asking, prune=proposing.rule(self.project, self.queue) or {}))


def begun(project: Project, queue: Queue, how: How) -> str:
    """Take the snapshot for what a queue has now, and forget those that nobody runs any more; returns its name."""
    codes = project.codes(queue)
    unused = codes.unused(engines.is_gone)
    if how.live:
        name = codes.begin(queue.common)
    else:
        files = [str(file_of(word)[1]) for word in how.files]
        name = codes.take([entry.key for entry in queue.entries()], queue.common, files).name
    codes.drop(unused)
    return name


def forget(project: Project, queue: Queue) -> None:
    """Forget the snapshots of a queue, unless somebody else may still run them."""
    codes = project.codes(queue)
    codes.drop(codes.unused(lambda owner: engines.is_gone(owner) or alive.is_here(owner)))


def added(project: Project, queue: Queue, known: Set[str]) -> int:
    """Take a snapshot for the entries that are not *known*, where none was taken yet; returns for how many."""
    turns = queue.folder.read()
    new = [entry for entry in queue.entries() if entry.key not in known]
    bare = [entry for entry in new if entry.key not in turns or turns[entry.key].code is None]
    if bare:
        queue.use(bare, project.codes(queue).take([entry.key for entry in bare], queue.common).name)
    return len(bare)


def _train(project: Project, claim: Claim, how: How, settings: Settings, queue: str) -> tuple[Ended, bool]:
    """Train with an entry; where a training with it was cut off and has kept a checkpoint, go on from there.

    Returns also whether there is a checkpoint now that there was not before.
    """
    was_cut_off = claim.before.status == CUT_OFF and how.redo is not Redo.AGAIN
    earlier = _unfinished(project, claim, settings, queue) if was_cut_off else None
    if earlier is not None:
        project.talk.say(f"{earlier.id} goes on after step {earlier.checkpoints[-1].step}")
        try:
            resumed = project.train(
                how.arguments, settings=settings, queue=queue, resume=(earlier, None), asking=how.asking
            )
            if resumed.run is not None or not isinstance(resumed.error, Refused):
                return resumed, _step(resumed.run) > _step(earlier)
            why: NumbError = resumed.error
        except (Refused, ObjectMissing, ObjectCorrupt) as error:
            why = error
        project.talk.say(f"{earlier.id} cannot go on ({why}); trained anew")
    ended = project.train(
        how.arguments, message=how.message, settings=settings, redo=how.redo, queue=queue, asking=how.asking
    )
    return ended, _step(ended.run) > _step(earlier)


def _step(run: Run | None) -> float:
    """The step of the last checkpoint; that of one without any is before all others."""
    return run.checkpoints[-1].step if run and run.checkpoints else -math.inf


def _unfinished(project: Project, claim: Claim, settings: Settings, queue: str) -> Run | None:
    """The run of the entry that was cut off, if it has a checkpoint; its id is not known where numb was killed."""
    values = settings.values()
    for run in reversed(
        project.index.runs(statuses=(*_CUT_OFF, record.INCOMPLETE, record.FAILED), project=project.place)
    ):
        if run.status == record.FAILED and run.id != claim.before.run:
            continue  # by itself, and not because it was asked to end
        known = {name: run.params[name] for name in values if name in run.params}
        is_like_it = run.queue == queue and record.key(known) == record.key(values)
        if run.checkpoints and (run.id == claim.before.run or (claim.before.run is None and is_like_it)):
            return run
    return None


def _settle(claim: Claim, ended: Ended, further: bool) -> str:
    """Write down what came of an entry, and return its status; *further* says that it has a new checkpoint."""
    kept = ended.run or ended.same
    run = kept.id if kept else None
    if claim.is_canceled and (ended.run is None or ended.run.status != record.COMPLETE):
        claim.settle(CANCELED, run, ended.exit_code)
        return CANCELED
    if ended.run is not None and (_was_cut_off(ended.run) or (ended.is_told and _has_failed(ended))):
        claim.settle(CUT_OFF, run, ended.exit_code, stopped=not ended.is_told, stuck=not further)
        return CUT_OFF
    if ended.error and ended.run is None:
        claim.settle(QUEUED, None, ended.exit_code)  # it was refused, and nothing came of it
        return QUEUED
    status = FAILED if _has_failed(ended) else DONE
    claim.settle(status, run, ended.exit_code, skipped=ended.run is None and kept is not None)
    return status


def _was_cut_off(run: Run) -> bool:
    """Whether a run is to go on some day: what was ended because others were better is not."""
    return run.status in (*_CUT_OFF, record.INCOMPLETE) and not record.is_pruned(run)


def _has_failed(ended: Ended) -> bool:
    """Whether the script itself has failed: one that was ended from outside has not."""
    if ended.run is not None and _was_cut_off(ended.run):
        return False
    return bool(ended.exit_code) or (ended.run is not None and ended.run.status == record.FAILED)


def check(project: Project, file: Path, words: Sequence[str], files: Sequence[str]) -> None:
    """Before the first run: each entry with what is set for all of them, whose values may lack or contradict each other."""
    queue = project.queue(file, words, files)
    if repeated := [str(entry.number) for entry in queue.repeated()]:
        which = f"entry {repeated[0]} repeats" if len(repeated) == 1 else f"entries {record.some(repeated)} repeat"
        project.talk.say(f"{file}: {which} an earlier one; equal combinations are trained once")
    table = _check(project, queue)
    environment = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}  # of thousands, once
    for entry in queue.entries():
        origin = f"{queue.file}, entry {entry.number}"
        gather(table, files=files, environment=environment, queue=entry.params, origin=origin, words=words).check()


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
