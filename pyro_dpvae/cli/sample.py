"""``dpvae sample RUN``: samples of a trained run, as a picture and as an array."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pyro
import torch

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._files import write_whole
from pyro_dpvae.cli.drawing import picture_file, save_figure
from pyro_dpvae.cli.opening import add_run, open_run
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.data import to_unit
from pyro_dpvae.decoders import images
from pyro_dpvae.plots import sample_figure

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Draw samples from the prior and decode them; returns the exit status."""
    parser = CommandParser(
        prog="dpvae sample",
        description="Draw z from the prior of a run and decode it to the mean of p(x|z), or to a "
        "draw from it where the decoder is autoregressive.",
    )
    add_run(parser)
    parser.add_argument("--count", type=int, default=100, help="how many samples")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument(
        "--out",
        type=str | None,
        help="the picture; the array lies beside it as .npy (default: RUN/samples.png)",
    )
    options = parser.parse_args(list(arguments))
    count = check_positive_int("count", options.count)
    seed = check_seed(options.seed)
    picture = None if options.out is None else picture_file(options.out)
    saved = open_run(options)
    run, model = saved.run, saved.system.model
    picture = picture or run.path / "samples.png"
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        decoded = images(model.decoder, model.prior().sample((count,))).cpu()
    x = to_unit(decoded, run.config["preprocessing"])
    save_figure(sample_figure(x), picture)
    array = BytesIO()
    np.save(array, x.numpy())
    write_whole(picture.with_suffix(".npy"), array.getvalue())
    print(f"{count} samples: {picture}, {picture.with_suffix('.npy')}")
    return 0
