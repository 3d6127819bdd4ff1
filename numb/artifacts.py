"""What a run keeps beside its record: values as files, by the suffix of their names, and back into values.

Nothing here ever runs what a file says: no pickle is read that `torch.load(weights_only=True)` would refuse, no code is
evaluated. Suffixes that are not known come back as bytes; a script may add its own with `numb.artifact_saver` and
`numb.artifact_loader`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias, TypeVar

from numb import record

Saver: TypeAlias = Callable[[Any], bytes | None]
Loader: TypeAlias = Callable[[str, bytes], Any]

_F = TypeVar("_F", bound=Callable[..., Any])
_LONGEST = 200
_MOST_UNPACKED = 64 << 20  # bytes that any archive may become; a larger one so many times its size

_own_savers: dict[str, list[Saver]] = {}
_own_loaders: dict[str, list[Loader]] = {}


def saver(suffix: str) -> Callable[[_F], _F]:
    """Register a function that makes the bytes of a file with this suffix (`.xyz`) of a value; None leaves it to others."""
    return _registering(suffix, _own_savers)


def loader(suffix: str) -> Callable[[_F], _F]:
    """Register a function of a name and its bytes that makes the value of a file with this suffix; None leaves it to others."""
    return _registering(suffix, _own_loaders)


def _registering(suffix: str, registry: dict[str, list[Any]]) -> Callable[[_F], _F]:
    if not isinstance(suffix, str) or not suffix.startswith(".") or len(suffix) < 2:
        raise ValueError(f"{suffix!r} is no suffix such as .xyz")

    def register(function: _F) -> _F:
        registry.setdefault(suffix.lower(), []).insert(0, function)
        return function

    return register


def check_name(name: object) -> str:
    """A name that is safe as a path below a folder, in git too. Raises `ValueError`."""
    parts = name.split("/") if isinstance(name, str) else []
    is_safe = all(
        part not in ("", ".", "..") and part.isprintable() and part.lower() != ".git" and "\\" not in part
        for part in parts
    )
    if (
        not parts
        or not is_safe
        or parts[-1].endswith(".manifest.json")
        or len(str(name).encode(errors="replace")) > _LONGEST
    ):
        raise ValueError(f"{str(name)[:80]!r} is no name for an artifact: say plots/loss.png")
    return str(name)


def named(name: str, value: Any) -> str:
    """*name*, with a suffix that the value gives it where it has none."""
    if _suffix(name):
        return name
    return name + (".pt" if is_state(name, value) else _kind_of(value) or "")


def batch(number: int, arrays: Mapping[str, Any]) -> str:
    """The name of what a batch has given: of tensors a state, of arrays an archive."""
    torch = sys.modules.get("torch")
    has_tensors = torch is not None and any(isinstance(each, torch.Tensor) for each in arrays.values())
    return f"batches/{number:08}{'.pt' if has_tensors else '.npz'}"


def batches(names: Iterable[str]) -> list[str]:
    """Those of these names that are of batches, in their order."""
    return sorted(name for name in names if re.fullmatch(r"batches/\d{8,}\.(pt|npz)", name))


def _kind_of(value: Any) -> str | None:
    match value:
        case str():
            return ".txt"
        case bytes() | bytearray() | memoryview():
            return ".bin"
        case _ if _is_figure(value):
            return ".png"
        case _ if callable(getattr(value, "to_csv", None)):
            return ".csv"
        case _ if _is_array(value):
            return ".npy"
        case None | bool() | int() | float() | Mapping() | list() | tuple():
            return ".json"
    return ".json" if hasattr(value, "item") else None


def encoded(name: str, value: Any) -> bytes:
    """The bytes of the file *name* that holds *value*. Raises `TypeError`, naming the place, for what it cannot hold."""
    suffix = _suffix(name)
    for own in _own_savers.get(suffix, ()):
        if (content := own(value)) is not None:
            return bytes(content)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    builtin = _SAVERS.get(suffix)
    if builtin is not None:
        return builtin(name, value)
    if isinstance(value, str):
        return value.encode()
    if _is_figure(value):
        return _figure(name, value)
    raise TypeError(
        f"{name}: numb has no way to write a {type(value).__name__} into a file with the suffix {suffix or '(none)'}; "
        "give bytes, or register one with numb.artifact_saver"
    )


def decoded(name: str, content: bytes) -> Any:
    """The value in the file *name*: typed by its suffix, else bytes. Raises `ValueError` for what is damaged or refused."""
    suffix = _suffix(name)
    for own in _own_loaders.get(suffix, ()):
        if (value := own(name, content)) is not None:
            return value
    builtin = _LOADERS.get(suffix)
    if builtin is None:
        return content
    try:
        return builtin(name, content)
    except Exception as error:  # hostile bytes make readers raise almost anything
        raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from error


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_figure(value: Any) -> bool:
    return callable(getattr(value, "savefig", None)) or _is_image(value)


def _is_image(value: Any) -> bool:
    image = sys.modules.get("PIL.Image")
    return image is not None and isinstance(value, image.Image)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


# One function for each kind of file and direction.


def _json(name: str, value: Any) -> bytes:
    return (record.dumps(record.encode(value, name.rpartition("/")[2].partition(".")[0]), indent=1) + "\n").encode()


def _text(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name}: a text is a string, not a {type(value).__name__}")
    return value.encode()


def _csv(name: str, value: Any) -> bytes:
    if callable(to_csv := getattr(value, "to_csv", None)):
        return str(to_csv()).encode()
    if isinstance(value, str):
        return value.encode()
    rows = _rows(name, value)
    fields = list(dict.fromkeys(field for row in rows for field in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(rows):
        cells = {field: _cell(cell, f"{name}[{number}].{field}") for field, cell in row.items()}
        writer.writerow(cells)
    return text.getvalue().encode()


def _rows(name: str, value: Any) -> list[Mapping[str, Any]]:
    """Rows as dictionaries, of a list of them or of a dictionary of columns."""
    if isinstance(value, Mapping) and all(isinstance(column, (list, tuple)) for column in value.values()):
        columns = {str(field): column for field, column in value.items()}
        if len({len(column) for column in columns.values()}) > 1:
            raise TypeError(f"{name}: the columns are of different lengths")
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    rows = list(value) if isinstance(value, Iterable) else [None]
    if all(isinstance(row, Mapping) for row in rows):
        return [{str(field): cell for field, cell in dict(row or {}).items()} for row in rows]
    raise TypeError(f"{name}: a table is a list of dictionaries, a dictionary of columns, or a data frame")


def _cell(value: Any, where: str) -> Any:
    match record.encode(value, where):
        case {"$float": str(word)}:
            return word
        case None:
            return ""
        case bool() | int() | float() | str() as plain:
            return plain
    raise TypeError(f"{where}: a cell is a number, a string or None, not a {type(value).__name__}")


def _npy(name: str, value: Any) -> bytes:
    import numpy

    content = io.BytesIO()
    try:
        numpy.save(content, numpy.asarray(value), allow_pickle=False)
    except ValueError as error:
        raise TypeError(f"{name}: {error}") from None
    return content.getvalue()


def _npz(name: str, value: Any) -> bytes:
    import numpy

    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: several arrays are a dictionary, not a {type(value).__name__}")
    arrays = {str(key): numpy.asarray(item) for key, item in value.items()}
    if wrong := [key for key, array in arrays.items() if array.dtype.hasobject]:
        raise TypeError(f"{name}: {wrong[0]} holds objects, which only a pickle could hold")
    content = io.BytesIO()
    numpy.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _figure(name: str, value: Any) -> bytes:
    content = io.BytesIO()
    kind = _suffix(name)[1:]
    if _is_image(value):
        value.save(content, format={"jpg": "jpeg"}.get(kind, kind))
    elif callable(getattr(value, "savefig", None)):
        value.savefig(content, format=kind)
    else:
        raise TypeError(f"{name}: an image is a figure with savefig, or bytes, not a {type(value).__name__}")
    return content.getvalue()


def _safetensors(name: str, value: Any) -> bytes:
    from safetensors.torch import save

    try:
        return bytes(save(dict(value)))
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(f"{name}: {error}") from None


def _of_json(name: str, content: bytes) -> Any:
    return record.decode(json.loads(content))


def _of_text(name: str, content: bytes) -> str:
    return content.decode(errors="replace")


def _of_csv(name: str, content: bytes) -> Any:
    """A data frame whose index is the first column, where pandas is installed; else a list of dictionaries."""
    if not content.strip():
        return []
    if find_spec("pandas") is not None:
        import pandas

        frame = pandas.read_csv(io.BytesIO(content), index_col=0)
        if "Date" in frame:
            with contextlib.suppress(ValueError, TypeError):  # dates of another kind stay texts
                frame["Date"] = pandas.to_datetime(frame["Date"])
        return frame
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [{field: _of_cell(cell) for field, cell in row.items()} for row in rows]


def _of_cell(cell: str | None) -> Any:
    if not cell:
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(cell, cell)


def _of_numpy(name: str, content: bytes) -> Any:
    import zipfile

    import numpy

    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(_MOST_UNPACKED, 20 * len(content)):
            raise ValueError(f"{len(content)} bytes would become {unpacked}")
    found = numpy.load(io.BytesIO(content), allow_pickle=False)
    return dict(found) if hasattr(found, "files") else found


def _of_pt(name: str, content: bytes) -> Any:
    from numb.capture import weights

    return weights.unpickled(content)


def _of_safetensors(name: str, content: bytes) -> Any:
    from safetensors.torch import load

    return load(content)


def _of_onnx(name: str, content: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(content)


def _of_yaml(name: str, content: bytes) -> Any:
    import yaml

    return yaml.safe_load(content)


_IMAGES = (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".gif", ".webp")
_SAVERS: dict[str, Callable[[str, Any], bytes]] = {
    ".json": _json,
    **dict.fromkeys((".txt", ".md", ".log", ".yaml", ".yml", ".html"), _text),
    ".csv": _csv,
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    **dict.fromkeys(_IMAGES, _figure),
}
_LOADERS: dict[str, Callable[[str, bytes], Any]] = {
    ".json": _of_json,
    **dict.fromkeys((".txt", ".md", ".log", ".html"), _of_text),
    ".csv": _of_csv,
    **dict.fromkeys((".npy", ".npz"), _of_numpy),
    ".pt": _of_pt,
    ".pth": _of_pt,
    ".safetensors": _of_safetensors,
    ".onnx": _of_onnx,
    **dict.fromkeys((".yaml", ".yml"), _of_yaml),
}


def is_state(name: str, value: Any) -> bool:
    """Whether a value is tensors, which are kept one by one and not as a file: a `.pt`, or a tensor without a suffix."""
    torch = sys.modules.get("torch")
    if torch is None or isinstance(value, (bytes, bytearray, memoryview)):
        return False
    if _suffix(name) in (".pt", ".pth"):
        return True
    return not _suffix(name) and _holds_tensor(value, torch)


def _holds_tensor(value: Any, torch: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.numel() != 1 or value.dim())
    items: Sequence[Any] = ()
    if isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, (list, tuple)):
        items = value
    return any(_holds_tensor(item, torch) for item in items)
