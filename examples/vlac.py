"""A clustering ladder: digits sorted without labels, and drawn cluster by cluster.

    python examples/vlac.py --root DATA

Clusters that start at random are lost early. So a sixth of the steps has little weight on the
rate; k-means of the representations then gives the clusters their start.

Reference: Willetts, Roberts, Holmes (2019), Disentangling to cluster.
"""

from pathlib import Path

import torch
from common import images, options, train

from pyro_dpvae import (
    ClusteringLadderGuide,
    ClusteringLadderVAE,
    Decoder,
    GaussianEncoder,
    MixturePrior,
)
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import LADDERS, default_ladder
from pyro_dpvae.objectives import BetaELBO, RegularizedELBO
from pyro_dpvae.plots import sample_figure

LATENT_DIMS, CLUSTERS = (4, 8), 20


def main() -> None:
    """Train a clustering ladder, and draw ten images of each cluster of its upper layer."""
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

    priors = [MixturePrior(size, components=CLUSTERS) for size in LATENT_DIMS]
    model = ClusteringLadderVAE(priors, Decoder(decoder, likelihood))
    # Given an encoder without clusters, q(y | z) = p(y | z); the sum over y is exact.
    guide = ClusteringLadderGuide(GaussianEncoder(encoder, sum(LATENT_DIMS)), priors)
    start = max(1, found.steps // 6)
    train(model, guide, BetaELBO(0.01), batches, steps=start)
    guide.initialise_clusters(model.prior, batches.epoch)
    train(model, guide, RegularizedELBO(), batches, steps=found.steps - start)

    with torch.no_grad():
        clusters = torch.arange(CLUSTERS, device=found.device)
        top = model.prior.priors[-1].conditional(clusters).sample((10,))
        bottom = model.prior.priors[0]().sample(top.shape[:2])
        pictures = model.decoder(torch.cat([bottom, top], -1)).mean
    path = Path(found.out) / "vlac.png"
    sample_figure(pictures.flatten(0, 1)).savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
