"""State dicts out of live modules, and back into them.

A state dict becomes a manifest (`capture.manifest`), plain JSON that names objects. A tensor of 1 MiB or more is an object
of its own; smaller ones that are new are packed together into one, so that a small network is one file. Either way a tensor
that did not change costs nothing the second time. Numbers are little-endian. Everything read is checked: bytes by their hash
before torch sees them, and every number of the manifest, which may come from elsewhere, before it is used. No code that a
manifest or an object brings is ever run.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import math
import os
import re
import stat
import sys
import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic
from numb.capture.manifest import (
    DEEPEST,
    Malformed,
    Manifest,
    NotPlain,
    Pickled,
    Stored,
    first_line,
    is_json,
    shown,
    some,
    spelled,
    understanding,
)
from numb.errors import Refused, StorageFailed
from numb.store.objects import Objects, Ref, Saving, hash_of
from numb.store.parts import Part, Parts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_PACKED_BELOW = 1 << 20
_HASHED_TOGETHER = 32 << 20  # bytes: copies of them may have been made
_THREADS = 4  # which hash, at most: the cores are for the training
_ALONE_BELOW = 1 << 20  # bytes that are hashed before another thread has begun
_PACK_LIMIT = 8 << 20  # so that one tensor still in use does not keep much else alive
_ALIGNMENT = 64
_VALUE_LIMIT = 4096  # characters; the record of a run stays one that a person can read
_MOST_NODES = 1_000_000  # of a value in the manifest
_WRAPPERS = ("module.", "_orig_mod.")
_SHARDS = {"DTensor", "ShardedTensor"}


class StateMismatch(Refused):
    """The entries of a state dict are not those of the model."""


class _LeftOut(ValueError):
    """Why an entry cannot be kept, or not be read."""


def plain_keys(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """The same state dict with the keys that the model has without wrappers around it.

    `module.` (DataParallel, DDP) and `_orig_mod.` (torch.compile) are dropped where every key begins with them, and
    `_orig_mod.` within a key too, because only part of a model may be compiled. Nothing is copied.
    """
    names = _plain_names([str(name) for name in state])
    plain = OrderedDict((names[str(name)], value) for name, value in state.items())
    if metadata := _plain_metadata(state):
        plain._metadata = metadata  # type: ignore[attr-defined]
    return plain


def save(state: Mapping[str, Any], objects: Objects) -> dict[str, Any]:
    """Keep a module's state dict and return its manifest; its bytes are on the disk when this returns.

    Neither the state nor the random state changes. An entry that cannot be kept is named in `left_out` and does not
    stop the others; if it is a tensor (a shard, or one that its device no longer gives), `partial` says so. Raises
    `StorageFailed`.
    """
    return Saver(objects).save(plain_keys(state)).to_json()


def read(manifest: Mapping[str, Any], objects: Objects) -> OrderedDict[str, Any]:
    """The state that *manifest* describes, in main memory, tied tensors tied. Files are mapped, not copied.

    Raises `ObjectMissing`; `ObjectCorrupt` for damaged bytes and for a manifest that makes no sense; `StoreTooNew`.
    """
    return Reading(Manifest.of(manifest), objects).all()


def checksums(state: Mapping[str, Any]) -> dict[str, int]:
    """A number for each tensor of a state dict, another one when its bytes, dtype or shape are other ones.

    For noticing a change, not for naming bytes, and cheaper than the hash that does. A tensor whose numbers are not here
    (a shard) has none. Nothing is written, and one tensor at a time is copied from its device.
    """
    import torch

    found = {}
    for name, value in plain_keys(state).items():
        if isinstance(value, torch.Tensor):
            try:
                with torch._C.DisableTorchFunction():
                    taken = _in_main_memory(value) if _is_plain(value) else _pickled(value)
            except Exception:  # as in `add_tensor`
                continue
            kind = f"{value.dtype} {tuple(value.shape)}".encode()
            found[name] = zlib.crc32(taken if isinstance(taken, bytes) else _bytes_of(taken), zlib.crc32(kind))
    return found


@dataclass(frozen=True, slots=True)
class Fit:
    """Which entries of a saved state a model has taken, and which not, by the model's names without wrappers."""

    loaded: tuple[str, ...] = ()
    not_in_checkpoint: tuple[str, ...] = ()
    not_in_model: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()  # with what they are here and there

    @property
    def is_whole(self) -> bool:
        return not (self.not_in_checkpoint or self.not_in_model or self.mismatched)

    def __str__(self) -> str:
        faults = {"missing": self.not_in_checkpoint, "unexpected": self.not_in_model, "different": self.mismatched}
        return "; ".join(f"{len(names)} {fault}: {some(list(names))}" for fault, names in faults.items() if names)


def fit(
    model: torch.nn.Module,
    state: Mapping[str, Any],
    rename: Mapping[str, str] | None = None,
    only: str | None = None,
) -> Fit:
    """How a saved state fits a model; nothing is changed. The arguments are those of `load_into`."""
    there, here = _sides(model, state, rename, only)
    common = [name for name in there if name in here]
    fitting = {name for name in common if _fits(name, there[name], here[name])}
    different = [
        f"{shown(name)} is {_described(there[name])} in the model and {_described(here[name])} in the weights"
        for name in common
        if name not in fitting
    ]
    return Fit(
        tuple(name for name in common if name in fitting),
        tuple(shown(name) for name in there if name not in here),
        tuple(shown(name) for name in here if name not in there),
        tuple(different),
    )


def load_into(
    model: torch.nn.Module,
    state: Mapping[str, Any],
    *,
    strict: bool = True,
    rename: Mapping[str, str] | None = None,
    only: str | None = None,
) -> Fit:
    """Copy *state* into the model's own tensors, whose devices, dtypes and identities stay.

    *rename* gives entries of the state the names that the model has for them; a key that ends with a dot is a prefix. *only*
    is a regular expression: entries in whose (new) names it finds nothing are passed over on both sides. Raises
    `StateMismatch`, which names all that is missing, unexpected or of another shape, before anything is changed; where
    that is not *strict*, what has the same name and shape is loaded. The random state stays as it is.
    """
    fitting = fit(model, state, rename, only)
    if strict and not fitting.is_whole:
        raise StateMismatch(f"the saved weights do not fit the model: {fitting}", "numb list shows each architecture")
    here = _sides(model, state, rename, only)[1]
    there = list(model.state_dict())
    names = _plain_names(there)
    loaded = set(fitting.loaded)
    wrapped = OrderedDict((name, here[plain]) for name, plain in names.items() if plain in loaded)
    metadata, front = _plain_metadata(state), _front(there)
    plain_modules = {name: _plain_module(front, name) for name, _ in model.named_modules()}
    wrapped._metadata = {  # type: ignore[attr-defined]
        name: metadata[plain] for name, plain in plain_modules.items() if plain in metadata
    }
    try:
        model.load_state_dict(wrapped, strict=len(wrapped) == len(there))
    except Exception as error:  # torch's, and what the modules' own methods raise
        raise StateMismatch(f"the model does not take the saved weights: {first_line(error)}") from error
    return fitting


def copied(value: Any) -> Any:
    """A copy of a state that nobody else changes: its tensors in main memory, tied ones tied, and its containers.

    What is neither is kept as it is.
    """
    import torch

    with torch.no_grad(), torch._C.DisableTorchFunction():
        return _copied(value, {}, DEEPEST)


def _copied(value: Any, known: dict[tuple[Any, ...], Tensor], depth: int) -> Any:
    import torch

    kind = type(value)
    if isinstance(value, torch.Tensor):
        try:
            if not _is_plain(value):
                return value.clone()
            place = _place(value)
        except _LeftOut:
            return value  # whose numbers are not here: `Saver` says so
        if place in known:
            return known[place]
        if kind in (torch.Tensor, torch.nn.Parameter) and value.is_cpu and not (value.is_complex() or value.is_neg()):
            taken = _cloned(value)  # the usual one: here is where a training waits
        elif (taken := _in_main_memory(value)).data_ptr() == value.data_ptr():
            taken = _cloned(taken)
        if place is not None:
            known[place] = taken
        return taken
    if depth and kind in (list, tuple):
        return kind(_copied(item, known, depth - 1) for item in value)
    if depth and kind is dict:
        return {key: _copied(item, known, depth - 1) for key, item in value.items()}
    if depth and kind is OrderedDict:
        state = OrderedDict((key, _copied(item, known, depth - 1)) for key, item in value.items())
        if metadata := _metadata(value):
            state._metadata = metadata  # type: ignore[attr-defined]
        return state
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # the user's own methods: `Saver` says what cannot be kept
        return value


def export(state: Mapping[str, Any], pt: Path, safetensors: Path) -> list[str]:
    """Write a state dict to *pt*, for `torch.load`, and to *safetensors*; return what the second could not hold.

    Each file appears whole or not at all. Raises `StorageFailed`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors, notes = _for_safetensors(state)
    export_value(state, pt)
    try:
        with atomic.replacing(safetensors) as file:
            save_file(tensors, file, metadata={"format": "pt"})
            file.chmod(stat.S_IMODE(pt.stat().st_mode))  # safetensors makes it 0600, whatever the umask
    except SafetensorError as error:
        raise _unwritten(safetensors, error) from error
    return notes


def export_value(value: Any, path: Path) -> None:
    """Write tensors, nested as they are, for `torch.load`; arrays become tensors, for it reads none. Raises `StorageFailed`."""
    import torch

    try:
        with atomic.replacing(path) as file:
            torch.save(_without_numpy(value), file)
    except RuntimeError as error:
        raise _unwritten(path, error) from error


def _without_numpy(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    kind = type(value)
    if numpy and kind is numpy.ndarray:
        return _of_numpy(value)
    if _is_scalar(value):
        return value.item()
    if kind in (list, tuple):
        return kind(map(_without_numpy, value))
    if kind is dict:
        return {_without_numpy(key): _without_numpy(item) for key, item in value.items()}
    return value


def _unwritten(path: Path, error: Exception) -> StorageFailed:
    import shutil  # for the message alone

    free = shutil.disk_usage(path.parent).free
    return StorageFailed(f"cannot write {path}: {first_line(error)}, and {free} bytes are free", f"df -h {path.parent}")


def summary(manifest: Mapping[str, Any]) -> dict[str, int]:
    """How many tensors there are, and how many bytes they take, tied ones counted once; torch is not needed."""
    return Manifest.of(manifest).summary()


class Saver:
    """Keeps states, one after another; what did not change since an earlier one is not written again."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._parts = Parts(objects)

    def save(self, state: Mapping[str, Any], *, private: bool = False) -> Manifest:
        """Keep a state: nested dictionaries, lists and tuples of tensors, arrays and plain values.

        Where it is *private*, nobody changes its tensors meanwhile, and they are not copied. Errors are those of `save`.
        """
        self._parts.look_again()
        with self._objects.saving() as saving:
            return _Saving(self._objects, saving, self._parts, private).manifest(state)


@dataclass(slots=True)
class _Pack:
    """Small tensors on their way into one object."""

    chunks: list[memoryview | bytes] = field(default_factory=list)
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict)  # and sizes, by hash
    size: int = 0

    def add(self, hashed: str, content: memoryview) -> None:
        padding = -self.size % _ALIGNMENT
        self.chunks += [bytes(padding), content]
        self.offsets[hashed] = self.size + padding, content.nbytes
        self.size += padding + content.nbytes


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is known of a tensor before it has a place."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None

    def at(self, part: Part, hashed: str) -> Stored:
        return Stored(self.name, self.dtype, self.shape, part.object, part.offset, part.nbytes, hashed, self.strides)


class _Saving:
    """One state on its way into objects."""

    def __init__(self, objects: Objects, saving: Saving, parts: Parts, private: bool) -> None:
        self._objects, self._saving, self._parts, self._private = objects, saving, parts, private
        self._tensors: list[_Shape] = []
        self._hashes: list[str] = []  # of the same
        self._waiting: dict[int, memoryview] = {}  # by the numbers of tensors whose hashes are to be found together
        self._waits_for = 0  # bytes of them
        self._places: dict[str, Part | None] = {}  # by hash; None while it waits in the pack
        self._pack = _Pack()
        self._pickles: list[Pickled] = []
        self._numbers: dict[tuple[Any, ...], int] = {}  # of tensors, by where their memory is
        self._left_out: list[dict[str, str]] = []
        self._seen = 0
        self._missing: list[str] = []

    def manifest(self, state: Mapping[str, Any]) -> Manifest:
        pairs = []
        for key, value in state.items():
            try:
                pairs.append([str(key), self._entry(value, str(key))])
            except _LeftOut as error:
                self._leave_out(str(key), error)
        metadata = _metadata(state)
        tree = {"ordered": pairs, **({"metadata": metadata} if metadata else {})}
        self._settle()
        self._flush()
        placed = zip(self._tensors, self._hashes, strict=True)
        tensors = tuple(shape.at(part, hashed) for shape, hashed in placed if (part := self._places[hashed]))
        return Manifest(tree, tensors, tuple(self._pickles), tuple(self._left_out), self._partial())

    def _partial(self) -> str | None:
        if not self._missing:
            return None
        return f"{len(self._missing)} of {self._seen} tensors could not be saved: {some(self._missing)}"

    def _leave_out(self, name: str, error: Exception) -> None:
        self._left_out.append({"name": name, "reason": _reason(error)})

    # -- the tree

    def _entry(self, value: Any, name: str) -> Any:
        """A value by its name: in the manifest if that has words for it, else in a file that torch reads."""
        if _can_be_spelled(value):
            before = len(self._tensors), len(self._pickles)
            try:
                found = self._spelled(value, name)
                if before != (len(self._tensors), len(self._pickles)) or len(json.dumps(found)) <= _VALUE_LIMIT:
                    return found
                with suppress(_LeftOut):
                    return self._pickle(_pickled(value), name)  # a long list, say: out of the record
                return found
            except NotPlain:
                pass
        return self._pickle(_pickled(value), name)

    def _spelled(self, value: Any, name: str) -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            return self._tensor(value, name)
        kind = type(value)
        if kind is list:
            return [self._part(item, f"{name}/{number}") for number, item in enumerate(value)]
        if kind is tuple:
            return {"tuple": [self._part(item, f"{name}/{number}") for number, item in enumerate(value)]}
        if kind is dict:
            return {"dict": [[self._key(key, name), self._part(item, f"{name}/{key}")] for key, item in value.items()]}
        if kind is OrderedDict:
            pairs = [[self._key(key, name), self._part(item, f"{name}/{key}")] for key, item in value.items()]
            metadata = _metadata(value)
            return {"ordered": pairs, **({"metadata": metadata} if metadata else {})}
        numpy = sys.modules.get("numpy")
        if numpy and kind is numpy.ndarray:
            return {"array": self._numbered(_of_numpy(value), name)}
        if _is_scalar(value):
            return {"scalar": self._numbered(_of_numpy(value), name)}
        return spelled(value)

    def _key(self, key: Any, name: str) -> Any:
        if type(key) is tuple:
            return {"tuple": [self._key(part, name) for part in key]}
        return {"scalar": self._numbered(_of_numpy(key), f"{name}/{key}")} if _is_scalar(key) else spelled(key)

    def _part(self, value: Any, name: str) -> Any:
        try:
            return self._spelled(value, name)
        except NotPlain:
            pass
        except _LeftOut as error:
            self._leave_out(name, error)
            return {"absent": _reason(error)}
        try:
            return self._pickle(_pickled(value), name)
        except _LeftOut as error:
            self._leave_out(name, error)
            return {"absent": _reason(error)}

    def _pickle(self, content: bytes, name: str) -> dict[str, int]:
        self._pickles.append(Pickled(name, self._saving.put([content])))
        return {"pickle": len(self._pickles) - 1}

    # -- tensors

    def _tensor(self, tensor: Tensor, name: str) -> dict[str, int]:
        import torch

        self._seen += 1
        try:
            with torch._C.DisableTorchFunction():  # neither the tensor's class nor a mode of the user's sees us look
                plain = _is_plain(tensor)
                place = _place(tensor) if plain else None
                if place in self._numbers:
                    return {"tensor": self._numbers[place]}
                taken = _in_main_memory(tensor) if plain else _pickled(tensor)
                steady = self._private or isinstance(taken, bytes) or taken.data_ptr() != tensor.data_ptr()
        except Exception as error:  # an assert on the device, a class of the user's: the others are still to be saved
            self._missing.append(f"{name} ({_reason(error)})")
            raise _LeftOut(_reason(error)) from error
        if isinstance(taken, bytes):
            return self._pickle(taken, name)
        number = self._numbered(taken, name, steady=steady)
        if place is not None:
            self._numbers[place] = number
        return {"tensor": number}

    def _numbered(self, taken: Tensor, name: str, *, steady: bool = True) -> int:
        """Keep a plain tensor in main memory; one that is not *steady* is the user's own, who may be training on it."""
        flat, strides = _as_it_lies(taken)
        if not steady and (copy := _copy(flat)) is not None:
            flat, steady = copy, True
        content, number = _bytes_of(flat), len(self._tensors)
        dtype = str(taken.dtype).removeprefix("torch.")
        self._tensors.append(_Shape(name, dtype, tuple(taken.shape), strides))
        self._hashes.append("")
        if not steady:  # too large for a copy: written as it is read
            ref = self._objects.put(content)
            self._hashes[number] = ref.digest
            self._places[ref.digest] = Part(ref, 0, ref.size)
            return number
        self._waiting[number] = content
        self._waits_for += content.nbytes
        if self._waits_for >= _HASHED_TOGETHER:
            self._settle()
        return number

    def _settle(self) -> None:
        """Keep the tensors that wait."""
        waiting, self._waiting, self._waits_for = self._waiting, {}, 0
        for (number, content), hashed in zip(waiting.items(), _hashes_of(list(waiting.values())), strict=True):
            self._hashes[number] = hashed
            self._keep(hashed, content)

    def _keep(self, hashed: str, content: memoryview) -> None:
        if hashed in self._places:
            return
        if content.nbytes >= _PACKED_BELOW:
            ref = self._saving.put([content], Ref(hashed, content.nbytes))
            self._places[hashed] = Part(ref, 0, ref.size)
            return
        if (part := self._parts.find(hashed, content.nbytes)) is not None:
            self._places[hashed] = part
            return
        if self._pack.size + content.nbytes > _PACK_LIMIT:
            self._flush()
        self._places[hashed] = None
        self._pack.add(hashed, content)

    def _flush(self) -> None:
        pack, self._pack = self._pack, _Pack()
        if not pack.offsets:
            return
        ref = self._saving.put(pack.chunks)
        for hashed, (offset, nbytes) in pack.offsets.items():
            self._places[hashed] = Part(ref, offset, nbytes)
        self._parts.add(ref, [(hashed, *place) for hashed, place in pack.offsets.items()])


class Reading:
    """A state out of objects, each byte of which is compared before it becomes a number."""

    def __init__(self, manifest: Manifest, objects: Objects) -> None:
        self._manifest, self._objects = manifest, objects
        self._mapped: dict[Ref, memoryview] = {}
        self._tensors: list[Tensor] = []
        self._pickles: dict[int, Any] = {}

    def all(self) -> OrderedDict[str, Any]:
        """Everything, under the names that it had."""
        tree = self._manifest.tree
        with understanding():
            self._tensors = self._read(self._manifest.tensors)
            found = self._value(tree)
            if any(not isinstance(name, str) for name in found):
                raise Malformed("a name that is none")
            state = OrderedDict(found)
            if metadata := tree.get("metadata"):
                state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
            return state

    def _read(self, tensors: Sequence[Stored]) -> list[Tensor]:
        """Tensors on the mapped files, after their hashes have been compared."""
        import torch

        dtypes = [_dtype(stored) for stored in tensors]
        contents: dict[tuple[str, int, int], memoryview] = {}
        for stored in tensors:
            if stored.nbytes and (key := _where(stored)) not in contents:
                contents[key] = self._map(stored.object)[stored.offset : stored.offset + stored.nbytes]
        hashes = {(_where(each), each.hash) for each in tensors if each.nbytes}
        found_out = _hashes_of([contents[where] for where, _ in hashes])
        for (where, hashed), real in zip(hashes, found_out, strict=True):
            self._objects.refuse_other_hash(real, hashed, where[0], where[2])
        found, taken = [], set()
        for stored, dtype in zip(tensors, dtypes, strict=True):
            if not stored.nbytes:
                found.append(torch.empty(stored.shape, dtype=dtype, device="cpu"))
                continue
            key = _where(stored)
            content = bytearray(contents[key]) if key in taken else contents[key]  # equal numbers, in memory of its own
            taken.add(key)
            flat = torch.frombuffer(content, dtype=torch.uint8).view(dtype)
            if stored.strides is None:
                found.append(flat.reshape(stored.shape))
            else:
                found.append(flat.as_strided(stored.shape, stored.strides))
        return found

    def _map(self, ref: Ref) -> memoryview:
        """The file of an object as memory of our own: what is written to it stays here. No descriptor stays open."""
        import torch

        if ref not in self._mapped:
            with self._objects.opened(ref.digest, ref.size) as fd:
                storage = torch.UntypedStorage.from_file(f"/dev/fd/{fd}", shared=False, nbytes=ref.size)
            content = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)  # type: ignore[arg-type]
            self._mapped[ref] = _bytes_of(content)
        return self._mapped[ref]

    def _value(self, node: Any) -> Any:
        match node:
            case list():
                return [self._value(item) for item in node]
            case {"dict": pairs}:
                return {self._value(key): self._value(item) for key, item in pairs if not _is_absent(item)}
            case {"ordered": pairs}:
                state = OrderedDict(
                    (self._value(key), self._value(item)) for key, item in pairs if not _is_absent(item)
                )
                if metadata := node.get("metadata"):
                    state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
                return state
            case {"tuple": items}:
                return tuple(self._value(item) for item in items)
            case {"tensor": number}:
                return self._tensors[number]
            case {"array": number}:
                return self._tensors[number].numpy()
            case {"scalar": number}:
                return self._tensors[number].numpy()[()]
            case {"pickle": number}:
                return self._unpickled(number)
            case {"int": digits}:
                return int(digits, 16)
            case {"float": word}:
                return float(word)
            case {"absent": _}:
                return None
        return node

    def _unpickled(self, number: int) -> Any:
        if number not in self._pickles:
            pickled = self._manifest.pickles[number]
            content = self._objects.open_verified(pickled.object.digest, pickled.object.size)
            try:
                self._pickles[number] = unpickled(content)
            except _LeftOut as error:
                raise Malformed(f"{shown(pickled.name)} cannot be read: {error}") from error
        return self._pickles[number]


def _where(stored: Stored) -> tuple[str, int, int]:
    return stored.object.digest, stored.offset, stored.nbytes


def _is_absent(node: Any) -> bool:
    return isinstance(node, dict) and "absent" in node


def _hashes_of(contents: Sequence[memoryview]) -> list[str]:
    """The hash of each, by several threads, all of which have ended when this returns: a fork finds none.

    Plain threads: an executor takes nothing any more when the interpreter is ending, which is when last weights are saved.
    """
    found = [""] * len(contents)
    numbers = itertools.count()
    errors: list[BaseException] = []

    def go() -> None:
        try:
            while (number := next(numbers)) < len(contents) and not errors:
                found[number] = hash_of(contents[number])
        except BaseException as error:
            errors.append(error)

    threads = []
    if len(contents) > 1 and sum(content.nbytes for content in contents) >= _ALONE_BELOW:
        for _ in range(min(len(contents), _THREADS, os.cpu_count() or 1) - 1):
            thread = threading.Thread(target=go, name="numb-hash", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # none can be started any more: alone, then
                break
            threads.append(thread)
    go()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


# Keys


def _plain_names(names: list[str]) -> dict[str, str]:
    front = _front(names)
    plain = {name: _without(front, name) for name in names}
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in names}


def _front(names: list[str]) -> str:
    front = ""
    while wrapper := next((w for w in _WRAPPERS if names and all(n.startswith(front + w) for n in names)), None):
        front += wrapper
    return front


def _without(front: str, name: str) -> str:
    return ".".join(part for part in name.removeprefix(front).split(".") if part != "_orig_mod")


def _plain_module(front: str, name: str) -> str:
    return _without(front, f"{name}.").removesuffix(".")


def _metadata(state: Mapping[Any, Any]) -> dict[str, Any]:
    """What torch keeps about each module (the version of its format), by the module's name."""
    metadata = getattr(state, "_metadata", None)
    if not isinstance(metadata, dict):
        return {}
    return {str(name): dict(value) for name, value in metadata.items() if isinstance(value, dict) and is_json(value)}


def _plain_metadata(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same by the modules' names without wrappers."""
    front = _front([str(name) for name in state])
    return {_plain_module(front, name): value for name, value in _metadata(state).items()}


# Tensors


def _place(tensor: Tensor) -> tuple[Any, ...] | None:
    """Where the numbers of a tensor are and how they are read: equal for tensors that are tied."""
    if not tensor.numel():
        return None
    start = tensor.untyped_storage().data_ptr()
    view = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return tensor.device, start, tensor.dtype, *view


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is what its shape, dtype and bytes say; raises `_LeftOut` if its numbers are not here."""
    import torch

    is_shard, is_lazy, is_dispatched = _facts_of(type(tensor))
    if is_shard or hasattr(tensor, "ds_shape"):
        raise _LeftOut(f"a shard, {type(tensor).__name__}, of {_rank()}")
    if is_lazy:
        raise _LeftOut("a lazy parameter, not initialised yet")
    if tensor.is_meta:
        raise _LeftOut("on the meta device, without numbers")
    is_one_block = tensor.layout is torch.strided and not tensor.is_nested
    return is_one_block and not tensor.is_quantized and not is_dispatched


@cache
def _facts_of(kind: type[Tensor]) -> tuple[bool, bool, bool]:
    """Whether tensors of a class are shards, lazy, and computed by what the class says."""
    import torch
    from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

    is_shard = bool(_SHARDS & {base.__name__ for base in kind.__mro__})
    is_dispatched = kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return is_shard, issubclass(kind, (UninitializedBuffer, UninitializedParameter)), is_dispatched


def _in_main_memory(tensor: Tensor) -> Tensor:
    import torch

    return tensor.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg()


def _as_it_lies(tensor: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
    """A contiguous tensor with the same memory, and the strides that the given one has on it where they are not the usual.

    One with gaps or overlaps is copied.
    """
    import torch

    if tensor.is_contiguous():
        return tensor, None
    strides = tensor.stride()
    lying = tensor.permute(sorted(range(tensor.dim()), key=lambda axis: (-strides[axis], axis)))
    if lying.is_contiguous() and tensor.numel():
        return lying, tuple(strides)
    return _cloned(tensor, torch.contiguous_format), None


def _cloned(tensor: Tensor, order: torch.memory_format | None = None) -> Tensor:
    """A copy; torch copies numbers of less than a byte only as bytes."""
    import torch

    order = order or torch.preserve_format
    try:
        return tensor.clone(memory_format=order)
    except NotImplementedError:
        return tensor.view(torch.uint8).clone(memory_format=order).view(tensor.dtype)


def _copy(tensor: Tensor) -> Tensor | None:
    try:
        return _cloned(tensor)
    except RuntimeError:  # torch's way to say that there is no memory for it
        return None


def _of_numpy(array: Any) -> Tensor:
    """The same numbers as a tensor. Raises `NotPlain` for what torch has no numbers for."""
    import numpy
    import torch

    try:
        native = numpy.asarray(array).astype(array.dtype.newbyteorder("="), order="C", copy=True)
        return torch.from_numpy(native)
    except (TypeError, ValueError) as error:
        raise NotPlain from error


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor, not a copy, which it keeps alive; needs no numpy."""
    import ctypes

    nbytes = tensor.numel() * tensor.element_size()
    if not nbytes:
        return memoryview(b"")
    memory = (ctypes.c_ubyte * nbytes).from_address(tensor.data_ptr())
    memory.owner = tensor  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")


def _rank() -> str:
    return f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', 'several')}"


def _dtype(stored: Stored) -> torch.dtype:
    import torch

    dtype = getattr(torch, stored.dtype, None)
    if str(dtype) != f"torch.{stored.dtype}" or not isinstance(dtype, torch.dtype) or stored.dtype.startswith("q"):
        raise Malformed(f"{shown(stored.name)} is of an unknown dtype, {shown(stored.dtype)}")
    if stored.nbytes != math.prod(stored.shape) * dtype.itemsize:
        raise Malformed(f"{shown(stored.name)} cannot have {stored.nbytes} bytes")
    return dtype


# Values


def _is_scalar(value: Any) -> bool:
    """Whether it is one number of NumPy's."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def _check_key(key: Any) -> None:
    """Raise `NotPlain` for one that the tree has no words for."""
    for part in key if type(key) is tuple else (key,):
        _of_numpy(part) if _is_scalar(part) else spelled(part)


def _can_be_spelled(value: Any) -> bool:
    """Whether containers in *value* are neither too deep nor in themselves, and have keys that JSON can say."""
    waiting, left = [(value, DEEPEST - 2)], _MOST_NODES
    while waiting:
        inside, depth = waiting.pop()
        kind = type(inside)
        if kind not in (list, tuple, dict, OrderedDict):
            continue
        left -= len(inside)
        if not depth or left < 0:
            return False
        if kind in (dict, OrderedDict):
            try:
                for key in inside:
                    _check_key(key)
            except NotPlain:
                return False
        items = inside.values() if kind in (dict, OrderedDict) else inside
        waiting += [(item, depth - 1) for item in items]
    return True


def _pickled(value: Any) -> bytes:
    """What `torch.save` writes; raises `_LeftOut` unless it can be read back without running code."""
    import torch

    buffer = io.BytesIO()
    try:
        with _no_warnings():
            torch.save(value, buffer)
    except Exception as error:  # pickle calls the user's own methods, which may raise anything
        raise _LeftOut(f"{type(value).__name__} cannot be pickled: {first_line(error)}") from error
    content = buffer.getvalue()
    if type(unpickled(content)) is not type(value):
        raise _LeftOut(f"{type(value).__name__} comes back as another type")
    return content


def unpickled(content: bytes | bytearray) -> Any:
    """What `torch.load` makes of bytes without running code; torch writes zips that do not grow, and others are refused.

    Raises `ValueError` for what is not read.
    """
    import zipfile

    import torch

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > len(content):
            raise _LeftOut(f"{len(content)} bytes would become {unpacked}")
        with _no_warnings(), torch.device("cpu"):  # a default device of the user's would be taken for sparse tensors
            return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except _LeftOut:
        raise
    except Exception as error:  # hostile bytes make torch's readers raise almost anything
        raise _LeftOut(f"torch.load(weights_only=True) refuses it{_why(error)}") from error


def _why(error: Exception) -> str:
    """What torch does not read as data; else its own first line, unless that is advice to read it all the same."""
    needed = re.search(r"GLOBAL ([\w.]+)", str(error))
    first = first_line(error)
    return f": it needs {needed[1]}" if needed else "" if "weights_only" in first.lower() else f": {first}"


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# Fitting


def _sides(
    model: torch.nn.Module, state: Mapping[str, Any], rename: Mapping[str, str] | None, only: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model has and what the state has, by the model's names without wrappers."""
    there = model.state_dict()
    names = _plain_names(list(there))
    try:
        wanted = re.compile(only or "").search
    except re.error as error:
        raise StateMismatch(f"only={only!r:.80} is no regular expression: {error}", 'only="^backbone"') from None
    mine = {names[name]: value for name, value in there.items() if wanted(names[name])}
    renamed: dict[str, Any] = {}
    came_from: dict[str, str] = {}
    for name, value in plain_keys(state).items():
        new = _renamed(name, rename or {})
        if new in renamed:
            raise StateMismatch(
                f"rename gives {shown(came_from[new])} and {shown(name)} of the checkpoint the same name, {shown(new)}",
                "rename the other one, too",
            )
        renamed[new], came_from[new] = value, name
    return mine, {name: value for name, value in renamed.items() if wanted(name)}


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    if name in rename:
        return rename[name]
    prefixes = [prefix for prefix in rename if prefix.endswith(".") and name.startswith(prefix)]
    longest = max(prefixes, key=len, default=None)
    return name if longest is None else rename[longest] + name[len(longest) :]


def _fits(name: str, there: Any, here: Any) -> bool:
    import torch
    from torch.nn.parameter import is_lazy

    if name.rpartition(".")[2] == "_extra_state" or is_lazy(there):
        return True
    if not isinstance(there, torch.Tensor):
        return True  # the module has put it there, and knows what it takes
    if not isinstance(here, torch.Tensor):
        return False
    both_float = there.is_floating_point() and here.is_floating_point()
    both_complex = there.is_complex() and here.is_complex()
    if there.is_meta or _is_expanded(there) or there.shape != here.shape:
        return False
    return there.dtype == here.dtype or both_float or both_complex


def _is_expanded(tensor: Tensor) -> bool:
    import torch

    if tensor.layout is not torch.strided:
        return False
    return any(length > 1 and step == 0 for length, step in zip(tensor.shape, tensor.stride(), strict=True))


def _described(value: Any) -> str:
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    marks = [mark for mark, on in (("meta", value.is_meta), ("expanded", _is_expanded(value))) if on]
    return " ".join([*marks, str(value.dtype).removeprefix("torch."), str(tuple(value.shape))])


# Exporting


def _for_safetensors(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    import torch

    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    written: set[int] = set()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_quantized:
            notes.append(f"{shown(name)} is not in the safetensors file: it is no plain tensor")
        elif name == "__metadata__" or not _in_safetensors(value.dtype):
            notes.append(f"{shown(name)} is not in the safetensors file: it has no {value.dtype}")
        else:
            tensors[name] = value.clone() if id(value) in written else value
            written.add(id(value))
    return tensors, notes


def _in_safetensors(dtype: torch.dtype) -> bool:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save

    try:
        save({"probe": torch.empty(0, dtype=dtype, device="cpu")})
    except (KeyError, ValueError, SafetensorError):
        return False
    return True


# Words


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _LeftOut) else f"{type(error).__name__}: {first_line(error)}"
