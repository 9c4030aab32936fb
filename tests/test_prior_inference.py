"""Pyro's inference over models with each prior: bounds, autoguides, reparameterisation, NUTS."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    autoguide,
    infer_discrete,
)
from pyro.infer.reparam import AutoReparam, TransformReparam
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.priors import (
    AbstractPrior,
    CouplingPrior,
    FlowDistribution,
    FlowTransform,
    MixturePrior,
)
from tests.test_pyro_citizenship import FLOWS, PRIORS, SIZE

SD = 0.5


class Programs:
    """z ~ prior(), x ~ N(z, SD^2), with a guide of independent normals."""

    def __init__(self, prior: AbstractPrior) -> None:
        self.prior = prior
        self.x = torch.randn(SIZE, prior.latent_dim)
        self.loc = torch.randn(SIZE, prior.latent_dim)

    def model(self) -> None:
        pyro.module("prior", self.prior)
        with pyro.plate("data", SIZE):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", dist.Normal(z, SD).to_event(1), obs=self.x)

    def guide(self) -> None:
        loc = pyro.param("loc", self.loc)
        with pyro.plate("data", SIZE):
            pyro.sample("z", dist.Normal(loc, SD).to_event(1))

    def log_likelihood(self, z: Tensor) -> Tensor:
        return dist.Normal(z, SD).to_event(1).log_prob(self.x)

    def log_joint(self, z: Tensor) -> Tensor:
        return self.prior().log_prob(z) + self.log_likelihood(z)


@pytest.fixture(params=list(PRIORS))
def prior(request: pytest.FixtureRequest) -> AbstractPrior:
    return PRIORS[request.param]()


ELBOS: dict[str, Callable[..., Any]] = {
    "Trace": Trace_ELBO,
    "TraceGraph": TraceGraph_ELBO,
    "TraceMeanField": TraceMeanField_ELBO,
    "Renyi": lambda **options: RenyiELBO(alpha=0.0, **options),
    "ours": RegularizedELBO,
}


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("name", list(ELBOS))
def test_bounds_are_their_formulas(name: str, vectorized: bool, prior: AbstractPrior) -> None:
    programs = Programs(prior)
    q = dist.Normal(programs.loc, SD).to_event(1)
    options = {"vectorize_particles": vectorized, "max_plate_nesting": 1}
    objective = ELBOS[name](num_particles=3, **options)
    pyro.set_rng_seed(1)
    found = objective.loss(programs.model, programs.guide)
    pyro.set_rng_seed(1)
    if vectorized:
        z = q.expand((3, SIZE)).rsample()
    else:
        z = torch.stack([q.rsample() for _ in range(3)])
    log_weights = programs.log_joint(z) - q.log_prob(z)
    # What has a closed form is taken from it: the divergence, and by ours else the entropy of q.
    if name in ("TraceMeanField", "ours"):
        try:
            log_weights = programs.log_likelihood(z) - kl_divergence(q, prior())
        except NotImplementedError:
            if name == "ours":
                log_weights = programs.log_joint(z) + q.entropy()
    if name == "Renyi":
        expected = (log_weights.logsumexp(0) - math.log(3)).sum()
    else:
        expected = log_weights.mean(0).sum()
    assert found == pytest.approx(-expected.item(), rel=1e-4)
    if name != "Renyi":
        objective.loss_and_grads(programs.model, programs.guide)
        check_gradients(prior)


def check_gradients(prior: AbstractPrior) -> None:
    parameters = list(prior.parameters())
    assert not parameters or any(p.grad is not None and p.grad.any() for p in parameters)
    assert all(p.grad is None or p.grad.isfinite().all() for p in parameters)


GUIDES = [
    autoguide.AutoDelta,
    autoguide.AutoNormal,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoIAFNormal,
    autoguide.AutoLaplaceApproximation,
    autoguide.AutoStructured,
]


@pytest.mark.parametrize("kind", GUIDES, ids=lambda kind: kind.__name__)
def test_autoguides_train_a_model_with_the_prior(kind: Any, prior: AbstractPrior) -> None:
    programs = Programs(prior)
    guide = kind(programs.model)
    guide()
    if kind in (autoguide.AutoDelta, autoguide.AutoLaplaceApproximation):
        z = guide()["z"].detach()  # the point at which the density counts
        found = Trace_ELBO().loss(programs.model, guide)
        assert found == pytest.approx(-programs.log_joint(z).sum().item(), rel=1e-4)
    before = [one.detach().clone() for one in guide.parameters()]
    svi = SVI(programs.model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    assert math.isfinite(svi.step())
    assert any(
        not torch.equal(old, new) for old, new in zip(before, guide.parameters(), strict=True)
    )
    Trace_ELBO().loss_and_grads(programs.model, guide)
    check_gradients(prior)


@pytest.mark.parametrize("strategy", ["transform", "auto"])
@pytest.mark.parametrize("name", list(FLOWS))
def test_reparameterised_models_have_their_latents_in_generation_space(
    name: str, strategy: str
) -> None:
    prior = FLOWS[name]()
    programs = Programs(prior)
    config: Any = {"z": TransformReparam()} if strategy == "transform" else AutoReparam()
    model = poutine.reparam(programs.model, config=config)
    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    base = trace.nodes["z_base"]
    z0 = base["value"]
    torch.testing.assert_close(trace.nodes["z"]["value"], prior.to_representation(z0))
    log_likelihood = programs.log_likelihood(trace.nodes["z"]["value"])
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], log_likelihood)
    if strategy == "transform":
        torch.testing.assert_close(base["log_prob"], prior.base().log_prob(z0))
        total = prior.base().log_prob(z0).sum() + log_likelihood.sum()
        torch.testing.assert_close(trace.log_prob_sum(), total)


def test_nuts_in_generation_space_finds_the_exact_posterior() -> None:
    # z = 2 z0 + 1, z0 ~ N(0, 1), x ~ N(z, SD^2): a posterior that is known.
    class Affine:
        def to_generation(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return (z - 1) / 2, torch.full(z.shape[:-1], -2 * math.log(2))

        def to_representation(self, z0: Tensor) -> Tensor:
            return 2 * z0 + 1

    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    x = torch.tensor([3.0, -1.0])

    def model() -> None:
        z = pyro.sample("z", FlowDistribution(base, FlowTransform(Affine())))
        pyro.sample("x", dist.Normal(z, SD).to_event(1), obs=x)

    kernel = NUTS(poutine.reparam(model, config={"z": TransformReparam()}))
    run = MCMC(kernel, num_samples=300, warmup_steps=100, disable_progbar=True)
    run.run()
    draws = 2 * run.get_samples()["z_base"] + 1
    precision = 1 / 4 + 1 / SD**2
    mean = (1 / 4 + x / SD**2) / precision
    # Six standard errors of 100 effective draws.
    assert (draws.mean(0) - mean).abs().max() < 6 * precision**-0.5 / 10


CLUSTERED = ["coupling-mixture", "mixture", "vamp"]


@pytest.mark.parametrize("name", CLUSTERED)
def test_clusters_are_enumerated_and_inferred(name: str) -> None:
    prior = PRIORS[name]()
    z = prior().sample((SIZE,))

    def model() -> Tensor:
        pyro.module("prior", prior)
        with pyro.plate("data", SIZE):
            y = pyro.sample("y", prior.cluster_prior(), infer={"enumerate": "parallel"})
            pyro.sample("z", prior.conditional(y), obs=z)
        return y

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    assert loss == pytest.approx(-prior().log_prob(z).sum().item(), rel=1e-4)
    inferred = infer_discrete(model, first_available_dim=-2, temperature=0)()
    assert torch.equal(inferred, prior.responsibilities(z).argmax(-1))


def test_the_divergence_of_two_clusters_is_that_in_generation_space() -> None:
    base = MixturePrior(2, components=3)
    prior, other = CouplingPrior(2, base=base), CouplingPrior(2, base=base)
    y = torch.tensor([0, 1])
    p, q = prior.conditional(y), prior.conditional(y.flip(0))
    expected = kl_divergence(base.conditional(y), base.conditional(y.flip(0)))
    torch.testing.assert_close(kl_divergence(p, q), expected)
    with torch.no_grad():  # by draws too, for the same number
        z = p.sample((20_000,))
        ratio = p.log_prob(z) - q.log_prob(z)
    error = ratio.std(0) / len(z) ** 0.5
    assert ((ratio.mean(0) - expected).abs() < 5 * error + 1e-4).all()
    with pytest.raises(NotImplementedError):  # another map
        kl_divergence(p, other.conditional(y))


@pytest.mark.parametrize("name", list(FLOWS))
def test_captured_steps_are_those_of_svi(name: str) -> None:
    found = []
    for kind in ("eager", "captured"):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        torch.manual_seed(0)
        programs = Programs(FLOWS[name]())
        optim = FusedOptim({"lr": 1e-2})
        if kind == "eager":
            svi = SVI(programs.model, programs.guide, optim, RegularizedELBO())
        else:
            svi = CapturedSVI(
                programs.model, programs.guide, optim, RegularizedELBO(), backend="fx"
            )
        pyro.set_rng_seed(2)
        losses = [float(svi.step()) for _ in range(3)]
        found.append([torch.tensor(losses), *programs.prior.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
