"""What is promised of readers: the numbers that a script writes for people and for TensorBoard are series, and it notices nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene
from hypothesis import given
from hypothesis import strategies as st
from test_metrics import rows_of

from numb.readers import Printed, pairs


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epoch: 3 loss: 0.25 acc: 0.9", {"epoch": 3, "loss": 0.25, "acc": 0.9}),
        ("step 10 | loss=0.5, lr: 1e-3", {"step": 10, "loss": 0.5, "lr": 0.001}),
        ("Epoch 3/10: loss=-.5;acc = 93%", {"Epoch": 3, "loss": -0.5, "acc": 93}),
        ("Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.30", {"Epoch": 1, "Loss": 2.3}),
        ("[val/acc:0.5] {a.b=+1_000}", {"val/acc": 0.5, "a.b": 1000}),
        ("loss: nan acc: -inf", {"loss": "nan", "acc": float("-inf")}),
        ("loss: 1 loss: 2", {"loss": 1}),
        ("\x1b[1;32mloss\x1b[0m: \x1b[1m0.5\x1b[0m\x07", {"loss": 0.5}),
        ("perplexité: 12.5", {"perplexité": 12.5}),
        ("epoch 3 took 5 seconds", {}),
        ("numb.errors.Diverged: loss inf > 100 at epoch 2 x: 3", {}),
        ("ValueError: lr: 3", {}),
        ("12:30:15 done: yes, x: 3s, v=1.2.3, 7=7", {}),
        ("https://host:8080 Date: 5 a:b=c", {}),
        ("loss: 0x10 acc: 1_", {}),
        ("", {}),
    ],
)
def test_a_line_is_a_row_of_its_pairs(line: str, expected: dict[str, Any]) -> None:
    """The grammar that the manual gives: names, numbers, what stands between them, and nothing else."""
    found = pairs(line)
    assert expected == {name: "nan" if value != value else value for name, value in found.items()}
    assert list(expected) == list(found) and all(type(value) in (int, float) for value in found.values())


@given(st.lists(st.integers(0, 80), max_size=8))
def test_pieces_and_terminals_make_no_difference(cuts: list[int]) -> None:
    """However the output comes; of a line that was drawn over, the last drawing counts; a long one is cut."""
    text = b"loss: 1\r\n 10% loss: 2\r 20% loss: 3\nnothing\nx" + b"y" * 5000 + b" loss: 5\n\xff loss: 6\r\nacc: 7"
    printed, found = Printed(), []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True):
        printed.seen(text[begin:end])
        found += [row for _, row in printed.rows()]
    found += [row for _, row in printed.last()]

    assert [{"loss": 1}, {"loss": 3}, {"loss": 6}, {"acc": 7}] == found


def test_a_line_without_an_end_takes_no_memory() -> None:
    """Nor does output that comes faster than it is read: that is lost, and counted."""
    printed = Printed()
    for _ in range(200):
        printed.seen(b"x" * 65536)
    assert [] == list(printed.rows()) and len(printed._line) < 5000 and 136 * 65536 == printed.lost


def settings(scene: Scene, **series: Any) -> None:
    document = {"train": {"command": "python train.py"}, "metrics": False, "series": series}
    scene.write("nmb.json", json.dumps(document))
    assert 0 == scene.numb("init").code


def test_what_a_script_prints_is_a_series(empty: Scene) -> None:
    """Live, and kept; what comes through, and the log, are the script's bytes, with numb and without."""
    settings(empty, stdout=True)
    script = """
import os, sys, time
for step in range(3):
    print(f"\\x1b[1mstep {step}\\x1b[0m | loss: {0.5 ** step}", flush=True)
sys.stderr.write("error: 5\\n")
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.005)
sys.stdout.write("acc=0.75")
"""
    empty.write("train.py", script)
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.02; done")
    live = empty.sh("until numb tail --series stdout | grep 'step 2'; do sleep 0.02; done")
    empty.write("go", "")
    out, _ = process.communicate(timeout=60)
    alone = empty.sh("rm ready; python train.py 2>/dev/null | od -c")

    assert re.fullmatch(r"[\d:]{8}  step 2  loss 0.25", live)
    assert [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}] == [
        {name: value for name, value in row.items() if value is not None} for row in rows_of(empty, "stdout")
    ][:3]
    assert 0.75 == rows_of(empty, "stdout")[3]["acc"] and 4 == len(rows_of(empty, "stdout"))
    empty.write("out", out.decode())
    assert alone == empty.sh("od -c out") and {"stdout"} == set(empty.runs()[0]["series"])


WRITES = """
import os, sys
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

def write(folder, first, last):
    writer = EventFileWriter(folder)
    for step in range(first, last):
        for tag in ("loss/train", "step"):
            value = summary_pb2.Summary.Value(tag=tag, simple_value=step / 2)
            writer.add_event(event_pb2.Event(wall_time=1000.0 + step, step=step, summary=summary_pb2.Summary(value=[value])))
    writer.close()
"""


@pytest.mark.usefixtures("warm")
def test_the_event_files_of_tensorboard_are_series(torch_scene: Scene) -> None:
    """Both forms in which torch writes a scalar, by step, at the time of the event; what is no scalar is none."""
    settings(torch_scene, tensorboard="ru*")
    script = """
import torch
from torch.utils.tensorboard import SummaryWriter
writer = SummaryWriter("runs/today")
for step in range(3):
    writer.add_scalar("loss/train", 0.5 * step, step, walltime=5e9 + step)
    writer.add_scalar("lr", torch.tensor(0.25), step, new_style=True, walltime=5e9 + step)
    writer.add_text("note", "0.5", step)
    writer.add_histogram("weights", torch.ones(3), step)
writer.add_scalars("acc", {"val": 0.75}, 2)
writer.close()
"""
    torch_scene.write("train.py", "import numb\nnumb.numb_param({})\n" + script)
    done = torch_scene.numb("train")
    table = torch_scene.numb("show @ --series tensorboard").stdout

    assert (0, "") == (done.code, re.sub(r"numb: .*\n", "", done.stderr))
    assert (
        "step,loss/train,lr,Date\n"
        "0,0.0,0.25,2128-06-11T08:53:20.000Z\n1,0.5,0.25,2128-06-11T08:53:21.000Z\n2,1.0,0.25,2128-06-11T08:53:22.000Z\n"
    ) == table
    assert [{"step": 2, "acc": 0.75}] == rows_of(torch_scene, "tensorboard-acc_val")


def test_only_what_has_come_in_the_run_is_read(empty: Scene) -> None:
    """Files of before are not the run's; a file that is cut off, or is none, harms nothing."""
    settings(empty, tensorboard=["logs/**", "none"])
    empty.write("before.py", WRITES + "write('logs/before', 0, 2)\n")
    empty.sh("python before.py")
    script = """
for folder in ("logs/a", "logs/b"):
    write(folder, 4_000_000_000, 4_000_000_002)
[name] = os.listdir("logs/b")
os.truncate("logs/b/" + name, os.path.getsize("logs/b/" + name) - 10)
open("logs/b/events.out.tfevents.0", "wb").write(b"no events")
"""
    empty.write("train.py", WRITES + script)
    done = empty.numb("train")
    [run] = empty.runs()

    assert (0, "complete", []) == (done.code, run["status"], [n for n in run["notes"] if "called no hook" not in n])
    assert {"tensorboard-a": 2, "tensorboard-b": 2} == {n: each["rows"] for n, each in run["series"].items()}
    assert {"step": 4_000_000_001, "loss/train": 2_000_000_000.5, "step_": None} | rows_of(empty, "tensorboard-a")[
        1
    ] == (rows_of(empty, "tensorboard-a")[1])


def test_without_the_package_the_run_says_what_to_install(empty: Scene) -> None:
    """And where there is no event file, nobody asks for it."""
    settings(empty, tensorboard="runs")
    empty.write("tensorboard.py", "")
    empty.write("train.py", "pass\n")
    assert 0 == empty.numb("train").code
    empty.write("train.py", "import os\nos.makedirs('runs')\nopen('runs/events.out.tfevents.1', 'w').write('x')\n")
    assert 0 == empty.numb("train").code

    asks = "the event files of TensorBoard were not read: pip install 'numb[tensorboard]'"
    assert [False, True] == [asks in run["notes"] for run in empty.runs()]
    assert Path(empty.root, "runs").is_dir()
