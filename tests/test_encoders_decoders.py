"""Encoders and decoders: posteriors and data distributions of the right shape and numbers."""

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.likelihoods import LIKELIHOODS, BernoulliLikelihood, GaussianLikelihood
from pyro_dpvae.nn import ARCHITECTURES, Batched, default_architecture


def constant(*values: float) -> Batched:
    """A network of two inputs whose output does not depend on them."""
    layer = nn.Linear(2, len(values))
    layer.weight.data.zero_()
    layer.bias.data.copy_(torch.tensor(values))
    return Batched(layer, in_shape=(2,), out_shape=(len(values),))


def test_the_encoder_reads_means_then_log_variances() -> None:
    q = GaussianEncoder(constant(0.5, -2.0, 0.0, 1.4))(torch.zeros(3, 2))
    assert (q.batch_shape, q.event_shape) == ((3,), (2,))
    torch.testing.assert_close(q.mean, torch.tensor([0.5, -2.0]).expand(3, 2))
    torch.testing.assert_close(q.variance, torch.tensor([0.0, 1.4]).exp().expand(3, 2))


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (1, 8, 8)])
def test_encoder_shapes(batch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    encoder = GaussianEncoder(ARCHITECTURES[default_architecture(shape)].encoder(shape, 6))
    assert encoder.latent_dim == 3
    q = encoder(torch.rand(*batch, *shape))
    assert (q.batch_shape, q.event_shape) == (batch, (3,))
    assert q.rsample().requires_grad


@pytest.mark.parametrize(("raw", "log_scale"), [(1e6, 10.0), (-1e6, -10.0)])
def test_the_encoders_scale_stays_finite_and_positive(raw: float, log_scale: float) -> None:
    q = GaussianEncoder(constant(0.0, raw))(torch.zeros(2))
    torch.testing.assert_close(q.stddev.log(), torch.tensor([log_scale]))
    z = q.rsample()
    q.log_prob(z).backward()
    assert z.isfinite().all()
    assert q.variance.isfinite().all()


@pytest.mark.parametrize("out_shape", [(3,), (2, 2)])
def test_the_encoder_refuses_other_outputs(out_shape: tuple[int, ...]) -> None:
    network = Batched(nn.Identity(), in_shape=out_shape, out_shape=out_shape)
    with pytest.raises(ValueError, match=r"even size, got the shape .*features = 2 \* latent_dim"):
        GaussianEncoder(network)


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
    encoder = GaussianEncoder(pair.encoder(shape, 4, width=2))
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
