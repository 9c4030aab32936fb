"""Networks to first order, against autograd."""

import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.nn import ARCHITECTURES, Batched
from pyro_dpvae.nn.linearization import Linearizer, batch_jacobian

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
}


def network(name: str) -> Batched:
    torch.manual_seed(1)
    architecture, shape, options = NETWORKS[name]
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


@pytest.mark.parametrize("name", ["relu", "wide", "leaky", "tanh", "silu", "softplus"])
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
