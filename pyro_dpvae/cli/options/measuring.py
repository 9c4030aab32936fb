"""The options of commands that measure runs."""

from jsonargparse import ArgumentParser

from pyro_dpvae.evaluation.config import GROUP_NAMES, EvaluationConfig

__all__ = ["add_measuring"]


def add_measuring(parser: ArgumentParser) -> None:
    """Add which groups of metrics are measured, and by how much work."""
    defaults = EvaluationConfig()
    parser.add_argument(
        "--metrics",
        type=str | None,
        help=f"some of {','.join(GROUP_NAMES)} (default: all that the data allow, but fid)",
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
        "--chunk",
        type=int | None,
        help="how many draws of z are made at once for each datum's likelihood; fewer take less "
        "memory (default: as many as suit caches, and take less than 1 GB)",
    )
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
