"""The search for good hyperparameters: what to try next, told what came of those tried before, and which runs are not worth it.

Optuna proposes, by a Parzen estimator (TPE). Its study is made anew from what is told each time and lives in memory only: the
records are the truth, and the same seed and the same told runs give the same proposal. The rule that ends a run early, the
median of the others, is a table of numbers that the half inside of a script can hold without Optuna.
"""

from __future__ import annotations

import contextlib
import math
import random
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from types import ModuleType
from typing import TYPE_CHECKING, Any

from numb import grid, record
from numb.errors import NotPossible, Usage, printable
from numb.grid import Distribution
from numb.guard import is_worse
from numb.hp import coerce

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

__all__ = ["Aim", "Pruning", "Space", "Told", "is_worse", "limits", "propose"]

TPE, RANDOM = "tpe", "random"
SAMPLERS = (TPE, RANDOM)

_STARTUP = 10  # runs with a value before TPE takes over from chance
_ASKED = 10  # times that Optuna may propose what was tried before
_DRAWS = 100_000  # that were all tried before: what is left is too rare
_MOST = 200  # limits of one series

Value = float | str  # of a hyperparameter: a number, or one of the choices as it was typed
Limits = tuple[tuple[float, float | None], ...]  # as `guard.is_worse` takes them


# What is searched


@dataclass(frozen=True, slots=True)
class Space:
    """What each hyperparameter is drawn from, or the one value that it has, both as they were typed."""

    texts: Mapping[str, str]
    drawn: Mapping[str, Distribution]

    @classmethod
    def of(cls, words: Iterable[str]) -> Space:
        """The space that `NAME=DISTRIBUTION` and `NAME=VALUE` say. Raises `Usage`."""
        texts: dict[str, str] = {}
        known: dict[str, Distribution] = {}
        for word, text, each in grid.parts(list(words)):
            name = word.strip()
            if not name or name in texts:
                raise Usage(
                    f"{printable(name)} is given twice" if name else f"={printable(text)} has no name", _EXAMPLE
                )
            if "{{" in text:
                raise Usage(f"{printable(name)} is a list, and a search takes none", f"'{name}=choice(A,B)'")
            texts[name] = text
            if each is not None:
                known[name] = _searchable(name, each)
        if not known:
            raise Usage(f"there is nothing to search{grid.like_one(texts.values())}", _EXAMPLE)
        return cls(texts, known)

    def to_json(self) -> dict[str, str]:
        """Names and texts."""
        return dict(self.texts)

    @classmethod
    def of_json(cls, plain: Any) -> Space:
        """The inverse. Raises `ValueError` for anything else."""
        if not isinstance(plain, dict) or not all(isinstance(text, str) for text in plain.values()):
            raise ValueError("no space of hyperparameters")
        try:
            return cls.of(f"{name}={text}" for name, text in plain.items())
        except Usage as error:
            raise ValueError(f"no space of hyperparameters: {error}") from error

    @property
    def size(self) -> float:
        """How many combinations there are; infinite where a number may be any."""
        return math.prod(map(_size, self.drawn.values()))

    def corners(self) -> list[dict[str, str]]:
        """The lowest values, the highest, and every choice: what does not fit a script is found before anything is drawn."""
        ends = {name: _ends(each) for name, each in self.drawn.items()}
        rows = zip_longest(*ends.values())
        return [self._texts({name: v or ends[name][-1] for name, v in zip(ends, row, strict=True)}) for row in rows]

    def point(self, params: Mapping[str, Any]) -> dict[str, Value] | None:
        """What *params* have of it; None where they are outside of it, or have another value than the one that is given."""
        there = {**record.flat(params), **params}
        if any(name not in there for name in self.texts):
            return None
        if any(_choice((text,), there[name]) is None for name, text in self.texts.items() if name not in self.drawn):
            return None
        found = {name: _inside(each, there[name]) for name, each in self.drawn.items()}
        return {name: v for name, v in found.items() if v is not None} if None not in found.values() else None

    def proposal(self, point: Mapping[str, Value]) -> dict[str, str]:
        """A point as texts for `NAME=VALUE`, with the values that are given."""
        return self._texts({name: v if isinstance(v, str) else repr(v) for name, v in point.items()})

    def _texts(self, values: Mapping[str, str]) -> dict[str, str]:
        return {name: values.get(name, text) for name, text in self.texts.items()}


_EXAMPLE = "'lr=loguniform(1e-5,1e-1)' 'opt=choice(sgd,adam)' wd=0"


def _searchable(name: str, each: Distribution) -> Distribution:
    if each.kind == "normal":
        raise Usage(
            f"{printable(name)}: normal has no ends, and a search needs them",
            "uniform, loguniform, randint, lograndint or choice, such as 'x=uniform(-3,3)'",
        )
    if not math.isfinite(each.high - each.low):
        raise Usage(f"{printable(name)}: there is too much between {each.low} and {each.high}", _EXAMPLE)
    return each


def _ends(each: Distribution) -> tuple[str, ...]:
    if each.kind == "choice":
        return each.choices
    return (repr(_as_number(each, each.low)), repr(_as_number(each, each.high)))


def _size(each: Distribution) -> float:
    if each.kind == "choice":
        return len(set(each.choices))
    if each.kind.endswith("randint"):
        return each.high - each.low + 1
    return 1 if each.low == each.high else math.inf


def _as_number(each: Distribution, value: float) -> float:
    return int(value) if each.kind.endswith("randint") else value


def _inside(each: Distribution, value: Any) -> Value | None:
    """A recorded value as one of the distribution; None for one that it would not draw."""
    if each.kind == "choice":
        return _choice(each.choices, value)
    number = _finite(value)
    if number is None or not each.low <= number <= each.high:
        return None
    return _as_number(each, number) if _as_number(each, number) == number else None


def _choice(choices: Sequence[str], value: Any) -> str | None:
    """The first of the texts that says *value*; None where none does."""
    return next((text for text in choices if _says(text, value)), None)


def _says(text: str, value: Any) -> bool:
    try:
        found = coerce.from_text(text, value)
    except coerce.Unfit:
        return False
    return found is value or record.canonical(found) == record.canonical(value)


def _finite(value: Any) -> float | None:
    """A number, as a float; None for what is none, and for what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


# What is wanted


@dataclass(frozen=True, slots=True)
class Pruning:
    """The series by which the median rule ends runs, whether it is good where it is high, and from where on it ends them."""

    series: str
    highest: bool
    warmup: float = 0  # the step before which no run is ended
    startup: int = 5  # others that have come so far, without which no run is ended

    def __post_init__(self) -> None:
        if (
            not self.series
            or type(self.highest) is not bool
            or _finite(self.warmup) is None
            or type(self.startup) is not int
        ):
            raise ValueError(f"no rule that ends runs: {self}")


@dataclass(frozen=True, slots=True)
class Aim:
    """What is looked at, as `numb best --by` names it, whether it is good where it is high, and how it is searched for."""

    by: str
    highest: bool
    count: int  # of proposals
    seed: int = 0
    sampler: str = TPE
    pruning: Pruning | None = None

    def __post_init__(self) -> None:
        are_numbers = type(self.count) is int and type(self.seed) is int
        if not self.by or type(self.highest) is not bool or not are_numbers or self.sampler not in SAMPLERS:
            raise ValueError(f"no aim of a search: {self}")

    def to_json(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)

    @classmethod
    def of_json(cls, plain: Any) -> Aim:
        """The inverse; unknown fields are ignored. Raises `ValueError` for anything else."""
        try:
            pruning = None if plain.get("pruning") is None else Pruning(**_known(Pruning, plain["pruning"]))
            return cls(**{**_known(cls, plain), "pruning": pruning})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no aim of a search: {error}") from error


def _known(cls: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: plain[each.name] for each in fields(cls) if each.name in plain}


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a run: its value, or None where it has failed; one that is NaN or infinite is as one that has failed.

    Where the median rule has ended it, *pruned* is the step, and the value is its best of the series that the rule looks at.
    """

    params: Mapping[str, Any]
    value: float | None = None
    pruned: float | None = None


# What to try next


def propose(
    space: Space, aim: Aim, told: Sequence[Told], pending: Sequence[Mapping[str, Any]] = ()
) -> dict[str, str] | None:
    """What to try next, by name, as the texts of `NAME=VALUE`; None where there is nothing in the space that was not tried.

    *told* are the runs that have ended, oldest first, and *pending* the hyperparameters of what has been proposed or begun and
    has not ended. What is outside of the space counts for nothing. Places that are pending, and those that have failed, are
    kept away from. Raises `NotPossible` where Optuna is not installed.
    """
    past = [(point, each) for each in told if (point := space.point(each.params)) is not None]
    begun = [point for params in pending if (point := space.point(params)) is not None]
    tried = {tuple(point.values()) for point in [*(point for point, _ in past), *begun]}
    if len(tried) >= space.size:
        return None
    seed = random.Random(f"{aim.seed} {len(told) + len(pending)}").getrandbits(32)  # another one for each proposal
    for point in _candidates(space, aim, past, begun, seed):
        if tuple(point.values()) not in tried:
            return space.proposal(point)
    return None


_Past = Sequence[tuple[Mapping[str, Value], Told]]


def _candidates(
    space: Space, aim: Aim, past: _Past, begun: Sequence[Mapping[str, Value]], seed: int
) -> Iterator[dict[str, Value]]:
    if aim.sampler == TPE:
        yield from _asked(space, aim, past, begun, seed)
    dice = random.Random(seed)
    for _ in range(_DRAWS):
        yield {name: _proposed(each, each.draw(dice)) for name, each in space.drawn.items()}


def _proposed(each: Distribution, value: Any) -> Value:
    """A value as it is proposed: a float with six digits, or with more where the ends are so close that these tell little."""
    if each.kind == "choice":
        return str(value)
    if each.kind.endswith("randint"):
        return int(value)
    number, close = float(value), (each.high - each.low) * 1e-6
    rounded = (float(f"{number:.{digits}g}") for digits in range(6, 17))
    return next((short for short in rounded if abs(short - number) <= close and each.low <= short <= each.high), number)


# Optuna


def _asked(
    space: Space, aim: Aim, past: _Past, begun: Sequence[Mapping[str, Value]], seed: int
) -> Iterator[dict[str, Value]]:
    """What Optuna proposes. To its study, a proposal that was not taken is one that is running, and so the next is another."""
    optuna = _optuna()
    with _quiet(optuna):
        study = _study(optuna, space, aim, past, begun, seed)
    kinds = _distributions(optuna, space)
    for _ in range(_ASKED):
        with _quiet(optuna):
            found = study.ask(kinds).params
        yield {name: _proposed(each, found[name]) for name, each in space.drawn.items()}


def _optuna() -> ModuleType:
    """Optuna. Raises `NotPossible` where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise NotPossible("Optuna, which searches, is not installed", "pip install 'numb[search]'") from None
    return optuna


@contextlib.contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Keep Optuna from printing and warning, here only: a notebook may use it for itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Optuna 4 calls experimental, and of what NumPy divides by
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(
    optuna: ModuleType, space: Space, aim: Aim, past: _Past, begun: Sequence[Mapping[str, Value]], seed: int
) -> Study:
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=_STARTUP, multivariate=True, constant_liar=True
    )  # the last two are what Optuna 5 does by itself
    study: Study = optuna.create_study(direction="maximize" if aim.highest else "minimize", sampler=sampler)
    kinds = _distributions(optuna, space)
    study.add_trials([_ended(optuna, aim, kinds, point, each) for point, each in past])
    study.add_trials([_running(optuna, kinds, point) for point in begun])
    return study


def _distributions(optuna: ModuleType, space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(optuna.distributions, each) for name, each in space.drawn.items()}


def _distribution(kinds: ModuleType, each: Distribution) -> BaseDistribution:
    found: BaseDistribution
    match each.kind:
        case "choice":
            found = kinds.CategoricalDistribution(tuple(dict.fromkeys(each.choices)))
        case "randint" | "lograndint":
            found = kinds.IntDistribution(int(each.low), int(each.high), log=each.kind.startswith("log"))
        case _:
            found = kinds.FloatDistribution(each.low, each.high, log=each.kind.startswith("log"))
    return found


def _ended(
    optuna: ModuleType, aim: Aim, kinds: dict[str, BaseDistribution], point: Mapping[str, Value], each: Told
) -> FrozenTrial:
    value = _finite(each.value)
    if each.pruned is not None:
        last = math.nan if value is None or aim.pruning is None else value
        sign = -1 if aim.pruning is not None and aim.pruning.highest != aim.highest else 1  # the series may be a loss
        return _trial(optuna, kinds, point, optuna.trial.TrialState.PRUNED, seen={int(each.pruned): sign * last})
    if value is None:  # Optuna forgets what has failed; what is running it keeps away from, and never takes for good
        return _running(optuna, kinds, point)
    return _trial(optuna, kinds, point, optuna.trial.TrialState.COMPLETE, value)


def _running(optuna: ModuleType, kinds: dict[str, BaseDistribution], point: Mapping[str, Value]) -> FrozenTrial:
    return _trial(optuna, kinds, point, optuna.trial.TrialState.RUNNING)


def _trial(
    optuna: ModuleType,
    kinds: dict[str, BaseDistribution],
    point: Mapping[str, Value],
    state: Any,
    value: float | None = None,
    seen: Mapping[int, float] | None = None,
) -> FrozenTrial:
    trial: FrozenTrial = optuna.trial.create_trial(
        state=state, value=value, params=dict(point), distributions=kinds, intermediate_values=dict(seen or {})
    )
    return trial


# Which runs are not worth it


def limits(
    others: Sequence[Sequence[tuple[float, float]]], highest: bool, warmup: float = 0, startup: int = 5
) -> Limits:
    """By step, the median of the best that the *others* had by then: a run whose own best is worse there is not worth it.

    Each of the others is its series as pairs of step and value. Of those that have ended before a step none counts there, and
    where fewer than *startup* count there is no limit. What is NaN or infinite is passed over.
    """
    from statistics import median  # 14 ms

    curves = [curve for rows in others if (curve := _bests(rows, highest))]
    found: list[tuple[float, float | None]] = []
    before = None
    for step in _thinned(sorted({step for rows in others for step, _ in rows if step >= warmup})):
        reached = [curve for curve in curves if curve[0][0] <= step <= curve[-1][0]]
        bests = [curve[bisect_right(curve, step, key=_step) - 1][1] for curve in reached]
        limit = median(bests) if len(bests) >= max(startup, 1) else None
        if limit != before:
            found.append((step, limit))
        before = limit
    return tuple(found)


def _bests(rows: Sequence[tuple[float, float]], highest: bool) -> list[tuple[float, float]]:
    """The best by each step, where there is a new one, and at the first and the last step."""
    found: list[tuple[float, float]] = []
    best: float | None = None
    pairs = sorted((step, value) for step, value in rows if math.isfinite(value))
    for step, value in pairs:
        if best is None or (value > best if highest else value < best):
            best = value
            found.append((step, best))
    return [*found, (pairs[-1][0], best)] if best is not None else []


def _step(pair: tuple[float, Any]) -> float:
    return pair[0]


def _thinned(steps: Sequence[float]) -> Sequence[float]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(steps) <= _MOST:
        return steps
    return [steps[at * (len(steps) - 1) // (_MOST - 1)] for at in range(_MOST)]
