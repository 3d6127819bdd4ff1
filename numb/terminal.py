"""The terminal: what numb says goes to stderr, what was asked for to stdout, and a question only to who can answer."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from numb.errors import NumbError, printable

if TYPE_CHECKING:
    from numb.record import Run
    from numb.talk import Row

_T = TypeVar("_T")


class Terminal:
    """How a command speaks: on stderr, and it asks only when somebody can answer."""

    def say(self, line: str) -> None:
        say(f"numb: {line}")

    def progress(self, done: int, total: int) -> None:
        """Draw a bar with bytes and time left, where somebody sees it."""
        if not sys.stderr.isatty() or (self._bar is None and done >= total):
            return
        if self._bar is None:
            from numb.view import store

            label = f"{store.size(total)}"
            self._bar = click.progressbar(length=total, label=label, file=sys.stderr, show_eta=True).__enter__()
            self._done = 0
        self._bar.update(done - self._done)
        self._done = done
        if done >= total:
            self._bar.__exit__(None, None, None)
            self._bar = None

    _bar: Any = None
    _done = 0

    def again(self, earlier: Run, changed: list[str] | None) -> bool | None:
        if not attended():
            return None
        from numb.record import brief, flat
        from numb.view import table

        results = " ".join(f"{name} {brief(value)}" for name, value in flat(earlier.results).items())
        say(f"{earlier.network} was trained with these hyperparameters before:")
        say(f"  {earlier.id}  {table.age(earlier.started, _now())} ago  {results}".rstrip())
        say(f"  code: {changes(changed)}")
        if earlier.without_weights:
            say("  not all of its weights were kept")
        return agreed("Train it again?")

    def choose(self, rows: Sequence[Row]) -> Run | None:
        from numb.view import table

        if not attended():
            return None

        say(table.choices(rows, width=width(sys.stderr)))
        return _asked(
            f"Trial which run? (a number, or an id) [{len(rows)}]: ",
            lambda answer: table.chosen(answer or str(len(rows)), [row.run for row in rows]),
        )


def agreed(question: str) -> bool:
    """Whether the answer is yes; no is the default."""
    return bool(_asked(f"{question} [y/N]: ", _yes_or_no))


def _yes_or_no(answer: str) -> bool:
    words = {"y": True, "yes": True, "n": False, "no": False, "": False}
    if answer.lower() not in words:
        raise ValueError(f"{answer} is neither yes nor no")
    return words[answer.lower()]


def _asked(question: str, understood: Callable[[str], _T]) -> _T | None:
    """The first answer that can be *understood*, or None at Ctrl-D; Ctrl-C is a `KeyboardInterrupt`.

    Python's `input`, and so click's prompts, lose a Ctrl-C that comes while they write the question, and sleep through one
    that comes just before they read. Here its handler runs twice a second at the latest.
    """
    while True:
        click.echo(question, nl=False, err=True)
        try:
            while not select.select([sys.stdin], [], [], 0.5)[0]:
                pass
            line = os.read(sys.stdin.fileno(), 4096)  # of a terminal that is one line, or nothing at Ctrl-D
        except KeyboardInterrupt:
            say("")
            raise
        if not line:
            say("")
            return None
        try:
            return understood(line.decode(errors="replace").strip())
        except ValueError as error:
            say(f"numb: {error}")


def _now() -> float:
    import time

    return time.time()


def attended() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def changes(changed: Sequence[str] | None) -> str:
    """What is to be said of files in which the code differs from that of an earlier run."""
    if changed is None:
        return "not known whether it has changed since"
    if not changed:
        return "the same as then"
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return f"changed since in {', '.join(changed[:5])}{more}"


_ASCII = str.maketrans({"·": ".", "→": ">", "…": "~", "×": "x", "–": "-"})


def _encoding(stream: Any) -> str:
    """What a stream takes. Python writes UTF-8 in the C locale too (PEP 538, 540), which a terminal there may not show."""
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG")
    if locale in ("C", "POSIX") and stream.isatty():
        return "ascii"
    return getattr(stream, "encoding", None) or "utf-8"


def _encodable(text: str, stream: Any) -> str:
    """*text* in what the stream can encode: a terminal in the C locale gets ASCII, never a traceback."""
    encoding = _encoding(stream)
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)


def say(text: str) -> None:
    """Write lines to stderr, where somebody reads them; what a script has named may hold what a terminal obeys."""
    shown = "\n".join(map(printable, text.split("\n")))
    try:
        click.echo(_encodable(shown, sys.stderr), err=True)
    except OSError:
        pass  # nobody reads it; the work goes on


def put(text: str) -> None:
    """Write what was asked for to stdout."""
    if text:
        click.echo(_encodable(text, sys.stdout))


def width(stream: Any) -> int | None:
    """How many characters a line of *stream* has, if it is a terminal that knows."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def height(stream: Any) -> int | None:
    """How many lines a terminal has, if *stream* is one that knows."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def coloured() -> bool:
    """Whether what goes to stdout may have colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def ascii_only(stream: Any) -> bool:
    """Whether a stream takes no more than ASCII."""
    return _encodable("⠿", stream) != "⠿"


def bold(text: str) -> str:
    """The same, bold on a terminal that shows it."""
    return click.style(text, bold=True) if coloured() else text


def complain(error: NumbError) -> None:
    """Say what went wrong, and what to type next."""
    say(f"numb: {error}")
    if error.hint:
        say(f"      try: {error.hint}")
