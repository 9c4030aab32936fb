"""MMD and Stein discrepancy: against double sums, closed forms, and zero for one distribution."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import Tensor, nn

from pyro_dpvae.objectives import MMD, AbstractPenalty, Latents, SteinDiscrepancy
from pyro_dpvae.objectives.penalties import mmd
from pyro_dpvae.objectives.penalties.mmd import KERNELS, Kernel, squared_distances
from pyro_dpvae.objectives.penalties.stein import stein_squared
from pyro_dpvae.priors import CouplingPrior, FixedPrior, ProductPrior, StandardNormal, ZukoPrior
from tests.gaussian_latents import latents_of, site_of

BATCH, LATENT = 12, 3


def kernel_value(name: str, a: Tensor, b: Tensor) -> Tensor:
    """The kernels as their authors write them, for one pair."""
    squared, size = (a - b).square().sum(), len(a)
    if name == "rbf":
        return torch.exp(-squared / (2 * size))
    if name == "authors":
        return torch.exp(-(a - b).square().mean() / size)
    constants = [2 * size * c for c in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
    return torch.stack([c / (c + squared) for c in constants]).sum()


@pytest.mark.parametrize("name", KERNELS)
def test_mmd_is_its_double_sum(name: str) -> None:
    p = torch.randn(BATCH, LATENT, dtype=torch.float64)
    q = 2 * torch.randn(BATCH, LATENT, dtype=torch.float64) + 1
    k = Kernel(name)
    found = mmd.mmd_squared(k(q, q), k(p, p), k(q, p))
    expected = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.product(range(BATCH), range(BATCH)):
        if i != j:
            pair = kernel_value(name, q[i], q[j]) + kernel_value(name, p[i], p[j])
            expected += pair / (BATCH * (BATCH - 1))
        expected -= 2 * kernel_value(name, q[i], p[j]) / BATCH**2
    torch.testing.assert_close(found, expected)


def same_law(prior: str, batch: int) -> Latents:
    """Z drawn from the prior itself."""
    if prior == "coupling":
        torch.manual_seed(7)
        p = CouplingPrior(LATENT)().expand((batch,))
    else:
        p = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1).expand((batch,))
    return Latents((site_of(p, p.sample(), prior=p),))


def check_zero_for_one_law(penalty: AbstractPenalty, prior: str) -> None:
    with torch.no_grad():
        latents = same_law(prior, 24)
        values = []
        for _ in range(400):
            site = latents.sites[0]
            drawn = Latents((site_of(site.prior, site.prior.sample(), prior=site.prior),))
            values.append(next(iter(penalty(drawn).values())))
    found = torch.stack(values)
    assert float(found.std()) > 0
    assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(len(found))


@pytest.mark.parametrize("prior", ["standard", "coupling"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_is_zero_for_one_law(kernel: str, prior: str) -> None:
    check_zero_for_one_law(MMD(1.0, kernel=kernel), prior)


def with_diagonal(kernel: Tensor) -> Tensor:
    return kernel.mean((-2, -1))


def without_diagonal_by_the_whole_count(kernel: Tensor) -> Tensor:
    total = kernel.sum((-2, -1)) - kernel.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total / kernel.shape[-1] ** 2


@pytest.mark.parametrize("mutant", [with_diagonal, without_diagonal_by_the_whole_count])
def test_zero_for_one_law_shows_biased_sums(
    mutant: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmd, "_off_diagonal_mean", mutant)
    with pytest.raises(AssertionError):
        check_zero_for_one_law(MMD(1.0), "standard")


def test_mmd_of_gaussians_is_its_closed_form() -> None:
    # E exp(-|d|^2 / s) of d ~ N(m, v I) is (1 + 2v/s)^(-L/2) exp(-|m|^2 / (s + 2v)).
    s = Kernel("rbf").scale(LATENT)

    def expectation(squared: float, variance: float) -> float:
        root = (1 + 2 * variance / s) ** (-LATENT / 2)
        return root * math.exp(-squared / (s + 2 * variance))

    shift, deviation = 0.8, 0.6
    exact = (
        expectation(0, 2 * deviation**2)
        + expectation(0, 2)
        - 2 * expectation(LATENT * shift**2, 1 + deviation**2)
    )
    loc, scale = torch.full((50, LATENT), shift), torch.full((50, LATENT), deviation)
    found = torch.stack([MMD(1.0)(latents_of(loc, scale))["mmd"] for _ in range(300)])
    error = float(found.std()) / math.sqrt(len(found))
    assert error < exact / 20
    assert float(found.mean()) == pytest.approx(exact, abs=4 * error)


def test_bandwidths() -> None:
    assert Kernel("rbf").scale(5) == pytest.approx(10.0)
    assert Kernel("rbf", bandwidth=0.5).scale(5) == pytest.approx(0.5)
    # By default the scale is the mean squared distance of two draws of N(0, I).
    a, b = torch.randn(2, 4000, 5)
    assert float((a - b).square().sum(-1).mean()) == pytest.approx(10.0, rel=0.05)
    assert Kernel("authors").scale(5) == 25.0
    with pytest.raises(ValueError, match="bandwidth must be"):
        MMD(1.0, bandwidth=0.0)
    with pytest.raises(ValueError, match="bandwidth must be None for kernel 'authors'"):
        MMD(1.0, kernel="authors", bandwidth=1.0)
    with pytest.raises(ValueError, match="kernel must be one of"):
        MMD(1.0, kernel="laplace")


def test_distances_far_from_the_origin_keep_their_digits() -> None:
    a = 1000 + torch.randn(6, LATENT)
    expected = torch.cdist(a.double(), a.double()).square()
    torch.testing.assert_close(squared_distances(a, a).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("penalty", [MMD(1.0), SteinDiscrepancy(1.0)], ids=["mmd", "stein"])
def test_gradients_reach_the_encoder_and_the_prior(penalty: AbstractPenalty) -> None:
    prior = CouplingPrior(LATENT)
    loc = torch.randn(BATCH, LATENT, requires_grad=True)
    latents = latents_of(loc, torch.ones(BATCH, LATENT), prior=prior().expand((BATCH,)))
    (term,) = penalty(latents).values()
    gradients = torch.autograd.grad(term, [loc, *prior.parameters()])
    assert all(bool((gradient != 0).any()) for gradient in gradients)


# The Stein discrepancy.


def stein_kernel(a: Tensor, b: Tensor, prior: dist.TorchDistribution, scale: float) -> Tensor:
    """The kernel of the discrepancy for one pair, by autograd."""

    def score(z: Tensor) -> Tensor:
        return torch.autograd.grad(prior.log_prob(z), z)[0]

    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    kernel = torch.exp(-(a - b).square().sum() / scale)
    of_a, of_b = torch.autograd.grad(kernel, [a, b], create_graph=True)
    trace = sum(torch.autograd.grad(of_a[d], b, retain_graph=True)[0][d] for d in range(len(a)))
    s, t = score(a), score(b)
    return s @ t * kernel + s @ of_b + t @ of_a + trace


def test_stein_is_its_double_sum() -> None:
    torch.manual_seed(1)
    prior = CouplingPrior(LATENT).double()()
    z = torch.randn(6, LATENT, dtype=torch.float64) * 1.5
    scores = torch.autograd.functional.jacobian(lambda z: prior.log_prob(z).sum(), z)
    scale = 2.5
    pairs = [
        stein_kernel(z[i], z[j], prior, scale).detach()
        for i, j in itertools.permutations(range(len(z)), 2)
    ]
    found = stein_squared(z, scores, scale)
    torch.testing.assert_close(found, torch.stack(pairs).mean())
    batch = prior.expand((6,))
    term = SteinDiscrepancy(1.0, bandwidth=math.sqrt(scale / 2))(
        Latents((site_of(batch, z, prior=batch),))
    )
    torch.testing.assert_close(term["stein"].detach(), found)


@pytest.mark.parametrize("prior", ["standard", "coupling"])
def test_stein_is_zero_for_one_law(prior: str) -> None:
    check_zero_for_one_law(SteinDiscrepancy(1.0), prior)


def test_stein_of_a_shifted_gaussian_is_its_closed_form() -> None:
    # The scores of q and p differ by m everywhere, so that it is |m|^2 E_q[k(z, z')].
    shift, s = 0.7, Kernel("rbf").scale(LATENT)
    exact = LATENT * shift**2 * (1 + 4 / s) ** (-LATENT / 2)
    loc, scale = torch.full((50, LATENT), shift), torch.ones(50, LATENT)
    with torch.no_grad():
        values = [SteinDiscrepancy(1.0)(latents_of(loc, scale))["stein"] for _ in range(300)]
    found = torch.stack(values)
    error = float(found.std()) / math.sqrt(len(found))
    assert error < exact / 20
    assert float(found.mean()) == pytest.approx(exact, abs=4 * error)


def test_the_gradient_of_stein_under_couplings_is_that_of_its_mean() -> None:
    # The mean over draws as a function of where q lies, by differences of the same draws, which
    # feel a jump of the score as the gradient of single draws does not.
    torch.manual_seed(0)
    prior = CouplingPrior(2).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.5)
    direction, width = torch.tensor([0.6, 0.8], dtype=torch.float64), 0.05

    def value(place: Tensor, noise: Tensor) -> Tensor:
        z = place * direction + 0.5 * noise
        score = torch.autograd.grad(prior().log_prob(z).sum(), z, create_graph=True)[0]
        return stein_squared(z, score, 2.0)

    gaps = []
    for _ in range(20):
        noise = torch.randn(256, 2, dtype=torch.float64)
        places = [
            torch.tensor(place, dtype=torch.float64, requires_grad=True)
            for place in (0.3, 0.3 + width, 0.3 - width)
        ]
        here, above, below = (value(place, noise) for place in places)
        (gradient,) = torch.autograd.grad(here, places[0])
        gaps.append(float(gradient - (above - below).detach() / (2 * width)))
    found = torch.tensor(gaps)
    assert abs(found.mean()) < 4 * found.std() / len(gaps) ** 0.5 + 0.01


def test_stein_refuses_a_prior_whose_score_jumps() -> None:
    latents = latents_of(torch.zeros(8, 2), torch.ones(8, 2))
    kinked = CouplingPrior(2, activation="leaky-relu")
    for prior in (
        kinked,
        CouplingPrior(2, base=CouplingPrior(2, activation="relu")),
        ZukoPrior(zuko.flows.MAF(2, transforms=1)),
        ProductPrior([StandardNormal(1), FixedPrior(dist.Normal(torch.zeros(1), 1.0)), kinked]),
        CouplingPrior(5, base=ProductPrior([ProductPrior([kinked, kinked]), StandardNormal(1)])),
    ):
        assert not prior.has_smooth_score
        site = replace(latents.sites[0], prior=prior().expand([8]))
        with pytest.raises(ValueError, match="score must be continuous"):
            SteinDiscrepancy(1.0)(Latents((site,)))
    smooth = ProductPrior([StandardNormal(1), FixedPrior(dist.Normal(torch.zeros(1), 1.0))])
    for prior in (CouplingPrior(2), smooth, ZukoPrior(zuko.flows.MAF(2, activation=nn.SiLU))):
        assert prior.has_smooth_score
        site = replace(latents.sites[0], prior=prior().expand([8]))
        assert SteinDiscrepancy(1.0)(Latents((site,)))["stein"].isfinite()
