"""The semi-amortized guide: its steps are each datum's own, go uphill, and reach the truth."""

import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_dpvae.cli import main
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import SemiAmortizedGuide
from pyro_dpvae.importance import log_weights
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.priors import CouplingPrior, StandardNormal
from pyro_dpvae.recipes import System, build_system, open_run
from tests.linear_gaussian import DATA, LATENT, VARIANCE, LinearGaussian


def system(
    prior: str = "coupling", *, objective: str = "elbo", likelihood: str = "gaussian", **guide: Any
) -> System:
    pyro.set_rng_seed(0)
    options = {"hidden": [8], "blocks": 2} if prior == "coupling" else {}
    variance = {"variance": 0.1} if likelihood == "gaussian" else {}
    return build_system(
        (2,),
        latent_dim=2,
        dataset_size=100,
        prior={"name": prior, **options},
        likelihood={"name": likelihood, **variance},
        network={"name": "moons"},
        guide={"name": "semi-amortized", "steps": 2, **guide},
        objective={"name": objective},
    )


def wrong_start(exact: LinearGaussian, **options: Any) -> SemiAmortizedGuide:
    """A guide whose encoder knows nothing of the linear-Gaussian model."""
    encoder = GaussianEncoder(nn.Identity(), LATENT, in_shape=(DATA,))
    model = exact.model
    return SemiAmortizedGuide(encoder, model.decoder, prior=model.prior, **options).double()


def exact_elbo(exact: LinearGaussian, q: dist.Independent, x: Tensor) -> Tensor:
    """The ELBO in closed form: log p(x) - KL(q || posterior)."""
    posterior = exact.guide.posterior(x)
    return exact.log_prob(x) - torch.distributions.kl_divergence(q, posterior)


def test_enough_steps_reach_the_exact_posterior_and_never_fall() -> None:
    exact = LinearGaussian()
    x = exact.data(6)
    guide = wrong_start(exact, steps=120, learning_rate=0.1, max_norm=None)
    with torch.no_grad():
        stages = guide.stages(x)
        bounds = torch.stack([exact_elbo(exact, q, x) for q in stages])
    assert ((bounds[1:] - bounds[:-1]) > -1e-9).all()
    assert (bounds[0] < bounds[-1] - 0.3).all()
    truth = exact.guide.posterior(x)
    torch.testing.assert_close(stages[-1].mean, truth.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(stages[-1].stddev, truth.stddev, rtol=0, atol=1e-5)
    torch.testing.assert_close(bounds[-1], exact.log_prob(x), rtol=0, atol=1e-8)
    weights = log_weights(exact.model, guide, x, num_samples=5)
    torch.testing.assert_close(weights, exact.log_prob(x).expand(5, 6), rtol=0, atol=1e-4)


def test_a_step_is_up_the_gradient_of_the_exact_elbo() -> None:
    exact = LinearGaussian()
    x = exact.data(4)
    guide = wrong_start(exact, steps=1, learning_rate=0.05, max_norm=None)
    first, second = guide.stages(x)
    mean = first.mean.detach().requires_grad_()
    log_scale = first.stddev.log().detach().requires_grad_()
    q = dist.Normal(mean, log_scale.exp()).to_event(1)
    gradients = torch.autograd.grad(exact_elbo(exact, q, x).sum(), [mean, log_scale])
    torch.testing.assert_close(second.mean, mean + 0.05 * gradients[0])
    torch.testing.assert_close(second.stddev.log(), log_scale + 0.05 * gradients[1])


@pytest.mark.parametrize("prior", ["standard", "coupling"])
def test_a_datum_is_refined_alike_in_any_batch(prior: str) -> None:
    guide = system(prior, max_norm=1.0, learning_rate=0.3).guide.double()
    x = torch.randn(7, 2, dtype=torch.float64)
    together = guide.posterior(x)
    for index in range(7):
        alone = guide.posterior(x[index : index + 1])
        torch.testing.assert_close(alone.mean[0], together.mean[index])
        torch.testing.assert_close(alone.stddev[0], together.stddev[index])
    torch.testing.assert_close(guide.posterior(x[0]).mean, together.mean[0])


def moves(guide: SemiAmortizedGuide, x: Tensor) -> list[Tensor]:
    """The vectors, of mu and log sigma, by which each step moves each datum."""
    places = [torch.cat([q.mean, q.stddev.log()], -1) for q in guide.stages(x)]
    return [after - before for before, after in pairwise(places)]


def test_gradients_are_shortened_to_the_norm_and_not_to_its_square() -> None:
    exact = LinearGaussian()
    x = 3 * exact.data(40)
    guide = wrong_start(exact, steps=1, learning_rate=0.002, max_norm=None)
    (free,) = moves(guide, x)
    norms = free.norm(dim=-1) / 0.002
    most = float(norms.detach().median())
    assert most > 1.5  # else the square would be the shorter
    guide.max_norm = most
    (short,) = moves(guide, x)
    expected = torch.where(norms[:, None] > most, free * most / norms[:, None], free)
    torch.testing.assert_close(short, expected)
    assert float(short.detach().norm(dim=-1).max()) == pytest.approx(0.002 * most)


def test_signs_have_exact_moments_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    exact = LinearGaussian()
    pyro.set_rng_seed(5)
    guide = wrong_start(exact, steps=30)
    other_state = torch.get_rng_state()
    pyro.set_rng_seed(5)
    nn.Linear(DATA, 2 * LATENT)
    assert torch.equal(torch.get_rng_state(), other_state)
    torch.set_rng_state(state)
    assert not guide.signs.sum(1).any()
    assert (guide.signs.square() == 1).all()
    assert len(guide.signs.unique(dim=0)) > 1  # from step to step
    assert torch.equal(guide.signs, wrong_start(exact, steps=30).signs)
    assert "signs" not in guide.state_dict()


def test_gradients_pass_through_all_steps() -> None:
    # By hand: a scalar model with q = N(m, s^2), log-joint -k (z - a)^2 / 2 up to constants, and
    # so m_T = a + (1 - r k)^T (m_0 - a), whose derivative by m_0 is (1 - r k)^T.
    exact = LinearGaussian()
    x = exact.data(5)
    rate, steps = 0.05, 3
    precision = 1 + exact.weight.square().sum(0) / VARIANCE
    guide = wrong_start(exact, steps=steps, learning_rate=rate, max_norm=None)
    bias = guide.encoder.network.body[-1].bias

    def derivative() -> Tensor:
        return torch.autograd.grad(guide.posterior(x).mean.sum(), bias)[0][:LATENT]

    torch.testing.assert_close(derivative(), 5 * (1 - rate * precision) ** steps)
    guide.detached = True
    torch.testing.assert_close(derivative(), torch.full((LATENT,), 5.0, dtype=torch.float64))


def test_through_the_steps_the_decoder_learns_of_them_and_detached_it_does_not() -> None:
    made = system()
    x = torch.randn(5, 2)
    parts = [*made.model.decoder.parameters(), *made.model.prior.parameters()]
    for detached in (False, True):
        made.guide.detached = detached
        q = made.guide.posterior(x)
        found = torch.autograd.grad(q.mean.sum() + q.stddev.sum(), parts, allow_unused=True)
        reached = [gradient is not None and bool(gradient.any()) for gradient in found]
        assert not any(reached) if detached else sum(reached) > len(parts) / 2


def test_the_gradient_through_the_steps_is_that_of_finite_differences() -> None:
    guide = system(max_norm=0.5, learning_rate=0.3).guide.double()
    x = torch.randn(3, 2, dtype=torch.float64)
    weight = guide.decoder.network.body[0].weight
    direction = torch.randn_like(weight)

    def refined(step: float) -> Tensor:
        with torch.no_grad():
            weight.add_(step * direction)
            q = guide.posterior(x)
            weight.sub_(step * direction)
        return q.mean.sum() + q.stddev.sum()

    q = guide.posterior(x)
    (gradient,) = torch.autograd.grad(q.mean.sum() + q.stddev.sum(), weight)
    expected = (refined(1e-6) - refined(-1e-6)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("detached", [False, True])
def test_evaluation_refines_as_training_does_and_leaves_no_graph(detached: bool) -> None:
    guide = system(detached=detached).guide
    x = torch.randn(5, 2)
    trained = guide.posterior(x)
    assert trained.mean.requires_grad
    guide.eval()
    with torch.no_grad():
        evaluated = guide.posterior(x)
    assert not evaluated.mean.requires_grad
    torch.testing.assert_close(evaluated.mean, trained.mean)
    torch.testing.assert_close(evaluated.stddev, trained.stddev)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"under torch.no_grad\(\)"):
        guide.posterior(x)


def test_frozen_parts_are_refined_with_too() -> None:
    made = system()
    x = torch.randn(5, 2)
    expected = made.guide.posterior(x)
    made.guide.eval().requires_grad_(False)
    found = made.guide.posterior(x)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.stddev, expected.stddev)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    made = system(likelihood="gaussian-learned")
    x = torch.randn(5, 2)
    expected = made.guide.posterior(x).mean
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype=dtype):
            found = made.guide.posterior(x).mean
            made.guide(x).sum().backward()
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    else:
        found = made.guide.double().posterior(x.double()).mean
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [SVI, CapturedSVI])
def test_shared_parameters_are_stepped_once(kind: type[SVI]) -> None:
    made = system()
    hand = copy.deepcopy(made)
    x = torch.randn(6, 2)
    optim = FusedOptim({"lr": 0.01}, constructor=torch.optim.SGD)
    svi = kind(made.model, made.guide, optim, made.objective)
    parameters = list(dict.fromkeys([*hand.model.parameters(), *hand.guide.parameters()]))
    assert len(parameters) < len([*hand.model.parameters(), *hand.guide.parameters()])
    for _ in range(5):
        pyro.set_rng_seed(1)
        svi.step(x)
        pyro.set_rng_seed(1)
        q = hand.guide.posterior(x)
        z = q.rsample()
        bound = hand.model.decoder(z).log_prob(x) + hand.model.prior().log_prob(z) + q.entropy()
        gradients = torch.autograd.grad(-bound.sum(), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(0.01 * gradient)
    stepped = dict.fromkeys([*made.model.parameters(), *made.guide.parameters()])
    for one, other in zip(stepped, parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("prior", "detached"), [("standard", True), ("coupling", False)])
def test_recorded_steps_are_those_of_svi(prior: str, detached: bool) -> None:
    losses, parameters = [], []
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(5, 16, 2, generator=generator)
    for make in (SVI, CapturedSVI):
        pyro.clear_param_store()
        made = system(prior, detached=detached, max_norm=1.0)
        optim = FusedOptim({"lr": 1e-2})
        svi = make(made.model, made.guide, optim, made.objective)
        pyro.set_rng_seed(1)
        losses.append([svi.step(x) for x in data])
        parameters.append([p.detach() for p in made.guide.parameters()])
    assert svi.recordings == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for one, other in zip(*parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_weights_are_of_the_refined_posterior() -> None:
    made = system("coupling")
    x = torch.randn(6, 2)
    pyro.set_rng_seed(2)
    found = log_weights(made.model, made.guide, x, num_samples=4000)
    objective = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=1)
    error = float(found.sum(1).std()) / math.sqrt(4000)
    with torch.no_grad():
        bound = -objective.loss(made.model, made.guide, x)
    assert float(found.mean(0).sum()) == pytest.approx(bound, abs=5 * error)


def test_refinement_helps_an_encoder_that_has_learned_nothing() -> None:
    x = torch.randn(20, 2)
    for prior in ("standard", "coupling"):
        made = system(prior, steps=4, learning_rate=0.1)
        objective = RegularizedELBO(
            num_particles=500, vectorize_particles=True, max_plate_nesting=1
        )
        bounds = []
        with torch.no_grad():
            for q in made.guide.stages(x):
                z = q.sample((2000,))
                joint = made.model.decoder(z).log_prob(x) + made.model.prior().log_prob(z)
                bounds.append(float((joint.mean(0) + q.entropy()).sum()))
        assert all(after > before for before, after in pairwise(bounds))
        found = -SVI(made.model, made.guide, pyro.optim.SGD({}), objective).evaluate_loss(x)
        assert found == pytest.approx(bounds[-1], rel=0.02)


def test_parts_that_do_not_fit_are_refused() -> None:
    decoder = Decoder(nn.Linear(2, 3), GaussianLikelihood((3,)))
    encoder = GaussianEncoder(nn.Identity(), 2, in_shape=(3,))
    with pytest.raises(ValueError, match="must agree on latent_dim, got 2, 2 and 3"):
        SemiAmortizedGuide(encoder, decoder, prior=StandardNormal(3))
    prior = CouplingPrior(2)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        SemiAmortizedGuide(encoder, decoder, prior=prior, steps=0)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite, got -1"):
        SemiAmortizedGuide(encoder, decoder, prior=prior, learning_rate=-1)
    with pytest.raises(ValueError, match="max_norm must be positive and finite, got 0"):
        SemiAmortizedGuide(encoder, decoder, prior=prior, max_norm=0)


def test_a_copy_of_both_shares_its_own_parts() -> None:
    made = system()
    model, guide = copy.deepcopy((made.model, made.guide))
    assert isinstance(model, VAE)
    assert guide.decoder is model.decoder
    assert guide.prior is model.prior
    assert guide.decoder is not made.model.decoder


def test_a_run_from_the_command_line_opens_with_its_posterior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    options = ["--guide.steps", "2", "--guide.max_norm", "null", "--guide.learning_rate", "0.1"]
    data = ["--data", "two-moons", "--latent-dim", "2", "--batch-size", "20", "--steps", "2"]
    data += ["--backend", "eager"]
    assert main(["train", *data, "--guide", "semi-amortized", *options, "--out", out]) == 0
    assert "held-out ELBO" in capsys.readouterr().out
    made = open_run(out).system
    assert isinstance(made.guide, SemiAmortizedGuide)
    assert (len(made.guide.signs), made.guide.max_norm) == (2, None)
    for one, other in zip(
        made.guide.decoder.parameters(), made.model.decoder.parameters(), strict=True
    ):
        assert one is other
