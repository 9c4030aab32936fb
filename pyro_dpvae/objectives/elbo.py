"""The decomposed evidence lower bound: distortion, weighted rate, penalties."""

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro.infer
import torch
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._ranks import ranks
from pyro_dpvae.errors import TrainingWarning
from pyro_dpvae.objectives._draws import Draw, draw
from pyro_dpvae.objectives._gathering import check_equal_shapes
from pyro_dpvae.objectives.direct import direct_terms
from pyro_dpvae.objectives.penalties import AbstractPenalty
from pyro_dpvae.objectives.rates import AbstractRate, BetaRate
from pyro_dpvae.objectives.schedules import WeightedModule
from pyro_dpvae.objectives.terms import Terms, TermValues, of_all_ranks
from pyro_dpvae.objectives.traced import traced_terms
from pyro_dpvae.sites import PLATE

__all__ = ["RegularizedELBO"]

_STEP = "step"

# The first steps compare the sizes of batches over ranks, by their own message. Captured steps
# come later, so that ranks send the same messages whether they replay a step or run it.
_COMPARED_STEPS = 2


class RegularizedELBO(pyro.infer.ELBO):
    """The loss of a regularized VAE, for ``pyro.infer.SVI`` or as a module.

    With D = -E_q[log p(x | z)] and R = E_q[log q(z | x) - log p(z)] of a datum,

        loss = sum over the batch of  D + rate(R) + sum of weight x penalty.

    R is the divergence in closed form if it exists; otherwise the entropy of q in closed form if
    it exists, and log p(z) at a sample. For a mixture q(z | x), D and R are weighted means over a
    sample from each component. Discrete sites of the guide marked ``infer={"enumerate":
    "parallel"}`` are summed out exactly; penalties see the prior summed over them.

    ``terms`` has the terms of the last evaluation per datum, in nats and unweighted:
    ``distortion``, ``rate`` and those of each penalty; and the weighted ``loss``. Every evaluation
    with gradients is a training step: schedules advance, and adversaries learn. ``loss(...)`` and
    evaluations under ``torch.no_grad()`` change nothing.

    Without SVI, ``objective(model, guide)`` is a module with the parameters of both; its call on a
    batch returns the loss, for ``backward()`` and any torch optimizer. If several processes train
    together, :meth:`across_ranks` makes the objective see the whole batch.

    Args:
        rate: maps R to the rate term of the loss; the default is R itself.
        penalties: terms on the representations of the batch.
        num_particles: number of samples of z per datum to average over.
        vectorize_particles: draw them at once instead of in a loop.
        max_plate_nesting: upper bound of the depth of plates, guessed if vectorizing needs it;
            otherwise 1 where sites are enumerated and none is given.
        plate: name of the plate over the batch; by default the one named ``"data"``, or the
            outermost around all observed sites.

    Raises:
        ValueError: on a step, if the model observes nothing inside a plate over the batch, a
            latent site is missing in the guide or neither reparameterised nor enumerated, model
            and guide see different numbers of items, or the batch is too small for a penalty.

    References:
        Kingma, Welling (2014), Auto-Encoding Variational Bayes, equations 3 and 7. Bhalodia, Lee,
        Elhabian (2020), dpVAEs, equation 5 for the rate with a decoupled prior. Kingma et al.
        (2014), Semi-supervised learning with deep generative models, equation 7, for discrete
        sites.

    Example:
        >>> from pyro_dpvae.objectives import MMD, TotalCorrelation
        >>> penalties = [TotalCorrelation(6.0, dataset_size=60_000), MMD(100.0)]
        >>> objective = RegularizedELBO(rate=BetaRate(4.0), penalties=penalties)
        >>> RegularizedELBO(rate=BetaRate(4.0))
        RegularizedELBO(BetaRate(beta=4.0))
        >>> objective.step
        0
    """

    def __init__(
        self,
        *,
        rate: AbstractRate | None = None,
        penalties: Iterable[AbstractPenalty] = (),
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int | float = math.inf,
        plate: str | None = None,
    ) -> None:
        super().__init__(
            num_particles=check_positive_int("num_particles", num_particles),
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
        )
        self.rate = BetaRate() if rate is None else rate
        if not isinstance(self.rate, AbstractRate):
            raise TypeError(f"rate must be a rate, such as BetaRate(4.0), got {rate!r}")
        if isinstance(penalties, nn.Module):
            raise TypeError(f"penalties must be a list of penalties, got {penalties!r}")
        self.penalties = tuple(penalties)
        for penalty in self.penalties:
            if not isinstance(penalty, AbstractPenalty):
                raise TypeError(
                    "penalties must be AbstractPenalty objects, such as MMD(100.0), got "
                    f"{penalty!r}"
                )
            penalty.check_learning()
        self.plate = plate
        self.terms: dict[str, Tensor] = TermValues()
        self.step = 0
        self._across_ranks = False

    def __repr__(self) -> str:
        parts = "".join(f", {penalty!r}" for penalty in self.penalties)
        return f"{type(self).__name__}({self.rate!r}{parts})"

    def across_ranks(self) -> "RegularizedELBO":
        """Let training steps see the batch of all ranks of a process group; return itself.

        Distortions, rates and representations of each rank's shard, with their q(z | x) and p(z),
        are gathered, and the loss of the whole batch is computed on every rank. Its gradient is
        the mean of the gradients over ranks: average them with ``inference.AveragingOptim``, or
        with ``DistributedDataParallel(objective.across_ranks()(model, guide))``. Two ranks with
        half a batch each thus take the step of one rank with all of it.

        All ranks must take the steps together, on batches of one size; only the first two steps
        check this. Evaluations without gradients use only the rank's own batch. Batch norm in
        networks normalises each rank's shard. A latent site outside the data plate is sampled by
        each rank, and its cost is averaged.
        """
        self._across_ranks = True
        return self

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Return the loss summed over the batch, without gradients."""
        with torch.no_grad():
            return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss summed over the batch, and add its gradients to the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss summed over the batch, with its autograd graph."""
        training = torch.is_grad_enabled()
        if training:
            self.begin_step()
            if self._gathers() and self.step < _COMPARED_STEPS:
                check_equal_shapes(args, kwargs)
        loss, terms = self.evaluate(model, guide, *args, **kwargs)
        if training:
            self.update()
            self.end_step(terms)
        else:
            self.terms = TermValues(terms)
        return loss

    def begin_step(self) -> None:
        """Set scheduled weights to their values at the current step."""
        if self.step == 0 and not self._across_ranks and ranks().count > 1:
            self._warn_of_parts()
        for part in self.parts():
            part.set_step(self.step)

    def evaluate(
        self, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss summed over the batch, and the terms.

        This part of a training step can be captured as one graph, between :meth:`begin_step` and
        :meth:`update`. With gradients, penalties leave gradients on their own parameters.
        """
        with _explained(args):
            terms = self.terms_of(model, guide, *args, **kwargs)
        # Densities use float32 even if networks run in lower precision.
        with torch.autocast(terms.distortion.device.type, enabled=False):
            if self._gathers():
                terms = of_all_ranks(terms)
            loss, values = self._weighted(terms)
        warn_if_nan(loss, "loss")
        if torch.is_grad_enabled():
            for penalty in self.penalties:
                penalty.note_finite(loss.detach().isfinite())
        return terms.full_size * loss, {name: term.detach() for name, term in values.items()}

    def terms_of(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Terms:
        """Return the terms of each datum of this rank's batch.

        For a ``VAE`` and a guide that only defines ``posterior``, they are computed directly from
        the distributions, otherwise from traces of the two programs, with equal results.
        """
        count = ranks().count if self._gathers() else 1
        coordinates = self.rate.needs_coordinates
        if self.num_particles == 1 and self.plate in (None, PLATE):
            found = direct_terms(
                model,
                guide,
                args,
                kwargs,
                coordinates=coordinates,
                penalties=bool(self.penalties),
                count=count,
            )
            if found is not None:
                return found
        return traced_terms(
            list(self._get_traces(model, guide, args, kwargs)),
            plate=self.plate,
            particles=self.num_particles if self.vectorize_particles else 1,
            coordinates=coordinates,
            count=count,
        )

    def _weighted(self, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per datum and its terms."""
        distortion = terms.distortion.mean()
        rate, weighted = torch.zeros_like(distortion), torch.zeros_like(distortion)
        if terms.rates:  # a model without latents has no rate
            rate = torch.stack([site.total for site in terms.rates]).sum(0).mean()
            weighted = self.rate(list(terms.rates))
        loss = distortion + weighted
        values = {"loss": loss, "distortion": distortion, "rate": rate}
        for penalty in self.penalties:
            penalty.check_size(terms.size)
            evaluations = [penalty.checked(latents) for latents in terms.latents]
            found = {
                name: torch.stack([evaluation[name] for evaluation in evaluations]).mean()
                for name in evaluations[0]
            }
            loss = sum((terms.scale * term for term in penalty.weighted(found)), start=loss)
            for name, term in found.items():
                # Two penalties may share a term's name.
                numbered = (f"{name}_{number}" for number in itertools.count(2))
                free = (one for one in itertools.chain([name], numbered) if one not in values)
                values[next(free)] = term
            if torch.is_grad_enabled():
                penalty.learn(terms.latents)
        return loss, {**values, "loss": loss}

    def update(self) -> None:
        """Let penalties update their own parameters, with the gradients from :meth:`evaluate`."""
        for penalty in self.penalties:
            penalty.update()

    def end_step(self, terms: dict[str, Tensor]) -> None:
        """Count a step, and store its terms."""
        self.terms = TermValues(terms)
        self.step += 1

    def parts(self) -> list[WeightedModule]:
        """Return the rate and the penalties."""
        return [self.rate, *self.penalties]

    def to(self, device: torch.device | str) -> "RegularizedELBO":
        """Move tensors of the objective, such as an adversary, to a device; return itself."""
        for part in self.parts():
            part.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return the training state as tensors by name: the step, adversaries, and optimizers."""
        state = {_STEP: torch.tensor(self.step)}
        for name, part in self._named_parts().items():
            state.update(part.state_dict(prefix=f"{name}."))
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a state of :meth:`state_dict` of an objective built in the same way.

        Raises:
            ValueError: if the state has no step.
            RuntimeError: if entries are missing, unknown or have other shapes.
        """
        if _STEP not in state:
            raise ValueError(
                f"an objective's state must have the entry {_STEP!r}, got {sorted(state)[:5]}; "
                "pass the result of state_dict()"
            )
        rest = {key: tensor for key, tensor in state.items() if key != _STEP}
        for name, part in self._named_parts().items():
            start = f"{name}."
            own = [key for key in rest if key.startswith(start)]
            part.load_state_dict({key.removeprefix(start): rest.pop(key) for key in own})
        if rest:
            raise RuntimeError(
                f"the state belongs to an objective with other parts, got {sorted(rest)[:5]}; "
                f"this one has {self._named_parts()}"
            )
        self.step = int(state[_STEP])
        for part in self.parts():
            part.set_step(max(self.step - 1, 0))

    @property
    def settings(self) -> dict[str, Any]:
        """The definition of the objective, for records in JSON."""
        return {
            "name": type(self).__name__,
            "rate": {"name": type(self.rate).__name__, **self.rate.settings},
            "penalties": [
                {"name": type(penalty).__name__, **penalty.settings} for penalty in self.penalties
            ],
            "num_particles": self.num_particles,
        }

    def unfinished(self, steps: int) -> dict[str, int]:
        """Return the lengths of the schedules that do not finish within a number of steps."""
        return {
            f"{name}.{weight}": length
            for name, part in self._named_parts().items()
            for weight, length in part.schedule_lengths.items()
            if length > steps
        }

    @property
    def smallest_batch(self) -> int:
        """The smallest batch size for which all penalties are defined."""
        return max((penalty.smallest_batch for penalty in self.penalties), default=1)

    def _named_parts(self) -> dict[str, WeightedModule]:
        penalties = {f"penalties.{index}": one for index, one in enumerate(self.penalties)}
        return {"rate": self.rate, **penalties}

    def _gathers(self) -> bool:
        """Return True if an evaluation now gathers the batch of all ranks."""
        return self._across_ranks and torch.is_grad_enabled() and ranks().count > 1

    def _warn_of_parts(self) -> None:
        parts = [*self.penalties, *([self.rate] if self.rate.needs_batch else [])]
        if parts:
            names = ", ".join(type(part).__name__ for part in parts)
            warnings.warn(
                f"{names} depend on the whole batch, but each of {ranks().count} ranks sees only "
                "its own shard; call objective.across_ranks() to use the batch of all ranks",
                category=TrainingWarning,
                stacklevel=4,
            )

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Draw:
        nesting, whole = self.max_plate_nesting, bool(self.penalties)
        return draw(model, guide, args, kwargs, nesting=nesting, whole=whole)


@contextmanager
def _explained(args: Sequence[Any]) -> Iterator[None]:
    """Explain errors of programs that are caused by arguments which are not a batch."""
    x = args[0] if len(args) == 1 else None
    if isinstance(x, Tensor) and x.dim() and not len(x):
        raise ValueError(
            f"a batch must not be empty, got a tensor of shape {tuple(x.shape)}; leave out empty "
            "batches"
        )
    try:
        yield
    except (AttributeError, TypeError) as error:
        if isinstance(x, list | tuple) and len(x) == 1 and isinstance(x[0], Tensor):
            raise TypeError(
                f"a batch must be a tensor, got a {type(x).__name__} with one in it, as from a "
                "DataLoader of a TensorDataset; write 'for (x,) in loader'"
            ) from error
        raise
    except RuntimeError as error:
        if isinstance(x, Tensor) and "same dtype" in str(error):
            raise TypeError(
                f"data must have the dtype of the networks' parameters, got {x.dtype}; convert "
                f"them, for example with x.float() ({error})"
            ) from error
        raise
