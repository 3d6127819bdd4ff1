"""`numb.save`: a value as a file of the run. Small ones go into its commit, large ones and tensors to the objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import artifacts, atomic, record, rundir
from numb.capture import weights
from numb.capture.values import BadValue
from numb.capture.weights import Saver
from numb.errors import NumbError
from numb.record import Artifact
from numb.store.objects import Ref

if TYPE_CHECKING:
    from numb.capture.session import Session


def save(session: Session, name: str, value: Any) -> None:
    """Keep *value* now, as it is. Raises `BadValue` for a name or a value that cannot be kept; `StorageFailed`."""
    try:
        if isinstance(value, os.PathLike):
            for inner, path in rundir.files(artifacts.check_name(name), Path(value)):
                _keep(session, inner, partial(rundir.keep_file, session.folder, session.objects, inner, path))
            return
        full = artifacts.check_name(artifacts.named(name, value))
        if artifacts.is_state(full, value):
            _keep_state(session, full, value)
        else:
            content = artifacts.encoded(full, value)
            _keep(session, full, partial(rundir.keep, session.folder, session.objects, full, content))
    except (TypeError, ValueError) as error:
        if isinstance(error, NumbError):
            raise
        raise BadValue(f"numb.save: {error}") from None
    except FileNotFoundError as error:
        raise BadValue(f"numb.save: there is no file {error.filename}") from None


def save_batch(session: Session, number: int, arrays: Mapping[str, Any]) -> None:
    """Keep what a batch has given. Raises `BadValue` for what cannot be kept; `StorageFailed`."""
    if type(number) is not int or number < 0:
        raise BadValue(f"run.save_batch: {number!r:.40} is no number of a batch")
    if not isinstance(arrays, Mapping) or not arrays or not all(isinstance(name, str) for name in arrays):
        raise BadValue(f"run.save_batch: {arrays!r:.40} is no dictionary of arrays by name")
    save(session, artifacts.batch(number, arrays), dict(arrays))


def _keep(session: Session, name: str, keep: Callable[[Callable[[Artifact], None]], Artifact]) -> None:
    def tell(artifact: Artifact) -> None:
        if artifact.file is None:
            session.progress.need([Ref(artifact.hash or "", artifact.size)])
        _tell(session, name, artifact)

    with session.objects.in_use():
        keep(tell)


def _keep_state(session: Session, name: str, value: Any) -> None:
    """Tensors, each of them once for all runs; the file in the commit is their manifest."""
    file = f"artifacts/{name}.manifest.json"
    path = session.folder.content / file
    with session.objects.in_use():
        manifest = Saver(session.objects).save({"value": weights.copied(value)}, private=True)
        if manifest.left_out:
            left = manifest.left_out[0]
            raise TypeError(f"{name}: {left['name'].removeprefix('value/')} cannot be kept: {left['reason']}")
        session.progress.need(manifest.refs())
        atomic.make_directory(path.parent)
        atomic.write(path, record.dumps(manifest.to_json()))
        _tell(session, name, Artifact(file, manifest.summary()["bytes"], None, True))


def _tell(session: Session, name: str, artifact: Artifact) -> None:
    session.tell(
        "artifact", name=name, file=artifact.file, size=artifact.size, hash=artifact.hash, is_state=artifact.is_state
    )
