"""What two runs differ in, or several, or a run and the work tree: facts by their parts, networks, and code.

What is not known of one of them is said, and not taken for a difference.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import inflight, layout, melding, network, record, tables
from numb.errors import ArtifactMissing, GitFailed, NumbError, ObjectMissing, Usage
from numb.inflight import InFlight
from numb.journal import SYSTEM
from numb.melding import Melded
from numb.network import Network, Step
from numb.record import TRAIN, LeftOut, Model, Nested, Run
from numb.talk import Row

if TYPE_CHECKING:
    from numb.gitstore import GitStore
    from numb.project import Project

RUN, PARAMS, RESULTS, ENVIRONMENT = "run", "hyperparameters", "results", "environment"
_ALWAYS = ((RUN, "started"), (RUN, "status"))  # which say what the columns are
ARCHITECTURE, KEPT, CODE = "architecture", "series and artifacts", "code"
PARTS = (RUN, PARAMS, RESULTS, ENVIRONMENT, ARCHITECTURE, KEPT, CODE)


class Gap(Enum):
    """Why there is no value."""

    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fact:
    """One name, and what each side has there: a value, or a `Gap`."""

    part: str
    name: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether those that are known are not all the same."""
        known = (value for value in self.values if value is not Gap.UNKNOWN)
        return len({"" if value is Gap.MISSING else record.canonical(value) for value in known}) > 1


@dataclass(frozen=True, slots=True)
class Side:
    """A run, or with no row the work tree: what is known of it by part and name, and what is not, a line each by part."""

    row: Row | None
    facts: Mapping[str, Mapping[str, Any]]
    operators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by model
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.row.run.id if self.row else "work tree"


@dataclass(frozen=True, slots=True)
class Networks:
    """One model of both runs: what is known of it in each, and its operators beside each other."""

    name: str
    first: Model | None
    second: Model | None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two sides."""

    sides: tuple[Side, Side]
    facts: tuple[Fact, ...]
    networks: tuple[Networks, ...] = ()
    patch: bytes = b""
    notes: tuple[tuple[str, str], ...] = ()  # part, and what of it could not be compared

    @property
    def is_none(self) -> bool:
        return not (self.networks or self.patch or any(fact.part != RUN for fact in self.facts))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs beside each other."""

    sides: tuple[Side, ...]
    facts: tuple[Fact, ...]
    notes: tuple[tuple[str, str], ...] = ()


def difference(
    project: Project, first: Run, second: Run | None, parts: Collection[str], *, color: bool, exact: bool
) -> Difference:
    """Compare a run with another, or with the work tree; it is `Project.difference`, which says more."""
    if second is None:
        [here] = sides_of(project, [first])
        with project.snapshots.aside() as (git, snapshot, tree):
            now = _work_tree(project, here, snapshot.left_out, snapshot.nested)
            return _difference((here, now), first, None, git, tree, parts, color=color, exact=exact)
    here, there = sides_of(project, [first, second])
    return _difference((here, there), first, second, project.git, None, parts, color=color, exact=exact)


def _difference(
    sides: tuple[Side, Side],
    first: Run,
    second: Run | None,
    git: GitStore,
    tree: str | None,
    parts: Collection[str],
    *,
    color: bool,
    exact: bool,
) -> Difference:
    facts = [
        fact for fact in _facts(sides) if fact.part in parts and (fact.differs or (fact.part, fact.name) in _ALWAYS)
    ]
    facts = [fact for fact in facts if fact.part != ARCHITECTURE]  # which the networks themselves tell
    notes = list(_notes(sides, parts))
    networks = tuple(_networks(*sides)) if ARCHITECTURE in parts and second is not None else ()
    patch = b""
    if CODE in parts:
        try:
            patch = _patch(git, sides, tree, git.patch if exact else git.shown_patch, color=color)
        except NumbError as error:
            notes.append((CODE, str(error)))
    return Difference(sides, tuple(facts), networks, patch, tuple(notes))


def code(project: Project, first: Run, second: Run | None, *, color: bool) -> bytes:
    """The patch from the snapshot of a run to that of another, or to the one that a run would have now."""
    sides = sides_of(project, [first] if second is None else [first, second])
    if second is None:
        with project.snapshots.aside() as (git, _, tree):
            return _patch(git, sides, tree, git.patch, color=color)
    return _patch(project.git, sides, None, project.git.patch, color=color)


def _patch(git: GitStore, sides: Sequence[Side], tree: str | None, made: Callable[..., bytes], *, color: bool) -> bytes:
    trees = [_snapshot(git, side) for side in sides if side.row]
    try:
        return made(*trees, *([tree] if tree else []), color=color)
    except GitFailed:
        for side, known in zip(sides, trees, strict=False):
            if not git.has(known):
                raise _lost(side) from None
        raise


def compared(project: Project, runs: Sequence[Run], *, every: bool = False) -> Comparison:
    """Several runs beside each other: what differs, or with *every* all that is known."""
    sides = tuple(sides_of(project, runs))
    commits = [_commit(project.git, side) for side in sides]
    trees = dict(zip(filter(None, commits), project.git.snapshot_ids([c for c in commits if c]), strict=True))
    known = []
    for side, commit in zip(sides, commits, strict=True):
        tree = trees.get(commit) if commit else None
        code = {**side.facts[CODE], "snapshot": tree[:12] if tree else Gap.UNKNOWN}
        known.append(replace(side, facts={**side.facts, CODE: code}))
    facts = tuple(fact for fact in _facts(known) if every or (fact.differs and fact.name != "started"))
    return Comparison(tuple(known), facts, tuple(_notes(known, PARTS)))


def _facts(sides: Sequence[Side]) -> Iterator[Fact]:
    for part in PARTS:
        known = [side.facts.get(part) for side in sides]
        for name in dict.fromkeys(name for facts in known for name in facts or ()):
            yield Fact(part, name, tuple(Gap.UNKNOWN if f is None else f.get(name, Gap.MISSING) for f in known))


def _notes(sides: Iterable[Side], parts: Collection[str]) -> Iterator[tuple[str, str]]:
    return ((part, line) for side in sides for part, line in side.unknown.items() if part in parts)


# -- a run


def sides_of(project: Project, runs: Sequence[Run]) -> list[Side]:
    """What is known of these runs. Nothing that is missing or damaged raises."""
    trials, lost = project.index.trials(run.id for run in runs), project.index.lost()
    rows = [Row.of(run, trials.get(run.id, ()), lost=run.commit in lost) for run in runs]
    names = ("environment.json", "architecture.json")
    wanted = [(row.run.commit, name) for row in rows if row.run.commit for name in names]
    texts = dict(zip(wanted, project.git.read_all(wanted), strict=True))
    return [_side(project, row, {name: texts.get((row.run.commit or "", name)) for name in names}) for row in rows]


def _side(project: Project, row: Row, texts: Mapping[str, bytes | None]) -> Side:
    run = row.run
    unknown: dict[str, str] = {}
    if run.commit is None:
        flight = InFlight(project.layout.run(run.id))
        told = flight.told()
        environment = inflight.environment(told, run.command, flight.order.launched)
        operators = dict(told.operators)
    else:
        environment, problem = _object(texts["environment.json"])
        if problem:
            unknown[ENVIRONMENT] = f"the environment of {run.id} {problem}"
        kept, problem = _object(texts["architecture.json"])
        operators = _operators(kept)
        if run.models and not operators:
            unknown[ARCHITECTURE] = f"the operators of {run.id} {problem or 'are not known'}"
    facts: dict[str, Mapping[str, Any]] = {
        RUN: _run_facts(row),
        PARAMS: record.flat(run.params),
        RESULTS: record.flat(row.results),
        ARCHITECTURE: {"network": run.network, **{f"parameters of {n}": m.parameters for n, m in run.models.items()}},
        CODE: {"base": _short(run.base), "branch": run.branch, **_outside(run.left_out, run.nested)},
    }
    if run.commit is not None:
        facts[KEPT] = _kept(run)
    if ENVIRONMENT not in unknown:
        facts[ENVIRONMENT] = _environment(environment)
    return Side(row, facts, operators, unknown)


def _object(text: bytes | None) -> tuple[dict[str, Any], str]:
    """A file of a record, and what is wrong with it."""
    if text is None:
        return {}, "is not known"
    try:
        return record.loads(text), ""
    except ValueError:
        return {}, "cannot be read: it is damaged"


def _run_facts(row: Row) -> dict[str, Any]:
    run = row.run
    status = f"{run.status}, lost by git" if row.lost else run.status
    facts = {"started": run.started, "status": status, "seconds": run.seconds, "message": run.message}
    facts |= {"init from": run.init_from and str(run.init_from), "queue": run.queue, "of": run.of}
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _kept(run: Run) -> dict[str, Any]:
    logged = {name: series for name, series in run.series.items() if name != SYSTEM}
    facts: dict[str, Any] = {f"series {name}": record.counted(series.rows, "row") for name, series in logged.items()}
    for name, kept in run.artifacts.items():
        facts[name] = f"{kept.size} bytes{f', {kept.hash[:8]}' if kept.hash else ''}"
    return facts


def _outside(left_out: Iterable[LeftOut], nested: Iterable[Nested]) -> dict[str, Any]:
    """What is no part of the snapshot: files that stay out of it, and repositories inside the work tree."""
    facts: dict[str, Any] = {f"outside: {item.path}": item.size for item in left_out}
    facts |= {f"outside: {item.path}": _short(item.head) + " and changes" * bool(item.patch) for item in nested}
    return facts


def _short(commit: str | None) -> str:
    return commit[:12] if commit else "none"


def _environment(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Where a run took place, by dotted names. Time, place in the file system and process say nothing of it."""
    script = _mapping(plain.get("script"))
    facts: dict[str, Any] = {}
    command = plain.get("command")
    if isinstance(command, list):
        facts["command"] = shlex.join(map(str, command))
    facts |= {name: plain[name] for name in ("host", "platform", "processors") if name in plain}
    names = ("python", "torch", "numpy", "cuda", "gpus", "threads", "deterministic")
    facts |= {name: script[name] for name in names if name in script}
    facts |= {f"seeds.{name}": seed for name, seed in _mapping(script.get("seeds")).items()}
    facts |= {f"variables.{name}": value for name, value in _mapping(plain.get("environment")).items()}
    facts |= {f"packages.{name}": version for name, version in _mapping(plain.get("packages")).items()}
    return {name: value for name, value in facts.items() if value is not None}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _operators(plain: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found = _mapping(plain.get("operators"))
    return {name: tuple(map(str, lines)) for name, lines in found.items() if isinstance(lines, list)}


def _commit(git: GitStore, side: Side) -> str | None:
    """What holds the snapshot of a run: its commit, or while it is in flight its pin."""
    if side.row is None or side.row.lost:
        return None
    return side.row.run.commit or git.commit_of(layout.pin_ref(side.row.run.id))


def _snapshot(git: GitStore, side: Side) -> str:
    found = _commit(git, side)
    if found is None and side.row and side.row.lost:
        raise _lost(side)
    if found is None:
        raise ObjectMissing(f"git has no snapshot of {side.label} yet", "numb list")
    return found


def _lost(side: Side) -> ObjectMissing:
    return ObjectMissing(f"git has lost the commit of {side.label}", "numb doctor")


# -- the work tree


def _work_tree(project: Project, run: Side, left_out: Sequence[LeftOut], nested: Sequence[Nested]) -> Side:
    """What a run that began now would have, as far as that can be told without running it, beside a *run*."""
    head = project.git.head()
    environment, why = _environment_now(project, run)
    unknown = {ENVIRONMENT: why} if why else {}
    facts: dict[str, Mapping[str, Any]] = {
        ENVIRONMENT: environment,
        CODE: {"base": _short(head.commit), "branch": head.branch, **_outside(left_out, nested)},
    }
    try:
        facts[PARAMS] = _params_now(project, run)
    except NumbError as error:  # which numb train would say
        unknown[PARAMS] = str(error)
    return Side(None, facts, unknown=unknown)


def _params_now(project: Project, side: Side) -> dict[str, Any]:
    """The hyperparameters as a training would begin with them. Raises what `Project.settings` raises.

    What only running tells is unknown; so is what the source had when *side* ran already, which then did not ask for it.
    """
    from numb.hp.values import is_literal

    settings, run = project.settings(), side.row.run if side.row else None
    plain, _ = _object(project.branch.read(run, "hyperparameters.json") if run else None)
    before = _names(plain.get("hyperparameters"))
    had = run.params if run is not None else {}
    now: dict[str, Any] = {}
    for row in settings.rows():
        if not (row.known.reached or row.given) or (row.name in before and row.name not in had):
            continue
        now[row.name] = row.value if is_literal(row.value) else Gap.UNKNOWN
    table = project.table if settings.given else settings.table  # and not one that has the names of runs
    for name in had:
        if name not in now and table.may_have(name):
            now[name] = Gap.UNKNOWN
    flat = record.flat(now)
    for name in side.facts[PARAMS]:  # of a dictionary that only running tells
        if any(flat.get(above) is Gap.UNKNOWN for above in _above(name)):
            flat[name] = Gap.UNKNOWN
    return flat


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _environment_now(project: Project, side: Side) -> tuple[dict[str, Any], str]:
    """Where a run would take place, and what of it cannot be told: the packages of an interpreter that is not this one."""
    launched = inflight.launched(project.home, project.config.environment)
    plain = dict(launched)
    with contextlib.suppress(NumbError):
        plain["command"] = inflight.redacted(project.config.command(TRAIN))
    now = _environment(plain)
    python = _interpreter(project)
    is_ours = python is not None and python.parent == Path(sys.executable).parent and python.name.startswith("python")
    if is_ours:
        now["python"] = sys.version.split()[0]
        now |= {f"packages.{name}": version for name, version in inflight.packages(sys.path).items()}
    for name in side.facts.get(ENVIRONMENT, {}):
        if name not in now and not (name.startswith("variables.") or (is_ours and name.startswith("packages."))):
            now[name] = Gap.UNKNOWN
    if is_ours:
        return now, ""
    return now, f"python and packages of the work tree are not known: numb runs in {sys.executable}"


def _interpreter(project: Project) -> Path | None:
    """The program that the train command starts."""
    try:
        found = shutil.which(project.config.command(TRAIN)[0], path=None)
    except NumbError:
        return None
    return Path(found).absolute() if found else None


# -- networks


def _networks(first: Side, second: Side) -> Iterator[Networks]:
    here, there = (dict(side.row.run.models) if side.row else {} for side in (first, second))
    names = list(dict.fromkeys([*here, *there]))
    if len(here) == len(there) == 1 and here.keys() != there.keys():  # the one that was called otherwise
        (one, mine), (other, theirs) = *here.items(), *there.items()
        pairs = [(f"{one}, {other}", mine, theirs, one, other)]
    else:
        pairs = [(name, here.get(name), there.get(name), name, name) for name in names]  # type: ignore[misc]
    for title, model, their, one, other in pairs:
        if model and their and model.architecture == their.architecture:
            continue
        lines, others = first.operators.get(one, ()), second.operators.get(other, ())
        is_known = (model is None or lines) and (their is None or others)
        is_alike = not (model and their) or model.rung == their.rung
        steps = network.aligned(lines, others) if is_known and is_alike else ()
        yield Networks(title, model, their, tuple(steps))


def networks(project: Project, run: Run) -> list[Network]:
    """The operators of each model of a run: from its graph, or that of a run of the same architecture, else from its lines."""
    [side] = sides_of(project, [run])
    return [_network(project, side, run, name, model) for name, model in run.models.items()]


def _network(project: Project, side: Side, run: Run, name: str, model: Model) -> Network:
    said = f"{name}: no ONNX graph "
    why = model.why or next((note.removeprefix(said) for note in run.notes if note.startswith(said)), None)
    file = "graph.onnx" if len(run.models) == 1 else f"graph-{name}.onnx"
    content = project.branch.read(run, file)
    if content is None and run.architecture and (commit := project.index.with_graph(run.architecture)):
        content = project.git.read(commit, file)
    if content is not None:
        try:
            return network.from_onnx(name, content, _weight_names(project, run, name))
        except ValueError as error:  # the lines say less, and are there
            why = f"{file}: {error}"
    return network.from_lines(name, side.operators.get(name, ()), model.rung, why)


def _weight_names(project: Project, run: Run, name: str) -> list[str]:
    if name not in run.weights:
        return []
    plain, _ = _object(project.branch.read(run, run.weights[name].manifest))
    return _names(plain.get("tensors"))


def _names(rows: Any) -> list[str]:
    """The names in a list of objects, whatever it is."""
    return [str(each.get("name")) for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []


# -- series


def melded(project: Project, runs: Mapping[str, str], name: str) -> Melded:
    """One field of a series of several runs, by their ids, as columns with these labels; see `melding.meld`.

    *name* is `SERIES:FIELD`, or a field of the series `log`, or a series that has one field beside its first. Raises
    `ArtifactMissing` for a run that has no such field, and `Usage` for no run.
    """
    if not runs:
        raise Usage("no run is named", "numb list")
    if len(labels := tuple(dict.fromkeys(runs.values()))) < len(runs):
        raise Usage("two runs have the same label", "name each of them in its own way")
    found = [(run, *_field(project, run, name)) for run in map(project.find, runs)]
    columns = [_column(project, run, series, wanted) for run, series, _, wanted in found]
    return Melded(found[0][2], labels, tuple(melding.meld(dict(zip(labels, columns, strict=True)))))


def _column(project: Project, run: Run, series: str, name: str) -> Iterator[tuple[Any, Any]]:
    for block in project.series(run, series):
        if name in block.fields:
            yield from zip(block.columns[0], block.columns[block.fields.index(name)], strict=True)


def _field(project: Project, run: Run, name: str) -> tuple[str, str, str]:
    """The series, its first field, and the one that is meant."""
    known = tables.fields(project, run)
    series, colon, wanted = name.rpartition(":")
    if not colon:
        alone = known.get(name, [])[1:]
        series, wanted = (name, alone[0]) if len(alone) == 1 and name not in known.get("log", ()) else ("log", name)
    if wanted not in known.get(series, ()):
        there = ", ".join(f"{each}:{one}" for each, names in known.items() for one in names) or "no series"
        raise ArtifactMissing(f"{run.id} has no {series}:{wanted}; it has {there}", f"numb show {run.id}")
    return series, known[series][0], wanted
