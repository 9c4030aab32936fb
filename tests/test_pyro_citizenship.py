"""The table of parts and Pyro's utilities: each cell asserts what the utility does of the part."""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.inspect import get_model_relations
from torch import Tensor, nn
from torch.distributions import biject_to

from pyro_dpvae.priors import (
    AbstractPrior,
    AutoregressivePrior,
    CouplingPrior,
    FixedPrior,
    MixturePrior,
    ProductPrior,
    ResampledPrior,
    StandardNormal,
    ZukoPrior,
)
from tests.test_extremes import SHAPE, SYSTEMS, system
from tests.test_priors import perturb, vamp

SIZE = 5


def spline() -> ZukoPrior:
    return ZukoPrior(zuko.flows.NSF(2, transforms=1, hidden_features=(8,)))


FLOWS: dict[str, Callable[[], AbstractPrior]] = {
    "coupling": lambda: CouplingPrior(2, blocks=2, hidden=(8,)),
    "coupling-mixture": lambda: CouplingPrior(
        2, blocks=2, hidden=(8,), base=MixturePrior(2, components=3)
    ),
    "coupling-student": lambda: CouplingPrior(
        2, blocks=2, hidden=(8,), base=dist.StudentT(4.0, torch.zeros(2), 1.0)
    ),
    "autoregressive": lambda: AutoregressivePrior(2, blocks=2, hidden=(8,), mean_only=False),
    "zuko": spline,
}
PRIORS: dict[str, Callable[[], AbstractPrior]] = {
    **FLOWS,
    "standard": lambda: StandardNormal(2),
    "fixed": lambda: FixedPrior(dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.5)),
    "mixture": lambda: MixturePrior(2, components=3),
    "vamp": lambda: vamp((4,)),
    "resampled": lambda: ResampledPrior(2, hidden=(8,), truncation=3).eval(),
    "product": lambda: ProductPrior([CouplingPrior(2, hidden=(8,)), StandardNormal(1)]),
}


class Part(NamedTuple):
    """A module, and the distribution of a batch of ``SIZE`` that it makes."""

    module: nn.Module
    make: Callable[[Any], Any]

    def __call__(self) -> Any:
        return self.make(self.module)


def prior_part(name: str) -> Part:
    prior = PRIORS[name]()
    perturb(prior, 0.1)
    return Part(prior, lambda prior: prior().expand((SIZE,)))


def guide_part(name: str) -> Part:
    guide = system(name).guide
    x = data(name)
    return Part(guide, lambda guide: guide.posterior(x))


def decoder_part(name: str) -> Part:
    decoder = system(name).model.decoder
    z = torch.randn(SIZE, decoder.latent_dim)
    return Part(decoder, lambda decoder: decoder(z))


PARTS: dict[str, Callable[[], Part]] = {
    **{f"prior-{name}": lambda name=name: prior_part(name) for name in PRIORS},
    **{
        name: lambda name=name: guide_part(name)
        for name in SYSTEMS
        if name.startswith("guide-") or name == "ladder"
    },
    **{
        name: lambda name=name: decoder_part(name)
        for name in SYSTEMS
        if name.startswith("likelihood-") or name == "lossy"
    },
}


@pytest.fixture(params=list(PARTS))
def part(request: pytest.FixtureRequest) -> Part:
    return PARTS[request.param]()


def program(part: Part) -> Tensor:
    with pyro.plate("data", SIZE):
        return pyro.sample("v", part())


def log_prob_sum(handler: Any) -> Tensor:
    return poutine.trace(handler).get_trace().log_prob_sum()


def test_handlers_see_the_density_of_the_part(part: Part) -> None:
    value = part().sample()
    density = part().log_prob(value)
    assert density.shape == (SIZE,)
    assert density.isfinite().all()

    def run() -> Tensor:
        return program(part)

    conditioned = poutine.condition(run, data={"v": value})
    trace = poutine.trace(conditioned).get_trace()
    assert trace.nodes["v"]["is_observed"]
    assert trace.nodes["v"]["value"] is value
    torch.testing.assert_close(trace.log_prob_sum(), density.sum())
    torch.testing.assert_close(
        log_prob_sum(poutine.scale(conditioned, scale=3.0)), 3 * density.sum()
    )
    mask = torch.arange(SIZE) < 2
    masked = log_prob_sum(poutine.mask(conditioned, mask=mask))
    torch.testing.assert_close(masked, density[:2].sum())
    drawn = poutine.trace(run).get_trace()
    replayed = poutine.trace(poutine.replay(run, trace=drawn)).get_trace()
    assert replayed.nodes["v"]["value"] is drawn.nodes["v"]["value"]


def test_shapes_are_those_of_every_distribution(part: Part) -> None:
    p, value = part(), part().sample()
    assert p.shape() == p.batch_shape + p.event_shape == value.shape
    density = part().log_prob(value)
    expanded = part().expand((3, SIZE))
    assert expanded.batch_shape == (3, SIZE)
    assert type(expanded) is type(p) or isinstance(expanded, dist.ExpandedDistribution)
    torch.testing.assert_close(expanded.log_prob(value), density.expand(3, SIZE))
    torch.testing.assert_close(part().to_event(1).log_prob(value), density.sum())
    assert p().requires_grad == (p.has_rsample and any_parameters(part))


def any_parameters(part: Part) -> bool:
    return any(parameter.requires_grad for parameter in part.module.parameters())


def test_draws_lie_in_the_support_and_biject_to_reaches_them(part: Part) -> None:
    p = part()
    value = p.sample()
    assert p.support.check(value).all()
    if p.support.is_discrete:
        return
    transform = biject_to(p.support)
    inside = value.clamp(1e-3, 1 - 1e-3) if (value >= 0).all() and (value <= 1).all() else value
    torch.testing.assert_close(transform(transform.inv(inside)), inside, rtol=1e-3, atol=1e-4)


def test_predictive_and_the_rendered_graph_know_the_site(part: Part) -> None:
    def run() -> Tensor:
        return program(part)

    drawn = Predictive(run, num_samples=3)()["v"]
    assert drawn.shape == (3, *part().shape())
    assert len(drawn.flatten(1).unique(dim=0)) == 3
    relations = get_model_relations(run)  # what pyro.render_model draws
    assert relations["sample_sample"] == {"v": []}
    assert relations["plate_sample"] == {"data": ["v"]}


def test_an_update_changes_the_density_and_copies_keep_theirs(part: Part) -> None:
    value = part().sample()
    parameters = [one for one in part.module.parameters() if one.requires_grad]
    before = part().log_prob(value)
    if not parameters:
        assert not before.requires_grad
        return
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    (-before.sum()).backward()
    assert any(one.grad is not None and one.grad.any() for one in parameters)
    duplicate = Part(copy.deepcopy(part.module), part.make)
    optimizer.step()
    after = part().log_prob(value)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, part().log_prob(value.clone()))
    torch.testing.assert_close(duplicate().log_prob(value), before)


# Models with their guides.

MODELS = ["prior-coupling", "ladder", "clustering-ladder", "lossy"]
MODELS += [name for name in SYSTEMS if name.startswith("guide-")]


def data(name: str) -> Tensor:
    return torch.rand(SIZE, *((1, 8, 8) if "lad" in name else SHAPE)).round()


def latents(trace: poutine.Trace) -> Tensor:
    names = sorted(name for name in trace.nodes if name.startswith("z"))
    return torch.cat([trace.nodes[name]["value"] for name in names], -1)


@pytest.mark.parametrize("name", MODELS)
def test_models_draw_and_are_conditioned(name: str) -> None:
    made, x = system(name), data(name)
    drawn = Predictive(made.model, num_samples=2)(size=SIZE)
    assert drawn["x"].shape == (2, *x.shape)
    fitted = Predictive(made.model, guide=made.guide, num_samples=2)(x)
    assert all(value.isfinite().all() for value in fitted.values())
    relations = get_model_relations(made.model, (x,))
    assert relations["observed"] == ["x"]
    assert set(relations["sample_sample"]["x"]) == {n for n in fitted if n.startswith("z")}
    model = copy.deepcopy(made.model)
    trace = poutine.trace(model).get_trace(x)
    if "clustering" not in name:  # where the sum would be over clusters too
        z = latents(trace)
        expected = model.prior().log_prob(z) + model.decoder(z).log_prob(x)
        torch.testing.assert_close(trace.log_prob_sum(), expected.sum())
    values = {n: trace.nodes[n]["value"] for n in fitted if n != "x"}
    conditioned = poutine.trace(poutine.condition(model, data=values)).get_trace(x)
    torch.testing.assert_close(conditioned.log_prob_sum(), trace.log_prob_sum())


BOUNDS: dict[str, Callable[[], Any]] = {
    "Trace": Trace_ELBO,
    "TraceGraph": TraceGraph_ELBO,
    "TraceMeanField": TraceMeanField_ELBO,
    "Renyi": lambda: RenyiELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1),
}


@pytest.mark.parametrize("bound", list(BOUNDS))
@pytest.mark.parametrize("name", MODELS)
def test_pyros_bounds_train_every_system(name: str, bound: str) -> None:
    if name == "clustering-ladder" and bound in ("TraceMeanField", "Renyi"):
        pytest.skip("these bounds take no discrete site")
    made, x = system(name), data(name)
    with pyro.validation_enabled(False):  # which warns of sites marked for enumeration
        svi = SVI(made.model, made.guide, pyro.optim.SGD({"lr": 1e-4}), BOUNDS[bound]())
        assert math.isfinite(svi.step(x))
        trace = poutine.trace(made.guide).get_trace(x)
        replayed = poutine.trace(poutine.replay(made.model, trace=trace)).get_trace(x)
        (trace.log_prob_sum() - replayed.log_prob_sum()).backward()
    for program in (made.model, made.guide):
        gradients = [one.grad for one in program.parameters() if one.grad is not None]
        assert any(gradient.any() for gradient in gradients)
        assert all(gradient.isfinite().all() for gradient in gradients)
