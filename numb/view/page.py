"""A report as one page of HTML that needs nothing beside it: no network, and no script but its own small one.

Names, values, logs and code come from scripts. Jinja2 escapes whatever it puts into the page, and control characters are
spelled out; only the style and the script that stand beside this file go in as they are. The content security policy names
both by their hashes, and allows nothing else but pictures inside the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import TypeAlias

from numb.errors import printable

IMAGES = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_WIDEST = 500  # characters of a line


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table; *key* is what it is sorted by where that is not its text (empty: last), *link* an id in the page."""

    text: str
    key: str | None = None
    link: str = ""
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under heads; a reader can put them in another order, and narrow those of a *filtered* one down."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Collection[int] = ()
    filtered: str = ""  # of what there are so many
    kind: str = "table"


@dataclass(frozen=True, slots=True)
class Facts:
    """Words and what they say."""

    pairs: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture by its bytes; a *chart* is one of numb's own, whose colours follow those of the page."""

    title: str
    media: str
    content: bytes
    chart: bool = False
    wide: bool = False

    @classmethod
    def of(cls, name: str, content: bytes) -> Picture | None:
        """An image that a run has saved; None for what is none by its name."""
        media = IMAGES.get(PurePosixPath(name).suffix.lower())
        return cls(name, media, content) if media else None

    @property
    def source(self) -> str:
        """Its URL. An SVG that is an image runs no script and loads nothing."""
        return f"data:{self.media};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True, slots=True)
class Pictures:
    """A grid of pictures; the *legend* has a name and a link for each colour of its charts."""

    pictures: Sequence[Picture]
    legend: Sequence[tuple[str, str]] = ()
    kind: str = "pictures"


@dataclass(frozen=True, slots=True)
class Text:
    """Lines as they are, each with what it is: `add`, `del`, `hunk` or `file` of a patch, or nothing."""

    lines: Sequence[tuple[str, str]]
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph; *quiet* for what is said about the page and not by it."""

    text: str
    quiet: bool = False
    kind: str = "words"


@dataclass(frozen=True, slots=True)
class Fold:
    """What a reader opens: a line, and what is behind it."""

    title: str
    blocks: Sequence[Block]
    id: str = ""
    more: str = ""  # beside the title
    kind: str = "fold"


Block: TypeAlias = "Table | Facts | Pictures | Text | Words | Fold"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page, with a heading; one *beside* others stands next to them where there is room."""

    title: str
    blocks: Sequence[Block]
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """All of it. What is without a heading of its own stands above the sections."""

    title: str
    about: str
    head: Sequence[Block]
    sections: Sequence[Section]


def html(page: Page) -> str:
    """The page as a file."""
    import jinja2
    from markupsafe import Markup

    style, script = (_own(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else _harmless(str(value)),
    )
    template = environment.from_string(_own("page.html"))
    return template.render(page=page, policy=policy, style=Markup(style), script=Markup(script))


def _own(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _harmless(text: str) -> str:
    """*text* without control characters, but for the ends of its lines."""
    return "\n".join(map(printable, text.split("\n")))


def patch(content: bytes, most: int) -> tuple[Text, int]:
    """The first *most* lines of a patch, each with what it is, and how many more there are."""
    lines = content.decode(errors="replace").split("\n")
    lines = lines[:-1] if lines[-1:] == [""] else lines
    return Text(tuple(_kinds(lines[:most]))), max(0, len(lines) - most)


def _kinds(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    in_hunk = False
    for line in lines:
        if line.startswith("diff --git "):
            in_hunk = False
            yield "file", _shown(line)
        elif line.startswith("@@"):
            in_hunk = True
            yield "hunk", _shown(line)
        else:
            yield {"+": "add", "-": "del"}.get(line[:1], "") if in_hunk else "", _shown(line)


def log(content: bytes, most: int) -> tuple[Text, int]:
    """The last *most* lines of what a script has printed, and how many are before them.

    Of a line that was written over again and again, a progress bar, it has what a terminal would show at its end.
    """
    lines = content.decode(errors="replace").rstrip("\n").split("\n") if content.strip() else []
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines[max(0, len(lines) - most) :]]
    return Text(tuple(("", _shown(line)) for line in shown)), max(0, len(lines) - most)


def _shown(line: str) -> str:
    line = line.replace("\t", "    ").rstrip("\r")
    return line if len(line) <= _WIDEST else f"{line[:_WIDEST]}…"
