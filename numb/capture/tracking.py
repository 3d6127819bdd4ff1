"""What a script tracks: the states of its parts, taken together, and brought back together.

A part is anything with `state_dict` and `load_state_dict`, or a `torch.Generator`. The states of the random generators of
Python, NumPy and torch are a part of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from numb import record
from numb.capture import rng, weights
from numb.capture.restored import Restored
from numb.capture.weights import StateMismatch
from numb.layout import RunFolder
from numb.order import Order
from numb.store.objects import Objects

RANDOM = "random"  # the part that is always there

# What optimizers keep of a parameter in its own shape; step counts and what is factored or flat have others.
_OF_ITS_SHAPE = frozenset((
    "momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "grad_avg", "acc_delta", "sum",
    "ax", "prev", "step_size",
))  # fmt: skip


def check(name: str, part: Any) -> None:
    """Raise `TypeError` for what has no state to save, and `ValueError` for a name that is taken."""
    if name == RANDOM:
        raise ValueError(f"run.track: {RANDOM} is the part that numb adds; give yours another name")
    for pair in (("state_dict", "load_state_dict"), ("get_state", "set_state")):
        if all(callable(getattr(part, method, None)) for method in pair):
            return
    raise TypeError(f"run.track: {name} is a {type(part).__name__}, which has no state_dict and load_state_dict")


def states(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The state of each part and of the random generators, copied: nothing changes it while it is being written."""
    found = {name: _state(part) for name, part in parts.items()}
    return dict(weights.copied({**found, RANDOM: rng.taken()}))


def is_network(part: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(part, torch.nn.Module)


def _state(part: Any) -> Any:
    if is_network(part):
        return weights.plain_keys(part.state_dict())
    return part.state_dict() if hasattr(part, "state_dict") else part.get_state()


def beginning(folder: RunFolder) -> dict[str, Any]:
    """The state with which the order says to begin, by part. Raises what `weights.read` raises, and `OSError`."""
    return dict(weights.read(record.loads(folder.beginning.read_bytes()), Objects(folder.objects)))


def restore(
    parts: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    strict: bool = True,
    rename: Mapping[str, str] | None = None,
    only: str | None = None,
    random: bool = True,
) -> Restored:
    """Bring *parts* to the *state* that was taken of them; the arguments are those of `weights.load_into`.

    Raises `StateMismatch` where that is *strict* and something is missing, unexpected or of another shape: all of it is
    named, and nothing has been changed. With *random*, the generators go on where they were, last of all.
    """
    saved = {name: value for name, value in state.items() if name != RANDOM}
    absent = [name for name in parts if name not in saved]
    unknown = [name for name in saved if name not in parts]
    common = {name: part for name, part in parts.items() if name in saved}
    networks = {name: part for name, part in common.items() if is_network(part)}
    fits = {name: weights.fit(part, saved[name], rename, only) for name, part in networks.items()}
    if only is not None and networks and not any(fit.loaded for fit in fits.values()):
        raise StateMismatch(
            f"only={only!r:.80} finds nothing that fits {record.some(list(networks), 5)}", "run.restore()"
        )
    others = {name: part for name, part in common.items() if name not in networks}
    refused = {name: why for name, part in others.items() if (why := _refusal(part, saved[name]))}

    def named(entries: str) -> Iterator[str]:
        for name, fit in fits.items():
            yield from (f"{name}.{entry}" for entry in getattr(fit, entries))

    missing = (*absent, *named("not_in_checkpoint"))
    unexpected = (*unknown, *named("not_in_model"))
    different = (*named("mismatched"), *(f"{name} ({why})" for name, why in refused.items()))
    if strict and (missing or unexpected or different):
        lists = {"missing": missing, "unexpected": unexpected, "different": different}
        said = [f"{len(names)} {word}: {record.some(names, 5)}" for word, names in lists.items() if names]
        raise StateMismatch(
            f"the checkpoint does not fit what the script tracks: {'; '.join(said)}", "run.restore(strict=False)"
        )
    loaded = list(named("loaded"))
    for name, part in networks.items():
        weights.load_into(part, saved[name], strict=False, rename=rename, only=only)
    for name, part in others.items():
        if name in refused:
            continue
        _load(name, part, saved[name])
        loaded.append(name)
    if random and RANDOM in state:
        rng.put_back(state[RANDOM])
    return Restored(loaded=tuple(loaded), not_in_model=unexpected, not_in_checkpoint=missing, mismatched=different)


def _load(name: str, part: Any, state: Any) -> None:
    try:
        part.load_state_dict(state) if hasattr(part, "load_state_dict") else part.set_state(state)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise StateMismatch(f"{name} does not take the saved state: {error}", "run.restore(strict=False)") from error


def _refusal(part: Any, state: Any) -> str | None:
    """Why an optimizer cannot take a state, which it would tell only half way."""
    groups = getattr(part, "param_groups", None)
    if not isinstance(groups, list) or not isinstance(state, Mapping) or "param_groups" not in state:
        return None
    here, there = (
        [list(group["params"]) for group in groups],
        [list(group["params"]) for group in state["param_groups"]],
    )
    if (counts := list(map(len, here))) != (saved := list(map(len, there))):
        return f"groups of {counts} parameters, in the checkpoint of {saved}"
    known = state.get("state")
    for number, (parameter, key) in enumerate(zip(chain(*here), chain(*there), strict=True)):
        for name, kept in (known.get(key, {}) if isinstance(known, Mapping) else {}).items():
            if name in _OF_ITS_SHAPE and getattr(kept, "shape", parameter.shape) != parameter.shape:
                shapes = f"{tuple(parameter.shape)}, and its {name} in the checkpoint {tuple(kept.shape)}"
                return f"parameter {number} is {shapes}"
    return None


def restored_by_other(where: str, parts: Mapping[str, Any], **how: Any) -> Restored:
    """The same for a process that does not record, such as a further rank: with the random generators as they are."""
    folder = RunFolder(where)
    order = Order.known(folder)
    if not (order.resume or order.init_from):
        return Restored()
    return begun(parts, beginning(folder), order, random=False, **how)


def begun(parts: Mapping[str, Any], state: Mapping[str, Any], order: Order, *, random: bool, **how: Any) -> Restored:
    """Bring *parts* to what the *order* says: all of a run that goes on, the networks of one that begins with other weights."""
    if order.init_from:
        networks = {name: part for name, part in parts.items() if is_network(part)}
        meant = {name: found for name in networks if (found := meant_for(name, state, order, len(networks)))}
        return restore(networks, {name: state[found] for name, found in meant.items()}, random=False, **how)
    restored = restore(parts, state, random=random, **how)
    results = {name: record.decode(value) for name, value in order.resume.get("results", {}).items()}
    return replace(restored, step=int(order.resume.get("step", 0)), results=results)


def meant_for(name: str, state: Mapping[str, Any], order: Order, count: int = 1) -> str | None:
    """Which part of a saved state is for the network *name*, one of *count*: one of this name, or the only one."""
    networks = order.networks or dict.fromkeys(state, "")
    known = [part for part in networks if part in state]
    named = [part for part in known if name in (part, networks[part])]
    return named[0] if named else known[0] if len(known) == count == 1 else None
