"""``dpvae reconstruct RUN``: held-out data beside their reconstructions."""

from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._subsets import stacked
from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.cli.tables import PICTURES, chosen_file, is_table, write_rows
from pyro_dpvae.data import shades
from pyro_dpvae.plots import reconstruction_figure

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Reconstruct held-out data, evenly spaced over the split; returns the exit status."""
    number = check_positive_int("number", options.number)
    path = chosen_file(options, "reconstructions.png", formats=(*PICTURES, "npy", "csv"))
    saved = opened_run(options)
    data = saved.load_data(options.root, source=options.data)
    x = stacked(data.test, number)
    found = saved.in_file_units(saved.reconstruct(x))
    if is_table(path):
        write_rows(path, found, columns=data.columns)
    else:
        shown = shades(x) if data.is_images else saved.in_file_units(x)
        save_figure(reconstruction_figure(shown, found), path)
    print(f"{len(x)} reconstructions of held-out data: {path}")
    return 0
