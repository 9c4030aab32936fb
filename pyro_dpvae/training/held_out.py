"""The bound on held-out data."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pyro_dpvae.data import Batches
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.objectives import ELBO

__all__ = ["aside", "evaluate_elbo"]


def evaluate_elbo(
    model: nn.Module, guide: nn.Module, batches: Iterable[Tensor] | Batches, *, seed: int = 0
) -> dict[str, float]:
    """Return the evidence lower bound and its terms on held-out data, per datum, in nats.

    Modules are in evaluation mode meanwhile, and the random state of the process is kept.

    Args:
        model: p(x, z).
        guide: q(z | x).
        batches: the data; of ``Batches``, the first pass.
        seed: of the samples of z.

    Returns:
        ``elbo`` = -(distortion + rate), ``distortion``, ``rate``.
    """
    objective = ELBO()
    totals = {"distortion": 0.0, "rate": 0.0}
    count = 0
    with aside(model, guide):
        torch.manual_seed(seed)
        for x in batches.epoch(0) if isinstance(batches, Batches) else batches:
            objective.loss(model, guide, x)
            count += len(x)
            for name in totals:
                totals[name] += float(objective.terms[name]) * len(x)
    terms = {name: total / count for name, total in totals.items()}
    return {"elbo": -sum(terms.values()), **terms}


@contextmanager
def aside(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode; modes and random state are as before at the end."""
    with torch.random.fork_rng(), in_evaluation(*modules):
        yield
