"""The facade: what numb can do, as methods that a command line or a notebook calls, each in the order that keeps things safe.

`Project.train` is the main story. Nothing here prints or prompts: who calls may pass a `Talk` that does.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from numb import alive, atomic, config, inflight, layout, record
from numb.branch import Branch
from numb.config import Config, RemotePlace
from numb.errors import (
    ArtifactMissing,
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
    Usage,
)
from numb.folder import Folder
from numb.gitstore import GitStore, Snapshot
from numb.inflight import InFlight, Told
from numb.layout import CONFIG, DEFAULT_BRANCH, RUN_DIR, Layout
from numb.order import NOTHING_ASKED, Asking, Order
from numb.record import TRAIN, TRIAL, Artifact, Origin, Run, RunId, Series
from numb.snapshots import Snapshots
from numb.store.index import Index
from numb.talk import Answers, Ended, Redo, Reverted, Row, Silent, Talk

if TYPE_CHECKING:
    from numb.beginnings import Beginning
    from numb.capture.comparing import Difference as TensorDifference
    from numb.capture.manifest import Manifest
    from numb.comparing import Comparison, Difference
    from numb.deinit import Deletion
    from numb.doctor import Finding
    from numb.engines import Engine
    from numb.housekeeping import Collected, Used
    from numb.hp import source
    from numb.hp.settings import Settings
    from numb.hp.table import Table
    from numb.jobs import Codes, Job
    from numb.journal import Block
    from numb.launch import Outcome, Start
    from numb.melding import Melded
    from numb.network import Network
    from numb.notebook import PastRun, Runs
    from numb.overseeing import Progress as QueueProgress
    from numb.proposing import Search
    from numb.purging import Purge
    from numb.queue import Entry, Queue, State
    from numb.sharing import Progress, Pulled, Pushed
    from numb.store.index import Answer
    from numb.store.objects import Objects, Ref
    from numb.sweep import How
    from numb.view.charts import Chart, Curves, Parallel, Scatter
    from numb.watching import Watched
    from numb.workplace import Workplace

# Rooms that only some commands need are imported where they are used: `numb list` answers at once.

T = TypeVar("T")


class Project:
    """One project: a folder with an `nmb.json`, in a git repository; and the sequence of its runs, for a notebook."""

    def __init__(self, git: GitStore, home: Path, settings: Config, talk: Talk | None = None) -> None:
        self.talk: Talk = talk or Silent()
        self.git, self.home, self.config = git.on(settings.branch, self.talk.say), home, settings
        self.folder = Folder(self.git)
        self.layout = self.folder.layout
        self._said: set[str] = set()  # of what is wrong in sources
        self.snapshots = Snapshots(self.git, self.folder, settings, self.talk.say)
        self.branch = Branch(self.snapshots, self.talk.say)
        self.place = home.relative_to(self.git.toplevel).as_posix()  # within the work tree, as records name it
        self.start: Start | None = None  # how scripts are started, where it is not as commands are
        self.passed_as: Mapping[int, int] = {}  # as what signals are passed on to scripts: see `launch.run`
        self.job: Job | None = None  # what a queue has to say of the next training

    # -- opening

    @classmethod
    def open(cls, where: str | os.PathLike[str] = ".", talk: Talk | None = None, *, reading: bool = False) -> Project:
        """Open the project that *where* lies in: the nearest `nmb.json`, up to the top of the work tree.

        Raises `ConfigError` for one that cannot be understood; for *reading* what is on the branch the defaults will do, as
        long as numb's branch can be found.
        """
        folder = Path(where).absolute()
        git = GitStore.discover(folder)
        home = _home(_original(folder, Layout(git.toplevel)), git.toplevel)
        if home is None:
            raise NotInitialised(f"there is no {CONFIG} in {folder} or above it", "numb init")
        try:
            project = cls(git, home, config.load(home / CONFIG), talk)
        except ConfigError as error:
            project = cls(git, home, config.salvaged(home / CONFIG, error), talk)
            if not reading or not project._has_branch():
                raise
        if (found := project.folder.damaged_format()) is not None:
            project.talk.say(f"{project.layout.format} is damaged ({found[:20]!r}): numb doctor --fix")
        return project

    @classmethod
    def remains(cls, where: str | os.PathLike[str] = ".", talk: Talk | None = None) -> Project | None:
        """What is left of a project whose `nmb.json` has gone; None when that is nothing.

        Raises `NotInitialised` where it may belong to a project in another folder, or the branch may have another name.
        """
        from numb.deinit import other_projects

        git = GitStore.discover(Path(where).absolute())
        project = cls(git, git.toplevel, Config(), talk)
        if others := other_projects(project):
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
        project.folder.make()
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

    @property
    def index(self) -> Index:
        """The listing, caught up with the branch."""
        return self.branch.index

    @property
    def objects(self) -> Objects:
        return self.folder.objects

    # -- training

    def train(
        self,
        arguments: Sequence[str] = (),
        *,
        message: str = "",
        redo: Redo = Redo.ASK,
        settings: Settings | None = None,
        queue: str | None = None,
        strict: bool = False,
        asking: Asking = NOTHING_ASKED,
        resume: tuple[Run, int | None] | None = None,
        init_from: tuple[Run, int | None] | None = None,
    ) -> Ended:
        """Run the user's train command as one run, and keep it whatever happens to it.

        *settings* are what `settings` has gathered. With *resume*, a run and the step of one of its checkpoints (None: the
        last), that run goes on; with *init_from* a new one begins with such weights. *asking* says what the script is asked
        for while it runs. Raises before anything starts; once the script runs, nothing that goes wrong in numb ends it.
        """
        if self.config.extract:
            from numb import extraction

            extraction.check(self)
        settings = settings or self.settings()
        table = settings.table
        run = self.new_run(TRAIN, arguments, message=message, queue=queue)
        beginning = None
        if resume or init_from:
            from numb import beginnings  # which a training that begins anew does without
        if resume:
            earlier, beginning = beginnings.resumed(self, *resume, again=redo is Redo.AGAIN)
            run = replace(earlier, command=run.command, host=run.host, message=message or earlier.message)
            redo = Redo.AGAIN
            self._tell_changes(resume[0], queue)
            if settings.given and not queue:
                self.talk.say("what run.restore() brings back, an optimizer's learning rate say, stays what it was")
        else:
            settings.check()  # the values of a run that goes on are those that it had
        if init_from:
            beginning = beginnings.initial(self, *init_from)
            run = replace(run, init_from=beginning.init_from)
        answers = Answers()
        answers.decide = lambda question, flight: self._on_training(question, flight, table, redo, answers)
        order = self._order(settings)
        asked = asking.told(strict, self.config.stop_on)
        order = replace(order, keep=self.config.keep.to_json(), callbacks=self.config.callbacks, **asked)
        strict = strict or bool(settings.given or beginning)
        ended = self.launch(run, arguments, answers, order=order, strict=strict, table=table, beginning=beginning)
        if ended.same and not ended.error:
            changed = self._code_changed(ended.same, queue)
            command = ended.same.command if ended.same.command != run.command else ()
            ended = replace(ended, changed=changed, command=command)
        if ended.run is not None and self.config.push is not None:
            from numb import sharing

            sharing.push_quietly(self)
        return ended

    def _code_changed(self, run: Run, queue: str | None) -> list[str] | None:
        """The files in which the code differs from that of *run*; what lists the runs is no code of theirs."""
        changed = self.snapshots.changed_since(run, self.job.code.tree if self.job and self.job.code else None)
        return changed and [path for path in changed if path != queue]

    def _tell_changes(self, run: Run, queue: str | None) -> None:
        if changed := self._code_changed(run, queue):
            self.talk.say(f"the code has changed since {run.id}: {record.some(changed, 5)}")

    def _order(self, settings: Settings) -> Order:
        """What the script is told of values from outside."""
        from numb.hp.settings import elsewhere, returned

        table, values = settings.table, settings.values()
        return Order(
            inject=record.encoded(values),
            levels={name: level.text for name, level in settings.levels().items()},
            origins=settings.origins(),
            untyped=settings.untyped(),
            elsewhere=elsewhere(table) if values else (),
            params=returned(table, values) if values else (),
            assigned={str(self.home / file): names for file, names in table.assigned().items()},
        )

    def new_run(self, kind: str, arguments: Sequence[str], **facts: Any) -> Run:
        command = (*self.config.command(kind, facts.get("name")), *arguments)
        now = time.time()
        shown = tuple(inflight.redacted(command))
        return Run(
            RunId.new(now), kind, round(now, 3), command=shown, project=self.place, host=inflight.host(), **facts
        )

    def launch(
        self,
        run: Run,
        arguments: Sequence[str],
        answers: Answers,
        *,
        order: Order,
        strict: bool,
        table: Table | None = None,
        beginning: Beginning | None = None,
    ) -> Ended:
        """From the folder of a run to its commit. The *order* says what the hooks are to do, *beginning* with which state.

        The *table* of hyperparameters is kept with it. With *strict* the script does not run where nothing can be recorded:
        without what numb gives it, values or weights, it would do something else.
        """
        from numb import launch
        from numb.observing import Observer

        command, env = self._started_as((*self.config.command(run.kind, run.name), *arguments))
        launch.check(command, self.home, env)
        self.branch.recover()
        order = replace(order, launched=inflight.launched(self.git.toplevel / self.place, self.config.environment))
        order = beginning.told(order) if beginning else order
        try:
            self.folder.make()
            run, flight = self.begin(run, order)
            if beginning:
                beginning.lay_out(flight)
        except (StorageFailed, OSError) as error:
            return self._unrecorded(command, error, strict)
        try:
            run, snapshot = self.captured(run, flight)
            doorbell = flight.open_doorbell()
        except (NumbError, OSError) as error:
            flight.discard()
            return self._unrecorded(command, error, strict)
        if self.job:
            self.job.begun(run, order.time_limit)
        secured = Background(lambda pid: self.secure(run, flight, snapshot, table, pid))
        observer = Observer(self.config, flight.folder, self.home, env)
        observer.prepare()

        def is_ending() -> bool:
            return flight.told().asked is not None

        def started(pid: int) -> None:
            secured.start(pid)
            observer.start(pid)
            if self.job:
                self.job.started(pid, is_ending)

        killed = inflight.kills_for_memory()
        with launch.uninterruptible() as late:
            try:
                outcome = launch.run(
                    command,
                    cwd=self.home,
                    env={**env, RUN_DIR: str(flight.folder.path)},
                    log=flight.folder.log,
                    log_limit=int(self.config.log_max_mb * 1e6),
                    is_ending=is_ending,
                    started=started,
                    doorbell=doorbell,
                    ring=lambda: self._ring(flight, answers),
                    seen=observer.seen,
                    start=self.start,
                    passed_as=self.passed_as,
                    ending=self.job.ending if self.job else None,
                    earlier=late,
                )
            except (CannotStart, CommandNotFound):
                if self.job:
                    self.job.let_go()
                flight.discard()  # nothing ran
                raise
            run = secured.join() or run
            run = replace(run, notes=(*run.notes, *observer.stop(), *(self.job.ended(run) if self.job else ())))
            if secured.error:
                run = replace(run, notes=(*run.notes, f"the snapshot could not be pinned: {secured.error}"))
            ended = self._finish(run, flight, answers, outcome, inflight.kills_for_memory() > killed)
        return replace(ended, signalled=outcome.passed_on, late=tuple(late))

    def _started_as(self, command: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str]]:
        """A command and its environment, for where the script runs."""
        return self.job.adapted(command, self.home, os.environ) if self.job else (command, os.environ)

    def begin(self, run: Run, order: Order) -> tuple[Run, InFlight]:
        while True:
            try:
                return run, InFlight.begin(self.layout, run, order)
            except FileExistsError:  # the same second and the same four letters
                if run.segments:
                    raise Refused(
                        f"{run.id} is being resumed already, or has gone on elsewhere", "numb doctor"
                    ) from None
                run = replace(run, id=RunId.new(time.time()))

    def captured(self, run: Run, flight: InFlight) -> tuple[Run, Snapshot | None]:
        """Take the snapshot: all that must be done before the script may start. None where a queue has taken it."""
        if self.job and self.job.code:
            return self.job.described(run, flight.folder), None
        snapshot = self.snapshots.capture(flight.folder.index)
        self.snapshots.tell_left_out(snapshot)
        return self.snapshots.described(run, snapshot, flight.folder.content), snapshot

    def secure(self, run: Run, flight: InFlight, snapshot: Snapshot | None, table: Table | None, pid: int) -> Run:
        """While the script runs: write and pin the snapshot, keep the index for the next run, hash what stays out."""
        script = alive.identity(pid)
        if self.job and self.job.code:
            tree, head = self.job.code.tree, self.job.code.head
            run = replace(run, base=head.commit, branch=head.branch)
        else:
            flight.write_state(run, script=script)
            run, tree = self._written(run, flight, snapshot or self.snapshots.capture(flight.folder.index), script)
        self.git.pin(run.id, tree, run.base, run.started)
        if table is not None:
            with contextlib.suppress(NumbError):  # it can be read from the snapshot again
                atomic.write(flight.folder.content / "hyperparameters.json", table.to_json(flight.origins()))
        if snapshot is not None:
            run = replace(run, left_out=self.snapshots.hashed(run.left_out))
        flight.write_state(run, script=script)
        return run

    def _written(self, run: Run, flight: InFlight, snapshot: Snapshot, script: Mapping[str, Any]) -> tuple[Run, str]:
        """The tree of a snapshot, and the run with the commit that it is to be compared with."""
        head = self.git.head()
        run = replace(run, base=head.commit, branch=head.branch)
        flight.write_state(run, script=script)
        try:
            return run, self.git.write_tree(snapshot.index)
        except GitFailed:  # too late by some milliseconds, which beats having no snapshot
            snapshot = self.snapshots.capture_anew(snapshot.index)
            run = self.snapshots.described(run, snapshot, flight.folder.content)
            return run, self.git.write_tree(snapshot.index)

    def _ring(self, flight: InFlight, answers: Answers) -> None:
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

    def _on_training(
        self, question: dict[str, Any], flight: InFlight, table: Table, redo: Redo, answers: Answers
    ) -> dict[str, Any]:
        """Answer a training script: does anything speak against it, and is its graph known?"""
        if question["ask"] == "graph":
            return self.graph_wanted(flight)
        began = Origin.of(flight.order.init_from)
        same = self.index.same(question["architecture"], question["params_key"], self.place, began)
        same = same or self._same_so_far(question["architecture"], flight, table, began)
        if same is None or redo is Redo.AGAIN:
            return {}
        if question["started"]:
            so = "this run is kept as well" if question["ended"] else "the training has begun, so it goes on"
            self.talk.say(f"{same.id} had this architecture and these hyperparameters; {so}")
            return {}
        answers.same = same
        if redo is Redo.SKIP:
            return {"stop": True}
        wanted = self.talk.again(same, self.snapshots.changed_since(same))
        if wanted is None:
            answers.refusal = Refused(
                f"{same.id} was trained with this architecture and these hyperparameters; nothing was trained",
                "numb train --again to train it again, or --skip-done to let it be",
            )
        elif not wanted:
            answers.refusal = Refused("nothing was trained")
        return {} if wanted else {"stop": True}

    def _same_so_far(
        self, architecture: str, flight: InFlight, table: Table, began: Origin | None = None
    ) -> Run | None:
        """A run that had what this one has by now, and beyond that only what calls further on are going to return.

        A call may stand in the loop of the training: then its value comes too late for the question.
        """
        from numb.hp import tree
        from numb.hp.values import is_literal

        earlier = [run for run in self.index.complete(architecture, self.place) if run.init_from == began]
        now = flight.told().params
        if not any(len(run.params) > len(now) for run in earlier):
            return None
        defaults = {each.name: each.default for each in table if each.reached and is_literal(each.default)}
        given = flight.order.values
        later = {**defaults, **given, **tree.delivered(defaults, given)}

        def continues(run: Run) -> bool:
            ahead = {name: later[name] for name in run.params if name in later and name not in now}
            return record.key({**now, **ahead}) == run.params_key

        return next(filter(continues, earlier), None)

    def graph_wanted(self, flight: InFlight) -> dict[str, Any]:
        architecture = flight.told().architecture
        return {"graph": architecture is not None and self.index.with_graph(architecture) is None}

    def _unrecorded(self, command: Sequence[str], error: Exception, strict: bool) -> Ended:
        """Nothing can be kept, but the training is the user's: it runs all the same, unless they said otherwise."""
        from numb import launch

        if strict:
            raise error if isinstance(error, NumbError) else StorageFailed(str(error), "numb doctor")
        self.talk.say(f"{error}; the script runs, and nothing of it is recorded")
        outcome = launch.run(command, cwd=self.home, env=os.environ, log=Path(os.devnull))
        return Ended(outcome.exit_code)

    # -- the end of a run

    def _finish(self, run: Run, flight: InFlight, answers: Answers, outcome: Outcome, oom: bool) -> Ended:
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
        if self.config.extract and run.kind == TRAIN:
            from numb import extraction

            run = extraction.added(self, run, told, flight)
        try:
            flight.write_end(run)
            exit_code = outcome.exit_code if outcome.is_known else int(run.status != record.COMPLETE)
            return Ended(exit_code, self.branch.publish(run, told, flight))
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

    # -- hyperparameters

    @property
    def script(self) -> source.Script:
        """What the train script says of its hyperparameters; nothing where it is not evident which script that is."""
        from numb.hp import source

        path = source.script_of(self.config.train or (), self.home)
        return source.read(path) if path else source.Script((), None, ())

    @property
    def table(self) -> Table:
        """Every hyperparameter of the project, read from its sources: the train script's, and those of its other files."""
        if self.job and self.job.workplace:
            return self.job.workplace.remembered("table", lambda: self.table_of(TRAIN))
        return self.table_of(TRAIN)

    def table_of(self, kind: str, name: str | None = None) -> Table:
        """The same with the script of that kind of run as the one that counts; that of the other kind says nothing of it."""
        from numb.hp import source, table

        commands = {TRAIN: self.config.train, TRIAL: self.config.trials.get(name or "", self.config.trial)}
        scripts = {each: source.script_of(command or (), self.home) for each, command in commands.items()}
        script = scripts.pop(kind)
        foreign = next((path for path in scripts.values() if path and script and not path.samefile(script)), None)

        def is_read(path: Path) -> bool:
            if not path.is_relative_to(self.home) or (foreign and path.name == foreign.name and path.samefile(foreign)):
                return False
            name = path.relative_to(self.home).as_posix() if self.config.unread else ""
            return not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.config.unread)

        files = self.job.workplace.files_named if self.job and self.job.workplace else self.git.files_named
        others = filter(is_read, files("*.py", "*.ipynb"))
        cache = None if self.job and self.job.workplace else self.layout.hyperparameters
        return table.read([script] if script else [], others, self.home, cache)

    def settings(
        self,
        words: Sequence[str] = (),
        files: Sequence[str] = (),
        queue: Mapping[str, Any] | None = None,
        origin: str = "the queue",
        table: Table | None = None,
    ) -> Settings:
        """Everything that is given from outside: `NAME=VALUE` *words*, *files*, one entry of a queue, and `NUMB_HP_…`.

        *table* is that of `known_table`, where it has been read already.
        Raises `UnknownHyperparameter`, `HyperparameterError` and `ConfigError` for what the script could not take.
        """
        from numb.hp.settings import PREFIX, Settings, gather, refuse_late
        from numb.hp.table import Table

        if not (words or files or queue or any(name.startswith(PREFIX) for name in os.environ)):
            try:
                return Settings(self.table)
            except NumbError:
                return Settings(Table({}))  # what is as the script says needs no table
        table = table or self.known_table()
        found = gather(table, files=files, environment=os.environ, queue=queue, origin=origin, words=words)
        refuse_late(self.script, table, found.levels())
        return found

    def known_table(self) -> Table:
        """The table with the names that the last run had, for a script may have some that only running it tells."""
        newest = self.index.runs(limit=1, project=self.place)
        table = self.table
        for problem in sorted(set(table.problems) - self._said):
            self.talk.say(problem)
        self._said.update(table.problems)
        return replace(table, also=table.also.union(newest[0].params if newest else ()))

    # -- trials

    def trial(self, run: Run, arguments: Sequence[str] = (), *, message: str = "", name: str | None = None) -> Ended:
        """Evaluate the weights of *run* with the user's trial command, or with that of this *name*.

        Results of a named one are kept under its name: `results.val.acc`.
        """
        from numb.trials import Trials

        if not run.weights:
            raise Refused(f"{run.id} has no weights to trial ({run.status})", "numb list")
        return Trials(self, arguments, message, name).of(run)

    def trial_chosen(self, arguments: Sequence[str] = (), *, message: str = "", name: str | None = None) -> Ended:
        """Find the architecture that the trial script builds, ask which of its runs to evaluate, and evaluate that."""
        from numb.trials import Trials

        return Trials(self, arguments, message, name).chosen()

    def trial_all(
        self, arguments: Sequence[str] = (), *, message: str = "", name: str | None = None
    ) -> Iterator[tuple[Run | None, Ended]]:
        """Evaluate every untrialed run of the architecture that the trial script builds, one after another.

        Which one comes is said before it begins. Yields nothing when all of them have been trialed.
        """
        from numb.trials import Trials

        return Trials(self, arguments, message, name).all()

    # -- queues

    def queue(
        self, file: Path, words: Sequence[str] = (), files: Sequence[str] = (), *, code: str | None = None
    ) -> Queue:
        """A queue file and how far its entries have come, with what *words* and *files* set for all of them.

        With *code*, by which a run of the queue is known, with what they had set when that began.
        """
        from numb import engines
        from numb.queue import Proofs, Queue

        path = _original(Path(file).absolute(), self.layout)  # a job that asks means the user's
        proofs = Proofs(engines.is_gone, self._fate)
        found = Queue.at(path, self.layout.queues, self.git.toplevel, None, proofs, engines.here())
        if code is not None:
            return found.with_common(self.codes(found).common(code))
        return found.with_common({setting.name: setting.value for setting in self.settings(words, files).given})

    def queues(self, file: Path, words: Sequence[str] = (), files: Sequence[str] = ()) -> list[Queue]:
        """The same; where nothing is said that is set for all entries, with what is set by each who runs it now."""
        from numb import engines

        queue = self.queue(file, words, files)
        codes, found = self.codes(queue), {}
        for name in () if words or files else (codes.in_use(engines.is_gone) or codes.names()):
            with contextlib.suppress(StorageFailed):  # it was dropped just now
                common = codes.common(name)
                found[record.canonical(common)] = queue.with_common(common)
        return [*found.values()] or [queue]

    def _fate(self, run_id: str) -> str:
        """What has become of the run of an entry whose worker has gone, as the entry has it."""
        from numb import queue

        if inflight.is_running(self.layout, run_id):
            return queue.RUNNING
        self.branch.recover()
        if self.layout.run(run_id).state.exists() and atomic.held_elsewhere(self.layout.recovering):
            return queue.RUNNING  # somebody is putting it on the branch
        run = self.index.get(run_id)
        known = {record.COMPLETE: queue.DONE, record.FAILED: queue.FAILED}
        return queue.CUT_OFF if run is None else known.get(run.status, queue.CUT_OFF)

    def codes(self, queue: Queue) -> Codes:
        """The snapshots that a queue keeps for its entries."""
        from numb.jobs import Codes

        return Codes(queue.folder.codes, self.snapshots)

    def workplace(self) -> Workplace:
        """A folder in which jobs of a queue run, of which nobody else has one. Raises `StorageFailed`."""
        from numb.workplace import Workplace

        self.folder.make()
        return Workplace.take(self.git, self.layout)

    def working(self, job: Job) -> Project:
        """The same project, whose next training is this job of a queue, with the code that was queued."""
        project = copy.copy(self)
        project.job = job
        if job.workplace is not None:
            project.home = job.workplace.at(self.place)
            project.config = job.workplace.remembered("config", lambda: self._config_at(project.home))
        return project

    def _config_at(self, home: Path) -> Config:
        return config.load(home / CONFIG) if (home / CONFIG).exists() else self.config

    def make_queue(self, file: Path, *, force: bool = False) -> dict[str, Any]:
        """Write a queue file with the script's own hyperparameters as its one combination."""
        from numb import sweep

        return sweep.write(self, Path(file), force=force)

    def extend_queue(
        self, file: Path, combinations: Sequence[Sequence[str]], *, repeat: int = 1, force: bool = False
    ) -> tuple[int, int]:
        """Add combinations of `NAME=VALUE` to a queue file; returns how many were added, and how many were there already.

        With *repeat* each that often, with seeds from 0; with *force* also those that are there. Raises
        `UnknownHyperparameter` and `HyperparameterError` for what does not fit the script, `Usage` and `ConfigError`.
        """
        from numb import sweep

        return sweep.extend(self, Path(file), combinations, repeat=repeat, force=force)

    def begin_search(
        self,
        file: Path,
        words: Sequence[str],
        *,
        by: str,
        count: int,
        lowest: bool | None = None,
        seed: int = 0,
        sampler: str = "tpe",
        prune: str | None = None,
        warmup: int = 0,
        startup: int = 5,
        dry_run: bool = False,
    ) -> Search:
        """Write down what is to be searched for the entries of a queue file; `sweep.How` says that it is asked for.

        *words* are `NAME=DISTRIBUTION` and `NAME=VALUE`, *by* is a name as `best` takes it. Without *lowest* that says whether
        low is good. *count* combinations are proposed. With *prune*, a field of `numb.log`, a run ends itself where it is worse
        than the median of the others, from its *warmup*th number on and where *startup* others are to be compared with. Raises
        `Usage`, `UnknownHyperparameter` and `HyperparameterError` for what does not fit the script. With *dry_run* nothing is
        written.
        """
        from numb import proposing, searching

        aim = proposing.aim(by, lowest, count, seed, sampler, prune, warmup, startup)
        search = proposing.Search(searching.Space.of(words), aim)
        search.check(self.known_table())
        if not dry_run:
            self.folder.make()
            search.write(self.queue(file))
        return search

    def searched(self, file: Path) -> str:
        """What the search of a queue file looks at. Raises `Usage` where nothing is searched."""
        from numb import proposing

        return proposing.Search.read(self.queue(file)).aim.by

    def lengthen_search(self, file: Path, count: int, *, dry_run: bool = False) -> Search:
        """Let the search of a queue file propose so many combinations in all. Raises `Usage` where nothing is searched."""
        from numb import proposing

        queue = self.queue(file)
        search = proposing.Search.read(queue).of(count)
        if not dry_run:
            search.write(queue)
        return search

    def hand_out(
        self,
        file: Path,
        how: How,
        options: Sequence[str],
        engine: Engine,
        here: Callable[[How], int],
        seconds: float | None = None,
    ) -> tuple[int, int, list[State]]:
        """Have an engine work a queue file off; returns the first exit code but 0, how many entries waited, and how all stand.

        Its workers are told these *options* of `numb queue work`; one without any calls *here*, which does what `run_queue`
        says of *how*. No further entry begins after so many *seconds*. Raises what `run_queue` raises before its first run, and
        what the engine raises.
        """
        from numb import sweep

        return sweep.hand_out(self, Path(file), how, options, engine, here, seconds)

    def shown_queue(
        self, file: Path, how: How, options: Sequence[str], engine: Engine, search: Search | None = None
    ) -> str:
        """What `hand_out` would do, with this *search* where one is to begin. Raises what that raises before the first run."""
        from numb import sweep

        return sweep.shown(self, Path(file), how, options, engine, search)

    def queue_progress(self, file: Path, words: Sequence[str] = (), files: Sequence[str] = ()) -> QueueProgress:
        """A queue file that can be looked at again and again: how far its entries have come, and how long the rest takes."""
        from numb import overseeing

        return overseeing.Progress(self, Path(file), words, files)

    def entries_like(self, queue: Queue, select: Sequence[str] = (), statuses: Collection[str] = ()) -> set[int]:
        """The numbers of a queue's entries that have these values, `NAME=VALUE`, and one of these statuses, of any for none."""
        from numb import overseeing

        return overseeing.matching(self, queue, select, statuses)

    def cancel_queue(
        self,
        file: Path,
        numbers: Callable[[Queue], Collection[int] | None] = lambda queue: None,
        words: Sequence[str] = (),
        files: Sequence[str] = (),
    ) -> tuple[int, int]:
        """Let entries that have not begun never begin, and end those that run; returns how many of each.

        Of all, or those with the *numbers* that are given for a queue; with what *words* and *files* set for all of them, or
        those who run the queue now have set. Scripts are asked to end, and ended where they do not; that takes a moment. A
        search proposes no more.
        """
        from numb import overseeing

        return overseeing.cancel(self, Path(file), numbers, words, files)

    def repeat_in_queue(self, file: Path, run: Run, words: Sequence[str] = ()) -> tuple[int, int]:
        """Add the combination of a run to a queue file, with what *words* say instead; returns what `extend_queue` does."""
        from numb import overseeing

        return overseeing.repeat(self, Path(file), run, words)

    def sync_queue(self, file: Path, program: Path, *, dry_run: bool = False) -> tuple[int, int, int]:
        """Add the combinations that a Python program lists as its `jobs`, and that a queue file lacks.

        Returns how many were added, how many were there, and how many of the file the program does not list. With *dry_run*
        nothing is written. Raises `NotPossible` where the program fails, and what `extend_queue` raises.
        """
        from numb import overseeing

        return overseeing.sync(self, Path(file), Path(program), dry_run=dry_run)

    def check_queue(self, file: Path, words: Sequence[str] = (), files: Sequence[str] = ()) -> None:
        """Raise what `run_queue` raises before its first run."""
        from numb import sweep

        sweep.check(self, Path(file), words, files)

    def run_queue(self, file: Path, how: How | None = None) -> Iterator[tuple[Entry, Ended]]:
        """Train with each combination of a queue file that is not done: one run after another, until none is left.

        Each runs the code as it is when this is called, or when the entry was added later, in a folder of its own where what
        no snapshot has is linked; *how* may say that it runs in place, and what else `sweep.How` has. An entry that was cut off
        comes first, and goes on from its last checkpoint where it has one. One that failed comes only with *failed*; one whose
        like was trained before, and not by this queue, only with `Redo.AGAIN`. Which one comes is said before it begins. One
        that fails is tried again, *retries* times. Where *goes_on* says no, no further entry begins. Raises `ConfigError`
        before the first run for a key that the script does not have, and for values that do not fit or that the script would
        overwrite, which *is_checked* says has been seen to.
        """
        from numb import sweep

        return sweep.run(self, Path(file), how or sweep.How())

    # -- as a notebook has it: the sequence of its runs, oldest first

    @overload
    def __getitem__(self, which: int | str) -> PastRun: ...
    @overload
    def __getitem__(self, which: slice) -> list[PastRun]: ...
    @overload
    def __getitem__(self, which: tuple[int | str, ...]) -> tuple[PastRun, ...]: ...
    def __getitem__(self, which: Any) -> Any:
        """A run by its number (`[-1]` is the newest) or by whatever `find` takes, a slice, or several at once.

        Raises `KeyError` for an id that there is not, with those that are near, and `IndexError`.
        """
        from numb import notebook

        return notebook.found(self, which)

    def __iter__(self) -> Iterator[PastRun]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __bool__(self) -> bool:
        return True  # also without runs

    def __contains__(self, which: object) -> bool:
        """Whether there is a run of this id, name or tag, or this very run."""
        try:
            return self[which if isinstance(which, str) else which.id] is not None  # type: ignore[attr-defined]
        except (RunNotFound, AttributeError):
            return False

    @property
    def all(self) -> Runs:
        """All runs."""
        from numb import notebook

        return notebook.Runs(self)

    def where(self, expression: str) -> Runs:
        """The runs for which it holds, as `numb list --where` has it. Raises `Usage`."""
        return self.all.where(expression)

    def sort(self, *names: str) -> Runs:
        """The runs in the order of these names; `-results.acc` begins with the highest."""
        return self.all.sort(*names)

    def frame(self, *names: str) -> Any:
        """A data frame with a row for each run and a column for each name, or for all that there are. Raises `Usage`."""
        return self.all.frame(*names)

    def meld(self, runs: Mapping[Any, str], name: str, field: str) -> Any:
        """A data frame of one *field* of the series *name* of several runs: `repo.meld({"x7f2": "small"}, "log.csv", "loss")`.

        A column for each label, in their order; the rows are those that any of them has, and gaps are NaN. Raises `KeyError`
        for a run that is not there, or has no such field.
        """
        from numb import notebook

        return notebook.melded(self, runs, name, field)

    def __repr__(self) -> str:
        return f"<project {self.home}: {record.counted(len(self.all), 'run')}>"

    def _repr_html_(self) -> str:
        return self.all._repr_html_()

    # -- looking

    def find(self, text: str) -> Run:
        """The run that an id, a unique beginning of one, its last four letters, its name, `@`, `@-1` or a tag names.

        A trial, or what a revert has kept, is meant only where no run is. Raises `RunNotFound` with the candidates.
        """
        self.branch.recover()
        if not text.isprintable() or len(text) > 200 or not text:
            raise RunNotFound("not the id of a run", "numb list")
        if text[0] == "@":
            back = text[1:] or "-0"
            if not (back[0] == "-" and back[1:].isdecimal() and len(back) < 9):
                raise RunNotFound(f"{text}: say @ for the newest run, @-1 for the one before", "numb list")
            newest = self.index.newest(int(back[1:]), self.place)
            if newest is None:
                there = record.counted(self.index.projects().get(self.place, 0), "run")
                raise RunNotFound(f"{text}: there {'is' if there == '1 run' else 'are'} {there}", "numb list")
            return self._get(newest)
        called = [] if record.is_id(text) else self.index.called(text)
        if len(called) == 1:
            return self._get(called[0])
        named = [self._get(name) for name in self.index.matching(text, limit=-1)]
        runs = [run for run in named if run.id == text or run.kind == TRAIN]
        if len(runs or named) == 1:
            return (runs or named)[0]
        if named:
            which = record.some([run.id for run in runs or named])
            raise RunNotFound(
                f"{text} is the beginning of several {'runs' if runs else 'entries'}: {which}", "add a letter"
            )
        for row in self.in_flight():
            ends = len(text) == 4 and row.run.id.endswith(f"-{text}")
            if ends or row.run.id.startswith(text) or text in (row.said.name, *row.said.tags):
                return row.run
        tagged = self.git.resolve_tag(text) if not text.startswith("-") else None
        run = self.index.by_commit(tagged) if tagged else None
        if run is None and (removed := self.index.removed(text)):
            raise RunNotFound(f"{record.some(list(removed))} was removed", "numb undo takes back the last removal")
        if run is None and text.rpartition("@")[2].isdecimal() and text[0] != "@":
            raise RunNotFound(f"{text} is a step, and a whole run is asked for", f"numb show {text.rpartition('@')[0]}")
        if run is None and called:
            raise RunNotFound(
                f"{record.counted(len(called), 'run')} have the tag {text}: {record.some(called)}", "name one"
            )
        if run is None:
            raise RunNotFound(f"there is no run {text}", "numb list")
        return run

    def newest(self) -> Run:
        """The newest run, which may be in flight. Raises `RunNotFound` where there is none."""
        flying = [row.run for row in self.in_flight() if row.run.kind == TRAIN and row.run.project == self.place]
        return max(flying, key=lambda run: run.id) if flying else self.find("@")

    def find_checkpoint(self, text: str) -> tuple[Run, int | None]:
        """A run and a step of it: what `find` takes, and then `@50`; without that the step is None."""
        name, at, step = text.rpartition("@")
        if at and name and step.isdecimal() and len(step) < 16:
            return self.find(name), int(step)
        return self.find(text), None

    def _get(self, run_id: str) -> Run:
        run = self.index.get(run_id)
        if run is None:
            raise RunNotFound(f"there is no run {run_id}", "numb list")
        return run

    def runs(
        self,
        *,
        where: str | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        statuses: Sequence[str] = (),
        untrialed: bool = False,
        architecture: str | None = None,
        all_projects: bool = False,
    ) -> list[Row]:
        """The train runs, oldest first, with those in flight; *limit* keeps the newest.

        *where* is an expression of `numb.query` that holds for them, *sort* names what they are put in order by, `-` before it
        for the highest first; then *limit* keeps the first. Those of this project, or with *all_projects* those of every folder
        with an `nmb.json` that has the same branch. Raises `Usage` for an expression that cannot be understood.
        """
        self.branch.recover()
        place = None if all_projects else self.place
        if where is not None or sort:
            from numb import asking

            condition = asking.condition(where, statuses, untrialed, architecture)
            if not self.index.projects() and not asking.flying(self):
                return []  # and so no name is a mistake
            return asking.chosen(self, condition, asking.sorts(sort), limit, place)
        found = self.index.runs(
            limit=limit, statuses=statuses, untrialed=untrialed, architecture=architecture, project=place
        )
        rows = self.rows(found)
        flying = [row for row in self.in_flight() if row.run.kind == TRAIN]
        known = {row.run.id: len(row.run.segments) for row in rows}
        flying = [row for row in flying if len(row.run.segments) > known.get(row.run.id, -1)]
        if not all_projects:
            flying = [row for row in flying if row.run.project == self.place]
        if statuses:
            flying = [row for row in flying if row.run.status in statuses]
        if architecture:
            flying = [row for row in flying if row.run.architecture == architecture]
        resumed = {row.run.id for row in flying}
        rows = [*(row for row in rows if row.run.id not in resumed), *flying]
        return rows if limit is None else rows[max(0, len(rows) - limit) :]

    def rows(self, runs: Sequence[Run]) -> list[Row]:
        """Runs of the branch with their trials, and what was said about them."""
        trials, lost = self.index.trials(run.id for run in runs), self.index.lost()
        remarks = self.index.remarks(run.id for run in runs)
        return [Row.of(run, trials.get(run.id, ()), remarks.get(run.id, ()), lost=run.commit in lost) for run in runs]

    def best(
        self, by: str | None = None, number: int = 1, *, lowest: bool | None = None, where: str | None = None
    ) -> list[Row]:
        """The runs with the best values under a name, which is that of the only result if none is given; the best first.

        With *lowest* None its name says whether low is good: a loss, an error. Raises `Usage`.
        """
        from numb import asking

        return asking.best(self, by, number, lowest, where)

    def lacking(self, by: str, where: str | None = None) -> int:
        """How many of the runs that `best` is asked about have nothing under a name. Raises `Usage`."""
        from numb import asking

        return asking.lacking(self, by, where)

    def values(self, rows: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
        """What *rows* have under these names, as the expressions of `numb.query` spell them; None where they have nothing.

        Raises `Usage` for a name that no run has.
        """
        from numb import asking

        return asking.values(self, rows, names)

    def names(self) -> list[str]:
        """Every name that runs have a value under: facts, hyperparameters, results, series."""
        from numb import asking

        return asking.names(self)

    def sql(self, text: str, *, all_projects: bool = False) -> Answer:
        """What a query says of the table `runs`, which is as the branch is now; it cannot change anything. Raises `Usage`."""
        from numb import asking

        return asking.sql(self, text, None if all_projects else self.place)

    def export(
        self, target: Path, where: str | None = None, sort: Sequence[str] = (), names: Sequence[str] = ()
    ) -> int:
        """Write a table of the runs, as CSV, JSON or Parquet by the suffix of *target*; returns how many they are.

        It has all names, or *names*. Raises `Usage`.
        """
        from numb import asking

        return asking.export(self, Path(target), where, sort, names)

    def repeats(self) -> dict[RunId, list[Run]]:
        """Runs that did the same with the same code as another, by that one: those that nobody misses."""
        from numb import asking

        return asking.repeats(self)

    def duplicates(self) -> list[Row]:
        """The runs that have the same architecture, hyperparameters and beginning as others, those together, oldest first."""
        from numb import asking

        return asking.duplicates(self)

    def chosen(self, names: Sequence[str] = (), where: str | None = None) -> list[Row]:
        """The runs that are named, each once; or those for which *where* holds, or all of this project, oldest first.

        Raises `RunNotFound` and `Usage`.
        """
        if names and where is not None:
            raise Usage("IDs and --where exclude each other", "choose one of them")
        if not names:
            return self.runs(where=where)
        return [self.row(run) for run in {run.id: run for run in map(self.find, names)}.values()]

    def elsewhere(self) -> dict[str, int]:
        """How many runs other projects of this repository have on the same branch, by their folders."""
        return {place: count for place, count in self.index.projects().items() if place != self.place}

    def in_flight(self) -> list[Row]:
        """What is running, or was cut off and is not on the branch yet, as far as it is known."""
        rows: list[Row] = []
        for left in inflight.all_left(self.layout):
            if left.run is None:
                continue
            told = left.flight.told()
            artifacts = {name: every[-1] for name, every in told.artifacts.items()}
            run = replace(left.run, models=told.models, params=told.params, results=told.results, artifacts=artifacts)
            if not left.running and run.status == record.RUNNING:
                run = replace(run, status=record.LOST)
            remarks = self.index.remarks([run.id]).get(run.id, ())
            rows.append(replace(Row.of(run, (), remarks), orphaned=left.orphaned))
        return rows

    def row(self, run: Run) -> Row:
        """A run with its trials, and what was said about it."""
        return self.rows([run])[0]

    def whereabouts(self, row: Row) -> str:
        """Where a run is kept: `COMMIT:.nmb/run`, which git takes for a folder, or the folder of one that is in flight."""
        run = row.run
        return f"{run.commit}:{layout.RECORD_FOLDER}" if run.commit else str(self.layout.run(run.id).path)

    def begun_with(self, run: Run) -> list[Run]:
        """The runs that began with the weights of *run*, oldest first."""
        return self.index.begun_with(run.id)

    def commit(self, run: Run) -> str:
        """The commit of a run. Raises `RunNotFound` while it has none, and `ObjectMissing` where git has lost it."""
        if run.commit is None:
            raise RunNotFound(f"{run.id} is not on the branch yet ({run.status})", "numb list")
        if run.commit in self.index.lost():
            raise ObjectMissing(f"git has lost the commit of {run.id}, {run.commit}", "numb doctor")
        return run.commit

    def log(self, run: Run) -> bytes:
        """What the script printed, byte for byte."""
        if run.commit is None:
            with contextlib.suppress(OSError):
                return self.layout.run(run.id).log.read_bytes()
            return b""
        return self.branch.read(run, "output.log") or b""

    def patch(self, run: Run, *, color: bool = False) -> bytes:
        """What the code of the run had changed against the user's HEAD of that time."""
        return self.git.patch(run.base or self.git.empty_tree(), self.commit(run), color=color)

    def difference(
        self,
        first: Run,
        second: Run | None = None,
        parts: Collection[str] | None = None,
        *,
        color: bool = False,
        exact: bool = True,
    ) -> Difference:
        """What differs between a run and another, or the work tree as a run would take it now, in all *parts* or these.

        The code is a patch as `git apply` reads it, or unless *exact* one for a person, with a summary. What is not known of
        one of the two is in the notes, and no difference.
        """
        from numb import comparing

        return comparing.difference(self, first, second, parts or comparing.PARTS, color=color, exact=exact)

    def code_difference(self, first: Run, second: Run | None = None, *, color: bool = False) -> bytes:
        """What changed in the code from a run to another, or to the work tree, as `git apply` reads it.

        Raises `ObjectMissing` where git has no snapshot of one of them.
        """
        from numb import comparing

        return comparing.code(self, first, second, color=color)

    def compare(self, runs: Sequence[Run], *, every: bool = False) -> Comparison:
        """Several runs beside each other: what differs between them, or *every* fact that is known."""
        from numb import comparing

        return comparing.compared(self, runs, every=every)

    def joined(self, runs: Mapping[str, str], name: str) -> Melded:
        """One field of a series of several *runs*, by their ids, joined to a table with a column for each of their labels.

        *name* is `SERIES:FIELD`, or a field of `numb.log`. Raises `KeyError` for a run that has no such field.
        """
        from numb import comparing

        return comparing.melded(self, runs, name)

    def networks(self, run: Run) -> list[Network]:
        """The operators of each model of a run."""
        from numb import comparing

        return comparing.networks(self, run)

    def environment(self, run: Run) -> dict[str, Any]:
        return self.branch.read_object(run, "environment.json") or {}

    def traceback(self, run: Run) -> str:
        return (self.branch.read(run, "traceback.txt") or b"").decode(errors="replace")

    def missing_weights(self, run: Run) -> list[str]:
        """Objects that the run's weights need and that are not here."""
        return self.missing_objects([run]).get(run.id, [])

    def missing_objects(self, runs: Sequence[Run]) -> dict[str, list[str]]:
        """By run, what its weights need and what is not here: objects, and manifests that git cannot read."""
        missing: dict[str, list[str]] = {}
        for run in runs:
            if absent := [digest for digest, size in run.large.items() if not self.objects.has(digest, size)]:
                missing[run.id] = absent
        for run, manifest, sizes in self.branch.manifests(runs):
            absent = [manifest] if sizes is None else [d for d, size in sizes.items() if not self.objects.has(d, size)]
            if absent:
                missing.setdefault(run.id, []).extend(absent)
        return missing

    def sizes(self, runs: Sequence[Run]) -> dict[str, int]:
        """The objects that *runs* need, as far as their manifests can be read, and their sizes."""
        found: dict[str, int] = {}
        for run in runs:
            found |= run.large
        for _, _, sizes in self.branch.manifests(runs):
            found |= sizes or {}
        return found

    def runs_with(self, digest: str) -> list[RunId]:
        """The runs whose weights need an object, oldest first."""
        runs = self.index.runs(sound=True)
        return [run.id for run, _, sizes in self.branch.manifests(runs) if sizes and digest in sizes]

    def load(self, run: Run, *names: str) -> Any:
        """What the run has saved under a name, as the value that it was; a tuple of several, or of none the names.

        Bytes are compared with their hash first. Raises `KeyError` with the names that there are, `ObjectMissing`, and
        `ObjectCorrupt`.
        """
        if not names:
            return tuple(run.artifacts)
        found = tuple(self._load(run, name) for name in names)
        return found[0] if len(found) == 1 else found

    def _load(self, run: Run, name: str) -> Any:
        from numb import artifacts

        kept = run.artifacts.get(name)
        if kept is None:
            stems = [each for each in run.artifacts if each.rpartition(".")[0] == name]
            inside = [each for each in run.artifacts if each.startswith(f"{name}/")]
            if inside:
                return {each.removeprefix(f"{name}/"): self._load(run, each) for each in inside}
            if len(stems) != 1:
                raise _no_artifact(run, name)
            name, kept = stems[0], run.artifacts[stems[0]]
        if kept.is_state:
            manifest = self.branch.read_object(run, kept.file or "")
            if manifest is None:
                raise ObjectMissing(f"{run.id}: the manifest of {name} is missing", "numb doctor")
            return self._read(manifest)["value"]
        try:
            return artifacts.decoded(name, self.artifact(run, name))
        except ValueError as error:
            raise ObjectCorrupt(f"{name} of {run.id} cannot be read: {error}", "numb doctor") from error

    def series(self, run: Run, name: str = "log") -> Iterator[Block]:
        """The rows of a series, some at a time; of a run in flight those that have come by now.

        Raises `KeyError` with the names that there are, `ObjectMissing` and `ObjectCorrupt`.
        """
        from numb import tables

        return tables.blocks(self, run, name)

    def series_csv(self, run: Run, name: str) -> bytes:
        """The table of a series of a run that has ended. Raises what `series` raises."""
        from numb import tables

        return tables.content(self, run, name)

    def follow(self, run: Run, name: str | None = None) -> Iterator[Block | None]:
        """The rows of one series, or of all, and then what comes until the run is on the branch; None when nothing has come.

        Who asks for the next one decides how long to wait. Raises what `series` raises.
        """
        from numb import tables

        return tables.follow(self, run, name)

    def follow_log(self, run: Run) -> Iterator[bytes]:
        """What the script has printed, and then what it prints until the run is on the branch; empty when nothing has come."""
        from numb import tables

        path, seen = self.layout.run(run.id).log, 0
        for _ in tables.unpublished(self, run):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(seen)
                seen += len(came := file.read())
                yield came
            yield b""
        yield self.log(self.find(run.id))[seen:]

    def watched(self, names: Sequence[str] = ()) -> list[Watched]:
        """The runs of these names, or those in flight, or else the newest, each to be looked at again and again.

        Raises `RunNotFound`.
        """
        from numb import watching

        return watching.chosen(self, names)

    def weight_differences(
        self, first: tuple[Run, int | None], second: tuple[Run, int | None]
    ) -> dict[str, list[TensorDifference]]:
        """How the weights of one run, or of a step of it, differ from those of another, by model, tensor by tensor.

        Only what differs is read. Raises `ArtifactMissing` where they have no model in common.
        """
        from numb.capture import comparing

        here, there = self._states(*first), self._states(*second)
        common = {name: name for name in here if name in there}
        if not common and len(here) == len(there) == 1:
            common = dict(zip(here, there, strict=True))
        if not common:
            raise ArtifactMissing(f"{first[0].id} and {second[0].id} have no model in common", "numb list")
        for name, other in common.items():
            self.bring(comparing.unequal(here[name], there[other]))
        return {name: comparing.differences(here[name], there[other], self.objects) for name, other in common.items()}

    def _states(self, run: Run, step: int | None) -> dict[str, Manifest]:
        """The manifests of a run's models, or those of the parts of a checkpoint; a network by its model's name."""
        from numb import beginnings
        from numb.capture.manifest import Manifest

        if step is None:
            return {name: Manifest.of(self._manifest(run, name)) for name in run.weights}
        kept = beginnings.checkpoint_of(run, step)
        parts = Manifest.of(self.branch.read_object(run, kept.manifest) or {}).parts()
        return {kept.networks.get(name) or name: part for name, part in parts.items()}

    def artifact(self, run: Run, name: str) -> bytes:
        """The bytes of a file that the run has saved, compared with their hash. Raises what `load` raises."""
        kept = run.artifacts.get(name)
        if kept is None:
            raise _no_artifact(run, name)
        if kept.is_state:
            raise ArtifactMissing(f"{name} of {run.id} is tensors, not a file", f"numb report {run.id}")
        return self.kept_bytes(run, name, kept)

    def kept_bytes(self, run: Run, name: str, kept: Artifact | Series) -> bytes:
        """The bytes of a file of the run, or of the object that stands for it, compared with their hash.

        Raises `ObjectMissing` and `ObjectCorrupt`.
        """
        from numb.store.objects import Ref, hash_of

        if kept.file is None:
            self.bring([Ref(kept.hash or "", kept.size)])
            return bytes(self.objects.open_verified(kept.hash or "", kept.size))
        content = self.branch.read(run, kept.file)
        if content is None:
            raise ObjectMissing(f"{run.id}: {name} is missing", "numb doctor")
        if hash_of(content) != kept.hash:
            raise ObjectCorrupt(f"{name} of {run.id} is damaged", "numb doctor")
        return content

    def load_state(self, run: Run, step: int | None = None, model: str | None = None) -> Any:
        """The state dict of one of the run's models; with a *step* the parts of that checkpoint by name, or that of a *model*.

        Raises `ArtifactMissing` and `Refused` where there is none, `ObjectMissing` and `ObjectCorrupt`.
        """
        from numb import beginnings

        if step is not None:
            kept = beginnings.checkpoint_of(run, step)
            manifest = self.branch.read_object(run, kept.manifest)
            if model is not None:
                part = next((part for part in kept.parts if model in (part, kept.networks.get(part))), None)
                if part is None:
                    raise ArtifactMissing(
                        f"{run.id}@{step} has {', '.join(kept.parts)}, and no {model}", f"numb show {run.id}"
                    )
                return self.load_state(run, step)[part]
        elif model is None and len(run.weights) != 1:
            raise ArtifactMissing(f"{run.id} has weights of {', '.join(run.weights) or 'no model'}", "name the model")
        else:
            manifest = self._manifest(run, model or next(iter(run.weights)))
        if manifest is None:
            raise ObjectMissing(f"{run.id}: the manifest of step {step} is missing", "numb doctor")
        return self._read(manifest)

    def _read(self, manifest: dict[str, Any]) -> Mapping[str, Any]:
        """The state that a manifest describes; its objects are fetched if they are not here."""
        from numb.capture import weights
        from numb.capture.manifest import Manifest

        self.bring(Manifest.of(manifest).refs())
        return weights.read(manifest, self.objects)

    def _manifest(self, run: Run, name: str) -> dict[str, Any]:
        if name not in run.weights:
            raise ArtifactMissing(f"{run.id} has no weights of {name}", f"numb show {run.id}")
        manifest = self.branch.read_object(run, run.weights[name].manifest)
        if manifest is None:
            raise ObjectMissing(f"{run.id}: the manifest of {name}'s weights is missing", "numb doctor")
        return manifest

    # -- plotting

    def curves(
        self,
        names: Sequence[str] = (),
        series: Sequence[str] = (),
        *,
        x: str | None = None,
        smooth: int = 1,
        log: bool = False,
        where: str | None = None,
    ) -> Curves:
        """Numbers over time, thinned to what can be seen: of the runs that are named, those where *where* holds, or the newest.

        Each of *series* makes a frame: `loss`, a field of `numb.log`, `val:loss`, or several with commas between them; without
        any, the losses and what else there is. *x* is a field, `row` or `elapsed`; else the first field, if it says when.
        *smooth* is over how many rows a mean is taken. Raises `ArtifactMissing` and `NotPossible`, and what `series` raises.
        """
        from numb import plotting

        return plotting.curves(self, names, series, x, smooth, log=log, where=where)

    def scatter(
        self, x: str, y: str, names: Sequence[str] = (), *, log: bool = False, where: str | None = None
    ) -> Scatter:
        """A result *y* against a hyperparameter *x*, of runs chosen as for `curves`, or of all of the newest architecture.

        Names are those of expressions. Raises `Usage` and `NotPossible`.
        """
        from numb import plotting

        return plotting.scatter(self, names, x, y, log=log, where=where)

    def parallel(
        self, result: str, names: Sequence[str] = (), *, log: bool = False, where: str | None = None
    ) -> Parallel:
        """Every hyperparameter that differs, and a result, of such runs as `scatter` takes. Raises what that raises."""
        from numb import plotting

        return plotting.parallel(self, names, result, log=log, where=where)

    def picture(self, chart: Chart, into: Path) -> Path:
        """Write a chart into a file, as PNG or SVG by its suffix. Raises `NotPossible` where matplotlib is missing."""
        from numb import plotting

        return plotting.picture(chart, into)

    # -- going back

    def revert(self, run: Run) -> Reverted:
        """Make the work tree the snapshot of *run*. What was there before is committed first.

        HEAD, the branch and the user's index stay. Ignored files are not deleted; one that stands in the way is saved with
        the rest and replaced. Raises `WouldOverwrite`, having changed nothing, when a file changes meanwhile.
        """
        from numb import revert

        return revert.go_to(self, run)

    def undo_revert(self) -> Reverted:
        """Bring back what the last `revert` replaced."""
        from numb import revert

        return revert.undo(self)

    def check_out(self, run: Run, target: Path) -> None:
        """Write the snapshot of *run* into the new directory *target*; nothing else is touched."""
        from numb import revert

        revert.export(self, run, Path(target))

    # -- taking out

    def report(self, run: Run, into: Path | None = None, step: int | None = None) -> Path:
        """Write everything known about *run* into a directory that must not exist yet, with its checkpoint of *step*.

        Without a step the checkpoint is the last one of a run that has kept no weights at its end. The directory appears
        complete or not at all. Raises `Refused` for a step that there is not, `TargetExists`, `ObjectMissing`, `ObjectCorrupt`.
        """
        from numb import reporting

        return reporting.written(self, run, Path(into) if into else Path.cwd() / f"report-{run.id}", step)

    def page(self, run: Run, into: Path | None = None) -> Path:
        """Write everything known about *run* as one page for a browser; returns its file.

        *into* is the file, `….html`, or else a new directory for it. What is there is not overwritten: `TargetExists`.
        """
        from numb import pages

        return pages.of_run(self, run, Path(into) if into else Path.cwd() / layout.page(run.id))

    def overview(self, into: Path | None = None, where: str | None = None) -> Path:
        """Write a page of all runs, or those for which *where* holds: see `page`, and `runs` for what is raised."""
        from numb import pages

        return pages.of_project(self, where, Path(into) if into else Path.cwd() / "report")

    def purge_plan(self, words: Sequence[str], where: Path | None = None) -> Purge:
        """What `purge` would take out of the branch: runs by their ids, or a path, as it is typed in the folder *where*.

        Raises `RunNotFound` for what is neither.
        """
        from numb import purging

        return purging.planned(self, words, where or Path.cwd())

    def purge(self, plan: Purge) -> list[str]:
        """Rewrite the branch of the runs without what the *plan* says; returns the remotes that still have it.

        Raises `BranchInUse`.
        """
        from numb import purging

        return purging.carried_out(self, plan)

    # -- other places

    def push(self, name: str | None = None, progress: Progress = lambda done, total: None) -> Pushed:
        """Send objects to a place of `nmb.json`, then the branch to the remote of git's that goes with it.

        Only what the other side lacks; one that is cut off goes on where it stopped. *progress* is told of bytes done and in
        all. Raises `Usage` and `RemoteFailed`.
        """
        from numb import sharing

        return sharing.push(self, name, progress)

    def pull(
        self, name: str | None = None, progress: Progress = lambda done, total: None, *, objects: bool = False
    ) -> Pulled:
        """Fetch the branch and join it with the one here; objects come when they are needed, or all of them now.

        Raises `Usage` and `RemoteFailed`.
        """
        from numb import sharing

        return sharing.pull(self, name, progress, objects=objects)

    def add_remote(self, name: str, url: str, git: str | None = None) -> None:
        """Write a place for objects into `nmb.json`. Raises `Usage` for what is none."""
        from numb import sharing

        sharing.add(self, RemotePlace(name, url, git or name))

    def remove_remote(self, name: str) -> None:
        """Take a place out of `nmb.json`; what is there stays there. Raises `Usage`."""
        from numb import sharing

        sharing.remove(self, name)

    def bring(self, refs: Iterable[Ref]) -> None:
        """Fetch those of these objects that are not here, from whichever place has them."""
        wanted = set(refs) if self.config.remotes else ()
        if any(not self.objects.has(ref.digest, ref.size) for ref in wanted):
            from numb import sharing

            sharing.bring(self, wanted, self.talk.progress)

    # -- order in the store

    def remove(self, runs: Sequence[Run]) -> Run:
        """Remove runs and their trials, by an entry on the branch; `undo` takes it back. Raises `NotPossible`."""
        from numb import housekeeping

        return housekeeping.remove(self, runs)

    def remark(
        self,
        run: Run,
        *,
        message: str = "",
        tags: Sequence[str] = (),
        untags: Sequence[str] = (),
        name: str | None = None,
        results: Mapping[str, Any] | None = None,
    ) -> Run:
        """Say something about a run, also while it is in flight, by an entry on the branch; `undo` takes it back.

        A *message* is a note, *name* what the run is called from now on (empty: nothing), *results* are merged into its own.
        Raises `NotPossible` for a trial, and `Usage` for a name or tag that is none, or a name that another run has.
        """
        from numb import remarks

        return remarks.made(self, run, message, tags, untags, name, results or {})

    def undo(self) -> tuple[Run, list[RunId]]:
        """Take back the last removal or remark; returns it, and the runs that it was about. Raises `NotPossible`."""
        from numb import housekeeping

        return housekeeping.undo(self)

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove objects that no run names. Raises `NotPossible` while somebody saves, and `ObjectMissing`."""
        from numb import housekeeping

        return housekeeping.collect(self, dry_run=dry_run)

    def extract(self, run: Run) -> dict[str, Any]:
        """Have the function that nmb.json names look at a run that has ended, and add what it returns to the run's results.

        Raises `NotPossible` where that is nothing of the kind.
        """
        from numb import extraction

        return extraction.again(self, run)

    def usage(self) -> list[Used]:
        """The bytes that each run needs in the store, and those that no other one needs, oldest first."""
        from numb import housekeeping

        return housekeeping.usage(self)

    def verify(self, runs: Sequence[Run] | None = None) -> list[Finding]:
        """Read every byte that *runs* need, or all there are, and compare its hash; returns what is wrong."""
        from numb import housekeeping

        return housekeeping.verify(self, runs)

    # -- health

    def doctor(self, *, fix: bool = False) -> list[Finding]:
        """Check the invariants; with *fix*, repair what can be repaired. Only what is wrong is in the list."""
        from numb import doctor

        found = doctor.examine(self, fix=fix)
        self.branch.refresh()
        return found

    # -- the end of numb here

    def deletion(self) -> Deletion:
        """What `deinit` would destroy."""
        from numb import deinit

        return deinit.deletion(self)

    def deinit(self) -> str | None:
        """Remove `nmb.json`, `.nmb/` and the branch; returns the branch's last commit, by which git can still find it."""
        from numb import deinit

        return deinit.everything(self)


class Background(Generic[T]):
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


def _no_artifact(run: Run, name: str) -> ArtifactMissing:
    there = record.some(list(run.artifacts), 20) or "no artifacts"
    return ArtifactMissing(f"{run.id} has no {name}; it has {there}", f"numb show {run.id}")


def _original(path: Path, known: Layout) -> Path:
    """A path, or what it stands for where it is in a folder in which a job of a queue runs."""
    with contextlib.suppress(ValueError, OSError):
        parts = path.resolve().relative_to(known.work.resolve()).parts
        original = Path(path.anchor, *parts[2:])
        return original if original.parent.is_dir() else known.root
    return path


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


def _refusal(told: Told, outcome: Outcome) -> Refused | None:
    """What the script itself was ended for; a Ctrl-C may have come between an answer and its arrival."""
    if told.refused is None:
        return None
    return (Interrupted if signal.SIGINT in outcome.passed_on else Refused)(*told.refused)
