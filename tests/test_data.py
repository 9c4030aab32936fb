"""Data by name, file and folder, real data, preprocessing, and batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pyro_dpvae.data import PREPROCESSING, Batches, DataSet, Split, dataset, load, to_unit


def everything(batches: Batches, epoch: int = 0) -> Tensor:
    return torch.cat(list(batches.epoch(epoch)))


def tensor(split: Split) -> Tensor:
    assert isinstance(split, Tensor)
    return split


def pictures(folder: Path, count: int, size: tuple[int, int] = (12, 10)) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        array = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{index:03}.png")
    return folder


def test_toys() -> None:
    moons, digits = load("two-moons"), load("digits")
    assert tensor(moons.train).shape == (2000, 2)
    assert tensor(moons.test).shape == (200, 2)
    assert not moons.is_images
    assert digits.item_shape == (1, 8, 8)
    assert tensor(digits.train).max() == 255
    assert len(tensor(digits.train)) + len(tensor(digits.test)) == 1797
    assert digits.train_labels is not None
    assert set(digits.train_labels.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("name", "first"), [("mnist", [5, 0, 4, 1]), ("fashion-mnist", [9, 0, 0])]
)
def test_real_mnist_and_fashion(real_data: Path, name: str, first: list[int]) -> None:
    data = load(name, root=real_data)
    train = tensor(data.train)
    assert train.shape == (60_000, 1, 28, 28)
    assert tensor(data.test).shape == (10_000, 1, 28, 28)
    assert data.train_labels is not None
    assert data.train_labels[: len(first)].tolist() == first
    if name == "mnist":  # the published mean of the training pixels
        assert float(train.float().mean() / 255) == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize(
    ("file", "count", "shape"),
    [
        ("svhn_10k.npz", 10_000, (3, 32, 32)),
        ("freyfaces.npz", 1_965, (1, 28, 20)),
        ("caltech101_silhouettes.npz", 8_671, (1, 28, 28)),
        ("omniglot_28x28.npz", 32_460, (1, 28, 28)),
        ("mnist_static_binarized.npz", 60_000, (1, 28, 28)),
        ("dsprites_46k.npz", None, None),
    ],
)
def test_real_files(
    real_data: Path, file: str, count: int | None, shape: tuple[int, ...] | None
) -> None:
    path = real_data / file
    if not path.is_file():
        pytest.skip(f"real data: {file} is not in DPVAE_DATA")
    if count is None:  # images beside an array of factors: 'images' is the data
        assert load(path).item_shape == (1, 64, 64)
        return
    data = load(path)
    assert data.item_shape == shape
    assert len(tensor(data.train)) + len(tensor(data.test)) == count


def test_missing_data_name_the_folder_and_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mnist", "fashion-mnist", "svhn", "cifar10", "celeba", "omniglot"):
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*download=True"):
            load(name, root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("DPVAE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="needs a root folder"):
        load("mnist")


def test_colour_sets_in_torchvisions_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    rng = np.random.default_rng(0)

    class Stub:
        def __init__(self, root: Path, **options: Any) -> None:
            self.data = rng.integers(0, 256, self.form, dtype=np.uint8)
            self.targets, self.labels = [1, 2, 3, 4], np.arange(4)

        form: tuple[int, ...] = (4, 3, 32, 32)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.fromarray(self.data[index]), index

    monkeypatch.setattr(datasets, "SVHN", Stub)
    assert load("svhn", root=tmp_path).item_shape == (3, 32, 32)
    monkeypatch.setattr(Stub, "form", (4, 32, 32, 3))
    monkeypatch.setattr(datasets, "CIFAR10", Stub)
    assert load("cifar10", root=tmp_path).item_shape == (3, 32, 32)
    monkeypatch.setattr(Stub, "form", (4, 218, 178, 3))
    monkeypatch.setattr(datasets, "CelebA", Stub)
    faces = load("celeba", root=tmp_path)
    assert faces.item_shape == (3, 64, 64)
    batches = Batches(faces.train, batch_size=2, preprocessing="grey")
    assert everything(batches).shape == (4, 3, 64, 64)
    monkeypatch.setattr(Stub, "form", (4, 105, 105))
    monkeypatch.setattr(datasets, "Omniglot", Stub)
    assert load("omniglot", root=tmp_path).item_shape == (1, 28, 28)


def test_arrays_keep_their_numbers(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)

    def loaded(array: np.ndarray) -> Tensor:
        path = tmp_path / "array.npz"
        np.savez(path, train=array, test=array)
        return tensor(load(path).train)

    first = torch.from_numpy(levels).permute(0, 3, 1, 2)
    assert torch.equal(loaded(levels), first)
    assert torch.equal(loaded(np.moveaxis(levels, 3, 1).copy()), first)
    assert torch.equal(loaded(levels[..., 0]), first[:, :1])
    assert torch.equal(loaded(levels / 255), first / 255)
    assert torch.equal(loaded(levels[..., 0] > 127), 255 * (first[:, :1] > 127).to(torch.uint8))
    assert torch.equal(
        loaded((levels[..., 0] > 9).astype(np.uint8)).unique(), torch.tensor([0, 255])
    )
    vectors = np.random.default_rng(0).normal(size=(40, 7))
    assert torch.equal(loaded(vectors), torch.from_numpy(vectors).float())


def test_a_single_array_holds_out_the_same_tenth(tmp_path: Path) -> None:
    array = np.arange(100, dtype=np.float32)[:, None].repeat(2, 1)
    np.save(tmp_path / "x.npy", array)
    one, other = load(tmp_path / "x.npy"), load(tmp_path / "x.npy")
    assert len(tensor(one.test)) == 10
    assert torch.equal(tensor(one.test), tensor(other.test))
    rest = torch.cat([tensor(one.train), tensor(one.test)])[:, 0]
    assert sorted(rest.tolist()) == list(range(100))


def test_a_folder_in_memory_and_read_as_needed_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "faces", 30)
    held = load(folder)
    assert held.item_shape == (1, 12, 10)
    monkeypatch.setattr(dataset, "LARGEST_IN_MEMORY", 0)
    lazy = load(folder)
    assert not isinstance(lazy.train, Tensor)
    for preprocessing in ("grey", "binary-static"):
        for epoch in (0, 1):
            one, other = (
                everything(Batches(d.train, batch_size=8, preprocessing=preprocessing), epoch)
                for d in (held, lazy)
            )
            assert torch.equal(one, other)


def test_folders_with_splits_and_bad_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "train", 5)
    pictures(tmp_path / "set" / "test", 3)
    data = load(tmp_path / "set")
    assert (len(tensor(data.train)), len(tensor(data.test))) == (5, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images"):
        load(tmp_path / "empty")
    pictures(tmp_path / "mixed" / "a", 2)
    pictures(tmp_path / "mixed" / "b", 2, size=(9, 9))
    with pytest.raises(ValueError, match=r"one size, got \(9, 9\) in .*b/000.png and \(10, 12\)"):
        load(tmp_path / "mixed")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"x\.png cannot be read"):
        load(tmp_path / "broken")


IMAGES = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("preprocessing", sorted(set(PREPROCESSING) - {"none"}))
def test_a_pass_depends_on_seed_and_epoch_alone(preprocessing: str) -> None:
    def batches(seed: int = 0) -> Batches:
        return Batches(IMAGES, batch_size=64, preprocessing=preprocessing, seed=seed)

    state = torch.get_rng_state()
    one = everything(batches(), 3)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(one, everything(batches(), 3))
    assert not torch.equal(one, everything(batches(), 4))
    assert not torch.equal(one, everything(batches(seed=1), 3))
    assert one.shape == IMAGES.shape
    assert len(batches()) == 5


def in_order(preprocessing: str, epoch: int = 0) -> Tensor:
    batches = Batches(IMAGES, batch_size=64, preprocessing=preprocessing, shuffle=False)
    return everything(batches, epoch)


def test_what_preprocessing_does() -> None:
    grey = IMAGES.float() / 255
    torch.testing.assert_close(in_order("grey"), grey)
    static = in_order("binary-static")
    assert torch.equal(static, in_order("binary-static", 1))
    dynamic = in_order("binary-dynamic")
    assert not torch.equal(dynamic, in_order("binary-dynamic", 1))
    for binary in (static, dynamic):
        assert set(binary.unique().tolist()) == {0.0, 1.0}
        assert float((binary - grey).mean()) == pytest.approx(0.0, abs=0.01)
        assert torch.equal(binary[grey == 0], torch.zeros_like(binary[grey == 0]))
        assert torch.equal(binary[grey == 1], torch.ones_like(binary[grey == 1]))
    dequantised = in_order("dequantised")
    assert torch.equal((dequantised * 256).floor().to(torch.uint8), IMAGES)
    logit = in_order("logit")
    torch.testing.assert_close(to_unit(logit, "logit"), dequantised)


def test_bad_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="at most the number of items, got 301 for 300"):
        Batches(IMAGES, batch_size=301, preprocessing="grey")
    with pytest.raises(ValueError, match="sequences and vectors need 'none'"):
        Batches(torch.zeros(5, 2), batch_size=2, preprocessing="grey")
    with pytest.raises(ValueError, match="images need another one"):
        Batches(IMAGES, batch_size=2, preprocessing="none")
    with pytest.raises(ValueError, match="one shape"):
        DataSet("two", torch.zeros(5, 2), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="got none in the test split"):
        DataSet("none", torch.zeros(5, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"one type .*'train': 'int64', 'test': 'float32'"):
        DataSet("whole", torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="1 NaN or infinite values of 10"):
        DataSet(
            "nan", torch.zeros(5, 2), torch.tensor([[float("nan")] + [0.0] * 1] + [[0.0] * 2] * 4)
        )


def test_forged_and_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 3)))
    whole = path.read_bytes()
    for forged in (
        b"(10**9, 3), ",
        b"(99999999999999999, 9)",
        b"(9" + b"9" * 40 + b", 3)",
        b"((((4, 3",
    ):
        path.write_bytes(whole.replace(b"(4, 3), }", forged[:9].ljust(9) + forged[9:]))
        with pytest.raises(
            ValueError, match=r"x\.npy cannot be read as a \.npy or \.npz file of numbers"
        ):
            load(path)
    picture = pictures(tmp_path / "forged", 1) / "000.bmp"
    Image.new("L", (4, 4)).save(picture)
    content = bytearray(picture.read_bytes())
    content[18:26] = b"\xff\xff\xff\x0f" * 2  # width and height
    picture.write_bytes(content)
    with pytest.raises(ValueError, match=r"000\.bmp cannot be read"):
        load(tmp_path / "forged")


def test_numbers_beyond_32_bits_and_labels_of_others_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1e300, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="got 1 NaN or infinite values of 4 as 32-bit"):
        load(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"train_labels .* 3 for 5 items"):
        DataSet("few", torch.zeros(5, 2), torch.zeros(2, 2), torch.zeros(3))


def test_a_damaged_mnist_is_refused_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):  # labels where images should be
            (raw / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1]))
    with pytest.raises(FileNotFoundError, match=f"missing or incomplete under {tmp_path}"):
        load("mnist", root=tmp_path)
