"""What `numb doctor` looks at: what numb relies on, what to do when it does not hold, and the repair if there is one."""

from __future__ import annotations

import calendar
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic, config, inflight, purging, record
from numb.errors import NumbError
from numb.gitstore import OLDEST_GIT
from numb.layout import FOLDER, PINS, QUEUED, RECORD_FOLDER, Layout
from numb.record import Run, RunId

if TYPE_CHECKING:
    from numb.project import Project

_A_DAY = 86400.0
_LITTLE_ROOM = 1 << 24  # bytes
_A_MOMENT = 5.0  # a lock older than this that no process has open was left by a killed git


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold, what to do about it, and whether that has been done."""

    text: str
    remedy: str
    fixed: bool = False
    fixable: bool = False


@dataclass(frozen=True, slots=True)
class _Problem:
    text: str
    remedy: str  # what to type, or what --fix does
    repair: Callable[[], object] | None = None


def examine(project: Project, *, fix: bool) -> list[Finding]:
    """Check everything, and with *fix* repair what can be repaired without losing anything."""
    findings = []
    for check in _CHECKS:
        try:
            for problem in check(project):
                findings.append(_settled(problem, fix))
        except NumbError as error:
            hint = error.hint or ""
            findings.append(Finding(str(error), "git fsck" if hint.startswith("numb doctor") else hint))
    return findings


def _settled(problem: _Problem, fix: bool) -> Finding:
    if fix and problem.repair is not None:
        try:
            problem.repair()
        except NumbError as error:
            return Finding(f"{problem.text}; it could not be repaired: {error}", error.hint or problem.remedy)
        return Finding(problem.text, "", fixed=True)
    return Finding(problem.text, problem.remedy, fixable=problem.repair is not None)


def _git(project: Project) -> Iterator[_Problem]:
    version = project.git.version()
    if version < OLDEST_GIT:
        wanted = ".".join(map(str, OLDEST_GIT))
        have = ".".join(map(str, version))
        yield _Problem(
            f"git {have} does not sync what it writes: a power cut may cost runs", f"install git {wanted} or later"
        )


def _folder(project: Project) -> Iterator[_Problem]:
    layout = project.layout
    if not (layout.ignore.exists() and layout.format.exists()):
        yield _Problem(f"{layout.folder} is not complete", "--fix makes what is missing", project.folder.make)
    if (found := project.folder.damaged_format()) is not None:
        yield _Problem(
            f"{layout.format} is damaged: {found[:20]!r} is not a number",
            "--fix writes it anew",
            project.folder.write_format,
        )
    for folder in (layout.folder, layout.runs, layout.objects):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            yield _Problem(f"{folder} cannot be written to: no run is recorded", _make_writable(folder))
    if tracked := project.git.tracked_below(FOLDER):
        yield _Problem(f"git tracks {record.counted(tracked, 'file')} of {FOLDER}/", f"git rm -r --cached {FOLDER}")


def _room(project: Project) -> Iterator[_Problem]:
    for folder in (project.layout.folder, project.git.common_dir):
        if folder.exists() and (free := shutil.disk_usage(folder).free) < _LITTLE_ROOM:
            yield _Problem(f"{folder} has room for {free / 1e6:.1f} MB: a run may not find a place", f"df -h {folder}")


def _make_writable(folder: Path) -> str:
    name = shlex.quote(str(folder))
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"mount -o remount,rw the file system that findmnt --target {name} shows"
    if os.lstat(folder).st_uid == os.geteuid():
        return f"chmod -R u+rwX {name}"
    return f'sudo chown -R "$USER" {name}'


def _settings(project: Project) -> Iterator[_Problem]:
    if project.config.broken:
        yield _Problem(project.config.broken, f"mend {project.config.file}; nothing is trained before")


def _linked(project: Project) -> Iterator[_Problem]:
    if count := project.folder.objects_at_risk():
        yield _Problem(
            f"{project.layout.objects} has {record.counted(count, 'object')} that `git worktree remove` would delete",
            "--fix moves them to where all work trees have theirs",
            project.folder.share_objects,
        )


def _lock(project: Project) -> Iterator[_Problem]:
    if project.git.lock.exists():
        yield _Problem(
            f"{project.git.lock} was left by a git that was killed: nothing can be put on the branch",
            "--fix removes it when no process has it open",
            lambda: _remove_lock(project),
        )


def _remove_lock(project: Project) -> None:
    if not project.git.remove_stale_lock(_A_MOMENT):
        raise NumbError("a process has it open, or it is new", "try again when no git is running")


def _branch(project: Project) -> Iterator[_Problem]:
    git = project.git
    tip = git.tip()
    last = project.index.tip
    if tip.commit is None:
        found = last if last and git.has(last) else None
        was = f"; its last known commit is {found}" if found else f", and git has lost its last commit, {last}"
        clone = f"; first, where a clone still has it: git fetch PATH {git.branch}:{git.branch}" if last else ""
        yield _Problem(
            f"branch {git.branch} is gone{was if last else ''}",
            "--fix makes it again, " + ("at that commit" if found else f"without a run{clone}"),
            lambda: git.restore(found, time.time()),
        )
        return
    if not git.branch_is_ours():
        yield _Problem(
            f"branch {git.branch} does not begin with numb's first commit", "git log --first-parent " + git.branch
        )
    lost = project.index.previous_tip
    is_lost = lost and git.has(lost) and git.is_ancestor(lost, tip.commit) is False
    if lost and is_lost and not purging.explains(project, lost):
        yield _Problem(
            f"branch {git.branch} was moved away from {lost}: runs up to there are not on it any more",
            f"git branch {git.branch}-before {lost}",
        )
    if tip.checked_out:
        yield _Problem(
            f"branch {git.branch} is checked out in {tip.checked_out}: runs cannot be put on it", "git switch -"
        )
    for line in git.fsck(tip.commit)[:5]:
        yield _Problem(f"git objects of the runs are missing or damaged: {line}", _bring_back(project))


def _listing(project: Project) -> Iterator[_Problem]:
    """What stands on the branch, read commit by commit, against what the kept listing says."""
    there = project.branch.from_branch()
    unread = {name[:40] for name in there.unread(-1)}
    for commit, reason in there.damaged():
        remedy = _bring_back(project) if commit in unread else f"git show {commit}:{RECORD_FOLDER}/record.json"
        yield _Problem(f"the run in commit {commit} cannot be read: {reason}", remedy)
    if lost := project.index.lost():
        runs = [str(run.id) for run in project.index.runs() if run.commit in lost]
        yield _Problem(
            f"git has lost the commits of {record.some(runs, 5)}, with code and log: {project.layout.listing} has the rest",
            _bring_back(project),
        )
    if not there.rows() <= project.index.rows():
        yield _Problem(
            f"{project.layout.listing} does not say what stands on the branch",
            "--fix reads it again",
            project.branch.read_again,
        )


def _bring_back(project: Project) -> str:
    """What to type where git has lost objects. A plain fetch would not ask for what the refs say is there."""
    branch = project.git.branch
    for remote in project.git.remotes_with_branch():
        return f"git fetch --refetch {remote} {branch}; git fsck says what is missing"
    return f"git fetch --refetch PATH {branch}, where PATH is a clone that still has it; git fsck says what is missing"


def _unpublished(project: Project) -> Iterator[_Problem]:
    for left in inflight.all_left(project.layout):
        if left.running:
            continue
        path = left.flight.folder.path
        if left.run is None and not (left.flight.folder.state.exists() or left.flight.folder.events.exists()):
            if _older(path, _A_MOMENT):  # or it may be beginning right now
                yield _Problem(f"{path} was made and never used", "--fix removes it", partial(_remove, [path]))
        elif left.run is None:
            yield _Problem(
                f"{path} is a run whose state cannot be read", "its snapshot is kept by a pin; look into the folder"
            )
        elif project.branch.has_gone_on_elsewhere(left.run):
            yield _Problem(
                f"{left.run.id} was resumed elsewhere too: what came of it here is in {path}",
                "look into its record/checkpoints, and remove the folder when nothing in it is needed",
            )
        else:
            yield _Problem(
                f"{left.run.id} is not on the branch yet",
                "--fix puts it there",
                partial(project.branch.publish_left, left),
            )


def _pins(project: Project) -> Iterator[_Problem]:
    layouts = [Layout(top) for top in project.git.work_trees()]
    flying = {left.flight.folder.path.name for layout in layouts for left in inflight.all_left(layout)}
    for run_id, commit in project.git.pins().items():
        if run_id in flying:
            continue
        if not commit:
            yield _Problem(f"{PINS}{run_id} points to nothing", "--fix removes it", partial(project.git.unpin, run_id))
        elif project.index.get(run_id) is not None:
            yield _Problem(
                f"{run_id} is on the branch and still pinned",
                "--fix removes the pin",
                partial(project.git.unpin, run_id),
            )
        else:
            yield _Problem(
                f"{run_id} has a snapshot, and nothing else is left of it",
                "--fix puts it on the branch as lost",
                partial(_publish_pin, project, run_id, commit),
            )


def _queued(project: Project) -> Iterator[_Problem]:
    """Snapshots that no queue of any work tree knows, or that nobody is going to run."""
    known = {
        path.name for top in project.git.work_trees() for path in Layout(top).queues.glob("*/code/*") if path.is_dir()
    }
    for name in project.git.queued():
        if name not in known:
            yield _Problem(
                f"{QUEUED}{name} is a snapshot of a queue that is not there",
                "--fix removes it",
                partial(project.git.forget_queued, name),
            )


def _publish_pin(project: Project, run_id: str, commit: str) -> None:
    """All that is left of a run is its snapshot (`rm -rf .nmb` while it ran): keep that."""
    started = calendar.timegm(time.strptime(run_id[:15], "%Y%m%d-%H%M%S"))
    base = project.git.first_parent(commit)
    run = Run(
        RunId(run_id), record.TRAIN, started, record.LOST, "only its snapshot is left", project=project.place, base=base
    )
    project.branch.publish_lost(run)


def _revert(project: Project) -> Iterator[_Problem]:
    try:
        saved = str(config.read_json(project.layout.reverting).value["saved"])
    except FileNotFoundError:
        return
    except (NumbError, KeyError, TypeError):
        saved = "the newest commit of kind saved"
    yield _Problem(
        f"a revert was cut off; what was there before is in {saved}", "numb revert --undo, or the same revert again"
    )


def _weights(project: Project) -> Iterator[_Problem]:
    """What runs need is here, or where `numb pull` fetches it from when a command wants it."""
    runs = project.index.runs(sound=True)
    missing = project.missing_objects(runs)
    places = project.config.remotes
    if missing and places:
        from numb import sharing
        from numb.store.objects import Ref

        absent = {digest for digests in missing.values() for digest in digests}
        refs = [Ref(digest, size) for digest, size in project.sizes(runs).items() if digest in absent]
        there = {ref.digest for ref in sharing.elsewhere(project, refs)}
        missing = {
            run_id: rest for run_id, digests in missing.items() if (rest := [d for d in digests if d not in there])
        }
    if missing:
        names = record.some(list(missing), 5)
        elsewhere = f"where a clone has them: numb push {places[0].name}" if places else ""
        remedy = elsewhere or "copy .nmb/objects from a backup"
        nor = f", and {record.some([place.name for place in places])} has not got them" if places else ""
        yield _Problem(f"the weights of {names} are missing or damaged in .nmb/objects{nor}", remedy)


def _objects(project: Project) -> Iterator[_Problem]:
    """Read every object and compare its hash: a flipped bit has the right size."""
    sizes: dict[str, int] | None = None
    for digest in project.objects:
        try:
            project.objects.verify(digest)
        except NumbError as error:
            sizes = project.sizes(project.index.everything()) if sizes is None else sizes
            if digest not in sizes:
                yield _Problem(f"{error}; no run needs it", "numb gc removes it")
            elif places := project.config.remotes:
                names = record.some([place.name for place in places])
                yield _Problem(
                    str(error),
                    f"--fix fetches it again from {names}",
                    partial(_fetch_again, project, digest, sizes[digest]),
                )
            else:
                yield _Problem(str(error), f"copy it from a backup; {_needed_by(project, digest)}")


def _fetch_again(project: Project, digest: str, size: int) -> None:
    from numb import sharing
    from numb.store.objects import Ref

    sharing.mend(project, Ref(digest, size))


def _needed_by(project: Project, digest: str) -> str:
    runs = project.runs_with(digest)
    return f"{record.some(runs, 5)} needs it" if runs else "a removed or earlier part of a run needs it"


def _leftovers(project: Project) -> Iterator[_Problem]:
    """Temporary files of killed processes: nothing reads them, and after a day nothing writes them either."""
    layout = project.layout
    places = (
        layout.folder.glob(".*.tmp"),
        layout.runs.glob(".*.tmp"),
        layout.scratch.glob("*"),
        (layout.objects / "tmp").glob("*"),
    )
    old = [path for place in places for path in place if _older(path, _A_DAY)]
    if old:
        yield _Problem(
            f"{record.counted(len(old), 'leftover')} of killed commands, {old[0]} first",
            "--fix removes them",
            lambda: _remove(old),
        )


def _older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - os.lstat(path).st_mtime > seconds
    except OSError:
        return False


def _remove(paths: list[Path]) -> None:
    for path in paths:
        atomic.remove_tree(path)


_CHECKS = (
    _git,
    _settings,
    _folder,
    _room,
    _linked,
    _lock,
    _branch,
    _listing,
    _unpublished,
    _pins,
    _queued,
    _revert,
    _weights,
    _objects,
    _leftovers,
)
