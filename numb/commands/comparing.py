"""The commands that put runs beside each other: diff, compare."""

from __future__ import annotations

import sys

import click

from numb.commands.common import as_json_option, opened, where_option
from numb.errors import Usage
from numb.terminal import bold, coloured, put, width


@click.command()
@click.argument("first", metavar="ID")
@click.argument("second", metavar="[ID]", required=False)
@click.option("--params", is_flag=True, help="Only hyperparameters.")
@click.option("--results", is_flag=True, help="Only results.")
@click.option("--environment", is_flag=True, help="Only where they ran: python, packages, machine, variables.")
@click.option("--architecture", is_flag=True, help="Only the networks, operator by operator.")
@click.option("--code", is_flag=True, help="Only the code; alone, a patch for git apply.")
@click.option("--weights", is_flag=True, help="How much each tensor changed; ID@STEP is a checkpoint.")
@as_json_option
def diff(
    first: str,
    second: str | None,
    params: bool,
    results: bool,
    environment: bool,
    architecture: bool,
    code: bool,
    weights: bool,
    as_json: bool,
) -> None:
    """Show how one run differs from another, or from the work tree: hyperparameters, results, environment, network, code.

    Options name parts, which may be combined. ID is an id, a beginning of one, @ (the newest), @-1, or a tag.
    """
    from numb.view import difference as view
    from numb.view import weights as of_weights

    chosen = {"hyperparameters": params, "results": results, "environment": environment, "architecture": architecture}
    parts = [name for name, wanted in {**chosen, "code": code}.items() if wanted]
    if second is None and (results or architecture or weights):
        raise Usage("the work tree has no results, no network and no weights before a run", f"numb diff {first} @")
    project = opened(reading=True)
    find = project.find_checkpoint if weights else lambda text: (project.find(text), None)
    here, there = find(first), find(second) if second is not None else None
    tensors = project.weight_differences(here, there) if weights and there is not None else None
    if tensors is not None and not parts:
        put(of_weights.as_json(tensors) if as_json else of_weights.table(tensors))
        return
    one, other = here[0], there[0] if there else None
    if parts == ["code"] and not as_json and tensors is None:
        content = project.code_difference(one, other, color=coloured())
        _put_patch(content)
        return
    found = project.difference(one, other, parts, color=coloured() and not as_json, exact=as_json)
    if as_json:
        put(view.as_json(found, **({} if tensors is None else {"weights": of_weights.plain(tensors)})))
        return
    put(view.shown(found, bold=bold, width=width(sys.stdout)))
    if tensors is not None:
        put("\n" + of_weights.table(tensors))
    if found.patch:
        put("\n" + bold("patch"))
        _put_patch(found.patch)


def _put_patch(content: bytes) -> None:
    from numb.view import difference as view

    if coloured():
        put(view.patch(content))
    else:
        click.echo(content, nl=False)


@click.command()
@click.argument("runs", metavar="[ID]...", nargs=-1)
@where_option
@click.option("--all", "every", is_flag=True, help="Also what is equal in all of them.")
@click.option("--series", metavar="NAME", help="A field of a series beside each other, as CSV: loss, or val:loss.")
@as_json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each fact.")
def compare(
    runs: tuple[str, ...], where: str | None, every: bool, series: str | None, as_json: bool, as_csv: bool
) -> None:
    """Show what differs between runs, a column for each: hyperparameters, results, code, environment, network."""
    from numb.view import difference as view

    if not runs and where is None:
        raise Usage("which runs?", "numb compare ID ID, or numb compare --where 'lr < 1e-3'")
    project = opened(reading=True)
    found = [row.run for row in project.chosen(runs, where)]
    if len(found) < 2 and series is None:
        one = f"numb diff {found[0].id} compares it with the work tree" if found else "numb list"
        raise Usage(f"{'one run' if found else 'no run'} cannot be compared", one)
    if series is not None:
        put(view.melded(project.joined({run.id: run.id for run in found}, series)))
        return
    compared = project.compare(found, every=every)
    if as_json:
        put(view.as_json(compared))
    elif as_csv:
        put(view.as_csv(compared))
    else:
        put(view.compared(compared, bold=bold, width=width(sys.stdout)))
