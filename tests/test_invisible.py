"""Looking at a model leaves no trace: hostile models, and all of their state before and after."""

from __future__ import annotations

import io
import logging
import pickle
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from numb.capture.graph import CaptureFailed, capture, invisible, to_onnx

ROWS = torch.linspace(-1, 1, 24).reshape(4, 6)


class Drawing(nn.Module):
    """Draws from every source of random numbers there is, its own included."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.own = [random.Random(1), np.random.default_rng(1), torch.Generator().manual_seed(1)]

    def forward(self, x: Tensor) -> Tensor:
        python, numpy, generator = self.own
        x = x * random.random() + float(np.random.rand()) + torch.rand(6)
        x = x * python.random() + float(numpy.random()) + torch.rand(6, generator=generator)
        return self.layer(x)


class Counting(nn.Module):
    """Changes buffers in every way: in place, by assignment, through .data, and in training and eval mode alike."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.long))
        self.register_buffer("last", torch.tensor(float("nan")))
        self.register_buffer("mean", torch.zeros(6), persistent=False)
        self.plain = torch.zeros(6)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.last = x.sum()
        self.mean.data.mul_(0.9).add_(x.detach().mean(0))
        self.plain[0] += 1
        return F.batch_norm(self.norm(x), self.norm.running_mean, self.norm.running_var, training=True)


class Attributes(nn.Module):
    """Keeps notes in attributes of every plain kind, and adds and removes some."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.calls = 0
        self.notes: list[Any] = [[1], {"deep": [2]}]
        self.sizes: dict[str, Any] = {"one": 1, "two": 2}
        self.names = {"a"}
        self.recent: deque[int] = deque([1, 2], maxlen=2)
        self.gone = "here"

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache = x
        self.notes[1]["deep"].append(3)
        self.notes.append(x)
        del self.sizes["one"]
        self.sizes["one"] = x.shape
        self.names.add("b")
        self.recent.append(3)
        del self.gone
        self.layer.scale = 2
        self.more = nn.Linear(1, 1)
        return self.layer(x)


class Clipping(nn.Module):
    """Writes into its parameters: in place, through .data and views, by renorming, and by putting other memory there."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(6))
        self.table = nn.Embedding(4, 6, max_norm=0.1)

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight.data.clamp_(-0.01, 0.01)
        with torch.no_grad():
            self.layer.bias[:2] = 7.0
            nn.init.zeros_(self.other.bias)
            self.scale *= 3
        self.other.weight.data = torch.ones(6, 6)
        self.layer.weight.requires_grad_(False)
        return self.other(self.layer(x)) * self.scale + self.table(torch.tensor([0, 3])).sum()


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.norm.train()
        self.norm(x * torch.rand(6))
        raise RuntimeError("boom")


class Meddling(nn.Module):
    """Changes what belongs to everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        torch.set_grad_enabled(not torch.is_grad_enabled())
        torch.set_autocast_enabled("cpu", True)
        warnings.simplefilter("always")
        self.train()
        y = self.layer(x)
        print("hello")
        sys.stderr.write("hello\n")
        logging.getLogger("model").error("hello")
        torch.set_default_dtype(torch.float64)
        return y


class Backward(nn.Module):
    """Calls backward in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self.layer(x).sum().backward()
        return self.layer(x)


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6))


def hooked() -> nn.Module:
    model = body()
    model.collected = []  # type: ignore[assignment]
    model[0].register_forward_hook(lambda module, args, output: model.collected.append(output))
    model[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model[2].register_full_backward_hook(lambda module, into, out: None)
    model[3].register_forward_hook(lambda module, args, kwargs, output: output + 1, with_kwargs=True, prepend=True)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.LazyLinear(6), nn.LazyBatchNorm1d())


def with_gradients() -> nn.Module:
    model = body()
    model(ROWS).sum().backward()
    return model


def backward_with_gradients() -> nn.Module:
    model = Backward()
    model(ROWS).sum().backward()
    return model


def mixed() -> nn.Module:
    model = body()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(6, 6)), body())


def pruned() -> nn.Module:
    import torch.nn.utils.prune as prune

    model = body()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


HOSTILE: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm and dropout": body,
    "drawing random numbers": Drawing,
    "buffers": Counting,
    "attributes": Attributes,
    "writing into parameters": Clipping,
    "hooks": hooked,
    "lazy": lazy,
    "gradients": with_gradients,
    "backward in forward": Backward,
    "gradients and backward in forward": backward_with_gradients,
    "mixed flags": mixed,
    "weight norm": weight_norm,
    "spectral norm": lambda: nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(6, 6)), body()),
    "parametrised spectral norm": lambda: nn.Sequential(
        torch.nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)), body()
    ),
    "pruned": pruned,
    "an exception in forward": Failing,
    "meddling with what is everybody's": Meddling,
    "attention": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=False),
}

LOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "capture": lambda model: capture(model, ROWS),
    "a function that draws": lambda model: capture(model, lambda: torch.rand(4, 6)),
    "to_onnx": lambda model: onnx_or_not(model),
    "a forward pass": lambda model: forward_or_not(model),
    "no time": lambda model: capture(model, ROWS, time_limit=0),
}


def onnx_or_not(model: nn.Module) -> None:
    try:
        to_onnx(model, ROWS)
    except CaptureFailed:
        pass


def forward_or_not(model: nn.Module) -> None:
    if any(map(torch.nn.parameter.is_lazy, model.parameters())):
        pytest.skip("invisible says that lazy modules are to be copied")
    with invisible(model):
        try:
            model(ROWS)
        except RuntimeError:
            pass


class State:
    """All that must not change: what can be compared by value, and what must be the same object."""

    def __init__(self, model: nn.Module) -> None:
        self.shared = {
            "random": random.getstate(),
            "numpy": pickle.dumps(np.random.get_state()),
            "torch": bits(torch.get_rng_state()),
            "dtype": torch.get_default_dtype(),
            "device": torch.get_default_device(),
            "grad": torch.is_grad_enabled(),
            "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
            "filters": list(warnings.filters),
            "fast path": torch.backends.mha.get_fastpath_enabled(),
            "logging": logging.root.manager.disable,
            "streams": (id(sys.stdout), id(sys.stderr)),
            "modules": [(name, type(module), module.training) for name, module in model.named_modules()],
        }
        self.attributes = list(described(vars(model), set()))


def described(value: Any, seen: set[int]) -> Iterator[Any]:
    """Walk through everything below *value*; each thing as its identity and its content."""
    yield (type(value).__name__, None if isinstance(value, (int, float, str, tuple)) else id(value))
    if id(value) in seen:
        return
    seen.add(id(value))
    match value:
        case Tensor():
            gradient = value.grad if value.is_leaf else None
            yield (value.requires_grad, address(value), bits(value), id(gradient), bits(gradient))
        case nn.Module():
            yield from described(vars(value), seen)
        case dict():
            for key, item in value.items():
                yield repr(key)
                yield from described(item, seen)
        case list() | tuple() | deque() | set():
            for item in value:
                yield from described(item, seen)
        case random.Random():
            yield value.getstate()
        case np.random.Generator():
            yield repr(value.bit_generator.state)
        case torch.Generator():
            yield bits(value.get_state())
        case int() | float() | str() | None:
            yield repr(value)


def address(tensor: Tensor) -> int | None:
    return None if torch.nn.parameter.is_lazy(tensor) else tensor.data_ptr()


def bits(tensor: Tensor | None) -> bytes | None:
    if tensor is None or torch.nn.parameter.is_lazy(tensor):
        return None
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_changes(name: str, look: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a forward pass does, and whether it fails or is cut short, no state is another one afterwards."""
    model = HOSTILE[name]()
    before = State(model)

    LOOKS[look](model)

    after = State(model)
    assert before.shared == after.shared
    assert before.attributes == after.attributes
    if look != "a forward pass":
        assert ("", "") == capfd.readouterr()


def train(model: nn.Module, look: Callable[[nn.Module], Any] | None) -> bytes:
    """Train a little, after a look; return the weights and the next random numbers."""
    if look is not None:
        look(model)
    if any(map(torch.nn.parameter.is_lazy, model.parameters())):
        model(ROWS)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.enable_grad():
            model(ROWS + random.random()).float().square().sum().backward()
        optimizer.step()
    file = io.BytesIO()
    torch.save([model.state_dict(), torch.rand(1), random.random(), float(np.random.rand())], file)
    return file.getvalue()


UNTRAINABLE = ("an exception in forward", "attributes", "meddling with what is everybody's")


@pytest.mark.parametrize("look", ["capture", "to_onnx"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in UNTRAINABLE])
def test_training_is_bit_identical(name: str, look: str) -> None:
    """A script trains to the same bits with and without a look at its model."""
    _seed()
    expected = train(HOSTILE[name](), None)
    _seed()
    assert expected == train(HOSTILE[name](), LOOKS[look])


def _seed() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)


def test_hooks_do_not_fire() -> None:
    """A user's hook sees no forward pass of numb's, a global one neither; torch's own hooks run."""
    seen: list[str] = []
    model = weight_norm()
    model.register_forward_hook(lambda *_: seen.append("hook"))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: seen.append("global"))

    try:
        architecture = capture(model, ROWS)
        model(ROWS)
    finally:
        handle.remove()

    assert "weight_norm 6x6" in architecture.operators
    assert {"hook": 1, "global": 7} == {name: seen.count(name) for name in seen}


def test_parameters_are_not_copied() -> None:
    """Of a parameter that nothing writes into there is never a second copy, so that a large model fits."""
    model = body()
    copied: list[int] = []
    clone = Tensor.clone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "clone", lambda self, **_: (copied.append(self.data_ptr()), clone(self))[1])
        capture(model, ROWS)

    assert copied and not {parameter.data_ptr() for parameter in model.parameters()} & set(copied)


def test_an_interrupt_goes_through() -> None:
    """Ctrl-C during a capture ends the script and not the capture, and the model is as it was."""

    class Interrupted(Counting):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise KeyboardInterrupt

    model = Interrupted()
    before = State(model)

    with pytest.raises(KeyboardInterrupt):
        capture(model, ROWS)

    after = State(model)
    assert (before.shared, before.attributes) == (after.shared, after.attributes)
