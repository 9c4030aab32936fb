"""The training step: SVI with learning rate, precision, guard and weight average; its state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_dpvae._ranks import ranks
from pyro_dpvae.data import as_arguments
from pyro_dpvae.errors import CheckpointError
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

__all__ = ["Steps", "Updates"]


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


@final
class Updates:
    """The state of SVI and its optimizer for a checkpoint.

    Names in Pyro's parameter store contain running numbers, which depend on the process. A
    checkpoint uses the modules' names for their parameters. Other parameters, from ``pyro.param``,
    keep their names in the store, and their values are part of the state.

    Args:
        svi: takes the steps.
        optim: its optimizer, or the one that its optimizer wraps.
        modules: the trained modules by name.
    """

    def __init__(
        self, svi: CapturedSVI, optim: FusedOptim, modules: Mapping[str, nn.Module]
    ) -> None:
        self.svi, self.optim, self.modules = svi, optim, dict(modules)

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        names = self._names()
        waiting = self.svi.optim.get_state()
        if isinstance(self.svi.optim, AccumulatingOptim):
            given = waiting.pop("optim")
        else:
            given, waiting = waiting, {}
        optimizer = {names.get(name, name): own for name, own in given.items()}
        step = self.svi.state_dict()
        step["moved"] = [names.get(name, name) for name in step["moved"]]
        stored = pyro.get_param_store()._params
        loose = {name: stored[name] for name in optimizer if name in stored}
        state = {"optimizer": optimizer, "step": step, "loose": loose}
        if waiting:
            waiting["sums"] = {names.get(n, n): total for n, total in waiting["sums"].items()}
            state["waiting"] = waiting
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state, after model and guide have run and registered their parameters.

        Raises:
            ValueError: if the store lacks a parameter.
        """
        places = {name: place for place, name in self._names().items()}
        stored = pyro.get_param_store()._params

        def place(name: str) -> str:
            found: str = places.get(name, name)
            if found not in stored:
                raise CheckpointError(
                    "the checkpoint is of another model or guide: it has the parameter "
                    f"{name!r}, which these do not have; build model and guide as they were"
                )
            return found

        with torch.no_grad():
            for name, value in state["loose"].items():
                stored[place(name)].copy_(value)
        optimizer = {place(name): own for name, own in state["optimizer"].items()}
        if isinstance(self.svi.optim, AccumulatingOptim):
            waiting = state["waiting"]
            sums = {place(name): total for name, total in waiting["sums"].items()}
            self.svi.optim.set_state({**waiting, "sums": sums, "optim": optimizer})
        else:
            self.svi.optim.set_state(optimizer)
        self.optim.add([stored[name] for name in optimizer])
        moved = [place(name) for name in state["step"]["moved"]]
        self.svi.load_state_dict({**state["step"], "moved": moved})

    def _names(self) -> dict[str, str]:
        """Return the modules' names of parameters by their names in Pyro's store."""
        store: dict[Tensor, str] = pyro.get_param_store()._param_to_name
        names: dict[str, str] = {}
        for module, whole in self.modules.items():
            for name, parameter in whole.named_parameters():
                if parameter in store:
                    names.setdefault(store[parameter], f"{module}.{name}")
        return names
