"""Objects in a folder at the other end of an `ssh`."""

from __future__ import annotations

import errno
import math
import os
import re
import shlex
import threading
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager

from numb.errors import RemoteFailed
from numb.store.objects import Ref
from numb.store.places import NO_FILE, LinkCut, Remote, Upload, is_abandoned
from numb.store.places.sftp import WINDOW, Attributes, NoSsh, Sftp, SshFailed

_FOR_GOOD = re.compile(
    "Permission denied|Could not resolve|timed out|subsystem request failed|Bad configuration|Bad owner"
)
_LOOK = {errno.ENOSPC: "df -h", errno.EROFS: "findmnt --target", errno.ENOENT: "mkdir -p"}


class Ssh(Remote):
    """A folder where the user's own `ssh HOST` leads, without a question; it must be there."""

    foreign = (OSError, NoSsh, EOFError)

    def __init__(self, url: str, user: str | None, host: str, port: str | None, path: str, patience: float) -> None:
        super().__init__(url)
        self._path = path.rstrip("/") or "/"
        self._objects = os.path.join(self._path, "objects")
        self._patience = patience
        self._destination = [*(["-p", port] if port else []), *(["-l", user] if user else []), "--", host]
        self._shown = " ".join(["ssh", *([f"-p {port}"] if port else []), f"{user}@{host}" if user else host])
        self._lock = threading.Lock()
        self._idle: list[Sftp] = []
        self._busy: set[Sftp] = set()
        self._folders: set[str] = set()
        self.begun: set[str] = set()
        """The names of the uploads that are there."""

    @property
    def _command(self) -> list[str]:
        options = [
            "BatchMode=yes",  # asks nothing
            "StrictHostKeyChecking=yes",  # and believes no new host, whatever the configuration says
            f"ConnectTimeout={math.ceil(self._patience / 2)}",
            f"ServerAliveInterval={math.ceil(self._patience / 3)}",
            "ServerAliveCountMax=3",
            "ControlMaster=no",  # uses a connection that is open, but leaves none behind
            "ControlPersist=no",
            "ForwardAgent=no",
            "ForwardX11=no",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "RequestTTY=no",
            "LogLevel=INFO",  # its last line is the reason that we tell
        ]
        return ["ssh", *(word for option in options for word in ("-o", option)), "-s", *self._destination, "sftp"]

    @contextmanager
    def connection(self) -> Iterator[Sftp]:
        """A connection for one thread; one in which something went wrong is not used again."""
        with self._lock:
            sftp = self._idle.pop() if self._idle else None
        sftp = sftp or Sftp(self._command, self._patience)
        with self._lock:
            self._busy.add(sftp)
        try:
            yield sftp
        except BaseException:
            with self._lock:
                self._busy.discard(sftp)
            sftp.close()
            raise
        with self._lock:
            self._busy.discard(sftp)
            self._idle.append(sftp)

    def close(self) -> None:
        with self._lock:
            for busy in self._busy:
                busy.cut()
            idle, self._idle = self._idle, []
        for sftp in idle:
            sftp.close()

    def path(self, *names: str) -> str:
        """A path below `objects` there."""
        return os.path.join(self._objects, *names)

    def sizes(self, digests: Set[str]) -> dict[str, int]:
        found = {}
        with self.connection() as sftp:
            if not sftp.is_directory(self._path):
                raise FileNotFoundError(errno.ENOENT, f"there is no folder {self._path}")
            for folder, name, attributes in sftp.folders(sorted({self.path(digest[:2]) for digest in digests})):
                self._folders.add(folder)
                if name in digests and folder == self.path(name[:2]):
                    found[name] = attributes.size if attributes.is_file else NO_FILE
        return found

    def prepare(self, wanted: Set[str]) -> None:
        tmp = self.path("tmp")
        needed = {self.path(digest[:2]) for digest in wanted} - self._folders
        with self.connection() as sftp:
            there = {name: found for _, name, found in sftp.folders([tmp]) if found.is_file}
            others = {name: found.modified for name, found in there.items() if name[:64] not in wanted}
            if any(map(is_abandoned, others.values())):
                now = sftp.now(tmp)  # its clock's, by which its files have their times
                sftp.remove_what_can_be(
                    self.path("tmp", name) for name, time in others.items() if is_abandoned(time, now)
                )
            with self.telling_why(sftp):
                sftp.make_folders([self._objects, tmp, *sorted(needed)])
        self._folders |= needed
        self.begun |= set(there)

    @contextmanager
    def telling_why(self, sftp: Sftp) -> Iterator[None]:
        """Find out whether the disk there is full or read-only, which SFTP has no words for."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.EIO and (number := sftp.why_not_written(self._path)):
                raise OSError(number, os.strerror(number)) from error
            raise

    def upload(self, ref: Ref, sender: str) -> Upload:
        return _SshUpload(self, ref, f"{ref.digest}.{sender}")

    def read(self, ref: Ref, start: int) -> Iterator[bytes]:
        with self.connection() as sftp:
            yield from sftp.read(self.path(ref.digest[:2], ref.digest), start, ref.size)

    def explain(self, error: Exception) -> RemoteFailed:
        attempt = f"{self._shown} true"
        match error:
            case NoSsh():
                return RemoteFailed(f"{self}: the program ssh cannot be started: {error}", "apt install openssh-client")
            case SshFailed() if "Host key verification failed" in str(error):
                return RemoteFailed(f"{self}: the key of the host is not known, or not the one that was", self._shown)
            case SshFailed() if _FOR_GOOD.search(str(error)):
                return RemoteFailed(f"{self}: {error}", attempt)
            case SshFailed():
                return LinkCut(f"{self}: {error}", attempt)
            case TimeoutError():
                return RemoteFailed(f"{self}: {error.strerror or 'timed out'}", attempt)
            case ConnectionError():
                return LinkCut(f"{self}: {error.strerror or error}", attempt)
            case OSError(errno=number) if number != errno.EPROTO:
                look = f"{_LOOK.get(number or 0, 'ls -ld')} {shlex.quote(self._path)}"
                return RemoteFailed(f"{self}: {error.strerror or error}", f"{self._shown} {shlex.quote(look)}")
            case _:
                return RemoteFailed(f"{self}: what answers is not SFTP", attempt)

    def removal(self, digest: str) -> str:
        return f"{self._shown} {shlex.quote(f'rm -r {shlex.quote(self.path(digest[:2], digest))}')}"


class _SshUpload(Upload):
    """A file below `objects/tmp` there, in one connection. Writing the same bytes twice does no harm, so that it is gone
    on with a little before its end, where pieces may be lacking.
    """

    def __init__(self, remote: Ssh, ref: Ref, name: str) -> None:
        self._remote = remote
        self._ref = ref
        self._name = name
        self._path = remote.path("tmp", name)

    def __enter__(self) -> Upload:
        with ExitStack() as connected:
            self._sftp = connected.enter_context(self._remote.connection())
            found = self._sftp.attributes(self._path) if self._name in self._remote.begun else None
            if found is not None:
                self._go_on(found)
            self._remote.begun.add(self._name)
            with self._remote.telling_why(self._sftp):
                self._handle = self._sftp.open_to_write(self._path)
            self._at = self.start
            self._connected = connected.pop_all()
        return self

    def _go_on(self, found: Attributes) -> None:
        if not found.is_file or found.size > self._ref.size:
            self._sftp.remove(self._path)
            return
        if not found.mode & 0o200:
            self._sftp.make_writable(self._path, found)
        self.start = max(0, found.size - WINDOW)

    def __exit__(self, *error: object) -> None:
        self._connected.__exit__(*error)  # type: ignore[arg-type]

    def write(self, piece: bytes) -> None:
        with self._remote.telling_why(self._sftp):
            self._sftp.write(self._handle, self._at, piece)
        self._at += len(piece)

    def keep(self) -> bool:
        with self._remote.telling_why(self._sftp):
            self._sftp.seal(self._handle)
        self._sftp.rename(self._path, self._remote.path(self._ref.digest[:2], self._ref.digest))
        return True

    def remove(self) -> None:
        self._sftp.remove(self._path)
