"""The bound under a mixture, by a draw from each component."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.objectives import MMD, BetaRate, RegularizedELBO
from tests.linear_gaussian import LinearGaussian


class Mixture(AbstractGuide):
    """Components around the posterior of another guide, moved by offsets and weighted."""

    def __init__(self, guide: AbstractGuide, offsets: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.exact = [guide]  # no part of this one
        self.offsets = torch.nn.Parameter(offsets)
        self.logits = torch.nn.Parameter(logits)

    def posterior(self, x: Tensor) -> DiagonalNormalMixture:
        normal = self.exact[0].posterior(x).base_dist
        count = len(self.logits)
        loc = normal.loc.detach().unsqueeze(-2) + self.offsets[:, None]
        scale = normal.scale.detach().unsqueeze(-2).expand_as(loc)
        return DiagonalNormalMixture(self.logits.expand(len(x), count), loc, scale)


@pytest.mark.parametrize(
    "options", [{}, {"num_particles": 2}, {"num_particles": 3, "vectorize_particles": True}]
)
def test_a_mixture_that_is_the_posterior_has_the_bound_log_px_and_no_gradient(
    options: dict[str, int],
) -> None:
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    x = exact.data(6)
    guide = Mixture(exact.guide, torch.zeros(3).double(), torch.tensor([0.0, 1.0, -2.0]).double())
    objective = RegularizedELBO(**options)  # type: ignore[arg-type]
    loss = objective.differentiable_loss(exact.model, guide, x)
    # Each draw weighs log p(x, z) - log q(z | x) = log p(x); only the weights sum to one.
    torch.testing.assert_close(-loss.detach(), exact.log_prob(x).sum())
    (gradient,) = torch.autograd.grad(loss, guide.logits)
    torch.testing.assert_close(gradient, torch.zeros(3).double(), atol=1e-8, rtol=0)
    terms = objective.terms["distortion"] + objective.terms["rate"]
    torch.testing.assert_close(len(x) * terms, loss.detach())


def test_weights_of_components_far_apart_have_the_gradient_of_the_bound() -> None:
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    offsets, logits = torch.tensor([0.0, 40.0]).double(), torch.tensor([0.0, 1.0]).double()
    guide = Mixture(exact.guide, offsets, logits)
    x = exact.data(1).expand(50_000, -1).contiguous()
    loss = RegularizedELBO().differentiable_loss(exact.model, guide, x) / len(x)
    (gradient,) = torch.autograd.grad(loss, guide.logits)
    # Beyond each other's reach, the bound is log p(x) - sum_k a_k (KL_k + log a_k) with
    # KL(N(m + d, s^2) || N(m, s^2)) = d^2 / (2 s^2) in each coordinate.
    scale = exact.guide.posterior(x[:1]).base_dist.scale.detach()
    lost = (offsets.square()[:, None] / (2 * scale.square())).sum(-1)
    free = logits.clone().requires_grad_()
    expected = (free.softmax(0) * (lost + free.log_softmax(0))).sum()
    (exactly,) = torch.autograd.grad(expected, free)
    torch.testing.assert_close(gradient, exactly, rtol=2e-3, atol=0)


def test_particles_together_and_in_turn_have_one_expectation() -> None:
    exact = LinearGaussian()
    x = exact.data(1).expand(20_000, -1).contiguous()
    guide = Mixture(exact.guide, torch.tensor([-0.5, 0.7]).double(), torch.zeros(2).double())
    together = RegularizedELBO(num_particles=2, vectorize_particles=True).loss(
        exact.model, guide, x
    )
    assert together / len(x) == pytest.approx(
        RegularizedELBO(num_particles=2).loss(exact.model, guide, x) / len(x), abs=0.02
    )


def test_a_site_outside_the_plate_counts_once_and_scales_are_kept() -> None:
    exact = LinearGaussian()
    x = exact.data(6)
    guide = Mixture(exact.guide, torch.zeros(2).double(), torch.tensor([0.0, 1.0]).double())

    def model(x: Tensor) -> None:
        pyro.sample("once", dist.Normal(0.0, 1.0), obs=torch.tensor(2.0))
        with pyro.poutine.scale(scale=1.0):
            exact.model(x)

    once = 2.0 + 0.5 * math.log(2 * math.pi)
    expected = once - float(exact.log_prob(x).sum())
    assert RegularizedELBO().loss(model, guide, x) == pytest.approx(expected)
    scaled = pyro.poutine.scale(model, scale=3.0), pyro.poutine.scale(guide, scale=3.0)
    assert RegularizedELBO().loss(*scaled, x) == pytest.approx(3 * expected)


def test_a_factor_of_the_whole_batch_sees_samples_of_the_mixture() -> None:
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    x = exact.data(1).expand(2_000, -1).contiguous()
    offsets, logits = torch.tensor([-3.0, 5.0]).double(), torch.tensor([0.0, 1.0]).double()
    guide = Mixture(exact.guide, offsets, logits)

    def model(x: Tensor) -> None:
        traced = pyro.poutine.trace(exact.model).get_trace(x)
        z = traced.nodes["z"]["value"]
        pyro.factor("together", -len(x) * z.mean(0).square().sum())

    q = guide.posterior(x[:1])
    # Of N samples of one q, E[|mean|^2] = |E z|^2 + trace(cov) / N.
    square = q.mean.square().sum() + q.variance.sum() / len(x)
    objective = RegularizedELBO()
    added = objective.loss(model, guide, x) - objective.loss(exact.model, guide, x)
    assert added / len(x) == pytest.approx(float(square.detach()), rel=0.1)


def test_penalties_see_draws_of_the_mixture_itself() -> None:
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    x = exact.data(400)
    # All but none of the weight is on what the posterior is; the other component is never drawn.
    offsets, logits = torch.tensor([0.0, 30.0]).double(), torch.tensor([0.0, -60.0]).double()
    objective = RegularizedELBO(rate=BetaRate(1.0), penalties=[MMD(1.0)])
    objective.loss(exact.model, Mixture(exact.guide, offsets, logits), x)
    assert abs(float(objective.terms["mmd"])) < 0.05
    objective.loss(exact.model, Mixture(exact.guide, offsets, -logits), x)
    assert float(objective.terms["mmd"]) > 0.5
