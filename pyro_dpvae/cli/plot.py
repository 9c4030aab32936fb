"""``dpvae plot RUN``: pictures of a trained run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._files import make_folder
from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.cli.opening import add_data, add_run, open_run
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.drawings import drawings_of
from pyro_dpvae.evaluation import EvaluationConfig, Subject

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Draw a run's pictures, each as PNG and PDF; returns the exit status."""
    parser = CommandParser(
        prog="dpvae plot",
        description="Draw a trained run: samples of the prior, its pockets and its leaks; latent "
        "space; traversals, of a ladder also layer by layer, and draws of each layer's "
        "clusters; leakage. Pictures lie in RUN/plots, as PNG and PDF.",
    )
    add_run(parser)
    parser.add_argument("--count", type=int, default=100, help="samples in a panel")
    add_data(parser)
    parser.add_argument("--seed", type=int, default=0, help="of samples and pairs")
    parser.add_argument("--out", type=str | None, help="the folder (default: RUN/plots)")
    options = parser.parse_args(list(arguments))
    count = check_positive_int("count", options.count)
    seed = check_seed(options.seed)
    saved = open_run(options)
    subject = Subject(
        saved, saved.data(options.root, source=options.data), EvaluationConfig(), progress=False
    )
    folder = Path(options.out) if options.out else saved.run.path / "plots"
    make_folder(folder)
    torch.manual_seed(seed)
    drawings = drawings_of(subject, count)
    with torch.no_grad(), tqdm(drawings.items(), unit="figure") as bar:
        for name, draw in bar:
            bar.set_description(f"drawing {name}")
            figure = draw()
            for suffix in ("png", "pdf"):
                save_figure(figure, folder / f"{name}.{suffix}")
    print(f"{', '.join(drawings)}: {folder}")
    return 0
