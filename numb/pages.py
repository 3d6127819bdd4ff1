"""`numb report --html`: one run, or all of a project, as a page for a browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numb import atomic, plotting, record
from numb.errors import NotPossible, NumbError, TargetExists
from numb.journal import SYSTEM
from numb.record import Run
from numb.version import __version__
from numb.view import detail, page, plot, table
from numb.view.charts import Chart, Curves, Parallel, Scatter
from numb.view.page import Block, Cell, Facts, Fold, Page, Picture, Pictures, Section, Table, Words
from numb.view.plot import Axis, Curve, Panel
from numb.view.points import number, thinned

if TYPE_CHECKING:
    from numb.project import Project
    from numb.talk import Row

INDEX = "index.html"
_ELSEWHERE = ("run", "name", "message", "noted", "project")  # facts that a page has in another place

_LARGEST = 1e308  # a whole number beyond it is no float
_VALUE = 2_000  # characters of a value where it is told in full
_PATCH = 1_500  # lines, of a run that is looked at by itself
_STEP = 300  # and of one among others
_LOG = 200
_TRACEBACK = 60
_OPERATORS = _TENSORS = 1_000
_PANELS = 24
_POINTS = 100  # of which a curve may have four times as many: two in each column of a small picture
_IMAGE, _IMAGES = 2 << 20, 16 << 20  # bytes: of one, and of all in a page

_LISTED = 5_000  # runs in the table
_TOLD = 50  # runs, the newest, with all that is known of them
_DRAWN = 10  # runs, the newest, whose curves are laid over each other: as many as colours can be told apart
_COLUMNS = 30  # hyperparameters, and results
_SCATTERS = 6


def of_run(project: Project, run: Run, target: Path) -> Path:
    """Write the page of a run; it is `Project.page`, which says more."""
    project.commit(run)
    return _written(target, lambda: _run(project, project.row(run)))


def of_project(project: Project, where: str | None, target: Path) -> Path:
    """Write the page of a project; it is `Project.overview`, which says more."""
    return _written(target, lambda: _overview(project, project.runs(where=where), where))


def _written(target: Path, made: Callable[[], Page]) -> Path:
    """A file, or a new directory with an index that git does not see."""
    if target.suffix.lower() not in (".html", ".htm"):
        with atomic.new_directory(target) as folder:
            atomic.write(folder / ".gitignore", "*\n")
            atomic.write(folder / INDEX, page.html(made()))
        return target / INDEX
    if target.is_symlink() or target.exists():
        raise TargetExists(f"{target} already exists", "--into ANOTHER.html")
    try:
        atomic.create(target, page.html(made()))
    except FileExistsError:
        raise TargetExists(f"{target} already exists", "--into ANOTHER.html") from None
    return target


# -- one run


def _run(project: Project, row: Row) -> Page:
    run = row.run
    said = [Words(text) for text in (run.message, *row.said.notes) if text]
    about = [fact for fact in detail.about(row) if fact[0] not in _ELSEWHERE]
    kin = [
        ("begun with it", record.some([each.id for each in project.begun_with(run)])),
        ("same settings", record.some([each.id for each in _alike(project, run)])),
    ]
    facts = [*about, ("network", run.network), *kin, *(("note", note) for note in run.notes)]
    sections = [
        Section("Hyperparameters", _values(run.params), beside=True),
        Section("Results", _values(row.results, "result"), beside=True),
        Section("Trials", _trials(row)),
        Section("How it failed", _traceback(project, run)),
        Section("Curves", _curves(project, run)),
        Section("Images", _images(project, run)),
        Section("Code", _code(project, run)),
        Section("Network", list(_networks(project, run))),
        Section("Weights", list(_weights(project, run))),
        Section("Checkpoints", _checkpoints(run)),
        Section("Artifacts", _artifacts(run)),
        Section("Output", _log(project, run)),
        Section("Environment", _environment(project.environment(run))),
    ]
    title = f"{row.said.name} · {run.id}" if row.said.name else run.id
    return Page(title, _made(f"{run.kind} run"), [*said, _facts(facts)], [each for each in sections if each.blocks])


def _made(what: str) -> str:
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return f"{what}, as numb {__version__} had it at {now}"


def _alike(project: Project, run: Run) -> list[Run]:
    """Other runs with the same architecture, hyperparameters and beginning."""
    rows = project.runs(architecture=run.architecture) if run.architecture else []
    others = [row.run for row in rows if row.run.id != run.id and row.run.init_from == run.init_from]
    return [each for each in others if each.params_key == run.params_key]


def _facts(pairs: Iterable[tuple[str, str | None]]) -> Facts:
    return Facts([(name, value) for name, value in pairs if value])


def _values(values: Mapping[str, Any], what: str = "name") -> list[Block]:
    """Names and values, in full as far as a reader can take them."""
    rows = [[Cell(record.brief(name, 200)), _value(value, _VALUE)] for name, value in record.flat(values).items()]
    return [Table([what, "value"], rows, right=(1,) if _are_numbers(values) else ())] if rows else []


def _are_numbers(values: Mapping[str, Any]) -> bool:
    return all(isinstance(value, int | float) for value in record.flat(values).values())


def _value(value: Any, width: int = 40, *, best: bool = False) -> Cell:
    """What a value looks like, and where it stands among others: NaN after all numbers, as what is missing."""
    text = "''" if value == "" else record.brief(value, width)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(text)
    key = "" if value != value else str(inf if value > _LARGEST else -inf if value < -_LARGEST else float(value))
    return Cell(text, key.replace("inf", "Infinity"), is_best=best)


def _trials(row: Row) -> list[Block]:
    if not row.trials:
        return []
    names = _names(record.flat(each.results) for each in row.trials)[:_COLUMNS]
    found = [record.flat(each.results) for each in row.trials]
    rows = [
        [
            Cell(f"{each.id} {each.name or ''}".strip()),
            Cell(each.status),
            _moment(each.started),
            *_columns(values, names),
        ]
        for each, values in zip(row.trials, found, strict=True)
    ]
    heads = ["trial", "status", "started", *(record.brief(name, 40) for name in names)]
    return [Table(heads, rows, right=range(3, len(heads)))]


def _columns(values: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    return [_value(values[name]) if name in values else Cell("") for name in names]


def _moment(seconds: float) -> Cell:
    return Cell(time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)), f"{seconds:.3f}")


def _traceback(project: Project, run: Run) -> list[Block]:
    text, left = page.log(project.traceback(run).encode(errors="replace"), _TRACEBACK)
    return [text, *_left(left, "lines before", f"numb show {run.id}")] if text.lines else []


def _left(count: int, what: str, command: str) -> list[Block]:
    return [Words(f"{count:,} {what}: {command}", quiet=True)] if count else []


def _curves(project: Project, run: Run) -> list[Block]:
    """Charts of the fields of its series, those of the machine behind a fold, and what their numbers sum up to."""
    if not run.series:
        return []
    found: list[Block] = []
    try:
        found += _charts(plotting.every(project, run), run.id)
        if machine := _charts(plotting.every(project, run, machine=True), run.id):
            found.append(Fold("What it took of the machine", machine))
    except NumbError as error:
        found.append(_sorry(error))
    return [*found, Fold("Numbers", [_summaries(run)])]


def _sorry(error: NumbError) -> Words:
    return Words(f"{error}{f': {error.hint}' if error.hint else ''}", quiet=True)


def _charts(panels: Sequence[Panel], run: str) -> list[Block]:
    charts = [_chart(Curves([_light(panel)]), panel.title) for panel in panels[:_PANELS]]
    left = _left(max(0, len(panels) - _PANELS), "more are not drawn", f"numb plot {run} --series NAME")
    return [Pictures(charts), *left] if charts else []


def _light(panel: Panel) -> Panel:
    """The panel with as many points as a small picture shows, under no title: the page has that."""
    curves = [replace(each, label="", x=x, y=y) for each in panel.curves for x, y in [thinned(each.x, each.y, _POINTS)]]
    return replace(panel, curves=curves, title="")


def _chart(chart: Chart, title: str, width: float = 4.5, height: float = 2.7) -> Picture:
    """A chart as a picture of the page. Raises `NotPossible` without matplotlib."""
    figure = chart.figure()
    figure.set_size_inches(width, height)
    return Picture(plot.shown(title, 100), page.IMAGES[".svg"], plot.svg(figure).encode(), chart=True, wide=width > 6)


def _summaries(run: Run) -> Table:
    heads = ["series", "field", "rows", "last", "lowest", "lowest at", "highest", "highest at", "mean"]
    rows = [
        [
            Cell(name),
            Cell(record.brief(field, 60)),
            _value(each.count),
            *(
                Cell("") if value is None else _value(value)
                for value in (each.last, each.lowest, each.lowest_at, each.highest, each.highest_at, each.mean)
            ),
        ]
        for name, series in run.series.items()
        for field, each in series.fields.items()
    ]
    return Table(heads, rows, right=range(2, len(heads)))


def _images(project: Project, run: Run) -> list[Block]:
    """The pictures that a run has saved; those that are too large or damaged are told of."""
    pictures, words, room = list[Picture](), list[Block](), _IMAGES
    for name, kept in run.artifacts.items():
        if (empty := Picture.of(name, b"")) is None or kept.is_state:
            continue
        if kept.size > min(_IMAGE, room):
            words.append(Words(f"{name}, {detail.size(kept.size)}: numb show {run.id} --artifact {name}", quiet=True))
            continue
        try:
            pictures.append(replace(empty, content=project.artifact(run, name)))
            room -= kept.size
        except NumbError as error:
            words.append(_sorry(error))
    return [*([Pictures(pictures)] if pictures else []), *words]


def _code(project: Project, run: Run) -> list[Block]:
    """What the code had changed against the commit that the work began from."""
    base = run.base or project.git.empty_tree()
    against = f"{base[:12]}{f' ({run.branch})' if run.branch else ''}" if run.base else "an empty tree"
    try:
        content = project.git.shown_patch(base, project.commit(run))
    except NumbError as error:
        return [_sorry(error)]
    if not content.strip():
        return [Words(f"as committed in {against}", quiet=True)]
    text, left = page.patch(content, _PATCH)
    more = _left(left, "more lines", f"numb show {run.id} --patch")
    return [Words(f"what had changed against {against}", quiet=True), text, *more]


def _networks(project: Project, run: Run) -> Iterator[Block]:
    for network in project.networks(run):
        model = run.models[network.model]
        rows = [
            [
                Cell(str(place)),
                Cell(each.name),
                Cell(" ".join(each.shape)),
                Cell(" ".join((each.weights or {}).values())),
                Cell(f"{each.parameters:,}" if each.parameters else "", str(each.parameters or "")),
                Cell(record.brief(" ".join(f"{n}={v}" for n, v in (each.attributes or {}).items()), 200)),
            ]
            for place, each in enumerate(network.operators[:_OPERATORS])
        ]
        heads = ["#", "operator", "output", "weights", "parameters", "attributes"]
        used = [n for n in range(len(heads)) if n < 2 or any(row[n].text for row in rows)]
        shown = Table(
            [heads[n] for n in used],
            [[row[n] for n in used] for row in rows],
            [place for place, n in enumerate(used) if n in (0, 4)],
        )
        name = f"{network.model}: {model.type}·{record.short_architecture(model.architecture)}"
        counted = f"{record.counted(len(network.operators), 'operator')}, {model.parameters:,} parameters"
        yield Words(f"{name}, {counted}" + ("" if network.source == "onnx" else f", by its {network.source}"))
        if rows:
            yield shown
        yield from _left(len(network.operators) - len(rows), "more operators", f"numb show {run.id} --graph")


def _weights(project: Project, run: Run) -> Iterator[Block]:
    from numb.capture.manifest import Manifest

    for name, kept in run.weights.items():
        partial = f", partial: {kept.partial}" if kept.partial else ""
        title = f"{name}: {record.counted(kept.tensors, 'tensor')}, {kept.bytes / 1e6:.2f} MB{partial}"
        try:
            named = Manifest.of(project.branch.read_object(run, kept.manifest)).named()
        except NumbError as error:
            yield Words(title)
            yield _sorry(error)
            continue
        rows = [
            [
                Cell(record.brief(tensor, 200)),
                Cell("×".join(map(str, each.shape)) or "number"),
                Cell(each.dtype),
                Cell(f"{each.nbytes:,}", str(each.nbytes)),
            ]
            for tensor, each in list(named.items())[:_TENSORS]
        ]
        shown = Table(["tensor", "shape", "type", "bytes"], rows, right=(3,))
        yield Fold(title, [shown, *_left(len(named) - len(rows), "more tensors", f"numb report {run.id}")])
    if missing := project.missing_weights(run):
        yield Words(f"missing here: {record.counted(len(missing), 'object')} of the weights", quiet=True)


def _checkpoints(run: Run) -> list[Block]:
    names = _names(record.flat(each.results) for each in run.checkpoints)[:_COLUMNS]
    rows = [
        [
            _value(each.step),
            *_columns(record.flat(each.results), names),
            Cell(", ".join(each.parts)),
            Cell(f"{each.bytes:,}", str(each.bytes)),
        ]
        for each in run.checkpoints
    ]
    heads = ["step", *(record.brief(name, 40) for name in names), "parts", "bytes"]
    right = (*range(len(names) + 1), len(heads) - 1)
    return [Table(heads, rows, right)] if rows else []


def _artifacts(run: Run) -> list[Block]:
    rows = [[Cell(name), Cell(f"{kept.size:,}", str(kept.size))] for name, kept in run.artifacts.items()]
    return [Table(["artifact", "bytes"], rows, right=(1,))] if rows else []


def _log(project: Project, run: Run) -> list[Block]:
    text, left = page.log(project.log(run), _LOG)
    return [*_left(left, "lines before", f"numb logs {run.id}"), text] if text.lines else []


def _environment(environment: Mapping[str, Any]) -> list[Block]:
    facts = [fact for fact in detail.surroundings(environment) if fact[0] != "packages" and fact[1]]
    found: list[Block] = [_facts(facts)] if facts else []
    for title, name in (("packages", "packages"), ("variables", "environment")):
        plain = environment.get(name)
        if isinstance(plain, dict) and plain:
            rows = [[Cell(str(key)), Cell(record.brief(value, _VALUE))] for key, value in sorted(plain.items())]
            found.append(Fold(f"{len(rows)} {title}", [Table([title[:-1], "value"], rows)]))
    return found


# -- a project


def _overview(project: Project, rows: Sequence[Row], where: str | None) -> Page:
    told = [row for row in rows if row.run.commit is not None and not row.lost][-_TOLD:]
    links = {str(row.run.id): f"run-{row.run.id}" for row in told}
    counts = [f"{sum(row.run.status == status for row in rows)} {status}" for status in record.STATUSES]
    counted = ", ".join(text for text in counts if not text.startswith("0 "))
    head: list[Block] = [Words(f"{record.counted(len(rows), 'run')}{f': {counted}' if rows else ''}")]
    head += [Words(f"those for which {where}", quiet=True)] if where else []
    sections = [
        Section("Runs", _runs(project, rows, links)),
        Section("Curves", _overlaid(project, told, links)),
        Section("Hyperparameters and results", list(_against(rows))),
        Section("Changes in the code", list(_changes(project, told))),
        Section("Each run", [_told(project, row, links) for row in reversed(told)]),
    ]
    if 0 < len(told) < len(rows):
        sections[-1] = replace(sections[-1], blocks=[*sections[-1].blocks, _older()])
    name = project.home.name
    return Page(name, _made("all runs" if where is None else "some runs"), head, [s for s in sections if s.blocks])


def _older() -> Words:
    return Words(f"of older runs than the newest {_TOLD}: numb report ID --html", quiet=True)


def _runs(project: Project, rows: Sequence[Row], links: Mapping[str, str]) -> list[Block]:
    """A table of runs, the newest first, with the hyperparameters in which they differ."""
    listed = list(reversed(rows[-_LISTED:]))
    if not listed:
        return []
    params, results = (
        [record.flat(v) for v in every] for every in ([r.run.params for r in listed], [r.results for r in listed])
    )
    there = list(plotting.differing(params)) if len(listed) > 1 else list(params[0])
    equal = {name: value for name, value in params[0].items() if name not in there}
    named = _names(results)
    tops = (
        {name: table.best(name, [values.get(name) for values in results]) for name in named} if len(listed) > 1 else {}
    )
    lines = []
    for row, values, found in zip(listed, params, results, strict=True):
        run = row.run
        words = "; ".join(filter(None, [run.message, *row.said.notes]))
        lines.append(
            [
                Cell(run.id, link=links.get(run.id, "")),
                Cell(row.said.name or ""),
                Cell(run.network),
                *_columns(values, there[:_COLUMNS]),
                *(
                    _value(found[n], best=tops.get(n) is not None and number(found[n]) == tops[n])
                    if n in found
                    else Cell("")
                    for n in named[:_COLUMNS]
                ),
                Cell(record.brief(table.status(row), 40)),
                _moment(run.started),
                Cell("") if run.seconds is None else Cell(f"{run.seconds:.1f}"),
                Cell(record.brief(" ".join(row.said.tags), 60)),
                Cell(record.brief(words, 120)),
            ]
        )
    names = [record.brief(name, 40) for name in (*there[:_COLUMNS], *named[:_COLUMNS])]
    heads = ["id", "name", "network", *names, "status", "started", "seconds", "tags", "notes"]
    between = range(3, 3 + len(names))
    numbers = {*(n for n in between if any(line[n].key is not None for line in lines)), len(heads) - 3}
    used = [n for n, head in enumerate(heads) if any(line[n].text for line in lines)]
    if len({row.run.architecture for row in listed}) < 2:
        used.remove(2)
    shown = Table(
        [heads[n] for n in used],
        [[line[n] for n in used] for line in lines],
        [place for place, n in enumerate(used) if n in numbers],
        filtered="runs" if len(lines) > 1 else "",
    )
    same = " ".join(f"{record.brief(name, 40)}={record.brief(value)}" for name, value in equal.items())
    left = [record.brief(name, 40) for name in (*there[_COLUMNS:], *named[_COLUMNS:])]
    return [
        *([Words(f"all with {record.brief(same, _VALUE)}", quiet=True)] if same else []),
        shown,
        *([Words(f"without {record.some(left)}: numb list --all-columns", quiet=True)] if left else []),
        *_left(len(rows) - len(listed), "older runs are not listed", "numb list -n 0"),
    ]


def _overlaid(project: Project, rows: Sequence[Row], links: Mapping[str, str]) -> list[Block]:
    """The curves of the newest runs, one frame for each field, in which each run has the same colour."""
    runs = [row.run for row in rows if row.run.series.keys() - {SYSTEM}]
    drawn = runs[-_DRAWN:]
    frames: dict[str, dict[str, Panel]] = {}
    words: list[Block] = []
    for run in drawn:
        try:
            for panel in plotting.every(project, run):
                frames.setdefault(panel.title, {})[run.id] = panel
        except NumbError as error:
            words.append(_sorry(error))
    panels = [
        Panel(
            [of[run.id].curves[0] if run.id in of else Curve("", [], []) for run in drawn],
            title,
            ", ".join(dict.fromkeys(each.x_label for each in of.values())),
        )
        for title, of in frames.items()
    ]
    if not panels:
        return words
    try:
        charts = [_chart(Curves([_light(panel)]), panel.title) for panel in panels[:_PANELS]]
    except NotPossible as error:
        return [_sorry(error), *words]
    labels = plotting.labels(drawn)
    legend = [(plot.shown(labels[run.id]), links.get(run.id, "")) for run in drawn]
    return [
        *(
            [Words(f"of the newest {_DRAWN} of {len(runs)} runs that have some", quiet=True)]
            if len(runs) > _DRAWN
            else []
        ),
        Pictures(charts, legend),
        *_left(len(panels) - len(charts), "more are not drawn", "numb plot ID --series NAME"),
        *words,
    ]


def _against(rows: Sequence[Row]) -> Iterator[Block]:
    """Results against the hyperparameters that differ: of each, those of the network that has most of them."""
    known = {row.run.id: _numbers(row.results) for row in rows}
    for result in _names(known.values())[:_SCATTERS]:
        whose = [row.run for row in rows if result in known[row.run.id]]
        networks = [run.architecture for run in whose]
        most = max(dict.fromkeys(networks), key=networks.count)
        runs = [run for run in whose if run.architecture == most]
        params = [record.flat(run.params) for run in runs]
        there = list(plotting.differing(params))[:_COLUMNS]
        if not there:
            continue
        up = Axis(result, [known[run.id][result] for run in runs], log=False)
        axes = [Axis(name, [values.get(name) for values in params]) for name in there]
        ids = [run.id for run in runs]
        try:
            charts = [_chart(Scatter(ids, each, up), f"{result} by {each.name}") for each in axes[:_SCATTERS]]
            if len(axes) > 1:
                width = min(14.0, max(4.5, 1.6 * len(axes)))
                charts.append(_chart(Parallel(ids, [*axes, up]), f"{result} by all that differs", width))
        except NotPossible as error:
            yield _sorry(error)
            return
        yield Pictures(charts)


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.flat(values).items() if not isnan(number(value))}


def _names(every: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for values in every for name in values))


def _changes(project: Project, rows: Sequence[Row]) -> Iterator[Block]:
    """What differs in the code of a run from that of the one before, the newest first."""
    for i in range(len(rows) - 1, 0, -1):
        before, run = rows[i - 1].run, rows[i].run
        try:
            content = project.git.shown_patch(project.commit(before), project.commit(run))
        except NumbError as error:
            yield Fold(run.id, [_sorry(error)], more=f"since {before.id}")
            continue
        if content.strip():
            text, left = page.patch(content, _STEP)
            summary = next((line.strip() for _, line in text.lines if " changed, " in line), "")
            more = _left(left, "more lines", f"numb diff {before.id} {run.id} --code")
            yield Fold(run.id, [text, *more], more=f"since {before.id}: {summary}")


def _told(project: Project, row: Row, links: Mapping[str, str]) -> Fold:
    run = row.run
    results = " ".join(f"{name}={record.brief(value, 12)}" for name, value in record.flat(row.results).items())
    words = [Words(text) for text in (run.message, *row.said.notes) if text]
    about = [fact for fact in detail.about(row) if fact[0] not in _ELSEWHERE]
    more = record.brief(" ".join(filter(None, [row.said.name, run.status, results])), 100)
    blocks: list[Block] = [
        *words,
        _facts([*about, *(("note", note) for note in run.notes)]),
        *_values(run.params, "hyperparameter"),
        *_values(row.results, "result"),
        *_trials(row),
        *_traceback(project, run),
    ]
    return Fold(run.id, blocks, links[run.id], more)
