"""The one door to git.

Everything that runs git is here, and everything is plumbing with a private index: HEAD, the user's index, the stash, the
configuration and the hooks are read at most. Refs move only by compare-and-swap (`update-ref <ref> <new> <old>`), so that no
writer ever loses a commit. `revert` is the only call that writes the work tree.

Git is started directly, because these calls stand on the path of every command and importing GitPython costs more than all
of them together. Where history is read as objects and time does not matter (blobs and trees of old runs), GitPython reads it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import io
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic, layout
from numb.errors import (
    BranchInUse,
    CommandNotFound,
    GitFailed,
    NotARepository,
    NumbError,
    ObjectMissing,
    RemoteFailed,
    StorageFailed,
    WouldOverwrite,
)
from numb.record import NOTED, PURGED, REMOVED, RESTORED, SAVED, TRAIN, TRIAL, LeftOut, Nested

if TYPE_CHECKING:
    import git

OLDEST_GIT = (2, 36)  # the first with core.fsync=committed
_KIND = "Numb-Kind"  # the trailer that every commit of numb's has
_RUNS = (TRAIN, TRIAL, SAVED, NOTED, REMOVED, RESTORED, PURGED)  # the kinds whose commits hold a record

_UNWANTED = ("--exclude-standard", "--exclude=__pycache__/")  # what Python compiles is nobody's code
_OPTIONS = (
    "--no-replace-objects",
    "-c", "core.hooksPath=/dev/null",  # even plumbing fires reference-transaction and post-index-change
    "-c", "core.fsync=committed",  # the default syncs neither loose objects nor refs
    "-c", "core.safecrlf=false",  # or a file of mixed line ends stops the snapshot
    "-c", "core.fsmonitor=false",
    "-c", "core.splitIndex=false",  # or numb's index would leave shared parts in .git
    "-c", "index.sparse=false",  # numb's index names every file
    "-c", "core.untrackedCache=false",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "advice.addEmbeddedRepo=false",
    "-c", "core.quotePath=false",
)  # fmt: skip
_KEPT = frozenset(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES"))
_FILTER_SECONDS = 30.0  # how long clean filters may take before a snapshot is taken without them
_LOCK_SECONDS = 3.0  # how long a locked ref is tried again
_GC_SECONDS = 60.0  # how long a `git gc` is waited for
_STALE_SECONDS = 60.0  # an abandoned lock is at least this old

# Names whose contents are never read into a snapshot unless the user tracks the file.
SECRETS = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", ".netrc", "_netrc", ".npmrc", ".pypirc", ".git-credentials", ".htpasswd", "credentials", "credentials.*",
    "*credentials*.json", "secrets.*", "kubeconfig", ".dockercfg", "service-account*.json",
)  # fmt: skip
_EVERYWHERE = (
    "-c", "core.sparseCheckout=false", "-c", "submodule.recurse=false",  # every file, in a folder of numb's
    "-c", "core.trustctime=true", "-c", "core.checkStat=default",  # whatever a script has done there is seen
)  # fmt: skip
_HASH_FILES = ("hash-object", "-w", "--no-filters", "--stdin-paths")
# Plumbing, which no configuration of the user's for display changes.
_PATCH = ("diff-tree", "-r", "-p", "-M", "--binary", "--no-textconv")
_SHOWN_PATCH = ("diff-tree", "-r", "--stat", "-p", "-M", "--no-textconv")
_CHANGED = ("diff-tree", "-r", "-z", "--raw", "--no-renames")
# A commit may come from anywhere, and git lets a tree have entries named `..` and `.git` (M16).
_PLAIN_NAME = re.compile(r"\w[\w. -]*(/\w[\w. -]*)*")
_NO_PARTS = (b"..", b".", b".git", b"git~1")
_ABSENT, _GITLINK = b"000000", b"160000"  # modes
_NOT_IN_NAMES = str.maketrans("<>", "  ")  # they end a name in a commit
_PAGE = re.compile(rb"report-\d{8}-\d{6}-[a-z2-9]{4}\.html")  # what `layout.page` says: no part of a project
_NOT_SECRET = ("*.pub", "*.example", "*.sample", "*.template", "*.dist", "*.py")


@dataclass(frozen=True, slots=True)
class Head:
    """Where the user's HEAD stands: no commit in a new repository, no branch when it is detached."""

    commit: str | None
    branch: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the work tree, captured in a git index of its own."""

    index: Path
    left_out: tuple[LeftOut, ...] = ()
    nested: tuple[Nested, ...] = ()
    patches: Mapping[str, bytes] = field(default_factory=dict)  # by the name that `Nested.patch` says
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One run on the branch, or a hole in it: the text of its record, or what git cannot read."""

    commit: str
    record: bytes | None
    unread: str | None = None  # git's name of what is missing or damaged: the record, or the commit itself


@dataclass(frozen=True, slots=True)
class Tip:
    commit: str | None
    checked_out: str | None  # the work tree in which the user has the branch checked out
    ours: bool = False  # whether numb made this very commit


class _Failed(Exception):
    """A git command ended with an error: which, its exit code and what it said."""

    def __init__(self, command: str, code: int, said: str, out: bytes = b"") -> None:
        super().__init__(said)
        self.command, self.code, self.said, self.out = command, code, said, out


class Pruned(Exception):
    """A `git gc --prune=now` was quicker than the ref that was to hold what was written: it is to be written again."""


class NetworkRefused(_Failed):
    """What git says when another repository does not take or give what it was asked."""


@functools.cache
def _git() -> str:
    """The absolute path of git, never one that lies in the current folder."""
    candidates = (os.path.join(folder, "git") for folder in os.get_exec_path() if os.path.isabs(folder))
    found = next((path for path in candidates if os.path.isfile(path) and os.access(path, os.X_OK)), None)
    if found is None:
        raise CommandNotFound("git is not installed, or not on PATH", f"install git {_dotted(OLDEST_GIT)} or later")
    return found


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _environment(index: Path | None = None) -> dict[str, str]:
    """The caller's environment without what would lead git elsewhere (numb may be run from a hook or a rebase)."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    env.update(LC_ALL="C", GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0")
    if index:
        env["GIT_INDEX_FILE"] = str(index)
    return env


@contextlib.contextmanager
def _unled() -> Iterator[None]:
    """The same environment in this process: GitPython reads it at every step, and takes any `git` that PATH leads to."""
    callers = dict(os.environ)
    os.environ.clear()
    os.environ.update(_environment(), GIT_PYTHON_GIT_EXECUTABLE=_git(), GIT_NO_REPLACE_OBJECTS="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(callers)


def _start(
    where: Path, *arguments: str, index: Path | None = None, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [_git(), *_OPTIONS, *arguments],
        cwd=where,
        env={**_environment(index), **(more or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the script; and a filter can be ended together with the git that waits for it
    )


def _ended(process: subprocess.Popen[bytes], stdin: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
    """All that a process says, on stdout and on stderr; none is left behind by what cuts this short."""
    try:
        return process.communicate(stdin, timeout=timeout)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # git alone would leave a filter behind that holds the pipes open
        with process:
            process.communicate()
        raise


def _finish(process: subprocess.Popen[bytes], stdin: bytes = b"", timeout: float | None = None) -> bytes:
    out, err = _ended(process, stdin, timeout)
    if process.returncode:
        raise _Failed(_command(process), process.returncode, err.decode(errors="replace").strip(), out)
    return out


def _watched(process: subprocess.Popen[bytes], patience: float) -> tuple[bytes, bytes]:
    """All that a process says, as long as it says something; its group is killed when it falls silent."""
    import selectors

    said: dict[int, bytes] = {}
    with process, selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            said[stream.fileno()] = b""
            selector.register(stream, selectors.EVENT_READ)
        try:
            while selector.get_map():
                ready = selector.select(patience)
                if not ready:
                    raise RemoteFailed(
                        f"git {_command(process)} has heard nothing for {patience:g} s", "try again when the link is up"
                    )
                for key, _ in ready:
                    part = os.read(key.fd, 1 << 16)
                    said[key.fd] += part
                    if not part:
                        selector.unregister(key.fileobj)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        process.wait()
        out, err = said.values()
    return out, err


def _command(process: subprocess.Popen[bytes]) -> str:
    """Which of git's commands a process was."""
    words = [str(word) for word in process.args]  # type: ignore[union-attr]
    pairs = itertools.pairwise(words)
    return next((word for before, word in pairs if before != "-c" and not word.startswith("-")), "")


def _translated(failed: _Failed) -> Exception:
    """What a failure of git means to a person."""
    said = failed.said
    for words in ("No space left on device", "Disk quota exceeded", "Read-only file system", "Input/output error"):
        if words in said:
            return StorageFailed(f"git could not write: {words}", "make room or writable, then: numb doctor --fix")
    if "Out of diskspace" in said:  # of an index
        return StorageFailed("git could not write: No space left on device", "make room, then: numb doctor --fix")
    if "dubious ownership" in said:
        return NotARepository(said.splitlines()[0].removeprefix("fatal: "), said.splitlines()[-1].strip())
    if "not a git repository" in said:
        return NotARepository("not a git repository", "git init")
    if "must be run in a work tree" in said:
        return NotARepository("this is a git repository without a work tree", "cd to a checked-out copy of it")
    if "insufficient permission" in said or "Permission denied" in said:
        return StorageFailed(f"git may not write here: {said.splitlines()[-1]}", "numb doctor")
    first = next((line for line in said.splitlines() if line), f"exit code {failed.code}")
    return GitFailed(f"git {failed.command} failed: {first}", "numb doctor")


def looks_secret(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in _NOT_SECRET):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SECRETS)


class GitStore:
    """One git repository, seen from one of its work trees."""

    def __init__(
        self,
        toplevel: Path,
        git_dir: Path,
        common_dir: Path,
        branch: str = layout.DEFAULT_BRANCH,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.toplevel, self.git_dir, self.common_dir, self.branch = toplevel, git_dir, common_dir, branch
        self.ref = layout.branch_ref(branch)
        self._say = say
        self._filters: tuple[str, ...] = ()  # options that switch filters off, once one has failed
        self._aside: dict[str, str] = {}  # variables by which git writes its objects elsewhere

    @classmethod
    def discover(cls, where: Path) -> GitStore:
        """Find the repository that *where* lies in. Raises `NotARepository` with git's own reason."""
        questions = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--show-object-format")
        try:
            lines = _finish(_start(where, "rev-parse", *questions)).splitlines()
            if len(lines) != len(questions):  # a newline in a folder's name: ask one by one
                lines = [_finish(_start(where, "rev-parse", question))[:-1] for question in questions]
        except _Failed as failed:
            raise _translated(failed) from None
        except OSError as error:
            raise NotARepository(f"cannot look into {where}: {error.strerror}", "cd to the project") from None
        toplevel, git_dir, common, names = (os.fsdecode(line) for line in lines)
        if names != "sha1":
            raise NotARepository(
                f"this repository names its objects by {names}, which GitPython cannot read",
                "git init, in a new folder",
            )
        return cls(Path(toplevel), Path(git_dir), (Path(where) / common).resolve())

    def on(self, branch: str, say: Callable[[str], None]) -> GitStore:
        """The same repository with its runs on another branch; *say* is told what was repaired on the way."""
        return GitStore(self.toplevel, self.git_dir, self.common_dir, branch, say)

    def aside(self, folder: Path) -> GitStore:
        """The same repository, whose new objects go into *folder*, made here: when that goes, git keeps nothing of them."""
        atomic.make_directory(folder)
        quoted = os.fspath(self.common_dir / "objects").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        git = self.on(self.branch, self._say)
        git._aside = {"GIT_OBJECT_DIRECTORY": str(folder), "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"'}
        return git

    # -- running git

    def _run(
        self, *arguments: str, stdin: bytes = b"", index: Path | None = None, timeout: float | None = None
    ) -> bytes:
        try:
            return _finish(_start(self.toplevel, *arguments, index=index, more=self._aside), stdin, timeout)
        except _Failed as failed:
            raise _translated(failed) from failed

    def _try(self, *arguments: str, index: Path | None = None, stdin: bytes = b"") -> bytes | None:
        """The output, or None when git says no."""
        try:
            return _finish(_start(self.toplevel, *arguments, index=index, more=self._aside), stdin)
        except _Failed:
            return None

    def _text(self, *arguments: str, stdin: bytes = b"", index: Path | None = None) -> str:
        return self._run(*arguments, stdin=stdin, index=index).decode(errors="replace").strip()

    @functools.cached_property
    def _config(self) -> dict[str, str]:
        pairs = (
            item.partition("\n") for item in self._run("config", "-z", "--list").decode(errors="replace").split("\0")
        )
        return {name: value for name, _, value in pairs if name}

    @functools.cached_property
    def repo(self) -> git.Repo:
        """The same repository as GitPython's objects, for reading history."""
        import git  # half of `numb list`'s time, so only where it is used

        return git.Repo(self.toplevel, expand_vars=False)

    def version(self) -> tuple[int, ...]:
        found = re.search(r"(\d+)\.(\d+)", self._text("version"))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    # -- where things stand

    def head(self) -> Head:
        asked = (
            _start(self.toplevel, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
            _start(self.toplevel, "symbolic-ref", "--quiet", "--short", "HEAD"),
        )
        commit, branch = (process.communicate()[0] for process in asked)
        return Head(
            commit.decode().strip() if commit else None, branch.decode(errors="replace").strip() if branch else None
        )

    def tip(self) -> Tip:
        """The newest commit of the branch of the runs."""
        fields = ("refname", "objectname", "worktreepath", f"trailers:key={_KIND},valueonly,separator=%2C")
        form = "%00".join(f"%({name})" for name in fields)
        listed = self._try("for-each-ref", f"--format={form}%00", self.ref)
        if listed is None:  # the commit is missing or damaged: where the branch points to can still be said
            return Tip(self._text("rev-parse", "--verify", self.ref), None)
        shown = listed.decode(errors="replace").split("\0")
        for name, commit, checked_out, kind in zip(*(shown[n::4] for n in range(4)), strict=False):
            if name.strip() == self.ref:  # and not a branch below it
                return Tip(commit, checked_out or None, bool(kind))
        return Tip(None, None)

    def branch_is_ours(self) -> bool:
        """Whether the branch is one that numb made."""
        return self._is_ours(self.ref)

    def _is_ours(self, commit: str) -> bool:
        """Whether numb made *commit* or the first one before it, which a shallow clone does not have."""
        shown = ("rev-list", "--no-walk", "--no-commit-header", f"--format=%(trailers:key={_KIND},valueonly)")
        if self._text(*shown, commit):
            return True
        roots = self._text("rev-list", "--first-parent", "--max-parents=0", commit).split()
        return bool(self._text(*shown, *roots[-1:]))

    def blocking_branches(self) -> list[str]:
        """Branches below `numb/`, or above it, that make the branch impossible."""
        inside = self._text("for-each-ref", "--format=%(refname:short)", self.ref + "/").splitlines()
        above = [
            parent
            for parent in self._prefixes()
            if self._try("rev-parse", "--verify", "--quiet", layout.branch_ref(parent))
        ]
        return inside + above

    def _prefixes(self) -> list[str]:
        parts = self.branch.split("/")
        return ["/".join(parts[:n]) for n in range(1, len(parts))]

    def valid_branch(self) -> bool:
        return not self.branch.startswith("-") and self._try("check-ref-format", self.ref) is not None

    def work_trees(self) -> list[Path]:
        """The folders of all work trees of this repository, this one among them."""
        lines = self._run("worktree", "list", "--porcelain", "-z").split(b"\0")
        return [Path(os.fsdecode(line[9:])) for line in lines if line.startswith(b"worktree ")]

    @property
    def is_linked(self) -> bool:
        """Whether this work tree was made by `git worktree add`, and may go by `git worktree remove`."""
        return self.git_dir.resolve() != self.common_dir

    def main_work_tree(self) -> Path | None:
        """The work tree that the repository began with; None where it has none, or git does not know where it is."""
        if not self.is_linked:
            return self.toplevel
        main: Path | None
        if configured := self._config.get("core.worktree"):  # of a submodule
            main = (self.common_dir / configured).resolve()
        else:
            bare = "core.bare" in self._config and self._is_on("core.bare")
            main = None if bare or self.common_dir.name != ".git" else self.common_dir.parent
        return main if main and main.is_dir() else None

    def files_named(self, *names: str) -> list[Path]:
        """The files of these names (`*.py`) in the work tree, tracked or not, but for ignored ones."""
        wanted = [f":(glob)**/{name}" for name in names]
        shown = ("ls-files", "-z", "--cached", "--others", *_UNWANTED, "--", *wanted)
        paths = {self.toplevel / os.fsdecode(path) for path in self._run(*shown).split(b"\0") if path}
        return sorted(path for path in paths if path.exists())

    def branches_at(self, commit: str) -> list[str]:
        """The branches that point to *commit*."""
        return self._text(
            "for-each-ref", "--format=%(refname:lstrip=2)", f"--points-at={commit}", "refs/heads/"
        ).splitlines()

    def remote_branches(self) -> list[str]:
        """The same branch as the remotes had it when they were last fetched."""
        return self._text("for-each-ref", "--format=%(objectname)", f"refs/remotes/*/{self.branch}").split()

    def remotes_with_branch(self) -> list[str]:
        """The names of the remotes that had the same branch when they were last fetched."""
        known = self._text("for-each-ref", "--format=%(refname)", f"refs/remotes/*/{self.branch}").splitlines()
        return [name.removeprefix("refs/remotes/").removesuffix(f"/{self.branch}") for name in known]

    def is_ancestor(self, old: str, new: str) -> bool | None:
        """Whether *new* came after *old*; None where that cannot be told, because a commit is missing."""
        try:
            _finish(_start(self.toplevel, "merge-base", "--is-ancestor", old, new))
        except _Failed as failed:
            return None if failed.said or failed.code != 1 else False  # it answers "no" as well where it could not look
        return True

    def has(self, commit: str) -> bool:
        return self._try("cat-file", "-e", f"{commit}^{{commit}}") is not None

    def resolve_tag(self, name: str) -> str | None:
        """The commit that a tag of the user's points to."""
        if self._try("check-ref-format", f"refs/tags/{name}") is None:
            return None
        found = self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/tags/{name}^{{commit}}")
        return found.decode().strip() if found else None

    # -- taking a snapshot

    def capture(self, index: Path, seed: Path, *, max_bytes: int, exclude: Sequence[str] = ()) -> Snapshot:
        """Bring the git index *index* to the state of the work tree: what `git add -A` would record, to the letter.

        *seed* is numb's index of an earlier time, copied for its stat cache when it exists. Untracked files above
        *max_bytes*, that look like a secret or match *exclude* stay out and are named in the result. The user's index is
        read, never copied: its assume-unchanged bits would hide edits.
        """
        try:
            return self._capture(index, seed, max_bytes, exclude)
        except (_Failed, GitFailed, StorageFailed):
            # A damaged seed, or a file that came and went: once more from HEAD.
            _remove_lock(index)
            for known in (index, seed):
                atomic.remove_tree(known)
            try:
                return self._capture(index, index, max_bytes, exclude)
            except _Failed as failed:
                raise _translated(failed) from failed

    def _capture(self, index: Path, seed: Path, max_bytes: int, exclude: Sequence[str]) -> Snapshot:
        atomic.copy_cache(seed, index)
        if not index.exists():
            self._try("read-tree", "HEAD", index=index)
        questions = (
            _start(self.toplevel, "ls-files", "-z", "-v", "-s"),
            _start(self.toplevel, "ls-files", "-z", "-o", *_UNWANTED),
            _start(self.toplevel, "ls-files", "-z", "-v", "-s", index=index),
        )
        tracked, untracked, own = (_finish(process).split(b"\0")[:-1] for process in questions)
        listing, known = _Listing.of(tracked).without(layout.FOLDER), _Listing.of(own)
        chosen, left_out, embedded = self._choose(untracked, max_bytes, exclude)
        inner = self._repositories([*listing.gitlinks, *embedded])
        absent = listing.absent(self.toplevel) | {path for path in listing.gitlinks if inner.get(path, self) is None}
        self._take_over(index, listing, known, absent)
        heads = {path for path in embedded if (found := inner.get(path)) and found.head().commit}
        paths = listing.paths - absent - listing.displaced(self.toplevel, known) | set(chosen) | heads
        if gone := known.paths - paths - absent:
            self._record(index, "--force-remove", "--stdin", stdin=_joined(gone))
        notes = self._update(index, sorted(paths))
        inside = self._inside(inner, index.parent, max_bytes, exclude)
        return Snapshot(
            index,
            (*left_out, *inside.left_out),
            inside.nested,
            inside.patches,
            (*notes, *inside.notes),
        )

    def _choose(
        self, untracked: Iterable[bytes], max_bytes: int, exclude: Sequence[str]
    ) -> tuple[list[bytes], list[LeftOut], list[bytes]]:
        """Sort untracked files into those that go in, those that stay out and why, and repositories of their own."""
        chosen, left_out, embedded = [], [], []
        folder = layout.FOLDER.encode()
        for path in untracked:
            if path == folder or path.startswith(folder + b"/") or _PAGE.fullmatch(path.rpartition(b"/")[2]):
                continue
            if path.endswith(b"/"):
                embedded.append(path[:-1])
                continue
            why, size = self._unwanted(path, max_bytes, exclude)
            if why:
                left_out.append(LeftOut(os.fsdecode(path), size, why))
            else:
                chosen.append(path)
        return chosen, left_out, embedded

    def _unwanted(self, path: bytes, max_bytes: int, exclude: Sequence[str]) -> tuple[str | None, int]:
        try:
            size = os.lstat(os.path.join(os.fsencode(self.toplevel), path)).st_size
        except OSError:
            return None, 0  # it has gone since; update-index sees that too
        text = os.fsdecode(path)
        if size > max_bytes:
            return f"larger than {max_bytes / 1e6:g} MB", size
        if looks_secret(text):
            return "looks like a secret", size
        if any(fnmatch.fnmatchcase(text, pattern) for pattern in exclude):
            return "excluded by nmb.json", size
        return None, size

    def _update(self, index: Path, paths: list[bytes]) -> list[str]:
        """Record *paths* as they are on disk. What cannot be read is left out and named; filters that fail are skipped."""
        notes: list[str] = []
        while True:
            # No repository has a filter by default, so that this costs nothing unless somebody asked for one.
            patience = _FILTER_SECONDS if self._filters_off and not self._filters else None
            arguments = [*self._filters, "update-index", "-z", "--add", "--remove", "--replace", "--stdin"]
            try:
                _finish(_start(self.toplevel, *arguments, index=index, more=self._aside), _joined(paths), patience)
                return notes
            except (_Failed, subprocess.TimeoutExpired) as failed:
                said = failed.said if isinstance(failed, _Failed) else "filter '"
                _remove_lock(index)
                if "filter '" in said and not self._filters and self._filters_off:
                    self._filters = self._filters_off
                    notes.append("filters: skipped, because a clean filter failed or took too long")
                    continue
                culprit = self._culprit(said, paths)
                if culprit is None:
                    raise
                paths = [path for path in paths if path != culprit]
                self._record(index, "--force-remove", "--stdin", stdin=_joined([culprit]))
                notes.append(f"{os.fsdecode(culprit)}: cannot be read, so it is not in the snapshot")

    @functools.cached_property
    def _filters_off(self) -> tuple[str, ...]:
        """Options that switch every filter off.

        Whatever writes an index looks again, through the filters, at files that are as young as the index; only where
        contents come from the disk or go to it do filters matter.
        """
        pattern = re.compile(r"filter\.(.*)\.(?:clean|smudge|process|required)", re.S)
        names = {match[1] for name in self._config if (match := pattern.fullmatch(name))}
        values = (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false"))
        return tuple(
            word for name in sorted(names) for key, value in values for word in ("-c", f"filter.{name}.{key}={value}")
        )

    def _record(self, index: Path, *arguments: str, stdin: bytes) -> None:
        """Change entries of an index without looking at the disk."""
        self._run(*self._filters_off, "update-index", "-z", *arguments, index=index, stdin=stdin)

    def _culprit(self, said: str, paths: list[bytes]) -> bytes | None:
        """Which path stopped `update-index`."""
        named = re.search(r"Unable to process path (.*)", said)
        if named and (path := os.fsencode(named[1])) in paths:
            return path
        return next((path for path in paths if not _readable(os.path.join(os.fsencode(self.toplevel), path))), None)

    def _take_over(self, index: Path, listing: _Listing, known: _Listing, absent: set[bytes]) -> None:
        """Take what only the user's index can tell: files that a sparse checkout leaves out, submodules that are not
        checked out, and modes where the file system has none."""
        paths = {path for path in absent | set(listing.gitlinks) if known.entries.get(path) != listing.entries[path]}
        if not (self._is_on("core.filemode") and self._is_on("core.symlinks")):
            paths |= {path for path in listing.paths if known.mode(path) != listing.mode(path)}
        lines = [listing.entries[path] + b"\t" + path + b"\0" for path in sorted(paths)]
        if told := [line for line in lines if line.partition(b"\t")[0].endswith(b" 0")]:  # the others are in conflict
            self._record(index, "--add", "--replace", "--index-info", stdin=b"".join(told))

    def _is_on(self, name: str) -> bool:
        return self._config.get(name, "true").lower() not in ("false", "no", "off", "0")

    # -- repositories inside the work tree

    def _repositories(self, paths: Iterable[bytes]) -> dict[bytes, GitStore | None]:
        """The repositories at these paths as far as there are any; None for one that cannot be opened."""
        places = {path: self.toplevel / os.fsdecode(path) for path in paths}
        return {path: _repository(place) for path, place in places.items() if os.path.lexists(place / ".git")}

    def _inside(
        self, inner: Mapping[bytes, GitStore | None], scratch: Path, max_bytes: int, exclude: Sequence[str]
    ) -> _Inside:
        """What submodules and other repositories inside the work tree hold beyond their HEAD, and those inside them."""
        inside = _Inside()
        for path, repository in inner.items():
            name = os.fsdecode(path)
            try:
                head = repository.head().commit if repository else None
                if repository is None:
                    inside.add_note(
                        name, "a git repository that cannot be opened, so its files are not in the snapshot"
                    )
                elif head is None:
                    inside.add_note(name, "a git repository without a commit, so its files are not in the snapshot")
                elif repository.is_dirty():
                    with _folder(scratch / f"nested-{len(inside.found)}") as folder:
                        if self._aside:
                            repository = repository.aside(folder / "objects")
                        captured = repository.capture(
                            folder / "index", folder / "index", max_bytes=max_bytes, exclude=exclude
                        )
                        patch = repository.patch(head, repository.write_tree(captured.index))
                    inside.add(name, head, patch, captured)
                else:
                    inside.add(name, head, b"", None)
            except NumbError as error:
                inside.add_note(name, f"{error}, so what differs from its HEAD is not in the snapshot")
        return inside

    def is_dirty(self) -> bool:
        shown = ("--porcelain", "-z", "--ignore-submodules=none", "--untracked-files=normal")
        return bool(self._run("status", *shown))

    def write_tree(self, index: Path) -> str:
        return self._text(*self._filters_off, "write-tree", index=index)

    # -- commits

    @functools.cached_property
    def _identity(self) -> dict[str, str]:
        """The user's name if git has one: a commit of numb's must not fail for want of it."""
        name, email = self._config.get("user.name", ""), self._config.get("user.email", "")
        return {
            "name": " ".join(name.translate(_NOT_IN_NAMES).split()) or "numb",
            "email": "".join(email.translate(_NOT_IN_NAMES).split()) or "numb@localhost",
        }

    def _commit(self, tree: str, parents: Sequence[str], message: str, when: float) -> str:
        """Write a commit object and nothing else. `commit-tree` neither signs nor runs hooks."""
        who = f"{self._identity['name']} <{self._identity['email']}> {int(when)} +0000"
        lines = [
            f"tree {tree}",
            *(f"parent {parent}" for parent in parents),
            f"author {who}",
            f"committer {who}",
            "",
            message,
        ]
        content = "\n".join(lines).rstrip("\n") + "\n"
        return self._text(
            "hash-object", "-w", "-t", "commit", "--stdin", stdin=content.encode(errors="surrogateescape")
        )

    def pin(self, run_id: str, tree: str, base: str | None, when: float) -> str:
        """Keep a snapshot from `git gc --prune=now` until its run is on the branch."""
        commit = self._commit(tree, [base] if base else [], f"snapshot of {run_id}\n", when)
        self._run("update-ref", layout.pin_ref(run_id), commit)
        return commit

    def keep_queued(self, name: str, tree: str, base: str | None, when: float) -> None:
        """Keep a snapshot that jobs of a queue run, as `pin` does."""
        commit = self._commit(tree, [base] if base else [], "snapshot for a queue\n", when)
        self._run("update-ref", layout.queued_ref(name), commit)

    def forget_queued(self, name: str) -> None:
        self._try("update-ref", "-d", layout.queued_ref(name))

    def queued(self) -> list[str]:
        """The names of the snapshots that are kept for queues."""
        shown = self._text("for-each-ref", "--format=%(refname)", layout.QUEUED).split()
        return [name.removeprefix(layout.QUEUED) for name in shown]

    def unpin(self, run_id: str) -> None:
        """Let go of a snapshot. A pin that cannot be removed does no harm: doctor finds it."""
        self._try("update-ref", "-d", layout.pin_ref(run_id))

    def load_pin(self, run_id: str, index: Path) -> None:
        """Make *index* hold the pinned snapshot of a run."""
        _remove_lock(index)
        self._run(*self._filters_off, "read-tree", layout.pin_ref(run_id), index=index)

    def pins(self) -> dict[str, str]:
        """The pinned snapshots: run id to commit. A pin whose commit is gone has an empty one."""
        shown = self._text("for-each-ref", "--format=%(refname) %(objectname)", layout.PINS)
        pairs = (line.split(" ") for line in shown.splitlines())
        return {name.removeprefix(layout.PINS): commit if self.has(commit) else "" for name, commit in pairs}

    def tree_with_record(self, index: Path, folder: Path, reused: Mapping[str, str]) -> str:
        """The tree of a run: the snapshot in *index*, and the files of *folder* below `.nmb/run/`.

        *reused* names blobs that are in the repository already, by their name in the record.
        """
        names = sorted(
            p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
        )
        out = _finish(
            # The work tree is said too, or git would look for the names where a submodule's `core.worktree` leads.
            _start(folder, f"--git-dir={self.git_dir}", "--work-tree=.", *_HASH_FILES),
            "".join(name + "\n" for name in names).encode(),
        )
        blobs = dict(zip(names, out.decode().split(), strict=True)) | dict(reused)
        lines = b"".join(
            f"100644 {blob}\t{layout.RECORD_FOLDER}/{name}".encode() + b"\0" for name, blob in sorted(blobs.items())
        )
        self._record(index, "--add", "--replace", "--index-info", stdin=lines)
        return self.write_tree(index)

    def write_record(self, index: Path, folder: Path, reused: Mapping[str, str] | None = None) -> str:
        try:
            return self.tree_with_record(index, folder, reused or {})
        except _Failed as failed:
            raise _translated(failed) from failed

    def empty_tree(self) -> str:
        return self._text("mktree")

    def append(
        self,
        tree: str,
        message: str,
        when: float,
        base: str | None = None,
        last_known: Callable[[], str | None] = lambda: None,
        packed: int | None = None,
    ) -> str:
        """Put one commit on the branch: first parent the branch's tip, second *base*, whoever else writes at the same time.

        Returns the commit. *last_known* tells a commit to go on from when the branch has gone. Raises `BranchInUse` when the
        user has the branch checked out (moving it would show their files as deleted), and when it is not numb's; `Pruned` where
        a `git gc --prune=now` has removed what was written for it, since *packed* was asked for.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            tip = self.tip()
            if tip.checked_out:
                raise BranchInUse(
                    f"branch {self.branch} is checked out in {tip.checked_out}, so it is not moved; the run is safe in .nmb",
                    "git switch -, then: numb doctor --fix",
                )
            if tip.commit and not tip.ours and not self.branch_is_ours():
                raise BranchInUse(
                    f"there is a branch {self.branch} that numb did not make; the run is safe in .nmb",
                    f"git branch -m {self.branch} mine, then: numb doctor --fix",
                )
            before = tip.commit or self._resurrected(last_known()) or self._root(when)
            commit = self._commit(tree, [before, *([base] if base else [])], message, when)
            if self._move(commit, tip.commit, deadline):
                if (self.wait_for_gc() or self.packed() != packed) and not self.is_whole(commit):
                    self._try("update-ref", self.ref, before, commit)
                    raise Pruned
                return commit

    def packed(self) -> int | None:
        """What changes whenever objects are packed, as every `git gc` does that has something to remove."""
        try:
            return (self.common_dir / "objects" / "pack").stat().st_mtime_ns
        except OSError:
            return None

    def wait_for_gc(self) -> bool:
        """Wait while `git gc` runs; returns whether it does. With --prune=now that removes what nothing points to yet."""
        until = time.monotonic() + _GC_SECONDS
        ran = False
        while self._is_collecting() and time.monotonic() < until:
            ran = True
            time.sleep(0.01)
        return ran

    def _is_collecting(self) -> bool:
        try:
            pid, _, host = (self.common_dir / "gc.pid").read_text().partition(" ")
            if host.strip() == os.uname().nodename:
                os.kill(int(pid), 0)
        except (OSError, ValueError):
            return False
        return True

    def is_whole(self, commit: str) -> bool:
        """Whether git has a commit, its tree, and everything in that."""
        return self._try("rev-list", "--objects", "--max-count=1", commit) is not None

    def _resurrected(self, commit: str | None) -> str | None:
        return commit if commit and self.has(commit) else None

    def _root(self, when: float) -> str:
        message = "numb: the runs of this repository, one commit each\n\nNumb-Kind: root\nNumb-Format: 1\n"
        return self._commit(self.empty_tree(), [], message, when)

    def found(self, when: float) -> str | None:
        """Make the branch if it is not there: from a remote's, when one was fetched. Returns the new tip, or None."""
        if self.tip().commit:
            return None
        start = next(filter(self._is_ours, self.remote_branches()), None) or self._root(when)
        self._move(start, None, time.monotonic() + _LOCK_SECONDS)
        return start

    def _move(self, new: str, old: str | None, deadline: float) -> bool:
        """Compare-and-swap the branch. False when somebody else was faster; a lock that stays is looked into."""
        try:
            message = ["-m", "numb", "--create-reflog"]
            _finish(_start(self.toplevel, "update-ref", *message, self.ref, new, old or "0" * len(new)))
        except _Failed as failed:
            if "is at" in failed.said or "but expected" in failed.said or "reference already exists" in failed.said:
                return False
            if blocking := self.blocking_branches():
                raise BranchInUse(
                    f"branch {blocking[0]} makes a branch {self.branch} impossible; the run is safe in .nmb",
                    f"git branch -m {blocking[0]} another-name, then: numb doctor --fix",
                ) from None
            if "File exists" not in failed.said:
                raise _translated(failed) from failed
            if not self.remove_stale_lock() and time.monotonic() > deadline:
                raise GitFailed(
                    f"{self.lock} is there, so git cannot move the branch; the run is safe in .nmb",
                    "numb doctor --fix, once no git command is running",
                ) from None
            time.sleep(0.005 + os.urandom(1)[0] / 5000)  # up to 56 ms, so that writers do not meet again
            return False
        return True

    def remove_stale_lock(self, patience: float = _STALE_SECONDS) -> bool:
        """Remove the lock of the branch that a killed git has left: old enough, and open in no process (4% of kills)."""
        lock = self.lock
        try:
            status = lock.stat()
        except OSError:
            return True  # it has gone
        if time.time() - status.st_mtime < patience or _is_open(status):
            return False
        lock.unlink(missing_ok=True)
        self._say(f"removed {lock}, which a git that was killed had left")
        return True

    @property
    def lock(self) -> Path:
        """What git holds while it moves the branch."""
        return Path(f"{self.common_dir / self.ref}.lock")

    def restore(self, commit: str | None, when: float) -> None:
        """Make the branch again, at *commit* or empty."""
        self._move(commit or self._root(when), None, time.monotonic() + _LOCK_SECONDS)

    def first_parent(self, commit: str) -> str | None:
        found = self._try("rev-parse", "--verify", "--quiet", f"{commit}^1")
        return found.decode().strip() if found else None

    def tracked_below(self, folder: str) -> int:
        """How many files the user's index has below *folder*."""
        return len(self._run("ls-files", "-z", "--", folder).split(b"\0")) - 1

    def delete_branch(self) -> str | None:
        """Delete the branch, and every snapshot that is kept; returns the commit that it pointed to.

        Raises `BranchInUse` if it is not numb's.
        """
        tip = self.tip()
        if tip.commit and not self.branch_is_ours():
            raise BranchInUse(
                f"there is a branch {self.branch} that numb did not make", "git branch -d, if it is not needed"
            )
        for run_id in self.pins():
            self.unpin(run_id)
        for name in self.queued():
            self.forget_queued(name)
        for known in self._text("for-each-ref", "--format=%(refname)", layout.KNOWN).splitlines():
            self._run("update-ref", "-d", known)
        if tip.commit:
            self._run("update-ref", "-d", self.ref, tip.commit)
        return tip.commit

    # -- the whole history of the branch

    def history(self, tip: str) -> list[str]:
        """Every commit of numb's that *tip* reaches, parents before children: first parents, and both of a join."""
        parents: dict[str, list[str]] = {}
        waiting = [tip]
        while waiting:
            listed, hole = self._walk(waiting.pop(), None)
            if hole:
                raise GitFailed(f"commit {hole} of branch {self.branch} is missing or damaged", "numb doctor")
            for line in listed:
                words, _, subject = line.split("\t", 2)
                commit, *found = words.split()
                if commit in parents:
                    break
                is_join = subject.startswith("join ") and len(found) > 1
                parents[commit] = found[: 2 if is_join else 1]
                waiting += found[1:2] if is_join else []
        ordered: dict[str, None] = {}
        stack = [(tip, iter(parents[tip]))]
        while stack:
            commit, rest = stack[-1]
            following = next((each for each in rest if each in parents and each not in ordered), None)
            if following is None:
                ordered[commit] = None
                stack.pop()
            else:
                stack.append((following, iter(parents[following])))
        return list(ordered)

    def ids(self, commits: Sequence[str]) -> Iterator[str | None]:
        """The ids in the records of these commits; None where there is none."""
        for text in self.read_all((commit, "record.json") for commit in commits):
            try:
                yield str(json.loads(text or b"")["id"])
            except (ValueError, KeyError, TypeError):
                yield None

    def raw(self, commits: Sequence[str]) -> Iterator[bytes]:
        """These commits as git has them. Raises `GitFailed` for one that it has lost."""
        for commit, found in zip(commits, self._contents(commits), strict=True):
            if found is None:
                raise GitFailed(f"commit {commit} is missing or damaged", "numb doctor")
            yield found[1]

    def having(self, commits: Sequence[str], path: str) -> list[str]:
        """Those of these commits whose trees have *path*."""
        asked = "".join(f"{commit}:{path}\n" for commit in commits).encode(errors="surrogateescape")
        said = self._run("cat-file", "--batch-check", stdin=asked).splitlines()
        return [commit for commit, line in zip(commits, said, strict=True) if not line.endswith(b" missing")]

    def strange_paths(self, tip: str) -> list[str]:
        """Paths in what *tip* brings that would lead out of a work tree, or into its repository (M16)."""
        mine = self.tip().commit
        listed = self._run(
            "rev-list", "--objects", tip, *([f"^{mine}"] if mine else []), "--not", "--branches", "--tags"
        )
        paths = (line.partition(b" ")[2] for line in listed.splitlines())
        return [os.fsdecode(path) for path in paths if any(part.lower() in _NO_PARTS for part in path.split(b"/"))]

    def own_commit_with(self, path: str) -> str | None:
        """The newest commit of the user's own branches that changed *path*."""
        own = ("rev-list", "-1", *(f"--exclude={name}" for name in self.our_branches()), "--branches", "--tags")
        found = self._try(*own, "--", f":(top){path}")
        return found.decode().strip() or None if found else None

    @contextlib.contextmanager
    def importing(self) -> Iterator[subprocess.Popen[bytes]]:
        """A `git fast-import` that is told what to write. Raises `GitFailed` when it is not content."""
        process = subprocess.Popen(
            [_git(), *_OPTIONS, "fast-import", "--quiet", "--done", "--force", "--cat-blob-fd=1"],
            cwd=self.toplevel,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield process
            _finish(process)
        except BrokenPipeError:
            said = process.communicate()[1].decode(errors="replace").strip()
            raise GitFailed(f"git fast-import failed: {said.splitlines()[0] if said else ''}", "numb doctor") from None
        except _Failed as failed:
            raise _translated(failed) from failed
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def replace_branch(self, new: str, old: str, temporary: str) -> None:
        """Let the branch be *new*, if it still is *old*, and forget what it was. Raises `BranchInUse`."""
        if not self._move(new, old, time.monotonic() + _LOCK_SECONDS):
            raise BranchInUse("something was put on the branch meanwhile", "the same command again")
        for ref in (temporary, *self._text("for-each-ref", "--format=%(refname)", layout.KNOWN).splitlines()):
            self._try("update-ref", "-d", ref)
        self._run("reflog", "expire", "--expire=now", self.ref)

    # -- other copies of the repository

    def remotes(self) -> list[str]:
        """The names of the remotes that the user has told git of."""
        return self._text("remote").splitlines()

    def join(self, other: str, when: float) -> str:
        """Let the branch hold the entries of *other* too, and return its tip: nothing is lost, nothing is merged.

        Where one of the two came after the other that is it; else a commit with both as parents. Raises what `append` raises.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            tip = self.tip()
            if tip.commit and self.is_ancestor(other, tip.commit):
                return tip.commit
            if tip.checked_out:
                raise BranchInUse(
                    f"branch {self.branch} is checked out in {tip.checked_out}, so it is not moved", "git switch -"
                )
            if tip.commit and not tip.ours and not self.branch_is_ours():
                raise BranchInUse(f"there is a branch {self.branch} that numb did not make", "numb init --branch lab")
            joined = other
            if tip.commit and not self.is_ancestor(tip.commit, other):
                message = f"join {tip.commit[:12]} and {other[:12]}\n\nNumb-Kind: join\nNumb-Format: 1\n"
                tree = self._text("rev-parse", f"{tip.commit}^{{tree}}")
                joined = self._commit(tree, [tip.commit, other], message, when)
            if self._move(joined, tip.commit, deadline):
                return joined

    def commit_of(self, ref: str) -> str | None:
        """The commit that a ref points to."""
        found = self._try("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return found.decode().strip() if found else None

    def is_ours(self, commit: str) -> bool:
        """Whether *commit* belongs to a branch that numb has made."""
        return self._is_ours(commit)

    def remember(self, ref: str, commit: str) -> None:
        """Let a ref of numb's own point to *commit*."""
        self._run("update-ref", ref, commit)

    def forget(self, ref: str) -> None:
        """Remove a ref of numb's own."""
        self._run("update-ref", "-d", ref)

    def over_network(self, *arguments: str, patience: float) -> bytes:
        """Run a command of git that talks with another machine; what it says is watched, so that it cannot hang.

        Raises `RemoteFailed` when it is silent for *patience* seconds, and `NetworkRefused` with what git says otherwise.
        """
        options: tuple[str, ...] = ("-c", "fetch.fsckObjects=true", "-c", "transfer.fsckObjects=true")
        options += ("-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={int(patience) or 1}")
        env = _environment() | {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "SSH_ASKPASS_REQUIRE": "never"}
        ssh = os.environ.get("GIT_SSH_COMMAND") or self._config.get("core.sshcommand") or "ssh"
        alive = f"-o BatchMode=yes -o ConnectTimeout={int(patience) or 1} -o ServerAliveInterval=15 -o ServerAliveCountMax=2"
        process = subprocess.Popen(
            [_git(), *_OPTIONS, *options, *arguments],
            cwd=self.toplevel,
            env=env | {"GIT_SSH_COMMAND": f"{ssh} {alive}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        out, said = _watched(process, patience)
        if process.returncode:
            raise NetworkRefused(arguments[0], process.returncode, said.decode(errors="replace").strip(), out)
        return out

    # -- reading runs

    def entries(self, tip: str, since: str | None = None) -> Iterator[Entry]:
        """The runs of the branch up to *tip* that are not reachable from *since*, oldest first; at the end what is broken.

        Follows first parents, and both parents of a join. Two processes, however many runs, where nothing is broken.
        """
        kinds: dict[str, str] = {}
        holes: list[str] = []
        waiting = [tip]
        while waiting:
            listed, hole = self._walk(waiting.pop(), since)
            for line in listed:
                words, kind, subject = line.split("\t", 2)
                commit, *parents = words.split()
                if commit in kinds or commit == since:
                    break
                kinds[commit] = kind
                if subject.startswith("join ") and len(parents) > 1:
                    waiting.append(parents[1])
            else:
                holes += [hole] if hole else []
        records = {commit: f"{commit}:{layout.RECORD_FOLDER}/record.json" for commit in reversed(kinds)}
        absent = []
        for commit, text in zip(records, self._blobs(records.values()), strict=True):
            if text is None:
                absent.append(commit)
            else:
                yield Entry(commit, text)
        for commit in self._of_runs(absent, kinds):
            yield Entry(commit, None, records[commit])
        for commit in holes:
            yield Entry(commit, None, commit)

    def _walk(self, start: str, since: str | None) -> tuple[list[str], str | None]:
        """The chain of first parents from *start*, a line each, and the commit at which it breaks off, if it does."""
        shown = ("rev-list", "--first-parent", "--no-commit-header")
        line = f"--format=%H %P%x09%(trailers:key={_KIND},valueonly,separator=%x2C)%x09%s"
        try:
            listed = _finish(_start(self.toplevel, *shown, line, start, *([f"^{since}"] if since else []), "--"))
            return listed.decode(errors="replace").splitlines(), None
        except _Failed:
            pass
        # One commit is missing or damaged. Git tells what comes after it, one by one, when nothing is to be left out, and
        # ends before the first whose parent it cannot read.
        try:
            listed, broken = _finish(_start(self.toplevel, *shown, line, start, "--")), False
        except _Failed as failed:
            listed, broken = failed.out, True
        lines = listed.decode(errors="replace").splitlines()
        if not broken:
            return lines, None
        last = _first_parent(lines[-1]) if lines else start
        alone = self._try(*shown, line, "--no-walk", last, "--") if last else None
        if alone is None:
            return lines, last
        lines += alone.decode(errors="replace").splitlines()
        return lines, _first_parent(lines[-1])

    def _of_runs(self, commits: Sequence[str], kinds: Mapping[str, str]) -> list[str]:
        """Which of these commits without a record that can be read should have one."""
        strange = [commit for commit in commits if not kinds[commit]]  # not numb's, or somebody has changed its message
        folders = self._contents(f"{commit}:{layout.RECORD_FOLDER}" for commit in strange)
        found = {commit for commit, folder in zip(strange, folders, strict=True) if folder}
        return [commit for commit in commits if kinds[commit] in _RUNS or commit in found]

    def any_readable(self, names: Sequence[str]) -> bool:
        """Whether anything of what could not be read can be read by now."""
        return any(self._contents(names))

    def missing(self, commits: Sequence[str]) -> list[str]:
        """Which of these commits are missing or damaged."""
        return [commit for commit, found in zip(commits, self._contents(commits), strict=True) if found is None]

    def _blobs(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The blobs of these names, None for what is missing or damaged."""
        for found in self._contents(names):
            yield found[1] if found and found[0] == b"blob" else None

    def _contents(self, names: Iterable[str]) -> Iterator[tuple[bytes, bytes] | None]:
        """Type and content of the objects of these names, None for what is missing or damaged."""
        waiting = list(names)
        together: tuple[str, ...] = ("--buffer",)  # git looks for the next ones while one is read
        while waiting:
            answered = 0
            for found in self._answers(waiting, *together):
                answered += 1
                yield found
            del waiting[:answered]
            if waiting and not together:
                yield None  # git has died of this one
                del waiting[0]
            together = ()

    def _answers(self, names: Sequence[str], *options: str) -> Iterator[tuple[bytes, bytes] | None]:
        """What one git says about these names, in their order; less than that when it dies of one."""
        import tempfile  # 5 ms, and `numb list` has mostly nothing to catch up

        with tempfile.TemporaryFile() as asked:
            asked.write("".join(name.replace("\n", "?") + "\n" for name in names).encode(errors="replace"))
            asked.seek(0)
            process = subprocess.Popen(
                [_git(), *_OPTIONS, "cat-file", "--batch", *options],
                cwd=self.toplevel,
                env=_environment(),
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        with process, process.stdout or io.BytesIO() as out:
            while header := out.readline():
                words = header.rsplit(b" ", 2)
                if len(words) != 3 or not words[2].strip().isdigit():
                    yield None
                    continue
                size = int(words[2])
                content = out.read(size + 1)
                if len(content) <= size:
                    return
                yield words[1], content[:-1]

    def record_files(self, commit: str) -> dict[str, bytes]:
        """The files of a run's record by name. Only plain files: links and submodules are never followed.

        Raises `ObjectMissing` for one that git has lost or cannot read.
        """
        with _unled():
            names = self._record_names(commit)
        files = dict(zip(names, self.read_all([(commit, name) for name in names]), strict=True))
        for name, content in files.items():
            if content is None:
                raise ObjectMissing(f"{layout.RECORD_FOLDER}/{name} of commit {commit} cannot be read", "numb doctor")
        return {name: content for name, content in files.items() if content is not None}

    def _record_names(self, commit: str) -> list[str]:
        try:
            folder = self.repo.commit(commit).tree / layout.RECORD_FOLDER
            blobs = [item for item in folder.traverse() if item.type == "blob" and item.mode == 0o100644]  # type: ignore[union-attr]
        except (KeyError, ValueError, OSError):
            return []
        names = [str(blob.path).removeprefix(f"{layout.RECORD_FOLDER}/") for blob in blobs]  # type: ignore[union-attr]
        return [name for name in names if _PLAIN_NAME.fullmatch(name)]

    def read(self, commit: str, name: str) -> bytes | None:
        """One file of a run's record, or None."""
        return next(self.read_all([(commit, name)]))

    def read_all(self, files: Iterable[tuple[str, str]]) -> Iterator[bytes | None]:
        """Files of records, each by its commit and its name, None for what is missing or damaged. One process for all."""
        return self._blobs(f"{commit}:{layout.RECORD_FOLDER}/{name}" for commit, name in files)

    def blob(self, commit: str, name: str) -> str | None:
        """The id of one file of a run's record, so that another run can have the same file without writing it."""
        found = self._try("rev-parse", "--verify", "--quiet", f"{commit}:{layout.RECORD_FOLDER}/{name}")
        return found.decode().strip() if found else None

    def patch(self, old: str, new: str, *, color: bool = False) -> bytes:
        """What changed from one tree or commit to another, without numb's own record, as `git apply` reads it."""
        shown = "--color=always" if color else "--color=never"
        return self._run(*_PATCH, shown, old, new, "--", ".", f":(exclude){layout.FOLDER}")

    def shown_patch(self, old: str, new: str, *, color: bool = False) -> bytes:
        """The same for a person: first how much changed in which file; of binary files only that they differ."""
        shown = "--color=always" if color else "--color=never"
        return self._run(*_SHOWN_PATCH, shown, old, new, "--", ".", f":(exclude){layout.FOLDER}")

    def changed(self, old: str, new: str) -> dict[bytes, tuple[bytes, bytes]]:
        """The paths that differ between two trees or commits, with their modes in both; 000000 where there is none."""
        out = self._run(*_CHANGED, old, new, "--", ".", f":(exclude){layout.FOLDER}").split(b"\0")
        facts, paths = out[::2], out[1::2]  # :MODE MODE BLOB BLOB STATUS, then the path
        return {path: (fact[1:7], fact[8:14]) for fact, path in zip(facts, paths, strict=False)}

    def snapshot_ids(self, commits: Sequence[str]) -> list[str | None]:
        """The names of the trees that `snapshot_tree` would make of these commits, without making any; None for a lost one."""
        import hashlib

        names: list[str | None] = []
        for found in self._contents(f"{commit}^{{tree}}" for commit in commits):
            entries = _tree_entries(found[1]) if found else ()
            tree = b"".join(entry for name, entry in entries if name != layout.FOLDER.encode())
            names.append(hashlib.sha1(b"tree %d\0" % len(tree) + tree).hexdigest() if found else None)
        return names

    def snapshot_tree(self, commit: str) -> str:
        """The tree of a run without numb's record: the project exactly as it ran."""
        listed = self._run("ls-tree", "-z", "--full-tree", commit).split(b"\0")
        forbidden = (layout.FOLDER.encode(), b".git", b"..", b".")  # a commit may come from anywhere (M16)
        kept = [line for line in listed if line and line.partition(b"\t")[2].lower() not in forbidden]
        return self._text("mktree", "-z", "--missing", stdin=b"".join(line + b"\0" for line in kept))

    # -- writing the work tree

    def load_snapshot(self, commit: str, index: Path) -> None:
        """Make *index* hold the tree of a commit without numb's record."""
        self._run("read-tree", self.snapshot_tree(commit), index=index)

    def our_branches(self) -> list[str]:
        """Every branch that numb has made in this repository: each folder with an `nmb.json` may name one."""
        line = f"--format=%(refname:lstrip=2)%09%(contents:trailers:key={_KIND},valueonly,separator=%2C)"
        named = (each.partition("\t") for each in self._text("for-each-ref", line, "refs/heads/").splitlines())
        return sorted({self.branch, *(name for name, _, kind in named if kind.strip())})

    def collisions(self, changes: Mapping[bytes, tuple[bytes, bytes]]) -> list[bytes]:
        """Files on the disk that the old tree of *changes* does not have, and that the new one would replace: ignored or
        left out today.

        Raises `WouldOverwrite` when a repository of its own stands in the way.
        """
        new = {path: after for path, (before, after) in changes.items() if before == _ABSENT}
        found = {
            obstacle
            for path, mode in new.items()
            for obstacle in _in_the_way(os.fsencode(self.toplevel), path, mode == _GITLINK)
        }
        return sorted(found - (changes.keys() - new.keys()))

    def add(self, index: Path, paths: Iterable[bytes]) -> str:
        """Record *paths* in an index whatever they are, and return its tree."""
        self._run("update-index", "-z", "--add", "--replace", "--stdin", index=index, stdin=_joined(paths))
        return self.write_tree(index)

    def switch(self, index: Path, current: str, wanted: str) -> None:
        """Bring the work tree from *current*, which *index* holds, to *wanted*. HEAD and the user's index stay.

        Files that are in neither are not touched. Raises `WouldOverwrite`, having changed nothing, when a file changed since
        *index* was made, or stands in the way.
        """
        try:
            _finish(_start(self.toplevel, *self._filters, "read-tree", "-m", "-u", current, wanted, index=index))
        except _Failed as failed:
            lines = [line.strip() for line in failed.said.splitlines() if line.strip()]
            if any(
                words in failed.said
                for words in ("not uptodate", "would be overwritten", "would be removed", "would lose")
            ):
                raise WouldOverwrite(
                    f"nothing was changed: {lines[0].removeprefix('error: ')}", "close what writes to it, and try again"
                ) from None
            raise _translated(failed) from failed

    def export(self, index: Path, tree: str, target: Path) -> None:
        """Write the files of *tree* into the empty directory *target*, as a checkout would.

        Where a filter is missing or fails (git-lfs of a project that is years old), the files are written as git has them.
        """
        self._run(*self._filters_off, "read-tree", tree, index=index)
        arguments = ("checkout-index", "-a", "-f", f"--prefix={target}/")
        try:
            _finish(_start(self.toplevel, *arguments, index=index))
        except _Failed as failed:
            if "filter" not in failed.said or not self._filters_off:
                raise _translated(failed) from failed
            self._say("a filter of git's failed, so the files that need it are written as git keeps them")
            self._run(*self._filters_off, *arguments, index=index)

    def lay_out(self, index: Path, tree: str, target: Path) -> None:
        """Make the folder *target* the files of *tree*; *index* is what it was made by before, or not there.

        Only what differs is written. Files that are in no tree are left alone.
        """
        arguments = (*_EVERYWHERE, "read-tree", "--reset", "-u", "--no-recurse-submodules", tree)
        self._write_files(arguments, index, target)

    def rewrite(self, index: Path, target: Path, paths: Sequence[str]) -> None:
        """Write files of *index*, which are missing in *target* or have changed, anew."""
        arguments = (*_EVERYWHERE, "checkout-index", "-f", "-u", "-z", "--stdin")
        self._write_files(arguments, index, target, _joined(map(os.fsencode, paths)))

    def _write_files(self, arguments: Sequence[str], index: Path, target: Path, stdin: bytes = b"") -> None:
        """Where a filter is missing or fails, the files are written as git has them."""
        there = {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(target)}
        try:
            try:
                _finish(_start(target, *arguments, index=index, more=there), stdin)
            except _Failed as failed:
                if "filter" not in failed.said or not self._filters_off:
                    raise
                _remove_lock(index)
                _finish(_start(target, *self._filters_off, *arguments, index=index, more=there), stdin)
        except _Failed as failed:
            _remove_lock(index)
            raise _translated(failed) from failed

    def wait_for(self, index: Path) -> None:
        """Wait for a git that goes on with an index though its numb was killed, and clear up after one that was killed too."""
        deadline = time.monotonic() + _STALE_SECONDS
        with contextlib.suppress(FileNotFoundError):
            while _is_open(index.with_name(f"{index.name}.lock").stat()) and time.monotonic() < deadline:
                time.sleep(0.05)
        _remove_lock(index)

    def paths_in(self, index: Path) -> list[bytes]:
        """The files that an index names, from the top of the work tree; the folder of a repository ends with a slash."""
        listed = self._run("ls-files", "-z", "-s", index=index).split(b"\0")[:-1]
        return [line.partition(b"\t")[2] + (b"/" if line.startswith(_GITLINK) else b"") for line in listed]

    def others(self, index: Path, *, ignored: bool = False) -> list[bytes]:
        """Whatever else is in the work tree than what an index names, or what of that is *ignored*.

        A folder of such ends with a slash.
        """
        which = ("--ignored", "--exclude-standard") if ignored else ()
        return self._run("ls-files", "-z", "--others", "--directory", *which, index=index).split(b"\0")[:-1]

    def apply(self, index: Path, base: str, patch: bytes) -> str:
        """The tree that *patch* makes of the commit *base*."""
        self._run(*self._filters_off, "read-tree", base, index=index)
        self._run("apply", "--cached", "--whitespace=nowarn", "-", index=index, stdin=patch)
        return self.write_tree(index)

    # -- health

    def fsck(self, tip: str) -> list[str]:
        """What is missing or damaged among the objects that *tip* reaches, each of which is read and hashed.

        Those that a partial clone has left with its remote are passed over, and not fetched for this.
        """
        reading = ("--objects", "--verify-objects", "--exclude-promisor-objects", "--quiet")
        _, said = _ended(_start(self.toplevel, "rev-list", *reading, tip))
        return list(dict.fromkeys(said.decode(errors="replace").splitlines()))


@dataclass(slots=True)
class _Inside:
    """What was found in repositories inside the work tree, as it is gathered."""

    found: list[tuple[Nested, bytes]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, head: str, patch: bytes, captured: Snapshot | None) -> None:
        self.found.append((Nested(name, head), patch))
        if captured:
            self.found += [
                (Nested(f"{name}/{deeper.path}", deeper.head), captured.patches.get(deeper.patch or "", b""))
                for deeper in captured.nested
            ]
            self.left_out += [replace(item, path=f"{name}/{item.path}") for item in captured.left_out]
            self.notes += [f"{name}/{note}" for note in captured.notes]

    def add_note(self, name: str, note: str) -> None:
        self.found.append((Nested(name, None), b""))
        self.notes.append(f"{name}: {note}")

    @property
    def patches(self) -> dict[str, bytes]:
        return {f"nested/{n}.patch": patch for n, (_, patch) in enumerate(self.found) if patch}

    @property
    def nested(self) -> tuple[Nested, ...]:
        return tuple(
            replace(nested, patch=f"nested/{n}.patch") if patch else nested
            for n, (nested, patch) in enumerate(self.found)
        )


@dataclass(frozen=True, slots=True)
class _Listing:
    """An index: every path, its entry (`mode blob stage`), and the marks that git keeps."""

    entries: dict[bytes, bytes]
    skipped: frozenset[bytes]

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> _Listing:
        entries: dict[bytes, bytes] = {}
        skipped = set()
        for line in lines:
            words, _, path = line.partition(b"\t")
            mark, _, entry = words.partition(b" ")
            entries[path] = entry
            if mark in (b"S", b"s"):
                skipped.add(path)
        return cls(entries, frozenset(skipped))

    def without(self, folder: str) -> _Listing:
        name = folder.encode()
        kept = {path: entry for path, entry in self.entries.items() if path.partition(b"/")[0] != name}
        return _Listing(kept, self.skipped & kept.keys())

    @property
    def paths(self) -> set[bytes]:
        return set(self.entries)

    @property
    def gitlinks(self) -> list[bytes]:
        return [path for path, entry in self.entries.items() if entry.startswith(_GITLINK)]

    def mode(self, path: bytes) -> bytes:
        return self.entries.get(path, b"").partition(b" ")[0]

    def absent(self, root: Path) -> set[bytes]:
        """Files that a sparse checkout leaves out of the work tree."""
        where = os.fsencode(root)
        return {path for path in self.skipped if not os.path.lexists(os.path.join(where, path))}

    def displaced(self, root: Path, known: _Listing) -> set[bytes]:
        """Files in whose place something else stands: a link where their folder was, or a folder.

        `update-index` stops at them, unless it *known* them to be files.
        """
        where = os.fsencode(root)
        parents = {path.rpartition(b"/")[0] for path in self.entries} - {b""}
        folders = {folder for parent in parents for folder in (*_above(parent), parent)}
        links = {folder for folder in folders if os.path.islink(os.path.join(where, folder))}
        beyond = {path for path in self.entries if not links.isdisjoint(_above(path))} if links else set()
        new = self.entries.keys() - known.entries.keys() - set(self.gitlinks)
        return beyond | {path for path in new if _is_folder(os.path.join(where, path))}


def _above(path: bytes) -> Iterator[bytes]:
    """`a` and `a/b` of `a/b/c`."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def _is_folder(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _in_the_way(root: bytes, path: bytes, is_repository: bool) -> Iterator[bytes]:
    """The files that would go if *path* were written: itself, what stands where its folder must be, or what lies below it."""
    for above in _above(path):
        place = os.path.join(root, above)
        if os.path.lexists(place) and not _is_folder(place):
            yield above
            return
    place = os.path.join(root, path)
    if _is_folder(place):
        for folder, folders, names in () if is_repository else os.walk(place):
            if b".git" in (*folders, *names):
                name = os.fsdecode(os.path.relpath(folder, root))
                raise WouldOverwrite(
                    f"nothing was changed: {name} is a git repository in the way", f"mv {name} elsewhere"
                )
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            yield from (os.path.relpath(os.path.join(folder, name), root) for name in (*names, *links))
    elif os.path.lexists(place):
        yield path


def _tree_entries(tree: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names in a tree as git keeps it, each with its entry: `mode name`, a zero byte, and the 20 bytes of an id."""
    at = 0
    while at < len(tree):
        zero = tree.index(b"\0", at)
        yield tree[at:zero].partition(b" ")[2], tree[at : zero + 21]
        at = zero + 21


def _first_parent(line: str) -> str | None:
    """Of a line `commit parent parent…`, a tab, and more."""
    return next(iter(line.partition("\t")[0].split()[1:]), None)


def _joined(paths: Iterable[bytes]) -> bytes:
    return b"".join(path + b"\0" for path in paths)


def _remove_lock(index: Path) -> None:
    """An interrupted update leaves the lock of an index that nobody else uses."""
    index.with_name(index.name + ".lock").unlink(missing_ok=True)


def _repository(where: Path) -> GitStore | None:
    """The repository whose work tree begins at *where*; None when git sees none there, or only the one around it."""
    try:
        found = GitStore.discover(where)
    except (NotARepository, GitFailed):
        return None
    return found if found.toplevel.samefile(where) else None


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    atomic.make_directory(path)
    try:
        yield path
    finally:
        atomic.remove_tree(path)


def _readable(path: bytes) -> bool:
    return os.path.islink(path) or not os.path.exists(path) or (not os.path.isdir(path) and os.access(path, os.R_OK))


def _is_open(status: os.stat_result) -> bool:
    """Whether any process has the file open; True where that cannot be seen."""
    processes = Path("/proc")
    foreign = status.st_uid != os.geteuid() != 0  # somebody else's processes do not show what they have open
    if foreign or not (processes / "self").exists():
        return True
    for fd in processes.glob("[0-9]*/fd/*"):
        try:
            found = os.stat(fd)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            return True
    return False
