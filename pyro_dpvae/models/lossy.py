"""The variational lossy autoencoder: z encodes what the decoder's window does not show."""

from typing import final

from pyro_dpvae.models.vae import AbstractVAE

__all__ = ["LossyVAE"]


@final
class LossyVAE(AbstractVAE):
    """The model p(x, z) = p(z) prod_i p(x_i | x in a window before i, z), for each datum.

    Bits-back coding shows whether z is used. A datum costs

        E_q[log q(z | x) - log p(z) - log p(x | z)] = -log p(x) + KL(q(z | x) || p(z | x))

    nats. The last term is the cost of coding through z; it is 0 if z contains no information on x
    and q is the prior. So z remains unused for everything that p(x | z) can model without it, and
    a decoder that sees all earlier pixels ignores z. A small window leaves the rest to z: it
    encodes the global structure, and loses local texture, which makes the code lossy. The paper
    uses:

    - the window of ``decoder.pixels``, which decides what z encodes;
    - an autoregressive prior, ``AutoregressivePrior``, which makes the bound tighter and costs no
      more than the inverse flow as a posterior does: with z = f(e) the two are one bound. Any
      other prior works as well; using a decoupled prior instead is our idea;
    - free bits, ``RegularizedELBO(rate=FreeBitsRate(...))``, without which training may leave z
      unused before it has learnt to use it. For 28 x 28 binary images the paper uses 0.01 nats
      for each pixel, which we interpret as a threshold of 7.84 on the rate of z. On CIFAR10 it
      uses ``SoftFreeBitsRate``.

    Args:
        prior: p(z).
        decoder: p(x | z), an ``AutoregressiveDecoder``.

    Raises:
        ValueError: if prior and decoder differ in the size of z.

    References:
        Chen et al. (2017), Variational lossy autoencoder, sections 2 and 3.

    Example:
        >>> from pyro_dpvae.decoders import AutoregressiveDecoder
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
