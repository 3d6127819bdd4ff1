"""What a running script is told from outside about its hyperparameters, and what it tells of those that it uses.

Without numb (no run folder in the environment) nothing was set, and nobody listens.
"""

from __future__ import annotations

import os
from typing import Any

from numb import layout
from numb.hp.occurrence import Level
from numb.layout import RunFolder


def outside() -> dict[str, tuple[Level, Any]]:
    """The values that were set from outside, by their full names; the same in every process of the script."""
    where = os.environ.get(layout.RUN_DIR)
    if not where:
        return {}
    from numb.order import Order

    levels = {level.text: level for level in Level}
    order = Order.known(RunFolder(where))
    return {name: (levels.get(order.levels.get(name, ""), Level.QUEUE), value) for name, value in order.values.items()}


def fitted(name: str, default: Any) -> dict[str, Any]:
    """What was set of a hyperparameter and inside of it, of the type of its *default* where no source tells that."""
    where = os.environ.get(layout.RUN_DIR)
    if not where:
        return {}
    from numb.capture import session
    from numb.order import Order

    current = session.current(where)
    order = current.fit({name: default}) if current else Order.known(RunFolder(where)).fitted({name: default})
    return {other: value for other, value in order.values.items() if f"{other}.".startswith(f"{name}.")}


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
