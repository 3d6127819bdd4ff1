"""What is written about a state: plain JSON that says which tensors of which objects, and which values, it is made of.

    {"format": 1,
     "tree": …,                                   # the state dict, or several by name
     "tensors": [{"name", "dtype", "shape", "strides", "object", "offset", "nbytes", "hash"}],
     "pickles": [{"name", "object"}],             # what else torch.load(weights_only=True) reads
     "objects": {digest: size},
     "left_out": [{"name", "reason"}],
     "partial": null or the reason}               # not null: tensors are missing

In the tree stands JSON for what JSON has. What it lacks is an object with a key of this list, and so is every dictionary:

    {"dict": [[key, item], …]}                    a dictionary
    {"ordered": [[…], …], "metadata": {…}}        an OrderedDict, with what torch says of its modules
    {"tensor": 3}, {"array": 3}, {"scalar": 3}    a tensor, an array or a scalar of NumPy, with the numbers of a tensor above
    {"pickle": 0}, {"absent": reason}             one of the pickles; what could not be kept
    {"tuple": […]}, {"int": "0x…"}, {"float": "nan"}

A tensor that stands there twice is tied. Everything read is checked here before it is used: a manifest may come from elsewhere.
Nothing here knows torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numb.errors import ObjectCorrupt, StoreTooNew
from numb.store.objects import Ref

FORMAT = 1

DEEPEST = 32
_NAMED_AT_MOST = 5


class Malformed(Exception):
    """Where a manifest is not one."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor: `nbytes` from `offset` of an object, little-endian, in the order of memory that *strides* tell (C without)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    object: Ref
    offset: int
    nbytes: int
    hash: str
    strides: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        plain |= {"object": self.object.digest, "offset": self.offset, "nbytes": self.nbytes}
        if self.hash != self.object.digest:
            plain["hash"] = self.hash
        if self.strides is not None:
            plain["strides"] = list(self.strides)
        return plain


@dataclass(frozen=True, slots=True)
class Pickled:
    """A file for `torch.load(weights_only=True)`."""

    name: str
    object: Ref


@dataclass(frozen=True, slots=True)
class Manifest:
    """One that has been checked, except for its tree: `capture.weights` does that while it reads."""

    tree: Any
    tensors: tuple[Stored, ...]
    pickles: tuple[Pickled, ...]
    left_out: tuple[Mapping[str, str], ...] = ()
    partial: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "tree": self.tree,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "pickles": [{"name": each.name, "object": each.object.digest} for each in self.pickles],
            "objects": {ref.digest: ref.size for ref in self.refs()},
            "left_out": list(self.left_out),
            "partial": self.partial,
        }

    def refs(self) -> Iterator[Ref]:
        """The objects that it needs, some of them several times."""
        yield from (tensor.object for tensor in self.tensors)
        yield from (pickled.object for pickled in self.pickles)

    @classmethod
    def of(cls, plain: Any) -> Manifest:
        """Read what `to_json` has written. Raises `ObjectCorrupt` for what makes no sense, and `StoreTooNew`."""
        with understanding():
            if not isinstance(plain, Mapping):
                raise Malformed("not an object")
            version = plain.get("format")
            if type(version) is int and version > FORMAT:
                raise StoreTooNew(
                    f"these weights have format {version}; this numb reads up to {FORMAT}", "pip install -U numb"
                )
            if version != FORMAT:
                raise Malformed(f"no such format: {shown(str(version))}")
            sizes = plain["objects"]
            tensors = tuple(_stored(raw, sizes) for raw in plain["tensors"])
            pickles = tuple(_pickled(raw, sizes) for raw in plain["pickles"])
            _check_tree(plain["tree"], len(tensors), len(pickles))
            return cls(plain["tree"], tensors, pickles, tuple(plain.get("left_out", ())), plain.get("partial"))

    def named(self) -> dict[str, Stored]:
        """The tensors by their names in the state, from the outermost key inwards; a tied one has several."""
        kinds = ("tensor", "array", "scalar")
        return {name: self.tensors[number] for name, kind, number in self._leaves() if kind in kinds}

    def named_pickles(self) -> dict[str, Pickled]:
        """What is kept as a file of torch's, sparse tensors for one, by name."""
        return {name: self.pickles[number] for name, kind, number in self._leaves() if kind == "pickle"}

    def _leaves(self) -> Iterator[tuple[str, str, int]]:
        """What is kept beside the tree: name, kind and number."""
        waiting: list[tuple[str, Any]] = [("", self.tree)]
        while waiting:
            name, node = waiting.pop()
            match node:
                case (
                    {"tensor": int(number)} | {"array": int(number)} | {"scalar": int(number)} | {"pickle": int(number)}
                ):
                    yield name, next(iter(node)), number
                case list() as items:
                    waiting += [(f"{name}/{place}", item) for place, item in reversed(list(enumerate(items)))]
                case {"tuple": list(items)}:
                    waiting += [(f"{name}/{place}", item) for place, item in reversed(list(enumerate(items)))]
                case {"dict": list(pairs)} | {"ordered": list(pairs)}:
                    named = [(self._word(key), item) for key, item in pairs]
                    waiting += [(f"{name}/{word}" if name else word, item) for word, item in reversed(named)]

    def _word(self, key: Any) -> str:
        """A key as a person would write it."""
        match key:
            case {"scalar": int(number)}:
                return self.tensors[number].name.rpartition("/")[2]
            case {"tuple": list(parts)}:
                return f"({', '.join(map(self._word, parts))})"
            case {"int": str(digits)}:
                return str(int(digits, 16))
        return str(key)

    def parts(self) -> dict[str, Manifest]:
        """A manifest for each part of a state of several, by name."""
        pairs = self.tree.get("ordered") or self.tree.get("dict") or ()
        whole = {
            str(name): node if _tag(node) in ("dict", "ordered") else {"dict": [[name, node]]} for name, node in pairs
        }
        return {name: Manifest(tree, self.tensors, self.pickles) for name, tree in whole.items()}

    def only(self, names: Sequence[str]) -> Manifest:
        """One of these tensors alone, by name; what else the state has is left out."""
        there = self.named()
        tensors = tuple(there[name] for name in names)
        return Manifest({"ordered": [[name, {"tensor": n}] for n, name in enumerate(names)]}, tensors, ())

    def summary(self) -> dict[str, int]:
        """How many tensors there are, and how many bytes they take, tied ones counted once."""
        return {
            "tensors": sum(1 for each in _walk(self.tree) if _tag(each) == "tensor"),
            "bytes": sum(tensor.nbytes for tensor in self.tensors),
        }


def joined(manifests: Mapping[str, Manifest]) -> Manifest:
    """One manifest of several states, by name."""
    pairs: list[list[Any]] = []
    tensors: list[Stored] = []
    pickles: list[Pickled] = []
    for name, manifest in manifests.items():
        pairs.append([name, _shifted(manifest.tree, {"pickle": len(pickles)}, len(tensors))])
        tensors += manifest.tensors
        pickles += manifest.pickles
    partial = next((manifest.partial for manifest in manifests.values() if manifest.partial), None)
    return Manifest({"ordered": pairs}, tuple(tensors), tuple(pickles), (), partial)


def _shifted(node: Any, by_tag: Mapping[str, int], other: int) -> Any:
    """The same tree, whose numbers count in longer lists."""
    if isinstance(node, list):
        return [_shifted(item, by_tag, other) for item in node]
    tag = _tag(node)
    if tag in _INDEXES:
        return {tag: node[tag] + by_tag.get(tag, other)}
    if tag in ("tuple", "dict", "ordered"):
        return {**node, tag: _shifted(node[tag], by_tag, other)}
    return node


def _stored(raw: Any, sizes: Any) -> Stored:
    match raw:
        case {
            "name": str(name),
            "dtype": str(dtype),
            "shape": list(shape),
            "object": str(digest),
            "offset": int(offset),
            "nbytes": int(nbytes),
            **rest,
        } if all(map(_is_length, (*shape, offset, nbytes))):
            ref = Ref(digest, _size(sizes, digest))
            if offset + nbytes > ref.size:
                raise Malformed(f"{shown(name)} is not within its object")
            hashed, strides = rest.get("hash", digest), rest.get("strides")
            if not isinstance(hashed, str) or (hashed == digest and (offset, nbytes) != (0, ref.size)):
                raise Malformed(f"{shown(name)} has no hash of its own")
            if strides is not None and strides not in ([*map(int, _dense(shape, strides))],):
                raise Malformed(f"{shown(name)} does not lie densely in memory")
            return Stored(
                name, dtype, tuple(shape), ref, offset, nbytes, hashed, None if strides is None else tuple(strides)
            )
    raise Malformed(f"not a tensor: {shown(str(raw))}")


def _pickled(raw: Any, sizes: Any) -> Pickled:
    match raw:
        case {"name": str(name), "object": str(digest)}:
            return Pickled(name, Ref(digest, _size(sizes, digest)))
    raise Malformed(f"not a pickle: {shown(str(raw))}")


def _dense(shape: list[int], strides: Any) -> list[int]:
    """The strides of a tensor of this *shape* without a gap, whose dimensions lie in memory in the order of *strides*."""
    if not isinstance(strides, list) or len(strides) != len(shape) or not all(map(_is_length, strides)):
        return [-1]
    order = sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis))
    dense, step = list(strides), 1
    for axis in reversed(order):
        if shape[axis] != 1:  # where the stride says nothing
            dense[axis] = step
        step *= shape[axis]
    return dense


def _is_length(number: Any) -> bool:
    return type(number) is int and 0 <= number < 1 << 62


def _size(sizes: Any, digest: str) -> int:
    size = sizes[digest]
    if not _is_length(size):
        raise Malformed(f"object {shown(digest)} has no size")
    return int(size)


# The tree

_INDEXES = ("tensor", "array", "scalar", "pickle")


def _tag(node: Any) -> str | None:
    return next(iter(node)) if isinstance(node, dict) and node else None


def _check_tree(tree: Any, tensors: int, pickles: int) -> None:
    if _tag(tree) not in ("dict", "ordered"):
        raise Malformed("its tree is no dictionary")
    for node in _walk(tree):
        match node:
            case {"tensor": index} | {"array": index} | {"scalar": index} if len(node) == 1:
                if not _is_length(index) or index >= tensors:
                    raise Malformed(f"there is no tensor {shown(str(index))}")
            case {"pickle": index} if len(node) == 1:
                if not _is_length(index) or index >= pickles:
                    raise Malformed(f"there is no pickle {shown(str(index))}")


def _walk(tree: Any) -> Iterator[Any]:
    """Every node. Raises `Malformed` for what is none, and where it is nested too deep."""
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > DEEPEST:
            raise Malformed(f"nested more than {DEEPEST} levels deep")
        yield node
        match node:
            case None | bool() | int() | float() | str():
                pass
            case list() as items:
                waiting += [(item, depth + 1) for item in items]
            case {"tuple": list(items)} if len(node) == 1:
                waiting += [(item, depth + 1) for item in items]
            case {"dict": list(pairs)} | {"ordered": list(pairs)} if node.keys() - {"metadata"} in (
                {"dict"},
                {"ordered"},
            ):
                if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
                    raise Malformed(f"not pairs: {shown(str(pairs))}")
                metadata = node.get("metadata", {})
                if not isinstance(metadata, dict) or not all(isinstance(value, dict) for value in metadata.values()):
                    raise Malformed("its metadata are not those of modules")
                waiting += [(part, depth + 1) for pair in pairs for part in pair]
            case {"int": str(digits)} if len(node) == 1:
                int(digits, 16)
            case {"float": "nan" | "inf" | "-inf"} | {"absent": str()} if len(node) == 1:
                pass
            case dict() if len(node) == 1 and _tag(node) in _INDEXES:
                pass
            case _:
                raise Malformed(f"not a value: {shown(str(node))}")


class NotPlain(Exception):
    """A value is none of those that a manifest can spell."""


def spelled(value: Any) -> Any:
    """A value without parts as the tree has it; of exactly these types, for a subclass of float would come back as a float."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if abs(value) < 1 << 53 else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is str and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    raise NotPlain


def is_json(value: Any) -> bool:
    """Whether a value comes back equal from JSON."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


@contextmanager
def understanding() -> Iterator[None]:
    """Say `ObjectCorrupt` of what in a manifest, or in what torch makes of it, cannot be."""
    try:
        yield
    except (Malformed, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ObjectCorrupt(f"the record of these weights cannot be used: {reason}", "numb doctor") from error


# Words


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def some(names: list[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def shown(name: str) -> str:
    cut = name if len(name) <= 80 else f"{name[:79]}…"
    return cut if cut.isprintable() else repr(cut)
