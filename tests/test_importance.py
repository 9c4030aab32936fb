"""Importance sampling against exact likelihoods, ArviZ and Pyro."""

import dataclasses
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor

from pyro_dpvae.export import _arviz as import_arviz
from pyro_dpvae.importance import (
    ImportanceSampler,
    effective_sample_size,
    iwae_bound,
    log_mean_exp,
    log_weights,
    pareto_k,
)
from pyro_dpvae.metrics import log_likelihoods, negative_log_likelihood
from pyro_dpvae.models import VAE
from pyro_dpvae.priors import CouplingPrior
from tests.linear_gaussian import LATENT, LinearGaussian


@pytest.fixture
def exact() -> LinearGaussian:
    return LinearGaussian()


class Widened:
    """The exact posterior with other scales, so that weights vary."""

    def __init__(self, exact: LinearGaussian, factor: float) -> None:
        self.exact, self.factor = exact, factor

    def __call__(self, x: Tensor) -> None:
        q = self.exact.guide.encoder(x).base_dist
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(q.loc, self.factor * q.scale).to_event(1))


def test_the_exact_posterior_has_equal_weights(exact: LinearGaussian) -> None:
    x = exact.data(6)
    weights = log_weights(exact.model, exact.guide, x, num_samples=10)
    assert weights.shape == (10, 6)
    assert weights.dtype == torch.float64
    expected = exact.log_prob(x).expand(10, 6)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)


def test_an_autoguide_that_is_the_posterior_has_equal_weights() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(6)
    guide = AutoNormal(model)
    guide(x)
    with torch.no_grad():
        guide.locs.z.copy_(x / 2)
        guide.scales.z = torch.full((6,), 0.5**0.5)
    weights = log_weights(model, guide, x, num_samples=10)
    expected = dist.Normal(0.0, 2**0.5).log_prob(x).double().expand(10, 6)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)
    # The vector of all z together has no density for each datum.
    together = AutoDiagonalNormal(model)
    together(x)
    with pytest.raises(ValueError, match="plate"):
        log_weights(model, together, x, num_samples=10)


def test_likelihoods_are_exact_within_their_error(exact: LinearGaussian) -> None:
    x = exact.data(300)
    guide = Widened(exact, 1.4)
    estimates = log_likelihoods(
        exact.model, guide, x.split(70), num_samples=4000, chunk=500, progress=False
    )
    differences = estimates.log_likelihood - exact.log_prob(x)
    error = (1 / estimates.effective_samples - 1 / 4000).sqrt()
    assert float((differences / error).std()) == pytest.approx(1.0, abs=0.15)
    assert abs(float(differences.mean())) < 3 * estimates.monte_carlo_error
    nll = negative_log_likelihood(estimates)
    assert nll.value == pytest.approx(-float(exact.log_prob(x).mean()), abs=1e-2)
    assert nll.settings["samples"] == 4000
    assert nll.settings["data"] == 300
    assert nll.settings["pareto_k_above_0.7"] == 0.0


def test_intervals_cover_the_entropy_of_the_data(exact: LinearGaussian) -> None:
    # The mean of -log p(x) over data of the model itself is the entropy of p(x).
    covariance = exact.weight @ exact.weight.T + 0.3 * torch.eye(3, dtype=torch.float64)
    entropy = float(torch.distributions.MultivariateNormal(exact.bias, covariance).entropy())
    guide = Widened(exact, 1.2)
    estimates = log_likelihoods(
        exact.model, guide, exact.data(200 * 60).split(600), num_samples=200, progress=False
    )
    names = ("log_likelihood", "effective_samples", "pareto_k")
    splits = [getattr(estimates, name).split(60) for name in names]
    covered = 0
    for of_one in zip(*splits, strict=True):
        one = dataclasses.replace(estimates, **dict(zip(names, of_one, strict=True)))
        estimate = negative_log_likelihood(one)
        covered += abs(estimate.value - entropy) < 1.96 * estimate.standard_error
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000, None])
def test_the_chunk_size_changes_nothing(exact: LinearGaussian, chunk: int | None) -> None:
    # With a multiple of 16 numbers for each sample, chunks take the same random numbers.
    x = exact.data(8)
    guide = Widened(exact, 1.3)
    found = []
    for size in (100, chunk):
        pyro.set_rng_seed(0)
        found.append(
            log_likelihoods(exact.model, guide, [x], num_samples=100, chunk=size, progress=False)
        )
    for name in ("log_likelihood", "effective_samples", "pareto_k"):
        torch.testing.assert_close(
            getattr(found[0], name), getattr(found[1], name), rtol=1e-10, atol=1e-10
        )


def arviz_pareto_k(weights: np.ndarray) -> np.ndarray:
    """From ArviZ up to 0.23, or from the package that ArviZ 1 has it in."""
    arviz = import_arviz()
    if hasattr(arviz, "psislw"):
        return arviz.psislw(weights)[1]
    from arviz_stats.base import array_stats

    return array_stats.psislw(-weights)[1]  # it takes -log w


def test_pareto_k_is_that_of_arviz() -> None:
    # The tail has 3 sqrt(900) = 90 weights: ArviZ 1 rounds that down, the paper's code rounds up.
    weights = torch.randn(900, 6, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1, 2, 3, 5])
    found = pareto_k(weights)
    expected = arviz_pareto_k(weights.T.numpy().copy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    assert bool((found[1:] > found[:-1]).all())
    # Too few draws for a tail
    assert pareto_k(torch.randn(10, 1, dtype=torch.float64)).tolist() == [math.inf]


def test_weights_of_few_values_have_no_heavy_tail() -> None:
    generator = torch.Generator().manual_seed(0)
    perfect = 1e-15 * torch.randn(1000, generator=generator, dtype=torch.float64)
    values = torch.tensor([0.5, 1.0, 1.3], dtype=torch.float64)
    common = values[torch.randint(3, (1000,), generator=generator)].log()
    rare = torch.zeros(1000, dtype=torch.float64)
    rare[:3] = math.log(1.5)  # a value of 3 draws: fewer than a fit needs, and they matter little
    found = pareto_k(torch.stack([torch.zeros_like(rare), perfect, common, rare], 1))
    assert found.tolist() == [-math.inf] * 4
    assert effective_sample_size(common) > 850
    # A draw that outweighs all others is what k-hat is there to tell.
    rare[:2] = math.log(1e4)
    assert pareto_k(rare.unsqueeze(1)).tolist() == [math.inf]


def test_an_exact_guide_has_no_heavy_tail(exact: LinearGaussian) -> None:
    # With the exact posterior every weight is p(x), to rounding.
    estimates = log_likelihoods(
        exact.model, exact.guide, [exact.data(20)], num_samples=1000, progress=False
    )
    assert bool((estimates.effective_samples > 999.99).all())
    assert bool((estimates.pareto_k < 0).all())
    assert negative_log_likelihood(estimates).settings["pareto_k_above_0.7"] == 0.0


def test_effective_samples_and_means() -> None:
    weights = torch.tensor([[1.0, 1.0], [1.0, 3.0], [1.0, 1e-9]], dtype=torch.float64)
    torch.testing.assert_close(
        effective_sample_size(weights.log()), torch.tensor([3.0, 16 / 10]).double()
    )
    torch.testing.assert_close(
        log_mean_exp(weights.log()), torch.tensor([0.0, math.log(4 / 3)]).double()
    )


def test_the_iwae_bound_lies_between_the_elbo_and_the_likelihood(exact: LinearGaussian) -> None:
    x = exact.data(20)
    guide = Widened(exact, 1.5)
    weights = log_weights(exact.model, guide, x, num_samples=6000)
    elbo, ten, all_ = (float(iwae_bound(weights, k).mean()) for k in (1, 10, 6000))
    assert elbo < ten < all_
    assert elbo == pytest.approx(float(weights.mean()))
    assert all_ == pytest.approx(float(exact.log_prob(x).mean()), abs=0.02)
    of_pyro = sum(renyi_bound(exact, guide, one) for one in x.split(1)) / len(x)
    assert ten == pytest.approx(of_pyro, abs=0.1)
    with pytest.raises(ValueError, match="k must divide the number of samples, 6000, got 7"):
        iwae_bound(weights, 7)


def renyi_bound(exact: LinearGaussian, guide: Any, x: Tensor) -> float:
    """Pyro's own bound with ten samples, one datum at a time, averaged over repeats."""
    objective = RenyiELBO(
        alpha=0.0, num_particles=10, vectorize_particles=True, max_plate_nesting=1
    )
    return -sum(objective.loss(exact.model, guide, x) for _ in range(40)) / 40


def test_pyros_weights_agree_where_they_are_right(exact: LinearGaussian) -> None:
    # One datum at a time, Pyro's joint weight is the datum's.
    x = exact.data(1)
    guide = Widened(exact, 1.3)
    pyro.set_rng_seed(0)
    ours = log_weights(exact.model, guide, x, num_samples=50)[:, 0]
    pyro.set_rng_seed(0)
    theirs, *_ = vectorized_importance_weights(
        exact.model, guide, x, num_samples=50, max_plate_nesting=1, normalized=False
    )
    torch.testing.assert_close(ours.sort().values, theirs.double().squeeze(-1).sort().values)
    one = pyro.infer.Importance(exact.model, guide, num_samples=1500)
    one.run(x)
    expected = float(exact.log_prob(x))
    assert float(one.get_log_normalizer()) == pytest.approx(expected, abs=0.05)
    assert float(
        log_mean_exp(log_weights(exact.model, guide, x, num_samples=4000))
    ) == pytest.approx(expected, abs=0.05)


def test_under_a_coupling_prior_the_mean_weight_is_the_elbo(exact: LinearGaussian) -> None:
    model = VAE(CouplingPrior(LATENT).double(), exact.model.decoder)
    x = exact.data(5)
    weights = log_weights(model, exact.guide, x, num_samples=3000)
    objective = Trace_ELBO(num_particles=3000, vectorize_particles=True, max_plate_nesting=1)
    error = float(weights.sum(1).std()) / math.sqrt(3000)
    assert float(weights.mean(0).sum()) == pytest.approx(
        -objective.loss(model, exact.guide, x), abs=5 * error
    )


def test_models_of_users_with_plates_within_the_data(exact: LinearGaussian) -> None:
    # A plate of pixels inside the data's, and a discrete latent.
    def model(x: Tensor) -> None:
        with pyro.plate("pixels", 4, dim=-2), pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(2 * y, 1.0), obs=x.T)

    def guide(x: Tensor) -> None:
        with pyro.plate("pixels", 4, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Bernoulli(0.5))

    x = torch.randn(5, 4)
    weights = log_weights(model, guide, x, num_samples=20_000, chunk=3000)
    density = 0.7 * dist.Normal(0.0, 1.0).log_prob(x).exp()
    density = density + 0.3 * dist.Normal(2.0, 1.0).log_prob(x).exp()
    expected = density.log().sum(-1).double()
    torch.testing.assert_close(log_mean_exp(weights), expected, rtol=0, atol=0.1)


def test_programs_without_weights_of_each_datum_are_refused(exact: LinearGaussian) -> None:
    x = exact.data(4)

    def with_global(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).expand([3]).to_event(1), obs=x)

    def guide_of_global(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match=r"must lie inside pyro.plate\('data', .* got 'w' in plat"
    ):
        log_weights(with_global, guide_of_global, x, num_samples=10)

    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample=torch.arange(4)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)

    def subsampled_guide(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample=torch.arange(4)):
            pyro.sample("z", exact.guide.encoder(x))

    with pytest.raises(ValueError, match=r"sites of scale 1, got 10.* and no poutine.scale"):
        log_weights(subsampled, subsampled_guide, x, num_samples=10)
    with pytest.raises(ValueError, match=r"sites of scale 1, got 0.5"):
        log_weights(poutine.scale(exact.model, 0.5), exact.guide, x, num_samples=10)

    def nothing(x: Tensor) -> None:
        pass

    with pytest.raises(ValueError, match=r"the same latent sites, got \['z'\] and \[\]"):
        log_weights(exact.model, nothing, x, num_samples=10)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        log_weights(exact.model, exact.guide, x, num_samples=0)
    with pytest.raises(ValueError, match="at least one batch"):
        log_likelihoods(exact.model, exact.guide, [], num_samples=3, progress=False)
    with pytest.raises(ValueError, match=r"need data, got a batch of shape \(0, 3\)"):
        log_weights(exact.model, exact.guide, x[:0], num_samples=10)

    def in_a_loop(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i, 0])

    def guide_in_a_loop(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match=r"must be vectorized, got a loop over pyro.plate\('data'"
    ):
        log_weights(in_a_loop, guide_in_a_loop, x, num_samples=10)

    def of_one(x: Tensor) -> None:
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:1, 0])

    def guide_of_one(x: Tensor) -> None:
        with pyro.plate("data", 1):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="must hold the batch of 4 at once, got one of 1"):
        log_weights(of_one, guide_of_one, x, num_samples=10)


def test_programs_that_cannot_make_several_draws_at_once_are_refused(
    exact: LinearGaussian,
) -> None:
    x = exact.data(4)

    def across_the_batch(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            mean = (
                torch.cat([z.softmax(1), z.sum(1, keepdim=True)], -1)
                if z.dim() == 2
                else (torch.cat([z.softmax(1), z.sum(-1, keepdim=True)], -1))
            )
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"with them they give other densities; count"):
        log_weights(across_the_batch, exact.guide, x, num_samples=10)

    def joined(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", dist.Normal(torch.cat([x, z], -1)[..., :3], 1.0).to_event(1), obs=x)

    with pytest.raises(
        ValueError, match=r"with them they fail: .*; count dimensions from the rig"
    ):
        log_weights(joined, exact.guide, x, num_samples=10)


def test_a_large_call_after_a_small_one_has_chunks_of_its_own() -> None:
    encoder = torch.nn.Linear(2, 4)
    x = torch.randn(5, 2)

    def guide(x: Tensor) -> None:
        mean, log_scale = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    sampler = ImportanceSampler(model, guide)
    sizes = [
        [len(part) for part in sampler.chunks(x, num_samples=count)] for count in (3, 4000, 3)
    ]
    assert sizes == [[3], [3276, 724], [3]]  # 2^14 data of 5 at once
