"""How far a recorded training has come: the checkpoints that it keeps, and the state that it begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numb import record
from numb.capture import graph, tracking, weights
from numb.capture.checkpoints import Checkpoints
from numb.capture.restored import Restored
from numb.capture.values import BadValue, plain
from numb.errors import NumbError, StorageFailed, one_line
from numb.keep import Keep
from numb.record import Checkpoint
from numb.store.objects import Ref

if TYPE_CHECKING:
    from numb.capture.session import Session
    from numb.capture.watched import Watched


class Progress:
    """What the script asks to be kept of its state, and what is brought back of an earlier one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.has_restored = False  # something, so that the training does not begin anew
        self._has_lost = False  # a checkpoint
        self._lost: StorageFailed | None = None
        self._was_partial = False
        self._has_warned = False  # of a result to choose by

    # -- keeping

    @cached_property
    def checkpoints(self) -> Checkpoints:
        order = self._session.order
        known = map(record.checkpoint_from_json, order.resume.get("checkpoints", ()))
        return Checkpoints(
            self._session.folder.checkpoints,
            self._session.objects,
            Keep.of(order.keep),
            known,
            self._tell,
            self._failed,
            spare=bool(self._session.guard),
        )

    def checkpoint(self, parts: Mapping[str, Any], step: int, results: Mapping[str, Any]) -> None:
        """Copy the states of what is tracked, and have them written while the script goes on. Raises `BadValue`.

        In a strict run an earlier one that was lost for want of storage is raised.
        """
        step = (
            step if isinstance(step, bool) or not hasattr(step, "__index__") else step.__index__()
        )  # NumPy's and torch's
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise BadValue(f"run.checkpoint: step is {step!r:.40}, and should be a whole number from 0")
        try:
            values = plain(results)
        except TypeError as error:
            raise BadValue(f"run.checkpoint: {error}") from None
        if not parts:
            raise BadValue("run.checkpoint: nothing is tracked; run.track(model=net, opt=optimizer) says what to keep")
        if not self._session.training:
            return
        decoded = {name: record.decode(value) for name, value in values.items()}
        self._session.watch_over(decoded, "step", step)
        self._session.refuse_unrestored()
        self.checkpoints.wait()  # before the copy: two of them may be more than there is memory for
        if self._lost and self._session.order.strict:
            raise self._lost from None
        networks = {name: self._name_of(part) for name, part in parts.items() if tracking.is_network(part)}
        try:
            state = tracking.states(parts)
        except Exception as error:  # no memory, a state of the user's that raises: told as what fails in the thread
            self._failed(step, error)
            return
        best = Keep.of(self._session.order.keep).best
        if best and best not in decoded and not self._has_warned:
            self._has_warned = True
            self._session.warn(f"nmb.json keeps the best checkpoint by {best}, which run.checkpoint was not given")
        self.checkpoints.take(step, state, decoded, networks)

    def wait(self) -> None:
        """Wait until the last checkpoint is written, where there is one."""
        if "checkpoints" in self.__dict__:
            self.checkpoints.wait()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and drop what no rule keeps."""
        if "checkpoints" in self.__dict__:
            self.checkpoints.close()

    def forget_from(self, step: int) -> None:
        """Drop the checkpoints of a step and of those after it: what a guard has refused is in them."""
        if "checkpoints" in self.__dict__:
            self.checkpoints.forget_from(step)

    def need(self, refs: Iterable[Ref]) -> None:
        """Remember that these objects do not go with a checkpoint."""
        self.checkpoints.need(refs)

    def _tell(self, what: Checkpoint | int) -> None:
        """Raises where that cannot be written down: then nothing may be dropped for it."""
        if isinstance(what, int):
            self._session.tell("dropped", step=what)
            return
        self._session.tell("checkpoint", **record.checkpoint_to_json(what))
        if what.partial and not self._was_partial:
            self._was_partial = True
            self._session.warn(f"the checkpoint of step {what.step} is not whole: {what.partial}")

    def _failed(self, step: int, error: Exception) -> None:
        is_first = not self._has_lost
        self._has_lost = True
        if isinstance(error, StorageFailed):
            self._lost = error
        self._session.event("lost", step=step, why=str(error) if isinstance(error, NumbError) else one_line(error))
        if is_first:  # of the others the status tells
            self._session.trouble("checkpoint", error)

    def _name_of(self, part: Any) -> str:
        module = graph.unwrap(part)
        return next((watched.name for watched in self._session.watched if watched.module is module), "")

    # -- beginning with

    def restore(
        self, parts: Mapping[str, Any], strict: bool, rename: Mapping[str, str] | None, only: str | None
    ) -> Restored | None:
        """Bring what is tracked to the state that the order names; the script ends where that does not fit."""
        session = self._session
        if not session.training or not (session.order.resume or session.order.init_from):
            return None
        try:
            state = tracking.beginning(session.folder)
            how = {"strict": strict, "rename": rename, "only": only}
            found = tracking.begun(parts, state, session.order, random=True, **how)
        except (NumbError, OSError, ValueError) as error:
            session.stop(str(error), getattr(error, "hint", None))
        if session.order.init_from and not found.loaded:
            misfits = record.some([*found.mismatched, *found.not_in_model], 5)
            session.stop(
                f"nothing of {session.order.init_from} fits what the script tracks: {misfits}",
                f"numb show {session.order.init_from}",
            )
        self.has_restored = True
        session.event("restored", step=found.step, loaded=len(found.loaded))
        for what, names in (
            ("not in the checkpoint", found.not_in_checkpoint),
            ("not in what is tracked", found.not_in_model),
            ("of another shape", found.mismatched),
        ):
            if names:
                session.note(f"restored without what is {what}: {record.some(names)}")
        return found

    def begin_with(self, watched: Watched) -> None:
        """Fill a network that has just been built with the weights that the training is to begin with, as far as they fit."""
        session = self._session
        try:
            state = tracking.beginning(session.folder)
            name = tracking.meant_for(watched.name, state, session.order, len(session.watched))
            if name is None:
                session.note(f"{session.order.init_from} has no weights for {watched.name}")
                return
            fit = weights.load_into(watched.live(), state[name], strict=False)
        except (NumbError, OSError, ValueError) as error:
            session.stop(str(error), getattr(error, "hint", None))
        if not fit.loaded:
            session.stop(
                f"nothing of {session.order.init_from} fits {watched.name}: {fit}",
                f"numb show {session.order.init_from}",
            )
        self.has_restored = True
        if not fit.is_whole:
            session.warn(f"{watched.name} begins with {len(fit.loaded)} entries of {session.order.init_from}; {fit}")
