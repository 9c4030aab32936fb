"""Distributions that are not of this library, as priors and guides under its objectives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.transforms import affine_coupling
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.objectives import MMD, OBJECTIVES, RegularizedELBO, SteinDiscrepancy
from pyro_dpvae.priors import CouplingPrior, FixedPrior, StandardNormal

SIZE, LATENT, DATA = 6, 2, 3


class Flow(nn.Module):
    """A flow of zuko for x, or for none."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.flow = zuko.flows.MAF(LATENT, context, transforms=1, hidden_features=(8,))

    def forward(self, *x: Tensor) -> ZukoToPyro:
        return ZukoToPyro(self.flow(*x))


class Location(nn.Module):
    """A family of distributions of a location, which for a guide depends on x."""

    def __init__(self, context: int, family: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(max(context, 1), LATENT)
        self.coupling = affine_coupling(LATENT, [8])
        self.family = family

    def forward(self, x: Tensor | None = None) -> Any:
        loc = self.linear(torch.ones(1) if x is None else x)
        return self.family(loc, self.coupling)


def normal(loc: Tensor, _: Any) -> Any:
    return dist.Normal(loc, 0.5).to_event(1)


def student(loc: Tensor, _: Any) -> Any:
    return dist.StudentT(5.0, loc, 0.5).to_event(1)


def full(loc: Tensor, _: Any) -> Any:
    return dist.MultivariateNormal(loc, torch.eye(LATENT) + 0.5)


def transformed(loc: Tensor, coupling: Any) -> Any:
    coupling.clear_cache()
    return dist.TransformedDistribution(normal(loc, None), [coupling])


def mixture(loc: Tensor, _: Any) -> Any:
    locs = torch.stack([loc - 1, loc + 1], -2)
    weights = dist.Categorical(torch.ones(locs.shape[:-1]))
    return dist.MixtureSameFamily(weights, normal(locs, None))


GUIDES: dict[str, Callable[[int], nn.Module]] = {
    "zuko": Flow,
    **{
        family.__name__: partial(Location, family=family)
        for family in (normal, student, full, transformed)
    },
}
PRIORS = {**GUIDES, "mixture": partial(Location, family=mixture)}
PAIRS = [
    *((prior, "normal") for prior in PRIORS),
    *(("normal", guide) for guide in GUIDES if guide != "normal"),
    ("zuko", "zuko"),
]

OPTIONS: dict[str, dict[str, Any]] = {
    "beta-tc": {"dataset_size": 100},
    "factor": {"latent_dim": LATENT},
    "free-bits": {"threshold": 0.01},
}
LOSSES: dict[str, Callable[[], RegularizedELBO]] = {
    **{name: partial(kind, **OPTIONS.get(name, {})) for name, kind in OBJECTIVES.items()},
    "mmd": lambda: RegularizedELBO(penalties=[MMD(10.0)], num_particles=2),
    "stein": lambda: RegularizedELBO(penalties=[SteinDiscrepancy(1.0)]),
}


class System:
    """A Pyro program of two foreign parts and a linear decoder."""

    def __init__(self, prior: str, guide: str) -> None:
        torch.manual_seed(0)
        self.p, self.q = PRIORS[prior](0), GUIDES[guide](DATA)
        self.decoder = nn.Linear(LATENT, DATA)
        self.x = torch.randn(SIZE, DATA)

    def model(self, x: Tensor) -> None:
        pyro.module("p", self.p)
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p())
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("q", self.q)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q(x))


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize(("prior", "guide"), PAIRS)
def test_objectives_train_foreign_parts(prior: str, guide: str, name: str) -> None:
    system, objective = System(prior, guide), LOSSES[name]()
    pyro.set_rng_seed(1)
    loss = objective.loss_and_grads(system.model, system.guide, system.x)
    assert loss.isfinite()
    # Free bits charge no rate below the threshold, and a prior has gradients from its rate alone.
    for module in (system.q,) if name == "free-bits" else (system.q, system.p):
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert any(gradient.any() for gradient in gradients)
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_without_closed_forms_the_bound_is_pyros() -> None:
    system, found = System("zuko", "zuko"), []
    for objective in (RegularizedELBO(num_particles=3), Trace_ELBO(num_particles=3)):
        pyro.set_rng_seed(1)
        found.append(objective.loss(system.model, system.guide, system.x))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(("prior", "guide"), [("zuko", "normal"), ("normal", "zuko")])
def test_captured_steps_of_foreign_parts_are_those_of_svi(prior: str, guide: str) -> None:
    found = []
    for make in (SVI, partial(CapturedSVI, backend="fx")):
        pyro.clear_param_store()
        system = System(prior, guide)
        svi = make(system.model, system.guide, FusedOptim({"lr": 1e-2}), LOSSES["mmd"]())
        pyro.set_rng_seed(1)
        found.append([float(svi.step(system.x)) for _ in range(3)])
    assert found[0] == found[1]


class Foreign(AbstractGuide):
    """A guide of this library's kind, of a foreign posterior."""

    def __init__(self) -> None:
        super().__init__()
        self.q = Flow(DATA)

    def posterior(self, x: Tensor) -> Any:
        return self.q(x)


def test_the_aggregate_posterior_of_a_foreign_guide_is_the_mean_of_its_densities() -> None:
    guide, x = Foreign(), torch.randn(SIZE, DATA)
    with torch.no_grad():
        aggregate = AggregatePosterior.of(guide.posterior, [x])
        z = aggregate.sample((4,))
        each = [guide.posterior(one[None]).log_prob(z[:, None]) for one in x]
        expected = torch.cat(each, 1).double().logsumexp(1) - torch.tensor(SIZE).log()
    torch.testing.assert_close(aggregate.log_prob(z).double(), expected, rtol=1e-4, atol=1e-4)


# Foreign distributions as the base of couplings.

BASES: dict[str, Callable[[], Any]] = {
    "normal": lambda: dist.Normal(torch.ones(LATENT), 2.0),
    "independent": lambda: dist.Normal(torch.ones(LATENT), 2.0).to_event(1),
    "student": lambda: dist.StudentT(4.0, torch.zeros(LATENT), 1.0),
    "full": lambda: full(torch.zeros(LATENT), None),
    "mixture": lambda: mixture(torch.zeros(LATENT), None),
    "transformed": lambda: transformed(
        torch.zeros(LATENT), affine_coupling(LATENT, [8]).requires_grad_(False)
    ),
}


@pytest.mark.parametrize("name", list(BASES))
def test_any_fixed_distribution_is_a_base_of_couplings(name: str) -> None:
    base = BASES[name]()
    prior = CouplingPrior(LATENT, blocks=2, hidden=(8,), base=base)
    z = prior().sample((SIZE,))
    z0, log_det = prior.to_generation(z)
    p0 = base if base.event_shape else base.to_event(1)
    expected = p0.log_prob(z0) + log_det
    torch.testing.assert_close(prior().log_prob(z), expected)
    moved = prior.double()()
    assert moved.base_dist.sample().dtype == torch.float64
    found = moved.log_prob(z.double()).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_curvature_of_a_fixed_normal_is_its_precision() -> None:
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    prior = FixedPrior(dist.MultivariateNormal(torch.zeros(2), covariance))
    factor = prior.linearize_density(torch.randn(3, 2)).factor
    torch.testing.assert_close(factor @ factor.mT, covariance.inverse().expand(3, 2, 2))


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        (torch.distributions.Normal(torch.zeros(2), 1.0), TypeError, r"of pyro\.distributions"),
        (dist.Normal(0.0, 1.0), ValueError, r"got batch shape \(\) and event shape \(\); use"),
        (dist.Normal(torch.zeros(3, 2), 1.0), ValueError, r"got batch shape \(3, 2\)"),
        (
            dist.Gamma(torch.ones(2), 1.0),
            ValueError,
            r"real vectors, got Independent\(Gamma",
        ),
        (dist.Categorical(torch.ones(2)).expand([2]), ValueError, "over all real vectors"),
        (
            dist.Normal(torch.zeros(2, requires_grad=True), 1.0),
            ValueError,
            "must not have tensors that require gradients",
        ),
        (dist.Normal(torch.zeros(3), 1.0), ValueError, "base must have latent_dim 2, got 3"),
        (StandardNormal(3), ValueError, "base must have latent_dim 2, got 3"),
    ],
)
def test_other_bases_are_refused(base: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CouplingPrior(2, base=base)
