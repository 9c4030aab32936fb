"""The state to explore: a run's parts, and samples of both sides to compare points with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae._subsets import evenly_spaced, spread, stacked
from pyro_dpvae.data import to_unit
from pyro_dpvae.data.dataset import DataSet, split_size
from pyro_dpvae.decoders import AbstractDecoder
from pyro_dpvae.evaluation import Subject
from pyro_dpvae.metrics import unit_activity
from pyro_dpvae.mixture import AggregatePosterior, posterior_means
from pyro_dpvae.priors import AbstractPrior

__all__ = ["RATIO", "SPACES", "Explored", "Place", "explored", "place"]

SPACES = ("generation", "representation")

RATIO = 1.0
"""Smallest difference of log-densities in pockets and leaks, in nats."""

_DRAWS, _DRAWS_OF_FLOWS = 2000, 200  # with flows, each is scored under thousands of them
_KEPT = 5  # pockets and leaks are the fifth of samples with the least density, as in metrics
_HELD_OUT, _DATA = 200, 2000


@dataclass(frozen=True)
class Place:
    """Points in both spaces, with their densities.

    Attributes:
        z: coordinates in representation space, of shape (points, L).
        z0: coordinates g(z) in generation space, of shape (points, L).
        log_p: log p(z) of the prior, of shape (points,), in nats.
        log_q: log q(z) of the aggregate posterior, of shape (points,), in nats.
        log_det: log |det dg/dz|, of shape (points,); subtract it to get densities over z0.
    """

    z: Tensor
    z0: Tensor
    log_p: Tensor
    log_q: Tensor
    log_det: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> "Place":
        """Return some of the points."""
        return Place(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def coordinates(self, space: str) -> Tensor:
        """Return the points' coordinates in one of ``SPACES``."""
        return self.z0 if space == "generation" else self.z


@dataclass(frozen=True)
class Explored:
    """A run to explore, which does not change.

    Attributes:
        title: the run's name.
        facts: descriptions of the run by topic.
        prior: p(z).
        decoder: p(x | z).
        aggregate: q(z) over the training data.
        preprocessing: name of the preprocessing.
        device: device of the parts.
        clouds: samples from the prior and from the aggregate posterior, pockets (the fifth of the
            prior's samples with the least q(z)), leaks (the fifth of the aggregate posterior's
            samples with the least p(z)), and the held-out data at the means of q(z | x). Pockets
            and leaks whose densities differ by ``RATIO`` come first; among them the half with the
            higher density of their own side, ordered from the most extreme log q(z) - log p(z).
        spread: by space, how much each coordinate varies over the data, of shape (L,).
        origin: mean of the distribution in generation space, of shape (L,).
        held_out: evenly spaced held-out data for display, images as grey values in [0, 1].
        held_out_means: the means of q(z | x) of these, of shape (data, L).
        points: evenly spaced training data, if they are points of a plane.
        labels: for each held-out datum the index of its label in ``label_names``, if the data have
            labels.
        label_names: names of the labels.
    """

    title: str
    facts: Mapping[str, str]
    prior: AbstractPrior
    decoder: AbstractDecoder
    aggregate: AggregatePosterior
    preprocessing: str
    device: torch.device
    clouds: Mapping[str, Place]
    spread: Mapping[str, Tensor]
    origin: Tensor
    held_out: Tensor
    held_out_means: Tensor
    points: Tensor | None
    labels: Tensor | None
    label_names: Sequence[str]

    @property
    def latent_dim(self) -> int:
        """The size L of z."""
        return self.prior.latent_dim

    @property
    def one_space(self) -> bool:
        """True if generation space equals representation space: g(z) = z."""
        there = self.clouds["aggregate"]
        return torch.equal(there.z, there.z0)


def explored(subject: Subject) -> Explored:
    """Return the state to explore a run, with samples under the seed of the subject."""
    prior, aggregate, saved = subject.prior, subject.aggregate, subject.saved
    config = saved.folder.config
    count = _DRAWS if aggregate.moment_draws is None else _DRAWS_OF_FLOWS
    with torch.no_grad(), forked_rng(subject.config.seed):
        of_prior = place(prior, aggregate, prior().sample((count,)), "representation")
        of_data = place(prior, aggregate, aggregate.sample((count,)), "representation")
        shown = spread(subject.data.test, _HELD_OUT)
        x = next(saved.batches(shown, batch_size=_HELD_OUT).epoch(0))
        means = posterior_means(saved.system.guide.posterior, [x])
    clouds = {
        "aggregate": of_data,
        "prior": of_prior,
        "pockets": _least(of_prior, of_prior.log_q, own=of_prior.log_p),
        "leaks": _least(of_data, of_data.log_p, own=of_data.log_q),
        "held-out": place(prior, aggregate, means, "representation"),
    }
    labels, label_names = _labels(subject.data, len(means))
    return Explored(
        title=saved.folder.path.resolve().name,
        facts={
            "data": subject.data.name,
            **{kind: _name(config.get(kind)) for kind in ("prior", "guide", "objective")},
            "step": f"{saved.checkpoint.step:,}",
        },
        prior=prior,
        decoder=subject.model.decoder,
        aggregate=aggregate,
        preprocessing=saved.preprocessing,
        device=saved.device,
        clouds=clouds,
        spread={
            "generation": subject.generation_spread.cpu(),
            "representation": unit_activity(aggregate).cpu(),
        },
        origin=subject.base_moments[0].cpu(),
        held_out=to_unit(x, config["preprocessing"]).cpu(),
        held_out_means=means.cpu(),
        points=stacked(subject.data.train, _DATA) if subject.data.item_shape == (2,) else None,
        labels=labels,
        label_names=label_names,
    )


def place(
    prior: AbstractPrior,
    aggregate: AggregatePosterior,
    points: Float[Tensor, "points latent"],
    space: str,
) -> Place:
    """Map points of one space to both spaces, on the CPU.

    Points beyond the range of 32-bit numbers in the other space have a density of zero.

    Args:
        prior: p(z), whose map joins the spaces.
        aggregate: q(z).
        points: points of shape (points, L).
        space: the space of the points, one of ``SPACES``.
    """
    check_choice("space", space, SPACES)
    with torch.no_grad():
        if space == "generation":
            z0, z = points, prior.to_representation(points)
            log_det = prior.to_generation(z)[1]
        else:
            z, (z0, log_det) = points, prior.to_generation(points)
        known = z.isfinite().all(-1) & z0.isfinite().all(-1) & log_det.isfinite()
        inside = torch.where(known[:, None], z, 0.0)
        log_p = torch.where(known, prior().log_prob(inside), -torch.inf)
        log_q = torch.where(known, aggregate.log_prob(inside), -torch.inf)
    return Place(z.cpu(), z0.cpu(), log_p.cpu(), log_q.cpu(), log_det.cpu())


def _least(draws: Place, low: Tensor, *, own: Tensor) -> Place:
    """Return the fifth of samples with the least density on the other side.

    Samples whose densities differ by ``RATIO`` come first. Within these, and within the rest, the
    half with the higher density of their own side comes first, since outliers of both sides tell
    little. Then the most extreme ratio comes first.
    """
    kept = low.argsort()[: len(low) // _KEPT]
    ratio, own = (low - own)[kept], own[kept]
    after = 2 * (ratio > -RATIO).int() + (own < own.median()).int()
    by_ratio = ratio.argsort()
    return draws[kept[by_ratio[after[by_ratio].argsort(stable=True)]]]


_COLOURS = 10  # in page/panel.js


def _labels(data: DataSet, count: int) -> tuple[Tensor | None, Sequence[str]]:
    """Return the label indices of the displayed held-out data, and the names of those labels."""
    if data.test_labels is None or data.test_labels.dim() != 1:
        return None, ()
    shown = evenly_spaced(count, split_size(data.test))
    found, numbers = data.test_labels[shown].unique(return_inverse=True)
    if len(found) > _COLOURS:  # the page tells no more classes apart
        return None, ()
    names = data.label_names
    return numbers, [str(one) if names is None else str(names[one]) for one in found.tolist()]


def _name(options: object) -> str:
    return str(options.get("name")) if isinstance(options, Mapping) else str(options)
