"""Guards against steps whose loss or gradients are not finite."""

import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # missing in torch's stubs

from pyro_dpvae._checks import check_choice
from pyro_dpvae._files import write_whole
from pyro_dpvae._randomness import noise_state
from pyro_dpvae._ranks import gather_batch, ranks
from pyro_dpvae.errors import DpvaeError, TrainingWarning
from pyro_dpvae.inference import AccumulatingOptim, CapturedSVI, FusedOptim
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.diagnosis import diagnose, extreme_rows

__all__ = ["POLICIES", "GuardedSteps", "NonFiniteError", "diverging"]

POLICIES = ("stop", "skip")
"""Policies for a step that is not finite: stop the run, or skip the step."""

_MOST_IN_A_ROW = 20  # a run that skips every step must not look alive


class NonFiniteError(DpvaeError, ValueError):
    """A step's loss or gradients were not finite, and training stops; weights are unharmed."""


@final
class GuardedSteps:
    """Take SVI steps; a step with a loss or gradients that are not finite changes no weights.

    The optimizer skips such a step on the device, moments included. An adversary's optimizer does
    the same where the loss or its own gradients are not finite. This class then rolls back
    buffers, such as running means, and applies the policy. ``stop`` raises an error that names the
    terms, sites and parameters, and writes the batch to a file. ``skip`` continues, but stops
    after 20 skipped steps in a row.

    With CUDA graphs, ``skip`` waits for each step. ``stop`` looks at the steps only when
    :meth:`check` is called, and then knows neither batch nor terms.

    All ranks must take the same steps, with losses of the global batch and averaged gradients, so
    that all decide alike.

    Args:
        svi: takes the steps; its optimizer updates with ``fused``.
        fused: the optimizer that skips steps that are not finite, made with ``skip_nonfinite``.
        policy: ``"stop"`` or ``"skip"``.
        folder: folder for the batch at which training stops; None writes none.

    Raises:
        ValueError: if ``policy`` is unknown.

    Attributes:
        left_out: the number of skipped steps.
    """

    def __init__(
        self,
        svi: CapturedSVI,
        fused: FusedOptim,
        *,
        policy: str = "stop",
        folder: Path | None = None,
    ) -> None:
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
        """Take a step on a batch; return True if its loss and gradients are finite.

        Args:
            step: the number of the step.
            *args: the batch, and tensors that belong to it, such as labels.

        Raises:
            NonFiniteError: according to the policy.
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
            if step == 1 or cause is None:  # an error of the data or the model, no divergence
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
            # Other ranks wait for this one inside the step.
            raise NonFiniteError(self._message(step, cause)) from failure
        if self.policy == "stop" or self._in_a_row >= _MOST_IN_A_ROW:
            for part in self.svi.objective.parts():
                part.set_step(self.svi.objective.step - (failure is None))
            found = diagnose(self.svi, args, state=state)
            self._undo(buffers)
            # JSON has no numbers that are not finite.
            terms = {k: v if math.isfinite(v) else str(v) for k, v in found.terms.items()}
            content = {"step": step, "cause": cause, **asdict(found), "terms": terms}
            where = self._write(content, args, state[0])
            rows = extreme_rows(args[0])
            of_batch = f"; items {rows} of the batch are extreme" if rows else ""
            how = f"{cause}; {found}{of_batch}"
            raise NonFiniteError(self._message(step, how, where)) from failure
        if failure is not None:
            self.svi.objective.end_step(self.svi.objective.terms)  # schedules go on
        if not self._warned and ranks().index == 0:
            self._warned = True
            warnings.warn(
                f"step {step} is skipped because {cause}; the records count skipped steps as "
                "left_out",
                category=TrainingWarning,
                stacklevel=2,
            )
        return False

    def check(self, step: int) -> None:
        """Raise if a step up to this one was not finite, where steps are not checked one by one.

        Raises:
            NonFiniteError: with the number of skipped steps.
        """
        if self._looks or self.fused.skipped == self._skipped:
            return
        self.left_out += self.fused.skipped - self._skipped
        raise NonFiniteError(
            f"training has diverged: loss and gradients must be finite, and {self.left_out} of "
            f"the steps before step {step + 1} were not. They were skipped, so the weights are "
            "unharmed. Train with backend='fx' to learn the cause (a CUDA graph hides it); "
            f"{self.advice}"
        )

    @property
    def advice(self) -> str:
        """Remedies for a run that is not finite."""
        advice = "lower learning_rate, clip gradients with clip_norm"
        if self.policy == "stop":
            advice += ", or skip such steps with nonfinite='skip'"
        if self.folder is not None:
            advice += f", and resume the run in {self.folder.parent}"
        return advice

    def state_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {"left_out": self.left_out, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the counts of :meth:`state_dict`."""
        self.left_out, self._in_a_row = state["left_out"], state["in_a_row"]

    def _skips(self) -> int:
        """Return the number of steps that the optimizers have skipped."""
        optim = self.svi.optim
        return self.fused.skipped + (optim.skipped if isinstance(optim, AccumulatingOptim) else 0)

    def _undo(self, buffers: list[Tensor]) -> None:
        if buffers:
            torch._foreach_copy_(self._buffers, buffers)

    def _message(self, step: int, how: str, where: str = "") -> str:
        row = f" (after {self._in_a_row - 1} others in a row)" if self._in_a_row > 1 else ""
        return (
            f"training has diverged at step {step}{row}: {how}. The weights are those before the "
            f"step{where}; {self.advice}"
        )

    def _write(self, content: dict[str, Any], args: tuple[Tensor, ...], state: Tensor) -> str:
        """Write the batch of all ranks and the diagnosis; return a note of where, or why not."""
        if self.folder is None:
            return ""
        path = self.folder / f"step-{content['step']}.safetensors"
        wholes = [gather_batch(part.detach()) for part in args]
        if ranks().index == 0:
            names = ["batch", *(f"batch.{number}" for number in range(1, len(args)))]
            tensors = {
                name: whole.cpu().contiguous() for name, whole in zip(names, wholes, strict=True)
            }
            tensors["random_state"] = state
            text = json.dumps(content, indent=2, allow_nan=False)
            try:
                write_whole(path, save(tensors))
                write_whole(path.with_suffix(".json"), text.encode())
            except OSError as error:
                return f", and the batch could not be written ({error})"
        return f", and the batch is in {path}"


@contextmanager
def diverging(message: Callable[[str], str]) -> Iterator[None]:
    """Turn errors caused by parameters out of bounds into NonFiniteError.

    Args:
        message: builds the error text from the cause.

    Raises:
        NonFiniteError: for such errors; other errors are re-raised.
    """
    try:
        yield
    except (LinAlgError, ValueError) as error:
        cause = _out_of_bounds(error)
        if cause is None:
            raise
        raise NonFiniteError(message(cause)) from error


def _out_of_bounds(error: Exception) -> str | None:
    """Return the cause if the error comes from parameters or samples that are not valid."""
    if isinstance(error, LinAlgError):
        return "a precision matrix has no Cholesky factor"
    if "satisfy the constraint" in str(error):
        return f"{str(error).split(' (')[0]} ..."  # torch's message goes on for a page
    if "within the support" in str(error) and "nan" in str(error):
        return "a sample of the latents is NaN"
    return None


def _buffers(*modules: nn.Module) -> list[Tensor]:
    """Return the persistent buffers of modules, which a step may change."""
    found = [
        buffer
        for program in modules
        for module in program.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return list({id(buffer): buffer for buffer in found}.values())
