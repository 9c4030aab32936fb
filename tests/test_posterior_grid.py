"""Posteriors on a grid against closed forms of the linear-Gaussian model."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from papers.posteriors.figure import posteriors_figure
from papers.posteriors.study import POSTERIOR_MODELS, fixed_model, measure_posteriors
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.metrics import (
    PosteriorGrid,
    cell_kl,
    log_cell_mass,
    posterior_grid,
    posterior_kl,
)
from pyro_dpvae.priors import StandardNormal
from tests.linear_gaussian import LinearGaussian


def linear(count: int = 4, *, side: int = 161) -> tuple[LinearGaussian, PosteriorGrid]:
    truth = LinearGaussian()
    model = truth.model
    x = truth.data(count)
    return truth, posterior_grid(model.prior, model.decoder, x, side=side)


def test_the_evidence_is_that_of_the_closed_form() -> None:
    truth, grid = linear()
    torch.testing.assert_close(grid.log_evidence, truth.log_prob(grid.x))


def test_the_mass_of_cells_is_the_exact_posterior_s_density_times_their_area() -> None:
    truth, grid = linear()
    with torch.no_grad():
        exact = truth.guide.posterior(grid.x).log_prob(grid.z[:, None]).T
    torch.testing.assert_close(grid.log_mass, exact + grid.log_area)
    assert math.isclose(math.exp(grid.log_area), (10 / 160) ** 2)


def test_the_divergence_is_that_of_two_gaussians() -> None:
    truth, grid = linear()

    def q(x: Tensor) -> dist.MultivariateNormal:
        tril = torch.tensor([[0.5, 0.0], [-0.2, 0.4]], dtype=x.dtype)
        return dist.MultivariateNormal(x[:, :2] / 4, scale_tril=tril)

    with torch.no_grad():
        p = truth.guide.posterior(grid.x).base_dist
        p = dist.MultivariateNormal(p.loc, scale_tril=torch.diag_embed(p.scale))
    exact = kl_divergence(q(grid.x), p)
    estimate = posterior_kl(q, grid)
    assert math.isclose(estimate.value, exact.mean(), rel_tol=1e-6)
    assert math.isclose(estimate.standard_error, exact.std() / 2, rel_tol=1e-6)
    one = posterior_kl(q, grid.of_datum(2))
    assert math.isclose(one.value, exact[2], rel_tol=1e-6)
    assert math.isnan(one.standard_error)


def test_the_divergence_is_the_gap_of_the_bound_under_any_posterior() -> None:
    truth, grid = linear(2)

    def q(x: Tensor) -> DiagonalNormalMixture:
        loc = torch.stack([x[:, :2] / 4, -x[:, 1:] / 4], -2)
        return DiagonalNormalMixture(x[:, :2], loc, torch.full_like(loc, 0.5))

    z = q(grid.x).sample((40_000,))
    with torch.no_grad():
        model = truth.model
        log_joint = model.prior().log_prob(z) + model.decoder(z).log_prob(grid.x)
        bound = log_joint - q(grid.x).log_prob(z)
    gap = float((truth.log_prob(grid.x) - bound).mean())
    error = float(bound.mean(-1).std()) / 200
    assert abs(posterior_kl(q, grid).value - gap) < 4 * error


def test_a_grid_that_misses_mass_is_refused() -> None:
    truth = LinearGaussian()
    prior, decoder, x = truth.model.prior, truth.model.decoder, truth.data(3)
    with pytest.raises(ValueError, match=r"outermost cells must hold at most 0\.001.*raise reach"):
        posterior_grid(prior, decoder, x, reach=0.5)
    with pytest.raises(ValueError, match=r"too coarse for p\(z \| x\); raise reach.*side, now 9"):
        posterior_grid(prior, decoder, x, side=9)
    with pytest.raises(ValueError, match="side must be at least 3, got 2"):
        posterior_grid(prior, decoder, x, side=2)
    with pytest.raises(ValueError, match="two latents for a grid, got 3"):
        posterior_grid(StandardNormal(3), decoder, x)


@pytest.mark.parametrize("scale", [4.0, 0.02])
def test_a_grid_that_does_not_hold_a_guide_s_posterior_is_refused(scale: float) -> None:
    _, grid = linear()
    q = dist.Normal(grid.x.new_full((4, 2), 0.01), scale).to_event(1)
    with pytest.raises(ValueError, match="the cells must hold"):
        log_cell_mass(lambda _: q, grid)


@pytest.mark.parametrize("name", POSTERIOR_MODELS)
def test_the_models_stay_fixed_and_are_alike_each_time(name: str) -> None:
    model, again = fixed_model(name), fixed_model(name)
    assert not any(p.requires_grad for p in model.parameters())
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    pyro.set_rng_seed(1)
    posterior_grid(model.prior, model.decoder, model(size=20), reach=10, side=301)


def test_a_study_measures_every_guide_on_a_datum_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("amortized", "recursive mixture of 2")
    guides = {title: POSTERIOR_MODELS["folded"][title] for title in few}
    monkeypatch.setitem(POSTERIOR_MODELS, "folded", guides)
    result = measure_posteriors("folded", steps=6, data=5)
    assert result.kl.keys() == result.log_cell_mass.keys() == set(few)
    total = result.shown.log_mass.exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))
    figure = posteriors_figure({"folded": result}, guides={"folded": few})
    shown = float(cell_kl(result.log_cell_mass["amortized"], result.shown.log_mass))
    assert figure.axes[0].get_title() == f"amortized: {shown:.2f} nats"
