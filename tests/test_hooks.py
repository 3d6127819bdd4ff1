"""The face that a script sees: where hooks may stand, what they do with values, and that nothing of numb's disturbs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import PLAIN, Scene
from scripted import events, own, plain, runs, train, write

from numb.capture import session

ROOT = Path(session.__file__).parents[2]


def command(scene: Scene, *words: str, kind: str = "train") -> None:
    scene.write("nmb.json", json.dumps({"version": 1, kind: {"command": list(words)}}))


@pytest.mark.parametrize(
    ("words", "files"),
    [
        pytest.param(["python", "train.py"], {"train.py": PLAIN}, id="script"),
        pytest.param(["python", "-m", "pkg"], {"pkg/__init__.py": "", "pkg/__main__.py": PLAIN}, id="package"),
        pytest.param(["python", "-O", "-I", "train.py"], {"train.py": PLAIN}, id="isolated"),
        pytest.param(["bash", "-c", "cd sub && python -u train.py"], {"sub/train.py": PLAIN}, id="shell"),
        pytest.param(
            ["bash", "-c", "python a.py && python b.py"],
            {
                "a.py": "from numb import *\nnumb_param({'a': 1})\n",
                "b.py": PLAIN.replace("import sys\n", "import sys\nfrom numb import *\nnumb_param({'a': 2})\n"),
            },
            id="two scripts",
        ),
        pytest.param(
            ["python", "wrapper.py"],
            {"wrapper.py": "import runpy\nrunpy.run_path('inner.py', run_name='__main__')\n", "inner.py": PLAIN},
            id="wrapper",
        ),
        pytest.param(
            ["sh", "run.sh"],
            {"run.sh": "#!/bin/sh\necho preparing >&2\nexec python train.py\n", "train.py": PLAIN},
            id="shell script",
        ),
        pytest.param(
            ["python", "train.py"],
            {
                "settings.py": "from numb import numb_queue as q\nlr = 0.1\nepochs = 2\nq()\n",
                "report.py": "import numb as n\ndef done(acc):\n    n.numb_trial_result({'acc': acc})\n",
                "train.py": (
                    "import report\nimport settings\nfrom numb import numb_param as p\n"
                    "def main():\n    p({'lr': settings.lr})\n    p({'epochs': settings.epochs})\n"
                    "    print('lr', settings.lr)\n    report.done(1 - settings.lr)\nmain()\n"
                ),
            },
            id="modules and functions",
        ),
        pytest.param(
            ["python", "train.py"],
            {"train.py": PLAIN.replace("numb_queue()", "numb_queue(globals())")},
            id="globals",
        ),
        pytest.param(
            ["python", "train.py"],
            {
                "train.py": "from numb import *\nsettings = {'lr': 0.1, 'epochs': 2}\nnumb_queue(settings)\n"
                "numb_param(settings)\nprint('lr', settings['lr'])\nnumb_trial_result({'acc': 1 - settings['lr']})\n"
            },
            id="dictionary",
        ),
    ],
)
def test_hooks_work_wherever_they_stand(scene: Scene, words: list[str], files: dict[str, str]) -> None:
    """However the script is started, and in whichever module a hook stands, the run has what was registered and injected."""
    scene.sh("rm train.py")
    command(scene, *words)
    for name, text in files.items():
        scene.write(name, text)
    if "-I" in words:  # it does without PYTHONPATH
        scene.write("train.py", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PLAIN}")
    scene.write("q.json", '[{"lr": 0.25}]')

    done = scene.numb("queue run q.json")

    (run,) = runs(scene)
    before = {"a": 2} if "a.py" in files else {}
    assert (0, "lr 0.25\n", "complete") == (done.code, done.stdout, run["status"]), done.stderr
    assert {**before, "lr": 0.25, "epochs": 2} == run["params"]
    assert ({"acc": 0.75}, []) == (run["results"], run["notes"])


def test_every_process_computes_with_the_injected_values(scene: Scene) -> None:
    """Children by fork, spawn and forkserver, and other ranks, get the queue's values; only the main process records."""
    scene.write(
        "train.py",
        """
        import multiprocessing, os, subprocess, sys
        from numb import numb_param, numb_queue, numb_trial_result
        lr = 0.1
        numb_queue()

        def child():
            numb_param({"child": lr})
            numb_trial_result({"child": lr})
            with open(os.environ["THERE"] + "/seen.ignored", "a") as seen:
                seen.write(f"{lr}\\n")

        if __name__ == "__main__":
            if os.environ.get("RANK") == "1":
                child()
                sys.exit()
            for method in ("fork", "spawn", "forkserver"):
                process = multiprocessing.get_context(method).Process(target=child)
                process.start()
                process.join()
                assert process.exitcode == 0
            subprocess.run([sys.executable, "train.py"], env={**os.environ, "RANK": "1"}, check=True)
            if not (pid := os.fork()):
                child()
                sys.exit()
            assert os.waitpid(pid, 0)[1] == 0
            numb_param({"lr": lr})
            numb_trial_result({"acc": 1})
        """,
    )
    scene.write("q.json", '[{"lr": 0.5}]')
    scene.env["THERE"] = str(scene.root)  # where it runs there is another folder

    done = scene.numb("queue run q.json")

    (run,) = runs(scene)
    assert 0 == done.code, done.stderr
    assert "0.5\n" * 5 == scene.read("seen.ignored")
    assert ({"lr": 0.5}, {"acc": 1}, []) == (run["params"], run["results"], run["notes"])


def test_what_cannot_be_injected_stops_the_script(scene: Scene) -> None:
    """A name that the script lacks, in a script that cannot be read beforehand, ends it at numb_queue with 125."""
    command(scene, "python", "-c", "import runpy; runpy.run_path('train.py')")
    scene.write("q.json", '[{"lr": 0.5, "momentum": 0.9}]')

    done = scene.numb("queue run q.json")

    assert (125, "") == (done.code, done.stdout)
    assert (
        "numb: [1/1] lr=0.5 momentum=0.9\n"
        "numb: train.py:5: the script has no momentum above numb_queue()\n"
        "      try: assign momentum at module level above numb_queue(), or take it out of the queue\n"
    ) == done.stderr
    assert [] == runs(scene)


def test_a_name_that_is_nearly_one_of_the_scripts_is_found(scene: Scene) -> None:
    """Where numb_queue stands in an imported module, a misspelt key is refused with the name that was meant."""
    scene.write("settings.py", "import math as lrs\nfrom numb import numb_queue\nlr = 0.1\nepochs = 2\nnumb_queue()\n")
    scene.write("train.py", "import settings\nfrom numb import numb_param\nnumb_param({'lr': settings.lr})\n")
    scene.write("q.json", '[{"Lr": 0.5}]')

    before = scene.numb("queue run q.json")
    command(scene, "python", "-c", "import runpy; runpy.run_path('train.py')")
    done = scene.numb("queue run q.json")

    assert 2 == before.code
    assert before.stderr.endswith("q.json:1:3: the script has no hyperparameter Lr\n      try: did you mean lr?\n")
    assert (125, []) == (done.code, runs(scene))
    assert (
        "numb: [1/1] Lr=0.5\nnumb: settings.py:5: the script has no Lr above numb_queue()\n      try: did you mean lr?\n"
    ) == done.stderr


def test_values_that_another_module_replaces_are_named_where_they_are(scene: Scene) -> None:
    """With numb_queue in one module and numb_param in another, each line that is named is one of the module named with it."""
    param = "from numb import numb_param\nlr = settings.lr\n\n\nlr = 0.3\nnumb_param({'lr': lr})\n"
    scene.write("settings.py", "from numb import numb_queue\nlr = 0.1\nnumb_queue()\n")
    scene.write("train.py", f"import settings\n{param}")
    scene.write("q.json", '[{"lr": 0.5}]')
    elsewhere = scene.numb("queue run q.json").stderr

    command(scene, "python", "-c", "import runpy; runpy.run_path('train.py')")
    scene.write("settings.py", "from numb import numb_queue\nlr = 0.1\nimport early\nlr = 0.3\n")
    scene.write("early.py", "import sys\nfrom numb import numb_queue\nnumb_queue(vars(sys.modules['settings']))\n")
    scene.write("train.py", "import settings\nfrom numb import numb_param\nnumb_param({'lr': settings.lr})\n")
    between = scene.numb("queue run q.json").stderr

    said = "lr was set to 0.5 by numb, but the script registered 0.3\n      try: put numb_queue() ({})"
    rest = " below the assignment of lr and above its first use\n"
    begins = "numb: [1/1] lr=0.5\n"
    assert f"{begins}numb: train.py:7: {said.format('settings.py:3')}{rest}" == elsewhere
    assert f"{begins}numb: train.py:3: {said.format('early.py:3')}{rest}" == between
    assert [] == runs(scene)


@pytest.mark.parametrize(
    "caught",
    [
        "try:\n    numb_queue()\nexcept:\n    pass\n",
        "try:\n    numb_queue()\nexcept SystemExit:\n    print('tidy')\n",
        "import contextlib\nwith contextlib.suppress(BaseException):\n    numb_queue()\n",
        "import threading\nt = threading.Thread(target=numb_queue, args=(globals(),))\nt.start()\nt.join()\n",
        "try:\n    numb_queue()\nexcept BaseException as error:\n    kept = error\nnumb_param({'lr': lr})\n",
    ],
    ids=["bare", "SystemExit", "suppress", "thread", "kept"],
)
def test_a_stopped_script_does_not_go_on(scene: Scene, caught: str) -> None:
    """Whoever catches the SystemExit of a hook does not train with the wrong values: the process ends with 125."""
    command(scene, "python", "-c", "import runpy; runpy.run_path('train.py')")
    scene.write("train.py", f"from numb import *\nlr = 0.1\n{caught}print('trained')\n")
    scene.write("q.json", '[{"lr": 0.5, "momentum": 0.9}]')

    done = scene.numb("queue run q.json")

    assert (125, []) == (done.code, runs(scene)), done.stderr
    assert "trained" not in done.stdout
    assert "tidy\n" * ("tidy" in caught) == done.stdout


def test_a_queue_needs_numb_queue(scene: Scene) -> None:
    """Where nothing would take the queue's values, it is refused before it starts, or by the script, or the record tells."""
    scene.write("train.py", "from numb import *\nlr = 0.1\nnumb_param({'lr': lr})\nprint('trained')\n")
    scene.write("q.json", '[{"lr": 0.5}]')

    done = scene.numb("queue run q.json")

    why = "lr is only registered (train.py:3), so another value would change nothing"
    assert (2, "") == (done.code, done.stdout) and f"/q.json:1:3: {why}\n" in done.stderr
    assert [] == runs(scene)

    scene.write("train.py", "from numb import *\nlr = 0.1\nnumb_param(dict([('lr', lr)]))\nprint('trained')\n")
    done = scene.numb("queue run q.json")

    said = "numb: [1/1] lr=0.5\nnumb: train.py:3: numb sets lr, but the script has not called numb_queue()\n"
    assert (125, "", said + "      try: call numb_queue() below the hyperparameters\n") == (
        done.code,
        done.stdout,
        done.stderr,
    )
    assert [] == runs(scene)

    scene.write("train.py", "from numb import *\nnumb_param(dict([('seed', 1)]))\n")
    done = scene.numb("queue run q.json")

    assert 0 == done.code, done.stderr
    assert ["lr was set (q.json, entry 1), and the script has never read it"] == runs(scene)[0]["notes"]


def test_a_stopped_script_tidies_up(scene: Scene) -> None:
    """The end is Python's own: `finally`, `with` and exit hooks run, and a handler that raises again is not cut short."""
    command(scene, "python", "-c", "import runpy; runpy.run_path('train.py')")
    scene.write(
        "train.py",
        "import atexit, sys\nfrom numb import *\natexit.register(print, 'exit')\n"
        "try:\n    try:\n        numb_queue()\n    except BaseException:\n        print('again')\n        raise\n"
        "finally:\n    print('finally')\n",
    )
    scene.write("q.json", '[{"lr": 0.5}]')

    done = scene.numb("queue run q.json")

    assert (125, "again\nfinally\nexit\n", []) == (done.code, done.stdout, runs(scene))


def test_values_arrive_typed_or_are_refused_at_the_call(scene: Scene) -> None:
    """What Python can say comes back from `numb show`; what it cannot is a TypeError at the line of the call."""
    scene.write(
        "train.py",
        """
        from numb import numb_param, numb_trial_result
        params = {"nan": float("nan"), "inf": -float("inf"), "zero": -0.0, "one": 1, "float": 1.0, "true": True, "none": None,
                  "betas": (0.9, 0.99), "opt": {"name": "adam", "sched": {"steps": [1, 2]}}, "tag": {"$float": "nan"},
                  "long": "x" * 5000, "name": "\\udc80é\\n", "big": 2**70}
        for bad in ({"x": {1, 2}}, {"opt": {"betas": [0, {3: 1}]}}, {"f": print}, 3):
            for hook in (numb_param, numb_trial_result):
                try:
                    hook(bad)
                except TypeError as error:
                    print(f"{error}")
        params["loop"] = params
        try:
            numb_param(params)
        except TypeError as error:
            print(error)
        del params["loop"]
        numb_param(params)
        numb_param({"one": 2, "last": 1})
        numb_trial_result({"acc": float("nan"), "loss": 0.5})
        numb_trial_result({"acc": 0.5, "worst": float("inf")})
        raise ValueError(params["name"])
        """,
    )

    done = scene.numb("train")

    (run,) = scene.runs()
    refused = [
        "x is a set, which numb cannot keep as a value: use sorted(…)",
        "opt.betas[1] has the key 3, a int: keys must be strings",
        "f is a builtin_function_or_method, which numb cannot keep as a value: use a number, a string, a list or a dictionary",
        "takes a dictionary, not a int",
    ]
    both = [f"{hook}: {text}" for text in refused for hook in ("numb_param", "numb_trial_result")]
    assert [*both, "numb_param: loop.loop contains itself"] == done.stdout.splitlines()
    assert {
        "nan": {"$float": "nan"}, "inf": {"$float": "-inf"}, "zero": -0.0, "float": 1.0, "true": True, "none": None,
        "betas": {"$tuple": [0.9, 0.99]}, "opt": {"name": "adam", "sched": {"steps": [1, 2]}},
        "tag": {"$dict": {"$float": "nan"}}, "long": "x" * 5000, "name": "\udc80é\n", "big": 2**70, "one": 2, "last": 1,
    } == run["params"]  # fmt: skip
    assert ["1.0", "True", "-0.0"] == [repr(run["params"][name]) for name in ("float", "true", "zero")]
    assert {"acc": 0.5, "loss": 0.5, "worst": {"$float": "inf"}} == run["results"]
    assert ("failed", 1) == (run["status"], run["exit_code"])
    assert scene.numb("list").code == scene.numb("show @").code == scene.numb("report @").code == 0


@pytest.mark.usefixtures("warm")
def test_a_trial_restores_what_it_names(torch_scene: Scene) -> None:
    """A trial that names fewer hyperparameters gets those; one without numb_queue is started once, even without an ID."""
    _, run = train(
        torch_scene,
        """
        lr = 0.1
        width = 3
        layers = [1]
        numb_queue()
        layers.append(2)
        numb_param({"lr": lr, "width": 5, "layers": layers})
        net = numb_model((1, 4))(nn.Linear(4, 5))
        step(net, torch.ones(2, 4))
        """,
    )
    count = "open('starts.ignored', 'a').write('x')\n"
    write(
        torch_scene,
        count + "width = 1\nlayers = []\nnumb_queue()\nnet = numb_model((1, 4))(nn.Linear(4, width))\n"
        "numb_trial_result({'width': width, 'layers': layers, 'bias': net.bias.sum()})\n",
        "trial.py",
    )
    named = torch_scene.numb("trial", run["id"])
    write(
        torch_scene,
        count + "net = numb_model((1, 4))(nn.Linear(4, 5))\nnumb_trial_result({'bias': net.bias.sum()})\n",
        "trial.py",
    )
    unnamed = torch_scene.numb("trial --all")
    nothing_left = unnamed.code
    again = torch_scene.numb("trial", run["id"])

    shown = runs(torch_scene)[-1]
    first, second = shown["trials"]
    assert (0, 0) == (named.code, again.code), named.stderr + again.stderr
    assert 0 == nothing_left
    assert ({"width": 5, "layers": [1, 2]}, {}) == (first["params"], second["params"])
    assert {"width": 5, "layers": [1, 2], "bias": second["results"]["bias"]} == first["results"]
    assert "xxx" == torch_scene.read("starts.ignored")


TRAINS = """
class Net(nn.Module):
    @numb_model({dummy})
    def __init__(self, width):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, width), nn.Dropout(0.5)
    def forward(self, x):
        return self.drop(self.layer(x))
width = 3
numb_queue()
numb_param({{"width": width}})
torch.manual_seed(1)
net = Net(width)
for _ in range(3):
    step(net, torch.randn(5, 4))
numb_trial_result({{"sum": sum(p.sum() for p in net.parameters())}})
expect(Net=net)
print("trained")
"""


@pytest.mark.usefixtures("warm")
def test_no_fault_of_numb_changes_a_training(torch_scene: Scene) -> None:
    """Each hook fails in turn: same weights, output and exit code, one line on stderr, and the error in the record."""
    write(torch_scene, TRAINS.format(dummy="(1, 4)"))
    out = torch_scene.sh("python train.py")
    weights = plain(own(torch_scene))

    for number, hook in enumerate(("watch", "built", "first_inputs", "_save", "_graphs")):
        write(torch_scene, TRAINS.format(dummy="" if hook == "first_inputs" else "(1, 4)"))
        (torch_scene.root / "own.pt").unlink()
        done = torch_scene.numb("train --again", env={"NUMB_BREAK_HOOK": hook})

        run = runs(torch_scene)[-1]
        failed = "the weights were not kept" if hook == "_save" else f"{hook} failed"
        fault = f"{failed.removesuffix(' failed')}: RuntimeError: {hook} was broken on purpose"
        assert (0, out, weights) == (done.code, done.stdout.strip(), plain(own(torch_scene)))
        assert (
            f"numb: {failed} (RuntimeError: {hook} was broken on purpose); the script goes on. See: numb show {run['id']}"
            == done.stderr.splitlines()[0]
        )
        assert f"numb: {fault}" in run["notes"], run["notes"]
        assert (number + 1, "complete") == (len(runs(torch_scene)), run["status"])
        assert (hook not in ("watch", "built", "_save")) == bool(run["weights"])


@pytest.mark.usefixtures("warm")
def test_networks_without_weights_are_named(torch_scene: Scene) -> None:
    """Of two networks one has no state that could be kept: the end of the run, the list, show and the next run say so."""
    script = """
        class Mute(nn.Linear):
            def state_dict(self, *args, **kwargs):
                raise RuntimeError("no state")
        numb_param({"lr": 1})
        kept, mute = numb_model((1, 4))(nn.Linear(4, 3)), numb_model((1, 4))(Mute(4, 2))
        kept(torch.ones(1, 4)).sum().backward()
        """

    done, run = train(torch_scene, script)
    again = torch_scene.numb("train --skip-done")

    reason = "numb: the weights were not kept: RuntimeError: no state"
    assert (["Linear"], [reason]) == (list(run["weights"]), run["notes"])
    assert [f"numb: saved {run['id']}, but not the weights of Mute", f"      {reason}"] == done.stderr.splitlines()[-2:]
    assert [
        f"numb: {run['id']} is the same run, done before; nothing was trained",
        "      not all of its weights were kept; --again trains it again",
    ] == again.stderr.splitlines()
    assert " complete, no weights of Mute " in torch_scene.numb("list").stdout
    assert "status          complete, no weights of Mute\n" in torch_scene.numb("show @").stdout


@pytest.mark.parametrize("hook", ["start", "param", "inject", "result", "_surroundings"])
def test_no_fault_of_numb_changes_a_script(scene: Scene, hook: str) -> None:
    """The same for the hooks that know nothing of networks: the script prints what it prints, and ends as it ends."""
    done = scene.numb("train", "--", "7", env={"NUMB_BREAK_HOOK": hook})

    (run,) = runs(scene)
    assert (7, "lr 0.1\n", "failed") == (done.code, done.stdout, run["status"])
    first = done.stderr.splitlines()[0]
    if hook == "start":
        assert "numb: nothing of this script can be recorded (RuntimeError: start was broken on purpose)" == first
        assert {} == run["params"]
    else:
        assert first.startswith(
            f"numb: {hook} failed (RuntimeError: {hook} was broken on purpose); the script goes on."
        )
        assert f"numb: {hook}: RuntimeError: {hook} was broken on purpose" in run["notes"]
        assert {"lr": 0.1, "epochs": 2} == run["params"]  # by numb_queue, or by numb_param, or by both


def test_a_queue_whose_values_cannot_be_injected_trains_nothing(scene: Scene) -> None:
    """What a queue asked for is trained or nothing is: with other values the run would look like the entry's."""
    scene.write("q.json", '[{"lr": 0.5}]')

    done = scene.numb("queue", "run", "q.json", env={"NUMB_BREAK_HOOK": "inject"})

    assert (125, "", []) == (done.code, done.stdout, runs(scene))
    assert [
        "numb: [1/1] lr=0.5",
        "numb: inject failed (RuntimeError: inject was broken on purpose); nothing was trained",
    ] == done.stderr.splitlines()


@pytest.mark.parametrize("name", ["queue.py", "hooks.py", "record.py", "session.py", "layout.py", "calls.py"])
def test_the_users_modules_keep_their_names(scene: Scene, name: str) -> None:
    """A project may have modules named as numb's own: each gets its own, and the standard library's `queue` is not numb's."""
    stem = name.removesuffix(".py")
    scene.write(name, "MINE = 1\n")
    scene.write("train.py", f"import {stem}\n{PLAIN}print({stem}.MINE)\n".replace("sys.exit", "0 and sys.exit"))

    done = scene.numb("train")

    assert (0, "lr 0.1\n1\n") == (done.code, done.stdout), done.stderr
    assert {"lr": 0.1, "epochs": 2} == runs(scene)[0]["params"]


@pytest.mark.parametrize("name", ["numb.py", "numb/__init__.py"])
def test_a_users_module_called_numb_is_named(scene: Scene, name: str) -> None:
    """A file of the user's that hides numb from the script is what the message names, beside Python's own error."""
    scene.write(name, "pass\n")

    done = scene.sh("numb train 2>&1 || echo $?")  # `python -m numb` would find the user's file too

    (run,) = runs(scene)
    note = f"{scene.root / name} hides numb from the script: give it another name"
    assert (1, "failed") == (run["exit_code"], run["status"])
    assert "ImportError: cannot import name 'numb_param' from 'numb'" in done
    assert note in run["notes"]
    assert f"      {note}\n1" in done


def imported(scene: Scene, program: str, **env: str) -> set[str]:
    """The modules that are there after *program*, without those that Python starts with here."""
    show = "\nimport sys; print(*sorted(sys.modules))"
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"

    def after(text: str) -> set[str]:
        arguments = [sys.executable, "-S", "-E", "-c", start + text + show]
        done = subprocess.run(arguments, env={**scene.env, **env}, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    return after(program) - after("")


HOOKS = """
from numb import numb_model, numb_param, numb_queue, numb_trial_result
lr = 0.1
numb_queue()
numb_param({"lr": lr, "kept": object()})
@numb_model(object())
class Net: pass
numb_trial_result({"acc": 1})
"""


def test_importing_numb_costs_nothing(scene: Scene) -> None:
    """`import numb`, and every hook without numb, load six modules of numb and of the library only typing and its own."""
    loaded = imported(scene, HOOKS)

    ours = {"numb", "numb.hooks", "numb.hp", "numb.hp.params", "numb.layout", "numb.version"}
    assert ours == {m for m in loaded if m.partition(".")[0] == "numb"}
    assert not loaded & {"torch", "git", "click", "sqlite3", "json", "pathlib", "numpy", "ast", "subprocess"}, loaded
    assert len(loaded) < 45, loaded


def test_a_session_costs_little(scene: Scene) -> None:
    """Under numb, a script without a network loads no torch, git, click or SQL."""
    folder = scene.root / ".nmb" / "runs" / "20261120-213353-x7f2"
    (folder / "record").mkdir(parents=True)
    (folder / "order.json").write_text('{"id": "20261120-213353-x7f2", "mode": "train", "inject": {}}')

    loaded = imported(
        scene, HOOKS.replace(', "kept": object()', "").replace("@numb_model(object())", ""), NUMB_RUN_DIR=str(folder)
    )

    told = [event["event"] for event in events(folder)]
    assert ["start", "queue", "param", "result", "surroundings", "end"] == told
    unwanted = {
        "torch",
        "git",
        "click",
        "sqlite3",
        "numpy",
        "subprocess",
        "socket",
        "asyncio",
        "platform",
        "shutil",
        "numb.hp.source",
    }
    assert not loaded & unwanted, loaded & unwanted


def test_a_question_longer_than_a_pipe_arrives_whole() -> None:
    """A large network's operators do not fit into a pipe at once: all of it is written, and one line is read back."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    question = b"x" * 1_000_000 + b"\n"
    received = bytearray()

    def launcher() -> None:
        while not received.endswith(b"\n"):
            received.extend(os.read(reading, 1 << 12))

    thread = threading.Thread(target=launcher)
    thread.start()
    session._send(writing, question)
    thread.join()
    os.set_blocking(reading, False)
    session._send(writing, b'{"n": 1}\n{"n": 2}\n')

    assert question == received
    assert (b'{"n": 1}\n', b'{"n": 2}\n') == (session._line_from(reading), session._line_from(reading))
    os.close(writing)
    assert b"" == session._line_from(reading)
    os.close(reading)
