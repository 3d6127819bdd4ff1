"""Checkpoints: written by a thread while the script trains on, and dropped by the rules of `nmb.json`.

`take` returns as soon as the states are copied. The next one waits until the last is written, so that at most one copy is in
memory. What went wrong in the thread is told at once, and again by the status of the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numb import atomic, record
from numb.capture.manifest import Manifest
from numb.capture.weights import Saver
from numb.keep import Keep
from numb.record import Checkpoint
from numb.store.objects import Objects, Ref

_now = time.time


class Checkpoints:
    """Those of one run. *tell* writes an event; *fail* is told of a step that could not be kept, and why."""

    def __init__(
        self,
        folder: Path,
        objects: Objects,
        keep: Keep,
        known: Iterable[Checkpoint],
        tell: Callable[[Checkpoint | int], None],
        fail: Callable[[int, Exception], None],
        *,
        spare: bool = False,
    ) -> None:
        self._spare = spare  # while the training goes on, the one before the newest stays too
        self._folder, self._objects, self._keep, self._tell, self._fail = folder, objects, keep, tell, fail
        self._known = {checkpoint.step: checkpoint for checkpoint in known}
        self._refs: dict[int, set[Ref]] = {}  # of those that this process has written
        self._needed: set[Ref] = set()  # by other manifests of this process
        self._waste: set[Ref] = set()  # of checkpoints that were dropped
        self._saver = Saver(objects)
        self._thread: threading.Thread | None = None

    def take(
        self, step: int, state: Mapping[str, Any], results: Mapping[str, Any], networks: Mapping[str, str]
    ) -> None:
        """Keep *state*, which is the caller's no more, as the one after *step*."""
        self.wait()
        moment = _now()

        def write() -> None:
            try:
                self._write(step, state, results, networks, moment)
            except Exception as error:  # whatever it is, the training goes on and the user is told
                self._fail(step, error)

        self._thread = threading.Thread(target=write, name="numb-checkpoint", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending, or the system gives no more threads
            self._thread = None
            write()

    def wait(self) -> None:
        """Wait until the last one is written, or has failed."""
        if (thread := self._thread) is not None:
            thread.join()  # which a signal may cut short: then whoever ends the script waits again
            self._thread = None

    def close(self) -> None:
        """Wait for the last one, and keep no spare one any more."""
        self.wait()
        if self._spare:
            self._spare = False
            try:
                self._retire()
            except Exception as error:  # as in `take`: it stays, then
                self._fail(max(self._known), error)

    def forget_from(self, step: int) -> None:
        """Drop those of *step* and after it."""
        self.wait()
        self._drop([kept for kept in self._known if kept >= step])

    def need(self, refs: Iterable[Ref]) -> None:
        """Remember that these objects are not to be dropped with a checkpoint."""
        self._needed.update(refs)

    def _write(
        self,
        step: int,
        state: Mapping[str, Any],
        results: Mapping[str, Any],
        networks: Mapping[str, str],
        moment: float,
    ) -> None:
        with self._objects.in_use():
            manifest = self._saver.save(state, private=True)
            atomic.make_directory(self._folder)
            atomic.write(self._folder / f"{step}.json", record.dumps(manifest.to_json()))
        size = manifest.summary()
        checkpoint = Checkpoint(
            step,
            record.checkpoint_manifest(step),
            round(moment, 3),
            tuple(map(str, state)),
            size["tensors"],
            size["bytes"],
            results,
            networks,
            manifest.partial or _left_out(manifest),
        )
        self._tell(checkpoint)
        self._known[step] = checkpoint
        self._refs[step] = set(manifest.refs())
        self._retire()

    def _retire(self) -> None:
        """Drop what no rule keeps."""
        stay = self._keep.steps(self._known.values())
        if self._spare:
            stay = {*stay, *sorted(self._known)[-2:]}
        self._drop([step for step in self._known if step not in stay])

    def _drop(self, steps: Sequence[int]) -> None:
        """Drop manifests, and the objects that only this process has written and nobody else needs."""
        for step in steps:
            del self._known[step]
            self._tell(step)
            (self._folder / f"{step}.json").unlink(missing_ok=True)
        self._waste.update(*(self._refs.pop(step, set()) for step in steps))
        if self._objects.discard(self._waste, lambda: self._needed.union(*self._refs.values())):
            self._waste.clear()


def _left_out(manifest: Manifest) -> str | None:
    """What of a state could not be kept, in words."""
    if not manifest.left_out:
        return None
    names = [f"{each['name']} ({each['reason']})" for each in manifest.left_out]
    return f"not kept: {record.some(names, 5)}"
