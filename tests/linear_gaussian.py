"""A linear-Gaussian VAE, whose log p(x), posterior and aggregate posterior are exact."""

import torch
from torch import Tensor, nn

from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AmortizedGaussian
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.models import VAE
from pyro_dpvae.nn import Batched
from pyro_dpvae.priors import StandardNormal

LATENT, DATA, VARIANCE = 2, 3, 0.3


class LinearGaussian:
    """z ~ N(0, I), x ~ N(Wz + b, v I) with orthogonal columns of W: the posterior is diagonal."""

    def __init__(self) -> None:
        directions = torch.linalg.qr(torch.randn(DATA, LATENT, dtype=torch.float64))[0]
        self.weight = directions * torch.tensor([1.5, 0.7], dtype=torch.float64)
        self.bias = torch.randn(DATA, dtype=torch.float64)
        likelihood = GaussianLikelihood((DATA,), variance=VARIANCE)
        decode = _linear(self.weight, self.bias)
        network = Batched(decode, in_shape=(LATENT,), out_shape=(DATA,))
        self.model = VAE(StandardNormal(LATENT).double(), Decoder(network, likelihood)).double()

        precision = 1 + self.weight.square().sum(0) / VARIANCE
        gain = self.weight.T / VARIANCE / precision[:, None]
        log_variance = -precision.log()
        encoder = GaussianEncoder(nn.Identity(), LATENT, in_shape=(DATA,)).double()
        head = encoder.network.body[-1]
        head.weight.data.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        head.bias.data.copy_(torch.cat([-gain @ self.bias, log_variance]))
        self.guide = AmortizedGaussian(encoder)

    def data(self, count: int) -> Tensor:
        z = torch.randn(count, LATENT, dtype=torch.float64)
        noise = torch.randn(count, DATA, dtype=torch.float64)
        return z @ self.weight.T + self.bias + VARIANCE**0.5 * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log p(x) of each datum."""
        covariance = self.weight @ self.weight.T + VARIANCE * torch.eye(DATA, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.bias, covariance).log_prob(x)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    return layer
