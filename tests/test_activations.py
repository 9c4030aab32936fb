"""Activations against their formulas."""

import torch

from pyro_dpvae.nn.activations import elu


def test_elu_is_its_formula_with_its_derivative() -> None:
    x = torch.cat([torch.linspace(-30, 30, 121), torch.tensor([-1e4, -1e-6, 1e-6, 1e4])])
    x = x.double().requires_grad_()
    torch.testing.assert_close(elu(x), torch.where(x > 0, x, x.clamp(max=0).expm1()))
    (gradient,) = torch.autograd.grad(elu(x).sum(), x)
    torch.testing.assert_close(gradient, x.clamp(max=0).exp().detach())
