"""`"extract"` of nmb.json: a function of the user's that looks at a run whose script has ended, and returns its results.

Whether there is such a function is found out before a training starts, from its source where that is possible: importing it
may take as long as importing torch. It runs in a process of its own, which can be ended.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic, processes, record
from numb.errors import NotPossible, Refused, one_line
from numb.hp import source
from numb.inflight import InFlight, Told
from numb.layout import EXTRACT_SECONDS, RUN_DIR
from numb.record import Run

if TYPE_CHECKING:
    from numb.project import Project

LIMIT = 600.0  # seconds that the function may take
_MOST = 100_000  # characters of what it prints
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")

# The project's folder must not come before the standard library: it may have a json.py. With -c it does, as "".
_BEGIN = """
import sys
sys.path[:] = [each for each in sys.path if each]
import json
asked = json.load(sys.stdin)
sys.path[:] = asked["path"] or [*asked["first"], *sys.path]
sys.path += [each for each in [asked["home"]] if each not in sys.path]
from numb.extracted import main
main(asked)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the function is looked for: as the script of the run does."""

    python: str
    path: tuple[str, ...] | None = None  # all of `sys.path`, where it is known
    first: tuple[str, ...] = ()  # else what stands before the interpreter's own
    is_certain: bool = True  # whether it is this interpreter that runs the script

    @property
    def readable(self) -> list[str]:
        """Where a source can be looked for from here."""
        if self.path is not None:
            return list(self.path)
        with contextlib.suppress(OSError):
            if os.path.samefile(os.path.dirname(self.python), os.path.dirname(sys.executable)):
                return [*self.first, *(each for each in sys.path if each)]
        return list(self.first)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of the function: results as a record keeps them, or why there are none; and what it has printed."""

    results: Mapping[str, Any] = field(default_factory=dict)
    trouble: str | None = None
    printed: str = ""


# Before a training


def check(project: Project, place: Place | None = None) -> None:
    """Refuse to begin when the function that nmb.json names is not there. Raises `Refused`."""
    name = project.config.extract
    if name is None:
        return
    place = place or _before(project)
    module, _, function = name.partition(":")
    file = _file_of(module, [*place.readable, str(project.home)])
    names, is_all = _names_in(file) if file else (frozenset(), False)
    if function in names:
        return
    if not is_all or "." in function:
        if (trouble := _asked(project, place, None).trouble) is None:
            return
        if not place.is_certain:
            project.talk.say(f'"extract" in {project.config.file}: {name}: {trouble}')
            return
        text = f"{name}, which {project.config.file} names to extract results, cannot be used: {trouble}"
        raise Refused(text, _other_module(module, function, project, place))
    near = source.nearest(function, names)
    raise Refused(
        f"{file} has no {function}, which {project.config.file} names to extract results",
        f"did you mean {module}:{near}?" if near else f"it has {record.some(sorted(names), 5) or 'no names'}",
    )


def _before(project: Project) -> Place:
    """Where the train script will look, as far as its command tells."""
    command = project.config.train or ()
    script = source.script_of(command, project.home)
    python = next((word for word in command if _PYTHON.fullmatch(os.path.basename(word))), None)
    path = python and shutil.which(python if os.sep not in python else str(project.home / python))
    extra = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # `python -m` puts the current folder first, and not that of the module.
    own = [project.home] if script is None or "-m" in command else [script.parent]
    first = (*map(str, own), *(os.path.join(project.home, each) for each in extra if each))
    return Place(path or sys.executable, None, first, is_certain=bool(path) and python == command[0])


def _file_of(module: str, path: Sequence[str]) -> Path | None:
    """The source of a module, without importing what is above it; None where that cannot be told."""
    where: Sequence[str] | None = path
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = PathFinder.find_spec(".".join(parts[:depth]), where)
            where = list(spec.submodule_search_locations or ()) if spec else None
        except (KeyError, ValueError, ImportError):  # a folder without __init__.py inside of another
            return None
        if spec is None:
            return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _names_in(file: Path) -> tuple[frozenset[str], bool]:
    """The names that a source binds at its top, and whether there can be no others."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):  # the script's Python may be another one
        return frozenset(), False
    names = frozenset(_bound(tree.body))
    return names, not names & {"*", "__getattr__"}


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.partition(".")[0]
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                pass
            case _:
                yield from _bound(ast.iter_child_nodes(node))


def _other_module(module: str, function: str, project: Project, place: Place) -> str:
    folders = {str(project.home), *place.first}
    there = [path.stem for folder in folders for path in Path(folder).glob("*.py")]
    near = source.nearest(module, there)
    return f"did you mean {near}:{function}?" if near and near != module else f'edit "extract" in {project.config.file}'


# After it


def added(project: Project, run: Run, told: Told, flight: InFlight) -> Run:
    """The run with what the function has found in it, or with a note why that is nothing. Raises nothing."""
    name = project.config.extract
    if name is None or run.status != record.COMPLETE:
        return run
    again = f"numb extract {run.id}"
    try:
        cut_off = f"{name} was cut off, so its results are missing: {again}"
        flight.write_state(replace(run, notes=(*run.notes, cut_off)))  # for whoever finds it, if numb is killed now
        found = _asked(project, _of_script(project, told.surroundings), run)
        if found.printed:
            atomic.write(flight.folder.content / "extraction.txt", found.printed.encode(errors="backslashreplace"))
    except Exception as error:  # the guard around a hook: the run is kept as it is
        found = Found(trouble=one_line(error))
    if found.trouble is not None:
        return replace(run, notes=(*run.notes, f"{name} found no results: {found.trouble}; {again} tries again"))
    return replace(run, results={**run.results, **found.results})


def again(project: Project, run: Run) -> dict[str, Any]:
    """Run the function of nmb.json, as it is now, on a run that has ended, and add what it returns to the run's results.

    Raises `NotPossible` where it returns nothing of the kind.
    """
    name = project.config.extract
    if name is None:
        example = '"extract": "results:of"'
        raise NotPossible(
            f'{project.config.file} names no function to extract results: it has no "extract"', f"add {example} to it"
        )
    if run.commit is None:
        raise NotPossible(f"{run.id} has not ended yet ({run.status})", "numb list")
    recorded = project.environment(run).get("script") or {}
    found = _asked(project, _of_script(project, {"executable": recorded.get("executable")}), run)
    for line in found.printed.splitlines():
        project.talk.say(line)
    if found.trouble is not None:
        raise NotPossible(f"{name} found no results in {run.id}: {found.trouble}")
    if found.results:
        project.remark(run, results=found.results)
    return dict(found.results)


def _of_script(project: Project, told: Mapping[str, Any]) -> Place:
    """Where a script has looked: its interpreter, and what it has told of its path."""
    before = _before(project)
    python, path = told.get("executable"), told.get("path")
    if not isinstance(python, str) or not os.access(python, os.X_OK):
        python = before.python
    if not path:
        return replace(before, python=python)
    return Place(python, tuple(os.path.join(str(told.get("cwd") or project.home), each) for each in path))


def _asked(project: Project, place: Place, run: Run | None) -> Found:
    """Have the function called in a process of its own; without a *run* only find out whether it can be imported."""
    env = {name: value for name, value in os.environ.items() if name != RUN_DIR}
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as printed:
        asked = {
            "function": project.config.extract,
            "home": str(project.home),
            "path": place.path,
            "first": place.first,
            "run": run and run.to_json(),
            "commit": run and run.commit,
            "answer": answer.fileno(),
        }
        try:
            process = subprocess.Popen(
                [place.python, "-c", _BEGIN], cwd=project.home, env=env, stdin=subprocess.PIPE, stdout=printed,
                stderr=printed, pass_fds=[answer.fileno()], start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Found(trouble=f"{place.python} cannot be started: {error.strerror}")
        ended = _waited(process, json.dumps(asked).encode())
        said = _read(printed)
        answer.seek(0)
        try:
            told = record.loads(answer.read())
        except ValueError:
            return Found(trouble=ended or _death(process.returncode, said), printed=said)
        if "results" in told or "trouble" not in told:
            return Found({k: record.decode(v) for k, v in told.get("results", {}).items()}, printed=said)
        return Found(trouble=str(told["trouble"]), printed=(said + str(told["traceback"]))[-_MOST:])


def _waited(process: subprocess.Popen[bytes], content: bytes) -> str | None:
    """Wait for the function's process, and end all that is left of it; why it was ended before it was through."""
    why: list[str] = []

    def kill(number: int, _: object = None) -> None:
        why.append(signal.Signals(number).name)
        _kill(process)

    limit = _limit()
    with processes.handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), kill)):
        try:
            process.communicate(content, timeout=limit)
        except subprocess.TimeoutExpired:
            why.append(f"it took more than {limit:g} s")
        _kill(process)
        process.wait()
    return why[0] if why else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It has a session of its own, with whatever it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _limit() -> float:
    try:
        return max(0.0, float(os.environ.get(EXTRACT_SECONDS, LIMIT)))
    except ValueError:
        return LIMIT


def _read(file: Any) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _MOST))
    return str(file.read().decode(errors="replace"))


def _death(code: int, said: str) -> str:
    if code < 0:
        return f"its process died ({signal.Signals(-code).name})"
    last = said.strip().splitlines()[-1:]
    return last[0] if last and code else f"its process ended by itself (exit code {code})"
