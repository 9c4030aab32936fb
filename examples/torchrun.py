"""A beta-TCVAE by several processes, each with a part of every batch: as one process trains it.

    torchrun --nproc-per-node=2 examples/torchrun.py --root DATA

Without torchrun it is one process. docs/distributed.md says what is whose.
"""

from itertools import count, islice

import pyro
import torch
import torch.distributed as dist
from common import images, options
from pyro.infer import SVI

from pyro_dpvae import VAE, AmortizedGaussian, BetaTCELBO, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae.inference import AveragingOptim, synchronize
from pyro_dpvae.likelihoods import BernoulliLikelihood
from pyro_dpvae.nn import ARCHITECTURES

LATENT = 10


def main() -> None:
    """Train with plain Pyro inference; only the optimizer and the objective know of ranks."""
    rank, ranks = 0, 1
    if dist.is_torchelastic_launched():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        rank, ranks = dist.get_rank(), dist.get_world_size()
        torch.set_num_threads(1)
    found = options(__doc__, steps=2000)  # which gives each process a GPU of its own
    batches = images(found)
    shape = tuple(next(batches.epoch(0)).shape[1:])
    networks, likelihood = ARCHITECTURES["mlp"], BernoulliLikelihood(shape)
    decoder = Decoder(networks.decoder(LATENT, likelihood.raw_shape), likelihood)
    model = VAE(CouplingPrior(LATENT), decoder)
    guide = AmortizedGaussian(GaussianEncoder(networks.encoder(shape), LATENT))
    for module in (model, guide):
        module.to(found.device)
    objective = BetaTCELBO(6.0, dataset_size=60_000).across_ranks()
    synchronize(model, guide, objective)
    pyro.set_rng_seed(rank)  # each rank draws noise of its own

    svi = SVI(model, guide, AveragingOptim(pyro.optim.Adam({"lr": 1e-3})), loss=objective)
    passes = (x for epoch in count() for x in batches.epoch(epoch))
    for x in islice(passes, found.steps):
        size = len(x) // ranks
        svi.step(x[rank * size : (rank + 1) * size])

    if rank == 0:  # an evaluation without gradients is a rank's own
        terms = {name: round(float(term), 2) for name, term in objective.terms.items()}
        print(f"nats per datum in the last batch: {terms}")
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
