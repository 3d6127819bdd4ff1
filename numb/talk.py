"""What a command and its caller tell each other: what is said and asked while it runs, and how it ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from numb import record
from numb.errors import NumbError
from numb.record import Run, Said

if TYPE_CHECKING:
    from numb.inflight import InFlight

SILENCE = Said()


class Redo(Enum):
    """What to do when the same architecture was trained with the same hyperparameters before."""

    ASK = "ask"
    AGAIN = "again"
    SKIP = "skip"


class Talk(Protocol):
    """How a command speaks while it runs. A notebook needs none of it."""

    def say(self, line: str) -> None:
        """Tell the user something that matters."""

    def again(self, earlier: Run, changed: list[str] | None) -> bool | None:
        """Ask whether to train again; *changed* are the files that differ since. None: nobody is there to answer."""

    def choose(self, rows: Sequence[Row]) -> Run | None:
        """Ask which of these runs to trial. None: nobody is there to answer."""

    def progress(self, done: int, total: int) -> None:
        """Show how many bytes of how many have been transferred."""


class Silent:
    """A `Talk` for where nobody listens."""

    def say(self, line: str) -> None:
        pass

    def again(self, earlier: Run, changed: list[str] | None) -> bool | None:
        return None

    def choose(self, rows: Sequence[Row]) -> Run | None:
        return None

    def progress(self, done: int, total: int) -> None:
        pass


@dataclass
class Answers:
    """What the launcher knows when the script asks, and what it decided."""

    decide: Callable[[dict[str, Any], InFlight], dict[str, Any]] = lambda question, flight: {}
    stopped: bool = False
    refusal: NumbError | None = None
    same: Run | None = None
    restart: Run | None = None
    trialed: Run | None = None
    pending: list[Run] = field(default_factory=list)
    count: int = 0  # of the runs that were to be trialed


@dataclass(frozen=True, slots=True)
class Ended:
    """How a launch ended: with a run that was kept, or with the reason why none was."""

    exit_code: int
    run: Run | None = None
    error: NumbError | None = None
    same: Run | None = None  # the earlier run that made this one unnecessary
    changed: Sequence[str] | None = None  # the files in which the code differs from that one's; None: not known
    command: Sequence[str] = ()  # of that one, where it was another: arguments are no hyperparameters
    signalled: Sequence[int] = ()  # by which numb itself was asked to end, and has told the script
    late: Sequence[int] = ()  # those that came when the script had ended already

    @property
    def by_signal(self) -> int | None:
        """The signal after which numb is to end: SIGUSR1 announces an end, too, and SIGUSR2 is for the script only."""
        return next((each for each in (*self.signalled, *self.late) if each != signal.SIGUSR2), None)

    @property
    def is_told(self) -> bool:
        """Whether the script was told that it is to end."""
        return any(each != signal.SIGUSR2 for each in self.signalled)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a listing: a run, its results (its own, those of its newest trial, and what came later), and its trials."""

    run: Run
    results: Mapping[str, Any]
    trials: tuple[Run, ...] = ()
    orphaned: int | None = None  # the pid of a script whose launcher has died
    lost: bool = False  # git does not have its commit any more
    said: Said = SILENCE  # what was said about it afterwards

    @classmethod
    def of(cls, run: Run, trials: Sequence[Run], remarks: Sequence[Run] = (), *, lost: bool = False) -> Row:
        """The row of a run that was evaluated by *trials*, and about which *remarks* were made, both oldest first."""
        said = Said.of(remarks)
        return cls(run, record.results_of(run, trials, said), tuple(trials), lost=lost, said=said)


@dataclass(frozen=True, slots=True)
class Reverted:
    """What `revert` did: the commit that holds what was there before, and the files that it changed."""

    saved: str
    changed: tuple[str, ...]
