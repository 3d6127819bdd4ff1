"""The commands that look at runs: list, show, tail, logs, report."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from numb.commands.common import as_json_option, opened, sort_option, where_option
from numb.errors import Usage
from numb.terminal import bold, put, say, width

_MOMENT = 0.2  # seconds between two looks at what goes on


@click.command("list")
@click.option(
    "-n", "number", type=click.IntRange(min=0), default=None, help="Show the newest N; 0 shows all.  [default: 40]"
)
@where_option
@sort_option
@click.option("--columns", metavar="NAMES", help="Show these, with commas between them: id,lr,results.acc")
@click.option("--group-by", metavar="NAME", help="A table for each value of NAME.")
@click.option("--untrialed", is_flag=True, help="Only runs without a trial result.")
@click.option("--status", "statuses", multiple=True, metavar="WORD", help="Only runs of this status; may be repeated.")
@click.option("--duplicates", is_flag=True, help="Only runs of which there are several with the same settings.")
@click.option("--all-columns", is_flag=True, help="Show hyperparameters that are equal in all runs too.")
@click.option("--all-projects", is_flag=True, help="Also runs of other folders with an nmb.json and the same branch.")
@click.option(
    "--paths", is_flag=True, help="Print where each run is: what git calls it, or its folder while in flight."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all runs, all fields.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: all runs.")
@click.option("--md", "markdown", is_flag=True, help="Print Markdown.")
def list_(
    number: int | None,
    where: str | None,
    sort: tuple[str, ...],
    columns: str | None,
    group_by: str | None,
    untrialed: bool,
    statuses: tuple[str, ...],
    duplicates: bool,
    all_columns: bool,
    all_projects: bool,
    paths: bool,
    as_json: bool,
    as_csv: bool,
    markdown: bool,
) -> None:
    """List the runs by architecture, newest last, with what differs between them. * marks the best value.

    With --sort it is one table, and what it is sorted by begins at the top.
    """
    from numb import record
    from numb.view import table

    for status in statuses:
        if status not in record.STATUSES:
            raise Usage(f"{status} is not a status", f"one of {', '.join(record.STATUSES)}")
    narrowed = [where is not None, bool(sort), untrialed, bool(statuses)]
    if duplicates and any(narrowed):
        raise Usage("--duplicates looks at all runs", "numb list --duplicates")
    project = opened(reading=True)
    limit = number or None if number is not None or as_json or as_csv or paths or duplicates else 40
    asked = limit + 1 if limit and any(narrowed) else limit  # one more says whether there are any
    how: dict[str, Any] = {"where": where, "sort": sort, "limit": asked, "statuses": statuses, "untrialed": untrialed}
    rows = project.duplicates() if duplicates else project.runs(**how, all_projects=all_projects)
    is_cut = False
    if limit and limit != asked and len(rows) > limit:
        is_cut, rows = True, rows[:limit] if sort else rows[-limit:]
    groups: dict[str, Any] | None = None
    if group_by is not None:
        groups = table.grouped(rows, group_by, [line[0] for line in project.values(rows, [group_by])])
        if columns is not None or as_json or as_csv or paths:  # one table, in the order of the groups
            rows = [row for members in groups.values() for row in members]
    if paths:
        put("\n".join(map(project.whereabouts, rows)))
    elif columns is not None:
        names = [name.strip() for name in columns.split(",") if name.strip()]
        names = [group_by, *names] if group_by is not None and group_by not in names else names
        cells = project.values(rows, names)
        form = table.json_of if as_json else table.csv_of if as_csv else table.of
        text = table.of(names, cells, form=table.MARKDOWN) if markdown else form(names, cells)
        put(text.removesuffix("\n"))
    elif as_json:
        put(table.as_json(rows))
    elif as_csv:
        put(table.as_csv(rows))
    else:
        if groups is None and rows and (sort or duplicates):
            groups = {"": rows} if sort else table.alike(rows)
        there = {} if any(narrowed) else project.index.counts(None if all_projects else project.place)
        hidden = sum(there.values()) - len(rows)
        look: dict[str, Any] = {
            "known": there,
            "groups": groups,
            "form": table.MARKDOWN if markdown else table.PLAIN,
        }
        put(table.runs(rows, **look, all_columns=all_columns, bold=bold, width=width(sys.stdout)))
        if not rows:
            say("numb: no runs" + (" like that" if any(narrowed) or duplicates else " yet: numb train"))
        elif is_cut:
            say(f"numb: the {'first' if sort else 'newest'} {limit} of more are shown: -n 0 shows all")
        elif number is None and hidden > 0 and not (any(narrowed) or duplicates):
            say(f"numb: {hidden} older runs are not shown: numb list -n 0")
        if not all_projects and (others := project.elsewhere()):
            what = f"{record.counted(sum(others.values()), 'run')} of other projects ({record.some(list(others))})"
            say(f"numb: {what} not shown: numb list --all-projects")
    for line in project.branch.troubles():
        say(f"numb: {line}")


@click.command()
@click.argument("run", metavar="ID")
@click.option("--artifact", metavar="NAME", help="The bytes of a file that the script has saved.")
@click.option("--series", metavar="NAME", help="The table of a series, as CSV; that of numb.log is called log.")
@click.option("--log", "log", is_flag=True, help="What the script printed.")
@click.option("--graph", is_flag=True, help="The network as a table of operators, with shapes and parameter counts.")
@click.option("--patch", is_flag=True, help="What the code had changed against HEAD.")
@as_json_option
def show(
    run: str, artifact: str | None, series: str | None, log: bool, graph: bool, patch: bool, as_json: bool
) -> None:
    """Show everything about one run. ID is an id, a beginning of one, @ (the newest), @-1, or a tag."""
    import json

    from numb.view import detail, table

    project = opened(reading=True)
    found = project.find(run)
    if graph:
        from numb.view import difference

        networks = project.networks(found)
        if as_json:
            put(difference.networks_json(networks, found.models))
        elif networks:
            put(difference.networks(networks, found.models, bold=bold))
        else:
            say(f"numb: no network was seen in {found.id}: numb_model above the __init__ of its class")
        return
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


@click.command()
@click.argument("run", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option(
    "-n", "number", type=click.IntRange(min=0), default=10, show_default=True, help="How many rows; 0 for all."
)
@click.option("--series", "name", metavar="NAME", help="Only this series; that of numb.log is called log.")
@as_json_option
def tail(run: str | None, follow: bool, number: int, name: str | None, as_json: bool) -> None:
    """Show the last rows that a run has logged, of the newest run if none is named."""
    from collections import deque

    from numb.view import series as view

    project = opened(reading=True)
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
        say(
            f"      numb.log(step=step, loss=loss) in the script makes some; numb logs {found.id} shows what it has printed"
        )


@click.command()
@click.argument("run", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(run: str | None, follow: bool) -> None:
    """Show what the script of a run has printed, of the newest run if none is named."""
    from numb.view import detail

    project = opened(reading=True)
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


@click.command()
@click.argument("run", metavar="[ID[@STEP]]", required=False)
@click.option("--html", is_flag=True, help="One page for a browser instead; without an ID of the whole project.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory to create, or with --html the page, NAME.html.  [default: report-ID]",
)
@where_option
def report(run: str | None, html: bool, into: Path | None, where: str | None) -> None:
    """Copy a run's weights, or a checkpoint's, with graph, hyperparameters, results, log and patch, into a new directory.

    With --html everything about a run, or without an ID about all of them, becomes one page that needs no network.
    """
    if run is None and not html:
        raise Usage("no run is named", "numb report @, or numb report --html for all runs")
    if where is not None and (run is not None or not html):
        raise Usage("--where is for the page of several runs", f"numb report --html --where {shlex.quote(where)}")
    project = opened(reading=True)
    if run is None:
        click.echo(project.overview(into, where))
    elif html:
        click.echo(project.page(project.find(run), into))
    else:
        found, step = project.find_checkpoint(run)
        click.echo(project.report(found, into, step))
