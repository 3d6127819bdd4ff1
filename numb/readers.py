"""Readers of what a script writes for people and for TensorBoard: the numbers in it, as rows.

What the script prints
    A row is a line with one or more pairs `name: number` or `name=number`. A name begins with a letter and goes on with
    letters, digits and `_ . / @ -`; before it stands the beginning of the line, a blank or one of `, ; | ( [ {`. A number is
    Python's, `nan` or `inf`; after it stands the end of the line, a blank, one of `, ; | ) ] }`, `%`, or `/` and the number
    of all. In such a line a blank is enough for `epoch`, `step`, `iter`, `iteration` and `batch` before a whole number.
    Everything else is passed over. Of a line that was drawn over with carriage returns, what was drawn last counts.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from numb.journal import DATE, EVENTS

Row = tuple[float, dict[str, float]]  # its time, and its numbers

_LONGEST = 4096  # bytes of a line
_WAITING = 1 << 22  # bytes that wait to be read; of a script that prints faster, rows are lost
_NAMES = 64  # pairs of a line

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NUMBER = r"[-+]?(?:\d+(?:_\d+)*(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_ERROR = re.compile(r"\s*[\w.]*(Error|Exception|Warning|Interrupt|Exit|Diverged)\b")  # the last line of a traceback
_PAIR = re.compile(
    r"(?<![^\s,;|(\[{])(?:(?P<name>[^\W\d][\w./@-]{0,79})\s*[:=]\s*|(?P<count>epoch|step|iter|iteration|batch)\s+(?=\d))"
    rf"(?P<number>{_NUMBER})(?=$|[\s,;|)\]}}%]|/\s*\d)",
    re.IGNORECASE,
)


def pairs(line: str) -> dict[str, float]:
    """The numbers of a line by their names; nothing where it is no row."""
    if ":" not in line and "=" not in line:
        return {}
    text = _CONTROL.sub("", line)
    if _ERROR.match(text):
        return {}
    found: dict[str, float] = {}
    is_row = False
    for match in _PAIR.finditer(text):
        name = match["name"] or match["count"]
        if name == DATE or len(found) == _NAMES:
            continue
        found.setdefault(name, _number(match["number"]))
        is_row |= match["name"] is not None
    return found if is_row else {}


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").replace("_", "").isdecimal() else float(text)


class Printed:
    """The lines that a script prints, on their way to become rows."""

    def __init__(self) -> None:
        self._came: deque[tuple[float, bytes]] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._line = b""
        self.lost = 0  # bytes

    def seen(self, data: bytes) -> None:
        """Take what has been printed now; to be called by whoever passes it on, who does not wait."""
        with self._lock:
            if self._waiting >= _WAITING:
                self.lost += len(data)
                return
            self._waiting += len(data)
            self._came.append((time.time(), data))

    def rows(self, most: int = _WAITING) -> Iterator[Row]:
        """The rows of the lines that have ended since, from about *most* bytes of them."""
        while self._came and most > 0:
            with self._lock:
                moment, data = self._came.popleft()
                self._waiting -= len(data)
            most -= len(data)
            *ended, rest = data.split(b"\n")
            for piece in ended:
                if row := pairs(_visible(self._line + piece).decode(errors="replace")):
                    yield moment, row
                self._line = b""
            self._line = _visible(self._line + rest)

    def last(self) -> Iterator[Row]:
        """What there is still, with a last line that has no end."""
        yield from self.rows()
        if row := pairs(self._line.decode(errors="replace")):
            yield time.time(), row


def _visible(line: bytes) -> bytes:
    """A line without what was drawn over; a carriage return at its end may be half of a line's end."""
    bare = line.rstrip(b"\r")
    return (bare.rpartition(b"\r")[2] + line[len(bare) :])[:_LONGEST]


# TensorBoard


def event_files(folders: Iterable[str], home: Path) -> dict[str, int]:
    """The event files below *folders*, glob patterns in *home*, with their sizes."""
    found = {}
    for pattern in folders:
        for folder in glob.iglob(pattern, root_dir=home, recursive=True):
            for path in glob.iglob(os.path.join(glob.escape(str(home / folder)), "**", "*.tfevents.*"), recursive=True):
                with contextlib.suppress(OSError):  # it has just been removed
                    found[os.path.realpath(path)] = os.path.getsize(path)
    return found


def event_rows(paths: Iterable[str], since: float) -> Iterator[tuple[str, Row]]:
    """The scalars that event files have got *since* a moment, as rows, with the name of the series of each.

    That is `tensorboard`, and with files in several folders `tensorboard-FOLDER` by what is different in them. A row has
    the step, and the tags that were written for it one after another. Raises `ImportError` without the package.
    """
    files = sorted(paths)
    common = os.path.commonpath([os.path.dirname(path) for path in files]) if files else ""
    for path in files:
        folder = os.path.relpath(os.path.dirname(path), common)
        name = EVENTS if folder == "." else f"{EVENTS}-{re.sub(r'[^A-Za-z0-9_-]', '_', folder)}"[:80]
        for row in _joined(_scalars(path, since)):
            yield name, row


def _joined(scalars: Iterable[tuple[float, int, str, float]]) -> Iterator[Row]:
    row: dict[str, float] = {}
    moment = 0.0
    for wall, step, tag, value in scalars:
        if row and (step != row["step"] or tag in row):
            yield moment, row
            row = {}
        moment, row = wall, {"step": step, **row, tag: value}
    if row:
        yield moment, row


def _scalars(path: str, since: float) -> Iterator[tuple[float, int, str, float]]:
    """Time, step, tag and value of each, up to where a file is cut off."""
    # Where TensorFlow is installed too, reading a file would wait seconds for it, unless this module is there.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for event in LegacyEventFileLoader(path).Load():
        if event.wall_time < since:
            continue
        for value in event.summary.value:
            number = _scalar(value)
            tag = f"{value.tag}_" if value.tag in ("step", DATE) else value.tag
            if number is not None and tag:
                yield event.wall_time, event.step, tag, number


def _scalar(value: Any) -> float | None:
    """What `add_scalar` has written, in its old form or in its new one."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in ("scalars", ""):
        return None
    from tensorboard.util import tensor_util

    array = tensor_util.make_ndarray(value.tensor)
    return float(array.item()) if array.ndim == 0 and array.dtype.kind in "fiu" else None
