"""Hyperparameters in scripts of every kind, through the commands: the script computes with what was set, or it is refused."""

from __future__ import annotations

import json
import pickle
import threading
from collections import OrderedDict
from pathlib import Path

import pytest
from conftest import Scene, furnish

import numb
from numb.errors import HyperparameterError
from numb.hp import Manager, Params, formats, imports, reading

HEAD = "from numb import *\nfrom numb.hp import _\n"
ARGS = "import argparse\nfrom numb import *\nparser = argparse.ArgumentParser()\n"


@pytest.fixture
def project(empty: Scene) -> Scene:
    furnish(empty, {"train.py": HEAD})
    return empty


def trained(project: Scene, script: str, words: str = "", **files: str) -> tuple[int, str, str]:
    """Exit code, output and first line of talk of `numb train WORDS` with that script."""
    project.write("train.py", script)
    for name, text in files.items():
        project.write(f"{name}.py", text)
    done = project.numb(f"train --again {words}")
    return done.code, done.stdout, done.stderr.splitlines()[0] if done.stderr else ""


# -- where a value goes


@pytest.mark.parametrize(
    ("script", "words", "printed"),
    [
        ("lr = _('lr', 0.1) / 2\nnumb_queue()\nprint(lr)\n", "lr=0.1", "0.05"),
        ("from net import evaluate\nnumb_queue()\nprint(evaluate())\n", "evaluate=no", "False"),
        ("from net import seed\nnumb_queue()\np = numb_param({'seed': 0})\nprint(seed(), p.seed)\n", "seed=3", "s 3"),
        ("lr = 0.1\nnumb_queue()\nprint(lr, _('lr', 0.1))\n", "lr=0.5", "0.5 0.5"),
    ],
)
def test_a_name_of_the_module_is_not_the_hyperparameter_of_that_name(
    project: Scene, script: str, words: str, printed: str
) -> None:
    """What a call or numb_param gives is not put in the place of what a module calls the same; an assignment is both."""
    net = HEAD + "def evaluate():\n    return _('evaluate', True)\ndef seed():\n    return 's'\n"
    assert (0, f"{printed}\n") == trained(project, HEAD + script, words, net=net)[:2]


@pytest.mark.parametrize(
    ("default", "word", "printed"),
    [
        ("not 1", "k=no", "False"), ("f'{3}'", "k=5", "'5'"), ("1 / 2 + len('')", "k=1", "1.0"), ("[8] * 2", "k=3,4", "[3, 4]"),
        ("0 * len('')", "k=0.5", "0.5"), ("{'a': len('x'), 'b': 2}", "k.a=5", "{'a': 5, 'b': 2}"),
    ],
)  # fmt: skip
def test_a_computed_default_of_a_call_is_of_its_type(project: Scene, default: str, word: str, printed: str) -> None:
    """Where only running tells the type, it is that of the default that the call is given."""
    assert (0, f"{printed}\n") == trained(project, f"{HEAD}print(repr(_('k', {default})))\n", word)[:2]


@pytest.mark.parametrize(
    ("call", "word", "said"),
    [
        ("_('k', len('x'))", "k=abc", "k=abc: expected a whole number, found 'abc'"),
        ("_('k', float(len('x')), max=2)", "k=high", "k=high: expected a number, found 'high'"),
        ("_('k', {'a': len('x')})", "k.b=1", "k has no b"),
    ],
)
def test_a_computed_default_refuses_as_another(project: Scene, call: str, word: str, said: str) -> None:
    """Before the call returns."""
    assert (125, "", f"numb: {said}") == trained(project, f"{HEAD}print({call})\n", word)


def test_another_file_does_not_say_what_a_name_of_the_script_is(project: Scene) -> None:
    """A call in a file that the script does not import has nothing to do with what its parser or its settings hold."""
    args = ARGS + "parser.add_argument('--lr', type=float, default=0.1)\nargs = parser.parse_args()\n"
    for text in ("print(_('lr', 'auto'))", "print(_('lr', 1, max=5))"):
        old = f"{HEAD}{text}\n"
        assert (0, "10.0\n") == trained(project, args + "numb_queue(vars(args))\nprint(args.lr)\n", "lr=10", old=old)[
            :2
        ]
    script = "from config import lr\nfrom numb import *\nnumb_queue()\nprint(lr)\n"
    assert (0, "0.5\n") == trained(project, script, "lr=0.5", old="lr = 'auto'\n", config="lr = 0.1\n")[:2]


@pytest.mark.parametrize(
    "line",
    ["import os; import net", "if True: import net", "import os, \\\n    net", "from net import (  # )\n    use,\n)\nimport net", "def f():\n    import net\nf()\nimport net"],
)  # fmt: skip
def test_imports_are_found_wherever_they_stand(project: Scene, line: str) -> None:
    """The default of the module that is imported counts, and not that of another file."""
    files = {"net": HEAD + "def use():\n    return _('width', 32)\n", "aaa_old": HEAD + "print(_('width', 'auto'))\n"}
    assert (0, "64\n") == trained(project, f"{HEAD}{line}\nprint(repr(net.use()))\n", "width=64", **files)[:2]


def test_modules_of_a_package(tmp_path: Path) -> None:
    """Relative imports, packages on the way, and names that may be modules."""
    source = reading.Source("x", "from . import a\nfrom ..b import c\nimport d.e as f\n")
    names = [".".join(parts[-2:]) for parts in imports.modules(source, tmp_path / "p" / "q" / "x.py")]
    assert {"q.a", "b.c", "p.b", "d.e", "d"} <= set(names)


# -- names that nobody has


@pytest.mark.parametrize(
    "head",
    [
        "from numb import *\nfrom numb.hp import _\n",
        "import numb\nfrom numb.hp import _\nfrom numb import numb_queue\n",
    ],
)
def test_a_typo_is_refused_however_numb_is_imported(project: Scene, head: str) -> None:
    """Before anything runs: numb's own star brings no hyperparameters."""
    project.write("train.py", head + "epochs = 3\nnumb_queue()\nprint(_('width', 2))\n")
    project.write("q.json", '[{"width": 1}, {"widht": 2}]')
    for command in (
        "train widht=4",
        "train --dry-run widht=4",
        "hp widht=4",
        "hp train.py widht=4",
        "train --queue q.json",
    ):
        done = project.numb(command)
        assert (2, True) == (done.code, "try: did you mean width?" in done.stderr), (command, done.stderr)
    assert [] == project.runs()


def test_a_typo_for_a_parser_is_refused_when_the_parser_is_there(project: Scene) -> None:
    """Its options are known when it has parsed; in capitals a variable names one of them, too."""
    script = (
        ARGS
        + "parser.add_argument('--lr', type=float, default=0.1)\nargs = parser.parse_args()\nnumb_queue(vars(args))\nprint(args.lr)\n"
    )
    project.write("train.py", script)

    refused = project.numb("train lrr=0.5")
    given = project.numb("train", env={"NUMB_HP_LR": "0.5"})

    assert (125, "") == (refused.code, refused.stdout) and "try: did you mean lr?" in refused.stderr
    assert ("0.5\n", {"lr": 0.5}) == (given.stdout, project.runs()[-1]["params"])


def test_a_parser_whose_options_are_registered_one_by_one(project: Scene) -> None:
    """numb_queue sets it before numb_param is given what came of it."""
    script = (
        ARGS
        + "parser.add_argument('--lr', type=float, default=0.1)\nargs = parser.parse_args()\nnumb_queue(vars(args))\n"
    )
    script += "numb_param({'lr': args.lr, 'seed': 3})\nprint(args.lr)\n"
    assert (0, "0.5\n") == trained(project, script, "lr=0.5")[:2]


# -- dictionaries


COMPUTED = HEAD + "base = 0.1\nopt = {'lr': base, 'n': len('abc')}\nnumb_queue()\nprint(opt)\n"


def test_a_file_leaves_what_it_does_not_say_of_a_computed_dictionary(project: Scene) -> None:
    """As of one that is constant: some keys are set, the rest stays, and one that is not there is refused."""
    project.write("o.yaml", "opt: {lr: 0.5}\n")
    project.write("train.py", COMPUTED)
    project.write("q.json", '[{"opt": {"lr": 0.7}}]')

    done = [project.numb(f"train {words}") for words in ("-c o.yaml", "--queue q.json", "opt.lr=0.9")]

    assert [f"{{'lr': {lr}, 'n': 3}}\n" for lr in (0.5, 0.7, 0.9)] == [each.stdout for each in done]
    assert not any("never read" in each.stderr for each in done)
    typo = project.numb("train opt.lrr=0.5")
    assert (125, "numb: opt has no lrr\n      try: did you mean opt.lr?\n") == (typo.code, typo.stderr)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("""'opt={"lr":1,"n":2}' opt.n=5""", "{'lr': 1, 'n': 5}"),
        ("-c a.json opt.n=5", "{'lr': 7, 'n': 5}"),
        ("-c a.json -c b.json", "{'lr': 8, 'n': 2}"),
        ("""opt.n=5 'opt={"lr":1,"n":2}'""", "{'lr': 1, 'n': 2}"),
    ],
)
@pytest.mark.parametrize("opt", ["{'lr': base, 'n': len('abc')}", "dict(zip(['lr', 'n'], [0, 0]))"])
def test_a_part_after_the_whole(project: Scene, opt: str, words: str, printed: str) -> None:
    """The later of the two counts, where only running tells that it is a dictionary, too."""
    project.write("a.json", '{"opt": {"__is_dict__": true, "lr": 7, "n": 2}}')
    project.write("b.json", '{"opt": {"lr": 8}}')
    script = f"{HEAD}base = 0.1\nopt = {opt}\nnumb_queue()\nprint(opt)\n"
    assert (0, f"{printed}\n") == trained(project, script, words)[:2]


def test_an_object_keeps_what_it_is(project: Scene) -> None:
    """Keys of a file go to the description that is the default."""
    project.write("train.py", HEAD + "print(_('opt', {'$build': 'collections.OrderedDict', 'lr': 0.1}))\n")
    project.write("o.yaml", "opt:\n  lr: 0.5\n  momentum: 0.9\n")
    assert (
        "{'$build': 'collections.OrderedDict', 'lr': 0.5, 'momentum': 0.9}\n" == project.numb("train -c o.yaml").stdout
    )


@pytest.mark.parametrize(
    "words",
    [
        """'d={"b":5}'""",
        """'d={"a":7,"b":{"x":2}}'""",
        "d={}",
        """'d={"a":{}}'""",
        """'d={"a":"x","b":{"x":[1],"y":2}}'""",
        "s={7} c=3j b=xyz e={4:5}",
    ],
)
def test_what_a_dry_run_prints_is_the_same_for_the_next(project: Scene, words: str) -> None:
    """Its output is a file for -c, and what that sets is what was set."""
    project.write(
        "train.py",
        HEAD
        + "print([_('d', {'a': 1, 'b': {'x': 1, 'y': 2}}), _('s', {1}), _('c', 1j), _('b', b'x'), _('e', {1: 2}), _('n', len('a'))])\n",
    )
    set_by_words = project.numb(f"train --again {words}").stdout
    project.write("o.yaml", project.numb(f"train --dry-run {words}").stdout)
    assert set_by_words == project.numb("train --again -c o.yaml").stdout


@pytest.mark.parametrize(
    "text", ["opt: {lr: 1}\nopt.lr: 2\n", "opt.lr: 2\nopt: {lr: 1}\n", "opt.lr: 2\nopt: {$build: x.Y}\n"]
)
def test_a_whole_and_its_part_are_one_too_many(project: Scene, text: str) -> None:
    """In either order, in a file and in a queue, whose other entries have not run then."""
    project.write("train.py", HEAD + "print(_('opt', {'lr': 0.1}))\n")
    project.write("o.yaml", text)
    assert "is there twice" in project.numb("train -c o.yaml").stderr
    entry = formats.load(project.root / "o.yaml")[0]
    project.write("q.json", json.dumps([{"opt.lr": 0.3}, entry]))
    done = project.numb("train --queue q.json")
    assert (2, "", True) == (done.code, done.stdout, "is there twice" in done.stderr)


def test_keys_of_any_literal_type_are_recorded(project: Scene) -> None:
    """An edited dictionary with numbers for keys, or a set, is another run."""
    for milestones, frozen in (("{10: 0.1}", "{1, 2}"), ("{10: 0.9}", "{5}")):
        trained(project, f"{HEAD}milestones = {milestones}\nfrozen = {frozen}\nnumb_queue()\n")
    assert (0, "{10: 0.7} {7}\n") == trained(
        project,
        f"{HEAD}milestones = {{10: 0.9}}\nfrozen = {{5}}\nnumb_queue()\nprint(milestones, frozen)\n",
        "milestones={10:0.7} frozen={7}",
    )[:2]
    assert 3 == len({json.dumps(run["params"], sort_keys=True) for run in project.runs()})
    assert all({"milestones", "frozen"} == run["params"].keys() for run in project.runs())


# -- where numb_queue stands


def test_numb_queue_in_a_function(project: Scene) -> None:
    """What the module assigns before it calls the function is set, wherever that stands; what the function has cannot be."""
    script = (
        HEAD + "def main():\n    numb_queue()\n    print(lr)\nif __name__ == '__main__':\n    lr = 0.1\n    main()\n"
    )
    assert (0, "0.5\n") == trained(project, script, "lr=0.5")[:2]
    local = HEAD + "def main():\n    lr = 0.1\n    numb_queue(locals())\nmain()\n"
    code, _, said = trained(project, local, "lr=0.5")
    assert 1 == code and "numb_queue: the variables of a function cannot be set" in project.numb("train").stderr, said
    strange = trained(project, HEAD + "class C:\n    lr = 1\nnumb_queue(vars(C))\n")
    assert 1 == strange[0]


# -- what is told


def test_set_value_in_the_code_is_noted(project: Scene) -> None:
    """It goes before what was set from outside, and the run says so."""
    trained(project, HEAD + "_.set_value('lr', 3.0)\nprint(_('lr', 0.1))\n", "lr=0.5")
    assert ["lr was set to 0.5, and the script has used 3"] == project.runs()[-1]["notes"]


def test_different_values_of_one_name_are_told(project: Scene) -> None:
    """An assignment and a call: numb hp says that they differ, and so does the run."""
    trained(project, HEAD + "lr = 0.1\nnumb_queue()\nprint(lr, _('lr', 0.2))\n")
    assert ["lr had several values in this run; the last one is recorded"] == project.runs()[-1]["notes"]
    assert "numb: lr has different defaults: train.py:3, train.py:5\n" == project.numb("hp").stderr


def test_why_marks_what_counts(project: Scene) -> None:
    """Of two files and two words the last; of a dictionary every part that is not replaced."""
    project.write(
        "train.py", HEAD + "epochs = 3\nnumb_queue()\nnumb_param({'epochs': epochs})\n_('opt', {'lr': 1, 'm': 2})\n"
    )
    for name, text in (("a.yaml", "opt: {lr: 5, m: 6}"), ("b.yaml", "opt: {lr: 7}")):
        project.write(name, text)

    def marked(words: str) -> list[str]:
        lines = project.numb(f"hp --why {words}").stdout.splitlines()
        return [line.split()[-1] for line in lines if line.startswith("*")]

    assert ["train.py:3"] == marked("epochs")
    assert ["epochs=5"] == marked("epochs epochs=4 epochs=5")
    assert ["train.py:6", "a.yaml:1", "b.yaml:1"] == marked("opt -c a.yaml -c b.yaml")
    assert ["opt={}", "opt.m=3"] == marked("opt -c a.yaml opt={} opt.m=3")


def test_a_name_that_is_given_in_two_ways(project: Scene) -> None:
    """Which of them was the last is lost."""
    project.write("train.py", HEAD + "_('lr', 1)\n")
    project.write("q.json", "[{}]")
    for command in ("train", "queue run q.json"):
        done = project.numb(f"{command} -p lr=2 lr=3")
        assert (2, "numb: lr is given twice, with -p and without\n      try: give lr once\n") == (
            done.code,
            done.stderr,
        )


def test_a_name_that_is_taken_is_no_placeholder(project: Scene) -> None:
    """Nor is it silently nothing."""
    project.write("train.py", "from numb.hp import params\nlr = params('lr', 0.1)\n")
    said = "numb: train.py:2:6: params is a module of numb.hp, and no placeholder; from numb.hp import _"
    assert said == project.numb("hp").stderr.splitlines()[0]


@pytest.mark.usefixtures("warm")
def test_other_arguments_are_told_when_nothing_is_trained(torch_scene: Scene) -> None:
    """Arguments are no hyperparameters: who looks only at these is told what the command was."""
    torch_scene.write(
        "train.py",
        "import torch\nfrom numb import *\nnet = numb_model((1, 4))(torch.nn.Linear(4, 2))\nnumb_param({'a': 1})\nnet(torch.ones(1, 4)).sum().backward()\n",
    )
    torch_scene.numb("train")
    told = torch_scene.numb("train --skip-done -- --epochs 9").stderr.splitlines()
    assert "      its command was python train.py; --again trains with this one" == told[-1], told


# -- files


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "[a]\nlr = 1\n[b]\nlr = 'x'\n", "a.toml:4: b.lr: expected a number, found 'x'"),
        ("a.toml", "# b.lr\n\nb.lr = 'x'\n", "a.toml:3: b.lr: expected a number, found 'x'"),
        ("a.toml", "#\nb = {lr = 'x'}\n", "a.toml:2: b.lr: expected a number, found 'x'"),
        ("a.yaml", "on: 2\n", "a.yaml:1: the script has no hyperparameter on"),
        ("a.yaml", "!!set {a}\n", "a.yaml:1: expected a mapping such as lr: 0.1"),
        ("a.yaml", "w: !!bool x\n", "a.yaml:1: "),
        ("a.yaml", "w: !!timestamp x\n", "a.yaml:1: "),
        ("a.json", '{"w": "\\ud800"}', "a.json:1: w: expected bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_has_its_line(project: Scene, name: str, text: str, said: str) -> None:
    """And is no traceback."""
    project.write("train.py", HEAD + "_('a.lr', 1.0), _('b.lr', 1.0), _('w', b'x')\n")
    project.write(name, text)
    done = project.numb(f"train -c {name}")
    assert (2, True) == (done.code, done.stderr.startswith(f"numb: {said}")), done.stderr


@pytest.mark.parametrize(("word", "printed"), [("1e-4", "0.0001"), ("1e-8", "1e-08"), ("4", "4.0")])
def test_a_file_that_experiments_share(project: Scene, word: str, printed: str) -> None:
    """AC-J1: what differs is said beside it, arrives exactly and by the type of the default; another name is an error."""
    project.write("train.py", HEAD + "print(_('lr', 0.1), _('epochs', 3))\n")
    project.write("base.yaml", "lr: 0.5\nepochs: 7\n")
    project.write("wrong.yaml", "lr: 0.5\nrate: 7\n")
    assert f"{printed} 7\n" == project.numb(f"train -c base.yaml -p lr={word}").stdout
    wrong = project.numb("train -c wrong.yaml").stderr
    assert wrong.startswith("numb: wrong.yaml:2: the script has no hyperparameter rate\n")


def test_words_of_yaml_are_words(tmp_path: Path) -> None:
    """yes, on and n are text, and true is true, in any of the ways to write it."""
    (tmp_path / "a.yaml").write_text("a: yes\nb: on\nc: n\nd: true\ne: False\nf: truer\n")
    assert {"a": "yes", "b": "on", "c": "n", "d": True, "e": False, "f": "truer"} == formats.load(tmp_path / "a.yaml")[
        0
    ]


# -- in the script


def test_many_threads_ask_for_the_first_time() -> None:
    """Each gets the value of its name, and none an error."""
    for _round in range(5):
        manager, wrong = Manager(), []

        def ask(manager: Manager = manager, wrong: list[object] = wrong) -> None:
            try:
                wrong.extend(number for number in range(50) if manager(f"n{number}.x", number) != number)
            except Exception as error:  # whatever it is, it is what this looks for
                wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ([], {f"n{number}.x": number for number in range(50)}) == (wrong, manager.get_values())


def test_params_are_pickled_without_numb(tmp_path: Path) -> None:
    """A checkpoint that holds them is read by torch as data, and by whoever has no numb."""
    import torch

    params = Params(lr=0.1, opt=Params(m=0.9))
    del params.lr
    torch.save({"params": params}, tmp_path / "a.pt")
    assert {"params": {"opt": {"m": 0.9}}} == torch.load(tmp_path / "a.pt", weights_only=True)
    assert OrderedDict is type(pickle.loads(pickle.dumps(params))) and b"numb" not in pickle.dumps(params)
    with pytest.raises(AttributeError, match="there is no lr"):
        del params.lr


@pytest.mark.parametrize("description", [{"$biuld": "torch.optim.Adam"}, "torch.optim.Adam", [1]])
def test_what_describes_nothing_is_not_built(description: object) -> None:
    """Arguments that would be lost are a mistake in the description."""
    with pytest.raises(HyperparameterError, match=r"describes no object: it has no \$build"):
        numb.build(description, 1)


@pytest.mark.usefixtures("warm")
def test_a_trial_has_the_values_of_calls_below_its_network(torch_scene: Scene) -> None:
    """Which run it is has been chosen when the network stands: the script is begun anew with all of the run's values."""
    script = (
        "import torch\nfrom numb import *\nfrom numb.hp import _\nnet = numb_model((1, 4))(torch.nn.Linear(4, 2))\n"
    )
    torch_scene.write("train.py", script + "print(_('temp', 1.0))\nnet(torch.ones(1, 4)).sum().backward()\n")
    torch_scene.write("trial.py", script + "temp = _('temp', 1.0)\nprint(temp)\nnumb_trial_result({'t': temp})\n")
    torch_scene.numb("train temp=7")
    assert "7.0\n" == torch_scene.numb("trial --all").stdout
