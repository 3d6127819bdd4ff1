"""The branch of the runs in another repository: fetched, joined and pushed, never forced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from numb import record
from numb.errors import NumbError, RemoteFailed
from numb.gitstore import GitStore, NetworkRefused
from numb.layout import known_ref
from numb.record import Run

_PATIENCE = 60.0  # seconds without a word
_TRIES = 20  # of a push that others are faster than
_TRANSIENT = ("cannot lock ref", "failed to update ref", "incorrect old value")


def fetch(git: GitStore, remote: str, patience: float = _PATIENCE, purged: Sequence[str] = ()) -> str | None:
    """Fetch the branch from *remote*, a name that git knows, and return its tip there; None where it is not there.

    A history that has one of the *purged* commits is refused. Where it was purged itself, and the branch here is as it was
    before, it takes the place of that; else the branch here stays as it is. What is fetched is checked by git. Raises
    `RemoteFailed`.
    """
    _refuse_unknown(git, remote)
    known = known_ref(remote)
    before = git.commit_of(known)
    spec = f"+refs/heads/{git.branch}:{known}"
    quiet = ("--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap=")
    try:
        git.over_network("fetch", *quiet, "--end-of-options", remote, spec, patience=patience)
    except NetworkRefused as refused:
        if "couldn't find remote ref" in refused.said:
            return None
        raise _translated(refused, remote) from refused
    tip = git.commit_of(known)
    if tip is not None and not git.is_ours(tip):
        raise RemoteFailed(f"branch {git.branch} of {remote} is none that numb has made", f"git log {known}")
    if tip is not None and any(git.has(commit) and git.is_ancestor(commit, tip) for commit in purged):
        git.forget(known)
        raise RemoteFailed(
            f"branch {git.branch} of {remote} is as it was before numb purge, and would bring back what is gone",
            f"git push --force-with-lease {remote} {git.branch}",
        )
    if tip is not None and (strange := git.strange_paths(tip)):
        raise RemoteFailed(
            f"a commit of {remote} has a path that no work tree may have: {strange[0]!r:.80}", f"git log {known}"
        )
    if tip is not None:
        _follow_purge(git, remote, tip, before)
    return tip


def _follow_purge(git: GitStore, remote: str, tip: str, before: str | None) -> None:
    """Let a branch that was purged at *remote*, whose tip was *before* there, take the place of ours, which has it all."""
    ours = git.tip().commit
    if ours is None or git.is_ancestor(ours, tip):
        return
    gone = [commit for commit in _purges(git, tip, ours) if git.has(commit) and git.is_ancestor(commit, ours)]
    if not gone:
        return
    if before is not None and git.is_ancestor(ours, before):
        git.replace_branch(tip, ours, known_ref(remote))
        return
    raise RemoteFailed(
        f"branch {git.branch} of {remote} was purged, and this one has what is gone, and perhaps runs that are nowhere else",
        f"git branch {git.branch}-before {git.branch} && git branch -f {git.branch} {known_ref(remote)}",
    )


def _purges(git: GitStore, tip: str, since: str) -> Iterator[str]:
    """What purges that are told on the way to *tip* have taken off the branch."""
    for entry in git.entries(tip, since):
        try:
            run = Run.from_json(record.loads(entry.record or b""))
        except ValueError:
            continue  # whoever reads the branch tells
        yield from run.purges


def push(
    git: GitStore,
    remote: str,
    settle: Callable[[str], object] = lambda tip: None,
    patience: float = _PATIENCE,
    purged: Sequence[str] = (),
) -> str:
    """Push the branch to *remote*, joined with what others have pushed meanwhile; returns the tip that is there now.

    *settle* is called with each tip before it is pushed, to send what its runs need. Raises `RemoteFailed`.
    """
    _refuse_unknown(git, remote)
    for _ in range(_TRIES):
        tip = git.tip().commit
        if tip is None:
            raise RemoteFailed(f"there is no branch {git.branch} to push", "numb train")
        settle(tip)
        spec = f"{tip}:refs/heads/{git.branch}"
        try:
            options = ("--porcelain", "--progress", "--no-verify", "--no-signed", "--recurse-submodules=no")
            git.over_network("push", *options, "--end-of-options", remote, spec, patience=patience)
            git.remember(known_ref(remote), tip)
            return tip
        except NetworkRefused as refused:
            said = refused.out.decode(errors="replace") + refused.said
            if not ("[rejected]" in said or any(words in said for words in _TRANSIENT)):
                raise _translated(refused, remote) from refused
        theirs = fetch(git, remote, patience, purged)
        if theirs is not None:
            git.join(theirs, time.time())
    raise RemoteFailed(f"others push to {remote} all the time", f"numb push {remote}")


def _refuse_unknown(git: GitStore, remote: str) -> None:
    if remote not in git.remotes():
        raise RemoteFailed(f"git knows no remote {remote}", f"git remote add {remote} URL")


def _translated(refused: NetworkRefused, remote: str) -> NumbError:
    lines = [line.strip() for line in refused.said.splitlines() if line.strip() and "%" not in line]
    wanted = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))] or lines
    why = wanted[0].partition(":")[2].strip() or wanted[0] if wanted else f"exit code {refused.code}"
    return RemoteFailed(f"git {refused.command} {remote}: {why}", f"git ls-remote {remote}")
