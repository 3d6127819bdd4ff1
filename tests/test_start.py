"""A run that a process begins by itself, in a notebook or in a script of its own, is a run as any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import Done, Scene

HEAD = "import os, signal, sys\nimport numb\nfrom numb.hp import _\n"


def script(scene: Scene, body: str, name: str = "own.py", *, touches: bool = False) -> Done:
    """Run a script that numb has not launched; unless it *touches* what is the user's, nothing does."""
    scene.write(name, HEAD + textwrap.dedent(body))
    before = scene.users()
    python = f"{scene.warm.rstrip(os.pathsep)}/python" if scene.warm else sys.executable
    done = subprocess.run([python, name], cwd=scene.root, env=scene.env, capture_output=True, text=True, timeout=60)
    assert touches or before == scene.users()
    return Done(done.returncode, done.stdout, done.stderr)


def ended(scene: Scene) -> list[tuple[Any, ...]]:
    """How the runs have ended, and why, as the next command of numb has it."""
    return [(run["status"], run["reason"], run["exit_code"]) for run in scene.runs()]


@pytest.mark.usefixtures("warm")
def test_each_run_of_a_process_has_what_was_done_in_it_and_nothing_else(torch_scene: Scene) -> None:
    """The notebook's normal case: a class that was decorated before, and two runs with their own weights, series and files."""
    scene = torch_scene
    done = script(
        scene,
        """
        import torch
        from net import Net
        log = numb.series("val", ["epoch", "acc"])
        numb.log(step=0, loss=9.0)  # of no run
        ids = []
        for lr in (0.1, 0.2):
            with numb.start(params={"lr": lr, "opt": {"wd": 0}}, message=f"with {lr}") as run:
                assert numb.run() is run and os.listdir(run.dir) == []
                width = _("width", 8)
                torch.manual_seed(0)
                net = Net(width)
                for step in range(3):
                    net(torch.randn(4, 4)).sum().backward()
                    numb.log(step=step, loss=lr * step)
                log(epoch=1, acc=lr)
                own = numb.series("own", ["a"] if lr == 0.1 else ["b"])
                own(**{own.fields[0]: 1})
                numb.save("table.json", {"lr": lr})
                (run.dir / f"note-{lr}.txt").write_text("kept")
                run.track(model=net).checkpoint(step=3, acc=lr)
                run.results(acc=lr)
                assert (run.params.lr, run.params.opt.wd, run.history["loss"].count) == (lr, 0, 3)
            ids.append(run.id)
            torch.save(net.state_dict(), f"../{run.id}.pt")
            numb.log(step=7, loss=7.0), run.results(acc=7), run.checkpoint(step=9), run.finish("failed")
            assert numb.run().id is None and run.params.lr == lr and "NUMB_RUN_DIR" not in os.environ
        print(*ids)
        """,
    )
    assert (0, "") == (done.code, done.stderr)
    runs = scene.runs()

    assert [*done.stdout.split()] == [run["id"] for run in runs]
    assert [("complete", None, None)] * 2 == ended(scene)
    for run, lr in zip(runs, (0.1, 0.2), strict=True):
        assert {"lr": lr, "opt": {"wd": 0}, "width": 8} == run["params"]
        assert (f"with {lr}", {"acc": lr}, ["python", "own.py"]) == (
            run["message"],
            run["results"],
            [Path(run["command"][0]).name.rstrip("3.1"), *run["command"][1:]],
        )
        assert [f"note-{lr}.txt", "table.json"] == sorted(run["artifacts"])
        assert {"log": 3, "own": 1, "val": 1} == {name: each["rows"] for name, each in run["series"].items()}
        assert ["Net"] == list(run["weights"]) and [3] == [each["step"] for each in run["checkpoints"]]
        assert [] == run["notes"] and run["graph"] == "graph.onnx" and run["base"] == scene.sh("git rev-parse HEAD")
    same = """
        import torch
        for name in sys.argv[1:]:
            own, kept = torch.load(f"../{name}.pt"), numb.load_state(name)
            assert own.keys() == kept.keys() and all(torch.equal(own[each], kept[each]) for each in own)
    """
    loaded = script(scene, same.replace("sys.argv[1:]", str([run["id"] for run in runs])), "load.py")
    assert (0, "") == (loaded.code, loaded.stderr)
    assert "own.py" in scene.sh("git ls-tree --name-only numb")
    assert "numb.start" in scene.sh(f"git show {runs[0]['commit']}:own.py")
    assert (0, "everything is in order\n") == (scene.numb("doctor").code, scene.numb("doctor").stdout)


@pytest.mark.parametrize(
    ("body", "code", "wanted"),
    [
        ("1 / 0", 1, ("failed", "ZeroDivisionError: division by zero", None)),
        ("raise KeyboardInterrupt", 130, ("interrupted", "KeyboardInterrupt", None)),
        ("sys.exit(3)", 3, ("failed", "exit code 3", 3)),
        ("sys.exit()", 0, ("complete", None, 0)),
        ("run.finish('failed', 'diverged')", 0, ("failed", "diverged", None)),
        ("os._exit(0)", 0, ("lost", "its process died", None)),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, ("lost", "its process died", None)),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, ("interrupted", "SIGTERM", None)),
        ("numb.run().should_stop; os.kill(os.getpid(), signal.SIGTERM)", 0, ("incomplete", "SIGTERM", None)),
    ],
)
def test_however_a_block_ends_there_is_a_run(scene: Scene, body: str, code: int, wanted: tuple[Any, ...]) -> None:
    """Also where the process is killed: the next command of numb finds what it has left, and publishes that."""
    done = script(
        scene, f"with numb.start({{'lr': 1}}) as run:\n    numb.log(step=1, loss=2)\n    run.history\n    {body}"
    )

    assert code == (130 if done.code == -signal.SIGINT else done.code), done.stderr
    assert [wanted] == ended(scene)
    [run] = scene.runs()
    assert ({"lr": 1}, 1) == (run["params"], run["series"]["log"]["rows"])
    trace = scene.sh(f"git show {run['commit']}:.nmb/run/traceback.txt", check=False)
    assert ("1 / 0" in trace) is (body == "1 / 0")
    assert "" == scene.sh("ls .nmb/runs; git for-each-ref refs/numb/pins")


@pytest.mark.parametrize(
    ("body", "code", "wanted"),
    [
        ("", 0, ("complete", None)),
        ("run.finish()\nassert run.id and not run.is_open", 0, ("complete", None)),
        ("1 / 0", 1, ("failed", "ZeroDivisionError: division by zero")),
        ("sys.ps1 = '>>> '\n1 / 0", 1, ("complete", None)),
    ],
)
def test_a_run_without_a_block_ends_with_its_process(
    scene: Scene, body: str, code: int, wanted: tuple[str, str]
) -> None:
    """As a script's does, by its last error; where somebody types, an error has ended what was typed, and not the run."""
    done = script(scene, "run = numb.start()\n" + body)

    assert (code, [wanted]) == (done.code, [end[:2] for end in ended(scene)]), done.stderr


def test_only_the_process_that_has_begun_a_run_ends_it(scene: Scene) -> None:
    """A fork inside the block publishes nothing, records nothing, and does not keep a run alive whose process was killed."""
    body = """
    with numb.start() as run:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        numb.log(step=1 if child else 2)
        run.results(**{"parent" if child else "child": 1})
        again = None if child else numb.start(params={"lr": 2})
    """
    assert 0 == script(scene, body).code
    left = script(scene, "numb.start()\nif os.fork():\n    os.kill(os.getpid(), 9)\nprint(flush=True), os.read(0, 1)")
    [first, second] = scene.runs()

    assert ("complete", {"parent": 1}, 1, {}) == (
        first["status"], first["results"], first["series"]["log"]["rows"], first["params"],
    )  # fmt: skip
    assert ("lost", -9) == (second["status"], left.code)


def test_a_second_run_at_once_is_an_error_that_names_the_first(scene: Scene) -> None:
    """And the first goes on."""
    done = script(
        scene,
        """
        run = numb.start()
        try:
            numb.start()
        except Exception as error:
            print(run.id in str(error), type(error).__name__)
        @numb.on("end")
        def last():
            numb.run().results(acc=1)
            run.finish()
        """,
    )
    assert (0, "True NotPossible\n") == (done.code, done.stdout)
    assert [{"acc": 1}] == [run["results"] for run in scene.runs()]


def test_the_same_script_works_launched_and_by_itself(scene: Scene) -> None:
    """Launched there is one run, with the values of the launcher; by itself, one that the script has begun."""
    body = """
    with numb.start(params={"lr": 0.1, "epochs": 2}, message="why") as run:
        run.results(acc=run.params.lr * 10)
    run.finish()
    print(run.id, numb.run().id)
    """
    alone = script(scene, body, name="train.py")
    launched = scene.numb("train", "lr=0.5")
    runs = scene.runs()

    assert (0, 0) == (alone.code, launched.code), launched.stderr
    assert [f"{runs[0]['id']} None\n", f"{runs[1]['id']} {runs[1]['id']}\n"] == [alone.stdout, launched.stdout]
    assert [({"lr": 0.1, "epochs": 2}, {"acc": 1.0}), ({"lr": 0.5, "epochs": 2}, {"acc": 5.0})] == [
        (run["params"], run["results"]) for run in runs
    ]
    assert ["why", "why"] == [run["message"] for run in runs]
    assert ["lr", "epochs"] == [each["name"] for each in json.loads(scene.numb("hp --json").stdout)]


def test_what_is_the_users_mistake_is_an_error_with_a_hint(scene: Scene) -> None:
    """No project, and hyperparameters that cannot be kept: nothing is left behind."""
    scene.sh("mkdir -p sub && git rm -q --cached nmb.json && mv nmb.json sub")
    absent = script(scene, "numb.start()")
    scene.sh("mv sub/nmb.json .")
    strange = script(scene, "try:\n    numb.start({'f': print})\nexcept TypeError as error:\n    print(error)")

    assert 1 == absent.code and "NotInitialised: there is no nmb.json in" in absent.stderr
    assert "try: numb init" in absent.stderr or sys.version_info < (3, 11)
    assert (0, "numb.start: f is a builtin_function_or_method") == (strange.code, strange.stdout.partition(",")[0])
    assert [] == scene.runs() and "" == scene.sh("ls .nmb/runs 2>/dev/null || true")


def test_a_training_goes_on_where_nothing_can_be_recorded(scene: Scene) -> None:
    """numb's own trouble is one line on stderr, the hooks do nothing, and the next run is recorded again."""
    scene.sh("rm -rf .nmb/runs && touch .nmb/runs")
    body = """
    with numb.start(params={"lr": 0.1}) as run:
        numb.log(step=1, loss=1), run.results(acc=1), run.checkpoint(step=1)
        print(run.id, run.params.lr, numb.run() is not None, run.dir.is_dir())
    if os.path.isfile(".nmb/runs"):
        os.unlink(".nmb/runs")
    with numb.start(params={"lr": 0.2}) as run:
        numb.log(step=1, loss=1)
    """
    done = script(scene, body)

    assert (0, "None 0.1 True True\n") == (done.code, done.stdout), done.stderr
    assert 1 == len(done.stderr.splitlines()) and done.stderr.startswith("numb: cannot make")
    assert done.stderr.endswith("; the training goes on, and nothing of it is recorded\n")
    assert [({"lr": 0.2}, 1)] == [(run["params"], run["series"]["log"]["rows"]) for run in scene.runs()]


def test_a_callback_that_is_not_there_is_told(scene: Scene) -> None:
    """The process has begun the run itself, and goes on with it."""
    scene.write("nmb.json", json.dumps({"version": 1, "callbacks": {"fail": ["nobody:here"]}}))
    done = script(scene, "with numb.start(params={'lr': 9}):\n    numb.log(step=1)\nprint('after')")
    [run] = scene.runs()

    assert (0, "after", "complete") == (done.code, done.stdout.strip(), run["status"]), done
    assert "nobody:here cannot be called (ModuleNotFoundError" in done.stderr


def test_a_run_that_cannot_be_put_on_the_branch_is_kept(scene: Scene) -> None:
    """The block ends as ever, and what it was is put there when it can be."""
    done = script(
        scene, "with numb.start() as run:\n    run.results(acc=1)\n    os.system('git checkout -q numb')", touches=True
    )
    assert 0 == done.code and "numb doctor --fix" in done.stderr
    scene.sh("git checkout -q main")

    assert [("complete", {"acc": 1})] == [(run["status"], run["results"]) for run in scene.runs()]


@pytest.mark.usefixtures("warm")
def test_a_network_from_before_the_run_is_missed_by_name(torch_scene: Scene) -> None:
    """Which run it belongs to only its owner knows: shown again it belongs to this one."""
    script(
        torch_scene,
        """
        from numb import numb_model
        from net import Net
        net = Net()
        with numb.start() as run:
            pass
        with numb.start() as run:
            numb_model()(net)
        """,
    )
    first, second = torch_scene.runs()

    assert [
        "numb_model decorates Net, but none was built in this run; one that was built before is shown by numb_model(…)(net)"
    ] == first["notes"]
    assert ([], ["Net"]) == (second["notes"], list(second["weights"]))


def test_a_notebook_is_recorded(scene: Scene) -> None:
    """In a real kernel, with its running event loop: one run over two cells, and one in a block that fails."""
    cells = [
        "import asyncio, numb\nrun = numb.start(params={'lr': 0.1})\nassert asyncio.get_running_loop().is_running()",
        "numb.log(step=1, loss=0.5)\nrun.results(acc=0.9)\nrun.finish()",
        "with numb.start():\n    1 / 0",
        "import sys, pathlib\nsys.path.append(pathlib.Path())\nnumb.start()",
    ]
    scene.write(
        "run_notebook.py",
        f"""
        import nbformat
        from nbclient import NotebookClient
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in {cells!r}])
        NotebookClient(notebook, timeout=30, kernel_name="python3", allow_errors=True).execute()
        print([each.ename for cell in notebook.cells for each in cell.outputs if "ename" in each])
        """,
    )
    env = {
        **scene.env,
        "JPY_SESSION_NAME": str(scene.root / "lab" / "try it.ipynb"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    done = subprocess.run(
        [sys.executable, "run_notebook.py"], cwd=scene.root, env=env, capture_output=True, text=True, timeout=60
    )
    assert "['ZeroDivisionError']\n" == done.stdout, done.stderr
    first, second, third = scene.runs()  # the last of them ended with the kernel

    assert ({"lr": 0.1}, {"acc": 0.9}, ["lab/try it.ipynb"]) == (first["params"], first["results"], first["command"])
    assert ["complete", "failed", "complete"] == [each["status"] for each in (first, second, third)]
    assert 1 == first["series"]["log"]["rows"]
    assert "" == scene.sh(f"git ls-tree --name-only {first['commit']} .nmb/run/output.log")
