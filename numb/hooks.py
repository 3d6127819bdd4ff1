"""The face that a training script sees: four hooks, the run, and its series.

Without numb (no run folder in the environment) each of them does nothing. Under numb they hand over to `numb.capture`; an
error of numb's own in there is recorded in the run, shown once, and never reaches the script.
"""

from __future__ import annotations

import contextlib
import keyword
import os
import sys
import time
from _thread import RLock
from collections import deque
from functools import cache, partial, update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar, overload

from numb import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence
    from pathlib import Path

    from numb.capture.restored import Restored
    from numb.capture.session import Session
    from numb.hp.params import Params
    from numb.journal import Schema
    from numb.record import History

_T = TypeVar("_T")


def _session() -> Session | None:
    where = os.environ.get(layout.RUN_DIR)
    if not where:
        return None
    from numb.capture import session

    return session.current(where)


@overload
def numb_model(dummy: type[_T], /) -> type[_T]: ...
@overload
def numb_model(dummy: Any = None, /, *, name: str | None = None, shape: Any = None) -> Callable[[_T], _T]: ...
def numb_model(dummy: Any = None, /, *, name: str | None = None, shape: Any = None) -> Any:
    """Show numb a network, so that its architecture and its weights are kept.

    Written above `__init__`, above the class, or around an instance: `net = numb_model(x)(net)`. The *dummy* is an input as
    `forward` takes it: a tensor, a tuple (several arguments), a dictionary (by name), a shape such as `(1, 3, 32, 32)`, or a
    function that returns one of these and is called only under numb. Without a dummy, the inputs of the first real forward
    pass are taken. *name* tells models of one class apart (a teacher and a student).
    """
    if _is_network(dummy):  # @numb_model without parentheses
        return _watch(dummy, None, name)
    given = dummy if shape is None else tuple(shape)
    return lambda target: _watch(target, given, name)


def _is_network(given: Any) -> bool:
    """Whether *given* is a class, its `__init__` or an instance, and no dummy."""
    return isinstance(given, type) or getattr(given, "__name__", "") == "__init__" or hasattr(given, "state_dict")


def _watch(target: Any, dummy: Any, name: str | None) -> Any:
    session = _session()
    if session is not None:
        return session.watch(target, dummy, name)
    if isinstance(target, type) or getattr(target, "__name__", "") == "__init__":
        try:
            _shown_ones()[target] = dummy, name
        except TypeError:  # of a metaclass that makes its classes unhashable
            pass
    return target


@cache
def _shown_ones() -> MutableMapping[Any, tuple[Any, str | None]]:
    """Classes, and `__init__`s of them, with their dummies and names: a run may begin in this process later."""
    from weakref import WeakKeyDictionary  # torch has it

    return WeakKeyDictionary()


def numb_param(params: Mapping[str, Any]) -> Params:
    """Register hyperparameters of this run, and give them back. Several calls add up; the last value of a name counts.

    Under numb, values that were set from outside take the place of those given, in what is returned and in *params* itself.
    Raises `TypeError`, under numb, for a value that cannot be kept, naming its place.
    """
    from numb.hp.params import Params

    session = _session()
    if session is None:
        return Params(params)
    return Params(session.param(params, sys._getframe(1)) or params)


def numb_queue(namespace: MutableMapping[str, Any] | None = None) -> None:
    """Replace the values of module-level names by what the queue, or the run that is trialed, says.

    Stands below the assignments of the hyperparameters and above their first use. `numb_queue()` and
    `numb_queue(globals())` are the same.
    """
    where = os.environ.get(layout.RUN_DIR)
    if where:
        from numb.capture import session

        session.inject(where, namespace, sys._getframe(1))


def numb_trial_result(results: Mapping[str, Any]) -> None:
    """Record the results of a trial (or of a training): numbers by name. Several calls add up.

    Tensors and arrays with one element become numbers. Raises `TypeError`, under numb, for what cannot be kept.
    """
    session = _session()
    if session is not None:
        session.result(results)


class Run:
    """The run that this script is, for checkpoints. Without numb it does nothing, and never asks the script to stop.

    run = numb.run()
    run.track(model=net, opt=optimizer, sched=scheduler)
    start = run.restore().step
    for step in range(start + 1, 101):
        ...
        run.checkpoint(step=step, acc=accuracy)
        if run.should_stop:
            break
    """

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    def _session(self) -> Session | None:
        return _session()

    def _where(self) -> str | None:
        return os.environ.get(layout.RUN_DIR)

    @property
    def id(self) -> str | None:
        """The id of the run; None without numb."""
        session = self._session()
        return session.order.id if session else None

    @property
    def params(self) -> Params:
        """The hyperparameters that are known by now; empty without numb."""
        from numb.hp.params import Params

        session = self._session()
        return Params(session.values.params if session is not None else {})

    def results(self, **results: Any) -> None:
        """Record results of the run: `run.results(acc=0.9)` is `numb_trial_result({"acc": 0.9})`."""
        session = self._session()
        if session is not None:
            session.result(results)

    def track(self, **parts: Any) -> Run:
        """Name what belongs to a checkpoint: anything with `state_dict` and `load_state_dict`, and `torch.Generator`s.

        The states of the random generators of Python, NumPy and torch belong to it in any case. Several calls add up.
        Raises `TypeError`, under numb, for what has no state.
        """
        if self._where():
            from numb.capture import tracking

            for name, part in parts.items():
                tracking.check(name, part)
            if (session := self._session()) is not None:
                session.await_requests()
        self._parts.update(parts)
        return self

    def restore(
        self, *, strict: bool = True, rename: Mapping[str, str] | None = None, only: str | None = None
    ) -> Restored:
        """Go on where `numb train --resume` says, or begin with the weights that `--init-from` names; else do nothing.

        To be called once, below everything that draws random numbers and right above the loop: what is tracked gets its
        state, and the random generators theirs. `.step` of what is returned is the step of the checkpoint, 0 where the
        training begins; the rest says what was loaded and what was not. Where that is *strict*, what does not fit
        ends the script; else entries of the same name and shape are loaded. *rename* gives entries of networks in the
        checkpoint the names that they have here (a key that ends with a dot is a prefix), and *only* is a regular expression
        that picks some of them.
        """
        from numb.capture.restored import Restored

        where = self._where()
        if not where:
            return Restored()
        session = self._session()
        if session is not None:
            return session.restore(self._parts, strict, rename, only) or Restored()
        from numb.capture import tracking

        return tracking.restored_by_other(where, self._parts, strict=strict, rename=rename, only=only)

    def checkpoint(self, *, step: int, **results: Any) -> None:
        """Keep the state of all that is tracked, as the one after *step*, with results to choose by (`acc=0.9`).

        Returns as soon as the states are copied into main memory; they are written while the script trains on. Raises
        `TypeError`, under numb, for results that cannot be kept, and for a step that is no number from 0.
        """
        session = self._session()
        if session is not None:
            session.checkpoint(self._parts, step, results)

    def save_batch(self, number: int, arrays: Mapping[str, Any]) -> None:
        """Keep what a batch has given, its features say, by name: `batches()` of the past run has them all, in order.

        Tensors, of any device and type, come back as tensors, and arrays as arrays. Nothing without numb. Raises `TypeError`,
        under numb, for a number that is none from 0, and for what cannot be kept.
        """
        session = self._session()
        if session is not None:
            session.save_batch(number, arrays)

    @property
    def should_stop(self) -> bool:
        """Whether the training was asked to end: by SIGTERM or SIGUSR1, or because its `--time-limit` is over.

        A script that asks is not ended by the first of these signals: it is to keep a checkpoint and to end by itself, and
        its run is then `incomplete`, to be resumed. Of several ranks, only the first is told: let it tell the others.
        """
        session = self._session()
        return session is not None and session.should_stop()

    @property
    def should_save(self) -> bool:
        """Whether a checkpoint is due: once in ten minutes or each interval of `--save-every`, and once when asked to stop."""
        session = self._session()
        return session is not None and session.should_save()

    @property
    def dir(self) -> Path:
        """A folder that belongs to the run: what is in it when the run ends is kept, as `numb.save` keeps files.

        It begins empty, also where a run is resumed. Names that end with `.no_sync`, and links, are not kept. Without numb it
        is a temporary folder, gone when the process ends.
        """
        where = self._where()
        if where:
            own = layout.RunFolder(where).own
            with contextlib.suppress(OSError):
                own.mkdir(exist_ok=True)
                return own
        return _temporary()

    @property
    def history(self) -> History:
        """What was logged until now, by field: count, mean, lowest and highest value and where, and the last one.

        `history.best("loss")` is the best by the name of the field. Those of a series of its own are called `NAME.FIELD`. Empty
        without numb.
        """
        from numb.record import History

        session = self._session()
        return (session.history() if session is not None else None) or History()

    def finish(self, status: str | None = None, reason: str | None = None) -> None:
        """Say how the run has ended, where its exit code would not: `run.finish("failed", "diverged")`.

        The *status* is `complete` (also where the script was asked to stop, and was through), `incomplete` (to be resumed) or
        `failed`. It counts when the script then ends by itself with exit code 0; the last call counts. Raises `TypeError`,
        under numb, for another status. A run of `numb.start()` without a `with` ends here.
        """
        session = self._session()
        if session is not None and status is not None:
            session.finish(status, reason)


_TAKEN = ("log", "system", "stdout", "tensorboard")  # series that are numb's
_now = time.time  # our own reference, for scripts that replace it


def log(**row: Any) -> None:
    """Add a row to the series of this run: `numb.log(step=step, loss=loss, acc=0.9)`. Nothing without numb.

    The first field says where the others belong: a step, an epoch. Every row has its time. Values are numbers, texts, truth
    values and None; tensors and arrays with one element become numbers. A row is written within a tenth of a second, and the
    script does not wait for it. Raises `TypeError`, under numb, for what cannot be kept, naming the field.
    """
    _usual.log(row)


class Series:
    """A series of a name and fields of its own: `log = numb.series("train", ["epoch", "loss"])`, then `log(epoch=1, loss=0.5)`.

    A field that a row lacks is missing in it. Raises `TypeError` for one that the series does not have, with numb or without.
    """

    def __init__(self, name: str, fields: Sequence[str]) -> None:
        self.name, self.fields = name, tuple(fields)
        self.port = _Port(name)
        self.number = _number  # of the run, in this process, that has used it last

    def __call__(self, **row: Any) -> None:
        """Add a row."""
        if unknown := [name for name in row if name not in self.fields]:
            raise TypeError(f"the series {self.name} has no {unknown[0]}; it has {', '.join(self.fields)}")
        self.port.log({name: row.get(name) for name in self.fields})


def series(name: str, fields: Sequence[str]) -> Series:
    """A series beside that of `numb.log`. The first of the *fields* says where the others belong: an epoch, a step.

    The same series each time. Raises `ValueError` for a name or fields that cannot be, or for other fields than before.
    """
    wanted = tuple(fields)
    known = _series.get(name)
    if known is None or (known.number != _number and known.fields != wanted):
        letters = name.replace("_", "").replace("-", "")
        if not (letters.isalnum() and letters.isascii()) or len(name) > 80 or _is_taken(name):
            raise ValueError(
                f"numb.series: {name!r:.90} is no name; say letters, digits, _ and -, and not {' or '.join(_TAKEN)}"
            )
        if (
            not wanted
            or isinstance(fields, str)
            or "Date" in wanted
            or len(set(wanted)) < len(wanted)
            or not all(isinstance(f, str) for f in wanted)
        ):
            raise ValueError(f"numb.series: {fields!r:.90} are no fields; say different names, and not Date")
        known = _series[name] = Series(name, wanted)
    if known.fields != wanted:
        raise ValueError(f"numb.series: {name} has the fields {', '.join(known.fields)}")
    known.number = _number
    return known


def _is_taken(name: str) -> bool:
    return name in _TAKEN or name.startswith("tensorboard-")


class _Port:
    """Where the rows of a series go: nowhere without numb, and under it to who writes them down."""

    __slots__ = ("_name", "put")
    put: Callable[[dict[str, Any]], None]

    def __init__(self, name: str) -> None:
        self._name = name
        self.put = self._first

    def log(self, row: dict[str, Any]) -> None:
        """Take a row as it was given."""
        row["Date"] = _now()
        self.put(row)

    def _first(self, row: dict[str, Any]) -> None:
        global _opens
        with _opening:  # for other threads, too
            if self.put == self._first:
                _opens = True
                session = None if _is_cut_off else _session()
                if session is not None:
                    session.log(self, self._name)
                if self.put == self._first:
                    self.put = _nowhere
                _opens = False
        self.put(row)

    def hasten(self, schema: Schema, pack: Callable[..., bytes], put: Callable[[bytes], None]) -> bool:
        """Only `numb.log` has a short way."""
        return False

    def slow(self) -> None:
        """Give every row as it is: it is to be looked at."""

    def close(self) -> None:
        self.put = _nowhere

    def reopen(self) -> None:
        """Another run has begun: ask again where rows go."""
        self.put = self._first


class _Usual(_Port):
    """That of `numb.log`, which becomes a function of just the arguments that its first row had.

    So Python binds each to a name, and makes no dictionary: that alone would take longer than all the rest.
    """

    __slots__ = ()

    def hasten(self, schema: Schema, pack: Callable[..., bytes], put: Callable[[bytes], None]) -> bool:
        names = schema.fields
        import struct

        if any(name.startswith("_") or keyword.iskeyword(name) for name in names):
            return False
        made: dict[str, Any] = {}
        given, values = ", ".join(f"{name}=None" for name in names), ", ".join(names)
        floats = "".join(
            f" and {n}.__class__ is float" for n, code in zip(names, schema.codes, strict=True) if code == "d"
        )
        exec(_LIKE_THE_FIRST.format(given=given, values=values, names=names, floats=floats), made)
        globals().update(_put=put, _pack=pack, _Unfit=struct.error)
        log.__kwdefaults__ = dict.fromkeys(names, _absent)
        log.__code__ = made["log"].__code__
        return True

    def slow(self) -> None:
        log.__code__ = _as_written

    def close(self) -> None:
        super().close()
        globals().update(_put=_nowhere)

    def reopen(self) -> None:
        super().reopen()
        self.slow()


def _in_child() -> None:
    """After a fork. Where a thread of the parent was opening a series, nobody lets go of its locks: no rows are kept here."""
    global _opening, _is_cut_off
    _opening = RLock()
    _is_cut_off = _is_cut_off or _opens
    if _is_cut_off:
        for port in (_usual, *(each.port for each in _series.values())):
            port.close()


os.register_at_fork(after_in_child=_in_child)

_LIKE_THE_FIRST = """
def log(*, {given}, **_others):
    if not _others{floats}:
        try:
            return _put(_pack({values}, _now()))
        except _Unfit:
            pass
    given = zip({names!r}, ({values},))
    _usual.log({{name: value for name, value in given if value is not _absent}} | _others)
"""
_as_written = log.__code__
_absent = object()
_nowhere = deque[Any](maxlen=0).append
_opening = RLock()
_opens = False  # just now, perhaps in another thread
_is_cut_off = False
_usual = _Usual("log")
_series: dict[str, Series] = {}
_number = 0  # of runs that have begun in this process by `numb.start`


class Callback:
    """A function that is called when something happens; `remove()` ends that. To be called itself as ever."""

    def __init__(self, event: str, function: Callable[..., Any]) -> None:
        self.event, self.function = event, function
        update_wrapper(self, function)
        if (session := _session()) is not None:
            session.on(event, function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Do what the function does."""
        return self.function(*arguments, **named)

    def remove(self) -> None:
        """Call it no more."""
        if (session := _session()) is not None:
            session.callbacks.remove(self.event, self.function)


@overload
def on(event: str) -> Callable[[Callable[..., Any]], Callback]: ...
@overload
def on(event: str, function: Callable[..., Any] | str) -> Callback: ...
def on(event: str, function: Callable[..., Any] | str | None = None) -> Any:
    """Call a function when something happens in this run, in the order in which they came: `@numb.on("step")` above it.

    `"start"`: when the training begins, before its first gradient. `"step"`: after each row of `numb.log`, with its first
    value and all of them by name. `"epoch"`: after the first row of each `epoch`, with that and the same values.
    `"checkpoint"`: after `run.checkpoint`, with step and results. `"end"`: when the script has ended without an error,
    `sys.exit` among the ways. `"fail"`: when an error has ended it, or a guard has spoken, with the reason. Instead of a
    function its name will do: `"package.module:function"`, or that of an entry point of the group `numb.callbacks`. What a
    function raises that a row calls is the script's; of the others it is told, and ends nothing. Without numb nothing is
    called. Raises `ValueError` for another event, and for what is no function.
    """
    from numb.callbacks import EVENTS, resolved  # a script that has none does not need them

    if event not in EVENTS:
        raise ValueError(f"numb.on: {event!r:.40} is none of {', '.join(map(repr, EVENTS))}")
    if isinstance(function, str):
        function = resolved(function)
    if function is not None and not callable(function):
        raise ValueError(f"numb.on: {function!r:.40} is no function")
    return partial(Callback, event) if function is None else Callback(event, function)


def save(name: str, value: Any) -> None:
    """Keep a value as a file of this run: `numb.save("confusion", matrix)`. Nothing without numb.

    The suffix says how: `.json` (what `numb_param` takes), `.csv` (a list of dictionaries, a data frame), `.txt`, `.npy`,
    `.npz`, `.pt` and tensors (each kept once for all runs), `.png` and `.svg` (figures); a name without one gets that of the
    value. A path is a file or a folder to be copied, bytes are kept under any name. Later values of one name replace earlier
    ones. Raises `TypeError`, under numb, for what cannot be kept, naming the place.
    """
    session = _session()
    if session is not None:
        session.save(name, value)


@cache
def _temporary() -> Path:
    import atexit
    import shutil
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp(prefix="numb-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


_run: Run | None = None


def run() -> Run:
    """The run that this script is: the same object each time."""
    global _run
    if _run is None:
        _run = Run()
        if (session := _session()) is not None:
            session.await_requests()
    return _run


def begin_anew(run: Run) -> dict[Any, tuple[Any, str | None]]:
    """This process begins another run, and that is *run*: series, and what is tracked, are those of this one alone.

    Returns what `numb_model` decorates since before there was a run, which is to be decorated now.
    """
    global _run, _number
    _run, _number = run, _number + 1
    for port in (_usual, *(each.port for each in _series.values())):
        port.reopen()
    shown = dict(_shown_ones())
    _shown_ones().clear()
    return shown


def end(run: Run) -> None:
    """What begins in this process after *run* has its own."""
    global _run
    _run = None if _run is run else _run
