"""``dpvae plot RUN``: pictures of a trained run."""

from pathlib import Path

import torch
from jsonargparse import Namespace

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_positive_int, check_seed
from pyro_dpvae._files import make_folder
from pyro_dpvae.cli.drawing import save_figure
from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.plots import drawings_of

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Draw a run's pictures, each as PNG and PDF; returns the exit status."""
    count = check_positive_int("number", options.number)
    seed = check_seed(options.seed)
    saved = opened_run(options)
    subject = Subject(
        saved,
        saved.load_data(options.root, source=options.data),
        EvaluationConfig(),
        progress=False,
    )
    folder = Path(options.out) if options.out else saved.folder.path / "plots"
    make_folder(folder)
    torch.manual_seed(seed)
    drawings = drawings_of(subject, count)
    with torch.no_grad(), progress_bar(drawings.items(), unit="figure") as bar:
        for name, draw in bar:
            bar.set_description(f"drawing {name}")
            figure = draw()
            for suffix in ("png", "pdf"):
                save_figure(figure, folder / f"{name}.{suffix}")
    print(f"{', '.join(drawings)}: {folder}")
    return 0
