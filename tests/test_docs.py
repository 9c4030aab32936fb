"""The site of the documentation: built without a warning, complete, and read without network."""

import importlib
import os
import re
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("", "priors", "guides", "objectives", "likelihoods", "nn", "models", "metrics"),
    *("importance", "inference", "training", "runs", "data", "evaluation", "recipes", "plots"),
    *("encoders", "decoders", "distributions", "mixture", "features", "export", "errors"),
    *("report", "explore"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings", reason="the documentation is built by the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_reference_has_every_public_name(site: Path) -> None:
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    for room in ROOMS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next version
            module = importlib.import_module(f"pyro_dpvae.{room}".rstrip("."))
        missing = {name for name in module.__all__ if not _paths(module, name) & listed}
        assert not missing, f"{module.__name__} lacks {missing} in docs/reference"


def _paths(module: ModuleType, name: str) -> set[str]:
    """Return where a name may be listed: in its file, where a room's file has its name too."""
    home = getattr(getattr(module, name), "__module__", module.__name__)
    return {f"{module.__name__}.{name}", f"{home}.{name}"}


def test_formulas_are_mathml(site: Path) -> None:
    for page in ("dpvae", "objectives", "numbers", "notebooks/first-dpvae", "reference/mixture"):
        text = (site / f"{page}.html").read_text()
        assert "<math" in text, page
        shown = re.sub(r"<(pre|code|script|math)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\$|\\\(|\\mathrm", shown), page


def test_notebooks_are_pages_with_their_figures(site: Path) -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert "data:image/png;base64," in (site / f"notebooks/{path.stem}.html").read_text()
        assert (site / "notebooks" / path.name).read_text() == path.read_text()


def test_no_page_asks_the_network_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        asked = re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?:[^>]*>", page.read_text()
        )
        assert not asked, (page.name, asked)
