"""What a row of the listing has values for, by name: facts of the run, hyperparameters, results, what series sum up to.

Values lie in a column of JSON for each space, flat, under dotted names: the number of names has no limit, and none of them
becomes a word of SQL. There NaN is null, infinity is `9e999`, None is left out, and what SQL has nothing like is text.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from numb import record

_PLAIN = (
    "reason",
    "seconds",
    "exit_code",
    "message",
    "queue",
    "host",
    "branch",
    "base",
    "command",
)  # as the record has them
KEPT = (*_PLAIN, "network", "parameters", "checkpoints")  # what the column of facts has

_ENCODED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_INFINITE: dict[Any, str] = {math.inf: "9e999", -math.inf: "-9e999"}
_AWKWARD = re.compile(r'["\\\x00-\x1f]')  # what a path into JSON cannot quote


def facts(plain: Mapping[str, Any]) -> str:
    """The JSON of those facts of a record that have no column of their own."""
    found = {name: value for name in _PLAIN if (value := plain.get(name)) not in (None, "")}
    if isinstance(words := found.get("command"), list):
        found["command"] = _command(*map(str, words))
    models = plain.get("models") or {}
    if models:
        names = "+".join(sorted({str(model.get("type") or name) for name, model in models.items()}))
        found["network"] = f"{names}·{record.short_architecture(str(plain.get('architecture')))}"
    found["parameters"] = sum([model.get("parameters") or 0 for model in models.values()])
    found["checkpoints"] = len(plain.get("checkpoints") or ())
    return flat(found)


def flat(values: Mapping[str, Any]) -> str:
    """The JSON of a column, from decoded values under dotted names. Written by hand, for an index has hundreds of thousands."""
    return (
        "{" + ",".join([f"{_label(name)}:{_cell(value)}" for name, value in values.items() if value is not None]) + "}"
    )


@functools.lru_cache(1 << 12)
def _label(name: str) -> str:
    return _ENCODED(key(name))


@functools.lru_cache(1 << 8)
def _command(*words: str) -> str:
    return record.brief(words, 1 << 20)


def key(name: str) -> str:
    """The name of a value as a column has it."""
    return _AWKWARD.sub("\ufffd", name.encode(errors="replace").decode())


def _cell(value: Any) -> str:
    kind = type(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else "null" if value != value else _INFINITE[value]
    if kind is int:
        return repr(value)
    if kind is bool:
        return "true" if value else "false"
    text = value if kind is str else record.brief(value, 1 << 20)
    return _ENCODED(text if text.isascii() else text.encode(errors="replace").decode())


def summed(series: Mapping[str, record.Series]) -> dict[str, Any]:
    """What series sum up to, by name: `loss.last` for those of `numb.log`, `val.loss.last` for others."""
    found: dict[str, Any] = {}
    for name, each in series.items():
        for inner, numbers in each.fields.items():
            start = inner if name == "log" else f"{name}.{inner}"
            best = record.best_of(inner, numbers)[0]
            known = {
                "best": best,
                "last": numbers.last,
                "min": numbers.lowest,
                "max": numbers.highest,
                "mean": numbers.mean,
            }
            found |= {f"{start}.{word}": value for word, value in known.items() if value is not None}
    return found


def literal(text: str) -> str:
    """A text as SQL spells it."""
    return "'" + text.replace("'", "''") + "'"
