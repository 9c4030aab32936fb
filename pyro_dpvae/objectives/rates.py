"""Rates: how an objective weighs the divergence of q(z | x) from the prior."""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from torch import Tensor

__all__ = ["AbstractRate", "Beta"]


class AbstractRate(ABC):
    """What an objective charges for the rate E_q[log q(z | x) - log p(z)] of each datum."""

    @abstractmethod
    def __call__(self, rate: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the charge of each datum, in nats, given its rate in nats."""


@final
class Beta(AbstractRate):
    """The rate times a constant: beta-VAE (Higgins et al., 2017, equation 4).

    Args:
        beta: the weight, 0 or more; 1 gives the evidence lower bound.

    Raises:
        ValueError: if ``beta`` is negative.

    Example:
        >>> import torch
        >>> Beta(4.0)(torch.tensor([0.5, 1.0]))
        tensor([2., 4.])
    """

    def __init__(self, beta: float = 1.0) -> None:
        if not beta >= 0:
            raise ValueError(f"beta must be 0 or more, got {beta}")
        self.beta = beta

    def __call__(self, rate: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return beta times the rate."""
        return self.beta * rate
