"""The commands that say something about a run afterwards, by entries that undo takes back: note, tag, name."""

from __future__ import annotations

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
        put("\n".join(project.row(found).said.notes))
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
        put("\n".join(project.row(found).said.tags))
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
        put(project.row(found).said.name or "")
        return
    project.remark(found, name=name or "")
    say(f"numb: {found.id} {f'is {name}' if name else 'has no name'}; numb undo takes it back")
