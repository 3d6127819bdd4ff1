"""What is promised of weights: every tensor comes back bit by bit, damage and hostile records do not get through."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from numb import atomic
from numb.capture import weights
from numb.capture.manifest import Manifest
from numb.errors import NumbError, ObjectCorrupt, ObjectMissing, StorageFailed, StoreTooNew
from numb.store.objects import Objects, hash_of

ALL = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
DTYPES = sorted(name for name in ALL if not name.startswith("q"))  # quantised tensors are more than their bytes


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.inner = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.outer = nn.Linear(width, 2)
        self.register_buffer("nothing", None)


class Remembering(Net):
    """A network with something of its own in its state dict."""

    def __init__(self, memory: object = None) -> None:
        super().__init__()
        self.memory = memory

    def get_extra_state(self) -> object:
        return self.memory

    def set_extra_state(self, state: object) -> None:
        self.memory = state


class Bomb:
    """Unpickling one makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def bits(value: Any) -> Any:
    """A tensor as what makes it up, so that NaN equals NaN and every dtype can be compared."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.element_size() == 1:  # torch has names for some such dtypes, and copies none of their numbers
        return value.dtype, tuple(value.shape), value.detach().view(torch.uint8).contiguous().numpy().tobytes()
    flat = value.detach().resolve_conj().resolve_neg().contiguous().as_strided((value.numel(),), (1,))
    content = bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
    return value.dtype, tuple(value.shape), content


def everything(state: Any) -> dict[str, Any]:
    return {name: bits(value) for name, value in state.items()}


def through(state: Any, objects: Objects) -> OrderedDict[str, Any]:
    """Saved, written down as JSON, and read again."""
    written = json.dumps(weights.save(state, objects), allow_nan=False, ensure_ascii=False).encode()
    return weights.read(json.loads(written), objects)


def counting(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor whose bytes are all different, as far as that goes."""
    size = math.prod(shape) * dtype.itemsize
    content = bytearray(n % 251 for n in range(size))
    if dtype is torch.bool:
        content = bytearray(n % 2 for n in range(size))
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=torch.uint8).view(dtype).reshape(shape)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_bit_by_bit(objects: Objects, dtype: str) -> None:
    """Whatever torch can hold in whole bytes: full, transposed, one number, and none."""
    full = counting(3, 5, dtype=getattr(torch, dtype))
    state = {"full": full, "transposed": full.t(), "one": counting(1, dtype=full.dtype)[0], "none": full[:0]}

    assert everything(state) == everything(through(state, objects))
    assert everything(state) == everything(through(weights.copied(state), objects))
    assert 1 == len(list(objects))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_come_back(objects: Objects, layout: torch.layout) -> None:
    """Rows of several lengths are kept as torch keeps them."""
    nested = torch.nested.nested_tensor([counting(2), counting(3)], layout=layout)
    manifest = weights.save({"part": weights.copied({"rows": nested})}, objects)
    back = weights.read(manifest, objects)["part"]["rows"]

    assert ([], None, layout) == (manifest["left_out"], manifest["partial"], back.layout)
    assert [bits(row) for row in nested.unbind()] == [bits(row) for row in back.unbind()]


def test_arrays_and_long_lists_are_kept_as_data(objects: Objects) -> None:
    """Also where there is no tensor among them; what is no data goes alone, and is named without torch's advice."""
    state = {
        "generators": {"py": random.Random(0).getstate(), "np": numpy.random.RandomState(0).get_state()},
        "sampler": {"perm": numpy.arange(5), "losses": [0.1] * 3000},
        "rates": [numpy.float64(n) / 7 for n in range(500)],
        "mixed": {"seen": list(range(2000)), "function": lambda: 0, "class": random.Random},
        "long": list(range(3000)),
    }
    manifest = weights.save(weights.copied(state), objects)
    back = weights.read(manifest, objects)

    assert ["mixed/function", "mixed/class"] == [each["name"] for each in manifest["left_out"]] and manifest[
        "partial"
    ] is None
    assert "torch.load(weights_only=True) refuses it: it needs random.Random" == manifest["left_out"][1]["reason"]
    for name in ("generators", "sampler", "rates", "long"):
        assert repr(state[name]) == repr(back[name])
    assert list(range(2000)) == back["mixed"]["seen"]
    drawn = random.Random()
    drawn.setstate(back["generators"]["py"])
    assert random.Random(0).random() == drawn.random()


def test_keys_of_numpy_come_back(objects: Objects) -> None:
    """A part that counts classes with NumPy has such keys, also within tuples."""
    state = {"part": {numpy.int64(3): torch.ones(2), (1, numpy.float32(0.5)): [torch.ones(1)]}}
    manifest = Manifest.of(weights.save(state, objects))
    (first, _), (second, _) = keys = list(weights.read(manifest.to_json(), objects)["part"].items())

    assert repr(state["part"]) == repr(dict(keys)) and (numpy.int64, numpy.float32) == (type(first), type(second[1]))
    assert {"part/3", "part/(1, 0.5)/0"} == set(manifest.named())


def test_the_dtypes_are_those_of_this_torch() -> None:
    """The list above is made from torch, so it must hold at least what networks are made of."""
    assert {"float32", "bfloat16", "float8_e5m2", "complex64", "bool", "uint64", "int8"} <= set(DTYPES)
    assert len(DTYPES) > 20


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.lists(st.sampled_from(["transpose", "step", "expand", "flip", "slice", "conj"]), max_size=4),
)
def test_every_view_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], views: list[str]
) -> None:
    """Any shape, seen through any pile of views, comes back as a tensor with these numbers, and the original stays."""
    tensor = counting(*shape, dtype=torch.complex64 if "conj" in views else torch.float32)
    for view in views:
        match view:
            case "transpose" if tensor.dim() > 1:
                tensor = tensor.transpose(0, -1)
            case "step" if tensor.dim():
                tensor = tensor[::2]
            case "expand":
                tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
            case "flip" if tensor.dim():
                tensor = tensor.flip(0)
            case "slice" if tensor.dim() and tensor.shape[-1]:
                tensor = tensor[..., 1:]
            case "conj":
                tensor = tensor.conj()
    before, stride = bits(tensor), tensor.stride()

    back = through({"t": tensor}, Objects(tmp_path_factory.mktemp("store")))["t"]

    assert before == bits(back) == bits(tensor)
    assert stride == tensor.stride()
    assert is_dense(back) and (not is_dense(tensor) or tensor.is_contiguous() or stride == back.stride())


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor lie in memory without gap and overlap, in whatever order."""
    steps = tensor.stride()
    indexes = itertools.product(*map(range, tensor.shape))
    cells = sorted(sum(index * step for index, step in zip(each, steps, strict=True)) for each in indexes)
    return cells == list(range(tensor.numel()))


def test_a_network_comes_back_in_order_with_what_torch_says_of_its_modules(objects: Objects) -> None:
    """Names, order, numbers, and the versions that torch keeps in `_metadata`."""
    state = Net().state_dict()

    back = through(state, objects)

    assert list(state) == list(back)
    assert everything(state) == everything(back)
    assert dict(state._metadata) == dict(back._metadata)


def test_a_small_network_is_one_object(objects: Objects) -> None:
    """The manifest, whole: one object, packed in order at multiples of 64."""
    a, b = counting(5), counting(2, 3, dtype=torch.int64)
    manifest = weights.save(OrderedDict(a=a, b=b.t(), c=3), objects)

    [digest] = objects
    in_object, of_a = {"object": digest}, {"offset": 0, "nbytes": 20, "hash": hash_of(a.numpy().tobytes())}
    of_b = {"offset": 64, "nbytes": 48, "hash": hash_of(b.numpy().tobytes()), "strides": [1, 3]}
    assert {
        "format": 1,
        "tree": {"ordered": [["a", {"tensor": 0}], ["b", {"tensor": 1}], ["c", 3]]},
        "tensors": [
            {"name": "a", "dtype": "float32", "shape": [5], **in_object, **of_a},
            {"name": "b", "dtype": "int64", "shape": [3, 2], **in_object, **of_b},
        ],
        "pickles": [],
        "objects": {digest: 112},
        "left_out": [],
        "partial": None,
    } == manifest
    assert {"tensors": 2, "bytes": 68} == weights.summary(manifest)


def test_what_did_not_change_costs_nothing_the_second_time(objects: Objects) -> None:
    """The same weights add no file, and another large tensor adds one."""
    state = {"small": counting(10), "frozen": torch.ones(1 << 18), "trained": torch.zeros(1 << 18)}
    first = weights.save(state, objects)
    before = set(objects)
    assert 3 == len(before)

    assert first == weights.save({name: tensor.clone() for name, tensor in state.items()}, objects)
    assert before == set(objects)

    weights.save({**state, "trained": torch.full((1 << 18,), 2.0)}, objects)
    assert 1 == len(set(objects) - before)


def test_a_large_network_of_small_tensors_is_a_few_objects(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack is closed before it gets too large for main memory, and the order of the entries stays."""
    monkeypatch.setattr(weights, "_PACK_LIMIT", 1000)
    state = OrderedDict((f"t{n}", counting(100) + n) for n in range(5)) | {"last": torch.zeros(1 << 18)}

    back = through(state, objects)

    assert list(state) == list(back) and everything(state) == everything(back)
    assert 4 == len(list(objects))


def test_tied_weights_are_stored_once_and_come_back_tied(objects: Objects) -> None:
    """Two names for one memory stay that; equal numbers in two memories stay two."""
    shared = counting(4, 4)
    state = {"a": shared, "tied": shared.detach(), "transposed": shared.t(), "equal": shared.clone()}
    manifest = weights.save(state, objects)
    back = weights.read(manifest, objects)

    assert [["a", {"tensor": 0}], ["tied", {"tensor": 0}]] == manifest["tree"]["ordered"][:2]
    assert {"tensors": 4, "bytes": 3 * 64} == weights.summary(manifest)
    assert everything(state) == everything(back)
    back["a"].zero_()
    assert [0, 0] == [float(back[name].sum()) for name in ("a", "tied")]
    assert everything({"t": shared.t(), "e": shared}) == everything({"t": back["transposed"], "e": back["equal"]})


def test_large_tensors_that_are_equal_share_a_file_but_no_memory(objects: Objects) -> None:
    """One object; writing into one tensor does not change the other."""
    back = through({"a": torch.zeros(1 << 18), "b": torch.zeros(1 << 18)}, objects)

    back["a"].fill_(1)

    assert 1 == len(list(objects)) and 0 == back["b"].sum()


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -7, 1 << 200, 0.1, -0.0, float("inf"), float("-inf"), "", "π\n\x00", [], [1, [2.5, None]], (1, ("a",)),
        {}, {"a": {1: (True, [])}}, {(1, 2): "x"}, {"int": "0x1"}, {"tuple": [1]}, {"dict": []}, b"\x00\xff", {1, 2}, 1j, torch.float16,
        "x" * 10_000, list(range(5_000)), OrderedDict(a=1), Counter("aab"), torch.Size([2, 3]), "\ud800",
    ],
    ids=lambda value: repr(value)[:30].encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_every_plain_value_comes_back(objects: Objects, value: object) -> None:
    """In the manifest if JSON can spell it, else in an object that torch reads without running code."""
    back = through({"_extra_state": value}, objects)["_extra_state"]

    assert (type(value), value, repr(value)) == (type(back), back, repr(back))


def test_only_a_short_value_stands_in_the_manifest(objects: Objects) -> None:
    """The record of a run stays one that a person can read; a value that contains itself is kept too."""
    loop: list[Any] = []
    loop.append(loop)
    manifest = weights.save({"short": [1] * 100, "long": [1] * 10_000, "loop": loop}, objects)

    assert [["short", [1] * 100], ["long", {"pickle": 0}], ["loop", {"pickle": 1}]] == manifest["tree"]["ordered"]
    back = weights.read(manifest, objects)["loop"]
    assert back[0] is back


def test_nan_and_tensors_inside_values_come_back(objects: Objects) -> None:
    """What is not equal to itself, or not comparable, is the same all the same."""
    back = through({"_extra_state": {"nan": [float("nan")], "t": counting(3)}, "nan": (float("nan"),)}, objects)

    assert math.isnan(back["nan"][0]) and math.isnan(back["_extra_state"]["nan"][0])
    assert bits(counting(3)) == bits(back["_extra_state"]["t"])


@pytest.mark.filterwarnings("ignore:.*quantize", "ignore:Sparse", "ignore:.*TypedStorage")
def test_sparse_and_quantised_tensors_come_back(objects: Objects) -> None:
    """Layouts other than plain ones are left to torch's own format."""
    sparse = torch.eye(3).to_sparse()
    quantised = torch.quantize_per_tensor(counting(4).nan_to_num(), 0.1, 0, torch.qint8)
    manifest = weights.save({"sparse": sparse, "quantised": quantised}, objects)
    with torch.device("meta"):
        back = weights.read(manifest, objects)

    assert [["sparse", {"pickle": 0}], ["quantised", {"pickle": 1}]] == manifest["tree"]["ordered"]
    assert (None, []) == (manifest["partial"], manifest["left_out"])
    assert torch.equal(sparse.to_dense(), back["sparse"].to_dense()) and back["sparse"].is_sparse
    assert torch.equal(quantised.int_repr(), back["quantised"].int_repr())


def test_what_cannot_be_kept_is_named_and_stops_nothing(objects: Objects, tmp_path: Path) -> None:
    """A value whose unpickling would run code, one that cannot be pickled: left out with the reason, the rest is there."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    canary = Bomb(tmp_path / "canary")
    state = {"a": counting(2), "bomb": canary, "function": lambda: 0, "b": counting(3), "module": os, "deep": deep}

    manifest = weights.save(state, objects)

    assert ["a", "b"] == list(weights.read(manifest, objects))
    assert ["bomb", "function", "module", "deep"] == [entry["name"] for entry in manifest["left_out"]]
    assert "torch.load(weights_only=True) refuses it" in manifest["left_out"][0]["reason"]
    assert "cannot be pickled" in manifest["left_out"][1]["reason"]
    assert manifest["partial"] is None
    assert not (tmp_path / "canary").exists()


def test_a_shard_is_never_taken_for_the_whole(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank's part of a distributed tensor, a tensor without numbers: left out, and the weights are called partial."""

    class DTensor(torch.Tensor):
        pass

    gathered = counting(2)
    gathered.ds_shape = (8,)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    state = {
        "whole": counting(2),
        "sharded": counting(2).as_subclass(DTensor),
        "zero": gathered,
        "meta": torch.empty(3, device="meta"),
        "lazy": nn.UninitializedParameter(),
    }

    manifest = weights.save(state, objects)

    assert ["whole"] == list(weights.read(manifest, objects))
    assert (
        "4 of 5 tensors could not be saved: sharded (a shard, DTensor, of rank 0 of 4), zero (a shard, Tensor, of rank 0 of 4), "
        "meta (on the meta device, without numbers), lazy (a lazy parameter, not initialised yet)"
    ) == manifest["partial"]


def test_a_device_that_fails_costs_only_its_tensors(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a device-side assert every copy raises: what can be copied is saved, the rest is named."""
    lost, real = counting(7), torch.Tensor.cpu

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == lost.shape:
            raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")
        return real(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    manifest = weights.save({"a": counting(2), "lost": lost, "tied": lost, "b": counting(3)}, objects)

    assert ["a", "b"] == list(weights.read(manifest, objects))
    reason = "RuntimeError: CUDA error: device-side assert triggered"
    assert [{"name": name, "reason": reason} for name in ("lost", "tied")] == manifest["left_out"]
    assert f"2 of 4 tensors could not be saved: lost ({reason}), tied ({reason})" == manifest["partial"]


def test_a_full_disk_is_told_and_not_left_out(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that cannot be kept is one thing, a disk that takes nothing another."""

    def full(*_: object) -> None:
        raise StorageFailed("full")

    monkeypatch.setattr(atomic.Draft, "write", full)
    for state in (
        {"a": counting(2)},
        {"a": torch.zeros(1 << 18)},
        {"_extra_state": {1, 2}},
        {"a": torch.eye(2).to_sparse()},
    ):
        with pytest.raises(StorageFailed, match="full"):
            weights.save(state, objects)


def test_a_subclass_comes_back_as_a_plain_tensor(objects: Objects) -> None:
    """The numbers are kept, whatever class they had and whatever that class does to functions."""

    class Noisy(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *_: object, **__: object) -> Any:
            raise AssertionError("called")

    plain = counting(3)
    manifest = weights.save({"a": plain.as_subclass(Noisy), "b": nn.Parameter(counting(2))}, objects)
    back = weights.read(manifest, objects)

    assert [torch.Tensor, torch.Tensor] == [type(value) for value in back.values()]
    assert [bits(plain), bits(counting(2))] == [bits(value) for value in back.values()]


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (["module.a", "module.b.c"], ["a", "b.c"]),
        (["_orig_mod.a", "_orig_mod.b"], ["a", "b"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ["a", "b"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["encoder._orig_mod.a", "head.a"], ["encoder.a", "head.a"]),
        (["e._orig_mod.a", "e.a"], ["e._orig_mod.a", "e.a"]),
        (["modules.a", "modules.b"], ["modules.a", "modules.b"]),
        ([], []),
    ],
)
def test_wrappers_are_no_part_of_a_key(names: list[str], plain: list[str]) -> None:
    """`module.` goes when every key has it, `_orig_mod.` always, unless two keys would become one."""
    assert plain == list(weights.plain_keys(dict.fromkeys(names, 0)))


class Wrapper(nn.Module):
    """What DistributedDataParallel is to the keys of a state dict."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap_first", [True, False])
def test_weights_move_between_wrapped_and_plain_models(objects: Objects, wrap_first: bool) -> None:
    """Saved under DataParallel they load without it, and the other way round, modules' versions included."""
    source, target = Net(), Net()
    outer_source = Wrapper(source) if wrap_first else source
    outer_target = target if wrap_first else Wrapper(target)

    manifest = weights.save(outer_source.state_dict(), objects)
    weights.load_into(outer_target, weights.read(manifest, objects))

    assert list(source.state_dict()) == [name for name, _ in manifest["tree"]["ordered"]]
    assert everything(source.state_dict()) == everything(target.state_dict())
    assert {"version": 2} == manifest["tree"]["metadata"]["norm"]


def test_loading_keeps_the_models_own_tensors(objects: Objects) -> None:
    """Identity, ties, dtype and requires_grad of the model stay; numbers and extra state come; no random number is drawn."""
    source, model = Remembering({"seen": 3}), Remembering()
    source.norm.running_mean.fill_(7)
    model.outer.double()
    model.inner.weight.requires_grad_(False)
    model.register_parameter("tied", model.outer.bias)
    state = through(source.state_dict(), objects)
    state["tied"] = state["outer.bias"]
    kept = dict(model.named_parameters())
    drawn = torch.get_rng_state()

    weights.load_into(model, state)

    assert all(kept[name] is parameter for name, parameter in model.named_parameters())
    assert model.tied is model.outer.bias and model.outer.weight.dtype is torch.float64
    assert (False, True) == (model.inner.weight.requires_grad, model.outer.weight.requires_grad)
    assert torch.equal(source.outer.weight.double(), model.outer.weight)
    assert torch.equal(source.inner.weight, model.inner.weight) and 7 == model.norm.running_mean[0]
    assert {"seen": 3} == model.memory and model.nothing is None
    assert torch.equal(drawn, torch.get_rng_state())


def test_a_module_takes_back_whatever_it_has_given(objects: Objects) -> None:
    """A state dict may hold what is no tensor; only the module knows what it makes of it."""

    class Counting(nn.Linear):
        seen: Any = None

        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return {**super().state_dict(*args, **kwargs), "seen": self.seen}

        def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
            own = dict(state)
            self.seen = own.pop("seen")
            if self.seen == 0:
                raise ArithmeticError("seen nothing")
            return super().load_state_dict(own, *args, **kwargs)

    source, model = Counting(2, 2), Counting(2, 2)
    source.seen = {"rows": [3, (4.5, torch.ones(2))]}
    weights.load_into(model, through(source.state_dict(), objects))
    assert repr(source.seen) == repr(model.seen) and torch.equal(source.weight, model.weight)

    source.seen = 0
    with pytest.raises(weights.StateMismatch, match="the model does not take the saved weights: seen nothing"):
        weights.load_into(model, source.state_dict())


def test_a_lazy_model_takes_its_shapes_from_the_weights(objects: Objects) -> None:
    """A layer that has not seen an input yet has no shape that could be wrong."""
    model = nn.Sequential(nn.LazyLinear(8))
    weights.load_into(model, through(nn.Sequential(nn.Linear(4, 8)).state_dict(), objects))

    assert (8, 4) == model[0].weight.shape


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper])
def test_a_module_is_told_the_version_it_was_saved_by(objects: Objects, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Modules translate what older versions of themselves have saved, so the version must reach them."""
    seen: list[object] = []

    class Versioned(nn.Linear):
        _version = 7

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
            seen.append(metadata.get("version"))
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    weights.load_into(
        wrap(nn.Sequential(Versioned(2, 2))), through(nn.Sequential(Versioned(2, 2)).state_dict(), objects)
    )

    assert [7] == seen


def test_weights_that_do_not_fit_change_nothing_and_are_named_together() -> None:
    """Missing, unexpected, of another shape, of another kind: one message, and the model is as it was."""
    model = Net()
    before = copy.deepcopy(model.state_dict())
    state = Net(width=9).state_dict()
    state["norm.num_batches_tracked"] = torch.zeros(())
    del state["outer.bias"], state["outer.weight"], state["norm.weight"], state["norm.bias"], state["norm.running_mean"]
    for n in range(7):
        state[f"more.{n}"] = torch.zeros(1)

    with pytest.raises(weights.StateMismatch) as mismatch:
        weights.load_into(model, state)

    assert (
        "the saved weights do not fit the model: "
        "5 missing: norm.weight, norm.bias, norm.running_mean, outer.weight, outer.bias; "
        "7 unexpected: more.0, more.1, more.2, more.3, more.4 and 2 more; "
        "4 different: inner.weight is float32 (8, 4) in the model and float32 (9, 4) in the weights, "
        "inner.bias is float32 (8,) in the model and float32 (9,) in the weights, "
        "norm.running_var is float32 (8,) in the model and float32 (9,) in the weights, "
        "norm.num_batches_tracked is int64 () in the model and float32 () in the weights"
    ) == str(mismatch.value)
    assert "numb list shows each architecture" == mismatch.value.hint
    assert everything(before) == everything(model.state_dict())


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (torch.empty(2, device="meta"), "t is meta float32 (2,) in the model and float32 (2,) in the weights"),
        (torch.ones(1).expand(2), "t is expanded float32 (2,) in the model and float32 (2,) in the weights"),
    ],
    ids=["meta", "expanded"],
)
def test_a_model_that_cannot_take_numbers_is_refused_first(theirs: torch.Tensor, said: str) -> None:
    """torch would copy the other tensors and fail, or say nothing at all."""
    model = Net()
    model.register_buffer("t", theirs)
    before = everything(Net.state_dict(model)) if theirs.device.type == "cpu" else {}
    state = {**Net().state_dict(), "t": torch.zeros(2)}

    with pytest.raises(weights.StateMismatch) as mismatch:
        weights.load_into(model, state)

    assert f"the saved weights do not fit the model: 1 different: {said}" == str(mismatch.value)
    if before:
        assert before == everything(model.state_dict())


def test_a_flipped_byte_is_found_and_nothing_is_loaded(objects: Objects) -> None:
    """torch.load would not notice; numb refuses the weights by their hash."""
    manifest = weights.save({"a": counting(3), "b": torch.zeros(1 << 18)}, objects)
    for digest in objects:
        path = objects.path(digest)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
        with pytest.raises(ObjectCorrupt, match=r"is damaged: .* not those that were written"):
            weights.read(manifest, objects)
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert everything({"a": counting(3), "b": torch.zeros(1 << 18)}) == everything(weights.read(manifest, objects))


def test_a_missing_object_is_named(objects: Objects) -> None:
    """Weights that are elsewhere are not there, and no empty network stands for them."""
    manifest = weights.save({"a": counting(3)}, objects)
    [digest] = objects
    objects.path(digest).unlink()

    with pytest.raises(ObjectMissing, match=digest):
        weights.read(manifest, objects)


HOSTILE = [
    lambda m: m["tensors"][0].update(offset=-64),
    lambda m: m["tensors"][0].update(offset=64),
    lambda m: m["tensors"][0].update(offset=1 << 70),
    lambda m: m["tensors"][0].update(offset=1.0),
    lambda m: m["tensors"][0].update(nbytes=-1),
    lambda m: m["tensors"][0].update(nbytes=16),
    lambda m: m["tensors"][0].update(nbytes=0),
    lambda m: m["tensors"][0].update(nbytes=1 << 60, shape=[1 << 58]),
    lambda m: m["tensors"][0].update(shape=[-5]),
    lambda m: m["tensors"][0].update(shape=[-1, -5]),
    lambda m: m["tensors"][0].update(shape=[1 << 62, 1 << 62, 5]),
    lambda m: m["tensors"][0].update(shape=[0, 1 << 62, 1 << 62], nbytes=0),
    lambda m: m["tensors"][0].update(shape=[0, 1 << 90], nbytes=0),
    lambda m: m["tensors"][0].update(shape=[True, 5]),
    lambda m: m["tensors"][0].update(shape="5"),
    lambda m: m["tensors"][0].update(dtype="qint32"),
    lambda m: m["tensors"][0].update(dtype="float"),
    lambda m: m["tensors"][0].update(dtype="load"),
    lambda m: m["tensors"][0].update(dtype="__class__"),
    lambda m: m["tensors"][0].update(dtype="float64"),
    lambda m: m["tensors"][0].update(name=3),
    lambda m: m["tensors"][0].update(object="../../../etc/passwd"),
    lambda m: m["tensors"][0].update(object="0" * 64),
    lambda m: m["tensors"][0].update(hash="0" * 64),
    lambda m: m["tensors"][0].update(hash=7),
    lambda m: m["tensors"][0].update(hash=m["tensors"][0]["object"], offset=1, nbytes=4, shape=[1]),
    lambda m: m["tensors"][0].update(strides=[2]),
    lambda m: m["tensors"][0].update(strides=[0]),
    lambda m: m["tensors"][0].update(strides=[-1]),
    lambda m: m["tensors"][0].update(strides=[1, 1]),
    lambda m: m["tensors"][0].update(strides=["1"]),
    lambda m: m["tensors"][0].update(strides="1"),
    lambda m: m["tensors"].append(None),
    lambda m: m["tensors"].clear(),
    lambda m: m["pickles"].append({"name": "b", "object": "0" * 64}),
    lambda m: m["pickles"].append({"name": 1, "object": m["tensors"][0]["object"]}),
    lambda m: m["tree"]["ordered"].append(["b", {"tensor": 1}]),
    lambda m: m["tree"]["ordered"].append(["b", {"tensor": -1}]),
    lambda m: m["tree"]["ordered"].append(["b", {"tensor": True}]),
    lambda m: m["tree"]["ordered"].append(["b", {"tensor": "0"}]),
    lambda m: m["tree"]["ordered"].append(["b", {"pickle": 0}]),
    lambda m: m["tree"]["ordered"].append(["b", {"array": 1}]),
    lambda m: m["tree"]["ordered"].append(["b", {"code": 1}]),
    lambda m: m["tree"]["ordered"].append(["b", {}]),
    lambda m: m["tree"]["ordered"].append(["b", {"float": "1"}]),
    lambda m: m["tree"]["ordered"].append(["b", {"int": "x"}]),
    lambda m: m["tree"]["ordered"].append(["b", {"int": 3}]),
    lambda m: m["tree"]["ordered"].append(["b", {"dict": [[[], 1]]}]),
    lambda m: m["tree"]["ordered"].append(["b", {"dict": [1]}]),
    lambda m: m["tree"]["ordered"].append(["b", {"dict": [], "ordered": []}]),
    lambda m: m["tree"]["ordered"].append(["b", {"tuple": [], "more": 1}]),
    lambda m: m["tree"]["ordered"].append(["b", json.loads("[" * 100 + "]" * 100)]),
    lambda m: m["tree"]["ordered"].append([1, 1]),
    lambda m: m["tree"]["ordered"].append(["b"]),
    lambda m: m["tree"].update(ordered=3),
    lambda m: m.update(tree=3),
    lambda m: m.update(tree=["a"]),
    lambda m: m.update(tree={"tuple": []}),
    lambda m: m.update(tensors=3),
    lambda m: m.pop("tensors"),
    lambda m: m.pop("pickles"),
    lambda m: m.pop("tree"),
    lambda m: m.update(objects=[]),
    lambda m: m.update(objects=dict.fromkeys(m["objects"], 1 << 60)),
    lambda m: m.update(objects=dict.fromkeys(m["objects"], -1)),
    lambda m: m.update(objects=dict.fromkeys(m["objects"], "20")),
    lambda m: m["tree"].update(metadata=[1]),
    lambda m: m["tree"].update(metadata={"": "x"}),
    lambda m: m.update(format="1"),
    lambda m: m.pop("format"),
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_manifest_is_refused(objects: Objects, change: Callable[[dict[str, Any]], object]) -> None:
    """No number of a record from elsewhere is used before it has been checked against the bytes that are there."""
    manifest = weights.save({"a": counting(5)}, objects)
    assert ["a"] == list(weights.read(manifest, objects))
    change(manifest)

    with pytest.raises(ObjectCorrupt):
        weights.read(manifest, objects)


def test_a_summary_is_not_made_of_hostile_numbers(objects: Objects) -> None:
    """A tensor outside its object is refused without torch too."""
    manifest = weights.save({"a": counting(5)}, objects)
    manifest["tensors"][0]["nbytes"] = 1 << 60

    with pytest.raises(ObjectCorrupt, match="the record of these weights cannot be used: a is not within its object"):
        weights.summary(manifest)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = (
    *[("tensors", 0, key) for key in ("name", "dtype", "shape", "strides", "object", "offset", "nbytes", "hash")],
    *[("pickles", 0, key) for key in ("name", "object")],
    *[("tree", "ordered", number, side) for number in range(4) for side in (0, 1)],
    *[("tree", "ordered", number) for number in range(4)],
    *[("tree", key) for key in ("ordered", "dict", "metadata")],
    *[(key,) for key in ("tree", "tensors", "pickles", "objects", "left_out", "partial")],
)


@given(st.sampled_from(PLACES), json_values)
def test_no_manifest_makes_anything_but_a_numb_error(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str | int, ...], value: object
) -> None:
    """Whatever stands in a record, it is read or refused with an error of numb's."""
    objects = Objects(tmp_path_factory.getbasetemp() / "fuzzed")
    shared = counting(5)
    manifest = json.loads(json.dumps(weights.save({"a": shared, "b": shared, "c": 1, "d": {1}}, objects)))
    inside = manifest
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    try:
        weights.read(manifest, objects)
        weights.summary(manifest)
    except NumbError:
        pass


def test_a_later_format_is_named(objects: Objects) -> None:
    """It is refused with its number, never half understood."""
    with pytest.raises(StoreTooNew, match="these weights have format 99; this numb reads up to 1"):
        weights.read({"format": 99}, objects)


def bomb(canary: Path) -> bytes:
    buffer = BytesIO()
    torch.save({"a": Bomb(canary)}, buffer)
    return buffer.getvalue()


def inflated(_: Path) -> bytes:
    """What torch reads, with its tensor of zeros squeezed a thousand times."""
    plain, squeezed = BytesIO(), BytesIO()
    torch.save(torch.zeros(1 << 22), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return squeezed.getvalue()


@pytest.mark.parametrize(
    "content", [bomb, lambda canary: pickle.dumps(Bomb(canary)), inflated, lambda _: b"PK\3\4", lambda _: b""]
)
def test_a_pickle_from_elsewhere_runs_nothing(
    objects: Objects, tmp_path: Path, content: Callable[[Path], bytes]
) -> None:
    """Bytes with the right hash whose unpickling would run a command, or swell: refused, and the canary is not there."""
    canary = tmp_path / "canary"
    ref = objects.put(content(canary))
    pickles = [{"name": "_extra_state", "object": ref.digest}]
    tree = {"ordered": [["_extra_state", {"pickle": 0}]]}
    manifest = {"format": 1, "tree": tree, "tensors": [], "pickles": pickles, "objects": {ref.digest: ref.size}}

    with pytest.raises(ObjectCorrupt, match="_extra_state cannot be read"):
        weights.read(manifest, objects)

    assert not canary.exists()
    if content is bomb:
        torch.load(BytesIO(content(canary)), weights_only=False)
        assert canary.exists(), "the bomb is none"


def test_what_is_exported_is_what_torch_and_safetensors_read(objects: Objects, tmp_path: Path) -> None:
    """Both files hold the same numbers, ties in the first only, and what the second cannot hold is named."""
    from safetensors.torch import load_file

    shared = counting(4)
    state = Net().state_dict() | {
        "a": shared,
        "tied": shared,
        "c": counting(2, dtype=torch.complex128),
        "_extra_state": (1,),
    }
    manifest = weights.save(state, objects)

    back = weights.read(manifest, objects)
    notes = weights.export(back, tmp_path / "state_dict.pt", tmp_path / "state_dict.safetensors")

    loaded = torch.load(tmp_path / "state_dict.pt", weights_only=True)
    assert everything(state) == everything(loaded)
    assert loaded["a"].data_ptr() == loaded["tied"].data_ptr()
    plain = {name: value for name, value in state.items() if name not in ("c", "_extra_state")}
    assert everything(plain) == everything(load_file(tmp_path / "state_dict.safetensors"))
    assert [
        "c is not in the safetensors file: it has no torch.complex128",
        "_extra_state is not in the safetensors file: it is no plain tensor",
    ] == notes
    assert ["objects", "state_dict.pt", "state_dict.safetensors"] == sorted(os.listdir(tmp_path))
    model = Net()
    model.load_state_dict({name: loaded[name] for name in model.state_dict()})


def test_an_export_that_fails_leaves_nothing(objects: Objects, tmp_path: Path) -> None:
    """No room for the file: a storage failure, and no half of one."""
    manifest = weights.save({"a": torch.zeros(1 << 18)}, objects)
    script = """
import json, resource, sys
from pathlib import Path
from numb import atomic
from numb.capture import weights
from numb.errors import StorageFailed
from numb.store.objects import Objects, hash_of
import torch, safetensors.torch
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
here = Path(sys.argv[1])
try:
    weights.export(weights.read(json.load(sys.stdin), Objects(here / "objects")), here / "x.pt", here / "x.safetensors")
except StorageFailed as failed:
    print(str(failed).partition(": ")[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], input=json.dumps(manifest), text=True, capture_output=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip

    assert (0, f"cannot write {tmp_path}/x.pt\n") == (done.returncode, done.stdout), done.stderr
    assert ["objects"] == os.listdir(tmp_path)


def test_a_summary_needs_no_torch(objects: Objects) -> None:
    """The half of numb that lists runs does not wait for torch."""
    manifest = weights.save(Net().state_dict(), objects)
    script = "import json, sys; from numb.capture import weights\nprint(weights.summary(json.load(sys.stdin)), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(manifest), text=True, capture_output=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip

    assert "{'tensors': 9, 'bytes': 368} False\n" == done.stdout


def test_saving_and_reading_draw_no_random_number_and_change_nothing(objects: Objects) -> None:
    """The model trains on as if nobody had looked."""
    model = Net()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    through(model.state_dict(), objects)

    assert torch.equal(drawn, torch.get_rng_state())
    assert everything(before) == everything(model.state_dict())
