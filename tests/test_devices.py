"""Which device a run uses, for all commands, examples and ``fit`` alike."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pyro_dpvae import _devices
from pyro_dpvae._devices import choose_device, own_device
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae._ranks import Ranks
from pyro_dpvae.cli import main
from pyro_dpvae.cli.options import parsed
from pyro_dpvae.data import Batches, load
from pyro_dpvae.recipes import build_system
from pyro_dpvae.training import TrainConfig, fit, fitting

ROOT = Path(__file__).parents[1]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHORT = ["--steps", "2", "--backend", "eager", "--batch-size", "20", "--prior", "standard"]


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let PyTorch find so many GPUs."""
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch, "empty", lambda *size, device: empty(*size))


@pytest.mark.parametrize(("count", "expected"), [(0, CPU), (1, CUDA), (2, CUDA)])
def test_auto_is_a_gpu_where_there_is_one(
    count: int, expected: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    assert choose_device() == choose_device("auto") == expected
    assert choose_device("cpu") == CPU
    assert choose_device("auto", present=CPU) == expected
    assert choose_device("auto", present=torch.device("cuda:1")) == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("backend", "count", "expected"),
    [
        ("cpu:gloo,cuda:nccl", 2, "cuda:1"),
        ("cpu:gloo,cuda:nccl", 1, "cpu"),  # one for two processes
        ("cpu:gloo,cuda:gloo", 2, "cpu"),
    ],
)
def test_auto_gives_each_process_a_gpu_or_none(
    backend: str, count: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setattr(_devices, "ranks", lambda: Ranks(1, 2))
    monkeypatch.setattr(dist, "get_backend_config", lambda: backend)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert choose_device() == torch.device(expected)
    with pytest.raises(ValueError, match="cuda:0 is not the GPU of process 1"):
        choose_device("cuda:0")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    message = f"device must be auto, cpu, or a device .*; got '{name}': .*; use auto"
    with pytest.raises(ValueError, match=message):
        choose_device(name)


def test_a_device_is_set_where_it_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_device(device: torch.device) -> None:  # as torch's own
        if device.index is None:
            raise ValueError("Expected a torch.device with a specified index")
        chosen.append(device.index)

    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    assert own_device(torch.device("cuda")) == torch.device("cuda")
    assert own_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert chosen == [1]


def test_commands_and_examples_default_to_auto() -> None:
    for command in ("encode", "evaluate", "explore", "interpolate", "plot", "sample"):
        assert parsed(command, ["run"]).device == "auto"
    found = {}
    for path in ROOT.glob("examples/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") == "add_argument"
                and getattr(node.args[0], "value", "") == "--device"
            ):
                defaults = [one.value for one in node.keywords if one.arg == "default"]
                found[path.relative_to(ROOT).as_posix()] = ast.literal_eval(defaults[0])
    assert found == {"examples/common.py": "auto"}


def test_fit_moves_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("two-moons")
    system = build_system(
        (2,),
        latent_dim=2,
        dataset_size=2000,
        prior={"name": "coupling"},
        likelihood={"name": "gaussian"},
        network={"name": "moons"},
        guide={"name": "amortized"},
        objective={"name": "factor"},
    )
    batches = Batches(data.train, batch_size=100, preprocessing="none")
    found: dict[str, Any] = {}

    class Enough(Exception):
        pass

    def trainer(model: nn.Module, guide: nn.Module, **parts: Any) -> None:
        found.update(model=model, guide=guide, **parts)
        raise Enough

    monkeypatch.setattr(fitting, "Trainer", trainer)
    monkeypatch.setattr(fitting, "check_run", lambda *parts, **options: [])
    # Any device but the CPU will do: this one is on every machine.
    monkeypatch.setattr(fitting, "choose_device", lambda device, present: torch.device("meta"))
    with pytest.raises(Enough):
        fit(
            system.model,
            system.guide,
            objective=system.objective,
            train=batches,
            test=batches,
            config=TrainConfig(steps=2),
        )
    adversary = found["objective"].penalties[0]
    for module in (found["model"], found["guide"], adversary):
        assert {tensor.device.type for tensor in module.parameters()} == {"meta"}
    for part in (found["train"], found["test"]):
        assert part.device.type == "meta"
        assert part._data.is_meta
    assert batches.device == CPU
    assert not batches._data.is_meta  # type: ignore[union-attr]


def test_a_run_keeps_what_was_asked_and_resumes_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = tmp_path / "run"
    assert main(["train", "--data", "two-moons", *SHORT, "--out", str(run)]) == 0
    assert "on cpu (chosen by --device auto)\n" in capsys.readouterr().err
    config = json.loads((run / "config.json").read_text())
    assert config["device"] == "auto"
    (run / "config.json").write_text(json.dumps(config | {"device": "cuda:99"}))
    resume = ["train", "--resume", str(run), "--steps", "4"]
    assert main(resume) == 2
    assert "got 'cuda:99'" in capsys.readouterr().err
    assert main([*resume, "--device", "auto"]) == 0
    assert main(["sample", str(run), "--number", "4"]) == 0
    assert "device: cpu (chosen by --device auto)\n" in capsys.readouterr().err
    assert main(["sample", str(run), "--number", "4", "--device", "cpu"]) == 0
    assert "device:" not in capsys.readouterr().err


def test_a_fork_of_random_states_seeds_no_device_that_starts_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch keeps a seed for CUDA until it starts, which would be the fork's for good."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    for seed in (3, 2**64 - 1):
        with forked_rng(seed):
            drawn = torch.rand(4)
        assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == []
