"""The dummy input: from what a user writes down to the arguments of one call of the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Dummy = Any
"""A tensor, a tuple or list (positional arguments), a dict (keyword arguments), a `torch.Size` or a tuple or list of
ints (a shape: ones of the default float type), or a function without arguments that returns one of these."""

Call = tuple[tuple[Any, ...], dict[str, Any]]


def arguments(dummy: Dummy, model: torch.nn.Module) -> Call:
    """Return `(args, kwargs)` for `model(*args, **kwargs)`, its tensors where the model's first parameter is.

    Raises `TypeError`, in one line, for what cannot be a dummy; a dummy function's own exception is its cause.
    """
    args, kwargs = _spread(_called(dummy))
    if not args:
        args, kwargs = _by_position(model, kwargs)
    parameter = next(model.parameters(), None)
    if parameter is None:
        return args, kwargs
    device = parameter.device
    return map_tensors(lambda tensor: tensor.to(device), args), map_tensors(lambda tensor: tensor.to(device), kwargs)


def _by_position(model: torch.nn.Module, named: dict[str, Any]) -> Call:
    """Name no argument that can go without: `net(x=x)` computes what `net(x)` does."""
    args = []
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return (), named
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.name not in named:
            break
        args.append(named[parameter.name])
    first = [parameter.name for parameter in parameters[: len(args)]]
    return tuple(args), {name: value for name, value in named.items() if name not in first}


def _called(dummy: Dummy) -> Any:
    import torch

    if not callable(dummy) or isinstance(dummy, torch.Tensor):
        return dummy
    if isinstance(dummy, (type, torch.nn.Module)):
        raise TypeError(f"a dummy input is a tensor or a shape, not {_name(dummy)}")
    try:
        return dummy()
    except Exception as error:
        raise TypeError(f"the dummy function failed: {type(error).__name__}: {error}") from error


def _spread(dummy: Any) -> Call:
    import torch

    match dummy:
        case torch.Tensor():
            return (dummy,), {}
        case tuple() | list() if isinstance(dummy, torch.Size) or _is_shape(dummy):
            return (_ones(dummy),), {}
        case tuple() | list() if dummy:
            return tuple(dummy), {}
        case Mapping() if dummy:
            odd = next((key for key in dummy if not isinstance(key, str)), None)
            if odd is not None:
                raise TypeError(f"a dict as dummy input holds keyword arguments; {odd!r} is not a name")
            return (), dict(dummy)
    raise TypeError(
        "a dummy input is a tensor, a tuple of arguments, a dict of keyword arguments, a shape, "
        f"or a function that returns one of these, not {_name(dummy)}"
    )


def _is_shape(dummy: tuple[Any, ...] | list[Any]) -> bool:
    return bool(dummy) and all(type(size) is int for size in dummy)


def _ones(shape: tuple[int, ...] | list[int]) -> Tensor:
    import torch

    if any(size < 0 for size in shape):
        raise TypeError(f"a dummy input of shape {tuple(shape)} cannot be: a size is negative")
    return torch.ones(tuple(shape))


def _name(dummy: Any) -> str:
    if dummy is None or isinstance(dummy, (tuple, list, dict)):
        return repr(dummy)
    return f"the class {dummy.__name__}" if isinstance(dummy, type) else f"a {type(dummy).__name__}"


def fresh(call: Call) -> Call:
    """Return *call* with tensors of its own, so that a model that writes into its input spoils nothing."""
    return map_tensors(_copied, call)  # type: ignore[no-any-return]


def of_two(call: Call) -> Call:
    """Return *call* with a batch of two: the first two rows of each tensor, or the only one twice.

    Rows are repeated and never made up, so that integers stay valid indices. What is computed from the length of the
    batch is then the same for every dummy.
    """
    return map_tensors(_two_rows, call)  # type: ignore[no-any-return]


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _two_rows(tensor: Tensor) -> Tensor:
    import torch

    if tensor.dim() == 0 or tensor.shape[0] == 0:
        return _copied(tensor)
    rows = torch.tensor([0, min(1, tensor.shape[0] - 1)], device=tensor.device)
    return tensor.detach().index_select(0, rows).requires_grad_(tensor.requires_grad)


def same_shapes(one: Call, other: Call) -> bool:
    return [tensor.shape for tensor in tensors(one)] == [tensor.shape for tensor in tensors(other)]


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return *value* with *change* applied to each tensor in its tuples, lists and dicts; the rest stays."""
    import torch

    match value:
        case torch.Tensor():
            return change(value)
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(map_tensors(change, item) for item in value))
        case torch.Size():
            return value
        case tuple():
            return tuple(map_tensors(change, item) for item in value)
        case list():
            return [map_tensors(change, item) for item in value]
        case dict():
            return {key: map_tensors(change, item) for key, item in value.items()}
        case _:
            return value


def tensors(value: Any) -> list[Tensor]:
    """Return every tensor in *value*, in order: through containers, dataclasses and the attributes of plain objects."""
    return list(_tensors(value, set()))


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif id(value) not in seen:  # an object may hold itself
        seen.add(id(value))
        for item in _items(value):
            yield from _tensors(item, seen)


def _items(value: Any) -> list[Any]:
    import torch

    match value:
        case Mapping():
            return list(value.values())
        case tuple() | list():
            return list(value)
        case torch.nn.Module() | type():
            return []
        case _ if is_dataclass(value):
            return [getattr(value, field.name) for field in fields(value)]
        case _:
            return list(getattr(value, "__dict__", {}).values())


def description(call: Call) -> str:
    """Return shapes without the batch, types and nesting: `(float32[*,1,28,28])` or `{mask: bool[*,7], x: …}`."""
    args, kwargs = call
    return " ".join(_described(part) for part in (args, kwargs) if part)


def _described(value: Any) -> str:
    import torch

    match value:
        case torch.Tensor():
            return f"{kind(value)}[{','.join(['*', *map(str, value.shape[1:])] if value.dim() else [])}]"
        case tuple():
            return f"({', '.join(map(_described, value))})"
        case list():
            return f"[{', '.join(map(_described, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_described(value[key])}' for key in sorted(value, key=str))}}}"
        case None | bool() | int() | float() | complex() | str() | bytes():
            return repr(value)
        case _:
            return type(value).__name__


def kind(tensor: Tensor) -> str:
    """Return a tensor's type as it appears in canonical texts: `float32`, or `float32 sparse_coo`."""
    import torch

    layout = "" if tensor.layout == torch.strided else " " + str(tensor.layout).removeprefix("torch.")
    return str(tensor.dtype).removeprefix("torch.") + layout
