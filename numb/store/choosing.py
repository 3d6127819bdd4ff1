"""What the names, conditions and orders of a query are in SQL, over the columns of the listing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numb import record
from numb.errors import Usage, printable
from numb.query import Among, Compare, Condition, Is, Joined, Name, Not, Sort
from numb.record import PARAMS, RESULTS, RUN, SERIES
from numb.store import columns

# The facts of a run in the order in which they are shown, as columns of the listing, or parts of those that are JSON.
FACTS = {
    "id": "id",
    "status": "status",
    "reason": "",
    "started": "started",
    "age": "({now} - started)",
    "seconds": "",
    "exit_code": "",
    "network": "",
    "architecture": "architecture",
    "parameters": "",
    "name": "json_extract(said, '$.name')",
    "tags": "json_extract(said, '$.tags')",
    "note": "json_extract(said, '$.note')",
    "message": "",
    "trials": "json_extract(said, '$.trials')",
    "checkpoints": "",
    "resumed": "segments",
    "init_from": "init_from",
    "queue": "",
    "host": "",
    "project": "project",
    "branch": "",
    "base": "",
    "command": "",
    "commit": "commit_id",
} | {name: f"json_extract(facts, '$.{name}')" for name in columns.KEPT}
_TIME = "strftime('%Y-%m-%dT%H:%M:%SZ', started, 'unixepoch')"
_MOST = 1900  # columns of a view; SQLite has at most 2000
_MEMBERS = "(select value from json_each({said}, '$.tags'))"


@dataclass(frozen=True, slots=True)
class Columns:
    """The names that runs have, and what each is in SQL."""

    now: float
    known: Mapping[str, Iterable[str]] = field(default_factory=dict)  # by space: params, results, series
    cells: dict[str, str] = field(default_factory=dict)  # what conditions and orders have used, by its SQL: a name each

    def resolved(self, name: Name) -> Name:
        """The name with its space. Raises `Usage` where no run has it, with those that are near."""
        if name.space is not None:
            if name.space == RUN and name.name not in FACTS:
                raise self._unknown(name, [f"run.{fact}" for fact in FACTS])
            if name.space != RUN and name.name not in self.known.get(name.space, ()):
                whole = Name(str(name))  # a hyperparameter of its own may be called `results.x`
                found = next((each for each in self.known if whole.name in self.known[each]), None)
                if found is None:
                    raise self._unknown(name, [f"{name.space}.{each}" for each in self.known.get(name.space, ())])
                return Name(whole.name, found)
            return name
        if name.name in FACTS:
            return Name(name.name, RUN)
        for space in (PARAMS, RESULTS, SERIES):
            if name.name in self.known.get(space, ()):
                return Name(name.name, space)
        every = [*FACTS, *(each for space in self.known.values() for each in space)]
        raise self._unknown(name, every)

    def _unknown(self, name: Name, every: Iterable[str]) -> Usage:
        own = [each for space in (PARAMS, RESULTS) for each in self.known.get(space, ())]
        return Usage(f"no run has {printable(str(name))}", _near(str(name), every, own))

    def refuse_texts(self, query: str, view: Iterable[str]) -> None:
        """Raise `Usage` for a word in double quotes that is no column: to SQLite it is a text then, and the answer is wrong."""
        known = {"runs", *(each.lower() for each in view)}
        words = re.findall(r"""'(?:[^']|'')*'|(\bas\s+)?"((?:[^"]|"")*)\"""", query, re.I)
        known |= {word.lower() for alias, word in words if alias}
        for _, word in words:
            if word and word.replace('""', '"').lower() not in known:
                raise Usage(f"SQL: no such column: {printable(word)}", self.meant(word, view))

    def meant(self, word: str, view: Iterable[str]) -> str:
        """Which columns somebody may have meant, as SQL spells them."""
        return _near(word, view, (), identifier)

    def sql(self, name: Name) -> str:
        """The value of a name. Raises `Usage`."""
        name = self.resolved(name)
        if name.space == RUN:
            return FACTS[name.name].replace("{now}", repr(self.now))
        return f"json_extract({name.space}, {columns.literal('$.' + chr(34) + columns.key(name.name) + chr(34))})"

    def _cell(self, text: str) -> str:
        """A name for what is worked out once for each run, however often it is compared: JSON is read each time."""
        return self.cells.setdefault(text, f"v{len(self.cells)}")

    def where(self, condition: Condition) -> tuple[str, list[Any]]:
        """A condition on `cells` as SQL that is 0 or 1, with its values. Raises `Usage`."""
        match condition:
            case Joined(word, parts):
                texts, values = zip(*map(self.where, parts), strict=True)
                return f"({f' {word} '.join(texts)})", [value for each in values for value in each]
            case Not(inner):
                text, given = self.where(inner)
                return f"not {text}", given
            case Is(name, what):
                return self._is(self.resolved(name), what), []
            case Among(name, among):
                each = [self.where(Compare(name, "=", value)) for value in among]
                return f"({' or '.join(text for text, _ in each)})", [value for _, values in each for value in values]
            case Compare(name, sign, value):
                return self._compared(self.resolved(name), sign, value)
        raise TypeError(f"no condition: {condition!r}")

    def _is(self, name: Name, what: str) -> str:
        sql = self.sql(name)
        if what in ("missing", "nan") and name.space != RUN:
            kind = self._cell(sql.replace("json_extract(", "json_type(", 1))
            return f"({kind} is null)" if what == "missing" else f"coalesce({kind} = 'null', 0)"
        text = self._cell(sql)
        words = {"missing": f"({text} is null)", "nan": "0", "false": f"coalesce({text} in ('', 0), 0)"}
        return words.get(what) or f"coalesce({text} not in ('', 0), 0)"

    def _compared(self, name: Name, sign: str, value: Any) -> tuple[str, list[Any]]:
        if value is None:
            missing = self._is(name, "missing")
            return (missing if sign == "=" else f"not {missing}"), []
        if name == Name("tags", RUN) and sign in ("=", "!="):
            members = _MEMBERS.format(said=self._cell("said"))
            return f"(? {'in' if sign == '=' else 'not in'} {members})", [value]
        text = self._cell(self.sql(name))
        if sign in ("~", "!~"):
            found = f"coalesce(instr(lower({text}), lower(?)) > 0, 0)"
            return (found if sign == "~" else f"(not {found} and {text} is not null)"), [str(value)]
        if isinstance(value, Name):
            other = self._cell(self.sql(value))
            alike = f"(typeof({text}) = 'text') = (typeof({other}) = 'text')"
            return f"coalesce({alike} and {text} {sign} {other}, 0)", []
        given = float(value) if isinstance(value, int) and abs(value) >= 1 << 63 else value
        if sign in (">", ">="):  # to SQL every text is more than any number
            bound = " and {0} <= 9e999" if not isinstance(value, str) else ""
            return f"coalesce({text} {sign} ?{bound.format(text)}, 0)", [given]
        if sign in ("<", "<=") and isinstance(value, str):
            return f"coalesce({text} {sign} ? and typeof({text}) = 'text', 0)", [given]
        return f"coalesce({text} {sign} ?, 0)", [given]

    def order(self, sorts: Iterable[Sort]) -> str:
        """What to order `cells` by: missing values and NaN last, equal ones by age, the newest first. Raises `Usage`."""
        words = []
        for sort in sorts:
            text = self._cell(self.sql(sort.name))
            words.append(f"{text} is null, {text}{' desc' if sort.descending else ''}")
        return ", ".join([*words, "started desc", "id desc"])

    def view(self) -> dict[str, str]:
        """Every column of the table `runs` of `numb sql`, in order, and its SQL: names as they are, and once each."""
        found: dict[str, str] = {}
        taken: set[str] = set()
        wanted = [(fact, Name(fact, RUN)) for fact in FACTS]
        wanted += [(name, Name(name, PARAMS)) for name in self.known.get(PARAMS, ())]
        wanted += [
            (f"{space}.{name}", Name(name, space)) for space in (RESULTS, SERIES) for name in self.known.get(space, ())
        ]
        for name, meant in wanted:
            label = name if name.lower() not in taken else f"{meant.space}.{meant.name}"  # SQL sees no case
            if label.lower() in taken or len(found) >= _MOST:
                continue
            taken.add(label.lower())
            found[label] = _TIME if meant == Name("started", RUN) else self.sql(meant)
        return found


def _near(text: str, every: Iterable[str], own: Sequence[str], spelled: Callable[[str], str] = str) -> str:
    """What is to be typed instead: the names that are near, or where there are few of a user's *own* all of these."""
    import difflib

    known = list(dict.fromkeys(every))
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.6)
    last = text.rpartition(".")[2].lower()
    near += [each for each in known if last and any(part.startswith(last) for part in each.lower().split("."))]
    if found := list(dict.fromkeys(near))[:5]:
        return f"did you mean {', '.join(map(spelled, found))}?"
    return f"there are {record.some(list(own), 12)}" if own else "numb list --csv | head -1 has the names"


def identifier(name: str) -> str:
    """A name as SQL spells it."""
    return '"' + name.replace('"', '""').replace("\x00", "\ufffd") + '"'
