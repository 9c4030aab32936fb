"""Parts of the user's own: what a system supplies to them, and a pair of networks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from pyro_dpvae.errors import ConfigError
from pyro_dpvae.nn import Architecture, Batched
from pyro_dpvae.nn.batched import measured

__all__ = ["own_architecture", "supply"]


def supply(build: Callable[..., Any], options: Mapping[str, Any], **supplied: Any) -> Any:
    """Call a builder with its options and with those of the supplied values that it names."""
    accepted = inspect.signature(build).parameters
    return build(**{n: value for n, value in supplied.items() if n in accepted}, **options)


def own_architecture(
    build: Callable[..., nn.Module],
    options: Mapping[str, Any],
    *,
    shape: Sequence[int],
    latent_dim: int,
    raw_shape: Sequence[int],
) -> Architecture:
    """Return the networks of a class whose modules have an ``encoder`` and a ``decoder``.

    Args:
        build: ``build(shape, latent_dim, raw_shape, **options)``, of which it may leave some out,
            returns a module with both as attributes. The encoder maps (N, *shape) to (N,
            *features), and the decoder (N, latent_dim) to (N, *raw_shape).
        options: of ``build``.
        shape: the shape of a datum.
        latent_dim: the size L of z.
        raw_shape: the shape of the raw values that the likelihood takes.

    Raises:
        ValueError: if the module lacks one of them, or shapes differ.
    """
    unused: dict[str, nn.Module] = {}

    def part(which: str) -> nn.Module:
        # Encoder and decoder of one module may share layers. A second encoder, such as that of a
        # mixture, has weights of its own.
        if which not in unused:
            whole = supply(
                build, options, shape=shape, latent_dim=latent_dim, raw_shape=tuple(raw_shape)
            )
            for name in ("encoder", "decoder"):
                if not isinstance(getattr(whole, name, None), nn.Module):
                    raise ConfigError(
                        f"a network must have an encoder and a decoder, both modules, and "
                        f"{type(whole).__name__} has no such {name}; make it an attribute"
                    )
                unused[name] = getattr(whole, name)
        return unused.pop(which)

    def encoder(shape: Sequence[int]) -> Batched:
        return measured(part("encoder"), in_shape=shape)

    def decoder(latent_dim: int, raw_shape: Sequence[int]) -> Batched:
        network = measured(part("decoder"), in_shape=(latent_dim,))
        if network.out_shape != tuple(raw_shape):
            raise ConfigError(
                f"the decoder of a network must return raw values of shape {tuple(raw_shape)}, "
                f"got {network.out_shape}; take raw_shape as an argument and build it for that"
            )
        return network

    return Architecture(encoder, decoder)
