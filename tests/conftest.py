"""A clean room for each test: empty param store, validation on, fixed seed, untouched defaults."""

import copy
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import RLock
from typing import Any

import pyro
import pytest
import sklearn.datasets
import torch
import torch._dynamo  # imported by each torch optimizer, and so else by each forked child anew
from hypothesis import HealthCheck, settings
from torch._inductor import config as inductor_config
from tqdm import tqdm

from tests.browser import Browser, chromium
from tests.processes import on_ranks
from tests.type_checks import forget_calls, use_cheapest_checks

use_cheapest_checks()

# Nothing that is imported or collected is garbage, and collections would look for it each time.
gc.disable()
gc.set_threshold(10_000, 20, 20)  # recordings make many objects that live

# Bars of a process and its forks share a lock between processes, and one who is killed while a
# bar is drawn never gives it back: all others would wait for it forever.
os.register_at_fork(after_in_child=lambda: tqdm.set_lock(RLock()))

# Waiting for the disk protects from power cuts alone; beside other work it takes seconds.
os.fsync = lambda _file: None

# PyTorch gives processes that read data 5 seconds to end, and those of failed loaders use them.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5

# Each command loads its data anew, and scikit-learn would parse the table of digits each time.
_DIGITS = sklearn.datasets.load_digits(return_X_y=True)
sklearn.datasets.load_digits = lambda **_: copy.deepcopy(_DIGITS)

# Few examples and always the same; for many and new ones: pytest --hypothesis-profile many
_ALIKE = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("few", derandomize=True, max_examples=60, **_ALIKE)
settings.register_profile("many", max_examples=5000, **_ALIKE)
settings.load_profile("few")


# These take longest, and come first, so that no process works alone at the end.
LONG = ("readme", "captured", "notebooks", "memory", "laplace", "evaluation", "benchmarks")
LONG += ("runs_under_attack", "resume", "recipes", "posteriors", "representation", "cli")
LONG += ("imports", "compiled_importance", "papers_table1", "examples", "run_config", "explore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files; others keep their order."""
    place = {f"test_{name}": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """Leave modules and tests out of garbage collections from now on."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def clean_room() -> Iterator[None]:
    forget_calls()
    pyro.clear_param_store()
    pyro.enable_validation(True)
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()


@pytest.fixture
def inductor() -> Iterator[None]:
    """Compilations by Inductor at half their cost: without the instructions for vectors.

    It would also compile some programs first to learn which of them the processor has.
    """
    with warnings.catch_warnings(), inductor_config.patch({"cpp.vec_isa_ok": False}):
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the compiler's own
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; where it is absent, the test is skipped and says so."""
    root = os.environ.get("DPVAE_DATA")
    if not root or not Path(root, "MNIST", "raw").is_dir():
        pytest.skip("real data: set DPVAE_DATA to a folder that holds MNIST/raw")
    return Path(root)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; where there is none, the test is skipped and says so."""
    if chromium() is None:
        pytest.skip("a browser: install chromium")
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Any]], list[Any]]:
    """What a function returns on each of two ranks, which run it once for all tests."""
    found: dict[Callable[[], Any], list[Any]] = {}

    def ask(function: Callable[[], Any]) -> list[Any]:
        if function not in found:
            found[function] = on_ranks(2, function, tmp_path_factory.mktemp("ranks"))
        return found[function]

    return ask
