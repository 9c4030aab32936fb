"""Data by name, file or folder."""

from pathlib import Path

from pyro_dpvae.data.arrays import load_arrays
from pyro_dpvae.data.dataset import DataSet
from pyro_dpvae.data.folders import load_folder
from pyro_dpvae.data.named import TORCHVISION, TOYS, default_root

__all__ = ["DATA_SETS", "load"]

DATA_SETS: tuple[str, ...] = tuple(sorted([*TOYS, *TORCHVISION]))
"""The data sets that have a name."""


def load(source: str | Path, *, root: str | Path | None = None, download: bool = False) -> DataSet:
    """Return a data set.

    Args:
        source: one of ``DATA_SETS``, or the path of a .npz or .npy file or of a folder of images.
        root: the folder of data sets in torchvision's layout, such as ``root/MNIST/raw``; by
            default the one that the environment variable DPVAE_DATA names.
        download: whether torchvision may fetch what is missing under ``root``.

    Raises:
        FileNotFoundError: if the data are not there, with the folder and the remedy.
        ValueError: if there is no such data set, or the files hold something else.

    Example:
        >>> load("two-moons").train.shape
        torch.Size([2000, 2])
    """
    name = str(source)
    if name in TOYS:
        return TOYS[name]()
    if name in TORCHVISION:
        place = root if root is not None else default_root()
        if place is None:
            raise FileNotFoundError(
                f"data set {name!r} lies under a root folder, and none is named; give --root "
                "FOLDER (and --download to fetch the data), or set DPVAE_DATA"
            )
        return TORCHVISION[name](Path(place), download)
    path = Path(source)
    if path.is_dir():
        return load_folder(path)
    if path.suffix in (".npy", ".npz"):
        if not path.is_file():
            raise FileNotFoundError(
                f"data file {path} must exist, and does not; if it has moved, name its place "
                "with --data"
            )
        return load_arrays(path)
    raise ValueError(
        f"data must be one of {', '.join(DATA_SETS)}, a .npz or .npy file, or an existing folder "
        f"of images; got {name!r}: correct --data, or name where the data have moved"
    )
