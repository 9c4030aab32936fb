"""Checks of the shapes that networks are built for."""

from collections.abc import Sequence

from pyro_dpvae._checks import check_shape

__all__ = ["check_image_shape", "check_image_size"]


def check_image_shape(network: str, shape: Sequence[int], *, least: int) -> tuple[int, int, int]:
    """Return ``shape`` as (C, H, W), with H and W of at least ``least``."""
    shape = check_shape("the shape of the data", shape)
    if len(shape) != 3 or min(shape[1:]) < least:
        raise ValueError(
            f"network {network!r} needs images (C, H, W) with H and W of at least {least}, got "
            f"the shape {shape}; use network 'mlp'"
        )
    return shape[0], shape[1], shape[2]


def check_image_size(
    network: str, shape: Sequence[int], *, side: int, others: str = "'residual' or 'mlp'"
) -> int:
    """Return the channels of ``shape``, which must be (C, side, side)."""
    shape = check_shape("the shape of the data", shape)
    if len(shape) != 3 or shape[1:] != (side, side):
        raise ValueError(
            f"network {network!r} needs images of shape (C, {side}, {side}), got {shape}; use "
            f"network {others}"
        )
    return shape[0]
