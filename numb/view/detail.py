"""Everything about one run, for a person to read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from numb import record
from numb.errors import printable
from numb.record import Checkpoint, Run, Segment, Series
from numb.view.table import Row, age, status


def shown(
    row: Row,
    environment: Mapping[str, Any],
    missing: Sequence[str],
    traceback: str,
    begun: Sequence[Run] = (),
    now: float | None = None,
) -> str:
    """One fact a line, sections set apart; what there is not is not shown. *begun* are the runs that began with its weights."""
    run = row.run
    sections: list[Sequence[tuple[str, str | None]]] = [
        about(row, time.time() if now is None else now),
        [("network", run.network), *((f"  {name}", _model(run, name)) for name in run.models)],
        [("hyperparameter", f"{name} = {record.brief(value, 200)}") for name, value in run.params.items()],
        [("result", f"{name} = {record.brief(value, 200)}") for name, value in record.flat(row.results).items()],
        [("trial", f"{trial.id}  {trial.name or ''}  {_trial(trial)}".replace("    ", "  ")) for trial in row.trials],
        [(f"weights {name}", _weights(run, name)) for name in run.weights]
        + ([("", f"missing here: {record.counted(len(missing), 'object')} of the weights")] if missing else []),
        [("series", f"{name}  {_series(each)}") for name, each in run.series.items()],
        [("artifact", f"{name}  {size(kept.size)}") for name, kept in run.artifacts.items()],
        [("checkpoint", _checkpoint(kept)) for kept in run.checkpoints],
        [("begun with it", f"{each.id}{_beginning(each)}") for each in begun],
        [("left out", f"{item.path} ({item.size} bytes): {item.why}") for item in run.left_out]
        + [("nested", f"{item.path} at {item.head}{' and a patch' if item.patch else ''}") for item in run.nested]
        + [("note", note) for note in run.notes],
        surroundings(environment),
    ]
    text = "\n\n".join(filter(None, map(_section, sections)))
    return text + ("\n\n" + _escaped(traceback.rstrip()) if traceback else "")


def about(row: Row, now: float | None = None) -> list[tuple[str, str | None]]:
    """What a run is: who calls it how, how it went, from which code; how long ago that was, where it is said what is *now*."""
    run = row.run
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.started))
    return [
        ("run", run.id),
        ("name", row.said.name),
        ("tags", " ".join(row.said.tags)),
        ("message", run.message),
        *(("noted", line) for text in row.said.notes for line in text.splitlines()),
        ("status", _status(row)),
        ("started", started if now is None else f"{started} ({age(run.started, now)} ago)"),
        ("took", None if run.seconds is None else f"{run.seconds:.1f} s"),
        ("command", " ".join(run.command)),
        ("project", run.project),
        ("queue", run.queue),
        ("commit", run.commit),
        ("began with", str(run.init_from) if run.init_from else None),
        *(("earlier", _segment(segment)) for segment in run.segments),
        ("code", _code(run)),
    ]


def _section(facts: Sequence[tuple[str, str | None]]) -> str:
    return "\n".join(f"{printable(label):<15} {printable(value)}".rstrip() for label, value in facts if value)


def _escaped(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def log(content: bytes) -> str:
    """Output of a script as a terminal may safely show it: colours and cursor movements are spelled out."""
    return _escaped(content.decode(errors="replace").replace("\t", "    "))


def _status(row: Row) -> str:
    run = row.run
    code = f", exit code {run.exit_code}" if run.exit_code else ""
    return status(row) + code


def _code(run: Run) -> str | None:
    if run.commit is None:
        return None
    where = f"{run.base[:12]}{f' ({run.branch})' if run.branch else ' (detached)'}" if run.base else "no commit yet"
    return f"snapshot on top of {where}"


def _model(run: Run, name: str) -> str:
    model = run.models[name]
    rung = "" if model.rung == "graph" else f", by its {model.rung}{f' ({model.why})' if model.why else ''}"
    return f"{model.architecture}, {model.parameters:,} parameters{rung}"


def _trial(trial: Run) -> str:
    values = " ".join(f"{name}={record.brief(value)}" for name, value in trial.results.items())
    return values or trial.status


def _weights(run: Run, name: str) -> str:
    kept = run.weights[name]
    return f"{kept.tensors} tensors, {kept.bytes / 1e6:.2f} MB" + (f", partial: {kept.partial}" if kept.partial else "")


def _series(series: Series) -> str:
    last = [f"{name} {record.brief(each.last)}" for name, each in series.fields.items()]
    return f"{record.counted(series.rows, 'row')}, the last: {', '.join(last)}"


def size(count: int) -> str:
    """So many bytes as a person says it."""
    return f"{count} bytes" if count < 10_000 else f"{count / 1e6:.2f} MB"


def _checkpoint(kept: Checkpoint) -> str:
    results = " ".join(f"{name}={record.brief(value)}" for name, value in kept.results.items())
    size = f"{kept.bytes / 1e6:.2f} MB" + (f", partial: {kept.partial}" if kept.partial else "")
    return f"step {kept.step}  {results}  {', '.join(kept.parts)}  {size}".replace("    ", "  ")


def _beginning(run: Run) -> str:
    """Where in another run one has begun."""
    return "" if run.init_from is None or run.init_from.step is None else f"  after step {run.init_from.step}"


def _segment(segment: Segment) -> str:
    why = f" ({segment.reason})" if segment.reason else ""
    return f"{segment.status}{why}, resumed after step {segment.step}: {segment.commit}"


def surroundings(environment: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Where a run took place."""
    script = environment.get("script") or {}
    seeds = " ".join(f"{name}={value}" for name, value in (script.get("seeds") or {}).items() if value is not None)
    return [
        ("python", script.get("python")),
        ("torch", script.get("torch")),
        ("gpus", ", ".join(script.get("gpus") or [])),
        ("seeds", seeds),
        ("platform", environment.get("platform")),
        ("host", environment.get("host")),
        ("packages", f"{len(environment['packages'])} recorded" if environment.get("packages") else None),
    ]
