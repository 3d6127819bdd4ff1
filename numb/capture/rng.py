"""The states of the random generators of Python, NumPy and torch: taken and put back, without a number drawn."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def taken() -> dict[str, Any]:
    """The state of every generator that the process has loaded; of devices, where they are in use."""
    import random

    import torch

    version, numbers, gauss = random.getstate()
    found: dict[str, Any] = {
        "python": {"version": version, "numbers": torch.tensor(numbers, dtype=torch.int64), "gauss": gauss},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy.random" in sys.modules:
        found["numpy"] = sys.modules["numpy"].random.get_state(legacy=False)
    return found


def put_back(states: Mapping[str, Any]) -> None:
    """Let every generator go on where it was. Raises `ValueError` or `RuntimeError` for states that are none."""
    import random

    import torch

    if python := states.get("python"):
        random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    if "numpy" in states:
        import numpy

        numpy.random.set_state(states["numpy"])
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
