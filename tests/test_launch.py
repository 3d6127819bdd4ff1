"""A script under numb: what it writes, how it ends, and which signals reach it.

Real processes all the way: numb's side is a small driver in its own process, so that its descriptors, terminal and signals
can be the test's. Nothing waits for time to pass; a test waits for a line, a file's end or a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
from terminals import Terminal

from numb import launch
from numb.errors import CannotStart, CommandNotFound, NumbError
from numb.launch import Outcome

ROOT = Path(launch.__file__).parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfd")
PATIENCE = 30.0  # seconds until a test that waits for something is a failure

DRIVER = """
import dataclasses, fcntl, json, os, resource, signal, sys, termios, time
from pathlib import Path
from numb import launch

order = json.loads(sys.argv[1])
exec(order["before"])
options = order["options"]
if order["bell"]:
    options["doorbell"] = os.open(order["bell"], os.O_RDWR | os.O_NONBLOCK)
    def ring():
        os.read(options["doorbell"], 100)
        exec(order["ring"])
    options["ring"] = ring
began = time.monotonic()
outcome = launch.run(order["command"], cwd=Path(order["cwd"]), env=os.environ, log=Path(order["log"]), **options)
told = dataclasses.asdict(outcome) | {"lingered": time.monotonic() - began - outcome.seconds, "restored": all(
    signal.getsignal(s) is signal.SIG_DFL for s in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH))}
if os.path.exists("/proc/self/status"):
    told["memory"] = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
Path(order["outcome"]).write_text(json.dumps(told))
sys.exit(outcome.exit_code)
"""


@dataclass
class Stage:
    """A place to run scripts under numb; `start` is the driver as a process of its own."""

    path: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    limits: list[threading.Timer] = field(default_factory=list)

    @property
    def log(self) -> bytes:
        return (self.path / "output.log").read_bytes()

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.path / "outcome.json").read_text())
        return told

    def start(
        self,
        script: str | list[str],
        *,
        log: str = "output.log",
        before: str = "",
        bell: str = "",
        ring: str = "",
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        **options: object,
    ) -> subprocess.Popen[bytes]:
        """Start *script* (Python source, or a command) under numb; by default there is no terminal anywhere."""
        order = {
            "command": [sys.executable, "-c", script] if isinstance(script, str) else script,
            "cwd": str(self.path),
            "log": str(self.path / log),
            "outcome": str(self.path / "outcome.json"),
            "before": before,
            "bell": bell and str(self.path / bell),
            "ring": ring,
            "options": options,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(order)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self.processes.append(process)
        self.limits.append(limit := threading.Timer(PATIENCE, self.kill, [process]))
        limit.start()
        return process

    def run(self, script: str | list[str], **options: Any) -> tuple[int, bytes, bytes]:
        process = self.start(script, **options)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill numb and its script, so that a test which reads from them sees the end instead of hanging."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        for limit in self.limits:
            limit.cancel()
        for process in self.processes:
            self.kill(process)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # the buffers of numb and of the script are part of the story
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def wait_for_end(pid: int) -> None:
    """Wait until *pid*, which is nobody's child here, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], PATIENCE)[0], f"process {pid} is still there"
    finally:
        os.close(handle)


def here(command: list[str], path: Path, env: Mapping[str, str] = os.environ, **options: Any) -> Outcome:
    return launch.run(command, cwd=path, env=env, log=path / "output.log", **options)


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


# How it ended


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('text')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(255)", 255),
    ],
)
def test_the_exit_code_is_the_scripts(source: str, code: int, tmp_path: Path) -> None:
    """However a script ends by itself, its own code comes through, and nothing else is told."""
    outcome = here(python(source), tmp_path)

    assert Outcome(code, None, (), outcome.seconds, False, None, 0) == outcome
    assert code == outcome.exit_code


@pytest.mark.parametrize(
    ("source", "signum"),
    [
        ("import os; os.kill(os.getpid(), 9)", signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", signal.SIGSEGV),
        ("import os; os.abort()", signal.SIGABRT),
        ("import os; os.kill(os.getpid(), 15)", signal.SIGTERM),
        ("raise KeyboardInterrupt", signal.SIGINT),
    ],
)
def test_a_signal_that_ends_the_script_is_told_as_shells_tell_it(source: str, signum: int, tmp_path: Path) -> None:
    """A script killed by a signal has no code, and numb's own is 128 + the signal."""
    no_core = f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); {source}"

    outcome = here(python(no_core), tmp_path)

    assert (None, signum, 128 + signum) == (outcome.code, outcome.signal, outcome.exit_code)


def test_the_process_is_told_as_soon_as_it_exists(tmp_path: Path) -> None:
    """started gets the process id of the script itself."""
    pids: list[int] = []

    here(python("import os; print(os.getpid())"), tmp_path, started=pids.append)

    assert f"{pids[0]}\n".encode() == (tmp_path / "output.log").read_bytes()


def test_a_failing_callback_does_not_harm_the_script(tmp_path: Path) -> None:
    """What a callback raises comes out of run when the script has ended, with all of its output kept."""

    def fail(pid: int) -> None:
        raise RuntimeError("numb's own fault")

    with pytest.raises(RuntimeError, match="numb's own fault"):
        here(python("print('x' * 100_000, end='')"), tmp_path, started=fail)

    assert b"x" * 100_000 == (tmp_path / "output.log").read_bytes()


def test_an_ignored_sigchld_does_not_turn_failure_into_success(stage: Stage) -> None:
    """The exit status is the script's also where numb's caller ignores SIGCHLD, and the system would drop it."""
    assert 3 == stage.run("raise SystemExit(3)", before="signal.signal(signal.SIGCHLD, signal.SIG_IGN)")[0]


def test_it_works_outside_the_main_thread(tmp_path: Path) -> None:
    """A notebook's thread can run a script; the process's signal handlers are then left alone."""
    outcomes: list[Outcome] = []
    handler = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with launch.uninterruptible():
            outcomes.append(here(python("print('from a thread'); raise SystemExit(4)"), tmp_path))
        assert handler is signal.getsignal(signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)

    assert [4] == [outcome.code for outcome in outcomes]
    assert b"from a thread\n" == (tmp_path / "output.log").read_bytes()


@linux
@pytest.mark.parametrize("command", [python("pass"), ["no-such-command"], ["./no-program"]])
def test_no_descriptor_stays_open(command: list[str], tmp_path: Path) -> None:
    """A queue runs thousands of scripts from one process: whatever happens to a run, it closes all it has opened."""
    write_program(tmp_path / "no-program", "no interpreter line")
    before = os.listdir("/proc/self/fd")

    with contextlib.suppress(NumbError):
        here(command, tmp_path)

    assert before == os.listdir("/proc/self/fd")


# What the script finds


def test_the_script_gets_its_place_and_environment_and_nothing_of_numbs(stage: Stage) -> None:
    """The folder, the group and the session are as without numb, and no descriptor of numb's leaks into the script."""
    source = "import os; print(os.getcwd(), os.getpgrp(), os.getsid(0), sorted(map(int, os.listdir('/dev/fd')))[:-1])"

    process = stage.start(source)
    out, _ = process.communicate(timeout=PATIENCE)

    assert f"{stage.path} {process.pid} {process.pid} [0, 1, 2]\n" == out.decode()


@pytest.mark.parametrize(("given", "found"), [({}, "1"), ({"PYTHONUNBUFFERED": ""}, "")])
def test_output_is_unbuffered_unless_the_user_says_otherwise(
    given: dict[str, str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONUNBUFFERED is set for the script (M9), but a value of the user's stays."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    here(python("import os; print(os.environ['PYTHONUNBUFFERED'])"), tmp_path, {**os.environ, **given})

    assert f"{found}\n" == (tmp_path / "output.log").read_text()


def test_a_broken_pipe_ends_the_scripts_programs_as_it_should(tmp_path: Path) -> None:
    """Python ignores SIGPIPE; the script must not inherit that."""
    assert signal.SIGPIPE == here(["sh", "-c", "kill -PIPE $$; echo still there"], tmp_path).signal


def test_the_command_is_started_by_the_name_it_was_given(tmp_path: Path) -> None:
    """A command found on PATH sees the short name, as from a shell: a virtual environment's python relies on it."""
    write_program(tmp_path / "bin" / "show", '#!/bin/sh\necho "$0 $1"')

    here(["show", "a b"], tmp_path, {"PATH": f"{tmp_path}/absent:bin"})

    assert f"{tmp_path}/bin/show a b\n" == (tmp_path / "output.log").read_text()


# Its output


CHUNKS = [
    bytes(range(256)) * 40,
    b"\xff\xfe\x80",
    "é".encode()[:1],
    "é".encode()[1:],
    b"10%\r20%\r",
    b"\0" * 5000,
    b"\x1b[2J",
    b"\r\n",
    b"no end",
]


def test_bytes_go_through_unchanged_and_into_the_log(stage: Stage) -> None:
    """Binary data, broken UTF-8, progress bars and NULs arrive as they were written, also when cut inside a letter."""
    code, out, err = stage.run(f"import os\nfor chunk in {CHUNKS!r}: os.write(1, chunk)")

    assert (0, b"".join(CHUNKS), b"") == (code, out, err)
    assert out == stage.log


def test_stdout_and_stderr_stay_apart(stage: Stage) -> None:
    """What goes to different places arrives in different places; the log has both."""
    _, out, err = stage.run("import os; os.write(1, b'result'); os.write(2, b'talk')")

    assert (b"result", b"talk") == (out, err)
    assert sorted(b"resulttalk") == sorted(stage.log)


ALTERNATING = "import os\nfor i in range(200): os.write(1 + i % 2, b'%d ' % i)"
IN_ORDER = b"".join(b"%d " % i for i in range(200))


def test_the_order_is_kept_where_both_go_to_one_pipe(stage: Stage) -> None:
    """`2>&1` gives both streams one way through numb, so that no line overtakes another."""
    _, out, _ = stage.run(ALTERNATING, stderr=subprocess.STDOUT)

    assert (IN_ORDER, IN_ORDER) == (out, stage.log)


def test_the_order_is_kept_on_a_terminal(stage: Stage, terminal: Terminal) -> None:
    """Both streams of a script on a terminal come in the order in which they were written."""
    process = stage.start(ALTERNATING, stdout=terminal.numb, stderr=terminal.numb)

    assert (IN_ORDER, IN_ORDER) == (terminal.read_all(process), stage.log)


def test_what_numb_said_before_comes_before(stage: Stage) -> None:
    """numb's own buffered words are not overtaken by the script's."""
    assert b"numb says: hello\n" == stage.run("print('hello')", before="print('numb says: ', end='')")[1]


def test_output_arrives_at_once(stage: Stage) -> None:
    """A prompt without a newline is there while the script waits for the answer."""
    process = stage.start("import sys; print('name? ', end=''); print(sys.stdin.readline())", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None

    assert b"name? " == process.stdout.read(6)
    process.stdin.write(b"Ada\n")
    process.stdin.flush()
    assert b"Ada\n" == process.stdout.readline()


def test_ten_megabytes_without_a_newline(stage: Stage) -> None:
    """Nothing waits for the end of a line."""
    _, out, _ = stage.run("import os; left = 10_000_000\nwhile left: left -= os.write(1, b'x' * left)")

    assert (b"x" * 10_000_000) == out == stage.log


def test_the_last_lines_of_a_killed_script_arrive(stage: Stage) -> None:
    """All 50 lines before a SIGKILL are passed on (M9: 0 of 50 through a plain pipe)."""
    code, out, _ = stage.run("import os\nfor i in range(50): print(i)\nos.kill(os.getpid(), 9)")

    assert (137, [str(i) for i in range(50)]) == (code, out.decode().split())


def test_a_reader_that_goes_away_does_not_end_the_script(stage: Stage) -> None:
    """`numb train | head -1`: the script goes on, and the log has what nobody read."""
    process = stage.start(
        "import sys; print('first'); sys.stdin.read(); print('x' * 200_000); sys.exit(6)", stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None

    assert b"first\n" == read_line(process)
    process.stdout.close()
    process.stdin.close()

    assert 6 == process.wait(PATIENCE)
    assert b"first\n" + b"x" * 200_000 + b"\n" == stage.log
    assert stage.told["output_error"] is None


ENDED_BY = "import threading; r, w = os.pipe(); order['options']['ending'] = r; threading.Timer(1, os.write, (w, b'x')).start()"


@pytest.mark.parametrize(
    ("script", "signum"),
    [
        ("import time; time.sleep(60)", signal.SIGTERM),
        ("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)", signal.SIGKILL),
        (["bash", "-c", "sleep 60; echo over"], signal.SIGTERM),
    ],
    ids=["that hears", "that is deaf", "of a shell"],
)
def test_a_script_is_ended_where_its_launcher_goes_on(stage: Stage, script: str | list[str], signum: int) -> None:
    """As by a signal to that, with all that it has started; and nothing says that there was one."""
    code, out, _ = stage.run(script, before=ENDED_BY, grace=0.5)

    assert (128 + signum, b"") == (code, out)
    assert (signum, []) == (stage.told["signal"], stage.told["passed_on"]) and not stage.told["survivors"]


def test_a_closed_terminal_does_not_end_the_script(stage: Stage, terminal: Terminal) -> None:
    """Without a hangup signal (nohup, setsid) a script outlives its terminal, and numb tells what was not shown."""
    process = stage.start(
        "import sys; print('ready'); sys.stdin.read(); print('after')",
        stdin=subprocess.PIPE,
        stdout=terminal.numb,
        stderr=terminal.numb,
    )
    assert process.stdin is not None
    terminal.read_until(b"ready\r\n")
    terminal.close()
    terminal.person = terminal.numb = -1

    process.stdin.close()

    assert 0 == process.wait(PATIENCE)
    assert (b"ready\nafter\n", "Input/output error") == (stage.log, stage.told["output_error"])


def test_a_full_disk_behind_stdout_is_told(stage: Stage) -> None:
    """`numb train > file` on a full disk: the log is whole, and the outcome says that the file is not."""
    with open("/dev/full", "wb") as full:
        code, _, _ = stage.run("print('lost')", stdout=full)

    assert (0, b"lost\n", "No space left on device") == (code, stage.log, stage.told["output_error"])


def test_a_closed_stdout_is_no_reason_not_to_train(stage: Stage) -> None:
    """`numb train >&-` keeps the output in the log, and writes it to no other file that got the number 1."""
    closed = "os.close(1); sys.stdout = sys.__stdout__ = None"

    code, out, _ = stage.run("print('kept'); raise SystemExit(7)", before=closed)

    assert (7, b"", b"kept\n") == (code, out, stage.log)


def test_a_non_blocking_stdout_gets_everything(stage: Stage) -> None:
    """Somebody else can make the shared descriptor non-blocking; numb then waits instead of losing output."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = stage.start("print('x' * 1_000_000, end='')", stdout=write)
    os.close(write)

    with open(read, "rb") as reader:
        assert b"x" * 1_000_000 == reader.read()
    assert 0 == process.wait(PATIENCE)


@linux
def test_a_slow_reader_loses_nothing(stage: Stage) -> None:
    """What the script wrote before its end reaches a reader that only then begins to read."""
    process = stage.start("import os; os.write(2, b'%d\\n' % os.getpid()); os.write(1, b'x' * 80_000)")
    assert process.stderr is not None

    wait_for_end(int(process.stderr.readline()))

    assert b"x" * 80_000 == process.communicate(timeout=PATIENCE)[0]
    assert 0 == process.returncode


@linux
def test_a_stream_that_nobody_reads_does_not_hold_up_the_other(stage: Stage) -> None:
    """stderr arrives though stdout is stuck, as without numb: numb writes no more than the pipe takes."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 8192)
    process = stage.start("import os; os.write(1, b'x' * 60_000); os.write(2, b'stderr\\n')", stdout=write)
    os.close(write)
    assert process.stderr is not None

    assert b"stderr\n" == process.stderr.readline()

    with open(read, "rb") as reader:
        assert b"x" * 60_000 == reader.read()


def test_a_reader_that_never_reads_does_not_keep_numb_from_ending(stage: Stage) -> None:
    """With its script ended and its output stuck, numb that is told to end does so after the grace."""
    process = stage.start("import os; os.write(1, b'x' * 80_000); os.write(2, b'%d\\n' % os.getpid())", grace=0.1)
    assert process.stderr is not None
    pid = process.stderr.readline()
    wait_for_end(int(pid))

    process.send_signal(signal.SIGTERM)

    assert 0 == process.wait(PATIENCE)
    assert b"x" * 80_000 == stage.log.replace(pid, b"")
    assert ([signal.SIGTERM], "nobody read it") == (stage.told["passed_on"], stage.told["output_error"])


# A terminal


def test_the_script_finds_a_terminal_where_numb_has_one(stage: Stage, terminal: Terminal) -> None:
    """isatty and the window's size are as without numb; a newline is turned into \\r\\n once, and not in the log."""
    terminal.resize(33, 101)

    process = stage.start(
        "import os; print([os.isatty(fd) for fd in (0, 1, 2)], *os.get_terminal_size(1))",
        stdin=terminal.numb,
        stdout=terminal.numb,
        stderr=terminal.numb,
    )

    assert b"[True, True, True] 101 33\r\n" == terminal.read_all(process)
    assert b"[True, True, True] 101 33\n" == stage.log


def test_a_terminal_carries_the_same_bytes_as_a_pipe(stage: Stage, terminal: Terminal) -> None:
    """The terminal in between changes nothing: the log of a script on a terminal is what it wrote."""
    process = stage.start(
        f"import os\nfor chunk in {CHUNKS!r} * 20: os.write(1, chunk)", stdout=terminal.numb, stderr=terminal.numb
    )

    terminal.read_all(process)

    assert b"".join(CHUNKS) * 20 == stage.log


def test_each_stream_is_what_it_was(stage: Stage, terminal: Terminal) -> None:
    """With stdout in a pipe and stderr on the terminal, progress bars still see a terminal, and the pipe is a pipe."""
    process = stage.start("import os; print(os.isatty(1), os.isatty(2))", stderr=terminal.numb)

    assert b"False True\n" == process.communicate(timeout=PATIENCE)[0]


def test_the_script_can_ask(stage: Stage, terminal: Terminal) -> None:
    """input() works: the script reads the terminal itself, and numb shows the question at once."""
    process = stage.start("print('hello', input('name? '))", **terminal.controlling())

    terminal.read_until(b"name? ")
    terminal.type(b"Ada\r")

    terminal.read_until(b"hello Ada\r\n")
    assert 0 == process.wait(PATIENCE)
    assert stage.log.endswith(b"hello Ada\n")


def test_a_new_window_size_reaches_the_script(stage: Stage, terminal: Terminal) -> None:
    """When the window changes, the script gets SIGWINCH and finds the new size."""
    source = """
import os, signal, sys
def look(*_):
    if os.get_terminal_size(1).columns == 99:
        sys.exit(9)
signal.signal(signal.SIGWINCH, look)
"""
    process = stage.start(source + WAIT, **terminal.controlling())
    terminal.read_until(b"ready\r\n")

    terminal.resize(33, 99)

    assert 9 == process.wait(PATIENCE)


# The log


def numbered(count: int, width: int) -> bytes:
    return b"".join(b"%0*d" % (width, i) for i in range(count))


def print_numbered(count: int, width: int) -> str:
    return f"""
import os
view = memoryview(b"".join(b"%0*d" % ({width}, i) for i in range({count})))
while view: view = view[os.write(1, view):]
"""


@linux
def test_the_log_keeps_the_first_and_the_last_with_flat_memory(stage: Stage) -> None:
    """Of 50 MB with a limit of 1 MB, the log has the first 1 MB, how much is missing, and the last MiB."""
    stage.run("pass")
    idle = stage.told["memory"]
    (stage.path / "output.log").unlink()

    code, _, _ = stage.run(print_numbered(50_000, 1000), stdout=subprocess.DEVNULL, log_limit=1_000_000)

    written = numbered(50_000, 1000)
    cut = len(written) - 1_000_000 - (1 << 20)
    kept = written[:1_000_000] + b"\n[numb: %d bytes left out]\n" % cut + written[-(1 << 20) :]
    assert (0, cut, None) == (code, stage.told["log_cut"], stage.told["log_error"])
    assert kept == stage.log
    assert stage.told["memory"] - idle < 6_000  # KiB: the tail and its twin, and a few chunks


@pytest.mark.parametrize(("over", "cut"), [(0, 0), (1 << 20, 0), ((1 << 20) + 8, 8)])
def test_nothing_is_left_out_that_fits(over: int, cut: int, stage: Stage) -> None:
    """Up to the limit and one MiB the log is whole; one number more, and exactly that one is missing."""
    _, out, _ = stage.run(print_numbered((80_000 + over) // 8, 8), log_limit=80_000)

    gap = out[:80_000] + b"\n[numb: %d bytes left out]\n" % cut + out[80_000 + cut :]
    assert (gap if cut else out) == stage.log
    assert cut == stage.told["log_cut"]


@pytest.mark.parametrize(
    ("log", "before", "error", "kept"),
    [
        ("/dev/full", "", "No space left on device", None),
        ("output.log", "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))", "File too large", 5000),
        ("absent/output.log", "", "No such file or directory", None),
    ],
)
def test_a_log_that_cannot_be_written_does_not_disturb(
    log: str, before: str, error: str, kept: int | None, stage: Stage
) -> None:
    """On a full disk (C1) the script's output and exit code are what they were, and the outcome tells of the log."""
    code, out, _ = stage.run("print('x' * 100_000, end=''); raise SystemExit(3)", log=log, before=before)

    assert (3, b"x" * 100_000, error) == (code, out, stage.told["log_error"])
    assert kept is None or b"x" * kept == stage.log


def test_the_log_is_appended_to(tmp_path: Path) -> None:
    """A resumed run continues its log."""
    (tmp_path / "output.log").write_bytes(b"earlier\n")

    here(python("print('later')"), tmp_path)

    assert b"earlier\nlater\n" == (tmp_path / "output.log").read_bytes()


# Those who stay behind


@linux
@pytest.mark.parametrize("without", ["", "del os.pidfd_open"])
def test_a_stray_grandchild_is_neither_waited_for_nor_killed(without: str, stage: Stage) -> None:
    """numb returns when the script has ended, though its output is still held open (M8), also without pidfd."""
    os.mkfifo(stage.path / "gate")
    script = """
import subprocess, sys
print(subprocess.Popen(["cat", "gate"]).pid)
print("y" * 60_000, end="")
sys.exit(2)
"""

    code, out, _ = stage.run(script, before=without)

    stray, _, rest = out.partition(b"\n")
    alive = Path("/proc", stray.decode(), "comm").read_text()
    (stage.path / "gate").write_bytes(b"")
    wait_for_end(int(stray))
    assert (2, True, "cat\n", b"y" * 60_000) == (code, stage.told["survivors"], alive, rest)
    assert stage.told["lingered"] < 2


def test_a_stray_grandchild_that_writes_for_ever_holds_numb_for_two_seconds(stage: Stage) -> None:
    """A stray's output is passed on for a moment only."""
    code, _, _ = stage.run("import subprocess; subprocess.Popen('yes')", stdout=subprocess.DEVNULL, log_limit=1000)

    assert (0, True) == (code, stage.told["survivors"])
    assert 2 <= stage.told["lingered"] < 4


def test_the_last_words_of_a_pipeline_arrive(stage: Stage) -> None:
    """What a helper of the script (a `tee` behind it) writes a moment after the script's end still arrives."""
    helper = "['sh', '-c', 'while kill -0 $PPID 2>/dev/null && [ $PPID = $(ps -o ppid= $$) ]; do :; done; echo last']"
    code, out, _ = stage.run(f"import subprocess; subprocess.Popen({helper}); print('first')")

    assert (0, b"first\nlast\n", False) == (code, out, stage.told["survivors"])


# Signals


# Not signal.pause(): Python would miss a signal that comes between its last look and the call.
WAIT = "\nimport time\nprint('ready')\nwhile True: time.sleep(0.01)"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_numb_alone_reaches_the_script(signum: int, stage: Stage) -> None:
    """Slurm, a closed terminal or `kill` signal numb only; the script is ended by it, and numb puts its handlers back."""
    process = stage.start("import resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))" + WAIT)
    read_line(process)

    process.send_signal(signum)

    assert 128 + signum == process.wait(PATIENCE)
    told = stage.told
    assert (signum, [signum], True) == (told["signal"], told["passed_on"], told["restored"])


def test_a_script_that_handles_sigterm_has_its_own_end(stage: Stage) -> None:
    """A script that saves its work on SIGTERM and exits with 0 is complete (E8), with the signal noted."""
    source = "import signal, sys; signal.signal(15, lambda *_: (print('saved'), sys.exit(0)))" + WAIT
    process = stage.start(source)
    read_line(process)

    process.send_signal(signal.SIGTERM)

    assert (b"saved\n", b"") == process.communicate(timeout=PATIENCE)
    assert (0, None, [signal.SIGTERM]) == (stage.told["code"], stage.told["signal"], stage.told["passed_on"])


@linux
def test_a_script_that_ignores_sigterm_is_killed_with_all_below_it(stage: Stage) -> None:
    """After the grace the script and its children get SIGKILL; none is left running."""
    os.mkfifo(stage.path / "gate")
    source = (
        "import signal, subprocess; signal.signal(15, signal.SIG_IGN); print(subprocess.Popen(['cat', 'gate']).pid)"
    )
    process = stage.start(source + WAIT, grace=0.3)
    below = int(read_line(process))
    read_line(process)

    began = time.monotonic()
    process.send_signal(signal.SIGTERM)

    assert 137 == process.wait(PATIENCE)
    assert time.monotonic() - began >= 0.3
    assert (signal.SIGKILL, [signal.SIGTERM]) == (stage.told["signal"], stage.told["passed_on"])
    wait_for_end(below)


@linux
def test_a_python_below_a_shell_gets_sigterm_and_time_to_save(stage: Stage) -> None:
    """The shell dies of SIGTERM and tells nobody; numb tells the Python below it, and waits for what that still writes."""
    source = "import signal, sys; signal.signal(15, lambda *_: (print('saved'), sys.exit(0)))" + WAIT
    (stage.path / "train.py").write_text(source)
    process = stage.start(["bash", "-c", f"{sys.executable} train.py; echo next"])
    read_line(process)

    process.send_signal(signal.SIGTERM)

    assert (b"saved\n", b"") == process.communicate(timeout=PATIENCE)
    assert (143, False) == (process.returncode, stage.told["survivors"])


@linux
def test_a_process_left_behind_that_ignores_sigterm_is_killed(stage: Stage) -> None:
    """A hung Python below a dead shell does not keep its GPU: it too has only the grace."""
    (stage.path / "train.py").write_text(
        "import os, signal; signal.signal(15, signal.SIG_IGN); print(os.getpid())" + WAIT
    )
    process = stage.start(["bash", "-c", f"{sys.executable} train.py; echo next"], grace=0.3)
    below = int(read_line(process))
    read_line(process)

    process.send_signal(signal.SIGTERM)

    assert 143 == process.wait(PATIENCE)
    wait_for_end(below)


def test_the_children_of_a_script_that_handles_sigterm_are_its_own(stage: Stage) -> None:
    """A DataLoader's workers get no SIGTERM from numb: their death would be an error in a script that is saving."""
    os.mkfifo(stage.path / "gate")
    source = """
import signal, subprocess, sys
worker = subprocess.Popen(["cat", "gate"])
def save(*_):
    open("gate", "w").close()
    sys.exit(f"the worker ended with {worker.wait()}")
signal.signal(15, save)
"""
    process = stage.start(source + WAIT)
    read_line(process)

    process.send_signal(signal.SIGTERM)

    assert b"the worker ended with 0\n" == process.communicate(timeout=PATIENCE)[1]


def test_nohup_holds_for_both(stage: Stage) -> None:
    """A signal that was ignored when numb started is ignored by the script too, and not passed on."""
    process = stage.start(
        "import signal, sys; print(signal.getsignal(1) is signal.SIG_IGN); sys.stdin.read()",
        before="signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        stdin=subprocess.PIPE,
    )
    assert b"True\n" == read_line(process)

    process.send_signal(signal.SIGHUP)

    process.communicate(timeout=PATIENCE)
    assert (0, []) == (process.returncode, stage.told["passed_on"])


@linux
def test_a_script_that_ignores_sighup_outlives_its_terminal(stage: Stage) -> None:
    """No SIGKILL follows a hangup which the script ignores, as without numb; a later SIGTERM ends it."""
    source = "import signal; signal.signal(1, signal.SIG_IGN); signal.signal(10, lambda *_: print('alive'))"
    process = stage.start(source + WAIT, grace=0)
    read_line(process)

    process.send_signal(signal.SIGHUP)
    for _ in range(2):
        process.send_signal(signal.SIGUSR1)
        assert b"alive\n" == read_line(process)
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) in (143, 137)  # without any grace, SIGKILL may be first
    assert [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM] == stage.told["passed_on"]


COUNT_CTRL_C = """
import signal, sys
seen = []
def count(*_):
    seen.append(1)
    print(f"Ctrl-C {len(seen)}")
signal.signal(signal.SIGINT, count)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(len(seen)))
"""


def test_ctrl_c_is_the_scripts(stage: Stage, terminal: Terminal) -> None:
    """Each Ctrl-C on the terminal reaches the script once, and numb waits for what the script makes of it."""
    process = stage.start(COUNT_CTRL_C + WAIT, **terminal.controlling())
    terminal.read_until(b"ready\r\n")

    for n in (1, 2, 3):
        terminal.type(b"\x03")
        terminal.read_until(b"Ctrl-C %d\r\n" % n)
    process.send_signal(signal.SIGUSR1)

    assert 3 == process.wait(PATIENCE)
    assert [signal.SIGINT, signal.SIGUSR1] == stage.told["passed_on"]


def test_ctrl_c_twice_without_a_handler(stage: Stage, terminal: Terminal) -> None:
    """The first Ctrl-C ends the script as it always does, the second does not hurt: 130, and numb says nothing."""
    process = stage.start("import signal" + WAIT, **terminal.controlling())
    terminal.read_until(b"ready\r\n")

    terminal.type(b"\x03")
    terminal.type(b"\x03")

    assert 130 == process.wait(PATIENCE)
    assert (signal.SIGINT, [signal.SIGINT]) == (stage.told["signal"], stage.told["passed_on"])


def test_numbs_own_last_writes_cannot_be_interrupted() -> None:
    """Inside uninterruptible() signals are only noted; afterwards they are neither lost to the caller nor raised."""
    before = signal.getsignal(signal.SIGINT)

    with launch.uninterruptible() as seen:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(signum)

    assert [signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP] == seen
    assert before is signal.getsignal(signal.SIGINT)


# The doorbell


def test_the_bell_is_answered_after_all_earlier_output(stage: Stage) -> None:
    """numb's question stands below everything that the script wrote before it rang, and its answer lets it go on."""
    for name in ("bell", "answer"):
        os.mkfifo(stage.path / name)
    source = """
for i in (1, 2):
    print("x" * 60_000)
    open("bell", "w").write("!")
    print(open("answer").read())
"""
    ring = f"os.write(1, b'sure? '); open({str(stage.path / 'answer')!r}, 'w').write('yes')"

    code, out, _ = stage.run(source, bell="bell", ring=ring)

    assert (0, (b"x" * 60_000 + b"\nsure? yes\n") * 2) == (code, out)
    assert (b"x" * 60_000 + b"\nyes\n") * 2 == stage.log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_abandons_the_question(signum: int, stage: Stage) -> None:
    """While numb asks, SIGTERM and Ctrl-C reach the script, and nobody has to answer any more."""
    os.mkfifo(stage.path / "bell")
    ring = "os.write(1, b'sure?\\n'); [time.sleep(0.01) for _ in iter(int, 1)]"
    # Not open("bell").write: a KeyboardInterrupt while Python closes a forgotten file is dropped without a word.
    source = "import os; os.write(os.open('bell', os.O_WRONLY), b'!')"
    process = stage.start(source + WAIT, bell="bell", ring=ring)
    while read_line(process) != b"sure?\n":
        pass

    process.send_signal(signum)

    assert 128 + signum == process.wait(PATIENCE)


def test_a_bell_that_fails_is_not_rung_again(stage: Stage) -> None:
    """A bug behind the bell neither ends the script nor keeps numb busy: it comes out at the script's end."""
    for name in ("bell", "answer"):
        os.mkfifo(stage.path / name)
    ring = f"open({str(stage.path / 'answer')!r}, 'w').close(); 1 / 0"  # a second time, nobody would open it with numb
    source = "open('bell', 'w').write('!' * 300); open('answer').read(); print('done')"

    code, out, err = stage.run(source, bell="bell", ring=ring)

    assert (1, b"done\n", b"done\n") == (code, out, stage.log)
    assert err.endswith(b"ZeroDivisionError: division by zero\n")


# It cannot be started


def write_program(path: Path, text: str, mode: int = 0o755) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize(
    ("command", "error", "code", "message"),
    [
        ([], CannotStart, 126, "the command is empty"),
        ([""], CannotStart, 126, "the command is empty"),
        (["no-such-command"], CommandNotFound, 127, "no-such-command: command not found"),
        (["./absent"], CommandNotFound, 127, "./absent: command not found"),
        (["./plain"], CannotStart, 126, "HERE/./plain is not executable"),
        (["bin"], CommandNotFound, 127, "bin: command not found"),
        (["plain"], CannotStart, 126, "HERE/bin/plain is not executable"),
        (["./bin"], CannotStart, 126, "HERE/./bin is a directory"),
        (["./no-program"], CannotStart, 126, "HERE/./no-program cannot be started: it is no program, and has no first line that names an interpreter (#!/bin/sh)"),
        (["./no-interpreter"], CannotStart, 126, "HERE/./no-interpreter cannot be started: the interpreter in its first line is not there"),
        (["./good", "a\0b"], CannotStart, 126, "HERE/./good cannot be started: embedded null byte"),
        (["./good", "x" * (1 << 18)], CannotStart, 126, "HERE/./good cannot be started: Argument list too long"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_started(
    command: list[str], error: type[NumbError], code: int, message: str, tmp_path: Path
) -> None:
    """126 and 127 as from a shell; the message names the file, and the hint what to type."""
    write_program(tmp_path / "good", "#!/bin/sh")
    write_program(tmp_path / "plain", "", mode=0o644)
    write_program(tmp_path / "bin" / "plain", "", mode=0o644)
    write_program(tmp_path / "no-program", "text")
    write_program(tmp_path / "no-interpreter", "#!/absent/python\n")
    never: list[int] = []

    with pytest.raises(error) as raised:
        here(command, tmp_path, {"PATH": "bin"}, started=never.append)

    assert (message, code) == (str(raised.value).replace(str(tmp_path), "HERE"), raised.value.exit_code)
    assert ('check "command" in nmb.json', []) == (raised.value.hint, never)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The folder to run in is checked before the command is looked for."""
    with pytest.raises(CannotStart, match=r"absent is not a directory$"):
        launch.check(["sh"], tmp_path / "absent", os.environ)


def test_check_finds_what_the_script_would_find(tmp_path: Path) -> None:
    """PATH is the script's, relative parts of it start at the script's folder, and what cannot be run is passed over."""
    write_program(tmp_path / "one" / "tool", "", mode=0o644)
    write_program(tmp_path / "two" / "tool", "#!/bin/sh")
    (tmp_path / "zero" / "tool").mkdir(parents=True)

    found = launch.check(["tool"], tmp_path, {"PATH": f"absent:zero:{tmp_path}/one:two"})

    assert f"{tmp_path}/two/tool" == found
    assert f"{tmp_path}/two/tool" == launch.check(["two/tool"], tmp_path, {})
