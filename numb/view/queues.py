"""The entries of a queue, as a table and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from numb import record
from numb.errors import printable
from numb.view.table import grid
from numb.view.watch import duration

_MOST = 60  # entries that are shown of a longer file
_AROUND = 5  # of those that are next


class EntryState(Protocol):
    """How far an entry of a queue has come."""

    @property
    def entry(self) -> Any: ...
    @property
    def status(self) -> str: ...
    @property
    def run(self) -> str | None: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def skipped(self) -> bool: ...
    @property
    def canceling(self) -> bool: ...
    @property
    def priority(self) -> int: ...
    @property
    def holder(self) -> Mapping[str, Any]: ...
    @property
    def is_elsewhere(self) -> bool: ...


class Seen(Protocol):
    """A queue as it was looked at."""

    @property
    def states(self) -> Sequence[EntryState]: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def is_paused(self) -> bool: ...
    @property
    def elsewhere(self) -> str: ...
    @property
    def beside(self) -> Sequence[str]: ...


def table(seen: Seen, *, every: bool = False, lines: int | None = None) -> str:
    """The entries in the order of the file, and a line that sums them up; of many those that matter, in so many *lines*."""
    most = len(seen.states) if every else min(_MOST, len(seen.states))
    if lines is not None:
        most = max(1, min(most, lines - 3))
    chosen = _chosen(seen.states, most)
    shown = _rows(chosen)
    left_out = len(seen.states) - len(chosen)
    more = [f"… {left_out} more: --all shows them"] if left_out else []
    return "\n".join(filter(None, [shown, *more, _summary(seen)]))


def _chosen(states: Sequence[EntryState], most: int) -> list[EntryState]:
    """What runs, what has failed, what comes next, and then the others from the front, in their order."""
    if len(states) <= most:
        return list(states)
    waiting = sorted(
        (state for state in states if state.status in ("queued", "cut off")),
        key=lambda state: (state.status != "cut off", -state.priority),
    )
    first = [
        *(state for state in states if state.status == "running"),
        *waiting[:_AROUND],
        *(state for state in states if state.status == "failed"),
        *states,
    ]
    numbers = list(dict.fromkeys(state.entry.number for state in first))[:most]
    wanted = set(numbers)
    return [state for state in states if state.entry.number in wanted]


def _rows(states: Sequence[EntryState]) -> str:
    params = list(dict.fromkeys(name for state in states for name in state.entry.params))
    lines = [
        [
            str(state.entry.number),
            _status(state),
            *(record.brief(state.entry.params[name]) if name in state.entry.params else "" for name in params),
            state.run or "",
        ]
        for state in states
    ]
    return grid(lines, ["entry", "status", *map(printable, params), "run"], [0, *range(2, 2 + len(params))])


def _status(state: EntryState) -> str:
    words = [state.status]
    if state.skipped:
        words.append("before")
    if state.priority:
        words.append(f"(priority {state.priority})")
    if state.status == "running":
        since = state.holder.get("since")
        if isinstance(since, int | float):
            words.append(duration(time.time() - since))
        if gpu := state.holder.get("gpu"):
            words.append(f"on GPU {printable(str(gpu))}")
        if state.is_elsewhere:
            words.append(f"on {printable(str(state.holder.get('host') or 'another machine'))}, as far as is known")
        if state.canceling:
            words.append("asked to end")
    return " ".join(words)


def _summary(seen: Seen) -> str:
    if not seen.states:
        return "no combinations"
    parts = [counts(seen.states)]
    if seen.seconds_left is not None:
        parts.append(f"about {duration(seen.seconds_left)} left")
    if seen.is_paused:
        parts.append("paused")
    if seen.elsewhere:
        parts.append(f"Slurm: {seen.elsewhere}")
    parts += [f"somebody runs it with {each or 'nothing'} set for all" for each in seen.beside]
    return "; ".join(parts)


def counts(states: Iterable[EntryState]) -> str:
    """How many entries there are of each status, and how many of them did not need a training."""
    found: dict[str, int] = {}
    before = set()
    for state in states:
        found[state.status] = found.get(state.status, 0) + 1
        if state.skipped:
            before.add(state.entry.key)
    same = {"done": f" ({len(before)} trained before)"} if before else {}
    return ", ".join(f"{count} {status}{same.get(status, '')}" for status, count in found.items())


def as_json(seen: Seen) -> str:
    """A list with an object for each entry, a line each: there may be thousands."""
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
    lines = []
    for state in seen.states:
        entry = {
            "number": state.entry.number,
            "params": record.encoded(state.entry.params),
            "status": state.status, "run": state.run, "exit_code": state.exit_code, "skipped": state.skipped,
            "priority": state.priority,
        }  # fmt: skip
        if state.status == "running":
            known = {
                name: state.holder[name] for name in ("host", "pid", "gpu", "since", "slurm") if name in state.holder
            }
            entry |= {**known, "elsewhere": state.is_elsewhere, "canceling": state.canceling}
        lines.append(f"  {encoder.encode(entry)}")
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
