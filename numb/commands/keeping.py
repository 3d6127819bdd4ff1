"""The commands that keep runs in order, here and in other places: init, remote, push, rm, undo, gc, revert, doctor, …"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from numb.commands.common import as_json_option, opened
from numb.errors import NumbError, ProblemsFound, Usage
from numb.terminal import Terminal, agreed, attended, put, say


@click.command()
@click.option("--branch", metavar="NAME", help="Commit runs to this branch.  [default: numb]")
def init(branch: str | None) -> None:
    """Make nmb.json, .nmb/ and the branch of the runs; what is there stays as it is."""
    from numb.layout import CONFIG
    from numb.project import Project

    project = Project.init(".", branch, Terminal())
    say(f"numb: ready: {project.home / CONFIG}, {project.layout.folder} (ignored by git), branch {project.git.branch}")
    say("      next: put your commands into nmb.json, the hooks into your script, and type: numb train")


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def deinit(yes: bool) -> None:
    """Destroy what init made: nmb.json, .nmb/ with all weights, and the branch of the runs."""
    from numb.errors import NotInitialised
    from numb.project import Project

    try:
        project = opened()
    except NotInitialised:
        found = Project.remains(".", Terminal())
        if found is None:
            say("numb: there is nothing to remove here")
            return
        project = found
    lost = project.deletion()
    from numb import record

    waiting = f", {lost.unpublished} not on the branch yet" if lost.unpublished else ""
    branch = f", and branch {project.git.branch} at {lost.tip}" if lost.tip else ""
    say(f"This destroys {record.counted(lost.runs, 'run')}{waiting} and {lost.bytes / 1e6:.1f} MB:")
    say(f"{', '.join(map(str, lost.files))}{branch}.")
    if lost.others:
        others = ", ".join(f"{name} ({record.counted(n, 'run')})" for name, n in lost.others.items())
        say(f"Other projects lose theirs too: {others}")
    if lost.work_trees:
        say(f"Other work trees lose theirs too: {', '.join(map(str, lost.work_trees))}")
    if not yes:
        if not attended():
            raise NumbError("nothing was removed", "numb deinit --yes")
        if not agreed("Destroy all of it?"):
            raise NumbError("nothing was removed")
    tip = project.deinit()
    say(
        f"numb: removed; as long as git keeps it, this brings the branch back: git branch {project.git.branch} {tip}"
        if tip
        else "numb: removed"
    )


@click.group(invoke_without_command=True)
@as_json_option
@click.pass_context
def remote(context: click.Context, as_json: bool) -> None:
    """Places for objects: a folder, ssh://host/path, s3://bucket/prefix. Alone it lists them."""
    if context.invoked_subcommand is None:
        from numb.view import store

        places = opened(reading=True).config.remotes
        put(store.places_json(places) if as_json else store.places(places))


@remote.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--branch-to", metavar="REMOTE", help="The remote of git's for the branch.  [default: NAME]")
def remote_add(name: str, url: str, branch_to: str | None) -> None:
    """Write the place URL into nmb.json under NAME. Credentials are those of ssh and of AWS; numb stores none."""
    project = opened()
    project.add_remote(name, url, branch_to)
    say(f"numb: {name} is {url}; the branch goes to the remote {branch_to or name} of git's")
    say(f"      next: numb push {name}")


@remote.command("remove")
@click.argument("name")
def remote_remove(name: str) -> None:
    """Take a place out of nmb.json; what is there stays there."""
    opened().remove_remote(name)
    say(f"numb: {name} is forgotten; what is there stays there")


@click.command()
@click.argument("name", required=False)
@as_json_option
def push(name: str | None, as_json: bool) -> None:
    """Send objects to a remote, then the branch; what is there already is not sent again."""
    from numb import record
    from numb.view import store

    terminal = Terminal()
    sent = opened(reading=True).push(name, terminal.progress)
    if as_json:
        put(store.counts_json(sent))
        return
    branch = f"; the branch is at {sent.branch}" if sent.branch else "; git has no remote for the branch"
    say(f"numb: sent {record.counted(sent.objects, 'object')}, {store.size(sent.bytes)}{branch}")
    if sent.absent:
        say(f"      {record.counted(sent.absent, 'object')} that runs need are neither here nor there: numb verify")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--objects", is_flag=True, help="All objects that runs need, and not only those that are asked for later."
)
@as_json_option
def pull(name: str | None, objects: bool, as_json: bool) -> None:
    """Fetch the branch of the runs and join it with the one here; weights come when they are needed."""
    from numb import record
    from numb.view import store

    terminal = Terminal()
    got = opened(reading=True).pull(name, terminal.progress, objects=objects)
    if as_json:
        put(store.counts_json(got))
        return
    say(
        f"numb: {record.counted(got.runs, 'new entry', 'new entries')}" + ("" if got.branch else "; no branch to fetch")
    )
    if objects:
        say(f"      {record.counted(got.objects, 'object')}, {store.size(got.bytes)}")
    if got.missing and objects:
        say(f"      not there either: {record.counted(got.missing, 'object')}; numb doctor says whose")
    elif got.missing:
        say(
            f"      elsewhere: {record.counted(got.missing, 'object')} of weights; numb pull --objects fetches what is there"
        )


@click.command()
@click.argument("runs", metavar="ID...", nargs=-1, required=True)
@as_json_option
def rm(runs: tuple[str, ...], as_json: bool) -> None:
    """Remove runs and their trials from the listing, by an entry on the branch; numb undo brings them back."""
    from numb import record
    from numb.view import store

    project = opened(reading=True)
    found = list({run.id: run for run in map(project.find, runs)}.values())
    entry = project.remove(found)
    if as_json:
        put(store.ids_json([named.id for named in entry.removes]))
        return
    trials = len(entry.removes) - len(found)
    also = f" and {record.counted(trials, 'trial')}" if trials > 0 else ""
    say(f"numb: removed {record.some([run.id for run in found], 5)}{also}")
    say("      numb undo brings them back; numb gc frees the room of their weights, for good")


@click.command()
@as_json_option
def undo(as_json: bool) -> None:
    """Take back the last numb rm, note, tag, name or extract."""
    from numb import record
    from numb.view import store

    entry, found = opened(reading=True).undo()
    if as_json:
        put(store.ids_json(found))
        return
    if entry.removes:
        say(f"numb: back again: {record.some(found, 5)}")
    else:
        say(f"numb: taken back: {record.subject(entry).partition(' of ')[2]}")


@click.command()
@click.argument("what", metavar="PATH|ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(what: tuple[str, ...], yes: bool) -> None:
    """Take a path out of every snapshot, or runs out of the branch, by rewriting the branch of the runs, and it alone."""
    from numb import record

    project = opened(reading=True)
    plan = project.purge_plan(what)
    if plan.path is not None:
        say(f"This takes {plan.path} out of {record.counted(plan.snapshots, 'snapshot')}, for good.")
    else:
        say(f"This takes {record.some(list(plan.entries), 5)} out of the branch, for good.")
    if not yes:
        if not attended():
            raise NumbError("nothing was changed", f"numb purge --yes {shlex.join(what)}")
        if not agreed("Rewrite the branch?"):
            raise NumbError("nothing was changed")
    remotes = project.purge(plan)
    say(f"numb: branch {project.git.branch} is rewritten; git drops the old one from this disk by: git gc --prune=now")
    if plan.entries:
        say("      weights that no other run needs go with: numb gc")
        if places := project.config.remotes:
            names = record.some([place.name for place in places])
            say(f"      what was pushed of them is still in {names}: docs/sharing.md says how a place is freed")
    if plan.own:
        say(f"      {plan.path} is also in a commit of your own, {plan.own[:12]}, which numb does not rewrite")
    name = project.git.branch
    for remote in remotes:
        forget = f"git reflog expire --expire=now refs/remotes/{remote}/{name}"
        say(f"      {remote} still has the old branch: git push --force-with-lease {remote} {name} && {forget}")
        say(f"      then in every other clone: numb pull {remote}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say how much would be freed, or which runs go.")
@click.option(
    "--duplicates", is_flag=True, help="Remove runs that repeat another, as numb rm does; what was noted stays."
)
@as_json_option
def gc(dry_run: bool, duplicates: bool, as_json: bool) -> None:
    """Remove weights and other objects that no run names any more."""
    from numb import record
    from numb.view import store

    project = opened(reading=True)
    if duplicates:
        repeats = project.repeats()
        gone = [run for runs in repeats.values() for run in runs]
        if gone and not dry_run:
            project.remove(gone)
        if as_json:
            put(store.ids_json([run.id for run in gone]))
            return
        for stays, runs in repeats.items():
            which = record.some([run.id for run in runs], 5)
            say(f"numb: {'would remove' if dry_run else 'removed'} {which}: {stays} did the same with the same code")
        if not gone:
            say("numb: no run repeats another with the same code: numb list --duplicates")
        elif not dry_run:
            say(f"      {record.counted(len(gone), 'run')}; numb undo brings them back, numb gc frees their room")
        return
    found = project.collect(dry_run=dry_run)
    put(store.counts_json(found) if as_json else store.collected(found, dry_run=dry_run))


@click.command()
@as_json_option
def du(as_json: bool) -> None:
    """Show how much room the weights of each run take, and how much of it is its own."""
    from numb.view import store

    used = opened(reading=True).usage()
    put(store.usage_json(used) if as_json else store.usage(used))


@click.command()
@click.argument("runs", metavar="[ID]...", nargs=-1)
@as_json_option
def verify(runs: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of the store, or of some runs, and compare it with its hash; ends with 3 if something is wrong."""
    from numb.view import table

    project = opened(reading=True)
    findings = project.verify([project.find(run) for run in runs] if runs else None)
    put(table.findings_json(findings) if as_json else table.findings(findings))
    if findings:
        raise ProblemsFound(f"{len(findings)} problem{'s' if len(findings) > 1 else ''}", "numb doctor")


@click.command()
@click.argument("run", metavar="[ID]", required=False)
@click.option("--undo", is_flag=True, help="Bring back what the last revert replaced.")
@click.option(
    "--worktree",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the run into the new directory DIR instead.",
)
def revert(run: str | None, undo: bool, worktree: Path | None) -> None:
    """Make the work tree the snapshot of a run; what was there is committed first. HEAD and the index stay."""
    if (run is None) == (not undo) or (undo and worktree):
        raise Usage("say which run", "numb revert ID, numb revert --undo, or numb revert ID --worktree DIR")
    project = opened(reading=True)
    if worktree is not None:
        project.check_out(project.find(run or ""), worktree)
        click.echo(worktree)
        return
    done = project.undo_revert() if undo else project.revert(project.find(run or ""))
    say(
        f"numb: {len(done.changed)} files changed; what was there is kept as {done.saved} on branch {project.git.branch}"
    )
    say("      to come back: numb revert --undo")


@click.command()
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@as_json_option
def doctor(fix: bool, as_json: bool) -> None:
    """Check that everything numb relies on holds; explain what does not, and what to do about it."""
    from numb.view import table

    findings = opened(reading=True).doctor(fix=fix)
    put(table.findings_json(findings) if as_json else table.findings(findings))
    if not all(finding.fixed for finding in findings):
        left = sum(not finding.fixed for finding in findings)
        fixable = not fix and any(finding.fixable for finding in findings)
        raise ProblemsFound(f"{left} problem{'s' if left > 1 else ''}", "numb doctor --fix" if fixable else None)
