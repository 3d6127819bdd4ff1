"""What many tests begin with is done once: what it changed is kept, and put into the folder of each that begins so.

A beginning is known by all that it can see: every file of the test, the environment, and the words that were typed. Its
time is no part of that, nor is the place: a copy has the ids, the times and, in a record, the folder of the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = "{the folder of the test}"
INDEX = ".git/index"


class NotToBeKept(Exception):
    """Something is there that a copy would not be: a FIFO, a socket, or a path that cannot be put right."""


@dataclass(frozen=True)
class Beginnings:
    """A folder with what was done before, one folder for each beginning, shared by all who run tests at the same time."""

    folder: Path

    def once(self, here: Path, env: Mapping[str, str], words: object, do: Callable[[], Any]) -> Any:
        """Return what *do* returns, which changes nothing outside of *here*; if it was done before, without doing it."""
        try:
            before = seen(here)
        except NotToBeKept:
            return do()
        known = json.dumps([words, sorted(env.items()), sorted(before.items())])
        kept = self.folder / hashlib.sha256(_elsewhere(known.encode(), here)).hexdigest()
        if kept.is_dir():
            return _put(kept, here, env)
        result = do()
        try:
            self._keep(kept, here, before, result)
        except NotToBeKept:
            pass
        return result

    def _keep(self, kept: Path, here: Path, before: Mapping[str, str], result: Any) -> None:
        after = seen(here)
        changed = [path for path in after if after[path] != before.get(path)]
        self.folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            made = Path(scratch) / "made"
            (made / "files").mkdir(parents=True)
            for path in changed:
                _copy(here / path, made / "files" / path, lambda content: _elsewhere(content, here))
            removed = [path for path in before if _kind(before[path]) != _kind(after.get(path, ""))]
            (made / "what.json").write_text(json.dumps({"changed": changed, "removed": removed, "result": result}))
            try:
                made.rename(kept)
            except OSError:  # somebody else has just done the same
                pass


def seen(here: Path) -> dict[str, str]:
    """Every file, link and folder below *here*, parents first, and what a program can see of it but its times."""
    return {str(path.relative_to(here)): _look(path, here) for path in sorted(here.rglob("*"))}


def _kind(look: str) -> str:
    return look.partition(" ")[0][:-4]


def _look(path: Path, here: Path) -> str:
    try:
        status = path.lstat()
    except FileNotFoundError:  # a run goes on here
        raise NotToBeKept(path) from None
    mode = oct(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return f"{mode} {os.readlink(path)}"
    if stat.S_ISDIR(status.st_mode):
        return mode
    if not stat.S_ISREG(status.st_mode):
        raise NotToBeKept(path)
    content = path.read_bytes()
    if path.as_posix().endswith(f"/{INDEX}"):
        content = _without_times(content)
    return f"{mode} {hashlib.sha256(_elsewhere(content, here)).hexdigest()}"


def _without_times(index: bytes) -> bytes:
    """A git index without what `lstat` has said of each file, and without its checksum."""
    if index[:4] != b"DIRC" or int.from_bytes(index[4:8], "big") not in (2, 3):
        return index
    found, at = [index[:12]], 12
    for _ in range(int.from_bytes(index[8:12], "big")):
        name = at + (64 if index[at + 60] & 0x40 else 62)
        end = index.index(b"\0", name)
        found.append(index[at + 24 : at + 28] + index[at + 40 : end])  # the mode; the id, flags and name
        at += (end - at + 8) // 8 * 8
    return b"".join([*found, index[at:-20]])


def _elsewhere(content: bytes, here: Path) -> bytes:
    return content.replace(os.fsencode(here), HERE.encode())


def _copy(path: Path, to: Path, change: Callable[[bytes], bytes]) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if change(target := os.fsencode(os.readlink(path))) != target:
            raise NotToBeKept(path)
        os.symlink(target, to)
    elif path.is_dir():
        to.mkdir(exist_ok=True)
        shutil.copymode(path, to)
    else:
        shutil.copy2(path, to)
        content = path.read_bytes()
        if (changed := change(content)) != content:
            if path.suffix != ".json":
                raise NotToBeKept(path)
            to.write_bytes(changed)
            shutil.copystat(path, to)


def _put(kept: Path, here: Path, env: Mapping[str, str]) -> Any:
    what = json.loads((kept / "what.json").read_text())
    for path in reversed(what["removed"]):
        if (here / path).is_dir() and not (here / path).is_symlink():
            (here / path).rmdir()
        else:
            (here / path).unlink()
    for path in what["changed"]:
        if not (here / path).is_dir():
            (here / path).unlink(missing_ok=True)
        _copy(kept / "files" / path, here / path, lambda content: content.replace(HERE.encode(), os.fsencode(here)))
    for path in what["changed"]:
        if path.endswith(f"/{INDEX}"):  # it has the times of the first's files
            project = here / path.removesuffix(INDEX)
            subprocess.run(["git", "update-index", "-q", "--refresh"], cwd=project, env=env, check=True)
    return what["result"]
