"""What the documents say is what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from blake3 import blake3
from conftest import Scene

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs" / "format.md").read_text()


def blocks(language: str) -> list[str]:
    return [found[1] for found in re.finditer(rf"```{language}\n(.*?)```", README, re.S)]


TRAINING = "net(__import__('torch').ones(2, 64)).sum().backward()"


def test_the_readme_works_as_it_stands(empty: Scene) -> None:
    """The files and the commands of the README's first screen, typed in order, give trialed runs in a table."""
    for text in blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", text):
            empty.write(
                name[1], text.replace("...", TRAINING).replace("accuracy_of(net)", "net.layers[0].weight.shape[0]")
            )
    empty.sh("git add -A && git commit -qm first")
    commands = [line[2:].partition("  #")[0].strip() for line in README.splitlines() if line.startswith("$ ")]
    assert ["pip install .", "cd my-project"] == commands[:2]
    for command in commands[2:]:
        done = empty.numb(command.removeprefix("numb "))
        assert 0 == done.code, f"{command}\n{done.stderr}"
        if command == "numb init":
            made = json.loads(empty.read("nmb.json"))
            assert {"version": 1, "train": made["train"], "trial": made["trial"]} == json.loads(blocks("json")[0])
        if command == "numb queue init rates.json":
            assert [{"lr": 0.1, "width": 32}] == json.loads(empty.read("rates.json"))
            empty.write("rates.json", blocks("json")[1])
    runs = empty.runs()
    assert [0.1, 0.3, 1.0] == [run["params"]["lr"] for run in runs]
    assert [32, 32, 32] == [run["params"]["width"] for run in runs] == [run["results"]["accuracy"] for run in runs]
    assert ["a first try", "", ""] == [run["message"] for run in runs]
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


@pytest.mark.usefixtures("warm")
def test_a_run_is_restored_with_git_and_the_format_alone(torch_scene: Scene) -> None:
    """Without numb: the code by git archive, a tensor by its manifest and a reader of floats."""
    torch_scene.sh("echo new > new.txt")
    torch_scene.trained()
    torch_scene.sh("mkdir ../back && git archive numb | tar -x -C ../back --exclude .nmb")
    manifest = json.loads(torch_scene.sh("git show numb:.nmb/run/weights/Net.json"))
    (entry,) = [e for e in manifest["tensors"] if e["name"] == "out.bias"]
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
    assert digest == blake3((torch_scene.root / path).read_bytes()).hexdigest()
