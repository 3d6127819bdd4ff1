"""`numb deinit`: what would be lost, and the end of numb in a repository."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic, config, inflight, layout
from numb.errors import BranchInUse, NumbError, StorageFailed
from numb.layout import CONFIG, Layout

if TYPE_CHECKING:
    from numb.project import Project


@dataclass(frozen=True, slots=True)
class Deletion:
    """What `deinit` would destroy."""

    runs: int  # on the branch, those of other projects among them
    unpublished: int  # still in `.nmb/runs`, which nothing else holds
    bytes: int
    files: tuple[Path, ...]
    tip: str | None
    others: Mapping[str, int]  # elsewhere in the repository with the same branch: folder of the project, number of runs
    work_trees: tuple[Path, ...]  # others of this repository in which numb was used


def deletion(project: Project) -> Deletion:
    """Count what `everything` would remove."""
    stores = [project.layout, *_other_stores(project)]
    folders = _folders(project, stores)
    counts = project.index.projects()
    others = {name: counts.get(name, 0) for name in sorted({*counts, *other_projects(project)} - {project.place})}
    return Deletion(
        sum(counts.values()),
        sum(len(inflight.all_left(store)) for store in stores),
        sum(map(_size, folders)),
        tuple(path for path in (project.home / CONFIG, *folders) if path.exists()),
        project.git.tip().commit,
        others,
        tuple(store.root for store in stores[1:]),
    )


def everything(project: Project) -> str | None:
    """Remove the branch, the `.nmb/` of every work tree and `nmb.json`; returns the branch's last commit.

    By that git can still find the runs, so the branch goes first: what it held can be had back when a folder stays.
    """
    tip = project.git.tip()
    if tip.checked_out:
        raise BranchInUse(f"branch {project.git.branch} is checked out in {tip.checked_out}", "git switch -")
    stores = [project.layout, *_other_stores(project)]
    for store in stores:
        if any(left.running for left in inflight.all_left(store)):
            raise BranchInUse(f"a run is still in flight in {store.root}", "numb list")
    project.branch.close()
    project.git.delete_branch()
    try:
        for folder in _folders(project, stores):
            atomic.remove_tree(folder)
    except StorageFailed as error:
        way_back = f"git branch {project.git.branch} {tip.commit} brings the branch back" if tip.commit else None
        raise StorageFailed(f"{error}; the branch has been removed", way_back) from None
    (project.home / CONFIG).unlink(missing_ok=True)
    return tip.commit


def other_projects(project: Project) -> list[str]:
    """The folders of this work tree with an `nmb.json` of their own that names the same branch, or that cannot be read."""
    found = []
    for path in project.git.files_named(CONFIG):
        place = path.parent.relative_to(project.git.toplevel).as_posix()
        with contextlib.suppress(NumbError):
            if config.load(path).branch != project.git.branch:
                continue
        found.append(place)
    return [place for place in found if place != project.place]


def _other_stores(project: Project) -> list[Layout]:
    stores = [Layout(top) for top in project.git.work_trees()]
    return [store for store in stores if store.folder.is_dir() and not store.folder.samefile(project.layout.folder)]


def _folders(project: Project, stores: Sequence[Layout]) -> list[Path]:
    """What holds runs and weights: the `.nmb/` of every work tree, and the objects of a repository without a main one."""
    candidates = [*(store.folder for store in stores), layout.objects_in_git(project.git.common_dir).parent]
    return [folder for folder in candidates if folder.exists()]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
