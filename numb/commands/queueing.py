"""The commands of queue files: what is in them, how they are worked off, and how far they have come."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from numb.commands.common import as_json_option, opened
from numb.commands.running import Duration, report_end, set_options, together
from numb.errors import Usage
from numb.terminal import put, say

if TYPE_CHECKING:
    from numb.engines import Engine
    from numb.overseeing import Seen
    from numb.project import Project
    from numb.proposing import Search
    from numb.queue import Entry, Queue, State
    from numb.sweep import How
    from numb.talk import Ended

_PICTURE = 1.0  # seconds between two pictures of a queue
_TAIL = 5  # lines of the log of one that has failed


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are to be trained, and how."""

    words: Sequence[str] = ()
    files: Sequence[str] = ()
    again: bool = False
    failed: bool = False
    fail_fast: bool = False
    retries: int = 0
    time_limit: float = 0.0
    live: bool = False
    search: bool = False

    def how(self, **more: Any) -> How:
        """As `Project.run_queue` is asked for it."""
        from numb.order import Asking
        from numb.sweep import How
        from numb.talk import Redo

        return How(
            redo=Redo.AGAIN if self.again else Redo.SKIP,
            failed=self.failed,
            fail_fast=self.fail_fast,
            words=self.words,
            files=self.files,
            retries=self.retries,
            asking=Asking(self.time_limit),
            live=self.live,
            search=self.search,
            **more,
        )

    def options(self) -> list[str]:
        """As a worker is told of it."""
        switches = {"--again": self.again, "--failed": self.failed, "--fail-fast": self.fail_fast, "--live": self.live}
        switches["--search"] = self.search
        told = [name for name, is_on in switches.items() if is_on]
        told += ["--retries", str(self.retries)]
        told += ["--time-limit", f"{self.time_limit}s"] if self.time_limit else []
        told += [word for file in self.files for word in ("-c", file)]
        return [*told, *(word for pair in self.words for word in ("-p", pair))]


@click.group()
def queue() -> None:
    """Train with many combinations of hyperparameters, one run each."""


_queue_file = click.argument("file", type=click.Path(path_type=Path))


@queue.command("init")
@_queue_file
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def queue_init(file: Path, force: bool) -> None:
    """Write a queue FILE with the script's own hyperparameters as its first combination."""
    params = opened().make_queue(file, force=force)
    say(f"numb: {file} has one combination of {', '.join(params)}; add more, then: numb queue run {file}")


_words = click.argument("words", nargs=-1, required=True, metavar="NAME=VALUE...")
_force = click.option("--force", is_flag=True, help="Add combinations that are there already, too.")


@queue.command("grid")
@_queue_file
@_words
@click.option("--zip", "zipped", is_flag=True, help="The first of each list together, then the second, and so on.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, metavar="N", help="Each N times, with seeds from 0.")
@_force
def queue_grid(file: Path, words: tuple[str, ...], zipped: bool, repeat: int, force: bool) -> None:
    """Add every combination of lists to FILE: lr={{1e-2,1e-3}} bs={{32,64}} adds four, and the first varies slowest."""
    from numb import grid

    _extend(file, (grid.zipped if zipped else grid.crossed)(words), repeat, force)


@queue.command("sample")
@_queue_file
@_words
@click.option("-n", "number", type=click.IntRange(min=1), required=True, metavar="N", help="So many combinations.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed draws the same values.")
@_force
def queue_sample(file: Path, words: tuple[str, ...], number: int, seed: int, force: bool) -> None:
    """Add combinations that are drawn to FILE: 'lr=loguniform(1e-5,1e-1)' 'layers=randint(1,8)' 'opt=choice(sgd,adam)'.

    Also uniform(LOW,HIGH), normal(MEAN,DEVIATION), lograndint(LOW,HIGH). The values are written down, and drawn no more.
    """
    from numb import grid

    _extend(file, grid.sampled(words, number, seed), 1, force)


@queue.command("add")
@_queue_file
@_words
@_force
def queue_add(file: Path, words: tuple[str, ...], force: bool) -> None:
    """Add one combination to FILE."""
    _extend(file, [list(words)], 1, force)


def _extend(file: Path, combinations: Sequence[Sequence[str]], repeat: int, force: bool) -> None:
    _added(file, *opened(reading=True).extend_queue(file, combinations, repeat=repeat, force=force))


def _added(file: Path, added: int, there: int) -> None:
    from numb import record

    again = f", {there} were there already" if there else ""
    say(f"numb: {file}: {record.counted(added, 'combination')} added{again}; numb queue run {file}")


def _entries(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which entries are trained, and how; a command gets them as *wanted*."""

    @functools.wraps(command)
    def gathered(words: Sequence[str], pairs: Sequence[str], **given: Any) -> Any:
        how = {each.name: given.pop(each.name) for each in fields(Wanted) if each.name in given}
        return command(wanted=Wanted(words=together(words, pairs), **how), **given)

    made: Callable[..., Any] = gathered
    for option in (
        click.option(
            "--time-limit",
            type=Duration(),
            default=0.0,
            metavar="2h",
            help="Ask each script to stop after this time; end it where it does not hear.",
        ),
        click.option(
            "--retries", type=click.IntRange(min=0), default=0, metavar="N", help="Try what fails N times more."
        ),
        click.option("--fail-fast", is_flag=True, help="Begin no other entry after one that fails."),
        click.option("--failed", is_flag=True, help="Run entries that failed once more."),
        click.option("--again", is_flag=True, help="Run entries even if the same was trained before."),
        click.option("--live", is_flag=True, help="Run in place, with the code as it is when each entry begins."),
        set_options,
    ):
        made = option(made)
    return made


@dataclass(frozen=True, slots=True)
class Where:
    """Where entries are trained, as it is said on a command line."""

    workers: int | None
    gpus: str | None
    per_gpu: int | None
    cold: bool
    engine: str | None
    slurm: Sequence[str]
    setup: Sequence[str]
    wait: bool

    def made(self, stop_after: float | None) -> Engine:
        """The engine that is meant. Raises `Usage` for what it cannot be told."""
        on = [gpu.strip() for gpu in (self.gpus or "").split(",") if gpu.strip()]
        if self.gpus is not None and (not on or any(len(gpu.split()) > 1 for gpu in on)):
            raise Usage(f"--gpus {self.gpus!r} names no GPUs", "--gpus 0,1")
        if self.per_gpu is not None and not on:
            raise Usage("--per-gpu needs --gpus", f"--gpus 0 --per-gpu {self.per_gpu}")
        is_for_slurm = bool(self.slurm or self.setup)
        is_parallel = self.workers is not None or bool(on) or self.cold
        name = self.engine or ("slurm" if is_for_slurm else "local" if is_parallel else "debug")
        for option, is_given, engines in (
            ("-j", self.workers is not None, ("local", "slurm")),
            ("--gpus", bool(on), ("local",)),
            ("--cold", self.cold, ("local",)),
            ("--slurm", is_for_slurm, ("slurm",)),
            ("--wait", self.wait, ("slurm",)),
            ("--stop-after", stop_after is not None, ("local", "debug")),
        ):
            if is_given and name not in engines:
                raise Usage(f"the engine {name} takes no {option}", f"leave {option} out, or --engine {engines[0]}")
        if name == "slurm":
            from numb.engines import slurm

            return slurm.Slurm(slurm.options(self.slurm), self.workers, self.setup, wait=self.wait)
        if name == "local":
            from numb.engines.local import Local, Slots

            return Local(Slots.of(self.workers, on, self.per_gpu or 1), cold=self.cold)
        from numb.engines.debug import Debug

        return Debug()


def _engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where; a command gets them as *where*, with *stop_after* and *test*."""

    @functools.wraps(command)
    def gathered(**given: Any) -> Any:
        where = Where(**{each.name: given.pop(each.name) for each in fields(Where)})
        return command(where=where, **given)

    made: Callable[..., Any] = gathered
    for option in reversed(
        (
            click.option(
                "-j", "workers", type=click.IntRange(min=1), default=None, metavar="N", help="So many at the same time."
            ),
            click.option("--gpus", metavar="0,1", help="One at the same time on each of these GPUs."),
            click.option("--per-gpu", type=click.IntRange(min=1), metavar="N", help="So many on each GPU."),
            click.option(
                "--stop-after",
                type=Duration(),
                default=None,
                metavar="8h",
                help="Begin no other entry after this time.",
            ),
            click.option(
                "--cold",
                is_flag=True,
                help="A new interpreter for each, where else one that has imported torch is forked.",
            ),
            click.option("--engine", type=click.Choice(["local", "debug", "slurm"]), help="Where; here by default."),
            click.option(
                "--slurm", multiple=True, metavar="partition=gpu,gpus=1,time=2h", help="Options for Slurm's sbatch."
            ),
            click.option(
                "--slurm-setup", "setup", multiple=True, metavar="LINE", help="A line of shell before each task."
            ),
            click.option("--wait", is_flag=True, help="Stay until Slurm has ended all tasks."),
            click.option("--test", is_flag=True, help="Only say what would be done."),
        )
    ):
        made = option(made)
    return made


@queue.command("run")
@_queue_file
@_entries
@_engine
def queue_run(file: Path, wanted: Wanted, where: Where, stop_after: float | None, test: bool) -> None:
    """Train with each combination of FILE that is not done. Started again, it goes on where it stopped.

    Every run has the code as it is now, in a folder of its own; edit on meanwhile. NAME=VALUE sets a hyperparameter for all of
    them. With -j or --gpus several run at the same time, and what they print is in their logs only: numb logs ID.
    """
    work_off(opened(), file, wanted, where.made(stop_after), seconds=stop_after, test=test)


@queue.command("search")
@_queue_file
@click.option("--by", metavar="NAME", help="What is looked at: results.acc.")
@click.option("--max", "lowest", flag_value=False, type=bool, default=None, help="High is good.")
@click.option(
    "--min", "lowest", flag_value=True, type=bool, help="Low is good; the name of a loss or an error says so."
)
@click.option("-n", "count", type=click.IntRange(min=1), metavar="N", help="So many combinations.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same seed and the same runs: the same proposals."
)
@click.option("--sampler", type=click.Choice(["tpe", "random"]), default="tpe", show_default=True)
@click.option(
    "--prune", metavar="SERIES", help="End runs by this field of numb.log where the median of the others is better."
)
@click.option("--warmup", type=click.IntRange(min=0), default=0, metavar="N", help="Prune none before its Nth number.")
@click.option(
    "--startup", type=click.IntRange(min=1), default=5, metavar="N", show_default=True, help="Nor before N others."
)
@_entries
@_engine
def queue_search(
    file: Path,
    by: str | None,
    lowest: bool | None,
    count: int | None,
    seed: int,
    sampler: str,
    prune: str | None,
    warmup: int,
    startup: int,
    wanted: Wanted,
    where: Where,
    stop_after: float | None,
    test: bool,
) -> None:
    """Search for good hyperparameters: 'lr=loguniform(1e-5,1e-1)' 'opt=choice(sgd,adam)' epochs=5.

    What is proposed is written into FILE and trained, until N combinations are there; those of runs that were recorded before
    are learned from. Without NAME=VALUE and --by the search that was begun goes on, with -n until there are so many.
    """
    project, engine = opened(), where.made(stop_after)
    wanted, words = replace(wanted, words=(), search=True), wanted.words
    search = None
    if count and not (words or by):
        search = project.lengthen_search(file, count, dry_run=test)
    elif words or by:
        if not (words and by and count):
            missing = "--by NAME" if not by else "-n N" if not count else "NAME=DISTRIBUTION"
            raise Usage(
                f"a search needs {missing}",
                f"numb queue search {file} --by results.acc -n 20 'lr=loguniform(1e-5,1e-1)'",
            )
        search = project.begin_search(
            file, words, by=by, lowest=lowest, count=count, seed=seed, sampler=sampler, prune=prune, warmup=warmup,
            startup=startup, dry_run=test,
        )  # fmt: skip
    work_off(project, file, wanted, engine, seconds=stop_after, test=test, search=search)


@queue.command("work", hidden=True)
@_queue_file
@_entries
@click.option("--gone", type=int, default=None, help="A descriptor at whose end nothing more is begun.")
@click.option("--asking", type=int, default=None, help="A descriptor at which a nursery answers.")
@click.option("--code", default=None, help="The snapshot that was taken for the entries.")
@click.option("--limit", type=int, default=None, help="So many entries at most.")
@click.option("--task", is_flag=True, help="Be a task of Slurm's.")
@click.option("--search", is_flag=True, help="Ask for one more where none is left.")
def queue_work(
    file: Path, wanted: Wanted, gone: int | None, asking: int | None, code: str | None, limit: int | None, task: bool
) -> None:
    """Be a worker of numb queue run."""
    from numb.engines import local

    local.begin_to_work()
    project = opened(
        reading=code is not None and not wanted.live
    )  # nmb.json may be being edited: jobs have what was queued
    if asking is not None and project.config.train:
        project.start = local.starter(project.config, project.home, asking)
    if task:
        from numb.engines import slurm

        project.passed_as = slurm.PASSED_AS
    exit_code = 0
    goes_on = (lambda: True) if gone is None else (lambda: not local.is_alone(gone))
    how = wanted.how(is_checked=True, goes_on=goes_on, code=code, limit=limit)
    for entry, ended in project.run_queue(file, how):
        _report(project, entry, ended)
        exit_code = exit_code or ended.exit_code
    sys.exit(exit_code)


def _report(project: Project, entry: Entry, ended: Ended) -> None:
    """One of several that run at the same time has ended."""
    from numb import record
    from numb.errors import printable

    run = ended.run or ended.same
    if ended.error is not None or run is None:
        say(f"numb: [{entry.number}] {ended.error or 'nothing was trained'}")
        return
    if ended.run is None:
        say(f"numb: [{entry.number}] {run.id} is the same, done before")
        return
    results = " ".join(f"{name}={record.brief(value)}" for name, value in record.flat(run.results).items())
    status = run.status if run.reason is None or run.status == record.COMPLETE else f"{run.status}: {run.reason}"
    if not ended.exit_code and run.status in (record.INTERRUPTED, record.KILLED):
        status = f"canceled: {run.reason}"
    say(f"numb: [{entry.number}] {status}  {run.seconds or 0:.1f} s  {run.id}" + (f" → {results}" if results else ""))
    if run.status in (record.FAILED, record.KILLED):
        for line in project.log(run).decode(errors="replace").rstrip().splitlines()[-_TAIL:]:
            say(f"      | {printable(line)}")
    for note in ended.run.notes:
        say(f"      {note}")


def work_off(
    project: Project,
    file: Path,
    wanted: Wanted,
    engine: Engine,
    arguments: Sequence[str] = (),
    *,
    message: str = "",
    seconds: float | None = None,
    test: bool = False,
    search: Search | None = None,
) -> NoReturn:
    """Train with the combinations of a file, say how they stand then, and end."""

    def here(how: How) -> int:
        code = 0
        for _, ended in project.run_queue(file, how):
            report_end(ended)
            code = code or ended.exit_code
        return code

    how = wanted.how(arguments=arguments, message=message)
    told = replace(wanted, failed=False).options()
    if test:
        put(project.shown_queue(file, how, told, engine, search))
        sys.exit(0)
    code, waiting, states = project.hand_out(file, how, told, engine, here, seconds)
    _sum_up(project, file, wanted, code, states, idle=waiting == 0)


def _sum_up(
    project: Project, file: Path, wanted: Wanted, code: int, states: Sequence[State], *, idle: bool
) -> NoReturn:
    from numb.view import queues

    say(f"numb: {file}: {queues.counts(states) or 'no combinations'}")
    there = {state.status for state in states}
    left = "queued" in there or "cut off" in there
    if wanted.search:
        by = project.searched(file)
        say(f"      numb best --by {by}; numb queue search {file} goes on, with -n N until there are so many")
    elif left and code > 128:
        say(f"      numb queue run {file} goes on")
    elif idle and "done" in there:
        say("      what is done stays done, whatever has changed since; for other code, copy the file")
    if "failed" in there:
        say(f"      try: numb queue run --failed {file}")
    sys.exit(code or (1 if "failed" in there else 0))


_numbers = click.argument("entries", nargs=-1, metavar="[ENTRY]... [NAME=VALUE]...")
_files = click.option(
    "-c", "--config", "files", multiple=True, metavar="[PREFIX=]FILE", help="As it was given when it was run."
)
_select = click.option("--select", multiple=True, metavar="NAME=VALUE", help="Only entries that have this value.")
_status = click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(["queued", "running", "done", "failed", "cut off", "canceled"]),
    help="Only entries of this status.",
)
_DIGITS = 9  # of a number of an entry


@dataclass(frozen=True, slots=True)
class Chosen:
    """The queue of a file with what was set for all entries, of each who runs it where nothing is said, and which of them."""

    queues: Sequence[Queue]
    numbers: Callable[[Queue], set[int] | None]  # None: all
    words: Sequence[str]

    @classmethod
    def of(
        cls,
        project: Project,
        file: Path,
        entries: Sequence[str],
        files: Sequence[str],
        select: Sequence[str],
        statuses: Sequence[str] = (),
    ) -> Chosen:
        """Numbers are as they stand in the file, `3 5-7`. Raises `Usage`, and `ConfigError` where there is no such file."""
        words = [word for word in entries if "=" in word]
        queues = project.queues(file, words, files)
        count = len(queues[0].entries())
        found: set[int] = set()
        for word in (word for word in entries if "=" not in word):
            first, dash, last = word.partition("-")
            if not all(each.isdecimal() and len(each) <= _DIGITS for each in (first, last if dash else first)):
                raise Usage(f"{word[:40]} is no number of an entry", "numb queue status shows them: 3, or 5-7")
            wanted = range(int(first), int(last or first) + 1)
            if not wanted or not 1 <= wanted[0] <= wanted[-1] <= count:
                raise Usage(f"{file} has no entry {word}; it has {count}", f"numb queue status {file}")
            found.update(wanted)
        numbers = found if len(words) < len(entries) else None

        def chosen(queue: Queue) -> set[int] | None:
            if not (select or statuses):
                return numbers
            alike = project.entries_like(queue, select, statuses)
            return alike if numbers is None else numbers & alike

        return cls(queues, chosen, words)


@queue.command("cancel")
@_queue_file
@_numbers
@_files
@_select
@_status
def queue_cancel(
    file: Path, entries: tuple[str, ...], files: tuple[str, ...], select: tuple[str, ...], statuses: tuple[str, ...]
) -> None:
    """Let entries of FILE that have not begun never begin, and end those that run. Without ENTRY, all of them."""
    from numb import record

    project = opened()
    chosen = Chosen.of(project, file, entries, files, select, statuses)
    waiting, running = project.cancel_queue(file, chosen.numbers, chosen.words, files)
    asked = f", {record.counted(running, 'script')} asked to end" if running else ""
    say(f"numb: {file}: {record.counted(waiting, 'entry', 'entries')} canceled{asked}; numb queue status {file}")


@queue.command("pause")
@_queue_file
def queue_pause(file: Path) -> None:
    """Let no further entry of FILE begin until numb queue resume; what runs goes on, and workers wait."""
    found = opened().queue(file)
    found.entries()  # or there is no such file
    found.pause()
    say(f"numb: {file} is paused; numb queue resume {file}")


@queue.command("resume")
@_queue_file
def queue_resume(file: Path) -> None:
    """Go on with FILE after numb queue pause."""
    opened().queue(file).resume()
    say(f"numb: {file} goes on where workers wait for it; else: numb queue run {file}")


@queue.command("retry")
@_queue_file
@_numbers
@_files
@_select
@click.option("--failed", is_flag=True, help="Those that failed.")
@click.option("--canceled", is_flag=True, help="Those that were canceled.")
@click.option("--lost", is_flag=True, help="Those whose worker is on a machine of which nothing is known: it has gone.")
def queue_retry(
    file: Path,
    entries: tuple[str, ...],
    files: tuple[str, ...],
    select: tuple[str, ...],
    failed: bool,
    canceled: bool,
    lost: bool,
) -> None:
    """Let entries of FILE be as if they had not begun."""
    from numb import record
    from numb.queue import CANCELED, CUT_OFF, FAILED

    if not (entries or select or failed or canceled or lost):
        raise Usage("say which", f"numb queue retry --failed {file}, or the numbers of entries")
    wanted = [status for status, is_meant in ((FAILED, failed), (CANCELED, canceled)) if is_meant]
    statuses = wanted or ([] if lost else [FAILED, CANCELED, CUT_OFF])
    chosen = Chosen.of(opened(), file, entries, files, select)
    found = sum(each.retry(statuses, chosen.numbers(each), lost=lost) for each in chosen.queues)
    say(f"numb: {file}: {record.counted(found, 'entry', 'entries')} queued again; numb queue run {file}")


@queue.command("priority")
@_queue_file
@_numbers
@_files
@_select
@click.option(
    "--to",
    "priority",
    type=click.IntRange(-999_999, 999_999),
    default=1,
    show_default=True,
    help="The highest comes first; 0 is usual.",
)
def queue_priority(
    file: Path, entries: tuple[str, ...], files: tuple[str, ...], select: tuple[str, ...], priority: int
) -> None:
    """Let entries of FILE come before, or after, the others; what was cut off comes first in any case."""
    from numb import record

    chosen = Chosen.of(opened(), file, entries, files, select)
    if chosen.numbers(chosen.queues[0]) is None:
        raise Usage("say which entries", f"numb queue priority {file} 3 5-7, or --select lr=0.1")
    found = max(each.prefer(priority, chosen.numbers(each)) for each in chosen.queues)
    say(f"numb: {file}: {record.counted(found, 'entry', 'entries')} with priority {priority}")


@queue.command("dup")
@_queue_file
@click.argument("run")
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]...")
def queue_dup(file: Path, run: str, words: tuple[str, ...]) -> None:
    """Add the combination of a RUN to FILE, with other values where NAME=VALUE says so."""
    project = opened(reading=True)
    _added(file, *project.repeat_in_queue(file, project.find(run), words))


@queue.command("sync")
@_queue_file
@click.argument("program", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="JOBS.PY")
@click.option("--dry-run", is_flag=True, help="Only say what would be added.")
def queue_sync(file: Path, program: Path, dry_run: bool) -> None:
    """Add what JOBS.PY lists and FILE lacks: its `jobs` is a list of combinations, or a function that gives them."""
    from numb import record

    added, there, strange = opened(reading=True).sync_queue(file, program, dry_run=dry_run)
    would = "would be " if dry_run else ""
    say(f"numb: {file}: {record.counted(added, 'combination')} {would}added, {there} were there already")
    if strange:
        say(
            f"      {record.counted(strange, 'combination')} of {file} {'is' if strange == 1 else 'are'} not in {program}"
        )


@queue.command("status")
@_queue_file
@set_options
@_select
@_status
@click.option("--all", "every", is_flag=True, help="Every entry, also of a long file.")
@click.option("--watch", is_flag=True, help="Draw it again and again until nothing is left to do; Ctrl-C leaves.")
@as_json_option
def queue_status(
    file: Path,
    words: tuple[str, ...],
    pairs: tuple[str, ...],
    files: tuple[str, ...],
    select: tuple[str, ...],
    statuses: tuple[str, ...],
    every: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Show how far each entry of FILE has come; NAME=VALUE and -c as they were given when it was run."""
    from numb.view import queues

    progress = opened().queue_progress(file, together(words, pairs), files)
    look = functools.partial(progress.look, select, statuses)
    if as_json:
        put(queues.as_json(look()))
    elif watch and sys.stdout.isatty():
        _live(look, every)
    else:
        put(queues.table(look(), every=every))


def _live(look: Callable[[], Seen], every: bool) -> None:
    import signal
    import time

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from numb.view import queues

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the terminal is as it was
    console = Console(markup=False, highlight=False, emoji=False)
    seen = look()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not seen.is_over:
            shown = queues.table(seen, every=every, lines=console.size.height - 1)
            live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(_PICTURE)
            seen = look()
    put(queues.table(seen, every=every))
