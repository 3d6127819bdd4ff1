"""`numb.save`: a value as a file of the run. Small ones go into its commit, large ones and tensors to the objects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import artifacts, atomic, record
from numb.capture import weights
from numb.capture.values import BadValue
from numb.capture.weights import Saver
from numb.errors import NumbError
from numb.record import Artifact
from numb.store.objects import hash_of

if TYPE_CHECKING:
    from numb.capture.session import Session

_LARGE = 1 << 20  # bytes from which an artifact is an object
_PIECE = 1 << 20


def save(session: Session, name: str, value: Any) -> None:
    """Keep *value* now, as it is. Raises `BadValue` for a name or a value that cannot be kept; `StorageFailed`."""
    try:
        if isinstance(value, os.PathLike):
            for inner, path in _files(artifacts.check_name(name), Path(value)):
                _keep_file(session, inner, path)
            return
        full = artifacts.check_name(artifacts.named(name, value))
        if artifacts.is_state(full, value):
            _keep_state(session, full, value)
        else:
            _keep(session, full, artifacts.encoded(full, value))
    except (TypeError, ValueError) as error:
        if isinstance(error, NumbError):
            raise
        raise BadValue(f"numb.save: {error}") from None
    except FileNotFoundError as error:
        raise BadValue(f"numb.save: there is no file {error.filename}") from None


def _files(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """A file, or those of a folder, with the names that they get; links within a folder are passed over."""
    if not path.is_dir():
        yield (name if os.path.splitext(name)[1] else name + path.suffix), path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for each in sorted(names):
            inner = Path(folder) / each
            if inner.is_file() and not inner.is_symlink():
                yield artifacts.check_name(f"{name}/{inner.relative_to(path).as_posix()}"), inner


def _keep(session: Session, name: str, content: bytes) -> None:
    if len(content) < _LARGE:
        file = f"artifacts/{name}"
        path = session.folder.content / file
        atomic.make_directory(path.parent)
        atomic.write(path, content)
        _tell(session, name, Artifact(file, len(content), hash_of(content)))
        return
    with session.objects.in_use():
        ref = session.objects.put(content)
        session.need([ref])
        _tell(session, name, Artifact(None, ref.size, ref.digest))


def _keep_file(session: Session, name: str, path: Path) -> None:
    if path.stat().st_size < _LARGE:
        _keep(session, name, path.read_bytes())
        return
    with path.open("rb") as file, session.objects.in_use():
        ref = session.objects.put(iter(lambda: file.read(_PIECE), b""))
        session.need([ref])
        _tell(session, name, Artifact(None, ref.size, ref.digest))


def _keep_state(session: Session, name: str, value: Any) -> None:
    """Tensors, each of them once for all runs; the file in the commit is their manifest."""
    file = f"artifacts/{name}.manifest.json"
    path = session.folder.content / file
    with session.objects.in_use():
        manifest = Saver(session.objects).save({"value": weights.copied(value)}, private=True)
        if manifest.left_out:
            left = manifest.left_out[0]
            raise TypeError(f"{name}: {left['name'].removeprefix('value/')} cannot be kept: {left['reason']}")
        session.need(manifest.refs())
        atomic.make_directory(path.parent)
        atomic.write(path, record.dumps(manifest.to_json()))
        _tell(session, name, Artifact(file, manifest.summary()["bytes"], None, True))


def _tell(session: Session, name: str, artifact: Artifact) -> None:
    session.tell(
        "artifact", name=name, file=artifact.file, size=artifact.size, hash=artifact.hash, is_state=artifact.is_state
    )
