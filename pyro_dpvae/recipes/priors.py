"""Priors by name, the ones that share the guide's encoder among them."""

from collections.abc import Callable

import torch

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.priors import PRIORS, AbstractPrior, VampPrior

__all__ = ["SYSTEM_PRIORS"]


def _vamp(
    encoder: GaussianEncoder, *, components: int = 500, bounded: bool | None = None
) -> AbstractPrior:
    """Build a ``VampPrior``, whose pseudo-inputs start from noise.

    Args:
        encoder: the encoder of the guide.
        components: the number of pseudo-inputs.
        bounded: whether pseudo-inputs stay in [0, 1]; None bounds those of images. Pixels lie in
            [0, 1] unless the preprocessing is ``logit``.
    """
    shape = encoder.network.in_shape
    noise = torch.rand(check_positive_int("components", components), *shape)
    if bounded is None:
        bounded = len(shape) == 3
    return VampPrior(encoder, noise, bounds=(0.0, 1.0) if bounded else None)


SYSTEM_PRIORS: dict[str, Callable[..., AbstractPrior]] = {**PRIORS, "vamp": _vamp}
"""The priors by the names of the command line: ``PRIORS``, and one that takes an encoder."""
