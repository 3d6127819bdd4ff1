"""What is promised of a page: everything about a run is on it, nothing that a run has said is obeyed, and nothing else is loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAM, Browser
from conftest import Scene
from kit import sealed_here

from numb import pages
from numb.errors import printable
from numb.project import Project
from numb.view import page

OWNED = "document.title='owned'"
WORDS = [
    f"<script>{OWNED}</script>",
    f"\"><img src=x onerror=\"{OWNED}\">",
    f"' onmouseover='{OWNED}",
    f"javascript:{OWNED}//",
    f"</style></script></title></pre><script>{OWNED}</script>",
    f"<svg onload={OWNED}>",
    f"<iframe srcdoc='<script>parent.{OWNED}</script>'>",
    "<base href=http://127.0.0.1:1/><link rel=stylesheet href=/x.css>",
    "<style>*{display:none}</style>",
    "{{7*7}} {% include '/etc/passwd' %} ${7*7} \\u003cscript>",
    "\x1b[2J\x1b]0;owned\x07\x00",
    "\u202egnp.exe\u2066",
    "<!-- ]]> --> &amp; &lt;b&gt; <plaintext>",
    "long " + "x" * 5000,
]  # fmt: skip
BAD_SVG = f"""<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" onload="{OWNED}"><script>top.{OWNED}</script>
<image href="http://127.0.0.1:1/owned.png" width="9" height="9"/><rect width="40" height="30" fill="teal"/></svg>"""

# A script without torch that says hostile words wherever a script can say something.
HOSTILE = """
import json
import numb
from numb import numb_param, numb_queue, numb_trial_result
words = json.load(open("words.json"))
lr = 0.1
numb_queue()
numb_param({"lr": lr, "nested": {word[:200]: word for word in words}})
for step in range(3):
    numb.log(step=step, **{word[:200]: step * lr for word in words[:4]})
for number, word in enumerate(words):
    print(word)
    if word.isprintable() and len(word) < 100 and not any(each in word for each in ("//", "\\\\")):
        numb.save(f"{word}/a{number}.txt", word)
numb.save("bad.svg", open("bad.svg.txt", "rb").read())
numb.save("<b>.png", b"<script>" + words[0].encode())
numb_trial_result({word[:200]: lr for word in words[:5]})
raise RuntimeError(words[0] + words[1])
"""

# And one that says what anybody would.
PLAIN = """
import numb
from numb import numb_param, numb_queue, numb_trial_result
lr, opt = 0.1, "sgd"
numb_queue()
numb_param({"lr": lr, "opt": opt, "seed": 1})
val = numb.series("val", ["epoch", "acc"])
for step in range(8):
    numb.log(step=step, loss=2.0 ** -step * lr)
    if step % 2:
        val(epoch=step // 2, acc=step * lr)
print("step 1\\rstep 2\\rstep 3")
numb.save("plots/a.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30"/></svg>')
numb_trial_result({"acc": float("nan") if lr > 0.5 else lr, "loss": 1 - lr})
"""


class Parsed(HTMLParser):
    """A page as a reader of HTML sees it that is not numb's."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return "".join(text for tag, found in self.texts.items() if tag not in ("script", "style") for text in found)


def shown(path: Path) -> Parsed:
    """A page, of which nothing is anything but what numb itself has put there."""
    found = Parsed(path.read_text("utf-8"))
    script, style = (Path(page.__file__).with_name(name).read_text() for name in ("page.js", "page.css"))
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in (style, script)
    ]
    policy = f"default-src 'none'; img-src data:; style-src {hashes[0]}; script-src {hashes[1]}; base-uri 'none'; form-action 'none'"
    meta = found.all("meta")
    assert [{"charset": "utf-8"}, {"http-equiv": "Content-Security-Policy", "content": policy}] == meta[:2]
    assert ([script], [style]) == (found.texts["script"], found.texts["style"])
    assert {tag for tag, _ in found.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "p", "a", "ul", "li", "dl", "dt",
        "dd", "div", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "pre", "span", "details", "summary",
        "label", "input", "output", "script",
    }  # fmt: skip
    names = {name for _, attributes in found.tags for name in attributes}
    assert names <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "src", "alt", "scope", "data-key", "data-things",
        "hidden", "tabindex", "type", "autocomplete", "spellcheck",
    }  # fmt: skip
    addresses = [attributes.get("src", attributes.get("href")) for _, attributes in found.tags]
    assert all(
        re.match(r"#[\w-]+$|data:image/[a-z+]+;base64,[\w+/=]*$", each) for each in addresses if each is not None
    )
    assert found.text.replace("\n", "").isprintable()
    return found


def furnished(scene: Scene, script: str) -> Scene:
    """The scene with this script, committed."""
    scene.write("words.json", json.dumps(WORDS))
    scene.write("bad.svg.txt", BAD_SVG)
    scene.write("train.py", script)
    scene.sh("git add -A && git commit -qm script")
    return scene


def trained(scene: Scene, *words: str) -> str:
    """Train, whatever becomes of it, and return the id of the run."""
    scene.numb("train", *words)
    return str(scene.runs()[-1]["id"])


def hostile(scene: Scene) -> str:
    """A run whose every word is an attack, and a repository like it."""
    furnished(scene, HOSTILE)
    scene.sh(f"""git checkout -qb 'x"><img/src=x/onerror={OWNED.replace("'", "`")}>'""")
    scene.write("<b onclick=x>.py", "\n".join(WORDS))
    run = trained(scene, "-m", WORDS[0] + WORDS[10])
    for word in WORDS[:6]:
        assert 0 == scene.numb("note", run, word).code
    scene.numb("tag", run, "javascript.alert")
    return run


def page_of(scene: Scene, run: str, into: str = "one.html") -> Path:
    """The page of a run, without a process."""
    with sealed_here(scene):
        project = Project.open(scene.root)
        return project.page(project.find(run), scene.root / into)


def page_of_all(scene: Scene, into: str = "all.html") -> Path:
    with sealed_here(scene):
        return Project.open(scene.root).overview(scene.root / into)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of this file: it takes a second or two to start."""
    if PROGRAM is None:
        pytest.skip("there is no chromium")
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


# -- hostile words


def test_whatever_stands_in_a_page_is_text(tmp_path: Path) -> None:
    """In each place of each kind of block; a word comes out as it went in, but for control characters."""
    for word in WORDS:
        cells = [page.Cell(word, word), page.Cell(word, link="run-x")]
        blocks: list[page.Block] = [
            page.Words(word),
            page.Facts([(word, word)]),
            page.Table([word, word], [cells], right=(0,), filtered=word),
            page.Pictures([page.Picture(word, "image/png", word.encode())], [(word, "run-x"), (word, "")]),
            page.Text([("", word), ("add", word)]),
        ]
        blocks.append(page.Fold(word, blocks[:], "run-x", word))
        path = tmp_path / "page.html"
        path.write_text(page.html(page.Page(word, word, blocks, [page.Section(word, blocks)])))
        text = printable(word)
        assert 60 == shown(path).text.count(text)
        assert {text} == {each["data-key"] for each in Parsed(path.read_text()).all("td") if "data-key" in each}


def test_nothing_that_a_run_has_said_is_obeyed(scene: Scene, browser: Browser) -> None:
    """Wherever it was said: it is text, to a parser of HTML and to a real browser, which runs nothing and loads nothing."""
    run = hostile(scene)
    for path, title in ((page_of(scene, run), run), (page_of_all(scene), "project")):
        found = shown(path)
        for word in WORDS[:-1]:
            assert printable(word)[:100] in found.text, word
        assert "RuntimeError: <script>" in found.text
        assert "x" * 1900 in found.text and "x" * 2100 not in found.text
        browser.open(path.as_uri())
        browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert (title, []) == (browser.value("document.title"), browser.complaints)
        assert 1280 == browser.value("document.documentElement.scrollWidth")
        assert {"file", "data"} == {each.partition(":")[0] for each in browser.requests}
        assert 1 == len([each for each in browser.requests if each.startswith("file:")])
    assert "bad.svg" in [each["alt"] for each in shown(scene.root / "one.html").all("img")]


def test_the_policy_holds_where_escaping_would_not(scene: Scene, browser: Browser) -> None:
    """Were there a hole, a script, a handler, a style or a picture from elsewhere would still do nothing."""
    furnished(scene, PLAIN)
    run = trained(scene)
    path = page_of(scene, run)
    attack = f"<script>{OWNED}</script><img src=x onerror={OWNED}><p style='display:none'><img src='http://127.0.0.1:1/x.png'>"
    path.write_text(path.read_text().replace("<main>", f"<main>{attack}", 1))
    browser.open(path.as_uri())

    assert run == browser.value("document.title")
    blocked = [
        re.search(r"directive:? .(\S+)", each) for each in browser.complaints if "Content Security Policy" in each
    ]
    assert {"script-src", "style-src", "img-src"} == {each[1].strip("'\"") for each in blocked if each}


# -- what is on a page


def test_a_page_has_everything_about_a_run(torch_scene: Scene) -> None:
    """What was said of it, its settings and results, curves, code, network, weights, artifacts, output and environment."""
    scene = torch_scene
    scene.write("train.py", scene.read("train.py").replace("\nlr = 0.1", "\nimport numb\nlr = 0.1").replace(
        "    loss.backward()", "    numb.log(step=step, loss=loss)\n    loss.backward()"))  # fmt: skip
    scene.numb("train -m 'why not'")
    run = scene.runs()[-1]
    scene.numb(f"note {run['id']} 'it was the seed'")
    scene.numb(f"tag {run['id']} baseline")
    done = scene.numb(f"report {run['id']} --html")
    found = shown(scene.root / done.stdout.strip())

    assert [
        "Hyperparameters", "Curves", "Code", "Network", "Weights", "Output", "Environment",
    ] == found.texts["h2"]  # fmt: skip
    said = ("why not", "it was the seed", "baseline", run["commit"])
    assert said == tuple(word for word in said if word in found.text)
    assert {"+    numb.log(step=step, loss=loss)", "+import numb"} <= set(found.texts["span"])
    assert ("loss", "chart") == next((each["alt"], each["class"]) for each in found.all("img"))
    cells = found.texts["td"]
    assert ["BatchNormalization", "1x8", "8 8 8 8", "16"] == cells[cells.index("BatchNormalization") :][:4]
    assert ["hidden.weight", "8×4", "float32", "128"] == cells[cells.index("hidden.weight") :][:4]


def test_a_project_is_a_table_that_can_be_put_in_order(scene: Scene, browser: Browser) -> None:
    """By a click, from the keyboard, and by the address; NaN comes last; what is typed narrows it down; nothing is fetched."""
    furnished(scene, PLAIN)
    for words in (["lr=0.1"], ["lr=0.3", "opt=adam"], ["lr=0.9"]):
        trained(scene, *words)
        scene.sh("echo '# more' >> train.py")
    ids = [run["id"] for run in scene.runs()]
    scene.numb(f"note {ids[1]} 'the <best> of them'")
    found = shown(page_of_all(scene, "all"))
    order = "[...document.querySelectorAll('table.filtered tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    sorts = "[...document.querySelectorAll('table.filtered th')].flatMap(h => h.ariaSort ? [h.textContent, h.ariaSort] : [])"
    heads = ["id", "lr", "opt", "acc", "loss", "status", "started", "seconds", "notes"]

    assert ["Runs", "Curves", "Hyperparameters and results", "Changes in the code", "Each run"] == found.texts["h2"]
    assert heads == found.texts["th"][: len(heads)]
    assert ids[::-1] == [a["href"].removeprefix("#run-") for a in found.all("a")][:3]
    assert "*\n" == scene.read("all/.gitignore")
    assert {"loss", "val:acc", "acc by lr", "acc by opt", "acc by all that differs"} <= {
        each["alt"] for each in found.all("img")
    }
    address = (scene.root / "all" / "index.html").as_uri()
    browser.open(f"{address}#sort=-acc&filter=SGD")
    assert ([ids[0], ids[2]], ["acc", "descending"]) == (browser.value(order), browser.value(sorts))
    assert "2 of 3 runs" == browser.value("document.querySelector('output').textContent")
    browser.open(address)
    click = "[...document.querySelectorAll('table.filtered th button')].find(b => b.textContent == 'acc').{}"
    browser.value(click.format("click()"))
    assert (ids, "ascending") == (browser.value(order), browser.value(sorts)[1])
    browser.value(click.format("focus()"))
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert ([ids[1], ids[0], ids[2]], "#sort=-acc") == (browser.value(order), browser.value("location.hash"))
    browser.value("document.querySelector('input').focus()")
    browser.ask("Input.insertText", text="best adam")
    assert [ids[1]] == browser.value(order)
    browser.value("document.querySelector('table.filtered a').click()")
    assert [f"run-{ids[1]}"] == browser.value("[...document.querySelectorAll('details[open]')].map(d => d.id)")
    assert [] == browser.complaints


def test_a_page_can_be_looked_at(scene: Scene, browser: Browser, tmp_path: Path) -> None:
    """In a wide window and on a telephone, in light and dark: nothing is wider than the window, all pictures are drawn."""
    furnished(scene, PLAIN)
    for words in (["lr=0.1"], ["lr=0.3", "opt=adam"]):
        run = trained(scene, *words, "-m", "how it looks")
    folder = Path(os.environ.get("CI_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (page_of(scene, run), page_of_all(scene)):
        for width, dark in ((1280, False), (400, True)):
            browser.open(path.as_uri(), width, dark=dark)
            assert width == browser.value("document.documentElement.scrollWidth")
            assert [] == browser.value(
                "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
            )
            picture = browser.picture()
            (folder / f"report-{path.stem}-{width}.png").write_bytes(picture)
            assert width == int.from_bytes(picture[16:20], "big")


# -- what cannot be on it


def test_without_matplotlib_there_are_numbers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is made all the same, and says what to install."""
    furnished(scene, PLAIN)
    run = trained(scene)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with sealed_here(scene):
        project = Project.open(scene.root)
        one, every = project.page(project.find(run), scene.root / "one.html"), project.overview(scene.root / "all.html")

    for path in (one, every):
        assert "matplotlib, which draws pictures, is not installed: pip install 'numb[plot]'" in shown(path).text
    rows = Parsed(one.read_text()).texts["td"]
    assert ["loss", "8", "0.00078125", "0.00078125", "7", "0.1", "0"] == rows[rows.index("loss", rows.index("log")) :][
        :7
    ]


def test_what_is_too_much_is_left_out_and_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many runs, of a long patch, a long log and a large picture the page has so much, and the command for the rest."""
    furnished(scene, PLAIN)
    ids = []
    for words in (["lr=0.1"], ["lr=0.2"], ["lr=0.3"]):
        scene.write("more.txt", "".join(f"{n} {words}\n" for n in range(40)))
        ids.append(trained(scene, *words))
    for name, most in {
        "_TOLD": 2,
        "_DRAWN": 1,
        "_LISTED": 2,
        "_STEP": 20,
        "_PATCH": 20,
        "_IMAGE": 10,
        "_PANELS": 1,
    }.items():
        monkeypatch.setattr(pages, name, most)
    with sealed_here(scene):
        project = Project.open(scene.root)
        every = shown(project.overview(scene.root / "all.html"))
        one = shown(project.page(project.find(ids[2]), scene.root / "one.html"))

    for words in (
        "1 older runs are not listed: numb list -n 0", "of the newest 1 of 2 runs that have some", "1 more are not drawn",
        f"more lines: numb diff {ids[1]} {ids[2]} --code", "of older runs than the newest 2: numb report ID --html",
    ):  # fmt: skip
        assert words in every.text, words
    for words in (
        f"more lines: numb show {ids[2]} --patch", f"numb show {ids[2]} --artifact plots/a.svg", "1 more are not drawn",
    ):  # fmt: skip
        assert words in one.text, words
    assert "step 3" in one.text and "step 2" not in one.text


def test_what_is_damaged_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series and a picture whose bytes have gone leave a line each, and the rest of the page as it is."""
    furnished(scene, PLAIN)
    run = trained(scene)

    with sealed_here(scene):
        project = Project.open(scene.root)
        monkeypatch.setattr(project.branch, "read", lambda run, name: None)
        text = shown(project.page(project.find(run), scene.root / "one.html")).text

    assert f"{run}: plots/a.svg is missing: numb doctor" in text
    assert f"{run}: the series log is missing: numb doctor" in text
    assert "Hyperparameters" in text


# -- where it is written


@pytest.mark.usefixtures("untouched")
def test_a_page_overwrites_nothing_and_is_in_no_snapshot(scene: Scene) -> None:
    """Neither a file nor a folder that is there; and neither the page nor its folder is part of the next run."""
    run = scene.trained()["id"]
    scene.write("mine/notes", "mine")
    scene.write("mine.html", "mine")
    told = [scene.numb(f"report {run} --html --into {into}") for into in ("mine", "mine.html")]
    written = [scene.numb(f"report {words}") for words in (f"{run} --html", f"{run} --html --into new", "--html")]
    again = scene.numb(f"report {run} --html")

    assert [(1, ""), (1, "")] == [(done.code, done.stdout) for done in told]
    assert "mine.html already exists" in told[1].stderr and "mine already exists" in told[0].stderr
    assert ["mine", "mine"] == [scene.read("mine/notes"), scene.read("mine.html")]
    assert [0, 0, 0] == [done.code for done in written]
    names = [f"report-{run}.html", "new/index.html", "report/index.html"]
    assert names == [
        str(Path(done.stdout.strip()).relative_to(scene.root) if done.stdout[0] == "/" else done.stdout.strip())
        for done in written
    ]
    assert 1 == again.code and f"report-{run}.html already exists" in again.stderr
    scene.numb("train --again")
    assert "mine.html\nmine/notes" == scene.sh("git ls-tree -r --name-only numb | grep -e report -e mine -e new")
    scene.sh(f"rm -r mine mine.html new report report-{run}.html")


def test_a_page_of_some_runs_is_of_those(scene: Scene) -> None:
    """An expression chooses them as it does for numb list; of none there is a page that says so."""
    ids = [scene.trained(lr=lr)["id"] for lr in (0.1, 0.2)]
    some = scene.numb("report", "--html", "--where", "lr < 0.15", "--into", "some.html")
    none = scene.numb("report", "--html", "--where", "lr > 9", "--into", "none.html")

    assert [0, 0] == [some.code, none.code]
    assert (True, False) == tuple(run in shown(scene.root / "some.html").text for run in ids)
    found = shown(scene.root / "none.html")
    assert ("0 runs" in found.text, []) == (True, found.texts.get("h2", []))
    assert [2, 2, 2, 1] == [
        scene.numb(*words).code
        for words in (["report"], ["report", "@", "--where", "lr > 1"], ["report", "--html", "--where", "lr >"], ["report", "nope", "--html"])
    ]  # fmt: skip
