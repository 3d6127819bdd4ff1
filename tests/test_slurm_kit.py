"""The Slurm of the tests is one: it runs, signals, puts back, preempts and loses jobs as a cluster does."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm import Slurm, real_slurm  # noqa: F401 - the fixture

# A job that says who it is and what it is told; begun once more it ends at once.
JOB = """
echo "begun ${SLURM_RESTART_COUNT:-0}"
[ -n "$SLURM_RESTART_COUNT" ] && exit
trap 'echo USR1' USR1
trap 'echo USR2; scontrol requeue $SLURM_JOB_ID; exit' USR2
while :; do sleep 0.05; done
"""


class Log:
    """What a job has printed, of all its beginnings."""

    def __init__(self, slurm: Slurm, path: Path) -> None:
        self.slurm, self.path = slurm, path

    def options(self, *options: str) -> tuple[str, ...]:
        return ("-o", str(self.path), "--open-mode=append", *options)

    def until(self, *lines: str) -> None:
        self.slurm.wait(lambda: list(lines) == self.lines(), f"{lines}", seen=lambda: f"{self.lines()}")

    def lines(self) -> list[str]:
        """Without what Slurm and the shell say of the end."""
        words = ("begun", "USR1", "USR2")
        return (
            [line for line in self.path.read_text().splitlines() if line.startswith(words)]
            if self.path.exists()
            else []
        )


@pytest.fixture
def log(slurm: Slurm, tmp_path: Path) -> Log:
    return Log(slurm, tmp_path / "log")


def test_a_job_runs_and_its_end_is_known_without_accounting(slurm: Slurm, tmp_path: Path) -> None:
    """Slurm itself says how a job has ended, and the environment and the folder are those of who submits."""
    job = slurm.submit('echo "$WHO in $PWD" > said; exit 3', cwd=tmp_path, env={"WHO": "Ada"})

    ended = slurm.until(job)

    assert ("FAILED", "3:0", "0") == (ended["JobState"], ended["ExitCode"], ended["Restarts"])
    assert f"Ada in {tmp_path}\n" == (tmp_path / "said").read_text()
    assert "FAILED" == slurm.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def test_an_array_of_submitit_gives_results(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit submits with nothing but the environment of the cluster."""
    submitit = pytest.importorskip("submitit")
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    executor = submitit.AutoExecutor(tmp_path / "jobs")
    executor.update_parameters(timeout_min=5, slurm_partition="debug", slurm_array_parallelism=2)

    jobs = executor.map_array(pow, [1, 2, 3], [2, 2, 2])

    assert "slurm" == executor.cluster
    assert [1, 4, 9] == [job.result() for job in jobs]


@pytest.mark.parametrize("how", ["--batch", "--full"])
def test_a_signal_arrives(slurm: Slurm, log: Log, how: str) -> None:
    """A batch script is sent a signal where it is asked for by name."""
    job = slurm.submit(JOB, *log.options())
    log.until("begun 0")

    slurm.run("scancel", "--signal=USR1", how, job)

    log.until("begun 0", "USR1")
    slurm.run("scancel", "--signal=KILL", "--full", job)


def test_a_job_that_is_put_back_begins_again(slurm: Slurm, log: Log) -> None:
    """It has the same id, and is told how often it was put back."""
    job = slurm.submit(JOB, *log.options())
    log.until("begun 0")

    slurm.run("scontrol", "requeue", job)
    slurm.begin_soon(job)

    log.until("begun 0", "begun 1")
    assert "1" == slurm.until(job, "COMPLETED")["Restarts"]


def test_a_job_makes_room_for_a_better_one(slurm: Slurm, log: Log) -> None:
    """It gets its signal at once and puts itself back; without that it would have ended here."""
    job = slurm.submit(JOB, *log.options("-p", "spare", "--signal=B:USR2@60"))
    log.until("begun 0")

    better = slurm.submit("sleep 0.1", "-o", "/dev/null", "-N", str(len(slurm.nodes)), "--exclusive")

    slurm.until(better)
    slurm.begin_soon(job)
    log.until("begun 0", "USR2", "begun 1")
    assert "1" == slurm.until(job, "COMPLETED")["Restarts"]


def test_a_job_of_a_lost_node_begins_again_on_another(slurm: Slurm, log: Log) -> None:
    """Nothing is told to a job whose node is gone."""
    job = slurm.submit(JOB, *log.options())
    log.until("begun 0")

    slurm.lose_node(slurm.show(job)["BatchHost"])
    slurm.begin_soon(job)

    log.until("begun 0", "begun 1")
    assert "1" == slurm.until(job, "COMPLETED")["Restarts"]
    slurm.find_nodes()
