"""The state of an optimizer and of recorded steps, by names that another process knows."""

from collections.abc import Mapping
from typing import Any, final

import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.inference import AccumulatingOptim, CapturedSVI, FusedOptim

__all__ = ["Updates"]


@final
class Updates:
    """What takes the steps of a run, as a checkpoint holds it.

    Names in Pyro's store have running numbers, which depend on what else the process has built.
    In a checkpoint, parameters of modules have the modules' names for them; what else programs
    hold in the store, by ``pyro.param``, has its name there, and its value is part of the state.

    Args:
        svi: what takes steps.
        optim: its optimizer, or what that updates by.
        modules: by name, whose parameters it moves.
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
        """Take on a state; the programs must have run, so that Pyro's store has their parameters.

        Raises:
            ValueError: if the store has no parameter of a name.
        """
        places = {name: place for place, name in self._names().items()}
        stored = pyro.get_param_store()._params

        def place(name: str) -> str:
            found: str = places.get(name, name)
            if found not in stored:
                raise CheckpointError(
                    f"a checkpoint must be of the same model and guide, and has the parameter "
                    f"{name!r}, which these have not; build them as they were"
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
        """Return the names of modules' parameters by those in Pyro's store."""
        store: dict[Tensor, str] = pyro.get_param_store()._param_to_name
        names: dict[str, str] = {}
        for module, whole in self.modules.items():
            for name, parameter in whole.named_parameters():
                if parameter in store:
                    names.setdefault(store[parameter], f"{module}.{name}")
        return names
