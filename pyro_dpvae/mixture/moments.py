"""Means and standard deviations of posteriors, estimated by samples if necessary."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._subsets import as_batches
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["draw_moments", "mean_of", "posterior_means"]

_AT_ONCE = 16


def draw_moments(q: Any, draws: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of samples of q, with q's own shape."""
    shape = (*q.batch_shape, *q.event_shape)
    total = squares = origin = torch.zeros(())
    for start in range(0, draws, _AT_ONCE):
        with torch.no_grad():
            z = q(torch.Size([min(_AT_ONCE, draws - start)])).expand(-1, *shape)
        if start == 0:
            origin = z.mean(0)  # squares relative to a point nearby lose fewer digits
        away = (z - origin).double()
        total, squares = total + away.sum(0), squares + away.square().sum(0)
    variance = (squares - total.square() / draws) / (draws - 1)
    return origin + (total / draws).to(origin), variance.sqrt().to(origin)


def mean_of(q: Any, *, num_samples: int = 64) -> Tensor:
    """Return the mean of q(z | x), estimated by samples if it has no closed form."""
    try:
        return cast(Tensor, q.mean)
    except NotImplementedError:
        return draw_moments(q, num_samples)[0]


def posterior_means(
    posterior: Callable[[Tensor], Any],
    batches: Iterable[Tensor],
    *,
    num_samples: int = 64,
) -> Float[Tensor, "data latent"]:
    """Return the mean of q(z | x) for each datum, with modules in evaluation mode.

    Args:
        posterior: x -> q(z | x), of batch shape (batch,) and event shape (L,).
        batches: tensors of shape (batch, *data); a tensor is one batch.
        num_samples: number of samples that estimate a mean without closed form, at least 2.
    """
    means: list[Tensor] = []
    with torch.no_grad(), in_evaluation(posterior):
        for x in as_batches(batches):
            means.append(mean_of(posterior(x), num_samples=num_samples))
    return torch.cat(means)
