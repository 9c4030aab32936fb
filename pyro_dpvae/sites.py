"""The names that a model and a guide share: all that either needs to know of the other."""

__all__ = ["LATENT", "OBSERVED", "PLATE"]

LATENT = "z"
"""The representation, one vector per datum."""

OBSERVED = "x"
"""The datum."""

PLATE = "data"
"""The plate over the batch."""
