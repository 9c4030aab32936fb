"""The autoregressive prior: what depends on what, and by what map."""

import pytest
import torch
from torch.autograd.functional import jacobian

from pyro_dpvae.nn.flow_steps import _shift_and_log_scale
from pyro_dpvae.priors import AutoregressivePrior

LATENT = 5


def made(blocks: int, *, mean_only: bool, direct: bool = False) -> AutoregressivePrior:
    torch.manual_seed(0)
    prior = AutoregressivePrior(
        LATENT, blocks=blocks, hidden=(20, 15), mean_only=mean_only, direct=direct
    ).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("mean_only", [False, True])
def test_the_jacobian_of_a_block_is_triangular_and_full(mean_only: bool, direct: bool) -> None:
    prior = made(1, mean_only=mean_only, direct=direct)
    z = torch.randn(LATENT, dtype=torch.float64)
    slopes = jacobian(lambda z: prior.to_generation(z)[0], z)
    assert torch.equal(slopes, slopes.tril())
    assert (slopes[torch.ones_like(slopes).tril().bool()] != 0).all()
    torch.testing.assert_close(prior.to_generation(z)[1], slopes.diagonal().log().sum())


def test_orders_alternate() -> None:
    prior = made(2, mean_only=False)
    z = torch.randn(LATENT, dtype=torch.float64)
    last = jacobian(lambda z: prior.steps[1](z, None)[0], z)
    assert torch.equal(last, last.triu())
    assert (jacobian(lambda z: prior.to_generation(z)[0], z) != 0).all()


def test_means_alone_keep_volumes() -> None:
    prior = made(3, mean_only=True, direct=True)
    z = torch.randn(7, LATENT, dtype=torch.float64)
    z0, log_det = prior.to_generation(z)
    assert not torch.allclose(z0, z, atol=0.1)
    assert torch.equal(log_det, torch.zeros(7).double())


def test_direct_connections_act_past_the_hidden_layers() -> None:
    prior = made(1, mean_only=True, direct=True)
    network = prior.steps[0].network
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.zero_()
            layer.bias.zero_()
    z = torch.randn(7, LATENT, dtype=torch.float64)
    torch.testing.assert_close(prior.to_generation(z)[0], z + z @ network.direct.weight.tril(-1).T)


def test_a_single_coordinate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2 for an autoregressive prior, got 1; use St"):
        AutoregressivePrior(1)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("mean_only", [False, True])
def test_draws_are_those_of_whole_passes(mean_only: bool, direct: bool) -> None:
    prior = made(3, mean_only=mean_only, direct=direct)
    z0 = torch.randn(2, 7, LATENT, dtype=torch.float64)
    z = z0
    for step in reversed(prior.steps):
        start = z
        for _ in range(LATENT):  # each pass finds one more coordinate for good
            raw = step.network(z)
            shift, log_scale = (raw, 0 * raw) if mean_only else _shift_and_log_scale(raw)
            z = (start - shift) * torch.exp(-log_scale)
    torch.testing.assert_close(prior.to_representation(z0), z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [(4, 2), (8, 4), (7, 2), (3, 9, 4), (2, 30, 1)])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize("gradient", [False, True])
def test_draws_are_inverted_whatever_the_sizes_of_the_layers(
    hidden: tuple[int, ...], size: int, gradient: bool
) -> None:
    torch.manual_seed(0)
    prior = AutoregressivePrior(size, blocks=2, hidden=hidden, mean_only=False).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z0 = torch.randn(5, size, dtype=torch.float64)
    with torch.set_grad_enabled(gradient):
        z = prior.to_representation(z0)
    torch.testing.assert_close(prior.to_generation(z)[0], z0)


def test_gradients_of_draws_are_those_of_the_inverse_map() -> None:
    prior = made(2, mean_only=False, direct=True)
    z0 = torch.randn(LATENT, dtype=torch.float64)
    z = prior.to_representation(z0)
    forth = jacobian(lambda z: prior.to_generation(z)[0], z.detach())
    back = jacobian(prior.to_representation, z0)
    torch.testing.assert_close(forth @ back, torch.eye(LATENT, dtype=torch.float64))
    # g(z; theta) = z0 for all parameters theta, so dz/dtheta = -(dg/dz)^-1 dg/dtheta.
    weights = list(prior.parameters())
    at = prior.to_generation(z.detach())[0]
    for i in range(LATENT):
        found = torch.autograd.grad(z[i], weights, retain_graph=True)
        expected = torch.autograd.grad(-at, weights, back[i], retain_graph=True)
        torch.testing.assert_close(found, expected)
