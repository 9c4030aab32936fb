"""The claims of the paper on pairs of models, and what seeds say of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import stats

from pyro_dpvae.evaluation.compare import half_width

__all__ = [
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
"""How much of a probe's accuracy may be lost by a representation that is said to be kept."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval of 95 %, Student's t; without one where there are too few values.

    Attributes:
        mean: of the values; NaN where there is none.
        low: the lower end; NaN for fewer than two values.
        high: the upper end; NaN for fewer than two values.
        count: how many values there are.
    """

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Sequence[int | float]) -> Interval:
    r"""Return :math:`\bar d \pm t_{n-1} \, s / \sqrt n` of values d_1 ... d_n.

    Values that are infinite have an infinite mean, or none if they are of both signs, and no
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
    """Return ``|FID(LP) - FID|`` of one run; None where one is not known."""
    fid, low = values.get("fid"), values.get("fid_low")
    return None if fid is None or low is None else abs(low - fid)


@dataclass(frozen=True)
class Verdict:
    """What is found of a claim.

    Attributes:
        verdict: ``holds``, ``does not hold`` or ``undecided``.
        reason: why it is undecided, where that is not the interval itself; else empty.
    """

    verdict: str
    reason: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a quantity, that with the decoupled prior less that without, and a bound.

    Attributes:
        name: in JSON.
        statement: in words.
        column: the quantity; ``gap`` is ``|FID(LP) - FID|``.
        bound: what the difference is compared with.
        above: whether it must lie above the bound; else below.
    """

    name: str
    statement: str
    column: str
    bound: float = 0.0
    above: bool = False

    def quantity(self, values: Values) -> float | None:
        """Return the quantity of one run; None where it is not known or not a number."""
        found = gap(values) if self.column == "gap" else values.get(self.column)
        return None if found is None or math.isnan(found) else found

    def differences(self, plain: Sequence[Values], decoupled: Sequence[Values]) -> list[float]:
        """Return decoupled less plain for each seed, NaN where it is not known.

        It is infinite where one of them is: a model that has diverged.
        """
        found = []
        for one, other in zip(plain, decoupled, strict=True):
            before, after = self.quantity(one), self.quantity(other)
            found.append(math.nan if before is None or after is None else after - before)
        return found

    def verdict(self, differences: Sequence[float], *, absent: bool = False) -> Verdict:
        """Return what differences over seeds, NaN where one is not known, say of the claim.

        Args:
            differences: one for each seed. Infinite ones decide for their side.
            absent: whether the quantity is exactly 0 in all runs, so that nothing can be said.
        """
        unknown = [str(seed) for seed, one in enumerate(differences) if math.isnan(one)]
        if unknown:
            return Verdict(OPEN, f"not known of seed {', '.join(unknown)}")
        if absent:
            return Verdict(OPEN, "exactly 0 in all runs of both")
        interval = mean_interval(differences)
        if interval.count < 2:
            return Verdict(OPEN, "one seed has no interval")
        if math.isnan(interval.mean):
            return Verdict(OPEN, "infinite with the prior in some seeds, without it in others")
        if math.isinf(interval.mean):
            return Verdict(HOLDS if (interval.mean > 0) == self.above else FAILS)
        # With the claim's side below the bound, whichever it is.
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
"""What the first two columns are called, by features: FID; the same Frechet distance between
features of a domain network; or the distance of decoded samples to the data."""


def claims_of(features: str) -> tuple[Claim, ...]:
    """Return the claims, in terms of what is measured of samples, a key of ``COLUMNS``."""
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
