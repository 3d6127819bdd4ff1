"""Which files of a project a script imports, by its import statements; dynamic imports are not seen."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from numb.hp.reading import Source, nodes_at

Module: TypeAlias = tuple[str, ...]  # the parts of its name


def reached(
    scripts: Iterable[str], files: Mapping[str, Path], imported: Callable[[Path], Iterable[Module]]
) -> set[str]:
    """Of *files*, by their real paths, *scripts* and those that they import, directly or not, as *imported* says of each.

    A module is taken for every file whose path ends with its name, for where a package begins is not known.
    """
    by_name: dict[str, list[tuple[Module, str]]] = {}
    for real in files:
        parts = tuple(os.path.splitext(real)[0].split(os.sep)[1:])
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        by_name.setdefault(parts[-1], []).append((parts, real))
    found: set[str] = set()
    waiting = list(scripts)
    while waiting:
        real = waiting.pop()
        if real in found:
            continue
        found.add(real)
        for module in imported(files[real]):
            waiting += [one for parts, one in by_name.get(module[-1], ()) if parts[-len(module) :] == module]
    return found


def modules(source: Source, path: Path) -> Iterator[Module]:
    """The modules that one file may import, wherever in it, and the packages on the way; a name in a package may be one.

    Raises `ConfigError` for what is not Python.
    """
    here = tuple(os.path.realpath(path).split(os.sep)[1:])
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
