"""Captured steps are the steps of pyro.infer.SVI, and what cannot be captured runs as there."""

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_dpvae.errors import EagerWarning
from pyro_dpvae.inference import CapturedSVI, FusedOptim, steps_together
from pyro_dpvae.inference import _graphed as graphed_module
from pyro_dpvae.inference import captured as captured_module
from pyro_dpvae.objectives import MMD, BetaRate, RegularizedELBO
from pyro_dpvae.objectives.rates import AbstractRate, SiteRate
from pyro_dpvae.recipes import System, build_system

SIZE, LATENT = 16, 3


def linear(weight: float) -> dict[str, Any]:
    return {"name": "linear", "start": 0.0, "steps": 30}


OBJECTIVES: dict[str, dict[str, Any]] = {
    "elbo": {},
    "beta": {"beta": 4.0, "schedule": {"beta": linear(4.0)}},
    "capacity": {"gamma": 10.0, "capacity": 2.0, "schedule": {"capacity": linear(2.0)}},
    "beta-tc": {"beta": 6.0, "schedule": {"beta": linear(6.0)}},
    "factor": {"gamma": 10.0, "hidden": [16, 16]},
    "info": {"lambda_": 10.0},
    "mae": {},
    "dip": {},
    "free-bits": {},
    "soft-free-bits": {},
}


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def system(objective: str = "elbo", *, prior: str = "coupling", blocks: int = 3) -> System:
    pyro.set_rng_seed(0)
    return build_system(
        (2,),
        latent_dim=LATENT,
        dataset_size=100,
        prior={
            "name": prior,
            **({"hidden": [8], "blocks": blocks} if prior == "coupling" else {}),
        },
        likelihood={"name": "gaussian-learned"},
        network={"name": "moons"},
        guide={"name": "amortized"},
        objective={"name": objective, **OBJECTIVES[objective]},
    )


Make = Callable[[], tuple[Any, Any, Any]]


def parts(objective: str = "elbo", *, prior: str = "coupling") -> Make:
    def make() -> tuple[Any, Any, Any]:
        made = system(objective, prior=prior)
        return made.model, made.guide, made.objective

    return make


def batches(steps: int, *, size: int = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 2, generator=generator) for _ in range(steps)]


def run(
    kind: Callable[..., SVI],
    make: Make,
    data: list[Tensor],
    *,
    optim: Callable[[], Any] = lambda: FusedOptim({"lr": 1e-2}),
    each: Callable[[SVI], None] = lambda svi: None,
) -> tuple[list[float], Any]:
    """The losses of steps from one start, and the SVI; ``each`` runs before every step."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, loss = make()
    svi = kind(model, guide, optim(), loss)
    pyro.set_rng_seed(1)
    found = []
    for x in data:
        each(svi)
        found.append(svi.step(x))
    return found, svi


def stored() -> list[Tensor]:
    store = pyro.get_param_store()
    return [store[name].detach().clone() for name in sorted(store.keys())]


def check_same_steps(
    make: Make, data: list[Tensor], *, kind: Callable[..., SVI] = CapturedSVI, **options: Any
) -> Any:
    """Hold captured steps against those of SVI: losses, parameters, random state."""
    expected, _ = run(SVI, make, data, **options)
    parameters, after = stored(), torch.rand(())
    found, captured = run(kind, make, data, **options)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found == pytest.approx(expected, rel=1e-4)
    for one, other in zip(stored(), parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert torch.equal(torch.rand(()), after)
    assert captured.recordings >= 1
    return captured


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_the_steps_of_svi(name: str) -> None:
    captured = check_same_steps(parts(name), batches(40))  # schedules end after 30
    assert captured.recordings == 1
    assert captured.recorded_seconds > 0
    assert captured.objective.step == 40


def test_states_of_objectives_go_along() -> None:
    for name in ("beta", "factor"):
        states, terms = [], []
        for kind in (SVI, CapturedSVI):
            _, svi = run(kind, parts(name), batches(8))
            objective = svi.loss.__self__
            states.append(copy.deepcopy(objective.state_dict()))
            terms.append(objective.terms)
        assert states[0].keys() == states[1].keys()
        assert terms[0].keys() == terms[1].keys()
        for key in states[0]:
            torch.testing.assert_close(states[1][key], states[0][key])
        for key in terms[0]:
            torch.testing.assert_close(terms[1][key], terms[0][key])


def test_a_schedule_goes_on_in_replays() -> None:
    """A weight kept as a number would stay what it was at the recording."""
    _, svi = run(CapturedSVI, parts("beta", prior="standard"), batches(20))
    objective = svi.objective
    for step, x in enumerate(batches(3), start=20):
        svi.step(x)
        terms = {name: float(term) for name, term in objective.terms.items()}
        expected = terms["distortion"] + 4.0 * step / 30 * terms["rate"]
        assert terms["loss"] == pytest.approx(expected, rel=1e-5)


# Pyro's own objectives and programs.


def pyro_program() -> tuple[Any, Any]:
    """A program in Pyro's style: ``pyro.module``, a constrained parameter, a scale."""
    network, flow = nn.Linear(LATENT, 2), dist.transforms.affine_coupling(LATENT, [8])

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        pyro.module("flow", flow)
        scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
        base = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=0.7):
                z = pyro.sample("z", dist.TransformedDistribution(base, [flow]))
            pyro.sample("x", dist.Normal(network(z), scale).to_event(1), obs=x)

    encoder = nn.Linear(2, 2 * LATENT)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        loc, raw = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)), poutine.scale(scale=0.7):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    return model, guide


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO,
        lambda: Trace_ELBO(num_particles=3),
        lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        TraceMeanField_ELBO,
        TraceGraph_ELBO,
        lambda: RenyiELBO(alpha=0.5, num_particles=2),
        RegularizedELBO,
        lambda: lambda *args: Trace_ELBO().differentiable_loss(*args),
    ],
    ids=["trace", "looped", "vectorized", "mean-field", "graph", "renyi", "ours", "function"],
)
def test_pyros_objectives_and_programs_are_captured(loss: Callable[[], Any]) -> None:
    check_same_steps(lambda: (*pyro_program(), loss()), batches(8))


def test_score_functions_are_captured() -> None:
    class Discrete(PyroModule):
        def __init__(self) -> None:
            super().__init__("discrete")
            self.odds = PyroParam(torch.tensor([0.3, 0.6]), dist.constraints.unit_interval)
            self.register_buffer("loc", torch.tensor([-1.0, 1.0]))

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                one = pyro.sample("one", dist.Bernoulli(0.5))
                loc = self.loc[0] * (1 - one) + self.loc[1] * one
                pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("one", dist.Bernoulli(self.odds[(x[:, 0] > 0).long()]))

    def make() -> tuple[Any, Any, Any]:
        module = Discrete()
        return module.model, module.guide, Trace_ELBO()

    check_same_steps(make, batches(8))


def with_norm_and_dropout() -> tuple[Any, Any, Any]:
    made = system()
    made.model.decoder.network = nn.Sequential(
        made.model.decoder.network, nn.BatchNorm1d(2), nn.Dropout(0.3)
    )
    return made.model, made.guide, made.objective


def test_buffers_and_draws_of_modules_are_those_of_svi() -> None:
    statistics = []

    def mode(svi: SVI) -> None:
        norm = svi.model.decoder.network[1]
        statistics.append([norm.running_mean.clone(), norm.num_batches_tracked.clone()])
        svi.model.train(len(statistics) % 12 > 3)

    captured = check_same_steps(with_norm_and_dropout, batches(36), each=mode)
    assert captured.recordings == 2  # of training and of evaluation mode
    half = len(statistics) // 2
    for expected, found in zip(statistics[:half], statistics[half:], strict=True):
        torch.testing.assert_close(found, expected)


# What a recording depends on.


def test_the_last_batch_of_a_pass_runs_too() -> None:
    data = [*batches(4), *batches(1, size=5), *batches(4), *batches(1, size=5)] * 12
    captured = check_same_steps(parts("beta-tc"), data)
    assert captured.recordings == 2


def test_parameters_may_be_frozen_and_freed() -> None:
    count = 0

    def freeze(svi: SVI) -> None:
        nonlocal count
        count += 1
        frozen = 5 <= count % 40 < 32
        svi.guide.train(not frozen)  # or Pyro warns of what is not registered
        for parameter in svi.guide.parameters():
            parameter.requires_grad_(not frozen)

    captured = check_same_steps(parts("elbo"), batches(40), each=freeze)
    assert captured.recordings == 2


def test_a_number_of_the_model_or_of_the_loss_is_no_constant() -> None:
    def make() -> tuple[Any, Any, Any]:
        class Weighted(nn.Module):
            weight = 1.0

            def forward(self, x: Tensor) -> None:
                with pyro.plate("data", len(x)):
                    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                    pyro.sample("x", dist.Normal(z * self.weight, 1.0).to_event(1), obs=x)

        model = Weighted()
        model.weight = 1.0
        guide = pyro.infer.autoguide.AutoNormal(model)
        return model, guide, Trace_ELBO()

    count = 0

    def change(svi: SVI) -> None:
        nonlocal count
        count += 1
        svi.model.weight = 1.0 if count % 40 < 10 else 2.0

    check_same_steps(make, batches(40), each=change)


def test_a_number_that_keeps_changing_is_told_and_stays_right() -> None:
    class Creeping(AbstractRate):
        def __init__(self) -> None:
            super().__init__()
            self.factor = 0.0

        def forward(self, rates: list[SiteRate]) -> Tensor:
            return self.factor * rates[0].total.mean()

    def make() -> tuple[Any, Any, Any]:
        made = system()
        return made.model, made.guide, RegularizedELBO(rate=Creeping())

    def creep(svi: Any) -> None:
        objective = svi.loss.__self__
        objective.rate.factor = objective.step / 10

    expected, _ = run(SVI, make, batches(70), each=creep)
    with pytest.warns(UserWarning, match="keep changing: 'factor' of Creeping;"):
        found, captured = run(CapturedSVI, make, batches(70), each=creep)
    assert found == pytest.approx(expected)
    assert captured.recordings == 0


def test_parameters_may_be_replaced() -> None:
    count = 0

    def replace(svi: SVI) -> None:
        nonlocal count
        count += 1
        if count % 30 == 8:
            pyro.clear_param_store()
            bias = svi.guide.encoder.network[-1].bias
            svi.guide.encoder.network[-1].bias = nn.Parameter(bias.detach() + 1.0)

    def first_linear(make: Make) -> Make:
        def made() -> tuple[Any, Any, Any]:
            model, guide, loss = make()
            guide.encoder.network = nn.Sequential(nn.Linear(2, 2 * LATENT))
            return model, guide, loss

        return made

    optim = lambda: FusedOptim({"lr": 1e-2}, constructor=torch.optim.SGD)  # noqa: E731
    check_same_steps(first_linear(parts()), batches(30), each=replace, optim=optim)


def test_plain_arguments_choose_the_recording() -> None:
    weight = nn.Parameter(torch.tensor(1.0))

    def model(x: Tensor, *, power: int) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("w", weight) ** power, 1.0), obs=x[:, 0])

    def guide(x: Tensor, *, power: int) -> None:
        pass

    results = []
    for kind in (SVI, CapturedSVI):
        pyro.clear_param_store()
        weight.data.fill_(1.5)
        svi = kind(model, guide, FusedOptim({"lr": 1e-2}), Trace_ELBO())
        results.append([svi.step(batches(1)[0], power=1 + i % 3) for i in range(90)])
    assert results[1] == pytest.approx(results[0])
    assert svi.recordings == 3


def replace_the_rate(svi: Any) -> None:
    svi.loss.__self__.rate = BetaRate(3.0)


def add_a_penalty(svi: Any) -> None:
    svi.loss.__self__.penalties = (MMD(10.0),)


def average_two_particles(svi: Any) -> None:
    svi.loss.__self__.num_particles = 2


def evaluate_batch_norm_and_dropout(svi: Any) -> None:
    svi.model.eval()


def freeze_the_encoder(svi: Any) -> None:
    svi.guide.requires_grad_(False)
    svi.guide.eval()  # or Pyro warns of what is not registered


def exchange_a_network(svi: Any) -> None:
    pyro.clear_param_store()
    svi.guide.encoder.network = nn.Sequential(nn.Linear(2, 2 * LATENT))
    for parameter in svi.guide.encoder.network.parameters():
        nn.init.constant_(parameter, 0.1)


CHANGES = [
    replace_the_rate,
    add_a_penalty,
    average_two_particles,
    evaluate_batch_norm_and_dropout,
    freeze_the_encoder,
    exchange_a_network,
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_of_the_librarys_own_systems_is_frozen(change: Callable[[Any], None]) -> None:
    """Changed between two checks of replays, each in time for the very next step."""
    count = 0

    def each(svi: SVI) -> None:
        nonlocal count
        if count % 10 == 6:
            change(svi)
        count += 1

    sgd = lambda: FusedOptim({"lr": 1e-2}, constructor=torch.optim.SGD)  # noqa: E731
    expected, _ = run(SVI, with_norm_and_dropout, batches(10), each=each, optim=sgd)
    found, _ = run(CapturedSVI, with_norm_and_dropout, batches(10), each=each, optim=sgd)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", ["beta-tc", "factor"])
def test_every_number_of_a_module_is_a_part_of_the_key(objective: str) -> None:
    made = system(objective)
    svi = CapturedSVI(made.model, made.guide, FusedOptim({"lr": 1e-2}), made.objective)
    modules = [m for one in (made.model, made.guide) for m in one.modules()]
    modules += [m for part in made.objective.parts() for m in part.modules()]
    before, changed = svi._state(), 0
    for module in modules:
        for name, value in list(vars(module).items()):
            if type(value) in (bool, int, float):
                setattr(module, name, not value if type(value) is bool else value + 1)
                assert svi._state() != before, (type(module), name)
                setattr(module, name, value)
                changed += 1
    assert svi._state() == before
    assert changed > len(modules)


# What cannot be recorded runs as in SVI, with a word.


def branching(x: Tensor) -> Tensor:
    return x + 1.0 if x.mean() > 0 else x


def drawing_by_numpy(x: Tensor) -> Tensor:
    return x + float(np.random.rand())


def listing(x: Tensor) -> Tensor:
    return x * torch.tensor(x.mean(0).tolist())


@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (branching, "it reads the value of a tensor, by __bool__"),
        (listing, "it reads the value of a tensor, by tolist"),
        (drawing_by_numpy, "it draws from Python's or numpy's random generator"),
    ],
)
def test_what_is_no_fixed_graph_runs_eagerly(
    shift: Callable[[Tensor], Tensor], reason: str
) -> None:
    encoder = nn.Linear(2, 2 * LATENT)
    decoder = nn.Linear(LATENT, 2)
    start = copy.deepcopy((encoder.state_dict(), decoder.state_dict()))

    def make() -> tuple[Any, Any, Any]:
        encoder.load_state_dict(start[0])
        decoder.load_state_dict(start[1])

        def model(x: Tensor) -> None:
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=shift(x))

        def guide(x: Tensor) -> None:
            pyro.module("encoder", encoder)
            loc, raw = encoder(x).chunk(2, -1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

        return model, guide, Trace_ELBO()

    expected, _ = run(SVI, make, batches(6))
    with pytest.warns(UserWarning, match=reason) as caught:
        found, captured = run(CapturedSVI, make, batches(6))
    assert len(caught) == 1
    assert found == pytest.approx(expected)
    assert captured.recordings == 0


def test_hooks_on_gradients_run() -> None:
    seen: list[int] = []

    def make() -> tuple[Any, Any, Any]:
        model, guide, loss = parts()()
        next(guide.parameters()).register_hook(lambda g: seen.append(1))
        return model, guide, loss

    with pytest.warns(UserWarning, match="has hooks on its gradient"):
        run(CapturedSVI, make, batches(6))
    assert len(seen) == 6


def test_distributed_networks_average_their_gradients(tmp_path: Path) -> None:
    """A network in DistributedDataParallel runs eagerly, where its hooks are."""

    def make() -> tuple[Any, Any, Any]:
        model, guide, loss = parts()()
        wrapped = nn.parallel.DistributedDataParallel(guide.encoder.network)
        wrapped.in_shape, wrapped.out_shape = (2,), (2 * LATENT,)
        guide.encoder.network = wrapped
        return model, guide, loss

    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        expected, _ = run(SVI, make, batches(6))
        with pytest.warns(
            UserWarning, match="DistributedDataParallel averages gradients in hooks"
        ):
            found, captured = run(CapturedSVI, make, batches(6))
    finally:
        torch.distributed.destroy_process_group()
    assert found == pytest.approx(expected)
    assert captured.recordings == 0


def test_an_objective_that_overrides_its_step_runs_eagerly() -> None:
    class Doubled(RegularizedELBO):
        def differentiable_loss(self, *args: Any, **kwargs: Any) -> Tensor:
            return 2 * super().differentiable_loss(*args, **kwargs)

    def make() -> tuple[Any, Any, Any]:
        made = system()
        return made.model, made.guide, Doubled(rate=made.objective.rate)

    expected, _ = run(SVI, make, batches(6))
    with pytest.warns(UserWarning, match="overrides differentiable_loss; override evaluate"):
        found, _ = run(CapturedSVI, make, batches(6))
    assert found == pytest.approx(expected)


# What goes around a step.


def test_bfloat16_networks() -> None:
    expected, found = [], []
    for kind, results in ((SVI, expected), (CapturedSVI, found)):
        pyro.clear_param_store()
        made = system("beta-tc")
        svi = kind(made.model, made.guide, FusedOptim({"lr": 1e-3}), made.objective)
        pyro.set_rng_seed(1)
        for x in batches(12):
            with torch.autocast("cpu", torch.bfloat16):
                results.append(svi.step(x))
    assert svi.recordings == 1
    assert found == pytest.approx(expected, rel=1e-2)


def test_averaged_weights_follow() -> None:
    averages = []

    def average(svi: Any) -> None:
        if not hasattr(svi, "average"):
            svi.average = AveragedModel(svi.guide.encoder, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        svi.average.update_parameters(svi.guide.encoder)

    for kind in (SVI, CapturedSVI):
        _, svi = run(kind, parts(), batches(10), each=average)
        averages.append([p.detach().clone() for p in svi.average.parameters()])
    torch.testing.assert_close(averages[1], averages[0])


@pytest.mark.parametrize(
    "optim",
    [
        lambda: pyro.optim.Adam({"lr": 1e-2}),
        lambda: pyro.optim.ClippedAdam({"lr": 1e-2, "clip_norm": 0.1}),
        lambda: FusedOptim({"lr": 1e-2}, clip_args={"clip_norm": 0.1}),
        lambda: FusedOptim({"lr": 1e-2}, constructor=torch.optim.SGD),
        lambda: FusedOptim({"lr": 1e-2}, skip_nonfinite=True),
    ],
    ids=["adam", "clipped-adam", "clipped", "sgd", "guarded"],
)
def test_any_optimizer_goes_with_it(optim: Callable[[], Any]) -> None:
    check_same_steps(parts(), batches(8), optim=optim)


def test_a_loss_that_is_nan_warns() -> None:
    data = batches(6)
    data[5][0, 0] = float("nan")
    with pytest.warns(UserWarning, match="Encountered NaN: loss"):
        run(CapturedSVI, parts(), data)


def test_a_batch_with_nan_does_no_harm_under_a_guard() -> None:
    data = batches(12)
    spoiled = [*data[:6], torch.full_like(data[0], float("nan")), *data[6:]]
    guarded = lambda: FusedOptim({"lr": 1e-2}, skip_nonfinite=True)  # noqa: E731
    with pytest.warns(UserWarning, match="Encountered NaN: loss"):
        _, svi = run(CapturedSVI, parts("factor"), spoiled, optim=guarded)
    assert svi.optim.skipped == 1
    assert all(value.isfinite().all() for value in stored())
    assert all(p.isfinite().all() for p in svi.objective.penalties[0].adversary.parameters())


def test_evaluation_learns_nothing() -> None:
    _, svi = run(CapturedSVI, parts("beta"), batches(5))
    before = stored()
    pyro.set_rng_seed(2)
    found = svi.evaluate_loss(batches(1)[0])
    pyro.set_rng_seed(2)
    assert found == svi.objective.loss(svi.model, svi.guide, batches(1)[0])
    assert svi.objective.step == 5
    torch.testing.assert_close(stored(), before)


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler, g++")
@pytest.mark.usefixtures("inductor")
def test_inductor_takes_the_same_steps() -> None:
    """All in one compilation, which takes long.

    Gradients of convolutions keep their layout, with draws in the layout of an image. Older
    versions of PyTorch compile these otherwise, and such a step runs uncompiled: there the
    networks have no convolutions.
    """
    convolutions = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12)

    def make() -> tuple[Any, Any, Any]:
        made = system("beta-tc", blocks=1)
        if convolutions:
            use_convolutions(made)
        return made.model, made.guide, made.objective

    captured = check_same_steps(
        make, batches(8), kind=lambda *a: CapturedSVI(*a, backend="inductor")
    )
    assert captured.recordings == 1


def use_convolutions(made: System) -> None:
    """Give a system networks with convolutions, a batch norm and dropout."""
    made.guide.encoder.network = nn.Sequential(
        nn.Linear(2, 64),
        nn.Unflatten(1, (1, 8, 8)),
        nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)
        ),
        nn.Flatten(),
        nn.Linear(144, 2 * LATENT),
    )
    made.model.decoder.network = nn.Sequential(
        nn.Sequential(nn.Linear(LATENT, 16), nn.Unflatten(1, (4, 2, 2))),
        nn.ConvTranspose2d(4, 1, 4, stride=4),
        nn.Flatten(),
        nn.Linear(64, 2),
    )


def test_an_unknown_backend_is_refused() -> None:
    made = system()
    with pytest.raises(
        ValueError, match="backend must be one of cudagraph, eager, fx, inductor; got 'jit'"
    ):
        CapturedSVI(made.model, made.guide, FusedOptim({"lr": 1.0}), made.objective, backend="jit")


# Graphed steps, with the same body run by the processor: what a graph reads, writes and counts.


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a launch run its body; returns how many bodies there are."""
    made: list[int] = []

    def capture(body: Callable[[], None], trial: Callable[[], None]) -> Callable[[], None]:
        trial()
        made.append(1)
        return body

    monkeypatch.setattr(graphed_module, "capture_on_cuda", capture)
    monkeypatch.setattr(captured_module, "check_backend", lambda backend: backend)
    return made


def graphed(*arguments: Any) -> CapturedSVI:
    return CapturedSVI(*arguments, backend="cudagraph")


@pytest.mark.parametrize("name", ["elbo", "beta-tc", "factor"])
def test_graphed_steps_are_those_of_svi(graphs: list[int], name: str) -> None:
    def anneal(svi: Any) -> None:
        for group in svi.optim.optimizer.param_groups if svi.optim.optimizer else []:
            group["lr"] = 1e-2 / (1 + svi.loss.__self__.step)

    results, states = [], []
    for kind in (SVI, graphed):
        losses, svi = run(kind, parts(name), batches(20), each=anneal)
        results.append([float(loss) for loss in losses])
        states.append((stored(), svi.loss.__self__.state_dict()))
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    torch.testing.assert_close(states[1][0], states[0][0], rtol=1e-3, atol=1e-5)
    assert states[1][1].keys() == states[0][1].keys()
    assert int(states[1][1]["step"]) == 20
    assert len(graphs) == 1
    assert isinstance(losses[-1], Tensor)
    assert isinstance(svi.optim.optimizer.param_groups[0]["lr"], float)


def test_an_optimizer_that_waits_for_the_device_is_in_no_graph(graphs: list[int]) -> None:
    def optim() -> FusedOptim:
        return FusedOptim({"lr": 1e-2}, constructor=torch.optim.Adamax, skip_nonfinite=True)

    expected, _ = run(SVI, parts(), batches(8), optim=optim)
    with pytest.warns(EagerWarning, match=r"only a fused optimizer skips.*Adamax.*use Adam"):
        found, _ = run(graphed, parts(), batches(8), optim=optim)
    assert [float(loss) for loss in found] == pytest.approx(expected)
    assert not graphs


def test_several_steps_are_one_launch(graphs: list[int]) -> None:
    data = batches(20)
    expected, _ = run(SVI, parts("beta-tc"), data)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    made = system("beta-tc")
    svi = graphed(made.model, made.guide, FusedOptim({"lr": 1e-2}), made.objective)
    pyro.set_rng_seed(1)
    found = torch.cat([svi.steps(torch.stack(data[k : k + 5])) for k in range(0, 20, 5)])
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert made.objective.step == 20
    assert len(graphs) == 2  # of single steps, while the first five run eagerly, and of five


def test_programs_train_together(graphs: list[int]) -> None:
    """Draws of two programs alternate in one generator, so a guide without draws is compared."""

    def make(number: int) -> CapturedSVI:
        pyro.set_rng_seed(number)
        network = nn.Linear(2, 2)

        def model(x: Tensor) -> None:
            pyro.module(f"network_{number}", network)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(network(x), 1.0).to_event(1), obs=x)

        def guide(x: Tensor) -> None:
            pass

        return graphed(model, guide, FusedOptim({"lr": 1e-2}), Trace_ELBO())

    data = [torch.stack(batches(8)), torch.stack(batches(8)) + 1.0]
    alone = [svi.steps(x) for svi, x in zip([make(0), make(1)], data, strict=True)]
    pyro.clear_param_store()
    svis = [make(0), make(1)]
    together = [steps_together(svis, [x[k : k + 4] for x in data]) for k in (0, 4)]
    torch.testing.assert_close(torch.cat(together, 1), torch.stack(alone))
    with pytest.raises(
        ValueError, match=r"same number of batches for each program, got \[8\] for 2"
    ):
        steps_together(svis, data[:1])


def test_cuda_graphs_need_a_device_and_a_fused_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    made = system()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a CUDA device, and PyTorch sees none; use 'fx'"):
        graphed(made.model, made.guide, FusedOptim({"lr": 1e-2}), made.objective)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"needs FusedOptim.*got PyroOptim"):
        graphed(made.model, made.guide, pyro.optim.Adam({"lr": 1e-2}), made.objective)
