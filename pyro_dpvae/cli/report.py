"""``dpvae report RUN ...``: runs as one page to read."""

from pathlib import Path

from jsonargparse import Namespace

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._files import write_whole
from pyro_dpvae.cli.opening import opened_with
from pyro_dpvae.evaluation import compare_seeds
from pyro_dpvae.report import Opening, contents_of, report_page
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Write the page of runs; returns the exit status."""
    paths: list[str] = options.runs
    for path in paths:
        RunFolder.open(path)  # before any is drawn
    usual = Path(paths[0] if len(paths) == 1 else "") / "report.html"
    out = Path(options.out) if options.out else usual
    if out.is_dir():
        raise IsADirectoryError(
            f"--out must name the file of the page, and {out} is a folder; give {out}/report.html"
        )
    device, checkpoint, weights = opened_with(options)
    opening = Opening(
        device=device,
        checkpoint=checkpoint,
        weights=weights,
        root=options.root,
        data=options.data,
        seed=options.seed,
        count=None if options.no_figures else check_positive_int("number", options.number),
    )
    drawn = [one[0] for one in compare_seeds(paths).members] if options.seeds else paths
    runs = [contents_of(path, opening, figures=path in drawn) for path in paths]
    page = report_page(runs, seeds=options.seeds)
    write_whole(out, page.encode())
    print(f"page: {out}")
    return 0
