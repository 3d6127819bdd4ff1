"""Real places for objects, and a link to them that can be cut, stalled and counted."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from numb.store.objects import Ref
from numb.store.places import Remote
from numb.store.remotes import open_remote

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Link:
    """A way to a server for bytes, both directions counted together, that ends as `cut_after` or `stall_after` says."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.open()
        self._start(self._accept)

    def open(self) -> None:
        """Let everything through, on new connections, and count from zero."""
        self._drop()
        self.bytes = self.requests = self.connections = 0
        self._left: int | None = None
        self._cuts = False
        self.tripped = threading.Event()

    def cut_after(self, count: int) -> None:
        self.open()
        self._left, self._cuts = count, True

    def stall_after(self, count: int) -> None:
        self.open()
        self._left, self._cuts = count, False

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()
        for thread in self._threads:
            thread.join()

    def _drop(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with suppress(OSError):  # closed by its own thread already
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.tripped.is_set() and self._cuts:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.server_port))
            self.connections += 1
            with self._lock:
                self._sockets |= {client, server}
            ends = threading.Barrier(2)
            self._start(self._pump, client, server, ends, True)
            self._start(self._pump, server, client, ends, False)

    def _pump(self, source: socket.socket, sink: socket.socket, ends: threading.Barrier, up: bool) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                with self._lock:
                    if source not in self._sockets:
                        break
                    let = content if self._left is None else content[: self._left]
                    if self._left is not None:
                        self._left -= len(let)
                    self.bytes += len(let)
                    self.requests += let.count(b" HTTP/1.1\r\n") if up else 0
                sink.sendall(let)
                if len(let) < len(content):
                    self._end()
                    break
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        ends.wait()
        source.close()

    def _end(self) -> None:
        if self._cuts:
            self.tripped.set()
            self._drop()
            return
        self.tripped.set()
        while not self._closed and self._sockets:  # nothing more, until it is opened again
            time.sleep(0.01)


class Place(ABC):
    """A remote as the tests see it, from behind."""

    link: Link | None = None
    url: str

    def remote(self, patience: float = 20.0) -> Remote:
        return open_remote(self.url, patience=patience)

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """All that is there, by its name below the remote."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Put something there behind numb's back."""

    def objects(self) -> dict[str, bytes]:
        """What has an object's name there."""
        return {name[-64:]: content for name, content in self.files().items() if "/tmp/" not in name}

    def put(self, ref: Ref, content: bytes) -> None:
        self.write(f"objects/{ref.digest[:2]}/{ref.digest}", content)


class FolderPlace(Place):
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.url = str(root)

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)


class SshPlace(FolderPlace):
    def __init__(self, root: Path, host: Host) -> None:
        super().__init__(root)
        self.link = host.link
        self.url = f"ssh://numbtest{root}"


class BucketPlace(Place):
    def __init__(self, client: Any, link: Link, bucket: str) -> None:
        self.link = link
        self.client = client
        self.bucket = bucket
        client.create_bucket(Bucket=bucket)
        self.url = f"s3://{bucket}/some/prefix"

    def files(self) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {
            key.removeprefix("some/prefix/"): self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            for key in keys
        }

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"some/prefix/{name}", Body=content)

    def uploads(self) -> list[str]:
        """The objects that are half there."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ())
        return [upload["Key"][-64:] for upload in found]


class Host:
    """A real sshd on this machine, and a `ssh` on PATH that knows it as `numbtest` and nothing of this machine's person."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.link = Link(self.port)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        (folder / "sshd").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication yes\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
        )
        key = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"numbtest {key}")
        (folder / "config").write_text(
            f"Host numbtest\n HostName 127.0.0.1\n Port {self.link.port}\n HostKeyAlias numbtest\n"
            f"Host *\n UserKnownHostsFile {folder}/known\n GlobalKnownHostsFile none\n"
            f" IdentityFile {folder}/user\n IdentitiesOnly yes\n IdentityAgent none\n"
            " KexAlgorithms curve25519-sha256\n Ciphers aes128-gcm@openssh.com\n"  # the cheapest there are
        )
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{folder}/config" "$@"\n')
        (self.bin / "ssh").chmod(0o755)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(folder / "sshd")], stderr=log, stdin=subprocess.DEVNULL
            )
        wait_for(self.port, self._process)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self.link.close()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when a server answers at *port*."""
    for _ in range(1500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert process.poll() is None, "the server ended"
        time.sleep(0.02)
    pytest.fail("the server does not answer")


@contextmanager
def bucket_server(folder: Path) -> Iterator[Link]:
    """A real server of S3's protocol, with nothing in it."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log, env={**os.environ, **KEYS}
        )
    wait_for(port, process)
    link = Link(port)
    try:
        yield link
    finally:
        link.close()
        process.terminate()
        process.wait()
