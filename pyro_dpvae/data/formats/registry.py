"""Which reader a file or folder has, by its ending or first bytes, and the files beside it."""

from collections.abc import Callable
from pathlib import Path

from pyro_dpvae.data.formats.images import read_images
from pyro_dpvae.data.formats.numpy_files import read_npy, read_npz
from pyro_dpvae.data.sources import Source

__all__ = ["ENDINGS", "read"]

_READERS: dict[str, Callable[[Path], Source]] = {
    ".npy": read_npy,
    ".npz": read_npz,
}
ENDINGS = tuple(_READERS)
"""The endings of files that are read."""


def read(path: Path, *, background: str | None = None) -> Source:
    """Return what a file or folder holds."""
    if path.is_dir():
        return read_images(path, background=background)
    for ending, reader in _READERS.items():
        if path.name.lower().endswith(ending):
            return reader(path)
    raise ValueError(
        f"a data file must end in one of {', '.join(ENDINGS)}, got {path}"
    )
