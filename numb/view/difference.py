"""What runs differ in: for a terminal as a table with a column for each, and as JSON and CSV."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from numb import record
from numb.errors import printable
from numb.record import Model
from numb.view import table
from numb.view.table import Row, grid

_ORDER = ("run", "hyperparameters", "results", "code", "environment", "architecture", "series and artifacts")
_LEAST = 10  # characters of a value
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_AROUND = 2  # equal operators that are shown beside others


class Side(Protocol):
    """A run, or the work tree."""

    @property
    def row(self) -> Row | None: ...
    @property
    def label(self) -> str: ...


class Fact(Protocol):
    """One name, and what each side has there; an `Enum` is no value, but why there is none."""

    @property
    def part(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def values(self) -> tuple[Any, ...]: ...


class Step(Protocol):
    """One operator of two networks."""

    @property
    def mark(self) -> str: ...
    @property
    def first(self) -> str | None: ...
    @property
    def second(self) -> str | None: ...
    @property
    def changes(self) -> str: ...


class Networks(Protocol):
    """One model of two runs."""

    @property
    def name(self) -> str: ...
    @property
    def first(self) -> Model | None: ...
    @property
    def second(self) -> Model | None: ...
    @property
    def steps(self) -> Sequence[Step]: ...


class Compared(Protocol):
    """Sides, their facts, and what could not be compared."""

    @property
    def sides(self) -> Sequence[Side]: ...
    @property
    def facts(self) -> Sequence[Fact]: ...
    @property
    def notes(self) -> Sequence[tuple[str, str]]: ...


class Difference(Compared, Protocol):
    """Two sides, and all that differs."""

    @property
    def networks(self) -> Sequence[Networks]: ...
    @property
    def patch(self) -> bytes: ...
    @property
    def is_none(self) -> bool: ...


def shown(found: Difference, *, bold: Callable[[str], str] = str, width: int | None = None) -> str:
    """Everything but the patch, which is the last of it: a table of facts, and the networks."""
    facts = _table(found.sides, found.facts, bold, width, changes=True)
    sections = [facts, *(_networks(each, bold) for each in found.networks), _notes(found.notes)]
    if found.is_none:
        sections.append("nothing differs" + " of what is known" * bool(found.notes))
    return "\n\n".join(filter(None, sections))


def patch(content: bytes) -> str:
    """A coloured patch as a terminal may safely show it: what is in it beside colours is spelled out."""
    text = content.decode(errors="replace").replace("\t", "    ")
    return "\n".join("".join(map(_harmless, _COLOUR.split(line))) for line in text.split("\n"))


def _harmless(part: str) -> str:
    return part if _COLOUR.fullmatch(part) else printable(part)


def compared(found: Compared, *, bold: Callable[[str], str] = str, width: int | None = None) -> str:
    """A table of facts with a column for each run, or where that is too wide with a line for each."""
    facts = sorted(found.facts, key=lambda fact: _ORDER.index(fact.part))
    if not facts:
        return "\n\n".join(["nothing differs", *filter(None, [_notes(found.notes)])])
    text = _table(found.sides, facts, bold, None)
    if width is not None and max(map(len, text.splitlines())) > width:
        narrow = _table(found.sides, facts, bold, width)
        text = narrow if max(map(len, narrow.splitlines())) <= width else _lines(found.sides, facts, width)
    return "\n\n".join(filter(None, [text, _notes(found.notes)]))


def _table(
    sides: Sequence[Side],
    facts: Sequence[Fact],
    bold: Callable[[str], str],
    width: int | None,
    *,
    changes: bool = False,
) -> str:
    names = min(40, max((len(printable(fact.name)) for fact in facts), default=0))
    room = 60 if width is None else max(_LEAST, (width - 2 - names) // (len(sides) + changes) - 3)
    headings, part = set[int](), ""
    rows: list[list[str]] = []
    for fact in facts:
        if fact.part not in (part, "run"):
            headings.add(len(rows) + 1)
            rows.append([fact.part, *[""] * (len(sides) + changes)])
        part = fact.part
        rows.append([record.brief(fact.name, 40), *_cells(fact, room), *([_change(fact)] if changes else [])])
    text = grid(rows, ["", *(side.label for side in sides), *([""] if changes else [])])
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line if n in headings else f"  {line}" for n, line in enumerate(lines)]
    return "\n".join(bold(line) if n in headings or n == 0 else line for n, line in enumerate(lines))


def _lines(sides: Sequence[Side], facts: Sequence[Fact], width: int) -> str:
    """The same turned round; what matters least is left out until it fits, and said."""
    columns = [(printable(fact.name), _cells(fact, 24)) for fact in facts]
    hidden: list[str] = []
    while True:
        rows = [[side.label, *(cells[n] for _, cells in columns)] for n, side in enumerate(sides)]
        text = grid(rows, ["", *(name for name, _ in columns)])
        lines = [line.rstrip() for line in text.splitlines()]
        if len(columns) <= 1 or max(map(len, lines)) <= width:
            left_out = f"\ntoo narrow for {', '.join(hidden)}" if hidden else ""
            return "\n".join(lines) + left_out
        hidden.insert(0, columns.pop()[0])


def _cells(fact: Fact, width: int) -> list[str]:
    top = table.best(fact.name, fact.values) if fact.part == "results" else None
    marks = ["*" if top is not None and _number(value) == top else "" for value in fact.values]
    if all(mark or isinstance(value, Enum) for mark, value in zip(marks, fact.values, strict=True)):
        marks = [""] * len(marks)
    return [_cell(fact, value, width) + mark for value, mark in zip(fact.values, marks, strict=True)]


def _cell(fact: Fact, value: Any, width: int) -> str:
    if isinstance(value, Enum):
        return "-" if value.value == "missing" and fact.part != "run" else ""
    if fact.part == "run" and fact.name == "started":
        return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(value))} ({table.age(value, time.time())} ago)"
    if fact.part == "run" and fact.name == "seconds":
        return f"{value:.1f}"
    return "''" if value == "" else record.brief(value, width)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return None
    return float(value)


def _change(fact: Fact) -> str:
    first, second = map(_number, fact.values)
    if fact.part != "results" or first is None or second is None:
        return ""
    by = second - first
    if not math.isfinite(by):
        return ""
    relative = f" ({100 * by / abs(first):+.3g} %)" if first else ""
    return f"{by:+.4g}{relative}"


def _notes(notes: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{part}: {printable(line)}" for part, line in notes)


def _networks(each: Networks, bold: Callable[[str], str]) -> str:
    lines = [bold(f"network {printable(each.name)}") + f"  {_model(each.first)} → {_model(each.second)}"]
    if each.first and each.second:
        by = each.second.parameters - each.first.parameters
        lines[0] += f" ({by:+,} parameters)" if by else " (as many parameters)"
        if each.first.rung != each.second.rung:
            lines.append(
                f"  seen by its {each.first.rung} and by its {each.second.rung}, which cannot be put beside each other"
            )
    near = {n + k for n, step in enumerate(each.steps) if step.mark != "=" for k in range(-_AROUND, _AROUND + 1)}
    last = -1
    for n, step in enumerate(each.steps):
        if n in near:
            lines += [f"    … {n - last - 1} the same"] if n - last > 1 else []
            last = n
            lines.append(f"  {step.mark.replace('=', ' ')} {_operator(step)}")
    if each.steps and (left := len(each.steps) - last - 1):
        lines.append(f"    … {left} the same")
    return "\n".join(lines)


def _model(model: Model | None) -> str:
    if model is None:
        return "none"
    return f"{model.architecture[:4]} with {model.parameters:,} parameters"


def _operator(step: Step) -> str:
    if step.mark == "~":
        name = re.split(r"[ (]", step.first or "")[0]
        return f"{printable(name)}  {printable(step.changes)}"
    return printable(step.first or step.second or "")


def as_json(found: Difference | Compared, **more: Any) -> str:
    """An object: the runs, the facts by part and name as a list of values, of which null is missing or not known, the rest."""
    facts: dict[str, dict[str, list[Any]]] = {}
    for fact in found.facts:
        facts.setdefault(fact.part, {})[fact.name] = [_plain(value) for value in fact.values]
    plain: dict[str, Any] = {"runs": [side.row and side.row.run.id for side in found.sides], **facts}
    if networks := getattr(found, "networks", ()):
        plain["networks"] = {each.name: _networks_json(each) for each in networks}
    if code := getattr(found, "patch", b""):
        plain["patch"] = code.decode(errors="surrogateescape")
    plain["notes"] = [f"{part}: {line}" for part, line in found.notes]
    return record.dumps({**plain, **more}, indent=2)


def _plain(value: Any) -> Any:
    return None if isinstance(value, Enum) else record.encode(value, literals=True)


def _networks_json(each: Networks) -> dict[str, Any]:
    models = [each.first, each.second]
    return {
        "architecture": [model and model.architecture for model in models],
        "parameters": [model and model.parameters for model in models],
        "operators": [{"mark": step.mark, "first": step.first, "second": step.second} for step in each.steps],
    }


def as_csv(found: Compared) -> str:
    """A line for each fact, a column for each run."""
    rows = [[fact.part, fact.name, *map(_known, fact.values)] for fact in found.facts]
    return table.csv_of(["part", "name", *(side.label for side in found.sides)], rows).rstrip("\n")


def _known(value: Any) -> Any:
    return None if isinstance(value, Enum) else value


class Melded(Protocol):
    """Columns of several runs beside each other."""

    @property
    def index(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def rows(self) -> Sequence[Sequence[Any]]: ...


def melded(found: Melded) -> str:
    """CSV of it, gaps empty."""
    return table.csv_of([found.index, *found.labels], found.rows).rstrip("\n")


# A network by itself


class Operator(Protocol):
    """One operator of a network."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[str, ...]: ...
    @property
    def weights(self) -> Mapping[str, str] | None: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def attributes(self) -> Mapping[str, str] | None: ...


class Network(Protocol):
    """The operators of one model."""

    @property
    def model(self) -> str: ...
    @property
    def operators(self) -> Sequence[Operator]: ...
    @property
    def source(self) -> str: ...
    @property
    def why(self) -> str | None: ...
    @property
    def parameters(self) -> int | None: ...


def networks(found: Sequence[Network], models: Mapping[str, Model], *, bold: Callable[[str], str] = str) -> str:
    """A table of operators for each model, and how many they are."""
    return "\n\n".join(_network(each, models[each.model], bold) for each in found)


def _network(network: Network, model: Model, bold: Callable[[str], str]) -> str:
    title = bold(f"{printable(network.model)}  {printable(model.type)}·{record.short_architecture(model.architecture)}")
    source = "" if network.source == "onnx" else f"\nno ONNX graph: {printable(network.why or 'none was kept')}"
    rows = [
        [
            str(number),
            printable(each.name),
            " ".join(map(printable, each.shape)),
            " ".join(map(printable, (each.weights or {}).values())),
            "" if each.parameters is None else f"{each.parameters:,}" if each.parameters else "",
            record.brief(" ".join(f"{name}={value}" for name, value in (each.attributes or {}).items()), 100),
        ]
        for number, each in enumerate(network.operators)
    ]
    heads = ["", "operator", "output", "weights", "parameters", "attributes"]
    used = [n for n in range(len(heads)) if n < 2 or any(row[n] for row in rows)]
    right = [n for n, column in enumerate(used) if heads[column] in ("", "parameters")]
    text = grid([[row[n] for n in used] for row in rows], [heads[n] for n in used], right)
    lines = [line.rstrip() for line in text.splitlines()]
    total = f"{record.counted(len(rows), 'operator')}, {model.parameters:,} parameters"
    counted = network.parameters
    if counted is not None and counted != model.parameters:
        total += f"; {counted:,} at those of the graph"
    return "\n".join([title + source, *lines, total])


def networks_json(found: Sequence[Network], models: Mapping[str, Model]) -> str:
    """By model its operators, in order."""
    plain = {
        each.model: {
            "architecture": models[each.model].architecture,
            "parameters": models[each.model].parameters,
            "source": each.source,
            "why": each.why,
            "operators": [
                {
                    "operator": one.name,
                    "output": list(one.shape),
                    "weights": one.weights and dict(one.weights),
                    "parameters": one.parameters,
                    "attributes": one.attributes and dict(one.attributes),
                }
                for one in each.operators
            ],
        }
        for each in found
    }
    return json.dumps(plain, indent=2, ensure_ascii=False)
