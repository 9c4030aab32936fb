"""Two regularizers at once, one of them with a schedule, with and without a decoupled prior.

    python examples/two_regularizers.py --root DATA

    loss = distortion + rate + 5 TC(q(z)) + lambda MMD^2(q(z), p(z)),   lambda from 0 to 1000

Terms are printed per datum, in nats (MMD^2 has no unit), without their weights. The total
correlation asks q(z) for independent coordinates, whatever the prior; the MMD asks the prior and
q(z) to be alike. A standard normal can only be approached by q(z). A decoupled prior also comes to
meet q(z), and what is left of their divergence says how many samples fall beside the data.
"""

from itertools import islice

import pyro
import torch
from common import endless, images, options
from pyro.infer import SVI

from pyro_dpvae import (
    VAE,
    AggregatePosterior,
    AmortizedGaussian,
    CouplingPrior,
    Decoder,
    GaussianEncoder,
    RegularizedELBO,
    StandardNormal,
)
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.metrics import symmetric_kl
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives import MMD, LinearSchedule, TotalCorrelation

LATENT = 10


def main() -> None:
    """Train under both priors; print the terms, and how far p(z) and q(z) are apart."""
    found = options(__doc__, steps=1000)
    batches = images(found)
    networks, likelihood = ARCHITECTURES["mlp"], BernoulliLikelihood(batches.item_shape)

    for name, prior in (("standard", StandardNormal), ("coupling", CouplingPrior)):
        pyro.set_rng_seed(0)
        decoder = Decoder(networks.decoder(LATENT, likelihood.raw_shape), likelihood)
        model = VAE(prior(LATENT), decoder)
        encoder = GaussianEncoder(networks.encoder(batches.item_shape), LATENT)
        guide = AmortizedGaussian(encoder)
        for module in (model, guide):
            module.to(found.device)
        objective = RegularizedELBO(
            penalties=[
                TotalCorrelation(5.0, dataset_size=batches.size),
                MMD(LinearSchedule(0.0, 1000.0, max(1, found.steps // 2))),
            ]
        )
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
        print(f"{name} prior")
        for step, x in enumerate(islice(endless(batches), found.steps), start=1):
            svi.step(x)
            if step % max(1, found.steps // 4) == 0:
                terms = {key: round(float(term), 3) for key, term in objective.terms.items()}
                print(f"  step {step}: {terms}")
        with torch.no_grad():
            aggregate = AggregatePosterior.of(guide.posterior, islice(batches.epoch(0), 50))
            print(f"  symmetric KL of p(z) and q(z): {symmetric_kl(model.prior, aggregate)} nats")


if __name__ == "__main__":
    main()
