"""The flow guide: masks, Jacobians, inverses and densities against autograd and integrals."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from pyro_dpvae.cli import main
from pyro_dpvae.guides import FlowGuide
from pyro_dpvae.importance import log_weights
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.nn import ARCHITECTURES, Batched, ConditionedPerceptron
from pyro_dpvae.nn.flow_steps import AbstractStep, AutoregressiveStep, CouplingStep
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.priors import FlowDistribution
from pyro_dpvae.recipes import System, build_system, open_run
from tests.linear_gaussian import DATA, LATENT, LinearGaussian

KINDS = ["iaf", "coupling"]
SIZE, CONTEXT = 5, 3


def wild(module: nn.Module, *, size: float = 0.7) -> None:
    """Take a flow far from the identity, at which it begins."""
    for name, parameter in module.named_parameters():
        if "steps" in name or "layers" in name or "context" in name:
            nn.init.normal_(parameter, std=size)


def flow(
    kind: str, *, latent_dim: int = SIZE, blocks: int = 3, hidden: tuple[int, ...] = (16, 16)
) -> FlowGuide:
    network = ARCHITECTURES["moons"].encoder((2,))
    guide = FlowGuide(
        network, latent_dim, kind=kind, context=CONTEXT, blocks=blocks, hidden=hidden
    )
    wild(guide, size=0.4)
    return guide.double()


def step(kind: str, *, size: int = SIZE, backwards: bool = False) -> AbstractStep:
    make = AutoregressiveStep if kind == "iaf" else CouplingStep
    made = make(size, context=CONTEXT, hidden=(11, 17), backwards=backwards)
    wild(made)
    return made.double()


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def places(size: int, *, backwards: bool) -> list[int]:
    return list(reversed(range(size))) if backwards else list(range(size))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("hidden", [(64,), (11, 17), (3, 2)])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_coordinate_depends_on_those_before_it_and_on_no_other(
    size: int, hidden: tuple[int, ...], backwards: bool
) -> None:
    made = AutoregressiveStep(size, context=CONTEXT, hidden=hidden, backwards=backwards).double()
    wild(made)
    h = doubles(CONTEXT)
    network = made.network
    found = jacobian(lambda z: network(z, network.of_context(h)), doubles(size))
    order = places(size, backwards=backwards)
    for outputs in found.split(size):  # shifts, then log scales
        in_order = outputs[order][:, order]
        assert not in_order.triu().any()
        if min(hidden) >= size:
            below = torch.ones(size, size).tril(-1).bool()
            assert (in_order[below] != 0).all()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_output_and_every_hidden_unit_sees_the_whole_context(
    kind: str, backwards: bool
) -> None:
    network = step(kind, backwards=backwards).network
    assert isinstance(network, ConditionedPerceptron)
    z = doubles(network.layers[0].in_features)
    seen: list[Tensor] = []
    for layer in network.layers:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output))

    def units(h: Tensor) -> Tensor:
        seen.clear()
        y = network(z, network.of_context(h))
        return torch.cat([seen[0] + network.of_context(h), *seen[1:-1], y])

    found = jacobian(units, doubles(CONTEXT))
    assert found.shape[0] == 11 + 17 + 2 * (SIZE if kind == "iaf" else SIZE - z.shape[0])
    assert (found != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_draw_of_each_coordinate_depends_on_the_context(kind: str) -> None:
    guide = flow(kind)
    z0, h = doubles(SIZE), doubles(CONTEXT)

    def draw(h: Tensor) -> Tensor:
        z = z0
        for one in guide.steps:
            z, _ = one(z, h)
        return z

    assert (jacobian(draw, h) != 0).all()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_inverted_with_the_log_determinant_of_autograd(
    kind: str, backwards: bool
) -> None:
    made = step(kind, backwards=backwards)
    z, h = doubles(4, SIZE), doubles(4, CONTEXT)
    moved, log_det = made(z, h)
    for index in range(4):
        matrix = jacobian(lambda one, i=index: made(one, h[i])[0], z[index])
        torch.testing.assert_close(log_det[index], torch.linalg.slogdet(matrix)[1])
    back, log_det_back = made.inverse(moved, h)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(log_det_back, log_det)
    assert (moved - z).abs().max() > 0.5


def test_an_autoregressive_step_is_pyros_with_the_same_shift_and_scale() -> None:
    made = step("iaf").float()  # as Pyro's inverse is
    h = torch.randn(CONTEXT)

    class Network(nn.Module):
        input_dim, permutation = SIZE, torch.arange(SIZE)

        def forward(self, z: Tensor) -> tuple[Tensor, ...]:
            shift, raw = made.network(z, made.network.of_context(h)).chunk(2, -1)
            return shift, 2 * torch.tanh(raw / 2)

    oracle = dist.transforms.AffineAutoregressive(Network(), log_scale_max_clip=5.0)
    z = torch.randn(7, SIZE)
    moved, log_det = made(z, h)
    expected = oracle(z)
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(log_det, oracle.log_abs_det_jacobian(z, expected))
    foreign = torch.randn(7, SIZE)
    expected = oracle.inv(foreign)
    torch.testing.assert_close(made.inverse(foreign, h)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_densities_integrate_to_one(kind: str) -> None:
    guide = flow(kind, latent_dim=2)
    q = guide.posterior(doubles(3, 2))
    draws = q.sample((4000,)).reshape(-1, 2)
    low, high = draws.min(0).values - 3, draws.max(0).values + 3
    axes = [torch.linspace(float(a), float(b), 400) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*axes).double()
    with torch.no_grad():
        total = q.log_prob(grid[:, None]).exp().sum(0)
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    torch.testing.assert_close(total * cell, torch.ones(3).double(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_a_foreign_z_is_the_change_of_variables(kind: str) -> None:
    guide = flow(kind)
    x = doubles(4, 2)
    mean, log_variance, h = guide.network(x).split([SIZE, SIZE, CONTEXT], -1)
    z0 = doubles(4, SIZE)

    def forward(z: Tensor, h: Tensor) -> Tensor:
        for one in guide.steps:
            z, _ = one(z, h)
        return z

    base = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(z0).sum(-1)
    matrices = [jacobian(partial(forward, h=c), a) for a, c in zip(z0, h, strict=True)]
    log_dets = torch.linalg.slogdet(torch.stack(matrices))[1]
    found = guide.posterior(x).log_prob(forward(z0, h).detach())
    torch.testing.assert_close(found, base - log_dets)


def passes(guide: FlowGuide) -> Callable[[], int]:
    """Count the passes of the first step's network from now on."""
    calls = []
    guide.steps[0].network.context.register_forward_hook(lambda *_: calls.append(1))
    return lambda: len(calls)


def test_the_last_draw_is_scored_without_a_pass_and_others_with_one() -> None:
    guide = flow("iaf")
    count = passes(guide)
    q = guide.posterior(doubles(4, 2)).expand([7, 4])
    z = q.rsample()
    assert count() == 1
    remembered = q.log_prob(z)
    assert count() == 1
    torch.testing.assert_close(q.log_prob(z.clone()), remembered)
    assert count() == 2


@pytest.mark.parametrize("expanded", [False, True])
def test_the_last_draw_has_the_gradients_of_the_passes(expanded: bool) -> None:
    guide = flow("iaf")
    x = doubles(4, 2).requires_grad_()
    weights = doubles(SIZE)
    found = []
    for foreign in (False, True):
        torch.manual_seed(1)
        q = guide.posterior(x)
        if expanded:
            q = q.expand([3, 4])
        z = q.rsample()
        # Through the draw as well: an objective's other terms depend on it.
        loss = q.log_prob(z.clone() if foreign else z).sum() + (z @ weights).cos().sum()
        leaves = [x, *guide.parameters()]
        found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert other.any()


def scored_by_passes(guide: FlowGuide, q: FlowDistribution, z: Tensor) -> bool:
    count = passes(guide)
    found = q.log_prob(z)
    assert count() in (0, 1)
    torch.testing.assert_close(found, q.log_prob(z.detach().clone()))
    return count() > 1


def test_what_has_changed_since_the_draw_is_scored_anew() -> None:
    guide = flow("iaf")
    x = doubles(4, 2)
    q = guide.posterior(x)
    z = q.rsample()
    assert not scored_by_passes(guide, q, z)
    with torch.no_grad():
        guide.steps[1].network.layers[0].bias.add_(0.3)  # as an optimizer does
    assert scored_by_passes(guide, q, z)

    z = q.rsample()
    with torch.no_grad():
        z.mul_(1.1)
    assert scored_by_passes(guide, q, z)

    first = q.rsample()
    q.rsample()
    assert scored_by_passes(guide, q, first)


@pytest.mark.parametrize("draw", ["sample", "rsample without gradients"])
def test_draws_without_gradients_have_the_scores_of_given_values(draw: str) -> None:
    guide = flow("iaf")
    x = doubles(4, 2)
    q = guide.posterior(x)
    with torch.no_grad():
        z = q.sample() if draw == "sample" else q.rsample()
        assert not scored_by_passes(guide, q, z)  # values alone, as in evaluation
    parameters = list(guide.parameters())
    found = torch.autograd.grad(q.log_prob(z).sum(), parameters)
    expected = torch.autograd.grad(guide.posterior(x).log_prob(z.clone()).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    z.requires_grad_()
    (score,) = torch.autograd.grad(q.log_prob(z).sum(), z)
    assert score.isfinite().all()
    assert score.any()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_finite_differences(kind: str) -> None:
    q = flow(kind).posterior(doubles(1, 2))
    z = q.sample().requires_grad_()
    assert torch.autograd.gradcheck(q.log_prob, z)


@pytest.mark.parametrize("kind", KINDS)
def test_points_broadcast_against_the_data(kind: str) -> None:
    guide = flow(kind)
    x, points = doubles(4, 2), doubles(6, 1, SIZE)
    found = guide.posterior(x).log_prob(points)
    assert found.shape == (6, 4)
    for index in range(4):
        alone = guide.posterior(x[index : index + 1]).log_prob(points[:, 0])
        torch.testing.assert_close(found[:, index], alone)
    single = guide.posterior(x[0])
    assert (single.batch_shape, single.sample((3,)).shape) == ((), (3, SIZE))
    torch.testing.assert_close(single.log_prob(points[:, 0]), found[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_begins_near_the_identity(kind: str) -> None:
    network = ARCHITECTURES["moons"].encoder((2,))
    guide = FlowGuide(network, SIZE, kind=kind, context=CONTEXT)
    z, h = torch.randn(100, SIZE), torch.randn(100, CONTEXT)
    moved = z
    for one in guide.steps:
        moved, log_det = one(moved, h)
        assert log_det.abs().max() < 0.1
    assert (moved - z).abs().max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_wild_data_leave_everything_finite(kind: str) -> None:
    network = ARCHITECTURES["moons"].encoder((2,))
    guide = FlowGuide(network, SIZE, kind=kind, context=CONTEXT)
    wild(guide, size=0.4)
    x = torch.tensor([[1e6, -1e6], [0.0, 0.0]])
    q = guide.posterior(x)
    z = q.rsample()
    values = (z, z.detach().clone(), torch.full((SIZE,), 1e6), torch.zeros(SIZE))
    found = torch.stack([q.log_prob(value) for value in values])
    assert found.isfinite().all()
    found.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in guide.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind: str) -> None:
    network = ARCHITECTURES["moons"].encoder((2,))
    guide = FlowGuide(network, SIZE, kind=kind, context=CONTEXT)
    q = guide.posterior(torch.randn(8, 2))
    z = q.rsample()
    (q.log_prob(z) + z.square().sum(-1)).sum().backward()
    for name, parameter in guide.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_fits_the_exact_posterior_of_a_linear_gaussian_model(kind: str) -> None:
    exact = LinearGaussian()
    exact.model.eval().requires_grad_(False)
    x = exact.data(60)
    network = Batched(nn.Linear(DATA, 2 * LATENT + 2), in_shape=(DATA,), out_shape=(6,))
    guide = FlowGuide(network, latent_dim=LATENT, kind=kind, blocks=2, hidden=(8,)).double()
    objective = RegularizedELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    optim = FusedOptim({"lr": 0.03})
    svi = CapturedSVI(exact.model, guide, optim, objective)
    for _ in range(300):
        svi.step(x)
    weights = log_weights(exact.model, guide, x, num_samples=500)
    expected = exact.log_prob(x)
    assert float((expected - weights.mean(0)).mean()) == pytest.approx(0.0, abs=0.03)
    estimate = torch.logsumexp(weights, 0) - math.log(500)
    torch.testing.assert_close(estimate, expected, rtol=0, atol=0.1)
    assert float((estimate - expected).abs().mean()) < 0.01


def moons(kind: str, prior: str, *, objective: str = "elbo") -> System:
    pyro.set_rng_seed(0)
    options = {"hidden": [8], "blocks": 2} if prior == "coupling" else {}
    return build_system(
        (2,),
        latent_dim=2,
        dataset_size=100,
        prior={"name": prior, **options},
        likelihood={"name": "gaussian-learned"},
        network={"name": "moons"},
        guide={"name": "flow", "kind": kind, "blocks": 2, "hidden": [8], "context": 4},
        objective={"name": objective},
    )


@pytest.mark.parametrize("prior", ["standard", "coupling"])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_are_those_of_svi(kind: str, prior: str) -> None:
    losses, parameters = [], []
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(5, 16, 2, generator=generator)
    for make in (SVI, CapturedSVI):
        pyro.clear_param_store()
        system = moons(kind, prior)
        optim = FusedOptim({"lr": 1e-2})
        svi = make(system.model, system.guide, optim, system.objective)
        pyro.set_rng_seed(1)
        losses.append([svi.step(x) for x in data])
        parameters.append([p.detach() for p in system.guide.parameters()])
    assert svi.recordings == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for one, other in zip(*parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_draws_are_of_the_density_of_given_values(kind: str) -> None:
    system = moons(kind, "coupling")
    wild(system.guide, size=0.4)
    x = torch.randn(6, 2)
    pyro.set_rng_seed(2)
    found = log_weights(system.model, system.guide, x, num_samples=9)
    pyro.set_rng_seed(2)
    with torch.no_grad():
        q = system.guide.posterior(x)
        z = q.expand([9, 6]).sample()
        expected = (
            system.model.decoder(z).log_prob(x)
            + system.model.prior().log_prob(z)
            - system.guide.posterior(x).log_prob(z)
        )
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)


def test_under_autocast_draws_and_weights_stay_in_float32() -> None:
    system = moons("iaf", "standard")
    x = torch.randn(6, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = system.guide(x)
        weights = log_weights(system.model, system.guide, x, num_samples=5)
    assert z.dtype == torch.float32
    assert weights.isfinite().all()


def test_orders_and_halves_alternate() -> None:
    for one, other in pairwise(flow("iaf").steps):
        assert one.order == tuple(reversed(other.order))
    for one, other in pairwise(flow("coupling").steps):
        assert one.moved == other.kept


def test_parts_that_do_not_fit_are_refused() -> None:
    network = ARCHITECTURES["moons"].encoder((2,))
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        FlowGuide(network, 2, context=0)
    with pytest.raises(ValueError, match="at least 2 for couplings, got 1; use kind 'iaf'"):
        FlowGuide(network, 1, kind="coupling")
    with pytest.raises(ValueError, match="kind must be one of coupling, iaf; got 'maf'"):
        FlowGuide(network, 1, kind="maf")
    with pytest.raises(ValueError, match=r"no hidden layer.*set hidden"):
        FlowGuide(network, 1, hidden=())
    with pytest.raises(ValueError, match=r"masks must have the shapes \[\(3, 2\), \(1, 3\)\]"):
        ConditionedPerceptron([2, 3, 1], context=1, masks=[torch.ones(3, 2).bool()])


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_context_is_given_where_there_is_one_and_nowhere_else(direction: str) -> None:
    z, h = torch.zeros(5, 3), torch.zeros(5, 4)
    bare, fed = (AutoregressiveStep(3, context=size, hidden=(8,)) for size in (0, 4))
    with pytest.raises(ValueError, match="built with context=0 takes no context"):
        getattr(bare, direction)(z, h)
    with pytest.raises(ValueError, match="a context of size 4 needs it on every call, got none"):
        getattr(fed, direction)(z, None)
    with pytest.raises(ValueError, match="built with context=0 takes no context"):
        bare.network(z, torch.zeros(5, 8))


def test_a_run_from_the_command_line_opens_with_its_posterior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    options = ["--guide.kind", "coupling", "--guide.hidden", "[8]", "--guide.context", "3"]
    options += ["--backend", "eager"]
    data = ["--data", "two-moons", "--latent-dim", "2", "--batch-size", "20"]
    assert main(["train", *data, "--guide", "flow", *options, "--steps", "3", "--out", out]) == 0
    assert "held-out ELBO" in capsys.readouterr().out
    guide = open_run(out).system.guide
    assert isinstance(guide, FlowGuide)
    assert (guide.kind, guide.context) == ("coupling", 3)
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--guide", "flow", "--guide.kind", "coupling", "--help"])
    assert "inverse autoregressive" in capsys.readouterr().out
