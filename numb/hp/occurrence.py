"""One place where a hyperparameter gets or asks for a value, and a list of them to be asked.

The queries are those of a small table: predicates made by `L` are put together and given to `select` and its like.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from numb.hp.values import EMPTY

if TYPE_CHECKING:
    import ast

    from numb.hp.reading import Source


class Level(IntEnum):
    """Where a value comes from; the highest that there is counts, whenever it came."""

    SOURCE = 1  # the default in the source, as it is read
    CALL = 2  # the default that a call in the running script gives
    FILE = 3
    ENVIRONMENT = 4
    QUEUE = 5
    COMMAND = 6
    SET = 7  # `set_value` in the code

    @property
    def text(self) -> str:
        """As a person calls it."""
        return _LEVELS[self]


_LEVELS = {
    Level.SOURCE: "source default",
    Level.CALL: "call default",
    Level.FILE: "file",
    Level.ENVIRONMENT: "environment",
    Level.QUEUE: "queue",
    Level.COMMAND: "command line",
    Level.SET: "set_value",
}


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A hyperparameter at one place. Fields can be read as attributes and as items."""

    name: str
    value: Any = EMPTY  # or NOT_LITERAL, where only running the script could tell
    level: Level = Level.SOURCE
    file: str | None = None
    line: int | None = None  # of the beginning of the call, from 1
    column: int | None = None  # in characters, from 1
    hints: Mapping[str, Any] | None = None  # None for what was not read from a source
    snippet: str = ""  # that line of the source
    node: ast.expr | None = None  # the default's, None without one and where it was not parsed just now
    source: Source | None = field(default=None, repr=False, compare=False)

    @property
    def has_default_value(self) -> bool:
        return self.value is not EMPTY

    @property
    def value_priority(self) -> int:
        """Ten times the level; one less without a value, which counts below any other of its level."""
        return 10 * self.level - (not self.has_default_value)

    @property
    def place(self) -> str:
        """`file:line`, or nothing for what happened at run time."""
        return f"{self.file}:{self.line}" if self.file is not None else ""

    def __getitem__(self, field: str) -> Any:
        try:
            return getattr(self, field)
        except AttributeError:
            raise KeyError(field) from None

    def keys(self) -> tuple[str, ...]:
        return tuple(each.name for each in fields(self))


Row: TypeAlias = Any  # an `Occurrence`, or a mapping that `choose_columns` has made of one
Predicate: TypeAlias = Callable[[Row], Any]


class Occurrences(Sequence[Row]):
    """A list of occurrences. What selects returns a new list; only `apply` changes this one."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Occurrences: ...
    def __getitem__(self, index: int | slice) -> Any:
        return Occurrences(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __eq__(self, other: object) -> bool:
        return self._rows == list(other) if isinstance(other, (Occurrences, list)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Occurrences({self._rows!r})"

    def where(self, predicate: Predicate | None = None, /, **equal: Any) -> Occurrences:
        """Those that *predicate* is true of and whose fields are *equal*: `occurrences.where(name="lr").first()`."""
        chosen = (row for row in self._rows if predicate is None or predicate(row))
        return Occurrences(row for row in chosen if all(row[field] == value for field, value in equal.items()))

    select = where

    def first(self) -> Row | None:
        return self._rows[0] if self._rows else None

    def find_first(self, predicate: Predicate) -> Row | None:
        return next(filter(predicate, self._rows), None)

    def any(self, predicate: Predicate) -> bool:
        return any(map(predicate, self._rows))

    def all(self, predicate: Predicate) -> bool:
        return all(map(predicate, self._rows))

    def empty(self) -> bool:
        return not self._rows

    def count(self, predicate: Any = None) -> int:
        return len(self._rows) if predicate is None else sum(1 for row in self._rows if predicate(row))

    def indexing(self, index: int | Sequence[int]) -> Any:
        """The row at *index*, or the rows at several. Raises `IndexError` for what is no index."""
        if isinstance(index, int):
            return self._rows[index]
        if isinstance(index, str) or not all(isinstance(number, int) for number in index):
            raise IndexError(f"{index!r} is neither a number nor a list of numbers")
        return Occurrences(self._rows[number] for number in index)

    def extract_column(self, column: str) -> list[Any]:
        return [row[column] for row in self._rows]

    def choose_columns(self, *columns: str) -> Occurrences:
        return Occurrences({column: row[column] for column in columns} for row in self._rows)

    def group_by(self, column: str) -> dict[Any, Occurrences]:
        """By value of a column, in the order in which they appear; values that cannot be keys go by their text."""
        groups: dict[Any, Occurrences] = {}
        for row in self._rows:
            value = row[column]
            try:
                hash(value)
            except TypeError:
                value = repr(value)
            groups.setdefault(value, Occurrences())._rows.append(row)
        return groups

    def sorted(self, key: Callable[[Row], Any], *, reverse: bool = False) -> Occurrences:
        return Occurrences(sorted(self._rows, key=key, reverse=reverse))

    def apply(self, change: Callable[[Row], Row]) -> Occurrences:
        """Replace each row by what *change* makes of it, here; returns this list."""
        self._rows[:] = map(change, self._rows)
        return self

    def reduce(self, function: Callable[[Any, Row], Any], *initial: Any) -> Any:
        """Fold from the left. Raises `ValueError` for an empty list without an initial value."""
        if not self._rows and not initial:
            raise ValueError("nothing to reduce, and no initial value")
        return functools.reduce(function, self._rows, *initial)

    def copy(self) -> Occurrences:
        return Occurrences(self._rows)


class L:
    """Predicates and keys for the queries: `occurrences.select(L.land(L.of_value(2), L.of_name_prefix("opt.")))`."""

    @staticmethod
    def has_default_value(row: Row) -> bool:
        return row["value"] is not EMPTY

    @staticmethod
    def value_priority(row: Row) -> int:
        return 10 * int(row["level"]) - (row["value"] is EMPTY)

    @staticmethod
    def exist_attr(field: str) -> Predicate:
        return lambda row: field in tuple(row.keys())

    @staticmethod
    def of_name(name: str) -> Predicate:
        return lambda row: row["name"] == name

    @staticmethod
    def of_name_prefix(prefix: str) -> Predicate:
        return lambda row: row["name"].startswith(prefix)

    @staticmethod
    def of_name_suffix(suffix: str) -> Predicate:
        return lambda row: row["name"].endswith(suffix)

    @staticmethod
    def of_value(value: Any) -> Predicate:
        return lambda row: row["value"] == value

    @staticmethod
    def of_level(level: Level) -> Predicate:
        return lambda row: row["level"] == level

    of_priority = of_level

    @staticmethod
    def order_by(field: str) -> Callable[[Row], Any]:
        return lambda row: row[field]

    @staticmethod
    def apply_column(field: str, change: Callable[[Any], Any]) -> Callable[[Row], Row]:
        """A function for `apply` that changes one field."""
        return lambda row: {**{name: row[name] for name in tuple(row.keys())}, field: change(row[field])}

    @staticmethod
    def land(*predicates: Predicate) -> Predicate:
        return lambda row: all(predicate(row) for predicate in predicates)

    @staticmethod
    def lor(*predicates: Predicate) -> Predicate:
        return lambda row: any(predicate(row) for predicate in predicates)

    @staticmethod
    def lnot(predicate: Predicate) -> Predicate:
        return lambda row: not predicate(row)
