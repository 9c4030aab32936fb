"""Networks against the paper's layer tables, and shapes of everything with everything."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.nn import ARCHITECTURES, Batched, default_architecture

CASES = [
    ("moons", (2,)),
    ("moons", (5,)),
    ("mlp", (7,)),
    ("mlp", (3, 5, 4)),
    ("mnist", (1, 28, 28)),
    ("mnist", (3, 28, 28)),
    ("mnist-factor", (1, 28, 28)),
    ("mnist-factor", (2, 28, 28)),
    ("svhn", (3, 32, 32)),
    ("svhn", (1, 32, 32)),
    ("celeba", (3, 64, 64)),
    ("residual", (1, 4, 4)),
    ("residual", (1, 8, 8)),
    ("residual", (1, 28, 20)),
    ("residual", (2, 64, 5)),
    ("residual", (3, 64, 64)),
    ("residual", (3, 218, 178)),
]


def pair_of(
    name: str, shape: tuple[int, ...], *, raw_shape: tuple[int, ...]
) -> tuple[Batched, Batched]:
    """Encoder and decoder with three latents, narrow where the width is free."""
    options = {"width": 2} if name == "residual" else {}
    pair = ARCHITECTURES[name]
    return pair.encoder(shape, **options), pair.decoder(3, raw_shape, **options)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def doubled(shape: Sequence[int]) -> tuple[int, ...]:
    return (2 * shape[0], *shape[1:])


# Counts of the authors' networks at L = 2, measured on their code.
@pytest.mark.parametrize(
    ("name", "shape", "encoder", "decoder"),
    [
        ("moons", (2,), 5_554, 5_452),
        ("mnist", (1, 28, 28), 233_604, 233_569),
        ("mnist-factor", (1, 28, 28), 1_282_212, 1_281_697),
    ],
)
def test_parameter_counts_are_the_papers(
    name: str, shape: tuple[int, ...], encoder: int, decoder: int
) -> None:
    pair = ARCHITECTURES[name]
    assert parameters(GaussianEncoder(pair.encoder(shape), 2)) == encoder
    assert parameters(pair.decoder(2, shape)) == decoder


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    return (inputs * kernel**2 + 1) * outputs


def test_parameter_counts_of_svhn() -> None:
    encoder = convolution(3, 32, 4) + convolution(32, 32, 4) + 6 * convolution(32, 32, 3)
    encoder += 8 * 2 * 32 + 513 * 20
    decoder = 11 * 512 + 2 * convolution(32, 32, 4) + 5 * convolution(32, 32, 3)
    decoder += convolution(32, 3, 3)
    assert parameters(GaussianEncoder(ARCHITECTURES["svhn"].encoder((3, 32, 32)), 10)) == encoder
    assert parameters(ARCHITECTURES["svhn"].decoder(10, (3, 32, 32))) == decoder


def test_parameter_counts_of_celeba() -> None:
    down = [(3, 32), (32, 64), (64, 128), (128, 256), (256, 256)]
    encoder = sum(convolution(i, o, 4) + 2 * o for i, o in down) + 1025 * 20
    up = [(256, 256), (256, 128), (128, 64), (64, 32)]
    decoder = 11 * 1024 + sum(convolution(i, o, 3) + 2 * o for i, o in up)
    decoder += convolution(32, 3, 3)
    assert parameters(GaussianEncoder(ARCHITECTURES["celeba"].encoder((3, 64, 64)), 10)) == encoder
    assert parameters(ARCHITECTURES["celeba"].decoder(10, (3, 64, 64))) == decoder


# Hidden layers by the tables of the paper's code; the last layer of each network is linear.
@pytest.mark.parametrize(
    ("name", "shape", "kind", "counts"),
    [
        ("moons", (2,), nn.LeakyReLU, (2, 2)),
        ("mnist", (1, 28, 28), nn.ReLU, (6, 6)),
        ("mnist-factor", (1, 28, 28), nn.ReLU, (5, 5)),
        ("svhn", (3, 32, 32), nn.ReLU, (8, 8)),
        ("celeba", (3, 64, 64), nn.LeakyReLU, (5, 5)),
    ],
)
def test_activations_are_the_papers(
    name: str, shape: tuple[int, ...], kind: type[nn.Module], counts: tuple[int, int]
) -> None:
    pair = ARCHITECTURES[name]
    weighted = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    networks = (pair.encoder(shape), pair.decoder(2, shape))
    for network, count, linear in zip(networks, counts, (0, 1), strict=True):
        layers = list(network.body)
        assert sum(isinstance(layer, kind) for layer in layers) == count
        assert sum(isinstance(layer, weighted) for layer in layers) == count + linear
    *_, last = (layer for layer in networks[1].body if not isinstance(layer, nn.Unflatten))
    assert isinstance(last, weighted)


@pytest.mark.parametrize(("name", "shape"), [("moons", (2,)), ("celeba", (3, 64, 64))])
def test_leaky_relu_leaks_a_hundredth(name: str, shape: tuple[int, ...]) -> None:
    pair = ARCHITECTURES[name]
    for network in (pair.encoder(shape), pair.decoder(2, shape)):
        leaky = [layer for layer in network.body if isinstance(layer, nn.LeakyReLU)]
        assert leaky
        for layer in leaky:
            torch.testing.assert_close(
                layer(torch.tensor([-1.0, 2.0])), torch.tensor([-0.01, 2.0])
            )


def test_batch_norm_is_where_the_paper_has_it() -> None:
    def norms(network: Batched) -> int:
        return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())

    counts = {
        name: (norms(pair.encoder(shape)), norms(pair.decoder(2, shape)))
        for name, shape in CASES
        for pair in [ARCHITECTURES[name]]
    }
    assert counts["svhn"] == (8, 0)
    assert counts["celeba"] == (5, 4)
    assert counts["mnist"] == counts["mnist-factor"] == counts["residual"] == (0, 0)
    decoder = ARCHITECTURES["celeba"].decoder(2, (3, 64, 64))
    assert {m.eps for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_shapes(name: str, shape: tuple[int, ...], batch: tuple[int, ...]) -> None:
    encoder, decoder = pair_of(name, shape, raw_shape=doubled(shape))
    assert encoder.in_shape == shape
    assert (decoder.in_shape, decoder.out_shape) == ((3,), doubled(shape))
    assert encoder(torch.randn(*batch, *shape)).shape == (*batch, *encoder.out_shape)
    assert decoder(torch.randn(*batch, 3)).shape == (*batch, *doubled(shape))


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_parameter_learns(name: str, shape: tuple[int, ...]) -> None:
    for network in pair_of(name, shape, raw_shape=shape):
        # Zero-initialised convolutions block those before them until the first step.
        for _ in range(2):
            optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
            optimizer.zero_grad()
            y = network(torch.randn(2, *network.in_shape))
            (y - torch.randn_like(y)).square().sum().backward()
            optimizer.step()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key


def test_a_residual_network_starts_from_identities() -> None:
    shallow = ARCHITECTURES["residual"].encoder((1, 16, 16))
    deep = ARCHITECTURES["residual"].encoder((1, 16, 16), depth=3)
    weighted = [m for m in shallow.body if isinstance(m, nn.Conv2d | nn.Linear)]
    copies = [m for m in deep.body if isinstance(m, nn.Conv2d | nn.Linear)]
    for source, target in zip(weighted, copies, strict=True):
        target.load_state_dict(source.state_dict())
    x = torch.randn(2, 1, 16, 16)
    assert parameters(deep) > parameters(shallow)
    torch.testing.assert_close(deep(x), shallow(x))


@pytest.mark.parametrize(("side", "smallest"), [(4, 4), (7, 7), (8, 4), (9, 5), (64, 4)])
def test_residual_networks_halve_until_small(side: int, smallest: int) -> None:
    decoder = ARCHITECTURES["residual"].decoder(2, (1, side, side), width=2)
    start = next(layer for layer in decoder.body if isinstance(layer, nn.Unflatten))
    assert tuple(start.unflattened_size)[1:] == (smallest, smallest)


def test_mlp_options() -> None:
    encoder = ARCHITECTURES["mlp"].encoder((4,), hidden=(8, 6), activation="tanh")
    decoder = ARCHITECTURES["mlp"].decoder(1, (4,), hidden=(8, 6), activation="tanh")
    assert parameters(encoder) == 5 * 8 + 9 * 6
    assert parameters(decoder) == 2 * 6 + 7 * 8 + 9 * 4
    assert sum(isinstance(layer, nn.Tanh) for layer in decoder.body) == 2
    bare = ARCHITECTURES["mlp"].encoder((4,), hidden=())
    assert (parameters(bare), bare.out_shape) == (0, (4,))


@pytest.mark.parametrize(
    ("name", "side"), [("mnist", 28), ("mnist-factor", 28), ("svhn", 32), ("celeba", 64)]
)
def test_fixed_networks_refuse_other_sizes(name: str, side: int) -> None:
    pair = ARCHITECTURES[name]
    rule = rf"'{name}' needs images of shape \(C, {side}, {side}\), got \(1, 8, 9\); use .*'mlp'"
    with pytest.raises(ValueError, match=rule):
        pair.encoder((1, 8, 9))
    with pytest.raises(ValueError, match=rule):
        pair.decoder(2, (1, 8, 9))
    with pytest.raises(ValueError, match=r"got \(784,\); use network 'residual' or 'mlp'"):
        pair.encoder((784,))


@pytest.mark.parametrize("shape", [(12,), (1, 3, 28), (1, 28)])
def test_residual_networks_refuse_what_is_no_image(shape: tuple[int, ...]) -> None:
    pair = ARCHITECTURES["residual"]
    with pytest.raises(ValueError, match=r"H and W of at least 4, got .*; use network 'mlp'"):
        pair.encoder(shape)
    with pytest.raises(ValueError, match=r"H and W of at least 4, got .*; use network 'mlp'"):
        pair.decoder(2, shape)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="every width of the network must be at least 1, got 0"):
        ARCHITECTURES["mlp"].encoder((4,), hidden=(0,))
    with pytest.raises(ValueError, match="width must be at least 1"):
        ARCHITECTURES["residual"].encoder((1, 8, 8), width=0)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        ARCHITECTURES["residual"].decoder(2, (1, 8, 8), depth=0)


def test_batched_treats_each_datum_alone() -> None:
    network = Batched(nn.Conv2d(1, 2, 3), in_shape=(1, 5, 5), out_shape=(2, 3, 3))
    x = torch.randn(2, 3, 1, 5, 5)
    expected = torch.stack([torch.stack([network(one) for one in row]) for row in x])
    torch.testing.assert_close(network(x), expected)
    assert network(torch.zeros(0, 1, 5, 5)).shape == (0, 2, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8, torch.int64])
@pytest.mark.parametrize(("name", "shape"), [("mlp", (3,)), ("residual", (1, 16, 16))])
def test_data_of_another_dtype_are_refused(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    network = ARCHITECTURES[name].encoder(shape)
    data = torch.zeros(2, *shape, dtype=dtype)
    with pytest.raises(TypeError, match=f"dtype of the networks.*float32, got {dtype}; convert"):
        network(data)
    assert network.double()(data.double()).dtype == torch.float64
    codes = Batched(nn.Embedding(5, 4), in_shape=(3,), out_shape=(3, 4))
    assert codes(torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 3, 4)


def test_batched_refuses_other_shapes() -> None:
    network = Batched(nn.Flatten(), in_shape=(1, 28, 28), out_shape=(784,))
    with pytest.raises(
        ValueError, match=r"shape \(\.\.\., 1, 28, 28\), got \(100, 28, 28\); reshape"
    ):
        network(torch.zeros(100, 28, 28))
    with pytest.raises(ValueError, match=r"got \(28,\)"):
        network(torch.zeros(28))
    wrong = Batched(nn.Flatten(), in_shape=(1, 4, 4), out_shape=(4, 4))
    with pytest.raises(ValueError, match=r"must return the shape \(2, 4, 4\), got \(2, 16\)"):
        wrong(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="in_shape must have at least one dimension"):
        Batched(nn.Flatten(), in_shape=(), out_shape=(1,))


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((2,), "moons"),
        ((3,), "mlp"),
        ((784,), "mlp"),
        ((1, 28, 28), "mnist"),
        ((3, 28, 28), "residual"),
        ((3, 32, 32), "svhn"),
        ((3, 64, 64), "celeba"),
        ((1, 8, 8), "residual"),
        ((1, 28, 20), "residual"),
        ((3, 218, 178), "residual"),
        ((1, 7, 9), "mlp"),
        ((28, 28), "mlp"),
    ],
)
def test_default_architecture(shape: tuple[int, ...], name: str) -> None:
    assert default_architecture(shape) == name
    assert ARCHITECTURES[name].encoder(shape).in_shape == shape


def test_default_architecture_refuses_empty_dimensions() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        default_architecture((1, 0, 28))
