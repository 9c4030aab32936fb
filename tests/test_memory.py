"""Memory: training needs no more of it at its end than at its beginning, and streams need little.

Each test measures a process of its own, whose memory has nothing of the tests before.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_dpvae.data import Batches, dataset, load
from pyro_dpvae.importance.memory import draws_that_fit, peak_bytes
from pyro_dpvae.metrics import log_likelihoods
from pyro_dpvae.recipes import GUIDES, SYSTEM_PRIORS, build_system
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit
from tests.children import in_new_process

if not Path("/proc/self/status").exists():
    pytest.skip("memory is read from /proc", allow_module_level=True)

GROWTH = 4 << 20
"""Bytes that the allocator may take on the way; a float32 kept of each step would be less, and is
found by the count of tensors."""

OBJECTIVES: list[dict[str, Any]] = [
    {"name": "elbo"},
    {"name": "factor", "hidden": [8]},
    {"name": "beta-tc"},
]


def own_memory(what: str = "RssAnon") -> int:
    """Return the bytes of this process that are in memory and are not pages of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])


def tensors() -> int:
    """Return how many tensors there are."""
    gc.collect()
    # By its type: isinstance would ask proxies, which then warn.
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def train(folder: Path, objective: dict[str, Any], *, steps: int) -> None:
    data = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    system = build_system(
        (4,),
        latent_dim=2,
        dataset_size=len(data),
        prior={"name": "coupling", "blocks": 2, "hidden": [8]},
        likelihood={"name": "gaussian-learned"},
        network={"name": "mlp", "hidden": [16]},
        guide={"name": "amortized"},
        objective=objective,
    )
    fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=Batches(data, batch_size=32, preprocessing="none"),
        test=Batches(data[:64], batch_size=32, preprocessing="none"),
        config=TrainConfig(steps=steps, log_every=20, evaluate_every=steps // 10),
        run=RunFolder.create(folder, {}),
        progress=False,
    )


def growth(folder: Path, objective: dict[str, Any], steps: int, leaks: bool) -> tuple[int, int]:
    """Train; returns how many tensors and bytes there are more at 9/10 of the steps than at 3/10.

    Records are the only thing that grows: some numbers for each, every ``log_every`` steps. With
    ``leaks``, each of them keeps a tensor too.
    """
    begin, end = steps // 10 * 3, steps // 10 * 9
    found: dict[int, tuple[int, int]] = {}
    kept: list[torch.Tensor] = []
    log = RunFolder.log

    def looking(run: RunFolder, record: Any) -> None:
        log(run, record)
        kept.extend(torch.zeros(1) for _ in range(leaks))
        if "held_out" in record and record["step"] in (begin, end):
            found[record["step"]] = (tensors(), own_memory())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "log", looking)
        train(folder, objective, steps=steps)
    (first, early), (last, late) = found[begin], found[end]
    print(f"{objective['name']}: {first} tensors, {early / 2**20:.1f} MiB; then {last}, ", end="")
    print(f"{late / 2**20:.1f} MiB", flush=True)
    return last - first, late - early


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one["name"])
def test_memory_is_flat(objective: dict[str, Any], tmp_path: Path) -> None:
    more, grown = in_new_process(growth, tmp_path / "run", objective, 300, False)
    assert more <= 0
    assert grown < GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one["name"])
def test_memory_is_flat_over_20_000_steps(objective: dict[str, Any], tmp_path: Path) -> None:
    more, grown = in_new_process(growth, tmp_path / "run", objective, 20_000, False)
    assert more <= 0
    assert grown < GROWTH


def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    more, _ = in_new_process(growth, tmp_path / "run", OBJECTIVES[0], 100, True)
    assert more > 3


def growth_of_a_pass(path: Path) -> int:
    """Return how many bytes more there are after all batches of a file than before."""
    before = own_memory()
    dataset.LARGEST_IN_MEMORY = path.stat().st_size // 16
    batches = Batches(load(path).train, batch_size=50, preprocessing="grey", workers=0)
    assert sum(len(x) for x in batches.epoch(0)) == batches.size
    return own_memory() - before


def test_a_file_larger_than_memory_streams_in_little(tmp_path: Path) -> None:
    size = 1 << 27
    out = np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", np.uint8, (size // (64 * 64 * 3), 64, 64, 3)
    )
    out[:, 0] = 9
    out.flush()
    del out
    assert in_new_process(growth_of_a_pass, tmp_path / "x.npy") < size / 4


def peak_of(work: Callable[[], object]) -> int:
    """Return how many bytes some work needs at most, what it returns among them."""

    def in_memory(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    before = in_memory("VmRSS")
    kept = work()
    peak = in_memory("VmHWM") - before
    del kept
    return peak


def peaks_of_loading(folder: Path, size: int) -> dict[str, int]:
    """Return the peaks of loading packed files of several kinds, each with data of a size."""
    found = {}
    for kind, shape, dtype, white in (
        ("levels", (size >> 12, 64, 64), np.uint8, 255),
        ("binary", (size >> 12, 64, 64), np.uint8, 1),
        ("channels last", (size // 12288, 64, 64, 3), np.uint8, 255),
        ("shades", (size >> 14, 64, 64), np.float32, 1),
    ):
        images = np.zeros(shape, dtype)
        images[:, 0] = white
        np.savez_compressed(folder / "x.npz", images=images)
        del images
        found[kind] = peak_of(lambda: load(folder / "x.npz"))
    grey = torch.full((size >> 16, 1, 256, 256), 99, dtype=torch.uint8)
    options: dict[str, Any] = {"batch_size": 50, "preprocessing": "binary-static"}
    found["binary-static"] = size + peak_of(lambda: Batches(grey, **options))
    return found


def test_loading_needs_half_of_the_data_beside_them(tmp_path: Path) -> None:
    size = 1 << 26
    peaks = in_new_process(peaks_of_loading, tmp_path, size)
    print({kind: f"{peak / size:.2f} times the data" for kind, peak in peaks.items()})
    assert all(peak < 1.5 * size + (24 << 20) for peak in peaks.values()), peaks


# Importance samples.


def peak_of_likelihoods(parts: dict[str, Any], latent_dim: int, samples: int) -> int:
    """Return how many bytes more than before the likelihoods of 32 small images take."""
    torch.set_num_threads(1)
    system = build_system(
        (1, 8, 8),
        latent_dim=latent_dim,
        dataset_size=1000,
        likelihood={"name": "bernoulli"},
        network={"name": "mlp"},
        objective={"name": "elbo"},
        **{"prior": {"name": "standard"}, "guide": {"name": "amortized"}, **parts},
    )
    x = torch.bernoulli(torch.full((32, 1, 8, 8), 0.3))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is
    before = own_memory("VmRSS")
    log_likelihoods(system.model, system.guide, x, num_samples=samples, progress=False)
    return own_memory("VmHWM") - before


MANY = {"mixture": {"components": 1000}, "coupling-mixture": {"components": 1000}, "vamp": {}}
SAMPLED = [
    *({"prior": {"name": name, **MANY.get(name, {})}} for name in SYSTEM_PRIORS),
    *({"guide": {"name": name}} for name in GUIDES),
]


@pytest.mark.parametrize("parts", SAMPLED, ids=lambda parts: next(iter(parts.values()))["name"])
def test_likelihoods_take_less_than_a_gigabyte(parts: dict[str, Any]) -> None:
    assert in_new_process(peak_of_likelihoods, parts, 40, 512) < 1 << 30


def test_the_draws_that_fit_are_counted_by_what_they_take() -> None:
    """A run that holds 800 bytes, 1,000 for each draw, and 2,000 more for each of the first 5."""
    made: list[int] = []

    def run(draws: int) -> None:
        made.append(draws)
        held = torch.zeros(100), torch.zeros(draws, 250), torch.zeros(min(draws, 5), 500)
        assert len(held[0].add(0)) == 100  # and 400 that are gone at once

    def expected(draws: int) -> int:
        return 400 + 1000 * draws + 2000 * min(draws, 5) + 400

    for draws in (1, 4, 9):
        assert peak_bytes(lambda draws=draws: run(draws)) == expected(draws)
    for budget in (4000, 20_000, 40_000, 100_000, 10**9):
        made.clear()
        found = draws_that_fit(run, 64, budget=budget)
        assert found == 1 or expected(found) <= budget
        assert found == 64 or expected(found + 8) > budget or found < 8
        assert max(made) == 3 or expected(max(made)) <= budget
