"""`nmb.json`: every promise about what it may say, and about how a mistake in it is named."""

from __future__ import annotations

import json
import math
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numb import config
from numb.config import Config, load, parse_json, read_json, template
from numb.errors import ConfigError, NotInitialised, NumbError, StoreTooNew
from numb.keep import Keep


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "nmb.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def complaint(content: str | bytes, **options: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        parse_json(content, "nmb.json", **options)
    return str(raised.value)


def complaint_of_load(folder: Path, content: str | bytes) -> str:
    """The message of `load`, its place without the folder."""
    with pytest.raises(ConfigError) as raised:
        load(written(folder, content))
    return str(raised.value).removeprefix(f"{folder}{os.sep}")


def test_every_option_is_read(tmp_path: Path) -> None:
    """What stands in the file is what the program works with; a command is split as a shell would, or is a list."""
    path = written(
        tmp_path,
        """
        {
          "version": 1,
          "train": {"command": "python 'my train.py' --lr \\"$LR\\" x"},
          "trial": {"command": ["python", "trial.py", ""]},
          "snapshot": {"max_file_mb": 0.5, "exclude": ["*.bin", "data/**"]},
          "hyperparameters": {"exclude": ["old/*"]},
          "environment": ["MY_VAR"],
          "branch": "runs/numb",
          "log": {"max_mb": 0},
          "metrics": 2.5,
          "series": {"stdout": true, "tensorboard": ["runs", "logs/*"]}
        }
        """,
    )

    assert load(path) == Config(
        train=("python", "my train.py", "--lr", "$LR", "x"),
        trial=("python", "trial.py", ""),
        max_file_mb=0.5,
        exclude=("*.bin", "data/**"),
        unread=("old/*",),
        environment=("MY_VAR",),
        branch="runs/numb",
        log_max_mb=0,
        metrics=2.5,
        reads_output=True,
        tensorboard=("runs", "logs/*"),
        warnings=(),
        file=str(path),
    )


@pytest.mark.parametrize(
    ("command", "syntax", "hint"),
    [
        ("CUDA=0 python train.py", "CUDA=0", '"env CUDA=0 python train.py"'),
        ("A='b c' python train.py", "A='b c'", '"env A=\'b c\' python train.py"'),
        ("python train.py | tee log", "|", '["sh", "-c", "python train.py | tee log"], or quote what the script itself shall get: \'|\''),
        ("cd src && python train.py", "&&", '["sh", "-c", "cd src && python train.py"], '),
        ("cd src; python train.py", "src;", '["sh", "-c", "cd src; python train.py"], '),
        ("python train.py > log", ">", '["sh", '),
        ("python train.py >log.txt", ">log.txt", '["sh", '),
        ("python train.py 2>&1", "2>&1", '["sh", '),
        ("python train.py &>log", "&>log", '["sh", '),
        ("python train.py < input", "<", '["sh", '),
        ("python train.py &", "&", '["sh", '),
        ("python train.py --workers=$(nproc)", "--workers=$(nproc)", '["sh", '),
        ("python train.py --workers `nproc`", "`nproc`", '["sh", '),
        ("A=1 python a.py && python b.py", "&&", '["sh", '),
        ("A=$(nproc) python a.py", "A=$(nproc)", '["sh", '),
    ],
)  # fmt: skip
def test_what_only_a_shell_understands_is_refused(tmp_path: Path, command: str, syntax: str, hint: str) -> None:
    """It would be passed on as words: the piece is named with the place, and the hint is what works."""
    path = written(tmp_path, json.dumps({"train": {"command": command}}))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert f"{path}:1:23: {json.dumps(syntax)} is for a shell, and numb starts the command without one" == str(
        raised.value
    )
    assert raised.value.hint is not None and raised.value.hint.startswith(f'"command": {hint}')


@pytest.mark.parametrize(
    "command",
    [
        "python train.py 'a | b' \"x > y\" \\; '&&' \\> \"$(x)\"",
        "python train.py --filter=a|b a&b x>3 a;b url=http://h/?a=1&b=2 lr=0.1 <pad> -> a=>b",
        "python train.py ${now:%Y} $HOME * ~ # {a,b} (x) a; ",
        "./A=b",
        "env A=b python train.py",
    ],
)
def test_words_with_such_characters_are_passed_on(tmp_path: Path, command: str) -> None:
    """Quoted, escaped, or within a word, they are the script's own."""
    path = written(tmp_path, json.dumps({"train": {"command": command}}))
    assert tuple(shlex.split(command)) == load(path).train


def test_an_empty_object_means_every_default(tmp_path: Path) -> None:
    """No key has to be there, the version neither."""
    path = written(tmp_path, "{}")

    assert load(path) == Config(
        None,
        None,
        {},
        20,
        (),
        (),
        (),
        "numb",
        64,
        (),
        None,
        Keep(None, None, None),
        (),
        {},
        (),
        None,
        10,
        False,
        (),
        (),
        str(path),
    )


def test_the_template_is_read_back_as_the_defaults(tmp_path: Path) -> None:
    """What `numb init` writes is complete, needs no warning, and says nothing but defaults."""
    path = written(tmp_path, template("train.py", "über uns/it's.py"))

    expected = Config(("python", "train.py"), ("python", "über uns/it's.py"), file=str(path))
    assert expected == load(path)
    assert "über uns" in path.read_text("utf-8")


def test_the_template_names_a_branch_that_is_not_the_usual_one(tmp_path: Path) -> None:
    """Where numb was told another branch, the file says so for good."""
    assert "runs/numb" == load(written(tmp_path, template(branch="runs/numb"))).branch


def test_the_template_is_written_for_people() -> None:
    """One key a line, the version first, and a line break at the end."""
    assert (
        template()
        == """\
{
  "version": 1,
  "train": {
    "command": "python train.py"
  },
  "trial": {
    "command": "python trial.py"
  },
  "snapshot": {
    "max_file_mb": 20,
    "exclude": []
  },
  "environment": [],
  "log": {
    "max_mb": 64
  }
}
"""
    )


def test_the_template_takes_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    """A script whose name is not UTF-8 can be run: the name survives the file."""
    name = os.fsdecode(b"caf\xe9.py")

    assert load(written(tmp_path, template(name))).train == ("python", name)


def test_unknown_keys_warn_and_name_what_was_meant(tmp_path: Path) -> None:
    """A key that numb does not know never stops a run; the warning says where it is, and its nearest known name."""
    path = written(
        tmp_path, '{"trainn": {},\n "train": {"comand": "x", "command": "python train.py"},\n "ü": 1, "Log": {}}'
    )

    loaded = load(path)

    assert loaded.train == ("python", "train.py")
    assert loaded.warnings == (
        f'{path}:1:2: unknown key "trainn"; did you mean "train"?',
        f'{path}:3:2: unknown key "ü"',
        f'{path}:3:10: unknown key "Log"; did you mean "log"?',
        f'{path}:2:12: unknown key "comand" in "train"; did you mean "command"?',
    )


def test_many_unknown_keys_are_counted(tmp_path: Path) -> None:
    """A file of something else does not fill the screen."""
    path = written(tmp_path, json.dumps({f"{number:05}": 0 for number in range(1000)}))

    warnings = load(path).warnings

    assert (11, f"{path}: 990 more unknown keys") == (len(warnings), warnings[-1])


@pytest.mark.parametrize("content", ["{}", '{"train": {}}', '{"train": {"command": ""}}', '{"train": {"command": " "}}',
                                     '{"train": {"command": []}}', '{"train": {"command": [""]}}'])  # fmt: skip
def test_a_mode_without_a_command_says_what_to_write(tmp_path: Path, content: str) -> None:
    """An empty command is no fault of the file until it has to be run; then file, section and an example are named."""
    path = written(tmp_path, content)

    with pytest.raises(ConfigError) as raised:
        load(path).command("train")

    assert str(raised.value) == f'{path}: section "train" has no command'
    assert raised.value.hint == f'add "train": {{"command": "python train.py"}} to {path}'


def test_each_mode_has_its_own_command(tmp_path: Path) -> None:
    """train never runs the command of trial."""
    loaded = load(written(tmp_path, '{"train": {"command": "a"}, "trial": {"command": "b"}}'))

    assert (("a",), ("b",)) == (loaded.command("train"), loaded.command("trial"))


def test_a_later_version_is_refused_before_anything_else_is_looked_at(tmp_path: Path) -> None:
    """A file of a later numb may mean something else by every key."""
    path = written(tmp_path, '{"train": 7,\n "version": 2}')

    with pytest.raises(StoreTooNew) as raised:
        load(path)

    assert str(raised.value) == f"{path}:2:13: this file has version 2, this numb reads version 1"
    assert raised.value.hint == "pip install --upgrade numb"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", 'nmb.json:1:1: expected an object such as {"train": {"command": "python train.py"}}, found a list'),
        ('{"version": "1"}', 'nmb.json:1:13: expected a version number, 1 at most, found "1"'),
        ('{"version": true}', "nmb.json:1:13: expected a version number, 1 at most, found true"),
        ('{"version": 0}', "nmb.json:1:13: expected a version number, 1 at most, found 0"),
        ('{"train": "x"}', 'nmb.json:1:11: expected an object such as {"command": "python train.py"}, found "x"'),
        ('{"trial": null}', 'nmb.json:1:11: expected an object such as {"command": "python train.py"}, found null'),
        ('{"checkpoints": 3}', "nmb.json:1:17: expected an object, found 3"),
        ('{"checkpoints": {"last": 0}}', "nmb.json:1:26: expected a whole number from 1, found 0"),
        ('{"checkpoints": {"every": true}}', "nmb.json:1:27: expected a whole number from 1, found true"),
        (
            '{"checkpoints": {"best": "acc"}}',
            'nmb.json:1:26: expected a result and which is best, such as "acc:max" or "loss:min", found "acc"',
        ),
        ('{"log": []}', "nmb.json:1:9: expected an object, found a list"),
        ('{"train": {"command": 1.5}}', 'nmb.json:1:23: expected a command such as "python train.py" or ["python", "train.py"], found 1.5'),
        ('{"train": {"command": "a\\u0000"}}', 'nmb.json:1:23: expected a command such as "python train.py" or ["python", "train.py"], found "a\\u0000"'),
        ('{"train": {"command": "a \'b"}}', 'nmb.json:1:23: expected a command that splits into words, found "a \'b"'),
        ('{"train": {"command": ["a",\n {}]}}', "nmb.json:2:2: expected a word of the command (a string), found an object"),
        ('{"train": {"command": ["\\ud800"]}}', 'nmb.json:1:24: expected a word of the command (a string), found "\\ud800"'),
        ('{"snapshot": {"max_file_mb": true}}', "nmb.json:1:30: expected a number of megabytes from 0 to 1000000000, found true"),
        ('{"snapshot": {"max_file_mb": -1}}', "nmb.json:1:30: expected a number of megabytes from 0 to 1000000000, found -1"),
        ('{"log": {"max_mb": "64"}}', 'nmb.json:1:20: expected a number of megabytes from 0 to 1000000000, found "64"'),
        ('{"snapshot": {"exclude": "*.bin"}}', 'nmb.json:1:26: expected a list of strings, found "*.bin"'),
        ('{"snapshot": {"exclude": [""]}}', 'nmb.json:1:27: expected a glob pattern (a string), found ""'),
        ('{"environment": ["A=B"]}', 'nmb.json:1:18: expected the name of an environment variable (a string), found "A=B"'),
        ('{"branch": ""}', 'nmb.json:1:12: expected the name of a git branch such as "numb", found ""'),
        ('{"branch": null}', 'nmb.json:1:12: expected the name of a git branch such as "numb", found null'),
        ('{"environment": {"A": "B"}}', "nmb.json:1:17: expected a list of strings, found an object"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_place(tmp_path: Path, content: str, expected: str) -> None:
    """A mistake is named by file, line and column, with what was expected and what was found."""
    assert expected == complaint_of_load(tmp_path, content)


def test_an_unbalanced_quote_comes_with_a_way_out(tmp_path: Path) -> None:
    """The hint gives the form of a command that needs no quotes."""
    with pytest.raises(ConfigError) as raised:
        load(written(tmp_path, '{"train": {"command": "a \'b"}}'))

    assert raised.value.hint == 'No closing quotation; a list needs no quotes: "command": ["python", "train.py"]'


def test_a_missing_file_is_a_project_that_was_not_initialised(tmp_path: Path) -> None:
    """The hint is the command that writes the file."""
    with pytest.raises(NotInitialised) as raised:
        load(tmp_path / "nmb.json")

    assert (f"{tmp_path / 'nmb.json'} does not exist", "numb init") == (str(raised.value), raised.value.hint)


def test_a_reader_of_another_file_hears_that_it_is_missing(tmp_path: Path) -> None:
    """`numb init` is no answer to a queue file that is not there."""
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "q.json")


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    """A folder is refused, and a pipe that nobody writes to is not waited for."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")

    for name, expected in {
        "folder": f"{tmp_path / 'folder'}: expected a regular file",
        "pipe": f"{tmp_path / 'pipe'}: expected a regular file",
        "file/nmb.json": f"{tmp_path / 'file' / 'nmb.json'}: cannot be read: Not a directory",
    }.items():
        with pytest.raises(ConfigError) as raised:
            load(tmp_path / name)
        assert expected == str(raised.value)


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    """100 GB of nothing are refused at once: no more than the limit is read."""
    with (tmp_path / "nmb.json").open("wb") as file:
        file.truncate(100 << 30)

    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "nmb.json")

    assert str(raised.value) == f"{tmp_path / 'nmb.json'}:1:1: expected at most 1048576 bytes, found more"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "nmb.json:1:1: expected a JSON value, found the end of the file"),
        ("\ud800", 'nmb.json:1:1: expected a JSON value, found "\\ud800"'),
        ("\xa0{}", 'nmb.json:1:1: expected a JSON value, found "\\u00a0"'),
        (" \n\t", "nmb.json:2:2: expected a JSON value, found the end of the file"),
        ("{", 'nmb.json:1:2: expected a key in double quotes or "}", found the end of the file'),
        ("{,}", 'nmb.json:1:2: expected a key in double quotes or "}", found ","'),
        ("{a: 1}", 'nmb.json:1:2: expected a key in double quotes or "}", found "a"'),
        ("{'a': 1}", 'nmb.json:1:2: expected a key in double quotes or "}", found a single quote (JSON has double quotes)'),
        ('{"a": 1, 2}', 'nmb.json:1:10: expected a key in double quotes, found "2"'),
        ('{"a" 1}', 'nmb.json:1:6: expected ":", found "1"'),
        ('{"a":}', 'nmb.json:1:6: expected a value, found "}"'),
        ('{"a": 1\n "b": 2}', 'nmb.json:2:2: expected "," or "}", found "\\""'),
        ('{"a": 1,\n}', 'nmb.json:1:8: expected "}" or another value, found a trailing comma (JSON has none)'),
        ('["ü",]', 'nmb.json:1:5: expected "]" or another value, found a trailing comma (JSON has none)'),
        ("[1 2]", 'nmb.json:1:4: expected "," or "]", found "2"'),
        ("[1,,2]", 'nmb.json:1:4: expected a value, found ","'),
        ("[,]", 'nmb.json:1:2: expected a value or "]", found ","'),
        ("[01]", 'nmb.json:1:3: expected "," or "]", found "1"'),
        ("[True]", 'nmb.json:1:2: expected a value or "]", found True (JSON has true)'),
        ("[nul]", 'nmb.json:1:2: expected a value or "]", found "nul"'),
        ("{} {}", 'nmb.json:1:4: expected the end of the file, found "{"'),
        ("// hello\n{}", "nmb.json:1:1: expected a JSON value, found a comment (JSON has none)"),
        ("{ # hello\n}", 'nmb.json:1:3: expected a key in double quotes or "}", found a comment (JSON has none)'),
        ("[1 /* one */]", 'nmb.json:1:4: expected "," or "]", found a comment (JSON has none)'),
        ("NaN", "nmb.json:1:1: expected a finite number, found NaN"),
        ("[-Infinity]", "nmb.json:1:2: expected a finite number, found -Infinity"),
        ("[1e999]", "nmb.json:1:2: expected a finite number, found 1e999"),
        ("[" + "9" * 5000 + "]", "nmb.json:1:2: expected a number of at most 640 digits, found 5000"),
        ('{"a": 1,\r\n "b": 2,\r\n "a": 3}', 'nmb.json:3:2: expected each key once, found "a" again (first on line 1)'),
        ('{"a": 1, "\\u0061": 2}', 'nmb.json:1:10: expected each key once, found "a" again (first on line 1)'),
        ('["a\nb"]', "nmb.json:1:4: expected a double quote or an escape such as \\n, found a line break"),
        ('["a\x01"]', 'nmb.json:1:4: expected a double quote or an escape such as \\n, found "\\u0001"'),
        ('["a', "nmb.json:1:2: expected a string that ends with a double quote, found the end of the file"),
        ('["C:\\data"]', 'nmb.json:1:5: expected one of the escapes \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX, found \\d'),
        ('["\\\\\\u12g4"]', 'nmb.json:1:5: expected one of the escapes \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX, found \\u12g4'),
        ("\ufeff{}", "nmb.json:1:1: expected JSON without a byte order mark, found one (U+FEFF)"),
        (b"\xef\xbb\xbf{}", "nmb.json:1:1: expected JSON without a byte order mark, found one (U+FEFF)"),
        ('{\n "ü": "ü'.encode() + b"\xff", "nmb.json:2:9: expected UTF-8, found the byte 0xff"),
        ("{}".encode("utf-16"), "nmb.json:1:1: expected UTF-8, found the byte 0xff"),
        ('{"a": 1,\n<<<<<<< HEAD\n"a": 2\n=======\n', "nmb.json:2:1: expected JSON, found a merge-conflict marker, <<<<<<<"),
        ("{}\n>>>>>>> theirs", "nmb.json:2:1: expected JSON, found a merge-conflict marker, >>>>>>>"),
        ("[" * 10**6, "nmb.json:1:65: expected at most 64 levels of nesting, found one more"),
        ('{"":' * 10**5 + "1" + "}" * 10**5, "nmb.json:1:257: expected at most 64 levels of nesting, found one more"),
        ("[\n" * 10**6, "nmb.json:1:1: expected at most 1048576 bytes, found more"),
    ],
)  # fmt: skip
def test_bad_json_is_named_with_its_place(content: str | bytes, expected: str) -> None:
    """Whatever is wrong, one line says where it is, what was expected there and what was found."""
    assert expected == complaint(content)


def test_a_conflict_comes_with_the_command_that_shows_it() -> None:
    """The next thing to type after a merge conflict is git's."""
    with pytest.raises(ConfigError) as raised:
        parse_json("<<<<<<< HEAD\n", "my q.json")

    assert raised.value.hint == "git diff -- 'my q.json'"


def test_nesting_is_taken_up_to_its_limit() -> None:
    """64 levels are read, 65 are not; what stands beside each other is no nesting."""
    assert 100 == len(parse_json("[" + ", ".join(["[{}]"] * 100) + "]", "nmb.json").value)
    assert isinstance(parse_json("[" * 64 + "]" * 64, "nmb.json").value, list)
    assert complaint("[" * 65 + "]" * 65).startswith("nmb.json:1:65: ")


def test_the_limit_is_the_readers() -> None:
    """Another file may be larger, to the byte; text is measured as the bytes it would be."""
    assert [1] == parse_json("[1]", "q.json", limit=3).value
    assert (
        complaint(b"[1]", limit=2) == complaint("[1]", limit=2) == "nmb.json:1:1: expected at most 2 bytes, found more"
    )
    assert complaint('"ü"', limit=3) == "nmb.json:1:1: expected at most 3 bytes, found more"


def test_nan_and_infinity_are_taken_where_they_are_asked_for() -> None:
    """A queue of hyperparameters may hold what Python's json writes."""
    value = parse_json("[NaN, Infinity, -Infinity, 1e999]", "q.json", non_finite=True).value

    assert math.isnan(value[0])
    assert [math.inf, -math.inf, math.inf] == value[1:]


def test_every_key_and_value_knows_its_place() -> None:
    """Lines and columns count characters from 1, however deep a value stands."""
    document = parse_json('[\n  {"ü": 1, "b": [true,\r\n "x"]},\n\t{}]', "q.json")

    assert "q.json:1:1" == document.where
    assert [("q.json:2:3", {"ü": 1, "b": [True, "x"]}), ("q.json:4:2", {})] == [
        (i.where, i.value) for i in document.items()
    ]
    assert ("q.json:2:4", "q.json:2:12") == (document[0].where_key("ü"), document[0].where_key("b"))
    assert [(2, 9), (2, 17)] == [member.line_and_column for member in document[0].items()]
    assert ["q.json:2:18", "q.json:3:2"] == [item.where for item in document[0]["b"].items()]
    assert document[0].get("missing") is None
    assert 'q.json:3:2: expected a number, found "x"' == str(document[0]["b"][1].wrong("a number"))


@pytest.mark.parametrize("step", ["a", 0])
def test_there_is_nothing_inside_a_number(step: str | int) -> None:
    """Going down where there is nothing is the caller's mistake, never a wrong place."""
    with pytest.raises(TypeError):
        parse_json("1", "q.json")[step]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
FRAGMENTS = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "\n", "\r", "\0", "\ufeff", "\ud800", "NaN", "-", "1e999", "//", "'",
     "=======\n", '"train"', '"command"', '"version"', '"snapshot"', '"max_file_mb"', '"environment"', '"log"', "1", "٣"]
)  # fmt: skip
SECTIONS = st.sampled_from(["version", "train", "trial", "snapshot", "environment", "log", "other"])
OPTIONS = st.sampled_from(["command", "max_file_mb", "exclude", "max_mb", "other"])
DOCUMENTS = VALUES | st.dictionaries(SECTIONS, VALUES | st.dictionaries(OPTIONS, VALUES, max_size=3), max_size=4)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid document in which a piece was replaced by another."""
    text = json.dumps(draw(DOCUMENTS), ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.just(1)))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 5)))
    return text[:start] + draw(FRAGMENTS | st.text(max_size=3)) + text[end:]


def outcome(content: str | bytes, non_finite: bool) -> str | None:
    try:
        parse_json(content, "nmb.json", non_finite=non_finite)
    except ConfigError as error:
        return str(error)
    return None


@given(st.text() | st.binary() | mutated() | st.lists(FRAGMENTS).map("".join), st.booleans())
@example("[" * 10**6, True)
@example('{"a":' * 10**6, False)
@example(b"\xff" * 10**6, False)
def test_nothing_but_a_config_error_comes_out(content: str | bytes, non_finite: bool) -> None:
    """Arbitrary bytes, text and damaged documents are either read or named with their place."""
    message = outcome(content, non_finite)

    assert message is None or message.startswith("nmb.json:")


@given(DOCUMENTS.map(json.dumps) | mutated())
def test_nothing_but_a_refusal_comes_out_of_load(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """A document of the wrong shape is refused, and what is accepted can be asked for its commands."""
    path = written(tmp_path_factory.getbasetemp(), content)
    message = None
    try:
        load(path).command("train")
    except NumbError as error:
        message = str(error)

    assert message is None or message.startswith(str(path))


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 3]), st.booleans())
def test_a_valid_document_is_what_json_reads(value: Any, ascii_only: bool, indent: int | None, encoded: bool) -> None:
    """On documents without equal keys there is no difference to Python's own reader, types and order included."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    content = text.encode() if encoded else text

    assert repr(json.loads(content)) == repr(parse_json(content, "nmb.json").value)


@given(mutated())
def test_what_json_refuses_is_refused(content: str) -> None:
    """Nothing is accepted that Python's own reader refuses, and no number or word is read as another."""
    if outcome(content, non_finite=True) is None:
        assert repr(json.loads(content)) == repr(parse_json(content, "nmb.json", non_finite=True).value)


@given(VALUES, st.sampled_from([None, 0, 3]))
def test_a_place_is_where_the_value_begins(value: Any, indent: int | None) -> None:
    """Reading on from the place of any value gives this value."""
    text = json.dumps(value, indent=indent)
    lines = text.split("\n")

    def check(located: config.Located) -> None:
        line, column = located.line_and_column
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        assert repr(json.JSONDecoder().raw_decode(rest)[0]) == repr(located.value)
        if isinstance(located.value, (dict, list)):
            for inner in located.items():
                check(inner)

    check(parse_json(text, "nmb.json"))
