"""Files of published layouts, written by other libraries and read: pixels, labels, factors."""

import gzip
import itertools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas
import pytest
import scipy.io
import scipy.sparse
import torch
from PIL import Image
from torch import Tensor

from pyro_dpvae.data import DataSet, dataset, load, scale_caution
from pyro_dpvae.errors import DataError, DataWarning

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


def levels(*shape: int) -> Array:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def whole(path: Path, **options: Any) -> DataSet:
    """Return all data of a file without splits as training data, in the order of the file."""
    return load(path, held_out="none", **options)


def same(split: object, expected: Array) -> bool:
    assert isinstance(split, Tensor)
    return torch.equal(split, torch.from_numpy(np.ascontiguousarray(expected)))


def numbers(labels: Tensor | None) -> list[Any]:
    assert labels is not None
    return labels.tolist()


def test_dsprites(tmp_path: Path) -> None:
    sizes = (1, 3, 6, 4, 2, 2)
    classes = np.array(list(itertools.product(*map(range, sizes))))
    imgs = RNG.integers(0, 2, (len(classes), 64, 64), dtype=np.uint8)
    np.savez_compressed(
        tmp_path / "dsprites.npz",
        metadata=np.array({"title": "dSprites"}, dtype=object),
        imgs=imgs,
        latents_classes=classes,
        latents_values=classes / 7,
    )
    with pytest.warns(UserWarning, match="one value are left out: colour"):
        data = whole(tmp_path / "dsprites.npz")
    assert same(data.train, 255 * imgs[:, None])
    assert numbers(data.test_factors) == classes[:, 1:].tolist()
    assert data.factor_names == ("shape", "scale", "orientation", "position x", "position y")
    assert data.train_labels is None
    assert "arrays of objects, not read: 'metadata'" in data.decision


@pytest.mark.parametrize("held", [True, False])
def test_3dshapes(tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr(dataset, "LARGEST_IN_MEMORY", 1000)
    values = [np.linspace(0, 0.9, 3), [0.25, 0.75], [0, 1], np.linspace(0.75, 1.25, 8), [0, 1, 2]]
    labels = np.array(list(itertools.product(*values, [-30.0, 0.0])))
    images = levels(len(labels), 8, 8, 3)
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=images, compression="gzip")
        file.create_dataset("labels", data=labels)
    data = whole(tmp_path / "3dshapes.h5")
    assert isinstance(data.train, Tensor) == held
    read = torch.stack([data.train[index] for index in range(len(images))])
    assert same(read, images.transpose(0, 3, 1, 2))
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in labels.T], 1)
    assert numbers(data.test_factors) == codes.tolist()
    assert data.factor_names is not None
    assert data.factor_names[0] == "floor hue"


def test_texts_of_hdf5_are_labels(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/x"], file["test/x"] = levels(6, 4, 4), levels(3, 4, 4)
        file["train/y"], file["test/y"] = ["bee", "ant"] * 3, ["ant", "bee", "ant"]
    data = load(tmp_path / "x.h5")
    assert numbers(data.train_labels) == [1, 0] * 3
    assert numbers(data.test_labels) == [0, 1, 0]
    assert data.label_names == ("ant", "bee")


def test_mpi3d_implies_its_factors(tmp_path: Path) -> None:
    sizes = (4, 4, 2, 3, 3, 40, 40)
    images = np.zeros((*sizes, 2, 2, 3), np.uint8)
    images[..., 0, 0, :] = np.arange(40)[:, None]  # the vertical axis varies first
    images[3, ..., 0, 0, 0] = 200  # the last colour of the object
    np.savez(tmp_path / "mpi3d_real_complex.npz", images=images.reshape(-1, 2, 2, 3))
    data = whole(tmp_path / "mpi3d_real_complex.npz")
    factors = data.test_factors
    assert factors is not None
    assert data.factor_names is not None
    assert (factors.max(0).values + 1).tolist() == list(sizes)
    assert torch.equal(
        factors[:, data.factor_names.index("vertical axis")], data.train[:, 1, 0, 0]
    )
    assert torch.equal(factors[:, 0] == 3, data.train[:, 0, 0, 0] == 200)


def norb_file(array: Array) -> bytes:
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[str(array.dtype)]
    sizes = [*array.shape, 1, 1, 1][: max(3, array.ndim)]
    return struct.pack(f"<ii{len(sizes)}i", magic, array.ndim, *sizes) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_smallnorb(tmp_path: Path, packed: bool) -> None:
    written = {}
    for part, stem in (("training", "5x46789x9x18x6x2x96x96"), ("testing", "5x01235x9x18x6x2")):
        pairs, category = levels(12, 2, 96, 96), (np.arange(12) % 5).astype(np.int32)
        info = RNG.integers(0, 6, (12, 4)).astype(np.int32)
        written[part] = pairs, category, info
        for kind, array in (("dat", pairs), ("cat", category), ("info", info)):
            content = norb_file(array)
            path = tmp_path / f"smallnorb-{stem}-{part}-{kind}.mat"
            if packed:
                path, content = Path(f"{path}.gz"), gzip.compress(content, 1)
            path.write_bytes(content)
    named = next(tmp_path.glob("*training-dat*"))
    for data in [load(named), *([] if packed else [load(tmp_path)])]:
        assert same(data.train, written["training"][0][:, :1])
        assert same(data.test, written["testing"][0][:, :1])
        assert numbers(data.train_labels) == written["training"][1].tolist()
        _, category, info = written["testing"]
        assert numbers(data.test_factors) == np.c_[category, info].tolist()


def test_cars3d(tmp_path: Path) -> None:
    meshes = [levels(8, 8, 3, 24, 4) for _ in range(2)]
    (tmp_path / "cars").mkdir()
    for car, mesh in enumerate(meshes):
        scipy.io.savemat(tmp_path / "cars" / f"car_{car}_mesh.mat", {"im": mesh})
    data = whole(tmp_path / "cars")
    assert isinstance(data.train, Tensor)
    assert len(data.train) == 2 * 96
    for image, (elevation, azimuth, car) in zip(
        data.train, numbers(data.test_factors), strict=True
    ):
        expected = meshes[car][..., azimuth, elevation].transpose(2, 0, 1)
        assert np.array_equal(image.numpy(), expected)
    assert data.factor_names == ("elevation", "azimuth", "car")


def test_medmnist(tmp_path: Path) -> None:
    arrays = {
        f"{part}_{kind}": array
        for part, count in (("train", 20), ("val", 6), ("test", 8))
        for kind, array in (
            ("images", levels(count, 28, 28, 3)),
            ("labels", RNG.integers(0, 9, (count, 1), dtype=np.uint8)),
        )
    }
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    data = load(tmp_path / "pathmnist.npz")
    for part, split in (("train", data.train), ("val", data.valid), ("test", data.test)):
        assert same(split, arrays[f"{part}_images"].transpose(0, 3, 1, 2))
    assert data.watched is data.valid
    assert numbers(data.train_labels) == arrays["train_labels"][:, 0].tolist()
    assert numbers(data.test_labels) == arrays["test_labels"][:, 0].tolist()


def test_keras_mnist(tmp_path: Path) -> None:
    x, tx, y, ty = levels(20, 28, 28), levels(5, 28, 28), np.arange(20) % 10, np.arange(5)
    np.savez_compressed(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=tx, y_test=ty)
    data = load(tmp_path / "mnist.npz")
    assert same(data.train, x[:, None])
    assert same(data.test, tx[:, None])
    assert numbers(data.train_labels) == y.tolist()
    assert numbers(data.test_labels) == ty.tolist()


def test_static_mnist_as_amat(tmp_path: Path) -> None:
    written = {}
    for part, count in (("train", 20), ("valid", 4), ("test", 5)):
        written[part] = RNG.integers(0, 2, (count, 784))
        path = tmp_path / f"binarized_mnist_{part}.amat"
        np.savetxt(path, written[part], fmt="%d")
    data = load(tmp_path / "binarized_mnist_train.amat")
    for part, split in data.splits.items():
        assert same(split, (255 * written[part]).astype(np.uint8).reshape(-1, 1, 28, 28))
    grey = np.c_[RNG.random((6, 784)).round(3), np.arange(6)]  # as the variations of MNIST are
    np.savetxt(tmp_path / "background.amat", grey, fmt="%.3f")
    data = whole(tmp_path / "background.amat")
    assert same(data.train, grey[:, :-1].astype(np.float32).reshape(-1, 1, 28, 28))
    assert numbers(data.train_labels) == list(range(6))


def test_svhn_of_matlab(tmp_path: Path) -> None:
    written = {}
    for part, count in (("train", 12), ("test", 11)):
        x, y = levels(32, 32, 3, count), (np.arange(count) % 10 + 1)[:, None]
        written[part] = x, y
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": x, "y": y}, do_compression=True)
    data = load(tmp_path / "train_32x32.mat")
    for part, split in data.splits.items():
        assert same(split, written[part][0].transpose(3, 2, 0, 1))
    assert numbers(data.train_labels) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


def flat_by_columns(images: Array) -> Array:
    """Return images as MATLAB's reshape has them: down the first column, then the next."""
    return np.stack([image.ravel(order="F") for image in images])


def test_omniglot_of_matlab(tmp_path: Path) -> None:
    images, held_out = RNG.integers(0, 2, (30, 28, 28)), RNG.integers(0, 2, (9, 28, 28))
    alphabets = np.arange(30) % 5, np.arange(9) % 5
    scipy.io.savemat(
        tmp_path / "chardata.mat",
        {
            "data": flat_by_columns(images).T.astype(float),
            "target": np.eye(50)[alphabets[0]].T,
            "targetchar": np.ones((1, 30)),
            "testdata": flat_by_columns(held_out).T.astype(float),
            "testtarget": np.eye(50)[alphabets[1]].T,
            "testtargetchar": np.ones((1, 9)),
        },
    )
    data = load(tmp_path / "chardata.mat")
    assert same(data.train, images[:, None].astype(np.float32))
    assert same(data.test, held_out[:, None].astype(np.float32))
    assert numbers(data.test_labels) == alphabets[1].tolist()


def test_silhouettes_of_matlab(tmp_path: Path) -> None:
    images = {part: RNG.integers(0, 2, (9, 28, 28), dtype=np.uint8) for part in ("train", "val")}
    images["test"] = RNG.integers(0, 2, (4, 28, 28), dtype=np.uint8)
    arrays: dict[str, Any] = {"classnames": np.array(["Faces", "Leopards"], dtype=object)}
    for part, of_part in images.items():
        arrays[f"{part}_data"] = flat_by_columns(of_part)
        arrays[f"{part}_labels"] = (np.arange(len(of_part)) % 101 + 1)[:, None]
    scipy.io.savemat(tmp_path / "caltech101_silhouettes_28_split1.mat", arrays)
    data = load(tmp_path / "caltech101_silhouettes_28_split1.mat")
    assert same(data.train, 255 * images["train"][:, None])
    assert same(data.valid, 255 * images["val"][:, None])
    assert same(data.test, 255 * images["test"][:, None])
    assert numbers(data.test_labels) == [1, 2, 3, 4]
    whole_file = {"X": flat_by_columns(images["train"]), "Y": np.arange(1, 10)[None]}
    scipy.io.savemat(tmp_path / "caltech101_silhouettes_28.mat", whole_file)
    data = whole(tmp_path / "caltech101_silhouettes_28.mat")
    assert same(data.train, 255 * images["train"][:, None])
    assert numbers(data.train_labels) == list(range(1, 10))
    assert "the object is 0" in data.decision


def test_frey_faces_of_matlab(tmp_path: Path) -> None:
    faces = levels(15, 28, 20)
    # MATLAB shows one as reshape(ff(:, i), 20, 28)'.
    scipy.io.savemat(tmp_path / "frey_rawface.mat", {"ff": faces.reshape(15, 560).T})
    assert same(whole(tmp_path / "frey_rawface.mat").train, faces[:, None])


def idx(array: Array) -> bytes:
    kinds = {"uint8": 8, "float64": 14}
    head = struct.pack(f">HBB{array.ndim}I", 0, kinds[str(array.dtype)], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, packed: bool) -> None:
    write: Callable[[bytes], bytes] = gzip.compress if packed else bytes
    ending = ".gz" if packed else ""
    images, held_out = levels(20, 28, 28), levels(6, 28, 28)
    for name, array in (
        ("train-images-idx3-ubyte", images),
        ("train-labels-idx1-ubyte", np.arange(20).astype(np.uint8)),
        ("t10k-images-idx3-ubyte", held_out),
        ("t10k-labels-idx1-ubyte", np.arange(6).astype(np.uint8)),
    ):
        (tmp_path / f"{name}{ending}").write_bytes(write(idx(array)))
    for path in (tmp_path, tmp_path / f"train-images-idx3-ubyte{ending}"):
        data = load(path)
        assert same(data.train, images[:, None])
        assert same(data.test, held_out[:, None])
        assert numbers(data.train_labels) == list(range(20))
        assert numbers(data.test_labels) == list(range(6))
    real = RNG.random((5, 3, 4))
    (tmp_path / "real.idx").write_bytes(idx(real))
    assert same(whole(tmp_path / "real.idx").train, real.astype(np.float32))


def test_tables(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {
            "length": RNG.normal(size=12),
            "count": RNG.integers(0, 9, 12),
            "wet": RNG.integers(0, 2, 12).astype(bool),
            "label": ["cat", "dog", "ant"] * 4,
        }
    )
    frame.to_csv(tmp_path / "pets.csv")  # with pandas' index
    frame.to_csv(tmp_path / "pets.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "pets.parquet")
    expected = frame[["length", "count", "wet"]].to_numpy(np.float64).astype(np.float32)
    for ending in ("csv", "tsv", "parquet"):
        data = whole(tmp_path / f"pets.{ending}")
        assert same(data.train, expected)
        assert data.columns == ("length", "count", "wet")
        assert numbers(data.train_labels) == [1, 2, 0] * 4
        assert data.label_names == ("ant", "cat", "dog")
    frame.set_index(pandas.Index([3, 1] * 6, name="number")).to_parquet(
        tmp_path / "indexed.parquet"
    )
    data = whole(tmp_path / "indexed.parquet")
    assert same(data.train, expected)
    assert "columns that name rows are no data: 'number'" in data.notes
    assert data.names["train"] == tuple(["3", "1"] * 6)
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame[:3].to_csv(tmp_path / "val.csv", index=False)
    frame[3:5].to_csv(tmp_path / "test.csv", index=False)
    data = load(tmp_path / "train.csv")
    assert same(data.valid, expected[:3])
    assert same(data.test, expected[3:5])
    assert numbers(data.test_labels) == [1, 2]  # by the classes of all splits


@pytest.mark.parametrize("ending", ["csv", "npz", "h5", "h5ad"])
def test_labels_are_taken_from_the_column_or_array_that_is_named(
    tmp_path: Path, ending: str
) -> None:
    x, kinds = RNG.normal(size=(6, 2)).astype(np.float32), ["b", "a", "c"] * 2
    path = tmp_path / f"own.{ending}"
    if ending == "npz":
        np.savez(path, x=x, species=kinds, y=np.arange(6))
    elif ending == "h5":
        with h5py.File(path, "w") as file:
            file["x"], file["species"] = x, kinds
    elif ending == "h5ad":
        obs = pandas.DataFrame({"species": kinds, "leiden": ["0"] * 6}, index=list("uvwxyz"))
        anndata.AnnData(x, obs=obs).write_h5ad(path)
    else:
        frame = pandas.DataFrame({"p": x[:, 0], "q": x[:, 1], "species": kinds})
        frame.to_csv(path, index=False)
    data = whole(path, labels="species")
    assert same(data.train, x)
    assert numbers(data.train_labels) == [1, 0, 2] * 2
    assert data.label_names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"labels must be one of .*species.*; got 'spezies'"):
        load(path, labels="spezies")


def test_a_text_label_that_is_missing_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("a,b,label\n1.5,2.0,cat\n2.5,3.0,\n3.5,4.0,NA\n")
    with pytest.raises(ValueError, match=r"1 rows of .* have no label"):
        load(path)
    path.write_text("a,b,label\n1.5,2.0,cat\n2.5,3.0,dog\n3.5,4.0,NA\n")
    assert whole(path).label_names == ("NA", "cat", "dog")


def test_columns_of_one_value_are_named(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("a,batch,c\n" + "".join(f"{n / 7},5.0,{n % 3}.5\n" for n in range(30)))
    caution = scale_caution(whole(path))
    assert caution is not None
    assert "got one value in 'batch'; remove them" in caution


def test_labels_are_named_in_files_that_have_names_only(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"file that ends in .*, got labels='kind' for .*own\.npy"):
        load(tmp_path / "own.npy", labels="kind")
    with pytest.raises(DataError, match="labels and image_size apply to files and folders only"):
        load("digits", labels="kind")


def test_identifiers_are_names_of_rows_instead_of_data(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("sample_id,width,userId,humid,id\ns7,1.5,3,4,0.5\ns8,2.5,3,5,0.25\n")
    data = whole(path)
    assert data.columns == ("width", "humid", "id")  # real numbers identify nothing
    assert data.names["train"] == ("s7", "s8")
    assert "columns that name rows are no data: 'sample_id', 'userId'" in data.notes


def test_columns_are_standardised_by_the_training_data(tmp_path: Path) -> None:
    for name, rows in (("train", 30), ("test", 7)):
        x = RNG.normal([2e5, 0.0, 1.0], [3e6, 1e-3, 0.0], (rows, 3))
        pandas.DataFrame(x, columns=["price", "height", "one"]).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    table = {one: pandas.read_csv(tmp_path / f"{one}.csv") for one in ("train", "test")}
    mean, deviation = table["train"].mean(), table["train"].std(ddof=0).replace(0, 1)
    data = load(tmp_path / "train.csv", standardise="all")
    for split, rows in data.splits.items():
        expected = ((table[split] - mean) / deviation).to_numpy()
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    some = load(tmp_path / "train.csv", standardise="height")
    assert torch.equal(some.train[:, 1], data.train[:, 1])
    np.testing.assert_allclose(some.train[:, 0], table["train"]["price"], rtol=1e-6)
    caution = scale_caution(data)
    assert caution is not None
    assert "got one value in 'one'" in caution
    assert "near 1" not in caution
    caution = scale_caution(load(tmp_path / "train.csv"))
    assert caution is not None
    assert "got one value in 'one'" in caution
    assert re.search(
        r"[\d.]+e\+06 in 'price', 0\.00\d+ in 'height'; use standardise='all'", caution
    )
    with pytest.raises(
        ValueError, match="standardise must be one of all, height, one, price; got"
    ):
        load(tmp_path / "train.csv", standardise="weight")
    with pytest.raises(DataError, match="standardise applies to vectors and sequences"):
        load("digits", standardise="all")


def test_tables_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pets.csv"
    path.write_text("length,kind\n1.5,cat\n2.5,dog\n")
    with pytest.raises(ValueError, match=r"got string in column 'kind' .*labels='kind' if it"):
        load(path)
    path.write_text("length,width\n1.5,2\n2.5,\n")
    with pytest.raises(ValueError, match=r"column 'width' of .* has 1 gaps"):
        load(path)
    path.write_text("1.5,2\n2.5,3\n")
    with pytest.raises(ValueError, match=r"must have the names of its columns"):
        load(path)
    path.write_text("a,a\n1.5,2\n2.5,3\n")
    with pytest.raises(ValueError, match=r"must have different names, got \['a', 'a'\]"):
        load(path)
    path.write_text("0,0\n1.5,2\n2.5,3\n")
    with pytest.raises(ValueError, match=r"must have the names of its columns"):
        load(path)
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="must have rows below its header, got none"):
        load(path)
    path.write_text("a;b\n1.5;2\n2.5;3\n")
    with pytest.raises(ValueError, match=r"must be separated by commas, got 'a;b'"):
        load(path)
    path.write_text("target,width\n1.5,2\n2.25,3\n")  # real numbers are no label
    with pytest.warns(DataWarning, match="'target' of .* has real numbers.* trained on it"):
        assert whole(path).columns == ("target", "width")


@pytest.mark.parametrize("sparse", [False, True])
def test_anndata_counts(tmp_path: Path, sparse: bool) -> None:
    counts = RNG.poisson(1.0, (20, 7)).astype(np.float32)
    found = anndata.AnnData(
        scipy.sparse.csr_matrix(counts) if sparse else np.log1p(counts),
        obs=pandas.DataFrame({"cell_type": ["B", "T"] * 10}, index=list(map(str, range(20)))),
        var=pandas.DataFrame(index=[f"gene{number}" for number in range(7)]),
        layers=None if sparse else {"counts": counts},
    )
    found.write_h5ad(tmp_path / "cells.h5ad")
    data = whole(tmp_path / "cells.h5ad")
    assert same(data.train, counts)
    assert data.columns == tuple(f"gene{number}" for number in range(7))
    assert numbers(data.train_labels) == [0, 1] * 10
    assert data.label_names == ("B", "T")


def test_labels_of_anndata_are_those_of_the_column(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    table = pandas.DataFrame(
        {
            "cell_type": pandas.Categorical(["T", "B", None] * 10),
            "batch": [1, 2, 10] * 10,
            "depth": RNG.random(30),
        },
        index=list(map(str, range(30))),
    )
    anndata.AnnData(RNG.poisson(1.0, (30, 4)).astype(np.float32), obs=table).write_h5ad(path)
    data = whole(path)
    assert data.train_labels is None
    assert any("10 rows have no obs['cell_type']" in note for note in data.notes)
    with pytest.raises(DataError, match=r"10 rows of .* have no label in obs\['cell_type'\]"):
        load(path, labels="cell_type")
    assert numbers(whole(path, labels="batch").train_labels) == [1, 2, 10] * 10
    with pytest.warns(UserWarning, match="depth|label"):
        assert load(path, labels="depth", held_out="none").train_labels is None


def test_linked_folders_of_images_are_read(tmp_path: Path) -> None:
    for split in ("train", "elsewhere"):
        for kind in ("cats", "dogs"):
            folder = tmp_path / split / kind
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(levels(6, 5)).save(folder / f"{number}.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "train")
    (tmp_path / "set" / "test").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "set")
    data = load(tmp_path / "set")
    assert numbers(data.train_labels) == [0, 0, 0, 1, 1, 1]
    assert numbers(data.test_labels) == [0, 0, 0, 1, 1, 1]


def test_splits_with_few_images_keep_their_classes(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 1), ("val", 1), ("dev", 1)):
        for kind in ("cats", "dogs"):
            folder = tmp_path / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(levels(6, 5)).save(folder / f"{number}.png")
    data = load(tmp_path)
    assert numbers(data.test_labels) == [0, 1]
    assert data.valid is not None
    assert len(data.valid) == 4  # of both folders


def test_an_image_with_several_pages_is_refused(tmp_path: Path) -> None:
    page, *more = (Image.fromarray(levels(8, 8)) for _ in range(3))
    page.save(tmp_path / "a.tif", save_all=True, append_images=more)
    with pytest.raises(DataError, match=r"a\.tif cannot be read: it has 3 pages; save each"):
        load(tmp_path)


def test_white_stays_white_in_smaller_deep_images(tmp_path: Path) -> None:
    for number in range(3):
        white = np.full((41, 37), 65535, np.uint16)
        Image.fromarray(white).save(tmp_path / f"{number}.png")
    data = whole(tmp_path, image_size=16)
    assert isinstance(data.train, Tensor)
    assert data.train.max() == 1


def test_image_folder(tmp_path: Path) -> None:
    written: dict[str, list[Array]] = {}
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        for kind in ("cats", "dogs"):
            folder = tmp_path / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                written.setdefault(split, []).append(levels(6, 5, 3))
                Image.fromarray(written[split][-1]).save(folder / f"{number}.png")
    data = load(tmp_path)
    for split, name in ((data.train, "train"), (data.valid, "val"), (data.test, "test")):
        assert same(split, np.stack(written[name]).transpose(0, 3, 1, 2))
    assert numbers(data.train_labels) == [0, 0, 0, 1, 1, 1]
    assert numbers(data.test_labels) == [0, 0, 1, 1]
    assert data.label_names == ("cats", "dogs")
    assert data.names["valid"] == tuple(
        f"val/{kind}/{number}.png" for kind in ("cats", "dogs") for number in (0, 1)
    )


def test_images_of_a_folder_are_resized_to_one_size(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)  # the central square is white
    wide[:, 4:12] = 255
    ramp = np.repeat(np.arange(0, 240, 20, dtype=np.uint8)[:, None], 12, 1)
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"one size, got \(12, 12\) in .* use image_size=8, or"):
        load(tmp_path)
    data = whole(tmp_path, image_size=4)
    assert isinstance(data.train, Tensor)
    white, means = data.train[0], data.train[1, 0].float()
    assert data.item_shape == (3, 4, 4)
    assert white.unique().tolist() == [255]
    # Three rows become one: with antialiasing, inner rows have their mean.
    torch.testing.assert_close(means[1:3], torch.tensor([80.0, 140.0])[:, None].expand(2, 4))
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8)))
    with pytest.raises(DataError, match="image_size applies to folders of images, got 4 for"):
        load(tmp_path / "x.npy", image_size=4)


def test_items_of_a_folder_keep_their_files_when_some_are_held_out(tmp_path: Path) -> None:
    for shade in range(12):  # one is held out
        Image.fromarray(np.full((4, 4), 20 * shade, np.uint8)).save(tmp_path / f"{shade}.png")
    data = load(tmp_path)
    for split, items in data.splits.items():
        assert isinstance(items, Tensor)
        assert data.names[split] == tuple(f"{int(item.max()) // 20}.png" for item in items)


def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "x.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py; install pyro-dpvae\[formats\]"):
        load(tmp_path / "x.h5")


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    for name in (
        *("x.h5", "x.h5ad", "x.mat", "x.parquet", "x.amat", "x.csv"),
        *("x-images-idx3-ubyte", "x-images-idx3-ubyte.gz"),
    ):
        (tmp_path / name).write_bytes(b"\x01 not what it says \xff\n")
        with pytest.raises(ValueError, match=name):
            load(tmp_path / name)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (tmp_path / "exploded").touch, ()

    bomb = np.array([Bomb()] * 5, dtype=object)
    np.save(tmp_path / "x.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "x.npz", images=bomb, labels=bomb)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match="are not unpickled"):
            load(tmp_path / name)
    np.savez(tmp_path / "y.npz", images=levels(5, 4, 4), metadata=bomb)
    load(tmp_path / "y.npz")
    np.savez(tmp_path / "y.npz", images=levels(5, 4, 4), labels=bomb)
    with pytest.warns(
        UserWarning, match=r"got objects in 'labels' of .*store them with \.astype\(str"
    ):
        load(tmp_path / "y.npz")
    assert not (tmp_path / "exploded").exists()
