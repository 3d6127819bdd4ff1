"""Time series from inside a training: what a row costs the loop is a microsecond, and a thread writes it down.

The first row of `numb.log` says what the others are likely to be. Those that are like it are packed at once (`Fast`); all
others wait as dictionaries, with the number of packed rows before them. Ten times a second what has come is appended to the
journal of the run, so that any death loses a tenth of a second at most, and nothing waits for the disk. A forked child has
rows of its own nowhere: what it logs is not the run's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from numb import atomic, record
from numb.capture.values import BadValue
from numb.errors import NumbError
from numb.journal import DATE, USUAL, Block, Framer, Outline, Reader, Schema
from numb.record import History

if TYPE_CHECKING:
    from numb.capture.session import Session

INTERVAL = 0.1  # seconds
_MOST = 1 << 26  # bytes that wait while the disk is full; then rows are lost
_PLAIN = {float, int, bool, str, type(None)}
_CODES = {int: "q", float: "d"}

_sleep, _getpid = time.sleep, os.getpid

Row = dict[str, Any]
nowhere: Callable[[Row], None] = deque[Row](maxlen=0).append  # where rows go that nobody keeps


class Port(Protocol):
    """Where the script gives the rows of one series."""

    put: Callable[[Row], None]

    def hasten(self, schema: Schema, pack: Callable[..., bytes], put: Callable[[bytes], None]) -> bool:
        """Pack rows of this schema at once, and put them there; False where such rows come by no other way."""

    def slow(self) -> None:
        """Give every row as it is again."""

    def close(self) -> None:
        """Keep nothing any more."""


class Waiting:
    """The rows of one series that are not written yet, in their order."""

    def __init__(self, name: str, port: Port, observe: Callable[[str, Row], None]) -> None:
        self.name, self.port, self._observe = name, port, observe
        self.schema: Schema | None = None  # of the packed ones
        self._packed = bytearray()
        self._written = 0  # bytes of packed rows, until now
        self._others: list[tuple[int, Row]] = []  # with how many bytes of packed rows came before, ever
        self._lock = threading.RLock()  # a signal may come while it is held, and end the script
        self._is_new = True
        port.put = self.put

    def put(self, row: Row) -> None:
        """Take a row, with its time. Raises `BadValue`."""
        if self._is_new and not self.is_observed:
            self._is_new = False
            with contextlib.suppress(Exception):  # the long way is as good
                self._hasten(row)  # as it was given: tensors are to come by the long way, every one
        row = plain(row, "numb.log" if self.name == USUAL else self.name)
        with self._lock:
            self._others.append((self._written + len(self._packed), row))
        if self.is_observed:
            self._observe(self.name, row)

    is_observed = False

    def observe(self) -> None:
        """Show each row, from now on, to whoever observes."""
        self.is_observed = True
        self.port.slow()

    def _hasten(self, row: Row) -> None:
        fields = tuple(name for name in row if name != DATE)
        codes = [_CODES.get(type(row[name])) for name in fields]
        if None in codes or not all(map(str.isidentifier, fields)):
            return
        schema = Schema(self.name, fields, "".join(map(str, codes)))
        if self.port.hasten(schema, schema.row.pack, self._packed.extend):
            self.schema = schema

    def taken(self) -> list[Block | bytes]:
        """All that has come, in its order: blocks, and packed rows."""
        with self._lock:
            packed, others = bytes(self._packed), self._others
            del self._packed[: len(packed)]  # what is packed meanwhile stands behind it
            begin, self._others = self._written, []
            self._written += len(packed)
        found: list[Block | bytes] = []
        at = 0
        for before, together in itertools.groupby(others, key=lambda each: each[0]):
            end = min(len(packed), max(at, before - begin))
            found += [packed[at:end]] if end > at else []
            found += blocks(self.name, [row for _, row in together])
            at = end
        return found + ([packed[at:]] if at < len(packed) else [])

    def forget(self) -> None:
        """In a forked child: what the parent has not written is the parent's."""
        self.port.close()
        self._packed.clear()
        self._others, self._lock = [], threading.RLock()


class Series:
    """The rows of a recorded script on their way into its journal."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._path = session.folder.series
        self._framer = Framer()
        self._waiting: list[Waiting] = []
        self._unwritten = b""  # frames that the disk has not taken
        self._lock = threading.Lock()  # of those who write
        self._thread: threading.Thread | None = None
        self._has_lost = False
        self._reader, self._outlines = Reader(self._path), dict[str, Outline]()
        os.register_at_fork(after_in_child=partial(_forget, weakref.ref(self)))  # a process may have many runs

    def open(self, port: Port, name: str = USUAL) -> None:
        """Let what comes through *port* be rows of the series *name*."""
        waiting = Waiting(name, port, self._session.observe)
        self._waiting.append(waiting)
        if self._is_observed:
            waiting.observe()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_on, name="numb-series", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is ending: `close` writes
                pass

    _is_observed = False

    def observe(self) -> None:
        """Show each row to the session, before the script goes on."""
        self._is_observed = True
        for waiting in self._waiting:
            waiting.observe()

    def history(self) -> History:
        """What the numbers of each field sum up to by now; those of a series with a name of its own as `NAME.FIELD`."""
        self.flush()
        for block in self._reader.blocks():
            self._outlines.setdefault(block.series, Outline()).add(block)
        return History(
            (field if name == USUAL else f"{name}.{field}", summary)
            for name, outline in self._outlines.items()
            for field, summary in outline.fields.items()
        )

    def close(self) -> None:
        """Write what has come, and take no more."""
        for waiting in self._waiting:
            waiting.port.close()
        self.flush()
        if self._has_lost or self._unwritten:
            self._session.note("some rows of the series could not be kept: was the disk full?")

    def flush(self) -> None:
        """Write what has come so far. What the disk does not take is written before what comes next."""
        with self._lock:
            frames = [self._unwritten]
            for waiting in self._waiting:
                for each in waiting.taken():
                    if isinstance(each, Block):
                        frames.append(self._framer.frames(each))
                    elif waiting.schema is not None:
                        frames.append(self._framer.packed(waiting.schema, each))
            content = b"".join(frames)
            if not content:
                return
            try:
                atomic.append(self._path, content)
                self._unwritten = b""
            except (NumbError, OSError) as error:
                self._keep_for_later(content, error)

    def _keep_for_later(self, content: bytes, error: Exception) -> None:
        if not self._unwritten and not self._has_lost:
            self._session.trouble("log", error)
        self._unwritten = content
        if len(content) > _MOST:
            self._unwritten, self._framer, self._has_lost = b"", Framer(), True

    def _write_on(self) -> None:
        while not self._session.closed and self._session.pid == _getpid():
            _sleep(INTERVAL)
            try:
                self.flush()
            except Exception as error:  # the guard around a thread: the script goes on, and so does this
                self._session.trouble("log", error)
                return

    def _forget(self) -> None:
        self._lock = threading.Lock()
        for waiting in self._waiting:
            waiting.forget()


def _forget(series: weakref.ref[Series]) -> None:
    if (alive := series()) is not None:
        alive._forget()


def blocks(name: str, rows: Sequence[Row]) -> list[Block]:
    """Rows as blocks: those that follow each other and have the same fields together."""
    return [_block(name, fields, list(together)) for fields, together in itertools.groupby(rows, key=tuple)]


def _block(name: str, fields: tuple[str, ...], rows: Sequence[Row]) -> Block:
    columns = list(_columns(rows))
    at = fields.index(DATE)
    return Block(name, fields[:at] + fields[at + 1 :], columns[at], tuple(columns[:at] + columns[at + 1 :]))


def _columns(rows: Sequence[Row]) -> Iterator[Sequence[Any]]:
    for column in zip(*map(dict.values, rows), strict=True):
        yield column if set(map(type, column)) <= _PLAIN else [_number(value) for value in column]


# Values


def plain(row: Mapping[str, Any], who: str = "numb.log") -> Row:
    """A row as it can be kept: numbers of NumPy and torch as Python's. Raises `BadValue`, naming the field.

    A number on another device is copied there and fetched by the thread that writes: the training does not wait for it.
    """
    return {name: value if type(value) in _PLAIN else _taken(name, value, who) for name, value in row.items()}


def _taken(name: str, value: Any, who: str) -> Any:
    detach = getattr(value, "detach", None)
    if callable(detach) and getattr(value, "numel", lambda: 0)() == 1 and not getattr(value, "is_cpu", True):
        return detach().clone()
    try:
        found = record.decode(record.encode(value, name))
    except TypeError as error:
        raise BadValue(f"{who}: {error}") from None
    if type(found) not in _PLAIN:
        raise BadValue(f"{who}: {name} is a {type(value).__name__}, and no number or text")
    return found


def _number(value: Any) -> Any:
    return value if type(value) in _PLAIN else value.item()
