"""Which files of a project a script imports, by reading their import statements; dynamic imports are not seen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]*)", re.M)
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([^\n#;]*)", re.M)


def reached(scripts: Sequence[Path], files: Iterable[Path]) -> set[str]:
    """The real paths of *scripts* and of those *files* that they import, directly or not.

    A module is taken for every file whose path ends with its name, for where a package begins is not known.
    """
    by_name: dict[str, list[tuple[str, ...]]] = {}
    paths: dict[tuple[str, ...], str] = {}
    for path in files:
        real = os.path.realpath(path)
        parts = Path(real).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        paths[parts] = real
        by_name.setdefault(parts[-1], []).append(parts)
    found: set[str] = set()
    waiting = [os.path.realpath(script) for script in scripts]
    while waiting:
        real = waiting.pop()
        if real in found:
            continue
        found.add(real)
        for module in _imported(Path(real)):
            last = module[-1]
            waiting += [paths[parts] for parts in by_name.get(last, ()) if parts[-len(module) :] == module]
    return found


def _imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules that one file may import, as their names' parts; a name imported from a package may be one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for dots, module, names in _FROM.findall(text):
        base = path.parts[1 : len(path.parts) - len(dots)] if dots else ()
        parts = (*base, *filter(None, module.split(".")))
        yield from _prefixes(parts)
        for name in re.findall(r"(\w+)(?:[ \t]+as[ \t]+\w+)?", names):
            yield (*parts, name)
    for names in _IMPORT.findall(text):
        for name in names.split(","):
            yield from _prefixes(tuple(re.findall(r"\w+", name.partition(" as ")[0])))


def _prefixes(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The module itself and the packages that are imported on the way to it."""
    for length in range(len(parts), 0, -1):
        yield parts[:length]
