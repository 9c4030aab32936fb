"""Statistics of log weights: estimates of log p(x), and diagnostics of their reliability."""

import math

import torch
from jaxtyping import Float
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from pyro_dpvae._checks import check_positive_int

__all__ = [
    "effective_sample_size",
    "iwae_bound",
    "log_mean_exp",
    "pareto_k",
    "pareto_k_of_tail",
    "tail_length",
]

_FEWEST = 5  # distinct weights that a Pareto distribution is fitted to
_EQUAL = 1e-8  # log weights that differ by less differ by rounding alone


def log_mean_exp(weights: Float[Tensor, "samples *batch"]) -> Float[Tensor, "*batch"]:
    """Return log 1/K sum_k w_k of log weights: the estimate of log p(x), biased downwards."""
    return weights.logsumexp(0) - math.log(len(weights))


def iwae_bound(weights: Float[Tensor, "samples batch"], k: int) -> Float[Tensor, " batch"]:
    """Return the importance-weighted bound with ``k`` samples, E[log 1/k sum w], of log weights.

    It is averaged over the samples / k groups of the draws; k = 1 gives the evidence lower bound.

    Raises:
        ValueError: if ``k`` does not divide the number of samples.

    References:
        Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
    """
    if len(weights) % check_positive_int("k", k):
        raise ValueError(f"k must divide the number of samples, {len(weights)}, got {k}")
    return log_mean_exp(weights.unflatten(0, (-1, k)).transpose(0, 1)).mean(0)


def effective_sample_size(weights: Float[Tensor, "samples *batch"]) -> Float[Tensor, "*batch"]:
    """Return (sum w)^2 / sum w^2 of log weights, from 1 to the number of samples."""
    return (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp()


def tail_length(samples: int) -> int:
    """Return the number of largest weights in the Pareto fit: min(K / 5, 3 sqrt(K))."""
    return math.ceil(min(samples / 5, 3 * math.sqrt(samples)))


def pareto_k(weights: Float[Tensor, "samples batch"]) -> Float[Tensor, " batch"]:
    """Return k-hat, the shape of a Pareto distribution fitted to the largest weights.

    Below 0.7 the estimate of log p(x) can be relied on; above 1 the weights have no mean. The fit
    needs five distinct weights in the tail. Where there are fewer, as for weights that are all
    equal or take few values, k-hat is minus infinity, the shape of a tail that ends in a point,
    if the tail is worth five draws or more, by its effective sample size; infinity if few draws
    carry it. What the two stand for is our choice.

    Args:
        weights: log weights.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling, section
        3.
    """
    largest = weights.topk(min(tail_length(len(weights)) + 1, len(weights)), dim=0).values
    return pareto_k_of_tail(largest)


def pareto_k_of_tail(largest: Float[Tensor, "tail batch"]) -> Float[Tensor, " batch"]:
    """Return k-hat from the :func:`tail_length` largest log weights and one more, downwards."""
    shifted = (largest - largest[0]).double().cpu()
    cutoff = shifted[-1].clamp(min=math.log(torch.finfo(torch.float64).tiny))
    worth = effective_sample_size(shifted)
    found = []
    for column, least, draws in zip(shifted.T, cutoff, worth, strict=True):
        above = column[column > least].flip(0)
        if int((above.diff() > _EQUAL).sum()) + 1 < _FEWEST:
            found.append(-math.inf if draws >= _FEWEST else math.inf)
            continue
        k, _ = fit_generalized_pareto(above.exp() - least.exp())
        found.append(float(k))
    return torch.tensor(found, dtype=torch.float64)
