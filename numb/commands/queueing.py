"""The commands of queue files: queue init, grid, sample, add, run, status."""

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
    from numb.project import Project
    from numb.queue import Entry
    from numb.sweep import How
    from numb.talk import Ended

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
    from numb import record

    added, there = opened(reading=True).extend_queue(file, combinations, repeat=repeat, force=force)
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
            "--time-limit", type=Duration(), default=0.0, metavar="2h", help="Ask each script to stop after this time."
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
    are learned from. Without NAME=VALUE and --by the search that was begun goes on.
    """
    project, engine = opened(), where.made(stop_after)
    wanted, words = replace(wanted, words=(), search=True), wanted.words
    if words or by or count:
        if not (words and by and count):
            missing = "--by NAME" if not by else "-n N" if not count else "NAME=DISTRIBUTION"
            raise Usage(
                f"a search needs {missing}",
                f"numb queue search {file} --by results.acc -n 20 'lr=loguniform(1e-5,1e-1)'",
            )
        project.begin_search(
            file, words, by=by, lowest=lowest, count=count, seed=seed, sampler=sampler, prune=prune, warmup=warmup,
            startup=startup,
        )  # fmt: skip
    work_off(project, file, wanted, engine, seconds=stop_after, test=test)


@queue.command("work", hidden=True)
@_queue_file
@_entries
@click.option("--gone", type=int, default=None, help="A descriptor at whose end nothing more is begun.")
@click.option("--asking", type=int, default=None, help="A descriptor at which a nursery answers.")
@click.option("--code", default=None, help="The snapshot that was taken for the entries.")
@click.option("--limit", type=int, default=None, help="So many entries at most.")
@click.option("--search", is_flag=True, help="Ask for one more where none is left.")
def queue_work(
    file: Path, wanted: Wanted, gone: int | None, asking: int | None, code: str | None, limit: int | None
) -> None:
    """Be a worker of numb queue run."""
    from numb.engines import local

    local.keep_quiet()
    project = opened()
    if asking is not None:
        project.start = local.starter(project.config, project.home, asking)
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
    say(f"numb: [{entry.number}] {status}  {run.seconds or 0:.1f} s  {run.id}" + (f" → {results}" if results else ""))
    if run.status == record.FAILED:
        for line in project.log(run).decode(errors="replace").rstrip().splitlines()[-_TAIL:]:
            say(f"      | {printable(line)}")


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
        put(project.shown_queue(file, how, told, engine))
        sys.exit(0)
    code, waiting = project.hand_out(file, how, told, engine, here, seconds)
    _sum_up(project, file, wanted, code, idle=waiting == 0)


def _sum_up(project: Project, file: Path, wanted: Wanted, code: int, *, idle: bool) -> NoReturn:
    from numb.view import table

    states = project.queue(file, wanted.words, wanted.files).states()
    say(f"numb: {file}: {table.queue_counts(states) or 'no combinations'}")
    there = {state.status for state in states}
    if idle and "done" in there:
        say("      what is done stays done, whatever has changed since; for other code, copy the file")
    if "failed" in there:
        say(f"      try: numb queue run --failed {file}")
    sys.exit(code or (1 if "failed" in there else 0))


@queue.command("status")
@_queue_file
@set_options
@as_json_option
def queue_status(
    file: Path, words: tuple[str, ...], pairs: tuple[str, ...], files: tuple[str, ...], as_json: bool
) -> None:
    """Show how far each entry of FILE has come; NAME=VALUE and -c as they were given when it was run."""
    from numb.view import table

    states = opened().queue(file, together(words, pairs), files).states()
    put(table.queue_json(states) if as_json else table.queue(states))
