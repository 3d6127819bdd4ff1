"""`numb purge`: the one command that rewrites the branch of the runs, so that a secret or a huge file is gone from it.

Everything else stays as it was: authors, dates, messages, and the user's own commits, which are never rewritten. The new
branch takes the place of the old one in one step.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic, gitrewrite, inflight, record
from numb.errors import BranchInUse, RunNotFound
from numb.layout import FOLDER, Layout
from numb.record import Run, RunId

if TYPE_CHECKING:
    from numb.project import Project


@dataclass(frozen=True, slots=True)
class Purge:
    """What is to go, or has gone: entries of the branch, and a path out of so many snapshots."""

    entries: tuple[RunId, ...]
    path: str | None
    snapshots: int
    own: str | None  # a commit of the user's that has the path too, and keeps it


def planned(project: Project, words: Sequence[str], where: Path) -> Purge:
    """What `carried_out` would do for ids of runs, or for one path. Raises `RunNotFound` for what is neither."""
    git = project.git
    tip = git.tip().commit
    if tip is None:
        raise RunNotFound(f"there is no branch {git.branch}", "numb doctor")
    runs = [run for word in words if (run := _run(project, word)) is not None]
    if len(runs) == len(words):
        ids = dict.fromkeys([*(run.id for run in runs), *project.index.trials_ever(run.id for run in runs)])
        about = [each.id for each in project.index.about(set(ids))]
        return Purge((*ids, *about), None, 0, None)
    if len(words) > 1:
        strange = next(word for word in words if _run(project, word) is None)
        raise RunNotFound(f"there is no run {strange}, and only one path is purged at a time", "numb list")
    path = os.path.relpath(os.path.join(where, words[0]), git.toplevel)
    if path.split(os.sep)[0] in ("..", FOLDER, ".git") or path == ".":
        raise RunNotFound(f"{words[0]} is neither a run nor a path in snapshots", "numb list")
    count = len(git.having(git.history(tip), path))
    if not count:
        raise RunNotFound(f"no snapshot has {path}, and no run is called so", "numb list")
    return Purge((), path, count, git.own_commit_with(path))


def _run(project: Project, word: str) -> Run | None:
    try:
        return project.find(word)
    except RunNotFound:
        removed = project.index.removed(word)
        return project.index.any_entry(removed[0]) if len(removed) == 1 else None


def carried_out(project: Project, purge: Purge) -> list[str]:
    """Rewrite the branch, and remember which history is not to come back from elsewhere; returns the remotes that have it.

    Raises `BranchInUse` while a run is in flight, or when something is put on the branch meanwhile.
    """
    for top, left in project.branch.waiting():
        name, what = left.flight.folder.path.name, "in flight" if left.running else "cut off and not on the branch yet"
        hint = "numb list" if left.running else f"cd {shlex.quote(str(top))} && numb list"
        raise BranchInUse(f"{name} is {what}, and would be put on the branch as it was", hint)
    git, layouts = project.git, _layouts(project)
    known = purged(project)
    have_it: list[str] = []

    firsts: list[str] = []

    def remember(gone: str) -> None:
        firsts.append(gone)
        for layout in layouts:  # each of which may be removed, and joins others' histories
            if layout.folder.is_dir():
                atomic.write(layout.purged, "".join(f"{commit}\n" for commit in [*known, gone]))
        refs = {remote: f"refs/remotes/{remote}/{git.branch}" for remote in git.remotes_with_branch()}
        have_it.extend(remote for remote, ref in refs.items() if git.is_ancestor(gone, ref) is not False)

    gitrewrite.rewrite(git, frozenset(purge.entries), purge.path, record.with_commits, remember)
    for run_id in purge.entries:
        git.unpin(run_id)
    project.branch.close()
    project.layout.listing.unlink(missing_ok=True)
    _tell_others(project, purge, firsts)
    return have_it


def _tell_others(project: Project, purge: Purge, firsts: Sequence[str]) -> None:
    """Put an entry on the branch by which a clone that has the old one knows that it is the old one."""
    what = purge.path or record.counted(len(purge.entries), "entry", "entries")
    now = time.time()
    entry = Run(RunId.new(now), record.PURGED, round(now, 3), record.COMPLETE, message=what, project=project.place)
    if firsts:
        project.branch.note(replace(entry, host=inflight.host(), purges=tuple(firsts)))


def _layouts(project: Project) -> list[Layout]:
    """Of every work tree: they share the branch."""
    return [Layout(top) for top in project.git.work_trees()]


def purged(project: Project) -> list[str]:
    """Commits that are not on the branch any more: a history that has one of them would bring back what is gone."""
    lines: dict[str, None] = {}
    for layout in _layouts(project):
        with contextlib.suppress(OSError):
            lines |= dict.fromkeys(layout.purged.read_text().split())
    lines |= dict.fromkeys(project.index.purges())
    git, tip = project.git, project.git.tip().commit
    return [
        line for line in lines if record.is_commit(line) and not (tip and git.has(line) and git.is_ancestor(line, tip))
    ]


def explains(project: Project, tip: str) -> bool:
    """Whether the branch is not at *tip* any more, where it was, because of a purge."""
    return any(project.git.has(commit) and project.git.is_ancestor(commit, tip) for commit in purged(project))
