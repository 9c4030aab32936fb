"""The names that a model and a guide share: all that either needs to know of the other."""

__all__ = ["LATENT", "OBSERVED", "PLATE", "cluster", "layer_site"]

LATENT = "z"
"""The representation, one vector per datum."""

OBSERVED = "x"
"""The datum."""

PLATE = "data"
"""The plate over the batch."""


def layer_site(layer: int) -> str:
    """Return the site of a ladder's latents at a layer, counted from 1 at the data.

    Example:
        >>> layer_site(1)
        'z_1'
    """
    return f"{LATENT}_{layer}"


def cluster(layer: int) -> str:
    """Return the site of a datum's cluster at a layer, counted from 1 at the data.

    Example:
        >>> cluster(1)
        'y_1'
    """
    return f"y_{layer}"
