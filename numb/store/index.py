"""The listing index: a SQLite cache of what stands on the branch. The only room that says SQL.

It can be deleted at any time. A missing, old or foreign file is set aside and filled again from the branch, and so is one
whose damage shows only when it is asked. Where it cannot be written, it goes on in memory.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from numb import atomic, record
from numb.errors import StorageFailed, Usage
from numb.record import NOTED, PARAMS, REMOVED, RESTORED, RESULTS, SERIES, TRAIN, Origin, Run, RunId, Said
from numb.store import columns

if TYPE_CHECKING:  # a third of this module's time, and `numb list` mostly chooses nothing
    from numb.query import Condition, Name, Sort
    from numb.store.choosing import Columns

_T = TypeVar("_T")

VERSION = 10
_LIKE = str.maketrans({"%": r"\%", "_": r"\_", "\\": r"\\"})
_COMMIT = re.compile("[0-9a-f]{40}")

_SCHEMA = """
create table meta (name text primary key, value text);
create table entries (
    id text primary key, kind text not null, of text, project text not null, status text not null,
    architecture text, params_key text not null, has_results integer not null, trained integer not null,
    has_graph integer not null, commit_id text not null, started real not null,
    segments integer not null, resumed real not null, init_from text,
    crc integer not null, params text not null, results text not null, series text not null, said text not null,
    facts text not null
) without rowid;
create table records (id text primary key, record text not null);
create table damaged (commit_id text primary key, reason text not null, unread text) without rowid;
create table superseded (commit_id text primary key, id text not null) without rowid;
create trigger replaced after update on entries when old.commit_id <> new.commit_id
begin insert or ignore into superseded values (old.commit_id, old.id); end;
create trigger outdone before insert on entries when exists (
    select 1 from entries where id = new.id and commit_id <> new.commit_id
        and (segments, resumed) > (new.segments, new.resumed)
)
begin insert or ignore into superseded values (new.commit_id, new.id); end;
create table names (space text not null, name text not null, primary key (space, name)) without rowid;
create table removals (commit_id text not null, id text not null, removal text not null, primary key (commit_id, removal));
create table restorations (removal text primary key) without rowid;
create view removed as select commit_id, id, removal from removals where removal not in (select removal from restorations);
create view written as select entries.*, (select record from records where records.id = entries.id) as record from entries;
create view runs as select * from written where commit_id not in (select commit_id from removed);
create view sound as select * from runs where commit_id not in (select commit_id from damaged);
"""
_INDEXES = {
    "by_architecture": "entries (architecture, params_key)",
    "by_origin": "entries (of)",
    "by_beginning": "entries (init_from)",
    "by_time": "entries (started, id)",
    "by_project": "entries (kind, project, started, id, architecture, commit_id)",
    "by_commit": "entries (commit_id)",
}
_TABLES = ("meta", "entries", "records", "superseded", "damaged", "names", "removals", "restorations")
_COLUMNS = (
    "id", "kind", "of", "project", "status", "architecture", "params_key", "has_results", "trained", "has_graph",
    "commit_id", "started", "segments", "resumed", "init_from",
    "crc", "params", "results", "series", "said", "facts",
)  # fmt: skip

# Of two entries with one id the run has gone on longer in one, or later: in whichever order a join brings them.
_PUT = (
    f"insert into entries values ({','.join('?' * len(_COLUMNS))}) on conflict (id) do update set "
    + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
    + " where (excluded.segments, excluded.resumed) >= (entries.segments, entries.resumed)"
)

_EXAMPLE = "numb sql 'select id, status from runs'"
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

# What is read whole, and not to choose by, lies apart: a scan of many runs does not go over it.
_PUT_RECORD = "insert or replace into records select id, ? from entries where id = ? and commit_id = ?"

_LOST = "git has lost the commit"
_REMARK = "of = ? and kind = 'noted' and id not in (select removal from restorations)"

# What SQLite says when the file may be sound and only cannot be had: everything else is damage.
_OUT_OF_REACH = ("locked", "unable to open", "readonly", "disk is full", "disk I/O")
# What asking a damaged file raises: SQLite's own errors, and what rows of nonsense make of the code that reads them.
_DAMAGE = (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Entry(Protocol):
    """One commit of the branch: its record, or what of it cannot be read."""

    @property
    def commit(self) -> str: ...
    @property
    def record(self) -> bytes | None: ...
    @property
    def unread(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query has found."""

    names: list[str]
    rows: list[tuple[Any, ...]]


class Index:
    """The runs of one branch, as of the commit that `tip` names; in memory only where there is no path.

    *fill* brings an index up to the branch. It is called when what was kept turns out to be damaged, so that whoever asked
    gets the answer all the same.
    """

    def __init__(self, path: Path | None, fill: Callable[[Index], object] = lambda index: None) -> None:
        self.path = path
        self._fill = fill
        self._places: list[Path | None] = [None, path]  # where to go on when what is open now is of no use, last first
        self._doubtful = False  # whether to read each record as a listing does before it becomes a row
        self._db = self._open()

    def close(self) -> None:
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        """Open the cache; whatever is not one is set aside, and an empty one takes its place (M23)."""
        for attempt in (self.path, self.path, None):
            try:
                return _connect(attempt)
            except (sqlite3.DatabaseError, ValueError) as error:
                if _is_out_of_reach(error):
                    break
                self._set_aside()
        return _connect(None)

    def _set_aside(self) -> None:
        if self.path is None:
            return
        try:
            atomic.set_aside(self.path, self.path.with_suffix(".damaged"))
        except StorageFailed:
            pass  # it cannot be moved, so it is not used either: the next attempt ends in memory

    def _ask(self, question: Callable[[sqlite3.Connection], _T]) -> _T:
        """The answer; from an index made anew where this one turns out to be damaged."""
        try:
            return question(self._db)
        except _DAMAGE as error:
            self._start_over(error)
        return self._ask(question)

    def _start_over(self, error: Exception) -> None:
        """Fill an empty index: a new file once, then one in memory. Where that has failed too, the error is a bug of ours."""
        if not self._places:
            raise error
        place = self._places.pop()
        self._doubtful = True  # it may have been a record on the branch that is to blame
        self._db.close()
        if place is None or _is_out_of_reach(error):
            self._places.clear()
            self._db = _connect(None)
        else:
            self._set_aside()
            self._db = self._open()
        self._fill(self)

    def _change(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """Change all of it or nothing; in memory from now on where the file cannot be written."""
        try:
            with self._db:
                self._db.execute("begin immediate")  # else one begins with the first insert, after indexes were dropped
                change(self._db)
        except sqlite3.Error as error:
            if not self._places or not _is_out_of_reach(error):
                raise
            self._leave_disk()
            with self._db:
                change(self._db)

    def _leave_disk(self) -> None:
        memory = _connect(None)
        with memory:
            for table in _TABLES:
                for row in self._db.execute(f"select * from {table}"):
                    memory.execute(f"insert into {table} values ({','.join('?' * len(row))})", row)
        self._db.close()
        self._db = memory
        self._places.clear()

    # -- catching up

    @property
    def tip(self) -> str | None:
        return self._commit_of("tip")

    @property
    def previous_tip(self) -> str | None:
        """The tip that the branch was moved away from, if it ever was."""
        return self._commit_of("previous")

    def _commit_of(self, name: str) -> str | None:
        def question(db: sqlite3.Connection) -> str | None:
            row = db.execute("select value from meta where name = ?", (name,)).fetchone()
            return _commit(row[0]) if row and row[0] is not None else None

        return self._ask(question)

    def extend(self, entries: Iterable[Entry], tip: str, *, again: bool = False) -> None:
        """Add the entries of the branch, oldest first, up to *tip*, all of them or none.

        With *again* they are all that can be reached, and nothing else is damaged any more.
        """
        runs: list[tuple[object, ...]] = []
        records: list[tuple[str, str, str]] = []
        names: set[tuple[str, ...]] = set()
        trained: set[str] = set()
        touched: set[str] = set()
        removals: list[tuple[str, str, str]] = []
        restorations: list[tuple[str]] = []
        damaged: list[tuple[str, str, str | None]] = []
        for entry in entries:
            if entry.record is None:
                damaged.append((entry.commit, _why(entry), entry.unread))
                continue
            try:
                text = entry.record.decode(errors="replace")
                row = _row(entry.commit, text, self._doubtful, names)
                runs.append(row)
                records.append((text, str(row[0]), entry.commit))
                (trained if row[1] == TRAIN else touched).add(str(row[0] if row[1] in (TRAIN, REMOVED) else row[2]))
                if row[1] in (REMOVED, RESTORED):
                    said = Run.from_json(json.loads(text), entry.commit)
                    removals += [(each.commit, each.id, said.id) for each in said.removes]
                    restorations += [(said.of,)] if said.kind == RESTORED and said.of else []
                    touched.update(each.id for each in said.removes)
            except (*_DAMAGE, OverflowError) as error:
                damaged.append((entry.commit, str(error), None))

        def change(db: sqlite3.Connection) -> None:
            _put(db, runs)
            db.executemany(_PUT_RECORD, records)
            db.executemany("insert or ignore into removals values (?,?,?)", removals)
            db.executemany("insert or ignore into restorations values (?)", restorations)
            if again:
                db.execute("delete from damaged")
            db.executemany("insert or replace into damaged values (?,?,?)", damaged)
            db.execute("insert or replace into meta values ('tip', ?)", (tip,))
            pairs = {(space, name) for space, *together in names for name in together}
            db.executemany("insert or ignore into names values (?,?)", pairs)
            _bring_up(db, trained, touched)

        try:
            self._change(change)
        except sqlite3.Error as error:
            self._start_over(error)  # which adds these entries too

    def clear(self) -> None:
        """Forget everything but the tip, because the branch went another way."""
        before = self.tip

        def change(db: sqlite3.Connection) -> None:
            for table in _TABLES:
                db.execute(f"delete from {table}")
            db.execute("insert into meta values ('previous', ?)", (before,))

        try:
            self._change(change)
        except sqlite3.Error as error:
            self._start_over(error)

    def lose(self, commits: Iterable[str]) -> None:
        """Remember that git does not have these commits any more; what is known of their runs stays."""
        gone = [(commit, _LOST, commit) for commit in commits]
        self._change(lambda db: db.executemany("insert or ignore into damaged values (?,?,?)", gone))

    # -- asking

    def runs(
        self,
        *,
        limit: int | None = None,
        statuses: Sequence[str] = (),
        untrialed: bool = False,
        architecture: str | None = None,
        project: str | None = None,
        sound: bool = False,
    ) -> list[Run]:
        """The train runs, oldest first; *limit* keeps the newest, *sound* those whose commits git still has."""
        # The plus keeps SQLite from an index in whose order it would have to sort them all.
        where = ["kind = 'train'" if project is not None else "+kind = 'train'"]
        values: list[str] = []
        if statuses:
            where.append(f"status in ({','.join('?' * len(statuses))})")
            values += statuses
        if untrialed:
            where.append(
                "not exists (select 1 from runs t where t.of = runs.id and t.kind = 'trial' and t.has_results)"
            )
        for column, wanted in (("architecture", architecture), ("project", project)):
            if wanted is not None:
                where.append(f"{column} = ?")
                values.append(wanted)
        table = "sound as runs" if sound else "runs"
        sql = f"select record, commit_id, crc from {table} where {' and '.join(where)} order by started desc, id desc limit ?"
        newest_first = self._runs(sql, (*values, -1 if limit is None else limit))
        return newest_first[::-1]

    def chosen(
        self,
        where: Condition | None,
        sorts: Sequence[Sort] = (),
        *,
        limit: int | None = None,
        project: str | None = None,
        flying: Sequence[Run] = (),
    ) -> list[RunId]:
        """The train runs for which a condition holds, in the order that *sorts* ask for, else the newest first.

        Those in flight, of which the branch knows nothing, are *flying*. Raises `Usage` for a name that no run has.
        """

        def question(db: sqlite3.Connection) -> list[RunId]:
            trained, found = self._trained(db, flying)
            text, values = found.where(where) if where else ("1", [])
            order = found.order(sorts)
            cells = "".join(f", {sql} as {name}" for sql, name in found.cells.items())
            mine = "" if project is None else f" where +project = {columns.literal(project)}"
            each = f"select id, started{cells} from ({trained}){mine} limit -1"  # the limit keeps SQLite from working twice
            sql = f"select id from ({each}) where {text} order by {order} limit ?"
            return [RunId(row[0]) for row in db.execute(sql, (*values, -1 if limit is None else limit))]

        return self._ask(question)

    def values(self, wanted: Sequence[Name], ids: Sequence[str], flying: Sequence[Run] = ()) -> list[tuple[Any, ...]]:
        """What these runs have under these names, a row for each. Raises `Usage` for a name that no run has."""

        def question(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            trained, found = self._trained(db, flying)
            cells = ", ".join(found.sql(name) for name in wanted)
            each = f"select {cells} from ({trained}) where id = ?"
            return [tuple(db.execute(each, (run_id,)).fetchone() or [None] * len(wanted)) for run_id in ids]

        return self._ask(question)

    def resolved(self, name: Name, flying: Sequence[Run] = ()) -> Name:
        """A name with what it is a name of. Raises `Usage` where no run has it."""
        return self._ask(lambda db: self._trained(db, flying)[1].resolved(name))

    def facts(self) -> list[str]:
        """The names of what every run has."""
        from numb.store import choosing

        return list(choosing.FACTS)

    def names(self, flying: Sequence[Run] = ()) -> dict[str, list[str]]:
        """The names that runs have values under, by space, sorted."""
        return self._ask(lambda db: {space: list(each) for space, each in self._trained(db, flying)[1].known.items()})

    def _trained(self, db: sqlite3.Connection, flying: Sequence[Run]) -> tuple[str, Columns]:
        """The train runs, those in flight in place of what the branch has of them, as SQL; and the names that they have."""
        names: set[tuple[str, ...]] = {(str(space), str(name)) for space, name in db.execute("select * from names")}
        rows = [
            {
                **dict(zip(_COLUMNS, _row("", record.dumps(run.to_json()), False, names), strict=True)),
                "said": _said(Said.of(_children(db, run, _REMARK))),
            }
            for run in flying
        ]
        cells = ", ".join(f"json_extract(value, '$.{column}') as {column}" for column in _COLUMNS)
        here = f"select {cells} from json_each({columns.literal(json.dumps(rows))})"
        there = f"select {', '.join(_COLUMNS)} from main.runs where +kind = 'train'"
        if flying:
            there += f" and id not in (select id from ({here})) union all {here}"
        known = {
            space: sorted({name for each, *together in names if each == space for name in together})
            for space in (PARAMS, RESULTS, SERIES)
        }
        from numb.store.choosing import Columns

        return there, Columns(time.time(), known)

    def sql(self, text: str, flying: Sequence[Run] = (), *, project: str | None = None) -> Answer:
        """What a query says of the table `runs`, which has a column for each name; nothing can be changed by it.

        Raises `Usage` with what SQLite has against it.
        """
        from numb.store import choosing

        file = self._ask(lambda db: db.execute("pragma database_list").fetchone()[2])
        copy = sqlite3.connect(f"{Path(file).as_uri()}?mode=ro", uri=True) if file else _connect(None)
        try:
            if not file:
                self._db.backup(copy)
            trained, found = self._trained(copy, flying)
            view = found.view()
            found.refuse_texts(text, view)
            cells = ", ".join(f"{sql} as {choosing.identifier(label)}" for label, sql in view.items())
            mine = "" if project is None else f" where project = {columns.literal(project)}"
            copy.execute(f"create temp view runs as select {cells} from ({trained}){mine}")
            copy.commit()
            copy.set_authorizer(_only_reading)
            copy.set_progress_handler(lambda: 0, 100_000)  # so that Ctrl-C is heard
            asked = copy.execute(text)
            return Answer([str(each[0]) for each in asked.description or ()], asked.fetchall())
        except (sqlite3.Error, sqlite3.Warning) as error:
            word = str(error).partition("no such column: ")[2]
            raise Usage(f"SQL: {error}", found.meant(word, view) if word else _EXAMPLE) from None
        finally:
            copy.close()

    def projects(self) -> dict[str, int]:
        """How many runs each project has."""
        counts = "select project, count(*) from runs where kind = 'train' group by project"
        return self._ask(lambda db: {str(project): int(count) for project, count in db.execute(counts)})

    def counts(self, project: str | None = None) -> dict[str, int]:
        """How many runs there are of each architecture, of one project or of all; `-` for those without one."""
        count = (
            "select coalesce(architecture, '-'), count(*) from runs"
            " where kind = 'train' and project = coalesce(?, project) group by 1"
        )
        return self._ask(lambda db: {str(name): int(number) for name, number in db.execute(count, (project,))})

    def trials(self, of: Iterable[RunId]) -> dict[str, list[Run]]:
        """The trials of each run, oldest first."""
        found: dict[str, list[Run]] = {}
        for run_id in of:
            if trials := self._runs(
                "select record, commit_id, crc from runs where of = ? and kind = 'trial' order by started, id",
                (run_id,),
            ):
                found[run_id] = trials
        return found

    def remarks(self, of: Iterable[RunId]) -> dict[str, list[Run]]:
        """What was said about each run and not undone, oldest first."""
        if not self._ask(lambda db: db.execute("select 1 from entries where kind = 'noted' limit 1").fetchone()):
            return {}
        sql = f"select record, commit_id, crc from runs where {_REMARK} order by started, id"
        found = {run_id: self._runs(sql, (run_id,)) for run_id in of}
        return {run_id: remarks for run_id, remarks in found.items() if remarks}

    def called(self, name: str) -> list[RunId]:
        """The runs that have this name, or where none has it this tag."""
        sql = (
            "select id from runs where kind = 'train' and said != '{}' and json_extract(said, '$.name') = ?1",
            "select id from runs where kind = 'train' and said != '{}'"
            " and ?1 in (select value from json_each(said, '$.tags'))",
        )
        return self._ask(
            lambda db: next(filter(None, ([RunId(row[0]) for row in db.execute(one, (name,))] for one in sql)), [])
        )

    def trials_ever(self, of: Iterable[RunId]) -> list[RunId]:
        """The ids of the trials of these runs, removed ones too."""
        sql = "select id from entries where of = ? and kind = 'trial' order by started, id"
        return self._ask(lambda db: [RunId(row[0]) for run_id in of for row in db.execute(sql, (run_id,))])

    def begun_with(self, run_id: str) -> list[Run]:
        """The runs that began with the weights of this one, oldest first."""
        return self._runs("select record, commit_id, crc from runs where init_from = ? order by started, id", (run_id,))

    def get(self, run_id: str) -> Run | None:
        return self._first("select record, commit_id, crc from runs where id = ?", (run_id,))

    def by_commit(self, commit: str) -> Run | None:
        return self._first("select record, commit_id, crc from runs where commit_id = ?", (commit,))

    def matching(self, text: str, limit: int = 10) -> list[RunId]:
        """Ids that begin with *text*, or that end with these four letters."""
        prefix = text.translate(_LIKE) + "%"
        sql = r"select id from runs where id like ? escape '\' or id like ? escape '\' order by id limit ?"
        values = (prefix, "%-" + text.translate(_LIKE) if len(text) == 4 else prefix, limit)
        return self._ask(lambda db: [RunId(row[0]) for row in db.execute(sql, values)])

    def newest(self, back: int, project: str) -> RunId | None:
        """The newest run (not trial) of a project, or the one *back* before it."""
        sql = "select id from runs where kind = 'train' and project = ? order by started desc, id desc limit 1 offset ?"
        return self._ask(lambda db: next((RunId(row[0]) for row in db.execute(sql, (project, back))), None))

    def same(self, architecture: str, params_key: str, project: str, init_from: Origin | None = None) -> Run | None:
        """The newest complete run of this architecture with these hyperparameters that began with the same weights."""
        found = self._runs(
            "select record, commit_id, crc from sound where architecture = ? and params_key = ? and project = ?"
            " and kind = 'train' and status = 'complete' order by started desc, id desc",
            (architecture, params_key, project),
        )
        return next((run for run in found if run.init_from == init_from), None)

    def complete(self, architecture: str, project: str, limit: int = 100) -> list[Run]:
        """The newest complete runs of an architecture, the newest first."""
        return self._runs(
            "select record, commit_id, crc from sound where architecture = ? and project = ? and kind = 'train'"
            " and status = 'complete' order by started desc, id desc limit ?",
            (architecture, project, limit),
        )

    def architectures(self, project: str) -> list[Run]:
        """The newest run of each architecture that has weights."""
        return self._runs(
            "select record, commit_id, crc from runs where id in (select id from (select id, max(started) from sound"
            " where kind = 'train' and trained and project = ? group by architecture)) order by started, id",
            (project,),
        )

    def with_graph(self, architecture: str) -> str | None:
        """A commit that holds the graph of this architecture."""
        sql = "select commit_id from sound where architecture = ? and has_graph order by started desc, id desc limit 1"
        return self._ask(lambda db: next((_commit(row[0]) for row in db.execute(sql, (architecture,))), None))

    def damaged(self) -> list[tuple[str, str]]:
        """Commits whose record cannot be read, and why."""
        sql = "select commit_id, reason from damaged where reason != ? order by commit_id"
        return self._ask(lambda db: [(_commit(commit), str(why)) for commit, why in db.execute(sql, (_LOST,))])

    def lost(self) -> set[str]:
        """The commits that git does not have any more, of runs that are known all the same."""
        sql = (
            "select commit_id from damaged where unread = commit_id"
            " and exists (select 1 from runs where runs.commit_id = damaged.commit_id)"
        )
        return self._ask(lambda db: {_commit(row[0]) for row in db.execute(sql)})

    def everything(self) -> list[Run]:
        """Every entry that is not removed, of all kinds and projects, oldest first."""
        return self._runs("select record, commit_id, crc from runs order by started, id", ())

    def about(self, ids: Container[str]) -> list[Run]:
        """The entries that remove nothing but *ids*, or say something about them, and those that take one of these back."""
        sql = "select record, commit_id, crc from written where kind in ('removed', 'restored', 'noted') order by started, id"
        found = self._runs(sql, ())
        theirs = [each for each in found if each.removes and all(one.id in ids for one in each.removes)]
        theirs += [each for each in found if each.kind == NOTED and each.of is not None and each.of in ids]
        known = {each.id for each in theirs}
        return theirs + [each for each in found if each.kind == RESTORED and each.of in known]

    def any_entry(self, run_id: str) -> Run | None:
        """An entry, whether it is removed or not."""
        return self._first("select record, commit_id, crc from written where id = ?", (run_id,))

    def superseded(self) -> list[tuple[str, RunId]]:
        """Earlier entries of runs that were resumed, and those that another machine has gone on with: commit and id."""
        sql = "select commit_id, id from superseded where id in (select id from runs) order by commit_id"
        return self._ask(lambda db: [(str(commit), RunId(id)) for commit, id in db.execute(sql)])

    def undoable(self) -> Run | None:
        """The last entry that has removed others, or said something about one, and was not undone."""
        return self._first(
            "select record, commit_id, crc from written where kind in ('removed', 'noted')"
            " and id not in (select removal from restorations) order by started desc, id desc limit 1",
            (),
        )

    def purges(self) -> list[str]:
        """Commits that purges have taken off the branch, the first of each."""
        found = self._runs("select record, commit_id, crc from written where kind = 'purged' order by started, id", ())
        return [commit for each in found for commit in each.purges]

    def removed(self, text: str) -> list[RunId]:
        """Ids of removed runs that begin with *text*."""
        sql = r"select distinct id from removed where id like ? escape '\' order by id limit 10"
        return self._ask(lambda db: [RunId(row[0]) for row in db.execute(sql, (text.translate(_LIKE) + "%",))])

    def commits(self) -> list[str]:
        """The commit of every run, trial and saved state."""
        return self._ask(lambda db: [_commit(row[0]) for row in db.execute("select commit_id from entries")])

    def rows(self) -> set[tuple[object, ...]]:
        """Everything that is known, to be compared."""
        return self._ask(lambda db: set(db.execute("select * from written")))

    def unread(self, limit: int = 20) -> list[str]:
        """What git could not read, by git's names: some of it, for there is no end to what can be missing."""
        sql = "select unread from damaged where unread is not null limit ?"
        return self._ask(lambda db: [_unread(row[0]) for row in db.execute(sql, (limit,))])

    def _runs(self, sql: str, values: Sequence[object]) -> list[Run]:
        return self._ask(lambda db: [_run(*row) for row in db.execute(sql, values)])

    def _first(self, sql: str, values: Sequence[object]) -> Run | None:
        return next(iter(self._runs(sql, values)), None)


def _only_reading(action: int, first: str | None, second: str | None, *_: object) -> int:
    allowed = action in _READING and second != "load_extension"
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _connect(path: Path | None) -> sqlite3.Connection:
    uri = ":memory:" if path is None else str(path)
    db = sqlite3.connect(uri, timeout=2.0, isolation_level="IMMEDIATE")
    try:
        db.execute("pragma temp_store = memory")
        db.execute("pragma synchronous = off")  # a cache: what a power cut damages is rebuilt
        db.execute("pragma journal_mode = memory")
        version = db.execute("pragma user_version").fetchone()[0]
        if version == 0 and not db.execute("select 1 from sqlite_master limit 1").fetchone():
            with db:
                for statement in filter(str.strip, _SCHEMA.split(";\n")):
                    db.execute(statement)
                _make_indexes(db)
                db.execute(f"pragma user_version = {VERSION}")
        elif version != VERSION:
            raise ValueError(f"an index of version {version}")
        for table in _TABLES:
            db.execute(f"select * from {table} limit 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _make_indexes(db: sqlite3.Connection) -> None:
    for name, columns_of in _INDEXES.items():
        db.execute(f"create index {name} on {columns_of}")


def _put(db: sqlite3.Connection, runs: Sequence[tuple[object, ...]]) -> None:
    """Write rows of entries. The indexes of a table that was empty are made when it is full: that takes half the time."""
    empty = len(runs) > 100 and not db.execute("select 1 from entries limit 1").fetchone()
    if empty:
        for name in _INDEXES:
            db.execute(f"drop index {name}")
    db.executemany(_PUT, runs)
    if empty:
        _make_indexes(db)


def _row(commit: str, text: str, doubtful: bool, names: set[tuple[str, ...]]) -> tuple[object, ...]:
    """The row of a record, whose *names* are added to those that are known: a space, and the names in it."""
    plain = json.loads(text)
    if not isinstance(plain, dict) or plain.get("format") != record.FORMAT:
        raise ValueError("a record of a format that this numb does not know")
    if doubtful:
        Run.from_json(plain)  # as expensive as all the rest together
    started = float(plain["started"])
    if started != started:
        raise ValueError("a record that began at no time")
    segments = plain.get("segments") or ()
    spaces = {
        PARAMS: record.flat(record.values(plain.get("params") or {})),
        RESULTS: record.flat(record.values(plain.get("results") or {})),
        SERIES: columns.summed(record.series_from_json(plain["series"])) if plain.get("series") else {},
    }
    for space, values in spaces.items():
        if values:
            names.add((space, *values))
    return (
        RunId(plain["id"]),
        _text(plain["kind"]),
        _text_or_nothing(plain.get("of")),
        _text(plain.get("project", ".")),
        _text(plain["status"]),
        _text_or_nothing(plain.get("architecture")),
        _text(plain.get("params_key", "")),
        int(bool(plain.get("results"))),
        int(bool(plain.get("weights"))),
        int(bool(plain.get("graph"))),
        commit,
        started,
        len(segments),
        float(segments[-1]["resumed"]) if segments else 0.0,
        _text_or_nothing((plain.get("init_from") or {}).get("run")),
        _crc(text, commit),
        *map(columns.flat, spaces.values()),
        "{}",
        columns.facts(plain),
    )


def _bring_up(db: sqlite3.Connection, trained: set[str], touched: set[str]) -> None:
    """Write to the rows of runs what came later: results of trials, and what was said about them.

    *trained* are new runs, *touched* what other new entries are about: runs, removals, and entries that were taken back.
    """
    parents = {str(row[0]) for row in db.execute("select distinct of from entries where of is not null")}
    if not parents:
        return
    about = set(touched)
    for above in (
        "select id from removals where removal = ?",
        "select of from entries where id = ? and of is not null",
    ):
        about |= {str(row[0]) for entry in list(about) for row in db.execute(above, (entry,))}
    about |= trained
    for run_id in sorted(about & parents):
        whole = "select record, commit_id, crc from written where id = ? and kind = 'train'"
        for run in [_run(*row) for row in db.execute(whole, (run_id,))]:
            _bring_up_run(db, run)


def _bring_up_run(db: sqlite3.Connection, run: Run) -> None:
    trials, said = _children(db, run, "of = ? and kind = 'trial'"), Said.of(_children(db, run, _REMARK))
    results = record.flat(record.results_of(run, trials, said))
    db.executemany("insert or ignore into names values (?,?)", [(RESULTS, name) for name in results])
    db.execute(
        "update entries set results = ?, said = ? where id = ?",
        (columns.flat(results), _said(said, trials), run.id),
    )


def _children(db: sqlite3.Connection, run: Run, which: str) -> list[Run]:
    sql = f"select record, commit_id, crc from runs where {which} order by started, id"
    return [_run(*row) for row in db.execute(sql, (run.id,))]


def _said(said: Said, trials: Sequence[Run] = ()) -> str:
    """The JSON of what was said about a run."""
    told = {
        "name": said.name,
        "tags": list(said.tags),
        "note": "\n".join(said.notes),
        "trials": sum(bool(trial.results) for trial in trials),
    }
    return record.dumps({name: value for name, value in told.items() if value})


def _why(entry: Entry) -> str:
    if entry.unread == entry.commit:
        return "the commit is missing or damaged, and runs before it may not be listed"
    return "it is missing or damaged"


def _text(value: object) -> str:
    """What a column of text can hold."""
    if not isinstance(value, str):
        raise ValueError(f"a record with {str(value)[:40]} for a word")
    value.encode()
    return value


def _text_or_nothing(value: object) -> str | None:
    return None if value is None else _text(value)


def _crc(text: str, commit: str) -> int:
    """A sum of what a row says: SQLite itself does not see a flipped bit in a text."""
    return zlib.crc32(f"{commit}{text}".encode(errors="surrogatepass"))


def _run(text: str, commit: str, crc: int) -> Run:
    if _crc(text, commit) != crc:
        raise ValueError(f"a row of {commit!r:.50} that has changed")
    return Run.from_json(json.loads(text), _commit(commit))


def _commit(found: object) -> str:
    """A commit's id, which goes to git from here; `ValueError` for anything else."""
    if not isinstance(found, str) or not _COMMIT.fullmatch(found):
        raise ValueError(f"not a commit: {found!r}")
    return found


def _unread(found: object) -> str:
    """A name for git to look up; `ValueError` for anything else."""
    if not isinstance(found, str) or not found.isprintable() or not _COMMIT.match(found):
        raise ValueError(f"not a name in git: {found!r}")
    return found


def _is_out_of_reach(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and any(words in str(error) for words in _OUT_OF_REACH)
