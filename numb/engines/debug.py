"""Everything in this process, one job after another: its script has the terminal, for a debugger say."""

from __future__ import annotations

import time

from numb.engines import Work


class Debug:
    """The engine that has no workers."""

    def run(self, work: Work) -> int:
        until = None if work.seconds is None else time.monotonic() + work.seconds
        return work.here(lambda: until is None or time.monotonic() < until)

    def shown(self, work: Work) -> str:
        return "one after another, in this process, on this terminal"
