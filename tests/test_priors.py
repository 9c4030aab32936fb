"""The contract of every prior: one line in PRIORS is all a new prior needs."""

import copy
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions.transforms import AffineCoupling
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.errors import UnsupportedError
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.priors import (
    AbstractPrior,
    AutoregressivePrior,
    CouplingPrior,
    FixedPrior,
    FlowDistribution,
    FlowTransform,
    MixturePrior,
    ProductPrior,
    ResampledPrior,
    StandardNormal,
    VampPrior,
    ZukoPrior,
)
from tests.posteriors import affine_flow


def vamp(shape: tuple[int, ...]) -> VampPrior:
    network = ARCHITECTURES["mlp"].encoder(shape, hidden=(8,))
    return VampPrior(GaussianEncoder(network, 1 + len(shape)), torch.rand(5, *shape))


PRIORS = {
    "standard-1": lambda: StandardNormal(1),
    "standard-2": lambda: StandardNormal(2),
    "coupling-2": lambda: CouplingPrior(2),
    "coupling-3-odd": lambda: CouplingPrior(3, blocks=3, hidden=(8,)),
    "coupling-10": lambda: CouplingPrior(10),
    "product-5": lambda: ProductPrior([CouplingPrior(2), StandardNormal(1), MixturePrior(2)]),
    "coupling-2-unbounded": lambda: CouplingPrior(2, blocks=2, bound=torch.nn.Identity()),
    "coupling-2-mixture": lambda: CouplingPrior(2, blocks=2, base=MixturePrior(2, components=3)),
    "autoregressive-2": lambda: AutoregressivePrior(2, blocks=2, hidden=(8,), mean_only=False),
    "autoregressive-mean-2": lambda: AutoregressivePrior(2, blocks=3, hidden=(8, 8), direct=True),
    "autoregressive-3": lambda: AutoregressivePrior(3, hidden=(7,), mean_only=False, direct=True),
    "resampled-2": lambda: ResampledPrior(2, hidden=(8,), truncation=4).eval(),
    "coupling-2-resampled": lambda: CouplingPrior(
        2, blocks=1, hidden=(8,), base=ResampledPrior(2, hidden=(8,), truncation=3)
    ).eval(),
    "fixed-2": lambda: FixedPrior(dist.StudentT(4.0, torch.zeros(2), 1.0)),
    "coupling-3-fixed": lambda: CouplingPrior(
        3,
        blocks=2,
        hidden=(8,),
        base=dist.MultivariateNormal(torch.ones(3), 0.5 * torch.eye(3) + 0.5),
    ),
    "vamp-2": lambda: vamp((4,)),
    "vamp-4-images": lambda: vamp((1, 4, 4)),
    "zuko-spline-2": lambda: ZukoPrior(zuko.flows.NSF(2, transforms=2, hidden_features=(8,))),
    "zuko-masked-3": lambda: ZukoPrior(zuko.flows.MAF(3, transforms=2, hidden_features=(8,))),
    "mixture-1": lambda: MixturePrior(1),
    "mixture-2": lambda: MixturePrior(2, components=4),
    "mixture-2-uniform": lambda: MixturePrior(2, components=4, uniform=True),
}

Maker = Callable[[], AbstractPrior]


@pytest.fixture(params=list(PRIORS))
def make(request: pytest.FixtureRequest) -> Maker:
    return PRIORS[request.param]


def perturb(prior: AbstractPrior, scale: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def test_shapes(make: Maker) -> None:
    prior = make()
    p = prior()
    assert p.batch_shape == ()
    assert p.event_shape == (prior.latent_dim,)
    z = p.sample((4, 5))
    assert z.shape == (4, 5, prior.latent_dim)
    assert p.log_prob(z).shape == (4, 5)
    assert p.expand((7,)).sample().shape == (7, prior.latent_dim)
    z0, log_det = prior.to_generation(z)
    assert z0.shape == z.shape
    assert log_det.shape == (4, 5)


def test_maps_invert_each_other_in_float32(make: Maker) -> None:
    prior = make()
    perturb(prior, 0.05)
    z0 = torch.randn(1000, prior.latent_dim)
    z = prior.to_representation(z0)
    assert (prior.to_generation(z)[0] - z0).abs().max() < 1e-5


def test_log_det_equals_autograd(make: Maker) -> None:
    prior = make().double()
    perturb(prior)
    for z in prior().sample((5,)):
        jacobian = torch.autograd.functional.jacobian(lambda v: prior.to_generation(v)[0], z)
        log_det = prior.to_generation(z)[1]
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det)


def test_log_prob_is_the_change_of_variables(make: Maker) -> None:
    prior = make().double()
    perturb(prior)
    z = prior().sample((50,))
    z0, log_det = prior.to_generation(z)
    torch.testing.assert_close(prior().log_prob(z.clone()), prior.base().log_prob(z0) + log_det)


def test_the_gradient_of_the_density_is_autograds(make: Maker) -> None:
    prior = make().double()
    perturb(prior, 0.1)
    z = prior().sample((5,)).requires_grad_()
    there = prior.linearize_density(z)
    (gradient,) = torch.autograd.grad(prior().log_prob(z).sum(), z)
    torch.testing.assert_close(there.gradient, gradient)
    assert (torch.linalg.eigvalsh(there.factor @ there.factor.mT) > 0).all()
    z0 = prior.base().sample((5,)).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.base().log_prob(z0).sum(), z0)
    found, factor = prior.linearize_base(z0)
    torch.testing.assert_close(found, gradient)
    assert factor is None or factor.shape == (5, prior.latent_dim, prior.latent_dim)


def test_density_integrates_to_one_and_agrees_with_samples(make: Maker) -> None:
    prior = make().double()
    if prior.latent_dim != 2:
        pytest.skip("the grid is two-dimensional")
    perturb(prior, 0.1)
    with torch.no_grad():
        z = prior().sample((40_000,))
        bound = float(z.abs().max()) * 1.2
        axis = torch.linspace(-bound, bound, 400, dtype=torch.float64)
        cell = float(axis[1] - axis[0]) ** 2
        grid = torch.cartesian_prod(axis, axis)
        density = torch.cat([prior().log_prob(part) for part in grid.split(40_000)]).exp() * cell
    assert float(density.sum()) == pytest.approx(1.0, abs=2e-3)
    edge = float(axis[220] + axis[221]) / 2  # between two columns of the grid
    right = grid[:, 0] > edge
    share = float((z[:, 0] > edge).double().mean())
    assert float(density[right].sum()) == pytest.approx(share, abs=1e-2)


def test_every_parameter_gets_a_gradient_and_is_a_param_site(make: Maker) -> None:
    class Root(pyro.nn.PyroModule):
        def __init__(self, prior: AbstractPrior) -> None:
            super().__init__()
            self.prior = prior

        def forward(self) -> torch.Tensor:
            return pyro.sample("z", self.prior())

    prior = make()
    trace = pyro.poutine.trace(Root(prior)).get_trace()
    sites = {id(s["value"]) for s in trace.nodes.values() if s["type"] == "param"}
    assert sites == {id(parameter) for parameter in prior.parameters()}

    # Drawn earlier, so that the score needs the whole inverse map.
    z = torch.randn(64, prior.latent_dim)
    loss = -prior().log_prob(z).sum()
    if list(prior.parameters()):
        loss.backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_same_tensor_scored_after_an_update_gives_the_new_value(make: Maker) -> None:
    prior = make()
    z = prior().sample((10,))
    with torch.no_grad():
        before = prior().log_prob(z)
    perturb(prior)
    after = prior().log_prob(z)
    torch.testing.assert_close(after, prior().log_prob(z.clone()))
    if list(prior.parameters()):
        assert not torch.allclose(after, before)
        after.sum().backward()
        prior().log_prob(z).sum().backward()


def test_a_distribution_of_couplings_follows_their_parameters() -> None:
    prior = CouplingPrior(2)
    p = prior()
    z = p.sample((10,))
    p.log_prob(z)
    perturb(prior)
    torch.testing.assert_close(p.log_prob(z), prior().log_prob(z))


def test_state_dict_round_trip(make: Maker) -> None:
    prior, other = make(), make()
    perturb(prior)
    other.load_state_dict(prior.state_dict())
    z = torch.randn(10, prior.latent_dim)
    torch.testing.assert_close(other().log_prob(z), prior().log_prob(z), rtol=0, atol=0)


def test_deepcopy_after_a_gradient_step(make: Maker) -> None:
    prior = make()
    p = prior()
    z = p.rsample((4,)) if p.has_rsample else p.sample((4,))
    loss = (prior().log_prob(z) + z.square().sum(-1)).sum()
    if loss.requires_grad:
        loss.backward()
    duplicate = copy.deepcopy(prior)
    perturb(prior)
    points = torch.randn(5, prior.latent_dim)
    if list(prior.parameters()):
        assert not torch.allclose(duplicate().log_prob(points), prior().log_prob(points))


def test_to_device_and_dtype(make: Maker) -> None:
    prior = make()
    meta = copy.deepcopy(prior).to("meta")
    assert {t.device.type for t in [*meta.parameters(), *meta.buffers()]} <= {"meta"}
    assert prior.double()().sample().dtype == torch.float64
    if torch.cuda.is_available():
        z = prior.to("cuda")().sample((3,))
        assert prior().log_prob(z).device.type == "cuda"


def test_an_aggregate_posterior_as_a_prior_follows_the_module() -> None:
    loc, scale = torch.randn(7, 2), torch.rand(7, 2) + 0.1
    prior = FixedPrior(AggregatePosterior(loc, scale)).double()
    z = prior().sample((5,))
    assert z.dtype == torch.float64
    expected = AggregatePosterior(loc.double(), scale.double()).log_prob(z)
    torch.testing.assert_close(prior().log_prob(z), expected)
    assert copy.deepcopy(prior).to("meta")().loc.is_meta
    flow = AggregatePosterior.of(lambda x: affine_flow(loc, scale.diag_embed()), [loc])
    assert FixedPrior(flow).float()().loc is flow.loc
    with pytest.raises(UnsupportedError, match=r"of flows.*compute it again"):
        FixedPrior(flow).double()


def test_the_definition_is_pyros_own_transforms() -> None:
    p = CouplingPrior(4, blocks=5).composed()
    assert isinstance(p, TransformedDistribution)
    assert sum(isinstance(t, AffineCoupling) for t in p.transforms) == 5


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
@pytest.mark.parametrize("blocks", [1, 2, 6])
@pytest.mark.parametrize("latent_dim", [2, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_stack_equals_its_definition(
    dtype: torch.dtype, latent_dim: int, blocks: int, batch: tuple[int, ...]
) -> None:
    prior = CouplingPrior(latent_dim, blocks=blocks, hidden=(16, 16)).to(dtype)
    perturb(prior, 0.1)
    check_the_definition(prior, torch.randn(*batch, latent_dim, dtype=dtype))


def test_the_stack_clips_unbounded_scales_as_its_definition_does() -> None:
    prior = CouplingPrior(4, blocks=3, hidden=(16,), bound=torch.nn.Identity()).double()
    perturb(prior, 2.0)
    z = torch.randn(200, 4, dtype=torch.float64)
    scales = prior.couplings[0](z[:, :2])[1]
    assert (scales < -5).any()
    assert (scales > 3).any()
    check_the_definition(prior, z)


def test_the_definition_has_the_stacks_base() -> None:
    prior = CouplingPrior(3, blocks=2, hidden=(8,), base=MixturePrior(3, components=2)).double()
    perturb(prior, 0.1)
    check_the_definition(prior, torch.randn(5, 3, dtype=torch.float64))


def check_the_definition(prior: CouplingPrior, z: torch.Tensor) -> None:
    """One density with one set of gradients, and one set of draws."""
    precise = z.dtype == torch.float64
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if precise else {"rtol": 1e-4, "atol": 1e-4}
    parameters = list(prior.parameters())
    z.requires_grad_()
    scored, drawn = [], []
    for p in (prior(), prior.composed()):
        log_p = p.log_prob(z)
        scored.append(
            [log_p, *torch.autograd.grad(log_p.sum(), [z, *parameters], retain_graph=True)]
        )
        pyro.set_rng_seed(0)
        draws = [p.sample(z.shape[:-1]), p.rsample(z.shape[:-1])]
        # The shift of the last block alone sees all of a linear loss; squares see the rest.
        gradients = torch.autograd.grad(draws[1].square().sum(), parameters)
        drawn.append([*draws, *gradients])
    torch.testing.assert_close(*scored, **tolerance)
    torch.testing.assert_close(*drawn, **tolerance)


def test_the_density_is_recorded_in_one_graph() -> None:
    prior = CouplingPrior(3, blocks=2, hidden=(8,))
    z = torch.randn(4, 3)
    with pyro.validation_enabled(False):
        recorded = make_fx(lambda z: prior().log_prob(z))(z)
    perturb(prior)
    torch.testing.assert_close(recorded(2 * z), prior().log_prob(2 * z))


def test_a_flow_draws_for_each_element_of_its_batch() -> None:
    p = CouplingPrior(3)().expand((4, 2))
    assert p.batch_shape == (4, 2)
    z = p.sample((5,))
    assert z.shape == (5, 4, 2, 3)
    assert len(z.reshape(-1, 3).unique(dim=0)) == 40
    assert not z.requires_grad
    assert p.rsample().requires_grad
    assert p.log_prob(z[0, 0, 0]).shape == (4, 2)


@pytest.mark.parametrize("size", [(), (2,), (5, 4)])
@pytest.mark.parametrize("validate", [False, True])
def test_values_of_another_size_are_refused(validate: bool, size: tuple[int, ...]) -> None:
    message = r"z must have shape \(\.\.\., 3\), got .*; reshape it or build the prior"
    with pyro.validation_enabled(validate), pytest.raises(ValueError, match=message):
        CouplingPrior(3)().log_prob(torch.zeros(size))


def test_nan_is_refused_while_validation_is_on() -> None:
    prior = CouplingPrior(2)
    z = torch.full((3, 2), torch.nan)
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="within the support"):
        prior().log_prob(z)
    with pyro.validation_enabled(False):
        assert prior().log_prob(z).isnan().all()


def test_a_base_without_an_event_dimension_is_refused() -> None:
    prior = CouplingPrior(2)
    with pytest.raises(ValueError, match=r"one event dimension, got event shape \(\); make it"):
        FlowDistribution(Normal(torch.zeros(2), 1.0), FlowTransform(prior))


def test_halves_alternate() -> None:
    z0 = torch.randn(3, 5)
    one, two = CouplingPrior(5, blocks=1), CouplingPrior(5, blocks=2)
    perturb(two)
    one.couplings[0].load_state_dict(two.couplings[0].state_dict())
    after_one, after_two = one.to_representation(z0), two.to_representation(z0)
    assert torch.equal(after_one[:, :2], z0[:, :2])
    assert not torch.isclose(after_one[:, 2:], z0[:, 2:]).any()
    assert torch.equal(after_two[:, 2:], after_one[:, 2:])
    assert not torch.isclose(after_two[:, :2], after_one[:, :2]).any()


def test_the_authors_flow_size() -> None:
    # reference: six blocks, s and t of L -> 64 -> 64 -> L on masked vectors have 53,784
    # parameters at L = 2; on halves, the masked inputs and unused outputs fall away.
    masked = 6 * 2 * ((2 * 64 + 64) + (64 * 64 + 64) + (64 * 2 + 2))
    assert masked == 53_784
    unused = 6 * 2 * (64 + 64 + 1)
    assert sum(p.numel() for p in CouplingPrior(2).parameters()) == masked - unused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 1}, r"at least 2 for a coupling prior, got 1; use StandardNormal\(1\)"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"latent_dim": 2, "blocks": 0}, "blocks must be at least 1, got 0"),
        ({"latent_dim": 2, "hidden": (64, 0)}, "every width of the network .* got 0"),
    ],
)
def test_bad_sizes_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CouplingPrior(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("latent_dim", [2, 3, 7])
@pytest.mark.parametrize("bound", [torch.tanh, torch.sin, lambda value: 9 * value])
def test_derivatives_of_the_map_to_generation_are_autograds(
    latent_dim: int, bound: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    prior = CouplingPrior(latent_dim, blocks=3, hidden=(8,), bound=bound).double()
    z = torch.randn(5, latent_dim, dtype=torch.float64)
    ours, generic = prior.linearize_generation(z), AbstractPrior.linearize_generation(prior, z)
    z0, log_det = prior.to_generation(z)
    jacobian = torch.autograd.functional.jacobian(lambda z: prior.to_generation(z)[0].sum(0), z)
    slope = torch.autograd.functional.jacobian(lambda z: prior.to_generation(z)[1].sum(), z)
    parameters = list(prior.parameters())
    weights = torch.randn_like(ours.jacobian), torch.randn_like(ours.log_det_gradient)
    gradients = []
    for found in (ours, generic):
        torch.testing.assert_close(found.z0, z0)
        torch.testing.assert_close(found.log_det, log_det)
        torch.testing.assert_close(found.jacobian, jacobian.permute(1, 2, 0))
        torch.testing.assert_close(found.log_det_gradient, slope)
        total = (weights[0] * found.jacobian).sum() + (weights[1] * found.log_det_gradient).sum()
        gradients.append(torch.autograd.grad(total, parameters, materialize_grads=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
