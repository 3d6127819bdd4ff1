"""A model as the tree of its modules: for models of which no forward pass can be had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def listed(model: torch.nn.Module) -> tuple[list[str], tuple[str, ...]]:
    """Return one line for each module, indented, in the order of definition; and those without children, for a reader.

    Names of attributes are not in it; types, what `extra_repr` says, and the module's own tensors are.
    """
    numbers: dict[int, int] = {}
    lines = [f"{'  ' * depth}{_line(module, numbers)}" for depth, module in _walk(model, 0)]
    leaves = (module for _, module in _walk(model, 0) if next(module.children(), None) is None)
    return lines, tuple(_title(module) for module in leaves)


def _walk(module: torch.nn.Module, depth: int) -> Iterator[tuple[int, torch.nn.Module]]:
    yield depth, module
    for child in module._modules.values():  # unlike `children`, each as often as it is there
        if child is not None:
            yield from _walk(child, depth + 1)


def _line(module: torch.nn.Module, numbers: dict[int, int]) -> str:
    parameters = [f"param {_tensor(tensor, numbers)}" for tensor in module.parameters(recurse=False)]
    buffers = [f"buffer {_tensor(tensor, numbers)}" for tensor in module.buffers(recurse=False)]
    again = id(module) in numbers
    number = numbers.setdefault(id(module), len(numbers))
    return " ".join([_title(module), f"again #{number}"] if again else [_title(module), *parameters, *buffers])


def _title(module: torch.nn.Module) -> str:
    name: str = getattr(module, "original_name", type(module).__name__)
    try:
        extra = module.extra_repr()
    except Exception:  # the user's code, and the last rung must hold
        extra = ""
    return f"{name}({' '.join(extra.split())})"


def _tensor(tensor: Tensor, numbers: dict[int, int]) -> str:
    from torch.nn.parameter import is_lazy

    from numb.capture.dummy import kind

    number = numbers.setdefault(id(tensor), len(numbers))
    shape = "?" if is_lazy(tensor) else ",".join(map(str, tensor.shape))
    return f"#{number} {kind(tensor)}[{shape}]"
