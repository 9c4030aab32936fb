"""Trial runs: what they change is undone, and what they return is compared."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from pyro_dpvae.recording.graph import NotRecordableError, Recording, reason, record
from pyro_dpvae.recording.survey import Survey, differences

__all__ = ["agree", "check_replay", "compile_checked", "record_aside", "untouched"]

_SEED = 20_001  # of the check, so that draws of the recording would show if they were kept


@contextmanager
def untouched(programs: Survey, *, seed: int | None = None) -> Iterator[None]:
    """Restore, at the end, random states and what programs hold, Pyro's store included.

    Gradients are empty meanwhile.

    Args:
        programs: what is restored.
        seed: of the random numbers meanwhile, Python's and numpy's too; None goes on as it was.
    """
    store = pyro.get_param_store()
    entries = [store._params, store._constraints, store._param_to_name]
    buffers = [module._buffers for module in programs.modules]
    own = [*programs.owners, *entries, *_of(dict, [*buffers, *programs.containers])]
    dictionaries = [(one, dict(one)) for one in own]
    lists = [(one, list(one)) for one in _of(list, programs.containers)]
    tensors = {id(tensor): tensor for tensor in (*programs.tensors, *store._params.values())}
    values = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    gradients = [(tensor, tensor.grad) for tensor in tensors.values() if tensor.requires_grad]
    generators = [(generator, generator.get_state()) for generator in programs.generators]
    others = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            for tensor, _ in gradients:
                tensor.grad = None
            if seed is not None:
                pyro.set_rng_seed(seed)
            yield
    finally:
        random.setstate(others[0])
        np.random.set_state(others[1])
        for generator, state in generators:
            generator.set_state(state)
        for dictionary, content in dictionaries:
            _restore(dictionary, content)
        for one, items in lists:
            one[:] = items
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        for tensor, gradient in gradients:
            tensor.grad = gradient


def _of(kind: type, containers: Iterable[Any]) -> list[Any]:
    return [container for container in containers if isinstance(container, kind)]


def _restore(dictionary: dict[Any, Any], content: dict[Any, Any]) -> None:
    if dictionary.keys() != content.keys() or any(
        dictionary[key] is not value for key, value in content.items()
    ):
        dictionary.clear()
        dictionary.update(content)


def record_aside(
    function: Callable[[list[Tensor]], list[Tensor]],
    inputs: Sequence[Tensor],
    *,
    programs: Callable[[], Survey],
) -> Recording:
    """Record a function, restore what it changed, and refuse it if that is more than tensors.

    Args:
        function: as ``record`` takes it.
        inputs: of the recording.
        programs: looks at what the function refers to.

    Raises:
        NotRecordableError: if the function changes an attribute of its programs, draws by numpy's
            or Python's generator, or leaves gradients: a replay would not.
    """
    before = programs()
    if before.iterators:
        raise NotRecordableError(f"it holds an iterator, {before.iterators[0]}")
    with untouched(before):
        drawn = random.getstate(), np.random.get_state()
        stored = dict(pyro.get_param_store()._params)
        recording = record(function, inputs)
        after = programs()
        if any(stored.get(name) is not p for name, p in pyro.get_param_store()._params.items()):
            raise NotRecordableError("it assigns to Pyro's store, which a replay would not")
        for tensor in recording.held:
            if tensor.is_leaf and tensor.grad is not None:
                raise NotRecordableError(
                    f"it leaves a gradient on a tensor of shape {tuple(tensor.shape)} that is no "
                    "parameter of Pyro's; register it, or let it take no gradients"
                )
        if not _same(np.random.get_state(), drawn[1]) or (
            # beartype draws by Python's generator what it looks at
            random.getstate() != drawn[0] and "beartype" not in sys.modules
        ):
            raise NotRecordableError("it draws numbers by Python's or numpy's generator")
    if before.fingerprint != after.fingerprint:
        changed = differences(before.fingerprint, after.fingerprint)
        raise NotRecordableError(f"it changes {changed}, which a replay would not")
    return recording


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
    programs: Survey,
    tolerances: Sequence[float],
) -> None:
    """Compare a replay with the function itself, under a seed that the recording has not seen.

    Args:
        recording: of the function, compiled or not.
        function: what was recorded.
        inputs: of both.
        programs: what the function may change; it is restored.
        tolerances: of each result, a part of its norm.

    Raises:
        NotRecordableError: if results differ, or the states that the draws leave behind.
    """
    found = []
    for run in (recording, function):
        with untouched(programs, seed=_SEED):
            results = [result.clone() for result in run(list(inputs))]
            found.append([*results, torch.rand(())])
    if not agree(*found, tolerances=[*tolerances, 0.0]):
        raise NotRecordableError(
            "its replay differs from an eager evaluation: perhaps it draws numbers by "
            "Python's or numpy's generator, or reads what changes otherwise"
        )


def compile_checked(
    recording: Recording, inputs: Sequence[Tensor], *, check: Callable[[], None]
) -> str | None:
    """Compile a recording if its replay then passes a check; returns why not, if it does not.

    Args:
        recording: is left uncompiled if the check fails, or the compiler.
        inputs: as for ``Recording.compile``.
        check: raises what is wrong with a replay.
    """
    for channels_last in (True, False):
        try:
            recording.compile(inputs, channels_last=channels_last)
            check()
            return None
        except Exception as error:  # a missing compiler, or an operation unknown to it
            wrong = reason(error)
    recording.uncompile()
    return wrong


def _same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().nan_to_num(0.0, 0.0, 0.0).norm())


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of the dimensions that have more than one element."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [stride for size, stride in pairs if size > 1]
