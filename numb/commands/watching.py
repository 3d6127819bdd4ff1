"""The commands that say how runs stand while they go on: watch, status."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from numb.commands.common import as_json_option, opened
from numb.terminal import ascii_only, put

if TYPE_CHECKING:
    from numb.watching import Watched

_PAUSE = 0.5  # seconds between two pictures


@click.command()
@click.argument("runs", metavar="[ID]...", nargs=-1)
@as_json_option
def watch(runs: tuple[str, ...], as_json: bool) -> None:
    """Watch runs while they go on: progress, curves, the machine, the log. Without an ID, all that are in flight.

    Ends when they have ended; Ctrl-C leaves, and leaves the runs alone. Without a terminal it shows once how they are now.
    """
    from numb.view import watch as view

    watched = opened(reading=True).watched(runs)
    if as_json:
        put(view.as_json([each.look() for each in watched]))
    elif not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        put(view.plain([each.look() for each in watched]))
    else:
        _live(watched)


@click.command()
@click.argument("runs", metavar="[ID]...", nargs=-1)
@as_json_option
def status(runs: tuple[str, ...], as_json: bool) -> None:
    """How runs stand now: how far, how long still, how they began, what went wrong. Without an ID, all that are in flight."""
    from numb.view import watch as view

    states = [each.look() for each in opened(reading=True).watched(runs)]
    put(view.as_json(states) if as_json else view.facts(states))


def _live(watched: Sequence[Watched]) -> None:
    """Draw until all have ended, and then say how."""
    from rich.console import Console
    from rich.live import Live

    from numb.view import watch as view

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the terminal is as it was
    states = [each.look() for each in watched]
    if not all(each.has_ended for each in watched):
        color = "NO_COLOR" not in os.environ
        console = Console(markup=False, highlight=False, emoji=False, no_color=not color)
        screen = view.Screen(color=color and console.color_system is not None, ascii=ascii_only(sys.stdout))
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while not all(each.has_ended for each in watched):
                live.update(screen.picture(states, *console.size), refresh=True)
                time.sleep(_PAUSE)
                states = [each.look() for each in watched]
    for state in states:
        put(view.final(state))
