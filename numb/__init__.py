"""numb keeps every run of a PyTorch project as a commit in the project's own git repository.

In a training script:  `from numb import numb_model, numb_param, numb_queue, numb_trial_result`
                       `from numb.hp import _`, for hyperparameters
In a notebook:         `import numb; repo = numb.open("."); repo[-1].params.lr`

Importing this costs next to nothing: what a name needs is imported when the name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numb.hooks import log as log
from numb.hooks import numb_model, numb_param, numb_queue, numb_trial_result
from numb.hooks import on as on
from numb.hooks import run as run
from numb.hooks import save as save
from numb.hooks import series as series
from numb.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numb.artifacts import loader as artifact_loader  # noqa: F401
    from numb.artifacts import saver as artifact_saver  # noqa: F401
    from numb.hp.building import build as build
    from numb.hp.tree import expand as expand
    from numb.hp.tree import flatten as flatten
    from numb.project import Project
    from numb.starting import Started

_LATER = {
    "build": "hp",
    "expand": "hp",
    "flatten": "hp",
    "artifact_saver": "artifacts",
    "artifact_loader": "artifacts",
}

# Without `open` and `run`: a script that imports * keeps its own.
__all__ = ["__version__", "numb_model", "numb_param", "numb_queue", "numb_trial_result"]


def open(where: str | os.PathLike[str] = ".") -> Project:
    """Open the project that the folder *where* lies in.

    Raises `NotARepository`, `NotInitialised` and `ConfigError` of `numb.errors`.
    """
    from numb.project import Project

    return Project.open(where)


def start(params: Mapping[str, Any] | None = None, *, message: str = "") -> Started:
    """Begin a run in this process, in a notebook or a script of its own: `with numb.start(params={"lr": 0.1}) as run:`.

    The hooks record until the block ends; without a block, until `run.finish()` or the end of the process. An error in the
    block makes the run `failed` and goes on. Of a script that numb has launched it gives the launched run, with these
    *params* as they were set from outside. Raises `NotARepository`, `NotInitialised` and `ConfigError` where there is no
    project, `NotPossible` while another run is open here, and `TypeError` for params that cannot be kept.
    """
    from numb import starting

    return starting.start(params, message=message, depth=2)


def load(run: str, *names: str) -> Any:
    """What a run has saved under a name, as the value that it was; a tuple of several. In a notebook, or in any script.

    *run* is what `numb show` takes. Raises `KeyError`, which lists the names there are.
    """
    project = open()
    return project.load(project.find(run), *names)


def load_state(run: str, model: str | None = None) -> Any:
    """The state dict of a run: its weights (of the *model*, where there are several).

    Of `ID@50`, a checkpoint, a dictionary of the states of what was tracked, by name (`{"model": …, "opt": …, "random": …}`),
    or with *model* the state of that one.
    """
    project = open()
    return project.load_state(*project.find_checkpoint(run), model)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "queue":  # the module itself, which can be called with the name of a file
        return import_module("numb.queue")
    if name in _LATER:
        return getattr(import_module(f"numb.{_LATER[name]}"), name.removeprefix("artifact_"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
