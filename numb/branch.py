"""What stands on numb's branch, as a listing that is caught up with it, and the order of writes that puts a run there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numb import atomic, inflight, record
from numb.errors import GitFailed, NumbError, ObjectCorrupt
from numb.gitstore import Pruned
from numb.inflight import InFlight, Told
from numb.layout import Layout, RunFolder
from numb.record import TRAIN, Run
from numb.snapshots import Snapshots, write_patches
from numb.store.index import Index

_AGAIN = 20  # times that a run is written while somebody collects garbage


class Branch:
    """The branch of the runs of one repository. *say* tells the user what was found and put there.

    Its listing is *kept* in `.nmb/`; that of another branch than the project's is made anew each time.
    """

    def __init__(self, snapshots: Snapshots, say: Callable[[str], None], *, kept: bool = True) -> None:
        self.git, self.layout, self._kept = snapshots.git, snapshots.layout, kept
        self._snapshots, self._say = snapshots, say
        self._tip: str | None = None  # where the branch was when it was last looked at

    # -- reading

    @cached_property
    def index(self) -> Index:
        """The listing, caught up with the branch."""
        if not self._kept:
            return self.from_branch()
        with contextlib.suppress(NumbError, OSError):
            self._snapshots.folder.make()  # so that what is made here is hidden from git
        index = Index(self.layout.listing, self._catch_up)
        self._catch_up(index)
        return index

    def _catch_up(self, index: Index) -> None:
        tip = self._tip = self.git.tip().commit
        known = index.tip
        if tip and (unread := index.unread()) and self.git.any_readable(unread):
            self._read_again(index, tip)  # what was missing or damaged has come back
            return
        if tip == known:
            return
        if tip is None:
            if known and known not in index.lost() and not self.git.has(known):
                index.lose(self.git.missing(index.commits()))
            return
        follows = known is None or self.git.is_ancestor(known, tip)
        if follows is False:
            index.clear()
            known = None
        index.extend(self.git.entries(tip, known), tip)
        if follows is None:
            index.lose(self.git.missing(index.commits()))

    def troubles(self) -> Iterator[str]:
        """What whoever looks at the listing should know about it, a line each."""
        if self.index.tip and not self._tip:
            yield f"branch {self.git.branch} is gone: numb doctor"
        if lost := self.index.lost():
            yield f"git has lost the commits of {record.counted(len(lost), 'run')}, of which this is what is left: numb doctor"
        for commit, reason in self.index.damaged():
            yield f"damaged record in {commit[:12]}: {reason}"

    def refresh(self) -> None:
        """Look at the branch again: something was added since."""
        if "index" in self.__dict__:
            self._catch_up(self.index)

    def close(self) -> None:
        """Let go of the listing's file; who asks again opens it again."""
        if "index" in self.__dict__:
            self.index.close()
            del self.__dict__["index"]

    def from_branch(self) -> Index:
        """The listing as the branch has it now, whatever the kept one says."""
        index = Index(None, self._catch_up)
        self._catch_up(index)
        return index

    def read_again(self) -> None:
        """Bring the kept listing to what the branch says; what it knows beyond a hole in the branch stays."""
        if tip := self.git.tip().commit:
            self._read_again(self.index, tip)

    def _read_again(self, index: Index, tip: str) -> None:
        lost = sorted(index.lost())
        index.extend(self.git.entries(tip), tip, again=True)
        index.lose(self.git.missing(lost))

    def read(self, run: Run, name: str) -> bytes | None:
        """One file of a run's record, of one in flight as it is now; None when there is none, or it cannot be read."""
        if run.commit:
            return self.git.read(run.commit, name)
        with contextlib.suppress(OSError):
            return (self.layout.run(run.id).content / name).read_bytes()
        return None

    def read_object(self, run: Run, name: str) -> dict[str, Any] | None:
        """One file of a run's record that numb wrote as a JSON object. Raises `ObjectCorrupt` for anything else."""
        text = self.read(run, name)
        if text is None:
            return None
        try:
            return record.loads(text)
        except ValueError as error:
            raise ObjectCorrupt(f"{name} of {run.id} is damaged: {error}", "numb doctor") from None

    def manifests(self, runs: Iterable[Run]) -> Iterator[tuple[Run, str, dict[str, int] | None]]:
        """What the weights of *runs* consist of: run, manifest, size by object; None where the manifest cannot be read."""
        wanted = [(run, run.commit, manifest) for run in runs if run.commit for manifest in run.manifests]
        texts = self.git.read_all([(commit, manifest) for _, commit, manifest in wanted])
        for (run, _, manifest), text in zip(wanted, texts, strict=True):
            try:
                yield run, manifest, record.sizes_of(record.loads(text or b""))
            except ValueError:
                yield run, manifest, None

    # -- writing

    def publish(self, run: Run, told: Told, flight: InFlight) -> Run:
        """E1 to E4 of the order of writes: the record whole on the disk, the commit, the pin, the folder."""
        folder = flight.folder
        is_own = folder.index.exists()  # and its stat cache is of use for the next snapshot
        if folder.borrowed.exists():
            atomic.move(folder.borrowed, folder.index)
        elif not is_own:
            self.git.load_pin(run.id, folder.index)
        atomic.write(
            folder.environment, record.dumps(inflight.environment(told, run.command, flight.order.launched), indent=1)
        )
        if told.operators:
            architecture = {"format": record.FORMAT, "operators": {k: list(v) for k, v in told.operators.items()}}
            atomic.write(folder.content / "architecture.json", record.dumps(architecture, indent=1))
        reused = self._reused_graphs(run)
        run = replace(run, graph=run.graph or next(iter(sorted(reused)), None))
        if told.exception:
            atomic.write(folder.content / "traceback.txt", told.exception.encode(errors="backslashreplace"))
        if is_own:
            self._snapshots.keep_index(folder.index)
        with self._files(run, told, folder) as run:
            _write_record(run, folder.content)
            commit = self._append(run, folder.index, folder.content, reused)
        self.git.unpin(run.id)
        flight.discard()
        return replace(run, commit=commit)

    @contextmanager
    def _files(self, run: Run, told: Told, folder: RunFolder) -> Iterator[Run]:
        """The run with its series, and with what its script has left in `run.dir`; nothing of it is collected meanwhile."""
        if not (folder.own.is_dir() or any(path.exists() for path in folder.journals)):
            yield run
            return
        from numb import rundir, tables  # few scripts have them

        objects = self._snapshots.folder.objects
        with objects.in_use():
            found, notes = rundir.gathered(folder, objects, told.artifacts)
            series, torn = tables.kept(folder, objects)
            yield replace(run, artifacts={**run.artifacts, **found}, series=series, notes=(*run.notes, *notes, *torn))

    def publish_lost(self, run: Run) -> None:
        """Put a run of which only its pinned snapshot is left on the branch."""
        with self._snapshots.folder.scratch("lost") as index:
            self.git.load_pin(run.id, index)
            content = index.parent / "record"
            content.mkdir()
            _write_record(run, content)
            self._append(run, index, content)
            self.git.unpin(run.id)

    def save(self, saved: Run, index: Path, patches: Mapping[str, bytes]) -> str:
        """Commit a snapshot that no run was made of; returns the commit."""
        content = index.parent / "record"
        content.mkdir()
        write_patches(patches, content)
        _write_record(saved, content)
        recorded = index.with_name("recorded")
        atomic.copy_cache(index, recorded)
        return self._append(saved, recorded, content)

    def note(self, entry: Run) -> str:
        """Commit an entry that is about others; the project stays as the entry before has it. Returns the commit."""
        with self._snapshots.folder.scratch("note") as index:
            content = index.parent / "record"
            content.mkdir()
            _write_record(entry, content)
            if (tip := self.git.tip().commit) is not None:
                self.git.load_snapshot(tip, index)
            commit = self._append(entry, index, content)
        self.refresh()
        return commit

    def _append(self, run: Run, index: Path, content: Path, reused: Mapping[str, str] | None = None) -> str:
        for _ in range(_AGAIN):
            self.git.wait_for_gc()
            packed = self.git.packed()
            try:
                return self._appended(run, index, content, reused, packed)
            except Pruned:
                continue
            except GitFailed:
                if not self.git.wait_for_gc() and self.git.packed() == packed:
                    raise
        raise GitFailed(
            "git gc removes everything that is written, again and again", "numb doctor --fix, once it has ended"
        )

    def _appended(
        self, run: Run, index: Path, content: Path, reused: Mapping[str, str] | None, packed: int | None
    ) -> str:
        tree = self._tree(run, index, content, reused)
        message = f"{record.subject(run)}\n\n" + (f"{run.message}\n\n" if run.message else "") + _trailers(run)
        lock = atomic.Lock(self.layout.publishing)
        lock.try_acquire(2.0)  # not for safety, the refs are swapped: so that writers do not race for nothing
        try:
            return self.git.append(tree, message, time.time(), run.base, lambda: self.index.tip, packed)
        finally:
            lock.release()

    def _tree(self, run: Run, index: Path, content: Path, reused: Mapping[str, str] | None) -> str:
        """The tree of a run's commit, of its pinned snapshot where the index is damaged."""
        try:
            return self.git.write_record(index, content, reused)
        except GitFailed:
            if not self.git.pins().get(run.id):
                raise
            self._snapshots.forget_index()
            self.git.load_pin(run.id, index)
            return self.git.write_record(index, content, reused)

    def _reused_graphs(self, run: Run) -> dict[str, str]:
        """The graph of an architecture that was exported before, as blobs that are in the repository already."""
        if run.kind != TRAIN or run.graph or not run.architecture:
            return {}
        commit = self.index.with_graph(run.architecture)
        earlier = self.index.by_commit(commit) if commit else None
        if commit is None or earlier is None or earlier.graph is None:
            return {}
        names = {earlier.graph, *(f"graph-{name}.onnx" for name in earlier.models if len(earlier.models) > 1)}
        return {name: blob for name in sorted(names) if (blob := self.git.blob(commit, name))}

    # -- runs that their launcher left behind

    def recover(self) -> list[Run]:
        """Catch up with what others have added, and publish runs whose launcher has died and whose script has ended.

        A few system calls when there are none.
        """
        self.refresh()
        recovered: list[Run] = []
        lefts = [left for left in inflight.all_left(self.layout) if not left.running]
        if not lefts:
            return recovered
        lock = atomic.Lock(self.layout.recovering)
        try:
            if not lock.try_acquire():
                return recovered
        except NumbError:
            return recovered  # read-only: reading goes on
        try:
            for left in lefts:
                recovered += self._recover(left)
        finally:
            lock.release()
        return recovered

    def _recover(self, left: inflight.Left) -> list[Run]:
        try:
            return self.publish_left(left)
        except Exception as error:  # whatever is wrong with one run, the commands go on
            left.flight.close()
            self._say(f"{left.flight.folder.path.name} could not be put on branch {self.git.branch} yet: {error}")
            return []

    def publish_left(self, left: inflight.Left) -> list[Run]:
        """Put a run that its launcher left behind on the branch. Raises what keeps it from there."""
        return self._publish_adopted(left) if left.flight.adopt() else []

    def waiting(self) -> Iterator[tuple[Path, inflight.Left]]:
        """What is going to be put on the branch: runs in flight, and those that were cut off, by the work trees they are in."""
        for top in self.git.work_trees():
            for left in inflight.all_left(Layout(top)):
                if left.running or (left.run is not None and not self.has_gone_on_elsewhere(left.run)):
                    yield top, left

    def has_gone_on_elsewhere(self, run: Run) -> bool:
        """Whether the branch has another continuation of a run than this one, which was resumed here."""
        published = self.index.get(run.id)
        if published is None:
            return False
        return any(there.resumed != here.resumed for there, here in zip(published.segments, run.segments, strict=False))

    def _publish_adopted(self, left: inflight.Left) -> list[Run]:
        flight, run = left.flight, left.run
        if run is None or not flight.folder.path.exists():
            flight.close()  # damaged, which doctor tells; or published meanwhile by somebody else
            return []
        self.refresh()
        if self.has_gone_on_elsewhere(run):
            flight.close()  # it stays where it is, which doctor tells: what came of it is nowhere else
            return []
        published = self.index.get(run.id)
        if published is not None and len(published.segments) >= len(run.segments):
            self.git.unpin(run.id)
            flight.discard()  # its launcher died after it had put the run on the branch
            return []
        told = flight.told()
        if run.in_flight and (told.refused or not (told.started or left.state.get("script"))):
            self.git.unpin(run.id)
            flight.discard()  # the script never began its work
            return []
        had_ended, own = not run.in_flight, flight.order.own
        if run.in_flight:
            run = inflight.conclude(run, told, None, flight.folder)
        run = self.publish(run, told, flight)
        if had_ended:
            why = "it had ended, but could not be put there before"
            self._say(f"put {run.id} ({run.status}) on branch {self.git.branch}: {why}")
        else:
            self._say(f"recovered {run.id} ({run.status}): its {'process' if own else 'launcher'} had died")
        self.refresh()
        return [run]


def _write_record(run: Run, content: Path) -> None:
    atomic.write(content / "record.json", record.dumps(run.to_json(), indent=1) + "\n")


def _trailers(run: Run) -> str:
    """Facts of checked types for tools that read commit messages; the record in the tree is what counts."""
    lines = [
        f"Numb-Run: {run.id}",
        f"Numb-Kind: {run.kind}",
        f"Numb-Status: {run.status}",
        f"Numb-Format: {record.FORMAT}",
    ]
    if run.of:
        lines.insert(1, f"Numb-Of: {run.of}")
    return "\n".join(lines) + "\n"
