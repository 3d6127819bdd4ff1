"""What every kind of remote promises: objects go and come whole or not at all, go on where they stopped, and are checked."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from blake3 import blake3
from remotes_kit import KEYS, SSHD, BucketPlace, FolderPlace, Host, Link, Place, SshPlace, bucket_server

from numb import atomic
from numb.errors import NumbError, ObjectCorrupt, ObjectMissing, RemoteFailed, StorageFailed, Usage
from numb.store import remotes
from numb.store.objects import Objects, Ref
from numb.store.places import s3 as s3_kind
from numb.store.places import sftp
from numb.store.places.folder import Folder
from numb.store.places.s3 import Bucket
from numb.store.places.ssh import Ssh
from numb.store.remotes import fetch, missing, open_remote, push

MB = 1 << 20
PART = 5 * MB  # the least that S3 allows
_bytes = random.Random(7).randbytes


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if SSHD is None:
        pytest.skip("no sshd is installed")
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@pytest.fixture(scope="session")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    pytest.importorskip("moto")
    with bucket_server(tmp_path_factory.mktemp("s3")) as link:
        yield link


@pytest.fixture(autouse=True)
def _sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own reaches in; a link that is cut is tried again at once; uploads have small parts."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_", "SSH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(remotes, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(s3_kind, "_PART", PART)


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    return FolderPlace(tmp_path / "the remote's folder")


@pytest.fixture
def ssh(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PATH", str(host.bin), prepend=os.pathsep)
    host.link.open()
    return SshPlace(tmp_path / "far", host)


_number = itertools.count()


@pytest.fixture
def s3(buckets: Link, monkeypatch: pytest.MonkeyPatch) -> Place:
    import boto3

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{buckets.port}")
    buckets.open()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{buckets.server_port}")
    return BucketPlace(client, buckets, f"bucket-{next(_number)}")


@pytest.fixture(params=["folder", "ssh", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["ssh", "s3"])
def far(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "here" / "objects")


@pytest.fixture
def other(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "there" / "objects")


def contents(objects: Objects) -> dict[str, bytes]:
    return {digest: objects.path(digest).read_bytes() for digest in objects}


def leftovers(objects: Objects) -> list[str]:
    return sorted(os.listdir(objects.root / "tmp")) if (objects.root / "tmp").exists() else []


def sender_of(place: Place, objects: Objects) -> str:
    with remotes._sender(place.remote(), objects) as name:
        return name


def ref_of(content: bytes) -> Ref:
    return Ref(blake3(content).hexdigest(), len(content))


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def link_of(place: Place) -> Link:
    assert place.link is not None
    return place.link


# What is sent and brought


def test_what_is_pushed_comes_back_the_same(place: Place, objects: Objects, other: Objects) -> None:
    """Objects of every size around the limits are at the remote under their own names, and come back bit for bit."""
    sizes = [0, 1, 5000, MB - 1, MB + 1, PART, PART + 1]
    refs = {objects.put(_bytes(size)) for size in sizes}

    assert refs == missing(place.remote(), refs)
    assert refs == push(place.remote(), objects, refs)
    assert set() == missing(place.remote(), refs)
    assert refs == fetch(place.remote(), other, refs)

    assert contents(objects) == contents(other) == place.objects()
    assert {f"objects/{ref.digest[:2]}/{ref.digest}" for ref in refs} == set(place.files())
    assert ([], []) == (leftovers(other), [name for name in place.files() if "/tmp/" in name])
    assert {0o444} == {stat.S_IMODE(other.path(ref.digest).stat().st_mode) | 0o044 for ref in refs}


def test_what_a_person_copied_there_is_an_object_too(place: Place, other: Objects) -> None:
    """The layout at a remote is that of a local store: `b3sum` and `cp` are enough to fill it."""
    ref = ref_of(b"hello")
    place.put(ref, b"hello")

    assert {ref} == fetch(place.remote(), other, [ref])
    assert b"hello" == other.open_verified(ref.digest, 5)


def test_only_what_is_lacking_is_sent_and_brought(far: Place, objects: Objects, other: Objects) -> None:
    """The second time costs a listing; a third object costs its own bytes."""
    refs = {objects.put(_bytes(MB)) for _ in range(3)}
    push(far.remote(), objects, refs)
    fetch(far.remote(), other, refs)
    link = link_of(far)

    link.open()
    assert set() == push(far.remote(), objects, refs) and link.bytes < 50_000
    link.open()
    assert set() == fetch(far.remote(), other, refs) and link.bytes == 0
    link.open()
    new = objects.put(_bytes(MB))
    assert {new} == push(far.remote(), objects, {*refs, new}) and MB < link.bytes < 1.2 * MB
    link.open()
    assert {new} == fetch(far.remote(), other, {*refs, new}) and MB < link.bytes < 1.2 * MB


def test_an_object_of_another_size_is_missing_and_replaced(place: Place, objects: Objects) -> None:
    """What was cut off by another program is not taken for the object."""
    ref = objects.put(_bytes(5000))
    place.put(ref, b"half")

    assert {ref} == missing(place.remote(), [ref])
    assert {ref} == push(place.remote(), objects, [ref])
    assert contents(objects) == place.objects()


def test_the_number_of_requests_does_not_grow_with_the_number_of_objects(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten objects or a thousand that are not there: the same listings; those that are there come a hundred in a piece."""
    there = [Ref(f"ab{number:062x}", 1) for number in range(600)]
    absent = [Ref(f"ab{number:062x}", 1) for number in range(600, 1600)]
    for ref in there[:120]:
        place.put(ref, b"x")
    asked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: asked.append(path) or scandir(path))
    ask = sftp.Sftp._ask
    monkeypatch.setattr(sftp.Sftp, "_ask", lambda self, *words: asked.append(words) or ask(self, *words))
    counts = []
    for refs in (there[110:130], absent, there + absent):
        asked.clear()
        if place.link:
            place.link.open()
        lacking = missing(place.remote(), refs)
        assert set(refs) - set(there[:120]) == lacking
        counts.append(len(asked) + (place.link.requests if place.link else 0))

    assert counts[0] == counts[1] == counts[2] <= 10


def test_every_folder_is_listed_once_however_many_are_needed(far: Place, objects: Objects) -> None:
    """Objects in all 256 folders: sixteen requests to a bucket, and a handful of ways there and back to a host."""
    refs = [Ref(f"{number:02x}" * 32, 1) for number in range(256)]
    for ref in refs[::16]:
        far.put(ref, b"x")
    link_of(far).open()

    assert set(refs) - set(refs[::16]) == missing(far.remote(), refs)
    assert link_of(far).requests <= 16 and (far.url.startswith("s3:") or link_of(far).connections == 1)


def test_progress_reaches_the_end_and_never_goes_beyond(far: Place, objects: Objects, other: Objects) -> None:
    """The caller is told of bytes done and of all of them, in its own thread; at the end the two are equal."""
    refs = [objects.put(_bytes(3 * MB)) for _ in range(4)]
    told: list[tuple[int, int, int]] = []
    for transfer, store in ((push, objects), (fetch, other)):
        told.clear()
        transfer(far.remote(), store, refs, lambda done, total: told.append((done, total, threading.get_ident())))

        assert (12 * MB, 12 * MB, threading.get_ident()) == told[-1]
        assert {(12 * MB, threading.get_ident())} == {(total, thread) for _, total, thread in told}
        assert sorted(told) == told


@pytest.mark.parametrize("transfer", [push, fetch])
def test_ctrl_c_ends_a_transfer_at_once(
    far: Place, objects: Objects, other: Objects, transfer: Callable[..., object]
) -> None:
    """An interrupt in the caller's thread is not kept waiting for a link that stalls, and what came is kept."""
    refs = [objects.put(_bytes(6 * MB))]
    if transfer is fetch:
        push(far.remote(), objects, refs)
    link_of(far).stall_after(3 * MB)

    def interrupt(*_: int) -> None:
        if link_of(far).tripped.is_set():
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        transfer(far.remote(patience=60), objects if transfer is push else other, refs, interrupt)
    assert time.monotonic() - started < 10
    assert {} == contents(other)


# Links that are cut, and programs that are killed


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_push_that_was_cut_goes_on_where_it_stopped(far: Place, objects: Objects, share: float) -> None:
    """Wherever the link is cut, nothing is half there under its name, and the next push sends little more than the rest."""
    refs = {objects.put(_bytes(size)) for size in (12 * MB, MB, 1000)}
    total = sum(ref.size for ref in refs)
    link = link_of(far)
    link.cut_after(int(total * share))

    with pytest.raises(RemoteFailed) as cut:
        push(far.remote(), objects, refs)

    assert far.url in str(cut.value) and "\n" not in str(cut.value) and cut.value.hint
    assert far.objects().items() <= contents(objects).items()
    link.open()
    push(far.remote(), objects, refs)
    assert contents(objects) == far.objects()
    # A part that was not whole, of the large object and of the next; or what was on its way when the host stopped.
    assert link.bytes < total * (1 - share) + 6 * MB
    if share == 0.9:
        assert link.bytes < total * 0.6
    assert not [name for name in far.files() if "/tmp/" in name]


@pytest.mark.parametrize("share", [0.02, 0.7])
def test_a_fetch_that_was_cut_goes_on_where_it_stopped(
    far: Place, objects: Objects, other: Objects, share: float
) -> None:
    """Wherever the link is cut, nothing is half here under its name, and the next fetch brings little more than the rest."""
    refs = {objects.put(_bytes(size)) for size in (12 * MB, MB, 1000)}
    push(far.remote(), objects, refs)
    total = sum(ref.size for ref in refs)
    link = link_of(far)
    link.cut_after(int(total * share))

    with pytest.raises(RemoteFailed):
        fetch(far.remote(), other, refs)

    assert contents(other).items() <= contents(objects).items() and refs != set(contents(other))
    link.open()
    fetch(far.remote(), other, refs)
    assert contents(objects) == contents(other)
    assert link.bytes < total * (1 - share) + 6 * MB  # and what the system had received and nobody had read
    assert [] == leftovers(other)


@pytest.mark.parametrize("transfer", ["push", "fetch"])
def test_a_link_that_breaks_for_a_moment_is_not_even_noticed(
    far: Place, objects: Objects, other: Objects, transfer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut that is over when it is tried again is no error, and what had come is not sent twice."""
    ref = objects.put(_bytes(12 * MB))
    if transfer == "fetch":
        push(far.remote(), objects, [ref])
    link = link_of(far)
    link.cut_after(11 * MB)
    breaks = []

    def mend(_: float) -> None:
        breaks.append(link.bytes)
        link.open()

    monkeypatch.setattr(remotes, "time", SimpleNamespace(sleep=mend))
    if transfer == "push":
        push(far.remote(), objects, [ref])
        assert contents(objects) == far.objects()
    else:
        fetch(far.remote(), other, [ref])
        assert contents(objects) == contents(other)
    assert 1 == len(breaks) and link.bytes < 7 * MB


CHILD = """
import os, signal, sys
from pathlib import Path
from numb import atomic
from numb.store import remotes
from numb.store.objects import Objects, Ref
from numb.store.places import s3
s3._PART = 5 << 20
transfer, url, root, left, *words = sys.argv[1:]
refs = [Ref(*(kind(word) for kind, word in zip((str, int), pair.split(":")))) for pair in words]
left, pwrite = int(left), os.pwrite
def mortal(fd, content, at):
    global left
    if left < len(content):
        pwrite(fd, content[:left], at)
        os.kill(os.getpid(), signal.SIGKILL)
    left -= len(content)
    return pwrite(fd, content, at)
if left:
    atomic._pwrite = mortal
getattr(remotes, transfer)(remotes.open_remote(url), Objects(Path(root)), refs)
"""


def child(transfer: str, place: Place, objects: Objects, refs: set[Ref], left: int = 0) -> subprocess.Popen[bytes]:
    words = [f"{ref.digest}:{ref.size}" for ref in refs]
    program = [sys.executable, "-c", CHILD, transfer, place.url, str(objects.root), str(left), *words]
    return subprocess.Popen(program, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("transfer", ["push", "fetch"])
def test_a_killed_transfer_goes_on_where_it_stopped(
    far: Place, objects: Objects, other: Objects, transfer: str
) -> None:
    """`kill -9` in the middle: nothing is half there on either side, and the next transfer carries little more than the rest."""
    refs = {objects.put(_bytes(size)) for size in (12 * MB, 1000)}
    if transfer == "fetch":
        push(far.remote(), objects, refs)
    store = objects if transfer == "push" else other
    link = link_of(far)
    link.stall_after(11 * MB)
    process = child(transfer, far, store, refs)
    assert link.tripped.wait(30)

    process.kill()
    process.wait()
    link.open()

    there = far.objects() if transfer == "push" else contents(other)
    assert there.items() <= contents(objects).items() and len(there) < 2
    getattr(remotes, transfer)(far.remote(), store, refs)
    assert contents(objects) == (far.objects() if transfer == "push" else contents(other))
    assert link.bytes < 10 * MB


@pytest.mark.parametrize("left", [1, 2 * MB - 1, 5 * MB])
@pytest.mark.parametrize("transfer", ["push", "fetch"])
def test_a_killed_copy_goes_on_where_it_stopped(
    folder: Place, objects: Objects, other: Objects, transfer: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a folder, killed within a write: what has been copied is compared, not copied again."""
    refs = {objects.put(_bytes(6 * MB))}
    if transfer == "fetch":
        push(folder.remote(), objects, refs)
    store = objects if transfer == "push" else other
    process = child(transfer, folder, store, refs, left)
    assert -signal.SIGKILL == process.wait(30)
    assert {} == (folder.objects() if transfer == "push" else contents(other))
    written = []
    pwrite = os.pwrite
    monkeypatch.setattr(atomic, "_pwrite", lambda fd, piece, at: written.append(len(piece)) or pwrite(fd, piece, at))

    getattr(remotes, transfer)(folder.remote(), store, refs)

    assert contents(objects) == folder.objects() == (contents(other) if transfer == "fetch" else folder.objects())
    assert 6 * MB - left == sum(written)


def test_a_stalled_link_is_given_up(far: Place, objects: Objects, other: Objects) -> None:
    """No byte for as long as the patience: one error that says so, from every operation, long before a person would."""
    ref = objects.put(_bytes(6 * MB))
    link = link_of(far)
    attempts: list[tuple[int, Callable[[], object]]] = [
        (0, lambda: missing(far.remote(patience=0.5), [ref])),
        (2 * MB, lambda: push(far.remote(patience=0.5), objects, [ref])),
        (2 * MB, lambda: fetch(far.remote(patience=0.5), other, [ref])),
    ]
    for count, attempt in attempts:
        if attempt is attempts[2][1]:
            link.open()
            push(far.remote(), objects, [ref])
        link.stall_after(count)
        started = time.monotonic()
        with pytest.raises(RemoteFailed, match=r"not a byte in 0\.5 s|timed out"):
            attempt()
        assert time.monotonic() - started < 5
    assert {} == contents(other)


def test_what_another_left_half_there_is_removed_after_a_day(
    request: pytest.FixtureRequest, objects: Objects, tmp_path: Path
) -> None:
    """Abandoned uploads of others vanish with the next push; fresh ones, and what a push is going on with, stay."""
    mine, theirs, fresh = _bytes(5000), "a" * 64, "b" * 64
    ref = objects.put(mine)
    for kind in ("folder", "ssh"):
        place: FolderPlace = request.getfixturevalue(kind)
        for name in (theirs, fresh, f"{ref.digest}.00000000"):
            place.write(f"objects/tmp/{name}", b"half")
        for name in (theirs, f"{ref.digest}.00000000"):
            os.utime(place.root / "objects/tmp" / name, (0, 0))

        push(place.remote(), objects, [ref])

        assert sorted([fresh, f"{ref.digest}.00000000"]) == sorted(os.listdir(place.root / "objects/tmp"))


def test_an_upload_in_parts_that_was_abandoned_is_dropped(s3: BucketPlace, objects: Objects) -> None:
    """What costs money where nobody sees it goes away; one that still gets parts is somebody's."""
    abandoned, active = (f"some/prefix/objects/{letter * 2}/{letter * 64}" for letter in "ab")
    for key in (abandoned, active):  # this server says of every upload that it was begun in 2010
        number = s3.client.create_multipart_upload(Bucket=s3.bucket, Key=key)["UploadId"]
        if key is active:
            s3.client.upload_part(Bucket=s3.bucket, Key=key, UploadId=number, PartNumber=1, Body=b"part")

    push(s3.remote(), objects, [objects.put(b"hello")])

    assert ["b" * 64] == s3.uploads()


@pytest.mark.parametrize("transfer", [push, fetch])
def test_two_at_the_same_time_do_not_disturb_each_other(
    place: Place, objects: Objects, other: Objects, transfer: Callable[..., object]
) -> None:
    """Two processes carry the same objects: both succeed, and what is there is whole."""
    refs = {objects.put(_bytes(size)) for size in (6 * MB, MB, 5000)}
    if transfer is fetch:
        push(place.remote(), objects, refs)
    store = objects if transfer is push else other
    processes = [child(transfer.__name__, place, store, refs) for _ in range(2)]

    assert [0, 0] == [process.wait(60) for process in processes]
    assert contents(objects) == place.objects()
    assert transfer is push or contents(objects) == contents(other)


# Damage


@pytest.mark.parametrize("how", ["flipped", "shorter", "longer"])
def test_an_object_that_is_damaged_at_the_remote_is_refused(
    place: Place, objects: Objects, other: Objects, how: str
) -> None:
    """It is named with its remote, nothing of it appears here, and the others come."""
    content, sound = _bytes(3 * MB), objects.put(b"sound")
    ref = objects.put(content)
    push(place.remote(), objects, [ref, sound])
    changed = {"flipped": flip(content), "shorter": content[:-1], "longer": content + b"x"}[how]
    place.put(ref, changed)

    with pytest.raises(ObjectCorrupt) as refused:
        fetch(place.remote(), other, [ref, sound])

    assert str(refused.value).startswith(f"{ref.digest} is damaged at {place.url}: ")
    assert "rm " in str(refused.value.hint) and ref.digest in str(refused.value.hint)
    assert ({sound.digest: b"sound"}, []) == (contents(other), leftovers(other))


@pytest.mark.parametrize("how", ["link", "folder", "pipe"])
@pytest.mark.parametrize("kind", ["folder", "ssh"])
def test_what_is_no_file_at_the_remote_is_refused(
    request: pytest.FixtureRequest, other: Objects, objects: Objects, kind: str, how: str, tmp_path: Path
) -> None:
    """A link is not followed, be it to the right bytes; a pipe holds nobody."""
    place: FolderPlace = request.getfixturevalue(kind)
    ref = objects.put(b"hello")
    path = place.root / "objects" / ref.digest[:2] / ref.digest
    path.parent.mkdir(parents=True)
    {"link": lambda: path.symlink_to(objects.path(ref.digest)), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[
        how
    ]()

    with pytest.raises(ObjectCorrupt, match="it is not a regular file"):
        fetch(place.remote(), other, [ref])

    assert ({}, []) == (contents(other), leftovers(other))


def test_an_object_that_the_remote_lacks_is_named(place: Place, objects: Objects, other: Objects) -> None:
    """The others come, then the error names the first that is missing, its remote, and how many more there are."""
    sound, lost, too = objects.put(b"sound"), objects.put(b"lost"), objects.put(b"lost, too")
    push(place.remote(), objects, [sound])

    with pytest.raises(ObjectMissing, match=rf"{place.url} lacks [0-9a-f]{{64}} \(and 1 more\)"):
        fetch(place.remote(), other, [sound, lost, too])

    assert {sound.digest: b"sound"} == contents(other)


@pytest.mark.parametrize(("how", "size"), [("flipped", 5000), ("flipped", 6 * MB), ("shorter", 5000), ("gone", 5000)])
def test_a_damaged_local_object_is_not_sent(place: Place, objects: Objects, how: str, size: int) -> None:
    """Nothing of it stays at the remote, under any name; the error names the file, and the others are sent."""
    content, sound = _bytes(size), objects.put(b"sound")
    ref = objects.put(content)
    path = objects.path(ref.digest)
    damage(path, flip(content) if how == "flipped" else content[:-1])
    if how == "gone":
        path.unlink()

    with pytest.raises(ObjectMissing if how == "gone" else ObjectCorrupt, match=ref.digest) as refused:
        push(place.remote(), objects, [ref, sound])

    assert str(objects.root) in str(refused.value)
    assert [f"objects/{sound.digest[:2]}/{sound.digest}"] == list(place.files())
    assert not isinstance(place, BucketPlace) or [] == place.uploads()


def test_bytes_left_from_before_are_not_trusted(place: Place, objects: Objects, other: Objects) -> None:
    """Half an object that is not of it, here or in a folder there: it is carried anew, and nobody is blamed."""
    content = _bytes(3 * MB)
    ref = objects.put(content)
    if isinstance(place, FolderPlace) and not place.link:
        place.write(f"objects/tmp/{ref.digest}.{sender_of(place, objects)}", bytes(MB))
    push(place.remote(), objects, [ref])
    (other.root / "tmp").mkdir(parents=True)
    for left in (bytes(MB), bytes(3 * MB), bytes(4 * MB)):
        (other.root / "tmp" / ref.digest).write_bytes(left)
        assert {ref} == fetch(place.remote(), other, [ref])
        assert ({ref.digest: content}, []) == (contents(other), leftovers(other))
        other.path(ref.digest).unlink()
    assert {ref.digest: content} == place.objects()


def test_parts_of_others_are_compared_before_they_are_used(s3: BucketPlace, objects: Objects) -> None:
    """An upload in parts that another began with other bytes is gone on with, but for those."""
    content = _bytes(12 * MB)
    ref = objects.put(content)
    key = f"some/prefix/objects/{ref.digest[:2]}/{ref.digest}"
    number = s3.client.create_multipart_upload(Bucket=s3.bucket, Key=key)["UploadId"]
    for part, body in ((1, content[:PART]), (2, flip(content[PART : 2 * PART]))):
        s3.client.upload_part(Bucket=s3.bucket, Key=key, UploadId=number, PartNumber=part, Body=body)
    link_of(s3).open()

    push(s3.remote(), objects, [ref])

    assert ({ref.digest: content}, []) == (s3.objects(), s3.uploads())
    assert 7 * MB < link_of(s3).bytes < 8 * MB


@pytest.mark.parametrize("how", ["link", "second name"])
def test_a_trap_in_the_place_of_a_half_object_catches_nothing(
    folder: FolderPlace, objects: Objects, other: Objects, tmp_path: Path, how: str
) -> None:
    """Who can write to the folder cannot make us write to another file of ours."""
    ref = objects.put(_bytes(5000))
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    traps = [
        folder.root / "objects/tmp" / f"{ref.digest}.{sender_of(folder, objects)}",
        other.root / "tmp" / ref.digest,
    ]
    for trap in traps:
        trap.parent.mkdir(parents=True)
        trap.symlink_to(precious) if how == "link" else trap.hardlink_to(precious)

    push(folder.remote(), objects, [ref])
    fetch(folder.remote(), other, [ref])

    assert b"precious" == precious.read_bytes()
    assert contents(objects) == contents(other) == folder.objects()


@pytest.mark.parametrize("digest", ["../../etc/passwd", "..", "", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_name_that_is_none_reaches_no_remote(folder: Place, objects: Objects, digest: str) -> None:
    """A record from elsewhere cannot make anything be read or written outside of `objects`."""
    for attempt in (
        lambda: missing(folder.remote(), [Ref(digest, 5)]),
        lambda: push(folder.remote(), objects, [Ref(digest, 5)]),
        lambda: fetch(folder.remote(), objects, [Ref(digest, 5)]),
    ):
        with pytest.raises(ObjectCorrupt, match="not the name of an object"):
            attempt()
    assert {} == folder.files()


def test_what_comes_is_kept_from_being_collected(folder: Place, objects: Objects, other: Objects) -> None:
    """A fetch is a use of the store: nobody collects what it has brought before it is named."""
    ref = objects.put(b"hello")
    push(folder.remote(), objects, [ref])
    held = []

    class Watched(Folder):
        def read(self, ref: Ref, start: int) -> Iterator[bytes]:
            held.append(not atomic.Lock(other.lock).try_acquire())
            return super().read(ref, start)

    fetch(Watched(folder.url, Path(folder.url)), other, [ref])
    with atomic.Lock(other.lock):  # which is free again
        assert [True] == held


MEMORY = """
import resource, sys
from pathlib import Path
from numb.store import remotes
from numb.store.objects import Objects
from numb.store.places import s3
s3._PART = 5 << 20
here, there, url = Objects(Path(sys.argv[1])), Objects(Path(sys.argv[2])), sys.argv[3]
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
def both(ref):
    remotes.push(remotes.open_remote(url), here, [ref])
    remotes.fetch(remotes.open_remote(url), there, [ref])
    return most()
before = both(here.put(bytes(1 << 20) for _ in range(24)))
after = both(here.put(bytes(1 << 20) for _ in range(80)))
print(after - before)
"""


def test_memory_does_not_grow_with_an_object(place: Place, objects: Objects, other: Objects) -> None:
    """An object that is three times as large takes a few parts more memory at most, either way."""
    program = [sys.executable, "-c", MEMORY, str(objects.root), str(other.root), place.url]
    done = subprocess.run(program, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 35


# Remotes that cannot be used


@pytest.fixture
def small(small_disk: Callable[[Path, str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Mount a file system somewhere, with such options."""
    return lambda options: small_disk(tmp_path / "small", options)


@pytest.mark.parametrize("kind", ["folder", "ssh"])
def test_a_full_remote_is_one_clear_error(
    request: pytest.FixtureRequest, small: Callable[[str], Path], objects: Objects, kind: str
) -> None:
    """It says which remote is full and how to look; nothing is there under its name; with room again, it goes on."""
    place: FolderPlace = request.getfixturevalue(kind)
    place.root = small("size=2m")
    url = str(place.root) if kind == "folder" else f"ssh://numbtest{place.root}"
    ref = objects.put(_bytes(3 * MB))

    with pytest.raises(RemoteFailed) as full:
        push(open_remote(url), objects, [ref])

    assert (True, True) == (str(full.value).startswith(url), "No space left on device" in str(full.value))
    assert "df -h" in str(full.value.hint) and 125 == full.value.exit_code
    assert {} == place.objects()
    small("size=9m")
    push(open_remote(url), objects, [ref])
    assert contents(objects) == place.objects()


@pytest.mark.parametrize("kind", ["folder", "ssh"])
def test_a_read_only_remote_is_one_clear_error(
    request: pytest.FixtureRequest, small: Callable[[str], Path], objects: Objects, other: Objects, kind: str
) -> None:
    """What is there can be fetched; a push says which remote is read-only and how to look."""
    place: FolderPlace = request.getfixturevalue(kind)
    place.root = small("size=2m")
    url = str(place.root) if kind == "folder" else f"ssh://numbtest{place.root}"
    there, new = objects.put(b"there"), objects.put(b"new")
    push(open_remote(url), objects, [there])
    small("ro")

    with pytest.raises(RemoteFailed) as refused:
        push(open_remote(url), objects, [there, new])

    assert (True, True) == (str(refused.value).startswith(url), "Read-only file system" in str(refused.value))
    assert "findmnt" in str(refused.value.hint)
    assert {there} == fetch(open_remote(url), other, [there])
    assert {there.digest: b"there"} == place.objects()


def test_a_full_disk_here_is_not_the_remotes_fault(
    place: Place, small: Callable[[str], Path], objects: Objects
) -> None:
    """A fetch that finds no room says where there is none, and leaves nothing under a name."""
    ref = objects.put(_bytes(3 * MB))
    push(place.remote(), objects, [ref])
    here = Objects(small("size=2m") / "objects")

    with pytest.raises(StorageFailed, match="No space left on device"):
        fetch(place.remote(), here, [ref])

    assert {} == contents(here)


def test_a_place_that_is_not_there_is_not_made(place: Place, objects: Objects, tmp_path: Path) -> None:
    """A folder that is not mounted, a host's path with a slip of the pen, a bucket that is not: an error, and no file."""
    ref = objects.put(b"hello")
    url = place.url.replace("s3://bucket-", "s3://another-") if isinstance(place, BucketPlace) else f"{place.url}/slip"

    for attempt in (push, fetch):
        with pytest.raises(RemoteFailed) as failed:
            attempt(open_remote(url), objects if attempt is push else Objects(tmp_path / "none"), [ref])
        assert str(failed.value).startswith(url) and failed.value.hint
    assert {} == place.files()


def test_an_unknown_host_is_not_believed(ssh: SshPlace, host: Host, objects: Objects, tmp_path: Path) -> None:
    """Nothing is sent to a host whose key is not known, or is another: the hint is to type `ssh` once oneself."""
    ref = objects.put(b"hello")
    known = host.folder / "known"
    right = known.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "wrong")], check=True)
    try:
        for wrong in ("", f"numbtest {(tmp_path / 'wrong.pub').read_text()}"):
            known.write_text(wrong)
            with pytest.raises(RemoteFailed, match="the key of the host is not known") as refused:
                push(ssh.remote(), objects, [ref])
            assert ("ssh numbtest", wrong) == (refused.value.hint, known.read_text())
    finally:
        known.write_text(right)
    assert {} == ssh.files()


def test_ssh_never_asks(ssh: SshPlace, host: Host, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key that opens the door there is an error, and neither the terminal nor a helper is asked for a password."""
    asked = host.folder / "asked"
    helper = host.folder / "helper"
    helper.write_text(f"#!/bin/sh\ntouch {asked}\n")
    helper.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(helper))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    (host.folder / "user").rename(host.folder / "away")
    try:
        with pytest.raises(RemoteFailed, match="Permission denied") as refused:
            push(ssh.remote(), objects, [objects.put(b"hello")])
    finally:
        (host.folder / "away").rename(host.folder / "user")
    assert ("ssh numbtest true", False) == (refused.value.hint, asked.exists())


def test_no_ssh_and_no_extra_are_named(
    ssh: Place, objects: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not installed is said, with the command that installs it."""
    refs = [objects.put(b"hello")]
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RemoteFailed) as extra:
        push(open_remote("s3://bucket/prefix"), objects, refs)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RemoteFailed) as program:
        push(ssh.remote(), objects, refs)

    assert ("pip install 'numb[s3]'", "apt install openssh-client") == (extra.value.hint, program.value.hint)


def test_without_credentials_a_bucket_says_so(s3: Place, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is the command that keeps them."""
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(RemoteFailed, match=r"s3://.*credentials") as refused:
        push(s3.remote(), objects, [objects.put(b"hello")])
    assert "aws configure" == refused.value.hint


@pytest.mark.parametrize("answer", [b"", b"\x00" * 64, b"garbage\r\n" * 99, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<a/>\r\n"])  # fmt: skip
@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_what_answers_anything_else_is_one_error(
    request: pytest.FixtureRequest,
    host: Host,
    objects: Objects,
    kind: str,
    answer: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that speaks another language gives `RemoteFailed`, and nothing that is not numb's."""
    place: Place = request.getfixturevalue(kind)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # a client that has heard enough
                connection.settimeout(5)
                connection.recv(4096) if kind == "s3" else None
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    url = place.url.replace("numbtest", f"127.0.0.1:{port}")
    try:
        with pytest.raises(RemoteFailed) as failed:
            push(open_remote(url, patience=5), objects, [objects.put(b"hello"), objects.put(_bytes(6 * MB))])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
    assert str(failed.value).startswith(url) and "\n" not in str(failed.value) and failed.value.hint


@pytest.mark.parametrize("answer", [b"Welcome!\n", b"\xff\xff\xff\xff\x02", b"\0\0\0\5\2\0\0\0\1", b"\0\0\0\1\2", b"\0\0\0\5\2\0\0\0\3" + b"\0\0\0\5\x65\0\0\0\1"])  # fmt: skip
def test_a_host_that_speaks_no_sftp_is_one_error(
    tmp_path: Path, objects: Objects, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greeting on the way, an old version, a packet of four gigabytes, an answer that is cut: no hang and no traceback."""
    (tmp_path / "answer").write_bytes(answer)
    (tmp_path / "ssh").write_text(f"#!/bin/sh\ncat {tmp_path}/answer; exec sleep 60 >/dev/null\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    with pytest.raises(RemoteFailed, match=r"what answers is not SFTP|the connection was closed"):
        push(open_remote("ssh://host/path", patience=5), objects, [objects.put(b"hello")])


def foreign_errors(kind: str) -> list[Exception]:
    everywhere: list[Exception] = [
        OSError(number, os.strerror(number))
        for number in (
            errno.EIO,
            errno.ENOSPC,
            errno.EROFS,
            errno.ESTALE,
            errno.EDQUOT,
            errno.ENOTCONN,
            errno.ETIMEDOUT,
        )
    ]
    everywhere += [OSError("just words"), OSError(), PermissionError("no"), ConnectionResetError(), TimeoutError()]
    if kind == "ssh":
        return [*everywhere, EOFError(), sftp.NoSsh("no"), sftp.SshFailed("gone")]
    if kind == "s3":
        import asyncio

        import aiohttp
        import botocore.exceptions
        from botocore.parsers import ResponseParserError

        refused = botocore.exceptions.ClientError({"Error": {"Code": "Strange", "Message": "so"}}, "GetObject")
        libraries = [
            one.__new__(one)
            for one in vars(botocore.exceptions).values()
            if isinstance(one, type) and issubclass(one, botocore.exceptions.BotoCoreError)
        ]
        http = [aiohttp.ClientError, aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError]
        libraries += [one("so") for one in http]
        assert len(libraries) > 50
        return [
            *everywhere,
            *libraries,
            refused,
            ResponseParserError("x"),
            asyncio.TimeoutError(),
            KeyError("ETag"),
            ValueError("no URL"),
        ]
    return everywhere


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_nothing_foreign_comes_out(
    kind: str, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a system or a library raises, at whichever step: a `RemoteFailed` of one line that names the remote."""
    monkeypatch.setattr(remotes, "_PAUSES", ())
    url = {"folder": str(tmp_path), "ssh": "ssh://host/path", "s3": "s3://bucket/prefix"}[kind]
    ref = objects.put(b"hello")
    for error in foreign_errors(kind):
        for step in ("sizes", "prepare", "upload", "read"):
            remote = open_remote(url)

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            def read(*_: object, error: Exception = error) -> Iterator[bytes]:
                raise error
                yield b""

            monkeypatch.setattr(remote, "sizes", lambda digests: {ref.digest: 5} if step == "read" else {})  # noqa: B023
            monkeypatch.setattr(remote, "prepare", lambda _: None)
            monkeypatch.setattr(remote, step, read if step == "read" else fail)
            with pytest.raises(RemoteFailed) as failed:
                fetch(remote, Objects(tmp_path / "new"), [ref]) if step == "read" else push(remote, objects, [ref])
            assert str(failed.value).startswith(f"{url}: ") and "\n" not in str(failed.value) and failed.value.hint


# URLs


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("backup", Folder),
        ("/mnt/backup", Folder),
        ("~/backup", Folder),
        ("./with:colon", Folder),
        ("/mnt/a folder/-rf", Folder),
        ("file:///mnt/a%20folder", Folder),
        ("file://localhost/mnt", Folder),
        ("ssh://host/path", Ssh),
        ("ssh://me@host:2222/~/path", Ssh),
        ("ssh://me@[::1]:22/path", Ssh),
        ("SSH://host/path", Ssh),
        ("s3://bucket", Bucket),
        ("s3://bucket/pre/fix/", Bucket),
    ],
)
def test_the_kinds_of_remotes(url: str, kind: type) -> None:
    """A folder, a host and a bucket; opening one connects to nothing."""
    assert kind is type(open_remote(url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "ext::sh -c x",
        "ext::sh -c touch% /tmp/x",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "ssh://-oProxyCommand=x/path",
        "ssh://-oProxyCommand=x@host/path",
        "ssh://me@-oProxyCommand=x/path",
        "ssh://me@-host/path",
        "ssh://-me@host/path",
        "ssh://[-oProxyCommand=x]/path",
        "ssh://ho st/path",
        "ssh://host;x/path",
        "ssh://$(x)/path",
        "ssh://`x`/path",
        "ssh://host%0a/path",
        "ssh://host",
        "ssh://host/",
        "ssh:///path",
        "ssh://host:0/path",
        "ssh://host:65536/path",
        "ssh://host:-1/path",
        "ssh://host:x/path",
        "ssh://host\n/path",
        "ssh://host/pa\nth",
        "ssh://host/pa%0Ath",
        "ssh://host/pa\x1bth",
        "ssh://me:secret@host/path",
        "ssh://me:se/cret@host/path",
        "host:path",
        "me@host:path",
        "http://host/path",
        "https://me:secret@host/path",
        "ftp://host/path",
        "sftp://host/path",
        "git://host/path",
        "file://host/path",
        "file://-x",
        "file:///etc\x00/x",
        "s3://",
        "s3:///prefix",
        "s3://-x/prefix",
        "s3://id:secret@bucket/prefix",
        "s3://id:sec/ret@bucket/prefix",
        "s3://b\u2028ucket/prefix",
        "memory://x",
        "simplecache::s3://bucket/x",
        "/pa\nth",
        "pa\rth",
    ],
)
def test_what_is_no_remote_is_refused_before_anything_is_started(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is on the list of kinds is opened; the error shows the form that is right, and no password."""

    def started(*_: object, **__: object) -> None:
        pytest.fail("something was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(socket.socket, "connect", started)
    with pytest.raises(Usage) as refused:
        open_remote(url)
    assert (
        refused.value.hint
        and "secret" not in str(refused.value)
        and "ret" not in str(refused.value).replace("pretty", "")
    )
    assert str(refused.value).isprintable()


def test_the_words_for_ssh_are_always_the_same(
    host: Host, ssh: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host, user and port go where they cannot be taken for options, and the path goes to nobody who could run it."""
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\nexit 255\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RemoteFailed):
        missing(open_remote("ssh://me@host:2222/$(touch x)/`y`"), [Ref("ab" * 32, 1)])

    words = (tmp_path / "words").read_text().splitlines()
    assert ["-s", "-p", "2222", "-l", "me", "--", "host", "sftp"] == words[-8:]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ControlMaster=no", "ForwardAgent=no"} <= set(words[1:-8:2])
    assert {"-o"} == set(words[:-8:2])


def test_hints_can_be_typed_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with a space and a quote, in a hint for this shell or for that of a host, is one word."""
    script = textwrap.dedent(open_remote("ssh://host/a b/it's").removal("ab" * 32)).removeprefix("ssh host ")
    once = subprocess.run(["sh", "-c", f"printf '%s' {script}"], capture_output=True, text=True, check=True).stdout
    twice = subprocess.run(
        ["sh", "-c", f"set -- {once}; shift 2; printf '%s' \"$@\""], capture_output=True, text=True, check=True
    ).stdout

    assert f"/a b/it's/objects/ab/{'ab' * 32}" == twice
    assert isinstance(RemoteFailed("x"), NumbError)
