"""numb keeps every run of a PyTorch project as a commit in the project's own git repository.

In a training script:  `from numb import numb_model, numb_param, numb_queue, numb_trial_result`
                       `from numb.hp import _`, for hyperparameters
In a notebook:         `import numb; numb.open(".").runs()`

Importing this costs next to nothing: what a name needs is imported when the name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numb.hooks import numb_model, numb_param, numb_queue, numb_trial_result
from numb.hooks import run as run
from numb.version import __version__

if TYPE_CHECKING:
    import os

    from numb.hp.building import build as build
    from numb.hp.tree import expand as expand
    from numb.hp.tree import flatten as flatten
    from numb.project import Project

_HP = ("build", "expand", "flatten")

# Without `open` and `run`: a script that imports * keeps its own.
__all__ = ["__version__", "numb_model", "numb_param", "numb_queue", "numb_trial_result"]


def open(where: str | os.PathLike[str] = ".") -> Project:
    """Open the project that the folder *where* lies in.

    Raises `NotARepository`, `NotInitialised` and `ConfigError` of `numb.errors`.
    """
    from numb.project import Project

    return Project.open(where)


def __getattr__(name: str) -> Any:
    if name in _HP:
        from importlib import import_module

        return getattr(import_module("numb.hp"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
