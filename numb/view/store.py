"""How much room runs take, what was freed, sent and fetched, and where that goes, for a terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Protocol

from numb import record
from numb.errors import printable
from numb.record import Run, RunId
from numb.view.table import grid


class Used(Protocol):
    """What is shown of the room of one run."""

    @property
    def run(self) -> Run: ...
    @property
    def bytes(self) -> int: ...
    @property
    def own(self) -> int: ...


class Place(Protocol):
    """What is shown of a place for objects."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def git(self) -> str: ...


class Collected(Protocol):
    """What is shown of what no run names."""

    @property
    def objects(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def left(self) -> int: ...
    @property
    def left_bytes(self) -> int: ...
    @property
    def folders(self) -> int: ...


def collected(found: Collected, *, dry_run: bool) -> str:
    """One line."""
    done = "would free" if dry_run else "freed"
    objects, left = record.counted(found.objects, "object"), record.counted(found.left, "object")
    jobs = f", and {record.counted(found.folders, 'folder')} of jobs" if found.folders else ""
    return f"{done} {size(found.bytes)} ({objects}){jobs}; {size(found.left_bytes)} ({left}) are needed"


def counts_json(found: Any) -> str:
    """What was collected, sent or fetched, a dataclass, by the names of its fields."""
    return json.dumps(dataclasses.asdict(found), indent=2)


def places(known: Sequence[Place]) -> str:
    """A table of the places for objects."""
    rows = [[printable(each.name), printable(each.url), printable(each.git)] for each in known]
    return grid(rows, ["name", "url", "git remote of the branch"]) if rows else ""


def places_json(known: Sequence[Place]) -> str:
    """A list of `name`, `url`, and `branch`, git's remote for it."""
    return json.dumps([{"name": each.name, "url": each.url, "branch": each.git} for each in known], indent=2)


def ids_json(found: Sequence[RunId]) -> str:
    """A list of ids."""
    return json.dumps(list(found), indent=2)


def usage(used: Sequence[Used]) -> str:
    """A table, the newest run last; then the sum of what they need together."""
    rows = [
        [each.run.id, printable(each.run.network), each.run.status, size(each.bytes), size(each.own)] for each in used
    ]
    return grid(rows, ["id", "network", "status", "needs", "alone"], right=(3, 4)) if rows else "no run has weights"


def usage_json(used: Sequence[Used]) -> str:
    """A list of `id`, `bytes`, and `own`, those that no other run needs."""
    return json.dumps([{"id": each.run.id, "bytes": each.bytes, "own": each.own} for each in used], indent=2)


def size(count: int) -> str:
    """`512 bytes`, `1.3 MB`, `2.05 GB`: powers of ten."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:.0f} {unit}"
    return record.counted(count, "byte")
