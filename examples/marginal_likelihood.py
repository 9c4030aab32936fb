"""log p(x) of any Pyro model by importance sampling from any guide, and whether to believe it.

    python examples/marginal_likelihood.py

Model and guides here are written by hand, without a class of the library; they share the latent
site's name, and the plate "data". The model is linear and Gaussian, so that log p(x) is known.
With log weights l_k = log p(x, z_k) - log q(z_k | x), z_k ~ q(z | x), of each datum:

    log p(x)     log 1/K sum_k exp(l_k)
    IWAE bound   the same with few draws, averaged: the ELBO for one, log p(x) for many
    ESS          how many independent draws from p(z | x) the K draws are worth
    k-hat        the tail of the weights: above 0.7 the estimate is not to be relied on
"""

import pyro
import pyro.distributions as dist
import torch
from common import moons, options, train
from torch import Tensor

from pyro_dpvae import VAE, AmortizedGaussian, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae.importance import (
    effective_sample_size,
    iwae_bound,
    log_mean_exp,
    log_weights,
    pareto_k,
)
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import log_likelihoods, negative_log_likelihood
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives import RegularizedELBO

WEIGHT = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])  # x = W z + noise
VARIANCE = 0.25
PRECISION = torch.eye(2) + WEIGHT.T @ WEIGHT / VARIANCE  # of p(z | x)


def model(x: Tensor) -> None:
    """Z ~ N(0, I), x ~ N(W z, v I)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHT.T, VARIANCE**0.5).to_event(1), obs=x)


def posterior(x: Tensor, precision: Tensor) -> None:
    """Z ~ N(m, P^-1), with the mean m of p(z | x) and any precision P."""
    mean = x @ WEIGHT / VARIANCE @ PRECISION.inverse()
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(mean, precision_matrix=precision))


GUIDES = {
    "exact": lambda x: posterior(x, PRECISION),
    "mean field": lambda x: posterior(x, PRECISION.diag().diag()),
    "wide": lambda x: posterior(x, 0.5 * PRECISION),
    "too narrow": lambda x: posterior(x, 4.0 * PRECISION),
}


def main() -> None:
    """Estimate log p(x) under each guide beside the exact value; then that of a dpVAE."""
    found = options(__doc__, steps=1000, data="two-moons")
    samples = 1000 if found.smoke_test else 10_000
    p = dist.MultivariateNormal(torch.zeros(3), WEIGHT @ WEIGHT.T + VARIANCE * torch.eye(3))
    x = p.sample((20,))
    exact = p.log_prob(x)

    print(f"exact log p(x): {exact.mean():.3f} nats, the mean of {len(x)} data")
    print(
        f"{'guide':10} {'IWAE, K=1':>10} {'K=10':>8} {'log p(x)':>9} {'worst':>6} {'ESS':>6} k-hat"
    )
    for name, guide in GUIDES.items():
        weights = log_weights(model, guide, x, num_samples=samples)
        estimate = log_mean_exp(weights)
        bounds = [iwae_bound(weights, k).mean() for k in (1, 10)]
        ess, tail = effective_sample_size(weights), pareto_k(weights)
        worst = (estimate - exact).abs().max()
        print(
            f"{name:10} {bounds[0]:10.3f} {bounds[1]:8.3f} {estimate.mean():9.3f} {worst:6.3f} "
            f"{ess.median():6.0f} {tail.median():5.2f}"
        )
        if name != "too narrow":  # weights of bounded variance: five standard errors
            assert worst < 5 * (1 / ess.min() - 1 / samples).clamp(min=0).sqrt() + 1e-4, name

    # The same of the library's parts, averaged over held-out data, with a standard error.
    batches, held_out = moons(found)
    likelihood = GaussianLikelihood((2,), variance=0.01)
    networks = ARCHITECTURES["moons"]
    decoder = Decoder(networks.decoder(2, likelihood.raw_shape), likelihood)
    dpvae = VAE(CouplingPrior(2), decoder)
    guide = AmortizedGaussian(GaussianEncoder(networks.encoder((2,)), 2))
    train(dpvae, guide, RegularizedELBO(), batches, steps=found.steps)
    estimates = log_likelihoods(dpvae, guide, [held_out], num_samples=samples, progress=False)
    nll = negative_log_likelihood(estimates)
    print(
        f"a dpVAE of two moons: -log p(x) = {nll} nats, of which from the draws of z: "
        f"{estimates.monte_carlo_error:.4f}"
    )


if __name__ == "__main__":
    main()
