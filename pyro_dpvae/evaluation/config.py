"""How much an evaluation measures, and the names of what it can measure."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pyro_dpvae._checks import check_positive_int, check_repeated, check_seed

__all__ = ["GROUP_NAMES", "EvaluationConfig", "default_cache"]

GROUP_NAMES = (
    *("elbo", "skl", "leakage", "split", "distance", "probe", "layers", "clusters"),
    *("layer-clusters", "disentanglement", "domain", "fid", "nll"),
)
"""The names of ``GROUPS``, for a help that imports no metrics."""


def default_cache() -> Path:
    """Return the folder of the user's caches for this library."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pyro-dpvae"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much is measured, and with what.

    Args:
        nll_samples: draws of z for each datum's likelihood.
        nll_data: held-out data whose likelihood is measured, evenly spaced over the split.
        latent_samples: draws for divergences, leakage and the split of the rate.
        images: samples, and reference images of the training split, in feature space.
        seed: of all draws.
        chunk: how many draws of z are made at once for each datum's likelihood; None takes as
            many as suit memory.
        compile: whether the draws of likelihoods are compiled, which takes some ten seconds, and
            changes values by rounding alone.
        inception: the file of the Inception network's weights; None for torch.hub's cache.
        download: whether those weights may be fetched.
        cache: the folder of domain networks and reference features.

    Raises:
        ValueError: if a count is below 2.
    """

    nll_samples: int = 21_000
    nll_data: int = 256
    latent_samples: int = 5000
    images: int = 10_000
    seed: int = 0
    chunk: int | None = None
    compile: bool = False
    inception: str | None = None
    download: bool = False
    cache: Path = field(default_factory=default_cache)

    def __post_init__(self) -> None:
        for name in ("nll_samples", "nll_data", "latent_samples", "images"):
            check_repeated(name, getattr(self, name))
        check_seed(self.seed)
        if self.chunk is not None:
            check_positive_int("chunk", self.chunk)
