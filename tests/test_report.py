"""One page of several runs: its parts against truth, and the page as a browser shows it."""

import base64
import html
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from pyro_dpvae.cli import main
from pyro_dpvae.evaluation import GROUPS, Comparison, Difference
from pyro_dpvae.evaluation.meanings import SECTIONS, meaning_of, setting_meaning
from pyro_dpvae.evaluation.metric_rows import verdict
from pyro_dpvae.report import Opening, RunContents, contents_of, report_page
from pyro_dpvae.report.charts import Curve, interval_figure, line_figure, svg
from pyro_dpvae.report.page import comparison_of, metrics_tables
from pyro_dpvae.report.training import title_of
from tests.browser import Browser, chromium

QUICK = ["--nll-samples", "40", "--nll-data", "20", "--latent-samples", "200"]
VOID = {"meta", "img", "br", "hr"}


class Outline(HTMLParser):
    """What a page is made of: open elements, and all that has been opened, with attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def command(*arguments: object) -> None:
    assert main([str(one) for one in arguments]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two evaluated runs on two moons."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for prior in ("standard", "coupling"):
        run = folder / prior
        train = ["train", "--data", "two-moons", "--prior", prior, "--latent-dim", 2]
        train += ["--prior.blocks", 2] if prior == "coupling" else []
        command(
            *train,
            "--steps",
            24,
            "--backend",
            "eager",
            "--log-every",
            4,
            "--evaluate-every",
            12,
            "--out",
            run,
        )
        command("evaluate", run, *QUICK, "--metrics", "elbo,nll,skl,leakage,probe")
        found.append(run)
    return found


@pytest.fixture(scope="module")
def page(runs: list[Path]) -> Path:
    out = runs[0].parent / "page.html"
    command("report", *runs, "--out", out, "--number", 20)
    return out


def test_a_chart_lies_where_its_numbers_do() -> None:
    chart = svg(line_figure([Curve("A", "A", 0, [(0.0, 0.0), (50.0, 2.0), (100.0, 1.0)])]))
    found = re.search(
        r'd="M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+) " clip', chart
    )
    assert found is not None
    x0, y0, x1, y1, x2, y2 = map(float, found.groups())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-3)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=1e-3)  # upwards is less in SVG
    ticks = [float(y) for y in re.findall(r'<path d="M [\d.]+ ([\d.]+) L [\d.]+ \1 " clip', chart)]
    assert min(abs(tick - y0) for tick in ticks) < 1e-3  # the line at 0
    assert "var(--r0)" in chart
    assert "#010" not in chart


def test_a_curve_is_interrupted_where_it_is_not_finite() -> None:
    values = [1.0, 2.0, float("nan"), 1.0, float("inf"), 2.0, 1.0]
    points = [(float(step), value) for step, value in enumerate(values)]
    chart = svg(line_figure([Curve("A", "A", 0, points)]))
    (path,) = re.findall(r'<path d="([^"]+)"[^>]*stroke: var\(--r0\)', chart)
    assert re.sub(r"[\d. ]", "", path) == "MLMML"


def test_intervals_are_drawn_to_scale() -> None:
    figure = interval_figure([(0.5, 0.25), None, (1.0, float("nan"))])
    (axes,) = figure.axes
    spans = [one.get_segments()[0] for one in axes.collections if len(one.get_segments())]
    assert spans[0].tolist() == [[0.25, 0.0], [0.75, 0.0]]
    assert [tuple(one.get_xydata()[0]) for one in axes.lines if one.get_marker() == "o"] == [
        (0.5, 0.0),
        (1.0, 2.0),
    ]
    (axes,) = interval_figure([(1.0, 0.2479)], share=True).axes  # 6 of 6
    ((low, _), (high, _)) = axes.collections[0].get_segments()[0].tolist()
    assert (low, high) == pytest.approx((0.6097, 1.0), abs=1e-3)


@pytest.mark.parametrize(
    ("metric", "value", "half", "said"),
    [
        ("nll", -2.0, 1.0, "better"),
        ("elbo", -2.0, 1.0, "worse"),
        ("rate", -2.0, 1.0, "differs"),
        ("nll", -2.0, 3.0, "not clear"),
        ("nll", -2.0, float("nan"), "interval unknown"),
        ("active_units", 0.0, 0.0, "equal"),
    ],
)
def test_the_verdict_follows_from_the_interval(
    metric: str, value: float, half: float, said: str
) -> None:
    assert verdict(metric, Difference(value, half, "seeds")) == said


def test_report_and_compare_say_the_same(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = [contents_of(str(run), Opening(count=None)) for run in runs]
    comparison, notes = comparison_of(both)
    assert notes == []
    kept = json.loads((runs[0] / "evaluation.json").read_text())["metrics"]["elbo"]
    value, half = comparison.intervals()["elbo"][0] or (0.0, 0.0)
    assert (value, half) == (kept["value"], pytest.approx(1.959964 * kept["standard_error"]))
    tables = metrics_tables(both, comparison)
    capsys.readouterr()
    command("compare", *runs)
    printed = capsys.readouterr().out
    (gap,) = comparison.differences["elbo"]
    assert gap is not None
    (line,) = [line for line in printed.splitlines() if line.startswith("elbo ")]
    assert f" {verdict('elbo', gap)}, paired data" in line
    row = tables[0]["table"].split("<tr>")[2]
    for text in (line.split()[-4], verdict("elbo", gap), "paired data", "nats", "higher"):
        assert text in row
    # What is 0 for want of draws has no row in either.
    (folded,) = [one for one in printed.splitlines() if one.startswith("0, with too few draws")]
    assert tables[1]["note"] == [folded]
    assert "leakage, τ = \N{MINUS SIGN}90" not in tables[1]["table"]


def test_whatever_a_run_holds_is_escaped() -> None:
    evil = '<script>alert("1")</script>&"'
    run = RunContents(
        f"runs/{evil}",
        {"data": evil, evil: {"name": evil}, "steps": 3},
        [{"step": 1, "seconds": 1.0, evil: 2.0, "versions": {evil: evil}}],
        notes=[evil],
        metrics={evil: {"value": 1.0, "standard_error": None, "settings": {evil: evil}}},
        groups={"elbo": [evil]},
    )
    outline = Outline(report_page([run]))
    assert outline.open == []
    assert [tag for tag, _ in outline.elements].count("script") == 1


def test_what_differs_comes_first_and_marked() -> None:
    configs = [{"prior": {"name": name}, "seed": 0, "out": name} for name in ("a", "b")]
    page = report_page([RunContents(f"runs/{index}", one) for index, one in enumerate(configs)])
    section = page[page.index('id="configuration"') :]
    assert (
        section.index("prior.name") < section.index("<mark>b</mark>") < section.index("<details>")
    )
    assert "seed" in section[section.index("<details>") :]


def test_every_group_has_a_section() -> None:
    assert {name for names in SECTIONS.values() for name in names} == set(GROUPS)


def test_every_metric_that_was_measured_is_explained(runs: list[Path], page: Path) -> None:
    text = page.read_text()
    for name, found in json.loads((runs[0] / "evaluation.json").read_text())["metrics"].items():
        assert meaning_of(name).text, name
        for key in found["settings"]:
            assert Markup('<span title="{}">{}</span>').format(setting_meaning(key), key) in text


def test_the_page_is_well_formed_and_needs_nothing_else(page: Path) -> None:
    outline = Outline(page.read_text())
    assert outline.open == []
    for tag, attributes in outline.elements:
        for key in ("src", "href", "data", "poster", "action", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/png;base64,")), tag
    style = re.search(r"<style>(.*?)</style>", page.read_text(), re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import", style[1])
    assert page.stat().st_size < 5_000_000


def test_the_page_is_the_same_byte_for_byte(page: Path, runs: list[Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        command("report", *runs, "--out", tmp_path / name, "--no-figures")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    drawn = contents_of(str(runs[0]), Opening(count=20), progress=False).figures
    assert len(drawn) == 5
    for figure in drawn.values():
        assert base64.b64encode(figure).decode() in page.read_text()


def test_the_page_says_what_is_missing_and_how_to_get_it(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "moved run"
    shutil.copytree(runs[0], run)
    (run / "evaluation.json").unlink()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": "gone.npy"}))
    command("report", run, runs[1], "--out", tmp_path / "page.html", "--no-figures")
    text = html.unescape((tmp_path / "page.html").read_text())
    assert f"dpvae evaluate '{run}'" in text
    assert f"dpvae evaluate {runs[1]} --metrics split,distance,clusters" in text
    command("report", run)
    text = (run / "report.html").read_text()
    assert "gone.npy" in text
    assert 'id="figures"' not in text
    assert str(run / "report.html") in capsys.readouterr().out


def recorded(likelihood: str, *held_out: float, path: str = "run") -> RunContents:
    records = [{"step": 5 * n + 5, "held_out": {"elbo": one}} for n, one in enumerate(held_out)]
    config = {"preprocessing": "unit", "likelihood": {"name": likelihood}}
    return RunContents(path, config, records)


def test_probabilities_and_densities_have_charts_of_their_own() -> None:
    kinds = {"bernoulli": (-90.0, -80.0), "laplace": (600.0, 700.0), "gaussian": (650.0, 750.0)}
    page = report_page([recorded(name, *elbo) for name, elbo in kinds.items()])
    found = [
        name
        for name in re.findall(r"<figcaption><output>.*?</figcaption>", page, re.DOTALL)
        if "held out" in name
    ]
    assert len(found) == 2
    assert "A held out \N{MINUS SIGN}80<" in found[0]
    assert "B held out 700, C held out 750" in found[1]
    assert "unit, densities" in found[1]
    alike = report_page([recorded("laplace", 1.0, 2.0), recorded("gaussian", 1.0, 3.0)])
    assert alike.count("<figcaption>") == 1


def test_what_was_recorded_once_is_told_and_not_drawn() -> None:
    page = report_page([recorded("laplace", 600.0)])
    assert "<figcaption>" not in page
    assert "Recorded once: ELBO: A held out 600 at step 5." in page


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "it has no config.json" in capsys.readouterr().err


def test_runs_of_several_seeds_are_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"elbo": [(-2.0, 0.1), (-1.5, 0.1)]}
    differences = {"elbo": [Difference(0.5, 0.2, "paired seeds")]}
    members = [["a-0", "a-1", "a-2"], ["b-0", "b-1", "b-2"]]
    compared = Comparison(["a", "b"], values, differences, {}, members)
    monkeypatch.setattr("pyro_dpvae.report.page.compare_seeds", lambda _paths: compared)
    entries = {"elbo": {"value": -2.0, "standard_error": 0.1, "settings": {}}}
    seeds = [
        RunContents(path, {"seed": seed}, metrics=entries, groups={"elbo": ["elbo"]})
        for group in members
        for seed, path in enumerate(group)
    ]
    page = report_page(seeds, seeds=True)
    assert "\N{MINUS SIGN}2.00 ± 0.43" in page  # Student's t of two degrees: 4.30
    assert "+0.50 ± 0.20" in page
    assert page.count("(3 seeds)") == 2
    assert "B, seed 2" in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("no Chromium on the path to show the page in")
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window_and_loads(browser: Browser, page: Path, width: int) -> None:
    shown = browser.open(page.as_uri(), width=width, mobile=width < 500)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    widths = shown.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert len(widths) == 10  # five figures of two runs
    assert min(widths) > 0
    assert shown.errors == []
    assert shown.requests == [page.as_uri()]
    assert shown.evaluate("document.querySelectorAll('details[open]').length") == 0


def test_the_pointer_reads_a_chart(browser: Browser, page: Path) -> None:
    shown = browser.open(page.as_uri())
    box = shown.evaluate(
        "(() => { const c = [...document.querySelectorAll('.charts figure')]"
        ".find((one) => one.querySelector('h3').textContent.startsWith('loss'));"
        "c.scrollIntoView();"
        "c.id = 'loss'; const b = c.querySelector('svg').getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height]; })()"
    )
    left, top, width, height = box
    shown.drag(left + width / 2, top + height / 2, left + 0.93 * width, top + height / 2)
    said = shown.evaluate("document.querySelector('#loss output').textContent")
    assert re.fullmatch(r"step 24: A [^;]+; B [^;]+", said)
    assert shown.errors == []


def test_the_page_follows_the_scheme(browser: Browser, page: Path) -> None:
    brightness = {}
    for dark in (False, True):
        shown = browser.open(page.as_uri(), dark=dark)
        colours = shown.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            "getComputedStyle(document.body).color]"
        )
        brightness[dark] = [sum(map(int, re.findall(r"\d+", one)[:3])) / 765 for one in colours]
    assert brightness[False][0] > 0.9 > 0.3 > brightness[False][1]
    assert brightness[True][1] > 0.8 > 0.2 > brightness[True][0]


@pytest.mark.parametrize(
    ("path", "title"),
    [("runs/moons/", "moons"), ("study/runs/mnist-vae/seed-0", "mnist-vae/seed-0"), (".", ".")],
)
def test_a_title_tells_the_seeds_of_several_recipes_apart(path: str, title: str) -> None:
    assert title_of(RunContents(path, {})) == title
