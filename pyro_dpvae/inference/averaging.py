"""Optimizers around others: gradients averaged over ranks, or summed over steps."""

from collections.abc import Callable, Iterable
from typing import Any, final

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._ranks import average_, broadcast_, gather_objects, ranks, shared_object
from pyro_dpvae.inference.fused import any_nonfinite, name_in_store
from pyro_dpvae.objectives import RegularizedELBO

__all__ = ["AccumulatingOptim", "AveragingOptim", "synchronize"]


@final
class AveragingOptim(PyroOptim):
    """A Pyro optimizer that averages gradients over ranks before its step.

    Ranks are the processes of PyTorch's default process group, as torchrun starts them. Each calls
    ``svi.step`` on its own shard of a batch. One all-reduce for each dtype averages the gradients,
    and every rank takes the same step. With an objective ``across_ranks`` this is the step of one
    process on the whole batch. Without a process group, or with one rank, it equals the inner
    optimizer.

    A new parameter is copied from rank zero at the end of its first step. Call :func:`synchronize`
    before, so that the first gradients also belong to equal parameters. A missing gradient on some
    ranks counts as zero; a parameter without a gradient on any rank is not updated.

    Args:
        optim: the optimizer that updates: ``FusedOptim``, or one of ``pyro.optim``.

    Raises:
        TypeError: if ``optim`` is not a Pyro optimizer.
        ValueError: on a step, on every rank, if ranks have different new parameters.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_dpvae.inference import FusedOptim
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.param("averaged", torch.tensor(1.0)), 1.0),
        ...                 obs=torch.tensor(0.0))
        >>> def guide():
        ...     pass
        >>> svi = SVI(model, guide, AveragingOptim(FusedOptim({"lr": 0.1})), loss=Trace_ELBO())
        >>> _ = svi.step()
        >>> round(float(pyro.param("averaged").detach()), 4)
        0.9
    """

    def __init__(self, optim: PyroOptim) -> None:
        if not isinstance(optim, PyroOptim):
            raise TypeError(
                f"optim must be a Pyro optimizer, got {type(optim).__name__}; use FusedOptim or "
                "one of pyro.optim"
            )
        # Options, state and clipping belong to the inner optimizer.
        self.optim = optim
        self._known: dict[str, Tensor] = {}

    def __call__(
        self,
        params: Iterable[Tensor],
        *args: Any,
        nonfinite: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Average the gradients over ranks, and update the parameters.

        Args:
            params: the parameters.
            args: arguments of the inner optimizer.
            nonfinite: as for ``FusedOptim``; the step is skipped if it is 1 on any rank.
            kwargs: keyword arguments of the inner optimizer.
        """
        if nonfinite is not None:
            kwargs["nonfinite"] = nonfinite
        if ranks().count == 1:
            self.optim(params, *args, **kwargs)
            return
        present = {name_in_store(param): param for param in params}
        new = {name: p for name, p in present.items() if self._known.get(name) is not p}
        borrowed, anyone_new = self._average(
            self._known, present, new=bool(new), nonfinite=nonfinite
        )
        if anyone_new:
            self._add(new)
            borrowed += self._average(new, present)[0]
        self.optim([*present.values(), *borrowed], *args, **kwargs)
        for param in borrowed:
            param.grad = None

    def _average(
        self,
        params: dict[str, Tensor],
        present: dict[str, Tensor],
        *,
        new: bool = False,
        nonfinite: Tensor | None = None,
    ) -> tuple[list[Tensor], bool]:
        """Average gradients; return parameters of other ranks only, and whether any is new."""
        named = [params[name] for name in sorted(params)]
        had = [param.grad is not None for param in named]
        gradients = [
            torch.zeros_like(param) if param.grad is None else param.grad for param in named
        ]
        # Send who has which gradient along with the gradients, in one message.
        device = next((p.device for p in (*named, *present.values())), None)
        flags = torch.tensor([new, *had], dtype=torch.float32, device=device)
        marks = [] if nonfinite is None else [nonfinite]
        average_([flags, *marks, *gradients])
        for mark in marks:
            mark.copy_(mark > 0)  # 1 if it was 1 on any rank
        shares = flags.tolist()
        borrowed = []
        for name, param, gradient, own, share in zip(
            sorted(params), named, gradients, had, shares[1:], strict=True
        ):
            if not own and share > 0:
                param.grad = gradient
            if name not in present and share > 0:
                borrowed.append(param)
        return borrowed, shares[0] > 0

    def _add(self, new: dict[str, Tensor]) -> None:
        """Add new parameters after checking that all ranks have the same."""
        own = {name: (tuple(p.shape), str(p.dtype)) for name, p in new.items()}
        everyone = gather_objects(own)
        names = {name for one in everyone for name in one}
        different = sorted(n for n in names if len({one.get(n) for one in everyone}) > 1)
        if different:
            found = {name: [one.get(name) for one in everyone] for name in different[:5]}
            raise ValueError(
                "ranks have different new parameters: all must use the same in the same step, "
                f"got, rank by rank, {found}; build model and guide alike on all ranks, and "
                "register parameters that only some data use with pyro.module"
            )
        broadcast_(new[name] for name in sorted(new))
        self._known.update(new)

    @property
    def skip_nonfinite(self) -> bool:
        """True if the inner optimizer skips steps with gradients that are not finite."""
        return getattr(self.optim, "skip_nonfinite", False)

    def get_state(self) -> dict[str, Any]:
        """Return the state of the inner optimizer."""
        return self.optim.get_state()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Load a state of the inner optimizer."""
        self.optim.set_state(state_dict)


def synchronize(
    model: Callable[..., Any], guide: Callable[..., Any], objective: RegularizedELBO | None = None
) -> None:
    """Copy rank zero's tensors of model, guide, objective and Pyro's store to all ranks.

    Copies the parameters, buffers and extra states of model and guide, the parameters in Pyro's
    store, and the objective's training state (steps, adversaries and their optimizers). All ranks
    must call it; with one rank it does nothing.

    Args:
        model: p(x, z).
        guide: q(z | x).
        objective: the loss.

    Raises:
        ValueError: on every rank, if ranks hold different tensors.
    """
    if ranks().count == 1:
        return
    tensors: dict[str, Tensor] = {}
    programs = {k: p for k, p in (("model", model), ("guide", guide)) if isinstance(p, nn.Module)}
    for kind, program in programs.items():
        tensors |= {f"{kind}.{name}": p for name, p in program.named_parameters()}
        tensors |= {f"{kind}.{name}": b for name, b in program.named_buffers()}
    stored = pyro.get_param_store()._params
    known = {id(tensor) for tensor in tensors.values()}
    tensors |= {f"store.{k}": p for k, p in sorted(stored.items()) if id(p) not in known}
    own = [(name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items()]
    everyone = gather_objects(own)
    different = sorted({repr(one) for each in everyone for one in set(own) ^ set(each)})
    if any(each != everyone[0] for each in everyone):
        raise ValueError(
            "ranks hold different tensors: all must hold the same in the same order, and these "
            f"differ: {different[:5]}; build model and guide alike on all ranks"
        )
    broadcast_({id(tensor): tensor for tensor in tensors.values()}.values())
    for program in programs.values():
        # For example the number of active components of a mixture.
        state = program.state_dict()
        extra = {name: value for name, value in state.items() if name.endswith("_extra_state")}
        program.load_state_dict(shared_object(extra), strict=False)
    if objective is not None:
        state = {name: tensor.cpu() for name, tensor in objective.state_dict().items()}
        state = shared_object(state if ranks().index == 0 else None)
        if ranks().index > 0:
            objective.load_state_dict(state)


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
        if self.skip_nonfinite:
            device = next((param.device for param in named.values()), torch.device("cpu"))
            own: list[Tensor] = [param.grad for param in moved.values()]  # type: ignore[misc]
            found = any_nonfinite(own) if own else torch.zeros((), device=device)
            if nonfinite is not None:
                found = torch.maximum(found, nonfinite.to(found))
            average_([found])
            if bool(found):  # on any rank
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
        borrowed = [stored[name] for name in self._sums if name not in named]
        for name, total in self._sums.items():
            named.setdefault(name, stored[name])
            named[name].grad = total
        self.pending, self._sums = 0, {}
        self.optim(named.values(), *args, **kwargs)
        for param in borrowed:
            param.grad = None  # SVI clears the gradients of the step's own parameters only

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
