"""Trial runs: what they change is undone, and what they return is compared."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae.recording.graph import NotRecordableError, Recording

__all__ = ["agree", "check_replay", "untouched"]

_SEED = 20_001  # of the check, so that draws of the recording would show if they were kept


@contextmanager
def untouched(modules: Iterable[nn.Module], *, seed: int | None = None) -> Iterator[None]:
    """Restore, at the end, random states and what modules hold besides parameters' values.

    Gradients are empty meanwhile.

    Args:
        modules: with the modules in them, as of :func:`modules_of`.
        seed: of the random numbers meanwhile, Python's and numpy's too; None goes on as it was.
    """
    modules = list(modules)
    attributes = [(module, dict(vars(module)), dict(module._buffers)) for module in modules]
    values = {b: b.clone() for module in modules for b in module.buffers(recurse=False)}
    gradients = {p: p.grad for module in modules for p in module.parameters(recurse=False)}
    others = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            for parameter in gradients:
                parameter.grad = None
            if seed is not None:
                pyro.set_rng_seed(seed)
            yield
    finally:
        random.setstate(others[0])
        np.random.set_state(others[1])
        for module, own, buffers in attributes:
            vars(module).update(own)  # with the caches of transforms among it
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, value in values.items():
                buffer.copy_(value)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def agree(
    found: Sequence[Tensor], expected: Sequence[Tensor], *, tolerances: Sequence[float]
) -> bool:
    """Whether tensors differ by at most a part of their norm, and are laid out alike.

    What is below a millionth of the largest norm of all is a rounding error.

    Args:
        found: tensors.
        expected: as many.
        tolerances: of each, a part of the norm of what is expected.
    """
    norms = [_norm(tensor) for tensor in expected]
    negligible = 1e-6 * max(norms, default=0.0)
    for one, other, norm, tolerance in zip(found, expected, norms, tolerances, strict=True):
        if one.shape != other.shape or _strides(one) != _strides(other):
            return False
        if not torch.equal(one.isfinite(), other.isfinite()):
            return False
        if _norm(one.double() - other.double()) > tolerance * norm + negligible:
            return False
    return True


def check_replay(
    recording: Recording,
    function: Callable[[list[Tensor]], list[Tensor]],
    inputs: Sequence[Tensor],
    *,
    modules: Iterable[nn.Module],
    tolerances: Sequence[float],
) -> None:
    """Compare a replay with the function itself, under a seed that the recording has not seen.

    Args:
        recording: of the function, compiled or not.
        function: what was recorded.
        inputs: of both.
        modules: what the function may change, as of :func:`modules_of`; it is restored.
        tolerances: of each result, a part of its norm.

    Raises:
        NotRecordableError: if results differ, or the states that the draws leave behind.
    """
    modules, found = list(modules), []
    for run in (recording, function):
        with untouched(modules, seed=_SEED):
            results = [result.clone() for result in run(list(inputs))]
            found.append([*results, torch.rand(())])
    if not agree(*found, tolerances=[*tolerances, 0.0]):
        raise NotRecordableError(
            "its replay differs from an eager evaluation: perhaps it draws numbers by "
            "Python's or numpy's generator, or reads what changes otherwise"
        )


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().nan_to_num(0.0, 0.0, 0.0).norm())


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of the dimensions that have more than one element."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]
