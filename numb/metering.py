"""What a run needs of the machine: processor and memory by psutil, GPUs by NVML.

Both are imported when the first look is taken, and a machine without an NVIDIA driver never imports the second. What cannot
be known is left out, and nothing is raised for it.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numb import processes

_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux, and Linux within Windows

Values = dict[str, float]


class Meter:
    """Looks at a process that *began* at this moment of the monotonic clock, at those below it, and at the machine.

    Which GPUs the process uses is what *environment* says of CUDA: numbers there count as NVML's, which are those of
    CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """

    def __init__(self, pid: int, environment: Mapping[str, str], began: float) -> None:
        self._pid = pid
        self._began = self._last = began
        self._known: dict[int, tuple[Any, float]] = {}  # each process, and the seconds of the processor that it had
        self._environment = environment
        self._gpus: _Gpus | None = None

    def look(self) -> Values:
        """What is so now; nothing when the process has ended. `cpu` is since the look before, or since the beginning.

        `seconds` since the beginning, `cpu` in per cent of one processor, `memory` of the processes and `machine_memory` of
        everything in bytes; for each GPU its use in per cent, and the bytes in use there, whoever uses them.
        """
        import psutil

        now, before = time.monotonic(), self._known
        self._known, used, memory = {}, 0.0, 0
        for pid in (self._pid, *_below(self._pid)):
            with contextlib.suppress(psutil.Error):
                process, seconds = before.get(pid) or (psutil.Process(pid), 0.0)
                with process.oneshot():
                    if not process.is_running():  # another one has its number
                        process, seconds = psutil.Process(pid), 0.0
                    times = process.cpu_times()
                    memory += process.memory_info().rss
                self._known[pid] = process, times.user + times.system
                used += max(0.0, times.user + times.system - seconds)
        passed = max(now - self._last, 1e-3)
        self._last = now
        if not memory:
            return {}
        self._gpus = self._gpus or _Gpus(self._environment)
        return {
            "seconds": round(now - self._began, 3),
            "cpu": round(100 * used / passed, 1),
            "memory": memory,
            "machine_memory": psutil.virtual_memory().used,
            **self._gpus.look(),
        }

    def close(self) -> None:
        """Let go of the GPUs."""
        if self._gpus is not None:
            self._gpus.close()


def _below(pid: int) -> list[int]:
    """The processes below *pid*. Asking each for its children takes a tenth of what reading all of /proc takes."""
    if not os.path.exists("/proc/thread-self/children"):
        return processes.descendants(pid)
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):  # ended meanwhile
            for thread in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
    return found[1:]


class _Gpus:
    """The GPUs that a process sees, as NVML has them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._visible = environment.get("CUDA_VISIBLE_DEVICES")
        self._nvml: Any = None
        self._handles: dict[int, Any] = {}
        if self._visible == "" or not any(map(os.path.exists, _DRIVERS)):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of another package that has this name, too
                import pynvml

            pynvml.nvmlInit()
        except Exception:  # no library, no driver, or one that says no: there is nothing to be known
            return
        self._nvml = pynvml
        with contextlib.suppress(Exception):
            self._handles = dict(self._seen())

    def look(self) -> Values:
        found: Values = {}
        for number, handle in self._handles.items():
            asked: dict[str, Callable[[], float]] = {
                f"gpu{number}": lambda: self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu,  # noqa: B023
                f"gpu{number}_memory": lambda: self._nvml.nvmlDeviceGetMemoryInfo(handle).used,  # noqa: B023
            }
            for name, ask in asked.items():
                with contextlib.suppress(Exception):  # a part of a GPU (MIG) does not know its use
                    found[name] = ask()
        return found

    def close(self) -> None:
        if self._nvml is not None:
            with contextlib.suppress(Exception):
                self._nvml.nvmlShutdown()

    def _seen(self) -> Iterator[tuple[int, Any]]:
        """Their numbers and handles, in CUDA's order, which ends where it meets what there is not."""
        count = self._nvml.nvmlDeviceGetCount()
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        if self._visible is None:
            yield from enumerate(handles)
            return
        names = [self._nvml.nvmlDeviceGetUUID(handle) for handle in handles]
        for word in self._visible.split(","):
            word = word.strip()
            if word.startswith("MIG-"):
                yield len(names), self._nvml.nvmlDeviceGetHandleByUUID(word)
                names.append(word)
                continue
            fits = [at for at, name in enumerate(names) if word.startswith("GPU-") and name.startswith(word)]
            at = int(word) if word.isdecimal() else fits[0] if len(fits) == 1 else count
            if at >= count:
                return
            yield at, handles[at]
