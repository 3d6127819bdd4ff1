"""What the launcher tells a script when a run begins: the file `order.json` in its folder, which both halves read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numb import record
from numb.errors import HyperparameterError
from numb.hp import tree
from numb.layout import RunFolder

ENVIRONMENT = "environment"  # the level at which names may be in capitals


@dataclass(frozen=True, slots=True)
class Order:
    """The run, and the hyperparameters that were set from outside: their values, as a record keeps them, by full names."""

    id: str = ""
    mode: str = ""  # record.TRAIN or record.TRIAL
    inject: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)  # at which each was set, in words
    origins: Mapping[str, str] = field(default_factory=dict)  # by what: "lr=0.1", "base.yaml:3"
    untyped: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # of what type only the script knows: text, limits
    elsewhere: Sequence[str] = ()  # what calls ask for, or `numb_param` gives back: nothing that a module calls so
    params: Sequence[str] = ()  # what only `numb_param` gives the script
    assigned: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by file, what it assigns above `numb_queue()`
    launched: Mapping[str, Any] = field(default_factory=dict)  # the surroundings, for the record
    resume: Mapping[str, Any] = field(default_factory=dict)  # the checkpoint at which the training goes on
    init_from: str = ""  # the run with whose weights it begins, and the step of its checkpoint: ID@50
    networks: Mapping[str, str] = field(default_factory=dict)  # of that state, by part, the network's name
    keep: Mapping[str, Any] = field(default_factory=dict)  # which checkpoints stay
    strict: bool = False  # rather no training than one that is not recorded
    time_limit: float = 0.0  # seconds, after which it is asked to stop; 0: none
    save_every: float = 0.0  # seconds between two checkpoints that it is asked for; 0: not said
    stop_on: Sequence[str] = ()  # rules of `guard` that end it
    prune: Mapping[str, Any] = field(
        default_factory=dict
    )  # the rule of `guard.Median` that ends it, as that is told it
    callbacks: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by event, the names of what is called then
    own: bool = False  # the process that the run is of has begun it itself, and there is no launcher

    @classmethod
    def read(cls, folder: RunFolder) -> Order:
        """The order in a run's folder. Raises `OSError`, and `ValueError` for what is none."""
        found = record.loads(folder.order.read_bytes())
        empty = cls()
        known = {each.name: getattr(empty, each.name) for each in dataclasses.fields(cls)}
        for name, value in known.items():
            wanted = (
                (list, tuple) if isinstance(value, tuple) else (int, float) if type(value) is float else type(value)
            )
            if not isinstance(found.get(name, value), wanted):
                raise ValueError(f"{name} of {folder.order} is a {type(found[name]).__name__}")
        return cls(**{name: value for name, value in found.items() if name in known})

    @classmethod
    def known(cls, folder: RunFolder) -> Order:
        """The same, and an empty one where that cannot be read."""
        try:
            return cls.read(folder)
        except (OSError, ValueError):
            return cls()

    def to_json(self) -> str:
        return record.dumps({each.name: getattr(self, each.name) for each in dataclasses.fields(self)})

    @property
    def values(self) -> dict[str, Any]:
        """What was set, by name, decoded anew: a list is the caller's."""
        return {name: record.decode(value) for name, value in self.inject.items()}

    def deliverable(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """What `numb_queue` sets in *target*: in a module nothing that a call or `numb_param` gives, whatever has its name."""
        found = tree.delivered(target, self.values)
        return {name: value for name, value in found.items() if "__name__" not in target or name not in self.elsewhere}

    def fitted(self, target: Mapping[str, Any]) -> Order:
        """The same with values of the types that *target* has, where the source did not tell them.

        Raises `HyperparameterError` for what does not fit, and for a key that a dictionary in there does not have.
        """
        if not self.untyped:
            return self
        order = self._spelled(target)
        known = {name: value for name in order.untyped for value in tree.inside(target, name)}
        for name in order.untyped.keys() - known.keys():
            _refuse_strange_key(name, target)
        fitting = {name: order._fitting(name, value) for name, value in known.items()}
        rest = {name: how for name, how in order.untyped.items() if name not in known}
        return dataclasses.replace(order, inject={**order.inject, **fitting}, untyped=rest)

    def _fitting(self, name: str, default: Any) -> Any:
        from numb.hp import coerce

        text, limits = self.untyped[name]["text"], record.decode(self.untyped[name]["limits"])
        try:
            if text is None:
                value = coerce.from_value(record.decode(self.inject[name]), default, limits)
            else:
                value = _of_text(text, default, limits)
            coerce.check(value, limits, default)
        except coerce.Unfit as error:
            raise HyperparameterError(f"{name if text is None else f'{name}={text}'}: {error}", "numb hp") from None
        return record.encode(value, name, literals=True)

    def _spelled(self, target: Mapping[str, Any]) -> Order:
        """The same with names of environment variables, which are often in capitals, as *target* has them."""
        meant: dict[str, str] = {}
        for name in self.untyped:
            if self.levels.get(name) == ENVIRONMENT and not tree.inside(target, name):
                near = [known for known in target if isinstance(known, str) and known.casefold() == name.casefold()]
                meant.update({name: near[0]} if len(near) == 1 else {})

        if not meant:
            return self

        def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
            return {meant.get(name, name): value for name, value in values.items()}

        return dataclasses.replace(
            self,
            inject=renamed(self.inject),
            levels=renamed(self.levels),
            origins=renamed(self.origins),
            untyped=renamed(self.untyped),
        )


@dataclass(frozen=True, slots=True)
class Asking:
    """What a training is asked for while it runs, in seconds; 0 is never. And by what it ends itself: rules of `guard`."""

    time_limit: float = 0.0
    save_every: float = 0.0
    stop_on: tuple[str, ...] | None = None  # besides those of `nmb.json`; nothing at all where it is empty
    prune: Mapping[str, Any] = field(default_factory=dict)  # by which runs it ends itself where others were better

    def told(self, strict: bool, always: tuple[str, ...]) -> dict[str, Any]:
        """As fields of an order, with the rules that *always* hold where it is not said that none does."""
        rules = () if self.stop_on == () else (*always, *(self.stop_on or ()))
        asked = {"time_limit": self.time_limit, "save_every": self.save_every, "stop_on": rules, "prune": self.prune}
        return {**asked, "strict": strict}


NOTHING_ASKED = Asking()


def _of_text(text: str, default: Any, limits: Mapping[str, Any]) -> Any:
    """A text as a value of the type that a running script has; its 0 may stand for any number."""
    from numb.hp import coerce

    try:
        return coerce.from_text(text, default, limits)
    except coerce.Unfit:
        if type(default) is int and default == 0 and isinstance(number := coerce.parsed(text), float):
            return number
        raise


def _refuse_strange_key(name: str, target: Mapping[str, Any]) -> None:
    """A key that is not in the dictionary that is there is mistyped, unless it describes an object or holds nothing yet."""
    for above in tree.ancestors(name):
        for here in tree.inside(target, above):
            if isinstance(here, Mapping) and here and tree.BUILD not in here:
                from numb.hp import source

                key = name[len(above) + 1 :].partition(".")[0]
                near = source.nearest(key, [each for each in here if isinstance(each, str)])
                hint = f"did you mean {above}.{near}?" if near else f"it has {record.some(list(map(str, here)))}"
                raise HyperparameterError(f"{above} has no {key}", hint)
            return
