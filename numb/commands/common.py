"""What the commands have in common: how errors are shown, where a script's own arguments stand, which project is meant."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from numb.errors import NumbError
from numb.terminal import Terminal, complain, say

if TYPE_CHECKING:
    from numb.project import Project


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
where_option = click.option(
    "--where", metavar="EXPR", help="Only runs for which it holds: 'lr < 1e-3 and results.acc > 0.9'"
)
sort_option = click.option(
    "--sort", multiple=True, metavar="NAMES", help="By what to sort; -NAME begins with the highest: -results.acc,lr"
)


class Numb(click.Group):
    """The command group: errors of numb's become one or two lines and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NumbError as error:
            complain(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            # `numb list | head`: the reader has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            raise click.UsageError(
                f"{error.message.rstrip('.')}." + (f" Did you mean {near[0]}?" if near else ""), ctx
            ) from None


class ScriptCommand(click.Command):
    """A command that starts a script: what stands after `--` is the script's."""

    allow_extra_args = True  # so that `parse_args` can say where they belong

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.obj = tuple(args[at + 1 :])
            args = args[:at]
        else:
            ctx.obj = ()
        ours = ctx.meta["ours"] = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            import difflib

            at = next((i for i, word in enumerate(ours) if word.startswith(error.option_name)), len(ours))
            near = difflib.get_close_matches(error.option_name, error.possibilities or (), 1, 0.7)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise misplaced(ctx, f"No such option: {error.option_name}.{meant}", ours[:at], ours[at:]) from None
        if rest and not ctx.resilient_parsing:
            for word in rest:
                ours.remove(word)
            raise misplaced(ctx, f"Got unexpected arguments: {' '.join(rest)}.", ours, rest)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


def misplaced(ctx: click.Context, message: str, ours: Sequence[str], scripts: Sequence[str]) -> click.UsageError:
    import shlex

    command = f"{ctx.command_path} {shlex.join([*ours, '--', *scripts, *ctx.obj])}"
    return click.UsageError(f"{message} What is for the script stands after --: {command}", ctx)


def opened(*, reading: bool = False) -> Project:
    from numb.project import Project

    project = Project.open(".", Terminal(), reading=reading)
    for warning in project.config.warnings:
        say(f"numb: {warning}")
    return project
