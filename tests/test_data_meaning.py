"""What users' arrays mean: dtype, range and layout, at every door; splits, labels and factors."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pyro_dpvae.cli import main
from pyro_dpvae.data import PREPROCESSING, Batches, DataSet, load, meaning_of
from pyro_dpvae.features import train_domain_network
from pyro_dpvae.plots import reconstruction_figure, sample_figure, traversal_figure
from tests.fuzzing import scratch

Array = np.ndarray[Any, Any]
IMAGES = sorted(set(PREPROCESSING) - {"none"} - {"logit"})


def everything(split: Any, preprocessing: str) -> Tensor:
    batches = Batches(
        split,
        batch_size=min(50, len(split)),
        preprocessing=preprocessing,
        shuffle=False,
        workers=0,
    )
    return torch.cat(list(batches.epoch(0)))


class Rows(Dataset[Tensor]):
    """A user's data set of the rows of a tensor."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]


SHADES = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
DARK = SHADES < 0.3
KINDS = {
    "shades": (SHADES, SHADES),
    "doubles": (SHADES.double(), SHADES),
    "levels": ((SHADES * 255).round().to(torch.uint8), (SHADES * 255).round() / 255),
    "int64 levels": ((SHADES * 255).round().long(), (SHADES * 255).round() / 255),
    "real levels": ((SHADES * 255).round(), (SHADES * 255).round() / 255),
    "binary": (DARK.to(torch.uint8), DARK.float()),
    "booleans": (DARK, DARK.float()),
    "real binary": (DARK.double(), DARK.float()),
    "16 bits": ((SHADES * 65535).round().to(torch.uint16), (SHADES * 65535).round() / 65535),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preprocessing", IMAGES)
def test_every_door_gives_the_same_shades(kind: str, preprocessing: str, tmp_path: Path) -> None:
    array, expected = KINDS[kind]
    np.savez(tmp_path / "x.npz", train=array.numpy(), test=array.numpy())
    doors = [array, load(tmp_path / "x.npz").train, DataSet("x", array, array).train, Rows(array)]
    found = [everything(door, preprocessing) for door in doors]
    for one in found[1:]:
        assert torch.equal(one, found[0])
    if preprocessing == "grey":
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-7)
    else:
        # 12,800 draws have a mean within 0.02; dequantising moves shades by less than a level.
        assert float(found[0].mean()) == pytest.approx(float(expected.mean()), abs=0.02)
    if preprocessing == "dequantised":
        assert float((found[0] - expected).abs().max()) <= 1 / 256


def test_decisions_are_said_in_a_line() -> None:
    said = {kind: str(meaning_of({"x": array})) for kind, (array, _) in KINDS.items()}
    assert said["binary"] == "uint8 images of 0 and 1, taken as black and white; shape (1, 8, 8)"
    assert said["levels"] == "uint8 images of levels from 0 to 255; shape (1, 8, 8)"
    assert said["16 bits"].startswith("uint16 images of levels from 0 to 65535")
    assert Batches(SHADES, batch_size=9, preprocessing="grey").meaning == meaning_of({"x": SHADES})


def test_a_users_items_that_contradict_the_first_are_refused() -> None:
    binary = torch.zeros(100, 1, 4, 4, dtype=torch.uint8)
    binary[0, 0, 0, 0], binary[51, 0, 0, 0] = 1, 200
    with pytest.raises(ValueError, match=r"item 51 lies in \[0, 200\], but others are uint8"):
        everything(Rows(binary), "grey")
    shades = SHADES.clone()
    shades[77] *= 255
    with pytest.raises(ValueError, match="item 77 lies in"):
        everything(Rows(shades), "grey")


def test_real_numbers_stay_real_and_sequences_are_no_images(tmp_path: Path) -> None:
    time = np.linspace(0, 1, 24)[None, :, None]
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * (time + np.random.default_rng(0).random((60, 1, 1))))
    windows = np.concatenate([wave, 0.001 * wave], -1).astype(np.float32)
    np.save(tmp_path / "windows.npy", windows)
    data = load(tmp_path / "windows.npy", held_out="none")
    assert torch.equal(torch.as_tensor(data.train), torch.from_numpy(windows))
    assert not data.is_images
    assert data.decision.startswith("float32 sequences")
    images = load(tmp_path / "windows.npy", held_out="none", layout="images")
    assert images.item_shape == (1, 24, 2)
    vectors = load(tmp_path / "windows.npy", held_out="none", layout="vectors")
    assert torch.equal(torch.as_tensor(vectors.train), torch.from_numpy(windows.reshape(60, -1)))
    np.savez(tmp_path / "named.npz", images=windows)  # which says what they are
    assert load(tmp_path / "named.npz").is_images
    with pytest.raises(ValueError, match="layout must be one of"):
        load(tmp_path / "windows.npy", layout="pictures")


def test_levels_are_those_of_all_splits_together(tmp_path: Path) -> None:
    train = np.arange(40, dtype=np.uint8).reshape(10, 2, 2) * 6
    np.savez(tmp_path / "x.npz", train=train, test=np.ones((3, 2, 2), np.uint8))
    data = load(tmp_path / "x.npz")
    assert torch.as_tensor(data.test).max() == 1
    assert float(everything(data.test, "grey").max()) == pytest.approx(1 / 255)


def test_numbers_that_hint_at_a_mistake_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(17, dtype=np.uint8).repeat(4).reshape(17, 2, 2))
    with pytest.warns(UserWarning, match="nearly black: their largest value is 16, and white is"):
        load(tmp_path / "x.npy")
    seconds = 1.7e9 + np.arange(50.0)
    np.save(tmp_path / "x.npy", np.stack([seconds, np.arange(50)], 1))
    with pytest.warns(
        UserWarning, match="too coarse for column 0 of 'train' .*subtract an offset"
    ):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.full((9, 4, 4, 3), -0.5))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got \[-0.5, -0.5\]"):
        load(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "names",
    [
        *(("train", "val"), ("train", "validation"), ("train", "valid"), ("train", "test")),
        *(("images", "test_images"), ("x", "x_test"), ("X_train", "X_val"), ("data", "testdata")),
    ],
)
def test_a_users_own_split_is_held_out(names: tuple[str, str], tmp_path: Path) -> None:
    black, white = np.zeros((100, 8, 8), np.uint8), np.full((30, 8, 8), 255, np.uint8)
    np.savez(tmp_path / "own.npz", **dict(zip(names, (black, white), strict=True)))
    data = load(tmp_path / "own.npz")
    assert len(torch.as_tensor(data.train)) == 100
    assert torch.equal(torch.as_tensor(data.test), torch.full((30, 1, 8, 8), 255).byte())
    assert data.held_out is None


def test_folders_of_splits_are_splits(tmp_path: Path) -> None:
    for part, shade in (("train", 0), ("val", 255)):
        (tmp_path / part).mkdir()
        for number in range(6):
            Image.new("L", (4, 4), shade).save(tmp_path / part / f"{number}.png")
    data = load(tmp_path)
    assert torch.as_tensor(data.train).max() == 0
    assert torch.as_tensor(data.test).min() == 255
    assert len(torch.as_tensor(data.train)) == len(torch.as_tensor(data.test)) == 6


def test_the_share_that_is_held_out_is_known(tmp_path: Path) -> None:
    array = np.arange(40.0)[:, None]
    np.save(tmp_path / "x.npy", array)
    for share, count in ((None, 4), (0.25, 10), ("0.5", 20)):
        data = load(tmp_path / "x.npy", held_out=share)
        assert data.held_out is not None
        assert len(data.held_out) == count
        assert torch.equal(torch.as_tensor(data.test)[:, 0], data.held_out.float())
    everything = load(tmp_path / "x.npy", held_out="none")
    assert torch.equal(torch.as_tensor(everything.train), torch.from_numpy(array).float())
    assert everything.test is everything.train
    for wrong in ("some", 1.5, 0):
        with pytest.raises(ValueError, match=f"between 0 and 1, got {wrong}"):
            load(tmp_path / "x.npy", held_out=wrong)
    np.savez(tmp_path / "x.npz", train=array, test=array)
    with pytest.raises(ValueError, match="held_out applies to data without splits"):
        load(tmp_path / "x.npz", held_out=0.2)


LABELS = {
    "numbers": ("labels", np.arange(30) % 3, None),
    "a column": ("labels", (np.arange(30) % 3)[:, None], None),
    "whole reals": ("y", (np.arange(30) % 3).astype(float), None),
    "targets": ("targets", np.arange(30) % 3, None),
    "one-hot": ("label", np.eye(3)[np.arange(30) % 3], None),
    "texts": ("labels", np.array(["ant", "bee", "cat"] * 10), ("ant", "bee", "cat")),
    "bytes": ("labels", np.array([b"ant", b"bee", b"cat"] * 10), ("ant", "bee", "cat")),
    "negative": ("labels", np.arange(30) % 3 - 1, ("-1", "0", "1")),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_in_all_forms(form: str, tmp_path: Path) -> None:
    name, labels, names = LABELS[form]
    np.savez(tmp_path / "x.npz", images=np.zeros((30, 4, 4), np.uint8), **{name: labels})
    data = load(tmp_path / "x.npz")
    assert data.held_out is not None
    assert data.test_labels is not None
    assert data.test_labels.tolist() == (data.held_out % 3).tolist()
    assert data.label_names == names


def test_labels_that_are_no_classes_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((30, 4)), y=np.linspace(0, 1, 30))
    with pytest.warns(UserWarning, match="are real numbers, which cannot be classes"):
        assert load(tmp_path / "x.npz").train_labels is None
    np.savez(tmp_path / "x.npz", x=np.zeros((30, 4)), labels=np.arange(29))
    with pytest.raises(ValueError, match=r"one row per item, got shape \(29,\) for 30 items"):
        load(tmp_path / "x.npz")


def test_factors_in_all_forms(tmp_path: Path) -> None:
    codes = np.stack([np.arange(60) % 3, np.zeros(60), np.arange(60) // 20], 1).astype(int)
    for factors in (codes, codes.astype(float), codes * 0.3 - 0.1):
        np.savez(tmp_path / "x.npz", images=np.zeros((60, 4, 4), np.uint8), factors=factors)
        with pytest.warns(UserWarning, match="one value are left out: number 1"):
            data = load(tmp_path / "x.npz")
        assert data.held_out is not None
        assert data.test_factors is not None
        assert data.test_factors.tolist() == codes[data.held_out][:, [0, 2]].tolist()
        assert data.places is not None
        assert data.train_factors is not None
        rows = data.places[: len(data.train_factors)]
        assert data.train_factors.tolist() == codes[rows][:, [0, 2]].tolist()
    np.savez(
        tmp_path / "x.npz",
        images=np.zeros((600, 4, 4), np.uint8),
        factors=np.linspace(0, 1, 600)[:, None],
    )
    with pytest.warns(UserWarning, match=r"column 0 of .*600 for 600 items"):
        assert load(tmp_path / "x.npz").test_factors is None


def folder(path: Path, images: list[Image.Image], ending: str = "png") -> DataSet:
    path.mkdir()
    for number, image in enumerate(images):
        image.save(path / f"{number:03}.{ending}")
    return load(path, held_out="none")


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    grey = torch.from_numpy((levels[..., 0] / 65535).astype(np.float32))[None]
    colour = torch.from_numpy((levels / 65535).astype(np.float32)).permute(2, 0, 1)
    for ending in ("png", "tif"):
        data = folder(tmp_path / ending, [Image.fromarray(levels[..., 0])] * 4, ending)
        assert torch.equal(torch.as_tensor(data.train)[0], grey)
    (tmp_path / "colour").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "colour" / f"{number}.tif", levels, photometric="rgb")
    assert torch.equal(torch.as_tensor(load(tmp_path / "colour").train)[0], colour)
    # A PNG file of 16-bit colours, which pillow can neither write nor read whole.
    (tmp_path / "deep").mkdir()
    for number in range(3):
        (tmp_path / "deep" / f"{number}.png").write_bytes(png(levels))
    assert torch.equal(torch.as_tensor(load(tmp_path / "deep").train)[0], colour)


def png(levels: Array) -> bytes:
    """Return a PNG file of 16-bit colours."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    height, width = levels.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def test_transparent_images_are_put_on_a_ground(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)  # black, where it is not transparent
    ink[2:6, 3:5, 3] = 255
    ink[0, 0, 3] = 128
    white = folder(tmp_path / "ink", [Image.fromarray(ink)] * 4)
    image = torch.as_tensor(white.train)[0]
    assert image.shape == (3, 8, 8)
    assert image[:, 2:6, 3:5].max() == 0
    assert image[:, 7].min() == 255
    assert image[0, 0, 0] == 127
    assert "transparent images are put on a white" in white.decision
    black = load(tmp_path / "ink", held_out="none", background="black")
    assert torch.as_tensor(black.train).max() == 0
    grey = folder(tmp_path / "grey", [Image.fromarray(ink[..., 2:]).convert("LA")] * 4)
    assert torch.equal(torch.as_tensor(grey.train)[0], image[:1])
    with pytest.raises(ValueError, match="background must be one of"):
        load(tmp_path / "ink", background="red")


def test_the_widest_mode_of_a_folder_is_taken(tmp_path: Path) -> None:
    grey, red = Image.new("L", (4, 4), 128), Image.new("RGB", (4, 4), (200, 0, 0))
    data = folder(tmp_path / "mixed", [grey, red, red])
    train = torch.as_tensor(data.train)
    assert train[0].unique().tolist() == [128]
    assert train[1, :, 0, 0].tolist() == [200, 0, 0]
    assert "1 grey images get three equal channels" in data.decision
    deep = Image.fromarray(np.full((4, 4), 12345, np.uint16))
    train = torch.as_tensor(folder(tmp_path / "deep", [grey, deep]).train)
    torch.testing.assert_close(train[:, 0, 0, 0], torch.tensor([128 / 255, 12345 / 65535]))


def test_images_are_upright_as_exif_says(tmp_path: Path) -> None:
    levels = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by a quarter, clockwise
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(levels).save(tmp_path / "photos" / f"{number}.png", exif=exif)
    data = load(tmp_path / "photos")
    assert torch.equal(
        torch.as_tensor(data.train)[0, 0], torch.from_numpy(np.rot90(levels, -1).copy())
    )


def train(data: Path, out: Path, *options: str) -> int:
    few = [*("--network", "mlp", "--steps", "4", "--batch-size", "10", "--backend", "eager")]
    few += ["--evaluate-every", "2"]
    return main(["train", "--data", str(data), "--out", str(out), *few, *options])


def test_training_watches_the_validation_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shades = torch.rand(60, 1, 4, 4).numpy()
    np.savez(tmp_path / "x.npz", train=shades[:30], val=shades[30:40], test=shades[40:] * 0)
    assert train(tmp_path / "x.npz", tmp_path / "run") == 0
    said = capsys.readouterr()
    assert "20 held out for the end, 10 to watch" in said.err
    assert "data: float32 images in [0, " in said.err
    records = [
        json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    watched = next(x["held_out"]["elbo"] for x in records if x.get("held_out") and x["step"] == 4)
    test = json.loads((tmp_path / "run" / "test.json").read_text())
    assert f"validation ELBO {watched:.3f}" in said.out
    assert f"test ELBO {test['last']['elbo']:.3f}" in said.out
    assert test["last"]["step"] == 4
    # Black images are far from the others: a number of one split is none of the other.
    assert abs(test["last"]["elbo"] - watched) > 0.1


def test_a_run_records_what_is_held_out_and_reads_its_data_alike(tmp_path: Path) -> None:
    images = torch.rand(40, 6, 6).numpy()
    labels = np.arange(40)[:, None] % 2
    np.savez(tmp_path / "x.npz", x=images, y=labels)
    options = ["--layout", "images", "--held-out", "0.25"]
    assert train(tmp_path / "x.npz", tmp_path / "run", *options) == 0
    data = load(tmp_path / "x.npz", layout="images", held_out=0.25)
    kept = json.loads((tmp_path / "run" / "held-out.json").read_text())
    assert data.held_out is not None
    assert kept["indices"] == data.held_out.tolist()
    assert main(["evaluate", str(tmp_path / "run"), "--metrics", "probe"]) == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["metrics"]["probe"]["settings"]["test"] == 10


def test_data_are_shown_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6), dtype=np.uint8)
    factors = np.stack([np.arange(50) % 2, np.arange(50) // 25], 1)
    np.savez("x.npz", images=images, labels=["b", "a"] * 25, factors=factors, other=images)
    assert main(["data", "x.npz"]) == 0
    said = capsys.readouterr().out
    assert "decision  uint8 images of levels from 0 to 255; shape (1, 6, 6)" in said
    assert "note      unused arrays: 'other'" in said
    assert "note      a random 10 % is held out" in said
    assert "train     45 items: uint8 from 0 to 255" in said
    assert "labels    2 classes: a (" in said
    assert "factors   0 (2), 1 (2)" in said
    with Image.open("x-data.png") as picture:
        assert picture.size[0] > 100
    Path("t.csv").write_text("a,b,c\n" + "1.5,2,3\n" * 20)
    assert main(["data", "t.csv", "--out", "table.pdf"]) == 0
    assert "columns   a, b, c" in capsys.readouterr().out
    assert Path("table.pdf").is_file()
    np.save("s.npy", np.random.default_rng(0).normal(size=(20, 5, 2)))
    assert main(["data", "s.npy", "--held-out", "none"]) == 0
    assert "float64 sequences" in capsys.readouterr().out


def test_samples_of_a_table_have_its_columns(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3)).round(3)
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "t.csv").write_text(f"width,height,depth\n{text}\n")
    assert train(tmp_path / "t.csv", tmp_path / "run") == 0
    assert main(["sample", str(tmp_path / "run"), "--number", "5"]) == 0
    lines = (tmp_path / "run" / "samples.csv").read_text().splitlines()
    assert lines[0] == "width,height,depth"
    samples = np.load(tmp_path / "run" / "samples.npy")
    np.testing.assert_allclose(np.loadtxt(lines[1:], delimiter=","), samples, rtol=1e-6)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Draw an array that means images, sequences or vectors."""
    kind = draw(st.sampled_from(["u1", "?", "i8", ">i4", "u2", "f2", "f4", ">f4", "f8"]))
    shape = draw(st.sampled_from([(6, 4, 5), (6, 1, 4, 5), (6, 4, 5, 3), (6, 3, 4, 5), (6, 7)]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shades = rng.random(shape) * draw(st.sampled_from([1.0, 0.5]))
    if draw(st.booleans()):
        shades = np.asfortranarray(shades)
    if np.dtype(kind).kind == "f":
        return shades.astype(kind)
    return (shades * {"?": 2, "u2": 65535}.get(kind, 255)).astype(kind)


def shade_mean(array: Array) -> float:
    """Return the mean shade of an array, as its type says it."""
    white = {"f": 1, "b": 1}.get(array.dtype.kind, 65535 if array.dtype == np.uint16 else 255)
    return float(array.astype(np.float64).mean() / (white if array.ndim > 2 else 1))


@given(arrays())
def test_no_type_or_layout_changes_a_mean(array: Array) -> None:
    with scratch() as path, warnings.catch_warnings():
        warnings.simplefilter("error")
        np.savez(path / "x.npz", images=array)
        layout = "vectors" if array.ndim == 2 else None
        data = load(path / "x.npz", held_out="none", layout=layout)
    items = torch.as_tensor(data.train)
    mean = float(everything(items, "grey" if data.is_images else "none").double().mean())
    assert mean == pytest.approx(shade_mean(array), rel=1e-5)


@given(arrays(), st.sampled_from(["npy", "npz", "npz packed", "h5", "mat", "rows"]))
def test_saved_in_another_format_data_are_the_same(array: Array, form: str) -> None:
    import h5py
    import scipy.io

    layout = "vectors" if array.ndim == 2 else "images"
    labels = np.arange(len(array)) % 2
    with scratch() as path:
        np.savez(path / "first.npz", images=array, labels=labels)
        first = load(path / "first.npz", held_out="none", layout=layout)
        items = torch.as_tensor(first.train).numpy()
        other = path / f"x.{form.split()[0]}"
        if form == "npy":
            np.save(other, items)
        elif form == "rows":
            np.save(other.with_suffix(".npy"), np.asfortranarray(items))
            other = other.with_suffix(".npy")
        elif form.startswith("npz"):
            write = np.savez if form == "npz" else np.savez_compressed
            write(other, images=items, labels=labels)
        elif form == "h5":
            with h5py.File(other, "w") as file:
                file["images"], file["labels"] = items, labels
        else:
            scipy.io.savemat(other, {"images": items, "labels": labels})
        again = load(other, held_out="none", layout=layout)
    assert torch.equal(torch.as_tensor(again.train), torch.from_numpy(items))
    if form not in ("npy", "rows"):
        assert again.train_labels is not None
        assert again.train_labels.tolist() == labels.tolist()


def test_sequences_and_columns_are_drawn() -> None:
    sequences = torch.rand(5, 7, 2)
    axes = sample_figure(sequences).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [7] * 10
    np.testing.assert_allclose(axes.lines[5].get_ydata(), sequences[0, :, 1])
    panel = traversal_figure([sequences[:3]], ["$z_1$"], title="").axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), sequences[0].mT.ravel())
    panel = reconstruction_figure(sequences, sequences).axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), sequences[0].mT.ravel())
    for figure in (
        sample_figure(torch.rand(5, 1)),
        sample_figure(torch.rand(5, 1, 2)),
        reconstruction_figure(torch.rand(3, 1), torch.rand(3, 1)),
        traversal_figure([torch.rand(3, 1)], ["$z_1$"], title=""),
    ):  # a line of one value is a point
        lines = [line for axes in figure.axes for line in axes.lines]
        assert lines
        assert all(line.get_marker() == "o" for line in lines)
    axes = sample_figure(torch.rand(5, 3), ("a", "b", "c")).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c"]
    assert sample_figure(torch.rand(5, 2), ("a", "b")).axes[0].get_ylabel() == "b"


def test_classifiers_learn_the_same_of_levels_and_of_shades() -> None:
    levels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(40) % 2
    one, other = (
        train_domain_network("x", images, labels, steps=1, progress=False)
        for images in (levels, levels.float() / 255)
    )
    assert one.name == other.name  # which says their weights
