"""The commands of queue files: queue init, grid, sample, add, run, status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from numb.commands.common import as_json_option, opened
from numb.commands.running import report_end, set_options, together
from numb.terminal import put, say

if TYPE_CHECKING:
    from numb.project import Project


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


@queue.command("run")
@_queue_file
@set_options
@click.option("--again", is_flag=True, help="Run entries even if the same was trained before.")
@click.option("--failed", is_flag=True, help="Run entries that failed once more.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first entry that fails.")
def queue_run(
    file: Path,
    words: tuple[str, ...],
    pairs: tuple[str, ...],
    files: tuple[str, ...],
    again: bool,
    failed: bool,
    fail_fast: bool,
) -> None:
    """Train with each combination of FILE that is not done. Started again, it goes on where it stopped.

    NAME=VALUE sets a hyperparameter for all of them.
    """
    given = together(words, pairs)
    run_whole(opened(), file, again=again, failed=failed, fail_fast=fail_fast, words=given, files=files)


def run_whole(
    project: Project,
    file: Path,
    arguments: Sequence[str] = (),
    *,
    again: bool,
    message: str = "",
    failed: bool = False,
    fail_fast: bool = False,
    words: Sequence[str] = (),
    files: Sequence[str] = (),
) -> None:
    from numb.talk import Redo

    code, idle = 0, True
    redo = Redo.AGAIN if again else Redo.SKIP
    how: dict[str, Any] = {"failed": failed, "fail_fast": fail_fast, "words": words, "files": files}
    for _, ended in project.run_queue(file, arguments, message=message, redo=redo, **how):
        report_end(ended)
        code, idle = code or ended.exit_code, False
    counts = project.queue(file, words, files).counts()
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(f"numb: {file}: {states or 'no combinations'}")
    if idle and counts.get("done"):
        say("      what is done stays done, whatever has changed since; for other code, copy the file")
    if counts.get("failed"):
        say(f"      try: numb queue run --failed {file}")
    sys.exit(code or (1 if counts.get("failed") else 0))


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
