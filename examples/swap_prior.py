"""One model under five priors: what each costs in the bound, and how well it fits q(z).

    python examples/swap_prior.py

A prior is a module whose call returns p(z), so only one line of a model differs. The table has the
held-out ELBO, its rate, and KL(p || q) + KL(q || p) between the prior and the aggregate posterior
q(z) of the training data, in nats: where p(z) is not q(z), there are places that the prior draws
from and the decoder has not seen. The two do not go together: a mixture's bound may be better than
the standard normal's while its components reach farther beyond q(z).
"""

from collections.abc import Callable
from importlib.util import find_spec

import pyro
import torch
from common import moons, options, train

from pyro_dpvae import (
    VAE,
    AggregatePosterior,
    AmortizedGaussian,
    CouplingPrior,
    Decoder,
    GaussianEncoder,
    MixturePrior,
    RegularizedELBO,
    StandardNormal,
    VampPrior,
    ZukoPrior,
)
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import symmetric_kl
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives import BetaELBO
from pyro_dpvae.priors import AbstractPrior

LATENT, BETA = 2, 4.0


def zuko_prior() -> AbstractPrior:
    """Return a neural spline flow; zuko is no dependency of the library."""
    import zuko

    return ZukoPrior(zuko.flows.NSF(features=LATENT, transforms=3, hidden_features=(64, 64)))


def main() -> None:
    """Train the same system under each prior, and print a table."""
    found = options(__doc__, steps=1000, data="two-moons")
    batches, held_out = moons(found)
    likelihood = GaussianLikelihood((2,), variance=0.01)
    networks = ARCHITECTURES["moons"]
    inputs = next(batches.epoch(0))

    priors: dict[str, Callable[[GaussianEncoder], AbstractPrior]] = {
        "standard": lambda encoder: StandardNormal(LATENT),
        "coupling": lambda encoder: CouplingPrior(LATENT),
        "mixture": lambda encoder: MixturePrior(LATENT, components=20),
        "vamp": lambda encoder: VampPrior(encoder, inputs[:50], bounds=None),
    }
    if find_spec("zuko"):  # pip install "pyro-dpvae[flows]"
        priors["zuko"] = lambda encoder: zuko_prior()

    rows = []
    for name, prior in priors.items():
        pyro.set_rng_seed(0)
        encoder = GaussianEncoder(networks.encoder((2,)), LATENT)
        decoder = Decoder(networks.decoder(LATENT, likelihood.raw_shape), likelihood)
        model, guide = VAE(prior(encoder), decoder), AmortizedGaussian(encoder)
        print(name)
        train(model, guide, BetaELBO(BETA), batches, steps=found.steps)

        bound = RegularizedELBO(num_particles=20)
        elbo = -bound.loss(model, guide, held_out) / len(held_out)
        rate = float(bound.terms["rate"])
        with torch.no_grad():
            aggregate = AggregatePosterior.of(guide.posterior, batches.epoch(0))
            skl = symmetric_kl(model.prior, aggregate)
        rows.append(
            f"{name:10} {elbo:10.3f} {rate:8.3f} {skl.value:10.3f} +- {skl.standard_error:.3f}"
        )

    print(f"\n{'prior':10} {'ELBO':>8} {'rate':>8}   symmetric KL")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
