"""Averages of weights, early stopping, learning rates and callbacks, each by itself."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training import AbstractCallback, TensorBoard, TrainConfig
from pyro_dpvae.training.average import Average
from pyro_dpvae.training.callbacks import Context
from pyro_dpvae.training.progress import Progress


def test_the_average_is_the_weighted_sum_that_its_recursion_means() -> None:
    """Against the sum written out, with the weight of each update the product of what follows."""
    layer = nn.Linear(2, 1).double()
    values = torch.randn(400, 3, dtype=torch.float64)
    average = Average({"model": layer}, decay=0.95)
    start = nn.utils.parameters_to_vector(layer.parameters()).detach().clone()
    for value in values:
        nn.utils.vector_to_parameters(value, layer.parameters())
        average.update()
    decays = [min(0.95, (1 + t) / (10 + t)) for t in range(len(values))]
    after = torch.tensor([*decays[1:], 1.0], dtype=torch.float64).flip(0).cumprod(0).flip(0)
    shares = (1 - torch.tensor(decays, dtype=torch.float64)) * after
    expected = shares @ values + torch.tensor(decays).double().prod() * start
    with average.in_use():
        found = nn.utils.parameters_to_vector(layer.parameters()).detach().clone()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        nn.utils.parameters_to_vector(layer.parameters()).detach(), values[-1]
    )


def test_an_average_goes_on_from_its_states_and_has_the_buffers_of_now() -> None:
    def made() -> tuple[nn.Module, Average]:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        return body, Average({"model": body, "guide": body[0]}, decay=0.9)

    def move(body: nn.Module, average: Average, seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.copy_(torch.randn_like(parameter))
        body(torch.randn(5, 2))
        average.update()

    body, average = made()
    move(body, average, 1)
    states = {name: part.state_dict() for name, part in average.parts().items()}
    twin, resumed = made()
    twin.load_state_dict(body.state_dict())
    for name, part in resumed.parts().items():
        part.load_state_dict(states[name])
    resumed.updates = average.updates
    for one, other in ((body, average), (twin, resumed)):
        move(one, other, 2)
    for name, part in average.parts().items():
        expected, found = part.state_dict(), resumed.parts()[name].state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert torch.equal(
        average.parts()["model"].state_dict()["1.running_mean"], body[1].running_mean
    )
    with pytest.raises(ValueError, match=r"1.weight .*\(3,\), got None"):
        resumed.parts()["model"].load_state_dict({f"0.{k}": t for k, t in expected.items()})
    with pytest.raises(ValueError, match="average_decay must lie between 0 and 1, got 1"):
        Average({"model": body}, decay=1)


def test_patience_counts_only_after_the_schedules() -> None:
    progress = Progress("loss", patience=2, begins=300)
    losses = {100: 1.0, 200: 2.0, 300: 9.0, 400: 8.0, 500: float("nan"), 600: 8.0}
    found = {}
    for step, loss in losses.items():
        state = progress.state_dict()
        progress = Progress("loss", patience=2, begins=300)  # as a resumed run has it
        progress.load_state_dict(state)
        found[step] = progress.observe(step, loss), progress.exhausted
    assert found == {
        100: (True, False),
        200: (True, False),
        300: (True, False),
        400: (True, False),
        500: (False, False),
        600: (False, True),
    }
    assert (progress.best_step, progress.best) == (400, 8.0)


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of TensorBoard's files as its own reader has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def write(
    callback: AbstractCallback,
    *,
    first: int,
    losses: dict[int, float],
    before: tuple[dict[str, Any], ...] = (),
) -> None:
    config = TrainConfig(steps=10)
    callback.started(
        Context(nn.Linear(1, 1), nn.Linear(1, 1), RegularizedELBO(), config, first, before)
    )
    if not first:
        callback.recorded({"step": 0, "objective": RegularizedELBO().settings})
    for step, loss in losses.items():
        callback.recorded({"step": step, "loss": loss, "backend": "fx"})
    callback.recorded({"step": step, "held_out": {"elbo": -loss}})
    callback.checkpointed(Path("nowhere"))
    callback.ended(None)


def test_tensorboard_reads_what_was_recorded_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    write(TensorBoard(tmp_path), first=0, losses={1: 5.0, 2: 4.0, 3: 99.0})
    write(TensorBoard(tmp_path), first=2, losses={3: 3.0, 4: 2.0})
    found = read(tmp_path)
    assert found["train/loss"] == [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0)]
    assert found["held_out/elbo"] == [(4, -2.0)]


def test_tensorboard_hides_a_run_that_starts_over_and_has_what_was_before_it(
    tmp_path: Path,
) -> None:
    killed = TensorBoard(tmp_path / "over")
    config = TrainConfig(steps=10)
    killed.started(Context(nn.Linear(1, 1), nn.Linear(1, 1), RegularizedELBO(), config, 0))
    killed.recorded({"step": 9, "loss": 99.0})
    killed.ended(None)
    write(TensorBoard(tmp_path / "over"), first=0, losses={1: 5.0})
    assert read(tmp_path / "over")["train/loss"] == [(1, 5.0)]
    before = ({"step": 0, "objective": {}}, {"step": 1, "loss": 5.0})
    write(TensorBoard(tmp_path / "late"), first=1, losses={2: 4.0}, before=before)
    assert read(tmp_path / "late")["train/loss"] == [(1, 5.0), (2, 4.0)]


def test_a_missing_tensorboard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "pyro-dpvae\[tensorboard\]"'):
        TensorBoard(tmp_path)
