"""Densities of a prior in representation space and in generation space."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae.priors import AbstractPrior

__all__ = ["Space", "log_density"]

Space = Literal["representation", "generation"]


def log_density(
    prior: AbstractPrior, z: Float[Tensor, "*batch latent"], *, space: Space
) -> Float[Tensor, "*batch"]:
    """Return log p(z), or log p0(g(z)) without the log-determinant of the prior's map g.

    Args:
        prior: p(z).
        z: points in representation space.
        space: ``representation`` for log p(z), ``generation`` for log p0(g(z)).

    Raises:
        ValueError: for an unknown space.
    """
    check_choice("space", space, ("representation", "generation"))
    with torch.no_grad():
        if space == "representation":
            return prior().log_prob(z)
        return prior.base().log_prob(prior.to_generation(z)[0])
