"""The training step: SVI with learning rate, precision, guard and weight average."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from pyro.optim import PyroOptim
from torch import nn

from pyro_dpvae._ranks import ranks
from pyro_dpvae.data import as_arguments
from pyro_dpvae.inference import (
    AccumulatingOptim,
    AveragingOptim,
    CapturedSVI,
    FusedOptim,
    backend_for,
)
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.average import Average
from pyro_dpvae.training.config import OPTIMIZERS, TrainConfig
from pyro_dpvae.training.guard import GuardedSteps

__all__ = ["Steps"]


@final
class Steps:
    """Take training steps with learning rate, precision, guard and weight average.

    Args:
        modules: the modules ``"model"`` and ``"guide"``.
        objective: the loss.
        config: the training configuration.
        folder: folder for the batch at which training stops; None writes none.

    Attributes:
        svi: takes the steps.
        optim: the optimizer, which updates once for all ranks and accumulated batches.
        guarded: its steps, checked to be finite.
        average: the weight average, if there is one.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        objective: RegularizedELBO,
        *,
        config: TrainConfig,
        folder: Path | None,
    ) -> None:
        self._config = config
        self.optim = FusedOptim(
            {"lr": config.learning_rate_at(0)},
            constructor=OPTIMIZERS[config.optimizer],
            max_norm=config.clip_norm,
            skip_nonfinite=True,
        )
        optim: PyroOptim = AveragingOptim(self.optim) if ranks().count > 1 else self.optim
        if config.accumulate > 1:
            optim = AccumulatingOptim(optim, config.accumulate)
        model, guide = modules["model"], modules["guide"]
        backend = backend_for(config.backend, model, guide, objective)
        self.svi = CapturedSVI(model, guide, optim, objective, backend=backend)
        self.guarded = GuardedSteps(self.svi, self.optim, policy=config.nonfinite, folder=folder)
        self._updated = False
        self.average = None
        if config.average_decay is not None:
            self.average = Average(modules, decay=config.average_decay)

    def take(self, done: int, batch: Any) -> bool:
        """Take the next step on a batch; return True if its loss and gradients are finite.

        A batch that is a tuple holds the arguments of model and guide.

        Raises:
            NonFiniteError: if they are not finite and the policy is to stop.
        """
        self.optim.set_learning_rate(self._config.learning_rate_at(done))
        cast = self._config.precision == "bfloat16"
        args = as_arguments(batch)
        with torch.autocast(args[0].device.type, torch.bfloat16, enabled=cast):
            finite = self.guarded.take(done + 1, *args)
        self._updated = finite and not getattr(self.svi.optim, "pending", 0)
        if self._updated and self.average is not None:
            self.average.update()
        return finite

    def changed(self) -> None:
        """Restart the weight average after weights changed without a step."""
        if self.average is not None:
            self.average.restart()

    @property
    def notes(self) -> dict[str, Any]:
        """The entries of a step's record besides its terms."""
        notes: dict[str, Any] = {}
        if self.guarded.left_out:
            notes["left_out"] = self.guarded.left_out
        if self._updated and self.optim.gradient_norm is not None:
            notes["gradient_norm"] = self.optim.gradient_norm
        return notes

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, besides weights, averages and the optimizer."""
        state: dict[str, Any] = {"guard": self.guarded.state_dict()}
        if self.average is not None:
            state["averaged"] = self.average.updates
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        self.guarded.load_state_dict(state["guard"])
        if self.average is not None:
            self.average.updates = state["averaged"]
