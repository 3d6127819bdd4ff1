"""The long loops of `make crash`: every fault at every git command, and kills at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Done, Scene
from kit import users
from test_publish import acknowledged, check_every_command, published
from test_revert import check_killed_revert


@pytest.mark.parametrize("how", ["full", "git-dies", "git-dies-after", "numb-dies", "numb-dies-after"])
def test_every_fault_at_every_git_command(scene: Scene, tmp_path: Path, how: str) -> None:
    """A1, A2, C2: see `check_every_command`; the disk is full for one git command, or git, or numb, is killed before or after it."""
    check_every_command(scene, tmp_path, how)


def test_a_revert_that_is_killed_before_each_git_command(scene: Scene, tmp_path: Path) -> None:
    """A8: see `check_killed_revert`; numb is killed when a git command begins."""
    check_killed_revert(scene, tmp_path, "numb-dies")


def test_kills_at_any_moment(scene: Scene) -> None:
    """A1: the whole group of a `numb train` is killed at 150 random moments. No acknowledged run is lost, the user's things
    are untouched, git finds nothing broken, and the next command recovers what there was."""
    moments = random.Random(0)
    before = users(scene)
    saved: set[str] = set()

    for _ in range(150):
        process = scene.start("train", "--again")
        try:
            _, err = process.communicate(timeout=moments.uniform(0.05, 0.7))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
        saved |= acknowledged(Done(0, "", err.decode(errors="replace")))
        assert before == users(scene)
    last = scene.numb("train --again")
    fixed = scene.numb("doctor --fix")

    assert (0, 0) == (last.code, fixed.code), last.stderr + fixed.stdout
    ids = published(scene)
    assert saved <= set(ids) and len(ids) == len(set(ids))
    assert before == users(scene)
    scene.sh("git fsck --strict --no-dangling")
