"""Traversals of a ladder: what each layer changes while the others stand."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from matplotlib.figure import Figure
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Independent, Normal

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.plots.samples import draw_images, draw_samples
from pyro_dpvae.priors import AbstractPrior, ProductPrior

__all__ = ["layer_codes", "layers_figure"]

_PANEL = 4.2  # inches


@in_evaluation()
def layer_codes(prior: ProductPrior, origin: Tensor, *, side: int = 8) -> dict[str, Tensor]:
    """Return codes z in which one layer varies and the others are those of ``origin``.

    A layer of two dimensions whose base distribution is N(0, I) goes through the quantiles
    (k - 1/2) / side, k = 1..side, of both coordinates there, row by row: z0_1 grows downwards,
    z0_2 to the right. Any other layer is drawn from its prior.

    Args:
        prior: of the ladder.
        origin: the code to vary, of shape (L,).
        side: the codes are side^2.

    Returns:
        By title of the layer, which says how it varies, bottom first: codes of shape
        (side^2, L).

    Raises:
        ValueError: if ``side`` is below 1, or ``origin`` not one code.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models, section
        6.1, whose grids are straight in z; under a decoupled prior these are curved in z.

    Example:
        >>> from pyro_dpvae.priors import StandardNormal
        >>> prior = ProductPrior([StandardNormal(2), StandardNormal(3)])
        >>> codes = layer_codes(prior, torch.zeros(5), side=3)
        >>> list(codes)
        ['layer 1: quantiles of its two coordinates', 'layer 2: samples of its prior']
        >>> codes["layer 1: quantiles of its two coordinates"][4]  # the middle of the grid
        tensor([0., 0., 0., 0., 0.])
    """
    check_positive_int("side", side)
    if origin.shape != (prior.latent_dim,):
        raise ValueError(
            f"origin must be one code, of shape ({prior.latent_dim},), got {tuple(origin.shape)}"
        )
    codes, parts = {}, origin.split(prior.latent_dims)
    for layer, module in enumerate(prior.priors):
        rows = [part.expand(side**2, -1) for part in parts]
        rows[layer], how = _varied(cast(AbstractPrior, module), origin, side)
        codes[f"layer {layer + 1}: {how}"] = torch.cat(rows, -1)
    return codes


def layers_figure(layers: Mapping[str, Tensor]) -> Figure:
    """Return a figure of traversals with a panel for each layer.

    Args:
        layers: by title, what was decoded of a layer's codes, as many as a square has fields, row
            by row: images (count, channels, height, width) in [0, 1], drawn as this square, or
            vectors.

    Example:
        >>> layers_figure({"layer 1": torch.rand(9, 1, 8, 8)}).axes[0].get_title()
        'layer 1'
    """
    figure = Figure(layout="constrained")
    for panel, (title, drawn) in zip(
        figure.subplots(1, len(layers), squeeze=False)[0], layers.items(), strict=True
    ):
        if drawn.dim() == 4:
            ratio = draw_images(panel, drawn, math.isqrt(len(drawn)))
            panel.set_axis_off()
        else:
            width, height = draw_samples(panel, drawn)
            ratio = height / width
        panel.set_title(title, fontsize=11)
    figure.set_size_inches(_PANEL * len(layers), _PANEL * ratio + 0.4)
    return figure


def _varied(prior: AbstractPrior, like: Tensor, side: int) -> tuple[Tensor, str]:
    """Return codes of one layer, of shape (side^2, its size), and how they vary."""
    if prior.latent_dim != 2 or not _is_standard_normal(prior.base()):
        return prior().sample((side**2,)), "samples of its prior"
    quantiles = torch.special.ndtri((torch.arange(side).to(like) + 0.5) / side)
    codes = prior.to_representation(torch.cartesian_prod(quantiles, quantiles))
    return codes, "quantiles of its two coordinates"


def _is_standard_normal(p: TorchDistributionMixin) -> bool:
    if not isinstance(p, Independent) or not isinstance(p.base_dist, Normal):
        return False
    return bool((p.base_dist.loc == 0).all() and (p.base_dist.scale == 1).all())
