"""Adversaries: no gradient leaks either way, they learn what they should, their state is kept."""

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import (
    AdversarialDivergence,
    AdversarialTotalCorrelation,
    FactorELBO,
    Latents,
    RegularizedELBO,
)
from pyro_dpvae.objectives.penalties import adversarial
from pyro_dpvae.objectives.penalties.adversarial import Adversary, permute_coordinates
from pyro_dpvae.priors import CouplingPrior
from tests.gaussian_latents import latents_of
from tests.linear_gaussian import LATENT, LinearGaussian

BATCH = 12


@pytest.fixture
def exact() -> LinearGaussian:
    return LinearGaussian()


def factor(gamma: float = 30.0) -> FactorELBO:
    torch.manual_seed(11)
    return FactorELBO(gamma, latent_dim=LATENT, hidden=(16, 16), learning_rate=1e-2)


def adversary_of(objective: FactorELBO) -> Adversary:
    (penalty,) = objective.penalties
    assert isinstance(penalty, AdversarialTotalCorrelation)
    return penalty.adversary


def weights(adversary: Adversary) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in adversary.network.parameters()]


# From the adversary to the encoder.


def check_encoder_gradient(exact: LinearGaussian) -> None:
    """The gradient is that of the bound and of gamma times the mean of a fixed D."""
    x = exact.data(BATCH)
    parameters = list(exact.guide.parameters())
    objective = factor()
    pyro.set_rng_seed(2)
    objective.loss_and_grads(exact.model, exact.guide, x)
    found = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None

    pyro.set_rng_seed(2)
    RegularizedELBO().loss_and_grads(exact.model, exact.guide, x)
    without = [parameter.grad for parameter in parameters]
    network = adversary_of(factor()).network
    pyro.set_rng_seed(2)
    total_correlation = network(exact.guide.encoder(x).rsample().float()).mean()
    of_penalty = torch.autograd.grad(30.0 * BATCH * total_correlation, parameters)
    for gradient, first, second in zip(found, without, of_penalty, strict=True):
        torch.testing.assert_close(gradient, first + second, rtol=1e-5, atol=1e-5)


def test_the_encoder_feels_the_estimate_alone(exact: LinearGaussian) -> None:
    check_encoder_gradient(exact)


def undetached(adversary: Adversary, r: Tensor, s: Tensor) -> None:
    """The discriminator's loss taken back through z, as other libraries do."""
    of_r, of_s = adversary.logits(r), adversary.logits(s)
    loss = (softplus(-of_r).mean() + softplus(of_s).mean()) / 2
    loss.backward(retain_graph=True)
    adversary.optimizer.step()
    adversary.optimizer.zero_grad()


def test_the_encoder_shows_an_undetached_adversary(
    exact: LinearGaussian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adversary, "learn", undetached)
    with pytest.raises(AssertionError):
        check_encoder_gradient(exact)


# From the encoder's loss to the adversary.


@pytest.mark.parametrize("gamma", [1.0, 1000.0])
def test_the_adversary_feels_its_own_loss_alone(exact: LinearGaussian, gamma: float) -> None:
    x = exact.data(BATCH)
    objective = factor(gamma)
    adversary = adversary_of(objective)
    twin = adversary_of(factor())
    svi = pyro.infer.SVI(exact.model, exact.guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
    pyro.set_rng_seed(4)
    z = exact.guide.encoder(x).rsample().detach().float()
    order = torch.rand(BATCH // 2, LATENT, dtype=torch.float64).argsort(0)
    pyro.set_rng_seed(4)
    svi.step(x)

    half = BATCH // 2
    permuted = z[half:].gather(0, order)
    logits = twin.network(torch.cat([z[:half], permuted])).squeeze(-1)
    loss = binary_cross_entropy_with_logits(logits, torch.arange(BATCH).lt(half).float())
    optimizer = torch.optim.Adam(twin.network.parameters(), lr=1e-2, betas=(0.5, 0.9))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for found, expected in zip(weights(adversary), weights(twin), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in adversary.network.parameters())
    stored = {id(parameter) for parameter in pyro.get_param_store().values()}
    assert not stored & {id(parameter) for parameter in adversary.network.parameters()}


def test_evaluation_does_not_train_the_adversary(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    objective = factor()
    before = weights(adversary_of(objective))
    objective.loss(exact.model, exact.guide, x)
    for found, expected in zip(weights(adversary_of(objective)), before, strict=True):
        assert torch.equal(found, expected)
    objective.loss_and_grads(exact.model, exact.guide, x)
    assert not torch.equal(weights(adversary_of(objective))[0], before[0])


def test_the_estimate_has_the_value_and_slope_of_d() -> None:
    adversary = Adversary(3, hidden=(8,), learning_rate=1e-3).double()
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    estimate = adversary.estimate(torch.mean, z)
    direct = adversary.logits(z).mean()
    assert float(estimate.detach()) == float(direct.detach())
    (found,) = torch.autograd.grad(estimate, z)
    (expected,) = torch.autograd.grad(direct, z)
    torch.testing.assert_close(found, expected)


# What an adversary learns.


def check_learned_total_correlation() -> None:
    """Of a Gaussian with correlation rho and unequal scales, -log(1 - rho^2) / 2."""
    torch.manual_seed(0)
    rho = 0.9
    penalty = AdversarialTotalCorrelation(1.0, latent_dim=2, hidden=(64, 64), learning_rate=2e-3)

    def draw(count: int) -> Tensor:
        a, b = torch.randn(2, count)
        return torch.stack([a, 2 * (rho * a + math.sqrt(1 - rho**2) * b)], -1)

    scale = torch.ones(1000, 2)
    for _ in range(400):
        penalty.learn([latents_of(torch.zeros(1000, 2), scale, draw(1000))])
        penalty.update()
    with torch.no_grad():
        points = draw(20_000)
        latents = latents_of(torch.zeros_like(points), torch.ones_like(points), points)
        found = float(penalty(latents)["adversarial_total_correlation"])
    assert found == pytest.approx(-math.log(1 - rho**2) / 2, rel=0.15)


def test_the_adversary_learns_the_total_correlation() -> None:
    check_learned_total_correlation()


def within_a_sample(z: Tensor, noise: Tensor) -> Tensor:
    """Coordinates change places within each datum."""
    return z.gather(-1, noise.argsort(-1))


def together(z: Tensor, noise: Tensor) -> Tensor:
    """All coordinates of a datum move to another one."""
    return z[noise[:, 0].argsort()]


@pytest.mark.parametrize("mutant", [within_a_sample, together])
def test_learning_shows_a_wrong_permutation(
    mutant: Callable[[Tensor, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adversarial, "permute_coordinates", mutant)
    with pytest.raises(AssertionError):
        check_learned_total_correlation()


def test_permuting_keeps_each_coordinate_and_breaks_pairs() -> None:
    z = torch.arange(400.0).reshape(2, 100, 2)
    permuted = permute_coordinates(z, torch.rand_like(z))
    assert torch.equal(permuted.sort(-2).values, z)
    paired = (permuted[..., 1] - permuted[..., 0] == 1).float().mean()
    assert float(paired) < 0.1


def test_the_adversary_learns_the_jensen_shannon_divergence() -> None:
    torch.manual_seed(0)
    shift = 1.5
    penalty = AdversarialDivergence(1.0, latent_dim=1, hidden=(32,), learning_rate=5e-3)

    def latents(count: int) -> Latents:
        return latents_of(torch.full((count, 1), shift), torch.ones(count, 1))

    for _ in range(300):
        penalty.learn([latents(1000)])
        penalty.update()
    with torch.no_grad():
        found = float(penalty(latents(50_000))["jensen_shannon"])
    grid = torch.linspace(-8, 10, 20_001, dtype=torch.float64)
    log_q = torch.distributions.Normal(shift, 1.0).log_prob(grid)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
    log_m = torch.logaddexp(log_q, log_p) - math.log(2)
    integrand = (log_q.exp() * (log_q - log_m) + log_p.exp() * (log_p - log_m)) / 2
    assert found == pytest.approx(float(torch.trapezoid(integrand, grid)), rel=0.1)


def test_the_jensen_shannon_gradient_moves_q_towards_p_and_reaches_the_prior() -> None:
    penalty = AdversarialDivergence(1.0, latent_dim=2, hidden=(32,), learning_rate=5e-3)
    prior = CouplingPrior(2)
    loc = torch.full((200, 2), 2.0, requires_grad=True)
    for _ in range(100):
        latents = latents_of(loc, torch.ones(200, 2), prior=prior().expand((200,)))
        penalty.learn([latents])
        penalty.update()
    term = penalty(latents)["jensen_shannon"]
    gradients = torch.autograd.grad(term, [loc, *prior.parameters()])
    assert bool((gradients[0].mean(0) > 0).all())
    assert all(bool((gradient != 0).any()) for gradient in gradients)


# What is kept and refused.


def test_a_restored_objective_goes_on_bit_for_bit(exact: LinearGaussian) -> None:
    batches = [exact.data(BATCH) for _ in range(6)]

    def step(objective: FactorELBO, x: Tensor, seed: int) -> None:
        pyro.set_rng_seed(seed)
        objective.loss_and_grads(exact.model, exact.guide, x)

    whole = factor()
    for seed, x in enumerate(batches):
        step(whole, x, seed)
        if seed == 2:
            state = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    resumed = FactorELBO(30.0, latent_dim=LATENT, hidden=(16, 16), learning_rate=1e-2)
    resumed.load_state_dict(state)
    assert resumed.step == 3
    for seed, x in enumerate(batches[3:], 3):
        step(resumed, x, seed)
    found = resumed.state_dict()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_loading_copies_and_refuses_what_does_not_fit(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    first, second = factor(), factor()
    first.loss_and_grads(exact.model, exact.guide, x)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    second.load_state_dict(first.state_dict())
    second.loss_and_grads(exact.model, exact.guide, x)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, before[name]), name

    partial = {name: t for name, t in before.items() if not name.endswith("0.exp_avg_sq")}
    small = FactorELBO(1.0, latent_dim=LATENT, hidden=(4,))
    small.loss_and_grads(exact.model, exact.guide, x)
    for state, message in (
        (partial, r"parameter 0 .* must have step, and exp_avg and exp_avg_sq of shape \(16, 2\)"),
        (small.state_dict(), "size mismatch"),
        (
            {**before, "nonsense": torch.zeros(1)},
            r"belongs to an objective with other parts, got \['nonse",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            first.load_state_dict(state)
        first.loss_and_grads(exact.model, exact.guide, x)


def test_an_unused_objective_has_a_state() -> None:
    other = FactorELBO(30.0, latent_dim=LATENT, hidden=(16, 16))
    other.load_state_dict(factor().state_dict())
    for found, expected in zip(
        weights(adversary_of(other)), weights(adversary_of(factor())), strict=True
    ):
        assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="state must have the entry 'step'"):
        other.load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(FactorELBO(30.0, latent_dim=5, hidden=(16, 16)).state_dict())


def test_bad_sizes_are_refused(exact: LinearGaussian) -> None:
    with pytest.raises(ValueError, match=r"must be at least 4, got 3"):
        factor().loss(exact.model, exact.guide, exact.data(3))
    wrong = FactorELBO(1.0, latent_dim=5, hidden=(8,))
    with pytest.raises(ValueError, match="latent_dim must be the size of z, 2, got 5"):
        wrong.loss(exact.model, exact.guide, exact.data(BATCH))
    with pytest.raises(ValueError, match="learning_rate must be"):
        FactorELBO(1.0, latent_dim=2, learning_rate=0.0)
    elsewhere = FactorELBO(1.0, latent_dim=LATENT, hidden=(8,)).to("meta")
    with pytest.raises(ValueError, match=r"on the device of z, cpu, got meta; call objective"):
        elsewhere.loss(exact.model, exact.guide, exact.data(BATCH))


def test_a_batch_with_nan_does_no_lasting_harm(exact: LinearGaussian) -> None:
    objective = factor()
    bad = exact.data(BATCH)
    bad[0] = torch.nan
    pyro.enable_validation(False)
    with pytest.warns(UserWarning, match="Encountered NaN"):
        objective.differentiable_loss(exact.model, exact.guide, bad)
    assert all(bool(weight.isfinite().all()) for weight in weights(adversary_of(objective)))
    assert objective.loss_and_grads(exact.model, exact.guide, exact.data(BATCH)).isfinite()


def test_a_loss_that_is_not_finite_teaches_nothing(exact: LinearGaussian) -> None:
    # The likelihood alone is infinite: z, the estimate and the adversary's gradients are numbers.
    def model(x: Tensor, *, bad: bool) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)
            pyro.factor("bad", torch.full((len(x),), torch.inf if bad else 0.0))

    def guide(x: Tensor, *, bad: bool) -> None:
        exact.guide(x)

    objective, x = factor(), exact.data(BATCH)
    adversary = adversary_of(objective)
    optimizer = adversary.optimizer.state
    pyro.enable_validation(False)  # which warns of an infinite density
    for bad, step in ((False, 1), (True, 1), (False, 2)):
        before = weights(adversary)
        loss, _ = objective.evaluate(model, guide, x, bad=bad)
        assert bool(loss.isfinite()) != bad
        assert all(bool(one.grad.isfinite().all()) for one in adversary.network.parameters())
        objective.update()
        moved = not all(map(torch.equal, before, weights(adversary)))
        assert moved != bad
        assert {float(entries["step"]) for entries in optimizer.values()} == {step}


def test_the_adversary_learns_once_a_step_from_all_particles(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    for vectorize in (False, True):
        objective = FactorELBO(
            1.0,
            latent_dim=LATENT,
            hidden=(4,),
            num_particles=3,
            vectorize_particles=vectorize,
            max_plate_nesting=1,
        )
        objective.loss_and_grads(exact.model, exact.guide, x)
        steps = objective.state_dict()["penalties.0.adversary.optimizer.0.step"]
        assert float(steps) == 1.0


def test_the_optimizer_goes_where_the_adversary_goes(exact: LinearGaussian) -> None:
    objective = factor()
    objective.loss_and_grads(exact.model, exact.guide, exact.data(BATCH))
    objective.penalties[0].double()
    objective.loss_and_grads(exact.model, exact.guide, exact.data(BATCH))
    moments = objective.to("meta").state_dict()["penalties.0.adversary.optimizer.0.exp_avg"]
    assert moments.device.type == "meta"


def test_couplings_learn_under_the_adversary(exact: LinearGaussian) -> None:
    model = VAE(CouplingPrior(LATENT).double(), exact.model.decoder)
    objective = factor()
    objective.loss_and_grads(model, exact.guide, exact.data(BATCH))
    assert all(bool((p.grad != 0).any()) for p in model.prior.parameters())
