"""Every objective, on every kind of prior, posterior and model, with SVI and without."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import Tensor

from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import (
    DIPELBO,
    MMD,
    AbstractPenalty,
    BetaELBO,
    BetaRate,
    BetaTCELBO,
    CapacityELBO,
    CapacityRate,
    FactorELBO,
    FreeBitsRate,
    InfoELBO,
    Latents,
    LinearSchedule,
    MutualDivergence,
    MutualDivergenceELBO,
    RegularizedELBO,
    SoftFreeBitsRate,
    SteinDiscrepancy,
    TotalCorrelation,
)
from pyro_dpvae.priors import CouplingPrior, StandardNormal
from tests.linear_gaussian import LATENT, LinearGaussian

BATCH, COUNT = 8, 100


def in_double(objective: RegularizedELBO) -> RegularizedELBO:
    for penalty in objective.penalties:
        penalty.double()
    return objective


def factor(latent_dim: int = LATENT, **options: Any) -> RegularizedELBO:
    return in_double(FactorELBO(5.0, latent_dim=latent_dim, hidden=(16,), **options))


def adversarial(latent_dim: int = LATENT, **options: Any) -> RegularizedELBO:
    divergence = {"divergence": "adversarial", "latent_dim": latent_dim}
    return in_double(InfoELBO(0.2, 20.0, **divergence, **options))


def several(**options: Any) -> RegularizedELBO:
    penalties = [TotalCorrelation(6, dataset_size=COUNT), MMD(100.0), MutualDivergence(1, 1)]
    return RegularizedELBO(rate=BetaRate(4), penalties=penalties, **options)


def capacity_and_penalties(**options: Any) -> RegularizedELBO:
    penalties = [MMD(10.0, kernel="imq"), SteinDiscrepancy(5.0)]
    return RegularizedELBO(rate=CapacityRate(10.0, 1.0), penalties=penalties, **options)


beta_tc = partial(BetaTCELBO, 6.0, dataset_size=COUNT)
info = partial(InfoELBO, 0.2, 20.0)

OBJECTIVES: dict[str, Callable[..., RegularizedELBO]] = {
    "elbo": RegularizedELBO,
    "beta": partial(BetaELBO, 3.0),
    "capacity": partial(CapacityELBO, 10.0, 1.0),
    "capacity-per-sample": partial(CapacityELBO, 10.0, 1.0, per_sample=True),
    "free-bits": lambda **options: RegularizedELBO(rate=FreeBitsRate(0.3), **options),
    "soft-free-bits": lambda **options: RegularizedELBO(rate=SoftFreeBitsRate(1.0), **options),
    "beta-tc": partial(beta_tc, alpha=0.5, gamma=2.0),
    "beta-tc-weighted": partial(beta_tc, estimator="weighted"),
    "beta-tc-in-batch": partial(beta_tc, estimator="in-batch"),
    "factor": factor,
    "info": info,
    "info-imq": partial(info, kernel="imq"),
    "info-authors": partial(info, kernel="authors"),
    "info-stein": partial(info, divergence="stein"),
    "info-adversarial": adversarial,
    "mae": partial(MutualDivergenceELBO, 2.0, 0.5),
    "mae-code": partial(MutualDivergenceELBO, 2.0, 0.5, form="code"),
    "dip-1": partial(DIPELBO, 2.0, 3.0),
    "dip-2": partial(DIPELBO, 2.0, 3.0, form="II"),
    "several": several,
    "capacity-and-penalties": capacity_and_penalties,
}


@pytest.fixture
def exact() -> LinearGaussian:
    return LinearGaussian()


def model_of(exact: LinearGaussian, prior: str) -> VAE:
    chosen = CouplingPrior(LATENT) if prior == "coupling" else StandardNormal(LATENT)
    return VAE(chosen.double(), exact.model.decoder)


@pytest.mark.parametrize("prior", ["standard", "coupling"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_agree_with_finite_differences(
    exact: LinearGaussian, name: str, prior: str
) -> None:
    model, x = model_of(exact, prior), exact.data(BATCH)
    with torch.no_grad():  # away from the exact posterior, where slopes vanish
        for parameter in exact.guide.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    objective = OBJECTIVES[name]()
    parameters = [*model.parameters(), *exact.guide.parameters()]
    directions = [torch.randn_like(parameter) for parameter in parameters]

    def loss_at(distance: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += distance * direction
            pyro.set_rng_seed(3)
            value = float(objective.differentiable_loss(model, exact.guide, x))
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= distance * direction
        return value

    step = 1e-6
    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    pyro.set_rng_seed(3)
    objective.loss_and_grads(model, exact.guide, x)
    along = sum(
        float((parameter.grad * direction).sum())
        for parameter, direction in zip(parameters, directions, strict=True)
    )
    assert along == pytest.approx(slope, rel=1e-5, abs=1e-5)
    assert slope != 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_svi_and_a_torch_optimizer_take_the_same_steps(exact: LinearGaussian, name: str) -> None:
    batches = [exact.data(BATCH) for _ in range(3)]
    model, guide = model_of(exact, "coupling"), exact.guide
    twin_model, twin_guide = copy.deepcopy((model, guide))
    torch.manual_seed(1)
    objective = OBJECTIVES[name]()
    torch.manual_seed(1)
    twin = OBJECTIVES[name]()

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=objective)
    losses = []
    for seed, x in enumerate(batches):
        pyro.set_rng_seed(seed)
        losses.append(svi.step(x))
    pyro.clear_param_store()

    module = twin(twin_model, twin_guide)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for seed, x in enumerate(batches):
        pyro.set_rng_seed(seed)
        loss = module(x)
        assert float(loss.detach()) == pytest.approx(losses[seed])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pairs = zip(
        [*model.parameters(), *guide.parameters()],
        [*twin_model.parameters(), *twin_guide.parameters()],
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
    state = twin.state_dict()
    for key, tensor in objective.state_dict().items():
        torch.testing.assert_close(tensor, state[key])
    for penalty in twin.penalties:
        owned = {id(parameter) for parameter in penalty.parameters()}
        assert not owned & {id(parameter) for parameter in module.parameters()}


# Other posteriors, and models of several sites.


def full_covariance_guide(x: Tensor) -> None:
    mean = x[:, :LATENT]
    factor = torch.tensor([[0.5, 0.0], [0.3, 0.4]], dtype=torch.float64)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=factor.expand(len(x), 2, 2)))


def mixture_guide(x: Tensor) -> None:
    means = torch.stack([x[:, :LATENT], -x[:, :LATENT]], 1)
    with pyro.plate("data", len(x)):
        pyro.sample(
            "z",
            dist.MixtureOfDiagNormals(means, torch.full_like(means, 0.5), torch.zeros(len(x), 2)),
        )


class FlowGuide:
    def __init__(self) -> None:
        self.flow = CouplingPrior(LATENT, blocks=2).double()

    def __call__(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.flow())


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("posterior", ["full", "mixture", "flow"])
def test_other_posteriors(exact: LinearGaussian, name: str, posterior: str) -> None:
    guides: dict[str, Callable[[Tensor], None]] = {
        "full": full_covariance_guide,
        "mixture": mixture_guide,
        "flow": FlowGuide(),
    }
    model, x = model_of(exact, "coupling"), exact.data(BATCH)
    objective = OBJECTIVES[name]()
    objective.loss_and_grads(model, guides[posterior], x)
    assert all(bool(term.isfinite()) for term in objective.terms.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


class TwoSites:
    """A global latent of an event of two dimensions, and one of a coordinate without an event."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
            b = pyro.sample("b", dist.Normal(a.sum((-2, -1)), 1.0))
            mean = torch.cat([a.flatten(-2), b.unsqueeze(-1)], -1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        means = x[:, :4].reshape(-1, 2, 2)
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(means, 0.5).to_event(2))
            pyro.sample("b", dist.Normal(x[:, 4], 0.5))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("vectorize", [False, True])
def test_several_sites_and_particles(name: str, vectorize: bool) -> None:
    system, x = TwoSites(), torch.randn(BATCH, 5, dtype=torch.float64)
    size = {"latent_dim": 5} if name in ("factor", "info-adversarial") else {}
    objective = OBJECTIVES[name](
        num_particles=3, vectorize_particles=vectorize, max_plate_nesting=1, **size
    )
    x.requires_grad_()
    loss = objective.differentiable_loss(system.model, system.guide, x)
    (gradient,) = torch.autograd.grad(loss, x)
    assert all(bool(term.isfinite()) for term in objective.terms.values())
    assert bool(gradient.isfinite().all())
    assert float(objective.terms["loss"]) == pytest.approx(float(loss.detach()) / BATCH)


# What presets are made of.


def loss_of(objective: Any, exact: LinearGaussian, x: Tensor, prior: str = "standard") -> float:
    pyro.set_rng_seed(1)
    model = model_of(exact, prior)
    pyro.set_rng_seed(2)
    return float(objective.loss(model, exact.guide, x))


def test_neutral_weights_give_the_bound(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    for prior in ("standard", "coupling"):
        expected = loss_of(RegularizedELBO(), exact, x, prior)
        neutral = [
            BetaELBO(1.0),
            BetaTCELBO(1.0, dataset_size=COUNT),
            FactorELBO(0.0, latent_dim=LATENT, hidden=(4,)),
            InfoELBO(0.0, 1.0),
            MutualDivergenceELBO(0.0, 0.0),
            DIPELBO(0.0, 0.0),
            RegularizedELBO(rate=FreeBitsRate(0.0)),
        ]
        for objective in neutral:
            assert loss_of(objective, exact, x, prior) == pytest.approx(expected)


def test_the_free_bits_of_mae_are_of_its_rate_alone(exact: LinearGaussian) -> None:
    objective = MutualDivergenceELBO(2.0, 0.5, free_bits=50.0)
    loss = loss_of(objective, exact, exact.data(BATCH)) / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    assert t["rate"] < 50
    assert loss == pytest.approx(
        t["distortion"] + 50.0 + 2.0 * t["diversity"] + 0.5 * t["smoothness"]
    )


def test_presets_weigh_their_terms_as_the_papers_do(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    objective: RegularizedELBO = BetaTCELBO(6.0, dataset_size=COUNT, alpha=0.5, gamma=2.0)
    loss = loss_of(objective, exact, x, "coupling") / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    expected = (
        t["distortion"] + 2.0 * t["rate"]
        + (0.5 - 2.0) * t["mutual_information"] + (6.0 - 2.0) * t["total_correlation"]
    )  # fmt: skip
    assert loss == pytest.approx(expected)

    objective = InfoELBO(-9.0, 20.0)
    loss = loss_of(objective, exact, x) / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    assert loss == pytest.approx(t["distortion"] + 10.0 * t["rate"] + 10.0 * t["mmd"])

    objective = FactorELBO(7.0, latent_dim=LATENT, hidden=(4,))
    loss = loss_of(objective, exact, x) / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    expected = t["distortion"] + t["rate"] + 7.0 * t["adversarial_total_correlation"]
    assert loss == pytest.approx(expected)

    objective = OBJECTIVES["several"]()
    loss = loss_of(objective, exact, x) / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    expected = (
        t["distortion"] + 4.0 * t["rate"] + 6.0 * t["total_correlation"] + 100.0 * t["mmd"]
        + t["diversity"] + t["smoothness"]
    )  # fmt: skip
    assert loss == pytest.approx(expected)


def test_one_penalty_twice_keeps_both_terms(exact: LinearGaussian) -> None:
    objective = RegularizedELBO(penalties=[MMD(1.0), MMD(2.0, kernel="imq")])
    loss = loss_of(objective, exact, exact.data(BATCH)) / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    assert loss == pytest.approx(t["distortion"] + t["rate"] + t["mmd"] + 2.0 * t["mmd_2"])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2.0, 20.0), {}, "alpha must be at most 1 in InfoVAE, got 2"),
        ((0.0, 0.5), {}, r"alpha \+ lambda must be at least 1 in InfoVAE, got 0.0 \+ 0.5"),
        ((), {"divergence": "adversarial"}, "adversarial divergence needs latent_dim"),
        ((), {"divergence": "kl"}, "divergence must be one of"),
        ((), {"divergence": "stein", "kernel": "imq"}, "kernel applies to mmd only, got 'imq'"),
        (
            (),
            {"divergence": "adversarial", "latent_dim": 2, "bandwidth": 3.0},
            "bandwidth does not apply to an adversary, got 3.0",
        ),
    ],
)
def test_bad_options_of_info_vae_are_refused(
    arguments: tuple[float, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        InfoELBO(*arguments, **options)


def test_penalties_need_latents_of_the_data_plate(exact: LinearGaussian) -> None:
    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).expand([3]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(x.mean(), 1.0))

    with pytest.raises(
        ValueError, match=r"penalties need a latent site inside pyro.plate\('data'"
    ):
        RegularizedELBO(penalties=[MMD(1.0)]).loss(model, guide, exact.data(BATCH))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_keep_float32_under_autocast(name: str) -> None:
    exact = LinearGaussian()
    model = model_of(exact, "coupling").float()
    guide = exact.guide.float()
    objective = OBJECTIVES[name]()
    for penalty in objective.penalties:
        penalty.float()
    with torch.autocast("cpu", torch.bfloat16):
        objective.loss_and_grads(model, guide, exact.data(BATCH).float())
    for term in objective.terms.values():
        assert term.dtype == torch.float32
        assert bool(term.isfinite())


# Regularizers that a user writes into the model.


def with_factor(exact: LinearGaussian, kind: str) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)
            squares = z.square().sum(-1)
            if kind == "per datum":
                pyro.factor("regularizer", -0.5 * squares)
            if kind == "scalar inside":
                pyro.factor("regularizer", -0.5 * squares.mean())
        if kind == "scalar outside":
            pyro.factor("regularizer", -0.5 * squares.sum())

    return model


def test_factors_of_each_datum_are_penalties(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    losses = {}
    for kind in ("none", "per datum", "scalar inside", "scalar outside"):
        pyro.set_rng_seed(4)
        losses[kind] = RegularizedELBO().loss(with_factor(exact, kind), exact.guide, x)
    pyro.set_rng_seed(4)
    squares = exact.guide.encoder(x).rsample().detach().square().sum(-1)
    expected = losses["none"] + 0.5 * float(squares.sum())
    assert losses["per datum"] == pytest.approx(expected)
    assert losses["scalar outside"] == pytest.approx(expected)
    # Inside the plate a number is that of every datum.
    assert losses["scalar inside"] == pytest.approx(expected)


def test_a_factor_inside_the_plate_is_one_of_each_datum(exact: LinearGaussian) -> None:
    # A term of the whole batch there is charged as many times as there are data.
    x = exact.data(BATCH)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)
            pyro.factor("of_the_batch", torch.tensor(-3.0))

    def charged(objective: Any) -> float:
        pyro.set_rng_seed(4)
        with_it = objective.loss(model, exact.guide, x)
        pyro.set_rng_seed(4)
        return float(with_it - objective.loss(exact.model, exact.guide, x))

    assert charged(RegularizedELBO()) == pytest.approx(3.0 * BATCH)
    assert charged(Trace_ELBO()) == pytest.approx(3.0 * BATCH)
    # Factors of the model are distortion: no rate weighs them.
    assert charged(BetaELBO(5.0)) == pytest.approx(3.0 * BATCH)


def test_a_factor_in_the_guide_must_say_that_it_is_reparameterised(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)

    def guide(x: Tensor, has_rsample: bool = True) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.guide.encoder(x))
            pyro.factor("regularizer", 0.5 * z.square().sum(-1), has_rsample=has_rsample)

    pyro.set_rng_seed(4)
    found = RegularizedELBO().loss(exact.model, guide, x)
    pyro.set_rng_seed(4)
    expected = RegularizedELBO().loss(with_factor(exact, "per datum"), exact.guide, x)
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"reparameterised .* got Unit at 'regularizer'"):
        RegularizedELBO().loss(exact.model, lambda x: guide(x, has_rsample=False), x)


# Dependent sites, change of variables, scales and masks.


class Ladder:
    """Sites that model and guide draw in opposite orders, each given the one before."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            bottom = pyro.sample("bottom", dist.Normal(top, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(bottom, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            bottom = pyro.sample("bottom", dist.Normal(0.7 * x, 0.6).to_event(1))
            pyro.sample("top", dist.Normal(0.9 * bottom, 0.4).to_event(1))


def test_a_guide_in_another_order_has_its_exact_bound() -> None:
    # E of quadratics under bottom ~ N(.7 x, .36), top ~ N(.9 bottom, .16), by hand.
    x = torch.tensor([[0.5], [2.0], [-1.0], [1.5]], dtype=torch.float64)
    mean = 0.7 * x
    log_2pi = math.log(2 * math.pi)
    top_square = 0.81 * (mean.square() + 0.36) + 0.16
    gap_square = 0.01 * (mean.square() + 0.36) + 0.16  # E (bottom - top)^2
    log_p = (
        -0.5 * top_square - 0.5 * log_2pi
        - 0.5 * gap_square / 0.25 - 0.5 * math.log(0.25) - 0.5 * log_2pi
        - 0.5 * ((x - mean).square() + 0.36) - 0.5 * log_2pi
    )  # fmt: skip
    entropy = 0.5 * (2 + 2 * log_2pi + math.log(0.36) + math.log(0.16))
    exact = -float((log_p + entropy).sum())
    objective = RegularizedELBO(
        num_particles=20_000, vectorize_particles=True, max_plate_nesting=1
    )
    found = objective.loss(Ladder().model, Ladder().guide, x)
    assert found == pytest.approx(exact, rel=0.01)
    oracle = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=1)
    assert found == pytest.approx(oracle.loss(Ladder().model, Ladder().guide, x), rel=0.02)


def test_stein_is_the_same_in_training_and_evaluation() -> None:
    x = torch.randn(12, 1)
    objective = RegularizedELBO(penalties=[SteinDiscrepancy(1.0)])
    pyro.set_rng_seed(0)
    objective.loss(Ladder().model, Ladder().guide, x)
    evaluated = objective.terms["stein"]
    pyro.set_rng_seed(0)
    objective.differentiable_loss(Ladder().model, Ladder().guide, x)
    torch.testing.assert_close(objective.terms["stein"], evaluated)
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"inference_mode\(\).*; evaluate under torch.no_grad"),
    ):
        objective.loss(Ladder().model, Ladder().guide, x)


def test_autoguides_of_constrained_sites_keep_their_change_of_variables() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.log(), 1.0), obs=x)

    x = torch.tensor([0.3, -1.0, 2.0, 0.0])
    guide = AutoDiagonalNormal(model, init_scale=0.7)
    guide(x)
    options = {"num_particles": 20_000, "vectorize_particles": True, "max_plate_nesting": 1}
    found = RegularizedELBO(**options).loss(model, guide, x)
    # In log z the guide is N(m, .49) and the model a linear Gaussian.
    mean = guide.loc.detach()
    kl = 0.5 * (mean.square() + 0.49 - 1) - math.log(0.7)
    distortion = 0.5 * ((x - mean).square() + 0.49) + 0.5 * math.log(2 * math.pi)
    assert found == pytest.approx(float((kl + distortion).sum()), rel=0.01)


def test_scales_that_are_tensors_keep_the_closed_form(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    scale = torch.tensor(2.0, dtype=torch.float64)
    rates = []
    for model_scale, guide_scale in ((scale, scale), (2.0, 2.0), (2.0, scale)):
        model = poutine.scale(exact.model, model_scale)
        guide = poutine.scale(exact.guide, guide_scale)
        objective = RegularizedELBO()
        for seed in (0, 1):
            pyro.set_rng_seed(seed)
            objective.loss(model, guide, x)
            rates.append(float(objective.terms["rate"]))
    assert rates == pytest.approx([rates[0]] * len(rates))


@pytest.mark.parametrize("tensor", [False, True])
def test_a_scale_of_whole_programs_scales_the_loss_with_its_penalties(
    exact: LinearGaussian, tensor: bool
) -> None:
    x = exact.data(BATCH)

    def loss(scale: float, guide_scale: float) -> float:
        factors = [torch.tensor(s).double() if tensor else s for s in (scale, guide_scale)]
        pyro.set_rng_seed(0)
        objective = RegularizedELBO(penalties=[MMD(50.0)])
        model, guide = map(poutine.scale, (exact.model, exact.guide), factors)
        return objective.loss(model, guide, x)

    assert loss(0.01, 0.01) == pytest.approx(0.01 * loss(1.0, 1.0))
    # Of the guide alone, it weighs log q, as of latent sites, and penalties stay.
    entropy = exact.guide.encoder(x).entropy().sum().detach()
    assert loss(1.0, 3.0) == pytest.approx(loss(1.0, 1.0) - 2 * float(entropy))


def test_unequal_scales_weigh_the_two_expectations(exact: LinearGaussian) -> None:
    # E[3 log q - 2 log p] = 2 KL - H(q)
    x = exact.data(BATCH)
    objective = RegularizedELBO()
    objective.loss(poutine.scale(exact.model, 2.0), poutine.scale(exact.guide, 3.0), x)
    q = exact.guide.encoder(x)
    standard = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1)
    expected = (2 * torch.distributions.kl_divergence(q, standard) - q.entropy()).mean()
    torch.testing.assert_close(objective.terms["rate"], expected.detach().double())


def test_penalties_refuse_masks_and_plates_of_one_datum(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    mask = torch.arange(BATCH) < 5
    objective = RegularizedELBO(penalties=[MMD(1.0)])
    with pytest.raises(ValueError, match="got a mask at 'z'; leave masked data out of the batch"):
        objective.loss(poutine.mask(exact.model, mask), poutine.mask(exact.guide, mask), x)

    def half(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = dist.Normal(torch.zeros(LATENT).double(), 1.0).expand((len(x), LATENT))
            pyro.sample("z", z.mask(mask[:, None]).to_event(1))
            pyro.sample("x", dist.Normal(x, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="got a mask at 'z'; leave masked data out of the batch"):
        objective.loss(half, exact.guide, x)

    def model(x: Tensor) -> None:
        with pyro.plate("parts", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x: Tensor) -> None:
        with pyro.plate("parts", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.T, 1.0))

    with pytest.raises(ValueError, match=r"got 'z' in \['data', 'parts'\] .* with to_event"):
        objective.loss(model, guide, x)


def test_a_loop_over_data_is_refused(exact: LinearGaussian) -> None:
    def program(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i, 0])

    def guide(x: Tensor) -> None:
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match="the plate over the batch must be vectorized, got a loop"
    ):
        RegularizedELBO().loss(program, guide, exact.data(3))


def test_a_penalty_may_name_its_term_as_it_likes(exact: LinearGaussian) -> None:
    class Loss(AbstractPenalty):
        def __init__(self) -> None:
            super().__init__(loss=LinearSchedule(2.0, 3.0, 5))

        def forward(self, latents: Latents) -> dict[str, Tensor]:
            return {"loss": latents.value.mean()}

    objective = RegularizedELBO(penalties=[Loss()])
    loss = objective.loss(exact.model, exact.guide, exact.data(BATCH)) / BATCH
    t = {name: float(term) for name, term in objective.terms.items()}
    assert t["loss"] == pytest.approx(loss)
    assert loss == pytest.approx(t["distortion"] + t["rate"] + 2.0 * t["loss_2"])
