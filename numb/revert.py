"""`numb revert`: the work tree as a run had it, and what was there before kept first; or the run's files somewhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic, config, inflight, record
from numb.errors import NumbError, RunNotFound, WouldOverwrite
from numb.gitstore import GitStore, Snapshot
from numb.record import Run, RunId
from numb.snapshots import names
from numb.talk import Reverted

if TYPE_CHECKING:
    from numb.project import Project


def go_to(project: Project, target: Run) -> Reverted:
    """Make the work tree the snapshot of *target*; `Project.revert` says what stays."""
    commit, git, layout = project.commit(target), project.git, project.layout
    project.branch.recover()
    with project.folder.scratch("revert") as index:
        wanted = git.snapshot_tree(commit)
        snapshot, current = project.snapshots.take(index)
        changes = git.changed(current, wanted)
        if collisions := git.collisions(changes):
            _refuse_left_out(snapshot, collisions)
            current = git.add(index, collisions)
            changes = git.changed(current, wanted)
        head = git.head()
        now = time.time()
        saved = Run(
            RunId.new(now), record.SAVED, round(now, 3), record.COMPLETE, message=f"before going back to {target.id}",
            project=project.place, base=head.commit, branch=head.branch, host=inflight.host(),
            left_out=snapshot.left_out, nested=snapshot.nested,
        )  # fmt: skip
        kept = project.branch.save(saved, index, snapshot.patches)
        atomic.write(layout.reverted, record.dumps({"saved": saved.id}))
        atomic.write(layout.reverting, record.dumps({"saved": kept, "to": commit}))
        try:
            git.switch(index, current, wanted)
        except WouldOverwrite:
            layout.reverting.unlink(missing_ok=True)
            raise
        _restore_nested(project, target, commit)
        layout.reverting.unlink(missing_ok=True)
        return Reverted(saved.id, tuple(names(changes)))


def undo(project: Project) -> Reverted:
    """Bring back what the last `go_to` replaced."""
    project.branch.refresh()
    try:
        saved = project.index.get(str(config.read_json(project.layout.reverted).value["saved"]))
    except (OSError, NumbError, KeyError, TypeError):
        saved = None
    if saved is None:
        raise RunNotFound("nothing was reverted yet", "numb revert ID")
    return go_to(project, saved)


def export(project: Project, run: Run, target: Path) -> None:
    """Write the snapshot of *run* into the new directory *target*; nothing else is touched."""
    commit, git, scratch = project.commit(run), project.git, project.folder.scratch
    with atomic.new_directory(target.absolute()) as folder:
        with scratch("export") as index:
            git.export(index, git.snapshot_tree(commit), folder)
        for path, inner, wanted in _nested(project, run, commit):
            with scratch("export") as index:
                inner.export(index, wanted, folder / path)


def _restore_nested(project: Project, run: Run, commit: str) -> None:
    """Bring repositories inside the work tree to their state of then, as far as they are there."""
    for _, inner, wanted in _nested(project, run, commit):
        with project.folder.scratch("here") as here:
            project.snapshots.capture(here, of=inner)
            inner.switch(here, inner.write_tree(here), wanted)


def _nested(project: Project, run: Run, commit: str) -> Iterator[tuple[str, GitStore, str]]:
    """The repositories that *run* had inside its work tree, as far as they are here: path, repository, tree of then."""
    for nested in run.nested:
        where = project.git.toplevel / nested.path
        if nested.head is None or not (where / ".git").exists():
            continue
        inner = GitStore.discover(where)
        if not inner.has(nested.head):
            project.talk.say(f"{nested.path}: commit {nested.head} is not there, so this folder is not as it was then")
            continue
        patch = project.git.read(commit, nested.patch) if nested.patch else None
        with project.folder.scratch("nested") as index:
            wanted = inner.apply(index, nested.head, patch) if patch else f"{nested.head}^{{tree}}"
        yield nested.path, inner, wanted


def _refuse_left_out(snapshot: Snapshot, paths: Sequence[bytes]) -> None:
    """A secret or a large file in the way is not saved, and so it must not be replaced."""
    in_the_way = set(names(paths))
    for item in snapshot.left_out:
        if item.path in in_the_way:
            raise WouldOverwrite(
                f"nothing was changed: {item.path} is in the way, and would not be saved ({item.why})",
                f"mv {item.path} elsewhere",
            )
