"""A real Slurm on this machine, with daemons of its own in a folder of its own, for as long as tests need it."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "setpriv"]
ENDED = ["BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"]
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"

# A job begins within a second; one that was put back waits for 6 seconds more: cred_expire is 5 at least. Jobs in `spare` make
# room for jobs in `debug`: they get their --signal at once, and an end after GraceTime. Slurm looks for jobs whose time is up
# every 30 seconds. There is no accounting, as there is none without a database: `completed` has a line for each end of a job.
CONF = """\
ClusterName=numb
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=2
ReturnToService=2
{settings}
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP
PartitionName=debug Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=spare PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
"""


def missing() -> str:
    """Say why there can be no Slurm here, or nothing where there can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "only root can run a Slurm"


class Slurm:
    """One that runs while it is entered: *nodes* n1, n2, …, all of them this machine, each with so many processors.

    There is more than one, as nothing new begins on a node where a job is being ended. *settings* win over lines of CONF.
    The path of the folder must be short, as it holds a socket, and without a blank.
    """

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 4, **settings: str) -> None:
        self.folder = folder
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.conf = folder / "slurm.conf"
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH_", "SRUN_", "SQUEUE_"))}
        self.env = {"SLURM_CONF": str(self.conf)}  # all that a client needs
        self._environment = {**outer, **self.env, "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        host = socket.gethostname().partition(".")[0]
        ports = free_ports(nodes + 1)
        self.conf.write_text(
            CONF.format(
                folder=folder,
                host=host,
                port=ports.pop(),
                settings="\n".join(f"{name}={value}" for name, value in settings.items()),
                nodes="\n".join(
                    f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports.pop()} CPUs={cpus}"
                    for name in self.nodes
                ),
            )
        )

    def __enter__(self) -> Slurm:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        for name in ("state", *self.nodes):
            (self.folder / name).mkdir()
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        try:
            own = (f"--{option}={self.folder}/munge.{name}" for option, name in files.items())
            self._start("munged", "munged", "--foreground", "--force", *own)
            self.wait((self.folder / "munge.socket").exists, "a socket of munged")
            self._start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
            self.find_nodes()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(
        self,
        *words: str,
        input: str = "",
        check: bool = True,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command as a user of the cluster, and return what it prints."""
        done = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env={**self._environment, **(env or {})},
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def submit(self, script: str, *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        """Submit the lines of a shell script with options of sbatch, and return the id of the job."""
        return self.run("sbatch", "--parsable", *options, input=f"#!/bin/bash\n{script}\n", cwd=cwd, env=env)

    def show(self, job: str) -> dict[str, str]:
        """Return what Slurm knows of a job, or of a task of an array (`7_0`): JobState, Restarts, …; nothing of no job."""
        words = self.run("scontrol", "show", "job", job, check=False).split()
        return {name: value for name, sep, value in (word.partition("=") for word in words) if sep}

    def state(self, job: str) -> str:
        return self.show(job).get("JobState", "")

    def begin_soon(self, job: str) -> None:
        """Let a job that was put back begin in 2 seconds, not in 6; within one its node takes it for the one that ended."""
        self.until(job, "PENDING")
        self.run("scontrol", "update", f"jobid={job}", "starttime=now+2", check=False)  # it may have begun by itself

    def until(self, job: str, *states: str, seconds: float = 30) -> dict[str, str]:
        """Wait until a job is in one of these states, or has ended where none is named, and return what Slurm knows of it."""
        last: dict[str, str] = {}

        def there() -> bool:
            last.clear()
            last.update(self.show(job))
            return last.get("JobState") in (states or ENDED)

        self.wait(there, f"{job} {' or '.join(states) or 'ended'}", seconds, lambda: f"{last}")
        return last

    def wait(self, what: Callable[[], bool], name: str, seconds: float = 30, seen: Callable[[], str] = str) -> None:
        """Wait until something is so; where it does not come to be, the logs are in the error."""
        end = time.monotonic() + seconds
        while not what():
            dead = [daemon for daemon, process in self._daemons.items() if process.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "\n".join(f"== {p.name}\n{p.read_text()[-2000:]}" for p in sorted(self.folder.glob("*.out")))
                raise AssertionError(f"no {name}; ended: {dead}; {seen()}\n{logs}")
            time.sleep(0.05)

    def find_nodes(self) -> None:
        """Start the nodes that are not there, and wait until all may be used."""
        for name in self.nodes:
            if name not in self._daemons:
                self._start(name, "slurmd", "-D", "-N", name, "-f", str(self.conf))
        self.wait(lambda: {*self._usable()} == {*self.nodes}, "nodes")

    def lose_node(self, name: str) -> None:
        """Take a node away as a power cut does: its daemon and its jobs are gone, and the cluster is told that it is down."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()
        self._kill(lambda: self._processes(name))
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=lost")

    def stop(self) -> None:
        """Kill the daemons, and whatever of the jobs is left: no job is told anything."""
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        self._daemons.clear()
        self._kill(self._processes)

    def _kill(self, find: Callable[[], list[psutil.Process]]) -> None:
        """Kill these processes, until there are none."""
        while left := find():
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.02)

    def _processes(self, node: str = "") -> list[psutil.Process]:
        """Return what was started under this cluster, or as part of a job on a node, daemons that were started here left out.

        One that stands for a job shows no environment, and is known by its socket.
        """
        place = f"{self.folder}/{node}/" if node else f"{self.folder}/"
        steps = {c.pid for c in psutil.net_connections("unix") if str(c.laddr).startswith(place)}
        daemons = {os.getpid(), *(daemon.pid for daemon in self._daemons.values())}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                env = process.environ()
                ours = env.get("SLURM_CONF") == str(self.conf) and node in ("", env.get("SLURMD_NODENAME"))
                if (ours or process.pid in steps) and process.pid not in daemons and process.status() != "zombie":
                    found.append(process)
        return found

    def _start(self, name: str, program: str, *options: str) -> None:
        """Start a daemon that ends with this process, however that ends."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, *options],
                cwd=self.folder,
                env={**self._environment, "SLURMD_NODENAME": name},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def _usable(self) -> list[str]:
        lines = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %t", check=False).splitlines()
        return [node for node, state in (line.split() for line in lines) if state in ("idle", "mix", "alloc")]


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, below those which the system gives to connections."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("", port)):
            if port not in found:
                found.append(port)
    return found


@pytest.fixture(scope="session", name="slurm")
def real_slurm() -> Iterator[Slurm]:
    """A cluster of two nodes with four processors each; every process of pytest-xdist that needs one has its own."""
    if why := missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="numb-slurm-") as folder, Slurm(Path(folder)) as slurm:
        yield slurm
