"""The branch of the runs written anew, without some entries or without a path; only `purge` does that."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from numb import layout
from numb.errors import BranchInUse, GitFailed
from numb.gitstore import GitStore

_NEW = "refs/numb/rewriting"

Remap = Callable[[bytes, Callable[[str], str | None]], bytes | None]
"""The text of a record with other names of commits in it, or None where it names none that has changed."""


@dataclass(frozen=True, slots=True)
class _Commit:
    """One commit of the branch as git has it."""

    name: str
    tree: str
    parents: tuple[str, ...]
    people: bytes  # the lines of author and committer
    message: bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> _Commit:
        head, _, message = content.partition(b"\n\n")
        lines = head.split(b"\n")
        said = [(line.partition(b" ")[0], line.partition(b" ")[2]) for line in lines]
        people = b"".join(line + b"\n" for line in lines if line.startswith((b"author ", b"committer ")))
        parents = tuple(value.decode() for key, value in said if key == b"parent")
        return cls(name, next(value.decode() for key, value in said if key == b"tree"), parents, people, message)


def rewrite(
    git: GitStore, entries: frozenset[str], path: str | None, remap: Remap, beforehand: Callable[[str], object]
) -> None:
    """Let the branch be without the *entries* of these ids, and its snapshots without *path*.

    Commits before the first that changes stay what they are. *beforehand* is told the first that does not, just before it
    leaves the branch: a history that has it is the old one. Raises `BranchInUse` when the branch has moved meanwhile, and
    `GitFailed`.
    """
    tip = git.tip()
    if tip.commit is None or tip.checked_out:
        raise BranchInUse(f"branch {git.branch} is checked out in {tip.checked_out}", "git switch -")
    history = git.history(tip.commit)
    ids = dict(zip(history, git.ids(history), strict=True))
    having = set(git.having(history, path)) if path else set()
    commits = {name: _Commit.of(name, content) for name, content in zip(history, git.raw(history), strict=True)}
    with git.importing() as process:
        writer = _Writer(process)
        became: dict[str, str | None] = {}

        def renamed(old: str) -> str | None:
            return None if ids.get(old) in entries else became.get(old, old)

        for name in history:
            commit = commits[name]
            ours = [parent for parent in commit.parents if parent in commits]
            if ids[name] in entries:
                became[name] = became[ours[0]] if ours else None
                continue
            record = git.read(name, "record.json")
            text = remap(record, lambda old: writer.name(renamed(old))) if record else None
            if name in having or text is not None or any(became[parent] != parent for parent in ours):
                parents = [became.get(parent, parent) for parent in commit.parents]
                became[name] = writer.commit(commit, [p for p in parents if p], path if name in having else None, text)
            else:
                became[name] = name
        new = writer.name(became[tip.commit])
        writer.end()
    if new is None:
        raise GitFailed("nothing would be left of the branch", "numb deinit")
    gone = next((name for name in history if became[name] != name), None)
    if gone is None:
        return  # somebody else has done it meanwhile
    beforehand(gone)
    git.replace_branch(new, tip.commit, _NEW)


class _Writer:
    """Commits on their way into git, which tells their names when it is asked."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout
        self._marks = 0

    def commit(self, commit: _Commit, parents: Sequence[str], without: str | None, record: bytes | None) -> str:
        """Write a commit; returns its mark, which stands for its name."""
        self._marks += 1
        first, *others = [*parents] or [""]
        lines = [b"commit %s\nmark :%d\n" % (_NEW.encode(), self._marks), commit.people, _data(commit.message)]
        lines += [b"from %s\n" % first.encode()] if first else []
        lines += [b"merge %s\n" % other.encode() for other in others]
        lines += [b'M 040000 %s ""\n' % commit.tree.encode()]
        lines += [b"D %s\n" % _quoted(without)] if without else []
        if record is not None:
            lines += [b"M 100644 inline %s/record.json\n" % layout.RECORD_FOLDER.encode(), _data(record)]
        self._in.write(b"".join(lines) + b"\n")
        return f":{self._marks}"

    def name(self, mark: str | None) -> str | None:
        """The name of the commit that a mark stands for."""
        if mark is None or not mark.startswith(":"):
            return mark
        self._in.write(b"get-mark %s\n" % mark.encode())
        self._in.flush()
        return self._out.readline().decode().strip()

    def end(self) -> None:
        self._in.write(b"done\n")
        self._in.flush()


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> bytes:
    escaped = path.encode(errors="surrogateescape").replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
