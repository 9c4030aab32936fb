"""The VampPrior, against the aggregate posterior of its pseudo-inputs."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.priors import VampPrior

SHAPE = (1, 3, 3)


def made(data: Tensor, bounds: Sequence[float] | None = (0.0, 1.0)) -> VampPrior:
    encoder = GaussianEncoder(ARCHITECTURES["mlp"].encoder(SHAPE, hidden=(8,)), 2)
    return VampPrior(encoder, data, bounds=None if bounds is None else (bounds[0], bounds[1]))


def test_the_density_is_that_of_the_aggregate_posterior_of_the_pseudo_inputs() -> None:
    torch.manual_seed(0)
    prior = made(torch.rand(7, *SHAPE)).double()
    z = torch.randn(20, 2, dtype=torch.float64)
    aggregate = AggregatePosterior.of(prior.encoder, [prior.pseudo_inputs])
    torch.testing.assert_close(prior().log_prob(z), aggregate.log_prob(z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 3.0)])
def test_pseudo_inputs_start_at_the_data_and_stay_in_range(bounds: tuple[float, float]) -> None:
    low, high = bounds
    data = torch.rand(7, *SHAPE) * (high - low) + low
    data[0], data[1] = low, high
    prior = made(data, bounds)
    assert (prior.pseudo_inputs - data).abs().max() < 0.0101 * (high - low)
    prior().log_prob(torch.zeros(2)).backward()
    assert (prior.raw.grad.flatten(1).abs().amax(1) > 0).all()
    with torch.no_grad():
        prior.raw.add_(100 * torch.randn_like(prior.raw))
    assert prior.pseudo_inputs.min() >= low
    assert prior.pseudo_inputs.max() <= high


def test_without_bounds_pseudo_inputs_are_free() -> None:
    data = 9 * torch.randn(7, *SHAPE)
    assert torch.equal(made(data, None).pseudo_inputs, data)


def test_a_call_runs_the_encoder_once() -> None:
    prior = made(torch.rand(7, *SHAPE))
    calls: list[int] = []
    prior.encoder.register_forward_hook(lambda *_: calls.append(1))
    p = prior()
    p.log_prob(p.sample((3,)))
    prior.log_joint(torch.zeros(4, 2))
    assert len(calls) == 2


def test_pseudo_inputs_move_to_different_data() -> None:
    torch.manual_seed(0)
    prior = made(torch.full((7, *SHAPE), 0.5))
    parameter = prior.raw
    data = torch.rand(20, *SHAPE) * 0.9 + 0.05
    prior.start_at(data)
    nearest = torch.cdist(prior.pseudo_inputs.flatten(1), data.flatten(1)).min(1)
    assert nearest.values.max() < 1e-5
    assert len(nearest.indices.unique()) == 7
    assert prior.raw is parameter
    with pytest.raises(
        ValueError, match=r"at least 7 items of shape \(1, 3, 3\), got 6 of \(1, 3, 3\)"
    ):
        prior.start_at(data[:6])


def test_batch_norm_in_training_takes_pseudo_inputs_as_a_batch_of_their_own() -> None:
    prior = made(torch.rand(7, *SHAPE))
    prior.encoder.network.body[0].insert(1, nn.BatchNorm1d(9))
    assert prior.encoder.network.body[0][1].num_batches_tracked == 0
    prior()
    assert prior.encoder.network.body[0][1].num_batches_tracked == 1
    prior.eval()()
    assert prior.encoder.network.body[0][1].num_batches_tracked == 1


def test_pseudo_inputs_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in the bounds \(0.0, 1.0\), got values from 2 to 2"):
        made(torch.full((3, *SHAPE), 2.0))
    with pytest.raises(ValueError, match="bounds must be"):
        made(torch.zeros(3, *SHAPE), (1.0, 1.0))


def test_pseudo_inputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(K, 1, 3, 3\), got \(7, 9\)"):
        made(torch.rand(7, 9))


def test_pseudo_inputs_have_the_precision_of_the_encoder() -> None:
    encoder = GaussianEncoder(ARCHITECTURES["mlp"].encoder(SHAPE, hidden=(8,)), 2).double()
    prior = VampPrior(encoder, torch.rand(7, *SHAPE))
    p = prior()
    assert p.log_prob(p.sample((3,))).dtype == torch.float64
