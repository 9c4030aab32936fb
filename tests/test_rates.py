"""Rates, and the schedules of weights, against the papers' formulas."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from torch import Tensor

from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import (
    MMD,
    AbstractSchedule,
    BetaELBO,
    BetaRate,
    BetaTCELBO,
    CapacityELBO,
    CapacityRate,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    FactorELBO,
    FreeBitsRate,
    InfoELBO,
    LinearSchedule,
    RegularizedELBO,
    SiteRate,
    SoftFreeBitsRate,
    TotalCorrelation,
    Weight,
)
from pyro_dpvae.priors import CouplingPrior
from tests.linear_gaussian import LATENT, LinearGaussian


@pytest.fixture
def exact() -> LinearGaussian:
    return LinearGaussian()


def rates(*totals: float) -> list[SiteRate]:
    return [SiteRate("z", torch.tensor(totals), None)]


def divergences(exact: LinearGaussian, x: Tensor) -> Tensor:
    """KL of each datum and coordinate from N(0, I)."""
    q = exact.guide.encoder(x).base_dist
    return (0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()).detach()


# Rates.


def test_capacity_of_the_batch_mean_and_of_each_datum(exact: LinearGaussian) -> None:
    x = exact.data(9)
    kl = divergences(exact, x).sum(-1)
    for per_sample in (False, True):
        objective = CapacityELBO(7.0, 1.5, per_sample=per_sample)
        objective.loss(exact.model, exact.guide, x)
        distance = (kl - 1.5).abs().mean() if per_sample else (kl.mean() - 1.5).abs()
        expected = objective.terms["distortion"] + 7 * distance.detach()
        torch.testing.assert_close(objective.terms["loss"], expected)
        torch.testing.assert_close(objective.terms["rate"], kl.mean().detach())
    assert float(CapacityRate(10.0, 3.0)(rates(1.0, 5.0))) == 0.0
    assert float(CapacityRate(10.0, 3.0, per_sample=True)(rates(1.0, 5.0))) == 20.0


def test_capacity_averages_particles_before_the_distance(exact: LinearGaussian) -> None:
    # Under a coupling prior each particle has its own estimate of the rate.
    x = exact.data(6)
    model = VAE(CouplingPrior(LATENT).double(), exact.model.decoder)
    objective = CapacityELBO(1.0, 2.0, num_particles=5)
    objective.loss(model, exact.guide, x)
    terms = objective.terms
    expected = terms["distortion"] + (terms["rate"] - 2.0).abs()
    torch.testing.assert_close(terms["loss"], expected)


def test_free_bits_of_sites_and_of_groups() -> None:
    coordinates = torch.tensor([[0.1, 0.3, 2.0, 1.0], [0.3, 0.1, 0.0, 1.0]])
    one = SiteRate("z", coordinates.sum(-1), coordinates)
    assert float(FreeBitsRate(3.0)([one])) == pytest.approx(3.0)
    assert float(FreeBitsRate(1.0)([one])) == pytest.approx(2.4)
    assert float(FreeBitsRate(0.5, group_size=1)([one])) == pytest.approx(0.5 + 0.5 + 1.0 + 1.0)
    assert float(FreeBitsRate(0.5, group_size=2)([one])) == pytest.approx(0.5 + 2.0)
    assert float(FreeBitsRate(0.5, group_size=2)([one, one])) == pytest.approx(5.0)


def test_free_bits_stop_the_gradient_below_the_threshold() -> None:
    coordinates = torch.tensor([[0.1, 2.0]], requires_grad=True)
    FreeBitsRate(0.5, group_size=1)([SiteRate("z", coordinates.sum(-1), coordinates)]).backward()
    assert coordinates.grad is not None
    assert coordinates.grad.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("vectorize", [False, True])
def test_free_bits_of_an_objective(exact: LinearGaussian, particles: int, vectorize: bool) -> None:
    x = exact.data(9)
    kl = divergences(exact, x).mean(0)
    threshold = float(kl.mean())
    objective = RegularizedELBO(
        rate=FreeBitsRate(threshold, group_size=1),
        num_particles=particles,
        vectorize_particles=vectorize,
        max_plate_nesting=1,
    )
    objective.loss(exact.model, exact.guide, x)
    expected = objective.terms["distortion"] + kl.clamp(min=threshold).sum().detach()
    torch.testing.assert_close(objective.terms["loss"], expected)


def test_free_bits_of_groups_need_a_rate_that_splits(exact: LinearGaussian) -> None:
    x = exact.data(4)
    model = VAE(CouplingPrior(LATENT).double(), exact.model.decoder)
    RegularizedELBO(rate=FreeBitsRate(0.5)).loss(model, exact.guide, x)
    with pytest.raises(
        ValueError, match=r"the rate of 'z' does not split.* FreeBitsRate\(..., group_size"
    ):
        RegularizedELBO(rate=FreeBitsRate(0.5, group_size=1)).loss(model, exact.guide, x)
    with pytest.raises(ValueError, match="group_size must divide the 2 coordinates of 'z', got 3"):
        RegularizedELBO(rate=FreeBitsRate(0.5, group_size=3)).loss(exact.model, exact.guide, x)
    with pytest.raises(ValueError, match="group_size must be"):
        FreeBitsRate(0.5, group_size=0)


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal])
def test_free_bits_of_an_autoguide_are_of_the_latents_of_the_model(guide: Any) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand((2,)).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.randn(7, 2)
    posterior = guide(model, init_scale=0.5)
    posterior(x)  # which makes its parts
    plain, free = RegularizedELBO(), RegularizedELBO(rate=FreeBitsRate(50.0))
    pyro.set_rng_seed(1)
    plain.loss(model, posterior, x)
    assert 0 < float(plain.terms["rate"]) < 50
    pyro.set_rng_seed(1)
    free.loss(model, posterior, x)
    # One group, of one threshold, whatever sites the guide has.
    torch.testing.assert_close(free.terms["rate"], plain.terms["rate"])
    torch.testing.assert_close(free.terms["loss"], plain.terms["distortion"] + 50.0)


def test_latents_that_an_autoguide_computes_together_are_one_group_of_free_bits() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = [pyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("one", "two")]
            pyro.sample("x", dist.Normal(sum(z), 1.0), obs=x)

    x = torch.randn(7)
    for guide, groups in ((AutoDiagonalNormal, 1), (AutoNormal, 2)):
        objective = RegularizedELBO(rate=FreeBitsRate(50.0))
        objective.loss(model, guide(model, init_scale=0.5), x)
        loss = objective.terms["distortion"] + 50.0 * groups
        torch.testing.assert_close(objective.terms["loss"], loss)


def test_deterministic_sites_of_a_guide_have_no_free_bits(exact: LinearGaussian) -> None:
    def guide(x: Tensor) -> None:
        z = exact.guide(x)
        pyro.deterministic("length", z.square().sum())

    x = exact.data(9)
    objective = RegularizedELBO(rate=FreeBitsRate(50.0))
    with pytest.warns(UserWarning, match="Found non-auxiliary vars in guide"):  # by Pyro
        objective.loss(exact.model, guide, x)
    torch.testing.assert_close(objective.terms["loss"], objective.terms["distortion"] + 50.0)


def test_soft_free_bits_steer_towards_the_target() -> None:
    rate = SoftFreeBitsRate(10.0, tolerance=0.1)
    low = [SiteRate("z", torch.tensor([5.0], requires_grad=True), None)]
    assert float(rate(low).detach()) == 5.0
    assert float(rate(low).detach()) == pytest.approx(0.9 * 5)
    for _ in range(2000):
        rate(low)
    assert float(rate.gamma) == pytest.approx(1e-4)
    within = [SiteRate("z", torch.tensor([10.5]), None)]
    before = float(rate.gamma)
    rate(within)
    assert float(rate.gamma) == before
    for _ in range(110):
        rate(rates(11.5))
    assert float(rate.gamma) == 1.0
    with torch.no_grad():
        rate(low)
    assert float(rate.gamma) == 1.0
    with pytest.raises(ValueError, match="tolerance must be"):
        SoftFreeBitsRate(10.0, tolerance=0.0)


def test_soft_free_bits_are_part_of_the_state(exact: LinearGaussian) -> None:
    x = exact.data(4)
    objective = RegularizedELBO(rate=SoftFreeBitsRate(100.0))
    for _ in range(3):
        objective.loss_and_grads(exact.model, exact.guide, x)
    other = RegularizedELBO(rate=SoftFreeBitsRate(100.0))
    other.load_state_dict(objective.state_dict())
    assert isinstance(other.rate, SoftFreeBitsRate)
    assert float(other.rate.gamma) == pytest.approx(0.9**3)
    assert other.step == 3


# Schedules.


def test_schedules_between_and_beyond() -> None:
    assert [LinearSchedule(2.0, 4.0, 4)(step) for step in (0, 1, 4, 99)] == [2.0, 2.5, 4.0, 4.0]
    cosine = [CosineSchedule(0.0, 1.0, 4)(step) for step in range(5)]
    assert cosine == pytest.approx([(1 - math.cos(math.pi * k / 4)) / 2 for k in range(5)])
    assert [ExponentialSchedule(1.0, 16.0, 4)(step) for step in range(5)] == pytest.approx(
        [1.0, 2.0, 4.0, 8.0, 16.0]
    )
    cyclic = CyclicSchedule(0.0, 1.0, 20, cycles=2, ramp=0.4)
    assert [cyclic(step) for step in (0, 2, 4, 9, 10, 12, 19, 20)] == pytest.approx(
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]
    )


def test_bad_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be"):
        LinearSchedule(0.0, 1.0, 0)
    with pytest.raises(ValueError, match="end must be finite, got inf"):
        CosineSchedule(0.0, math.inf, 5)
    with pytest.raises(ValueError, match=r"positive weights, got 0.0 and 1.0; .* or use Linear"):
        ExponentialSchedule(0.0, 1.0, 5)
    with pytest.raises(ValueError, match=r"ramp must be a fraction of a cycle, .*, got 0"):
        CyclicSchedule(0.0, 1.0, 5, ramp=0)
    with pytest.raises(ValueError, match="cycles must be"):
        CyclicSchedule(0.0, 1.0, 5, cycles=0)
    with pytest.raises(TypeError):
        AbstractSchedule(0.0, 1.0, 5)  # type: ignore[abstract]


def test_a_weight_follows_its_schedule_on_training_steps_alone(exact: LinearGaussian) -> None:
    x = exact.data(5)
    objective = BetaELBO(LinearSchedule(0.0, 4.0, 4))
    charged = []
    for _ in range(6):
        objective.loss_and_grads(exact.model, exact.guide, x)
        terms = objective.terms
        charged.append(float((terms["loss"] - terms["distortion"]) / terms["rate"]))
        objective.loss(exact.model, exact.guide, x)
        objective.loss(exact.model, exact.guide, x)
        terms = objective.terms
        held = float((terms["loss"] - terms["distortion"]) / terms["rate"])
        assert held == pytest.approx(charged[-1])
    assert charged == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 4.0])
    assert objective.step == 6


@pytest.mark.parametrize("objective", [BetaELBO, lambda w: RegularizedELBO(rate=FreeBitsRate(w))])
def test_gradients_accumulate_over_steps_of_a_schedule(
    exact: LinearGaussian, objective: Callable[[Weight], RegularizedELBO]
) -> None:
    x = exact.data(5)
    scheduled = objective(LinearSchedule(0.5, 2.5, 2))
    torch.manual_seed(0)
    losses = [scheduled.differentiable_loss(exact.model, exact.guide, x) for _ in range(3)]
    sum(losses).backward()
    parameters = list(exact.guide.parameters())
    found = [parameter.grad for parameter in parameters]
    torch.manual_seed(0)
    constants = [
        objective(beta).differentiable_loss(exact.model, exact.guide, x)
        for beta in (0.5, 1.5, 2.5)
    ]
    for gradient, expected in zip(
        found, torch.autograd.grad(sum(constants), parameters), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    "objective",
    [
        BetaTCELBO(LinearSchedule(1.0, 6.0, 10), dataset_size=10),
        InfoELBO(0.0, LinearSchedule(1.0, 6.0, 10)),
        CapacityELBO(),
    ],
    ids=["beta-tc", "info", "capacity"],
)
def test_objectives_with_schedules_are_copied_and_pickled(objective: RegularizedELBO) -> None:
    again = pickle.loads(pickle.dumps(copy.deepcopy(objective)))
    assert again.settings == objective.settings


def test_a_refused_step_is_no_step(exact: LinearGaussian) -> None:
    objective = FactorELBO(1.0, latent_dim=LATENT, hidden=(4,))
    with pytest.raises(ValueError, match="must be at least 4, got 3"):
        objective.loss_and_grads(exact.model, exact.guide, exact.data(3))
    assert objective.step == 0


def test_what_is_no_rate_or_penalty_is_refused() -> None:
    make = inspect.unwrap(RegularizedELBO.__init__)  # without the type checks of the tests
    objective = RegularizedELBO()
    with pytest.raises(TypeError, match=r"rate must be a rate, such as BetaRate\(4.0\), got 4.0"):
        make(objective, rate=4.0)
    with pytest.raises(TypeError, match=r"penalties must be a list of penalties, got MMD\("):
        make(objective, penalties=MMD(1.0))
    with pytest.raises(TypeError, match=r"such as MMD\(100.0\), got BetaRate\("):
        make(objective, penalties=[BetaRate(1.0)])


def test_any_function_of_the_step_is_a_weight(exact: LinearGaussian) -> None:
    x = exact.data(5)
    objective = BetaELBO(lambda step: 2.0**step)
    charged = []
    for _ in range(3):
        objective.loss_and_grads(exact.model, exact.guide, x)
        terms = objective.terms
        charged.append(float((terms["loss"] - terms["distortion"]) / terms["rate"]))
    assert charged == pytest.approx([1.0, 2.0, 4.0])
    assert objective.unfinished(10) == {}
    bad = BetaELBO(lambda step: 1.0 - step)
    bad.loss_and_grads(exact.model, exact.guide, x)
    bad.loss_and_grads(exact.model, exact.guide, x)
    with pytest.raises(ValueError, match=r"beta must be 0 or more, got -1\.0 at step 2"):
        bad.loss_and_grads(exact.model, exact.guide, x)
    with pytest.raises(ValueError, match="beta must be finite, got nan"):
        BetaELBO(math.nan)


def test_every_weight_takes_a_schedule(exact: LinearGaussian) -> None:
    # The weight at step k is the number that it would be then.
    x = exact.data(8)
    ramp = LinearSchedule(1.0, 3.0, 2)
    pairs = [
        (lambda w: RegularizedELBO(rate=CapacityRate(w, 1.0)), "gamma"),
        (lambda w: RegularizedELBO(rate=CapacityRate(2.0, w)), "capacity"),
        (lambda w: RegularizedELBO(rate=FreeBitsRate(w, group_size=1)), "threshold"),
        (lambda w: BetaTCELBO(6.0, dataset_size=100, gamma=w), "gamma of beta-TC"),
        (lambda w: BetaTCELBO(w, dataset_size=100), "beta of beta-TC"),
        (lambda w: InfoELBO(0.5, w), "lambda"),
        (lambda w: InfoELBO(combine(w), 10.0), "alpha"),
    ]
    for build, name in pairs:
        scheduled = build(ramp)
        for step in range(4):
            torch.manual_seed(step)
            scheduled.loss_and_grads(exact.model, exact.guide, x)
            constant = build(float(ramp(step)))
            torch.manual_seed(step)
            constant.loss(exact.model, exact.guide, x)
            torch.testing.assert_close(
                scheduled.terms["loss"], constant.terms["loss"], msg=f"{name} at step {step}"
            )


def combine(weight: float | LinearSchedule) -> float | LinearSchedule:
    """A third of it, for weights that may not exceed 1."""
    if isinstance(weight, LinearSchedule):
        return LinearSchedule(weight.start / 3, weight.end / 3, weight.steps)
    return weight / 3


def test_schedules_that_outlast_a_run_are_named() -> None:
    objective = RegularizedELBO(
        rate=BetaRate(LinearSchedule(0.0, 1.0, 50)),
        penalties=[TotalCorrelation(CyclicSchedule(0.0, 6.0, 500), dataset_size=100)],
    )
    assert objective.unfinished(100) == {"penalties.0.total_correlation": 500}
    assert objective.unfinished(10) == {
        "rate.beta": 50,
        "penalties.0.total_correlation": 500,
    }
    assert BetaTCELBO(LinearSchedule(1.0, 6.0, 30), dataset_size=9).unfinished(20) == {
        "penalties.0.total_correlation": 30
    }


def test_settings_are_the_record() -> None:
    assert FactorELBO(LinearSchedule(0.0, 10.0, 5), latent_dim=2, hidden=(4,)).settings == {
        "name": "FactorELBO",
        "rate": {"name": "BetaRate", "beta": 1.0},
        "penalties": [
            {
                "name": "AdversarialTotalCorrelation",
                "adversarial_total_correlation": "LinearSchedule(0, 10, 5)",
                "hidden": [4],
                "learning_rate": 1e-4,
            }
        ],
        "num_particles": 1,
    }


def test_a_restored_schedule_goes_on_where_it_was(exact: LinearGaussian) -> None:
    x = exact.data(5)
    first = BetaELBO(LinearSchedule(0.0, 10.0, 10))
    for _ in range(4):
        first.loss_and_grads(exact.model, exact.guide, x)
    second = BetaELBO(LinearSchedule(0.0, 10.0, 10))
    second.load_state_dict(first.state_dict())
    for objective in (first, second):
        torch.manual_seed(0)
        objective.loss(exact.model, exact.guide, x)
    assert float(first.terms["loss"]) == float(second.terms["loss"])
    for objective in (first, second):
        torch.manual_seed(0)
        objective.loss_and_grads(exact.model, exact.guide, x)
    assert float(first.terms["loss"]) == float(second.terms["loss"])
