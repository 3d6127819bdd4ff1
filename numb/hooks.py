"""The face that a training script sees: four hooks, and the run.

Without numb (no run folder in the environment) each of them does nothing. Under numb they hand over to `numb.capture`; an
error of numb's own in there is recorded in the run, shown once, and never reaches the script.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, overload

from numb import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from pathlib import Path

    from numb.capture.restored import Restored
    from numb.capture.session import Session
    from numb.hp.params import Params

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
    return target if session is None else session.watch(target, dummy, name)


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

    @property
    def id(self) -> str | None:
        """The id of the run; None without numb."""
        session = _session()
        return session.order.id if session else None

    def track(self, **parts: Any) -> Run:
        """Name what belongs to a checkpoint: anything with `state_dict` and `load_state_dict`, and `torch.Generator`s.

        The states of the random generators of Python, NumPy and torch belong to it in any case. Several calls add up.
        Raises `TypeError`, under numb, for what has no state.
        """
        if os.environ.get(layout.RUN_DIR):
            from numb.capture import tracking

            for name, part in parts.items():
                tracking.check(name, part)
            if (session := _session()) is not None:
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

        where = os.environ.get(layout.RUN_DIR)
        if not where:
            return Restored()
        session = _session()
        if session is not None:
            return session.restore(self._parts, strict, rename, only) or Restored()
        from numb.capture import tracking

        return tracking.restored_by_other(where, self._parts, strict=strict, rename=rename, only=only)

    def checkpoint(self, *, step: int, **results: Any) -> None:
        """Keep the state of all that is tracked, as the one after *step*, with results to choose by (`acc=0.9`).

        Returns as soon as the states are copied into main memory; they are written while the script trains on. Raises
        `TypeError`, under numb, for results that cannot be kept, and for a step that is no number from 0.
        """
        session = _session()
        if session is not None:
            session.checkpoint(self._parts, step, results)

    @property
    def should_stop(self) -> bool:
        """Whether the training was asked to end: by SIGTERM or SIGUSR1, or because its `--time-limit` is over.

        A script that asks is not ended by the first of these signals: it is to keep a checkpoint and to end by itself, and
        its run is then `incomplete`, to be resumed. Of several ranks, only the first is told: let it tell the others.
        """
        session = _session()
        return session is not None and session.should_stop()

    @property
    def should_save(self) -> bool:
        """Whether a checkpoint is due: once in ten minutes or each interval of `--save-every`, and once when asked to stop."""
        session = _session()
        return session is not None and session.should_save()

    @property
    def dir(self) -> Path:
        """A folder that belongs to the run: what is in it when the run ends is kept, as `numb.save` keeps files.

        It begins empty, also where a run is resumed. Names that end with `.no_sync`, and links, are not kept. Without numb it
        is a temporary folder, gone when the process ends.
        """
        where = os.environ.get(layout.RUN_DIR)
        if where:
            own = layout.RunFolder(where).own
            with contextlib.suppress(OSError):
                own.mkdir(exist_ok=True)
                return own
        return _temporary()

    def finish(self, status: str, reason: str | None = None) -> None:
        """Say how the run has ended, where its exit code would not: `run.finish("failed", "diverged")`.

        The *status* is `complete` (also where the script was asked to stop, and was through), `incomplete` (to be resumed) or
        `failed`. It counts when the script then ends by itself with exit code 0; the last call counts. Raises `TypeError`,
        under numb, for another status.
        """
        session = _session()
        if session is not None:
            session.finish(status, reason)


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
