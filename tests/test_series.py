"""What is promised of series: a row costs a microsecond, none is lost or torn, and what was logged is what is read."""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene
from hypothesis import given
from hypothesis import strategies as st

from numb import hooks, journal, record
from numb.errors import ArtifactMissing, ObjectCorrupt
from numb.journal import Block, Framer, Reader
from numb.project import Project

HEAD = "import math, os, signal, sys, threading, time\nimport numb\n"


def rows_of(scene: Scene, name: str = "log", run: str = "@") -> list[dict[str, Any]]:
    """What a reader gets: the rows as dictionaries, without what is missing, and without times."""
    project = Project.open(scene.root)
    found = []
    for block in project.series(project.find(run), name):
        found += [{n: v for n, v in zip(block.fields, row, strict=True) if v is not None} for row in block.rows()]
    return found


def trained(scene: Scene, body: str, words: str = "train", **env: str) -> Any:
    scene.write("train.py", HEAD + body)
    if not (scene.root / "nmb.json").exists():
        scene.numb("init")
    return scene.numb(words, env=env)


# -- in a script


def test_a_table_has_what_was_logged(empty: Scene) -> None:
    """AC-L2, AC-L3, AC-L4: names, order and types; what is missing is missing, and NaN is NaN; an unknown field is an error."""
    done = trained(
        empty,
        """
fields = ["epoch", "loss"]
log = numb.series("train", fields)
log(epoch=1, loss=0.5), log(epoch=2), log(epoch=3, loss=math.nan), log(loss=1, epoch=4)
print(fields)
try:
    log(epoch=5, acc=1)
except TypeError as error:
    print(error)
for step in range(3):
    numb.log(step=step, loss=1 / (step + 1), acc=1)
numb.log(step=3, note='a,b "c"\\nd', loss=-math.inf)
numb.log(step=4, loss=None, acc=True, big=2**70)
numb.log(step=2.5, loss=2, acc="3")
numb.log(note="", loss=7.25)
for wrong in ({"step": 1, "loss": [1]}, {"step": print}):
    try:
        numb.log(**wrong)
    except TypeError as error:
        print(error)
""",
    )
    table = empty.numb("show @ --series train").stdout.splitlines()
    [run] = empty.runs()

    assert [
        "['epoch', 'loss']",
        "the series train has no acc; it has epoch, loss",
        "numb.log: loss is a list, and no number or text",
    ] == done.stdout.splitlines()[:3] and "numb.log: step" in done.stdout.splitlines()[3]
    assert ["epoch,loss,Date", "1,0.5", "2,", "3,nan", "4,1"] == [
        table[0],
        *(row.rpartition(",")[0] for row in table[1:]),
    ]
    moments = [record.decode(row.rpartition(",")[2]) for row in table[1:]]
    assert all(len("2026-11-20T21:33:53.042Z") == len(each) and each.endswith("Z") for each in moments)
    assert [
        {"step": 0, "loss": 1.0, "acc": 1}, {"step": 1, "loss": 0.5, "acc": 1}, {"step": 2, "loss": 1 / 3, "acc": 1},
        {"step": 3, "loss": -math.inf, "note": 'a,b "c"\nd'}, {"step": 4, "acc": True, "big": 2**70},
        {"step": 2.5, "loss": 2, "acc": "3"}, {"loss": 7.25, "note": ""},
    ] == rows_of(empty)  # fmt: skip
    assert (4, ["epoch", "loss"]) == (run["series"]["train"]["rows"], list(run["series"]["train"]["fields"]))
    loss = run["series"]["train"]["fields"]["loss"]
    assert (2, 0.75, 0.5, 1, 1, 4, 1) == tuple(
        loss[name] for name in ("count", "mean", "lowest", "lowest_at", "highest", "highest_at", "last")
    )
    assert "train  4 rows, the last: epoch 4, loss 1" in empty.numb("show @").stdout
    assert 0 == empty.numb("verify").code and "" == done.stderr.replace(f"numb: saved {run['id']}\n", "")


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("first", ["loss", "0.5"])
def test_a_loss_with_a_gradient_is_logged_without_a_word(torch_scene: Scene, first: str) -> None:
    """torch warns of whoever makes a number of one: the script would print what it does not print without numb."""
    script = """
import torch
loss = (torch.ones(1, requires_grad=True) * 2).sum()
numb.log(step=0, loss=FIRST)
for step in range(1, 4):
    numb.log(step=step, loss=loss)
"""
    done = trained(torch_scene, script.replace("FIRST", first))

    assert [2.0] * 3 == [row["loss"] for row in rows_of(torch_scene)][1:]
    assert "" == done.stdout and re.fullmatch(r"numb: saved \S+\n", done.stderr)


def test_a_run_that_has_logged_nothing_says_so(empty: Scene) -> None:
    """And what there is to look at instead."""
    trained(empty, "print('nothing')\nnumb.numb_param({})\n")
    done = empty.numb("tail")

    assert (0, "") == (done.code, done.stdout) and "has no rows" in done.stderr and "numb logs" in done.stderr


@pytest.mark.usefixtures("warm")
def test_numbers_of_numpy_and_torch_become_plain(torch_scene: Scene) -> None:
    """With one element; the first row decides nothing for the others, and no gradient is held."""
    trained(
        torch_scene,
        """
import gc, warnings
import numpy, torch
warnings.simplefilter("error")
w = torch.ones(1, requires_grad=True)
for step in range(3):
    numb.log(step=step, loss=0.5 * (step + 1))
for value in (numpy.float32(0.25), numpy.int64(3), torch.tensor(0.75), (w * 2).sum(), torch.ones(1, 1)):
    numb.log(step=step, loss=value)
numb.log(step=numpy.int64(7), loss=True)
before = sum(isinstance(each, torch.Tensor) and each.grad_fn is not None for each in gc.get_objects())
for step in range(3):
    numb.log(step=step, other=(w * 2).sum())
print(sum(isinstance(each, torch.Tensor) and each.grad_fn is not None for each in gc.get_objects()) - before)
""",
    )
    assert [0.5, 1.0, 1.5, 0.25, 3, 0.75, 2.0, 1.0, True] == [
        row["loss"] for row in rows_of(torch_scene) if "loss" in row
    ]
    assert [2.0] * 3 == [row["other"] for row in rows_of(torch_scene) if "other" in row]
    assert b"0\n" == Project.open(torch_scene.root).log(Project.open(torch_scene.root).find("@"))


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("raise ValueError", "failed"), ("os.kill(os.getpid(), signal.SIGTERM)", "interrupted"), ("sys.exit(3)", "failed"),
        ("time.sleep(0.5)\nos.kill(os.getpid(), signal.SIGKILL)", "killed"), ("time.sleep(0.5)\nos._exit(0)", "complete"),
    ],
)  # fmt: skip
def test_rows_survive_any_end(empty: Scene, end: str, status: str) -> None:
    """AC-L5: every one of them where Python ends, and those of a tenth of a second before where it does not."""
    trained(empty, f"for step in range(250):\n    numb.log(step=step, loss=1.5)\n{end}\n")
    [run] = empty.runs()

    assert [{"step": step, "loss": 1.5} for step in range(250)] == rows_of(empty) and status == run["status"]


def test_threads_and_children_tear_nothing(empty: Scene) -> None:
    """Each thread's rows come whole and in its order; what a forked child, or another rank, logs is not the run's."""
    trained(
        empty,
        """
log = numb.series("mine", ["thread", "n", "text"])
def work(thread):
    for n in range(2000):
        numb.log(thread=thread, n=n, x=n / 7)
        if n % 100 == 0:
            log(thread=thread, n=n, text=f"{thread},{n}")
            numb.log(thread=thread, n=n, text="other")
threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
[thread.start() for thread in threads]
if not (child := os.fork()):
    numb.log(thread=9, n=0, x=0.0), log(thread=9)
    time.sleep(0.3)
    os._exit(0)
os.waitpid(child, 0)
[thread.join() for thread in threads]
if "RANK" not in os.environ:
    import subprocess
    subprocess.run([sys.executable, "-c", "import numb; numb.log(thread=8, n=0, x=0.0)"], env={**os.environ, "RANK": "1"}, check=True)
""",
    )
    mine, others = rows_of(empty), rows_of(empty, "mine")

    assert set(range(4)) == {row["thread"] for row in mine} == {row["thread"] for row in others}
    for thread in range(4):
        own = [row for row in mine if row["thread"] == thread]
        assert [n / 7 for n in range(2000)] == [row["x"] for row in own if "x" in row]
        assert [f"{thread},{n}" for n in range(0, 2000, 100)] == [
            row["text"] for row in others if row["thread"] == thread
        ]
        texts = [at for at, row in enumerate(own) if row.get("text") == "other"]
        assert 20 == len(texts) and all(own[at]["n"] == own[at - 1]["n"] for at in texts), (
            "in the order they were logged"
        )


def test_another_process_sees_them_live(empty: Scene) -> None:
    """AC-L9: while the run goes on; `tail -f` ends with it, and has every row once; `logs -f` the same with the output."""
    script = """
for step in range(20):
    numb.log(step=step, loss=0.5)
    if step == 10:
        open("ready", "w").close()
        while not os.path.exists("go"): time.sleep(0.01)
    print("line", step, flush=True)
"""
    empty.write("train.py", HEAD + script)
    empty.numb("init")
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.05; done; sleep 0.3")
    now, [live] = empty.numb("tail -n 2"), empty.numb("tail -n 1 --json").stdout.splitlines()
    following = [empty.start(*words) for words in (("tail", "-f", "-n", "3"), ("logs", "--follow"))]
    time.sleep(1)
    empty.write("go", "")
    (tail, _), (logs, _) = (each.communicate(timeout=60) for each in following)
    process.communicate(timeout=60)

    assert ["step 9  loss 0.5", "step 10  loss 0.5"] == [line[10:] for line in now.stdout.splitlines()]
    assert {"step": 10, "loss": 0.5} == json.loads(live)["values"] and "log" == json.loads(live)["series"]
    assert [f"step {step}  loss 0.5" for step in range(8, 20)] == [line[10:] for line in tail.decode().splitlines()]
    assert [f"line {step}" for step in range(20)] == logs.decode().splitlines()
    assert [0, 0] == [each.returncode for each in following]
    assert empty.numb("logs").stdout == logs.decode() and 20 == len(empty.numb("tail -n 0").stdout.splitlines())


@pytest.mark.usefixtures("warm")
def test_a_resumed_run_has_each_step_once(empty: Scene) -> None:
    """What was logged after the checkpoint is logged again; what came before stays, also where it counts no steps."""
    trained(
        empty,
        """
class Part:
    def state_dict(self): return {"n": 1}
    def load_state_dict(self, state): pass
run, epochs = numb.run(), numb.series("epochs", ["epoch", "acc"])
run.track(part=Part())
for step in range(run.restore().step + 1, 11):
    numb.log(step=step, loss=step / 2)
    run.checkpoint(step=step)
    time.sleep(0.01)
    epochs(epoch=step * 100, acc=0.5)
    if step == 7 and "KILL" in os.environ:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
""",
        KILL="1",
    )
    before = rows_of(empty), rows_of(empty, "epochs")
    done = empty.numb("train --resume @@4")

    assert (7, 7) == tuple(map(len, before))
    assert 0 == done.code and [{"step": step, "loss": step / 2} for step in range(1, 11)] == rows_of(empty)
    epochs = [row["epoch"] for row in rows_of(empty, "epochs")]
    assert [100, 200, 300] == epochs[:3] and [500, 600, 700, 800, 900, 1000] == epochs[-6:]
    assert "the last: step 10" in empty.numb("show @").stdout


def test_a_large_series_is_an_object(empty: Scene) -> None:
    """Compressed, of at most 50 bytes a row in flight and afterwards; it is read, verified, reported and not collected."""
    trained(empty, "for step in range(30_000):\n    numb.log(step=step, loss=step / 7, acc=0.123456789)\n")
    [run] = empty.runs()
    series = run["series"]["log"]
    csv = empty.numb("show @ --series log").stdout
    collected = json.loads(empty.numb("gc --json").stdout)
    reported = empty.numb("report @ --into ../report")
    path = Path(empty.root, ".nmb", "objects", series["hash"][:2], series["hash"])

    assert (30_000, None) == (series["rows"], series["file"]) and series["size"] < 50 * 30_000 < len(csv)
    assert {"step": 29_999, "loss": 29_999 / 7, "acc": 0.123456789} == rows_of(empty)[-1]
    assert (
        0 == collected["objects"] == reported.code and csv == (empty.root.parent / "report/series/log.csv").read_text()
    )
    assert (
        csv.encode()
        == subprocess.run(["gunzip", "-c"], input=path.read_bytes(), capture_output=True, check=True).stdout
    )
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    assert 3 == empty.numb("verify").code
    with pytest.raises(ObjectCorrupt):
        rows_of(empty)


def test_a_full_disk_stops_no_training(empty: Scene) -> None:
    """Rows wait until there is room again; where there never is, the run says that some are lost."""
    body = """
import resource
for step in range(10):
    numb.log(step=step, loss=0.5)
time.sleep(0.3)
size = os.path.getsize(os.environ["NUMB_RUN_DIR"] + "/series")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
for step in range(10, 20):
    numb.log(step=step, loss=0.5)
time.sleep(0.3)
{then}
print("end")
"""
    done = trained(empty, body.format(then="resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)"))
    assert (0, "end\n", 20) == (done.code, done.stdout, len(rows_of(empty))) and 1 == done.stderr.count(
        "the script goes on"
    )
    lost = trained(empty, body.format(then=""))

    assert (0, "end\n") == (lost.code, lost.stdout)
    assert list(range(10)) == [row["step"] for row in rows_of(empty)]


def test_without_numb_rows_go_nowhere(tmp_path: Path) -> None:
    """Nothing is kept, imported or started; an unknown field is an error all the same."""
    script = """
import sys, threading, numb
log = numb.series("train", ["epoch"])
for step in range(3):
    numb.log(step=step, loss=object()), log(epoch=step)
try:
    log(loss=1)
except TypeError as error:
    print(error)
print(threading.active_count(), "numb.capture" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ("the series train has no loss; it has epoch\n1 False\n", "") == (done.stdout, done.stderr)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("log", ["a"]),
        ("../a", ["a"]),
        ("", ["a"]),
        ("a" * 81, ["a"]),
        ("s", []),
        ("s", ["a", "a"]),
        ("s", ["Date"]),
        ("s", [1]),
        ("letters", "epoch"),
    ],
)
def test_a_series_that_cannot_be_is_refused(name: str, fields: Sequence[Any]) -> None:
    """When it is made, not when its first row comes."""
    with pytest.raises(ValueError, match=r"^numb\.series: "):
        hooks.series(name, fields)


def test_a_series_has_one_set_of_fields() -> None:
    """Asked for again it is the same; with others it is an error."""
    one = hooks.series("twice", ["a", "b"])
    assert one is hooks.series("twice", ("a", "b"))
    with pytest.raises(ValueError, match="twice has the fields a, b"):
        hooks.series("twice", ["a"])


def test_a_series_that_there_is_not_is_named(empty: Scene) -> None:
    """With those that there are."""
    trained(empty, "numb.log(step=1)\n")
    done = empty.numb("show @ --series loss")

    assert 1 == done.code and "has no series loss; it has log" in done.stderr
    with pytest.raises(ArtifactMissing):
        rows_of(empty, "loss")


# -- journals and tables

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)


@st.composite
def written(draw: st.DrawFn) -> list[Block]:
    """Some blocks of a series, of numbers alone or of anything."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        fields = tuple(draw(st.lists(st.sampled_from(["step", "loss", 'a,"b', " x ", "é"]), min_size=1, unique=True)))
        count = draw(st.integers(1, 5))
        kinds = st.sampled_from([st.integers(-(2**63), 2**63 - 1), st.floats(), VALUES])
        columns = tuple(draw(st.lists(draw(kinds), min_size=count, max_size=count)) for _ in fields)
        found.append(Block("s", fields, [float(1_795_000_000 + n) + n / 1000 for n in range(count)], columns))
    return found


def plain(blocks: Sequence[Block]) -> list[Any]:
    """The rows of blocks, so that NaN equals NaN and 1 is not 1.0 or True."""
    return [
        [(name, repr(value)) for name, value in zip(block.fields, row, strict=True) if value is not None]
        for block in blocks
        for row in block.rows()
    ]


@given(written())
def test_what_is_framed_and_tabled_comes_back(tmp_path_factory: pytest.TempPathFactory, blocks: list[Block]) -> None:
    """Through a journal bit by bit, and through a table as the same values and milliseconds."""
    path = tmp_path_factory.mktemp("journal") / "series"
    framer = Framer()
    path.write_bytes(b"".join(map(framer.frames, blocks)))
    back = list(Reader(path).blocks())
    assert plain(blocks) == plain(back) and [list(b.times) for b in blocks] == [list(b.times) for b in back]

    fields = list(dict.fromkeys(name for block in blocks for name in block.fields))
    out = io.BytesIO()
    journal.write_csv(back, fields, out)
    lines = io.TextIOWrapper(io.BytesIO(out.getvalue()), "utf-8", "surrogatepass", newline="\n")
    again = list(journal.read_csv("s", lines))
    order = [sorted(row, key=lambda cell: fields.index(cell[0])) for row in plain(blocks)]
    assert order == plain(again)
    assert [t for b in blocks for t in b.times] == pytest.approx([t for b in again for t in b.times], abs=0.0006)


def test_a_torn_or_damaged_journal_ends_there(tmp_path: Path) -> None:
    """What stands before is read; a reader who waits gets the rest when it is whole."""
    path, framer = tmp_path / "series", Framer()
    block = Block("s", ("n",), [1.0, 2.0], ([1, 2],))
    first, second = framer.frames(block), framer.frames(block)
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        reader = Reader(path)
        assert 1 == len(list(reader.blocks()))
        path.write_bytes(first + second)
        assert 1 == len(list(reader.blocks()))
    for at in range(len(second)):
        damaged = bytearray(second)
        damaged[at] ^= 0x40
        path.write_bytes(first + damaged)
        assert 1 == len(list(Reader(path).blocks())), at
    assert [] == list(Reader(tmp_path / "none").blocks())


@pytest.mark.parametrize("at", [9, 20, 40])
def test_what_follows_a_damaged_frame_is_read(tmp_path: Path, at: int) -> None:
    """Of the bytes that could not be read is known how many; nothing is made up."""
    framer = Framer()
    frames = [framer.frames(Block("s", ("n",), [float(n)] * 3, ([n] * 3,))) for n in range(4)]
    damaged = bytearray(frames[1] + frames[2])
    damaged[at] ^= 0x40
    path = tmp_path / "series"
    path.write_bytes(frames[0] + damaged + frames[3])
    reader = Reader(path)
    found = [row[0] for block in reader.blocks() for row in block.rows()]
    sound = Reader(path)
    path.write_bytes(b"".join(frames))
    whole = [row[0] for block in sound.blocks() for row in block.rows()]

    assert [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] == whole and 0 == sound.unread
    assert sorted(set(found)) in ([0, 1, 3], [0, 2, 3]) and len(frames[2]) == reader.unread


@pytest.mark.parametrize(
    "payload", [b"not JSON", b"{}", b"[]", b'{"number": 0, "series": "s", "fields": ["a"], "codes": "x"}', b"\xff\xff"]
)
def test_frames_of_another_kind_are_passed_over(tmp_path: Path, payload: bytes) -> None:
    """A later numb may have written them; what is understood is read."""
    import zlib

    path = tmp_path / "series"
    frames = b""
    for kind in (b"s", b"r", b"o", b"z"):
        frames += struct.pack("<IIc", len(payload), zlib.crc32(payload, zlib.crc32(kind)), kind) + payload
    path.write_bytes(frames + Framer().frames(Block("s", ("n",), [1.0], ([1],))))

    assert [1] == [row[0] for block in Reader(path).blocks() for row in block.rows()]


def test_a_table_is_read_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a text with line breaks goes over the end of what is read at once; a column of one kind keeps its kind."""
    monkeypatch.setattr(journal, "_AT_ONCE", 2)
    times = [1_795_000_000.0 + second for second in (0, 0, 0.25, 1, 1, 7)]
    columns = (
        [1, 2, 3, 4, 5, 6],
        [0.5, math.inf, 1, None, True, -2],
        ["a", 'b\n"c"\n\n,', "", "1", "\n", "\n\n"],
        [1.0, -2e30] * 3,
    )
    block = Block("s", ("step", "loss", "note", "acc"), times, columns)
    out = io.BytesIO()
    journal.write_csv([block], block.fields, out)
    found = list(journal.read_csv("s", io.StringIO(out.getvalue().decode(), newline="\n")))

    assert [*block.fields] == journal.table(found)[0] and times == journal.table(found)[2] and len(found) > 1
    assert repr(list(columns)) == repr(journal.table(found)[1])


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "a,Date\n1\n", "a,Date\nx,2026-11-20T21:33:53.042Z\n", "a,Date\n1,yesterday\n"]
)
def test_a_table_that_is_none_is_refused(text: str) -> None:
    """A record may come from elsewhere."""
    with pytest.raises(
        ValueError, match=r"s has no column Date|has not 2 fields|could not convert|does not match format"
    ):
        list(journal.read_csv("s", io.StringIO(text)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 3, 2], (3, 2.0, 1, 3, 2)), ([math.nan, 1.0, math.nan], (1, 1.0, 1.0, 1.0, "nan")), ([None, "x"], (0, None, None, None, "x")),
        ([math.inf, -math.inf, 10**400], (0, None, None, None, 10**400)), ([1e308, 1e308], (2, None, 1e308, 1e308, 1e308)), ([True, 2], (1, 2.0, 2, 2, 2)),
        (array("d", [1.0, math.nan, 5.0]), (2, 3.0, 1.0, 5.0, 5.0)), ([1, None], (1, 1.0, 1, 1, 1)),
    ],
)  # fmt: skip
def test_numbers_are_summed_up(values: Sequence[Any], expected: tuple[Any, ...]) -> None:
    """NaN, infinity, what is missing and what is no number or no float counts only as the last one."""
    outline = journal.outlines([Block("s", ("x",), [0.0] * len(values), (values,))])["s"]
    found = outline.fields["x"]
    told = (found.count, found.mean, found.lowest, found.highest, found.last)
    assert expected == tuple("nan" if isinstance(each, float) and math.isnan(each) else each for each in told)


def test_runs_without_results_are_listed_with_what_they_logged_last(empty: Scene) -> None:
    """Beside the step; where one has results, those are what counts."""
    rows = "for step in range(3):\n    numb.log(step=step, loss=1 / (step + 1), note='x', acc=float('nan'))\n"
    trained(empty, rows)
    before = empty.numb("list").stdout.splitlines()
    trained(empty, rows + "numb.numb_trial_result({'f1': 0.5})\n")
    after = empty.numb("list").stdout.splitlines()

    assert (["id", "last loss", "status", "age"], "0.333333") == (
        re.split(r"\s{2,}", before[1].strip()),
        before[2].split()[1],
    )
    assert ["id", "f1", "status", "age"] == re.split(r"\s{2,}", after[1].strip())
