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


def agree(found: Sequence[Tensor], expected: Sequence[Tensor], *, tolerance: float) -> bool:
    """Whether tensors are equal up to a part of their largest element.

    Elements below a millionth of the largest of all tensors are rounding errors.
    """
    largest = max((float(e.abs().nan_to_num().max()) for e in expected if e.numel()), default=0.0)
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return False
        if not one.numel():
            continue
        if not torch.equal(one.isfinite(), other.isfinite()):
            return False
        error = (one.double() - other.double()).abs().nan_to_num().max()
        scale = float(other.abs().nan_to_num().max())
        if float(error) > tolerance * scale + 1e-6 * largest:
            return False
    return True


def check_replay(
    recording: Recording,
    function: Callable[[list[Tensor]], list[Tensor]],
    inputs: Sequence[Tensor],
    modules: Iterable[nn.Module],
    *,
    tolerance: float,
) -> None:
    """Compare a replay with the function itself, under a seed that the recording has not seen.

    Args:
        recording: of the function, compiled or not.
        function: what was recorded.
        inputs: of both.
        modules: what the function may change, as of :func:`modules_of`; it is restored.
        tolerance: a part of the largest element of each result.

    Raises:
        NotRecordableError: if results differ, or the states that the draws leave behind.
    """
    modules, found = list(modules), []
    for run in (recording, function):
        with untouched(modules, seed=_SEED):
            results = [result.clone() for result in run(list(inputs))]
            found.append([*results, torch.rand(())])
    if not agree(*found, tolerance=tolerance):
        raise NotRecordableError(
            "its replay differs from an eager evaluation: perhaps it draws numbers by "
            "Python's or numpy's generator, or reads what changes otherwise"
        )
