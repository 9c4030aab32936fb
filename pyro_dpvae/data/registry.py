"""Data by name, from scikit-learn or torchvision, or from a file or folder."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae.data.dataset import DataSet, Split
from pyro_dpvae.data.formats.registry import ENDINGS, read
from pyro_dpvae.data.sources import Part, Source, check_held_out, data_set
from pyro_dpvae.errors import DataError, MissingDataError

__all__ = ["DATA_SETS", "READING", "TORCHVISION", "TOYS", "load"]


def _two_moons() -> Source:
    from sklearn.datasets import make_moons

    parts = {
        split: Part(*make_moons(count, noise=0.05, random_state=seed))
        for seed, (split, count) in enumerate({"train": 2000, "test": 200}.items())
    }
    return Source("two-moons", parts, "'two-moons'")


def _digits() -> Source:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    levels = np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Source("digits", {"train": Part(levels, labels)}, "'digits'")


TOYS: dict[str, Callable[[], Source]] = {"digits": _digits, "two-moons": _two_moons}
"""Data sets from scikit-learn."""


def _mnist_like(cls: str) -> "_Split":
    def split(datasets: Any, train: bool, **where: Any) -> tuple[Tensor, Tensor]:
        part = getattr(datasets, cls)(train=train, **where)
        return part.data[:, None].contiguous(), part.targets.long()

    return split


def _cifar10(datasets: Any, train: bool, **where: Any) -> tuple[Tensor, Tensor]:
    part = datasets.CIFAR10(train=train, **where)
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(part.targets)


def _svhn(datasets: Any, train: bool, **where: Any) -> tuple[Tensor, Tensor]:
    part = datasets.SVHN(split="train" if train else "test", **where)
    return torch.from_numpy(part.data), torch.from_numpy(part.labels).long()


def _omniglot(datasets: Any, train: bool, **where: Any) -> tuple[Tensor, Tensor]:
    """Background alphabets for training, evaluation alphabets held out; ink is 255."""
    from PIL import Image

    part = datasets.Omniglot(background=train, **where)
    images, labels = [], []
    places = range(len(part))  # torchvision's data sets are not iterable
    with progress_bar(places, description="reading omniglot", unit="image", leave=False) as bar:
        for place in bar:
            drawing, label = part[place]
            small = drawing.convert("L").resize((28, 28), Image.Resampling.BOX)
            images.append(255 - torch.from_numpy(np.array(small)))
            labels.append(label)
    return torch.stack(images)[:, None], torch.tensor(labels)


def _celeba(datasets: Any, train: bool, **where: Any) -> tuple[Dataset[Tensor], None]:
    return _Faces(datasets.CelebA(split="train" if train else "test", **where)), None


class _Faces(Dataset[Tensor]):
    """CelebA as uint8 (3, 64, 64): the central 148x148 pixels, resized."""

    def __init__(self, faces: Any) -> None:
        self.faces = faces

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        try:
            image = self.faces[index][0]
        except OSError as error:
            name = self.faces.filename[index]
            raise DataError(f"every image must be readable, got {name}: {error}") from error
        left, top = (image.width - 148) // 2, (image.height - 148) // 2
        centre = image.crop((left, top, left + 148, top + 148))
        small = centre.resize((64, 64), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)


_Split = Callable[..., tuple[Split, Tensor | None]]

TORCHVISION: dict[str, _Split] = {
    "celeba": _celeba,
    "cifar10": _cifar10,
    "fashion-mnist": _mnist_like("FashionMNIST"),
    "mnist": _mnist_like("MNIST"),
    "omniglot": _omniglot,
    "svhn": _svhn,
}
"""Data sets in torchvision's layout: functions from torchvision's module to data and labels."""


def _load_torchvision(name: str, root: Path, *, download: bool) -> DataSet:
    """Return the data set of two torchvision splits, or raise with a remedy."""
    from torchvision import datasets

    split = partial(TORCHVISION[name], datasets, root=root, download=download)
    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        (train, train_labels), (test, test_labels) = split(True), split(False)
    except (RuntimeError, OSError, AssertionError, ValueError, EOFError, MemoryError) as error:
        # torchvision asserts that the content of files fits their names.
        raise MissingDataError(
            f"data set {name!r} is missing or incomplete under {root}, where torchvision would "
            f"store it ({error or type(error).__name__}); use download=True to fetch it, or set "
            "root to its folder"
        ) from error
    if name == "omniglot" and train_labels is not None and test_labels is not None:
        # The splits share no character: class numbers of the second follow those of the first.
        test_labels = test_labels + train_labels.max() + 1
    return DataSet(name, train, test, train_labels, test_labels)


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
        place = root if root is not None else os.environ.get("DPVAE_DATA")
        if place is None:
            raise MissingDataError(
                f"data set {name!r} needs a root folder, and none is given; set root (and "
                "download=True to fetch the data), or the environment variable DPVAE_DATA"
            )
        return _load_torchvision(name, Path(place), download=download)
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
