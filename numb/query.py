"""The one expression by which runs are chosen and sorted: `lr < 1e-3 and results.acc > 0.9`.

    expression   comparisons joined by `and`, `or`, `not` and parentheses
    comparison   NAME < <= > >= = != VALUE        `==` is `=`
                 NAME ~ TEXT, NAME !~ TEXT        contains, whatever the case
                 NAME in (VALUE, …), NAME not in (VALUE, …)
                 NAME is missing, NAME is nan, and `is not`
                 NAME                             true, and neither 0 nor empty
    NAME         a fact of the run (`status`), a hyperparameter (`lr`, `opt.lr`), or a result, in that order; `run.`, `params.`,
                 `results.` and `series.` say which; in backquotes where it has other characters
    VALUE        a number, a text in quotes, true, false, none, a time (2026-11-20, 2026-11-20T21:33), a duration (90s, 2h, 3d);
                 after = != ~ and in parentheses what is none of these is a text

A comparison with what is missing, or of another type, is false, and so is its `!=`. Nothing here knows SQL, files, or a run.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numb.errors import Usage, printable
from numb.record import PARAMS, RESULTS, RUN, SERIES

SPACES = (RUN, PARAMS, RESULTS, SERIES)

_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<id>\d{8}-\d{6}(?:-[a-z2-9]{4})?)
  | (?P<time>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?Z?)?(?![\w-]))
  | (?P<duration>(?:\d+\.?\d*|\.\d+)(?:s|min|m|h|d|w|y)\b)
  | (?P<number>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf\b)(?![\w.]))
  | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | `(?P<quoted>[^`]+)`
  | (?P<word>[^\W\d][\w]*(?:[.\-/:\[\]]*[\w\]]+)*)
  | (?P<bare>\d[\w.\-]*)
  | (?P<symbol><=|>=|==|!=|<>|!~|[<>=~(),])
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(("and", "or", "not", "in", "is"))
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_DEEPEST = 50
_EXAMPLE = "numb list --where 'lr < 1e-3 and results.acc > 0.9'"


@dataclass(frozen=True, slots=True)
class Name:
    """What a run has a value for; `space` is None where only the name was given."""

    name: str
    space: str | None = None

    @classmethod
    def of(cls, text: str) -> Name:
        """`lr`, `results.acc`, `run.status`."""
        space, dot, rest = text.partition(".")
        return cls(rest, space) if dot and rest and space in SPACES else cls(text)

    def __str__(self) -> str:
        return self.name if self.space is None else f"{self.space}.{self.name}"


@dataclass(frozen=True, slots=True)
class Compare:
    """`NAME SIGN VALUE`; the sign is one of < <= > >= = != ~ !~."""

    name: Name
    sign: str
    value: Any  # a number, a text, a truth value, None, or another `Name`


@dataclass(frozen=True, slots=True)
class Among:
    """`NAME in (VALUE, …)`."""

    name: Name
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Is:
    """`NAME is WHAT`: missing, nan, or true."""

    name: Name
    what: str


@dataclass(frozen=True, slots=True)
class Not:
    """What is not so."""

    inner: Condition


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions of which all (`and`) or any (`or`) must be so."""

    word: str
    parts: tuple[Condition, ...]


Condition = Compare | Among | Is | Not | Joined


@dataclass(frozen=True, slots=True)
class Sort:
    """By what runs are put in order; what is missing or NaN comes last, either way."""

    name: Name
    descending: bool = False

    @classmethod
    def of(cls, text: str) -> Sort:
        """`lr`, or `-results.acc` for the highest first. Raises `Usage`."""
        descending = text.startswith("-")
        name = text.removeprefix("-").strip()
        if not name:
            raise Usage(f"{text!r} names nothing to sort by", "numb list --sort -results.acc")
        return cls(Name.of(name), descending)


def parsed(text: str) -> Condition:
    """The condition that *text* states. Raises `Usage`, which shows the place where it cannot be understood."""
    return _Parser(text).whole()


def both(first: Condition | None, second: Condition | None) -> Condition | None:
    """What must be so where each of them must."""
    if first is None or second is None:
        return first or second
    return Joined("and", (first, second))


def names(condition: Condition) -> Iterator[Name]:
    """Every name in it."""
    match condition:
        case Joined(_, parts):
            for part in parts:
                yield from names(part)
        case Not(inner):
            yield from names(inner)
        case Compare(name, _, value):
            yield name
            if isinstance(value, Name):
                yield value
        case Among(name) | Is(name):
            yield name


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise _wrong(text, at, f"{text[at]!r} is not understood")
        kind = match.lastgroup
        if kind == "word" and match[kind].lower() in _KEYWORDS:
            kind = "keyword"
        found.append(_Token(kind, match[match.lastgroup], match.start(match.lastgroup)))
        at = match.end()
    return found


def _wrong(text: str, at: int, why: str) -> Usage:
    shown = text if len(text) <= 100 else text[max(0, at - 50) : at + 50]
    place = at if len(text) <= 100 else min(at, 50)
    return Usage(f"{printable(why)}:\n        {printable(shown)}\n        {' ' * place}^", _EXAMPLE)


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.next = 0
        self.depth = 0

    def whole(self) -> Condition:
        found = self.any_of()
        if self.next < len(self.tokens):
            raise self.wrong("an `and`, an `or` or the end is expected here")
        return found

    def peek(self) -> _Token:
        return self.tokens[self.next] if self.next < len(self.tokens) else _Token("end", "", len(self.text))

    def take(self) -> _Token:
        token = self.peek()
        self.next += 1
        return token

    def skip(self, *words: str) -> str | None:
        token = self.peek()
        if token.kind in ("keyword", "symbol") and token.text.lower() in words:
            self.next += 1
            return token.text.lower()
        return None

    def wrong(self, why: str, token: _Token | None = None) -> Usage:
        return _wrong(self.text, (token or self.peek()).at, why)

    def any_of(self) -> Condition:
        return self.joined("or", lambda: self.joined("and", self.negated))

    def joined(self, word: str, part: Any) -> Condition:
        parts = [part()]
        while self.skip(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def negated(self) -> Condition:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.wrong(f"nested more than {_DEEPEST} levels deep")
        try:
            if self.skip("not"):
                return Not(self.negated())
            if self.skip("("):
                inner = self.any_of()
                if not self.skip(")"):
                    raise self.wrong("a ) is expected here")
                return inner
            return self.test()
        finally:
            self.depth -= 1

    def test(self) -> Condition:
        token = self.take()
        if token.kind not in ("word", "quoted"):
            raise self.wrong("the name of a hyperparameter or a result is expected here", token)
        name = Name.of(token.text)
        if sign := self.skip("<", "<=", ">", ">=", "=", "==", "!=", "<>", "~", "!~"):
            sign = {"==": "=", "<>": "!="}.get(sign, sign)
            return Compare(name, sign, self.value(words=sign in ("=", "!=", "~", "!~")))
        if self.skip("is"):
            negated = self.skip("not")
            what = self.take().text.lower()
            if what not in ("missing", "null", "none", "nan", "true", "false"):
                self.next -= 1
                raise self.wrong("`missing` or `nan` is expected here")
            found: Condition = Is(name, {"nan": "nan", "true": "true", "false": "false"}.get(what, "missing"))
            return Not(found) if negated else found
        negated = self.skip("not")
        if self.skip("in"):
            among = Among(name, tuple(self.values()))
            return Not(among) if negated else among
        if negated:
            raise self.wrong("`in` is expected here")
        return Is(name, "true")

    def values(self) -> Iterator[Any]:
        if not self.skip("("):
            raise self.wrong("a ( is expected here")
        yield self.value(words=True)
        while self.skip(","):
            yield self.value(words=True)
        if not self.skip(")"):
            raise self.wrong("a ) is expected here")

    def value(self, *, words: bool) -> Any:
        token = self.take()
        match token.kind:
            case "number":
                return _number(token.text)
            case "id":
                return token.text
            case "text":
                return re.sub(r"\\(.)", r"\1", token.text[1:-1])
            case "time":
                return _moment(token.text)
            case "duration":
                number, unit = re.findall(r"[\d.]+|[a-z]+", token.text)
                return float(number) * _SECONDS[unit]
            case "word" if token.text.lower() in _CONSTANTS:
                return _CONSTANTS[token.text.lower()]
            case "bare" if words:
                return token.text
            case "word" | "quoted":
                name = Name.of(token.text)
                return name if name.space or token.kind == "quoted" or not words else token.text
            case _:
                raise self.wrong("a value is expected here", token)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _moment(text: str) -> float:
    """Seconds since the epoch of a time in UTC."""
    plain = text.rstrip("Z").replace(" ", "T")
    shape = "%Y-%m-%dT%H:%M:%S"[: {10: 8, 16: 14, 19: 17}[len(plain)]]
    try:
        return float(calendar.timegm(time.strptime(plain, shape)))
    except ValueError:
        raise Usage(f"{text} is no time", _EXAMPLE) from None
