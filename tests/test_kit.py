"""The kit itself: a copied beginning is a project like any other, and a warm python runs a script as a cold one does."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import pytest
from beginnings import Beginnings, NotToBeKept, seen
from conftest import PLAIN, Scene, furnish


def person(folder: Path, kept: Beginnings) -> Scene:
    """A scene with a folder of its own, and a home in it."""
    (folder / "project").mkdir(parents=True)
    (folder / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    scene = Scene(folder / "project", folder / "home")
    scene.env["GIT_CONFIG_GLOBAL"] = str(folder / ".gitconfig")
    scene.kept = kept
    scene.sh("git init -qb main")
    furnish(scene, {"train.py": PLAIN})
    return scene


def test_a_copied_beginning_is_a_project_like_any_other(tmp_path: Path) -> None:
    """Ids and commits are those of the first; git and numb find all in order, and what one does next the other does not see."""
    kept = Beginnings(tmp_path / "kept")
    one = person(tmp_path / "one", kept)
    first = one.trained(lr=0.2)
    two = person(tmp_path / "two", kept)
    again = two.trained(lr=0.2)
    before = one.users()

    two.sh("git diff-files --quiet && git fsck --strict --no-dangling")
    found, done = two.numb("doctor"), two.numb("train")
    two.sh("echo '# edited' >> train.py")
    other = two.trained(lr=0.2, epochs=3)

    assert first == again
    assert before == one.users() and [first] == one.runs()
    assert (0, "everything is in order\n") == (found.code, found.stdout)
    assert (0, "lr 0.1\n", "M train.py") == (done.code, done.stdout, two.sh("git status --short"))
    assert {"lr": 0.2, "epochs": 3} == other["params"] and 3 == len(two.runs())
    assert str(two.root) in two.read(".nmb/hyperparameters.json")
    assert str(one.root) not in two.read(".nmb/hyperparameters.json")


@pytest.mark.parametrize(
    "change",
    ["echo >> train.py", "chmod +x train.py", "git add new", "git config a.b c", "touch .nmb/x", "mkdir empty"],
)
def test_another_beginning_is_not_taken_for_it(tmp_path: Path, change: str) -> None:
    """What a program could see makes another beginning, in the work tree, in git's folder and in numb's."""
    kept = Beginnings(tmp_path / "kept")
    one, two = person(tmp_path / "one", kept), person(tmp_path / "two", kept)
    for scene in (one, two):
        scene.sh("echo new > new")
    two.sh(change)

    first, second = one.trained(lr=0.2), two.trained(lr=0.2)

    assert first["id"] != second["id"]
    two.sh("git fsck --strict --no-dangling")


def test_what_a_copy_would_not_be_is_not_kept(tmp_path: Path) -> None:
    """With a FIFO or a socket there, all is done anew."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotToBeKept):
        seen(tmp_path)
    (tmp_path / "fifo").unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert [1, 1] == [Beginnings(tmp_path / "kept").once(tmp_path, {}, "", [1, 1].pop) for _ in range(2)]


FACTS = """
import os, signal, sys
early = "torch" in sys.modules
import __main__, json, torch
mask = os.umask(0); os.umask(mask)
signals = [str(signal.getsignal(number)) for number in (2, 13, 15, 17)]
json.dump([
    __name__, __file__, __main__.__file__, vars(__main__) is globals(), sorted(globals()), sys.argv, sys.orig_argv[1:], sys.path, sys.flags,
    sys.executable, os.getcwd(), mask, sorted((name, value) for name, value in os.environ.items() if name not in ("PATH", "_")), signals, sorted(os.listdir("/dev/fd"))[:4], sys.stdin.read(),
    torch.get_num_threads(), sys.stdout.encoding, sys.stdout.errors, sys.stdout.write_through,
    sorted(name for name in sys.modules if name.split(".")[0] == "numb"), os.getpgrp(), os.getsid(0),
], sys.stdout)
print(early, file=open("early", "w"))
"""


@pytest.mark.parametrize(
    "end",
    ["", "sys.exit(3)", "sys.exit('text')", "def f():\n    1 / 0\nf()", "os.kill(os.getpid(), 9)", "os._exit(5)", "1 +"],
)  # fmt: skip
def test_a_warm_python_is_like_a_cold_one(empty: Scene, warm: None, end: str) -> None:
    """All that a script can see and say is the same, and how it ends; only torch is there sooner."""
    empty.write("script.py", f"{FACTS}{end}\n")
    run = "umask 027; export PYTHONUNBUFFERED=1 PATH; echo typed | {} script.py a -b 2>{}.txt || echo $?"

    cold, early = empty.sh(run.format(sys.executable, "cold")), empty.sh("cat early || true")
    hot = empty.sh(run.format("python", "hot"))

    assert cold == hot
    assert [line for line in empty.read("cold.txt").splitlines() if "Killed" not in line] == [
        line for line in empty.read("hot.txt").splitlines() if "Killed" not in line
    ]
    if end != "1 +":
        assert ("False", "True") == (early, empty.sh("cat early"))


@pytest.mark.parametrize("words", ["-c 'import sys; print(\"torch\" in sys.modules)'", "script.py"])
def test_what_a_warm_python_cannot_do_a_cold_one_does(empty: Scene, warm: None, words: str) -> None:
    """Options, and an environment that Python reads when it starts."""
    empty.write("script.py", "import sys; print('torch' in sys.modules)")
    assert "False" == empty.sh(f"PYTHONHASHSEED=1 PYTHONUNBUFFERED=1 python {words}")


@pytest.mark.parametrize(
    "words", ["list --json", "lsit", "show nothing", "train -- 3", "train lr=2 -- 0", "show @ --patch", "hp", "doctor"]
)
def test_a_forked_numb_is_like_a_new_one(scene: Scene, words: str) -> None:
    """It says the same, to the same places, and ends the same."""
    scene.trained()
    scene.write("train.py", PLAIN + "print(sys.stdin.read(), file=sys.stderr)\n")
    assert scene.hot is not None

    forked = scene.numb(words, input=b"typed")
    scene.hot = None
    new = scene.numb(words, input=b"typed")

    assert forked.code == new.code
    assert [_without_ids(forked.stdout), _without_ids(forked.stderr)] == [
        _without_ids(new.stdout),
        _without_ids(new.stderr),
    ]


def test_the_end_of_a_forked_numb_is_passed_on(scene: Scene) -> None:
    """By a signal, too; and what it reads when it starts, another one has to."""
    scene.write("train.py", "import os\nos.kill(os.getppid(), 9)\n")

    assert -9 == scene.numb("train").code
    assert "import time:" in scene.numb("list", env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr


def _without_ids(text: str) -> str:
    return re.sub(r"\d{8}-\d{6}-\w{4}", "ID", text)
