"""The hyperparameters of a recorded script: what was set reaches it, and what it computes with is told.

A value that would be recorded and not be used, or used and not be recorded, ends the script before it does its work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from numb import record
from numb.errors import NumbError
from numb.hp import tree

if TYPE_CHECKING:
    from numb.capture.session import Session


class BadValue(TypeError):
    """A value of the user's that cannot be recorded, raised where it was given."""


class Values:
    """What the script has told of its hyperparameters, and what was put into it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.params: dict[str, Any] = {}
        self.injected: dict[str, Any] = {}
        self.asked_for: set[str] = set()  # by calls of a placeholder
        self.queued = False  # `numb_queue` was called
        self._changed: set[str] = set()  # what calls have returned different values for
        self._queue_file, self._queue_line = "", 0
        self._namespace: Mapping[str, Any] = {}

    def register(self, params: Mapping[str, Any], frame: FrameType) -> Mapping[str, Any]:
        """Register hyperparameters; returns them with what was set from outside."""
        params = self._with_outside(params)
        try:
            encoded = plain(params)
        except TypeError as error:
            raise BadValue(f"numb_param: {error}") from None
        values = {name: record.decode(value) for name, value in encoded.items()}
        self._check_injected(values, frame)
        self.params.update(values)
        self._session.event("param", values=encoded)
        self._session.consider_again()
        return params

    def _with_outside(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The script's dictionary with the values that it gets by no other way; in a training, those that are known to."""
        if not isinstance(params, Mapping):
            return params
        self._session.fit(params)
        ours = None if not self._session.training else set(self._session.order.params)
        known = {*self.injected, *self.asked_for}
        wanted = {
            name: value
            for name, value in self._session.order.values.items()
            if not known & {name, *tree.ancestors(name)} and (ours is None or ours & {name, *tree.ancestors(name)})
        }
        given = tree.delivered(params, wanted)
        if given and isinstance(params, MutableMapping):
            params.update(given)
        return {**params, **given} if given else params

    def _check_injected(self, registered: Mapping[str, Any], frame: FrameType) -> None:
        """What was injected and what is registered must be the same, or the record would lie."""
        file = frame.f_code.co_filename
        if self._session.training and not self.queued:
            wanted = self._session.order.values
            unread = [n for n in wanted if n in registered and n not in self.asked_for]
            if names := [n for n in unread if not _same(wanted[n], registered[n])]:
                self._session.stop(
                    f"{os.path.basename(file)}:{frame.f_lineno}: numb sets {', '.join(names)}, "
                    "but the script has not called numb_queue()",
                    "call numb_queue() below the hyperparameters"
                    + (", or numb_queue(vars(args)) below parse_args()" if "argparse" in sys.modules else ""),
                )
        for name in sorted(self.asked_for & registered.keys() & self.params.keys()):
            if _same(registered[name], self.params[name]):
                continue
            if self._session.training and name in self._session.order.values:
                self._session.stop(
                    f"{os.path.basename(file)}:{frame.f_lineno}: {name} was set to {self.params[name]!r}, but the script "
                    f"registered {registered[name]!r}",
                    f"give what is computed from {name} another name",
                )
            self._session.note(
                f"{name} was {self.params[name]!r} in a call, and {registered[name]!r} is what was registered"
            )
        for name, value in self.injected.items():
            if name in registered and not _same(registered[name], value):
                late = _overwritten(self._queue_file, self._queue_line, [name])
                place = late[0][0] if late else f"{os.path.basename(file)}:{frame.f_lineno}"
                there = (
                    "" if file == self._queue_file else f" ({os.path.basename(self._queue_file)}:{self._queue_line})"
                )
                self._session.stop(
                    f"{place}: {name} was set to {value!r} by numb, but the script registered {registered[name]!r}",
                    f"put numb_queue(){there} below the assignment of {name} and above its first use",
                )

    def use(self, name: str, value: Any, called: bool) -> None:
        """A manager has returned a value: it belongs to the run, as what `numb_param` registers does."""
        first = name not in self.asked_for
        if called:
            self.asked_for.add(name)
        try:
            encoded = record.encode(value, name, literals=True)
        except TypeError:  # whatever the script computes with: a function, an object
            if first:
                self._session.note(f"{name} is {_described(value)}, which a record cannot hold")
                self._session.event("hp", values={}, names=[name])
            return
        decoded = record.decode(encoded)
        if not (first and called) and name in self.params and _same(self.params[name], decoded):
            return
        if called and name in self.params and name not in self._changed and not _same(self.params[name], decoded):
            self._changed.add(name)
            self._session.note(f"{name} had several values in this run; the last one is recorded")
        self._note_other(name, decoded)
        self.params[name] = decoded
        self._session.event("hp", values={name: encoded})
        self._session.consider_again()

    def _note_other(self, name: str, value: Any) -> None:
        """`set_value` in the code goes before what was set from outside."""
        wanted = self._session.order.values
        if name in wanted and name not in self._changed and not _same(wanted[name], value):
            self._changed.add(name)
            self._session.note(
                f"{name} was set to {record.brief(wanted[name])}, and the script has used {record.brief(value)}"
            )

    def inject(self, namespace: Any, frame: FrameType) -> None:
        """Put the values of the order into the script's module-level names."""
        target = frame.f_globals if namespace is None else namespace
        _refuse_namespace(target, frame)
        self._session.fit(target)
        values = self._session.order.values
        file = frame.f_code.co_filename
        self.queued, self._queue_file, self._queue_line = True, file, frame.f_lineno
        if self._session.training and values:
            elsewhere = {*self._session.order.elsewhere, *self._session.order.params, *self.asked_for}
            self._refuse_late(file, {name: value for name, value in values.items() if name not in elsewhere})
            reached = {*tree.delivered(target, values), *elsewhere}
            absent = [name for name in values if not reached & {name, *tree.ancestors(name)}]
            if absent:
                self._session.stop(
                    f"{os.path.basename(file)}:{frame.f_lineno}: the script has no {absent[0]} above numb_queue()",
                    _meant(absent[0], target)
                    or f"assign {absent[0]} at module level above numb_queue(), or take it out of the queue",
                )
        given = self._session.order.deliverable(target)
        for name, value in self._session.order.deliverable(target).items():  # decoded anew: a list is the script's
            target[name] = value
        self.injected.update(given)
        self._namespace = target
        # What nobody has set is a hyperparameter too: another value in the source is another run.
        constants = self._constants(file, frame.f_globals, target) if self._session.training else {}
        together = {**constants, **record.encoded(given)}
        self.params.update({name: record.decode(value) for name, value in together.items()})
        alone = sorted(constants.keys() - given.keys()) if target is frame.f_globals else []
        self._session.event("queue", line=frame.f_lineno, values=together, constants=alone)

    def _constants(self, file: str, script: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
        """What *target* holds when it is given to `numb_queue`, as a record keeps it.

        Of a module that is what it assigns above the call; of a dictionary of the script's, such as `vars(args)`, all of it.
        """
        if target is script:
            assigned = {os.path.realpath(path): names for path, names in self._session.order.assigned.items()}
            names = assigned.get(os.path.realpath(file), [])
        else:
            names = [] if "__name__" in target else [name for name in target if isinstance(name, str)]
        found = {}
        for name in names:
            try:
                found[name] = record.encode(target[name], name, literals=True)
            except (KeyError, TypeError):
                continue  # deleted, or computed into something that cannot be kept
        return found

    def tell_overwritten(self, when: str) -> None:
        """Note what was set where `numb_queue` stands, and is something else by now."""
        for name, value in self.injected.items():
            now = self._namespace.get(name)
            if not _same_or_unlike(now, value):
                self._session.note(f"{name} was set to {record.brief(value)}, and was {record.brief(now)} {when}")
        self._namespace = {}

    def _refuse_late(self, file: str, values: Mapping[str, Any]) -> None:
        late = _overwritten(file, self._queue_line, list(values))
        if late:
            place, name = late[0]
            self._session.stop(
                f"{place}: {name} is assigned below numb_queue(), which would overwrite the value that is set",
                "put numb_queue() below the assignments of the hyperparameters and above their first use",
            )


def _refuse_namespace(target: Any, frame: FrameType) -> None:
    """Raise `BadValue` for what cannot be set in: no dictionary, and the variables of a function."""
    if not isinstance(target, MutableMapping):
        raise BadValue(f"numb_queue: takes a dictionary, such as vars(args), not a {type(target).__name__}")
    is_function = frame.f_code.co_name != "<module>" and target is not frame.f_globals
    if is_function and target and set(target) == set(frame.f_locals) and "__qualname__" not in target:
        raise BadValue(
            "numb_queue: the variables of a function cannot be set; give it a dictionary, or module-level names"
        )


def _same_or_unlike(now: Any, value: Any) -> bool:
    """Whether two values are the same, or of kinds that are not compared: a list that has become a tensor."""
    try:
        return _same(now, record.decode(record.encode(value)))
    except (TypeError, ValueError):
        return True


def _same(one: Any, other: Any) -> bool:
    return record.canonical(one) == record.canonical(other)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `TypeError` naming the place of what cannot be kept."""
    if not isinstance(values, Mapping):
        raise TypeError(f"takes a dictionary, not a {type(values).__name__}")
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"the key {name!r} is a {type(name).__name__}: keys must be strings")
    return {name: record.encode(value, name) for name, value in values.items()}


def _overwritten(file: str, line: int, names: list[str]) -> list[tuple[str, str]]:
    """The place (`train.py:7`) and the name of each assignment below *line* that would replace an injected value."""
    from numb.hp import source  # parses the script: only when something is injected

    try:
        found = source.overwritten(_path(file), line, names)
    except (NumbError, OSError):
        return []
    return [(f"{os.path.basename(file)}:{item.line}", item.name) for item in found]


def _described(value: Any) -> str:
    """What can be said of a value that cannot be kept: the name of a function or a class, the type of an object."""
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    module = getattr(value, "__module__", None) or type(value).__module__
    return f"{module}.{name}"


def _meant(name: str, namespace: Mapping[str, Any]) -> str | None:
    """A question whether a name of the script's, whose value could be a hyperparameter, was meant by *name*."""
    from numb.hp import source

    known = [n for n, value in namespace.items() if not n.startswith("_") and _is_plain(value)]
    nearest = source.nearest(name, known)
    return nearest and f"did you mean {nearest}?"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


def _path(file: str) -> Any:
    from pathlib import Path

    return Path(file)
