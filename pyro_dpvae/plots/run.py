"""The figures of a trained run: what is drawn of it, and how it is found."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae._subsets import evenly_spaced
from pyro_dpvae.data import shades
from pyro_dpvae.evaluation import Subject
from pyro_dpvae.guides import ClusteringLadderGuide
from pyro_dpvae.metrics import assigned_clusters, leakage_curve, unit_activity
from pyro_dpvae.plots.clusters import cluster_codes
from pyro_dpvae.plots.latent import LatentSpace, latent_figure
from pyro_dpvae.plots.layers import layer_codes, layers_figure
from pyro_dpvae.plots.leakage import leakage_figure
from pyro_dpvae.plots.pockets import pockets_figure
from pyro_dpvae.plots.traversal import traversal_figure
from pyro_dpvae.priors import ProductPrior

__all__ = ["drawings_of", "most_active"]

_CLOUD, _EXTREME = 2000, 200  # points in latent space
_STEPS, _PAIRS = 11, 5  # of pair traversals
_FACTORS, _REACH, _FACTOR_STEPS = 5, 3.0, 7  # of factor traversals; in standard deviations
_THRESHOLDS = 25
_OF_CLUSTER = 12  # samples of each cluster


def drawings_of(subject: Subject, count: int) -> dict[str, Callable[[], Figure]]:
    """Return what draws each figure of a run, by its name; nothing is drawn yet.

    These are samples of the prior, its pockets and its leaks; latent space; traversals of pairs of
    held-out data and of single coordinates; leakage; of a ladder also its layers and their
    clusters. Call them without gradients.

    Args:
        subject: the run.
        count: samples in a panel.
    """
    traversals = cache(lambda: _traversals(subject))
    drawings: dict[str, Callable[[], Figure]] = {
        "samples": partial(_samples, subject, count),
        "latent": lambda: _latent(subject, traversals()[0]),
        "pairs": lambda: _pairs(subject, *traversals()),
        "factors": partial(_factors, subject),
        "leakage": partial(_leakage, subject),
    }
    prior, guide = subject.prior, subject.guide
    if isinstance(prior, ProductPrior):
        drawings["layers"] = lambda: _layers(subject, prior)
        if isinstance(guide, ClusteringLadderGuide):
            assigned = cache(lambda: _assigned(subject, guide))
            for layer in range(1, len(prior.priors) + 1):
                drawings[f"clusters_layer_{layer}"] = partial(
                    _clusters, subject, prior, layer, assigned=assigned
                )
    return drawings


def _samples(subject: Subject, count: int) -> Figure:
    drawn = _clouds(subject, count, count)
    decoded = {title: _decode(subject, z) for title, z in drawn.items()}
    return pockets_figure(decoded, _points(subject), columns=subject.data.columns)


def _clouds(subject: Subject, count: int, extreme: int) -> dict[str, Tensor]:
    return {
        "prior samples": subject.prior().sample((count,)),
        "low-posterior samples (pockets)": subject.low_posterior(extreme),
        "high-posterior samples (leaks)": subject.high_posterior(extreme),
    }


def _means(subject: Subject) -> Tensor:
    return subject.test_means.to(subject.saved.device)


def _traversals(subject: Subject) -> tuple[list[Tensor], list[Tensor]]:
    """Return lines in generation space between pairs of held-out data, and these data."""
    means = _means(subject)
    pairs = max(1, min(_PAIRS, len(means) // 2))
    order = torch.randperm(len(means))
    chosen = torch.cat([order, order])[: 2 * pairs]  # a single datum is both ends
    ends = subject.prior.to_generation(means[chosen.to(means.device)])[0].chunk(2)
    fractions = torch.linspace(0, 1, _STEPS, device=means.device)[:, None]
    lines = [a + fractions * (b - a) for a, b in zip(*ends, strict=True)]
    # One by one, as the split may be a data set that reads files.
    x = torch.stack([torch.as_tensor(subject.data.test[index]) for index in chosen.tolist()])
    x = shades(x) if subject.data.is_images else subject.saved.in_file_units(x)
    return lines, [torch.stack(pair) for pair in zip(*x.chunk(2), strict=True)]


def _latent(subject: Subject, lines: Sequence[Tensor]) -> Figure:
    """Latent space with the traversals of pairs, which representation space shows curved."""
    prior = subject.prior
    means = _means(subject)
    shown = evenly_spaced(_CLOUD, len(means)).to(means.device)
    clouds = _clouds(subject, _CLOUD, _EXTREME)
    spaces = {}
    for title, symbol in (("representation space", "z"), ("generation space", "z_0")):
        dims = most_active(subject, title)
        there = symbol == "z_0"
        move = (lambda z: prior.to_generation(z)[0]) if there else (lambda z: z)
        paths = lines if there else [prior.to_representation(line) for line in lines]
        first, second = (f"${symbol}$[{dim}]" for dim in dims)
        spaces[title] = LatentSpace(
            move(means[shown])[:, dims],
            {name: move(cloud)[:, dims] for name, cloud in clouds.items()},
            (first, second),
            [path[:, dims] for path in paths],
        )
    one, other = (space.means for space in spaces.values())
    if torch.equal(one, other):  # g(z) = z
        del spaces["generation space"]
    labels = subject.data.test_labels
    labels = None if labels is None or labels.dim() != 1 else labels[shown.cpu()]
    return latent_figure(spaces, labels, label_names=subject.data.label_names)


def _pairs(subject: Subject, lines: Sequence[Tensor], data: Sequence[Tensor]) -> Figure:
    """The decoded traversals of pairs, between the data themselves."""
    rows = _decode_lines(subject, lines)
    return traversal_figure(
        rows,
        [f"pair {number + 1}" for number in range(len(rows))],
        title="held-out pairs, straight in generation space",
        data=_points(subject),
        originals=data,
        steps=[f"{step / (_STEPS - 1):.1f}" for step in range(_STEPS)],
        axis="share of the way from the first datum to the second",
        columns=subject.data.columns,
    )


def most_active(subject: Subject, space: str) -> list[int]:
    """Return the two coordinates whose means vary most, of one space."""
    if space == "representation space":
        spread = unit_activity(subject.aggregate)
    else:
        spread = subject.generation_spread
    if len(spread) == 1:
        return [0, 0]
    return sorted(spread.topk(2).indices.tolist())


def _factors(subject: Subject) -> Figure:
    """One datum's code, moved along the coordinates of generation space that vary most."""
    means = _means(subject)
    code = means[torch.randint(len(means), (1,)).item() :][:1]
    origin = subject.prior.to_generation(code)[0]
    spread, (centre, scale) = subject.generation_spread, subject.base_moments
    lines, labels = [], []
    for dim in spread.topk(min(_FACTORS, len(spread))).indices.tolist():
        moved = origin.repeat(_FACTOR_STEPS, 1)
        steps = torch.linspace(-_REACH, _REACH, _FACTOR_STEPS, device=moved.device)
        moved[:, dim] = centre[dim] + scale[dim] * steps
        lines.append(moved)
        labels.append(f"$z_0$[{dim}]")
    return traversal_figure(
        _decode_lines(subject, lines),
        labels,
        title="one coordinate of generation space moved, the others kept",
        data=_points(subject),
        steps=[f"{step:g}" for step in torch.linspace(-_REACH, _REACH, _FACTOR_STEPS).tolist()],
        axis="standard deviations of the prior from its mean",
        columns=subject.data.columns,
    )


def _layers(subject: Subject, prior: ProductPrior) -> Figure:
    """One datum's code, varied layer by layer."""
    means = _means(subject)
    origin = means[int(torch.randint(len(means), (1,)))]
    codes = layer_codes(prior, origin)
    return layers_figure({title: _decode(subject, z) for title, z in codes.items()})


def _clusters(
    subject: Subject, prior: ProductPrior, layer: int, *, assigned: Callable[[], Tensor]
) -> Figure:
    """A row of draws of each cluster of a layer; other layers are drawn from their priors."""
    codes = cluster_codes(prior, layer, count=_OF_CLUSTER)
    rows = _decode(subject, codes.flatten(0, 1)).split(_OF_CLUSTER)
    of_data = assigned()[:, layer - 1]
    shares = of_data.bincount(minlength=len(codes)) / len(of_data)
    labels = [
        f"$y_{{{layer}}}$ = {number} ({100 * share:.0f} %)"
        for number, share in enumerate(shares.tolist())
    ]
    title = f"samples of the clusters of layer {layer}, and their shares of the training data"
    columns = subject.data.columns
    return traversal_figure(rows, labels, title=title, data=_points(subject), columns=columns)


def _assigned(subject: Subject, guide: ClusteringLadderGuide) -> Tensor:
    """Return the cluster of each training datum in each layer, of shape (data, layers)."""
    batches = subject.saved.batches(subject.data.train).epoch(0)
    return assigned_clusters(map(guide.cluster_probabilities, batches))


def _leakage(subject: Subject) -> Figure:
    z = subject.aggregate.sample((_CLOUD,))
    log_p = subject.prior().log_prob(z)
    low, high = float(log_p.quantile(0.001)), float(log_p.quantile(0.999))
    thresholds = torch.linspace(low, high, _THRESHOLDS).tolist()
    curve = partial(
        leakage_curve, subject.prior, subject.aggregate, thresholds=thresholds, num_samples=5000
    )
    titles = {"unconditional": False, "conditional": True}
    return leakage_figure({title: curve(conditional=one) for title, one in titles.items()})


def _decode_lines(subject: Subject, lines: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return what lines of generation space decode to, all of the same number of points."""
    # At once: what is sequential in a prior or decoder is gone through only once.
    z = subject.prior.to_representation(torch.cat(list(lines)))
    return _decode(subject, z).split(len(lines[0]))


def _decode(subject: Subject, z: Tensor) -> Tensor:
    return subject.saved.in_file_units(torch.cat(list(subject.decoded(z))).cpu())


def _points(subject: Subject) -> Tensor | None:
    data = subject.data.train
    if not isinstance(data, Tensor) or data.shape[1:] != (2,):
        return None
    return subject.saved.in_file_units(data)
