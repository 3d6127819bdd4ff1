"""What is promised of where jobs of a queue run: what was queued, in a folder of their own, with all that is beside it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import Scene, furnish
from kit import Tree, sealed_here, tree_of, untouched

from numb import atomic
from numb.jobs import Codes
from numb.project import Project
from numb.workplace import Code, Workplace, note

# -- the folder itself, without a training


class Lab:
    """A project, and workplaces of it; jobs there are words of a shell."""

    def __init__(self, scene: Scene, at: str = "") -> None:
        self.scene, self.env = scene, scene.env
        self.project = Project.open(scene.root / at)
        self.codes = Codes(scene.root.parent / "codes", self.project.snapshots)
        atomic.make_directory(self.project.layout.folder)
        self.places: list[Workplace] = []

    def place(self) -> Workplace:
        place = self.project.workplace()
        self.places.append(place)
        return place

    def queued(self) -> Code:
        """The project as it is now."""
        return self.codes.take(())

    def shown(self, code: Code | None = None, place: Workplace | None = None) -> Workplace:
        place = place or self.place()
        place.show(code or self.queued())
        return place

    def kept(self, into: Path, wanted: Mapping[str, str]) -> dict[str, str]:
        """What of the files that are *wanted* was kept; those from above the project lie beside, by their full paths."""
        above = into.with_name(f"{into.name}-above") / str(self.scene.root.parent).lstrip("/")
        paths = {path: above / path[3:] if path.startswith("../") else into / path for path in wanted}
        same = Path(self.env["HOME"], "w")  # a copy
        found = {path: place.read_bytes() for path, place in paths.items()}
        return {
            path: "$HOME/w" if same.exists() and content == same.read_bytes() else content.decode()
            for path, content in found.items()
        }

    def home(self, place: Workplace) -> Path:
        return place.at(self.project.place)

    def sh(self, place: Workplace, script: str, *, check: bool = True) -> str:
        """What a job says that types this there."""
        words = ["bash", "-euc", script]
        done = subprocess.run(words, cwd=self.home(place), env=self.env, capture_output=True, check=False)
        assert not check or not done.returncode, done.stderr
        return done.stdout.decode(errors="surrogateescape")

    def live(self, script: str) -> str:
        """What it would say in the work tree."""
        done = subprocess.run(
            ["bash", "-euc", script], cwd=self.project.home, env=self.env, capture_output=True, check=True
        )
        return done.stdout.decode(errors="surrogateescape")


@pytest.fixture
def lab(empty: Scene) -> Iterator[Lab]:
    empty.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}}')
    empty.write(".gitignore", "*.ignored\n__pycache__/\n")
    empty.sh(
        "echo a > a.txt; mkdir pkg; echo 'x = 1' > pkg/m.py; touch pkg/__init__.py train.py; echo 1 > pkg/run.sh; chmod +x pkg/run.sh;"
        " ln -s a.txt link; ln -s pkg packages; ln -s ../data outside; git add -A; git commit -qm first"
    )
    with sealed_here(empty):
        lab = Lab(empty)
        yield lab
        for place in lab.places:
            place.close()


def looks(top: Path) -> dict[str, tuple[str, bytes | str]]:
    """Every path below a folder: its kind and mode, and its bytes or where it leads; folders of links are not gone into."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            kind = "x" if stat.S_ISREG(mode) and mode & 0o100 else stat.filemode(mode)[0]
            link = path.is_symlink()
            content: bytes | str = os.readlink(path) if link else path.read_bytes() if path.is_file() else ""
            if "__pycache__" not in path.parts:
                found[os.path.relpath(path, top)] = (kind, content)
    return found


def around(place: Workplace) -> tuple[dict[str, tuple[str, bytes | str]], list[str]]:
    """What a job finds, and what it finds beside the project."""
    return looks(place.top), sorted(os.listdir(place.top.parent))


SIGHTS = {  # by what is there: who makes it, and how a script looks at it
    "an ignored folder": ("mkdir -p d.ignored/e && echo 1 > d.ignored/e/x", "cat d.ignored/e/x"),
    "an ignored file": ("echo 1 > x.ignored && echo 2 > pkg/y.ignored", "cat x.ignored pkg/y.ignored"),
    "an ignored file in a folder of its own": ("mkdir out && echo 1 > out/x.ignored", "cat out/x.ignored"),
    "an ignored file in a folder with others": ("mkdir o && echo 1 > o/x.ignored && echo 2 > o/y", "cat o/*"),
    "a folder that .gitignore takes whole": ("mkdir q && echo '*' > q/.gitignore && echo 1 > q/x", "cat q/x"),
    "what .git/info/exclude names": ("echo own > .git/info/exclude && echo 1 > own", "cat own"),
    "a large file": ("head -c 21000000 /dev/zero > large.bin", "wc -c large.bin"),
    "a secret": ("echo token > .env && mkdir s && echo key > s/id_rsa", "cat .env s/id_rsa"),
    "a repository inside": ("git init -q lib && echo 1 > lib/f && git -C lib add f && git -C lib commit -qm l", "cat lib/f"),
    "one without a commit": ("git init -q lib && echo 1 > lib/f", "cat lib/f"),
    "a submodule": (
        "git init -q ../sub && echo 1 > ../sub/f && git -C ../sub add f && git -C ../sub commit -qm s && git -c"
        " protocol.file.allow=always submodule --quiet add ../sub sub && git commit -qm s && echo 2 > sub/g",
        "cat sub/f sub/g && git -C sub log --format=%s",
    ),
    "one that is not checked out": (
        "git init -q ../bus && git -C ../bus commit -q --allow-empty -m s && git -c protocol.file.allow=always submodule"
        " --quiet add ../bus bus && git commit -qm s && git submodule --quiet deinit -f bus",
        "ls -A bus",
    ),
    "a folder beside the project": ("mkdir ../data && echo 1 > ../data/x", "cat ../data/x && cat outside/x"),
    "two levels up": ("up=../../up-$(basename $(dirname $HOME)) && mkdir $up && echo 1 > $up/x", "cat ../../up-$(basename $(dirname $HOME))/x"),
    "up to the top": (":", 'ls -d "$(realpath --relative-to "$HOME/../project" /etc/passwd)"'),
    "by its absolute path": ("echo 1 > x.ignored", "cat $HOME/../project/x.ignored"),
    "a link to outside": ("mkdir ../o && echo 1 > ../o/x && ln -s ../o l && ln -s $HOME h", "cat l/x && ls -A h"),
    "a link that leads nowhere": ("ln -s nowhere n && ln -s no.ignored m.ignored", "readlink n; ! cat m.ignored"),
    "a loop of links": ("ln -s loop loop && ln -s .. pkg/up", "readlink loop; cat pkg/up/a.txt"),
    "executables": ("echo 'echo hi' > r.sh && chmod +x r.sh && echo 1 > no", "./r.sh; stat -c %A no r.sh pkg/run.sh"),
    "ends of lines": (
        "printf '*.txt text eol=crlf\\n*.bin -text\\n' > .gitattributes && printf '1\\r\\n' > c.txt && printf '1\\r\\n' > x.bin"
        " && printf '1\\r\\n' > plain",
        "od -c c.txt x.bin plain",
    ),
    "ends of lines, where git changes them": (
        "git config core.autocrlf true && printf '1\\r\\n2\\r\\n' > crlf && printf '\\0\\r\\n' > bin", "od -c crlf bin"
    ),
    "a filter": (
        "git config filter.up.clean 'tr a-z A-Z' && git config filter.up.smudge 'tr A-Z a-z' && echo '*.up filter=up' >"
        " .gitattributes && echo loud > x.up",
        "cat x.up",
    ),
    "an encoding": (
        "echo '*.u16 working-tree-encoding=UTF-16LE-BOM' > .gitattributes && echo hé | iconv -f utf-8 -t utf-16 > x.u16",
        "od -c x.u16",
    ),
    "odd names": (
        r"""touch -- "$(printf 'new\nline')" 'a b' ' ' -rf '"q"' "$(printf 'latin-\xe9')" 'x:y' '*' ö $'tab\t' """
        r"""&& mkdir "$(printf 'd\xff\n.ignored')" && echo 1 > "$(printf 'd\xff\n.ignored/\xfe')" """,
        "ls -A --ignore=.git --ignore=.nmb --quoting-style=c; cat d?*.ignored/?",
    ),
    "an empty file": ("touch empty", "stat -c %s empty"),
    "a sparse checkout": ("git sparse-checkout set --cone && echo 1 > new", "cat a.txt new"),
    "what is ignored and tracked": ("echo 1 > k.ignored && git add -f k.ignored && git commit -qm k", "cat k.ignored"),
    "staged, edited, deleted": ("echo 1 > a.txt; git add a.txt; echo 2 > a.txt; rm pkg/__init__.py", "cat a.txt; ls pkg"),
    "a folder of links": ("mkdir k && ln -s ../a.txt k/a && ln -s ../pkg k/p && ln -s /etc k/etc", "cat k/a k/p/m.py; ls -d k/etc/."),
}  # fmt: skip


# Those that would change what the others find.
ALONE = ("ends of lines", "ends of lines, where git changes them", "a sparse checkout")


@pytest.mark.parametrize("names", [[name for name in SIGHTS if name not in ALONE], *([name] for name in ALONE)])
def test_a_script_finds_what_it_would_find(lab: Lab, names: list[str]) -> None:
    """Whatever a relative path leads to from the project, in the snapshot or beside it, it leads to from where a job runs."""
    for name in names:
        lab.scene.sh(f"{SIGHTS[name][0]}")
    with untouched(lab.scene):
        place = lab.shown()
        there = {name: lab.sh(place, SIGHTS[name][1]) for name in names}
        assert [] == place.tidy("ID")[1], "nothing has been written"
    assert there == {name: lab.live(SIGHTS[name][1]) for name in names}
    assert all(text for name, text in there.items() if name != "one that is not checked out")


HARM = {  # by what a job does: how, and what of it is kept
    "a file is changed": ("echo 2 > a.txt", {"a.txt": "2\n"}),
    "a file grows": ("echo 2 >> pkg/m.py", {"pkg/m.py": "x = 1\n2\n"}),
    "a file is replaced": ("echo b > b && mv b a.txt", {"a.txt": "b\n"}),
    "a file as long and as old": ("touch -r a.txt t && echo b > a.txt && touch -r t a.txt && rm t", {"a.txt": "b\n"}),
    "a file is deleted": ("rm a.txt", {}),
    "a file is renamed": ("mv a.txt z.txt", {"z.txt": "a\n"}),
    "a folder is deleted": ("rm -r pkg", {}),
    "a folder is renamed": ("mv pkg gkp", {"gkp/m.py": "x = 1\n"}),
    "a folder becomes a file": ("rm -r pkg && echo x > pkg", {"pkg": "x\n"}),
    "a folder becomes a link": ("mv pkg p && ln -s p pkg", {"p/m.py": "x = 1\n"}),
    "a file becomes a folder": ("rm a.txt && mkdir a.txt && echo x > a.txt/x", {"a.txt/x": "x\n"}),
    "a file becomes a link": ("rm a.txt && ln -s pkg/m.py a.txt", {}),
    "a file becomes a program": ("chmod +x a.txt", {"a.txt": "a\n"}),
    "a program becomes a file": ("chmod -x pkg/run.sh", {"pkg/run.sh": "1\n"}),
    "a link of git's leads elsewhere": ("ln -sfn pkg/m.py link", {}),
    "a link of git's is deleted": ("rm link packages", {}),
    "a link becomes a file": ("rm link && echo x > link", {"link": "x\n"}),
    "a link to data is deleted": ("rm d.ignored", {}),
    "a link to data leads elsewhere": ("ln -sfn /etc d.ignored", {}),
    "a link to data becomes a folder": ("rm d.ignored && mkdir d.ignored && echo x > d.ignored/y", {"d.ignored/y": "x\n"}),
    "a link to data is renamed": ("mv d.ignored e.ignored", {}),
    "a folder with a link is deleted": ("rm -r o", {}),
    "a file is made": ("echo x > new && echo y > pkg/new", {"new": "x\n", "pkg/new": "y\n"}),
    "folders are made": ("mkdir -p e/f/g h && echo x > e/f/g/x", {"e/f/g/x": "x\n"}),
    "an ignored file is made": ("echo x > w.ignored", {"w.ignored": "x\n"}),
    "bytes are made": ("head -c 3000000 /dev/urandom > pkg/w.bin && cp pkg/w.bin $HOME/w", {"pkg/w.bin": "$HOME/w"}),
    "links are made": ("ln -s a.txt l && ln -s /etc etc", {}),
    "a repository is made": ("git init -q r && git -C r commit -q --allow-empty -m r", {"r/.git/HEAD": "ref: refs/heads/main\n"}),
    "a repository is made here": ("git init -q . && git commit -q --allow-empty -m r", {".git/HEAD": "ref: refs/heads/main\n"}),
    "odd names": ("echo x > $'latin-\\xe9' && mkdir $'d\\n' && echo y > $'d\\n/-rf'", {"latin-\udce9": "x\n", "d\n/-rf": "y\n"}),
    "a pipe and a socket": ("mkfifo p && python -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'", {}),
    "a file is made above": (
        "echo x > ../above.txt && mkdir ../results && echo y > ../results/y", {"../above.txt": "x\n", "../results/y": "y\n"}
    ),
    "a link above is deleted": ("rm ../data", {}),
    "a link above becomes a folder": ("rm ../data && mkdir ../data && echo x > ../data/x", {}),
    "all is deleted": ("shopt -s dotglob; rm -rf -- *", {}),
    "the folder itself is deleted": ('rm -rf "$PWD"', {}),
    "a folder that nobody may read": ("mkdir no && echo x > no/x && chmod 0 no", {"no/x": "x\n"}),
    "a file that nobody may read": ("chmod 0 a.txt", {"a.txt": "a\n"}),
    "a folder that nobody may write": ("mkdir ro && echo x > ro/x && chmod 555 ro pkg", {"ro/x": "x\n"}),
}  # fmt: skip


DATA = "mkdir d.ignored ../data o; echo 1 > d.ignored/x; echo 1 > ../data/x; echo 1 > o/f; echo 1 > o/x.ignored"


def test_what_a_job_does_is_kept_and_undone(lab: Lab) -> None:
    """The next job finds what was queued, and the links; what was written lies in `.nmb/left/ID`, byte for byte."""
    lab.scene.sh(DATA)
    place = lab.shown(code := lab.queued())
    before, left = around(place), lab.project.layout.left
    with untouched(lab.scene):
        for number, (name, (does, kept)) in enumerate(HARM.items()):
            lab.sh(place, does)
            into, written = place.tidy(f"run{number}")
            place.show(code)

            assert before == around(place), name
            assert (left / f"run{number}", bool(written)) == (into, into.exists()), name
            assert kept == lab.kept(into, kept), name
            assert [] == place.tidy("next")[1], name
    assert lab.live("cat d.ignored/x ../data/x") == "1\n1\n", "what is the user's is where it was"


def test_what_a_killed_worker_leaves_is_cleared(lab: Lab) -> None:
    """A job that nobody has cleared up after does not show in the next one."""
    lab.scene.sh(DATA)
    place = lab.shown(code := lab.queued())
    before = around(place)
    with untouched(lab.scene):
        for name, (does, _) in HARM.items():
            lab.sh(place, does)
            place.close()
            place = lab.shown(code)
            assert before == around(place) and [] == place.tidy("next")[1], name
    assert "1\n1\n" == lab.live("cat d.ignored/x ../data/x")
    assert "x = 1\n" in lab.live("cat .nmb/left/unknown-*/gkp/m.py"), "what it has written is kept"


def test_what_a_job_writes_again_is_kept_again(lab: Lab) -> None:
    """A run that goes on has the name that it had: what it wrote the first time stays, and nothing is left in the way."""
    place = lab.shown(code := lab.queued())
    found = []
    for word in ("one", "two", "three"):
        place.show(code)
        lab.sh(place, f"mkdir out && echo {word} > out/f")
        found.append(place.tidy("ID"))

    left = lab.project.layout.left
    assert [(left / name, ["out"]) for name in ("ID", "ID-2", "ID-3")] == found
    assert ["one\n", "two\n", "three\n"] == [(into / "out/f").read_text() for into, _ in found]
    assert "kept in .nmb/left/ID-3: out" in note(*found[2])


EDITS = (
    "echo 2 > a.txt; echo 'x = 2' > pkg/m.py",
    "rm -r a.txt pkg link",
    "echo 1 > new.py; mkdir torch; touch torch/__init__.py; echo 1 > pkg/new",
    "git mv pkg src; git commit -qm moved; git mv a.txt b.txt",
    "git rm -qr pkg; git commit -qm less; git switch -qc other",
    "chmod +x a.txt; chmod -x pkg/run.sh",
    "rm -r pkg link; echo x > pkg; mkdir link; echo x > link/x",
    "echo > .gitignore; echo 1 > new.ignored",
    "echo '{}' > nmb.json",
    "echo 2 > a.txt; git stash -q; git stash pop -q; echo 1 > b; git add b; git rm -q --cached a.txt",
)


def test_what_is_edited_later_is_for_later_entries(lab: Lab) -> None:
    """Who begins, or looks again, or has shown another snapshot, finds what was queued; what is queued now is what is now."""
    lab.scene.sh("echo 1 > x.ignored; mkdir void; git branch begin")
    place, other = lab.shown(first := lab.queued()), lab.place()
    before = looks(place.top)
    for edit in EDITS:
        lab.scene.sh(edit)
        second = lab.queued()
        with untouched(lab.scene):
            place._looked = 0.0
            again = looks(lab.shown(first, place).top)
            lab.shown(second, other)
            later, written = looks(other.top), other.tidy("ID")[1]
            back = looks(lab.shown(first, other).top)
        links = {
            path for path, (kind, _) in later.items() if kind == "l" and os.path.isabs(os.readlink(other.top / path))
        }
        now = {path: look for path, look in looks(lab.scene.root).items() if path.split("/")[0] not in (".git", ".nmb")}

        assert (before, before, []) == (again, back, written), edit
        assert links <= {"x.ignored", "void"} and later.keys() == now.keys(), edit
        assert {path: now[path] for path in now if path not in links} == {p: later[p] for p in later if p not in links}
        lab.scene.sh("git switch -qf main; git reset -q --hard begin; git clean -fdq; mkdir -p void; rm -f new.ignored")


def test_what_is_ignored_is_what_it_is_now(lab: Lab) -> None:
    """Data that comes later is reached; of what has gone no link stays in the way."""
    lab.scene.sh("mkdir d.ignored e.ignored; echo 1 > d.ignored/x")
    place = lab.shown(code := lab.queued())
    lab.scene.sh(
        "rm -r d.ignored; echo 2 > later.ignored; echo 3 > pkg/later.ignored; echo 1 > ../beside; mkdir o; echo 1 > o/x.ignored"
    )
    place._looked = 0.0
    place.show(code)

    assert "2\n3\n1\n1\n" == lab.sh(place, "cat later.ignored pkg/later.ignored ../beside o/x.ignored; mkdir d.ignored")
    assert ["d.ignored"] == place.tidy("ID")[1]


def test_no_link_is_made_through_a_link(lab: Lab) -> None:
    """A folder that is a link in the snapshot, and a real one now, is no way to somebody's files."""
    lab.scene.sh("mkdir -p ../data/empty.ignored; ln -s ../data d; ln -s ../data lib")
    code = lab.queued()
    lab.scene.sh("rm d; mkdir -p d/empty.ignored d/two.ignored; rm lib; git init -q lib; echo 1 > lib/x.ignored")
    place = lab.shown(code)
    place._looked = 0.0
    place.show(code)

    assert "empty.ignored\n" == lab.live("ls -A ../data") == lab.sh(place, "ls -A d")
    assert not os.path.islink(lab.scene.root.parent / "data/empty.ignored") and [] == place.tidy("ID")[1]


@pytest.mark.parametrize("where", ["a linked work tree", "a folder of the repository", "a submodule"])
def test_a_project_may_lie_anywhere(lab: Lab, where: str) -> None:
    """The work tree is the one in which the project is, and its relative paths lead to what they lead to there."""
    scene = lab.scene
    if where == "a linked work tree":
        scene.sh("git worktree add -q ../tree; echo 2 > ../tree/a.txt")
        there, at = Scene(scene.root.parent / "tree", Path(scene.env["HOME"])), ""
    elif where == "a submodule":
        scene.sh(
            "git init -q ../outer; cd ../outer; git -c protocol.file.allow=always submodule --quiet add ../project tree;"
            " git commit -qm o; echo 2 > tree/a.txt; cp ../project/nmb.json tree"
        )
        there, at = Scene(scene.root.parent / "outer/tree", Path(scene.env["HOME"])), ""
    else:
        scene.sh("mkdir sub; cp nmb.json sub; echo 2 > sub/a.txt; echo 1 > sub/x.ignored")
        there, at = scene, "sub"
    other = Lab(there, at)
    other.live("echo 1 > y.ignored; mkdir -p ../beside; echo 1 > ../beside/x")
    with untouched(scene):
        place = other.shown()
        look = "cat a.txt *.ignored ../beside/x; ls -d ../*/nmb.json ..; git rev-parse HEAD"
        found = other.sh(place, look)
        other.sh(place, "echo 3 > a.txt; echo 1 > new")
        assert [str(Path(at, "a.txt")), str(Path(at, "new"))] == place.tidy("ID")[1]
    assert found == other.live(look) and found.startswith("2\n1\n")
    place.close()


def test_every_worker_has_its_own(lab: Lab) -> None:
    """As long as it lives; then the next one has it."""
    first, second = lab.place(), lab.place()
    assert first.top != second.top
    first.close()
    assert first.top == lab.place().top


def test_a_script_that_outlives_its_worker_keeps_its_folder(lab: Lab) -> None:
    """Nobody clears up below its feet; when it has ended, the folder is free."""
    code, place = lab.queued(), lab.place()
    place.show(code)
    with subprocess.Popen(["sleep", "60"], cwd=place.top) as script:
        place.use(script.pid)
        place.close()
        other = lab.place()
        script.kill()
    other.close()

    assert place.top != other.top and place.top == lab.place().top


def test_a_worker_that_is_killed_while_it_lays_out_harms_nobody(lab: Lab) -> None:
    """Half of a snapshot, without an index or with that of another and the lock of a git: what is shown is whole."""
    first = lab.queued()
    lab.scene.sh("echo 2 > a.txt; rm -r pkg; echo 1 > new")
    second = lab.queued()
    whole = looks(lab.shown(second).top)
    place = lab.shown(first)
    lab.sh(place, "echo 2 > a.txt; rm pkg/m.py; echo half > new; ln -s $HOME l")
    place.index.with_name("index.lock").touch()
    place.close()
    assert whole == looks(lab.shown(second).top)
    place.index.unlink()
    lab.places[-1].close()
    assert whole == looks(lab.shown(second).top) and place.top == lab.places[-1].top


def test_a_git_that_outlives_its_worker_is_waited_for(lab: Lab) -> None:
    """It has the index locked, and goes on writing files."""
    place = lab.shown(code := lab.queued())
    lab.scene.sh("echo 2 > a.txt")
    lock = place.index.with_name("index.lock")
    git = 'exec 3> "$1"; echo locked; sleep 0.3; echo from git > "$2/a.txt"; rm "$1"'
    with subprocess.Popen(["bash", "-c", git, "git", lock, place.top], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        place.close()
        lab.shown(lab.queued())
        assert process.wait() == 0
    assert "2\n" == lab.sh(place, "cat a.txt") and code.name


def test_what_python_has_compiled_is_of_the_source_that_is_there(lab: Lab) -> None:
    """Of another source as long, from the same second, it would take what it knows: that is another job's code."""
    lab.env.pop("PYTHONPYCACHEPREFIX")
    place, found = lab.place(), []
    for n in range(1, 7):
        lab.scene.write("pkg/m.py", f"x = {n}\n")
        place.show(lab.queued())
        found.append(lab.sh(place, "python -c 'import pkg.m; print(pkg.m.x)'"))

    assert [f"{n}\n" for n in range(1, 7)] == found


def test_a_package_that_is_gone_is_gone(lab: Lab) -> None:
    """What Python keeps of it does not keep its folder, and nobody is said to have written that."""
    lab.env.pop("PYTHONPYCACHEPREFIX")
    place = lab.shown()
    lab.sh(place, "python -c 'import pkg.m'; ls pkg/__pycache__")
    assert [] == place.tidy("ID")[1]
    lab.scene.sh("git rm -qr pkg packages")

    assert "a.txt\nlink\nnmb.json\noutside\ntrain.py\n" == lab.sh(lab.shown(place=place), "ls")
    assert [] == place.tidy("ID")[1]


def test_git_may_collect_what_nobody_runs_any_more(lab: Lab) -> None:
    """`git gc --prune=now`: what is queued stays, and what was shown before is not needed to show something else."""
    first = lab.queued()
    place = lab.shown(first)
    lab.scene.sh("echo 2 > a.txt")
    second = lab.queued()
    lab.scene.sh("echo 3 > a.txt; git gc --quiet --prune=now")
    assert "2\n" == lab.sh(lab.shown(second, place), "cat a.txt")
    lab.codes.drop([first.name, second.name])
    lab.scene.sh("git reflog expire --expire=now --all; git gc --quiet --prune=now; git fsck --strict")

    assert "3\n" == lab.sh(lab.shown(place=place), "cat a.txt")
    place.close()
    lab.scene.sh("echo 4 > a.txt")
    assert "4\n" == lab.sh(lab.shown(), "cat a.txt")


def test_a_snapshot_is_the_same_for_who_loads_it(lab: Lab) -> None:
    """With all that could not be in it, whatever that is called."""
    lab.scene.sh(
        r"""echo 1 > .env; mkdir void $'odd\n'; echo 1 > $'odd\n/\xff.ignored'; git init -q lib; git -C lib commit -q --allow-empty -m l"""
    )
    code = lab.codes.take(["a", "b"])

    assert (code, frozenset({"a", "b"})) == lab.codes.load(code.name)
    assert [".env"] == [each.path for each in code.left_out] and ["lib"] == [each.path for each in code.nested]
    assert {".nmb/", "void/", "odd\n/", ".env"} <= set(code.beside)


# -- a queue, from the shell

SCRIPT = """
import os, subprocess, sys, time
from numb import numb_param, numb_queue, numb_trial_result
n, do = 0, ""
numb_queue(globals())
numb_param({"n": n, "do": do})
import helper
there = os.environ["THERE"]
open(f"{there}/begun-{n}", "w").close()
while do == "wait" and not os.path.exists(f"{there}/go"):
    time.sleep(0.01)
where = os.getcwd()
done = subprocess.run(["bash", "-c", do if do != "wait" else ":"], capture_output=True, text=True)
numb_trial_result({"x": helper.x})
with open(f"{there}/said-{n}", "w") as said:
    said.write("\\n".join([where, " ".join(sys.argv[1:]), done.stdout + done.stderr]))
"""


@pytest.fixture
def shop(empty: Scene, tmp_path: Path) -> Scene:
    """A project whose script does what its entry says, and tells what it has found."""
    furnish(empty, {"train.py": SCRIPT, "helper.py": "x = 1\n", "data.txt": "data\n"})
    empty.env["THERE"] = str(tmp_path / "there")
    (tmp_path / "there").mkdir()
    return empty


def queue(scene: Scene, *entries: Mapping[str, object], file: str = "q.json") -> None:
    scene.write(file, json.dumps([{"n": n, **entry} for n, entry in enumerate(entries)]))


def said(scene: Scene, n: int) -> tuple[str, str, str]:
    """Where an entry was trained, with which words, and what it has found."""
    where, words, found = Path(scene.env["THERE"], f"said-{n}").read_text().split("\n", 2)
    return where, words, found


def now(scene: Scene) -> Tree:
    """The oracle: what `git add -A` would record."""
    index = "GIT_INDEX_FILE=$THERE/index"
    return tree_of(scene, scene.sh(f"cp .git/index $THERE/index; {index} git add -A; {index} git write-tree"))


def until(scene: Scene, what: str) -> None:
    scene.sh(f"timeout 60 bash -c 'until {what}; do sleep 0.02; done'")


@pytest.mark.parametrize("how", [[], ["-j", "2"], ["-j", "1", "--cold"]], ids=["here", "warm", "cold"])
def test_jobs_run_what_was_queued(shop: Scene, how: list[str]) -> None:
    """What is edited after the start is seen by what is added after it, and by no other; each record has what has run."""
    queue(shop, {"do": "wait"}, {"do": "ls; cat data.txt"}, {"do": "cat a.txt"}, {"do": "git rev-parse HEAD"})
    shop.sh("echo 1 > a.txt")
    worker = shop.start("queue", "run", "q.json", *how)
    until(shop, 'test -e "$THERE/begun-0"')
    head, first = shop.sh("git rev-parse HEAD"), now(shop)
    shop.sh(
        "echo x = 2 > helper.py; rm data.txt; echo 2 > a.txt; echo 1 > new.txt; git commit -qam second; echo 2 > b.txt"
    )
    shop.write("nmb.json", '{"version": 1, "train": {"command": "python train.py changed"}}')
    added = shop.numb("queue", "add", "q.json", "n=4", "do=ls")
    second = now(shop)
    if how:
        shop.sh("echo x = 3 > helper.py")
        shop.write("q.json", shop.read("q.json").rstrip().removesuffix("]") + ', {"n": 5, "do": "cat a.txt"}]')
        until(shop, 'test "$(ls .nmb/queues/*/ | grep code\\\\. | cut -d. -f1 | sort -u | wc -l)" = 2')
    shop.sh("echo x = 4 > helper.py; echo '{' > nmb.json")
    if not how:  # nobody writes to git at this moment, which `--prune=now` does not bear
        shop.sh("git gc --quiet --prune=now")
    before = shop.users(), shop.sh("git --no-optional-locks status; git worktree list; git stash list")
    shop.sh("touch $THERE/go")
    _, err = worker.communicate(timeout=60)
    assert before == (shop.users(), shop.sh("git --no-optional-locks status; git worktree list; git stash list"))
    shop.write("nmb.json", '{"version": 1, "train": {"command": "python train.py"}}')
    runs = {run["params"]["n"]: run for run in shop.runs()}

    assert (0, 0) == (worker.returncode, added.code), err.decode()
    assert [1, 1, 1, 1, 2, *([3] if how else [])] == [runs[n]["results"]["x"] for n in sorted(runs)]
    assert "a.txt\ndata.txt\nhelper.py\nnmb.json\nq.json\ntrain.py\ndata\n" == said(shop, 1)[2]
    assert ("", "1\n") == said(shop, 2)[1:]
    assert ("changed", "a.txt\nb.txt\nhelper.py\nnew.txt\nnmb.json\nq.json\ntrain.py\n") == said(shop, 4)[1:]
    later = shop.sh("git rev-parse HEAD")
    for n, tree, base in [(0, first, head), (1, first, head), (3, first, head), (4, second, later)]:
        assert tree == tree_of(shop, runs[n]["commit"]), n
        assert base == runs[n]["base"] == shop.sh(f"git rev-parse {runs[n]['commit']}^2"), n
    assert "" == shop.sh("ls .nmb/runs; git for-each-ref refs/numb/pins")
    shop.sh("git fsck --strict --no-dangling")


def test_what_a_job_writes_beside_itself_is_kept(shop: Scene) -> None:
    """In `.nmb/left/ID`, which its record names; the next job does not find it, and nothing of the user's is touched."""
    shop.sh("mkdir out.ignored ../beside")
    writes = (
        "echo x > made; mkdir -p d/e; echo y > d/e/f; echo 2 > data.txt; rm helper.py out.ignored; echo b > ../b;"
        r" printf '\xff' > $'odd-\xff'"
    )
    queue(shop, {"do": writes}, {"do": "ls . ..; cat data.txt"}, {"do": "rm -rf $PWD"}, {"do": "ls . ..; cat data.txt"})
    with untouched(shop):
        done = shop.numb("queue", "run", "q.json")
    first = shop.runs()[0]["id"]
    left = shop.root / ".nmb/left" / first

    assert (0, {"data.txt", "made", "d", "odd-\udcff"}) == (done.code, {path.name for path in left.iterdir()}), (
        done.stderr
    )
    assert ("2\n", "x\n", "y\n") == tuple((left / name).read_text() for name in ("data.txt", "made", "d/e/f"))
    assert b"\xff" == (left / "odd-\udcff").read_bytes()
    assert "b\n" == (left.with_name(f"{first}-above") / str(shop.root.parent / "b").lstrip("/")).read_text()
    assert f"kept in .nmb/left/{first}: ../b, d, data.txt, made, odd-" in shop.numb("show", first).stdout
    assert said(shop, 1)[2] == said(shop, 3)[2] == shop.sh("ls --ignore=.nmb . .. | grep -v said; cat data.txt") + "\n"


def test_two_queues_at_once_have_folders_of_their_own(shop: Scene) -> None:
    """And whoever comes next has one of those; --live is in place, with what is there then."""
    queue(shop, {"do": "wait"}, file="a.json")
    queue(shop, {}, {"do": "wait"}, {}, file="b.json")
    first = shop.start("queue", "run", "a.json")
    until(shop, 'test -e "$THERE/begun-0"')
    second = shop.start("queue", "run", "b.json")
    until(shop, 'test -e "$THERE/begun-1"')
    shop.sh("echo x = 2 > helper.py; touch $THERE/go; rm data.txt")
    for worker in (first, second):
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    queue(shop, {"do": "ls"}, file="c.json")
    here = said(shop, 0)[0], said(shop, 1)[0]
    live = shop.numb("queue", "run", "c.json", "--live", "--again")

    assert 0 == live.code and len({*here, said(shop, 0)[0]}) == 3 and str(shop.root) == said(shop, 0)[0]
    assert "data.txt" not in said(shop, 0)[2] and {1, 2} == {run["results"]["x"] for run in shop.runs()}


def test_a_killed_queue_leaves_nothing_in_the_way(shop: Scene) -> None:
    """Its whole group is killed while a job has written here and there: the same entry, and the next, find what was queued."""
    shop.env["FIRST"] = f"{shop.env['THERE']}/first"
    mess = "if mkdir $FIRST; then echo bad > helper.py; rm data.txt; mkdir m; touch m/x; touch $THERE/messed; sleep 60; else ls; fi"
    queue(shop, {"do": mess}, {"do": "ls; cat data.txt"})
    worker = shop.start("queue", "run", "q.json")
    until(shop, 'test -e "$THERE/messed"')
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
    with untouched(shop):
        done = shop.numb("queue", "run", "q.json")
    listed = "data.txt\nhelper.py\nnmb.json\nq.json\ntrain.py\n"

    assert (0, ["complete", "complete", "lost"]) == (done.code, sorted(run["status"] for run in shop.runs())), (
        done.stderr
    )
    assert listed in said(shop, 0)[2] and f"{listed}data\n" == said(shop, 1)[2]
    assert 1 == len([*(shop.root / ".nmb/left").glob("unknown-*/m/x")]) and 0 == shop.numb("doctor").code


def test_what_was_complete_is_done_though_nobody_could_say_so(shop: Scene) -> None:
    """A worker that is killed after the end of a run, and before it has said how it ended: it is not trained again."""
    queue(shop, {}, {"do": "wait"}, {})
    shop.sh("touch $THERE/go")
    assert 0 == shop.numb("queue", "run", "q.json").code
    shop.sh("rm .nmb/queues/*/*.done.*")
    status = json.loads(shop.numb("queue", "status", "q.json", "--json").stdout)
    again = shop.numb("queue", "run", "q.json")

    assert (["done"] * 3, 0, 3) == ([each["status"] for each in status], again.code, len(shop.runs()))


def test_runs_of_a_queue_are_runs(shop: Scene) -> None:
    """`numb show`, `list`, `compare` and `revert` tell and bring back what has run, as of any other run."""
    queue(shop, {"do": "echo 1 > new.txt"}, {})
    assert 0 == shop.numb("queue", "run", "q.json").code
    before = now(shop)
    shop.sh("echo x = 2 > helper.py; rm data.txt; echo 1 > other.txt; mkdir -p s; echo 1 > s/.env")
    first = shop.runs()[0]
    shown, listed, compared = shop.numb("show", first["id"]), shop.numb("list"), shop.numb("compare", "@", "@-1")
    reverted = shop.numb("revert", first["id"])

    assert (0, 0, 0, 0) == (shown.code, listed.code, compared.code, reverted.code), reverted.stderr + compared.stderr
    assert "written beside the script" in shown.stdout and first["id"] in listed.stdout
    assert "x = 1\n" == shop.read("helper.py") and before == {
        path: look for path, look in now(shop).items() if path != "s/.env"
    }
    assert [] == [name for name in os.listdir(shop.root / ".nmb") if name.startswith("runs/")]


def test_numb_finds_the_project_from_where_a_job_runs(shop: Scene) -> None:
    """And so does git, which is asked by scripts that write down a commit."""
    queue(
        shop,
        {},
        {"do": "git rev-parse HEAD --show-toplevel; python -m numb list --json; python -m numb show @ --json"},
    )
    done = shop.numb("queue", "run", "q.json")
    head, top, *rest = said(shop, 1)[2].splitlines()
    listed, end = json.JSONDecoder().raw_decode("\n".join(rest))
    shown = json.loads("\n".join(rest)[end:])
    runs = shop.runs()

    assert 0 == done.code and (shop.sh("git rev-parse HEAD"), str(shop.root)) == (head, top)
    assert [run["id"] for run in runs] == [run["id"] for run in listed] and shown["id"] in {run["id"] for run in runs}
    assert {".": 2} == {run["project"]: len(listed) for run in listed}


def installed(scene: Scene, folder: Path, how: str) -> str:
    """A Python for which the package in `src` is installed to be edited; returns its path."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    known = f"{Path(os.__file__).parent / 'site-packages'}\n"
    base = [path for path in sys.path if path.endswith("site-packages")]
    (site / "base.pth").write_text("\n".join([*base, known]))
    if how == "a path":
        (site / "own.pth").write_text(f"{scene.root}/src\n")
    elif how == "a finder":  # as setuptools makes it
        (site / "__editable___own_finder.py").write_text(
            "import sys\nfrom importlib.util import spec_from_file_location\n"
            f"MAPPING = {{'own': {str(scene.root / 'src/own')!r}}}\n"
            "class _EditableFinder:\n    @classmethod\n    def find_spec(cls, name, path=None, target=None):\n"
            "        if name in MAPPING:\n            return spec_from_file_location(name, MAPPING[name] + '/__init__.py')\n"
            "def install():\n    sys.meta_path.append(_EditableFinder)\n"
        )
        (site / "own.pth").write_text("import __editable___own_finder; __editable___own_finder.install()\n")
    return str(folder / "bin/python")


@pytest.mark.parametrize("how", ["a path", "a finder", "PYTHONPATH", "a relative PYTHONPATH", "a venv in the project"])
@pytest.mark.parametrize("workers", [[], ["-j", "1"]], ids=["here", "warm"])
def test_a_package_that_is_installed_to_be_edited_is_the_one_that_was_queued(
    shop: Scene, tmp_path: Path, how: str, workers: Sequence[str]
) -> None:
    """However Python finds it in the project: what is edited later is another job's."""
    place = shop.root / "venv.ignored" if how.endswith("project") else tmp_path / "venv"
    python = installed(shop, place, "a path" if how.endswith("project") else how)
    shop.write("src/own/__init__.py", "from own.part import x")
    shop.write("src/own/part.py", "x = 1")
    shop.sh("echo 'from own import x' > helper.py; echo 'import own.part' >> helper.py")
    command = "venv.ignored/bin/python" if how.endswith("project") else python
    shop.write("nmb.json", json.dumps({"version": 1, "train": {"command": [command, "train.py"]}}))
    if how.endswith("PYTHONPATH"):
        folder = "src" if "relative" in how else f"{shop.root}/src"
        shop.env["PYTHONPATH"] = f"{shop.env['PYTHONPATH']}:{folder}"
    queue(shop, {"do": "wait"}, {})
    worker = shop.start("queue", "run", "q.json", *workers)
    until(shop, 'test -e "$THERE/begun-0"')
    shop.sh("echo x = 2 > src/own/part.py; touch $THERE/go")
    _, err = worker.communicate(timeout=60)

    assert (0, [1, 1]) == (worker.returncode, [run["results"]["x"] for run in shop.runs()]), err.decode()


UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")  # root who obeys permissions


def test_permissions_are_no_obstacle(shop: Scene) -> None:
    """What a job has locked up, also of what was queued, is moved out, and the next one finds all."""
    locks = (
        "mkdir -p no/in ro; echo 1 > no/in/x; echo 1 > ro/x; chmod 0 no/in no train.py; chmod 555 ro pkg; rm -f data.txt; chmod 555 .",
        "ls; cat data.txt",
    )
    shop.sh("mkdir pkg; echo 1 > pkg/m.py")
    queue(shop, *({"do": each} for each in locks))
    words = [*UNPRIVILEGED, sys.executable, "-m", "numb", "queue", "run", "q.json"]
    done = subprocess.run(words, cwd=shop.root, env=shop.env, capture_output=True, text=True, timeout=60)

    assert (0, ["complete"] * 2) == (done.returncode, [run["status"] for run in shop.runs()]), done.stderr
    assert "data.txt\nhelper.py\nnmb.json\npkg\nq.json\ntrain.py\ndata\n" == said(shop, 1)[2]
    left = shop.root / ".nmb/left" / shop.runs()[0]["id"]
    assert ("1\n", "1\n") == ((left / "no/in/x").read_text(), (left / "ro/x").read_text())
