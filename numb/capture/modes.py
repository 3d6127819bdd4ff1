"""What stands between a model and torch while numb looks at it.

These are function modes. A `TorchDispatchMode` would see more, and spoils what is looked at: under one,
`torch.jit.trace` writes the output of a convolution down as a constant (torch 2.13).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from numb.capture.dummy import kind, tensors

AUGMENTED = frozenset(
    f"__i{operator}__" for operator in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
)


class TimeUp(BaseException):
    """The time limit has passed. No `Exception`, or a model that catches those would go on."""


class Deadline(TorchFunctionMode):
    """Raise `TimeUp` at the first call of torch after *moment* (of the monotonic clock)."""

    def __init__(self, moment: float) -> None:
        super().__init__()
        self.moment = moment

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.monotonic() > self.moment:
            raise TimeUp
        return func(*args, **(kwargs or {}))


class CopyOnWrite(TorchFunctionMode):
    """Keep a copy of each watched tensor from just before something writes into it, and of no other.

    A write is seen by the name of the function, through any view or `.data`. It is not seen inside TorchScript, through
    NumPy, or in a C++ operator that does not say that it writes.
    """

    def __init__(self, watched: Iterable[Tensor]) -> None:
        super().__init__()
        self._watched: dict[int, list[Tensor]] = {}
        self._kept: list[tuple[Tensor, Tensor]] = []
        for tensor in watched:
            if has_memory(tensor):
                self._watched.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tensors(_written(func, args, kwargs or {})):
            self._keep(tensor)
        return func(*args, **(kwargs or {}))

    def _keep(self, tensor: Tensor) -> None:
        if not has_memory(tensor):
            return
        for watched in self._watched.pop(tensor.untyped_storage().data_ptr(), []):
            self._kept.append((watched, watched.clone()))

    def restore(self) -> None:
        for tensor, copy in self._kept:
            tensor.copy_(copy)


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that a call of *func* may write into."""
    if writes(func):
        return [args[0]] if args else list(kwargs.values())
    if kwargs.get("inplace") or kwargs.get("max_norm") is not None:  # an embedding's max_norm scales its weights
        return [*args, kwargs]
    return [kwargs["out"]] if "out" in kwargs else []


def writes(func: Any) -> bool:
    """Say whether *func* changes its first argument, by torch's own convention: `add_`, `__setitem__`, `+=`."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name in AUGMENTED


def has_memory(tensor: Tensor) -> bool:
    """Say whether *tensor* is plain memory: not sparse, on no meta device, not empty, and made already."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type != "meta"
        and not torch.nn.parameter.is_lazy(tensor)
        and tensor.numel() > 0
    )


class Recorder(TorchFunctionMode):
    """Write down each call of torch that yields a tensor, or writes into one, as a line of canonical text."""

    def __init__(self, inputs: Iterable[Tensor], leaf: Callable[[Tensor], str | None]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.operators: list[str] = []
        self._leaf = leaf
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []  # an identity is one only while its tensor lives
        for index, tensor in enumerate(inputs):
            self._name(tensor, f"input {index}")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        shown = [*map(self._shown, args), *(f"{key}={self._shown(given[key])}" for key in sorted(given))]
        result = func(*args, **given)
        name = _function_name(func)
        if name is not None and (tensors(result) or writes(func)):
            self._write(name, shown, result)
        return result

    def output(self, result: Any) -> None:
        self.lines.append("output " + " ".join(map(self._shown, tensors(result))))

    def _write(self, name: str, shown: list[str], result: Any) -> None:
        call = len(self.operators)
        self.lines.append(f"%{call} = {name}({', '.join(shown)})")
        self.operators.append(" ".join([name, *(text for text in shown if not text.startswith(("%", "input")))]))
        for index, tensor in enumerate(tensors(result)):
            self._name(tensor, f"%{call}.{index}" if index else f"%{call}")

    def _name(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = name
        self._alive.append(tensor)

    def _shown(self, value: Any) -> str:
        match value:
            case Tensor():
                return self._names.get(id(value)) or self._leaf(value) or constant(value)
            case list() | tuple():
                return f"[{', '.join(map(self._shown, value))}]"
            case dict():
                return f"{{{', '.join(f'{key}: {self._shown(item)}' for key, item in value.items())}}}"
            case slice():
                return f"{self._shown(value.start)}:{self._shown(value.stop)}:{self._shown(value.step)}"
            case None | bool() | int() | float() | complex() | str() | torch.dtype() | torch.layout():
                return repr(value)
            case torch.device():
                return "device"
            case torch.ScriptObject():  # packed weights: not even their shapes
                raise ValueError(f"a {type(value).__name__} cannot be seen into")
            case _:
                return type(value).__name__


def _function_name(func: Any) -> str | None:
    """Return what *func* is called, whichever way it is spelled; None for an attribute that computes nothing."""
    name: str = getattr(func, "__name__", type(func).__name__)
    if name == "__set__":
        return f"set {func.__self__.__name__}"
    if name != "__get__":
        return name
    attribute: str = func.__self__.__name__
    return attribute if attribute in ("T", "H", "mT", "mH", "real", "imag") else None


def constant(tensor: Tensor) -> str:
    """Return a tensor that is part of the computation: small ones by value, others by shape."""
    shape = f"{kind(tensor)}[{','.join(map(str, tensor.shape))}]"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta" or tensor.numel() > 16:
        return f"constant {shape}"
    return f"constant {shape} {tensor.detach().cpu().tolist()}"
