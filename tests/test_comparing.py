"""What is promised of comparing weights: every tensor is told, in numbers, and only what differs is read."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import Scene

from numb.capture import comparing
from numb.capture.weights import Saver
from numb.store.objects import Objects
from numb.view import weights as view


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def test_every_tensor_is_told(objects: Objects) -> None:
    """Unchanged, changed and by how much, of another shape or dtype, and only on one side; nested and tied ones too."""
    w = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    first = {
        "a": torch.ones(3),
        "w": w,
        "z": torch.zeros(2),
        "gone": torch.ones(1),
        "s": torch.ones(2),
        "l": [w],
        "n": 1,
    }
    second = {
        "a": torch.ones(3), "w": w + torch.tensor([[0.0, 0.5], [0.0, 0.0]]), "z": torch.ones(2), "s": torch.ones(2).double(),
        "l": [w], "n": 1, "new": torch.ones(1),
    }  # fmt: skip
    saver = Saver(objects)
    found = comparing.differences(saver.save(first), saver.save(second), objects)

    told = {each.name: (each.how, each.largest, each.relative, each.elements, each.other) for each in found}
    assert {
        "a": ("same", None, None, None, None),
        "w": ("changed", 0.5, 0.1, 0.25, None),
        "z": ("changed", 1.0, math.inf, 1.0, None),
        "gone": ("only in the first", None, None, None, None),
        "s": ("shape", None, None, None, "float64 (2,)"),
        "l/0": ("same", None, None, None, None),
        "new": ("only in the second", None, None, None, None),
    } == told
    assert ["a", "w", "z", "gone", "s", "l/0", "new"] == list(told)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.complex64, torch.int64, torch.bool, torch.uint8, torch.float8_e5m2]
)
def test_any_dtype_is_compared(objects: Objects, dtype: torch.dtype) -> None:
    """By its numbers, in double precision."""
    saver = Saver(objects)
    first = {"t": torch.tensor([1, 1, 0, 0]).to(dtype)}
    (found,) = comparing.differences(
        saver.save(first), saver.save({"t": torch.tensor([1, 0, 0, 0]).to(dtype)}), objects
    )

    assert ("changed", 1.0, 0.25) == (found.how, found.largest, found.elements)
    assert math.isclose(found.relative or 0, 1 / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_large_numbers_that_are_one_double_differ(objects: Objects, dtype: torch.dtype) -> None:
    """2^53 and the next one, by at least one."""
    saver = Saver(objects)
    first, second = (saver.save({"n": torch.tensor([7, number]).to(dtype)}) for number in (1 << 53, (1 << 53) + 1))
    [found] = comparing.differences(first, second, objects)

    assert ("changed", 1.0, 0.5) == (found.how, found.largest, found.elements)


def test_what_is_kept_as_a_file_is_told(objects: Objects) -> None:
    """A sparse tensor has changed or not; by how much is not told."""
    saver = Saver(objects)
    states = [{"same": torch.eye(3).to_sparse(), "moved": (torch.eye(3) * factor).to_sparse()} for factor in (1, 2)]
    first, second = saver.save(states[0]), saver.save({**states[1], "new": states[0]["same"]})
    found = comparing.differences(first, second, objects)

    told = {each.name: (each.how, each.shape, each.largest) for each in found}
    assert {
        "same": ("same", None, None),
        "moved": ("changed", None, None),
        "new": ("only in the second", None, None),
    } == told
    assert "a file" in view.table({"Net": found}) and '"shape": null' in view.as_json({"Net": found})


def test_what_is_equal_is_not_read(objects: Objects) -> None:
    """Its hash says so: the bytes need not even be there."""
    saver = Saver(objects)
    frozen = torch.ones(1 << 18)
    first = saver.save(OrderedDict(frozen=frozen, head=torch.zeros(3)))
    second = saver.save(OrderedDict(frozen=frozen, head=torch.ones(3)))
    objects.path(first.named()["frozen"].object.digest).unlink()

    assert ["same", "changed"] == [each.how for each in comparing.differences(first, second, objects)]


def test_nan_is_no_difference_where_it_stays(objects: Objects) -> None:
    """And the same numbers in another order of memory are the same numbers."""
    saver = Saver(objects)
    first = saver.save({"n": torch.tensor([math.nan, 1.0]), "t": torch.arange(6.0).reshape(2, 3)})
    second = saver.save({"n": torch.tensor([math.nan, 2.0]), "t": torch.arange(6.0).reshape(2, 3).t().contiguous().t()})
    nan, transposed = comparing.differences(first, second, objects)

    assert ("changed", 0.5) == (nan.how, nan.elements) and "same" == transposed.how


@pytest.mark.usefixtures("warm")
def test_two_runs_are_compared(torch_scene: Scene) -> None:
    """numb diff --weights, as a table and as JSON; without it the code, as a patch."""
    first, second = torch_scene.trained(lr=0.1), torch_scene.trained(lr=0.2)
    both = f"{first['id']} {second['id']}"
    table, plain = torch_scene.numb(f"diff {both} --weights"), torch_scene.numb(f"diff {both} --weights --json")
    same = torch_scene.numb(f"diff {first['id']} {first['id']} --weights")
    torch_scene.write("data.txt", "new")
    third = torch_scene.trained(lr=0.3)
    code = torch_scene.numb(f"diff {second['id']} {third['id']}")

    found = {each["name"]: each["how"] for each in json.loads(plain.stdout)["Net"]}
    assert "changed" == found["hidden.weight"] and 9 == len(found)
    assert "same" == found["norm.num_batches_tracked"]
    assert [0, 0, 0, 0] == [done.code for done in (table, plain, same, code)]
    assert "hidden.weight" in table.stdout and "num_batches" not in table.stdout
    assert "Net  9 tensors, 9 the same" == same.stdout.strip()
    assert "+new" in code.stdout and ".nmb" not in code.stdout
