"""`numb push` and `numb pull`: objects first and then the branch, so that nobody sees a run whose weights are not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numb import atomic, config, gitremote, housekeeping, purging
from numb.config import RemotePlace
from numb.errors import NumbError, ObjectMissing, Usage
from numb.layout import CONFIG
from numb.store import remotes
from numb.store.objects import Ref
from numb.store.places import Remote

if TYPE_CHECKING:
    from numb.project import Project

Progress = Callable[[int, int], None]  # bytes done, and bytes in all


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was sent."""

    objects: int
    bytes: int
    absent: int  # objects that runs need and that are neither here nor there
    branch: str | None  # the remote of git's that has the branch now; None where there is none for it


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was fetched: how many runs are new here, and the objects that came."""

    runs: int
    objects: int
    bytes: int
    missing: int  # objects of runs that are still not here
    branch: str | None


def add(project: Project, place: RemotePlace) -> None:
    """Write a place into `nmb.json`. Raises `Usage` for a name or an address that cannot be one."""
    if not config.is_remote_name(place.name):
        raise Usage(f"{place.name!r} is no name for a remote", "numb remote add lab /mnt/lab")
    remotes.open_remote(place.url)  # refuses what is none; nothing is contacted
    known = {each.name: each.url for each in project.config.remotes}.get(place.name, place.url)
    if known != place.url:
        raise Usage(f"{place.name} is {known} already", f"numb remote remove {place.name}, or another name")
    path = project.home / CONFIG
    atomic.write(path, config.with_remote(path, place.name, place))


def remove(project: Project, name: str) -> None:
    """Take a place out of `nmb.json`; what is there stays there."""
    path = project.home / CONFIG
    atomic.write(path, config.with_remote(path, name, None))


def place_of(project: Project, name: str | None) -> RemotePlace:
    """The place of a name, or the only one. Raises `Usage`."""
    places = {place.name: place for place in project.config.remotes}
    if name is not None and name not in places and name in project.git.remotes():
        return RemotePlace(name, "", name)  # git's alone, for the branch
    if name is None:
        if len(places) == 1:
            return next(iter(places.values()))
        if not places and len(known := project.git.remotes()) == 1:
            return RemotePlace(known[0], "", known[0])
        there = ", ".join(places) or "none"
        hint = f"numb push {next(iter(places))}" if places else "numb remote add NAME URL"
        raise Usage(f"say which remote; {CONFIG} has {there}", hint)
    if name not in places:
        raise Usage(f"there is no remote {name}", f"numb remote add {name} URL")
    return places[name]


def push(project: Project, name: str | None, progress: Progress) -> Pushed:
    """Send what the other side lacks: objects, then the branch to git's remote that goes with the place.

    A push that is cut off goes on where it stopped. Raises `Usage` and `RemoteFailed`.
    """
    place = place_of(project, name)
    sent: list[Pushed] = []

    def settle(tip: str) -> None:
        project.branch.refresh()
        sent.append(_send(project, place, progress))

    if place.git not in project.git.remotes():
        settle("")
        return sent[0]
    gitremote.push(project.git, place.git, settle, purged=purging.purged(project))
    project.branch.refresh()
    return Pushed(sum(each.objects for each in sent), sum(each.bytes for each in sent), sent[-1].absent, place.git)


def _send(project: Project, place: RemotePlace, progress: Progress) -> Pushed:
    if not place.url:
        return Pushed(0, 0, 0, None)
    refs = _refs(project)
    remote = _open(project, place)
    lacking = remotes.missing(remote, refs)
    here = {ref for ref in lacking if project.objects.has(ref.digest, ref.size)}
    remotes.push(remote, project.objects, here, progress)
    return Pushed(len(here), sum(ref.size for ref in here), len(lacking - here), None)


def pull(project: Project, name: str | None, progress: Progress, *, objects: bool) -> Pulled:
    """Fetch the branch and join it with the one here; with *objects*, all that runs need and that is not here.

    Raises `Usage` and `RemoteFailed`.
    """
    place = place_of(project, name)
    before = {run.id for run in project.index.everything()}
    branch = None
    if place.git in project.git.remotes():
        tip = gitremote.fetch(project.git, place.git, purged=purging.purged(project))
        if tip is not None:
            project.git.join(tip, time.time())
            branch = place.git
    project.branch.refresh()
    new = {run.id for run in project.index.everything()} - before
    lacking = {ref for ref in _refs(project) if not project.objects.has(ref.digest, ref.size)}
    came: set[Ref] = set()
    if objects and lacking and place.url:
        came = _bring(project, place, lacking, progress)
    return Pulled(len(new), len(came), sum(ref.size for ref in came), len(lacking - came), branch)


def bring(project: Project, refs: Iterable[Ref], progress: Progress, *, damaged: bool = False) -> set[Ref]:
    """Fetch objects from whichever place has them; returns those that came. A place that cannot be reached is passed over.

    With *damaged* those that are here are read, and fetched where their bytes are not what they were.
    """
    objects = project.objects
    lacking = {ref for ref in refs if not (objects.is_intact(ref) if damaged else objects.has(ref.digest, ref.size))}
    came: set[Ref] = set()
    for place in project.config.remotes if lacking else ():
        try:
            came |= _bring(project, place, lacking - came, progress)
        except NumbError as error:
            project.talk.say(f"{place.name}: {error}")
        if came == lacking:
            break
    return came


def elsewhere(project: Project, refs: Iterable[Ref]) -> set[Ref]:
    """Which of these objects one of the places has. One that cannot be reached is told, and passed over."""
    lacking, found = set(refs), set[Ref]()
    for place in project.config.remotes:
        try:
            found |= lacking - found - remotes.missing(_open(project, place), lacking - found)
        except NumbError as error:
            project.talk.say(f"{place.name}: {error}")
    return found


def mend(project: Project, ref: Ref) -> None:
    """Fetch anew an object whose bytes here are damaged. Raises `ObjectMissing` where no place has it whole."""
    bring(project, [ref], lambda done, total: None, damaged=True)
    if not project.objects.is_intact(ref):
        raise ObjectMissing(f"no remote has {ref.digest}", "copy it from a backup")


def _bring(project: Project, place: RemotePlace, lacking: set[Ref], progress: Progress) -> set[Ref]:
    remote = _open(project, place)
    there = lacking - remotes.missing(remote, lacking)
    if there:
        project.folder.make()
        remotes.fetch(remote, project.objects, there, progress)
    return there


def _open(project: Project, place: RemotePlace) -> Remote:
    """The place itself; one that is a relative path lies where `nmb.json` does."""
    url = place.url
    if "://" not in url:
        url = str(project.home / url)
    return remotes.open_remote(url)


def _refs(project: Project) -> set[Ref]:
    """What the runs of this branch need."""
    found = housekeeping.needed_on(project.branch, project.index)
    return {Ref(digest, size) for each in found for digest, size in each.objects.items()}


def push_quietly(project: Project) -> None:
    """Push after a run, where `nmb.json` says so: what goes wrong is said in one line, and changes nothing else."""
    name = project.config.push
    if name is None:
        return
    try:
        push(project, name, lambda done, total: None)
    except Usage as error:
        project.talk.say(f"not pushed: {error}, which {CONFIG} names for it")
    except (NumbError, OSError) as error:
        project.talk.say(f"not pushed to {name} yet: {error}; numb push {name} sends it later")
