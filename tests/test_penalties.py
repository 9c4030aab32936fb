"""DIP-VAE and mutual posterior divergence, against loops over their formulas."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from pyro_dpvae.objectives import DIP, DIPELBO, Latents, MutualDivergence, MutualDivergenceELBO
from pyro_dpvae.priors import CouplingPrior
from tests.gaussian_latents import Sampler, latents_of, site_of

BATCH, LATENT = 7, 3


def posteriors() -> tuple[Tensor, Tensor]:
    loc = torch.randn(BATCH, LATENT, dtype=torch.float64)
    return loc, torch.rand_like(loc) + 0.3


def full_covariance() -> dist.MultivariateNormal:
    factor = torch.randn(BATCH, LATENT, LATENT, dtype=torch.float64).tril()
    factor.diagonal(dim1=-2, dim2=-1).abs_().add_(0.3)
    return dist.MultivariateNormal(posteriors()[0], scale_tril=factor)


# DIP-VAE.


def dip_terms(covariance: Tensor) -> dict[str, Tensor]:
    off_diagonal = sum(
        covariance[i, j].square() for i, j in itertools.permutations(range(len(covariance)), 2)
    )
    diagonal = sum((covariance[i, i] - 1).square() for i in range(len(covariance)))
    return {"off_diagonal": off_diagonal, "diagonal": diagonal}


def test_dip_one_is_the_covariance_of_the_means() -> None:
    loc, scale = posteriors()
    torch.testing.assert_close(DIP(1.0, 1.0)(latents_of(loc, scale)), dip_terms(loc.T.cov()))


@pytest.mark.parametrize("low_rank", [False, True])
def test_dip_two_adds_the_mean_covariance(low_rank: bool) -> None:
    loc, scale = posteriors()
    expected = dip_terms(loc.T.cov() + scale.square().mean(0).diag())
    torch.testing.assert_close(DIP(1.0, 1.0, form="II")(latents_of(loc, scale)), expected)
    q = full_covariance()
    if low_rank:
        q = dist.LowRankMultivariateNormal(loc, torch.randn(BATCH, LATENT, 1).double(), scale)
    expected = dip_terms(q.loc.T.cov() + q.covariance_matrix.mean(0))
    found = DIP(1.0, 1.0, form="II")(Latents((site_of(q),)))
    torch.testing.assert_close(found, expected)


def test_dip_of_two_sites_is_of_their_whole_vector() -> None:
    loc, scale = posteriors()
    split = Latents(
        (
            site_of(dist.Normal(loc[:, :1], scale[:, :1]).to_event(1), name="a"),
            site_of(dist.Normal(loc[:, 1:], scale[:, 1:]).to_event(1), name="b"),
        )
    )
    penalty = DIP(1.0, 1.0)
    torch.testing.assert_close(penalty(split), penalty(latents_of(loc, scale)))
    # One site may depend on another, so the covariance is that of the z drawn.
    expected = dip_terms(split.value.T.cov())
    torch.testing.assert_close(DIP(1.0, 1.0, form="II")(split), expected)


def test_dip_two_of_unknown_variance_is_of_the_z_drawn() -> None:
    transform = dist.transforms.AffineTransform(1.0, 2.0)
    base = dist.Normal(torch.randn(BATCH, LATENT), 1.0)
    q = dist.TransformedDistribution(base, [transform]).to_event(1)
    latents = Latents((site_of(q),))
    found = DIP(1.0, 1.0, form="II")(latents)
    torch.testing.assert_close(found, dip_terms(latents.value.T.cov()))


def test_dip_of_a_flow() -> None:
    q = CouplingPrior(LATENT)().expand((BATCH,))
    latents = Latents((site_of(q),))
    expected = dip_terms(latents.value.detach().T.cov())
    found = DIP(1.0, 1.0, form="II")(latents)
    torch.testing.assert_close({name: term.detach() for name, term in found.items()}, expected)
    exotic = Latents((site_of(Sampler(BATCH, LATENT), q.sample()),))
    with pytest.raises(TypeError, match=r"known mean.* got Sampler; use form 'II'"):
        DIP(1.0, 1.0)(exotic)


# Mutual posterior divergence.


def mutual_terms(divergence: Tensor, form: str) -> dict[str, Tensor]:
    """From KL_k(i, j), of shape (B, B, L)."""
    pairs = torch.stack([divergence[i, j] for i, j in itertools.permutations(range(BATCH), 2)])
    if form == "paper":
        diversity = torch.stack([softplus(-pair).sum() for pair in pairs]).mean()
    else:
        diversity = softplus(-pairs.mean(0)).sum()
    sums = pairs.sum(-1)
    smoothness = ((sums - sums.mean()).square().sum() / (len(sums) - 1)).sqrt()
    return {"diversity": diversity, "smoothness": smoothness}


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("full", [False, True])
def test_mutual_divergence_is_its_double_sum(form: str, full: bool) -> None:
    loc, scale = posteriors()
    q = full_covariance() if full else dist.Normal(loc, scale).to_event(1)
    if full:
        loc, scale = q.loc, q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    divergence = torch.empty(BATCH, BATCH, LATENT, dtype=torch.float64)
    for i, j, k in itertools.product(range(BATCH), range(BATCH), range(LATENT)):
        divergence[i, j, k] = kl_divergence(
            torch.distributions.Normal(loc[i, k], scale[i, k]),
            torch.distributions.Normal(loc[j, k], scale[j, k]),
        )
    found = MutualDivergence(1.0, 1.0, form=form)(Latents((site_of(q),)))
    torch.testing.assert_close(found, mutual_terms(divergence, form))


def test_mutual_divergence_of_other_posteriors_is_estimated_at_the_samples() -> None:
    loc = torch.randn(BATCH, LATENT, dtype=torch.float64)
    q = dist.Laplace(loc, 0.5).to_event(1)
    latents = Latents((site_of(q),))
    divergence = torch.empty(BATCH, BATCH, LATENT, dtype=torch.float64)
    for i, j in itertools.product(range(BATCH), range(BATCH)):
        own, other = (torch.distributions.Laplace(loc[n], 0.5) for n in (i, j))
        divergence[i, j] = own.log_prob(latents.value[i]) - other.log_prob(latents.value[i])
    found = MutualDivergence(1.0, 1.0)(latents)
    torch.testing.assert_close(found, mutual_terms(divergence, "paper"))


def test_mutual_divergence_tells_the_direction() -> None:
    # KL(i || j) and KL(j || i) differ, and a wide posterior is cheap to reach.
    loc = torch.zeros(2, 1, dtype=torch.float64)
    scale = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    forward = math.log(3) + 1 / 18 - 0.5
    backward = -math.log(3) + 4.5 - 0.5
    found = MutualDivergence(1.0, 1.0)(latents_of(loc, scale))
    expected = (math.log1p(math.exp(-forward)) + math.log1p(math.exp(-backward))) / 2
    assert float(found["diversity"]) == pytest.approx(expected)
    assert float(found["smoothness"]) == pytest.approx((backward - forward) / math.sqrt(2))


def test_equal_posteriors_have_finite_gradients() -> None:
    loc = torch.zeros(4, 2, requires_grad=True)
    terms = MutualDivergence(1.0, 1.0)(latents_of(loc, torch.ones(4, 2)))
    gradient = torch.autograd.grad(sum(terms.values()), loc)[0]
    assert bool(gradient.isfinite().all())


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="form must be one of"):
        MutualDivergenceELBO(form="published")
    with pytest.raises(ValueError, match="form must be one of"):
        DIPELBO(form="III")
    with pytest.raises(ValueError, match="diversity must be 0 or more, got -1"):
        MutualDivergenceELBO(-1.0)
    q = Sampler(BATCH, LATENT)
    with pytest.raises(TypeError, match="coordinates with known densities"):
        MutualDivergence(1.0, 1.0)(Latents((site_of(q, q.sample()),)))
