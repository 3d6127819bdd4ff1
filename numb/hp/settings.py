"""Values from outside a script, put together: files, the environment, a queue and the command line, each checked.

The order in which they count is that of `Level`. What comes out is what the script is to get, before it starts.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numb import record
from numb.errors import ConfigError, HyperparameterError, UnknownHyperparameter, Usage
from numb.hp import coerce, formats, tree
from numb.hp.occurrence import Level
from numb.hp.source import Script
from numb.hp.table import Hyperparameter, Kind, Table
from numb.hp.values import NOT_LITERAL, Absent

PREFIX = "NUMB_HP_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that was given, by which name, at which level, and where."""

    name: str  # as it was given: a hyperparameter's, or one inside of a dictionary
    value: Any
    level: Level
    origin: str  # "lr=0.1", "base.yaml:3", "NUMB_HP_LR"
    text: str | None = None  # as which it was given, if it was
    limits: Mapping[str, Any] | None = None  # to be checked when the script runs, where only that tells the type


@dataclass(frozen=True, slots=True)
class Row:
    """A hyperparameter with the value that it would have, and what was given for it, the last most."""

    known: Hyperparameter
    value: Any
    given: tuple[Setting, ...] = ()

    @property
    def counting(self) -> tuple[Setting, ...]:
        """What makes the value: of what was given, that which nothing later replaces."""
        found: list[Setting] = []
        for each in reversed(self.given):
            if not any(later.name == each.name or later.name in tree.ancestors(each.name) for later in found):
                found.append(each)
        return tuple(reversed(found))

    @property
    def name(self) -> str:
        return self.known.name


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was given, in the order in which it counts, the last most, for the hyperparameters of a table."""

    table: Table
    given: tuple[Setting, ...] = ()

    def values(self) -> dict[str, Any]:
        """What was given, each thing once: a hyperparameter, or something inside of one that is a dictionary."""
        found: dict[str, Any] = {}
        for setting in self.given:
            name, inside = self._inside(setting.name, found)
            if not inside:
                found = {other: value for other, value in found.items() if not other.startswith(f"{name}.")}
                found[name] = setting.value
            elif name in found:
                found[name] = tree.replaced(
                    found[name] if isinstance(found[name], Mapping) else {}, {inside: setting.value}
                )
            else:
                found[setting.name] = setting.value
        return copy.deepcopy(found)

    def applied(self) -> dict[str, Any]:
        """What each hyperparameter that was given would be, if the source's default is what the script has."""
        values = self.values()
        names = {self._split(name)[0] for name in values}
        return tree.delivered({name: self.table.default(name) for name in names}, values)

    def check(self) -> None:
        """What nobody has set must do without. Raises `HyperparameterError` for what is required, and for an unfit default."""
        given = {self._split(each.name)[0] for each in self.given}
        for each in self.table if self.table.is_evident else ():
            if not each.reached or each.name in given or Kind.CALL not in each.kinds:
                continue
            if each.hints.get("required") is True:
                raise HyperparameterError(
                    f"{each.name} is required ({each.places[0]})", f"numb train {each.name}=VALUE"
                )
            check_default(each, each.default)

    def of(self, name: str) -> list[Setting]:
        """What was given for one hyperparameter, the one that counts most last."""
        return [setting for setting in self.given if self._split(setting.name)[0] == name]

    def rows(self) -> list[Row]:
        """Every hyperparameter of the table with the value that it would have."""
        values = self.applied()
        more = [Hyperparameter(name, ()) for name in values if name not in self.table.known]
        return [
            Row(each, values.get(each.name, each.default), tuple(self.of(each.name))) for each in (*self.table, *more)
        ]

    def levels(self) -> dict[str, Level]:
        """The level of each hyperparameter that was given, and of each name by which it was."""
        return {name: each.level for each in self.given for name in (self._split(each.name)[0], each.name)}

    def untyped(self) -> dict[str, dict[str, Any]]:
        """Of the names whose type only the running script can tell, the text that was given, and what limits it."""
        found: dict[str, dict[str, Any]] = {}
        for each in self.given:
            if above := next((name for name in tree.ancestors(each.name) if name in found), None):
                found[above] = {**found[above], "text": None}  # it is in the value of what it lies in
                continue
            found = {name: how for name, how in found.items() if not f"{name}.".startswith(f"{each.name}.")}
            if each.limits is not None:
                found[each.name] = {
                    "text": each.text,
                    "limits": record.encode(dict(each.limits), each.name, literals=True),
                }
        return found

    def origins(self) -> dict[str, str]:
        """What has set each hyperparameter that was given."""
        return {self._split(each.name)[0]: each.origin for each in self.given}

    def _inside(self, name: str, found: Mapping[str, Any]) -> tuple[str, str]:
        """The same as `_split`, and for a name that no source has, one that was given before and that it lies in."""
        if name not in self.table.known and (
            above := next((each for each in tree.ancestors(name) if each in found), None)
        ):
            return above, name[len(above) + 1 :]
        return self._split(name)

    def _split(self, name: str) -> tuple[str, str]:
        try:
            found, inside = self.table.find(name)
        except UnknownHyperparameter:
            return name, ""
        return found.name, inside


def gather(
    table: Table,
    *,
    files: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    queue: Mapping[str, Any] | None = None,
    origin: str = "the queue",
    words: Sequence[str] = (),
    named: str | None = None,
) -> Settings:
    """Everything that was given, checked against the table.

    *files* are `FILE` or `PREFIX=FILE`, *words* `NAME=VALUE`; *environment* is looked through for `NUMB_HP_…`. Raises
    `UnknownHyperparameter` with the nearest names, `HyperparameterError` for a value that does not fit, `Usage` for a word
    that is none, `ConfigError` for a file that cannot be understood.
    """
    given = [
        *_from_files(table, files, named),
        *_from_environment(table, environment or {}),
        *_from_nested(table, queue or {}, "", Level.QUEUE, {}, origin),
        *(_from_word(table, word) for word in words),
    ]
    return Settings(table, tuple(given))


def _from_word(table: Table, word: str) -> Setting:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise Usage(f"{word} is no setting", "NAME=VALUE, such as lr=0.1; arguments of the script come after --")
    return _from_text(table, name.strip(), text, Level.COMMAND, word)


def _from_environment(table: Table, environment: Mapping[str, str]) -> Iterator[Setting]:
    for variable, text in sorted(environment.items()):
        if variable.startswith(PREFIX):
            yield _from_text(table, _meant(variable[len(PREFIX) :], table), text, Level.ENVIRONMENT, variable)


def _meant(name: str, table: Table) -> str:
    """The hyperparameter of a variable, which can have no dots (two underscores stand for one) and is often in capitals."""
    dotted = name.replace("__", ".")
    if name in table.known or dotted in table.known:
        return name if name in table.known else dotted
    inside = (
        f"{each.name}.{key}" for each in table if isinstance(each.default, dict) for key in record.flat(each.default)
    )
    names = {*table.known, *inside}
    folded = [known for known in names if known.casefold() in (name.casefold(), dotted.casefold())]
    return folded[0] if len(folded) == 1 else dotted


def _from_files(table: Table, files: Iterable[str], named: str | None) -> Iterator[Setting]:
    for word in files:
        prefix, path = file_of(word)
        try:
            nested, places = formats.load(path, named)
        except FileNotFoundError:
            raise Usage(f"there is no file {path}", "-c FILE, or -c PREFIX=FILE") from None
        below = f"{prefix}." if prefix else ""
        known = {f"{below}{name}": place for name, place in places.items()}
        yield from _from_nested(table, nested, prefix, Level.FILE, known, str(path))


def _from_nested(
    table: Table, nested: Mapping[str, Any], prefix: str, level: Level, places: Mapping[str, str], origin: str
) -> Iterator[Setting]:
    seen: dict[str, str] = {}
    for name, value in _leaves(nested, prefix, table):
        place = next((places[each] for each in (name, *tree.ancestors(name)) if each in places), origin)
        for other in (name, *tree.ancestors(name), *(each for each in seen if each.startswith(f"{name}."))):
            if other in seen:  # `opt.lr: 1` beside `opt: {lr: 2}`
                raise ConfigError(f"{_at(place)}{name} is there twice, first as {other} in {seen[other] or 'the same'}")
        seen[name] = place
        yield _from_value(table, name, value, level, place)


def file_of(word: str) -> tuple[str, Path]:
    """What `FILE` or `PREFIX=FILE` means: the prefix, and the file."""
    prefix, equals, path = word.partition("=")
    return (prefix, Path(path)) if equals and not Path(word).exists() else ("", Path(word))


def _leaves(nested: Mapping[str, Any], prefix: str, table: Table) -> Iterator[tuple[str, Any]]:
    """The values of a nested file by the names of the table.

    Keys of a dictionary that is a default replace these and leave the rest. A whole dictionary is one that is marked, the
    description of an object, and one whose keys are no names.
    """
    if prefix and _is_one_value(nested, prefix, table):
        yield prefix, {inner: item for inner, item in nested.items() if inner != tree.IS_DICT}
        return
    for key, value in nested.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict):
            yield from _leaves(value, name, table)
        else:
            yield name, value


def _is_one_value(nested: Mapping[Any, Any], name: str, table: Table) -> bool:
    if not nested or nested.get(tree.IS_DICT) or tree.BUILD in nested:
        return True
    try:
        found, inside = table.find(name)
    except UnknownHyperparameter:
        return False  # a branch, with hyperparameters below it
    default, _ = _expected(found, inside)
    if default is NOT_LITERAL or not all(isinstance(key, str) and key and "." not in key for key in nested):
        return default is not NOT_LITERAL
    return not isinstance(default, dict) or not default


def _from_text(table: Table, name: str, text: str, level: Level, origin: str) -> Setting:
    return replace(_fitting(table, name, text, level, origin, coerce.from_text), text=text)


def _from_value(table: Table, name: str, value: Any, level: Level, origin: str) -> Setting:
    return _fitting(table, name, value, level, origin, coerce.from_value)


def _fitting(
    table: Table, name: str, given: Any, level: Level, origin: str, fit: Callable[[Any, Any, dict[str, Any]], Any]
) -> Setting:
    """The setting, made to fit its hyperparameter. Raises `HyperparameterError` where it does not."""
    found, inside = _find(table, name, origin)
    default, hints = _expected(found, inside)
    try:
        value = fit(given, default, hints)
        coerce.check(value, hints, default)
    except coerce.Unfit as error:
        where = origin if origin.startswith(f"{name}=") else f"{_at(origin)}{name}"
        raise HyperparameterError(f"{where}: {error}", f"numb hp --why {found.name}" if found else None) from None
    is_typed = default is not NOT_LITERAL or "type" in hints
    return Setting(name, value, level, origin, limits=None if is_typed else coerce.limits(hints))


def check_default(found: Hyperparameter, value: Any) -> None:
    """Raise `HyperparameterError` for the *value* that a hyperparameter has when nobody sets it, outside of its own limits."""
    try:
        if not isinstance(value, Absent):
            coerce.check(value, found.hints, value)
    except coerce.Unfit as error:
        raise HyperparameterError(f"{found.places[0]}: the default of {found.name}: {error}") from None


def _find(table: Table, name: str, origin: str) -> tuple[Hyperparameter | None, str]:
    try:
        found, inside = table.find(name)
    except UnknownHyperparameter as error:
        if table.may_have(name):
            return None, ""  # what the script says when it runs will have to do
        raise UnknownHyperparameter(f"{_at(origin)}{error}", error.hint) from None
    if (not found.reached or not found.settable) and table.may_have(name):
        return None, ""  # what other files call so, or what is only registered, may be something else where it is set
    if not found.settable:
        raise HyperparameterError(
            f"{_at(origin)}{name} is only registered ({found.places[0]}), so another value would change nothing",
            "call numb_queue() below its assignment, or use what numb_param returns",
        )
    return found, inside


def _expected(found: Hyperparameter | None, inside: str) -> tuple[Any, dict[str, Any]]:
    """The default that says the type, and the hints that say the limits."""
    if found is None:
        return NOT_LITERAL, {}
    if not inside:
        return found.default, found.hints
    default: Any = found.default
    for key in inside.split("."):
        if not isinstance(default, dict) or key not in default:
            return NOT_LITERAL, {}
        default = default[key]
    return default, {}


def _at(origin: str) -> str:
    return f"{origin}: " if origin else ""


def refuse_late(script: Script, table: Table, names: Collection[str]) -> None:
    """Raise `ConfigError` for an assignment that would overwrite what `numb_queue()` has set, naming its line."""
    by_param = returned(table)
    for item in script.late:
        if item.name in names and item.name not in by_param:
            raise ConfigError(
                f"{os.path.basename(item.file)}:{item.line}: {item.name} is assigned below numb_queue() "
                f"(line {script.queue_line}), which would overwrite the value that is set",
                f"put numb_queue() below line {item.line}",
            )


def elsewhere(table: Table) -> list[str]:
    """The names that `numb_queue` does not set in a module: calls ask for them, or `numb_param` gives them back."""
    return [each.name for each in table if each.reached and Kind.ASSIGNMENT not in each.kinds]


def returned(table: Table, names: Iterable[str] = ()) -> list[str]:
    """The names that only `numb_param` can give the script; of *names* those that it may know when it runs."""
    only = [each.name for each in table if set(each.kinds) == {Kind.PARAM} and each.settable]
    return only + [name for name in names if table.takes_any and name not in table.known]
