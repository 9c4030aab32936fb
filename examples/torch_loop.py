"""A training loop of PyTorch alone: any optimizer, clipped gradients, a schedule of the rate.

    python examples/torch_loop.py --root DATA

`objective.differentiable_loss(model, guide, x)` is a tensor with a graph; what follows is up to
you. It is the loss summed over the batch, as everywhere in Pyro.
"""

from itertools import islice

import torch
from common import endless, images, options

from pyro_dpvae import VAE, AmortizedGaussian, BetaTCELBO, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES

LATENT = 10


def main() -> None:
    """Train by AdamW at a rate that falls to 0, and print what happens."""
    found = options(__doc__, steps=1000)
    batches = images(found)
    shape = batches.item_shape
    networks, likelihood = ARCHITECTURES["mlp"], BernoulliLikelihood(shape)
    decoder = Decoder(networks.decoder(LATENT, likelihood.raw_shape), likelihood)
    model = VAE(CouplingPrior(LATENT), decoder)
    guide = AmortizedGaussian(GaussianEncoder(networks.encoder(shape), LATENT))
    for module in (model, guide):
        module.to(found.device)
    objective = BetaTCELBO(6.0, dataset_size=batches.size)

    # What is in both, such as the decoder of a Laplace guide, is taken once.
    parameters = list(dict.fromkeys([*model.parameters(), *guide.parameters()]))
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=found.steps)
    model.train()
    guide.train()
    for step, x in enumerate(islice(endless(batches), found.steps), start=1):
        loss = objective.differentiable_loss(model, guide, x) / len(x)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm=100.0)
        rate = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        if step % max(1, found.steps // 5) == 0:
            terms = ", ".join(f"{name} {term:.1f}" for name, term in objective.terms.items())
            print(f"step {step}: rate {rate:.1e}, gradient's norm {norm:.0f}; {terms}")


if __name__ == "__main__":
    main()
