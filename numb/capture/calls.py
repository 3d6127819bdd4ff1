"""A model as the list of the torch functions that it calls: for models that cannot be traced."""

from __future__ import annotations

import torch

from numb.capture.dummy import Call
from numb.capture.invisible import reach
from numb.capture.modes import Recorder
from numb.capture.trace import Leaves, flat_inputs


def recorded(model: torch.nn.Module, call: Call) -> tuple[list[str], tuple[str, ...]]:
    """Return one line for each call in the order of execution, and the same for a reader.

    Raises whatever the model raises, and `ValueError` for TorchScript, whose calls cannot be seen.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in reach(model).modules):
        raise ValueError("the calls inside TorchScript cannot be seen")
    recorder = Recorder(flat_inputs(call), Leaves(model).name)
    args, kwargs = call
    with recorder:
        result = model(*args, **kwargs)
    recorder.output(result)
    return recorder.lines, tuple(recorder.operators)
