"""Networks to first order, against autograd."""

import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.nn import ARCHITECTURES, Batched
from pyro_dpvae.nn.images import FewChannelsTranspose2d, UnflattenImage
from pyro_dpvae.nn.linearization import Linearizer, batch_jacobian
from pyro_dpvae.nn.some_rows import at_some_rows
from pyro_dpvae.recording.graph import record

LATENT, BATCH = 3, 9

NETWORKS = {
    "relu": ("mlp", (7,), {"hidden": (6, 5)}),
    "wide": ("mlp", (3,), {"hidden": (6, 5)}),
    "image": ("mlp", (2, 3, 4), {"hidden": (5,)}),
    "linear": ("mlp", (7,), {"hidden": ()}),
    "leaky": ("moons", (2,), {}),
    "tanh": ("mlp", (7,), {"hidden": (6,), "activation": "tanh"}),
    "silu": ("mlp", (7,), {"hidden": (6, 5), "activation": "silu"}),
    "softplus": ("mlp", (7,), {"hidden": (6,), "activation": "softplus"}),
    "convolutions": ("mnist", (1, 28, 28), {}),
    "small convolutions": ("small", (1, 4, 4), {}),
    "residual": ("residual", (1, 8, 8), {"width": 2}),
}


def network(name: str) -> Batched:
    torch.manual_seed(1)
    architecture, shape, options = NETWORKS[name]
    if architecture == "small":
        body = nn.Sequential(
            nn.Linear(LATENT, 8),
            nn.SiLU(),
            UnflattenImage(2, 2, 2),
            nn.Conv2d(2, 3, 3, padding=1),
            nn.ReLU(),
            FewChannelsTranspose2d(3, 1, 4, stride=2, padding=1),
        )
        return Batched(body, in_shape=(LATENT,), out_shape=shape).double()
    return ARCHITECTURES[architecture].decoder(LATENT, shape, **options).double()


def exact_jacobian(body: Batched, z: Tensor) -> Tensor:
    """d raw / d z of each datum, (batch, *out, L), differentiable."""
    rows = [
        torch.autograd.functional.jacobian(body, one, create_graph=True, vectorize=True)
        for one in z
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_products_with_the_jacobian_are_autograds(name: str) -> None:
    body = network(name)
    z = torch.randn(BATCH, LATENT, dtype=torch.float64)
    there = Linearizer(body).at(z)
    jacobian = exact_jacobian(body, z)
    torch.testing.assert_close(there.value, body(z))
    dz = torch.randn_like(z)
    torch.testing.assert_close(there.push(dz), torch.einsum("b...l,bl->b...", jacobian, dz))
    u = torch.randn_like(there.value)
    torch.testing.assert_close(there.pull(u), torch.einsum("b...l,b...->bl", jacobian, u))
    for weights in (torch.rand_like(there.value), torch.rand((), dtype=torch.float64)):
        expected = torch.einsum(
            "b...l,b...,b...m->blm", jacobian, weights.expand_as(there.value), jacobian
        )
        torch.testing.assert_close(there.curvature(weights), expected)
    found = batch_jacobian(body, z)
    torch.testing.assert_close(found, jacobian.movedim(-1, 0))


STACKS = ["relu", "wide", "leaky", "tanh", "silu", "softplus", "small convolutions"]


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("isotropic", [True, False])
def test_gradients_of_the_curvature_are_autograds(name: str, isotropic: bool) -> None:
    body = network(name)
    z = torch.randn(BATCH, LATENT, dtype=torch.float64, requires_grad=True)
    there = Linearizer(body).at(z)
    weights = torch.rand((), dtype=torch.float64) if isotropic else torch.rand_like(there.value)
    direction = torch.randn(BATCH, LATENT, LATENT, dtype=torch.float64)
    jacobian = exact_jacobian(body, z).flatten(1, -2)
    weighted = jacobian * weights.expand_as(there.value).flatten(1).unsqueeze(-1)
    targets = [z, *body.parameters()]
    found, expected = (
        torch.autograd.grad((curvature * direction).sum(), targets, allow_unused=True)
        for curvature in (there.curvature(weights), weighted.mT @ jacobian)
    )
    for one, other in zip(found, expected, strict=True):
        # A curvature of ReLUs is constant around z, which autograd may also call unused.
        one, other = (torch.zeros(()) if g is None else g for g in (one, other))
        torch.testing.assert_close(*torch.broadcast_tensors(one.double(), other.double()))


def test_a_layer_that_is_more_than_its_class_says_is_differentiated() -> None:
    body = network("relu")
    assert Linearizer(body).layers is not None
    hooked = network("relu")
    hooked.body[1].register_forward_hook(lambda module, inputs, output: output.square())
    z = torch.randn(BATCH, LATENT, dtype=torch.float64)
    there = Linearizer(hooked).at(z)
    torch.testing.assert_close(there.value, hooked(z))
    u = torch.randn_like(there.value)
    expected = torch.einsum("bol,bo->bl", exact_jacobian(hooked, z), u)
    torch.testing.assert_close(there.pull(u), expected)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(LATENT, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU()],
        [nn.Linear(LATENT, 8), nn.ReLU(), nn.Unflatten(1, (2, 4)), nn.Linear(4, 3)],
        [nn.LeakyReLU(), nn.Linear(LATENT, 4)],
        [nn.ReLU()],
        [nn.Unflatten(1, (1, LATENT)), nn.Linear(LATENT, 4)],
        [nn.Unflatten(1, (1, 1, LATENT)), nn.Conv2d(1, 4, (1, 3), padding="same"), nn.ReLU()],
        [nn.Linear(LATENT, 4), nn.ELU(), nn.Linear(4, 3)],
        [nn.Linear(LATENT, 4), nn.SiLU(inplace=True), nn.Linear(4, 3)],
        [
            nn.Linear(LATENT, 8),
            nn.Unflatten(1, (2, 2, 2)),
            nn.ConvTranspose2d(2, 1, 3, dilation=3, output_padding=2),
        ],
    ],
)
def test_stacks_of_other_orders_are_differentiated(layers: list[nn.Module]) -> None:
    body = nn.Sequential(*layers).double()
    z = torch.randn(BATCH, LATENT, dtype=torch.float64)
    shape = tuple(body(z)[0].shape)
    network = Batched(body, in_shape=(LATENT,), out_shape=shape)
    there = Linearizer(network).at(z)
    jacobian = exact_jacobian(network, z)
    expected = torch.einsum("b...l,b...m->blm", jacobian, jacobian)
    torch.testing.assert_close(there.curvature(torch.ones((), dtype=z.dtype)), expected)
    u = torch.randn_like(there.value)
    torch.testing.assert_close(there.pull(u), torch.einsum("b...l,b...->bl", jacobian, u))


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(2, 4, 3, stride=2),
        nn.Conv2d(2, 4, 3, stride=(3, 2), padding=(0, 1), groups=2),
        nn.Conv2d(2, 4, 2, dilation=2),
        nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1, dilation=2, groups=2),
        FewChannelsTranspose2d(2, 1, 4, stride=2, padding=1),
        FewChannelsTranspose2d(2, 2, (3, 2), stride=(1, 2), bias=False),
        FewChannelsTranspose2d(2, 3, 3),
    ],
    ids=str,
)
def test_convolutions_of_all_kinds_have_the_jacobian_of_autograd(convolution: nn.Module) -> None:
    image = UnflattenImage(2, 7, 6)
    body = nn.Sequential(nn.Linear(LATENT, 84), nn.Tanh(), image, convolution).double()
    z = torch.randn(BATCH, LATENT, dtype=torch.float64)
    network = Batched(body, in_shape=(LATENT,), out_shape=tuple(body(z).shape[1:]))
    assert Linearizer(network).layers is not None
    there, jacobian = Linearizer(network).at(z), exact_jacobian(network, z)
    dz, u = torch.randn_like(z), torch.randn_like(there.value)
    torch.testing.assert_close(there.push(dz), torch.einsum("b...l,bl->b...", jacobian, dz))
    torch.testing.assert_close(there.pull(u), torch.einsum("b...l,b...->bl", jacobian, u))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_transposed_convolution_to_few_channels_is_torchs(channels: int) -> None:
    layer = FewChannelsTranspose2d(5, channels, 4, stride=2, padding=1).double()
    image = torch.randn(3, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.conv_transpose2d(image, layer.weight, layer.bias, stride=2, padding=1)
    found = layer(image)
    torch.testing.assert_close(found, expected)
    weights, targets = torch.randn_like(found), [image, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), targets),
        torch.autograd.grad((expected * weights).sum(), targets),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    sized = layer(image, output_size=[13, 14])
    assert sized.shape == (3, channels, 13, 14)


def test_rows_that_need_no_value_are_zeros_in_replays_too() -> None:
    linear = nn.Linear(2, 3)
    network = nn.Sequential(linear, nn.ReLU())
    rows, like = torch.randn(6, 2), torch.zeros(1, 3)
    recording = record(
        lambda tensors: [at_some_rows(network, tensors[0], tensors[1], like=like)],
        [rows, torch.tensor([True] * 6)],
    )
    nn.init.constant_(linear.bias, 7.0)  # replays see the current parameters
    for needed in ([False] * 6, [True, False, False, True, False, True], [True] * 6):
        (found,) = recording([rows, torch.tensor(needed)])
        expected = torch.where(torch.tensor(needed).unsqueeze(-1), network(rows), 0.0)
        torch.testing.assert_close(found, expected)
