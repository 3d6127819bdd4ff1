"""In a process of its own, by the script's interpreter: the user's function that finds the results in a run that has ended."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from numb import artifacts, record
from numb.callbacks import resolved
from numb.capture.values import plain
from numb.errors import ArtifactMissing, one_line
from numb.hp.params import Params
from numb.project import Project
from numb.record import Run


class Seen:
    """A run, for a function that looks at what it has left."""

    def __init__(self, project: Project, run: Run) -> None:
        self._project, self._run = project, run
        self.id, self.status, self.message = run.id, run.status, run.message
        self.params = Params(run.params)
        self.results = dict(run.results if run.commit is None else project.row(run).results)
        self.artifacts = tuple(run.artifacts)

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def __getitem__(self, name: str) -> Any:
        """What `numb.save` has kept under a name, or what lies in `run.dir`, as the value that it was. Raises `KeyError`."""
        try:
            return self._project.load(self._run, name)
        except ArtifactMissing:
            own = self._project.layout.run(self.id).own / name
            if self._run.commit is not None or ".." in own.parts or not own.is_file():
                raise
            return artifacts.decoded(name, own.read_bytes())

    def series(self, name: str = "log") -> list[dict[str, Any]]:
        """The rows of a series, a dictionary for each; `Date` is in seconds since 1970. Raises `KeyError`."""
        rows = [
            {**dict(zip(block.fields, row, strict=True)), "Date": moment}
            for block in self._project.series(self._run, name)
            for row, moment in zip(block.rows(), block.times, strict=True)
        ]
        if not rows:
            raise ArtifactMissing(f"{self.id} has no series {name}")
        return rows

    def state_dict(self, model: str | None = None) -> Any:
        """The weights at the end: of the *model*, where there are several. Raises `KeyError` where there are none."""
        return self._project.load_state(self._run, None, model)


def main(asked: Mapping[str, Any]) -> None:
    """Do what was *asked*, write the answer, and end, whatever threads the function has left."""
    try:
        answer = _answer(asked)
    except BaseException as error:  # whatever it is, the one who waits says it
        answer = {"trouble": one_line(error), "kind": type(error).__name__, "traceback": _traceback(error)}
    content = memoryview(record.dumps(answer).encode())
    while content:
        content = content[os.write(asked["answer"], content) :]
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the function has closed it
    os._exit(0)


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    function = resolved(asked["function"])
    if asked["run"] is None:
        return {}
    run = Run.from_json(asked["run"], asked["commit"])
    found = function(Seen(Project.open(asked["home"], reading=True), run))
    if not isinstance(found, Mapping):
        kind = "None" if found is None else f"a {type(found).__name__}"
        raise TypeError(f"it returned {kind}, and no dictionary")
    return {"results": plain(found)}


def _traceback(error: BaseException) -> str:
    """Without the frames that are numb's."""
    try:
        return "".join(traceback.format_exception(type(error), error, _below(error)))
    except Exception:  # the user's own `__str__`, `__repr__` or `__notes__`
        return f"Traceback (not printable)\n{one_line(error)}\n"


def _below(error: BaseException) -> Any:
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return frame
