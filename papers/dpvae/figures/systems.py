"""The systems of the paper's figures, and what several figures do with them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_dpvae.evaluation import Subject
from pyro_dpvae.recipes import REGULARIZERS

__all__ = ["Subjects", "SystemKey", "decoded", "title_of"]


class SystemKey(NamedTuple):
    """A system of the paper.

    Attributes:
        regularizer: one of the six.
        decoupled: whether its prior is the decoupled one; otherwise it is N(0, I).
    """

    regularizer: str
    decoupled: bool


Subjects = Mapping[SystemKey, Subject]
"""Trained systems, open."""


def title_of(key: SystemKey) -> str:
    """Return the paper's name of a system.

    Example:
        >>> title_of(SystemKey("info-vae", True))
        'Info-dpVAE'
    """
    row = REGULARIZERS[key.regularizer]
    return (row.decoupled if key.decoupled else row.plain).replace("beta", r"$\beta$")


def decoded(subject: Subject, z: Tensor) -> Tensor:
    """Return the means of p(x | z), on the CPU."""
    return torch.cat(list(subject.decoded(z))).cpu()
