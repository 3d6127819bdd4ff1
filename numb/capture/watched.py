"""Networks that numb looks after: how it learns that one stands, and that one is called for the first time."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from numb.capture.session import Session

_SMALL = 1 << 20  # bytes of a first batch that are kept as they are

_getpid = os.getpid


class Watched:
    """A network that numb looks after. Held strongly, for `main()` has often returned when the weights are saved."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.was: str | None = None  # what it was called before the script named it
        self.module: nn.Module | None = module
        self.dummy: Any = None
        self.architecture: str | None = None
        self.operators: tuple[str, ...] = ()
        self.filled: str | None = None  # the run with whose weights, for a trial
        self.checksums: dict[str, int] = {}  # of these weights, as they are in the network
        self.shapes: list[tuple[str, tuple[int, ...]]] | None = None

    def live(self) -> nn.Module:
        assert self.module is not None
        return self.module


class UnderConstruction(threading.local):
    """The networks whose `__init__` runs, in this thread, from the outermost inwards."""

    def __init__(self) -> None:
        self._running: list[Any] = []
        self._inner: list[tuple[Any, Any, str | None]] = []

    def begin(self, module: Any) -> bool:
        """False for a network whose `__init__` runs already."""
        if any(one is module for one in self._running):
            return False
        self._running.append(module)
        return True

    def end(self, module: Any, *facts: Any) -> list[tuple[Any, ...]]:
        """What has been built, with its *facts*: nothing before the outermost is, and of that no part by itself."""
        self._running = [one for one in self._running if one is not module]
        if facts:
            self._inner.append((module, *facts))
        if self._running:
            return []
        made, self._inner = self._inner, []
        if not facts:
            return []  # its `__init__` raised, and what it had made by then is gone with it
        parts = {id(part) for part in module.modules()} if hasattr(module, "modules") else set()
        return [one for one in made if one[0] is module or id(one[0]) not in parts]


class Init:
    """Stands for a decorated `__init__` until its class exists, and then puts a plain function in its place.

    Until then it can be called and bound as one, because a metaclass or another decorator may have taken it.
    """

    def __init__(self, session: Session, init: Callable[..., None], dummy: Any, name: str | None) -> None:
        functools.update_wrapper(self, init)
        self._numb = (self, init)
        self._facts = (session, dummy, name)
        self._noticed = session.noticing(init, dummy, name)

    def __set_name__(self, owner: type, attribute: str) -> None:
        session, dummy, name = self._facts
        setattr(owner, attribute, self._noticed)
        session.watch_subclasses(owner, dummy, name)

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        return self._noticed.__get__(module, owner)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._noticed(*args, **kwargs)


class FirstForward:
    """Looks at a network when it is called for the first time. Copies of the network, and its pickle, are free of it."""

    handle: Any = None

    def __init__(self, session: Session, watched: Watched) -> None:
        self._session, self._watched = session, watched

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import torch

        if torch.compiler.is_compiling():
            return  # what is traced must be the network alone: `fullgraph=True` takes no more
        self.handle.remove()
        if module is self._watched.module and not self._session.closed and self._session.pid == _getpid():
            self._session.first_inputs(self._watched, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _passing_by, ()


def _passing_by() -> Callable[..., None]:
    return _pass_by


def _pass_by(*_: Any) -> None:
    pass


def subclasses(base: type) -> set[type]:
    """All classes below *base*."""
    found: set[type] = set()
    waiting = [base]
    while waiting:
        new: set[type] = set(type.__subclasses__(waiting.pop())) - found
        found |= new
        waiting += new
    return found


def is_whole(module: Any) -> bool:
    """Whether no `__init__` of *module* can be running that numb does not see the end of (that of a dataclass, say)."""
    init = getattr(type(module), "__init__", None)
    return getattr(init, "_numb", None) is not None or not _is_being_built(module)


def _is_being_built(module: Any) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is module:
            return True
        frame = frame.f_back
    return False


def kept(inputs: Any) -> Any:
    """First inputs to keep until the graph is exported: the script's own may change, and may be large."""
    from numb.capture import dummy

    call = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    size = sum(tensor.numel() * tensor.element_size() for tensor in dummy.tensors(call))
    args, kwargs = dummy.fresh(call) if size <= _SMALL else dummy.of_two(call)
    return kwargs or args


def shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]] | None:
    from torch.nn.parameter import is_lazy

    named = [*module.named_parameters(), *module.named_buffers()]
    return None if any(is_lazy(t) for _, t in named) else [(name, tuple(t.shape)) for name, t in named]
