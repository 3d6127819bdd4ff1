"""The face that a training script sees: four hooks.

Without numb (no run folder in the environment) each of them does nothing. Under numb they hand over to `numb.capture`; an
error of numb's own in there is recorded in the run, shown once, and never reaches the script.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

from numb import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

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
