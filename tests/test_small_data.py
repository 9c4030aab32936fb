"""Small data sets, trained with the defaults of the command line: a model that uses z."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_dpvae import open_run
from pyro_dpvae._ranks import Ranks
from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, load
from pyro_dpvae.metrics import active_units
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn import has_weight_norm
from pyro_dpvae.recipes import RunConfig, build_system, start_from_data
from pyro_dpvae.recipes.config import _usual_batch_size
from pyro_dpvae.recipes.system import System
from pyro_dpvae.training import TrainConfig, fit
from pyro_dpvae.training.diagnosis import ignores_latents


@pytest.mark.parametrize(
    ("options", "per_epoch", "images", "expected"),
    [
        ({}, 4, True, 1000),  # 360 images
        ({}, 100, True, 1000),
        ({}, 600, True, 6000),  # MNIST
        ({}, 4, False, 3000),
        ({}, 301, False, 3010),
        ({"epochs": 10}, 4, True, 40),  # what is asked for is done
        ({"steps": 7}, 600, True, 7),
    ],
)
def test_a_run_has_at_least_so_many_steps(
    options: dict[str, Any], per_epoch: int, images: bool, expected: int
) -> None:
    config = RunConfig(data="two-moons", **options)
    assert config.steps_for(per_epoch, images=images) == expected


def trained(folder: Path, words: str) -> dict[str, Any]:
    command = f"train --backend eager --network mlp {words} --out {folder / 'run'}"
    assert main(command.split()) == 0
    config: dict[str, Any] = json.loads((folder / "run" / "config.json").read_text())
    return config


@pytest.mark.parametrize(("columns", "size"), [(2, 2), (7, 7), (12, 10)])
def test_z_has_no_more_numbers_than_a_datum(columns: int, size: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(150, columns)).astype(np.float32)
    np.savez(tmp_path / "table.npz", train=rows, test=rows[:50])
    data = f"--data {tmp_path / 'table.npz'} --steps 1"
    assert trained(tmp_path, data)["latent_dim"] == size


@pytest.mark.parametrize(("size", "batch"), [(54, 54), (101, 99), (200, 100)])
def test_the_default_batch_suits_the_number_of_data(
    size: int, batch: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    np.savez(tmp_path / "table.npz", train=rows, test=rows[:50])
    # Total correlation needs two data in each batch, also in the last one of 101.
    data = f"--data {tmp_path / 'table.npz'} --objective beta-tc --steps 1"
    assert trained(tmp_path, data)["batch_size"] == batch
    said = f"batch {batch} (all training data)" if batch == size else f"batch {batch} on"
    assert said in capsys.readouterr().err
    assert main(f"train {data} --batch-size {size + 1} --out {tmp_path / 'other'}".split()) == 2
    assert "--batch-size must be at most the number of items" in capsys.readouterr().err


def test_the_default_batch_is_shared_by_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_dpvae.recipes.config.ranks", lambda: Ranks(0, 3))
    for size in range(6, 320):
        batch = _usual_batch_size(size)
        assert batch % 3 == 0
        assert 3 <= batch <= min(100, size)
        assert size % batch < 3 or size % batch >= 6  # left out, or two for each rank


def test_a_run_that_ends_without_a_rate_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    charged = "--prior standard --objective beta --objective.beta 100 --learning-rate 0.01"
    trained(tmp_path, f"--data digits {charged} --steps 40")
    said = capsys.readouterr().err
    assert "the rate is near 0 (" in said
    assert "--likelihood gaussian --likelihood.variance 0.01" in said
    remedied = tmp_path / "remedied"
    remedied.mkdir()
    words = "--likelihood gaussian --likelihood.variance 0.01 --learning-rate 0.01 --steps 40"
    trained(remedied, f"--data two-moons {words}")
    assert "the rate is near 0" not in capsys.readouterr().err


def test_a_rate_of_less_than_half_a_nat_is_near_zero() -> None:
    assert ignores_latents({"rate": 0.49})
    assert not ignores_latents({"rate": 0.51})


def digits_system() -> tuple[System, Batches]:
    torch.manual_seed(0)
    system = build_system(
        (1, 8, 8),
        latent_dim=10,
        dataset_size=1617,
        prior={"name": "coupling"},
        likelihood={"name": "gaussian-learned"},
        network={"name": "mlp", "hidden": [64]},
        guide={"name": "amortized"},
        objective={"name": "elbo"},
    )
    return system, Batches(load("digits").train, batch_size=100, preprocessing="grey")


def test_the_learned_scale_starts_at_the_deviation_of_the_data() -> None:
    system, batches = digits_system()
    assert start_from_data(system, batches.epoch(0)) is None
    x = torch.cat(list(batches.epoch(1)))
    expected = float((x - x.mean(0)).square().mean().sqrt())
    found = float(system.model.decoder.likelihood.scale.detach())
    assert found == pytest.approx(expected, rel=0.03)


def test_a_model_of_digits_uses_its_latents_from_the_start() -> None:
    system, batches = digits_system()
    start_from_data(system, batches.epoch(0))
    fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=batches,
        test=batches,
        config=TrainConfig(steps=170, evaluate_every=170, backend="eager"),
        progress=False,
    )
    aggregate = AggregatePosterior.of(system.guide.posterior, batches.epoch(0))
    assert active_units(aggregate).value >= 5


def test_normalized_weights_of_a_decoder_start_from_data_and_go_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((40, 1, 6, 6)) < 0.3).astype(np.float32)
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x[:8])
    out = tmp_path / "run"
    options = (
        f"--data {tmp_path / 'x.npz'} --model lossy --model.channels 2 --latent-dim 3 --prior "
        "standard --network mlp --network.hidden [8] --preprocessing grey --likelihood bernoulli "
        "--pixels masked --pixels.weight_norm true --batch-size 8 --average-decay 0.9"
    ).split()
    assert main(["train", *options, "--steps", "4", "--out", str(out)]) == 0
    found = open_run(out).model.decoder.pixels
    assert has_weight_norm(found)
    # A fresh network has g = |v|; v moves by four small steps only.
    parametrized = found.first.parametrizations.weight
    lengths = parametrized.original1.flatten(1).norm(dim=1)
    assert not torch.allclose(parametrized.original0.flatten(), lengths, rtol=0.1)
    assert main(["train", "--resume", str(out), "--steps", "8"]) == 0
    whole = tmp_path / "whole"
    assert main(["train", *options, "--steps", "8", "--out", str(whole)]) == 0
    states = [open_run(run).model.state_dict() for run in (out, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert open_run(out).sample(2).shape == (2, 1, 6, 6)
