"""What is promised of artifacts: a value comes back as what it was, whatever a file says is never run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from conftest import Scene
from hypothesis import given
from hypothesis import strategies as st

import numb
from numb import artifacts
from numb.errors import ArtifactMissing, ObjectCorrupt
from numb.project import Project

# A script that saves one of each kind.
SCRIPT = """
import os, pathlib
import numpy
import torch
import numb

class Figure:
    def savefig(self, file, format):
        file.write(f"a {format}".encode())

@numb.artifact_saver(".xyz")
def points(value):
    return " ".join(map(str, value)).encode()

pathlib.Path("out").mkdir()
pathlib.Path("out/a.txt").write_text("a"), pathlib.Path("out/large.bin").write_bytes(bytes(2 << 20))
numb.save("settings", {"lr": 0.1, "betas": (0.9, 0.99), "nan": float("nan"), "n": numpy.int64(3)})
numb.save("table.csv", [{"epoch": 0, "loss": 0.5, "note": 'a,b "c"\\nd'}, {"epoch": 1, "loss": None}])
numb.save("notes", "héllo")
numb.save("bytes.foo", b"\\x00\\xff")
numb.save("matrix", numpy.arange(6).reshape(2, 3))
numb.save("several.npz", {"a": numpy.ones(2), "b": numpy.zeros(3)})
numb.save("features", {"x": torch.arange(4), "list": [torch.ones(2), 3]})
numb.save("plots/loss", Figure()), numb.save("plots/acc.svg", Figure())
numb.save("points.xyz", [1, 2, 3])
numb.save("results", pathlib.Path("out"))
numb.save("notes.txt", "twice")
torch.save({"w": torch.ones(3)}, "own.pt")
numb.save("copied", pathlib.Path("own.pt"))
for wrong in ({"t": [torch.ones(3)]}, {"f": print}):
    try:
        numb.save("wrong.json", wrong)
    except TypeError as error:
        print(error)
"""


@pytest.mark.usefixtures("warm")
def test_every_kind_comes_back_typed(empty: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """AC-L7: dictionary, table, text, bytes, arrays, tensors, files and folders; a tuple of several; a name that is not there."""
    empty.write("train.py", SCRIPT)
    empty.sh("git add -A && git commit -qm x")
    empty.numb("init")
    done = empty.numb("train")
    project = Project.open(empty.root)
    run = project.find("@")
    assert (0, "") == (done.code, run.reason or ""), done

    @artifacts.loader(".xyz")
    def points(name: str, content: bytes) -> list[int]:
        return [int(word) for word in content.split()]

    monkeypatch.setattr(artifacts, "find_spec", lambda name: None)
    settings = project.load(run, "settings.json")
    assert {"lr": 0.1, "betas": (0.9, 0.99), "n": 3} == {k: v for k, v in settings.items() if k != "nan"}
    assert settings["nan"] != settings["nan"]
    assert [
        {"epoch": 0, "loss": 0.5, "note": 'a,b "c"\nd'},
        {"epoch": 1, "loss": None, "note": None},
    ] == project.load(run, "table.csv")
    assert ("twice", b"\x00\xff", [1, 2, 3]) == project.load(run, "notes", "bytes.foo", "points.xyz")
    assert [[0, 1, 2], [3, 4, 5]] == project.load(run, "matrix").tolist()
    assert {"a": [1, 1], "b": [0, 0, 0]} == {k: v.tolist() for k, v in project.load(run, "several").items()}
    features = project.load(run, "features")
    assert [0, 1, 2, 3] == features["x"].tolist() and features["list"][1] == 3
    assert (b"a png", b"a svg") == project.load(run, "plots/loss", "plots/acc.svg")
    assert {"a.txt": "a", "large.bin": bytes(2 << 20)} == project.load(run, "results")
    assert torch.equal(torch.ones(3), project.load(run, "copied")["w"])
    with pytest.raises(KeyError, match=r"has no nothing; it has settings.json, table.csv"):
        project.load(run, "nothing")
    said = done.stdout.splitlines()
    assert "numb.save: wrong.t[0] is a Tensor, which numb cannot keep as a value: use its .tolist()" == said[0]
    assert "numb.save: wrong.f is a builtin_function_or_method" in said[1]

    assert b"a svg" == empty.numb("show @ --artifact plots/acc.svg").stdout.encode()
    missing = empty.numb("show @ --artifact x")
    assert (1, True) == (missing.code, "has no x; it has" in missing.stderr)
    assert 0 == empty.numb("report @ --into ../taken").code
    taken = empty.root.parent / "taken" / "artifacts"
    assert "twice" == (taken / "notes.txt").read_text()
    assert [0, 1, 2, 3] == torch.load(taken / "features.pt", weights_only=True)["x"].tolist()
    assert 0 == empty.numb("doctor").code


def test_tables_and_archives_of_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty table is one; dates are dates; an archive that would fill the memory is refused."""
    import pandas

    assert [] == artifacts.decoded("a.csv", artifacts.encoded("a.csv", []))
    frame = artifacts.decoded("a.csv", b"n,Date,x\n1,2026-11-20T21:33:53.042Z,2\n")
    assert pandas.Timestamp("2026-11-20T21:33:53.042Z") == frame["Date"][1] and 2 == frame["x"][1]
    monkeypatch.setattr(artifacts, "_MOST_UNPACKED", 1 << 10)
    bomb = io.BytesIO()
    numpy.savez_compressed(bomb, a=numpy.zeros(1 << 16))
    with pytest.raises(ValueError, match="bytes would become 524"):
        artifacts.decoded("a.npz", bomb.getvalue())


def test_what_a_live_run_has_saved_is_read(empty: Scene) -> None:
    """By another process, while it goes on."""
    empty.write(
        "train.py",
        "import numb, os, time\nnumb.save('notes', 'as yet')\nopen('ready', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n",
    )
    empty.numb("init")
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.05; done")
    [run] = empty.runs()
    done = empty.numb(f"show {run['id']} --artifact notes.txt")
    empty.write("go", "")
    process.communicate(timeout=60)

    assert (0, "as yet", 0) == (done.code, done.stdout, process.returncode)


@pytest.mark.parametrize("first", ["small", "large"])
def test_a_kill_while_something_is_saved_again_leaves_one_of_the_two(empty: Scene, first: str) -> None:
    """kill -9 before each write of the second one: what is loaded is the first or the second, whole."""
    script = f"""
import os, signal, sys
import numb
from numb import atomic
numb.save("notes", "first" * {1 if first == "small" else 1 << 20})
left = int(sys.argv[1])
def counted(call):
    def counting(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counting
for name in ("_write", "_replace", "_fsync"):
    setattr(atomic, name, counted(getattr(atomic, name)))
numb.save("notes", "second")
print("saved")
"""
    empty.write("train.py", script)
    empty.numb("init")
    project = Project.open(empty.root)
    loaded = []
    for calls in range(20):
        done = empty.numb("train", "--", str(calls))
        loaded.append(project.load(project.find("@"), "notes.txt")[:6].removesuffix("f"))
        if "saved" in done.stdout:
            break

    assert {"first", "second"} == set(loaded) and loaded == sorted(loaded) and 4 <= len(loaded) < 20


def test_a_damaged_artifact_is_refused(empty: Scene) -> None:
    """Large and small ones: their bytes are compared with their hash before they become a value."""
    empty.write("train.py", "import numb\nnumb.save('small', 'x')\nnumb.save('large.txt', 'x' * (2 << 20))\n")
    empty.numb("init")
    empty.numb("train")
    project = Project.open(empty.root)
    run = project.find("@")
    [digest] = project.objects
    path = project.objects.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"y" + path.read_bytes()[1:])

    assert "x" == project.load(run, "small")
    with pytest.raises(ObjectCorrupt, match=digest):
        project.load(run, "large")
    assert 3 == empty.numb("doctor").code
    path.unlink()
    assert [digest] == project.missing_weights(run)


# Two networks, a checkpoint of one of them, and two values.
SAVES = """
import torch
import numb
nets = {name: torch.nn.Linear(2, 1, bias=False) for name in ("G", "D")}
for number, (name, net) in enumerate(nets.items(), 1):
    net.weight.data.fill_(number)
    numb.numb_model(torch.ones(1, 2), name=name)(net)
numb.run().track(net=nets["G"]).checkpoint(step=5)
nets["G"].weight.data.fill_(3)
numb.save("settings", {"betas": (0.9, 0.99)}), numb.save("notes", "héllo")
"""

# What a person looks at in a notebook; and in a script that numb runs, too.
LOOKS = """
import numb
print(numb.load("@"), numb.load("@", "settings"), numb.load("@", "notes", "settings.json"))
for state in (numb.load_state("@", "G"), numb.load_state("@", model="D"), numb.load_state("@@5")["net"]):
    print(*state, state["weight"].tolist())
for wrong in (lambda: numb.load("@", "nothing"), lambda: numb.load_state("@"), lambda: numb.load_state("@@6")):
    try:
        wrong()
    except Exception as error:
        print(isinstance(error, KeyError), error)
"""


@pytest.mark.usefixtures("warm")
def test_a_script_loads_what_runs_have_kept(empty: Scene) -> None:
    """`numb.load` and `numb.load_state`, in any folder of the project: values, weights by model, checkpoints by step."""
    empty.write("train.py", SAVES)
    empty.write("sub/look.py", LOOKS)
    empty.numb("init")
    assert 0 == empty.numb("train").code
    looked = empty.sh("cd sub && python look.py")
    [run] = empty.runs()
    empty.write("train.py", LOOKS)
    under_numb = empty.numb("train")

    settings = {"betas": (0.9, 0.99)}
    assert [
        f"('settings.json', 'notes.txt') {settings} ('héllo', {settings})",
        "weight [[3.0, 3.0]]",
        "weight [[2.0, 2.0]]",
        "weight [[1.0, 1.0]]",
        f"True {run['id']} has no nothing; it has settings.json, notes.txt",
        f"True {run['id']} has weights of G, D",
        f"False {run['id']} has no checkpoint of step 6; it has 5",
    ] == looked.splitlines()
    assert (0, looked) == (under_numb.code, under_numb.stdout.strip()), under_numb


@pytest.mark.usefixtures("warm")
@pytest.mark.usefixtures("warm")
def test_what_batches_have_given_comes_back_in_order(empty: Scene) -> None:
    """T10: tensors as tensors, of a type that NumPy has not too, arrays as arrays; the last of a number counts."""
    script = """
import numpy, torch
import numb
run = numb.run()
for i in (10, 2, 0):
    run.save_batch(i, {"features": torch.full((2, 3), i, dtype=torch.bfloat16), "rows": numpy.arange(i)})
run.save_batch(2, {"features": torch.zeros(1)})
run.save_batch(3, {"rows": numpy.ones(2)})
for wrong in ((-1, {"a": 1}), (1, {}), (1, [1]), (True, {"a": 1}), ("1", {"a": 1})):
    try:
        run.save_batch(*wrong)
    except TypeError as error:
        print(error)
"""
    empty.write("train.py", script)
    empty.numb("init")
    done = empty.numb("train")
    [past] = numb.open(empty.root)
    batches = list(past.batches())

    assert (0, 5) == (done.code, done.stdout.count("run.save_batch: ")), done
    assert [0, 0, None, 10] == [b["features"].flatten()[0].item() if "features" in b else None for b in batches]
    assert torch.bfloat16 == batches[0]["features"].dtype and numpy.arange(10).tolist() == batches[3]["rows"].tolist()
    assert isinstance(batches[2]["rows"], numpy.ndarray) and 1 == batches[1]["features"].numel()


def test_what_a_trial_saves_is_kept_with_the_trial(empty: Scene) -> None:
    """In its commit or among the objects, as that of a training; it is shown, loaded, verified, and not collected."""
    empty.write("train.py", SAVES)
    trial = """
        (numb.run().dir / "own.txt").write_text("own")
        numb.save("large.bin", bytes(2 << 20)), numb.save("state", torch.arange(3)), numb.save("matrix", [[1, 2], [3, 4]])
        numb.numb_trial_result({"acc": 0.5})
        """
    empty.write("trial.py", SAVES.partition("numb.run()")[0] + textwrap.dedent(trial))
    empty.numb("init")
    done = [empty.numb("train"), empty.numb("trial @")]
    [run] = empty.runs()
    [trialed] = [trial["id"] for trial in run["trials"]]
    collected, shown = json.loads(empty.numb("gc --json").stdout), empty.numb(f"show {trialed}").stdout
    project = Project.open(empty.root)
    found = project.find(trialed)

    assert [0, 0] == [each.code for each in done], done
    assert 0 == collected["objects"] and {"settings.json", "notes.txt"} == set(run["artifacts"])
    names = ("own.txt", "large.bin", "state.pt", "matrix.json")
    assert set(names) == set(project.load(found)) and all(name in shown for name in names)
    assert ("own", bytes(2 << 20), [[1, 2], [3, 4]]) == project.load(found, "own", "large", "matrix")
    assert [0, 1, 2] == project.load(found, "state").tolist()
    assert "own" == empty.numb(f"show {trialed} --artifact own.txt").stdout
    assert 0 == empty.numb("verify").code


@pytest.fixture(autouse=True)
def own_formats() -> Iterator[None]:
    yield
    artifacts._own_savers.clear()
    artifacts._own_loaders.clear()


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def archive(canary: Path) -> bytes:
    content = io.BytesIO()
    torch.save(Bomb(canary), content)
    return content.getvalue()


def objects_of_numpy(canary: Path) -> bytes:
    content = io.BytesIO()
    numpy.save(content, numpy.array([Bomb(canary)], dtype=object), allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pt", archive),
        ("x.pt", lambda canary: pickle.dumps(Bomb(canary))),
        ("x.npy", objects_of_numpy),
        ("x.npz", lambda canary: pickle.dumps(Bomb(canary))),
        ("x.yaml", lambda canary: f"!!python/object/apply:os.system ['touch {canary}']".encode()),
        ("x.json", lambda canary: json.dumps({"$literal": f"__import__('os').system('touch {canary}')"}).encode()),
        ("x.pkl", lambda canary: pickle.dumps(Bomb(canary))),
    ],
)
def test_loading_runs_nothing(tmp_path: Path, name: str, content: Callable[[Path], bytes]) -> None:
    """A file from elsewhere is a value, bytes, or refused; what it says to run is not run (J1)."""
    canary = tmp_path / "canary"
    with contextlib.suppress(ValueError):
        artifacts.decoded(name, content(canary))
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/x",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        ".",
        "a/.git/config",
        ".GIT",
        "a\\b",
        "a\nb",
        "x" * 300,
        "w.pt.manifest.json",
        None,
        3,
    ],
)
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    """Names become paths, here and in other people's work trees."""
    with pytest.raises(ValueError, match="is no name for an artifact"):
        artifacts.check_name(name)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(plain)
def test_any_plain_value_comes_back_from_json(value: Any) -> None:
    """Types included: a tuple is a tuple, 1.0 is not 1."""
    content = artifacts.encoded("x.json", value)

    assert repr(value) == repr(artifacts.decoded("x.json", content))
    json.loads(content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x.csv", 3), ("x.csv", {"a": [1], "b": [1, 2]}), ("x.csv", [{"a": [1]}]), ("x.npy", numpy.array([print])),
        ("x.npz", [1]), ("x.npz", {"a": numpy.array([print])}), ("x.txt", 3), ("x.png", 3), ("x.foo", 3), ("x", print),
        ("x.safetensors", {"a": 1}),
    ],
)  # fmt: skip
def test_what_a_file_cannot_hold_is_a_type_error(name: str, value: Any) -> None:
    """At the call, with the name of the file."""
    with pytest.raises(TypeError, match=r"^x\b"):
        artifacts.encoded(name, value)


# A script that fills the folder of its run, and ends as it is told.
FILLS = """
import os, sys
import numb
run = numb.run()
assert [] == os.listdir(run.dir) and run.dir == numb.run().dir
(run.dir / "logs").mkdir(), (run.dir / "cache.no_sync").mkdir()
for name in ("logs/a.txt", "cache.no_sync/b", "c.no_sync", "saved.txt", "a\\\\b.txt"):
    (run.dir / name).write_text(name)
(run.dir / "large.bin").write_bytes(bytes(3 << 20))
(run.dir / "link").symlink_to("/etc/passwd")
numb.save("saved", "by name")
run.should_stop, run.should_save, run.finish("complete")
assert "torch" not in sys.modules, "it takes seconds, and is not needed for any of this"
if os.environ.get("KILL"):
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kill", ["", "yes"], ids=["ended", "killed"])
def test_the_folder_of_a_run_is_kept(empty: Scene, kill: str) -> None:
    """What the script has left there, however it ended; large files are objects, and nothing is said of scratch."""
    empty.write("train.py", FILLS)
    empty.numb("init")
    assert (137 if kill else 0) == empty.numb("train", env={"KILL": kill}).code
    [run] = empty.runs()
    named = [name for name in run["artifacts"] if name.endswith("b.txt") or len(name) == 16]

    assert {"logs/a.txt", "large.bin", "saved.txt", *named} == set(run["artifacts"]) and 1 == len(named)
    assert "logs/a.txt" == empty.numb("show @ --artifact logs/a.txt").stdout
    assert "by name" == empty.numb("show @ --artifact saved.txt").stdout
    assert "a\\b.txt" == empty.numb("show", "@", "--artifact", named[0]).stdout
    assert 3 << 20 == len(empty.numb("show @ --artifact large.bin").stdout)
    assert any("saved.txt in run.dir: not kept" in note for note in run["notes"])
    assert any(f"kept as {named[0]}" in note for note in run["notes"])
    assert 0 == empty.numb("gc").code and 0 == empty.numb("verify").code


def test_without_numb_nothing_is_saved(tmp_path: Path) -> None:
    """The same script runs with plain python; the folder of the run is one that goes with the process."""
    import numb

    numb.save("x", print)
    numb.run().finish("nonsense")
    script = "import numb; run = numb.run(); (run.dir / 'a').write_text('a'); print(numb.run().dir)"
    there = Path(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    )

    assert [] == list(tmp_path.iterdir()) and there.is_absolute() and not there.exists()
    assert issubclass(ArtifactMissing, KeyError)
