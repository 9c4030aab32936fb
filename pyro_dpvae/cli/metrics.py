"""Metrics as commands print them: their unit, which way is better, and which rows are left out."""

import math
from collections.abc import Mapping, Sequence

from pyro_dpvae.report.meanings import meaning_of

__all__ = ["folded", "in_words"]


def in_words(metric: str) -> tuple[str, str]:
    """Return the unit of a metric, and which values of it are better.

    Example:
        >>> in_words("nll"), in_words("probe"), in_words("rate")
        (('nats', 'lower'), ('share', 'higher'), ('nats', ''))
    """
    meaning = meaning_of(metric)
    return meaning.unit, meaning.better or ""


def folded(
    values: Mapping[str, Sequence[tuple[float, float] | None]],
) -> tuple[list[str], list[str]]:
    """Return the metrics that have a row of their own, and a line that names the others.

    The others are 0 in every column because too few samples were drawn. The leakage at a distant
    threshold is an example.

    Args:
        values: by metric, the value and half its interval in each column, NaN if it is unknown.
    """
    nothing = [
        name
        for name, row in values.items()
        if all(one is None or (one[0] == 0 and not one[1] > 0) for one in row)
        and any(one is not None and math.isnan(one[1]) for one in row)
    ]
    shown = [name for name in values if name not in nothing]
    return shown, [f"0, with too few draws for an interval: {', '.join(nothing)}"] * bool(nothing)
