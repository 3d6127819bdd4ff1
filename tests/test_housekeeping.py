"""What is promised of removing, collecting and verifying: nothing that a run needs is lost, nothing wrong stays unseen."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene
from hypothesis import given
from hypothesis import strategies as st
from kit import Shim

from numb import atomic, record
from numb.project import Project
from numb.record import REMOVED, RESTORED, TRAIN, Named, Run, RunId
from numb.store.index import Index
from numb.store.objects import Objects

# A run with an object that all share, one of its own, and a small file in its commit; without torch, which takes a second.
SCRIPT = """
import os
import numb
mine = os.environ.get("MINE", "0")
numb.save("shared.bin", bytes(1 << 20)), numb.save("own.bin", mine.encode() * (1 << 20)), numb.save("small", mine)
numb.numb_trial_result({"n": int(mine)})
print(mine)
"""


# A script that keeps its state in every way there is, and stays in flight when all of it is written, until it may go.
HOLDS = """
import atexit, os, time
from pathlib import Path

def hold():  # after numb's own, which is registered below
    Path("ready").touch()
    while not Path("go").exists():
        time.sleep(0.01)

if os.environ.get("HOLD"):
    atexit.register(hold)
import numb
import torch
from torch import nn
mine = float(os.environ.get("MINE", "0"))
net = numb.numb_model(torch.ones(1, 2))(nn.Linear(2, 2, bias=False))
run = numb.run()
run.track(net=net)
run.restore()
net.weight.data.fill_(mine + 0.25)
run.checkpoint(step=1)
numb.save("state", torch.full((4,), mine + 0.5))
net.weight.data.fill_(mine)
numb.numb_trial_result({"mine": mine})
"""


@pytest.fixture
def lab(empty: Scene) -> Scene:
    """A project with three runs."""
    empty.write("train.py", SCRIPT)
    empty.write("trial.py", SCRIPT)
    empty.sh("git add -A && git commit -qm x")
    assert 0 == empty.numb("init").code
    for mine in (1, 2, 3):
        assert 0 == empty.numb("train", env={"MINE": str(mine)}).code
    return empty


def appears(path: Path) -> None:
    """Wait until a script has made a file."""
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def ids(lab: Scene) -> list[str]:
    return [run["id"] for run in lab.runs()]


def objects(lab: Scene) -> Objects:
    return Objects(lab.root / ".nmb" / "objects")


def test_a_removed_run_comes_back(lab: Scene) -> None:
    """rm and undo are entries on the branch: nothing is rewritten, and the last removal is taken back first."""
    first, second, third = ids(lab)
    tip = lab.sh("git rev-parse numb").strip()

    removed = [lab.numb(f"rm {second}"), lab.numb(f"rm @ {first} @")]
    empty, again = ids(lab), lab.numb(f"rm {first}")
    undone = [lab.numb("undo"), lab.numb("undo"), lab.numb("undo")]

    assert [0, 0, 1, 0, 0, 1] == [done.code for done in (*removed, again, *undone)]
    assert [] == empty and [first, second, third] == ids(lab)
    assert f"{first} was removed" in again.stderr and "numb undo" in again.stderr
    assert third in undone[0].stderr and second in undone[1].stderr and "nothing to undo" in undone[2].stderr
    assert tip == lab.sh("git rev-parse numb~4").strip()
    assert "removed" in lab.sh("git log -4 --format=%s numb") and first in lab.sh("git log -4 --format=%s numb")
    assert "x" == lab.sh("git log -1 --format=%s HEAD").strip() and "" == lab.sh(
        "git diff --stat numb~4 numb -- . ':!.nmb'"
    )
    assert 0 == lab.numb("doctor").code


def test_what_no_run_names_is_collected(lab: Scene) -> None:
    """What a removed run alone needed goes; what others share stays; a dry run says as much and does nothing."""
    stays = set(objects(lab))
    objects(lab).put(b"nobody needs it")
    lab.numb("rm @")
    says = json.loads(lab.numb("gc --dry-run --json").stdout)
    before = set(objects(lab))
    done = lab.numb("gc --json")

    assert (
        {"objects": 2, "bytes": (1 << 20) + 15, "left": 3, "left_bytes": 3 << 20, "folders": 0}
        == says
        == json.loads(done.stdout)
    )
    assert (5, 3) == (len(before), len(set(objects(lab)))) and set(objects(lab)) < stays
    assert 0 == lab.numb("verify").code and "freed 0 bytes" in lab.numb("gc").stdout
    lab.numb("undo")
    assert 3 == lab.numb("verify").code


def test_what_is_needed_elsewhere_is_not_collected(lab: Scene) -> None:
    """By a run in flight here or in another work tree, and by the runs of another branch of numb's."""
    lab.sh("git worktree add -q ../other")
    other = Scene(lab.root.parent / "other", Path(lab.env["HOME"]))
    flying = '\nimport time\nopen("ready", "w").close()\nwhile not os.path.exists("go"): time.sleep(0.01)\n'
    other.write("train.py", SCRIPT + flying)
    other.numb("init")
    process = other.start("train", MINE="4")
    appears(other.root / "ready")
    lab.write("sub/train.py", SCRIPT)
    lab.write("sub/nmb.json", '{"version": 1, "train": {"command": "python train.py"}, "branch": "lab"}')
    assert [0, 0] == [lab.numb(word, cwd=lab.root / "sub", env={"MINE": "5"}).code for word in ("init", "train")]
    lab.numb(f"rm {' '.join(ids(lab))}")

    collected = json.loads(lab.numb("gc --json").stdout)

    assert (3, 3) == (collected["objects"], collected["left"])
    other.write("go", "")
    process.communicate(timeout=60)
    assert 0 == process.returncode
    assert [0, 0] == [lab.numb("verify").code, other.numb("verify").code]


@pytest.mark.usefixtures("warm")
def test_what_runs_in_flight_have_written_is_not_collected(empty: Scene) -> None:
    """Weights, checkpoints and tensors of one in another work tree; and what it, or a trial, begins with: the runs are removed."""
    for name in ("train.py", "trial.py"):
        empty.write(name, HOLDS)
    empty.sh("git add -A && git commit -qm x")
    empty.numb("init")
    for mine in (1, 2):
        assert 0 == empty.numb("train", env={"MINE": str(mine)}).code
    first, second = ids(empty)
    empty.sh("git worktree add -q ../other && cp nmb.json ../other")
    other = Scene(empty.root.parent / "other", Path(empty.env["HOME"]))
    other.env = empty.env
    flying = [other.start("train", "--init-from", first, MINE="3", HOLD="yes")]
    appears(other.root / "ready")
    flying.append(empty.start("trial", second, HOLD="yes"))
    appears(empty.root / "ready")
    assert 0 == empty.numb(f"rm {first} {second}").code
    objects(empty).put(b"nobody needs it")

    collected = json.loads(empty.numb("gc --json").stdout)

    for scene in (empty, other):
        scene.write("go", "")
    said = [process.communicate(timeout=60) for process in flying]
    assert [0, 0] == [process.returncode for process in flying], said
    assert (1 + 2 + 2, 1 + 1 + 3 + 1) == (collected["objects"], collected["left"])
    assert 0 == empty.numb("verify").code
    assert [3.0] == [run["results"]["mine"] for run in empty.runs()]


def test_a_collection_that_cannot_know_removes_nothing(lab: Scene) -> None:
    """A record that cannot be read may need anything; one who is saving may be about to."""
    before = set(objects(lab))
    objects(lab).put(b"nobody needs it")
    blob = lab.sh("git rev-parse numb~1:.nmb/run/record.json").strip()
    path = lab.root / ".git" / "objects" / blob[:2] / blob[2:]
    content = path.read_bytes()
    path.unlink()
    (lab.root / ".nmb" / "index.sqlite").unlink(missing_ok=True)
    damaged = lab.numb("gc")
    path.write_bytes(content)

    assert 1 == damaged.code and "numb doctor" in damaged.stderr
    assert len(before) + 1 == len(set(objects(lab)))


def test_a_collection_waits_for_those_who_save(lab: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written and not yet named is not taken for waste."""
    monkeypatch.setattr("numb.housekeeping._PATIENCE", 0.01)
    project = Project.open(lab.root)
    with objects(lab).in_use():
        ref = objects(lab).put(b"about to be named")
        with pytest.raises(Exception, match="a training is saving its weights just now"):
            project.collect()
    assert objects(lab).has(ref.digest)
    assert 1 == project.collect().objects


def test_a_flipped_bit_anywhere_is_found_and_named(lab: Scene) -> None:
    """Every object and every record: verify ends with 3, names the file and who needs it, and of one run only what it needs."""
    first, *_ = ids(lab)
    assert 0 == lab.numb("verify").code
    store = objects(lab)
    for digest in store:
        path = store.path(digest)
        content = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done, of_one = lab.numb("verify"), lab.numb(f"verify {first}")
        needed = digest in {kept["hash"] for kept in lab.runs()[0]["artifacts"].values()}
        assert (3, True, 3 if needed else 0) == (
            done.code,
            digest in done.stdout and "needs it" in done.stdout,
            of_one.code,
        )
        path.unlink()
        assert digest in lab.numb("verify").stdout
        path.write_bytes(content)
    assert 0 == lab.numb("verify").code
    lab.numb("rm @")
    (path,) = [store.path(digest) for digest in store if store.path(digest).read_bytes()[:1] == b"3"]
    path.chmod(0o644)
    path.write_bytes(b"3")
    assert "no run needs it" in lab.numb("verify").stdout


def test_what_git_has_lost_is_found(lab: Scene) -> None:
    """The record of a run, with its commit; and what it has printed, which is none of its weights or artifacts."""
    first, *_ = ids(lab)
    commit, log, entry = (
        lab.sh(f"git rev-parse numb~1{name}") for name in ("", ":.nmb/run/output.log", ":.nmb/run/record.json")
    )
    done = []
    for blob in (log, entry):
        (lab.root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
        (lab.root / ".nmb" / "index.sqlite").unlink(missing_ok=True)
        done.append((lab.numb("verify"), lab.numb(f"verify {first}").code))

    assert [(3, 0), (3, 0)] == [(everything.code, of_one) for everything, of_one in done]
    assert "git objects of the runs are missing or damaged" in done[0][0].stdout and log in done[0][0].stdout
    assert f"the run in commit {commit} cannot be read" in done[1][0].stdout


@pytest.mark.parametrize("what", ["hash", "result", "id"])
def test_a_flipped_bit_in_the_listing_costs_nothing(lab: Scene, what: str) -> None:
    """It is a cache: nothing that a run needs is collected, nothing wrong is shown, and verify says so."""
    run, shown = lab.runs()[-1], lab.numb("show @ --json").stdout
    kept = run["artifacts"]["own.bin"]["hash"]
    words = {"hash": kept, "result": '"n": 3', "id": run["id"]}[what].encode()
    path = lab.root / ".nmb" / "index.sqlite"
    content = bytearray(path.read_bytes())
    at = content.rindex(words) + len(words) - 1
    content[at] ^= 1
    path.write_bytes(content)
    verified = lab.numb("verify")
    path.write_bytes(content)
    collected = json.loads(lab.numb("gc --json").stdout)
    path.write_bytes(content)

    assert 0 == collected["objects"] and (3 == verified.code or what == "id"), verified
    if what != "id":
        assert shown == lab.numb(f"show {run['id']} --json").stdout
    lab.numb("doctor --fix")
    assert 0 == lab.numb("verify").code and shown == lab.numb("show @ --json").stdout


@pytest.mark.parametrize("damage", ["a flipped bit", "no bytes"])
def test_what_git_has_damaged_is_found(lab: Scene, damage: str) -> None:
    """A file of a snapshot, in which nothing but its hash tells of the damage."""
    blob = lab.sh("git rev-parse numb:train.py")
    path = lab.root / ".git" / "objects" / blob[:2] / blob[2:]
    content = bytearray(zlib.decompress(path.read_bytes()))
    content[-9] ^= 1
    path.chmod(0o644)
    path.write_bytes(zlib.compress(bytes(content)) if damage == "a flipped bit" else b"")
    done = [lab.numb(words) for words in ("verify", "doctor")]

    assert [3, 3] == [each.code for each in done] and all(blob in each.stdout for each in done), done


def test_a_run_that_goes_on_is_not_removed(empty: Scene) -> None:
    """Its entry is on the branch, and what came of it would bring it back; what it has kept before stays, too."""
    script = """
import os, time, numb
if not os.path.exists("again"):
    numb.save("large.bin", b"x" * (1 << 20))
class Part:
    def state_dict(self): return {"n": 1}
    def load_state_dict(self, state): pass
run = numb.run()
run.track(part=Part())
run.restore()
run.checkpoint(step=1)
if os.path.exists("again"):
    open("ready", "w").close()
    while not os.path.exists("go"): time.sleep(0.01)
else:
    run.finish("incomplete")
"""
    empty.write("train.py", script)
    empty.numb("init")
    empty.numb("train")
    [run_id] = ids(empty)
    empty.write("again", "")
    process = empty.start("train", "--resume", run_id)
    appears(empty.root / "ready")
    removed, collected = empty.numb(f"rm {run_id}"), json.loads(empty.numb("gc --json").stdout)
    empty.write("go", "")
    process.communicate(timeout=60)

    assert (1, 0) == (removed.code, collected["objects"]) and "still in flight" in removed.stderr
    assert (0, 0, 0) == (process.returncode, empty.numb("verify").code, empty.numb(f"rm {run_id}").code)


@pytest.mark.usefixtures("warm")
def test_a_manifest_that_cannot_be_read_is_named(empty: Scene) -> None:
    """With its run: one that git has lost, and one that says what this numb does not understand."""
    empty.write("train.py", HOLDS)
    empty.sh("git add -A && git commit -qm x")
    empty.numb("init")
    assert 0 == empty.numb("train").code
    lost = empty.sh("git rev-parse numb:.nmb/run/checkpoints/1.json")
    empty.sh(
        """
        export GIT_INDEX_FILE=$PWD/.git/elsewhere
        git read-tree numb
        newer=$(git show numb:.nmb/run/weights/Linear.json | sed -E 's/"format": ?[0-9]+/"format": 99/' | git hash-object -w --stdin)
        git update-index --cacheinfo 100644,$newer,.nmb/run/weights/Linear.json
        commit=$(git log -1 --format=%B numb | git commit-tree $(git write-tree) -p numb~1)
        git update-ref refs/heads/numb $commit
        """
    )
    (empty.root / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    [run_id] = ids(empty)
    found = [json.loads(empty.numb(f"verify {words} --json").stdout) for words in ("", run_id)]

    for problems in found:
        texts = [problem["text"] for problem in problems]
        assert f"checkpoints/1.json of {run_id} is missing or damaged" in texts
        assert any(text.startswith(f"weights/Linear.json of {run_id}: these weights have format 99") for text in texts)
    assert [3, 2] == [len(problems) for problems in found], "and git tells of the lost one, too"


def test_room_is_told_by_run(lab: Scene) -> None:
    """What each needs, and what it alone needs."""
    used = json.loads(lab.numb("du --json").stdout)
    table = lab.numb("du").stdout

    assert [(run_id, 2 << 20, 1 << 20) for run_id in ids(lab)] == [
        (each["id"], each["bytes"], each["own"]) for each in used
    ]
    assert "2.1 MB" in table and "1.05 MB" in table


COMMITS = [f"{n:040x}" for n in range(8)]
IDS = [RunId(f"20261121-00000{n}-aaaa") for n in range(8)]


class Entry:
    unread = None

    def __init__(self, commit: str, run: Run) -> None:
        self.commit, self.record = commit, record.dumps(run.to_json()).encode()


@given(st.permutations(range(6)))
def test_removals_count_whatever_their_order(order: list[int]) -> None:
    """In joined histories a removal may be read before what it removes; a run that was resumed since is not removed."""

    def entry(n: int, kind: str, **facts: Any) -> Entry:
        return Entry(COMMITS[n], Run(facts.pop("id", IDS[n]), kind, float(n), "complete", **facts))

    entries = [
        entry(0, TRAIN),
        entry(1, TRAIN),
        entry(2, REMOVED, removes=(Named(IDS[0], COMMITS[0]),)),
        entry(3, REMOVED, removes=(Named(IDS[1], COMMITS[1]), Named(IDS[5], COMMITS[4]))),
        entry(4, RESTORED, of=IDS[3]),
        entry(5, TRAIN),
    ]
    index = Index(None)
    index.extend([entries[n] for n in order], COMMITS[5])

    assert [IDS[1], IDS[5]] == [run.id for run in index.runs()]
    assert IDS[2] == index.undoable().id and [IDS[0]] == index.removed("2026")
    index.extend([entry(6, TRAIN, id=IDS[0])], COMMITS[6])
    assert [IDS[1], IDS[5], IDS[0]] == [run.id for run in index.runs()]


def test_a_killed_collection_goes_on(lab: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever object it ends: what runs need is there, and the next one takes the rest."""
    for n in range(5):
        objects(lab).put(bytes([n]))
    project, unlink = Project.open(lab.root), Path.unlink
    for _ in range(5):

        def once(path: Path, missing_ok: bool = False) -> None:
            unlink(path, missing_ok)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", once)
            with pytest.raises(KeyboardInterrupt):
                project.collect()
        assert not atomic.held_elsewhere(objects(lab).lock)
    assert 0 == project.collect().objects and [] == project.verify()
    assert 4 == len(list(objects(lab)))


# `numb gc`, killed with SIGKILL when it is about to remove one more object than it may.
KILLED = """
import os, runpy, signal, sys
from pathlib import Path
may, unlink = int(sys.argv[1]), Path.unlink
def counted(path, missing_ok=False):
    global may
    may -= len(path.name) == 64
    if may < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(path, missing_ok)
Path.unlink = counted
sys.argv[1:] = ["gc"]
runpy.run_module("numb", run_name="__main__")
"""


def test_a_collection_that_is_killed_takes_nothing_that_runs_name(lab: Scene, tmp_path: Path) -> None:
    """kill -9 before the first object, between two, and in git: what is kept and what is in flight stays, and the next ends it."""
    flying = "\nimport time\nopen('ready', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    lab.write("train.py", SCRIPT + flying)
    process = lab.start("train", MINE="4")
    appears(lab.root / "ready")
    named = set(objects(lab))
    for n in range(5):
        objects(lab).put(bytes([n]))
    left = []
    for may in (0, 1, 2):
        words = [sys.executable, "-c", KILLED, str(may)]
        killed = subprocess.run(words, cwd=lab.root, env=lab.env, capture_output=True, timeout=60)
        assert -9 == killed.returncode, killed
        left.append(len(set(objects(lab)) - named))
    shim = Shim(lab, tmp_path / "shim")
    assert -9 == shim.numb("gc", at=3, how="numb-dies").code
    last = json.loads(lab.numb("gc --json").stdout)
    lab.write("go", "")
    process.communicate(timeout=60)

    assert ([5, 4, 2], 2, 5) == (left, last["objects"], last["left"]) and named == set(objects(lab))
    assert 0 == process.returncode and 4 == len(ids(lab)) and 0 == lab.numb("verify").code


@pytest.mark.parametrize(
    "loss", ["git branch -qD numb", "git branch -qD numb; rm .nmb/index.sqlite", "git branch -qf numb numb~1"]
)
def test_nothing_is_collected_where_the_branch_is_lost(lab: Scene, loss: str) -> None:
    """Nobody knows then what its runs need."""
    before = sorted(Objects(lab.root / ".nmb" / "objects"))
    lab.numb("list")
    lab.sh(loss)
    refused = lab.numb("gc")

    assert refused.code and "numb doctor" in refused.stderr
    assert before == sorted(Objects(lab.root / ".nmb" / "objects")) and before
