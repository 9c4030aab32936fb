"""``dpvae evaluate RUN``: measure a trained run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_dpvae.cli.opening import add_data, add_run, open_run
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.evaluation import GROUPS, EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.evaluation.subject import default_cache

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Measure a run, keep the metrics in its folder and print them; returns the exit status."""
    options = _parser().parse_args(list(arguments))
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
    saved = open_run(options)
    subject = Subject(saved, saved.data(options.root, source=options.data), config)
    groups = None
    if options.metrics is not None:
        groups = [name.strip() for name in options.metrics.split(",")]
    metrics = evaluate_run(subject, groups)
    print(_table(metrics))
    print(f"kept in {saved.run.path / 'evaluation.json'}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="dpvae evaluate",
        description="Measure a trained run and keep the metrics in RUN/evaluation.json. What is "
        "there already, of the same checkpoint and numbers, is not measured again.",
    )
    defaults = EvaluationConfig()
    add_run(parser)
    parser.add_argument(
        "--metrics",
        type=str | None,
        help=f"some of {','.join(GROUPS)} (default: all that the data allow, but fid)",
    )
    add_data(parser)
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
    return parser


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    width = max(map(len, metrics), default=0)
    lines = []
    for name, entry in metrics.items():
        error = entry["standard_error"]
        spread = "" if error is None else f"+- {error:.4f}"
        shown = ", ".join(f"{key} {_short(value)}" for key, value in entry["settings"].items())
        lines.append(f"{name:{width}} {entry['value']:12.4f} {spread:12}  {shown}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
