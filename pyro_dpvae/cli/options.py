"""The options of all commands but ``dpvae train``, which are parsed without PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae._parser import CommandParser
from pyro_dpvae.evaluation.config import GROUP_NAMES, EvaluationConfig

__all__ = ["DESCRIPTIONS", "add_device", "parsed"]

DESCRIPTIONS = {
    "compare": "Compare evaluated runs with the first: values, then differences, each with half "
    "its interval of 95 %. Differences are paired where the data or the seeds are the same.",
    "data": "Show how a data set is read: splits, shape, type and range of its numbers, labels, "
    "factors, and what the numbers are taken for. Draws 32 of its items. Nothing is trained.",
    "demo": "Train a beta-VAE and a beta-dpVAE on two moons; draw and measure both.",
    "encode": "Write the latents of all data of a run, the means of q(z|x), in the order of the "
    "file, with the split that each datum was in, its label, and its name or file.",
    "evaluate": "Measure a trained run and keep the metrics in RUN/evaluation.json. Metrics of "
    "the same checkpoint and settings that are there already are not measured again.",
    "explore": "Serve a page, to this machine alone, on which one moves a point through "
    "generation space and representation space and sees what it decodes to, the densities of "
    "prior and aggregate posterior, pockets and leaks. Ctrl-C ends it.",
    "interpolate": "Decode the straight line between two held-out data in generation space, in "
    "representation space, or in both.",
    "plot": "Draw a trained run: samples of the prior, its pockets and its leaks; latent "
    "space; traversals, of a ladder also layer by layer, and draws of each layer's "
    "clusters; leakage. Pictures lie in RUN/plots, as PNG and PDF.",
    "recipes": "List the systems of the papers, one a line; or show the numbers of one, with "
    "their sources, and what is unknown and was chosen instead.",
    "reconstruct": "Draw held-out data beside their reconstructions: the mean of p(x|z) at the "
    "mean of q(z|x).",
    "report": "Write one page of HTML of a run, or of several side by side: configuration, "
    "curves of training, metrics with intervals and differences from the first run, figures. "
    "The page needs no network and no other file.",
    "sample": "Draw z from the prior of a run and decode it to the mean of p(x|z), or to a "
    "draw from it where the decoder is autoregressive.",
}
"""By command, what it does."""


def parsed(command: str, arguments: Sequence[str]) -> Namespace:
    """Return the options of a command line.

    Raises:
        UsageError: if an option does not exist, or has a value that it cannot take.
        ValueError: for a comparison of a single run, or one that has options of an evaluation
            without ``--evaluate``.
    """
    parser = CommandParser(prog=f"dpvae {command}", description=DESCRIPTIONS[command])
    _OPTIONS[command](parser)
    options = parser.parse_args(list(arguments))
    if command == "compare":
        _check_compared(options)
    return options


def add_device(parser: Any) -> None:
    """Add ``--device`` to a parser or a group of one."""
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="auto (a GPU if CUDA finds one, otherwise the CPU), cpu, cuda, cuda:1 ...",
    )


def _compare(parser: CommandParser) -> None:
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="take runs that differ in their seed alone as repetitions of one system",
    )
    for name, what in (
        ("json", "JSON"),
        ("csv", "comma-separated values, a line for each metric and run"),
        ("latex", "a table for LaTeX's booktabs"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=f"print {what}")
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="first measure the runs where 'dpvae evaluate' has not; the options below are for "
        "this",
    )
    _add_evaluation(parser)


def _check_compared(options: Namespace) -> None:
    if len(options.runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(options.runs)}")
    evaluation = CommandParser()
    _add_evaluation(evaluation)
    for name, usual in evaluation.get_defaults().items():
        if not options.evaluate and options[name] != usual:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"options of an evaluation need --evaluate, got {option} without it; add "
                f"--evaluate, or leave {option} out"
            )


def _add_evaluation(parser: CommandParser) -> None:
    """Add the options of a comparison that measures runs first."""
    _add_measuring(parser)
    _add_root(parser)
    add_device(parser)


def _data(parser: CommandParser) -> None:
    parser.add_argument("data", type=str, help="a data set's name, a file, or a folder of images")
    _add_root(parser)
    parser.add_argument(
        "--layout",
        type=str | None,
        help="what the items of a file are: images, sequences or vectors (default: decided by "
        "their shape and type, and printed)",
    )
    parser.add_argument(
        "--labels",
        type=str | None,
        help="the column or array of a file with the labels (default: one with a usual name, such "
        "as label or class)",
    )
    parser.add_argument(
        "--standardise",
        type=str | None,
        help="columns that get mean 0 and standard deviation 1: all, or names separated by commas",
    )
    parser.add_argument(
        "--held-out",
        type=float | str | None,
        help="the share of a file without splits that is held out at random, or none (default: "
        "0.1)",
    )
    parser.add_argument(
        "--background",
        type=str | None,
        help="the colour behind transparent images of a folder: white or black (default: white)",
    )
    parser.add_argument(
        "--image-size",
        type=int | None,
        help="the height and width to which the central squares of a folder's images are resized",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        help="the picture of 32 training items (default: NAME-data.png, here)",
    )


def _demo(parser: CommandParser) -> None:
    parser.add_argument("--out", type=str, default="demo", help="the folder for the picture")
    parser.add_argument("--beta", type=float, default=2.0, help="the weight of the rate")
    parser.add_argument(
        "--steps", type=int, default=2500, help="the number of training steps of each model"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the random seed of weights, data order and samples"
    )


def _encode(parser: CommandParser) -> None:
    _add_run(parser)
    _add_data(parser)
    _add_file(parser, "latents.npy", "npy, csv or h5ad")


def _evaluate(parser: CommandParser) -> None:
    _add_run(parser)
    _add_data(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    _add_measuring(parser)


def _explore(parser: CommandParser) -> None:
    _add_run(parser)
    _add_data(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="the random seed of the samples on the page"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="the port on 127.0.0.1 (default: a free one)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def _interpolate(parser: CommandParser) -> None:
    _add_run(parser)
    _add_data(parser)
    parser.add_argument(
        "--start", type=int, default=0, help="the number of the held-out datum at the start"
    )
    parser.add_argument(
        "--end", type=int, default=1, help="the number of the held-out datum at the end"
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="the number of points, both ends included"
    )
    parser.add_argument(
        "--space", type=str | None, help="generation or representation (default: both)"
    )
    _add_file(parser, "interpolation.png", "png, pdf, npy or csv")


def _plot(parser: CommandParser) -> None:
    _add_run(parser)
    parser.add_argument("--number", type=int, default=100, help="the number of samples in a panel")
    _add_data(parser)
    parser.add_argument("--seed", type=int, default=0, help="the random seed of samples and pairs")
    parser.add_argument("--out", type=str | None, help="the folder (default: RUN/plots)")


def _recipes(parser: CommandParser) -> None:
    parser.add_argument("name", type=str | None, nargs="?", help="the recipe to show")


def _reconstruct(parser: CommandParser) -> None:
    _add_run(parser)
    _add_data(parser)
    parser.add_argument("--number", type=int, default=30, help="the number of data")
    _add_file(parser, "reconstructions.png", "png, pdf, npy or csv")


def _report(parser: CommandParser) -> None:
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument(
        "--out", type=str | None, help="the file (default: RUN/report.html, or report.html here)"
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="take runs that differ in their seed alone as repetitions of one system, and draw "
        "the first of each",
    )
    _add_weights(parser)
    _add_data(parser)
    parser.add_argument("--number", type=int, default=100, help="the number of samples in a panel")
    parser.add_argument("--seed", type=int, default=0, help="the random seed of the figures")
    parser.add_argument("--no-figures", action="store_true", help="write the page without figures")


def _sample(parser: CommandParser) -> None:
    _add_run(parser)
    parser.add_argument("--number", type=int, default=100, help="the number of samples")
    parser.add_argument("--seed", type=int, default=0, help="the random seed of the samples")
    parser.add_argument(
        "--draw", action="store_true", help="draw x from p(x|z) instead of taking its mean"
    )
    _add_file(
        parser,
        "samples.png, with the array beside it as samples.npy",
        "png, pdf, npy, csv or h5ad",
    )


_OPTIONS: dict[str, Callable[[CommandParser], None]] = {
    "compare": _compare,
    "data": _data,
    "demo": _demo,
    "encode": _encode,
    "evaluate": _evaluate,
    "explore": _explore,
    "interpolate": _interpolate,
    "plot": _plot,
    "recipes": _recipes,
    "reconstruct": _reconstruct,
    "report": _report,
    "sample": _sample,
}


def _add_run(parser: CommandParser) -> None:
    """Add the run folder, and the options of :func:`_add_weights`."""
    parser.add_argument("run", type=str, help="the run folder")
    _add_weights(parser)


def _add_weights(parser: CommandParser) -> None:
    """Add the options for the checkpoint and weights to open, and for the device."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        default="last",
        help="the checkpoint: last, best (by the quantity of --monitor in training), or a step",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        help="the weights: raw, or average for their moving average (default: average, if the run "
        "has one)",
    )
    add_device(parser)


def _add_file(parser: CommandParser, usual: str, formats: str) -> None:
    """Add the options that name the file that a command writes, and its format."""
    parser.add_argument("--out", type=str | None, help=f"the file (default: RUN/{usual})")
    parser.add_argument(
        "--to", type=str | None, help=f"its format: {formats} (default: that of its ending)"
    )


def _add_root(parser: CommandParser) -> None:
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")


def _add_data(parser: CommandParser) -> None:
    """Add the options that say where the data of the run are."""
    _add_root(parser)
    parser.add_argument(
        "--data", type=str | None, help="the file or folder of the run's data, if it has moved"
    )


def _add_measuring(parser: CommandParser) -> None:
    """Add the options for the groups of metrics, and for how much work measures them."""
    defaults = EvaluationConfig()
    parser.add_argument(
        "--metrics",
        type=str | None,
        help=f"groups of metrics, some of {','.join(GROUP_NAMES)} (default: all that the data "
        "allow, without fid)",
    )
    for name, what in (
        ("nll_samples", "the number of samples of z for the likelihood of each datum"),
        ("nll_data", "the number of held-out data whose likelihood is measured"),
        (
            "latent_samples",
            "the number of samples for divergences, leakage and the split of the rate",
        ),
        ("images", "the number of samples, and of reference images, in feature space"),
        ("seed", "the random seed of all samples"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name), help=what)
    parser.add_argument(
        "--chunk",
        type=int | None,
        help="the number of samples of z for each datum's likelihood that are drawn at once; "
        "fewer take less memory (default: a number that suits caches and takes less than 1 GB)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the estimate of likelihoods: compiling takes ten seconds, so that it pays "
        "where the estimate takes minutes",
    )
    parser.add_argument(
        "--inception", type=str | None, help="the file with the weights of FID's network"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch those weights if they are missing (91 MB)"
    )
    parser.add_argument(
        "--cache",
        type=str | None,
        help="the folder of domain networks and reference features (default: the user's cache)",
    )
