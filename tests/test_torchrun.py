"""Commands by several processes: a run is that of one, and goes on when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import normal

from pyro_dpvae._ranks import ranks
from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, load
from pyro_dpvae.recipes import build_system
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit
from tests.processes import on_ranks

MOONS = ["--data", "two-moons", "--latent-dim", "2", "--prior.hidden", "[8]", "--steps", "60"]
OFTEN = ["--evaluate-every", "6", "--checkpoint-every", "3", "--backend", "eager"]


def same_noise(monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    """Give each rank its part of the noise of one rank; returns the generator of it all."""
    drawn = torch.Generator()

    def noise(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        here, batch = ranks(), shape[0]
        if not torch.is_grad_enabled():  # of an evaluation, which is shared otherwise
            return torch.randn(shape, dtype=dtype, device=device)
        whole = torch.randn(here.count * batch, *shape[1:], generator=drawn, dtype=dtype)
        return whole[here.index * batch : (here.index + 1) * batch]

    monkeypatch.setattr(normal, "_standard_normal", noise)
    return drawn


@pytest.mark.parametrize("objective", ["beta", "beta-tc"])
def test_two_ranks_train_as_one_does_under_the_same_noise(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("two-moons")
    drawn = same_noise(monkeypatch)

    def trained() -> tuple[list[dict[str, Any]], list[Tensor]]:
        pyro.clear_param_store()
        drawn.manual_seed(1)
        pyro.set_rng_seed(0)
        system = build_system(
            (2,),
            latent_dim=2,
            dataset_size=2000,
            prior={"name": "coupling", "hidden": [8]},
            likelihood={"name": "gaussian", "variance": 0.1},
            network={"name": "moons"},
            guide={"name": "amortized"},
            objective={"name": objective},
        )
        here = ranks()
        train = Batches(
            data.train,
            batch_size=300,
            preprocessing="none",
            rank=here.index,
            ranks=here.count,
        )
        history = fit(
            system.model,
            system.guide,
            objective=system.objective,
            train=train,
            test=Batches(data.test, batch_size=40, preprocessing="none", shuffle=False),
            config=TrainConfig(steps=20, log_every=1, evaluate_every=10, backend="eager"),
            progress=False,
        )
        weights = [*system.model.parameters(), *system.guide.parameters()]
        return history.records, [weight.detach() for weight in weights]

    alone = trained()
    one, other = on_ranks(2, trained, tmp_path)
    for a, b in zip(one[1], other[1], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one[1], alone[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)
    for a, b in zip(one[0], alone[0], strict=True):
        assert a.keys() == b.keys()
        for name in ("loss", "distortion", "rate", "held_out"):
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5)


def test_of_refusals_by_all_ranks_one_is_told(tmp_path: Path) -> None:
    def refused() -> tuple[int, str]:
        with redirect_stderr(StringIO()) as told:
            return main(["train", *MOONS, "--batch-size", "101"]), told.getvalue()

    found = on_ranks(2, refused, tmp_path)
    assert [status for status, _ in found] == [2, 2]
    (message,) = [told for _, told in found if told]
    assert message.startswith("dpvae train: error: batch_size must be a multiple of the number")


def records(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


def until(found: Callable[[], Any], process: "subprocess.Popen[str]") -> Any:
    deadline = time.monotonic() + 120
    while not (value := found()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return value


def second_rank(launcher: int) -> int | None:
    """Return the id of torchrun's process of rank 1, if it runs."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    environments = {c: Path(f"/proc/{c}/environ").read_bytes().split(b"\0") for c in children}
    return next((int(c) for c, found in environments.items() if b"RANK=1" in found), None)


@pytest.mark.slow  # four processes start, one after another on two processors
def test_a_run_goes_on_when_a_rank_is_killed(tmp_path: Path) -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("processes are found in /proc")
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=2", "--monitor-interval=0.1"]
    command += ["-m", "pyro_dpvae", "train", *MOONS, *OFTEN, "--resume", str(run)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            until((run / "checkpoints" / "000000006").exists, process)
            os.kill(second_rank(process.pid) or 0, signal.SIGKILL)
            out, error = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, error
    assert out.count("held-out ELBO") == 1
    assert RunFolder(run).checkpoint("last").step == 60

    def uninterrupted() -> int:
        return main(["train", *MOONS, *OFTEN, "--out", str(whole)])

    assert on_ranks(2, uninterrupted, tmp_path) == [0, 0]
    assert records(run) == records(whole)
    last = [
        RunFolder(path).checkpoint("last").path / "weights.safetensors" for path in (run, whole)
    ]
    assert last[0].read_bytes() == last[1].read_bytes()
