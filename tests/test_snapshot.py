"""A snapshot is what `git add -A` records, to the letter, and nothing of the user's changes while it is taken."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Scene
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kit import add_all, every_object, sealed_here, shoot, tree_of, untouched, users

from numb import gitstore
from numb.gitstore import GitStore
from numb.record import Nested

UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")  # root who obeys permissions


@pytest.fixture
def files(empty: Scene) -> Scene:
    """A repository with a few committed files, and no numb in it yet."""
    empty.write(".gitignore", "*.ignored\n.nmb/\n")
    empty.sh("echo a > a.txt && echo b > b.txt && mkdir d && echo c > d/c.txt && echo e > d/e.txt && touch empty")
    empty.sh("git add -A && git commit -qm first")
    return empty


@dataclass(frozen=True)
class Case:
    """What somebody does after the first snapshot, and what they would have to say to git before `git add -A` sees it."""

    does: str
    oracle: str = ":"


CASES = {
    "nothing": Case(":"),
    "staged and unstaged": Case("echo 1 > a.txt && git add a.txt && echo 2 > a.txt"),
    "staged and put back": Case("echo 1 > a.txt && git add a.txt && echo a > a.txt"),
    "untracked": Case("echo new > new.txt && mkdir -p deep/er && echo new > deep/er/new.txt"),
    "ignored": Case("echo secret > x.ignored && mkdir out.ignored && echo x > out.ignored/x"),
    "an empty directory": Case("mkdir void"),
    "deleted": Case("rm a.txt && rm -r d"),
    "deleted and staged": Case("git rm -q a.txt"),
    "out of the index only": Case("git rm -q --cached a.txt"),
    "out of the index and ignored": Case("git rm -q --cached a.txt && echo a.txt >> .git/info/exclude"),
    "added and deleted": Case("echo x > x && git add x && rm x"),
    "executable": Case("chmod +x a.txt && echo x > x && chmod 755 x"),
    "executable, where modes do not count": Case(
        "git config core.fileMode false && git update-index --chmod=+x a.txt && chmod +x b.txt && echo 1 >> d/c.txt"
    ),
    "a link": Case("ln -s a.txt link && ln -s d dirlink"),
    "a dangling link": Case("ln -s nowhere link"),
    "a loop of links": Case("ln -s loop loop && ln -s .. d/up"),
    "a link to outside": Case("mkdir ../outside && echo secret > ../outside/f && ln -s ../outside data"),
    "a link becomes a directory": Case("ln -s d l && git add l && git commit -qm l && rm l && mkdir l && echo x > l/x"),
    "a directory becomes a link": Case("mv d e && ln -s e d"),
    "a directory becomes a link to outside": Case(
        "mkdir ../outside && mv d/* ../outside && rmdir d && ln -s ../outside d"
    ),
    "a deep directory becomes a link": Case(
        "mkdir -p p/q && echo 1 > p/q/1 && echo 2 > p/q/2 && git add p && git commit -qm p && mv p r && ln -s r p"
    ),
    "a file becomes a directory": Case("rm a.txt && mkdir a.txt && echo x > a.txt/x"),
    "a directory becomes a file": Case("rm -r d && echo d > d"),
    "a file becomes a link": Case("rm a.txt && ln -s b.txt a.txt"),
    "a link becomes a file": Case("ln -s a.txt l && git add l && git commit -qm l && rm l && echo a > l"),
    "renamed": Case("git mv a.txt z.txt && mv b.txt y.txt"),
    "case twins": Case("echo 1 > A.txt && echo 2 > D"),
    "ignored but tracked": Case("echo 1 > k.ignored && git add -f k.ignored && git commit -qm k && echo 2 > k.ignored"),
    "ignored but staged": Case("echo 1 > k.ignored && git add -f k.ignored && echo 2 > k.ignored"),
    "assume-unchanged": Case(
        "git update-index --assume-unchanged a.txt b.txt && echo 1 > a.txt && rm b.txt",
        "git update-index --no-assume-unchanged a.txt b.txt",
    ),
    "skip-worktree, edited": Case(
        "git update-index --skip-worktree a.txt && echo 1 > a.txt", "git update-index --no-skip-worktree a.txt"
    ),
    "skip-worktree, absent": Case("git update-index --skip-worktree a.txt && rm a.txt"),
    "intent to add": Case("echo x > x && git add -N x && echo y > y && git add -N y && rm y"),
    "a sparse checkout": Case("git sparse-checkout set --cone && echo 1 > b.txt && echo new > new"),
    "a sparse checkout of patterns": Case("git sparse-checkout set --no-cone /a.txt && echo 1 > a.txt && echo n > new"),
    "a sparse index": Case(
        "git config index.sparse true && git sparse-checkout set --cone && git sparse-checkout reapply && echo 1 > b.txt"
    ),
    "a split index": Case("git config core.splitIndex true && git update-index --split-index && echo 1 > a.txt"),
    "an untracked cache": Case("git update-index --untracked-cache && git status -s && echo 1 > a.txt && echo n > new"),
    "nested .gitignore": Case(
        "printf '*.log\\n!keep.log\\n' > d/.gitignore && touch d/x.log d/keep.log x.log && mkdir q && echo '*' > q/.gitignore"
        " && touch q/x"
    ),
    "ignored elsewhere": Case(
        "echo one > .git/info/exclude && git config core.excludesFile ~/ignore && echo two > ~/ignore && touch one two three"
    ),
    "it became ignored": Case("git rm -q --cached b.txt && echo b.txt >> .gitignore"),
    "a conflict": Case(
        "git checkout -qb other && echo 1 > a.txt && git rm -q b.txt && git commit -qam 1 && git checkout -q main"
        " && echo 2 > a.txt && echo 2 > b.txt && git commit -qam 2 && ! git merge -q other"
    ),
    "an index that is not there": Case("rm .git/index"),
    "a locked index": Case("touch .git/index.lock && echo 1 > a.txt", "rm .git/index.lock"),
    "a submodule that is not checked out": Case(
        "git init -q ../sub && git -C ../sub commit -q --allow-empty -m s && git -c protocol.file.allow=always"
        " submodule --quiet add ../sub sub && git commit -qm sub && git submodule --quiet deinit -f sub"
    ),
    "a submodule that was added and emptied": Case(
        "git init -q ../sub && git -C ../sub commit -q --allow-empty -m s && git -c protocol.file.allow=always"
        " submodule --quiet add ../sub sub && git submodule --quiet deinit -f sub"
    ),
    "a submodule that was deleted": Case(
        "git init -q ../sub && git -C ../sub commit -q --allow-empty -m s && git -c protocol.file.allow=always"
        " submodule --quiet add ../sub sub && git commit -qm sub && rm -rf sub"
    ),
    "a submodule's new commit": Case(
        "git init -q ../sub && git -C ../sub commit -q --allow-empty -m s && git -c protocol.file.allow=always"
        " submodule --quiet add ../sub sub && git commit -qm sub && git -C sub commit -q --allow-empty -m two"
    ),
    "an embedded repository": Case("git init -q lib && git -C lib commit -q --allow-empty -m l"),
    "autocrlf": Case("git config core.autocrlf true && printf '1\\r\\n2\\r\\n' > crlf && echo 1 >> a.txt"),
    "attributes": Case(
        "printf '*.txt text eol=crlf\\n*.bin -text\\n' > .gitattributes && printf '1\\r\\n' > a.txt && printf '1\\r\\n' > x.bin"
    ),
    "a clean filter": Case(
        "git config filter.up.clean 'tr a-z A-Z' && echo '*.up filter=up' > .gitattributes && echo loud > x.up"
    ),
    "a working-tree encoding": Case(
        "echo '*.u16 working-tree-encoding=UTF-16' > .gitattributes && echo hé | iconv -f utf-8 -t utf-16 > x.u16"
    ),
    "ident": Case("echo '*.id ident' > .gitattributes && echo '$Id: 0123456789 $' > x.id"),
    "numb's folder in git": Case("mkdir -p .nmb/run && echo x > .nmb/run/x && git add -f .nmb && git commit -qm oops"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_snapshot_is_what_git_add_would_record(files: Scene, case: Case) -> None:
    """D6: `git add -A` in a copy gives the same tree, for a first snapshot and for one that an earlier one has seeded."""
    shoot(files)
    files.sh(case.does)
    oracle = add_all(files, case.oracle)

    with untouched(files):
        seeded = shoot(files)
        fresh = shoot(files, seeded=False)

    assert oracle == seeded.tree
    assert oracle == fresh.tree
    assert ((), ()) == (seeded.taken.left_out, tuple(n for n in seeded.taken.notes if "sub" not in n))


NAMES = [
    b"new\nline", b"tab\there", b"-rf", b"--", b"--help", b" spaces ", b"\xff\xfe", "é".encode(), b"e\xcc\x81", b"x" * 250,
    "🦆".encode(), b"CON", b"a:b", b'"quoted"', b"back\\slash", b"*", b"[a]", b":(exclude)x", b"!bang", b"#hash", b"\x01\x7f",
    b".nmbx", b"HEAD", b"@", b"nmb", b"-", b"d.lock", b"\r",
]  # fmt: skip


def test_names_of_any_bytes(files: Scene) -> None:
    """D17: every name that the disk can hold goes in under exactly these bytes, as a file and as a folder."""
    root = os.fsencode(files.root)
    for name in NAMES:
        Path(os.fsdecode(os.path.join(root, name))).write_bytes(name)
        os.makedirs(os.path.join(root, b"in", name, name[:100]))
        Path(os.fsdecode(os.path.join(root, b"in", name, b"file"))).write_bytes(name)
    oracle = add_all(files)

    with untouched(files):
        shot = shoot(files)

    assert oracle == shot.tree
    assert {os.fsdecode(name) for name in NAMES} <= set(shot.tree)
    assert {os.fsdecode(b"in/" + name + b"/file") for name in NAMES} <= set(shot.tree)


def test_a_whole_run_adds_only_the_record(scene: Scene) -> None:
    """D6 through `numb train`: the tree of the run is `git add -A` and `.nmb/run/`; the script's own edits come too late."""
    scene.sh(
        "echo 1 >> train.py && git add train.py && echo '#2' >> trial.py && echo new > 'new file' && echo no > x.ignored"
        " && ln -s nowhere link && mkdir sub && chmod +x nmb.json && git mv .gitignore sub/ && cp sub/.gitignore ."
        " && git stash list && echo s > s && git add s && git stash -q && git stash apply -q"
    )
    scene.write("train.py", "open('train.py', 'a').write('# edited by itself')\nopen('made', 'w')\n")
    oracle = add_all(scene)
    before = users(scene)

    done = scene.numb("train")

    after = users(scene)
    listed = set(scene.sh("git ls-tree -r --name-only numb").splitlines())
    assert 0 == done.code, done.stderr
    assert oracle == tree_of(scene, "numb")
    kept = {f".nmb/run/{name}" for name in ("environment.json", "hyperparameters.json", "output.log", "record.json")}
    assert kept == listed - {'"new file"'} - set(oracle)
    own = {"train.py", "made"}
    for moment in (before, after):
        moment["files"] = {k: v for k, v in moment["files"].items() if k not in own}  # type: ignore[attr-defined]
    assert before == after
    assert "" == scene.sh("git for-each-ref refs/numb")


EDITS = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/f", "x.ignored", "-n", "d"])
TEXTS = st.sampled_from(["", "1\n", "2\n", "1\r\n", "long\n" * 50])


class Edits(RuleBasedStateMachine):
    """Somebody edits, stages, commits and ignores at random; at every step the snapshot is what `git add -A` records."""

    @initialize()
    def begin(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="edits-"))
        home, root = self.top / "home", self.top / "project"
        home.mkdir()
        root.mkdir()
        (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = a@b\n[init]\n\tdefaultBranch = main\n")
        self.scene = Scene(root, home)
        self.scene.sh("git init -q && printf '*.ignored\\n.nmb/\\n' > .gitignore && git add -A && git commit -qm first")

    def _path(self, name: str) -> Path:
        """The path, with what stands in its way removed."""
        path = self.scene.root / name
        for above in reversed(path.relative_to(self.scene.root).parents):
            place = self.scene.root / above
            if place.is_symlink() or place.is_file():
                place.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return path

    @rule(name=EDITS, text=TEXTS, mode=st.sampled_from([0o644, 0o755]))
    def write(self, name: str, text: str, mode: int) -> None:
        path = self._path(name)
        path.write_text(text)
        path.chmod(mode)

    @rule(name=EDITS, text=TEXTS)
    def overwrite(self, name: str, text: str) -> None:
        path = self.scene.root / name
        if path.is_file():
            path.write_text(text)

    @rule(name=EDITS, to=st.sampled_from(["a", "d", "nowhere", "..", "loop"]))
    def link(self, name: str, to: str) -> None:
        self._path(name).symlink_to(to)

    @rule(name=EDITS)
    def delete(self, name: str) -> None:
        self._path(name)

    @rule(name=EDITS, to=EDITS)
    def move(self, name: str, to: str) -> None:
        if os.path.lexists(self.scene.root / name) and not to.startswith(name) and not name.startswith(to):
            aside = self.top / "moving"
            os.rename(self.scene.root / name, aside)
            os.rename(aside, self._path(to))

    @rule(
        command=st.sampled_from(
            ["git add -A", "git add -f .", "git commit -qam x", "git rm -rq --cached d", "git stash -q", "git stash pop -q",
             "git reset -q", "git checkout -q HEAD~1", "echo a >> .gitignore", "git add -N .", "git checkout -qf -- ."]
        )
    )  # fmt: skip
    def git(self, command: str) -> None:
        self.scene.sh(command, check=False)
        self.scene.sh("rm -rf .git/*.lock")

    @invariant()
    def the_snapshot_is_what_git_records(self) -> None:
        oracle = add_all(self.scene)
        with untouched(self.scene):
            assert oracle == shoot(self.scene).tree

    def teardown(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)


Edits.TestCase.settings = settings(max_examples=6, stateful_step_count=16, suppress_health_check=list(HealthCheck))
TestEdits = Edits.TestCase


def test_unchanged_files_keep_their_blobs(files: Scene) -> None:
    """D9: mixed line ends under autocrlf and safecrlf neither stop the snapshot nor change what nobody edited."""
    files.sh("printf '1\\r\\n2\\n' > mixed && printf '1\\r\\n' > crlf && git add -A && git commit -qm mixed")
    files.sh("git config core.autocrlf true && git config core.safecrlf true && echo '* text=auto' > .gitattributes")
    head = tree_of(files, "HEAD")

    with untouched(files):
        shot = shoot(files)

    assert head == {path: entry for path, entry in shot.tree.items() if path != ".gitattributes"}


@pytest.mark.parametrize("how", ["false", "sleep 100", "cat >/dev/null; exit 3"])
def test_a_clean_filter_that_fails_or_hangs_is_skipped(files: Scene, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D10: the file goes in as it lies on the disk, it is said, and nothing waits for the filter."""
    monkeypatch.setattr(gitstore, "_FILTER_SECONDS", 0.5)
    files.sh("echo '*.big filter=lfs' > .gitattributes && echo content > x.big && echo plain > y")
    files.sh(f"git config filter.lfs.required true && git config filter.lfs.clean '{how}'")

    with untouched(files):
        shot = shoot(files)

    assert ("filters: skipped, because a clean filter failed or took too long",) == shot.taken.notes
    assert "content" == files.sh(f"git cat-file blob {shot.tree['x.big'].split()[2]}")
    assert "plain" == files.sh(f"git cat-file blob {shot.tree['y'].split()[2]}")


def test_a_snapshot_without_filters_has_time(files: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """D10: once the filters are off, a snapshot of many files may take as long as it takes."""
    monkeypatch.setattr(gitstore, "_FILTER_SECONDS", 0.0)
    files.sh("git config filter.lfs.clean cat && echo new > new")
    oracle = add_all(files)

    assert oracle == shoot(files).tree


def test_a_hanging_filter_process_does_not_outlive_the_snapshot(files: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """D10: a filter that is given up on is ended with the git that started it."""
    monkeypatch.setattr(gitstore, "_FILTER_SECONDS", 0.5)
    files.sh("echo '*.big filter=lfs' > .gitattributes && echo content > x.big")
    files.sh("git config filter.lfs.clean 'echo $$ > ../filter.pid; exec sleep 100'")

    shoot(files)

    pid = int((files.root.parent / "filter.pid").read_text())
    assert not Path(f"/proc/{pid}/stat").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize("name", ["a.txt", "new", "my-filter", os.fsdecode(b"\xff"), "new\nline", "d/c.txt"])
def test_an_unreadable_file_is_left_out_and_named(scene: Scene, name: str) -> None:
    """D12: the snapshot is taken without it, tracked or not, the run says so, and its exit code is the script's."""
    scene.sh("echo a > a.txt && mkdir d && echo c > d/c.txt && git add -A && git commit -qm more")
    scene.sh("git config filter.x.clean cat")
    (scene.root / name).write_text("hidden")
    (scene.root / name).chmod(0)
    scene.sh("echo new > other")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root reads everything, and there is no setpriv to make it obey")
    prefix = UNPRIVILEGED if os.geteuid() == 0 else ()

    done = subprocess.run(
        [*prefix, sys.executable, "-m", "numb", "train"], cwd=scene.root, env=scene.env, capture_output=True, text=True
    )

    (run,) = scene.runs()
    tree = tree_of(scene, "numb")
    assert (0, "complete") == (done.returncode, run["status"]), done.stderr
    assert [f"{name}: cannot be read, so it is not in the snapshot"] == run["notes"]
    assert name not in tree
    assert {"other", "train.py", "nmb.json"} <= set(tree)


def test_sockets_and_fifos_are_passed_over(files: Scene) -> None:
    """D12: what is neither file nor link stays out, also in the place of a tracked file; nothing blocks on it."""
    os.mkfifo(files.root / "fifo")
    (files.root / "a.txt").unlink()
    os.mkfifo(files.root / "a.txt")
    here = os.getcwd()
    os.chdir(files.root)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        os.chdir(here)

        with untouched(files):
            shot = shoot(files)

    assert {".gitignore", "b.txt", "d/c.txt", "d/e.txt", "empty"} == set(shot.tree)
    assert ("a.txt: cannot be read, so it is not in the snapshot",) == shot.taken.notes


def test_an_embedded_repository_without_a_commit(files: Scene) -> None:
    """D13: it does not stop the snapshot; the record says that its files are not in it."""
    files.sh("git init -q lib && echo x > lib/x && echo y > y")

    with untouched(files):
        shot = shoot(files)

    assert {".gitignore", "a.txt", "b.txt", "d/c.txt", "d/e.txt", "empty", "y"} == set(shot.tree)
    assert (Nested("lib", None),) == shot.taken.nested
    assert ("lib: a git repository without a commit, so its files are not in the snapshot",) == shot.taken.notes


SUBMODULE = (
    "git init -q ../sub && echo one > ../sub/f && git -C ../sub add -A && git -C ../sub commit -qm s"
    " && git -c protocol.file.allow=always submodule --quiet add ../sub sub && git commit -qm sub"
)


@pytest.mark.parametrize("kind", ["submodule", "embedded"])
def test_a_dirty_repository_inside_is_kept_as_a_patch(files: Scene, kind: str) -> None:
    """D13: its HEAD and what differs from it, untracked files included, whatever its configuration makes of diffs."""
    files.sh(SUBMODULE)
    if kind == "embedded":
        files.sh("git rm -qrf sub && git commit -qm gone && cp -r ../sub sub")
    files.sh("cd sub && git config diff.noprefix true && git config status.showUntrackedFiles no")
    files.sh("git config diff.mnemonicPrefix true && git config diff.external false && git config diff.context 0")
    clean = shoot(files)
    files.sh("cd sub && echo new > new")
    untracked = shoot(files)
    files.sh("cd sub && printf 'one\\r\\n' > f && printf '\\0\\1' > bin && git add bin && chmod +x f")
    head = files.sh("git -C sub rev-parse HEAD")

    with untouched(files):
        dirty = shoot(files)

    assert (Nested("sub", head),) == clean.taken.nested
    assert (Nested("sub", head, "nested/0.patch"),) == untracked.taken.nested
    assert (Nested("sub", head, "nested/0.patch"),) == dirty.taken.nested
    assert clean.tree == dirty.tree
    (files.root.parent / "patch").write_bytes(dirty.taken.patches["nested/0.patch"])
    files.sh(f"git clone -q sub ../again && cd ../again && git checkout -q {head} && git apply ../patch")
    again, sub = (
        {p.name: (p.read_bytes(), p.stat().st_mode) for p in folder.iterdir() if p.name != ".git"}
        for folder in (files.root.parent / "again", files.root / "sub")
    )
    assert sub == again


def test_repositories_inside_repositories_inside(files: Scene) -> None:
    """D13, recursively: what is dirty two levels down is kept too."""
    files.sh("git init -q lib && cd lib && echo 1 > f && git add -A && git commit -qm lib && echo 2 > f")
    files.sh("cd lib && git init -q deep && cd deep && echo 1 > g && git add -A && git commit -qm deep && echo 2 > g")
    lib, deep = files.sh("git -C lib rev-parse HEAD"), files.sh("git -C lib/deep rev-parse HEAD")

    with untouched(files):
        shot = shoot(files)

    assert (Nested("lib", lib, "nested/0.patch"), Nested("lib/deep", deep, "nested/1.patch")) == shot.taken.nested
    assert b"+2" in shot.taken.patches["nested/0.patch"] and b"b/f" in shot.taken.patches["nested/0.patch"]
    assert b"+2" in shot.taken.patches["nested/1.patch"] and b"b/g" in shot.taken.patches["nested/1.patch"]


@pytest.mark.parametrize(
    "damage",
    ["rm -r sub/.git && mkdir sub/.git", "rm -r sub/.git && echo 'gitdir: /nowhere' > sub/.git",
     "rm -r sub/.git && echo x > sub/.git", "rm .git/modules/sub/HEAD"],
)  # fmt: skip
def test_a_broken_repository_inside_does_not_stop_the_snapshot(files: Scene, damage: str) -> None:
    """D13: a submodule whose repository cannot be opened is named, and the rest is captured."""
    files.sh(SUBMODULE)
    files.sh(f"{damage} && echo new > new")

    with untouched(files):
        shot = shoot(files)

    assert "new" in shot.tree
    assert (Nested("sub", None),) == shot.taken.nested
    assert 1 == len(shot.taken.notes) and shot.taken.notes[0].startswith("sub: ")


def test_a_big_file_stays_out(files: Scene) -> None:
    """D15: an untracked file above the limit is named with its size and never read; a tracked one is the user's wish."""
    files.sh("truncate -s 6G big.bin && truncate -s 3M small.bin && truncate -s 2M a.txt")

    shot = shoot(files, max_bytes=1_000_000)

    assert {"big.bin": "larger than 1 MB", "small.bin": "larger than 1 MB"} == shot.left_out
    assert [6 << 30, 3 << 20] == [item.size for item in shot.taken.left_out]
    assert "a.txt" in shot.tree and "big.bin" not in shot.tree


SECRET_NAMES = [
    ".env", ".env.local", "deploy/.env", "id_rsa", "ID_ED25519", "server.pem", "tls.KEY", ".netrc", "aws/credentials",
    "google-credentials-1.json", "secrets.toml", ".pypirc", "kubeconfig", "service-account-x.json", "x.p12",
]  # fmt: skip


def test_secrets_reach_no_object(scene: Scene) -> None:
    """D16: untracked files that look like secrets are named in the record, and no object of the repository has a byte."""
    for name in SECRET_NAMES:
        scene.write(name, f"canary-in-the-coal-mine {name}")
    scene.write("id_rsa.pub", "public")
    scene.write(".env.example", "NAME=")

    done = scene.numb("train")
    changed = scene.numb("revert @")
    again = scene.numb("revert --undo")

    (run,) = scene.runs()
    assert (0, 0, 0) == (done.code, changed.code, again.code)
    assert b"canary" not in every_object(scene)
    assert sorted(SECRET_NAMES) == sorted(item["path"] for item in run["left_out"])
    assert {("looks like a secret", None)} == {(item["why"], item["sha256"]) for item in run["left_out"]}
    assert {"id_rsa.pub", ".env.example"} <= set(tree_of(scene, run["commit"]))
    assert all(f"canary-in-the-coal-mine {name}" == scene.read(name) for name in SECRET_NAMES)


def test_a_tracked_secret_is_the_users_wish(files: Scene) -> None:
    """D16: what the user tracks goes in as it is."""
    files.sh("echo 1 > .env && git add .env && echo 2 > .env")

    assert add_all(files) == shoot(files).tree


def test_what_python_compiles_stays_out(files: Scene) -> None:
    """Without a word, for it comes by itself; what is tracked goes in all the same."""
    files.sh("mkdir -p __pycache__ d/__pycache__ && echo 1 > __pycache__/a.pyc && echo 1 > d/__pycache__/b.pyc")
    files.sh("git add -f d/__pycache__/b.pyc && echo 2 > d/__pycache__/b.pyc")

    with untouched(files):
        shot = shoot(files)

    assert {"d/__pycache__/b.pyc"} == {path for path in shot.tree if "__pycache__" in path} and {} == shot.left_out


def test_exclude_patterns_keep_untracked_files_out(files: Scene) -> None:
    """Files that nmb.json excludes are named and stay out; tracked ones that match go in all the same."""
    files.sh("mkdir data && echo 1 > data/x.csv && echo 1 > d/new.txt && echo 1 > keep")

    with untouched(files):
        shot = shoot(files, exclude=("data/*", "*.txt"))

    assert {"data/x.csv": "excluded by nmb.json", "d/new.txt": "excluded by nmb.json"} == shot.left_out
    assert {"a.txt", "keep"} <= set(shot.tree)
    assert not {"data/x.csv", "d/new.txt"} & set(shot.tree)


@pytest.mark.parametrize(
    "damage", ["truncate -s 20", "truncate -s 0", "dd conv=notrunc if=/dev/urandom bs=1 count=90 of="]
)
def test_a_damaged_index_of_numbs_is_made_again(files: Scene, damage: str) -> None:
    """The kept index is a cache: whatever has become of it, the snapshot is right."""
    shoot(files)
    space = "" if damage.endswith("=") else " "
    files.sh(f"{damage}{space}.nmb/index 2>/dev/null && echo 1 > a.txt")

    assert add_all(files) == shoot(files).tree


def test_a_racy_edit_is_seen(files: Scene) -> None:
    """An edit of the same size within the same tick as the snapshot before is not mistaken for the old content."""
    for content in "1234567890":
        files.sh(f"echo {content} > a.txt")
        shot = shoot(files)

        assert content == files.sh(f"git cat-file blob {shot.tree['a.txt'].split()[2]}")


def test_the_index_on_a_sparse_checkout_is_restored_whole(files: Scene) -> None:
    """D18: the files that a sparse checkout leaves out are in the snapshot as HEAD has them, not deleted."""
    head = tree_of(files, "HEAD")
    files.sh("git sparse-checkout set --cone")
    assert not (files.root / "d").exists()

    shot = shoot(files)

    assert head == shot.tree


def test_nothing_of_an_identity_can_break_a_commit(files: Scene) -> None:
    """Names as people configure them make commits that `git fsck --strict` accepts."""
    for name, mail in (("A <b> C", "a@b>"), ("A\nB", " "), (" ", "<>"), ("é\\", "x y"), ("...", "a\nb")):
        files.sh(f"git config user.name {_quoted(name)} && git config user.email {_quoted(mail)}")
        with sealed_here(files):
            store = GitStore.discover(files.root)
            store.pin("20260101-000000-aaaa", store.empty_tree(), None, 1.0)

        files.sh("git fsck --strict --no-dangling")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
