"""Evaluation of the ELBO and the loss on held-out data."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae._randomness import forked_rng
from pyro_dpvae._ranks import average_, map_over_ranks
from pyro_dpvae._subsets import as_batches
from pyro_dpvae.data import Batches, as_arguments, own_batches
from pyro_dpvae.distributions import DiagonalNormalMixture, effective_components
from pyro_dpvae.errors import TrainingWarning
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.nn.modes import in_evaluation
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.diagnosis import Sites
from pyro_dpvae.training.guard import diverging

__all__ = ["aside", "average_norms", "evaluate_elbo", "evaluate_loss", "finite_evaluation"]

_FEW_COMPONENTS = 1.05  # of which one has some 99 % of the weight


def evaluate_elbo(
    model: nn.Module, guide: nn.Module, batches: Iterable[Any] | Batches, *, seed: int = 0
) -> dict[str, float]:
    """Return the ELBO and its terms on held-out data, per datum, in nats.

    Evaluates in evaluation mode and restores the random state. Ranks share the batches: all must
    call it, and the value does not depend on their number.

    Args:
        model: p(x, z).
        guide: q(z | x).
        batches: all the data, on every rank; of ``Batches``, the first epoch. A tuple holds the
            arguments of model and guide.
        seed: random seed of the samples of z.

    Returns:
        ``elbo`` = -(distortion + rate), ``distortion``, ``rate``; where q(z | x) is a mixture,
        also ``effective_components``, from 1 to the number of its components.
    """
    objective = RegularizedELBO()
    names = ("distortion", "rate")

    def sums(batch: Any) -> tuple[int, list[float], Tensor | None]:
        args = as_arguments(batch)
        objective.loss(model, guide, *args)
        size, weights = len(args[0]), None
        totals = [float(objective.terms[name]) * size for name in names]
        if isinstance(guide, AbstractGuide) and len(args) == 1:
            with torch.no_grad():
                q = guide.posterior(*args)
            # The weights a(x), (batch, K), where q(z | x) is a mixture.
            weights = q.logits.exp().cpu() if isinstance(q, DiagonalNormalMixture) else None
        return size, totals, weights

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
                category=TrainingWarning,
                stacklevel=2,
            )
    return bound


def evaluate_loss(
    model: nn.Module,
    guide: nn.Module,
    objective: RegularizedELBO,
    batches: Iterable[Any] | Batches,
) -> float:
    """Return the objective's loss on held-out data, per datum, with its current weights.

    Penalties see each batch; a batch too small for them is left out. Ranks share the batches, as
    in :func:`evaluate_elbo`. The objective's ``terms`` are restored.

    Args:
        model: p(x, z).
        guide: q(z | x).
        objective: the loss.
        batches: all the data, on every rank; of ``Batches``, the first epoch.

    Raises:
        ValueError: if every batch is too small.
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
        found = map_over_ranks(sums, own_batches(as_batches(batches)), seed=0)
    objective.terms = before
    count = sum(size for size, _ in found)
    if not count:
        raise ValueError(
            "held-out batches are too small: the objective needs at least "
            f"{objective.smallest_batch} items per batch; hold out more data, or use "
            "monitor='elbo'"
        )
    return sum(loss for _, loss in found) / count


def finite_evaluation(
    model: nn.Module, guide: nn.Module, batches: Iterable[Any] | Batches, *, after: int
) -> AbstractContextManager[None]:
    """Raise NonFiniteError for errors caused by parameters out of bounds, naming the site.

    Args:
        model: p(x, z).
        guide: q(z | x).
        batches: all the data; of ``Batches``, the first epoch. Each rank searches its own share.
        after: the number of steps taken.

    Raises:
        NonFiniteError: for such errors; other errors are re-raised.
    """
    return diverging(
        lambda cause: (
            f"the held-out evaluation after step {after} is not finite: {cause}"
            f"{_bad_site(model, guide, batches)}; look for extreme held-out data, or lower "
            "learning_rate"
        )
    )


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
    """Use evaluation mode; restore modes and random state at the end."""
    with forked_rng(), in_evaluation(*modules):
        yield


def average_norms(*modules: nn.Module) -> None:
    """Average batch-norm running statistics over ranks (each rank has seen only its own shard).

    Their updates are linear, so that averaging now equals averaging after every step.
    """
    norms = {
        layer: None
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase)
    }
    statistics = [(layer.running_mean, layer.running_var) for layer in norms]
    average_([one for pair in statistics for one in pair if one is not None])
