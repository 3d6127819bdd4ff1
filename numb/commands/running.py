"""The commands that run the user's scripts, and what they set in them: train, trial, queue, hp."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from numb.commands.common import ScriptCommand, as_json_option, misplaced, opened
from numb.errors import NotPossible, NumbError, Usage
from numb.terminal import changes, complain, put, say

if TYPE_CHECKING:
    from numb.talk import Ended


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _redo(again: bool, skip_done: bool) -> Any:
    from numb.talk import Redo

    if again and skip_done:
        raise Usage("--again and --skip-done exclude each other", "choose one of them")
    return Redo.AGAIN if again else Redo.SKIP if skip_done else Redo.ASK


def report_end(ended: Ended) -> None:
    if ended.error is not None:
        complain(ended.error)
    elif ended.run is not None:
        from numb.record import COMPLETE, INCOMPLETE, brief, flat

        run = ended.run
        results = " ".join(f"{name} {brief(value)}" for name, value in flat(run.results).items())
        status = "" if run.status == COMPLETE else f" ({run.status})"
        if run.status == INCOMPLETE and run.reason:
            status = f" ({run.status}: {run.reason})"
        if absent := run.without_weights:
            status += ", but not " + (f"the weights of {', '.join(absent)}" if run.weights else "its weights")
        say(f"numb: saved {run.id}{status}" + (f" → {results}" if results else ""))
        if run.status != COMPLETE and run.checkpoints:
            say(f"      numb train --resume {run.id} goes on after step {run.checkpoints[-1].step}")
        for note in run.notes or (("why is not recorded: is the disk full?",) if absent else ()):
            say(f"      {note}")
    elif ended.same is not None:
        say(f"numb: {ended.same.id} is the same run, done before; nothing was trained")
        if ended.changed != []:
            say(f"      code: {changes(ended.changed)}; --again trains it again")
        if ended.command:
            say(f"      its command was {shlex.join(ended.command)}; --again trains with this one")
        if ended.same.without_weights:
            say("      not all of its weights were kept; --again trains it again")


_again = click.option("--again", is_flag=True, help="Train even if the same was trained before.")


def set_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What sets hyperparameters: words, -p, and -c."""
    for option in (
        click.option(
            "-c",
            "--config",
            "files",
            multiple=True,
            metavar="[PREFIX=]FILE",
            help="Set what a JSON, YAML or TOML file says.",
        ),
        click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="The same as the word NAME=VALUE."),
        click.argument("words", nargs=-1, metavar="[NAME=VALUE]..."),
    ):
        command = option(command)
    return command


class Duration(click.ParamType[float]):
    """A time in seconds: `90`, `90s`, `10m`, `1.5h`, `1h30m`, `2d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """Read what a person has typed."""
        if isinstance(value, float):
            return value
        text = value.strip().lower()
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text)
        seconds = sum((float(number) * _SECONDS[unit] for number, unit in parts), 0.0)
        if not seconds or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{value!r} is no time: say 90s, 10m, 2h or 1h30m", param, context)
        return seconds


def _words(context: click.Context, words: Sequence[str], pairs: Sequence[str]) -> list[str]:
    """The settings of a command line. What is no setting is probably for the script."""
    if strange := [word for word in words if "=" not in word or word.startswith("=")]:
        ours = [word for word in context.meta["ours"] if word not in strange]
        raise misplaced(context, f"Got unexpected arguments: {' '.join(strange)}.", ours, strange)
    return together(words, pairs)


def together(words: Sequence[str], pairs: Sequence[str]) -> list[str]:
    names = {word.partition("=")[0] for word in words} & {pair.partition("=")[0] for pair in pairs}
    if twice := sorted(names):  # which of them comes last is lost
        raise Usage(f"{twice[0]} is given twice, with -p and without", f"give {twice[0]} once")
    return [*words, *pairs]


@click.command(cls=ScriptCommand)
@set_options
@_again
@click.option("--skip-done", is_flag=True, help="End at once, with code 0, if the same was trained before.")
@click.option("-m", "--message", default="", metavar="TEXT", help="Why this run.")
@click.option(
    "--queue", "-queue", "queue_file", type=click.Path(path_type=Path), metavar="FILE", help="One run for each entry."
)
@click.option("--strict", is_flag=True, help="Do not run the script when its run cannot be recorded.")
@click.option("--resume", metavar="ID[@STEP]", help="Go on with a run that was cut off, from its last checkpoint.")
@click.option("--init-from", metavar="ID[@STEP]", help="Begin with the weights of another run.")
@click.option(
    "--time-limit", type=Duration(), default=0.0, metavar="2h", help="Ask the script to stop after this time."
)
@click.option("--stop-on", metavar="RULES", help="End the training at nan,inf, or a limit of what it logs: 'loss>100'.")
@click.option("--save-every", type=Duration(), default=0.0, metavar="10m", help="Ask the script for checkpoints.")
@click.option("--dry-run", is_flag=True, help="Check, and print the hyperparameters as YAML; run nothing.")
@click.pass_context
def train(
    context: click.Context,
    words: tuple[str, ...],
    pairs: tuple[str, ...],
    files: tuple[str, ...],
    again: bool,
    skip_done: bool,
    message: str,
    queue_file: Path | None,
    strict: bool,
    resume: str | None,
    init_from: str | None,
    time_limit: float,
    stop_on: str | None,
    save_every: float,
    dry_run: bool,
) -> None:
    """Run the train command of nmb.json as one run, and keep it: code, network, hyperparameters, weights, output.

    NAME=VALUE sets a hyperparameter; numb hp lists them. Ends with the script's own exit code; 125 when numb refuses. Arguments
    after -- go to the script.
    """
    redo, given = _redo(again, skip_done), _words(context, words, pairs)
    arguments = context.obj
    project = opened()
    if dry_run:
        if queue_file is not None:
            raise Usage("--dry-run and --queue exclude each other", f"numb queue status {queue_file}")
        if resume or init_from:
            raise Usage("--dry-run shows what a new run would get", f"numb show {resume or init_from}")
        from numb.view import hyper

        settings = project.settings(given, files)
        settings.check()
        put(hyper.as_yaml(settings.rows()))
        return
    if resume and skip_done:
        raise Usage("--skip-done is for a run that begins, and --resume goes on with one", "choose one of them")
    exclusive = [("--resume", resume), ("--init-from", init_from), ("--queue", queue_file)]
    if len(given_ones := [name for name, value in exclusive if value is not None]) > 1:
        raise Usage(f"{given_ones[0]} and {given_ones[1]} exclude each other", "choose one of them")
    if queue_file is not None and (time_limit or save_every or stop_on):
        raise Usage(
            "--time-limit, --save-every and --stop-on are for one run, and no queue", f"numb queue run {queue_file}"
        )
    if queue_file is not None:  # which skips what was done, and is strict, in any case
        from numb.commands import queueing
        from numb.engines.debug import Debug

        wanted = queueing.Wanted(given, files, again)
        queueing.work_off(project, queue_file, wanted, Debug(), arguments, message=message)
    settings = project.settings(given, files)
    from numb.order import Asking

    ended = project.train(
        arguments,
        message=message,
        redo=redo,
        settings=settings,
        strict=strict,
        asking=Asking(time_limit, save_every, _rules(stop_on)),
        resume=project.find_checkpoint(resume) if resume else None,
        init_from=project.find_checkpoint(init_from) if init_from else None,
    )
    report_end(ended)
    sys.exit(ended.exit_code)


def _rules(text: str | None) -> tuple[str, ...] | None:
    from numb.guard import Guard

    if text is None:
        return None
    rules = tuple(filter(None, map(str.strip, text.split(","))))
    try:
        Guard.of(rules)
    except ValueError as error:
        raise Usage(f"--stop-on: {error}", "numb train --stop-on 'nan,loss>100'") from None
    return rules


@click.command(cls=ScriptCommand)
@click.argument("run", metavar="[ID]", required=False)
@click.option("--all", "-all", "everything", is_flag=True, help="Trial every untrialed run of this architecture.")
@click.option("--name", metavar="NAME", help='Another trial than the usual one: one of "trials" in nmb.json.')
@click.option("-m", "--message", default="", metavar="TEXT", help="Why this trial.")
@click.pass_obj
def trial(arguments: tuple[str, ...], run: str | None, everything: bool, name: str | None, message: str) -> None:
    """Run the trial command of nmb.json with the weights and hyperparameters of a run, and record its results.

    Without an ID it asks which run of the current architecture to take.
    """
    if run and everything:
        raise Usage("an ID and --all exclude each other", "choose one of them")
    project = opened()
    if not everything:
        ended = (
            project.trial(project.find(run), arguments, message=message, name=name)
            if run
            else project.trial_chosen(arguments, message=message, name=name)
        )
        report_end(ended)
        sys.exit(ended.exit_code)
    code, succeeded, count = 0, 0, 0
    for trialed, ended in project.trial_all(arguments, message=message, name=name):
        report_end(ended)
        code = code or ended.exit_code
        succeeded += trialed is not None and not ended.exit_code
        count += trialed is not None
    if count:
        say(f"numb: {succeeded} of {count} trials succeeded")
    sys.exit(code)


@click.command("hp")
@click.argument("words", nargs=-1, metavar="[FILE | NAME | NAME=VALUE]...")
@click.option(
    "-c", "--config", "files", multiple=True, metavar="[PREFIX=]FILE", help="With what a JSON, YAML or TOML file sets."
)
@click.option("--detail", is_flag=True, help="Every place, with the lines around it.")
@click.option("--why", metavar="NAME", help="Each level at which NAME can be set, and which one counts.")
@as_json_option
@click.option("--yaml", "as_yaml", is_flag=True, help="Print YAML that numb train -c takes.")
def hyperparameters(
    words: tuple[str, ...], files: tuple[str, ...], detail: bool, why: str | None, as_json: bool, as_yaml: bool
) -> None:
    """List the hyperparameters of the project, or of FILEs, found by reading the source: name, value, type, hints, places.

    With NAME=VALUE or -c it shows what numb train would do with them. Nothing is run.
    """
    from numb.hp import reading, table
    from numb.hp.settings import gather
    from numb.view import hyper

    given = [word for word in words if "=" in word]
    sources = [Path(word) for word in words if "=" not in word and _is_source(word)]
    names = [word for word in words if "=" not in word and Path(word) not in sources]
    if absent := next((path for path in sources if not path.exists()), None):
        raise Usage(f"there is no file {absent}", "numb hp")
    if sources:  # which need not be part of a project
        root, found = Path.cwd(), table.read(reading.files_in(sources), [], Path.cwd())
    else:
        project = opened(reading=True)
        root, found = project.home, project.table
    settings = gather(found, files=files, environment=os.environ, words=given)
    rows = settings.rows()
    for problem in found.problems:
        say(f"numb: {problem}")
    if not sources:
        try:
            settings.check()
        except NumbError as error:  # which ends numb train, and here is one thing to see of many
            say(f"numb: {error}" + (f"\n      try: {error.hint}" if error.hint else ""))
    wanted = {found.find(name)[0].name for name in (*names, *([why] if why else ()))}
    rows = [row for row in rows if row.name in wanted] if wanted else rows
    if as_json:
        put(hyper.as_json(rows))
    elif as_yaml:
        put(hyper.as_yaml(rows))
    elif why:
        put("\n\n".join(map(hyper.why, rows)))
    elif detail or names:
        put(hyper.detailed(rows, lambda place: table.around(root, place, 5 if detail else 1)))
    elif rows:
        put(hyper.listing(rows))
    else:
        say('numb: no hyperparameters were found: from numb.hp import _, then lr = _("lr", 0.1)')


def _is_source(word: str) -> bool:
    """Whether a word is rather a file or a folder than the name of a hyperparameter."""
    return os.sep in word or word.endswith((".py", ".ipynb")) or Path(word).exists()


@click.command()
@click.argument("runs", metavar="ID...", nargs=-1, required=True)
@as_json_option
def extract(runs: tuple[str, ...], as_json: bool) -> None:
    """Run the function that nmb.json names as "extract" on runs that have ended, and add what it returns to their results."""
    from numb.view import table

    project, code = opened(), 0
    found: dict[str, dict[str, Any]] = {}
    for run in [project.find(each) for each in runs]:
        try:
            found[run.id] = project.extract(run)
        except NotPossible as error:
            complain(error)
            code = error.exit_code
    put(table.results_json(found) if as_json else table.results(found))
    sys.exit(code)
