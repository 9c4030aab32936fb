"""Settings of an evaluation, and the names of groups of metrics."""

import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pyro_dpvae._caches import cache_folder
from pyro_dpvae._checks import (
    check_positive_int,
    check_repeated,
    check_seed,
    hint_at_fields,
)
from pyro_dpvae.errors import EvaluationWarning

__all__ = ["GROUP_NAMES", "EvaluationConfig", "default_cache"]

GROUP_NAMES = (
    *("elbo", "skl", "leakage", "split", "distance", "probe", "layers", "clusters"),
    *("layer-clusters", "disentanglement", "domain", "fid", "nll"),
)
"""The names of ``GROUPS``, which can be listed without importing the metrics."""


def default_cache() -> Path:
    """Return the user's cache folder for this library.

    Falls back to a temporary folder if the user has no home, as in a container.

    Warns:
        UserWarning: if the user has no home, with the folder used instead.
    """
    folder = cache_folder()
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"pyro-dpvae-{os.getuid()}"
        warnings.warn(
            f"the user has no home folder, so caches are kept in {folder}; set HOME or "
            "XDG_CACHE_HOME, or name another folder with --cache",
            category=EvaluationWarning,
            stacklevel=2,
        )
    return folder


@hint_at_fields
@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of an evaluation.

    Args:
        nll_samples: samples of z per datum for the likelihood.
        nll_data: number of held-out items for the likelihood, evenly spaced over the split.
        latent_samples: samples for divergences, leakage and the split of the rate.
        images: number of samples, and of reference images of the training split, in feature space.
        seed: random seed.
        chunk: samples of z drawn at once for the likelihood; None takes as many as fit into
            memory.
        compile: compile the sampling of likelihoods, which takes about ten seconds and changes
            values only by rounding.
        inception: file of the Inception network's weights; None uses torch.hub's cache.
        download: download those weights if they are missing.
        cache: folder of domain networks and reference features.

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
