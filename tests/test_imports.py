"""What an import brings along: each is looked at in a fresh interpreter."""

import os
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import pyro_dpvae
from pyro_dpvae import evaluation, recipes
from pyro_dpvae.evaluation.config import GROUP_NAMES

HEAVY = {"sklearn", "scipy", "matplotlib", "torchvision", "arviz", "jsonargparse", "pandas"}
LAZY = (pyro_dpvae, evaluation, recipes)
MODULES = [one.name for one in pkgutil.walk_packages(pyro_dpvae.__path__, "pyro_dpvae.")]
MODULES.remove("pyro_dpvae.__main__")  # which runs the command

HELP = (
    *("--help", "--version", "recipes", "recipes mnist-vae-dp"),
    *(
        "compare --help",
        "data --help",
        "demo --help",
        "evaluate --help",
        "explore --help",
        "plot --help",
    ),
    *("recipes --help", "report --help", "sample --help"),
)

# Programs that each begin without the library, but with what it depends on.
ROOMS = [f"import {name}" for name in MODULES if name.count(".") == 1]
ATTRIBUTES = "import pyro_dpvae\nassert pyro_dpvae.nn.Batched and pyro_dpvae.training.fit"
STARS = "\n".join(f"from {package.__name__} import *" for package in reversed(LAZY))
STARS += f"\nassert set({[name for package in LAZY for name in package.__all__]!r}) <= set(dir())"


def run(program: str, *options: str, **environment: str) -> str:
    """Run a program in an interpreter of its own; returns what it prints last."""
    result = subprocess.run(
        [sys.executable, *options, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1] if result.stdout else ""


def brought(program: str) -> set[str]:
    """Return the packages that are imported when a program has run."""
    return set(
        run(f"{program}\nimport sys\nprint(*{{one.split('.')[0] for one in sys.modules}})").split()
    )


@pytest.fixture(scope="module")
def failed() -> set[str]:
    """Run programs in forks of one fresh interpreter; returns those that failed."""
    programs = [*ROOMS, ATTRIBUTES, STARS]
    found = run(f"""
import os
import matplotlib.figure, pyro, scipy.stats  # once, for all
failed = []
for number, program in enumerate({programs!r}):
    child = os.fork()
    if not child:
        exec(program, {{}})
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        failed.append(number)
print("failed:", *failed)
""")
    return {programs[int(number)] for number in found.removeprefix("failed:").split()}


def test_importing_the_library_imports_no_other() -> None:
    assert not brought("import pyro_dpvae") & {"torch", "pyro", "numpy", "tqdm", *HEAVY}


def test_the_public_names_bring_pyro_alone() -> None:
    program = "import pyro_dpvae\nfor name in pyro_dpvae.__all__: getattr(pyro_dpvae, name)"
    assert brought(program) & {"torch", "pyro", *HEAVY} == {"torch", "pyro"}


def test_a_star_takes_all_names_of_lazy_packages(failed: set[str]) -> None:
    assert STARS not in failed


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_a_lazy_package_has_its_names_and_no_others(package: ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attribute 'VEA'"):
        package.VEA  # noqa: B018
    assert not hasattr(package, "__wrapped__")


def test_modules_are_attributes_of_the_library(failed: set[str]) -> None:
    assert ATTRIBUTES not in failed


def test_the_version_is_the_installed_one_and_needs_no_pytorch() -> None:
    assert pyro_dpvae.__version__ == version("pyro-dpvae")
    assert "torch" not in brought("import pyro_dpvae\npyro_dpvae.__version__")


@pytest.mark.parametrize("command", HELP)
def test_help_needs_no_pytorch(command: str) -> None:
    program = f"""
from pyro_dpvae.cli import main
try:
    assert main({command.split()!r}) == 0
except SystemExit as ended:
    assert ended.code == 0
"""
    assert not brought(program) & {"torch", "pyro", "numpy", "tqdm", *HEAVY} - {"jsonargparse"}


@pytest.mark.parametrize("command", ["bogus", "sample run --cuont 3", "recipes mnist-vea"])
def test_refusing_a_command_line_needs_no_pytorch(command: str) -> None:
    program = f"from pyro_dpvae.cli import main\nassert main({command.split()!r}) == 2"
    assert not brought(program) & {"torch", "pyro"}


def test_the_groups_that_help_names_are_those_that_are_measured() -> None:
    assert tuple(evaluation.GROUPS) == GROUP_NAMES


def test_every_module_is_imported_without_a_warning_in_an_empty_home(tmp_path: Path) -> None:
    places = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
    program = f"import importlib\nfor one in {MODULES!r}: importlib.import_module(one)"
    run(program, "-W", "error", **dict.fromkeys(places, str(tmp_path)))


def test_every_room_can_be_imported_first(failed: set[str]) -> None:
    assert not failed & set(ROOMS)
