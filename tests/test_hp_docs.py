"""The page on hyperparameters: every snippet of it runs and does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Done, Scene, furnish

PAGE = (Path(__file__).parent.parent / "docs" / "hyperparameters.md").read_text()


def block(language: str, beginning: str) -> str:
    found = [text for kind, text in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.S) if kind == language]
    (one,) = [text for text in found if text.startswith(beginning)]
    return one


TAKEN = (
    "# train.py", "# base.yaml", "[{", "$ numb hp\n", "$ numb train width=4", "$ numb train widht=4", "# parsed.py", "# own.py",
    "$ python own.py", "# clicked.py", "# tool.py",
)  # fmt: skip


def test_every_block_of_the_page_is_run() -> None:
    """A snippet that is added is one that a test takes."""
    blocks = [text for _, text in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.S)]
    assert [] == [text for text in blocks if not text.startswith(TAKEN)] and len(blocks) == len(TAKEN)


@pytest.fixture
def page(empty: Scene) -> Scene:
    """The script and the files of the page."""
    furnish(empty, {"train.py": block("python", "# train.py")})
    empty.write("base.yaml", block("yaml", "# base.yaml"))
    empty.write("sweep.json", block("json", "[{"))
    return empty


def typed(scene: Scene, line: str) -> Done:
    """What a line of a console block does."""
    before, _, words = line.removeprefix("$ ").partition("numb ")
    return scene.numb(words, env=dict(pair.split("=", 1) for pair in before.split()))


@pytest.mark.usefixtures("warm_training")
def test_the_settings_of_the_page(page: Scene) -> None:
    """Each command line of the page trains with the values that it sets."""
    lines = block("console", "$ numb train width=4").splitlines()

    printed = [typed(page, line).stdout for line in lines]

    assert ["3 4 0.1 gelu\n", "3 2 0.01 relu\n", "2 8 0.001 relu\n", "3 16 0.1 relu\n"] == printed[:4]
    assert "1 3 0.1 relu\n1 5 0.2 relu\n" == printed[4]
    widths = [run["params"]["width"] for run in page.runs()]
    assert [4, 2, 8, 16, 3, 5] == widths
    assert "torch.optim.Adam" == page.runs()[2]["params"]["opt"]["$build"]


def test_the_looks_of_the_page(page: Scene) -> None:
    """Each way to look prints every hyperparameter, and runs nothing."""
    for line in block("console", "$ numb hp\n").splitlines():
        done = typed(page, line)
        names = ("width",) if line.endswith("width") else ("epochs", "opt", "width", "act")
        assert 0 == done.code and all(name in done.stdout for name in names), done.stderr
    assert [] == page.runs()


def test_the_mistakes_of_the_page(page: Scene) -> None:
    """What the page shows to be refused is refused in these words, before anything runs."""
    shown = block("console", "$ numb train widht=4")
    for typing, said in re.findall(r"(\$ .*)\n((?:(?!\$).*\n)+)", shown):
        done = typed(page, typing)
        assert (2, "", said) == (done.code, done.stdout, done.stderr)
    assert [] == page.runs()


def test_the_manager_of_the_page(tmp_path: Path) -> None:
    """The program on the manager's interface holds what it asserts."""
    program = tmp_path / "tool.py"
    program.write_text(block("python", "# tool.py"))
    subprocess.run(
        [sys.executable, str(program)], check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    )


def test_the_parser_of_the_page(empty: Scene) -> None:
    """What numb sets and what the script's own option sets is the same, and is the run's."""
    furnish(empty, {"train.py": block("python", "# parsed.py")})
    assert ["0.1\n", "0.5\n", "0.5\n"] == [
        empty.numb(f"train {words}").stdout for words in ("", "lr=0.5", "-- --lr 0.5")
    ]
    assert [0.1, 0.5, 0.5] == [run["params"].get("lr") for run in empty.runs()]


def test_the_command_lines_of_the_page(tmp_path: Path) -> None:
    """Both programs with options of their own take them, save them and load them, without numb."""
    for name in ("own.py", "clicked.py"):
        (tmp_path / name).write_text(block("python", f"# {name}"))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}

    def typed(words: str) -> str:
        command = [sys.executable, *words.split()[1:]]
        return subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout

    lines = [line.removeprefix("$ ") for line in block("console", "$ python own.py").splitlines()]
    printed = [typed(line) for line in lines]

    assert ["0.5 16 True 0.5\n", "", "0.25 8 False 0.25\n"] == printed[:3]
    assert "lr: 0.1\nnet:\n  width: 8\ndebug: false\n" == printed[3]
    assert "0.7\n" == typed("python clicked.py --lr 0.7")
