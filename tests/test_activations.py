"""Activations against their formulas."""

import pytest
import torch
from torch import nn

from pyro_dpvae.nn.activations import elu, has_kinks


def test_elu_is_its_formula_with_and_without_a_gradient() -> None:
    x = torch.cat([torch.linspace(-30, 30, 121), torch.tensor([-1e4, -1e-6, 1e-6, 1e4])])
    expected = torch.where(x > 0, x, x.clamp(max=0).double().expm1().float())
    torch.testing.assert_close(elu(x), expected, rtol=1e-6, atol=1e-7)
    x.requires_grad_()
    torch.testing.assert_close(elu(x), expected, rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(elu(x).sum(), x)
    torch.testing.assert_close(gradient, x.clamp(max=0).exp().detach())


ELEMENTWISE = [
    *(nn.CELU(0.5), nn.ELU(), nn.ELU(0.5), nn.GELU(), nn.Hardshrink(), nn.Hardsigmoid()),
    *(nn.Hardswish(), nn.Hardtanh(), nn.LeakyReLU(), nn.LogSigmoid(), nn.Mish(), nn.PReLU()),
    *(nn.ReLU(), nn.ReLU6(), nn.RReLU(), nn.SELU(), nn.SiLU(), nn.Sigmoid(), nn.Softplus()),
    *(nn.Softshrink(), nn.Softsign(), nn.Tanh(), nn.Tanhshrink(), nn.Threshold(0.0, 0.0)),
]


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=str)
def test_activations_have_kinks_where_their_derivatives_jump(activation: nn.Module) -> None:
    x = torch.linspace(-8, 8, 16_002, dtype=torch.float64, requires_grad=True)  # without 0
    (derivative,) = torch.autograd.grad(activation.double().eval()(x).sum(), x)
    # Within 0.001, a smooth derivative changes by no more than the second one, at most 1.1.
    assert has_kinks(activation) == bool(derivative.diff().abs().max() > 0.01)


def test_a_largest_value_has_kinks() -> None:
    assert has_kinks(nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveMaxPool2d(2)))
    assert not has_kinks(nn.AvgPool2d(2))
