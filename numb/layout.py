"""Where everything stands: each path below `.nmb/`, each ref, each environment variable, spelled once.

Nothing here opens a file or knows what is in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "nmb.json"
FOLDER = ".nmb"
RECORD_FOLDER = f"{FOLDER}/run"  # in the tree of a run's commit

DEFAULT_BRANCH = "numb"
PINS = "refs/numb/pins/"
QUEUED = "refs/numb/queued/"  # the snapshots that jobs of queues run
KNOWN = "refs/numb/remotes/"  # the branch as it was last seen at each remote

RUN_DIR = "NUMB_RUN_DIR"  # tells a script's hooks where the run's folder is
EXTRACT_SECONDS = "NUMB_EXTRACT_SECONDS"  # how long the function that extracts results may take
BREAK_HOOK = "NUMB_BREAK_HOOK"  # the name of a hook that shall fail: how the tests see that a failing hook is harmless


def page(run_id: str) -> str:
    """What the page of a run is called, where it is given no other name: no snapshot takes it in."""
    return f"report-{run_id}.html"


class RunFolder:
    """The folder of one run in flight, as the launcher and the hooks in the script both see it.

    Fields are made on demand, for the half inside the user's script imports this before it knows whether it is needed.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from pathlib import Path  # `import numb` does without

        self.path = Path(path)

    @property
    def alive(self) -> Path:
        """Locked by the launcher for as long as it lives."""
        return self.path / "alive"

    @property
    def owner(self) -> Path:
        """Which process of the script may record."""
        return self.path / "owner"

    @property
    def state(self) -> Path:
        """What the launcher knows: written whole at the start, when the script has started, and at the end."""
        return self.path / "run.json"

    @property
    def reserve(self) -> Path:
        """Room for the end of the run, given back when it is written."""
        return self.path / "reserve"

    @property
    def order(self) -> Path:
        """What is settled when the run begins: mode and values to inject, for the script, and what it was launched in."""
        return self.path / "order.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def ask(self) -> Path:
        """A FIFO on which the script rings and says what it would like to know."""
        return self.path / "ask"

    @property
    def answer(self) -> Path:
        return self.path / "answer"

    @property
    def index(self) -> Path:
        """The git index that holds this run's snapshot."""
        return self.path / "index"

    @property
    def borrowed(self) -> Path:
        """The same of a run that a queue has begun, as it is where the script runs and not in the work tree."""
        return self.path / "index.borrowed"

    @property
    def chosen(self) -> Path:
        """The manifests of the weights that a trial loads, one for each model."""
        return self.path / "chosen"

    @property
    def content(self) -> Path:
        """What becomes `.nmb/run/` in the commit, file by file."""
        return self.path / "record"

    @property
    def record(self) -> Path:
        return self.content / "record.json"

    @property
    def log(self) -> Path:
        return self.content / "output.log"

    @property
    def graph(self) -> Path:
        return self.content / "graph.onnx"

    @property
    def environment(self) -> Path:
        return self.content / "environment.json"

    @property
    def weights(self) -> Path:
        return self.content / "weights"

    @property
    def checkpoints(self) -> Path:
        return self.content / "checkpoints"

    @property
    def artifacts(self) -> Path:
        return self.content / "artifacts"

    @property
    def series(self) -> Path:
        """The journal of the numbers over time that the script logs."""
        return self.path / "series"

    @property
    def observed(self) -> Path:
        """The journal of those that the launcher sees: of the machine, and in what the script prints."""
        return self.path / "observed"

    @property
    def journals(self) -> tuple[Path, Path]:
        """Each has one process that writes it."""
        return self.series, self.observed

    @property
    def own(self) -> Path:
        """What is the script's own, `run.dir`."""
        return self.path / "own"

    @property
    def beginning(self) -> Path:
        """The manifest of the state that the training begins with: of the checkpoint that it resumes, or of another run."""
        return self.path / "beginning.json"

    @property
    def objects(self) -> Path:
        return self.path.parent.parent / "objects"


class Layout:
    """Every path below the `.nmb/` of one work tree."""

    __slots__ = ("root",)

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    @property
    def ignore(self) -> Path:
        return self.folder / ".gitignore"

    @property
    def format(self) -> Path:
        return self.folder / "format"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs / run_id)

    @property
    def objects(self) -> Path:
        """In a linked work tree a symbolic link to a folder that is there for as long as the repository."""
        return self.folder / "objects"

    @property
    def listing(self) -> Path:
        """The SQLite cache of the branch."""
        return self.folder / "index.sqlite"

    @property
    def index(self) -> Path:
        """numb's own git index, kept between runs for its stat cache."""
        return self.folder / "index"

    @property
    def scratch(self) -> Path:
        """For indexes of commands that are not runs."""
        return self.folder / "tmp"

    @property
    def publishing(self) -> Path:
        """Held while a commit is put on the branch: not for safety (the refs move by compare-and-swap) but for peace."""
        return self.folder / "publish.lock"

    @property
    def recovering(self) -> Path:
        return self.folder / "recover.lock"

    @property
    def reverting(self) -> Path:
        """Stands while the work tree is being rewritten, and names the commit that holds what was there before."""
        return self.folder / "reverting.json"

    @property
    def reverted(self) -> Path:
        """The id under which this work tree's last `revert` saved what was there before."""
        return self.folder / "reverted.json"

    @property
    def purged(self) -> Path:
        """The first commit of each history that a purge has replaced, a line each."""
        return self.folder / "purged"

    @property
    def queues(self) -> Path:
        return self.folder / "queues"

    @property
    def work(self) -> Path:
        """Where jobs of queues run, a folder for each worker."""
        return self.folder / "work"

    @property
    def left(self) -> Path:
        """What such jobs have written beside themselves, by their runs."""
        return self.folder / "left"

    @property
    def hyperparameters(self) -> Path:
        """What was found in the project's sources, so that an unchanged one is not read again."""
        return self.folder / "hyperparameters.json"

    @property
    def hashes(self) -> Path:
        """Hashes of files that stay out of snapshots, by size and time, so that they are read once."""
        return self.folder / "left-out.json"


def objects_in_git(common_dir: Path) -> Path:
    """Where linked work trees keep their objects when there is no main one."""
    return common_dir / "numb" / "objects"


def branch_ref(branch: str) -> str:
    return f"refs/heads/{branch}"


def known_ref(remote: str) -> str:
    return KNOWN + remote


def queued_ref(name: str) -> str:
    return QUEUED + name


def pin_ref(run_id: str) -> str:
    return PINS + run_id
