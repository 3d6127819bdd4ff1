"""Sources as Python reads them: files with any coding cookie, the cells of notebooks, and folders of both."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import tokenize
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from numb.errors import ConfigError

NOTEBOOK = ".ipynb"
_NEWLINE = re.compile(r"\r\n?")
# `%time f()`, `!ls`, `?f`; `x = !ls`, `x = %time f()`; `f??`
_MAGIC = re.compile(r"(\s*)(?:%{1,2}[A-Za-z]|[!?]|[\w.,\s]+=\s*(?:!|%[A-Za-z])|%?[\w.]+\?{1,2}\s*$)")
_PYTHON_CELLS = ("%%time", "%%capture", "%%prun")


@dataclass(frozen=True)
class Source:
    """One text of Python: a file, or a cell of a notebook, whose name is then `FILE:cell N`."""

    file: str
    text: str
    notebook: Source | None = None  # all cells together: names that one has imported hold in the others

    def __post_init__(self) -> None:
        if "\r" in self.text:  # what Python takes for the end of a line
            object.__setattr__(self, "text", _NEWLINE.sub("\n", self.text))

    @cached_property
    def lines(self) -> list[str]:
        return self.text.removesuffix("\n").split("\n")  # not `splitlines`: for Python a form feed ends no line

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree. Raises `SyntaxError` as Python does, and `ConfigError` for what no Python can be."""
        if "\0" in self.text:  # for which the error of Python, another one in each version, has no file and line
            raise ConfigError(f"{self.file}:{self._line(self.text.index(chr(0)))}: null bytes are no text")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # running the script will show them
                return ast.parse(self.text, self.file)
        except UnicodeEncodeError as error:
            raise ConfigError(f"{self.file}:{self._line(error.start)}: half of a surrogate pair is no text") from None
        except (RecursionError, MemoryError):
            raise ConfigError(f"{self.file}:1: nested too deeply to be read") from None

    def understood(self) -> ast.Module:
        """The syntax tree, where every mistake in it is a `ConfigError` with file and line."""
        try:
            return self.tree
        except SyntaxError as error:
            raise ConfigError(f"{self.file}:{error.lineno or 1}: {error.msg}") from None

    def _line(self, index: int) -> int:
        return self.text.count("\n", 0, index) + 1

    def around(self, line: int, context: int = 5) -> str:
        """The lines around one, with numbers, and an arrow at it."""
        first, last = max(1, line - context), min(len(self.lines), line + context)
        width = len(str(last))
        return "\n".join(
            f"{'==> ' if number == line else '    '}{number:>{width}}: {self.lines[number - 1]}"
            for number in range(first, last + 1)
        )

    def at(self, line: int) -> str:
        return self.lines[line - 1] if 0 < line <= len(self.lines) else ""


def nodes_at(tree: ast.Module, lines: Sequence[int]) -> Iterator[ast.AST]:
    """The nodes of every statement that has one of *lines* in it; other statements are not gone into."""
    stack: list[ast.AST] = list(tree.body) if lines else []
    while stack:
        node = stack.pop()
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            at = bisect_left(lines, first)
            if at == len(lines) or lines[at] > (node.end_lineno or first):
                continue
        yield node
        stack.extend(ast.iter_child_nodes(node))


def read(path: Path) -> list[Source]:
    """The sources in one file. Raises `FileNotFoundError`, and `ConfigError` naming the file for what is not text."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return cells(content, str(path)) if path.suffix == NOTEBOOK else [Source(str(path), decoded(content, str(path)))]


def decoded(content: bytes, file: str) -> str:
    """The text, by its coding cookie or byte order mark, else UTF-8. Raises `ConfigError`."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        return io.TextIOWrapper(io.BytesIO(content), encoding).read()
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise ConfigError(f"{file}:1: {error}") from None


def cells(content: bytes, file: str) -> list[Source]:
    """The code cells of a notebook; lines that only IPython knows (`%time`, `!ls`, `x?`) do nothing."""
    try:
        notebook = json.loads(content)
        if notebook.get("metadata", {}).get("language_info", {}).get("name", "python") not in ("python", "ipython"):
            return []
        found = [cell.get("source", "") for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file}:1: not a notebook: {error!r:.60}") from None
    texts = [_without_magics("".join(map(str, text)) if isinstance(text, list) else str(text)) for text in found]
    together = Source(file, "\n".join(filter(_is_python, texts)))
    return [Source(f"{file}:cell {number}", text, together) for number, text in enumerate(texts, 1)]


def _is_python(text: str) -> bool:
    try:
        Source("", text).understood()
    except ConfigError:
        return False
    return True


def _without_magics(text: str) -> str:
    if _is_python(text):
        return text  # a line of Python can begin with % as well: inside of brackets or of a string
    if text.lstrip().startswith("%%") and not text.lstrip().startswith(_PYTHON_CELLS):
        return ""  # a cell of another language
    lines = Source("", text).lines
    for number, line in enumerate(lines):
        if not (magic := _MAGIC.match(line)):
            continue
        lines[number] = f"{magic[1]}pass"  # so that a block with nothing else in it stays one
        while line.endswith("\\") and number + 1 < len(lines):
            number, line = number + 1, lines[number + 1]
            lines[number] = ""
    return "\n".join(lines)


def files_in(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that *paths* name: files as they are, folders with every `.py` and notebook in them, hidden ones left out.

    Each file once, however often and by whatever name it is given. Raises `FileNotFoundError` for a path that is not there.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: dict[str, Path] = {}
    for each in map(Path, given):
        if not each.exists():
            raise FileNotFoundError(2, "there is no such file or folder", str(each))
        for path in sorted(_below(each)) if each.is_dir() else [each]:
            found.setdefault(os.path.realpath(path), path)
    return sorted(found.values())


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):  # not through links: behind one may be all the data
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in names:
            if name.endswith((".py", NOTEBOOK)) and not name.startswith("."):
                yield Path(where, name)
