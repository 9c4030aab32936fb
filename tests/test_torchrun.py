"""Commands by several processes: a run is that of one, and goes on when one is killed."""

import json
import os
import subprocess
import sys
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
from tests.saved import saved_weights
from tests.waiting import TIME_LIMIT

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
    assert message.startswith("dpvae train: error: --batch-size must be a multiple of the number")


def records(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


# What torchrun starts: the command, whose rank 1 kills itself once, after a checkpoint of step 6.
KILLED_ONCE = """
import os, runpy, signal
from pyro_dpvae.training.trainer import Trainer

follow = Trainer.after_step

def deadly(trainer, finite):
    if trainer.place.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return follow(trainer, finite)

if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
    Trainer.after_step = deadly
runpy.run_module("pyro_dpvae", run_name="__main__")
"""


@pytest.mark.slow  # four processes start, one after another on two processors
def test_a_run_goes_on_when_a_rank_is_killed(tmp_path: Path) -> None:
    run, whole, script = tmp_path / "run", tmp_path / "whole", tmp_path / "killed_once.py"
    script.write_text(KILLED_ONCE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=2", "--monitor-interval=0.1"]
    command += [str(script), "train", *MOONS, *OFTEN, "--resume", str(run)]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=TIME_LIMIT,
    )
    assert ended.returncode == 0, ended.stderr
    assert "goes on from step 6 of 60" in ended.stderr
    assert ended.stdout.count("held-out ELBO") == 1
    assert RunFolder(run).checkpoint("last").step == 60

    def uninterrupted() -> int:
        return main(["train", *MOONS, *OFTEN, "--out", str(whole)])

    assert on_ranks(2, uninterrupted, tmp_path) == [0, 0]
    assert records(run) == records(whole)
    assert saved_weights(run) == saved_weights(whole)
