"""What a training begins with when it does not begin anew: a checkpoint of its own, or the weights of another run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from numb import atomic, record, tables
from numb.capture import manifest
from numb.capture.manifest import Manifest
from numb.errors import ObjectMissing, Refused
from numb.order import Order
from numb.record import COMPLETE, RUNNING, TRAIN, Checkpoint, Origin, Run, Segment

if TYPE_CHECKING:
    from numb.inflight import InFlight
    from numb.project import Project


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the script of a run finds in its folder before it starts, and what it is told."""

    state: Manifest
    earlier: Mapping[str, bytes] = field(default_factory=dict)  # manifests of the checkpoints that the run has already
    resume: Mapping[str, Any] = field(default_factory=dict)
    init_from: Origin | None = None
    networks: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    rows: bytes = b""  # a journal of what the series of the run had by then

    def told(self, order: Order) -> Order:
        """The order with what the script must know; what was set by hand counts more than what the run had."""
        return replace(
            order,
            inject={**record.encoded(self.params), **order.inject},
            resume=self.resume,
            init_from=str(self.init_from or ""),
            networks=self.networks,
        )

    def lay_out(self, flight: InFlight) -> None:
        """Put it into the folder of the run."""
        atomic.write(flight.folder.beginning, record.dumps(self.state.to_json()))
        for name, text in self.earlier.items():
            path = flight.folder.content / name
            atomic.make_directory(path.parent)
            atomic.write(path, text)
        if self.rows:
            atomic.write(flight.folder.series, self.rows)


def resumed(project: Project, run: Run, step: int | None, *, again: bool = False) -> tuple[Run, Beginning]:
    """The same run as one that goes on after its checkpoint of *step*, or after the last one.

    Raises `Refused` for a run that cannot go on: one that is complete, unless *again*, or has no such checkpoint.
    """
    if run.kind != TRAIN:
        raise Refused(f"{run.id} is a {run.kind}", "numb list")
    if run.in_flight:
        raise Refused(f"{run.id} is still running", "numb list")
    if not run.checkpoints:
        hint = f"numb train --init-from {run.id} begins a new run with its weights" if run.weights else "numb list"
        raise Refused(f"{run.id} has no checkpoint to go on from, as run.checkpoint(…) in the script keeps them", hint)
    if run.status == COMPLETE and not again:
        raise Refused(f"{run.id} is complete", f"numb train --again --resume {run.id} goes on all the same")
    chosen = checkpoint_of(run, step)
    if chosen.partial:
        project.talk.say(f"the checkpoint of step {chosen.step} is not whole: {chosen.partial}")
    earlier = [kept for kept in run.checkpoints if kept.step <= chosen.step]
    texts = {kept.manifest: _text(project, run, kept.manifest) for kept in earlier}
    files = [kept.file for kept in run.artifacts.values() if kept.file]
    texts |= {file: _text(project, run, file) for file in files}
    state = _manifest(project, run, texts[chosen.manifest])
    segment = Segment(project.commit(run), run.status, run.seconds, chosen.step, round(time.time(), 3), run.reason)
    facts = record.checkpoint_to_json(chosen)
    order = {
        "step": chosen.step,
        "results": facts["results"],
        "checkpoints": [record.checkpoint_to_json(kept) for kept in earlier],
    }
    begun = replace(
        run, status=RUNNING, reason=None, exit_code=None, segments=(*run.segments, segment), checkpoints=tuple(earlier),
        results={}, weights={}, graph=None, series={}, notes=(), left_out=(), nested=(), commit=None,
    )  # fmt: skip
    rows = tables.framed(tables.before(project, run, chosen.step, chosen.time)) if run.series else b""
    given = {name: value for name, value in run.params.items() if name not in run.constants}
    return begun, Beginning(state, texts, order, networks=chosen.networks, params=given, rows=rows)


def initial(project: Project, run: Run, step: int | None) -> Beginning:
    """The weights of *run*, at its end, or in its checkpoint of *step*, for a run that begins with them.

    Raises `Refused` where there are none.
    """
    if step is None and run.weights:
        kept = {name: _manifest(project, run, _text(project, run, each.manifest)) for name, each in run.weights.items()}
        return Beginning(manifest.joined(kept), init_from=Origin(run.id), networks={name: name for name in run.weights})
    if not run.checkpoints:
        raise Refused(f"{run.id} has no {'weights' if step is None else 'checkpoints'}", "numb list")
    chosen = checkpoint_of(run, step)
    if not chosen.networks:
        raise Refused(f"there is no network in the checkpoint {run.id}@{chosen.step}", f"numb show {run.id}")
    state = _manifest(project, run, _text(project, run, chosen.manifest))
    return Beginning(state, init_from=Origin(run.id, chosen.step), networks=chosen.networks)


def checkpoint_of(run: Run, step: int | None) -> Checkpoint:
    """The checkpoint of a step, or the last one. Raises `Refused` where there is none."""
    found = [kept for kept in run.checkpoints if step is None or kept.step == step]
    if not found:
        steps = record.some([str(kept.step) for kept in run.checkpoints]) or "none"
        raise Refused(f"{run.id} has no checkpoint of step {step}; it has {steps}", f"numb show {run.id}")
    return found[-1]


def _text(project: Project, run: Run, name: str) -> bytes:
    text = project.branch.read(run, name)
    if text is None:
        raise ObjectMissing(f"{name} is not in the commit {run.commit} of {run.id}", "numb doctor")
    return text


def _manifest(project: Project, run: Run, text: bytes) -> Manifest:
    found = Manifest.of(record.loads(text))
    project.bring(found.refs())
    _refuse_missing(project, run, {ref.digest: ref.size for ref in found.refs()}.items())
    return found


def _refuse_missing(project: Project, run: Run, objects: Iterable[tuple[str, int]]) -> None:
    missing = [digest for digest, size in objects if not project.objects.has(digest, size)]
    if missing:
        raise ObjectMissing(
            f"{record.counted(len(missing), 'object')} of {run.id}'s weights are not in {project.layout.objects}",
            "numb pull --objects, where a remote has them, or: numb doctor",
        )
