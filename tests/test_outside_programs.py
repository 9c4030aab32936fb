"""Pyro programs as newcomers bring them: other plates, labels, masks, relaxations, autoguides."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_dpvae.export import to_arviz
from pyro_dpvae.importance import log_mean_exp, log_weights
from pyro_dpvae.objectives import (
    MMD,
    CapacityRate,
    FreeBitsRate,
    RegularizedELBO,
    SteinDiscrepancy,
    TotalCorrelation,
)
from tests.linear_gaussian import LATENT, LinearGaussian

BATCH = 6


@pytest.fixture
def exact() -> LinearGaussian:
    pyro.set_rng_seed(0)
    return LinearGaussian()


# The plate over the batch.


def programs_in(exact: LinearGaussian, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def model(x: Tensor) -> None:
        with pyro.plate(name, len(x)):
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate(name, len(x)):
            pyro.sample("z", exact.guide.encoder(x))

    return model, guide


def loss(objective: RegularizedELBO, *arguments: Any) -> float:
    pyro.set_rng_seed(3)
    return float(objective.loss(*arguments))


@pytest.mark.parametrize("vectorize", [False, True])
def test_the_plate_may_have_any_name(exact: LinearGaussian, vectorize: bool) -> None:
    x, programs = exact.data(BATCH), programs_in(exact, "minibatch")
    penalties = [TotalCorrelation(5.0, dataset_size=100), MMD(2.0)]
    options: Any = {"num_particles": 3, "vectorize_particles": vectorize, "max_plate_nesting": 1}
    objective = RegularizedELBO(penalties=penalties, **options)
    expected = loss(objective, exact.model, exact.guide, x)
    assert loss(objective, *programs, x) == expected
    named = RegularizedELBO(penalties=penalties, plate="minibatch", **options)
    assert loss(named, *programs, x) == expected
    weights = log_weights(*programs, x, num_samples=4)
    torch.testing.assert_close(weights, exact.log_prob(x).expand(4, BATCH), rtol=0, atol=1e-6)
    tree = to_arviz(*programs, x, num_samples=3)
    found = tree["log_likelihood"] if not hasattr(tree, "groups") else tree.log_likelihood
    assert found["x"].shape == (1, 3, BATCH)


def test_factors_and_deterministic_sites_have_no_say_in_the_plate(exact: LinearGaussian) -> None:
    x = exact.data(BATCH)
    inner, guide = programs_in(exact, "minibatch")

    def model(x: Tensor) -> None:
        pyro.deterministic("doubled", 2 * x)
        with pyro.plate("others", 2):
            pyro.factor("constant", torch.zeros(2))
            pyro.deterministic("numbers", torch.arange(2))
        inner(x)

    expected = loss(RegularizedELBO(), exact.model, exact.guide, x)
    assert loss(RegularizedELBO(), model, guide, x) == pytest.approx(expected, rel=1e-12)


def of_pixels(x: Tensor) -> Any:
    """A model of three pixels in a plate of their own, which are observed outermost."""
    pixels, batch = pyro.plate("pixels", 3, dim=-1), pyro.plate("batch", len(x), dim=-2)
    with batch:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pixels, batch:
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of_pixels(x: Tensor) -> Any:
    with pyro.plate("batch", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x.mean(1, keepdim=True), 0.5))


def test_the_plate_is_around_a_latent_and_all_observed_sites() -> None:
    x = torch.randn(5, 3)
    objective = RegularizedELBO()
    found = loss(objective, of_pixels, guide_of_pixels, x)
    q = dist.Normal(x.mean(1), 0.5)
    rate = kl_divergence(q, dist.Normal(0.0, 1.0))
    torch.testing.assert_close(objective.terms["rate"], rate.mean())
    pyro.set_rng_seed(3)
    z = q.rsample().unsqueeze(-1)
    expected = (rate - dist.Normal(z, 1.0).log_prob(x).sum(-1)).sum()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_a_plate_that_may_be_either_is_asked_for() -> None:
    x = torch.randn(5, 3)

    def two_plates(x: Tensor) -> None:
        rows, columns = pyro.plate("rows", 5, dim=-2), pyro.plate("columns", 3, dim=-1)
        with rows, columns:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with columns, rows:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", 5, dim=-2), pyro.plate("columns", 3, dim=-1):
            pyro.sample("z", dist.Normal(x, 0.5))

    message = r"got the candidates \['columns', 'rows'\]; name it, such as plate='columns'"
    for attempt in (RegularizedELBO().loss, lambda *a: log_weights(*a, num_samples=2)):
        with pytest.raises(ValueError, match=message):
            attempt(two_plates, guide, x)
    by_row, by_column = RegularizedELBO(plate="rows"), RegularizedELBO(plate="columns")
    assert loss(by_row, two_plates, guide, x) == pytest.approx(
        loss(by_column, two_plates, guide, x)
    )
    assert float(by_row.terms["rate"]) == pytest.approx(3 / 5 * float(by_column.terms["rate"]))
    assert log_weights(two_plates, guide, x, num_samples=2, plate="rows").shape == (2, 5)
    with pytest.raises(ValueError, match=r"inside pyro.plate\('nowhere', batch size\)"):
        RegularizedELBO(plate="nowhere").loss(two_plates, guide, x)

    def apart(x: Tensor) -> None:
        with pyro.plate("a", 5):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
        with pyro.plate("b", 3):
            pyro.sample("w", dist.Normal(0.0, 1.0), obs=x[0])

    def guide_of_a(x: Tensor) -> None:
        with pyro.plate("a", 5):
            pyro.sample("z", dist.Normal(x, 0.5).to_event(1))

    with pytest.raises(ValueError, match=r"got the candidates \['a', 'b'\]"):
        RegularizedELBO().loss(apart, guide_of_a, x)


# Models without latents, labels, masks.


def classify(x: Tensor, y: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("y_aux", dist.Categorical(logits=x), obs=y)


def nothing(x: Tensor, y: Tensor) -> None:
    pass


@pytest.mark.parametrize("rate", [None, FreeBitsRate(3.0), CapacityRate(10.0, 5.0)])
def test_a_model_without_latents_has_no_rate(rate: Any) -> None:
    x = torch.randn(8, 4, requires_grad=True)
    y = torch.arange(8) % 4
    objective = RegularizedELBO(rate=rate)
    objective.loss_and_grads(classify, nothing, x, y)
    expected = torch.nn.functional.cross_entropy(x, y, reduction="sum")
    (gradient,) = torch.autograd.grad(expected, x)
    torch.testing.assert_close(x.grad, gradient)
    torch.testing.assert_close(8 * objective.terms["loss"], expected.detach())
    assert float(objective.terms["rate"]) == 0
    with pytest.raises(ValueError, match="penalties need a latent site"):
        RegularizedELBO(penalties=[MMD(1.0)]).loss(classify, nothing, x, y)


def test_weights_take_labels(exact: LinearGaussian) -> None:
    x, y = exact.data(BATCH), torch.arange(BATCH) % 3
    log_p_of_y = torch.tensor([0.2, 0.3, 0.5]).double().log()

    def model(x: Tensor, y: Tensor, *, shift: float) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=log_p_of_y), obs=y)
            z = pyro.sample("z", exact.model.prior())
            pyro.sample("x", exact.model.decoder(z), obs=x - shift)

    def guide(x: Tensor, y: Tensor, *, shift: float) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", exact.guide.encoder(x - shift))

    weights = log_weights(model, guide, x, y, num_samples=4, chunk=3, shift=1.0)
    expected = exact.log_prob(x - 1.0) + log_p_of_y[y]
    torch.testing.assert_close(weights, expected.expand(4, BATCH), rtol=0, atol=1e-6)
    tree = to_arviz(model, guide, x, y, num_samples=2, shift=1.0)
    found = tree["observed_data"] if not hasattr(tree, "groups") else tree.observed_data
    assert set(found.data_vars) == {"x", "y"}
    with pytest.raises(TypeError, match="need the data that model and guide are called with"):
        log_weights(model, guide, num_samples=2)


def with_classes(*, mask: Any = None, plate: str | None = "data") -> Callable[..., Any]:
    def model(x: Tensor) -> None:
        def classes() -> Tensor:
            with poutine.mask(mask=mask) if mask is not None else poutine.scale(scale=1.0):
                return pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7])))

        y = classes() if plate is None else None
        with pyro.plate("data", len(x)):
            y = classes() if y is None else y
            z = pyro.sample("z", dist.Normal(torch.tensor([-1.0, 1.0])[y], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model


def class_guide(*, outside: bool = False) -> Callable[..., Any]:
    def guide(x: Tensor) -> None:
        infer = {"enumerate": "parallel"}
        if outside:
            pyro.sample("y", dist.Categorical(torch.ones(2)), infer=infer)
        with pyro.plate("data", len(x)):
            if not outside:
                pyro.sample("y", dist.Categorical(torch.ones(len(x), 2)), infer=infer)
            pyro.sample("z", dist.Normal(x, 1.0))

    return guide


def test_priors_of_penalties_are_right_or_refused() -> None:
    x = torch.randn(8)
    penalised = RegularizedELBO(
        penalties=[TotalCorrelation(0.0, dataset_size=8, estimator="in-batch")]
    )
    penalised.loss(with_classes(), class_guide(), x)
    mask = torch.arange(8) < 4
    with pytest.raises(ValueError, match="got a mask at 'y'"):
        penalised.loss(with_classes(mask=mask), class_guide(), x)
    with pytest.raises(ValueError, match=r"need latents only in the plate 'data'.* got 'y'"):
        penalised.loss(with_classes(plate=None), class_guide(outside=True), x)
    for plain in (with_classes(mask=mask), with_classes()):
        assert RegularizedELBO().loss(plain, class_guide(), x) > 0


# Straight-through latents.


def relaxed_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        p = dist.RelaxedOneHotCategoricalStraightThrough(
            torch.tensor(0.7).double(), logits=torch.tensor([0.5, 0.0, -0.5]).double()
        )
        z = pyro.sample("z", p)
        pyro.sample("x", dist.Normal(z, 0.8).to_event(1), obs=x)


def relaxed_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        q = dist.RelaxedOneHotCategoricalStraightThrough(
            torch.tensor(0.7).double(), logits=0.5 * x
        )
        pyro.sample("z", q)


def test_weights_of_straight_through_latents_are_those_of_their_soft_values() -> None:
    # The observation depends on the class alone, whose probabilities are exact.
    x = torch.randn(5, 3, dtype=torch.float64)
    weights = log_weights(relaxed_model, relaxed_guide, x, num_samples=40_000, chunk=4000)
    likelihoods = dist.Normal(torch.eye(3).double(), 0.8).log_prob(x.unsqueeze(1)).sum(-1)
    prior = torch.tensor([0.5, 0.0, -0.5]).double().log_softmax(-1)
    expected = (prior + likelihoods).logsumexp(-1)
    torch.testing.assert_close(log_mean_exp(weights), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    "penalty", [TotalCorrelation(5.0, dataset_size=100), SteinDiscrepancy(1.0), MMD(1.0)]
)
def test_penalties_of_straight_through_latents_are_numbers(penalty: Any) -> None:
    x = torch.randn(16, 3, dtype=torch.float64)
    objective = RegularizedELBO(penalties=[penalty])
    objective.loss(relaxed_model, relaxed_guide, x)
    assert all(bool(term.isfinite()) for term in objective.terms.values())


# Batch norm, batches of one, single data.


class Joint(nn.Module):
    """A decoder's network of z and the class, with batch norm behind them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3)
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        classes = nn.functional.one_hot(y, 2).float()
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape)
        return self.layers(torch.cat([z.expand(*shape, 2), classes.expand(*shape, 2)], -1))


@pytest.mark.parametrize("width", [5, 8])
def test_batch_norm_behind_enumerated_classes_is_refused(width: int) -> None:
    x, network = torch.randn(8, 3), Joint(width)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(2)))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network(z, y), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(x[:, :2].exp()), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    with pytest.raises(ValueError, match=rf"got a BatchNorm1d of features \(2, 8, {width}\)"):
        RegularizedELBO().loss(model, guide, x)
    network.layers[1] = nn.LayerNorm(width)
    assert RegularizedELBO().loss(model, guide, x) > 0
    signals = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8))
    signals(x.unsqueeze(-1))  # features of a signal are those of a batch, also afterwards

    def guide_of_class(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            q = dist.Categorical(x[:, :2].exp())
            y = pyro.sample("y", q, infer={"enumerate": "parallel"})
            loc = Joint(8)(x[:, :2], y)[..., :2]
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"got a BatchNorm1d of features \(2, 8, 8\)"):
        RegularizedELBO().loss(model, guide_of_class, x)


@pytest.mark.parametrize("kind", [AutoNormal, AutoDiagonalNormal])
def test_an_autoguide_of_another_batch_is_refused(exact: LinearGaussian, kind: Any) -> None:
    x = exact.data(BATCH)
    model, _ = programs_in(exact, "minibatch")
    guide = kind(model)
    guide(x)
    assert RegularizedELBO().loss(model, guide, x) > 0
    message = r"must run on the same data, got \{'x': \(1, 3\)\} in the plate .* of 6; an autog"
    with pytest.raises(ValueError, match=message):
        RegularizedELBO().loss(model, guide, x[:1])


@pytest.mark.parametrize("traced", [False, True])
def test_a_single_datum_is_no_batch(exact: LinearGaussian, traced: bool) -> None:
    model, guide = programs_in(exact, "data") if traced else (exact.model, exact.guide)
    x = exact.data(1)
    message = r"one item per row, got \{'x': \(3,\)\} in the plate 'data' of 3; .*unsqueeze"
    with pytest.raises(ValueError, match=message):
        RegularizedELBO().loss(model, guide, x[0])
    with pytest.raises(ValueError, match=message):
        log_weights(model, guide, x[0], num_samples=2)
    objective = RegularizedELBO()
    assert objective.loss(model, guide, x) == pytest.approx(float(objective.terms["loss"]))


def test_weights_are_those_of_evaluation_mode(exact: LinearGaussian) -> None:
    x = exact.data(BATCH).float()
    norm = nn.BatchNorm1d(LATENT)
    module = exact.guide.encoder.float()
    exact.model.float()

    def guide(x: Tensor) -> None:
        q = module(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", q)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            z = norm(z.reshape(-1, LATENT)).reshape(z.shape)
            pyro.sample("x", exact.model.decoder(z), obs=x)

    found = []
    for mode in (True, False):
        norm.train(mode)
        torch.manual_seed(1)
        found.append(log_weights(model, guide, x, num_samples=3))
    assert torch.equal(*found)
