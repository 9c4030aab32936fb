"""Progress bars where there is no terminal: a line now and then, and no carriage returns."""

import ast
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from pyro_dpvae import _bars
from pyro_dpvae._bars import INTERVAL, bar, write_above

PACKAGE = Path(_bars.__file__).parent


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves on when it is told to."""
    now = [1000.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(_bars, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return advance


def test_a_log_has_one_line_each_interval(
    later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with bar(total=400, description="training", unit="step") as shown:
        for step in range(1, 201):
            later(INTERVAL / 60)
            shown.set_postfix({"loss": f"{step}.00"}, refresh=False)
            shown.update()
            shown.refresh()
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert len(lines) == 4  # three intervals, and the end
    for line, step in zip(lines, (60, 120, 180, 200), strict=True):
        assert line.startswith(f"training: {step}/400 steps, elapsed ")
        assert ", left " in line
        assert line.endswith(f", loss={step}.00")


def test_a_short_bar_leaves_no_line(
    later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in bar(range(10), "reading images", unit="image"):
        later(0.1)
    assert capsys.readouterr().err == ""


def test_a_warning_leaves_the_lines_of_a_bar_whole(
    later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with bar(total=4, unit="step") as shown:
        later(INTERVAL)
        shown.update()
        shown.refresh()
        write_above("a warning")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "a warning"
    assert all(line.startswith("1/4 steps") for line in (lines[0], lines[2]))


def test_a_terminal_has_a_bar_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in bar(range(3)):
        pass
    assert "\r" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_a_notebook_has_the_bar_that_tqdm_chooses_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    chosen = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda *given, **_options: chosen.append(given))
    bar([1], "drawing")
    assert chosen == [([1], "drawing")]


def test_all_bars_of_the_library_are_made_in_one_place() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == tqdm.__module__.split(".")[0] for name in names):
                assert path.name == "_bars.py", f"{path} makes a bar of its own"
