"""Steps that are not finite: they have no effect, and say what they were."""

import json
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pyro_dpvae.inference import AccumulatingOptim, CapturedSVI, FusedOptim
from pyro_dpvae.objectives import FactorELBO, RegularizedELBO
from pyro_dpvae.objectives.penalties import AbstractPenalty
from pyro_dpvae.objectives.rates import SoftFreeBitsRate
from pyro_dpvae.training.guard import GuardedSteps, NonFiniteError
from tests.moons import moons_system

BAD = 4  # the number of the step with a batch that overflows


def batches() -> list[Tensor]:
    pyro.set_rng_seed(0)
    found = list(torch.randn(9, 16, 2))
    found[BAD][3] = 1e30
    return found


def guarded(
    objective: RegularizedELBO, *, backend: str = "fx", every: int = 1, **options: Any
) -> tuple[GuardedSteps, list[nn.Module]]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    system = moons_system()
    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Linear(8, 4))
    system.guide.encoder.network.body = network
    fused = FusedOptim({"lr": 1e-2}, skip_nonfinite=True)
    optim = AccumulatingOptim(fused, every) if every > 1 else fused
    svi = CapturedSVI(system.model, system.guide, optim, objective, backend=backend)
    return GuardedSteps(svi, fused, **options), [system.model, system.guide]


def state(modules: list[nn.Module], objective: RegularizedELBO) -> list[Tensor]:
    tensors = [t.clone() for module in modules for t in module.state_dict().values()]
    return [*tensors, *(part.clone() for part in objective.rate.state_dict().values())]


@pytest.mark.parametrize("backend", ["eager", "fx"])
def test_a_step_that_is_left_out_leaves_no_trace(backend: str) -> None:
    """Weights, Adam's moments, running means and gamma: as if the batch had not been."""
    ends = []
    for without in (False, True):
        objective = RegularizedELBO(rate=SoftFreeBitsRate(0.5))
        steps, modules = guarded(objective, backend=backend, policy="skip")
        for number, x in enumerate(batches()):
            if without and number == BAD:
                continue
            pyro.set_rng_seed(number)
            if number == BAD:
                with pytest.warns(UserWarning, match="step 5 is skipped because the loss is"):
                    assert not steps.take(number + 1, x)
            else:
                assert steps.take(number + 1, x)
        ends.append(state(modules, objective))
        assert steps.left_out == (0 if without else 1)
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)
        assert bool(one.isfinite().all())


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # as fit has it
@pytest.mark.parametrize("value", [1e30, torch.nan])
@pytest.mark.parametrize("backend", ["eager", "fx"])
def test_an_adversary_learns_nothing_from_a_step_that_is_left_out(
    value: float, backend: str
) -> None:
    objective = FactorELBO(2.0, latent_dim=2, hidden=(8,))
    steps, _ = guarded(objective, backend=backend, policy="skip")
    for number, x in enumerate(batches()):
        before = {k: t.clone() for k, t in objective.state_dict().items() if k != "step"}
        if number == BAD:
            with pytest.warns(UserWarning, match="is skipped"):
                assert not steps.take(number + 1, torch.where(x > 1e20, value, x))
        else:
            assert steps.take(number + 1, x)
        after = objective.state_dict()
        kept = all(torch.equal(t, after[k]) for k, t in before.items())
        assert kept == (number == BAD)


@pytest.mark.parametrize("backend", ["eager", "fx"])
def test_a_run_that_stops_says_where_and_keeps_the_batch(tmp_path: Path, backend: str) -> None:
    objective = RegularizedELBO()
    steps, modules = guarded(objective, backend=backend, folder=tmp_path)
    given = batches()
    for number, x in enumerate(given[:BAD]):
        steps.take(number + 1, x)
    before = state(modules, objective)
    with pytest.raises(NonFiniteError) as caught:
        steps.take(BAD + 1, given[BAD])
    message = str(caught.value)
    assert "diverged at step 5: the loss is inf" in message
    assert "distortion is inf" in message
    assert "the first site is 'x', whose log density is not finite" in message
    assert "gradients are not finite for model.decoder" in message
    assert "; items [3] of the batch are extreme. The weights" in message
    assert f"{tmp_path / 'step-5.safetensors'}; lower learning_rate" in message
    assert "nonfinite='skip'" in message
    assert message.endswith(str(tmp_path.parent))
    for one, other in zip(before, state(modules, objective), strict=True):
        assert torch.equal(one, other)
    kept = load_file(tmp_path / "step-5.safetensors")
    assert torch.equal(kept["batch"], given[BAD])
    said = json.loads((tmp_path / "step-5.json").read_text())
    assert said["step"] == 5
    assert said["terms"]["distortion"] == "inf"
    assert isinstance(said["terms"]["rate"], float)


def test_a_batch_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    steps, _ = guarded(RegularizedELBO(), backend="eager", folder=tmp_path / "file")
    given = batches()
    steps.take(1, given[0])
    with pytest.raises(
        NonFiniteError, match=r"the loss is inf.*the batch could not be written \(.*a file"
    ):
        steps.take(2, given[BAD])


def test_a_penalty_that_is_not_finite_is_named() -> None:
    class Overflow(AbstractPenalty):
        def __init__(self) -> None:
            super().__init__(overflow=1.0)

        def forward(self, latents: Any) -> dict[str, Tensor]:
            return {"overflow": (1e3 * latents.value.square().mean()).exp()}

    steps, _ = guarded(RegularizedELBO(penalties=[Overflow()]))
    with pytest.raises(NonFiniteError, match=r"overflow is inf; gradients are not"):
        steps.take(1, torch.randn(16, 2))


def test_skipping_ends_after_twenty_in_a_row() -> None:
    steps, _ = guarded(RegularizedELBO(), policy="skip")
    x = batches()
    given = [*x[:3], *[x[BAD]] * 19]
    with pytest.warns(UserWarning, match="is skipped"):
        assert sum(steps.take(number + 1, x) for number, x in enumerate(given)) == 3
    with pytest.raises(NonFiniteError, match=r"at step 23 \(after 19 others in a row\)"):
        steps.take(23, x[BAD])


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="nonfinite must be one of skip, stop; got 'ignore'"):
        guarded(RegularizedELBO(), policy="ignore")


class BadGradient(torch.autograd.Function):
    """The identity, of which one gradient is NaN."""

    calls = 0

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        BadGradient.calls += 1
        return gradients[0] * (torch.nan if BadGradient.calls == BAD + 1 else 1.0)


@pytest.mark.parametrize("kind", ["gradient", "raises"])
@pytest.mark.filterwarnings("ignore:step 5 is skipped")
def test_a_step_that_is_left_out_is_none_of_an_update(kind: str) -> None:
    """Sums, moments and running means: as if the batch had not been, whatever was wrong."""
    ends = []
    for without in (False, True):
        steps, modules = guarded(RegularizedELBO(), backend="eager", policy="skip", every=3)
        body = modules[1].encoder.network.body
        assert isinstance(body, nn.Sequential)
        whole = body.forward
        BadGradient.calls = 99 if without else 0
        for number, x in enumerate(batches()):
            bad = number == BAD
            if without and bad:
                continue
            pyro.set_rng_seed(number)
            x = x.clamp(-5, 5)

            def forward(x: Tensor, bad: bool = bad, whole: Any = whole) -> Tensor:
                if kind == "gradient":
                    return BadGradient.apply(whole(x))
                if bad:
                    whole(x)
                    raise ValueError("it must satisfy the constraint")
                return whole(x)

            body.forward = forward
            assert steps.take(number + 1, x) != bad
        assert steps.left_out == (0 if without else 1)
        ends.append(state(modules, RegularizedELBO()))
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def test_of_summed_gradients_the_step_that_is_not_finite_is_named(tmp_path: Path) -> None:
    steps, modules = guarded(RegularizedELBO(), backend="eager", folder=tmp_path, every=4)
    body = modules[1].encoder.network.body
    whole = body.forward
    body.forward = lambda x: BadGradient.apply(whole(x))
    BadGradient.calls = 0
    given = [x.clamp(-5, 5) for x in batches()]
    for number, x in enumerate(given[:BAD]):
        steps.take(number + 1, x)
    with pytest.raises(NonFiniteError, match="diverged at step 5: gradients are not"):
        steps.take(BAD + 1, given[BAD])
    assert torch.equal(load_file(tmp_path / "step-5.safetensors")["batch"], given[BAD])
