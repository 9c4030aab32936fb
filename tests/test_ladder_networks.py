"""The wiring of ladders: which layer sees what, by gradients; sizes; what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.nn import LADDERS, Batched, default_ladder, with_head
from pyro_dpvae.nn.ladder import (
    Concatenation,
    GatedSum,
    LadderDecoder,
    LadderEncoder,
    LadderHead,
)

CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("ladder-mnist", (1, 28, 28), (2, 1, 3), {"width": 2}),
    ("ladder-mnist", (2, 28, 28), (1, 2), {"width": 2}),
    ("ladder-svhn", (3, 32, 32), (1, 2, 1, 3), {"width": 2}),
    ("ladder-celeba", (3, 64, 64), (2, 1, 1, 2), {"width": 2}),
    ("ladder-mlp", (5,), (1, 2), {"width": 6, "depth": 1}),
    ("ladder-mlp", (1, 8, 8), (1, 3, 1, 1, 2), {"width": 6}),
]
EXTRA = 3

cases = pytest.mark.parametrize(
    ("name", "shape", "latent_dims", "options"), CASES, ids=lambda value: str(value)
)


def pair_of(
    name: str, shape: tuple[int, ...], latent_dims: tuple[int, ...], options: dict[str, Any]
) -> tuple[Batched, Batched]:
    """Encoder and decoder, away from their small initial weights."""
    build, trunk = LADDERS[name], LADDERS[name].encoder(shape, latent_dims=latent_dims, **options)
    pair = (
        with_head(trunk, sum(latent_dims), in_shape=None, extra=EXTRA * len(latent_dims)),
        build.decoder(sum(latent_dims), shape, latent_dims=latent_dims, **options),
    )
    for network in pair:
        for module in network.eval().modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()
    return pair


def found(network: Batched, kind: type[nn.Module]) -> Any:
    (module,) = (module for module in network.modules() if isinstance(module, kind))
    return module


def names_with_gradient(network: nn.Module, output: Tensor) -> set[str]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
    return {
        name.rsplit(".", 1)[0]
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is not None and bool(gradient.any())
    }


def names_of(ladder: nn.Module, *groups: tuple[str, Any]) -> set[str]:
    """The modules with parameters in a ladder's lists, by the names of list and positions."""
    return {
        name
        for name, module in ladder.named_modules()
        if next(module.parameters(recurse=False), None) is not None
        and any(
            name.split(".")[0] == group and int(name.split(".")[1]) in positions
            for group, positions in groups
        )
    }


@cases
def test_a_layers_posterior_reads_the_way_up_to_it_and_its_own_tower(
    name: str, shape: tuple[int, ...], latent_dims: tuple[int, ...], options: dict[str, Any]
) -> None:
    encoder, _ = pair_of(name, shape, latent_dims, options)
    ladder, head = found(encoder, LadderEncoder), found(encoder, LadderHead)
    y = encoder(torch.randn(2, *shape))
    sizes = (*latent_dims, *latent_dims, *(EXTRA for _ in latent_dims))
    weight = torch.randn(y.shape)
    for index, part in enumerate((weight * y).split(sizes, -1)):
        layer = index % len(latent_dims)
        expected = names_of(ladder, ("stages", range(layer)), ("towers", [layer]))
        assert names_with_gradient(ladder, part.sum()) == expected
        assert names_with_gradient(head, part.sum()) == {f"layers.{layer}"}


def recorded(modules: nn.ModuleList, run: Callable[[], Any]) -> list[Tensor]:
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda *call: outputs.append(call[2])) for module in modules
    ]
    run()
    for hook in hooks:
        hook.remove()
    return outputs


@cases
def test_a_layer_changes_what_is_decoded_from_its_height_down(
    name: str, shape: tuple[int, ...], latent_dims: tuple[int, ...], options: dict[str, Any]
) -> None:
    _, decoder = pair_of(name, shape, latent_dims, options)
    ladder, z = found(decoder, LadderDecoder), torch.randn(1, sum(latent_dims))
    before = recorded(ladder.stages, lambda: decoder(z))  # top first, as they run
    for layer, columns in enumerate(torch.arange(sum(latent_dims)).split(latent_dims)):
        for column in columns:
            moved = z.clone()
            moved[:, column] += 1.0
            after = recorded(ladder.stages, lambda moved=moved: decoder(moved))
            changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
            assert changed[::-1] == [height <= layer for height in range(len(latent_dims))]


def test_outputs_are_means_then_log_variances_then_extras() -> None:
    towers = nn.Identity(), nn.Identity()
    encoder = LadderEncoder([nn.Identity()], towers, latent_dims=(1, 2), widths=(1, 1))
    head = LadderHead(encoder, extra=3)  # one of the bottom layer, and two of the top
    for layer, start in zip(head.layers, (0.0, 10.0), strict=True):
        nn.init.zeros_(layer.weight)
        layer.bias.data = start + torch.arange(float(layer.out_features))
    expected = [0, 10, 11, 1, 12, 13, 2, 14, 15]  # mu_1 mu_2 mu_2, log var likewise, extras
    assert head(encoder(torch.zeros(1, 1)))[0].tolist() == expected


@cases
def test_shapes_whatever_the_batch(
    name: str, shape: tuple[int, ...], latent_dims: tuple[int, ...], options: dict[str, Any]
) -> None:
    encoder, decoder = pair_of(name, shape, latent_dims, options)
    features = 2 * sum(latent_dims) + EXTRA * len(latent_dims)
    for batch in ((), (2,), (2, 1)):
        assert encoder(torch.randn(*batch, *shape)).shape == (*batch, features)
        assert decoder(torch.randn(*batch, sum(latent_dims))).shape == (*batch, *shape)
    raw_shape = (2 * shape[0], *shape[1:])
    twice = LADDERS[name].decoder(sum(latent_dims), raw_shape, latent_dims=latent_dims, **options)
    assert twice.out_shape == raw_shape


def widths(module: nn.Module) -> list[int]:
    return [
        layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]


# Of the released code; where CelebA's maps shrink is our reading.
@pytest.mark.parametrize(
    ("name", "shape", "latent_dims", "up", "own", "down", "branches"),
    [
        (
            "ladder-mnist",
            (1, 28, 28),
            (2, 2, 2),
            [[64, 128, 1024], [1024] * 3],
            [[64, 128], [1024, 1024], [1024, 1024]],
            [[7 * 7 * 128, 64, 1], [1024] * 3, [1024] * 3],
            [[1024], [1024]],
        ),
        (
            "ladder-svhn",
            (3, 32, 32),
            (5, 5, 5, 10),
            [[64, 64], [128, 128], [256, 256]],
            [[64, 64], [128, 128], [256, 256], [1024, 1024]],
            [[3], [64], [4 * 4 * 256, 128], [1024] * 3],
            [[16 * 16 * 64], [8 * 8 * 128], [1024]],
        ),
        (
            "ladder-celeba",
            (3, 64, 64),
            (10, 10, 10, 10),
            [[64, 64], [128, 128, 256], [256, 512, 512]],
            [[64, 64], [128, 128, 256], [256, 512, 512], [1024, 1024]],
            [[3], [128, 64], [4 * 4 * 512, 256], [1024] * 3],
            [[32 * 32 * 64], [8 * 8 * 256], [1024]],
        ),
    ],
)
def test_widths_are_the_sources(
    name: str,
    shape: tuple[int, ...],
    latent_dims: tuple[int, ...],
    up: list[list[int]],
    own: list[list[int]],
    down: list[list[int]],
    branches: list[list[int]],
) -> None:
    with torch.device("meta"):
        encoder = found(LADDERS[name].encoder(shape, latent_dims=latent_dims), LadderEncoder)
        decoder = found(
            LADDERS[name].decoder(sum(latent_dims), shape, latent_dims=latent_dims), LadderDecoder
        )
    assert [widths(stage) for stage in encoder.stages] == up
    assert [widths(tower) for tower in encoder.towers] == own
    assert [widths(stage) for stage in decoder.stages] == down
    assert [widths(branch) for branch in decoder.branches] == branches


def weighted(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            yield child


@cases
def test_batch_norm_is_everywhere_but_at_heads_and_gates_start_at_a_tenth(
    name: str, shape: tuple[int, ...], latent_dims: tuple[int, ...], options: dict[str, Any]
) -> None:
    encoder, decoder = pair_of(name, shape, latent_dims, options)
    heads = list(found(encoder, LadderHead).layers)
    last = list(weighted(found(decoder, LadderDecoder).stages[0]))[-1]
    for network, bare in ((encoder, heads), (decoder, [last])):
        norms = sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in network.modules())
        assert norms == len(list(weighted(network))) - len(bare)
        assert all(layer.bias is not None for layer in bare)
    for join in found(decoder, LadderDecoder).joins:
        if name in ("ladder-mnist", "ladder-mlp"):
            assert isinstance(join, GatedSum)
            assert bool((join.gate == 0.1).all())
        else:
            assert isinstance(join, Concatenation)


def test_every_shape_has_a_ladder() -> None:
    names = {
        (1, 28, 28): "ladder-mnist",
        (3, 32, 32): "ladder-svhn",
        (3, 64, 64): "ladder-celeba",
        (1, 28, 20): "ladder-mlp",
        (7,): "ladder-mlp",
    }
    assert {shape: default_ladder(shape) for shape in names} == names
    assert set(names.values()) == set(LADDERS)


@pytest.mark.parametrize(
    ("name", "shape", "latent_dims", "message"),
    [
        ("ladder-svhn", (3, 32, 32), (5, 5), "needs 4 latent layers, .* or use network"),
        ("ladder-mlp", (4,), (2,), r"at least 2 latent layers, got the sizes \(2,\); give more"),
        ("ladder-mlp", (4,), (2, 0), r"every size of \(2, 0\) must be at least 1, got 0"),
        ("ladder-mnist", (1, 8, 8), (2, 2), r"\(C, 28, 28\), got .*; use network 'ladder-mlp'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    name: str, shape: tuple[int, ...], latent_dims: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LADDERS[name].encoder(shape, latent_dims=latent_dims)


def test_a_decoder_needs_the_sum_of_its_layers() -> None:
    with pytest.raises(ValueError, match=r"must add up to latent_dim, got latent_dim=5"):
        LADDERS["ladder-mlp"].decoder(5, (4,), latent_dims=(2, 2))
