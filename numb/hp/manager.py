"""The manager behind a placeholder: `from numb.hp import _`, then `lr = _("lr", 1e-3)` where the value is used.

A hyperparameter may have several values; that of the highest `Level` counts, whatever came first. Reading sources, asking
and setting are this module; what was set from outside of a running script comes by `numb.hp.runtime`.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from numb.errors import DoubleAssignmentException, HyperparameterError, ImpossibleTree, UnknownHyperparameter
from numb.hp import tree
from numb.hp.occurrence import Level, Occurrence, Occurrences
from numb.hp.values import EMPTY, NOT_LITERAL

if TYPE_CHECKING:
    from numb.hp.reading import Source

_CHANGEABLE = (list, dict, set)
_SIMPLE = (int, float, str, bool)


class Manager:
    """The hyperparameters of one placeholder.

    Source defaults come from `parse_file` and `parse_source`, call defaults from calling it, and others from the setters.
    After an error it is as it was before.
    """

    def __init__(self, placeholder: str = "_", *, allow_equal_defaults: bool = False) -> None:
        self.placeholder = placeholder
        self.allow_equal_defaults = allow_equal_defaults
        self._lock = threading.RLock()
        _everyone.add(self)
        self._rows: list[Occurrence] = []
        self._at: dict[str, list[int]] = {}  # name to where its rows are
        self._known: dict[str, tuple[Any, Any]] = {}  # name to a default, by identity, and what a call with it returns
        self._changeable: dict[
            str, tuple[Any, Any]
        ] = {}  # the same for lists and their like: each call returns one of its own
        self._outside: dict[str, tuple[Level, Any]] | None = (
            None  # what was set from outside, once it has been asked for
        )

    def __repr__(self) -> str:
        return f"<hyperparameters of {self.placeholder}: {len(self._at)}>"

    # -- in a script

    def __call__(self, hp_name: str, /, hp_value: Any = EMPTY, **hints: Any) -> Any:
        """The value of a hyperparameter: the default given here, unless something of a higher level has set another.

        *hints* (`help`, `choices`, `min`, `max`, …) are for whoever reads the source; here they cost nothing. Raises
        `UnknownHyperparameter`, a `KeyError`, without any value.
        """
        known = self._known.get(hp_name)
        if known is not None and (known[0] is hp_value or hp_value is EMPTY):
            return known[1]
        return self._called(hp_name, hp_value)

    def _called(self, name: str, default: Any) -> Any:
        known = self._known.get(name)
        if known is not None and _is_same_number(known[0], default):  # that of a call that computes it anew each time
            return default if known[1] is known[0] else known[1]
        with self._lock:
            return self._first_called(name, default)

    def _first_called(self, name: str, default: Any) -> Any:
        from numb.hp import runtime

        again = self._changeable.get(name)
        if again is not None and _equal(again[0], default):  # a list is made anew by each call of `_("sizes", [1, 2])`
            return default if again[1] is again[0] else _copied(again[1])
        if name not in self._at:
            tree.check_name(name)
        self._bring(name, default)
        own = default
        if isinstance(default, _CHANGEABLE):
            own = _copied(default)  # what the script does to its list is nobody else's
        if default is not EMPTY:
            self._check(name, default, Level.CALL)
            self._put(Occurrence(name, own, Level.CALL))
        value = self._value(name)
        runtime.tell(name, value, called=True)
        if not isinstance(value, _CHANGEABLE):
            self._known[name] = (default, value)
            return value
        self._changeable[name] = (own, value)
        return default if value is own else _copied(value)

    def _bring(self, name: str, default: Any = EMPTY) -> None:
        """Let what was set from outside of the script count for this name, and for what lies below it."""
        from numb.hp import runtime

        if self._outside is None:
            self._outside = runtime.outside()
        wanted = [other for other in self._outside if f"{other}.".startswith(f"{name}.")]
        of_type = runtime.fitted(name, default) if wanted and default is not EMPTY else {}
        for other in wanted:
            level, value = self._outside.pop(other)
            value = of_type.get(other, value)
            self._check(other, value, level, outside=True)
            self._put(Occurrence(other, value, level))

    # -- reading sources

    def parse_source(self, source: str, filename: str = "<unknown>") -> Manager:
        """Find the hyperparameters in one text of Python. Raises what `parse_file` does."""
        from numb.hp.reading import Source

        self._parse([Source(filename, source)])
        return self

    def parse_file(self, path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Manager:
        """Find the hyperparameters in a file, in every `.py` and notebook below a folder, or in a list of both.

        Raises `FileNotFoundError`, `SyntaxError`, `ConfigError` for what is not text, and the errors of a source that says what
        cannot be: `NotLiteralNameException`, `NotLiteralEvaluable`, `ArgumentCountException`, `DoubleAssignmentException`,
        `ImpossibleTree`. Then nothing of it has been taken.
        """
        from numb.hp import reading

        self._parse([source for file in reading.files_in(path) for source in reading.read(file)])
        return self

    def _parse(self, sources: Iterable[Source]) -> None:
        from numb.hp import scan

        rows = [row for source in sources for _, row in scan.occurrences(source, self.placeholder)]
        check([row for row in self._rows if row.level is Level.SOURCE] + rows, self.allow_equal_defaults)
        for row in rows:
            if row.has_default_value:
                self._check(row.name, row.value, Level.SOURCE, row.place)
        for row in rows:
            self._add(row)

    # -- asking

    def get_value(self, name: str, raise_exception: bool = True) -> Any:
        """The value that counts; of a branch the nested dictionary. Without one `UnknownHyperparameter`, or `EMPTY`."""
        with self._lock:
            return self._get(name, raise_exception)

    def _get(self, name: str, raise_exception: bool) -> Any:
        from numb.hp import runtime

        value = self._value(name, raise_exception)
        for leaf in [name] if name in self._at else self._below(name):
            if self._levels(leaf) and (used := self._value(leaf)) is not NOT_LITERAL:
                runtime.tell(leaf, used, called=False)
        return _copied(value) if isinstance(value, _CHANGEABLE) else value

    def _value(self, name: str, raise_exception: bool = True) -> Any:
        self._bring(name)
        below = {other[len(name) + 1 :]: other for other in self._below(name) if self._levels(other)}
        if levels := self._levels(name):
            value = self._own(name)
            counting = (path for path, other in below.items() if max(self._levels(other)) >= max(levels))
            inside = sorted(counting, key=lambda path: path.count("."))
            return tree.replaced(value, {path: self._own(below[path]) for path in inside}) if inside else value
        if below:
            own = {path: other for path, other in below.items() if not self._is_override(other)}
            return tree.expand({path: self._value(other) for path, other in own.items()})
        if raise_exception:
            raise UnknownHyperparameter(
                f"`{name}` not found", f'_("{name}", DEFAULT) where it is asked for first, or set_value before'
            )
        return EMPTY

    def exists(self, name: str) -> bool:
        """Whether there is a value of that name, or of one below it."""
        return self._value(name, raise_exception=False) is not EMPTY

    def get_values(self) -> dict[str, Any]:
        """Every value that counts, by its full name, in the order in which the names appeared."""
        for name in list(self._at):
            self._bring(name)
        names = [name for name in self._at if self._levels(name)]
        return {name: self.get_value(name) for name in names if not self._is_override(name)}

    def get_tree(self, prefix: str = "", annotate_dict: bool = False) -> dict[str, Any]:
        """The values below *prefix* as a nested dictionary, `{}` if there are none.

        With *annotate_dict* dictionaries that are values are marked by the key `__is_dict__`, which `set_tree` understands.
        Raises `ImpossibleTree` for a leaf that is no dictionary.
        """
        values = self.get_values()
        if prefix and prefix in values:
            if not isinstance(values[prefix], Mapping):
                raise ImpossibleTree(f"`{prefix}` is a leaf, not a tree")
            return dict(values[prefix])
        start = f"{prefix}." if prefix else ""
        chosen = {name[len(start) :]: value for name, value in values.items() if name.startswith(start)}
        return tree.expand(chosen, annotate=annotate_dict)

    @property
    def occurrences(self) -> Occurrences:
        """Every occurrence, in the order in which they came: `_.occurrences.where(name="lr").first()`."""
        return Occurrences(self._rows)

    db = occurrences

    def get_nodes(self) -> dict[str, Occurrences]:
        """The occurrences by name."""
        return {name: Occurrences(self._rows[at] for at in places) for name, places in self._at.items()}

    def get_occurrence(self, name: str) -> Occurrence | None:
        """The occurrence whose value counts; None for a branch, and for what is not there."""
        self._bring(name)
        return self._rows[self._top(name)] if name in self._at else None

    def get_hints(self, name: str) -> dict[str, Any]:
        """The hints of all places together."""
        from numb.hp.scan import merged

        return merged(self._rows[at].hints for at in self._at.get(name, ()))

    # -- setting

    def set_value(self, name: str, value: Any, *, level: Level = Level.SET) -> Manager:
        """Give a hyperparameter a value that goes before every default. `EMPTY` changes nothing."""
        return self.set_values({name: value}, level=level)

    def set_values(self, values: Mapping[str, Any], *, level: Level = Level.SET) -> Manager:
        """Set several by their full names. Raises `ImpossibleTree`, and `HyperparameterError` for no name, having set none."""
        with self._lock:
            before = self._state()
            try:
                for name, value in values.items():
                    self._check_set(name)
                    if value is not EMPTY:
                        self._check(name, value, level)
                    self._put(Occurrence(name, value, level))
            except HyperparameterError:
                self._restore(before)
                raise
        return self

    def set_tree(self, nested: Mapping[str, Any], prefix: str = "", *, level: Level = Level.SET) -> Manager:
        """Set what a nested dictionary says, below *prefix*."""
        if not isinstance(prefix, str):
            raise TypeError(f"the prefix is a {type(prefix).__name__}, not a string")
        return self.set_values(tree.leaves(nested, prefix), level=level)

    def _check_set(self, name: str) -> None:
        """A name, or a path into a dictionary, whose keys are not names."""
        known = isinstance(name, str) and next((above for above in tree.ancestors(name) if self._levels(above)), "")
        if not known or not all(name[len(known) + 1 :].split(".")):
            tree.check_name(name)

    def _check(self, name: str, value: Any, level: Level, place: str = "", *, outside: bool = False) -> None:
        """Raise `ImpossibleTree` if a name with that value, and another below or above it, would be both a leaf and a tree.

        Only inside of a dictionary that is a default something may be set; from *outside*, also of one that was set there.
        """
        place = place or level.text
        for below in self._below(name):
            levels = self._levels(below)
            if levels and not _overrides(below[len(name) + 1 :], levels, value, [level], outside):
                raise _impossible(name, below, f"{place}, {self._place(below)}")
        for above in tree.ancestors(name):
            levels = self._levels(above)
            if levels and not _overrides(name[len(above) + 1 :], [level], self._own(above), levels, outside):
                raise _impossible(above, name, f"{self._place(above)}, {place}")

    # -- rows

    def _put(self, row: Occurrence) -> None:
        """Add what happened at run time; of each level a name has one row with a value and one without."""
        places = self._at.get(row.name, ())
        at = next((at for at in places if self._rows[at].value_priority == row.value_priority), None)
        if at is None or row.level is Level.SOURCE:
            self._add(row)
        else:
            self._rows[at] = row
            self._forget(row.name)

    def _add(self, row: Occurrence) -> None:
        self._at.setdefault(row.name, []).append(len(self._rows))
        self._rows.append(row)
        self._forget(row.name)

    def _forget(self, name: str) -> None:
        """What calls return may be another value from now on."""
        self._known.pop(name, None)
        self._changeable.pop(name, None)
        for above in tree.ancestors(name):
            self._known.pop(above, None)
            self._changeable.pop(above, None)

    def _top(self, name: str) -> int:
        return max(self._at[name], key=lambda at: self._rows[at].value_priority)

    def _own(self, name: str) -> Any:
        return self._rows[self._top_with_value(name)].value

    def _top_with_value(self, name: str) -> int:
        places = [at for at in self._at[name] if self._rows[at].has_default_value]
        return max(places, key=lambda at: self._rows[at].level)

    def _levels(self, name: str) -> list[Level]:
        """The levels at which it has a value."""
        return [self._rows[at].level for at in self._at.get(name, ()) if self._rows[at].has_default_value]

    def _below(self, name: str) -> list[str]:
        start = f"{name}."
        return [other for other in self._at if other.startswith(start)]

    def _is_override(self, name: str) -> bool:
        """Whether this replaces something inside of a dictionary that is a default."""
        return any(self._levels(above) for above in tree.ancestors(name))

    def _place(self, name: str) -> str:
        row = self._rows[self._top_with_value(name)]
        return row.place or row.level.text

    def _state(self) -> tuple[Any, ...]:
        return list(self._rows), {name: list(at) for name, at in self._at.items()}

    def _restore(self, state: tuple[Any, ...]) -> None:
        self._rows, self._at = state
        self._known.clear()
        self._changeable.clear()


def check(rows: Iterable[Occurrence], allow_equal: bool = False) -> None:
    """What sources say together must be possible.

    Raises `DoubleAssignmentException` for a second default of a name, and `ImpossibleTree` for one that is a leaf and a tree.
    """
    first: dict[str, Occurrence] = {}
    names: dict[str, Occurrence] = {}
    for row in rows:
        names.setdefault(row.name, row)
        if not row.has_default_value:
            continue
        earlier = first.setdefault(row.name, row)
        if earlier is not row and not (allow_equal and _identical(earlier.value, row.value)):
            raise DoubleAssignmentException("\n".join(_twice(earlier, row)))
    for name, row in names.items():
        for above in tree.ancestors(name):
            if above in first:
                raise _impossible(above, name, f"{first[above].place}, {row.place}")


def _twice(one: Occurrence, other: Occurrence) -> Iterator[str]:
    yield "Duplicated default values:"
    for title, row in (("First occurrence:", one), ("Second occurrence:", other)):
        yield title
        yield row.place
        if row.source is not None and row.line is not None:
            yield row.source.around(row.line)


def _identical(one: Any, other: Any) -> bool:
    """Whether two literals are the same, type for type: True is not 1."""
    return one is not NOT_LITERAL and other is not NOT_LITERAL and repr(one) == repr(other)


def _copied(value: Any) -> Any:
    """A list of the caller's own; the same one where what is in it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except Exception:  # whatever the script has put into it: a file, a lock
        return value


def _is_same_number(one: Any, other: Any) -> bool:
    return type(one) is type(other) and type(one) in _SIMPLE and bool(one == other) and one != 0  # 0.0 is not -0.0


def _equal(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and type(one) in (list, tuple, dict, set) and bool(one == other)
    except (TypeError, ValueError, RuntimeError):  # of arrays and tensors inside one cannot say
        return False


def _overrides(path: str, levels: list[Level], value: Any, its: list[Level], outside: bool) -> bool:
    """Whether what has *levels* replaces something inside of *value*, and is no hyperparameter of its own."""
    return min(levels) > Level.CALL and (outside or max(its) <= Level.CALL) and tree.is_inside(path, value)


def _impossible(leaf: str, below: str, places: str) -> ImpossibleTree:
    return ImpossibleTree(f"`{leaf}` is both a leaf and a tree: {below} lies below it ({places})")


_managers: dict[str, Manager] = {}
_everyone: WeakSet[Manager] = WeakSet()


def forget_told() -> None:
    """Another run begins in this process: what is asked for from now on is told again."""
    for manager in list(_everyone):
        with manager._lock:
            manager._known, manager._changeable = {}, {}


def named(placeholder: str) -> Manager:
    """The manager that `from numb.hp import placeholder` gives, the same everywhere in this process."""
    if not placeholder.isidentifier():
        raise HyperparameterError(f"{placeholder!r} is no name for hyperparameters")
    return _managers.setdefault(placeholder, Manager(placeholder))
