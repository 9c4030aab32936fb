"""The base class of models: a prior over one latent vector, and a decoder."""

from torch import Tensor

from pyro_dpvae._checks import check_kind, check_positive_int
from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.ownership import OwnedModule
from pyro_dpvae.priors import AbstractPrior

__all__ = ["AbstractVAE", "plate_size"]


class AbstractVAE(OwnedModule):
    """A model p(x, z) = p(z) p(x | z) of a prior and a decoder.

    A subclass is the Pyro program. Its latents may be at several sites; concatenated to one vector
    z they have the distribution ``prior()``, and ``decoder(z)`` is the distribution of the data.
    Metrics, plots and sampling use only these two.

    Args:
        prior: p(z).
        decoder: p(x | z).

    Raises:
        TypeError: if an argument has another type.
        ValueError: if prior and decoder differ in the size of z.
    """

    def __init__(self, prior: AbstractPrior, decoder: AbstractDecoder) -> None:
        check_kind(
            "prior",
            prior,
            AbstractPrior,
            rule="a prior of this library, such as StandardNormal(2); wrap a distribution in "
            "FixedPrior",
        )
        check_kind(
            "decoder",
            decoder,
            AbstractDecoder,
            rule="a decoder, such as Decoder(network, likelihood), or your own subclass of "
            "AbstractDecoder",
        )
        if prior.latent_dim != decoder.latent_dim:
            raise ValueError(
                "prior and decoder must agree on latent_dim, "
                f"got {prior.latent_dim} and {decoder.latent_dim}"
            )
        super().__init__()
        self.prior = prior
        self.decoder = decoder


def plate_size(x: Tensor | None, size: int) -> int:
    """Return the batch size: that of x, or else ``size``.

    Raises:
        ValueError: if there is no x, and ``size`` is below 1.
    """
    return check_positive_int("size", size) if x is None else len(x)
