"""`numb.start`: a run that a process begins and ends by itself, in a notebook or in a script that numb has not launched.

Both halves of numb are in that process then: this one makes the folder, takes the snapshot and publishes, as the launcher
does, and the hooks record. Nothing that goes wrong in numb ends what the user does; what the user has mistaken is raised.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from numb import hooks, inflight, processes
from numb.capture import session as sessions
from numb.capture.values import BadValue, plain
from numb.errors import (
    CommandNotFound,
    ConfigError,
    NotARepository,
    NotInitialised,
    NotPossible,
    NumbError,
    Refused,
    StoreTooNew,
    one_line,
    printable,
)
from numb.launch import Outcome
from numb.layout import RUN_DIR
from numb.order import Order
from numb.project import Background, Project
from numb.record import TRAIN, Run, RunId
from numb.talk import Silent

if TYPE_CHECKING:
    from numb.capture.session import Session
    from numb.gitstore import Snapshot
    from numb.hp.params import Params
    from numb.inflight import InFlight

_MISTAKES = (NotARepository, NotInitialised, ConfigError, StoreTooNew, CommandNotFound, Refused)

_open: Started | None = None  # in this process, or in the one that it was forked from


class Started(hooks.Run):
    """What `numb.start` gives: all that `numb.run()` has, and the end of the run.

    Where numb has launched the script this is the run that it has launched, which goes on after the block. Where nothing can
    be recorded, it does nothing.
    """

    def __init__(self, parts: dict[str, Any], recording: _Recording | None) -> None:
        super().__init__()
        self._parts, self._recording = parts, recording
        self._pid, self._is_open, self._is_ending, self._in_block = os.getpid(), True, False, False
        self._given: Mapping[str, Any] = {}
        self._id: str | None = None

    def __repr__(self) -> str:
        return f"<run {self.id}{', open' if self._is_open else ''}>"

    def __enter__(self) -> Started:
        self._in_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    @property
    def is_open(self) -> bool:
        """Whether this process may still add to it."""
        return self._is_open and self._pid == os.getpid()

    @property
    def id(self) -> str | None:
        """The id of the run; None where none is recorded."""
        return self._id

    @property
    def params(self) -> Params:
        """The hyperparameters: those given to `numb.start`, as they were set, and those that were registered since."""
        from numb.hp.params import Params

        if (session := self._session()) is not None:
            self._given = {**self._given, **session.values.params}
        return Params(self._given)

    def finish(self, status: str | None = None, reason: str | None = None) -> None:
        """End the run: `complete`, or with this *status*. In a `with` block it is the end of the block that ends it."""
        super().finish(status, reason)
        if not self._in_block:
            self._end(None)

    def _session(self) -> Session | None:
        return super()._session() if self._is_open else None

    def _where(self) -> str | None:
        return super()._where() if self._is_open else None

    def _declare(self, params: Mapping[str, Any] | None, message: str, frame: FrameType) -> None:
        session = self._session()
        self._id = super().id
        self._given = params or {}
        if session is not None and params is not None:
            self._given = session.param(params, frame) or params
        if session is not None and message:
            session.event("message", text=message)

    def _end(self, error: BaseException | None) -> None:
        if not self.is_open or self._is_ending:  # a function that the end calls may end it
            return
        self._is_ending = True
        _ = self.params  # for whoever asks later
        seen: list[int] = []
        if self._recording:
            with processes.uninterruptible() as seen:
                self._recording.end(error)
            atexit.unregister(self._at_exit)
        hooks.end(self)
        self._is_open = False
        for number in seen:
            signal.raise_signal(number)

    def _at_exit(self) -> None:
        """A script ends as its last error says; where somebody types, an error has ended a line and no more."""
        error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
        was_open = self.is_open
        self._end(error)
        if was_open and isinstance(error, KeyboardInterrupt):
            sessions.remain_interrupted()


class _Recording:
    """The launcher's half of a run that this process has begun."""

    def __init__(self, project: Project, run: Run, flight: InFlight, snapshot: Snapshot | None) -> None:
        self.project, self.run, self._flight = project, run, flight
        self._began = time.monotonic()
        self._secured = Background(lambda pid: project.secure(run, flight, snapshot, None, pid))
        self._session = sessions.begin(str(flight.folder.path), self._answer)
        os.environ[RUN_DIR] = str(flight.folder.path)
        self._secured.start(os.getpid())

    @classmethod
    def begin(cls, message: str) -> _Recording:
        """Make the folder of a run and take its snapshot. Raises what keeps it from that, having left nothing."""
        project = Project.open(".", _Talk())
        for warning in project.config.warnings:
            project.talk.say(warning)
        if project.config.extract:
            from numb import extraction

            path = [each for each in sys.path if isinstance(each, str)]
            extraction.check(project, extraction.Place(sys.executable, tuple(map(os.path.abspath, path))))
        project.branch.recover()
        order = Order(
            launched=inflight.launched(Path.cwd(), project.config.environment),
            keep=project.config.keep.to_json(),
            stop_on=project.config.stop_on,
            callbacks=project.config.callbacks,
            own=True,
        )
        project.folder.make()
        run, flight = project.begin(_new_run(project, message), order)
        try:
            run, snapshot = project.captured(run, flight)
            project.branch.close()  # a listing is its thread's, and the end may come in another
            return cls(project, run, flight, snapshot)
        except BaseException:
            flight.discard()
            raise

    def take_up(self, run: Started) -> None:
        """Let what the process does from now on be part of the run."""
        if manager := sys.modules.get("numb.hp.manager"):
            manager.forget_told()
        self._session.take_up(hooks.begin_anew(run))

    def forget(self) -> None:
        """In a forked child."""
        self._flight.forget()

    def end(self, error: BaseException | None) -> None:
        """Turn the folder into a commit. Never raises; what could not be done is said, and the folder stays."""
        try:
            self._end(error)
        except Exception as trouble:  # the guard around a hook: said, and the next command of numb goes on with it
            self._flight.close()
            self.project.talk.say(
                f"{trouble if isinstance(trouble, NumbError) else one_line(trouble)} "
                f"({self.run.id} is kept in {self._flight.folder.path}): numb doctor --fix"
            )
        finally:
            self.project.branch.close()

    def _end(self, error: BaseException | None) -> None:
        code, failure = _code(error), None if isinstance(error, SystemExit) else error
        try:
            self._session.close(None if failure is None else one_line(failure), failure)
        finally:
            os.environ.pop(RUN_DIR, None)
            self._session.leave()
        outcome = Outcome(code, None, (), time.monotonic() - self._began, False, None, 0)
        told, flight = self._flight.told(), self._flight
        run = self._secured.join() or self.run
        if self._secured.error:
            run = replace(run, notes=(*run.notes, f"the snapshot could not be pinned: {self._secured.error}"))
        run = inflight.conclude(run, told, outcome, flight.folder)
        run = replace(run, exit_code=code if isinstance(error, SystemExit) else None)  # it is no process that has ended
        if self.project.config.extract:
            from numb import extraction

            run = extraction.added(self.project, run, told, flight)
        flight.write_end(run)
        self.project.branch.publish(run, told, flight)
        for note in run.notes:
            self.project.talk.say(note)
        if self.project.config.push is not None:
            from numb import sharing

            sharing.push_quietly(self.project)

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the launcher would say; that the same was trained before ends nothing here."""
        return self.project.graph_wanted(self._flight) if question["ask"] == "graph" else {}


class _Talk(Silent):
    """Says what matters where a notebook shows it."""

    def say(self, line: str) -> None:
        try:
            print(printable(f"numb: {line}"), file=sys.stderr)
        except (OSError, ValueError, AttributeError):
            pass  # nobody reads it; the work goes on


def start(params: Mapping[str, Any] | None = None, *, message: str = "", depth: int = 1) -> Started:
    """Begin a run; *depth* is how many frames above this one it was asked for. See `numb.start`."""
    global _open
    if params is not None:
        _check(params)
    if _open is not None and _open.is_open:
        raise NotPossible(f"the run {_open.id} is open in this process: end its block, or call its finish(), first")
    where = os.environ.get(RUN_DIR)
    if where and os.path.isdir(where):  # numb has launched this, or the process that has begun this one has a run
        _open = Started(hooks.run()._parts, None)
    else:
        _open = Started({}, _recording(message))
        if _open._recording:
            _open._recording.take_up(_open)
            atexit.register(_open._at_exit)
    _open._declare(params, message, sys._getframe(depth))
    return _open


def _check(params: Mapping[str, Any]) -> None:
    """Raise `TypeError` for what cannot be kept, before there is a run."""
    try:
        plain(params)
    except TypeError as error:
        raise BadValue(f"numb.start: {error}") from None


def _recording(message: str) -> _Recording | None:
    """A run, or None where it is numb's fault that there is none, which is said. Raises what is the user's."""
    if sessions.is_further_rank():
        return None
    try:
        return _Recording.begin(message)
    except _MISTAKES as error:
        if error.hint and hasattr(error, "add_note"):
            error.add_note(f"try: {error.hint}")
        raise
    except Exception as error:  # the guard around a hook: said, and the training goes on
        os.environ.pop(RUN_DIR, None)
        why = str(error) if isinstance(error, NumbError) else one_line(error)
        _Talk().say(f"{why}; the training goes on, and nothing of it is recorded")
        return None


def _new_run(project: Project, message: str) -> Run:
    now = time.time()
    command = tuple(inflight.redacted(_command(project.home)))
    return Run(
        RunId.new(now), TRAIN, round(now, 3), message=message, command=command, project=project.place,
        host=inflight.host(),
    )  # fmt: skip


def _command(home: Path) -> Sequence[str]:
    """What has started this process: its command line, or the path of the notebook where that can be told."""
    if "ipykernel" not in sys.modules or not hasattr(sys, "ps1"):
        return sys.orig_argv
    main = sys.modules.get("__main__")
    path = os.environ.get("JPY_SESSION_NAME") or getattr(main, "__vsc_ipynb_file__", None)
    if not path:
        return ["notebook"]
    return [os.path.relpath(path, home) if os.path.isabs(path) and Path(path).is_relative_to(home) else path]


def _code(error: BaseException | None) -> int:
    """The exit code of a script that this would end."""
    match error:
        case None:
            return 0
        case SystemExit(code=None):
            return 0
        case SystemExit(code=int() as code):
            return code
        case KeyboardInterrupt():
            return 130
        case _:
            return 1


def _in_child() -> None:
    if _open is not None and _open._recording is not None:
        _open._recording.forget()


os.register_at_fork(after_in_child=_in_child)
