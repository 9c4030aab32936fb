"""Objectives against exact numbers, against Pyro's own, and against each other."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_dpvae.errors import TrainingWarning
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import AbstractPenalty, BetaELBO, BetaRate, Latents, RegularizedELBO
from pyro_dpvae.priors import CouplingPrior
from tests.linear_gaussian import LATENT, LinearGaussian


@pytest.fixture
def exact() -> LinearGaussian:
    return LinearGaussian()


def with_coupling(exact: LinearGaussian) -> VAE:
    return VAE(CouplingPrior(LATENT).double(), exact.model.decoder)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(Trace_ELBO(num_particles=1), id="Trace_ELBO"),
        pytest.param(RenyiELBO(alpha=0.0, num_particles=2), id="RenyiELBO"),
    ],
)
def test_exact_posterior_gives_log_p_of_x_at_every_sample(
    exact: LinearGaussian, objective: Any
) -> None:
    x = exact.data(20)
    loss = objective.loss(exact.model, exact.guide, x)
    assert loss == pytest.approx(-float(exact.log_prob(x).sum()), abs=1e-5)


@pytest.mark.parametrize("vectorize", [False, True])
def test_exact_posterior_gives_log_p_of_x_in_the_mean(
    exact: LinearGaussian, vectorize: bool
) -> None:
    # With the divergence in closed form, only the distortion is left to chance.
    x = exact.data(20)
    count = 4000 if vectorize else 300
    objective = RegularizedELBO(
        num_particles=count, vectorize_particles=vectorize, max_plate_nesting=1
    )
    z = exact.guide.encoder(x).sample((2000,))
    spread = float(exact.model.decoder(z).log_prob(x).sum(-1).detach().std())
    loss = objective.loss(exact.model, exact.guide, x)
    error = spread / objective.num_particles**0.5
    assert loss == pytest.approx(-float(exact.log_prob(x).sum()), abs=4 * error)


class SigmaPoint(dist.Normal):
    """A Gaussian whose sample is a given point: averages over all are exact for quadratics."""

    offset: Tensor

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc + self.scale * self.offset


def test_exact_posterior_gives_log_p_of_x_to_1e_5_without_chance(exact: LinearGaussian) -> None:
    x = exact.data(20)

    def guide(x: Tensor) -> None:
        q = exact.guide.encoder(x).base_dist
        with pyro.plate("data", len(x)):
            pyro.sample("z", SigmaPoint(q.loc, q.scale).to_event(1))

    axes = LATENT**0.5 * torch.eye(LATENT, dtype=torch.float64)
    losses = []
    for SigmaPoint.offset in [*axes, *-axes]:
        losses.append(RegularizedELBO().loss(exact.model, guide, x))
    assert len(set(losses)) > 1
    bound = -sum(losses) / len(losses)
    assert bound == pytest.approx(float(exact.log_prob(x).sum()), abs=1e-5)


@pytest.mark.parametrize(("vectorize", "count"), [(True, 4000), (False, 200)])
def test_particles_average(exact: LinearGaussian, vectorize: bool, count: int) -> None:
    x = exact.data(20)
    objective = RegularizedELBO(
        num_particles=count, vectorize_particles=vectorize, max_plate_nesting=1
    )
    z = exact.guide.encoder(x).sample((2000,))
    spread = float(exact.model.decoder(z).log_prob(x).sum(-1).detach().std())
    loss = objective.loss(exact.model, exact.guide, x)
    assert loss == pytest.approx(-float(exact.log_prob(x).sum()), abs=4 * spread / count**0.5)
    assert loss == pytest.approx(20 * float(objective.terms["loss"]))


def test_terms_are_per_datum_and_in_closed_form(exact: LinearGaussian) -> None:
    x = exact.data(50)
    objective = BetaELBO(3.0)
    loss = objective.loss(exact.model, exact.guide, x)
    terms = objective.terms
    standard = torch.distributions.Normal(torch.zeros(LATENT), torch.ones(LATENT))
    q = exact.guide.encoder(x).base_dist
    rate = torch.distributions.kl_divergence(q, standard).sum(-1).mean()
    torch.testing.assert_close(terms["rate"], rate)
    torch.testing.assert_close(terms["loss"], terms["distortion"] + 3 * terms["rate"])
    assert loss == pytest.approx(50 * float(terms["loss"]))


def test_the_rate_under_a_coupling_prior_keeps_the_log_det(exact: LinearGaussian) -> None:
    # Equation 5 of the paper, written out: E[|g(z)|^2 / 2 - log det] - log sigma - L/2.
    model, x = with_coupling(exact), exact.data(10)
    objective = RegularizedELBO()
    pyro.set_rng_seed(1)
    objective.loss(model, exact.guide, x)
    pyro.set_rng_seed(1)
    q = exact.guide.encoder(x)
    z0, log_det = model.prior.to_generation(q.rsample())
    expected = 0.5 * z0.square().sum(-1) - log_det - q.base_dist.scale.log().sum(-1) - LATENT / 2
    torch.testing.assert_close(objective.terms["rate"], expected.mean())


@pytest.mark.parametrize(
    ("coupling", "oracle"),
    [(False, TraceMeanField_ELBO), (True, TraceMeanField_ELBO), (True, Trace_ELBO)],
)
def test_gradients_agree_with_pyros(exact: LinearGaussian, coupling: bool, oracle: Any) -> None:
    # Under a coupling prior all three take log p(z) at the sample; the entropy of a Gaussian
    # has one gradient, sampled or not.
    model = with_coupling(exact) if coupling else exact.model
    x = exact.data(8)
    parameters = [*model.parameters(), *exact.guide.parameters()]

    def gradients(objective: Any) -> list[Tensor]:
        pyro.set_rng_seed(0)
        objective.loss_and_grads(model, exact.guide, x)
        found = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        return found

    for ours, theirs in zip(gradients(RegularizedELBO()), gradients(oracle()), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_agree_with_finite_differences(exact: LinearGaussian) -> None:
    model, x = with_coupling(exact), exact.data(4)
    objective = BetaELBO(2.0)

    def loss() -> Tensor:
        pyro.set_rng_seed(3)
        return objective.differentiable_loss(model, exact.guide, x)

    loss().backward()
    step = 1e-6
    for parameter in [*model.parameters(), *exact.guide.parameters()]:
        flat = parameter.data.view(-1)
        index = int(parameter.grad.abs().argmax())
        before = float(flat[index])
        with torch.no_grad():
            flat[index] = before + step
            above = float(loss())
            flat[index] = before - step
            below = float(loss())
            flat[index] = before
        slope = (above - below) / (2 * step)
        assert float(parameter.grad.view(-1)[index]) == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("coupling", [False, True])
def test_beta_and_poutine_scale_agree(exact: LinearGaussian, coupling: bool) -> None:
    x = exact.data(6)
    prior = (with_coupling(exact) if coupling else exact.model).prior

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=2.5):
                z = pyro.sample("z", prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.scale(scale=2.5):
            pyro.sample("z", exact.guide.encoder(x))

    def value(objective: Any, model: Any, guide: Any) -> float:
        pyro.set_rng_seed(5)
        return float(objective.loss(model, guide, x))

    plain = with_coupling(exact) if coupling else exact.model
    if coupling:
        plain = VAE(prior, exact.model.decoder)
    weighted = value(BetaELBO(2.5), plain, exact.guide)
    assert value(RegularizedELBO(), model, guide) == pytest.approx(weighted)
    # A scale on one side is no weight on a divergence; both expectations are then sampled.
    one_sided = value(RegularizedELBO(), model, exact.guide)
    assert one_sided != pytest.approx(weighted)


def test_subsampling_scales_the_loss_and_leaves_the_terms_per_datum(exact: LinearGaussian) -> None:
    x = exact.data(6)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 60, subsample=torch.arange(6)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 60, subsample=torch.arange(6)):
            pyro.sample("z", exact.guide.encoder(x))

    whole, part = RegularizedELBO(), RegularizedELBO()
    pyro.set_rng_seed(2)
    expected = whole.loss(exact.model, exact.guide, x)
    pyro.set_rng_seed(2)
    assert part.loss(model, guide, x) == pytest.approx(10 * expected)
    for name, term in whole.terms.items():
        torch.testing.assert_close(part.terms[name], term)


class MeanSquare(AbstractPenalty):
    """A penalty whose value is known: the mean square of z, times a weight."""

    def __init__(self) -> None:
        super().__init__(mean_square=0.5)

    def forward(self, latents: Latents) -> dict[str, Tensor]:
        (site,) = latents.sites
        assert site.name == "z"
        assert site.posterior.event_shape == site.prior.event_shape == (LATENT,)
        return {"mean_square": latents.value.square().sum(-1).mean()}


def test_a_penalty_adds_exactly_itself_per_datum(exact: LinearGaussian) -> None:
    x = exact.data(12)
    plain, penalised = (
        RegularizedELBO(),
        RegularizedELBO(rate=BetaRate(1.0), penalties=[MeanSquare()]),
    )
    pyro.set_rng_seed(0)
    without = plain.loss(exact.model, exact.guide, x)
    pyro.set_rng_seed(0)
    loss = penalised.loss(exact.model, exact.guide, x)
    pyro.set_rng_seed(0)
    z = exact.guide.encoder(x).rsample()
    expected = z.square().sum(-1).mean().detach()
    torch.testing.assert_close(penalised.terms["mean_square"], expected)
    assert loss - without == pytest.approx(12 * 0.5 * float(expected))


def test_loss_forms_agree_and_the_step_is_a_batch_sum(exact: LinearGaussian) -> None:
    x = exact.data(7)
    for objective in (RegularizedELBO(), BetaELBO(4.0, num_particles=3)):
        values = []
        for form in ("loss", "differentiable_loss", "loss_and_grads"):
            pyro.set_rng_seed(9)
            value = getattr(objective, form)(exact.model, exact.guide, x)
            values.append(float(torch.as_tensor(value).detach()))
        assert values[0] == pytest.approx(values[1])
        assert values[0] == pytest.approx(values[2])
    svi = SVI(exact.model, exact.guide, pyro.optim.Adam({"lr": 1e-3}), loss=RegularizedELBO())
    pyro.set_rng_seed(9)
    expected = RegularizedELBO().loss(exact.model, exact.guide, x)
    pyro.set_rng_seed(9)
    step = svi.step(x)
    assert isinstance(step, float)
    assert step == pytest.approx(expected)


def test_bad_pairs_are_refused(exact: LinearGaussian) -> None:
    x = exact.data(3)
    objective = RegularizedELBO()

    def no_plate(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(3, LATENT), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(z.sum(), 1.0).expand(x.shape).to_event(2), obs=x)

    def no_plate_guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(3, LATENT), 1.0).to_event(2))

    with pytest.raises(ValueError, match=r"inside pyro.plate\('data', batch size\), got .*'x'"):
        objective.loss(no_plate, no_plate_guide, x)

    def empty_guide(x: Tensor) -> None:
        pass

    with (
        pytest.warns(UserWarning, match="Found vars in model but not guide"),
        pytest.raises(ValueError, match=r"the guide lacks latent sites of the model: \['z'\]"),
    ):
        objective.loss(exact.model, empty_guide, x)

    def discrete_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x[:, 0])

    def discrete_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(0.3))

    with pytest.raises(ValueError, match=r"reparameterised .* got Bernoulli at 'y'"):
        objective.loss(discrete_model, discrete_guide, x)
    with pytest.raises(ValueError, match="beta must be 0 or more, got -1"):
        BetaELBO(-1.0)


def test_predictive(exact: LinearGaussian) -> None:
    x = exact.data(5)
    prior = Predictive(exact.model, num_samples=7)(size=4)
    assert prior["x"].shape == (7, 4, 3)
    posterior = Predictive(exact.model, guide=exact.guide, num_samples=6)(x)
    assert posterior["z"].shape == (6, 5, LATENT)


class Wrong(AbstractPenalty):
    """A penalty that returns what it was given."""

    def __init__(self, terms: Any, network: nn.Module | None = None) -> None:
        super().__init__(own=1.0)
        self.network = network
        self.terms = terms

    def forward(self, latents: Latents) -> Any:
        return self.terms


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (torch.zeros(()), "must return a dict .*'own'.*got Tensor"),
        ({"onw": torch.zeros(())}, "must return a dict .*'own'.*got .'onw'"),
        ({"own": 0.5}, "must be tensors, got others: .'own'"),
    ],
)
def test_penalties_that_return_something_else_are_named(terms: Any, message: str) -> None:
    exact = LinearGaussian()
    objective = RegularizedELBO(penalties=[Wrong(terms)])
    with pytest.raises(TypeError, match=f"Wrong {message}|terms of Wrong {message}"):
        objective.loss(exact.model, exact.guide, exact.data(4))


def test_parameters_of_a_penalty_that_nothing_trains_are_named() -> None:
    with pytest.warns(TrainingWarning, match="Wrong has parameters that nothing trains"):
        RegularizedELBO(penalties=[Wrong({}, nn.Linear(2, 1))])
