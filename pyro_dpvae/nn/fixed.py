"""The check of networks that are built for one image size."""

from collections.abc import Sequence

__all__ = ["check_size"]


def check_size(network: str, shape: Sequence[int], size: int) -> None:
    """Refuse data that are not square images of a size.

    Raises:
        ValueError: naming the networks for other sizes.
    """
    if len(shape) != 3 or tuple(shape[1:]) != (size, size):
        raise ValueError(
            f"network {network!r} takes images of shape (channels, {size}, {size}), "
            f"got {tuple(shape)}; use network 'residual' for images of any size, or 'mlp'"
        )
