"""Figures 6 and 7: traversals between pairs of held-out data."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from papers.dpvae.figures.paths import PathSpace, paths_figure
from papers.dpvae.figures.systems import Subjects, decoded, title_of
from pyro_dpvae.evaluation import Subject
from pyro_dpvae.plots import most_active

__all__ = ["held_out_pairs", "pair_paths", "traversals_of_pairs"]

_POINTS, _CLOUD = 11, 3000
_PAIRS = 5
_TITLE = "traversals between pairs of held-out data; numbers mark the starts"
_OF_MNIST = ((484, 2234), (1198, 4521), (989, 6043), (292, 5624), (5678, 8900))
"""The indices of MNIST's test images in the authors' code."""


def held_out_pairs(name: str, count: int) -> list[tuple[int, int]]:
    """Return the indices of the pairs of held-out data between which is traversed.

    Args:
        name: of the data set: on MNIST the pairs are those of the authors' code, otherwise spread
            evenly over the held-out data.
        count: how many held-out data there are.

    Example:
        >>> held_out_pairs("mnist", 10_000)[0]
        (484, 2234)
        >>> held_out_pairs("svhn", 10)
        [(0, 5), (1, 6), (2, 7), (3, 8), (4, 9)]
    """
    if name == "mnist" and count > max(map(max, _OF_MNIST)):
        return list(_OF_MNIST)
    pairs = min(_PAIRS, count // 2)
    spread = torch.linspace(0, count - 1, 2 * pairs).long().tolist()
    return list(zip(spread[:pairs], spread[pairs:], strict=True))


def pair_paths(subject: Subject) -> list[Tensor]:
    """Return paths between the pairs' posterior means, straight in generation space.

    Returns:
        Codes z0, of shape (11, L) for each pair; under N(0, I), where generation space is
        representation space, these are codes z.
    """
    means = subject.test_means.to(subject.saved.device)
    pairs = torch.tensor(held_out_pairs(subject.data.name, len(means)))
    with torch.no_grad():
        start, end = (subject.prior.to_generation(means[ends])[0] for ends in pairs.T)
    fractions = torch.linspace(0, 1, _POINTS, device=means.device)[:, None]
    return [a + fractions * (b - a) for a, b in zip(start, end, strict=True)]


def traversals_of_pairs(subjects: Subjects) -> Figure:
    """Return figure 6: traversals without and with the decoupled prior.

    Above are the paths over the aggregate posterior, in the two coordinates whose posterior means
    vary most (on MNIST these are all): straight in z under N(0, I); under the decoupled prior,
    curved in z and straight in z0. Below is what they decode to. Figure 7 of the paper is the
    same on CelebA.

    Args:
        subjects: the two runs; data are images.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 5.3, figures 6 and 7.
    """
    spaces, rows = {}, {}
    for key, subject in subjects.items():
        prior, lines, title = subject.prior, pair_paths(subject), title_of(key)
        curves = [prior.to_representation(line) for line in lines]
        cloud = subject.aggregate.sample((_CLOUD,))
        dims = most_active(subject, "representation space")
        spaces[f"{title}: representation space"] = _space(cloud, curves, dims, "z")
        if key.decoupled:
            dims = most_active(subject, "generation space")
            there = prior.to_generation(cloud)[0]
            spaces[f"{title}: generation space"] = _space(there, lines, dims, "z_0")
        rows[f"{title}: decoded"] = decoded(subject, torch.cat(curves)).split(_POINTS)
    return paths_figure(spaces, rows, title=_TITLE)


def _space(cloud: Tensor, paths: list[Tensor], dims: list[int], symbol: str) -> PathSpace:
    first, second = (f"${symbol}$[{dim}]" for dim in dims)
    return PathSpace(cloud[:, dims], [path[:, dims] for path in paths], (first, second))
