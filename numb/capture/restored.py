"""What a script is told of its state that was brought back. Without numb this is all that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back: the step after which the training goes on (0 in one that begins), and what fitted.

    Entries are named `part.entry`. Where the restoring was strict, the last three are empty.
    """

    step: int = 0
    results: Mapping[str, Any] = field(default_factory=dict)
    loaded: tuple[str, ...] = ()
    not_in_model: tuple[str, ...] = ()
    not_in_checkpoint: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not (self.not_in_model or self.not_in_checkpoint or self.mismatched)
