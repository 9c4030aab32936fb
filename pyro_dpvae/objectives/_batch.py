"""The plate over a batch in an objective, and checks of its sites."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_dpvae._plates import PARTICLES, batch_plate

__all__ = ["Batch", "check_draws", "explained", "sample_sites"]

Site = dict[str, Any]


@contextmanager
def explained(args: Sequence[Any]) -> Iterator[None]:
    """Explain errors of programs that are caused by arguments which are not a batch."""
    x = args[0] if len(args) == 1 else None
    if isinstance(x, Tensor) and x.dim() and not len(x):
        raise ValueError(
            f"a batch must not be empty, got a tensor of shape {tuple(x.shape)}; leave out empty "
            "batches"
        )
    try:
        yield
    except (AttributeError, TypeError) as error:
        if isinstance(x, list | tuple) and len(x) == 1 and isinstance(x[0], Tensor):
            raise TypeError(
                f"a batch must be a tensor, got a {type(x).__name__} with one in it, as from a "
                "DataLoader of a TensorDataset; write 'for (x,) in loader'"
            ) from error
        raise
    except RuntimeError as error:
        if isinstance(x, Tensor) and "same dtype" in str(error):
            raise TypeError(
                f"data must have the dtype of the networks' parameters, got {x.dtype}; convert "
                f"them, for example with x.float() ({error})"
            ) from error
        raise


class Batch:
    """The plate over the batch, found from an observed site of the model.

    Attributes:
        name: name of the plate.
        size: number of items in the batch of this rank.
        full_size: number of items that the batches of all ``count`` ranks represent, larger than
            their sizes if the plate subsamples.
    """

    def __init__(self, model_trace: Trace, *, name: str | None, count: int) -> None:
        observed = [site for site in sample_sites(model_trace) if site["is_observed"]]
        latent = [site for site in sample_sites(model_trace) if not site["is_observed"]]
        frame = batch_plate(observed, latent, name=name)
        self.name, self.dim, self.size = frame.name, frame.dim, frame.size
        stands_for: int = frame.full_size or self.size
        # A subsampling plate has the size of the data set, for any number of ranks.
        self.full_size = stands_for if stands_for > self.size else count * self.size
        self._subsampling = stands_for / self.size

    def __contains__(self, site: Site) -> bool:
        """Return True if a site lies in the plate."""
        return self.name in self._plates(site)

    def per_datum(self, term: Tensor, site: Site, *, particles: int) -> Tensor:
        """Reduce a term of a site to shape (batch,), in the units of one datum.

        Other plates are summed, vectorized particles averaged, and a term from outside the plate
        is divided evenly among the items.
        """
        if site not in self:
            return term.sum().expand(self.size) / (particles * self.full_size)
        term = term.expand(
            torch.broadcast_shapes(term.shape, (self.size,) + (1,) * (-self.dim - 1))
        )
        others = [dim for dim in range(-term.dim(), 0) if dim != self.dim]
        return (term.sum(others) if others else term) / (particles * self._subsampling)

    def common_scale(self, *traces: Trace) -> Tensor | float:
        """Return the factor that scales all sites of programs, besides the plate; else 1."""
        scales = [
            site["scale"] / (self._subsampling if site in self else 1.0)
            for trace in traces
            for site in sample_sites(trace)
        ]
        numbers = [scale for scale in scales if not isinstance(scale, Tensor)]
        if len(numbers) == len(scales):
            alike = all(math.isclose(scale, numbers[0], rel_tol=1e-6) for scale in numbers)
            return numbers[0] if alike else 1.0
        if any(isinstance(scale, Tensor) and scale.dim() for scale in scales):
            return 1.0
        # No number is read from the device.
        like = next(scale for scale in scales if isinstance(scale, Tensor))
        every = torch.stack([torch.as_tensor(scale).to(like) for scale in scales])
        same = ((every - every[0]).abs() <= 1e-6 * every[0].abs()).all()
        return torch.where(same, every[0], torch.ones_like(like))

    def check_for_penalties(self, *sites: Site) -> None:
        """Raise unless a latent, as sites of model and guide, has one value per datum."""
        site = sites[0]
        others = self._plates(site) - {self.name, PARTICLES}
        if others or self.dim != -1 or site not in self:
            raise ValueError(
                f"penalties need latents only in the plate {self.name!r}, as dimension -1; got "
                f"{site['name']!r} in {sorted(self._plates(site))} with {self.name!r} at "
                f"{self.dim}; declare the dimensions of one item's latents with to_event"
            )
        for one in sites:
            if one["mask"] is not None and one["mask"] is not True:
                raise ValueError(
                    f"penalties use every item of a batch, got a mask at {site['name']!r}; leave "
                    "masked data out of the batch"
                )

    @staticmethod
    def _plates(site: Site) -> set[str]:
        return {frame.name for frame in site["cond_indep_stack"]}


def check_draws(name: str, q: Any, *, enumerated: bool = False) -> None:
    """Raise for a guide's site that is neither reparameterised nor enumerated."""
    if not q.has_rsample and not enumerated:
        raise ValueError(
            "every guide site must be reparameterised or enumerated for this objective, got "
            f"{type(q).__name__} at {name!r}; use pyro.infer.TraceGraph_ELBO, or mark a discrete "
            'site with infer={"enumerate": "parallel"} to have it summed out'
        )


def sample_sites(trace: Trace) -> list[Site]:
    """Return the sites of a trace that have a density."""
    return [site for site in trace.nodes.values() if site["type"] == "sample"]
