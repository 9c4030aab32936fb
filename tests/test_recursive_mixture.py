"""The recursive mixture: its density, how it grows, and that growing closes in on a posterior."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, load
from pyro_dpvae.encoders import GaussianEncoder, WeightedGaussianEncoder
from pyro_dpvae.guides import AmortizedGaussian, RecursiveMixtureGuide
from pyro_dpvae.guides._fitting import check_passes, gain, skewed_log_ratio
from pyro_dpvae.guides._fitting import log_joint as joint_of_data
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.objectives import FreeBitsRate, RegularizedELBO
from pyro_dpvae.recipes import System, build_system, open_run
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, check_batch, fit
from tests import bimodal


def constant(*values: float) -> WeightedGaussianEncoder:
    """A component that is the same for every datum of two numbers."""
    encoder = WeightedGaussianEncoder(nn.Identity(), len(values) // 2, in_shape=(2,))
    layer = encoder.network.body[-1]
    layer.weight.data.zero_()
    layer.bias.data.copy_(torch.tensor(values))
    return encoder


def moons(*, components: int = 2, recursive: bool = True) -> tuple[System, Batches]:
    data = load("two-moons")
    system = build_system(
        data.item_shape,
        latent_dim=2,
        dataset_size=1000,
        prior={"name": "coupling", "blocks": 2},
        likelihood={"name": "gaussian", "variance": 0.1},
        network={"name": "mlp", "hidden": [8]},
        guide={"name": "recursive-mixture", "components": components, "recursive": recursive},
        objective={"name": "elbo"},
    )
    return system, Batches(data.train, batch_size=50, preprocessing="none")


def weights(module: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in module.state_dict().values()]


def test_the_density_is_that_of_a_mixture_whose_weights_sum_to_one() -> None:
    guide, x = bimodal.mixture(3, active=3), torch.randn(5, 2)
    q = guide.posterior(x)
    outputs = torch.stack([component.network(x) for component in guide.components], 1)
    loc, scale, logits = outputs[..., :2], (outputs[..., 2:4] / 2).exp(), outputs[..., 4]
    expected = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1),
    )
    z = torch.randn(7, 5, 2)
    torch.testing.assert_close(q.log_prob(z), expected.log_prob(z))
    torch.testing.assert_close(q.mean, expected.mean)
    torch.testing.assert_close(q.logits.exp().sum(-1), torch.ones(5))


def test_one_component_is_the_amortized_gaussian() -> None:
    guide = bimodal.mixture(3)
    component = guide.components[0]
    *trunk, head = copy.deepcopy(component.network.body)
    encoder = GaussianEncoder(nn.Sequential(*trunk), 2, in_shape=(2,))
    encoder.network.body[-1].weight.data = head.weight.data[:4]
    encoder.network.body[-1].bias.data = head.bias.data[:4]
    amortized = AmortizedGaussian(encoder)
    x, z = torch.randn(5, 2), torch.randn(5, 2)
    found, expected = guide.posterior(x), amortized.posterior(x)
    torch.testing.assert_close(found.log_prob(z), expected.log_prob(z))
    torch.testing.assert_close(found.entropy(), expected.entropy())


def test_equal_components_are_one_normal() -> None:
    values = (0.3, -1.0, 0.4, -0.2)
    guide = RecursiveMixtureGuide([constant(*values, weight) for weight in (0.0, 2.0)], active=2)
    z = torch.randn(6, 2)
    one = dist.Normal(torch.tensor(values[:2]), (torch.tensor(values[2:]) / 2).exp()).to_event(1)
    torch.testing.assert_close(guide.posterior(torch.zeros(6, 2)).log_prob(z), one.log_prob(z))


GRID = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)


def integral(values: Tensor) -> Tensor:
    return torch.trapezoid(values, GRID)


def one_dimensional(x: Tensor) -> None:
    """z ~ N(0, 1), x ~ N(|z|, 0.5^2), of which the first of two numbers is seen."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.abs(), 0.5).to_event(1), obs=x[:, :1])


def log_joint(z: Tensor, seen: float) -> Tensor:
    likelihood = torch.distributions.Normal(z.abs(), 0.5).log_prob(torch.tensor(seen))
    return torch.distributions.Normal(0.0, 1.0).log_prob(z) + likelihood


def normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(GRID)


def growth_gradient(*, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of what a component climbs to its outputs; log Q on a grid; the outputs."""
    pyro.set_rng_seed(1)
    new, old = constant(-0.4, -0.5, -0.6), constant(0.9, -1.4, 0.0)
    x = torch.tensor([[1.0, 0.0]]).expand(400_000, 2)
    total = gain(new, old, one_dimensional, x, bound=bound).mean()
    bias = new.network.body[-1].bias
    (gradient,) = torch.autograd.grad(total, bias)
    log_old = normal(torch.tensor(0.9).double(), torch.tensor(-1.4).double())
    return gradient.double(), log_old, bias.detach().double()


def test_a_component_climbs_where_a_share_of_it_brings_the_mixture_nearest() -> None:
    gradient, log_old, outputs = growth_gradient(bound=40.0)
    outputs.requires_grad_()
    log_new, joint = normal(outputs[0], outputs[1]), log_joint(GRID, 1.0)

    share = torch.zeros((), dtype=torch.float64, requires_grad=True)
    mixed = (1 - share) * log_old.exp() + share * log_new.exp()
    divergence = integral(mixed * (mixed.log() - joint))  # KL(Q' || p(z | x)) - log p(x)
    (slope,) = torch.autograd.grad(divergence, share, create_graph=True)
    (expected,) = torch.autograd.grad(-slope, outputs)
    torch.testing.assert_close(gradient[:2], expected[:2], atol=0.03, rtol=0)


def test_the_weight_follows_the_natural_gradient_of_the_grown_bound() -> None:
    gradient, log_old, outputs = growth_gradient(bound=40.0)
    log_new, joint = normal(outputs[0], outputs[1]), log_joint(GRID, 1.0)
    weight = outputs[2].sigmoid().requires_grad_()
    mixed = (1 - weight) * log_old.exp() + weight * log_new.exp()
    (expected,) = torch.autograd.grad(integral(mixed * (joint - mixed.log())), weight)
    torch.testing.assert_close(gradient[2], expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0, 6.0])
def test_the_divergence_is_a_skewed_one_between_zero_and_its_bound(apart: float) -> None:
    zero = torch.tensor(0.0, dtype=torch.float64)
    log_new, log_old = normal(zero, zero), normal(zero + apart, zero)
    share = math.exp(-2.0)
    mixed = (1 - share) * log_old.exp() + share * log_new.exp()
    found = integral(log_new.exp() * skewed_log_ratio(log_new, log_old, 2.0))
    torch.testing.assert_close(found, integral(log_new.exp() * (log_new - mixed.log())))
    assert -1e-9 <= float(found) <= 2.0


def test_nothing_pushes_a_component_that_is_beyond_the_bound() -> None:
    log_new = torch.tensor([-1.0, -1.0], requires_grad=True)
    log_old = torch.tensor([-60.0, -1.2], requires_grad=True)
    skewed_log_ratio(log_new, log_old, 5.0).sum().backward()
    assert abs(float(log_new.grad[0])) < 1e-20
    assert abs(float(log_old.grad[0])) < 1e-20
    assert float(log_old.grad[1]) < -0.9


def batches(count: int) -> list[Tensor]:
    return [bimodal.data(64) for _ in range(count)]


def test_two_components_close_in_on_a_posterior_with_two_modes() -> None:
    pyro.set_rng_seed(0)
    guide, held_out = bimodal.mixture(3), bimodal.data(40)
    svi = CapturedSVI(
        bimodal.model, guide, FusedOptim({"lr": 5e-3}), RegularizedELBO(), backend="fx"
    )
    found = []
    for components in (1, 2):
        if components == 2:
            guide.grow(bimodal.model, batches(50), steps=200, learning_rate=5e-3, progress=False)
            found.append(bimodal.divergence(guide, held_out))
        for x in batches(250):
            svi.step(x)
        found.append(bimodal.divergence(guide, held_out))
    one, grown, two = found
    assert svi.recordings == 2  # one for each number of components
    assert one > 0.35  # a normal loses at least log 2 where the modes are apart
    assert grown < 0.6 * one
    assert two < 0.08


@pytest.mark.parametrize("optimizer", [FusedOptim, pyro.optim.Adam])
def test_optimizers_pick_up_a_component_when_it_has_come_in(optimizer: type) -> None:
    pyro.set_rng_seed(0)
    guide, x = bimodal.mixture(3), bimodal.data(64)
    svi = SVI(bimodal.model, guide, optimizer({"lr": 1e-3}), RegularizedELBO())
    svi.step(x)
    guide.grow(bimodal.model, [x], steps=1, progress=False)
    before = [weights(component) for component in guide.components]
    svi.step(x)
    moved = [
        any(not torch.equal(a, b) for a, b in zip(old, weights(component), strict=True))
        for old, component in zip(before, guide.components, strict=True)
    ]
    assert moved == [True, True, False]


def test_growing_moves_the_new_component_alone() -> None:
    pyro.set_rng_seed(0)
    system, train = moons(components=3)
    for component in system.guide.components:
        component.network.body[0].insert(1, nn.BatchNorm1d(2))
    system.model.decoder.network.body.insert(0, nn.BatchNorm1d(2))
    system.guide.components[0].eval()
    before = [weights(module) for module in (system.model, *system.guide.components)]
    modes = [m.training for m in (*system.model.modules(), *system.guide.modules())]
    system.guide.grow(system.model, train.epoch, steps=3, progress=False)
    after = [weights(module) for module in (system.model, *system.guide.components)]
    same = [all(map(torch.equal, a, b)) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, False, True]
    assert modes == [m.training for m in (*system.model.modules(), *system.guide.modules())]
    parameters = [*system.model.parameters(), *system.guide.parameters()]
    assert all(p.requires_grad and p.grad is None for p in parameters)
    # As training does, its normalisation counts the batches.
    counts = [c.network.body[0][1].num_batches_tracked for c in system.guide.components]
    assert list(map(int, counts)) == [0, 3, 0]


def interrupted(number: int) -> Iterator[Tensor]:
    yield from batches(2)
    raise KeyboardInterrupt


def test_an_interrupt_leaves_the_guide_as_it_was() -> None:
    guide = bimodal.mixture(2)
    before = weights(guide)
    with pytest.raises(KeyboardInterrupt):
        guide.grow(bimodal.model, interrupted, steps=5, progress=False)
    assert all(map(torch.equal, before, weights(guide)))
    assert guide.active == 1
    assert all(p.grad is None for p in guide.parameters())


def test_how_many_are_active_is_saved_and_copied(tmp_path: Path) -> None:
    guide, twin = bimodal.mixture(3, active=2), bimodal.mixture(3)
    run = RunFolder.create(tmp_path / "run", {})
    run.save({"guide": guide}, {"step": 1})
    run.checkpoint().load({"guide": twin})
    x, z = torch.randn(4, 2), torch.randn(4, 2)
    for one in (twin, copy.deepcopy(guide)):
        assert one.active == 2
        assert torch.equal(one.posterior(x).log_prob(z), guide.posterior(x).log_prob(z))
    state = {**guide.state_dict(), "_extra_state": torch.tensor(4)}
    with pytest.raises(ValueError, match="between 1 and the 3 components, got 4"):
        twin.load_state_dict(state)


def test_mixtures_that_make_no_sense_are_refused() -> None:
    one = constant(0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least one encoder"):
        RecursiveMixtureGuide([])
    with pytest.raises(ValueError, match=r"agree on latent_dim, got \[1, 2\]"):
        RecursiveMixtureGuide([one, constant(0.0, 0.0, 0.0, 0.0, 0.0)])
    with pytest.raises(ValueError, match="share parameters"):
        RecursiveMixtureGuide([one, one])
    with pytest.raises(ValueError, match="between 1 and the 1 components, got 0"):
        RecursiveMixtureGuide([one], active=0)


def test_growth_that_makes_no_sense_is_refused() -> None:
    def two_sites(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("other", dist.Normal(0.0, 1.0))
            bimodal.decode(pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1)))

    def no_plate(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=x)

    guide, given = bimodal.mixture(2), batches(1)
    with pytest.raises(ValueError, match="none in epoch 0"):
        guide.grow(bimodal.model, [], progress=False)
    with pytest.raises(ValueError, match="none in epoch 1; pass a list"):
        guide.grow(bimodal.model, lambda number: [] if number else given, steps=2, progress=False)
    with pytest.raises(ValueError, match="bound must be positive"):
        guide.grow(bimodal.model, given, bound=0.0, progress=False)
    with pytest.raises(ValueError, match="'other'"):
        guide.grow(two_sites, given, progress=False)
    with pytest.raises(ValueError, match=r"inside pyro.plate\('data'"):
        guide.grow(no_plate, given, progress=False)
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="must stay finite"):
        guide.grow(bimodal.model, given, steps=3, learning_rate=1e20, progress=False)
    assert all(p.isfinite().all() for p in guide.parameters())
    assert guide.active == 1
    with pytest.raises(ValueError, match="all 2 active; build the guide with more encoders"):
        bimodal.mixture(2, active=2).grow(bimodal.model, given)


def test_growth_takes_the_joint_of_a_datum_whatever_the_plate_stands_for() -> None:
    x, z = torch.randn(5, 2), torch.randn(5, 2)

    def model(x: Tensor, *, size: int) -> None:
        with pyro.plate("data", size, subsample=torch.arange(5)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    expected = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(z, 0.5).log_prob(x).sum(-1)
    for size in (5, 1000):
        found = joint_of_data(lambda x, size=size: model(x, size=size), x, z)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("batches", "got"),
    [
        (torch.zeros(4, 2), "got Tensor"),
        (iter([torch.zeros(4, 2)]), "got list_iterator"),
        (Batches(torch.zeros(4, 2), batch_size=2, preprocessing="none"), "got Batches"),
    ],
)
def test_batches_of_one_pass_are_refused(batches: object, got: str) -> None:
    with pytest.raises(TypeError, match=got):
        check_passes(batches)


def test_no_more_components_can_be_active_than_there_are() -> None:
    system, _ = moons()
    with pytest.raises(ValueError, match="active must be between 1 and the 2 components, got 3"):
        system.guide.active = 3


def test_what_the_grown_guide_cannot_do_is_refused_before_training() -> None:
    system, data = moons()
    objective = RegularizedELBO(rate=FreeBitsRate(0.1, group_size=1))
    with pytest.raises(ValueError, match="does not split into coordinates, as free bits"):
        check_batch(system.model, system.guide, objective, next(data.epoch(0)))
    assert system.guide.active == 1


def test_fit_grows_the_guide_in_equal_shares() -> None:
    system, train = moons(components=3)
    arguments = {"objective": system.objective, "train": train, "test": train, "progress": False}
    config = TrainConfig(steps=30, growth_steps=2, backend="eager")
    history = fit(system.model, system.guide, config=config, **arguments)  # type: ignore[arg-type]
    grown = [(r["step"], r["components"]) for r in history.records if "components" in r]
    assert grown == [(10, 2), (20, 3)]
    # Of a guide that has grown there is nothing to grow.
    history = fit(system.model, system.guide, config=config, **arguments)  # type: ignore[arg-type]
    assert not any("components" in record for record in history.records)
    system, _ = moons(components=3)
    with pytest.raises(ValueError, match="got 2 steps for 3 numbers"):
        fit(system.model, system.guide, config=TrainConfig(steps=2), **arguments)  # type: ignore[arg-type]


def test_fit_ends_early_where_growth_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    system, train = moons()

    def grow(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(system.guide, "grow", grow)
    history = fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=train,
        test=train,
        config=TrainConfig(steps=4, backend="eager"),
        progress=False,
    )
    assert history.interrupted
    assert history.records[-1]["step"] == 2


def test_a_run_from_the_command_line_opens_with_all_components(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    options = ["--guide", "recursive-mixture", "--guide.components", "3", "--growth-steps", "2"]
    sizes = ["--steps", "4", "--latent-dim", "2", "--backend", "eager", "--out", out]
    assert main(["train", "--data", "two-moons", *options, *sizes]) == 0
    assert open_run(out).system.guide.active == 3
    assert moons(components=3, recursive=False)[0].guide.active == 3
