"""What a running script is told from outside about its hyperparameters, and what it tells of those that it uses.

Without numb (no run folder in the environment) nothing was set, and nobody listens.
"""

from __future__ import annotations

import os
from typing import Any

from numb import layout
from numb.hp.occurrence import Level


def outside() -> dict[str, tuple[Level, Any]]:
    """The values that were set from outside, by their full names; the same in every process of the script."""
    where = os.environ.get(layout.RUN_DIR)
    if not where:
        return {}
    from numb.capture import session

    levels = {level.text: level for level in Level}
    order = session.order(where)
    known = order.get("levels") or {}
    return {
        name: (levels.get(known.get(name, ""), Level.QUEUE), value) for name, value in session.ordered(order).items()
    }


def fitted(name: str, default: Any) -> dict[str, Any]:
    """What was set of a hyperparameter and inside of it, of the type of its *default* where no source tells that."""
    from numb.capture import session

    where = os.environ.get(layout.RUN_DIR)
    if not where:
        return {}
    current = session.current(where)
    order = session.fitted(session.order(where), {name: default}) if current is None else current.fit({name: default})
    return {other: value for other, value in session.ordered(order).items() if f"{other}.".startswith(f"{name}.")}


def tell(name: str, value: Any, *, called: bool) -> None:
    """Make a value that was used part of the run's record; *called* where the script has asked for it in a call."""
    where = os.environ.get(layout.RUN_DIR)
    if not where:
        return
    from numb.capture import session

    current = session.current(where)
    if current is not None:
        current.hyperparameter(name, value, called)
    else:
        session.hyperparameter_of_child(where, name, value)
