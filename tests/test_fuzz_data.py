"""Data files with anything in them: a data set, or a message that names the file."""

import functools
import gzip
import io
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyro_dpvae.data import Batches, load
from tests.fuzzing import damaged, limits, scratch

Array = np.ndarray[Any, Any]

# Types whose values can mean data, and some whose values cannot.
KINDS = [
    "?",
    "u1",
    "i1",
    "u2",
    ">i2",
    "i4",
    ">i8",
    "u8",
    "f2",
    "f4",
    ">f4",
    "f8",
    "g",
    "c8",
    "U3",
    "S2",
    "M8[s]",
    "m8[s]",
    "V4",
    "i4,f4",
]
NAMES = ["train", "test", "valid", "images", "x", "labels", "train_labels", "factors", "a/b", ""]


def holds(path: Path, name: str | None = None) -> None:
    """Hold ``load`` to: a data set that gives batches, or a refusal that names the file."""
    with limits(), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            data = load(name or path, root=path)
        except (ValueError, OSError) as error:
            message = str(error)
            data = None
    if data is None:
        assert str(path) in message or (name or path.stem) in message
        return
    with limits():
        preprocessing = "grey" if data.is_images else "none"
        assert data.train_labels is None or len(data.train_labels) == len(data.train)
        for split in (data.train, data.test):
            batches = Batches(split, batch_size=1, preprocessing=preprocessing)
            x = next(batches.epoch(0))
            assert x.shape == (1, *data.item_shape)
            assert bool(x.isfinite().all())


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Draw an array of any type and shape; half of them could be data."""
    kind = np.dtype(draw(st.sampled_from([*KINDS, *["u1", "f4", "f8"] * 5])))
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=2, max_size=5)))
    if draw(st.booleans()):
        shape = tuple(size + 1 for size in shape)
    size = int(np.prod(shape))
    content = draw(st.binary(min_size=1, max_size=32))
    whole = (content * (size * kind.itemsize // len(content) + 1))[: size * kind.itemsize]
    array = np.frombuffer(whole, kind).reshape(shape)
    if kind.kind == "f" and draw(st.booleans()):
        with np.errstate(all="ignore"):
            numbers = np.nan_to_num(array.astype("f8"), posinf=0, neginf=0)
            array = np.abs(np.sin(numbers)).astype(kind)
    return array


@st.composite
def array_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the name and the content of a .npy or .npz file."""
    buffer = io.BytesIO()
    if draw(st.booleans()):
        np.save(buffer, draw(arrays()))
        return "x.npy", draw(damaged(buffer.getvalue()))
    write = draw(st.sampled_from([np.savez, np.savez_compressed]))
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    write(buffer, **{name: draw(arrays()) for name in names})
    if draw(st.integers(0, 3)) == 0:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(zipfile.ZipInfo("note.txt"), draw(st.binary(max_size=20)))
    return "x.npz", draw(damaged(buffer.getvalue()))


@st.composite
def pictures(draw: st.DrawFn) -> dict[str, bytes]:
    """Draw a folder of images: of several modes, sizes and formats, and damaged ones."""
    files = {}
    for number in range(draw(st.integers(0, 4))):
        size = draw(st.sampled_from([(3, 4)] * 6 + [(4, 3), (1, 1)]))
        mode = draw(st.sampled_from(["L"] * 6 + ["1", "LA", "RGB", "RGBA", "P", "I;16", "F"]))
        ending = draw(st.sampled_from(["png"] * 4 + ["jpg", "bmp", "webp"]))
        buffer = io.BytesIO()
        try:
            Image.new(mode, size).save(buffer, {"jpg": "jpeg"}.get(ending, ending))
        except (OSError, KeyError):  # a mode that the format has not
            Image.new("L", size).save(buffer, "png")
        content = buffer.getvalue()
        if draw(st.integers(0, 3)) == 0:
            content = draw(damaged(content))
        folder = draw(st.sampled_from(["", "", "", "train/", "test/"]))
        files[f"{folder}{number}.{ending}"] = content
    return files


def norb(array: Array) -> bytes:
    """Return an array as smallNORB's files have it."""
    return struct.pack(f"<ii{array.ndim}i", 0x1E3D4C55, array.ndim, *array.shape) + array.tobytes()


def hdf5(**arrays: Array) -> bytes:
    """Return an HDF5 file of arrays."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def matlab(**arrays: Array) -> bytes:
    """Return a MATLAB file of arrays."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays)
    return buffer.getvalue()


def parquet(**columns: Array) -> bytes:
    """Return a Parquet file of columns."""
    buffer = io.BytesIO()
    pandas.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


@functools.cache
def of_formats() -> dict[str, bytes]:
    """Return a sound file of each format, by its name."""
    images, numbers = np.arange(90, dtype=np.uint8).reshape(5, 1, 3, 6), np.arange(5.0)
    pair = np.arange(5 * 2 * 12, dtype=np.uint8).reshape(5, 2, 3, 4)
    return {
        "x.amat": b"0 1 1 0\n1 1 0 0\n" * 3,
        "x.csv": b"a,b,label\n1,2.5,x\n3,4.5,y\n" * 1,
        "x.h5": hdf5(images=images, labels=np.arange(5)),
        "x.mat": matlab(images=images, labels=np.arange(5)),
        "svhn.mat": matlab(X=np.zeros((32, 32, 3, 4), np.uint8), y=np.ones((4, 1))),
        "x-dat.mat": norb(pair),
        "x.parquet": parquet(a=numbers, b=numbers**2),
        "x.tsv": b"a\tb\n1\t2.5\n3\t4.5\n5\t6\n",
        "x-images-idx3-ubyte": idx(images[:, 0]),
        "x-images-idx3-ubyte.gz": gzip.compress(idx(images[:, 0])),
    }


def idx(array: Array) -> bytes:
    """Return an array as MNIST's files have it."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@st.composite
def mnist_files(draw: st.DrawFn) -> dict[str, bytes]:
    """Draw the four files of MNIST, some damaged, of other sizes, or not there."""
    files = {}
    for part in ("train", "t10k"):
        count = draw(st.integers(0, 5))
        side = draw(st.sampled_from([4, 4, 4, 0, 5]))
        images = np.full((count, side, side), draw(st.integers(0, 255)), np.uint8)
        labels = np.zeros(draw(st.sampled_from([count, count, count, 2])), np.uint8)
        files[f"MNIST/raw/{part}-images-idx3-ubyte"] = idx(images)
        files[f"MNIST/raw/{part}-labels-idx1-ubyte"] = idx(labels)
    for name in draw(st.lists(st.sampled_from([*files]), max_size=2)):
        files[name] = draw(damaged(files[name]))
    if draw(st.integers(0, 7)) == 0:
        del files[draw(st.sampled_from([*files]))]
    return files


@given(array_files())
def test_any_array_file_is_data_or_refused_by_name(file: tuple[str, bytes]) -> None:
    with scratch() as folder:
        path = folder / file[0]
        path.write_bytes(file[1])
        holds(path)


@given(st.data())
def test_any_file_of_a_format_is_data_or_refused_by_name(drawn: st.DataObject) -> None:
    name = drawn.draw(st.sampled_from([*of_formats()]))
    with scratch() as folder:
        (folder / name).write_bytes(drawn.draw(damaged(of_formats()[name])))
        holds(folder / name)


@given(pictures())
def test_any_folder_of_images_is_data_or_refused_by_name(files: dict[str, bytes]) -> None:
    with scratch(files) as folder:
        holds(folder)


@given(mnist_files())
def test_any_mnist_is_data_or_refused_by_name(files: dict[str, bytes]) -> None:
    with scratch(files) as folder:
        holds(folder, "mnist")
