"""Steps of one fused Adam of PyTorch, without the Python that looks at each parameter anew."""

from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

__all__ = ["QuickAdam"]


@final
class QuickAdam:
    """The step of a fused Adam on all of its parameters, as one call of its kernel.

    The counters of steps that the optimizer keeps, one for each parameter, become views of one
    tensor, so that one addition counts them all.

    Args:
        optimizer: has taken a step of all of its parameters, and :meth:`serves` it.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._state = optimizer.state
        (self._group,) = optimizer.param_groups
        self.params: list[Tensor] = list(self._group["params"])
        states = [optimizer.state[param] for param in self.params]
        self._means = [state["exp_avg"] for state in states]
        self._squares = [state["exp_avg_sq"] for state in states]
        self._counters = torch.stack([state["step"] for state in states])
        self._steps = list(self._counters.unbind())
        for state, step in zip(states, self._steps, strict=True):
            state["step"] = step

    @staticmethod
    def serves(optimizer: Optimizer) -> bool:
        """Whether an optimizer's next step may be taken so."""
        if type(optimizer) not in (Adam, AdamW) or len(optimizer.param_groups) != 1:
            return False
        (group,) = optimizer.param_groups
        params = group["params"]
        kinds = {(param.dtype, param.device) for param in params}
        return (
            bool(group["fused"])
            and not (group["amsgrad"] or group["differentiable"])
            and kinds == {(torch.float32, torch.device("cpu"))}
            and all("exp_avg" in optimizer.state.get(param, {}) for param in params)
            and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        )

    def step(self) -> bool:
        """Take a step; returns whether it could, as all parameters have dense gradients."""
        if self._optimizer.state is not self._state:
            return False
        gradients: list[Any] = [param.grad for param in self.params]
        if not all(gradient is not None and not gradient.is_sparse for gradient in gradients):
            return False
        group, nonfinite = self._group, getattr(self._optimizer, "found_inf", None)
        with torch.no_grad():
            self._counters.add_(1)
            kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
            kernel(
                self.params,
                gradients,
                self._means,
                self._squares,
                [],
                self._steps,
                amsgrad=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=group["maximize"],
                grad_scale=None,
                found_inf=nonfinite,
            )
            if nonfinite is not None:  # a step that is left out does not count
                self._counters.sub_(nonfinite)
        return True
