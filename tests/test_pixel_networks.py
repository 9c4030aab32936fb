"""Autoregressive pixel networks: what each pixel sees, and pixels one by one."""

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.parametrize import is_parametrized

from pyro_dpvae.nn import (
    PIXEL_NETWORKS,
    AbstractPixelNetwork,
    GatedPixelNetwork,
    LocalPixelNetwork,
    MaskedPixelNetwork,
    has_weight_norm,
    normalize_weights,
    started_from_data,
)
from pyro_dpvae.nn.masked import MaskedConv2d, RowCache, block, up_to

SIZE = (6, 8)
FEATURES = 2
NETWORKS: dict[str, Callable[[], AbstractPixelNetwork]] = {
    "local-4x2": lambda: _network(LocalPixelNetwork, width=4),
    "local-5x3": lambda: _network(LocalPixelNetwork, channels=3, columns=5, rows=3, width=4),
    "local-7x4-grey": lambda: _network(
        LocalPixelNetwork, channels=3, columns=7, rows=4, width=4, grey=True
    ),
    "local-1x1": lambda: _network(LocalPixelNetwork, columns=1, rows=1, width=4),
    "masked": lambda: _network(MaskedPixelNetwork, kernels=(3, 3, 3), width=4),
    "masked-untied": lambda: _network(MaskedPixelNetwork, kernels=(5, 3), width=4, tied=False),
    "gated": lambda: _network(GatedPixelNetwork, channels=3, width=4, depth=2),
    "masked-normalized": lambda: _network(
        MaskedPixelNetwork, kernels=(3, 3), width=4, weight_norm=True
    ),
    "gated-normalized": lambda: _network(GatedPixelNetwork, width=4, depth=2, weight_norm=True),
    "local-normalized": lambda: _network(LocalPixelNetwork, width=4, weight_norm=True),
    "gated-wide": lambda: _network(GatedPixelNetwork, width=4, depth=1, kernel=5),
}


def _network(
    kind: Callable[..., AbstractPixelNetwork], *, channels: int = 1, **options: object
) -> AbstractPixelNetwork:
    torch.manual_seed(0)
    network = kind((channels, *SIZE), FEATURES, raw_shape=(2, *SIZE), **options)
    for parameter in network.parameters():  # some are zero at first, and would hide paths
        nn.init.normal_(parameter, std=0.4)
    return network


def _data(network: AbstractPixelNetwork, batch: int) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, *network.image_shape), torch.randn(batch, *network.feature_shape)


def _pixels(network: AbstractPixelNetwork) -> Iterator[tuple[int, int]]:
    return product(range(network.image_shape[1]), range(network.image_shape[2]))


@pytest.mark.parametrize("name", NETWORKS)
def test_raw_values_have_gradients_at_every_pixel_of_the_window_and_no_other(name: str) -> None:
    network = NETWORKS[name]().double()
    x, features = (each.double() for each in _data(network, 3))
    x.requires_grad_()
    raw = network(x, features)
    for row, column in _pixels(network):
        (slope,) = torch.autograd.grad(raw[:, 0, row, column].sum(), x, retain_graph=True)
        seen = {(r - row, c - column) for r, c in slope.abs().sum(dim=(0, 1)).nonzero().tolist()}
        inside = {(r - row, c - column) for r, c in _pixels(network)}
        assert seen == network.window & inside


@pytest.mark.parametrize(("columns", "rows", "left", "right"), [(4, 2, 2, 1), (5, 3, 2, 2)])
def test_a_local_window_is_the_papers(columns: int, rows: int, left: int, right: int) -> None:
    network = _network(LocalPixelNetwork, columns=columns, rows=rows)
    above = {(-up, at) for up in range(1, rows + 1) for at in range(-left, right + 1)}
    assert network.window == above | {(0, -at) for at in range(1, left + 1)}
    assert len(above) == columns * rows


def test_masked_layers_have_a_blind_spot_and_gated_stacks_have_none() -> None:
    masked = _network(MaskedPixelNetwork).window
    assert {(-1, 1), (-6, 6), (-1, -6)} <= masked
    assert not {(-1, 2), (-5, 6)} & masked
    gated = _network(GatedPixelNetwork, depth=5, width=2).window
    assert gated == {each for each in block(range(-6, 1), range(-6, 7)) if each < (0, 0)}


@pytest.mark.parametrize("name", NETWORKS)
def test_raw_values_pixel_by_pixel_are_those_of_one_pass(name: str) -> None:
    network = NETWORKS[name]()
    x, features = _data(network, 3)
    raw, sampler = network(x, features), network.sampler(features)
    for row, column in _pixels(network):
        if row not in (1, 2):  # rows of which nobody asks are known later all the same
            expected = raw[:, :, row, column]
            torch.testing.assert_close(sampler.raw_at(row, column), expected, rtol=1e-4, atol=1e-4)
        sampler.put(row, column, x[:, :, row, column])


def test_a_masked_convolution_is_the_sum_over_its_offsets() -> None:
    torch.manual_seed(0)
    offsets = {(-2, 1), (-1, -3), (0, 0), (0, 2)}
    convolution = MaskedConv2d(2, 3, offsets=offsets)
    x = torch.randn(2, 2, 5, 7)
    expected = convolution.bias[:, None, None].expand(2, 3, 5, 7).clone()
    for number, (down, right) in enumerate(sorted(offsets)):
        for row, column in product(range(5), range(7)):
            if 0 <= row + down < 5 and 0 <= column + right < 7:
                seen = x[:, :, row + down, column + right]
                expected[:, :, row, column] += seen @ convolution.weight[:, :, number].T
    torch.testing.assert_close(convolution(x), expected)


def test_a_cache_keeps_the_rows_that_its_kernel_reaches() -> None:
    cache = RowCache(MaskedConv2d(1, 1, offsets=up_to(5)), batch=2, width=9)
    assert cache._rows.shape == (2, 1, 3, 9 + 4)


def test_grey_windows_see_no_colour() -> None:
    network = NETWORKS["local-7x4-grey"]()
    x, features = _data(network, 2)
    grey = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(network(grey.expand_as(x), features), network(x, features))


def test_tied_layers_have_the_weights_of_one() -> None:
    sizes = [
        sum(
            parameter.numel() for parameter in _network(MaskedPixelNetwork, tied=tied).parameters()
        )
        for tied in (True, False)
    ]
    assert sizes[1] - sizes[0] == 4 * (12 * 12 * 5 + 12)  # 5 offsets in a mask of type B


@pytest.mark.parametrize("name", PIXEL_NETWORKS)
def test_every_parameter_of_a_new_network_learns_by_its_third_step(name: str) -> None:
    torch.manual_seed(0)
    network = PIXEL_NETWORKS[name]((1, *SIZE), FEATURES, raw_shape=(2, *SIZE), width=4)
    optim = torch.optim.SGD(network.parameters(), lr=0.1)
    x, features = _data(network, 4)
    for _ in range(3):
        optim.zero_grad()
        (network(x, features) - x).square().mean().backward()
        optim.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", PIXEL_NETWORKS)
def test_a_network_is_recorded_as_a_graph(name: str) -> None:
    torch.manual_seed(0)
    network = PIXEL_NETWORKS[name]((1, *SIZE), FEATURES, raw_shape=(2, *SIZE), width=4)
    graph = make_fx(lambda x, features: network(x, features))(*_data(network, 2))
    x, features = _data(network, 2)
    torch.testing.assert_close(graph(x, features), network(x, features))


@pytest.mark.parametrize("name", ["local-5x3", "masked", "gated"])
def test_low_precision_comes_back_in_float32(name: str) -> None:
    network = NETWORKS[name]()
    x, features = _data(network, 1)
    exact = network(x, features)
    with torch.autocast("cpu", torch.bfloat16):
        raw, first = network(x, features), network.sampler(features).raw_at(0, 0)
    assert raw.dtype == first.dtype == torch.float32
    torch.testing.assert_close(raw, exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    torch.testing.assert_close(first, exact[:, :, 0, 0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["local-5x3", "masked", "gated"])
def test_an_empty_batch_in_double_precision_gives_an_empty_batch(name: str) -> None:
    network = NETWORKS[name]().double()
    x, features = (each.double() for each in _data(network, 0))
    assert network(x, features).shape == (0, 2, *SIZE)
    sampler = network.sampler(features)
    sampler.put(0, 0, x[:, :, 0, 0])
    raw = sampler.raw_at(0, 1)
    assert raw.shape == (0, 2)
    assert raw.dtype == torch.float64


def test_pixels_are_put_once_each_and_in_order() -> None:
    network = NETWORKS["masked"]()
    sampler = network.sampler(torch.zeros(2, *network.feature_shape))
    with pytest.raises(ValueError, match=r"got \(0, 1\), where \(0, 0\) comes next"):
        sampler.raw_at(0, 1)
    with pytest.raises(ValueError, match=r"shape \(2, 1\) .* got \(2, 3\)"):
        sampler.put(0, 0, torch.zeros(2, 3))
    for row, column in _pixels(network):
        sampler.put(row, column, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="all were put"):
        sampler.raw_at(SIZE[0], 0)


def test_wrong_shapes_are_refused() -> None:
    network = NETWORKS["masked"]()
    x, features = _data(network, 2)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1, 6, 8\), got \(2, 1, 6, 7\)"):
        network(x[..., 1:], features)
    with pytest.raises(ValueError, match="features must have shape"):
        network.sampler(features[:, :1])
    with pytest.raises(ValueError, match="same number of images, got 1 and 2"):
        network(x[:1], features)
    with pytest.raises(ValueError, match="height and width"):
        MaskedPixelNetwork((1, 6, 8), 2, raw_shape=(1, 6, 7))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LocalPixelNetwork, {"grey": True}, "grey=True"),
        (LocalPixelNetwork, {"rows": 0}, "rows must be at least 1"),
        (MaskedPixelNetwork, {"kernels": (3, 5, 3)}, "use tied=False"),
        (MaskedPixelNetwork, {"kernels": (3, 4)}, "must be odd"),
        (MaskedPixelNetwork, {"kernels": ()}, "number of kernels"),
        (MaskedPixelNetwork, {"kernels": (1, 3)}, "at least 3"),
        (GatedPixelNetwork, {"kernel": 1}, "at least 3"),
    ],
)
def test_options_that_give_no_network_are_refused(
    kind: Callable[..., AbstractPixelNetwork], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind((1, *SIZE), FEATURES, raw_shape=(1, *SIZE), **options)


@pytest.mark.parametrize("kind", PIXEL_NETWORKS)
def test_normalized_layers_start_with_outputs_of_mean_0_and_deviation_1(kind: str) -> None:
    torch.manual_seed(0)
    build = PIXEL_NETWORKS[kind]
    network = build((1, *SIZE), FEATURES, raw_shape=(2, *SIZE), weight_norm=True)
    assert has_weight_norm(network)
    assert not has_weight_norm(build((1, *SIZE), FEATURES, raw_shape=(2, *SIZE)))
    x, features = 3 + 5 * torch.randn(200, 1, *SIZE), 1 + torch.randn(200, FEATURES, *SIZE)
    with started_from_data(network):
        network(x, features)
    outputs: dict[nn.Module, Tensor] = {}

    def kept(layer: nn.Module, args: object, y: Tensor) -> None:
        outputs.setdefault(layer, y)  # tied layers run again

    for layer in network.modules():
        if is_parametrized(layer):
            layer.register_forward_hook(kept)
    raw = network(x, features)
    assert len(outputs) > 3
    for layer, y in outputs.items():
        channels = y.detach().movedim(1, -1).flatten(0, -2)
        expected = torch.full(channels.shape[1:], layer.initial_deviation)  # type: ignore[arg-type]
        torch.testing.assert_close(channels.std(0), expected, rtol=1e-3, atol=0)
        if layer.bias is not None:
            assert float(channels.mean(0).abs().max()) < 1e-4
    assert float(raw.detach().std()) == pytest.approx(1.0, rel=1e-3)
    assert {layer.initial_deviation for layer in outputs} == {0.1, 1.0}


def test_a_start_keeps_constant_outputs_and_starts_each_layer_once() -> None:
    layer = nn.Linear(2, 3)
    normalize_weights(layer)
    weight = layer.weight.detach().clone()
    with started_from_data(layer):
        y = layer(torch.ones(9, 2))
        assert float(y.detach().abs().max()) < 1e-6
        after = layer(torch.randn(9, 2))
    torch.testing.assert_close(layer.weight, weight)
    assert float(after.detach().std()) > 0.01
