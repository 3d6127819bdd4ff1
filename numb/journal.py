"""Series: numbers over time. The journal to which a running script appends, and the tables that become of it.

A journal is a file of frames. Before each stands its length, the CRC-32 of what follows, and its kind: a schema (which series,
which fields, whole numbers or floats), rows of such a schema, 8 little-endian bytes for each value and 8 for the time after
them, or rows of anything else as JSON. So a row of three numbers takes 32 bytes, a block that a kill has torn is known by
its sum, and whoever reads while somebody writes sees whole blocks. Nothing here knows a run, or torch.
"""

from __future__ import annotations

import calendar
import contextlib
import itertools
import json
import math
import os
import re
import struct
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from numb.record import Summary

DATE = "Date"  # the last column of each table: when the row was logged, in UTC
USUAL = "log"  # the series of `numb.log`
SYSTEM = "system"  # what the run needs of the machine
OUTPUT = "stdout"  # the numbers in what the script prints
EVENTS = "tensorboard"  # those in event files; of several folders, their names begin so

_HEAD = struct.Struct("<IIc")
_SCHEMA, _ROWS, _OTHER = b"s", b"r", b"o"
_NUMBER_OF = struct.Struct("<H")  # of the schema, before its rows
_LARGEST = 1 << 28  # bytes of a frame: what claims more is none
_AT_ONCE = 1 << 16  # rows
_CODES = {int: "q", float: "d"}
_MOST = sys.float_info.max  # what is beyond it is infinite, or a whole number that is no float
_NUMBER = re.compile(r"-?\d+")
_WHOLE = re.compile(r"^-?\d+$", re.MULTILINE)
_WORDS: dict[str, Any] = {"": None, "True": True, "False": False}


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one series with the same fields: their times (seconds since the epoch), and a column for each field."""

    series: str
    fields: tuple[str, ...]
    times: Sequence[float]
    columns: tuple[Sequence[Any], ...]  # None is what is missing

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The values of each row, without its time."""
        return zip(*self.columns, strict=True) if self.columns else iter([()] * len(self.times))

    def after(self, count: int) -> Block:
        """Without the first so many rows."""
        return Block(self.series, self.fields, self.times[count:], tuple(column[count:] for column in self.columns))

    def where(self, stays: Callable[[float, Any], bool]) -> Block:
        """Those rows whose time and first value *stays* accepts."""
        firsts = self.columns[0] if self.columns else itertools.repeat(None)
        chosen = [stays(moment, first) for moment, first in zip(self.times, firsts, strict=False)]
        columns = tuple(list(itertools.compress(column, chosen)) for column in self.columns)
        return Block(self.series, self.fields, list(itertools.compress(self.times, chosen)), columns)


# Writing


@dataclass(frozen=True, slots=True)
class Schema:
    """Rows that are numbers only: of each field, whether they are whole (`q`) or floats (`d`), as `struct` says it."""

    series: str
    fields: tuple[str, ...]
    codes: str

    @property
    def row(self) -> struct.Struct:
        """How a row lies in memory: its values, and its time."""
        return struct.Struct(f"<{self.codes}d")


class Framer:
    """Rows as frames, for one journal: what a schema says once is not said again."""

    def __init__(self) -> None:
        self._numbers: dict[Schema, int] = {}

    def packed(self, schema: Schema, rows: bytes) -> bytes:
        """The frames of rows that are packed already."""
        number, first = self._numbers.get(schema), b""
        if number is None:
            number = len(self._numbers) % (1 << 16)  # one that is told again has its new meaning from there on
            self._numbers = {known: taken for known, taken in self._numbers.items() if taken != number}
            self._numbers[schema] = number
            said = {"number": number, "series": schema.series, "fields": schema.fields, "codes": schema.codes}
            first = _frame(_SCHEMA, json.dumps(said).encode())
        return first + _frame(_ROWS, _NUMBER_OF.pack(number) + rows)

    def frames(self, block: Block) -> bytes:
        """The frames of a block."""
        codes = [_code(column) for column in block.columns]
        if None not in codes:
            schema = Schema(block.series, block.fields, "".join(map(str, codes)))
            try:
                return self.packed(schema, b"".join(map(schema.row.pack, *block.columns, block.times)))
            except struct.error:  # whole numbers that are too large
                pass
        rows = {"times": list(block.times), "columns": [list(column) for column in block.columns]}
        said = {"series": block.series, "fields": block.fields, **rows}
        return _frame(_OTHER, json.dumps(said).encode())


def _code(column: Sequence[Any]) -> str | None:
    """What a column is made of; None where that is not one kind of numbers."""
    if isinstance(column, array):
        return column.typecode
    kinds = set(map(type, column))
    return _CODES.get(kinds.pop()) if len(kinds) == 1 else None


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload, zlib.crc32(kind)), kind) + payload


# Reading


class Reader:
    """A journal from its beginning, and then what is appended to it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._at = 0
        self._schemas: dict[int, Schema] = {}
        self._passed = 0  # bytes of damaged frames before what was read

    def blocks(self) -> Iterator[Block]:
        """What has come since the last call; nothing where there is no journal.

        What is torn ends it. A damaged frame is passed over where a sound one follows.
        """
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(self._path, "rb"))
            except OSError:
                return
            file.seek(self._at)
            while (frame := _next(file) or self._after_damage(file)) is not None:
                self._at = file.tell()
                if (block := self._block(*frame)) is not None:
                    yield block

    @property
    def unread(self) -> int:
        """How many bytes of it are damaged, or torn, as far as it was read."""
        with contextlib.suppress(OSError):
            return self._passed + os.stat(self._path).st_size - self._at
        return 0

    def _after_damage(self, file: IO[bytes]) -> tuple[bytes, bytes] | None:
        """The next sound frame, where the damaged ones before it say how long they are."""
        size, at = os.fstat(file.fileno()).st_size, self._at
        while True:
            file.seek(at)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size or (at := at + _HEAD.size + _HEAD.unpack(head)[0]) >= size:
                return None
            file.seek(at)
            if (frame := _next(file)) is not None:
                self._passed += at - self._at
                return frame

    def _block(self, kind: bytes, payload: bytes) -> Block | None:
        try:
            match kind:
                case b"s":
                    said = json.loads(payload)
                    schema = Schema(str(said["series"]), tuple(said["fields"]), str(said["codes"]))
                    if len(schema.fields) == len(schema.codes) and set(schema.codes) <= set("qd"):
                        self._schemas[said["number"]] = schema
                case b"r":
                    return self._rows(payload)
                case b"o":
                    said = json.loads(payload)
                    return Block(said["series"], tuple(said["fields"]), said["times"], tuple(said["columns"]))
        except KeyError:  # what said its fields is damaged
            self._passed += len(payload)
        except (ValueError, TypeError, struct.error):
            pass  # written by another numb: its sum was right
        return None

    def _rows(self, payload: bytes) -> Block:
        schema = self._schemas[_NUMBER_OF.unpack_from(payload)[0]]
        rows, width = payload[_NUMBER_OF.size :], len(schema.codes) + 1
        if len(rows) % (8 * width):
            raise ValueError("a row that is cut off")
        whole = {code: array(code) for code in {*schema.codes, "d"}}
        for numbers in whole.values():
            numbers.frombytes(rows)
            if sys.byteorder == "big":
                numbers.byteswap()
        columns = [whole[code][place::width] for place, code in enumerate(f"{schema.codes}d")]
        return Block(schema.series, schema.fields, columns[-1], tuple(columns[:-1]))


def _next(file: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next frame, kind and payload; None where there is no whole one."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, check, kind = _HEAD.unpack(head)
    if length > _LARGEST:
        return None
    payload = file.read(length)
    whole = len(payload) == length and zlib.crc32(payload, zlib.crc32(kind)) == check
    return (kind, payload) if whole else None


# Tables


def summed(before: Summary, values: Sequence[Any], firsts: Sequence[Any]) -> Summary:
    """What a field sums up to when the column *values* follows; *firsts* is the column of the first field."""
    last = next((value for value in reversed(values) if value is not None), before.last)
    numbers, places = values, firsts
    total = math.fsum(values) if isinstance(values, array) else math.nan
    if total != total or math.isinf(total):  # what is no number among them
        chosen = [type(value) in (int, float) and value == value and -_MOST <= value <= _MOST for value in values]
        numbers, places = list(itertools.compress(values, chosen)), list(itertools.compress(firsts, chosen))
        total = _sum(numbers)
    if not numbers:
        return replace(before, last=last)
    low, high, count = min(numbers), max(numbers), before.count + len(numbers)
    mean = (before.mean or 0.0) * (before.count / count) + total / count
    after = replace(before, count=count, mean=mean if math.isfinite(mean) else None, last=last)
    if after.lowest is None or low < after.lowest:
        after = replace(after, lowest=low, lowest_at=places[numbers.index(low)])
    if after.highest is None or high > after.highest:
        after = replace(after, highest=high, highest_at=places[numbers.index(high)])
    return after


def _sum(numbers: Sequence[Any]) -> float:
    try:
        return math.fsum(numbers)
    except OverflowError:  # each of them is finite, and their sum is not
        return math.nan


@dataclass(slots=True)
class Outline:
    """What a journal says of one series: its fields in the order of their coming, how many rows, and what they sum up to."""

    fields: dict[str, Summary] = field(default_factory=dict)
    rows: int = 0

    def add(self, block: Block) -> None:
        """Add a block."""
        self.rows += len(block.times)
        firsts = block.columns[0] if block.columns else ()
        for name, column in zip(block.fields, block.columns, strict=True):
            self.fields[name] = summed(self.fields.get(name, Summary()), column, firsts)


def outlines(blocks: Iterable[Block]) -> dict[str, Outline]:
    """What each series consists of, by name."""
    found: dict[str, Outline] = {}
    for block in blocks:
        found.setdefault(block.series, Outline()).add(block)
    return found


def write_csv(blocks: Iterable[Block], fields: Sequence[str], out: IO[bytes]) -> None:
    """Write a table: the *fields* and `Date`, missing values empty, texts in quotes, numbers as Python spells them."""
    out.write((",".join([*map(_quoted, fields), DATE]) + "\n").encode())
    for block in blocks:
        known = dict(zip(block.fields, block.columns, strict=True))
        for start in range(0, len(block.times), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            cells = [_cells(known[name][part]) if name in known else itertools.repeat("") for name in fields]
            lines = map(",".join, zip(*cells, _dates(block.times[part]), strict=False))  # what is missing has no end
            out.write(("\n".join(lines) + "\n").encode(errors="surrogatepass"))


def _cells(column: Sequence[Any]) -> Iterable[str]:
    return map(repr, column) if isinstance(column, array) else map(_cell, column)


def _cell(value: Any) -> str:
    return "" if value is None else _quoted(value, always=True) if isinstance(value, str) else repr(value)


def _quoted(text: str, *, always: bool = False) -> str:
    needed = always or any(character in text for character in ',"\r\n') or text != text.strip()
    return '"' + text.replace('"', '""') + '"' if needed else text


def _dates(times: Sequence[float]) -> Iterator[str]:
    """`2026-11-20T21:33:53.042Z`."""
    known = second = prefix = text = None
    for moment in times:
        millisecond = int(moment * 1000 + 0.5)
        if millisecond != known:
            known = millisecond
            if millisecond // 1000 != second:
                second = millisecond // 1000
                prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            text = f"{prefix}{millisecond % 1000:03d}Z"
        yield str(text)


def read_csv(series: str, lines: Iterable[str]) -> Iterator[Block]:
    """The rows of a table that `write_csv` has written, some at a time. Raises `ValueError` for what is none."""
    left = iter(lines)
    head = [text for text, _ in next(_split(left), [])]
    if not head or head[-1] != DATE:
        raise ValueError(f"the table of {series} has no column {DATE}")
    while chunk := list(itertools.islice(left, _AT_ONCE)):
        rows: list[list[Any]]
        if has_quotes := any('"' in line for line in chunk):
            rows = list(_split(itertools.chain(chunk, _until_closed(chunk, left))))
        else:
            rows = [line.removesuffix("\n").split(",") for line in chunk]
        if any(len(row) != len(head) for row in rows):
            raise ValueError(f"a row of {series} has not {len(head)} fields")
        *columns, dates = zip(*rows, strict=True)
        moments = _moments(text for text, _ in dates) if has_quotes else _moments(dates)
        yield Block(series, tuple(head[:-1]), moments, tuple(map(_texts if has_quotes else _numbers, columns)))


def _until_closed(chunk: Iterable[str], left: Iterator[str]) -> Iterator[str]:
    """The lines that still belong to the last row of a chunk: a line break within quotes is no end."""
    is_open = sum(line.count('"') for line in chunk) % 2 == 1
    while is_open and (line := next(left, None)) is not None:
        is_open = line.count('"') % 2 == 0
        yield line


def _split(lines: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """The cells of each row, and whether they stood in quotes."""
    rest = ""
    for line in lines:
        rest += line
        if rest.count('"') % 2:
            continue  # a line break within quotes
        row, rest = rest.removesuffix("\n"), ""
        yield [(text, False) for text in row.split(",")] if '"' not in row else list(_cut(row))


def _cut(row: str) -> Iterator[tuple[str, bool]]:
    at = 0
    while True:
        if row.startswith('"', at):
            end = row.index('"', at + 1)
            while row.startswith('"', end + 1):
                end = row.index('"', end + 2)
            yield row[at + 1 : end].replace('""', '"'), True
            at = end + 1
        else:
            end = row.find(",", at)
            at, start = len(row) if end < 0 else end, at
            yield row[start:at], False
        if at >= len(row):
            return
        at += 1


def _texts(column: Sequence[tuple[str, bool]]) -> list[Any]:
    return [text if is_quoted else _value(text) for text, is_quoted in column]


def _numbers(column: Sequence[str]) -> list[Any]:
    """The same of cells without quotes, which are of one kind as a rule: that takes a tenth of the time."""
    try:
        return list(map(float if _WHOLE.search("\n".join(column)) is None else int, column))
    except ValueError:
        return list(map(_value, column))


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _NUMBER.fullmatch(text) else float(text)


def _moments(dates: Iterable[str]) -> list[float]:
    """The times of `_dates`. Most are of the second of the one before."""
    moments, known, second = [], "", 0
    for text in dates:
        date, _, rest = text.removesuffix("Z").partition(".")
        if date != known:
            known, second = date, calendar.timegm(time.strptime(date, "%Y-%m-%dT%H:%M:%S"))
        moments.append(second + float(f"0.{rest or 0}"))
    return moments


def table(blocks: Iterable[Block]) -> tuple[list[str], list[list[Any]], list[float]]:
    """All rows of one series: its fields, a column for each, and the times."""
    columns: dict[str, list[Any]] = {}
    times: list[float] = []
    for block in blocks:
        known = dict(zip(block.fields, block.columns, strict=True))
        for name in known:
            columns.setdefault(name, [None] * len(times))
        for name, column in columns.items():
            column.extend(known.get(name, [None] * len(block.times)))
        times.extend(block.times)
    return list(columns), list(columns.values()), times


def of(blocks: Iterable[Block], series: str) -> Iterator[Block]:
    """Those of one series."""
    return (block for block in blocks if block.series == series)
