"""What a recording depends on is seen, what it cannot hold is refused, trials leave no trace."""

import copy
import itertools
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.recording import NotRecordableError, Reach, record_aside, survey
from pyro_dpvae.recording.graph import record

STEPS = 30


def batches(steps: int = STEPS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(16, 2, generator=generator) for _ in range(steps)]


class Program:
    """A VAE in Pyro's style; ``weight`` scales what is observed, at each step."""

    def __init__(self, weight: Callable[[], Any]) -> None:
        self.encoder, self.decoder = nn.Linear(2, 4), nn.Linear(2, 2)
        self.weight = weight

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.scale(scale=self.weight()):
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        loc, raw = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def steps(
    kind: type[SVI], make: Callable[[], tuple[Program, Callable[[int], None]]]
) -> tuple[list[float], SVI]:
    """The losses of a program that is changed before each step."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    program, change = make()
    svi = kind(program.model, program.guide, FusedOptim({"lr": 1e-2}), Trace_ELBO())
    pyro.set_rng_seed(1)
    losses = []
    for number, x in enumerate(batches()):
        change(number)
        losses.append(svi.step(x))
    return losses, svi


class Schedule:
    factor = 1.0

    def __init__(self) -> None:
        self.values = {"weight": [1.0, 1.0]}
        self.scalar = np.float64(1.0)

    def __call__(self) -> float:
        return self.values["weight"][0] * float(self.scalar) * self.factor


def in_an_object() -> tuple[Program, Callable[[int], None]]:
    schedule = Schedule()

    def change(number: int) -> None:
        schedule.values["weight"][0] = 1.0 + (number > 10)
        schedule.scalar = np.float64(1.0 + (number > 20))

    return Program(schedule), change


def of_a_class() -> tuple[Program, Callable[[int], None]]:
    def change(number: int) -> None:
        Schedule.factor = 1.0 + (number > 10)

    return Program(Schedule()), change


def in_a_closure() -> tuple[Program, Callable[[int], None]]:
    weight: Any = 1.0

    def change(number: int) -> None:
        nonlocal weight
        weight = 1.0 + (number > 10) if number < 20 else torch.tensor(3.0)

    return Program(lambda: weight), change


def in_a_default() -> tuple[Program, Callable[[int], None]]:
    holder = SimpleNamespace(weight=1.0)

    def weight(of: SimpleNamespace = holder) -> float:
        return of.weight

    def change(number: int) -> None:
        holder.weight = 1.0 + (number > 10)

    return Program(weight), change


_global = 1.0


def under_a_global_name() -> tuple[Program, Callable[[int], None]]:
    def change(number: int) -> None:
        global _global
        _global = 1.0 + (number > 10)

    return Program(lambda: next(_global for _ in range(1))), change


settings = SimpleNamespace(weight=1.0)


def in_a_global_object() -> tuple[Program, Callable[[int], None]]:
    def change(number: int) -> None:
        settings.weight = 1.0 + (number > 10)

    return Program(lambda: settings.weight), change


def in_an_array() -> tuple[Program, Callable[[int], None]]:
    weights = np.ones(3)

    def change(number: int) -> None:
        weights[1] = 1.0 + (number > 10)

    return Program(lambda: float(weights[1])), change


def of_a_distribution() -> tuple[Program, Callable[[int], None]]:
    law = dist.Normal(0.0, 1.0)

    def change(number: int) -> None:
        if number == 10:
            law.scale = torch.tensor(2.0)

    return Program(lambda: law.scale), change


def of_another_class() -> tuple[Program, Callable[[int], None]]:
    class One:
        def __call__(self) -> float:
            return 1.0

    class Two:
        def __call__(self) -> float:
            return 2.0

    held = [One()]

    def change(number: int) -> None:
        held[0] = One() if number < 10 else Two()  # type: ignore[call-overload]

    return Program(lambda: held[0]()), change


def in_a_tensor() -> tuple[Program, Callable[[int], None]]:
    weight = torch.tensor(1.0)
    return Program(lambda: weight), lambda number: weight.fill_(1.0 + number) and None


def by_an_index() -> tuple[Program, Callable[[int], None]]:
    weights, index = torch.arange(1.0, STEPS + 1), torch.tensor(0)
    return Program(lambda: weights.index_select(0, index)[0]), lambda n: index.fill_(n) and None


@pytest.mark.parametrize(
    "make",
    [
        in_an_object,
        of_a_class,
        in_a_closure,
        in_a_default,
        under_a_global_name,
        in_a_global_object,
        in_an_array,
        of_a_distribution,
        of_another_class,
        in_a_tensor,
        by_an_index,
    ],
)
def test_what_changes_is_seen_wherever_it_is(
    make: Callable[[], tuple[Program, Callable[[int], None]]],
) -> None:
    expected, _ = steps(SVI, make)
    found, svi = steps(CapturedSVI, make)
    assert found == pytest.approx(expected, rel=1e-5)
    assert svi.recordings >= 1


def frozen_in_a_list() -> tuple[Program, Callable[[int], None]]:
    program = Program(lambda: 1.0)
    norms = [nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Dropout(0.5))]
    program.weight = lambda: norms[0](torch.ones(2, 2)).square().sum() + 1.0
    return program, lambda number: norms[0].train(number < 15) and None


class Trainer:
    """Model and guide are methods beside what a training loop keeps."""

    def __init__(self) -> None:
        self.program = Program(lambda: self.beta)
        self.beta, self.step, self.history = 1.0, 0, [0.0]

    def model(self, x: Tensor) -> None:
        self.program.model(x)

    def guide(self, x: Tensor) -> None:
        self.program.guide(x)

    def train(self, svi: SVI, x: Tensor) -> float:
        self.step += 1
        self.beta = getattr(self, "beta") if self.step < 20 else 2.0  # noqa: B009
        self.history.append(svi.step(x))
        return self.history[-1]


def test_what_a_program_does_not_ask_for_may_change() -> None:
    def losses(kind: type[SVI]) -> tuple[list[float], SVI]:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        trainer = Trainer()
        svi = kind(trainer.model, trainer.guide, FusedOptim({"lr": 1e-2}), Trace_ELBO())
        return [trainer.train(svi, x) for x in batches(50)], svi

    found, svi = losses(CapturedSVI)
    assert found == pytest.approx(losses(SVI)[0], rel=1e-5)
    assert svi.recordings == 2  # of both values of beta


def test_modules_are_found_in_containers() -> None:
    expected, _ = steps(SVI, frozen_in_a_list)
    found, svi = steps(CapturedSVI, frozen_in_a_list)
    assert found == pytest.approx(expected, rel=1e-5)
    assert svi.recordings == 1  # and the other mode has run fewer steps


# What no recording can hold.

index, weights = torch.tensor(1), torch.tensor([1.0, 2.0, 3.0])


class Turning:
    """A callable that changes what it holds."""

    def __init__(self, change: Callable[["Turning"], Any]) -> None:
        self.change, self.count, self.average = change, 0, torch.zeros(())
        self.generator = torch.Generator().manual_seed(0)
        self.history: list[float] = []

    def __call__(self) -> Any:
        self.change(self)
        return 1.0 + self.average + self.count % 3


def flipping(turning: Turning) -> None:
    turning.count = 1 - turning.count


def counting(turning: Turning) -> None:
    turning.count += 1


def rebinding(turning: Turning) -> None:
    turning.average = turning.average * 0.9 + 0.1


def remembering(turning: Turning) -> None:
    turning.history.append(1.0)


def storing(turning: Turning) -> None:
    pyro.get_param_store()["stored"] = torch.tensor(2.0)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "index": (lambda: weights[index], r"asks for the value of a tensor, by aten\._local_scalar"),
    "slice": (lambda: weights[:index].sum(), "asks for the value of a tensor"),
    "literal": (lambda: torch.tensor([weights[0], 1.0]).sum(), "asks for the value of a tensor"),
    "size": (lambda: (weights > 1.5).nonzero().sum() + 1.0, "aten.nonzero returns differs"),
    "mask": (lambda: weights[weights > 1.5].sum(), r"selects by a mask, aten\.index\.Tensor"),
    "numpy": (lambda: 1.0 + np.random.rand(), "numbers by Python's or numpy's generator"),
    "flip": (Turning(flipping), "changes 'count' of Turning, which a replay would not"),
    "iterator": (lambda q=itertools.count(1.0): next(q), "holds an iterator, 'default 0' of"),  # noqa: B008
    "store": (Turning(storing), "assigns to Pyro's store"),
    "gradient": (
        lambda w=nn.Parameter(torch.ones(2, 3)): w.sum(),  # noqa: B008
        r"leaves a gradient on a tensor of shape \(2, 3\)",
    ),
}


def copied(weight: Callable[[], Any]) -> Callable[[], Any]:
    """A copy with its state: of objects, and of the iterators that are functions' defaults."""
    if isinstance(weight, FunctionType):
        defaults = copy.deepcopy(weight.__defaults__)
        return FunctionType(weight.__code__, weight.__globals__, argdefs=defaults)
    return copy.deepcopy(weight)


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_recording_holds_runs_as_in_svi(name: str) -> None:
    weight, reason = REFUSED[name]

    def make() -> tuple[Program, Callable[[int], None]]:
        return Program(copied(weight)), lambda number: None

    expected, _ = steps(SVI, make)
    with pytest.warns(UserWarning, match=reason) as caught:
        found, svi = steps(CapturedSVI, make)
    assert len(caught) == 1
    assert svi.recordings == 0
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("change", [counting, rebinding, remembering])
def test_programs_with_a_state_of_their_own_keep_it(change: Callable[[Turning], Any]) -> None:
    """What differs at every step needs a recording at every step, and so gets none."""

    def make() -> tuple[Program, Callable[[int], None]]:
        return Program(Turning(change)), lambda number: None

    expected, _ = steps(SVI, make)
    found, svi = steps(CapturedSVI, make)
    assert found == pytest.approx(expected)
    assert svi.recordings == 0


def test_a_trial_changes_nothing() -> None:
    """A teacher, a generator and an average that are filled in place are as if never tried."""

    class Moving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = nn.Parameter(torch.ones(()), requires_grad=False)
            self.average = torch.zeros(())
            self.generator = torch.Generator().manual_seed(4)

        def forward(self) -> Tensor:
            with torch.no_grad():
                self.average.mul_(0.9).add_(0.1)
                self.teacher.mul_(1.01)
            return self.teacher + self.average + torch.rand((), generator=self.generator)

    def make() -> tuple[Program, Callable[[int], None]]:
        return Program(Moving()), lambda number: None

    expected, _ = steps(SVI, make)
    found, _ = steps(CapturedSVI, make)
    assert found == pytest.approx(expected, rel=1e-5)


# Around a step.


def test_a_handler_around_a_step_holds() -> None:
    def losses(kind: type[SVI]) -> list[float]:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        program = Program(lambda: 1.0)
        svi = kind(program.model, program.guide, FusedOptim({"lr": 1e-2}), Trace_ELBO())
        found = []
        for number, x in enumerate(batches(12)):
            with poutine.scale(scale=1.0 if number % 2 else 0.1):
                found.append(svi.step(x))
            with torch.no_grad():
                found.append(svi.step(x))
            found.append(svi.step(x))
        return found

    assert losses(CapturedSVI) == pytest.approx(losses(SVI), rel=1e-5)


def test_arguments_of_any_layout() -> None:
    wide = torch.randn(16, 4)
    layouts = itertools.cycle([wide[:, :2], wide[:, 2:], torch.randn(2, 16).T])

    def losses(kind: type[SVI]) -> tuple[list[float], SVI]:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        program = Program(lambda: 1.0)
        svi = kind(
            lambda x: program.model(x.reshape(-1).reshape(16, 2)),
            program.guide,
            FusedOptim({"lr": 1e-2}),
            Trace_ELBO(),
        )
        return [svi.step(next(layouts)) for _ in range(69)], svi

    found, svi = losses(CapturedSVI)
    assert found == pytest.approx(losses(SVI)[0], rel=1e-5)
    assert svi.recordings == 2  # two have one layout
    with pytest.warns(UserWarning, match="an argument is sparse, or an expanded tensor"):
        svi.step(wide[:1, :2].expand(16, 2))
    with pytest.warns(UserWarning, match="an argument takes gradients"):
        svi.step(wide[:, :2].clone().requires_grad_())


def test_a_recording_begins_with_what_it_holds() -> None:
    """Nodes that are lifted may be the first of a graph."""
    a, b = torch.tensor(2.0), torch.tensor(3.0)
    recording = record(lambda tensors: [a * b + tensors[0]], [torch.tensor(1.0)])
    assert float(recording([torch.tensor(5.0)])[0]) == 11.0


def test_weight_norms_are_recorded() -> None:
    def make() -> tuple[Program, Callable[[int], None]]:
        program = Program(lambda: 1.0)
        program.decoder = nn.utils.parametrizations.weight_norm(program.decoder)
        program.encoder = nn.utils.parametrizations.spectral_norm(program.encoder)
        return program, lambda number: None

    expected, _ = steps(SVI, make)
    found, svi = steps(CapturedSVI, make)
    assert found == pytest.approx(expected, rel=1e-5)
    assert svi.recordings == 1


def test_a_survey_sees_tensors_generators_and_numbers() -> None:
    program = Program(lambda: 1.0)
    before = survey(program.model, program.guide, reach=Reach())
    assert {id(module) for module in before.modules} == {
        id(program.encoder),
        id(program.decoder),
    }
    assert len(before.tensors) == 4
    program.decoder.weight.requires_grad_(False)
    assert survey(program.model, program.guide, reach=Reach()).fingerprint != before.fingerprint


def test_an_attribute_that_a_function_changes_is_restored() -> None:
    turning, reach = Turning(counting), Reach()
    with pytest.raises(NotRecordableError, match="it changes 'count' of Turning"):
        record_aside(
            lambda tensors: [tensors[0] * turning()],
            [torch.ones(())],
            programs=lambda: survey(turning, reach=reach),
        )
    assert turning.count == 0
