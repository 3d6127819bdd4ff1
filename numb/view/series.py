"""Rows of series as lines for a terminal, and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from numb import record
from numb.errors import printable


class Block(Protocol):
    """What is shown of some rows."""

    @property
    def series(self) -> str: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def times(self) -> Sequence[float]: ...
    def rows(self) -> Iterator[tuple[Any, ...]]: ...


def lines(block: Block, *, named: bool) -> Iterator[str]:
    """A row a line, with its time of day in UTC, what is missing left out; *named*, with the name of the series."""
    name = f"{block.series}  " if named else ""
    for moment, row in zip(block.times, block.rows(), strict=True):
        clock = time.strftime("%H:%M:%S", time.gmtime(moment))
        values = "  ".join(
            f"{printable(n)} {record.brief(v)}" for n, v in zip(block.fields, row, strict=True) if v is not None
        )
        yield f"{clock}  {name}{values}"


def json_lines(block: Block) -> Iterator[str]:
    """A row a line, as an object: its series, its time (seconds since the epoch), its values as records spell them."""
    for moment, row in zip(block.times, block.rows(), strict=True):
        values = {n: record.encode(v, n) for n, v in zip(block.fields, row, strict=True) if v is not None}
        yield json.dumps({"series": block.series, "time": moment, "values": values}, ensure_ascii=False)
