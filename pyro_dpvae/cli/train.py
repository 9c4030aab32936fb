"""``dpvae train``: a system by the names of its parts, on data by name, file or folder."""

import os
import shlex
import sys
from math import prod
from pathlib import Path
from typing import Any

import pyro
import torch

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._devices import choose_device
from pyro_dpvae._ranks import on_first_rank, ranks, refusing_together
from pyro_dpvae.cli.devices import in_words
from pyro_dpvae.cli.parts import PARTS
from pyro_dpvae.cli.resume import (
    check_data,
    folder_of,
    place_of,
    resumed,
    which_checkpoint,
)
from pyro_dpvae.cli.train_options import (
    EPOCHS,
    LATENT_DIM,
    LEAST_STEPS_OF_IMAGES,
    LEAST_STEPS_OF_VECTORS,
)
from pyro_dpvae.cli.updates import resolve_rate, updates
from pyro_dpvae.data import DATA_SETS, READING, Batches, load
from pyro_dpvae.data.dataset import DataSet, split_size
from pyro_dpvae.recipes import build_system, open_run, start_from_data
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import (
    TensorBoard,
    TrainConfig,
    check_resumed,
    check_run,
    evaluate_elbo,
    fit,
)
from pyro_dpvae.training.diagnosis import ignores_latents

__all__ = ["main"]

# Options that a ``TrainConfig`` takes as they are, beside those around its steps.
_SAME = (
    "backend",
    "checkpoint_every",
    "cluster_step",
    "evaluate_every",
    "growth_steps",
    "log_every",
    "seed",
)

_OF_SIZE = ("vae", "lossy")  # models that take a size of z; ladders have that of their layers
_COLLAPSED = """the rate is near 0 ({rate:.3f} nats): z says next to nothing of the data, and \
samples will look all alike. Remedies, in this order:
  train longer:                      --steps
  begin with little noise:           --likelihood gaussian --likelihood.variance 0.01
  let the rate come in slowly:       --objective beta --objective.schedule.beta linear \
--objective.schedule.beta.steps 1000
  weigh it less:                     --objective beta --objective.beta 0.5"""


def main(options: dict[str, Any]) -> int:
    """Train a system; returns the exit status."""
    resume, which = options.pop("resume"), options.pop("checkpoint")
    if which is not None:
        if resume is None:
            raise ValueError(
                f"a checkpoint is that of a run, got --checkpoint {which} without one; add "
                "--resume RUN"
            )
        which = which_checkpoint(which)
    check_seed(options["seed"])
    _locate(options, resume)
    device = choose_device(options["device"])
    if options.pop("download"):  # by one, from whom others have it
        on_first_rank(lambda: load(options["data"], root=options["root"], download=True))
    reading = {name: options[name] for name in READING}
    data = load(options["data"], root=options["root"], **reading)
    start = None if resume is None else resumed(resume, which)
    if start is not None:
        check_data(start, options["data"], data)
    if start is None and options["latent_dim"] is None and options["model"]["name"] in _OF_SIZE:
        options["latent_dim"] = min(LATENT_DIM, max(2, prod(data.item_shape)))
    if options["preprocessing"] is None:
        options["preprocessing"] = "grey" if data.is_images else "none"
    if resume is not None:
        options["out"] = resume
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
    cut = {
        **{name: options[name] for name in ("preprocessing", "seed", "workers")},
        "device": device,
    }
    here = ranks()
    train = Batches(data.train, batch_size=batch_size, rank=here.index, ranks=here.count, **cut)
    watched_size = min(batch_size, split_size(data.watched))
    watched = Batches(data.watched, batch_size=watched_size, shuffle=False, **cut)
    start_from_data(system, train.epoch(0))
    steps = _steps(options, len(train), images=data.is_images)
    resolve_rate(options, steps)
    config = TrainConfig(
        steps=steps, **updates(options), **{name: options[name] for name in _SAME}
    )
    with refusing_together():  # before there is a run folder, or what is in it has changed
        check_run(
            system.model, system.guide, objective=system.objective, train=train, config=config
        )
        if start is not None:
            check_resumed(start, config=config, objective=system.objective)
    boards = [TensorBoard(Path(options["out"]) / "tensorboard")] if options["tensorboard"] else []
    place = "" if resume is None else place_of(RunFolder(Path(options["out"])), start, steps)
    run = folder_of(options, resume=resume is not None)
    print(
        f"{data.name}: {train.size} training data of shape {data.item_shape}, "
        f"{split_size(data.test)} held out{_watching(data)}; {config.steps} steps of batch "
        f"{batch_size} on {in_words(device, options['device'])}{_shared(here.count)}",
        file=sys.stderr,
    )
    print(f"data: {data.decision}", file=sys.stderr)
    if data.held_out is not None:
        on_first_rank(lambda: run.write("held-out.json", _indices(data)))
    if place:
        print(place, file=sys.stderr)
    try:
        history = fit(
            system.model,
            system.guide,
            objective=system.objective,
            train=train,
            test=watched,
            config=config,
            run=run,
            state={
                "data": data.digest,
                **({} if data.columns is None else {"columns": list(data.columns)}),
            },
            # The last one, and nobody's newer ones, is known once the folder is locked.
            resume=resume is not None if start is None or which is None else start,
            device=device,
            callbacks=boards,
        )
    except KeyboardInterrupt as error:
        error.add_note(f"the run goes on with: dpvae train --resume {shlex.quote(str(run.path))}")
        raise
    if history.evaluated is not None:
        held_out = history.held_out
        what = "held-out" if data.valid is None else "validation"
        print(
            f"{what} ELBO {held_out['elbo']:.3f} nats per datum "
            f"(distortion {held_out['distortion']:.3f}, rate {held_out['rate']:.3f})"
        )
        if ignores_latents(held_out):
            print(_COLLAPSED.format(rate=held_out["rate"]), file=sys.stderr)
    if history.stopped:
        print(
            f"nothing had improved for {config.patience} evaluations after step {history.step} of "
            f"{config.steps}; --checkpoint best opens the best"
        )
    print(f"run: {run.path}   samples: dpvae sample {shlex.quote(str(run.path))}")
    if history.signal is not None:
        command = "dpvae"
        if here.count > 1:
            command = f"torchrun --nproc-per-node={here.count} -m pyro_dpvae"
        print(
            f"interrupted at step {history.step} of {config.steps}; the run is usable, and goes "
            f"on with: {command} train --resume {shlex.quote(str(run.path))}"
        )
        return 128 + history.signal
    if data.valid is not None:
        _test(run, data, device)
    return 0


def _watching(data: DataSet) -> str:
    if data.valid is None:
        return ""
    return f" for the end, {split_size(data.valid)} to watch"


def _indices(data: DataSet) -> dict[str, Any]:
    """Return which items of the file are held out, for the run folder."""
    assert data.held_out is not None
    return {"digest": data.digest, "indices": data.held_out.tolist()}


def _test(run: RunFolder, data: DataSet, device: torch.device) -> None:
    """Measure the last checkpoint, and the best one if it is another, on the test split.

    Training has watched the validation split, and seen nothing of this one.
    """
    found = {}
    steps = {run.checkpoint(which).step: which for which in ("best", "last")}
    for step, which in steps.items():
        saved = open_run(run.path, device, checkpoint=step)
        elbo = evaluate_elbo(saved.system.model, saved.system.guide, saved.batches(data.test))
        found[which] = {"step": step, **elbo}
        print(
            f"test ELBO {elbo['elbo']:.3f} nats per datum (distortion {elbo['distortion']:.3f}, "
            f"rate {elbo['rate']:.3f}), {which} checkpoint, step {step}"
        )
    on_first_rank(lambda: run.write("test.json", found))


def _locate(options: dict[str, Any], resume: str | None) -> None:
    """Write down where data are, which a run that goes on elsewhere must find.

    Raises:
        ValueError: if no data are named, or a path is empty.
    """
    for option, value in (("data", options["data"]), ("out", options["out"]), ("resume", resume)):
        if value == "":  # which a path takes for the present folder
            raise ValueError(f"--{option} must not be empty, got ''; name it, or leave it out")
    if options["data"] is None:
        raise ValueError(
            f"{resume} holds no run yet; to start one there, give --data and its options"
            if resume is not None and not RunFolder(Path(resume)).exists
            else "data must be named, and are not; give --data with a name, a file or a folder"
        )
    if options["data"] not in DATA_SETS and os.path.exists(options["data"]):
        options["data"] = os.path.abspath(options["data"])
    if options["root"] is not None:
        options["root"] = os.path.abspath(options["root"])


def _steps(options: dict[str, Any], per_epoch: int, *, images: bool) -> int:
    if options["steps"] is not None and options["epochs"] is not None:
        raise ValueError(
            "give --steps or --epochs, not both; "
            f"got {options['steps']} steps and {options['epochs']} epochs"
        )
    if options["steps"] is not None:
        return check_positive_int("steps", options["steps"])
    if options["epochs"] is not None:
        return check_positive_int("epochs", options["epochs"]) * per_epoch
    # Ten passes over a few hundred data are a few steps, which teach next to nothing.
    return max(EPOCHS * per_epoch, LEAST_STEPS_OF_IMAGES if images else LEAST_STEPS_OF_VECTORS)


def _shared(count: int) -> str:
    return f", shared by {count} processes" if count > 1 else ""


def _title(options: dict[str, Any]) -> str:
    data = Path(options["data"]).stem
    recipe = options["recipe"]
    if recipe is not None:
        return recipe if recipe.startswith(f"{data}-") else f"{data}-{recipe}"
    return f"{data}-{options['prior']['name']}-{options['objective']['name']}"
