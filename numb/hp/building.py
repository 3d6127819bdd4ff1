"""Objects from their description: `{"$build": "torch.optim.Adam", "lr": 1e-3}`.

The record keeps the description. Building imports what it names, and so it happens in the user's process only.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numb.errors import HyperparameterError
from numb.hp.tree import BUILD

_EXAMPLE = f'{{"{BUILD}": "torch.optim.Adam"}}'


def build(description: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Make the object that *description* names, with its other keys, *args* and *kwargs* as arguments.

    Descriptions inside of it are built first. What is no description comes back as it is. Raises `HyperparameterError` for a
    name that cannot be imported and for an argument that is not taken, with the nearest that there are.
    """
    if (args or kwargs) and not (isinstance(description, Mapping) and BUILD in description):
        raise HyperparameterError(f"{description!r:.60} describes no object: it has no {BUILD}", _EXAMPLE)
    if isinstance(description, (list, tuple)):
        items = [build(item) for item in description]
        return type(description)(*items) if hasattr(description, "_fields") else type(description)(items)
    if not isinstance(description, Mapping):
        return description
    own = {key: build(value) for key, value in description.items() if key != BUILD}
    if BUILD not in description:
        return own
    target = found(description[BUILD])
    together = {**own, **kwargs}
    _check_arguments(description[BUILD], target, args, together)
    return target(*args, **together)


def found(path: Any) -> Callable[..., Any]:
    """What a dotted path names. Raises `HyperparameterError`."""
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise HyperparameterError(f"{path!r} is no path to import", _EXAMPLE)
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            here = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise  # it is there, and something that it needs is not
            continue
        return _inside(here, name, parts[length:], path)
    import builtins

    if len(parts) == 1 and callable(getattr(builtins, path, None)):
        return getattr(builtins, path)  # type: ignore[no-any-return]
    raise HyperparameterError(f"{path}: there is no module {parts[0]}", _near(parts[0], _modules()))


def _inside(here: Any, name: str, rest: Iterable[str], path: str) -> Callable[..., Any]:
    for part in rest:
        if not hasattr(here, part):
            raise HyperparameterError(f"{path}: {name} has no {part}", _near(part, dir(here), name))
        here, name = getattr(here, part), f"{name}.{part}"
    if not callable(here):
        raise HyperparameterError(f"{path} is a {type(here).__name__}, which builds nothing")
    return here  # type: ignore[no-any-return]


def _check_arguments(path: str, target: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return  # one in C that does not say
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        taken = [name for name, each in signature.parameters.items() if each.kind is not each.VAR_KEYWORD]
        wrong = next((name for name in kwargs if name not in taken), None)
        hint = _near(wrong, taken) if wrong else None
        raise HyperparameterError(f"{path}: {error}", hint or f"it takes {', '.join(taken)}") from None


def _near(name: str, known: Iterable[str], inside: str = "") -> str | None:
    import difflib

    spelled = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), spelled, 1, 0.6)
    return f"did you mean {f'{inside}.' if inside else ''}{spelled[close[0]]}?" if close else None


def _modules() -> list[str]:
    import sys

    return [name for name in sys.modules if "." not in name]
