"""Values from a shell, a file or a queue, made to fit a hyperparameter. Literals are parsed, nothing is evaluated.

The type of the default decides: `3` is a number for a number, and text for a text.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any

from numb.hp.values import EMPTY, NOT_LITERAL, is_literal, literal

_NONE = frozenset(("None", "null"))
_YES = frozenset(("yes", "true", "t", "y", "1"))
_NO = frozenset(("no", "false", "f", "n", "0"))


class Unfit(ValueError):
    """What was expected."""


def from_text(text: str, default: Any, hints: Mapping[str, Any] | None = None) -> Any:
    """The value that *text* is, where the default is of the type that it has to be.

    None goes everywhere, but for text, for which it is a word. Raises `Unfit`, whose text says what was expected.
    """
    for choice in choices(hints) or ():
        if text == str(choice):
            return choice
    wanted = _type_name(default, hints)
    if text in _NONE and wanted not in ("str", "bytes"):
        return None
    return _shaped(_READERS.get(wanted, _anything)(text), default)


def from_value(value: Any, default: Any, hints: Mapping[str, Any] | None = None) -> Any:
    """A value of JSON, YAML, TOML or Python, where the default is of the type that it has to be; nothing of it is lost.

    None goes everywhere, a whole number becomes the float that it is equal to. Raises `Unfit`.
    """
    if not is_literal(value):
        raise Unfit(f"expected {_named(_type_name(default, hints)) or 'a value'}, found {_shown(value)}")
    wanted = _type_name(default, hints)
    is_choice = any(type(value) is type(choice) and value == choice for choice in choices(hints) or ())
    if value is None or is_choice or wanted not in _READERS:
        return value
    if type(value).__name__ == wanted:
        return _shaped(value, default)
    match wanted, value:
        case (("int" | "float" | "complex" | "bool" | "bytes"), str()):
            return from_text(value, default, hints)
        case "float", int() if not isinstance(value, bool):
            return _exactly(value, float)
        case "complex", int() | float() if not isinstance(value, bool):
            return _exactly(value, complex)
        case "int", float() if value.is_integer():
            return int(value)
        case "tuple", list():
            return _shaped(value, default if isinstance(default, tuple) else ())
        case "set", list() | tuple() if all(map(_is_hashable, found := [_without_lists(item) for item in value])):
            return set(found)
        case "list", tuple():
            return list(value)
    raise Unfit(f"expected {_named(wanted)}, found {_shown(value)}")


def to_plain(value: Any, default: Any) -> Any:
    """What a file can hold in place of a value that is of the type of its default: `from_value` gives it back."""
    if type(value) is not type(default):
        return value
    match value:
        case set():
            return sorted(value, key=repr)
        case complex():
            return str(value)
        case bytes():
            return repr(value)
        case _:
            return value


def check(value: Any, hints: Mapping[str, Any], default: Any = EMPTY) -> None:
    """Raise `Unfit` for a value outside of what the hints `choices`, `min` and `max` allow. A default of None is allowed."""
    allowed = choices(hints)
    low, high = (hints.get(bound) if isinstance(hints.get(bound), (int, float)) else None for bound in ("min", "max"))
    if value is None and default is None:
        return
    if allowed is not None and value not in allowed:
        raise Unfit(f"expected one of {', '.join(map(_shown, allowed))}, found {_shown(value)}")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if low is not None and (value is None or (is_number and not value >= low)):  # NaN is neither
        raise Unfit(f"expected at least {low}, found {_shown(value)}")
    if high is not None and (value is None or (is_number and not value <= high)):
        raise Unfit(f"expected at most {high}, found {_shown(value)}")


def limits(hints: Mapping[str, Any]) -> dict[str, Any]:
    """Of the hints those that `check` looks at."""
    return {keyword: hints[keyword] for keyword in ("choices", "min", "max") if keyword in hints}


def choices(hints: Mapping[str, Any] | None) -> list[Any] | None:
    """The values that the hint `choices` allows; None without such a hint, or with one that is no list."""
    told = (hints or {}).get("choices")
    return list(told) if isinstance(told, (list, tuple, set)) else None


def _type_name(default: Any, hints: Mapping[str, Any] | None) -> str:
    told = (hints or {}).get("type")
    if isinstance(told, str):
        return told
    return "" if default is EMPTY or default is NOT_LITERAL or default is None else type(default).__name__


def _shaped(value: Any, default: Any) -> Any:
    """The lists in a value as tuples where the default has tuples: files know no difference."""
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        items = [
            _shaped(item, default[min(at, len(default) - 1)]) if default else item for at, item in enumerate(value)
        ]
        return tuple(items) if isinstance(default, tuple) or isinstance(value, tuple) else items
    if isinstance(value, dict) and isinstance(default, dict):
        return {key: _shaped(item, default.get(key)) for key, item in value.items()}
    return value


def _exactly(number: int | float, kind: Callable[[int | float], Any]) -> Any:
    """The number as one of *kind*, unless that is another number."""
    try:
        return kind(number) if kind(number) == number or number != number else number
    except OverflowError:
        return number


def _without_lists(item: Any) -> Any:
    """What was an item of a set before a file made lists of its tuples."""
    return tuple(map(_without_lists, item)) if isinstance(item, (list, tuple)) else item


def _is_hashable(item: object) -> bool:
    try:
        hash(item)
    except TypeError:
        return False
    return True


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _YES | _NO:
        return word in _YES
    raise Unfit(f"expected true or false, found {_shown(text)}")


def _int(text: str) -> int:
    try:
        return int(text)  # 007, too, which is no literal
    except ValueError:
        found = parsed(text)
    if type(found) is int or (type(found) is float and found.is_integer()):  # 1e3
        return int(found)
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
    try:
        return found if isinstance(found, bytes) else text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise Unfit(f"expected bytes, found {_shown(text)}") from None


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
