"""Figure 8: single coordinates of generation space, varied."""

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae.evaluation import Subject
from pyro_dpvae.plots import rows_figure
from pyro_dpvae.reproduction.figures.systems import Subjects, decoded, title_of

__all__ = ["factor_lines", "traversals_of_factors"]

_DIMS, _IMAGES, _REACH = 5, 7, 5.0  # as the authors' code
_DATA = 3


def factor_lines(
    subject: Subject, code: Float[Tensor, " latent"]
) -> tuple[list[int], Float[Tensor, "dims images latent"]]:
    """Return lines through a code along the coordinates of z0 that vary most over the data.

    These are at most five, by the variance of posterior means; a line has seven points, from
    5 below the code's own value to 5 above.

    Args:
        subject: the run.
        code: z0.

    Returns:
        The coordinates, and codes z0.
    """
    spread = subject.generation_spread
    dims = spread.topk(min(_DIMS, len(spread))).indices.tolist()
    lines = code.repeat(len(dims), _IMAGES, 1)
    steps = torch.linspace(-_REACH, _REACH, _IMAGES, device=code.device)
    for line, dim in zip(lines, dims, strict=True):
        line[:, dim] += steps
    return dims, lines


def traversals_of_factors(subjects: Subjects) -> Figure:
    """Return figure 8: one coordinate of z0 varied while the others stand, a row each.

    A panel is of one held-out datum's code, in the framed middle of each row. The three data are
    spread evenly over the held-out split; which the paper shows is unknown. The paper draws
    CelebA.

    Args:
        subjects: one run; data are images.

    References:
        Bhalodia, Lee, Elhabian (2020), dpVAEs, section 5.3, figure 8; lines as in the authors'
        code.
    """
    ((key, subject),) = subjects.items()
    means = subject.test_means.to(subject.saved.device)
    chosen = torch.linspace(0, len(means) - 1, _DATA + 2).long()[1:-1]
    panels = {}
    for index in chosen.tolist():
        code = subject.prior.to_generation(means[index : index + 1])[0][0]
        dims, lines = factor_lines(subject, code)
        z = subject.prior.to_representation(lines.flatten(0, 1))
        panels[f"held-out datum {index}"] = decoded(subject, z).split(_IMAGES)
    title = (
        f"{title_of(key)}: one coordinate of generation space, moved by up to "
        f"{_REACH:g} from the datum's code,\nthe framed column; that is the range of the authors' "
        "implementation"
    )
    steps = [f"{step:+.1f}" for step in torch.linspace(-_REACH, _REACH, _IMAGES).tolist()]
    steps[_IMAGES // 2] = "code"
    return rows_figure(
        panels,
        [f"$z_0$[{dim}]" for dim in dims],
        title=title,
        columns=steps,
        marked=_IMAGES // 2,
    )
