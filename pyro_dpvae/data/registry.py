"""Data by name, file or folder."""

from pathlib import Path

from pyro_dpvae.data.dataset import DataSet
from pyro_dpvae.data.formats.registry import ENDINGS, read
from pyro_dpvae.data.named import TORCHVISION, TOYS, default_root
from pyro_dpvae.data.sources import check_held_out, data_set
from pyro_dpvae.errors import DataError, MissingDataError

__all__ = ["DATA_SETS", "READING", "load"]

DATA_SETS: tuple[str, ...] = tuple(sorted([*TOYS, *TORCHVISION]))
"""The data sets that have a name."""

READING = ("layout", "held_out", "background")
"""The options of :func:`load` that say how a file is read, by their names in a configuration."""


def load(
    source: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = False,
    layout: str | None = None,
    held_out: int | float | str | None = None,
    background: str | None = None,
) -> DataSet:
    """Return a data set.

    Args:
        source: one of ``DATA_SETS``, or the path of a file or of a folder of images.
        root: the folder of data sets in torchvision's layout, such as ``root/MNIST/raw``; by
            default the one that the environment variable DPVAE_DATA names.
        download: whether torchvision may fetch what is missing under ``root``.
        layout: what the items of a file are: "images", "sequences" or "vectors"; None decides.
        held_out: the share of data without splits of their own that is held out at random, a tenth
            by default; "none" holds nothing out.
        background: on what transparent images of a folder are put, "white" (the default) or
            "black".

    Raises:
        FileNotFoundError: if the data are not there, with the folder and the remedy.
        ImportError: if a library that reads the file is not installed, with the extra.
        ValueError: if there is no such data set, or the files hold something else.

    Example:
        >>> load("two-moons").train.shape
        torch.Size([2000, 2])
    """
    name = str(source)
    if name in TOYS:
        return data_set(TOYS[name](), layout=layout, held_out=held_out)
    if name in TORCHVISION:
        if layout not in (None, "images") or check_held_out(held_out) is not None:
            raise DataError(
                f"layout and held_out are for files, and {name!r} is a set of images with a test "
                "split; leave --layout and --held-out out"
            )
        place = root if root is not None else default_root()
        if place is None:
            raise MissingDataError(
                f"data set {name!r} lies under a root folder, and none is named; give --root "
                "FOLDER (and --download to fetch the data), or set DPVAE_DATA"
            )
        return TORCHVISION[name](Path(place), download)
    path = Path(source)
    if not path.exists():
        if path.name.lower().endswith(ENDINGS):
            raise MissingDataError(
                f"data file {path} must exist, and does not; if it has moved, name its place "
                "with --data"
            )
        raise DataError(
            f"data must be one of {', '.join(DATA_SETS)}, a file, or an existing folder of "
            f"images; got {name!r}: correct --data, or name where the data have moved"
        )
    return data_set(read(path, background=background), layout=layout, held_out=held_out)
