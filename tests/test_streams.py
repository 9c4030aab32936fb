"""Batches of ranks, from any batch on, and of data that are not in memory."""

import os
import pickle
import signal
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from pyro_dpvae.data import Batches, DataSet, Split, dataset, load
from tests.test_data import pictures
from tests.waiting import wait_until

LEVELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "LARGEST_IN_MEMORY", 0)


class Rows(Dataset[Tensor]):
    """A tensor that is read as needed."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]


def cut(split: Split, **options: Any) -> Batches:
    return Batches(split, **{"batch_size": 12, "preprocessing": "dequantised", **options})


def everything(batches: Batches, epoch: int = 0) -> Tensor:
    return torch.cat(list(batches.epoch(epoch)))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_pass_from_a_batch_on_is_the_tail_of_the_pass(lazy: bool) -> None:
    images = torch.from_numpy(LEVELS).permute(0, 3, 1, 2).contiguous()
    batches = cut(Rows(images) if lazy else images, workers=int(lazy))
    whole = list(batches.epoch(3))
    assert [len(x) for x in whole] == [12, 12, 12, 12, 2]
    for chosen, expected in (
        (batches.epoch(3, 2), whole[2:]),
        (batches.epoch(3, 1, stride=2), whole[1::2]),
        (batches.epoch(3, 5), []),
    ):
        assert all(torch.equal(a, b) for a, b in zip(chosen, expected, strict=True))


@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_put_together_are_the_batches_of_one_rank(ranks: int) -> None:
    numbers = torch.arange(49.0)[:, None]
    options = {"batch_size": 12, "preprocessing": "none", "seed": 5}
    one = list(Batches(numbers, **options).epoch(1))
    shares = [Batches(numbers, **options, rank=r, ranks=ranks) for r in range(ranks)]
    together = [torch.cat(parts) for parts in zip(*(s.epoch(1) for s in shares), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(one[:4], together, strict=True))
    assert len(shares[0]) == 4  # the last datum does not divide
    assert shares[0].smallest == 12
    assert Batches(numbers[:47], **options, ranks=ranks).smallest == 11 - 11 % ranks


def test_ranks_have_noise_of_their_own() -> None:
    images = torch.full((24, 1, 4, 4), 7, dtype=torch.uint8)
    one, other = (everything(cut(images, rank=r, ranks=2)) for r in range(2))
    assert not torch.equal(one, other)
    assert not torch.equal(one[:6], one[6:])


def test_shares_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of .*got 12 for 5 ranks; use batch_size=15"):
        cut(torch.zeros(24, 1, 4, 4, dtype=torch.uint8), ranks=5)
    with pytest.raises(ValueError, match="rank must be one of 0 to 1, got 2"):
        cut(torch.zeros(24, 1, 4, 4, dtype=torch.uint8), rank=2, ranks=2)
    with pytest.raises(ValueError, match="workers must be at least 0"):
        cut(torch.zeros(24, 1, 4, 4, dtype=torch.uint8), workers=-1)


def archive(path: Path, array: np.ndarray) -> Path:
    np.savez(path, train=array, valid=array[:9], valid_labels=np.arange(9))
    return path


@pytest.mark.parametrize("kind", ["bytes", "floats", "binary", "vectors", "fortran"])
def test_mapped_files_are_as_held_ones(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = {
        "bytes": LEVELS,
        "floats": LEVELS / 255,
        "binary": LEVELS[..., 0] > 100,
        "vectors": LEVELS.reshape(50, -1) / 7,
        "fortran": np.asfortranarray(LEVELS),
    }[kind]
    np.save(tmp_path / "x.npy", array)
    files = [tmp_path / "x.npy", archive(tmp_path / "x.npz", array)]
    held = [load(path) for path in files]
    monkeypatch.setattr(dataset, "LARGEST_IN_MEMORY", 0)
    preprocessing = "none" if kind == "vectors" else "binary-dynamic"
    for data, path in zip(held, files, strict=True):
        mapped = load(path)
        assert not isinstance(mapped.train, Tensor)
        assert isinstance(data.train, Tensor)
        assert (mapped.test_labels is None) == (data.test_labels is None)
        for one, other in ((data.train, mapped.train), (data.test, mapped.test)):
            a = cut(one, batch_size=4, preprocessing=preprocessing)
            b = cut(other, batch_size=4, preprocessing=preprocessing, workers=0)
            assert torch.equal(everything(a, 1), everything(b, 1))
        again = pickle.loads(pickle.dumps(mapped.train))
        assert torch.equal(again[3], data.train[3])


@pytest.mark.usefixtures("nothing_is_held")
def test_mapped_files_are_checked_whole(tmp_path: Path) -> None:
    vectors = np.zeros((30, 4))
    vectors[27, 2] = np.nan
    np.save(tmp_path / "x.npy", vectors)
    with pytest.raises(ValueError, match="1 NaN or infinite values of 120"):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.full((30, 4, 4), 300))
    with pytest.raises(ValueError, match=r"0..255, or be uint16, got 300..300"):
        load(tmp_path / "x.npy")
    whole = archive(tmp_path / "x.npz", LEVELS).read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as a"):
        load(tmp_path / "x.npz")


class Noted(Rows):
    """Rows that note in a folder which processes read them."""

    def __init__(self, data: Tensor, folder: Path) -> None:
        super().__init__(data)
        self.folder = folder

    def __getitem__(self, index: int) -> Tensor:
        (self.folder / str(os.getpid())).touch()
        return super().__getitem__(index)


def test_processes_that_read_stay_and_end_with_the_batches(tmp_path: Path) -> None:
    def readers_of_a_pass() -> set[int]:
        for path in tmp_path.iterdir():
            path.unlink()
        assert torch.equal(everything(batches), everything(held))
        return {int(path.name) for path in tmp_path.iterdir()}

    state = torch.get_rng_state()
    images = torch.from_numpy(LEVELS).permute(0, 3, 1, 2).contiguous()
    held = cut(images)
    batches = cut(Noted(images, tmp_path), workers=2)
    readers = readers_of_a_pass()
    assert len(readers - {os.getpid()}) == 2
    for epoch in (1, 2):
        for x, y in zip(batches.epoch(epoch), held.epoch(epoch), strict=True):
            assert torch.equal(x, y)
            # A pass inside a pass, as of a guide that grows.
            assert epoch > 1 or torch.equal(everything(batches, 7), everything(held, 7))
    assert readers_of_a_pass() == readers
    for reader in readers:
        os.kill(reader, signal.SIGINT)  # Ctrl-C goes to all processes of a terminal
    assert readers_of_a_pass() == readers
    assert torch.equal(state, torch.get_rng_state())
    del batches
    wait_until(lambda: not readers & {child.pid for child in active_children()})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.usefixtures("nothing_is_held")
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    folder = pictures(tmp_path / "faces", 30)
    data = load(folder)
    (folder / "017.png").write_bytes(b"not a picture")
    both = ConcatDataset([part for part in (data.train, data.test) if isinstance(part, Dataset)])
    with pytest.raises(ValueError, match=r"/017\.png cannot be read"):
        everything(cut(both, preprocessing="grey", workers=workers))


def test_a_users_data_set_that_fails_is_named() -> None:
    class Torn(Rows):
        def __getitem__(self, index: int) -> Tensor:
            if index == 5:
                raise KeyError("gone")
            return super().__getitem__(index)

    images = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    data = DataSet("torn", Torn(images), images)
    with pytest.raises(ValueError, match="item 5 cannot be read: KeyError: 'gone'"):
        everything(cut(data.train, workers=1))


def test_a_process_that_reads_and_is_killed_is_reported() -> None:
    class Deadly(Rows):
        def __getitem__(self, index: int) -> Tensor:
            if index == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    images = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(OSError, match=r"has ended .*use fewer workers"):
        everything(cut(Deadly(images), workers=1))
