"""What keeps the store in order: entries that remove others, what no run names any more, and what every byte says."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic, engines, inflight, purging, record, tables
from numb.branch import Branch
from numb.capture.manifest import Manifest
from numb.doctor import Finding
from numb.errors import NotPossible, NumbError, ObjectCorrupt, ObjectMissing
from numb.jobs import Codes
from numb.layout import Layout, RunFolder
from numb.record import NOTED, REMOVED, RESTORED, TRAIN, Named, Run, RunId
from numb.snapshots import Snapshots
from numb.states import States
from numb.workplace import Workplace

if TYPE_CHECKING:
    from numb.project import Project
    from numb.store.index import Index

_PATIENCE = 30.0  # seconds to wait for trainings that are saving


# -- removing, and undoing that


def remove(project: Project, runs: Sequence[Run]) -> Run:
    """Put an entry on the branch that removes *runs* and their trials. Raises `NotPossible` for one that is in flight."""
    waiting = {left.run.id for _, left in project.branch.waiting() if left.run}
    if flying := [run.id for run in runs if run.commit is None or run.id in waiting]:
        raise NotPossible(f"{record.some(flying)} cannot be removed: still in flight", "numb list")
    trials = project.index.trials(run.id for run in runs)
    gone = [*runs, *(trial for found in trials.values() for trial in found)]
    named = {run.id: Named(run.id, run.commit) for run in gone if run.commit}
    return _put(project, REMOVED, removes=tuple(named.values()))


def undo(project: Project) -> tuple[Run, list[RunId]]:
    """Put an entry on the branch that takes back the last removal or remark; returns that, and the runs it was about.

    Raises `NotPossible` where there is none.
    """
    last = project.index.undoable()
    if last is None:
        raise NotPossible("there is nothing to undo: no run is removed, and nothing was said about one", "numb list")
    _put(project, RESTORED, of=last.id)
    return last, [each.id for each in last.removes] or [last.of or last.id]


def remark(project: Project, run: Run, said: Mapping[str, Any]) -> Run:
    """Put an entry on the branch that says something about a run, which may be there before it. Raises `NotPossible`."""
    if run.kind != TRAIN:
        raise NotPossible(f"{run.id} is no run but a {run.kind}", f"numb list, and then: numb show {run.of or 'ID'}")
    return _put(project, NOTED, of=run.id, **said)


def _put(project: Project, kind: str, **facts: Any) -> Run:
    now = time.time()
    entry = Run(RunId.new(now), kind, round(now, 3), record.COMPLETE, project=project.place, host=inflight.host())
    entry = replace(entry, **facts)
    return replace(entry, commit=project.branch.note(entry))


# -- what is needed


@dataclass(frozen=True, slots=True)
class Needed:
    """What runs name: their objects, with sizes."""

    run: Run
    objects: dict[str, int]


def needed(project: Project) -> Iterator[Needed]:
    """What each run on any of numb's branches names; those that share a manifest share its objects.

    Raises `ObjectMissing` where that cannot be told of one of them.
    """
    for name in project.git.our_branches():
        branch = project.branch if name == project.git.branch else _other(project, name)
        yield from needed_on(
            branch, branch.from_branch()
        )  # the kept listing is a cache, and this is about what is deleted


def needed_on(branch: Branch, index: Index) -> Iterator[Needed]:
    """The same of one branch, as an *index* of it says."""
    if damaged := [*index.damaged(), *((commit, "git has lost it") for commit in sorted(index.lost()))]:
        commit, why = damaged[0]
        raise ObjectMissing(f"what the run in commit {commit} needs is not known: {why}", "numb doctor")
    resumed = {run_id for _, run_id in index.superseded()}
    runs = [run for run in index.everything() if run.manifests or run.large or run.id in resumed]
    found: dict[RunId, dict[str, int]] = {run.id: dict(run.large) for run in runs}
    for run, manifest, sizes in branch.manifests(runs):
        if sizes is None:
            raise ObjectMissing(f"what {run.id} needs is not known: {manifest} cannot be read", "numb doctor")
        found[run.id] |= sizes
    for commit, run_id, earlier in _earlier(branch, index):
        if earlier is None:
            raise ObjectMissing(
                f"what an earlier part of {run_id} needs is not known: git has lost {commit}", "numb doctor"
            )
        found[run_id] |= earlier.large
        for _, manifest, sizes in branch.manifests([earlier]):
            if sizes is None:
                raise ObjectMissing(
                    f"what {run_id} needs is not known: {manifest} of {commit} cannot be read", "numb doctor"
                )
            found[run_id] |= sizes
    yield from (Needed(run, found[run.id]) for run in runs)


def _earlier(branch: Branch, index: Index) -> Iterator[tuple[str, RunId, Run | None]]:
    """The entries of runs that have gone on since, here or elsewhere, with their commits: what only they name is needed, too.

    None for one that cannot be read.
    """
    known = index.superseded()
    texts = branch.git.read_all((commit, "record.json") for commit, _ in known)
    for (commit, run_id), text in zip(known, texts, strict=True):
        try:
            yield commit, run_id, Run.from_json(record.loads(text or b""), commit)
        except ValueError:
            yield commit, run_id, None


def _other(project: Project, name: str) -> Branch:
    git = project.git.on(name, project.talk.say)
    return Branch(Snapshots(git, project.folder, project.config, project.talk.say), project.talk.say, kept=False)


def in_flight(project: Project) -> set[str]:
    """The objects that runs in flight name, in every work tree."""
    found: set[str] = set()
    for top in project.git.work_trees():
        for left in inflight.all_left(Layout(top)):
            found |= _named_in(left.flight.folder)
            found |= {kept.hash for every in left.flight.told().artifacts.values() for kept in every if kept.hash}
            found |= (left.run.large if left.run else {}).keys()  # of the parts of it that it goes on with
    return found


def _named_in(folder: RunFolder) -> set[str]:
    manifests = [folder.beginning, *folder.chosen.glob("*.json"), *folder.weights.glob("*.json")]
    manifests += [*folder.checkpoints.glob("*.json"), *folder.artifacts.rglob("*.manifest.json")]
    found: set[str] = set()
    for path in manifests:
        try:
            found |= {ref.digest for ref in Manifest.of(record.loads(path.read_bytes())).refs()}
        except FileNotFoundError:
            continue  # dropped, or its run published: then the branch, which is read later, names it
        except (OSError, ValueError, NumbError) as error:
            raise ObjectMissing(f"what {path} needs is not known: {error}", "numb doctor") from None
    return found


# -- collecting


@dataclass(frozen=True, slots=True)
class Collected:
    """What no run names: how many objects, and how many bytes; and what is left. And folders that jobs of queues have left."""

    objects: int
    bytes: int
    left: int
    left_bytes: int
    folders: int = 0


def collect(project: Project, *, dry_run: bool) -> Collected:
    """Remove the objects that no run names; a removed run is none. Nobody saves meanwhile.

    Raises `NotPossible` while a training is saving, and `ObjectMissing` where it is not known what a run needs.
    """
    lock = atomic.Lock(project.objects.lock)
    if project.objects.root.exists() and not dry_run and not lock.try_acquire(_PATIENCE):
        raise NotPossible("a training is saving its weights just now", "numb gc")
    try:
        flying = in_flight(project)  # before the branch: what is published meanwhile is on it
        project.branch.refresh()
        _refuse_lost_branch(project)
        alive = flying.union(*(each.objects for each in needed(project)))
        sizes = {digest: _size(project.objects.path(digest)) for digest in project.objects}
        waste = [digest for digest in sizes if digest not in alive]
        for digest in () if dry_run else waste:
            project.objects.path(digest).unlink(missing_ok=True)
    finally:
        lock.release()
    freed = sum(sizes[digest] for digest in waste)
    if not dry_run:
        _forget_snapshots(project)
    folders = _idle(project, dry_run=dry_run) + _orphaned(project, dry_run=dry_run)
    return Collected(len(waste), freed, len(sizes) - len(waste), sum(sizes.values()) - freed, folders)


def _forget_snapshots(project: Project) -> None:
    """Let git collect what was queued and nobody is going to run: whoever ran it was killed, or left it to Slurm."""
    for folder in _folders(project.layout.queues):
        codes = Codes(States(folder).codes, project.snapshots)
        codes.drop(codes.unused(engines.is_gone))


def _idle(project: Project, *, dry_run: bool) -> int:
    """Remove the folders in which no worker works; returns how many. One that begins makes its own anew."""
    found = 0
    for path in _folders(project.layout.work):
        lock = atomic.Lock(project.layout.work / f"{path.name}.lock")
        if lock.try_acquire():
            try:
                if Workplace(project.git, project.layout, path.name, None).is_used:  # by a script without its worker
                    continue
                found += 1
                if not dry_run:
                    atomic.remove_tree(path)
            finally:
                lock.release()
    return found


_OF_RUN = re.compile(
    r"(\d{8}-\d{6}-[a-z2-9]{4})(-\d+)?(-above)?"
)  # an id, and what is added where one folder was not enough


def _orphaned(project: Project, *, dry_run: bool) -> int:
    """Remove what jobs have written beside themselves whose runs are there no more; returns of how many."""
    known = {left.name for left in _folders(project.layout.runs)}
    gone = [
        path
        for path in _folders(project.layout.left)
        if (found := _OF_RUN.fullmatch(path.name)) and found[1] not in known and project.index.get(found[1]) is None
    ]
    for path in () if dry_run else gone:
        atomic.remove_tree(path)
    return len(gone)


def _folders(where: Path) -> list[Path]:
    try:
        return sorted(path for path in where.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _refuse_lost_branch(project: Project) -> None:
    """Raise `ObjectMissing` where the branch is not what it was: nobody knows then what its runs need."""
    git, last = project.git, project.index.previous_tip
    tip = git.tip().commit
    if tip is None:
        raise ObjectMissing(f"branch {git.branch} is gone, so nobody knows what its runs need", "numb doctor --fix")
    if last and git.is_ancestor(last, tip) is not True and not purging.explains(project, last):
        raise ObjectMissing(
            f"branch {git.branch} was moved away from {last}, whose runs need objects too", "numb doctor"
        )


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


# -- how much there is


@dataclass(frozen=True, slots=True)
class Used:
    """The bytes that a run needs in the store, and those that no other run needs."""

    run: Run
    bytes: int
    own: int


def usage(project: Project) -> list[Used]:
    """What each run needs, oldest first."""
    everything = list(needed(project))
    shared = Counter(digest for each in everything for digest in each.objects)
    return [
        Used(
            each.run,
            sum(each.objects.values()),
            sum(size for digest, size in each.objects.items() if shared[digest] == 1),
        )
        for each in everything
    ]


# -- verifying


def verify(project: Project, runs: Sequence[Run] | None = None) -> list[Finding]:
    """Read every byte that *runs* need, or all there are, and compare it with its hash. Only what is wrong is returned."""
    findings: list[Finding] = []
    index = project.branch.from_branch()
    chosen = index.everything() if runs is None else [index.get(run.id) or run for run in runs]
    for commit, why in index.damaged() if runs is None else ():
        findings.append(Finding(f"the run in commit {commit} cannot be read: {why}", "numb doctor"))
    if runs is None and not index.rows() <= project.index.rows():
        findings.append(Finding(f"{project.layout.listing} does not say what is on the branch", "numb doctor --fix"))
    ids = {run.id for run in chosen}
    for commit, run_id, earlier in _earlier(project.branch, index):
        if earlier is not None and run_id in ids:
            chosen.append(earlier)
        elif run_id in ids:
            findings.append(Finding(f"an earlier part of {run_id}, commit {commit}, cannot be read", "numb doctor"))
    wanted: dict[str, tuple[RunId, int]] = {}
    for run in chosen:
        wanted |= {digest: (run.id, size) for digest, size in run.large.items()}
        findings += _of_record(project, run)
    for run, name, sizes in project.branch.manifests(chosen):
        if sizes is None:
            findings.append(Finding(f"{name} of {run.id} is missing or damaged", "numb doctor"))
            continue
        try:
            manifest = Manifest.of(project.branch.read_object(run, name) or {})
            wanted |= {ref.digest: (run.id, ref.size) for ref in manifest.refs()}
        except NumbError as error:
            findings.append(Finding(f"{name} of {run.id}: {error}", error.hint or "numb doctor"))
    missing: dict[RunId, list[str]] = {}
    for digest, (run_id, size) in wanted.items():
        try:
            with project.objects.opened(digest, size):
                project.objects.verify(digest)
        except ObjectMissing:
            missing.setdefault(run_id, []).append(digest)
        except ObjectCorrupt as error:
            findings.append(Finding(f"{error} ({run_id} needs it)", error.hint or "numb doctor"))
    findings += _of_missing(project, missing)
    for digest in project.objects if runs is None else ():
        if digest not in wanted:
            try:
                project.objects.verify(digest)
            except (ObjectMissing, ObjectCorrupt) as error:
                findings.append(Finding(f"{error} (no run needs it)", "numb gc"))
    tip = project.git.tip().commit
    for line in project.git.fsck(tip)[:5] if tip and runs is None else ():
        findings.append(Finding(f"git objects of the runs are missing or damaged: {line}", "numb doctor"))
    return findings


def _of_record(project: Project, run: Run) -> Iterator[Finding]:
    for name, kept in run.artifacts.items():
        if kept.file is not None and not kept.is_state:
            try:
                project.artifact(run, name)
            except NumbError as error:
                yield Finding(str(error), error.hint or "numb doctor")
    for name, series in run.series.items():
        if series.file is not None:
            try:
                tables.content(project, run, name)
            except NumbError as error:
                yield Finding(str(error), error.hint or "numb doctor")


def _of_missing(project: Project, missing: Mapping[RunId, Sequence[str]]) -> Iterator[Finding]:
    """What is not here: of a clone that fetches weights when they are needed that is most of it."""
    if not missing:
        return
    if places := project.config.remotes:
        count = record.counted(sum(map(len, missing.values())), "object")
        whose = f"{record.counted(len(missing), 'run')} ({record.some(list(missing), 3)})"
        yield Finding(
            f"not here, and so not read: {count} of {whose}",
            f"numb pull {places[0].name} --objects; what is not there either, numb doctor tells",
        )
        return
    for run_id, digests in missing.items():
        yield Finding(
            f"{record.counted(len(digests), 'object')} that {run_id} needs: missing: {record.some(digests, 3)}",
            "copy .nmb/objects from a backup",
        )
