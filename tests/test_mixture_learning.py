"""Components of a mixture learn whatever their weight, and how many are in use is measured."""

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.encoders import WeightedGaussianEncoder
from pyro_dpvae.guides import RecursiveMixtureGuide
from pyro_dpvae.objectives._draws import by_component
from pyro_dpvae.training import evaluate_elbo
from tests import bimodal


def test_a_components_gradient_does_not_depend_on_its_weight() -> None:
    torch.manual_seed(0)
    size = 200_000
    logits = torch.tensor([0.999, 0.001]).log().requires_grad_()
    loc = torch.tensor([[1.0], [-2.0]], requires_grad=True)
    scale = torch.tensor([[0.5], [1.0]], requires_grad=True)
    parts = (part.expand(size, *part.shape) for part in (logits, loc, scale))
    draws = by_component(DiagonalNormalMixture(*parts))
    mean = torch.stack([weight * z.square().sum(-1) for z, weight in draws]).mean(0).mean()
    # sum_k a_k (mu_k^2 + sigma_k^2), with the gradient of each component alone, a half of it each
    torch.testing.assert_close(mean, torch.tensor(0.999 * 1.25 + 0.001 * 5), atol=0.01, rtol=0)
    found = torch.autograd.grad(mean, (loc, scale, logits))
    torch.testing.assert_close(found[0], loc.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(found[1], scale.detach(), atol=0.02, rtol=0)
    gain = 0.999 * 0.001 * (5 - 1.25)
    torch.testing.assert_close(found[2], torch.tensor([-gain, gain]), atol=2e-4, rtol=0)


def bimodal_module() -> nn.Module:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> None:
            bimodal.model(x)

    return Model()


def fixed(weight: float) -> RecursiveMixtureGuide:
    """Two components of two latents, the first of a weight."""
    encoders = [WeightedGaussianEncoder(nn.Identity(), 2, in_shape=(2,)) for _ in range(2)]
    for encoder, share in zip(encoders, (weight, 1 - weight), strict=True):
        layer = encoder.network.body[-1]
        layer.weight.data.zero_()
        layer.bias.data.zero_()
        layer.bias.data[-1] = torch.tensor(share).log()
    return RecursiveMixtureGuide(encoders, active=2)


def test_held_out_terms_have_the_effective_number_of_components() -> None:
    found = evaluate_elbo(bimodal_module(), fixed(0.75), [bimodal.data(20), bimodal.data(5)])
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert found["effective_components"] == pytest.approx(float(entropy.exp()), rel=1e-5)


def test_a_mixture_of_one_component_in_use_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="the 2 components .* is a single Gaussian"):
        found = evaluate_elbo(bimodal_module(), fixed(0.9999), [bimodal.data(20)])
    assert found["effective_components"] == pytest.approx(1.0, abs=0.01)


def test_a_new_component_starts_from_the_layers_of_the_last_one() -> None:
    pyro.set_rng_seed(0)
    guide = bimodal.mixture(2)
    own = {name: value.clone() for name, value in guide.components[1].state_dict().items()}
    x = bimodal.data(8)
    guide.grow(bimodal.model, [x], steps=1, learning_rate=1e-9, progress=False)
    last, new = (component.state_dict() for component in guide.components)
    *trunk, weight, bias = new
    for name in trunk:
        torch.testing.assert_close(new[name], last[name], atol=1e-7, rtol=0)
    for name in (weight, bias):
        torch.testing.assert_close(new[name], own[name], atol=1e-7, rtol=0)


def test_a_new_component_may_start_close_to_the_last_one() -> None:
    pyro.set_rng_seed(0)
    guide = bimodal.mixture(2, start="copy")
    guide.grow(bimodal.model, [bimodal.data(8)], steps=1, learning_rate=1e-9, progress=False)
    last, new = (dict(component.named_parameters()) for component in guide.components)
    for name, weights in last.items():
        difference = (new[name] - weights).detach()
        if weights.dim() > 1:
            ratio = float(difference.std() / weights.detach().std())
            assert ratio == pytest.approx(0.1, rel=0.3)
        else:
            torch.testing.assert_close(new[name], weights, atol=1e-7, rtol=0)
