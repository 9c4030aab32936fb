"""Frechet and kernel distance, precision and recall, and the networks behind them."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from pytorch_fid import inception
from torch import Tensor

from pyro_dpvae.data import load
from pyro_dpvae.features import (
    DomainFeatures,
    InceptionFeatures,
    extract,
    train_domain_network,
)
from pyro_dpvae.features.base import inception_weights
from pyro_dpvae.metrics import (
    FeatureStatistics,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    precision_and_recall,
)


def correlated(count: int, size: int, shift: float = 0.0) -> Tensor:
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(1))
    return torch.randn(count, size) @ mixing + shift


# Statistics and distances.


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_statistics_do_not_depend_on_batches(batch: int) -> None:
    features = correlated(100, 6) + 1e4
    found = FeatureStatistics.of(features.split(batch))
    np.testing.assert_allclose(found.mean, features.double().numpy().mean(0), rtol=1e-12)
    expected = np.cov(features.double().numpy(), rowvar=False)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-9)
    assert found.count == 100


def test_the_distance_is_that_of_a_matrix_root() -> None:
    a, b = correlated(400, 40), correlated(300, 40, shift=0.3).exp().sqrt()
    one, other = FeatureStatistics.of([a]), FeatureStatistics.of([b])
    root = scipy.linalg.sqrtm(one.covariance.numpy() @ other.covariance.numpy()).real
    expected = (
        (one.mean - other.mean).square().sum().item()
        + np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.trace(root)
    )  # fmt: skip
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [1000, 20])  # also fewer data than features
def test_the_distance_of_a_set_from_itself_is_zero(count: int) -> None:
    statistics = FeatureStatistics.of([correlated(count, 64)])
    assert frechet_distance(statistics, statistics) < 1e-6


def test_the_standard_error_is_the_spread_of_repetitions() -> None:
    reference = FeatureStatistics.of([correlated(5000, 5)])
    found = [frechet_estimate(correlated(300, 5, shift=0.5), reference) for _ in range(200)]
    spread = float(torch.tensor([one.value for one in found]).std())
    stated = float(torch.tensor([one.standard_error for one in found]).mean())
    assert stated == pytest.approx(spread, rel=0.2)
    assert found[0].settings == {"samples": 300, "reference": 5000}
    with pytest.raises(ValueError, match="must come from one network, got 4 and 5"):
        frechet_estimate(torch.zeros(10, 4), reference)


def test_order_changes_nothing() -> None:
    samples, reference = correlated(300, 6), correlated(300, 6, shift=0.2)
    statistics = FeatureStatistics.of([reference])
    shuffled = FeatureStatistics.of(reference[torch.randperm(300)].split(41))
    order = torch.randperm(300)
    one, other = (
        frechet_estimate(samples, statistics),
        frechet_estimate(samples[order], shuffled),
    )
    assert one.value == pytest.approx(other.value, rel=1e-9)
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-9)
    before = precision_and_recall(samples, reference)
    after = precision_and_recall(samples[order], reference[order])
    assert [e.value for e in before] == [e.value for e in after]


def test_the_distance_from_the_origin_changes_nothing() -> None:
    samples, reference = torch.rand(300, 8), torch.rand(300, 8) + 0.1
    near = precision_and_recall(samples, reference)
    far = precision_and_recall(samples.double() + 3000, reference.double() + 3000)
    assert [one.value for one in near] == [one.value for one in far]
    in_float = precision_and_recall(samples + 3000, reference + 3000)
    assert in_float[0].value == pytest.approx(near[0].value, abs=0.05)


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 data, got 0"):
        FeatureStatistics.of([])
    with pytest.raises(ValueError, match="features must be finite"):
        FeatureStatistics.of([torch.full((3, 2), math.nan)])


def test_the_kernel_distance_is_unbiased_and_its_blocks_its_error() -> None:
    zero = [kernel_distance(correlated(200, 4), correlated(200, 4)) for _ in range(100)]
    values = torch.tensor([one.value for one in zero])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 10
    a, b = correlated(6, 3), correlated(6, 3)

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x.double() @ y.double() / 3 + 1) ** 3)

    blocks = []
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randperm(6, generator=generator).split(2) for _ in range(2))
    for i, j in zip(first, second, strict=True):
        p, q = a[i], b[j]
        within = kernel(p[0], p[1]) + kernel(q[0], q[1])
        between = [2 * kernel(p[i], q[j]) / 4 for i in range(2) for j in range(2)]
        blocks.append(within - sum(between))
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(np.mean(blocks))
    assert found.standard_error == pytest.approx(np.std(blocks, ddof=1) / math.sqrt(3))
    assert kernel_distance(correlated(500, 4), correlated(500, 4)).settings["block_size"] == 50
    with pytest.raises(ValueError, match="at least 4 data"):
        kernel_distance(a[:3], b)


def test_precision_and_recall_tell_quality_from_variety() -> None:
    reference = torch.randn(1000, 2)
    narrow, wide = 0.2 * torch.randn(1000, 2), 5 * torch.randn(1000, 2)
    precision, recall = precision_and_recall(narrow, reference)
    assert precision.value > 0.95
    assert recall.value < 0.5
    precision, recall = precision_and_recall(wide, reference)
    assert precision.value < 0.4
    assert recall.value > 0.9
    apart = precision_and_recall(reference + 100, reference)
    assert [one.value for one in apart] == [0.0, 0.0]
    # Balls reach the third neighbour other than the point itself.
    line = torch.arange(5.0)[:, None].expand(-1, 2)
    inside, outside = line[-1:] + 2.9, line[-1:] + 3.1
    hits = precision_and_recall(torch.cat([inside, outside, outside, outside]), line)[0]
    assert hits.value == 0.25
    assert hits.standard_error == pytest.approx(math.sqrt(0.375 * 0.625 / 8))
    with pytest.raises(ValueError, match="more than neighbours=3 data, got 3"):
        precision_and_recall(reference[:3], reference)


# Networks.


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like pytorch-fid's, with random weights in the real architecture."""
    torch.manual_seed(0)
    network = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    network.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = inception.FIDInceptionC(768, channels_7x7=128)
    for name, width in (("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        setattr(network, name, inception.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b = inception.FIDInceptionE_1(1280)
    network.Mixed_7c = inception.FIDInceptionE_2(2048)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_features_are_those_of_pytorch_fid(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = InceptionFeatures(weights)
    images = torch.rand(3, 1, 28, 28)
    (found,) = extract(network, [images], progress=False)
    assert found.shape == (3, 2048)
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: state)
    oracle = inception.InceptionV3().eval()
    with torch.no_grad():
        expected = oracle(images.repeat(1, 3, 1, 1))[0].flatten(1)
    torch.testing.assert_close(found, expected)
    assert network.settings["resize"] == "299x299 bilinear"
    assert re.fullmatch("inception-[0-9a-f]{8}", network.name)


def test_missing_or_other_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"does not exist; set inception to the file, or download=True"
    ):
        inception_weights()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        inception_weights(tmp_path / "nowhere", download=True)
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    for content in (None, b"root:x:0:0", b""):
        if content is not None:
            other.write_bytes(content)
        with pytest.raises(
            ValueError, match="does not hold the weights of pytorch-fid's Inception"
        ):
            InceptionFeatures(other)


def test_the_domain_network_learns_and_is_named_by_its_weights(tmp_path: Path) -> None:
    data = load("digits")
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    assert data.train_labels is not None
    assert data.test_labels is not None
    network = train_domain_network("digits", data.train, data.train_labels, progress=False)
    images = data.test.float() / 255
    with torch.no_grad():
        predicted = network.classify(network(images)).argmax(-1)
    accuracy = float((predicted == data.test_labels).double().mean())
    assert accuracy > 0.95
    assert network.accuracy == pytest.approx(accuracy, abs=0.04)  # of other held-out images
    assert network.settings["network_accuracy"] == pytest.approx(network.accuracy, abs=1e-4)
    network.save(tmp_path / "digits.safetensors")
    again = DomainFeatures.load(tmp_path / "digits.safetensors", "digits")
    assert (again.name, again.accuracy) == (network.name, network.accuracy)
    assert network.name.startswith("digits-classifier-")
    torch.testing.assert_close(again(images), network(images))
    other = train_domain_network(
        "digits", data.train, data.train_labels, steps=5, seed=1, progress=False
    )
    assert other.name != network.name
    odd = train_domain_network(
        "odd",
        data.train[:40, :, :2, :2],
        data.train_labels[:40] * 1000 - 1,
        steps=2,
        progress=False,
    )
    assert odd(images[:5, :, :2, :2]).shape == (5, 128)
    with pytest.raises(ValueError, match=r"needs at least two classes, got \[3\]"):
        train_domain_network("one", data.train[:9], torch.full((9,), 3))
    with pytest.raises(ValueError, match="a label or a row of factors for each"):
        train_domain_network("digits", data.train, data.train_labels[:5])


def test_a_domain_network_of_factors_classifies_each_of_them(tmp_path: Path) -> None:
    data = load("digits")
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    assert data.train_labels is not None
    assert data.test_labels is not None
    factors = torch.stack([data.train_labels, data.train_labels % 2 * 5 - 3], 1)
    network = train_domain_network("digits", data.train, factors, progress=False)
    network.save(tmp_path / "network.safetensors")
    again = DomainFeatures.load(tmp_path / "network.safetensors", "digits")
    assert again.classes == (10, 2)
    with torch.no_grad():
        digit, parity = (one.argmax(-1) for one in again.logits(data.test.float() / 255))
    digits = float((digit == data.test_labels).double().mean())
    parities = float((parity == data.test_labels % 2).double().mean())
    assert min(digits, parities) > 0.95
    assert again.accuracy == pytest.approx((digits + parities) / 2, abs=0.04)
    with pytest.raises(ValueError, match=r"at least two classes, got \[7\]"):
        train_domain_network("one", data.train, torch.full_like(factors, 7))


def test_images_outside_the_unit_interval_are_refused() -> None:
    network = DomainFeatures("x", channels=1, classes=[2])
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got \[0, 255\]"):
        list(extract(network, [torch.tensor([0.0, 255.0]).reshape(1, 1, 1, 2)], progress=False))
    with pytest.raises(ValueError, match=r"features need images .* got \(3, 4\)"):
        list(extract(network, [torch.rand(3, 4)], progress=False))
