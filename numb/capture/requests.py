"""What a training is asked for while it runs: to stop, and to keep a checkpoint. It asks; nothing is forced on it."""

from __future__ import annotations

import time
from collections.abc import Callable

_clock = time.monotonic
_USUAL = 600.0  # seconds between two checkpoints, where nobody has said another time


class Requests:
    """Of one script. *tell* is called once, with the reason, when it is asked to stop. Times are seconds, 0 where not said."""

    def __init__(self, tell: Callable[[str], None], time_limit: float = 0.0, save_every: float = 0.0) -> None:
        self._tell = tell
        self._began = self._saved = _clock()
        self._limit, self._interval = time_limit, save_every or _USUAL
        self._reason: str | None = None
        self._save_before_stop = False
        self.is_heard = False  # the script has asked at least once, so it will hear of a request

    def stop(self, reason: str) -> None:
        """Ask the training to stop; the first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._save_before_stop = True
            self._tell(reason)

    def should_stop(self) -> bool:
        """Whether it is to stop; once it is, it stays so."""
        self.is_heard = True
        self._look_at_clock()
        return self._reason is not None

    def should_save(self) -> bool:
        """Whether a checkpoint is due: once an interval, and once when the training is asked to stop."""
        self.is_heard = True
        self._look_at_clock()
        due = _clock() - self._saved >= self._interval
        if not (due or self._save_before_stop):
            return False
        self._saved, self._save_before_stop = _clock(), False
        return True

    @property
    def is_over_time(self) -> bool:
        return bool(self._limit) and _clock() - self._began >= self._limit

    def _look_at_clock(self) -> None:
        if self.is_over_time:
            self.stop(f"time limit of {self._limit:g} s")
