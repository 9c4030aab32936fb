"""Figure 8: single coordinates of generation space, varied."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from papers.dpvae.figures.systems import Subjects, decoded, title_of
from pyro_dpvae.evaluation import Subject
from pyro_dpvae.plots.traversal import draw_rows

__all__ = ["factor_lines", "traversals_of_factors"]

_DIMS, _IMAGES, _REACH = 5, 7, 5.0  # as the authors' code
_DATA = 3
_FRAME = "#d55e00"


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
    return _panels_of_rows(
        panels,
        [f"$z_0$[{dim}]" for dim in dims],
        title=title,
        columns=steps,
        marked=_IMAGES // 2,
    )


def _panels_of_rows(
    panels: Mapping[str, Sequence[Tensor]],
    labels: Sequence[str],
    *,
    title: str,
    columns: Sequence[str],
    marked: int,
) -> Figure:
    """Return a figure with panels of images in rows, side by side.

    Args:
        panels: by title, rows of images (steps, channels, height, width) in [0, 1], as many and
            as long in each.
        labels: of the rows.
        title: of the figure.
        columns: names of the images of a row, which stand below.
        marked: the index of the column that is framed.
    """
    figure = Figure(layout="constrained")
    for number, (axes, (name, rows)) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True)
    ):
        ratio = draw_rows(axes, rows, labels if number == 0 else [""] * len(labels))
        axes.set_title(name, fontsize=11)
        count, _, height, width = rows[0].shape
        axes.set_xticks([(width + 1) * (i + 0.5) - 1 for i in range(count)], columns, fontsize=9)
        corner, tall = (marked * (width + 1) - 1, -1), len(rows) * (height + 1)
        frame = Rectangle(corner, width + 1, tall, fill=False, ec=_FRAME, lw=2, clip_on=False)
        axes.add_patch(frame)
    # Titles have lines of 0.2 inches; below are the columns' names.
    lines = 0.2 * (title.count("\n") + 1)
    figure.set_size_inches(3.5 * len(panels) + 0.6, 3.4 * ratio + lines + 0.6)
    figure.suptitle(title, fontsize=12)
    return figure
