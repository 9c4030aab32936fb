"""What becomes of a step whose loss or gradients are not finite."""

import json
import math
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it exports it nevertheless

from pyro_dpvae._checks import check_choice
from pyro_dpvae._files import write_whole
from pyro_dpvae._ranks import gather_batch, ranks
from pyro_dpvae.errors import DpvaeError, TrainingWarning
from pyro_dpvae.inference import AccumulatingOptim, CapturedSVI, FusedOptim
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.diagnosis import Diagnosis, diagnose, extreme_rows, noise_state

__all__ = ["POLICIES", "GuardedSteps", "NonFiniteError", "diverging", "finite_parameters"]

POLICIES = ("stop", "skip")
"""What becomes of a run when a step is not finite: it stops, or the step is left out."""

_MOST_IN_A_ROW = 20  # beyond it, a run of NaN alone would look alive


class NonFiniteError(DpvaeError, ValueError):
    """A step's loss or gradients were not finite, and training stops; weights are unharmed."""


@final
class GuardedSteps:
    """Steps of SVI, of which none with a loss or gradients that are not finite moves the weights.

    The optimizer leaves such a step out on its own device, moments included, and so does an
    adversary's where the loss or its own gradients are not finite. Here it is noticed: buffers,
    such as running means, go back to what they were, and then the policy holds. ``stop``
    raises an error that says which terms, sites and parameters it was, with the batch in a file.
    ``skip`` goes on, but stops likewise after 20 steps in a row.

    Where steps are CUDA graphs, ``skip`` waits for each of them, and ``stop`` looks at them when
    :meth:`check` is called: it then knows neither batch nor terms.

    Among ranks all must take the same steps, with losses of the global batch and gradients that
    are averaged before the optimizer sees them: then all decide alike.

    Args:
        svi: what takes the steps; its optimizer updates by ``fused``.
        fused: leaves out steps that are not finite.
        policy: ``"stop"`` or ``"skip"``.
        folder: where the batch of a step goes at which training stops; None keeps none.

    Raises:
        ValueError: if there is no such policy, or ``fused`` does not skip.

    Attributes:
        left_out: how many steps were left out.
    """

    def __init__(
        self,
        svi: CapturedSVI,
        fused: FusedOptim,
        *,
        policy: str = "stop",
        folder: Path | None = None,
    ) -> None:
        if not fused.skip_nonfinite:
            raise ValueError(
                "guarded steps need an optimizer that leaves out what is not finite, got "
                "FusedOptim(..., skip_nonfinite=False); make it with skip_nonfinite=True"
            )
        self.policy = check_choice("nonfinite", policy, POLICIES)
        self.svi, self.fused, self.folder = svi, fused, folder
        self.left_out = 0
        self._in_a_row = 0
        self._warned = False
        self._looks = svi.backend != "cudagraph" or policy == "skip"
        self._skipped = self._skips()
        objective: RegularizedELBO = svi.objective
        self._buffers = _buffers(svi.model, svi.guide, *objective.parts())

    def take(self, step: int, *args: Tensor) -> bool:
        """Take a step, of this number, on a batch; returns whether its numbers are finite.

        Args:
            step: its number.
            *args: the batch, and what belongs to its data, such as labels.

        Raises:
            NonFiniteError: as the policy says.
        """
        if not self._looks:
            self.svi.step(*args)
            return True
        state = noise_state()
        buffers = [buffer.clone() for buffer in self._buffers]
        failure: Exception | None = None
        try:
            loss = self.svi.step(*args)
            cause = None if math.isfinite(loss) else f"the loss is {float(loss)}"
        except (LinAlgError, ValueError) as error:
            cause = _out_of_bounds(error)
            if step == 1 or cause is None:  # not of numbers that have diverged
                raise
            failure = error
            self.left_out += 1
            self._in_a_row += 1
        skipped = self._skips() - self._skipped
        self._skipped += skipped
        self.left_out += skipped
        self._in_a_row += skipped
        if skipped and cause is None:
            cause = "gradients are not finite"
        if cause is None:
            self._in_a_row = 0
            return True
        self._undo(buffers)
        if failure is not None and ranks().count > 1:
            # Other ranks do not know, and wait for this one within the step.
            raise NonFiniteError(self._message(step, cause)) from failure
        if self.policy == "stop" or self._in_a_row >= _MOST_IN_A_ROW:
            for part in self.svi.objective.parts():
                part.set_step(self.svi.objective.step - (failure is None))
            svi = self.svi
            found = diagnose(svi.model, svi.guide, svi.objective, args, state=state)
            self._undo(buffers)
            where = self._write(step, args, cause=cause, found=found, state=state)
            rows = extreme_rows(args[0])
            of_batch = f"; data {rows} of the batch stand out" if rows else ""
            how = f"{cause}; {found}{of_batch}"
            raise NonFiniteError(self._message(step, how, where)) from failure
        if failure is not None:
            self.svi.objective.end_step(self.svi.objective.terms)  # schedules go on
        if not self._warned and ranks().index == 0:
            self._warned = True
            warnings.warn(
                f"step {step} is left out, because {cause}; the records count such steps as "
                "left_out",
                category=TrainingWarning,
                stacklevel=2,
            )
        return False

    def check(self, step: int) -> None:
        """Stop if a step up to this one was not finite, where steps are not looked at singly.

        Raises:
            NonFiniteError: with the number of steps that were left out.
        """
        if self._looks or self.fused.skipped == self._skipped:
            return
        self.left_out += self.fused.skipped - self._skipped
        raise NonFiniteError(
            f"training must stay finite, and {self.left_out} of the steps before step {step + 1} "
            "were not; they were left out, so the weights are unharmed. A CUDA graph does not say "
            f"what it was, and another run with backend 'fx' would; {self.advice}"
        )

    @property
    def advice(self) -> str:
        """What to do about a run that is not finite."""
        ways, options = ["lower the learning rate", "clip gradients (clip_norm)"], ["clip-norm 1"]
        if self.policy == "stop":
            ways.append("leave such steps out (nonfinite: skip)")
            options = ["nonfinite skip"]
        said = f"{', '.join(ways[:-1])}, or {ways[-1]}"
        if self.folder is None:
            return said
        run = shlex.quote(str(self.folder.parent))
        return f"{said}, as with: dpvae train --resume {run} --{options[0]}"

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, as JSON holds them."""
        return {"left_out": self.left_out, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take on the counts of :meth:`state_dict`."""
        self.left_out, self._in_a_row = state["left_out"], state["in_a_row"]

    def _skips(self) -> int:
        """Return how many steps the optimizers have left out."""
        optim = self.svi.optim
        return self.fused.skipped + (optim.skipped if isinstance(optim, AccumulatingOptim) else 0)

    def _undo(self, buffers: list[Tensor]) -> None:
        if buffers:
            torch._foreach_copy_(self._buffers, buffers)

    def _message(self, step: int, how: str, where: str = "") -> str:
        row = f", after {self._in_a_row - 1} others in a row," if self._in_a_row > 1 else ""
        return (
            f"training must stay finite, and at step {step}{row} it has diverged: {how}. The "
            f"weights are those before the step{where}; {self.advice}"
        )

    def _write(
        self,
        step: int,
        args: tuple[Tensor, ...],
        *,
        cause: str,
        found: Diagnosis,
        state: list[Tensor],
    ) -> str:
        """Write the batch of all ranks and what was found, and say where, or why not."""
        if self.folder is None:
            return ""
        path = self.folder / f"step-{step}.safetensors"
        wholes = [gather_batch(part.detach()) for part in args]
        if ranks().index == 0:
            names = ["batch", *(f"batch.{number}" for number in range(1, len(args)))]
            tensors = {
                name: whole.cpu().contiguous() for name, whole in zip(names, wholes, strict=True)
            }
            tensors["random_state"] = state[0]
            content = {"step": step, "cause": cause, **found.as_json()}
            text = json.dumps(content, indent=2, allow_nan=False)
            try:
                write_whole(path, save(tensors))
                write_whole(path.with_suffix(".json"), text.encode())
            except OSError as error:
                return f", and the batch is not kept ({error})"
        return f", and the batch is in {path}"


@contextmanager
def finite_parameters(done: int, advice: str) -> Iterator[None]:
    """Say of errors that come from parameters out of bounds that training has diverged.

    Args:
        done: how many steps were taken.
        advice: what to do about it.

    Raises:
        NonFiniteError: for them; other errors go on.
    """
    with diverging(
        lambda cause: (
            f"training must stay finite, and after {done} steps it has diverged: {cause}; {advice}"
        )
    ):
        yield


@contextmanager
def diverging(message: Callable[[str], str]) -> Iterator[None]:
    """Raise errors that come from parameters out of bounds as what has diverged.

    Args:
        message: from the cause to what is said of it.

    Raises:
        NonFiniteError: for them; other errors go on.
    """
    try:
        yield
    except (LinAlgError, ValueError) as error:
        cause = _out_of_bounds(error)
        if cause is None:
            raise
        raise NonFiniteError(message(cause)) from error


def _out_of_bounds(error: Exception) -> str | None:
    """Return what has diverged, if the error is of parameters that no distribution can have."""
    if isinstance(error, LinAlgError):
        return "a precision matrix has no factor"
    if "satisfy the constraint" in str(error):
        return f"{str(error).split(' (')[0]} ..."  # torch's message goes on for a page
    return None


def _buffers(*modules: nn.Module) -> list[Tensor]:
    """Return the buffers that belong to modules' states, which a step may change."""
    found = [
        buffer
        for program in modules
        for module in program.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return list({id(buffer): buffer for buffer in found}.values())
