"""Convolutional ladders with four latent layers, joined as channels, for SVHN and CelebA."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.batched import Batched
from pyro_dpvae.nn.images import (
    ImageLayers,
    UnflattenImage,
    check_image_size,
    conv,
    conv_up,
    dense,
    initialized,
)
from pyro_dpvae.nn.ladder import (
    Concatenation,
    LadderDecoder,
    LadderEncoder,
    check_latent_dims,
    check_latents,
)

__all__ = [
    "ladder_celeba_decoder",
    "ladder_celeba_encoder",
    "ladder_svhn_decoder",
    "ladder_svhn_encoder",
]


def ladder_svhn_encoder(
    image_shape: Sequence[int], *, latent_dims: Sequence[int] = (5, 5, 5, 10), width: int = 64
) -> Batched:
    """Build the ladder (*batch, C, 32, 32) -> (*batch, features) with four latent layers.

    Three stages have two convolutions each, of which the first halves the image, with ``width``, 2
    ``width`` and 4 ``width`` channels. Each latent layer except the top has its own such stage, in
    addition to the one that leads up. The top has two layers of 16 ``width`` units. Batch norm and
    leaky ReLU (0.1) follow every layer.

    Args:
        image_shape: (C, 32, 32).
        latent_dims: the four sizes of the latents, bottom first; the default is the source's.
        width: channels of the first stage.

    Raises:
        ValueError: for images that are not 32 x 32, or another number of layers.

    References:
        Zhao, Song, Ermon (2017), Learning hierarchical features from generative models; layers
        of the authors' code. Their convolutions without a stride are 4 x 4, ours 3 x 3.

    Example:
        >>> ladder_svhn_encoder((3, 32, 32), latent_dims=(5, 5, 5, 10), width=4).out_shape
        (1856,)
    """
    return _encoder(_SVHN, image_shape, latent_dims=latent_dims, width=width)


def ladder_svhn_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    latent_dims: Sequence[int] = (5, 5, 5, 10),
    width: int = 64,
) -> Batched:
    """Build the ladder (*batch, sum(latent_dims)) -> (*batch, C, 32, 32) with four latent layers.

    Three hidden layers of 16 ``width`` units follow the top latent layer and are joined to a
    hidden layer of the third. Transposed convolutions from 4 x 4 follow, joined to maps of the
    second latent layer at 8 x 8 and of the bottom one at 16 x 16. Batch norm and leaky ReLU (0.1)
    follow all layers except the last.

    Args:
        latent_dim: sum(latent_dims).
        raw_shape: (C, 32, 32).
        latent_dims: the four sizes of the latents, bottom first; the default is the source's.
        width: channels at 16 x 16.

    Raises:
        ValueError: for images that are not 32 x 32, another number of layers, or another
            latent_dim.

    References:
        Zhao, Song, Ermon (2017); layers of the authors' code, without their final sigmoid, which
        is part of the likelihood here.

    Example:
        >>> ladder_svhn_decoder(25, (3, 32, 32), latent_dims=(5, 5, 5, 10), width=4).out_shape
        (3, 32, 32)
    """
    return _decoder(_SVHN, latent_dim, raw_shape, latent_dims=latent_dims, width=width)


def ladder_celeba_encoder(
    image_shape: Sequence[int], *, latent_dims: Sequence[int] = (10, 10, 10, 10), width: int = 64
) -> Batched:
    """Build the ladder (*batch, C, 64, 64) -> (*batch, features) with four latent layers.

    As ``ladder_svhn_encoder``, but its stages have 2, 3 and 3 convolutions and end in ``width``
    channels at 32 x 32, 4 ``width`` at 8 x 8 and 8 ``width`` at 4 x 4.

    Args:
        image_shape: (C, 64, 64).
        latent_dims: the four sizes of the latents, bottom first; the default is the source's.
        width: channels of the first stage.

    Raises:
        ValueError: for images that are not 64 x 64, or another number of layers.

    References:
        Zhao, Song, Ermon (2017); widths of the authors' code for CelebA, with the differences of
        ``ladder_svhn_encoder``. Which convolutions halve the image is our interpretation.

    Example:
        >>> ladder_celeba_encoder((3, 64, 64), latent_dims=(10, 10, 10, 10), width=4).out_shape
        (5696,)
    """
    return _encoder(_CELEBA, image_shape, latent_dims=latent_dims, width=width)


def ladder_celeba_decoder(
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    latent_dims: Sequence[int] = (10, 10, 10, 10),
    width: int = 64,
) -> Batched:
    """Build the ladder (*batch, sum(latent_dims)) -> (*batch, C, 64, 64) with four latent layers.

    As ``ladder_svhn_decoder``, but the second latent layer is joined at 8 x 8 and the bottom one
    at 32 x 32.

    Args:
        latent_dim: sum(latent_dims).
        raw_shape: (C, 64, 64).
        latent_dims: the four sizes of the latents, bottom first; the default is the source's.
        width: channels at 32 x 32.

    Raises:
        ValueError: for images that are not 64 x 64, another number of layers, or another
            latent_dim.

    References:
        Zhao, Song, Ermon (2017); "one stage deeper" than SVHN's follows the authors' code, the
        sizes of its maps are our interpretation.

    Example:
        >>> ladder_celeba_decoder(40, (3, 64, 64), latent_dims=(10, 10, 10, 10), width=4).out_shape
        (3, 64, 64)
    """
    return _decoder(_CELEBA, latent_dim, raw_shape, latent_dims=latent_dims, width=width)


@dataclass(frozen=True)
class _Plan:
    """The layers of a convolutional ladder, in units of its width.

    Attributes:
        name: name of the network.
        side: side length of the images.
        stages: the convolutions of each stage, as channels and stride, bottom first.
        ups: the channels of the transposed convolutions after each map of a layer, top first; the
            last entry is followed by one more, which returns the raw values.
    """

    name: str
    side: int
    stages: tuple[tuple[tuple[int, int], ...], ...]
    ups: tuple[tuple[int, ...], ...]


_SVHN = _Plan(
    "ladder-svhn",
    32,
    stages=(((1, 2), (1, 1)), ((2, 2), (2, 1)), ((4, 2), (4, 1))),
    ups=((2,), (1,), ()),
)
_CELEBA = _Plan(
    "ladder-celeba",
    64,
    stages=(((1, 2), (1, 1)), ((2, 2), (2, 1), (4, 2)), ((4, 1), (8, 2), (8, 1))),
    ups=((4,), (2, 1), ()),
)
_LAYERS, _SMALLEST = 4, 4


def _encoder(
    plan: _Plan, image_shape: Sequence[int], *, latent_dims: Sequence[int], width: int
) -> Batched:
    channels = check_image_size(plan.name, image_shape, side=plan.side, others="'ladder-mlp'")
    latent_dims = check_latent_dims(latent_dims, network=plan.name, number=_LAYERS)
    units = 16 * check_positive_int("width", width)
    inputs = [channels, *(width * stage[-1][0] for stage in plan.stages)]
    side, towers, widths = plan.side, [], []
    for start, stage in zip(inputs, plan.stages, strict=False):
        for _, stride in stage:
            side //= stride
        widths.append(width * stage[-1][0] * side**2)
        towers.append(ImageLayers(*_stage(start, stage, width), nn.Flatten()))
    top = nn.Sequential(nn.Flatten(), *dense(widths[-1], units, units))
    widths.append(units)
    stages = [
        ImageLayers(*_stage(start, stage, width))
        for start, stage in zip(inputs, plan.stages, strict=False)
    ]
    body = LadderEncoder(stages, [*towers, top], latent_dims=latent_dims, widths=widths)
    return Batched(initialized(body), in_shape=image_shape, out_shape=(sum(widths),))


def _decoder(
    plan: _Plan,
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    latent_dims: Sequence[int],
    width: int,
) -> Batched:
    channels = check_image_size(plan.name, raw_shape, side=plan.side, others="'ladder-mlp'")
    latent_dims = check_latent_dims(latent_dims, network=plan.name, number=_LAYERS)
    units = 16 * check_positive_int("width", width)
    smallest = (width * plan.stages[-1][-1][0], _SMALLEST, _SMALLEST)
    size = smallest[0] * _SMALLEST**2
    # Each entry starts from the output of the previous one, joined to a map of its layer.
    layers: list[nn.Module] = [*dense(2 * units, size), UnflattenImage(*smallest)]
    inputs, side = smallest[0], _SMALLEST
    stages, branches = [], [dense(latent_dims[2], units)]
    for layer, ups in zip((1, 0, None), plan.ups, strict=True):
        for outputs in ups:
            layers += conv_up(inputs, width * outputs)
            inputs, side = width * outputs, 2 * side
        if layer is None:
            layers.append(nn.ConvTranspose2d(inputs, channels, 4, stride=2, padding=1))
        else:
            branch = dense(latent_dims[layer], inputs * side**2)
            branches.append(nn.Sequential(*branch, UnflattenImage(inputs, side, side)))
        stages.append(nn.Sequential(*layers))
        layers, inputs = [], 2 * inputs
    body = LadderDecoder(
        [*reversed(stages), dense(latent_dims[-1], units, units, units)],
        reversed(branches),
        [Concatenation() for _ in branches],
        latent_dims=latent_dims,
    )
    in_shape = (check_latents(latent_dim, latent_dims),)
    return Batched(initialized(body), in_shape=in_shape, out_shape=raw_shape)


def _stage(inputs: int, stage: tuple[tuple[int, int], ...], width: int) -> list[nn.Module]:
    """Return the convolutions of a stage."""
    layers: list[nn.Module] = []
    for outputs, stride in stage:
        layers += conv(inputs, width * outputs, stride=stride)
        inputs = width * outputs
    return layers
