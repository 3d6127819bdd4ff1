"""Every hyperparameter of a project in one table: what it is called, its value, its hints, and where it stands.

Three kinds are in it: calls of a placeholder (`_("lr", 1e-3)`), module-level assignments above `numb_queue()`, and the keys of
the dictionary given to `numb_param()` or `numb.start()`. What was read is kept in a file, so that an unchanged source is not
read again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from numb import atomic, record
from numb.errors import ConfigError, HyperparameterError, NumbError, UnknownHyperparameter
from numb.hp import imports, reading, scan, source
from numb.hp.occurrence import Occurrence
from numb.hp.tree import BUILD, ancestors
from numb.hp.values import EMPTY, NOT_LITERAL, Absent

VERSION = 5  # of what is kept
_HOOK = re.compile(r"\bnumb_(queue|param)\b|\bstart\(")


class Kind(Enum):
    """How a hyperparameter is written."""

    CALL = "call"
    ASSIGNMENT = "assignment"
    PARAM = "numb_param"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a hyperparameter stands, and what stands there."""

    file: str
    line: int
    kind: Kind
    value: Any  # EMPTY without a default, NOT_LITERAL where only running could tell
    hints: Mapping[str, Any] = field(default_factory=dict)
    placeholder: str | None = None
    settable: bool = True  # whether the script would compute with another value

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One name, and every place of it: those that the script imports first, in the order of files and lines."""

    name: str
    places: tuple[Place, ...]
    reached: int = 0  # how many of them are in the script, and in what it imports

    @property
    def used(self) -> tuple[Place, ...]:
        """The places that say what it is: the script's own, where it has any."""
        return self.places[: self.reached] or self.places

    @property
    def settable(self) -> bool:
        """Whether the script would compute with another value."""
        return any(place.settable for place in self.used)

    @property
    def place(self) -> Place | None:
        """Where its default stands: at a call or an assignment before `numb_param`, as a constant before what is computed."""
        known = [place for place in self.used if place.value is not EMPTY]
        used = [place for place in known if place.kind is not Kind.PARAM and place.value is not NOT_LITERAL]
        literal = [place for place in known if place.value is not NOT_LITERAL]
        return next(iter((*used, *literal, *known)), None)

    @property
    def default(self) -> Any:
        """The value that it has when nobody sets it."""
        return self.place.value if self.place else EMPTY

    @property
    def hints(self) -> dict[str, Any]:
        return scan.merged(place.hints for place in self.used)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(dict.fromkeys(place.kind for place in self.used))

    @property
    def type(self) -> str:
        """The name of its type, which decides how a value from the shell is read."""
        told = self.hints.get("type")
        if isinstance(told, str):
            return told
        if self.default is EMPTY:
            return "-"
        return "?" if self.default is NOT_LITERAL else type(self.default).__name__


@dataclass(frozen=True, slots=True)
class Table:
    """The hyperparameters by name, and what could not be read, a line each."""

    known: Mapping[str, Hyperparameter]
    problems: tuple[str, ...] = ()
    is_evident: bool = True  # which script the command runs
    opaque: bool = False  # there are more, which only running the script could tell
    takes_any: bool = False  # and `numb_param` gives the script what is set of these
    also: frozenset[str] = frozenset()  # names that `numb_queue` finds, or that a run has had

    def __iter__(self) -> Iterator[Hyperparameter]:
        return iter(self.known.values())

    def to_json(self, set_by: Mapping[str, Mapping[str, str]]) -> str:
        """What is kept with a run: each hyperparameter with its default and its places, and what had set it, if anything."""
        rows = []
        for each in self:
            value = {} if isinstance(each.default, Absent) else {"default": record.encode(each.default, literals=True)}
            where = [{"file": place.file, "line": place.line, "kind": place.kind.value} for place in each.places]
            hints = {"hints": record.encode(each.hints, literals=True)} if each.hints else {}
            told = {"set_by": set_by[each.name]} if each.name in set_by else {}
            rows.append({"name": each.name, **value, "type": each.type, **hints, "places": where, **told})
        return record.dumps({"format": record.FORMAT, "hyperparameters": rows}, indent=1) + "\n"

    def assigned(self) -> dict[str, list[str]]:
        """By file, the names that it assigns above its `numb_queue()`."""
        found: dict[str, list[str]] = {}
        for each in self:
            for place in each.places:
                if place.kind is Kind.ASSIGNMENT:
                    found.setdefault(place.file, []).append(each.name)
        return found

    def may_have(self, name: str) -> bool:
        """Whether a name that is not in the table may be one of the script's nevertheless, or inside of one."""
        for above in ancestors(name):
            if above in self.known:
                return self.known[above].default is NOT_LITERAL
        return not self.known or self.opaque or not self.also.isdisjoint((name, *ancestors(name)))

    def default(self, name: str) -> Any:
        """The value of a hyperparameter that nobody sets; `NOT_LITERAL` for one that is not in the table."""
        return self.known[name].default if name in self.known else NOT_LITERAL

    def find(self, name: str) -> tuple[Hyperparameter, str]:
        """The hyperparameter that *name* sets, and what is left of the name: a path inside of a dictionary.

        Raises `UnknownHyperparameter` with the nearest names.
        """
        if name in self.known:
            return self.known[name], ""
        for above in ancestors(name):
            found = self.known.get(above)
            if found is not None and isinstance(found.default, dict):
                inside = name[len(above) + 1 :]
                if _takes(found.default, inside):
                    return found, inside
                raise unknown(name, [f"{above}.{key}" for key in record.flat(found.default)], len(above) + 1)
        raise unknown(name, self.known)


def _takes(value: Any, path: str) -> bool:
    """Whether *path* names something in a dictionary that is a default; the description of an object takes more keys."""
    key, _, rest = path.partition(".")
    if not isinstance(value, dict) or (key not in value and (rest or BUILD not in value)):
        return False
    return not rest or _takes(value[key], rest)


def around(root: Path, place: Place, context: int = 5) -> str:
    """The lines of the source around a place, nothing where they cannot be read."""
    file = place.file.partition(f"{reading.NOTEBOOK}:")[0]
    path = root / (place.file if file == place.file else f"{file}{reading.NOTEBOOK}")
    with contextlib.suppress(OSError, NumbError):
        for each in reading.read(path):
            if each.file.endswith(place.file.rpartition(os.sep)[2]):
                return each.around(place.line, context)
    return ""


def unknown(name: str, known: Iterable[str], common: int = 0) -> UnknownHyperparameter:
    """The error for a name that is nowhere, with the names that are most like it beyond what they have in *common*."""
    import difflib

    names = sorted(known)
    folded = {each[common:].casefold(): each for each in names}
    near = [folded[each] for each in difflib.get_close_matches(name[common:].casefold(), folded, 3, 0.5)]
    last = name.rpartition(".")[2]
    near += [each for each in names if each.rpartition(".")[2] == last and each not in near]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"the script has {record.some(names) or 'none'}"
    return UnknownHyperparameter(f"the script has no hyperparameter {name}", hint)


def read(scripts: Sequence[Path], others: Iterable[Path], root: Path, cache: Path | None = None) -> Table:
    """The table of a project: of its *scripts*, whose defaults come first, and of its other files.

    Without a script, because it is not evident what the command runs, there may be more. Paths are shown from *root*. A file
    that cannot be read becomes a problem, and what it holds is not known. Where *cache* can be written, unchanged files are
    not read the next time.
    """
    kept = _Kept(cache)
    known: dict[str, list[Place]] = {}
    counts: dict[str, int] = {}  # of places in what the scripts import
    problems: list[str] = []
    inside: list[_File] = []  # of the scripts and what they import
    wanted = {os.path.realpath(path): path for path in (*others, *scripts)}
    main = {os.path.realpath(path) for path in scripts}
    reach = imports.reached(main, wanted, kept.imports) if main else set(wanted)
    for real, path in sorted(wanted.items(), key=lambda item: (item[0] not in main, item[0] not in reach, item[0])):
        shown = _from(root, path)
        try:
            found = kept.found(path)
        except FileNotFoundError:
            continue
        except NumbError as error:
            problems.append(str(error).replace(str(path), shown, 1))
            continue
        problems += [problem.replace(str(path), shown, 1) for problem in found.problems]
        inside += [found] if real in reach else []
        for name, place in found.rows:
            known.setdefault(name, []).append(replace(place, file=place.file.replace(str(path), shown, 1)))
            counts[name] = counts.get(name, 0) + (real in reach)
    kept.write()
    together = {name: Hyperparameter(name, tuple(known[name]), counts[name]) for name in known}
    return Table(
        together,
        (*problems, *_contradictions(together)),
        bool(scripts),
        not scripts or any(each.opaque for each in inside),
        any(each.takes_any for each in inside),
        frozenset[str]().union(*(each.bound for each in inside)),
    )


def _contradictions(known: Mapping[str, Hyperparameter]) -> Iterator[str]:
    """Places of one name that have different values: what a script computes with then depends on which comes last."""
    for each in known.values():
        places = [place for place in each.used if place.kind is not Kind.PARAM and place.value is not EMPTY]
        calls = [place for place in places if place.kind is Kind.CALL]
        names = {place.placeholder for place in calls}  # placeholders of different names know nothing of each other
        if len(names) == 1 and any(repr(place.value) != repr(calls[0].value) for place in places):
            yield f"{each.name} has different defaults: {', '.join(map(str, places))}"
        for above in ancestors(each.name):
            leaf = known.get(above)
            if leaf and Kind.CALL in (*leaf.kinds, *each.kinds) and leaf.default is not EMPTY:
                yield f"`{above}` is both a leaf and a tree: {each.name} lies below it ({leaf.used[0]}, {each.used[0]})"


def _from(root: Path, path: Path) -> str:
    shown = os.path.relpath(path, root)
    return str(path) if shown.startswith(f"..{os.sep}") else shown


@dataclass(frozen=True, slots=True)
class _File:
    """What one file holds, and what in it cannot be."""

    rows: tuple[tuple[str, Place], ...] = ()
    problems: tuple[str, ...] = ()
    opaque: bool = False
    takes_any: bool = False
    bound: tuple[str, ...] = ()
    imported: tuple[imports.Module, ...] | None = None  # unless nobody has asked

    @classmethod
    def read(cls, path: Path, *, is_reached: bool) -> _File:
        """Raises `FileNotFoundError`, and `ConfigError` for what is not text. A cell of a notebook may be wrong by itself."""
        found: list[tuple[str, Place]] = []
        refused: list[HyperparameterError] = []
        broken: list[str] = []
        imported: list[imports.Module] = []
        script = source.Script((), None, ())
        for each in reading.read(path):
            try:
                calls = scan.occurrences(each, refused=refused)
                found += [(row.name, _place_of(row, placeholder)) for placeholder, row in calls]
                if path.suffix != reading.NOTEBOOK and _HOOK.search(each.text):
                    script = source.of(each)
                    found += [(item.name, _place_found(item)) for item in script.found]
                imported += imports.modules(each, path) if is_reached else ()
            except SyntaxError as error:
                broken.append(f"{each.file}:{error.lineno or 1}: {error.msg}")
            except ConfigError as error:
                broken.append(str(error))
        return cls(
            tuple(sorted(found, key=lambda item: (item[1].file, item[1].line))),
            (*broken, *map(_in_one_line, refused)),
            script.opaque or bool(broken),
            script.takes_any,
            tuple(sorted(script.bound)),
            tuple(dict.fromkeys(imported)) if is_reached else None,
        )

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> _File:
        """Raises `KeyError`, `TypeError` and `ValueError` for what is not of `to_json`."""
        imported = kept["imported"]
        return cls(
            tuple(_decoded(row) for row in kept["rows"]),
            tuple(map(str, kept["problems"])),
            bool(kept["opaque"]),
            bool(kept["takes_any"]),
            tuple(map(str, kept["bound"])),
            None if imported is None else tuple(tuple(map(str, module)) for module in imported),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [_encoded(name, place) for name, place in self.rows],
            "problems": list(self.problems),
            "opaque": self.opaque,
            "takes_any": self.takes_any,
            "bound": list(self.bound),
            "imported": None if self.imported is None else [list(module) for module in self.imported],
        }


def _in_one_line(error: HyperparameterError) -> str:
    """Without the lines of the source around it."""
    return "; ".join([str(error).splitlines()[0], *([error.hint] if error.hint else [])])


def _place_of(row: Occurrence, placeholder: str) -> Place:
    return Place(row.file or "", row.line or 0, Kind.CALL, row.value, row.hints or {}, placeholder)


def _place_found(item: source.Found) -> Place:
    return Place(item.file, item.line, Kind(item.how), item.value, settable=item.settable)


class _Kept:
    """What was found in files before, by what `stat` says of them. A damaged file is made anew."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._before = self._read()
        self._now: dict[str, Any] = {}
        self._read_now: dict[Path, _File] = {}

    def imports(self, path: Path) -> tuple[imports.Module, ...]:
        """What *path* imports; nothing where that cannot be read."""
        try:
            return self.found(path, is_reached=True).imported or ()
        except (OSError, NumbError):
            return ()

    def found(self, path: Path, *, is_reached: bool = False) -> _File:
        """What *path* holds, read only if it has changed; what it imports, too, if it *is_reached*.

        Raises `FileNotFoundError`, `ConfigError`.
        """
        if (read := self._read_now.get(path)) and (read.imported is not None or not is_reached):
            return read
        status = path.stat()
        stamp = [VERSION, status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._before.get(str(path))
        found = None
        try:
            if known and known["stamp"] == stamp:
                found = _File.from_json(known)
                self._now[str(path)] = known
        except (KeyError, TypeError, ValueError, SyntaxError):
            pass  # not what numb wrote
        if found is None or (is_reached and found.imported is None):
            found = _File.read(path, is_reached=is_reached)
            self._now[str(path)] = {"stamp": stamp, **found.to_json()}
        self._read_now[path] = found
        return found

    def write(self) -> None:
        if self._file is not None and self._now != self._before:
            with contextlib.suppress(NumbError):  # a disk that is full or read-only: it is only read again
                atomic.write(self._file, record.dumps(self._now))

    def _read(self) -> dict[str, Any]:
        try:
            return record.loads(self._file.read_bytes()) if self._file else {}
        except (OSError, ValueError):
            return {}


def _encoded(name: str, place: Place) -> list[Any]:
    hints = {keyword: _value_encoded(value) for keyword, value in place.hints.items()}
    return [
        name,
        place.file,
        place.line,
        place.kind.value,
        _value_encoded(place.value),
        hints,
        place.placeholder,
        place.settable,
    ]


def _decoded(row: Sequence[Any]) -> tuple[str, Place]:
    name, file, line, kind, value, hints, placeholder, settable = row
    decoded = {keyword: _value_decoded(item) for keyword, item in hints.items()}
    return name, Place(file, line, Kind(kind), _value_decoded(value), decoded, placeholder, bool(settable))


def _value_encoded(value: Any) -> list[Any]:
    return [value.name] if isinstance(value, Absent) else ["value", record.encode(value, literals=True)]


def _value_decoded(pair: Sequence[Any]) -> Any:
    match pair:
        case ["value", value]:
            return record.decode(value)
        case [str(name)]:
            return Absent[name]
    raise ValueError(pair)
