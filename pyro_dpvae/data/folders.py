"""Data from folders of image files, in memory where they fit."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from pyro_dpvae.data.arrays import held_out_split
from pyro_dpvae.data.dataset import DataSet, Split, fits_in_memory

__all__ = ["load_folder"]

# What pillow raises of damaged files, and of headers that ask for more pixels than anyone has.
_UNREADABLE = (
    *(UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError),
    *(EOFError, IndexError, OverflowError, MemoryError, struct.error, zlib.error),
)

_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def load_folder(path: Path) -> DataSet:
    """Return the data set of a folder of images of one size.

    Subfolders ``train`` and ``test`` are the two splits where both are there; otherwise a tenth
    of all images below the folder is held out at random, the same tenth each time.

    Raises:
        ValueError: if there is no image, one cannot be read, or sizes differ.
    """
    if (path / "train").is_dir() and (path / "test").is_dir():
        train, test = (_ImageFiles(path / part) for part in ("train", "test"))
        return DataSet(path.name, _held(train), _held(test))
    return held_out_split(path.name, _held(_ImageFiles(path)), None)


class _ImageFiles(Dataset[Tensor]):
    """The images below a folder, in the order of their paths, as uint8 (channels, h, w)."""

    def __init__(self, folder: Path) -> None:
        self.paths: Sequence[Path] = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS
        )
        if not self.paths:
            raise ValueError(
                f"a folder of images needs files ending in {', '.join(sorted(_ENDINGS))}, "
                f"got none below {folder}"
            )
        first = _open(self.paths[0])
        self.size, self.mode = first.size, "L" if first.mode in ("1", "L") else "RGB"
        self.shape = (1 if self.mode == "L" else 3, self.size[1], self.size[0])
        self.nbytes = len(self.paths) * self.shape[0] * self.shape[1] * self.shape[2]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        image = _open(path)
        if image.size != self.size:
            raise ValueError(
                f"all images of a folder must have one size, got {image.size} in {path} and "
                f"{self.size} in {self.paths[0]}; resize them first"
            )
        array = np.array(image.convert(self.mode))
        return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)

    def stacked(self) -> Tensor:
        """Return all images in one tensor."""
        # Closed before an error is told, which would stand in its line.
        with tqdm(range(len(self)), desc="reading images", unit="image", leave=False) as bar:
            return torch.stack([self[index] for index in bar])


def _held(files: _ImageFiles) -> Split:
    return files.stacked() if fits_in_memory(files.nbytes) else files


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _UNREADABLE as error:
        raise ValueError(f"every image must be readable, got {path}: {error}") from error
