"""What the documents say is what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conftest import Scene

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs" / "format.md").read_text()


def block(language: str) -> str:
    return next(re.finditer(rf"```{language}\n(.*?)```", README, re.S))[1]


def test_the_readme_works_as_it_stands(empty: Scene) -> None:
    """The configuration, the script and the commands of the README's first screen give a run in a table."""
    empty.write("nmb.json", block("json"))
    empty.write("train.py", block("python").replace("...", "pass"))
    empty.write("wide.json", '[{"width": 64}]')
    empty.sh("git add -A && git commit -qm first")
    commands = [line[2:].partition("#")[0].strip() for line in README.splitlines() if line.startswith("$ numb ")]
    for command in commands:
        done = empty.numb(command.removeprefix("numb "))
        assert 0 == done.code, f"{command}\n{done.stderr}"
    runs = empty.runs()
    assert [32, 64] == [run["params"]["width"] for run in runs]
    assert ["", "wider is better?"] == [run["message"] for run in runs]
    assert all(run["weights"] for run in runs)


def test_every_command_and_option_is_in_the_readme() -> None:
    """A command that the README does not name is a command that nobody finds."""
    from numb.cli import main

    for name, command in main.commands.items():
        assert f"`numb {name}" in README, name
        for option in command.params:
            known = {"--yes", "--strict", "--all-columns", "--into", "--help"}
            assert not option.opts[0].startswith("--") or option.opts[0] in README or option.opts[0] in known, (
                option.opts
            )


def test_every_field_of_a_record_is_in_the_format(torch_scene: Scene) -> None:
    """The normative description names each field and each file that a run has."""
    run = torch_scene.trained()
    fields = set(json.loads(torch_scene.sh("git show numb:.nmb/run/record.json")))
    files = torch_scene.sh("git ls-tree -r --name-only numb .nmb/run/").replace(".nmb/run/", "").split()
    keys = set(json.loads(torch_scene.sh("git show numb:.nmb/run/weights/Net.json")))
    assert set() == {name for name in fields | keys if f"`{name}`" not in FORMAT}
    assert set() == {name for name in files if f"`{name}`" not in FORMAT} - {"weights/Net.json"}
    assert run["weights"]["Net"]["manifest"] == "weights/Net.json"


def test_a_run_is_restored_with_git_and_the_format_alone(torch_scene: Scene) -> None:
    """Without numb: the code by git archive, a tensor by its manifest and a reader of floats."""
    torch_scene.sh("echo new > new.txt")
    torch_scene.trained()
    torch_scene.sh("mkdir ../back && git archive numb | tar -x -C ../back --exclude .nmb")
    manifest = json.loads(torch_scene.sh("git show numb:.nmb/run/weights/Net.json"))
    (entry,) = [e for e in manifest["entries"] if e["name"] == "out.bias"]
    digest = entry["object"]
    program = (
        "import json, struct, sys; p, o, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]);"
        "print(json.dumps(struct.unpack(f'<{n // 4}f', open(p, 'rb').read()[o:o + n])))"
    )
    path = f".nmb/objects/{digest[:2]}/{digest}"
    values = json.loads(torch_scene.sh(f"python -c {json.dumps(program)} {path} {entry['offset']} {entry['nbytes']}"))
    own = json.loads(
        torch_scene.sh("python -c \"import json, torch; print(json.dumps(torch.load('own.pt')['out.bias'].tolist()))\"")
    )
    assert "new" == torch_scene.sh("cat ../back/new.txt")
    assert torch_scene.sh("cat net.py") == torch_scene.sh("cat ../back/net.py")
    assert own == values
    assert digest == torch_scene.sh(f"sha256sum {path}").split()[0]
