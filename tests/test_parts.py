"""What is promised of small contents within objects: none is put twice, and nothing that is remembered is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from numb.store.objects import Objects, Ref, hash_of
from numb.store.parts import Part, Parts

CONTENT = b"hello, world"
HELLO, WORLD = hash_of(b"hello"), hash_of(b"world")


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


@pytest.fixture
def ref(objects: Objects) -> Ref:
    ref = objects.put(CONTENT)
    Parts(objects).add(ref, [(HELLO, 0, 5), (WORLD, 7, 5)])
    return ref


def test_a_part_is_found_by_another_process(objects: Objects, ref: Ref) -> None:
    """Where it lies, by its hash; what was never packed is not found."""
    parts = Parts(objects)

    assert (Part(ref, 0, 5), Part(ref, 7, 5)) == (parts.find(HELLO, 5), parts.find(WORLD, 5))
    assert None is parts.find(hash_of(b"?"), 1)


@pytest.mark.parametrize(
    "line",
    [
        "not JSON", "[]", "{}", '{"object": 1, "size": 2, "parts": 3}',
        json.dumps({"object": hash_of(CONTENT), "size": 12, "parts": [[HELLO, 7, 5]]}),
        json.dumps({"object": hash_of(CONTENT), "size": 12, "parts": [[HELLO, -5, 5]]}),
        json.dumps({"object": hash_of(CONTENT), "size": 12, "parts": [[HELLO, 10, 5]]}),
        json.dumps({"object": hash_of(CONTENT), "size": 12, "parts": [[HELLO, 0.0, 5]]}),
        json.dumps({"object": hash_of(CONTENT), "size": 99, "parts": [[HELLO, 0, 5]]}),
        json.dumps({"object": "../../etc/passwd", "size": 12, "parts": [[HELLO, 0, 5]]}),
        json.dumps({"object": "0" * 64, "size": 12, "parts": [[HELLO, 0, 5]]}),
    ],
)  # fmt: skip
def test_no_line_is_believed(objects: Objects, line: str) -> None:
    """One that is torn, lies about a place, or names what is not there, finds nothing."""
    objects.put(CONTENT)
    Parts(objects).file.write_text(line + "\n")

    assert None is Parts(objects).find(HELLO, 5)


def test_the_parts_of_a_damaged_object_are_put_again(objects: Objects, ref: Ref) -> None:
    """All of them, also those that the damage has not hit: so the object is written anew, whole."""
    parts = Parts(objects)
    assert parts.find(WORLD, 5)
    path = objects.path(ref.digest)
    path.chmod(0o644)
    path.write_bytes(b"hellp, world")
    assert parts.find(WORLD, 5), "within one save an object is looked at once"
    parts.look_again()

    assert None is parts.find(WORLD, 5)


def test_a_file_that_has_grown_is_read_from_its_end_and_keeps_that(
    objects: Objects, ref: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a cache: what is old is put again."""
    monkeypatch.setattr("numb.store.parts._READ", 300)
    other = objects.put(b"other")
    Parts(objects).add(other, [(hash_of(b"other"), 0, 5)])

    assert None is Parts(objects).find(HELLO, 5)
    assert Part(other, 0, 5) == Parts(objects).find(hash_of(b"other"), 5)

    monkeypatch.setattr("numb.store.parts._LARGEST", 300)
    Parts(objects).add(ref, [(HELLO, 0, 5)])
    monkeypatch.setattr("numb.store.parts._READ", 1000)
    assert 2 == len(Parts(objects).file.read_text().splitlines())
    assert Parts(objects).find(HELLO, 5) and Parts(objects).find(hash_of(b"other"), 5)


def test_however_many_there_are_another_process_finds_them(objects: Objects) -> None:
    """A network of twenty thousand tensors in one pack: the next run of it puts nothing."""
    contents = [number.to_bytes(4, "little") for number in range(20_000)]
    ref = objects.put(b"".join(contents))
    Parts(objects).add(ref, [(hash_of(content), 4 * place, 4) for place, content in enumerate(contents)])

    parts = Parts(objects)
    assert all(Part(ref, 4 * place, 4) == parts.find(hash_of(content), 4) for place, content in enumerate(contents))


@pytest.mark.parametrize("obstacle", ["directory", "fifo", "link"])
def test_what_stands_in_the_way_harms_nobody(objects: Objects, ref: Ref, tmp_path: Path, obstacle: str) -> None:
    """Without its file, small contents are put twice, and that is all."""
    file = Parts(objects).file
    file.unlink()
    match obstacle:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)
        case "link":
            file.symlink_to(tmp_path / "elsewhere")
    parts = Parts(objects)

    assert None is parts.find(HELLO, 5)
    parts.add(ref, [(HELLO, 0, 5)])
    assert parts.find(HELLO, 5)
    assert not (tmp_path / "elsewhere").exists()
