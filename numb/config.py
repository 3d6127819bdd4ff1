"""`nmb.json`: what it may say, what it says by default, and where exactly it is wrong.

`parse_json` is also the reader of the other JSON files that a person edits: each value knows the line and column where
it stands, and whatever the bytes are, nothing but `ConfigError` comes out.
"""

from __future__ import annotations

import json
import re
import shlex
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from numb import callbacks
from numb.errors import ConfigError, NotInitialised, StoreTooNew, Usage
from numb.guard import Guard
from numb.keep import ALL, Keep

VERSION = 1
MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_DIGITS = 640  # Python can be told to convert no more than this, and never less
MAX_MEGABYTES = 10**9
MAX_UNKNOWN = 10
SHORTEST, LONGEST = 0.1, 86_400  # seconds between two looks at the machine

_SECTIONS: dict[str, tuple[str, ...]] = {
    "train": ("command",),
    "trial": ("command",),
    "snapshot": ("max_file_mb", "exclude"),
    "hyperparameters": ("exclude",),
    "log": ("max_mb",),
    "checkpoints": ("last", "every", "best"),
    "series": ("stdout", "tensorboard"),
    "queue": ("imports",),
    "callbacks": callbacks.EVENTS,
}
_TOP = (
    "version",
    "train",
    "trial",
    "trials",
    "snapshot",
    "hyperparameters",
    "environment",
    "branch",
    "log",
    "checkpoints",
    "remotes",
    "push",
    "stop_on",
    "callbacks",
    "queue",
    "extract",
    "metrics",
    "series",
)


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """A place for objects, and the remote of git's for the branch that goes with it."""

    name: str
    url: str
    git: str


@dataclass(frozen=True, slots=True)
class Config:
    """What `nmb.json` says, with the defaults for what it does not say."""

    train: tuple[str, ...] | None = None
    trial: tuple[str, ...] | None = None
    trials: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # further ones, by the names that they are run by
    max_file_mb: float = 20  # a larger file stays out of snapshots
    exclude: tuple[str, ...] = ()  # glob patterns of untracked files that never enter a snapshot
    unread: tuple[str, ...] = ()  # glob patterns of sources that say nothing of hyperparameters
    environment: tuple[str, ...] = ()  # further environment variables that are recorded
    branch: str = "numb"  # where the runs are committed
    log_max_mb: float = 64  # of a run's output, this much is kept
    remotes: tuple[RemotePlace, ...] = ()  # where objects go
    push: str | None = None  # the one to which each run is pushed when it has ended
    keep: Keep = ALL  # which checkpoints of a run stay
    stop_on: tuple[str, ...] = ()  # rules of `guard` that end a training
    callbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by event, names of functions to call
    imports: tuple[str, ...] = ()  # modules that are imported once for all entries of a queue
    extract: str | None = None  # a function that finds the results in a run that has ended
    metrics: float | None = 10  # seconds between two looks at what the run needs of the machine
    reads_output: bool = False  # whether `name: number` in what the script prints is a series
    tensorboard: tuple[str, ...] = ()  # glob patterns of folders whose event files become series
    warnings: tuple[str, ...] = ()  # one line for each key that numb does not know
    file: str = "nmb.json"
    broken: str | None = None  # why the file could not be understood, and these are the defaults

    def command(self, mode: str, name: str | None = None) -> tuple[str, ...]:
        """Return the command of *mode*, or of the trial of a *name*, which has a first word.

        Raises `ConfigError` where there is none to run.
        """
        if name is not None and name not in self.trials:
            there = f"there are {', '.join(self.trials)}" if self.trials else "there are none"
            example = f'"trials": {{"{name}": "python {name}.py"}}'
            near = _meant(name, tuple(self.trials)).removeprefix("; ")
            raise ConfigError(f"{self.file} has no trial {name}; {there}", near or f"add {example} to {self.file}")
        words = {"train": self.train, "trial": self.trial}.get(mode) if name is None else self.trials[name]
        if words and words[0]:
            return words
        if mode == "trial" and self.trials:
            raise ConfigError(f"{self.file} has trials with names only", f"numb trial --name {next(iter(self.trials))}")
        example = f'"{mode}": {{"command": "python {mode}.py"}}'
        raise ConfigError(f'{self.file}: section "{mode}" has no command', f"add {example} to {self.file}")


def load(path: Path) -> Config:
    """Read *path*. Raises `NotInitialised` if it is not there, `StoreTooNew` or `ConfigError` if it cannot be used."""
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise NotInitialised(f"{path} does not exist", "numb init") from None
    if not isinstance(document.value, dict):
        raise document.wrong('an object such as {"train": {"command": "python train.py"}}')
    _check_version(document)
    snapshot, log = _section(document, "snapshot"), _section(document, "log")
    return Config(
        train=_command(document, "train"),
        trial=_command(document, "trial"),
        trials=_trials(_section(document, "trials")),
        max_file_mb=_megabytes(snapshot, "max_file_mb", Config().max_file_mb),
        exclude=_texts(snapshot, "exclude", "a glob pattern", lambda pattern: pattern != ""),
        unread=_texts(
            _section(document, "hyperparameters"), "exclude", "a glob pattern", lambda pattern: pattern != ""
        ),
        environment=_texts(document, "environment", "the name of an environment variable", _is_variable),
        branch=_branch_name(document),
        log_max_mb=_megabytes(log, "max_mb", Config().log_max_mb),
        remotes=_remotes(_section(document, "remotes")),
        push=_push(document),
        keep=_keep(_section(document, "checkpoints")),
        stop_on=_texts(document, "stop_on", "nan, inf, or a limit such as loss>100", _is_rule),
        callbacks=_callbacks(_section(document, "callbacks")),
        imports=_texts(_section(document, "queue"), "imports", "the name of a module", _is_module),
        extract=_extract(document),
        metrics=_metrics(document),
        reads_output=_switch(_section(document, "series"), "stdout"),
        tensorboard=_tensorboard(_section(document, "series")),
        warnings=tuple(_warnings(document)),
        file=document.source.file,
    )


def salvaged(path: Path, error: ConfigError) -> Config:
    """The defaults, for a file that `load` raised *error* for, with what can still be made out in it.

    That is what decides where runs are found, and which files of the user's stay out of a snapshot. Patterns that cannot be
    made out keep every untracked file out.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        text = ""
    branches = {_unquoted(match[1]) for match in re.finditer(_BRANCH, text)} - {""}
    branch = branches.pop() if len(branches) == 1 else Config().branch
    patterns = [_unquoted(item) for match in re.finditer(_EXCLUDE, text) for item in re.findall(_STRING, match[1])]
    unclear = text.count('"exclude"') != len(re.findall(_EXCLUDE, text)) or "" in patterns
    return Config(
        exclude=("*",) if unclear else tuple(patterns),
        branch=branch,
        warnings=(f"{error}; going on with the defaults, and branch {branch}",),
        file=str(path),
        broken=str(error),
    )


# Patterns of `re` as text, because `numb list` would pay for compiling what only a broken file needs.
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_BRANCH = rf'"branch"\s*:\s*({_STRING})'
_EXCLUDE = rf'"exclude"\s*:\s*\[((?:\s*{_STRING}\s*,?)*)\s*\]'


def _unquoted(text: str) -> str:
    """The string that a piece of JSON stands for; empty when it is none that the operating system takes."""
    try:
        found = str(json.loads(text))
    except ValueError:
        return ""
    return found if _is_argument(found) else ""


def template(train: str = "train.py", trial: str = "trial.py", branch: str = "numb") -> str:
    """Return a whole `nmb.json` that runs these two scripts. A branch of the usual name is left out."""
    default = Config()
    document = {
        "version": VERSION,
        "train": {"command": shlex.join(["python", train])},
        "trial": {"command": shlex.join(["python", trial])},
        "snapshot": {"max_file_mb": default.max_file_mb, "exclude": list(default.exclude)},
        "environment": list(default.environment),
        **({"branch": branch} if branch != default.branch else {}),
        "log": {"max_mb": default.log_max_mb},
    }
    return json.dumps(document, indent=2, ensure_ascii=not (train + trial + branch).isprintable()) + "\n"


def _check_version(document: Located) -> None:
    if (version := document.get("version")) is None:
        return
    if type(version.value) is not int or version.value < 1:
        raise version.wrong(f"a version number, {VERSION} at most")
    if version.value > VERSION:
        message = f"{version.where}: this file has version {version.value}, this numb reads version {VERSION}"
        raise StoreTooNew(message, "pip install --upgrade numb")


def _section(document: Located, name: str) -> Located | None:
    section = document.get(name)
    if section is not None and not isinstance(section.value, dict):
        example = ' such as {"command": "python train.py"}' if "command" in _SECTIONS.get(name, ()) else ""
        raise section.wrong(f"an object{example}")
    return section


def _command(document: Located, mode: str) -> tuple[str, ...] | None:
    section = _section(document, mode)
    return None if section is None or section.get("command") is None else _words(section, "command")


def _trials(section: Located | None) -> dict[str, tuple[str, ...]]:
    if section is None:
        return {}
    for name in section.value:
        if not re.fullmatch(r"[^\W\d][\w-]{0,60}", name):
            raise ConfigError(
                f"{section[name].where}: {_quoted(name)} is no name for a trial", "letters, digits, - and _"
            )
    return {name: _words(section, name) for name in section.value}


def _words(section: Located, name: str) -> tuple[str, ...]:
    command = section[name]
    if isinstance(command.value, list):
        return _texts(section, name, "a word of the command", lambda _: True)
    if not isinstance(command.value, str) or not _is_argument(command.value):
        raise command.wrong('a command such as "python train.py" or ["python", "train.py"]')
    try:
        words = tuple(shlex.split(command.value))
    except ValueError as error:  # "No closing quotation", "No escaped character"
        hint = f"{error}; a list needs no quotes" + ': "command": ["python", "train.py"]'
        raise command.wrong("a command that splits into words", hint) from None
    _refuse_shell_syntax(command, command.value.strip())
    return words


# What a shell would not pass on, where it stands outside quotes: `>log`, `2>&1` and `x;` too, but not `a|b` or `<pad>`.
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
_OPERATOR = re.compile(r"(?<!\S)(\|[|&]?|&&?|;|<|[\d&]?>\S*|\S*(\$\(|`)\S*|\S+;(?=\s))(?!\S)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=\S*")


def _refuse_shell_syntax(place: Located, command: str) -> None:
    """Raise `ConfigError` for the first piece of *command* that only a shell would understand."""
    bare = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), command)
    if found := _OPERATOR.search(bare):
        piece = command[slice(*found.span())]
        whole = json.dumps(["sh", "-c", command], ensure_ascii=False)
        hint = f'"command": {whole}, or quote what the script itself shall get: {shlex.quote(piece)}'
    elif found := _ASSIGNMENT.match(bare):
        piece = command[slice(*found.span())]
        hint = f'"command": {json.dumps(f"env {command}", ensure_ascii=False)}'
    else:
        return
    raise ConfigError(f"{place.where}: {_quoted(piece)} is for a shell, and numb starts the command without one", hint)


def _megabytes(section: Located | None, key: str, default: float) -> float:
    if section is None or (size := section.get(key)) is None:
        return default
    if isinstance(size.value, bool) or not isinstance(size.value, (int, float)) or not 0 <= size.value <= MAX_MEGABYTES:
        raise size.wrong(f"a number of megabytes from 0 to {MAX_MEGABYTES}")
    return size.value


def _remotes(section: Located | None) -> tuple[RemotePlace, ...]:
    if section is None:
        return ()
    found = []
    for name in section.value:
        entry = section[name]
        url = entry.get("url") if isinstance(entry.value, dict) else entry
        git = entry.get("branch") if isinstance(entry.value, dict) else None
        if not is_remote_name(name):
            raise ConfigError(f"{entry.where}: {_quoted(name)} is no name for a remote", "letters, digits, - and _")
        if url is None or not isinstance(url.value, str) or not url.value:
            raise entry.wrong('a place such as "/mnt/lab", "ssh://host/lab" or "s3://bucket/lab"')
        if git is not None and not isinstance(git.value, str):
            raise git.wrong("the name of a remote that git knows")
        found.append(RemotePlace(name, url.value, git.value if git else name))
    return tuple(found)


def is_remote_name(name: str) -> bool:
    """Whether *name* may stand on a command line, and in a ref."""
    return re.fullmatch(r"\w[\w-]{0,60}", name, re.ASCII) is not None


def _push(document: Located) -> str | None:
    push = document.get("push")
    if push is None:
        return None
    if not isinstance(push.value, str) or not is_remote_name(push.value):
        raise push.wrong('the name of a remote, such as "lab"')
    return push.value


_ENTRY = r"[\w.-]+"
_FUNCTION = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*"


def _is_module(name: str) -> bool:
    return all(map(str.isidentifier, name.split(".")))


def _callbacks(section: Located | None) -> dict[str, tuple[str, ...]]:
    if section is None:
        return {}
    what = 'a function such as "package.module:function", or the name of an entry point'
    return {
        event: _texts(section, event, what, lambda name: re.fullmatch(f"{_FUNCTION}|{_ENTRY}", name) is not None)
        for event in section.value
        if event in _SECTIONS["callbacks"]
    }


def _extract(document: Located) -> str | None:
    extract = document.get("extract")
    if extract is None:
        return None
    if not isinstance(extract.value, str) or not re.fullmatch(_FUNCTION, extract.value):
        raise extract.wrong('a function by its module and name, such as "results:of" or "package.module:function"')
    return extract.value


def with_remote(path: Path, name: str, place: RemotePlace | None) -> str:
    """The text of *path* with this remote, or without it. Raises what `load` raises, and `Usage` where there is none of it."""
    load(path)
    document = json.loads(path.read_text())
    known = document.get("remotes", {})
    if place is None:
        if name not in known:
            raise Usage(f"{path} has no remote {name}", "numb remote")
        del known[name]
    else:
        known[name] = place.url if place.git == name else {"url": place.url, "branch": place.git}
    document.pop("remotes", None)
    return json.dumps(document | ({"remotes": known} if known else {}), indent=2, ensure_ascii=False) + "\n"


def _keep(section: Located | None) -> Keep:
    if section is None:
        return ALL
    for name in ("last", "every"):
        number = section.get(name)
        if number is not None and (type(number.value) is not int or number.value < 1):
            raise number.wrong("a whole number from 1")
    if (best := section.get("best")) is not None:
        result, _, way = best.value.rpartition(":") if isinstance(best.value, str) else ("", "", "")
        if not result or way not in ("min", "max"):
            raise best.wrong('a result and which is best, such as "acc:max" or "loss:min"')
    return Keep.of(section.value)


def _texts(section: Located | None, key: str, what: str, good: Callable[[str], bool]) -> tuple[str, ...]:
    if section is None or (texts := section.get(key)) is None:
        return ()
    if not isinstance(texts.value, list):
        raise texts.wrong("a list of strings")
    for item in texts.items():
        if not isinstance(item.value, str) or not _is_argument(item.value) or not good(item.value):
            raise item.wrong(f"{what} (a string)")
    return tuple(texts.value)


def _metrics(document: Located) -> float | None:
    if (metrics := document.get("metrics")) is None:
        return Config().metrics
    if isinstance(metrics.value, bool):
        return Config().metrics if metrics.value else None
    if not isinstance(metrics.value, (int, float)) or not SHORTEST <= metrics.value <= LONGEST:
        raise metrics.wrong(f"true, false, or a number of seconds from {SHORTEST} to {LONGEST}")
    return metrics.value


def _switch(section: Located | None, key: str) -> bool:
    if section is None or (switch := section.get(key)) is None:
        return False
    if not isinstance(switch.value, bool):
        raise switch.wrong("true or false")
    return switch.value


def _tensorboard(section: Located | None) -> tuple[str, ...]:
    if section is None or (folders := section.get("tensorboard")) is None:
        return ()
    for each in folders.items() if isinstance(folders.value, list) else (folders,):
        if not isinstance(each.value, str) or not _is_argument(each.value) or each.value[:1] in ("", "/"):
            raise each.wrong('a folder of the project such as "runs", or a list of them')
    return tuple(folders.value) if isinstance(folders.value, list) else (folders.value,)


def _is_rule(text: str) -> bool:
    try:
        return bool(Guard.of([text]))
    except ValueError:
        return False


def _is_argument(text: str) -> bool:
    """Whether the operating system takes *text*: no NUL, and no half of a surrogate pair that stands for no byte."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _is_variable(name: str) -> bool:
    return name != "" and "=" not in name


def _branch_name(document: Located) -> str:
    if (name := document.get("branch")) is None:
        return Config().branch
    if not isinstance(name.value, str) or not name.value or not _is_argument(name.value):
        raise name.wrong('the name of a git branch such as "numb"')
    return name.value


def _warnings(document: Located) -> Iterator[str]:
    unknown = list(_unknown(document, _TOP, ""))
    for name, known in _SECTIONS.items():
        if (section := document.get(name)) is not None:
            unknown += _unknown(section, known, f' in "{name}"')
    for where, key, known, place in unknown[:MAX_UNKNOWN]:
        yield f"{where}: unknown key {_quoted(key)}{place}{_meant(key, known)}"
    if len(unknown) > MAX_UNKNOWN:
        yield f"{document.source.file}: {len(unknown) - MAX_UNKNOWN} more unknown keys"


def _unknown(section: Located, known: tuple[str, ...], place: str) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for key in section.value:
        if key not in known:
            yield section.where_key(key), key, known, place


def _meant(key: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # 2 ms that a file without a mistake does not pay

    close = get_close_matches(key.lower(), known, 1)
    return f"; did you mean {_quoted(close[0])}?" if close else ""


@dataclass(frozen=True, slots=True)
class Located:
    """A JSON value and the place where it stands: `document["train"]["command"].where` is `nmb.json:3:16`."""

    value: Any
    source: Source
    place: Place

    @property
    def line_and_column(self) -> tuple[int, int]:
        """Where the value begins. Lines and columns (of characters, not bytes) count from 1."""
        return self.source.line_and_column(self.place if isinstance(self.place, int) else self.place.start)

    @property
    def where(self) -> str:
        """`file:line:column` of the value."""
        return self.source.where(self.place if isinstance(self.place, int) else self.place.start)

    def where_key(self, key: str) -> str:
        """`file:line:column` of one of this object's keys. Raises `KeyError`."""
        return self.source.where(self._branch().keys[key])

    def __getitem__(self, step: str | int) -> Located:
        """Go down to a member of an object or an item of a list. Raises `KeyError`, `IndexError`, `TypeError`."""
        return Located(self.value[step], self.source, self._branch().inner[step])

    def get(self, key: str) -> Located | None:
        """Go down to a member of an object, if it has it."""
        return self[key] if key in self._branch().keys else None

    def items(self) -> Iterator[Located]:
        """Go through the items of a list or the members of an object, in the file's order."""
        for step in self.value if isinstance(self.value, dict) else range(len(self.value)):
            yield self[step]

    def wrong(self, expected: str, hint: str | None = None) -> ConfigError:
        """Return the error that says what was expected here and what was found."""
        return ConfigError(f"{self.where}: expected {expected}, found {_shown(self.value)}", hint)

    def _branch(self) -> _Branch:
        if isinstance(self.place, int):
            raise TypeError(f"{self.where} has nothing inside")
        return self.place


@dataclass(frozen=True, slots=True)
class Source:
    """The name of a file, and where its lines begin."""

    file: str
    lines: list[int]  # the offset of each line's first character

    def line_and_column(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self.lines, offset)
        return line, offset - self.lines[line - 1] + 1

    def where(self, offset: int) -> str:
        line, column = self.line_and_column(offset)
        return f"{self.file}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class _Branch:
    """The offsets of an object or a list, of its keys, and of what is inside."""

    start: int
    keys: dict[str, int]
    inner: Any  # places: of an object's values by key, of a list's items by position


Place = int | _Branch


def read_json(path: Path, *, limit: int = MAX_BYTES, non_finite: bool = False) -> Located:
    """Read a file with `parse_json`, and no more than *limit* bytes of it.

    Raises `FileNotFoundError`, because only the caller knows what to do then, and `ConfigError` for every other fault.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ConfigError(f"{path}: expected a regular file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_json(content, str(path), limit=limit, non_finite=non_finite)


def read_plain(path: Path, *, limit: int = MAX_BYTES) -> Any:
    """The same value as `read_json` with *non_finite* reads, without the places, in a fraction of the time.

    None where there is anything about the file that it would find fault with, so that it can say what. Raises
    `FileNotFoundError`.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1) if path.is_file() else b""
        text = content.decode()
        if len(content) > limit or _LONG_NUMBER.search(text) or _CONFLICT.search(text):
            return None
        value = json.loads(text, object_pairs_hook=_each_key_once)
    except (OSError, ValueError, RecursionError):
        return None
    return None if type(value) in (dict, list) and _is_deeper(value, MAX_DEPTH) else value


def _is_deeper(value: dict[str, Any] | list[Any], levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value
    nested = [each for each in inside if type(each) in (dict, list)]
    return bool(nested) and (levels == 0 or any(_is_deeper(each, levels - 1) for each in nested))


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return found


def parse_json(content: str | bytes, file: str, *, limit: int = MAX_BYTES, non_finite: bool = False) -> Located:
    """Parse one JSON document, as RFC 8259 has it, and remember where everything stands.

    Raises `ConfigError`, which begins with `file:line:column` and says what was expected and what was found, for
    whatever cannot be taken at its word: bad syntax, two equal keys, a byte order mark, bytes that are not UTF-8,
    nesting below `MAX_DEPTH`, integers above `MAX_DIGITS`, more than *limit* bytes. Nothing else is ever raised.
    `NaN`, `Infinity` and numbers that overflow to it are taken only where *non_finite* asks for them.
    """
    size = len(content) if isinstance(content, bytes) else len(content.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise ConfigError(f"{file}:1:1: expected at most {limit} bytes, found more")
    text = _decoded(content, file) if isinstance(content, bytes) else content
    source = _source(file, text)
    if text.startswith("\ufeff"):
        raise _error(source, 0, "JSON without a byte order mark", "one (U+FEFF)", "save it as UTF-8 without BOM")
    if conflict := _CONFLICT.search(text):
        hint = f"git diff -- {shlex.quote(file)}"
        raise _error(source, conflict.start(), "JSON", f"a merge-conflict marker, {conflict[1]}", hint)
    return Located(*_Reader(source, text, non_finite).document())


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        byte = content[error.start]
    raise _error(_source(file, before), len(before), "UTF-8", f"the byte 0x{byte:02x}")


def _source(file: str, text: str) -> Source:
    return Source(file, [0, *(match.end() for match in re.finditer("\n", text))])


def _error(source: Source, offset: int, expected: str, found: str, hint: str | None = None) -> ConfigError:
    return ConfigError(f"{source.where(offset)}: expected {expected}, found {found}", hint)


# A line break ends no JSON string, so that a line which begins like this is a marker and nothing else.
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})(?=\s|$)", re.MULTILINE)
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMENT = re.compile(r"//|/\*|#")
_WORD = re.compile(r"-?[^\W\d]\w*")
_NON_FINITE = re.compile(r"-?Infinity|NaN")
_INTEGER = re.compile(r"-?[0-9]+")
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_DIGITS}}}")
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_SCALARS = json.JSONDecoder()


class _Reader:
    """Reads a document from left to right; strings, numbers and constants are `json`'s."""

    def __init__(self, source: Source, text: str, non_finite: bool) -> None:
        self.source = source
        self.text = text
        self.non_finite = non_finite
        self.offset = 0
        self.depth = 0

    def document(self) -> tuple[Any, Source, Place]:
        value, place = self.value("a JSON value")
        if self.next():
            self.fail("the end of the file")
        return value, self.source, place

    def next(self) -> str:
        """Step over white space and return the character that follows, or nothing at the end."""
        match = _SPACE.match(self.text, self.offset)
        self.offset = match.end() if match else self.offset
        return self.text[self.offset : self.offset + 1]

    def take(self, character: str) -> bool:
        if self.next() != character:
            return False
        self.offset += 1
        return True

    def value(self, expected: str) -> tuple[Any, Place]:
        match self.next():
            case "{":
                return self.inside(self.object)
            case "[":
                return self.inside(self.array)
            case _:
                return self.scalar(expected)

    def inside(self, read: Callable[[int], tuple[Any, Place]]) -> tuple[Any, Place]:
        start = self.offset
        if self.depth == MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} levels of nesting", found="one more")
        self.depth += 1
        self.offset += 1
        value, place = read(start)
        self.depth -= 1
        return value, place

    def object(self, start: int) -> tuple[Any, Place]:
        values: dict[str, Any] = {}
        places: dict[str, Place] = {}
        keys: dict[str, int] = {}
        more = not self.take("}")
        while more:
            if self.next() != '"':
                self.fail("a key in double quotes" if keys else 'a key in double quotes or "}"')
            at = self.offset
            key, _ = self.scalar("a key")
            if key in keys:
                first, _ = self.source.line_and_column(keys[key])
                self.fail("each key once", at, f"{_quoted(key)} again (first on line {first})")
            keys[key] = at
            if not self.take(":"):
                self.fail('":"')
            values[key], places[key] = self.value("a value")
            more = self.another("}")
        return values, _Branch(start, keys, places)

    def array(self, start: int) -> tuple[Any, Place]:
        values: list[Any] = []
        places: list[Place] = []
        more = not self.take("]")
        while more:
            value, place = self.value("a value" if values else 'a value or "]"')
            values.append(value)
            places.append(place)
            more = self.another("]")
        return values, _Branch(start, {}, places)

    def another(self, closing: str) -> bool:
        """Step over a comma, or over the bracket that ends the list or object. Return whether it was a comma."""
        if self.take(closing):
            return False
        comma = self.offset
        if not self.take(","):
            self.fail(f'"," or "{closing}"')
        if self.next() == closing:
            self.fail(f'"{closing}" or another value', comma, "a trailing comma (JSON has none)")
        return True

    def scalar(self, expected: str) -> tuple[Any, int]:
        start = self.offset
        self.check_number(start)
        try:
            value, self.offset = _SCALARS.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            if self.text.startswith('"', start):
                self.fail_in_string(error, start)
            self.fail(expected)
        if value in (float("inf"), float("-inf")) and not self.non_finite:
            self.fail("a finite number", start, self.text[start : self.offset][:40])
        return value, start

    def check_number(self, start: int) -> None:
        if not self.non_finite and (match := _NON_FINITE.match(self.text, start)):
            self.fail("a finite number", found=match[0])
        if (match := _INTEGER.match(self.text, start)) and len(match[0]) > MAX_DIGITS:
            self.fail(f"a number of at most {MAX_DIGITS} digits", found=f"{len(match[0])}")

    def fail_in_string(self, error: json.JSONDecodeError, start: int) -> NoReturn:
        if error.msg.startswith("Unterminated"):
            self.fail("a string that ends with a double quote", start, "the end of the file")
        if error.msg.startswith("Invalid control character"):
            found = "a line break" if self.text[error.pos] in "\r\n" else _quoted(self.text[error.pos])
            self.fail("a double quote or an escape such as \\n", error.pos, found)
        backslash = self.text.rfind("\\", start, error.pos + 1)
        escape = self.text[backslash : backslash + (6 if error.msg.startswith("Invalid \\u") else 2)]
        found = escape if escape.isprintable() else _quoted(escape)
        self.fail('one of the escapes \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX', backslash, found)

    def fail(self, expected: str, offset: int | None = None, found: str | None = None) -> NoReturn:
        offset = self.offset if offset is None else offset
        raise _error(self.source, offset, expected, found or self.found(offset))

    def found(self, offset: int) -> str:
        """Name what stands at *offset*, with what JSON has instead of it."""
        if offset == len(self.text):
            return "the end of the file"
        if _COMMENT.match(self.text, offset):
            return "a comment (JSON has none)"
        if self.text[offset] == "'":
            return "a single quote (JSON has double quotes)"
        word = _WORD.match(self.text, offset)
        if word and word[0] in _PYTHON:
            return f"{word[0]} (JSON has {_PYTHON[word[0]]})"
        return _quoted(word[0] if word else self.text[offset])


def _quoted(text: str) -> str:
    text = text if len(text) <= 40 else text[:37] + "…"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _shown(value: object) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return _quoted(value)
        case _:
            return json.dumps(value)[:40]
