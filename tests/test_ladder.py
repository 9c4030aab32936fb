"""The ladder autoencoder against a linear one that is solved, and under every objective."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor, nn

from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, load
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.evaluation import EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.guides import AbstractGuide, AmortizedGaussian, LadderGuide
from pyro_dpvae.importance import log_weights
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import layer_accuracies, log_likelihoods
from pyro_dpvae.models import VAE, AbstractVAE, LadderVAE
from pyro_dpvae.nn import LADDERS, Batched
from pyro_dpvae.nn.ladder import GatedSum, LadderDecoder
from pyro_dpvae.objectives import BetaRate, FreeBitsRate, RegularizedELBO, SaturatingSchedule
from pyro_dpvae.plots import layer_codes
from pyro_dpvae.priors import (
    AbstractPrior,
    CouplingPrior,
    MixturePrior,
    ProductPrior,
    StandardNormal,
)
from pyro_dpvae.recipes import System, open_run
from pyro_dpvae.training import TrainConfig, fit
from tests.test_captured import check_same_steps
from tests.test_regularizers import OBJECTIVES

LATENT_DIMS, DATA, VARIANCE = (2, 3), 4, 0.4
SIZE = sum(LATENT_DIMS)
COUPLING = partial(CouplingPrior, hidden=(8,), blocks=2)


class LinearLadder:
    """x ~ N(B (A z_2 + gate * C z_1) + b, v I) with z ~ N(0, I): log p(x) is known."""

    def __init__(self) -> None:
        branch, top, bottom = (
            nn.Linear(2, 6, bias=False),
            nn.Linear(3, 6, bias=False),
            nn.Linear(6, DATA),
        )
        ladder = LadderDecoder(
            [bottom, top], [branch], [GatedSum(6)], latent_dims=LATENT_DIMS
        ).double()
        gate = torch.randn(6, dtype=torch.float64)
        ladder.joins[0].gate.data = gate
        self.weight = bottom.weight @ torch.cat([gate[:, None] * branch.weight, top.weight], 1)
        self.bias = bottom.bias
        network = Batched(ladder, in_shape=(SIZE,), out_shape=(DATA,))
        self.decoder = Decoder(network, GaussianLikelihood((DATA,), variance=VARIANCE))
        self.encoder = GaussianEncoder(nn.Identity(), SIZE, in_shape=(DATA,)).double()
        self.guide = LadderGuide(self.encoder, LATENT_DIMS)

    def model(self, kind: str) -> AbstractVAE:
        if kind == "joint":
            return VAE(COUPLING(SIZE).double(), self.decoder)
        make = StandardNormal if kind == "standard" else COUPLING
        return LadderVAE([make(size).double() for size in LATENT_DIMS], self.decoder)

    def guide_of(self, model: AbstractVAE) -> AbstractGuide:
        return self.guide if isinstance(model, LadderVAE) else AmortizedGaussian(self.encoder)

    def log_prob(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + VARIANCE * torch.eye(DATA).double()
        return torch.distributions.MultivariateNormal(self.bias, covariance).log_prob(x).detach()


@pytest.fixture
def linear() -> LinearLadder:
    return LinearLadder()


def data(count: int) -> Tensor:
    return torch.randn(count, DATA, dtype=torch.float64)


def test_the_likelihood_of_a_linear_ladder_is_exact_within_its_error(linear: LinearLadder) -> None:
    x = data(10)
    # The exact posterior's means, and scales that cover it.
    gain = torch.linalg.solve(
        linear.weight.T @ linear.weight + VARIANCE * torch.eye(SIZE).double(), linear.weight.T
    ).detach()
    encode = linear.encoder.network.body[-1]
    encode.weight.data = torch.cat([gain, torch.zeros_like(gain)])
    encode.bias.data = torch.cat([-gain @ linear.bias.detach(), torch.full((SIZE,), 0.0).double()])
    found = log_likelihoods(
        linear.model("standard"), linear.guide, [x], num_samples=5000, progress=False
    )
    error = found.log_likelihood - linear.log_prob(x)
    assert float(error.abs().max()) < 0.1
    assert float(error.mean().abs()) < 0.02


def test_a_product_of_normals_costs_what_the_joint_normal_costs(linear: LinearLadder) -> None:
    x = data(6)
    head = linear.encoder.network.body[-1]
    head.bias.data[SIZE:] = -20.0  # z at its mean, whatever is drawn
    head.weight.data[SIZE:] = 0.0
    joint = VAE(StandardNormal(SIZE).double(), linear.decoder)
    objective, other = RegularizedELBO(), RegularizedELBO()
    loss = objective.loss(linear.model("standard"), linear.guide, x)
    assert loss == pytest.approx(other.loss(joint, AmortizedGaussian(linear.encoder), x), rel=1e-4)
    # In closed form on either side.
    assert float(objective.terms["rate"]) == pytest.approx(float(other.terms["rate"]), rel=1e-12)


def test_the_sites_are_the_parts_of_prior_and_posterior(linear: LinearLadder) -> None:
    model, x = linear.model("coupling"), data(5)
    trace = poutine.trace(linear.guide).get_trace(x)
    z = [trace.nodes[f"z_{layer}"]["value"] for layer in (1, 2)]
    assert [part.shape for part in z] == [(5, 2), (5, 3)]
    joined = torch.cat(z, -1)
    torch.testing.assert_close(
        trace.log_prob_sum(), linear.guide.posterior(x).log_prob(joined).sum()
    )
    parts = {"z_1": z[0], "z_2": z[1]}
    of_sites = poutine.trace(poutine.condition(model, parts)).get_trace(x).log_prob_sum()
    whole = VAE(model.prior, model.decoder)
    at_once = poutine.trace(poutine.condition(whole, {"z": joined})).get_trace(x).log_prob_sum()
    torch.testing.assert_close(of_sites, at_once)
    weights = log_weights(model, linear.guide, x, num_samples=3)
    assert weights.shape == (3, 5)


def test_a_layer_is_fixed_by_a_value_that_broadcasts(linear: LinearLadder) -> None:
    model, size = linear.model("standard"), LATENT_DIMS[0]
    fixed = torch.linspace(-1, 1, size).double()
    found = []
    for value in (fixed, fixed.expand(1, size), fixed.expand(5, size)):
        pyro.set_rng_seed(0)
        found.append(pyro.poutine.condition(model, {"z_1": value})(size=5))
        assert len(found[-1]) == 5
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "coupling") for name in OBJECTIVES),
        *(("several", kind) for kind in ("standard", "joint")),
    ],
)
def test_every_objective_on_every_prior_of_layers(
    name: str, kind: str, linear: LinearLadder
) -> None:
    model, x = linear.model(kind), data(8)
    guide = linear.guide_of(model)
    size = {"latent_dim": SIZE} if name in ("factor", "info-adversarial") else {}
    objective = OBJECTIVES[name](**size)
    loss = objective.loss_and_grads(model, guide, x)
    terms = objective.terms
    assert float(terms["loss"]) == pytest.approx(float(loss) / 8)
    assert all(bool(term.isfinite()) for term in terms.values())
    parameters = {**dict(model.named_parameters()), **dict(guide.named_parameters())}
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients.values())
    assert any(bool(grad.any()) for grad in gradients.values())


def test_free_bits_are_those_of_each_layer(linear: LinearLadder) -> None:
    x = data(7)
    objective = RegularizedELBO(rate=FreeBitsRate(1.5))
    objective.loss(linear.model("standard"), linear.guide, x)
    q = linear.guide.posterior(x).base_dist
    kl = (0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()).mean(0).detach()
    charged = sum(max(1.5, float(part.sum())) for part in kl.split(LATENT_DIMS))
    terms = objective.terms
    assert float(terms["loss"] - terms["distortion"]) == pytest.approx(charged)
    assert float(terms["rate"]) == pytest.approx(float(kl.sum()))


def test_the_warm_up_is_the_sources_and_ends() -> None:
    beta = SaturatingSchedule(0.0, 1.0, 10_000, time=2000)
    for step in (0, 1, 700, 9999):
        assert beta(step) == pytest.approx(1 - math.exp(-step / 2000))
    assert beta(10_000) == beta(10**6) == 1.0
    assert SaturatingSchedule(4.0, 1.0, 50)(5) == pytest.approx(1 + 3 / math.e)
    with pytest.raises(ValueError, match="time must be positive and finite, got 0"):
        SaturatingSchedule(0.0, 1.0, 50, time=0)


# Real networks.


def small(
    shape: tuple[int, ...], priors: Callable[[int], AbstractPrior], *, joint: bool = False
) -> tuple[AbstractVAE, AbstractGuide]:
    build, likelihood = LADDERS["ladder-mlp"], GaussianLikelihood(shape, variance=0.1)
    encode = build.encoder(shape, latent_dims=LATENT_DIMS, width=8, depth=1)
    decoder = Decoder(
        build.decoder(SIZE, shape, latent_dims=LATENT_DIMS, width=8, depth=1), likelihood
    )
    encoder = GaussianEncoder(encode, SIZE)
    if joint:
        return VAE(priors(SIZE), decoder), AmortizedGaussian(encoder)
    return LadderVAE([priors(size) for size in LATENT_DIMS], decoder), LadderGuide(
        encoder, LATENT_DIMS
    )


def test_captured_steps_of_a_ladder_are_those_of_svi() -> None:
    def make() -> tuple[Any, Any, Any]:
        return *small((3,), COUPLING), RegularizedELBO(
            rate=BetaRate(SaturatingSchedule(0.0, 1.0, 10))
        )

    captured = check_same_steps(make, [torch.randn(16, 3) for _ in range(12)])
    assert captured.recordings == 1


@pytest.mark.parametrize("joint", [False, True])
def test_a_ladder_trains_on_digits(joint: bool) -> None:
    digits = load("digits")
    model, guide = small(digits.item_shape, COUPLING, joint=joint)
    train, test = (
        Batches(split, batch_size=100, preprocessing="grey")
        for split in (digits.train, digits.test)
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    history = fit(
        model,
        guide,
        objective=RegularizedELBO(rate=BetaRate(SaturatingSchedule(0.0, 1.0, 30))),
        train=train,
        test=test,
        config=TrainConfig(steps=30, log_every=10, learning_rate=1e-2, backend="eager"),
        progress=False,
    )
    losses = [record["distortion"] for record in history.records if "distortion" in record]
    assert losses[-1] < losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys()


def test_layers_that_do_not_fit_are_refused() -> None:
    model, guide = small((3,), StandardNormal)
    with pytest.raises(ValueError, match=r"priors .*, got \(3, 2\) and \(2, 3\)"):
        LadderVAE([StandardNormal(3), StandardNormal(2)], model.decoder)
    with pytest.raises(ValueError, match=r"latent_dims must .*, got \(4, 1\) and \(2, 3\)"):
        LadderGuide(guide.encoder, (4, 1))
    with pytest.raises(ValueError, match=r"got the sizes \(2, 2\) and latent_dim=5; build"):
        LadderGuide(guide.encoder, (2, 2))


def test_a_last_batch_of_one_has_no_batch_norm() -> None:
    model, guide = small((3,), StandardNormal)
    train = Batches(torch.zeros(9, 3), batch_size=4, preprocessing="none")
    with pytest.raises(ValueError, match=r"batch norm .* batches of 4 leave 1 of"):
        fit(
            model,
            guide,
            objective=RegularizedELBO(),
            train=train,
            test=train,
            config=TrainConfig(steps=3),
            progress=False,
        )


# Layer by layer.


def test_layers_are_probed_alone() -> None:
    labels = torch.arange(200) % 4
    blank, first, second = torch.randn(200, 1), (labels % 2).double(), (labels // 2).double()
    z = torch.cat([blank.double(), first[:, None], torch.stack([first, second], -1)], -1)
    found = layer_accuracies(z, labels, z, labels, sizes=(1, 1, 2))
    assert found[0].value < 0.45
    assert found[1].value == pytest.approx(0.5, abs=0.01)
    assert found[2].value == 1.0
    with pytest.raises(ValueError, match=r"add up to the 4 coordinates of z, got \(1, 2\)"):
        layer_accuracies(z, labels, z, labels, sizes=(1, 2))


def test_one_layer_varies_over_quantiles_of_generation_space() -> None:
    prior = ProductPrior([CouplingPrior(2), StandardNormal(3)])
    origin = prior().sample()
    codes = layer_codes(prior, origin, side=4)
    assert list(codes) == [
        "layer 1: quantiles of its two coordinates",
        "layer 2: samples of its prior",
    ]
    below, above = codes.values()
    assert torch.equal(below[:, 2:], origin[2:].expand(16, 3))
    assert torch.equal(above[:, :2], origin[:2].expand(16, 2))
    z0 = prior.priors[0].to_generation(below[:, :2])[0].reshape(4, 4, 2)
    levels = dist.Normal(0.0, 1.0).icdf(torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(z0[..., 0], levels[:, None].expand(4, 4), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(z0[..., 1], levels.expand(4, 4), atol=1e-4, rtol=1e-4)
    assert len(above[:, 2:].unique(dim=0)) == 16


def test_a_layer_of_another_base_is_drawn() -> None:
    torch.manual_seed(0)
    far = MixturePrior(2, components=1, spread=0.01)
    with torch.no_grad():
        far.loc.fill_(50.0)
    codes = layer_codes(ProductPrior([far, CouplingPrior(2, base=far)]), torch.zeros(4), side=3)
    assert list(codes) == ["layer 1: samples of its prior", "layer 2: samples of its prior"]
    below, _ = codes.values()
    torch.testing.assert_close(below[:, :2], torch.full((9, 2), 50.0), atol=0.1, rtol=0)


def test_a_ladders_run_is_measured_and_drawn_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    arguments = ["--data", "digits", "--network", "mlp", "--latent-dim", "5", "--steps", "1"]
    assert main(["train", *arguments, "--backend", "eager", "--out", str(run)]) == 0
    saved = open_run(run)
    config = EvaluationConfig(latent_samples=50)
    with pytest.raises(ValueError, match="layers needs a model with a prior for each"):
        evaluate_run(Subject(saved, saved.load_data(), config, progress=False), ["layers"])
    model, guide = small((1, 8, 8), StandardNormal)
    system = System(model.eval(), guide.eval(), saved.system.objective)
    saved = replace(saved, system=system)
    found = evaluate_run(Subject(saved, saved.load_data(), config, progress=False), ["layers"])
    names = {
        f"{name}_layer_{layer}" for name in ("probe", "nearest_neighbours") for layer in (1, 2)
    }
    assert found.keys() == names
    assert all(0 < one["value"] < 1 for one in found.values())
    for drawn in ("_samples", "_latent", "_pairs", "_factors", "_leakage"):  # of other tests
        monkeypatch.setattr(f"pyro_dpvae.plots.run.{drawn}", lambda *parts: Figure())
    monkeypatch.setattr("pyro_dpvae.cli.plot.opened_run", lambda options: saved)
    assert main(["plot", str(run), "--number", "4", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "layers.png").stat().st_size > 3000
