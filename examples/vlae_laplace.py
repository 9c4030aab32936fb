"""A Laplace guide: q(z | x) is a full Gaussian at the mode of p(z | x).

    python examples/vlae_laplace.py --root DATA

Reference: Park, Kim, Kim (2019), Variational Laplace autoencoders.
"""

from common import images, options, train

from pyro_dpvae import VAE, CouplingPrior, Decoder, GaussianEncoder, LaplaceGuide
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.metrics import log_likelihoods, negative_log_likelihood
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives import RegularizedELBO

LATENT = 8


def main() -> None:
    """Train a dpVAE under a Laplace guide, and estimate its likelihood."""
    found = options(__doc__, steps=1000)
    batches = images(found)
    x = next(batches.epoch(0))
    shape = tuple(x.shape[1:])
    likelihood = BernoulliLikelihood(shape)
    networks = ARCHITECTURES["mlp"]
    network = networks.decoder(LATENT, likelihood.raw_shape, hidden=(256, 256))

    model = VAE(CouplingPrior(LATENT), Decoder(network, likelihood))
    encoder = GaussianEncoder(networks.encoder(shape, hidden=(256, 256)), LATENT)
    guide = LaplaceGuide(encoder, model.decoder, prior=model.prior, steps=2)
    train(model, guide, RegularizedELBO(), batches, steps=found.steps)

    estimates = log_likelihoods(model, guide, [x[:20]], num_samples=100)
    print(f"-log p(x): {negative_log_likelihood(estimates).value:.2f} nats per image")


if __name__ == "__main__":
    main()
