"""Marginal likelihood: -log p(x) of held-out data, by importance sampling."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._ranks import map_over_ranks
from pyro_dpvae._subsets import as_batches
from pyro_dpvae.data import own_batches
from pyro_dpvae.importance import ImportanceSampler, pareto_k_of_tail, tail_length
from pyro_dpvae.metrics.estimate import Estimate, mean_estimate

__all__ = ["LikelihoodEstimates", "log_likelihoods", "negative_log_likelihood"]


@dataclass(frozen=True)
class LikelihoodEstimates:
    """Estimates of log p(x) of each datum, with diagnostics.

    Attributes:
        log_likelihood: log 1/K sum w, in nats, of shape (data,), float64.
        effective_samples: (sum w)^2 / sum w^2, from 1 to K.
        pareto_k: k-hat; an estimate is reliable below 0.7.
        num_samples: K.
    """

    log_likelihood: Tensor
    effective_samples: Tensor
    pareto_k: Tensor
    num_samples: int

    def __len__(self) -> int:
        return len(self.log_likelihood)

    @property
    def monte_carlo_error(self) -> float:
        """The standard error of the mean due to samples of z alone, by the delta method."""
        variances = 1 / self.effective_samples - 1 / self.num_samples
        return float(variances.clamp(min=0).sum().sqrt()) / len(self)


def log_likelihoods(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    batches: Iterable[Tensor],
    *,
    num_samples: int = 21_000,
    chunk: int | None = None,
    compile: bool = False,
    progress: bool = True,
) -> LikelihoodEstimates:
    """Estimate log p(x) of each datum with K samples of q(z | x), in constant memory.

    Modules are in evaluation mode meanwhile. All ranks must call it, and share the batches.
    Samples are seeded by batch, so that estimates do not depend on the number of ranks.

    Args:
        model: p(x, z), a Pyro model called with a batch.
        guide: q(z | x), a Pyro guide called with a batch.
        batches: all batches, on every rank; a tensor is one batch.
        num_samples: K; 21,000 in the dpVAE paper; 5,000 and 100 are common.
        chunk: number of samples at once; None chooses it by memory and caches.
        compile: whether to compile sampling, which takes some ten seconds; see
            :class:`pyro_dpvae.importance.ImportanceSampler`.
        progress: whether to show a progress bar.

    Raises:
        ValueError: as :func:`pyro_dpvae.importance.log_weights`, or if there are no data.

    Warns:
        UserWarning: if sampling cannot be compiled.
    """
    check_positive_int("num_samples", num_samples)
    sampler = ImportanceSampler(model, guide, chunk=chunk, compile=compile)
    own = progress_bar(
        own_batches(as_batches(batches)), "log p(x)", unit="batch", disable=not progress
    )
    parts = map_over_ranks(lambda x: _of_batch(sampler, x, num_samples), own)
    if not parts:
        raise ValueError("batches must have at least one batch, got none")
    log_likelihood, effective, pareto = (torch.cat(part) for part in zip(*parts, strict=True))
    return LikelihoodEstimates(log_likelihood, effective, pareto, num_samples)


def negative_log_likelihood(estimates: LikelihoodEstimates) -> Estimate:
    """Return the mean of -log p(x) over data, in nats per datum.

    The standard error is that of the mean over data, including the noise of z. ``settings`` has
    the error due to z alone, and the share of k-hat above 0.7.

    Example:
        >>> ones = torch.ones(2)
        >>> estimates = LikelihoodEstimates(torch.tensor([-1.0, -3.0]), 90 * ones, 0 * ones, 100)
        >>> print(negative_log_likelihood(estimates))
        2.0000 +- 1.0000
    """
    values = -estimates.log_likelihood
    settings = {
        "samples": estimates.num_samples,
        "data": len(estimates),
        "monte_carlo_error": estimates.monte_carlo_error,
        "effective_samples_median": float(estimates.effective_samples.median()),
        "effective_samples_least": float(estimates.effective_samples.min()),
        "pareto_k_above_0.7": float((estimates.pareto_k > 0.7).double().mean()),
    }
    return mean_estimate(values, settings)


def _of_batch(
    sampler: ImportanceSampler, x: Tensor, num_samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p(x), effective samples and k-hat of a batch, from running sums and a tail."""
    kept = tail_length(num_samples) + 1
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    squares, tail = total, total.new_empty(0, len(x))
    for weights in sampler.chunks(x, num_samples=num_samples):
        total = torch.logaddexp(total, weights.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * weights).logsumexp(0))
        largest = torch.cat([tail, weights])
        tail = largest.topk(min(kept, len(largest)), dim=0).values
    bad = int((~total.isfinite()).sum())
    if bad:
        raise ValueError(
            f"log p(x) must be finite, got NaN or infinity for {bad} of {len(x)} data of a batch; "
            "check that the data lie in the support of p(x | z)"
        )
    effective = (2 * total - squares).exp()
    return (total - math.log(num_samples)).cpu(), effective.cpu(), pareto_k_of_tail(tail)
