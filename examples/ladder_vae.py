"""A ladder VAE: what each depth of the network holds, and a decoupled prior for each.

    python examples/ladder_vae.py --root DATA

Reference: Zhao, Song, Ermon (2017), Learning hierarchical features from generative models.
"""

from pathlib import Path

import torch
from common import images, options, train

from pyro_dpvae import CouplingPrior, Decoder, GaussianEncoder, LadderGuide, LadderVAE
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import LADDERS, default_ladder
from pyro_dpvae.objectives import BetaELBO, SaturatingSchedule
from pyro_dpvae.plots import layer_codes, layers_figure

LATENT_DIMS = (2, 2, 2)


def main() -> None:
    """Train a ladder, and draw what each layer changes."""
    found = options(__doc__, steps=3000)
    batches = images(found)
    x = next(batches.epoch(0))
    shape = tuple(x.shape[1:])
    architecture = LADDERS[default_ladder(shape)]
    likelihood = BernoulliLikelihood(shape)
    encoder = architecture.encoder(shape, latent_dims=LATENT_DIMS, width=16)
    decoder = architecture.decoder(
        sum(LATENT_DIMS), likelihood.raw_shape, latent_dims=LATENT_DIMS, width=16
    )

    model = LadderVAE([CouplingPrior(size) for size in LATENT_DIMS], Decoder(decoder, likelihood))
    guide = LadderGuide(GaussianEncoder(encoder, sum(LATENT_DIMS)), LATENT_DIMS)
    # The rate comes in by and by, so that no layer is given up at the start.
    warm_up = SaturatingSchedule(0.0, 1.0, steps=found.steps)
    train(model, guide, BetaELBO(warm_up), batches, steps=found.steps)

    with torch.no_grad():
        origin = guide.posterior(x[:1]).mean[0]
        codes = layer_codes(model.prior, origin)
        layers = {name: model.decoder(z).mean for name, z in codes.items()}
    path = Path(found.out) / "ladder.png"
    layers_figure(layers).savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
