"""What is promised of workers: a script that was forked is as one that was started; each entry once, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Scene, furnish
from terminals import TAKE, Terminal

from numb import processes
from numb.engines.local import Slots
from numb.engines.warm import Nursery, Warm, unbuffered

# -- one script

SCRIPTS = {
    "facts": "import os, sys\nprint(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), __spec__, sys.orig_argv[1:], __package__)",
    "exit_3": "import sys\nsys.exit(3)",
    "exit_words": "import sys\nsys.exit('bad')",
    "exit_261": "raise SystemExit(261)",
    "exit_none": "import sys\nprint('x', end='')\nsys.exit()",
    "error": "def f():\n    raise KeyError('x')\nf()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('y') from e",
    "syntax": "def f(:\n",
    "interrupted": "raise KeyboardInterrupt",
    "killed": "import os\nos.kill(os.getpid(), 9)",
    "at_once": "import os\nprint('lost', end='')\nos._exit(7)",
    "hooks": "import atexit, sys, threading, time\natexit.register(print, 'bye', sys.argv[1])\n"
    "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nprint('end')",
    "warnings": "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)",
    "spawn": "import multiprocessing as m\ndef g(x): return 2 * x\nif __name__ == '__main__':\n"
    "    with m.get_context('spawn').Pool(1) as pool: print(pool.map(g, [1, 2]))",
    "own_hook": "import sys\nsys.excepthook = lambda kind, *_: print('hook', kind.__name__)\n1 / 0",
    "input": "import sys\nprint(repr(sys.stdin.read()))",
    "pickled": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__module__)",
    "open_file": "f = open('left-open', 'w')\nf.write('x' * 10)\nclass D:\n    def __del__(self): print('gone')\nd = D()",
    "cycle": "class D:\n    def __del__(self): print('gone')\nd = D()\nd.me = d",
    "logging": "import logging.handlers\nlogging.basicConfig()\nlogging.warning('x')\nh = logging.handlers.MemoryHandler(9)",
    "beside": "import helper\nprint(helper.__file__, helper.x)",
    "signals": "import signal\nprint([signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGCHLD)], "
    "signal.getsignal(signal.SIGINT) is signal.default_int_handler)",
    "closed": "import sys\nsys.stdout.close()",
    "environment": "import os\nprint(sorted(k for k in os.environ if k != '_' and not k.startswith('COV')), os.environ['OWN'])",
}


def outcome(start: Callable[..., Any], folder: Path, script: str, env: Mapping[str, str]) -> tuple[int, str, str]:
    """How a script ends, and what it says."""
    pipes = [os.pipe(), os.pipe()]
    child = start([sys.executable, script, "a", "b c"], sys.executable, folder, env, pipes[0][1], pipes[1][1])
    for _, end in pipes:
        os.close(end)
    assert child is not None, "it was not forked"
    said = [
        b"".join(iter(lambda end=end: os.read(end, 65536), b"")).decode(errors="surrogateescape") for end, _ in pipes
    ]  # type: ignore[misc]
    for end, _ in pipes:
        os.close(end)
    return child.wait(), said[0], said[1]


def cold(words: list[str], executable: str, cwd: Path, env: Mapping[str, str], out: int, err: int) -> Any:
    return subprocess.Popen(
        words, executable=executable, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err
    )


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**unbuffered(os.environ), "OWN": "ö \udcff"}


@pytest.fixture(scope="module")
def warm(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    nursery = Nursery(
        sys.executable, ["json", "numpy", "no_such_module"], 1, tmp_path_factory.mktemp("nursery"), environment
    )
    yield Warm(nursery.sockets[0], sys.executable, environment)
    nursery.close()
    nursery.wait()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_forked_script_is_as_one_that_was_started(
    name: str, warm: Warm, environment: dict[str, str], tmp_path: Path
) -> None:
    """Its names, words, folders, streams, exit code, hooks, threads, warnings, children, and what it leaves open."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "helper.py").write_text("x = 1\n")
    (tmp_path / "sub" / f"s_{name}.py").write_text(SCRIPTS[name])
    with open(os.devnull) as null:
        before = os.dup(0)
        os.dup2(null.fileno(), 0)
        try:
            forked = outcome(warm.start, tmp_path, f"sub/s_{name}.py", environment)
        finally:
            os.dup2(before, 0)
            os.close(before)
    left = (tmp_path / "left-open").read_text() if name == "open_file" else None

    assert outcome(cold, tmp_path, f"sub/s_{name}.py", environment) == forked
    assert left in (None, "x" * 10)


def test_each_forked_script_draws_its_own(warm: Warm, environment: dict[str, str], tmp_path: Path) -> None:
    """As each interpreter does that has not been given a seed."""
    (tmp_path / "draws.py").write_text("import random, numpy\nprint(random.random(), numpy.random.rand())\n")
    drawn = [outcome(warm.start, tmp_path, "draws.py", environment)[1].split() for _ in range(3)]

    assert 6 == len({number for pair in drawn for number in pair})


def test_what_a_fork_could_not_be_is_started(warm: Warm, environment: dict[str, str], tmp_path: Path) -> None:
    """Another environment, another interpreter, an option, no file, or a file beside it with the name of what is imported."""
    (tmp_path / "s.py").write_text("")
    null = os.open(os.devnull, os.O_RDWR)

    def forked(words: list[str], executable: str = sys.executable, **more: str) -> bool:
        child = warm.start(words, executable, tmp_path, {**environment, **more}, null, null)
        return child is not None and child.wait() == 0

    assert forked(["python", "s.py"]) and forked(["python3", "s.py"], CUDA_VISIBLE_DEVICES="1")
    assert not forked(["python", "s.py"], PYTHONHASHSEED="1") and not forked(["python", "s.py"], OMP_NUM_THREADS="1")
    assert not forked(["python", "-u", "s.py"]) and not forked(["python", "-m", "s"]) and not forked(["python", "t.py"])
    assert not forked(["sh", "s.py"]) and not forked(["python", "s.py"], "/usr/bin/env")
    assert not forked(["python", "s.py"], LARGE="x" * 200_000)
    (tmp_path / "json.py").write_text("")
    assert not forked(["python", "s.py"])
    os.close(null)


def test_nothing_is_forked_beside_a_thread(environment: dict[str, str], tmp_path: Path) -> None:
    """A module that starts one makes the nursery useless, and nothing breaks; nor does it where the nursery is killed."""
    (tmp_path / "threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    (tmp_path / "s.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(60)\n")
    null = os.open(os.devnull, os.O_RDWR)
    found = []
    for modules, env in ((["threads"], {**environment, "PYTHONPATH": str(tmp_path)}), ([], environment)):
        nursery = Nursery(sys.executable, modules, 1, tmp_path, env)
        starts = Warm(nursery.sockets[0], sys.executable, env)
        found.append(
            (nursery, starts, starts.start(["python", "s.py"], sys.executable, tmp_path, unbuffered(env), null, null))
        )
    nursery, starts, child = found[1]
    assert found[0][2] is None and child is not None
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    nursery._process.kill()
    os.kill(child.pid, signal.SIGKILL)

    assert (
        processes.UNKNOWN == child.wait()
        and starts.start(["python", "s.py"], sys.executable, tmp_path, environment, null, null) is None
    )
    for each, _, _ in found:
        each.close()
        each.wait()
    os.close(null)


def test_nothing_is_forked_that_would_hang(environment: dict[str, str], tmp_path: Path) -> None:
    """A module that has torch compute by several threads while it is imported: their pool is not there in a child."""
    (tmp_path / "computes.py").write_text(
        "import torch\ntorch.set_num_threads(2)\ntorch.ones(1 << 22).add_(1).sum()\ntorch.ones(900, 900) @ torch.ones(900, 900)\n"
    )
    (tmp_path / "s.py").write_text("import torch\nprint(torch.ones(1 << 20).add_(1).sum().item())\n")
    null = os.open(os.devnull, os.O_RDWR)
    found = []
    for module in ("computes", "torch"):
        env = {**environment, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "2"}
        nursery = Nursery(sys.executable, [module], 1, tmp_path, env)
        starts = Warm(nursery.sockets[0], sys.executable, env)
        child = starts.start(["python", "s.py"], sys.executable, tmp_path, unbuffered(env), null, null)
        found.append(child and child.wait())
        nursery.close()
        nursery.wait()
    os.close(null)

    assert [None, 0] == found


def test_a_fork_that_cannot_be_is_an_interpreter(environment: dict[str, str], tmp_path: Path) -> None:
    """Where none is to be had, and where a module has asked whether there is a GPU: then a child could not use one."""
    (tmp_path / "torch.py").write_text(
        "import types\ncuda = types.SimpleNamespace(is_initialized=lambda: False, _is_in_bad_fork=lambda: True)\n"
        "default_generator = types.SimpleNamespace(seed=lambda: None)\n"
    )
    (tmp_path / "full.py").write_text("import os\ndef fork():\n    raise OSError(11, 'no more')\nos.fork = fork\n")
    (tmp_path / "s.py").write_text("import sys\nprint('torch' in sys.modules, sys.argv)\nsys.exit(3)\n")
    found = []
    for module in ("torch", "full"):
        env = {**environment, "PYTHONPATH": str(tmp_path)}
        nursery = Nursery(sys.executable, [module], 1, tmp_path, env)
        starts, (ours, theirs) = Warm(nursery.sockets[0], sys.executable, env), os.pipe()
        child = starts.start(["python", "s.py", "x"], sys.executable, tmp_path, unbuffered(env), theirs, theirs)
        os.close(theirs)
        found.append((child and child.wait(), os.read(ours, 1000)))
        nursery.close()
        nursery.wait()
        os.close(ours)

    assert [(3, b"False ['s.py', 'x']\n"), (None, b"")] == found


# -- a queue

SCRIPT = """
import os, sys, time
from numb import numb_param, numb_queue, numb_trial_result
n, how = 0, "well"
numb_queue(globals())
numb_param({"n": n, "how": how})
with open(os.environ["COUNTS"], "a") as counts:
    counts.write(f"{n}\\n")
print("working on", n, flush=True)
there = os.environ["THERE"]
if how == "badly" or (how == "once" and not os.path.exists(f"{there}/tried")):
    open(f"{there}/tried", "w").close()
    raise ValueError("no luck")
if how == "slow":
    time.sleep(0.3)
while how == "long" and not os.path.exists(f"{there}/go"):
    time.sleep(0.01)
numb_trial_result({"twice": 2 * n, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "")})
"""


@pytest.fixture
def lab(empty: Scene, tmp_path: Path) -> Scene:
    furnish(empty, {"train.py": SCRIPT})
    empty.env.update(COUNTS=str(tmp_path / "counts"), THERE=str(tmp_path))
    return empty


def begun(scene: Scene) -> list[int]:
    """Which entries have begun, each as often as it has."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(map(int, Path(scene.env["COUNTS"]).read_text().split()))
    return []


def states(scene: Scene, file: str = "q.json") -> list[str]:
    return [each["status"] for each in json.loads(scene.numb("queue", "status", file, "--json").stdout)]


@pytest.mark.parametrize(
    "how", [["-j", "3"], ["-j", "2", "--cold"], ["--gpus", "4,7"], ["--gpus", "5", "--per-gpu", "2"]]
)
def test_each_entry_is_trained_once(lab: Scene, how: list[str]) -> None:
    """AC-J13: by however many workers, on their GPUs; what scripts print is in their logs, and not between the lines."""
    lab.write("q.json", json.dumps([{"n": n} for n in range(7)]))
    done = lab.numb("queue", "run", "q.json", *how)
    again = lab.numb("queue", "run", "q.json", *how)
    runs = lab.runs()

    assert (0, "", 0) == (done.code, done.stdout, again.code), done
    assert list(range(7)) == begun(lab) == sorted(run["results"]["twice"] // 2 for run in runs)
    assert {"complete"} == {run["status"] for run in runs} and ["done"] * 7 == states(lab)
    gpus = {"4,7": {"4", "7"}, "5": {"5"}}.get(how[1], {""})
    assert {run["results"]["gpu"] for run in runs} <= gpus
    assert "working" not in done.stderr and "working on" in lab.numb("show", runs[0]["id"], "--log").stdout
    assert all(f"numb: [{n}] complete" in done.stderr for n in range(1, 8)) and "7 done" in done.stderr


def test_four_workers_and_twenty_entries(lab: Scene) -> None:
    """AC-J13: each is trained once, and a listing that is made anew from the branch says the same."""
    lab.write("q.json", json.dumps([{"n": n} for n in range(20)]))
    done = lab.numb("queue", "run", "q.json", "-j", "4")
    before = [lab.numb("list", "-n", "0").stdout, lab.numb("list", "--json").stdout]
    for path in (lab.root / ".nmb").glob("index.sqlite*"):
        path.unlink()
    after = [lab.numb("list", "-n", "0").stdout, lab.numb("list", "--json").stdout]

    assert (0, list(range(20)), ["done"] * 20) == (done.code, begun(lab), states(lab)), done
    assert json.loads(before[1]) == json.loads(after[1]) and 20 == len(json.loads(after[1]))
    assert [re.split(r"\s{2,}", line)[1:-1] for line in before[0].splitlines()] == [
        re.split(r"\s{2,}", line)[1:-1] for line in after[0].splitlines()
    ]  # but for their age


def test_a_queue_can_be_watched(lab: Scene, terminal: Terminal) -> None:
    """It is drawn again and again until all is done, and then stands there; Ctrl-C leaves the terminal as it was."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(3)]))
    process = lab.start("queue", "run", "q.json", "-j", "2")
    watching = typed(lab, terminal, "queue", "status", "q.json", "--watch")
    shown = terminal.read_until(b"2 running, 1 queued")
    terminal.type(b"\x03")
    watching.wait(60)
    left = watching.returncode, terminal.read_until(b"\x1b[?1049l")
    watching = typed(lab, terminal, "queue", "status", "q.json", "--watch")
    terminal.read_until(b"2 running, 1 queued")
    lab.sh("touch $THERE/go")
    process.communicate(timeout=60)
    last = terminal.read_all(watching).rpartition(b"\x1b[?1049l")[2].decode()

    assert b"\x1b[?1049h" in shown and 130 == left[0] and b"Traceback" not in left[1]
    assert 0 == watching.returncode and 3 == last.count("  done ") and "3 done" in last.splitlines()[-1], last


def test_what_fails_is_shown_and_tried_again(lab: Scene) -> None:
    """AC-J12: with the end of its log; the others go on; --retries tries it in place, --failed later; --fail-fast begins no more."""
    lab.write("q.json", '[{"n": 1, "how": "badly"}, {"n": 2}]')
    failed = lab.numb("queue", "run", "q.json", "-j", "2")
    lab.write("r.json", '[{"n": 3, "how": "once"}]')
    lab.sh("rm $THERE/tried")
    retried = lab.numb("queue", "run", "r.json", "-j", "2", "--retries", "2")
    later = lab.numb("queue", "run", "q.json", "-j", "2", "--failed")
    lab.write("s.json", json.dumps([{"n": 4, "how": "badly"}, *({"n": n, "how": "slow"} for n in range(5, 40))]))
    fast = lab.numb("queue", "run", "s.json", "-j", "2", "--fail-fast")

    assert (1, ["failed", "done"]) == (failed.code, states(lab))
    assert "[1] failed: ValueError: no luck" in failed.stderr and "      | ValueError: no luck" in failed.stderr
    assert (0, ["done"]) == (retried.code, states(lab, "r.json")), retried
    assert 1 == later.code and [1, 1, 2, 3, 3] == begun(lab)[:5] and "queued" in states(lab, "s.json"), fast


def test_ctrl_c_ends_all(lab: Scene) -> None:
    """L4: every script gets it, nothing is left running, and each entry goes on later."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(4)]))
    process = lab.start("queue", "run", "q.json", "-j", "2")
    lab.sh('until [ "$(cat "$COUNTS" 2>/dev/null | wc -l)" = 2 ]; do sleep 0.05; done')
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    after = states(lab)
    lab.sh("touch $THERE/go")
    done = lab.numb("queue", "run", "q.json", "-j", "2")

    assert 130 == process.returncode and ["cut off", "cut off", "queued", "queued"] == after
    assert 0 == done.code and ["done"] * 4 == states(lab) and [0, 0, 1, 1, 2, 3] == begun(lab)
    assert ["interrupted"] * 2 + ["complete"] * 4 == sorted((r["status"] for r in lab.runs()), reverse=True)


@pytest.mark.parametrize("who", ["supervisor", "worker", "nursery"])
def test_who_is_killed_loses_nothing(lab: Scene, who: str) -> None:
    """B7, L2: without who has started them workers end what they do, and take nothing more; the rest is done later, once.

    What a nursery has forked goes on without it.
    """
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(6)]))
    process = lab.start("queue", "run", "q.json", "-j", "2")
    lab.sh('until [ "$(cat "$COUNTS" 2>/dev/null | wc -l)" = 2 ]; do sleep 0.05; done')
    family = [(each.pid, " ".join(each.cmdline())) for each in psutil.Process(process.pid).children()]
    workers = [pid for pid, words in family if "queue work" in words]
    nursery = next(pid for pid, words in family if "nursery import serve" in words)
    os.kill({"supervisor": process.pid, "worker": workers[0], "nursery": nursery}[who], signal.SIGKILL)
    time.sleep(0.2)
    lab.sh("touch $THERE/go")
    process.communicate(timeout=60)
    for pid in workers:
        lab.sh(
            f"while kill -0 {pid} 2>/dev/null && ! grep -q 'State:.Z' /proc/{pid}/status 2>/dev/null; do sleep 0.05; done"
        )
    before = begun(lab)
    done = lab.numb("queue", "run", "q.json", "-j", "2")

    assert (0, ["done"] * 6) == (done.code, states(lab)), done
    assert list(range(6)) == begun(lab), "what has come to its end is not trained again, whoever was killed"
    assert len(before) == 2 if who == "supervisor" else len(before) >= 6
    assert ["complete"] * 6 == [run["status"] for run in lab.runs()]
    assert 0 == lab.numb("doctor").code


def test_places_are_shared_in_turn() -> None:
    """One for each GPU, or so many on each; more workers than places go round."""
    assert (None, None) == Slots.of(2).gpus and (None,) == Slots.of(None).gpus
    assert ("0", "1") == Slots.of(None, ["0", "1"]).gpus and ("0", "1", "0", "1") == Slots.of(None, ["0", "1"], 2).gpus
    assert ("0", "1", "0") == Slots.of(3, ["0", "1"]).gpus


# -- who is asked to end


def typed(lab: Scene, terminal: Terminal, *words: str) -> subprocess.Popen[bytes]:
    """Start a command in the foreground of a terminal, as a shell does."""
    take = "import fcntl, os, sys, termios; " + TAKE + "; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return subprocess.Popen(
        [sys.executable, "-c", take, "-m", "numb", *words],
        cwd=lab.root, env=lab.env, stdin=terminal.numb, stdout=terminal.numb, stderr=terminal.numb, start_new_session=True,
    )  # fmt: skip


def test_ctrl_c_reaches_scripts_that_have_not_begun(lab: Scene, terminal: Terminal, tmp_path: Path) -> None:
    """E6: the terminal sends it while their parent still imports; they end at once, and the rest is queued."""
    (tmp_path / "mods").mkdir()
    (tmp_path / "mods" / "slow.py").write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'import')!r}).exists(): time.sleep(0.01)\n"
    )
    lab.env["PYTHONPATH"] = f"{tmp_path / 'mods'}{os.pathsep}{lab.env['PYTHONPATH']}"
    known = json.loads(lab.read("nmb.json"))
    lab.write("nmb.json", json.dumps({**known, "queue": {"imports": ["slow"]}}))
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(4)]))
    process = typed(lab, terminal, "queue", "run", "q.json", "-j", "2")
    for _ in range(2):
        terminal.read_until(b"how=long")
    lab.sh('until [ "$(ls .nmb/runs | wc -l)" = 2 ]; do sleep 0.02; done; sleep 0.2')
    terminal.type(b"\x03")
    time.sleep(0.3)
    (tmp_path / "import").touch()
    shown = terminal.read_all(process).decode()

    assert (130, []) == (process.returncode, begun(lab)) and "Traceback" not in shown, shown
    assert ["cut off"] * 2 + ["queued"] * 2 == states(lab)


@pytest.mark.parametrize("times", [2, 3])
def test_ctrl_c_again_and_again(lab: Scene, terminal: Terminal, times: int) -> None:
    """E6: nothing is left running, no entry is lost, and numb shows no traceback of its own."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(4)]))
    process = typed(lab, terminal, "queue", "run", "q.json", "-j", "2")
    lab.sh('until [ "$(cat "$COUNTS" 2>/dev/null | wc -l)" = 2 ]; do sleep 0.02; done')
    for _ in range(times):
        terminal.type(b"\x03")
        time.sleep(0.1)
    shown = terminal.read_all(process).decode()
    left = [
        each
        for each in psutil.process_iter(["environ"])
        if (each.info["environ"] or {}).get("THERE") == lab.env["THERE"]
    ]
    lab.sh("touch $THERE/go")
    done = lab.numb("queue", "run", "q.json", "-j", "2")

    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in shown and [] == left, shown
    assert (0, ["done"] * 4, {0, 1, 2, 3}) == (done.code, states(lab), set(begun(lab)))


@pytest.mark.parametrize("workers", [[], ["-j", "2"]], ids=["debug", "local"])
def test_nothing_begins_after_a_signal(lab: Scene, workers: list[str]) -> None:
    """Also where it comes while a run is recorded, and no script is there to hear of it."""
    moments = random.Random(0)
    for number in range(4):
        file, how = f"{number}.json", signal.SIGINT if number % 2 else signal.SIGTERM
        lab.write(file, json.dumps([{"n": 100 * number + n} for n in range(30)]))
        before = len(begun(lab))
        process = lab.start("queue", "run", file, *workers)
        while len(begun(lab)) < before + 3:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.4))
        os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
        at = len(begun(lab))
        said = process.communicate(timeout=60)

        assert process.returncode in (128 + how, -how), said
        assert len(begun(lab)) <= at + 2 and "queued" in states(lab, file) and "running" not in states(lab, file), said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_the_supervisor_passes_on_what_it_alone_is_sent(lab: Scene, how: signal.Signals) -> None:
    """E7: the scripts get it, and nothing is left running."""
    lab.write("q.json", json.dumps([{"n": n, "how": "long"} for n in range(3)]))
    process = lab.start("queue", "run", "q.json", "-j", "2")
    lab.sh('until [ "$(cat "$COUNTS" 2>/dev/null | wc -l)" = 2 ]; do sleep 0.02; done')
    process.send_signal(how)
    said = process.communicate(timeout=60)

    assert 128 + how == process.returncode and ["cut off"] * 2 + ["queued"] == states(lab), said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


SAVES = """
import os, signal, sys, time
from numb import numb_param, numb_queue
n, how = 0, "saves"
numb_queue(globals())
numb_param({"n": n, "how": how})
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1) if how == "saves" else sys.exit(1))
with open(os.environ["COUNTS"], "a") as counts:
    counts.write(f"{n}\\n")
while not asked:
    time.sleep(0.02)
time.sleep(0.5)
print("saved", len(asked))
"""


def test_a_signal_to_all_is_for_the_scripts(lab: Scene) -> None:
    """What has forked them and who works stay, and write down how each has ended: as systemd and Slurm do it."""
    lab.write("train.py", SAVES)
    lab.write("q.json", '[{"n": 1}, {"n": 2}]')
    process = lab.start("queue", "run", "q.json", "-j", "1")
    lab.sh('until [ -s "$COUNTS" ]; do sleep 0.02; done')
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)
    [run] = lab.runs()

    assert (143, ["done", "queued"]) == (process.returncode, states(lab)), said
    assert ("complete", 0) == (run["status"], run["exit_code"]) and "saved" in lab.numb("logs", run["id"]).stdout


def test_what_was_asked_to_end_is_not_tried_again(lab: Scene) -> None:
    """Though its exit code is that of a failure: it is cut off, and begins when the queue is run again."""
    lab.write("train.py", SAVES)
    lab.write("q.json", '[{"n": 1, "how": "exits"}, {"n": 2}]')
    process = lab.start("queue", "run", "q.json", "-j", "1", "--retries", "3")
    lab.sh('until [ -s "$COUNTS" ]; do sleep 0.02; done')
    process.terminate()
    said = process.communicate(timeout=60)

    assert (143, ["cut off", "queued"], [1]) == (process.returncode, states(lab), begun(lab)), said


def test_more_workers_than_can_be(lab: Scene) -> None:
    """One line, and nothing has begun."""
    lab.write("q.json", '[{"n": 1}]')
    done = lab.sh(
        f"ulimit -n 40; {shlex.quote(sys.executable)} -m numb queue run q.json -j 60 2>&1 || echo $?"
    ).splitlines()

    assert "numb: 60 workers cannot be started: Too many open files" == done[0] and done[1].startswith("      try: -j ")
    assert "Traceback" not in "".join(done) and ["queued"] == states(lab)
