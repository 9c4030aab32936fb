"""A recursive mixture: components of q(z | x) are added where the others fall short.

    python examples/rme.py --root DATA

Reference: Kim, Pavlovic (2020), Recursive inference for variational autoencoders.
"""

from common import images, options, train

from pyro_dpvae import VAE, CouplingPrior, Decoder, RecursiveMixtureGuide, WeightedGaussianEncoder
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives import RegularizedELBO

LATENT, COMPONENTS = 8, 3


def main() -> None:
    """Train a dpVAE, adding components to its guide."""
    found = options(__doc__, steps=1000)
    batches = images(found)
    x = next(batches.epoch(0))
    shape = tuple(x.shape[1:])
    likelihood = BernoulliLikelihood(shape)
    networks = ARCHITECTURES["mlp"]
    network = networks.decoder(LATENT, likelihood.raw_shape, hidden=(256, 256))

    model = VAE(CouplingPrior(LATENT), Decoder(network, likelihood))
    encoders = [
        WeightedGaussianEncoder(networks.encoder(shape, hidden=(256, 256)), LATENT)
        for _ in range(COMPONENTS)
    ]
    guide = RecursiveMixtureGuide(encoders, active=1)
    steps = max(1, found.steps // COMPONENTS)
    train(model, guide, RegularizedELBO(), batches, steps=steps)
    for _ in range(COMPONENTS - 1):
        guide.grow(model, batches.epoch, steps=max(1, steps // 4))
        train(model, guide, RegularizedELBO(), batches, steps=steps)


if __name__ == "__main__":
    main()
