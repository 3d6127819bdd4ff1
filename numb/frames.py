"""A series of a run as a data frame of pandas, or without pandas as a list of its rows.

A large table is inflated by a thread while pandas reads what is there already, which knows nothing of the dates: these have all
one shape, and are read many at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from importlib.util import find_spec
from itertools import compress
from typing import TYPE_CHECKING, Any

from numb import journal, tables
from numb.journal import DATE
from numb.record import Run, Series

if TYPE_CHECKING:
    from numb.project import Project

_DATE = "2026-11-20T21:33:53.042Z"
_MINUTE = len("2026-11-20T21:33")
_SIGNS, _DIGITS = [16, 19, 23], [17, 18, 20, 21, 22]  # where these are in what comes after


class _Texts(Exception):
    """A table has texts, which pandas would take for numbers and for nothing."""


def of(project: Project, run: Run, name: str, field: str | None = None) -> Any:
    """A series with its first field as index, without the rows that lack a *field*: to pandas NaN and nothing are the same.

    Raises `ArtifactMissing`, `ObjectMissing` and `ObjectCorrupt`.
    """
    kept = run.series.get(name)
    whole = kept is not None and all(each.count == kept.rows for each in kept.fields.values())
    if find_spec("pandas") is not None and kept is not None and (whole or field is None):
        try:
            return _read(tables.pieces(project, run, name), kept, whole)
        except (_Texts, ValueError):
            pass  # what is wrong with a table is said where it is read line by line
    fields, columns, times = journal.table(project.series(run, name))
    if field in fields:
        here = [value is not None for value in columns[fields.index(field)]]
        columns, times = [list(compress(column, here)) for column in columns], list(compress(times, here))
    if find_spec("pandas") is None:
        dates = [datetime.fromtimestamp(moment, timezone.utc) for moment in times]
        return [dict(zip([*fields, DATE], row, strict=True)) for row in zip(*columns, dates, strict=True)]
    import pandas

    found = pandas.DataFrame(dict(zip(fields, columns, strict=True)), columns=fields)
    found[DATE] = pandas.to_datetime([round(moment * 1000) for moment in times], unit="ms", utc=True)
    return found.set_index(fields[0]) if fields else found


def only(found: Any, field: str, missing: Callable[[], Exception]) -> Any:
    """One field of a table, with its index. Raises what *missing* makes."""
    if isinstance(found, list):
        if not found or field not in found[0]:
            raise missing()
        return [{name: row[name] for name in dict.fromkeys((next(iter(row)), field))} for row in found]
    if field == found.index.name:
        return found.index.to_frame()
    if field not in found:
        raise missing()
    return found[[field]]


def _read(pieces: Iterator[bytes], kept: Series, whole: bool) -> Any:
    """A table, of whose values none is missing where it is *whole*. Raises `_Texts`, and `ValueError` for a strange one."""
    import numpy
    import pandas

    exact = {"float_precision": "round_trip"} if int(pandas.__version__.split(".")[0]) < 3 else {}
    how: dict[str, Any] = {"index_col": 0, "keep_default_na": False, "na_values": ["", "nan"], "na_filter": not whole}
    table: Any = _Table(_ahead(pieces))
    found = pandas.read_csv(table, usecols=range(len(kept.fields)), **how, **exact)
    dates = numpy.concatenate(table.dates)
    if not len(found) == len(dates) == kept.rows:
        raise ValueError("not as many rows as the record says")
    found[DATE] = pandas.to_datetime(dates, unit="ms", utc=True)
    return found


def _ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


class _Table:
    """What pandas takes for a file; the `dates` of the rows that it has read are left here, Unix time in milliseconds."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.dates: list[Any] = []
        self._pieces = filter(None, pieces)  # nothing would be the end
        self._left = memoryview(b"")
        self._before: bytes | None = None  # as much of what is read as a date can reach into; None before the header

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def read(self, size: int) -> bytes:
        if not self._left:
            self._left = memoryview(self._next())
        found, self._left = self._left[:size], self._left[size:]
        return bytes(found)

    def _next(self) -> bytes:
        piece = next(self._pieces, b"")
        if b'"' in piece:
            raise _Texts
        start = 0
        if self._before is None:
            start = piece.find(b"\n") + 1
            self._before = piece[:start]
        self.dates.append(_dates(self._before + piece[start:], len(self._before)))
        self._before = (self._before + piece[start:])[-len(_DATE) :]
        return piece


def _dates(content: bytes, start: int) -> Any:
    """Those before the ends of lines, from *start* on. Raises `ValueError` where there is another thing."""
    import numpy

    numbers = numpy.frombuffer(content, numpy.uint8)
    ends = numpy.flatnonzero(numbers[start:] == ord("\n")) + (start - len(_DATE))
    if not len(ends):
        return ends
    if ends[0] < 0:
        raise ValueError("lines without dates")
    dates = numpy.lib.stride_tricks.sliding_window_view(numbers, len(_DATE))[ends]
    digits = dates[:, _DIGITS] - numpy.uint8(ord("0"))
    if (digits > 9).any() or (dates[:, _SIGNS] != numpy.frombuffer(_DATE.encode(), numpy.uint8)[_SIGNS]).any():
        raise ValueError("lines without dates")
    minutes = numpy.ascontiguousarray(dates[:, :_MINUTE]).view(f"S{_MINUTE}").ravel()
    first = numpy.flatnonzero(numpy.concatenate(([True], minutes[1:] != minutes[:-1])))
    known = minutes[first].astype("datetime64[ms]").astype(numpy.int64)
    within = digits @ numpy.array([10_000, 1_000, 100, 10, 1])
    return numpy.repeat(known, numpy.diff(first, append=len(minutes))) + within
