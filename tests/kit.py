"""What the tests of the git layer share: git itself as the oracle, everything of the user's, and a git that fails on cue."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from conftest import Done, Scene

from numb.gitstore import GitStore, Snapshot
from numb.layout import Layout

Tree = dict[str, str]  # path → "mode type id"
BIG = 20_000_000


@contextmanager
def sealed_here(scene: Scene) -> Iterator[None]:
    """Let numb's own functions, called in this process, see nothing but the scene's environment."""
    with mock.patch.dict(os.environ, scene.env, clear=True):
        yield


@dataclass(frozen=True)
class Shot:
    """A snapshot that was taken in this process, and its tree spelled out."""

    tree: Tree
    id: str
    taken: Snapshot

    @property
    def left_out(self) -> dict[str, str]:
        return {item.path: item.why for item in self.taken.left_out}


def shoot(scene: Scene, *, seeded: bool = True, max_bytes: int = BIG, exclude: Sequence[str] = ()) -> Shot:
    """Take a snapshot as a run does: seeded by the index of the one before, and keep its own index for the next."""
    with sealed_here(scene):
        store = GitStore.discover(scene.root)
        layout = Layout(store.toplevel)
        layout.scratch.mkdir(parents=True, exist_ok=True)
        layout.ignore.write_text("*\n")
        index = layout.scratch / "index"
        seed = layout.index if seeded else layout.scratch / "none"
        index.unlink(missing_ok=True)
        taken = store.capture(index, seed, max_bytes=max_bytes, exclude=exclude)
        tree = store.write_tree(index)
        shutil.copy2(index, layout.index)
    return Shot(tree_of(scene, tree), tree, taken)


def tree_of(scene: Scene, tree: str) -> Tree:
    """What stands in a tree, without numb's record."""
    out = subprocess.run(
        ["git", "ls-tree", "-r", "-z", "--full-tree", tree],
        cwd=scene.root,
        env=scene.env,
        capture_output=True,
        check=True,
    ).stdout
    entries = (line.partition(b"\t") for line in out.split(b"\0")[:-1])
    found = {os.fsdecode(path): words.decode() for words, _, path in entries}
    return {path: entry for path, entry in found.items() if not path.startswith(".nmb/")}


def add_all(scene: Scene, first: str = ":") -> Tree:
    """The oracle: what `git add -A` records in a copy of the repository, with the user's own index."""
    copy = Scene(scene.root.parent / "copy of the project", Path(scene.env["HOME"]))
    shutil.rmtree(copy.root, ignore_errors=True)
    subprocess.run(["cp", "-a", "--", str(scene.root), str(copy.root)], check=True)
    shutil.rmtree(copy.root / ".nmb", ignore_errors=True)
    copy.sh(f"{first}\ngit -c core.safecrlf=false -c advice.addEmbeddedRepo=false add -A --sparse . 2>/dev/null")
    tree = tree_of(copy, copy.sh("git write-tree"))
    shutil.rmtree(copy.root)
    return tree


def users(scene: Scene) -> dict[str, object]:
    """Everything that is the user's: `Scene.users`, and each file of `.git` but objects and what is numb's own."""
    git = Path(scene.sh("git rev-parse --absolute-git-dir"))
    common = (scene.root / scene.sh("git rev-parse --git-common-dir")).resolve()
    inside = {
        str(path.relative_to(folder)): _digest(path)
        for folder in {git, common}
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not _is_numbs(path.relative_to(folder).as_posix())
    }
    return {**scene.users(), "git": inside}


def _is_numbs(path: str) -> bool:
    bare = path.removeprefix("logs/")
    return "objects" in path.split("/")[:-1] or bare == "refs/heads/numb" or bare.startswith("refs/numb/")


def _digest(path: Path) -> str:
    if not stat.S_ISREG(path.lstat().st_mode):
        return "special"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def untouched(scene: Scene) -> Iterator[None]:
    """Whatever happens inside, what is the user's is byte-identical afterwards."""
    before = users(scene)
    yield
    assert before == users(scene)


def every_object(scene: Scene) -> bytes:
    """The contents of every object of the repository, reachable or not."""
    done = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch", "--unordered"],
        cwd=scene.root, env=scene.env, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout


_SHIM = """#!/bin/sh
# Each git command takes the next number; the one whose number it is fails on cue.
n=1
while ! mkdir "$SHIM/$n" 2>/dev/null; do n=$((n + 1)); done
echo "$*" > "$SHIM/$n/arguments"
if [ "$n" != "$SHIM_AT" ]; then exec "$SHIM_GIT" "$@"; fi
case "$SHIM_HOW" in
full) cat > /dev/null; echo "fatal: unable to write: No space left on device" >&2; exit 128 ;;
git-dies) kill -9 $$ ;;
git-dies-after) "$SHIM_GIT" "$@"; kill -9 $$ ;;
numb-dies) kill -9 $PPID; kill -9 $$ ;;
numb-dies-after) "$SHIM_GIT" "$@"; kill -9 $PPID; kill -9 $$ ;;
then) "$SHIM_GIT" "$@"; code=$?; eval "$SHIM_THEN"; exit $code ;;
esac
"""


class Shim:
    """A `git` at the front of PATH that counts the git commands of a numb command, and lets one of them go wrong."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        self.folder = folder
        self.real = shutil.which("git", path=scene.env["PATH"])
        folder.mkdir()
        (folder / "git").write_text(_SHIM)
        (folder / "git").chmod(0o755)

    def numb(self, *words: str, at: int = 0, how: str = "", then: str = "") -> Done:
        """Type a numb command whose *at*-th git command fails as *how* says; `calls` afterwards has all of them."""
        counts = self.folder / "counts"
        shutil.rmtree(counts, ignore_errors=True)
        counts.mkdir()
        return self.scene.numb(
            *words,
            env={
                "PATH": f"{self.folder}{os.pathsep}{self.scene.env['PATH']}",
                "SHIM": str(counts),
                "SHIM_GIT": str(self.real),
                "SHIM_AT": str(at),
                "SHIM_HOW": how,
                "SHIM_THEN": then,
            },
        )

    @property
    def calls(self) -> list[str]:
        """The git commands of the last numb command, in the order in which they started."""
        counts = self.folder / "counts"
        numbers = sorted(int(path.name) for path in counts.iterdir())
        return [(counts / str(number) / "arguments").read_text().strip() for number in numbers]
