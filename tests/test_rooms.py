"""The house: what each room may know is what it imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "numb"

# Room to what it may import of numb, and of others. Change it in the commit that adds the edge.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "__init__": ({"artifacts", "hooks", "hp", "starting", "version", "project"}, set()),
    "__main__": ({"cli"}, set()),
    "version": (set(), set()),
    "errors": (set(), set()),
    "record": ({"errors"}, set()),
    "layout": (set(), set()),
    "alive": (set(), set()),
    "atomic": ({"errors"}, set()),
    "keep": ({"record"}, set()),
    "guard": (set(), set()),
    "callbacks": (set(), set()),
    "artifacts": ({"capture", "record"}, {"numpy", "onnx", "pandas", "safetensors", "yaml"}),
    "journal": ({"record"}, set()),
    "tables": ({"atomic", "errors", "journal", "layout", "project", "record", "store.objects"}, {"isal"}),
    "metering": ({"processes"}, {"psutil", "pynvml"}),
    "readers": ({"journal"}, {"tensorboard"}),
    "observing": ({"atomic", "config", "errors", "journal", "layout", "metering", "readers"}, set()),
    "watching": ({"errors", "inflight", "journal", "project", "record"}, set()),
    "rundir": ({"artifacts", "atomic", "layout", "record", "store.objects"}, set()),
    "config": ({"callbacks", "errors", "guard", "hp", "keep"}, set()),
    "processes": (set(), set()),
    "output": (set(), set()),
    "launch": ({"errors", "output", "processes"}, set()),
    "gitstore": ({"atomic", "errors", "layout", "record"}, {"git"}),
    "gitrewrite": ({"errors", "gitstore", "layout"}, set()),
    "gitremote": ({"errors", "gitstore", "layout", "record"}, set()),
    "store.objects": ({"atomic", "errors"}, {"blake3"}),
    "store.parts": ({"atomic", "errors", "store.objects"}, set()),
    "store.remotes": ({"atomic", "errors", "store.objects", "store.places"}, set()),
    "store.places": ({"errors", "store.objects"}, set()),
    "store.places.folder": ({"errors", "store.objects", "store.places"}, set()),
    "store.places.sftp": (set(), set()),
    "store.places.ssh": ({"errors", "store.objects", "store.places"}, set()),
    "store.places.s3": ({"errors", "store.objects", "store.places"}, {"s3fs", "aiohttp", "botocore"}),
    "query": ({"errors", "record"}, set()),
    "store.columns": ({"record"}, set()),
    "store.choosing": ({"errors", "query", "record", "store.columns"}, set()),
    "store.index": ({"atomic", "errors", "query", "record", "store.choosing", "store.columns"}, set()),
    "hooks": ({"callbacks", "layout", "capture", "hp", "journal", "record"}, set()),
    "order": ({"errors", "hp", "layout", "record"}, set()),
    "capture.*": ({"alive", "atomic", "artifacts", "callbacks", "capture", "errors", "guard", "hp", "journal", "keep", "layout", "order", "record", "rundir", "store.objects", "store.parts"}, {"torch", "onnx", "safetensors", "numpy"}),
    # Reading sources and values knows nothing of files that are kept, of records, or of a run.
    "hp.*": ({"errors", "hp"}, set()),
    "hp.clicking": ({"errors", "hp"}, {"click"}),
    "hp.formats": ({"atomic", "config", "errors", "hp"}, {"yaml", "tomli", "tomllib", "tomli_w"}),
    "hp.runtime": ({"capture", "hp", "layout", "order"}, set()),
    "hp.settings": ({"errors", "hp", "record"}, set()),
    "hp.table": ({"atomic", "errors", "hp", "record"}, set()),
    "inflight": ({"alive", "atomic", "errors", "hp", "launch", "layout", "order", "record", "rundir"}, set()),
    "grid": ({"errors"}, set()),
    "searching": ({"errors", "grid", "guard", "hp", "record"}, {"optuna"}),
    "overseeing": ({"engines", "errors", "hp", "inflight", "processes", "proposing", "project", "queue", "record", "sweep"}, set()),
    "proposing": ({"atomic", "errors", "hp", "journal", "project", "queue", "record", "searching"}, set()),
    "queue": ({"alive", "atomic", "config", "errors", "record", "states"}, set()),
    "states": ({"atomic", "errors"}, set()),
    "workplace": ({"alive", "atomic", "errors", "gitstore", "layout", "record"}, set()),
    "jobs": ({"alive", "atomic", "errors", "gitstore", "layout", "processes", "queue", "record", "snapshots", "workplace"}, set()),
    "view.watch": ({"errors", "record", "view", "watching"}, {"plotext", "rich"}),
    "view.*": ({"errors", "hp", "record", "view"}, {"tabulate"}),
    "view.charts": ({"errors", "record", "view"}, {"matplotlib"}),
    "view.page": ({"errors"}, {"jinja2", "markupsafe"}),
    "view.plot": ({"errors", "record", "view"}, {"matplotlib", "plotext"}),
    "talk": ({"errors", "inflight", "record"}, set()),
    "folder": ({"atomic", "errors", "gitstore", "inflight", "layout", "store.objects"}, set()),
    "snapshots": ({"atomic", "config", "errors", "folder", "gitstore", "layout", "record"}, set()),
    "branch": ({"atomic", "errors", "gitstore", "inflight", "layout", "record", "rundir", "snapshots", "store.index", "tables"}, set()),
    "extraction": ({"atomic", "errors", "hp", "inflight", "layout", "processes", "project", "record"}, set()),
    "extracted": ({"artifacts", "callbacks", "capture", "errors", "hp", "project", "record"}, set()),
    # Where both halves are in one process.
    "starting": (
        {"capture", "errors", "extraction", "gitstore", "hooks", "hp", "inflight", "launch", "layout", "order", "processes", "project", "record", "sharing", "talk"},
        set(),
    ),
    "beginnings": ({"atomic", "capture", "errors", "inflight", "order", "project", "record", "tables"}, set()),
    "asking": ({"atomic", "errors", "project", "query", "record", "store.columns", "store.index", "tables", "talk", "view"}, {"pyarrow"}),
    "frames": ({"journal", "project", "record", "tables"}, {"numpy", "pandas"}),
    "notebook": ({"artifacts", "comparing", "errors", "frames", "hp", "journal", "melding", "project", "query", "record", "tables", "talk", "view"}, {"pandas"}),
    "remarks": ({"errors", "housekeeping", "project", "record"}, set()),
    # What one command does with a project, which hands itself over: nothing of these is imported before it is used.
    "trials": ({"atomic", "capture", "errors", "hp", "inflight", "order", "project", "record", "talk"}, set()),
    "engines": ({"alive", "config", "engines"}, set()),
    "engines.debug": ({"engines"}, set()),
    "engines.slurm": ({"alive", "engines", "errors"}, {"submitit"}),
    "engines.nursery": (set(), set()),
    "engines.warm": ({"alive", "engines", "processes"}, set()),
    "engines.local": ({"config", "errors", "engines", "launch", "processes"}, set()),
    "sweep": ({"alive", "engines", "errors", "hp", "jobs", "order", "project", "proposing", "queue", "record", "talk", "workplace"}, set()),
    "revert": ({"atomic", "config", "errors", "gitstore", "inflight", "project", "record", "snapshots", "talk"}, set()),
    "plotting": ({"atomic", "errors", "journal", "project", "record", "tables", "talk", "view"}, set()),
    "melding": (set(), set()),
    "network": (set(), {"onnx"}),
    "comparing": ({"errors", "gitstore", "hp", "inflight", "journal", "layout", "melding", "network", "project", "record", "tables", "talk"}, set()),
    "pages": ({"atomic", "capture", "errors", "journal", "plotting", "project", "record", "talk", "view"}, set()),
    "reporting": ({"atomic", "beginnings", "capture", "project", "record", "tables", "view"}, set()),
    "doctor": (
        {
            "atomic", "config", "errors", "gitstore", "inflight", "layout", "project", "purging", "record", "sharing",
            "store.objects",
        },
        set(),
    ),
    "purging": ({"atomic", "errors", "gitrewrite", "inflight", "layout", "project", "record"}, set()),
    "sharing": (
        {"atomic", "config", "errors", "gitremote", "housekeeping", "layout", "project", "purging", "store.objects", "store.places", "store.remotes"},
        set(),
    ),
    "housekeeping": (
        {
            "atomic", "branch", "capture", "doctor", "engines", "errors", "inflight", "jobs", "layout", "project", "purging",
            "record", "snapshots", "states", "store.index", "tables", "workplace",
        },
        set(),
    ),
    "deinit": ({"atomic", "config", "errors", "inflight", "layout", "project"}, set()),
    "project": (
        {
            "alive", "artifacts", "asking", "atomic", "beginnings", "branch", "capture", "comparing", "config", "deinit", "doctor", "engines", "errors", "extraction", "folder", "gitstore",
            "housekeeping", "hp", "inflight", "jobs", "journal", "launch", "layout", "melding", "network", "notebook", "observing", "order", "overseeing", "pages", "plotting", "proposing", "purging", "queue", "record", "remarks", "searching",
            "reporting", "revert", "sharing", "snapshots", "store.index", "store.objects", "sweep", "tables", "talk",
            "trials", "view", "watching", "workplace",
        },
        set(),
    ),
    "terminal": ({"errors", "record", "talk", "view"}, {"click"}),
    "commands.*": ({"commands", "engines", "errors", "grid", "guard", "hp", "layout", "order", "overseeing", "project", "proposing", "queue", "record", "sweep", "talk", "terminal", "view", "watching"}, {"click", "rich"}),
    "cli": ({"commands", "version"}, {"click"}),
}  # fmt: skip


def modules() -> list[str]:
    return sorted(
        ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for p in PACKAGE.rglob("*.py")
    )


def rule(module: str) -> tuple[set[str], set[str]]:
    room = module.partition(".")[0]
    return ROOMS.get(module) or ROOMS.get(f"{room}.*") or (set(), set())


def imported(module: str) -> set[str]:
    """The modules that a file imports, wherever in it."""
    path = PACKAGE / Path(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    tree = ast.parse(file.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= (
                {f"{node.module}.{name.name}" for name in node.names} if node.module == "numb" else {node.module or ""}
            )
            if node.module in ("numb.capture", "numb.commands", "numb.hp", "numb.view", "numb.store"):
                found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_it_may_know(module: str) -> None:
    """The table of rooms holds: no edge that it does not name, and third parties only behind their door."""
    ours, others = rule(module)
    names = imported(module)
    inside = {name.removeprefix("numb.") for name in names if name.startswith("numb.")}
    outside = {
        name.partition(".")[0] for name in names if not name.startswith("numb") and name
    } - sys.stdlib_module_names
    strange = {n for n in inside if not any(n == o or n.startswith(o + ".") for o in ours)}
    assert (set(), set()) == (strange - {"store", "version"}, outside - others - {"__future__"})


@pytest.mark.parametrize(
    ("entrance", "without"),
    [
        ("numb", {"torch", "onnx", "git", "click", "sqlite3", "tabulate", "subprocess", "json"}),
        ("numb.hp.manager", {"torch", "onnx", "git", "click", "sqlite3", "tabulate", "yaml", "subprocess"}),
        ("numb.capture.session", {"torch", "onnx", "git", "click", "sqlite3", "tabulate"}),
        ("numb.cli", {"torch", "onnx", "git", "tabulate", "sqlite3", "numb.project"}),
        ("numb.project", {"torch", "onnx", "git", "tabulate", "click", "safetensors"}),
    ],
)
def test_what_is_heavy_is_imported_only_when_it_is_used(entrance: str, without: set[str]) -> None:
    """`import numb` costs a script nothing, the script's half knows no git or SQL, and no command imports torch to begin."""
    program = f"import sys, {entrance}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, check=True, capture_output=True, text=True
    )
    assert set() == without & set(loaded.stdout.split())


def test_there_is_one_door_to_each_outside_thing() -> None:
    """Only gitstore starts git, only the index says SQL, only atomic renames and syncs, only layout spells .nmb."""
    doors = {
        '"git"': {"gitstore"},
        "sqlite3": {"store.index"},
        "os.replace": {"atomic"},
        "os.rename": {"atomic"},
        "os.fsync": {"atomic"},
        '".nmb"': {"layout"},
        "shell=True": set(),
        "weights_only=False": set(),
        "reset --hard": set(),
    }
    found = {words: {m for m in modules() if words in source(m)} for words in doors}
    assert doors == found


def source(module: str) -> str:
    path = PACKAGE / Path(*module.split("."))
    return (path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py").read_text()
