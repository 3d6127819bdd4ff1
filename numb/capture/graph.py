"""From a model and a dummy input to the id of its architecture, and to an ONNX file.

The same architecture means the same computation: equal operators, attributes, shapes, dtypes and wiring. The id is the
hash of a canonical text of it, from the highest rung of a ladder that the model allows:

    graph   what `torch.jit.trace` sees, in canonical form
    calls   the torch functions that a forward pass calls, in order
    tree    the modules, their settings and the shapes of their tensors

Neither the model nor any random state is changed by any of this (`invisible`), and torch is imported when it is needed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numb.capture.dummy import Call, Dummy, arguments, description, fresh, of_two, same_shapes
from numb.capture.invisible import invisible, materialised, settled, uncompiled

if TYPE_CHECKING:
    import torch

__all__ = ["Architecture", "CaptureFailed", "Dummy", "arguments", "capture", "invisible", "to_onnx", "unwrap"]

Written = tuple[list[str], tuple[str, ...]]
"""The lines of a canonical text, and its operators for a reader."""


class CaptureFailed(Exception):
    """There is no ONNX file of this model; says why in one line."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a model computes, whatever its weights and names are."""

    id: str
    """The first 16 hex digits of the SHA-256 of `text`; with `-calls` or `-tree` from the lower rungs."""
    rung: str
    text: str
    operators: tuple[str, ...]
    """One line for each operator, in the order of execution: `conv2d 16x1x3x3 stride=[1, 1] padding=[1, 1]`."""
    parameters: int
    """Elements in all parameters, tied ones counted once, those of lazy modules not before they are made."""
    why: str | None
    """Why the higher rungs were not possible, in one line."""


def capture(model: torch.nn.Module, dummy: Dummy | None, *, time_limit: float = 20.0) -> Architecture:
    """Return the architecture of *model*, and leave everything as it was.

    No fault of the model or the dummy raises: the architecture comes from a lower rung, and `why` tells. After
    *time_limit* seconds the rungs that run the model end, at their next call of torch.
    """
    from numb.capture.modes import TimeUp

    model = unwrap(model)
    try:
        return _from_a_run(model, dummy, time.monotonic() + time_limit)
    except TimeUp:
        return _from_the_tree(model, f"capturing took longer than {time_limit:g} s")
    except _NoRung as failed:
        return _from_the_tree(model, str(failed))


class _NoRung(Exception):
    pass


def _from_a_run(model: torch.nn.Module, dummy: Dummy | None, deadline: float) -> Architecture:
    """Try the rungs that run the model, each with a batch of two and with the dummy as it was given."""
    from numb.capture.calls import recorded
    from numb.capture.trace import traced

    calls = _calls(model, dummy, deadline)
    failures: dict[str, str] = {}
    for rung, write in (("graph", traced), ("calls", recorded)):
        for call in calls:
            try:
                return _run(model, call, rung, write, deadline, failures.get("graph") if rung == "calls" else None)
            except Exception as error:
                failures[rung] = f"{rung}: {_one_line(error)}"
    raise _NoRung("; ".join(failures.values()))


def _calls(model: torch.nn.Module, dummy: Dummy | None, deadline: float) -> list[Call]:
    from numb.capture.modes import Deadline

    if dummy is None:
        raise _NoRung("there is no dummy input")
    try:
        with invisible(model), settled(model), Deadline(deadline):
            given = arguments(dummy, model)
            two = of_two(given)
    except Exception as error:
        raise _NoRung(_one_line(error)) from error
    return [given] if same_shapes(given, two) else [two, given]


def _run(
    model: torch.nn.Module,
    call: Call,
    rung: str,
    write: Callable[[torch.nn.Module, Call], Written],
    deadline: float,
    why: str | None,
) -> Architecture:
    from numb.capture.modes import Deadline

    with invisible(model), settled(model), Deadline(deadline):
        made = _made(model, call)
        lines, operators = write(made, fresh(call))
        return _architecture(rung, [f"input {description(call)}", *lines], operators, made, why)


def _made(model: torch.nn.Module, call: Call) -> torch.nn.Module:
    """Return *model*, or a copy with all its tensors made if some were waiting for the first input."""
    args, kwargs = fresh(call)
    return materialised(model, lambda lazy: lazy(*args, **kwargs))


def _from_the_tree(model: torch.nn.Module, why: str) -> Architecture:
    from numb.capture.tree import listed

    lines, operators = listed(model)
    return _architecture("tree", lines, operators, model, why)


def _architecture(
    rung: str, lines: list[str], operators: tuple[str, ...], model: torch.nn.Module, why: str | None
) -> Architecture:
    text = "\n".join([f"numb {rung} 1", *lines, ""])
    digits = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Architecture(
        id=digits if rung == "graph" else f"{digits}-{rung}",
        rung=rung,
        text=text,
        operators=operators,
        parameters=_parameters(model),
        why=why,
    )


def _parameters(model: torch.nn.Module) -> int:
    from torch.nn.parameter import is_lazy

    return sum(parameter.numel() for parameter in model.parameters() if not is_lazy(parameter))


def _one_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:160]}" if first else type(error).__name__


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside `torch.compile`, `DataParallel` and `DistributedDataParallel`, however deep."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        inner = model.module if isinstance(model, (DataParallel, DistributedDataParallel)) else uncompiled(model)
        if inner is model:
            return model
        model = inner


def to_onnx(model: torch.nn.Module, dummy: Dummy) -> bytes:
    """Return *model* as an ONNX file without its weights, which are inputs of the graph; leave everything as it was.

    Raises `CaptureFailed` when no exporter can, with the reason of the first.
    """
    from numb.capture.export import by_export, by_trace

    model = unwrap(model)
    reasons: list[str] = []
    for export in (by_trace, by_export):
        try:
            with invisible(model), settled(model):
                call = fresh(arguments(dummy, model))
                return export(_made(model, call), call)
        except Exception as error:
            reasons.append(_one_line(error))
    raise CaptureFailed(reasons[0])
