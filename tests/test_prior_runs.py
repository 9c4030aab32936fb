"""Runs under priors whose generation space is not standard normal: measured and drawn."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyro_dpvae.cli import main
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.metrics import symmetric_kl
from pyro_dpvae.plots import run as plot
from pyro_dpvae.recipes import open_run

NAMES = ["coupling-mixture", "resampled"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    options = {"coupling-mixture": ["--prior.spread", "5"]}
    for name in NAMES:
        arguments = ["--data", "two-moons", "--latent-dim", "2", "--prior", name]
        small = [
            "--prior.hidden",
            "[8]",
            *options.get(name, []),
            "--steps",
            "3",
            "--backend",
            "eager",
        ]
        assert main(["train", *arguments, *small, "--out", str(folder / name)]) == 0
    return folder


def subject_of(run: Path) -> Subject:
    saved = open_run(run)
    return Subject(saved, saved.load_data(), EvaluationConfig(), progress=False)


@pytest.mark.parametrize("name", NAMES)
def test_moments_of_generation_space_are_those_of_its_draws(runs: Path, name: str) -> None:
    subject = subject_of(runs / name)
    mean, scale = subject.base_moments
    z0 = subject.prior.base().sample((20_000,))
    assert ((mean - z0.mean(0)).abs() < 0.1 * scale).all()
    torch.testing.assert_close(scale, z0.std(0), rtol=0.07, atol=0)


def test_factor_traversals_span_generation_space(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(runs / "coupling-mixture")
    mean, scale = subject.base_moments
    assert (scale > 2).all()
    seen: list[Tensor] = []
    decode = plot._decode
    monkeypatch.setattr(plot, "_decode", lambda one, z: (seen.append(z), decode(one, z))[1])
    with torch.no_grad():
        plot._factors(subject)
        (together,) = seen
        lines = together.split(plot._FACTOR_STEPS)
        ends = [subject.prior.to_generation(line[[0, -1]])[0] for line in lines]
    for dim, (low, high) in zip(subject.generation_spread.topk(2).indices, ends, strict=True):
        torch.testing.assert_close(low[dim], mean[dim] - 3 * scale[dim], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(high[dim], mean[dim] + 3 * scale[dim], rtol=1e-4, atol=1e-4)


def test_a_resampled_prior_is_measured(runs: Path) -> None:
    run = runs / "resampled"
    few = ["--nll-samples", "40", "--nll-data", "20", "--latent-samples", "200"]
    assert main(["evaluate", str(run), *few, "--metrics", "elbo,skl,nll"]) == 0
    metrics = json.loads((run / "evaluation.json").read_text())["metrics"]
    # In evaluation mode the density is one function, and is measured as such.
    value, again = (symmetric_kl_of(run) for _ in range(2))
    assert value == again
    assert all(torch.tensor(entry["value"]).isfinite() for entry in metrics.values())


def symmetric_kl_of(run: Path) -> float:
    subject = subject_of(run)
    torch.manual_seed(0)
    return symmetric_kl(subject.prior, subject.aggregate, num_samples=100).value
