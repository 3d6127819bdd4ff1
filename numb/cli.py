"""The command line: every command has a room below `commands/`, and its place in this list."""

from __future__ import annotations

import click

from numb.commands import asking, comparing, keeping, looking, plotting, queueing, remarking, running, watching
from numb.commands.common import SETTINGS, Numb
from numb.version import __version__


@click.group(cls=Numb, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="numb", message="%(prog)s %(version)s")
def main() -> None:
    """Keep every run of a PyTorch project as a commit on a branch of its own git repository.

    Start with `numb init`, then `numb train`. Whenever you are lost: `numb list`.
    """


for _command in (
    keeping.init, keeping.deinit, running.train, running.trial, running.hyperparameters, queueing.queue,
    looking.list_, asking.best, asking.sql, asking.export, remarking.note, remarking.tag, remarking.name,
    looking.show, looking.tail, looking.logs, comparing.diff, comparing.compare, looking.report,
    plotting.plot, watching.watch, watching.status,
    keeping.remote, keeping.push, keeping.pull, keeping.rm, keeping.undo, keeping.purge, keeping.gc, keeping.du,
    keeping.verify, keeping.revert, keeping.doctor, running.extract,
):  # fmt: skip
    main.add_command(_command)
