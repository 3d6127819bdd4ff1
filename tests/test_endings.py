"""However a script ends, its code and its output are its own, there is a record, and the weights are in it if they can be."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene
from scripted import kept, own, plain, runs, train, write

from numb.capture import session

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

HEAD = """
import os, sys
from numb import numb_param, numb_queue, numb_trial_result
numb_param({"lr": 0.1})
print("begun", flush=True)
"""

NO_HOOK = "the script's exit hook did not run (os._exit, a crash or a kill), so the last weights were not saved"


@pytest.mark.parametrize(
    ("end", "code", "status", "reason", "notes"),
    [
        pytest.param("print('end')", 0, "complete", None, [], id="returns"),
        pytest.param("sys.exit(0)", 0, "complete", None, [], id="exit 0"),
        pytest.param("sys.exit(3)", 3, "failed", "exit code 3", [], id="exit 3"),
        pytest.param("sys.exit('text')", 1, "failed", "exit code 1", [], id="exit text"),
        pytest.param("raise SystemExit(4)", 4, "failed", "exit code 4", [], id="SystemExit"),
        pytest.param("raise ValueError('no')", 1, "failed", "ValueError: no", [], id="raises"),
        pytest.param("raise KeyboardInterrupt", 130, "interrupted", "SIGINT", [], id="KeyboardInterrupt"),
        pytest.param(
            "class E(Exception):\n    def __str__(self): raise self\nraise E",
            1, "failed", "E: <exception str() failed>", [], id="unprintable"
        ),
        pytest.param(
            "def hook(*_): print('mine')\nsys.excepthook = hook\nraise ValueError('no')",
            1, "failed", "ValueError: no", [], id="excepthook",
        ),
        pytest.param(
            "import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 'bye')", 0, "complete", None, [], id="atexit"
        ),
        pytest.param("os._exit(0)", 0, "complete", None, [NO_HOOK], id="_exit 0"),
        pytest.param("os._exit(5)", 5, "failed", "exit code 5", [NO_HOOK], id="_exit 5"),
        pytest.param("import ctypes; ctypes.string_at(0)", 139, "killed", "SIGSEGV", [NO_HOOK], id="SIGSEGV"),
        pytest.param("os.abort()", 134, "killed", "SIGABRT", [NO_HOOK], id="SIGABRT"),
        pytest.param("os.kill(os.getpid(), 9)", 137, "killed", "SIGKILL", [NO_HOOK], id="SIGKILL"),
        pytest.param("os.kill(os.getpid(), 15)", 143, "interrupted", "SIGTERM", [], id="SIGTERM"),
        pytest.param("os.kill(os.getpid(), 1)", 129, "interrupted", "SIGHUP", [], id="SIGHUP"),
        pytest.param("sys.stdout = sys.stderr = sys.__stderr__ = None", 0, "complete", None, [], id="stdout None"),
        pytest.param("sys.stdout.close(); sys.stderr.close(); sys.stdin.close()", 0, "complete", None, [], id="closed"),
        pytest.param(
            "open('mine.ignored', 'w').close()\nos.closerange(0, 99)\n"
            "mine = [os.open('mine.ignored', os.O_RDWR) for _ in range(40)]\nnumb_param({'late': 1})",
            0, "complete", None, [], id="closed descriptors",
        ),
        pytest.param(
            "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\nnumb_param({'late': 1})", 0, "complete", None, [], id="chdir"
        ),
        pytest.param(
            "import builtins, json, time\n"
            "def no(*a, **k): raise RuntimeError('patched')\n"
            "builtins.open = json.dumps = json.loads = time.time = os.write = os.fork = no\nnumb_param({'late': 1})",
            0, "complete", None, [], id="patched",
        ),
    ],
)  # fmt: skip
def test_a_script_ends_as_it_ends_without_numb(
    scene: Scene, end: str, code: int, status: str, reason: str | None, notes: list[str]
) -> None:
    """The code and the output are those of plain python; the record says how it ended, and what was registered."""
    scene.write("train.py", HEAD + end + "\n")
    bare = subprocess.run(
        [sys.executable, "-u", "train.py"], cwd=scene.root, env=scene.env, capture_output=True, text=True
    )

    done = scene.numb("train")

    (run,) = runs(scene)
    assert (code, bare.stdout) == (done.code, done.stdout), done.stderr
    assert bare.returncode in (code, 128 - code)
    assert (status, reason, code) == (run["status"], run["reason"], run["exit_code"])
    assert {"lr": 0.1, **({"late": 1} if "late" in end else {})} == run["params"]
    assert notes == run["notes"]
    assert "" == scene.sh("cat mine.ignored 2>/dev/null || true")
    assert not (scene.root / ".nmb" / "runs" / run["id"]).exists()


def test_exit_hooks_may_use_hooks(scene: Scene) -> None:
    """Python's exit hooks run last in, first out: what they report before numb closes counts, and later nothing breaks."""
    scene.write(
        "train.py",
        """
        import atexit
        from numb import numb_param, numb_trial_result
        atexit.register(lambda: (numb_trial_result({"late": 1}), print("late")))
        numb_param({"lr": 0.1})
        atexit.register(lambda: (numb_trial_result({"early": 1}), print("early")))
        """,
    )

    done = scene.numb("train")

    (run,) = runs(scene)
    assert (0, "early\nlate\n", {"early": 1}) == (done.code, done.stdout, run["results"])


def test_a_signal_waits_until_the_weights_are_saved() -> None:
    """SIGTERM while numb saves arrives when it has saved, with the script's own handler; Ctrl-C then has nothing to end."""
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in (2, 15)}
    try:
        with session._undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            meanwhile = list(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert ([], [signal.SIGTERM]) == (meanwhile, arrived)


NET = """
net = numb_model((1, 4))(nn.Linear(4, 2))
step(net, torch.ones(3, 4))
"""


def test_weights_are_saved_whatever_the_end(torch_scene: Scene) -> None:
    """An exit code, an exception in a script with its own excepthook, and a change at the very end: the last weights."""
    _, exited = train(
        torch_scene, NET + "net.bias.data.fill_(3)\nexpect(Linear=net)\nsys = __import__('sys')\nsys.exit(3)", code=3
    )
    weights = plain(own(torch_scene)), plain(kept(torch_scene, exited))
    done, raised = train(
        torch_scene,
        NET
        + """
import sys
sys.excepthook = lambda *_: None
def main():
    inner = numb_model((1, 3))(nn.Linear(3, 2))
    inner.bias.data.fill_(4)
    expect(Linear=net, **{"Linear-2": inner})
    raise RuntimeError("diverged\\nafter 3 steps")
main()
""",
        code=1,
    )

    assert weights[0] == weights[1]
    assert ("failed", None) == (exited["status"], exited["weights"]["Linear"]["partial"])
    assert plain(own(torch_scene)) == plain(kept(torch_scene, raised))
    assert {"RuntimeError: diverged after 3 steps"} == {w["partial"] for w in raised["weights"].values()}
    assert ("failed", "after 3 steps") == (raised["status"], raised["reason"])
    assert "Traceback" not in done.stderr
    assert 'raise RuntimeError("diverged' in torch_scene.numb("show @").stdout


WAITS = """
import os, signal, time
{before}
open("waiting.ignored", "w").close()
try:
    while not os.path.exists("go.ignored"):
        time.sleep(0.02)
finally:
    print("tidy", flush=True)
{after}
"""


def until(scene: Scene, name: str = "waiting.ignored") -> None:
    scene.sh(f"for i in $(seq 3000); do [ -e {name} ] && exit 0; sleep 0.02; done; exit 1")


@pytest.mark.parametrize(
    ("signum", "before", "code", "status", "partial"),
    [
        (signal.SIGINT, "", 130, "interrupted", "KeyboardInterrupt"),
        (signal.SIGTERM, "", 143, "interrupted", "ended by SIGTERM"),
        (
            signal.SIGTERM,
            "signal.signal(signal.SIGTERM, lambda *_: open('go.ignored', 'w').close())",
            0,
            "complete",
            None,
        ),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM handled"],
)
def test_a_signal_leaves_the_weights(
    torch_scene: Scene, signum: int, before: str, code: int, status: str, partial: str | None
) -> None:
    """Ctrl-C at the terminal, SIGTERM to numb, or a script that handles SIGTERM itself: the last weights, the true status."""
    write(torch_scene, NET + "expect(Linear=net)\n" + WAITS.format(before=before, after=""))
    terminal, numbs = pty.openpty()
    worker = subprocess.Popen(
        [sys.executable, "-m", "numb", "train"],
        cwd=torch_scene.root,
        env=torch_scene.env,
        stdin=numbs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(numbs)
    until(torch_scene)

    if signum == signal.SIGINT:
        os.write(terminal, b"\x03")
    else:
        os.kill(worker.pid, signum)
    out, err = worker.communicate(timeout=60)
    os.close(terminal)

    (run,) = runs(torch_scene)
    assert (code, status) == (worker.returncode, run["status"]), err
    assert (b"" if partial == "ended by SIGTERM" else b"tidy\n") == out
    assert partial == run["weights"]["Linear"]["partial"]
    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))
    assert (["SIGTERM was passed on"] if code == 0 else []) == run["notes"]


@pytest.mark.parametrize(
    ("script", "code", "status", "reason"),
    [
        ("run.finish('failed', 'the loss is\\n nan')", 0, "failed", "the loss is nan"),
        ("run.finish('incomplete')", 0, "incomplete", None),
        ("run.finish('failed', 'early'); run.finish('complete')", 0, "complete", None),
        ("run.finish('complete'); raise SystemExit(3)", 3, "failed", "exit code 3"),
        ("run.finish('failed', 'diverged'); raise SystemExit(3)", 3, "failed", "diverged"),
        ("run.finish('done')", 1, "failed", "BadValue: run.finish: 'done' is neither"),
        ("os.kill(os.getpid(), 15); print(run.should_stop)", 0, "incomplete", "SIGTERM"),
        ("os.kill(os.getpid(), 15); print(run.should_stop); run.finish('complete')", 0, "complete", None),
    ],
)
def test_a_script_says_how_it_has_ended(empty: Scene, script: str, code: int, status: str, reason: str | None) -> None:
    """Where it ends by itself; an exit code that tells of a failure counts more, and a checkpoint that was lost as well."""
    empty.numb("init")
    empty.write("train.py", f"import os\nimport numb\nrun = numb.run()\nrun.should_stop\n{script}\n")
    assert code == empty.numb("train").code
    [run] = empty.runs()

    assert status == run["status"] and bool(reason) == bool(run["reason"])
    assert (reason or "") in (run["reason"] or "")


def test_a_queue_believes_a_script_that_says_it_has_failed(empty: Scene) -> None:
    """The entry is failed, and run again only when that is asked for."""
    empty.numb("init")
    script = "import numb\nlr = 1\nnumb.numb_queue()\nnumb.numb_param({'lr': lr})\nprint(lr)\n"
    empty.write("train.py", f"{script}numb.run().finish('failed' if lr > 1 else 'complete')\n")
    empty.write("q.json", '[{"lr": 1}, {"lr": 2}]')
    done = [empty.numb("queue run q.json"), empty.numb("queue run q.json"), empty.numb("queue run --failed q.json")]
    states = json.loads(empty.numb("queue status q.json --json").stdout)

    assert ["1\n2\n", "", "2\n"] == [each.stdout for each in done]
    assert ["done", "failed"] == [state["status"] for state in states]


def test_children_do_not_record(torch_scene: Scene) -> None:
    """Workers of a DataLoader, forked and spawned children, with hooks and networks of their own: one record, no deadlock."""
    _, run = train(
        torch_scene,
        """
        import multiprocessing, os, sys
        from torch.utils.data import DataLoader, Dataset

        class Net(nn.Module):
            @numb_model((1, 4))
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 2)
            def forward(self, x):
                return self.layer(x)

        class Data(Dataset):
            def __len__(self):
                return 8
            def __getitem__(self, i):
                numb_param({"worker": 1})
                if i == 0:
                    Net()
                return torch.full((4,), float(i))

        def child():
            net = Net()
            numb_trial_result({"child": 1})

        def main():
            net = Net()
            numb_param({"main": 1})
            for batch in DataLoader(Data(), batch_size=2, num_workers=2):
                step(net, batch)
            process = multiprocessing.get_context("spawn").Process(target=child)
            process.start()
            if not (pid := os.fork()):
                child()
                sys.exit(3)  # runs the exit hooks that it has from its parent
            assert 3 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if not (pid := os.fork()):
                os.kill(os.getpid(), 15)
            assert -15 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            process.join()
            assert 0 == process.exitcode
            expect(Net=net)

        if __name__ == "__main__":
            main()
        """,
    )

    assert ({"main": 1}, {}, []) == (run["params"], run["results"], run["notes"])
    assert ["Net"] == list(run["models"]) == list(run["weights"])
    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))


@linux
def test_of_many_ranks_the_first_records(torch_scene: Scene) -> None:
    """Under torchrun with two ranks there is one run with one set of weights, under plain names, and every rank was injected."""
    write(
        torch_scene,
        """
        import os
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel
        lr = 0.1
        numb_queue()
        numb_param({"lr": lr, "rank": int(os.environ["RANK"])})
        dist.init_process_group("gloo")
        net = numb_model((1, 4))(nn.Linear(4, 2))
        wrapped = DistributedDataParallel(net)
        step(wrapped, torch.ones(2, 4))
        with open(f"rank{dist.get_rank()}.ignored", "w") as seen:
            print(lr, file=seen)
        if dist.get_rank() == 0:
            expect(Linear=net)
        dist.barrier()
        dist.destroy_process_group()
        """,
    )
    command = [
        "torchrun",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ]
    torch_scene.write("nmb.json", json.dumps({"version": 1, "train": {"command": [*command, "train.py"]}}))
    torch_scene.write("q.json", '[{"lr": 0.5}]')

    done = torch_scene.numb("queue run --live q.json")

    assert 0 == done.code, done.stderr
    (run,) = runs(torch_scene)
    assert ({"lr": 0.5, "rank": 0}, ["Linear"]) == (run["params"], list(run["weights"]))
    assert "0.5\n0.5" == torch_scene.sh("cat rank0.ignored rank1.ignored")
    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))


@linux
def test_a_script_outlives_its_launcher(torch_scene: Scene) -> None:
    """A5: while it runs it is listed as orphaned with its pid; when it has ended, the next command publishes the weights."""
    write(torch_scene, NET + WAITS.format(before="pid = os.getpid()", after="").replace('print("tidy", flush=True)', "pass")
          + "net.bias.data.fill_(5)\nexpect(Linear=net)\nopen('pid.ignored', 'w').write(str(pid))\n")  # fmt: skip
    worker = torch_scene.start("train")
    until(torch_scene)
    worker.kill()
    worker.wait()

    listed = torch_scene.numb("list").stdout
    (running,) = runs(torch_scene)
    told = events_of_the_one_run(torch_scene)
    watch = os.pidfd_open(told[0]["process"]["pid"])
    torch_scene.sh("touch go.ignored")
    assert select.select([watch], [], [], 60)[0], "the script goes on for ever"
    os.close(watch)
    worker.communicate()
    after = torch_scene.numb("list --json")

    (run,) = json.loads(after.stdout)
    assert f"orphaned (still running, pid {torch_scene.read('pid.ignored')})" in listed
    assert ("running", run["id"]) == (running["status"], running["id"])
    assert f"numb: recovered {run['id']} (complete): its launcher had died\n" == after.stderr
    assert ("complete", "the launcher died, the script ended by itself") == (run["status"], run["reason"])
    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))


@linux
def test_a_script_that_prints_after_its_launcher_was_killed(torch_scene: Scene) -> None:
    """A5: it dies of its broken pipe, which is not a failure of its own: the record says who was killed, and has the weights."""
    write(torch_scene, NET + WAITS.format(before="pid = os.getpid()", after=""))
    worker = torch_scene.start("train")
    until(torch_scene)
    told = events_of_the_one_run(torch_scene)
    watch = os.pidfd_open(told[0]["process"]["pid"])
    worker.kill()
    worker.wait()
    torch_scene.sh("touch go.ignored")
    assert select.select([watch], [], [], 60)[0], "the script goes on for ever"
    os.close(watch)
    worker.communicate()

    (run,) = json.loads(torch_scene.numb("list --json").stdout)

    why = "the launcher died, and the script of having nobody to print to"
    assert ("killed", why, ["Linear"]) == (run["status"], run["reason"], list(run["weights"]))


@linux
def test_a_recovered_run_has_the_environment_it_was_launched_in(scene: Scene) -> None:
    """Whoever publishes a run has an environment of their own: the record has that of the run, and none of its secrets."""
    scene.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}, "environment": ["MINE"]}')
    scene.write("train.py", f"{HEAD}while not os.path.exists('go.ignored'):\n    pass\n")
    worker = scene.start(
        "train", TZ="Asia/Tokyo", MINE="https://me:secret@example.org", CUDA_VISIBLE_DEVICES="1", OTHER="x"
    )
    assert worker.stdout is not None and b"begun\n" == worker.stdout.readline()
    (started,) = [told for told in events_of_the_one_run(scene) if told["event"] == "start"]
    watch = os.pidfd_open(started["process"]["pid"])
    worker.kill()
    worker.wait()
    scene.sh("touch go.ignored")
    assert select.select([watch], [], [], 60)[0], "the script goes on for ever"
    os.close(watch)
    worker.communicate()
    scene.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}}')

    recovered = scene.numb("list", env={"CUDA_VISIBLE_DEVICES": "0", "RANK": "0", "LANG": "C"})

    shown = json.loads(scene.numb("show @ --json").stdout)["environment"]
    assert "its launcher had died" in recovered.stderr
    assert {
        "CUDA_VISIBLE_DEVICES": "1",
        "MINE": "https://***@example.org",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": scene.env["PYTHONPATH"],
        "TZ": "Asia/Tokyo",
    } == {name: value for name, value in shown["environment"].items() if name != "VIRTUAL_ENV"}
    assert (os.uname().nodename, os.cpu_count()) == (shown["host"], shown["processors"])
    assert "click" in shown["packages"]


def events_of_the_one_run(scene: Scene) -> list[dict[str, Any]]:
    (file,) = (scene.root / ".nmb" / "runs").glob("*/events.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@linux
def test_the_launcher_dies_while_it_asks(torch_scene: Scene) -> None:
    """A script that waits for the answer to "train it again?" goes on when nobody can answer any more, and is recorded."""
    script = "numb_param({'lr': 1})\n" + NET + "expect(Linear=net)\n"
    _, first = train(torch_scene, script)
    (torch_scene.root / "own.pt").unlink()
    terminal, numbs = pty.openpty()
    worker = subprocess.Popen(
        [sys.executable, "-m", "numb", "train"],
        cwd=torch_scene.root,
        env=torch_scene.env,
        stdin=numbs,
        stdout=subprocess.PIPE,
        stderr=numbs,
        start_new_session=True,
    )
    os.close(numbs)
    said = b""
    while b"Train it again?" not in said:
        assert select.select([terminal], [], [], 60)[0], said
        said += os.read(terminal, 1 << 12)
    told = events_of_the_one_run(torch_scene)
    watch = os.pidfd_open(told[0]["process"]["pid"])
    worker.kill()
    worker.communicate()
    ended = select.select([watch], [], [], 60)[0]
    os.close(watch)
    os.close(terminal)

    assert ended, "the script waits for ever"
    _, second = torch_scene.runs()
    assert "complete" == second["status"]
    assert (first["architecture"], first["params"]) == (second["architecture"], second["params"])
    assert plain(own(torch_scene)) == plain(kept(torch_scene, second))


def test_a_full_disk_does_not_change_a_training(torch_scene: Scene) -> None:
    """C1: when nothing more fits into any file of the script, the training ends as ever; the record says what is missing."""
    done, full = train(
        torch_scene,
        """
        import resource, signal
        net = numb_model((1, 4))(nn.Linear(4, 2))
        numb_param({"lr": 0.1})
        step(net, torch.ones(3, 4))
        expect(Linear=net)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        numb_param({"never": 1})
        print(sum(p.sum().item() for p in net.parameters()))
        """,
    )
    bare = torch_scene.sh("python train.py")

    assert bare == done.stdout.strip()
    assert ({"lr": 0.1}, {}, "complete") == (full["params"], full["weights"], full["status"])
    assert [NO_HOOK] == full["notes"]


@pytest.mark.usefixtures("warm")
def test_weights_that_do_not_fit_on_the_disk(torch_scene: Scene, small_disk: Callable[[Path, str], Path]) -> None:
    """C1, C3: it is said before the training and recorded after it; the script is not disturbed, and later runs are kept."""
    store = small_disk(torch_scene.root / ".nmb", "size=6m")
    script = """
        net = numb_model((1, 1400))(nn.Linear(1400, {width}))
        step(net, torch.ones(1, 1400))
        print(net.bias.sum().item())
        """

    done, full = train(torch_scene, script.format(width=1400))
    bare = torch_scene.sh("python train.py")
    _, small = train(torch_scene, script.format(width=20))

    warning, fault = done.stderr.splitlines()[:2]
    assert bare == done.stdout.strip()
    assert warning.startswith("numb: the weights take 8 MB, and ") and warning.endswith(
        "Make room before the training ends."
    )
    reason = rf"cannot write {re.escape(str(store))}/objects/.*: No space left on device"
    assert re.fullmatch(
        rf"numb: the weights were not kept \({reason}\); the script goes on. See: numb show {full['id']}", fault
    )
    assert ("complete", {}, ["Linear"]) == (full["status"], full["weights"], list(full["models"]))
    assert re.fullmatch(f"numb: the weights were not kept: {reason}", full["notes"][-1])
    assert f"numb: saved {full['id']}, but not its weights" in done.stderr.splitlines()
    assert f"      {full['notes'][-1]}" == done.stderr.splitlines()[-1]
    listed = torch_scene.numb("list").stdout
    assert 1 == len(re.findall(rf"{full['id']} .* complete, no weights +\d", listed)) == listed.count("no weights")
    assert ["Linear"] == list(small["weights"])
    assert Path(store, "objects").exists()
