"""Means and standard deviations of posteriors, by draws where they have no closed form."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._subsets import as_batches
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["draw_moments", "posterior_means"]

_AT_ONCE = 16


def draw_moments(q: Any, draws: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of draws of q, of q's own shape."""
    shape = (*q.batch_shape, *q.event_shape)
    total = squares = origin = None
    for start in range(0, draws, _AT_ONCE):
        with torch.no_grad():  # as pyro.sample draws
            z = q(torch.Size([min(_AT_ONCE, draws - start)])).expand(-1, *shape)
        # From a point nearby, squares cancel less.
        origin = z.mean(0) if origin is None else origin
        away = (z - origin).double()
        total = away.sum(0) + (0 if total is None else total)
        squares = away.square().sum(0) + (0 if squares is None else squares)
    assert total is not None
    assert squares is not None
    assert origin is not None
    variance = (squares - total.square() / draws) / (draws - 1)
    return origin + (total / draws).to(origin), variance.sqrt().to(origin)


def posterior_means(
    posterior: Callable[[Tensor], Any],
    batches: Iterable[Tensor],
    *,
    num_samples: int = 64,
) -> Float[Tensor, "data latent"]:
    """Return the mean of q(z | x) for each datum; modules are in evaluation mode meanwhile.

    Args:
        posterior: x -> q(z | x), of batch shape (batch,) and event shape (L,).
        batches: tensors of shape (batch, *data); one tensor is one batch.
        num_samples: how many samples give the mean of a q that has none in closed form, such as
            a flow, at least 2.
    """
    means: list[Tensor] = []
    with torch.no_grad(), in_evaluation(posterior):
        for x in as_batches(batches):
            q = posterior(x)
            try:
                means.append(q.mean)
            except NotImplementedError:
                means.append(draw_moments(q, num_samples)[0])
    return torch.cat(means)
