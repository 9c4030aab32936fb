"""Clusters of priors: p(y), p(z | y) and what follows from the two."""

from collections.abc import Callable

import pytest
import torch

from pyro_dpvae.priors import AbstractPrior, CouplingPrior, MixturePrior, StandardNormal

COMPONENTS = 3


def coupled_mixture() -> CouplingPrior:
    base = MixturePrior(2, components=COMPONENTS, spread=2.0)
    return CouplingPrior(2, blocks=2, hidden=(8,), base=base)


CLUSTERED = {
    "mixture": lambda: MixturePrior(2, components=COMPONENTS),
    "uniform": lambda: MixturePrior(2, components=COMPONENTS, uniform=True),
    "coupling": coupled_mixture,
}


@pytest.fixture(params=list(CLUSTERED))
def prior(request: pytest.FixtureRequest) -> AbstractPrior:
    torch.manual_seed(0)
    made = CLUSTERED[request.param]().double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_the_density_is_the_sum_over_clusters(prior: AbstractPrior) -> None:
    z = torch.randn(5, 4, 2, dtype=torch.float64)
    joint = [
        prior.cluster_prior().log_prob(y) + prior.conditional(y).log_prob(z)
        for y in torch.arange(COMPONENTS)
    ]
    torch.testing.assert_close(prior.log_joint(z), torch.stack(joint, -1))
    torch.testing.assert_close(prior().log_prob(z), torch.stack(joint, -1).logsumexp(-1))
    torch.testing.assert_close(
        prior.responsibilities(z), (torch.stack(joint, -1) - prior().log_prob(z)[..., None]).exp()
    )


@pytest.mark.parametrize("shape", [(), (6,), (COMPONENTS, 1)])
def test_a_clusters_law_has_the_batch_shape_of_its_index(
    prior: AbstractPrior, shape: tuple[int, ...]
) -> None:
    p = prior.conditional(torch.ones(shape, dtype=torch.int64))
    assert p.batch_shape == shape
    assert p.event_shape == (2,)
    assert p.sample((4,)).shape == (4, *shape, 2)
    assert p.log_prob(torch.zeros(6, 2).double()).shape == torch.broadcast_shapes(shape, (6,))


def test_draws_of_clusters_are_draws_of_the_prior(prior: AbstractPrior) -> None:
    y = prior.cluster_prior().sample((20_000,))
    ours, whole = prior.conditional(y).sample(), prior().sample((20_000,))
    error = 4 * (2 / 20_000) ** 0.5 * whole.std(0)
    assert ((ours.mean(0) - whole.mean(0)).abs() < error).all()
    torch.testing.assert_close(torch.cov(ours.T), torch.cov(whole.T), rtol=0.1, atol=0.05)


def test_a_mixtures_clusters_start_apart() -> None:
    torch.manual_seed(0)
    prior = MixturePrior(10, components=8)
    y = prior.cluster_prior().sample((500,))
    assert (
        prior.responsibilities(prior.conditional(y).sample()).argmax(-1) == y
    ).double().mean() > 0.9
    assert 0.5 < prior().sample((5000,)).std() < 2


@pytest.mark.parametrize("make", [lambda: StandardNormal(2), lambda: CouplingPrior(2)])
def test_priors_without_clusters_refuse_to_tell_them(make: Callable[[], AbstractPrior]) -> None:
    message = "has no clusters.*; use MixturePrior, or CouplingPrior over a mixture"
    y, z = torch.tensor(0), torch.zeros(1, 2)
    for ask in (
        lambda prior: prior.cluster_prior(),
        lambda prior: prior.conditional(y),
        lambda prior: prior.log_joint(z),
        lambda prior: prior.responsibilities(z),
    ):
        with pytest.raises(ValueError, match=message):
            ask(make())


def test_a_base_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="latent_dim 3, got 2; build both for one size"):
        CouplingPrior(3, base=StandardNormal(2))
