"""Measure what numb promises to cost. Every figure is a median, and every target a ratio to something in the same run.

python bench/run.py            everything
python bench/run.py list       only the measurements whose name contains `list`
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from numb import record
from numb.gitstore import GitStore
from numb.record import Model, Run, RunId, Weights
from numb.store.index import Index

HERE = Path(__file__).parent
PYTHON = sys.executable
NUMB = [PYTHON, "-m", "numb"]


@dataclass(frozen=True)
class Figure:
    """One measurement beside what it may cost, in seconds, or in bytes where the unit is MB."""

    name: str
    value: float
    limit: float
    meaning: str
    unit: str = "ms"

    @property
    def scale(self) -> float:
        return {"ms": 1e3, "us": 1e6, "MB": 1e-6, "B": 1.0}[self.unit]

    @property
    def digits(self) -> int:
        return 2 if self.unit == "us" else 1


def seconds(work: Callable[[], object], times: int, before: Callable[[], object] = lambda: None) -> float:
    """The median duration of *work*."""
    return in_turn(work, times=times, before=before)[0]


def in_turn(*works: Callable[[], object], times: int, before: Callable[[], object] = lambda: None) -> list[float]:
    """The median duration of each, done one after the other again and again: what the machine does meanwhile, both feel."""
    measured: list[list[float]] = [[] for _ in works]
    for _ in range(times):
        before()
        for work, durations in zip(works, measured, strict=True):
            start = time.perf_counter()
            work()
            durations.append(time.perf_counter() - start)
    return [statistics.median(durations) for durations in measured]


def run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="numb-bench-") as path:
        yield Path(path)


def repository(root: Path) -> None:
    run("git", "init", "-q", "-b", "main", ".", cwd=root)
    run("git", "config", "user.name", "bench", cwd=root)
    run("git", "config", "user.email", "bench@localhost", cwd=root)


def import_click() -> float:
    return seconds(lambda: run(PYTHON, "-c", "import click"), 15)


def startup() -> Iterator[Figure]:
    """`numb --version`, and `import numb` in a script."""
    click = import_click()
    yield Figure("numb --version", seconds(lambda: run(*NUMB, "--version"), 15), 2 * click, "2 x import click")
    bare = seconds(lambda: run(PYTHON, "-c", "pass"), 15)
    numb = seconds(lambda: run(PYTHON, "-c", "from numb import numb_model"), 15)
    yield Figure("import numb", numb - bare, 0.010 * click / 0.031, "10 ms where import click takes 31 ms")


def overhead() -> Iterator[Figure]:
    """The digits example, plain and under numb, in turns."""
    with folder() as root:
        shutil.copytree(HERE.parent / "examples" / "digits", root, dirs_exist_ok=True)
        script = (root / "train.py").read_text().replace("epochs = 8", "epochs = 1")
        (root / "train.py").write_text(script)
        (root / "nmb.json").write_text(json.dumps({"version": 1, "train": {"command": [PYTHON, "train.py"]}}))
        (root / ".gitignore").write_text("__pycache__/\n")
        repository(root)
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "digits", cwd=root)
        plain: list[float] = []
        known: list[float] = []
        new: list[float] = []
        torch = seconds(lambda: run(PYTHON, "-c", "import torch"), 5)
        for _ in range(9):
            run(*NUMB, "init", cwd=root)
            plain.append(seconds(lambda: run(PYTHON, "train.py", cwd=root), 1))
            new.append(seconds(lambda: run(*NUMB, "train", "--again", cwd=root), 1))
            known.append(seconds(lambda: run(*NUMB, "train", "--again", cwd=root), 1))
            nmb = (root / "nmb.json").read_text()
            run(*NUMB, "deinit", "--yes", cwd=root)
            (root / "nmb.json").write_text(nmb)
        scale = f"where import torch takes 0.75 s; here it takes {torch:.2f} s"
        base = statistics.median(plain)
        yield Figure("run, known architecture", statistics.median(known) - base, 0.2 * torch / 0.75, f"0.2 s {scale}")
        yield Figure("run, new architecture", statistics.median(new) - base, 0.4 * torch / 0.75, f"0.4 s {scale}")


def fill(root: Path, count: int, *, with_weights: bool = False) -> None:
    """Put *count* runs on the branch, as numb would have; of ten tensors of 10 MB each, whose objects are not here."""
    dice = random.Random(0)
    run(*NUMB, "init", cwd=root)
    tip = subprocess.run(
        ["git", "rev-parse", "numb"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()
    stream = []
    for number in range(count):
        started = 1_700_000_000 + number * 60
        model = Model(f"{number % 7:016x}", "graph", "Net", 12345)
        params = {"lr": dice.choice([0.1, 0.01, 0.001]), "seed": number, "layers": number % 5, "name": "adam"}
        kept = Run(
            RunId.new(started), record.TRAIN, started, record.COMPLETE, seconds=60.0, command=("python", "train.py"),
            models={"Net": model}, params=params, results={"accuracy": dice.random(), "loss": dice.random()}, host="bench",
            graph="graph.onnx", weights={"Net": Weights("weights/Net.json", 10, 10**8)} if with_weights else {},
        )  # fmt: skip
        manifest = manifest_of(number) if with_weights else ""
        text = record.dumps(kept.to_json(), indent=1)
        message = record.subject(kept)
        stream.append(
            f"commit refs/heads/numb\nmark :{number + 1}\ncommitter b <b@b> {started} +0000\n"
            f"data {len(message.encode())}\n{message}\nfrom {f':{number}' if number else tip}\n"
            f"M 100644 inline .nmb/run/record.json\ndata {len(text.encode())}\n{text}\n"
            + (f"M 100644 inline .nmb/run/weights/Net.json\ndata {len(manifest)}\n{manifest}\n" if with_weights else "")
        )
    subprocess.run(["git", "fast-import", "--quiet", "--force"], cwd=root, input="".join(stream).encode(), check=True)


def manifest_of(number: int) -> str:
    """That of a state of ten tensors, of which no other run has one."""
    names = [f"{number * 10 + n:064x}" for n in range(10)]
    tensors = [
        {"name": f"layer{n}", "dtype": "float32", "shape": [2_500_000], "object": name, "offset": 0, "nbytes": 10**7}
        for n, name in enumerate(names)
    ]
    tree = {"ordered": [[f"layer{n}", {"tensor": n}] for n in range(10)]}
    facts = {"format": 1, "tree": tree, "tensors": tensors, "pickles": [], "left_out": [], "partial": None}
    return json.dumps(facts | {"objects": dict.fromkeys(names, 10**7)})


def listing() -> Iterator[Figure]:
    """`numb list` with 10,000 runs, and its index from nothing."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text('{"version": 1}')
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        fill(root, 10_000)
        git = GitStore.discover(root)
        path = root / ".nmb" / "index.sqlite"

        def build() -> None:
            index = Index(path)
            tip = git.tip().commit or ""
            index.extend(git.entries(tip), tip)
            index.close()

        took = seconds(build, 5, lambda: path.unlink(missing_ok=True))
        click = import_click()
        yield Figure("index of 10,000 runs", took, click / 0.031, "1 s where import click takes 31 ms")
        took = seconds(lambda: run(*NUMB, "list", cwd=root), 15)
        yield Figure("numb list, 10,000 runs", took, 3 * click, "3 x import click")


def query() -> Iterator[Figure]:
    """`numb list --where … --sort …` over many runs, whose listing is there; and its two parts, to see where time goes."""
    importing = [PYTHON, "-c", "import click"]
    words = ("list", "--where", "lr < 0.5 and results.accuracy > 0.5", "--sort", "-results.accuracy")
    for count, times in ((10_000, 4), (100_000, 8)):
        with folder() as root:
            repository(root)
            (root / "nmb.json").write_text('{"version": 1}')
            run("git", "add", "-A", cwd=root)
            run("git", "commit", "-qm", "bench", cwd=root)
            fill(root, count)
            run(*NUMB, "list", cwd=root)
            took, click = in_turn(lambda root=root: run(*NUMB, *words, cwd=root), lambda: run(*importing), times=11)
            yield Figure(
                f"numb list --where, {count:,} runs", took, times * click, f"{times} x python -c 'import click'"
            )


def frame() -> Iterator[Figure]:
    """A million rows of a series into a DataFrame, beside pandas.read_csv of the same file."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text('{"version": 1, "train": {"command": ["python", "train.py"]}}')
        (root / "train.py").write_text(
            "import random\nimport numb\nfor step in range(1_000_000):\n"
            "    numb.log(step=step, loss=random.random(), acc=random.random())\n"
        )
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        run(*NUMB, "train", cwd=root)
        (root / "log.csv").write_bytes(
            subprocess.run([*NUMB, "show", "@", "--series", "log"], cwd=root, capture_output=True, check=True).stdout
        )
        import pandas

        import numb

        last = numb.open(root)[-1]
        name = last.record.series["log"].hash
        shutil.copy(root / ".nmb" / "objects" / name[:2] / name, root / "log.csv.gz")
        ours, packed, plain = in_turn(
            lambda: last.series("log"),
            lambda: pandas.read_csv(root / "log.csv.gz"),
            lambda: pandas.read_csv(root / "log.csv"),
            times=7,
        )
        yield Figure(
            "1,000,000 rows as a DataFrame", ours, 1.3 * packed, "1.3 x pandas.read_csv of the file, which is gzip"
        )
        yield Figure("the same", ours, 1.3 * plain, "1.3 x pandas.read_csv of the CSV; dates are texts there")


def snapshot() -> Iterator[Figure]:
    """2,000 files of which 10 have changed, and going back to them."""
    with folder() as root:
        repository(root)
        for number in range(2000):
            path = root / f"d{number % 40}" / f"f{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"# {number}\n" * 40)
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "files", cwd=root)
        (root / "nmb.json").write_text(json.dumps({"version": 1, "train": {"command": ["true"]}}))
        run(*NUMB, "init", cwd=root)
        run(*NUMB, "train", cwd=root)
        git = GitStore.discover(root)
        seed, index = root / ".nmb" / "index", root / ".nmb" / "bench-index"

        def edit() -> None:
            for number in range(10):
                (root / f"d{number}" / f"f{number}.py").write_text(f"# {random.random()}\n")

        def take() -> None:
            taken = GitStore.discover(root).capture(index, seed, max_bytes=1 << 24)
            git.write_tree(taken.index)

        yield Figure("snapshot, 2,000 files", seconds(take, 15, edit), 0.060, "60 ms")

        run("git", "branch", "old", cwd=root)
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "edited", cwd=root)
        checkout = seconds(
            lambda: run("git", "checkout", "-q", "-", cwd=root),
            7,
            lambda: run("git", "checkout", "-q", "old", cwd=root),
        )
        run("git", "checkout", "-q", "main", cwd=root)
        took = seconds(lambda: run(*NUMB, "revert", "@", cwd=root), 7, edit)
        yield Figure("numb revert, 2,000 files", took, 5 * checkout, "5 x git checkout")


def diff() -> Iterator[Figure]:
    """Two runs of a project of 2,000 files that differ in 10 of them, beside `git diff` of their commits."""
    with folder() as root:
        repository(root)
        for number in range(2000):
            path = root / f"d{number % 40}" / f"f{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"# {number}\n" * 40)
        (root / "train.py").write_text(
            "from numb import numb_queue, numb_trial_result\nlr = 0.1\nnumb_queue()\nnumb_trial_result({'acc': lr})\n"
        )
        (root / "nmb.json").write_text(json.dumps({"version": 1, "train": {"command": [PYTHON, "train.py"]}}))
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "files", cwd=root)
        run(*NUMB, "init", cwd=root)
        run(*NUMB, "train", cwd=root)
        for number in range(10):
            (root / f"d{number}" / f"f{number}.py").write_text(f"# {random.random()}\n")
        run(*NUMB, "train", "lr=0.2", cwd=root)
        git, numb, tree = in_turn(
            lambda: run("git", "diff", "numb~1", "numb", cwd=root),
            lambda: run(*NUMB, "diff", "@-1", "@", cwd=root),
            lambda: run(*NUMB, "diff", "@-1", cwd=root),
            times=15,
        )
        click = import_click()
        scale = f"where import click takes 31 ms; here it takes {1000 * click:.0f} ms"
        yield Figure("numb diff, 2,000 files", numb - git, 0.3 * click / 0.031, f"0.3 s over git diff, {scale}")
        yield Figure("numb diff with the work tree", tree - git, 0.4 * click / 0.031, f"0.4 s over git diff, {scale}")


MODULE = """import torch
from torch import nn
from numb.hp import _


class Block{n}(nn.Module):
    def __init__(self, inputs: int, outputs: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.drop = nn.Dropout(_("net.drop{n}", 0.1, help="share of units", min=0, max=1))

    def forward(self, x):
        for _ in range(2):
            x = torch.relu(self.layer(x)) + x.mean(dim=-1, keepdim=True) * 0.5
        return self.drop(x)

"""


def hyperparameters() -> Iterator[Figure]:
    """Finding hyperparameters in 2,000 files of 200 lines, and using one in a loop."""
    from numb.hp import table

    with folder() as root:
        files = []
        for number in range(2000):
            text = MODULE.replace("{n}", str(number)) + "".join(
                f"def step{k}(x, rate={k}):\n    total = [x * rate + i for i in range(10)]\n    if total[0] > {k}:\n"
                f"        return sum(total) / len(total)\n    return {{'x': x, 'total': total}}\n\n\n"
                for k in range(26)
            )
            files.append(root / f"m{number}.py")
            files[-1].write_text(text)
        script = root / "train.py"
        script.write_text("".join(f"import {path.stem}\n" for path in files) + MODULE.replace("{n}", ""))
        kept = root / "kept.json"

        def parse_all() -> None:
            for path in files:
                ast.parse(path.read_text())

        parse = seconds(parse_all, 3)
        first = seconds(lambda: table.read([script], files, root, kept), 3, lambda: kept.unlink(missing_ok=True))
        yield Figure("hp, 2,000 files", first, 1.5 * parse, "1.5 x ast.parse of them")
        again = seconds(lambda: table.read([script], files, root, kept), 3)
        yield Figure("hp, 2,000 files again", again, 0.1 * parse, "a tenth of ast.parse of them, for looking at each")
    setup = "from numb.hp import _; _('lr', 1e-3)"
    loop = min(timeit.repeat("_('lr', 1e-3)", setup, number=100_000, repeat=7)) / 100_000
    yield Figure("1,000 calls of _", 1000 * loop, 0.002, "2 µs a call")
    with folder() as root:
        repository(root)
        (root / "train.py").write_text(MODULE.replace("{n}", "") + "lr = _('lr', 0.1)\n")
        (root / "nmb.json").write_text('{"version": 1, "train": {"command": "python train.py"}}')
        run(*NUMB, "init", cwd=root)
        took = seconds(lambda: run(*NUMB, "hp", cwd=root), 15)
        yield Figure("numb hp", took, 3 * import_click(), "3 x import click")


SHAPES = {"100 of 1 MB": (100, 1 << 18), "1,000 of 0.1 MB": (1000, 26_214)}  # tensors, and numbers in each: 100 MB


def weights() -> Iterator[Figure]:
    """Saving 100 MB again and again, what a checkpoint waits for, and reading, beside torch and safetensors."""
    for name, (count, numbers) in SHAPES.items():
        yield from _saving(name, count, numbers)
    yield from _small()


def _saving(name: str, count: int, numbers: int) -> Iterator[Figure]:
    import torch
    from safetensors.torch import load_file, save_file

    from numb.capture import tracking
    from numb.capture import weights as kept
    from numb.store.objects import Objects

    with folder() as root:
        state = {f"layer{n}": torch.randn(numbers) for n in range(count)}
        turn = iter(range(1_000_000))
        objects = Objects(root / "objects")
        saver = kept.Saver(objects)
        saver.save(state, private=True)

        def change(some: int) -> None:
            for path in root.glob("*.pt"):
                path.unlink()
            for _ in range(some):
                state[f"layer{next(turn) % count}"].add_(1)

        def plainly() -> None:
            torch.save(state, root / f"{next(turn)}.pt")

        def kept_again() -> None:
            saver.save(state, private=True)

        plain, again = in_turn(plainly, kept_again, times=9, before=lambda: change(count // 100))
        used = sum(objects.path(digest).stat().st_size for digest in objects)
        yield Figure(f"{name}, ten saves, 1 % changed", used, 115e6, "on the disk", "MB")
        yield Figure(f"{name}, a save, 1 % changed", again, 0.5 * plain, "0.5 x torch.save of all")

        def all_anew() -> None:
            change(count)
            for digest in list(objects):  # as those of torch: memory for a file is not the same, new or used before
                objects.path(digest).unlink()

        synced, plain, everything = in_turn(
            lambda: _save_synced(state, root / f"{next(turn)}.pt"), plainly, kept_again, times=7, before=all_anew
        )
        yield Figure(f"{name}, a save, all changed", everything, 1.3 * plain, "1.3 x torch.save, which does not sync")
        yield Figure(f"{name}, the same, beside a sync", everything, 1.3 * synced, "1.3 x torch.save and a sync")

        net = torch.nn.ParameterDict(state)
        cloned = lambda: {key: value.clone() for key, value in net.state_dict().items()}  # noqa: E731
        clone, waits = in_turn(cloned, lambda: tracking.states({"net": net}), times=15)
        yield Figure(f"{name}, checkpoint waits", waits, 1.3 * clone, "1.3 x a clone of the tensors")

        save_file(state, root / "all.safetensors")
        manifest = saver.save(state).to_json()
        load, read = in_turn(
            lambda: load_file(root / "all.safetensors"), lambda: kept.read(manifest, objects), times=15
        )
        yield Figure(f"{name}, read", read, 1.5 * load, "1.5 x safetensors' load_file, which reads no byte yet")
        net = torch.nn.ParameterDict({key: torch.zeros_like(value) for key, value in state.items()})
        load, read = in_turn(
            lambda: net.load_state_dict(load_file(root / "all.safetensors")),
            lambda: net.load_state_dict(kept.read(manifest, objects)),
            times=15,
        )
        yield Figure(f"{name}, read into a network", read, 1.5 * load, "1.5 x load_state_dict of load_file")


def _save_synced(state: object, path: Path) -> None:
    import torch

    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _small() -> Iterator[Figure]:
    import torch

    from numb.capture import weights as kept
    from numb.store.objects import Objects

    with folder() as root:
        state = {f"layer{n}": torch.randn(50) for n in range(5000)}
        turn = iter(range(1_000_000))
        plain, first = in_turn(
            lambda: torch.save(state, root / f"{next(turn)}.pt"),
            lambda: kept.Saver(Objects(root / f"{next(turn)}")).save(state, private=True),
            times=9,
        )
        yield Figure("5,000 tensors of 200 bytes", first, 3 * plain, "3 x torch.save")


def collecting() -> Iterator[Figure]:
    """`numb gc` over 10,000 runs with weights, and how much memory it takes."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text('{"version": 1}')
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        fill(root, 10_000, with_weights=True)
        run(*NUMB, "list", cwd=root)
        script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        measured = []

        def collect() -> None:
            done = subprocess.run(
                [PYTHON, "-c", script, *NUMB, "gc"], cwd=root, capture_output=True, text=True, check=True
            )
            measured.append(int(done.stdout) * 1024)

        yield Figure("numb gc, 10,000 runs", seconds(collect, 3), 10.0, "seconds")
        yield Figure("numb gc, 10,000 runs, memory", max(measured), 200e6, "of 1 TB of objects, were they here", "MB")


LOGGING = """
import json, os, time
import numb
N = 300_000
losses = [0.5 + n * 1e-7 for n in range(N)]

def logging():
    for step in range(N):
        numb.log(step=step, loss=losses[step], acc=0.5)

def appending():
    rows = []
    append = rows.append
    for step in range(N):
        append((step, losses[step], 0.5))

measured = {"log": [], "append": []}
for _ in range(9):
    for name, work in (("append", appending), ("log", logging)):
        began = time.perf_counter()
        work()
        measured[name].append((time.perf_counter() - began) / N)
time.sleep(0.3)
size = os.path.getsize(os.environ["NUMB_RUN_DIR"] + "/series") / (9 * N)
print(json.dumps({name: sorted(each)[4] for name, each in measured.items()} | {"bytes": size}))
"""


def series() -> Iterator[Figure]:
    """`numb.log` in a loop, with the thread that writes what it has logged, beside a `list.append` of the same."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text('{"version": 1, "train": {"command": ["python", "train.py"]}}')
        (root / "train.py").write_text(LOGGING)
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        done = subprocess.run([*NUMB, "train"], cwd=root, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        kept = json.loads(
            subprocess.run([*NUMB, "show", "@", "--json"], cwd=root, capture_output=True, check=True).stdout
        )
        table = kept["series"]["log"]
        yield Figure(
            "numb.log, a step and two values", found["log"], 3 * found["append"], "3 x list.append of them", "us"
        )
        yield Figure("a row in flight", found["bytes"], 50, "its time included", "B")
        yield Figure("a row when the run has ended", table["size"] / table["rows"], 50, "compressed", "B")


SWEPT = """
import time, torch
from numb import numb_param, numb_queue, numb_trial_result
n = 0
numb_queue(globals())
numb_param({"n": n})
time.sleep(0.05)
numb_trial_result({"twice": 2 * n})
"""
FORKED = """
import os, time, torch
running = 0
for _ in range(20):
    if running == 2:
        os.wait()
        running -= 1
    if os.fork() == 0:
        time.sleep(0.05)
        os._exit(0)
    running += 1
while running:
    os.wait()
    running -= 1
"""


def queue() -> Iterator[Figure]:
    """20 jobs of 50 ms that import torch, by 2 workers, all recorded: beside as many interpreters, and bare forks of one."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text(json.dumps({"version": 1, "train": {"command": [PYTHON, "train.py"]}}))
        (root / "train.py").write_text(SWEPT)
        (root / "job.py").write_text("import time, torch\ntime.sleep(0.05)\n")
        (root / "forked.py").write_text(FORKED)
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        run(*NUMB, "init", cwd=root)
        turns = iter(range(1000))

        def ours() -> None:
            name = f"q{next(turns)}.json"
            first = 20 * next(turns)
            (root / name).write_text(json.dumps([{"n": first + n} for n in range(20)]))
            run(*NUMB, "queue", "run", name, "-j", "2", cwd=root)

        def interpreters() -> None:
            run("sh", "-c", f"seq 20 | xargs -P2 -I@ {PYTHON} job.py", cwd=root)

        took, forks, cold = in_turn(ours, lambda: run(PYTHON, "forked.py", cwd=root), interpreters, times=3)
        yield Figure("queue of 20, 2 workers", took, 0.3 * cold, "0.3 x xargs -P2 python job.py")
        yield Figure("the same", took, 1.8 * forks, "1.8 x bare forks of a process with torch")


def queue_job() -> Iterator[Figure]:
    """What numb needs for one more job of a queue whose scripts are forked: snapshot, record, commit; processor time."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text(json.dumps({"version": 1, "train": {"command": [PYTHON, "train.py"]}}))
        (root / "train.py").write_text(SWEPT)
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        run(*NUMB, "init", cwd=root)
        turns = iter(range(100_000))

        def processor(jobs: int) -> float:
            name = f"q{next(turns)}.json"
            (root / name).write_text(json.dumps([{"n": next(turns)} for _ in range(jobs)]))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(*NUMB, "queue", "run", name, "-j", "1", cwd=root)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        each = statistics.median((processor(45) - processor(5)) / 40 for _ in range(3))
        click = import_click()
        meaning = f"120 ms where import click takes 31 ms; here it takes {1000 * click:.0f} ms"
        yield Figure("processor time of a warm job", each, 0.12 * click / 0.031, meaning)


CLAIMS = """
import time
from pathlib import Path
from numb.project import Project
queue = Project.open().queue(Path("q.json"))
began = time.perf_counter()
claim = queue.claim({"queued"})
print(time.perf_counter() - began)
claim.close()
"""


def queue_long() -> Iterator[Figure]:
    """A queue file of 10,000 entries, of which 9,000 are done: its status, and the next claim of a worker."""
    with folder() as root:
        repository(root)
        (root / "nmb.json").write_text(json.dumps({"version": 1, "train": {"command": [PYTHON, "train.py"]}}))
        (root / "train.py").write_text("from numb import numb_queue\nn, lr, opt = 0, 0.1, 'sgd'\nnumb_queue()\n")
        run("git", "add", "-A", cwd=root)
        run("git", "commit", "-qm", "bench", cwd=root)
        run(*NUMB, "init", cwd=root)
        entries = [{"n": n, "lr": 0.1 / (n + 1), "opt": ("sgd", "adam")[n % 2]} for n in range(10_000)]
        (root / "q.json").write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
        run(*NUMB, "queue", "pause", "q.json", cwd=root)
        run(*NUMB, "queue", "resume", "q.json", cwd=root)
        [states] = (root / ".nmb" / "queues").iterdir()
        run(*NUMB, "queue", "status", "q.json", cwd=root)
        for key in json.loads((states / "keys.json").read_text())["keys"][:9000]:
            for fact in ("claimed", "run.20261122-101500-x7f2", "done.20261122-101500-x7f2.0"):
                (states / f"{key}.1.{fact}").write_text("{}")
        click = import_click()
        scale = f"0.3 s where import click takes 31 ms; here it takes {1000 * click:.0f} ms"
        took = seconds(lambda: run(*NUMB, "queue", "status", "q.json", cwd=root), 7)
        yield Figure("queue status of 10,000 entries", took, 0.3 * click / 0.031, scale)
        asked = [PYTHON, "-c", CLAIMS]
        claims = [float(subprocess.run(asked, cwd=root, check=True, capture_output=True).stdout) for _ in range(5)]
        yield Figure("the next claim there", statistics.median(claims), 0.3 * click / 0.031, scale)


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    missed = 0
    for measure in (
        startup,
        snapshot,
        diff,
        listing,
        query,
        frame,
        hyperparameters,
        weights,
        collecting,
        series,
        queue,
        queue_job,
        queue_long,
        overhead,
    ):
        if wanted not in measure.__name__:
            continue
        for figure in measure():
            met = figure.value <= figure.limit
            missed += not met
            verdict = "met" if met else "MISSED"
            print(
                f"{figure.name:<34} {figure.value * figure.scale:8.{figure.digits}f} {figure.unit}   "
                f"limit {figure.limit * figure.scale:8.{figure.digits}f} {figure.unit}  {verdict:<7}"
                f"({figure.meaning})",
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
