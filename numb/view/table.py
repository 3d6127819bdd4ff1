"""Tables of runs for a terminal, and the same rows as JSON and CSV.

Everything that came from a script is shown verbatim, on one line and without control characters; tabulate's guesses at
numbers are off, for it shows the id `1234e56` as `1.234e+59` (M20).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from numb import record
from numb.errors import printable
from numb.record import Run

_MOST = sys.float_info.max  # a whole number beyond it is no float
_FIRST = 2  # results that stay longer than hyperparameters where a table is too narrow
_LOGGED = 4  # fields of a run without results
PLAIN, MARKDOWN, HTML = "plain", "pipe", "html"  # tabulate's words


class Row(Protocol):
    """What is shown of one run."""

    @property
    def run(self) -> Run: ...
    @property
    def results(self) -> Mapping[str, Any]: ...
    @property
    def trials(self) -> Sequence[Run]: ...
    @property
    def orphaned(self) -> int | None: ...
    @property
    def lost(self) -> bool: ...
    @property
    def said(self) -> record.Said: ...


_R = TypeVar("_R", bound=Row)


def grid(rows: Sequence[Sequence[str]], headers: Sequence[str], right: Iterable[int] = (), *, form: str = PLAIN) -> str:
    """A plain table: columns set apart by two spaces, those in *right* flush right; or one in Markdown or HTML."""
    if not rows:
        return ""
    flush = set(right)
    if form == PLAIN:
        return _plain([headers, *rows], flush)
    from tabulate import tabulate  # as long as all that `numb list` does, which mostly shows a plain table

    aligned = ["right" if i in flush else "left" for i in range(len(headers))]
    if form == MARKDOWN:
        rows, headers = [[_escaped(cell) for cell in row] for row in rows], list(map(_escaped, headers))
    return str(tabulate(rows, headers, tablefmt=form, disable_numparse=True, colalign=aligned))


def _plain(lines: Sequence[Sequence[str]], right: set[int]) -> str:
    sizes = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    shown = []
    for line in lines:
        gaps = [" " * (size - _width(cell)) for size, cell in zip(sizes, line, strict=True)]
        cells = [gap + cell if i in right else cell + gap for i, (gap, cell) in enumerate(zip(gaps, line, strict=True))]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def _width(text: str) -> int:
    """How many columns of a terminal a text takes: two for each wide character, none for what goes over another."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.category(each) in ("Mn", "Me", "Cf") for each in text)


def _escaped(cell: str) -> str:
    """A cell in which nothing is taken for Markdown or HTML."""
    return re.sub(r"([\\|`*_\[\]<>&#~])", r"\\\1", cell)


def of(names: Sequence[str], cells: Sequence[Sequence[Any]], *, form: str = PLAIN) -> str:
    """A table of values under names, as a person would write them; numbers flush right."""
    right = [i for i in range(len(names)) if any(_number(line[i]) is not None for line in cells)]
    rows = [["" if value is None else record.brief(value, 60) for value in line] for line in cells]
    return grid(rows, list(map(printable, names)), right, form=form)


def html_of(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """The same in HTML, in which nothing that a script has named does anything."""
    return of(names, cells, form=HTML)


def csv_of(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """The same as CSV: nothing where there is no value, and what CSV has nothing like as JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(value) for value in line] for line in cells)
    return out.getvalue()


def json_of(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """The same as a JSON list of objects."""
    plain = [
        {name: record.encode(value, name, literals=True) for name, value in zip(names, line, strict=True)}
        for line in cells
    ]
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)


def runs(
    rows: Sequence[Row],
    *,
    known: Mapping[str, int] | None = None,
    all_columns: bool = False,
    now: float | None = None,
    bold: Callable[[str], str] = str,
    width: int | None = None,
    groups: Mapping[str, Sequence[Row]] | None = None,
    form: str = PLAIN,
) -> str:
    """The listing: grouped by architecture, newest last, with the hyperparameters that differ as columns.

    The best value of each result is marked with `*`: the lowest for a loss, an error or a distance, else the highest.
    Where an architecture has more runs, as *known* tells, the title says that these are some of them. Where *width* is too
    narrow for a table, what matters least is cut or left out, and the title says what. With *groups* these are shown in their
    order, under the titles by which they are known.
    """
    moment = time.time() if now is None else now
    if groups is not None:
        tables = [
            _group(each, moment, all_columns, bold, width, title=title, form=form) for title, each in groups.items()
        ]
        return "\n\n".join(tables)
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.run.architecture or "-", []).append(row)
    ordered = sorted(found.values(), key=lambda members: members[-1].run.id)
    there = known or {}
    return "\n\n".join(
        _group(
            members,
            moment,
            all_columns,
            bold,
            width,
            of=there.get(members[-1].run.architecture or "-", 0),
            form=form,
        )
        for members in ordered
    )


def grouped(rows: Sequence[_R], name: str, values: Sequence[Any]) -> dict[str, list[_R]]:
    """The rows of each value of a name, for `runs`; numbers in their order."""
    found: dict[str, list[_R]] = {}
    first: dict[str, Any] = {}
    for row, value in zip(rows, values, strict=True):
        title = f"{name}={record.brief(value)}" if value is not None else f"without {name}"
        found.setdefault(title, []).append(row)
        first.setdefault(title, value)
    return dict(sorted(found.items(), key=lambda item: _rank(first[item[0]])))


def _rank(value: Any) -> tuple[int, float, str]:
    number = _number(value)
    return (0, number, "") if number is not None else (2 if value is None else 1, 0.0, str(value))


def alike(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each architecture with the same hyperparameters, for `runs`."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        key = f"{row.run.network} {record.key({'params': row.run.params, 'from': str(row.run.init_from)})[:6]}"
        found.setdefault(key, []).append(row)
    return found


def choices(rows: Sequence[Row], *, now: float | None = None, width: int | None = None) -> str:
    """The runs of one listing with a number before each, to choose from: see `chosen`."""
    return _group(rows, time.time() if now is None else now, width=width, numbered=True)


def chosen(text: str, runs: Sequence[Run]) -> Run:
    """The run that *text* names: by its number in `choices`, its id, a beginning of that, or its last four letters.

    Raises `ValueError`, which says what was expected.
    """
    word = text.strip()
    if word.isdecimal() and len(word) < 10 and 1 <= int(word) <= len(runs):
        return runs[int(word) - 1]
    named = [run for run in runs if word and (run.id.startswith(word) or run.id[-5:] == f"-{word}")]
    if len(named) == 1:
        return named[0]
    if named:
        raise ValueError(f"the ids of {len(named)} of these runs begin with {word}")
    raise ValueError(
        f"{printable(word)} is neither a number from 1 to {len(runs)} nor the beginning of one of these ids"
    )


def _group(
    rows: Sequence[Row],
    now: float,
    all_columns: bool = False,
    bold: Callable[[str], str] = str,
    width: int | None = None,
    numbered: bool = False,
    of: int = 0,
    title: str | None = None,
    form: str = PLAIN,
) -> str:
    values = [record.flat(row.run.params) for row in rows]
    params = _names(values)
    equal = [] if all_columns or len(rows) == 1 else [n for n in params if _same(values, n)]
    columns = _columns(rows, values, [n for n in params if n not in equal], now, numbered)
    text, hidden = _fitted(columns, width if form == PLAIN else None, form)
    title = (
        bold(printable(rows[-1].run.network if title is None else title)) + f"  {len(rows)} run{'s' * (len(rows) > 1)}"
    )
    if of > len(rows):
        title += f" of {of}" + (" (* is the best of these)" if "*" in text else "")
    if equal:
        title += ", all with " + " ".join(f"{printable(n)}={record.brief(values[0][n])}" for n in equal)
    if hidden:
        title += f"; too narrow for {record.some(hidden, 8)}"
    if form == HTML:
        import html  # rarely needed

        return f"<p>{html.escape(title.strip())}</p>\n{text}"
    return title.strip() + ("\n" if form == PLAIN else "\n\n") + text


@dataclass(slots=True, eq=False)
class _Column:
    """A column of runs, and the steps that make it narrower: when (the lowest first), and to how many characters (0: none)."""

    head: str
    cells: list[str]
    steps: Sequence[tuple[int, int]] = ()
    right: bool = False


def _columns(
    rows: Sequence[Row], params: Sequence[Mapping[str, Any]], differing: Sequence[str], now: float, numbered: bool
) -> list[_Column]:
    shown = [record.flat(row.results) for row in rows]
    if not any(shown):
        shown = [_logged(row.run) for row in rows]
    results = _names(shown)
    columns = [_Column("", [str(n) for n in range(1, len(rows) + 1)], right=True)] if numbered else []
    columns.append(_Column("id", [row.run.id for row in rows]))
    if len({row.run.project for row in rows}) > 1:
        columns.append(_Column("project", [printable(row.run.project) for row in rows]))
    if len({row.run.architecture for row in rows}) > 1:
        columns.append(_Column("network", [printable(row.run.network) for row in rows], [(3, 12)]))
    if any(row.said.name for row in rows):
        columns.append(_Column("name", [row.said.name or "" for row in rows], [(2, 8)]))
    for n in differing:
        cells = [record.brief(values[n]) if n in values else "" for values in params]
        columns.append(_Column(printable(n), cells, [(6, 0)], right=True))
    for place, n in enumerate(results):
        top = best(n, [each.get(n) for each in shown])
        cells = [_marked(each, n, top, len(rows) > 1) for each in shown]
        columns.append(_Column(printable(n), cells, [(7 if place < _FIRST else 4, 0)], right=True))
    states = [status(row) for row in rows]
    if not numbered or any(state != record.COMPLETE for state in states):
        least = max(len(re.split("[:,(]", state)[0]) for state in states)
        columns.append(
            _Column(
                "status",
                states,
                [(2, least + 1), (3 if least == len(record.COMPLETE) and len(set(states)) == 1 else 5, 0)],
            )
        )
    columns.append(_Column("age", [age(row.run.started, now) for row in rows], [(3, 0)]))
    if any(row.said.tags for row in rows):
        columns.append(_Column("tags", [record.brief(" ".join(row.said.tags), 40) for row in rows], [(1, 10), (3, 0)]))
    words = ["; ".join(filter(None, [row.run.message, *row.said.notes])) for row in rows]
    if any(words):
        columns.append(_Column("message", [record.brief(text, 40) for text in words], [(0, 12), (1, 0)]))
    return columns


def _logged(run: Run) -> dict[str, Any]:
    """What a run without results has logged last, beside the step."""
    series = run.series.get("log")
    numbers = {name: each.last for name, each in list(series.fields.items())[1:] if each.count} if series else {}
    return {f"last {name}": value for name, value in list(numbers.items())[:_LOGGED]}


def _fitted(columns: list[_Column], width: int | None, form: str = PLAIN) -> tuple[str, list[str]]:
    """The table, and the names of the columns that were left out of it to make it as narrow as *width*."""
    hidden: list[str] = []
    steps = sorted(
        ((order, least, column) for column in reversed(columns) for order, least in column.steps), key=lambda s: s[0]
    )
    while True:
        right = [i for i, column in enumerate(columns) if column.right]
        lines = list(zip(*(column.cells for column in columns), strict=True))
        text = grid(lines, [column.head for column in columns], right, form=form)
        text = _indented(text) if form == PLAIN else text
        if width is None or not steps or (over := max(map(_width, text.splitlines())) - width) <= 0:
            return text, hidden
        _, least, column = steps.pop(0)
        if least:
            room = max(least, max(map(len, column.cells)) - over)
            column.cells = [record.brief(cell, room) for cell in column.cells]
        else:
            columns.remove(column)
            hidden.insert(0, column.head)


def _indented(text: str) -> str:
    return "\n".join("  " + line.rstrip() for line in text.splitlines())


def _names(values: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in values for name in mapping))


def _same(params: Sequence[Mapping[str, Any]], name: str) -> bool:
    first = params[0]
    return all(
        name in values and record.canonical(values[name]) == record.canonical(first.get(name)) for values in params
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_MOST <= value <= _MOST or value in (math.inf, -math.inf) else None


def best(name: str, values: Iterable[Any]) -> float | None:
    """The best of *values*, where they differ; NaN, infinity and what is no number never is."""
    numbers = {number for number in map(_number, values) if number is not None and math.isfinite(number)}
    if not numbers:
        return None
    return min(numbers) if record.lower_is_better(name) else max(numbers)


def _marked(results: Mapping[str, Any], name: str, best: float | None, several: bool) -> str:
    if name not in results:
        return ""
    mark = "*" if several and best is not None and _number(results[name]) == best else " " if several else ""
    return record.brief(results[name]) + mark


def status(row: Row) -> str:
    if row.orphaned:
        return f"orphaned (still running, pid {row.orphaned})"
    run = row.run
    word = run.status
    if row.lost:
        return f"{word}, lost by git"
    if absent := run.without_weights:
        word += ", no weights" + (f" of {', '.join(absent)}" if run.weights else "")
    if run.reason and run.status != record.COMPLETE:
        return f"{word}: {record.brief(run.reason, 40)}"
    return word


def age(started: float, now: float) -> str:
    """How long ago, in the largest unit of which there is more than one."""
    seconds = max(0.0, now - started)
    for unit, length in (("y", 365 * 86400), ("mo", 30 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list with everything that is known about each run."""
    return json.dumps([detail(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False)


def detail(row: Row, begun: Sequence[Run] = ()) -> dict[str, Any]:
    """One run as plain values: its record, its commit, its newest results, its trials, the ids of those *begun* with it."""
    shown = row.run.to_json() | {"commit": row.run.commit}
    shown["results"] = {name: record.encode(value, name) for name, value in row.results.items()}
    shown |= row.said.to_json()
    shown["trials"] = [trial.to_json() | {"commit": trial.commit} for trial in row.trials]
    shown["begun"] = [run.id for run in begun]
    return shown


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each run; hyperparameters as `params.NAME`, results as `results.NAME`."""
    flat, shown = [record.flat(row.run.params) for row in rows], [record.flat(row.results) for row in rows]
    params, results = _names(flat), _names(shown)
    fixed = ["id", "status", "started", "seconds", "architecture", "message", "commit"]
    lines = []
    for row, values, found in zip(rows, flat, shown, strict=True):
        run = row.run
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started))
        known = [run.id, run.status, started, run.seconds, run.architecture, run.message, run.commit]
        lines.append([*known, *map(values.get, params), *map(found.get, results)])
    return csv_of([*fixed, *(f"params.{n}" for n in params), *(f"results.{n}" for n in results)], lines).rstrip("\n")


def _cell(value: Any) -> Any:
    return (
        value
        if value is None or isinstance(value, str | int | float)
        else record.dumps(record.encode(value, literals=True))
    )


def results(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Results by the ids of their runs, a run a line."""
    lines = {
        run: (f"{printable(n)}={record.brief(v)}" for n, v in record.flat(of).items()) for run, of in found.items()
    }
    return "\n".join(" ".join((run, *words)) for run, words in lines.items())


def results_json(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The same as a JSON object, nested as they are kept."""
    plain = {run: {n: record.encode(v, n) for n, v in of.items()} for run, of in found.items()}
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)


class Finding(Protocol):
    """Something that a check found."""

    @property
    def text(self) -> str: ...
    @property
    def remedy(self) -> str: ...
    @property
    def fixed(self) -> bool: ...


def findings(found: Sequence[Finding]) -> str:
    """One finding a line, and what to do about it."""
    if not found:
        return "everything is in order"
    return "\n".join(
        f"{'fixed' if f.fixed else 'problem'}: {printable(f.text)}\n  {printable(f.remedy)}".rstrip() for f in found
    )


def findings_json(found: Sequence[Finding]) -> str:
    return json.dumps(
        [{"text": f.text, "remedy": f.remedy, "fixed": f.fixed} for f in found], indent=2, ensure_ascii=False
    )
