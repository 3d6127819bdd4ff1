"""Files as artifacts of a run: those that a script names, and what it has put into the folder that is its own, `run.dir`."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from numb import artifacts, atomic
from numb.layout import RunFolder
from numb.record import Artifact
from numb.store.objects import Objects, hash_of

_LARGE = 1 << 20  # bytes from which an artifact is an object
_PIECE = 1 << 20
_SCRATCH = ".no_sync"  # what a name ends with that is not to be kept


def files(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """A file, or those of a folder, with the names that they get; links within a folder are passed over.

    Raises `ValueError` for a name that is none, when it is its turn.
    """
    if not path.is_dir():
        yield (name if os.path.splitext(name)[1] else name + path.suffix), path
        return
    for inner in _inner(path):
        yield artifacts.check_name(f"{name}/{inner.relative_to(path).as_posix()}"), inner


def keep(
    folder: RunFolder, objects: Objects, name: str, content: bytes, tell: Callable[[Artifact], None] = lambda kept: None
) -> Artifact:
    """Keep bytes: small ones as a file of the commit, large ones as an object. Raises `StorageFailed`.

    *tell* is called when an object is there, and before a file replaces another: whoever dies in between leaves the earlier
    one, which was told too.
    """
    if len(content) >= _LARGE:
        ref = objects.put(content)
        tell(kept := Artifact(None, ref.size, ref.digest))
        return kept
    file = f"artifacts/{name}"
    path = folder.content / file
    atomic.make_directory(path.parent)
    tell(kept := Artifact(file, len(content), hash_of(content)))
    atomic.write(path, content)
    return kept


def keep_file(
    folder: RunFolder, objects: Objects, name: str, path: Path, tell: Callable[[Artifact], None] = lambda kept: None
) -> Artifact:
    """The same with a file, which is never in memory as a whole. Raises `OSError` too."""
    if path.stat().st_size < _LARGE:
        return keep(folder, objects, name, path.read_bytes(), tell)
    with path.open("rb") as file:
        ref = objects.put(iter(lambda: file.read(_PIECE), b""))
    tell(kept := Artifact(None, ref.size, ref.digest))
    return kept


def is_there(folder: RunFolder, artifact: Artifact) -> bool:
    """Whether an artifact that was told of is what now lies there; an object is, for it was there before it was told."""
    if artifact.file is None:
        return True
    try:
        content = (folder.content / artifact.file).read_bytes()
    except OSError:
        return False
    return artifact.is_state or hash_of(content) == artifact.hash


def gathered(folder: RunFolder, objects: Objects, known: Container[str]) -> tuple[dict[str, Artifact], list[str]]:
    """Keep what a script has left in `run.dir`, by the paths there, and tell what of it could not be kept.

    What the script has saved by name is what that name means.
    """
    found: dict[str, Artifact] = {}
    notes = []
    for path in _inner(folder.own):
        name = path.relative_to(folder.own).as_posix()
        if name in known:
            notes.append(f"{name} in run.dir: not kept, the script has saved something else by this name")
            continue
        try:
            artifacts.check_name(name)
        except ValueError:  # it is as good a file as any
            unfit, name = name, f"{hash_of(os.fsencode(name))[:12]}{path.suffix if path.suffix[1:].isalnum() else ''}"
            notes.append(f"{unfit!r:.200} in run.dir is no name for an artifact: kept as {name}")
        try:
            found[name] = keep_file(folder, objects, name, path)
        except OSError as error:
            notes.append(f"{name!r:.200} in run.dir: not kept: {error.strerror}")
    return found, notes


def _inner(path: Path) -> Iterator[Path]:
    """The files below a folder, in order, without links and what is scratch."""
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(each for each in folders if not each.endswith(_SCRATCH))
        for each in sorted(names):
            inner = Path(folder) / each
            if not each.endswith(_SCRATCH) and inner.is_file() and not inner.is_symlink():
                yield inner
