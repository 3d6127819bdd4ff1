"""Options for hyperparameters in a parser of `argparse`; `binding` says which, and what they do.

from numb.hp import _, bind

_.parse_file(__file__)
parser = argparse.ArgumentParser()
bind(parser)
args = parser.parse_args()
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Collection
from typing import Any

from numb.errors import NumbError
from numb.hp import coerce
from numb.hp.binding import ACTIONS, Action, Binding, Settable, message
from numb.hp.manager import Manager, named
from numb.hp.values import NOT_LITERAL

_METHODS = ("parse_args", "parse_known_args", "parse_intermixed_args", "parse_known_intermixed_args")
_NEGATIVE = re.compile(r"-(\.?\d|(inf|nan)$)")


def bind(
    parser: argparse.ArgumentParser,
    manager: Manager | None = None,
    *,
    actions: Collection[str] = ACTIONS,
    prefix: str = "hp",
    format: str | None = None,
    show_defaults: bool = True,
) -> None:
    """Give *parser* one option for each hyperparameter of *manager* (that of `_`), and the *actions*: `--PREFIX-list` ….

    Whenever it has parsed, by whichever method and also as a subparser, the manager has what was loaded and typed, and the
    Namespace has every hyperparameter by its full name (`hp_name` where another option has that), whatever it was set by.
    *format* is that of files for which `--hp-format` is not given; without it the extension tells. Add options of your own
    before. Files are YAML, JSON or TOML; pickle is not supported on purpose, because to read one is to run what it says.

    What cannot be is argparse's own error, which ends the process with 2. Raises `Usage` for an action, a prefix or a format
    that there is not.
    """
    binding = Binding(manager or named("_"), actions, prefix, format, show_defaults)
    lead = "--" if "-" in parser.prefix_chars else parser.prefix_chars[0] * 2
    settable = binding.settable(
        lead,
        {option for action in parser._actions for option in action.option_strings},
        {action.dest for action in parser._actions},
    )
    typed: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    group = parser.add_argument_group("hyperparameters")
    for each in settable:
        _add(group, each, typed)
    for action in binding.actions:
        _add_action(group, f"{lead}{prefix}-{action.name}", action, asked)
    # -1e-4 and -inf are values; argparse knows of -1 and -.5.
    parser._negative_number_matcher = _NEGATIVE

    def settle(namespace: argparse.Namespace) -> None:
        try:
            shown = binding.settle(settable, typed, asked)
        except NumbError as error:
            parser.error(message(error))
        for each in settable:
            value = binding.manager.get_value(each.name)
            if value is not NOT_LITERAL:  # a default that only the call knows, and nobody has set it
                setattr(namespace, each.key, value)
        if shown is not None:
            print(shown, end="")
            parser.exit()

    def forget() -> None:
        typed.clear()
        asked.clear()

    _around_parsing(parser, forget, settle)


def _add(group: argparse._ArgumentGroup, each: Settable, typed: dict[str, Any]) -> None:
    def read(text: str) -> Any:
        try:
            return each.read(text)
        except coerce.Unfit as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    class Note(argparse.Action):
        """What is typed goes beside the Namespace: a default in there would look as if it had been typed."""

        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            typed[each.name] = values

    class NoteOff(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            typed[each.name] = False

    text = each.help.replace("%", "%%")
    common: dict[str, Any] = {"dest": each.key, "default": argparse.SUPPRESS}
    if each.is_switch:
        group.add_argument(
            *each.on, action=Note, type=read, nargs="?", const=True, metavar=each.metavar, help=text, **common
        )
    elif each.choices:
        group.add_argument(*each.on, action=Note, type=read, choices=each.choices, help=text, **common)
    else:
        group.add_argument(*each.on, action=Note, type=read, metavar=each.metavar, help=text, **common)
    if each.off:
        text = f"not {each.on[0]}" if each.default is True else argparse.SUPPRESS
        group.add_argument(*each.off, action=NoteOff, nargs=0, help=text, **common)


def _add_action(group: argparse._ArgumentGroup, option: str, action: Action, asked: dict[str, Any]) -> None:
    class Ask(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            asked[action.name] = [*asked.get(action.name, ()), values] if action.name == "load" else values

    nargs = 0 if action.value is None else "?" if action.is_optional else None
    group.add_argument(
        option, dest=option, action=Ask, nargs=nargs, metavar=None if action.choices else action.value,
        choices=action.choices, default=argparse.SUPPRESS, help=action.help,
    )  # fmt: skip


def _around_parsing(
    parser: argparse.ArgumentParser, begin: Callable[[], None], end: Callable[[argparse.Namespace], None]
) -> None:
    """Let *end* have the Namespace of every parse that succeeds, once, whichever method of the parser it was.

    The methods of the parser itself are replaced: they call each other, and that of a parser calls those of its subparsers.
    """
    inside = False

    def wrapped(parse: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(parse)
        def parse_between(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return parse(*args, **kwargs)
            inside = True
            begin()
            try:
                found = parse(*args, **kwargs)
            finally:
                inside = False
            end(found[0] if isinstance(found, tuple) else found)
            return found

        return parse_between

    for method in _METHODS:
        setattr(parser, method, wrapped(getattr(parser, method)))
