"""`numb report`: everything about one run as files that need no numb, in a directory of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic, beginnings, record, tables
from numb.capture import weights
from numb.record import Checkpoint, Run
from numb.view import report

if TYPE_CHECKING:
    from numb.project import Project

_SAFE = re.compile(r"[\w-]{1,80}")


def written(project: Project, run: Run, target: Path, step: int | None) -> Path:
    """Write it to the new directory *target*; it is `Project.report`, which says more."""
    commit, row = project.commit(run), project.row(run)
    has_none = not run.weights and run.checkpoints
    kept = beginnings.checkpoint_of(run, step) if step is not None or has_none else None
    with atomic.new_directory(target) as folder:
        # A report is not part of the project: no snapshot takes it in, nor what is left of one that was killed.
        atomic.write(folder / ".gitignore", "*\n")
        notes: list[str] = []
        for name in run.weights:
            stem = "state_dict" if len(run.weights) == 1 else f"state_dict-{name}"
            notes += _state(project.load_state(run, model=name), folder, stem)
        if kept is not None:
            notes += _checkpoint(project, run, kept, folder / report.CHECKPOINT)
        for name, content in project.git.record_files(commit).items():
            if "/" not in name:
                atomic.write(folder / name, content)
        for name in run.series:
            atomic.make_directory(folder / "series")
            atomic.write(folder / "series" / f"{name}.csv", tables.content(project, run, name))
        for name, artifact in run.artifacts.items():
            path = folder / "artifacts" / name
            atomic.make_directory(path.parent)
            if artifact.is_state:
                weights.export_value(project.load(run, name), path if path.suffix else path.with_suffix(".pt"))
            else:
                atomic.write(path, project.artifact(run, name))
        atomic.write(folder / "params.json", record.dumps(run.to_json()["params"], indent=2) + "\n")
        results = {name: record.encode(value, name) for name, value in row.results.items()}
        atomic.write(folder / "results.json", record.dumps(results, indent=2) + "\n")
        atomic.write(folder / "changes.patch", project.patch(run))
        names = {path.name for path in folder.iterdir()}
        atomic.write(folder / "README.md", report.readme(row, notes, names, kept))
    return target


def _state(state: Any, folder: Path, stem: str) -> list[str]:
    return weights.export(state, folder / f"{stem}.pt", folder / f"{stem}.safetensors")


def _checkpoint(project: Project, run: Run, kept: Checkpoint, folder: Path) -> list[str]:
    """Write the parts of a checkpoint. A record may come from anywhere, and the names in it are not those of files."""
    atomic.make_directory(folder)
    notes = []
    for number, (part, state) in enumerate(project.load_state(run, kept.step).items()):
        stem = part if _SAFE.fullmatch(part) else f"part-{number}"
        if part in kept.networks:
            notes += _state(state, folder, stem)
        else:
            weights.export_value(state, folder / f"{stem}.pt")
    return notes
