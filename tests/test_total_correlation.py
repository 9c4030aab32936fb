"""Total correlation on finite mixtures of Gaussians, against the exact aggregate posterior.

Each check is also run on the estimators that other libraries have published by mistake, and has
to fail for them.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyro_dpvae.objectives import BetaTCELBO, Latents, TotalCorrelation
from pyro_dpvae.objectives.penalties import total_correlation
from pyro_dpvae.objectives.penalties.total_correlation import (
    ESTIMATORS,
    log_aggregate,
    log_component_weights,
)
from pyro_dpvae.priors import CouplingPrior
from tests.gaussian_latents import Sampler, latents_of, site_of

Terms = dict[str, Tensor]
TERMS = ("mutual_information", "total_correlation", "dimension_wise_kl")


def mixture(count: int, latent_dim: int, log_variance: float) -> tuple[Tensor, Tensor]:
    """Posteriors of a data set, such that q(z) is close to N(0, I)."""
    variance = math.exp(log_variance)
    loc = math.sqrt(1 - variance) * torch.randn(count, latent_dim, dtype=torch.float64)
    return loc, torch.full_like(loc, math.sqrt(variance))


def exact_log_q(loc: Tensor, scale: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """log q(z) and sum_d log q(z_d) of the whole mixture."""
    weights = Categorical(logits=torch.zeros(len(loc), dtype=loc.dtype))
    joint = MixtureSameFamily(weights, Independent(Normal(loc, scale), 1)).log_prob(z)
    marginals = [
        MixtureSameFamily(weights, Normal(loc[:, d], scale[:, d])).log_prob(z[:, d])
        for d in range(loc.shape[1])
    ]
    return joint, torch.stack(marginals).sum(0)


def exact_terms(loc: Tensor, scale: Tensor, latents: Latents) -> Terms:
    """The three terms at the z of a batch, with q(z) the whole mixture."""
    log_q, log_product = exact_log_q(loc, scale, latents.value)
    values = (
        latents.log_posterior - log_q,
        log_q - log_product,
        log_product - latents.log_prior,
    )
    return {name: value.mean() for name, value in zip(TERMS, values, strict=True)}


# The faults, each as its author wrote it.


def weights_by_column(estimator: str, batch: int, dataset_size: int) -> Tensor:
    """Strided by the batch, not by the batch and one: columns 0 and 1 instead of the diagonal."""
    others = batch - 1
    odd = (dataset_size - others) / (dataset_size * others)
    weights = torch.full((batch * batch,), 1 / others, dtype=torch.float64)
    weights[::batch] = 1 / dataset_size
    weights[1::batch] = odd
    weights = weights.reshape(batch, batch)
    weights[others - 1, 0] = odd
    return weights.log()


def weights_without_constant(estimator: str, batch: int, dataset_size: int) -> Tensor:
    return torch.zeros(batch, batch, dtype=torch.float64)


def weights_of_each_dimension(latent_dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Added before dimensions are summed, so that the joint has them as often."""

    def mutant(log_weights: Tensor, log_posterior: Tensor) -> Tensor:
        joint = log_posterior.dim() == 2
        return log_aggregate(latent_dim * log_weights if joint else log_weights, log_posterior)

    return mutant


# What every batch with datum 0 says of q(z_0), on average, can be counted out.


def check_densities(estimator: str) -> None:
    count, batch = 7, 3
    loc, scale = mixture(count, 2, -2.0)
    z = loc[0] + scale[0] * torch.randn(2, dtype=torch.float64)
    densities = Independent(Normal(loc, scale), 1).log_prob(z).exp()
    log_weights = total_correlation.log_component_weights(estimator, batch, count)
    found = []
    for row in range(batch):
        for others in itertools.permutations(range(1, count), batch - 1):
            chosen = [*others[:row], 0, *others[row:]]
            pairs = densities[chosen].log().expand(batch, batch)
            found.append(log_aggregate(log_weights, pairs)[row].exp())
    others = densities[1:].mean()
    expected = {
        "stratified": densities.mean(),  # q(z), without bias
        "weighted": (densities[0] + (batch - 1) * others) / (count * batch),
        "in-batch": (densities[0] + (batch - 1) * others) / batch,
    }
    torch.testing.assert_close(torch.stack(found).mean(), expected[estimator], rtol=1e-10, atol=0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_densities_are_exact_on_average(estimator: str) -> None:
    check_densities(estimator)


@pytest.mark.parametrize(
    ("estimator", "mutant"),
    [("stratified", weights_by_column), ("weighted", weights_without_constant)],
)
def test_densities_show_wrong_weights(
    estimator: str, mutant: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(total_correlation, "log_component_weights", mutant)
    with pytest.raises(AssertionError):
        check_densities(estimator)


def check_whole_data_set(estimator: str = "in-batch") -> None:
    loc, scale = mixture(40, 3, -1.0)
    latents = latents_of(loc, scale)
    found = TotalCorrelation(1.0, dataset_size=40, estimator=estimator)(latents)
    torch.testing.assert_close(found, exact_terms(loc, scale, latents), rtol=0, atol=1e-10)


def test_a_batch_of_all_data_is_exact() -> None:
    check_whole_data_set()


def test_a_batch_of_all_data_shows_the_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_whole_data_set("weighted")
    with monkeypatch.context() as patch:
        patch.setattr(total_correlation, "log_component_weights", weights_without_constant)
        with pytest.raises(AssertionError):
            check_whole_data_set()
    with monkeypatch.context() as patch:
        patch.setattr(total_correlation, "log_aggregate", weights_of_each_dimension(3))
        with pytest.raises(AssertionError):
            check_whole_data_set()


# Mean errors of batches of 64 of 2,000, as docs/objectives.md gives them:
# (latent_dim, log variance) -> MI, TC, DW.
STRATIFIED_BIAS = {
    (10, -3.0): (0.0, 0.6, -0.6),
    (2, -3.0): (0.3, -0.2, -0.1),
    (10, -0.1): (0.0, 0.0, 0.0),
}


def check_bias(latent_dim: int, log_variance: float) -> None:
    count, batch, repeats = 2000, 64, 60
    loc, scale = mixture(count, latent_dim, log_variance)
    penalty = TotalCorrelation(1.0, dataset_size=count)
    errors = []
    for _ in range(repeats):
        chosen = torch.randperm(count)[:batch]
        latents = latents_of(loc[chosen], scale[chosen])
        found, exact = penalty(latents), exact_terms(loc, scale, latents)
        errors.append(torch.stack([found[name] - exact[name] for name in TERMS]))
    mean = torch.stack(errors).mean(0)
    expected = torch.tensor(STRATIFIED_BIAS[latent_dim, log_variance], dtype=mean.dtype)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.25)


@pytest.mark.parametrize(("latent_dim", "log_variance"), STRATIFIED_BIAS)
def test_the_stratified_estimate_has_its_stated_bias(latent_dim: int, log_variance: float) -> None:
    check_bias(latent_dim, log_variance)


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("log_component_weights", weights_by_column),
        ("log_component_weights", weights_without_constant),
        ("log_aggregate", weights_of_each_dimension(10)),
    ],
)
def test_the_stated_bias_shows_the_faults(
    name: str, mutant: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(total_correlation, name, mutant)
    with pytest.raises(AssertionError):
        check_bias(10, -3.0)


def test_the_weighted_estimate_is_off_by_its_constant() -> None:
    loc, scale = mixture(500, 2, -3.0)
    latents = latents_of(loc[:50], scale[:50])
    weighted = TotalCorrelation(1.0, dataset_size=500, estimator="weighted")(latents)
    in_batch = TotalCorrelation(1.0, dataset_size=500, estimator="in-batch")(latents)
    shift = {
        "mutual_information": math.log(500),
        "total_correlation": math.log(500),  # (L - 1) log N
        "dimension_wise_kl": -2 * math.log(500),
    }
    for name, difference in shift.items():
        expected = torch.tensor(difference, dtype=torch.float64)
        torch.testing.assert_close(weighted[name] - in_batch[name], expected)


# The split of the rate.


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_terms_add_up_to_the_divergence(estimator: str) -> None:
    # At +-sqrt(L) along each axis of q, averages of quadratics are exact.
    latent_dim = 3
    loc, scale = mixture(20, latent_dim, -1.0)
    axes = math.sqrt(latent_dim) * torch.eye(latent_dim, dtype=torch.float64)
    points = loc + scale * torch.cat([axes, -axes]).unsqueeze(1)
    posterior = dist.Normal(loc, scale).expand((len(points), 20, latent_dim)).to_event(1)
    latents = Latents((site_of(posterior, points),))
    terms = TotalCorrelation(1.0, dataset_size=300, estimator=estimator)(latents)
    divergence = 0.5 * (loc.square() + scale.square() - 1) - scale.log()
    torch.testing.assert_close(sum(terms.values()), divergence.sum(-1).mean())


def check_coupling_split() -> None:
    """Under a coupling prior, with log p(z) from autograd's Jacobian of g."""
    torch.manual_seed(3)
    prior = CouplingPrior(2).double()
    loc, scale = mixture(10, 2, -1.0)
    latents = latents_of(loc, scale, prior=prior().expand((10,)))
    terms = TotalCorrelation(1.0, dataset_size=300)(latents)
    log_prior = []
    for z in latents.value:
        jacobian = torch.autograd.functional.jacobian(lambda z: prior.to_generation(z)[0], z)
        z0 = prior.to_generation(z)[0]
        log_prior.append(Normal(0.0, 1.0).log_prob(z0).sum() + jacobian.det().abs().log())
    expected = latents.log_posterior - torch.stack(log_prior)
    torch.testing.assert_close(sum(terms.values()), expected.mean())


def test_the_terms_add_up_under_a_coupling_prior() -> None:
    check_coupling_split()


def test_the_sum_shows_a_dropped_log_det(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CouplingPrior.to_generation

    def dropped(self: CouplingPrior, z: Tensor) -> tuple[Tensor, Tensor]:
        z0, log_det = whole(self, z)
        return z0, torch.zeros_like(log_det)

    monkeypatch.setattr(CouplingPrior, "to_generation", dropped)
    with pytest.raises(AssertionError):
        check_coupling_split()


# Posteriors of other kinds, and several sites.


def full_covariance(batch: int, latent_dim: int) -> dist.MultivariateNormal:
    factor = torch.randn(batch, latent_dim, latent_dim, dtype=torch.float64).tril()
    factor.diagonal(dim1=-2, dim2=-1).abs_().add_(0.3)
    return dist.MultivariateNormal(
        torch.randn(batch, latent_dim, dtype=torch.float64), scale_tril=factor
    )


def test_a_full_covariance_has_its_marginals() -> None:
    q = full_covariance(6, 3)
    latents = Latents((site_of(q),))
    pairs = latents.pairwise_coordinate_log_posterior()
    assert pairs.shape == (6, 6, 3)
    for i, j, d in itertools.product(range(6), range(6), range(3)):
        deviation = q.covariance_matrix[j, d, d].sqrt()
        expected = Normal(q.loc[j, d], deviation).log_prob(latents.value[i, d])
        torch.testing.assert_close(pairs[i, j, d], expected)
    joint = latents.pairwise_log_posterior()
    torch.testing.assert_close(joint[1, 4], q.log_prob(latents.value[1])[4])


@pytest.mark.parametrize("pyros", [False, True])
def test_a_mixture_has_its_marginals(pyros: bool) -> None:
    batch, components, latent_dim = 5, 3, 2
    loc = torch.randn(batch, components, latent_dim, dtype=torch.float64)
    scale = torch.rand_like(loc) + 0.2
    logits = torch.randn(batch, components, dtype=torch.float64)
    q = (
        dist.MixtureOfDiagNormals(loc, scale, logits)
        if pyros
        else dist.MixtureSameFamily(
            dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1)
        )
    )
    latents = Latents((site_of(q, q.sample()),))
    pairs = latents.pairwise_coordinate_log_posterior()
    weights = logits.softmax(-1)
    for i, j, d in itertools.product(range(batch), range(batch), range(latent_dim)):
        density = Normal(loc[j, :, d], scale[j, :, d]).log_prob(latents.value[i, d]).exp()
        torch.testing.assert_close(pairs[i, j, d], (weights[j] * density).sum().log())


@pytest.mark.parametrize("q", [Sampler(5, 2), dist.Delta(torch.zeros(5, 2), event_dim=1)])
def test_coordinates_without_densities_or_gradients_are_refused(q: Any) -> None:
    latents = Latents((site_of(q, q.sample()),))
    with pytest.raises(TypeError, match=r"got (Sampler|Delta); use AdversarialTotalCorr"):
        TotalCorrelation(1.0, dataset_size=10)(latents)


def square(*values: Tensor) -> list[Tensor]:
    """The last four of five coordinates, as an event of two dimensions."""
    return [value[:, 1:].reshape(-1, 2, 2) for value in values]


def test_two_sites_are_one_vector() -> None:
    loc, scale = mixture(12, 5, -1.0)
    z = loc + scale * torch.randn_like(loc)
    whole = latents_of(loc, scale, z)
    split = Latents(
        (
            site_of(dist.Normal(loc[:, :1], scale[:, :1]).to_event(1), z[:, :1], name="a"),
            site_of(dist.Normal(*square(loc, scale)).to_event(2), *square(z), name="b"),
        )
    )
    for estimator in ESTIMATORS:
        penalty = TotalCorrelation(1.0, dataset_size=100, estimator=estimator)
        torch.testing.assert_close(penalty(split), penalty(whole))


def test_particles_are_averaged() -> None:
    loc, scale = mixture(8, 2, -1.0)
    z = loc + scale * torch.randn(3, 8, 2, dtype=torch.float64)
    posterior = dist.Normal(loc, scale).expand((3, 8, 2)).to_event(1)
    penalty = TotalCorrelation(1.0, dataset_size=100)
    together = penalty(Latents((site_of(posterior, z),)))
    each = [penalty(latents_of(loc, scale, one)) for one in z]
    for name in TERMS:
        torch.testing.assert_close(together[name], torch.stack([e[name] for e in each]).mean())


def test_bad_sizes_are_refused() -> None:
    loc, scale = mixture(8, 2, -1.0)
    with pytest.raises(ValueError, match="dataset_size must be the number of training data"):
        TotalCorrelation(1.0, dataset_size=7)(latents_of(loc, scale))
    with pytest.raises(ValueError, match="dataset_size must be"):
        TotalCorrelation(1.0, dataset_size=0)
    with pytest.raises(ValueError, match="estimator must be one of"):
        BetaTCELBO(dataset_size=10, estimator="mss")
    with pytest.raises(ValueError, match="at least 2, got 1; use larger batches"):
        TotalCorrelation(1.0, dataset_size=7).check_size(1)


def test_log_weights_in_float64_of_one_row_sum() -> None:
    for estimator, total in (("stratified", 1.0), ("in-batch", 1.0), ("weighted", 1 / 100)):
        rows = log_component_weights(estimator, 8, 100).exp().sum(1)
        torch.testing.assert_close(rows, torch.full((8,), total, dtype=torch.float64))
