"""The wiring of a ladder: an encoder and a decoder with several latent layers."""

from collections.abc import Iterable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.images import initialized

__all__ = [
    "Concatenation",
    "GatedSum",
    "LadderDecoder",
    "LadderEncoder",
    "LadderHead",
    "check_latent_dims",
    "check_latents",
    "check_wiring",
]


@final
class LadderEncoder(nn.Module):
    """x -> (f_1..f_L), the concatenated features of all layers.

        h_0 = x,    h_l = stage_l(h_{l-1}),    f_l = tower_l(h_{l-1})

    for l = 1..L, without a last stage. A layer's features come from its own tower only.

    Args:
        stages: L - 1 networks, bottom first.
        towers: L networks, each with (N, width) as its output.
        latent_dims: sizes of the latents, bottom first.
        widths: numbers of features, bottom first.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models,
        equations 12 and 13, with h_{l-1} for h_l: in their released code, as here, the bottom
        layer's own tower reads the data.

    Example:
        >>> towers = [nn.Linear(3, 2), nn.Linear(5, 4)]
        >>> encoder = LadderEncoder([nn.Linear(3, 5)], towers, latent_dims=(1, 2), widths=(2, 4))
        >>> encoder(torch.zeros(7, 3)).shape
        torch.Size([7, 6])
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        towers: Iterable[nn.Module],
        *,
        latent_dims: Sequence[int],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.stages, self.towers = nn.ModuleList(stages), nn.ModuleList(towers)
        self.latent_dims, self.widths = check_latent_dims(latent_dims), tuple(widths)

    def forward(self, x: Float[Tensor, "n *data"]) -> Float[Tensor, "n features"]:
        """Return all layers' features, of shape (N, sum(widths))."""
        heights = [x]
        for stage in self.stages:
            heights.append(stage(heights[-1]))
        return torch.cat([tower(h) for tower, h in zip(self.towers, heights, strict=True)], 1)


@final
class LadderHead(nn.Module):
    """(f_1..f_L) -> (mu_1..mu_L, log var_1..log var_L, extra_1..extra_L), concatenated.

    Each latent layer has a linear layer, which reads only that layer's features.

    Args:
        encoder: the encoder of the features.
        extra: number of further outputs, besides means and log variances. They are split evenly
            among the layers; the top layer also gets the remainder.

    Example:
        >>> towers = [nn.Linear(3, 2), nn.Linear(5, 4)]
        >>> encoder = LadderEncoder([nn.Linear(3, 5)], towers, latent_dims=(1, 2), widths=(2, 4))
        >>> LadderHead(encoder, extra=3)(encoder(torch.zeros(7, 3))).shape
        torch.Size([7, 9])
    """

    def __init__(self, encoder: LadderEncoder, *, extra: int) -> None:
        super().__init__()
        self.latent_dims, self.widths = encoder.latent_dims, encoder.widths
        each, rest = divmod(extra, len(self.latent_dims))
        self.extra = (*[each] * (len(self.latent_dims) - 1), each + rest)
        sizes = [2 * size + more for size, more in zip(self.latent_dims, self.extra, strict=True)]
        pairs = zip(self.widths, sizes, strict=True)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        initialized(self)

    def forward(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n outputs"]:
        """Return all layers' outputs, of shape (N, 2 sum(latent_dims) + extra)."""
        parts = zip(
            self.layers, features.split(self.widths, 1), self.latent_dims, self.extra, strict=True
        )
        outputs = [layer(own).split((size, size, more), 1) for layer, own, size, more in parts]
        return torch.cat([part for kind in zip(*outputs, strict=True) for part in kind], 1)


@final
class LadderDecoder(nn.Module):
    """(z_1..z_L), concatenated -> raw values.

        zt_L = stage_L(z_L),    zt_l = stage_l(join_l(zt_{l+1}, branch_l(z_l))),    raw = zt_1

    Args:
        stages: L networks, bottom first; the first returns the raw values.
        branches: L - 1 networks for the latents below the top, bottom first.
        joins: L - 1 modules with two inputs, bottom first.
        latent_dims: sizes of the latents, bottom first.

    References:
        Zhao, Song, Ermon (2017), equations 8 and 9.

    Example:
        >>> stages = [nn.Linear(5, 3), nn.Linear(2, 5)]
        >>> decoder = LadderDecoder(stages, [nn.Linear(1, 5)], [GatedSum(5)], latent_dims=(1, 2))
        >>> decoder(torch.zeros(7, 3)).shape
        torch.Size([7, 3])
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        branches: Iterable[nn.Module],
        joins: Iterable[nn.Module],
        *,
        latent_dims: Sequence[int],
    ) -> None:
        super().__init__()
        self.stages, self.branches = nn.ModuleList(stages), nn.ModuleList(branches)
        self.joins = nn.ModuleList(joins)
        self.latent_dims = check_latent_dims(latent_dims)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n *raw"]:
        """Return the raw values of each datum."""
        *lower, top = z.split(self.latent_dims, dim=1)
        below = list(zip(self.stages, self.joins, self.branches, lower, strict=False))
        y: Tensor = self.stages[-1](top)
        for stage, join, branch, part in reversed(below):
            y = stage(join(y, branch(part)))
        return y


@final
class GatedSum(nn.Module):
    """The join y + gate * u, with a learned gate for each element, initially 0.1.

    Args:
        size: size of y and u.

    References:
        Zhao, Song, Ermon (2017), their released code for MNIST.

    Example:
        >>> GatedSum(2)(torch.ones(1, 2), torch.ones(1, 2))
        tensor([[1.1000, 1.1000]], grad_fn=<AddBackward0>)
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((size,), 0.1))

    def forward(
        self, y: Float[Tensor, "n size"], u: Float[Tensor, "n size"]
    ) -> Float[Tensor, "n size"]:
        """Return the sum."""
        return y + self.gate * u


@final
class Concatenation(nn.Module):
    """The join (y, u): concatenated elements of vectors, or channels of images.

    Example:
        >>> Concatenation()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)).shape
        torch.Size([1, 5, 4, 4])
    """

    def forward(self, y: Float[Tensor, "n _ *image"], u: Float[Tensor, "n _ *image"]) -> Tensor:
        """Return y and u, concatenated along the first dimension after the batch."""
        return torch.cat([y, u], 1)


def check_latent_dims(
    latent_dims: Sequence[int], *, network: str = "a ladder", number: int | None = None
) -> tuple[int, ...]:
    """Return the sizes of latents, of which there must be ``number``, or at least 2."""
    latent_dims = tuple(latent_dims)
    for size in latent_dims:
        check_positive_int(f"every size of {latent_dims}", size)
    if number is not None and len(latent_dims) != number:
        raise ValueError(
            f"{network} needs {number} latent layers, got the sizes {latent_dims}; give {number} "
            "sizes, bottom first, or use network 'ladder-mlp'"
        )
    if len(latent_dims) < 2:
        raise ValueError(
            f"{network} needs at least 2 latent layers, got the sizes {latent_dims}; give more, "
            "bottom first, or use a network that is not a ladder"
        )
    return latent_dims


def check_latents(latent_dim: int, latent_dims: Sequence[int]) -> int:
    """Return the size of z after checking that the layers add up to it."""
    if latent_dim != sum(latent_dims):
        raise ValueError(
            f"the layers of a ladder must add up to latent_dim, got latent_dim={latent_dim} and "
            f"the sizes {tuple(latent_dims)}; use latent_dim={sum(latent_dims)}"
        )
    return latent_dim


def check_wiring(name: str, sizes: Sequence[int], part: nn.Module) -> None:
    """Raise if a part has a ladder whose layers have other sizes.

    Args:
        name: name of the sizes in the message.
        sizes: sizes of the layers, bottom first.
        part: an encoder or decoder.

    Raises:
        ValueError: with both sizes.
    """
    for module in part.modules():
        ladder = isinstance(module, LadderEncoder | LadderDecoder)
        if ladder and module.latent_dims != tuple(sizes):
            raise ValueError(
                f"{name} must equal the sizes of the network's layers, bottom first, got "
                f"{tuple(sizes)} and {module.latent_dims}; build both with the same sizes"
            )
