"""``dpvae interpolate RUN``: the decoded paths between two held-out data."""

import torch
from jsonargparse import Namespace

from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.cli.tables import PICTURES, chosen_file, is_table, write_rows
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.plots import traversal_figure

__all__ = ["main"]

_SPACES = ("generation", "representation")


def main(options: Namespace) -> int:
    """Decode the straight line between two data in latent space; returns the exit status."""
    path = chosen_file(options, "interpolation.png", formats=(*PICTURES, "npy", "csv"))
    saved = opened_run(options)
    data = saved.load_data(options.root, source=options.data)
    size = split_size(data.test)
    for place in (options.start, options.end):
        if not 0 <= place < size:
            raise ValueError(
                "--start and --end must be places of held-out data, from 0 to "
                f"{size - 1}, got {place}"
            )
    a, b = data.test[options.start], data.test[options.end]
    spaces = _SPACES if options.space is None else (options.space,)
    rows = {
        one: saved.in_file_units(saved.interpolate(a, b, steps=options.steps, space=one))
        for one in spaces
    }
    if is_table(path):
        about = {"space": [one for one in spaces for _ in range(options.steps)]}
        write_rows(path, torch.cat(list(rows.values())), columns=data.columns, about=about)
    else:
        title = f"from held-out datum {options.start} to {options.end}"
        behind = saved.in_file_units(data.test[:]) if data.item_shape == (2,) else None
        labels = [f"{one} space" for one in spaces]
        save_figure(traversal_figure(list(rows.values()), labels, title=title, data=behind), path)
    print(f"{options.steps} points in {' and '.join(spaces)} space: {path}")
    return 0
