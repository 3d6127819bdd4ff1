"""Where objects go to and come from: a folder, the other end of an `ssh`, or an S3 bucket.

    open_remote  the place that a URL names, if it is of a kind that is known to be harmless
    missing      which objects it lacks
    push         send what it lacks
    fetch        bring what the local store lacks

At the remote, objects lie as in a local store: `objects/ab/abcdef…`, and `objects/tmp/` for what is on its way. Something
has its own name there when it is whole, and not before. What was cut off, however it was, goes on where it stopped.

A remote is not trusted: sizes are compared before bytes are read, no more of them are taken than there should be, and
they have the right hash before they get a name here. Nor does numb keep credentials: `ssh` and the AWS chain have them.

Everything that goes wrong at a remote comes out as `RemoteFailed`; what is not there as `ObjectMissing`, and what is
damaged, there or here, as `ObjectCorrupt`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import unquote

from numb import atomic
from numb.errors import NumbError, ObjectCorrupt, ObjectMissing, RemoteFailed, StorageFailed, Usage
from numb.store.objects import Incoming, Objects, Ref, check_name
from numb.store.places import NO_FILE, LinkCut, Remote, Upload

Progress = Callable[[int, int], None]
"""Told of the bytes that are there and of all that will be, some times in a second, in the thread that called."""

_T = TypeVar("_T")
_PATIENCE = 30.0  # seconds without a byte
_AT_ONCE = 4
_TICK = 0.1
_PAUSES = (0.5, 2.0)  # seconds, before a link that was cut is tried again

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]"
_AUTHORITY = re.compile(rf"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+-]*)@)?(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PASSWORD = re.compile("//.*:.*@")
_FORMS = "a remote is a folder, ssh://[user@]host[:port]/path, or s3://bucket/prefix"


def open_remote(url: str, *, patience: float = _PATIENCE) -> Remote:
    """The remote that *url* names; nothing is started or connected yet. *patience* is in seconds without a byte.

    Raises `Usage` for anything but the known kinds, for a password in the URL, and for what `ssh` could take as an option.
    """
    if not url.strip() or _CONTROL.search(url):
        raise _refused(url, _FORMS)
    kind, place = match.groups() if (match := _URL.fullmatch(url)) else ("", url)
    if kind.lower() == "ssh":
        return _at_host(url, place, patience)
    if kind.lower() == "s3":
        return _in_bucket(url, place, patience)
    if kind.lower() == "file":
        return _in_folder(url, _unquoted(url, place.removeprefix("localhost")), absolute=True)
    if kind:
        raise _refused(url, _FORMS)
    return _in_folder(url, url, absolute=False)


def _in_folder(url: str, path: str, *, absolute: bool) -> Remote:
    from numb.store.places.folder import Folder

    if absolute and not path.startswith("/"):
        raise _refused(url, "file:///path/of/the/folder")
    if (
        path.startswith("-") or ":" in path.partition("/")[0]
    ):  # an option of a program, or `helper::` and `host:` as git has
        raise _refused(url, f"{_FORMS}; a folder of that name is ./NAME")
    return Folder(url, Path(os.path.abspath(os.path.expanduser(path))))


def _at_host(url: str, place: str, patience: float) -> Remote:
    from numb.store.places.ssh import Ssh

    authority, slash, path = place.partition("/")
    parts = _AUTHORITY.fullmatch(authority)
    if not parts or not path or not 0 < int(parts["port"] or 22) < 65536:
        raise _refused(url, "ssh://[user@]host[:port]/path, without a password: ssh-copy-id lets a key in")
    path = _unquoted(url, slash + path)
    home = path == "/~" or path.startswith("/~/")
    return Ssh(
        url, parts["user"], parts["host"].strip("[]"), parts["port"], path[3:] or "." if home else path, patience
    )


def _in_bucket(url: str, place: str, patience: float) -> Remote:
    from numb.store.places.s3 import Bucket

    bucket, _, prefix = place.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise _refused(url, "s3://bucket/prefix, without credentials: aws configure keeps them")
    return Bucket(url, bucket, prefix.strip("/"), patience)


def _unquoted(url: str, path: str) -> str:
    path = unquote(path)
    if _CONTROL.search(path):
        raise _refused(url, _FORMS)
    return path


def _refused(url: str, hint: str) -> Usage:
    return Usage(f"not the place of a remote: {_PASSWORD.sub('//…@', url)!r}", hint)


def missing(remote: Remote, refs: Iterable[Ref]) -> set[Ref]:
    """Which of *refs* the remote lacks or has in another size; their bytes are not read."""
    wanted = set(refs)
    with closing(remote):
        return _lacking(remote, wanted)


def push(
    remote: Remote, objects: Objects, refs: Iterable[Ref], progress: Progress | None = None, *, at_once: int = _AT_ONCE
) -> set[Ref]:
    """Send those of *refs* that the remote lacks, and return them.

    Every object is hashed while it is read: one that is damaged here, or missing, gets no name there; the others do, then
    `ObjectCorrupt` or `ObjectMissing` is raised. When the link fails, what has come stays for the next push.
    """
    wanted = set(refs)
    with closing(remote):
        lacking = _lacking(remote, wanted)
        if lacking:
            _ask(remote, lambda: remote.prepare({ref.digest for ref in lacking}))
            with _sender(remote, objects) as sender:
                _carry(remote, lacking, lambda ref, at: _send(remote, objects, ref, sender, at), progress, at_once)
    return lacking


def fetch(
    remote: Remote, objects: Objects, refs: Iterable[Ref], progress: Progress | None = None, *, at_once: int = _AT_ONCE
) -> set[Ref]:
    """Bring those of *refs* that the local store lacks, or has only damaged, and return them.

    An object has its name here when all its bytes are on the disk and have the right hash. One that is damaged there, or
    missing, leaves nothing here; the others are brought, then `ObjectCorrupt` or `ObjectMissing` is raised.
    """
    lacking = {ref for ref in set(refs) if not objects.is_intact(ref)}
    if lacking:
        with closing(remote), objects.in_use():
            sizes = _sizes(remote, lacking)
            _carry(remote, lacking, lambda ref, at: _bring(remote, objects, ref, sizes, at), progress, at_once)
    return lacking


def _lacking(remote: Remote, refs: Set[Ref]) -> set[Ref]:
    sizes = _sizes(remote, refs)
    return {ref for ref in refs if sizes.get(ref.digest) != ref.size}


def _sizes(remote: Remote, refs: Set[Ref]) -> dict[str, int]:
    for ref in refs:
        check_name(ref.digest)
    return _ask(remote, lambda: remote.sizes({ref.digest for ref in refs})) if refs else {}


def _send(remote: Remote, objects: Objects, ref: Ref, sender: str, at: Callable[[int], None]) -> None:
    with ExitStack() as held:
        with _door(remote):
            upload = held.enter_context(remote.upload(ref, sender))
        for _ in range(2):
            try:
                _write(remote, upload, objects, ref, at)
            except (ObjectMissing, ObjectCorrupt):
                with _door(remote):
                    upload.remove()
                raise
            with _door(remote):
                if upload.keep():
                    return
    raise RemoteFailed(f"{remote} does not keep what it is given", remote.removal(ref.digest))


def _write(remote: Remote, upload: Upload, objects: Objects, ref: Ref, at: Callable[[int], None]) -> None:
    position = 0
    for piece in objects.pieces(ref, upload.piece):
        unsent = piece[max(0, upload.start - position) :]
        position += len(piece)
        if unsent:
            with _door(remote):
                upload.write(unsent)
        at(position)


def _bring(remote: Remote, objects: Objects, ref: Ref, sizes: dict[str, int], at: Callable[[int], None]) -> None:
    size = sizes.get(ref.digest)
    if size is None:
        raise ObjectMissing(f"{remote} lacks {ref.digest}", "numb push, where it still is")
    if size == NO_FILE:
        raise _damaged(remote, ref, "it is not a regular file")
    if size != ref.size:
        raise _damaged(remote, ref, f"it has {size} bytes instead of {ref.size}")
    with objects.incoming(ref) as incoming:
        begun = incoming.size
        _receive(remote, ref, incoming, at)
        if begun and not incoming.is_whole():  # what was here from before may be what is wrong
            incoming.begin_again()
            _receive(remote, ref, incoming, at)
        if not incoming.is_whole():
            incoming.remove()
            raise _damaged(remote, ref, "its bytes are not those that were written")
        incoming.keep()


def _receive(remote: Remote, ref: Ref, incoming: Incoming, at: Callable[[int], None]) -> None:
    at(incoming.size)
    if incoming.size == ref.size:
        return
    with closing(cast("Generator[bytes]", remote.read(ref, incoming.size))) as pieces:
        while True:
            with _door(remote, ref):
                piece = next(pieces, b"")
            if not piece:
                return
            incoming.write(piece[: ref.size - incoming.size])
            at(incoming.size)


@contextmanager
def _door(remote: Remote, ref: Ref | None = None) -> Iterator[None]:
    """The only way between numb and a remote: nothing but numb's own errors comes out."""
    try:
        yield
    except (ObjectMissing, ObjectCorrupt) as error:  # of a folder, which is read as a store is
        raise _damaged(remote, ref, str(error)) if ref else error from error
    except StorageFailed as error:
        raise RemoteFailed(f"{remote}: {error}", error.hint) from error
    except NumbError:
        raise
    except remote.foreign as error:
        raise remote.explain(error) from error


def _damaged(remote: Remote, ref: Ref, reason: str) -> ObjectCorrupt:
    hint = f"{remote.removal(ref.digest)}; then numb push, where it is whole"
    return ObjectCorrupt(f"{ref.digest} is damaged at {remote}: {reason}", hint)


def _ask(remote: Remote, question: Callable[[], _T]) -> _T:
    def through_the_door() -> _T:
        with _door(remote):
            return question()

    return _persist(through_the_door)


def _persist(action: Callable[[], _T], got_to: Callable[[], int] = lambda: 0) -> _T:
    """Do something, and again after a pause where the link was cut: as often as it gets further, and a few times more."""
    furthest, pauses = 0, list(_PAUSES)
    while True:
        try:
            return action()
        except LinkCut:
            if got_to() > furthest:
                furthest, pauses = got_to(), list(_PAUSES)
            if not pauses:
                raise
            time.sleep(pauses.pop(0))


class _Stopped(Exception):
    """Something else has failed."""


class _Transfer:
    """Objects that are carried by some threads; a failure of the link or of a disk ends it, a damaged object does not."""

    def __init__(self, refs: Set[Ref], one: Callable[[Ref, Callable[[int], None]], None]) -> None:
        self.total = sum(ref.size for ref in refs)
        self.carried = 0
        self.damaged: list[NumbError] = []
        self._one = one
        self._waiting = iter(sorted(refs, key=lambda ref: (-ref.size, ref.digest)))  # no large one is left for the end
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Begin nothing more, and go no further with what was begun."""
        self._stop.set()

    def work(self) -> None:
        """Carry one after the other, beside other threads that do the same."""
        while (ref := self._next()) is not None:
            try:
                self._carry(ref)
            except (ObjectMissing, ObjectCorrupt) as error:
                self.damaged.append(error)
            except _Stopped:
                return
            except BaseException:
                self.stop()
                raise

    def _next(self) -> Ref | None:
        with self._lock:
            return None if self._stop.is_set() else next(self._waiting, None)

    def _carry(self, ref: Ref) -> None:
        here = furthest = 0

        def at(position: int) -> None:
            nonlocal here, furthest
            self._go_on()
            with self._lock:
                self.carried += position - here
            here, furthest = position, max(position, furthest)

        def got_to() -> int:
            self._go_on()
            return furthest

        _persist(lambda: self._one(ref, at), got_to)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped


def _carry(
    remote: Remote,
    refs: Set[Ref],
    one: Callable[[Ref, Callable[[int], None]], None],
    progress: Progress | None,
    at_once: int,
) -> None:
    """Let *one* carry each of *refs*, several at once, and say how far they are."""
    transfer = _Transfer(refs, one)
    with ThreadPoolExecutor(at_once, "numb-transfer") as pool:
        workers = [pool.submit(transfer.work) for _ in range(min(at_once, len(refs)))]
        try:
            while wait(workers, _TICK).not_done:
                if progress:
                    progress(transfer.carried, transfer.total)
        except BaseException:
            transfer.stop()
            remote.close()
            raise
    for worker in workers:
        worker.result()
    for error in transfer.damaged:
        more = f" (and {len(transfer.damaged) - 1} more)" if len(transfer.damaged) > 1 else ""
        raise type(error)(f"{error}{more}", error.hint) from error
    if progress:
        progress(transfer.carried, transfer.total)


@contextmanager
def _sender(remote: Remote, objects: Objects) -> Iterator[str]:
    """A name for those who push: what two of them send of an object must not be mixed, as it may be damaged at one.

    The same store has the same name again, so that it goes on with what it began, unless another push of it is under way.
    """
    root = objects.root.resolve()
    place = f"{root}:{root.stat().st_ino if root.exists() else 0}"
    name = _hashed(place)
    lock = atomic.Lock(root / "tmp" / f"push.{_hashed(remote.url)}")
    try:
        alone = lock.try_acquire()
    except StorageFailed:
        alone = True  # as nobody can tell: what cannot be written to is damaged by nobody, either
    try:
        yield name if alone else f"{name}-{os.urandom(4).hex()}"
    finally:
        lock.release()


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
