"""The fused optimizer, against Pyro's own."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_dpvae.inference import AccumulatingOptim, CapturedSVI, FusedOptim
from pyro_dpvae.models import VAE
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.priors import CouplingPrior
from tests.linear_gaussian import LATENT, LinearGaussian


def by_name(name: str) -> dict[str, Any]:
    return {"lr": 1e-2 if "prior" in name else 1e-3, "betas": (0.8, 0.99)}


def trained(
    optimizer: Callable[[], PyroOptim], *, steps: int = 5, first: PyroOptim | None = None
) -> tuple[list[Tensor], PyroOptim]:
    """Parameters of model and guide after some steps from one start."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    model = VAE(CouplingPrior(LATENT).double(), copy.deepcopy(exact.model.decoder))
    optim = optimizer() if first is None else first
    svi = SVI(model, exact.guide, optim, loss=RegularizedELBO())
    for seed in range(steps):
        pyro.set_rng_seed(seed)
        svi.step(exact.data(8))
    return [p.detach() for p in [*model.parameters(), *exact.guide.parameters()]], optim


@pytest.mark.parametrize(
    ("ours", "pyros"),
    [
        (lambda: FusedOptim({"lr": 1e-2}), lambda: pyro.optim.Adam({"lr": 1e-2})),
        (lambda: FusedOptim(by_name), lambda: pyro.optim.Adam(by_name)),
        (
            lambda: FusedOptim({"lr": 1e-2}, constructor=torch.optim.AdamW),
            lambda: pyro.optim.AdamW({"lr": 1e-2}),
        ),
        (
            lambda: FusedOptim({"lr": 1e-3, "momentum": 0.9}, constructor=torch.optim.SGD),
            lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9}),
        ),
        (
            lambda: FusedOptim({"lr": 1e-2}, constructor=torch.optim.RMSprop),
            lambda: pyro.optim.RMSprop({"lr": 1e-2}),
        ),
        (
            lambda: FusedOptim({"lr": 1e-2}, constructor=torch.optim.Adamax, skip_nonfinite=True),
            lambda: pyro.optim.Adamax({"lr": 1e-2}),
        ),
        (
            lambda: FusedOptim({"lr": 1e-2}, clip_args={"clip_norm": 0.1}),
            lambda: pyro.optim.Adam({"lr": 1e-2}, {"clip_norm": 0.1}),
        ),
    ],
    ids=["adam", "by-name", "adamw", "sgd", "rmsprop", "adamax", "clipped"],
)
def test_the_steps_are_pyros(
    ours: Callable[[], PyroOptim], pyros: Callable[[], PyroOptim]
) -> None:
    found, optim = trained(ours)
    expected, _ = trained(pyros)
    start, _ = trained(ours, steps=0)
    for one, other, before in zip(found, expected, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert not torch.equal(one, before)
    assert isinstance(optim, FusedOptim)
    assert optim.optimizer is not None
    grouped = [len(group["params"]) for group in optim.optimizer.param_groups]
    assert sum(grouped) == len(found)
    assert len(grouped) == (2 if ours().pt_optim_args is by_name else 1)


MAKE: dict[str, Callable[[], PyroOptim]] = {
    "ours": lambda: FusedOptim({"lr": 1e-2}),
    "pyros": lambda: pyro.optim.Adam({"lr": 1e-2}),
}


def after_two_halves(first: str, second: str | None) -> list[Tensor]:
    """Parameters after three steps, and three more with the state in another optimizer."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    batches = [exact.data(8) for _ in range(6)]
    optim = MAKE[first]()
    for half in (batches[:3], batches[3:]):
        if half[0] is batches[3] and second is not None:
            state = copy.deepcopy(optim.get_state())
            optim = MAKE[second]()
            optim.set_state(state)
        svi = SVI(exact.model, exact.guide, optim, loss=RegularizedELBO())
        for x in half:
            svi.step(x)
    return [p.detach() for p in [*exact.model.parameters(), *exact.guide.parameters()]]


@pytest.mark.parametrize(
    ("first", "second"), [("ours", "ours"), ("ours", "pyros"), ("pyros", "ours"), ("ours", None)]
)
def test_a_state_goes_on_in_either(first: str, second: str | None) -> None:
    found, expected = after_two_halves(first, second), after_two_halves("pyros", None)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_state_is_taken_on_in_the_middle() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    pyro.get_param_store().setdefault("p", parameter)
    (unconstrained,) = (p.unconstrained() for p in [pyro.param("p")])

    def step(optim: PyroOptim, gradient: float) -> None:
        unconstrained.grad = torch.full((2,), gradient)
        optim([unconstrained])

    optim = FusedOptim({"lr": 0.1})
    step(optim, 1.0)
    state = copy.deepcopy(optim.get_state())
    value = unconstrained.detach().clone()
    step(optim, 5.0)
    after = unconstrained.detach().clone()
    for _ in range(3):
        step(optim, -2.0)
    optim.set_state(state)
    unconstrained.data.copy_(value)
    step(optim, 5.0)
    torch.testing.assert_close(unconstrained.detach(), after)
    state["p"]["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"the state of 'p' has the wrong shape: exp_.*\(2,\)"):
        optim.set_state(state)


def test_a_state_brings_its_learning_rate() -> None:
    steps = []
    for make in (lambda: FusedOptim({"lr": 0.1}), lambda: pyro.optim.Adam({"lr": 0.1})):
        pyro.clear_param_store()
        pyro.get_param_store().setdefault("p", torch.tensor([1.0]))
        pyro.get_param_store().setdefault("q", torch.tensor([1.0]))
        both = [pyro.param(name).unconstrained() for name in "pq"]
        state: Any = None
        for rate in (None, 1e-3):
            optim = make()
            if state is not None:
                state["p"]["param_groups"][0]["lr"] = rate
                optim.set_state(state)
            for one in both:
                one.grad = torch.ones(1)
            optim(both)
            state = copy.deepcopy(optim.get_state())
        steps.append([float(one.detach()) for one in both])
        assert state["p"]["param_groups"][0]["lr"] == 1e-3
        assert state["q"]["param_groups"][0]["lr"] == 0.1
    assert steps[0] == pytest.approx(steps[1])


def test_the_norm_of_all_gradients_is_clipped() -> None:
    """Against torch's own clipping of the same gradients, in a fused and an unfused optimizer."""
    for constructor in (torch.optim.SGD, torch.optim.RMSprop):
        pyro.clear_param_store()
        for name in "ab":
            pyro.get_param_store().setdefault(name, torch.zeros(2))
        params = [pyro.param(name).unconstrained() for name in "ab"]
        twins = [torch.nn.Parameter(torch.zeros(2)) for _ in params]
        optim = FusedOptim({"lr": 0.1}, constructor=constructor, max_norm=5)
        oracle = constructor(twins, lr=0.1)  # type: ignore[call-arg]  # the base names no lr
        for size in (1.0, 4.0, 0.1):
            for number, (one, twin) in enumerate(zip(params, twins, strict=True)):
                one.grad = torch.full((2,), size * (3 + number))
                twin.grad = one.grad.clone()
            torch.nn.utils.clip_grad_norm_(twins, 5.0)
            optim(params)
            oracle.step()
        for one, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(one, twin)
    with pytest.raises(ValueError, match="max_norm must be positive and finite, got 0"):
        FusedOptim({"lr": 0.1}, max_norm=0)


def test_a_learning_rate_that_is_set_holds_for_parameters_to_come() -> None:
    for name in "ab":
        pyro.get_param_store().setdefault(name, torch.zeros(()))
    a, b = (pyro.param(name).unconstrained() for name in "ab")
    optim = FusedOptim({"lr": 1.0}, constructor=torch.optim.SGD)
    for params, rate in (([a], None), ([a, b], 0.5), ([a, b], 0.25)):
        if rate is not None:
            optim.set_learning_rate(rate)
        for one in params:
            one.grad = torch.ones(())
        optim(params)
    assert [one.item() for one in (a, b)] == [-1.75, -0.75]
    assert optim.optimizer is not None
    assert len(optim.optimizer.param_groups) == 1
    with pytest.raises(ValueError, match="learning rate must be 0 or more and finite, got nan"):
        optim.set_learning_rate(float("nan"))


def fixed_noise_steps(batches: list[Tensor], every: int, *, halfway: bool = False) -> list[Tensor]:
    """Parameters after steps of plain SVI on batches, the noise of each its own seed."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    exact = LinearGaussian()
    noise = torch.zeros(())

    def guide(x: Tensor) -> None:
        pyro.module("guide", exact.guide)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(exact.guide.encoder(x).mean + noise, event_dim=1))

    def optimizer() -> PyroOptim:
        return AccumulatingOptim(FusedOptim({"lr": 1e-2}, max_norm=1.0), every)

    optim = optimizer()
    svi = SVI(exact.model, guide, optim, loss=pyro.infer.Trace_ELBO())
    for number, x in enumerate(batches):
        if halfway and number == len(batches) // 2:
            state = copy.deepcopy(optim.get_state())
            svi.optim = optim = optimizer()
            optim.set_state(state)
        svi.step(x)
    return [p.detach() for p in [*exact.model.parameters(), *exact.guide.parameters()]]


def test_k_batches_of_b_data_are_one_batch_of_kb() -> None:
    pyro.set_rng_seed(1)
    data = LinearGaussian().data(90)
    found = fixed_noise_steps(list(data.split(10)), 3)
    resumed = fixed_noise_steps(list(data.split(10)), 3, halfway=True)  # between updates
    for one, other, start in zip(
        found, fixed_noise_steps(list(data.split(30)), 1), fixed_noise_steps([], 1), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert not torch.equal(one, start)
    assert all(torch.equal(one, other) for one, other in zip(found, resumed, strict=True))


def test_a_parameter_that_few_of_the_summed_steps_move_is_updated() -> None:
    for name in "ab":
        pyro.get_param_store().setdefault(name, torch.zeros(()))
    a, b = (pyro.param(name).unconstrained() for name in "ab")
    optim = AccumulatingOptim(FusedOptim({"lr": 1.0}, constructor=torch.optim.SGD), 2)
    a.grad, b.grad = torch.ones(()), torch.ones(())
    optim([a, b])
    a.grad = torch.ones(())
    optim([a])
    assert [one.item() for one in (a, b)] == [-2.0, -1.0]
    assert optim.pending == 0


@pytest.mark.parametrize("svi", [SVI, partial(CapturedSVI, backend="eager")])
def test_a_gradient_of_an_earlier_step_counts_once(svi: Any) -> None:
    """By hand: the gradient of (a + f b - 5)^2 / 2, summed over two steps, with a rate of 0.1."""

    def model(flag: bool) -> None:
        a = pyro.param("a", torch.tensor(1.0))
        b = pyro.param("b", torch.tensor(1.0)) if flag else torch.tensor(0.0)
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=torch.tensor(5.0))

    def guide(flag: bool) -> None:
        pass

    pyro.clear_param_store()
    optim = AccumulatingOptim(FusedOptim({"lr": 0.1}, constructor=torch.optim.SGD), 2)
    steps = svi(model, guide, optim, loss=pyro.infer.Trace_ELBO())
    a, b = 1.0, 1.0
    for _ in range(3):
        for flag in (True, False):
            steps.step(flag)
        errors = a + b - 5, a - 5
        a, b = a - 0.1 * sum(errors), b - 0.1 * errors[0]
        found = [pyro.param(name).item() for name in "ab"]
        assert found == pytest.approx([a, b])
        assert pyro.param("b").unconstrained().grad is None


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("constructor", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_momentum_starts_with_the_first_gradient_that_is_taken(
    constructor: Any, late: bool
) -> None:
    """As by torch's own optimizer for each parameter, without the step that is skipped."""
    options = {"lr": 0.1, **({} if constructor is torch.optim.Adam else {"momentum": 0.9})}
    size = 1000
    waste = [torch.full((size,), 1e6) for _ in range(200)]
    del waste  # so that memory that is not initialised holds these
    pyro.clear_param_store()
    for name in "ab":
        pyro.get_param_store().setdefault(name, torch.ones(size))
    a, b = (pyro.param(name).unconstrained() for name in "ab")
    optim = FusedOptim(options, constructor=constructor, skip_nonfinite=not late)
    alone = [torch.ones(size, requires_grad=True) for _ in "ab"]
    oracles = [constructor([one], **options) for one in alone]
    for step in range(4):
        bad = step == 0 and not late
        gradients = [torch.full((size,), torch.nan if bad else 1.0), torch.full((size,), 0.5)]
        taken = [True, not (late and step == 0)]
        for mine, gradient, takes in zip((a, b), gradients, taken, strict=True):
            mine.grad = gradient.clone() if takes else None
        optim([one for one in (a, b) if one.grad is not None])
        for one, oracle, gradient, takes in zip(alone, oracles, gradients, taken, strict=True):
            if takes and not bad:
                one.grad = gradient.clone()
                oracle.step()
    for mine, one in zip((a, b), alone, strict=True):
        torch.testing.assert_close(mine.detach(), one.detach())


def test_fused_momentum_that_may_be_skipped_is_refused() -> None:
    pyro.clear_param_store()
    pyro.get_param_store().setdefault("a", torch.ones(2))
    options = {"lr": 0.1, "momentum": 0.9, "fused": True}
    optim = FusedOptim(options, constructor=torch.optim.SGD, skip_nonfinite=True)
    a = pyro.param("a").unconstrained()
    a.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"momentum cannot skip a step.* leave fused out"):
        optim([a])


def test_tensors_outside_the_store_are_refused() -> None:
    pyro.clear_param_store()
    one = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"of shape \(2,\) that is not there; register it"):
        FusedOptim({"lr": 0.1})([one])


def test_parameters_of_a_cleared_store_are_forgotten() -> None:
    optim = FusedOptim({"lr": 0.1})
    for value in (1.0, 2.0, 3.0):
        pyro.clear_param_store()
        pyro.get_param_store().setdefault("p", torch.tensor([value]))
        one = pyro.param("p").unconstrained()
        one.grad = torch.ones(1)
        optim([one])
        assert float(one.detach()) == pytest.approx(value - 0.1)
    assert optim.optimizer is not None
    assert sum(len(group["params"]) for group in optim.optimizer.param_groups) == 1
    assert len(optim.optimizer.state) == 1


def test_parameters_come_and_go() -> None:
    def model(extra: bool) -> None:
        a = pyro.param("a", torch.tensor(1.0))
        b = pyro.param("b", torch.tensor(1.0)) if extra else torch.tensor(0.0)
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=torch.tensor(5.0))

    def guide(extra: bool) -> None:
        pass

    values = []
    for optim in (FusedOptim({"lr": 0.1}), pyro.optim.Adam({"lr": 0.1})):
        pyro.clear_param_store()
        svi = SVI(model, guide, optim, loss=pyro.infer.Trace_ELBO())
        for extra in (False, True, False, False, True):
            before = pyro.param("b").item() if "b" in pyro.get_param_store() else None
            svi.step(extra)
            if not extra and before is not None:
                assert pyro.param("b").item() == before
        values.append([pyro.param(name).item() for name in ("a", "b")])
    assert values[0] == pytest.approx(values[1])


def test_every_parameter_of_model_and_guide_is_stepped() -> None:
    found, optim = trained(lambda: FusedOptim({"lr": 1e-2}), steps=1)
    assert isinstance(optim, FusedOptim)
    assert len(optim.get_state()) == len(found)
    assert all(entry["state"] for entry in optim.get_state().values())


@pytest.mark.parametrize(
    "constructor",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.SGD,
        torch.optim.Adamax,
        partial(torch.optim.Adam, fused=False),
    ],
)
def test_steps_with_nonfinite_gradients_are_left_out(constructor: Any) -> None:
    """Steps 2 and 4 have a NaN and an infinity; the others go as if there were no such steps."""
    ends = []
    for guarded in (True, False):
        pyro.clear_param_store()
        pyro.get_param_store().setdefault("a", torch.tensor([1.0, 2.0]))
        pyro.get_param_store().setdefault("b", torch.tensor(3.0))
        a, b = (pyro.param(name).unconstrained() for name in ("a", "b"))
        optim = FusedOptim(
            {"lr": 0.1, "weight_decay": 0.1}, constructor=constructor, skip_nonfinite=guarded
        )
        for step in range(6):
            if step in (2, 4) and not guarded:
                continue
            a.grad = torch.tensor([step + 1.0, float("nan") if step == 2 else -1.0])
            b.grad = torch.tensor(float("inf") if step == 4 else 0.5)
            optim([a, b])
        ends.append(torch.cat([a.detach(), b.detach().reshape(1)]))
        assert optim.skipped == (2 if guarded else 0)
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize("backend", ["eager", "fx"])
def test_a_loss_that_is_not_finite_leaves_a_step_out_whatever_its_gradients(backend: str) -> None:
    shift = torch.zeros(())

    def model() -> None:
        a = pyro.param("a", torch.tensor(1.0))
        pyro.factor("shift", shift)
        pyro.sample("x", dist.Normal(a, 1.0), obs=torch.tensor(0.0))

    def guide() -> None:
        pass

    pyro.enable_validation(False)
    optim = FusedOptim({"lr": 0.1}, skip_nonfinite=True)
    svi = CapturedSVI(model, guide, optim, pyro.infer.Trace_ELBO(), backend=backend)
    for _ in range(4):
        svi.step()
    before = pyro.param("a").item()
    shift.fill_(float("inf"))
    svi.step()
    assert pyro.param("a").item() == before
    assert optim.skipped == 1
    shift.fill_(0.0)
    svi.step()
    assert pyro.param("a").item() < before
