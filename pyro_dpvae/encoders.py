"""Encoders, which map x to the posterior q(z | x)."""

from collections.abc import Sequence
from typing import final

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_shape
from pyro_dpvae.nn import with_head

__all__ = ["ClusteringEncoder", "GaussianEncoder", "WeightedGaussianEncoder", "diagonal_normal"]

# Scales from 5e-5 to 2e4, which do not overflow in float32, even when squared.
_LOG_VARIANCE_RANGE = (-20.0, 20.0)


def diagonal_normal(
    mean: Float[Tensor, "*batch latent"], log_variance: Float[Tensor, "*batch latent"]
) -> dist.Independent:
    """Return N(mu, diag sigma^2), of event shape (L,), with log sigma^2 clamped to [-20, 20].

    Args:
        mean: mu, of shape (*batch, L).
        log_variance: log sigma^2, of shape (*batch, L).

    Example:
        >>> import torch
        >>> diagonal_normal(torch.zeros(5, 2), torch.full((5, 2), 1e6)).stddev.log()[0]
        tensor([10., 10.])
    """
    scale = (log_variance.clamp(*_LOG_VARIANCE_RANGE) / 2).exp()
    return dist.Normal(mean, scale).to_event(1)


@final
class GaussianEncoder(nn.Module):
    """q(z | x) = N(z; mu(x), diag sigma^2(x)).

    The encoder adds a linear layer after the network, which returns mu(x) and log sigma^2(x). The
    latter is clamped to [-20, 20]: sigma stays within exp(-10) and exp(10).

    Args:
        network: x -> features, any module from (N, *data) to (N, *features), such as one of
            ``ARCHITECTURES``; a ladder gets a linear layer for each latent layer.
        latent_dim: size L of z.
        in_shape: shape of an item; None takes it from the network, if it is this library's or its
            first layer is a ``torch.nn.Linear``.

    Attributes:
        network: x -> (mu, log sigma^2), including the added layer.
        latent_dim: size L of z.

    Raises:
        TypeError: if the network is not a module, or the size not an integer.
        ValueError: if the network takes other data, its shapes are not known, or it is a ladder of
            another size.

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, appendix C.2.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> encoder = GaussianEncoder(ARCHITECTURES["mnist"].encoder((1, 28, 28)), 2)
        >>> q = encoder(torch.zeros(5, 1, 28, 28))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
        >>> layers = nn.Flatten(), nn.Linear(784, 64), nn.ReLU()
        >>> encoder = GaussianEncoder(nn.Sequential(*layers), 2, in_shape=(1, 28, 28))
        >>> encoder(torch.zeros(5, 1, 28, 28)).event_shape
        torch.Size([2])
    """

    def __init__(
        self, network: nn.Module, latent_dim: int, *, in_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.network = with_head(network, latent_dim, in_shape=in_shape)
        self.latent_dim = latent_dim

    def forward(self, x: Float[Tensor, "..."]) -> dist.Independent:
        """Return q(z | x), of event shape (L,), for x of shape (*batch, *data)."""
        return diagonal_normal(*self.network(x).chunk(2, dim=-1))


@final
class WeightedGaussianEncoder(nn.Module):
    """A component of a mixture: N(z; mu(x), diag sigma^2(x)), and its weight's logit l(x).

    A linear layer after the network returns mu(x), log sigma^2(x), clamped as in
    ``GaussianEncoder``, and l(x). Weights are softmax_m l_m(x) over the components m of a mixture.

    Args:
        network: x -> features, as for ``GaussianEncoder``.
        latent_dim: size L of z.
        in_shape: shape of an item, as for ``GaussianEncoder``.

    Attributes:
        network: x -> (mu, log sigma^2, l), including the added layer.
        latent_dim: size L of z.

    Raises:
        TypeError, ValueError: as for ``GaussianEncoder``.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import ARCHITECTURES
        >>> encoder = WeightedGaussianEncoder(ARCHITECTURES["moons"].encoder((2,)), 4)
        >>> normal, logit = encoder(torch.zeros(5, 2))
        >>> normal.event_shape, logit.shape
        (torch.Size([4]), torch.Size([5]))
    """

    def __init__(
        self, network: nn.Module, latent_dim: int, *, in_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.network = with_head(network, latent_dim, in_shape=in_shape, extra=1)
        self.latent_dim = latent_dim

    def forward(self, x: Float[Tensor, "..."]) -> tuple[dist.Independent, Float[Tensor, "..."]]:
        """Return the normal and its logit, of shape (*batch), for x of shape (*batch, *data)."""
        sizes = (self.latent_dim, self.latent_dim, 1)
        mean, log_variance, logit = self.network(x).split(sizes, dim=-1)
        return diagonal_normal(mean, log_variance), logit.squeeze(-1)


@final
class ClusteringEncoder(nn.Module):
    """q(z | x) of a ladder's concatenated latent layers, and logits of q(y_l | x) for each layer.

    A linear layer after the network, or one for each latent layer of a ladder, returns mu_1..mu_L
    and log sigma_1^2..log sigma_L^2, clamped as in ``GaussianEncoder``, and then for each latent
    layer as many outputs as the largest number of clusters. The first K_l of these are its logits.

    Args:
        network: x -> features, as for ``GaussianEncoder``.
        latent_dims: sizes of the layers, bottom first.
        clusters: numbers K_l of clusters, bottom first.
        in_shape: shape of an item, as for ``GaussianEncoder``.

    Attributes:
        network: x -> outputs, including the added layers.
        latent_dim: size of z, all layers together.

    Raises:
        ValueError: if the numbers of layers differ, and as for ``GaussianEncoder``.

    Example:
        >>> import torch
        >>> from pyro_dpvae.nn import LADDERS
        >>> network = LADDERS["ladder-mnist"].encoder((1, 28, 28), latent_dims=(2, 3), width=4)
        >>> q, logits = ClusteringEncoder(network, (2, 3), clusters=(4, 5))(
        ...     torch.zeros(6, 1, 28, 28)
        ... )
        >>> q.event_shape, [one.shape for one in logits]
        (torch.Size([5]), [torch.Size([6, 4]), torch.Size([6, 5])])
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dims: Sequence[int],
        *,
        clusters: Sequence[int],
        in_shape: Sequence[int] | None = None,
    ) -> None:
        sizes, numbers = check_shape("latent_dims", latent_dims), check_shape("clusters", clusters)
        if len(sizes) != len(numbers):
            raise ValueError(
                "latent_dims and clusters must have one entry per layer, got latent_dims "
                f"{sizes} and clusters {numbers}; give both bottom first"
            )
        super().__init__()
        logits = len(sizes) * max(numbers)
        self.network = with_head(network, sum(sizes), in_shape=in_shape, extra=logits)
        self.latent_dims, self.clusters = sizes, numbers
        self.latent_dim = sum(sizes)

    def forward(
        self, x: Float[Tensor, "..."]
    ) -> tuple[dist.Independent, list[Float[Tensor, "..."]]]:
        """Return q(z | x), of event shape (L,), and logits (*batch, K_l) of each layer."""
        outputs = self.network(x)
        rest = outputs.shape[-1] - 2 * self.latent_dim
        mean, log_variance, logits = outputs.split((self.latent_dim, self.latent_dim, rest), -1)
        of_layers = logits.chunk(len(self.clusters), -1)
        cut = [one[..., :number] for one, number in zip(of_layers, self.clusters, strict=True)]
        return diagonal_normal(mean, log_variance), cut
