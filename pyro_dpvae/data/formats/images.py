"""Folders of image files: modes, depth, alpha, orientation; class folders and split folders."""

import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn.functional import interpolate

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae._files import files_below
from pyro_dpvae.data.dataset import fits_in_memory
from pyro_dpvae.data.meaning import Array
from pyro_dpvae.data.names import split_of
from pyro_dpvae.data.sources import Part, Source, library
from pyro_dpvae.errors import DataError

__all__ = ["BACKGROUNDS", "read_images"]

BACKGROUNDS = {"black": 0, "white": 255}
"""Grey values shown behind transparent images, by name."""

# Errors of pillow for damaged files, and for headers that claim too many pixels.
_UNREADABLE = (
    *(UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError),
    *(EOFError, IndexError, OverflowError, MemoryError, RuntimeError, struct.error, zlib.error),
)
_ENDINGS = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_ORIENTATION, _BITS = 0x0112, 0x0102  # tag numbers
_DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY_ALPHA, _COLOUR_ALPHA = 4, 6  # colour types of PNG files


@dataclass(frozen=True)
class _Header:
    """The properties of an image that are known before its pixels are read.

    Attributes:
        size: width and height, upright.
        channels: 1 or 3.
        deep: True if a channel has more than 8 bits.
        alpha: True if it has transparency.
        reader: name of the library that reads the pixels.
    """

    size: tuple[int, int]
    channels: int
    deep: bool
    alpha: bool
    reader: str


def read_images(
    folder: Path, *, background: str | None = None, image_size: int | None = None
) -> Source:
    """Return the images of a folder, which must have one size unless they are resized.

    Subfolders ``train``, ``val`` or ``valid`` or ``validation``, and ``test`` are splits. If every
    image lies in a subfolder, the subfolders are classes. Images are rotated according to EXIF. If
    one image has colours, all get three channels; if one has 16 bits, all become shades in [0, 1].

    Args:
        folder: the folder of the images.
        background: what shows behind transparent images, one of ``BACKGROUNDS``; None is white.
        image_size: height and width to which the central square of each image is resized.

    Raises:
        ValueError: if there is no image, one cannot be read, or sizes differ.
    """
    check_choice("background", background or "white", BACKGROUNDS)
    if image_size is not None:
        check_positive_int("image_size", image_size)
    every = sorted(path for path in files_below(folder) if path.suffix.lower() in _ENDINGS)
    by_split: dict[str, list[Path]] = {}
    for path in every:
        first, *rest = path.relative_to(folder).parts
        split, more = split_of(first) if rest else (None, "")
        by_split.setdefault("" if more or split is None else split, []).append(path)
    outside = by_split.pop("", [])
    if "train" not in by_split:
        by_split, outside = {"train": every}, []
    if not every:
        raise DataError(
            f"the folder {folder} has no images: files must end in {', '.join(sorted(_ENDINGS))}"
        )
    headers = {path: _header(path) for paths in by_split.values() for path in paths}
    wanted = _widest(headers, image_size)
    white = BACKGROUNDS[background or "white"]
    parts: dict[str, Part] = {}
    # The training data first: if their folders are classes, so are those of other splits.
    for part, paths in sorted(by_split.items(), key=lambda split: split[0] != "train"):
        files = ImageFiles(paths, headers, wanted=wanted, white=white, resize=bool(image_size))
        places = [path.relative_to(folder).parts[paths is not every :] for path in paths]
        known = "train" in parts and parts["train"].labels is not None
        held = files[:] if fits_in_memory(files.nbytes) else files
        names = np.array([path.relative_to(folder).as_posix() for path in paths])
        parts[part] = Part(held, _classes(places, known=known), names=names)
    source = Source(folder.name, parts, str(folder), "images")
    notes, grey = source.notes, [header.channels == 1 for header in headers.values()]
    if source.parts["train"].labels is not None:
        notes.append("the folders are classes")
    if 0 < sum(grey) < len(grey):
        notes.append(
            f"{sum(grey)} grey images get three equal channels, since others have colours"
        )
    if len({header.deep for header in headers.values()}) > 1:
        notes.append("8-bit and 16-bit images become shades from 0 to 1")
    if wanted.alpha:
        notes.append(f"transparent images are put on a {background or 'white'} background")
    if image_size is not None:
        notes.append(f"central squares, resized to {image_size} x {image_size}")
    if outside:
        notes.append(f"{len(outside)} images outside the folders of splits are ignored")
    return source


@final
class ImageFiles:
    """Image files as rows of one shape (channels, height, width), uint8 or float32 in [0, 1]."""

    def __init__(
        self,
        paths: Sequence[Path],
        headers: Mapping[Path, _Header],
        *,
        wanted: _Header,
        white: int,
        resize: bool,
    ) -> None:
        self.paths, self.headers, self.wanted, self.white = paths, headers, wanted, white
        self.resize = resize
        width, height = wanted.size
        self.shape = (len(paths), wanted.channels, height, width)
        self.dtype = np.dtype(np.float32 if wanted.deep else np.uint8)
        self.nbytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> Array:
        chosen = range(len(self))[rows]
        out = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        # Close the bar before an error is shown, which would share its line.
        with progress_bar(
            chosen, "reading images", unit="image", leave=False, disable=len(chosen) < 2
        ) as bar:
            for place, row in enumerate(bar):
                out[place] = self._read(self.paths[row])
        return out

    def _read(self, path: Path) -> Array:
        pixels = _pixels(path, self.headers[path], self.white)
        if self.resize:
            pixels = _resized(pixels, self.wanted.size[0])
        if pixels.shape[1:] != self.shape[2:]:
            raise DataError(
                f"all images of a folder must have one size, got {pixels.shape[:0:-1]} in {path} "
                f"and {self.wanted.size} in others; resize them first"
            )
        if self.wanted.deep and pixels.dtype == np.uint8:
            pixels = pixels / np.float32(255)
        return np.broadcast_to(pixels, self.shape[1:])


def _widest(headers: dict[Path, _Header], image_size: int | None) -> _Header:
    first, size = next((path, header.size) for path, header in headers.items())
    for path, header in headers.items():
        if header.size != size and image_size is None:
            least = min(min(header.size) for header in headers.values())
            raise DataError(
                f"all images of a folder must have one size, got {header.size} in {path} and "
                f"{size} in {first}; use image_size={least}, or smaller, to resize their central "
                "squares"
            )
    return _Header(
        size if image_size is None else (image_size, image_size),
        max(header.channels for header in headers.values()),
        any(header.deep for header in headers.values()),
        any(header.alpha for header in headers.values()),
        "",
    )


def _resized(pixels: Array, size: int) -> Array:
    """Return the central square of an image (channels, height, width) in another size."""
    side = min(pixels.shape[1:])
    top, left = ((length - side) // 2 for length in pixels.shape[1:])
    square = torch.from_numpy(pixels[:, top : top + side, left : left + side].astype(np.float32))
    small = interpolate(square[None], (size, size), mode="bilinear", antialias=True)[0].numpy()
    return np.rint(small).astype(np.uint8) if pixels.dtype == np.uint8 else small.clip(0, 1)


def _classes(places: Sequence[tuple[str, ...]], *, known: bool) -> Array | None:
    """Return the first folder of each image's place, if these folders can be classes.

    Args:
        places: the parts of each path.
        known: whether other images have shown that folders are classes.
    """
    names = {place[0] for place in places}
    few = known or 1 < len(names) <= len(places) // 2
    if any(len(place) < 2 for place in places) or not few:
        return None
    return np.array([place[0] for place in places])


def _header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            start = file.read(26)
        if start.startswith(_PNG) and len(start) == 26 and start[24] == 16 and start[25] > 0:
            # Of 16-bit images, pillow reads grey ones only, and takes the upper 8 bits of others.
            width, height = struct.unpack(">II", start[16:24])
            kind = start[25]
            channels = 1 if kind == _GREY_ALPHA else 3
            alpha = kind in (_GREY_ALPHA, _COLOUR_ALPHA)
            return _Header((width, height), channels, True, alpha, "torchvision")
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            if image.format == "TIFF" and pages > 1:
                raise DataError(f"it has {pages} pages; save each as a file of its own")
            size = image.size
            bits = getattr(image, "tag_v2", {}).get(_BITS, (8,))
            if max(bits) > 8 and len(bits) > 1:  # pillow takes the upper 8 bits of these too
                return _tiff_header(path)
            if image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
                size = size[::-1]
            alpha = "transparency" in image.info or image.mode[-1] in "Aa"
            grey = image.mode in {"1", "L", "LA", "La", *_DEEP_MODES}
            return _Header(size, 1 if grey else 3, image.mode in _DEEP_MODES, alpha, "pillow")
    except UnidentifiedImageError as error:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise _unreadable(path, error) from error
        return _tiff_header(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _tiff_header(path: Path) -> _Header:
    array = _tiff(path)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.dtype.kind not in "uf":
        raise _unreadable(path, f"{array.dtype} of shape {array.shape}")
    size = (array.shape[1], array.shape[0])
    return _Header(size, min(channels, 3), array.dtype != np.uint8, channels == 4, "tifffile")


def _pixels(path: Path, header: _Header, white: int) -> Array:
    """Return an upright image of shape (1 or 3, height, width), uint8 or float32 in [0, 1]."""
    try:
        with warnings.catch_warnings():
            # Warnings about transparent palettes, and deprecations in torchvision.
            warnings.simplefilter("ignore")
            if header.reader == "pillow":
                with Image.open(path) as image:
                    array = _of_pillow(ImageOps.exif_transpose(image))
            elif header.reader == "tifffile":
                array = _tiff(path)
            else:
                from torchvision.io import ImageReadMode, decode_image

                array = decode_image(str(path), ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    array = array.reshape(*array.shape[:2], -1)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 65535:
            raise _unreadable(path, f"levels from {array.min()} to {array.max()}, beyond 16 bits")
        array = (array / 65535).astype(np.float32)
    if array.dtype != np.uint8 and not (array.min() >= 0 and array.max() <= 1):
        raise _unreadable(
            path, f"real numbers from {array.min():g} to {array.max():g}, not 0 to 1"
        )
    if array.shape[2] in (2, 4):
        array = _composited(array, white)
    return np.moveaxis(array, 2, 0)


def _of_pillow(image: Image.Image) -> Array:
    mode = image.mode
    if mode in _DEEP_MODES:
        return np.asarray(image)
    clear = "transparency" in image.info or mode[-1] in "Aa"
    if mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("LA" if clear else "L"))
    return np.asarray(image.convert("RGBA" if clear else "RGB"))


def _composited(array: Array, white: int) -> Array:
    """Blend an image, whose last channel is alpha, with a background of one shade."""
    if array.dtype != np.uint8:
        alpha = array[..., -1:]
        return array[..., :-1] * alpha + np.float32(white / 255) * (1 - alpha)
    alpha = array[..., -1:].astype(np.uint32)
    mixed = array[..., :-1] * alpha + white * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _tiff(path: Path) -> Array:
    tifffile = library("tifffile", path)
    try:
        return np.asarray(tifffile.imread(path))
    except Exception as error:  # tifffile raises many classes for damaged files
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Any) -> DataError:
    return DataError(f"{path} cannot be read: {error}; every image must be readable")
