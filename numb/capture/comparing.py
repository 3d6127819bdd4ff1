"""How the weights of one state differ from those of another: by their hashes, and where these differ by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numb.capture.manifest import Manifest, Stored
from numb.capture.weights import Reading
from numb.store.objects import Objects, Ref

if TYPE_CHECKING:
    from torch import Tensor

SAME, CHANGED, ONLY_FIRST, ONLY_SECOND, OTHER_SHAPE = (
    "same",
    "changed",
    "only in the first",
    "only in the second",
    "shape",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor in both states, or something that is kept as a file of torch's: this has no shape, and no numbers are told.

    Of a changed one: the largest absolute difference, the norm of the difference as a part of the norm of the first (2-norms,
    in double precision; infinite where the first is zero), and the part of its elements that are other ones.
    """

    name: str
    how: str
    shape: tuple[int, ...] | None
    largest: float | None = None
    relative: float | None = None
    elements: float | None = None
    other: str | None = None  # dtype and shape in the second, where they are other ones


def differences(first: Manifest, second: Manifest, objects: Objects) -> list[Difference]:
    """Every tensor of two states, in the order of the first. Only those that differ are read.

    Raises `ObjectMissing` and `ObjectCorrupt`.
    """
    here, there = first.named(), second.named()
    found = {
        name: _by_hash(name, here.get(name), there.get(name)) for name in [*here, *(n for n in there if n not in here)]
    }
    unequal = [name for name, difference in found.items() if difference.how == CHANGED]
    for name in unequal:  # one after another: two of the largest are in memory at a time
        (one,), (other,) = (Reading(each.only([name]), objects).all().values() for each in (first, second))
        found[name] = _by_number(found[name], one, other)
    return [*found.values(), *_files(first, second)]


def _files(first: Manifest, second: Manifest) -> Iterator[Difference]:
    here, there = first.named_pickles(), second.named_pickles()
    for name in [*here, *(name for name in there if name not in here)]:
        if name in here and name in there:
            yield Difference(name, SAME if here[name].object == there[name].object else CHANGED, None)
        else:
            yield Difference(name, ONLY_FIRST if name in here else ONLY_SECOND, None)


def unequal(first: Manifest, second: Manifest) -> set[Ref]:
    """The objects of the tensors that are to be read."""
    here, there = first.named(), second.named()
    differing = [name for name in here if name in there and here[name].hash != there[name].hash]
    return {side[name].object for name in differing for side in (here, there)}


def _by_hash(name: str, here: Stored | None, there: Stored | None) -> Difference:
    if here is None or there is None:
        known = here or there
        return Difference(name, ONLY_FIRST if here else ONLY_SECOND, known.shape if known else ())
    if (here.dtype, here.shape) != (there.dtype, there.shape):
        return Difference(name, OTHER_SHAPE, here.shape, other=f"{there.dtype} {there.shape}")
    same = here.hash == there.hash and here.strides == there.strides
    return Difference(name, SAME if same else CHANGED, here.shape)


def _by_number(difference: Difference, one: Tensor, other: Tensor) -> Difference:
    import torch

    kind = torch.complex128 if one.is_complex() else torch.float64
    first, second = one.to(kind), other.to(kind)
    change = (second - first).abs()
    if one.is_complex() or one.is_floating_point():
        differs = ~((first == second) | (first.isnan() & second.isnan()))
    else:  # some whole numbers are one double, and different all the same
        differs = (_bytes(one) != _bytes(other)).any(-1).reshape(one.shape)
        change = torch.where(differs, change.clamp(min=1), change)
    if not bool(differs.any()):  # the same numbers, in another order of memory or with another sign of zero
        return Difference(difference.name, SAME, difference.shape)
    norm = float(first.abs().norm())
    return Difference(
        difference.name,
        CHANGED,
        difference.shape,
        float(change.max()),
        float(change.norm()) / norm if norm else float("inf"),
        float(differs.double().mean()),
    )


def _bytes(tensor: Tensor) -> Tensor:
    """The bytes of each element, in a row."""
    import torch

    return tensor.contiguous().reshape(-1, 1).view(torch.uint8)
