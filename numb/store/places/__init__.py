"""What every kind of place for objects can do. Each kind is a module of its own; `numb.store.remotes` is how to use them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager

from numb.errors import RemoteFailed
from numb.store.objects import Ref

PIECE = 1 << 20
NO_FILE = -1
"""The size of what has an object's name and is no file."""
_A_DAY = 86400.0


class LinkCut(RemoteFailed):
    """A failure that may be over the next time."""


class Upload(AbstractContextManager["Upload"]):
    """One object on its way to a remote; what has been written stays there when the block ends, for the next."""

    start = 0
    """From which byte on it is to be written."""
    piece = PIECE
    """The length that every piece but the last must have."""

    @abstractmethod
    def write(self, piece: bytes) -> None:
        """Send the next bytes."""

    @abstractmethod
    def keep(self) -> bool:
        """Give the object its name. False if what was there from before turned out not to be of it: write all anew."""

    @abstractmethod
    def remove(self) -> None:
        """Drop what has been written."""


class Remote(ABC):
    """A place that keeps objects: what differs from kind to kind. These raise what is in `foreign`, and `explain` it."""

    foreign: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url

    @abstractmethod
    def sizes(self, digests: Set[str]) -> dict[str, int]:
        """The sizes of those among *digests* that are there, in a number of requests that does not grow with theirs."""

    @abstractmethod
    def prepare(self, wanted: Set[str]) -> None:
        """Get ready for uploads of *wanted*, and remove those of others that nobody has gone on with for a day."""

    @abstractmethod
    def upload(self, ref: Ref, sender: str) -> Upload:
        """Begin to send an object, or go on with what came of it the last time from the same *sender*."""

    @abstractmethod
    def read(self, ref: Ref, start: int) -> Iterator[bytes]:
        """Yield an object's bytes from *start* on; at most as many as it should have are asked for."""

    @abstractmethod
    def explain(self, error: Exception) -> RemoteFailed:
        """What a foreign error means, and what to type next."""

    @abstractmethod
    def removal(self, digest: str) -> str:
        """The command that removes an object there."""

    @abstractmethod
    def close(self) -> None:
        """End the connections, also under the hands of other threads; the next use makes new ones."""


def is_abandoned(modified: float, now: float | None = None) -> bool:
    """Whether an upload that was last gone on with at *modified* is nobody's any more."""
    return (time.time() if now is None else now) - modified > _A_DAY
