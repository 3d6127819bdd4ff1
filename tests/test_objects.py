"""What the object store promises: content under its own name, whole, written once, and checked before it is used."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from numb import atomic
from numb.errors import ObjectCorrupt, ObjectMissing, StorageFailed
from numb.store.objects import Objects, Ref

HELLO = blake3(b"hello").hexdigest()


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def files(objects: Objects) -> dict[str, bytes]:
    return {
        str(path.relative_to(objects.root)): path.read_bytes() for path in objects.root.rglob("*") if path.is_file()
    }


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_an_object_is_a_read_only_file_named_by_its_blake3(objects: Objects) -> None:
    """`b3sum` can check it, nobody changes it by accident, and nothing else stays behind."""
    ref = objects.put(b"hello")

    assert Ref(HELLO, 5) == ref
    assert {f"{HELLO[:2]}/{HELLO}": b"hello"} == files(objects)
    assert 0 == objects.path(HELLO).stat().st_mode & 0o222
    assert (b"hello", [HELLO]) == (objects.open_verified(HELLO, 5), list(objects))
    objects.verify(HELLO)


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_the_same_bytes_are_the_same_object_however_they_come(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    """Whole, in pieces or as a stream: one name, one file, the same bytes back."""
    objects = Objects(tmp_path_factory.mktemp("store"))
    whole = b"".join(chunks)

    refs = {
        objects.put(whole),
        objects.put(bytearray(whole)),
        objects.put(memoryview(whole)),
        objects.put(chunks),
        objects.put(iter(chunks)),
    }

    hashed = blake3(whole).hexdigest()
    assert {Ref(hashed, len(whole))} == refs
    assert [hashed] == list(objects)
    assert whole == objects.open_verified(hashed, len(whole))


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_large_content_is_kept_whole(objects: Objects, size: int) -> None:
    """Content around and above the size of a piece comes back as it was."""
    content = os.urandom(size)
    ref = objects.put([content[:7], content[7:]])

    assert content == objects.open_verified(ref.digest, size)


def test_what_is_there_is_not_written_again(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Putting the same bytes again opens no file for writing."""
    objects.put(b"hello")

    def no_draft(*_: object, **__: object) -> None:
        pytest.fail("written again")

    monkeypatch.setattr(atomic, "Draft", no_draft)

    assert Ref(HELLO, 5) == objects.put(b"hello") == objects.put([b"hel", b"lo"])


def test_content_that_changes_while_it_is_put_is_kept_under_its_own_name(objects: Objects) -> None:
    """A network that trains on meanwhile: the bytes kept are those of the name, whichever they are."""
    live = bytearray(b"x" * (3 << 20))

    class Training(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[bytearray]:
            live[0] += 1
            return super().__iter__()

    ref = objects.put(Training([live]))

    objects.verify(ref.digest)
    assert [ref.digest] == list(objects)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "ab",
        "../../etc/passwd",
        HELLO + "\n",
        HELLO.upper(),
        HELLO[:-1],
        f"{HELLO}/",
        "..",
        "g" * 64,
        None,
        7,
        "é" * 64,
    ],
)
def test_a_name_that_is_none_reaches_no_path(objects: Objects, digest: str) -> None:
    """A record from elsewhere cannot name a file outside the store."""
    for use in (
        objects.path,
        objects.verify,
        lambda it: objects.open_verified(it, 5),
    ):
        with pytest.raises(ObjectCorrupt, match="not the name of an object"):
            use(digest)
    assert not objects.has(digest)


def test_a_missing_object_says_how_to_get_it(objects: Objects) -> None:
    """The message names the file, the hint the command."""
    with pytest.raises(ObjectMissing) as missing:
        objects.open_verified(HELLO, 5)

    assert f"{objects.path(HELLO)} is missing" == str(missing.value)
    assert "numb pull --objects, where a remote has it, or: numb doctor" == missing.value.hint
    assert not objects.has(HELLO) and [] == list(objects)


def test_one_flipped_bit_is_found(objects: Objects) -> None:
    """Bytes of the right size that are not those of the name are never handed out."""
    objects.put(b"hello")
    damage(objects.path(HELLO), b"hellp")

    for read in (lambda: objects.open_verified(HELLO, 5), lambda: objects.verify(HELLO)):
        with pytest.raises(ObjectCorrupt) as corrupt:
            read()
        found = blake3(b"hellp").hexdigest()
        assert f"{objects.path(HELLO)} is damaged: its bytes are those of {found}" == str(corrupt.value)
        assert "numb doctor" == corrupt.value.hint


@pytest.mark.parametrize("content", [b"", b"hell", b"hello\0"])
def test_a_wrong_size_is_refused_before_reading(objects: Objects, content: bytes) -> None:
    """A cut off, emptied or lengthened object is damage, and so is a record that claims another size."""
    objects.put(b"hello")
    damage(objects.path(HELLO), content)

    with pytest.raises(ObjectCorrupt, match=f"it has {len(content)} bytes instead of 5"):
        objects.open_verified(HELLO, 5)
    with pytest.raises(ObjectCorrupt, match="instead of 1152921504606846976"):
        objects.open_verified(HELLO, 1 << 60)
    assert objects.has(HELLO) and not objects.has(HELLO, 5)


def test_an_object_of_the_wrong_size_is_replaced_by_putting_it_again(objects: Objects) -> None:
    """What a power cut left short is whole again after the next run with the same bytes."""
    objects.put(b"hello")
    damage(objects.path(HELLO), b"he")

    objects.put(b"hello")

    objects.verify(HELLO)


def test_objects_move_from_one_folder_to_another(tmp_path: Path) -> None:
    """What is whole here stays, what is damaged here is replaced, what is missing comes, and the other folder goes."""
    here, there = Objects(tmp_path / "here"), Objects(tmp_path / "there")
    for word in (b"hello", b"both", b"only there"):
        there.put(word)
    whole, damaged = here.put(b"both"), here.put(b"hello")
    damage(there.path(whole.digest), b"bot_")
    damage(here.path(damaged.digest), b"hell_")

    here.take(there)

    assert {b"hello", b"both", b"only there"} == set(files(here).values())
    for digest in here:
        here.verify(digest)
    assert not there.root.exists()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "dangling link", "linked folder"])
def test_only_a_regular_file_is_an_object(objects: Objects, tmp_path: Path, kind: str) -> None:
    """Links are not followed even to the right bytes, and a FIFO in the place of an object does not hold us."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / HELLO).write_bytes(b"hello")
    path = objects.path(HELLO)
    path.parent.parent.mkdir()
    if kind == "linked folder":
        path.parent.symlink_to(tmp_path / "elsewhere")
    else:
        path.parent.mkdir()
    match kind:
        case "link":
            path.symlink_to(tmp_path / "elsewhere" / HELLO)
        case "dangling link":
            path.symlink_to("nowhere")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)

    for read in (lambda: objects.open_verified(HELLO, 5), lambda: objects.verify(HELLO)):
        with pytest.raises(ObjectCorrupt, match="it is not a regular file"):
            read()
    assert not objects.has(HELLO)


def test_a_linked_folder_is_not_written_through(objects: Objects, tmp_path: Path) -> None:
    """A store that came with somebody else's repository cannot make numb write outside it."""
    (tmp_path / "elsewhere").mkdir()
    objects.root.mkdir()
    (objects.root / HELLO[:2]).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ObjectCorrupt, match="is not a directory"):
        objects.put(b"hello")

    assert [] == os.listdir(tmp_path / "elsewhere")


def failing_at(n: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Make the n-th call that changes the disk fail; returns the list that the calls will be in."""
    calls: list[str] = []
    one_at_a_time = threading.Lock()

    def counted(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            with one_at_a_time:
                calls.append(name)
                failing = len(calls) == n
            if failing:
                raise OSError(errno.ENOSPC, "full")
            return real(*args, **kwargs)

        return call

    for name in ("_open", "_write", "_fsync", "_replace", "_link", "_mkdir"):
        patch.setattr(atomic, name, counted(name, getattr(atomic, name)))
    return calls


def test_put_is_whole_or_absent_under_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fault at any call, an object is whole or absent, a put that returned is there, and no temporary file stays."""
    whole = {f"{HELLO[:2]}/{HELLO}": b"hello"}
    returned = False
    for n in range(1, 100):
        objects = Objects(tmp_path / str(n))
        with monkeypatch.context() as patch:
            calls = failing_at(n, patch)
            try:
                objects.put(b"hello")
                returned = True
            except StorageFailed:
                pass
        assert files(objects) == whole if returned else files(objects) in ({}, whole)
        if returned:
            break

    assert n == len(calls) + 1
    assert ["_write", "_mkdir", "_open", "_fsync", "_fsync", "_replace", "_open", "_fsync"] == calls[-8:]


@pytest.mark.parametrize("can_start", [True, False])
def test_many_objects_are_saved_together(objects: Objects, monkeypatch: pytest.MonkeyPatch, can_start: bool) -> None:
    """By threads, or by none where a process that is ending cannot start any; what is there already stays."""
    contents = [bytes([n]) * n for n in range(1, 50)]
    objects.put(contents[7])
    if not can_start:
        monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("at shutdown")))
    with objects.saving() as saving:
        refs = [saving.put([content[:3], content[3:]]) for content in contents for _ in (1, 2)]

    assert [objects.open_verified(ref.digest, ref.size) for ref in refs[::2]] == contents
    assert len(contents) == len(list(objects)) and refs[::2] == refs[1::2]
    assert [] == os.listdir(objects.root / "tmp")


def test_little_waits_in_memory(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who brings more than the disk takes has to wait: at most the limit and one object are on their way."""
    monkeypatch.setattr("numb.store.objects._UNWRITTEN", 10)
    write, waiting, most = Objects._write, [], []

    def slow(self: Objects, ref: Ref, chunks: list[bytes]) -> Path:
        most.append(sum(map(len, waiting)))
        waiting.remove(chunks[0])
        return write(self, ref, chunks)

    monkeypatch.setattr(Objects, "_write", slow)
    with objects.saving() as saving:
        for n in range(30):
            waiting.append(b"%04d" % n)
            saving.put([waiting[-1]])

    assert 30 == len(list(objects)) and max(most) <= 10 + 4


def test_what_is_saved_together_is_whole_or_absent_under_every_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fault at any call that changes the disk, every object is whole or absent, and who saves is told."""
    contents = [b"hello", b"world", b"again"]
    for n in range(1, 200):
        objects = Objects(tmp_path / str(n))
        with monkeypatch.context() as patch:
            calls = failing_at(n, patch)
            try:
                with objects.saving() as saving:
                    for content in contents:
                        saving.put([content])
                returned = True
            except StorageFailed:
                returned = False
        for digest in objects:
            objects.verify(digest)
        assert not returned or 3 == len(list(objects))
        assert returned == (n > len(calls))
        if returned:
            break

    assert ["_open", "_fsync"] == calls[-2:] and calls.count("_link") == 3


def test_a_block_that_raises_writes_no_more(objects: Objects) -> None:
    """Its own error comes out, and no thread is left."""

    def interrupted() -> None:
        with objects.saving() as saving:
            saving.put([b"hello"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()

    assert not [thread for thread in threading.enumerate() if thread.name == "numb-objects"]


def test_an_object_that_was_damaged_meanwhile_is_written_again(objects: Objects) -> None:
    """What was compared once is compared again when its file has changed."""
    with objects.saving() as saving:
        saving.put([b"hello"])
    damage(objects.path(HELLO), b"hellp")
    with objects.saving() as saving:
        saving.put([b"hello"])

    objects.verify(HELLO)


def test_what_two_write_at_once_is_dropped_by_neither(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find it missing, and both write it: the slower one finds the other's, and says that it needs it too."""
    faster, slower = Objects(objects.root), Objects(objects.root)
    looked = slower.is_intact
    answers = iter([False])
    monkeypatch.setattr(slower, "is_intact", lambda ref: next(answers, True) and looked(ref))
    ref = _saved(faster)
    assert ref == _saved(slower)

    assert faster.discard([ref]) and slower.discard([ref])
    objects.verify(ref.digest)


def _saved(objects: Objects) -> Ref:
    with objects.saving() as saving:
        return saving.put([b"hello"])


def test_who_collects_waits_for_who_writes(objects: Objects) -> None:
    """Several may write at the same time; nobody collects meanwhile."""
    collector = atomic.Lock(objects.lock)
    with objects.in_use():
        with objects.in_use():
            assert not collector.try_acquire()
        assert not collector.try_acquire()
    assert collector.try_acquire()


def test_other_files_in_the_store_are_passed_over(objects: Objects) -> None:
    """Left over temporary files and a user's notes are no objects."""
    objects.put(b"hello")
    for name in ("tmp/.object.1-2.tmp", "notes.txt", f"zz/{HELLO}", f"{HELLO[:2]}/README"):
        (objects.root / name).parent.mkdir(exist_ok=True)
        (objects.root / name).write_text("?")

    assert [HELLO] == list(objects)


def test_an_object_that_comes_in_several_goes_is_there_when_it_is_whole(objects: Objects) -> None:
    """It has no name before all of its bytes have come; what has come is counted and hashed again by the next go."""
    content = os.urandom(3 << 20)
    ref = Ref(blake3(content).hexdigest(), len(content))
    for end in (1, 2 << 20, len(content)):
        with objects.incoming(ref) as incoming:
            assert not incoming.is_whole() and [] == list(objects)
            incoming.write(content[incoming.size : end])
    with objects.incoming(ref) as incoming:
        assert incoming.is_whole()
        incoming.keep()

    assert {f"{ref.digest[:2]}/{ref.digest}": content} == files(objects)


def test_an_incoming_object_that_is_another_is_not_whole(objects: Objects) -> None:
    """The right size is not enough, nor are more bytes than there should be; it can be begun again, or removed."""
    ref = Ref(HELLO, 5)
    for wrong in (b"hellp", b"hello!"):
        with objects.incoming(ref) as incoming:
            incoming.write(wrong)
            assert not incoming.is_whole()
    with objects.incoming(ref) as incoming:
        assert 0 == incoming.size  # it was too long to be gone on with
        incoming.write(b"h")
        incoming.begin_again()
        incoming.write(b"hello")
        assert incoming.is_whole()
        incoming.remove()

    assert {} == files(objects)


def test_pieces_of_a_damaged_object_end_in_an_error(objects: Objects) -> None:
    """Its bytes come as they are, for who hashes while reading; at the end it is said that they were not right."""
    ref = objects.put(b"hello")
    assert [b"he", b"ll", b"o"] == list(objects.pieces(ref, 2))
    damage(objects.path(HELLO), b"hellp")
    pieces = objects.pieces(ref, 3)

    assert [b"hel", b"lp"] == [next(pieces), next(pieces)]
    with pytest.raises(ObjectCorrupt, match="its bytes are those of"):
        next(pieces)
