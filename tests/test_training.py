"""The training loop, held-out evaluation, and run folders."""

import json
from pathlib import Path

import pyro
import pytest
import torch
from torch import nn

from pyro_dpvae.data import Batches, load
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.recipes import System, build_system
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, check_batch, evaluate_elbo, fit
from tests.linear_gaussian import LinearGaussian


def moons(network: str = "moons") -> tuple[System, Batches, Batches]:
    data = load("two-moons")
    system = build_system(
        data.item_shape,
        latent_dim=2,
        dataset_size=1000,
        prior={"name": "coupling", "blocks": 2},
        likelihood={"name": "gaussian-learned"},
        network={"name": network},
        guide={"name": "amortized"},
        objective={"name": "elbo"},
    )
    train, test = (
        Batches(split, batch_size=100, preprocessing="none") for split in (data.train, data.test)
    )
    return system, train, test


def test_fit_learns_logs_and_saves(tmp_path: Path) -> None:
    system, train, test = moons()
    run = RunFolder.create(tmp_path / "run", {"what": "a test"})
    before = evaluate_elbo(system.model, system.guide, test)
    history = fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=train,
        test=test,
        config=TrainConfig(steps=120, log_every=50, evaluate_every=60),
        run=run,
        state={"item_shape": [2]},
        progress=False,
    )
    assert history.held_out["elbo"] > before["elbo"]
    assert not history.interrupted
    records = list(run.records())
    assert records == json.loads(json.dumps(history.records))
    assert [r["step"] for r in records if "loss" in r] == [50, 100, 120]
    assert [r["step"] for r in records if "held_out" in r] == [60, 120]
    assert run.steps() == [60, 120]
    assert run.checkpoint("last").state["item_shape"] == [2]

    twin = moons()[0]
    RunFolder.open(run.path).checkpoint().load({"model": twin.model, "guide": twin.guide})
    assert evaluate_elbo(twin.model, twin.guide, test) == history.held_out


def test_held_out_evaluation_is_exact_repeatable_and_leaves_no_trace() -> None:
    exact = LinearGaussian()
    data = exact.data(2000)
    state = torch.get_rng_state()
    batches = list(data.split(300))
    terms = evaluate_elbo(exact.model, exact.guide, batches)
    assert torch.equal(state, torch.get_rng_state())
    assert terms == evaluate_elbo(exact.model, exact.guide, batches)
    assert terms != evaluate_elbo(exact.model, exact.guide, batches, seed=1)
    assert terms["elbo"] == -(terms["distortion"] + terms["rate"])
    # Exact posterior, rate in closed form: only the distortion is sampled, once per datum.
    distortion = exact.model.decoder(exact.guide.encoder(data).sample()).log_prob(data)
    error = float((distortion.std() / len(data) ** 0.5).detach())
    assert terms["elbo"] == pytest.approx(float(exact.log_prob(data).mean()), abs=4 * error)


def test_evaluation_keeps_modes_and_buffers() -> None:
    body = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    system, _, test = moons()
    system.guide.encoder.network.body = body
    body[0].eval()
    before = {name: buffer.clone() for name, buffer in body.named_buffers()}
    evaluate_elbo(system.model, system.guide, test)
    assert not body[0].training
    assert body[1].training
    assert all(torch.equal(before[name], buffer) for name, buffer in body.named_buffers())


def test_the_first_batch_is_checked_with_validation_on() -> None:
    system, _, _ = moons()
    pyro.enable_validation(False)
    with pytest.raises(ValueError, match="8 NaN or infinite values of 8"):
        check_batch(
            system.model, system.guide, RegularizedELBO(), torch.full((4, 2), float("nan"))
        )
    with pytest.raises(ValueError, match=r"got \(4, 3\)"):
        check_batch(system.model, system.guide, RegularizedELBO(), torch.zeros(4, 3))
    labelled = torch.zeros(4, 2), torch.zeros(4)
    with pytest.raises(ValueError, match=r"VAE takes x alone, got batches of 2 tensors; leave"):
        check_batch(system.model, system.guide, RegularizedELBO(), labelled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1, "learning_rate": -1.0}, "learning_rate must be positive"),
        ({"steps": 1, "log_every": 0}, "log_every must be at least 1"),
    ],
)
def test_bad_configs_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)  # type: ignore[arg-type]


def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    layer = nn.Linear(2, 2)
    run.save({"layer": layer}, {"step": 1})

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pyro_dpvae._files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        run.save({"layer": nn.Linear(2, 2)}, {"step": 2})
    assert run.steps() == [1]
    twin = nn.Linear(2, 2)
    run.checkpoint().load({"layer": twin})
    assert torch.equal(twin.weight, layer.weight)
