"""What is promised of asking: one expression everywhere, answers as a person counts them, and nothing that it could change."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Scene, furnish
from hypothesis import given
from hypothesis import strategies as st

import numb
from numb import query, record
from numb.errors import Usage
from numb.layout import Layout
from numb.order import Order
from numb.project import Project
from numb.query import Among, Compare, Condition, Is, Joined, Name, Not, Sort
from numb.record import NOTED, TRAIN, TRIAL, Run, RunId
from numb.store.index import Index

# A script whose results are what its hyperparameters say, and that waits in flight where it is told to.
SCRIPT = """
import os, sys, time
import numb
from numb.hp import _
lr = _("lr", 0.1)
bs = _("bs", 32)
sched = _("sched", "cosine")
numb.numb_param({"opt": {"name": "adam", "beta": 0.9}})
acc = 1 - lr
numb.log(step=0, loss=2.0), numb.log(step=1, loss=lr)
if lr == 0.5:
    open("ready", "w").close()
    while not os.path.exists("go"): time.sleep(0.01)
numb.numb_trial_result({"acc": acc, "best": {"epoch": bs}})
"""


@pytest.fixture
def lab(empty: Scene) -> Scene:
    """A project with four runs, of lr 0.1 to 0.4."""
    furnish(empty, {"train.py": SCRIPT, "trial.py": "import numb\nnumb.numb_trial_result({'n': 1})\n"})
    empty.once("four runs", lambda: four(empty))
    return empty


def four(scene: Scene) -> None:
    for lr, bs, sched in ((0.1, 32, "cosine"), (0.2, 64, "step"), (0.3, 64, "cosine"), (0.4, 128, "None")):
        assert 0 == scene.numb("train", f"lr={lr}", f"bs={bs}", f"sched={sched}").code


def rates(scene: Scene, *words: str) -> list[float]:
    done = scene.numb("list", *words, "--columns", "lr", "--json")
    assert 0 == done.code, done.stderr
    return [line["lr"] for line in json.loads(done.stdout)]


# -- the expression


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lr < 1e-3 and results.acc > 0.9", Joined("and", (Compare(Name("lr"), "<", 1e-3), Compare(Name("acc", "results"), ">", 0.9)))),
        ("opt.name == adam", Compare(Name("opt.name"), "=", "adam")),
        ("a = 1 or b = 2 and not c != 'x y'", Joined("or", (
            Compare(Name("a"), "=", 1),
            Joined("and", (Compare(Name("b"), "=", 2), Not(Compare(Name("c"), "!=", "x y")))),
        ))),
        ("`lr (max)` in (1, -2.5, two, '3')", Among(Name("lr (max)"), (1, -2.5, "two", "3"))),
        ("x is not missing and y is nan", Joined("and", (Not(Is(Name("x"), "missing")), Is(Name("y"), "nan")))),
        ("run.age < 2d", Compare(Name("age", "run"), "<", 172800.0)),
        ("started >= 2026-11-20", Compare(Name("started"), ">=", 1795132800.0)),
        ("started < 2026-11-20T21:33", Compare(Name("started"), "<", 1795210380.0)),
        ("id = 20261120-213353-x7f2", Compare(Name("id"), "=", "20261120-213353-x7f2")),
        ("best < params.epochs", Compare(Name("best"), "<", Name("epochs", "params"))),
        ("amp", Is(Name("amp"), "true")),
        ("betas[0] > -inf", Compare(Name("betas[0]"), ">", -math.inf)),
        ("x = none", Compare(Name("x"), "=", None)),
        (r"note ~ 'it\'s'", Compare(Name("note"), "~", "it's")),
    ],
)  # fmt: skip
def test_an_expression_means_what_it_says(text: str, meant: Condition) -> None:
    """`and` binds closer than `or`; a bare word after = is a text; times and durations are seconds."""
    assert meant == query.parsed(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [("lr <", 4), ("lr < < 3", 5), ("(lr < 3", 7), ("lr < 3)", 6), ("lr 3", 3), ("and", 0), ("a in 3", 5), ("a > 90%", 6), ("x is odd", 5), ("", 0)],
)  # fmt: skip
def test_what_cannot_be_understood_is_shown_where_it_stands(text: str, at: int) -> None:
    """The message has the expression, and a mark below the place."""
    with pytest.raises(Usage) as caught:
        query.parsed(text)
    *_, shown, mark = str(caught.value).split("\n")

    assert (f"        {text}", f"        {' ' * at}^") == (shown, mark)


@given(st.text(max_size=40) | st.lists(st.sampled_from([*list("()<=~1,`'"), "not", "and", "or", "in", "is", "lr", "nan"]), max_size=60).map(" ".join))  # fmt: skip
def test_any_text_is_an_expression_or_an_error_of_numbs(text: str) -> None:
    """Whatever a person types, and however deep."""
    try:
        assert list(query.names(query.parsed(text)))
    except Usage:
        pass


# -- against counting by hand


@dataclass(frozen=True)
class Scored:
    """A run with what the oracle knows of it."""

    run: Run
    values: dict[str, Any]


VALUES = st.sampled_from(
    [0, 1, 2.5, -1, 0.1, True, False, math.nan, math.inf, -math.inf, None, "", "adam", "SGD", "2.5", "a'b\"c"]
)
NAMES = ["a", "b.c", 'q"uote', "ünï x"]


def scored(settings: Sequence[dict[str, Any]]) -> list[Scored]:
    """Runs with these hyperparameters, an hour apart."""
    made = []
    for n, values in enumerate(settings):
        run = Run(RunId(f"20260101-{n:06d}-abcd"), TRAIN, 1e9 + 3600 * n, record.COMPLETE, params=values)
        made.append(Scored(replace(run, commit=f"{n:040x}"), values))
    return made


@dataclass(frozen=True)
class Entry:
    commit: str
    record: bytes
    unread: str | None = None


def index_of(runs: Sequence[Run]) -> Index:
    index = Index(None)
    index.extend([Entry(run.commit or "", record.dumps(run.to_json()).encode()) for run in runs], "f" * 40)
    return index


def holds(condition: Condition, values: dict[str, Any]) -> bool:
    """What a person would say: the oracle."""
    match condition:
        case Joined(word, parts):
            return (all if word == "and" else any)(holds(part, values) for part in parts)
        case Not(inner):
            return not holds(inner, values)
        case Among(name, among):
            return any(holds(Compare(name, "=", each), values) for each in among)
        case Is(name, what):
            value = values.get(name.name)
            isnan = isinstance(value, float) and math.isnan(value)
            if what == "missing":
                return value is None
            return isnan if what == "nan" else value not in (None, "", 0) and not isnan
        case Compare(name, sign, wanted):
            value = values.get(name.name)
            if value is None or (isinstance(value, float) and math.isnan(value)):
                return False
            if sign in ("~", "!~"):
                shown = {True: "1", False: "0"}.get(value) if isinstance(value, bool) else None
                text = shown or (value if isinstance(value, str) else None)
                if text is None:
                    text = {math.inf: "Inf", -math.inf: "-Inf"}.get(value) or str(value)
                return (str(wanted).lower() in text.lower()) == (sign == "~")
            if isinstance(value, str) != isinstance(wanted, str):
                return sign == "!="
            return {
                "=": value == wanted, "!=": value != wanted, "<": not sign.startswith(">") and value < wanted,
                "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted,
            }[sign]  # fmt: skip
    raise AssertionError(condition)


_NAME = st.sampled_from([Name(name, "params") for name in NAMES])
_WANTED = st.sampled_from([0, 1, 2.5, 0.1, math.inf, "adam", "2.5", "a'b\"c", ""])
_LEAVES = st.one_of(
    st.builds(Compare, _NAME, st.sampled_from(["<", "<=", ">", ">=", "=", "!="]), _WANTED),
    st.builds(Compare, _NAME, st.sampled_from(["~", "!~"]), st.sampled_from(["A", "b\"", "5"])),
    st.builds(Among, _NAME, st.tuples(_WANTED, _WANTED)),
    st.builds(Is, _NAME, st.sampled_from(["missing", "nan", "true"])),
)  # fmt: skip
_CONDITIONS = st.recursive(
    _LEAVES,
    lambda inner: st.builds(Not, inner) | st.builds(Joined, st.sampled_from(["and", "or"]), st.tuples(inner, inner)),
    max_leaves=5,
)
_SETTINGS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1), min_size=1, max_size=6)


@given(_SETTINGS, _CONDITIONS)
def test_the_runs_are_those_that_one_would_count_by_hand(settings: list[dict[str, Any]], condition: Condition) -> None:
    """Whatever values they have: NaN, infinity, texts that look like numbers, names with quotes; also those in flight."""
    runs = scored([*settings, dict.fromkeys(NAMES, 0)])
    index = index_of([each.run for each in runs[::2]])
    flying = [replace(each.run, status=record.RUNNING, commit=None) for each in runs[1::2]]
    expected = [each.run.id for each in runs if holds(condition, each.values)]

    assert expected[::-1] == index.chosen(condition, flying=flying)


@given(_SETTINGS, st.booleans())
def test_missing_and_nan_are_sorted_last_either_way(settings: list[dict[str, Any]], descending: bool) -> None:
    """Numbers before texts; infinity is a number; equal ones by age, the newest first."""
    runs = scored([*settings, {"a": 0}])[::-1]
    index = index_of([each.run for each in runs])

    def rank(each: Scored) -> tuple[int, float, str]:
        value = each.values.get("a")
        if value is None or value != value:
            return (0, 0.0, "")
        return (2, 0.0, value) if isinstance(value, str) else (1, float(value), "")

    known = [each for each in runs if rank(each)[0]]
    ordered = sorted(known, key=rank, reverse=descending)
    expected = [each.run.id for each in ordered] + [each.run.id for each in runs if not rank(each)[0]]
    found = index.chosen(None, [Sort(Name("a", "params"), descending)])

    assert expected == found


def test_what_goes_on_is_asked_like_what_has_ended(lab: Scene) -> None:
    """By what its series sum up to so far, its notes, tags and name; these stay when it has ended, and can be taken back."""
    process = lab.start("train", "lr=0.5")
    lab.sh("until [ -e ready ]; do sleep 0.02; done; sleep 0.3")
    [flying] = [run["id"] for run in lab.runs() if run["status"] == "running"]
    said = [lab.numb("note", flying, "why"), lab.numb("tag", flying, "odd", "more"), lab.numb("name", flying, "five")]
    taken = lab.numb("name", lab.runs()[0]["id"], "five")
    undone = (lab.numb("name", flying, "six"), lab.numb("undo"))
    asked = [["--where", "loss.last = 0.5"], ["--where", "tags = odd"], ["--where", "name = five and note = why"]]
    live = [rates(lab, *words) for words in asked]
    listed = next(run for run in lab.runs() if run["id"] == flying)
    shown = lab.numb("show", "five").stdout
    lab.write("go", "")
    process.communicate(timeout=60)

    assert [0] * 3 == [each.code for each in said], said
    assert (f"five is {flying}" in taken.stderr, [0, 0]) == (True, [each.code for each in undone])
    assert [[0.5]] * 3 == live == [rates(lab, *words) for words in asked]
    assert ("five", ["odd", "more"], ["why"]) == (listed["name"], listed["tags"], listed["remarks"])
    assert (
        flying in shown
        and flying in lab.numb("show", "five").stdout
        and "everything is in order" in lab.numb("doctor").stdout
    )


def test_what_comes_later_is_part_of_it_and_goes_again() -> None:
    """Results of a trial and of a remark, a tag, a name: in whichever order the entries come, and after an undo."""
    run = scored([{"a": 1}])[0].run
    trial = Run(
        RunId("20260102-000000-abcd"), TRIAL, 2e9, record.COMPLETE, of=run.id, results={"acc": 0.5}, commit="a" * 40
    )
    said = Run(
        RunId("20260103-000000-abcd"),
        NOTED,
        3e9,
        record.COMPLETE,
        of=run.id,
        results={"acc": 0.7},
        tags=("x",),
        commit="b" * 40,
    )
    undone = Run(RunId("20260104-000000-abcd"), record.RESTORED, 4e9, record.COMPLETE, of=said.id, commit="c" * 40)

    def matches(text: str, runs: Sequence[Run]) -> bool:
        try:
            return bool(index_of(runs).chosen(query.parsed(text)))
        except Usage:
            return False

    for entries in ([run, trial, said], [said, trial, run], [trial, run, said]):
        assert matches("results.acc = 0.7 and tags = x and trials = 1", entries)
        assert matches("acc = 0.5 and tags is missing", [*entries, undone])
    assert matches("acc = 0.5 and a = 1", [run, trial]) and not matches("acc = 0.5", [run])


# -- as a person types it


def test_list_chooses_and_sorts(lab: Scene) -> None:
    """By hyperparameters, nested ones, results, series and facts; the first line is what is sorted by."""
    assert [0.1, 0.2] == rates(lab, "--where", "lr < 0.25 and results.acc > 0.5")
    assert [0.4, 0.3, 0.2] == rates(lab, "--sort", "acc", "-n", "3")
    assert [0.3, 0.2] == rates(lab, "--where", "bs = 64", "--sort", "-lr")
    assert [0.1, 0.3] == rates(lab, "--where", "sched in (cosine, linear)")
    assert [0.2] == rates(lab, "--where", "loss.best > 0.1 and loss.min < 0.25 and opt.name = adam and age < 1h")
    assert [0.1] == rates(lab, "--where", "`loss.min` <= params.lr and status = complete", "--sort", "lr", "-n", "1")

    top = lab.numb("list", "--sort", "-acc").stdout.splitlines()
    assert ("4 runs", "0.1") == (top[0][:6], re.split(r"\s{2,}", top[2].strip())[1])
    groups = lab.numb("list", "--group-by", "bs").stdout
    assert ["bs=32  1 run", "bs=64  2 runs", "bs=128  1 run"] == [line.split(",")[0] for line in groups.splitlines() if line.startswith("bs=")]  # fmt: skip


def test_what_is_cut_off_is_said(lab: Scene) -> None:
    """Where there is more than was asked for, and not where there is exactly that."""
    said = [lab.numb(f"list {words}").stderr for words in ("--sort acc -n 4", "--sort acc -n 3", "--where lr<1 -n 3")]

    assert "are shown" not in said[0]
    assert said[1].startswith("numb: the first 3 of more are shown: -n 0 shows all\n")
    assert said[2].startswith("numb: the newest 3 of more are shown: -n 0 shows all\n")
    assert [0.2, 0.3, 0.4] == rates(lab, "--where", "lr < 1", "-n", "3")


def test_what_no_run_has_is_said_with_what_is_near(lab: Scene) -> None:
    """A slip of the finger is no empty table; a name is that of a fact first, then of a hyperparameter, then of a result."""
    done = lab.numb("list", "--where", "acuracy > 1 or ac > 2")
    assert (2, "") == (done.code, done.stdout) and "no run has acuracy" in done.stderr
    assert "did you mean acc?" in lab.numb("list", "--sort", "-acx").stderr
    assert "no runs like that" in lab.numb("list", "--where", "lr > 7").stderr
    assert 2 == lab.numb("best", "--by", "results.nothing").code


def test_one_in_flight_is_among_them(lab: Scene) -> None:
    """With what it has told by now; on the branch it is listed once."""
    process = lab.start("train", "lr=0.5")
    lab.sh("until [ -e ready ]; do sleep 0.02; done")
    during = rates(lab, "--where", "lr > 0.3 and status in (running, complete)")
    count = json.loads(lab.numb("sql", "--json", "select count(*) as n from runs where status = 'running'").stdout)
    lab.write("go", "")
    process.communicate(timeout=60)

    assert [0.4, 0.5] == during == rates(lab, "--where", "lr > 0.3") and [{"n": 1}] == count


def test_the_best_is_found_by_the_name_of_the_result(lab: Scene) -> None:
    """High for an accuracy, low for a loss; the other way when it is said; and never one without a value."""
    lab.numb("train", "lr=nan", "bs=7")

    def best(*words: str) -> list[Any]:
        return [run["params"]["lr"] for run in json.loads(lab.numb("best", "--json", *words).stdout)]

    assert [0.1] == best("--by", "results.acc") == best("--by", "loss.min")
    assert [0.4, 0.3] == best("--by", "acc", "--min", "-n", "2") and [0.2] == best("--by", "acc", "--where", "bs = 64")
    assert 5 == len(rates(lab, "--sort", "-acc")) and {"$float": "nan"} == rates(lab, "--sort", "acc")[-1]
    assert "there are acc, best.epoch" in lab.numb("best").stderr
    assert "did you mean" in lab.numb("best", "--by", "ac").stderr


def test_sql_reads_a_table_that_is_always_current(lab: Scene) -> None:
    """One column for each hyperparameter and result, under its own name; nothing else can be done there."""
    text = (
        'select lr, sched, "opt.name", "results.best.epoch" as epoch from runs where "results.acc" > 0.65 order by lr'
    )
    rows = [{"lr": 0.1, "sched": "cosine", "opt.name": "adam", "epoch": 32}, {"lr": 0.2, "sched": "step", "opt.name": "adam", "epoch": 64}, {"lr": 0.3, "sched": "cosine", "opt.name": "adam", "epoch": 64}]  # fmt: skip

    assert rows == json.loads(lab.numb("sql", "--json", text).stdout)
    assert list(rows[0]) == next(csv.reader(lab.numb("sql", "--csv", text).stdout.splitlines()))
    for wrong, near in (
        ('select id from runs where "acc" > 0.9', '"results.acc"'),
        ("select opt from runs", '"opt.name"'),
    ):
        done = lab.numb("sql", wrong)
        assert 2 == done.code and "SQL: no such column" in done.stderr and near in done.stderr, "to SQLite it is a text"
    assert "x\n1" in lab.numb("sql", "--csv", 'select count(*) as "x" from "runs" where lr = 0.1 order by "x"').stdout
    before = lab.sh("sha256sum .nmb/index.sqlite")
    for evil in ("delete from runs", "drop view runs", "attach 'x.db' as x", "pragma user_version = 0", "create table t (a)",
                 "insert into entries select * from entries", "select load_extension('x')", "select 1; select 2", "selec", "vacuum into 'y'"):  # fmt: skip
        done = lab.numb("sql", evil)
        assert (2, "") == (done.code, done.stdout) and done.stderr.startswith("numb: SQL: "), evil
    assert before == lab.sh("sha256sum .nmb/index.sqlite") and "" == lab.sh("ls x.db y || true")


def test_tables_leave_as_csv_json_markdown_and_parquet(lab: Scene) -> None:
    """With all that the runs have, or some columns; values keep their types, and cells cannot break the table."""
    lab.numb("note", "@", 'a|b,c "d"\n<script>')
    for name in ("t.csv", "t.json", "t.parquet"):
        assert 0 == lab.numb("export", name, "--sort", "-lr", "--where", "lr > 0.15").code
    program = "import pandas, sys; t = pandas.read_parquet(sys.argv[1]); print(t[['params.lr', 'results.best.epoch', 'params.opt.name', 'note']].to_json(orient='values'))"
    parquet = json.loads(subprocess.run([sys.executable, "-c", program, lab.root / "t.parquet"], check=True, capture_output=True, text=True).stdout)  # fmt: skip
    with (lab.root / "t.csv").open(newline="") as file:
        table = list(csv.DictReader(file))

    assert [[0.4, 128, "adam", 'a|b,c "d"\n<script>'], [0.3, 64, "adam", None], [0.2, 64, "adam", None]] == parquet
    assert [str(line[0]) for line in parquet] == [line["params.lr"] for line in table]
    assert [line[0] for line in parquet] == [line["params.lr"] for line in json.loads(lab.read("t.json"))]
    assert ["lr", "note", "0.4", 'a\\|b,c "d"\\\\n\\<script\\>'] == [
        cell.strip() for line in lab.numb("list", "--md", "--columns", "lr,note", "--sort", "-lr", "-n", "1").stdout.splitlines()[::2]
        for cell in re.split(r"(?<!\\)\|", line)[1:-1]
    ]  # fmt: skip
    assert 2 == lab.numb("export", "t.xlsx").code


def test_one_table_has_the_order_of_its_groups(lab: Scene) -> None:
    """Where columns are chosen, or CSV or JSON is printed, and with what they are grouped by as the first column."""
    chosen = json.loads(lab.numb("list", "--group-by", "bs", "--columns", "lr", "--json").stdout)
    whole = json.loads(lab.numb("list", "--group-by", "bs", "--json").stdout)

    assert [(32, 0.1), (64, 0.2), (64, 0.3), (128, 0.4)] == [tuple(each.values()) for each in chosen]
    assert [0.1, 0.2, 0.3, 0.4] == [run["params"]["lr"] for run in whole]


def test_paths_are_names_that_git_takes(lab: Scene) -> None:
    """J48: of those that were asked for, the folder of each record; of one in flight its folder."""
    process = lab.start("train", "lr=0.5")
    lab.sh("until [ -e ready ]; do sleep 0.02; done")
    *paths, flying = lab.numb("list", "--where", "lr >= 0.3", "--paths").stdout.splitlines()
    rates_of = [json.loads(lab.sh(f"git show {path}/record.json"))["params"]["lr"] for path in paths]
    in_flight = (Path(flying) / "events.jsonl").exists()
    lab.write("go", "")
    process.communicate(timeout=60)

    assert [0.3, 0.4] == rates_of and in_flight


def test_what_there_is_not_is_said(lab: Scene) -> None:
    """Which runs have no number where the best is looked for; that a run has no note, tag or name, and how it gets one."""
    lab.write("train.py", "import numb\nnumb.numb_param({'lr': 9.0})\n")
    lab.numb("train")
    best = lab.numb("best", "--by", "results.acc")
    silent = [lab.numb(command, "@") for command in ("note", "tag", "name")]

    assert "1 run without a number there: numb list --where 'results.acc is missing'" in best.stderr
    assert [(0, "")] * 3 == [(each.code, each.stdout) for each in silent]
    assert ["why", "baseline", "baseline"] == [each.stderr.split()[-1].strip("'") for each in silent]


def test_before_the_first_run_no_name_is_a_mistake(empty: Scene) -> None:
    """There is nothing yet, and that is what is said."""
    furnish(empty, {"train.py": SCRIPT})
    done = empty.numb("list", "--where", "lr < 1", "--sort", "lr")

    assert (0, "") == (done.code, done.stdout) and "no runs" in done.stderr


def test_runs_with_the_same_settings_are_found(lab: Scene) -> None:
    """By their architecture, or where numb knows none by the command; with other values no two are the same."""
    assert "no runs like that" in lab.numb("list", "--duplicates").stderr
    lab.numb("train", "--again", "lr=0.1", "bs=32", "sched=cosine")

    assert [0.1, 0.1] == [run["params"]["lr"] for run in json.loads(lab.numb("list", "--duplicates", "--json").stdout)]


def test_repeats_are_removed_and_brought_back(lab: Scene) -> None:
    """J49: those that did the same with the same code; not what was noted, and not what had another code."""
    for words in ((), ("--again",), ("--again", "-m", "one more")):
        lab.numb("train", *words, "lr=0.1", "bs=32", "sched=cosine")
    lab.write("train.py", lab.read("train.py") + "\n# changed\n")
    lab.numb("train", "--again", "lr=0.1", "bs=32", "sched=cosine")
    alike = json.loads(lab.numb("list", "--duplicates", "--json").stdout)
    lab.numb("tag", alike[0]["id"], "first")
    planned = json.loads(lab.numb("gc", "--duplicates", "--dry-run", "--json").stdout)
    every = [run["id"] for run in lab.runs()]
    done = lab.numb("gc", "--duplicates")
    left = [run["id"] for run in lab.runs()]
    undone = lab.numb("undo")

    assert 5 == len(alike) and {run["id"] for run in alike[1:3]} == set(planned) == set(every) - set(left)
    assert f"      {record.counted(len(planned), 'run')}; numb undo brings them back" in done.stderr
    assert f"{alike[-2]['id']} did the same with the same code" in done.stderr
    assert 0 == undone.code and every == [run["id"] for run in lab.runs()]


@pytest.mark.usefixtures("warm")
def test_duplicates_stand_together(torch_scene: Scene) -> None:
    """Those that were trained again with --again, and no others."""
    for words in ("", " --again", " lr=0.2"):
        assert 0 == torch_scene.numb(f"train{words}").code
    found = json.loads(torch_scene.numb("list --duplicates --json").stdout)

    assert [0.1, 0.1] == [run["params"]["lr"] for run in found]


def test_a_note_a_tag_and_a_name_are_commits_that_undo_takes_back(lab: Scene) -> None:
    """They stand in the lab book, in the table, in --where, and name the run; the last goes first."""
    for words in (
        ("note", "@", "forgot the warm-up"),
        ("tag", "@", "paper", "wd-1"),
        ("tag", "@-1", "paper"),
        ("name", "@-2", "baseline"),
    ):
        assert 0 == lab.numb(*words).code
    subjects = lab.sh("git log --first-parent --format=%s -4 numb").splitlines()
    [last] = json.loads(lab.numb("list --json --where 'note ~ WARM'").stdout)

    assert ["name baseline", "+paper", "+paper +wd-1", "forgot the warm-up"] == [
        re.sub(r"noted \S+ of \S+ ", "", each) for each in subjects
    ]
    assert (["forgot the warm-up"], ["paper", "wd-1"], 0.4) == (last["remarks"], last["tags"], last["params"]["lr"])
    assert [0.3, 0.4] == rates(lab, "--where", "tags = paper") and [0.2] == rates(lab, "--where", "name = baseline")
    assert "lr = 0.2" in lab.numb("show", "baseline").stdout and "lr = 0.4" in lab.numb("show", "wd-1").stdout
    ambiguous = lab.numb("show", "paper")
    assert 1 == ambiguous.code and "2 runs have the tag paper" in ambiguous.stderr
    assert "is 2026" in lab.numb("name", "@", "baseline").stderr, "another run's name is taken"
    assert 2 == lab.numb("tag", "@", "20261120").code == lab.numb("note", "@", " ").code
    assert 0 == lab.numb("tag", "@", "wd-1", "--remove").code and "paper\n" == lab.numb("tag", "@").stdout
    assert lab.numb("undo").stderr.startswith("numb: taken back: ") and "paper\nwd-1\n" == lab.numb("tag", "@").stdout
    for _ in range(4):
        assert 0 == lab.numb("undo").code
    assert [] == rates(lab, "--where", "tags is not missing or name is not missing or note is not missing")
    assert [1, 0] == [lab.numb("show", "baseline").code, lab.numb("doctor").code]
    assert ("", "", 1) == (lab.numb("tag", "@").stdout, lab.numb("note", "@").stdout, lab.numb("undo").code)
    assert [0.1, 0.2, 0.3, 0.4] == rates(lab)


def test_remarks_come_back_from_the_branch_alone(lab: Scene) -> None:
    """Deleting everything derived loses nothing; removing the run takes them along, and undo brings both back."""
    lab.numb("tag", "@", "paper"), lab.numb("note", "@", "why")
    lab.sh("rm .nmb/index.sqlite")
    assert [0.4] == rates(lab, "--where", "tags = paper and note = why")
    lab.numb("rm", "@")
    assert 0 == len(rates(lab, "--where", "tags = paper"))
    lab.numb("undo")
    assert [0.4] == rates(lab, "--where", "tags = paper") and 0 == lab.numb("doctor").code


def test_a_remark_that_git_has_lost_is_told(lab: Scene) -> None:
    """Whoever lists the runs learns that something which was said is gone, and the runs are there."""
    lab.numb("note", "@", "why")
    blob = lab.sh("git rev-parse numb:.nmb/run/record.json")
    lab.sh(f"rm -f .git/objects/{blob[:2]}/{blob[2:]} .nmb/index.sqlite")
    done = lab.numb("list")

    assert (0, 4) == (done.code, done.stdout.count("complete")) and "damaged record in" in done.stderr


def test_values_keep_their_types_in_results(empty: Scene) -> None:
    """AC-J9: infinity, NaN, a truth value and a list are what they were, in Python and in JSON."""
    script = "import numb\nnumb.numb_trial_result({'loss': float('inf'), 'x': float('nan'), 'ok': True, 'l': [1, 2]})\n"
    furnish(empty, {"train.py": script})
    empty.trained()
    found = numb.open(empty.root).find("@").results
    [run] = json.loads(empty.numb("list --json").stdout)

    assert (math.inf, True, [1, 2]) == (found["loss"], found["ok"], found["l"]) and found["ok"] is True
    assert (
        math.isnan(found["x"])
        and {"$float": "nan"} == run["results"]["x"]
        and {"$float": "inf"} == run["results"]["loss"]
    )
    for text in ("loss > 1e300", "x is nan", "ok", "l = '[1, 2]'", "not x < 3"):
        assert 1 == len(json.loads(empty.numb("list", "--json", "--where", text).stdout)), text


def test_infinity_texts_and_enormous_numbers_are_never_the_best(empty: Scene) -> None:
    """H1, by the star of the listing and by `numb best`; and no number, however large, keeps a command from its answer."""
    script = "import numb\nfrom numb.hp import _\nvalue = [0.5, float('inf'), 'text', 10**400, float('nan')][_('n', 0)]\nnumb.log(step=1, loss=value, acc=value)\nnumb.numb_trial_result({'acc': value, 'loss': value})\n"  # fmt: skip
    furnish(empty, {"train.py": script})
    for n in range(5):
        assert 0 == empty.numb("train", f"n={n}").code
    for words in ("best --by results.acc -n 5 --json", "best --by loss --json"):
        done = empty.numb(words)
        assert [0] == [run["params"]["n"] for run in json.loads(done.stdout)], done.stderr
    listed = empty.numb("list").stdout
    assert ["0.5*", "0.5*"] == re.findall(r"\S+\*", listed) and all(
        0 == empty.numb(words).code for words in ("list --sort -acc", "export t.parquet", "doctor", "show @-1")
    )


def test_ids_are_unique_and_sort_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AC-L1: those of one second differ, for one that is taken is drawn again; they begin with the UTC time."""
    now = 1795210433.0
    monkeypatch.setattr(time, "time", lambda: now)
    place: Any = SimpleNamespace(layout=Layout(tmp_path))
    runs = [Project.begin(place, Run(RunId.new(now), TRAIN, now), Order())[0] for _ in range(200)]
    ids = {run.id for run in runs}
    later = RunId.new(now + 1)

    assert 200 == len(ids) and all(re.match(r"^\d{8}-?\d{4,6}.*", each) and each < later for each in ids)
    assert {"20261120-213353"} == {each[:15] for each in ids}
