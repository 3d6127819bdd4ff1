"""A terminal as a person has one: what is shown on it, and what is typed."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from typing import Any

PATIENCE = 60.0  # seconds
TAKE = "fcntl.ioctl(0, termios.TIOCSCTTY, 0)"  # what a process does whose terminal it is to be


class Terminal:
    """A terminal with numb on one side and the test, as the person before it, on the other."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.person, self.numb = os.openpty()
        self.screen = b""
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.person, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.person, keys)

    def read_until(self, expected: bytes) -> bytes:
        """Read until *expected* has been shown since the last call; return all that was shown since then."""
        until = time.monotonic() + PATIENCE
        while expected not in self.screen:
            assert select.select([self.person], [], [], max(0, until - time.monotonic()))[0], self.screen
            self.screen += os.read(self.person, 1 << 16)
        end = self.screen.index(expected) + len(expected)
        shown, self.screen = self.screen[:end], self.screen[end:]
        return shown

    def read_all(self, process: subprocess.Popen[bytes]) -> bytes:
        """Read until nobody but the test has the terminal open; *process* has ended then."""
        os.close(self.numb)
        self.numb = -1
        try:
            while data := os.read(self.person, 1 << 16):
                self.screen += data
        except OSError:  # EIO: the end
            pass
        process.wait(PATIENCE)
        shown, self.screen = self.screen, b""
        return shown

    def controlling(self) -> dict[str, Any]:
        """Return the options that start numb as a shell would: in the foreground of this terminal."""
        return {"stdin": self.numb, "stdout": self.numb, "stderr": self.numb, "before": TAKE}

    def close(self) -> None:
        for fd in (self.person, self.numb):
            if fd >= 0:
                os.close(fd)
