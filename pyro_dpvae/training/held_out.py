"""The bound on held-out data."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae._ranks import forked_rng, map_over_ranks
from pyro_dpvae._subsets import as_batches
from pyro_dpvae.data import Batches, as_arguments, own_batches
from pyro_dpvae.distributions import DiagonalNormalMixture, effective_components
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.diagnosis import Sites
from pyro_dpvae.training.guard import diverging

__all__ = ["aside", "evaluate_elbo", "evaluate_loss", "finite_evaluation"]

_FEW_COMPONENTS = 1.05  # of which one has some 99 % of the weight


def evaluate_elbo(
    model: nn.Module, guide: nn.Module, batches: Iterable[Any] | Batches, *, seed: int = 0
) -> dict[str, float]:
    """Return the evidence lower bound and its terms on held-out data, per datum, in nats.

    Modules are in evaluation mode meanwhile, and the random state of the process is kept. Ranks
    share the batches, so that all must call it, and the value is the same for any number of them.

    Args:
        model: p(x, z).
        guide: q(z | x).
        batches: all the data, on every rank; of ``Batches``, the first pass. A batch that is a
            tuple has the arguments of model and guide.
        seed: of the samples of z.

    Returns:
        ``elbo`` = -(distortion + rate), ``distortion``, ``rate``; where q(z | x) is a mixture,
        also ``effective_components``, from 1 to the number of its components.
    """
    objective = RegularizedELBO()
    names = ("distortion", "rate")

    def sums(batch: Any) -> tuple[int, list[float], Tensor | None]:
        args = as_arguments(batch)
        objective.loss(model, guide, *args)
        size = len(args[0])
        return size, [float(objective.terms[name]) * size for name in names], _weights(guide, args)

    with aside(model, guide):
        found = map_over_ranks(sums, own_batches(as_batches(batches)), seed=seed)
    count = sum(size for size, _, _ in found)
    totals = [sum(column) for column in zip(*(terms for _, terms, _ in found), strict=True)]
    terms = {name: total / count for name, total in zip(names, totals, strict=True)}
    bound = {"elbo": -sum(terms.values()), **terms}
    weights = [part for _, _, part in found if part is not None]
    if weights:
        bound["effective_components"] = effective_components(torch.cat(weights))
        number = weights[0].shape[-1]
        if number > 1 and bound["effective_components"] < _FEW_COMPONENTS:
            warnings.warn(
                f"the {number} components of q(z | x) should share the data, and one has nearly "
                "all the weight, so that q(z | x) is a single Gaussian; train longer before the "
                "mixture grows, or use the guide 'amortized', which takes a fraction of the time",
                stacklevel=2,
            )
    return bound


def _weights(guide: nn.Module, args: tuple[Any, ...]) -> Tensor | None:
    """Return the weights a(x), (batch, K), of a guide whose q(z | x) is a mixture."""
    if not isinstance(guide, AbstractGuide) or len(args) != 1:
        return None
    with torch.no_grad():
        q = guide.posterior(*args)
    return q.logits.exp().cpu() if isinstance(q, DiagonalNormalMixture) else None


def evaluate_loss(
    model: nn.Module,
    guide: nn.Module,
    objective: RegularizedELBO,
    batches: Iterable[Any] | Batches,
    *,
    seed: int = 0,
) -> float:
    """Return the objective's own loss on held-out data, per datum, with weights as they are.

    Penalties see the data of each batch; one that is too small for them counts for nothing. Ranks
    share the batches, as for :func:`evaluate_elbo`. The objective's ``terms`` are as before at the
    end.

    Args:
        model: p(x, z).
        guide: q(z | x).
        objective: the loss.
        batches: all the data, on every rank; of ``Batches``, the first pass.
        seed: of the samples of z.

    Raises:
        ValueError: if all batches are too small.
    """
    before = objective.terms

    def sums(batch: Any) -> tuple[int, float]:
        args = as_arguments(batch)
        size = len(args[0])
        if size < objective.smallest_batch:
            return 0, 0.0
        objective.loss(model, guide, *args)
        return size, float(objective.terms["loss"]) * size

    with aside(model, guide):
        found = map_over_ranks(sums, own_batches(as_batches(batches)), seed=seed)
    objective.terms = before
    count = sum(size for size, _ in found)
    if not count:
        raise ValueError(
            f"the objective compares at least {objective.smallest_batch} data of a batch, and all "
            "held-out batches are smaller; hold out more data, or monitor 'elbo'"
        )
    return sum(loss for _, loss in found) / count


@contextmanager
def finite_evaluation(
    model: nn.Module, guide: nn.Module, batches: Iterable[Any] | Batches, *, after: int
) -> Iterator[None]:
    """Say of errors that come from parameters out of bounds at which site of these data they are.

    Args:
        model: p(x, z).
        guide: q(z | x).
        batches: all the data; of ``Batches``, the first pass. Each rank looks at its own.
        after: how many steps were taken.

    Raises:
        NonFiniteError: for them; other errors go on.
    """
    with diverging(
        lambda cause: (
            f"the held-out evaluation after step {after} is not finite: {cause}"
            f"{_bad_site(model, guide, batches)}; look for extreme held-out data, or train with a "
            "lower learning rate"
        )
    ):
        yield


def _bad_site(model: nn.Module, guide: nn.Module, batches: Iterable[Any] | Batches) -> str:
    with aside(model, guide), pyro.validation_enabled(False):
        for batch in own_batches(as_batches(batches)):
            sites = Sites()
            with sites, suppress(ValueError, RuntimeError):  # LinAlgError is a RuntimeError
                RegularizedELBO().loss(model, guide, *as_arguments(batch))
            if found := sites.found():
                return f"; the first site is {found[0]}"
    return ""


@contextmanager
def aside(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode; modes and random state are as before at the end."""
    with forked_rng(), in_evaluation(*modules):
        yield
