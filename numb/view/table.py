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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from numb import record
from numb.record import Run

LOWER_IS_BETTER = (
    "loss", "err", "perplexity", "ppl", "bits", "bpc", "nll", "mse", "mae", "rmse", "fid", "frechet", "distance", "wer", "cer",
    "time", "seconds", "cost", "regret", "bce", "kl", "entropy",
)  # fmt: skip


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


def plain(text: str) -> str:
    """*text* without what a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def grid(rows: Sequence[Sequence[str]], headers: Sequence[str], right: Iterable[int] = ()) -> str:
    """A plain table: columns set apart by two spaces, those in *right* flush right."""
    from tabulate import tabulate  # a third of the time of `numb list`, so only when a table is shown

    aligned = ["right" if i in set(right) else "left" for i in range(len(headers))]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=aligned) if rows else ""


def runs(
    rows: Sequence[Row], *, all_columns: bool = False, now: float | None = None, bold: Callable[[str], str] = str
) -> str:
    """The listing: grouped by architecture, newest last, with the hyperparameters that differ as columns.

    The best value of each result is marked with `*`: the lowest for a loss, an error or a distance, else the highest.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.run.architecture or "-", []).append(row)
    ordered = sorted(groups.values(), key=lambda members: members[-1].run.id)
    moment = time.time() if now is None else now
    return "\n\n".join(_group(members[-1].run.network, members, all_columns, moment, bold) for members in ordered)


def _group(name: str, rows: Sequence[Row], all_columns: bool, now: float, bold: Callable[[str], str]) -> str:
    params = _names(row.run.params for row in rows)
    equal = [] if all_columns or len(rows) == 1 else [n for n in params if _same(rows, n)]
    differing = [n for n in params if n not in equal]
    results = _names(row.results for row in rows)
    best = {n: _best(n, [row.results.get(n) for row in rows]) for n in results}
    messages = any(row.run.message for row in rows)
    headers = ["id", *differing, *results, "status", "age", *(["message"] if messages else [])]
    lines = []
    for row in rows:
        shown = [_marked(row.results, n, best[n], len(rows) > 1) for n in results]
        values = [record.brief(row.run.params[n]) if n in row.run.params else "" for n in differing]
        note = [record.brief(row.run.message, 40)] if messages else []
        lines.append([row.run.id, *values, *shown, status(row), age(row.run.started, now), *note])
    numeric = range(1, 1 + len(differing) + len(results))
    title = bold(plain(name)) + f"  {len(rows)} run{'s' * (len(rows) > 1)}"
    if equal:
        title += ", all with " + " ".join(f"{plain(n)}={record.brief(rows[0].run.params[n])}" for n in equal)
    return title + "\n" + _indented(grid(lines, [plain(h) for h in headers], numeric))


def _indented(text: str) -> str:
    return "\n".join("  " + line.rstrip() for line in text.splitlines())


def _names(values: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in values for name in mapping))


def _same(rows: Sequence[Row], name: str) -> bool:
    first = rows[0].run.params
    return all(
        name in r.run.params and record.canonical(r.run.params[name]) == record.canonical(first.get(name)) for r in rows
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if math.isnan(value) else float(value)


def _best(name: str, values: Iterable[Any]) -> float | None:
    """The best of *values*; NaN and what is no number never is."""
    numbers = [number for number in map(_number, values) if number is not None]
    if not numbers:
        return None
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*", name)
    lower = any(word.lower().startswith(LOWER_IS_BETTER) for word in words)
    return min(numbers) if lower else max(numbers)


def _marked(results: Mapping[str, Any], name: str, best: float | None, several: bool) -> str:
    if name not in results:
        return ""
    mark = "*" if several and best is not None and _number(results[name]) == best else " " if several else ""
    return record.brief(results[name]) + mark


def status(row: Row) -> str:
    if row.orphaned:
        return f"orphaned (still running, pid {row.orphaned})"
    run = row.run
    if run.reason and run.status != record.COMPLETE:
        return f"{run.status}: {record.brief(run.reason, 40)}"
    return run.status


def age(started: float, now: float) -> str:
    """How long ago, in the largest unit of which there is more than one."""
    seconds = max(0.0, now - started)
    for unit, length in (("y", 365 * 86400), ("mo", 30 * 86400), ("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def choices(rows: Sequence[tuple[Run, Mapping[str, Any]]]) -> str:
    """A numbered table of runs to choose from."""
    params = _names(run.params for run, _ in rows)
    results = _names(found for _, found in rows)
    lines = [
        [
            str(number), run.id,
            *(record.brief(run.params[n]) if n in run.params else "" for n in params),
            *(record.brief(found[n]) if n in found else "" for n in results),
        ]
        for number, (run, found) in enumerate(rows, 1)
    ]  # fmt: skip
    return grid(lines, ["", "id", *map(plain, params), *map(plain, results)], range(2, 2 + len(params) + len(results)))


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list with everything that is known about each run."""
    return json.dumps([detail(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False)


def detail(row: Row) -> dict[str, Any]:
    """One run as plain values: its record, its commit, its newest results, its trials."""
    shown = row.run.to_json() | {"commit": row.run.commit}
    shown["results"] = {name: record.encode(value, name) for name, value in row.results.items()}
    shown["trials"] = [trial.to_json() | {"commit": trial.commit} for trial in row.trials]
    return shown


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each run; hyperparameters as `param.NAME`, results as `result.NAME`."""
    params, results = _names(row.run.params for row in rows), _names(row.results for row in rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fixed = ["id", "status", "started", "seconds", "architecture", "message", "commit"]
    writer.writerow([*fixed, *(f"param.{n}" for n in params), *(f"result.{n}" for n in results)])
    for row in rows:
        run = row.run
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started))
        known = [run.id, run.status, started, run.seconds, run.architecture, run.message, run.commit]
        values = [_cell(run.params.get(n)) for n in params] + [_cell(row.results.get(n)) for n in results]
        writer.writerow([*known, *values])
    return out.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else record.dumps(record.encode(value))


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
        f"{'fixed' if f.fixed else 'problem'}: {plain(f.text)}\n  {plain(f.remedy)}".rstrip() for f in found
    )


def findings_json(found: Sequence[Finding]) -> str:
    return json.dumps(
        [{"text": f.text, "remedy": f.remedy, "fixed": f.fixed} for f in found], indent=2, ensure_ascii=False
    )


class EntryState(Protocol):
    """How far an entry of a queue has come."""

    @property
    def entry(self) -> Any: ...
    @property
    def status(self) -> str: ...
    @property
    def run(self) -> str | None: ...
    @property
    def exit_code(self) -> int | None: ...


def queue(states: Sequence[EntryState]) -> str:
    """The entries of a queue in the order of the file."""
    params = _names(state.entry.params for state in states)
    lines = [
        [
            state.status,
            *(record.brief(state.entry.params[n]) if n in state.entry.params else "" for n in params),
            state.run or "",
        ]
        for state in states
    ]
    return grid(lines, ["status", *map(plain, params), "run"], range(1, 1 + len(params)))


def queue_json(states: Sequence[EntryState]) -> str:
    entries = [
        {
            "params": {name: record.encode(value, name) for name, value in state.entry.params.items()},
            "status": state.status, "run": state.run, "exit_code": state.exit_code,
        }
        for state in states
    ]  # fmt: skip
    return json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False)
