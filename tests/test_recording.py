"""What a recording cannot hold is refused, what is filled in place is followed."""

import copy
import itertools
from collections.abc import Callable
from types import FunctionType
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


def in_a_tensor() -> tuple[Program, Callable[[int], None]]:
    weight = torch.tensor(1.0)
    return Program(lambda: weight), lambda number: weight.fill_(1.0 + number) and None


def by_an_index() -> tuple[Program, Callable[[int], None]]:
    weights, index = torch.arange(1.0, STEPS + 1), torch.tensor(0)
    return Program(lambda: weights.index_select(0, index)[0]), lambda n: index.fill_(n) and None


class Weighing(nn.Module):
    """A module that is found because it is called, with a number among its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0

    def forward(self) -> float:
        return self.factor


def of_a_called_module() -> tuple[Program, Callable[[int], None]]:
    weighing = Weighing()
    return Program(weighing), lambda n: setattr(weighing, "factor", 1.0 + (n > 3))


@pytest.mark.parametrize("make", [in_a_tensor, by_an_index, of_a_called_module])
def test_tensors_and_numbers_of_modules_are_followed(
    make: Callable[[], tuple[Program, Callable[[int], None]]],
) -> None:
    expected, _ = steps(SVI, make)
    found, svi = steps(CapturedSVI, make)
    assert found == pytest.approx(expected, rel=1e-5)
    assert svi.recordings >= 1


def modes_of_a_list() -> tuple[Program, Callable[[int], None]]:
    program = Program(lambda: 1.0)
    norms = [nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Dropout(0.5))]
    program.weight = lambda: norms[0](torch.ones(2, 2)).square().sum() + 1.0
    return program, lambda number: norms[0].train(number < 15) and None


def test_modules_are_found_where_they_are_called() -> None:
    expected, _ = steps(SVI, modes_of_a_list)
    found, svi = steps(CapturedSVI, modes_of_a_list)
    assert found == pytest.approx(expected, rel=1e-5)
    assert svi.recordings == 1  # and the other mode has run fewer steps


# What no recording can hold.

index, weights = torch.tensor(1), torch.tensor([1.0, 2.0, 3.0])


class Turning(nn.Module):
    """A module that changes what it holds."""

    def __init__(self, change: Callable[["Turning"], Any]) -> None:
        super().__init__()
        self.change, self.count, self.average = change, 0, torch.zeros(())
        self.generator = torch.Generator().manual_seed(0)
        self.history: list[float] = []

    def forward(self) -> Any:
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


class Stepping:
    """A weight with an optimizer of its own, inside the loss."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9)

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad()
        (self.weight**2).backward()
        self.optimizer.step()
        return self.weight.detach() + 1.0


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "index": (lambda: weights[index], r"reads the value of a tensor, by aten\._local_scalar"),
    "slice": (lambda: weights[:index].sum(), "reads the value of a tensor"),
    "literal": (lambda: torch.tensor([weights[0], 1.0]).sum(), "reads the value of a tensor"),
    "size": (lambda: (weights > 1.5).nonzero().sum() + 1.0, "result of aten.nonzero differs"),
    "mask": (lambda: weights[weights > 1.5].sum(), r"selects by a mask, aten\.index\.Tensor"),
    "numpy": (lambda: 1.0 + np.random.rand(), "from Python's or numpy's random generator"),
    "flip": (Turning(flipping), "changes 'count' of Turning, which a replay would not"),
    "count": (lambda: 1.0 + {1: 1.0}[index.item()], "reads the value of a tensor, by item"),
    "store": (Turning(storing), "it changes Pyro's store"),
    "optimizer": (lambda o=Stepping(): o(), "its loss steps an optimizer, SGD"),  # noqa: B008
    "rebinding": (Turning(rebinding), "it changes 'average' of Turning"),
    "remembering": (Turning(remembering), "it changes 'history' of Turning"),
    "gradient": (
        lambda w=nn.Parameter(torch.ones(2, 3)): w.sum(),  # noqa: B008
        r"leaves a gradient on a tensor of shape \(2, 3\)",
    ),
}


def copied(weight: Callable[[], Any]) -> Callable[[], Any]:
    """A copy with its state: of objects, and of those that are functions' defaults."""
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


def test_a_number_that_differs_at_every_step_needs_no_recording() -> None:
    def make() -> tuple[Program, Callable[[int], None]]:
        return Program(Turning(counting)), lambda number: None

    expected, _ = steps(SVI, make)
    found, svi = steps(CapturedSVI, make)
    assert found == pytest.approx(expected)
    assert svi.recordings == 0


# PyTorch 2.12 and before records no generator: the step runs eagerly then, and says so.
@pytest.mark.filterwarnings("ignore:the step runs eagerly.*torch._C.Generator:UserWarning")
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
    with pytest.warns(UserWarning, match="an argument requires gradients"):
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


def test_the_users_own_line_is_named() -> None:
    """Libraries ask for the value; the remedy is in the line that called them."""
    classes = torch.tensor([0, 1])
    weight = lambda: nn.functional.one_hot(classes).sum() + 1.0  # noqa: E731
    with pytest.warns(
        UserWarning, match=r"one_hot\(y, num_classes\).*test_recording.py:\d+: weight"
    ):
        steps(CapturedSVI, lambda: (Program(weight), lambda number: None))


@pytest.mark.parametrize("options", [{"num_classes": 4}, {}])
def test_one_hot_of_known_classes_is_recorded(options: dict[str, int]) -> None:
    def run(tensors: list[Tensor]) -> list[Tensor]:
        arguments = () if options else (4,)
        return [nn.functional.one_hot(tensors[0], *arguments, **options)]

    recording = record(run, [torch.tensor([[0, 1], [1, 1]])])
    other = torch.tensor([[3, 0], [2, 1]])
    assert torch.equal(recording([other])[0], nn.functional.one_hot(other, 4))
    with pytest.raises(RuntimeError, match="out of bounds"):
        recording([torch.tensor([[4, 0], [2, 1]])])


def test_a_tensor_with_a_graph_from_outside_is_used_up_by_no_trial() -> None:
    class Conditioned(nn.Module):
        context: Any = None

        def forward(self) -> Tensor:
            return self.context.square().sum() + 1.0

    def make() -> tuple[Program, Callable[[int], None]]:
        conditioned, network = Conditioned(), nn.Linear(2, 2)
        made.append(network)

        def change(number: int) -> None:
            conditioned.context = network(torch.ones(2))

        return Program(conditioned), change

    made: list[nn.Linear] = []
    expected, _ = steps(SVI, make)
    with pytest.warns(UserWarning, match="computed with gradients outside the step"):
        found, _ = steps(CapturedSVI, make)
    assert found == pytest.approx(expected)
    torch.testing.assert_close(made[1].weight.grad, made[0].weight.grad)


def test_what_is_dropped_from_a_recording_changes_no_bit() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(0.1, inplace=True), nn.Linear(5, 2))
    parameters = list(network.parameters())

    def run(tensors: list[Tensor]) -> list[Tensor]:
        (x,) = tensors
        torch.rand(7)  # no result depends on it but by the next draw
        noise = torch.randn_like(x).view(4, 3).T.T.expand(4, 3)
        y = network(x + noise)
        y.sum(-1).neg().view(2, 2)  # no result depends on it
        loss = (y.view(4, 2).T @ y.expand(4, 2)).logsumexp(0).sum()
        return [loss.detach(), y.detach(), *torch.autograd.grad(loss, parameters)]

    x = torch.randn(4, 3)
    recording = record(run, [x])
    for seed in range(3):
        torch.manual_seed(seed)
        expected = run([x])
        torch.manual_seed(seed)
        found = recording([x])
        assert all(map(torch.equal, found, expected))
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(1.1)
    operations = {str(node.target) for node in recording.graph.graph.nodes}
    assert not operations & {"aten.detach.default", "aten.neg.default"}
