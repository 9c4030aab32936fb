"""Every prior in whole systems: recorded training, importance weights, a Laplace guide."""

import copy
from collections.abc import Callable

import pyro
import pytest
import torch
import zuko
from pyro.infer import SVI

from pyro_dpvae import VAE, Decoder, GaussianEncoder, RegularizedELBO
from pyro_dpvae.guides import AmortizedGaussian, LaplaceGuide
from pyro_dpvae.importance import log_weights
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives.penalties import MMD
from pyro_dpvae.priors import (
    PRIORS,
    AbstractPrior,
    AutoregressivePrior,
    ResampledPrior,
    VampPrior,
    ZukoPrior,
)

LATENT, SHAPE, BATCH = 3, (1, 3, 3), 6
MADE: dict[str, Callable[[GaussianEncoder], AbstractPrior]] = {
    "mixture": lambda _: PRIORS["mixture"](LATENT, components=4),
    "coupling-mixture": lambda _: PRIORS["coupling-mixture"](
        LATENT, blocks=1, hidden=(8,), components=4
    ),
    "autoregressive": lambda _: AutoregressivePrior(
        LATENT, blocks=1, hidden=(8,), mean_only=False
    ),
    "resampled": lambda _: ResampledPrior(LATENT, hidden=(8,), truncation=9),
    "vamp": lambda encoder: VampPrior(encoder, torch.rand(5, *SHAPE)),
    "zuko": lambda _: ZukoPrior(zuko.flows.MAF(LATENT, transforms=1, hidden_features=(8,))),
}


@pytest.fixture(params=list(MADE))
def system(request: pytest.FixtureRequest) -> tuple[VAE, AmortizedGaussian]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    likelihood, mlp = BernoulliLikelihood(SHAPE), ARCHITECTURES["mlp"]
    decoder = Decoder(mlp.decoder(LATENT, likelihood.raw_shape, hidden=(8,)), likelihood)
    encoder = GaussianEncoder(mlp.encoder(SHAPE, hidden=(8,)), LATENT)
    with torch.no_grad():  # wider than the priors, as weights need it
        encoder.network.body[-1].bias[LATENT:] += 1.5
    return VAE(MADE[request.param](encoder), decoder), AmortizedGaussian(encoder)


def data() -> torch.Tensor:
    return torch.rand(BATCH, *SHAPE).round()


def test_recorded_steps_are_those_of_svi_and_move_every_parameter(
    system: tuple[VAE, AmortizedGaussian],
) -> None:
    x, losses = data(), []
    before = copy.deepcopy(list(torch.nn.ModuleList(system).parameters()))
    for backend in ("eager", "fx"):
        model, guide = copy.deepcopy(system)
        objective = RegularizedELBO(penalties=[MMD(1.0)])
        svi = CapturedSVI(model, guide, FusedOptim({"lr": 1e-2}), objective, backend=backend)
        pyro.set_rng_seed(1)
        losses.append([svi.step(x) for _ in range(3)])
    assert svi.recordings == 1
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=0)
    after = list(torch.nn.ModuleList([model, guide]).parameters())
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_weights_of_draws_average_to_the_evidence(
    system: tuple[VAE, AmortizedGaussian],
) -> None:
    model, guide = (part.eval() for part in system)
    x = data()
    with torch.no_grad():
        z = model.prior().sample((10_000, 1))
        likelihoods = model.decoder(z).log_prob(x).double().exp()
        weights = log_weights(model, guide, x, num_samples=2000).exp()
    error = (weights.var(0) / len(weights) + likelihoods.var(0) / len(likelihoods)).sqrt()
    assert ((weights.mean(0) - likelihoods.mean(0)).abs() < 4 * error).all()
    assert (error < 0.1 * likelihoods.mean(0)).all()


@pytest.mark.parametrize(
    "system", ["autoregressive", "resampled", "vamp", "zuko"], indirect=True
)  # the others' posteriors are in test_laplace
def test_a_laplace_guide_searches_under_every_prior(system: tuple[VAE, AmortizedGaussian]) -> None:
    model, amortized = system
    guide = LaplaceGuide(amortized.encoder, model.decoder, prior=model.prior, steps=3).eval()
    model.eval()
    x = data()
    q = guide.posterior(x)
    with torch.no_grad():
        ends, starts = (
            model.prior().log_prob(z) + model.decoder(z).log_prob(x)
            for z in (q.mean, amortized.encoder(x).mean)
        )
    assert (ends >= starts).all()
    assert ends.mean() > starts.mean()
    loss = SVI(model, guide, pyro.optim.SGD({"lr": 1e-3}), RegularizedELBO()).step(x)
    assert torch.tensor(loss).isfinite()
