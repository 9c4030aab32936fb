"""Terms from distributions and terms from traces: one set of numbers, to the last bit."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro import poutine
from torch import Tensor, nn

from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import (
    DIPELBO,
    BetaTCELBO,
    FactorELBO,
    FreeBitsRate,
    InfoELBO,
    MutualDivergenceELBO,
    RegularizedELBO,
    elbo,
)
from pyro_dpvae.objectives.direct import direct_terms
from pyro_dpvae.objectives.traced import traced_terms
from pyro_dpvae.priors import ZukoPrior
from pyro_dpvae.recipes import build_system
from tests.linear_gaussian import DATA, LATENT, LinearGaussian
from tests.posteriors import FAMILIES, Diagonal

BATCH = 12
OBJECTIVES: dict[str, Callable[[], RegularizedELBO]] = {
    "elbo": RegularizedELBO,
    "free-bits": lambda: RegularizedELBO(rate=FreeBitsRate(0.1)),
    "beta-tc": lambda: BetaTCELBO(dataset_size=100),
    "factor": lambda: FactorELBO(latent_dim=2, hidden=(8,)),
    "info": InfoELBO,
    "mae": MutualDivergenceELBO,
    "dip": DIPELBO,
}
PRIORS: dict[str, dict[str, Any]] = {
    "standard": {},
    "coupling": {"blocks": 2},
    "mixture": {"components": 3},
    "coupling-mixture": {"components": 3, "blocks": 2},
    "vamp": {"components": 3},
    "autoregressive": {"hidden": [8]},
    "resampled": {"hidden": [8]},
}
GUIDES: dict[str, dict[str, Any]] = {
    "amortized": {},
    "flow": {"hidden": [8]},
    "laplace": {"steps": 2},
    "semi-amortized": {"steps": 2},
    "recursive-mixture": {"components": 3, "recursive": False},
}


def system(prior: str, guide: str) -> Any:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    return build_system(
        (1, 4, 4),
        latent_dim=2,
        dataset_size=100,
        prior={"name": prior, **PRIORS[prior]},
        likelihood={"name": "bernoulli"},
        network={"name": "mlp", "hidden": [16]},
        guide={"name": guide, **GUIDES[guide]},
        objective={"name": "elbo"},
    )


def images() -> Tensor:
    return torch.bernoulli(torch.rand(BATCH, 1, 4, 4))


def as_functions(model: Any, guide: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same programs, of which nobody can tell that they are modules: they are traced."""
    return (lambda *args: model(*args)), (lambda *args: guide(*args))


def evaluated(
    objective: RegularizedELBO, programs: Any, parts: Any, x: Tensor
) -> tuple[list[Tensor], Tensor, list[str]]:
    """Return loss, terms and gradients; the random state; the parameters that Pyro has seen."""
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    with poutine.trace(param_only=True) as used:
        loss = objective.differentiable_loss(*programs, x)
    loss.backward()
    modules = nn.ModuleList([*parts, *objective.parts()])
    found = [loss.detach(), *objective.terms.values()]
    for parameter in modules.parameters():
        found.append(torch.zeros(()) if parameter.grad is None else parameter.grad.clone())
        parameter.grad = None
    return found, torch.get_rng_state(), list(used.trace.nodes)


def check_same(
    objective: Callable[[], RegularizedELBO], model: Any, guide: Any, x: Tensor
) -> None:
    torch.manual_seed(2)
    first = objective()
    direct = evaluated(first, (model, guide), (model, guide), x)
    torch.manual_seed(2)
    second = objective()
    traced = evaluated(second, as_functions(model, guide), (model, guide), x)
    assert list(first.terms) == list(second.terms)
    assert all(map(torch.equal, direct[0], traced[0]))
    assert any(bool((one != 0).any()) for one in direct[0][len(first.terms) + 1 :])
    assert torch.equal(direct[1], traced[1])
    assert direct[2] == traced[2] != []
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def no_traces(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the traced way."""
    calls: list[Any] = []
    traced = traced_terms

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return traced(*args, **kwargs)

    monkeypatch.setattr(elbo, "traced_terms", counted)
    return calls


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("prior", PRIORS)
def test_both_ways_give_the_same_bits_with_every_prior(
    name: str, prior: str, no_traces: list[Any]
) -> None:
    made, x = system(prior, "amortized"), images()
    check_same(OBJECTIVES[name], made.model, made.guide, x)
    assert len(no_traces) == 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_both_ways_give_the_same_bits_with_a_flow_of_zuko(name: str) -> None:
    exact = LinearGaussian()
    flow = zuko.flows.NSF(LATENT, transforms=2, hidden_features=(8,)).double()
    model = VAE(ZukoPrior(flow), exact.model.decoder)
    check_same(OBJECTIVES[name], model, exact.guide, exact.data(BATCH))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("guide", GUIDES)
def test_both_ways_give_the_same_bits_with_every_guide(
    name: str, guide: str, no_traces: list[Any]
) -> None:
    made, x = system("coupling", guide), images()
    check_same(OBJECTIVES[name], made.model, made.guide, x)
    assert len(no_traces) == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_both_ways_give_the_same_bits_with_every_family(name: str, family: str) -> None:
    exact = LinearGaussian()
    check_same(OBJECTIVES[name], exact.model, FAMILIES[family]().double(), exact.data(BATCH))


def is_direct(model: Any, guide: Any, *args: Any, **kwargs: Any) -> bool:
    found = direct_terms(model, guide, args, kwargs, coordinates=False, penalties=False, count=1)
    return found is not None


class OtherModel(VAE):  # type: ignore[misc]  # final, but nobody is stopped
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        return 2 * super().forward(x, size=size)


class OtherGuide(Diagonal):
    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(len(x), LATENT), 1.0).to_event(1))


def test_whatever_is_not_the_two_distributions_is_traced() -> None:
    exact = LinearGaussian()
    x = exact.data(3)
    model, guide = exact.model, exact.guide
    assert is_direct(model, guide, x)
    assert is_direct(model, Diagonal().double(), x)
    assert not is_direct(*as_functions(model, guide), x)
    assert not is_direct(OtherModel(model.prior, model.decoder), guide, x)
    assert not is_direct(model, OtherGuide(), x)
    assert not is_direct(poutine.scale(model, 2.0), guide, x)
    assert not is_direct(model, guide, x, size=3)
    assert not is_direct(model, guide, x, x)
    assert not is_direct(model, guide, x[:0])
    with poutine.scale(scale=2.0):
        assert not is_direct(model, guide, x)
    with poutine.trace(), poutine.trace(param_only=True):
        assert not is_direct(model, guide, x)
    with poutine.trace(param_only=True):
        assert is_direct(model, guide, x)
    hook = model.register_forward_hook(lambda *_: None)
    assert not is_direct(model, guide, x)
    hook.remove()
    assert is_direct(model, guide, x)


def test_data_with_further_dimensions_are_refused() -> None:
    exact = LinearGaussian()
    x = exact.data(4)
    with pytest.raises(ValueError, match=r"must have the shape \(4, 3\), got \(4, 1, 3\), with"):
        RegularizedELBO().loss(exact.model, exact.guide, x.unsqueeze(1))


class RandomWeights(nn.Module):
    """A decoder's network that draws its own weight, at a site of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.in_shape, self.out_shape = network.in_shape, network.out_shape

    def forward(self, z: Tensor) -> Tensor:
        shift = pyro.sample("shift", dist.Normal(torch.zeros(DATA).double(), 1.0).to_event(1))
        return self.network(z) + shift


def test_a_network_that_samples_is_traced_from_then_on() -> None:
    exact = LinearGaussian()
    x = exact.data(5)
    exact.model.decoder.network = RandomWeights(exact.model.decoder.network)
    assert not is_direct(exact.model, exact.guide, x)
    with (
        pytest.warns(UserWarning, match="Found vars in model but not guide: {'shift'}"),
        pytest.raises(ValueError, match=r"lacks latent sites of the model: \['shift'\]"),
    ):
        RegularizedELBO().loss(exact.model, exact.guide, x)
    given = poutine.condition(exact.model, data={"shift": torch.ones(DATA).double()})
    assert RegularizedELBO().loss(given, exact.guide, x) != 0


def test_recorded_steps_of_both_ways_are_the_same() -> None:
    losses = []
    for traced in (False, True):
        made, x = system("coupling", "amortized"), images()
        model, guide = made.model, made.guide
        if traced:
            model, guide = as_functions(model, guide)
        svi = CapturedSVI(model, guide, FusedOptim({"lr": 1e-2}), OBJECTIVES["factor"]())
        pyro.set_rng_seed(1)
        losses.append([svi.step(x) for _ in range(8)])
        assert svi.recordings == 1
    assert losses[0] == losses[1]


def test_terms_print_as_numbers() -> None:
    exact = LinearGaussian()
    objective = RegularizedELBO()
    objective.loss(exact.model, exact.guide, exact.data(3))
    printed = eval(repr(objective.terms))
    assert set(printed) == {"loss", "distortion", "rate"}
    assert printed["rate"] == float(objective.terms["rate"])
