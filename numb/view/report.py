"""The README of a report: what the directory holds, and how to load it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from numb import record
from numb.errors import printable
from numb.record import Checkpoint
from numb.view.table import Row

CHECKPOINT = "checkpoint"  # the folder of its parts


def readme(row: Row, notes: Sequence[str], names: Collection[str], checkpoint: Checkpoint | None = None) -> str:
    """Markdown for a reader who has never heard of numb; *names* are the files that stand beside it."""
    run = row.run
    stems = ["state_dict"] if len(run.weights) == 1 else [f"state_dict-{name}" for name in run.weights]
    params = "".join(f"- `{printable(name)}` = `{record.brief(value, 200)}`\n" for name, value in run.params.items())
    results = "".join(f"- `{printable(name)}` = `{record.brief(value, 200)}`\n" for name, value in row.results.items())
    loading = "".join(
        f'state = torch.load("{stem}.pt", weights_only=True)\n# or: safetensors.torch.load_file("{stem}.safetensors")\n'
        for stem in stems
    )
    kept = {
        CHECKPOINT: ""
        if checkpoint is None
        else f"what the script tracked after step {checkpoint.step}, for `torch.load`: "
        + ", ".join(map(printable, checkpoint.parts)),
        "artifacts": "what the script has saved",
        "series": "numbers over time, as CSV",
        "graph.onnx": "the network, without its weights",
        **{f"graph-{name}.onnx": f"the network {name}, without its weights" for name in run.models},
        "record.json": "everything numb recorded about the run",
        "params.json": "the hyperparameters",
        "results.json": "the results",
        "output.log": "what the script printed",
        "traceback.txt": "how it failed",
        "changes.patch": f"what the code had changed against {run.base or 'an empty tree'} (`git apply`)",
        "environment.json": "Python, packages, devices, command line",
    }
    files = "".join(f"- `{name}`: {what}\n" for name, what in kept.items() if name in names)
    return (
        f"# {run.kind} {run.id}\n\n"
        + (f"{printable(run.message)}\n\n" if run.message else "")
        + f"{printable(run.network)}, {run.status}, commit `{run.commit}`\n\n"
        + (f"## Hyperparameters\n\n{params}\n" if params else "")
        + (f"## Results\n\n{results}\n" if results else "")
        + (
            f"## The weights\n\n```python\nimport torch\n\n{loading}model.load_state_dict(state)\n```\n\n"
            if run.weights
            else "The run kept no weights at its end.\n\n"
        )
        + "".join(f"Note: {printable(note)}\n\n" for note in notes)
        + f"## The files\n\n{files}\n"
        + f"The code as it ran, in the new directory `code`: `numb revert {run.id} --worktree code`; or, without numb, from\n"
        + "anywhere in the repository:\n\n```sh\n"
        + f'mkdir code && git -C "$(git rev-parse --show-toplevel)" archive {run.commit} | tar -x -C code\n```\n'
    )
