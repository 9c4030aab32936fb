"""Training needs no more memory at its end than after its first steps."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_dpvae.data import Batches
from pyro_dpvae.recipes import build_system
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit

PAGE = 4096
GROWTH = 4 << 20
"""Bytes that the allocator may take on the way; a float32 kept of each step would be less, and is
found by the count of tensors."""

OBJECTIVES: list[dict[str, Any]] = [
    {"name": "elbo"},
    {"name": "factor", "hidden": [8]},
    {"name": "beta-tc"},
]


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


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


def flat(
    folder: Path, objective: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, steps: int
) -> tuple[int, int]:
    """Train; returns how many tensors and bytes there are more at 9/10 of the steps than at 1/10.

    Records are the only thing that grows: some numbers for each, every ``log_every`` steps.
    """
    found: dict[int, tuple[int, int]] = {}
    log = RunFolder.log

    def looking(run: RunFolder, record: Any) -> None:
        log(run, record)
        if "held_out" in record and record["step"] in (steps // 10, steps // 10 * 9):
            found[record["step"]] = (tensors(), resident())

    monkeypatch.setattr(RunFolder, "log", looking)
    train(folder, objective, steps=steps)
    (first, early), (last, late) = found[steps // 10], found[steps // 10 * 9]
    print(f"{objective['name']}: {first} tensors, {early / 2**20:.1f} MiB; then {last}, ", end="")
    print(f"{late / 2**20:.1f} MiB")
    return last - first, late - early


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one["name"])
def test_memory_is_flat(
    objective: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, grown = flat(tmp_path / "run", objective, monkeypatch, steps=600)
    assert more <= 0
    assert grown < GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one["name"])
def test_memory_is_flat_over_20_000_steps(
    objective: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, grown = flat(tmp_path / "run", objective, monkeypatch, steps=20_000)
    assert more <= 0
    assert grown < GROWTH


def test_a_leak_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    step = RunFolder.log

    def leaking(run: RunFolder, record: Any) -> None:
        kept.append(torch.zeros(1))
        step(run, record)

    monkeypatch.setattr(RunFolder, "log", leaking)
    more, _ = flat(tmp_path / "run", OBJECTIVES[0], monkeypatch, steps=100)
    assert more > 3
