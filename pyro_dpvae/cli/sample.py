"""``dpvae sample RUN``: samples of a trained run, as a picture and as an array."""

from pathlib import Path

import numpy as np
import pyro
import torch
from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._files import make_folder
from pyro_dpvae.cli.opening import open_run
from pyro_dpvae.data import to_unit
from pyro_dpvae.decoders import images
from pyro_dpvae.plots import sample_figure

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Draw samples from the prior and decode them; returns the exit status."""
    count = check_positive_int("count", options.count)
    saved = open_run(options)
    run, model = saved.run, saved.system.model
    picture = Path(options.out) if options.out else run.path / "samples.png"
    make_folder(picture.parent)
    pyro.set_rng_seed(options.seed)
    with torch.no_grad():
        decoded = images(model.decoder, model.prior().sample((count,))).cpu()
    x = to_unit(decoded, run.config["preprocessing"])
    sample_figure(x).savefig(picture, dpi=150)
    np.save(picture.with_suffix(".npy"), x.numpy())
    print(f"{count} samples: {picture}, {picture.with_suffix('.npy')}")
    return 0
