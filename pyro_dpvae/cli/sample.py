"""``dpvae sample RUN``: samples of a trained run, as a picture and as an array."""

from pathlib import Path

from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae.cli.drawing import picture_file, save_figure
from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.cli.tables import PICTURES, TABLES, chosen_file, is_table, write_rows
from pyro_dpvae.plots import sample_figure

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Draw samples from the prior and decode them; returns the exit status."""
    number = check_positive_int("number", options.number)
    seed = check_seed(options.seed)
    table = is_table(Path(options.out or ""))
    if options.out is None or options.to is not None or table:
        path = chosen_file(options, "samples.png", formats=(*PICTURES, *TABLES))
    else:
        path = picture_file(options.out)  # of any format that there is
    saved = opened_run(options)
    x = saved.in_file_units(saved.sample(number, draw=options.draw, seed=seed))
    columns = saved.checkpoint.state.get("columns")
    files = [path]
    if is_table(path):
        files = write_rows(path, x, columns=columns)
    else:
        save_figure(sample_figure(x, columns), path)
        if options.to is None:
            files += write_rows(path.with_suffix(".npy"), x)
            if columns is not None:
                files += write_rows(path.with_suffix(".csv"), x, columns=columns)
    print(f"{number} samples: {', '.join(map(str, files))}")
    return 0
