"""Hyperparameters, written where they are used.

    from numb.hp import _

    lr = _("lr", 1e-3, help="step size", min=0)

Any name can be imported in place of `_`, and is a `Manager` of its own. Without numb a call returns its default; under numb,
what was set from the command line, a file or a queue, and the value that was used becomes part of the run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numb.hp.manager import Manager

    _: Manager

# What is not a placeholder, and where it is: nothing is imported before it is asked for.
_PUBLIC = {
    "Manager": "manager", "Occurrence": "occurrence", "Occurrences": "occurrence", "Level": "occurrence", "L": "occurrence",
    "EMPTY": "values", "NOT_LITERAL": "values", "Params": "params", "build": "building", "flatten": "tree",
    "expand": "tree", "bind": "argparsing", "options": "clicking",
}  # fmt: skip
ROOMS = frozenset(
    (
        "argparsing", "binding", "building", "clicking", "coerce", "formats", "imports", "manager", "occurrence", "params",
        "reading", "runtime", "scan", "settings", "source", "table", "tree", "values",
    )
)  # fmt: skip
RESERVED = frozenset(_PUBLIC) | ROOMS


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name.endswith("__") and len(name) > 4:
        raise AttributeError(name)
    if name in ROOMS:
        return import_module(f"numb.hp.{name}")
    if name in _PUBLIC:
        return getattr(import_module(f"numb.hp.{_PUBLIC[name]}"), name)
    return import_module("numb.hp.manager").named(name)
