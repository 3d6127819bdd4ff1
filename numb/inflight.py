"""A run in flight: its folder, what its script has told, and what came of it.

The launcher makes the folder, the hooks fill it, and `conclude` turns it into a record, whether the launcher that made it
is still there or not. Nothing here knows git or the index.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import alive, atomic, record
from numb.errors import NumbError, StorageFailed
from numb.hp.tree import ancestors
from numb.layout import Layout, RunFolder
from numb.order import Order
from numb.record import (
    COMPLETE,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    KILLED,
    LOST,
    TRAIN,
    Artifact,
    Checkpoint,
    Model,
    Run,
    RunId,
    Weights,
)

if TYPE_CHECKING:
    from numb.launch import Outcome

RESERVE = 1 << 18  # bytes kept free for the end of a run

_ALLOWED = re.compile(
    r"CUDA_VISIBLE_DEVICES|CUDA_LAUNCH_BLOCKING|CUBLAS_WORKSPACE_CONFIG|PYTORCH_\w*ALLOC_CONF|TORCH_(LOGS|DETERMINISTIC)\w*"
    r"|OMP_NUM_THREADS|MKL_NUM_THREADS|OPENBLAS_NUM_THREADS|PYTHONHASHSEED|PYTHONPATH|VIRTUAL_ENV|CONDA_DEFAULT_ENV"
    r"|RANK|LOCAL_RANK|WORLD_SIZE|SLURM_(JOB_ID|ARRAY_TASK_ID|PROCID|NTASKS|JOB_PARTITION|NODELIST)|TZ|LANG"
)
_SECRET_FLAG = re.compile(r"(?i)(^|[-_])(pass(word|wd)?|token|secret|api[-_]?key|credentials?)$")
_URL_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that the events of a run say, added up."""

    started: bool = False
    ended: bool = False
    queued: bool = False  # `numb_queue` was called
    read: frozenset[str] = frozenset()  # hyperparameters that the script has used or registered
    called: frozenset[str] = frozenset()  # those among them that calls of a placeholder asked for
    constants: frozenset[str] = frozenset()  # those that only stood above `numb_queue`
    process: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    operators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Weights] = field(default_factory=dict)
    checkpoints: Mapping[int, Checkpoint] = field(default_factory=dict)  # by step
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(
        default_factory=dict
    )  # all that had the name, the last one last
    dropped: frozenset[int] = frozenset()  # by the rules
    lost: tuple[tuple[int, str], ...] = ()  # steps whose checkpoint could not be kept, and why
    asked: str | None = None  # by what it was asked to stop
    finished: tuple[str, str | None] | None = None  # how it said that it has ended
    guarded: str | None = None  # which rule has ended it
    signal: str | None = None  # which one has ended it, where no launcher sees that
    message: str = ""
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    exception: str | None = None
    exception_type: str | None = None
    refused: tuple[str, str | None] | None = None
    surroundings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str | None:
        return record.joined_architecture(model.architecture for model in self.models.values())


class InFlight:
    """One run folder, with the lock that says that its launcher lives."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._alive = atomic.Lock(folder.alive)
        self._pipes: tuple[int, int] | None = None

    @classmethod
    def begin(cls, layout: Layout, run: Run, order: Order) -> InFlight:
        """Make the folder of *run*, take its lock, and write down what the script must know."""
        atomic.make_directory(layout.runs)
        path = layout.runs / run.id
        try:
            path.mkdir()
        except FileExistsError:
            raise
        except OSError as error:
            raise StorageFailed(f"cannot make {path}: {error.strerror}", "make room, or make .nmb writable") from None
        self = cls(RunFolder(path))
        try:
            self._alive.try_acquire()
            self.folder.content.mkdir()
            self.write_state(run)
            atomic.write(self.folder.order, replace(order, id=run.id, mode=run.kind).to_json())
            atomic.reserve(self.folder.reserve, RESERVE)
        except (NumbError, OSError):
            with contextlib.suppress(NumbError):
                self.discard()
            raise
        return self

    def adopt(self) -> bool:
        """Become the one who concludes a run whose launcher has died. False if somebody else does, or just has."""
        try:
            return self._alive.try_acquire()
        except StorageFailed:
            if not self.folder.path.exists():
                return False
            raise

    def write_end(self, run: Run) -> None:
        """Write down how the run ended, also on a disk that has filled meanwhile: some room was kept for that."""
        self.folder.reserve.unlink(missing_ok=True)
        self.write_state(run)

    def write_state(self, run: Run, **facts: Any) -> None:
        """Write down, whole, what the launcher knows."""
        state = {
            "run": run.to_json(),
            "launcher": alive.identity(),
            **facts,
        }
        atomic.write(self.folder.state, record.dumps(state))

    def state(self) -> dict[str, Any]:
        """What was last written down; `ValueError` or `OSError` when it cannot be read."""
        plain = json.loads(self.folder.state.read_bytes())
        if not isinstance(plain, dict):
            raise ValueError("not an object")
        return plain

    # -- talking with the script

    def open_doorbell(self) -> int | None:
        """Make the two FIFOs; returns the end that becomes readable when the script asks. None where FIFOs cannot be."""
        try:
            os.mkfifo(self.folder.ask)
            os.mkfifo(self.folder.answer)
            # Opened for both directions, so that they never close while the launcher lives, and do when it dies.
            self._pipes = (
                os.open(self.folder.ask, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC),
                os.open(self.folder.answer, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC),
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
                raise StorageFailed(f"cannot make {self.folder.ask}: {error.strerror}", "make room") from None
            return None
        return self._pipes[0]

    def questions(self) -> list[dict[str, Any]]:
        """What the script has asked since the last time."""
        assert self._pipes is not None
        received = b""
        while True:
            try:
                part = os.read(self._pipes[0], 1 << 16)
            except BlockingIOError:
                if not received or received.endswith(b"\n"):
                    break
                time.sleep(0.001)  # a long question comes in pieces
                continue
            received += part
        return [json.loads(line) for line in received.splitlines() if line]

    def answer(self, said: Mapping[str, Any]) -> None:
        assert self._pipes is not None
        os.write(self._pipes[1], json.dumps(said).encode() + b"\n")

    # -- what came of it

    @property
    def order(self) -> Order:
        """What the script was told when the run began; nothing where that cannot be read any more."""
        return Order.known(self.folder)

    def origins(self) -> dict[str, dict[str, str]]:
        """Of each hyperparameter that was set from outside, at which level and by what."""
        order = self.order
        return {name: {"level": order.levels.get(name, ""), "origin": text} for name, text in order.origins.items()}

    def told(self) -> Told:
        try:
            content = self.folder.events.read_bytes()
        except OSError:
            return Told()
        return added_up(content)

    def forget(self) -> None:
        """In a forked child of the process that holds it: it is the parent's alone."""
        self._alive.forget()

    def close(self) -> None:
        for fd in self._pipes or ():
            os.close(fd)
        self._pipes = None
        self._alive.release()

    def discard(self) -> None:
        """Remove the folder: the run is on the branch, or never was one."""
        atomic.remove_tree(self.folder.path)
        self.close()


def added_up(content: bytes) -> Told:
    """Read events. A torn last line is what a killed writer leaves; a bad line in the middle is counted and passed over."""
    told, bad = Told(), 0
    lines = content.split(b"\n")
    for line in lines[:-1]:
        if not line:
            continue
        try:
            told = _with(told, json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            bad += 1
    return replace(told, notes=(*told.notes, f"{bad} unreadable events")) if bad else told


def _with(told: Told, event: Mapping[str, Any]) -> Told:
    match event["event"]:
        case "start":
            return replace(told, started=True, process=event["process"], surroundings={**told.surroundings, **event})
        case "surroundings":
            return replace(told, surroundings={**told.surroundings, **event})
        case "model":
            model = Model(event["architecture"], event["rung"], event["type"], event["parameters"], event["why"])
            was = event.get("was")  # the script has given it another name
            models = {name: known for name, known in told.models.items() if name != was}
            operators = {name: known for name, known in told.operators.items() if name != was}
            return replace(
                told,
                models={**models, event["name"]: model},
                operators={**operators, event["name"]: tuple(event["operators"])},
            )
        case "param" | "queue" | "hp":
            # What the script registers sets the order, whatever was injected before.
            values = _values(event)
            params = {k: v for k, v in told.params.items() if k not in values} | values
            queued = told.queued or event["event"] == "queue"
            names = frozenset((*values, *event.get("names", ())))
            called = told.called | names if event["event"] == "hp" else told.called
            constants = (told.constants - names) | frozenset(event.get("constants", ()))
            return replace(
                told, params=params, queued=queued, read=told.read | names, called=called, constants=constants
            )
        case "result":
            return replace(told, results={**told.results, **_values(event)})
        case "weights":
            weights = Weights(f"weights/{event['name']}.json", event["tensors"], event["bytes"], event["partial"])
            left_out = tuple(f"{event['name']}: not kept: {_one_line(item)}" for item in event["left_out"])
            return replace(told, weights={**told.weights, event["name"]: weights}, notes=(*told.notes, *left_out))
        case "checkpoint":
            checkpoint = record.checkpoint_from_json(event)
            checkpoints = {**told.checkpoints, checkpoint.step: checkpoint}
            return replace(told, checkpoints=checkpoints, dropped=told.dropped - {checkpoint.step})
        case "artifact":
            artifact = Artifact(event["file"], event["size"], event["hash"], event["is_state"])
            name = str(event["name"])
            return replace(told, artifacts={**told.artifacts, name: (*told.artifacts.get(name, ()), artifact)})
        case "dropped":
            checkpoints = {step: kept for step, kept in told.checkpoints.items() if step != event["step"]}
            return replace(told, checkpoints=checkpoints, dropped=told.dropped | {event["step"]})
        case "lost":
            return replace(told, lost=(*told.lost, (int(event["step"]), str(event["why"]))))
        case "asked":
            return replace(told, asked=told.asked or str(event["reason"]))
        case "guarded":
            return replace(told, guarded=told.guarded or str(event["reason"]))
        case "signal":
            return replace(told, signal=str(event["name"]))
        case "message":
            return replace(told, message=str(event["text"]))
        case "finished":
            return replace(told, finished=_finished(event))
        case "error":
            return replace(told, errors=(*told.errors, f"{event['hook']}: {event['text'].strip().splitlines()[-1]}"))
        case "note":
            return replace(told, notes=(*told.notes, event["text"]))
        case "exception":
            return replace(told, exception=event["text"], exception_type=event["type"])
        case "refused":
            return replace(told, refused=(event["text"], event.get("hint")))
        case "end":
            return replace(told, ended=True)
        case _:  # written by a later numb
            return told


def _finished(event: Mapping[str, Any]) -> tuple[str, str | None]:
    status, reason = event["status"], event["reason"]
    if status not in (COMPLETE, INCOMPLETE, FAILED):
        raise ValueError(f"{status!r} is no status")
    return status, None if reason is None else " ".join(str(reason).split())


def _values(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.decode(value) for name, value in event["values"].items()}


def _one_line(item: Any) -> str:
    return " ".join(str(part) for part in (item.values() if isinstance(item, dict) else [item]))


def conclude(run: Run, told: Told, outcome: Outcome | None, folder: RunFolder) -> Run:
    """Say how a run ended, and put together everything that is known about it.

    *outcome* is None when the launcher died too; then the events decide, and without a last one the run is `lost`. So they do
    where nobody knows how the script ended.
    """
    is_known = outcome is not None and outcome.is_known
    supervisor = "what had forked it" if outcome else "its process" if InFlight(folder).order.own else "the launcher"
    status, reason = _ending(told, outcome if is_known else None, supervisor)
    notes = [*run.notes, *told.notes, *(f"numb: {error}" for error in told.errors)]
    if outcome is not None:
        notes += _observations(told, outcome)
    if run.kind == TRAIN and status == COMPLETE and told.started:
        set_by = InFlight(folder).origins()
        unread = [name for name in set_by if told.read.isdisjoint((name, *ancestors(name)))]
        notes += [f"{name} was set ({set_by[name]['origin']}), and the script has never read it" for name in unread]
        notes += [
            f"{name} stands in no source that numb reads, so numb hp does not list it" for name in _unseen(told, folder)
        ]
    graph = next((path.name for path in sorted(folder.content.glob("graph*.onnx"))), None)
    return replace(
        run,
        message=run.message or told.message,
        status=status,
        reason=reason,
        exit_code=outcome.exit_code if outcome is not None and is_known else None,
        seconds=_seconds(run, outcome, folder),
        models={**run.models, **told.models} if run.segments else told.models,
        params={**run.params, **told.params} if run.segments else told.params,
        constants=tuple(sorted(told.constants)),
        results=told.results,
        weights={name: kept for name, kept in told.weights.items() if (folder.content / kept.manifest).exists()},
        checkpoints=_checkpoints(run, told, folder),
        artifacts=_artifacts(run, told, folder),
        graph=graph,
        notes=tuple(notes),
    )


def _seconds(run: Run, outcome: Outcome | None, folder: RunFolder) -> float | None:
    """How long it has taken, what it took before it was resumed included."""
    before = run.segments[-1].seconds or 0.0 if run.segments else 0.0
    now = outcome.seconds if outcome else _last_sign_of_life(folder, run)
    return None if now is None else round(before + now, 3)


def _checkpoints(run: Run, told: Told, folder: RunFolder) -> tuple[Checkpoint, ...]:
    """Those of before it was resumed, and those since; of which the manifest is there."""
    known = {kept.step: kept for kept in run.checkpoints if kept.step not in told.dropped} | dict(told.checkpoints)
    there = [known[step] for step in sorted(known) if (folder.content / known[step].manifest).exists()]
    return tuple(there)


def _artifacts(run: Run, told: Told, folder: RunFolder) -> dict[str, Artifact]:
    """Of each name the last one that is there: a script may die, or find the disk full, between telling and replacing."""
    known = {name: (kept,) for name, kept in run.artifacts.items()} if run.segments else {}
    if not known and not told.artifacts:
        return {}
    from numb import rundir  # most scripts save nothing by name

    found = {}
    for name in {**known, **told.artifacts}:
        every = (*known.get(name, ()), *told.artifacts.get(name, ()))
        there = next((kept for kept in reversed(every) if rundir.is_there(folder, kept)), every[-1])
        if there.file is None or (folder.content / there.file).exists():
            found[name] = there
    return found


def _unseen(told: Told, folder: RunFolder) -> list[str]:
    """Hyperparameters that the script asked for by names which reading it does not show."""
    try:
        kept = record.loads((folder.content / "hyperparameters.json").read_bytes())
        known = {str(each["name"]) for each in kept["hyperparameters"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sorted(told.called - known)


def _ending(told: Told, outcome: Outcome | None, supervisor: str) -> tuple[str, str | None]:
    last = told.exception.strip().splitlines()[-1] if told.exception else None
    failed = (FAILED, told.guarded) if told.guarded else None
    end = failed or _incomplete(told) or told.finished or (COMPLETE, None)
    if outcome is None:
        if _nobody_reads(told):  # whatever it printed went through the launcher
            return KILLED, "the launcher died, and the script of having nobody to print to"
        if failed:
            return failed
        if told.signal:
            return INTERRUPTED, told.signal
        if told.exception:
            return (INTERRUPTED if told.exception_type == "KeyboardInterrupt" else FAILED), last
        if not told.ended:
            return LOST, f"{supervisor} died"
        return end[0], end[1] or f"{supervisor} died, the script ended by itself"
    if outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        asked = outcome.signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        return (INTERRUPTED if asked else KILLED), name
    if outcome.code == 0 or failed:
        return end
    if told.exception_type == "KeyboardInterrupt":
        return INTERRUPTED, last
    said = told.finished[1] if told.finished else None
    return FAILED, last or said or f"exit code {outcome.code}"


def _incomplete(told: Told) -> tuple[str, str] | None:
    """What speaks against taking a script that has ended well for one that has done all of its work."""
    if told.lost:
        steps = record.some([str(step) for step, _ in told.lost], 5)
        return INCOMPLETE, f"the checkpoint of step {steps} was not kept: {told.lost[-1][1]}"
    if told.finished:
        return None
    if told.asked:
        return INCOMPLETE, told.asked
    if told.checkpoints and not told.ended:  # so the one that was being written may have been cut off
        return INCOMPLETE, "the script's exit hook did not run, so the last checkpoint may be missing"
    return None


def _nobody_reads(told: Told) -> bool:
    """Whether the script ended because it could not print: through a pipe, or through a terminal (EIO)."""
    return told.exception_type == "BrokenPipeError" or (
        told.exception_type == "OSError" and f"[Errno {errno.EIO}]" in (told.exception or "")
    )


def _observations(told: Told, outcome: Outcome) -> list[str]:
    seen = []
    if told.started and not told.ended:
        seen.append(
            "the script's exit hook did not run (os._exit, a crash or a kill), so the last weights were not saved"
        )
    if not told.started:
        seen.append("the script called no hook of numb: no architecture, hyperparameters or weights")
    if outcome.survivors:
        seen.append("a process of the script was still running when the script had ended")
    if outcome.log_error:
        seen.append(f"incomplete: the log stopped: {outcome.log_error}")
    if outcome.log_cut:
        seen.append(f"{outcome.log_cut} bytes of the output are not in the log")
    if outcome.signal is None:
        seen += [f"{signal.Signals(number).name} was passed on" for number in outcome.passed_on]
    return seen


def _last_sign_of_life(folder: RunFolder, run: Run) -> float | None:
    try:
        began = run.segments[-1].resumed if run.segments else run.started
        return max(0.0, round(folder.events.stat().st_mtime - began, 3))
    except OSError:
        return None


def launched(cwd: Path, variables: Sequence[str]) -> dict[str, Any]:
    """What a run is launched in, which whoever publishes it may not be. Of the environment, an allow-list and *variables*."""
    chosen = {k: v for k, v in sorted(os.environ.items()) if _ALLOWED.fullmatch(k) or k in variables}
    return {
        "host": host(),
        "cwd": str(cwd),
        "platform": _platform(),
        "machine": os.uname().machine,
        "processors": os.cpu_count(),
        "environment": {k: _URL_USER.sub("***", v) for k, v in chosen.items()},
        "environment_left_out": len(os.environ) - len(chosen),
    }


def _platform() -> str:
    """System, release, machine and C library. `platform.platform()` says the same and takes 8 ms, before every script."""
    system = os.uname()
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    words = [system.sysname, system.release, system.machine, *(["with", libc.replace(" ", "")] if libc else [])]
    return "-".join(words)


def environment(told: Told, command: Sequence[str], launch: Mapping[str, Any]) -> dict[str, Any]:
    """What is known about where the run took place: what the script has told, and what `launched` saw."""
    around = {k: v for k, v in told.surroundings.items() if k not in ("event", "time", "process", "path")}
    if "argv" in around:
        around["argv"] = redacted(around["argv"])
    return {
        "format": record.FORMAT,
        "command": redacted(command),
        **launch,
        "script": around,
        "packages": packages(told.surroundings.get("path") or ()),
    }


def redacted(arguments: Sequence[str]) -> list[str]:
    """A command line without passwords, tokens and the user part of URLs."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        if hide_next and not argument.startswith("-"):
            argument = "***"
        name, equals, _ = argument.partition("=")
        hide_next = bool(_SECRET_FLAG.search(name)) and not equals and name.startswith("-")
        if equals and _SECRET_FLAG.search(name):
            argument = f"{name}=***"
        shown.append(_URL_USER.sub("***", argument))
    return shown


def packages(path: Sequence[str]) -> dict[str, str]:
    """The packages that a script with this `sys.path` could import, by the names of their `.dist-info` folders.

    Reads folder names only: asking `importlib.metadata` would open a file for each.
    """
    found: dict[str, str] = {}
    for folder in reversed(path):
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            if dot and suffix in ("dist-info", "egg-info") and "-" in stem:
                package, _, rest = stem.partition("-")
                found[package] = rest.partition("-py")[0]
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def host() -> str:
    """The name of this machine."""
    return os.uname().nodename


def kills_for_memory() -> int:
    """How often the kernel has killed something of this control group for want of memory."""
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        text = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
        return int(re.search(r"oom_kill (\d+)", text)[1])  # type: ignore[index]
    except (OSError, TypeError):
        return 0


@dataclass(frozen=True, slots=True)
class Left:
    """A run folder that is there: of a run that goes on, or one that must be concluded."""

    flight: InFlight
    run: Run | None
    running: bool
    orphaned: int | None = None  # the pid of a script that goes on although its launcher has died
    state: Mapping[str, Any] = field(default_factory=dict)


def all_left(layout: Layout) -> list[Left]:
    """Every run folder, oldest first."""
    try:
        names = sorted(os.listdir(layout.runs))
    except OSError:
        return []
    left = []
    for name in names:
        try:
            RunId(name)
        except ValueError:
            continue  # leftovers of an interrupted write; doctor knows them
        left.append(_look(InFlight(layout.run(name))))
    return left


def orphan(layout: Layout, run_id: str) -> int | None:
    """The process id of a run's script that goes on although its launcher has died."""
    flight = InFlight(layout.run(run_id))
    return _look(flight).orphaned if flight.folder.state.exists() else None


def is_running(layout: Layout, run_id: str) -> bool:
    """Whether a run is in flight: its launcher is there, or its script goes on without it."""
    flight = InFlight(layout.run(run_id))
    return flight.folder.state.exists() and _look(flight).running


def _look(flight: InFlight) -> Left:
    try:
        state = flight.state()
        run = Run.from_json(state["run"])
    except (OSError, ValueError, KeyError):
        return Left(flight, None, _held(flight))
    if _held(flight):
        return Left(flight, run, True, state=state)
    if run.host != host() and (state.get("launcher") or {}).get("boot") != alive.boot_id():
        return Left(
            flight, run, True, state=state
        )  # another machine's, on a shared disk: its life is not ours to judge
    told = flight.told()
    for known in (told.process, state.get("script") or {}):
        if alive.is_alive(known):
            return Left(flight, run, True, int(known["pid"]), state)
    return Left(flight, run, False, state=state)


def _held(flight: InFlight) -> bool:
    try:
        return atomic.held_elsewhere(flight.folder.alive)
    except NumbError:
        return True
