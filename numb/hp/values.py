"""What a hyperparameter can be: the two values that stand for none, and what constants in a source evaluate to."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, TypeAlias


class Absent(Enum):
    """Stands where there is no value: compare with `is`."""

    EMPTY = "EMPTY"
    NOT_LITERAL = "NOT_LITERAL"

    def __repr__(self) -> str:
        return self.value

    def __bool__(self) -> bool:
        return False


EMPTY: Final = Absent.EMPTY
"""No value at all: `_("lr")` before anything has given it one."""

NOT_LITERAL: Final = Absent.NOT_LITERAL
"""The value of a hyperparameter that only running the script could tell."""

MAX_BITS = 2048  # of an integer: 9**9**9 is not computed, and Python can show and JSON readers take what is left
MAX_LITERAL_DEPTH = 50

Lookup: TypeAlias = Callable[[str], ast.expr | None]


def literal(node: ast.expr | None, lookup: Lookup | None = None, depth: int = 0) -> object:
    """The value of an expression made of constants, and of names of such where there is a *lookup*.

    Constants of every type that Python has a literal for, lists, tuples, sets and dictionaries of them, and sums of numbers.
    `NOT_LITERAL` for everything else; nothing is executed.
    """
    if node is None or depth > MAX_LITERAL_DEPTH:
        return NOT_LITERAL
    match node:
        case ast.Constant(value=value):
            return NOT_LITERAL if isinstance(value, int) and value.bit_length() > MAX_BITS else value
        case ast.Name(id=name) if lookup:
            return literal(lookup(name))
        case ast.UnaryOp(op=operator_, operand=operand):
            return _computed(operator_, literal(operand, lookup, depth + 1))
        case ast.BinOp(left=left, op=operator_, right=right):
            return _computed(operator_, literal(left, lookup, depth + 1), literal(right, lookup, depth + 1))
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return _collected(node, [literal(item, lookup, depth + 1) for item in items])
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
            return set()
        case ast.Dict() | ast.Call():
            return _literal_dict(node, lookup, depth + 1)
        case _:
            return NOT_LITERAL


def _collected(node: ast.List | ast.Tuple | ast.Set, values: list[object]) -> object:
    if NOT_LITERAL in values:
        return NOT_LITERAL
    if isinstance(node, ast.List):
        return values
    if isinstance(node, ast.Tuple):
        return tuple(values)
    try:
        return set(values)
    except TypeError:  # {[]}: Python refuses it as well
        return NOT_LITERAL


def _literal_dict(node: ast.Dict | ast.Call, lookup: Lookup | None, depth: int) -> object:
    match node:
        case ast.Dict(keys=keys, values=values):
            pairs = [
                (literal(key, lookup, depth), literal(value, lookup, depth))
                for key, value in zip(keys, values, strict=True)
            ]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(item.arg for item in keywords):
            pairs = [(item.arg, literal(item.value, lookup, depth)) for item in keywords]
        case _:
            return NOT_LITERAL
    if any(NOT_LITERAL in pair for pair in pairs):
        return NOT_LITERAL
    try:
        return dict(pairs)
    except TypeError:  # {[]: 1}
        return NOT_LITERAL


def is_plain(value: object) -> bool:
    """Whether a record can hold *value*: None, booleans, numbers, strings, and lists, tuples and dictionaries of these."""
    match value:
        case None | bool() | int() | float() | str():
            return True
        case list() | tuple():
            return all(map(is_plain, value))
        case dict():
            return all(not isinstance(key, tuple) and is_plain(key) for key in value) and all(
                map(is_plain, value.values())
            )
        case _:
            return False


def is_literal(value: object) -> bool:
    """Whether Python has a literal for *value*: what `is_plain` is, and sets, bytes, complex numbers, any keys, `...`."""
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            return True
        case list() | tuple() | set():
            return all(map(is_literal, value))
        case dict():
            return all(is_literal(key) and is_literal(item) for key, item in value.items())
        case _:
            return value is ...


_OPERATORS: Mapping[type[ast.AST], Callable[..., object]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _computed(operator_: ast.AST, *numbers: object) -> object:
    """The number that Python would compute, unless it is too large to be worth it."""
    compute = _OPERATORS.get(type(operator_))
    if compute is None or any(type(number) not in (int, float, complex) for number in numbers):
        return NOT_LITERAL
    if isinstance(operator_, ast.Pow) and _is_huge_power(*numbers):
        return NOT_LITERAL
    try:
        number = compute(*numbers)
    except (ArithmeticError, TypeError):  # division by zero, overflow, a complex modulus
        return NOT_LITERAL
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        return NOT_LITERAL
    return number


def _is_huge_power(base: object, exponent: object) -> bool:
    return isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS
