"""The listing index: a SQLite cache of what stands on the branch. The only room that says SQL.

It can be deleted at any time. A missing, old, damaged or foreign file is set aside and filled again from the branch; where
the folder cannot be written, the index lives in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from numb import atomic, record
from numb.record import Run, RunId

VERSION = 2
_LIKE = str.maketrans({"%": r"\%", "_": r"\_", "\\": r"\\"})

_SCHEMA = """
create table meta (name text primary key, value text);
create table runs (
    id text primary key, kind text not null, of text, project text not null, status text not null,
    architecture text, params_key text not null, has_results integer not null, trained integer not null,
    has_graph integer not null, commit_id text not null, record text not null, started real not null
) without rowid;
create index by_architecture on runs (architecture, params_key);
create index by_origin on runs (of);
create index by_time on runs (started, id);
create table damaged (commit_id text primary key, reason text not null) without rowid;
"""


class Index:
    """The runs of one branch, as of the commit that `tip` names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = self._open()

    def close(self) -> None:
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        """Open the cache; whatever is not one is set aside, and an empty one takes its place (M23)."""
        for attempt in (self.path, self.path, None):
            try:
                return _connect(attempt)
            except sqlite3.OperationalError as error:
                if "locked" in str(error) or "unable to open" in str(error) or "readonly" in str(error):
                    break
                self._set_aside()
            except (sqlite3.DatabaseError, ValueError):
                self._set_aside()
        return _connect(None)

    def _set_aside(self) -> None:
        try:
            atomic.set_aside(self.path, self.path.with_suffix(".damaged"))
        except OSError:
            pass  # it cannot be moved, so it is not used either: the next attempt ends in memory

    # -- catching up

    @property
    def tip(self) -> str | None:
        row = self._db.execute("select value from meta where name = 'tip'").fetchone()
        return row[0] if row else None

    def extend(self, entries: Iterable[tuple[str, bytes | None]], tip: str) -> None:
        """Add the entries of the branch (commit and record, oldest first) up to *tip*, all of them or none."""
        runs: list[tuple[object, ...]] = []
        damaged: list[tuple[str, str]] = []
        for commit, text in entries:
            try:
                runs += [_row(commit, text)] if text is not None else []
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                damaged.append((commit, str(error)))
        try:
            self._write(runs, damaged, tip)
        except sqlite3.OperationalError:  # read-only, full or locked: answer from memory this time
            kept = list(self._db.execute("select * from runs"))
            self._db.close()
            self._db = _connect(None)
            self._write([*kept, *runs], damaged, tip)

    def _write(self, runs: Sequence[tuple[object, ...]], damaged: Sequence[tuple[str, str]], tip: str) -> None:
        with self._db:
            self._db.executemany("insert or replace into runs values (?,?,?,?,?,?,?,?,?,?,?,?,?)", runs)
            self._db.executemany("insert or replace into damaged values (?,?)", damaged)
            self._db.execute("insert or replace into meta values ('tip', ?)", (tip,))

    @property
    def previous_tip(self) -> str | None:
        """The tip that the branch was moved away from, if it ever was."""
        row = self._db.execute("select value from meta where name = 'previous'").fetchone()
        return row[0] if row else None

    def clear(self) -> None:
        """Forget everything but the tip, because the branch went another way."""
        before = self.tip
        with self._db:
            for table in ("runs", "meta", "damaged"):
                self._db.execute(f"delete from {table}")
            self._db.execute("insert into meta values ('previous', ?)", (before,))

    # -- asking

    def runs(
        self,
        *,
        limit: int | None = None,
        statuses: Sequence[str] = (),
        untrialed: bool = False,
        architecture: str | None = None,
        project: str | None = None,
    ) -> list[Run]:
        """The train runs, oldest first; *limit* keeps the newest."""
        where = ["kind = 'train'"]
        values: list[str] = []
        if statuses:
            where.append(f"status in ({','.join('?' * len(statuses))})")
            values += statuses
        if untrialed:
            where.append("not exists (select 1 from runs t where t.of = runs.id and t.has_results)")
        for column, wanted in (("architecture", architecture), ("project", project)):
            if wanted is not None:
                where.append(f"{column} = ?")
                values.append(wanted)
        sql = f"select record, commit_id from runs where {' and '.join(where)} order by started desc, id desc limit ?"
        rows = self._db.execute(sql, (*values, -1 if limit is None else limit)).fetchall()
        return [_run(*row) for row in reversed(rows)]

    def count(self) -> int:
        return int(self._db.execute("select count(*) from runs where kind = 'train'").fetchone()[0])

    def trials(self, of: Iterable[RunId]) -> dict[str, list[Run]]:
        """The trials of each run, oldest first."""
        found: dict[str, list[Run]] = {}
        for run_id in of:
            rows = self._db.execute(
                "select record, commit_id from runs where of = ? order by started, id", (run_id,)
            ).fetchall()
            if rows:
                found[run_id] = [_run(*row) for row in rows]
        return found

    def get(self, run_id: str) -> Run | None:
        row = self._db.execute("select record, commit_id from runs where id = ?", (run_id,)).fetchone()
        return _run(*row) if row else None

    def by_commit(self, commit: str) -> Run | None:
        row = self._db.execute("select record, commit_id from runs where commit_id = ?", (commit,)).fetchone()
        return _run(*row) if row else None

    def matching(self, text: str, limit: int = 10) -> list[RunId]:
        """Ids that begin with *text*, or that end with these four letters."""
        prefix = text.translate(_LIKE) + "%"
        rows = self._db.execute(
            r"select id from runs where id like ? escape '\' or id like ? escape '\' order by id limit ?",
            (prefix, "%-" + text.translate(_LIKE) if len(text) == 4 else prefix, limit),
        )
        return [RunId(row[0]) for row in rows]

    def newest(self, back: int = 0) -> RunId | None:
        """The newest run (not trial), or the one *back* before it."""
        row = self._db.execute(
            "select id from runs where kind = 'train' order by started desc, id desc limit 1 offset ?", (back,)
        ).fetchone()
        return RunId(row[0]) if row else None

    def same(self, architecture: str, params_key: str, project: str) -> Run | None:
        """The newest complete run of this architecture with these hyperparameters."""
        row = self._db.execute(
            "select record, commit_id from runs where architecture = ? and params_key = ? and project = ?"
            " and kind = 'train' and status = 'complete' order by started desc, id desc limit 1",
            (architecture, params_key, project),
        ).fetchone()
        return _run(*row) if row else None

    def architectures(self, project: str) -> list[Run]:
        """The newest run of each architecture that has weights."""
        rows = self._db.execute(
            "select record, commit_id from runs where id in (select id from (select id, max(started) from runs"
            " where kind = 'train' and trained and project = ? group by architecture)) order by started, id",
            (project,),
        )
        return [_run(*row) for row in rows]

    def with_graph(self, architecture: str) -> str | None:
        """A commit that holds the graph of this architecture."""
        row = self._db.execute(
            "select commit_id from runs where architecture = ? and has_graph order by started desc, id desc limit 1",
            (architecture,),
        ).fetchone()
        return row[0] if row else None

    def damaged(self) -> list[tuple[str, str]]:
        """Commits whose record cannot be read, and why."""
        return list(self._db.execute("select commit_id, reason from damaged order by commit_id"))


def _connect(path: Path | None) -> sqlite3.Connection:
    uri = ":memory:" if path is None else str(path)
    db = sqlite3.connect(uri, timeout=2.0, isolation_level="IMMEDIATE")
    try:
        db.execute("pragma synchronous = off")  # a cache: what a power cut damages is rebuilt
        db.execute("pragma journal_mode = memory")
        version = db.execute("pragma user_version").fetchone()[0]
        if version == 0 and not db.execute("select 1 from sqlite_master limit 1").fetchone():
            with db:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(f"pragma user_version = {VERSION}")
        elif version != VERSION:
            raise ValueError(f"an index of version {version}")
        db.execute("select * from runs limit 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _row(commit: str, text: bytes) -> tuple[object, ...]:
    plain = json.loads(text.decode(errors="replace"))
    if not isinstance(plain, dict) or plain.get("format") != record.FORMAT:
        raise ValueError("a record of a format that this numb does not know")
    return (
        RunId(plain["id"]),
        str(plain["kind"]),
        plain.get("of"),
        str(plain.get("project", ".")),
        str(plain["status"]),
        plain.get("architecture"),
        str(plain.get("params_key", "")),
        int(bool(plain.get("results"))),
        int(bool(plain.get("weights"))),
        int(bool(plain.get("graph"))),
        commit,
        text.decode(errors="replace"),
        float(plain["started"]),
    )


def _run(text: str, commit: str) -> Run:
    return Run.from_json(json.loads(text), commit)
