"""What is promised of the states of a queue: a turn has one holder, a list of names is the whole state, and nothing is guessed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from numb import alive
from numb.errors import StorageFailed
from numb.queue import Proofs, Queue
from numb.states import CANCELED, CUT_OFF, DONE, FAILED, QUEUED, RUNNING, STATUSES, States, Turn

RUN = "20261122-101500-x7f2"
LATER = "20261122-111500-aaaa"


@pytest.fixture
def states(tmp_path: Path) -> States:
    return States(tmp_path / "states")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """Six entries of which nothing has begun."""
    file = tmp_path / "q.json"
    file.write_text(json.dumps([{"lr": n} for n in range(6)]))
    return Queue.at(file, tmp_path / "queues", tmp_path)


def statuses(queue: Queue) -> list[str]:
    return [state.status for state in queue.states()]


def taken(queue: Queue, *wanted: str, **more: Any) -> Any:
    """A claim, which must be had."""
    claim = queue.claim(wanted or (QUEUED, CUT_OFF), **more)
    assert claim is not None
    return claim


def read(names: Iterable[str]) -> dict[str, Turn]:
    """What a folder that lists these names, in this order, says."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "listdir", lambda path: list(names))
        return States(Path("anywhere")).read()


# -- whose turn it is


def _race(folder: Path, key: str, tries: int, won: Any, barrier: Any) -> None:
    states = States(folder)
    for number in range(1, tries + 1):
        barrier.wait()
        if states.take(key, number, {"who": os.getpid()}):
            won.put((number, os.getpid()))


def test_of_all_who_would_take_a_turn_one_has_it(tmp_path: Path) -> None:
    """Processes that ask at the same moment: exactly one is told yes, and what stands in the claim is said by that one."""
    fork = multiprocessing.get_context("fork")
    won, barrier = fork.SimpleQueue(), fork.Barrier(4)
    racers = [fork.Process(target=_race, args=(tmp_path / "s", "k", 30, won, barrier)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    holders = dict(found := [won.get() for _ in range(30)])
    assert won.empty() and [*range(1, 31)] == sorted(number for number, _ in found)
    assert holders == {n: States(tmp_path / "s").holder("k", n)["who"] for n in holders}
    assert 30 == len(os.listdir(tmp_path / "s")), "no draft is left"


def test_entries_are_claimed_once_by_however_many_threads(queue: Queue) -> None:
    """Workers that take what there is get each entry once, and nobody gets what another has."""
    found: list[int] = []

    def work() -> None:
        own = Queue(queue.file, queue.folder.folder)
        while claim := own.claim([QUEUED]):
            found.append(claim.entry.number)
            claim.settle(DONE, RUN, 0)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [1, 2, 3, 4, 5, 6] == sorted(found) and [DONE] * 6 == statuses(queue)


def test_a_turn_is_claimed_where_there_are_no_hard_links(states: States, monkeypatch: pytest.MonkeyPatch) -> None:
    """On FAT and some network file systems a claim is exclusive, too."""
    monkeypatch.setattr("numb.atomic._link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))

    assert states.take("k", 1, {"who": 1}) and not states.take("k", 1, {"who": 2})
    assert {"who": 1} == states.holder("k", 1)


# -- what names say

NAMES = [
    f"{key}.{rest}"
    for key in ("aaaa", "bbbb")
    for rest in (
        "1.claimed",
        f"1.run.{RUN}",
        f"1.run.{LATER}",
        "1.cancel",
        f"1.cut-off.{RUN}.137",
        f"1.failed.{LATER}.1",
        "2.claimed",
        f"2.run.{LATER}",
        f"2.done.{RUN}.0",
        f"2.done.{LATER}.0",
        f"2.same.{RUN}.",
        f"2.failed.{RUN}.1",
        f"2.failed.{RUN}.2",
        "2.canceled..",
        "2.queued..",
        "0.priority.5",
        "0.priority.-3",
        "0.code.1795340000000-1f2e3d",
        "0.code.1795340000001-000000",
    )
]
STRAYS = [
    "code", "paused", ".aaaa.1.claimed.12-ab.tmp", ".DS_Store", "Thumbs.db", "desktop.ini", "aaaa", "aaaa.", "aaaa.1", "aaaa.1.",
    "aaaa.x.claimed", "aaaa.-1.claimed", ".1.claimed", "..", "aaaa.9.claimed (Ada's conflicted copy 2026-11-22)",
    "aaaa.9.sync-conflict", "aaaa.9.claimed~", "aaaa.9.hurrah.1", "aaaa.²", "aaaa.²2.claimed", "\udcff.1.\udcff", "a\nb.1.\n",
]  # fmt: skip
WORDS = st.sampled_from(
    ["claimed", "run", "cancel", "done", "same", "failed", "cut-off", "queued", "priority", "code", ""]
)
ODD = st.text(st.characters(exclude_characters="/\0"), max_size=6)
PARTS = st.one_of(
    WORDS, st.integers(-3, 12).map(str), st.sampled_from(["--5", "-", "٣", "²", "1_0", "9" * 200, RUN]), ODD
)


@settings(max_examples=300)
@given(st.lists(st.lists(PARTS, max_size=6).map(".".join), max_size=8))
@example(["aaaa.1.done.x.--5"])
@example(["aaaa.1.done.x.-٣"])
@example([f"aaaa.0.priority.{'9' * 200}"])
def test_no_name_is_an_error(names: list[str]) -> None:
    """Whatever somebody's file is called: it is passed over, or it says something that can be."""
    for turn in read(names).values():
        assert turn.status in STATUSES and turn.number >= 0
        assert isinstance(turn.priority, int) and isinstance(turn.exit_code, int | None)


@settings(max_examples=300)
@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(STRAYS)), st.randoms(use_true_random=False))
def test_any_order_of_any_files_is_one_state(names: set[str], strays: set[str], chance: random.Random) -> None:
    """A list of names is the whole state: in any order, whatever part of it has arrived, and whoever else has files there."""
    listed = sorted(names)
    shuffled = [*listed, *strays]
    chance.shuffle(shuffled)

    found = read(listed)

    assert found == {key: turn for key, turn in read(shuffled).items() if key in found}
    assert all(Turn() == turn for key, turn in read(shuffled).items() if key not in found), "a stray says nothing"
    for key, turn in found.items():
        said = {name.split(".", 1)[1] for name in listed if name.startswith(key)}
        last = max(int(each.partition(".")[0]) for each in said)
        ended = {each.split(".")[1] for each in said if each.startswith(f"{last}.")} - {"claimed", "run", "cancel"}
        assert last == turn.number and (turn.status == RUNNING) == (last > 0 and not ended)
        assert last == 0 or turn.status == DONE or not ended & {"done", "same"}, "work that was done counts"
        assert turn.priority in {int(each.removeprefix("0.priority.")) for each in said if "priority" in each} | {0}


def test_what_was_begun_and_ended_is_read_back(states: States) -> None:
    """Each end as it was said, and the last turn is what counts."""
    ends = [
        Turn(1, FAILED, RUN, 3), Turn(2, CUT_OFF, LATER, 137), Turn(3, DONE, RUN, 0), Turn(4, CANCELED, None, None),
        Turn(5, DONE, RUN, None, skipped=True), Turn(6, QUEUED),
    ]  # fmt: skip
    found = []
    for end in ends:
        assert states.take("k", end.number, {"pid": end.number})
        states.end("k", end.number, end)
        found.append(States(states.folder).read()["k"])

    assert ends == found
    assert states.take("k", 7, {}) and Turn(7, RUNNING, idle=1) == states.read()["k"]
    states.begin("k", 7, RUN)
    states.cancel("k", 7)
    assert Turn(7, RUNNING, RUN, canceling=True, idle=1) == states.read()["k"]


# -- folders that were used apart


def test_two_copies_become_one_by_keeping_all_files(queue: Queue, tmp_path: Path) -> None:
    """B8: used on two machines and put together, no work is lost, no entry is half, and both see the same."""
    here, there = queue, Queue(queue.file, tmp_path / "there")
    taken(here).settle(DONE, RUN, 0)
    shutil.copytree(here.folder.folder, there.folder.folder)

    claims = [taken(here), taken(here), taken(here)]  # entries 2, 3 and 4
    claims[0].settle(DONE, "run-of-2", 0)
    claims[1].settle(FAILED, "run-of-3-here", 1)
    claims[2].settle(CUT_OFF, "run-of-4-here", 137)
    here.prefer(5, [6])
    claims = [taken(there), taken(there), taken(there)]  # the same
    claims[0].settle(CUT_OFF, "run-of-2-there", 137)
    claims[1].settle(DONE, "run-of-3", 0)
    claims[2].settle(FAILED, "run-of-4", 1)
    there.cancel([5])
    for source, target in ((here, there), (there, here)):
        shutil.copytree(source.folder.folder, target.folder.folder, dirs_exist_ok=True)

    def seen(queue: Queue) -> list[tuple[str, str | None, int]]:
        return [(state.status, state.run, state.priority) for state in queue.states()]

    assert seen(here) == seen(there) == [
        (DONE, RUN, 0), (DONE, "run-of-2", 0), (DONE, "run-of-3", 0), (FAILED, "run-of-4", 0), (CANCELED, None, 0),
        (QUEUED, None, 5),
    ]  # fmt: skip
    assert 6 == taken(here).entry.number


@pytest.mark.parametrize(
    "claim", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"pid": {}, "host": []}', None]
)
def test_a_damaged_claim_holds_its_entry_and_nothing_else(queue: Queue, claim: bytes | None) -> None:
    """Who has taken it cannot be told, so it is not guessed; the rest goes on, and `retry --lost` frees it."""
    entry = taken(queue).entry
    path = queue.folder.folder / f"{entry.key}.1.claimed"
    path.unlink()
    path.mkdir() if claim is None else path.write_bytes(claim)
    first = queue.states()[0]

    assert (RUNNING, True) == (first.status, first.is_elsewhere)
    assert 2 == taken(queue).entry.number
    assert 0 == queue.retry([QUEUED, CUT_OFF, FAILED, DONE, CANCELED], [1]) and 1 == queue.retry([], [1], lost=True)
    assert QUEUED == queue.states()[0].status and 1 == taken(queue).entry.number


# -- whose worker has gone


def claimed_by(queue: Queue, who: Mapping[str, Any]) -> Any:
    """The state of the first entry, taken by somebody else."""
    queue.folder.take(queue.entries()[0].key, 1, who)
    return queue.states()[0]


def gone() -> dict[str, Any]:
    """A process of this machine that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        who = {**alive.whereabouts(), **alive.identity(process.pid)}
        process.kill()
    return who


def test_who_has_ended_holds_nothing(queue: Queue) -> None:
    """A dead process, a later one with its number, a zombie: its entry is cut off, and comes before what has not begun."""
    assert CUT_OFF == claimed_by(queue, gone()).status
    reused = {**alive.whereabouts(), "token": "1"}
    queue.folder.take(queue.entries()[2].key, 1, reused)
    process = subprocess.Popen(["sleep", "60"])
    queue.folder.take(queue.entries()[4].key, 1, {**alive.whereabouts(), **alive.identity(process.pid)})

    assert [CUT_OFF, QUEUED, CUT_OFF, QUEUED, RUNNING, QUEUED] == statuses(queue)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert CUT_OFF == statuses(queue)[4]
    process.wait()
    assert [1, 3, 5, 2] == [taken(queue).entry.number for _ in range(4)]


def test_who_lives_keeps_what_it_has(queue: Queue) -> None:
    """As long as it lives, whoever asks; and what it says of itself can be seen."""
    queue = Queue(queue.file, queue.folder.folder, who={"gpu": "3"})
    claim = taken(queue)
    claim.begin(RUN)
    first = Queue(queue.file, queue.folder.folder).states()[0]

    assert (RUNNING, RUN, False) == (first.status, first.run, first.is_elsewhere)
    assert (os.getpid(), "3", {"lr": 0}) == tuple(first.holder[name] for name in ("pid", "gpu", "params"))
    assert 2 == taken(queue).entry.number


def test_a_machine_that_has_restarted_has_ended_all(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another boot of the same machine is proof; where it cannot be known to be the same machine, it is none."""
    monkeypatch.setattr(alive, "_machine", lambda: "0123456789abcdef")
    before = {**alive.whereabouts(), "boot": "an earlier one", "namespace": "pid:[1]"}

    assert CUT_OFF == claimed_by(queue, before).status
    monkeypatch.setattr(alive, "_machine", lambda: "")
    queue.folder.take(queue.entries()[1].key, 1, {**before, "machine": ""})
    second = queue.states()[1]
    assert (RUNNING, True) == (second.status, second.is_elsewhere)


@pytest.mark.parametrize(
    "where",
    [
        {"host": "elsewhere", "machine": "another", "boot": "another"},
        {"host": "elsewhere"},
        {"namespace": "pid:[4026530000]"},
        {"host": socket.gethostname(), "machine": "another", "boot": "another"},  # two machines, one name
    ],
    ids=["another machine", "a clone of it, asleep", "another container", "another of the same name"],
)
def test_who_is_elsewhere_is_not_judged(queue: Queue, where: dict[str, str]) -> None:
    """B8: its process has ended here, and nobody here can know of there: it runs, it stays, and it says so."""
    who = {**gone(), **({"boot": "another"} if where == {"host": "elsewhere"} else {}), **where}
    first = claimed_by(queue, who)

    assert (RUNNING, True) == (first.status, first.is_elsewhere)
    assert [2, 3, 4, 5, 6] == [taken(queue).entry.number for _ in range(5)] and queue.claim([QUEUED, CUT_OFF]) is None
    assert 1 == queue.retry([], lost=True) and 1 == taken(queue).entry.number


# -- what the user says


def test_what_has_ended_is_queued_again(queue: Queue) -> None:
    """By status, by number; what a worker holds stays, and what was done stays known until it is begun again."""
    for end in (DONE, FAILED, CUT_OFF):
        taken(queue, QUEUED).settle(end, RUN, 1)
    held = taken(queue, QUEUED)

    assert 1 == queue.retry([FAILED]) and [DONE, QUEUED, CUT_OFF, RUNNING, QUEUED, QUEUED] == statuses(queue)
    assert 0 == queue.retry([FAILED]) and 0 == queue.retry(STATUSES[:1], [1]) and 0 == queue.retry([DONE], [2])
    assert 1 == queue.retry([DONE], [1, 2]) and RUN == queue.states()[0].run
    assert 0 == queue.retry([CUT_OFF, FAILED, DONE], [4], lost=True) and RUNNING == queue.states()[3].status
    held.settle(DONE, LATER, 0)
    assert [QUEUED, QUEUED, CUT_OFF, DONE] == statuses(queue)[:4]


def canceled(queue: Queue, *numbers: list[int]) -> tuple[int, list[int]]:
    """How many never begin, and which are asked to end."""
    waiting, running = queue.cancel(*numbers)
    return waiting, [state.entry.number for state in running]


def test_who_says_something_of_an_entry_takes_no_turn_from_a_worker(queue: Queue, tmp_path: Path) -> None:
    """A worker takes it between the look and the word: then that is for one that runs."""
    worker = Queue(queue.file, queue.folder.folder)
    held = []

    class Late(States):
        """A worker is quicker than who has read this."""

        def read(self) -> dict[str, Turn]:
            found = super().read()
            if not held:
                held.append(taken(worker))
            return found

    queue.folder = Late(queue.folder.folder)
    assert (5, [1]) == canceled(queue) and held[0].is_canceled
    held[0].settle(DONE, RUN, 0)
    assert [DONE, *[CANCELED] * 5] == statuses(queue)
    held.clear()
    again = Queue(queue.file, queue.folder.folder)
    again.retry([CANCELED], [2])
    queue.folder = Late(queue.folder.folder)

    assert 4 == queue.retry([CANCELED, QUEUED]) and RUNNING == queue.states()[1].status
    assert taken(worker).entry.number != held[0].entry.number == 2


def test_what_gets_no_further_has_so_many_turns(queue: Queue) -> None:
    """In one run of the queue: others come then; where it gets further, or the queue is run again, it may begin again."""
    queue.begin("first")
    for further in (False, False, True, False, False, False):
        taken(queue).settle(CUT_OFF, RUN, 143, stuck=not further)
    second = taken(queue)
    assert (CUT_OFF, 2) == (queue.states()[0].status, second.entry.number)
    for number in range(3):
        queue.begin(f"run {number}")
        claim = taken(queue)
        assert 1 == claim.entry.number, "turns of other runs of the queue do not count"
        claim.settle(CUT_OFF, RUN, 143, stuck=True)


def test_who_dies_with_an_entry_takes_it_so_many_times(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: whoever takes it next may be killed by it, too."""
    found = []
    for number in range(6):
        worker = Queue(queue.file, queue.folder.folder, proofs=Proofs(is_gone=lambda holder: True), who={"n": number})
        worker.begin("one")
        found.append(taken(worker).entry.number)
    assert [1, 1, 1, 2, 2, 2] == found


def test_a_canceled_entry_whose_worker_has_gone_is_canceled(queue: Queue) -> None:
    """And not one that was cut off, which would begin again."""
    taken(queue).begin(RUN)
    queue.cancel([1])
    gone = Queue(queue.file, queue.folder.folder, proofs=Proofs(is_gone=lambda holder: True, fate=lambda run: CUT_OFF))
    done = Queue(queue.file, queue.folder.folder, proofs=Proofs(is_gone=lambda holder: True, fate=lambda run: DONE))

    assert (CANCELED, DONE) == (gone.states()[0].status, done.states()[0].status)


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is away for a moment: nothing is known, which is not that nothing has begun."""
    taken(queue)

    def away(path: object) -> list[str]:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "listdir", away)
    with pytest.raises(StorageFailed, match="Stale file handle"):
        queue.states()


def test_what_is_canceled_does_not_begin(queue: Queue) -> None:
    """What waits is taken out, what runs is asked to end; it can be queued again, and a cancel is for one turn."""
    running = taken(queue)
    assert (1, [1]) == canceled(queue, [1, 2]) and running.is_canceled
    assert (RUNNING, True) == (queue.states()[0].status, queue.states()[0].canceling)
    running.settle(CANCELED, RUN, 143)

    assert [CANCELED, CANCELED] == statuses(queue)[:2] and 3 == taken(queue).entry.number
    assert (0, []) == canceled(queue, [1, 2]) and 2 == queue.retry([CANCELED], [1, 2])
    again = taken(queue)
    assert (1, False) == (again.entry.number, again.is_canceled)
    assert (4, [1, 3]) == canceled(queue) and [RUNNING, CANCELED, RUNNING, *[CANCELED] * 3] == statuses(queue)


def test_what_is_preferred_comes_first(queue: Queue) -> None:
    """What was cut off, then the highest priority, then the order of the file; the last that was said counts."""
    taken(queue).settle(CUT_OFF, RUN, 137)
    assert 2 == queue.prefer(7, [5, 6]) and 1 == queue.prefer(-1, [2])
    assert 1 == queue.prefer(3, [5]) and 1 == queue.prefer(3, [5])

    assert [0, -1, 0, 0, 3, 7] == [state.priority for state in queue.states()]
    assert [1, 6, 5, 3, 4, 2] == [taken(queue).entry.number for _ in range(6)]


def test_what_nothing_came_of_is_as_before(queue: Queue) -> None:
    """A claim that is let go of: with what was known of the entry."""
    taken(queue).settle(FAILED, RUN, 3)
    claim = taken(queue, FAILED)
    claim.close()
    first = queue.states()[0]

    assert (FAILED, RUN, 3) == (first.status, first.run, first.exit_code)
    claim = taken(queue, FAILED)
    claim.settle(DONE, LATER, 0)
    claim.close()
    assert (DONE, LATER) == (queue.states()[0].status, queue.states()[0].run)


def test_what_was_done_before_is_done_and_may_be_wanted(queue: Queue) -> None:
    """An entry that was skipped is taken again only by who asks for those."""
    taken(queue).settle(DONE, RUN, None, skipped=True)
    taken(queue).settle(DONE, LATER, 0)

    assert [(DONE, True), (DONE, False)] == [(state.status, state.skipped) for state in queue.states()[:2]]
    assert 3 == taken(queue).entry.number and 1 == taken(queue, skipped=True).entry.number


def test_a_paused_queue_is_paused_for_all(queue: Queue) -> None:
    """Twice is once, and it goes on when it is told to."""
    other = Queue(queue.file, queue.folder.folder)
    queue.folder.pause()
    queue.folder.pause()
    assert other.folder.is_paused
    other.folder.resume()
    other.folder.resume()
    assert not queue.folder.is_paused


def test_the_fate_of_a_run_is_that_of_its_entry(queue: Queue) -> None:
    """Where its worker has gone after the end of the run and before it could say so: what the run is known as counts."""
    fates = {RUN: DONE, LATER: RUNNING, "lost": CUT_OFF, "bad": FAILED}
    for entry, run in zip(queue.entries(), fates, strict=False):
        queue.folder.take(entry.key, 1, gone())
        queue.folder.begin(entry.key, 1, run)
    knowing = Queue(queue.file, queue.folder.folder, proofs=Proofs(fate=fates.__getitem__))

    assert [DONE, RUNNING, CUT_OFF, FAILED, QUEUED, QUEUED] == statuses(knowing)
    assert [3, 5, 6] == [taken(knowing).entry.number for _ in range(3)] and knowing.claim([QUEUED, CUT_OFF]) is None
