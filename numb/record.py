"""What numb writes about a run: the words, the values, and the one way they are spelled in JSON.

Values keep their types through JSON: what JSON cannot say is a dictionary with one `$` key (`{"$float": "nan"}`,
`{"$tuple": [1, 2]}`), and a user's dictionary that looks like one is wrapped in `{"$dict": …}`. Nothing here knows files,
git or torch; a scalar of NumPy or torch is recognised by what it can do.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from numb.errors import printable

FORMAT = 1

RUNNING, COMPLETE, INCOMPLETE, FAILED = "running", "complete", "incomplete", "failed"
INTERRUPTED, KILLED, LOST = "interrupted", "killed", "lost"
STATUSES = (RUNNING, COMPLETE, INCOMPLETE, FAILED, INTERRUPTED, KILLED, LOST)

TRAIN, TRIAL, SAVED, REMOVED, RESTORED, PURGED = "train", "trial", "saved", "removed", "restored", "purged"
NOTED = "noted"  # something was said about a run afterwards

RUN, PARAMS, RESULTS, SERIES = "run", "params", "results", "series"  # whose names a run has values under

_TAGS = frozenset(("$float", "$tuple", "$dict", "$literal"))
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: a file name that is not UTF-8 has them
_ID = re.compile(r"\d{8}-\d{6}-[a-z2-9]{4}")
_NAME = re.compile(r"[\w-]{1,80}")
_HANDLE = re.compile(r"[^\W\d][\w.+/-]{0,79}")
_HASH = re.compile(r"[0-9a-f]{64}")
_OBJECT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_MAX_BITS = 13_287  # 4000 digits: Python itself reads and writes no integer of more than 4300
_DEEPEST = 64
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"

_LOWER_IS_BETTER = (
    "loss", "err", "perplexity", "ppl", "bits", "bpc", "nll", "mse", "mae", "rmse", "fid", "frechet", "distance", "wer", "cer",
    "time", "seconds", "cost", "regret", "bce", "kl", "entropy",
)  # fmt: skip


class RunId(str):
    """`20261120-213353-x7f2`: UTC time and four random letters. Nothing else can be one, so it is safe in a path."""

    __slots__ = ()

    def __new__(cls, text: str) -> RunId:
        if not _ID.fullmatch(text):
            raise ValueError(f"not a run id: {text[:40]!r}")
        return super().__new__(cls, text)

    @classmethod
    def new(cls, now: float) -> RunId:
        """Make an id for the moment *now* (seconds since the epoch)."""
        letters = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(4))
        return cls(time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + letters)


def encode(value: Any, where: str = "value", *, literals: bool = False) -> Any:
    """Turn *value* into what JSON can say, without losing its type.

    Scalars of NumPy and torch become Python's, paths become strings. With *literals* whatever Python has a literal for is kept,
    sets, bytes, complex numbers and dictionaries with any keys too. Raises `TypeError` naming the place (`opt.betas[1]`) of the
    first value that cannot be kept.
    """
    if literals and _needs_python(value) and (text := _literal_text(value)) is not None:
        return {"$literal": text}
    return _encode(value, where, ())


def encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their names, as `encode` has each of them with literals. Raises `TypeError`."""
    return {name: encode(value, name, literals=True) for name, value in values.items()}


def _needs_python(value: Any) -> bool:
    """Whether there is something in *value* that JSON has nothing like."""
    match value:
        case list() | tuple():
            return any(map(_needs_python, value))
        case dict():
            return not all(isinstance(key, str) for key in value) or any(map(_needs_python, value.values()))
        case _:
            return isinstance(value, (set, bytes, complex)) or value is ...


def _literal_text(value: Any) -> str | None:
    """The literal of Python that is *value*, the same for equal sets; None where it has none."""
    match value:
        case set():
            items = [_literal_text(item) for item in value]
            return None if None in items else f"{{{', '.join(sorted(map(str, items)))}}}" if items else "set()"
        case list() | tuple():
            items = [_literal_text(item) for item in value]
            inside = ", ".join(map(str, items)) + ("," if len(items) == 1 and isinstance(value, tuple) else "")
            return None if None in items else f"[{inside}]" if isinstance(value, list) else f"({inside})"
        case dict():
            pairs = [(_literal_text(key), _literal_text(item)) for key, item in value.items()]
            return None if any(None in pair for pair in pairs) else f"{{{', '.join(f'{k}: {v}' for k, v in pairs)}}}"
        case float() if not math.isfinite(value):
            return None if value != value else "1e999" if value > 0 else "-1e999"
        case _ if value is ...:
            return "..."
        case None | bool() | int() | float() | complex() | str() | bytes():
            return repr(value) if type(value) in (type(None), bool, int, float, complex, str, bytes) else None
        case _:
            return None


def _encode(value: Any, where: str, above: tuple[int, ...]) -> Any:
    match value:
        case None | bool() | str():
            return str(value) if type(value) not in (str, bool, type(None)) else value
        case int():
            if value.bit_length() > _MAX_BITS:
                raise TypeError(f"{where} is an integer of more than 4000 digits, which JSON readers refuse")
            return int(value)
        case float():
            value = float(value)
            return value if math.isfinite(value) else {"$float": str(value)}
    if id(value) in above:
        raise TypeError(f"{where} contains itself")
    if len(above) >= _DEEPEST:
        raise TypeError(f"{where[:400]} is nested more than {_DEEPEST} levels deep")
    above = (*above, id(value))
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{where}[{i}]", above) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return _encode_mapping(value, where, above)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if hasattr(value, "dtype") and callable(getattr(value, "item", None)) and _elements(value) == 1:
        try:
            item = value.item()
        except (RuntimeError, ValueError):  # on the meta device there is none
            item = value
        if item is not value:
            return _encode(item, where, above)
    raise TypeError(f"{where} is a {type(value).__name__}, which numb cannot keep as a value: use {_instead(value)}")


def _encode_mapping(value: Mapping[Any, Any], where: str, above: tuple[int, ...]) -> dict[str, Any]:
    encoded = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r}, a {type(key).__name__}: keys must be strings")
        encoded[str(key)] = _encode(item, f"{where}.{key}" if where else str(key), above)
    return {"$dict": encoded} if len(encoded) == 1 and next(iter(encoded)) in _TAGS else encoded


def _elements(value: Any) -> int:
    numel = getattr(value, "numel", None)
    return int(numel()) if callable(numel) else int(getattr(value, "size", 0))


def _instead(value: Any) -> str:
    if hasattr(value, "tolist"):
        return "its .tolist()"
    if isinstance(value, set | frozenset):
        return "sorted(…)"
    return "a number, a string, a list or a dictionary"


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        match value:
            case {"$float": str(text)}:
                return float(text)
            case {"$tuple": list(items)}:
                return tuple(decode(item) for item in items)
            case {"$dict": dict(inner)}:
                return {key: decode(item) for key, item in inner.items()}
            case {"$literal": str(text)}:
                import ast  # rarely needed, and `numb list` answers at once

                try:
                    return ast.literal_eval(text)
                except (ValueError, SyntaxError, MemoryError, RecursionError):
                    return text  # not written by numb
    return {key: decode(item) for key, item in value.items()}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON text of encoded values: valid JSON always, never `NaN`, and it can be written as UTF-8."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def loads(text: bytes) -> dict[str, Any]:
    """The JSON object that *text* is. Raises `ValueError` for anything else."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def canonical(values: Any) -> str:
    """The text that is equal exactly when two sets of (decoded) values count as the same.

    The order of keys does not matter, `1` equals `1.0`, `True` is not `1`, NaN equals NaN, a tuple equals a list.
    """
    is_plain = type(values) is dict and _PLAIN.issuperset(map(type, values.values()))
    if is_plain and all(type(key) is str for key in values) and _TAGS.isdisjoint(values):
        return _CANONICAL.encode({key: _canonical_float(v) if type(v) is float else v for key, v in values.items()})
    return _CANONICAL.encode(_canonical(values))


_CANONICAL = json.JSONEncoder(ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
_PLAIN = frozenset((str, int, bool, type(None), float))  # what most values are, of which a queue has thousands


def _canonical(value: Any) -> Any:
    if _needs_python(value):
        return {"$literal": _literal_text(value)}
    if isinstance(value, Mapping):
        plain = {key: _canonical(item) for key, item in value.items()}
        return {"$dict": plain} if len(plain) == 1 and next(iter(plain)) in _TAGS else plain
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return _canonical_float(value) if isinstance(value, float) else value


def _canonical_float(value: float) -> Any:
    if not math.isfinite(value):
        return {"$float": str(value)}
    return int(value) if value.is_integer() else value


def key(values: Mapping[str, Any]) -> str:
    """Identify a set of (decoded) hyperparameters: SHA-256 of its canonical text."""
    return _sha256(canonical(values))


def joined_architecture(ids: Iterable[str]) -> str | None:
    """The architecture of a run is the set of its models': one id for them all, of the lowest rung among them."""
    unique = sorted(set(ids))
    if len(unique) <= 1:
        return unique[0] if unique else None
    rungs = {architecture.partition("-")[2] for architecture in unique}
    suffix = next((f"-{rung}" for rung in ("tree", "calls") if rung in rungs), "")
    return _sha256("\n".join(unique))[:16] + suffix


def _sha256(text: str) -> str:
    import hashlib  # loads OpenSSL, 4 ms, which listing runs does not need

    return hashlib.sha256(text.encode()).hexdigest()


def short_architecture(architecture: str) -> str:
    """`9f3c` for `9f3c01…`, and `9f3c-tree` for an id of a lower rung: the rung is always shown."""
    digest, dash, rung = architecture.partition("-")
    return digest[:4] + dash + rung


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a run: its architecture, and in which way that was found."""

    architecture: str
    rung: str = "graph"
    type: str = ""
    parameters: int = 0
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """The state dict of one model: where its manifest is, and how large it is."""

    manifest: str
    tensors: int
    bytes: int
    partial: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The states of what a training tracks, after a step of it: where the manifest is, what is in it, and how large it is."""

    step: int
    manifest: str
    time: float
    parts: tuple[str, ...]
    tensors: int
    bytes: int
    results: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)  # by part, the name under which `models` has it
    partial: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """An entry of the branch that another one is about."""

    id: RunId
    commit: str

    def __post_init__(self) -> None:
        if not _OBJECT.fullmatch(self.commit):
            raise ValueError(f"{self.commit!r} is no commit")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A value that the script has saved: where its bytes are, in the record or in an object, or where its tensors are named."""

    file: str | None  # among the files of the record; the manifest where `is_state`
    size: int
    hash: str | None = None  # BLAKE3 of its bytes, and the name of the object where it is in none of the files
    is_state: bool = False

    def __post_init__(self) -> None:
        if self.file is None and not (isinstance(self.hash, str) and _HASH.fullmatch(self.hash)):
            raise ValueError("an artifact that is nowhere")
        if type(self.size) is not int or self.size < 0:
            raise ValueError(f"an artifact of {self.size!r} bytes")


@dataclass(frozen=True, slots=True)
class Summary:
    """What the numbers of one field of a series sum up to; those that are NaN, infinite or missing count only as the last one.

    `lowest_at` and `highest_at` are the values of the first field, the step say, in these rows.
    """

    count: int = 0
    mean: float | None = None
    lowest: float | None = None
    lowest_at: Any = None
    highest: float | None = None
    highest_at: Any = None
    last: Any = None


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers over time: a table of so many rows, as a file of the record, or where it is large as an object, by gzip."""

    rows: int
    size: int  # bytes of the file or of the object
    hash: str  # BLAKE3 of these, and the name of the object
    file: str | None  # `series/….csv`
    fields: Mapping[str, Summary] = field(default_factory=dict)  # in their order

    @classmethod
    def unkept(cls, rows: int, fields: Mapping[str, Summary]) -> Series:
        """One that is still being written: what it sums up to by now."""
        return cls(rows, 0, "0" * 64, None, fields)

    def __post_init__(self) -> None:
        if not _HASH.fullmatch(self.hash) or any(type(n) is not int or n < 0 for n in (self.rows, self.size)):
            raise ValueError("a series that is nowhere")
        if self.file is not None and not re.fullmatch(r"series/[\w-]{1,80}\.csv", self.file):
            raise ValueError(f"{self.file[:80]!r} is no file of a series")


@dataclass(frozen=True, slots=True)
class Segment:
    """An earlier part of a run that was resumed: the commit that tells of it, and where the next one went on."""

    commit: str
    status: str
    seconds: float | None
    step: int
    resumed: float  # when the next one began, Unix time in seconds; tells two that went on after the same step apart
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """With whose weights a training began: those at the end of a run, or of one of its checkpoints."""

    run: RunId
    step: int | None = None

    @classmethod
    def of(cls, text: str) -> Origin | None:
        """The inverse of `str`; None for what is none."""
        run, _, step = text.partition("@")
        try:
            return cls(RunId(run), int(step) if step else None)
        except ValueError:
            return None

    def __str__(self) -> str:
        return self.run if self.step is None else f"{self.run}@{self.step}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file of the work tree that is not in the snapshot, and why."""

    path: str
    size: int
    why: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Nested:
    """A repository inside the work tree: the snapshot holds its HEAD, and a patch what differs from that."""

    path: str
    head: str | None
    patch: str | None = None

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not all(parts) or any(part in (".", "..") or part.lower() == ".git" for part in parts):
            raise ValueError(f"{self.path!r} is no path below the work tree")
        if self.head is not None and not _OBJECT.fullmatch(self.head):
            raise ValueError(f"{self.head!r} is no commit")


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that the record says about a run or a trial. `commit` is where it was read from, and not written.

    Times are seconds since the epoch (UTC); `seconds` is the duration by a monotonic clock.
    """

    id: RunId
    kind: str
    started: float
    status: str = RUNNING
    reason: str | None = None
    exit_code: int | None = None
    seconds: float | None = None
    of: RunId | None = None
    message: str = ""
    command: tuple[str, ...] = ()
    project: str = "."
    base: str | None = None
    branch: str | None = None
    host: str = ""
    queue: str | None = None
    models: Mapping[str, Model] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()  # those of `params` that only stood above `numb_queue`: neither set nor registered
    results: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Weights] = field(default_factory=dict)
    checkpoints: tuple[Checkpoint, ...] = ()
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    init_from: Origin | None = None
    name: str | None = (
        None  # of a trial: which one; of an entry that says something: what it is called from now on, or ""
    )
    tags: tuple[str, ...] = ()  # of an entry that says something
    untags: tuple[str, ...] = ()  # and those that it takes back
    removes: tuple[Named, ...] = ()  # of an entry that removes others
    purges: tuple[str, ...] = ()  # commits: a history that has one of them is as it was before a purge
    left_out: tuple[LeftOut, ...] = ()
    nested: tuple[Nested, ...] = ()
    graph: str | None = None
    notes: tuple[str, ...] = ()
    commit: str | None = None

    @property
    def architecture(self) -> str | None:
        return joined_architecture(model.architecture for model in self.models.values())

    @property
    def network(self) -> str:
        """`Net·9f3c`, `Discriminator+Generator·77ab`, or `-` when no model was seen."""
        if not self.models:
            return "-"
        names = "+".join(sorted({model.type or name for name, model in self.models.items()}))
        return f"{names}·{short_architecture(self.architecture or '')}"

    @property
    def params_key(self) -> str:
        return key(self.params)

    @property
    def without_weights(self) -> list[str]:
        """The models of which the run should have kept the weights, and has not. One that was killed could not."""
        if self.kind != TRAIN or self.status not in (COMPLETE, FAILED, INTERRUPTED):
            return []
        return [name for name in self.models if name not in self.weights]

    @property
    def manifests(self) -> list[str]:
        """The files of the record that name objects."""
        states = [kept.file for kept in self.artifacts.values() if kept.is_state and kept.file]
        return [kept.manifest for kept in self.weights.values()] + [kept.manifest for kept in self.checkpoints] + states

    @property
    def large(self) -> dict[str, int]:
        """Objects that the record itself names, and their sizes: artifacts and series that are too large for git."""
        every: list[Artifact | Series] = [*self.artifacts.values(), *self.series.values()]
        return {kept.hash: kept.size for kept in every if kept.file is None and kept.hash}

    @property
    def in_flight(self) -> bool:
        return self.status == RUNNING

    def to_json(self) -> dict[str, Any]:
        """What stands in `record.json`; `docs/format.md` describes it field by field."""
        plain: dict[str, Any] = {"format": FORMAT}
        for name in (f.name for f in fields(self) if f.name != "commit"):
            value = getattr(self, name)
            match name:
                case "params" | "results":
                    plain[name] = {k: encode(v, k, literals=True) for k, v in value.items()}
                case "models" | "weights" | "artifacts":
                    plain[name] = {k: _plain(v) for k, v in value.items()}
                case "series":
                    plain[name] = {k: _series_to_json(v) for k, v in value.items()}
                case "left_out" | "nested" | "segments" | "removes":
                    plain[name] = [_plain(item) for item in value]
                case "checkpoints":
                    plain[name] = [checkpoint_to_json(item) for item in value]
                case "init_from":
                    plain[name] = None if value is None else _plain(value)
                case "command" | "notes" | "constants" | "purges" | "tags" | "untags":
                    plain[name] = list(value)
                case _:
                    plain[name] = value
        plain["architecture"] = self.architecture
        plain["params_key"] = self.params_key
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], commit: str | None = None) -> Run:
        """Read what `to_json` wrote. Raises `ValueError` for anything else, naming the field; unknown fields are ignored."""
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise ValueError(f"a record of format {plain.get('format') if isinstance(plain, dict) else None!r}")
        name = "id"
        try:
            known: dict[str, Any] = {"id": RunId(plain["id"])}
            for name in (f.name for f in fields(cls) if f.name in plain and f.name not in ("id", "commit")):
                known[name] = _READERS.get(name, _as_is)(plain[name])
            return cls(**known, commit=commit)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"a record whose field {name!r} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Said:
    """What was said about a run after it had ended."""

    notes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    name: str | None = None
    results: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Run]) -> Said:
        """All that *entries* say, oldest first."""
        notes: list[str] = []
        tags: dict[str, None] = {}
        name: str | None = None
        results: dict[str, Any] = {}
        for entry in entries:
            notes += [entry.message] if entry.message else []
            tags = {tag: None for tag in (*tags, *entry.tags) if tag not in entry.untags}
            name = (entry.name or None) if entry.name is not None else name
            results |= entry.results
        return cls(tuple(notes), tuple(tags), name, results)

    def to_json(self) -> dict[str, Any]:
        """As it is listed."""
        return {"name": self.name, "tags": list(self.tags), "remarks": list(self.notes)}


def results_of(run: Run, trials: Sequence[Run], said: Said) -> dict[str, Any]:
    """A run's own results, those of the newest of its *trials* (oldest first) that has some, and what came afterwards.

    Of trials with names the newest of each counts, and its results are a dictionary under that name.
    """
    newest = {trial.name: trial.results for trial in trials if trial.results}
    named = {name: results for name, results in newest.items() if name}
    return {**run.results, **newest.get(None, {}), **named, **said.results}


def handle(text: str) -> str:
    """A name or a tag that is none of the other ways to name a run. Raises `ValueError`, which says why it is none."""
    if not _HANDLE.fullmatch(text) or text.endswith(("/", ".")):
        raise ValueError(f"{printable(text)[:80]!r} must begin with a letter, and go on with letters, digits and -_.+/")
    return text


def _series_to_json(series: Series) -> dict[str, Any]:
    fields = {name: {k: encode(v, name) for k, v in _plain(each).items()} for name, each in series.fields.items()}
    return {**_plain(series), "fields": fields}


def _series(plain: Mapping[str, Any]) -> Series:
    fields = {str(name): _known(Summary, values(each)) for name, each in plain.get("fields", {}).items()}
    return cast(Series, _known(Series, {**plain, "fields": fields}))


def series_from_json(plain: Mapping[str, Any]) -> dict[str, Series]:
    """Series by name, whose names are parts of file names. Raises `ValueError`."""
    return {name: _series(item) for name, item in plain.items() if _check_name(name)}


def checkpoint_to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a record and an event say of a checkpoint."""
    return {**_plain(checkpoint), "results": {k: encode(v, k) for k, v in checkpoint.results.items()}}


def checkpoint_from_json(plain: Mapping[str, Any]) -> Checkpoint:
    """The inverse. Raises `ValueError` or `TypeError` for what is none: its manifest becomes part of a path."""
    found = _known(Checkpoint, {**plain, "results": values(plain.get("results", {}))})
    if not all(type(number) is int and number >= 0 for number in (found.step, found.tensors, found.bytes)):
        raise ValueError("a checkpoint without numbers")
    if found.manifest != checkpoint_manifest(found.step):
        raise ValueError(f"no checkpoint: step {found.step!r}, {found.manifest!r}")
    return cast(Checkpoint, found)


def checkpoint_manifest(step: int) -> str:
    """The name of a checkpoint's manifest among the files of a record."""
    return f"checkpoints/{step}.json"


def _plain(item: Any) -> dict[str, Any]:
    return {f.name: _listed(getattr(item, f.name)) for f in fields(item)}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_is(value: Any) -> Any:
    return value


def values(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Decoded hyperparameters or results."""
    return {k: decode(v) for k, v in plain.items()}


def _known(cls: type, plain: Mapping[str, Any]) -> Any:
    names = {f.name for f in fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k in names})


def _artifact(plain: Mapping[str, Any]) -> Artifact:
    found = cast(Artifact, _known(Artifact, plain))
    if found.file is not None and (not found.file.startswith("artifacts/") or ".." in found.file.split("/")):
        raise ValueError(f"{found.file[:80]!r} is no artifact's file")
    return found


def _segment(plain: Mapping[str, Any]) -> Segment:
    found = _known(Segment, plain)
    if not _OBJECT.fullmatch(found.commit):
        raise ValueError(f"{found.commit!r} is no commit")
    return cast(Segment, found)


def _check_name(name: str) -> bool:
    """Whether it can be part of a file's name; raises `ValueError`, for a record may come from anywhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name")
    return True


def _by_name(cls: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Models and weights by name; names become parts of file names, and a record may come from anywhere."""
    if wrong := [name for name in plain if not _NAME.fullmatch(name)]:
        raise ValueError(f"{wrong[0]!r} is no name of a model")
    return {name: _known(cls, item) for name, item in plain.items()}


_READERS: dict[str, Any] = {
    "of": lambda text: RunId(text) if text is not None else None,
    "command": tuple,
    "notes": tuple,
    "constants": tuple,
    "params": values,
    "results": values,
    "started": float,
    "models": lambda plain: _by_name(Model, plain),
    "weights": lambda plain: _by_name(Weights, plain),
    "artifacts": lambda plain: {str(name): _artifact(item) for name, item in plain.items()},
    "series": lambda plain: series_from_json(plain),
    "tags": lambda plain: tuple(map(handle, plain)),
    "untags": lambda plain: tuple(map(str, plain)),
    "name": lambda plain: None if plain is None else str(plain) and handle(plain),
    "checkpoints": lambda plain: tuple(map(checkpoint_from_json, plain)),
    "removes": lambda plain: tuple(Named(RunId(item["id"]), str(item["commit"])) for item in plain),
    "purges": lambda plain: tuple(filter(is_commit, map(str, plain))),
    "segments": lambda plain: tuple(_segment(item) for item in plain),
    "init_from": lambda plain: None if plain is None else Origin(RunId(plain["run"]), plain.get("step")),
    "left_out": lambda plain: tuple(_known(LeftOut, item) for item in plain),
    "nested": lambda plain: tuple(_known(Nested, item) for item in plain),
}


def lower_is_better(name: str) -> bool:
    """Whether a result of this name is good where it is low: a loss, an error, a distance."""
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*", name)
    return any(word.lower().startswith(_LOWER_IS_BETTER) for word in words)


def best_of(name: str, numbers: Summary) -> tuple[float | None, Any]:
    """The best of the numbers of a field of this name, and where it was: the lowest of a loss, the highest of an accuracy."""
    low = lower_is_better(name)
    return (numbers.lowest, numbers.lowest_at) if low else (numbers.highest, numbers.highest_at)


class History(dict[str, Summary]):
    """What the numbers of each field of a run's series sum up to, by name."""

    def best(self, name: str) -> float | None:
        """The best one, by the name the lowest or the highest; None where there is none."""
        return best_of(name, self[name])[0] if name in self else None


PRUNED = "pruned"  # how the reason begins of a run that was ended because others were better


def is_pruned(run: Run) -> bool:
    """Whether a run was ended because others were better: nothing that is to go on."""
    return run.status == INCOMPLETE and (run.reason or "").startswith(PRUNED)


def is_id(text: str) -> bool:
    """Whether *text* is the whole id of a run."""
    return _ID.fullmatch(text) is not None


def is_commit(text: str) -> bool:
    """Whether *text* is a commit's name."""
    return _OBJECT.fullmatch(text) is not None


def sizes_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The objects that a manifest names, and their sizes. Raises `ValueError` for what is none: it may come from anywhere."""
    sizes = manifest.get("objects")
    if not isinstance(sizes, dict):
        raise ValueError("a manifest without objects")
    for digest, size in sizes.items():
        if not _HASH.fullmatch(digest) or type(size) is not int or size < 0:
            raise ValueError(f"no object: {digest[:80]!r} of {size!r} bytes")
    return dict(sizes)


def with_commits(text: bytes, renamed: Callable[[str], str | None]) -> bytes | None:
    """A record in which the commits that it names are those that they have become; None where that changes nothing."""
    try:
        plain = loads(text)
        run = Run.from_json(plain)
    except ValueError:
        return None
    segments = tuple(replace(each, commit=renamed(each.commit) or each.commit) for each in run.segments)
    removes = tuple(replace(each, commit=new) for each in run.removes if (new := renamed(each.commit)) is not None)
    if (segments, removes) == (run.segments, run.removes):
        return None
    return (dumps(replace(run, segments=segments, removes=removes).to_json(), indent=1) + "\n").encode()


def brief(value: Any, width: int = 24) -> str:
    """A value as a person would write it, on one line and at most *width* characters."""
    match value:
        case float():
            text = f"{value:.6g}"
        case str():
            text = value
        case None | bool() | int():
            text = str(value)
        case _ if _needs_python(value):
            text = str(_literal_text(value))
        case _:
            text = json.dumps(_canonical(value), ensure_ascii=False)
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one level with dotted names; one that is empty, or has a key that is no string, stays whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
            found |= {f"{name}.{inner}": item for inner, item in flat(value).items()}
        else:
            found[name] = value
    return found


def some(items: Sequence[str], most: int = 10) -> str:
    """The first of *items*, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 run`, `2 runs`, `2 entries`."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"


def subject(run: Run) -> str:
    """The first line of a run's commit: `train 20261120-213353-x7f2 Net·9f3c lr=0.1 → acc 0.93`."""
    words = [run.kind, run.id]
    if run.kind == TRIAL and run.name:
        words.insert(1, run.name)
    if run.of:
        words.append(f"of {run.of}")
    if run.segments:
        words.append(f"resumed after step {run.segments[-1].step}")
    if run.init_from:
        words.append(f"from {run.init_from}")
    if run.models:
        words.append(run.network)
    if run.kind == TRAIN:
        words += [f"{name}={brief(value, 12)}" for name, value in list(run.params.items())[:8]]
    if run.status != COMPLETE and run.kind in (TRAIN, TRIAL):
        words.append(f"({run.status})")
    if run.results:
        words.append(
            "→ " + " ".join(f"{name} {brief(value, 12)}" for name, value in list(flat(run.results).items())[:4])
        )
    if run.kind in (SAVED, PURGED):
        words.append(run.message)
    if run.kind == NOTED:
        words += [f"name {run.name}" if run.name else "no name"] if run.name is not None else []
        words += [f"+{tag}" for tag in run.tags] + [f"-{tag}" for tag in run.untags]
        words += [run.message.split("\n")[0]] if run.message else []
    if run.removes:
        words.append(f"{counted(len(run.removes), 'entry', 'entries')}: {some([each.id for each in run.removes], 3)}")
    line = " ".join("".join(c if c.isprintable() else " " for c in word) for word in words)
    return line if len(line) <= 200 else line[:199] + "…"
