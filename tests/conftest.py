"""The scene that every test plays in: a real repository, a sealed environment, real processes."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest
from beginnings import Beginnings
from terminals import Terminal
from warm import Warm, at_start, put_python
from warm import run as run_warm

from numb.project import Project
from numb.view import table

hypothesis.settings.register_profile("numb", deadline=None)  # how fast the machine is tells nothing of what is drawn
hypothesis.settings.load_profile("numb")

# A script with hooks and without torch, for all that is not about networks: a run takes a quarter of a second.
PLAIN = """
import sys
from numb import numb_param, numb_queue, numb_trial_result
lr = 0.1
epochs = 2
numb_queue()
numb_param({"lr": lr, "epochs": epochs})
print("lr", lr)
numb_trial_result({"acc": 1 - lr})
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""

# A network that learns something in a few milliseconds.
NET = """
import torch
from numb import numb_model

class Net(torch.nn.Module):
    @numb_model(torch.ones(1, 4))
    def __init__(self, width=8):
        super().__init__()
        self.hidden = torch.nn.Linear(4, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.drop = torch.nn.Dropout(0.2)
        self.out = torch.nn.Linear(width, 2)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.hidden(x)).relu()))
"""

# It steps by hand: torch takes as long over its first optimizer as over being imported.
TRAIN = """
import sys
import torch
from net import Net
from numb import numb_param, numb_queue
lr = 0.1
width = 8
numb_queue()
numb_param({"lr": lr, "width": width})
torch.manual_seed(0)
net = Net(width)
x = torch.randn(32, 4)
for step in range(5):
    loss = (net(x) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= lr * p.grad
            p.grad = None
torch.save(net.state_dict(), "own.pt")
print("loss", loss.item())
"""

TRIAL = """
import torch
from net import Net
from numb import numb_queue, numb_trial_result
lr = 0.1
width = 8
numb_queue()
net = Net(width)
net.eval()
numb_trial_result({"total": sum(p.double().sum().item() for p in net.state_dict().values()), "lr": lr})
"""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    stdout: str
    stderr: str


class Scene:
    """A repository with a project in it, and a person who types."""

    kept: Beginnings | None = None  # what other tests have begun with
    warm: str = ""  # what PATH begins with where scripts find torch imported
    hot: Callable[[str], Warm] | None = None  # a numb that is imported already

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.env = sealed(home)

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run shell commands in the project, as a person would type them."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
        if check and done.returncode:
            raise AssertionError(f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def numb(self, *words: str, cwd: Path | None = None, input: bytes = b"", env: dict[str, str] | None = None) -> Done:
        """Type a numb command, without a terminal."""
        arguments = shlex.split(words[0]) if len(words) == 1 else list(words)
        where, given = cwd or self.root, {**self.env, **(env or {})}
        hot = self.hot and self.hot(
            "numb with torch" if arguments[0] == "report" and "--html" not in arguments else "numb"
        )
        if hot is not None and at_start(given) == hot.environment:
            ran = run_warm(hot, arguments, where, given, input, 120)
            return Done(ran.code, ran.out.decode(errors="replace"), ran.err.decode(errors="replace"))
        done = subprocess.run(
            [sys.executable, "-m", "numb", *arguments],
            cwd=where,
            env=given,
            input=input,
            capture_output=True,
            timeout=120,
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a numb command in a process group of its own, and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "numb", *arguments],
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def runs(self) -> list[dict]:
        """The runs as `numb list --json` has them, without a process."""
        with mock.patch.dict(os.environ, self.env, clear=True), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # GitPython's, of its own parts
            project = Project.open(self.root, reading=True)
            with closing(project.index):
                return json.loads(table.as_json(project.runs()))

    def trained(self, *arguments: str, **params: object) -> dict:
        """Train once, and return the record of that run; where a test before has begun so, it is a copy of its run."""
        return self.once(["trained", arguments, params], lambda: self._trained(*arguments, **params))

    def once(self, words: object, do: Callable[[], Any]) -> Any:
        """Return what *do* returns, without doing it if it was done before in the same project, with the same *words*."""
        here = Path(self.env["HOME"]).parent
        if self.kept is None or not self.root.is_relative_to(here):
            return do()
        env = {**self.env, "PATH": self.env["PATH"].removeprefix(self.warm)}
        return self.kept.once(here, env, [str(self.root.relative_to(here)), words], do)

    def _trained(self, *arguments: str, **params: object) -> dict:
        if params:
            self.write("one.json", json.dumps([params]))
            # In place: what is kept is put into other folders, and none of them has the folders of jobs.
            words = ("train", "--queue") if arguments else ("queue", "run", "--live")
            done = self.numb(*words, "one.json", *arguments)
            (self.root / "one.json").unlink()
        else:
            done = self.numb("train", *arguments)
        assert 0 == done.code, done.stderr
        return self.runs()[-1]

    def users(self) -> dict[str, object]:
        """Everything that belongs to the user: HEAD, index, refs, stash, configuration, files."""
        git = Path(self.sh("git rev-parse --absolute-git-dir"))
        common = (self.root / self.sh("git rev-parse --git-common-dir")).resolve()
        return {
            "HEAD": (git / "HEAD").read_bytes(),
            "index": _digest(git / "index"),
            "config": _digest(common / "config"),
            "refs": self.sh("git for-each-ref | grep -v -e refs/heads/numb -e refs/numb/ || true"),
            "hooks": sorted(p.name for p in (common / "hooks").glob("*")),
            "files": {
                str(p.relative_to(self.root)): _digest(p)
                for p in sorted(self.root.rglob("*"))
                if (p.is_symlink() or not p.is_dir())
                and ".git" not in p.parts
                and ".nmb" not in p.parts
                and "__pycache__" not in p.parts
            },
        }


def _digest(path: Path) -> str:
    if path.is_symlink():
        return "-> " + os.readlink(path)
    if not path.is_file():
        return "-"
    return hashlib.sha256(path.read_bytes()).hexdigest() + oct(path.stat().st_mode)


def sealed(home: Path) -> dict[str, str]:
    """An environment that nothing of the machine or of the person reaches into."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV") if name in os.environ}
    folder = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": f"{folder}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "numb-tests-pycache"),  # warm, and out of the scenes
        "MPLCONFIGDIR": str(Path(tempfile.gettempdir()) / "numb-tests-matplotlib"),  # what it knows of fonts: a second
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


def pytest_configure() -> None:
    """Give every process that a test starts the signals of a person's shell, also where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


WORLDS = {
    "plain": "project",
    "space": "my project",
    "quote": 'it\'s "mine"',
    "newline": "new\nline",
    "dash": "-rf",
}


@pytest.fixture(scope="session", autouse=True)
def _beginnings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests begin with is shared, also with those that run in other processes at the same time."""
    folder = tmp_path_factory.getbasetemp()
    Scene.kept = Beginnings((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "beginnings")


@pytest.fixture(scope="session", autouse=True)
def _hot() -> Iterator[None]:
    """A command of numb is a process of its own, forked from one that has imported what every command imports."""
    with tempfile.TemporaryDirectory(prefix="numb-hot-") as folder:  # the path of a socket must be short
        started: dict[str, Warm] = {}

        def hot(what: str) -> Warm:
            if what not in started:
                started[what] = Warm.start(Path(folder) / str(len(started)), sealed(Path(folder)), what)
            return started[what]

        Scene.hot = staticmethod(hot)
        yield
        for each in started.values():
            each.stop()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """One that is there for as long as the test."""
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder in which git knows a name."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
    )
    return home


@pytest.fixture
def empty(tmp_path: Path, home: Path) -> Scene:
    """A git repository without a commit, and nothing in it."""
    root = tmp_path / "project"
    root.mkdir()
    scene = Scene(root, home)
    scene.sh("git init -q")
    return scene


@pytest.fixture
def scene(empty: Scene) -> Scene:
    """An initialised project with one commit, whose script has hooks and no network."""
    furnish(empty, {"train.py": PLAIN, "trial.py": PLAIN})
    return empty


@pytest.fixture
def torch_scene(empty: Scene) -> Scene:
    """An initialised project with one commit, whose script trains a small network."""
    furnish(empty, {"net.py": NET, "train.py": TRAIN, "trial.py": TRIAL})
    return empty


@pytest.fixture(scope="session")
def _warm() -> Iterator[Callable[[str], Path]]:
    with tempfile.TemporaryDirectory(prefix="numb-warm-") as folder, ExitStack() as started:
        places: dict[str, Path] = {}

        def place(what: str) -> Path:
            if what not in places:
                places[what] = Path(folder) / str(len(places))
                env = {**sealed(Path(folder)), "PYTHONUNBUFFERED": "1"}  # as numb starts a script
                python = Warm.start(places[what], env, what)
                started.callback(python.stop)
                put_python(python, places[what])
            return places[what]

        yield place


@pytest.fixture
def warm(_warm: Callable[[str], Path], empty: Scene) -> None:
    """Scripts of the scene find torch imported, where they end by themselves and nothing is about how they start."""
    _begin_warm(empty, _warm("scripts"))


@pytest.fixture
def warm_training(_warm: Callable[[str], Path], empty: Scene) -> None:
    """And what torch imports when an optimizer is made: scripts that make one take another two seconds."""
    _begin_warm(empty, _warm("trainings"))


def _begin_warm(scene: Scene, place: Path) -> None:
    scene.warm = f"{place}{os.pathsep}"
    scene.env["PATH"] = f"{scene.warm}{scene.env['PATH']}"


def furnish(scene: Scene, files: dict[str, str]) -> None:
    """Write files, commit them, and initialise numb; where a test before has begun so, with a copy of its commits."""
    scene.once(["furnished", files], lambda: _furnish(scene, files))


def _furnish(scene: Scene, files: dict[str, str]) -> None:
    for name, text in files.items():
        scene.write(name, text)
    scene.write(".gitignore", "own.pt\n*.ignored\n__pycache__/\n")
    scene.sh("git add -A && git commit -qm first")
    done = scene.numb("init")
    assert 0 == done.code, done.stderr
    scene.sh("git add -A && git commit -qm numb")


@pytest.fixture
def untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the test does with numb, what is the user's is byte-identical afterwards."""
    name = next(n for n in ("torch_scene", "scene", "empty") if n in request.fixturenames)
    scene: Scene = request.getfixturevalue(name)
    before = scene.users()
    yield
    assert before == scene.users()


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Path]]:
    """Give a folder a file system of its own, with such options of mount; one that has it is mounted anew."""
    mounted: set[Path] = set()

    def mount(folder: Path, options: str = "size=2m") -> Path:
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if folder in mounted:
            command = ["mount", "-o", f"remount,{options}", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a file system")
        mounted.add(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def lines(*words: Sequence[str] | str) -> str:
    return "\n".join(words) + "\n"  # type: ignore[arg-type]
