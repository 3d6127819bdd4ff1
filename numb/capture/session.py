"""What goes on inside the user's script while it runs under numb.

One process of the script records: the first that calls a hook, unless it is a rank other than 0 or a child of
`multiprocessing`. It writes events, one line each in one write (M7), so that any death leaves a readable file; it rings the
launcher when it wants to know something; at the end it saves the weights.

A fault of numb's own never ends a training. It does end a trial that would otherwise evaluate a network without the chosen
weights: the numbers would be wrong, and look right.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from numb import alive, atomic, callbacks, journal, layout, record
from numb.callbacks import OF_ROWS, Callbacks
from numb.capture import graph, saving, surroundings, weights
from numb.capture.beginning import at_first_gradient
from numb.capture.manifest import Manifest
from numb.capture.progress import Progress
from numb.capture.requests import Requests
from numb.capture.restored import Restored
from numb.capture.series import Port, Series
from numb.capture.values import BadValue, Values, plain
from numb.capture.watched import FirstForward, Init, UnderConstruction, Watched, is_whole, kept, shapes, subclasses
from numb.errors import Diverged, HyperparameterError, NumbError, Pruned, Refused, StorageFailed, one_line, printable
from numb.guard import Guard, Median
from numb.layout import RunFolder
from numb.order import Order
from numb.store.objects import Objects

if TYPE_CHECKING:
    from torch import nn

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_clock = time.monotonic
_SAME = 1.0  # seconds within which a second signal is the first once more: to a group, and through who has started this
_REQUESTS = (signal.SIGTERM, signal.SIGUSR1)
_DECISIVE = (
    "lost",
    "exception",
    "refused",
    "finished",
    "asked",
    "signal",
    "end",
)  # events that say how a run has ended
_EVENT, _FOR_THE_END = 1 << 14, 1 << 17  # bytes: room for one event, and for what the launcher writes
_BUILT_BEFORE = "none was built in this run; one that was built before is shown by numb_model(…)(net)"
_F = TypeVar("_F", bound=Callable[..., Any])

# References of our own, for scripts that replace these (freezegun, a patched os.fork).
_getpid, _now, _dumps, _loads, _write, _read = os.getpid, time.time, json.dumps, json.loads, os.write, os.read
_exit, _kill, _frame = os._exit, os.kill, sys._getframe

_current: Session | None = None
_off = False  # nothing can be recorded in this process, and that has been said
_decorated: list[str] = []  # classes


class Stop(SystemExit):
    """numb ends the script before it does its work: with code 125, and what to say is in the events."""

    def __init__(self) -> None:
        super().__init__(Refused.exit_code)
        self.pid = _getpid()

    def __del__(self) -> None:
        # It ends where there is no Python left to go on, or in the hands of somebody who caught it and goes on.
        if not sys.is_finalizing() and _frame().f_back is not None and self.pid == _getpid():
            _leave()


def current(where: str) -> Session | None:
    """The session of this process, or None if it is not the one that records."""
    global _current, _off
    if _current is None and not _off:
        try:
            if _is_helper() or not _claim(RunFolder(where)):
                return None
            _current = Session(RunFolder(where))
        except Exception as error:  # the guard around a hook, before there is a session that could record it
            _off = True
            _tell(f"numb: nothing of this script can be recorded ({one_line(error)})")
            if _is_trial(where):
                raise Stop from None
    if _current is None or _current.pid != _getpid():  # a fork: what the parent records is not the child's (M10, M11)
        return None
    if _current.stopped:
        _leave()
    return None if _current.closed else _current


def begin(where: str, answers: Callable[[dict[str, Any]], dict[str, Any]]) -> Session:
    """Record in this process, which has begun a run itself, until `leave`. Raises what keeps it from that.

    Questions go to *answers*: there is no launcher.
    """
    global _current, _off
    _off = False
    if not _claim(RunFolder(where)):
        raise StorageFailed(f"somebody else records in {where}", "numb doctor")
    _current = Session(RunFolder(where), answers)
    return _current


def is_further_rank() -> bool:
    """Whether another process of the same training records."""
    return any(os.environ.get(name, "0") not in ("0", "") for name in _RANKS)


def _is_trial(where: str) -> bool:
    return Order.known(RunFolder(where)).mode == record.TRIAL


def _is_helper() -> bool:
    if is_further_rank():
        return True
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _claim(folder: RunFolder) -> bool:
    """Become the process that records, unless another one does. A dead one's place is free (`a.py && b.py`).

    Raises `StorageFailed` when there is nothing to record in.
    """
    me = alive.identity()
    for _ in range(3):
        try:
            atomic.create(folder.owner, _dumps(me))
            return True
        except FileExistsError:
            pass
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
    _flush()
    _exit(Refused.exit_code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, None, or something of the user's
            pass


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
        except (Stop, BadValue, Diverged):
            raise
        except Exception as error:  # the guard around a hook: recorded, shown once
            if isinstance(error, StorageFailed) and self.order.strict and hook.__name__ == "checkpoint":
                raise
            if hook.__name__ in self.vital:
                self.stop(f"{hook.__name__} failed ({one_line(error)}); nothing was {self.work}")
            self.trouble(hook.__name__, error)
            return args[0] if hook.__name__ == "watch" else None

    return guarded  # type: ignore[return-value]


class Session:
    """One recorded script: its events, its models, and what is saved of them at the end.

    With *answers* it is a run that this process has begun itself, and ends; the process goes on.
    """

    def __init__(self, folder: RunFolder, answers: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        self.pid = _getpid()
        self.folder = folder
        self._answers = answers
        self.stopped = False  # refused: the script must not do its work
        self.closed = False  # over: what comes now, in exit hooks of the script, is not recorded
        self.order = Order.read(folder)
        self.objects = Objects(folder.objects)
        self.watched: list[Watched] = []
        self.values = Values(self)
        self.progress = Progress(self)
        self.guard = Guard.of(self.order.stop_on)
        self.median = Median(**self.order.prune) if self.order.prune else None
        self.diverged: str | None = None  # what the guard has said
        self.callbacks = Callbacks()
        self._has_named = not self.order.callbacks  # whether those that `nmb.json` names are among them
        self._epoch: Any = None  # of the last row
        self.requests = Requests(self._asked_to_stop, self.order.time_limit, self.order.save_every)
        self._said = False
        self._watching = False  # for the beginning of the training
        self._begun = False  # the training: what would have stopped it is at most a notice now
        self._looking = 0  # numb itself runs a network
        self._asked: tuple[Any, ...] | None = None
        self._questions = 0
        self._under = UnderConstruction()
        self._lock = threading.RLock()
        if os.environ.get(layout.BREAK_HOOK) == "start":
            raise RuntimeError("start was broken on purpose")
        self._append(self._line("start", process=alive.identity(), **surroundings.interpreter()))
        if answers is None:
            atexit.register(self._at_exit)
        self._save_on_signal()

    @functools.cached_property
    def series(self) -> Series:
        """Numbers over time."""
        made = Series(self)
        self._find_callbacks()
        if self.guard or self.median or any(map(self.callbacks.of, OF_ROWS)):
            made.observe()
        return made

    @property
    def training(self) -> bool:
        return self.order.mode == record.TRAIN

    @property
    def work(self) -> str:
        return "trained" if self.training else "evaluated"

    @property
    def vital(self) -> tuple[str, ...]:
        """The hooks without which the script would not do what was asked for, but something that looks like it."""
        if self.training:
            begins_with = ("restore", "_begin_with") if self.order.resume or self.order.init_from else ()
            return (*begins_with, *(("inject", "param") if self.order.inject else ()))
        return ("watch", "built", "first_inputs", "inject")

    # -- events

    def tell(self, what: str, **facts: Any) -> None:
        """Write an event down. Raises `OSError` and `StorageFailed` where that cannot be."""
        self._append(self._line(what, **facts))

    def event(self, what: str, **facts: Any) -> None:
        """Write an event down; where the disk is full, one that the outcome depends on takes of the room that was reserved."""
        for _ in range(2):
            try:
                self.tell(what, **facts)
                return
            except (OSError, NumbError):  # the launcher finds what is missing, the training goes on (C1)
                if what not in _DECISIVE or not atomic.give_back(self.folder.reserve, _EVENT, _FOR_THE_END):
                    return

    def _line(self, what: str, **facts: Any) -> bytes:
        line = _dumps({"event": what, "time": round(_now(), 3), **facts}, allow_nan=False, ensure_ascii=False)
        return line.encode(errors="surrogatepass")

    def _append(self, line: bytes) -> None:
        """Open, append, close: a script that closes all descriptors may have given ours to a file of its own."""
        events = atomic.Appender(self.folder.events)
        try:
            events.line(line)
        finally:
            events.close()

    def trouble(self, hook: str, error: BaseException) -> None:
        """Record an error of numb's own, and show the first one."""
        what = {
            "_save": "the weights were not kept",
            "checkpoint": "a checkpoint was not kept",
            "save": "what numb.save was given was not kept",
        }.get(hook)
        why = str(error) if isinstance(error, NumbError) else one_line(error)
        self.event("error", hook=what or hook, text=f"{_traceback(error)[-20_000:]}\n{why}")
        if not self._said:
            self._said = True
            _tell(f"numb: {what or f'{hook} failed'} ({why}); the script goes on. See: numb show {self.order.id}")

    def warn(self, text: str) -> None:
        """Note it, and say it."""
        self.note(text)
        _tell(f"numb: {text}")

    def note(self, text: str) -> None:
        self.event("note", text=text)

    def stop(self, message: str, hint: str | None = None) -> None:
        """End the script before it does its work. The launcher says why."""
        self.event("refused", text=message, hint=hint)
        self.stopped = True
        raise Stop from None

    # -- the hooks

    @_guarded
    def watch(self, target: Any, dummy: Any, name: str | None) -> Any:
        """Decorate an `__init__` or a class, or take an instance as it is."""
        if isinstance(target, type):
            self._watch_class(target, dummy, name)
            return target
        if getattr(target, "__name__", "") == "__init__":
            _decorated.append(getattr(target, "__qualname__", "a class").rpartition(".")[0] or "a class")
            return Init(self, target, dummy, name)
        if not hasattr(target, "state_dict"):
            raise TypeError(f"numb_model decorates a network, its class or its __init__, not {target!r:.60}")
        self.built(target, dummy, name, again=True)
        return target

    def _watch_class(self, owner: Any, dummy: Any, name: str | None) -> None:
        init = vars(owner).get("__init__")
        if init is None:

            @functools.wraps(owner.__init__)
            def init(module: Any, *args: Any, **kwargs: Any) -> None:
                super(owner, module).__init__(*args, **kwargs)  # whoever comes next, in a subclass too

        owner.__init__ = self.noticing(init, dummy, name)
        _decorated.append(owner.__qualname__)
        self.watch_subclasses(owner, dummy, name)

    def watch_subclasses(self, owner: Any, dummy: Any, name: str | None) -> None:
        """Notice when the outermost `__init__` ends: a subclass adds its layers after `super().__init__()`."""
        own = vars(owner).get("__init_subclass__")

        def notice(cls: Any, /, **kwargs: Any) -> None:
            if own is None:
                super(owner, cls).__init_subclass__(**kwargs)
            else:
                own.__get__(None, cls)(**kwargs)
            take(cls)

        def take(cls: Any) -> None:
            init = vars(cls).get("__init__")
            if init is not None and not getattr(init, "_numb", None):
                cls.__init__ = self.noticing(init, dummy, name)

        for subclass in owner.__subclasses__():
            take(subclass)
        owner.__init_subclass__ = classmethod(notice)

    def noticing(self, init: Callable[..., None], dummy: Any, name: str | None) -> Callable[..., None]:
        mine, plain = getattr(init, "_numb", (None, init))
        if mine is init:  # decorated already: a decoration of its own counts before an inherited one
            init = plain

        @functools.wraps(init)
        def noticed(module: Any, *args: Any, **kwargs: Any) -> None:
            session = _current if self.closed and _current is not None else self  # a class outlives its run
            if not session._under.begin(module):  # `super().__init__()` of one that is being built
                init(module, *args, **kwargs)
                return
            try:
                init(module, *args, **kwargs)
            except BaseException:
                session._under.end(module)
                raise
            for made in session._under.end(module, dummy, name):
                session.built(*made)

        noticed._numb = (noticed, init)  # type: ignore[attr-defined]
        return noticed

    @_guarded
    def take_up(self, shown: Mapping[Any, tuple[Any, str | None]]) -> None:
        """Decorate what was decorated while nothing was recorded: classes, and `__init__`s whose classes there are by now."""
        for target, (dummy, name) in shown.items():
            if isinstance(target, type):
                self._watch_class(target, dummy, name)
        owners = subclasses(sys.modules["torch"].nn.Module) if "torch" in sys.modules else ()
        for owner in owners:
            inner = vars(owner).get("__init__")
            while inner is not None and inner not in shown:
                inner = getattr(inner, "__wrapped__", None)  # another decorator stands above
            if inner is not None:
                self._watch_class(owner, *shown[inner])

    @_guarded
    def built(self, module: nn.Module, dummy: Any, name: str | None, *, again: bool = False) -> None:
        """A network stands: find its architecture, and in a trial fill it with the chosen weights.

        One that was looked at before is looked at again only when the user says so, having changed it.
        """
        if self.closed or self.pid != _getpid():
            return
        if self.stopped:
            _leave()
        whole = is_whole(module)
        module = graph.unwrap(module)
        known = next((watched for watched in self.watched if watched.module is module), None)
        if known and not again:
            return
        self._await_training()
        self._let_go()
        watched = known or Watched(self._free_name(name or type(module).__name__), module)
        watched.dummy = dummy
        if known is None:
            self.watched.append(watched)
        elif name and name != known.name:
            watched.was, watched.name = known.name, self._free_name(name)
        if dummy is None or not whole:
            self._at_first_forward(watched)
        else:
            self._capture(watched)
            self._consider_or_fill(watched)

    def _free_name(self, wanted: str) -> str:
        safe = "".join(c if c.isalnum() or c in "_-" else "_" for c in wanted)[:60] or "model"
        taken = {watched.name for watched in self.watched}
        return next(name for n in range(1, 1 << 30) if (name := safe if n == 1 else f"{safe}-{n}") not in taken)

    def _at_first_forward(self, watched: Watched) -> None:
        """Without a dummy, the first real inputs serve; until then nothing is known."""
        wait = FirstForward(self, watched)
        try:
            wait.handle = watched.live().register_forward_pre_hook(wait, with_kwargs=True)
        except RuntimeError:  # TorchScript takes no hooks: there is no more to see than what it is made of
            self._capture(watched)
            self._consider_or_fill(watched)

    @_guarded
    def first_inputs(self, watched: Watched, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if watched.dummy is None:
            if kwargs and args:
                self.note(
                    f"{watched.name}: called with positional and named inputs; "
                    "give numb_model a dummy to capture its graph"
                )
            else:
                watched.dummy = kept(kwargs or args)
        self._capture(watched)
        self._consider_or_fill(watched)

    def _capture(self, watched: Watched) -> None:
        module = watched.live()
        self._numpy_seed = self._numpy_seed if self._numpy_seed is not None else surroundings.numpy_seed()
        with self._aside():
            found = graph.capture(module, watched.dummy)
        watched.architecture, watched.operators = found.id, found.operators
        watched.shapes = shapes(module)
        self._warn_of_space(module)
        self.event(
            "model", name=watched.name, type=type(module).__name__, architecture=found.id, rung=found.rung,
            parameters=found.parameters, operators=found.operators, why=found.why, was=watched.was,
        )  # fmt: skip

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Gradients in here are not the script's: a forward pass may take some, and numb runs it."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1

    def _consider_or_fill(self, watched: Watched) -> None:
        if not self.training:
            self._fill(watched)
            return
        if self.order.init_from:
            self._begin_with(watched)
        if self._begun:
            self._consider()

    def _warn_of_space(self, module: nn.Module) -> None:
        """Say before the training, not after it, that the weights will not fit (C3)."""
        from torch.nn.parameter import is_lazy

        needed = sum(p.numel() * p.element_size() for p in module.parameters() if not is_lazy(p))
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
    def param(self, params: Mapping[str, Any], frame: FrameType) -> Mapping[str, Any]:
        """Register hyperparameters; returns them with what was set from outside."""
        return self.values.register(params, frame)

    @_guarded
    def hyperparameter(self, name: str, value: Any, called: bool) -> None:
        """A manager has returned a value: it belongs to the run, as what `numb_param` registers does."""
        self.values.use(name, value, called)

    @_guarded
    def inject(self, namespace: Any, frame: FrameType) -> None:
        """Put the values of the order into the script's module-level names, or into a dictionary of the script's."""
        self.values.inject(namespace, frame)

    def fit(self, target: Mapping[str, Any]) -> Order:
        """Let what was set be of the type of what *target* holds, where the source did not tell it; the order, from now on."""
        try:
            self.order = self.order.fitted(target)
        except HyperparameterError as error:
            self.stop(str(error), error.hint)
        return self.order

    def consider_again(self) -> None:
        """Hyperparameters have come: what stands before the first gradient is compared then."""
        if self._begun:
            self._consider()

    _numpy_seed: int | None = None

    @_guarded
    def result(self, results: Mapping[str, Any]) -> None:
        try:
            encoded = plain(results)
        except TypeError as error:
            raise BadValue(f"numb_trial_result: {error}") from None
        if not self.training and not any(watched.filled for watched in self.watched):
            self._refuse_untrained()
        self.event("result", values=encoded)

    def _refuse_untrained(self) -> None:
        waiting = [watched.name for watched in self.watched]
        self.stop(
            f"{waiting[0]} was not called, so it has not got the chosen weights"
            if waiting
            else "the script built no network that numb knows, so nothing has got the chosen weights",
            "give numb_model a dummy input" if waiting else "write @numb_model(dummy) above the network's __init__",
        )

    # -- checkpoints

    @_guarded
    def checkpoint(self, parts: Mapping[str, Any], step: int, results: Mapping[str, Any]) -> None:
        """Copy the states of what is tracked, and have them written while the script goes on."""
        self.progress.checkpoint(parts, step, results)
        self._find_callbacks()
        self._called("checkpoint", step, dict(results))

    def _called(self, event: str, *arguments: Any) -> None:
        """Call the user's functions; what they raise is told, and ends nothing."""
        for function in self.callbacks.of(event):
            try:
                function(*arguments)
            except Exception as error:  # the user's own
                self.warn(f"a function that {event!r} calls has failed ({one_line(error)})")

    @_guarded
    def log(self, port: Port, name: str) -> None:
        """Let what comes through *port* be rows of a series."""
        self.series.open(port, name)

    def observe(self, series: str, row: Mapping[str, Any]) -> None:
        """A row has come: it may be one that ends the training. Raises `Diverged`, `Pruned`, and what callbacks raise."""
        values = {name: value for name, value in row.items() if name != journal.DATE}
        where = next(iter(values), "")
        self.watch_over(values, where, values.get(where))
        if series != journal.USUAL:
            return
        for function in self.callbacks.of("step"):
            function(values.get(where), values)
        epoch, self._epoch = self._epoch, values.get("epoch", self._epoch)
        if epoch != self._epoch:
            for function in self.callbacks.of("epoch"):
                function(self._epoch, values)
        worse = self.median.broken(values) if self.median and self.training and not self.closed else None
        if worse is not None:
            self.event("asked", reason=f"{record.PRUNED}: {worse}")
            raise Pruned

    def watch_over(self, values: Mapping[str, Any], where: str, place: Any) -> None:
        """End a training whose numbers a guard refuses. Raises `Diverged`."""
        broken = self.guard.broken(values) if self.guard and self.training else None
        if broken is None or self.closed:
            return
        what, _, which = broken.partition(" (")
        reason = f"{what} at {where} {record.brief(place)}" + (f" ({which}" if which else "")
        self.event("guarded", reason=reason)
        self.diverged = self.diverged or reason
        if where == "step" and type(place) is int:
            self.progress.forget_from(place)
        raise Diverged(reason)

    @_guarded
    def on(self, event: str, function: Callable[..., Any]) -> None:
        """Call a function of the user's when something happens."""
        self.callbacks.add(event, function)
        if event in OF_ROWS and "series" in self.__dict__:
            self.series.observe()

    def _find_callbacks(self) -> None:
        """Add those that `nmb.json` names. One that is not there ends the script while nothing is lost, and is told later."""
        if self._has_named:
            return
        self._has_named = True
        for event, names in self.order.callbacks.items():
            for name in names:
                try:
                    self.on(event, callbacks.resolved(name))
                except Exception as error:  # the user's own
                    why = f'"callbacks" in nmb.json: {name} cannot be called ({one_line(error)})'
                    if self._begun or self.closed or not self.training or self._answers is not None:
                        self.warn(why)  # as a process that has begun its run itself is not ended either
                    else:
                        self.stop(why, 'name it "package.module:function"')

    @_guarded
    def history(self) -> record.History:
        """What the numbers that were logged sum up to."""
        return self.series.history()

    @_guarded
    def save(self, name: str, value: Any) -> None:
        """Keep a value as a file of the run."""
        saving.save(self, name, value)

    @_guarded
    def save_batch(self, number: int, arrays: Mapping[str, Any]) -> None:
        """Keep what a batch has given as a file of the run."""
        saving.save_batch(self, number, arrays)

    @_guarded
    def finish(self, status: str, reason: str | None) -> None:
        """Note how the script says that it has ended."""
        if status not in (record.COMPLETE, record.INCOMPLETE, record.FAILED):
            raise BadValue(f"run.finish: {status!r:.40} is neither 'complete', 'incomplete' nor 'failed'")
        self.progress.wait()  # for what it says of the run holds whatever comes after
        self.event("finished", status=status, reason=None if reason is None else str(reason)[:1000])

    @_guarded
    def restore(
        self, parts: Mapping[str, Any], strict: bool, rename: Mapping[str, str] | None, only: str | None
    ) -> Restored | None:
        """Bring what is tracked to the state that the order names; the script ends where that does not fit."""
        return self.progress.restore(parts, strict, rename, only)

    @_guarded
    def _begin_with(self, watched: Watched) -> None:
        self.progress.begin_with(watched)

    # -- being asked to stop

    def should_stop(self) -> bool:
        return not self.closed and self.requests.should_stop()

    def should_save(self) -> bool:
        return not self.closed and self.requests.should_save()

    def await_requests(self) -> None:
        """From now on SIGUSR1, by which schedulers announce an end, is a request as SIGTERM is."""
        self._take_over(signal.SIGUSR1)
        if "torch" in sys.modules or self.order.resume or self.order.init_from:  # scripts may do without it
            self._await_training()

    def _asked_to_stop(self, reason: str) -> None:
        self.event("asked", reason=reason)
        _tell(f"numb: asked to stop ({reason}); the script is to keep a checkpoint and to end")

    # -- asking the launcher

    def _await_training(self) -> None:
        if self.training and not self._watching:
            self._watching = True
            at_first_gradient(self._begins)

    def _begins(self) -> bool:
        """The training begins: now its networks and hyperparameters are known. False if it is numb that takes gradients."""
        if self._looking:
            return False
        if self.closed or self.pid != _getpid():
            return True
        with self._lock:  # another thread waits for the answer, too
            if self.stopped:
                _leave()
            if not self._begun:
                self._begin()
        return True

    @_guarded
    def _begin(self) -> None:
        self.refuse_unrestored()
        self.values.tell_overwritten("when the training began")
        try:
            self._consider()
            self._find_callbacks()
        finally:
            self._begun = True
        self._called("start")

    def refuse_unrestored(self) -> None:
        """End a script that would train anew, or keep what it has trained anew, as what it was to go on with."""
        if self.progress.has_restored:
            return
        if self.order.resume:
            self.stop(
                f"the training would begin anew instead of going on after step {self.order.resume.get('step')}: the script "
                "does not call run.restore()",
                "put run.track(…) and run.restore() above the loop of the training",
            )
        waiting = [watched for watched in self.watched if watched.architecture is None]
        if self.order.init_from and not waiting:
            self.stop(
                f"no network of the script has got weights of {self.order.init_from}",
                "write @numb_model(dummy) above the network's __init__, or run.restore() above the loop",
            )

    def _consider(self) -> None:
        """Has this been trained before? Asked of the whole run: all its networks, with all its hyperparameters.

        What joins them after the training has begun is told, and stops nothing. While a network waits for its first
        forward pass nothing is compared: without it the run would look like one that never had it.
        """
        known = [watched.architecture for watched in self.watched if watched.architecture]
        if not known or len(known) < len(self.watched) or not self.values.params:
            return
        architecture = record.joined_architecture(known)
        question = (architecture, record.key(self.values.params))
        if question == self._asked:
            return
        self._asked = question
        started, ended = self._begun or self.closed, self.closed
        facts = {"params_key": question[1], "started": started, "ended": ended}
        answer = self._decided({"ask": "train", "architecture": architecture, **facts})
        if answer.get("stop"):
            self.stopped = True
            raise Stop

    def _fill(self, watched: Watched) -> None:
        """Load the weights that the trial is about, or end the script when there are none."""
        question = {"ask": "trial", "name": watched.name, "architecture": watched.architecture}
        queued = self.values.queued or bool(self.values.asked_for)
        facts = {"operators": watched.operators, "queued": queued, "injected": sorted(self.values.injected)}
        answer = self._decided({**question, **facts})
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
        watched.filled = answer.get("run") or "the run"
        watched.checksums = weights.checksums(watched.live().state_dict())
        self.event("loaded", model=watched.name, run=answer.get("run"))

    def _decided(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask what a person may have to answer: their Ctrl-C is a no, and ends the script without a traceback."""
        try:
            return self.ask(question)
        except KeyboardInterrupt:
            if question.get("started"):
                raise  # the training has begun: this ends it as it ends any, and what there is is kept
            self.event("refused", text="interrupted at the question; nothing was trained", hint=None)
            return {"stop": True}

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ring the launcher and wait for its answer. {} when it is not there (any more): the training goes on."""
        if self._answers is not None:
            return self._answers(question)
        with self._lock, ExitStack() as stack:
            try:
                bell = os.open(self.folder.ask, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, bell)
                answers = os.open(self.folder.answer, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, answers)
                _flush()
                self._questions += 1
                number = self._questions
                _send(bell, _dumps({**question, "number": number}).encode() + b"\n")
            except OSError:
                return {}
            while line := _line_from(answers):
                said = dict(_loads(line))
                if said.get("number", number) == number:  # not what a question is told that Ctrl-C had cut short
                    return said
            return {}

    # -- the end

    _asked_at: float | None = None  # when, by a signal: a later one ends the script

    def _save_on_signal(self) -> None:
        """SIGTERM and SIGHUP end Python without any exit hook (M10): save first, then die of the same signal."""
        for number in _ENDING:
            self._take_over(number)

    def _take_over(self, number: int) -> None:
        if _is_main_thread() and (signal.getsignal(number) is signal.SIG_DFL or _left_behind(number)):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        is_request = number in _REQUESTS and self.requests.is_heard and self.pid == _getpid()
        if is_request and not self.closed and (self._asked_at is None or _clock() - self._asked_at < _SAME):
            if self._asked_at is None:
                self._asked_at = _clock()
                self.requests.stop(signal.Signals(number).name)
            return
        signal.signal(number, signal.SIG_DFL)
        if self.pid == _getpid():
            self.event("signal", name=signal.Signals(number).name)  # perhaps nobody sees the wait status
            self.close(f"ended by {signal.Signals(number).name}", hurry=True)
        _kill(_getpid(), number)

    def _at_exit(self) -> None:
        if self.pid == _getpid():
            error = getattr(sys, "last_value", None)
            self.close(None if error is None else one_line(error), error)
            if isinstance(error, KeyboardInterrupt):
                remain_interrupted()

    def leave(self) -> None:
        """Take what was put into this process out of it again: it goes on, perhaps with another run."""
        global _current
        for number in {*_ENDING, *_REQUESTS}:
            if _is_main_thread() and signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL)
        self.watched.clear()
        self.callbacks = Callbacks()
        if _current is self:
            _current = None

    def close(self, partial: str | None, error: BaseException | None = None, *, hurry: bool = False) -> None:
        """Save what is to be saved. Never raises, and no signal cuts it short but SIGKILL."""
        if self.stopped or self.closed:
            return
        if not hurry:
            self._find_callbacks()
            reason = self.diverged or partial
            self._called(*(("end",) if reason is None else ("fail", reason)))
        self.closed = True
        with _undisturbed():
            if "series" in self.__dict__:
                self.series.close()
            self.progress.close()
            if self.requests.is_over_time and not self.requests.is_heard:
                self.note("the time limit had passed, and the script never asked run.should_stop")
            if error is not None:
                self.event("exception", type=type(error).__name__, text=_traceback(error)[-100_000:])
            for watched in self.watched:
                self._last_look(watched, partial, hurry=hurry)
            if self.training and not hurry:
                if error is None:
                    self._compare()
                self._graphs()
            if not self._begun:
                self.values.tell_overwritten("at the end")
            if not self.watched and _decorated:
                whoever = "the script built none" if self._answers is None else _BUILT_BEFORE
                self.note(f"numb_model decorates {_decorated[0]}, but {whoever}")
            if self.training and self.order.init_from and not self.progress.has_restored:
                self.note(f"no network of the script has got weights of {self.order.init_from}")
            if self.training and self.order.resume and not self.progress.has_restored:
                self.note("the script has not called run.restore(): what it has done, it has done anew")
            self._surroundings()
            self.event("end")

    def _let_go(self) -> None:
        """Save and drop models that nobody holds but numb (cross validation makes one after another)."""
        for watched in self.watched:
            if watched.module is not None and sys.getrefcount(watched.module) <= 2:
                self._last_look(watched, None)
                watched.module = watched.dummy = None
                watched.operators = ()

    def _last_look(self, watched: Watched, partial: str | None, *, hurry: bool = False) -> None:
        if watched.module is None:
            return
        if self.training:
            if watched.architecture is None:
                self._late_capture(watched)
            self._save(watched, partial)
        elif watched.filled and not hurry:
            self._check_filled(watched)

    @_guarded
    def _check_filled(self, watched: Watched) -> None:
        """Tell when a trial has changed the weights that it was to evaluate: its results look like those of the run."""
        now, then = weights.checksums(watched.live().state_dict()), watched.checksums
        changed = [name for name in {**then, **now} if now.get(name) != then.get(name)]
        if not changed:
            return
        learnt = weights.plain_keys(dict(watched.live().named_parameters())).keys() & changed
        self.note(
            f"the weights of {watched.name} changed during the trial ({record.some(changed, 5)}), "
            f"so its results are not those of {watched.filled}: "
            + ("train in the train script" if learnt else "call eval() on the network before it is evaluated")
        )

    @_guarded
    def _late_capture(self, watched: Watched) -> None:
        """Name the architecture of a network that waited for a forward pass, which never came."""
        self._capture(watched)

    @_guarded
    def _save(self, watched: Watched, partial: str | None) -> None:
        module = watched.module
        if module is None:
            return
        if watched.shapes is not None and watched.shapes != shapes(module):
            self.note(
                f"{watched.name} was changed after it was built: the architecture is the one that was built, the weights are "
                f"those of the changed network. Show numb the changed one instead: net = numb_model(…)(net)"
            )
        with self.objects.in_use():
            manifest = weights.save(module.state_dict(), self.objects)
            self.progress.need(Manifest.of(manifest).refs())
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
    def _compare(self) -> None:
        """Of a script in which no training was seen, or of which more became known since, tell that it was done before."""
        self._consider()

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
                with self._aside():
                    exported = graph.to_onnx(watched.live(), watched.dummy)
            except graph.CaptureFailed as error:
                self.note(f"{watched.name}: no ONNX graph ({error})")
                continue
            path = self.folder.graph if len(known) == 1 else self.folder.graph.with_name(f"graph-{watched.name}.onnx")
            atomic.write(path, exported)
            self.event("graph", name=watched.name, file=path.name)

    @_guarded
    def _surroundings(self) -> None:
        facts = surroundings.libraries()
        facts["seeds"]["numpy"] = self._numpy_seed
        self.event("surroundings", **facts)


class _undisturbed:
    """What would end the script waits until the weights are saved. Ctrl-C is dropped: the script is ending."""

    def __enter__(self) -> None:
        self._before: dict[int, Any] = {}
        self._received: list[int] = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *_ENDING):
                if signal.getsignal(number) is not None:  # None: installed by C, and not to be brought back
                    self._before[number] = signal.signal(number, lambda number, _: self._received.append(number))

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in self._received:
            if number in _ENDING:
                _kill(_getpid(), number)


def inject(where: str, namespace: Any, frame: FrameType) -> None:
    """Do `numb_queue`: in every process of the script, for ranks and children must compute with the same values."""
    session = current(where)
    if session is not None:
        session.inject(namespace, frame)
        return
    target = frame.f_globals if namespace is None else namespace
    for name, value in Order.known(RunFolder(where)).fitted(target).deliverable(target).items():
        target[name] = value


def hyperparameter_of_child(where: str, name: str, value: Any) -> None:
    """A process that the recorded one has begun (a worker that loads data) uses a hyperparameter: that is the run's, too."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    forked = _current is not None and _current.pid != _getpid()
    spawned = multiprocessing is not None and multiprocessing.parent_process() is not None
    if not (forked or spawned) or any(os.environ.get(rank, "0") not in ("0", "") for rank in _RANKS):
        return
    try:
        told = {"event": "hp", "time": round(_now(), 3), "values": {name: record.encode(value, name, literals=True)}}
        events = atomic.Appender(RunFolder(where).events)
        try:
            events.line(_dumps(told, allow_nan=False, ensure_ascii=False).encode(errors="surrogatepass"))
        finally:
            events.close()
    except (TypeError, OSError, NumbError):
        pass  # what cannot be kept; and a disk that is full, which the recorded process tells


def _send(fd: int, content: bytes) -> None:
    """Write all of it, also what does not fit into a pipe at once. Raises `OSError` when the launcher has died."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while content:
        poll.poll()
        try:
            content = content[_write(fd, content) :]
        except BlockingIOError:
            continue


def _line_from(fd: int) -> bytes:
    """One line from the launcher; empty when it has died."""
    received = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not received.endswith(b"\n"):
        poll.poll()
        try:
            part = _read(fd, 1)  # what comes after the line is the next one's
        except BlockingIOError:
            continue
        if not part:
            return b""
        received += part
    return received


def _tell(line: str) -> None:
    """Say something on stderr, unless the script has closed it: its number may be another file's by now."""
    stream = sys.__stderr__
    if stream is None or stream.closed:
        return
    try:
        _write(stream.fileno(), (printable(line) + "\n").encode(errors="replace"))
    except (OSError, ValueError):
        pass


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _left_behind(number: int) -> bool:
    """Whether a signal is handled for a run that another thread has ended since."""
    session = getattr(signal.getsignal(number), "__self__", None)
    return isinstance(session, Session) and session.closed


def remain_interrupted() -> None:
    """Let Python end as one whom Ctrl-C has ended, with 130 and not with 1.

    It forgets that it was when anything calls `exec` with a string, as dataclasses and the exporter do, and it learns it
    in the same way.
    """
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        pass


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:  # the user's own `__str__`, `__repr__` or `__notes__`
        return f"Traceback (not printable)\n{one_line(error)}\n"
