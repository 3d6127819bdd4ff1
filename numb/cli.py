"""The commands. Each parses, calls one method of `Project`, and renders what came back."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from numb.errors import NumbError, ProblemsFound, Usage
from numb.terminal import Terminal, agreed, attended, bold, changes, complain, put, say, width
from numb.version import __version__

if TYPE_CHECKING:
    from numb.project import Project
    from numb.talk import Ended

_MOMENT = 0.2  # seconds between two looks at what goes on
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class Numb(click.Group):
    """The command group: errors of numb's become one or two lines and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NumbError as error:
            complain(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            # `numb list | head`: the reader has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            raise click.UsageError(
                f"{error.message.rstrip('.')}." + (f" Did you mean {near[0]}?" if near else ""), ctx
            ) from None


class ScriptCommand(click.Command):
    """A command that starts a script: what stands after `--` is the script's."""

    allow_extra_args = True  # so that `parse_args` can say where they belong

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.obj = tuple(args[at + 1 :])
            args = args[:at]
        else:
            ctx.obj = ()
        ours = ctx.meta["ours"] = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            import difflib

            at = next((i for i, word in enumerate(ours) if word.startswith(error.option_name)), len(ours))
            near = difflib.get_close_matches(error.option_name, error.possibilities or (), 1, 0.7)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise _misplaced(ctx, f"No such option: {error.option_name}.{meant}", ours[:at], ours[at:]) from None
        if rest and not ctx.resilient_parsing:
            for word in rest:
                ours.remove(word)
            raise _misplaced(ctx, f"Got unexpected arguments: {' '.join(rest)}.", ours, rest)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


def _misplaced(ctx: click.Context, message: str, ours: Sequence[str], scripts: Sequence[str]) -> click.UsageError:
    import shlex

    command = f"{ctx.command_path} {shlex.join([*ours, '--', *scripts, *ctx.obj])}"
    return click.UsageError(f"{message} What is for the script stands after --: {command}", ctx)


def _project(*, reading: bool = False) -> Project:
    from numb.project import Project

    project = Project.open(".", Terminal(), reading=reading)
    for warning in project.config.warnings:
        say(f"numb: {warning}")
    return project


@click.group(cls=Numb, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="numb", message="%(prog)s %(version)s")
def main() -> None:
    """Keep every run of a PyTorch project as a commit on a branch of its own git repository.

    Start with `numb init`, then `numb train`. Whenever you are lost: `numb list`.
    """


@main.command()
@click.option("--branch", metavar="NAME", help="Commit runs to this branch.  [default: numb]")
def init(branch: str | None) -> None:
    """Make nmb.json, .nmb/ and the branch of the runs; what is there stays as it is."""
    from numb.layout import CONFIG
    from numb.project import Project

    project = Project.init(".", branch, Terminal())
    say(f"numb: ready: {project.home / CONFIG}, {project.layout.folder} (ignored by git), branch {project.git.branch}")
    say("      next: put your commands into nmb.json, the hooks into your script, and type: numb train")


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def deinit(yes: bool) -> None:
    """Destroy what init made: nmb.json, .nmb/ with all weights, and the branch of the runs."""
    from numb.errors import NotInitialised
    from numb.project import Project

    try:
        project = _project()
    except NotInitialised:
        found = Project.remains(".", Terminal())
        if found is None:
            say("numb: there is nothing to remove here")
            return
        project = found
    lost = project.deletion()
    from numb import record

    waiting = f", {lost.unpublished} not on the branch yet" if lost.unpublished else ""
    branch = f", and branch {project.git.branch} at {lost.tip}" if lost.tip else ""
    say(f"This destroys {record.counted(lost.runs, 'run')}{waiting} and {lost.bytes / 1e6:.1f} MB:")
    say(f"{', '.join(map(str, lost.files))}{branch}.")
    if lost.others:
        others = ", ".join(f"{name} ({record.counted(n, 'run')})" for name, n in lost.others.items())
        say(f"Other projects lose theirs too: {others}")
    if lost.work_trees:
        say(f"Other work trees lose theirs too: {', '.join(map(str, lost.work_trees))}")
    if not yes:
        if not attended():
            raise NumbError("nothing was removed", "numb deinit --yes")
        if not agreed("Destroy all of it?"):
            raise NumbError("nothing was removed")
    tip = project.deinit()
    say(
        f"numb: removed; as long as git keeps it, this brings the branch back: git branch {project.git.branch} {tip}"
        if tip
        else "numb: removed"
    )


def _redo(again: bool, skip_done: bool) -> Any:
    from numb.talk import Redo

    if again and skip_done:
        raise Usage("--again and --skip-done exclude each other", "choose one of them")
    return Redo.AGAIN if again else Redo.SKIP if skip_done else Redo.ASK


def _report_end(ended: Ended) -> None:
    if ended.error is not None:
        complain(ended.error)
    elif ended.run is not None:
        from numb.record import COMPLETE, INCOMPLETE, brief

        run = ended.run
        results = " ".join(f"{name} {brief(value)}" for name, value in run.results.items())
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


def _set_options(command: Callable[..., Any]) -> Callable[..., Any]:
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
        raise _misplaced(context, f"Got unexpected arguments: {' '.join(strange)}.", ours, strange)
    return _together(words, pairs)


def _together(words: Sequence[str], pairs: Sequence[str]) -> list[str]:
    names = {word.partition("=")[0] for word in words} & {pair.partition("=")[0] for pair in pairs}
    if twice := sorted(names):  # which of them comes last is lost
        raise Usage(f"{twice[0]} is given twice, with -p and without", f"give {twice[0]} once")
    return [*words, *pairs]


@main.command(cls=ScriptCommand)
@_set_options
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
    project = _project()
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
        _run_queue(project, queue_file, arguments, again=again, message=message, words=given, files=files)
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
    _report_end(ended)
    sys.exit(ended.exit_code)


def _rules(text: str | None) -> tuple[str, ...]:
    from numb.guard import Guard

    rules = tuple(filter(None, map(str.strip, (text or "").split(","))))
    try:
        Guard.of(rules)
    except ValueError as error:
        raise Usage(f"--stop-on: {error}", "numb train --stop-on 'nan,loss>100'") from None
    return rules


@main.command(cls=ScriptCommand)
@click.argument("run", metavar="[ID]", required=False)
@click.option("--all", "-all", "everything", is_flag=True, help="Trial every untrialed run of this architecture.")
@click.option("-m", "--message", default="", metavar="TEXT", help="Why this trial.")
@click.pass_obj
def trial(arguments: tuple[str, ...], run: str | None, everything: bool, message: str) -> None:
    """Run the trial command of nmb.json with the weights and hyperparameters of a run, and record its results.

    Without an ID it asks which run of the current architecture to take.
    """
    if run and everything:
        raise Usage("an ID and --all exclude each other", "choose one of them")
    project = _project()
    if not everything:
        ended = (
            project.trial(project.find(run), arguments, message=message)
            if run
            else project.trial_chosen(arguments, message=message)
        )
        _report_end(ended)
        sys.exit(ended.exit_code)
    code, succeeded, count = 0, 0, 0
    for trialed, ended in project.trial_all(arguments, message=message):
        _report_end(ended)
        code = code or ended.exit_code
        succeeded += trialed is not None and not ended.exit_code
        count += trialed is not None
    if count:
        say(f"numb: {succeeded} of {count} trials succeeded")
    sys.exit(code)


@main.command("hp")
@click.argument("words", nargs=-1, metavar="[FILE | NAME | NAME=VALUE]...")
@click.option(
    "-c", "--config", "files", multiple=True, metavar="[PREFIX=]FILE", help="With what a JSON, YAML or TOML file sets."
)
@click.option("--detail", is_flag=True, help="Every place, with the lines around it.")
@click.option("--why", metavar="NAME", help="Each level at which NAME can be set, and which one counts.")
@_JSON
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
        project = _project(reading=True)
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


@main.group()
def queue() -> None:
    """Train with many combinations of hyperparameters, one run each."""


_queue_file = click.argument("file", type=click.Path(path_type=Path))


@queue.command("init")
@_queue_file
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def queue_init(file: Path, force: bool) -> None:
    """Write a queue FILE with the script's own hyperparameters as its first combination."""
    params = _project().make_queue(file, force=force)
    say(f"numb: {file} has one combination of {', '.join(params)}; add more, then: numb queue run {file}")


@queue.command("run")
@_queue_file
@_set_options
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
    given = _together(words, pairs)
    _run_queue(_project(), file, again=again, failed=failed, fail_fast=fail_fast, words=given, files=files)


def _run_queue(
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
        _report_end(ended)
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
@_set_options
@_JSON
def queue_status(
    file: Path, words: tuple[str, ...], pairs: tuple[str, ...], files: tuple[str, ...], as_json: bool
) -> None:
    """Show how far each entry of FILE has come; NAME=VALUE and -c as they were given when it was run."""
    from numb.view import table

    states = _project().queue(file, _together(words, pairs), files).states()
    put(table.queue_json(states) if as_json else table.queue(states))


@main.command("list")
@click.option(
    "-n", "number", type=click.IntRange(min=0), default=None, help="Show the newest N; 0 shows all.  [default: 40]"
)
@click.option("--untrialed", is_flag=True, help="Only runs without a trial result.")
@click.option("--status", "statuses", multiple=True, metavar="WORD", help="Only runs of this status; may be repeated.")
@click.option("--all-columns", is_flag=True, help="Show hyperparameters that are equal in all runs too.")
@click.option("--all-projects", is_flag=True, help="Also runs of other folders with an nmb.json and the same branch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all runs, all fields.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: all runs.")
def list_(
    number: int | None,
    untrialed: bool,
    statuses: tuple[str, ...],
    all_columns: bool,
    all_projects: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List the runs by architecture, newest last, with what differs between them. * marks the best value."""
    from numb import record
    from numb.view import table

    for status in statuses:
        if status not in record.STATUSES:
            raise Usage(f"{status} is not a status", f"one of {', '.join(record.STATUSES)}")
    project = _project(reading=True)
    limit = number or None if number is not None or as_json or as_csv else 40
    rows = project.runs(limit=limit, statuses=statuses, untrialed=untrialed, all_projects=all_projects)
    if as_json:
        put(table.as_json(rows))
    elif as_csv:
        put(table.as_csv(rows))
    else:
        there = project.index.counts(None if all_projects else project.place)
        hidden = sum(there.values()) - len(rows)
        put(table.runs(rows, known=there, all_columns=all_columns, bold=bold, width=width(sys.stdout)))
        if not rows:
            say("numb: no runs" + (" like that" if statuses or untrialed else " yet: numb train"))
        elif number is None and hidden > 0 and not (statuses or untrialed):
            say(f"numb: {hidden} older runs are not shown: numb list -n 0")
        if not all_projects and (others := project.elsewhere()):
            what = f"{record.counted(sum(others.values()), 'run')} of other projects ({record.some(list(others))})"
            say(f"numb: {what} not shown: numb list --all-projects")
    for line in project.branch.troubles():
        say(f"numb: {line}")


@main.command()
@click.argument("run", metavar="ID")
@click.option("--artifact", metavar="NAME", help="The bytes of a file that the script has saved.")
@click.option("--series", metavar="NAME", help="The table of a series, as CSV; that of numb.log is called log.")
@click.option("--log", "log", is_flag=True, help="What the script printed.")
@click.option("--patch", is_flag=True, help="What the code had changed against HEAD.")
@_JSON
def show(run: str, artifact: str | None, series: str | None, log: bool, patch: bool, as_json: bool) -> None:
    """Show everything about one run. ID is an id, a beginning of one, @ (the newest), @-1, or a tag."""
    import json

    from numb.view import detail, table

    project = _project(reading=True)
    found = project.find(run)
    if patch:
        click.echo(project.patch(found, color=sys.stdout.isatty() and "NO_COLOR" not in os.environ), nl=False)
        return
    if artifact is not None:
        click.echo(project.artifact(found, artifact), nl=False)
        return
    if series is not None:
        click.echo(project.series_csv(found, series), nl=False)
        return
    if log:
        content = project.log(found)
        if sys.stdout.isatty():
            put(detail.log(content))
        else:
            click.echo(content, nl=False)
        return
    row, begun = project.row(found), project.begun_with(found)
    environment = project.environment(found)
    if as_json:
        put(json.dumps(table.detail(row, begun) | {"environment": environment}, indent=2, ensure_ascii=False))
        return
    put(detail.shown(row, environment, project.missing_weights(found), project.traceback(found), begun))


@main.command()
@click.argument("run", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option(
    "-n", "number", type=click.IntRange(min=0), default=10, show_default=True, help="How many rows; 0 for all."
)
@click.option("--series", "name", metavar="NAME", help="Only this series; that of numb.log is called log.")
@_JSON
def tail(run: str | None, follow: bool, number: int, name: str | None, as_json: bool) -> None:
    """Show the last rows that a run has logged, of the newest run if none is named."""
    from collections import deque

    from numb.view import series as view

    project = _project(reading=True)
    found = project.find(run) if run else project.newest()
    last: deque[str] = deque(maxlen=number or None)
    is_empty = True
    for block in project.follow(found, name):
        if block is not None:
            is_empty = False
            last.extend(
                view.json_lines(block) if as_json else view.lines(block, named=name is None and block.series != "log")
            )
        elif not follow:
            break
        else:
            _put_all(last)
            last = deque()
            time.sleep(_MOMENT)
    _put_all(last)
    if is_empty:
        what = f"no rows of {name}" if name else "no rows of numb.log or a series"
        say(f"numb: {found.id} has {what}" + (" yet" if found.commit is None else ""))
        say(f"      numb logs {found.id} shows what its script has printed")


@main.command()
@click.argument("run", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(run: str | None, follow: bool) -> None:
    """Show what the script of a run has printed, of the newest run if none is named."""
    from numb.view import detail

    project = _project(reading=True)
    for content in project.follow_log(project.find(run) if run else project.newest()):
        if content:
            shown = detail.log(content) + "\n" * content.endswith(b"\n") if sys.stdout.isatty() else content
            click.echo(shown, nl=False)
        elif not follow:
            break
        else:
            time.sleep(_MOMENT)


def _put_all(lines: Iterable[str]) -> None:
    put("\n".join(lines))


@main.group(invoke_without_command=True)
@_JSON
@click.pass_context
def remote(context: click.Context, as_json: bool) -> None:
    """Places for objects: a folder, ssh://host/path, s3://bucket/prefix. Alone it lists them."""
    if context.invoked_subcommand is None:
        from numb.view import store

        places = _project(reading=True).config.remotes
        put(store.places_json(places) if as_json else store.places(places))


@remote.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--branch-to", metavar="REMOTE", help="The remote of git's for the branch.  [default: NAME]")
def remote_add(name: str, url: str, branch_to: str | None) -> None:
    """Write the place URL into nmb.json under NAME. Credentials are those of ssh and of AWS; numb stores none."""
    project = _project()
    project.add_remote(name, url, branch_to)
    say(f"numb: {name} is {url}; the branch goes to the remote {branch_to or name} of git's")
    say(f"      next: numb push {name}")


@remote.command("remove")
@click.argument("name")
def remote_remove(name: str) -> None:
    """Take a place out of nmb.json; what is there stays there."""
    _project().remove_remote(name)
    say(f"numb: {name} is forgotten; what is there stays there")


@main.command()
@click.argument("name", required=False)
@_JSON
def push(name: str | None, as_json: bool) -> None:
    """Send objects to a remote, then the branch; what is there already is not sent again."""
    from numb import record
    from numb.view import store

    terminal = Terminal()
    sent = _project(reading=True).push(name, terminal.progress)
    if as_json:
        put(store.counts_json(sent))
        return
    branch = f"; the branch is at {sent.branch}" if sent.branch else "; git has no remote for the branch"
    say(f"numb: sent {record.counted(sent.objects, 'object')}, {store.size(sent.bytes)}{branch}")
    if sent.absent:
        say(f"      {record.counted(sent.absent, 'object')} that runs need are neither here nor there: numb verify")


@main.command()
@click.argument("name", required=False)
@click.option(
    "--objects", is_flag=True, help="All objects that runs need, and not only those that are asked for later."
)
@_JSON
def pull(name: str | None, objects: bool, as_json: bool) -> None:
    """Fetch the branch of the runs and join it with the one here; weights come when they are needed."""
    from numb import record
    from numb.view import store

    terminal = Terminal()
    got = _project(reading=True).pull(name, terminal.progress, objects=objects)
    if as_json:
        put(store.counts_json(got))
        return
    say(
        f"numb: {record.counted(got.runs, 'new entry', 'new entries')}" + ("" if got.branch else "; no branch to fetch")
    )
    if objects:
        say(f"      {record.counted(got.objects, 'object')}, {store.size(got.bytes)}")
    if got.missing and objects:
        say(f"      not there either: {record.counted(got.missing, 'object')}; numb doctor says whose")
    elif got.missing:
        say(
            f"      elsewhere: {record.counted(got.missing, 'object')} of weights; numb pull --objects fetches what is there"
        )


@main.command()
@click.argument("first", metavar="ID")
@click.argument("second", metavar="ID")
@click.option("--weights", is_flag=True, help="How much each tensor changed; ID@STEP is a checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; of the weights.")
def diff(first: str, second: str, weights: bool, as_json: bool) -> None:
    """Show how one run differs from another: its code as a patch, or with --weights its tensors."""
    from numb.view import weights as view

    project = _project(reading=True)
    if not weights:
        if as_json:
            raise Usage("--json is for --weights", f"numb diff {first} {second}")
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        click.echo(project.code_difference(project.find(first), project.find(second), color=color), nl=False)
        return
    found = project.weight_differences(project.find_checkpoint(first), project.find_checkpoint(second))
    put(view.as_json(found) if as_json else view.table(found))


@main.command()
@click.argument("runs", metavar="ID...", nargs=-1, required=True)
@_JSON
def rm(runs: tuple[str, ...], as_json: bool) -> None:
    """Remove runs and their trials from the listing, by an entry on the branch; numb undo brings them back."""
    from numb import record
    from numb.view import store

    project = _project(reading=True)
    found = list({run.id: run for run in map(project.find, runs)}.values())
    entry = project.remove(found)
    if as_json:
        put(store.ids_json([named.id for named in entry.removes]))
        return
    trials = len(entry.removes) - len(found)
    also = f" and {record.counted(trials, 'trial')}" if trials > 0 else ""
    say(f"numb: removed {record.some([run.id for run in found], 5)}{also}")
    say("      numb undo brings them back; numb gc frees the room of their weights, for good")


@main.command()
@_JSON
def undo(as_json: bool) -> None:
    """Take back the last numb rm."""
    from numb import record
    from numb.view import store

    found = list(_project(reading=True).undo())
    if as_json:
        put(store.ids_json(found))
        return
    say(f"numb: back again: {record.some(found, 5)}")


@main.command()
@click.argument("what", metavar="PATH|ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(what: tuple[str, ...], yes: bool) -> None:
    """Take a path out of every snapshot, or runs out of the branch, by rewriting the branch of the runs, and it alone."""
    from numb import record

    project = _project(reading=True)
    plan = project.purge_plan(what)
    if plan.path is not None:
        say(f"This takes {plan.path} out of {record.counted(plan.snapshots, 'snapshot')}, for good.")
    else:
        say(f"This takes {record.some(list(plan.entries), 5)} out of the branch, for good.")
    if not yes:
        if not attended():
            raise NumbError("nothing was changed", f"numb purge --yes {shlex.join(what)}")
        if not agreed("Rewrite the branch?"):
            raise NumbError("nothing was changed")
    remotes = project.purge(plan)
    say(f"numb: branch {project.git.branch} is rewritten; git drops the old one from this disk by: git gc --prune=now")
    if plan.entries:
        say("      weights that no other run needs go with: numb gc")
        if places := project.config.remotes:
            names = record.some([place.name for place in places])
            say(f"      what was pushed of them is still in {names}: docs/sharing.md says how a place is freed")
    if plan.own:
        say(f"      {plan.path} is also in a commit of your own, {plan.own[:12]}, which numb does not rewrite")
    name = project.git.branch
    for remote in remotes:
        forget = f"git reflog expire --expire=now refs/remotes/{remote}/{name}"
        say(f"      {remote} still has the old branch: git push --force-with-lease {remote} {name} && {forget}")
        say(f"      then in every other clone: numb pull {remote}")


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say how much would be freed.")
@_JSON
def gc(dry_run: bool, as_json: bool) -> None:
    """Remove weights and other objects that no run names any more."""
    from numb.view import store

    found = _project(reading=True).collect(dry_run=dry_run)
    put(store.counts_json(found) if as_json else store.collected(found, dry_run=dry_run))


@main.command()
@_JSON
def du(as_json: bool) -> None:
    """Show how much room the weights of each run take, and how much of it is its own."""
    from numb.view import store

    used = _project(reading=True).usage()
    put(store.usage_json(used) if as_json else store.usage(used))


@main.command()
@click.argument("runs", metavar="[ID]...", nargs=-1)
@_JSON
def verify(runs: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of the store, or of some runs, and compare it with its hash; ends with 3 if something is wrong."""
    from numb.view import table

    project = _project(reading=True)
    findings = project.verify([project.find(run) for run in runs] if runs else None)
    put(table.findings_json(findings) if as_json else table.findings(findings))
    if findings:
        raise ProblemsFound(f"{len(findings)} problem{'s' if len(findings) > 1 else ''}", "numb doctor")


@main.command()
@click.argument("run", metavar="[ID]", required=False)
@click.option("--undo", is_flag=True, help="Bring back what the last revert replaced.")
@click.option(
    "--worktree",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the run into the new directory DIR instead.",
)
def revert(run: str | None, undo: bool, worktree: Path | None) -> None:
    """Make the work tree the snapshot of a run; what was there is committed first. HEAD and the index stay."""
    if (run is None) == (not undo) or (undo and worktree):
        raise Usage("say which run", "numb revert ID, numb revert --undo, or numb revert ID --worktree DIR")
    project = _project(reading=True)
    if worktree is not None:
        project.export(project.find(run or ""), worktree)
        click.echo(worktree)
        return
    done = project.undo_revert() if undo else project.revert(project.find(run or ""))
    say(
        f"numb: {len(done.changed)} files changed; what was there is kept as {done.saved} on branch {project.git.branch}"
    )
    say("      to come back: numb revert --undo")


@main.command()
@click.argument("run", metavar="ID[@STEP]")
@click.option(
    "--into", type=click.Path(path_type=Path), metavar="DIR", help="Directory to create.  [default: report-ID]"
)
def report(run: str, into: Path | None) -> None:
    """Copy a run's weights, or a checkpoint's, with graph, hyperparameters, results, log and patch, into a new directory."""
    project = _project(reading=True)
    found, step = project.find_checkpoint(run)
    click.echo(project.report(found, into, step))


@main.command()
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@_JSON
def doctor(fix: bool, as_json: bool) -> None:
    """Check that everything numb relies on holds; explain what does not, and what to do about it."""
    from numb.view import table

    findings = _project(reading=True).doctor(fix=fix)
    put(table.findings_json(findings) if as_json else table.findings(findings))
    if not all(finding.fixed for finding in findings):
        left = sum(not finding.fixed for finding in findings)
        fixable = not fix and any(finding.fixable for finding in findings)
        raise ProblemsFound(f"{left} problem{'s' if left > 1 else ''}", "numb doctor --fix" if fixable else None)
