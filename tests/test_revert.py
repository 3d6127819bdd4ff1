"""`numb revert` makes the work tree a run's, exactly; what it replaces is in a commit first, and nothing else is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import PLAIN, Scene, _digest
from kit import Shim, every_object, tree_of, untouched, users
from test_snapshot import NAMES

DIRTY = """
mkdir -p d/deep && echo 1 > d/a && echo 1 > d/deep/b && echo '#!/bin/sh' > run.sh && chmod +x run.sh && echo plain > plain
ln -s plain link && ln -s nowhere dangling && ln -s d folder && mkdir becomes && echo 1 > becomes/file && echo 1 > other
printf '1\\r\\n2\\n' > mixed && printf '\\0\\377' > binary && touch void && echo staged > staged && git add staged run.sh
"""
LATER = """
rm -r d && echo file > d && chmod -x run.sh && chmod +x plain && rm link && echo file > link && ln -sf elsewhere dangling
rm -r becomes && ln -s other becomes && rm other && mkdir other && echo 2 > other/x && rm mixed && echo text > binary
rm folder && mkdir folder && echo 2 > folder/x && echo more > void && echo again > staged && git rm -qf --cached run.sh
mkdir empty && echo new > new && git add new && echo more >> train.py
"""


def files(scene: Scene) -> object:
    return scene.users()["files"]


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(folder)): _digest(path) for path in paths}


def odd_names(scene: Scene, text: bytes) -> None:
    for name in NAMES:
        (scene.root / os.fsdecode(b"n" + name[:200])).write_bytes(name + text)


def test_the_work_tree_becomes_the_runs(scene: Scene) -> None:
    """Modes, links, deletions, folders for files and files for folders, any bytes in names: all as they were, both ways."""
    scene.sh(DIRTY)
    odd_names(scene, b"then")
    then = files(scene)
    run = scene.trained()
    scene.sh(LATER)
    odd_names(scene, b"now")
    now = users(scene)

    reverted = scene.numb("revert", run["id"])
    at_run = users(scene)
    empty_stays = (scene.root / "empty").is_dir()
    undone = scene.numb("revert --undo")
    at_now = users(scene)
    redone = scene.numb("revert --undo")

    assert (0, 0, 0) == (reverted.code, undone.code, redone.code), reverted.stderr + undone.stderr
    assert then == at_run["files"]
    assert empty_stays
    assert now == at_now
    assert {**now, "files": 0} == {**at_run, "files": 0}  # index, HEAD, refs, configuration: byte for byte
    assert then == files(scene)
    assert not (scene.root / ".nmb/reverting.json").exists()


def test_ignored_files_stay(scene: Scene) -> None:
    """What git ignores is neither deleted nor changed, also next to files that go."""
    run = scene.trained()
    scene.sh("mkdir d && echo keep > d/x.ignored && echo go > d/new && echo keep > y.ignored")

    done = scene.numb("revert", run["id"])

    assert (0, "keep\n", "keep\n") == (done.code, scene.read("d/x.ignored"), scene.read("y.ignored"))
    assert not (scene.root / "d/new").exists()


IN_THE_WAY = {
    "a file": ("echo then > x.data", "rm x.data && echo '*.data' >> .git/info/exclude && echo now > x.data"),
    "a folder for a file": (
        "echo then > x.data",
        "rm x.data && echo x.data >> .git/info/exclude && mkdir -p x.data/deep && echo now > x.data/deep/f && ln -s deep x.data/l",
    ),
    "a file for a folder": (
        "mkdir x.data && echo then > x.data/f",
        "rm -r x.data && echo x.data >> .git/info/exclude && echo now > x.data",
    ),
    "a link for a folder": (
        "mkdir x.data && echo then > x.data/f",
        "mv x.data ../outside && echo x.data >> .git/info/exclude && ln -s ../outside x.data",
    ),
    "a file in a folder for a file": (
        "echo then > x.data",
        "rm x.data && mkdir x.data && echo tracked > x.data/t && git add x.data/t && echo '*.i' >> .git/info/exclude"
        " && echo now > x.data/f.i",
    ),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_an_ignored_file_in_the_way_is_saved_then_replaced(scene: Scene, name: str) -> None:
    """Whatever stands where a file of the run must go is in the commit of before, and --undo brings it back."""
    before, after = IN_THE_WAY[name]
    scene.sh(before)
    then = files(scene)
    run = scene.trained()
    scene.sh(after)
    now = files(scene)

    reverted = scene.numb("revert", run["id"])
    at_run = files(scene)
    undone = scene.numb("revert --undo")

    assert (0, 0) == (reverted.code, undone.code), reverted.stderr + undone.stderr
    assert then == at_run
    assert now == files(scene)
    if name == "a link for a folder":
        assert "then\n" == scene.read("../outside/f")


def test_secrets_and_big_files_stay_where_they_are(scene: Scene) -> None:
    """Untracked files that snapshots leave out are untouched; one in the way stops the revert before anything changes."""
    scene.write("nmb.json", json.dumps({**json.loads(scene.read("nmb.json")), "snapshot": {"max_file_mb": 0.001}}))
    scene.sh("git commit -qam small")
    scene.sh("echo harmless > notes")
    one = scene.trained(lr=0.5)
    scene.sh("echo x > .env && git add -f .env")
    two = scene.trained(lr=0.6)
    scene.sh(
        "git rm -q --cached .env && echo canary-secret > .env && head -c 5000 /dev/zero > big && echo '#' >> train.py"
    )
    before = users(scene)

    reverted = scene.numb("revert", one["id"])
    kept = (scene.read(".env"), (scene.root / "big").stat().st_size)
    scene.sh("echo '#' >> train.py")
    middle = users(scene)
    tip = scene.sh("git rev-parse numb")
    refused = scene.numb("revert", two["id"])

    assert (0, 1) == (reverted.code, refused.code), reverted.stderr
    assert ("canary-secret\n", 5000) == kept
    assert (
        "numb: nothing was changed: .env is in the way, and would not be saved (looks like a secret)" in refused.stderr
    )
    assert (middle, tip) == (users(scene), scene.sh("git rev-parse numb"))
    assert b"canary-secret" not in every_object(scene)
    assert {**before, "files": 0} == {**middle, "files": 0}


def test_a_repository_in_the_way_stops_it(scene: Scene) -> None:
    """A repository where a file must go is never replaced, and nothing changes."""
    scene.sh("echo then > lib")
    run = scene.trained()
    scene.sh("rm lib && git init -q lib && echo lib >> .git/info/exclude && echo mine > lib/f")

    with untouched(scene):
        done = scene.numb("revert", run["id"])

    assert 1 == done.code
    assert "numb: nothing was changed: lib is a git repository in the way\n" in done.stderr
    assert "mine\n" == scene.read("lib/f")


def test_an_edit_between_looking_and_writing_stops_it(scene: Scene, tmp_path: Path) -> None:
    """A file that is saved by an editor after numb has looked is never overwritten: nothing is changed, and it is said."""
    run = scene.trained()
    scene.sh("echo '# mine' >> train.py && echo '# mine' >> trial.py")
    shim = Shim(scene, tmp_path / "shim")
    shim.numb("revert", run["id"])
    at = next(n for n, call in enumerate(shim.calls, 1) if "read-tree -m -u" in call)
    scene.sh("numb revert --undo")
    before = users(scene)

    done = shim.numb("revert", run["id"], at=at - 1, how="then", then=f"echo '# late' >> '{scene.root}/trial.py'")

    after = users(scene)
    scene.sh("sed -i '$d' trial.py")
    assert 1 == done.code
    assert "numb: nothing was changed: Entry 'trial.py' not uptodate" in done.stderr
    assert {**before, "files": 0} == {**after, "files": 0}
    assert before == users(scene)
    assert (0, "everything is in order\n") == (scene.numb("doctor").code, scene.numb("doctor").stdout)


def test_a_run_in_a_new_folder(scene: Scene) -> None:
    """--worktree writes the run's files elsewhere, exactly, and touches nothing here, `.git/worktrees` included."""
    scene.sh(DIRTY)
    then = files(scene)
    run = scene.trained()
    scene.sh("echo '# now' >> train.py")
    target = scene.root.parent / "there"

    with untouched(scene):
        done = scene.numb("revert", run["id"], "--worktree", str(target))
        again = scene.numb("revert", run["id"], "--worktree", str(target))
        (scene.root.parent / "void").mkdir()
        void = scene.numb("revert", run["id"], "--worktree", str(scene.root.parent / "void"))

    assert (0, f"{target}\n", 1, 1) == (done.code, done.stdout, again.code, void.code), done.stderr
    assert f"{target} already exists" in again.stderr
    assert then == digests(target)
    assert not (scene.root / ".git/worktrees").exists()


SUBMODULE = (
    "git init -q ../sub && echo one > ../sub/f && git -C ../sub add -A && git -C ../sub commit -qm s"
    " && git -c protocol.file.allow=always submodule --quiet add ../sub sub && git commit -qm sub"
)


def test_a_dirty_submodule_comes_back(scene: Scene) -> None:
    """Edits and untracked files in a submodule are part of the run: revert brings them back, --undo what was there instead."""
    scene.sh(f"{SUBMODULE} && echo then >> sub/f && echo then > sub/new && chmod +x sub/f")
    run = scene.trained()
    then = {path.name: (path.read_text(), path.stat().st_mode) for path in (scene.root / "sub").glob("[fn]*")}
    scene.sh("cd sub && git checkout -qf . && rm new && echo now > now && git commit -q --allow-empty -m later")
    now, head = files(scene), scene.sh("git -C sub rev-parse HEAD")

    reverted = scene.numb("revert", run["id"])
    at_run = {path.name: (path.read_text(), path.stat().st_mode) for path in (scene.root / "sub").glob("[fn]*")}
    undone = scene.numb("revert --undo")

    assert (0, 0) == (reverted.code, undone.code), reverted.stderr + undone.stderr
    assert then == at_run
    assert now == files(scene)
    assert head == scene.sh("git -C sub rev-parse HEAD")


def test_a_submodule_in_a_new_folder(scene: Scene) -> None:
    """--worktree brings the files of a submodule along, with the edits of then; the submodule here is not touched."""
    scene.sh(f"{SUBMODULE} && echo then >> sub/f && echo then > sub/new")
    run = scene.trained()
    scene.sh("cd sub && git checkout -qf . && rm new && git commit -q --allow-empty -m later")

    with untouched(scene):
        done = scene.numb("revert", run["id"], "--worktree", "../there")

    there = scene.root.parent / "there"
    assert 0 == done.code, done.stderr
    assert ("one\nthen\n", "then\n") == ((there / "sub/f").read_text(), (there / "sub/new").read_text())
    assert not (there / "sub/.git").exists()
    assert "" == scene.sh("git -C sub status --porcelain")


def test_a_sparse_checkout_stays_sparse(scene: Scene) -> None:
    """Files that a sparse checkout leaves out are neither written nor lost by a revert."""
    scene.sh("mkdir d && echo 1 > d/a && git add d && git commit -qm d && git sparse-checkout set --cone")
    run = scene.trained()
    scene.sh("echo '# now' >> train.py")

    with_sparse = scene.numb("revert", run["id"])

    assert 0 == with_sparse.code, with_sparse.stderr
    assert not (scene.root / "d").exists()
    assert "d/a" in tree_of(scene, "numb")
    assert PLAIN.lstrip() == scene.read("train.py")


def test_a_filter_that_is_not_installed(scene: Scene) -> None:
    """With a required filter that fails (LFS is not there) all ways work on the bytes as they lay on the disk."""
    scene.sh("echo '*.big filter=lfs' > .gitattributes && echo then > x.big")
    scene.sh(
        "git config filter.lfs.required true && git config filter.lfs.clean false && git config filter.lfs.smudge false"
    )
    run = scene.trained()
    scene.sh("echo now > x.big")

    reverted = scene.numb("revert", run["id"])
    at_run = scene.read("x.big")
    undone = scene.numb("revert --undo")
    elsewhere = scene.numb("revert", run["id"], "--worktree", "../there")

    assert (0, 0, 0) == (reverted.code, undone.code, elsewhere.code), reverted.stderr + elsewhere.stderr
    assert ("then\n", "now\n") == (at_run, scene.read("x.big"))
    assert "then\n" == (scene.root.parent / "there/x.big").read_text()
    assert "written as git keeps them" in elsewhere.stderr


def test_a_revert_that_is_killed_loses_nothing(scene: Scene, tmp_path: Path) -> None:
    """A8: see `check_killed_revert`; numb is killed when a git command has ended."""
    check_killed_revert(scene, tmp_path, "numb-dies-after")


def check_killed_revert(scene: Scene, folder: Path, how: str) -> None:
    """Kill `numb revert` at each of its git commands in turn. Every byte of the user's is in the work tree or in a commit that
    doctor names, and `revert --undo` brings it back."""
    scene.sh("echo then > data && ln -s data link && mkdir d && echo 1 > d/f")
    then = files(scene)
    run = scene.trained()
    scene.sh(
        "echo mine-only > data && rm -r link d && echo mine-too > d && echo new > mine-new && echo '# mine' >> train.py"
    )
    mine = users(scene)
    shim = Shim(scene, folder / "shim")
    shim.numb("revert", run["id"])
    calls = shim.calls
    scene.sh("numb revert --undo")
    assert mine == users(scene)

    for at, call in enumerate(calls, 1):
        shim.numb("revert", run["id"], at=at, how=how)

        now = users(scene)
        assert {**mine, "files": 0} == {**now, "files": 0}, call
        if now["files"] != mine["files"]:
            told = scene.numb("doctor").stdout
            saved = scene.sh("git rev-parse numb")
            if (scene.root / ".nmb/reverting.json").exists():
                assert f"a revert was cut off; what was there before is in {saved}" in told
            undone = scene.numb("revert --undo")
            assert 0 == undone.code, undone.stderr
        assert mine == users(scene), call
    done = scene.numb("revert", run["id"])
    assert (0, then) == (done.code, files(scene)), done.stderr
    scene.sh("git fsck --strict --no-dangling")


def test_undo_takes_the_newest_of_one_second(scene: Scene) -> None:
    """Two reverts within one second: --undo goes back to before the second, whatever the random letters of the ids."""
    run = scene.trained()
    for n in range(6):
        scene.sh(f"echo '# {n}' >> train.py")
        before = files(scene)

        scene.sh(f"numb revert {run['id']} && numb revert --undo")

        assert before == files(scene)
