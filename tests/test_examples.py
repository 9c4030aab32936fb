"""Every example runs to its end, in small."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")

PRINTED = {
    "marginal_likelihood": r"exact +(-\d\.\d+) +\1 +\1 ",  # every bound is log p(x)
    "penalty": r"'density': 0\.\d+",
    "quickstart": r"held-out loss: \d+\.\d+ nats per datum",
    "swap_guide": r"(?s)quadrature: -2\..*semi-amortized +-\d+\.\d+ +\d+\.\d+ +-\d+\.\d+ \+- ",
    "swap_prior": r"zuko +-\d+\.\d+ +-?\d+\.\d+ +\d+\.\d+ \+- ",
    "torch_loop": r"step 3: rate .* total_correlation ",
    "two_regularizers": r"(?s)standard prior.*'mmd'.*coupling prior.*'mmd'.*symmetric KL",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--smoke-test", "--out", str(tmp_path)])
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert re.search(PRINTED.get(name, "nats per datum in the last batch"), output), output
    for picture in (line for line in output.splitlines() if line.endswith(".png")):
        assert Path(picture).stat().st_size > 5_000


def test_the_list_has_every_example() -> None:
    listed = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", (EXAMPLES / "README.md").read_text(), re.M)
    assert sorted(listed) == SCRIPTS
