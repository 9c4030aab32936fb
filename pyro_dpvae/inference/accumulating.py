"""Gradient accumulation: large batches in little memory."""

from collections.abc import Collection, Iterable
from typing import Any, final

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._ranks import average_, gather_objects
from pyro_dpvae.inference.fused import any_nonfinite, name_in_store

__all__ = ["AccumulatingOptim"]


@final
class AccumulatingOptim(PyroOptim):
    """Call another Pyro optimizer every k steps with the sum of k steps' gradients.

    The losses of Pyro's objectives are sums over the batch, so k batches of B items make the
    update of one batch of k B, as far as the loss is a sum over items. Penalties that compare the
    items of a batch, such as a total correlation, see each of the k batches separately.

    A parameter with a gradient in one of the k steps takes part in the update. If ``optim`` skips
    gradients that are not finite, each step is checked: a step that is not finite on any rank is
    skipped and not counted among the k.

    Args:
        optim: the optimizer that updates; it averages gradients over ranks once for k steps.
        every: the number k.

    Raises:
        ValueError: if ``every`` is below 1.

    Attributes:
        pending: the number of steps that wait for the next update.
        skipped: the number of skipped steps.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_dpvae.inference import FusedOptim
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.param("moved", torch.tensor(1.0)), 1.0),
        ...                 obs=torch.tensor(0.0))
        >>> def guide():
        ...     pass
        >>> optim = AccumulatingOptim(FusedOptim({"lr": 0.1}), 2)
        >>> svi = SVI(model, guide, optim, loss=Trace_ELBO())
        >>> for _ in range(2):
        ...     _ = svi.step()
        ...     print(round(float(pyro.param("moved").detach()), 4))
        1.0
        0.9
    """

    def __init__(self, optim: PyroOptim, every: int) -> None:
        # Options, state and clipping belong to the inner optimizer.
        self.optim = optim
        self.every = check_positive_int("every", every)
        self.pending = 0
        self.skipped = 0
        self._sums: dict[str, Tensor] = {}

    def __call__(
        self,
        params: Iterable[Tensor],
        *args: Any,
        nonfinite: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the gradients of a step; update with the sums at the last of k steps.

        Args:
            params: the parameters.
            args: arguments of the inner optimizer.
            nonfinite: as for ``FusedOptim``.
            kwargs: keyword arguments of the inner optimizer.
        """
        named = {name_in_store(param): param for param in params}
        moved = {name: param for name, param in named.items() if param.grad is not None}
        if self.skip_nonfinite and self._any_nonfinite(named.values(), nonfinite):
            self.skipped += 1
            for param in moved.values():
                param.grad = None
            return
        known = [name for name in moved if name in self._sums]
        if known:
            gradients = [moved[name].grad for name in known]
            torch._foreach_add_([self._sums[name] for name in known], gradients)  # type: ignore[arg-type]  # none is None
        for name, param in moved.items():
            self._sums.setdefault(name, param.grad)  # type: ignore[arg-type]  # not None either
            param.grad = None  # the sum owns the tensor
        self.pending += 1
        if self.pending < self.every:
            return
        stored = pyro.get_param_store()._params
        for name, total in self._sums.items():
            named.setdefault(name, stored[name])
            named[name].grad = total
        self.pending, self._sums = 0, {}
        self.optim(named.values(), *args, **kwargs)

    def share(self) -> None:
        """Average the accumulated gradients over ranks, which does not change the next update.

        A missing gradient counts as zero. All ranks must call it.
        """
        names = sorted({name for own in gather_objects(list(self._sums)) for name in own})
        stored = pyro.get_param_store()._params
        for name in names:
            self._sums.setdefault(name, torch.zeros_like(stored[name]))
        average_([self._sums[name] for name in names])

    @property
    def skip_nonfinite(self) -> bool:
        """True if ``optim`` skips updates with gradients that are not finite."""
        return getattr(self.optim, "skip_nonfinite", False)

    def get_state(self) -> dict[str, Any]:
        """Return the state of ``optim``, the number of pending steps and the sums by name."""
        sums = {name: total.detach().clone() for name, total in self._sums.items()}
        return {"optim": self.optim.get_state(), "pending": self.pending, "sums": sums}

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Load a state of :meth:`get_state`; Pyro's store must hold the parameters."""
        self.optim.set_state(state_dict["optim"])
        stored = pyro.get_param_store()._params
        self.pending = state_dict["pending"]
        self._sums = {
            name: total.to(stored[name].device, copy=True)
            for name, total in state_dict["sums"].items()
        }

    @staticmethod
    def _any_nonfinite(params: Collection[Tensor], nonfinite: Tensor | None) -> bool:
        """Return True if the loss or a gradient of a step is not finite on any rank."""
        device = next((param.device for param in params), torch.device("cpu"))
        gradients = [param.grad for param in params if param.grad is not None]
        found = any_nonfinite(gradients) if gradients else torch.zeros((), device=device)
        if nonfinite is not None:
            found = torch.maximum(found, nonfinite.to(found))
        average_([found])
        return bool(found)
