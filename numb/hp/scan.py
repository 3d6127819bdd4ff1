"""Find the calls of a placeholder, `_("lr", 1e-3)`, in a source; nothing of it is executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from numb.errors import (
    ArgumentCountException,
    ConfigError,
    HyperparameterError,
    NotLiteralEvaluable,
    NotLiteralNameException,
)
from numb.hp import RESERVED, ROOMS
from numb.hp.occurrence import Level, Occurrence
from numb.hp.reading import Source, nodes_at
from numb.hp.tree import check_name
from numb.hp.values import EMPTY, NOT_LITERAL, literal

PACKAGE = "numb.hp"


def occurrences(
    source: Source, placeholder: str | None = None, refused: list[HyperparameterError] | None = None
) -> list[tuple[str, Occurrence]]:
    """Every call of a placeholder with its placeholder's name, in the order of lines.

    Placeholders are the names that are imported from `numb.hp`, under any alias, and those assigned from them at module
    level. Where the source binds *placeholder* in no way, its calls count too: a source need not be a whole module.
    Raises what `_occurrence` raises, unless there is a list of what is *refused*, and `SyntaxError`.
    """
    if placeholder is None and PACKAGE not in (source.notebook or source).text:
        return []
    tree = source.tree
    names = _notebook_names(source.notebook, placeholder) if source.notebook else _names(source, tree, placeholder)
    calls = [node for node in nodes_at(tree, _lines_with(source, names)) if isinstance(node, ast.Call)]
    found = [(names[node.func.id], node) for node in calls if isinstance(node.func, ast.Name) and node.func.id in names]
    found.sort(key=lambda item: (item[1].lineno, item[1].col_offset))
    if refused is not None:
        refused += _called_rooms(source, tree)
    rows = []
    for meant, node in found:
        try:
            rows.append((meant, _occurrence(source, node, refused)))
        except HyperparameterError as error:
            if refused is None:
                raise
            refused.append(error)
    return rows


@lru_cache(maxsize=4)  # for one cell after the other
def _notebook_names(notebook: Source, placeholder: str | None) -> dict[str, str]:
    try:
        return _names(notebook, notebook.tree, placeholder)
    except (SyntaxError, ConfigError):  # which the cell that it is in will say
        return {}


def _names(source: Source, tree: ast.Module, placeholder: str | None) -> dict[str, str]:
    """The names by which placeholders go in this source, and their own."""
    names = _imported(source, tree)
    if placeholder is not None:
        names = {name: meant for name, meant in names.items() if meant == placeholder}
        if not names and not _binds(tree, placeholder):
            names = {placeholder: placeholder}
    for statement in tree.body if names else ():
        match statement:
            case ast.Assign(targets=targets, value=ast.Name(id=name)) if name in names:
                names |= {target.id: names[name] for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=alias), value=ast.Name(id=name)) if name in names:
                names[alias] = names[name]
    return names


def _imported(source: Source, tree: ast.Module) -> dict[str, str]:
    return {alias: name for alias, name in _from_package(source, tree) if name not in RESERVED}


def _from_package(source: Source, tree: ast.Module) -> Iterator[tuple[str, str]]:
    if PACKAGE not in source.text:
        return
    lines = [number for number, line in enumerate(source.lines, 1) if PACKAGE in line]
    for node in nodes_at(tree, lines):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE and not node.level:
            yield from ((each.asname or each.name, each.name) for each in node.names)


def _called_rooms(source: Source, tree: ast.Module) -> Iterator[HyperparameterError]:
    """An error for each call of a module of `numb.hp`: its name is taken, so that it is no placeholder."""
    rooms = {alias: name for alias, name in _from_package(source, tree) if name in ROOMS}
    for node in nodes_at(tree, _lines_with(source, rooms)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in rooms:
            where = f"{source.file}:{node.lineno}:{_column(source, node)}"
            name = rooms[node.func.id]
            yield HyperparameterError(
                f"{where}: {name} is a module of {PACKAGE}, and no placeholder", f"from {PACKAGE} import _"
            )


def _binds(tree: ast.Module, name: str) -> bool:
    """Whether a module gives *name* a meaning of its own: gettext's `_`, a function of that name."""
    for node in ast.walk(tree):
        match node:
            case ast.alias(name=imported, asname=alias) if (alias or imported.partition(".")[0]) == name:
                return True
            case ast.FunctionDef(name=bound) | ast.AsyncFunctionDef(name=bound) | ast.ClassDef(name=bound):
                if bound == name:
                    return True
            case ast.Assign(targets=targets):
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return True
            case ast.AnnAssign(target=ast.Name(id=bound)) if bound == name:
                return True
            case ast.Attribute(value=ast.Name(id="gettext"), attr="install") if name == "_":
                return True
    return False


def _lines_with(source: Source, names: Iterable[str]) -> list[int]:
    """The numbers of the lines where one of *names* may be called, in order: most lines need not be looked at."""
    words = "|".join(map(re.escape, names))
    if not words:
        return []
    starts = [match.start() for match in re.finditer(rf"(?<![\w.])(?:{words})(?:[\s\\)]|#[^\n]*\n)*\(", source.text)]
    found, line, at = [], 1, 0
    for start in starts:
        line += source.text.count("\n", at, start)
        at = start
        found.append(line)
    return found


def _occurrence(source: Source, node: ast.Call, refused: list[HyperparameterError] | None) -> Occurrence:
    """What one call says; where there is a list of what is *refused*, without a hint that goes there.

    Raises `ArgumentCountException`, `NotLiteralNameException`, `NotLiteralEvaluable` for a hint, `HyperparameterError` for a
    name that is none; each names `file:line:column` and shows that line of the source.
    """
    column = _column(source, node)
    where, snippet = f"{source.file}:{node.lineno}:{column}", source.at(node.lineno).strip()
    keywords = list(_keywords(node, source, where))
    named = [value for keyword, value in keywords if keyword == "hp_value"]
    count = len(node.args) + len(named)
    if not node.args or count > 2:
        raise ArgumentCountException(
            f"{where}: number of positional args should be in range [1, 2], (was {count if node.args else 0} args): {snippet}"
        )
    name = node.args[0]
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        raise NotLiteralNameException(f"{where}: hp-name should be literal-string: {snippet}")
    default = next(iter((*node.args[1:], *named)), None)
    hints: dict[str, Any] = {}
    for keyword, value in keywords:
        try:
            hints |= {keyword: _hint(keyword, value, source)} if keyword != "hp_value" else {}
        except NotLiteralEvaluable as error:
            if refused is None:
                raise
            refused.append(error)
    return Occurrence(
        check_name(name.value, f"{where}: "),
        EMPTY if default is None else literal(default),
        Level.SOURCE,
        source.file,
        node.lineno,
        column,
        hints,
        snippet,
        default,
        source,
    )


def _keywords(node: ast.Call, source: Source, where: str) -> Iterator[tuple[str, ast.expr]]:
    for keyword in node.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
        elif isinstance(keyword.value, ast.Dict):
            for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                    raise _no_hint("**", keyword.value, source)
                yield key.value, value
        else:
            raise _no_hint("**", keyword.value, source)


def _hint(keyword: str, value: ast.expr, source: Source) -> Any:
    found = literal(value)
    if found is NOT_LITERAL:
        raise _no_hint(keyword, value, source)
    return found


def _no_hint(keyword: str, value: ast.expr, source: Source) -> NotLiteralEvaluable:
    where = f"{source.file}:{value.lineno}:{_column(source, value)}"
    return NotLiteralEvaluable(
        f"{where}: Value of hint keyword `{keyword}` is not literal evaluable\n{source.around(value.lineno)}",
        'a constant, such as type="int"' if keyword == "type" else None,
    )


def _column(source: Source, node: ast.expr) -> int:
    """In characters, from 1; Python counts bytes, from 0."""
    return len(source.at(node.lineno).encode()[: node.col_offset].decode(errors="replace")) + 1


def merged(hints: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The hints of all occurrences of one hyperparameter; where two say different things, the first counts."""
    together: dict[str, Any] = {}
    for each in hints:
        for keyword, value in (each or {}).items():
            together.setdefault(keyword, value)
    return together
