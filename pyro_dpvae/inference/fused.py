"""One fused torch optimizer for all parameters, where Pyro has one optimizer for each."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, final

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer

from pyro_dpvae._checks import check_positive
from pyro_dpvae.inference._adam import QuickAdam

__all__ = ["FusedOptim", "any_nonfinite", "name_in_store"]

Options = dict[str, Any]

_IMPLEMENTATION = {"params", "fused", "foreach", "capturable", "differentiable"}


@final
class FusedOptim(PyroOptim):
    """A Pyro optimizer for ``pyro.infer.SVI`` that updates all parameters at once.

    It takes the steps of ``pyro.optim.Adam`` and the like with one call of one torch optimizer
    instead of one for each parameter. A parameter without a gradient in a step keeps its state and
    its value.

    Its state has the format of Pyro's optimizers, by parameter name, learning rates included:
    either can load the other's if both use the same torch optimizer.

    Args:
        options: options of the torch optimizer, such as ``{"lr": 1e-3}``, or a function from a
            parameter's name to its options. Parameters with equal options form a group.
        constructor: the torch optimizer, which must take parameter groups. It is fused where
            possible, unless the options say otherwise.
        clip_args: ``clip_norm`` and ``clip_value`` of each parameter's gradient, or a function of
            module name and parameter name, as for Pyro's optimizers.
        max_norm: the largest norm of all gradients of a step together; longer gradients are scaled
            down. None does not clip.
        skip_nonfinite: skip a step, moments included, if a gradient is not finite. With a fused
            optimizer the device decides, and nothing waits for it; with others each step waits.

    Raises:
        ValueError: if ``max_norm`` is not positive; on a step, if a parameter is not in Pyro's
            store.

    Attributes:
        optimizer: the torch optimizer; None before the first step.

    References:
        Pascanu, Mikolov, Bengio (2013), On the difficulty of training recurrent neural networks,
        section 3.2, for ``max_norm``.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.param("mean", torch.tensor(1.0)), 1.0),
        ...                 obs=torch.tensor(0.0))
        >>> def guide():
        ...     pass
        >>> svi = SVI(model, guide, FusedOptim({"lr": 0.1}), loss=Trace_ELBO())
        >>> _ = svi.step()
        >>> round(float(pyro.param("mean").detach()), 4)
        0.9
    """

    def __init__(
        self,
        options: Options | Callable[[str], Options],
        *,
        constructor: Callable[..., Optimizer] = torch.optim.Adam,
        clip_args: Any = None,
        max_norm: int | float | None = None,
        skip_nonfinite: bool = False,
    ) -> None:
        super().__init__(constructor, options, clip_args)
        self.optimizer: Optimizer | None = None
        self.max_norm = None if max_norm is None else check_positive("max_norm", max_norm)
        self.skip_nonfinite = skip_nonfinite
        self._skipped: Tensor | None = None
        self._norm: Tensor | None = None
        self._rate: float | None = None
        self._clips = clip_args is not None
        self._names: dict[Tensor, str] = {}
        self._quick: QuickAdam | None = None
        self._fusible = "fused" in inspect.signature(constructor).parameters

    def __call__(
        self,
        params: Iterable[Tensor],
        *args: Any,
        nonfinite: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Update parameters with the gradients that they hold.

        Args:
            params: the parameters.
            args: arguments of the torch optimizer's step.
            nonfinite: a scalar tensor, 1 if the loss is not finite, else 0; with
                ``skip_nonfinite``, 1 skips the step.
            kwargs: keyword arguments of the torch optimizer's step.
        """
        present = list(params)
        self.add(present)
        if self.optimizer is None:
            return
        if len(present) < len(self._names):
            for param in self._names.keys() - set(present):
                param.grad = None
        for param in present if self._clips else ():
            clip = self.grad_clip[param]
            if clip is not None:
                clip(param)
        if self.skip_nonfinite or self.max_norm is not None:
            self._guard([param for param in present if param.grad is not None], nonfinite)
            fused = all(group.get("fused") for group in self.optimizer.param_groups)
            if not fused and hasattr(self.optimizer, "found_inf"):
                found = self.optimizer.found_inf
                del self.optimizer.found_inf  # others than fused kernels do not take it
                if found:
                    return
        if args or kwargs or self._quick is None or not self._quick.step():
            self.optimizer.step(*args, **kwargs)
            self._quick = QuickAdam(self.optimizer) if QuickAdam.serves(self.optimizer) else None

    def set_learning_rate(self, rate: int | float) -> None:
        """Set the learning rate of all parameters, including later ones.

        A CUDA graph uses it from the next launch.

        Raises:
            ValueError: if it is negative or not finite.

        Example:
            >>> optim = FusedOptim({"lr": 1e-3})
            >>> optim.set_learning_rate(5e-4)
        """
        if not 0 <= rate < math.inf:
            raise ValueError(f"learning rate must be 0 or more and finite, got {rate}")
        self._rate = float(rate)
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            group["lr"] = self._rate

    def add(self, params: Iterable[Tensor]) -> None:
        """Take on parameters before their first step, those of them that are new."""
        known = self._names
        names = {name_in_store(param): param for param in params if param not in known}
        # SVI gives a set, whose order is not that of another process.
        for name in sorted(names):
            self._add(names[name], name)

    @property
    def skipped(self) -> int:
        """The number of skipped steps; reading it waits for the device."""
        return 0 if self._skipped is None else int(self._skipped)

    @property
    def gradient_norm(self) -> float | None:
        """The norm of the last gradients before clipping; None without. Reading it waits."""
        return None if self._norm is None else float(self._norm)

    def get_state(self) -> dict[str, Any]:
        """Return the state by parameter name, each in the format of a torch optimizer."""
        state = dict(self._state_waiting_to_be_consumed)
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            options = {key: value for key, value in group.items() if key != "params"}
            for param in group["params"]:
                entries = self.optimizer.state.get(param, {})  # type: ignore[union-attr]
                # Each counter by itself, where they are views of one tensor.
                own = {
                    k: v.clone() if k == "step" and isinstance(v, Tensor) else v
                    for k, v in entries.items()
                }
                state[self._names[param]] = {
                    "state": {0: own} if own else {},
                    "param_groups": [{**options, "params": [0]}],
                }
        return state

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Load a state: now for known parameters, later for others when they are added."""
        by_name = {name: param for param, name in self._names.items()}
        for name, state in state_dict.items():
            if name in by_name:
                self._load(by_name[name], state)
            else:
                self._state_waiting_to_be_consumed[name] = state

    def _guard(self, params: list[Tensor], nonfinite: Tensor | None) -> None:
        """Clip the gradients, and mark the step if they are not finite."""
        gradients = [param.grad for param in params if param.grad is not None]
        if not gradients:
            return
        if self.max_norm is None:
            found = any_nonfinite(gradients)
        else:
            # One norm serves both: it is not finite if one element is not.
            norm = _total_norm(gradients)
            torch.nn.utils.clip_grads_with_norm_(params, self.max_norm, norm)
            found = norm.isfinite().logical_not().float()
            if self._norm is None:
                self._norm = torch.zeros_like(norm)
            self._norm.copy_(norm)
        if self.skip_nonfinite:
            if nonfinite is not None:
                found = torch.maximum(found, nonfinite.to(found))
            if self._skipped is None:
                self._skipped = torch.zeros_like(found)
            self._skipped.add_(found)
            # Fused kernels skip the step where it is 1, as for GradScaler.
            self.optimizer.found_inf = found  # type: ignore[union-attr]

    def _add(self, param: Tensor, name: str) -> None:
        options = dict(self._get_optim_args(param))
        if self._rate is not None:
            options["lr"] = self._rate
        chosen = options.keys() & {"fused", "foreach", "differentiable"}
        if self._fusible and not chosen and not self._has_late_momentum(options):
            options["fused"] = True
        if self.skip_nonfinite and options.get("fused") and self._has_late_momentum(options):
            raise ValueError(
                "fused SGD with momentum cannot skip a step: a skipped first step leaves the "
                "momentum undefined, got fused=True with skip_nonfinite=True; leave fused out"
            )
        for old in [one for one, known in self._names.items() if known == name]:
            self._remove(old)  # the store was cleared
        self._put(param, options)
        self._names[param] = name
        self.grad_clip[param] = self._get_grad_clip(param)
        waiting = self._state_waiting_to_be_consumed.pop(name, None)
        if waiting is not None:
            self._load(param, waiting)

    def _has_late_momentum(self, options: Options) -> bool:
        """Return True for SGD with momentum, whose fused kernel needs it from the first step on.

        In torch 2.14.1 the kernel takes uninitialised memory for it after a skipped first step,
        and fails for a parameter whose first gradient comes later than that of others.
        """
        constructor = self.pt_optim_constructor
        kind = getattr(constructor, "func", constructor)
        options = {**getattr(constructor, "keywords", {}), **options}
        return kind is torch.optim.SGD and bool(options.get("momentum"))

    def _put(self, param: Tensor, options: Options) -> Options:
        """Put a parameter into the group of its options; return the group."""
        self._quick = None
        if self.optimizer is None:
            self.optimizer = self.pt_optim_constructor([{"params": [param], **options}])
            return self.optimizer.param_groups[0]
        full = {**self.optimizer.defaults, **options}
        for group in self.optimizer.param_groups:
            if all(group[key] == value for key, value in full.items()):
                group["params"].append(param)
                return group
        self.optimizer.add_param_group({"params": [param], **options})
        return self.optimizer.param_groups[-1]

    def _remove(self, param: Tensor) -> None:
        """Remove a parameter whose name now belongs to another."""
        assert self.optimizer is not None
        self._quick = None
        for group in self.optimizer.param_groups:
            group["params"] = [one for one in group["params"] if one is not param]
        self.optimizer.state.pop(param, None)
        del self._names[param], self.grad_clip[param]

    def _load(self, param: Tensor, state: dict[str, Any]) -> None:
        assert self.optimizer is not None
        self._quick = None
        entries = state["state"].get(0, {})
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != param.shape:
                raise ValueError(
                    f"the state of {self._names[param]!r} has the wrong shape: {name} must have "
                    f"shape {tuple(param.shape)}, got {tuple(value.shape)}"
                )
        groups, saved = self.optimizer.param_groups, state["param_groups"][0]
        group = next(g for g in groups if any(p is param for p in g["params"]))
        options = {key: value for key, value in group.items() if key != "params"}
        kept = {key: saved[key] for key in saved.keys() & options.keys() - _IMPLEMENTATION}
        if any(options[key] != value for key, value in kept.items()):
            group["params"] = [one for one in group["params"] if one is not param]
            group = self._put(param, {**options, **kept})
            groups[:] = [each for each in groups if each["params"]]
        self.optimizer.state[param] = {
            name: _beside(param, value, group) if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        if isinstance(entries.get("step"), int):  # as in Pyro's ClippedAdam
            step = torch.tensor(float(entries["step"]), device=param.device)
            self.optimizer.state[param]["step"] = step


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of all gradients together, independent of their order."""
    norms = torch._foreach_norm(gradients)
    # Sorted, since the order of SVI's set of parameters differs between processes, and a sum of
    # rounded numbers depends on the order.
    return torch.stack([norm.to(norms[0]) for norm in norms]).sort().values.norm()


def any_nonfinite(gradients: list[Tensor]) -> Tensor:
    """Return a scalar tensor: 1 if an element is not finite, else 0."""
    found = torch.zeros((), dtype=torch.float32, device=gradients[0].device)
    scale = torch.ones((), device=found.device)
    for dtype in {gradient.dtype for gradient in gradients}:
        # GradScaler's kernel: on a CPU five times as fast as a norm of many tensors.
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        torch._amp_foreach_non_finite_check_and_unscale_(alike, found, scale)
    return found


def _beside(param: Tensor, value: Tensor, group: Options) -> Tensor:
    """Return a copy of a parameter's state on the device where its group's step reads it."""
    moves = value.dim() or group.get("fused") or group.get("capturable")
    return value.detach().to(param.device if moves else value.device, copy=True)


def name_in_store(param: Tensor) -> str:
    """Return the name of a parameter in Pyro's store.

    Raises:
        ValueError: if the store does not hold it.
    """
    name: str | None = pyro.get_param_store().param_name(param)
    if name is None:
        raise ValueError(
            "the optimizer updates parameters in Pyro's store only, got a tensor of shape "
            f"{tuple(param.shape)} that is not there; register it with pyro.param or "
            "pyro.module, and do not clear the store before a step"
        )
    return name
