"""What is promised of sharing: no run is lost between machines, and nobody sees one whose weights are not there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Scene
from kit import sealed_here

from numb import gitremote
from numb.errors import RemoteFailed
from numb.project import Project
from numb.store.objects import Objects

# A run with an object of its own and one that all share; without torch, which takes a second.
SCRIPT = """
import os
import numb
mine = os.environ.get("MINE", "0")
numb.save("shared.bin", bytes(1 << 20)), numb.save("own.bin", mine.encode() * (1 << 20))
print(mine)
"""


# A run whose weights, checkpoint and tensors are objects, and what evaluates it.
LEARNT = """
import os, torch, numb
mine = float(os.environ.get("MINE", "1"))
run = numb.run()
net = numb.numb_model(torch.ones(1, 2))(torch.nn.Linear(2, 2, bias=False))
net.weight.data.fill_(mine)
run.track(net=net)
step = run.restore().step + 1
run.checkpoint(step=step)
numb.save("large.txt", "x" * (1 << 20)), numb.save("state", torch.full((4,), mine))
print(step, net.weight.sum().item())
"""
EVALUATES = """
import torch, numb
net = numb.numb_model(torch.ones(1, 2))(torch.nn.Linear(2, 2, bias=False))
numb.numb_trial_result({"sum": net.weight.sum().item()})
"""


@pytest.fixture
def lab(empty: Scene) -> Scene:
    """A project with a run, a bare repository as origin, and a folder for objects, which `nmb.json` names."""
    empty.write("train.py", SCRIPT)
    empty.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}}')
    empty.sh("git init -q --bare ../origin.git && git remote add origin ../origin.git && mkdir ../store")
    empty.numb("init")
    done = empty.numb("remote add lab ../store --branch-to origin")
    assert 0 == done.code, done.stderr
    empty.sh("git add -A && git commit -qm x && git push -q origin HEAD")
    assert 0 == empty.numb("train", env={"MINE": "1"}).code
    return empty


def clone(lab: Scene, name: str) -> Scene:
    lab.sh(
        f"git clone -q ../origin.git ../{name} && git -C ../{name} config user.email a@b && git -C ../{name} config user.name a"
    )
    return Scene(lab.root.parent / name, Path(lab.env["HOME"]))


def ids(scene: Scene) -> list[str]:
    return [run["id"] for run in scene.runs()]


def stored(lab: Scene) -> set[str]:
    return set(Objects(lab.root.parent / "store" / "objects"))


def test_a_clone_has_it_all_with_one_command(lab: Scene) -> None:
    """Pushed here, pulled there: the runs, and their objects when they are asked for, or all at once."""
    pushed = lab.numb("push")
    other = clone(lab, "other")
    pulled = other.numb("pull")
    before = len(list(Objects(other.root / ".nmb" / "objects")))
    shown = other.numb("show @ --artifact own.bin")
    one = len(list(Objects(other.root / ".nmb" / "objects")))
    everything = other.numb("pull --objects")
    again = [lab.numb("push"), other.numb("push"), other.numb("pull --objects")]

    assert [0] * 7 == [done.code for done in (pushed, pulled, shown, everything, *again)], (pushed, pulled, shown)
    assert "sent 2 objects, 2.1 MB; the branch is at origin" in pushed.stderr
    assert (
        ids(lab) == ids(other) and "1 new entry" in pulled.stderr and "elsewhere: 2 objects of weights" in pulled.stderr
    )
    assert (0, 1, "1" * (1 << 20)) == (before, one, shown.stdout)
    assert "1 object, 1.05 MB" in everything.stderr
    assert all("sent 0 objects" in done.stderr for done in again[:2]) and "0 new entries" in again[2].stderr
    assert 0 == other.numb("verify").code and 0 == other.numb("doctor").code
    assert "" == other.sh("git status --porcelain")


def test_a_clone_that_has_not_fetched_weights_is_in_order(lab: Scene) -> None:
    """They are where it would fetch them from; `verify` says in one line what it could not read."""
    lab.numb("push")
    other = clone(lab, "other")
    other.numb("pull")
    healthy, verified = other.numb("doctor"), other.numb("verify")
    store = lab.root.parent / "store" / "objects"
    one = min(stored(lab))
    Objects(store).path(one).unlink()
    ill = other.numb("doctor")
    store.rename(store.with_name("away"))
    away = other.numb("doctor")

    assert 0 == healthy.code, healthy
    assert (3, 1) == (verified.code, verified.stdout.count("problem: ")), verified
    assert f"2 objects of 1 run ({ids(lab)[0]})" in verified.stdout and "numb pull lab --objects" in verified.stdout
    assert (3, 3) == (ill.code, away.code) and "lab has not got them" in ill.stdout and "numb push lab" in ill.stdout
    assert ids(lab)[0] in ill.stdout


def test_a_damaged_object_is_fetched_again(lab: Scene) -> None:
    """Its bytes are those of a place again; where none has it, that is said, and it stays."""
    lab.numb("push")
    here = Objects(lab.root / ".nmb" / "objects")
    path = here.path(min(here))
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"?" + whole[1:])
    told, mended, after = lab.numb("doctor"), lab.numb("doctor --fix"), path.read_bytes()
    path.write_bytes(b"?" + whole[1:])
    Objects(lab.root.parent / "store" / "objects").path(path.name).unlink()
    hopeless = lab.numb("doctor --fix")

    assert (3, 0) == (told.code, mended.code) and "--fix fetches it again from lab" in told.stdout, mended
    assert whole == after and 3 == hopeless.code and "no remote has" in hopeless.stdout
    assert b"?" + whole[1:] == path.read_bytes()


@pytest.mark.usefixtures("warm")
def test_what_is_needed_is_fetched_when_it_is_needed(empty: Scene) -> None:
    """By each command and each function that reads weights, checkpoints or artifacts; `numb pull` alone has brought none."""
    empty.write("train.py", LEARNT), empty.write("trial.py", EVALUATES)
    empty.sh("git init -q --bare ../origin.git && git remote add origin ../origin.git && mkdir ../store")
    empty.numb("init")
    empty.numb("remote add lab ../store --branch-to origin")
    empty.sh("git add -A && git commit -qm x && git push -q origin HEAD")
    assert [0, 0, 0] == [empty.numb("train", env={"MINE": n}).code for n in "12"] + [empty.numb("push").code]
    other = clone(empty, "other")
    other.env = empty.env
    assert 0 == other.numb("pull").code
    first, second = ids(other)
    done, here = [], other.root / ".nmb" / "objects"
    for words in (
        f"trial {first}",
        f"report {first} --into ../taken",
        f"diff --weights {first} {second}",
        f"train --init-from {second}",
        f"train --again --resume {first}",
    ):
        done.append(other.numb(words))
        assert 0 == done[-1].code, (words, done[-1])
        shutil.rmtree(here)  # what has come by now
    loaded = []
    with sealed_here(other):
        project = Project.open(other.root)
        run = project.find(second)
        for load in (
            lambda: project.load_state(run)["weight"][0].tolist(),
            lambda: project.load_state(run, 1)["net"]["weight"][0].tolist(),
            lambda: project.load(run, "state").tolist(),
            lambda: len(project.load(run, "large")),
            lambda: len(project.artifact(run, "large.txt")),
        ):
            loaded.append(load())
            shutil.rmtree(here)
        project.branch.close()

    assert ["1 8.0", "2 4.0"] == [each.stdout.strip() for each in done[3:]]
    assert "weight" in done[2].stdout and 4 == other.runs()[0]["trials"][0]["results"]["sum"]
    assert [1, 1] == torch.load(empty.root.parent / "taken" / "state_dict.pt")["weight"][0].tolist()
    assert [[2, 2], [2, 2], [2] * 4, 1 << 20, 1 << 20] == loaded


def test_a_resumed_run_is_the_resumed_one_everywhere(lab: Scene) -> None:
    """Also where the join has the other machine's history first, and for who reads all of it anew; what it was stays needed."""
    lab.write(
        "train.py",
        SCRIPT
        + "import torch\nrun = numb.run()\nrun.track(net=torch.nn.Linear(2, 1))\n"
        + "start = run.restore().step\nrun.checkpoint(step=start + 1)\n",
    )
    lab.numb("train")
    lab.numb("push")
    other = clone(lab, "other")
    other.numb("pull")
    assert 0 == other.numb("train", env={"MINE": "5"}).code
    assert 0 == lab.numb("train --again --resume @").code
    [_, resumed] = lab.runs()
    done = [scene.numb(words) for scene, words in ((lab, "push"), (other, "push"), (lab, "pull"))]
    third = clone(lab, "third")
    third.numb("pull")

    assert [0, 0, 0] == [each.code for each in done], done
    for scene in (lab, other, third):
        [found] = [run for run in scene.runs() if run["id"] == resumed["id"]]
        assert (resumed["commit"], [1, 2]) == (found["commit"], [kept["step"] for kept in found["checkpoints"]])
        assert "does not say what stands" not in scene.numb("doctor").stdout
    assert "0 objects" in lab.numb("gc --dry-run").stdout


def test_what_is_done_is_told_as_json(lab: Scene) -> None:
    """On stdout, alone; for whoever calls numb from a program."""
    told = [
        json.loads(done.stdout)
        for done in map(
            lab.numb, ("remote --json", "push --json", "pull --json", "rm @ --json", "undo --json", "gc --json")
        )
        if done.stderr == ""
    ]

    assert [
        [{"name": "lab", "url": "../store", "branch": "origin"}],
        {"objects": 2, "bytes": 2 << 20, "absent": 0, "branch": "origin"},
        {"runs": 0, "objects": 0, "bytes": 0, "missing": 0, "branch": "origin"},
        ids(lab),
        ids(lab),
        {"objects": 0, "bytes": 0, "left": 2, "left_bytes": 2 << 20, "folders": 0},
    ] == told


def test_two_machines_that_push_in_turn_lose_nothing(lab: Scene) -> None:
    """K3: each has the other's runs, joined, not merged; the history of both is whole, and nothing was forced."""
    lab.numb("push")
    other = clone(lab, "other")
    other.numb("pull")
    for turn in range(3):
        for number, scene in enumerate((lab, other)):
            assert 0 == scene.numb("train", env={"MINE": str(2 + 2 * turn + number)}).code
        done = [scene.numb("push") for scene in (lab, other)]
        assert [0, 0] == [each.code for each in done], done
    lab.numb("pull --objects")

    assert 7 == len(ids(lab)) == len(set(ids(lab))) and sorted(ids(lab)) == sorted(ids(other))
    assert (
        lab.sh("git rev-parse numb") == other.sh("git rev-parse numb") == lab.sh("git -C ../origin.git rev-parse numb")
    )
    assert "join" in lab.sh("git log -20 --format=%s numb")
    assert 0 == lab.numb("doctor").code and "" == lab.sh("git fsck --strict --no-dangling")
    assert 8 == len(stored(lab))


def test_many_who_push_at_once(lab: Scene) -> None:
    """Whoever is slower joins and pushes again."""
    lab.numb("push")
    others = [clone(lab, f"other{n}") for n in range(4)]
    for number, other in enumerate(others):
        other.numb("pull")
        other.numb("train", env={"MINE": str(number + 2)})
    processes = [other.start("push") for other in others]
    said = [process.communicate(timeout=120) for process in processes]
    lab.numb("pull")

    assert [0] * 4 == [process.returncode for process in processes], said
    assert 5 == len(ids(lab)) and 6 == len(stored(lab))


def test_the_branch_goes_last(lab: Scene) -> None:
    """K5: where an object cannot be sent, the branch is not, and nobody sees the run; the next push does both."""
    (lab.root.parent / "store" / "objects").mkdir()
    (lab.root.parent / "store" / "objects" / "tmp").write_text("in the way")
    failed = lab.numb("push")
    before = lab.sh("git -C ../origin.git branch --list numb")
    (lab.root.parent / "store" / "objects" / "tmp").unlink()

    assert (125, "") == (failed.code, before) and "Traceback" not in failed.stderr
    assert 0 == lab.numb("push").code and "numb" in lab.sh("git -C ../origin.git branch --list numb")


def test_a_remote_that_is_away_hurts_no_training(lab: Scene) -> None:
    """AC-L9: one line on stderr, the same exit code, the run is here; a later push sends it."""
    config = json.loads(lab.read("nmb.json"))
    lab.write("nmb.json", json.dumps({**config, "push": "lab"}))
    lab.sh("mv ../store ../away && touch ../store && mv ../origin.git ../gone.git")
    done = lab.numb("train", env={"MINE": "2"})
    lab.sh("rm ../store && mv ../away ../store && mv ../gone.git ../origin.git")

    assert (0, "2") == (done.code, done.stdout.strip())
    [line] = [line for line in done.stderr.splitlines() if "not pushed" in line]
    assert "numb push lab sends it later" in line and 2 == len(ids(lab))
    assert 0 == lab.numb("train", env={"MINE": "3"}).code
    assert 4 == len(stored(lab)) and "3 " not in done.stderr
    other = clone(lab, "other")
    other.numb("pull")
    assert 3 == len(ids(other))


def test_a_place_that_there_is_not_is_named_after_a_training(lab: Scene) -> None:
    """And nothing is promised: no later push goes there."""
    lab.write("nmb.json", json.dumps({**json.loads(lab.read("nmb.json")), "push": "labb"}))
    done = lab.numb("train", env={"MINE": "2"})

    assert (0, "2") == (done.code, done.stdout.strip()) and 2 == len(ids(lab))
    assert "there is no remote labb" in done.stderr and "later" not in done.stderr


def test_without_a_place_for_objects_the_branch_goes_alone(lab: Scene) -> None:
    """And without a remote of git's the objects do; what is missing is said with what to type."""
    lab.numb("remote remove lab")
    alone = lab.numb("push origin")
    nowhere = lab.numb("push elsewhere")
    lab.sh("git remote remove origin")
    lab.numb("remote add lab ../store")
    objects = lab.numb("push")

    assert (0, 2, 0) == (alone.code, nowhere.code, objects.code)
    assert "sent 0 objects" in alone.stderr and "numb remote add elsewhere URL" in nowhere.stderr
    assert "git has no remote for the branch" in objects.stderr and 2 == len(stored(lab))
    assert "../store" in lab.numb("remote").stdout


@pytest.mark.parametrize(
    "url", ["ext::sh -c id", "-oProxyCommand=id", "http://host/x", "ssh://-oProxyCommand=id/x", ""]
)
def test_a_place_that_is_none_is_refused(lab: Scene, url: str) -> None:
    """J5: before anything is started; nmb.json stays as it is."""
    before = lab.read("nmb.json")
    done = (
        lab.numb("remote", "add", "other", "--", url)
        if url.startswith("-")
        else lab.numb("remote", "add", "other", url)
    )

    assert 2 == done.code and before == lab.read("nmb.json")


def test_a_branch_of_another_kind_is_not_joined(lab: Scene) -> None:
    """What a remote calls numb may be anything."""
    lab.sh("git push -q origin $(git commit-tree -m other $(git mktree < /dev/null)):refs/heads/numb")
    done = lab.numb("pull")

    assert 125 == done.code and "none that numb has made" in done.stderr
    assert 1 == len(ids(lab)) and 125 == lab.numb("push").code


def test_an_evil_tree_is_not_fetched(lab: Scene) -> None:
    """J3: git itself would take a tree with an entry called `..` (M16)."""
    lab.numb("push")
    lab.sh(
        """
        blob=$(echo evil | git hash-object -w --stdin)
        tree=$(printf '100644 blob %s\\t..\\n' $blob | git mktree)
        commit=$(git commit-tree $tree -p numb -m 'train x' -m 'Numb-Kind: train')
        git push -q origin $commit:refs/heads/numb
        """
    )
    tip = lab.sh("git rev-parse numb")
    other = clone(lab, "other")
    done = [lab.numb("pull"), other.numb("pull")]

    assert [125, 125] == [each.code for each in done] and tip == lab.sh("git rev-parse numb"), done
    assert "" == other.sh("git branch --list numb") and "Traceback" not in done[0].stderr + done[1].stderr


def test_what_was_purged_does_not_come_back(lab: Scene) -> None:
    """Neither by a push nor by a pull, nor from a clone that still has it: what is to be typed is said."""
    lab.write("secret.txt", "hunter2")
    lab.numb("train", env={"MINE": "2"})
    lab.numb("push")
    other, beside = clone(lab, "other"), Scene(lab.root.parent / "beside", Path(lab.env["HOME"]))
    other.numb("pull")
    lab.sh("git worktree add -q ../beside")
    told = lab.numb("purge --yes secret.txt")
    assert 0 == told.code
    lab.sh("git gc -q --prune=now && rm secret.txt")
    refused = [lab.numb("push"), lab.numb("pull"), beside.numb("push"), beside.numb("pull")]
    tip = lab.sh("git rev-parse numb")
    [typed] = [line.split("old branch: ")[1] for line in told.stderr.splitlines() if "old branch: " in line]
    lab.sh(f"{typed.replace(' push ', ' push -q ')} && git gc -q --prune=now")
    left = lab.sh("git cat-file --batch-all-objects --batch | strings | grep -c hunter2 || true")
    third = clone(lab, "third")
    third.sh("git fetch -q ../other numb:numb && git fetch -q ../other 'refs/numb/*:refs/numb/*'")
    third.numb("train", env={"MINE": "3"})
    pulled = other.numb("pull")
    other.numb("train", env={"MINE": "4"})
    theirs, own = other.numb("push"), [third.numb(words) for words in ("push", "pull origin")]
    after = lab.numb("pull")
    [hint] = [line.partition("try: ")[2] for line in own[0].stderr.splitlines() if "try: " in line]
    third.sh(hint)
    again = third.numb("pull origin")

    assert [125] * 4 == [done.code for done in refused] and "0" == left, (
        "not in git's folder either, after what was said"
    )
    assert all("git push --force-with-lease origin numb" in done.stderr for done in refused)
    assert [0, 0, 0, 0] == [done.code for done in (pulled, theirs, after, again)], (pulled, theirs, after, again)
    assert [125, 125] == [done.code for done in own] and "runs that are nowhere else" in own[0].stderr
    for scene in (lab, other, third):
        assert "" == scene.sh("git log --format=%h numb -- secret.txt")
    assert ids(lab) == ids(other) == ids(third) and 3 == len(ids(lab))
    assert "purged" in lab.sh("git log --format=%s numb") and tip != lab.sh("git rev-parse numb")


def test_what_is_sent_grows_with_what_is_new(lab: Scene) -> None:
    """AC-L6: pushing after every run sends each object once, and not all of them each time."""
    sent = []
    with sealed_here(lab):
        for mine in range(2, 6):
            project = Project.open(lab.root)
            sent.append(project.push("lab"))
            project.branch.close()
            lab.numb("train", env={"MINE": str(mine)})

    assert [2, 1, 1, 1] == [each.objects for each in sent]
    assert 5 << 20 == sum(each.bytes for each in sent)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port where somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []
        thread = threading.Thread(target=lambda: taken.append(server.accept()[0]), daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
            for each in taken:
                each.close()


def test_a_link_that_stalls_is_given_up(lab: Scene) -> None:
    """K2: git itself would wait for ever; its processes are ended, and what is here is whole."""
    with silent() as port, sealed_here(lab):
        lab.sh(f"git remote set-url origin git://127.0.0.1:{port}/x")
        git = Project.open(lab.root).git
        begin = time.monotonic()
        with pytest.raises(RemoteFailed, match=r"has heard nothing for 0\.5 s"):
            gitremote.fetch(git, "origin", patience=0.5)
        with pytest.raises(RemoteFailed):
            gitremote.push(git, "origin", patience=0.5)
    assert time.monotonic() - begin < 20
    assert 0 == lab.numb("doctor").code


def test_what_is_cut_off_is_old_or_new(lab: Scene) -> None:
    """K1: git is killed while it pushes and fetches; the next one goes through."""
    for _ in range(5):
        process = lab.start("push")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=0.05 + os.urandom(1)[0] / 300)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()
        assert "" == lab.sh("git -C ../origin.git fsck --strict --no-dangling")
    assert 0 == lab.numb("push").code
    other = clone(lab, "other")
    assert 0 == other.numb("pull --objects").code and ids(lab) == ids(other)
    assert 0 == other.numb("verify").code
