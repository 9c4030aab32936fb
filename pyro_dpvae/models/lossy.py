"""The variational lossy autoencoder: z carries what the decoder's window does not see."""

from typing import final

import pyro
from torch import Tensor

from pyro_dpvae.decoders import AutoregressiveDecoder
from pyro_dpvae.models._base import AbstractVAE
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.sites import LATENT, OBSERVED, PLATE

__all__ = ["LossyVAE"]


@final
class LossyVAE(AbstractVAE):
    """The model p(x, z) = p(z) prod_i p(x_i | x in a window before i, z), for each datum.

    Why z is used at all, or not: sent by bits-back coding, a datum costs

        E_q[log q(z | x) - log p(z) - log p(x | z)] = -log p(x) + KL(q(z | x) || p(z | x))

    nats. The last term is what a code in z costs beyond the best, and is 0 where x and z are
    independent. So what p(x | z) can say without z, it says without z, and a decoder that sees
    all pixels before leaves z empty. A small window leaves to z what does not fit into it: z
    holds the global structure, and loses local texture, which is what makes the code lossy. The
    paper counts on three things:

    - the window of ``decoder.pixels``, which decides what z keeps;
    - an autoregressive prior, ``AutoregressivePrior``, which makes the bound tighter and costs no
      more than the inverse flow as a posterior does: with z = f(e) the two are one bound. Any
      other prior goes as well; that a decoupled prior can take its place is our own reading;
    - free bits, ``ELBO(rate=FreeBits(...))``, without which training may leave z unused before it
      has learnt to use it. For 28 x 28 binary images the paper takes 0.01 nats for each pixel,
      which we read as a threshold of 7.84 on the rate of z. On CIFAR10 it takes ``SoftFreeBits``.

    Args:
        prior: p(z).
        decoder: p(x | z).

    Raises:
        ValueError: if prior and decoder differ in the size of z.

    References:
        Chen, Kingma, Salimans, Duan, Dhariwal, Schulman, Sutskever, Abbeel (2017), Variational
        lossy autoencoder, sections 2 and 3.

    Example:
        The network's window is the pixel to the left, so that z is left with all else:

        >>> import torch
        >>> from torch import nn
        >>> from pyro_dpvae.likelihoods import Bernoulli
        >>> from pyro_dpvae.nn import AbstractPixelNetwork, AbstractPixelSampler, Batched
        >>> from pyro_dpvae.priors import CouplingPrior
        >>> class Left(AbstractPixelNetwork):
        ...     def forward(self, x: Tensor, features: Tensor) -> Tensor:
        ...         return features + nn.functional.pad(x, (1, 0))[..., :-1]
        ...     def sampler(self, features: Tensor) -> AbstractPixelSampler:
        ...         raise NotImplementedError
        >>> features = Batched(nn.Unflatten(-1, (1, 2, 2)), in_shape=(4,), out_shape=(1, 2, 2))
        >>> pixels = Left((1, 2, 2), 1, raw_shape=(1, 2, 2))
        >>> decoder = AutoregressiveDecoder(features, pixels, likelihood=Bernoulli((1, 2, 2)))
        >>> model = LossyVAE(CouplingPrior(4), decoder)
        >>> model(torch.ones(5, 1, 2, 2)).shape
        torch.Size([5, 1, 2, 2])
    """

    def __init__(self, prior: AbstractPrior, decoder: AutoregressiveDecoder) -> None:
        super().__init__(prior, decoder)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the model on a batch x of shape (batch, C, H, W), or draw ``size`` images."""
        with pyro.plate(PLATE, size if x is None else len(x)):
            z = pyro.sample(LATENT, self.prior())
            return pyro.sample(OBSERVED, self.decoder(z), obs=x)
