"""Where the jobs of a queue run. Each engine is a module with a class that runs workers; a worker is `numb queue work`.

A worker takes entries of a queue, one after another, until none is left. What it knows of the others is what the queue's files
say, so that an engine has only to start processes, wherever, and to tell of one that is not here whether it has gone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numb import alive

if TYPE_CHECKING:
    from numb.config import Config

GPUS = "CUDA_VISIBLE_DEVICES"

# numb, without the current folder on the path: what lies there may have the name of a module.
_NUMB = "import sys; sys.path[:1] == [''] and sys.path.pop(0)\nfrom numb.cli import main; main(prog_name='numb')"


@dataclass(frozen=True, slots=True)
class Work:
    """What the workers of a queue are to do."""

    config: Config
    home: Path  # the folder of the project
    words: Sequence[str]  # what `numb queue work` is told, from the name of the file on
    waiting: int  # entries that are to be trained
    fail_fast: bool = False  # nothing more is begun after one that fails
    seconds: float | None = None  # nothing more is begun after this time
    here: Callable[[Callable[[], bool]], int] = lambda goes_on: 0  # work in this very process, as long as it says so
    tick: Callable[[], object] = lambda: None  # to be called now and then while workers are there
    folder: Path = Path()  # for what an engine has to keep
    handed_to: Callable[[Mapping[str, Any]], object] = lambda holder: (
        None
    )  # who has the workers, when this process goes
    say: Callable[[str], object] = lambda line: None


class Engine(Protocol):
    """Runs workers, and waits for them where it does not leave them to somebody else."""

    def run(self, work: Work) -> int:
        """Work a queue off; returns the first exit code that is not 0.

        Raises `CommandNotFound`, `CannotStart`, and what else keeps it from starting the first worker.
        """

    def shown(self, work: Work) -> str:
        """What `run` would do, as a person reads it."""


def worker(*told: str) -> list[str]:
    """The command line of a worker that is told these words."""
    return [sys.executable, "-c", _NUMB, "queue", "work", *told]


def here() -> dict[str, Any]:
    """What is said of this process where it takes an entry: on which GPU it is, and as part of what."""
    gpu = os.environ.get(GPUS)
    facts = {"gpu": gpu} if gpu else {}
    if "SLURM_JOB_ID" in os.environ:
        from numb.engines import slurm

        facts |= slurm.here(os.environ)
    return facts


def is_gone(holder: Mapping[str, Any]) -> bool | None:
    """Whether who has taken an entry has gone; None where nobody here can tell."""
    if "slurm" in holder:
        from numb.engines import slurm

        return slurm.is_gone(holder)
    return alive.is_gone(holder)
