"""Small contents that lie within objects: where each was put, so that it is not put again.

Tensors of a few bytes are packed into one object, and named with it by the manifest, so this is a cache: `parts.jsonl` beside
the objects has a line for each that was packed, and the newest lines are enough. Nothing in it is believed: a part counts
only after its bytes and those of its object have been compared with their hashes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numb import atomic
from numb.errors import NumbError
from numb.store.objects import Objects, Ref, hash_of

_READ = 8 << 20  # bytes of lines, some ninety thousand parts
_IN_A_LINE = 1000  # parts, so that little is lost where the file is cut
_LARGEST = 16 << 20  # bytes of the file; then it is begun anew

_open, _close, _fstat, _pread = os.open, os.close, os.fstat, os.pread


@dataclass(frozen=True, slots=True)
class Part:
    """Where a content is: `nbytes` from `offset` of an object."""

    object: Ref
    offset: int
    nbytes: int


class Parts:
    """What is known of parts, by their hashes."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._places: dict[str, Part] | None = None
        self._compared: dict[str, Part] = {}
        self._intact: dict[Ref, bool] = {}  # as this save has found them

    @property
    def file(self) -> Path:
        return self._objects.root / "parts.jsonl"

    def look_again(self) -> None:
        """From now on, find out anew whether the objects are intact."""
        self._intact = {}

    def find(self, hashed: str, nbytes: int) -> Part | None:
        """Where this content is, its bytes compared; None where that is not known, or not so any more."""
        if self._places is None:
            self._places = self._read()
        part = self._places.get(hashed)
        if part is None or part.nbytes != nbytes or not self._is_intact(part.object):
            return None
        if self._compared.get(hashed) != part:
            if not self._is_sound(part, hashed):
                del self._places[hashed]
                return None
            self._compared[hashed] = part
        return part

    def add(self, ref: Ref, parts: Sequence[tuple[str, int, int]]) -> None:
        """Remember *parts* (hash, offset, bytes) of an object that is being written; a full disk is no error."""
        places = self._places if self._places is not None else {}
        for hashed, offset, nbytes in parts:
            places[hashed] = self._compared[hashed] = Part(ref, offset, nbytes)
        with contextlib.suppress(NumbError, OSError):
            if self.file.exists() and self.file.stat().st_size > _LARGEST:
                atomic.write(self.file, self._newest().rpartition(b"\n")[0] + b"\n")
            appender = atomic.Appender(self.file)
            try:
                for first in range(0, len(parts), _IN_A_LINE):
                    said = {"object": ref.digest, "size": ref.size, "parts": parts[first : first + _IN_A_LINE]}
                    appender.line(json.dumps(said, separators=(",", ":")).encode())
            finally:
                appender.close()

    def _is_intact(self, ref: Ref) -> bool:
        """Whether all of an object is sound: one that is not is written anew, whole, and all that needs it is mended."""
        if ref not in self._intact:
            self._intact[ref] = self._objects.is_intact(ref)
        return self._intact[ref]

    def _is_sound(self, part: Part, hashed: str) -> bool:
        try:
            with self._objects.opened(part.object.digest, part.object.size) as fd:
                return hash_of(_pread(fd, part.nbytes, part.offset)) == hashed
        except NumbError:
            return False

    def _read(self) -> dict[str, Part]:
        places: dict[str, Part] = {}
        for line in self._newest().splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                said = json.loads(line)
                ref = Ref(str(said["object"]), int(said["size"]))
                for hashed, offset, nbytes in said["parts"]:
                    if type(offset) is type(nbytes) is int and 0 <= offset <= offset + nbytes <= ref.size:
                        places[hashed] = Part(ref, offset, nbytes)
        return places

    def _newest(self) -> bytes:
        """The end of the file, from the beginning of a line."""
        try:
            fd = _open(self.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            size = _fstat(fd).st_size
            found = _pread(fd, _READ, max(0, size - _READ))
            return found if size <= _READ else found.partition(b"\n")[2]
        except OSError:
            return b""
        finally:
            _close(fd)
