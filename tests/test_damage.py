"""Damage, full disks and missing files: nothing lost, nothing half-written, and the next thing to type."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PLAIN, Scene
from hypothesis import given
from hypothesis import strategies as st
from kit import Shim

from numb.inflight import added_up
from numb.store.objects import Objects


def flip(path: Path, byte: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if byte is None else byte] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path) -> None:
    path.unlink()


DAMAGES: list[Callable[[Path], None]] = [garbage, zero, truncate, empty, folder, gone]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_index_is_made_again(scene: Scene, damage: Callable[[Path], None]) -> None:
    """Whatever is in the place of the index, the listing is the same (I2, M23)."""
    scene.trained(lr=0.2)
    before = scene.runs()
    damage(scene.root / ".nmb" / "index.sqlite")
    assert before == scene.runs()
    assert 0 == scene.numb("train").code
    assert 2 == len(scene.runs())


def first_page_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise_behind_the_first_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096] + b"\x5a" * (path.stat().st_size - 4096))


def said(*statements: str) -> Callable[[Path], None]:
    """Damage that is sound SQLite: a table is gone, or a row says what numb never wrote."""

    def damage(path: Path) -> None:
        with sqlite3.connect(path, isolation_level=None) as db:
            for statement in statements:
                db.execute(statement)
        db.close()

    damage.__name__ = statements[0]
    return damage


@pytest.mark.parametrize(
    "damage",
    [
        first_page_only,
        half,
        noise_behind_the_first_page,
        said("drop table entries"),
        said("drop table damaged"),
        said("drop table meta"),
        said("alter table damaged rename column reason to notes"),
        said("update records set record = '{\"id\": 1}'"),
        said("update records set record = 'null'"),
        said("update records set record = x'fffe00'"),
        said(f"update records set record = '{'[' * 100_000}'"),
        said("update records set record = cast(x'ff' as text)"),
        said("update entries set commit_id = '--help'"),
        said("update entries set commit_id = x'00'"),
        said("update meta set value = x'00'"),
        said("update meta set value = '--all'"),
        said("insert or replace into meta values ('previous', 'x' || char(0))"),
        said("insert or replace into damaged values (7, x'ff', null)"),
    ],
    ids=lambda d: d.__name__[:60],
)
def test_an_index_that_is_damaged_deep_inside_is_made_again(scene: Scene, damage: Callable[[Path], None]) -> None:
    """A file that opens, and whose pages, tables or rows are wrong, is filled again in the middle of a command (I2, M23)."""
    scene.trained(lr=0.2)
    scene.trained(lr=0.3)
    index = scene.root / ".nmb" / "index.sqlite"
    before = [scene.numb(words) for words in ("list --json", "show @ --json")]

    for number, words in enumerate(("list --json", "show @ --json")):
        damage(index)
        assert before[number] == scene.numb(words)


@pytest.mark.parametrize("damage", [half, said("drop table entries"), said("update records set record = 'null'")])
def test_a_training_with_an_index_that_is_damaged_deep_inside(scene: Scene, damage: Callable[[Path], None]) -> None:
    """The run is kept as ever. It looks only where a network makes it, so that the damage may still be there for doctor."""
    scene.trained(lr=0.2)
    damage(scene.root / ".nmb" / "index.sqlite")

    trained, doctor = scene.numb("train"), scene.numb("doctor --fix")

    assert (0, "lr 0.1\n", 0) == (trained.code, trained.stdout, doctor.code), trained.stderr + doctor.stdout
    assert "everything is in order\n" == scene.numb("doctor").stdout
    assert [0.2, 0.1] == [each["params"]["lr"] for each in scene.runs()]


def test_an_index_that_is_damaged_and_cannot_be_replaced(cramped: Scene) -> None:
    """Where the damaged file can be neither read nor moved, the listing is made in memory."""
    scene = cramped
    scene.trained(lr=0.2)
    before = scene.numb("list --json")
    noise_behind_the_first_page(scene.root / ".nmb" / "index.sqlite")
    scene.sh("mount -o remount,ro .nmb")

    after = scene.numb("list --json")

    scene.sh("mount -o remount,rw .nmb")
    assert before == after


def test_a_read_only_index_of_a_branch_that_went_another_way(cramped: Scene) -> None:
    """What the read-only index knows is not true any more: the listing is that of the branch, and so is the next one."""
    scene = cramped
    run = scene.trained(lr=0.2)
    scene.trained(lr=0.3)
    scene.sh("git branch -f numb numb~1")
    scene.sh("touch .nmb/index.sqlite && mount -o remount,ro .nmb")

    done = [scene.numb("list --json") for _ in range(2)]

    scene.sh("mount -o remount,rw .nmb")
    assert [0, 0] == [each.code for each in done], done
    assert [[run["id"]]] * 2 == [[r["id"] for r in json.loads(each.stdout)] for each in done]
    scene.trained(lr=0.4)
    assert [0.2, 0.4] == [each["params"]["lr"] for each in scene.runs()]


@pytest.mark.parametrize("damage", [garbage, zero, truncate, empty, folder, gone], ids=lambda d: d.__name__)
def test_a_damaged_snapshot_index_is_made_again(scene: Scene, damage: Callable[[Path], None]) -> None:
    """numb's own git index is a cache: the next snapshot is right without it."""
    scene.trained(lr=0.2)
    damage(scene.root / ".nmb" / "index")
    scene.sh("echo new > new.txt")
    assert 0 == scene.numb("train").code
    assert "new" == scene.sh("git show numb:new.txt")


def pruned(scene: Scene) -> None:
    """The branch goes, and with it what the kept index names: files that stand nowhere else."""
    scene.sh("git branch -qD numb && git reflog expire --expire=now --all && git gc -q --prune=now")


def flipped(scene: Scene) -> None:
    """A bit of the id of a file's content flips in the kept index, which git does not notice."""
    index = scene.root / ".nmb" / "index"
    content = index.read_bytes()
    blob = bytes.fromhex(scene.sh("git hash-object data.txt"))
    assert 1 == content.count(blob)
    index.write_bytes(content.replace(blob, bytes([blob[0] ^ 1, *blob[1:]])))


@pytest.mark.parametrize("change", ["echo '# edited' >> train.py", ":"], ids=["edited", "unchanged"])
@pytest.mark.parametrize("poison", [pruned, flipped], ids=lambda p: p.__name__)
def test_a_poisoned_snapshot_index_is_made_again(scene: Scene, poison: Callable[[Scene], None], change: str) -> None:
    """A kept index that names what is not there costs nobody anything but time: the run is kept, whole, without a word."""
    scene.sh("echo data > data.txt && mkdir deep && echo deep > deep/more.txt")
    scene.trained(lr=0.2)
    scene.trained(lr=0.3)  # from here on git's own list of trees in the index is whole
    poison(scene)
    scene.sh(change)

    done = scene.numb("train")
    run = scene.runs()[-1]
    again = scene.numb("train --again")

    assert (0, "lr 0.1\n", f"numb: saved {run['id']} → acc 0.9\n") == (done.code, done.stdout, done.stderr)
    assert [] == run["notes"]
    assert ("data", "deep") == (scene.sh("git show numb~1:data.txt"), scene.sh("git show numb~1:deep/more.txt"))
    assert scene.read("train.py").strip() == scene.sh("git show numb~1:train.py")
    assert 0 == again.code and "" == scene.sh("ls .nmb/runs")
    scene.sh("git fsck --strict --no-dangling")
    found = json.loads(scene.numb("doctor --json").stdout)
    assert (["git has lost the commits of"] if poison is pruned else []) == [each["text"][:27] for each in found]


@pytest.mark.parametrize("change", ["echo '# edited' >> train.py", ":"], ids=["edited", "unchanged"])
def test_a_revert_with_a_poisoned_snapshot_index(scene: Scene, change: str) -> None:
    """What was there before is saved whole, and comes back."""
    scene.sh("echo data > data.txt")
    run = scene.trained(lr=0.2)
    scene.trained(lr=0.3)
    flipped(scene)
    scene.sh(change)
    text = scene.read("train.py")

    done = [scene.numb("revert", run["id"]), scene.numb("revert --undo")]

    assert [0, 0] == [each.code for each in done], done
    assert ("data", text.strip()) == (scene.sh("git show numb~1:data.txt"), scene.sh("git show numb~1:train.py"))
    assert text == scene.read("train.py")


@pytest.mark.usefixtures("warm")
def test_damaged_weights_are_refused_before_they_are_loaded(torch_scene: Scene) -> None:
    """A flipped bit, which torch would load happily (M17), stops trial and report; nothing is recorded or written (I4)."""
    run = torch_scene.trained()
    objects = Objects(torch_scene.root / ".nmb" / "objects")
    (weights,) = map(objects.path, objects)
    flip(weights, 0)
    tip = torch_scene.sh("git rev-parse numb")

    trial, report = torch_scene.numb("trial", run["id"]), torch_scene.numb("report", run["id"])

    assert (125, 1) == (trial.code, report.code)
    assert weights.name in trial.stderr and weights.name in report.stderr
    assert "Traceback" not in trial.stderr + report.stderr
    assert not list(torch_scene.root.glob("*report*"))
    assert tip == torch_scene.sh("git rev-parse numb")
    doctor = torch_scene.numb("doctor")
    assert (3, True) == (doctor.code, f"{weights.name} is damaged" in doctor.stdout)

    again = torch_scene.numb("train --again")

    assert (0, 0) == (again.code, torch_scene.numb("doctor").code)
    assert 0 == torch_scene.numb("report", run["id"]).code


@pytest.mark.usefixtures("warm")
def test_without_the_folder_everything_but_the_weights_comes_back(torch_scene: Scene) -> None:
    """After `rm -rf .nmb` the runs are listed from the branch, missing weights are named, and training goes on (C7, K4)."""
    run = torch_scene.trained()
    torch_scene.sh("rm -rf .nmb")

    listed, shown, report, doctor = (torch_scene.numb(c) for c in ("list --json", "show @", "report @", "doctor"))
    again = torch_scene.numb("train --again")

    assert [run["id"]] == [r["id"] for r in json.loads(listed.stdout)]
    assert "missing here: 1 object of the weights" in shown.stdout
    assert (1, True) == (report.code, "is missing" in report.stderr)
    assert (3, True) == (doctor.code, f"the weights of {run['id']} are missing" in doctor.stdout)
    assert 0 == again.code
    assert "*\n" == torch_scene.read(".nmb/.gitignore")


RECORD = '{"format": 1, "id": "20260101-000000-aaaa", "kind": "train", "status": "complete", "started": 1'


@pytest.mark.parametrize(
    "text",
    [
        "{broken",
        RECORD + ', "models": [3]}',
        RECORD + ', "architecture": {}}',
        RECORD + ', "project": "\\udc80"}',
        RECORD + ', "started": "nan"}',
        RECORD + f', "started": 1{"0" * 400}}}',
        RECORD + ', "kind": null}',
    ],
    ids=lambda text: text.removeprefix(RECORD)[:24],
)
def test_a_damaged_record_does_not_hide_the_others(scene: Scene, text: str) -> None:
    """A commit on the branch whose record cannot be read is named; every other run is listed (I1, I5)."""
    scene.trained(lr=0.2)
    scene.sh(
        f"blob=$(echo '{text}' | git hash-object -w --stdin);"
        "run=$(printf '100644 blob %s\\trecord.json\\n' $blob | git mktree);"
        "nmb=$(printf '040000 tree %s\\trun\\n' $run | git mktree);"
        "tree=$(printf '040000 tree %s\\t.nmb\\n' $nmb | git mktree);"
        "git update-ref refs/heads/numb $(git commit-tree $tree -p numb -m bad)"
    )
    scene.trained(lr=0.3)

    done, doctor = scene.numb("list --json"), scene.numb("doctor")

    assert [0.2, 0.3] == [run["params"]["lr"] for run in json.loads(done.stdout)]
    assert "damaged record in" in done.stderr
    assert 3 == doctor.code


def loose(scene: Scene, name: str) -> Path:
    """The file in which git keeps an object."""
    identity = scene.sh(f"git rev-parse {name}")
    return scene.root / ".git/objects" / identity[:2] / identity[2:]


@pytest.mark.parametrize("damage", [gone, garbage, truncate, empty, flip], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["numb~1:.nmb/run/record.json", "numb~1:.nmb/run"])
def test_a_run_without_its_record_is_not_forgotten(scene: Scene, name: str, damage: Callable[[Path], None]) -> None:
    """Where git cannot read a record, its commit is named and every other run is listed; when it is back, so is the run (I5)."""
    lost, kept = scene.trained(lr=0.2), scene.trained(lr=0.3)
    path = loose(scene, name)
    content = path.read_bytes()
    path.chmod(0o644)
    damage(path)

    known, doctor = scene.numb("list --json"), scene.numb("doctor")
    scene.sh("rm .nmb/index.sqlite")
    listed, again = scene.numb("list --json"), scene.numb("list --json")
    trained = scene.numb("train")
    path.write_bytes(content)
    back = scene.numb("list --json")

    assert ([lost, kept], "") == (json.loads(known.stdout), known.stderr)
    assert (3, True) == (doctor.code, lost["commit"] in doctor.stdout), doctor.stdout
    assert [kept] == json.loads(listed.stdout)
    assert f"numb: damaged record in {lost['commit'][:12]}: it is missing or damaged\n" == listed.stderr
    assert listed == again
    assert 0 == trained.code, trained.stderr
    assert ([0.2, 0.3, 0.1], "") == ([run["params"]["lr"] for run in json.loads(back.stdout)], back.stderr)
    assert (0, "everything is in order\n") == (scene.numb("doctor").code, scene.numb("doctor").stdout)


def test_a_record_whose_commit_was_renamed_is_not_forgotten(scene: Scene) -> None:
    """A commit without numb's trailers that has a record's folder is a run too; one without either is nobody's."""
    scene.trained(lr=0.2)
    tree = scene.sh("git rev-parse numb^{tree}")
    scene.sh(f"git update-ref refs/heads/numb $(git commit-tree {tree} -p numb~1 -m 'my best run')")
    scene.sh("git update-ref refs/heads/numb $(git commit-tree $(git mktree </dev/null) -p numb -m 'a note')")
    loose(scene, "numb~1:.nmb/run/record.json").unlink()

    done = scene.numb("list")

    commit = scene.sh("git rev-parse numb~1")
    assert (
        f"numb: no runs yet: numb train\nnumb: damaged record in {commit[:12]}: it is missing or damaged\n"
        == done.stderr
    )


@pytest.mark.parametrize("damage", [gone, garbage], ids=lambda d: d.__name__)
def test_a_hole_in_the_branch(scene: Scene, damage: Callable[[Path], None]) -> None:
    """With a commit missing in the middle of the branch, the rest is listed, a run is kept, and doctor says how to mend it."""
    runs = [scene.trained(lr=lr) for lr in (0.2, 0.3, 0.4, 0.5)]
    scene.sh("git clone -q --no-hardlinks --mirror . ../elsewhere")
    hole = loose(scene, "numb~2")
    hole.chmod(0o644)
    damage(hole)
    said = f"numb: damaged record in {runs[1]['commit'][:12]}: the commit is missing or damaged, and runs before it may"

    trained = scene.numb("train")  # the listing knows all that was there, and the branch has gone on
    known = scene.numb("list --json")
    scene.sh("rm .nmb/index.sqlite")
    listed, shown, doctor = (scene.numb(words) for words in ("list --json", "show @ --json", "doctor"))

    assert (0, "lr 0.1\n") == (trained.code, trained.stdout), trained.stderr
    assert [0.2, 0.3, 0.4, 0.5, 0.1] == [run["params"]["lr"] for run in json.loads(known.stdout)]
    assert [0.4, 0.5, 0.1] == [run["params"]["lr"] for run in json.loads(listed.stdout)]
    assert (1, True) == (len(listed.stderr.splitlines()), listed.stderr.startswith(said)), listed.stderr
    assert (0, 0.1) == (shown.code, json.loads(shown.stdout)["params"]["lr"])
    assert (3, True) == (doctor.code, f"the run in commit {runs[1]['commit']} cannot be read" in doctor.stdout)
    assert "numb doctor" not in doctor.stdout and "git fetch --refetch PATH numb" in doctor.stdout

    hole.unlink(missing_ok=True)
    scene.sh("git fetch -q --refetch ../elsewhere numb")

    assert [0.2, 0.3, 0.4, 0.5, 0.1] == [run["params"]["lr"] for run in scene.runs()]
    assert (0, "everything is in order\n") == (scene.numb("doctor").code, scene.numb("doctor").stdout)


def test_a_branch_whose_tip_is_missing(scene: Scene) -> None:
    """What the listing knows is shown; a new run waits in .nmb until the commit is back, and then goes on from there."""
    scene.trained(lr=0.2)
    scene.trained(lr=0.3)
    tip = loose(scene, "numb")
    content = tip.read_bytes()
    scene.sh("git remote add origin ../elsewhere && git update-ref refs/remotes/origin/numb numb~1")
    tip.unlink()

    listed, trained, doctor = (scene.numb(words) for words in ("list --json", "train", "doctor"))
    tip.write_bytes(content)
    back = scene.numb("list --json")

    assert [0.2, 0.3] == [run["params"]["lr"] for run in json.loads(listed.stdout)]
    assert (125, "lr 0.1\n") == (trained.code, trained.stdout)
    assert "is kept in" in trained.stderr and "Traceback" not in trained.stderr + doctor.stderr
    assert (3, True) == (doctor.code, "git fetch --refetch origin numb" in doctor.stdout), doctor.stdout
    assert [0.2, 0.3, 0.1] == [run["params"]["lr"] for run in json.loads(back.stdout)]


def test_a_listing_that_says_something_else_is_found(scene: Scene) -> None:
    """doctor reads the branch itself; a row of the listing that is wrong and well formed is told, and made again by --fix."""
    run = scene.trained(lr=0.2)
    said("update records set record = replace(record, '0.2', '0.9')")(scene.root / ".nmb" / "index.sqlite")

    found, fixed = scene.numb("doctor"), scene.numb("doctor --fix")

    assert (3, True) == (found.code, "index.sqlite does not say what stands on the branch" in found.stdout)
    assert (0, [run]) == (fixed.code, scene.runs())


@pytest.mark.parametrize("damage", [garbage, truncate, empty, gone], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "order.json", "index"])
def test_a_damaged_run_folder_stops_nothing(scene: Scene, name: str, damage: Callable[[Path], None]) -> None:
    """What a crash left behind may be damaged: every command works, and doctor names the folder (I1, I3)."""
    scene.trained(lr=0.2)
    scene.sh('sed -i \'s/^print/open("on.ignored", "w").close(); __import__("time").sleep(60)\\nprint/\' train.py')
    worker = scene.start("train")
    scene.sh("until [ -e on.ignored ]; do sleep 0.05; done")
    scene.sh("until git for-each-ref refs/numb | grep -q .; do sleep 0.02; done")
    scene.sh(f"kill -9 -- -{worker.pid}; rm on.ignored; git checkout -q train.py")
    worker.communicate()
    (left,) = (scene.root / ".nmb" / "runs").iterdir()
    damage(left / name)

    listed, trained = scene.numb("list"), scene.numb("train")
    doctor = scene.numb("doctor --fix")

    assert (0, 0) == (listed.code, trained.code), listed.stderr + trained.stderr
    assert "Traceback" not in listed.stderr + trained.stderr + doctor.stderr
    assert {"complete"} <= {run["status"] for run in scene.runs()} <= {"complete", "lost"}
    if name == "run.json":
        assert left.name in doctor.stdout
    else:
        assert [left.name] == [run["id"] for run in scene.runs() if run["status"] == "lost" and run["commit"]]


@pytest.fixture
def cramped(scene: Scene, small_disk: Callable[[Path], Path]) -> Scene:
    """The scene with its `.nmb` on a file system of 2 MB."""
    small_disk(scene.root / ".nmb")
    return scene


def test_a_full_disk_never_stops_a_training(cramped: Scene) -> None:
    """With no room at all the script runs, numb says so, its code is the script's; with --strict it does not start (C2, C4)."""
    scene = cramped
    scene.trained(lr=0.2)
    queue = scene.write("../q.json", '[{"lr": 0.7}]')
    scene.sh("head -c 4M /dev/zero > .nmb/fill 2>/dev/null || true")

    done = scene.numb("train")
    strict = scene.numb("train --strict")
    trial = scene.numb("train", "--queue", str(queue))  # without its values it would train something else
    listed, doctor = scene.numb("list"), scene.numb("doctor")
    begun = scene.sh("ls .nmb/runs")
    scene.sh("rm .nmb/fill")
    freed = scene.numb("train")

    assert "" == begun
    assert "No space left" in trial.stderr and (125, "") == (trial.code, trial.stdout)
    assert (0, "lr 0.1\n") == (done.code, done.stdout)
    assert "nothing of it is recorded" in done.stderr and "No space left" in done.stderr
    assert (125, "") == (strict.code, strict.stdout)
    assert (0, 0) == (listed.code, freed.code)
    assert f"problem: {scene.root}/.nmb has room for 0.0 MB: " in doctor.stdout
    assert [0.2, 0.1] == [run["params"]["lr"] for run in scene.runs()]


def test_a_disk_that_fills_during_a_run(cramped: Scene) -> None:
    """The script is unaffected, and what was recorded is published once there is room again (C1, C2)."""
    scene = cramped
    scene.sh(
        """sed -i 's/^print/__import__("os").system("head -c 4M \\/dev\\/zero > .nmb\\/fill 2>\\/dev\\/null")\\nprint/' train.py"""
    )

    done = scene.numb("train")
    kept = scene.sh("ls .nmb/runs")
    scene.sh("rm .nmb/fill")
    recovered = scene.numb("list --json")

    assert "lr 0.1\n" == done.stdout
    (run,) = json.loads(recovered.stdout)
    assert (0, "", "complete", 0) == (
        done.code,
        kept,
        run["status"],
        run["exit_code"],
    )  # there is room kept for its end
    assert ["incomplete: the log stopped: No space left on device"] == run["notes"]
    assert "" == scene.sh("ls .nmb/runs")


def test_a_read_only_folder(cramped: Scene) -> None:
    """Reading works without writing; a training runs and says that it is not recorded (C4)."""
    scene = cramped
    run = scene.trained(lr=0.2)
    scene.sh("rm .nmb/index.sqlite && mount -o remount,ro .nmb")

    listed, shown, done = scene.numb("list --json"), scene.numb("show @"), scene.numb("train")
    scene.sh("mount -o remount,rw .nmb")

    assert [run["id"]] == [r["id"] for r in json.loads(listed.stdout)]
    assert 0 == shown.code
    assert (0, "lr 0.1\n") == (done.code, done.stdout)
    assert "Read-only file system" in done.stderr


def test_a_script_that_removes_the_folder(scene: Scene) -> None:
    """`rm -rf .nmb` (or git clean -fdx) in the middle of a run: the run is on the branch, and the code is the script's."""
    scene.sh("""sed -i 's/^print/__import__("shutil").rmtree(".nmb")\\nprint/' train.py""")
    done = scene.numb("train", "--", "3")
    (run,) = scene.runs()
    assert (3, "failed") == (done.code, run["status"])
    assert "Traceback" not in done.stderr


def test_doctor_finds_nothing_in_order_and_says_so(scene: Scene) -> None:
    """After ordinary work there is nothing to repair."""
    scene.trained(lr=0.2)
    scene.numb("revert @")
    assert (0, "everything is in order\n", "") == (scene.numb("doctor").code, *_out(scene.numb("doctor")))


def test_doctor_brings_the_branch_back(scene: Scene) -> None:
    """A deleted branch is made again at its last known commit; a moved one is told, with the command that keeps it (I5)."""
    scene.trained(lr=0.2)
    scene.trained(lr=0.3)
    tip, ids = scene.sh("git rev-parse numb"), [run["id"] for run in scene.runs()]
    scene.sh("git branch -D numb -q")

    found, fixed = scene.numb("doctor"), scene.numb("doctor --fix")
    back = [run["id"] for run in scene.runs()]
    scene.sh("git branch -f numb numb~1")
    scene.numb("list")
    moved = scene.numb("doctor")

    assert (3, True) == (found.code, "branch numb is gone" in found.stdout)
    assert (0, ids) == (fixed.code, back)
    assert (3, True) == (moved.code, f"git branch numb-before {tip}" in moved.stdout)


def test_doctor_removes_old_leftovers_only(scene: Scene) -> None:
    """Temporary files are removed when they are older than a day, by --fix and not before (A6)."""
    old, new = scene.root / ".nmb" / ".x.1-aa.tmp", scene.root / ".nmb" / ".y.1-bb.tmp"
    for path in (old, new):
        path.write_text("left")
    os.utime(old, (0, 0))
    assert 3 == scene.numb("doctor").code
    assert old.exists()
    assert 0 == scene.numb("doctor --fix").code
    assert (False, True) == (old.exists(), new.exists())


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"one\n", b"\xff\xfe1", "²".encode(), b"1" * 5000], ids=lambda c: repr(c[:4])
)
def test_a_damaged_format_is_not_a_later_one(scene: Scene, content: bytes) -> None:
    """What is not a number is called damaged, nothing stops because of it, and --fix writes it anew."""
    scene.trained(lr=0.2)
    (scene.root / ".nmb/format").write_bytes(content)

    done = [scene.numb(words) for words in ("list", "train")]
    found, fixed = scene.numb("doctor"), scene.numb("doctor --fix")

    assert [0, 0] == [each.code for each in done], done
    assert all(".nmb/format is damaged" in each.stderr and "numb doctor --fix" in each.stderr for each in done)
    assert (3, 1) == (found.code, found.stdout.count("problem:")), found.stdout
    assert ".nmb/format is damaged" in found.stdout and "\n  --fix writes it anew\n" in found.stdout
    assert "numb: 1 problem\n" in found.stderr
    assert (0, "1\n") == (fixed.code, scene.read(".nmb/format"))
    assert "" == scene.numb("list").stderr


BROKEN = {
    "cut off": ('{"branch": "lab", "train": {"command": "python tr', ":1:"),
    "a comma": ('{\n  "train": {"command": "python train.py",},\n  "branch": "lab"\n}', ":2:"),
    "a wrong type": ('{\n  "branch": "lab",\n  "log": {"max_mb": "many"}\n}', ":3:"),
    "a conflict": ('{\n<<<<<<< ours\n  "log": {},\n=======\n>>>>>>> theirs\n  "branch": "lab"\n}', ":2:"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_settings_do_not_hide_the_runs(empty: Scene, name: str) -> None:
    """Looking at runs needs no nmb.json that can be understood: the place of the fault is said, and the defaults do (I7)."""
    text, where = BROKEN[name]
    empty.write("train.py", PLAIN)
    empty.sh("numb init --branch lab && numb train")
    (run,) = empty.runs()
    empty.write("nmb.json", text)
    refusing = ["train", "trial @", "queue run q.json", "queue init q.json"]

    looking = [empty.numb(words) for words in ("list --json", "show @ --json", "report @ --into ../report")]
    doctor = empty.numb("doctor")
    refused = [empty.numb(words) for words in refusing]
    reverted = empty.numb("revert @")

    assert [0, 0, 0, 0] == [each.code for each in (*looking, reverted)], (looking, reverted)
    assert all(each.stderr.startswith(f"numb: {empty.root}/nmb.json{where}") for each in (*looking, reverted, doctor))
    assert [run["id"]] == [each["id"] for each in json.loads(looking[0].stdout)]
    assert [2] * 4 == [each.code for each in refused], refused
    assert (3, True) == (doctor.code, f"problem: {empty.root}/nmb.json{where}" in doctor.stdout), doctor.stdout
    assert 0 == empty.numb("doctor").code  # the revert has brought nmb.json back


def test_broken_settings_and_an_unknown_branch(scene: Scene) -> None:
    """Where the name of the branch cannot be made out, it is the usual one if that is numb's; a branch of the user's never is."""
    scene.trained(lr=0.2)
    scene.write("nmb.json", "{" + "\0" * 100)
    listed = scene.numb("list --json")
    scene.sh("git branch -f numb main && rm -rf .nmb")
    refused = scene.numb("list")

    assert (0, 1) == (listed.code, len(json.loads(listed.stdout)))
    assert "going on with the defaults, and branch numb" in listed.stderr
    assert (2, "", True) == (refused.code, refused.stdout, "nmb.json:1:2" in refused.stderr)


@pytest.mark.parametrize("patterns", ['["*.priv", "a[b]c"]', '["*.priv" "x"', "[3]"])
def test_broken_settings_take_no_private_file_in(scene: Scene, patterns: str) -> None:
    """What the user kept out of snapshots stays out when a revert saves the work tree under broken settings."""
    run = scene.trained(lr=0.2)
    scene.write("nmb.json", f'{{"train": {{,}}, "snapshot": {{"exclude": {patterns}}}}}')
    scene.sh("echo private > key.priv && echo '# edited' >> train.py")

    done = scene.numb("revert", run["id"])

    assert 0 == done.code, done.stderr
    assert "# edited" in scene.sh("git show numb:train.py")
    assert "" == scene.sh("git ls-tree -r --name-only numb key.priv")
    assert "private" == scene.read("key.priv").strip()


def test_a_read_only_folder_is_a_finding(cramped: Scene) -> None:
    """doctor says that nothing is recorded, and how to see where it is mounted."""
    scene = cramped
    scene.trained(lr=0.2)
    scene.sh("mount -o remount,ro .nmb")

    done = scene.numb("doctor")

    scene.sh("mount -o remount,rw .nmb")
    assert (3, True) == (done.code, f"problem: {scene.root}/.nmb cannot be written to" in done.stdout), done.stdout
    assert f"findmnt --target {scene.root}/.nmb" in done.stdout


@pytest.mark.usefixtures("warm")
def test_doctor_asks_git_once_for_all_weights(torch_scene: Scene, tmp_path: Path) -> None:
    """However many runs have weights, doctor starts the same number of processes."""
    shim = Shim(torch_scene, tmp_path / "shim")
    torch_scene.trained()
    shim.numb("doctor")
    one = len(shim.calls)
    for _ in range(2):
        torch_scene.trained("--again")

    done = shim.numb("doctor")

    assert (0, one) == (done.code, len(shim.calls)), done.stdout


@pytest.mark.parametrize("damage", [gone, garbage], ids=lambda d: d.__name__)
def test_a_report_is_whole_or_not_at_all(scene: Scene, damage: Callable[[Path], None]) -> None:
    """A file of the record that git cannot read is named, and nothing is written (I1)."""
    run = scene.trained(lr=0.2)
    log = loose(scene, "numb:.nmb/run/output.log")
    log.chmod(0o644)
    damage(log)

    done, shown = scene.numb("report @"), scene.numb("show @ --log")

    said = f"numb: .nmb/run/output.log of commit {run['commit']} cannot be read\n      try: numb doctor\n"
    assert (1, "", said) == (done.code, done.stdout, done.stderr)
    assert not list(scene.root.glob("*report*"))
    assert (0, "") == (shown.code, shown.stderr)


@pytest.mark.usefixtures("warm")
def test_weights_whose_manifest_is_gone(torch_scene: Scene) -> None:
    """The run is shown all the same, and doctor counts its weights as missing."""
    run = torch_scene.trained()
    loose(torch_scene, "numb:.nmb/run/weights/Net.json").unlink()

    shown, doctor = torch_scene.numb("show @"), torch_scene.numb("doctor")

    assert (0, True) == (shown.code, "missing here: 1 object of the weights" in shown.stdout), shown.stderr
    assert (3, True) == (doctor.code, f"the weights of {run['id']} are missing or damaged" in doctor.stdout)


def test_a_store_of_a_later_numb_is_not_touched(scene: Scene) -> None:
    """format 99 is refused with its version, by every command (I8)."""
    scene.write(".nmb/format", "99\n")
    for command in ("train", "list", "doctor --fix"):
        done = scene.numb(command)
        assert (1, True) == (done.code, "written by a later numb (format 99)" in done.stderr), command


def _out(done) -> tuple[str, str]:
    return done.stdout, done.stderr


EVENTS = [
    {"event": "start", "process": 7}, {"event": "param", "values": {"lr": 0.1}, "names": ["lr"]}, {"event": "of a later numb", "x": [1]},
    {"event": "result", "values": {"acc": 0.5}}, {"event": "message", "text": "café"}, {"event": "signal", "name": "SIGTERM"}, {"event": "end"},
]  # fmt: skip


@given(st.integers(0, 400), st.lists(st.tuples(st.integers(0, len(EVENTS)), st.binary(max_size=20)), max_size=3))
def test_any_beginning_of_the_events_can_be_read(cut: int, strange: list[tuple[int, bytes]]) -> None:
    """I3: a torn last line is as if it had not come; what is no event is counted, and nothing else is lost by it."""
    lines = [json.dumps(event).encode() for event in EVENTS]
    whole = b"\n".join(lines) + b"\n"
    garbage = [(at, text.replace(b"\n", b"") + b"{") for at, text in strange]
    mixed = [*lines]
    for at, text in sorted(garbage, reverse=True):
        mixed.insert(at, text)
    read = whole[:cut]

    assert added_up(read) == added_up(b"".join(line + b"\n" for line in read.split(b"\n")[:-1]))
    told = added_up(b"\n".join(mixed) + b"\n")
    assert [f"{len(garbage)} unreadable events"] * bool(garbage) == list(told.notes)
    assert replace(told, notes=()) == added_up(whole) and (told.ended, told.signal) == (True, "SIGTERM")
    assert ({"lr": 0.1}, {"acc": 0.5}, "café") == (told.params, told.results, told.message)
