"""``dpvae train``: a system by the names of its parts, on data by name, file or folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyro
import torch

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.cli.parts import PARTS, PartParser, merge_files, spell_out
from pyro_dpvae.data import DATA_SETS, PREPROCESSING, Batches, load
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.recipes import RECIPES, build_system, start_from_data
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import (
    TrainConfig,
    check_batch,
    check_clusters,
    check_last_batch,
    fit,
    growth_steps,
)

__all__ = ["main"]

_EPOCHS = 10


def main(arguments: Sequence[str]) -> int:
    """Train a system; returns the exit status."""
    arguments = merge_files(spell_out(arguments))
    options = _parser(arguments).parse_args(arguments).as_dict()
    options.pop("config", None)
    device = check_device(options["device"])
    data = load(options["data"], root=options["root"], download=options.pop("download"))
    if options["preprocessing"] is None:
        options["preprocessing"] = "grey" if data.is_images else "none"
    if options["out"] is None:
        options["out"] = f"runs/{_title(options)}"

    pyro.set_rng_seed(options["seed"])
    system = build_system(
        data.item_shape,
        latent_dim=options["latent_dim"],
        dataset_size=split_size(data.train),
        **{part: options[part] for part in PARTS},
    )
    for module in (system.model, system.guide):
        module.to(device)
    system.objective.to(device)
    batch_size = options["batch_size"]
    cut = {"preprocessing": options["preprocessing"], "device": device, "seed": options["seed"]}
    train = Batches(data.train, batch_size=batch_size, **cut)
    test_size = min(batch_size, split_size(data.test))
    test = Batches(data.test, batch_size=test_size, shuffle=False, **cut)
    start_from_data(system, train.epoch(0))
    config = TrainConfig(
        steps=_steps(options, len(train)),
        learning_rate=options["learning_rate"],
        seed=options["seed"],
        evaluate_every=options["evaluate_every"],
        backend=options["backend"],
        growth_steps=options["growth_steps"],
        cluster_step=options["cluster_step"],
    )
    check_batch(system.model, system.guide, system.objective, next(train.epoch(0)))
    check_last_batch(system.objective, train, system.model, system.guide)
    growth_steps(system.guide, config.steps)  # refuses too few before there is a run folder
    check_clusters(system.model, system.guide, config=config, train=train)
    run = RunFolder.create(options["out"], options)
    print(
        f"{data.name}: {train.size} training data of shape {data.item_shape}, {test.size} held "
        f"out; {config.steps} steps of batch {batch_size} on {device}",
        file=sys.stderr,
    )
    history = fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=train,
        test=test,
        config=config,
        run=run,
        state={"item_shape": list(data.item_shape), "dataset_size": train.size},
    )
    held_out = history.held_out
    print(
        f"held-out ELBO {held_out['elbo']:.3f} nats per datum "
        f"(distortion {held_out['distortion']:.3f}, rate {held_out['rate']:.3f})"
    )
    print(f"run: {run.path}   samples: dpvae sample {run.path}")
    if history.interrupted:
        print(f"interrupted at step {run.state['step']} of {config.steps}; the run is usable")
        return 130
    return 0


def check_device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        ValueError: if it is no device, or not on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that works here, such as cpu; got {name!r}: {reason}"
        ) from error
    return device


def _parser(arguments: Sequence[str]) -> PartParser:
    parser = PartParser(
        arguments,
        prog="dpvae train",
        description="Train a VAE and write a run folder: config.json, metrics.jsonl, checkpoint/. "
        "Parts have options of their own: '--objective beta --help' shows those of beta.",
    )
    parser.add_argument(
        "--config",
        action="config",
        help="a YAML or JSON file of options, as --print-config prints",
    )
    parser.add_argument(
        "--recipe",
        type=str | None,
        help="a system of a paper, whose options others overrule, with null to unset one: "
        f"{', '.join(RECIPES)}",
    )
    data = parser.add_argument_group("data")
    names = ", ".join(sorted(DATA_SETS))
    data.add_argument(
        "--data",
        type=str,
        required=True,
        help=f"one of {names}; or a .npz or .npy file, or a folder of images",
    )
    data.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    data.add_argument(
        "--download", action="store_true", help="download the data set into --root if missing"
    )
    data.add_argument(
        "--preprocessing",
        type=str | None,
        help=f"one of {', '.join(PREPROCESSING)} (default: grey for images, none for vectors)",
    )
    parser.add_argument_group("representation").add_argument(
        "--latent-dim",
        type=int | None,
        help="the size of z (default: 10, or the sum of a ladder's rungs)",
    )
    parser.add_parts()
    training = parser.add_argument_group("training")
    training.add_argument("--steps", type=int | None, help="how many steps, or")
    training.add_argument(
        "--epochs", type=int | None, help=f"how many passes over the data (default: {_EPOCHS})"
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
        help="the step after which clusters of a guide are put where the data have some "
        "(default: never)",
    )
    training.add_argument("--batch-size", type=int, default=100, help="data in a step")
    training.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam")
    training.add_argument("--seed", type=int, default=0, help="of weights, order and noise")
    training.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1 ...")
    training.add_argument(
        "--backend",
        type=str,
        default="fx",
        help="how steps run: fx (recorded once and replayed), inductor (compiled as well, in up "
        "to a minute, with a C++ compiler), cudagraph (one launch of a GPU) or eager",
    )
    training.add_argument(
        "--evaluate-every", type=int, default=1000, help="steps between held-out evaluations"
    )
    training.add_argument(
        "--out",
        type=str | None,
        help="the run folder (default: runs/DATA-PRIOR-OBJECTIVE or runs/DATA-RECIPE)",
    )
    return parser


def _steps(options: dict[str, Any], per_epoch: int) -> int:
    if options["steps"] is not None and options["epochs"] is not None:
        raise ValueError(
            "give --steps or --epochs, not both; "
            f"got {options['steps']} steps and {options['epochs']} epochs"
        )
    if options["steps"] is not None:
        return check_positive_int("steps", options["steps"])
    epochs = _EPOCHS if options["epochs"] is None else options["epochs"]
    return check_positive_int("epochs", epochs) * per_epoch


def _title(options: dict[str, Any]) -> str:
    data = Path(options["data"]).stem
    if options["recipe"] is not None:
        return f"{data}-{options['recipe']}"
    return f"{data}-{options['prior']['name']}-{options['objective']['name']}"
