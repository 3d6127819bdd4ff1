"""The commands that ask about runs: best, sql, export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from numb.commands.common import as_json_option, opened, sort_option, where_option
from numb.errors import Usage
from numb.terminal import bold, put, say, width


@click.command()
@click.option("--by", metavar="NAME", help="What is compared: results.acc. Can be left out where there is one result.")
@click.option("--min/--max", "lowest", default=None, help="Whether low is good; by default its name says so.")
@click.option("-n", "number", type=click.IntRange(min=1), default=1, show_default=True, help="How many runs.")
@where_option
@as_json_option
def best(by: str | None, lowest: bool | None, number: int, where: str | None, as_json: bool) -> None:
    """Show the run with the best value of a result. NaN is never the best."""
    from numb import record
    from numb.view import table

    project = opened(reading=True)
    rows = project.best(by, number, lowest=lowest, where=where)
    if as_json:
        put(table.as_json(rows))
        return
    put(table.runs(rows, groups={"": rows} if rows else {}, all_columns=True, bold=bold, width=width(sys.stdout)))
    if rows:
        say(f"numb: numb show {rows[0].run.id}, numb revert {rows[0].run.id}")
        if by is not None and (lacking := project.lacking(by, where)):
            say(f"      {record.counted(lacking, 'run')} without a number there: numb list --where '{by} is missing'")
    else:
        say("numb: no runs like that: numb list")


@click.command()
@click.argument("query")
@click.option("--all-projects", is_flag=True, help="Also runs of other folders with an nmb.json and the same branch.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--md", "markdown", is_flag=True, help="Print Markdown.")
@as_json_option
def sql(query: str, all_projects: bool, as_csv: bool, markdown: bool, as_json: bool) -> None:
    """Ask the table runs, which has a column for each fact, hyperparameter ("lr") and result ("results.acc") of a run.

    It is SQLite, as the branch is now, and cannot be changed. Names with a dot stand in double quotes.
    """
    from numb.view import table

    found = opened(reading=True).sql(query, all_projects=all_projects)
    if markdown:
        put(table.of(found.names, found.rows, form=table.MARKDOWN))
    else:
        form = table.json_of if as_json else table.csv_of if as_csv else table.of
        put(form(found.names, found.rows).removesuffix("\n"))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@where_option
@sort_option
@click.option("--columns", metavar="NAMES", help="Only these, with commas between them: id,lr,results.acc")
def export(file: Path, where: str | None, sort: tuple[str, ...], columns: str | None) -> None:
    """Write a table of all runs into FILE, a line for each: .csv, .json or .parquet."""
    from numb import record

    if columns is not None and not columns.strip(", "):
        raise Usage("--columns names nothing", "numb list --csv | head -1 has the names")
    names = [name.strip() for name in (columns or "").split(",") if name.strip()]
    count = opened(reading=True).export(file, where, sort, names)
    say(f"numb: {file} has {record.counted(count, 'run')}")
