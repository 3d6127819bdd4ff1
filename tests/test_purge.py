"""What is promised of purging: what is to go is gone from the branch of the runs, and nothing else has changed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Scene
from kit import every_object

from numb.project import Project

SCRIPT = "import os, numb\nnumb.numb_trial_result({'n': int(os.environ.get('MINE', '0'))})\n"
SECRET = "hunter2-the-password"


@pytest.fixture
def lab(empty: Scene) -> Scene:
    """A project with four runs, of which the middle two have a secret beside the code, in a folder with a strange name."""
    empty.write("train.py", SCRIPT)
    empty.write("trial.py", SCRIPT)
    empty.sh("git add -A && git commit -qm x")
    empty.numb("init")
    for mine in range(4):
        if mine in (1, 2):
            empty.write('my "keys"/ä b.txt', SECRET)
            empty.write("other.txt", f"stays {mine}")
        else:
            empty.sh("rm -rf my* other.txt")
        assert 0 == empty.numb("train", env={"MINE": str(mine)}).code
    return empty


def story(scene: Scene, tip: str = "numb") -> list[str]:
    """Messages, people and dates of the branch, without the names of commits."""
    return scene.sh(f"git log --first-parent --format='%an %ae %ad %cn %cd %B' {tip}").split("\n")


def entries(scene: Scene) -> list[dict]:
    return [{**run, "commit": None} for run in scene.runs()]


def test_a_path_is_gone_from_every_snapshot(lab: Scene) -> None:
    """And after git's own collection from the disk; records, messages and dates, and all other files, are what they were."""
    before, told = entries(lab), story(lab)
    first = lab.sh("git rev-parse numb~3")
    assert SECRET.encode() in every_object(lab)

    dry = lab.numb("purge", 'my "keys"/ä b.txt')
    assert (1, True) == (dry.code, "out of 2 snapshots" in dry.stderr) and "--yes" in dry.stderr
    assert told == story(lab)
    done = lab.numb("purge", "--yes", 'my "keys"/ä b.txt')
    lab.sh("git gc -q --prune=now")

    assert 0 == done.code and "git gc --prune=now" in done.stderr
    assert SECRET.encode() not in every_object(lab)
    assert (before, told) == (entries(lab), story(lab, "numb~1"))
    assert re.fullmatch(r'purged \d{8}-\d{6}-.... my "keys"/ä b.txt', lab.sh("git log -1 --format=%s numb"))
    assert "stays 2" == lab.sh("git show numb~2:other.txt") and first == lab.sh("git rev-parse numb~4")
    assert 0 == lab.numb("doctor").code and "" == lab.sh("git fsck --strict --no-dangling")
    assert 0 == lab.numb("train", env={"MINE": "5"}).code and 5 == len(lab.runs())


def test_a_folder_is_a_path(lab: Scene) -> None:
    """As it is typed, in the folder where it is typed."""
    lab.sh("mkdir sub")
    done = lab.numb("purge", "--yes", '../my "keys"', cwd=lab.root / "sub")

    assert 0 == done.code and 4 == len(lab.runs())
    assert "" == lab.sh("git log --format=%h numb -- 'my*'")


def test_a_run_is_gone_and_the_others_name_each_other(lab: Scene) -> None:
    """Its trials go with it; a removal still removes what it removed, and is undone, though commits have other names now."""
    ids = [run["id"] for run in lab.runs()]
    project = Project.open(lab.root)
    lab.numb(f"rm {ids[2]}")
    done = lab.numb(f"purge --yes {ids[1]}")

    assert 0 == done.code and [ids[0], ids[3]] == [run["id"] for run in lab.runs()]
    assert ids[1] not in "".join(story(lab)) and 0 == lab.numb("doctor").code
    assert 0 == lab.numb("undo").code and [ids[0], ids[2], ids[3]] == [run["id"] for run in lab.runs()]
    assert 0 == lab.numb(f"show {ids[2]} --patch").code
    lab.numb(f"rm {ids[3]}")
    assert 0 == lab.numb(f"purge --yes {ids[3]}").code, "what is removed can be purged too"
    assert ids[3] not in lab.numb("undo").stderr
    project.branch.close()


def test_joined_histories_stay_joined(lab: Scene) -> None:
    """Both sides of a join lose the path; who came before whom stays."""
    lab.sh("git branch theirs numb~1")
    lab.write('my "keys"/ä b.txt', SECRET)
    lab.sh("git update-ref refs/heads/ours numb && git update-ref refs/heads/numb theirs")
    lab.numb("train", env={"MINE": "7"})
    project = Project.open(lab.root)
    project.git.join(lab.sh("git rev-parse ours"), time.time())
    lab.sh("git branch -qD ours theirs")
    shape = lab.sh("git log --format=%s --graph numb")
    before = entries(lab)

    assert 0 == lab.numb("purge", "--yes", 'my "keys"/ä b.txt').code
    lab.sh("git gc -q --prune=now")

    assert shape == lab.sh("git log --format=%s --graph numb~1") and before == entries(lab) and 5 == len(before)
    lab.sh("rm -r my*")
    assert SECRET.encode() not in every_object(lab)


# A training in two parts; what it tracks is next to nothing.
RESUMED = """
import os, torch, numb
run = numb.run()
run.track(generator=torch.Generator())
for step in range(run.restore().step + 1, 3):
    run.checkpoint(step=step)
    if "CUT" in os.environ:
        run.finish("incomplete", "cut")
        break
"""


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("words", ["secret.txt", "OTHER"])
def test_a_resumed_run_names_what_has_become_of_its_beginning(empty: Scene, words: str) -> None:
    """Whether a path or another run has gone: what `numb show` says it was earlier is on the branch, and has what it had."""
    empty.write("train.py", RESUMED)
    empty.sh("git add -A && git commit -qm x && echo hunter2 > secret.txt && echo stays > other.txt")
    empty.numb("init")
    other, cut, resumed = [
        empty.numb("train --again"),
        empty.numb("train", env={"CUT": ""}),
        empty.numb("train --resume @"),
    ]
    first, second = empty.runs()
    done = empty.numb("purge", "--yes", words.replace("OTHER", first["id"]))
    [*_, run] = empty.runs()
    [segment] = run["segments"]
    [shown] = [line for line in empty.numb("show @").stdout.splitlines() if line.startswith("earlier")]

    assert [0] * 4 == [each.code for each in (other, cut, resumed, done)], done
    assert second["segments"][0]["commit"] != segment["commit"] == shown.split()[-1] == empty.sh("git rev-parse numb~2")
    assert f"train {run['id']}" in empty.sh(f"git log -1 --format=%s {segment['commit']}")
    assert "stays" == empty.sh(f"git show {segment['commit']}:other.txt")
    assert [1, 2] == [kept["step"] for kept in run["checkpoints"]]
    assert 0 == empty.numb("gc").code and 0 == empty.numb("verify").code and 0 == empty.numb("doctor").code


def test_the_trials_of_a_run_go_with_it_also_when_it_was_removed(lab: Scene) -> None:
    """They have snapshots, too."""
    lab.write("train.py", SCRIPT + "run = 1\n")
    lab.write('my "keys"/ä b.txt', SECRET)
    lab.numb("train")
    run_id = lab.runs()[-1]["id"]
    entry = lab.sh("git show numb:.nmb/run/record.json")
    trial = json.loads(entry) | {"id": f"{run_id[:-4]}zzzz", "kind": "trial", "of": run_id}
    lab.write("../record.json", json.dumps(trial))
    lab.sh(
        """
        export GIT_INDEX_FILE=$PWD/.git/elsewhere
        git read-tree numb
        git update-index --cacheinfo 100644,$(git hash-object -w ../record.json),.nmb/run/record.json
        git update-ref refs/heads/numb $(git commit-tree $(git write-tree) -p numb -m trial)
        """
    )
    removed, purged = lab.numb("rm", run_id), lab.numb("purge", "--yes", run_id)

    assert [0, 0] == [removed.code, purged.code] and "and 1 trial" in removed.stderr and "zzzz" in purged.stderr
    assert "" == lab.sh(f"git log --format=%h --grep={run_id} numb") and "zzzz" not in lab.sh(
        "git log --format=%B numb"
    )


def test_nothing_is_purged_before_what_was_cut_off_is_on_the_branch(lab: Scene) -> None:
    """A run whose launcher died in another work tree has a snapshot, too: it would bring back what is gone."""
    lab.write('my "keys"/ä b.txt', SECRET)
    lab.sh("git worktree add -q ../beside && cp -r my* nmb.json ../beside")
    beside = Scene(lab.root.parent / "beside", Path(lab.env["HOME"]))
    beside.write("train.py", SCRIPT + "import signal\nos.kill(os.getppid(), signal.SIGKILL)\n")
    beside.start("train").communicate(timeout=60)
    refused = lab.numb("purge", "--yes", 'my "keys"/ä b.txt')
    hint = next(line for line in refused.stderr.splitlines() if "try: " in line).partition("try: ")[2]
    lab.sh(hint)
    purged = lab.numb("purge", "--yes", 'my "keys"/ä b.txt')

    assert (1, 0) == (refused.code, purged.code) and "cut off and not on the branch yet" in refused.stderr
    assert "beside" in hint and "" == lab.sh("git log --format=%h numb -- 'my*'") and 5 == len(lab.runs())


def test_nothing_is_purged_while_a_run_is_in_flight(lab: Scene) -> None:
    """In whichever work tree: it would be put on the branch with what is to be gone. It is kept, and then purged with the rest."""
    lab.write('my "keys"/ä b.txt', SECRET)
    lab.sh("git worktree add -q ../beside && cp -r my* nmb.json ../beside")
    beside = Scene(lab.root.parent / "beside", Path(lab.env["HOME"]))
    wait = "import time\nopen('ready', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    beside.write("train.py", SCRIPT + wait)
    process = beside.start("train")
    lab.sh("until [ -e ../beside/ready ]; do sleep 0.05; done")
    first, *_ = lab.runs()
    tip = lab.sh("git rev-parse numb")
    refused = [lab.numb("purge", "--yes", words) for words in ('my "keys"/ä b.txt', first["id"])]
    told = lab.sh("git rev-parse numb"), lab.numb("rm", first["id"]).code
    beside.write("go", "")
    process.communicate(timeout=60)
    purged = lab.numb("purge", "--yes", 'my "keys"/ä b.txt')

    assert [1, 1] == [done.code for done in refused] and (tip, 0) == told
    assert all("is in flight, and would be put on the branch" in done.stderr for done in refused)
    assert all("Traceback" not in done.stderr for done in refused)
    assert (0, 0, 4) == (process.returncode, purged.code, len(lab.runs())), purged
    assert "" == lab.sh("git log --format=%h numb -- 'my*'") and 0 == lab.numb("doctor").code


def test_what_the_user_has_committed_is_theirs(lab: Scene) -> None:
    """It is told, with the commit; numb rewrites no branch but its own."""
    lab.write('my "keys"/ä b.txt', SECRET)
    lab.sh("git add my* && git commit -qm mine")
    head = lab.sh("git rev-parse HEAD")
    done = lab.numb("purge", "--yes", 'my "keys"/ä b.txt')

    assert 0 == done.code and f"a commit of your own, {head[:12]}" in done.stderr
    assert "still has the old branch" not in done.stderr, "nobody has had it"
    assert head == lab.sh("git rev-parse HEAD")


@pytest.mark.parametrize(
    "words", ["nothing.txt", ".", "..", "/etc/passwd", ".nmb", ".git/config", "@ other.txt", ":(top)x"]
)
def test_what_is_neither_run_nor_path_is_refused(lab: Scene, words: str) -> None:
    """Nothing has changed then."""
    tip = lab.sh("git rev-parse numb")
    done = lab.numb(f"purge --yes {words}")

    assert 1 == done.code and "Traceback" not in done.stderr and tip == lab.sh("git rev-parse numb")


def test_the_old_listing_is_no_problem(lab: Scene) -> None:
    """A purge that is killed right behind the change of the branch leaves it: nothing has been lost."""
    listing = lab.root / ".nmb/index.sqlite"
    assert 4 == len(lab.runs())
    before = listing.read_bytes()
    assert 0 == lab.numb("purge", "--yes", 'my "keys"/ä b.txt').code
    listing.write_bytes(before)

    assert 0 == lab.numb("doctor").code and 4 == len(lab.runs())


def test_a_purge_that_is_killed_has_changed_nothing(lab: Scene) -> None:
    """The branch is the old one or the new one, and the same command again ends it."""
    for patience in (0.15, 0.2, 0.25, 0.3, 0.35):
        process = lab.start("purge", "--yes", 'my "keys"/ä b.txt')
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()
        assert 4 == len(lab.runs()) and "" == lab.sh("git fsck --strict --no-dangling")
    done = lab.numb("purge", "--yes", 'my "keys"/ä b.txt')
    assert done.code == 0 or "no snapshot has" in done.stderr
    assert "" == lab.sh("git log --format=%h numb -- 'my*'") and 0 == lab.numb("doctor").code
