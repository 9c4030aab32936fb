"""The wheel: it holds the package alone, and works far from the repository."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_package_and_nothing_at_the_top(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    try:
        import setuptools
    except ModuleNotFoundError:
        pytest.skip("setuptools is not installed, which builds the wheel")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"the wheel needs setuptools 77, got {setuptools.__version__}")
    source = tmp_path / "source"
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not names:
        pytest.skip("not a git checkout")
    for name in names:
        if (ROOT / name).is_file() and not name.startswith(("models", "guides", "tests")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("pyro_dpvae-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tops = {name.split("/")[0] for name in names}
        assert tops == {"pyro_dpvae", wheel.stem.split("-py3")[0] + ".dist-info"}
        assert not [name for name in names if "reproduc" in name or "papers" in name]
        assert "pyro_dpvae/py.typed" in names
        assert "pyro_dpvae/models/vae.py" in names
        assert {"pyro_dpvae/report/page.html", "pyro_dpvae/evaluation/meanings.toml"} <= set(names)
        assert "pyro_dpvae/explore/page/index.html" in names
        assert {"pyro_dpvae/recipes/published.toml", "pyro_dpvae/cli/commands.toml"} <= set(names)
        archive.extractall(tmp_path / "site")
    program = "import pyro_dpvae, pyro_dpvae.cli as c; print(pyro_dpvae.__file__); c.main([])"
    result = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path / "site",
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) in result.stdout


def test_the_citation_is_of_this_version_and_license() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["title"] == project["name"]
    for name in ("version", "license", "keywords"):
        assert citation[name] == project[name]
    (paper,) = citation["references"]
    assert paper["url"] in project["urls"].values()
    assert paper["url"] in (ROOT / "README.md").read_text()


def test_every_extra_is_installed_for_development() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name, packages in extras.items():
        assert set(packages) <= set(extras["dev"]), name
