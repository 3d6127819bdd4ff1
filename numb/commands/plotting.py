"""The command that draws: plot."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from numb.commands.common import as_json_option, opened, where_option
from numb.errors import Usage
from numb.terminal import ascii_only, coloured, height, put, width

_WIDTH, _HEIGHT = 80, 24  # characters and lines, where there is no terminal
_PROMPT = 2  # lines of a terminal that stay free


@click.command()
@click.argument("runs", metavar="[ID]...", nargs=-1)
@click.option(
    "--series",
    multiple=True,
    metavar="NAME",
    help="A field of numb.log, or SERIES:FIELD; A,B into one frame; may be repeated.",
)
@where_option
@click.option("--x", metavar="NAME", help="Over a field, row or elapsed.  [default: the first field, the step]")
@click.option("--smooth", type=click.IntRange(min=1), default=1, metavar="N", help="The mean of the last N rows.")
@click.option("--log", "log", is_flag=True, help="A logarithmic scale.")
@click.option("--scatter", nargs=2, metavar="NAME RESULT", help="A result against a hyperparameter: lr results.acc.")
@click.option("--parallel", metavar="RESULT", help="All hyperparameters that differ, and a result; for pictures.")
@click.option(
    "--into", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="A picture: .png or .svg."
)
@as_json_option
def plot(
    runs: tuple[str, ...],
    series: tuple[str, ...],
    where: str | None,
    x: str | None,
    smooth: int,
    log: bool,
    scatter: tuple[str, str] | None,
    parallel: str | None,
    into: Path | None,
    as_json: bool,
) -> None:
    """Draw what runs have logged, in the terminal or as a picture; of the newest run if none is named.

    With --scatter or --parallel the results of runs, without an ID those of the newest architecture.
    """
    from numb.view.charts import PICTURES, Chart

    if into and into.suffix.lower() not in PICTURES:
        raise Usage(f"{into} is no name for a picture: {' or '.join(PICTURES)}", f"numb plot --into {into.stem}.svg")
    if sum(map(bool, (series or x or smooth > 1, scatter, parallel))) > 1:
        raise Usage(
            "--series, --x and --smooth are for curves, not for --scatter or --parallel, which exclude each other",
            "numb plot -h",
        )
    if into and as_json:
        raise Usage("--json and --into exclude each other", "numb plot -h")
    project = opened(reading=True)
    chart: Chart
    if scatter:
        chart = project.scatter(*scatter, runs, log=log, where=where)
    elif parallel:
        chart = project.parallel(parallel, runs, log=log, where=where)
    else:
        chart = project.curves(runs, series, x=x, smooth=smooth, log=log, where=where)
    if as_json:
        put(chart.as_json())
    elif into:
        click.echo(project.picture(chart, into))
    else:
        lines = (height(sys.stdout) or _HEIGHT + _PROMPT) - _PROMPT
        put(chart.text(width(sys.stdout) or _WIDTH, lines, color=coloured(), ascii=ascii_only(sys.stdout)))
