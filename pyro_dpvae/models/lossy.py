"""The variational lossy autoencoder: z carries what the decoder's window does not see."""

from typing import final

import pyro
from torch import Tensor

from pyro_dpvae.decoders import AutoregressiveDecoder
from pyro_dpvae.models._base import AbstractVAE, plate_size
from pyro_dpvae.ownership import plain
from pyro_dpvae.priors import AbstractPrior
from pyro_dpvae.sites import LATENT, OBSERVED, PLATE

__all__ = ["LossyVAE"]


@final
class LossyVAE(AbstractVAE):
    """The model p(x, z) = p(z) prod_i p(x_i | x in a window before i, z), for each datum.

    Why z is used at all, or not: sent by bits-back coding, a datum costs

        E_q[log q(z | x) - log p(z) - log p(x | z)] = -log p(x) + KL(q(z | x) || p(z | x))

    nats. The last term is what a code in z costs beyond the best; it is 0 where z says nothing of
    x and q is the prior. So what p(x | z) can say without z, it says without z, and a decoder that
    sees all pixels before leaves z empty. A small window leaves to z what does not fit into it: z
    holds the global structure, and loses local texture, which is what makes the code lossy. The
    paper uses:

    - the window of ``decoder.pixels``, which decides what z keeps;
    - an autoregressive prior, ``AutoregressivePrior``, which makes the bound tighter and costs no
      more than the inverse flow as a posterior does: with z = f(e) the two are one bound. Any
      other prior goes as well; that a decoupled prior can take its place is our own reading;
    - free bits, ``RegularizedELBO(rate=FreeBitsRate(...))``, without which training may leave z
      unused before it has learnt to use it. For 28 x 28 binary images the paper takes 0.01 nats
      for each pixel, which we read as a threshold of 7.84 on the rate of z. On CIFAR10 it takes
      ``SoftFreeBitsRate``.

    Args:
        prior: p(z).
        decoder: p(x | z).

    Raises:
        ValueError: if prior and decoder differ in the size of z.

    References:
        Chen et al. (2017), Variational lossy autoencoder, sections 2 and 3.

    Example:
        >>> from pyro_dpvae.likelihoods import BernoulliLikelihood
        >>> from pyro_dpvae.nn import ARCHITECTURES, LocalPixelNetwork
        >>> from pyro_dpvae.priors import CouplingPrior
        >>> likelihood = BernoulliLikelihood((1, 8, 8))
        >>> network = ARCHITECTURES["mlp"].decoder(2, (4, 8, 8))
        >>> pixels = LocalPixelNetwork((1, 8, 8), 4, raw_shape=likelihood.raw_shape)
        >>> decoder = AutoregressiveDecoder(network, pixels, likelihood=likelihood)
        >>> LossyVAE(CouplingPrior(2), decoder)(size=5).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, prior: AbstractPrior, decoder: AutoregressiveDecoder) -> None:
        super().__init__(prior, decoder)

    @plain
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the model on a batch x of shape (batch, C, H, W), or draw ``size`` images."""
        with pyro.plate(PLATE, plate_size(x, size)):
            z = pyro.sample(LATENT, self.prior())
            return pyro.sample(OBSERVED, self.decoder(z), obs=x)
