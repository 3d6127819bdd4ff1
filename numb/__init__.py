"""numb keeps every run of a PyTorch project as a commit in the project's own git repository.

In a training script:  `from numb import numb_model, numb_param, numb_queue, numb_trial_result`
                       `from numb.hp import _`, for hyperparameters
In a notebook:         `import numb; numb.open(".").runs()`

Importing this costs next to nothing: what a name needs is imported when the name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numb.hooks import numb_model, numb_param, numb_queue, numb_trial_result
from numb.version import __version__

if TYPE_CHECKING:
    import os

    from numb.project import Project

# Without `open`: a script that imports * keeps its own.
__all__ = ["__version__", "numb_model", "numb_param", "numb_queue", "numb_trial_result"]


def open(where: str | os.PathLike[str] = ".") -> Project:
    """Open the project that the folder *where* lies in.

    Raises `NotARepository`, `NotInitialised` and `ConfigError` of `numb.errors`.
    """
    from numb.project import Project

    return Project.open(where)


def build(description: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Make the object that `{"$build": "torch.optim.Adam", "lr": 1e-3}` describes; see `numb.hp.build`."""
    from numb.hp.build import build

    return build(description, *args, **kwargs)
