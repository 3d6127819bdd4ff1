"""The manager: what a call of a placeholder is, which of several values counts, and what names make as a tree."""

from __future__ import annotations

import ast
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numb.errors import (
    ArgumentCountException,
    ConfigError,
    DoubleAssignmentException,
    HyperparameterError,
    ImpossibleTree,
    NotLiteralEvaluable,
    NotLiteralNameException,
)
from numb.hp import coerce, runtime
from numb.hp.manager import Manager
from numb.hp.occurrence import L, Level, Occurrence, Occurrences
from numb.hp.tree import IS_DICT, ancestors
from numb.hp.values import EMPTY, NOT_LITERAL


def parsed(*sources: str, **options: Any) -> Manager:
    manager = Manager(**options)
    for source in sources:
        manager.parse_source(dedent(source))
    return manager


def values(*sources: str) -> dict[str, Any]:
    return parsed(*sources).get_values()


def state(manager: Manager) -> Any:
    """Everything that can be asked."""
    return list(manager.occurrences), manager.get_values(), manager.get_tree()


def notebook(path: Path, *cells: str, **more: Any) -> Path:
    found = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    text = {"cell_type": "markdown", "source": ['_("not", "code")']}
    path.write_text(json.dumps({"cells": [text, *found], "nbformat": 4, **more}))
    return path


# -- names


@pytest.mark.parametrize(
    "name", ["name", "f'a'", "f'{x}'", "'a' + 'b'", "b'a'", "1", "*names", "None", "name.attribute", "'a'.lower()"]
)
def test_a_name_is_a_plain_string_in_the_source(name: str) -> None:
    """AC-H1: what only running could tell is no name, and the message has place and line."""
    with pytest.raises(NotLiteralNameException) as error:
        Manager().parse_source(f"x = 1\ny = (1, _({name}, 1))", "train.py")

    assert f"train.py:2:9: hp-name should be literal-string: y = (1, _({name}, 1))" == str(error.value)


def test_adjacent_strings_are_one_name() -> None:
    """H04: `'a' 'b'` is a plain string."""
    assert {"ab": 1} == values("_('a' 'b', 1)")


def test_at_run_time_a_name_may_be_computed() -> None:
    """AC-H2: the rule of plain strings is for sources only."""
    manager, key = Manager(), "x"

    assert (1, 1, 1) == (manager(key, 1), manager(key), manager.get_value(key))


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "1a", "a-b", ".hpman is a good...man."])
@pytest.mark.parametrize(
    "use",
    [
        lambda manager, name: manager.parse_source(f"_({name!r}, 1)"),
        lambda manager, name: manager(name, 1),
        lambda manager, name: manager.set_value(name, 1),
        lambda manager, name: manager.set_values({"good": 2, name: 1}),
    ],
    ids=["parse", "call", "set_value", "set_values"],
)
def test_names_are_identifiers_joined_by_dots(name: str, use: Callable[[Manager, str], Any]) -> None:
    """H18: a trailing dot and other odd names are mistakes, and change nothing."""
    manager = parsed("_('good', 0)")
    before = state(manager)

    with pytest.raises(HyperparameterError):
        use(manager, name)

    assert before == state(manager)


@pytest.mark.parametrize("name", ["", ".", "a."])
def test_odd_names_have_no_value(name: str) -> None:
    """H18: asking for a name that ends in a dot, or for none, is asking for what is not there."""
    manager = parsed("_('a.b', 1); _('lr', 2)")

    assert (EMPTY, False) == (manager.get_value(name, raise_exception=False), manager.exists(name))
    with pytest.raises(KeyError, match="not found"):
        manager.get_value(name)


@pytest.mark.parametrize("name", ["größe", "学习率", "_", "a1.b_2"])
def test_identifiers_of_every_language_are_names(name: str) -> None:
    """H18: what Python takes as an identifier is good enough."""
    assert {name: 1} == values(f"_({name!r}, 1)")


# -- values in a source


@pytest.mark.parametrize(
    ("source", "value", "node"),
    [
        ("123", 123, ast.Constant), ("0x18", 24, ast.Constant), ("3.14", 3.14, ast.Constant), ("1e-5", 1e-05, ast.Constant),
        ("'string'", "string", ast.Constant),
        ("[1,'a',1.24,1e-5]", [1, "a", 1.24, 1e-5], ast.List), ("[1,'a',[1,'a']]", [1, "a", [1, "a"]], ast.List),
        ("{'c1':0.12,'c2':2,'c3':'a'}", {"c1": 0.12, "c2": 2, "c3": "a"}, ast.Dict),
        ("{'a':1,'b':1.8,'c':{1:'a'},'d':[1,2,3]}", {"a": 1, "b": 1.8, "c": {1: "a"}, "d": [1, 2, 3]}, ast.Dict),
        ("print", NOT_LITERAL, ast.Name), ("lambda x: x", NOT_LITERAL, ast.Lambda), ("local", NOT_LITERAL, ast.Name),
        ("bytes('abc')", NOT_LITERAL, ast.Call), ("self.size", NOT_LITERAL, ast.Attribute),
        ("1_000", 1000, ast.Constant), ("-1", -1, ast.UnaryOp), ("1+2j", 1 + 2j, ast.BinOp), ("1e400", float("inf"), ast.Constant),
        ("b'x'", b"x", ast.Constant), ("None", None, ast.Constant), ("True", True, ast.Constant), ("(1, 2)", (1, 2), ast.Tuple),
        ("()", (), ast.Tuple), ("{1, 2}", {1, 2}, ast.Set), ("set()", set(), ast.Call), ("...", ..., ast.Constant),
        ("2*3", 6, ast.BinOp), ("1//2", 0, ast.BinOp), ("dict(a=1)", {"a": 1}, ast.Call),
        ("'a'+'b'", NOT_LITERAL, ast.BinOp), ("float('inf')", NOT_LITERAL, ast.Call), ("not True", NOT_LITERAL, ast.UnaryOp),
        ("[1,*x]", NOT_LITERAL, ast.List), ("{**x}", NOT_LITERAL, ast.Dict), ("[x for x in y]", NOT_LITERAL, ast.ListComp),
        ("{[]: 1}", NOT_LITERAL, ast.Dict), ("{[]}", NOT_LITERAL, ast.Set), ("*x", NOT_LITERAL, ast.Starred),
        ("9**9**9", NOT_LITERAL, ast.BinOp), ("1/0", NOT_LITERAL, ast.BinOp), ("0x" + 5000 * "f", NOT_LITERAL, ast.Constant),
    ],
)  # fmt: skip
def test_what_a_default_in_the_source_is(source: str, value: object, node: type[ast.AST]) -> None:
    """AC-H3 to AC-H7: constants are their values, all else is a sentinel, and the expression is kept."""
    found = parsed(f"class A:\n    def f(self):\n        return _('a', {source})").get_occurrence("a")

    assert found is not None
    assert (repr(value), node) == (repr(found.value), type(found.node))


def test_the_default_can_be_given_by_keyword() -> None:
    """H06: `hp_value=1` is the default and no hint, in the source as at run time."""
    manager = parsed("_('a', hp_value=1, help='h'); _('b', **{'hp_value': 2, 'min': 0})")

    assert {"a": 1, "b": 2} == manager.get_values()
    assert ({"help": "h"}, {"min": 0}) == (manager.get_hints("a"), manager.get_hints("b"))
    assert 3 == Manager()("a", hp_value=3, help="h")


@pytest.mark.parametrize(
    ("call", "count"), [("_('hp',1,2)", 3), ("_()", 0), ("_(hp_name='a')", 0), ("_('a', 1, hp_value=2)", 3)]
)
def test_a_call_has_one_or_two_arguments(call: str, count: int) -> None:
    """AC-H14: the message counts them, and says where."""
    with pytest.raises(ArgumentCountException) as error:
        Manager().parse_source(f"\n  \nif x: {call}", "train.py")

    expected = f"train.py:3:7: number of positional args should be in range [1, 2], (was {count} args): if x: {call}"
    assert expected == str(error.value)


def test_columns_are_counted_in_characters() -> None:
    """H04: text before the call that is more than one byte long does not move the column."""
    with pytest.raises(NotLiteralNameException, match=r"^<unknown>:1:14: "):
        Manager().parse_source("größe = 'ü', _(größe)")
    with pytest.raises(NotLiteralNameException, match=r"^<unknown>:1:15: "):
        Manager().parse_source("größe = 'ü',  _(größe)")


# -- hints


def test_hints_are_kept_by_occurrence() -> None:
    """AC-H8: exactly the keywords of the call; nothing where there are none, and none at run time."""
    manager = parsed("_('h',1,a=1,b=2,c={'d':3,'e':4})", "_('h', a=[1,3,4])", "_('h')")
    manager("h", 2, a=5)

    expected = [{"a": 1, "b": 2, "c": {"d": 3, "e": 4}}, {"a": [1, 3, 4]}, {}, None]
    assert expected == manager.occurrences.where(name="h").extract_column("hints")


def test_hints_of_all_places_are_merged() -> None:
    """H09: what one place says completes what another does, the first counts, and setting a value loses none."""
    manager = parsed("_('h', 1, help='first', min=0)", "_('h', help='second', choices=[1, 2])").set_value("h", 2)

    assert {"help": "first", "min": 0, "choices": [1, 2]} == manager.get_hints("h")
    assert manager.get_occurrence("h") == Occurrence("h", 2, Level.SET)
    assert {} == manager.get_hints("unknown")


@pytest.mark.parametrize(
    ("call", "keyword", "column"),
    [("_('a',1,type=dict)", "type", 18), ("_('a', 1, **hints)", "**", 17), ("_('a', **{k: 1})", "**", 14)],
)
def test_a_hint_is_a_constant(call: str, keyword: str, column: int) -> None:
    """AC-H9: one that is not is a mistake, shown with its surroundings."""
    with pytest.raises(NotLiteralEvaluable) as error:
        Manager().parse_source(f"x = 1\na = {call}\ny = 2\n", "train.py")

    expected = f"""\
train.py:2:{column}: Value of hint keyword `{keyword}` is not literal evaluable
    1: x = 1
==> 2: a = {call}
    3: y = 2"""
    assert expected == str(error.value)


# -- one default


def test_every_name_has_one_default() -> None:
    """AC-H10: names may be used again without one, in any order and in several sources."""
    assert {"a": 1, "b": 2, "c": 3} == values("_('a', 1); _('b', 2)", "_('b')", "_('c')", "_('c', 3)")


@pytest.mark.parametrize("second", ["1", "2", "f()"])
@pytest.mark.parametrize("form", ["_('a', 1)\n_('a', {})", "if x:\n    _('a', 1)\nelse:\n    _('a', {})"])
def test_a_second_default_is_refused(form: str, second: str) -> None:
    """AC-H11: even where it is the same, in one source."""
    with pytest.raises(DoubleAssignmentException):
        parsed(form.format(second))


def test_the_message_shows_both_defaults() -> None:
    """AC-H12: places and lines of both."""
    with pytest.raises(DoubleAssignmentException) as error:
        parsed("_('hp2', 1)", "_('hp2', 2)")

    expected = """\
Duplicated default values:
First occurrence:
<unknown>:1
==> 1: _('hp2', 1)
Second occurrence:
<unknown>:1
==> 1: _('hp2', 2)"""
    assert expected == str(error.value)


def test_the_message_is_in_textual_order_with_five_lines_around() -> None:
    """H08: the first occurrence is the upper one, also if it stands deeper; line numbers are aligned."""
    lines = [f"x{number} = 0" for number in range(1, 13)]
    lines[2:4] = ["def f():", "    return _('a', 1)"]
    lines[8] = "_('a', 2)"

    with pytest.raises(DoubleAssignmentException) as error:
        Manager().parse_source("\n".join(lines) + "\n", "train.py")

    expected = """\
Duplicated default values:
First occurrence:
train.py:4
    1: x1 = 0
    2: x2 = 0
    3: def f():
==> 4:     return _('a', 1)
    5: x5 = 0
    6: x6 = 0
    7: x7 = 0
    8: x8 = 0
    9: _('a', 2)
Second occurrence:
train.py:9
     4:     return _('a', 1)
     5: x5 = 0
     6: x6 = 0
     7: x7 = 0
     8: x8 = 0
==>  9: _('a', 2)
    10: x10 = 0
    11: x11 = 0
    12: x12 = 0"""
    assert expected == str(error.value)


@pytest.mark.parametrize("value", ["1", "[1, (2, 'a')]", "1e400-1e400", "{'a': None}", "0x10"])
def test_identical_defaults_can_be_allowed(value: str) -> None:
    """H07: by a switch, and then the name has that value."""
    manager = parsed(f"_('a', {value})", f"_('a', {value})", allow_equal_defaults=True)

    assert repr(parsed(f"_('a', {value})").get_values()) == repr(manager.get_values())


@pytest.mark.parametrize(
    ("one", "other"), [("1", "2"), ("1", "True"), ("1", "1.0"), ("[0]", "[False]"), ("f()", "f()")]
)
def test_only_identical_literals_are_allowed(one: str, other: str) -> None:
    """H07: not what is merely equal, and not what only running could tell."""
    with pytest.raises(DoubleAssignmentException):
        parsed(f"_('a', {one})", f"_('a', {other})", allow_equal_defaults=True)


# -- what is a call of the placeholder


@pytest.mark.parametrize(
    "source",
    [
        "abc", "__('hp',1)", "x._('hp',1)", "'_(1)'", "# _('hp', 1)", "'''\n_('hp', 1)\n'''", "for _ in range(3): pass", "_", "_\n('a')",
        "_['a']", "a_('hp', 1)", "_a('hp', 1)", "x = _  # ('hp', 1)",
    ],
)  # fmt: skip
def test_what_is_no_call_of_the_placeholder(source: str) -> None:
    """AC-H15: other names, attributes, text and comments."""
    assert [] == list(parsed(source).occurrences)


@pytest.mark.parametrize(
    "source",
    [
        "_  ('hp' , 1) ", "(_)('hp', 1)", "x = (_\n\n('hp', 1))", "x = (_  # the (rate)\n('hp', 1))", "_\\\n('hp', 1)", "_(\n'hp',\n1\n)",
        "def f(a=_('hp', 1)): pass", "@_('hp', 1)\ndef f(): pass", "@f(\n_('hp', 1)\n)\nclass A: pass", "class A(_('hp', 1)): pass",
        "f'{_(\"hp\", 1)}'", "f'''\n\n{_(\"hp\", 1)}'''", "if (x := _('hp', 1)): pass", "if False: _('hp', 1)", "f(_('hp', 1))",
        "async def f():\n    await _('hp', 1)", "lambda: _('hp', 1)", "[_('hp', 1) for x in y]", "match x:\n    case 1: _('hp', 1)",
        "try: pass\nexcept A: pass\nelse: _('hp', 1)", "class A:\n  class B:\n    def f(self):\n      def g(): return _('hp', 1)",
        "\x0c\nx = '\x1c\u2028\x85'\n_('hp', 1)", "x = 1\r_('hp', 1)\r", "x = 1\r\n_('hp', 1)\r\n", "x: int = _('hp', 1)", "del x, y[_('hp', 1)]",
        "for _ in x: pass\n_('hp', 1)", "x, _ = f()\n_('hp', 1)",
    ],
)  # fmt: skip
def test_a_call_is_found_wherever_it_stands(source: str) -> None:
    """AC-H16, H02: in any place of the syntax, however it is laid out."""
    assert {"hp": 1} == parsed(source).get_values()


def test_calls_inside_of_calls_are_found_in_the_order_of_the_text() -> None:
    """H02, H21: each occurrence has its file, line, column and line of text."""
    manager = Manager().parse_source("x = _('a', _('b', 2), help='h')\n\n  \nif x:\n    y = _(\n'c')\n", "train.py")

    rows = manager.occurrences.choose_columns("name", "value", "level", "place", "column", "hints", "snippet")
    assert [
        ("a", NOT_LITERAL, Level.SOURCE, "train.py:1", 5, {"help": "h"}, "x = _('a', _('b', 2), help='h')"),
        ("b", 2, Level.SOURCE, "train.py:1", 12, {}, "x = _('a', _('b', 2), help='h')"),
        ("c", EMPTY, Level.SOURCE, "train.py:5", 9, {}, "y = _("),
    ] == [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    "source",
    [
        "from gettext import gettext as _\n_('Hello, world')", "import gettext\n_ = gettext.gettext\n_(some_text)",
        "import gettext as _\n_('Hello')", "def _(text): return text\n_('Hello', 1, 2, 3)", "async def _(): pass\n_()", "class _: pass\n_()",
        "_: object = print\n_('Hello')", "import gettext\ngettext.install('app')\n_('Hello, world')",
        "from hpman.m import _\n_('a', 1)", "from numb.hp import other as _\n_('a', 1)", "from numb.hp import _ as t\n_('Hello, world')",
        "from .numb.hp import _\n_(1)",
    ],
)  # fmt: skip
def test_another_function_of_that_name_is_left_alone(source: str) -> None:
    """H02: gettext's `_`, and whatever else a source calls so itself, holds no hyperparameters."""
    assert [] == list(parsed(source).occurrences)


@pytest.mark.parametrize(
    "source",
    [
        "from numb.hp import _ as t\nt('a', 1)", "from numb.hp import _\nhello = _\nhello('a', 1)", "hello = _\nhello('a', 1)",
        "from numb.hp import (\n    zz,\n    _,\n)\nzz('z', 2)\n_('a', 1)", "from numb.hp import _\na = b = _\nc: object = b\nc('a', 1)",
        "def f():\n    from numb.hp import _ as t\n    t('a', 1)", "try:\n    from numb.hp import _\nexcept ImportError:\n    pass\n_('a', 1)",
        "try:\n    from numb.hp import _\nexcept ImportError:\n    def _(name, default): return default\n_('a', 1)",
    ],
)  # fmt: skip
def test_the_placeholder_is_followed_through_its_aliases(source: str) -> None:
    """H03: under whatever name it was imported or assigned."""
    assert {"a": 1} == values(source)


def test_each_placeholder_finds_its_own() -> None:
    """H01: two in one source do not see each other's."""
    source = "from numb.hp import _, zz as t\n_('a', 1)\nt('a', 2)"

    assert ({"a": 1}, {"a": 2}) == (values(source), Manager("zz").parse_source(source).get_values())


def test_importing_a_name_gives_its_manager() -> None:
    """AC-H28: the same object for the same name, and independent ones for others."""
    import numb.hp
    from numb.hp import _, __, zz
    from numb.hp import _ as again
    from numb.hp import zz as t

    assert _ is again is numb.hp._
    assert zz is t
    assert ("_", "zz", "zz", "__") == tuple(each.placeholder for each in (_, zz, t, __))
    assert (1, 2) == (_("of_test_importing", 1), t("of_test_importing", 2))
    assert (1, 2) == (_("of_test_importing"), zz("of_test_importing"))


# -- files


NINE = "".join(f"_('{{0}}{number}', {number})\n" for number in range(9))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files with nine hyperparameters each, in a folder and one below it."""
    (tmp_path / "src" / "inner").mkdir(parents=True)
    for name in ("a", "b", "inner/c"):
        (tmp_path / "src" / f"{name}.py").write_text(NINE.format(name[-1]))
    return tmp_path / "src"


def count(*paths: str | Path) -> int:
    return len(Manager().parse_file(list(paths)).get_values())


def test_files_and_folders_are_parsed(folder: Path) -> None:
    """AC-H18: one, all below a folder, and lists of both."""
    (folder.parent / "more").mkdir()
    (folder.parent / "more" / "d.py").write_text(NINE.format("d"))
    (folder / ".hidden.py").write_text("_('hidden', 1)")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "x.py").write_text("_('hidden', 1)")

    assert (9, 9) == tuple(len(Manager().parse_file(p(folder / "a.py")).get_values()) for p in (str, Path))
    assert 27 == len(Manager().parse_file(folder).get_values())
    assert 18 == len(Manager().parse_file((folder / "a.py", folder / "b.py")).get_values())
    assert 18 == count(folder / "inner", folder.parent / "more")


def test_a_path_may_be_missing_or_hold_nothing(tmp_path: Path) -> None:
    """AC-H19: the first is an error that names it, the others are not."""
    (tmp_path / "empty.txt").touch()
    (tmp_path / "other.txt").write_text("_('a', 1)")

    with pytest.raises(FileNotFoundError, match=r"missing\.py"):
        Manager().parse_file(tmp_path / "missing.py")
    assert (0, 0, 0, 1) == (count(), count(tmp_path), count(tmp_path / "empty.txt"), count(tmp_path / "other.txt"))


def test_a_file_is_parsed_once_by_whatever_name(folder: Path) -> None:
    """AC-H20: given twice, in a folder and by itself, by a detour, through links."""
    file = folder / "a.py"
    (folder / "inner" / "linked.py").symlink_to(file)
    (folder.parent / "folder").symlink_to(folder)

    assert 9 == count(file, file)
    assert 27 == count(folder, file)
    assert 9 == count(file, f"{folder}/inner/../a.py", f"{folder.parent}/src/../src/a.py")
    assert 9 == count(file, folder / "inner" / "linked.py")
    assert 27 == count(folder, folder.parent / "folder")


def test_a_link_back_to_its_folder_ends(folder: Path) -> None:
    """H11: folders that are links are not gone into, behind them may be all the data."""
    (folder / "inner" / "up").symlink_to(folder)

    assert 27 == count(folder)


@pytest.mark.parametrize(
    "content",
    [
        "_('a', 'größe')".encode(),
        b"\xef\xbb\xbf_('a', 'gr\xc3\xb6\xc3\x9fe')",
        "# -*- coding: latin-1 -*-\n_('a', 'größe')".encode("latin-1"),
        "#!/usr/bin/python\n# vim: set fileencoding=utf-8 :\r\n_('a', 'größe')\r\n".encode(),
    ],
    ids=["utf-8", "mark", "latin-1", "second line"],
)
def test_files_are_read_in_their_encoding(tmp_path: Path, content: bytes) -> None:
    """H11: as Python reads them, by cookie and byte order mark, and not in the locale's."""
    (tmp_path / "train.py").write_bytes(content)

    assert {"a": "größe"} == Manager().parse_file(tmp_path).get_values()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe_", b"# coding: klingon\n", b"# coding: rot13\n", b"# coding: ascii\n\xe9", b"x = '\0'"]
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    """H11: an encoding that does not fit is an error with the name of the file."""
    (tmp_path / "train.py").write_bytes(content)

    with pytest.raises(ConfigError) as error:
        Manager().parse_file(tmp_path)

    assert f"{tmp_path}/train.py:1: " in str(error.value)


def test_what_is_no_python_is_a_syntax_error() -> None:
    """H10: Python's own error passes through, with file and line."""
    with pytest.raises(SyntaxError) as error:
        Manager().parse_source("x = 1\nprint 'a'\n", "train.py")

    assert ("train.py", 2) == (error.value.filename, error.value.lineno)


def test_sources_are_read_without_warnings() -> None:
    """H10: what Python thinks of a source, it says when the source runs; what numb uses of Python is not deprecated."""
    program = "from numb.hp.manager import Manager; print(Manager().parse_source(\"_('a', '\\\\\\\\d'); 1 is 1\").get_values())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)

    assert ("{'a': '\\\\d'}\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("print 'a'", SyntaxError), ("_(name, 1)", NotLiteralNameException), ("_()", ArgumentCountException), ("x = '\0'", ConfigError),
        ("_('a', 1, type=int)", NotLiteralEvaluable), ("_('new', 1)", DoubleAssignmentException), ("_('old', 1)", DoubleAssignmentException),
        ("_('old.x', 1)", ImpossibleTree), ("_('branch', 1)", ImpossibleTree), ("_('set.x', 1)", ImpossibleTree),
        ("_('called.x', 1)", ImpossibleTree), ("_('setbranch', 1)", ImpossibleTree),
    ],
)  # fmt: skip
def test_parsing_is_all_or_nothing(tmp_path: Path, bad: str, error: type[Exception]) -> None:
    """H07: one bad source, and nothing of those that came with it is taken."""
    manager = parsed("_('old', 0); _('branch.leaf', 0)").set_values({"set": 1, "setbranch.leaf": 2})
    manager("called", 3)
    before = state(manager)
    (tmp_path / "a.py").write_text("_('new', 0)")
    (tmp_path / "b.py").write_text(bad)

    with pytest.raises(error):
        manager.parse_file(tmp_path)

    assert before == state(manager)
    assert {"new": 0} == Manager().parse_file(tmp_path / "a.py").get_values()


# -- notebooks


def test_notebooks_are_read_cell_by_cell(tmp_path: Path) -> None:
    """H10: a place is a cell and its line, and what only IPython knows is skipped."""
    path = notebook(
        tmp_path / "train.ipynb",
        "%matplotlib inline\n!pip install numb \\\n  --quiet\nfrom numb.hp import _ as t\nt('a', 1)",
        "%%time\nt('b', 2)",
        "%%bash\nt('not', here",
        "files = !ls\nx, y = %who\nt?\n?t\nif files:\n    %time f()\n    !ls\nt('c', 3)",
        "text = ('%d %s'\n    % (1, 2))\nmore = '''\n%time\n!ls\n'''\nt('d', 4)",
    )

    manager = Manager().parse_file(tmp_path)

    assert {"a": 1, "b": 2, "c": 3, "d": 4} == manager.get_values()
    expected = [f"{path}:cell 1:5", f"{path}:cell 2:2", f"{path}:cell 4:8", f"{path}:cell 5:7"]
    assert expected == manager.occurrences.extract_column("place")


def test_a_mistake_in_a_notebook_names_its_cell(tmp_path: Path) -> None:
    """H10: whatever kind of mistake, and also if an earlier cell is fine."""
    path = notebook(tmp_path / "train.ipynb", "_('a', 1)", "x = 1\n_(name)")
    broken = notebook(tmp_path / "broken.ipynb", "_('a', 1)", "x = (")

    with pytest.raises(NotLiteralNameException) as error:
        Manager().parse_file(path)
    with pytest.raises(SyntaxError) as syntax:
        Manager().parse_file(broken)

    assert f"{path}:cell 2:2:1: hp-name should be literal-string: _(name)" == str(error.value)
    assert f"{broken}:cell 2" == syntax.value.filename


def test_a_name_means_the_same_in_every_cell(tmp_path: Path) -> None:
    """H02: gettext's `_`, imported in one cell, is gettext's in the others."""
    path = notebook(tmp_path / "a.ipynb", "from gettext import gettext as _", "_('Hello, world')")

    assert [] == list(Manager().parse_file(path).occurrences)


def test_notebooks_of_other_languages_are_passed_over(tmp_path: Path) -> None:
    """H11: one written in R beside the others is no mistake."""
    notebook(tmp_path / "r.ipynb", "x <- c(1, 2)", metadata={"language_info": {"name": "R"}})

    assert 0 == count(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"cells": 1}', '{"cells": [1]}', '{"cells": [], "metadata": []}', "\0"]
)
def test_what_is_no_notebook_is_named(tmp_path: Path, content: str) -> None:
    """H10: a damaged one is an error with its name."""
    (tmp_path / "a.ipynb").write_text(content)

    with pytest.raises(ConfigError, match=r"a\.ipynb:1: not a notebook"):
        Manager().parse_file(tmp_path)


# -- which value counts


def test_without_a_value_there_is_the_sentinel_or_an_error() -> None:
    """AC-H13: for names that are used as for names that are not there."""
    manager = parsed("_('x')", "_('y')")

    for name in ("x", "y", "z"):
        assert EMPTY is manager.get_value(name, raise_exception=False)
        with pytest.raises(KeyError) as error:
            manager.get_value(name)
        assert f"`{name}` not found" == str(error.value)


def test_what_exists_has_a_value() -> None:
    """AC-H17: parsed or set; branches too, and not what is only used."""
    manager = parsed("_('a', 1); _('b', 2); _('used'); _('x.y', None)").set_values({"b": 3, "c": 4})

    names = ("a", "b", "c", "d", "used", "x", "x.y")
    assert [True, True, True, False, False, True, True] == [manager.exists(name) for name in names]


class Anything:
    pass


@pytest.mark.parametrize(
    "value", [1, 0.5, "text", {"a": 1}, [1], (), print, Anything(), Anything, None, False, {1}, b""]
)
def test_at_run_time_a_value_may_be_anything(value: object) -> None:
    """AC-H21: it comes back as it is; where nothing is said of it, a list and its like as a copy."""
    manager = Manager()

    assert manager("a", value) is value
    assert (value, value) == (manager("a"), manager.get_value("a"))


def test_what_a_script_does_to_its_list_is_nobody_elses() -> None:
    """A default, and a value that was set, is the same for every call, whatever was done to what the last one returned."""
    manager = Manager().set_value("set", [5, 6]).set_value("opt.lr", 0.5)

    def called() -> list[Any]:
        own, given, inside = manager("own", [1, 2]), manager("set", [1, 2]), manager("opt", {"lr": 0.1, "name": "sgd"})
        seen = [list(own), list(given), dict(inside)]
        own.append(0)
        given.append(0)
        inside.pop("name")
        return seen

    expected = [[1, 2], [5, 6], {"lr": 0.5, "name": "sgd"}]
    assert [expected] * 3 == [called() for _time in range(3)]
    assert ([1, 2], [5, 6]) == (manager("own"), manager.get_value("set"))


def test_what_cannot_be_copied_is_passed_on() -> None:
    """A dictionary with a lock in it: the script gets the one that it has made."""
    made = {"lock": threading.Lock()}
    assert Manager()("a", made) is made


class Unequal:
    """As an array is: whether two are equal is no yes or no."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_lists_of_what_cannot_be_compared_are_values() -> None:
    """AC-H21: also if they are given again and again."""
    manager, one, other = Manager(), [Unequal()], [Unequal()]

    assert manager("a", one) is one
    assert manager("a", other) is other


def test_a_default_that_was_changed_after_the_call_is_given_anew() -> None:
    """H13: each call returns its own list, whatever was done with that of the last."""
    manager = Manager()

    def sizes() -> list[int]:
        found: list[int] = manager("sizes", [1, 2])
        return found

    first = sizes()
    first.append(3)

    assert ([1, 2, 3], [1, 2]) == (first, sizes())


def test_a_repeated_call_is_told_and_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """H13, H23: the value that is used is told to the run; the same call again, in a loop, costs next to nothing."""
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(runtime, "tell", lambda name, value, called: told.append((name, value, called)))
    manager = Manager().set_value("b", 7)

    for _again in range(3):
        assert (1e-3, 1e-3, [1, 2], 7) == (
            manager("lr", 1e-3),
            manager("lr"),
            manager("sizes", [1, 2]),
            manager("b", 8),
        )

    assert [("lr", 1e-3, True), ("sizes", [1, 2], True), ("b", 7, True)] == told
    assert 4 == len(manager.occurrences)


def test_setters_go_before_calls_and_calls_before_sources() -> None:
    """AC-H22: in the value that a call returns and in what is asked for."""
    first = Manager()
    assert 1 == first("a", 1)
    first.set_value("a", 2)
    assert (2, 2, 2) == (first("a", 1), first("a"), first.get_value("a"))

    second = Manager().set_value("a", 11)
    assert (11, 11, 11, {"a": 11}) == (second("a", 22), second("a"), second.get_value("a"), second.get_values())

    third = Manager()
    assert (2, 2, 3, 3) == (third("a", 2), third("a", 2), third("a", 3), third("a"))
    with pytest.raises(KeyError, match="`none` not found"):
        third("none")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_events_does_not_matter(order: tuple[int, ...]) -> None:
    """H12: parsed < called < set, whatever came first."""
    manager, done = Manager(), set()
    events = [
        lambda: manager.parse_source("_('a', 'parsed')"),
        lambda: manager("a", "called"),
        lambda: manager.set_value("a", "set"),
    ]
    for event in order:
        events[event]()
        done.add(event)
        assert ["parsed", "called", "set"][max(done)] == manager.get_value("a") == manager("a")


def test_the_later_of_two_on_one_level_counts() -> None:
    """H12: setters and calls replace what they said before; setting nothing changes nothing."""
    manager = Manager()
    assert ("a", "b") == (manager("x", "a"), manager("x", "b"))
    manager.set_value("x", "c").set_value("x", "d").set_value("x", EMPTY)

    assert "d" == manager.get_value("x") == manager("x", "e")


def test_the_levels_between_calls_and_setters() -> None:
    """H12: file < environment < queue < command line, in any order of setting."""
    levels = [Level.FILE, Level.ENVIRONMENT, Level.QUEUE, Level.COMMAND, Level.SET]
    for given_ in itertools.permutations(levels, 2):
        manager = Manager()
        for level in given_:
            manager.set_value("a", level.text, level=level)
        assert max(given_).text == manager("a", "default")


def test_a_node_keeps_its_rows() -> None:
    """AC-H23: one with a value and one without for each level, however often it was set."""
    manager, seen = Manager(), []
    events: list[Callable[[], Any]] = [
        lambda: manager.parse_source("_('a', 'default')"), lambda: manager.parse_source("_('a')"), lambda: manager("a", "call"),
        lambda: manager.set_value("a", "v0"), lambda: manager.set_value("a", "v"), lambda: manager.set_value("a", EMPTY),
    ]  # fmt: skip
    for event in events:
        event()
        seen.append(manager.get_value("a"))

    assert ["default", "default", "call", "v0", "v", "v"] == seen
    assert ["default", EMPTY, "call", "v", EMPTY] == manager.get_nodes()["a"].extract_column("value")
    assert [10, 9, 20, 70, 69] == manager.get_nodes()["a"].extract_column("value_priority")
    assert manager.get_occurrence("a") == Occurrence("a", "v", Level.SET)


# -- set from outside


def test_what_was_set_from_outside_goes_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """H12: for calls and for whoever asks, before and after the first call; names that nobody uses are not listed."""
    outside = {"a": (Level.COMMAND, 5), "b": (Level.FILE, 6), "global_of_the_script": (Level.QUEUE, 7)}
    monkeypatch.setattr(runtime, "outside", lambda: dict(outside))
    manager = parsed("_('a', 1); _('b', 2); _('c', 3)")

    assert {"a": 5, "b": 6, "c": 3} == manager.get_values()
    assert (5, 3, 6) == (manager("a", 1), manager("c", 3), manager.get_value("b"))
    assert manager.get_occurrence("b") == Occurrence("b", 6, Level.FILE)
    assert 9 == manager.set_value("a", 9)("a", 1)


def test_what_was_set_inside_of_a_default_leaves_its_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """H12: `opt.lr` from outside replaces that key of the dictionary, in a copy."""
    outside = {"opt.lr": (Level.COMMAND, 5), "opt.more.deep": (Level.FILE, 6)}
    monkeypatch.setattr(runtime, "outside", lambda: dict(outside))
    manager, default = Manager(), {"lr": 1, "name": "sgd", "more": {"shallow": 0}}

    for _again in range(2):
        expected = {"lr": 5, "name": "sgd", "more": {"shallow": 0, "deep": 6}}
        assert expected == manager("opt", default)
    assert {"lr": 1, "name": "sgd", "more": {"shallow": 0}} == default
    assert {"opt": expected} == manager.get_values() == manager.get_tree()


def test_the_same_from_outside_for_a_whole_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """H12: a dictionary from outside, with one of its keys given again at a higher level, or at a lower one in vain."""
    outside = {"a": (Level.FILE, {"x": 1, "y": 2}), "a.x": (Level.COMMAND, 3), "b": (Level.COMMAND, {"x": 1}), "b.x": (Level.FILE, 3)}  # fmt: skip
    monkeypatch.setattr(runtime, "outside", lambda: dict(outside))
    manager = Manager()

    assert ({"x": 3, "y": 2}, {"x": 1}) == (manager("a", {}), manager("b", {}))


@pytest.mark.parametrize(("name", "value"), [("c.d", 3), ("c", 3)])
def test_what_cannot_be_from_outside_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """H17: a leaf below one, or above one, at the call that asks for it."""
    monkeypatch.setattr(runtime, "outside", lambda: {name: (Level.COMMAND, value)})
    manager = Manager()

    def use() -> None:
        manager("c.d", 1)
        manager("c", 2)

    with pytest.raises(ImpossibleTree, match="command line"):
        use()


# -- trees


def test_setting_inside_of_a_default_makes_it_a_tree() -> None:
    """AC-H24: a dictionary that is a default gives way to what is set below it."""
    with pytest.raises(ImpossibleTree):
        parsed("_('a.b', 1)", "_('c', {'d': 2})", "_('c.d')")
    setters: list[Callable[[Manager], Any]] = [
        lambda manager: manager.set_tree({"c": {"d": 3}}),
        lambda manager: manager.set_value("c.d", 3),
    ]
    for setter in setters:
        manager = parsed("_('a.b', 1)", "_('c', {'d': 2})")
        with pytest.raises(KeyError):
            manager("c.d")
        assert {"a": {"b": 1}, "c": {"d": 2}} == manager.get_tree()

        setter(manager)

        assert {"a": {"b": 1}, "c": {"d": 3}} == manager.get_tree()
        assert ({"d": 3}, 3) == (manager.get_value("c"), manager("c.d"))
        assert {"d": 3, "e": 0} == manager("c", {"d": 1, "e": 0})
    with pytest.raises(ImpossibleTree):
        parsed("_('a.b',1)", "_('a',{'c':2})")


@pytest.mark.parametrize("order", [0, 1])
def test_the_default_of_a_call_may_come_after_the_setter(order: int) -> None:
    """H17: what is set inside of a dictionary counts in either order, and again after each change."""
    manager, default = Manager(), {"d": 2, "e": {"f": 4}}
    events: list[Callable[[], Any]] = [lambda: manager.set_value("c.d", 3), lambda: manager("c", default)]
    for event in events if order else reversed(events):
        event()

    assert {"d": 3, "e": {"f": 4}} == manager("c", default) == manager("c") == manager.get_value("c")
    manager.set_tree({"c": {"e": {"f": 5}}}).set_value("c.d", 6)
    assert {"d": 6, "e": {"f": 5}} == manager("c", default) == manager.get_tree("c")
    assert {"d": 2, "e": {"f": 4}} == default


def test_a_branch_shows_what_was_set_inside_of_its_dictionaries() -> None:
    """H14: asked for from above, a dictionary with something replaced in it is one value."""
    manager = parsed("_('a.c', {'d': 2, 'layer-1': 0}); _('a.x', 1)").set_values({"a.c.d": 3, "a.c.layer-1": 4})

    assert {"c": {"d": 3, "layer-1": 4}, "x": 1} == manager.get_value("a") == manager.get_tree("a")


CONFLICTS: dict[str, tuple[Callable[[Manager], Any], Callable[[Manager], Any]]] = {
    "parsed below parsed": (lambda m: m.parse_source("_('a', 1)"), lambda m: m.parse_source("_('a.b', 1)")),
    "used below parsed": (lambda m: m.parse_source("_('a', {'b': 1})"), lambda m: m.parse_source("_('a.b')")),
    "called below parsed": (lambda m: m.parse_source("_('a', {'b': 1})"), lambda m: m("a.b", 1)),
    "called below called": (lambda m: m("a", {"b": 1}), lambda m: m("a.b", 1)),
    "called deep below called": (lambda m: m("a", 1), lambda m: m("a.b.c", 1)),
    "called below set": (lambda m: m.set_value("a", {"b": 1}), lambda m: m("a.b", 1)),
    "set below called": (lambda m: m("a", 1), lambda m: m.set_value("a.b", 1)),
    "set below parsed": (lambda m: m.parse_source("_('a', f())"), lambda m: m.set_value("a.b", 1)),
    "set below set": (lambda m: m.set_value("a", {"b": 1}), lambda m: m.set_value("a.b", 1)),
    "set deep below set": (lambda m: m.set_value("a", None), lambda m: m.set_tree({"a": {"b": {"c": 1}}})),
    "parsed below set": (lambda m: m.set_value("a", 1), lambda m: m.parse_source("_('a.b', 1)")),
    "parsed below called": (lambda m: m("a", 1), lambda m: m.parse_source("_('a.b', 1)")),
    "below what is no dictionary": (lambda m: m("a", {"b": 1}), lambda m: m.set_value("a.b.c", 1)),
    "one of several": (lambda m: m("a", 1), lambda m: m.set_values({"x": 1, "a.b": 1, "y": 2})),
}


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("case", CONFLICTS)
def test_a_name_is_a_leaf_or_a_tree(case: str, order: int) -> None:
    """H17: every conflict raises in one wording, whatever came first, and changes nothing."""
    first, second = CONFLICTS[case][:: -1 if order else 1]
    manager = parsed("_('other.leaf', 0)")
    first(manager)
    before = state(manager)

    with pytest.raises(
        ImpossibleTree, match=r"^`a(\.b)?` is both a leaf and a tree: a\.b(\.c)? lies below it \(.+, .+\)$"
    ):
        second(manager)

    assert before == state(manager)


def test_a_conflict_names_both_places() -> None:
    """H17: file and line of a source, else how it was set."""
    manager = Manager().parse_source("_('a', 1)", "one.py")
    with pytest.raises(ImpossibleTree) as parsing:
        manager.parse_source("\n_('a.b.c', 2)", "two.py")
    with pytest.raises(ImpossibleTree) as setting:
        manager.set_value("a.b", 2)

    assert "`a` is both a leaf and a tree: a.b.c lies below it (one.py:1, two.py:2)" == str(parsing.value)
    assert "`a` is both a leaf and a tree: a.b lies below it (one.py:1, set_value)" == str(setting.value)


def test_a_name_without_default_may_have_others_below_it() -> None:
    """H17: `_("a")` asks for the branch."""
    manager = parsed("_('a')", "_('a.b', 1)")

    assert ({"b": 1}, {"b": 1}) == (manager("a"), manager.get_value("a"))


@pytest.fixture
def letters() -> Manager:
    flat = {"a.a": 1, "a.ab": [0.4, 5], "a.c": {"d": 5, "e": 6}, "b.c": "abc", "a.b.c": "abcde"}
    return Manager().set_values(flat)


LETTERS = {"a": {"a": 1, "ab": [0.4, 5], "c": {"d": 5, "e": 6}, "b": {"c": "abcde"}}, "b": {"c": "abc"}}


def test_values_are_a_tree(letters: Manager) -> None:
    """AC-H25: of all names or of those below one; leaves have occurrences and branches have none."""
    assert LETTERS == letters.get_tree()
    assert LETTERS["a"] == letters.get_tree("a") == letters.get_value("a")
    assert {} == letters.get_tree("no") == letters.get_tree("a.no")
    assert None is letters.get_occurrence("a") is letters.get_occurrence("no")
    assert letters.get_occurrence("a.a") == Occurrence("a.a", 1, Level.SET)
    assert 7 == letters.set_value("a.d", 7).get_tree()["a"]["d"]
    with pytest.raises(ImpossibleTree):
        letters.set_value("a", 0.5)
    with pytest.raises(ImpossibleTree, match=r"`a\.a` is a leaf"):
        letters.get_tree("a.a")


def test_trees_have_strings_for_keys() -> None:
    """AC-H25: any other is an error, unless the dictionary is marked as a value."""
    for bad in ({5: 1}, {"a": {5: 1}}, {"a": {"": 1}}, {"": {"a": 1}}, {"a": {None: 1}}):
        with pytest.raises(ImpossibleTree):
            Manager().set_tree(bad)

    assert {"a": {5: 1}} == Manager().set_tree({"a": {5: 1, IS_DICT: True}}).get_values()


def test_marked_dictionaries_stay_values(letters: Manager) -> None:
    """AC-H25: a tree that was written with marks is read as it was, and without them as branches."""
    annotated = letters.get_tree(annotate_dict=True)

    assert {"d": 5, "e": 6, IS_DICT: True} == annotated["a"]["c"]
    assert letters.get_values() == Manager().set_tree(annotated).get_values()
    assert {"a.c.d": 5, "a.c.e": 6}.items() <= Manager().set_tree(letters.get_tree()).get_values().items()
    assert letters.get_tree() == Manager().set_tree(letters.get_tree()).get_tree()


def test_one_tree_has_several_spellings() -> None:
    """AC-H25: `a.b.c` may be one name, or lie inside of dictionaries."""
    spellings: list[dict[str, Any]] = [{"a": {"b": {"c": 1}}}, {"a.b": {"c": 1}}, {"a.b.c": 1}]
    managers = [Manager().set_values(spelling) for spelling in spellings]

    assert [{"a": {"b": {"c": 1}}}] * 3 == [manager.get_tree() for manager in managers]
    assert spellings == [manager.get_values() for manager in managers]
    assert [{"a.b.c": 1}] * 3 == [Manager().set_tree(spelling).get_values() for spelling in spellings]


def test_set_tree_below_a_prefix() -> None:
    """H15: which is a string, and a name."""
    assert {"x.y.a": 1} == Manager().set_tree({"a": 1}, "x.y").get_values()
    assert {"a": {}} == Manager().set_tree({"a": {}}).get_values()
    with pytest.raises(TypeError):
        Manager().set_tree({"a": 1}, None)  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError):
        Manager().set_tree({"a": 1}, "x.")
    with pytest.raises(ImpossibleTree):
        Manager().set_tree({"a.b": 1, "a": {"b": 2}})
    with pytest.raises(ImpossibleTree):
        Manager().set_tree({"a": 1, "a.b": 2})


def test_inputs_are_left_as_they_are() -> None:
    """H15: the mark is not taken out of the caller's dictionary, and what was read is not changed by the manager."""
    nested = {"a": {"x": 1, IS_DICT: True}, "b": {"c": {"d": [1], IS_DICT: True}}, "l": {"m": 1}}
    before = deepcopy(nested)
    manager = Manager().set_tree(nested)
    manager.get_tree(annotate_dict=True)
    manager("l.n", {"p": 1})
    manager.set_value("l.n.p", 2)
    manager.get_tree()["l"]["m"] = 3
    manager.get_values()["l.m"] = 4

    assert before == nested
    assert {"a": {"x": 1}, "b.c": {"d": [1]}, "l.m": 1, "l.n": {"p": 2}} == manager.get_values()


# -- the queries


@pytest.fixture
def table() -> Manager:
    """AC-H26: eleven rows of three levels."""
    manager = parsed("_('v10', 0)", "_('v11', 1)", "_('v11')", "_('v12', 2)", "_('v13')")
    for name, value in (("v20", 0), ("v21", 1), ("v21", 2), ("v22", 3)):
        manager(name, value)
    for name, value in (("v30", 0), ("v31", 1), ("v31", 2), ("v32", 3)):
        manager.set_value(name, value)
    return manager


def test_occurrences_can_be_counted_and_selected(table: Manager) -> None:
    """AC-H26: by predicates that are put together."""
    db = table.db

    assert (11, 9, 11) == (len(db), db.count(L.has_default_value), db.count())
    assert [5, 3, 3] == [db.count(L.of_priority(level)) for level in (Level.SOURCE, Level.CALL, Level.SET)]
    assert "v12" == db.find_first(L.of_value(2)).name
    assert db.select(L.land(L.of_value(2), L.of_name_prefix("v3"))) == [Occurrence("v31", 2, Level.SET)]
    either = L.lor(L.of_value(2), L.of_name_suffix("2"))
    assert (5, 6) == (len(db.select(either)), len(db.select(L.lnot(either))))
    assert (True, False, True) == (db.any(either), db.all(either), db.all(L.exist_attr("name")))
    assert (True, None) == (db.select(L.of_value(99)).empty(), db.find_first(L.of_value(99)))
    assert ["v11", "v11"] == db.where(name="v11").extract_column("name")
    assert (1, None) == (db.where(L.has_default_value, name="v11").first().value, db.where(name="no").first())


def test_occurrences_can_be_grouped_ordered_and_indexed(table: Manager) -> None:
    """AC-H26: each way gives a new list, and only what is no index is an error."""
    db = table.db

    assert {0: 3, 1: 1, EMPTY: 2, 2: 3, 3: 2} == {key: len(rows) for key, rows in db.group_by("value").items()}
    assert [0, 0, 0] == db.indexing([0, 5, 8]).extract_column("value")
    assert "v10" == db.indexing(0).name == db[0]["name"]
    for bad in ("a", 11, [0, 11], ["a"], [None]):
        with pytest.raises(IndexError):
            db.indexing(bad)
    names = db.sorted(L.order_by("name"), reverse=True).extract_column("name")
    assert sorted((row.name for row in db), reverse=True) == names
    assert [9, 9, 10, 10, 10, 20, 20, 20, 70, 70, 70] == [row.value_priority for row in db.sorted(L.value_priority)]


def test_occurrences_can_be_reduced_and_changed(table: Manager) -> None:
    """AC-H26: changing a list of them changes neither a copy nor the manager."""
    db = table.db
    copy = db.copy()

    assert 11 == db.reduce(lambda total, row: total + 1, 0)
    assert 123 == Occurrences().reduce(max, 123)
    with pytest.raises(ValueError, match="nothing to reduce"):
        Occurrences().reduce(max)
    assert ["V10", "V11"] == db.apply(L.apply_column("name", str.upper))[:2].extract_column("name")
    assert "v10" == copy[0].name == table.db[0].name
    assert [{"name": "v10", "value": 0}] == copy[:1].choose_columns("name", "value")
    with pytest.raises(KeyError):
        copy.extract_column("no_such_column")


# -- whatever is thrown at it

NAMES = st.sampled_from(["a", "b", "lr", "x_1", "größe"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5), st.binary(max_size=5),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
)  # fmt: skip
HASHABLE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
LITERALS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(SCALARS, st.sets(HASHABLE, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=3),
    ),
    max_leaves=6,
)
FLAT = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(".".join), LITERALS, max_size=5)


# The first text that is drawn waits for Hypothesis to make its table of characters.
patient = settings(suppress_health_check=[HealthCheck.too_slow])


def typed(value: Any) -> Any:
    """*value* so that `==` sees types."""
    match value:
        case dict():
            return dict, [(typed(key), typed(item)) for key, item in value.items()]
        case list() | tuple():
            return type(value), list(map(typed, value))
        case set():
            return set, sorted(repr(typed(item)) for item in value)
        case complex():
            return complex, repr(value + 0j)  # the zero of (-0+1j) has no sign in a source
        case _:
            return type(value), repr(value)


@patient
@given(FLAT)
def test_values_survive_the_source_and_the_tree(flat: dict[str, Any]) -> None:
    """parse → get_tree → set_tree → get_tree: the same values of the same types, under the same names."""
    flat = {name: value for name, value in flat.items() if not flat.keys() & set(ancestors(name))}
    source = "\n".join(f"_({name!r}, {value!r})" for name, value in flat.items())

    read = Manager().parse_source(source)
    again = Manager().set_tree(read.get_tree(annotate_dict=True))
    third = Manager().set_tree(again.get_tree(annotate_dict=True))

    expected = {name: typed(value) for name, value in flat.items()}
    for manager in (read, again, third):
        assert expected == {name: typed(value) for name, value in manager.get_values().items()}
        assert all(typed(value) == typed(manager.get_value(name)) for name, value in flat.items())
    assert typed(again.get_tree()) == typed(third.get_tree())


@patient
@given(LITERALS)
def test_what_is_shown_can_be_typed(value: Any) -> None:
    """The text of a value, on a command line, is that value: without a default, and with one of its type."""
    assert typed(value) == typed(coerce.from_text(repr(value), EMPTY))
    if not isinstance(value, (str, bool)):  # what is typed for a text is that text, without quotes
        assert typed(value) == typed(coerce.from_text(repr(value), value))


EVENTS: list[Callable[[Manager, str, Any], Any]] = [
    lambda manager, name, value: manager.parse_source(f"_({name!r}, {value!r})"),
    lambda manager, name, value: manager.parse_source(f"_({name!r})"),
    lambda manager, name, value: manager(name, value),
    lambda manager, name, value: manager.set_value(name, value),
    lambda manager, name, value: manager.set_tree({name: value}),
    lambda manager, name, value: manager.set_value(name, value, level=Level.FILE),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(EVENTS),
            st.sampled_from(["a", "b", "a.a", "a.b", "a.a.a", "a.a.b"]),
            st.sampled_from([1, None, {}, {"a": 1}, {"a": {"b": 1}}, {"a": {}, "b": 2}, {1: 2}]),
        ),
        max_size=6,
    )
)
def test_no_order_of_events_leaves_a_mess(events: list[tuple[Callable[[Manager, str, Any], Any], str, Any]]) -> None:
    """Every event works or changes nothing, and afterwards everything can be asked for and agrees."""
    manager = Manager()
    for event, name, value in events:
        before = state(manager)
        try:
            event(manager, name, value)
        except HyperparameterError:
            assert before == state(manager)
        flat, tree = manager.get_values(), manager.get_tree()
        for known, found in flat.items():
            assert found == manager.get_value(known) == manager(known)
        for branch in tree:
            assert tree[branch] == manager.get_value(branch)
        assert flat == Manager().set_tree(manager.get_tree(annotate_dict=True)).get_values()


SOURCE = """\
from numb.hp import _ as t, zz
hello = t
class Net(Base):
    '''A net, of "layers".'''
    def __init__(self, width: int = t("width", 8, help="units", choices=[4, 8])) -> None:
        self.lr = f"{hello('opt.lr', -1e-3, **{'min': 0})!r:>{t('pad', 0x1F)}}"
        self.x = [t('größe', {'a': (1, b'x'), 2: {3, 4}}) for _ in range(3)]  # t("no", 1)
if (n := t("opt.betas", (0.9, 0.999))) and t \\
        ("late", hp_value=2 ** 3 - 1j):
    zz("other", lambda: 1)
"""


def read_or_refused(source: str) -> None:
    """Parse anything; whatever is wrong with it, it is one of two errors, and the manager is empty."""
    manager = Manager()
    try:
        manager.parse_source(source)
    except (SyntaxError, ConfigError):
        assert [] == list(manager.occurrences)
    else:
        repr(manager.get_tree())


@patient
@given(st.text(st.characters()))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in another way than by its own errors."""
    read_or_refused(text)
    read_or_refused(f"_({text}")
    read_or_refused(f"_('a', {text})")
    read_or_refused(f"_({text!r}, 1)")


def test_the_source_of_the_fuzz_is_good() -> None:
    """Before it is damaged, it has every kind of call in it."""
    expected = {
        "width": 8, "opt.lr": -1e-3, "pad": 31, "größe": {"a": (1, b"x"), 2: {3, 4}}, "opt.betas": (0.9, 0.999), "late": 8 - 1j,
    }  # fmt: skip
    assert expected == values(SOURCE)


PIECES = st.one_of(
    st.text(st.characters(), max_size=3),
    st.sampled_from([
        "\0", "\r", "\x0c", "\ufeff", "\ud800", "\\", "'''", '"', "{", "}", "(", ")", "[", "]", "\n", "\t", ",", "*", "**", "=", ":=", "_",
        "_(", "t('a', ", "lambda: ", "%", "# coding: klingon\n", "from numb.hp import *\n", "é", "9**9**9", "'a.'", "1_0", "...", "f'{",
    ]),
)  # fmt: skip


@settings(patient, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(SOURCE)), st.integers(0, 40), PIECES), min_size=1, max_size=4))
def test_any_damage_is_read_or_refused(damage: list[tuple[int, int, str]]) -> None:
    """The same of a source with some of it replaced."""
    source = SOURCE
    for start, length, piece in damage:
        source = source[:start] + piece + source[start + length :]
    read_or_refused(source)


@pytest.mark.parametrize(
    "source",
    [
        100_000 * "(" + 100_000 * ")", 100_000 * "-" + "1", "a" + 100_000 * ".a", "1" + 100_000 * "+1", 50_000 * "lambda: " + "1",
        100_000 * "not " + "1", "x = " + 150 * "[" + 150 * "]", 3_000 * "_('a'," + 3_000 * ")", 99 * "try:\n", 5_000 * "\\",
        *(f"_('a', {default})" for default in (
            900 * "-" + "1", 190 * "[" + 190 * "]", 180 * "{1:" + "1" + 180 * "}", 20_000 * "1 if x else " + "1", 500 * "9**" + "9",
            "0x" + 10_000 * "f", 10_000 * "1", 10_000 * "'a' ", "f'" + 10_000 * "{x}" + "'", "dict(" + 100 * "a=dict(" + 101 * ")",
        )),
        "_" + 50_000 * " # ", "_" + 50_000 * " # \n", 50_000 * "_)", 20_000 * "_ ", "_('" + 10_000 * "a." + "a', 1)",
    ],
    ids=lambda source: source[:16].encode("unicode_escape").decode(),
)  # fmt: skip
def test_hostile_nesting_is_read_or_refused(source: str) -> None:
    """Neither depth nor length is too much."""
    read_or_refused(source)
