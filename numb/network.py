"""A network as a table of its operators, read from an ONNX file without weights, or from the lines of `architecture.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STATE_FROM = {
    "BatchNormalization": 3,
    "InstanceNormalization": 3,
}  # the first input that is no parameter but statistics
_SHAPES = frozenset(("Shape", "Size"))  # what becomes of data here is none any more
_LARGE = 250_000  # pairs of operators
_LONGEST = 8  # numbers of an attribute that are shown
_ATTRIBUTE = re.compile(r"(\w+)=((?:\[[^\]]*\]|\([^)]*\)|[^\s,\[\]()])+)")
_SHAPE = re.compile(r"\d+(x\d+)*")


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: what it is called, the shapes of its outputs and weights, and how many parameters stand at it first."""

    name: str
    shape: tuple[str, ...] = ()  # `1x16x8x8` of each output; `?` where it is not known
    weights: Mapping[str, str] | None = None  # by name in the network; None where only the lines are known
    parameters: int | None = (
        None  # elements, those of an earlier operator not counted again; None where it is not known
    )
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """The operators of one model, in the order of execution."""

    model: str
    operators: tuple[Operator, ...]
    source: str  # `onnx`, or by which rung the lines were found
    why: str | None = None  # there is no graph

    @property
    def parameters(self) -> int | None:
        """Those of all operators, each counted once; None where that is not known."""
        counts = [each.parameters for each in self.operators]
        return None if None in counts else sum(filter(None, counts))


def from_onnx(model: str, content: bytes, known: Iterable[str] = ()) -> Network:
    """Read an ONNX file of numb's, whose weights are inputs of its graph; *known* are names that weights have.

    What has no data among its inputs, a constant, a shape or a transposed weight, is no operator here: it is part of the one
    that takes it. Raises `ValueError` for what is no such file.
    """
    import onnx

    try:
        file = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, which has no public name
        raise ValueError(f"no ONNX file: {error}") from None
    try:
        file = onnx.shape_inference.infer_shapes(file, data_prop=True)
    except Exception:  # an operator that it does not know: the shapes that stand in the file must do
        pass
    graph = file.graph
    if not all(isinstance(text, str) for text in _texts(graph)):  # which protobuf hands out as bytes
        raise ValueError("no ONNX file: it has a name that is no text")
    shapes = {each.name: _shape(each) for each in (*graph.value_info, *graph.output, *graph.input)}
    sizes = {each.name: _elements(each) for each in graph.input}
    carried = _weights([each.name for each in graph.input], set(known)) | {each.name: () for each in graph.initializer}
    seen: set[str] = set()
    operators = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type in _SHAPES:
            carried |= dict.fromkeys(node.output, ())
            continue
        if all(name in carried for name in inputs) and not _has_graph(node):
            taken = tuple(dict.fromkeys(each for name in inputs for each in carried[name]))
            carried |= dict.fromkeys(node.output, taken)
            continue
        state = _STATE_FROM.get(node.op_type, len(node.input))
        parameters = {each for name in node.input[:state] for each in carried.get(name, ())}
        mine = [each for name in inputs for each in carried.get(name, ())]
        count = sum(sizes[each] for each in parameters - seen)
        seen |= parameters
        operators.append(
            Operator(
                node.op_type,
                tuple(shapes.get(name, "?") for name in node.output if name),
                {each: shapes[each] for each in dict.fromkeys(mine)},
                count,
                {each.name: _attribute(each) for each in node.attribute},
            )
        )
    return Network(model, tuple(operators), "onnx")


def _texts(graph: Any) -> Iterator[Any]:
    for value in (*graph.value_info, *graph.output, *graph.input, *graph.initializer):
        yield value.name
    for value in (*graph.value_info, *graph.output, *graph.input):
        yield from (side.dim_param for side in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.op_type, *node.input, *node.output, *(each.name for each in node.attribute))


def _weights(inputs: Sequence[str], known: set[str]) -> dict[str, tuple[str, ...]]:
    """Those of a graph's inputs that are no data, each with the weight that it is, if it is not a constant of the exporter.

    Data comes first, and where no name is *known* (the graph may be that of an earlier run, which had other names), under names
    without a dot.
    """
    is_weight = known.__contains__ if not known.isdisjoint(inputs) else _is_dotted
    first = next((n for n, name in enumerate(inputs) if is_weight(name)), len(inputs))
    return {name: (name,) if is_weight(name) or is_weight is _is_dotted else () for name in inputs[first:]}


def _is_dotted(name: str) -> bool:
    head, dot, last = name.rpartition(".")
    return bool(dot and head) and not last.isdigit()


def _has_graph(node: Any) -> bool:
    return any(each.HasField("g") or each.graphs for each in node.attribute)


def _shape(value: Any) -> str:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return "?"
    sides = value.type.tensor_type.shape.dim
    return "x".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in sides) or "number"


def _elements(value: Any) -> int:
    return math.prod(side.dim_value for side in value.type.tensor_type.shape.dim)


def _attribute(attribute: Any) -> str:
    import onnx

    kinds = onnx.AttributeProto
    match attribute.type:
        case kinds.GRAPH:
            return f"{len(attribute.g.node)} operators"
        case kinds.TENSOR:
            return f"tensor {'x'.join(map(str, attribute.t.dims))}".rstrip()
        case kinds.FLOAT:
            return f"{attribute.f:.6g}"
        case kinds.STRING:
            return str(attribute.s.decode(errors="replace"))
        case kinds.INTS | kinds.FLOATS:
            every = list(attribute.ints) or [f"{each:.6g}" for each in attribute.floats]
            more = f", … {len(every)} in all" if len(every) > _LONGEST else ""
            return f"[{', '.join(map(str, every[:_LONGEST]))}{more}]"
        case kinds.INT:
            return str(attribute.i)
        case _:
            return "…"


def from_lines(model: str, lines: Iterable[str], rung: str, why: str | None = None) -> Network:
    """Read the lines of an architecture, whose shapes are those of the first weight of each operator."""
    return Network(model, tuple(map(_operator, lines)), rung, why)


def _operator(line: str) -> Operator:
    name, rest, attributes = parts(line)
    return Operator(" ".join([name, *([rest] if rest and not _SHAPE.fullmatch(rest) else [])]), attributes=attributes,
                    weights={"weight": rest} if _SHAPE.fullmatch(rest) else None)  # fmt: skip


def parts(line: str) -> tuple[str, str, dict[str, str]]:
    """The name of an operator, what follows it, and its attributes: `conv2d 16x1x3x3 padding=[1, 1]`."""
    name = re.match(r"[\w.:+-]*", line)[0]  # type: ignore[index]  # which matches anything
    rest = line[len(name) :]
    attributes = dict(_ATTRIBUTE.findall(rest))
    left = " ".join(_ATTRIBUTE.sub("", rest).replace("(", " ").replace(")", " ").replace(",", " ").split())
    return name or line, left, attributes


# Two of them beside each other


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of two networks: `=` in both, `~` with what changed, `-` only in the first, `+` only in the second."""

    mark: str
    first: str | None
    second: str | None

    @property
    def changes(self) -> str:
        """What is another in the second: its shape, its attributes."""
        (_, left, old), (_, right, new) = parts(self.first or ""), parts(self.second or "")
        told = [f"{left or '-'} → {right or '-'}"] if left != right else []
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join([*told, *(f"{name} {old.get(name, '-')} → {new.get(name, '-')}" for name in names)])


def aligned(first: Sequence[str], second: Sequence[str]) -> list[Step]:
    """Two lists of operators beside each other: equal ones first, and between these those of the same name.

    Of large networks those of the same name at once: one in which every other line differs would take a minute.
    """
    return list(_steps(first, second, whole=len(first) * len(second) <= _LARGE))


def _steps(first: Sequence[str], second: Sequence[str], *, whole: bool) -> Iterator[Step]:
    import difflib

    here, there = (list(lines) if whole else [parts(line)[0] for line in lines] for lines in (first, second))
    start = _common(here, there)
    end = _common(here[start:][::-1], there[start:][::-1])
    yield from _both(first[:start], second[:start])
    middle, other = first[start : len(first) - end], second[start : len(second) - end]
    matcher = difflib.SequenceMatcher(
        None, here[start : len(here) - end], there[start : len(there) - end], autojunk=False
    )
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            yield from _both(middle[a:b], other[c:d])
        elif what == "replace" and whole:
            yield from _steps(middle[a:b], other[c:d], whole=False)
        else:
            yield from (Step("-", line, None) for line in middle[a:b])
            yield from (Step("+", None, line) for line in other[c:d])
    yield from _both(first[len(first) - end :], second[len(second) - end :])


def _both(first: Iterable[str], second: Iterable[str]) -> Iterator[Step]:
    for one, other in zip(first, second, strict=True):
        yield Step("=" if one == other else "~", one, other)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """How many lines two lists begin with alike."""
    shorter = min(len(first), len(second))
    return next((n for n in range(shorter) if first[n] != second[n]), shorter)
