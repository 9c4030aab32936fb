"""Draws of z ~ q(z | x) and their log weights, chunk by chunk, compiled where it is asked for."""

import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, final

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.importance.summation import Summation, summable
from pyro_dpvae.importance.traces import checked_nesting, paired_traces
from pyro_dpvae.importance.weights import check_vectorized, chunk_weights
from pyro_dpvae.recording import (
    Guards,
    NotRecordableError,
    Recording,
    State,
    agree,
    compile_checked,
    differences,
    reason,
    record,
    rollback_modules,
    surroundings,
)

__all__ = ["ImportanceSampler", "log_weight_chunks", "log_weights"]

# Values of x that one chunk decodes, and data. On a CPU, 4 MB a layer of a datum's size, in
# float32, and 32 MB a layer of 512 units: larger tensors leave the caches, and their memory goes
# back to the system after each use. A GPU is idle with so little.
_CPU_CHUNK, _GPU_CHUNK = (2**20, 2**14), (2**22, 2**16)

# A second compiled shape, such as that of the last batch, has to pay for its recording.
_CHUNKS_OF_OTHER_SHAPES = 1000
_MOST_RECORDINGS = 8

# Of the norm of the log weights.
_TOLERANCE, _TOLERANCE_UNDER_AUTOCAST = 1e-4, 5e-2

_SEED = 20_001  # of the check, so that draws of the recording would show if they were kept


@final
class ImportanceSampler:
    """log p(x, z_k) - log q(z_k | x) of draws z_k ~ q(z | x), for each datum, chunk by chunk.

    Eager, every chunk runs Pyro's handlers. Compiled, they run once for a shape of data and
    chunk: what they leave is recorded as one graph of tensor operations, random draws included,
    compared with an eager evaluation under one seed, compiled by Inductor, and reused for all
    chunks and batches of that shape. Under one seed both give the same weights, up to rounding.
    The first shape is compiled at once, and another after some chunks, so that a smaller last
    batch runs eagerly, as a smaller last chunk always does. Parameters may change in place; where
    one is replaced, or a mode or number of a module changes, there is a new recording. What a
    program reads elsewhere is that of the recording. What cannot be recorded runs eagerly.

    Discrete sites y of the guide that are marked ``infer={"enumerate": "parallel"}`` are not drawn
    but summed out,

        log w = log sum_y p(x, y, z) - log sum_y q(y, z | x),

    as long as no draw depends on them under q and they lie in the data plate alone: weights of z
    vary less than those of z and y.

    Args:
        model: p(x, z), a Pyro model called with x.
        guide: q(z | x), a Pyro guide called with x.
        chunk: how many draws are made at once; by default as many as suit memory and caches.
            Model and guide see them as a dimension to the left of their plates.
        compile: whether to compile, which takes a compiler for the device (of C++ for a CPU) and
            some ten seconds.

    Raises:
        ValueError: if ``chunk`` is below 1.

    Warns:
        UserWarning: once, while it samples, if it stays or becomes eager, with the reason.

    References:
        Rezende, Mohamed, Wierstra (2014), Stochastic backpropagation, appendix E.

    Example:
        >>> from pyro_dpvae.recipes import train_moons
        >>> system, data = train_moons("coupling", beta=1.0, steps=1, progress=False)
        >>> sampler = ImportanceSampler(system.model, system.guide, chunk=20)
        >>> [len(weights) for weights in sampler.chunks(data.test[:5], 50)]
        [20, 20, 10]
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        chunk: int | None = None,
        compile: bool = False,
    ) -> None:
        self.model, self.guide = model, guide
        self.chunk = None if chunk is None else check_positive_int("chunk", chunk)
        self._compile, self._made = compile, 0
        self._recordings: dict[Hashable, _Recorded] = {}
        self._eager_chunks: dict[Hashable, int] = {}
        self._warned: set[str] = set()
        self._guards = Guards(model, guide)

    def chunks(self, x: Tensor, samples: int) -> Iterator[Float[Tensor, "chunk batch"]]:
        """Yield the log weights of ``samples`` draws for each datum, in nats, in float64.

        Args:
            x: data, of shape (batch, *data).
            samples: the number K of draws for each datum.

        Raises:
            ValueError: before the first chunk, as :func:`log_weights` does.
        """
        check_positive_int("samples", samples)
        if x.numel() == 0:
            raise ValueError(
                f"importance weights need data, got a batch of shape {tuple(x.shape)}"
            )
        size = min(samples, _default_chunk(x) if self.chunk is None else self.chunk)
        devices = [x.device] if x.device.type == "cuda" else []
        with self._guards.watching(), torch.no_grad(), torch.random.fork_rng(devices=devices):
            singles = [paired_traces(self.model, self.guide, x) for _ in range(2)]
            nesting = checked_nesting(*singles[0], len(x))
            summation = summable(self.guide, singles[0][1], x, nesting)
            if summation.names:
                summing = summation.enumerated(self.guide)
                singles = [paired_traces(self.model, summing, x) for _ in range(2)]
            check_vectorized(self.model, self.guide, x, summation, singles)
        recording = self._recording(x, size, samples // size, summation) if self._compile else None
        for done in range(0, samples, size):
            if recording is not None and done + size <= samples:
                (weights,) = recording([x])
            else:
                weights = self._eager_chunk(x, min(size, samples - done), summation)
            yield weights

    def _eager_chunk(self, x: Tensor, size: int, summation: Summation) -> Tensor:
        # The checks of the single draws have seen shapes and supports.
        with torch.no_grad(), pyro.validation_enabled(False):
            plate = pyro.plate("importance", size, dim=-summation.nesting - 1)
            guide = summation.enumerated(plate(self.guide))
            traces = paired_traces(plate(self.model), guide, x)
            return chunk_weights(*traces, summation, size, len(x))

    def _recording(
        self, x: Tensor, size: int, chunks: int, summation: Summation
    ) -> Recording | None:
        """Return the recording for chunks of this shape, made if it is worth it."""
        key = (x.shape, x.stride(), x.dtype, x.device, size, summation)
        state = self._guards.state()
        found = self._recordings.get(key)
        if found is not None and found.is_of(state):
            return found.recording
        if found is None:
            self._eager_chunks[key] = self._eager_chunks.get(key, 0) + chunks
            if self._recordings and self._eager_chunks[key] < _CHUNKS_OF_OTHER_SHAPES:
                return None
        if self._made == _MOST_RECORDINGS:
            changed = "shapes" if found is None else differences(found.state, state) or "settings"
            self._give_up(
                f"each recording is for one shape and one state of the modules, and {changed} "
                "kept changing"
            )
            return None
        try:
            made = self._recorded(x, size, summation)
        except Exception as error:  # whatever a program may raise when it is recorded
            self._give_up(reason(error))
            return None
        self._recordings[key] = made
        self._made += 1
        return made.recording

    def _recorded(self, x: Tensor, size: int, summation: Summation) -> "_Recorded":
        modules = self._guards.modules()
        parameters: dict[str, Tensor] = {}

        def run(tensors: list[Tensor]) -> list[Tensor]:
            with poutine.trace(param_only=True) as used:
                weights = self._eager_chunk(tensors[0], size, summation)
            sites = used.trace.nodes.items()
            parameters.update({name: site["value"].unconstrained() for name, site in sites})
            return [weights]

        autocast = any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
        tolerance = _TOLERANCE_UNDER_AUTOCAST if autocast else _TOLERANCE
        inputs = [x.detach()]
        with rollback_modules(modules):
            recording = record(run, inputs)
        with rollback_modules(modules, seed=_SEED):
            expected = run(inputs)

        def check() -> None:
            with rollback_modules(modules, seed=_SEED):
                found = recording(inputs)
            if not all(agree(found, expected, tolerances=[tolerance])):
                raise NotRecordableError(
                    "its replay differs from an eager evaluation: perhaps it draws numbers by "
                    "Python's or numpy's generator, or reads what changes otherwise"
                )

        check()
        uncompiled = compile_checked(recording, inputs, check=check)
        if uncompiled is not None:
            self._warn(
                f"the importance sampler is recorded but not compiled, because {uncompiled}"
            )
        return _Recorded(recording, surroundings(), modules, self._guards.state(), parameters)

    def _give_up(self, why: str) -> None:
        self._compile = False
        self._recordings.clear()
        self._warn(f"the importance sampler runs eagerly, because {why}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=5)


@dataclass(frozen=True)
class _Recorded:
    """A recording of a chunk, and what it depends on besides the data's shape."""

    recording: Recording
    surroundings: Hashable
    modules: list[nn.Module]  # held, so that nothing else takes an id of theirs
    state: State
    parameters: dict[str, Tensor]

    def is_of(self, state: State) -> bool:
        """Whether modules, settings and Pyro's store are still those of the recording."""
        stored = pyro.get_param_store()._params
        return (
            self.state == state
            and self.surroundings == surroundings()
            and all(stored.get(name) is one for name, one in self.parameters.items())
        )


def log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    samples: int,
    *,
    chunk: int | None = None,
) -> Float[Tensor, "samples batch"]:
    """Return log p(x, z_k) - log q(z_k | x) of ``samples`` draws z_k ~ q(z | x) for each datum.

    Enumerated sites are summed out, as :class:`ImportanceSampler` says.

    Args:
        model: p(x, z), a Pyro model called with x.
        guide: q(z | x), a Pyro guide called with x.
        x: data, of shape (batch, *data).
        samples: the number K of draws for each datum.
        chunk: as for :class:`ImportanceSampler`, which can also compile.

    Returns:
        The log weights in nats, in float64, of shape (K, batch).

    Raises:
        ValueError: if a latent or observed site lies outside ``pyro.plate("data", batch size)``,
            if the plate subsamples or a site is scaled, if the two programs do not share their
            latent sites or cannot make several draws at once, if there are no data, or if a
            count is below 1.

    References:
        Rezende, Mohamed, Wierstra (2014), Stochastic backpropagation, appendix E.

    Example:
        >>> from pyro_dpvae.recipes import build_system
        >>> system = build_system(
        ...     (2,),
        ...     latent_dim=2,
        ...     dataset_size=100,
        ...     prior={"name": "coupling"},
        ...     likelihood={"name": "gaussian", "variance": 0.1},
        ...     network={"name": "moons"},
        ...     guide={"name": "amortized"},
        ...     objective={"name": "elbo"},
        ... )
        >>> log_weights(system.model, system.guide, torch.zeros(3, 2), 50).shape
        torch.Size([50, 3])
    """
    return torch.cat(list(log_weight_chunks(model, guide, x, samples, chunk=chunk)))


def log_weight_chunks(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    samples: int,
    *,
    chunk: int | None = None,
) -> Iterator[Float[Tensor, "chunk batch"]]:
    """Yield the log weights of :func:`log_weights` chunk by chunk, for running sums.

    Raises:
        ValueError: as :func:`log_weights` does, before the first chunk.
    """
    return ImportanceSampler(model, guide, chunk=chunk).chunks(x, samples)


def _default_chunk(x: Tensor) -> int:
    values, data = _CPU_CHUNK if x.device.type == "cpu" else _GPU_CHUNK
    return max(1, min(values // x.numel(), data // len(x)))
