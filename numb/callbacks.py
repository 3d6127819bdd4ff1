"""Functions of the user's that are called when something happens in a recorded training, in the order of their coming.

Names stand for functions: `package.module:function`, or one that an installed package offers as an entry point.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

EVENTS = ("start", "step", "epoch", "checkpoint", "end", "fail")
OF_ROWS = ("step", "epoch")  # which rows of `numb.log` call
GROUP = "numb.callbacks"  # of entry points


class Callbacks:
    """Those of one run, by the event that calls them."""

    def __init__(self) -> None:
        self._known: dict[str, list[Callable[..., Any]]] = {event: [] for event in EVENTS}

    def add(self, event: str, function: Callable[..., Any]) -> None:
        """Call *function* from now on."""
        self._known[event].append(function)

    def remove(self, event: str, function: Callable[..., Any]) -> None:
        """Call it no more; once, where it is there several times."""
        if function in self._known[event]:
            self._known[event].remove(function)

    def of(self, event: str) -> tuple[Callable[..., Any], ...]:
        """Those that are to be called now: one may remove itself meanwhile."""
        return tuple(self._known[event])


def resolved(name: str) -> Callable[..., Any]:
    """The function that a name stands for. Raises `ValueError`, and what importing the module raises."""
    module, colon, path = name.partition(":")
    if not colon and name:
        found: Any = _offered(name)
    elif module and path:
        found = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    else:
        raise ValueError(f"{name!r:.80} is no name such as package.module:function")
    if not callable(found):
        raise ValueError(f"{name} is a {type(found).__name__}, and no function")
    return found  # type: ignore[no-any-return]


def _offered(name: str) -> Any:
    from importlib.metadata import entry_points  # it reads what every installed package says of itself

    offered = entry_points(group=GROUP)
    for each in offered:
        if each.name == name:
            return each.load()
    there = ", ".join(sorted({each.name for each in offered})) or "none"
    raise ValueError(f"no installed package offers {name!r:.80} as one of {GROUP}; there are {there}")
