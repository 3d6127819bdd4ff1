"""Whole commands in every state that a repository can be in, and in every place that one can be."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import PLAIN, WORLDS, Scene, furnish
from kit import Shim, tree_of, untouched, users

from numb.errors import NumbError
from numb.project import Project

FIRST = "numb init && numb train && numb list && numb show @ && numb report @ && numb revert @ && numb revert --undo"


def furnished(scene: Scene, files: dict[str, str] | None = None) -> Scene:
    furnish(scene, files or {"train.py": PLAIN, "trial.py": PLAIN})
    return scene


def chain(scene: Scene, branch: str = "numb") -> list[str]:
    """The kinds of the commits of the branch, oldest first."""
    return scene.sh(
        f"git log --first-parent --reverse --format='%(trailers:key=Numb-Kind,valueonly,separator=%x2C)' {branch} --"
    ).split()


def test_a_repository_without_a_commit(empty: Scene) -> None:
    """D1: init, train, list, revert and report work; HEAD stays unborn and the index stays away."""
    empty.write("train.py", PLAIN)

    out = empty.sh(FIRST)

    (run,) = empty.runs()
    assert "lr 0.1" in out
    assert ("complete", None, "main") == (run["status"], run["base"], run["branch"])
    assert ["root", "train", "saved", "saved"] == chain(empty)
    assert {"train.py", "nmb.json"} == set(tree_of(empty, run["commit"]))
    assert "refs/heads/main" == empty.sh("git symbolic-ref HEAD")
    assert "" == empty.sh("git rev-parse --verify --quiet HEAD || true")
    assert not (empty.root / ".git/index").exists()


def test_a_detached_head(scene: Scene) -> None:
    """D2: the record has the commit and no branch."""
    scene.sh("git checkout -q --detach")

    with untouched(scene):
        run = scene.trained()

    assert (scene.sh("git rev-parse HEAD"), None) == (run["base"], run["branch"])


def test_two_worktrees_do_not_collide(scene: Scene) -> None:
    """D4: each has its own .nmb and its own runs in flight; both append to one branch, and neither sees the other as lost."""
    scene.sh("git worktree add -q ../two -b two && echo '# two' >> ../two/train.py")
    two = Scene(scene.root.parent / "two", Path(scene.env["HOME"]))
    scene.write("train.py", "open('here.ignored', 'w').close(); open('go.ignored').read()\n" + PLAIN)
    scene.sh("mkfifo go.ignored")

    waiting = scene.start("train")
    pinned = "until [ -e here.ignored ] && git for-each-ref | grep -q pins; do sleep 0.02; done"
    scene.sh(f"timeout 30 bash -c '{pinned}'")
    other = two.trained()
    doctor = two.numb("doctor --fix")
    scene.sh("echo > go.ignored")
    _, err = waiting.communicate(timeout=60)

    assert 0 == waiting.returncode, err
    assert (0, "two") == (doctor.code, other["branch"]), doctor.stdout
    assert ["complete", "complete"] == [run["status"] for run in scene.runs()]
    assert scene.runs() == two.runs()
    assert ["root", "train", "train"] == chain(scene)
    assert (two.root / ".nmb/format").exists()
    assert "# two" in two.sh(f"git show {other['commit']}:train.py")


def linked(scene: Scene, name: str = "two") -> Scene:
    """A linked work tree beside the project."""
    scene.sh(f"git worktree add -q ../{name} -b {name}")
    return Scene(scene.root.parent / name, Path(scene.env["HOME"]))


def objects(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and len(path.name) == 64)


@pytest.mark.usefixtures("warm")
def test_weights_outlive_a_linked_worktree(torch_scene: Scene) -> None:
    """What was trained in a linked worktree is reported and trialed from the main one after `git worktree remove`."""
    torch_scene.sh("rm -rf .nmb")  # nobody has used numb in the main one
    two = linked(torch_scene)
    with untouched(torch_scene):
        run = two.trained()
    kept = objects(torch_scene.root / ".nmb/objects")

    torch_scene.sh("git worktree remove ../two")
    report = torch_scene.numb("report", run["id"])
    trial = torch_scene.numb("trial", run["id"])
    doctor = torch_scene.numb("doctor")

    assert kept and not two.root.exists()
    assert (0, 0, 0) == (report.code, trial.code, doctor.code), report.stderr + trial.stderr + doctor.stdout
    assert "*\n" == torch_scene.read(".nmb/.gitignore")
    assert kept == objects(torch_scene.root / ".nmb/objects")


@pytest.mark.usefixtures("warm")
def test_worktrees_share_their_objects(torch_scene: Scene) -> None:
    """The same weights take their room once, each worktree loads what another has trained, and deinit takes nobody's."""
    torch_scene.trained()
    kept = objects(torch_scene.root / ".nmb/objects")
    two = linked(torch_scene)

    trial = two.numb("trial @")
    again = two.numb("train --again")
    doctor = two.numb("doctor")
    torch_scene.sh("rm -rf .nmb")  # the link leads nowhere until the next command
    after = two.numb("train --again")

    assert (0, 0, 0, 0) == (trial.code, again.code, doctor.code, after.code), trial.stderr + after.stderr
    assert kept == objects(torch_scene.root / ".nmb/objects")
    assert torch_scene.root / ".nmb/objects" == (two.root / ".nmb/objects").resolve()
    assert 0 == two.numb("report @").code
    shutil.rmtree(two.root / ".nmb")
    assert kept == objects(torch_scene.root / ".nmb/objects")


HUBS = {
    "bare": ("git clone -q --bare . ../hub.git", "numb/objects"),
    "bare in .git": ("git clone -q --bare . ../hub/.git", "numb/objects"),
    "separate git dir": ("git clone -q --separate-git-dir ../apart.git . ../hub", "numb/objects"),
}


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.usefixtures("warm")
def test_worktrees_without_a_main_one(torch_scene: Scene, name: str) -> None:
    """Where git knows no main worktree, the objects of the linked ones are in the git directory that they share."""
    make, place = HUBS[name]
    torch_scene.sh(make)
    hub = torch_scene.root.parent / ("hub.git" if name == "bare" else "hub")
    torch_scene.sh(f"git -C {hub} worktree add -q ../one -b one && git -C {hub} worktree add -q ../two -b two")
    one, two = (Scene(hub.parent / each, Path(torch_scene.env["HOME"])) for each in ("one", "two"))

    one.sh("numb init")
    run = one.trained()
    common = Path(one.sh("git rev-parse --path-format=absolute --git-common-dir"))
    one.sh(f"git -C {hub} worktree remove --force ../one", check=False)
    report = two.numb("report", run["id"])

    assert not one.root.exists() and objects(common / place)
    assert 0 == report.code, report.stderr
    assert 0 == two.numb("doctor").code
    assert not (hub / ".nmb").exists()
    assert 0 == two.numb("deinit --yes").code
    assert not (common / "numb").exists()


def test_a_linked_worktree_of_a_submodule(empty: Scene) -> None:
    """Its main worktree is the submodule's."""
    empty.sh("git init -q ../inner && git -C ../inner commit -q --allow-empty -m i")
    empty.sh("git -c protocol.file.allow=always submodule --quiet add ../inner inner && git commit -qm sub")
    inner = furnished(Scene(empty.root / "inner", Path(empty.env["HOME"])))
    inner.sh("git worktree add -q ../../two -b two")
    two = Scene(empty.root.parent / "two", Path(empty.env["HOME"]))

    two.trained()

    assert inner.root / ".nmb/objects" == (two.root / ".nmb/objects").resolve()
    assert ["two"] == [run["branch"] for run in inner.runs()]


@pytest.mark.usefixtures("warm")
def test_objects_that_are_still_in_a_linked_worktree(torch_scene: Scene) -> None:
    """What an earlier numb left there is used as before; doctor tells, and --fix moves it, damaged objects as well."""
    two = linked(torch_scene)
    run = two.trained()
    shared, own = torch_scene.root / ".nmb/objects", two.root / ".nmb/objects"
    own.unlink()
    shared.rename(own)
    (own / "00").mkdir()
    (own / "00" / ("0" * 64)).write_bytes(b"damaged")
    before = objects(own)

    report = two.numb("report", run["id"])
    trained = two.numb("train --again")
    still, found, fixed = objects(own), two.numb("doctor"), two.numb("doctor --fix")
    after = two.numb("doctor")

    assert (0, 0) == (report.code, trained.code), report.stderr + trained.stderr
    assert still == before
    assert (3, True) == (found.code, f"{own} has {len(before)} objects that `git worktree remove`" in found.stdout)
    assert f"fixed: {own} has" in fixed.stdout
    assert (shared, before) == (own.resolve(), objects(shared))
    assert (3, 1) == (after.code, after.stdout.count("problem:")), after.stdout  # the damaged one
    assert 0 == torch_scene.numb("trial", run["id"]).code


def test_a_subfolder_of_a_repository(empty: Scene) -> None:
    """numb init in sub/ makes a project there; commands from it and from deeper find it, and the snapshot is everything."""
    empty.write("sub/train.py", PLAIN)
    empty.write("other.txt", "other")
    empty.sh("mkdir sub/deep && git add -A && git commit -qm first")
    sub, deep = empty.root / "sub", empty.root / "sub/deep"

    made = empty.numb("init", cwd=sub)
    first = empty.numb("train", cwd=sub)
    second = empty.numb("train --again", cwd=deep)
    report = empty.numb("report @", cwd=deep)
    above = empty.numb("list")

    runs = json.loads(empty.numb("list --json", cwd=deep).stdout)
    assert (0, 0, 0, 0, 1) == (made.code, first.code, second.code, report.code, above.code), (
        first.stderr + second.stderr
    )
    assert ["sub", "sub"] == [run["project"] for run in runs]
    assert {"sub/nmb.json", "sub/train.py", "other.txt"} == set(tree_of(empty, "numb"))
    assert (deep / f"report-{runs[1]['id']}").is_dir()
    assert "numb init" in above.stderr


def test_a_submodule_as_the_project(empty: Scene, tmp_path: Path) -> None:
    """D4: a project in a submodule has its branch in the submodule's repository; the one around it is not touched."""
    empty.sh("git init -q ../inner && git -C ../inner commit -q --allow-empty -m i")
    empty.sh("git -c protocol.file.allow=always submodule --quiet add ../inner inner && git commit -qm sub")
    inner = furnished(Scene(empty.root / "inner", Path(empty.env["HOME"])))
    with untouched(inner):
        run = inner.trained()

    assert ["root", "train"] == chain(inner)
    assert run["commit"] == inner.sh("git rev-parse numb")
    assert "" == empty.sh("git for-each-ref refs/heads/numb refs/numb")
    assert not (empty.root / ".nmb").exists()


def test_a_separate_git_dir(tmp_path: Path, home: Path) -> None:
    """D4: where .git is a file, numb follows it."""
    root = tmp_path / "project"
    root.mkdir()
    scene = Scene(root, home)
    scene.sh("git init -q --separate-git-dir ../elsewhere.git")

    furnished(scene).sh("numb train && numb report @ && numb revert @")

    assert ["root", "train", "saved"] == chain(scene)


def test_signing_is_left_alone(scene: Scene) -> None:
    """D8: with commit.gpgSign and a gpg that fails, the run is committed, unsigned."""
    scene.sh("git config commit.gpgSign true && git config tag.gpgSign true && git config gpg.program false")

    run = scene.trained()

    assert "gpgsig" not in scene.sh(f"git cat-file commit {run['commit']}")


@pytest.mark.parametrize("place", ["configured", "default"])
def test_no_hook_of_the_users_runs(scene: Scene, place: str) -> None:
    """D7: neither failing hooks nor those that plumbing fires see anything of numb."""
    hooks = scene.root.parent / "hooks" if place == "configured" else scene.root / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    names = ["pre-commit", "post-commit", "reference-transaction", "post-index-change", "post-checkout", "post-merge",
             "commit-msg", "prepare-commit-msg", "pre-auto-gc", "post-rewrite", "pre-push", "fsmonitor-watchman"]  # fmt: skip
    for name in names:
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {scene.root.parent}/canary\nexit 1\n")
        (hooks / name).chmod(0o755)
    if place == "configured":
        scene.sh("git config core.hooksPath ../hooks && git config core.fsmonitor ../hooks/fsmonitor-watchman")
    (scene.root.parent / "canary").unlink(missing_ok=True)

    out = scene.sh(
        "numb train && numb report @ && echo '#' >> trial.py && numb revert @ && numb revert --undo && numb doctor"
    )

    assert "lr 0.1" in out
    assert not (scene.root.parent / "canary").exists()


def test_nobody_is_nobody(empty: Scene) -> None:
    """D11: without a name, and with git told not to guess one, the run is committed as numb's own."""
    Path(empty.env["HOME"], ".gitconfig").unlink()
    empty.sh("git config user.useConfigOnly true && git config core.logAllRefUpdates always")
    empty.write("train.py", PLAIN)

    empty.sh("numb init && numb train")

    assert "numb <numb@localhost> numb <numb@localhost>" == empty.sh("git log -1 --format='%an <%ae> %cn <%ce>' numb")


CONFLICT = (
    "git checkout -qb other && echo '#1' >> train.py && git rm -q trial.py && git commit -qam one"
    " && git checkout -q main && echo '#2' >> train.py && echo '#2' >> trial.py && git commit -qam two"
)
UNFINISHED = {
    "merge": (f"{CONFLICT} && ! git merge -q other", "git merge --abort"),
    "rebase": (f"{CONFLICT} && ! git rebase -q other", "git rebase --abort"),
    "cherry-pick": (f"{CONFLICT} && ! git cherry-pick other", "git cherry-pick --abort"),
    "revert": (f"{CONFLICT} && ! git revert --no-edit HEAD~2", "git revert --abort"),
    "bisect": (f"{CONFLICT} && git bisect start -q && git bisect bad && git bisect good HEAD~2", "git bisect reset"),
    "am": (f"{CONFLICT} && git format-patch -1 other -o .. && ! git am -q ../*.patch", "git am --abort"),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_operation_goes_on(scene: Scene, name: str) -> None:
    """D5: numb takes the files as they stand, conflict markers included, and git's own state is byte-identical."""
    begin, abort = UNFINISHED[name]
    scene.sh(f"({begin}) >/dev/null 2>&1")
    scene.write("nmb.json", '{"train": {"command": "python run.py"}}')
    scene.write("run.py", PLAIN)
    before = scene.sh("git --no-optional-locks status --porcelain=v2")

    with untouched(scene):
        run = scene.trained()

    assert before == scene.sh("git --no-optional-locks status --porcelain=v2")
    assert scene.read("train.py").strip() == scene.sh(f"git show {run['commit']}:train.py")
    scene.sh(f"git checkout -qf HEAD nmb.json; {abort}")


def test_from_inside_a_hook(scene: Scene) -> None:
    """D21: in a pre-commit hook, with GIT_DIR and GIT_INDEX_FILE set, the commit that is being made is not touched."""
    scene.write(".git/hooks/pre-commit", "#!/bin/sh\nenv | grep ^GIT_ > seen.ignored\nexec numb train\n").chmod(0o755)
    scene.sh("echo '# staged' >> train.py && git add train.py && echo '# not staged' >> train.py")

    scene.sh("git commit -qm hooked")

    (run,) = scene.runs()
    assert "GIT_INDEX_FILE" in scene.read("seen.ignored")
    assert "# not staged" in scene.sh(f"git show {run['commit']}:train.py")
    assert "# staged" == scene.sh("git show HEAD:train.py | tail -1")
    assert "train.py" == scene.sh("git show --format= --name-only HEAD")


def test_from_a_rebase(scene: Scene) -> None:
    """D21: `git rebase --exec 'numb train'` tests each commit; the rebase ends as without numb."""
    scene.sh('for n in 1 2; do echo "# $n" >> train.py; git commit -qam $n; done')

    scene.sh("git rebase -q --exec 'numb train --again' HEAD~2 2>&1")

    ends = [scene.sh(f"git show {run['commit']}:train.py | tail -1") for run in scene.runs()]
    assert ["# 1", "# 2"] == ends
    assert "2\n1" == scene.sh("git log -2 --format=%s")


def test_variables_that_lead_git_elsewhere(scene: Scene, tmp_path: Path) -> None:
    """D21: whatever GIT_ variable is set, numb looks at the repository that it is in, and the script inherits them."""
    scene.sh("git init -q ../decoy && git -C ../decoy commit -q --allow-empty -m decoy")
    scene.write("train.py", "import os; print(os.environ['GIT_DIR'], os.environ['GIT_INDEX_FILE'])")
    decoy = scene.root.parent / "decoy"
    led = {
        "GIT_DIR": f"{decoy}/.git", "GIT_WORK_TREE": str(decoy), "GIT_INDEX_FILE": "/nowhere", "GIT_PREFIX": "x/",
        "GIT_OBJECT_DIRECTORY": f"{decoy}/.git/objects", "GIT_NAMESPACE": "n", "GIT_COMMON_DIR": f"{decoy}/.git",
        "GIT_CONFIG_PARAMETERS": "'core.bare'='true'", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.bare",
        "GIT_CONFIG_VALUE_0": "true", "GIT_LITERAL_PATHSPECS": "1", "GIT_TRACE": "1", "GIT_ICASE_PATHSPECS": "1",
        "GIT_EXTERNAL_DIFF": "false", "GIT_DEFAULT_HASH": "sha256", "GIT_AUTHOR_DATE": "nonsense", "GIT_EXEC_PATH": "/x",
    }  # fmt: skip

    with untouched(scene):
        done = [
            scene.numb(words, env=led)
            for words in ("train", "list", "show @ --patch", "report @ --into ../r", "doctor")
        ]

    assert [0, 0, 0, 0, 0] == [d.code for d in done], [d.stderr for d in done]
    assert f"{decoy}/.git /nowhere\n" == done[0].stdout
    assert ["root", "train"] == chain(scene)
    assert "" == scene.sh("git -C ../decoy for-each-ref refs/heads/numb refs/numb")


@pytest.mark.parametrize("world", [world for world in WORLDS if world != "plain"])
def test_folders_with_strange_names(tmp_path: Path, home: Path, world: str) -> None:
    """A project may lie in a folder of any name: every command works there."""
    root = tmp_path / WORLDS[world]
    root.mkdir()
    scene = Scene(root, home)
    scene.sh("git init -q")
    furnished(scene)

    scene.sh(
        "numb train && numb list && numb show @ && numb report @ && echo x > trial.py && numb revert @ && numb doctor"
    )

    assert ["root", "train", "saved"] == chain(scene)
    assert PLAIN.lstrip() == scene.read("trial.py")


NOT_WORK_TREES = {
    "bare": ("git init -q --bare bare.git", "bare.git", "this is a git repository without a work tree"),
    "inside .git": (":", ".git", "this is a git repository without a work tree"),
    "no repository": ("mkdir -p ../outside", "../outside", "not a git repository"),
    "sha256": ("git init -q --object-format=sha256 s", "s", "this repository names its objects by sha256"),
}


@pytest.mark.parametrize("name", NOT_WORK_TREES)
@pytest.mark.parametrize("command", ["init", "train", "list"])
def test_where_numb_cannot_work(empty: Scene, name: str, command: str) -> None:
    """D3, D22: one line that says what is wrong and one that says what to do; nothing is created."""
    make, where, said = NOT_WORK_TREES[name]
    empty.sh(make)
    folder = (empty.root / where).resolve()
    before = sorted(folder.rglob("*"))

    done = empty.numb(command, cwd=folder)

    first, hint = done.stderr.splitlines()
    assert (1, "") == (done.code, done.stdout)
    assert first.startswith(f"numb: {said}") and hint.startswith("      try: ")
    assert before == sorted(folder.rglob("*"))


def test_a_shared_repository(empty: Scene) -> None:
    """C6: objects, refs and reflogs follow core.sharedRepository whatever the umask."""
    empty.sh("git init -q --shared=group")

    empty.sh("umask 077; echo 'print(1)' > train.py; numb init && numb train")

    inside = [path for path in (empty.root / ".git").rglob("*") if path.is_file() and "numb" in path.parts[-2:]]
    commit = empty.sh("git rev-parse numb")
    inside.append(empty.root / ".git/objects" / commit[:2] / commit[2:])
    assert 3 == len(inside)
    assert {0o040} == {path.stat().st_mode & 0o040 for path in inside}


def test_a_shallow_clone(scene: Scene) -> None:
    """D22: numb works in a shallow clone, takes the branch over from the remote, and goes on from there."""
    scene.trained()
    home = Path(scene.env["HOME"])
    scene.sh(f"git clone -q --depth 1 --no-single-branch 'file://{scene.root}' ../shallow")
    shallow = Scene(scene.root.parent / "shallow", home)

    shallow.sh("numb init && numb train --again && numb doctor")

    assert [scene.sh("git rev-parse numb")] == shallow.sh("git rev-parse numb^").split()
    assert 2 == len(shallow.runs())


def test_gc_during_a_training(scene: Scene) -> None:
    """B4: packing, pruning and rewriting history while a run is in flight lose nothing of it."""
    scene.trained(lr=0.5)
    scene.write(
        "train.py",
        "import subprocess\nsubprocess.run('git commit -qam during; git commit -q --amend -m amended; git pack-refs --all;"
        " git reflog expire --expire=now --all; git gc -q --prune=now', shell=True, check=True)\n",
    )
    scene.sh("echo untracked > untracked.txt")

    done = scene.numb("train")

    assert 0 == done.code, done.stderr
    assert "untracked" == scene.sh("git show numb:untracked.txt")
    assert ["root", "train", "train"] == chain(scene)
    assert "amended" == scene.sh("git log -1 --format=%s main")
    scene.sh("git gc -q --prune=now && git fsck --strict --no-dangling && numb train --again && numb doctor")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_foreign_owner(scene: Scene) -> None:
    """C5: git's own message about the owner is passed on with its remedy."""
    scene.sh("chown -R nobody .")

    done = [scene.numb(command) for command in ("list", "train", "init", "doctor")]

    assert [1, 1, 1, 1] == [d.code for d in done]
    for d in done:
        assert "numb: detected dubious ownership in repository at" in d.stderr
        assert f"try: git config --global --add safe.directory {scene.root}" in d.stderr


def test_a_git_in_the_current_folder_is_not_run(scene: Scene) -> None:
    """D23: with `.` on PATH, a file called git that a clone brings along is never executed by numb."""
    scene.write("git", "#!/bin/sh\ntouch ../canary\nexit 1\n").chmod(0o755)
    path = {"PATH": f".{os.pathsep}{os.pathsep}{scene.env['PATH']}"}

    done = [scene.numb(words, env=path) for words in ("init", "train", "list", "show @", "report @", "doctor")]

    assert [0] * 6 == [d.code for d in done], [d.stderr for d in done]
    assert not (scene.root.parent / "canary").exists()


def test_without_git(scene: Scene) -> None:
    """D23: exit code 127, and the version that is needed."""
    done = scene.numb("list", env={"PATH": "/nowhere"})

    assert 127 == done.code
    assert "numb: git is not installed, or not on PATH\n      try: install git 2.36 or later\n" == done.stderr


@pytest.mark.parametrize("where", ["here", "in another worktree"])
def test_a_checked_out_branch_is_not_moved(scene: Scene, where: str) -> None:
    """B5: the run is kept and pinned, status stays clean, and after switching away doctor publishes it."""
    scene.trained(lr=0.5)
    if where == "here":
        files = {name: scene.read(name) for name in ("train.py", "trial.py", "nmb.json", ".gitignore")}
        scene.sh("git switch -q numb")
        for name, text in files.items():
            scene.write(name, text)
    else:
        scene.sh("git worktree add -q ../lab numb")
    there = scene.root if where == "here" else scene.root.parent / "lab"
    tip, status = scene.sh("git rev-parse numb"), scene.sh(f"git -C '{there}' status --porcelain")

    done = scene.numb("train")
    pinned = scene.sh("git for-each-ref --format='%(refname:lstrip=3)' refs/numb/pins")
    moved = (scene.sh("git rev-parse numb"), scene.sh(f"git -C '{there}' status --porcelain"))
    stuck = scene.numb("doctor --fix")
    scene.sh("git switch -qf main" if where == "here" else "git worktree remove -f ../lab")
    fixed = scene.numb("doctor --fix")

    assert (125, "lr 0.1\n") == (done.code, done.stdout) or (1, "lr 0.1\n") == (done.code, done.stdout)
    assert f"numb: branch numb is checked out in {there}, so it is not moved; the run is safe in .nmb" in done.stderr
    assert "try: git switch -, then: numb doctor --fix" in done.stderr
    assert (tip, status) == moved
    assert 3 == stuck.code
    assert 0 == fixed.code, fixed.stdout
    assert [pinned] == [run["id"] for run in scene.runs()[1:]]
    assert ["root", "train", "train"] == chain(scene)
    assert "" == scene.sh("git for-each-ref refs/numb")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("git branch numb/x", "branch numb/x makes a branch numb impossible"),
        ("git branch numb", "there is a branch numb that numb did not make"),
    ],
)
def test_a_name_that_is_taken(empty: Scene, make: str, said: str) -> None:
    """B6: init refuses before it creates anything; with --branch lab everything works end to end."""
    empty.write("train.py", PLAIN)
    empty.sh(f"git add -A && git commit -qm first && {make}")
    before = users(empty)

    refused = empty.numb("init")
    after = users(empty)
    made = empty.numb("init --branch lab")
    empty.sh("numb train && numb list && numb report @ && numb revert @ && numb revert --undo && numb doctor")
    gone = empty.numb("deinit --yes")

    assert (1, f"numb: {said}\n      try: numb init --branch lab\n") == (refused.code, refused.stderr)
    assert before == after
    assert not (empty.root / "nmb.json").exists() and not (empty.root / ".nmb").exists()
    assert (0, 0) == (made.code, gone.code), made.stderr
    assert before["refs"] == empty.sh("git for-each-ref | grep -v -e refs/heads/lab -e refs/heads/numb || true")
    assert 1 == int(empty.sh(f"git for-each-ref refs/heads/{make.split()[-1]} | wc -l"))
    assert "" == empty.sh("git for-each-ref refs/heads/lab refs/numb")


def test_a_branch_below_appears_later(scene: Scene) -> None:
    """B6: when numb's branch has gone and numb/x stands in its place, the run is kept and said, and published later."""
    scene.trained(lr=0.5)
    tip = scene.sh("git rev-parse numb")
    scene.sh("git branch -qD numb && git branch numb/x main")

    done = scene.numb("train")
    scene.sh("git branch -m numb/x other")
    fixed = scene.numb("doctor --fix")

    assert "lr 0.1\n" == done.stdout and done.code
    assert "branch numb/x makes a branch numb impossible; the run is safe in .nmb" in done.stderr
    assert "try: git branch -m numb/x another-name, then: numb doctor --fix" in done.stderr
    assert 0 == fixed.code, fixed.stdout
    assert tip == scene.sh("git rev-parse numb~1")
    assert 2 == len(scene.runs())


@pytest.mark.parametrize("command", ["train", "deinit --yes"])
def test_a_config_that_names_the_users_branch(scene: Scene, command: str) -> None:
    """An nmb.json that names a branch of the user's neither moves it nor deletes it."""
    scene.sh("git branch precious")
    settings = json.loads(scene.read("nmb.json"))
    scene.write("nmb.json", json.dumps({**settings, "branch": "precious"}))
    before = scene.sh("git rev-parse precious")

    done = scene.numb(command)

    assert 0 != done.code
    assert "there is a branch precious that numb did not make" in done.stderr
    assert before == scene.sh("git rev-parse precious")


@pytest.mark.parametrize("name", ["-x", "a..b", "a b", "@{-1}", "x.lock", "/x", "a\nb", "HEAD~1"])
def test_names_that_no_branch_can_have(empty: Scene, name: str) -> None:
    """init refuses them and creates nothing."""
    done = empty.numb("init", f"--branch={name}")

    assert 2 == done.code, done.stderr
    assert not (empty.root / "nmb.json").exists() and not (empty.root / ".nmb").exists()


def left_behind(scene: Scene) -> str:
    """A run whose launcher and script were killed: it is in .nmb/runs and nowhere else."""
    scene.write("slow.py", "open('on.ignored', 'w').close(); __import__('time').sleep(60)")
    scene.write("nmb.json", '{"train": {"command": "python slow.py"}}')
    worker = scene.start("train")
    scene.sh("timeout 30 bash -c 'until [ -e on.ignored ]; do sleep 0.05; done'")
    scene.sh(f"kill -9 -- -{worker.pid}; rm on.ignored")
    worker.communicate()
    return scene.sh("ls .nmb/runs")


def test_deinit_says_whose_runs_it_destroys(scene: Scene) -> None:
    """Runs that are not on the branch yet, other projects of the same branch and other worktrees are named before."""
    scene.trained(lr=0.5)
    scene.write("sub/train.py", PLAIN)
    scene.write("sub/nmb.json", '{"train": {"command": "python train.py"}}')
    scene.write("new/nmb.json", "{}")
    scene.write("lab/nmb.json", '{"branch": "lab"}')
    sub = scene.root / "sub"
    for folder, words in ((sub, "train"), (scene.root / "lab", "init")):
        assert 0 == scene.numb(words, cwd=folder).code
    linked(scene).trained(lr=0.7)
    left = left_behind(scene)
    tip = scene.sh("git rev-parse numb")

    asked = scene.numb("deinit")
    done = scene.numb("deinit --yes")

    lines = asked.stderr.splitlines()
    assert (1, 0) == (asked.code, done.code), done.stderr
    assert lines[0].startswith("This destroys 3 runs, 1 not on the branch yet and ")
    two = scene.root.parent / "two"
    assert f"{scene.root}/nmb.json, {scene.root}/.nmb, {two}/.nmb, and branch numb at {tip}." == lines[1]
    assert "Other projects lose theirs too: new (0 runs), sub (1 run)" == lines[2]
    assert f"Other work trees lose theirs too: {two}" == lines[3]
    assert left and not (scene.root / ".nmb").exists() and (sub / "nmb.json").exists()
    assert (two / "nmb.json").exists() and not (two / ".nmb").exists()
    assert "lab\nmain\ntwo" == scene.sh("git for-each-ref --format='%(refname:short)' refs/heads")


def test_deinit_waits_for_a_run_in_another_worktree(scene: Scene) -> None:
    """Its weights go to the folder that deinit would remove."""
    two = linked(scene)
    two.write("train.py", "open('on.ignored', 'w').close(); open('go.ignored').read()")
    two.sh("mkfifo go.ignored")
    flying = two.start("train")
    two.sh("timeout 30 bash -c 'until [ -e on.ignored ]; do sleep 0.05; done'")

    refused = scene.numb("deinit --yes")
    two.sh("echo > go.ignored")
    flying.communicate(timeout=60)

    assert (1, True) == (refused.code, f"a run is still in flight in {two.root}" in refused.stderr)
    assert 1 == len(scene.runs())


def test_deinit_without_settings(scene: Scene) -> None:
    """When nmb.json has gone, what is left of numb is found, named and removed."""
    scene.trained(lr=0.5)
    tip = scene.sh("rm nmb.json; git rev-parse numb")

    done, again = scene.numb("deinit --yes"), scene.numb("deinit --yes")

    assert (0, 0) == (done.code, again.code)
    assert "This destroys 1 run and " in done.stderr
    assert f"\n{scene.root}/.nmb, and branch numb at {tip}.\n" in done.stderr
    assert "numb: there is nothing to remove here\n" == again.stderr
    assert not (scene.root / ".nmb").exists()
    assert "main" == scene.sh("git for-each-ref --format='%(refname:short)'")


def test_deinit_without_settings_guesses_nothing(scene: Scene) -> None:
    """What may belong to a project in another folder, or to a branch of another name, is left, and said."""
    scene.trained(lr=0.5)
    scene.sh("git branch -m numb lab && mkdir sub && mv nmb.json sub/")
    elsewhere = scene.numb("deinit --yes")
    scene.sh("rm sub/nmb.json")
    renamed = scene.numb("deinit --yes")

    assert (1, True) == (elsewhere.code, f"try: cd {scene.root}/sub\n" in elsewhere.stderr)
    assert (1, True) == (renamed.code, "the branch of the runs may be lab" in renamed.stderr)
    assert (scene.root / ".nmb").exists() and scene.sh("git rev-parse lab")


def test_a_deleted_branch_goes_on(scene: Scene) -> None:
    """I5: after `git branch -D numb` the next run continues from the last known tip, so that no run is lost."""
    scene.trained(lr=0.5)
    tip = scene.sh("git rev-parse numb")
    scene.sh("git branch -qD numb")

    scene.trained(lr=0.6)

    assert tip == scene.sh("git rev-parse numb~1")
    assert [0.5, 0.6] == [run["params"]["lr"] for run in scene.runs()]


LOSE = "git branch -qD numb && git reflog expire --expire=now --all && git gc -q --prune=now"


def test_a_deleted_branch_and_a_deleted_object(scene: Scene) -> None:
    """I5: where the last tip is gone too, a new branch begins, and what the listing knows is marked and not relied on."""
    scene.trained(lr=0.5)
    scene.sh("git clone -q --no-hardlinks --mirror . ../elsewhere")
    scene.sh("git branch -qD numb")
    deleted = scene.numb("list")
    scene.sh("git branch -q numb $(git -C ../elsewhere rev-parse numb)")
    scene.sh(LOSE)

    gone, reason, fixed = scene.numb("list"), scene.numb("doctor"), scene.numb("doctor --fix")
    scene.trained(lr=0.6)
    listed, patch = scene.numb("list"), scene.numb("show @-1 --patch")
    scene.sh("git fetch -q ../elsewhere numb:found")
    back = scene.numb("list")

    assert "numb: branch numb is gone: numb doctor\n" == deleted.stderr
    assert "complete, lost by git" in gone.stdout
    said = "numb: git has lost the commits of 1 run, of which this is what is left: numb doctor\n"
    assert "numb: branch numb is gone: numb doctor\n" + said == gone.stderr
    assert (3, 3, True) == (reason.code, fixed.code, "git fetch PATH numb:numb" in reason.stdout)
    heads = [line for line in fixed.stdout.splitlines() if not line.startswith(" ")]
    assert [True, True] == [
        line.startswith(begins)
        for line, begins in zip(heads, ("fixed: branch numb is gone", "problem: git has lost"), strict=True)
    ]
    assert ["root", "train"] == chain(scene)
    assert (1, said) == (listed.stdout.count("lost by git"), listed.stderr)
    assert (1, True) == (patch.code, patch.stderr.startswith("numb: git has lost the commit of "))
    assert ("", False) == (back.stderr, "lost" in back.stdout)
    scene.sh("git fsck --strict --no-dangling")


@pytest.mark.usefixtures("warm")
def test_a_run_that_git_has_lost_is_not_done(torch_scene: Scene) -> None:
    """With its commit gone a run is no reason not to train again, nor one to trial."""
    torch_scene.trained()
    torch_scene.sh(LOSE)

    trained, trialed = torch_scene.numb("train"), torch_scene.numb("trial --all")

    assert (0, 0) == (trained.code, trialed.code), trained.stderr + trialed.stderr
    assert ["complete", "complete"] == [run["status"] for run in torch_scene.runs()]
    assert [0, 1] == [len(run["trials"]) for run in torch_scene.runs()]


def test_projects_of_one_repository_are_listed_apart(scene: Scene) -> None:
    """`list` and @ mean the runs of the project where they are typed; the others are one flag away, and an id finds any."""
    here = scene.trained(lr=0.5)
    scene.write("sub/train.py", PLAIN)
    scene.write("sub/nmb.json", '{"train": {"command": "python train.py"}}')
    sub = scene.root / "sub"
    scene.numb("train", cwd=sub)

    listed, there = scene.numb("list"), scene.numb("list", cwd=sub)
    everything, newest = scene.numb("list --all-projects"), scene.numb("show @ --json")
    other = json.loads(scene.numb("list --json", cwd=sub).stdout)

    assert [here] == scene.runs() and ["sub"] == [run["project"] for run in other]
    assert "numb: 1 run of other projects (sub) not shown: numb list --all-projects\n" == listed.stderr
    assert (1, 1) == (listed.stdout.count("complete"), there.stdout.count("complete"))
    assert (2, "", True) == (everything.stdout.count("complete"), everything.stderr, "project" in everything.stdout)
    assert here["id"] == json.loads(newest.stdout)["id"]
    assert 0 == scene.numb("show", other[0]["id"]).code


def test_a_dead_pin_disturbs_nobody(scene: Scene) -> None:
    """I6: a pin whose commit has gone is dropped by doctor, and the user's own git works meanwhile."""
    scene.trained(lr=0.5)
    pin = scene.root / ".git/refs/numb/pins/20260101-000000-aaaa"
    pin.parent.mkdir(parents=True, exist_ok=True)
    pin.write_text("1" * 40 + "\n")

    trained = scene.numb("train")
    fixed = scene.numb("doctor --fix")

    assert (0, 0) == (trained.code, fixed.code), trained.stderr + fixed.stdout
    assert not pin.exists()


def test_a_tag_is_an_id(scene: Scene) -> None:
    """A tag of the user's, annotated or not, names the run whose commit it points to."""
    run = scene.trained(lr=0.5)
    scene.sh("git tag best numb && git tag -m note noted numb && git tag main-tag main")

    shown = [scene.numb("show", name, "--json") for name in ("best", "noted", "main-tag")]

    assert [0, 0, 1] == [d.code for d in shown]
    assert [run["id"], run["id"]] == [json.loads(d.stdout)["id"] for d in shown[:2]]


HOSTILE = [
    "../../x", "a/../../b", "-rf", "--upload-pack=touch canary", "x\n", "20260101-000000-aaaa\n", "x" * 10_000, "\u202egpj.exe",
    "@{-1}", "@-99999999999", "HEAD", "numb^{tree}", ":/", "%2e%2e", "run.lock", "con", "", " ", "*", "_", "'; touch canary; '",
    "$(touch canary)", "refs/heads/main", "@-x", "\x1b[2J",
]  # fmt: skip
TAKING = [("show",), ("show", "--log"), ("show", "--patch"), ("revert",), ("report",), ("trial",)]


@pytest.mark.parametrize("words", TAKING, ids=" ".join)
def test_hostile_ids(scene: Scene, words: tuple[str, ...]) -> None:
    """G3: no command does anything with what is not an id but say so; nothing is created, run or changed."""
    scene.trained(lr=0.5)
    scene.trained(lr=0.6)
    before, tip = users(scene), scene.sh("git rev-parse numb")
    around = sorted(scene.root.parent.iterdir())

    done = {
        text: scene.numb(*words, "--", text) if words[0] != "trial" else scene.numb("trial", text) for text in HOSTILE
    }

    assert set() == {text for text, d in done.items() if d.code not in (1, 2) and (words[0], text) != ("trial", "")}
    assert "" == "".join(d.stdout for text, d in done.items() if text)
    assert not [
        text for text, d in done.items() if "Traceback" in d.stderr or "\x1b" in d.stderr or "\u202e" in d.stderr
    ]
    assert (before, tip, around) == (users(scene), scene.sh("git rev-parse numb"), sorted(scene.root.parent.iterdir()))


def test_hostile_ids_from_a_notebook(scene: Scene) -> None:
    """G3 without a shell in between: NUL and surrogates get the same answer."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in scene.env.items():
            patch.setenv(name, value)
        project = Project.open(scene.root)
        for text in [*HOSTILE, "a\0b", "\ud800", "\uffff"]:
            with pytest.raises(NumbError, match=r"run|say"):
                project.find(text)


def test_messages_cannot_forge_facts(scene: Scene) -> None:
    """J9: a message that looks like trailers or holds control characters changes no fact and breaks no commit."""
    message = "fine\n\nNumb-Kind: root\nNumb-Run: 20200101-000000-aaaa\nNumb-Status: lost\x1b[2J\x01"

    done = scene.numb("train", "-m", message)

    (run,) = scene.runs()
    assert 0 == done.code, done.stderr
    assert (message, "complete") == (run["message"], run["status"])
    trailers = scene.sh(
        "git log -1 --format='%(trailers:key=Numb-Run,valueonly)%(trailers:key=Numb-Kind,valueonly)' numb"
    )
    assert f"{run['id']}\ntrain" == trailers
    scene.sh("git fsck --strict --no-dangling")


def test_a_hostile_tree_from_elsewhere(scene: Scene) -> None:
    """J3: names like `..` and `.git`, links and folders in a record from elsewhere are never followed or written."""
    run = scene.trained(lr=0.5)
    scene.write("../evil", "evil")
    scene.sh(
        """
        blob=$(echo evil | git hash-object -w --stdin)
        record=$(git ls-tree numb .nmb/run/ | grep record.json | cut -f1 | cut -d' ' -f3)
        link=$(printf /etc/passwd | git hash-object -w --stdin)
        run=$(printf '100644 blob %s\\trecord.json\\n120000 blob %s\\toutput.log\\n100644 blob %s\\t.git\\n100644 blob %s\\t..\\n100755 blob %s\\trun.sh\\n' $record $link $blob $blob $blob | git mktree)
        nmb=$(printf '040000 tree %s\\trun\\n' $run | git mktree)
        hooks=$(printf '100755 blob %s\\tpost-checkout\\n' $blob | git mktree)
        up=$(printf '040000 tree %s\\t..\\n100644 blob %s\\tx\\n' $hooks $blob | git mktree)
        tree=$(printf '040000 tree %s\\t.nmb\\n040000 tree %s\\t.git\\n040000 tree %s\\tsub\\n100644 blob %s\\ttrain.py\\n' $nmb $hooks $up $blob | git mktree)
        commit=$(printf 'train evil\\n\\nNumb-Kind: train\\n' | git commit-tree $tree -p numb)
        git update-ref refs/heads/numb $commit
        """
    )
    before, around = users(scene), sorted(scene.root.parent.rglob("*.git"))

    shown = scene.numb("show", run["id"], "--log")
    report = scene.numb("report", run["id"], "--into", "../report")
    reverted = scene.numb("revert", run["id"])
    exported = scene.numb("revert", run["id"], "--worktree", "../export")

    assert (0, 0) == (shown.code, report.code), report.stderr
    assert "root:" not in shown.stdout
    inside = {str(path.relative_to(scene.root.parent / "report")) for path in (scene.root.parent / "report").rglob("*")}
    assert inside <= {"record.json", "params.json", "results.json", "changes.patch", ".gitignore", "README.md"}
    assert (125, 125) == (reverted.code, exported.code)
    after = users(scene)
    assert before == after
    assert around == sorted(scene.root.parent.rglob("*.git"))
    assert not (scene.root / "post-checkout").exists() and not (scene.root.parent / "export").exists()


def test_a_clone_with_a_ready_made_store(scene: Scene) -> None:
    """J4, D14: a tracked .nmb, a .nmb that is a link, a nasty command: looking runs nothing and writes nothing outside."""
    scene.trained(lr=0.5)
    outside = scene.root.parent / "outside"
    outside.mkdir()
    scene.write("nmb.json", '{"train": {"command": "touch ../canary"}, "trial": {"command": "touch ../canary"}}')
    looking = ["list", "show @", "show @ --patch", "report @ --into ../r", "revert @", "doctor"]
    done = [scene.numb(words) for words in looking]
    shutil.rmtree(scene.root / ".nmb")
    (scene.root / ".nmb").symlink_to(outside)
    refused = [scene.numb(words) for words in (*looking, "train", "init")]

    assert [0] * 6 == [d.code for d in done], [d.stderr for d in done]
    assert [1] * 8 == [d.code for d in refused]
    assert all("is a symbolic link, which numb does not follow" in d.stderr for d in refused)
    assert not (scene.root.parent / "canary").exists()
    assert [] == list(outside.iterdir())


def test_the_users_diff_configuration_is_not_ours(scene: Scene, tmp_path: Path) -> None:
    """A run's patch is what `git apply` reads, and the branch can be read, whatever the user has configured for display."""
    scene.sh("echo '# more' >> train.py")
    for name, value in {
        "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.external": "touch ../canary", "diff.context": "0",
        "color.ui": "always", "core.pager": "touch ../canary", "log.showSignature": "true", "diff.renames": "copies",
        "format.pretty": "oneline", "log.date": "relative", "diff.orderFile": "/nowhere", "diff.submodule": "diff",
        "status.showUntrackedFiles": "no", "diff.ignoreSubmodules": "all", "log.follow": "true", "diff.relative": "true",
        "status.branch": "true", "status.short": "true", "column.ui": "always", "alias.update-index": "!touch ../canary",
    }.items():  # fmt: skip
        scene.sh(f"git config {name} '{value}'")

    run = scene.trained()
    patch = scene.numb("show @ --patch").stdout
    changed = scene.sh("echo '# now' >> trial.py && numb revert @ 2>&1 && numb doctor")

    (tmp_path / "patch").write_text(patch)
    scene.sh(
        f"git worktree add -q --detach ../clean && cd ../clean && git apply ../patch && cmp train.py '{scene.root}/train.py'"
    )
    assert "complete" == run["status"]
    assert "1 files changed" in changed
    assert not (tmp_path / "canary").exists()


def test_the_shim_counts(scene: Scene, tmp_path: Path) -> None:
    """The kit itself: the git commands of a numb command go through the wrapper, each once, and none is `git commit`."""
    shim = Shim(scene, tmp_path / "shim")

    done = shim.numb("train")

    commands = {re.findall(r"(?:-c \S+|--\S+|\s)* ([a-z-]+)", call)[0] for call in shim.calls}
    assert 0 == done.code, done.stderr
    assert 10 < len(shim.calls) < 40
    assert {"ls-files", "update-index", "write-tree", "hash-object", "update-ref"} < commands
    assert set() == commands & PORCELAIN


PORCELAIN = {
    "commit",
    "add",
    "stash",
    "reset",
    "checkout",
    "clean",
    "branch",
    "switch",
    "restore",
    "merge",
    "gc",
    "tag",
}
