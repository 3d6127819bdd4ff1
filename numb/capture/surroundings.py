"""What a script runs in: the interpreter, and what torch and NumPy say of themselves. Nothing is imported for it."""

from __future__ import annotations

import os
import sys
from typing import Any


def interpreter() -> dict[str, Any]:
    """The Python that runs the script, and how it was called."""
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable or "",
        "argv": list(getattr(sys, "orig_argv", sys.argv)),
        "path": [
            each for each in sys.path if isinstance(each, str)
        ],  # as Python has it: a Path there counts for nothing
        "cwd": _working_directory(),
    }


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # removed under the script's feet


def libraries() -> dict[str, Any]:
    """Seeds, devices and builds, as torch and NumPy report them; nothing is imported or initialised for it."""
    facts: dict[str, Any] = {"seeds": {}}
    if torch := sys.modules.get("torch"):
        facts["torch"] = str(torch.__version__)
        facts["seeds"]["torch"] = torch.initial_seed()
        facts["cuda"] = torch.version.cuda
        facts["threads"] = torch.get_num_threads()
        facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
        if torch.cuda.is_initialized():
            facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if numpy := sys.modules.get("numpy"):
        facts["numpy"] = str(numpy.__version__)
    return facts


def numpy_seed() -> int | None:
    """The seed of NumPy's global generator, as long as nothing was drawn: it stands at the front of the fresh state."""
    if "numpy.random" not in sys.modules:
        return None
    state = sys.modules["numpy"].random.get_state(legacy=False)
    if state.get("bit_generator") != "MT19937" or state["state"]["pos"] != 624:
        return None
    first = int(state["state"]["key"][0])
    return None if first == 0x80000000 else first  # what stands there when it was seeded from the system
