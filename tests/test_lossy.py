"""Autoregressive decoders and the lossy VAE, against sums over all images and integrals over z."""

import math
import warnings
from functools import partial

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.decoders import AutoregressiveDecoder, Decoder, images
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AmortizedGaussian, LaplaceGuide, SemiAmortizedGuide
from pyro_dpvae.importance import ImportanceSampler
from pyro_dpvae.inference import CapturedSVI
from pyro_dpvae.likelihoods import (
    AbstractLikelihood,
    BernoulliLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLikelihood,
)
from pyro_dpvae.models import LossyVAE
from pyro_dpvae.nn import ARCHITECTURES, PIXEL_NETWORKS, Batched, MaskedPixelNetwork
from pyro_dpvae.objectives import MutualDivergenceELBO, RegularizedELBO
from pyro_dpvae.priors import CouplingPrior, StandardNormal
from pyro_dpvae.recording.graph import Recording
from tests.pixels import PlainNetwork, PlainSampler, binary_images, plain_decoder

SHAPE = (1, 3, 3)
ALL = binary_images(3, 3)
COLOUR = DiscretizedLogisticMixtureLikelihood((3, 4, 5), components=2)


def tiny_system(
    decoder: AutoregressiveDecoder | None = None,
) -> tuple[LossyVAE, AmortizedGaussian]:
    decoder = plain_decoder(BernoulliLikelihood(SHAPE)) if decoder is None else decoder
    encoder = GaussianEncoder(
        ARCHITECTURES["mlp"].encoder(SHAPE, hidden=(16,)), decoder.latent_dim
    )
    return LossyVAE(StandardNormal(decoder.latent_dim), decoder), AmortizedGaussian(encoder)


def test_the_probabilities_of_all_binary_images_sum_to_one() -> None:
    p = plain_decoder(BernoulliLikelihood(SHAPE)).double()(
        torch.randn(4, 1, 2, dtype=torch.float64)
    )
    log_p = p.log_prob(ALL)
    assert log_p.shape == (4, 512)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(4, dtype=torch.float64))


def test_the_density_is_the_product_over_pixels_of_what_the_sampler_sees() -> None:
    likelihood = DiscretizedLogisticMixtureLikelihood((3, 2, 3), components=2)
    decoder = plain_decoder(likelihood).double()
    z = torch.randn(4, 2, dtype=torch.float64)
    x = (255 * torch.rand(4, 3, 2, 3, dtype=torch.float64)).round() / 255
    sampler, pixel, total = decoder.pixels.sampler(decoder.network(z)), likelihood.at_pixel(), 0
    for row in range(2):
        for column in range(3):
            here = x[:, :, row, column]
            total = total + pixel(sampler.raw_at(row, column)).log_prob(here)
            sampler.put(row, column, here)
    torch.testing.assert_close(decoder(z).log_prob(x), total)


def test_draws_have_the_probabilities_of_the_density() -> None:
    decoder = plain_decoder(BernoulliLikelihood(SHAPE)).double()
    p, count = decoder(torch.randn(2, dtype=torch.float64)), 20_000
    expected = count * p.log_prob(ALL).exp()
    bits = p.sample((count,)).flatten(1).long()
    found = (bits @ (2 ** torch.arange(8, -1, -1))).bincount(minlength=512)
    # Pearson's statistic over the images of which some are expected, and one bin for the rest.
    common = expected >= 5
    squares = ((found - expected).square() / expected)[common].sum()
    rest = expected[~common].sum()
    squares = squares + (found[~common].sum() - rest).square() / rest
    freedom = int(common.sum())
    assert freedom > 30
    assert abs(squares - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("name", PIXEL_NETWORKS)
@pytest.mark.parametrize("likelihood", [BernoulliLikelihood((1, 5, 6)), COLOUR])
def test_draws_with_caches_are_those_of_whole_passes(
    likelihood: AbstractLikelihood, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ARCHITECTURES["mlp"].decoder(2, (2, *likelihood.shape[1:]))
    pixels = PIXEL_NETWORKS[name](likelihood.shape, 2, raw_shape=likelihood.raw_shape)
    for parameter in pixels.parameters():  # some are zero at first
        nn.init.normal_(parameter, std=0.3)
    decoder = AutoregressiveDecoder(network, pixels, likelihood=likelihood).double()
    p = decoder(torch.randn(2, 2, dtype=torch.float64))
    pyro.set_rng_seed(1)
    x = p.sample((3,))
    monkeypatch.setattr(pixels, "sampler", partial(PlainSampler, pixels))
    pyro.set_rng_seed(1)
    assert torch.equal(p.sample((3,)), x)
    assert p.log_prob(x).isfinite().all()


def test_batches_of_z_and_of_draws_broadcast() -> None:
    decoder = plain_decoder(BernoulliLikelihood(SHAPE))
    z, x = torch.randn(4, 5, 2), torch.rand(5, *SHAPE).round()
    p = decoder(z)
    assert (p.batch_shape, p.event_shape) == ((4, 5), SHAPE)
    one_by_one = [decoder(z[k, b]).log_prob(x[b]) for k in range(4) for b in range(5)]
    torch.testing.assert_close(p.log_prob(x), torch.stack(one_by_one).reshape(4, 5))
    wide = decoder(z[0]).expand(torch.Size((3, 5)))
    torch.testing.assert_close(wide.log_prob(x), decoder(z[0]).log_prob(x).expand(3, 5))
    assert wide.sample((2,)).shape == (2, 3, 5, *SHAPE)
    assert decoder(z[0, 0]).sample().shape == SHAPE


def test_data_outside_the_support_or_of_another_shape_are_refused() -> None:
    p = plain_decoder(BernoulliLikelihood(SHAPE))(torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"takes pixels 0 or 1, got 0\.5"):
        p.log_prob(torch.full((4, *SHAPE), 0.5))
    with pytest.raises(ValueError, match=r"data of shape \(\.\.\., 1, 3, 3\), got \(4, 3, 3\)"):
        p.log_prob(torch.zeros(4, 3, 3))


def test_data_are_those_of_a_factorized_decoder() -> None:
    """Data of any number type, and errors that name what is wrong with the data."""
    likelihood, z = BernoulliLikelihood(SHAPE), torch.randn(4, 2)
    x = torch.rand(4, *SHAPE).round()
    decoder = plain_decoder(likelihood)
    for other in (x.double(), x.to(torch.uint8)):
        found = decoder(z).log_prob(other)
        torch.testing.assert_close(found.float(), decoder(z).log_prob(x))
    masked = AutoregressiveDecoder(
        Batched(
            nn.Sequential(nn.Linear(2, 18), nn.Unflatten(-1, (2, 3, 3))),
            in_shape=(2,),
            out_shape=(2, 3, 3),
        ),
        MaskedPixelNetwork(SHAPE, 2, raw_shape=SHAPE, kernels=(3, 3), width=2),
        likelihood=likelihood,
    )
    x[0, 0, -1, -1] = torch.nan
    with pytest.raises(ValueError, match="takes pixels 0 or 1, got NaN or infinity in 1 of 36"):
        masked(z).log_prob(x)


def test_there_is_no_mean_and_images_are_draws() -> None:
    decoder, z = plain_decoder(BernoulliLikelihood(SHAPE)), torch.randn(4, 2)
    with pytest.raises(NotImplementedError, match=r"not tractable.*; draw with sample\(\)"):
        _ = decoder(z).mean
    pyro.set_rng_seed(3)
    drawn = images(decoder, z)
    pyro.set_rng_seed(3)
    assert torch.equal(drawn, decoder(z).sample())
    flat = Decoder(
        Batched(nn.Linear(2, 3), in_shape=(2,), out_shape=(3,)), GaussianLikelihood((3,))
    )
    torch.testing.assert_close(images(flat, z), flat(z).mean)


def test_parts_that_do_not_fit_are_refused() -> None:
    features = Batched(nn.Unflatten(-1, (2, 3, 3)), in_shape=(18,), out_shape=(2, 3, 3))
    pixels = PlainNetwork(SHAPE, 2, raw_shape=SHAPE)
    AutoregressiveDecoder(features, pixels, likelihood=BernoulliLikelihood(SHAPE))
    with pytest.raises(ValueError, match=r"likelihood\.raw_shape, \(30, 3, 3\), got \(1, 3, 3\)"):
        AutoregressiveDecoder(
            features, pixels, likelihood=DiscretizedLogisticMixtureLikelihood(SHAPE)
        )
    with pytest.raises(ValueError, match=r"image_shape, \(1, 3, 3\), got \(1, 9\)"):
        AutoregressiveDecoder(features, pixels, likelihood=BernoulliLikelihood((1, 9)))
    wide = PlainNetwork(SHAPE, 3, raw_shape=SHAPE)
    with pytest.raises(ValueError, match=r"feature_shape, \(3, 3, 3\), got \(2, 3, 3\)"):
        AutoregressiveDecoder(features, wide, likelihood=BernoulliLikelihood(SHAPE))


def test_guides_that_need_raw_values_of_z_alone_refuse_the_decoder() -> None:
    model, guide = tiny_system()
    with pytest.raises(TypeError, match=r"needs a Decoder, got AutoregressiveDecoder; use Semi"):
        LaplaceGuide(guide.encoder, model.decoder, prior=model.prior)
    refined = SemiAmortizedGuide(guide.encoder, model.decoder, prior=model.prior, steps=2)
    x = ALL[5:10].float()
    pyro.infer.SVI(model, refined, pyro.optim.Adam({"lr": 1e-3}), RegularizedELBO()).step(x)
    assert all(parameter.grad is not None for parameter in refined.parameters())


def test_importance_sampling_gives_the_integral_over_z(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Recording] = []
    monkeypatch.setattr(Recording, "compile", lambda self, inputs, **_: recorded.append(self))
    model, guide = tiny_system(plain_decoder(BernoulliLikelihood(SHAPE), latent_dim=1))
    x = ALL[[3, 100, 511]].float()
    nodes = torch.linspace(-7, 7, 401)
    log_joint = model.decoder(nodes[:, None, None]).log_prob(x)
    log_joint = log_joint + model.prior().log_prob(nodes[:, None])[:, None]
    exact = log_joint.double().logsumexp(0) + math.log(14 / 400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it would warn if it stayed eager
        sampler = ImportanceSampler(model, guide, chunk=1000, compile=True)
        weights = torch.cat(list(sampler.chunks(x, num_samples=8000)))
    assert len(recorded) == 1
    found = weights.logsumexp(0) - math.log(8000)
    error = (weights - exact).exp().std(0) / 8000**0.5
    assert ((found - exact).abs() < 4 * error).all()


def test_a_step_is_recorded_and_lowers_the_loss() -> None:
    model, guide = tiny_system(plain_decoder(BernoulliLikelihood(SHAPE)))
    model.prior = CouplingPrior(2, blocks=2, hidden=(8,))
    x = ALL[torch.randint(512, (64,))].float()
    objective = MutualDivergenceELBO(1.0, 0.01, free_bits=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it would warn if it stayed eager
        svi = CapturedSVI(model, guide, pyro.optim.Adam({"lr": 0.01}), objective)
        losses = [float(svi.step(x)) for _ in range(60)]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_the_model_draws_images() -> None:
    model, _ = tiny_system()
    trace = pyro.poutine.trace(model).get_trace(size=4)
    x: Tensor = trace.nodes["x"]["value"]
    assert x.shape == (4, *SHAPE)
    assert ((x == 0) | (x == 1)).all()
    assert not x.requires_grad
