"""Hyperparameters set from outside: what text becomes, which value counts, what is refused before anything runs."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from conftest import Done, Scene, furnish
from hypothesis import given
from hypothesis import strategies as st

import numb
from numb.errors import ConfigError, HyperparameterError, NumbError, UnknownHyperparameter, Usage
from numb.hp import EMPTY, NOT_LITERAL, Level, Params, coerce, formats, table
from numb.hp.settings import Settings, gather

SOURCE = """
from numb import numb_param, numb_queue
from numb.hp import _
epochs = 3
opt = {"name": "sgd", "lr": 0.1, "betas": (0.9, 0.999)}
numb_queue()
params = numb_param({"seed": 0, "epochs": epochs})
lr = _("lr", 0.1, min=0, max=1)
mode = _("mode", "min")
sizes = _("net.sizes", [1, 2])
flag = _("flag", False)
maybe = _("maybe", None)
pair = _("pair", (1, 2))
act = _("act", "relu", choices=["relu", "gelu"])
made = _("made", print)
described = _("described", {"$build": "x.Y", "lr": 1})
"""


@pytest.fixture
def known(tmp_path: Path) -> table.Table:
    """The table of one script with every kind of hyperparameter."""
    path = tmp_path / "train.py"
    path.write_text(SOURCE)
    return table.read([path], [], tmp_path)


def set_by(known: table.Table, *words: str, **levels: Any) -> dict[str, Any]:
    return gather(known, words=words, **levels).values()


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (1, "3", 3), (1, "-3", -3), (1, "0x10", 16), (1, "1_000", 1000), (0.1, "3", 3.0), (0.1, "-1e-4", -1e-4), (0.1, "inf", math.inf),
        (0.1, "1e-08", 1e-8), ("x", "3", "3"), ("x", "None", "None"), ("x", "", ""), ("x", "a=b c", "a=b c"), (None, "None", None),
        (None, "1e-4", 1e-4), (None, "max", "max"), (None, "[1, 2]", [1, 2]), ([1], "[3, 4]", [3, 4]), ([1], "(3, 4)", [3, 4]),
        ((1,), "(3,4)", (3, 4)), ((1,), "[3,4]", (3, 4)), ((1,), "3, 4", (3, 4)), ({1}, "{3, 4}", {3, 4}), ({"a": 1}, "{'b': 2}", {"b": 2}),
        ({"a": 1}, '{"b": true, "c": null}', {"b": True, "c": None}), (1j, "1+2j", 1 + 2j), (b"x", "b'yz'", b"yz"), (b"x", "yz", b"yz"),
        (NOT_LITERAL, "3", 3), (NOT_LITERAL, "__import__('os').getpid()", "__import__('os').getpid()"), (EMPTY, "true", True),
    ],
)  # fmt: skip
def test_the_type_of_the_default_decides(default: object, text: str, value: object) -> None:
    """A02 to A04: text becomes a value of the default's type, by parsing a literal and never by evaluating."""
    assert repr(value) == repr(coerce.from_text(text, default))


@pytest.mark.parametrize("word", ["yes", "True", "t", "Y", "1"])
def test_booleans_are_words(word: str) -> None:
    """AC-A4: in any case, and nothing else is one."""
    assert coerce.from_text(word, False) is True
    assert coerce.from_text({"yes": "no", "True": "FALSE", "t": "F", "Y": "n", "1": "0"}[word], True) is False
    with pytest.raises(coerce.Unfit, match="true or false"):
        coerce.from_text(f"{word}x", True)


@pytest.mark.parametrize(
    ("default", "text"),
    [(1, "3.5"), (1, "a"), (1, "True"), (0.1, "a"), ([1], "3"), ((1,), "3"), ({"a": 1}, "[1]"), ({"a": 1}, "{"), ([1], "["), ({1}, "{[]}")],
)  # fmt: skip
def test_what_is_of_another_type_is_refused(default: object, text: str) -> None:
    """Neither rounded nor taken to pieces: it is said what was expected and what was found."""
    with pytest.raises(coerce.Unfit, match=r"expected .*found"):
        coerce.from_text(text, default)


@pytest.mark.parametrize(
    ("default", "value", "fits"),
    [
        (1, 1.0, 1), (1, "7", 7), (0.1, "1e-4", 1e-4), (0.1, 3, 3.0), (0.1, 2**53 + 1, 2**53 + 1), (1j, 2, 2 + 0j), ((1,), [1, 2], (1, 2)), (0.1, None, None), (True, "no", False),
        ("x", "y", "y"), (None, {"a": 1}, {"a": 1}), ([1], (1, 2), [1, 2]),
    ],
)  # fmt: skip
def test_values_of_files_fit_without_loss(default: object, value: object, fits: object) -> None:
    """A08: JSON has no tuples and YAML reads 1e-4 as text; None goes everywhere."""
    assert repr(fits) == repr(coerce.from_value(value, default))


@pytest.mark.parametrize(
    ("default", "value"), [(1, 1.7), (1, True), (True, 1), (0.1, "a"), (0.1, True), ("x", 3), ([1], 3), ({}, [1])]
)
def test_values_that_would_lose_something_are_refused(default: object, value: object) -> None:
    """A08: 1.7 is no whole number, and text is not true because it is there."""
    with pytest.raises(coerce.Unfit):
        coerce.from_value(value, default)


@given(
    st.integers()
    | st.floats(allow_nan=False)
    | st.lists(st.integers())
    | st.dictionaries(st.text(), st.integers())
    | st.booleans()
)
def test_what_python_writes_is_read_back(value: object) -> None:
    """The text that Python prints for a value sets a hyperparameter of its type to that value."""
    assert repr(value) == repr(coerce.from_text(repr(value), value))


def test_every_kind_is_set_by_words(known: table.Table) -> None:
    """AC-J8: calls, assignments, keys of numb_param, and what lies inside of a dictionary; nothing is executed."""
    words = [
        "lr=1e-8",
        "epochs=7",
        "seed=3",
        "mode=max",
        "net.sizes=[5]",
        "opt.lr=0.5",
        "opt.name=adam",
        "flag=yes",
        "made=foo bar",
    ]
    assert {
        "lr": 1e-8, "epochs": 7, "seed": 3, "mode": "max", "net.sizes": [5], "flag": True, "made": "foo bar",
        "opt.lr": 0.5, "opt.name": "adam",
    } == set_by(known, *words)  # fmt: skip
    assert {"name": "adam", "lr": 0.5, "betas": (0.9, 0.999)} == gather(known, words=words).applied()["opt"]
    described = gather(known, words=["described.momentum=0.9"]).applied()
    assert {"described": {"$build": "x.Y", "lr": 1, "momentum": 0.9}} == described
    assert {"mode": '__import__("os").getpid()'} == set_by(known, 'mode=__import__("os").getpid()')


@pytest.mark.parametrize(
    ("word", "said", "hint"),
    [
        ("Lr=1", "Lr=1: the script has no hyperparameter Lr", "did you mean lr?"),
        ("sizes=[1]", "sizes=[1]: the script has no hyperparameter sizes", "did you mean net.sizes?"),
        ("lr=2", "lr=2: expected at most 1, found 2.0", "numb hp --why lr"),
        ("lr=-1", "lr=-1: expected at least 0, found -1.0", "numb hp --why lr"),
        ("lr=nan", "lr=nan: expected at least 0, found nan", "numb hp --why lr"),
        ("act=tanh", "act=tanh: expected one of 'relu', 'gelu', found 'tanh'", "numb hp --why act"),
        (
            "opt.momentum=1",
            "opt.momentum=1: the script has no hyperparameter opt.momentum",
            "the script has opt.betas, opt.lr, opt.name",
        ),
        ("opt.lr.x=1", "opt.lr.x=1: the script has no hyperparameter opt.lr.x", "did you mean opt.lr?"),
        ("opt.nme=x", "opt.nme=x: the script has no hyperparameter opt.nme", "did you mean opt.name?"),
        ("epochs=a", "epochs=a: expected a whole number, found 'a'", "numb hp --why epochs"),
    ],
)
def test_what_the_script_cannot_take_is_refused(known: table.Table, word: str, said: str, hint: str) -> None:
    """An unknown name names the nearest, a value outside of its limits the limit."""
    with pytest.raises(HyperparameterError) as error:
        set_by(known, word)
    assert (said, hint) == (str(error.value), error.value.hint)


def test_a_value_that_only_the_record_would_have_is_refused(tmp_path: Path) -> None:
    """What is only registered cannot be set: the script would go on computing with its own value."""
    path = tmp_path / "train.py"
    path.write_text(
        "from numb import numb_param\nlr = 0.1\nnumb_param({'lr': lr, 'seed': 1})\nkept = numb_param({'wd': lr, 'x': 1})\n"
    )
    known = table.read([path], [], tmp_path)

    for word in ("lr=1", "seed=1", "wd=1"):
        with pytest.raises(HyperparameterError, match="is only registered"):
            set_by(known, word)
    assert {"x": 2} == set_by(known, "x=2")


def test_the_highest_level_counts(known: table.Table, tmp_path: Path) -> None:
    """File, environment, queue, command line: each goes before the one above, and a later file before an earlier one."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.json"
    one.write_text("lr: 0.2\nepochs: 2\nmode: one\nflag: true\nopt:\n  name: adam\n  lr: 0.2\n")
    two.write_text('{"lr": 0.3, "net": {"sizes": [3]}}')
    given = {
        "files": [str(one), str(two)],
        "environment": {"NUMB_HP_EPOCHS": "4", "NUMB_HP_net__sizes": "[4]", "HOME": "x"},
    }

    everything = gather(known, **given, queue={"epochs": 5, "mode": "queue"}, words=["mode=word", "opt.lr=0.6"])

    assert {
        "lr": 0.3, "epochs": 5, "mode": "word", "flag": True, "net.sizes": [4], "opt.name": "adam", "opt.lr": 0.6,
    } == everything.values()  # fmt: skip
    levels = {name: level.text for name, level in everything.levels().items()}
    assert {
        "lr": "file", "epochs": "queue", "mode": "command line", "flag": "file", "net.sizes": "environment", "opt": "command line",
        "opt.lr": "command line", "opt.name": "file",
    } == levels  # fmt: skip
    origins = [(each.level, each.origin) for each in everything.of("epochs")]
    assert [(Level.FILE, f"{one}:2"), (Level.ENVIRONMENT, "NUMB_HP_EPOCHS"), (Level.QUEUE, "the queue")] == origins


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("opt:\n  lr: 0.5\n", {"name": "sgd", "lr": 0.5, "betas": (0.9, 0.999)}),
        ("opt.lr: 0.5\n", {"name": "sgd", "lr": 0.5, "betas": (0.9, 0.999)}),
        ("opt:\n  __is_dict__: true\n  other: 1\n  more: 2\n", {"other": 1, "more": 2}),
        ("opt:\n  1: a\n", {1: "a"}),
        ("opt:\n  $build: x.Y\n  lr: 1\n", {"$build": "x.Y", "lr": 1}),
    ],
)
def test_what_a_file_says_of_a_dictionary(known: table.Table, tmp_path: Path, text: str, value: dict[str, Any]) -> None:
    """Its keys leave the rest; a marked one, keys that are no names, and the description of an object are another value."""
    (tmp_path / "a.yaml").write_text(text)
    assert value == gather(known, files=[str(tmp_path / "a.yaml")]).applied()["opt"]


def test_a_description_below_a_name(known: table.Table, tmp_path: Path) -> None:
    """`-c opt=FILE` gives a hyperparameter the object that the file describes."""
    (tmp_path / "adam.yaml").write_text("$build: torch.optim.Adam\nlr: 1e-4\n")
    adam = {"$build": "torch.optim.Adam", "lr": 1e-4}
    for name in ("opt", "maybe", "described"):
        assert {name: adam} == gather(known, files=[f"{name}={tmp_path / 'adam.yaml'}"]).applied()


def test_yaml_without_its_surprises(known: table.Table, tmp_path: Path) -> None:
    """Numbers are Python's: leading zeros make no octal, colons no minutes, and a date is text."""
    (tmp_path / "a.yaml").write_text(
        "epochs: 010\nlr: 1e-3\nmode: 1:30\nmaybe: 2024-01-01\nnet.sizes: [0x10, 1_000, .5, -.inf]\n"
    )
    assert {
        "epochs": 10,
        "lr": 0.001,
        "mode": "1:30",
        "maybe": "2024-01-01",
        "net.sizes": [16, 1000, 0.5, -math.inf],
    } == set_by(known, files=[str(tmp_path / "a.yaml")])


def test_a_file_below_a_name(known: table.Table, tmp_path: Path) -> None:
    """`-c PREFIX=FILE` sets what lies below the prefix."""
    (tmp_path / "net.toml").write_text("sizes = [7, 8]\n")
    assert {"net.sizes": [7, 8]} == set_by(known, files=[f"net={tmp_path / 'net.toml'}"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"lr": 1,\n "lr": 2}', r"a\.json:2:2: .*lr"),
        ("a.yaml", "lr: 1\nnet:\n  a: 1\n  a: 2\n", r"a\.yaml:4: the key a is there twice, first in line 3"),
        ("a.yaml", "opt: [{a: 1, a: 2}]\n", r"a\.yaml:1: the key a is there twice"),
        ("a.toml", "lr = 1\n\nlr = 2\n", r"a\.toml:3: "),
        ("a.yaml", "lr: [1\n", r"a\.yaml:2: "),
        ("a.yaml", "- 1\n", r"a\.yaml:1: expected a mapping"),
        ("a.yaml", "lr: !!python/object/apply:os.getpid []\n", r"a\.yaml:1: "),
        ("a.json", "[1]", r"a\.json:1:1: expected an object"),
        ("a.toml", "lr = \n", r"a\.toml:1: "),
        ("a.yaml", "opt.lr: 1\nopt:\n  lr: 2\n", r"a\.yaml:3: opt\.lr is there twice"),
        ("a.yaml", "opt:\n  lrr: 2\n", r"the script has no hyperparameter opt\.lrr"),
        ("a.toml", "lr = 2024-01-01\n", r"a\.toml:1: lr: expected a number, found datetime"),
        ("a.yaml", "lrr: 1\n", r"a\.yaml:1: the script has no hyperparameter lrr"),
        ("a.yaml", "net:\n  size: [1]\n", r"a\.yaml:2: the script has no hyperparameter net\.size"),
        ("a.yaml", "epochs: 1.7\n", r"a\.yaml:1: epochs: expected a whole number, found 1\.7"),
    ],
)
def test_a_file_that_cannot_be_taken_is_named_with_its_line(
    known: table.Table, tmp_path: Path, name: str, text: str, said: str
) -> None:
    """AC-J3: a key that is there twice, bad syntax, an unknown name and a value that would lose something."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        set_by(known, files=[str(tmp_path / name)])


def test_files_that_are_none(known: table.Table, tmp_path: Path) -> None:
    """A missing file and an unknown format are mistakes in the call; an empty file sets nothing."""
    (tmp_path / "a.ini").write_text("lr=1")
    (tmp_path / "a.yaml").write_text("")
    for name, said in (("gone.yaml", "there is no file"), ("a.ini", "Unsupported file extension: .ini")):
        with pytest.raises(Usage, match=said):
            set_by(known, files=[str(tmp_path / name)])
    assert {} == set_by(known, files=[str(tmp_path / "a.yaml")])


PLAIN = st.recursive(
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
NAMES = st.lists(st.sampled_from(["a", "b", "c", "net", "x1"]), min_size=1, max_size=3).map(".".join)


@pytest.mark.parametrize("kind", ["json", "yaml", "toml"])
@given(values=st.dictionaries(NAMES, PLAIN, max_size=5))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, kind: str, values: dict[str, Any]) -> None:
    """AC-A5: nested values come back from every format as they were."""
    values = {
        name: value for name, value in values.items() if not any(other.startswith(f"{name}.") for other in values)
    }
    path = tmp_path_factory.mktemp("saved") / f"a.{kind}"

    formats.save(path, values)

    assert values == numb.flatten(formats.load(path)[0])


@given(st.dictionaries(NAMES, PLAIN | st.dictionaries(st.integers(), st.integers(), min_size=1), max_size=5))
def test_flat_and_nested_are_the_same(values: dict[str, Any]) -> None:
    """J20: nested to flat and back loses nothing, and changes neither."""
    values = {
        name: value for name, value in values.items() if not any(other.startswith(f"{name}.") for other in values)
    }
    nested = numb.expand(values, annotate=True)
    before = json.dumps(nested, default=str)

    assert values == numb.flatten(nested) and nested == numb.expand(numb.flatten(nested), annotate=True)
    assert before == json.dumps(nested, default=str)


def test_what_a_flat_dictionary_holds() -> None:
    """J20: a dictionary whose keys are no names stays whole, and scalars are Python's."""
    import numpy

    nested = {
        "a": {1: "x"},
        "b": {"": 2, "c": 3},
        "d": {"e": numpy.float32(0.5), "f": numpy.array(2), "g": numpy.ones(1)},
        "h": {},
    }
    flat = numb.flatten(nested)
    assert (["a", "b", "d.e", "d.f", "d.g", "h"], [float, int]) == (
        list(flat),
        [type(flat[name]) for name in ("d.e", "d.f")],
    )
    assert {"a": {1: "x"}, "b": {"": 2, "c": 3}, "h": {}} == {name: flat[name] for name in "abh"}
    assert nested == numb.expand(flat)


class EpochCounter:
    """Something that a configuration names."""

    def __init__(self, max_epochs: int, name: str = "") -> None:
        self.max_epochs, self.name = max_epochs, name


def test_described_objects_are_built() -> None:
    """AC-J2: the class is imported and called with what the description and the call say; values are taken as they are."""
    here = f"{EpochCounter.__module__}.EpochCounter"
    sys.modules.setdefault(EpochCounter.__module__, sys.modules[__name__])
    params = {"crit": {"$build": here, "max_epochs": 2}, "s": "yes", "n": None}

    built = numb.build(params)

    assert (2, "yes", None) == (built["crit"].max_epochs, built["s"], built["n"])
    assert [2, "x"] == [numb.build([params["crit"]])[0].max_epochs, numb.build(params["crit"], name="x").name]
    assert OrderedDict(a=1) == numb.build({"$build": "collections.OrderedDict", "a": 1})
    assert {"crit": {"$build": here, "max_epochs": 2}, "s": "yes", "n": None} == params


@pytest.mark.parametrize(
    ("description", "said", "hint"),
    [
        (
            {"$build": "collections.OrderdDict"},
            "collections has no OrderdDict",
            "did you mean collections.OrderedDict?",
        ),
        ({"$build": "colections.OrderedDict"}, "there is no module colections", "did you mean collections?"),
        (
            {"$build": "fractions.Fraction", "numeratr": 1},
            "unexpected keyword argument 'numeratr'",
            "did you mean numerator?",
        ),
        ({"$build": "math.pi"}, "is a float, which builds nothing", None),
        ({"$build": "os.system('x')"}, "is no path to import", '{"$build": "torch.optim.Adam"}'),
        ({"$build": 3}, "is no path to import", '{"$build": "torch.optim.Adam"}'),
    ],
)
def test_what_cannot_be_built_names_the_nearest(description: dict[str, Any], said: str, hint: str | None) -> None:
    """A misspelt module, class or argument is named with what was meant."""
    with pytest.raises(HyperparameterError) as error:
        numb.build(description)
    assert said in str(error.value) and hint == error.value.hint


def test_parameters_are_attributes_too() -> None:
    """J02: nested, for reading; one that is not there is named."""
    params = Params({"opt": {"lr": 0.1}, "seed": 0})
    assert (0.1, 0.1, 0) == (params.opt.lr, params["opt"]["lr"], params.seed)
    params.opt["lr"], params.seed = 0.2, 3
    assert {"opt": {"lr": 0.2}, "seed": 3} == params
    with pytest.raises(AttributeError, match="there is no momentum; there are opt, seed"):
        _ = params.momentum


def test_nothing_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that did not change are known from before; one that did is read, and a damaged memory is made again."""
    path, memory = tmp_path / "train.py", tmp_path / "kept.json"
    path.write_text(SOURCE)
    first = table.read([path], [], tmp_path, memory)
    with monkeypatch.context() as patched:
        patched.setattr(table.reading, "read", None)
        assert first == table.read([path], [], tmp_path, memory)
    path.write_text(SOURCE + 'extra = _("extra", 1)\n')
    assert 1 == table.read([path], [], tmp_path, memory).known["extra"].default
    for damage in (
        "{",
        "[]",
        '{"a": 1}',
        memory.read_text().replace('"rows"', '"rose"'),
        memory.read_text().replace("plain", "plane"),
    ):
        memory.write_text(damage)
        assert 1 == table.read([path], [], tmp_path, memory).known["extra"].default


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """H11: it is named, and the others are read; a call that cannot be understood hides no other of its file."""
    for name, text in (
        ("good.py", 'from numb.hp import _\n_("lr", 1)\n'),
        ("bad.py", "from numb.hp import _\n_(lr)\n_('wd', 1)\n_('x', 1, type=int)\n"),
        ("worse.py", "numb.hp ("),
    ):
        (tmp_path / name).write_text(text)
    for _time in range(2):
        found = table.read([], sorted(tmp_path.glob("*.py")), tmp_path, tmp_path / "kept.json")
        assert ["lr", "wd", "x"] == sorted(found.known)
        name, hint, worse = found.problems
        assert name.startswith("bad.py:2:1: ") and name.endswith("_(lr)")
        assert "`type`" in hint and "bad.py:4" in hint and worse.startswith("worse.py:1: ")


def test_a_cell_that_is_no_python_hides_no_other(tmp_path: Path) -> None:
    """H10: it is named with its line, and what the other cells hold is in the table."""
    cells = ["from numb.hp import _", "_('lr', 1)", "for x in\n", "_('wd', 2)"]
    notebook = {"cells": [{"cell_type": "code", "source": text} for text in cells], "metadata": {}}
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    for _time in range(2):
        found = table.read([], [tmp_path / "a.ipynb"], tmp_path, tmp_path / "kept.json")
        assert ["lr", "wd"] == sorted(found.known)
        assert ("a.ipynb:cell 3:1: invalid syntax",) == found.problems


@given(st.text(max_size=30))
def test_only_errors_of_numbs_come_of_a_word(text: str) -> None:
    """Whatever is typed, it is a setting or refused with a reason."""
    known = table.Table({"a": table.Hyperparameter("a", (table.Place("f", 1, table.Kind.CALL, 1),))})
    with contextlib.suppress(NumbError):
        assert isinstance(gather(known, words=[text]), Settings)


def test_other_scripts_of_a_project_say_nothing_of_this_one(tmp_path: Path) -> None:
    """Types, limits, kinds and openness are those of the script and of what it imports, in whatever way it does."""
    files = {
        "train.py": "from numb import numb_param\nimport pkg.net as n, os\nfrom pkg import (\n    extra,\n)\np = numb_param({'seed': 1})\n",
        "pkg/__init__.py": "", "pkg/net.py": "from numb.hp import _\nfrom .deep import d\n_('lr', 0.1)\n",
        "pkg/deep.py": "from numb.hp import _\nd = _('depth', 2)\n", "pkg/extra.py": "from numb.hp import _\n_('extra', 'x')\n",
        "old.py": "from numb import *\nfrom numb.hp import _\n_('lr', 'text', choices=['text'])\n_('seed', 'a')\nnumb_param(vars(args))\n_('old', 1)\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    known = table.read([tmp_path / "train.py"], sorted(tmp_path.rglob("*.py")), tmp_path)

    assert {"lr": 0.5, "depth": 3, "extra": "y", "seed": 2} == set_by(known, "lr=0.5", "depth=3", "extra=y", "seed=2")
    assert {"old": 0, "lr": 1, "depth": 1, "extra": 1, "seed": 1} == {each.name: each.reached for each in known}
    assert ["pkg/net.py:3", "old.py:3"] == [str(place) for place in known.known["lr"].places]
    with pytest.raises(UnknownHyperparameter):
        set_by(known, "typo=1")


@pytest.mark.parametrize("variable", ["opt__lr", "OPT__LR", "Opt__Lr"])
def test_a_variable_reaches_into_a_dictionary(known: table.Table, variable: str) -> None:
    """Two underscores stand for a dot, and capitals do not matter, there either."""
    assert {"opt.lr": 0.5} == set_by(known, environment={f"NUMB_HP_{variable}": "0.5"})


def test_a_mistyped_variable_is_refused(known: table.Table) -> None:
    """NUMB_HP_… of no hyperparameter would set nothing, silently."""
    with pytest.raises(UnknownHyperparameter, match="NUMB_HP_EPOCH: the script has no hyperparameter EPOCH"):
        set_by(known, environment={"NUMB_HP_EPOCH": "1"})


# -- in runs

SCRIPT = """
import numb
from numb import numb_param, numb_queue
from numb.hp import _
epochs = 3
numb_queue()
cfg = {"seed": 0, "opt": {"lr": 0.1}}
numb_param(cfg)
for _step in range(2):
    width = _("width", 8)
print(epochs, cfg, width)
if False:
    _("never", 1)
"""


@pytest.fixture
def project(empty: Scene) -> Scene:
    furnish(empty, {"train.py": SCRIPT})
    return empty


def test_what_a_run_had_takes_no_other_keys(project: Scene) -> None:
    """A name of an earlier run is known, and so are the keys of the dictionary that it was; a computed one may have any."""
    project.write("train.py", SCRIPT + "print(_('made', dict(zip('ab', (1, 2)))))\n")
    assert 0 == project.numb("train").code
    project.write("values.json", '{"opt": {"l": 1}}')
    for words, place in (("opt.l=1", "opt.l=1"), ("-c values.json", "values.json:1")):
        done = project.numb(f"train {words}")
        said = f"numb: {place}: the script has no hyperparameter opt.l\n      try: did you mean opt.lr?\n"
        assert (2, said) == (done.code, done.stderr)
    assert "{'a': 1, 'b': 5}" in project.numb("train made.b=5").stdout


def test_sources_can_be_left_out(project: Scene) -> None:
    """H11: what nmb.json names says nothing of the project's hyperparameters."""
    for name in ("old/a.py", "new/a.py"):
        project.write(name, f"from numb.hp import _\n_('{name[:3]}', 1)\n")
    project.write("nmb.json", '{"train": {"command": "python train.py"}, "hyperparameters": {"exclude": ["old/*"]}}')
    names = {each["name"] for each in json.loads(project.numb("hp --json").stdout)}
    assert (True, False) == ("new" in names, "old" in names)


def test_what_was_used_is_recorded(project: Scene) -> None:
    """Values of all three kinds arrive where they are used, and are the run's; with it is kept what had set them."""
    plain, given = project.trained(), project.trained("width=16", "opt.lr=0.5", "epochs=4")

    shown = project.numb("show @ --log").stdout
    kept = json.loads(project.sh("git show numb:.nmb/run/hyperparameters.json"))["hyperparameters"]
    assert "4 {'seed': 0, 'opt': {'lr': 0.5}} 16\n" == shown
    assert {"epochs": 3, "seed": 0, "opt": {"lr": 0.1}, "width": 8} == plain["params"]
    assert {"epochs": 4, "seed": 0, "opt": {"lr": 0.5}, "width": 16} == given["params"]
    set_by = {each["name"]: each["set_by"]["origin"] for each in kept if "set_by" in each}
    assert {"width": "width=16", "opt": "opt.lr=0.5", "epochs": "epochs=4"} == set_by
    assert ["epochs", "never", "opt", "seed", "width"] == sorted(each["name"] for each in kept)


def test_what_was_set_and_never_read_is_noted(project: Scene) -> None:
    """A hyperparameter behind a branch that was not taken: the run says that its value reached nothing."""
    done = project.numb("train never=2")
    (run,) = project.runs()
    assert ["never was set (never=2), and the script has never read it"] == run["notes"]
    assert "      never was set (never=2), and the script has never read it" in done.stderr.splitlines()


def test_a_queue_with_other_values_for_all_is_another(project: Scene) -> None:
    """Entries are done with what was set for all of them; with something else they are trained again."""
    project.write("q.json", '[{"width": 3}]')
    printed = [project.numb(f"train --queue q.json epochs={n}").stdout for n in (1, 1, 2)]
    assert ["1 {'seed': 0, 'opt': {'lr': 0.1}} 3\n", "", "2 {'seed': 0, 'opt': {'lr': 0.1}} 3\n"] == printed
    assert [1, 2] == [run["params"]["epochs"] for run in project.runs()]
    states = {words: project.numb(f"queue status q.json --json {words}").stdout for words in ("", "epochs=2")}
    assert ["queued", "done"] == [json.loads(text)[0]["status"] for text in states.values()]
    assert "4 {'seed': 0, 'opt': {'lr': 0.1}} 3\n" == project.numb("queue run q.json epochs=4").stdout


ARGUMENTS = """
import argparse, os
from numb import *
from settings import epochs, rate as lr
width = 8
hidden = [width] * 2
name = os.environ.get("NAME", "net")
table = {"a": len(name)}
parser = argparse.ArgumentParser()
parser.add_argument("--optim", default="adam")
parser.add_argument("--beta", type=float, default=0.9)
parser.add_argument("--wd", type=float, default=None)
args = parser.parse_args()
numb_queue()
numb_param(vars(args))
print(epochs, lr, hidden, name, table, args.optim, args.beta, args.wd)
"""


def test_types_that_only_running_tells(project: Scene) -> None:
    """What is imported, computed, or of a parser of the script's own is of the type that it has when it is set."""
    files = {"train.py": ARGUMENTS, "settings.py": "epochs = 3\nrate = 0.1\n"}
    for name, text in files.items():
        project.write(name, text)
    words = ["", "epochs=5 lr=1 hidden=[1,2] name=3 table.a=7", "optim=3 beta=1 wd=0.1"]

    printed = [project.numb(f"train {each}").stdout for each in words]
    refused = [project.numb(f"train {each}") for each in ("beta=x", "epochs=2.5")]
    project.write("values.json", '{"beta": 2, "epochs": 4.0, "optim": "sgd"}')
    loaded = project.numb("train -c values.json").stdout

    assert [
        "3 0.1 [8, 8] net {'a': 3} adam 0.9 None\n",
        "5 1.0 [1, 2] 3 {'a': 7} adam 0.9 None\n",
        "3 0.1 [8, 8] net {'a': 3} 3 1.0 0.1\n",
    ] == printed
    assert "4 0.1 [8, 8] net {'a': 3} sgd 2.0 None\n" == loaded
    said = ["beta=x: expected a number, found 'x'", "epochs=2.5: expected a whole number, found '2.5'"]
    assert [(125, "", f"numb: {text}") for text in said] == [
        (done.code, done.stdout, done.stderr.splitlines()[0]) for done in refused
    ]
    assert {"lr": 1.0, "epochs": 5, "name": "3", "table": {"a": 7}} == {
        name: value for name, value in project.runs()[1]["params"].items() if name in ("lr", "epochs", "name", "table")
    }


def test_a_parser_that_was_read_before_refuses(project: Scene) -> None:
    """The script has computed with its own value already: the run would be recorded with another."""
    project.write("train.py", ARGUMENTS.replace("numb_queue()\n", "print(args.beta)\n").replace("settings", "math"))
    project.write("train.py", "import argparse\nfrom numb import *\nargs = argparse.Namespace(beta=0.9)\n")
    project.write(
        "train.py",
        "import argparse\nfrom numb import *\nargs = argparse.Namespace(beta=0.9)\nprint(args.beta)\nnumb_param(vars(args))\n",
    )
    done = project.numb("train beta=0.5")
    assert (125, "0.9\n") == (done.code, done.stdout)
    assert (
        "      try: call numb_queue() below the hyperparameters, or numb_queue(vars(args)) below parse_args()\n"
        in done.stderr
    )
    project.write(
        "train.py",
        "import argparse\nfrom numb import *\nargs = argparse.Namespace(beta=0.9)\nnumb_queue(vars(args))\nprint(args.beta)\n",
    )
    assert "0.5\n" == project.numb("train beta=0.5").stdout


@pytest.mark.parametrize(
    ("call", "words", "said"),
    [
        ("_('k', required=True)", "", "k is required (train.py:2)\n      try: numb train k=VALUE"),
        ("_('k', 1, required=True)", "", "k is required (train.py:2)\n      try: numb train k=VALUE"),
        ("_('k', -1, min=0)", "", "train.py:2: the default of k: expected at least 0, found -1"),
        ("_('k', 'c', choices=['a', 'b'])", "", "train.py:2: the default of k: expected one of 'a', 'b', found 'c'"),
        ("_('k', 1, min=0)", "k=None", "expected at least 0, found None\n      try: numb hp --why k"),
    ],
)
def test_limits_hold_before_the_script_starts(project: Scene, call: str, words: str, said: str) -> None:
    """What nobody has set must be within its limits as well, and what is required must be set."""
    for done in _commands(project, call, words):
        assert (2, True) == (done.code, said in done.stderr), done
    assert project.runs() == []


@pytest.mark.parametrize(
    ("call", "words", "value"),
    [
        ("_('k', 1, required=True)", "k=2", "2"),
        ("_('k', -1, min=0)", "k=1", "1"),
        ("_('k', None, min=0)", "k=null", "None"),
        ("_('k', 1)", "k=None", "None"),
        ("_('k', len('a'), max=0)", "", "1"),
    ],
)
def test_limits_let_pass_what_they_must(project: Scene, call: str, words: str, value: str) -> None:
    """What is within them, None where it is the default or nothing is said of it, and what only running could tell."""
    alone, dry, queued = _commands(project, call, words)
    assert [0, 0, 0] == [alone.code, dry.code, queued.code], (alone, dry, queued)
    assert (f"{value}\n", True) == (alone.stdout, queued.stdout.startswith(f"{value}\n")), (alone, queued)


def _commands(project: Scene, call: str, words: str) -> list[Done]:
    project.write("train.py", f"from numb.hp import _\nprint({call})\n")
    entry = {
        name: {"null": None, "None": None}.get(value, value) for name, value in (w.split("=") for w in words.split())
    }
    project.write("q.json", json.dumps([entry]))
    return [
        project.numb(command)
        for command in (f"train {words}", f"train --dry-run {words}", "train --again --queue q.json")
    ]


def test_what_is_overwritten_below_numb_queue_is_noted(project: Scene) -> None:
    """Reading sees no assignment in a function: the run says what the value was when the training began, or at the end."""
    project.write(
        "train.py",
        "from numb import *\nlr = 0.1\nnumb_queue()\ndef f():\n    global lr\n    lr = 0.3\nf()\nprint(lr)\n",
    )
    done, (run,) = project.numb("train lr=0.5"), project.runs()
    assert ("0.3\n", ["lr was set to 0.5, and was 0.3 at the end"]) == (done.stdout, run["notes"])


def test_a_call_and_numb_param_that_differ_are_noted(project: Scene) -> None:
    """Nothing was set, and the record has one value of the two that the script has given the name."""
    project.write("train.py", "from numb import *\nfrom numb.hp import _\nlr = _('lr', 0.1)\nnumb_param({'lr': 0.3})\n")
    assert ["lr was 0.1 in a call, and 0.3 is what was registered"] == project.trained()["notes"]


def test_only_what_was_given_of_a_dictionary_is_set(project: Scene) -> None:
    """What reading cannot know of the rest of it stays what the script has computed."""
    project.write(
        "train.py",
        "from numb import *\nfrom numb.hp import _\nlr = 0.1\nlr = lr * 5 if True else 0\nopt = {'lr': 0.1, 'm': 0.9}\n"
        "opt['lr'] = lr\nnumb_queue()\nparams = numb_param({'p': {'a': 1, 'b': 2}})\nprint(opt, params, _('c', {'x': lr, 'y': 1}))\n",
    )
    done = project.numb("train opt.m=0.8 p.b=3")
    assert "{'lr': 0.5, 'm': 0.8} {'p': {'a': 1, 'b': 3}} {'x': 0.5, 'y': 1}\n" == done.stdout, done.stderr


@pytest.mark.usefixtures("warm")
def test_a_call_in_the_loop_does_not_hide_that_a_run_was_done(torch_scene: Scene) -> None:
    """What is asked for after the first gradient is known from the source, or was set: the question comes in time."""
    script = (
        "import torch\nfrom numb import *\nfrom numb.hp import _\nnet = numb_model((1, 4))(torch.nn.Linear(4, 2))\n"
    )
    script += (
        "for epoch in range(_('epochs', 2)):\n    net(torch.ones(1, 4)).sum().backward()\n    print(_('gamma', 0.5))\n"
    )
    torch_scene.write("train.py", script)

    printed = [
        torch_scene.numb(f"train --skip-done {words}").stdout
        for words in ("", "", "gamma=0.9", "gamma=0.9", "epochs=2")
    ]

    assert ["0.5\n0.5\n", "", "0.9\n0.9\n", "", ""] == printed
    assert [0.5, 0.9] == [run["params"]["gamma"] for run in torch_scene.runs()]


@pytest.mark.usefixtures("warm")
def test_what_a_later_call_returns_is_only_foreseen_where_it_can_be(torch_scene: Scene) -> None:
    """A key that was set inside of a later dictionary is another run; a default that only running tells is nothing foreseen."""
    script = "import torch\nfrom numb import *\nfrom numb.hp import _\nnet = numb_model((1, 4))(torch.nn.Linear(4, 2))\n_('w', 1)\n"
    script += (
        "net(torch.ones(1, 4)).sum().backward()\nprint(_('opt', {'lr': 0.1, 'm': 0.9})['lr'], _('n', len('ab')))\n"
    )
    torch_scene.write("train.py", script)

    done = [torch_scene.numb(f"train --skip-done {words}") for words in ("", "opt.lr=0.5")]

    assert ["0.1 2\n", "0.5 2\n"] == [each.stdout for each in done]
    assert not any("numb failed" in each.stderr for each in done), done
    torch_scene.write("train.py", script.replace(", _('n', len('ab'))", ""))
    printed = [torch_scene.numb(f"train --skip-done {words}").stdout for words in ("", "opt.lr=0.5", "opt.lr=0.5", "")]
    assert ["0.1\n", "0.5\n", "", ""] == printed


@pytest.mark.usefixtures("warm")
def test_an_edited_assignment_is_another_run(torch_scene: Scene) -> None:
    """What stands above numb_queue is a hyperparameter whether it was set or not: with another value it is not done before."""
    script = (
        "import torch\nfrom numb import *\nepochs = 3\nnumb_queue()\nnet = numb_model((1, 4))(torch.nn.Linear(4, 2))\n"
    )
    script += "net(torch.ones(1, 4)).sum().backward()\nprint(epochs)\n"
    torch_scene.write("train.py", script)
    first, same = torch_scene.numb("train"), torch_scene.numb("train --skip-done epochs=3")
    torch_scene.write("train.py", script.replace("epochs = 3", "epochs = 30"))
    edited = torch_scene.numb("train --skip-done")
    assert ["3\n", "", "30\n"] == [done.stdout for done in (first, same, edited)]
    assert [3, 30] == [run["params"]["epochs"] for run in torch_scene.runs()]


def test_what_reading_does_not_show_is_noted(project: Scene) -> None:
    """H03: a call by another name is used and recorded, and the run says why nothing else knows of it."""
    project.write("net.py", "from numb.hp import _\nask = [_][0]\ndepth = ask('depth', 2)\n")
    project.write("train.py", "import net\nfrom numb.hp import _\nprint(net.depth, _('width', 8))\n")
    run = project.trained()
    assert {"depth": 2, "width": 8} == run["params"]
    assert ["depth stands in no source that numb reads, so numb hp does not list it"] == run["notes"]


def test_different_defaults_of_one_name_are_told(project: Scene) -> None:
    """H07: the run says that the name had several values, and `numb hp` where they stand."""
    project.write("train.py", "from numb.hp import _\nprint(_('width', 8), _('width', 9))\n")
    listed, run = project.numb("hp"), project.trained()
    assert "numb: width has different defaults: train.py:2, train.py:2" in listed.stderr
    assert ({"width": 9}, ["width had several values in this run; the last one is recorded"]) == (
        run["params"],
        run["notes"],
    )
    assert "4 4\n" == project.numb("train width=4").stdout


def test_hp_needs_no_torch(project: Scene) -> None:
    """Listing, explaining and checking import neither torch nor what the script imports."""
    project.write("train.py", f"import torch\n{SCRIPT}")
    for words in ("hp", "hp --why width", "hp --detail", "hp --json", "train --dry-run width=2"):
        program = f"import sys; sys.argv = ['numb', *{words.split()!r}]; from numb.cli import main\ntry: main()\n"
        program += "except SystemExit: print(*sys.modules, file=sys.stderr)"
        loaded = subprocess.run(
            [sys.executable, "-c", program],
            cwd=project.root,
            env=project.env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "numb.hp.table" in loaded.stderr.split() and not {"torch", "numpy", "git"} & set(loaded.stderr.split())


def test_a_value_computed_from_one_that_was_set_has_another_name(project: Scene) -> None:
    """Registering something else under the name that was set would make the record lie."""
    project.write(
        "train.py",
        "from numb import *\nfrom numb.hp import _\nlr = _('lr', 1.0)\nnumb_param({'lr': lr / 2})\nprint('no')\n",
    )
    done = project.numb("train lr=3")
    assert (125, "", []) == (done.code, done.stdout, project.runs())
    assert "train.py:4: lr was set to 3.0, but the script registered 1.5" in done.stderr


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_every_process_of_a_script_has_the_values(project: Scene, method: str) -> None:
    """Children ask for themselves, get what was set, and what only they use is the run's as well."""
    project.write(
        "train.py",
        "import multiprocessing as mp\nfrom numb.hp import _\ndef f(n):\n    return _('width', 8)\n"
        f"if __name__ == '__main__':\n    with mp.get_context('{method}').Pool(1) as pool:\n        print(pool.map(f, [0]), _('lr', 1))\n",
    )
    assert "[5] 1\n" == project.numb("train width=5").stdout
    (run,) = project.runs()
    assert ({"lr": 1, "width": 5}, []) == (run["params"], run["notes"])


@pytest.mark.usefixtures("warm")
def test_a_trial_has_the_shape_that_was_trained(torch_scene: Scene) -> None:
    """What calls returned in the training, they return in the trial."""
    script = "import torch\nfrom torch import nn\nfrom numb import *\nfrom numb.hp import _\n"
    script += "net = numb_model((1, 4))(nn.Linear(4, _('width', 2)))\n"
    torch_scene.write("train.py", script + "net(torch.ones(1, 4)).sum().backward()\n")
    torch_scene.write("trial.py", script + "print(net.out_features)\nnumb_trial_result({'acc': net.out_features})\n")
    torch_scene.numb("train width=7")

    done = torch_scene.numb("trial @")

    assert (0, "7\n") == (done.code, done.stdout), done.stderr


@pytest.mark.usefixtures("warm")
def test_a_trial_keeps_constants_of_its_own(torch_scene: Scene) -> None:
    """What only stood above numb_queue is no business of the trial's: it goes on measuring its own data."""
    net = "net = numb_model((1, 4))(nn.Linear(4, width))\n"
    head = "import torch\nfrom torch import nn\nfrom numb import *\nwidth, seed = 2, 1\n"
    last = "net(torch.ones(1, 4)).sum().backward()\n"
    torch_scene.write("train.py", f"{head}data = 'train'\nnumb_queue()\nnumb_param({{'seed': seed}})\n{net}{last}")
    torch_scene.write(
        "trial.py",
        f"{head}data = 'test'\nnumb_queue()\n{net}print(data, width, seed)\nnumb_trial_result({{'acc': 1}})\n",
    )
    assert 0 == torch_scene.numb("train width=7 seed=5").code

    done = torch_scene.numb("trial @")

    assert (0, "test 7 5\n") == (done.code, done.stdout), done.stderr
    (run,) = torch_scene.runs()
    assert ({"width": 7, "seed": 5, "data": "train"}, ["data"]) == (run["params"], run["constants"])


def test_values_of_any_type_are_used(project: Scene) -> None:
    """AC-H21 under numb: every literal is used, set and recorded exactly; what has none is used, and named in the record."""
    script = "from numb.hp import _\nprint(_('f', print) is print, _('c', b'x'), _('s', {1, 2}), _('z', 1j), _('d', {1: 2}))\n"
    project.write("train.py", script)
    done, given = project.numb("train"), project.numb("train s={3} c=yz z=2j 'd={4: (5, 6)}'")
    listed, (run, other) = project.numb("list --csv"), project.runs()
    assert ("True b'x' {1, 2} 1j {1: 2}\n", "complete") == (done.stdout, run["status"])
    assert "True b'yz' {3} 2j {4: (5, 6)}\n" == given.stdout
    literals = {name: value["$literal"] for name, value in run["params"].items()}
    assert {"c": "b'x'", "s": "{1, 2}", "z": "1j", "d": "{1: 2}"} == literals
    assert ["f is builtins.print, which a record cannot hold"] == run["notes"]
    assert {"$literal": "{4: (5, 6)}"} == other["params"]["d"]
    assert 0 == listed.code and "{3}" in project.numb("list").stdout


def test_hp_looks_at_named_files(project: Scene) -> None:
    """A13: files that are named are read, whether they belong to the project or not, and nothing of them is run."""
    project.write("../other.py", "from numb.hp import _\nraise SystemExit(_('depth', 2, help='100 % of it'))\n")
    done = project.numb("hp ../other.py --json")
    (only,) = json.loads(done.stdout)
    assert ("depth", 2, "int", {"help": "100 % of it"}) == (only["name"], only["value"], only["type"], only["hints"])
    outside = project.numb("hp other.py --yaml depth=5", cwd=project.root.parent)
    assert (0, "depth: 5\n") == (outside.code, outside.stdout), outside.stderr


def test_hp_says_why(project: Scene) -> None:
    """Each level of precedence with its value, and a star at the one that counts."""
    project.write("a.yaml", "width: 3\n")
    lines = project.numb("hp --why width -c a.yaml width=4").stdout.splitlines()
    assert "width = 4" == lines[0]
    assert ["* command line 4 width=4"] == [" ".join(line.split()) for line in lines if line.startswith("*")]
    assert "file 3 a.yaml:1" in [" ".join(line.split()) for line in lines]
    assert "source default 8 train.py:9" in [" ".join(line.split()) for line in lines]


def test_a_dry_run_checks_and_shows(project: Scene) -> None:
    """J07: the hyperparameters as they would be, as YAML; what could not be set is refused as it would be; nothing runs."""
    shown, refused = project.numb("train --dry-run width=3 opt.lr=0.5"), project.numb("train --dry-run widht=3")
    assert "epochs: 3\nseed: 0\nopt:\n  lr: 0.5\nwidth: 3\nnever: 1\n" == shown.stdout
    assert (0, 2, []) == (shown.code, refused.code, project.runs())


def test_hp_writes_what_train_reads(project: Scene) -> None:
    """`numb hp --yaml` is a file for -c."""
    project.write("all.yaml", project.numb("hp width=11 --yaml").stdout)
    done = project.numb("train -c all.yaml")
    assert (0, "3 {'seed': 0, 'opt': {'lr': 0.1}} 11\n") == (done.code, done.stdout), done.stderr
