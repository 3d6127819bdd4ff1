"""`numb trial`: which runs the user's trial script is to evaluate, and the weights that it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numb import atomic, record
from numb.capture.manifest import Manifest
from numb.errors import ObjectMissing, Refused
from numb.hp.settings import elsewhere
from numb.hp.tree import ancestors
from numb.inflight import InFlight, Told
from numb.order import Order
from numb.record import TRIAL, Run
from numb.talk import Answers, Ended, Row

if TYPE_CHECKING:
    from numb.hp.table import Table
    from numb.project import Project


class Trials:
    """Launches the trial command of *project*, or one that has a *name*, with *arguments* after it."""

    def __init__(self, project: Project, arguments: Sequence[str], message: str, name: str | None = None) -> None:
        self.project, self.arguments, self.message, self.name = project, arguments, message, name
        self.index, self.say = project.index, project.talk.say

    def of(self, run: Run) -> Ended:
        """Evaluate the weights of *run*."""
        answers = Answers(trialed=run)
        answers.decide = lambda question, flight: self._weights_for(question, run, flight)
        return self._launch(answers, inject=_given(run))

    def chosen(self) -> Ended:
        """Find the architecture that the script builds, ask which of its runs to evaluate, and evaluate that."""
        ended, answers = self._probe(everything=False)
        return self.of(answers.restart) if answers.restart else ended

    def all(self) -> Iterator[tuple[Run | None, Ended]]:
        """Evaluate every untrialed run of the architecture that the script builds, one after another.

        Which one comes is said before it begins. Yields nothing when all of them have been trialed.
        """
        ended, answers = self._probe(everything=True)
        if answers.trialed or ended.error:
            yield answers.trialed, ended
        for number, run in enumerate(answers.pending, 2 if answers.trialed else 1):
            if ended.run is not None and ended.run.status == record.INTERRUPTED:
                return
            self.say(f"[{number}/{answers.count}] trial of {run.id}")
            ended = self.of(run)
            yield run, ended
        if answers.count:
            self.project.branch.refresh()
            own = {run.architecture for run in (answers.trialed, *answers.pending) if run is not None}
            self._tell_others(lambda run: run.architecture in own)

    def _launch(self, answers: Answers, inject: Mapping[str, Any]) -> Ended:
        run = self.project.new_run(TRIAL, self.arguments, message=self.message, name=self.name)
        order = Order(inject=record.encoded(inject), elsewhere=elsewhere(self.table))
        return self.project.launch(run, self.arguments, answers, order=order, strict=True)

    @cached_property
    def table(self) -> Table:
        """The hyperparameters of the script that evaluates."""
        return self.project.table_of(TRIAL, self.name)

    def _takes(self, run: Run) -> bool:
        """Whether the script will ask for a hyperparameter of the run, perhaps below its network."""
        names = {each.name for each in self.table if each.reached}
        return any(self.table.opaque or not names.isdisjoint((name, *ancestors(name))) for name in _given(run))

    def _probe(self, *, everything: bool) -> tuple[Ended, Answers]:
        """Start the script without a run; it tells its architecture.

        When it takes no hyperparameters from numb it goes on with the chosen run at once; otherwise it is started again,
        for the hyperparameters of the run stand above the network.
        """
        answers = Answers()

        def decide(question: dict[str, Any], flight: InFlight) -> dict[str, Any]:
            if answers.trialed is None:
                candidates = self._candidates(question, flight.told())
                if everything:
                    waiting = self._untrialed(candidates)
                    answers.pending, answers.count = waiting, len(waiting)
                    if not waiting:
                        self._tell_all_trialed(question, len(candidates))
                        return {"stop": True}
                chosen = answers.pending[0] if everything else self._ask(candidates)
                if self._takes(chosen) or (question["queued"] and chosen.params):
                    answers.restart = chosen
                    return {"stop": True}
                if everything:
                    self.say(f"[1/{answers.count}] trial of {chosen.id}")
                answers.pending = answers.pending[1:]
                answers.trialed = chosen
            return self._weights_for(question, answers.trialed, flight)

        answers.decide = decide
        return self._launch(answers, inject={}), answers

    def _ask(self, candidates: Sequence[Run]) -> Run:
        trials = self.index.trials(run.id for run in candidates)
        chosen = self.project.talk.choose([Row.of(run, trials.get(run.id, ())) for run in candidates])
        if chosen is None:
            raise Refused("which run shall be trialed?", f"numb trial {candidates[-1].id}, or numb trial --all")
        return chosen

    def _candidates(self, question: dict[str, Any], told: Told) -> list[Run]:
        """The runs that the network in question could be filled with."""
        architecture = question["architecture"]
        trained = [
            run
            for run in self.index.runs(project=self.project.place, sound=True)
            if _fits(run, question) and run.weights
        ]
        if not trained:
            network = f"{told.models[question['name']].type}·{record.short_architecture(architecture)}"
            raise Refused(f"no run of {network} ({architecture}) was trained", self._nearest(question["operators"]))
        return trained

    def _untrialed(self, runs: Sequence[Run]) -> list[Run]:
        done = self.index.trials(run.id for run in runs)
        return [
            run for run in runs if not any(each.results and each.name == self.name for each in done.get(run.id, ()))
        ]

    def _tell_all_trialed(self, question: Mapping[str, Any], count: int) -> None:
        """Say that there is nothing to do for this architecture, and where there still is."""
        again = "numb trial ID" + (f" --name {self.name}" if self.name else "")
        self.say(f"every run of this architecture has been trialed ({count}); {again} to trial one again")
        self._tell_others(lambda run: _fits(run, question) is not None)

    def _tell_others(self, is_own: Callable[[Run], bool]) -> None:
        """Say which runs are left, of networks that the script did not build with the hyperparameters in it."""
        waiting = self._untrialed(
            [run for run in self.index.runs(project=self.project.place, sound=True) if run.weights]
        )
        others = [run for run in waiting if not is_own(run)]
        if others:
            networks = ", ".join(dict.fromkeys(run.network for run in others))
            name = f" --name {self.name}" if self.name else ""
            what = f"{record.counted(len(others), 'run')} of other networks ({networks})"
            self.say(f"not trialed: {what}: numb trial {others[-1].id}{name}")

    def _nearest(self, operators: Sequence[str]) -> str:
        """Which known architectures are most like this one, and where they differ."""
        wanted = list(operators)
        known: list[tuple[int, str]] = []
        for run in self.index.architectures(self.project.place):
            described = self.project.branch.read_object(run, "architecture.json")
            for have in described["operators"].values() if described else ():
                missing, extra = _without(have, wanted), _without(wanted, have)
                difference = ", ".join([f"-{item}" for item in missing[:3]] + [f"+{item}" for item in extra[:3]])
                known.append((len(missing) + len(extra), f"{run.network} ({difference or 'other wiring'})"))
        if not known:
            return "numb train"
        return "numb train; nearest: " + "; ".join(text for _, text in sorted(known)[:3])

    def _weights_for(self, question: dict[str, Any], run: Run, flight: InFlight) -> dict[str, Any]:
        """Lay out the weights of *run* for one model of the script; the hooks check every byte before they load them."""
        if question["ask"] != "trial":
            return {}
        name = _fits(run, question)
        if name is None:
            have = ", ".join(f"{k} {record.short_architecture(m.architecture)}" for k, m in run.models.items())
            raise Refused(
                f"{run.id} has {have or 'no network'}, but the script builds {question['name']} "
                f"{record.short_architecture(question['architecture'])}; nothing was evaluated",
                f"numb revert {run.id}",
            )
        if name not in run.weights:
            raise Refused(f"{run.id} has no weights of {name}", "numb list")
        text = self.project.branch.read(run, run.weights[name].manifest)
        if text is None:
            raise ObjectMissing(f"the manifest of {run.id}'s weights is not in its commit {run.commit}", "numb doctor")
        self.project.bring(Manifest.of(record.loads(text)).refs())
        flight.folder.chosen.mkdir(exist_ok=True)
        atomic.write(flight.folder.chosen / f"{name}.json", text)
        return {"weights": name, "run": run.id}


def _given(run: Run) -> dict[str, Any]:
    """The hyperparameters of a run that its trials have too: not what only stood above `numb_queue()` in its script."""
    return {name: value for name, value in run.params.items() if name not in run.constants}


def _fits(run: Run, question: Mapping[str, Any]) -> str | None:
    """The name of the run's model that fills the network in question: of the same architecture, of the same name if any."""
    same = [name for name, model in run.models.items() if model.architecture == question["architecture"]]
    return question["name"] if question["name"] in same else next(iter(same), None)


def _without(these: Sequence[str], those: Sequence[str]) -> list[str]:
    rest = list(those)
    left = []
    for item in these:
        if item in rest:
            rest.remove(item)
        else:
            left.append(item)
    return left
