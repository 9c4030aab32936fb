"""``dpvae report RUN ...``: runs as one page to read."""

from collections.abc import Sequence
from pathlib import Path

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._files import write_whole
from pyro_dpvae.cli.opening import add_data, add_weights, opened_with
from pyro_dpvae.cli.parser import CommandParser
from pyro_dpvae.report import Opening, columns_of_seeds, contents_of, report_page
from pyro_dpvae.runs import RunFolder

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Write the page of runs; returns the exit status."""
    parser = CommandParser(
        prog="dpvae report",
        description="Write one page of HTML of a run, or of several side by side: configuration, "
        "curves of training, metrics with intervals and differences from the first run, figures. "
        "The page needs no network and no other file.",
    )
    parser.add_argument("runs", nargs="+", type=str, help="run folders")
    parser.add_argument(
        "--out", type=str | None, help="the file (default: RUN/report.html, or report.html here)"
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="take runs that differ in their seed alone as repetitions of one system, and draw "
        "the first of each",
    )
    add_weights(parser)
    add_data(parser)
    parser.add_argument("--count", type=int, default=100, help="samples in a panel")
    parser.add_argument("--seed", type=int, default=0, help="of what figures draw")
    parser.add_argument("--no-figures", action="store_true", help="leave figures out")
    options = parser.parse_args(list(arguments))
    paths: list[str] = options.runs
    for path in paths:
        RunFolder.open(path)  # before any is drawn
    out = Path(options.out) if options.out else _default(paths)
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
        count=None if options.no_figures else check_positive_int("count", options.count),
    )
    drawn = [one.members[0] for one in columns_of_seeds(paths)] if options.seeds else paths
    runs = [contents_of(path, opening, figures=path in drawn) for path in paths]
    page = report_page(runs, seeds=options.seeds)
    write_whole(out, page.encode())
    print(f"page: {out}")
    return 0


def _default(paths: Sequence[str]) -> Path:
    return (Path(paths[0]) if len(paths) == 1 else Path()) / "report.html"
