"""What the tests of the in-script half share: run a script under numb, and look at what came of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from conftest import Done, Scene
from kit import sealed_here

import numb

States = dict[str, dict[str, Any]]

# What a script of these tests may begin with: a step of training, and a last line that says what the weights should be.
COMMON = """
import torch
from torch import nn
from numb import numb_model, numb_param, numb_queue, numb_trial_result
torch.manual_seed(0)

def step(net, *inputs, **named):
    for p in net.parameters():
        p.grad = None
    out = net(*inputs, **named)
    (out if torch.is_tensor(out) else out[0]).sum().backward()
    with torch.no_grad():
        for p in net.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad

def expect(**nets):
    torch.save({name: net if isinstance(net, dict) else net.state_dict() for name, net in nets.items()}, "own.pt")
"""

# A generator and a discriminator.
GAN = """
class G(nn.Module):
    @numb_model(torch.ones(1, 2))
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 4)
    def forward(self, x):
        return self.layer(x)
class D(nn.Module):
    @numb_model(torch.ones(1, 4))
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
    def forward(self, x):
        return self.layer(x)
"""


def train(scene: Scene, script: str, *words: str, code: int = 0) -> tuple[Done, dict[str, Any]]:
    """Write *script* as train.py below `COMMON`, train, and return what was said and the record."""
    write(scene, script)
    before = len(runs(scene))
    done = scene.numb("train", *words)
    found = runs(scene)
    assert (code, before + 1) == (done.code, len(found)), done.stdout + done.stderr
    return done, found[-1]


def write(scene: Scene, script: str, name: str = "train.py") -> None:
    scene.write(name, "")
    path = scene.root / name
    scene.write(name, script)
    path.write_text(COMMON + path.read_text())


def runs(scene: Scene) -> list[dict[str, Any]]:
    """What `numb list --json` says, without a process."""
    return scene.runs()


def kept(scene: Scene, run: dict[str, Any]) -> States:
    """The state dicts that `numb report` takes out, by the names of their networks."""
    into = scene.root.parent / f"report-{run['id']}"
    with sealed_here(scene), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # GitPython's, of its own parts
        project = numb.open(scene.root)
        project.report(project.find(run["id"]), into)
    if len(run["weights"]) == 1:
        return {next(iter(run["weights"])): torch.load(into / "state_dict.pt", weights_only=True)}
    return {name: torch.load(into / f"state_dict-{name}.pt", weights_only=True) for name in run["weights"]}


def own(scene: Scene, name: str = "own.pt") -> States:
    """What the script itself saved with `expect`."""
    return torch.load(scene.root / name, weights_only=True)


def plain(states: States) -> dict[str, dict[str, Any]]:
    """State dicts as values that `==` compares bit by bit."""
    return {name: {key: _bits(value) for key, value in state.items()} for name, state in states.items()}


def _bits(value: Any) -> Any:
    if not torch.is_tensor(value):
        return value
    return str(value.dtype), tuple(value.shape), value.contiguous().flatten().view(torch.uint8).tolist()


def architectures(run: dict[str, Any]) -> dict[str, str]:
    return {name: model["architecture"] for name, model in run["models"].items()}


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
