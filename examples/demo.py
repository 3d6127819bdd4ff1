"""Show numb at work: the digits example in a throw-away repository, every command as a person would type it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).parent / "digits"
STEPS = (
    "git init --quiet --initial-branch=main .",
    "git add -A",
    "git -c user.name=you -c user.email=you@example.org commit --quiet -m digits",
    "numb init",
    "numb train",
    "numb train -m 'does a smaller learning rate help?' --queue slower.json",
    "numb list",
    "numb trial --all",
    "numb list",
    "numb show @",
    "numb report @",
    "git log --first-parent --format=%s numb",
    "git status --short",
)


def main() -> int:
    """Run every step, and stop at the first that fails."""
    with tempfile.TemporaryDirectory(prefix="numb-demo-") as folder:
        project = Path(folder) / "digits"
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", ".nmb"))
        (project / ".gitignore").write_text("__pycache__/\n")
        (project / "slower.json").write_text('[{"lr": 0.001}]\n')
        folders = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        environment = {**os.environ, "PATH": os.pathsep.join(folders)}
        for step in STEPS:
            print(f"\n$ {step}", flush=True)
            done = subprocess.run(shlex.split(step), cwd=project, env=environment, stdin=subprocess.DEVNULL)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
