"""The Laplace guide, against exact posteriors and against the algorithm written out."""

import copy
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from pyro_dpvae import (
    VAE,
    CouplingPrior,
    Decoder,
    GaussianEncoder,
    RegularizedELBO,
    StandardNormal,
)
from pyro_dpvae.data import Batches
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.guides import LaplaceGuide, SemiAmortizedGuide
from pyro_dpvae.guides.laplace import _Expansion, _View
from pyro_dpvae.importance import log_weights
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.likelihoods import (
    AbstractLikelihood,
    BernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLearnedVarianceLikelihood,
    GaussianLikelihood,
)
from pyro_dpvae.nn import ARCHITECTURES, Batched
from pyro_dpvae.nn.activations import Activation
from pyro_dpvae.priors import AbstractPrior, MixturePrior
from pyro_dpvae.recipes import System, build_system
from pyro_dpvae.training import TrainConfig, fit

LATENT, DATA, BATCH = 3, 5, 4


def affine_prior() -> CouplingPrior:
    """A coupling prior whose map is affine: constant scales, shifts linear in the kept half."""
    prior = CouplingPrior(LATENT, blocks=3, hidden=(), bound=lambda value: value).double()
    for coupling in prior.couplings:
        nn.init.zeros_(coupling.scale[0].weight)
        nn.init.normal_(coupling.scale[0].bias, std=0.5)
        nn.init.normal_(coupling.shift[0].weight)
    return prior


def coupling_prior(blocks: int = 3) -> CouplingPrior:
    prior = CouplingPrior(LATENT, blocks=blocks, hidden=(8,)).double()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.7)
    return prior


def standard_prior() -> StandardNormal:
    return StandardNormal(LATENT).double()


def mixture_prior() -> MixturePrior:
    return MixturePrior(LATENT, components=4).double()


def coupled_mixture_prior() -> CouplingPrior:
    prior = CouplingPrior(LATENT, blocks=3, hidden=(8,), base=MixturePrior(LATENT, components=4))
    for parameter in prior.couplings.parameters():
        nn.init.normal_(parameter, std=0.7)
    return prior.double()


def by_column() -> GaussianLearnedVarianceLikelihood:
    likelihood = GaussianLearnedVarianceLikelihood((DATA,), by_channel=True)
    likelihood.start_at(torch.randn(50, DATA) * torch.linspace(0.3, 2.0, DATA))
    return likelihood


PRIORS = {
    "standard": standard_prior,
    "affine": affine_prior,
    "coupling": coupling_prior,
    "mixture": mixture_prior,
    "coupled mixture": coupled_mixture_prior,
}
LIKELIHOODS = {
    "gaussian": lambda: GaussianLikelihood((DATA,), variance=0.3),
    "learned": lambda: GaussianLearnedVarianceLikelihood((DATA,)),
    "by column": by_column,
    "bernoulli": lambda: BernoulliLikelihood((DATA,)),
}


def pair(
    prior: AbstractPrior,
    likelihood: AbstractLikelihood,
    *,
    activation: Activation = "relu",
    hidden: tuple[int, ...] = (9, 8),
    **options: object,
) -> tuple[VAE, LaplaceGuide]:
    networks = {"hidden": hidden, "activation": activation}
    mlp = ARCHITECTURES["mlp"]
    decoder = Decoder(mlp.decoder(LATENT, likelihood.raw_shape, **networks), likelihood)
    encoder = GaussianEncoder(mlp.encoder((DATA,), **networks), LATENT)
    for parameter in decoder.network.parameters():
        nn.init.normal_(parameter, std=0.6)
    guide = LaplaceGuide(encoder, decoder, prior=prior, **options).double()
    return VAE(prior, decoder).double(), guide


def log_joint(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    return model.prior().log_prob(z) + model.decoder(z).log_prob(x)


@pytest.mark.parametrize("prior", ["standard", "affine"])
@pytest.mark.parametrize("likelihood", ["gaussian", "learned"])
def test_one_undamped_step_is_the_exact_posterior_of_a_linear_model(
    prior: str, likelihood: str
) -> None:
    pyro.set_rng_seed(0)
    model, guide = pair(
        PRIORS[prior](), LIKELIHOODS[likelihood](), hidden=(), steps=1, damping=0.0
    )
    zero, unit = torch.zeros(1, LATENT).double(), torch.eye(LATENT).double()
    to_z, to_x = model.prior.to_representation, model.decoder.network
    offset, slope = to_z(zero), (to_z(unit) - to_z(zero)).T
    bias, weight = to_x(zero), (to_x(unit) - to_x(zero)).T
    variance = model.decoder(zero).variance[0, 0]
    prior_precision = torch.linalg.inv(slope @ slope.T)
    covariance = torch.linalg.inv(prior_precision + weight.T @ weight / variance)
    x = torch.randn(BATCH, DATA, dtype=torch.float64)
    pulled = (x - bias) @ weight / variance + offset @ prior_precision
    q = guide.posterior(x)
    torch.testing.assert_close(q.mean, pulled @ covariance, rtol=0, atol=1e-9)
    torch.testing.assert_close(q.covariance_matrix[0], covariance, rtol=0, atol=1e-9)

    # With the exact posterior, every draw weighs p(x), and so does the bound.
    of_x = MultivariateNormal(
        (bias + offset @ weight.T).squeeze(0),
        weight @ slope @ slope.T @ weight.T + variance * torch.eye(DATA).double(),
    ).log_prob(x)
    weights = log_weights(model, guide, x, num_samples=50)
    torch.testing.assert_close(weights, of_x.detach().expand(50, -1), rtol=0, atol=1e-7)
    bound = -Trace_ELBO().differentiable_loss(model, guide, x)
    torch.testing.assert_close(bound, of_x.sum(), rtol=0, atol=1e-7)


def written_out(model: VAE, encoder: GaussianEncoder, x: Tensor, steps: int) -> MultivariateNormal:
    """The algorithm for one datum at a time, with dense derivatives and autograd through all."""
    prior, network, likelihood = model.prior, model.decoder.network, model.decoder.likelihood
    modes, precisions = [], []

    def expansion(one: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        def jacobian(function: object) -> Tensor:
            return torch.autograd.functional.jacobian(function, z, create_graph=True)

        raw = network(z)
        curvature = -torch.autograd.functional.hessian(
            lambda value: likelihood(value).log_prob(one), raw, create_graph=True
        )
        of_raw, of_map = jacobian(network), jacobian(lambda value: prior.to_generation(value)[0])
        gradient = jacobian(lambda value: log_joint(model, one, value))
        return gradient, of_raw.T @ curvature @ of_raw + of_map.T @ base_curvature(z) @ of_map

    def base_curvature(z: Tensor) -> Tensor:
        base, z0 = prior.base(), prior.to_generation(z)[0]
        if not isinstance(base, DiagonalNormalMixture):
            return torch.eye(LATENT, dtype=z.dtype)
        log_p = Normal(base.loc, base.scale).log_prob(z0).sum(-1) + base.logits
        return torch.diag((log_p - base.log_prob(z0)).exp() @ base.scale**-2)

    for one, mode in zip(x, encoder(x).mean, strict=True):
        for t in range(steps):
            gradient, precision = expansion(one, mode)
            step = 0.5 / (t + 1) * torch.linalg.solve(precision, gradient)
            here = log_joint(model, one, mode)
            factors = [
                f
                for f in (0.25**k for k in range(6))
                if log_joint(model, one, mode + f * step) >= here
            ]
            mode = mode + max(factors, default=0.0) * step
        modes.append(mode)
        precisions.append(expansion(one, mode)[1])
    return MultivariateNormal(torch.stack(modes), precision_matrix=torch.stack(precisions))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", ["learned", "bernoulli"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_posterior_and_gradients_are_those_of_the_algorithm_written_out(
    prior: str, likelihood: str, activation: Activation
) -> None:
    pyro.set_rng_seed(0)
    model, guide = pair(PRIORS[prior](), LIKELIHOODS[likelihood](), activation=activation, steps=2)
    x = torch.rand(BATCH, DATA).round().double()
    parameters = [*model.parameters(), *guide.encoder.parameters()]
    noise = torch.randn(BATCH, LATENT, dtype=torch.float64)

    def loss(q: MultivariateNormal) -> Tensor:
        z = q.mean + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        return (q.log_prob(z) - log_joint(model, x, z)).sum()

    ours, truth = guide.posterior(x), written_out(model, guide.encoder, x, 2)
    torch.testing.assert_close(ours.mean, truth.mean)
    torch.testing.assert_close(ours.covariance_matrix, truth.covariance_matrix)
    found, expected = (
        torch.autograd.grad(loss(q), parameters, allow_unused=True) for q in (ours, truth)
    )
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_gradients_reach_all_weights_where_outputs_are_many() -> None:
    # As many as make W'W of the last layer the way to the curvature.
    pyro.set_rng_seed(0)
    likelihood = GaussianLearnedVarianceLikelihood((40,))
    mlp = ARCHITECTURES["mlp"]
    decoder = Decoder(mlp.decoder(LATENT, (40,), hidden=(6,)), likelihood).double()
    encoder = GaussianEncoder(mlp.encoder((40,)), LATENT).double()
    guide = LaplaceGuide(encoder, decoder, prior=standard_prior(), steps=1)
    x = torch.randn(9, 40, dtype=torch.float64)
    parameters = list(decoder.parameters())
    gradients = []
    for _ in range(2):
        entropy = guide.posterior(x).entropy().sum()
        gradients.append(torch.autograd.grad(entropy, parameters, materialize_grads=True))
        decoder.network.body[1].register_forward_hook(lambda *_: None)  # makes it no perceptron
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_sharp_coordinate_leaves_the_others_their_variance() -> None:
    decoder = Decoder(ARCHITECTURES["mlp"].decoder(2, (4,), hidden=()), GaussianLikelihood((4,)))
    weight = decoder.network.body[0].weight
    nn.init.zeros_(weight)
    weight.data[:, 0] = 2e4  # a precision of some 1e9 beside one of 1
    encoder = GaussianEncoder(ARCHITECTURES["mlp"].encoder((4,)), 2)
    q = LaplaceGuide(encoder, decoder, prior=StandardNormal(2)).posterior(torch.zeros(3, 4))
    torch.testing.assert_close(q.variance[:, 1], torch.ones(3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("prior", PRIORS)
def test_no_step_lowers_the_joint_where_a_plain_one_would(prior: str) -> None:
    pyro.set_rng_seed(0)
    model, guide = pair(PRIORS[prior](), BernoulliLikelihood((DATA,)), steps=1, damping=0.0)
    for parameter in model.decoder.parameters():
        parameter.data.mul_(4)  # so that the logits saturate
    x = torch.rand(200, DATA).round().double()
    with torch.no_grad():
        mode = guide.encoder(x).mean
        before = log_joint(model, x, mode)
        plain = mode + _Expansion(_View(guide.decoder, guide.prior, x), mode).newton_step()
        assert (log_joint(model, x, plain) < before).any()
        assert (log_joint(model, x, guide.posterior(x).mean) >= before).all()


@pytest.mark.parametrize("prior", ["standard", "coupling"])
def test_an_undamped_search_does_not_stall_short_of_the_mode(prior: str) -> None:
    pyro.set_rng_seed(0)
    model, guide = pair(PRIORS[prior](), BernoulliLikelihood((DATA,)), activation="tanh")
    for parameter in model.decoder.parameters():
        parameter.data.mul_(2)
    x = torch.rand(100, DATA).round().double()
    guide.steps, guide.damping, guide.decay = 100, 0.0, 0.0
    with torch.no_grad():
        mode = guide.posterior(x).mean
    mode.requires_grad_()
    (gradient,) = torch.autograd.grad(log_joint(model, x, mode).sum(), mode)
    assert float(gradient.norm(dim=-1).median()) < 1e-6
    assert float((gradient.norm(dim=-1) < 1e-2).double().mean()) > 0.95


@pytest.mark.parametrize("kind", [LaplaceGuide, SemiAmortizedGuide])
@pytest.mark.parametrize("prior", ["standard", "coupling"])
def test_under_smooth_networks_the_gradient_is_that_of_the_mean_bound(
    kind: type[LaplaceGuide] | type[SemiAmortizedGuide], prior: str
) -> None:
    # By differences wide enough to meet jumps, where there are any: ReLUs fail here.
    pyro.set_rng_seed(0)
    model, laplace = pair(
        PRIORS[prior](), GaussianLikelihood((DATA,), variance=0.3), activation="silu"
    )
    guide = kind(laplace.encoder, laplace.decoder, prior=model.prior).double()
    objective, parameters = RegularizedELBO(), list(model.decoder.parameters())
    directions, width = [0.5 * torch.randn_like(one) for one in parameters], 0.02
    gaps, slopes = [], []
    for seed in range(20):

        def bound(seed: int = seed) -> Tensor:
            pyro.set_rng_seed(seed)
            x = 1.5 * torch.randn(64, DATA, dtype=torch.float64)
            return objective.differentiable_loss(model, guide, x) / len(x)

        def at(step: float, bound: Callable[[], Tensor] = bound) -> float:
            with torch.no_grad():
                for one, direction in zip(parameters, directions, strict=True):
                    one.add_(step * direction)
                found = float(bound())
                for one, direction in zip(parameters, directions, strict=True):
                    one.sub_(step * direction)
            return found

        gradients = torch.autograd.grad(bound(), parameters)
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        slopes.append(slope)
        gaps.append(slope - (at(width) - at(-width)) / (2 * width))
    found, size = torch.tensor(gaps), abs(torch.tensor(slopes).mean())
    assert size > 0.1
    assert abs(found.mean()) < 4 * found.std() / len(gaps) ** 0.5 + 0.01 * size


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_search_ends_at_a_mode_in_representation_space(prior: str, likelihood: str) -> None:
    pyro.set_rng_seed(1)
    model, guide = pair(
        PRIORS[prior](),
        LIKELIHOODS[likelihood](),
        activation="tanh",
        hidden=(6,),
        steps=60,
        damping=0.8,
        decay=0.0,
    )
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    x = torch.rand(BATCH, DATA).round().double()
    with torch.no_grad():
        mode = guide.posterior(x).mean
        # Not by the gradient: it jumps where a unit of the couplings changes sides.
        around = mode + 0.1 * nn.functional.normalize(torch.randn(500, *mode.shape), dim=-1)
        assert (log_joint(model, x, around) < log_joint(model, x, mode)).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_precision_is_the_hessian_for_relus_under_a_standard_prior(likelihood: str) -> None:
    pyro.set_rng_seed(0)
    model, guide = pair(standard_prior(), LIKELIHOODS[likelihood]())
    x = torch.rand(BATCH, DATA).round().double()
    q = guide.posterior(x)
    for one, mode, precision in zip(x, q.mean, q.precision_matrix, strict=True):
        hessian = torch.autograd.functional.hessian(
            lambda z, one=one: -log_joint(model, one, z), mode
        )
        torch.testing.assert_close(precision, hessian)


def test_a_detached_search_has_the_same_posterior_and_passes_gradients_on_as_they_are() -> None:
    pyro.set_rng_seed(0)
    _, guide = pair(coupling_prior(), LIKELIHOODS["bernoulli"]())
    detached = copy.deepcopy(guide)
    detached.detached = True
    x = torch.rand(BATCH, DATA).round().double()
    q, other = guide.posterior(x), detached.posterior(x)
    torch.testing.assert_close(q.mean, other.mean)
    torch.testing.assert_close(q.scale_tril, other.scale_tril)
    assert other.scale_tril.requires_grad
    direction = torch.randn_like(other.mean)
    parameters = list(detached.encoder.parameters())
    found = torch.autograd.grad((other.mean * direction).sum(), parameters)
    expected = torch.autograd.grad((detached.encoder(x).mean * direction).sum(), parameters)
    for one, mean in zip(found, expected, strict=True):
        torch.testing.assert_close(one, mean)


@pytest.mark.parametrize("blocks", [0, 2], ids=["standard", "coupling"])
def test_a_recorded_step_trains_as_an_eager_one(blocks: int) -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    prior = coupling_prior(blocks) if blocks else standard_prior()
    model, guide = pair(prior, LIKELIHOODS["learned"]())
    x = torch.randn(BATCH, DATA, dtype=torch.float64)
    losses = []
    for backend in ("eager", "fx"):
        both = copy.deepcopy((model, guide))
        svi = CapturedSVI(*both, FusedOptim({"lr": 1e-2}), RegularizedELBO(), backend=backend)
        pyro.set_rng_seed(1)
        losses.append([svi.step(x) for _ in range(6)])
    assert svi.recordings == 1
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-6, atol=0)


def test_parts_that_model_and_guide_share_are_stepped_once() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide = pair(coupling_prior(), LIKELIHOODS["learned"]())
    x = torch.randn(BATCH, DATA, dtype=torch.float64)
    before = copy.deepcopy((model, guide))
    objective = RegularizedELBO()
    pyro.set_rng_seed(1)
    loss = objective.differentiable_loss(*before, x)
    parameters = dict(before[0].named_parameters())
    gradients = dict(
        zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
    )
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    SVI(model, guide, pyro.optim.SGD({"lr": 1e-3}), RegularizedELBO()).step(x)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, parameters[name] - 1e-3 * gradients[name])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_sixty_four_latents_on_images_stay_finite_in_float32(shape: tuple[int, ...]) -> None:
    pyro.set_rng_seed(0)
    likelihood = GaussianLearnedVarianceLikelihood(shape)
    nn.init.constant_(likelihood.raw_scale, -20.0)  # the least scale: precisions of a million
    mlp, prior = ARCHITECTURES["mlp"], CouplingPrior(64)
    decoder = Decoder(mlp.decoder(64, likelihood.raw_shape, hidden=(30, 30)), likelihood)
    encoder = GaussianEncoder(mlp.encoder(shape, hidden=(30,)), 64)
    guide = LaplaceGuide(encoder, decoder, prior=prior, steps=2)
    x = torch.rand(3, *shape)
    q = guide.posterior(x)
    (q.rsample().square().sum() - q.entropy().sum()).backward()
    for parameter in decoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        there = guide.posterior(x)
    assert there.scale_tril.dtype == torch.float32
    assert there.scale_tril.isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    decoder = Decoder(ARCHITECTURES["mlp"].decoder(LATENT, (DATA,)), GaussianLikelihood((DATA,)))
    encoder = GaussianEncoder(ARCHITECTURES["mlp"].encoder((DATA,)), LATENT)
    with pytest.raises(ValueError, match="agree on latent_dim, got 3, 3 and 2"):
        LaplaceGuide(encoder, decoder, prior=StandardNormal(2))
    with pytest.raises(ValueError, match=r"damping must be .* got 1\.0"):
        LaplaceGuide(encoder, decoder, prior=StandardNormal(LATENT), damping=1.0)
    with pytest.raises(ValueError, match=r"decay must be at least 0, got -1"):
        LaplaceGuide(encoder, decoder, prior=StandardNormal(LATENT), decay=-1.0)
    logistic = DiscretizedLogisticLikelihood((DATA,))
    decoder = Decoder(ARCHITECTURES["mlp"].decoder(LATENT, logistic.raw_shape), logistic)
    guide = LaplaceGuide(encoder, decoder, prior=StandardNormal(LATENT))
    with pytest.raises(TypeError, match=r"DiscretizedLogisticLikelihood cannot be expanded"):
        guide.posterior(torch.zeros(2, DATA))


def test_batch_norm_in_training_is_refused_and_runs_in_evaluation() -> None:
    body = nn.Sequential(nn.Linear(LATENT, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, DATA))
    network = Batched(body, in_shape=(LATENT,), out_shape=(DATA,))
    encoder = GaussianEncoder(ARCHITECTURES["mlp"].encoder((DATA,)), LATENT)
    prior = StandardNormal(LATENT)
    guide = LaplaceGuide(encoder, Decoder(network, GaussianLikelihood((DATA,))), prior=prior)
    x = torch.randn(BATCH, DATA)
    with pytest.raises(ValueError, match=r"BatchNorm1d 'body\.1' in training mode; use"):
        guide.posterior(x)
    guide.eval()
    assert guide.posterior(x).rsample().isfinite().all()


def laplace_system(network: str, shape: tuple[int, ...]) -> System:
    return build_system(
        shape,
        latent_dim=2,
        dataset_size=100,
        prior={"name": "standard"},
        likelihood={"name": "gaussian"},
        network={"name": network},
        guide={"name": "laplace", "steps": 1},
        objective={"name": "elbo"},
    )


def test_networks_with_batch_norm_are_refused_when_a_system_is_built() -> None:
    with pytest.raises(ValueError, match=r"batch norms .* such as --network residual"):
        laplace_system("celeba", (3, 64, 64))


def test_a_run_that_diverges_says_so() -> None:
    system = laplace_system("moons", (2,))
    data = Batches(torch.randn(40, 2), batch_size=20, preprocessing="none")
    config = TrainConfig(steps=20, learning_rate=1e8)
    with pytest.raises(ValueError, match=r"diverged at step \d+: .*; lower"):
        fit(
            system.model,
            system.guide,
            objective=system.objective,
            train=data,
            test=data,
            config=config,
            progress=False,
        )
