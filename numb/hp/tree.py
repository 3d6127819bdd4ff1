"""Names with dots as trees: nested dictionaries to flat ones and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from numb.errors import HyperparameterError, ImpossibleTree

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*){0,49}")  # no tree is deeper
IS_DICT = "__is_dict__"  # the key that tells a dictionary that is a value from one that is a branch
BUILD = "$build"  # the key of one that describes an object


def check_name(name: object, where: str = "") -> str:
    """The name of a hyperparameter: identifiers joined by dots. Raises `HyperparameterError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise HyperparameterError(f"{where}{name!r} is no name of a hyperparameter", 'one like "lr" or "opt.lr"')
    return name


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level, with dotted names, which `expand` makes nested again.

    Dictionaries that are values stay whole: annotated ones, empty ones, and those with a key that is no part of a name. Scalars
    of NumPy and torch become Python's. The input is not changed. Raises `ImpossibleTree` for a name that is there twice, or
    both a value and a branch.
    """
    return {name: _scalar(value) for name, value in leaves(nested, prefix, strict=False).items()}


def leaves(nested: Mapping[str, Any], prefix: str = "", *, strict: bool = True) -> dict[str, Any]:
    """What `flatten` gives, with values as they are.

    Where that is *strict*, a key that is no string is an `ImpossibleTree`, too.
    """
    flat: dict[str, Any] = {}
    for name, value in _leaves(nested, prefix, strict):
        if name in flat:
            raise ImpossibleTree(f"`{name}` is there twice")
        flat[name] = value
    for name in flat:
        if above := next((parent for parent in ancestors(name) if parent in flat), None):
            raise ImpossibleTree(f"`{above}` is both a leaf and a tree: {name} lies below it")
    return flat


def _leaves(nested: Mapping[Any, Any], prefix: str, strict: bool) -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if not isinstance(key, str):
            raise ImpossibleTree(f"the key {key!r}{f' of `{prefix}`' if prefix else ''} is no string")
        if not key:
            raise ImpossibleTree(f"a key{f' of `{prefix}`' if prefix else ''} is the empty string")
        name = f"{prefix}.{key}" if prefix else key
        is_branch = isinstance(value, Mapping) and value and not value.get(IS_DICT)
        if is_branch and (strict or all(isinstance(inner, str) and all(inner.split(".")) for inner in value)):
            yield from _leaves(value, name, strict)
        elif isinstance(value, Mapping):
            yield name, {inner: item for inner, item in value.items() if inner != IS_DICT}
        else:
            yield name, value


def _scalar(value: Any) -> Any:
    """The number in an array of no dimensions."""
    if getattr(value, "shape", None) != () or not hasattr(value, "dtype"):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError):  # on the meta device there is none
        return value


def expand(flat: Mapping[str, Any], *, annotate: bool = False) -> dict[str, Any]:
    """The nested dictionary; with *annotate* the dictionaries that are values are marked, so that `flatten` leaves them whole.

    Raises `ImpossibleTree` for a name that is both a value and a branch.
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *branches, leaf = name.split(".")
        here = nested
        for depth, branch in enumerate(branches, 1):
            if ".".join(branches[:depth]) in flat:
                raise ImpossibleTree(f"`{'.'.join(branches[:depth])}` is both a leaf and a tree: {name} lies below it")
            here = here.setdefault(branch, {})
        here[leaf] = {**value, IS_DICT: True} if annotate and isinstance(value, Mapping) else value
    return nested


def ancestors(name: str) -> Iterator[str]:
    """The names above one, the nearest first: `a.b.c` lies below `a.b` and `a`."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def is_inside(path: str, value: object) -> bool:
    """Whether *path*, keys joined by dots, can be set in *value*: the way there leads through dictionaries, or nothing yet."""
    if not isinstance(value, Mapping):
        return False
    key, _, rest = path.partition(".")
    return not rest or value.get(key) is None or is_inside(rest, value[key])


def delivered(target: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the entries of *target* become that *values* name, wholly or with dots something inside of them."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        for root in (name, *ancestors(name)):
            if root not in target:
                continue
            inside = name[len(root) + 1 :]
            known = found.get(root, target[root])
            if not inside:
                found[root] = value
            elif is_inside(inside, known):
                found[root] = replaced(known, {inside: value})
            break
    return found


def inside(target: Mapping[str, Any], name: str) -> list[Any]:
    """What *target* holds under a name with dots, an entry of its own or inside of one; nothing where there is none."""
    for root in (name, *ancestors(name)):
        if root in target:
            found = [target[root]]
            for key in filter(None, name[len(root) + 1 :].split(".")):
                found = [each[key] for each in found if isinstance(each, Mapping) and key in each]
            return found
    return []


def replaced(value: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary with some of what lies in it replaced: `below` names it with dots. The input is not changed."""
    copy = dict(value)
    for name, item in below.items():
        first, _, rest = name.partition(".")
        if not rest:
            copy[first] = item
            continue
        inner = copy.get(first)
        copy[first] = replaced(inner if isinstance(inner, Mapping) else {}, {rest: item})
    return copy
