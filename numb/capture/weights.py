"""State dicts out of live modules, and back into them.

A state dict becomes a manifest, plain JSON that names objects. Tensors below 1 MiB are packed together, in order, into
one object, so that a small network is one file; a larger one is an object of its own, so that a layer that did not
change costs nothing the second time:

    {"format": 1,
     "entries": [{"kind": "tensor", "name", "dtype", "shape", "object", "offset", "nbytes"},
                 {"kind": "same", "name", "same_as"},       # shares its memory with an earlier one
                 {"kind": "value", "name", "value"},        # None, bool, int, float, str, list, tuple, dict
                 {"kind": "pickle", "name", "object"}],     # what else torch.load(weights_only=True) reads
     "objects": {digest: size},
     "left_out": [{"name", "reason"}],
     "partial": null or the reason,                         # not null: tensors are missing
     "metadata": {module: {"version": 2}}}

Numbers are little-endian. Everything read is checked: bytes by their hash before torch sees them, and every number of
the manifest, which may come from elsewhere, before it is used. No code that a manifest or an object brings is ever run.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic
from numb.errors import ObjectCorrupt, Refused, StorageFailed, StoreTooNew
from numb.store.objects import Objects, Ref

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1

_BUNDLED_BELOW = 1 << 20
_BUNDLE_LIMIT = 32 << 20  # what copies from a GPU may take in main memory at once
_ALIGNMENT = 64
_VALUE_LIMIT = 4096
_DEEPEST = 16
_NAMED_AT_MOST = 5
_WRAPPERS = ("module.", "_orig_mod.")
_SHARDS = {"DTensor", "ShardedTensor"}


class StateMismatch(Refused):
    """The entries of a state dict are not those of the model."""


@dataclass(frozen=True, slots=True)
class _Stored:
    name: str
    dtype: str
    shape: tuple[int, ...]
    object: Ref
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Same:
    name: str
    same_as: str


@dataclass(frozen=True, slots=True)
class _Value:
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class _Pickled:
    name: str
    object: Ref


_Entry = _Stored | _Same | _Value | _Pickled


class _LeftOut(Exception):
    """Why an entry cannot be kept."""


class _NotPlain(Exception):
    """A value is none of those that a manifest can spell."""


class _Malformed(Exception):
    """Where a manifest is not one."""


def plain_keys(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """The same state dict with the keys that the model has without wrappers around it.

    `module.` (DataParallel, DDP) and `_orig_mod.` (torch.compile) are dropped where every key begins with them, and
    `_orig_mod.` within a key too, because only part of a model may be compiled. Nothing is copied.
    """
    names = _plain_names([str(name) for name in state])
    plain = OrderedDict((names[str(name)], value) for name, value in state.items())
    if metadata := _metadata(state):
        plain._metadata = metadata  # type: ignore[attr-defined]
    return plain


def save(state: Mapping[str, Any], objects: Objects) -> dict[str, Any]:
    """Keep a state dict and return its manifest; its bytes are on the disk when this returns.

    Neither the state nor the random state changes. An entry that cannot be kept is named in `left_out` and does not
    stop the others; if it is a tensor (a shard, or one that its device no longer gives), `partial` says so. Raises
    `StorageFailed`.
    """
    import torch

    saving = _Saving(objects)
    for name, value in plain_keys(state).items():
        if isinstance(value, torch.Tensor):
            saving.add_tensor(name, value)
        else:
            saving.add_value(name, value)
    return saving.manifest(_metadata(state))


def read(manifest: Mapping[str, Any], objects: Objects) -> OrderedDict[str, Any]:
    """The state dict that *manifest* describes, in main memory, tied tensors tied.

    Raises `ObjectMissing`; `ObjectCorrupt` for damaged bytes and for a manifest that makes no sense; `StoreTooNew`.
    """
    with _understanding(manifest):
        entries = _entries(manifest)
    reading = _Reading(objects)
    state: OrderedDict[str, Any] = OrderedDict()
    for entry in entries:
        with _understanding(manifest):
            match entry:
                case _Stored():
                    state[entry.name] = reading.tensor(entry)
                case _Same():
                    state[entry.name] = state[entry.same_as]
                case _Value():
                    state[entry.name] = _decoded(entry.value)
                case _Pickled():
                    state[entry.name] = reading.unpickled(entry)
    if metadata := manifest.get("metadata"):
        state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    return state


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


def load_into(model: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Copy *state* into the model's own tensors, whose devices, dtypes and identities stay.

    Raises `StateMismatch`, which names all that is missing, unexpected or of another shape, before anything is changed.
    The random state stays as it is.
    """
    there, here = model.state_dict(), plain_keys(state)
    names = _plain_names(list(there))
    _refuse_mismatch({names[name]: value for name, value in there.items()}, here)

    wrapped = OrderedDict((name, here[plain]) for name, plain in names.items())
    metadata, front = _metadata(state), _front(list(there))
    plain_modules = {name: _plain_module(front, name) for name, _ in model.named_modules()}
    wrapped._metadata = {  # type: ignore[attr-defined]
        name: metadata[plain] for name, plain in plain_modules.items() if plain in metadata
    }
    try:
        model.load_state_dict(wrapped)
    except RuntimeError as error:
        raise StateMismatch(f"the model does not take the saved weights: {_first_line(error)}") from error


def export(manifest: Mapping[str, Any], objects: Objects, pt: Path, safetensors: Path) -> list[str]:
    """Write the state dict to *pt*, for `torch.load`, and to *safetensors*; return what the second could not hold.

    Each file appears whole or not at all. Raises what `read` raises, and `StorageFailed`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = read(manifest, objects)
    tensors, notes = _for_safetensors(state)
    try:
        with atomic.replacing(pt) as file:
            torch.save(state, file)
        with atomic.replacing(safetensors) as file:
            save_file(tensors, file, metadata={"format": "pt"})
            file.chmod(stat.S_IMODE(pt.stat().st_mode))  # safetensors makes it 0600, whatever the umask
    except (RuntimeError, SafetensorError) as error:
        import shutil  # for the message alone

        needed, free = summary(manifest)["bytes"], shutil.disk_usage(pt.parent).free
        why = f"it takes {needed} bytes, and {free} are free" if needed > free else _first_line(error)
        raise StorageFailed(f"cannot write {pt}: {why}", f"df -h {pt.parent}") from error
    return notes


def summary(manifest: Mapping[str, Any]) -> dict[str, int]:
    """How many tensors there are, and how many bytes they take, tied ones counted once; torch is not needed."""
    with _understanding(manifest):
        entries = _entries(manifest)
    stored = [entry for entry in entries if isinstance(entry, _Stored)]
    tied = [entry for entry in entries if isinstance(entry, _Same)]
    return {"tensors": len(stored) + len(tied), "bytes": sum(entry.nbytes for entry in stored)}


class _Saving:
    """The entries of a state dict on their way into objects."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._entries: dict[str, _Entry | None] = {}
        self._tensors = 0
        self._left_out: list[dict[str, str]] = []
        self._missing: list[str] = []
        self._at: dict[tuple[Any, ...], str] = {}
        self._bundle: list[tuple[str, Tensor, memoryview]] = []
        self._bundled = 0

    def add_tensor(self, name: str, tensor: Tensor) -> None:
        import torch

        self._tensors += 1
        try:
            with torch._C.DisableTorchFunction():  # neither the tensor's class nor a mode of the user's sees us look
                plain = _is_plain(tensor)
                place = _place(tensor) if plain else None
                if place in self._at:
                    self._entries[name] = _Same(name, self._at[place])
                    return
                taken = _in_main_memory(tensor) if plain else _pickled(tensor)
        except Exception as error:  # an assert on the device, a class of the user's: the others are still to be saved
            self._leave_out(name, error)
            self._missing.append(f"{name} ({_reason(error)})")
            return
        if isinstance(taken, bytes):
            self._entries[name] = _Pickled(name, self._objects.put(taken))
        else:
            self._add_plain(name, taken)
            self._at |= {place: name} if place else {}

    def add_value(self, name: str, value: Any) -> None:
        try:
            self._entries[name] = _Value(name, _encoded(value))
            return
        except _NotPlain:
            pass
        try:
            content = _pickled(value)
        except _LeftOut as error:
            self._leave_out(name, error)
        else:
            self._entries[name] = _Pickled(name, self._objects.put(content))

    def manifest(self, metadata: dict[str, Any]) -> dict[str, Any]:
        self._flush()
        entries = [entry for entry in self._entries.values() if entry is not None]
        refs = [entry.object for entry in entries if isinstance(entry, (_Stored, _Pickled))]
        return {
            "format": FORMAT,
            "entries": [_json(entry) for entry in entries],
            "objects": {ref.digest: ref.size for ref in refs},
            "left_out": self._left_out,
            "partial": self._partial(),
            "metadata": metadata,
        }

    def _partial(self) -> str | None:
        if not self._missing:
            return None
        return f"{len(self._missing)} of {self._tensors} tensors could not be saved: {some(self._missing)}"

    def _leave_out(self, name: str, error: Exception) -> None:
        self._left_out.append({"name": name, "reason": _reason(error)})

    def _add_plain(self, name: str, tensor: Tensor) -> None:
        content = _bytes_of(tensor)
        if content.nbytes >= _BUNDLED_BELOW:
            self._entries[name] = _stored(name, tensor, self._objects.put(content), 0)
            return
        if self._bundled + content.nbytes > _BUNDLE_LIMIT:
            self._flush()
        self._entries[name] = None  # keeps its place until the object has a name
        self._bundle.append((name, tensor, content))
        self._bundled += content.nbytes

    def _flush(self) -> None:
        chunks: list[memoryview | bytes] = []
        offsets: list[int] = []
        end = 0
        for _, _, content in self._bundle:
            padding = -end % _ALIGNMENT
            offsets.append(end + padding)
            chunks += [bytes(padding), content]
            end += padding + content.nbytes
        if self._bundle:
            ref = self._objects.put(chunks)
            for (name, tensor, _), offset in zip(self._bundle, offsets, strict=True):
                self._entries[name] = _stored(name, tensor, ref, offset)
        self._bundle, self._bundled = [], 0


class _Reading:
    """Tensors out of objects, each of which is read and checked once."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._contents: dict[Ref, bytearray] = {}
        self._taken: set[tuple[Ref, int]] = set()

    def tensor(self, entry: _Stored) -> Tensor:
        import torch

        dtype = _dtype(entry)
        content = self._content(entry.object)
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=dtype, device="cpu")
        offset = entry.offset
        if (entry.object, offset) in self._taken:  # equal numbers, but a tensor of its own
            content, offset = content[offset : offset + entry.nbytes], 0
        self._taken.add((entry.object, entry.offset))
        flat = torch.frombuffer(content, dtype=torch.uint8, count=entry.nbytes, offset=offset)
        return flat.view(dtype).reshape(entry.shape)

    def unpickled(self, entry: _Pickled) -> Any:
        try:
            return _unpickled(self._content(entry.object))
        except _LeftOut as error:
            raise _Malformed(f"{_shown(entry.name)} cannot be read: {error}") from error

    def _content(self, ref: Ref) -> bytearray:
        if ref not in self._contents:
            self._contents[ref] = self._objects.open_verified(ref.digest, ref.size)
        return self._contents[ref]


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


def _metadata(state: Mapping[str, Any]) -> dict[str, Any]:
    """What torch keeps about each module (the version of its format), by the module's plain name."""
    metadata = getattr(state, "_metadata", None)
    if not isinstance(metadata, dict):
        return {}
    front = _front([str(name) for name in state])
    return {_plain_module(front, str(name)): value for name, value in metadata.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


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
    from torch.nn.parameter import is_lazy

    if _SHARDS & {kind.__name__ for kind in type(tensor).__mro__} or hasattr(tensor, "ds_shape"):
        raise _LeftOut(f"a shard, {type(tensor).__name__}, of {_rank()}")
    if is_lazy(tensor):
        raise _LeftOut("a lazy parameter, not initialised yet")
    if tensor.is_meta:
        raise _LeftOut("on the meta device, without numbers")
    dispatched = type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return tensor.layout is torch.strided and not tensor.is_quantized and not dispatched


def _in_main_memory(tensor: Tensor) -> Tensor:
    import torch

    plain = tensor.detach().as_subclass(torch.Tensor)
    return plain.cpu().resolve_conj().resolve_neg().contiguous()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The tensor's own memory, not a copy, valid as long as the tensor; needs no numpy."""
    import ctypes

    nbytes = tensor.numel() * tensor.element_size()
    if not nbytes:
        return memoryview(b"")
    return memoryview((ctypes.c_ubyte * nbytes).from_address(tensor.data_ptr())).cast("B")


def _stored(name: str, tensor: Tensor, ref: Ref, offset: int) -> _Stored:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return _Stored(name, dtype, tuple(tensor.shape), ref, offset, tensor.numel() * tensor.element_size())


def _rank() -> str:
    return f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', 'several')}"


def _dtype(entry: _Stored) -> torch.dtype:
    import torch

    dtype = getattr(torch, entry.dtype, None)
    if str(dtype) != f"torch.{entry.dtype}" or not isinstance(dtype, torch.dtype) or entry.dtype.startswith("q"):
        raise _Malformed(f"{_shown(entry.name)} is of an unknown dtype, {_shown(entry.dtype)}")
    if entry.nbytes != math.prod(entry.shape) * dtype.itemsize:
        raise _Malformed(f"{_shown(entry.name)} cannot have {entry.nbytes} bytes")
    return dtype


# Values


def _encoded(value: Any) -> Any:
    encoded = _encode(value, _DEEPEST)
    if len(json.dumps(encoded)) > _VALUE_LIMIT:
        raise _NotPlain
    return encoded


def _encode(value: Any, depth: int) -> Any:
    """Spell a value in JSON; of exactly these types, because a subclass of float would come back as a float."""
    if not depth:
        raise _NotPlain
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if abs(value) < 1 << 53 else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is str and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    if kind is list:
        return [_encode(item, depth - 1) for item in value]
    if kind is tuple:
        return {"tuple": [_encode(item, depth - 1) for item in value]}
    if kind is dict:
        return {"dict": [[_encode(key, depth - 1), _encode(item, depth - 1)] for key, item in value.items()]}
    raise _NotPlain


def _decoded(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_decoded(item) for item in value]
        case {"int": str(digits), **rest} if not rest:
            return int(digits, 16)
        case {"float": "nan" | "inf" | "-inf" as word, **rest} if not rest:
            return float(word)
        case {"tuple": list(items), **rest} if not rest:
            return tuple(_decoded(item) for item in items)
        case {"dict": list(pairs), **rest} if not rest:
            return {_decoded(key): _decoded(item) for key, item in pairs}
    raise _Malformed(f"not a value: {_shown(str(value))}")


def _pickled(value: Any) -> bytes:
    """What `torch.save` writes; raises `_LeftOut` unless it can be read back without running code."""
    import torch

    buffer = io.BytesIO()
    try:
        with _no_warnings():
            torch.save(value, buffer)
    except Exception as error:  # pickle calls the user's own methods, which may raise anything
        raise _LeftOut(f"{type(value).__name__} cannot be pickled: {_first_line(error)}") from error
    content = buffer.getvalue()
    if type(_unpickled(content)) is not type(value):
        raise _LeftOut(f"{type(value).__name__} comes back as another type")
    return content


def _unpickled(content: bytes | bytearray) -> Any:
    """What `torch.load` makes of bytes without running code; torch writes zips that do not grow, and others are refused."""
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
        raise _LeftOut(f"torch.load(weights_only=True) refuses it: {_first_line(error)}") from error


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# The manifest


def _json(entry: _Entry) -> dict[str, Any]:
    match entry:
        case _Stored(name, dtype, shape, ref, offset, nbytes):
            place = {"object": ref.digest, "offset": offset, "nbytes": nbytes}
            return {"kind": "tensor", "name": name, "dtype": dtype, "shape": list(shape), **place}
        case _Same(name, same_as):
            return {"kind": "same", "name": name, "same_as": same_as}
        case _Value(name, value):
            return {"kind": "value", "name": name, "value": value}
        case _Pickled(name, ref):
            return {"kind": "pickle", "name": name, "object": ref.digest}


def _entries(manifest: Mapping[str, Any]) -> list[_Entry]:
    version = manifest.get("format")
    if type(version) is int and version > FORMAT:
        raise StoreTooNew(f"these weights have format {version}; this numb reads up to {FORMAT}", "pip install -U numb")
    if version != FORMAT:
        raise _Malformed(f"no such format: {_shown(str(version))}")
    sizes, metadata = manifest["objects"], manifest.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, dict) for value in metadata.values()):
        raise _Malformed("its metadata are not those of modules")
    entries: dict[str, _Entry] = {}
    for raw in manifest["entries"]:
        entry = _parsed(raw, sizes)
        if entry.name in entries:
            raise _Malformed(f"{_shown(entry.name)} is there twice")
        if isinstance(entry, _Same) and not isinstance(entries.get(entry.same_as), _Stored):
            raise _Malformed(f"{_shown(entry.name)} is tied to nothing before it")
        entries[entry.name] = entry
    return list(entries.values())


def _parsed(raw: Any, sizes: Any) -> _Entry:
    match raw:
        case {
            "kind": "tensor",
            "name": str(name),
            "dtype": str(dtype),
            "shape": list(shape),
            "object": str(digest),
            "offset": int(offset),
            "nbytes": int(nbytes),
        } if all(type(length) is int and length >= 0 for length in shape):
            ref = Ref(digest, _size(sizes, digest))
            if not 0 <= offset <= offset + nbytes <= ref.size:
                raise _Malformed(f"{_shown(name)} is not within its object")
            return _Stored(name, dtype, tuple(shape), ref, offset, nbytes)
        case {"kind": "same", "name": str(name), "same_as": str(same_as)}:
            return _Same(name, same_as)
        case {"kind": "value", "name": str(name), "value": value}:
            return _Value(name, value)
        case {"kind": "pickle", "name": str(name), "object": str(digest)}:
            return _Pickled(name, Ref(digest, _size(sizes, digest)))
    raise _Malformed(f"not an entry: {_shown(str(raw))}")


def _size(sizes: Any, digest: str) -> int:
    size = sizes[digest]
    if type(size) is not int or size < 0:
        raise _Malformed(f"object {_shown(digest)} has no size")
    return size


@contextmanager
def _understanding(manifest: object) -> Iterator[None]:
    """Say `ObjectCorrupt` of what in a manifest, or in what torch makes of it, cannot be."""
    try:
        if not isinstance(manifest, Mapping):
            raise _Malformed("not an object")
        yield
    except (_Malformed, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else _first_line(error)
        raise ObjectCorrupt(f"the record of these weights cannot be used: {reason}", "numb doctor") from error


# Fitting


def _refuse_mismatch(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    faults = {
        "missing": [_shown(name) for name in there if name not in here],
        "unexpected": [_shown(name) for name in here if name not in there],
        "different": [
            f"{_shown(name)} is {_described(there[name])} in the model and {_described(here[name])} in the weights"
            for name in there
            if name in here and not _fits(name, there[name], here[name])
        ],
    }
    if any(faults.values()):
        said = "; ".join(f"{len(names)} {fault}: {some(names)}" for fault, names in faults.items() if names)
        raise StateMismatch(f"the saved weights do not fit the model: {said}", "numb list shows each architecture")


def _fits(name: str, there: Any, here: Any) -> bool:
    import torch
    from torch.nn.parameter import is_lazy

    if name.rpartition(".")[2] == "_extra_state" or is_lazy(there):
        return True
    if not isinstance(there, torch.Tensor) or not isinstance(here, torch.Tensor):
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
            notes.append(f"{_shown(name)} is not in the safetensors file: it is no plain tensor")
        elif name == "__metadata__" or not _in_safetensors(value.dtype):
            notes.append(f"{_shown(name)} is not in the safetensors file: it has no {value.dtype}")
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
    return str(error) if isinstance(error, _LeftOut) else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def some(names: list[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _shown(name: str) -> str:
    cut = name if len(name) <= 80 else f"{name[:79]}…"
    return cut if cut.isprintable() else repr(cut)
