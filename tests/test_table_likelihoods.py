"""Counts, categories and tables of mixed columns, against SciPy, sums and known limits."""

from itertools import product
from math import log
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_dpvae.cli import main
from pyro_dpvae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLearnedVarianceLikelihood,
    LaplaceLearnedScaleLikelihood,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from pyro_dpvae.likelihoods.counts import Counts
from pyro_dpvae.recipes import open_run

COUNTS = torch.tensor([0.0, 1.0, 2.0, 7.0, 40.0, 1000.0, 30_000.0])
MEANS = [1e-6, 0.02, 1.0, 9.0, 1100.0, 29_000.0]
INVERSES = [1e-3, 0.5, 3.0, 40.0, 1e3, 1e5, 1e7, 1e10]


def spread_of(expected: Any) -> Any:
    """How far float32 may be off: by the rounding of log mu, which counts x times."""
    return 2e-6 * np.abs(expected) + 1e-5


@pytest.mark.parametrize("mean", MEANS)
def test_poisson_is_scipys(mean: float) -> None:
    expected = stats.poisson.logpmf(COUNTS.numpy(), mean)
    exact = Counts(torch.full((7,), log(mean), dtype=torch.float64)).log_prob(COUNTS.double())
    np.testing.assert_allclose(exact.numpy(), expected, rtol=1e-11, atol=1e-10)
    raw = torch.full((7, 1), log(mean))
    found = PoissonLikelihood((1,))(raw).log_prob(COUNTS[:, None])
    # log mu itself is rounded, to 6e-8 of it, and |x - mu| of that is seen.
    rounding = 1e-7 * (COUNTS.numpy() + mean) * max(1.0, abs(log(mean)))
    assert (np.abs(found.numpy() - expected) <= rounding + spread_of(expected)).all()


def exact_log_prob(x: float, mean: float, inverse: float) -> float:
    """The negative binomial's formula, in 60 digits."""
    with mpmath.workdps(60):
        mu, r = mpmath.mpf(mean), mpmath.mpf(inverse)
        found = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
        return float(found + r * mpmath.log(r / (r + mu)) + x * mpmath.log(mu / (r + mu)))


@pytest.mark.parametrize("inverse", INVERSES)
@pytest.mark.parametrize("mean", MEANS)
def test_the_negative_binomial_has_its_digits(mean: float, inverse: float) -> None:
    expected = np.array([exact_log_prob(x, mean, inverse) for x in COUNTS.tolist()])
    dispersion = torch.tensor(1 / inverse, dtype=torch.float64)
    exact = Counts(torch.full((7,), log(mean), dtype=torch.float64), dispersion)
    found = exact.log_prob(COUNTS.double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-9)
    if inverse <= 40 and mean > 0.01:  # beyond, SciPy's own digits end
        scipys = stats.nbinom.logpmf(COUNTS.numpy(), inverse, 1 / (1 + mean / inverse))
        np.testing.assert_allclose(found, scipys, rtol=1e-8, atol=1e-8)
    single = Counts(torch.full((7,), log(mean)), dispersion.float()).log_prob(COUNTS).numpy()
    rounding = 1e-7 * (COUNTS.numpy() + mean) * max(1.0, abs(log(mean)))
    assert (np.abs(single - expected) <= rounding + spread_of(expected)).all()


@pytest.mark.parametrize("inverse", INVERSES)
def test_counts_sum_to_one_in_single_precision(inverse: float) -> None:
    x = torch.arange(0.0, 4000.0)
    for mean in (0.1, 5.0, 100.0):
        if mean / inverse > 20:  # the sum has a long tail
            continue
        total = Counts(torch.tensor(log(mean)), torch.tensor(1 / inverse)).log_prob(x).double()
        assert float(total.exp().sum()) == pytest.approx(1.0, abs=3e-5)


def test_the_negative_binomial_of_dispersion_zero_is_the_poisson() -> None:
    log_mean = torch.linspace(-3, 6, 50)
    x = COUNTS[:, None]
    poisson = Counts(log_mean).log_prob(x)
    for dispersion in (1e-12, 1e-20, 1e-30):
        found = Counts(log_mean, torch.tensor(dispersion)).log_prob(x)
        torch.testing.assert_close(found, poisson, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dispersion", [None, 1e-6, 0.2, 3.0])
def test_counts_have_the_moments_of_their_samples(dispersion: float | None) -> None:
    given = None if dispersion is None else torch.tensor(dispersion)
    p = Counts(torch.tensor([0.5, 3.0]), given)
    x = p.sample((40_000,))
    assert torch.equal(x, x.round())
    error = x.std(0) / 200
    assert ((x.mean(0) - p.mean).abs() < 5 * error).all()
    extra = 0.0 if dispersion is None else dispersion
    torch.testing.assert_close(p.variance, p.mean + extra * p.mean**2)
    assert ((x.var(0) / p.variance - 1).abs() < (0.08 if extra < 1 else 0.4)).all()
    assert p.log_prob(x).isfinite().all()


def fitted(x: Tensor, steps: int) -> NegativeBinomialLikelihood:
    """A negative binomial of one mean and dispersion for each column, fitted to counts."""
    likelihood = NegativeBinomialLikelihood((x.shape[1],))
    raw = x.mean(0).log().requires_grad_()
    optimizer = torch.optim.Adam([raw, *likelihood.parameters()], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (-likelihood(raw).log_prob(x).mean()).backward()
        optimizer.step()
    return likelihood


def test_a_dispersion_is_learned() -> None:
    generator = np.random.default_rng(0)
    columns = [generator.negative_binomial(r, r / (r + 8), 4000) for r in (0.5, 2.0, 10.0)]
    x = torch.from_numpy(np.stack(columns, 1)).float()
    found = fitted(x, 200).dispersion.detach()
    torch.testing.assert_close(found, torch.tensor([2.0, 0.5, 0.1]), rtol=0.1, atol=0)


def test_a_dispersion_does_not_run_away_on_poisson_counts() -> None:
    # Less spread than Poisson has: every smaller dispersion fits better.
    x = torch.full((500, 2), 20.0) + torch.randint(-1, 2, (500, 2))
    likelihood = fitted(x, 600)
    dispersion = likelihood.dispersion.detach()
    assert (dispersion >= 1e-6).all()
    assert (dispersion < 5e-3).all()
    raw = x.mean(0).log()
    found = likelihood(raw).log_prob(x).detach()
    torch.testing.assert_close(found, PoissonLikelihood((2,))(raw).log_prob(x), rtol=0, atol=0.05)


def test_a_categorical_sums_to_one_and_is_its_softmax() -> None:
    likelihood = CategoricalLikelihood((2,), categories=3)
    logits = torch.randn(3, 2, dtype=torch.float64)
    p = likelihood(logits.flatten())
    every = torch.tensor(list(product(range(3), repeat=2)), dtype=torch.float64)
    found = p.log_prob(every)
    softmax = logits.softmax(0)
    expected = [softmax[int(a), 0] * softmax[int(b), 1] for a, b in every]
    torch.testing.assert_close(found.exp(), torch.stack(expected))
    torch.testing.assert_close(found.exp().sum().item(), 1.0)
    draws = p.sample((20_000,)) @ torch.tensor([3.0, 1.0], dtype=torch.float64)
    frequency = draws.long().bincount(minlength=9) / 20_000
    error = 5 * (found.exp() * (1 - found.exp()) / 20_000).sqrt()
    assert ((frequency - found.exp()).abs() < error).all()
    with pytest.raises(ValueError, match="categories must be at least 2, got 1; remove constant"):
        CategoricalLikelihood((2,), categories=1)


# Tables.


def mixed(shape: tuple[int, ...] = (6,)) -> MixedLikelihood:
    likelihood = MixedLikelihood(shape, binary=[4], count=[1, 5], categorical={0: 3, 3: 3})
    likelihood.likelihoods[0].raw_scale.data.fill_(-1.0)
    return likelihood


def table(rows: int) -> Tensor:
    x = torch.randn(rows, 6)
    x[:, 4] = (x[:, 4] > 0).float()
    x[:, [1, 5]] = torch.randint(0, 9, (rows, 2)).float()
    x[:, [0, 3]] = torch.randint(0, 3, (rows, 2)).float()
    return x


def test_a_table_has_the_density_of_its_columns() -> None:
    likelihood, x = mixed(), table(7)
    assert likelihood.groups == {
        "continuous": (2,),
        "binary": (4,),
        "count": (1, 5),
        "categorical of 3": (0, 3),
    }
    assert likelihood.raw_shape == (1 + 1 + 2 + 6,)
    raw = torch.randn(7, 10)
    continuous = GaussianLearnedVarianceLikelihood((1,))
    continuous.raw_scale.data.fill_(-1.0)
    expected = (
        continuous(raw[:, :1]).log_prob(x[:, [2]])
        + BernoulliLikelihood((1,))(raw[:, 1:2]).log_prob(x[:, [4]])
        + NegativeBinomialLikelihood((2,))(raw[:, 2:4]).log_prob(x[:, [1, 5]])
        + CategoricalLikelihood((2,), categories=3)(raw[:, 4:]).log_prob(x[:, [0, 3]])
    )
    torch.testing.assert_close(likelihood(raw).log_prob(x), expected)
    wide = likelihood(raw).expand(torch.Size((2, 7)))
    torch.testing.assert_close(wide.log_prob(x), expected.expand(2, 7))


def test_a_table_of_discrete_columns_sums_to_one() -> None:
    likelihood = MixedLikelihood((3,), binary=[2], count=[0], categorical={1: 3})
    p = likelihood(torch.tensor([0.3, 0.7, *torch.randn(3).tolist()]))
    rows = torch.tensor(list(product(range(400), range(3), range(2)))).float()
    assert float(p.log_prob(rows).detach().double().exp().sum()) == pytest.approx(1.0, abs=1e-4)


def test_draws_of_a_table_are_of_its_kinds_and_have_its_mean() -> None:
    p = mixed()(0.5 * torch.randn(10))
    x = p.sample((20_000,))
    assert p.log_prob(x).isfinite().all()
    assert set(x[:, 4].unique().tolist()) == {0.0, 1.0}
    assert set(x[:, [0, 3]].unique().tolist()) == {0.0, 1.0, 2.0}
    assert ((x.mean(0) - p.mean).abs() < 5 * x.std(0) / 20_000**0.5).all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (4, 0.5, r"in the binary columns \[4\]: a Bernoulli likelihood takes .* got 0\.5"),
        (5, 1.5, r"in the count columns \[1, 5\]: a negative binomial .* got 1\.5 .*; pass the"),
        (1, -1.0, r"in the count columns \[1, 5\]: a negative binomial .* got -1 "),
        (0, 3.0, r"in the categorical of 3 columns \[0, 3\]: .* codes 0, 1, \.\.\., 2 of 3"),
        (2, float("nan"), "takes finite values, got NaN or infinity in 1 of 42 places"),
    ],
)
def test_a_value_outside_its_column_is_named(column: int, value: float, message: str) -> None:
    x = table(7)
    x[3, column] = value
    with pytest.raises(ValueError, match=message):
        mixed()(torch.zeros(7, 10)).log_prob(x)


def test_a_run_names_the_columns_whose_values_are_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "table.npy", table(150).numpy())
    words = f"train --data {tmp_path / 'table.npy'} --steps 1 --likelihood mixed --out"
    groups = ["--likelihood.count", "[1, 5]", "--likelihood.categorical", '{"0": 3, "3": 3}']
    wrong = ["--likelihood.binary", "[2]"]
    assert main([*words.split(), str(tmp_path / "wrong"), *groups, *wrong]) == 2
    assert "error: in the binary columns [2]: a Bernoulli" in capsys.readouterr().err
    assert (
        main([*words.split(), str(tmp_path / "run"), *groups, "--likelihood.binary", "[4]"]) == 0
    )
    opened = open_run(tmp_path / "run").system.model.decoder.likelihood
    assert opened.groups == mixed().groups


def test_columns_are_in_one_group_each() -> None:
    with pytest.raises(ValueError, match=r"columns must be from 0 to 2, got \[3, 5\]"):
        MixedLikelihood((3,), binary=[3], count=[5])
    with pytest.raises(ValueError, match=r"got \[1\] in several groups and \[2\] in none"):
        MixedLikelihood((3,), continuous=[0, 1], count=[1])
    assert MixedLikelihood((3,)).groups == {"continuous": (0, 1, 2)}
    # As a configuration in JSON has them.
    assert MixedLikelihood((3,), categorical={"1": 4}).groups["categorical of 4"] == (1,)


def test_channels_of_images_are_columns() -> None:
    likelihood = mixed((6, 2, 3))
    raw, x = torch.randn(5, 10, 2, 3), table(30).reshape(5, 2, 3, 6).movedim(-1, 1)
    found = likelihood(raw).log_prob(x)
    pixel = likelihood.at_pixel()
    rows = pixel(raw.movedim(1, -1)).log_prob(x.movedim(1, -1))
    assert pixel.shape == (6,)
    torch.testing.assert_close(found, rows.sum((1, 2)))


# Scales that start at the data.


def test_scales_start_at_the_deviation_of_the_data() -> None:
    deviations = torch.tensor([0.01, 1.0, 30.0])
    x = deviations * torch.randn(20_000, 3) + torch.tensor([5.0, -2.0, 1000.0])
    each = GaussianLearnedVarianceLikelihood((3,), by_channel=True)
    torch.testing.assert_close(each.scale.detach(), torch.ones(3))
    each.start_at(x)
    torch.testing.assert_close(each.scale.detach(), deviations, rtol=0.03, atol=0)
    whole = GaussianLearnedVarianceLikelihood((3,))
    whole.start_at(x)
    expected = deviations.square().mean().sqrt()
    torch.testing.assert_close(whole.scale.detach(), expected, rtol=0.03, atol=0)
    laplace = LaplaceLearnedScaleLikelihood((3,), by_channel=True)
    noise = torch.distributions.Laplace(0.0, 1.0).sample((20_000, 3))
    laplace.start_at(deviations * noise + 7)
    torch.testing.assert_close(laplace.scale.detach(), deviations, rtol=0.03, atol=0)
    table = MixedLikelihood((4,), binary=[1])
    table.start_at(torch.cat([x[:, :1], (x[:, 1:2] > 0).float(), x[:, 1:]], 1))
    continuous: Any = table.likelihoods[0]
    torch.testing.assert_close(continuous.scale.detach(), deviations, rtol=0.03, atol=0)


def test_a_scale_of_constant_data_stays_above_its_floor() -> None:
    likelihood = GaussianLearnedVarianceLikelihood((1, 4, 4))
    likelihood.start_at(torch.full((50, 1, 4, 4), 0.3))
    assert float(likelihood.scale.detach()) == pytest.approx(2e-3, rel=1e-3)
    with pytest.raises(ValueError, match=r"expected data of shape \(..., 1, 4, 4\)"):
        likelihood.start_at(torch.zeros(50, 16))


def test_a_column_of_one_value_does_not_start_at_the_least_scale() -> None:
    x = torch.cat([2.0 * torch.randn(500, 1), torch.full((500, 1), 0.3)], 1)
    for likelihood in (
        GaussianLearnedVarianceLikelihood((2,), by_channel=True),
        LaplaceLearnedScaleLikelihood((2,), by_channel=True),
    ):
        likelihood.start_at(x)
        scale = likelihood.scale.detach()
        assert float(scale[1]) == pytest.approx(1.0)
        assert 1.0 < float(scale[0]) < 2.5


@pytest.mark.parametrize("by_channel", [False, True])
def test_a_scale_by_channel_is_in_the_place_of_its_channel(by_channel: bool) -> None:
    likelihood = GaussianLearnedVarianceLikelihood((2, 3, 4), by_channel=by_channel)
    likelihood.start_at(torch.randn(500, 2, 3, 4) * torch.tensor([0.1, 4.0])[:, None, None])
    scale = likelihood.scale.detach().expand(2)
    raw, x = torch.randn(5, 2, 3, 4), torch.randn(5, 2, 3, 4)
    expected = torch.distributions.Normal(raw, scale[:, None, None]).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(likelihood(raw).log_prob(x), expected)
    pyro.enable_validation(True)
    first, second = likelihood.expansion(x, raw)
    torch.testing.assert_close(first, (x - raw) / scale[:, None, None].square())
    torch.testing.assert_close(
        second.expand_as(x), (1 / scale.square())[:, None, None].expand_as(x)
    )
