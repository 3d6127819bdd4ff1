"""Values from a shell, a file or a queue, made to fit a hyperparameter. Literals are parsed, nothing is evaluated.

The type of the default decides: `3` is a number for a number, and text for a text.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any

from numb.errors import HyperparameterError
from numb.hp.values import EMPTY, NOT_LITERAL, literal

_YES = frozenset(("yes", "true", "t", "y", "1"))
_NO = frozenset(("no", "false", "f", "n", "0"))


class Unfit(ValueError):
    """What was expected."""


def from_text(text: str, default: Any, hints: Mapping[str, Any] | None = None) -> Any:
    """The value that *text* is, where the default is of the type that it has to be.

    Raises `Unfit`, whose text says what was expected.
    """
    for choice in (hints or {}).get("choices") or ():
        if text == str(choice):
            return choice
    return _READERS.get(_type_name(default, hints), _anything)(text)


def from_value(value: Any, default: Any, hints: Mapping[str, Any] | None = None) -> Any:
    """A value of JSON, YAML, TOML or Python, where the default is of the type that it has to be; nothing of it is lost.

    None goes everywhere, a whole number where a float is. Raises `Unfit`.
    """
    wanted = _type_name(default, hints)
    if value is None or wanted not in _READERS or type(value).__name__ == wanted:
        return value
    match wanted, value:
        case (("int" | "float" | "complex" | "bool"), str()):
            return _READERS[wanted](value)
        case (("float" | "complex"), int()) if not isinstance(value, bool):
            return value
        case "complex", float():
            return value
        case "int", float() if value.is_integer():
            return int(value)
        case "tuple", list():
            return tuple(value)
        case "set", list() | tuple():
            return set(value)
        case "list", tuple():
            return list(value)
        case "bytes", str():
            return value.encode()
    raise Unfit(f"expected {_named(wanted)}, found {_shown(value)}")


def check(value: Any, hints: Mapping[str, Any]) -> None:
    """Raise `Unfit` for a value outside of what the hints `choices`, `min` and `max` allow."""
    choices = hints.get("choices")
    if isinstance(choices, (list, tuple, set)) and value not in choices:
        raise Unfit(f"expected one of {', '.join(map(_shown, choices))}, found {_shown(value)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low, high = hints.get("min"), hints.get("max")
    if isinstance(low, (int, float)) and not value >= low:  # NaN is neither
        raise Unfit(f"expected at least {low}, found {_shown(value)}")
    if isinstance(high, (int, float)) and not value <= high:
        raise Unfit(f"expected at most {high}, found {_shown(value)}")


def fail(name: str, where: str, error: Unfit) -> HyperparameterError:
    """The error for a value that does not fit, with the place that it comes from."""
    return HyperparameterError(f"{where}: {name}: {error}", "numb hp shows every hyperparameter")


def _type_name(default: Any, hints: Mapping[str, Any] | None) -> str:
    told = (hints or {}).get("type")
    if isinstance(told, str):
        return told
    return "" if default is EMPTY or default is NOT_LITERAL or default is None else type(default).__name__


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _YES | _NO:
        return word in _YES
    raise Unfit(f"expected true or false, found {_shown(text)}")


def _int(text: str) -> int:
    found = parsed(text)
    if type(found) is int:
        return found
    raise Unfit(f"expected a whole number, found {_shown(text)}")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Unfit(f"expected a number, found {_shown(text)}") from None


def _complex(text: str) -> complex:
    try:
        return complex(text.replace(" ", ""))
    except ValueError:
        raise Unfit(f"expected a complex number, found {_shown(text)}") from None


def _bytes(text: str) -> bytes:
    found = parsed(text)
    return found if isinstance(found, bytes) else text.encode(errors="surrogateescape")


def _collection(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        found = parsed(text)
        if isinstance(found, (list, tuple)) or (kind is set and isinstance(found, set)):
            try:
                return kind(found)
            except TypeError:
                pass
        raise Unfit(f"expected {_named(kind.__name__)}, found {_shown(text)}")

    return read


def _dict(text: str) -> dict[Any, Any]:
    found = parsed(text)
    if isinstance(found, dict):
        return found
    raise Unfit(f"expected a dictionary such as {{'key': 1}}, found {_shown(text)}")


def _anything(text: str) -> Any:
    found = parsed(text)
    return text if found is NOT_LITERAL else found


def parsed(text: str) -> Any:
    """The literal of Python or JSON that *text* is; `NOT_LITERAL` for anything else."""
    word = text.strip()
    if word.lower() in ("inf", "+inf", "-inf", "nan"):
        return float(word)
    try:
        found = literal(ast.parse(word, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = NOT_LITERAL
    if found is not NOT_LITERAL:
        return found
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return NOT_LITERAL


_READERS: dict[str, Callable[[str], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "complex": _complex,
    "str": str,
    "bytes": _bytes,
    "list": _collection(list),
    "tuple": _collection(tuple),
    "set": _collection(set),
    "dict": _dict,
}

_NAMES = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "complex": "a complex number", "str": "text",
    "bytes": "bytes", "list": "a list such as [1, 2]", "tuple": "a tuple such as (1, 2)", "set": "a set such as {1, 2}",
    "dict": "a dictionary such as {'key': 1}",
}  # fmt: skip


def _named(kind: str) -> str:
    return _NAMES.get(kind, kind)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
