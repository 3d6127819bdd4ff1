"""Hyperparameters are found by reading a script, and nothing of it is run."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numb.errors import ConfigError
from numb.hp.source import Found, nearest, overwritten, read, script_of
from numb.hp.values import NOT_LITERAL


class Scene:
    """A folder with a script in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "train.py"

    def write(self, text: str | bytes) -> Path:
        content = text if isinstance(text, bytes) else dedent(text).lstrip("\n").encode()
        self.script.write_bytes(content)
        return self.script

    def found(self, text: str | bytes) -> list[tuple[str, object, int, str]]:
        return [(found.name, found.value, found.line, found.how) for found in read(self.write(text)).found]

    def values(self, text: str) -> dict[str, object]:
        """Name → value of what stands above `numb_queue()`."""
        return {name: value for name, value, _, how in self.found(text) if how == "assignment"}

    def params(self, text: str) -> dict[str, object]:
        """Name → value of what `numb_param()` is given."""
        return {name: value for name, value, _, how in self.found(text) if how == "numb_param"}

    def late(self, text: str) -> list[tuple[str, object, int]]:
        return [(found.name, found.value, found.line) for found in read(self.write(text)).late]

    def overwritten(self, text: str, *names: str) -> list[tuple[str, int]]:
        """What is overwritten below the line that says `numb_queue()`."""
        line = next(
            number for number, line in enumerate(dedent(text).lstrip("\n").splitlines(), 1) if "numb_queue()" in line
        )
        return [(found.name, found.line) for found in overwritten(self.write(text), line, names)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_script_of_the_manual(scene: Scene) -> None:
    """What is injected stands above numb_queue, what is recorded in numb_param; both are found with their lines."""
    path = scene.write(
        """
        from numb import numb_param, numb_queue
        lr = 0.1
        numb_queue(globals())
        numb_param({"lr": lr})
        """
    )

    script = read(path)

    assert script.found == (
        Found("lr", 0.1, str(path), 2, "assignment"),
        Found("lr", 0.1, str(path), 4, "numb_param", settable=False),
    )
    assert (3, ()) == (script.queue_line, script.late)


def test_numb_queue_above_the_assignments_is_noticed(scene: Scene) -> None:
    """What would undo the injected value is named by its line, and is nothing that a queue can set."""
    path = scene.write(
        """
        from numb import numb_param, numb_queue
        numb_queue(globals())
        lr = 0.1
        epochs = 3
        numb_param({"lr": lr})
        """
    )

    script = read(path)

    assert script.found == (Found("lr", 0.1, str(path), 5, "numb_param", settable=False),)
    assert (2, (Found("lr", 0.1, str(path), 3, "assignment"),)) == (script.queue_line, script.late)


def test_nothing_is_executed(scene: Scene) -> None:
    """Reading a script that would end the process, or write a file, does neither."""
    assert {"lr": 1} == scene.values(
        f"""
        import sys
        lr = 1
        open({str(scene.folder / "canary")!r}, "w")
        sys.exit(3)
        numb_queue()
        """
    )
    assert not (scene.folder / "canary").exists()


@pytest.mark.parametrize(
    "hook",
    [
        "from numb import numb_queue\nlr = 1\nnumb_queue()",
        "from numb import numb_queue as q\nlr = 1\nq(globals())",
        "from numb.hooks import numb_queue as q\nlr = 1\nq(globals())",
        "from numb import *\nlr = 1\nnumb_queue()",
        "import numb\nlr = 1\nnumb.numb_queue()",
        "import numb as n\nlr = 1\nn.numb_queue()",
        "lr = 1\nif True:\n    from numb import numb_queue as q\n    q()",
        "lr = 1; numb_queue()",
    ],
)
def test_the_hook_is_known_by_any_name(scene: Scene, hook: str) -> None:
    """However it was imported, numb_queue is the line above which values count."""
    assert {"lr": 1} == scene.values(hook)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1", 1), ("-1", -1), ("+1.5", 1.5), ("'a' 'b'", "ab"), ("True", True), ("None", None), ("0x10", 16), ("1_000", 1000),
        ("[1, 'a', None]", [1, "a", None]), ("(0.9, 0.999)", (0.9, 0.999)), ("()", ()), ("{'a': [1], 2: -3}", {"a": [1], 2: -3}),
        ("dict(a=1, b={'c': 2})", {"a": 1, "b": {"c": 2}}), ("{}", {}),
        ("2*3", 6), ("1/8", 0.125), ("2**-3", 0.125), ("-2**2", -4), ("7//2", 3), ("7 % 4", 3), ("1e-3 - 1", -0.999), ("60*60*24", 86400),
        ("2**100", 2**100), ("[2*3]", [6]),
    ],
)  # fmt: skip
def test_constants_are_found_with_their_value(scene: Scene, source: str, value: object) -> None:
    """The value is what Python would compute, of the same type."""
    assert repr({"lr": value}) == repr(scene.values(f"lr = {source}\nnumb_queue()"))


@pytest.mark.parametrize(
    "source",
    [
        "f()", "other", "1 + other", "'a' + 'b'", "f'{x}'", "b'x'", "1j", "...", "{1, 2}", "{}[0]", "not True", "~1", "True + 1",
        "[1, *x]", "{**x}", "{[]: 1}", "{(1,): 1}", "[x for x in y]", "1/0", "1//0", "1 % 0", "2.0**10000", "10**400 / 3.0", "(-8)**0.5",
        "9**9**9**9", "2**100000", "0**-1", "2**1000 * 2**1000 * 2**1000", "dict([(1, 2)])", "dict(**x)", "lambda: 1", "1 if x else 2",
        "+".join("1" * 500), "yes and no",
    ],
)  # fmt: skip
def test_what_only_running_could_tell_is_no_constant(scene: Scene, source: str) -> None:
    """It is not guessed, and no sum is so large that reading it takes long."""
    assert scene.values(f"lr = {source}\nnumb_queue()") in ({}, {"lr": NOT_LITERAL})


@pytest.mark.parametrize(
    "source",
    [
        "[64] * 3", "'a' + 'b'", "f'{width}-{2}'", "not True", "width * 2", "[*sizes, 1]", "sizes[0]", "sizes[:-1]", "len(sizes)",
        "int(os.environ.get('N', 3))", "os.environ['N']", "os.getenv('N')", "environ.get('N', '1')", "1 if f() else 2",
        "{**{'a': 1}}", "{'a': width}", "list(range(3))", "max(1, *sizes)", "1 < width < 3", "width or 2",
    ],
)  # fmt: skip
def test_what_is_computed_of_constants_is_a_hyperparameter(scene: Scene, source: str) -> None:
    """Its name and line are known, its value is what running tells."""
    known = {"width": 8, "sizes": [1, 2]}
    assert {**known, "n": NOT_LITERAL} == scene.values(f"width, sizes = 8, [1, 2]\nn = {source}\nnumb_queue()")


@pytest.mark.parametrize(
    "source",
    [
        "f()",
        "width.real",
        "Net(8)",
        "len",
        "eval('1')",
        "f(width)",
        "torch.device('cpu')",
        "os.environ",
        "(lambda: 1)()",
        "[f()]",
    ],
)
def test_what_is_made_by_the_script_is_bound(scene: Scene, source: str) -> None:
    """It can be set, and is not listed."""
    text = f"import os, torch as t\nfrom settings import epochs, lr as rate\nwidth = 8\nn = {source}\nnumb_queue()\nlate = f()"
    found = read(scene.write(text))
    assert ({"n", "epochs", "rate"}, {"width": 8}, False) == (found.bound, scene.values(text), found.opaque)


def test_a_default_of_several_branches_is_none(scene: Scene) -> None:
    """Which of them it is, only running tells; where all say the same, it is that."""
    text = "a = b = 1\nif f():\n    a, b = 2, 1\ntry:\n    c = 1\nexcept E:\n    c = 2\nnumb_queue()"
    assert {"a": NOT_LITERAL, "b": 1, "c": NOT_LITERAL} == scene.values(text)


def test_what_a_star_brings_is_unknown(scene: Scene) -> None:
    """Above numb_queue; below it, it is nothing that can be set there."""
    texts = ["from settings import *\nnumb_queue()", "numb_queue()\nfrom settings import *"]
    assert [True, False] == [read(scene.write(text)).opaque for text in texts]


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("args = parse()\nnumb_param(vars(args))\nprint(args.lr)", True),
        ("args = parse()\nnumb_param(args.__dict__)\nprint(args.lr)", True),
        ("args = parse()\nprint(args.lr)\nnumb_param(vars(args))", False),
        ("args = parse()\nprint(args.lr)\nparams = numb_param(vars(args))", False),
        ("params = numb_param(parse())", True),
        ("numb_param(parse())", False),
        ("settings = load()\nnumb_param(settings)", True),
        ("settings = load()\nmodel(settings)\nnumb_param(settings)", False),
    ],
)
def test_whether_what_numb_param_is_given_is_what_is_used(scene: Scene, text: str, takes: bool) -> None:
    """What was read before has been used; attributes are used where they are, not where they are returned."""
    found = read(scene.write(text))
    assert (True, takes) == (found.opaque, found.takes_any)


def test_every_way_to_assign_at_module_level_counts(scene: Scene) -> None:
    """Annotated, chained, unpacked, and inside if, try, with and the main guard."""
    assert scene.values(
        """
        a: float = 1
        declared: int
        b = c = 2
        d, (e, [f]) = 3, (4, [5])
        g, h = dict(x=1), [1]
        if x:
            i = 6
        elif y:
            j = 7
        else:
            k = 8
        try:
            m = 9
        except ValueError:
            n = 10
        else:
            o = 11
        finally:
            p = 12
        with open("x") as stream:
            q = 13
        match x:
            case 1:
                r = 14
        if __name__ == "__main__":
            s = 15
            numb_queue()
            t = 16
        """
    ) == {
        "a": 1,
        "b": 2,
        "c": 2,
        "d": 3,
        "e": 4,
        "f": 5,
        "g": {"x": 1},
        "h": [1],
        "i": 6,
        "j": 7,
        "k": 8,
        "m": 9,
        "n": 10,
        "o": 11,
        "p": 12,
        "q": 13,
        "r": 14,
        "s": 15,
    }


def test_what_is_no_plain_name_at_module_level_does_not_count(scene: Scene) -> None:
    """Functions, classes, loops, attributes, items, private names and imports hold no hyperparameters."""
    assert {} == scene.values(
        """
        import os as a
        from x import b
        _private = __all__ = 1
        def function(): c = 1
        class Class: d = 1
        for e in range(3): f = 1
        while x: g = 1
        x.h = 1
        x["i"] = 1
        j, *k = 1, 2
        l, m = f()
        n, o = *x, 1
        [p for p in x]
        print(q := 1)
        numb_queue()
        below = 1
        """
    )


def test_the_last_value_above_the_queue_is_the_value(scene: Scene) -> None:
    """A name is found once; one that ends up as something else is still a name that a queue can set."""
    assert scene.found(
        """
        lr = 0.1
        bs = 32
        wd = 1
        n = 0
        lr = 0.2
        bs = int(os.environ["BS"])
        wd *= 2
        for n in range(3): pass
        momentum = 0.9
        [momentum for momentum in range(3)]
        numb_queue()
        lr = 0.3
        """
    ) == [
        ("lr", 0.2, 5, "assignment"),
        ("bs", NOT_LITERAL, 6, "assignment"),
        ("wd", NOT_LITERAL, 7, "assignment"),
        ("n", NOT_LITERAL, 8, "assignment"),
        ("momentum", 0.9, 9, "assignment"),
    ]
    assert "NOT_LITERAL" == repr(NOT_LITERAL)


def test_a_queue_inside_a_function_counts_where_the_function_is_called(scene: Scene) -> None:
    """The module has run up to the call of main by then; main's own names are nothing that can be injected into."""
    text = """
        from numb import numb_queue, numb_param
        lr = 0.1
        def main():
            inner = 1
            numb_queue(globals())
            numb_param({"lr": lr, "bs": bs})
        bs = 32
        if __name__ == "__main__":
            main()
        lr = 5
        """

    assert {"lr": 0.1, "bs": 32} == scene.values(text)
    assert 5 == read(scene.script).queue_line
    assert [("lr", 5, 10)] == scene.late(text)


def test_a_queue_inside_a_method_has_the_whole_module_above_it(scene: Scene) -> None:
    """Where it cannot be seen when a function is called, nothing is said to be late."""
    text = """
        class Trainer:
            def run(self):
                numb_queue(globals())
                numb_param({"lr": lr})
        lr = 0.1
        Trainer().run()
        """

    assert {"lr": 0.1} == scene.values(text)
    assert [] == scene.late(text)


def test_of_several_queues_the_first_of_the_module_counts(scene: Scene) -> None:
    """A function that is only defined above does not draw the line."""
    assert scene.values(
        """
        def unused(): numb_queue()
        a = 1
        numb_queue()
        b = 2
        numb_queue()
        """
    ) == {"a": 1}


def test_without_a_queue_only_registered_names_are_found(scene: Scene) -> None:
    """Module constants are hyperparameters only where something could replace them."""
    assert [("lr", 0.1, 2, "numb_param")] == scene.found('other = 1\nnumb_param({"lr": 0.1})\nlr = 2')
    assert (None, ()) == (read(scene.script).queue_line, read(scene.script).late)
    assert [] == scene.found("")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('numb_param({"lr": 0.1, "opt": {"name": "sgd"}})', {"lr": 0.1, "opt": {"name": "sgd"}}),
        ('from numb import numb_param as p\np({"lr": 1})', {"lr": 1}),
        ('import numb\nnumb.numb_param({"lr": 1})', {"lr": 1}),
        ("lr = 1; bs = 2\nnumb_param(dict(lr=lr, bs=bs))", {"lr": 1, "bs": 2}),
        ("params = {'lr': 1}\nnumb_param(params)", {"lr": 1}),
        ("params: dict = dict(lr=1)\nnumb_param(params)", {"lr": 1}),
        ("lr = 1\nparams = {'lr': lr}\ndef main():\n    numb_param(params)", {"lr": 1}),
        ("base = {'lr': 1, 'bs': 2}\nnumb_param({**base, 'bs': 3})", {"lr": 1, "bs": 3}),
        ("base = {'lr': 1}\nnumb_param(dict(base, **base, bs=2))", {"lr": 1, "bs": 2}),
        ("p = {'lr': 1}\np = {**p, 'bs': 2}\nnumb_param(p)", {"bs": 2}),
        ("numb_param({'lr': args.lr, 'wd': unknown})", {"lr": NOT_LITERAL, "wd": NOT_LITERAL}),
        ("lr = 1\nnumb_param({'opt': {'lr': lr}, 'warm': lr * 2})", {"opt": {"lr": 1}, "warm": 2}),
        ("lr = 1\nnumb_param({'lr': lr})\nlr = 2", {"lr": 1}),
        ("numb_param({'lr': lr})\nlr = 2", {"lr": NOT_LITERAL}),
        ("def main(): numb_param({'lr': lr})\nlr = 2\nmain()", {"lr": 2}),
        ("lr = 1\ndef main(lr): numb_param({'lr': lr})", {"lr": NOT_LITERAL}),
        ("lr = 1\ndef main(*lr): numb_param({'lr': lr})", {"lr": NOT_LITERAL}),
        ("lr = 1\nfor lr in x: numb_param({'lr': lr})", {"lr": NOT_LITERAL}),
        ("lr = 1\nnumb_param({'lr': (lambda: lr)})", {"lr": NOT_LITERAL}),
        ("main = lambda lr: numb_param({'lr': lr})", {"lr": NOT_LITERAL}),
        ("def main():\n    params = {'lr': 1}\n    numb_param(params)", {"lr": 1}),
        ("def main():\n    lr = 1\n    def inner():\n        numb_param({'lr': lr})\nlr = 2", {"lr": 1}),
        ("def main():\n    lr = 1\n    def inner():\n        lr = 2\n        numb_param({'lr': lr})", {"lr": 2}),
        ("a = b\nb = a\nnumb_param({'a': a})\nnumb_param(a)", {"a": NOT_LITERAL}),
        ("numb_param({'a': 1})\nnumb_param({'a': 2, 'b': 3})", {"a": 2, "b": 3}),
        ("numb_param({1: 2, key: 3, 'a': 4})", {"a": 4}),
        ("numb_param(vars(args))\nnumb_param()\nnumb_param(*x)\nnumb_param(1)", {}),
    ],
)  # fmt: skip
def test_the_keys_of_numb_param_are_found_with_their_values(
    scene: Scene, source: str, expected: dict[str, object]
) -> None:
    """A dictionary is seen through its literal, `dict(…)`, a name and `**`; a value through a name of its scope."""
    assert expected == scene.params(source)


def test_a_key_is_found_at_its_own_line(scene: Scene) -> None:
    """The line is the key's, not the call's."""
    assert [("lr", 1, 2, "numb_param"), ("bs", 2, 5, "numb_param")] == scene.found(
        'numb_param({\n    "lr": 1,\n})\nnumb_param(dict(\n    bs=2,\n))'
    )


def test_only_what_undoes_the_injected_value_is_overwriting(scene: Scene) -> None:
    """What computes with the value, may not run, runs again and again, or is another scope's, is not named."""
    assert scene.overwritten(
        """
        lr = 0.1
        numb_queue()
        lr = 0.2
        lr: float = f()
        lr: float
        a = lr = 1
        (lr, b), c = (1, 2), 3
        lr, bs = get()
        lr = lr * 0.5
        lr *= 0.5
        lr, bs = bs, lr
        lr = lr if lr else 1
        lr = f(lambda: lr)
        if lr is None:
            lr = 0.1
        for lr in range(3):
            lr = 1
        while True:
            lr = 1
        try:
            lr = 2
        except ValueError:
            lr = 3
        match bs:
            case 1:
                lr = 4
        with x:
            lr = 5
        def main():
            lr = 6
        class Net:
            lr = 7
        if __name__ == "__main__":
            lr = 8
        other = 1
        """,
        "lr",
    ) == [("lr", line) for line in (3, 4, 6, 7, 8, 21, 28, 34)]


def test_late_names_are_those_that_are_registered(scene: Scene) -> None:
    """An assignment below the queue matters only if it changes what is recorded."""
    assert [("lr", NOT_LITERAL, 3)] == scene.late(
        """
        lr = 0.1
        numb_queue()
        lr = parse().lr
        epochs = 3
        numb_param({"lr": lr})
        """
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"lr = 1\nlr = = 2\n", "train.py:2: invalid syntax"),
        (b"lr = 1\nprint 'Python 2'\n", "train.py:2: Missing parentheses in call to 'print'. Did you mean print(...)?"),
        (b"lr = 1\n\0", "train.py:2: null bytes are no text"),
    ],
)
def test_what_is_not_python_is_named_with_its_line(scene: Scene, source: bytes, expected: str) -> None:
    """A script that cannot be read is the user's to correct: file and line are named, by each function that reads."""
    path = scene.write(source)

    for reading in (lambda: read(path), lambda: overwritten(path, 1, ["lr"])):
        with pytest.raises(ConfigError) as raised:
            reading()
        assert str(raised.value).removeprefix(f"{scene.folder}/") in (
            expected,
            expected.replace(":2: source", ":1: source"),
        )


@pytest.mark.parametrize(
    "source", [b"x = '\xff'\n", b"# coding: nonsense\n", b"(" * 10**5, b"-" * 10**5 + b"1", b"x = " + b"f(" * 5000]
)
def test_hostile_bytes_are_a_config_error(scene: Scene, source: bytes) -> None:
    """Bad encodings and nesting that no compiler takes end in the same error as bad syntax."""
    with pytest.raises(ConfigError) as raised:
        read(scene.write(source))

    assert str(raised.value).startswith(f"{scene.script}:1: ")


def test_a_script_that_is_not_there_is_named(scene: Scene) -> None:
    """A file that cannot be opened is named with the reason."""
    with pytest.raises(ConfigError) as raised:
        read(scene.script)

    assert str(raised.value) == f"{scene.script}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbfname = '\xc3\xa9'\nnumb_queue()",
        b"# -*- coding: latin-1 -*-\nname = '\xe9'\nnumb_queue()",
        b"name = '\xc3\xa9'\r\nnumb_queue()\r\n",
    ],
)  # fmt: skip
def test_the_encoding_is_pythons(scene: Scene, source: bytes) -> None:
    """Coding cookies, byte order marks and line ends mean what they mean to Python."""
    assert ["é"] == [value for _, value, _, _ in scene.found(source)]


def test_a_scripts_own_warnings_are_left_to_the_script(scene: Scene) -> None:
    """An invalid escape warns when the script is run, not a second time by reading it."""
    assert {"pattern": "\\d"} == scene.values('pattern = "\\d"\nnumb_queue()')


def test_a_long_program_is_no_deep_one(scene: Scene) -> None:
    """Neither a thousand branches nor a thousand assignments are too many."""
    branches = "".join(f"elif x == {number}:\n    lr = -1\n" for number in range(150))

    assert {"lr": -1} == scene.values(f"if x:\n    lr = -1\n{branches}numb_queue()\n")
    assert 1000 == len(scene.values("".join(f"a{number} = {number}\n" for number in range(1000)) + "numb_queue()\n"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python train.py --lr 1", "train.py"),
        ("./train.py", "train.py"),
        ("python -u -W ignore train.py eval.py", "train.py"),
        ("python missing.py train.py", "train.py"),
        ("python -m pkg.mod train.py", "pkg/mod.py"),
        ("python -um pkg.mod", "pkg/mod.py"),
        ("python -m pkg", "pkg/__main__.py"),
        ("python -m pdb train.py", "train.py"),
        ("python -m torch.distributed.run --nproc-per-node 2 train.py", "train.py"),
        ("torchrun --nproc-per-node=2 -m pkg.mod", "pkg/mod.py"),
        ("torchrun --module pkg.mod", "pkg/mod.py"),
        ("uv run --with numpy python3.12 train.py", "train.py"),
        ("uv run train.py", "train.py"),
        ("env A=1 nice -n 5 python train.py", "train.py"),
        ("bash -c 'python train.py'", "train.py"),
        ("/bin/sh -ec 'cd . && exec python -m pkg.mod; echo done'", "pkg/mod.py"),
        ("bash -c 'python train.py; echo'", "train.py"),
        ("bash -c 'python train.py' eval.py", "train.py"),
        ("bash -c 'echo' eval.py", None),
        ('bash -c "it\'s"', None),
        ("bash -c", None),
        ("python -c 'import pkg' train.py", None),
        ("python -m pkg/mod", None),
        ("python -m", None),
        ("python -m http.server", None),
        ("python folder.py", None),
        ("make train", None),
        ("bash train.sh", None),
        ("python " + "a" * 5000 + ".py", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_script_of_a_command(tmp_path: Path, command: str, expected: str | None) -> None:
    """Launchers, modules and shells are seen through where it is evident what they run."""
    import shlex

    for name in ("train.py", "eval.py", "pkg/mod.py", "pkg/__main__.py", "train.sh", "folder.py/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert script_of(shlex.split(command), tmp_path) == (tmp_path / expected if expected else None)


def test_the_script_may_be_anywhere(tmp_path: Path) -> None:
    """An absolute path is taken as it is, a name with a space is one word, and a NUL is no file."""
    (tmp_path / "my train.py").touch()

    assert script_of(["python", str(tmp_path / "my train.py")], Path("/nowhere")) == tmp_path / "my train.py"
    assert script_of(["bash", "-c", "python 'my train.py'"], tmp_path) == tmp_path / "my train.py"
    assert script_of(["python", "\0.py"], tmp_path) is None


@pytest.mark.parametrize(
    ("name", "expected"), [("lrr", "lr"), ("LR", "lr"), ("batchsize", "Batch_Size"), ("momentum", None), ("", None)]
)
def test_a_name_that_was_mistyped_is_guessed(name: str, expected: str | None) -> None:
    """The nearest name is offered as it is spelled, whatever the case, and none where none is near."""
    assert expected == nearest(name, ["lr", "Batch_Size"])


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(LITERALS)
def test_every_literal_is_read_as_python_reads_it(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    """A value written into a script comes out as the same value, at both places where it can stand."""
    scene = Scene(tmp_path_factory.getbasetemp())

    assert repr([value, value]) == repr(
        [value for _, value, _, _ in scene.found(f"lr = {value!r}\nnumb_queue()\nnumb_param({{'lr': lr}})")]
    )


@given(st.text() | st.binary() | st.lists(st.sampled_from(["lr", "=", "1", "(", ")", "[", "]", "{", "}", ",", ":", "\n", "def", "if", "lambda", "*", "**", "numb_param", "numb_queue", "'a'", "@", "\\", "\x00", "import", "from", "as"])).map(" ".join))  # fmt: skip
def test_nothing_but_a_config_error_comes_out(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    """Whatever stands in the file, it is read or named."""
    scene = Scene(tmp_path_factory.getbasetemp())
    scene.script.write_bytes(text if isinstance(text, bytes) else text.encode(errors="replace"))
    message = None
    try:
        read(scene.script)
    except ConfigError as error:
        message = str(error)

    assert message is None or message.startswith(f"{scene.script}:")
