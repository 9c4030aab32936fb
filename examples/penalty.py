"""A penalty of your own: Hoyer's sparsity of the representations, in three methods.

    python examples/penalty.py --root DATA

A penalty sees the representations of a batch, under any prior and guide, and returns terms by
name. Each term with a weight of its name is charged; a weight may follow a schedule. What a
penalty returns must be tensors computed from tensors, without `float(...)` or an `if` on a value,
so that `CapturedSVI` can record the step once and replay it.

Reference: Mathieu, Rainforth, Siddharth, Teh (2019), Disentangling disentanglement in variational
autoencoders, equation 9, for the sparsity. Hoyer (2004), Non-negative matrix factorization with
sparseness constraints.
"""

from itertools import islice
from typing import ClassVar, final

import pyro
import torch
from common import endless, images, options
from torch import Tensor

from pyro_dpvae import (
    VAE,
    AmortizedGaussian,
    CouplingPrior,
    Decoder,
    GaussianEncoder,
    RegularizedELBO,
)
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.objectives import AbstractPenalty, Latents, LinearSchedule, Weight

LATENT = 20


def hoyer(z: Tensor) -> Tensor:
    """Return how sparse vectors z of shape (batch, L) are: 0 if all alike, 1 if one is not 0.

    Coordinates are divided by their standard deviation over the batch, so that shrinking one is
    no way to be sparse:  (sqrt L - |z|_1 / |z|_2) / (sqrt L - 1).
    """
    z = z / z.std(-2, keepdim=True)
    root = z.shape[-1] ** 0.5
    return (root - z.abs().sum(-1) / z.norm(dim=-1)) / (root - 1)


@final
class Density(AbstractPenalty):
    """1 - Hoyer(z), averaged over the batch; the term is ``density``."""

    smallest_batch: ClassVar[int] = 2  # standard deviations need two data

    def __init__(self, weight: Weight) -> None:
        super().__init__(density=weight)

    def forward(self, latents: Latents) -> dict[str, Tensor]:
        """Return the term."""
        return {"density": 1 - hoyer(latents.value).mean()}


def main() -> None:
    """Train without and with the penalty, and print what it buys and what it costs."""
    found = options(__doc__, steps=1000)
    batches = images(found)
    networks, likelihood = ARCHITECTURES["mlp"], BernoulliLikelihood(batches.item_shape)
    rises = LinearSchedule(0.0, 50.0, max(1, found.steps // 2))

    for title, weight in (("without", 0.0), ("with", rises)):
        pyro.set_rng_seed(0)
        decoder = Decoder(networks.decoder(LATENT, likelihood.raw_shape), likelihood)
        model = VAE(CouplingPrior(LATENT), decoder)
        encoder = GaussianEncoder(networks.encoder(batches.item_shape), LATENT)
        guide = AmortizedGaussian(encoder)
        for module in (model, guide):
            module.to(found.device)
        objective = RegularizedELBO(penalties=[Density(weight)])
        # The steps of pyro.infer.SVI: after a few, the recorded graph is replayed.
        svi = CapturedSVI(model, guide, FusedOptim({"lr": 1e-3}), loss=objective)
        for x in islice(endless(batches), found.steps):
            svi.step(x)
        with torch.no_grad():
            sparsity = hoyer(guide.posterior(x).mean).mean()
        terms = {name: round(float(term), 2) for name, term in objective.terms.items()}
        print(f"{title} the penalty: {terms}; sparsity of the means {sparsity:.2f}")
        print(f"recorded in {svi.recorded_seconds:.1f} s")


if __name__ == "__main__":
    main()
