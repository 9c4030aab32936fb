"""Samples z ~ q(z | x) and their log weights, in chunks, optionally compiled."""

import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, final

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.errors import EagerWarning
from pyro_dpvae.importance.memory import draws_that_fit
from pyro_dpvae.importance.weights import (
    Summation,
    check_vectorized,
    checked_plates,
    chunk_weights,
    paired_traces,
    summable,
)
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.recording.graph import NotRecordableError, Recording, reason, record
from pyro_dpvae.recording.guards import Guards, State, differences, surroundings
from pyro_dpvae.recording.rollback import agree, rollback_modules

__all__ = ["ImportanceSampler", "log_weight_chunks", "log_weights"]

# Limits of a chunk: values of decoded x, items, and bytes. On a CPU they are 4 MB for a layer of
# an item's size, in float32, and 32 MB for a layer of 512 units: larger tensors leave the caches,
# and the system takes their memory back after each use. A GPU would be idle with so little. The
# bytes are those of tensors; operations need up to as much again inside. Both together stay below
# 1 GB, or 4 GB on a GPU.
_CPU_CHUNK, _GPU_CHUNK = (2**20, 2**14, 2**28), (2**22, 2**16, 2**30)

# Capturing another shape, such as that of the last batch, must pay off.
_CHUNKS_OF_OTHER_SHAPES = 1000
_MOST_RECORDINGS = 8

# Relative to the norm of the log weights.
_TOLERANCE, _TOLERANCE_UNDER_AUTOCAST = 1e-4, 5e-2

_SEED = 20_001  # the check has its own seed, so that frozen random draws would show


@final
class ImportanceSampler:
    """Compute log p(x, z_k) - log q(z_k | x) of samples z_k ~ q(z | x) per datum, in chunks.

    Without ``compile``, every chunk runs Pyro's handlers. With it, they run once for a shape of
    data and chunk: the operations are captured as one graph, random draws included, compared with
    an eager evaluation under one seed, compiled by Inductor, and reused for all chunks and batches
    of that shape. With one seed both give the same weights up to rounding. The first shape is
    compiled at once, others after some chunks, so that a smaller last batch runs eagerly, as a
    smaller last chunk always does. Parameters may change in place; if one is replaced, or a mode
    or number of a module changes, the chunk is captured anew. Any other value that a program reads
    is frozen by the capture. A program that cannot be captured runs eagerly.

    Discrete sites y of the guide that are marked ``infer={"enumerate": "parallel"}`` are summed
    out instead of sampled,

        log w = log sum_y p(x, y, z) - log sum_y q(y, z | x),

    if no sample depends on them under q and they lie in the data plate only:
    the weights of z vary less than those of z and y.

    Modules run in evaluation mode.

    Args:
        model: p(x, z), a Pyro model.
        guide: q(z | x), a Pyro guide of the same arguments.
        chunk: number of samples drawn at once. By default as many as suit caches and need less
            than 1 GB (4 GB on a GPU), measured on a few samples for each shape of data. Model and
            guide see the samples as a dimension to the left of their plates.
        plate: name of the plate over the batch; by default the one named ``"data"``, or the
            outermost around all observed sites.
        compile: compile the chunks, which needs a compiler for the device (C++ for a CPU) and
            about ten seconds.

    Raises:
        ValueError: if ``chunk`` is below 1.

    Warns:
        UserWarning: once, during sampling, if it runs eagerly despite ``compile``, with the
            reason.

    References:
        Rezende, Mohamed, Wierstra (2014), Stochastic backpropagation, appendix E.

    Example:
        >>> from pyro_dpvae.recipes import train_moons
        >>> system, data = train_moons("coupling", beta=1.0, steps=1, progress=False)
        >>> sampler = ImportanceSampler(system.model, system.guide, chunk=20)
        >>> [len(weights) for weights in sampler.chunks(data.test[:5], num_samples=50)]
        [20, 20, 10]
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        chunk: int | None = None,
        plate: str | None = None,
        compile: bool = False,
    ) -> None:
        self.model, self.guide, self.plate = model, guide, plate
        self.chunk = None if chunk is None else check_positive_int("chunk", chunk)
        self._compile, self._made = compile, 0
        self._recordings: dict[Hashable, _Recorded] = {}
        self._eager_chunks: dict[Hashable, int] = {}
        self._sizes: dict[Hashable, int] = {}
        self._warned: set[str] = set()
        self._guards = Guards(model, guide)

    def chunks(
        self, *args: Any, num_samples: int, **kwargs: Any
    ) -> Iterator[Float[Tensor, "chunk batch"]]:
        """Yield the log weights of ``num_samples`` samples for each datum, in nats, in float64.

        Args:
            args: arguments of model and guide: data, of shape (batch, *data), and others.
            num_samples: number K of samples for each datum.
            kwargs: keyword arguments of model and guide.

        Raises:
            TypeError: before the first chunk, if no argument is a tensor.
            ValueError: before the first chunk, as in :func:`log_weights`.
        """
        check_positive_int("num_samples", num_samples)
        x = _data(args, kwargs)
        with (
            self._guards.watching(),
            in_evaluation(self.model, self.guide),
            torch.no_grad(),
            forked_rng(),
        ):
            pairs = [paired_traces(self.model, self.guide, *args, **kwargs) for _ in range(2)]
            plates = checked_plates(*pairs[0], batch=len(x), plate=self.plate)
            summation = summable(self.guide, pairs[0][1], args, kwargs, plates)
            if summation.names:
                summing = summation.enumerated(self.guide)
                pairs = [paired_traces(self.model, summing, *args, **kwargs) for _ in range(2)]
            check_vectorized(
                self.model, self.guide, args, kwargs, summation=summation, singles=pairs
            )
        size = self.chunk or self._default_size(args, kwargs, num_samples, summation)
        size = min(num_samples, size)
        recording = None
        if self._compile:
            recording = self._recording(args, kwargs, size, num_samples // size, summation)
        for done in range(0, num_samples, size):
            if recording is not None and done + size <= num_samples:
                (weights,) = recording(_tensors(args, kwargs))
            else:
                own = min(size, num_samples - done)
                weights = self._eager_chunk(args, kwargs, own, summation)
            yield weights

    def _default_size(self, args: Any, kwargs: Any, num_samples: int, summation: Summation) -> int:
        """Return how many samples suit caches and memory, measured once for data of a shape."""
        x = _data(args, kwargs)
        values, data, budget = _CPU_CHUNK if x.device.type == "cpu" else _GPU_CHUNK
        most = max(1, min(num_samples, values // x.numel(), data // len(x)))
        key = (*(tensor.shape for tensor in _tensors(args, kwargs)), summation, most)
        if key not in self._sizes:
            with forked_rng():
                self._sizes[key] = draws_that_fit(
                    lambda size: self._eager_chunk(args, kwargs, size, summation),
                    most,
                    budget=budget,
                )
        return self._sizes[key]

    def _eager_chunk(self, args: Any, kwargs: Any, size: int, summation: Summation) -> Tensor:
        # The checks on single samples have validated shapes and supports.
        with (
            in_evaluation(self.model, self.guide),
            torch.no_grad(),
            pyro.validation_enabled(False),
        ):
            plate = pyro.plate("importance", size, dim=-summation.nesting - 1)
            guide = summation.enumerated(plate(self.guide))
            traces = paired_traces(plate(self.model), guide, *args, **kwargs)
            return chunk_weights(*traces, summation, size)

    def _recording(
        self, args: Any, kwargs: Any, size: int, chunks: int, summation: Summation
    ) -> Recording | None:
        """Return the recording for chunks of this shape, captured now if it pays off."""
        leaves, structure = tree_flatten((args, kwargs))
        shapes = [
            (leaf.shape, leaf.stride(), leaf.dtype, leaf.device)
            if isinstance(leaf, Tensor)
            else repr(leaf)
            for leaf in leaves
        ]
        key = (str(structure), *shapes, size, summation)
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
            made = self._recorded(args, kwargs, size, summation)
        except Exception as error:  # whatever a program raises while it is captured
            self._give_up(reason(error))
            return None
        self._recordings[key] = made
        self._made += 1
        return made.recording

    def _recorded(self, args: Any, kwargs: Any, size: int, summation: Summation) -> "_Recorded":
        modules = self._guards.modules()
        parameters: dict[str, Tensor] = {}

        def run(tensors: list[Tensor]) -> list[Tensor]:
            rest = iter(tensors)
            own_args, own_kwargs = tree_map_only(Tensor, lambda _: next(rest), (args, kwargs))
            with poutine.trace(param_only=True) as used:
                weights = self._eager_chunk(own_args, own_kwargs, size, summation)
            sites = used.trace.nodes.items()
            parameters.update({name: site["value"].unconstrained() for name, site in sites})
            return [weights]

        autocast = any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
        tolerance = _TOLERANCE_UNDER_AUTOCAST if autocast else _TOLERANCE
        inputs = [tensor.detach() for tensor in _tensors(args, kwargs)]
        with rollback_modules(modules):
            recording = record(run, inputs)
        with rollback_modules(modules, seed=_SEED):
            expected = run(inputs)

        def check() -> None:
            with rollback_modules(modules, seed=_SEED):
                found = recording(inputs)
            if not all(agree(found, expected, tolerances=[tolerance])):
                raise NotRecordableError(
                    "its replay differs from an eager evaluation: it may draw from Python's or "
                    "numpy's random generator, or read values that change"
                )

        check()
        uncompiled = recording.compile(inputs, check=check)
        if uncompiled is not None:
            self._warn(
                f"the importance sampler is captured but not compiled, because {uncompiled}"
            )
        return _Recorded(recording, surroundings(), modules, self._guards.state(), parameters)

    def _give_up(self, why: str) -> None:
        self._compile = False
        self._recordings.clear()
        self._warn(f"the importance sampler runs eagerly, because {why}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, category=EagerWarning, stacklevel=5)


@dataclass(frozen=True)
class _Recorded:
    """A captured chunk and its guards besides the data's shape."""

    recording: Recording
    surroundings: Hashable
    modules: list[nn.Module]  # held so that their ids stay unique
    state: State
    parameters: dict[str, Tensor]

    def is_of(self, state: State) -> bool:
        """Return True if modules, settings and Pyro's store are those of the capture."""
        stored = pyro.get_param_store()._params
        return (
            self.state == state
            and self.surroundings == surroundings()
            and all(stored.get(name) is one for name, one in self.parameters.items())
        )


def log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int,
    chunk: int | None = None,
    plate: str | None = None,
    **kwargs: Any,
) -> Float[Tensor, "samples batch"]:
    """Return log p(x, z_k) - log q(z_k | x) of samples z_k ~ q(z | x), for each datum.

    Enumerated sites are summed out, see :class:`ImportanceSampler`.

    Args:
        model: p(x, z), a Pyro model.
        guide: q(z | x), a Pyro guide of the same arguments.
        args: arguments of both: data, of shape (batch, *data), and others, such as labels.
        num_samples: number K of samples for each datum.
        chunk: as for :class:`ImportanceSampler`, which can also compile.
        plate: as for :class:`ImportanceSampler`.
        kwargs: keyword arguments of both.

    Returns:
        The log weights in nats, in float64, of shape (K, batch).

    Raises:
        TypeError: if no argument is a tensor.
        ValueError: if a latent or observed site lies outside the plate over the batch, the plate
            is not found or subsamples, a site is scaled, the programs have different latent sites
            or cannot draw several samples at once, the data are empty, or a count is below 1.

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
        >>> log_weights(system.model, system.guide, torch.zeros(3, 2), num_samples=50).shape
        torch.Size([50, 3])
    """
    options: dict[str, Any] = {"num_samples": num_samples, "chunk": chunk, "plate": plate}
    return torch.cat(list(log_weight_chunks(model, guide, *args, **options, **kwargs)))


def log_weight_chunks(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int,
    chunk: int | None = None,
    plate: str | None = None,
    **kwargs: Any,
) -> Iterator[Float[Tensor, "chunk batch"]]:
    """Yield the log weights of :func:`log_weights` chunk by chunk, for running sums.

    Raises:
        TypeError: as in :func:`log_weights`, before the first chunk.
        ValueError: likewise.
    """
    sampler = ImportanceSampler(model, guide, chunk=chunk, plate=plate)
    return sampler.chunks(*args, num_samples=num_samples, **kwargs)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def _data(args: Any, kwargs: Any) -> Tensor:
    """Return the first tensor among the arguments, which has the batch dimension."""
    tensors = _tensors(args, kwargs)
    if not tensors:
        raise TypeError(
            "importance weights need the data that model and guide are called with, got no "
            "tensor; call log_weights(model, guide, x, num_samples=...)"
        )
    x = tensors[0]
    if x.numel() == 0 or x.dim() == 0:
        raise ValueError(f"importance weights need data, got a batch of shape {tuple(x.shape)}")
    return x
