"""What a person sees: tables, JSON, CSV, details, messages, exit codes."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import onnx
import pytest
import safetensors.torch
import torch
from conftest import PLAIN, Scene

from numb.view import table

RESULTS = """
from numb import numb_param, numb_queue, numb_trial_result
lr, name = 0.1, "sgd"
numb_queue()
numb_param({"lr": lr, "name": name, "fixed": 1})
numb_trial_result({"acc": lr, "loss": float("nan") if lr == 0.3 else lr})
"""


def test_version_and_help(scene: Scene) -> None:
    """--version prints one line; -h works for every command and names it."""
    assert (0, "numb 0.1.0\n") == (scene.numb("--version").code, scene.numb("--version").stdout)
    commands = ["init", "deinit", "train", "trial", "queue", "list", "show", "revert", "report", "doctor"]
    for command in commands:
        done = scene.numb(command, "-h")
        assert (0, True) == (done.code, f"numb {command}" in done.stdout)


def test_completion_is_clicks(scene: Scene) -> None:
    """The shell completion script is printed for the name `numb`."""
    numb = os.path.join(os.path.dirname(sys.executable), "numb")
    done = subprocess.run([numb], env={**scene.env, "_NUMB_COMPLETE": "bash_source"}, capture_output=True, text=True)
    assert "_NUMB_COMPLETE=bash_complete" in done.stdout


def test_list_shows_what_differs_and_marks_the_best(scene: Scene) -> None:
    """Equal hyperparameters are hidden, NaN is never best, the lowest loss and the highest accuracy are marked."""
    scene.write("train.py", RESULTS)
    scene.write("q.json", '[{"lr": 0.2}, {"lr": 0.1}, {"lr": 0.3}]')
    assert 0 == scene.numb("queue run q.json").code

    text = scene.numb("list").stdout
    wide = scene.numb("list --all-columns").stdout

    table = [line.split()[:5] for line in text.splitlines()]
    ids = [run["id"] for run in scene.runs()]
    assert ["-", "3", "runs,", "all", "with", "name=sgd", "fixed=1"] == text.splitlines()[0].split()
    assert ["id", "lr", "acc", "loss", "status"] == table[1]
    assert [[ids[0], "0.2", "0.2", "0.2", "complete"], [ids[1], "0.1", "0.1", "0.1*", "complete"]] == table[2:4]
    assert [ids[2], "0.3", "0.3*", "nan", "complete"] == table[4]
    assert ["id", "lr", "name", "fixed"] == wide.splitlines()[1].split()[:4]


def test_json_and_csv_are_data(scene: Scene) -> None:
    """JSON is valid JSON with NaN spelled, CSV has a column for each hyperparameter and result; stderr is silent."""
    scene.write("train.py", RESULTS)
    scene.trained(lr=0.3)

    listed, table = scene.numb("list --json"), scene.numb("list --csv")

    (run,) = json.loads(listed.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    (row,) = csv.DictReader(io.StringIO(table.stdout))
    assert {"acc": 0.3, "loss": {"$float": "nan"}} == run["results"]
    assert ("0.3", "sgd", "nan", "complete") == (
        row["params.lr"],
        row["params.name"],
        row["results.loss"],
        row["status"],
    )
    assert ("", "") == (listed.stderr, table.stderr)


def test_values_are_shown_verbatim_and_harmless(scene: Scene) -> None:
    """Strings that look like numbers stay as they are; control characters do not reach the terminal; JSON has the value."""
    hostile = "\x1b[2J\r\n" + "x" * 5000
    scene.write(
        "train.py", f"from numb import *\nnumb_param({{'tag': '1234e56', 'zero': '0012', 'evil': {hostile!r}}})\n"
    )
    scene.trained()

    text, shown = scene.numb("list").stdout, scene.numb("show @").stdout

    assert 3 == len(text.splitlines())
    assert {"1234e56", "0012"} <= set(text.split())
    assert "\x1b" not in text + shown
    assert hostile == scene.runs()[0]["params"]["evil"]


def test_list_filters(scene: Scene) -> None:
    """--status, -n and --untrialed choose runs; an unknown status is a usage error that names the known ones."""
    for code in ("0", "3", "0"):
        scene.numb("train", "--again", "--", code)

    failed = json.loads(scene.numb("list --status failed --json").stdout)
    newest = json.loads(scene.numb("list -n 1 --json").stdout)
    wrong = scene.numb("list --status gone")

    assert [("failed", 3)] == [(run["status"], run["exit_code"]) for run in failed]
    assert [scene.runs()[-1]["id"]] == [run["id"] for run in newest]
    assert (
        2,
        "numb: gone is not a status\n      try: one of running, complete, incomplete, failed, interrupted, killed, lost\n",
    ) == (
        wrong.code,
        wrong.stderr,
    )


def test_list_into_a_closed_pipe_and_a_narrow_locale(scene: Scene) -> None:
    """`numb list | head` ends quietly; in the C locale there is ASCII and no traceback."""
    scene.trained(lr=0.2)
    numb = f"{sys.executable} -m numb"

    scene.sh(f"set +eo pipefail; (sleep 0.3; {numb} list 2>said.ignored; echo $? >>said.ignored) | true")
    plain = scene.numb(
        "list", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    )

    assert "0\n" == scene.read("said.ignored")
    assert (0, True) == (plain.code, plain.stdout.isascii())


def test_show_tells_everything(scene: Scene) -> None:
    """show has message, command, code, hyperparameters, results and environment; --log is byte-exact, --patch the edits."""
    scene.sh("echo '# edited' >> train.py && echo new > new.txt")
    assert 0 == scene.numb("train", "-m", "does it work?", "--", "0").code

    shown = scene.numb("show @").stdout
    log = scene.numb("show @ --log").stdout
    patch = scene.numb("show @ --patch").stdout
    detail = json.loads(scene.numb("show @ --json").stdout)

    facts = {line[:15].strip(): line[16:] for line in shown.splitlines() if line[:15].strip()}
    assert ("does it work?", "complete", "python train.py 0") == (facts["message"], facts["status"], facts["command"])
    assert "epochs = 2" == facts["hyperparameter"]
    assert "acc = 0.9" == facts["result"]
    assert "lr 0.1\n" == log
    assert {"+# edited", "+new"} <= set(patch.splitlines())
    assert detail["environment"]["script"]["python"] == sys.version.split()[0]
    assert "click" in detail["environment"]["packages"]
    assert scene.sh("git rev-parse HEAD") == detail["base"]


def test_ids_have_short_forms(scene: Scene) -> None:
    """@, @-1, a beginning, the last four letters and a tag name a run; what names several lists the candidates."""
    first, second = scene.trained(lr=0.2)["id"], scene.trained(lr=0.3)["id"]
    scene.sh("git tag best $(git rev-parse numb~1)")

    def named(text: str) -> str:
        return json.loads(scene.numb("show", text, "--json").stdout)["id"]

    assert [second, first, first, second, first] == [named(t) for t in ("@", "@-1", first[:-1], second[-4:], "best")]
    several = scene.numb("show", first[:8])
    assert 1 == several.code
    assert first in several.stderr and second in several.stderr
    assert (1, "numb: there is no run nosuch\n      try: numb list\n") == (
        scene.numb("show nosuch").code,
        scene.numb("show nosuch").stderr,
    )


@pytest.mark.usefixtures("warm")
def test_what_names_several_runs_lists_runs_and_counts_the_rest(torch_scene: Scene) -> None:
    """Ten candidates and how many more there are; a trial is no candidate where a run is, and is found by its own id."""
    run = torch_scene.trained()
    assert 0 == torch_scene.numb("trial @").code
    trial = torch_scene.runs()[0]["trials"][0]["id"]
    one = torch_scene.numb("show", run["id"][:8], "--json")
    torch_scene.write("train.py", PLAIN)
    torch_scene.write("q.json", json.dumps([{"lr": n} for n in range(11)]))
    assert 0 == torch_scene.numb("queue run q.json").code

    several = torch_scene.numb("show", run["id"][:3])

    ids = sorted(run["id"] for run in torch_scene.runs())
    assert run["id"] == json.loads(one.stdout)["id"]
    assert trial == json.loads(torch_scene.numb("show", trial, "--json").stdout)["id"]
    assert (1, f"numb: {run['id'][:3]} is the beginning of several runs: {', '.join(ids[:10])} and 2 more") == (
        several.code,
        several.stderr.splitlines()[0],
    )


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("train --lr 0.3", "No such option: --lr. What is for the script stands after --: numb train -- --lr 0.3"),
        ("train --lr=3 -- x", "No such option: --lr. What is for the script stands after --: numb train -- --lr=3 x"),
        ("train -m why x lr=3", "Got unexpected arguments: x. What is for the script stands after --: numb train -m why lr=3 -- x"),
        ("trial @ 'a b'", "Got unexpected arguments: a b. What is for the script stands after --: numb trial @ -- 'a b'"),
        ("train --agian", "No such option: --agian. Did you mean --again? What is for the script stands after --: numb train -- --agian"),
    ],
)  # fmt: skip
def test_arguments_of_the_script_belong_behind_the_dashes(scene: Scene, typed: str, words: str) -> None:
    """What numb does not know may be the script's: the error is the command to type, and nothing runs."""
    done = scene.numb(typed)
    assert (2, "", f"Error: {words}") == (done.code, done.stdout, done.stderr.splitlines()[-1])
    assert [] == scene.runs()


BAD_CONFIG = {
    "broken": ('{"train": {"command": "x"}', 2, "nmb.json:1:"),
    "type": ('{"version": 1,\n "train": {"command": 7}}', 2, "nmb.json:2:"),
    "missing": ('{"version": 1}', 2, 'section "train" has no command'),
    "newer": ('{"version": 99}', 1, "version 99"),
    "not found": ('{"train": {"command": "no-such-command"}}', 127, "no-such-command: command not found"),
    "cannot start": ('{"train": {"command": "./train.py"}}', 126, "is not executable"),
    "shell": (
        '{"train": {"command": "A=1 python x.py"}}',
        2,
        '1:23: "A=1" is for a shell, and numb starts the command without one\n',
    ),
    "empty": ('{"train": {"command": ""}}', 2, 'section "train" has no command'),
}


@pytest.mark.parametrize("case", BAD_CONFIG, ids=str)
def test_a_broken_configuration_is_one_clear_error(scene: Scene, case: str) -> None:
    """The file, the line and column, the right exit code, no traceback; and no run is recorded."""
    text, code, words = BAD_CONFIG[case]
    tip = scene.sh("git rev-parse numb")
    scene.write("nmb.json", text)

    done = scene.numb("train")

    assert (code, "") == (done.code, done.stdout)
    assert words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert tip == scene.sh("git rev-parse numb")
    assert "" == scene.sh("ls .nmb/runs 2>/dev/null || true")


def test_an_unknown_key_is_a_warning_with_the_nearest_name(scene: Scene) -> None:
    """A misspelt key does not stop a training; it is named with its place."""
    scene.write("nmb.json", '{"train": {"command": "python train.py"}, "trail": {}}')
    done = scene.numb("train")
    assert 0 == done.code
    assert "nmb.json:1:" in done.stderr and "trial" in done.stderr


def test_a_listing_that_is_cut_says_of_what_its_best_is_the_best(scene: Scene) -> None:
    """With more runs than are shown, the title counts them all, and the mark does not pass for the best of them."""
    scene.write("train.py", RESULTS)
    for lr in (0.9, 0.1, 0.2):
        scene.trained(lr=lr)

    cut, whole = scene.numb("list -n 2").stdout.splitlines()[0], scene.numb("list").stdout.splitlines()[0]

    assert re.fullmatch(r"-  2 runs of 3 \(\* is the best of these\)(, all with .*)?", cut), cut
    assert re.fullmatch(r"-  3 runs(, all with .*)?", whole), whole


def test_commands_before_init(empty: Scene) -> None:
    """Every command says what is missing and what to type, and creates nothing."""
    for command in ("train", "trial", "list", "show @", "revert @", "report @", "doctor", "queue run q.json"):
        done = empty.numb(command)
        assert (1, True) == (done.code, "try: numb init" in done.stderr), command
    assert [".git"] == [p.name for p in empty.root.iterdir()]


def terminal(scene: Scene, arguments: list[str], *answers: str, columns: int = 0) -> tuple[int, str]:
    """Type a command at a terminal, answer its questions, and return the exit code and all that was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "numb", *arguments]
    process = subprocess.Popen(command, cwd=scene.root, env=scene.env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, answered = b"", 0
    while select.select([ours], [], [], 100)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # every end of the terminal is closed
            break
        if answered < len(answers) and len(re.findall(rb"\[y/N\]: |\[\d+\]: ", shown)) > answered:
            answered += 1
            os.write(ours, answers[answered - 1].encode())
    os.close(ours)
    return process.wait(20), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("answer", "code", "trained"), [("n\n", 125, 1), ("y\n", 0, 2), ("\x03", 130, 1), ("\x04", 125, 1)]
)
def test_the_question_before_redoing(torch_scene: Scene, answer: str, code: int, trained: int) -> None:
    """The prompt names the earlier run and whether the code differs; n, Ctrl-C and Ctrl-D train nothing; y trains."""
    first = torch_scene.trained()
    torch_scene.sh("echo '# edited' >> net.py")

    exit_code, shown = terminal(torch_scene, ["train"], answer)

    assert (code, trained) == (exit_code, len(torch_scene.runs()))
    assert first["id"] in shown and "code: changed since in net.py" in shown
    assert "Traceback" not in shown
    assert (trained == 1) == ("nothing was trained" in shown)


@pytest.mark.usefixtures("warm")
def test_the_choice_of_a_trial(torch_scene: Scene) -> None:
    """The prompt is a numbered table; the chosen run, and no other, gets the result."""
    runs = [torch_scene.trained(lr=lr) for lr in (0.1, 0.2)]

    code, shown = terminal(torch_scene, ["trial"], "1\n")

    assert 0 == code, shown
    assert re.search(rf"1 +{runs[0]['id']} +0\.1", shown) and re.search(rf"2 +{runs[1]['id']} +0\.2", shown)
    assert [True, False] == [bool(run["results"]) for run in torch_scene.runs()]


def test_the_table_to_choose_from_tells_what_the_list_tells(torch_scene: Scene) -> None:
    """Status where one is not complete, results, ages, messages and what differs; an id is an answer too, others are not."""
    first = torch_scene.trained("-m", "to begin with", lr=0.1)
    torch_scene.sh("sed -i 's/^print.*/assert lr != 0.2/' train.py")
    torch_scene.write("q.json", '[{"lr": 0.2}]')
    assert 1 == torch_scene.numb("queue run q.json").code
    second = torch_scene.trained(lr=0.3)
    assert 0 == torch_scene.numb("trial", second["id"]).code

    code, shown = terminal(torch_scene, ["trial"], "4\n", f"{first['id'][:4]}\n", f"{first['id'][-4:]}\n")

    title, header, *rows = shown.splitlines()[:5]
    assert title.endswith("3 runs, all with width=8")
    assert ["id", "lr", "total", "lr", "status", "age", "message"] == header.split()
    assert ["1", first["id"], "0.1", "complete"] == rows[0].split()[:4] and rows[0].endswith(" to begin with")
    assert re.fullmatch(r" +2 +\S+ +0\.2 +failed: AssertionError +\d+ s", rows[1])
    assert re.fullmatch(r" +3 +\S+ +0\.3 +[\d.-]+\* +0\.3\* +complete +\d+ s", rows[2])
    assert "numb: 4 is neither a number from 1 to 3 nor the beginning of one of these ids\n" in shown
    assert f"numb: the ids of 3 of these runs begin with {first['id'][:4]}\n" in shown
    assert 0 == code, shown
    assert [2, 0, 1] == [len(run["trials"]) + (run["id"] == first["id"]) for run in torch_scene.runs()]


@pytest.mark.parametrize(("answer", "code"), [("\x03", 130), ("\x04", 125)])
@pytest.mark.usefixtures("warm")
def test_no_choice_is_no_trial(torch_scene: Scene, answer: str, code: int) -> None:
    """Ctrl-C and Ctrl-D at the choice of a trial: nothing is trialed or recorded, and 130 is Ctrl-C's."""
    run = torch_scene.trained()
    exit_code, shown = terminal(torch_scene, ["trial"], answer)
    words = "nothing was trialed" if code == 130 else f"numb trial {run['id']}, or numb trial --all"
    assert (code, True) == (exit_code, words in shown), shown
    assert [] == torch_scene.runs()[0]["trials"]


@pytest.mark.parametrize("words", ["purge train.py", "deinit"])
def test_ctrl_c_at_any_question_changes_nothing(scene: Scene, words: str) -> None:
    """And ends with 130, as everywhere."""
    scene.trained()
    tip = scene.sh("git rev-parse numb")
    code, shown = terminal(scene, words.split(), "\x03")

    assert (130, tip) == (code, scene.sh("git rev-parse numb")), shown
    assert "Traceback" not in shown and "Aborted" not in shown


def test_a_run_in_flight_is_named_by_its_last_four_letters(scene: Scene) -> None:
    """As one that has ended is; it cannot be removed, and that is said."""
    scene.sh('sed -i \'s/^print/open("on.ignored", "w").close(); __import__("time").sleep(60)\\nprint/\' train.py')
    worker = scene.start("train")
    scene.sh("until [ -e on.ignored ]; do sleep 0.05; done")
    (run,) = scene.runs()
    refused = scene.numb("rm", run["id"][-4:])
    os.killpg(worker.pid, signal.SIGTERM)
    worker.communicate()

    assert f"{run['id']} cannot be removed: still in flight" in refused.stderr


def test_a_table_has_its_columns_where_a_terminal_shows_them() -> None:
    """Letters that take two columns, and marks that take none."""
    text = table.grid([["日本", "1"], ["e\u0301te", "22"], ["plain", "x"]], ["name", "n"], right=[1])

    assert ["name    n", "日本    1", "e\u0301te    22", "plain   x"] == text.splitlines()


def test_a_narrow_terminal_wraps_nothing(scene: Scene) -> None:
    """What matters least is cut or left out, and the title says so; ids and results stay; a pipe gets everything."""
    scene.write("train.py", RESULTS)
    scene.trained("-m", "a message of more than forty characters, which is much", lr=0.1)
    scene.sh("echo 'raise ValueError(\"a reason of more than forty characters, which is a lot\")' >> train.py")
    scene.numb("train", "-m", "short")
    (first, second) = scene.runs()

    _, wide = terminal(scene, ["list", "--all-columns"], columns=200)
    _, narrow = terminal(scene, ["list", "--all-columns"], columns=80)
    _, narrowest = terminal(scene, ["list", "--all-columns"], columns=36)
    unknown = terminal(scene, ["list", "--all-columns"])[1]

    whole = ["id", "lr", "name", "fixed", "acc", "loss", "status", "age", "message"]
    assert whole == wide.splitlines()[1].split() == unknown.splitlines()[1].split()
    assert whole[:-1] == narrow.splitlines()[1].split()
    assert narrow.splitlines()[0].endswith("; too narrow for message")
    assert re.search("failed: V.*… ", narrow)
    assert ["id", "acc", "loss"] == narrowest.splitlines()[1].split()
    for text, columns in ((wide, 200), (narrow, 80), (narrowest, 36)):
        assert max(len(line) for line in text.splitlines()[1:]) <= columns
        assert first["id"] in text and second["id"] in text


@pytest.mark.usefixtures("warm")
def test_without_a_terminal_nothing_waits(torch_scene: Scene) -> None:
    """A trial without an ID names what to type, and records nothing, rather than wait on a silent pipe (M21)."""
    run = torch_scene.trained()
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-m", "numb", "trial"], cwd=torch_scene.root, env=torch_scene.env, stdin=reader, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    assert 125 == done.returncode
    assert f"numb trial {run['id']}, or numb trial --all" in done.stderr


def test_queue_keys_and_files_are_checked_before_the_first_run(scene: Scene) -> None:
    """An unknown key has the nearest name, a file that is no queue its place; nothing is trained."""
    cases = {
        '[{"lr": 1}, {"epoch": 2}]': "q.json:1:14: the script has no hyperparameter epoch\n      try: did you mean epochs?",
        '{"lr": 1}': "q.json:1:1: ",
        "[1]": "q.json:1:2: ",
        '[{"lr": 1, "lr": 2}]': "q.json:1:12: ",
    }
    for text, words in cases.items():
        scene.write("q.json", text)
        done = scene.numb("queue run q.json")
        assert (2, "") == (done.code, done.stdout)
        assert words in done.stderr
    assert [] == scene.runs()
    assert (2, True) == (
        scene.numb("queue run none.json").code,
        "queue init" in scene.numb("queue run none.json").stderr,
    )


def test_a_queue_goes_on_after_a_failure(scene: Scene) -> None:
    """One entry that fails does not stop the rest; it is not repeated unasked; --failed repeats it; the codes tell."""
    scene.sh('sed -i \'s/^print/assert lr != 2 or __import__("os").path.exists("ok.ignored")\\nprint/\' train.py')
    scene.write("q.json", '[{"lr": 1}, {"lr": 2}, {"lr": 3}]')

    first = scene.numb("queue run q.json")
    second = scene.numb("queue run q.json")
    scene.sh("touch ok.ignored")
    third = scene.numb("queue run --failed q.json")

    assert ["lr 1.0\nlr 3.0\n", "", "lr 2.0\n"] == [first.stdout, second.stdout, third.stdout]
    assert (1, 1, 0) == (first.code, second.code, third.code)
    assert ["numb: q.json: 2 done, 1 failed", "      try: numb queue run --failed q.json"] == first.stderr.splitlines()[
        -2:
    ]


def said(text: str) -> list[str]:
    """What numb and the script have said, with `ID` in the place of every id."""
    return re.sub(r"\d{8}-\d{6}-\w{4}", "ID", text).replace("\r", "").splitlines()


def test_a_queue_says_what_begins(scene: Scene) -> None:
    """The heading of an entry stands above what its run says; started again, the numbers are those of the file."""
    scene.sh("sed -i 's/^print.*/print(\"lr\", lr, file=sys.stderr)/' train.py")
    scene.write("q.json", '[{"lr": 0.2}, {"lr": 0.3, "epochs": 1}]')

    first = scene.numb("queue run q.json")
    scene.write("q.json", '[{"lr": 0.2}, {"lr": 0.3, "epochs": 1}, {"lr": 0.4}]')
    second = scene.numb("queue run q.json")

    assert [
        "numb: [1/2] lr=0.2", "lr 0.2", "numb: saved ID → acc 0.8",
        "numb: [2/2] lr=0.3 epochs=1", "lr 0.3", "numb: saved ID → acc 0.7",
        "numb: q.json: 2 done",
    ] == said(first.stderr)  # fmt: skip
    assert ["numb: [3/3] lr=0.4", "lr 0.4", "numb: saved ID → acc 0.6", "numb: q.json: 3 done"] == said(second.stderr)


def test_equal_entries_of_a_queue_are_trained_once(scene: Scene) -> None:
    """Equal combinations, however they are written, are one: it is said, trained once, and both are done."""
    scene.write("q.json", '[{"lr": 1, "epochs": 2}, {"lr": 3}, {"epochs": 2, "lr": 1.0}]')

    done = scene.numb("queue run q.json")

    states = json.loads(scene.numb("queue status q.json --json").stdout)
    ids = [run["id"] for run in scene.runs()]
    assert (0, "lr 1.0\nlr 3.0\n") == (done.code, done.stdout)
    assert (
        "numb: q.json: entry 3 repeats an earlier one; equal combinations are trained once"
        == done.stderr.splitlines()[0]
    )
    assert "numb: q.json: 3 done" == done.stderr.splitlines()[-1]
    assert [("done", ids[0]), ("done", ids[1]), ("done", ids[0])] == [(s["status"], s["run"]) for s in states]


@pytest.mark.usefixtures("warm")
def test_a_queue_names_the_run_that_was_done_before(torch_scene: Scene) -> None:
    """What is the same in other words is not trained twice in one queue; the earlier run is named, and what has changed."""
    torch_scene.write("q.json", '[{"lr": 0.2}, {"lr": 0.2, "width": 8}]')

    first = torch_scene.numb("queue run q.json")
    torch_scene.sh("echo '# edited' >> net.py")
    torch_scene.write("other.json", '[{"lr": 0.2}]')
    second = torch_scene.numb("queue run other.json")
    (run,) = torch_scene.runs()
    third, fourth = (torch_scene.numb("queue run --again other.json") for _ in range(2))

    same = f"numb: {run['id']} is the same run, done before; nothing was trained"
    assert (0, 0) == (first.code, second.code)
    assert ["numb: [2/2] lr=0.2 width=8", same, "numb: q.json: 2 done (1 trained before)"] == first.stderr.splitlines()[
        -3:
    ]
    assert [
        "numb: [1/1] lr=0.2", same, "      code: changed since in net.py; --again trains it again",
        "numb: other.json: 1 done (1 trained before)",
    ] == second.stderr.splitlines()  # fmt: skip
    left = "      written beside the script, and kept in .nmb/left/ID: own.pt"
    assert ["numb: [1/1] lr=0.2", "numb: saved ID", left, "numb: other.json: 1 done"] == said(third.stderr)
    stays = "      what is done stays done, whatever has changed since; for other code, copy the file"
    assert ["numb: other.json: 1 done", stays] == said(fourth.stderr)
    assert 2 == len(torch_scene.runs())


@pytest.mark.usefixtures("warm")
def test_a_trial_of_all_says_what_begins_and_when_nothing_is_left(torch_scene: Scene) -> None:
    """Headings stand above the output; with every run trialed it ends with 0 and one line, and names what else waits."""
    for width in (8, 5):
        torch_scene.trained(lr=0.1, width=width)
        torch_scene.trained(lr=0.2, width=width)
    torch_scene.sh("sed -i 's/^net.eval()/import sys; print(lr, file=sys.stderr)/' trial.py")
    other = torch_scene.runs()[-1]

    first, second = torch_scene.numb("trial --all"), torch_scene.numb("trial --all")
    for run in torch_scene.runs():
        assert run["results"] or 0 == torch_scene.numb("trial", run["id"]).code
    third = torch_scene.numb("trial --all")

    headings = [line for line in said(first.stderr) if "saved" not in line]
    nothing = "numb: every run of this architecture has been trialed (2); numb trial ID to trial one again"
    left = f"numb: not trialed: 2 runs of other networks (Net·{other['architecture'][:4]}): numb trial ID"
    assert [
        "numb: [1/2] trial of ID", "0.1", "numb: [2/2] trial of ID", "0.2", left, "numb: 2 of 2 trials succeeded",
    ] == headings  # fmt: skip
    assert (0, [nothing, left]) == (second.code, said(second.stderr))
    assert (0, [nothing]) == (third.code, third.stderr.splitlines())


@pytest.mark.usefixtures("warm")
def test_a_trial_of_all_without_hyperparameters_goes_on_at_once(torch_scene: Scene) -> None:
    """A trial script that takes no values from numb is not started twice for the first run, and has its heading too."""
    first, second = torch_scene.trained(lr=0.1), torch_scene.trained(lr=0.2)
    torch_scene.sh("sed -i 's/^numb_queue()/print(\"once\")/' trial.py")

    done = torch_scene.numb("trial --all")

    headings = [line for line in done.stderr.splitlines() if "trial of" in line]
    assert [f"numb: [{n}/2] trial of {run['id']}" for n, run in enumerate((first, second), 1)] == headings
    assert (0, "once\nonce\n") == (done.code, done.stdout)


@pytest.mark.usefixtures("warm")
def test_a_trial_of_all_of_an_unknown_architecture_counts_nothing(torch_scene: Scene) -> None:
    """With no run of the architecture it ends as `numb trial` does: the refusal, 125, and no count of trials."""
    torch_scene.trained(width=5)
    done = torch_scene.numb("trial --all")
    assert 125 == done.code
    assert "no run of Net·" in done.stderr and "succeeded" not in done.stderr


def test_options_that_exclude_each_other_do_so_with_a_queue_too(scene: Scene) -> None:
    """What is a mistake for one run is a mistake for a queue of them."""
    scene.write("q.json", '[{"lr": 1}]')
    done = scene.numb("train --queue q.json --again --skip-done")
    assert (2, "", []) == (done.code, done.stdout, scene.runs())
    assert "--again and --skip-done exclude each other" in done.stderr


def test_two_queues_on_one_file_run_each_entry_once(scene: Scene) -> None:
    """Two workers share the entries of a file: none is run twice, none is left out."""
    scene.write("q.json", json.dumps([{"lr": n} for n in range(8)]))
    workers = [scene.start("queue", "run", "q.json") for _ in range(2)]
    outputs = [worker.communicate()[0].decode() for worker in workers]
    assert [0, 0] == [worker.returncode for worker in workers]
    assert [f"lr {n}.0" for n in range(8)] == sorted("".join(outputs).split("\n")[:-1])
    assert 8 == len(scene.runs())


def test_an_interrupted_queue_stops(scene: Scene) -> None:
    """Ctrl-C ends the running entry and the queue; the entry is cut off, and run again the next time."""
    scene.sh(
        f'sed -i \'s|^print|open("{scene.root}/on.ignored", "w").close(); __import__("time").sleep(60 * (lr == 1))\\nprint|\' '
        "train.py"
    )
    scene.write("q.json", '[{"lr": 1}, {"lr": 2}]')
    worker = scene.start("queue", "run", "q.json")
    scene.sh("until [ -e on.ignored ]; do sleep 0.05; done")
    os.killpg(worker.pid, signal.SIGINT)
    worker.communicate()
    assert 130 == worker.returncode
    states = json.loads(scene.numb("queue status q.json --json").stdout)
    assert ["cut off", "queued"] == [state["status"] for state in states]


def test_running_runs_are_listed(scene: Scene) -> None:
    """A run in flight is in the list as running, with its hyperparameters, and readers do not wait for it."""
    scene.sh('sed -i \'s/^print/open("on.ignored", "w").close(); __import__("time").sleep(60)\\nprint/\' train.py')
    worker = scene.start("train")
    scene.sh("until [ -e on.ignored ]; do sleep 0.05; done")
    before = time.monotonic()
    (run,) = scene.runs()
    os.killpg(worker.pid, signal.SIGTERM)
    worker.communicate()
    assert ("running", 0.1) == (run["status"], run["params"]["lr"])
    assert time.monotonic() - before < 30
    assert ("interrupted", "SIGTERM") == (scene.runs()[0]["status"], scene.runs()[0]["reason"])


def test_secrets_of_the_command_line_are_not_kept(scene: Scene) -> None:
    """Tokens in arguments, in URLs and in the environment are in no object and no file of numb's."""
    canary = "hunter2canary"
    done = scene.numb(
        "train", "--", "0", "--password", canary, f"--api-key={canary}", f"https://me:{canary}@host/",
        env={"WANDB_API_KEY": canary},
    )  # fmt: skip
    assert 0 == done.code
    objects = scene.sh("git rev-list --objects --all | cut -d' ' -f1 | git cat-file --batch | strings")
    assert canary not in objects
    assert "" == scene.sh(f"grep -rl {canary} .nmb || true")


@pytest.mark.usefixtures("warm")
def test_report_holds_what_is_needed(torch_scene: Scene) -> None:
    """The directory has every file that the manual names, its README says how to load, and the patch applies."""
    torch_scene.sh("echo '# edited' >> net.py && echo new > new.txt")
    run = torch_scene.trained()
    done = torch_scene.numb("report @")
    folder = torch_scene.root / f"report-{run['id']}"
    names = {path.name for path in folder.iterdir()}
    wanted = {
        "state_dict.pt", "state_dict.safetensors", "graph.onnx", "record.json", "params.json", "results.json", "output.log",
        "changes.patch", "environment.json", "README.md",
    }  # fmt: skip
    assert (0, f"{folder}\n") == (done.code, done.stdout)
    assert set() == wanted - names
    assert 'torch.load("state_dict.pt", weights_only=True)' in (folder / "README.md").read_text()
    assert {"lr": 0.1, "width": 8} == json.loads((folder / "params.json").read_text())
    torch_scene.sh(f"git worktree add -q ../clean HEAD && cd ../clean && git apply {folder}/changes.patch")
    assert "new" == torch_scene.sh("cat ../clean/new.txt")
    graph, state = onnx.load(folder / "graph.onnx"), torch.load(folder / "state_dict.pt", weights_only=True)
    other = safetensors.torch.load_file(folder / "state_dict.safetensors")
    assert not graph.graph.initializer
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)
    assert "" == torch_scene.sh("git status --short --untracked-files=all | grep report || true")


TWO = """
import torch
from numb import numb_model
first = numb_model((1, 4), name="first")(torch.nn.Linear(4, 3))
second = numb_model((1, 3), name="second")(torch.nn.Linear(3, 2))
"""


@pytest.mark.usefixtures("warm")
def test_the_readme_of_a_report_is_true(torch_scene: Scene) -> None:
    """It names files that are there, all of the umask's mode; and its command brings the code back, from where it stands."""
    torch_scene.write("train.py", TWO)
    torch_scene.sh("echo new > new.txt")
    run = torch_scene.trained()

    torch_scene.sh("umask 027 && python -m numb report @")

    folder = torch_scene.root / f"report-{run['id']}"
    text = (folder / "README.md").read_text()
    files = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    listed = set(re.findall("^- `(.*?)`: ", text, re.M))
    assert {"graph-first.onnx", "graph-second.onnx"} <= listed <= set(files) and "graph.onnx" not in listed
    assert {"state_dict-first.safetensors", "state_dict-second.pt"} <= set(files)
    assert {"0o640"} == {mode for name, mode in files.items() if name != "series"}, files
    (command,) = re.findall("```sh\\n(.*?)```", text, re.S)
    torch_scene.sh(f"cd {folder} && {command}")
    assert "new\n" == (folder / "code" / "new.txt").read_text()


@pytest.mark.usefixtures("warm")
def test_a_killed_report_enters_no_snapshot(torch_scene: Scene) -> None:
    """What is left of a report that was killed half way is hidden from git, and from the snapshots."""
    torch_scene.trained()
    torch_scene.write("../deadly/safetensors/__init__.py", "class SafetensorError(Exception): pass")
    torch_scene.write(
        "../deadly/safetensors/torch.py",
        "import os\ndef save(*_): ...\ndef save_file(*_, **__): os.kill(os.getpid(), 9)\n",
    )
    path = f"{torch_scene.root.parent}/deadly:{torch_scene.env['PYTHONPATH']}"

    killed = torch_scene.numb("report", "@", env={"PYTHONPATH": path})
    again = torch_scene.numb("train --again")

    assert -9 == killed.code, killed
    (left,) = torch_scene.root.glob(".report-*.tmp")
    assert (0, True) == (again.code, (left / "state_dict.pt").exists())
    assert "" == torch_scene.sh("git status --short --untracked-files=all | grep report || true")
    assert "" == torch_scene.sh("git ls-tree -r --name-only numb | grep report || true")
