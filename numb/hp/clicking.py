"""Options for hyperparameters in a command of `click`; `binding` says which, and what they do.

from numb.hp import _, options

_.parse_file(__file__)

@click.command()
@options()
def main(): ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import click

from numb.errors import NumbError
from numb.hp import coerce
from numb.hp.binding import ACTIONS, Action, Binding, Settable, message
from numb.hp.manager import Manager, named

Command = TypeVar("Command", bound=Callable[..., Any])

_KEEP = "numb.hp"  # where the context keeps what was typed


def options(
    manager: Manager | None = None,
    *,
    actions: Collection[str] = ACTIONS,
    prefix: str = "hp",
    format: str | None = None,
    show_defaults: bool = True,
) -> Callable[[Command], Command]:
    """Do for a click command what `bind` does for a parser: a decorator, to stand next to `@click.command()`, on either side.

    The function does not get hyperparameters as arguments, whose names need not be names of arguments: it asks for them where
    it uses them, `_("lr")`. What cannot be is click's own error, which ends the process with 2. pickle is not supported on
    purpose.
    """
    binding = Binding(manager or named("_"), actions, prefix, format, show_defaults)

    def decorate(function: Command) -> Command:
        params: list[click.Parameter] = (
            function.params if isinstance(function, click.Command) else getattr(function, "__click_params__", [])
        )
        settable = binding.settable("--", {"--help", *(option for param in params for option in param.opts)})
        added = [option for each in settable for option in _options(each)]
        added += [_action_option(f"--{prefix}-{action.name}", action) for action in binding.actions]

        def settled(body: Callable[..., Any] | None) -> Callable[..., Any]:
            @functools.wraps(body or settled)
            def settle_and_run(*args: Any, **kwargs: Any) -> Any:
                _settle(binding, settable, click.get_current_context())
                return body(*args, **kwargs) if body else None

            return settle_and_run

        if isinstance(function, click.Command):
            function.params.extend(added)
            function.callback = settled(function.callback)
            return function
        wrapped: Any = settled(function)
        wrapped.__click_params__ = [*reversed(added), *params]  # click turns them around
        return wrapped  # type: ignore[no-any-return]

    return decorate


def _settle(binding: Binding, settable: list[Settable], context: click.Context) -> None:
    typed, asked = _kept(context)
    try:
        shown = binding.settle(settable, typed, asked)
    except NumbError as error:
        raise click.UsageError(message(error), context) from None
    if shown is not None:
        click.echo(shown, nl=False)
        context.exit()


def _kept(context: click.Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was typed by name of the hyperparameter, and what was asked for by that of the action."""
    kept: tuple[dict[str, Any], dict[str, Any]] = context.meta.setdefault(f"{_KEEP} {id(context)}", ({}, {}))
    return kept


def _options(each: Settable) -> Iterator[click.Option]:
    def note(context: click.Context, param: click.Parameter, text: str | None) -> None:
        if text is None:
            return
        try:
            value = each.read(text)
            coerce.check(value, each.hints, each.default)
        except coerce.Unfit as error:
            raise click.BadParameter(str(error), context, param) from None
        _kept(context)[0][each.name] = value

    def note_off(context: click.Context, param: click.Parameter, is_given: bool) -> None:
        if is_given:
            _kept(context)[0][each.name] = False

    switch: dict[str, Any] = {"is_flag": False, "flag_value": "yes"} if each.is_switch else {}
    metavar = f"[{'|'.join(map(str, each.choices))}]" if each.choices else each.metavar
    yield click.Option(
        [*each.on, _identifier(each.on[0])], type=str, metavar=metavar, help=each.help, callback=note,
        expose_value=False, **switch,
    )  # fmt: skip
    if each.off:
        yield click.Option(
            [*each.off, _identifier(each.off[0])], is_flag=True, help=f"not {each.on[0]}", callback=note_off,
            hidden=each.default is not True, expose_value=False,
        )  # fmt: skip


def _action_option(option: str, action: Action) -> click.Option:
    def ask(context: click.Context, param: click.Parameter, value: Any) -> None:
        if value in (None, False, ()):
            return
        if action.choices and value not in (*action.choices, _BARE):
            raise click.BadParameter(f"expected one of {', '.join(action.choices)}, found {value!r}", context, param)
        _kept(context)[1][action.name] = None if value == _BARE else value

    takes: dict[str, Any] = {"type": str, "metavar": "|".join(action.choices) if action.choices else action.value}
    if action.value is None:
        takes = {"is_flag": True}
    elif action.is_optional:
        takes |= {"is_flag": False, "flag_value": _BARE}
    return click.Option(
        [option, _identifier(option)], help=action.help, callback=ask, expose_value=False, multiple=action.name == "load",
        **takes,
    )  # fmt: skip


_BARE = "-"  # an option without the value that it can have


def _identifier(option: str) -> str:
    """A name that click takes for an option of any name."""
    return f"hp_{option.encode().hex()}"
