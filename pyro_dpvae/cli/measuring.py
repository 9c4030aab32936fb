"""The options of commands that measure runs, and the measurement that they describe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pyro_dpvae.evaluation import GROUPS, EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.evaluation.subject import default_cache
from pyro_dpvae.recipes import SavedSystem

__all__ = ["add_measuring", "measure"]


def add_measuring(parser: ArgumentParser) -> None:
    """Add which groups of metrics are measured, and by how much work."""
    defaults = EvaluationConfig()
    parser.add_argument(
        "--metrics",
        type=str | None,
        help=f"some of {','.join(GROUPS)} (default: all that the data allow, but fid)",
    )
    for name, what in (
        ("nll_samples", "draws of z for each datum's likelihood"),
        ("nll_data", "held-out data whose likelihood is measured"),
        ("latent_samples", "draws for divergences, leakage, the split of the rate"),
        ("images", "samples and reference images in feature space"),
        ("seed", "of all draws"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name), help=what)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the draws of likelihoods: ten seconds, which pay where they take minutes",
    )
    parser.add_argument("--inception", type=str | None, help="the file of FID's network weights")
    parser.add_argument(
        "--download", action="store_true", help="fetch those weights if they are missing (91 MB)"
    )
    parser.add_argument(
        "--cache",
        type=str | None,
        help="the folder of domain networks and reference features (default: the user's cache)",
    )


def measure(
    saved: SavedSystem, options: Namespace, *, source: str | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """Measure a run as parsed options say, and keep the metrics in its folder.

    Args:
        saved: the run, opened.
        options: those of ``add_measuring``, and ``root``.
        source: the file or folder of the run's data, if it has moved.

    Returns:
        The metrics by name, each a value with its standard error and settings.
    """
    config = EvaluationConfig(
        nll_samples=options.nll_samples,
        nll_data=options.nll_data,
        latent_samples=options.latent_samples,
        images=options.images,
        seed=options.seed,
        compile=options.compile,
        inception=options.inception,
        download=options.download,
        cache=Path(options.cache) if options.cache else default_cache(),
    )
    subject = Subject(saved, saved.data(options.root, source=source), config)
    groups = None
    if options.metrics is not None:
        groups = [name.strip() for name in options.metrics.split(",")]
    return evaluate_run(subject, groups)
