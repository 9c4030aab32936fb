"""Encoders and decoders: posteriors and data distributions of the right shape and numbers."""

from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.likelihoods import LIKELIHOODS, BernoulliLikelihood, GaussianLikelihood
from pyro_dpvae.nn import ARCHITECTURES, LADDERS, Batched, default_architecture, measured


def constant(*values: float) -> GaussianEncoder:
    """An encoder of two inputs whose means and log variances do not depend on them."""
    encoder = GaussianEncoder(nn.Identity(), len(values) // 2, in_shape=(2,))
    layer = encoder.network.body[-1]
    layer.weight.data.zero_()
    layer.bias.data.copy_(torch.tensor(values))
    return encoder


def test_the_encoder_reads_means_then_log_variances() -> None:
    q = constant(0.5, -2.0, 0.0, 1.4)(torch.zeros(3, 2))
    assert (q.batch_shape, q.event_shape) == ((3,), (2,))
    torch.testing.assert_close(q.mean, torch.tensor([0.5, -2.0]).expand(3, 2))
    torch.testing.assert_close(q.variance, torch.tensor([0.0, 1.4]).exp().expand(3, 2))


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (1, 8, 8)])
def test_encoder_shapes(batch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    encoder = GaussianEncoder(ARCHITECTURES[default_architecture(shape)].encoder(shape), 3)
    assert encoder.latent_dim == 3
    q = encoder(torch.rand(*batch, *shape))
    assert (q.batch_shape, q.event_shape) == (batch, (3,))
    assert q.rsample().requires_grad


@pytest.mark.parametrize(("raw", "log_scale"), [(1e6, 10.0), (-1e6, -10.0)])
def test_the_encoders_scale_stays_finite_and_positive(raw: float, log_scale: float) -> None:
    q = constant(0.0, raw)(torch.zeros(2))
    torch.testing.assert_close(q.stddev.log(), torch.tensor([log_scale]))
    z = q.rsample()
    q.log_prob(z).backward()
    assert z.isfinite().all()
    assert q.variance.isfinite().all()


def test_features_of_any_shape_have_a_head() -> None:
    network = nn.Conv2d(1, 3, 3)
    encoder = GaussianEncoder(network, 2, in_shape=(1, 5, 5))
    x = torch.randn(4, 1, 5, 5)
    layer = encoder.network.body[-1]
    assert (layer.in_features, layer.out_features) == (27, 4)
    torch.testing.assert_close(encoder(x).mean, layer(network(x).flatten(1))[:, :2])


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
def test_any_module_is_a_network(batch: tuple[int, ...]) -> None:
    shape, size = (1, 4, 6), 3
    layers = nn.Flatten(), nn.Linear(24, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU()
    encoder = GaussianEncoder(nn.Sequential(*layers), size, in_shape=shape)
    likelihood = BernoulliLikelihood(shape)
    decoder = Decoder(
        nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 24), nn.Unflatten(1, shape)),
        likelihood,
    )
    lazy = nn.Sequential(nn.LazyLinear(24), nn.Unflatten(1, shape))
    given = Decoder(lazy, likelihood, latent_dim=size)
    z = encoder.eval()(torch.rand(*batch, *shape)).rsample()
    assert z.shape == (*batch, size)
    for one in (decoder, given):
        assert one.latent_dim == size
        assert (one(z).batch_shape, one(z).event_shape) == (batch, shape)


def test_finding_shapes_changes_no_network() -> None:
    body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU())
    body[1].eval()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    modes = [module.training for module in body.modules()]
    state = torch.get_rng_state()
    network = measured(body)
    assert (network.in_shape, network.out_shape) == ((3,), (4,))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in body.modules()] == modes
    for name, value in body.state_dict().items():
        assert torch.equal(value, before[name]), name


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GaussianEncoder(nn.Sequential(nn.Flatten(), nn.Linear(784, 8)), 2),
            r"first layer, Flatten, does not tell; set in_shape, such as \(1, 28, 28\)",
        ),
        (
            lambda: GaussianEncoder(nn.Conv2d(3, 4, 3), 2, in_shape=(1, 28, 28)),
            r"does not accept a batch of shape \(2, 1, 28, 28\): .*channels.*; set in_shape",
        ),
        (
            lambda: GaussianEncoder(Pair(), 2, in_shape=(4,)),
            r"must return a tensor \(N, \*out_shape\) .*, got tuple for N = 2",
        ),
        (
            lambda: GaussianEncoder(nn.Linear(2, 4), 0),
            "latent_dim must be at least 1, got 0",
        ),
        (
            lambda: GaussianEncoder(ARCHITECTURES["moons"].encoder((2,)), 2, in_shape=(3,)),
            r"takes data of shape \(2,\), but in_shape is \(3,\); leave in_shape out",
        ),
        (
            lambda: GaussianEncoder(LADDERS["ladder-mlp"].encoder((4,), latent_dims=(2, 1)), 2),
            r"must add up to latent_dim, got latent_dim=2 and the sizes \(2, 1\)",
        ),
        (
            lambda: Decoder(nn.Linear(2, 6), BernoulliLikelihood((1, 2, 3))),
            r"raw values, of shape \(1, 2, 3\), got \(6,\); build it with raw_shape",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (3, 32, 32), (1, 8, 8)])
def test_decoder_with_every_likelihood(name: str, shape: tuple[int, ...]) -> None:
    likelihood = LIKELIHOODS[name](shape)
    architecture = ARCHITECTURES[default_architecture(shape)]
    decoder = Decoder(architecture.decoder(3, likelihood.raw_shape), likelihood)
    assert decoder.latent_dim == 3
    for batch in [(), (2,), (4, 2)]:
        p = decoder(torch.randn(*batch, 3))
        assert (p.batch_shape, p.event_shape) == (batch, shape)
        assert p.log_prob(torch.zeros(*batch, *shape)).isfinite().all()


def test_the_decoder_is_the_likelihood_of_the_networks_values() -> None:
    network = Batched(nn.Linear(2, 3), in_shape=(2,), out_shape=(3,))
    z, x = torch.randn(5, 2), torch.randn(5, 3)
    p = Decoder(network, GaussianLikelihood((3,), variance=0.04))(z)
    expected = torch.distributions.Normal(network(z), 0.2).log_prob(x).sum(-1)
    torch.testing.assert_close(p.log_prob(x), expected)


def test_particles_and_data_in_plates() -> None:
    shape = (1, 8, 8)
    pair = ARCHITECTURES["residual"]
    encoder = GaussianEncoder(pair.encoder(shape, width=2), 2)
    decoder = Decoder(pair.decoder(2, shape, width=2), BernoulliLikelihood(shape))
    x = torch.rand(5, *shape).round()

    def joint(x: Tensor) -> None:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("data", 5):
            z = pyro.sample("z", encoder(x))
            assert z.shape == (3, 5, 2)
            pyro.sample("x", decoder(z), obs=x)

    trace = pyro.poutine.trace(joint).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (3, 5)


def test_the_decoder_refuses_a_network_that_does_not_fit() -> None:
    network = ARCHITECTURES["mlp"].decoder(2, (1, 8, 8))
    likelihood = LIKELIHOODS["logistic"]((1, 8, 8))
    with pytest.raises(
        ValueError,
        match=r"\(2, 8, 8\), got \(1, 8, 8\); build it with raw_shape = likelihood\.raw_shape",
    ):
        Decoder(network, likelihood)
    image = Batched(nn.Identity(), in_shape=(1, 8, 8), out_shape=(1, 8, 8))
    with pytest.raises(ValueError, match=r"vector of latents, got in_shape \(1, 8, 8\)"):
        Decoder(image, BernoulliLikelihood((1, 8, 8)))
