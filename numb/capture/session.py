"""What goes on inside the user's script while it runs under numb.

One process of the script records: the first that calls a hook, unless it is a rank other than 0 or a child of
`multiprocessing`. It writes events, one line each in one write (M7), so that any death leaves a readable file; it rings the
launcher when it wants to know something; at the end it saves the weights.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from numb import alive, atomic, layout, record
from numb.capture import graph, weights
from numb.errors import NumbError, Refused
from numb.layout import RunFolder
from numb.store.objects import Objects

if TYPE_CHECKING:
    from torch import nn

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
_F = TypeVar("_F", bound=Callable[..., Any])

# References of our own, for scripts that replace these (freezegun, a patched os.fork).
_getpid, _clock, _dumps, _loads, _write, _read = os.getpid, time.monotonic, json.dumps, json.loads, os.write, os.read

_current: Session | None = None


class Stop(SystemExit):
    """numb ends the script before it does its work: with code 125, and what to say is in the events."""

    def __init__(self) -> None:
        super().__init__(Refused.exit_code)


def current(where: str) -> Session | None:
    """The session of this process, or None if it is not the one that records."""
    global _current
    if _current is None:
        if _is_helper() or not _claim(RunFolder(where)):
            return None
        _current = Session(RunFolder(where))
    if _current.pid != _getpid():  # a fork: what the parent records is not the child's (M10, M11)
        return None
    if _current.stopped:
        _leave()
    return _current


def _is_helper() -> bool:
    if any(os.environ.get(name, "0") not in ("0", "") for name in _RANKS):
        return True
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _claim(folder: RunFolder) -> bool:
    """Become the process that records, unless another one does. A dead one's place is free (`a.py && b.py`)."""
    me = alive.identity()
    for _ in range(3):
        try:
            atomic.create(folder.owner, _dumps(me))
            return True
        except FileExistsError:
            pass
        except (OSError, NumbError):
            return False  # no folder to record in; the script is not disturbed
        try:
            holder = _loads(folder.owner.read_bytes())
        except (OSError, ValueError):
            continue
        if holder == me:
            return True
        if alive.is_alive(holder):
            return False
        folder.owner.unlink(missing_ok=True)
    return False


def _leave() -> None:
    """End a script that went on although it was stopped (a bare `except:` around the hook)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(Refused.exit_code)


def _guarded(hook: _F) -> _F:
    """Keep numb's own errors out of the script: record them, say so once, go on.

    `Stop` is wanted, and a `TypeError` about the user's own value belongs to the user.
    """

    @functools.wraps(hook)
    def guarded(self: Session, *args: Any, **kwargs: Any) -> Any:
        try:
            if os.environ.get(layout.BREAK_HOOK) == hook.__name__:
                raise RuntimeError(f"{hook.__name__} was broken on purpose")
            return hook(self, *args, **kwargs)
        except (Stop, BadValue):
            raise
        except Exception as error:  # the guard around a hook: recorded, shown once
            self.trouble(hook.__name__, error)
            return args[0] if hook.__name__ == "watch" else None

    return guarded  # type: ignore[return-value]


class BadValue(TypeError):
    """A value of the user's that cannot be recorded, raised where it was given."""


class Session:
    """One recorded script: its events, its models, and what is saved of them at the end."""

    def __init__(self, folder: RunFolder) -> None:
        self.pid = _getpid()
        self.folder = folder
        self.stopped = False
        self.order: dict[str, Any] = _loads(folder.order.read_bytes())
        self.objects = Objects(folder.objects)
        self.watched: list[Watched] = []
        self.params: dict[str, Any] = {}
        self.injected: dict[str, Any] = {}
        self.queued = False
        self._said = False
        self._asked: tuple[Any, ...] | None = None
        self._building: dict[int, int] = {}
        self._lock = threading.RLock()
        self._events = atomic.Appender(folder.events)
        self.event("start", process=alive.identity(), **_interpreter())
        atexit.register(self._at_exit)
        self._save_on_signal()

    @property
    def training(self) -> bool:
        return bool(self.order["mode"] == record.TRAIN)

    # -- events

    def event(self, what: str, **facts: Any) -> None:
        line = _dumps({"event": what, "time": round(time.time(), 3), **facts}, allow_nan=False, ensure_ascii=False)
        try:
            self._events.line(line.encode(errors="surrogatepass"))
        except (OSError, NumbError):
            pass  # a full disk: the launcher finds what is missing, the training goes on (C1)

    def trouble(self, hook: str, error: BaseException) -> None:
        """Record an error of numb's own, and show the first one."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.event("error", hook=hook, text=text[-20_000:])
        if not self._said:
            self._said = True
            _tell(
                f"numb: {hook} failed ({type(error).__name__}: {error}); the script goes on. See: numb show {self.order['id']}"
            )

    def note(self, text: str) -> None:
        self.event("note", text=text)

    def stop(self, message: str, hint: str | None = None) -> None:
        """End the script before it does its work. The launcher says why."""
        self.event("refused", text=message, hint=hint)
        self.stopped = True
        raise Stop

    # -- the hooks

    @_guarded
    def watch(self, target: Any, dummy: Any, name: str | None) -> Any:
        """Decorate an `__init__` or a class, or take an instance as it is."""
        if isinstance(target, type):
            self._watch_class(target, dummy, name)
            return target
        if getattr(target, "__name__", "") == "__init__":
            return _Init(self, target, dummy, name)
        if not hasattr(target, "state_dict"):
            raise TypeError(f"numb_model decorates a network, its class or its __init__, not {target!r:.60}")
        self.built(target, dummy, name)
        return target

    def _watch_class(self, owner: type, dummy: Any, name: str | None) -> None:
        owner.__init__ = self._noticing(owner.__init__, dummy, name)  # type: ignore[misc]
        self.watch_subclasses(owner, dummy, name)

    def watch_subclasses(self, owner: type, dummy: Any, name: str | None) -> None:
        """Notice when the outermost `__init__` ends: a subclass adds its layers after `super().__init__()`."""
        inherited = owner.__init_subclass__

        def notice(cls: Any, **kwargs: Any) -> None:
            inherited.__func__(cls, **kwargs) if hasattr(inherited, "__func__") else inherited(**kwargs)
            if "__init__" in cls.__dict__:
                cls.__init__ = self._noticing(cls.__init__, dummy, name)

        known: list[Any] = owner.__subclasses__()
        for subclass in known:
            if "__init__" in subclass.__dict__:
                subclass.__init__ = self._noticing(subclass.__init__, dummy, name)
        owner.__init_subclass__ = classmethod(notice)  # type: ignore[assignment]

    def _noticing(self, init: Callable[..., None], dummy: Any, name: str | None) -> Callable[..., None]:
        if getattr(init, "_numb", False):
            return init

        @functools.wraps(init)
        def noticed(module: Any, *args: Any, **kwargs: Any) -> None:
            me = id(module)
            self._building[me] = self._building.get(me, 0) + 1
            try:
                init(module, *args, **kwargs)
            finally:
                self._building[me] -= 1
                outermost = not self._building[me]
                if outermost:
                    del self._building[me]
            if outermost and self.pid == _getpid():
                self.built(module, dummy, name)

        noticed._numb = True  # type: ignore[attr-defined]
        return noticed

    @_guarded
    def built(self, module: nn.Module, dummy: Any, name: str | None) -> None:
        """A network stands: find its architecture, and in a trial fill it with the chosen weights."""
        module = graph.unwrap(module)
        if any(watched.module is module for watched in self.watched):
            return
        self._let_go()
        watched = Watched(self._free_name(name or type(module).__name__), module, dummy)
        self.watched.append(watched)
        if dummy is None:
            self._at_first_forward(watched)
        else:
            self._capture(watched, dummy)

    def _free_name(self, wanted: str) -> str:
        safe = "".join(c if c.isalnum() or c in "_-" else "_" for c in wanted)[:60] or "model"
        taken = {watched.name for watched in self.watched}
        return next(name for n in range(1, 1 << 30) if (name := safe if n == 1 else f"{safe}-{n}") not in taken)

    def _at_first_forward(self, watched: Watched) -> None:
        """Without a dummy, the first real inputs serve; until then nothing is known."""

        def first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            handle.remove()
            if self.pid == _getpid():
                self._first_inputs(watched, args, kwargs)

        handle = watched.live().register_forward_pre_hook(first, with_kwargs=True)

    @_guarded
    def _first_inputs(self, watched: Watched, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs and args:
            self.note(
                f"{watched.name}: called with positional and named inputs; give numb_model a dummy to capture its graph"
            )
        self._capture(watched, None if kwargs and args else (kwargs or args))

    def _capture(self, watched: Watched, dummy: Any) -> None:
        module = watched.live()
        self._numpy_seed = self._numpy_seed if self._numpy_seed is not None else _numpy_seed()
        found = graph.capture(module, dummy)
        watched.architecture, watched.dummy = found, dummy
        watched.shapes, watched.versions = _shapes(module), _versions(module)
        self._warn_of_space(module)
        self.event(
            "model", name=watched.name, type=type(module).__name__, architecture=found.id, rung=found.rung,
            parameters=found.parameters, operators=found.operators, why=found.why,
        )  # fmt: skip
        if self.training:
            self._consider()
        else:
            self._fill(watched)

    def _warn_of_space(self, module: nn.Module) -> None:
        """Say before the training, not after it, that the weights will not fit (C3)."""
        needed = sum(p.numel() * p.element_size() for p in module.parameters())
        try:
            stat = os.statvfs(self.folder.path)
        except OSError:
            return
        free = stat.f_bavail * stat.f_frsize
        if needed > free:
            text = f"the weights take {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
            self.note(text)
            _tell(f"numb: {text}. Make room before the training ends.")

    @_guarded
    def param(self, params: Mapping[str, Any], frame: FrameType) -> None:
        try:
            encoded = _encoded(params)
        except TypeError as error:
            raise BadValue(f"numb_param: {error}") from None
        values = {name: record.decode(value) for name, value in encoded.items()}
        self._check_injected(values, frame)
        self.params.update(values)
        self.event("param", values=encoded)
        if self.training:
            self._consider()

    def _check_injected(self, registered: Mapping[str, Any], frame: FrameType) -> None:
        """What was injected and what is registered must be the same, or the record would lie."""
        for name, value in self.injected.items():
            if name in registered and record.canonical(registered[name]) != record.canonical(value):
                file = frame.f_code.co_filename
                late = _overwritten(file, self._queue_line, [name])
                place = late[0] if late else f"{os.path.basename(file)}:{frame.f_lineno}"
                self.stop(
                    f"{place}: {name} was set to {value!r} by numb, but the script registered {registered[name]!r}",
                    f"put numb_queue() below the assignment of {name} and above its first use",
                )

    @_guarded
    def inject(self, namespace: Any, frame: FrameType) -> None:
        """Put the values of the order into the script's module-level names."""
        target = frame.f_globals if namespace is None else namespace
        values = _ordered(self.order)
        self.queued, self._queue_line = True, frame.f_lineno
        file = frame.f_code.co_filename
        if self.training:
            self._refuse_late(file, values)
            absent = [name for name in values if name not in target]
            if absent:
                self.stop(
                    f"{os.path.basename(file)}:{frame.f_lineno}: the script has no {absent[0]} above numb_queue()",
                    f"assign {absent[0]} at module level above numb_queue(), or take it out of the queue",
                )
        given = {name: value for name, value in values.items() if name in target}
        for name, value in given.items():
            target[name] = value
        self.injected = given
        self.params.update(given)
        self.event("queue", line=frame.f_lineno, values=_encoded(given))

    def _refuse_late(self, file: str, values: Mapping[str, Any]) -> None:
        late = _overwritten(file, self._queue_line, list(values))
        if late:
            name = late[0].rpartition(" ")[2]
            self.stop(
                f"{late[0].rpartition(' ')[0]}: {name} is assigned below numb_queue(), which would overwrite the queue's value",
                "put numb_queue() below the assignments of the hyperparameters and above their first use",
            )

    _queue_line = 0
    _numpy_seed: int | None = None

    @_guarded
    def result(self, results: Mapping[str, Any]) -> None:
        try:
            encoded = _encoded(results)
        except TypeError as error:
            raise BadValue(f"numb_trial_result: {error}") from None
        self.event("result", values=encoded)

    # -- asking the launcher

    def _consider(self) -> None:
        """Once the architecture and the hyperparameters are both known: has this been trained before?"""
        known = [watched for watched in self.watched if watched.architecture]
        if not known or not self.params:
            return
        architecture = record.joined_architecture(watched.architecture.id for watched in known if watched.architecture)
        question = (architecture, record.key(self.params))
        if question == self._asked:
            return
        self._asked = question
        started = any(watched.has_moved() for watched in known)
        answer = self.ask({"ask": "train", "architecture": architecture, "params_key": question[1], "started": started})
        if answer.get("stop"):
            self.stopped = True
            raise Stop

    def _fill(self, watched: Watched) -> None:
        """Load the weights that the trial is about, or end the script when there are none."""
        found = watched.architecture
        assert found is not None
        question = {"ask": "trial", "name": watched.name, "architecture": found.id, "operators": found.operators}
        answer = self.ask({**question, "queued": self.queued, "injected": sorted(self.injected)})
        if answer.get("stop"):
            self.stopped = True
            raise Stop
        manifest = answer.get("weights")
        if manifest is None:
            self.stop("the launcher of this trial has gone, so there are no weights to load", "numb trial")
        state: Mapping[str, Any] = {}
        try:
            state = weights.read(_loads((self.folder.chosen / f"{manifest}.json").read_bytes()), self.objects)
            weights.load_into(watched.live(), state)
        except (NumbError, OSError, ValueError) as error:
            # Never evaluate what is not the chosen run: the numbers would be wrong, and look right.
            self.stop(str(error), getattr(error, "hint", None))
        self.event("loaded", model=watched.name, run=answer.get("run"))

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ring the launcher and wait for its answer. {} when it is not there (any more): the training goes on."""
        with self._lock:
            try:
                ask = os.open(self.folder.ask, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return {}
            answer = os.open(self.folder.answer, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.flush()
                _write(ask, _dumps(question).encode() + b"\n")
                return dict(_loads(_line_from(answer) or b"{}"))
            finally:
                os.close(ask)
                os.close(answer)

    # -- the end

    def _save_on_signal(self) -> None:
        """SIGTERM and SIGHUP end Python without any exit hook (M10): save first, then die of the same signal."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if self.pid == _getpid():
            self.close(f"ended by {signal.Signals(number).name}")
        os.kill(_getpid(), number)

    def _at_exit(self) -> None:
        if self.pid == _getpid():
            error = getattr(sys, "last_value", None)
            self.close(None if error is None else f"{type(error).__name__}: {error}", error)

    def close(self, partial: str | None, error: BaseException | None = None) -> None:
        """Save what is to be saved. Never raises, and Ctrl-C does not cut it short."""
        if self.stopped:
            return
        self.stopped = True
        with _undisturbed():
            if error is not None:
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
                self.event("exception", type=type(error).__name__, text=text[-100_000:])
            if self.training:
                for watched in self.watched:
                    self._save(watched, partial)
                self._graphs()
            self._surroundings()
            self.event("end")

    def _let_go(self) -> None:
        """Save and drop models that nobody holds but numb (cross validation makes one after another)."""
        for watched in self.watched:
            if watched.module is not None and sys.getrefcount(watched.module) <= 2:
                if self.training:
                    self._save(watched, None)
                watched.module = None

    @_guarded
    def _save(self, watched: Watched, partial: str | None) -> None:
        module = watched.module
        if module is None:
            return
        if watched.shapes is not None and watched.shapes != _shapes(module):
            self.note(
                f"{watched.name} was changed after it was built: the architecture is the one that was built, the weights are "
                f"those of the changed network. Decorate it after the change: net = numb_model(…)(net)"
            )
        manifest = weights.save(module.state_dict(), self.objects)
        if partial:
            manifest["partial"] = manifest.get("partial") or partial
        os.makedirs(self.folder.weights, exist_ok=True)
        atomic.write(self.folder.weights / f"{watched.name}.json", record.dumps(manifest))
        size = weights.summary(manifest)
        self.event(
            "weights", name=watched.name, tensors=size["tensors"], bytes=size["bytes"], partial=manifest.get("partial"),
            left_out=manifest.get("left_out") or [],
        )  # fmt: skip

    @_guarded
    def _graphs(self) -> None:
        """Export the ONNX graph, once for each architecture: when no earlier run has it."""
        known = [watched for watched in self.watched if watched.architecture and watched.module is not None]
        if not known or not self.ask({"ask": "graph"}).get("graph"):
            return
        for watched in known:
            if watched.dummy is None:
                continue
            try:
                exported = graph.to_onnx(watched.live(), watched.dummy)
            except graph.CaptureFailed as error:
                self.note(f"{watched.name}: no ONNX graph ({error})")
                continue
            path = self.folder.graph if len(known) == 1 else self.folder.graph.with_name(f"graph-{watched.name}.onnx")
            atomic.write(path, exported)
            self.event("graph", name=watched.name, file=path.name)

    @_guarded
    def _surroundings(self) -> None:
        facts = _libraries()
        facts["seeds"]["numpy"] = self._numpy_seed
        self.event("surroundings", **facts)


class Watched:
    """A network that numb looks after. Held strongly, for `main()` has often returned when the weights are saved."""

    def __init__(self, name: str, module: nn.Module, dummy: Any) -> None:
        self.name = name
        self.module: nn.Module | None = module
        self.dummy = dummy
        self.architecture: graph.Architecture | None = None
        self.shapes: list[tuple[str, tuple[int, ...]]] | None = None
        self.versions: tuple[int, ...] = ()

    def live(self) -> nn.Module:
        assert self.module is not None
        return self.module

    def has_moved(self) -> bool:
        """Whether a training step has changed a parameter since the network was built."""
        return self.module is not None and _versions(self.module) != self.versions


class _Init:
    """Stands for a decorated `__init__` until its class exists, and then puts a plain function in its place."""

    def __init__(self, session: Session, init: Callable[..., None], dummy: Any, name: str | None) -> None:
        self.parts = (session, init, dummy, name)

    def __set_name__(self, owner: type, attribute: str) -> None:
        session, init, dummy, name = self.parts
        setattr(owner, attribute, session._noticing(init, dummy, name))
        session.watch_subclasses(owner, dummy, name)


class _undisturbed:
    """Ctrl-C waits until the weights are saved."""

    def __enter__(self) -> None:
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *exc: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def inject(where: str, namespace: Any, frame: FrameType) -> None:
    """Do `numb_queue`: in every process of the script, for ranks and children must compute with the same values."""
    session = current(where)
    if session is not None:
        session.inject(namespace, frame)
        return
    try:
        order = _loads(RunFolder(where).order.read_bytes())
    except (OSError, ValueError):
        return
    target = frame.f_globals if namespace is None else namespace
    for name, value in _ordered(order).items():
        if name in target:
            target[name] = value


def _ordered(order: Mapping[str, Any]) -> dict[str, Any]:
    """The values to inject, by name."""
    return {name: record.decode(value) for name, value in (order.get("inject") or {}).items()}


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `TypeError` naming the place of what cannot be kept."""
    if not isinstance(values, Mapping):
        raise TypeError(f"takes a dictionary, not a {type(values).__name__}")
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"the key {name!r} is a {type(name).__name__}: keys must be strings")
    return {name: record.encode(value, name) for name, value in values.items()}


def _overwritten(file: str, line: int, names: list[str]) -> list[str]:
    """`train.py:7 lr` for each assignment below *line* that would replace an injected value."""
    from numb.hp import source  # parses the script: only when something is injected

    try:
        found = source.overwritten(_path(file), line, names)
    except (NumbError, OSError):
        return []
    return [f"{os.path.basename(file)}:{item.line} {item.name}" for item in found]


def _path(file: str) -> Any:
    from pathlib import Path

    return Path(file)


def _line_from(fd: int) -> bytes:
    """One line from the launcher; empty when it has died."""
    received = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not received.endswith(b"\n"):
        poll.poll()
        try:
            part = _read(fd, 1 << 16)
        except BlockingIOError:
            continue
        if not part:
            return b""
        received += part
    return received


def _tell(line: str) -> None:
    try:
        _write(2, (line + "\n").encode(errors="replace"))
    except OSError:
        pass


def _shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    from torch.nn.parameter import is_lazy

    named = [*module.named_parameters(), *module.named_buffers()]
    return [] if any(is_lazy(t) for _, t in named) else [(name, tuple(t.shape)) for name, t in named]


def _versions(module: nn.Module) -> tuple[int, ...]:
    return tuple(p._version for p in module.parameters())


def _interpreter() -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable or "",
        "argv": list(getattr(sys, "orig_argv", sys.argv)),
        "path": list(sys.path),
        "cwd": os.getcwd(),
    }


def _libraries() -> dict[str, Any]:
    """Seeds, devices and builds, as torch and NumPy report them; nothing is imported or initialised for it."""
    facts: dict[str, Any] = {"seeds": {}}
    if torch := sys.modules.get("torch"):
        facts["torch"] = str(torch.__version__)
        facts["seeds"]["torch"] = torch.initial_seed()
        facts["cuda"] = torch.version.cuda
        facts["threads"] = torch.get_num_threads()
        facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
        if torch.cuda.is_initialized():
            facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if numpy := sys.modules.get("numpy"):
        facts["numpy"] = str(numpy.__version__)
    return facts


def _numpy_seed() -> int | None:
    """The seed of NumPy's global generator, as long as nothing was drawn: it stands at the front of the fresh state."""
    if "numpy.random" not in sys.modules:
        return None
    state = sys.modules["numpy"].random.get_state(legacy=False)
    if state.get("bit_generator") != "MT19937" or state["state"]["pos"] != 624:
        return None
    first = int(state["state"]["key"][0])
    return None if first == 0x80000000 else first  # what stands there when it was seeded from the system
