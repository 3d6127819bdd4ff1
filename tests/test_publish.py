"""A run that was acknowledged is on the branch or comes to it: whoever else writes, whatever is killed, full or locked."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PLAIN, Done, Scene
from kit import Shim, sealed_here, users

from numb.gitstore import GitStore
from numb.inflight import InFlight
from numb.layout import Layout
from numb.record import RunId


def published(scene: Scene) -> list[str]:
    """The ids on the branch, oldest first; the chain must be linear and each id stand once."""
    return scene.sh(
        "git log --first-parent --reverse --format='%(trailers:key=Numb-Run,valueonly,separator=%x2C)' numb"
    ).split()


def acknowledged(done: Done) -> set[str]:
    """The ids that numb said were saved."""
    return {line.split()[2] for line in done.stderr.splitlines() if line.startswith("numb: saved ")}


def test_eight_runs_at_once(scene: Scene) -> None:
    """B1: eight trainings that end in the same moment are eight runs with eight ids in one linear chain."""
    wait = "import os, time\nwhile not os.path.exists('go.ignored'):\n    time.sleep(0.01)\n"
    scene.write("train.py", wait + PLAIN)
    waiting = [scene.start("train", "--again") for _ in range(8)]
    scene.sh("timeout 60 bash -c 'until [ $(git for-each-ref refs/numb/pins | wc -l) = 8 ]; do sleep 0.05; done'")

    scene.write("go.ignored", "")  # every script looks for it, and ends
    ended = [process.communicate(timeout=100) for process in waiting]

    said = [acknowledged(Done(0, "", err.decode())) for _, err in ended]
    assert [0] * 8 == [process.returncode for process in waiting], ended
    assert sorted(run["id"] for run in scene.runs()) == sorted(one for ids in said for one in ids)
    assert 8 == len(set(published(scene))) == len(published(scene))
    assert 9 == int(scene.sh("git rev-list --first-parent --count numb"))
    assert "" == scene.sh("git for-each-ref refs/numb")
    scene.sh("git fsck --strict --no-dangling")


def _append(root: str, environment: dict[str, str], number: int, count: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    store = GitStore.discover(Path(root))
    tree = store.empty_tree()
    for n in range(count):
        store.append(tree, f"{number}-{n}\n\nNumb-Kind: test\n", time.time())


def test_writers_lose_nothing(empty: Scene) -> None:
    """M1: three processes that append at once lose no commit; the branch is one chain."""
    with sealed_here(empty):
        GitStore.discover(empty.root).found(1.0)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(str(empty.root), empty.env, n, 15)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)

    subjects = empty.sh("git log --first-parent --format=%s numb").splitlines()
    assert [0, 0, 0] == [writer.exitcode for writer in writers]
    assert sorted(f"{number}-{n}" for number in range(3) for n in range(15)) == sorted(subjects[:-1])
    assert 46 == int(empty.sh("git rev-list --count numb"))


def lock_of(scene: Scene, *, age: float) -> Path:
    lock = scene.root / ".git/refs/heads/numb.lock"
    lock.touch()
    os.utime(lock, (time.time() - age, time.time() - age))
    return lock


def test_an_abandoned_lock_is_removed_and_said(scene: Scene) -> None:
    """B3: a lock that a killed git left a minute ago does not stop the run; numb says what it removed."""
    lock = lock_of(scene, age=61)

    done = scene.numb("train")

    assert (0, False) == (done.code, lock.exists())
    assert f"numb: removed {lock}, which a git that was killed had left" in done.stderr
    assert acknowledged(done) == {run["id"] for run in scene.runs()}


@pytest.mark.parametrize("case", ["fresh", "open in a process"])
def test_a_lock_that_may_be_in_use_is_left(scene: Scene, case: str) -> None:
    """B3: the run is kept, the message names the lock and what to type, and once it is free the run is published."""
    lock = lock_of(scene, age=0 if case == "fresh" else 3600)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()", str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout and holder.stdout.readline()
    if case == "fresh":
        holder.communicate(b"")

    done = scene.numb("train")
    there = lock.exists()
    holder.communicate(b"")
    lock.unlink()
    fixed = scene.numb("doctor --fix")

    assert (True, "lr 0.1\n", set()) == (there, done.stdout, acknowledged(done)) and done.code
    assert f"numb: {lock} is there, so git cannot move the branch; the run is safe in .nmb" in done.stderr
    assert "try: numb doctor --fix, once no git command is running" in done.stderr
    (run,) = scene.runs()
    assert (0, "complete") == (fixed.code, run["status"]), fixed.stdout
    assert (
        f"numb: put {run['id']} (complete) on branch numb: it had ended, but could not be put there before\n"
        == fixed.stderr
    )


def test_doctor_removes_an_abandoned_lock(scene: Scene) -> None:
    """B3: `numb doctor --fix` needs less patience, and publishes what waited."""
    lock = lock_of(scene, age=30)
    scene.numb("train")
    os.utime(lock, (time.time() - 30, time.time() - 30))

    fixed = scene.numb("doctor --fix")

    assert (0, False) == (fixed.code, lock.exists()), fixed.stdout
    assert 1 == len(scene.runs())


def test_a_run_that_was_killed_at_birth_leaves_no_riddle(scene: Scene) -> None:
    """A1: a folder whose launcher was killed before it wrote anything is nothing to keep: doctor removes it."""
    folder = scene.root / ".nmb/runs/20260101-000000-aaaa"
    (folder / "record").mkdir(parents=True)
    (folder / "alive").touch()
    young = scene.numb("doctor")
    os.utime(folder, (time.time() - 10, time.time() - 10))

    fixed = scene.numb("doctor --fix")

    assert (0, 0) == (young.code, fixed.code), young.stdout + fixed.stdout
    assert f"{folder} was made and never used" in fixed.stdout
    assert not folder.exists()


def test_a_locked_pin_store_does_not_unsay_a_run(scene: Scene) -> None:
    """A run that is on the branch is saved, also when its pin cannot be removed; it is published once."""
    scene.trained(lr=0.5)
    (scene.root / ".git/packed-refs.lock").touch()

    done = scene.numb("train")
    listed = scene.runs()
    (scene.root / ".git/packed-refs.lock").unlink()
    fixed = scene.numb("doctor --fix")

    assert 0 == done.code, done.stderr
    assert [run["id"] for run in listed] == published(scene)
    assert 0 == fixed.code, fixed.stdout
    assert "" == scene.sh("git for-each-ref refs/numb")


@pytest.mark.parametrize("how", ["full", "numb-dies-after"])
def test_no_fault_loses_a_run(scene: Scene, tmp_path: Path, how: str) -> None:
    """A1, A2, C2: see `check_every_command`; the disk is full for one git command, or numb is killed when one has ended."""
    check_every_command(scene, tmp_path, how)


def check_every_command(scene: Scene, folder: Path, how: str) -> None:
    """Let each git command of a `numb train` fail in turn. Afterwards what is the user's is untouched, no acknowledged run is
    lost, git finds nothing broken, and the next `numb train` works at once and brings back what was left."""
    shim = Shim(scene, folder / "shim")
    scene.sh("echo untracked > untracked.txt")
    saved = acknowledged(shim.numb("train"))
    calls = shim.calls
    before = users(scene)

    for at, call in enumerate(calls, 1):
        broken = shim.numb("train --again", at=at, how=how)
        fault = f"{how} about at {call}: {broken}"
        assert before == users(scene), fault
        if not how.startswith("numb"):
            assert "lr 0.1\n" == broken.stdout or broken.code in (1, 125, 127), fault
        saved |= acknowledged(broken)

        whole = scene.numb("train --again")
        saved |= acknowledged(whole)
        assert (0, "lr 0.1\n") == (whole.code, whole.stdout), f"{fault}\nthen {whole}"
        assert saved <= set(published(scene)), fault
        assert len(set(published(scene))) == len(published(scene)), fault
    assert not list((scene.root / ".nmb/runs").iterdir())
    assert {run["status"] for run in scene.runs()} <= {"complete", "lost", "killed"}  # killed: its output went nowhere
    assert len(calls) < int(scene.sh("git rev-list --first-parent --count numb"))
    scene.sh("git fsck --strict --no-dangling")
    assert before == users(scene)
    doctor = scene.numb("doctor --fix")
    assert 0 == doctor.code, doctor.stdout
    assert "" == scene.sh("git for-each-ref refs/numb")


def test_a_run_that_goes_while_it_is_looked_at(tmp_path: Path) -> None:
    """A launcher that publishes its run removes the folder: who was about to adopt it has nothing to do, and no error."""
    layout = Layout(tmp_path)
    flight = InFlight(layout.run(RunId.new(0)))

    assert not flight.adopt()
