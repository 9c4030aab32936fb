"""Mutual posterior divergence: z stays in use under a decoder that could do without.

    python examples/mae.py --root DATA

Reference: Ma, Zhou, Hovy (2019), MAE: mutual posterior-divergence regularization.
"""

from common import images, options, train

from pyro_dpvae import (
    AmortizedGaussian,
    AutoregressiveDecoder,
    AutoregressivePrior,
    GaussianEncoder,
    LossyVAE,
    MutualDivergenceELBO,
)
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES, MaskedPixelNetwork
from pyro_dpvae.objectives import RegularizedELBO

LATENT, FEATURES = 32, 4


def main() -> None:
    """Train the same system under the plain bound and under MAE, and compare the rates."""
    found = options(__doc__, steps=2000)
    batches = images(found)
    x = next(batches.epoch(0))
    shape = tuple(x.shape[1:])
    networks = ARCHITECTURES["residual"]
    for objective in (RegularizedELBO(), MutualDivergenceELBO(1.0, 0.01)):
        likelihood = BernoulliLikelihood(shape)
        pixels = MaskedPixelNetwork(shape, FEATURES, raw_shape=likelihood.raw_shape)
        features = networks.decoder(LATENT, (FEATURES, *shape[1:]))
        decoder = AutoregressiveDecoder(features, pixels, likelihood=likelihood)
        prior = AutoregressivePrior(LATENT, hidden=(128,), mean_only=False)
        model = LossyVAE(prior, decoder)
        guide = AmortizedGaussian(GaussianEncoder(networks.encoder(shape), LATENT))
        train(model, guide, objective, batches, steps=found.steps)
        print(f"{type(objective).__name__}: rate {objective.terms['rate']:.2f} nats")


if __name__ == "__main__":
    main()
