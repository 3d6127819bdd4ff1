"""When a training begins: with the first gradient that the script takes, or its first step of an optimizer.

Nothing before that has learnt anything. A forward pass has not either: it may be a sanity check, the making of a lazy
layer, or a look at a shape, and the second network of a GAN may be built after it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

# What `backward` and `grad`, and all that is made of them, call last. The public functions keep their identity, by which
# TorchScript and torch.compile know them.
_ENGINE = "_engine_run_backward"


def at_first_gradient(begins: Callable[[], bool]) -> None:
    """Call *begins* before the first gradient or optimizer step, until it returns True; then leave no trace.

    What it raises comes out of the script's own call. torch has a hook for a step, and none for a gradient: one function
    is replaced for as long as it takes. No module, tensor or optimizer carries anything, so that copies, pickles,
    wrappers and compiled networks know nothing of it, and a forward pass costs what it costs.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    engine = getattr(torch.autograd, _ENGINE, None)  # private: without it, the optimizer's step is left

    def notice(*_: Any) -> None:
        if torch.compiler.is_compiling():
            return  # tried out by a compiler, and perhaps never run
        over = True
        try:
            over = begins()
        finally:
            if over:
                step.remove()
                if getattr(torch.autograd, _ENGINE, None) is noticed:  # unless somebody has put theirs around it
                    setattr(torch.autograd, _ENGINE, engine)

    step = register_optimizer_step_pre_hook(notice)
    noticed = None
    if engine is not None:

        @functools.wraps(engine)
        def noticed(*args: Any, **kwargs: Any) -> Any:
            _as_written(notice)()
            return engine(*args, **kwargs)

        setattr(torch.autograd, _ENGINE, noticed)


def _as_written(function: Callable[[], None]) -> Callable[[], None]:
    """Keep torch.compile, where it is in use, from compiling what runs here: it would decide that all is being compiled."""
    if "torch._dynamo" not in sys.modules:
        return function
    import torch

    uncompiled: Callable[[], None] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return uncompiled
