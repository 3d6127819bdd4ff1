"""The architecture of a model: what counts, what does not, and what happens to models that cannot be traced."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from numb.capture.graph import CaptureFailed, arguments, capture, to_onnx, unwrap

Pair = tuple[tuple[nn.Module, Any], tuple[nn.Module, Any]]

IMAGES = torch.zeros(4, 1, 8, 8)
ROWS = torch.zeros(4, 6)
SENTENCES = torch.zeros(4, 5, 6)


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)
    )


class Net(nn.Module):
    """The same as `sequential`, as a person writes it who likes functions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(144, 3)  # defined in another order than used
        self.norm = nn.BatchNorm2d(4)
        self.stem = nn.Conv2d(1, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.stem(image))).flatten(1)
        return self.head(F.dropout(hidden, 0.5, self.training))


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3)
        self.b = nn.BatchNorm2d(4)
        self.c = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.b(self.a(x)))
        z = torch.flatten(y, 1)
        return self.c(F.dropout(z, training=self.training))


class Counting(nn.Module):
    """Uses the length of the batch as a number, in the ways people do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.layer(x).sum(0) / len(x)
        return mean + torch.full((int(x.shape[0]), 3), 1.0 / int(x.shape[0])).sum(0)


class Branches(nn.Module):
    def __init__(self, left_first: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 4)
        self.left_first = left_first

    def forward(self, x: Tensor) -> Tensor:
        if self.left_first:
            left = self.left(x).relu()
            right = self.right(x).tanh()
        else:
            right = self.right(x).tanh()
            left = self.left(x).relu()
        return torch.cat([left, right], 1)


class Residual(nn.Module):
    def __init__(self, from_input: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.from_input = from_input

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x)
        return self.two(hidden) + (x if self.from_input else hidden)


class Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        if tied:
            self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Attention(nn.Module):
    """Attention as it is written by hand: its dropout is a number, and 0 unless it trains."""

    def __init__(self, heads: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = nn.Linear(6, 18)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project(x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, heads: int = 2, dropout: float = 0.0, weights: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, heads, dropout=dropout, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


class Erasing(nn.Module):
    """Writes into a view, before or after something else has read it."""

    def __init__(self, read_first: bool) -> None:
        super().__init__()
        self.read_first = read_first

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        early = x.exp() if self.read_first else None
        x[:, 0] = 5.0
        return x.exp() + (x.exp() if early is None else early)


class Constant(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.values


class Act(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()


class Returning(nn.Module):
    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x), x)


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None
    rest: tuple[Tensor, ...] = ()


def both(one: Callable[[], nn.Module], other: Callable[[], nn.Module], dummy: Any) -> Pair:
    return (one(), dummy), (other(), dummy)


def another_seed() -> Pair:
    torch.manual_seed(1)
    one = sequential()
    torch.manual_seed(2)
    return (one, IMAGES), (sequential(), torch.rand(4, 1, 8, 8))


def trained() -> Pair:
    model = sequential()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    return (model, IMAGES), (sequential(), IMAGES)


def frozen() -> Pair:
    model = sequential()
    for parameter in list(model.parameters())[:3]:
        parameter.requires_grad_(False)
    return (model, IMAGES), (sequential(), IMAGES)


def a_deep_copy() -> Pair:
    model = Net()
    return (model, IMAGES), (copy.deepcopy(model), IMAGES)


def compiled() -> Pair:
    inner = nn.Sequential(torch.compile(nn.Linear(6, 6), backend="eager"), nn.ReLU())
    return (torch.compile(inner, backend="eager"), ROWS), (nn.Sequential(nn.Linear(6, 6), nn.ReLU()), ROWS)


def lstm(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.LSTM(6, 4, batch_first=True, **{"num_layers": 2, **options})


def encoder(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, **options)


def layers(*modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*modules)


EQUAL: dict[str, Callable[[], Pair]] = {
    "another seed, other numbers in the dummy": another_seed,
    "made twice": lambda: both(Net, Net, IMAGES),
    "a deep copy": a_deep_copy,
    "other names": lambda: both(Net, Renamed, IMAGES),
    "Sequential or a class": lambda: both(sequential, Net, IMAGES),
    "another batch size": lambda: ((Net(), IMAGES), (Net(), torch.zeros(7, 1, 8, 8))),
    "a batch of one": lambda: ((Net(), IMAGES), (Net(), torch.zeros(1, 1, 8, 8))),
    "a shape for a tensor": lambda: ((Net(), IMAGES), (Net(), (2, 1, 8, 8))),
    "a function for a tensor": lambda: ((Net(), IMAGES), (Net(), lambda: IMAGES)),
    "a tuple for a tensor": lambda: ((Net(), IMAGES), (Net(), (IMAGES,))),
    "len(x), int(x.shape[0])": lambda: ((Counting(), ROWS), (Counting(), torch.zeros(9, 6))),
    "the order of independent statements": lambda: both(lambda: Branches(True), lambda: Branches(False), ROWS),
    "trained": trained,
    "eval mode": lambda: both(sequential, lambda: sequential().eval(), IMAGES),
    "frozen": frozen,
    "in place or not": lambda: both(
        layers(nn.Linear(6, 3), nn.ReLU(inplace=True), nn.Dropout(0.1, inplace=True)),
        layers(nn.Linear(6, 3), nn.ReLU(), nn.Dropout(0.1)),
        ROWS,
    ),
    "compiled": compiled,
    "wrapped": lambda: both(lambda: nn.DataParallel(Net()), Net, IMAGES),
    "an LSTM": lambda: both(lstm(dropout=0.1), lstm(dropout=0.1), SENTENCES),
    "a transformer layer": lambda: both(encoder(), encoder(), SENTENCES),
    "a lazy layer": lambda: both(layers(nn.LazyLinear(3)), layers(nn.Linear(6, 3)), ROWS),
}

DIFFERENT: dict[str, Callable[[], Pair]] = {
    "width": lambda: both(layers(nn.Linear(6, 3)), layers(nn.Linear(6, 4)), ROWS),
    "a bias": lambda: both(layers(nn.Linear(6, 3)), layers(nn.Linear(6, 3, bias=False)), ROWS),
    "activation": lambda: both(lambda: Act(F.relu), lambda: Act(F.gelu), ROWS),
    "an activation's attribute": lambda: both(layers(nn.LeakyReLU(0.1)), layers(nn.LeakyReLU(0.2)), ROWS),
    "stride": lambda: both(layers(nn.Conv2d(1, 2, 3)), layers(nn.Conv2d(1, 2, 3, stride=2)), IMAGES),
    "padding": lambda: both(layers(nn.Conv2d(1, 2, 3)), layers(nn.Conv2d(1, 2, 3, padding=1)), IMAGES),
    "dilation": lambda: both(layers(nn.Conv2d(1, 2, 3)), layers(nn.Conv2d(1, 2, 3, dilation=2)), IMAGES),
    "kernel": lambda: both(layers(nn.Conv2d(1, 2, 3)), layers(nn.Conv2d(1, 2, (1, 9), padding=(0, 4))), IMAGES),
    "a dropout's p": lambda: both(layers(nn.Dropout(0.1)), layers(nn.Dropout(0.2)), ROWS),
    "a dropout more": lambda: both(layers(nn.Linear(6, 3)), layers(nn.Linear(6, 3), nn.Dropout(0.2)), ROWS),
    "a BatchNorm more": lambda: both(layers(nn.Linear(6, 3)), layers(nn.Linear(6, 3), nn.BatchNorm1d(3)), ROWS),
    "a BatchNorm's momentum": lambda: both(layers(nn.BatchNorm1d(6)), layers(nn.BatchNorm1d(6, momentum=0.2)), ROWS),
    "wiring": lambda: both(lambda: Residual(True), lambda: Residual(False), ROWS),
    "dtype": lambda: ((nn.ReLU(), ROWS), (nn.ReLU(), ROWS.double())),
    "dtype of the weights": lambda: ((nn.Linear(6, 3), ROWS), (nn.Linear(6, 3).double(), ROWS.double())),
    "tied weights": lambda: both(lambda: Tied(True), lambda: Tied(False), ROWS),
    "layers of an LSTM": lambda: both(lstm(), lstm(num_layers=3), SENTENCES),
    "dropout of an LSTM": lambda: both(lstm(dropout=0.1), lstm(dropout=0.2), SENTENCES),
    "both directions": lambda: both(lstm(), lstm(bidirectional=True), SENTENCES),
    "heads": lambda: both(lambda: SelfAttention(2), lambda: SelfAttention(3), SENTENCES),
    "heads of a hand-written attention": lambda: both(lambda: Attention(2), lambda: Attention(3), SENTENCES),
    "dropout of an attention": lambda: both(lambda: SelfAttention(2, 0.1), lambda: SelfAttention(2, 0.2), SENTENCES),
    "dropout of a fused attention": lambda: both(
        lambda: SelfAttention(2, 0.1, weights=False), lambda: SelfAttention(2, 0.2, weights=False), SENTENCES
    ),
    "dropout of a hand-written attention": lambda: both(
        lambda: Attention(2, 0.1), lambda: Attention(2, 0.2), SENTENCES
    ),
    "dropout of a transformer layer": lambda: both(encoder(dropout=0.1), encoder(dropout=0.2), SENTENCES),
    "norm first": lambda: both(encoder(), encoder(norm_first=True), SENTENCES),
    "order": lambda: both(layers(nn.ReLU(), nn.BatchNorm1d(6)), layers(nn.BatchNorm1d(6), nn.ReLU()), ROWS),
    "the dimension of a softmax": lambda: both(layers(nn.Softmax(1)), layers(nn.Softmax(2)), SENTENCES),
    "the shape of the input": lambda: ((nn.ReLU(), ROWS), (nn.ReLU(), torch.zeros(4, 7))),
    "a number in the source": lambda: both(lambda: Act(lambda x: x * 2), lambda: Act(lambda x: x * 3), ROWS),
    "a constant tensor": lambda: both(lambda: Constant(1.0, 2.0), lambda: Constant(1.0, 3.0), torch.zeros(4, 2)),
    "reading before or after a write": lambda: both(lambda: Erasing(True), lambda: Erasing(False), ROWS),
    "a buffer or a parameter": lambda: both(
        layers(nn.BatchNorm1d(6)), layers(nn.BatchNorm1d(6, track_running_stats=False)), ROWS
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_does_not_count(name: str) -> None:
    """Weights, names, the batch, the mode and the way of writing are not in the id: the same computation is one id."""
    (one, dummy), (other, another) = EQUAL[name]()

    first, second = capture(one, dummy), capture(other, another)

    assert (None, None) == (first.why, second.why)
    assert first.text == second.text
    assert (first.id, "graph", first.operators) == (second.id, second.rung, second.operators)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_counts(name: str) -> None:
    """Another operator, attribute, shape, dtype or wiring is another id."""
    (one, dummy), (other, another) = DIFFERENT[name]()

    first, second = capture(one, dummy), capture(other, another)

    assert (None, None) == (first.why, second.why)
    assert first.id != second.id


def test_random_numbers_do_not_count() -> None:
    """A number that forward draws from Python's generator is in the graph, and the same whatever the seed."""
    random.seed(1)
    one = capture(Noisy(), ROWS)
    random.seed(2)

    assert one == capture(Noisy(), ROWS)


def test_settings_of_the_machine_do_not_count() -> None:
    """How a kernel is chosen is no part of the architecture, nor is an autocast around the call."""
    plain = capture(sequential(), IMAGES)

    with torch.backends.cudnn.flags(enabled=False, benchmark=True), torch.autocast("cpu", torch.bfloat16):
        assert plain == capture(sequential(), IMAGES)


def test_the_text_is_readable() -> None:
    """What is hashed can be read, and the operators are what a person would call them, in the order of execution."""
    architecture = capture(sequential(), IMAGES)

    assert architecture.text.splitlines() == [
        "numb graph 1",
        "input (float32[*,1,8,8])",
        "%0 = aten::_convolution(input 0, param #0 float32[4,1,3,3], param #1 float32[4], "
        "[1, 1], [0, 0], [1, 1], False, [0, 0], 1)",
        "%1 = aten::batch_norm(%0, param #2 float32[4], param #3 float32[4], "
        "buffer #4 float32[4], buffer #5 float32[4], False, 0.1, 1e-05)",
        "%2 = aten::relu(%1)",
        "%3 = aten::flatten(%2, 1, -1)",
        "%4 = aten::dropout(%3, 0.5, False)",
        "%5 = aten::linear(%4, param #6 float32[3,144], param #7 float32[3])",
        "output (%5)",
    ]
    assert architecture.operators == (
        "conv2d 4x1x3x3 stride=[1, 1] padding=[0, 0]",
        "batch_norm 4 momentum=0.1 eps=1e-05",
        "relu",
        "flatten start_dim=1",
        "dropout p=0.5",
        "linear 3x144",
    )
    assert 483 == architecture.parameters == sum(each.numel() for each in sequential().parameters())
    assert 16 == len(architecture.id)


def test_tied_parameters_are_counted_once() -> None:
    """The number of parameters is the number of numbers that can be learnt."""
    assert (48, 84) == (capture(Tied(True), ROWS).parameters, capture(Tied(False), ROWS).parameters)


OUTPUTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a tuple with None": lambda y, x: (y, None, [x]),
    "a dict": lambda y, x: {"y": y, "none": None, "x": x},
    "a dataclass": lambda y, x: Output(y, None, (x,)),
    "a distribution": lambda y, x: torch.distributions.Normal(y, y.exp(), validate_args=False),
    "an input": lambda y, x: x,
    "complex numbers": lambda y, x: torch.complex(y, y),
    "a sparse tensor": lambda y, x: y.to_sparse(),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_every_kind(name: str) -> None:
    """Whatever forward returns, the graph of the tensors in it is the architecture."""
    architecture = capture(Returning(OUTPUTS[name]), ROWS)

    assert ("graph", None) == (architecture.rung, architecture.why)


DUMMIES: dict[str, Any] = {
    "a tensor": ROWS,
    "positional arguments": [ROWS],
    "keyword arguments": {"x": ROWS},
    "a shape": (4, 6),
    "a torch.Size": torch.Size([4, 6]),
    "a list of sizes": [4, 6],
    "a function": lambda: ROWS,
    "a function that returns a shape": lambda: [4, 6],
}


@pytest.mark.parametrize("name", DUMMIES)
def test_dummies_of_every_kind(name: str) -> None:
    """Each way to write a dummy gives the arguments of one call."""
    args, kwargs = arguments(DUMMIES[name], nn.Linear(6, 3))

    (tensor,) = (*args, *kwargs.values())
    assert (torch.Size([4, 6]), torch.float32) == (tensor.shape, tensor.dtype)
    assert (["x"] if "keyword" in name else []) == list(kwargs)


def test_a_dummy_goes_where_the_model_is() -> None:
    """The tensors of a dummy, however nested, move to the device of the model's first parameter."""
    args, _ = arguments((ROWS, [ROWS, {"mask": ROWS}], 3), nn.Linear(6, 3, device="meta"))

    assert ["meta", "meta", "meta", 3] == [
        args[0].device.type,
        args[1][0].device.type,
        args[1][1]["mask"].device.type,
        args[2],
    ]


def failing() -> Any:
    raise OSError("no such file")


NO_DUMMIES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "not None"),
    "a number": (3, "not a int"),
    "an empty tuple": ((), "not ()"),
    "names that are not names": ({1: ROWS}, "1 is not a name"),
    "a class": (Net, "not the class Net"),
    "a model": (nn.ReLU(), "not a ReLU"),
    "a negative size": ((-1, 6), "a size is negative"),
    "a function that fails": (failing, "the dummy function failed: OSError: no such file"),
}


@pytest.mark.parametrize("name", NO_DUMMIES)
def test_what_is_no_dummy(name: str) -> None:
    """What cannot be a dummy is a TypeError that names it; and capture takes the module tree and says the same."""
    dummy, message = NO_DUMMIES[name]

    with pytest.raises(TypeError) as raised:
        arguments(dummy, nn.Linear(6, 3))

    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert "tree" == capture(nn.Linear(6, 3), dummy).rung


class Hidden(nn.Module):
    """Keeps its layers in a plain list, where torch does not find them."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = [nn.Linear(6, width), nn.Linear(width, 2)]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


class Gradient(nn.Module):
    """Returns the gradient of its own output, as networks for physics do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.layer(x).tanh().sum(), x)
        return gradient * self.layer(x).sum()


def test_the_ladder_goes_on_with_the_calls() -> None:
    """A model that cannot be traced is known by the torch functions that it calls; the rung and the reason are told."""
    one, two, other = capture(Hidden(), ROWS), capture(Hidden(), torch.zeros(9, 6)), capture(Hidden(4), ROWS)

    assert one == two
    assert ("calls", f"{one.id[:16]}-calls") == (one.rung, one.id)
    assert one.id != other.id
    assert one.text.splitlines() == [
        "numb calls 1",
        "input (float32[*,6])",
        "%0 = linear(input 0, param #0 float32[3,6], param #1 float32[3])",
        "%1 = relu(%0)",
        "%2 = linear(%1, param #2 float32[2,3], param #3 float32[2])",
        "%3 = relu(%2)",
        "output %3",
    ]
    assert one.why is not None and one.why.startswith("graph: RuntimeError: Cannot insert a Tensor that requires grad")


def test_a_model_that_takes_gradients() -> None:
    """A forward pass that differentiates itself has a high rung too, and the same one each time."""
    one, other = capture(Gradient(), ROWS), capture(Gradient(), ROWS)

    assert one == other
    assert one.rung in ("graph", "calls")


class Failing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no\nsuch thing")


def test_the_ladder_ends_with_the_tree() -> None:
    """A model whose forward fails is known by its modules and their shapes, and the fault is named in one line."""
    architecture = capture(Failing(3), ROWS)

    assert ("tree", f"{architecture.id[:16]}-tree") == (architecture.rung, architecture.id)
    assert architecture.text.splitlines() == [
        "numb tree 1",
        "Failing()",
        "  Sequential()",
        "    Linear(in_features=6, out_features=3, bias=True) param #2 float32[3,6] param #3 float32[3]",
        "    ReLU()",
    ]
    assert architecture.operators == ("Linear(in_features=6, out_features=3, bias=True)", "ReLU()")
    assert architecture.parameters == 21
    assert architecture.why == "graph: KeyError: 'no\\nsuch thing'; calls: KeyError: 'no\\nsuch thing'"
    assert capture(Failing(3), ROWS) == architecture != capture(Failing(4), ROWS)


def test_without_a_dummy() -> None:
    """Without a dummy the module tree is all there is."""
    architecture = capture(sequential(), None)

    assert ("tree", "there is no dummy input") == (architecture.rung, architecture.why)
    assert architecture.id != capture(Net(), None).id


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            try:
                x = (x + 1).tanh()
            except Exception:
                continue
        return x


def test_the_time_limit() -> None:
    """A forward pass that does not end costs no more than the limit, even if it catches all; torch still traces."""
    start = time.monotonic()

    architecture = capture(Endless(), ROWS, time_limit=0.2)

    assert time.monotonic() - start < 5
    assert ("tree", "capturing took longer than 0.2 s") == (architecture.rung, architecture.why)
    assert "graph" == capture(Net(), IMAGES).rung


class Refusing(nn.Module):
    """Works with a batch of one only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(1, 6))


def test_a_model_that_refuses_a_batch_of_two() -> None:
    """Then the dummy is taken as it was given."""
    architecture = capture(Refusing(), torch.zeros(1, 6))

    assert ("graph", None) == (architecture.rung, architecture.why)


def test_an_embedding_sees_only_indices_that_it_was_given() -> None:
    """The batch of two is made of rows of the dummy, so that indices stay in range."""
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))

    assert capture(model, torch.tensor([[4, 1]])).id == capture(model, torch.tensor([[0, 0], [1, 1], [2, 2]])).id


def test_a_branch_is_taken_as_the_dummy_takes_it() -> None:
    """A branch that depends on data is followed, not refused."""
    model = Act(lambda x: x.relu() if x.isnan().any() else x.tanh())

    assert ("linear 3x6", "tanh") == capture(model, ROWS).operators


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script_modules_are_looked_into() -> None:
    """What TorchScript compiled is in the graph, its branches included; two different ones differ."""
    one, other = (torch.jit.script(nn.Sequential(nn.Linear(6, 3), act)) for act in (nn.ReLU(), nn.Tanh()))

    first, second = capture(nn.Sequential(one), ROWS), capture(nn.Sequential(other), ROWS)

    assert (("linear 3x6", "relu"), ("linear 3x6", "tanh")) == (first.operators, second.operators)
    assert capture(one, ROWS).id == capture(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), ROWS).id


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_packed_weights_are_not_guessed_at() -> None:
    """Quantised layers hide their weights from every rung but the last, which tells two widths apart."""
    one, other = (torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, n))) for n in (3, 4))

    first, second = capture(one, ROWS), capture(other, ROWS)

    assert ("tree", "tree") == (first.rung, second.rung)
    assert first.id != second.id


class Squaring(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, power: float) -> Tensor:
        return x**power

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        return gradient, None


def test_a_function_of_the_users_own_counts_with_its_numbers() -> None:
    """An autograd function is an operator, and its numbers are attributes."""
    one, other = (capture(Act(lambda x, p=p: Squaring.apply(x, p)), ROWS) for p in (2.0, 3.0))

    assert ("graph", "graph") == (one.rung, other.rung)
    assert one.id != other.id


def test_unwrap() -> None:
    """The model is found inside whatever wraps it."""
    model = nn.Linear(6, 3)

    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(torch.compile(nn.DataParallel(model), backend="eager"))) is model


def test_nothing_is_imported_early_and_nothing_slow_ever() -> None:
    """Importing this room imports no torch, and capturing none of what takes seconds to import."""
    script = """
import sys
import numb.capture.graph as graph
assert "torch" not in sys.modules and "numpy" not in sys.modules
import torch
before = set(sys.modules)
assert graph.capture(torch.nn.LSTM(6, 3), (4, 2, 6)).rung == "graph"
after = set(sys.modules) - before
print(sorted(name for name in after if name.startswith(("torch._dynamo", "torch.export", "torch.onnx", "onnx", "sympy"))))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)

    assert ("[]\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("model", [Net(), Returning(OUTPUTS["a dict"])], ids=["a net", "a dict"])
def test_onnx(model: nn.Module) -> None:
    """The ONNX file has the graph and none of the weights, which are inputs under their own names."""
    file = onnx.load_model_from_string(to_onnx(model, ROWS if isinstance(model, Returning) else IMAGES))

    assert [] == list(file.graph.initializer)
    inputs = {each.name: [size.dim_value for size in each.type.tensor_type.shape.dim] for each in file.graph.input}
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items() if "num_batches" not in name}
    assert expected == {name: shape for name, shape in inputs.items() if name in expected}
    assert 1 == len(inputs) - len(expected)


def test_no_onnx(capfd: pytest.CaptureFixture[str]) -> None:
    """A model that no exporter takes raises in one line, and what the exporters print is not seen."""
    with pytest.raises(CaptureFailed) as raised:
        to_onnx(Failing(3), ROWS)

    assert "KeyError: 'no\\nsuch thing'" == str(raised.value)
    assert ("", "") == capfd.readouterr()
