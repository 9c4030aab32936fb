"""A dpVAE on two moons by plain Pyro: a model, a guide, `svi.step(batch)`, samples.

    python examples/quickstart.py

It ends with a picture of a thousand samples of x.
"""

from itertools import islice
from pathlib import Path

import pyro
import torch
from common import endless, moons, options
from pyro.infer import SVI

from pyro_dpvae import VAE, AmortizedGaussian, BetaELBO, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import distance_to_data
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.plots import sample_figure

LATENT = 2


def main() -> None:
    """Train, and draw what the model generates."""
    found = options(__doc__, steps=1000, data="two-moons")
    batches, held_out = moons(found)

    likelihood = GaussianLikelihood((2,), variance=0.01)
    networks = ARCHITECTURES["moons"]
    decoder = Decoder(networks.decoder(LATENT, likelihood.raw_shape), likelihood)
    model = VAE(CouplingPrior(LATENT), decoder)  # StandardNormal(LATENT): a plain VAE
    guide = AmortizedGaussian(GaussianEncoder(networks.encoder((2,)), LATENT))
    for module in (model, guide):
        module.to(found.device)
    objective = BetaELBO(beta=4.0)

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
    for step, x in enumerate(islice(endless(batches), found.steps), start=1):
        loss = svi.step(x) / len(x)
        if step % 250 == 0 or step == found.steps:
            terms = {name: round(float(term), 2) for name, term in objective.terms.items()}
            print(f"step {step}: {loss:.2f} nats per datum: {terms}")

    with torch.no_grad():
        samples = model(size=1000)  # z from the prior, x from the decoder
        z = model.prior().sample((1000,))
        means = model.decoder(z).mean
    print(f"held-out loss: {svi.evaluate_loss(held_out) / len(held_out):.2f} nats per datum")
    print(f"from decoded means to the nearest datum: {distance_to_data(means, held_out)}")
    path = Path(found.out) / "quickstart.png"
    sample_figure(samples).savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
