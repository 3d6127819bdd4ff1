"""Options for hyperparameters in a program of the user's own: what `argparsing` and `clicking` have in common.

Each hyperparameter that has a value, or that the hint `required` asks for, gets `--num-layers`, also spelled `--num_layers`; a
name that is taken gets `--hp-num-layers`. Booleans are `--flag`, `--flag no` and `--no-flag`. The type is that of the
default, and the hints `choices`, `min`, `max`, `required` and `help` count. The actions, in the order in which they are done:

    --hp-load [PREFIX=]PATH              take values from a file; what is typed goes before them
    --hp-save PATH                       write every value to a file that --hp-load reads
    --hp-detail                          show each value, where it comes from, and where it stands in the source; end
    --hp-list [yaml|json|toml|detail]    show what --hp-save would write; end
    --hp-exit                            end
    --hp-format yaml|json|toml           of these files, whatever they are called

Files are YAML, JSON or TOML. They are never pickles, on purpose: to read one is to run what it says. A default that no such
file can hold is left out of it, and is there again when the script runs.

What numb has set from outside stays: a file that is loaded here does not replace it, and what is typed here goes before it
only by the order of `Level`. Two different values, one on either command line, are refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numb.errors import ConfigError, HyperparameterError, NumbError, Usage
from numb.hp import coerce, formats, runtime, settings
from numb.hp.manager import Manager
from numb.hp.occurrence import Level, Occurrence
from numb.hp.table import Hyperparameter, Kind, Place, Table, unknown
from numb.hp.values import EMPTY, NOT_LITERAL

ACTIONS = ("list", "save", "load", "detail", "exit")
FORMATS = ("yaml", "json", "toml")
LISTS = (*FORMATS, "detail")


@dataclass(frozen=True)
class Settable:
    """A hyperparameter with the options that set it."""

    found: Hyperparameter
    on: tuple[str, ...]  # the spellings; the first is shown
    off: tuple[str, ...]
    key: str  # what the program's own options are not called
    help: str

    @property
    def name(self) -> str:
        return self.found.name

    @cached_property
    def default(self) -> Any:
        return self.found.default

    @cached_property
    def hints(self) -> Mapping[str, Any]:
        return self.found.hints

    @cached_property
    def is_switch(self) -> bool:
        return self.found.type == "bool"

    @property
    def choices(self) -> list[Any] | None:
        return None if self.is_switch else coerce.choices(self.hints)

    @property
    def metavar(self) -> str:
        return "yes|no" if self.is_switch else self.name.rpartition(".")[2].upper()

    def read(self, text: str) -> Any:
        """The value that was typed. Raises `coerce.Unfit`; whether it is one of the choices is left open."""
        value = coerce.from_text(text, self.default, self.hints)
        hints = {keyword: hint for keyword, hint in self.hints.items() if keyword != "choices"}
        coerce.check(value, hints, self.default)
        return value


@dataclass(frozen=True)
class Action:
    """What `--hp-NAME` asks for."""

    name: str
    help: str
    value: str | None = None  # what it takes, if anything
    choices: tuple[str, ...] | None = None
    is_optional: bool = False  # whether it can do without that value


_ACTIONS = (
    Action("load", "take hyperparameters from this file; those typed go before", "PATH"),
    Action("save", "write every hyperparameter to this file", "PATH"),
    Action("detail", "show where every hyperparameter comes from, and end"),
    Action("list", "show every hyperparameter, and end", "FORMAT", LISTS, is_optional=True),
    Action("exit", "end when this is done"),
    Action("format", "of the files, whatever they are called", "FORMAT", FORMATS),
)


class Binding:
    """The hyperparameters of one manager as options, and what is done when they have been given."""

    def __init__(
        self, manager: Manager, actions: Collection[str], prefix: str, format: str | None, show_defaults: bool
    ) -> None:
        """Raises `Usage` for an action, a prefix or a format that there is not."""
        if strange := [name for name in actions if name not in ACTIONS]:
            raise Usage(f"there is no action {strange[0]!r}", f"some of {', '.join(ACTIONS)}")
        if not re.fullmatch(r"\w[\w-]*", prefix):
            raise Usage(f"{prefix!r} is no prefix of an option", 'one like "hp"')
        if format is not None and format not in FORMATS:
            raise Usage(f"{format!r} is no format", f"one of {', '.join(FORMATS)}; pickle is left out on purpose")
        self.manager = manager
        self.prefix = prefix
        self._format = format
        self._show_defaults = show_defaults
        wanted = {*actions, *(["format"] if {"list", "save", "load"} & {*actions} else [])}
        self.actions = tuple(action for action in _ACTIONS if action.name in wanted)
        self._outside = self._bring()

    def _bring(self) -> dict[str, tuple[Level, Any]]:
        """Let the manager have what was set from outside, before it is first called; options show these values."""
        nodes = self.manager.get_nodes()
        found = {
            name: (level, value)
            for name, (level, value) in runtime.outside().items()
            if name in nodes or any(name.startswith(f"{node}.") for node in nodes)
        }
        for name, (level, value) in found.items():
            self.manager.set_value(name, value, level=level)
        return found

    @property
    def table(self) -> Table:
        """What the manager knows, as settings are checked against."""
        nodes = self.manager.get_nodes()
        return Table({name: Hyperparameter(name, tuple(map(_place, rows))) for name, rows in nodes.items()})

    def settable(self, lead: str, options: Collection[str], keys: Collection[str] = ()) -> list[Settable]:
        """The hyperparameters, with options that begin with *lead* and are not among the program's own *options*.

        What the program's own are called, *keys*, is not the key of one either.
        """
        values = self.manager.get_values()
        wanted = [each for each in self.table if each.name in values or each.hints.get("required")]
        used = {*options, *(f"{lead}{self.prefix}-{action.name}" for action in self.actions)}
        spelled: dict[str, tuple[str, str]] = {}  # name to its first option and its key
        # A name that is free keeps it, so those come first.
        for each in sorted(wanted, key=lambda each: f"{lead}{each.name}" in used or each.name in keys):
            taken = {*keys, *(key for _, key in spelled.values())}
            spelled[each.name] = option, _ = next(
                (option, key)
                for option, key in self._spellings(lead, each.name)
                if option not in used and key not in taken
            )
            used.add(option)
        on = {name: _both(option, name, used) for name, (option, _) in spelled.items()}
        off = {each.name: _opposites(lead, on[each.name], used) for each in wanted if each.type == "bool"}
        return [
            Settable(each, on[each.name], off.get(each.name, ()), spelled[each.name][1], self._help(each))
            for each in wanted
        ]

    def _spellings(self, lead: str, name: str) -> Iterator[tuple[str, str]]:
        """The option and the key that a name could have, the best first."""
        option, key = name, name
        while True:
            yield f"{lead}{option}", key
            option, key = f"{self.prefix}-{option}", f"{self.prefix.replace('-', '_')}_{key}"

    def _help(self, each: Hyperparameter) -> str:
        kind = "" if each.type in ("-", "?") else f"{each.type} "
        text = str(each.hints.get("help") or f"{kind}hyperparameter")
        bounds = [
            f"{words} {each.hints[hint]}"
            for hint, words in (("min", "at least"), ("max", "at most"))
            if hint in each.hints
        ]
        if each.hints.get("required"):
            bounds.append("required")
        if self._show_defaults and (default := self._shown_default(each.name)):
            bounds.append(f"default: {default}")
        return f"{text} ({', '.join(bounds)})" if bounds else text

    def _shown_default(self, name: str) -> str:
        value = self.manager.get_value(name, raise_exception=False)
        if value is NOT_LITERAL:
            written = [row.node for row in self.manager.get_nodes()[name] if row.node is not None]
            return _short(ast.unparse(written[0])) if written else ""
        return "" if value is EMPTY else _short(repr(value))

    # -- once they have been given

    def settle(self, settable: list[Settable], typed: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
        """Give the manager what was loaded and *typed*, by name, and do the actions that were *asked* for.

        Returns what is to be shown before the program ends, None when it goes on. Raises `NumbError` for what cannot be; but
        for a file that cannot be written, the manager then is as it was.
        """
        table = self.table
        named = asked.get("format") or self._format
        target = Path(asked["save"]) if "save" in asked else None
        kind = formats.format_of(target, named) if target else ""
        loaded = self._loaded(table, asked.get("load", ()), named)
        self._check(settable, loaded, typed)
        self.manager.set_values(loaded, level=Level.FILE).set_values(typed, level=Level.COMMAND)
        if target:
            held = self._held(table, kind, is_strict=True)
            formats.save(target, held, kind, defaults={name: table.default(name) for name in held})
        shown = [self._detail()] if "detail" in asked else []
        if "list" in asked:
            shown.append(self._list(table, asked["list"] or named or "yaml"))
        return "\n".join(shown) if shown or "exit" in asked else None

    def _loaded(self, table: Table, files: Collection[str], named: str | None) -> dict[str, Any]:
        """What the files say, less what numb has set. Raises `NumbError` with file and line."""
        values = settings.gather(table, files=list(files), named=named).applied()
        if strange := [name for name in values if name not in table.known]:
            raise unknown(strange[0], table.known)
        return {name: value for name, value in values.items() if name not in self._outside}

    def _check(self, settable: list[Settable], loaded: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
        for each in settable:
            name = each.name
            if name in typed:
                level, value = self._outside.get(name, (None, None))
                if level is Level.COMMAND and repr(value) != repr(typed[name]):
                    raise HyperparameterError(
                        f"{each.on[0]}: {typed[name]!r} was typed here, and numb was told {name}={value!r}",
                        "say one of them",
                    )
            elif name not in loaded and not self._is_set(name):
                if each.hints.get("required"):
                    raise HyperparameterError(f"{each.on[0]} is required")
                settings.check_default(each.found, self.manager.get_value(name))

    def _is_set(self, name: str) -> bool:
        return any(row.has_default_value and row.level > Level.CALL for row in self.manager.get_nodes()[name])

    # -- files and what is shown

    def _held(self, table: Table, kind: str, *, is_strict: bool) -> dict[str, Any]:
        """The values as a file holds them, without defaults that none could.

        Where that is strict, a value that was set and could not be loaded again is a `ConfigError`.
        """
        held = {}
        for name, value in self.manager.get_values().items():
            found = table.known[name]
            plain = coerce.to_plain(value, found.default)
            try:
                if not formats.holds(kind, plain):
                    raise coerce.Unfit(f"no {kind} file can hold {_short(repr(value))}")
                coerce.check(coerce.from_value(plain, found.default, found.hints), found.hints, found.default)
                held[name] = plain
            except coerce.Unfit as error:
                if is_strict and self._is_set(name):
                    raise ConfigError(f"{name} cannot be saved: {error}") from None
        return held

    def _list(self, table: Table, kind: str) -> str:
        if kind == "detail":
            return self._detail()
        held = self._held(table, kind, is_strict=False)
        text = formats.text_of(held, kind, {name: table.default(name) for name in held})
        absent = [name for name in self.manager.get_values() if name not in held]
        comments = [] if kind == "json" else [f"# {name}: {self._shown_default(name)}\n" for name in absent]
        return "".join((*comments, "" if kind == "yaml" and not held else text))

    def _detail(self) -> str:
        values = self.manager.get_values()
        blocks = [f"{len(values)} hyperparameters: {', '.join(values)}\n" if values else "no hyperparameters\n"]
        nodes = self.manager.get_nodes()
        for name, value in values.items():
            level = max(row.level for row in nodes[name] if row.has_default_value)
            shown = self._shown_default(name) if value is NOT_LITERAL else repr(value)
            kind = "?" if value is NOT_LITERAL else type(value).__name__
            blocks.append(f"{name} = {shown}  ({kind}, {level.text})\n{''.join(map(_occurrence, nodes[name]))}")
        return "\n".join(blocks)


def message(error: NumbError) -> str:
    """The error in one line, with its hint where that is not about the options of a command of numb."""
    is_about_values = isinstance(error, ConfigError) and error.hint is not None
    return f"{error}; {error.hint}" if is_about_values else str(error)


def _place(row: Occurrence) -> Place:
    value = row.value if row.level <= Level.CALL else EMPTY  # what was set says nothing about the type
    return Place(row.file or "the script", row.line or 0, Kind.CALL, value, row.hints or {})


def _both(option: str, name: str, used: set[str]) -> tuple[str, ...]:
    """An option, and before it the same with dashes, unless that is *used*, which it then is."""
    dashed = option.replace("_", "-")
    if dashed in used or name.startswith("_"):
        return (option,)
    used.add(dashed)
    return dashed, option


def _opposites(lead: str, on: Collection[str], used: set[str]) -> tuple[str, ...]:
    """`--no-flag` for `--flag`, unless that is *used*, which it then is."""
    off = tuple(option for each in on if (option := f"{lead}no-{each[len(lead) :]}") not in used)
    used.update(off)
    return off


def _occurrence(row: Occurrence) -> str:
    if row.source is None or row.line is None:
        return "" if row.value is EMPTY else f"  {row.level.text}: {row.value!r}\n"
    context = "".join(f"    {line}\n" for line in row.source.around(row.line).splitlines())
    return f"  {row.place}\n{context}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
