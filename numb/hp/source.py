"""Find a script's hyperparameters by reading it; nothing of it is executed.

Two things count: what is assigned at module level above `numb_queue()`, because that is what a queue can replace, and the
keys of the dictionary given to `numb_param()`, or as `params` to `numb.start()`, because those are what is recorded.
"""

from __future__ import annotations

import ast
import math
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

from numb.errors import ConfigError
from numb.hp import reading
from numb.hp.values import MAX_LITERAL_DEPTH, NOT_LITERAL, Lookup, is_plain, literal


@dataclass(frozen=True, slots=True)
class Found:
    """A hyperparameter, and the line of the source where it stands."""

    name: str
    value: object  # None, bool, int, float, str, lists, tuples and dicts of these; or NOT_LITERAL
    file: str
    line: int
    how: Literal["assignment", "numb_param"]
    settable: bool = True  # whether the script would compute with another value


@dataclass(frozen=True, slots=True)
class Script:
    """What a script says about its hyperparameters.

    A name appears in `found` at most once for each `how`, with its last value, in the order of lines. `late` are the
    assignments that undo what `numb_queue()` injects, of names that `numb_param()` records. Above `numb_queue()` a script
    also binds names to what is hardly a hyperparameter, a logger or a data set, and imports some: those are `bound`.
    """

    found: tuple[Found, ...]
    queue_line: int | None
    late: tuple[Found, ...]
    opaque: bool = False  # there are more, which only running the script could tell
    takes_any: bool = (
        False  # what of these is set in the dictionary given to `numb_param()` is what the script computes with
    )
    bound: frozenset[str] = frozenset()


def read(path: Path) -> Script:
    """Read a script. Raises `ConfigError`, which names the file and the line, if it is not Python."""
    return of(_source(path))


def of(text: reading.Source) -> Script:
    """What the text of a script says. Raises `ConfigError` as `read` does."""
    tree, path = text.understood(), Path(text.file)
    calls = tuple(_calls(tree))
    bindings = tuple(_bindings(tree.body))
    params, queues = _calls_of("numb_param", tree, calls), _calls_of("numb_queue", tree, calls)
    params += _starts(tree, calls)
    read_before = _reading(tree, (*params, *queues))
    registered = _registered(params, bindings, path, read_before)
    unreadable = [call for call in params if not _is_readable(call, bindings)]
    takes_any = any(_gives_back(call, argument, read_before) for call in unreadable for argument in call.node.args)
    if not queues:
        return Script(_in_order(registered.values()), None, (), bool(unreadable), takes_any)
    unreadable += [call for call in queues if not _is_readable(call, bindings)]
    queue = next((call for call in queues if not call.functions), queues[0])
    boundary = _boundary(queue, calls)
    above = [binding for binding in bindings if binding.position < boundary]
    found = _assigned(above, path)
    return Script(
        _in_order((*found.values(), *registered.values())),
        queue.node.lineno,
        _replaced(bindings, boundary[0], registered, path),
        bool(unreadable) or _brings_names(tree, boundary),
        takes_any,
        frozenset(_bound_to_something(above, tree) - found.keys()),
    )


def overwritten(path: Path, line: int, names: Collection[str]) -> tuple[Found, ...]:
    """Return the assignments below `numb_queue()` in *line* that replace one of *names* without using its value.

    Only those that run, and run once, whenever the script does: at module level, in no loop and on no branch.
    `lr = lr * 0.5`, `lr *= 0.5` and `if lr is None: lr = 0.1` use the value and are not among them.
    Raises `ConfigError` as `read` does.
    """
    tree = _source(path).understood()
    calls = tuple(_calls(tree))
    queue = next((call for call in _calls_of("numb_queue", tree, calls) if call.node.lineno == line), None)
    return _replaced(_bindings(tree.body), _boundary(queue, calls)[0] if queue else line, names, path)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that *name* was probably meant to be; case does not matter."""
    from difflib import get_close_matches  # 2 ms that only a mistake pays

    spelled = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(name.casefold(), spelled, 1)
    return spelled[close[0]] if close else None


_MODULE_FLAG = re.compile(r"-[bBdEiIOPqsSuvx]*m|--module")
_SHELL = re.compile(r"(ba|da|k|z)?sh")
_SHELL_COMMAND_FLAG = re.compile(r"-[a-z]*c")
_PYTHON = re.compile(r"(python|pypy)[0-9.]*(\.exe)?")


def script_of(command: Sequence[str], cwd: Path) -> Path | None:
    """Return the Python file that *command* runs in *cwd*, or None where that is not evident.

    It is the first word that names an existing `.py` file or, after `-m`, a module of *cwd*, which sees through
    `torchrun`, `uv run`, `python -m pdb` and the like; `bash -c` is looked into.
    """
    program = ""
    for word, following in pairwise((*command, "")):
        name = os.path.basename(word)
        if _PYTHON.fullmatch(name) or _SHELL.fullmatch(name):
            program = name
        elif _SHELL.fullmatch(program) and _SHELL_COMMAND_FLAG.fullmatch(word):
            return script_of(_shell_words(following), cwd)
        elif _PYTHON.fullmatch(program) and word == "-c":
            return None
        elif _MODULE_FLAG.fullmatch(word) and (module := _module(following, cwd)):
            return module
        elif word.endswith(".py") and os.path.isfile(cwd / word):
            return cwd / word
    return None


def _shell_words(line: str) -> list[str]:
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    try:
        return list(words)
    except ValueError:  # an unbalanced quote: the shell will say so
        return []


def _module(name: str, cwd: Path) -> Path | None:
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    candidates = (cwd.joinpath(*parts[:-1], f"{parts[-1]}.py"), cwd.joinpath(*parts, "__main__.py"))
    return next((path for path in candidates if os.path.isfile(path)), None)


def _source(path: Path) -> reading.Source:
    try:
        return reading.read(path)[0]
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


MAX_DEPTH = 20  # of dictionaries in dictionaries

_Position: TypeAlias = tuple[float, int]  # line and column
_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_PLACED = (ast.stmt, ast.expr, ast.alias, ast.excepthandler, ast.pattern)
_END: _Position = (math.inf, 0)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call, and the functions in which it stands, outermost first."""

    node: ast.Call
    functions: tuple[_Function, ...]
    is_used: bool  # what it returns

    @property
    def position(self) -> _Position:
        return self.node.lineno, self.node.col_offset

    def names(self, function: str) -> bool:
        return isinstance(self.node.func, ast.Name) and self.node.func.id == function


def _calls(tree: ast.Module) -> Iterator[_Call]:
    stack: list[tuple[ast.AST, tuple[_Function, ...], bool]] = [(tree, (), False)]
    while stack:
        node, functions, is_used = stack.pop()
        if isinstance(node, ast.Call):
            yield _Call(node, functions, is_used)
        inside = (*functions, node) if isinstance(node, _FUNCTIONS) else functions
        used = not isinstance(node, ast.Expr)
        stack.extend((child, inside, used) for child in ast.iter_child_nodes(node))


def _calls_of(hook: str, tree: ast.Module, calls: Iterable[_Call]) -> list[_Call]:
    """Return the calls of one of numb's hooks, whatever name it was imported by, in the order of lines."""
    names = {hook}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname for alias in node.names if alias.asname and alias.name == hook}
    found = []
    for call in calls:
        match call.node.func:
            case ast.Name(id=name) if name in names:
                found.append(call)
            case ast.Attribute(attr=name) if name == hook:
                found.append(call)
    return sorted(found, key=lambda call: call.position)


def _starts(tree: ast.Module, calls: Iterable[_Call]) -> Iterator[_Call]:
    """Go through the calls of `numb.start`, as calls with the dictionary of hyperparameters alone."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "numb"
        for alias in node.names
        if alias.name == "start"
    }
    for call in calls:
        match call.node.func:
            case ast.Name(id=name) if name in names:
                pass
            case ast.Attribute(value=ast.Name(id="numb"), attr="start"):
                pass
            case _:
                continue
        given = [keyword.value for keyword in call.node.keywords if keyword.arg == "params"]
        alone = ast.Call(call.node.func, [*call.node.args[:1], *given], [])
        yield replace(call, node=ast.copy_location(alone, call.node))


def _boundary(queue: _Call, calls: Iterable[_Call]) -> _Position:
    """Return how far the module has run when it comes to `numb_queue()`.

    Inside a function, that is where the module first calls the function, or its end where no such call is seen.
    """
    if not queue.functions:
        return queue.position
    function = getattr(queue.functions[0], "name", "")
    return min((call.position for call in calls if not call.functions and call.names(function)), default=_END)


@dataclass(frozen=True, slots=True)
class _Binding:
    """One place in a scope that gives a name its value."""

    name: str
    position: _Position
    assigned: ast.expr | None  # the whole right side of an assignment; a loop's variable, an import, … have none
    value: ast.expr | None  # the part of it that this name receives, where that is evident
    in_loop: bool
    on_branch: bool


def _bindings(body: Iterable[ast.AST]) -> Iterator[_Binding]:
    """Go through the bindings of one scope in the order of lines; functions and classes inside are other scopes."""
    stack = [(node, False, False) for node in body][::-1]
    while stack:
        node, in_loop, on_branch = stack.pop()
        if isinstance(node, _PLACED):
            position = (node.lineno, node.col_offset)
            for name, assigned, value in _bound(node):
                yield _Binding(name, position, assigned, value, in_loop, on_branch)
        loop = in_loop or isinstance(node, _LOOPS)
        inner = [(child, loop, on_branch or _may_be_skipped(child, node)) for child in _same_scope(node)]
        stack.extend(reversed(inner))


def _bound(node: ast.AST) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Return each name that this node itself binds, the right side of the assignment, and the name's part of it."""
    match node:
        case ast.Assign(targets=targets, value=assigned):
            for target in targets:
                for name, value in _unpacked(target, assigned):
                    yield name, assigned, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as assigned):
            yield name, assigned, assigned
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name, None, None
        case ast.alias(name=name, asname=asname):
            yield asname or name.partition(".")[0], None, None
        case (
            ast.FunctionDef(name=str() as name)
            | ast.AsyncFunctionDef(name=str() as name)
            | ast.ClassDef(name=str() as name)
            | ast.ExceptHandler(name=str() as name)
            | ast.MatchAs(name=str() as name)
            | ast.MatchStar(name=str() as name)
        ):
            yield name, None, None


def _unpacked(target: ast.expr, value: ast.expr | None) -> Iterator[tuple[str, ast.expr | None]]:
    """Pair the names of `a, (b, c) = 1, (2, 3)` with their values; after a star, or without a tuple, with None."""
    match target:
        case ast.Name(id=name):
            yield name, value
        case ast.Starred(value=starred):
            yield from _unpacked(starred, None)
        case ast.Tuple(elts=targets) | ast.List(elts=targets):
            values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
            stars = any(isinstance(item, ast.Starred) for item in (*targets, *values))
            paired = not stars and len(targets) == len(values)
            for inner, inner_value in zip(targets, values if paired else [None] * len(targets), strict=True):
                yield from _unpacked(inner, inner_value)


def _same_scope(node: ast.AST) -> Iterable[ast.AST]:
    match node:
        case ast.Assign(value=assigned):
            return (assigned,)
        case ast.AnnAssign(value=assigned):
            return (assigned,) if assigned else ()
        case _:
            return () if isinstance(node, _SCOPES) else ast.iter_child_nodes(node)


def _may_be_skipped(child: ast.AST, parent: ast.AST) -> bool:
    """Whether a run of *parent* may leave out *child*. What a program's main guard guards is not left out."""
    match parent:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()]), body=body):
            return child not in body
        case ast.If():
            return True
        case _:
            return isinstance(child, (ast.ExceptHandler, ast.match_case))


def _assigned(above: Iterable[_Binding], path: Path) -> dict[str, Found]:
    """Return the names that hold a constant, or something computed of constants; one that is bound again stays."""
    found: dict[str, Found] = {}
    for binding in above:
        if binding.name.startswith("_"):
            continue
        value = NOT_LITERAL if binding.in_loop else _literal(binding.value)
        before = found.get(binding.name)
        if before and binding.on_branch and repr(before.value) != repr(value):
            value = NOT_LITERAL  # which of them it is, only running tells
        is_computed = not binding.in_loop and _is_computed(binding.value, found)
        if value is not NOT_LITERAL or is_computed or binding.name in found:
            found[binding.name] = _found(binding, value, path)
    return found


_COMPUTING = frozenset(
    (
        "abs", "bool", "dict", "float", "int", "len", "list", "max", "min", "range", "round", "set", "sorted", "str", "sum",
        "tuple",
    )
)  # fmt: skip


def _is_computed(node: ast.expr | None, known: Collection[str], depth: int = 0) -> bool:
    """Whether an expression is made of constants, the names *known*, the environment, and what Python computes of them."""

    def all_are(*nodes: ast.expr | None) -> bool:
        return depth < MAX_LITERAL_DEPTH and all(each is None or _is_computed(each, known, depth + 1) for each in nodes)

    match node:
        case ast.Constant():
            return is_plain(node.value)
        case ast.Name(id=name):
            return name in known
        case ast.UnaryOp(operand=operand):
            return all_are(operand)
        case ast.BinOp(left=left, right=right):
            return all_are(left, right)
        case ast.BoolOp(values=items) | ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return all_are(*items)
        case ast.Starred(value=item) | ast.FormattedValue(value=item):
            return all_are(item)
        case ast.JoinedStr(values=items):
            return all_are(*items)
        case ast.Compare(left=left, comparators=others):
            return all_are(left, *others)
        case ast.Dict(keys=keys, values=items):
            return all_are(*keys, *items)
        case ast.IfExp(body=body, orelse=other):  # "cuda" if torch.cuda.is_available() else "cpu"
            return all_are(body, other)
        case ast.Subscript(value=whole, slice=part):
            return all_are(part) and (_is_environment(whole) or all_are(whole))
        case ast.Slice(lower=lower, upper=upper, step=step):
            return all_are(lower, upper, step)
        case ast.Call(func=called, args=args, keywords=keywords):
            is_known = isinstance(called, ast.Name) and called.id in _COMPUTING and called.id not in known
            return (is_known or _asks_environment(called)) and all_are(*args, *(keyword.value for keyword in keywords))
        case _:
            return False


def _asks_environment(called: ast.expr) -> bool:
    match called:
        case ast.Attribute(value=whole, attr="get"):
            return _is_environment(whole)
        case ast.Attribute(value=ast.Name(id="os"), attr="getenv") | ast.Name(id="getenv"):
            return True
        case _:
            return False


def _is_environment(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr="environ") | ast.Name(id="environ"):
            return True
        case _:
            return False


def _brings_names(tree: ast.Module, boundary: _Position) -> bool:
    """Whether there is `from settings import *` above *boundary*; numb's own star brings no hyperparameters."""
    return any(
        isinstance(node, ast.ImportFrom)
        and any(alias.name == "*" for alias in node.names)
        and (node.level or (node.module or "").partition(".")[0] != "numb")
        and (node.lineno, node.col_offset) < boundary
        for node in ast.walk(tree)
    )


def _bound_to_something(above: Iterable[_Binding], tree: ast.Module) -> set[str]:
    """Return the names that were assigned or imported from a module, but for placeholders of numb's own."""
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] != "numb"
        for alias in node.names
    }
    names = {binding.name for binding in above if binding.assigned is not None or binding.name in imported}
    return {name for name in names if not name.startswith("_") and name != "*"}


def _replaced(bindings: Iterable[_Binding], line: float, names: Collection[str], path: Path) -> tuple[Found, ...]:
    return tuple(
        _found(binding, _literal(binding.value), path)
        for binding in bindings
        if binding.name in names and binding.position[0] > line and binding.assigned is not None
        if not binding.in_loop and not binding.on_branch and not _mentions(binding.assigned, binding.name)
    )


def _mentions(expression: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(expression))


def _found(binding: _Binding, value: object, path: Path) -> Found:
    return Found(binding.name, value, str(path), int(binding.position[0]), "assignment")


def _in_order(found: Iterable[Found]) -> tuple[Found, ...]:
    return tuple(sorted(found, key=lambda each: each.line))


_ReadBefore: TypeAlias = Callable[[_Call], set[str]]


def _reading(tree: ast.Module, hooks: Iterable[_Call]) -> _ReadBefore:
    """Return a function from a call to the names whose values are used above it, by others than numb's hooks."""
    handed_over = {_handed(argument) for call in hooks for argument in call.node.args}  # to numb, which changes them

    def read_before(call: _Call) -> set[str]:
        loads = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
        return {node.id for node in loads if (node.lineno, node.col_offset) < call.position and node not in handed_over}

    return read_before


def _handed(argument: ast.expr) -> ast.expr:
    """The name in `vars(args)` and `args.__dict__`, which are the attributes themselves; else the argument."""
    match argument:
        case ast.Call(func=ast.Name(id="vars"), args=[ast.Name() as name]):
            return name
        case ast.Attribute(value=ast.Name() as name, attr="__dict__"):
            return name
        case _:
            return argument


def _gives_back(call: _Call, argument: ast.expr, read_before: _ReadBefore) -> bool:
    """Whether the script computes with what is set in this argument of `numb_param()`."""
    name = _handed(argument)
    if isinstance(name, ast.Name) and name.id not in read_before(call):
        return True
    return call.is_used and name is argument  # of attributes, what is returned is rarely what is used


def _registered(
    calls: Sequence[_Call], module: Sequence[_Binding], path: Path, read_before: _ReadBefore
) -> dict[str, Found]:
    """Return what the dictionaries given to `numb_param()` hold; of equal keys the last, as when it is run."""
    found: dict[str, Found] = {}
    for call in calls:
        lookup = _names_seen_by(call, module)
        for argument in call.node.args:
            # A constant that stands nowhere else; with a name or an attribute the script may compute itself.
            given_back = _gives_back(call, argument, read_before)
            for key, line, value in _members(argument, lookup):
                settable = given_back and _literal(value) is not NOT_LITERAL
                found[key] = Found(key, _literal(value, lookup), str(path), line, "numb_param", settable)
    return found


def _is_readable(call: _Call, module: Sequence[_Binding]) -> bool:
    """Whether all names in the dictionaries given to one of numb's hooks are known."""
    lookup = _names_seen_by(call, module)

    def readable(node: ast.expr | None, depth: int = 0) -> bool:
        match node:
            case ast.Name(id=name) if depth < MAX_DEPTH:
                return readable(lookup(name), depth + 1)
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return all(isinstance(key, ast.Constant) if key else readable(value, depth + 1) for key, value in pairs)
            case ast.Call(func=ast.Name(id="globals")):
                return True
            case ast.Call(func=ast.Name(id="dict"), args=included, keywords=keywords):
                starred = [keyword.value for keyword in keywords if keyword.arg is None]
                return all(readable(each, depth + 1) for each in (*included, *starred))
            case _:
                return False

    return all(map(readable, call.node.args))


def _names_seen_by(call: _Call, module: Sequence[_Binding]) -> Lookup:
    """Return a function from a name to what it was last assigned above *call*, in the scope that the name is of."""
    scopes = [_function_bindings(function, call.position) for function in reversed(call.functions)]
    scopes.append([binding for binding in module if call.functions or binding.position < call.position])
    expressions = [{binding.name: binding.value for binding in scope} for scope in scopes]

    def lookup(name: str) -> ast.expr | None:
        return next((values[name] for values in expressions if name in values), None)

    return lookup


def _function_bindings(function: _Function, above: _Position) -> list[_Binding]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    start = (function.lineno, function.col_offset)
    body = [function.body] if isinstance(function, ast.Lambda) else function.body
    return [
        *(_Binding(argument.arg, start, None, None, False, False) for argument in named if argument),
        *(binding for binding in _bindings(body) if binding.position < above),
    ]


def _members(
    node: ast.expr | None, lookup: Lookup, seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, int, ast.expr]]:
    """Go through the keys of `{"lr": lr}`, `dict(lr=lr)`, a name of either, and what these include with `**`."""
    match node:
        case ast.Name(id=name) if name not in seen:
            yield from _members(lookup(name), lookup, seen | {name})
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                if key is None:
                    yield from _members(value, lookup, seen)
                elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value, key.lineno, value
        case ast.Call(func=ast.Name(id="dict"), args=included, keywords=keywords):
            for argument in included:
                yield from _members(argument, lookup, seen)
            for keyword in keywords:
                if keyword.arg is None:
                    yield from _members(keyword.value, lookup, seen)
                else:
                    yield keyword.arg, keyword.lineno, keyword.value


def _literal(node: ast.expr | None, lookup: Lookup | None = None) -> object:
    """The value of an expression made of constants, where a record can hold it."""
    value = literal(node, lookup)
    return value if is_plain(value) else NOT_LITERAL
