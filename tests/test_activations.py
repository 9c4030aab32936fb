"""Activations against their formulas."""

import torch

from pyro_dpvae.nn.activations import elu


def test_elu_is_its_formula_with_and_without_a_gradient() -> None:
    x = torch.cat([torch.linspace(-30, 30, 121), torch.tensor([-1e4, -1e-6, 1e-6, 1e4])])
    expected = torch.where(x > 0, x, x.clamp(max=0).double().expm1().float())
    torch.testing.assert_close(elu(x), expected, rtol=1e-6, atol=1e-7)
    x.requires_grad_()
    torch.testing.assert_close(elu(x), expected, rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(elu(x).sum(), x)
    torch.testing.assert_close(gradient, x.clamp(max=0).exp().detach())
