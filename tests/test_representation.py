"""Probes, clusters and disentanglement, on representations whose scores are known."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from pyro_dpvae.metrics import (
    DISENTANGLEMENT,
    Estimate,
    cluster_accuracy,
    cluster_information,
    dci,
    factor_vae_score,
    k_means,
    linear_probe_accuracy,
    mig,
    modularity,
    nearest_neighbour_accuracy,
    sap,
)


def blobs(count: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % classes
    centres = 6 * torch.eye(classes)
    return centres[labels] + torch.randn(count, classes), labels


def rings(count: int) -> tuple[Tensor, Tensor]:
    """Two classes that no line separates, and neighbours do."""
    labels = torch.arange(count) % 2
    angle = 2 * math.pi * torch.rand(count)
    radius = 1.0 + 3.0 * labels + 0.1 * torch.randn(count)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1), labels


def test_probes_read_what_can_be_read() -> None:
    train, test = blobs(300), blobs(300)
    assert linear_probe_accuracy(*train, *test).value > 0.98
    assert nearest_neighbour_accuracy(*train, *test).value > 0.98
    train, test = rings(400), rings(400)
    linear = linear_probe_accuracy(*train, *test)
    assert linear.value < 0.65
    assert nearest_neighbour_accuracy(*train, *test).value > 0.98
    share = (400 * linear.value + 2) / 404
    assert linear.standard_error == pytest.approx(math.sqrt(share * (1 - share) / 404))
    noise = linear_probe_accuracy(torch.randn(500, 3), train[1].repeat(2)[:500], *blobs(500, 3))
    assert 0.2 < noise.value < 0.8


def test_clusters_are_matched_with_labels() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    renamed = (labels + 1) % 3
    assert cluster_accuracy(renamed, labels).value == 1.0
    assert cluster_information(renamed, labels).value == pytest.approx(1.0)
    # Two clusters of one label: a majority may use it twice, a matching may not.
    split = torch.tensor([0, 0, 1, 2, 2, 2, 2, 2, 2])
    assert cluster_accuracy(split, labels, matching="majority").value == pytest.approx(6 / 9)
    matched = cluster_accuracy(split, labels)
    best = max(
        sum(
            int(order[c] == label)
            for c, label in zip(split.tolist(), labels.tolist(), strict=True)
        )
        for order in itertools.permutations(range(3))
    )
    assert matched.value == pytest.approx(best / 9)
    z, classes = blobs(300)
    assert cluster_accuracy(k_means(z, 3), classes).value > 0.98
    random = cluster_information(torch.randint(3, (3000,)), torch.randint(3, (3000,)))
    assert random.value < 0.01
    with pytest.raises(ValueError, match="clusters must have a label each"):
        cluster_accuracy(labels, labels[:3])
    with pytest.raises(ValueError, match="matching must be one of"):
        cluster_accuracy(labels, labels, matching="greedy")
    with pytest.raises(ValueError, match=r"clusters must be at most 9 .* got 10"):
        k_means(torch.randn(9, 2), 10)


def test_bad_labels_are_refused() -> None:
    z, labels = blobs(30)
    with pytest.raises(ValueError, match=r"a label each, got 30 .*\(5,\)"):
        linear_probe_accuracy(z, labels[:5], z, labels)
    with pytest.raises(ValueError, match="at least two classes"):
        linear_probe_accuracy(z, torch.zeros(30, dtype=torch.long), z, labels)
    with pytest.raises(ValueError, match=r"neighbours must be at most 30 .* got 40"):
        nearest_neighbour_accuracy(z, labels, z, labels, neighbours=40)


# Disentanglement: four factors of five values each.

DATA = 1500
FACTORS = torch.randint(5, (DATA, 4), generator=torch.Generator().manual_seed(0))


def aligned() -> Tensor:
    """A coordinate for each factor, with little noise, and one of noise alone."""
    noise = 0.02 * torch.randn(DATA, 4)
    return torch.cat([FACTORS + noise, 1e-3 * torch.randn(DATA, 1)], 1)


def rotated() -> Tensor:
    """Every coordinate a mixture of all factors."""
    mixing = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))[0]
    return FACTORS.float() @ mixing + 0.02 * torch.randn(DATA, 4)


def test_scores_tell_aligned_from_rotated_coordinates() -> None:
    one, other = aligned(), rotated()
    found = [(score(one, FACTORS).value, score(other, FACTORS).value) for score in (mig, sap)]
    for good, bad in found:
        assert good > 3 * bad
    assert found[0][0] == pytest.approx(1.0, abs=0.02)
    assert found[0][1] < 0.2
    assert modularity(one[:, :4], FACTORS).value > 0.98
    assert modularity(other, FACTORS).value < 0.9
    assert factor_vae_score(one, FACTORS).value == 1.0
    assert factor_vae_score(other, FACTORS).value < 0.9
    good, bad = dci(one, FACTORS), dci(other, FACTORS)
    assert good["disentanglement"].value > 0.95
    assert good["completeness"].value > 0.95
    assert good["informativeness"].value > 0.99
    assert bad["disentanglement"].value < 0.5
    assert bad["completeness"].value < 0.5


def test_two_coordinates_of_one_factor_have_no_gap() -> None:
    doubled = torch.cat([aligned()[:, :4], aligned()[:, :4]], 1)
    assert mig(doubled, FACTORS).value < 0.02
    assert sap(doubled, FACTORS).value < 0.05
    # Each coordinate still knows of one factor alone.
    assert modularity(doubled, FACTORS).value > 0.98
    found = dci(doubled, FACTORS)
    assert found["disentanglement"].value > 0.95
    assert found["completeness"].value < 0.8


def test_the_gap_of_a_partly_known_factor_is_its_information() -> None:
    # A coordinate that tells even values from odd of four: I = log 2 of H = log 4.
    factors = torch.stack([torch.arange(4000) % 4, torch.arange(4000) // 4 % 2], 1)
    z = torch.stack([(factors[:, 0] % 2).float(), torch.randn(4000)], 1)
    found = mig(z, factors)
    expected = (0.5 + 0.0) / 2
    assert found.value == pytest.approx(expected, abs=0.01)
    assert found.standard_error < 0.01


def test_a_collapsed_representation_is_refused() -> None:
    for z in (torch.zeros(200, 4), torch.full((200, 4), 0.3)):
        with pytest.raises(ValueError, match="z must vary, got one value"):
            factor_vae_score(z, FACTORS[:200])
    with pytest.raises(ValueError, match="z must not be collapsed"):
        factor_vae_score(
            1e-3 * torch.randn(200, 4), FACTORS[:200], posterior_variance=torch.ones(4)
        )


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (100.0, 0.01, 1.0), (1e-4, 1e6, 1.0)])
def test_the_scale_of_coordinates_changes_no_score(scales: tuple[float, ...]) -> None:
    factors = FACTORS[:, :3]
    for score in (mig, modularity, factor_vae_score):
        assert score(factors * torch.tensor(scales), factors).value == pytest.approx(1, abs=0.01)


def test_collapsed_and_constant_coordinates_take_no_part_in_votes() -> None:
    # Nine coordinates of noise alone, of every scale, and a constant one.
    noise = torch.randn(DATA, 9) * torch.logspace(-4, 4, 9)
    z = torch.cat([FACTORS[:, :3] * 1e-3, noise, torch.full((DATA, 1), 0.7)], 1)
    assert factor_vae_score(z, FACTORS[:, :3]).settings["active"] == 12
    variance = torch.cat([torch.full((3,), 1e-8), 1e3 * noise.var(0), torch.ones(1)])
    found = factor_vae_score(z, FACTORS[:, :3], posterior_variance=variance)
    assert found.settings["active"] == 3
    assert found.value == 1.0


@pytest.mark.parametrize("name", DISENTANGLEMENT)
def test_bad_factors_are_refused(name: str) -> None:
    score = DISENTANGLEMENT[name]
    with pytest.raises(ValueError, match=f"z and factors .* got 10 and {DATA}"):
        score(torch.randn(10, 3), FACTORS)
    with pytest.raises(ValueError, match="columns that vary, got 0 of 4"):
        score(aligned(), torch.ones_like(FACTORS))
    with pytest.raises(ValueError, match="whole numbers, got fractions; cut"):
        score(aligned(), torch.randn(DATA, 4))


@pytest.mark.parametrize("name", ["mig", "modularity", "factor-vae-score"])
def test_whole_numbers_may_be_of_a_real_type(name: str) -> None:
    score, z = DISENTANGLEMENT[name], aligned()[:400]
    one, other = score(z, FACTORS[:400].float()), score(z, FACTORS[:400])
    assert isinstance(one, Estimate)
    assert isinstance(other, Estimate)
    assert one.value == other.value


@pytest.mark.parametrize("name", DISENTANGLEMENT)
def test_a_constant_factor_changes_no_score_and_is_named(name: str) -> None:
    score, z = DISENTANGLEMENT[name], aligned()[:400]
    factors = FACTORS[:400, [0, 1]]
    more = torch.stack([factors[:, 0], torch.full((400,), 3), factors[:, 1]], 1)
    found, expected = score(z, more), score(z, factors)
    if isinstance(found, Estimate):
        found, expected = {"": found}, {"": expected}
    for part, one in found.items():
        assert one.value == expected[part].value
        assert one.standard_error == expected[part].standard_error
        assert one.settings == {**expected[part].settings, "constant_factors": "1"}
        assert "constant_factors" not in expected[part].settings


def test_errors_are_the_spread_of_repetitions() -> None:
    found = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        factors = torch.randint(3, (300, 2), generator=generator)
        z = factors + torch.randn(300, 2, generator=generator)
        found.append(mig(z, factors))
    spread = float(torch.tensor([one.value for one in found]).std())
    stated = float(torch.tensor([one.standard_error for one in found]).mean())
    assert stated == pytest.approx(spread, rel=0.4)


def test_a_value_that_halves_of_the_data_may_lack_is_scored() -> None:
    def entropy(p: float) -> float:
        return -(p * math.log(p) + (1 - p) * math.log(1 - p))

    rare, even = torch.arange(64) == 5, torch.arange(64) % 2
    factors, z = torch.stack([rare.long(), even], 1), even.double()
    gap = mig(torch.stack([z, torch.zeros(64)], 1), factors)
    # Half of the items have the value of ``even`` of the rare one.
    informed = 1 - entropy(1 / 32) / 2 / entropy(1 / 64)
    assert gap.value == pytest.approx((informed + 1) / 2)
    assert 0 < gap.standard_error < (1 - informed) / 2
    alike = sap(torch.stack([z, z], 1), factors)
    assert (alike.value, alike.standard_error) == (0.0, 0.0)
