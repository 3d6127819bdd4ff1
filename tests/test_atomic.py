"""What `atomic` promises: old or new, never half, whatever the disk does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from numb import atomic
from numb.errors import StorageFailed, TargetExists

CALLS = ("_open", "_write", "_fsync", "_rename", "_replace", "_link", "_mkdir")
FAULTS = pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)


@contextmanager
def failing_at(n: int, code: int) -> Iterator[list[str]]:
    """Make the n-th call that changes the disk fail; yields the calls made."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if len(calls) == n:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(atomic, name, counted(name, getattr(atomic, name)))
        yield calls


def outcomes(
    folder: Path, prepare: Callable[[Path], None], act: Callable[[Path], object], code: int
) -> Iterator[tuple[bool, Path]]:
    """Do the same thing in a new place with a fault at its first call, its second, … until none is hit."""
    for n in count(1):
        place = folder / str(n)
        place.mkdir()
        prepare(place)
        with failing_at(n, code) as calls:
            try:
                act(place)
                returned = True
            except StorageFailed:
                returned = False
        yield returned, place
        if len(calls) < n:
            assert returned and n > 3, f"only {calls} were seen to be made"
            return
        assert not returned, f"{calls[-1]} failed and nobody was told"


def everything_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def in_another_process(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"from numb import atomic\nimport os, sys\n{script}", *map(str, arguments)]
    return subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )


@FAULTS
def test_write_is_old_or_new_under_every_fault(tmp_path: Path, code: int) -> None:
    """A file is never half written, a write that returned is there, and no temporary file stays behind."""
    for returned, place in outcomes(
        tmp_path, lambda place: (place / "f").write_text("old"), lambda place: atomic.write(place / "f", "new"), code
    ):
        left = everything_below(place)
        assert left == {"f": "new"} if returned else left in ({"f": "old"}, {"f": "new"})


@FAULTS
def test_create_is_there_or_not_under_every_fault(tmp_path: Path, code: int) -> None:
    """A new file is whole or absent."""
    for returned, place in outcomes(tmp_path, lambda _: None, lambda place: atomic.create(place / "f", "new"), code):
        left = everything_below(place)
        assert left == {"f": "new"} if returned else left in ({}, {"f": "new"})


@FAULTS
def test_new_directory_is_there_or_not_under_every_fault(tmp_path: Path, code: int) -> None:
    """A directory appears with everything in it, or nothing of it stays."""

    def report(place: Path) -> None:
        with atomic.new_directory(place / "report") as folder:
            (folder / "a").write_text("1")
            (folder / "deep").mkdir()
            (folder / "deep" / "b").write_text("2")

    whole = {"report/a": "1", "report/deep/b": "2"}
    for returned, place in outcomes(tmp_path, lambda _: None, report, code):
        left = everything_below(place)
        assert left == whole if returned else left in ({}, whole)
        assert [name for name in os.listdir(place) if name != "report"] == []


@FAULTS
def test_replacing_is_old_or_new_under_every_fault(tmp_path: Path, code: int) -> None:
    """A file that a library writes is put in place as whole as our own."""

    def replace(place: Path) -> None:
        with atomic.replacing(place / "f") as file:
            file.write_text("new")

    for returned, place in outcomes(tmp_path, lambda place: (place / "f").write_text("old"), replace, code):
        left = everything_below(place)
        assert left == {"f": "new"} if returned else left in ({"f": "old"}, {"f": "new"})


def test_a_write_in_small_steps_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a few bytes at a time still gets all of them."""
    monkeypatch.setattr(atomic, "_write", lambda fd, content: os.write(fd, content[:3]))

    atomic.write(tmp_path / "f", "whatever it takes")

    assert "whatever it takes" == (tmp_path / "f").read_text()


def test_what_is_renamed_was_synced_before(tmp_path: Path) -> None:
    """The order of the calls is the safety: content to the disk, then the name, then the directory."""
    with failing_at(0, 0) as calls:
        atomic.write(tmp_path / "f", "new")

    assert ["_open", "_write", "_fsync", "_replace", "_open", "_fsync"] == calls


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """The message says which file and why, the hint what to do."""
    with failing_at(2, errno.ENOSPC), pytest.raises(StorageFailed) as failed:
        atomic.write(tmp_path / "f", "new")

    assert f"cannot write {tmp_path}/f: No space left on device" == str(failed.value)
    assert f"free some space and run it again; df -h {tmp_path} shows how much there is" == failed.value.hint


def test_write_takes_the_umask_and_follows_no_link(tmp_path: Path) -> None:
    """A private umask makes private files, and a link at the name is replaced rather than written through."""
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "f").symlink_to("theirs")
    before = os.umask(0o077)
    try:
        atomic.write(tmp_path / "f", "mine")
    finally:
        os.umask(before)

    assert {"f": "mine", "theirs": "theirs"} == everything_below(tmp_path)
    assert 0o100600 == (tmp_path / "f").lstat().st_mode


def test_a_script_that_replaces_os_functions_is_not_felt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numb works inside a process whose `os.write`, `os.open` and `open` are somebody else's (F15)."""
    for name in ("write", "open", "fsync", "replace", "link", "unlink"):
        monkeypatch.setattr(os, name, None)
    monkeypatch.setattr("builtins.open", None)
    try:
        atomic.write(tmp_path / "f", "new")
        atomic.create(tmp_path / "g", "new")
    finally:
        monkeypatch.undo()

    assert {"f": "new", "g": "new"} == everything_below(tmp_path)


def test_create_overwrites_nothing(tmp_path: Path) -> None:
    """What is there stays, a dangling link included."""
    (tmp_path / "f").write_text("mine")
    (tmp_path / "g").symlink_to("nowhere")

    for name in ("f", "g"):
        with pytest.raises(FileExistsError):
            atomic.create(tmp_path / name, "theirs")

    assert {"f": "mine"} == everything_below(tmp_path)
    assert ["f", "g"] == sorted(os.listdir(tmp_path))


@pytest.mark.parametrize("links", [True, False])
def test_of_many_creators_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Exactly one of eight gets the name, also on a file system without hard links."""
    if not links:

        def no_link(*_: object) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(atomic, "_link", no_link)
    start, won = threading.Barrier(8), []

    def compete(name: str) -> None:
        start.wait()
        try:
            atomic.create(tmp_path / "f", name)
            won.append(name)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=compete, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {"f": won[0]} == everything_below(tmp_path) and 1 == len(won)


@FAULTS
def test_create_without_hard_links_is_there_or_not_under_every_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The empty file that takes the name goes when it cannot be filled."""

    def no_link(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no hard links here")

    monkeypatch.setattr(atomic, "_link", no_link)
    for returned, place in outcomes(tmp_path, lambda _: None, lambda place: atomic.create(place / "f", "new"), code):
        left = everything_below(place)
        assert left == {"f": "new"} if returned else left in ({}, {"f": "new"})


def test_a_cache_is_copied_with_its_time(tmp_path: Path) -> None:
    """git trusts the time of an index; a missing one is simply not copied."""
    (tmp_path / "index").write_text("entries")
    os.utime(tmp_path / "index", ns=(1, 1_234_567_890_123_456_789))

    atomic.copy_cache(tmp_path / "index", tmp_path / "copy")
    atomic.copy_cache(tmp_path / "missing", tmp_path / "other")

    assert {"copy": "entries", "index": "entries"} == everything_below(tmp_path)
    assert 1_234_567_890_123_456_789 == (tmp_path / "copy").stat().st_mtime_ns


def test_lines_of_four_processes_never_mix(tmp_path: Path) -> None:
    """Each line is one write, so 2,000 lines of four writers are 2,000 lines."""
    script = """
appender = atomic.Appender(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(500):
    appender.line(f"{sys.argv[2]} {n} ".encode() + b"x" * n)
"""
    writers = [in_another_process(script, tmp_path / "log", letter) for letter in "abcd"]
    for writer in writers:
        assert writer.stdout is not None and "ready\n" == writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert 0 == writer.returncode

    expected = sorted(f"{letter} {n} " + "x" * n for letter in "abcd" for n in range(500))
    assert expected == sorted((tmp_path / "log").read_text().splitlines())


def test_two_writers_take_turns(tmp_path: Path) -> None:
    """A line goes to where the file ends now, not to where it ended when the writer opened it."""
    one, two = atomic.Appender(tmp_path / "log"), atomic.Appender(tmp_path / "log")
    for n in range(3):
        one.line(b"one %d" % n)
        two.line(b"two %d" % n)

    assert ["one 0", "two 0", "one 1", "two 1", "one 2", "two 2"] == (tmp_path / "log").read_text().splitlines()


def test_a_line_cut_off_by_a_full_disk_stays_alone(tmp_path: Path) -> None:
    """With no room for all of a line the writer is told, and the next line that fits begins a new one."""
    script = """
import resource
from numb.errors import StorageFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (25, resource.RLIM_INFINITY))
appender = atomic.Appender(sys.argv[1])
appender.line(b"0123456789")
appender.line(b"abcdefghij")
for line in (b"cut off", b"not begun"):
    try:
        appender.line(line)
    except StorageFailed as failed:
        print(failed)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
appender.line(b"room again")
appender.close()
"""
    said, _ = in_another_process(script, tmp_path / "log").communicate()

    full = f"cannot write {tmp_path}/log: "
    assert f"{full}No space left on device\n{full}File too large\n" == said
    assert "0123456789\nabcdefghij\ncut\nroom again\n" == (tmp_path / "log").read_text()


def test_a_torn_last_line_of_an_earlier_process_stays_alone(tmp_path: Path) -> None:
    """A writer that was killed in the middle of a line does not spoil the next writer's first."""
    (tmp_path / "log").write_text("whole\nto")

    appender = atomic.Appender(tmp_path / "log")
    appender.line(b"next\n")
    appender.line(b"last")
    appender.close()
    appender.close()

    assert "whole\nto\nnext\nlast\n" == (tmp_path / "log").read_text()


def test_a_line_is_one_line(tmp_path: Path) -> None:
    """A newline inside would be two events."""
    with pytest.raises(ValueError, match="a newline inside a line"):
        atomic.Appender(tmp_path / "log").line(b"one\ntwo\n")

    assert "" == (tmp_path / "log").read_text()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_new_directory_refuses_an_existing_target(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Whatever has the name stays, and the block is not entered."""
    make(tmp_path / "report")

    with pytest.raises(TargetExists, match="already exists"), atomic.new_directory(tmp_path / "report"):
        pytest.fail("entered")

    assert ["report"] == os.listdir(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_new_directory_refuses_a_target_made_meanwhile(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """An empty directory is not replaced either, although rename would."""

    def report() -> None:
        with atomic.new_directory(tmp_path / "report") as folder:
            (folder / "a").write_text("1")
            make(tmp_path / "report")

    with pytest.raises(TargetExists):
        report()

    assert {} == {name: text for name, text in everything_below(tmp_path).items() if text}
    assert ["report"] == os.listdir(tmp_path)


def test_new_directory_is_synced_before_it_has_its_name(tmp_path: Path) -> None:
    """Files, then the directories that hold them, then the name; links are left as they are."""
    with failing_at(0, 0) as calls, atomic.new_directory(tmp_path / "report") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "f").write_text("1")
        (folder / "deep" / "link").symlink_to("f")

    assert ["_mkdir", *["_open", "_fsync"] * 3, "_rename", "_open", "_fsync"] == calls
    assert (tmp_path / "report" / "deep" / "link").is_symlink()


def test_new_directory_leaves_nothing_of_a_block_that_raises(tmp_path: Path) -> None:
    """The block's own error comes through, and the directory is gone."""

    def report() -> None:
        with atomic.new_directory(tmp_path / "report") as folder:
            (folder / "a").write_text("1")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        report()

    assert [] == os.listdir(tmp_path)


def test_remove_tree_removes_links_but_not_what_they_point_to(tmp_path: Path) -> None:
    """A run folder goes with all that is in it; nothing there is fine; a link is a link."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "f").write_text("kept")
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "f").write_text("gone")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")

    for name in ("run", "link", "never was"):
        atomic.remove_tree(tmp_path / name)

    assert {"kept/f": "kept"} == everything_below(tmp_path)
    assert ["kept"] == os.listdir(tmp_path)


def test_remove_tree_makes_the_name_vanish_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is cut off leaves a temporary name, never half a run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "f").write_text("gone")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_remove", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.remove_tree(tmp_path / "run")

    [left] = os.listdir(tmp_path)
    assert left.startswith(".run.") and left.endswith(".tmp")


def test_make_directory_makes_all_of_the_way(tmp_path: Path) -> None:
    """The directories above are made too, twice is fine, and each is synced into the one above it."""
    with failing_at(0, 0) as calls:
        atomic.make_directory(tmp_path / "a" / "b")
        atomic.make_directory(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()
    assert ["_mkdir", "_open", "_fsync"] * 2 == calls


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """While it is held nobody else gets it, anybody can see it, and it can be taken again when it is free."""
    first, second = atomic.Lock(tmp_path / "lock"), atomic.Lock(tmp_path / "lock")

    assert not atomic.held_elsewhere(tmp_path / "lock") and not (tmp_path / "lock").exists()
    assert first.try_acquire() and first.try_acquire()
    assert not second.try_acquire(0.02) and atomic.held_elsewhere(tmp_path / "lock")
    first.release()
    assert not atomic.held_elsewhere(tmp_path / "lock") and second.try_acquire()
    second.release()
    with first, pytest.raises(BlockingIOError), second:
        pytest.fail("both hold it")
    assert not atomic.held_elsewhere(tmp_path / "lock")


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    """SIGKILL frees it, and a child that was exec'd does not keep it."""
    script = """
import subprocess
lock = atomic.Lock(sys.argv[1])
lock.try_acquire()
child = subprocess.Popen(["sleep", "60"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""
    holder = in_another_process(script, tmp_path / "lock")
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert atomic.held_elsewhere(tmp_path / "lock")
        holder.kill()
        holder.communicate()
        assert not atomic.held_elsewhere(tmp_path / "lock")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_whose_file_was_removed_is_not_mistaken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locking a file that its last holder removed meanwhile would let the next process lock a new one beside it."""
    removed: list[int] = []
    real = atomic._flock

    def remove_first(fd: int, operation: int) -> None:
        if not removed:
            removed.append(fd)
            (tmp_path / "lock").unlink()
        real(fd, operation)

    monkeypatch.setattr(atomic, "_flock", remove_first)
    assert atomic.Lock(tmp_path / "lock").try_acquire()

    assert removed and (tmp_path / "lock").exists()


def test_a_lock_on_a_read_only_disk_says_so(tmp_path: Path) -> None:
    """Taking one is a storage failure that names the file; asking for one that is not there is not."""
    with failing_at(1, errno.EROFS), pytest.raises(StorageFailed, match=r"cannot lock .*lock: Read-only file system"):
        atomic.Lock(tmp_path / "lock").try_acquire()

    assert not atomic.held_elsewhere(tmp_path / "lock")


def test_a_partial_file_is_gone_on_with_until_it_has_its_name(tmp_path: Path) -> None:
    """What one go has written is there in the next, even where it was killed; kept, it is whole, read-only and alone."""
    path, target = tmp_path / "partial", tmp_path / "target"
    program = (
        f"import os\nfrom numb import atomic\natomic.Partial({str(path)!r}).write(b'one ')\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent)
    assert -signal.SIGKILL == done.returncode
    with atomic.Partial(path) as partial:
        assert (4, [b"one "]) == (partial.size, list(partial.pieces()))
        partial.write(b"two")
        partial.keep(target)

    assert [target] == list(tmp_path.iterdir())
    assert (b"one two", 0) == (target.read_bytes(), target.stat().st_mode & 0o222)


def test_a_partial_file_has_one_writer(tmp_path: Path) -> None:
    """A second one gets a file of its own, which leaves nothing behind unless it is kept."""
    path = tmp_path / "partial"
    with atomic.Partial(path) as first:
        first.write(b"first")
        with atomic.Partial(path) as second:
            assert 0 == second.size
            second.write(b"second")
        with atomic.Partial(path) as third:
            third.write(b"third")
            third.keep(tmp_path / "target")

    assert {"partial": b"first", "target": b"third"} == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_a_partial_file_is_kept_or_not_under_every_fault(tmp_path: Path, code: int) -> None:
    """Whichever call fails, the target is as it was or whole, and the error is `StorageFailed`."""

    def act(place: Path) -> None:
        with atomic.Partial(place / "partial") as partial:
            partial.write(b"new")
            partial.keep(place / "target")

    for returned, place in outcomes(tmp_path, lambda place: (place / "target").write_bytes(b"old") and None, act, code):
        assert (place / "target").read_bytes() in ((b"new",) if returned else (b"new", b"old"))
