"""The rooms of docs/architecture.md: imports run one way, files stay small, names are decided."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pyro_dpvae

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_dpvae"
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def levels() -> dict[str, int]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = text.split("```text\n", 1)[1].split("```", 1)[0]
    found = {}
    for level, line in enumerate(block.splitlines()):
        for name in line.split("  ", 1)[0].split():
            found[name] = level
    return found


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import absolutely"
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    assert "pyro_dpvae" not in found, f"{path}: import from the module, not from the root"
    return found


def imported_rooms(path: Path) -> set[str]:
    modules = imported_modules(path)
    return {name.split(".")[1] for name in modules if name.startswith("pyro_dpvae.")}


def test_every_room_is_in_the_picture() -> None:
    assert {room(path) for path in FILES} - {"__init__"} == set(levels())


def test_imports_run_downwards_only() -> None:
    order = levels()
    apart = {"models", "guides", "objectives"}
    for path in FILES:
        here = room(path)
        if here == "__init__":
            continue
        for there in imported_rooms(path) - {here}:
            assert order[there] <= order[here], f"{path.relative_to(ROOT)} imports {there}"
            assert not {here, there} <= apart, f"{path.relative_to(ROOT)} imports {there}"


def test_the_library_imports_nothing_that_the_wheel_lacks() -> None:
    beside = {"papers", "benchmarks", "examples", "tests"}
    for path in FILES:
        assert not {name.split(".")[0] for name in imported_modules(path)} & beside, path


def test_files_are_small_and_say_what_they_hold() -> None:
    lengths = [len(path.read_text().splitlines()) for path in FILES]
    assert max(lengths) <= 400
    assert statistics.median(lengths) <= 150
    papers = sorted((ROOT / "papers").rglob("*.py"))
    assert max(len(path.read_text().splitlines()) for path in papers) <= 400
    for path in (*FILES, *papers):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_public_names_are_these() -> None:
    assert pyro_dpvae.__all__ == [
        "DIPELBO",
        "VAE",
        "AggregatePosterior",
        "AmortizedGaussian",
        "AutoregressiveDecoder",
        "AutoregressivePrior",
        "BetaELBO",
        "BetaTCELBO",
        "CapacityELBO",
        "CheckpointError",
        "ClusteringEncoder",
        "ClusteringLadderGuide",
        "ClusteringLadderVAE",
        "ConfigError",
        "ConfigWarning",
        "CouplingPrior",
        "DataError",
        "DataWarning",
        "Decoder",
        "DpvaeError",
        "DpvaeWarning",
        "EagerWarning",
        "EvaluationWarning",
        "FactorELBO",
        "FlowGuide",
        "GaussianEncoder",
        "InfoELBO",
        "LadderGuide",
        "LadderVAE",
        "LaplaceGuide",
        "LossyVAE",
        "MissingDataError",
        "MixturePrior",
        "MutualDivergenceELBO",
        "ProductPrior",
        "ReaderError",
        "RecursiveMixtureGuide",
        "RegularizedELBO",
        "ResampledPrior",
        "Run",
        "RunConfig",
        "SemiAmortizedGuide",
        "StandardNormal",
        "TrainingWarning",
        "UnsupportedError",
        "VampPrior",
        "WeightedGaussianEncoder",
        "ZukoPrior",
        "open_run",
        "train",
    ]
    for name in pyro_dpvae.__all__:
        assert getattr(pyro_dpvae, name).__doc__


def test_importing_changes_nothing_global_and_draws_nothing() -> None:
    program = """
import random, torch, numpy, pyro, sys
before = (torch.get_rng_state(), numpy.random.get_state()[1].copy(), random.getstate())
settings = pyro.settings.get()
dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
validate = torch.distributions.Distribution._validate_args
import pyro_dpvae, pyro_dpvae.cli
assert torch.equal(before[0], torch.get_rng_state())
assert (before[1] == numpy.random.get_state()[1]).all() and before[2] == random.getstate()
assert settings == pyro.settings.get() and not list(pyro.get_param_store().keys())
assert dtype == torch.get_default_dtype() and threads == torch.get_num_threads()
assert validate == torch.distributions.Distribution._validate_args
assert "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_links_lead_to_the_rooms_and_refuse_a_second_name() -> None:
    for name in ("models", "guides"):
        link = ROOT / name
        if not link.exists():
            continue  # a checkout without links works
        assert link.resolve() == PACKAGE / name
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {name}"
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert result.returncode == 1
        assert f"this package is pyro_dpvae.{name}, not {name}" in result.stderr
