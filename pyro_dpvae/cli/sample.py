"""``dpvae sample RUN``: samples of a trained run, as a picture and as an array."""

import csv
from collections.abc import Sequence
from io import BytesIO, StringIO

import numpy as np
import pyro
import torch
from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._files import write_whole
from pyro_dpvae.cli.drawing import picture_file, save_figure
from pyro_dpvae.cli.opening import open_run
from pyro_dpvae.data import to_unit
from pyro_dpvae.decoders import images
from pyro_dpvae.plots import sample_figure

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Draw samples from the prior and decode them; returns the exit status."""
    count = check_positive_int("count", options.count)
    seed = check_seed(options.seed)
    picture = None if options.out is None else picture_file(options.out)
    saved = open_run(options)
    run, model = saved.run, saved.system.model
    picture = picture or run.path / "samples.png"
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        decoded = images(model.decoder, model.prior().sample((count,))).cpu()
    x = to_unit(decoded, saved.preprocessing)
    columns = saved.checkpoint.state.get("columns")
    save_figure(sample_figure(x, columns), picture)
    array = BytesIO()
    np.save(array, x.numpy())
    write_whole(picture.with_suffix(".npy"), array.getvalue())
    files = [picture, picture.with_suffix(".npy")]
    if columns is not None:
        table = picture.with_suffix(".csv")
        write_whole(table, _table(columns, x.tolist()))
        files.append(table)
    print(f"{count} samples: {', '.join(map(str, files))}")
    return 0


def _table(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue().encode()
