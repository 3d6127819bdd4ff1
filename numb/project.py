"""The facade: what numb can do, as methods that a command line or a notebook calls, each in the order that keeps things safe.

`Project.train` is the main story. Nothing here prints or prompts: who calls may pass a `Talk` that does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from numb import alive, atomic, config, inflight, layout, record
from numb.config import Config
from numb.errors import (
    BranchInUse,
    CannotStart,
    CommandNotFound,
    ConfigError,
    GitFailed,
    Interrupted,
    NotInitialised,
    NumbError,
    ObjectCorrupt,
    ObjectMissing,
    Refused,
    RunNotFound,
    StorageFailed,
    StoreTooNew,
    Usage,
    WouldOverwrite,
)
from numb.gitstore import GitStore, Snapshot
from numb.inflight import InFlight, Told
from numb.layout import CONFIG, DEFAULT_BRANCH, RUN_DIR, Layout
from numb.record import TRAIN, TRIAL, LeftOut, Run, RunId
from numb.store.index import Index

if TYPE_CHECKING:
    from numb.doctor import Finding
    from numb.hp import source
    from numb.launch import Outcome
    from numb.queue import Claim, Entry, Queue
    from numb.store.objects import Objects

# Rooms that only some commands need are imported where they are used: `numb list` answers at once.

STORE_FORMAT = 1

T = TypeVar("T")


class Redo(Enum):
    """What to do when the same architecture was trained with the same hyperparameters before."""

    ASK = "ask"
    AGAIN = "again"
    SKIP = "skip"


class Talk(Protocol):
    """How a command speaks while it runs. A notebook needs none of it."""

    def say(self, line: str) -> None:
        """Tell the user something that matters."""

    def again(self, earlier: Run, changed: list[str] | None) -> bool | None:
        """Ask whether to train again; *changed* are the files that differ since. None: nobody is there to answer."""

    def choose(self, rows: Sequence[Row]) -> Run | None:
        """Ask which of these runs to trial. None: nobody is there to answer."""


class Silent:
    """A `Talk` for where nobody listens."""

    def say(self, line: str) -> None:
        pass

    def again(self, earlier: Run, changed: list[str] | None) -> bool | None:
        return None

    def choose(self, rows: Sequence[Row]) -> Run | None:
        return None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a launch ended: with a run that was kept, or with the reason why none was."""

    exit_code: int
    run: Run | None = None
    error: NumbError | None = None
    same: Run | None = None  # the earlier run that made this one unnecessary
    changed: Sequence[str] | None = None  # the files in which the code differs from that one's; None: not known


@dataclass(frozen=True, slots=True)
class Reverted:
    """What `revert` did: the commit that holds what was there before, and the files that it changed."""

    saved: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a listing: a run, its results (its own and those of its newest trial), and its trials."""

    run: Run
    results: Mapping[str, Any]
    trials: tuple[Run, ...] = ()
    orphaned: int | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """What `deinit` would destroy."""

    runs: int  # on the branch, those of other projects among them
    unpublished: int  # still in `.nmb/runs`, which nothing else holds
    bytes: int
    files: tuple[Path, ...]
    tip: str | None
    others: Mapping[
        str, int
    ]  # projects elsewhere in the repository with the same branch, and how many runs each has there
    work_trees: tuple[Path, ...]  # others of this repository in which numb was used


@dataclass
class _Answers:
    """What the launcher knows when the script asks, and what it decided."""

    decide: Callable[[dict[str, Any], InFlight], dict[str, Any]] = lambda question, flight: {}
    stopped: bool = False
    refusal: NumbError | None = None
    same: Run | None = None
    restart: Run | None = None
    trialed: Run | None = None
    pending: list[Run] = field(default_factory=list)
    count: int = 0  # of the runs that were to be trialed


class Project:
    """One project: a folder with an `nmb.json`, in a git repository."""

    def __init__(self, git: GitStore, home: Path, settings: Config, talk: Talk | None = None) -> None:
        self.talk: Talk = talk or Silent()
        self.git, self.home, self.config = git.on(settings.branch, self.talk.say), home, settings
        self.layout = Layout(git.toplevel)

    # -- opening

    @classmethod
    def open(cls, where: str | os.PathLike[str] = ".", talk: Talk | None = None, *, reading: bool = False) -> Project:
        """Open the project that *where* lies in: the nearest `nmb.json`, up to the top of the work tree.

        Raises `ConfigError` for one that cannot be understood; for *reading* what is on the branch the defaults will do, as
        long as numb's branch can be found.
        """
        folder = Path(where).absolute()
        git = GitStore.discover(folder)
        home = _home(folder, git.toplevel)
        if home is None:
            raise NotInitialised(f"there is no {CONFIG} in {folder} or above it", "numb init")
        try:
            project = cls(git, home, config.load(home / CONFIG), talk)
        except ConfigError as error:
            project = cls(git, home, config.salvaged(home / CONFIG, error), talk)
            if not reading or not project._has_branch():
                raise
        _check_store(project.layout)
        if (found := project.damaged_format()) is not None:
            project.talk.say(f"{project.layout.format} is damaged ({found[:20]!r}): numb doctor --fix")
        return project

    @classmethod
    def remains(cls, where: str | os.PathLike[str] = ".", talk: Talk | None = None) -> Project | None:
        """What is left of a project whose `nmb.json` has gone; None when that is nothing.

        Raises `NotInitialised` where it may belong to a project in another folder, or the branch may have another name.
        """
        git = GitStore.discover(Path(where).absolute())
        project = cls(git, git.toplevel, Config(), talk)
        _check_store(project.layout)
        if others := project._other_projects():
            there = git.toplevel / others[0]
            raise NotInitialised(f"there is no {CONFIG} here, but in {there}", f"cd {there}")
        if project._has_branch():
            return project
        if not project.layout.folder.exists():
            return None
        known = Index(project.layout.listing).tip if project.layout.listing.exists() else None
        if named := git.branches_at(known) if known else []:
            raise NotInitialised(
                f"{CONFIG} has gone, and the branch of the runs may be {' or '.join(named)}",
                f"numb init --branch {named[0]}",
            )
        return project

    def _has_branch(self) -> bool:
        return self.git.valid_branch() and self.git.tip().commit is not None and self.git.branch_is_ours()

    @classmethod
    def init(cls, where: str | os.PathLike[str] = ".", branch: str | None = None, talk: Talk | None = None) -> Project:
        """Make what is missing of `nmb.json`, `.nmb/` and the branch. What is there stays as it is.

        Raises `BranchInUse`, having created nothing, when the branch's name is taken.
        """
        folder = Path(where).absolute()
        git = GitStore.discover(folder)
        home = _home(folder, git.toplevel) or folder
        known = config.load(home / CONFIG) if (home / CONFIG).exists() else None
        if known and branch and branch != known.branch:
            raise Usage(f"{home / CONFIG} names the branch {known.branch}", f'edit "branch" in {home / CONFIG}')
        settings = known or replace(Config(), branch=branch or DEFAULT_BRANCH)
        project = cls(git, home, settings, talk)
        project._check_branch()
        _check_store(project.layout)
        project.make_store()
        project.git.found(time.time())
        if known is None:
            atomic.write(home / CONFIG, config.template(branch=settings.branch))
            return cls(git, home, config.load(home / CONFIG), talk)
        return project

    def _check_branch(self) -> None:
        branch = self.git.branch
        if not self.git.valid_branch():
            raise Usage(f"{branch!r} is not a name for a branch", "numb init --branch lab")
        if blocking := self.git.blocking_branches():
            raise BranchInUse(f"branch {blocking[0]} makes a branch {branch} impossible", "numb init --branch lab")
        if self.git.tip().commit and not self.git.branch_is_ours():
            raise BranchInUse(f"there is a branch {branch} that numb did not make", "numb init --branch lab")

    def make_store(self) -> None:
        """Make `.nmb/` with the files that hide it and say its format, unless they are there."""
        _make_store(self.layout)
        if self.git.is_linked and not self.layout.objects.is_dir():
            with contextlib.suppress(NumbError):  # then they stay in this work tree, and doctor says so
                atomic.link(self.layout.objects, self._shared_objects())

    def _shared_objects(self) -> Path:
        """The folder that keeps the objects of all work trees, made if need be; `git worktree remove` does not reach it."""
        main = self.git.main_work_tree()
        if main is None:
            shared = layout.objects_in_git(self.git.common_dir)
        else:
            store = Layout(main)
            _check_store(store)
            _make_store(store)
            shared = store.objects
        atomic.make_directory(shared)
        if not os.access(shared, os.W_OK | os.X_OK):
            raise StorageFailed(f"cannot write to {shared}", f"ls -ld {shared} shows who may write there")
        return shared

    def damaged_format(self) -> str | None:
        """What the file says that should say the format of `.nmb/`, when that is not a number."""
        found = _format_of(self.layout)
        return None if found is None or _is_number(found) else found

    def write_format(self) -> None:
        atomic.write(self.layout.format, f"{STORE_FORMAT}\n")

    def objects_at_risk(self) -> int:
        """How many objects `git worktree remove` would delete with this work tree."""
        at_risk = self.git.is_linked and not self.layout.objects.is_symlink()
        return sum(1 for _ in self.objects) if at_risk else 0

    def share_objects(self) -> None:
        """Move the objects of a linked work tree to those of all. Raises `BranchInUse` while a run may write to them."""
        from numb.store.objects import Objects

        if any(left.running for left in inflight.all_left(self.layout)):
            raise BranchInUse("a run is in flight here", "numb list")
        shared = self._shared_objects()
        with self._scratch("link") as place:
            atomic.link(place, shared)  # where there can be no links, the objects would be out of sight
        Objects(shared).take(self.objects)
        atomic.link(self.layout.objects, shared)

    @cached_property
    def objects(self) -> Objects:
        from numb.store.objects import Objects

        return Objects(self.layout.objects)

    @property
    def place(self) -> str:
        """The project's folder within the work tree, as records name it."""
        return self.home.relative_to(self.git.toplevel).as_posix()

    @cached_property
    def index(self) -> Index:
        """The listing, caught up with the branch."""
        with contextlib.suppress(NumbError, OSError):
            self.make_store()  # so that what is made here is hidden from git
        index = Index(self.layout.listing, self._catch_up)
        self._catch_up(index)
        return index

    def _catch_up(self, index: Index) -> None:
        tip = self.git.tip().commit
        known = index.tip
        if tip and (unread := index.unread()) and self.git.any_readable(unread):
            index.extend(self.git.entries(tip), tip, again=True)  # what was missing or damaged has come back
            return
        if tip is None or tip == known:
            return
        if known and self.git.is_ancestor(known, tip) is False:
            index.clear()
            known = None
        index.extend(self.git.entries(tip, known), tip)

    def from_branch(self) -> Index:
        """The listing as the branch has it now, whatever the kept one says."""
        index = Index(None, self._catch_up)
        self._catch_up(index)
        return index

    def read_again(self) -> None:
        """Bring the kept listing to what the branch says; what it knows beyond a hole in the branch stays."""
        if tip := self.git.tip().commit:
            self.index.extend(self.git.entries(tip), tip, again=True)

    def refresh(self) -> None:
        """Look at the branch again: something was added since."""
        if "index" in self.__dict__:
            self._catch_up(self.index)

    # -- training

    def train(
        self,
        arguments: Sequence[str] = (),
        *,
        message: str = "",
        redo: Redo = Redo.ASK,
        inject: Mapping[str, Any] | None = None,
        queue: str | None = None,
        strict: bool = False,
    ) -> Ended:
        """Run the user's train command as one run, and keep it whatever happens to it.

        *inject* replaces hyperparameters where `numb_queue` stands. Raises before anything starts; once the script runs,
        nothing that goes wrong in numb ends it.
        """
        answers = _Answers()
        answers.decide = lambda question, flight: self._on_training(question, flight, redo, answers)
        run = self._new(TRAIN, arguments, message=message, queue=queue)
        ended = self._fly(run, arguments, answers, inject=inject or {}, strict=strict)
        if ended.same and not ended.error:
            changed = self.changed_since(ended.same)
            if changed and queue:  # what lists the runs is no code of theirs
                changed = [path for path in changed if path != queue]
            ended = replace(ended, changed=changed)
        return ended

    def _new(self, kind: str, arguments: Sequence[str], **facts: Any) -> Run:
        command = (*self.config.command(kind), *arguments)
        now = time.time()
        shown = tuple(inflight.redacted(command))
        return Run(
            RunId.new(now), kind, round(now, 3), command=shown, project=self.place, host=inflight.host(), **facts
        )

    def _fly(
        self,
        run: Run,
        arguments: Sequence[str],
        answers: _Answers,
        *,
        inject: Mapping[str, Any],
        strict: bool = False,
    ) -> Ended:
        """From the folder of a run to its commit."""
        from numb import launch

        command = (*self.config.command(run.kind), *arguments)
        launch.check(command, self.home, os.environ)
        strict = (
            strict or run.kind == TRIAL or bool(inject)
        )  # without its values or weights a script would do something else
        self.recover()
        order = {
            "inject": {name: record.encode(value, name) for name, value in inject.items()},
            "launched": inflight.launched(self.home, self.config.environment),
        }
        try:
            self.make_store()
            run, flight = self._begin(run, order)
        except (StorageFailed, OSError) as error:
            return self._unrecorded(command, error, strict)
        try:
            run, snapshot = self._captured(run, flight)
            doorbell = flight.open_doorbell()
        except (NumbError, OSError) as error:
            flight.discard()
            return self._unrecorded(command, error, strict)
        secured = _Background(lambda pid: self._secure(run, flight, snapshot, pid))
        killed = inflight.kills_for_memory()
        with launch.uninterruptible():
            try:
                outcome = launch.run(
                    command,
                    cwd=self.home,
                    env={**os.environ, RUN_DIR: str(flight.folder.path)},
                    log=flight.folder.log,
                    log_limit=int(self.config.log_max_mb * 1e6),
                    started=secured.start,
                    doorbell=doorbell,
                    ring=lambda: self._ring(flight, answers),
                )
            except (CannotStart, CommandNotFound):
                flight.discard()  # nothing ran
                raise
            run = secured.join() or run
            if secured.error:
                run = replace(run, notes=(*run.notes, f"the snapshot could not be pinned: {secured.error}"))
            return self._finish(run, flight, answers, outcome, inflight.kills_for_memory() > killed)

    def _begin(self, run: Run, order: Mapping[str, Any]) -> tuple[Run, InFlight]:
        while True:
            try:
                return run, InFlight.begin(self.layout, run, order)
            except FileExistsError:  # the same second and the same four letters
                run = replace(run, id=RunId.new(time.time()))

    def _captured(self, run: Run, flight: InFlight) -> tuple[Run, Snapshot]:
        """Take the snapshot: all that must be done before the script may start."""
        snapshot = self._capture(flight.folder.index)
        self._tell_left_out(snapshot)
        return self._described(run, flight, snapshot), snapshot

    def _described(self, run: Run, flight: InFlight, snapshot: Snapshot) -> Run:
        """Put what the snapshot cannot hold into the record."""
        for name, patch in snapshot.patches.items():
            path = flight.folder.content / name
            path.parent.mkdir(exist_ok=True)
            atomic.write(path, patch)
        return replace(run, left_out=snapshot.left_out, nested=snapshot.nested, notes=snapshot.notes)

    def _tell_left_out(self, snapshot: Snapshot) -> None:
        """Say once for each file that it is not in the snapshots."""
        known = _read_json(self.layout.hashes)
        for item in snapshot.left_out:
            if item.path not in known:
                self.talk.say(f"{item.path} ({_megabytes(item.size)}) stays out of the snapshot: {item.why}")
        for note in snapshot.notes:
            self.talk.say(note)

    def _secure(self, run: Run, flight: InFlight, snapshot: Snapshot, pid: int) -> Run:
        """While the script runs: write and pin the snapshot, keep the index for the next run, hash what stays out."""
        script = alive.identity(pid)
        flight.write_state(run, script=script)
        head = self.git.head()
        run = replace(run, base=head.commit, branch=head.branch)
        flight.write_state(run, script=script)
        try:
            tree = self.git.write_tree(snapshot.index)
        except GitFailed:  # too late by some milliseconds, which beats having no snapshot
            snapshot = self._capture_anew(snapshot.index)
            run = self._described(run, flight, snapshot)
            tree = self.git.write_tree(snapshot.index)
        self.git.pin(run.id, tree, run.base, run.started)
        run = replace(run, left_out=self._hashed(run.left_out))
        flight.write_state(run, script=script)
        return run

    def _hashed(self, left_out: Sequence[LeftOut]) -> tuple[LeftOut, ...]:
        """Hash large files that stay out, once for each state; a secret's hash could be guessed back, so it has none."""
        if not left_out:
            return ()
        known = _read_json(self.layout.hashes)
        now: dict[str, Any] = {}
        hashed = []
        for item in left_out:
            path = self.git.toplevel / item.path
            digest = None
            with contextlib.suppress(OSError):
                status = path.lstat()
                stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
                before = known.get(item.path) or {}
                if not item.why.endswith("secret"):
                    digest = before.get("sha256") if before.get("stamp") == stamp else _sha256(path)
                now[item.path] = {"stamp": stamp, "sha256": digest}
            hashed.append(replace(item, sha256=digest))
        if now != known:
            atomic.write(self.layout.hashes, record.dumps(now))
        return tuple(hashed)

    def _ring(self, flight: InFlight, answers: _Answers) -> None:
        for question in flight.questions():
            try:
                said = answers.decide(question, flight)
            except KeyboardInterrupt:
                said = {}
                if question["ask"] == "trial" or (question["ask"] == "train" and not question["started"]):
                    done = "trialed" if question["ask"] == "trial" else "trained"
                    answers.refusal = Interrupted(f"interrupted at the question; nothing was {done}")
                    said = {"stop": True}
            except Exception as error:  # whatever it is, the script waits for an answer
                if question["ask"] == "trial":  # without weights there would be nothing to evaluate
                    answers.refusal = error if isinstance(error, NumbError) else Refused(f"numb failed: {error!r}")
                    said = {"stop": True}
                else:
                    what = error if isinstance(error, NumbError) else f"numb failed: {error!r}"
                    self.talk.say(f"{what}; the training goes on")
                    said = {}
            answers.stopped |= bool(said.get("stop"))
            flight.answer({**said, "number": question.get("number")})

    def _on_training(self, question: dict[str, Any], flight: InFlight, redo: Redo, answers: _Answers) -> dict[str, Any]:
        """Answer a training script: does anything speak against it, and is its graph known?"""
        if question["ask"] == "graph":
            return self._graph_wanted(flight)
        same = self.index.same(question["architecture"], question["params_key"], self.place)
        if same is None or redo is Redo.AGAIN:
            return {}
        if question["started"]:
            so = "this run is kept as well" if question["ended"] else "the training has begun, so it goes on"
            self.talk.say(f"{same.id} had this architecture and these hyperparameters; {so}")
            return {}
        answers.same = same
        if redo is Redo.SKIP:
            return {"stop": True}
        wanted = self.talk.again(same, self.changed_since(same))
        if wanted is None:
            answers.refusal = Refused(
                f"{same.id} was trained with this architecture and these hyperparameters; nothing was trained",
                "numb train --again to train it again, or --skip-done to let it be",
            )
        elif not wanted:
            answers.refusal = Refused("nothing was trained")
        return {} if wanted else {"stop": True}

    def _graph_wanted(self, flight: InFlight) -> dict[str, Any]:
        architecture = flight.told().architecture
        return {"graph": architecture is not None and self.index.with_graph(architecture) is None}

    def changed_since(self, run: Run) -> list[str] | None:
        """The files in which the work tree differs from a run's snapshot; None when that cannot be found out."""
        if run.commit is None:
            return None
        try:
            with self._scratch("changed") as index:
                _, tree = self._snapshot(index)
                return _named(self.git.changed(run.commit, tree))
        except NumbError:
            return None

    def _snapshot(self, index: Path) -> tuple[Snapshot, str]:
        """The work tree as it is, in an index, and its tree."""
        snapshot = self._capture(index)
        try:
            return snapshot, self.git.write_tree(index)
        except GitFailed:
            return self._capture_anew(index), self.git.write_tree(index)

    def _capture_anew(self, index: Path) -> Snapshot:
        """Take the snapshot without the index of the last one.

        That may name what `git gc` has deleted since, or be damaged where git does not look: git trusts it for every file that
        has not changed, and only who makes a tree of it finds out.
        """
        self._forget_index()
        atomic.remove_tree(index)
        return self._capture(index)

    def _forget_index(self) -> None:
        with contextlib.suppress(StorageFailed):
            atomic.remove_tree(self.layout.index)

    def _capture(self, index: Path, *, of: GitStore | None = None) -> Snapshot:
        """The state of the project's work tree in *index*; or that of a repository inside it."""
        return (of or self.git).capture(
            index,
            index if of else self.layout.index,
            max_bytes=int(self.config.max_file_mb * 1e6),
            exclude=self.config.exclude,
        )

    @contextlib.contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        """A place for an index of one command."""
        folder = self.layout.scratch / f"{name}-{os.urandom(4).hex()}"
        atomic.make_directory(folder)
        try:
            yield folder / "index"
        finally:
            atomic.remove_tree(folder)

    def _unrecorded(self, command: Sequence[str], error: Exception, strict: bool) -> Ended:
        """Nothing can be kept, but the training is the user's: it runs all the same, unless they said otherwise."""
        from numb import launch

        if strict:
            raise error if isinstance(error, NumbError) else StorageFailed(str(error), "numb doctor")
        self.talk.say(f"{error}; the script runs, and nothing of it is recorded")
        outcome = launch.run(command, cwd=self.home, env=os.environ, log=Path(os.devnull))
        return Ended(outcome.exit_code)

    # -- the end of a run

    def _finish(self, run: Run, flight: InFlight, answers: _Answers, outcome: Outcome, oom: bool) -> Ended:
        """Turn the folder of a run whose script has ended into a commit, or drop it when it never was a run."""
        told = flight.told()
        refusal = answers.refusal or _refusal(told, outcome)
        if refusal or answers.stopped:
            with contextlib.suppress(NumbError):  # what is left behind, doctor removes
                self.git.unpin(run.id)
                flight.discard()
            return Ended(0 if refusal is None else refusal.exit_code, error=refusal, same=answers.same)
        if run.kind == TRIAL and answers.trialed is None:
            with contextlib.suppress(NumbError):
                self.git.unpin(run.id)
                flight.discard()
            error = Refused(
                "the trial script ended before it built a network that numb knows; nothing was recorded", "numb_model"
            )
            return Ended(outcome.exit_code or error.exit_code, error=error)
        if answers.trialed:
            run = replace(run, of=answers.trialed.id)
        with contextlib.suppress(NumbError):
            atomic.make_directory(
                flight.folder.content
            )  # the script may have removed .nmb: what is known is still kept
        run = inflight.conclude(run, told, outcome, flight.folder)
        if not told.started and (hiding := self._hiding()):
            run = replace(run, notes=(*run.notes, f"{hiding} hides numb from the script: give it another name"))
        if oom and run.status == record.KILLED:
            run = replace(run, reason=f"{run.reason}, out of memory")
        try:
            flight.write_end(run)
            return Ended(outcome.exit_code, self._publish(run, told, flight))
        except (NumbError, OSError) as error:
            flight.close()
            hint = getattr(error, "hint", None) or "numb doctor --fix"
            kept = StorageFailed(f"{error} ({run.id} is kept in {flight.folder.path})", hint)
            return Ended(outcome.exit_code or Refused.exit_code, run, kept)

    def _hiding(self) -> Path | None:
        """A file of the user's that the script imports when it means numb."""
        own = Path(__file__).parent
        candidates = (self.home / "numb.py", self.home / "numb" / "__init__.py")
        return next((path for path in candidates if path.exists() and path.parent.resolve() != own), None)

    def _publish(self, run: Run, told: Told, flight: InFlight) -> Run:
        """E1 to E4 of the order of writes: the record whole on the disk, the commit, the pin, the folder."""
        folder = flight.folder
        if not (folder.index.exists()):
            self.git.load_pin(run.id, folder.index)
        atomic.write(
            folder.environment, record.dumps(inflight.environment(told, run.command, flight.launched()), indent=1)
        )
        if told.operators:
            architecture = {"format": record.FORMAT, "operators": {k: list(v) for k, v in told.operators.items()}}
            atomic.write(folder.content / "architecture.json", record.dumps(architecture, indent=1))
        reused = self._reused_graphs(run)
        run = replace(run, graph=run.graph or next(iter(sorted(reused)), None))
        if told.exception:
            atomic.write(folder.content / "traceback.txt", told.exception.encode(errors="backslashreplace"))
        atomic.write(folder.record, record.dumps(run.to_json(), indent=1) + "\n")
        # Kept for its stat cache, and only of runs that the branch will hold: what nothing points to, `git gc` prunes.
        atomic.copy_cache(folder.index, self.layout.index)
        commit = self._append(run, folder.index, folder.content, reused)
        self.git.unpin(run.id)
        flight.discard()
        return replace(run, commit=commit)

    def _append(self, run: Run, index: Path, content: Path, reused: Mapping[str, str] | None = None) -> str:
        tree = self._tree(run, index, content, reused)
        message = f"{record.subject(run)}\n\n" + (f"{run.message}\n\n" if run.message else "") + _trailers(run)
        lock = atomic.Lock(self.layout.publishing)
        lock.try_acquire(2.0)  # not for safety, the refs are swapped: so that writers do not race for nothing
        try:
            return self.git.append(tree, message, time.time(), run.base, lambda: self.index.tip)
        finally:
            lock.release()

    def _tree(self, run: Run, index: Path, content: Path, reused: Mapping[str, str] | None) -> str:
        """The tree of a run's commit, of its pinned snapshot where the index is damaged."""
        try:
            return self.git.write_record(index, content, reused)
        except GitFailed:
            if not self.git.pins().get(run.id):
                raise
            self._forget_index()
            self.git.load_pin(run.id, index)
            return self.git.write_record(index, content, reused)

    def _reused_graphs(self, run: Run) -> dict[str, str]:
        """The graph of an architecture that was exported before, as blobs that are in the repository already."""
        if run.kind != TRAIN or run.graph or not run.architecture:
            return {}
        commit = self.index.with_graph(run.architecture)
        earlier = self.index.by_commit(commit) if commit else None
        if commit is None or earlier is None or earlier.graph is None:
            return {}
        names = {earlier.graph, *(f"graph-{name}.onnx" for name in earlier.models if len(earlier.models) > 1)}
        return {name: blob for name in sorted(names) if (blob := self.git.blob(commit, name))}

    def recover(self) -> list[Run]:
        """Publish runs whose launcher has died, and whose script has ended. A few system calls when there are none."""
        recovered: list[Run] = []
        lefts = [left for left in inflight.all_left(self.layout) if not left.running]
        if not lefts:
            return recovered
        lock = atomic.Lock(self.layout.recovering)
        try:
            if not lock.try_acquire():
                return recovered
        except NumbError:
            return recovered  # read-only: reading goes on
        try:
            for left in lefts:
                recovered += self._recover(left)
        finally:
            lock.release()
        return recovered

    def _recover(self, left: inflight.Left) -> list[Run]:
        try:
            return self._recover_adopted(left) if left.flight.adopt() else []
        except NumbError as error:
            left.flight.close()
            self.talk.say(f"{left.flight.folder.path.name} could not be put on branch {self.git.branch} yet: {error}")
            return []

    def _recover_adopted(self, left: inflight.Left) -> list[Run]:
        flight, run = left.flight, left.run
        if run is None or not flight.folder.path.exists():
            flight.close()  # damaged, which doctor tells; or published meanwhile by somebody else
            return []
        self.refresh()
        if self.index.get(run.id) is not None:
            self.git.unpin(run.id)
            flight.discard()  # its launcher died after it had put the run on the branch
            return []
        told = flight.told()
        if run.in_flight and (told.refused or not (told.started or left.state.get("script"))):
            self.git.unpin(run.id)
            flight.discard()  # the script never began its work
            return []
        had_ended = not run.in_flight
        if run.in_flight:
            run = inflight.conclude(run, told, None, flight.folder)
        published = self._publish(run, told, flight)
        if had_ended:
            why = "it had ended, but could not be put there before"
            self.talk.say(f"put {run.id} ({published.status}) on branch {self.git.branch}: {why}")
        else:
            self.talk.say(f"recovered {run.id} ({published.status}): its launcher had died")
        self.refresh()
        return [published]

    # -- trials

    def trial(self, run: Run, arguments: Sequence[str] = (), *, message: str = "") -> Ended:
        """Evaluate the weights of *run* with the user's trial command."""
        if not run.weights:
            raise Refused(f"{run.id} has no weights to trial ({run.status})", "numb list")
        return self._trial(run, arguments, message)

    def trial_chosen(self, arguments: Sequence[str] = (), *, message: str = "") -> Ended:
        """Find the architecture that the trial script builds, ask which of its runs to evaluate, and evaluate that."""
        ended, answers = self._probe(arguments, message, everything=False)
        return self._trial(answers.restart, arguments, message) if answers.restart else ended

    def trial_all(self, arguments: Sequence[str] = (), *, message: str = "") -> Iterator[tuple[Run | None, Ended]]:
        """Evaluate every untrialed run of the architecture that the trial script builds, one after another.

        Which one comes is said before it begins. Yields nothing when all of them have been trialed.
        """
        ended, answers = self._probe(arguments, message, everything=True)
        if answers.trialed or ended.error:
            yield answers.trialed, ended
        for number, run in enumerate(answers.pending, 2 if answers.trialed else 1):
            if ended.run is not None and ended.run.status == record.INTERRUPTED:
                return
            self.talk.say(f"[{number}/{answers.count}] trial of {run.id}")
            ended = self._trial(run, arguments, message)
            yield run, ended

    def _probe(self, arguments: Sequence[str], message: str, *, everything: bool) -> tuple[Ended, _Answers]:
        """Start the trial script without a run; it tells its architecture.

        When it takes no hyperparameters from numb it goes on with the chosen run at once; otherwise it is started again,
        for the hyperparameters of the run stand above the network.
        """
        answers = _Answers()

        def decide(question: dict[str, Any], flight: InFlight) -> dict[str, Any]:
            if answers.trialed is None:
                candidates = self._candidates(question, flight.told())
                if everything:
                    waiting = self._untrialed(candidates)
                    answers.pending, answers.count = waiting, len(waiting)
                    if not waiting:
                        self._tell_all_trialed(question, len(candidates))
                        return {"stop": True}
                chosen = answers.pending[0] if everything else self._chosen(candidates)
                if question["queued"] and chosen.params:
                    answers.restart = chosen
                    return {"stop": True}
                if everything:
                    self.talk.say(f"[1/{answers.count}] trial of {chosen.id}")
                answers.pending = answers.pending[1:]
                answers.trialed = chosen
            return self._weights_for(question, answers.trialed, flight)

        answers.decide = decide
        ended = self._fly(self._new(TRIAL, arguments, message=message), arguments, answers, inject={})
        return ended, answers

    def _trial(self, run: Run, arguments: Sequence[str], message: str) -> Ended:
        answers = _Answers(trialed=run)
        answers.decide = lambda question, flight: self._weights_for(question, run, flight)
        return self._fly(self._new(TRIAL, arguments, message=message), arguments, answers, inject=run.params)

    def _candidates(self, question: dict[str, Any], told: Told) -> list[Run]:
        """The runs that the network in question could be filled with."""
        architecture = question["architecture"]
        trained = [run for run in self.index.runs(project=self.place) if _fits(run, question) and run.weights]
        if not trained:
            network = f"{told.models[question['name']].type}·{record.short_architecture(architecture)}"
            raise Refused(f"no run of {network} ({architecture}) was trained", self._nearest(question["operators"]))
        return trained

    def _untrialed(self, runs: Sequence[Run]) -> list[Run]:
        done = self.index.trials(run.id for run in runs)
        return [run for run in runs if not any(trial.results for trial in done.get(run.id, ()))]

    def _tell_all_trialed(self, question: Mapping[str, Any], count: int) -> None:
        """Say that there is nothing to do for this architecture, and where there still is."""
        self.talk.say(f"every run of this architecture has been trialed ({count}); numb trial ID to trial one again")
        waiting = [run for run in self.index.runs(untrialed=True, project=self.place) if run.weights]
        others = [run for run in waiting if _fits(run, question) is None]
        if others:
            networks = ", ".join(dict.fromkeys(run.network for run in others))
            self.talk.say(f"untrialed runs of other networks: {len(others)} ({networks}); numb list --untrialed")

    def _nearest(self, operators: Sequence[str]) -> str:
        """Which known architectures are most like this one, and where they differ."""
        wanted = list(operators)
        known: list[tuple[int, str]] = []
        for run in self.index.architectures(self.place):
            text = self.git.read(run.commit, "architecture.json") if run.commit else None
            for have in _parsed(text)["operators"].values() if text else ():
                missing, extra = _without(have, wanted), _without(wanted, have)
                difference = ", ".join([f"-{item}" for item in missing[:3]] + [f"+{item}" for item in extra[:3]])
                known.append((len(missing) + len(extra), f"{run.network} ({difference or 'other wiring'})"))
        if not known:
            return "numb train"
        return "numb train; nearest: " + "; ".join(text for _, text in sorted(known)[:3])

    def _chosen(self, candidates: Sequence[Run]) -> Run:
        trials = self.index.trials(run.id for run in candidates)
        chosen = self.talk.choose([_row(run, trials) for run in candidates])
        if chosen is None:
            raise Refused("which run shall be trialed?", f"numb trial {candidates[-1].id}, or numb trial --all")
        return chosen

    def _weights_for(self, question: dict[str, Any], run: Run, flight: InFlight) -> dict[str, Any]:
        """Lay out the weights of *run* for one model of the script; the hooks check every byte before they load them."""
        if question["ask"] != "trial":
            return {}
        name = _fits(run, question)
        if name is None:
            have = ", ".join(f"{k} {record.short_architecture(m.architecture)}" for k, m in run.models.items())
            raise Refused(
                f"{run.id} has {have or 'no network'}, but the script builds {question['name']} "
                f"{record.short_architecture(question['architecture'])}; nothing was evaluated",
                f"numb revert {run.id}",
            )
        if name not in run.weights or run.commit is None:
            raise Refused(f"{run.id} has no weights of {name}", "numb list")
        text = self.git.read(run.commit, run.weights[name].manifest)
        if text is None:
            raise ObjectMissing(f"the manifest of {run.id}'s weights is not in its commit {run.commit}", "numb doctor")
        flight.folder.chosen.mkdir(exist_ok=True)
        atomic.write(flight.folder.chosen / f"{name}.json", text)
        return {"weights": name, "run": run.id}

    # -- queues

    def queue(self, file: Path) -> Queue:
        from numb.queue import Queue

        return Queue.at(Path(file), self.layout.queues)

    def hyperparameters(self) -> dict[str, Any]:
        """The script's hyperparameters and their values: those in its source, else those of the last run."""
        script = self._script()
        found = {item.name: item.value for item in script.found} if script else {}
        newest = self.index.runs(limit=1, project=self.place)
        last = newest[0].params if newest else {}
        known = {name: value for name, value in found.items() if _is_literal(value)}
        known |= {name: last[name] for name in found if name in last and name not in known}
        return known or dict(last)

    def _script(self) -> source.Script | None:
        from numb.hp import source

        path = source.script_of(self.config.command(TRAIN), self.home)
        return source.read(path) if path else None

    def _named_here(self, file: Path) -> str:
        """A file as records name it: from the top of the work tree where it lies in that, for a clone lies elsewhere."""
        path = os.path.relpath(file, self.git.toplevel)
        return str(file) if path.startswith(f"..{os.sep}") else path

    def make_queue(self, file: Path, *, force: bool = False) -> dict[str, Any]:
        """Write a queue file with the script's own hyperparameters as its one combination."""
        from numb.queue import write_template

        params = self.hyperparameters()
        if not params:
            raise Refused(
                "the script has no hyperparameters that numb can see", "assign them above numb_queue() in the script"
            )
        write_template(Path(file), params, force=force)
        return params

    def run_queue(
        self,
        file: Path,
        arguments: Sequence[str] = (),
        *,
        message: str = "",
        redo: Redo = Redo.SKIP,
        failed: bool = False,
        fail_fast: bool = False,
    ) -> Iterator[tuple[Entry, Ended]]:
        """Train with each combination of a queue file that is not done: one run after another, until none is left.

        An entry that was cut off is run again; one that failed only with *failed*; one whose like was trained before, and not
        by this queue, only with `Redo.AGAIN`. Which one comes is said before it begins. Raises `ConfigError` before the first
        run for a key that the script does not have, and for values that the script would overwrite.
        """
        from numb.queue import CUT_OFF, FAILED, QUEUED

        queue = self.queue(file)
        wanted = {QUEUED, CUT_OFF, *({FAILED} if failed else ())}
        self.recover()
        if repeated := [str(entry.number) for entry in queue.repeated()]:
            which = f"entry {repeated[0]} repeats" if len(repeated) == 1 else f"entries {_some(repeated)} repeat"
            self.talk.say(f"{file}: {which} an earlier one; equal combinations are trained once")
        tried: set[str] = set()
        while claim := queue.claim(wanted, tried, skipped=redo is Redo.AGAIN):
            try:
                self._check_queue(queue)
                tried.add(claim.entry.key)
                self.refresh()  # this entry may say in other words what the last one, or another worker's, has trained
                values = " ".join(f"{name}={record.brief(value)}" for name, value in claim.entry.params.items())
                self.talk.say(f"[{claim.entry.number}/{len(queue.entries())}] {values}".rstrip())
                claim.begin()
                ended = self.train(
                    arguments, message=message, inject=claim.entry.params, redo=redo, queue=self._named_here(queue.file)
                )
                self._settle(claim, ended)
            finally:
                claim.close()
            if ended.error and ended.run is None:
                raise ended.error
            yield claim.entry, ended
            if _cut_off(ended) or (fail_fast and ended.exit_code):
                return

    def _settle(self, claim: Claim, ended: Ended) -> None:
        from numb.queue import CUT_OFF, DONE, FAILED

        kept = ended.run or ended.same
        if _cut_off(ended) or (ended.error and ended.run is None):
            claim.settle(CUT_OFF, kept.id if kept else None, ended.exit_code)
        else:
            status = FAILED if ended.exit_code else DONE
            claim.settle(
                status, kept.id if kept else None, ended.exit_code, skipped=ended.run is None and kept is not None
            )

    def _check_queue(self, queue: Queue) -> None:
        from numb.hp import source

        script = self._script()
        if script is None or script.queue_line is None:
            return  # not Python that numb can find, or numb_queue stands in another module: the hooks will tell
        known = {item.name for item in script.found} | {item.name for item in script.late} | set(self.hyperparameters())
        if known:
            queue.check(known, source.nearest)
        named = {name for entry in queue.entries() for name in entry.params}
        for item in script.late:
            if item.name in named:
                raise ConfigError(
                    f"{os.path.basename(item.file)}:{item.line}: {item.name} is assigned below numb_queue() "
                    f"(line {script.queue_line}), which would overwrite the queue's value",
                    f"put numb_queue() below line {item.line}",
                )

    # -- looking

    def find(self, text: str) -> Run:
        """The run that an id, a unique beginning of one, its last four letters, `@`, `@-1` or a tag names.

        A trial, or what a revert has kept, is meant only where no run is. Raises `RunNotFound` with the candidates.
        """
        self.recover()
        if not text.isprintable() or len(text) > 200 or not text:
            raise RunNotFound("not the id of a run", "numb list")
        if text[0] == "@":
            back = text[1:] or "-0"
            if not (back[0] == "-" and back[1:].isdecimal() and len(back) < 9):
                raise RunNotFound(f"{text}: say @ for the newest run, @-1 for the one before", "numb list")
            newest = self.index.newest(int(back[1:]))
            if newest is None:
                raise RunNotFound(f"{text}: there are {self.index.count()} runs", "numb list")
            return self._get(newest)
        named = [self._get(name) for name in self.index.matching(text, limit=-1)]
        runs = [run for run in named if run.id == text or run.kind == TRAIN]
        if len(runs or named) == 1:
            return (runs or named)[0]
        if named:
            which = _some([run.id for run in runs or named])
            raise RunNotFound(
                f"{text} is the beginning of several {'runs' if runs else 'entries'}: {which}", "add a letter"
            )
        for row in self._in_flight():
            if row.run.id.startswith(text):
                return row.run
        tagged = self.git.resolve_tag(text) if not text.startswith("-") else None
        run = self.index.by_commit(tagged) if tagged else None
        if run is None:
            raise RunNotFound(f"there is no run {text}", "numb list")
        return run

    def _get(self, run_id: str) -> Run:
        run = self.index.get(run_id)
        if run is None:
            raise RunNotFound(f"there is no run {run_id}", "numb list")
        return run

    def runs(
        self,
        *,
        limit: int | None = None,
        statuses: Sequence[str] = (),
        untrialed: bool = False,
        architecture: str | None = None,
    ) -> list[Row]:
        """The train runs, oldest first, with those in flight; *limit* keeps the newest."""
        self.recover()
        found = self.index.runs(limit=limit, statuses=statuses, untrialed=untrialed, architecture=architecture)
        trials = self.index.trials(run.id for run in found)
        rows = [_row(run, trials) for run in found]
        known = {row.run.id for row in rows}
        flying = [row for row in self._in_flight() if row.run.id not in known and row.run.kind == TRAIN]
        if statuses:
            flying = [row for row in flying if row.run.status in statuses]
        if architecture:
            flying = [row for row in flying if row.run.architecture == architecture]
        rows = [*rows, *flying]
        return rows if limit is None else rows[max(0, len(rows) - limit) :]

    def _in_flight(self) -> list[Row]:
        rows = []
        for left in inflight.all_left(self.layout):
            if left.run is None:
                continue
            told = left.flight.told()
            run = replace(left.run, models=told.models, params=told.params, results=told.results)
            if not left.running and run.status == record.RUNNING:
                run = replace(run, status=record.LOST)
            rows.append(Row(run, told.results, orphaned=left.orphaned))
        return rows

    def row(self, run: Run) -> Row:
        """A run with its trials."""
        return _row(run, self.index.trials([run.id]))

    def log(self, run: Run) -> bytes:
        """What the script printed, byte for byte."""
        if run.commit is None:
            with contextlib.suppress(OSError):
                return self.layout.run(run.id).log.read_bytes()
            return b""
        return self.git.read(run.commit, "output.log") or b""

    def patch(self, run: Run, *, color: bool = False) -> bytes:
        """What the code of the run had changed against the user's HEAD of that time."""
        if run.commit is None:
            raise RunNotFound(f"{run.id} is still running", "numb list")
        return self.git.patch(run.base or self.git.empty_tree(), run.commit, color=color)

    def environment(self, run: Run) -> dict[str, Any]:
        text = self.git.read(run.commit, "environment.json") if run.commit else None
        return _parsed(text) if text else {}

    def traceback(self, run: Run) -> str:
        text = self.git.read(run.commit, "traceback.txt") if run.commit else None
        return (text or b"").decode(errors="replace")

    def missing_weights(self, run: Run) -> list[str]:
        """Objects that the run's weights need and that are not here."""
        return self.missing_objects([run]).get(run.id, [])

    def missing_objects(self, runs: Sequence[Run]) -> dict[str, list[str]]:
        """By run, what its weights need and what is not here: objects, and manifests that git cannot read."""
        missing: dict[str, list[str]] = {}
        for run, manifest, sizes in self._needed(runs):
            absent = [manifest] if sizes is None else [d for d, size in sizes.items() if not self.objects.has(d, size)]
            if absent:
                missing.setdefault(run.id, []).extend(absent)
        return missing

    def runs_with(self, digest: str) -> list[RunId]:
        """The runs whose weights need an object, oldest first."""
        runs = [row.run for row in self.runs()]
        return [run.id for run, _, sizes in self._needed(runs) if sizes and digest in sizes]

    def _needed(self, runs: Sequence[Run]) -> Iterator[tuple[Run, str, dict[str, int] | None]]:
        """What the weights of *runs* consist of: run, manifest, size by object; None where git cannot read the manifest."""
        wanted = [(run, run.commit, kept.manifest) for run in runs if run.commit for kept in run.weights.values()]
        manifests = self.git.read_all([(commit, manifest) for _, commit, manifest in wanted])
        for (run, _, manifest), text in zip(wanted, manifests, strict=True):
            try:
                yield run, manifest, dict(_parsed(text or b"")["objects"])
            except (ObjectCorrupt, KeyError, TypeError, ValueError):
                yield run, manifest, None

    def _manifest(self, run: Run, name: str) -> dict[str, Any]:
        text = self.git.read(run.commit, run.weights[name].manifest) if run.commit else None
        if text is None:
            raise ObjectMissing(f"{run.id}: the manifest of {name}'s weights is missing", "numb doctor")
        return _parsed(text)

    # -- going back

    def revert(self, run: Run) -> Reverted:
        """Make the work tree the snapshot of *run*. What was there before is committed first.

        HEAD, the branch and the user's index stay. Ignored files are not deleted; one that stands in the way is saved with
        the rest and replaced. Raises `WouldOverwrite`, having changed nothing, when a file changes meanwhile.
        """
        if run.commit is None:
            raise RunNotFound(f"{run.id} has no snapshot to go back to ({run.status})", "numb list")
        return self._go_to(run, run.commit)

    def undo_revert(self) -> Reverted:
        """Bring back what the last `revert` replaced."""
        self.refresh()
        saved = self.index.get(str(_read_json(self.layout.reverted).get("saved")))
        if saved is None or saved.commit is None:
            raise RunNotFound("nothing was reverted yet", "numb revert ID")
        return self._go_to(saved, saved.commit)

    def _go_to(self, target: Run, commit: str) -> Reverted:
        self.recover()
        with self._scratch("revert") as index:
            wanted = self.git.snapshot_tree(commit)
            snapshot, current = self._snapshot(index)
            changes = self.git.changed(current, wanted)
            if collisions := self.git.collisions(changes):
                _refuse_left_out(snapshot, collisions)
                current = self.git.add(index, collisions)
                changes = self.git.changed(current, wanted)
            head = self.git.head()
            now = time.time()
            saved = Run(
                RunId.new(now), record.SAVED, round(now, 3), record.COMPLETE, message=f"before going back to {target.id}",
                project=self.place, base=head.commit, branch=head.branch, host=inflight.host(),
                left_out=snapshot.left_out, nested=snapshot.nested,
            )  # fmt: skip
            kept = self._save(saved, index, snapshot)
            atomic.write(self.layout.reverted, record.dumps({"saved": saved.id}))
            atomic.write(self.layout.reverting, record.dumps({"saved": kept, "to": commit}))
            try:
                self.git.switch(index, current, wanted)
            except WouldOverwrite:
                self.layout.reverting.unlink(missing_ok=True)
                raise
            self._restore_nested(target, commit)
            self.layout.reverting.unlink(missing_ok=True)
            return Reverted(saved.id, tuple(_named(changes)))

    def _save(self, saved: Run, index: Path, snapshot: Snapshot) -> str:
        """Commit the state of the work tree to the branch."""
        content = index.parent / "record"
        content.mkdir()
        for name, patch in snapshot.patches.items():
            (content / name).parent.mkdir(exist_ok=True)
            atomic.write(content / name, patch)
        atomic.write(content / "record.json", record.dumps(saved.to_json(), indent=1) + "\n")
        recorded = index.with_name("recorded")
        atomic.copy_cache(index, recorded)
        return self._append(saved, recorded, content)

    def _restore_nested(self, run: Run, commit: str) -> None:
        """Bring repositories inside the work tree to their state of then, as far as they are there."""
        for _, inner, wanted in self._nested(run, commit):
            with self._scratch("here") as here:
                self._capture(here, of=inner)
                inner.switch(here, inner.write_tree(here), wanted)

    def _nested(self, run: Run, commit: str) -> Iterator[tuple[str, GitStore, str]]:
        """The repositories that *run* had inside its work tree, as far as they are here: path, repository, tree of then."""
        for nested in run.nested:
            where = self.git.toplevel / nested.path
            if nested.head is None or not (where / ".git").exists():
                continue
            inner = GitStore.discover(where)
            if not inner.has(nested.head):
                self.talk.say(f"{nested.path}: commit {nested.head} is not there, so this folder is not as it was then")
                continue
            patch = self.git.read(commit, nested.patch) if nested.patch else None
            with self._scratch("nested") as index:
                wanted = inner.apply(index, nested.head, patch) if patch else f"{nested.head}^{{tree}}"
            yield nested.path, inner, wanted

    def export(self, run: Run, target: Path) -> None:
        """Write the snapshot of *run* into the new directory *target*; nothing else is touched."""
        if run.commit is None:
            raise RunNotFound(f"{run.id} has no snapshot ({run.status})", "numb list")
        with atomic.new_directory(Path(target).absolute()) as folder:
            with self._scratch("export") as index:
                self.git.export(index, self.git.snapshot_tree(run.commit), folder)
            for path, inner, wanted in self._nested(run, run.commit):
                with self._scratch("export") as index:
                    inner.export(index, wanted, folder / path)

    # -- taking out

    def report(self, run: Run, into: Path | None = None) -> Path:
        """Write everything known about *run* into a directory that must not exist yet.

        The directory appears complete or not at all. Raises `TargetExists`, `ObjectMissing`, `ObjectCorrupt`.
        """
        from numb.capture import weights
        from numb.view import report

        if run.commit is None:
            raise RunNotFound(f"{run.id} is still running", "numb list")
        target = Path(into) if into else Path.cwd() / f"report-{run.id}"
        row = self.row(run)
        with atomic.new_directory(target) as folder:
            # A report is not part of the project: no snapshot takes it in, nor what is left of one that was killed.
            atomic.write(folder / ".gitignore", "*\n")
            notes: list[str] = []
            for name in run.weights:
                stem = "state_dict" if len(run.weights) == 1 else f"state_dict-{name}"
                manifest = self._manifest(run, name)
                notes += weights.export(manifest, self.objects, folder / f"{stem}.pt", folder / f"{stem}.safetensors")
            for name, content in self.git.record_files(run.commit).items():
                if "/" not in name:
                    atomic.write(folder / name, content)
            atomic.write(folder / "params.json", record.dumps(run.to_json()["params"], indent=2) + "\n")
            results = {name: record.encode(value, name) for name, value in row.results.items()}
            atomic.write(folder / "results.json", record.dumps(results, indent=2) + "\n")
            atomic.write(folder / "changes.patch", self.patch(run))
            names = {path.name for path in folder.iterdir()}
            atomic.write(folder / "README.md", report.readme(row, notes, names))
        return target

    # -- health

    def doctor(self, *, fix: bool = False) -> list[Finding]:
        """Check the invariants; with *fix*, repair what can be repaired. Only what is wrong is in the list."""
        from numb import doctor

        found = doctor.examine(self, fix=fix)
        self.refresh()
        return found

    def publish_left(self, left: inflight.Left) -> None:
        """Put a run that its launcher left behind on the branch. Raises what keeps it from there."""
        if left.flight.adopt():
            self._recover_adopted(left)

    def publish_lost(self, run: Run) -> None:
        """Put a run of which only its pinned snapshot is left on the branch."""
        with self._scratch("lost") as index:
            self.git.load_pin(run.id, index)
            content = index.parent / "record"
            content.mkdir()
            atomic.write(content / "record.json", record.dumps(run.to_json(), indent=1) + "\n")
            self._append(run, index, content)
            self.git.unpin(run.id)

    # -- the end of numb here

    def deletion(self) -> Deletion:
        """What `deinit` would destroy."""
        size = sum(path.lstat().st_size for path in self.layout.folder.rglob("*") if path.is_file())
        counts = self.index.projects()
        others = {name: counts.get(name, 0) for name in sorted({*counts, *self._other_projects()} - {self.place})}
        return Deletion(
            sum(counts.values()),
            len(inflight.all_left(self.layout)),
            size,
            tuple(path for path in (self.home / CONFIG, self.layout.folder) if path.exists()),
            self.git.tip().commit,
            others,
            tuple(store.root for store in self._other_stores()),
        )

    def _other_projects(self) -> list[str]:
        """The folders of this work tree with an `nmb.json` of their own that names the same branch, or that cannot be read."""
        found = []
        for path in self.git.files_named(CONFIG):
            place = path.parent.relative_to(self.git.toplevel).as_posix()
            with contextlib.suppress(NumbError):
                if config.load(path).branch != self.git.branch:
                    continue
            found.append(place)
        return [place for place in found if place != self.place]

    def _other_stores(self) -> list[Layout]:
        stores = [Layout(top) for top in self.git.work_trees()]
        return [store for store in stores if store.folder.is_dir() and not store.folder.samefile(self.layout.folder)]

    def deinit(self) -> str | None:
        """Remove `nmb.json`, `.nmb/` and the branch; returns the branch's last commit, by which git can still find it."""
        tip = self.git.tip()
        if tip.checked_out:
            raise BranchInUse(f"branch {self.git.branch} is checked out in {tip.checked_out}", "git switch -")
        for store in (self.layout, *self._other_stores()):
            if any(left.running for left in inflight.all_left(store)):
                raise BranchInUse(f"a run is still in flight in {store.root}", "numb list")
        if "index" in self.__dict__:
            self.index.close()
        self.git.delete_branch()
        try:
            if self.layout.folder.exists():
                atomic.remove_tree(self.layout.folder)
        except StorageFailed as error:
            way_back = f"git branch {self.git.branch} {tip.commit} brings the branch back" if tip.commit else None
            raise StorageFailed(f"{error}; the branch has been removed", way_back) from None
        (self.home / CONFIG).unlink(missing_ok=True)
        return tip.commit


class _Background(Generic[T]):
    """Work that goes on while the script runs. What it raises must not end the script: `join` tells it."""

    def __init__(self, work: Callable[[int], T]) -> None:
        self._work = work
        self._result: T | None = None
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None

    def _run(self, pid: int) -> None:
        try:
            self._result = self._work(pid)
        except (NumbError, OSError) as error:
            self.error = error

    def start(self, pid: int) -> None:
        """Begin, now that the script runs as *pid*."""
        self._thread = threading.Thread(target=self._run, args=(pid,), name="numb-secure", daemon=True)
        self._thread.start()

    def join(self) -> T | None:
        """Wait for the end; None when the work failed or never began."""
        if self._thread is not None:
            self._thread.join()
        return self._result


def _make_store(store: Layout) -> None:
    if store.format.exists() and store.ignore.exists():
        return
    atomic.make_directory(store.folder)
    atomic.write(store.ignore, "*\n")
    atomic.write(store.format, f"{STORE_FORMAT}\n")


def _check_store(store: Layout) -> None:
    if store.folder.is_symlink():
        raise NotInitialised(f"{store.folder} is a symbolic link, which numb does not follow", f"rm {store.folder}")
    found = _format_of(store)
    if found and _is_number(found) and int(found) > STORE_FORMAT:
        raise StoreTooNew(f"{store.folder} was written by a later numb (format {found})", "pip install --upgrade numb")


def _format_of(store: Layout) -> str | None:
    """What stands in the file; None when it is not made yet, or removed (`git clean -fdx`): who writes makes it again."""
    try:
        return store.format.read_bytes()[:100].decode(errors="replace").strip()
    except OSError:
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _home(folder: Path, toplevel: Path) -> Path | None:
    """The nearest folder with an `nmb.json`, from *folder* up to the top of the work tree."""
    top = toplevel.resolve()
    here = folder.resolve()
    for candidate in (here, *here.parents):
        if (candidate / CONFIG).exists():
            return candidate
        if candidate == top:
            return None
    return None


def _refuse_left_out(snapshot: Snapshot, paths: Sequence[bytes]) -> None:
    """A secret or a large file in the way is not saved, and so it must not be replaced."""
    in_the_way = set(_named(paths))
    for item in snapshot.left_out:
        if item.path in in_the_way:
            raise WouldOverwrite(
                f"nothing was changed: {item.path} is in the way, and would not be saved ({item.why})",
                f"mv {item.path} elsewhere",
            )


def _named(paths: Iterable[bytes]) -> list[str]:
    return [os.fsdecode(path) for path in paths]


def _cut_off(ended: Ended) -> bool:
    """Whether a run was ended from outside, so that it says nothing about its hyperparameters."""
    return ended.run is not None and ended.run.status in (record.INTERRUPTED, record.KILLED, record.LOST)


def _refusal(told: Told, outcome: Outcome) -> Refused | None:
    """What the script itself was ended for; a Ctrl-C may have come between an answer and its arrival."""
    if told.refused is None:
        return None
    return (Interrupted if signal.SIGINT in outcome.passed_on else Refused)(*told.refused)


def _some(items: Sequence[str], most: int = 10) -> str:
    """The first of *items*, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _is_literal(value: object) -> bool:
    from numb.hp import source

    return value is not source.NOT_LITERAL


def _fits(run: Run, question: Mapping[str, Any]) -> str | None:
    """The name of the run's model that fills the network in question: of the same architecture, of the same name if any."""
    same = [name for name, model in run.models.items() if model.architecture == question["architecture"]]
    return question["name"] if question["name"] in same else next(iter(same), None)


def _row(run: Run, trials: Mapping[str, Sequence[Run]]) -> Row:
    """A run with its own results, and over them those of its newest trial that has some."""
    own = tuple(trials.get(run.id, ()))
    newest = next((trial.results for trial in reversed(own) if trial.results), {})
    return Row(run, {**run.results, **newest}, own)


def _without(these: Sequence[str], those: Sequence[str]) -> list[str]:
    rest = list(those)
    left = []
    for item in these:
        if item in rest:
            rest.remove(item)
        else:
            left.append(item)
    return left


def _trailers(run: Run) -> str:
    """Facts of checked types for tools that read commit messages; the record in the tree is what counts."""
    lines = [
        f"Numb-Run: {run.id}",
        f"Numb-Kind: {run.kind}",
        f"Numb-Status: {run.status}",
        f"Numb-Format: {record.FORMAT}",
    ]
    if run.of:
        lines.insert(1, f"Numb-Of: {run.of}")
    return "\n".join(lines) + "\n"


def _parsed(text: bytes) -> dict[str, Any]:
    """A JSON object that numb wrote. Raises `ObjectCorrupt` for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ObjectCorrupt(f"a file of the record is damaged: {error}", "numb doctor") from None
    if not isinstance(found, dict):
        raise ObjectCorrupt("a file of the record is not an object", "numb doctor")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_bytes())
    except (OSError, ObjectCorrupt):
        return {}


def _sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
