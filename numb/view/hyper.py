"""Hyperparameters of a project, for a person and for a program: a table, every place, and which value won."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numb import record
from numb.errors import printable
from numb.hp import coerce, formats
from numb.hp.occurrence import Level
from numb.hp.settings import Row, Setting
from numb.hp.table import Place
from numb.hp.values import EMPTY, NOT_LITERAL
from numb.view.table import grid


def listing(rows: Sequence[Row]) -> str:
    """A line for each: name, value, type, what the hints allow, where it stands."""
    cells = [
        [printable(row.name), shown(row.value), row.known.type, _from(row), _hints(row.known.hints), _places(row)]
        for row in rows
    ]
    heads = ["name", "value", "type", "set by", "hints", "where"]
    used = [at for at in range(len(heads)) if at not in (3, 4) or any(line[at] for line in cells)]
    text = grid([[line[at] for at in used] for line in cells], [heads[at] for at in used], [1])
    return "\n".join(line.rstrip() for line in text.splitlines())


def detailed(rows: Sequence[Row], around: Callable[[Place], str]) -> str:
    """Every place of each, with the lines around it."""
    blocks = []
    for row in rows:
        lines = [
            f"{printable(row.name)} = {shown(row.value)}  ({row.known.type})" + (f"  {_from(row)}" if row.given else "")
        ]
        lines += [f"  {keyword}: {shown(value, 60)}" for keyword, value in row.known.hints.items()]
        for place in row.known.places:
            lines.append(f"  {printable(place.file)}:{place.line}  {place.kind.value}")
            lines += [f"    {printable(line)}" for line in around(place).splitlines()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def why(row: Row) -> str:
    """Each level at which a value can be given, the value there, and which of them count: of a dictionary several may."""
    counting = row.counting
    of_source = None if any(each.name == row.name for each in counting) else row.known.place
    lines = []
    for level in Level:
        if level is Level.SOURCE:
            places = [place for place in row.known.places if place.value is not EMPTY] or list(row.known.places)
            lines += [[_mark(each is of_source), level.text, shown(each.value), str(each)] for each in places]
        elif level in (Level.CALL, Level.SET):
            lines.append(["", level.text, "", "known when the script runs"])
        else:
            given = [each for each in row.given if each.level is level]
            lines += [[_mark(each in counting), level.text, _said(each, row.name), each.origin] for each in given]
            lines += [] if given else [["", level.text, "-", ""]]
    text = grid(lines, ["", "level", "value", "where"])
    return f"{printable(row.name)} = {shown(row.value)}\n" + "\n".join(line.rstrip() for line in text.splitlines())


def _mark(counts: bool) -> str:
    return "*" if counts else ""


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list; a value that only running the script could tell is null, and `literal` is false."""
    return json.dumps([_detail(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False)


def as_yaml(rows: Sequence[Row]) -> str:
    """A file for `-c`; what only running the script could tell is a comment."""
    values = {row.name: coerce.to_plain(row.value, row.known.default) for row in rows}
    held = {name: value for name, value in values.items() if formats.holds("yaml", value)}
    defaults = {row.name: row.known.default for row in rows}
    rest = [f"# {printable(row.name)}: {shown(row.value)}" for row in rows if row.name not in held]
    return "\n".join([*rest, *([formats.text_of(held, "yaml", defaults).rstrip()] if held else [])])


def _detail(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        **_value(row.value),
        "type": row.known.type,
        "hints": {keyword: _value(value)["value"] for keyword, value in row.known.hints.items()},
        "places": [
            {"file": place.file, "line": place.line, "kind": place.kind.value, **_value(place.value)}
            for place in row.known.places
        ],
        "given": [
            {"name": each.name, "level": each.level.text, "origin": each.origin, **_value(each.value)}
            for each in row.given
        ],
    }


def _value(value: Any) -> dict[str, Any]:
    if value is EMPTY:
        return {"value": None, "default": False}
    if value is NOT_LITERAL:
        return {"value": None, "literal": False}
    return {"value": record.encode(value, literals=True)}


def shown(value: Any, width: int = 32) -> str:
    """A value as a person would write it; what only running could tell, and what is not there, in words."""
    if value is EMPTY:
        return "-"
    if value is NOT_LITERAL:
        return "(computed)"
    return record.brief(value, width) if value != "" else "''"


def _said(setting: Setting, name: str) -> str:
    inside = setting.name[len(name) + 1 :]
    return f"{inside}={shown(setting.value)}" if inside else shown(setting.value)


def _from(row: Row) -> str:
    return printable(row.given[-1].origin) if row.given else ""


def _hints(hints: Mapping[str, Any]) -> str:
    words = []
    if choices := hints.get("choices"):
        words.append(
            " | ".join(shown(choice) for choice in choices) if isinstance(choices, (list, tuple)) else shown(choices)
        )
    low, high = hints.get("min"), hints.get("max")
    if low is not None or high is not None:
        words.append(f"{'' if low is None else shown(low)}…{'' if high is None else shown(high)}")
    words += [keyword for keyword in ("log", "required") if hints.get(keyword) is True]
    words += [str(hints[keyword]) for keyword in ("unit", "help") if hints.get(keyword)]
    return record.brief(", ".join(words), 48)


def _places(row: Row) -> str:
    return ", ".join(f"{printable(place.file)}:{place.line}" for place in row.known.places)
