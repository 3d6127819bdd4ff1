"""The commands that say something about a run afterwards, by entries that undo takes back: note, tag, name."""

from __future__ import annotations

from collections.abc import Sequence

import click

from numb.commands.common import opened
from numb.errors import Usage
from numb.terminal import put, say


@click.command()
@click.argument("run", metavar="ID")
@click.argument("text", required=False)
def note(run: str, text: str | None) -> None:
    """Write down TEXT about a run; without TEXT show what was written."""
    project = opened(reading=True)
    found = project.find(run)
    if text is None:
        _show(project.row(found).said.notes, f"nothing was noted about {found.id}: numb note {found.id} 'why'")
        return
    project.remark(found, message=text)
    say(f"numb: noted about {found.id}; numb undo takes it back")


@click.command()
@click.argument("run", metavar="ID")
@click.argument("tags", metavar="TAG...", nargs=-1)
@click.option("--remove", is_flag=True, help="Take the tags away.")
def tag(run: str, tags: tuple[str, ...], remove: bool) -> None:
    """Tag a run; a tag that one run has stands for it wherever an ID is taken. Without TAG show its tags."""
    project = opened(reading=True)
    found = project.find(run)
    if not tags:
        _show(project.row(found).said.tags, f"{found.id} has no tags: numb tag {found.id} baseline")
        return
    project.remark(found, tags=() if remove else tags, untags=tags if remove else ())
    say(f"numb: {found.id} {'has no longer' if remove else 'has'} {', '.join(tags)}; numb undo takes it back")


@click.command()
@click.argument("run", metavar="ID")
@click.argument("name", required=False)
@click.option("--remove", is_flag=True, help="Take its name away.")
def name(run: str, name: str | None, remove: bool) -> None:
    """Give a run a NAME of its own, which stands for it wherever an ID is taken. Without NAME show it."""
    if name is not None and remove:
        raise Usage("a NAME and --remove exclude each other", f"numb name {run} --remove")
    project = opened(reading=True)
    found = project.find(run)
    if name is None and not remove:
        called = project.row(found).said.name
        _show([called] if called else [], f"{found.id} has no name: numb name {found.id} baseline")
        return
    project.remark(found, name=name or "")
    say(f"numb: {found.id} {f'is {name}' if name else 'has no name'}; numb undo takes it back")


def _show(lines: Sequence[str], nothing: str) -> None:
    put("\n".join(lines))
    if not lines:
        say(f"numb: {nothing}")
