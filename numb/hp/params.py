"""Hyperparameters as `numb_param` gives them back: a dictionary whose keys can be read as attributes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class Params(dict[str, Any]):
    """`params["opt"]["lr"]` and `params.opt.lr` are the same."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(f"there is no {name}; there are {', '.join(self)}") from None
        if type(value) is dict:
            value = self[name] = Params(value)  # so that what is changed in it is changed here
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"there is no {name}; there are {', '.join(self)}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle of it, such as a checkpoint of torch, is read without numb, and with `weights_only`."""
        return OrderedDict, (list(self.items()),)
