"""Looking at a model without leaving a trace: whatever happens inside, afterwards all is bit for bit as it was."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Undo = Callable[[], None]
Module = TypeVar("Module")

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(slots=True)
class Reached:
    """Everything below a model that a forward pass can change, each thing once."""

    modules: list[torch.nn.Module] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    containers: list[Any] = field(default_factory=list)  # dict, list, set, deque; the modules' own attributes too
    generators: list[Any] = field(default_factory=list)


def reach(model: torch.nn.Module) -> Reached:
    """Walk through *model*: its modules, and the plain lists, dicts, sets and tuples that their attributes hold."""
    reached = Reached()
    seen: set[int] = set()
    ahead: list[Any] = [model]
    while ahead:
        value = ahead.pop()
        if type(value) in (int, float, str, bool, type(None)) or id(value) in seen:
            continue
        seen.add(id(value))
        ahead.extend(_visit(value, reached))
    return reached


def _visit(value: Any, reached: Reached) -> list[Any]:
    """File *value* where it belongs, and return what to look at next."""
    import torch

    match value:
        case torch.Tensor():
            reached.tensors.append(value)
        case torch.jit.ScriptModule():  # its attributes live in C++
            reached.modules.append(value)
            return [*value.parameters(recurse=False), *value.buffers(recurse=False), *value.children()]
        case torch.nn.Module():
            reached.modules.append(value)
            return [vars(value)]
        case dict():
            reached.containers.append(value)
            return list(value.values())
        case list() | set() | deque():
            reached.containers.append(value)
            return list(value)
        case tuple() | frozenset():
            return list(value)
        case _ if _has_state(value):
            reached.generators.append(value)
    return []


def _has_state(value: Any) -> bool:
    import torch

    kinds: list[type] = [random.Random, torch.Generator]
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        kinds += [numpy.Generator, numpy.RandomState]
    return isinstance(value, tuple(kinds))


@contextmanager
def invisible(model: torch.nn.Module) -> Iterator[None]:
    """Put everything back at the end of the block, also when it raises: nothing in it can be told from the outside.

    Parameters, buffers, gradients, `requires_grad`, `training`, hooks, the attributes of every submodule and what their
    plain lists, dicts and sets hold; default dtype and device, grad mode, autocast, warning filters; the random states
    of Python, NumPy, torch, of the accelerators in use and of generators that the model holds. No parameter is copied
    unless something writes into it (see `CopyOnWrite` for what that cannot see), and no device is initialised. Inside,
    gradients are None. A lazy module that is materialised inside stays so: run a copy (see `materialised`).
    """
    reached = reach(model)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for undo in (*_random_states(reached), *_settings(), _containers(reached), _attributes(reached)):
            stack.callback(undo)
        stack.enter_context(_tensors(reached))
        yield


def _random_states(reached: Reached) -> Iterator[Undo]:
    import torch

    yield _later(random.setstate, random.getstate())
    numpy = sys.modules.get("numpy.random")  # imported by the user, or without a state worth keeping
    if numpy is not None:
        yield _later(numpy.set_state, numpy.get_state())
    yield _later(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield _later(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    if torch.xpu.is_initialized():  # type: ignore[no-untyped-call]
        yield _later(torch.xpu.set_rng_state_all, torch.xpu.get_rng_state_all())
    if any(tensor.device.type == "mps" for tensor in reached.tensors):
        yield _later(torch.mps.set_rng_state, torch.mps.get_rng_state())
    for generator in reached.generators:
        yield _generator_state(generator)


def _generator_state(generator: Any) -> Undo:
    if hasattr(generator, "bit_generator"):
        bits = generator.bit_generator
        return _later(setattr, bits, "state", bits.state)
    for get, put in (("getstate", "setstate"), ("get_state", "set_state")):
        if hasattr(generator, get):
            return _later(getattr(generator, put), getattr(generator, get)())
    raise AssertionError(f"a generator of an unknown kind: {type(generator)}")


def _settings() -> Iterator[Undo]:
    import torch

    yield _later(torch.set_default_dtype, torch.get_default_dtype())
    yield _later(torch.set_grad_enabled, torch.is_grad_enabled())
    device = torch.get_default_device()
    unset = device == torch.device("cpu")  # what torch says when none is set; setting it would enter a function mode
    yield lambda: None if torch.get_default_device() == device else torch.set_default_device(None if unset else device)
    for kind in ("cpu", "cuda"):
        yield _later(torch.set_autocast_enabled, kind, torch.is_autocast_enabled(kind))
        yield _later(torch.set_autocast_dtype, kind, torch.get_autocast_dtype(kind))
    yield _later(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())


def _later(function: Callable[..., Any], *args: Any) -> Undo:
    return lambda: function(*args)


def _containers(reached: Reached) -> Undo:
    """Remember what each container holds, by identity, and in which order."""
    held = [(container, _shallow(container)) for container in reached.containers]

    def undo() -> None:
        for container, content in held:
            now, then = _parts(container), _parts(content)
            if len(now) != len(then) or any(new is not old for new, old in zip(now, then, strict=True)):
                _refill(container, content)

    return undo


def _shallow(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _parts(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _refill(container: Any, content: Any) -> None:
    container.clear()
    (container.update if isinstance(container, (dict, set)) else container.extend)(content)


def _attributes(reached: Reached) -> Undo:
    """Remember what is no entry of a dict: a module's class, a TorchScript module's flag."""
    import torch

    held = [(module, type(module)) for module in reached.modules]
    flags = [(module, module.training) for module in reached.modules if isinstance(module, torch.jit.ScriptModule)]

    def undo() -> None:
        for module, kind in held:
            if type(module) is not kind:
                module.__class__ = kind
        for module, flag in flags:
            module.training = flag

    return undo


@contextmanager
def _tensors(reached: Reached) -> Iterator[None]:
    """Keep tensors: buffers by a copy, for operators change them unseen, others by a copy once they are written to."""
    import torch

    from numb.capture.modes import CopyOnWrite

    made = [tensor for tensor in reached.tensors if not torch.nn.parameter.is_lazy(tensor)]
    leaves = [(tensor, tensor.requires_grad, tensor.grad) for tensor in made if tensor.is_leaf]
    with torch.no_grad():
        memory = [(tensor, tensor.detach()) for tensor in made]
        buffers = {id(buffer) for module in reached.modules for buffer in module.buffers(recurse=False)}
        copies = [(same, same.clone()) for tensor, same in memory if id(tensor) in buffers]
        watch = CopyOnWrite(same for tensor, same in memory if id(tensor) not in buffers)
    for tensor, _, grad in leaves:
        if grad is not None:
            tensor.grad = None
    try:
        with watch:
            yield
    finally:
        with torch.no_grad():
            watch.restore()
            for same, copy in copies:
                if not _same_bits(same, copy):
                    same.copy_(copy)
            for tensor, same in memory:
                if not _same_memory(tensor, same):
                    tensor.data = same
        for tensor, requires_grad, grad in leaves:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad


def _same_memory(tensor: Tensor, other: Tensor) -> bool:
    from numb.capture.modes import has_memory

    if tensor.dtype != other.dtype or tensor.layout != other.layout or tensor.device != other.device:
        return False
    return not (has_memory(tensor) and has_memory(other)) or tensor.is_set_to(other)


def _same_bits(tensor: Tensor, other: Tensor) -> bool:
    """Compare as bytes: NaN equals itself, and 0.0 is not -0.0."""
    import torch

    from numb.capture.modes import has_memory

    if not has_memory(tensor):
        return tensor.layout == torch.strided  # no bytes to differ; a sparse one is restored in any case
    if tensor.is_quantized:
        return torch.equal(tensor, other)
    one, two = (each.contiguous().reshape(-1).view(torch.uint8) for each in (tensor, other))
    return torch.equal(one, two)


@contextmanager
def settled(model: torch.nn.Module) -> Iterator[None]:
    """Let *model* run as when nothing is learnt: eval flags, no gradients, no autocast, always the same random states.

    The hooks of other people rest, torch's own (weight norm, spectral norm, pruning) run. Compiled modules run as they
    are written. An attention stays in training mode, because its dropout is invisible otherwise; it differs in nothing
    else. Nothing is printed. Only inside `invisible`, which puts the flags and hooks back.
    """
    import torch

    with ExitStack() as stack:
        reached = reach(model)
        _settle_modules(reached)
        for hooks in _global_hooks():
            stack.callback(_refill, hooks, dict(hooks))
            _only_torchs(hooks)
        _reseed()
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # it replaces a whole layer, dropouts included, by one operator
        for kind in ("cpu", "cuda"):
            torch.set_autocast_enabled(kind, False)
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(muted())
        stack.enter_context(torch.no_grad())
        yield


def _settle_modules(reached: Reached) -> None:
    import torch

    for module in reached.modules:
        module.training = isinstance(module, torch.nn.MultiheadAttention)
        if isinstance(module, torch.jit.ScriptModule):
            continue
        vars(module).pop("_compiled_call_impl", None)
        for name in HOOKS:
            _only_torchs(vars(module).get(name, {}))
        children = vars(module)["_modules"]
        children.update({name: uncompiled(child) for name, child in children.items()})


def uncompiled(module: Module) -> Module:
    """Return what `torch.compile` was called with, if *module* is what it returned."""
    return getattr(module, "_orig_mod", module) if type(module).__name__ == "OptimizedModule" else module


def _global_hooks() -> list[dict[int, Any]]:
    from torch.nn.modules import module

    return [getattr(module, f"_global{name}") for name in HOOKS if hasattr(module, f"_global{name}")]


def _only_torchs(hooks: dict[int, Any]) -> None:
    """Take other people's hooks out of *hooks*: they watch, and a model computes the same without them."""
    for key, hook in list(hooks.items()):
        owner = getattr(getattr(hook, "func", hook), "__module__", None) or ""
        if not f"{owner}.".startswith("torch."):
            del hooks[key]


def _reseed() -> None:
    import torch

    random.seed(0)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(0)
    torch.default_generator.manual_seed(0)  # torch.manual_seed would also leave a seed for a CUDA that starts later
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(0)


@contextmanager
def muted() -> Iterator[None]:
    """Nothing that is printed, warned or logged inside comes out."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def materialised(model: torch.nn.Module, run: Callable[[torch.nn.Module], object]) -> torch.nn.Module:
    """Return *model*, or, if it is lazy, a copy that has seen *run* and shares every tensor that exists already."""
    import copy

    from torch.nn.parameter import UninitializedBuffer, is_lazy

    every = [*model.parameters(), *model.buffers()]
    if not any(map(is_lazy, every)):
        return model
    shared = {id(tensor): tensor for tensor in every if not is_lazy(tensor)}
    for tensor in every:
        if isinstance(tensor, UninitializedBuffer):  # which torch, unlike such a parameter, does not copy
            shared[id(tensor)] = UninitializedBuffer(device=tensor.device, dtype=tensor.dtype)  # type: ignore[call-arg]
    twin = copy.deepcopy(model, shared)
    run(twin)
    return twin
