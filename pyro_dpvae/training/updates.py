"""The state of an optimizer and of captured steps, by names that do not depend on the process."""

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
