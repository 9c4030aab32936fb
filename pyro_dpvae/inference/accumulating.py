"""Gradients of several steps summed before an update: large batches in little memory."""

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
    """Another Pyro optimizer, called every k steps with the sums of k steps' gradients.

    The losses of Pyro's objectives are sums over the batch, so k batches of B data make the
    update of one batch of k B, as far as the loss is a sum over data. Penalties that compare the
    data of a batch, such as a total correlation, compare those of each of the k by themselves.

    A parameter that has a gradient in one of the k steps takes part in the update. Where ``optim``
    leaves out what is not finite, each step's gradients are looked at: a step with one that is
    not, on any rank, is none of the k, as if it had not been taken.

    Args:
        optim: what updates; gradients are averaged over ranks there, once for k steps.
        every: the number k.

    Raises:
        ValueError: if ``every`` is below 1.

    Attributes:
        pending: how many steps wait for the next update.
        skipped: how many steps were left out.

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
        # Options, states and clipping are those of the optimizer inside.
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
        """Add the gradients of a step; update with the sums if it is the last of k.

        Args:
            params: the parameters.
            args: of the optimizer inside.
            nonfinite: as for ``FusedOptim``.
            kwargs: of the optimizer inside.
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
            param.grad = None  # the sum is ours alone
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
        """Give every rank the mean over ranks of the sums that wait, which moves no update.

        Where a rank has no sum of a parameter, it counts as zero. All ranks must call it.
        """
        names = sorted({name for own in gather_objects(list(self._sums)) for name in own})
        stored = pyro.get_param_store()._params
        for name in names:
            self._sums.setdefault(name, torch.zeros_like(stored[name]))
        average_([self._sums[name] for name in names])

    @property
    def skip_nonfinite(self) -> bool:
        """Whether ``optim`` leaves out updates with gradients that are not finite."""
        return getattr(self.optim, "skip_nonfinite", False)

    def get_state(self) -> dict[str, Any]:
        """Return the state of ``optim``, and what waits: how many steps, and sums by name."""
        sums = {name: total.detach().clone() for name, total in self._sums.items()}
        return {"optim": self.optim.get_state(), "pending": self.pending, "sums": sums}

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Take on a state, as of :meth:`get_state`; Pyro's store must hold the parameters."""
        self.optim.set_state(state_dict["optim"])
        stored = pyro.get_param_store()._params
        self.pending = state_dict["pending"]
        self._sums = {
            name: total.to(stored[name].device, copy=True)
            for name, total in state_dict["sums"].items()
        }

    @staticmethod
    def _any_nonfinite(params: Collection[Tensor], nonfinite: Tensor | None) -> bool:
        """Return whether the loss or a gradient of a step is not finite, on any rank."""
        device = next((param.device for param in params), torch.device("cpu"))
        gradients = [param.grad for param in params if param.grad is not None]
        found = any_nonfinite(gradients) if gradients else torch.zeros((), device=device)
        if nonfinite is not None:
            found = torch.maximum(found, nonfinite.to(found))
        average_([found])
        return bool(found)
