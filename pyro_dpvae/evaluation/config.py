"""How much an evaluation measures, and the names of what it can measure."""

import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pyro_dpvae._checks import check_positive_int, check_repeated, check_seed
from pyro_dpvae.errors import EvaluationWarning

__all__ = ["GROUP_NAMES", "EvaluationConfig", "default_cache"]

GROUP_NAMES = (
    *("elbo", "skl", "leakage", "split", "distance", "probe", "layers", "clusters"),
    *("layer-clusters", "disentanglement", "domain", "fid", "nll"),
)
"""The names of ``GROUPS``, for a help that imports no metrics."""


def default_cache() -> Path:
    """Return the folder of the user's caches for this library.

    Where the user has no home, as in a container, it is one for temporary files.

    Warns:
        UserWarning: if the user has no home, with the folder that takes its place.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "pyro-dpvae"
    try:
        return Path.home() / ".cache" / "pyro-dpvae"
    except RuntimeError:  # no HOME, and a user id without an entry in the system's list
        folder = Path(tempfile.gettempdir()) / f"pyro-dpvae-{os.getuid()}"
        warnings.warn(
            f"the user has no home folder, so caches are kept in {folder}; set HOME or "
            "XDG_CACHE_HOME, or name another folder with --cache",
            category=EvaluationWarning,
            stacklevel=2,
        )
        return folder


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
