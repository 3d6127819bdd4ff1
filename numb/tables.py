"""The series of a run that has ended, as tables among the files of its record, and the rows of any run's series."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from isal import isal_zlib as zlib  # gzip at five times the speed of Python's own

from numb import atomic, journal
from numb.errors import ArtifactMissing, ObjectCorrupt
from numb.journal import SYSTEM, Block, Reader
from numb.layout import RunFolder
from numb.record import Run, Series
from numb.store.objects import Objects, hash_of

if TYPE_CHECKING:
    from numb.project import Project

_LARGE = 1 << 20  # bytes from which a table is an object
_PIECE = 1 << 20
_INFLATED = 1 << 18  # bytes of an object that are inflated at once
_PATIENCE = 25  # how often a run that has ended is looked for on the branch
_BROKEN: Any = zlib.error  # of whose type its stubs say nothing
_GZIP = 31  # zlib's word for the format


def kept(folder: RunFolder, objects: Objects) -> tuple[dict[str, Series], list[str]]:
    """Make a table of each series of the journal; and say what of it is damaged. Raises `StorageFailed` and `OSError`."""
    found = {}
    readers = [Reader(path) for path in folder.journals]
    outlines = journal.outlines(itertools.chain.from_iterable(reader.blocks() for reader in readers))
    damage = sum(reader.unread for reader in readers)
    notes = [f"{damage} bytes of its series were damaged or torn, and could not be read"] if damage else []
    for name, outline in outlines.items():
        fields = outline.fields
        with tempfile.SpooledTemporaryFile(_LARGE, dir=str(folder.path)) as file:
            journal.write_csv(journal.of(_journaled(folder), name), list(fields), file)
            size = file.tell()
            file.seek(0)
            if size >= _LARGE:
                ref = objects.put(_compressed(file))
                found[name] = Series(outline.rows, ref.size, ref.digest, None, fields)
                continue
            content = file.read()
        path = folder.content / f"series/{name}.csv"
        atomic.make_directory(path.parent)
        atomic.write(path, content)
        found[name] = Series(outline.rows, size, hash_of(content), f"series/{name}.csv", fields)
    return found, notes


def _journaled(folder: RunFolder) -> Iterator[Block]:
    return itertools.chain.from_iterable(Reader(path).blocks() for path in folder.journals)


def _compressed(file: IO[bytes]) -> Iterator[bytes]:
    gzip = zlib.compressobj(1, wbits=_GZIP)
    while piece := file.read(_PIECE):
        yield gzip.compress(piece)
    yield gzip.flush()


def content(project: Project, run: Run, name: str) -> bytes:
    """The CSV of a series, its hash compared. Raises `ArtifactMissing`, `ObjectMissing` and `ObjectCorrupt`."""
    return b"".join(pieces(project, run, name))


def pieces(project: Project, run: Run, name: str) -> Iterator[bytes]:
    """The same, some at a time."""
    series = run.series.get(name)
    if series is None:
        there = ", ".join(run.series) or "none"
        raise ArtifactMissing(f"{run.id} has no series {name}; it has {there}", f"numb show {run.id}")
    found = project.kept_bytes(run, f"the series {name}", series)
    if series.file is not None:
        yield found
        return
    try:
        inflating = zlib.decompressobj(_GZIP)
        for start in range(0, len(found), _INFLATED):
            yield inflating.decompress(found[start : start + _INFLATED])
    except _BROKEN as error:
        raise ObjectCorrupt(f"the series {name} of {run.id} cannot be read: {error}", "numb doctor") from error
    if not inflating.eof:
        raise ObjectCorrupt(f"the series {name} of {run.id} cannot be read: it has no end", "numb doctor")


def so_far(project: Project, run: Run) -> dict[str, Series]:
    """What the series of a run in flight sum up to by now."""
    outlines = journal.outlines(_journaled(project.layout.run(run.id)))
    return {name: Series.unkept(outline.rows, outline.fields) for name, outline in outlines.items()}


def fields(project: Project, run: Run) -> dict[str, list[str]]:
    """The fields of each series; of a run in flight those that have come."""
    if run.commit is not None:
        return {name: list(series.fields) for name, series in run.series.items()}
    found: dict[str, dict[str, None]] = {}
    for block in _journaled(project.layout.run(run.id)):
        found.setdefault(block.series, {}).update(dict.fromkeys(block.fields))
    return {name: list(known) for name, known in found.items()}


def blocks(project: Project, run: Run, name: str) -> Iterator[Block]:
    """The rows of a series, some at a time; of a run in flight those that have come. Raises what `content` raises."""
    if run.commit is None:
        yield from journal.of(_journaled(project.layout.run(run.id)), name)
        return
    lines = io.TextIOWrapper(io.BytesIO(content(project, run, name)), "utf-8", "surrogatepass", newline="\n")
    try:
        yield from journal.read_csv(name, lines)
    except ValueError as error:
        raise ObjectCorrupt(f"the series {name} of {run.id} cannot be read: {error}", "numb doctor") from error


def follow(project: Project, run: Run, name: str | None = None) -> Iterator[Block | None]:
    """The rows of one series, or of all, and then what comes while the run goes on; None where nothing has come just now.

    What the machine does is no part of all. Ends when the run is on the branch. Raises what `content` raises.
    """
    readers = [Reader(path) for path in project.layout.run(run.id).journals]
    seen: Counter[str] = Counter()
    for now in unpublished(project, run):
        for block in itertools.chain.from_iterable(reader.blocks() for reader in readers):
            seen[block.series] += len(block.times)
            if block.series == name or (name is None and block.series != SYSTEM):
                yield block
        yield None
        run = now
    run = project.find(run.id)
    for each in [name] if name else [each for each in run.series if each != SYSTEM]:
        left = seen[each]
        for block in blocks(project, run, each):
            skipped = min(left, len(block.times))
            left -= skipped
            yield block.after(skipped)


def unpublished(project: Project, run: Run) -> Iterator[Run]:
    """A run again and again, until it is on the branch, or has ended and does not come there."""
    left = _PATIENCE
    while run.commit is None and left:
        yield run
        run = project.find(run.id)
        left = _PATIENCE if run.in_flight else left - 1


def before(project: Project, run: Run, step: int, moment: float) -> Iterator[Block]:
    """The rows that a run had when it took its checkpoint after *step*, at *moment*: what came later is done again."""

    def stays(logged: float, first: object) -> bool:
        return logged <= moment or (type(first) in (int, float) and first <= step)  # type: ignore[operator]

    for name, series in run.series.items():
        has_steps = next(iter(series.fields), "") in ("step", "global_step")
        for block in blocks(project, run, name):
            yield block.where(stays if has_steps else lambda logged, _: logged <= moment)


def framed(found: Iterable[Block]) -> bytes:
    """A journal with these rows."""
    framer = journal.Framer()
    return b"".join(framer.frames(block) for block in found if block.times)
