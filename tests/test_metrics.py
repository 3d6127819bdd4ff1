"""What is promised of the machine's series: it comes by itself, beside the script, and whatever is wrong with it harms nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Scene

from numb import hooks, metering
from numb.config import load
from numb.errors import ConfigError
from numb.journal import Reader
from numb.metering import Meter
from numb.observing import _Journal, blocks
from numb.project import Project

HEAD = """
import os, time, numb
observed = os.environ["NUMB_RUN_DIR"] + "/observed"
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
numb.numb_param({})
"""


def prepared(scene: Scene, body: str, **settings: Any) -> None:
    """A project whose script is *body*; the machine is looked at ten times a second."""
    scene.write("train.py", HEAD + body)
    document = {"train": {"command": "python train.py"}, "metrics": 0.1, **settings}
    scene.write("nmb.json", json.dumps(document))
    assert 0 == scene.numb("init").code


def rows_of(scene: Scene, name: str = "system") -> list[dict[str, float]]:
    project = Project.open(scene.root)
    return [
        dict(zip(block.fields, row, strict=True))
        for block in project.series(project.find("@"), name)
        for row in block.rows()
    ]


def test_it_is_seen_live_and_kept(empty: Scene) -> None:
    """Rows of seconds, processor and memory while the script runs, and among the series afterwards; `tail` is the script's."""
    prepared(
        empty,
        "numb.log(step=1, loss=0.5)\nwait_for(observed)\nwait_for(observed.replace('observed', 'series'))\nopen('ready', 'w').close()\nwait_for('go')\n",
    )
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.02; done")
    live = empty.numb("tail --series system --json").stdout.splitlines()
    own = empty.numb("tail").stdout
    empty.write("go", "")
    process.communicate(timeout=60)
    rows, [run] = rows_of(empty), empty.runs()

    assert {"seconds", "cpu", "memory", "machine_memory"} <= set(json.loads(live[0])["values"])
    assert json.loads(live[0])["values"] == rows[0]
    assert 0.1 <= rows[0]["seconds"] < 60 and 1 << 20 < rows[0]["memory"] < rows[0]["machine_memory"]
    assert own.endswith("step 1  loss 0.5\n") and own.count("\n") == 1 == empty.numb("tail -n 0").stdout.count("\n")
    assert ["log", "system"] == list(run["series"]) and "series/system.csv" == run["series"]["system"]["file"]
    assert len(rows) == run["series"]["system"]["rows"] and 0 == empty.numb("verify").code


def test_it_can_be_switched_off(empty: Scene) -> None:
    """By `false`; then nothing is looked at."""
    prepared(empty, "time.sleep(0.3)\n", metrics=False)
    assert 0 == empty.numb("train").code
    assert {} == empty.runs()[0]["series"]


def test_the_rows_of_a_launcher_that_dies_are_there(empty: Scene) -> None:
    """Up to then: the run is put on the branch with them."""
    prepared(empty, "wait_for(observed)\nopen('ready', 'w').close()\nwait_for('go')\nopen('ended', 'w').close()\n")
    process = empty.start("train")
    empty.sh("until [ -e ready ]; do sleep 0.02; done")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    there = sum(len(block.times) for path in empty.root.glob(".nmb/runs/*/observed") for block in Reader(path).blocks())
    empty.write("go", "")
    empty.sh("until [ -e ended ]; do sleep 0.02; done")
    empty.sh('for i in $(seq 500); do numb list --json | grep -q \'"commit": "\' && break; sleep 0.02; done')

    assert 0 < there == len(rows_of(empty)) and 0 == empty.numb("doctor").code


@pytest.mark.usefixtures("warm")
def test_a_resumed_run_keeps_what_it_had_by_the_checkpoint(empty: Scene) -> None:
    """And goes on with what it needs now."""
    prepared(
        empty,
        """
class Part:
    def state_dict(self): return {"n": 1}
    def load_state_dict(self, state): pass
run = numb.run()
run.track(part=Part())
resumed = run.restore().step > 0
wait_for(observed)
run.checkpoint(step=2 if resumed else 1)
raise SystemExit(0 if resumed else 3)
""",
    )
    assert 3 == empty.numb("train").code
    [before] = rows_of(empty)[:1]
    assert 0 == empty.numb("train --again --resume @").code
    rows = rows_of(empty)

    assert before == rows[0] and len(rows) > 1


def test_what_is_wrong_with_it_is_a_note(empty: Scene) -> None:
    """The script ends as it would, and the run says why there is nothing of the machine."""
    empty.write("psutil.py", "open('tried', 'w').close()\nraise RuntimeError('broken\\x1b[2J')\n")
    prepared(empty, "wait_for('tried')\nprint('done')\n")
    done = empty.numb("train")
    [run] = empty.runs()

    assert (0, "done\n", "complete", {}) == (done.code, done.stdout, run["status"], run["series"])
    assert any(note.startswith("the machine was not measured: RuntimeError: broken") for note in run["notes"])


def test_a_row_that_the_disk_does_not_take_is_lost_alone(tmp_path: Path) -> None:
    """What comes when there is room again can be read, though its schema was in what was lost."""
    journal = _Journal(tmp_path / "later" / "observed")
    journal.add(blocks("system", [(1.0, {"seconds": 1.0})]))
    (tmp_path / "later").mkdir()
    journal.add(blocks("system", [(2.0, {"seconds": 2.0}), (3.0, {"seconds": 3.0})]))
    journal.close()
    journal.add(blocks("system", [(4.0, {"seconds": 4.0})]))

    [block] = Reader(tmp_path / "later" / "observed").blocks()
    assert [2.0, 3.0] == list(block.columns[0]) == list(block.times)


def test_processes_below_the_script_count() -> None:
    """Their memory and their time: DataLoader workers do the work of many scripts; one that has ended is no error."""
    holds = "import sys; x = bytearray(96 << 20); n = sum(range(3_000_000)); print(flush=True); sys.stdin.read()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", starts], **pipes) as process:  # type: ignore[call-overload]
        meter = Meter(process.pid, {}, time.monotonic())
        process.stdout.read(1)
        values = meter.look()
        process.communicate()

    assert values["memory"] > 96 << 20 and values["cpu"] > 0
    assert {} == meter.look()


def nvml(**broken: Callable[..., Any]) -> Any:
    """NVIDIA's library, of a machine with three GPUs."""

    def rates(handle: int) -> Any:
        return types.SimpleNamespace(gpu=10 * handle)

    def memory(handle: int) -> Any:
        return types.SimpleNamespace(used=handle << 30)

    facts = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{'abc'[handle]}7",
        "nvmlDeviceGetUtilizationRates": rates,
        "nvmlDeviceGetMemoryInfo": memory,
    }
    return types.SimpleNamespace(**{**facts, **broken})


def fails(*_: Any) -> Any:
    raise OSError("the driver says no")


@pytest.mark.parametrize(
    ("visible", "broken", "expected"),
    [
        (None, {}, {"gpu0": 0, "gpu0_memory": 0, "gpu1": 10, "gpu1_memory": 1 << 30, "gpu2": 20, "gpu2_memory": 2 << 30}),
        ("2,1", {}, {"gpu2": 20, "gpu2_memory": 2 << 30, "gpu1": 10, "gpu1_memory": 1 << 30}),
        ("1,7,2", {}, {"gpu1": 10, "gpu1_memory": 1 << 30}),
        ("GPU-c", {}, {"gpu2": 20, "gpu2_memory": 2 << 30}),
        ("", {}, {}), ("-1", {}, {}), ("GPU-", {}, {}),
        ("1", {"nvmlDeviceGetUtilizationRates": fails}, {"gpu1_memory": 1 << 30}),
        (None, {"nvmlInit": fails}, {}), (None, {"nvmlDeviceGetCount": fails}, {}),
    ],
)  # fmt: skip
def test_the_gpus_are_those_that_the_script_sees(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, broken: Any, expected: dict[str, int]
) -> None:
    """By CUDA_VISIBLE_DEVICES, numbers or names; what NVML does not say is left out."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**broken))
    monkeypatch.setattr(metering, "_DRIVERS", ("/",))
    meter = Meter(os.getpid(), {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, time.monotonic())

    assert expected == {name: value for name, value in meter.look().items() if name.startswith("gpu")}
    meter.close()


@pytest.mark.parametrize("name", ["system", "stdout", "tensorboard", "tensorboard-a"])
def test_a_series_of_the_scripts_own_has_another_name(name: str) -> None:
    """When it is made, as with `log`: no row of the script's mixes with numb's."""
    with pytest.raises(ValueError, match=r"^numb\.series: .*and not log or system or stdout or tensorboard"):
        hooks.series(name, ["epoch"])


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ('{"metrics": 0}', "1:13", "true, false, or a number of seconds from 0.1 to 86400"),
        ('{"metrics": "no"}', "1:13", "true, false, or a number of seconds from 0.1 to 86400"),
        ('{"series": {"stdout": 1}}', "1:23", "true or false"),
        ('{"series": {"tensorboard": true}}', "1:28", 'a folder of the project such as "runs", or a list of them'),
        (
            '{"series": {"tensorboard": ["a", "/b"]}}',
            "1:34",
            'a folder of the project such as "runs", or a list of them',
        ),
        ('{"series": []}', "1:12", "an object"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path: Path, text: str, where: str, expected: str) -> None:
    """As every other one of nmb.json."""
    (tmp_path / "nmb.json").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "nmb.json")
    assert str(raised.value).startswith(f"{tmp_path / 'nmb.json'}:{where}: expected {expected}, found ")
