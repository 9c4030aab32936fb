"""The options of ``dpvae train``, those of its parts among them."""

from collections.abc import Sequence
from typing import Any

from pyro_dpvae.cli.options import add_device, add_reading
from pyro_dpvae.cli.parts import PartParser, merge_files, spell_out
from pyro_dpvae.cli.resume import with_configuration
from pyro_dpvae.cli.updates import add_updates
from pyro_dpvae.data import DATA_SETS, PREPROCESSING

__all__ = [
    "EPOCHS",
    "LATENT_DIM",
    "LEAST_STEPS_OF_IMAGES",
    "LEAST_STEPS_OF_VECTORS",
    "parsed",
]

EPOCHS = 10
"""How often training goes through the data, if options do not say."""

LEAST_STEPS_OF_IMAGES, LEAST_STEPS_OF_VECTORS = 1000, 3000
"""How many steps there are at least, if options do not say; those of vectors take little time."""

LATENT_DIM = 10
"""The size of z, if options do not say and a datum has as many numbers."""


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line, those of recipes, files and resumed runs among them.

    Raises:
        UsageError: if an option is not there, or has a value that it cannot take.
    """
    arguments = merge_files(with_configuration(spell_out(arguments)))
    options: dict[str, Any] = _parser(arguments).parse_args(arguments).as_dict()
    options.pop("config", None)
    return options


def _parser(arguments: Sequence[str]) -> PartParser:
    parser = PartParser(
        arguments,
        prog="dpvae train",
        description="Train a VAE and write a run folder: configuration, records, checkpoints. "
        "Parts have options of their own: '--objective beta --help' shows those of beta.",
    )
    parser.add_argument(
        "--config",
        action="config",
        help="a YAML or JSON file of options, as --print-config prints",
    )
    parser.add_argument(
        "--resume",
        type=str | None,
        help="a run folder: go on with the run in it, as it was configured, or start one there",
    )
    parser.add_argument(
        "--checkpoint",
        type=str | None,
        help="go on from this checkpoint: last (the default), best, or a step; later ones are "
        "removed",
    )
    parser.add_argument(
        "--recipe",
        type=str | None,
        help="a system of a paper, one of 'dpvae recipes', whose options others overrule, with "
        "null to unset one; '--override KEY=VALUE' is '--KEY VALUE'",
    )
    data = parser.add_argument_group("data")
    names = ", ".join(sorted(DATA_SETS))
    data.add_argument(
        "--data",
        type=str | None,
        help=f"one of {names}; or a file (.npz, .h5, .mat, .csv, .h5ad and others), or a folder "
        "of images; 'dpvae data FILE' shows how it is read",
    )
    add_reading(data)
    data.add_argument(
        "--download", action="store_true", help="download the data set into --root if missing"
    )
    data.add_argument(
        "--workers",
        type=int,
        default=2,
        help="how many processes read data that are too large for memory; 0: none of their own",
    )
    data.add_argument(
        "--preprocessing",
        type=str | None,
        help=f"one of {', '.join(PREPROCESSING)} (default: grey for images, none for sequences "
        "and vectors)",
    )
    parser.add_argument_group("representation").add_argument(
        "--latent-dim",
        type=int | None,
        help=f"the size of z (default: {LATENT_DIM}, or as many as a datum has numbers if these "
        "are fewer, or the sum of a ladder's layers)",
    )
    parser.add_parts()
    training = parser.add_argument_group("training")
    training.add_argument(
        "--steps", type=int | None, help="how many steps (default: those of --epochs)"
    )
    training.add_argument(
        "--epochs",
        type=int | None,
        help=f"how many passes over the data, instead of --steps (default: {EPOCHS}, but at least "
        f"{LEAST_STEPS_OF_IMAGES} steps of images and {LEAST_STEPS_OF_VECTORS} of vectors)",
    )
    training.add_argument(
        "--growth-steps",
        type=int,
        default=500,
        help="further steps, which fit each new component of a guide that grows",
    )
    training.add_argument(
        "--cluster-step",
        type=int | None,
        help="the step after which k-means puts the components of a mixture prior at clusters of "
        "the data's representations (default: never)",
    )
    training.add_argument(
        "--batch-size", type=int, default=100, help="data in a step, of all processes together"
    )
    training.add_argument("--seed", type=int, default=0, help="of weights, order and noise")
    add_device(training)
    training.add_argument(
        "--backend",
        type=str,
        default="auto",
        help="how steps run: eager, fx (recorded once and replayed), inductor (compiled as well, "
        "in up to a minute, with a C++ compiler), cudagraph (one launch of a GPU), or auto (fx)",
    )
    training.add_argument(
        "--evaluate-every",
        type=int,
        default=1000,
        help="steps between held-out evaluations, each with a checkpoint",
    )
    training.add_argument(
        "--checkpoint-every",
        type=int | None,
        help="steps between checkpoints beside those (default: no others)",
    )
    training.add_argument(
        "--log-every", type=int, default=50, help="steps between records of the training loss"
    )
    training.add_argument(
        "--out",
        type=str | None,
        help="the run folder (default: runs/DATA-PRIOR-OBJECTIVE or runs/DATA-RECIPE)",
    )
    add_updates(parser)
    return parser
