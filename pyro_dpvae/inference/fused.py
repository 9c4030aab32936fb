"""One fused torch optimizer for all parameters, where Pyro's has one optimizer for each."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, final

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["FusedOptim"]

Options = dict[str, Any]

_IMPLEMENTATION = {"params", "fused", "foreach", "capturable", "differentiable"}


@final
class FusedOptim(PyroOptim):
    """A Pyro optimizer that steps all parameters at once, for ``pyro.infer.SVI``.

    It takes the steps of ``pyro.optim.Adam`` and its like with one call of one torch optimizer
    instead of one for each parameter. Parameters may come and go: one that a step has no
    gradient for keeps its state and its value.

    States are those of Pyro's optimizers, by parameter name, learning rates included: either may
    load the other's where both are of one torch optimizer.

    Args:
        options: of the torch optimizer, such as ``{"lr": 1e-3}``; or a function from the name of a
            parameter to its options. Parameters of equal options make a group.
        constructor: of the torch optimizer, which must take parameter groups. It is fused where
            it can be, unless the options say otherwise.
        clip_args: ``clip_norm`` and ``clip_value`` of each parameter's gradient, or a function of
            module name and parameter name, as of Pyro's optimizers.
        skip_nonfinite: whether a step is left out, moments included, if a gradient of it is not
            finite. The decision is the device's, and nothing waits for it. It takes a fused
            optimizer.

    Raises:
        ValueError: on a step, if ``skip_nonfinite`` is asked of an optimizer that is not fused, or
            a parameter is not in Pyro's store.

    Attributes:
        optimizer: the torch optimizer; None before the first step.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(1.0)), 1.0),
        ...                 obs=torch.tensor(0.0))
        >>> def guide():
        ...     pass
        >>> svi = SVI(model, guide, FusedOptim({"lr": 0.1}), loss=Trace_ELBO())
        >>> _ = svi.step()
        >>> round(float(pyro.param("m").detach()), 4)
        0.9
    """

    def __init__(
        self,
        options: Options | Callable[[str], Options],
        *,
        constructor: Callable[..., Optimizer] = torch.optim.Adam,
        clip_args: Any = None,
        skip_nonfinite: bool = False,
    ) -> None:
        super().__init__(constructor, options, clip_args)
        self.optimizer: Optimizer | None = None
        self.skip_nonfinite = skip_nonfinite
        self._skipped: Tensor | None = None
        self._clips = clip_args is not None
        self._names: dict[Tensor, str] = {}
        self._fusible = "fused" in inspect.signature(constructor).parameters

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """Take a step of the given parameters, with the gradients that they hold."""
        present = list(params)
        new = [param for param in present if param not in self._names]
        names = {_name(param): param for param in new}
        # SVI gives a set, whose order is not that of another process.
        for name in sorted(names):
            self._add(names[name], name)
        if self.optimizer is None:
            return
        if len(present) < len(self._names):
            for param in self._names.keys() - set(present):
                param.grad = None
        for param in present if self._clips else ():
            clip = self.grad_clip[param]
            if clip is not None:
                clip(param)
        if self.skip_nonfinite:
            self._mark_nonfinite([param.grad for param in present if param.grad is not None])
        self.optimizer.step(*args, **kwargs)

    @property
    def skipped(self) -> int:
        """How many steps were skipped; asking waits for the device."""
        return 0 if self._skipped is None else int(self._skipped)

    def get_state(self) -> dict[str, Any]:
        """Return the optimizer's state by parameter name, each as a torch optimizer's."""
        if self.optimizer is None:
            return dict(self._state_waiting_to_be_consumed)
        state = {}
        for group in self.optimizer.param_groups:
            options = {key: value for key, value in group.items() if key != "params"}
            for param in group["params"]:
                entries = self.optimizer.state.get(param, {})
                state[self._names[param]] = {
                    "state": {0: dict(entries)} if entries else {},
                    "param_groups": [{**options, "params": [0]}],
                }
        return state

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Take on a state: of known parameters at once, of others when they come."""
        by_name = {name: param for param, name in self._names.items()}
        for name, state in state_dict.items():
            if name in by_name:
                self._load(by_name[name], state)
            else:
                self._state_waiting_to_be_consumed[name] = state

    def _mark_nonfinite(self, gradients: list[Tensor]) -> None:
        # The norm is not finite if one element is not; fused kernels skip where found_inf is 1.
        norm = torch.nn.utils.get_total_norm(gradients)
        found = norm.isfinite().logical_not().float()
        if self._skipped is None:
            self._skipped = torch.zeros_like(found)
        self._skipped.add_(found)
        self.optimizer.found_inf = found  # type: ignore[union-attr]  # set by GradScaler as well

    def _add(self, param: Tensor, name: str) -> None:
        options = dict(self._get_optim_args(param))
        if self._fusible and not options.keys() & {"fused", "foreach", "differentiable"}:
            options["fused"] = True
        if self.skip_nonfinite and not options.get("fused"):
            raise ValueError(
                "skip_nonfinite needs a fused optimizer, which can leave a step out, got "
                f"{self.pt_optim_constructor.__name__} with {options}; use torch.optim.Adam, "
                "AdamW or SGD, and do not set fused or foreach"
            )
        for old in [one for one, known in self._names.items() if known == name]:
            self._remove(old)  # as after a cleared store
        self._put(param, options)
        self._names[param] = name
        self.grad_clip[param] = self._get_grad_clip(param)
        waiting = self._state_waiting_to_be_consumed.pop(name, None)
        if waiting is not None:
            self._load(param, waiting)

    def _put(self, param: Tensor, options: Options) -> None:
        """Put a parameter into the group of its options."""
        if self.optimizer is None:
            self.optimizer = self.pt_optim_constructor([{"params": [param], **options}])
            return
        full = {**self.optimizer.defaults, **options}
        for group in self.optimizer.param_groups:
            if all(group[key] == value for key, value in full.items()):
                group["params"].append(param)
                return
        self.optimizer.add_param_group({"params": [param], **options})

    def _remove(self, param: Tensor) -> None:
        """Forget a parameter that its name no longer means."""
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            group["params"] = [one for one in group["params"] if one is not param]
        self.optimizer.state.pop(param, None)
        del self._names[param], self.grad_clip[param]

    def _load(self, param: Tensor, state: dict[str, Any]) -> None:
        assert self.optimizer is not None
        entries = state["state"].get(0, {})
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != param.shape:
                raise ValueError(
                    f"the state of {self._names[param]!r} must be of its shape "
                    f"{tuple(param.shape)}, got {name} of {tuple(value.shape)}"
                )
        self._regroup(param, state["param_groups"][0])
        self.optimizer.state[param] = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        if isinstance(entries.get("step"), int):  # as Pyro's ClippedAdam counts
            step = torch.tensor(float(entries["step"]), device=param.device)
            self.optimizer.state[param]["step"] = step

    def _regroup(self, param: Tensor, saved: Options) -> None:
        """Put a parameter into a group of the options that its state was saved with.

        How a step is computed stays as it is.
        """
        assert self.optimizer is not None
        own = next(g for g in self.optimizer.param_groups if any(p is param for p in g["params"]))
        options = {key: value for key, value in own.items() if key != "params"}
        kept = {key: saved[key] for key in saved.keys() & options.keys() - _IMPLEMENTATION}
        if any(options[key] != value for key, value in kept.items()):
            own["params"] = [one for one in own["params"] if one is not param]
            self._put(param, {**options, **kept})
            groups = self.optimizer.param_groups
            groups[:] = [group for group in groups if group["params"]]


def _name(param: Tensor) -> str:
    name: str | None = pyro.get_param_store().param_name(param)
    if name is None:
        raise ValueError(
            "FusedOptim steps parameters of Pyro's store, by their names there, got a tensor of "
            f"shape {tuple(param.shape)} that it does not hold; register it by pyro.param or "
            "pyro.module, and do not clear the store before a step"
        )
    return name
