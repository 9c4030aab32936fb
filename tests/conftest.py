"""A clean room for each test: empty param store, validation on, fixed seed, untouched defaults."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def clean_room() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.enable_validation(True)
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; where it is absent, the test is skipped and says so."""
    root = os.environ.get("DPVAE_DATA")
    if not root or not Path(root, "MNIST", "raw").is_dir():
        pytest.skip("real data: set DPVAE_DATA to a folder that holds MNIST/raw")
    return Path(root)
