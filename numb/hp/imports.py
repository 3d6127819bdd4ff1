"""Which files of a project a script imports, by its import statements; dynamic imports are not seen."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from numb.hp.reading import Source, nodes_at

Module: TypeAlias = tuple[str, ...]  # the parts of its name


def reached(scripts: Sequence[Path], files: Iterable[Path], imported: Callable[[Path], Iterable[Module]]) -> set[str]:
    """The real paths of *scripts* and of those *files* that they import, directly or not, as *imported* says of each.

    A module is taken for every file whose path ends with its name, for where a package begins is not known.
    """
    by_name: dict[str, list[Module]] = {}
    paths: dict[Module, Path] = {}
    for path in files:
        parts = Path(os.path.realpath(path)).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        paths[parts] = path
        by_name.setdefault(parts[-1], []).append(parts)
    found: set[str] = set()
    waiting = list(scripts)
    while waiting:
        path = waiting.pop()
        real = os.path.realpath(path)
        if real in found:
            continue
        found.add(real)
        for module in imported(path):
            waiting += [paths[parts] for parts in by_name.get(module[-1], ()) if parts[-len(module) :] == module]
    return found


def modules(source: Source, path: Path) -> Iterator[Module]:
    """The modules that one file may import, wherever in it, and the packages on the way; a name in a package may be one.

    Raises `ConfigError` for what is not Python.
    """
    here = Path(os.path.realpath(path)).parts
    lines = [number for number, line in enumerate(source.lines, 1) if "import" in line]
    for node in nodes_at(source.understood(), lines):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _prefixes(tuple(alias.name.split(".")))
            case ast.ImportFrom(module=module, names=names, level=level):
                base = here[: len(here) - level] if level else ()
                parts = (*base, *(module.split(".") if module else ()))
                yield from _prefixes(parts)
                for alias in names:
                    yield (*parts, alias.name)


def _prefixes(parts: Module) -> Iterator[Module]:
    for length in range(len(parts), 0, -1):
        yield parts[:length]
