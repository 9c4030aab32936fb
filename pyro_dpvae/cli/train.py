"""``dpvae train``: a system by the names of its parts, on data by name, file or folder."""

import shlex
import sys

import torch

from pyro_dpvae._ranks import on_first_rank, ranks
from pyro_dpvae.cli.devices import in_words
from pyro_dpvae.cli.opening import which_checkpoint
from pyro_dpvae.cli.train_options import TrainOptions
from pyro_dpvae.data import DataSet
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.recipes import open_run
from pyro_dpvae.recipes.training import PreparedRun, prepare
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import evaluate_elbo
from pyro_dpvae.training.diagnosis import ignores_latents

__all__ = ["main", "trained"]

_COLLAPSED = """the rate is near 0 ({rate:.3f} nats): the latents carry almost no information \
about the data, and samples will look all alike. Remedies, in this order:
  train longer:                      --steps
  begin with little noise:           --likelihood gaussian --likelihood.variance 0.01
  let the rate come in slowly:       --objective beta --objective.beta 1 \
--objective.schedule.beta linear --objective.schedule.beta.steps 1000
  weigh it less:                     --objective beta --objective.beta 0.5"""


def main(options: TrainOptions) -> int:
    """Train a system, or several; returns the exit status."""
    if options.seeds is None and not options.sweep:
        return trained(options)
    from pyro_dpvae.cli.sweep import swept

    return swept(options)


def trained(options: TrainOptions) -> int:
    """Train one system; returns the exit status."""
    which = None if options.checkpoint is None else which_checkpoint(options.checkpoint)
    prepared = prepare(
        options.config,
        out=options.out if options.resume is None else options.resume,
        resume=options.resume is not None,
        checkpoint=which,
        download=options.download,
    )
    run, steps = prepared.folder, prepared.training.steps
    print(_announced(prepared), file=sys.stderr)
    try:
        history = prepared.fit()
    except KeyboardInterrupt as error:
        error.add_note(f"the run goes on with: dpvae train --resume {shlex.quote(str(run.path))}")
        raise
    if history.evaluated is not None:
        held_out = history.held_out
        what = "held-out" if prepared.data.valid is None else "validation"
        print(
            f"{what} ELBO {held_out['elbo']:.3f} nats per datum "
            f"(distortion {held_out['distortion']:.3f}, rate {held_out['rate']:.3f})"
        )
        if ignores_latents(held_out):
            print(_COLLAPSED.format(rate=held_out["rate"]), file=sys.stderr)
    if history.stopped:
        print(
            f"nothing had improved for {prepared.training.patience} evaluations after step "
            f"{history.step} of {steps}; --checkpoint best opens the best"
        )
    print(f"run: {run.path}   samples: dpvae sample {shlex.quote(str(run.path))}")
    if history.signal is not None:
        command = "dpvae"
        if ranks().count > 1:
            command = f"torchrun --nproc-per-node={ranks().count} -m pyro_dpvae"
        print(
            f"interrupted at step {history.step} of {steps}; the run is usable, and goes "
            f"on with: {command} train --resume {shlex.quote(str(run.path))}"
        )
        return 128 + history.signal
    if prepared.data.valid is not None:
        _test(run, prepared.data, prepared.device)
    return 0


def _announced(prepared: PreparedRun) -> str:
    """Return what is said of a run before it starts."""
    data, config, run = prepared.data, prepared.config, prepared.folder
    steps = prepared.training.steps
    watching = "" if data.valid is None else f" for the end, {split_size(data.valid)} to watch"
    whole = " (all training data)" if config.batch_size == split_size(data.train) else ""
    shared = f", shared by {ranks().count} processes" if ranks().count > 1 else ""
    lines = [
        f"{data.name}: {split_size(data.train)} training data of shape {data.item_shape}, "
        f"{split_size(data.test)} held out{watching}; {steps} steps of batch "
        f"{config.batch_size}{whole} on {in_words(prepared.device, config.device)}{shared}",
        f"data: {data.decision}",
    ]
    start = prepared.start
    if start is not None and start.step == steps:
        lines.append(f"{run.path} has all its {steps} steps; give more with --steps")
    elif start is not None:
        lines.append(f"{run.path} goes on from step {start.step} of {steps}")
    elif prepared.resume:
        has_none = "has no checkpoint yet: starts at step 0"
        lines.append(f"{run.path} {has_none}" if run.exists else f"starts a run in {run.path}")
    return "\n".join(lines)


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
