"""A model's graph as `torch.jit.trace` sees it, in canonical form: equal texts for equal computations.

The text is written from the outputs back, each node numbered when it is first needed, so that neither names nor the
order of independent statements are in it. Parameters and buffers are leaves, known by their tensor, not their name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch

from numb.capture.dummy import Call, kind, map_tensors, tensors
from numb.capture.modes import constant

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "mish", "gelu", "threshold")
SQUASHES = ("sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid")
DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
IN_PLACE_TWINS = frozenset(f"aten::{name}_" for name in (*ACTIVATIONS, *SQUASHES, *DROPOUTS))
OF_THE_MACHINE = frozenset(("benchmark", "deterministic", "cudnn_enabled", "allow_tf32", "device", "pin_memory"))


class Flat(torch.nn.Module):
    """A model between flat tuples of tensors, which is all that torch's exporters take and give."""

    def __init__(self, model: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.given = SimpleNamespace(call=call)  # a type of which the tracer makes no attribute

    def forward(self, *flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ahead = iter(flat)
        args, kwargs = map_tensors(lambda _: next(ahead), self.given.call)
        return tuple(tensors(self.model(*args, **kwargs)))


def flat_inputs(call: Call) -> tuple[torch.Tensor, ...]:
    """Return the tensors that `Flat` takes for *call*, each an object of its own: the tracer knows them by identity."""
    found: list[torch.Tensor] = []
    map_tensors(lambda tensor: (found.append(tensor), tensor)[1], call)  # type: ignore[func-returns-value]
    return tuple(found)


def traced(model: torch.nn.Module, call: Call) -> tuple[list[str], tuple[str, ...]]:
    """Return the canonical lines of *model*'s graph, and its operators for a reader. Raises what the tracer raises."""
    graph = _traced(model, call)
    lines = graph.lines()
    mute = [module for module in graph.attentions(Flat(model, call)) if not module.training]
    if mute:
        # A dropout that an attention gets as a number is 0 in eval mode. Such a module is looked at as it trains.
        for module in mute:
            module.training = True
        try:
            graph = _traced(model, call)
            lines = graph.lines()
        except Exception:  # the user's code; without that number, then
            pass
    return lines, graph.operators()


def _traced(model: torch.nn.Module, call: Call) -> Graph:
    leaves = Leaves(model)  # before the model runs, for it may put another tensor in a buffer's place
    trace: Any = torch.jit.trace  # untyped
    return Graph(trace(Flat(model, call), flat_inputs(call), check_trace=False, strict=False), leaves)


class Leaves:
    """The numbers of parameters and buffers, in the order in which they are first asked for."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._kinds = {id(tensor): "buffer" for tensor in model.buffers()}
        self._kinds |= {id(tensor): "param" for tensor in model.parameters()}
        self._numbers: dict[int, int] = {}

    def name(self, tensor: torch.Tensor) -> str | None:
        """Return how a canonical text names *tensor*; None when it belongs to the computation and not to the model."""
        what = self._kinds.get(id(tensor), "param" if isinstance(tensor, torch.nn.Parameter) else None)
        if what is None:
            return None
        number = self._numbers.setdefault(id(tensor), len(self._numbers))
        return f"{what} #{number} {kind(tensor)}[{','.join(map(str, tensor.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """What an operator's schema says of its arguments. Empty for the tracer's own nodes, which have no schema."""

    names: tuple[str, ...] = ()
    defaults: tuple[Any, ...] = ()
    written: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()  # the arguments of which an output may be a view

    def name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else ""


@lru_cache(maxsize=1024)
def _signature(schema: str) -> Signature:
    if "->" not in schema:
        return Signature()
    parsed: Any = torch._C.parse_schema(schema)
    shares = any(output.alias_info is not None for output in parsed.returns)
    aliased = [(index, each.alias_info) for index, each in enumerate(parsed.arguments) if each.alias_info is not None]
    return Signature(
        names=tuple(argument.name for argument in parsed.arguments),
        defaults=tuple(argument.default_value for argument in parsed.arguments),
        written=tuple(index for index, alias in aliased if alias.is_write),
        shared=tuple(index for index, _ in aliased) if shares else (),
    )


@dataclass(slots=True)
class Step:
    """One node, with what the writer asks about it most."""

    index: int
    node: Any
    kind: str
    inputs: list[str]
    outputs: list[str]
    signature: Signature


class Graph:
    """One traced graph, being written down."""

    def __init__(self, script: Any, leaves: Leaves) -> None:
        self._graph = script.inlined_graph
        self._leaves = leaves
        self._values: dict[str, Any] = {}
        self._objects: dict[str, Any] = {}
        self._same: dict[str, str] = {}
        self._producer: dict[str, Step] = {}
        self._names: dict[str, str] = {}
        self._lines: list[str] = []
        receiver, *inputs = self._graph.inputs()
        self._objects[receiver.debugName()] = script
        self._names |= {value.debugName(): f"input {index}" for index, value in enumerate(inputs)}
        self._steps = [self._step(index, node) for index, node in enumerate(self._graph.nodes())]
        self._number: dict[int, int] = {}
        self._changes = self._find_changes()

    def _step(self, index: int, node: Any) -> Step:
        inputs = [self._same.get(name, name) for name in map(self._remember, node.inputs())]
        outputs = [self._remember(value) for value in node.outputs()]
        kind = node.kind()
        if kind == "prim::GetAttr":
            self._objects[outputs[0]] = getattr(self._objects[inputs[0]], node.s("name"))
        step = Step(index, node, kind, inputs, outputs, _signature(node.schema()))
        self._producer |= dict.fromkeys(outputs, step)
        packed = self._producer.get(inputs[0]) if kind in UNPACKINGS else None
        if packed is not None and packed.kind in LISTS:  # wrapped and unwrapped again
            self._same |= dict(zip(outputs, packed.inputs, strict=True))
        return step

    def _remember(self, value: Any) -> str:
        name: str = value.debugName()
        self._values[name] = value
        return name

    def attentions(self, root: torch.nn.Module) -> list[torch.nn.Module]:
        """Return the modules below *root* that call for attention by themselves."""
        nodes = [step.node for step in self._steps if step.kind == "aten::scaled_dot_product_attention"]
        paths = {node.scopeName().rpartition("/")[2].removeprefix("__module.") for node in nodes}
        return [module for path, module in root.named_modules() if path in paths]

    # -- writes ---------------------------------------------------------------------------------------------------

    def _find_changes(self) -> dict[str, list[int]]:
        """Return, for each value, the steps that write into its memory. Empty for most graphs."""
        writers = [step for step in self._steps if step.signature.written and not self._is_twin(step)]
        if not writers:
            return {}
        memory = self._shared_memory()
        changes: dict[str, list[int]] = {}
        for step in writers:
            for index in step.signature.written:
                changes.setdefault(memory(step.inputs[index]), []).append(step.index)
        return {name: changes[memory(name)] for name in self._values if memory(name) in changes}

    def _shared_memory(self) -> Callable[[str], str]:
        """Return a function from a value to one that stands for all that may share its memory."""
        parent: dict[str, str] = {}

        def find(name: str) -> str:
            while name in parent:
                name = parent[name]
            return name

        def join(one: str, other: str) -> None:
            if find(one) != find(other):
                parent[find(one)] = find(other)

        first: dict[int, str] = {}
        for name, thing in self._objects.items():
            join(name, first.setdefault(id(thing), name))
        for step in self._steps:
            together = range(len(step.inputs)) if step.kind in WIRES else step.signature.shared
            for index in together:
                for output in step.outputs:
                    join(step.inputs[index], output)
        return find

    def _is_twin(self, step: Step) -> bool:
        """Say whether *step* computes in place what nobody else will see, and so is the same as out of place."""
        return step.kind in IN_PLACE_TWINS and self._is_private(step.inputs[0])

    def _is_private(self, name: str) -> bool:
        while name in self._producer and len(self._values[name].uses()) == 1:
            step = self._producer[name]
            if not step.signature.names:  # a parameter, a part of a list
                return False
            if not step.signature.shared:
                return True
            name = step.inputs[step.signature.shared[0]]
        return False

    def _changed_before(self, step: Step) -> list[int]:
        """Return the last write into the memory of each of *step*'s operands, between its making and now."""
        if not self._changes:
            return []
        last = set()
        for name in self._operands(step):
            made = self._producer[name].index if name in self._producer else -1
            between = [index for index in self._changes.get(name, ()) if made < index < step.index]
            last.update(between[-1:])
        return sorted(last)

    # -- the text -------------------------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """Return the whole text: what the outputs need, then the writes that no output sees, then the outputs."""
        outputs = [self._same.get(name, name) for name in map(self._remember, self._graph.outputs())]
        for name in outputs:
            for needed in self._flattened(name):
                self._write_up_to(self._producer.get(needed))
        for index in sorted({index for changes in self._changes.values() for index in changes}):
            self._write_up_to(self._steps[index])
        return [*self._lines, "output " + " ".join(map(self._text, outputs))]

    def _write_up_to(self, step: Step | None) -> None:
        """Write *step* after all that it needs, without recursion: networks are deep."""
        ahead = [] if step is None else [step]
        while ahead:
            step = ahead[-1]
            missing = [need for need in self._needs(step) if need.index not in self._number]
            if missing and step.index not in self._number:
                ahead.append(missing[0])
                continue
            ahead.pop()
            if step.index not in self._number:
                self._write(step)

    def _needs(self, step: Step) -> Iterator[Step]:
        for name in self._operands(step):
            if name in self._producer:
                yield self._producer[name]
        for index in self._changed_before(step):
            yield self._steps[index]

    def _operands(self, step: Step) -> list[str]:
        inputs = [name for index, name in enumerate(step.inputs) if step.signature.name(index) not in OF_THE_MACHINE]
        names = [name for each in inputs for name in self._flattened(each)]
        for block in step.node.blocks():
            names += [inner for each in self._captured(block) for inner in self._flattened(each)]
        return names

    def _flattened(self, name: str) -> list[str]:
        """Return the values that the text of *name* mentions: lists and tuples are written in place."""
        step = self._producer.get(name)
        if step is None:
            return [name]
        if step.kind in LISTS:
            return [inner for each in step.inputs for inner in self._flattened(each)]
        return [] if step.kind in ("prim::Constant", "prim::GetAttr") else [name]

    def _write(self, step: Step) -> None:
        number = len(self._number)
        self._number[step.index] = number
        arguments = ", ".join(
            self._text(name)
            for index, name in enumerate(step.inputs)
            if step.signature.name(index) not in OF_THE_MACHINE
        )
        after = "".join(f" after %{self._number[index]}" for index in self._changed_before(step))
        for index, name in enumerate(step.outputs):
            self._names[name] = f"%{number}.{index}" if index else f"%{number}"
        self._lines.append(f"%{number} = {self._operator(step)}({arguments}){after}")
        for block in step.node.blocks():
            self._write_block(block, f"%{number}")

    def _operator(self, step: Step) -> str:
        if step.kind == "prim::PythonOp":  # an autograd.Function
            scalars = [repr(value) for value in step.node.scalar_args() if isinstance(value, (bool, int, float, str))]
            return " ".join(["python", step.node.pyname(), *scalars])
        return step.kind[:-1] if self._is_twin(step) else step.kind

    def _text(self, name: str) -> str:
        if name in self._names:
            return self._names[name]
        if name in self._objects:
            return self._object(self._objects[name])
        step = self._producer[name]
        if step.kind == "prim::Constant":
            return _literal(step.node)
        left, right = LISTS[step.kind]
        return f"{left}{', '.join(map(self._text, step.inputs))}{right}"

    def _object(self, thing: Any) -> str:
        if isinstance(thing, torch.Tensor):
            return self._leaves.name(thing) or constant(thing)
        if isinstance(thing, (bool, int, float, str, type(None), list, tuple)):
            return repr(thing)
        raise ValueError(f"a {type(thing).__name__} cannot be seen into")  # packed weights: not even their shapes

    # -- TorchScript's ifs and loops --------------------------------------------------------------------------------

    def _captured(self, block: Any) -> list[str]:
        """Return the values that a block takes from around it."""
        return [name for node in _all_nodes(block) for name in _input_names(node) if name in self._producer]

    def _write_block(self, block: Any, owner: str) -> None:
        """Write a block's nodes in its own order."""
        for index, value in enumerate(block.inputs()):
            self._names[self._remember(value)] = f"{owner} in {index}"
        for node in block.nodes():
            step = self._step(-1, node)
            if step.kind in ("prim::Constant", "prim::GetAttr", *LISTS):
                continue
            number = len(self._number)
            self._number[-number - 1] = number
            self._names |= {name: f"%{number}.{index}" for index, name in enumerate(step.outputs)}
            self._lines.append(f"  %{number} = {step.kind}({', '.join(map(self._text, step.inputs))})")
            for inner in node.blocks():
                self._write_block(inner, f"%{number}")
        self._lines.append(f"  yield {', '.join(self._text(value.debugName()) for value in block.outputs())}")

    # -- for a reader -----------------------------------------------------------------------------------------------

    def operators(self) -> tuple[str, ...]:
        """Return a line for each operator, in the order of the text, without what only computes shapes."""
        data = {name for name in self._names if self._names[name].startswith("input")}
        lines = []
        for step in (self._steps[index] for index in self._number if index >= 0):
            if step.kind in SHAPES or not any(
                self._is_data(name, data) for name in (*step.inputs, *self._operands(step))
            ):
                continue
            data.update(step.outputs)
            if step.kind not in WIRES:
                lines.append(self._summary(step))
        return tuple(lines)

    def _is_data(self, name: str, data: set[str]) -> bool:
        return name in data or isinstance(self._objects.get(name), torch.Tensor)

    def _summary(self, step: Step) -> str:
        weights = [self._objects[name] for each in step.inputs for name in self._leaf_names(each)]
        shape = "x".join(map(str, weights[0].shape)) if weights else ""
        name, attributes = self._attributes(step)
        return " ".join(filter(None, [name, shape, *(f"{key}={value}" for key, value in attributes.items())]))

    def _leaf_names(self, name: str) -> list[str]:
        step = self._producer.get(name)
        inner = step.inputs if step is not None and step.kind in LISTS else [name]
        return [each for each in inner if isinstance(self._objects.get(each), torch.Tensor)]

    def _attributes(self, step: Step) -> tuple[str, dict[str, str]]:
        """Return an operator's name and those of its constants that are not what they are by default."""
        constants = {
            step.signature.names[index]: self._text(name)
            for index, name in enumerate(step.inputs)
            if step.signature.name(index) not in ("", "train", "training", *OF_THE_MACHINE)
            and self._is_constant(name)
            and not _is_default(self._text(name), step.signature.defaults[index])
            and self._text(name) != "False"
        }
        name = self._operator(step).rpartition("::")[2]
        if name == "_convolution":
            return self._convolution(step, constants)
        return name.strip("_"), constants

    def _convolution(self, step: Step, constants: dict[str, str]) -> tuple[str, dict[str, str]]:
        weight = self._objects.get(step.inputs[1])
        dimensions = f"{weight.dim() - 2}d" if isinstance(weight, torch.Tensor) else ""
        transposed = constants.pop("transposed", "False") == "True"
        usual = {"dilation": 1, "output_padding": 0, "groups": 1}
        shown = {key: value for key, value in constants.items() if not _is_default(value, usual.get(key, ""))}
        return f"conv_transpose{dimensions}" if transposed else f"conv{dimensions}", shown

    def _is_constant(self, name: str) -> bool:
        step = self._producer.get(name)
        return step is not None and (
            step.kind == "prim::Constant" or (step.kind in LISTS and all(map(self._is_constant, step.inputs)))
        )


LISTS = {"prim::ListConstruct": ("[", "]"), "prim::TupleConstruct": ("(", ")")}
UNPACKINGS = ("prim::ListUnpack", "prim::TupleUnpack")
WIRES = frozenset((*LISTS, *UNPACKINGS, "prim::TupleIndex", "prim::GetAttr"))
SHAPES = frozenset(("aten::size", "prim::Constant", "prim::NumToTensor", "aten::Int", "prim::shape"))


def _all_nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all_nodes(inner)


def _input_names(node: Any) -> list[str]:
    return [value.debugName() for value in node.inputs()]


def _literal(node: Any) -> str:
    """Return a constant as text. A device is only `device`: where a network runs is not what it computes."""
    if node.output().type().kind() == "DeviceObjType":
        return "device"
    if not node.hasAttribute("value"):
        return "None"
    match node.kindOf("value"):
        case "t":
            return constant(node.t("value"))
        case "i" if node.output().type().kind() == "BoolType":
            return str(bool(node.i("value")))
        case "ival":
            value = node.output().toIValue()
            return constant(value) if isinstance(value, torch.Tensor) else repr(value)
        case how:
            return repr(getattr(node, how)("value"))


def _is_default(text: str, default: Any) -> bool:
    """Compare as text; a default of 0 also stands for [0, 0]."""
    return text in (repr(default), "None") or {repr(default)} == set(text.strip("[]").split(", "))
