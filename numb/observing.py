"""What the launcher itself sees of a run while its script goes on, as series: the machine, and what the script writes.

Nothing of it is done in the script. The rows go into a journal that only the launcher writes: one that the script's thread
writes too would need a common numbering of schemas, and a disk that is full in the middle of a row is undone by cutting the
file, which is safe for one writer only. Rooms that only some runs need are imported where they are used, by which time the
script runs: its start waits for none of them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from numb import atomic
from numb.config import Config
from numb.errors import NumbError, one_line
from numb.layout import RunFolder

if TYPE_CHECKING:
    from numb.journal import Block, Framer
    from numb.readers import Printed, Row

_FIRST = 1.0  # seconds until the first look at the machine; the pauses double from there
_LOOK = 0.25  # seconds between two looks at what was printed
_AT_ONCE = 1 << 18  # bytes of it that are read then: reading more would hold up what passes them on
_PATIENCE = 2.0  # seconds for a look that is being taken when the script has ended
_ROWS = 4096


class Observer:
    """Observes one run, from `start` to `stop`. Whatever goes wrong is a note of the run's at most."""

    def __init__(self, settings: Config, folder: RunFolder, home: Path, environment: Mapping[str, str]) -> None:
        self._settings, self._home, self._environment = settings, home, environment
        self._journal = _Journal(folder.observed)
        self._printed: Printed | None = None
        self._events = (*settings.tensorboard, str(folder.own)) if settings.tensorboard else ()
        self._known: dict[str, int] = {}  # event files, and how long they were before
        self._began = 0.0
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._notes: list[str] = []

    @property
    def seen(self) -> Callable[[bytes], None] | None:
        """What must be told of each piece of the output."""
        return self._printed.seen if self._printed else None

    def prepare(self) -> None:
        """See what is there before the script starts."""
        self._began = time.time()
        if self._settings.reads_output:
            from numb.readers import Printed

            self._printed = Printed()
        if self._events:
            self._guarded("the event files of TensorBoard were not looked for", self._look_for_events)

    def start(self, pid: int) -> None:
        """Begin, now that the script runs as *pid*."""
        if self._settings.metrics is not None:
            self._go("the machine was not measured", lambda: self._measure(pid))
        if self._printed is not None:
            self._go("its output was not read", self._read_on)

    def stop(self) -> list[str]:
        """Keep what is still to be kept, now that the script has ended; returns what is to be noted."""
        self._ended.set()
        for thread in self._threads:
            thread.join(_PATIENCE)
        if self._printed is not None:
            self._guarded("its output was not read", self._read_last)
        if self._events:
            self._guarded("the event files of TensorBoard were not read", self._read_events)
        self._journal.close()
        return self._notes

    def _go(self, failure: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=lambda: self._guarded(failure, work), name="numb-observe", daemon=True)
        try:
            thread.start()
            self._threads.append(thread)
        except RuntimeError as error:  # there are as many threads as may be
            self._notes.append(f"{failure}: {error}")

    def _guarded(self, failure: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the training is the user's, whatever is wrong here
            self._notes.append(f"{failure}: {one_line(error)}")

    def _measure(self, pid: int) -> None:
        interval = self._settings.metrics or 0.0
        began, pause = time.monotonic(), min(_FIRST, interval)
        if self._ended.wait(pause):
            return
        from numb.journal import SYSTEM
        from numb.metering import Meter

        meter = Meter(pid, self._environment, began)
        while True:
            if values := meter.look():
                self._journal.add(blocks(SYSTEM, [(time.time(), values)]))
            pause = min(2 * pause, interval)
            if self._ended.wait(pause):
                break
        meter.close()

    def _read_on(self) -> None:
        from numb.journal import OUTPUT

        assert self._printed is not None
        while not self._ended.wait(_LOOK):
            self._journal.add(blocks(OUTPUT, self._printed.rows(_AT_ONCE)))

    def _read_last(self) -> None:
        from numb.journal import OUTPUT

        assert self._printed is not None
        self._journal.add(blocks(OUTPUT, self._printed.last()))
        if self._printed.lost:
            self._notes.append(f"{self._printed.lost} bytes of the output came too fast to be read for numbers")

    def _look_for_events(self) -> None:
        from numb import readers

        self._known = readers.event_files(self._events, self._home)

    def _read_events(self) -> None:
        from numb import readers

        now = readers.event_files(self._events, self._home)
        grown = [path for path, size in now.items() if size > self._known.get(path, 0)]
        try:
            found = readers.event_rows(grown, self._began)
            for series, together in itertools.groupby(found, key=lambda each: each[0]):
                self._journal.add(blocks(series, (row for _, row in together)))
        except ImportError:
            self._notes.append("the event files of TensorBoard were not read: pip install 'numb[tensorboard]'")


class _Journal:
    """The rows that the launcher adds. Those that a full disk does not take are lost, and nothing else is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._framer: Framer | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def add(self, found: Iterable[Block]) -> None:
        from numb.journal import Framer

        for block in found:
            with self._lock:
                if self._is_closed:  # the table is being made of what there is
                    return
                self._framer = self._framer or Framer()
                try:
                    atomic.append(self._path, self._framer.frames(block))
                except (NumbError, OSError):
                    self._framer = None  # what a schema is may not have been written

    def close(self) -> None:
        with self._lock:
            self._is_closed = True


def blocks(series: str, rows: Iterable[Row]) -> Iterator[Block]:
    """Rows as blocks: those that follow each other and have the same fields together, as many as are held at once."""
    from numb.journal import Block

    for fields, together in itertools.groupby(rows, key=lambda row: tuple(row[1])):
        while some := list(itertools.islice(together, _ROWS)):
            columns = zip(*(numbers.values() for _, numbers in some), strict=True)
            yield Block(series, fields, [moment for moment, _ in some], tuple(columns))
