"""A program of one's own gets an option for every hyperparameter, by argparse or by click."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from numb.errors import Usage
from numb.hp import NOT_LITERAL, Level, Manager, bind, options

A_AND_B = "_('a', 1); _('b', 2)"

EVERY_TYPE = """
_("layers", 3)
_("opt.lr", 1e-3)
_("name", "adam")
_("noise", 1j)
_("betas", (0.9, 0.999))
_("kinds", {1, 2})
_("raw", b"x")
_("maybe", None)
_("made", print)
_("sizes", [1, 2])
_("extra", {"key": 1})
"""


class Program:
    """A parser with options for the hyperparameters of a source, and their manager."""

    def __init__(self, source: str, **how: Any) -> None:
        self.manager = Manager().parse_source(dedent(source), "train.py")
        self.parser = argparse.ArgumentParser("train.py")
        bind(self.parser, self.manager, **how)

    def run(self, *words: str) -> argparse.Namespace:
        return self.parser.parse_args(words)


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """How a program ends: its exit code, what it shows, and its last line of errors."""

    def ends(program: Program, *words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            program.run(*words)
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err.rstrip("\n").rpartition("\n")[2]

    return ends


Ends = Callable[..., tuple[Any, str, str]]


# -- options


def test_what_is_typed_is_in_the_manager_and_in_the_namespace(ends: Ends) -> None:
    """AC-A1: an option sets a hyperparameter, and a value of another type is argparse's own error."""
    program = Program(A_AND_B)

    assert argparse.Namespace(a=3, b=2) == program.run("--a", "3")
    assert {"a": 3, "b": 2} == program.manager.get_values()
    assert (2, "", "train.py: error: argument --a: expected a whole number, found 'abc'") == ends(
        Program(A_AND_B), "--a", "abc"
    )


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--layers", "0x10"], "layers", 16), (["--layers", "007"], "layers", 7), (["--layers", "-3"], "layers", -3),
        (["--opt.lr", "-1e-4"], "opt.lr", -1e-4), (["--opt.lr=-1e-4"], "opt.lr", -1e-4), (["--opt.lr", "-inf"], "opt.lr", float("-inf")),
        (["--name", "3"], "name", "3"), (["--noise", "-1+2j"], "noise", -1 + 2j), (["--betas", "(3, 4)"], "betas", (3, 4)),
        (["--betas", "3,4"], "betas", (3, 4)), (["--kinds", "{3}"], "kinds", {3}), (["--kinds", "[3]"], "kinds", {3}),
        (["--raw", "b'\\xff'"], "raw", b"\xff"), (["--raw", "text"], "raw", b"text"), (["--maybe", "3"], "maybe", 3),
        (["--maybe", "three"], "maybe", "three"), (["--made", "{'a': None}"], "made", {"a": None}), (["--sizes", "[]"], "sizes", []),
        (["--extra", '{"a": true}'], "extra", {"a": True}),
    ],
)  # fmt: skip
def test_the_type_of_the_default_decides(words: list[str], name: str, value: object) -> None:
    """Every type of literal can be typed, negative numbers too; without a literal default it is the literal that was typed."""
    program = Program(EVERY_TYPE)

    assert repr(value) == repr(vars(program.run(*words))[name])
    assert repr(value) == repr(program.manager.get_value(name))
    assert Level.COMMAND is program.manager.get_occurrence(name).level


@pytest.mark.parametrize(
    ("option", "text"),
    [("--layers", "3.5"), ("--sizes", "{1"), ("--sizes", "(1"), ("--extra", "[1]"), ("--betas", "3"), ("--opt.lr", "x"), ("--noise", "x")],
)  # fmt: skip
def test_what_does_not_fit_ends_with_2(ends: Ends, option: str, text: str) -> None:
    """Whatever was typed, what comes of it is a line that names the option and what was expected."""
    code, _, line = ends(Program(EVERY_TYPE), option, text)

    assert (2, True) == (code, line.startswith(f"train.py: error: argument {option}: expected "))


@pytest.mark.parametrize("default", [True, False])
def test_booleans(ends: Ends, default: bool) -> None:
    """AC-A4: a flag, its opposite, and words for both in any case; every other word is an error."""
    source = f"_('flag', {default})"
    values = {
        word: Program(source).run("--flag", word).flag
        for each in ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
        for word in (each, each.upper(), each.title())
    }

    assert values == {word: word.lower() in ("yes", "true", "t", "y", "1") for word in values}
    assert (default, True, False) == tuple(
        Program(source).run(*words).flag for words in ([], ["--flag"], ["--no-flag"])
    )
    assert (2, "", "train.py: error: argument --flag: expected true or false, found 'maybe'") == ends(
        Program(source), "--flag", "maybe"
    )


def test_both_spellings() -> None:
    """A name with underscores is also an option with dashes, of booleans with both opposites."""
    spellings = ["--num-layers=5", "--num_layers=5", "--no-is-deep", "--no-is_deep"]
    found = [vars(Program("_('num_layers', 3); _('is_deep', True)").run(word)) for word in spellings]

    deep, flat = {"num_layers": 5, "is_deep": True}, {"num_layers": 3, "is_deep": False}
    assert [deep, deep, flat, flat] == found


def test_a_name_that_is_taken_is_spelled_with_the_prefix() -> None:
    """Neither help, nor an option or argument of the program's own, nor an action is a reason to crash."""
    manager = Manager().parse_source(
        "_('help', 1); _('lr', 2); _('file', 3); _('hp_list', 4); _('no_flag', 5); _('flag', True); _('_x', 6)"
    )
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("file", nargs="?")
    bind(parser, manager)

    words = {
        "--lr": 9.0,
        "--hp-help": 10,
        "--hp-lr": 20,
        "--hp-file": 30,
        "--hp_list": 40,
        "--no-flag": 50,
        "--_x": 60,
    }
    found = parser.parse_args(["mine", *(f"{option}={value}" for option, value in words.items())])

    own = {"file": "mine", "lr": 9.0}
    prefixed = {"hp_help": 10, "hp_lr": 20, "hp_file": 30}
    others = {"hp_list": 40, "no_flag": 50, "_x": 60, "flag": True}
    assert own | prefixed | others == vars(found)
    assert others | {"help": 10, "lr": 20, "file": 30} == manager.get_values()


def test_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the hints say, per cent signs as well, the limits and the default, which may only be known as source."""
    program = Program(
        """
        _("drop", 0.5, help="100% of %(default)s", min=0, max=1)
        _("o", "adam", choices=["adam", "sgd"])
        _("made", bytes("abc"))
        """,
        actions=(),
    )
    with pytest.raises(SystemExit):
        program.run("--help")

    assert [
        "hyperparameters:",
        "  --drop DROP     100% of %(default)s (at least 0, at most 1, default: 0.5)",
        "  --o {adam,sgd}  str hyperparameter (default: 'adam')",
        "  --made MADE     hyperparameter (default: bytes('abc'))",
    ] == capsys.readouterr().out.splitlines()[-4:]


def test_show_defaults_can_be_switched_off() -> None:
    """Then the help says no more than the hint."""
    program = Program("_('a', 1, help='how many')", show_defaults=False)

    assert "--a A                 how many\n" in program.parser.format_help()


def test_choices_of_the_hints_program(tmp_path: Path) -> None:
    """AC-H27: the choices of a hint are those of the option."""
    script = write(
        tmp_path / "train.py",
        """
        import argparse
        from numb.hp import _, bind

        def train():
            print(_("optimizer", "adam", choices=["adam", "sgd"], help="how it steps"))

        if __name__ == "__main__":
            _.parse_file(__file__)
            parser = argparse.ArgumentParser()
            bind(parser)
            parser.parse_args()
            train()
        """,
    )

    assert [(0, "adam\n"), (0, "sgd\n")] == [run(script)[:2], run(script, "--optimizer", "sgd")[:2]]
    code, out, err = run(script, "--optimizer", "rmsprop")
    assert (2, "", True) == (code, out, "argument --optimizer: invalid choice: 'rmsprop'" in err)


def test_two_files(tmp_path: Path) -> None:
    """AC-H29: a library's hyperparameters are options of the program that parses both files."""
    write(
        tmp_path / "lib.py",
        """
        from numb.hp import _

        def add():
            return _("a", 0) + _("b", 0)

        def multiply():
            return _("a") * _("b")
        """,
    )
    main = write(
        tmp_path / "main.py",
        """
        import argparse
        import lib
        from numb.hp import _, bind

        _.parse_file([lib.__file__, __file__])
        parser = argparse.ArgumentParser()
        parser.add_argument("-a", dest="first", type=int, default=_.get_value("a"))
        bind(parser)
        args = parser.parse_args()
        if args.first:
            _.set_value("a", args.first)
        print(lib.add(), lib.multiply())
        """,
    )

    found = [run(main)[1], run(main, "--a", "2", "--b", "3")[1], run(main, "-a", "2", "--b", "3")[1]]
    assert ["0 0\n", "5 6\n", "5 6\n"] == found


@pytest.mark.parametrize(
    ("option", "line"),
    [("--lr=-1", "argument --lr: expected at least 0, found -1.0"), ("--lr=2", "argument --lr: expected at most 1, found 2.0")],
)  # fmt: skip
def test_limits(ends: Ends, option: str, line: str) -> None:
    """A value outside of min and max is refused."""
    assert (2, "", f"train.py: error: {line}") == ends(Program("_('lr', 0.1, min=0, max=1)"), option)


def test_a_default_outside_of_its_limits_is_refused_unless_another_value_is_given(ends: Ends) -> None:
    """The line says where it stands."""
    source = "_('lr', 5, max=1)"

    assert (2, "", "train.py: error: train.py:1: the default of lr: expected at most 1, found 5") == ends(
        Program(source)
    )
    assert 0 == Program(source).run("--lr", "0").lr


def test_what_is_required(ends: Ends, tmp_path: Path) -> None:
    """It has an option even without a default, and a file or numb can give it as well."""
    source = "_('data', required=True, type='int'); _('other')"
    file = write(tmp_path / "a.yaml", "data: 3")

    assert (2, "", "train.py: error: --data is required") == ends(Program(source))
    assert [4, 3] == [Program(source).run(*words).data for words in (["--data", "4"], ["--hp-load", str(file)])]
    assert (2, "", "train.py: error: unrecognized arguments: --other=1") == ends(
        Program(source), "--data=1", "--other=1"
    )


def test_set_value_goes_before_what_is_typed() -> None:
    """What the code sets counts most, before and after parsing, and the Namespace says so."""
    program = Program(A_AND_B)
    program.manager.set_value("a", 10)

    assert argparse.Namespace(a=10, b=4) == program.run("--a", "3", "--b", "4")
    program.manager.set_value("b", 20)
    assert 20 == program.manager.get_value("b")


# -- ways to parse


def test_parse_known_args_leaves_the_rest() -> None:
    """Words that are no options of ours come back; those that are count."""
    program = Program(A_AND_B)

    assert (argparse.Namespace(a=3, b=2), ["--c", "4"]) == program.parser.parse_known_args(["--a", "3", "--c", "4"])


def test_parsing_on_into_a_namespace_keeps_what_was_typed_first() -> None:
    """A default in the Namespace does not look as if it had been typed."""
    program = Program(A_AND_B)
    program.parser.parse_known_args(["--a", "3"], namespace := argparse.Namespace())

    assert argparse.Namespace(a=3, b=4) == program.parser.parse_args(["--b", "4"], namespace)
    assert Level.SOURCE is Program(A_AND_B).manager.get_occurrence("a").level
    assert [Level.COMMAND, Level.COMMAND] == [program.manager.get_occurrence(name).level for name in "ab"]


def test_parse_intermixed_args() -> None:
    """Options between arguments count once."""
    program = Program(A_AND_B)
    program.parser.add_argument("files", nargs="*")

    assert argparse.Namespace(a=3, b=2, files=["x", "y"]) == program.parser.parse_intermixed_args(
        ["x", "--a", "3", "y"]
    )


def test_nothing_is_done_when_another_word_is_wrong(tmp_path: Path, ends: Ends) -> None:
    """An option that there is not is noticed before a file is written or a value is set."""
    program = Program(A_AND_B)

    assert 2 == ends(program, "--a", "3", "--hp-save", str(tmp_path / "a.yaml"), "--typo")[0]
    assert ([], 1) == (list(tmp_path.iterdir()), program.manager.get_value("a"))


@pytest.mark.parametrize("method", ["parse_args", "parse_known_args"])
def test_subparsers(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """AC-A6: the options and actions of a subcommand work, with a parser above that is bound or is not."""
    manager = Manager().parse_source("_('a', 1); _('lr', 0.1)")
    file = write(tmp_path / "a.json", '{"a": 7}')
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command")
    bind(commands.add_parser("train"), manager)
    commands.add_parser("clean")
    parse = getattr(parser, method)

    def first(found: Any) -> argparse.Namespace:
        return found[0] if isinstance(found, tuple) else found

    assert argparse.Namespace(command="clean") == first(parse(["clean"]))
    found = first(parse(["train", "--hp-load", str(file), "--lr", "-1e-4"]))
    assert argparse.Namespace(command="train", a=7, lr=-1e-4) == found
    assert {"a": 7, "lr": -1e-4} == manager.get_values()
    with pytest.raises(SystemExit):
        parse(["train", "--hp-list"])
    assert "a: 7\nlr: -0.0001\n" == capsys.readouterr().out


def test_a_parser_and_its_subparser_with_a_manager_each() -> None:
    """Both get what was typed for them."""
    parser, one, other = argparse.ArgumentParser(), Manager(), Manager()
    bind(parser, one.parse_source("_('a', 1)"))
    bind(parser.add_subparsers().add_parser("train"), other.parse_source("_('b', 2)"))

    assert argparse.Namespace(a=3, b=4) == parser.parse_args(["--a", "3", "train", "--b", "4"])
    assert [{"a": 3}, {"b": 4}] == [one.get_values(), other.get_values()]


# -- actions


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--hp-list"], "a: 3\nb: 2\n"), (["--hp-list", "yaml"], "a: 3\nb: 2\n"), (["--hp-list", "json"], '{\n  "a": 3,\n  "b": 2\n}\n'),
        (["--hp-list=toml"], "a = 3\nb = 2\n"), (["--hp-list", "--hp-format", "toml"], "a = 3\nb = 2\n"), (["--hp-exit"], ""),
        (["--hp-exit", "--hp-list", "toml"], "a = 3\nb = 2\n"),
    ],
)  # fmt: skip
def test_actions_end_the_program(ends: Ends, words: list[str], shown: str) -> None:
    """AC-A6: each shows what it has to, with the value that was typed, and ends with 0."""
    assert (0, shown, "") == ends(Program(A_AND_B), "--a", "3", *words)


@pytest.mark.parametrize("words", [["--hp-detail"], ["--hp-list", "detail"]])
def test_detail_shows_every_place(ends: Ends, words: list[str]) -> None:
    """AC-A6: name, value, type, what has set it, and the line of the source; after setting as before."""
    assert ends(Program("_('a', 1)\n_('b', int('2'))"), "--a", "3", *words) == (
        0,
        dedent(
            """\
            2 hyperparameters: a, b

            a = 3  (int, command line)
              train.py:1
                ==> 1: _('a', 1)
                    2: _('b', int('2'))
              command line: 3

            b = int('2')  (?, source default)
              train.py:2
                    1: _('a', 1)
                ==> 2: _('b', int('2'))
            """
        ),
        "",
    )


def test_the_order_of_work(ends: Ends, tmp_path: Path) -> None:
    """Load, what is typed, save, detail, list, exit, in whatever order they are given."""
    file, saved = write(tmp_path / "a.yaml", "a: 7\nb: 8"), tmp_path / "b.json"
    code, shown, _ = ends(
        Program(A_AND_B), "--hp-exit", "--hp-list", "json", "--hp-detail", "--hp-save", str(saved), "--b=9", "--hp-load", str(file)
    )  # fmt: skip

    assert (0, {"a": 7, "b": 9}) == (code, json.loads(saved.read_text()))
    assert ("2 hyperparameters: a, b", '{\n  "a": 7,\n  "b": 9\n}\n') == (
        shown.splitlines()[0],
        shown[shown.index("{") :],
    )


@pytest.mark.parametrize(
    "actions", [(), ("save",), ("load",), ("list",), ("detail",), ("exit",), ["save", "load"], {"list", "exit"}]
)
def test_actions_are_switched_one_by_one(actions: Any, ends: Ends) -> None:
    """AC-A6: with some, or none, parsing works, and the others are unknown."""
    program = Program(A_AND_B, actions=actions)

    assert argparse.Namespace(a=3, b=2) == program.run("--a", "3")
    for name in {"list", "save", "load", "detail", "exit"} - {*actions}:
        assert (2, "") == ends(program, f"--hp-{name}")[:2]


@pytest.mark.parametrize("prefix", ["hahaha", "my-hp", "my_hp"])
def test_another_prefix(ends: Ends, prefix: str, tmp_path: Path) -> None:
    """AC-A6: the actions go by it, and so does a name that is taken; a dash in it is fine."""
    program = Program("_('a', 1); _('help', 2)", prefix=prefix)
    saved = tmp_path / "a.json"

    words = [f"--{prefix}-help", "3", f"--{prefix}-save", str(saved), f"--{prefix}-list", "json"]
    code, shown, _ = ends(program, *words)
    assert (0, {"a": 1, "help": 3}, {"a": 1, "help": 3}) == (code, json.loads(shown), json.loads(saved.read_text()))


@pytest.mark.parametrize("how", [{"actions": ["print"]}, {"prefix": "a b"}, {"prefix": ""}, {"format": "pickle"}])
def test_what_there_is_not_is_refused_by_bind(how: dict[str, Any]) -> None:
    """An action, a prefix or a format that cannot be is a mistake in the program, and said at once."""
    with pytest.raises(Usage, match=r"^('.*'|there) is no "):
        Program(A_AND_B, **how)


# -- files


def test_file_below_command_line(tmp_path: Path, ends: Ends) -> None:
    """AC-A2: what is loaded goes before defaults, and what is typed before that."""
    source = "_('a', {'key': 1}); _('b', [1, 2, 3]); _('c', 23)"
    file = str(write(tmp_path / "a.yaml", "a: {key: 3}\nb: [2, 3, 4]\nc: 45"))

    assert argparse.Namespace(a={"key": 3}, b=[2, 3, 4], c=45) == Program(source).run("--hp-load", file)
    words = ["--hp-load", file, "--a", '{"a":1}', "--b", "[1,2,3]", "--c", "42"]
    assert argparse.Namespace(a={"a": 1}, b=[1, 2, 3], c=42) == Program(source).run(*words)
    assert (2, "", "train.py: error: argument --a: expected a dictionary such as {'key': 1}, found '1'") == ends(
        Program(source), "--hp-load", file, "--a", "1"
    )


def test_text_stays_text(tmp_path: Path) -> None:
    """AC-A3: text from a file, from the command line, and what is saved afterwards."""
    source = "_('str_from', 'default')"
    file, saved = write(tmp_path / "a.yaml", "str_from: yaml"), tmp_path / "b.yaml"

    assert "yaml" == Program(source).run("--hp-load", str(file)).str_from
    assert "cmd" == Program(source).run("--hp-load", str(file), "--str-from", "cmd", "--hp-save", str(saved)).str_from
    assert "str_from: cmd\n" == saved.read_text()


@pytest.mark.parametrize("extension", ["yaml", "yml", "json", "toml", "YAML"])
def test_what_is_saved_can_be_loaded(tmp_path: Path, extension: str) -> None:
    """AC-A5: every type of default comes back equal, changed or not, in every format."""
    source, saved = (
        EVERY_TYPE + "\n_('deep', ((1, 2), [(3,)], {'k': (4,)})); _('on', True)",
        tmp_path / f"a.{extension}",
    )
    written = Program(source)
    written.run(
        "--hp-save", str(saved), "--layers=5", "--opt.lr", "-1e-4", "--name", "1e5", "--noise", "3j", "--betas", "(1, 2)",
        "--kinds", "{'a', 'b'}", "--raw", "b'\\xff'", "--maybe", "[1, 'x']", "--deep", "((5, 6), [(7,)], {'k': (8,)})",
        "--no-on",
    )  # fmt: skip

    read = Program(source)
    read.run("--hp-load", str(saved))

    assert written.manager.get_values() == read.manager.get_values()
    assert NOT_LITERAL is read.manager.get_value("made")


def test_a_default_that_no_file_can_hold_is_left_out(ends: Ends, tmp_path: Path) -> None:
    """The script has it again; a list says so where the format has comments, and a value that was set is an error."""
    source, saved = "_('made', print); _('none', None); _('a', 1)", tmp_path / "a.toml"
    program = Program(source)

    assert (0, "# made: print\n# none: None\na = 1\n", "") == ends(
        program, "--hp-save", str(saved), "--hp-list", "toml"
    )
    assert "a = 1\n" == saved.read_text()
    program.manager.set_value("made", {1, 2})
    code, _, line = ends(program, "--hp-save", str(saved))
    assert (2, "train.py: error: made cannot be saved: no toml file can hold {1, 2}") == (code, line)
    assert "a = 1\n" == saved.read_text()


@pytest.mark.parametrize(
    ("source", "kind", "is_held"),
    [
        ("_('a', {1: 'x'})", "yaml", True), ("_('a', {1: 'x', '1': 'y'})", "yaml", True), ("_('a', {1: 'x'})", "json", False),
        ("_('a', {1: 'x'})", "toml", False), ("_('a', {'x': None})", "json", True), ("_('a', {'x': None})", "toml", False),
        ("_('a', {(1, 2), (3, 4)})", "json", True), ("_('a', {1j})", "yaml", False), ("_('a', '\\ud800')", "yaml", False),
        ("_('a', None, choices=['x'])", "yaml", True), ("_('a', ...)", "yaml", False), ("_('a', '1e5')", "yaml", True),
        ("_('a', {'': 1, '.': 2})", "toml", True),
    ],
)  # fmt: skip
def test_a_file_gives_back_what_it_holds(tmp_path: Path, source: str, kind: str, is_held: bool) -> None:
    """What would come back as something else is not in it, so the file can always be loaded."""
    file, program = tmp_path / f"a.{kind}", Program(source)
    program.run("--hp-save", str(file))
    again = Program(source)
    again.run("--hp-load", str(file))

    assert repr(program.manager.get_value("a")) == repr(again.manager.get_value("a"))
    assert (Level.FILE if is_held else Level.SOURCE) is again.manager.get_occurrence("a").level


def test_a_value_of_another_type_is_not_saved(ends: Ends, tmp_path: Path) -> None:
    """What the code set and no file could give it back is refused when saving, not when loading."""
    program = Program("_('lr', 0.1)")
    program.manager.set_value("lr", "fast")

    assert (2, "", "train.py: error: lr cannot be saved: expected a number, found 'fast'") == ends(
        program, "--hp-save", str(tmp_path / "a.yaml")
    )


@pytest.mark.parametrize(
    "text", ["opt: {lr: 0.5}\na: 2", "opt.lr: 0.5\na: 2", '{"opt": {"lr": 0.5}, "a": 2}', '{"opt.lr": 0.5, "a": 2}']
)
def test_nested_or_flat(tmp_path: Path, text: str) -> None:
    """Both ways to write a name with a dot are read."""
    file = write(tmp_path / "a.yaml", text)

    assert {"opt.lr": 0.5, "a": 2} == vars(Program("_('opt.lr', 0.1); _('a', 1)").run("--hp-load", str(file)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 2\nopt:\n  lrr: 3", "FILE:3: the script has no hyperparameter opt.lrr; did you mean opt.lr?"),
        ("a: 1.5", "FILE:1: a: expected a whole number, found 1.5; numb hp --why a"),
        ("\nflag: 'maybe'", "FILE:2: flag: expected true or false, found 'maybe'; numb hp --why flag"),
        ("opt: 3", "FILE:1: the script has no hyperparameter opt; did you mean opt.lr?"),
        ("a: 1\na: 2", "FILE:2: the key a is there twice, first in line 1"),
        ("[1]", "FILE:1: expected a mapping such as lr: 0.1"),
        ("a: -1", "FILE:1: a: expected at least 0, found -1; numb hp --why a"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, ends: Ends, text: str, line: str) -> None:
    """The line in the file, the name and the nearest one; nothing of the file has been taken."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    program = Program("_('a', 1, min=0); _('opt.lr', 0.1); _('flag', True)")

    code, _, found = ends(program, "--hp-load", str(file))
    assert (2, line) == (code, found.removeprefix("train.py: error: ").replace(str(file), "FILE"))
    assert {"a": 1, "opt.lr": 0.1, "flag": True} == program.manager.get_values()


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    """It is a file without values."""
    assert 1 == Program(A_AND_B).run("--hp-load", str(write(tmp_path / "a.yaml", ""))).a


def test_several_files_and_a_prefix(tmp_path: Path) -> None:
    """The later file counts, and one can be for what lies below a name."""
    one, other = write(tmp_path / "a.yaml", "a: 5\nopt: {lr: 1.0}"), write(tmp_path / "b.toml", "lr = 2.0")

    found = Program("_('a', 1); _('opt.lr', 0.1)").run("--hp-load", str(one), "--hp-load", f"opt={other}")
    assert {"a": 5, "opt.lr": 2.0} == vars(found)


@pytest.mark.parametrize("name", ["a.bcd", "a.pickle", "a.pkl"])
@pytest.mark.parametrize("action", ["load", "save"])
def test_other_files_are_not_supported(tmp_path: Path, ends: Ends, action: str, name: str) -> None:
    """AC-A5: pickles are no exception, and nothing is written."""
    file = tmp_path / name
    message = f"train.py: error: {file}: Unsupported file extension: .{name[2:]}"

    assert (2, "", message) == ends(Program(A_AND_B), f"--hp-{action}", str(file))
    assert not file.exists()


@pytest.mark.parametrize(("how", "words"), [({"format": "json"}, []), ({}, ["--hp-format", "json"])])
def test_the_format_goes_before_the_extension(tmp_path: Path, how: dict[str, Any], words: list[str]) -> None:
    """Of what is saved, and of what is loaded."""
    file = tmp_path / "settings"
    Program(A_AND_B, **how).run("--hp-save", str(file), "--a", "3", *words)

    assert {"a": 3, "b": 2} == json.loads(file.read_text())
    assert 3 == Program(A_AND_B, **how).run("--hp-load", str(file), *words).a


def test_files_that_are_not_there(tmp_path: Path, ends: Ends) -> None:
    """A file to load, and a folder to save in, are named."""
    load = ends(Program(A_AND_B), "--hp-load", str(tmp_path / "a.yaml"))
    code, _, line = ends(Program(A_AND_B), "--hp-save", str(tmp_path / "no" / "a.yaml"))

    assert (2, "", f"train.py: error: there is no file {tmp_path / 'a.yaml'}") == load
    assert (2, True) == (code, str(tmp_path / "no") in line)


TEXT = st.text(max_size=8)
PLAIN = {
    kind: st.recursive(
        st.one_of(*leaves, st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    )
    for kind, leaves in {"yaml": [st.none()], "json": [st.none()], "toml": []}.items()
}


@pytest.mark.parametrize("kind", ["yaml", "json", "toml"])
@given(data=st.data())
def test_any_plain_value_comes_back(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    """Whatever is nested in whatever, what --hp-load gives is what --hp-save was given, value and type."""
    values = data.draw(st.fixed_dictionaries({"a": PLAIN[kind], "opt.b": PLAIN[kind], "opt.c": PLAIN[kind]}))
    source = "; ".join(f"_({name!r}, {value!r})" for name, value in values.items())
    file = tmp_path_factory.mktemp("files") / f"a.{kind}"
    Program(source).run("--hp-save", str(file))

    empty = Program("_('a', None); _('opt.b', None); _('opt.c', None)")
    for program in (empty, Program(source)):
        found = vars(program.run("--hp-load", str(file)))
        assert json.dumps(values, sort_keys=True) == json.dumps(
            found, sort_keys=True
        )  # which tells 1 from 1.0 and True


TYPES = {
    bool: st.booleans(),
    int: st.integers(-(2**70), 2**70),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=6),
    type(None): st.none(),
    bytes: st.binary(max_size=6),
    complex: st.complex_numbers(allow_nan=False, allow_infinity=False),
    list: st.lists(PLAIN["yaml"], max_size=3),
    tuple: st.lists(PLAIN["yaml"], max_size=3).map(tuple),
    set: st.sets(st.integers() | st.text(st.characters(codec="utf-8"), max_size=3), max_size=3),
    dict: st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), PLAIN["yaml"], max_size=3),
}


@given(data=st.data())
def test_what_is_parsed_set_and_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A default of any literal type is read from a source, set from the shell to another of its type, saved and loaded."""
    names = data.draw(st.lists(st.sampled_from(["a", "opt.b", "opt.c", "net.deep.d"]), min_size=1, unique=True))
    types = {name: data.draw(st.sampled_from(list(TYPES))) for name in names}
    defaults = {name: data.draw(TYPES[types[name]]) for name in names}
    values = {name: data.draw(_like(default) | TYPES[types[name]]) for name, default in defaults.items()}
    source = "; ".join(f"_({name!r}, {default!r})" for name, default in defaults.items())
    words = [f"--{name}={value}" if isinstance(value, str) else f"--{name}={value!r}" for name, value in values.items()]
    file = tmp_path_factory.mktemp("files") / "a.yaml"

    found = [
        vars(Program(source).run(*words, "--hp-save", str(file))),
        vars(Program(source).run("--hp-load", str(file))),
    ]

    assert [_known(values)] * 2 == [_known(each) for each in found]


def _like(default: object) -> st.SearchStrategy[Any]:
    """Values that share keys with a dictionary."""
    keys = list(default) if isinstance(default, dict) else []
    return st.dictionaries(st.sampled_from(keys), st.integers()) if keys else st.nothing()


def _known(values: dict[str, object]) -> dict[str, str]:
    """Values with their types; a set has no order."""
    return {name: repr(sorted(value, key=repr) if isinstance(value, set) else value) for name, value in values.items()}


# -- under numb


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A run for which numb was told values of a level."""

    def tell(level: Level, **values: Any) -> None:
        order = {"inject": values, "levels": dict.fromkeys(values, level.text)}
        (tmp_path / "order.json").write_text(json.dumps(order))
        monkeypatch.setenv("NUMB_RUN_DIR", str(tmp_path))
        monkeypatch.setattr(
            "numb.hp.runtime.tell", lambda name, value, called: None
        )  # the tests are not that run's script

    return tell


@pytest.mark.parametrize("level", [Level.FILE, Level.ENVIRONMENT, Level.QUEUE, Level.COMMAND])
def test_what_numb_was_told_is_there(level: Level, told: Callable[..., None], tmp_path: Path, ends: Ends) -> None:
    """An option that was not typed, and a file, leave it; the listing and the Namespace show it, and a call gets it."""
    told(level, a=7)
    file = write(tmp_path / "a.yaml", "a: 8\nb: 9")
    program = Program("_('a', 1); _('b', 2)")

    assert argparse.Namespace(a=7, b=9) == program.run("--hp-load", str(file))
    assert (0, "a: 7\nb: 9\n", "") == ends(program, "--hp-list")
    assert (7, 9, level) == (
        program.manager.get_value("a"),
        program.manager.get_value("b"),
        program.manager.get_occurrence("a").level,
    )


@pytest.mark.parametrize("level", [Level.FILE, Level.ENVIRONMENT, Level.QUEUE])
def test_what_is_typed_goes_before_what_counts_less(level: Level, told: Callable[..., None]) -> None:
    """As on numb's own command line."""
    told(level, a=7)

    assert 3 == Program(A_AND_B).run("--a", "3").a


def test_two_command_lines_must_not_contradict_each_other(told: Callable[..., None], ends: Ends) -> None:
    """Neither value is lost without a word; the same value twice is no contradiction."""
    told(Level.COMMAND, a=7)

    line = "train.py: error: --a: 3 was typed here, and numb was told a=7; say one of them"
    assert (2, "", line) == ends(Program(A_AND_B), "--a", "3")
    assert 7 == Program(A_AND_B).run("--a", "7").a


def test_what_is_required_may_come_from_numb(told: Callable[..., None]) -> None:
    """Then nothing has to be typed."""
    told(Level.QUEUE, data=3)

    assert 3 == Program("_('data', required=True)").run().data


# -- click


def command(source: str, *words: str, **how: Any) -> tuple[Manager, Result]:
    """A click command with options for the hyperparameters of a source, called."""
    manager = Manager().parse_source(dedent(source), "train.py")

    @click.command()
    @options(manager, **how)
    @click.option("--own", default=1)
    @click.argument("files", nargs=-1)
    def main(files: tuple[str, ...], own: int) -> None:
        print(files, own, manager.get_values())

    return manager, CliRunner().invoke(main, words)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], {}), (["--opt.lr", "-1e-4"], {"opt.lr": -1e-4}), (["--num-layers=4"], {"num_layers": 4}), (["--num_layers", "4"], {"num_layers": 4}),
        (["--deep"], {"deep": True}), (["--no-deep"], {"deep": False}), (["--deep", "NO"], {"deep": False}), (["--wide"], {"wide": True}),
        (["--hp-own", "3"], {"own": 3}), (["--hp-help", "3"], {"help": 3}), (["--o", "sgd"], {"o": "sgd"}),
    ],
)  # fmt: skip
def test_click_options(words: list[str], values: dict[str, Any]) -> None:
    """The same options as for argparse; the function gets its own arguments only."""
    _, done = command(
        """
        _("opt.lr", 0.1); _("num_layers", 3); _("deep", True); _("wide", False); _("own", 2); _("help", 1)
        _("o", "adam", choices=["adam", "sgd"])
        """,
        "x",
        *words,
    )

    all_ = {"opt.lr": 0.1, "num_layers": 3, "deep": True, "wide": False, "own": 2, "help": 1, "o": "adam"} | values
    assert (0, f"('x',) 1 {all_}\n") == (done.exit_code, done.output)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--a", "x"], "Error: Invalid value for '--a': expected a whole number, found 'x'"),
        (["--a", "-1"], "Error: Invalid value for '--a': expected at least 0, found -1"),
        (["--o", "x"], "Error: Invalid value for '--o': expected one of 'adam', 'sgd', found 'x'"),
        (["--hp-list", "xml"], "Error: Invalid value for '--hp-list': expected one of yaml, json, toml, detail, found 'xml'"),
        (["--hp-load", "no.yaml"], "Error: there is no file no.yaml"),
        (["--hp-save", "a.bcd"], "Error: a.bcd: Unsupported file extension: .bcd"),
    ],
)  # fmt: skip
def test_click_errors(words: list[str], line: str) -> None:
    """What cannot be is click's own error."""
    _, done = command("_('a', 1, min=0); _('o', 'adam', choices=['adam', 'sgd'])", *words)

    assert (2, line) == (done.exit_code, done.output.rstrip("\n").rpartition("\n")[2])


def test_click_actions(tmp_path: Path) -> None:
    """Save, load, list and exit work as they do for argparse; each but the first two ends with 0 before the function runs."""
    saved = tmp_path / "a.toml"
    outputs = [
        command(A_AND_B, *words)[1].output
        for words in (
            ["--a=3", "--hp-save", str(saved), "--hp-exit"],
            ["--hp-load", str(saved), "--b=4", "--hp-list"],
            ["--hp-list", "json"],
            ["--hp-load", str(saved)],
        )
    ]

    assert ["", "a: 3\nb: 4\n", '{\n  "a": 1,\n  "b": 2\n}\n', "() 1 {'a': 3, 'b': 2}\n"] == outputs
    assert (0, "2 hyperparameters: a, b") == (
        command(A_AND_B, "--hp-detail")[1].exit_code,
        command(A_AND_B, "--hp-detail")[1].output.splitlines()[0],
    )


def test_click_actions_can_be_switched_off_and_named() -> None:
    """With none there is none; with another prefix they go by it."""
    assert 2 == command(A_AND_B, "--hp-list", actions=())[1].exit_code
    assert "a: 1\nb: 2\n" == command(A_AND_B, "--my-hp-list", prefix="my-hp")[1].output


def test_click_on_either_side_of_the_command() -> None:
    """A command that is there already takes the options as well."""
    manager = Manager().parse_source(A_AND_B)

    @options(manager)
    @click.command()
    def main() -> None:
        print(manager.get_values())

    assert "{'a': 3, 'b': 2}\n" == CliRunner().invoke(main, ["--a", "3"]).output


def test_click_under_numb(told: Callable[..., None]) -> None:
    """What numb was told stays where nothing is typed, and a contradiction is refused."""
    told(Level.COMMAND, a=7)

    assert {"a": 7, "b": 4} == command(A_AND_B, "--b", "4")[0].get_values()
    assert 2 == command(A_AND_B, "--a", "3")[1].exit_code


def test_neither_needs_the_other() -> None:
    """A program with argparse does not import click."""
    program = "import sys, argparse, numb.hp; numb.hp.bind(argparse.ArgumentParser()); print('click' in sys.modules)"

    assert (0, "False\n", "") == run(program)


def write(path: Path, text: str) -> Path:
    path.write_text(dedent(text).lstrip("\n"))
    return path


def run(script: Path | str, *words: str) -> tuple[int, str, str]:
    """A script, or a program that is one line, as a process of its own."""
    how = [str(script)] if isinstance(script, Path) else ["-c", script]
    done = subprocess.run([sys.executable, *how, *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
