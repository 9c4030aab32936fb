"""The claims of the paper about pairs of models, and tests of them over several seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import stats

from pyro_dpvae.evaluation.compare import half_width

__all__ = [
    "ABSENT",
    "COLUMNS",
    "FAILS",
    "HOLDS",
    "OPEN",
    "PROBE_MARGIN",
    "Claim",
    "Interval",
    "Verdict",
    "claims_of",
    "gap",
    "mean_interval",
]

PROBE_MARGIN = 0.02
"""The largest loss of a probe's accuracy that counts as keeping the representation."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"
ABSENT = "exactly 0 in all runs of both"

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval of 95 % by Student's t, if there are enough values for one.

    Attributes:
        mean: the mean of the values; NaN without values.
        low: the lower end; NaN for fewer than two values.
        high: the upper end; NaN for fewer than two values.
        count: the number of values.
    """

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Sequence[int | float]) -> Interval:
    r"""Return :math:`\bar d \pm t_{n-1} \, s / \sqrt n` of values d_1 ... d_n.

    With infinite values the mean is infinite, or NaN if they have both signs, and there is no
    interval.

    Example:
        >>> one = mean_interval([1.0, 2.0, 3.0])
        >>> round(one.low, 3), one.mean, round(one.high, 3)
        (-0.484, 2.0, 4.484)
    """
    count = len(values)
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0)
    infinite = {value for value in values if math.isinf(value)}
    if infinite:
        return Interval(sum(infinite), math.nan, math.nan, count)
    mean = float(np.mean(values))
    if count < 2:
        return Interval(mean, math.nan, math.nan, count)
    half = half_width(stats.sem(values), repetitions=count)
    return Interval(mean, mean - half, mean + half, count)


def gap(values: Values) -> float | None:
    """Return ``|FID(LP) - FID|`` of one run; None if one of the two was not measured."""
    fid, low = values.get("fid"), values.get("fid_low")
    return None if fid is None or low is None else abs(low - fid)


@dataclass(frozen=True)
class Verdict:
    """The result of testing a claim.

    Attributes:
        verdict: ``holds``, ``does not hold`` or ``undecided``.
        reason: why it is undecided if the interval is not the reason; otherwise empty.
    """

    verdict: str
    reason: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that a quantity with the decoupled prior, minus that without, is beyond a bound.

    Attributes:
        name: the key in JSON.
        statement: the claim in words.
        column: the name of the quantity; ``gap`` is ``|FID(LP) - FID|``.
        bound: the bound of the difference.
        above: whether the difference must lie above the bound; otherwise below.
    """

    name: str
    statement: str
    column: str
    bound: float = 0.0
    above: bool = False

    def quantity(self, values: Values) -> float | None:
        """Return the quantity of one run; None if it was not measured or is not a number."""
        found = gap(values) if self.column == "gap" else values.get(self.column)
        return None if found is None or math.isnan(found) else found

    def differences(self, plain: Sequence[Values], decoupled: Sequence[Values]) -> list[float]:
        """Return decoupled minus plain for each seed; NaN if one of them was not measured.

        The difference is infinite if one of them is: that model has diverged.
        """
        found = []
        for one, other in zip(plain, decoupled, strict=True):
            before, after = self.quantity(one), self.quantity(other)
            found.append(math.nan if before is None or after is None else after - before)
        return found

    def verdict(self, differences: Sequence[float], *, absent: bool = False) -> Verdict:
        """Test the claim with the differences of several seeds.

        Args:
            differences: one for each seed; NaN if it is unknown. An infinite difference decides.
            absent: whether the quantity is exactly 0 in all runs, which leaves the claim open.
        """
        unknown = [str(seed) for seed, one in enumerate(differences) if math.isnan(one)]
        if unknown:
            return Verdict(OPEN, f"not known of seed {', '.join(unknown)}")
        if absent:
            return Verdict(OPEN, ABSENT)
        interval = mean_interval(differences)
        if interval.count < 2:
            return Verdict(OPEN, "one seed has no interval")
        if math.isnan(interval.mean):
            return Verdict(OPEN, "infinite with the prior in some seeds, without it in others")
        if math.isinf(interval.mean):
            return Verdict(HOLDS if (interval.mean > 0) == self.above else FAILS)
        # Mirror claims of the other direction, so that each claim is now that the gap is below 0.
        low, high = interval.low - self.bound, interval.high - self.bound
        if self.above:
            low, high = -high, -low
        if high < 0:
            return Verdict(HOLDS)
        return Verdict(FAILS) if low > 0 else Verdict(OPEN)


COLUMNS: dict[str, tuple[str, str]] = {
    "fid": ("FID", "FID(LP)"),
    "domain": ("FD", "FD(LP)"),
    "distance": ("distance", "distance(LP)"),
}
"""The titles of the first two columns, by features: FID; the Frechet distance between features of
a domain network; or the distance of decoded samples to the data."""


def claims_of(features: str) -> tuple[Claim, ...]:
    """Return the claims of the paper.

    Args:
        features: the features that compare samples with data, a key of ``COLUMNS``.
    """
    first, low = COLUMNS[features]
    return (
        Claim(name="fid", statement=f"{first} is lower", column="fid"),
        Claim(name="gap", statement=f"{low} is closer to {first}", column="gap"),
        Claim(name="skl", statement="sKL is lower", column="skl"),
        Claim(
            name="probe",
            statement=f"probe accuracy is not lower by {PROBE_MARGIN}",
            column="probe",
            bound=-PROBE_MARGIN,
            above=True,
        ),
        Claim(name="leakage", statement="leakage at -10 is lower", column="leakage_-10"),
    )
