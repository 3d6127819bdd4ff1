"""Many combinations of hyperparameters from few words.

    lr={{1e-2,1e-3}}            one for each of the values; of several words every combination, the first varies slowest
    a={{1,2}}{{3,4}}            several lists in one word: 13, 14, 23, 24
    l={{[1,2],[3,4]}}           commas in brackets, braces, parentheses and quotes are part of a value
    lr=loguniform(1e-5,1e-1)    a value that is drawn: uniform, loguniform, normal, randint, lograndint, choice

What comes out are words again, `NAME=VALUE`: what a value is, the hyperparameters of the script say elsewhere.
"""

from __future__ import annotations

import difflib
import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numb.errors import Usage, printable

_OPEN, _CLOSE = "([{", ")]}"
_DRAWN = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_EXPANDED = re.compile(r"[^{}=]+=[^{}]*(\{[^{}]*\}[^{}]*)+")  # what a shell makes of a list
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


# Lists


def crossed(words: Sequence[str]) -> list[list[str]]:
    """Every combination of what the *words* list; the first varies slowest. Raises `Usage`."""
    return [list(each) for each in itertools.product(*_lists(words))]


def zipped(words: Sequence[str]) -> list[list[str]]:
    """The first value of each list together, the second, and so on. Raises `Usage` for lists of different lengths."""
    every = _lists(words)
    lengths = {len(each) for each in every if len(each) > 1} or {1}
    if len(lengths) > 1:
        long = {each[0].partition("=")[0]: len(each) for each in every if len(each) > 1}
        counts = ", ".join(f"{printable(name)} has {count}" for name, count in long.items())
        raise Usage(f"--zip takes lists of one length; {counts}", "without --zip it is every combination")
    [length] = lengths
    return [[each[n] if len(each) > 1 else each[0] for each in every] for n in range(length)]


def _lists(words: Sequence[str]) -> list[list[str]]:
    """The alternatives of each word. A shell makes `lr={1} lr={2}` of `lr={{1,2}}`: words of one name are its list again."""
    together: dict[str, list[str]] = {}
    for word in words:
        together.setdefault(word.partition("=")[0], []).append(word)
    return [_joined(each) if len(each) > 1 else alternatives(each[0]) for each in together.values()]


def _joined(words: Sequence[str]) -> list[str]:
    name = printable(words[0].partition("=")[0])
    if not all(map(_EXPANDED.fullmatch, words)):
        raise Usage(f"{name} is given twice", f"{name}={{{{VALUE,VALUE}}}}")
    plain = [re.sub("[{}]", "", word) for word in words]
    if any(each.count("(") != each.count(")") or each.count("[") != each.count("]") for each in plain):
        raise Usage(
            f"the shell has taken the list of {name} apart", f"put it into quotes: '{name}={{{{[1,2],[3,4]}}}}'"
        )
    return plain


def alternatives(word: str) -> list[str]:
    """A word with each value of its lists: `a={{1,2}}{{3,4}}` is `a=13`, `a=14`, `a=23`, `a=24`. Raises `Usage`."""
    name, equals, text = word.partition("=")
    if not equals or not name.strip() or "{{" in name:
        raise Usage(f"{printable(word)} is no setting", "NAME={{VALUE,VALUE}}, such as lr={{1e-2,1e-3}}")
    return [f"{name}={''.join(each)}" for each in itertools.product(*_pieces(text, word))]


def _pieces(text: str, word: str) -> Iterator[list[str]]:
    """What follows each other in a text, each piece as all that may stand there."""
    while (start := text.find("{{")) >= 0:
        yield [text[:start]]
        items, rest = _listed(text[start + 2 :], "}}")
        if rest is None:
            raise Usage(f"{printable(word)}: a list is not closed", "NAME={{VALUE,VALUE}}, such as lr={{1e-2,1e-3}}")
        if "" in items:
            raise Usage(f"{printable(word)}: a value is missing", "an empty text is ''")
        yield items
        text = rest
    yield [text]


def _listed(text: str, end: str) -> tuple[list[str], str | None]:
    """The values up to *end* that commas set apart, and what comes after it; None where it does not come."""
    items: list[str] = []
    item, depth, quote, at = "", 0, "", 0
    while at < len(text):
        character = text[at]
        if quote:
            if character == "\\":
                item, at = item + text[at : at + 2], at + 2
                continue
            quote = "" if character == quote else quote
        elif depth == 0 and end and text.startswith(end, at):
            return [*items, item.strip()], text[at + len(end) :]
        elif character in "\"'" and not (item.strip() and item[-1].isalnum()):
            quote = character
        elif character == "," and depth == 0:
            items, item, at = [*items, item.strip()], "", at + 1
            continue
        depth += (character in _OPEN) - (character in _CLOSE) if not quote else 0
        item, at = item + character, at + 1
    return [*items, item.strip()], None if end else ""


# Draws


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a value is drawn from: its kind, and its limits or choices."""

    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def draw(self, dice: random.Random) -> str:
        """One value, as a word has it."""
        if self.kind == "choice":
            return dice.choice(self.choices)
        value = _KINDS[self.kind](dice, self.low, self.high)
        return repr(value)


def _loguniform(dice: random.Random, low: float, high: float) -> float:
    return min(high, max(low, math.exp(dice.uniform(math.log(low), math.log(high)))))


def _lograndint(dice: random.Random, low: float, high: float) -> int:
    return min(int(high), max(int(low), math.floor(_loguniform(dice, low, high + 1))))


_KINDS: Mapping[str, Callable[[random.Random, float, float], Any]] = {
    "uniform": lambda dice, low, high: dice.uniform(low, high),
    "loguniform": _loguniform,
    "normal": lambda dice, mean, deviation: dice.gauss(mean, deviation),
    "randint": lambda dice, low, high: dice.randint(int(low), int(high)),
    "lograndint": _lograndint,
}


def distribution(text: str) -> Distribution | None:
    """The distribution that a text names, `loguniform(1e-5,1e-1)`; None for another text.

    `uniform(LOW,HIGH)`, `normal(MEAN,DEVIATION)`; whole numbers from LOW to HIGH, both among them: `randint`, and `lograndint`,
    which takes small ones as often as large ones; `choice(A,B,…)`. Raises `Usage` for limits that are none.
    """
    found = _DRAWN.fullmatch(text.strip())
    if found is None or found[1] not in (*_KINDS, "choice"):
        return None
    kind, (items, _) = found[1], _listed(found[2], "")
    if kind == "choice":
        if "" in items:
            raise Usage(f"{printable(text)}: a value is missing", "an empty text is ''")
        return Distribution(kind, choices=tuple(items))
    if len(items) != 2 or not all(map(_NUMBER.fullmatch, items)):
        raise Usage(f"{printable(text)} needs two numbers", f"{kind}({_EXAMPLES[kind]})")
    low, high = map(float, items)
    is_whole = not kind.endswith("randint") or (low.is_integer() and high.is_integer())
    is_ordered = high > 0 if kind == "normal" else low <= high
    is_positive = low > 0 or not kind.startswith("log")
    if not (is_whole and is_ordered and is_positive and math.isfinite(low) and math.isfinite(high)):
        raise Usage(f"{printable(text)} has no such limits", f"{kind}({_EXAMPLES[kind]})")
    return Distribution(kind, low, high)


_EXAMPLES = {
    "uniform": "0,0.5", "loguniform": "1e-5,1e-1", "normal": "0,1", "randint": "1,8", "lograndint": "16,1024",
}  # fmt: skip


def sampled(words: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """So many combinations, with a value for each distribution in the *words*; the same for the same seed. Raises `Usage`."""
    known = parts(words)
    if not any(each for _, _, each in known):
        raise Usage(
            f"nothing is drawn{like_one(text for _, text, _ in known)}", "lr=loguniform(1e-5,1e-1), or: numb queue grid"
        )
    dice = random.Random(seed)
    return [[f"{name}={each.draw(dice) if each else text}" for name, text, each in known] for _ in range(count)]


def like_one(texts: Iterable[str]) -> str:
    """What is to be added to an error where a text looks like a distribution and is none."""
    for text in texts:
        if call := re.fullmatch(r"\s*(\w+)\(.*\)\s*", text):
            near = difflib.get_close_matches(call[1], [*_KINDS, "choice"], 1, 0.5)
            return f": there is no distribution {call[1]}" + (f"; did you mean {near[0]}?" if near else "")
    return ""


def parts(words: Sequence[str]) -> list[tuple[str, str, Distribution | None]]:
    """Each word as its name, its text, and the distribution that this names, or None. Raises `Usage`."""
    pairs = [word.partition("=")[::2] for word in words if "=" in word]
    if len(pairs) < len(words):
        strange = next(word for word in words if "=" not in word)
        raise Usage(f"{printable(strange)} is no setting", "NAME=DISTRIBUTION, such as lr=loguniform(1e-5,1e-1)")
    return [(name, text, distribution(text)) for name, text in pairs]
