"""Objects in a bucket of anything that speaks S3."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import io
import os
import re
import shlex
import threading
import time
from collections.abc import Coroutine, Iterator, Set
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from numb.errors import RemoteFailed
from numb.store.objects import Ref
from numb.store.places import PIECE, LinkCut, Remote, Upload, is_abandoned

_T = TypeVar("_T")
_NAME = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_LISTINGS = 16
_AT_ONCE = 4
_PART = 8 << 20  # at least 5 MiB, S3's own limit
_PARTS = 10_000  # S3's own limit
_TOO_BUSY = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO))  # what s3fs makes of a server's 503 and 500
_STALLED = {"ReadTimeoutError", "ConnectTimeoutError"}
_NOBODY = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
_PASSING = {
    "ClientConnectionError", "ClientConnectorError", "ClientOSError", "ClientPayloadError", "ConnectionClosedError",
    "EndpointConnectionError", "HTTPClientError", "IncompleteReadError", "ResponseParserError", "ResponseStreamingError",
    "ServerDisconnectedError",
}  # fmt: skip


class Bucket(Remote):
    """A bucket; who may use it, and where it is, the AWS configuration says."""

    def __init__(self, url: str, bucket: str, prefix: str, patience: float) -> None:
        super().__init__(url)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience
        self._lock = threading.Lock()
        self._files: Any = None
        self._asked: set[Future[Any]] = set()
        self.begun: dict[str, list[str]] = {}
        """The uploads in parts that are there, the latest last."""

    @property
    def foreign(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        # The last two: an answer that lacks what it has to have, and an endpoint that is no URL.
        return (OSError, *_errors(), LookupError, ValueError)

    def key(self, digest: str) -> str:
        return f"{self._prefix}objects/{digest[:2]}/{digest}"

    def call(self, method: str, moving: Moving | None = None, **arguments: Any) -> Any:
        """Ask the bucket for something, and wait as long as bytes are *moving*; raises `TimeoutError` when none is."""
        files = self._connected()
        return self._wait(files, files._call_s3(method, Bucket=self._bucket, **arguments), moving or Moving())

    def _wait(self, files: Any, asked: Coroutine[Any, Any, _T], moving: Moving) -> _T:
        future = asyncio.run_coroutine_threadsafe(asked, files.loop)
        with self._lock:
            self._asked.add(future)
        try:
            while not future.done():
                left = moving.last + self._patience - time.monotonic()
                if left <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                wait([future], left)
            return future.result()
        except CancelledError:
            raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED)) from None
        finally:
            future.cancel()
            with self._lock:
                self._asked.discard(future)

    def _connected(self) -> Any:
        with self._lock:
            if self._files is None:
                self._files = _s3fs().S3FileSystem(
                    anon=False,
                    skip_instance_cache=True,
                    use_listings_cache=False,
                    config_kwargs={
                        "connect_timeout": self._patience,
                        "read_timeout": self._patience,
                        "retries": {"total_max_attempts": 1},  # who calls tries again, and goes on where it was
                        # Servers that are not Amazon's refuse the newer checksums. What is sent has its MD5 with it.
                        "request_checksum_calculation": "when_required",
                        "response_checksum_validation": "when_required",
                    },
                )
                self._files.retries = 1
            return self._files

    def close(self) -> None:
        with self._lock:
            for future in self._asked:
                future.cancel()
            files, self._files = self._files, None
        if files is not None and files._s3 is not None:
            wait([asyncio.run_coroutine_threadsafe(_close(files), files.loop)], 1)

    def sizes(self, digests: Set[str]) -> dict[str, int]:
        folders = {f"{digest[:2]}/" for digest in digests}
        starts = folders if len(folders) <= _LISTINGS else {folder[0] for folder in folders}
        with ThreadPoolExecutor(_AT_ONCE, "numb-listing") as pool:
            listings = pool.map(lambda start: dict(self._list(f"objects/{start}")), sorted(starts))
            return {name: size for listing in listings for name, size in listing.items() if name in digests}

    def _list(self, start: str) -> Iterator[tuple[str, int]]:
        for page in self._pages("list_objects_v2", start, {"ContinuationToken": "NextContinuationToken"}):
            for entry in page.get("Contents", ()):
                name = _NAME.fullmatch(entry["Key"].removeprefix(self._prefix))
                if name:
                    yield name[2], int(entry["Size"])

    def _pages(self, method: str, start: str, following: dict[str, str]) -> Iterator[dict[str, Any]]:
        arguments: dict[str, Any] = {"Prefix": f"{self._prefix}{start}"}
        while True:
            page = self.call(method, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments |= {name: page[told] for name, told in following.items()}

    def prepare(self, wanted: Set[str]) -> None:
        self.begun = {}
        following = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        try:
            uploads = [
                u
                for page in self._pages("list_multipart_uploads", "objects/", following)
                for u in page.get("Uploads", ())
            ]
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno == errno.ENOSYS:
                return  # not everybody who may write may list, and not every server can: then nothing is gone on with
            raise
        for upload in sorted(uploads, key=lambda upload: upload["Initiated"]):
            name = _NAME.fullmatch(upload["Key"].removeprefix(self._prefix))
            if name and name[2] in wanted:
                self.begun.setdefault(name[2], []).append(upload["UploadId"])
            elif name and is_abandoned(upload["Initiated"].timestamp()):
                self._drop_if_abandoned(upload["Key"], upload["UploadId"])

    def _drop_if_abandoned(self, key: str, number: str) -> None:
        try:
            if all(is_abandoned(part["LastModified"].timestamp()) for part in self.parts(key, number)):
                self.abort(key, number)
        except PermissionError:
            pass  # somebody else's

    def parts(self, key: str, number: str) -> Iterator[dict[str, Any]]:
        """The parts that are there of an upload; raises `FileNotFoundError` where it is complete or dropped."""
        marker = 0
        while True:
            page = self.call("list_parts", Key=key, UploadId=number, PartNumberMarker=marker)
            yield from page.get("Parts", ())
            if not page.get("IsTruncated"):
                return
            marker = page["NextPartNumberMarker"]

    def abort(self, key: str, number: str) -> None:
        """Drop an upload in parts."""
        try:
            self.call("abort_multipart_upload", Key=key, UploadId=number)
        except FileNotFoundError:
            pass  # it is complete by now, or somebody else has dropped it

    def upload(self, ref: Ref, sender: str) -> Upload:
        return _WholeUpload(self, ref) if ref.size <= _PART else _PartsUpload(self, ref)

    def read(self, ref: Ref, start: int) -> Iterator[bytes]:
        files = self._connected()
        answer = self.call("get_object", Key=self.key(ref.digest), Range=f"bytes={start}-{ref.size - 1}")
        body = answer["Body"]
        try:
            if start and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise OSError(errno.EPROTO, "it does not send a part of an object")
            while start < ref.size:
                piece = self._wait(files, body.read(min(PIECE, ref.size - start)), Moving())
                if not piece:
                    return
                yield piece
                start += len(piece)
        finally:
            files.loop.call_soon_threadsafe(body.close)

    def explain(self, error: Exception) -> RemoteFailed:
        look = f"aws s3 ls {shlex.quote(f's3://{self._bucket}/{self._prefix}')}"
        name = type(error).__name__
        reason = f"{self}: {_in_one_line(error)}"
        if isinstance(error, (TimeoutError, asyncio.TimeoutError)) or name in _STALLED:
            return RemoteFailed(f"{self}: not a byte in {self._patience:g} s", look)
        if name in _NOBODY:
            return RemoteFailed(reason, "aws configure")
        passes = isinstance(error, OSError) and error.errno in _TOO_BUSY
        if passes or isinstance(error, ConnectionError) or name in _PASSING:
            return LinkCut(reason, look)
        return RemoteFailed(reason, look)

    def removal(self, digest: str) -> str:
        return f"aws s3 rm {shlex.quote(f's3://{self._bucket}/{self.key(digest)}')}"


class Moving:
    """When bytes last moved."""

    def __init__(self) -> None:
        self.last = time.monotonic()


class _Body(io.BytesIO):
    """Bytes on their way out, which tell when they move."""

    def __init__(self, content: bytes, moving: Moving) -> None:
        super().__init__(content)
        self._moving = moving

    def read(self, size: int | None = -1, /) -> bytes:
        self._moving.last = time.monotonic()
        return super().read(size)


class _S3Upload(Upload):
    def __init__(self, remote: Bucket, ref: Ref) -> None:
        self._remote = remote
        self._ref = ref
        self._key = remote.key(ref.digest)

    def __exit__(self, *_: object) -> None:
        """What is there stays."""

    def _put(self, method: str, content: bytes, md5: bytes, **arguments: Any) -> Any:
        moving = Moving()
        return self._remote.call(
            method,
            moving,
            Key=self._key,
            Body=_Body(content, moving),
            ContentMD5=base64.b64encode(md5).decode(),
            **arguments,
        )


class _WholeUpload(_S3Upload):
    """An object that goes in one request."""

    piece = _PART

    def __init__(self, remote: Bucket, ref: Ref) -> None:
        super().__init__(remote, ref)
        self._content = b""

    def write(self, piece: bytes) -> None:
        self._content = piece

    def keep(self) -> bool:
        self._put("put_object", self._content, _md5(self._content))
        return True

    def remove(self) -> None:
        self._content = b""


class _PartsUpload(_S3Upload):
    """An object that goes in parts. Those that are there and have the MD5 of ours are not sent again."""

    def __init__(self, remote: Bucket, ref: Ref) -> None:
        super().__init__(remote, ref)
        self.piece = max(_PART, -(-ref.size // (_PARTS * PIECE)) * PIECE)
        self._sent: list[dict[str, Any]] = []
        self._there: dict[int, str] = {}

    def __enter__(self) -> Upload:
        begun = self._remote.begun.setdefault(self._ref.digest, [])
        while begun:
            self._number = begun[-1]
            try:
                parts = self._remote.parts(self._key, self._number)
                self._there = {part["PartNumber"]: part["ETag"].strip('"') for part in parts}
                return self
            except FileNotFoundError:
                begun.pop()
        self._number = self._remote.call("create_multipart_upload", Key=self._key)["UploadId"]
        begun.append(self._number)
        return self

    def write(self, piece: bytes) -> None:
        number, md5 = len(self._sent) + 1, _md5(piece)
        tag = self._there.get(number)
        if tag != md5.hex():
            tag = self._put("upload_part", piece, md5, UploadId=self._number, PartNumber=number)["ETag"]
        self._sent.append({"PartNumber": number, "ETag": tag})

    def keep(self) -> bool:
        parts = {"Parts": self._sent}
        self._remote.call("complete_multipart_upload", Key=self._key, UploadId=self._number, MultipartUpload=parts)
        self._remote.begun.pop(self._ref.digest, None)
        return True

    def remove(self) -> None:
        self._remote.begun.pop(self._ref.digest, None)
        self._remote.abort(self._key, self._number)


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _in_one_line(error: Exception) -> str:
    text = str(error.args[-1] if isinstance(error, OSError) and error.args else error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:300]


async def _close(files: Any) -> None:
    await files._s3creator.__aexit__(None, None, None)


def _s3fs() -> Any:
    try:
        import s3fs  # a second, and an extra, for what few commands do
    except ImportError as error:
        raise RemoteFailed(f"a remote in S3 needs what is not installed: {error}", "pip install 'numb[s3]'") from None
    return s3fs


def _errors() -> tuple[type[Exception], ...]:
    _s3fs()
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (BotoCoreError, ClientError, ResponseParserError, HttpError, asyncio.TimeoutError)
