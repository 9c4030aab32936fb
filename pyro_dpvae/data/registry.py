"""Data by name, file or folder."""

from pathlib import Path

from pyro_dpvae.data.dataset import DataSet
from pyro_dpvae.data.formats.registry import ENDINGS, read
from pyro_dpvae.data.named import TORCHVISION, TOYS, default_root
from pyro_dpvae.data.sources import check_held_out, data_set
from pyro_dpvae.errors import DataError, MissingDataError

__all__ = ["DATA_SETS", "READING", "load"]

DATA_SETS: tuple[str, ...] = tuple(sorted([*TOYS, *TORCHVISION]))
"""The names of data sets."""

READING = ("layout", "labels", "standardise", "held_out", "background", "image_size")
"""The arguments of :func:`load` that say how a file is read."""


def load(
    source: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = False,
    layout: str | None = None,
    labels: str | None = None,
    standardise: str | None = None,
    held_out: int | float | str | None = None,
    background: str | None = None,
    image_size: int | None = None,
) -> DataSet:
    """Load a data set by name, or from a file or folder.

    Args:
        source: one of ``DATA_SETS``, or the path of a file or of a folder of images.
        root: the folder of data sets in torchvision's layout, such as ``root/MNIST/raw``; defaults
            to the environment variable DPVAE_DATA.
        download: let torchvision fetch missing files under ``root``.
        layout: kind of the items of a file: "images", "sequences" or "vectors"; None decides.
        labels: name of the column or array with the labels of a file, such as a column of texts,
            which is then not part of the data; None takes one with a usual name.
        standardise: "all", or names of columns separated by commas, which get mean 0 and standard
            deviation 1 over the training data; for vectors and sequences.
        held_out: the fraction of data without splits to hold out at random, 0.1 by default; "none"
            holds nothing out.
        background: background of transparent images in a folder, "white" (the default) or "black".
        image_size: height and width to which the central squares of images in a folder are
            resized; None leaves images as they are, which must then have one size.

    Raises:
        FileNotFoundError: if the data are missing, with the folder and the remedy.
        ImportError: if a library for the file is not installed, with the extra that installs it.
        ValueError: if the name is unknown, or the files have other content.

    Example:
        >>> load("two-moons").train.shape
        torch.Size([2000, 2])
    """
    name = str(source)
    if name in DATA_SETS and not (labels is None and image_size is None):
        raise DataError(
            f"labels and image_size apply to files and folders only, and {name!r} is a data set "
            f"with a name; leave them out, got {labels!r} and {image_size!r}"
        )
    if name in TOYS:
        return data_set(TOYS[name](), layout=layout, held_out=held_out, standardised=standardise)
    if name in TORCHVISION:
        if layout not in (None, "images") or standardise or check_held_out(held_out) is not None:
            raise DataError(
                f"layout, standardise and held_out apply to files only, and {name!r} is a set of "
                "images with a test split; leave them out"
            )
        place = root if root is not None else default_root()
        if place is None:
            raise MissingDataError(
                f"data set {name!r} needs a root folder, and none is given; set root (and "
                "download=True to fetch the data), or the environment variable DPVAE_DATA"
            )
        return TORCHVISION[name](Path(place), download)
    path = Path(source)
    if not path.exists():
        if path.name.lower().endswith(ENDINGS):
            raise MissingDataError(
                f"data file {path} does not exist; correct the path, or give the place where it "
                "is now"
            )
        raise DataError(
            f"data must be one of {', '.join(DATA_SETS)}, a file, or an existing folder of "
            f"images; got {name!r}; correct the name or path"
        )
    found = read(path, background=background, image_size=image_size, labels=labels)
    return data_set(found, layout=layout, held_out=held_out, standardised=standardise)
