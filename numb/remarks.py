"""What is said about a run beside what it records: notes, tags, a name, further results. Each is an entry on the branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numb import housekeeping, record
from numb.errors import Usage
from numb.record import Run

if TYPE_CHECKING:
    from numb.project import Project


def made(
    project: Project,
    run: Run,
    message: str,
    tags: Sequence[str],
    untags: Sequence[str],
    name: str | None,
    results: Mapping[str, Any],
) -> Run:
    """Put an entry on the branch that says this about *run*. Raises `Usage` and `NotPossible`."""
    said = project.row(run).said
    for text in (*tags, *([name] if name else [])):
        try:
            record.handle(text)
        except ValueError as error:
            raise Usage(str(error), f"numb tag {run.id} baseline") from None
    if strange := [tag for tag in untags if tag not in said.tags]:
        raise Usage(f"{run.id} has no tag {strange[0]}", f"numb show {run.id}")
    if name and (others := [each for each in _called(project, name) if each != run.id]):
        raise Usage(f"{name} is {others[0]}", f"numb name {others[0]} --remove")
    if not (message.strip() or tags or untags or name is not None or results):
        raise Usage("there is nothing to say", f'numb note {run.id} "why"')
    facts = {
        "message": message.strip(),
        "tags": tuple(tags),
        "untags": tuple(untags),
        "name": name,
        "results": dict(results),
    }
    return housekeeping.remark(project, run, facts)


def _called(project: Project, name: str) -> list[str]:
    return [*project.index.called(name), *(row.run.id for row in project.in_flight() if row.said.name == name)]
