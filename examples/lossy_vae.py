"""A lossy VAE: pixels near by are the decoder's own affair, and z keeps the rest.

    python examples/lossy_vae.py --root DATA

Reference: Chen et al. (2017), Variational lossy autoencoder.
"""

from pathlib import Path

import torch
from common import images, options, train

from pyro_dpvae import (
    AmortizedGaussian,
    AutoregressiveDecoder,
    AutoregressivePrior,
    GaussianEncoder,
    LossyVAE,
)
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES, LocalPixelNetwork
from pyro_dpvae.objectives import FreeBitsELBO
from pyro_dpvae.plots import sample_figure

LATENT, FEATURES = 32, 4


def main() -> None:
    """Train a lossy VAE, and draw images with what z alone decides."""
    found = options(__doc__, steps=2000)
    batches = images(found)
    x = next(batches.epoch(0))
    shape = tuple(x.shape[1:])
    likelihood = BernoulliLikelihood(shape)
    networks = ARCHITECTURES["residual"]
    pixels = LocalPixelNetwork(shape, FEATURES, raw_shape=likelihood.raw_shape, width=16)
    features = networks.decoder(LATENT, (FEATURES, *shape[1:]))
    decoder = AutoregressiveDecoder(features, pixels, likelihood=likelihood)

    model = LossyVAE(AutoregressivePrior(LATENT, hidden=(128,)), decoder)
    guide = AmortizedGaussian(GaussianEncoder(networks.encoder(shape), LATENT))
    train(model, guide, FreeBitsELBO(4.0), batches, steps=found.steps)

    with torch.no_grad():
        z = guide.posterior(x[:5]).mean
        again = decoder(z).sample((4,))  # of one z: what is left to the decoder
    path = Path(found.out) / "lossy.png"
    sample_figure(torch.cat([x[:5], again.flatten(0, 1)])).savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
