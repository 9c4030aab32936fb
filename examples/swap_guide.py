"""Five guides under one model: how close each bound comes to log p(x).

    python examples/swap_guide.py

The model stays as it is; each guide is fitted to draws from it. log p(x) is the model's alone,
exact here by quadrature over two latents. What differs is the bound, by the gap KL(q || p(z | x)),
and what importance sampling from the guide estimates.

The model folds: x ~ N((|z_1|, z_2 + |z_1| / 2), 0.3^2 I), so that p(z | x) has two modes. A guide
that covers one of them leaves out log 2 nats, of the bound and, as its draws never come to the
other, of the estimate too, whatever k-hat says of the draws that it has.
"""

from collections.abc import Sequence

import pyro
import torch
from common import options
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_dpvae import (
    VAE,
    AmortizedGaussian,
    Decoder,
    FlowGuide,
    GaussianEncoder,
    LaplaceGuide,
    RecursiveMixtureGuide,
    RegularizedELBO,
    SemiAmortizedGuide,
    StandardNormal,
    WeightedGaussianEncoder,
)
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import log_likelihoods, posterior_grid
from pyro_dpvae.nn import ARCHITECTURES, Batched
from pyro_dpvae.nn.mlp import mlp_decoder

LATENT = 2


def folded_model() -> VAE:
    """Return the model in float64; its parameters take no gradient."""
    network = mlp_decoder(LATENT, (2,), hidden=(4,))  # with ReLUs: |z| is relu(z) + relu(-z)
    first, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        last.weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 1.0, -1.0]]))
        first.bias.zero_()
        last.bias.zero_()
    decoder = Decoder(network, GaussianLikelihood((2,), variance=0.3**2))
    return VAE(StandardNormal(LATENT), decoder).double().requires_grad_(False).eval()


def guides(model: VAE) -> dict[str, AbstractGuide]:
    """Return guides of the model, each with networks of its own; Laplace looks at the decoder."""

    def network() -> Batched:
        return ARCHITECTURES["mlp"].encoder((2,), hidden=(64, 64))

    def encoder() -> GaussianEncoder:
        return GaussianEncoder(network(), LATENT)

    components = [WeightedGaussianEncoder(network(), LATENT) for _ in range(2)]
    return {
        "amortized": AmortizedGaussian(encoder()),
        "semi-amortized": SemiAmortizedGuide(encoder(), model.decoder, prior=model.prior),
        "Laplace": LaplaceGuide(encoder(), model.decoder, prior=model.prior),
        "recursive mixture": RecursiveMixtureGuide(components, active=1),
        "flow": FlowGuide(network(), LATENT, context=16, hidden=(64,)),
    }


def fit(model: VAE, guide: AbstractGuide, batches: Sequence[Tensor]) -> None:
    """Raise the guide's bound; the model's parameters take no gradient."""
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 3e-3}), loss=RegularizedELBO())
    for x in batches:
        svi.step(x)


def main() -> None:
    """Fit each guide, and print its bound beside log p(x)."""
    found = options(__doc__, steps=1000, data="drawn from the model")
    model = folded_model().to(found.device)
    samples = 500 if found.smoke_test else 5000
    with torch.no_grad():
        batches = model(size=100 * found.steps).split(100)
        x = model(size=200)

    exact = posterior_grid(model.prior, model.decoder, x).log_evidence.mean()
    print(f"log p(x) by quadrature: {exact:.3f}")
    print(f"{'guide':18} {'ELBO':>8} {'gap':>6} {'estimate':>18} {'ESS':>6} {'k > 0.7':>8}")
    for name, guide in guides(model).items():
        guide.to(found.device).double()
        if isinstance(guide, RecursiveMixtureGuide):  # a third of the steps for each stage
            third = max(1, found.steps // 3)
            fit(model, guide, batches[:third])
            growth = batches[third : 2 * third]
            guide.grow(model, growth, steps=third, learning_rate=3e-3, progress=False)
            fit(model, guide, batches[2 * third :])
        else:
            fit(model, guide, batches)
        guide.eval()
        elbo = -RegularizedELBO(num_particles=50).loss(model, guide, x) / len(x)
        log_p = log_likelihoods(model, guide, [x], num_samples=samples, progress=False)
        estimate = log_p.log_likelihood.mean()
        error = f"{estimate:.3f} +- {log_p.monte_carlo_error:.3f}"
        unreliable = (log_p.pareto_k > 0.7).double().mean()
        print(
            f"{name:18} {elbo:8.3f} {exact - elbo:6.3f} {error:>18} "
            f"{log_p.effective_samples.median():6.0f} {unreliable:8.0%}"
        )
    print(f"nats per datum, of {len(x)} data; ESS is the median, of {samples} draws each")


if __name__ == "__main__":
    main()
