"""Claims on pairs of models: intervals, verdicts, and the paper's numbers."""

import math
from typing import Any

import pytest
from scipy import stats

from papers.dpvae.claims import Claim, claims_of, mean_interval
from papers.dpvae.paper import TABLE_1

LOWER = Claim(name="fid", statement="", column="fid")
KEPT = Claim(name="probe", statement="", column="probe", bound=-0.02, above=True)


def test_an_interval_is_students() -> None:
    # By hand: mean 2, standard deviation 1, t of 2 degrees of freedom 4.302653, root of 3.
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    values = [0.3, -1.2, 2.5, 0.1, 0.7]
    oracle = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize(
    ("claim", "differences", "verdict", "reason"),
    [
        (LOWER, [-1.0, -1.1, -0.9], "holds", ""),
        (LOWER, [1.0, 1.1, 0.9], "does not hold", ""),
        (LOWER, [-1.0, 1.0, -0.5], "undecided", ""),
        (LOWER, [0.0, 0.0], "undecided", ""),
        (LOWER, [-1.0], "undecided", "one seed has no interval"),
        (LOWER, [-1.0, math.nan, -1.0], "undecided", "not known of seed 1"),
        (LOWER, [-1.0, math.inf, -1.0], "does not hold", ""),
        (LOWER, [1.0, -math.inf], "holds", ""),
        (KEPT, [0.0, -math.inf], "does not hold", ""),
        (KEPT, [-0.01, -0.011, -0.009], "holds", ""),
        (KEPT, [-0.03, -0.031, -0.029], "does not hold", ""),
        (KEPT, [-0.01, -0.03, -0.02], "undecided", ""),
        (KEPT, [0.1, 0.11, 0.12], "holds", ""),
    ],
)
def test_a_verdict_is_where_the_whole_interval_lies(
    claim: Claim, differences: list[float], verdict: str, reason: str
) -> None:
    found = claim.verdict(differences)
    assert (found.verdict, found.reason) == (verdict, reason)


def test_the_gap_has_no_sign_and_what_is_not_finite_is_not_known() -> None:
    gap = next(claim for claim in claims_of("fid") if claim.name == "gap")
    plain: list[dict[str, Any]] = [{"fid": 5.0, "fid_low": 2.0}, {"fid": 1.0, "fid_low": None}]
    decoupled = [{"fid": 1.0, "fid_low": 2.0}, {"fid": 1.0, "fid_low": 2.0}]
    found = gap.differences(plain, decoupled)
    assert found[0] == 1.0 - 3.0
    assert math.isnan(found[1])
    assert LOWER.quantity({"fid": math.nan}) is None
    assert LOWER.differences([{"fid": 1.0}], [{"fid": math.inf}]) == [math.inf]
    assert LOWER.verdict([0.0, 0.0], absent=True).reason == "exactly 0 in all runs of both"


def test_the_papers_numbers_are_those_of_the_paper() -> None:
    assert TABLE_1["mnist"]["beta-vae-h"]["dp"] == (127.1, 127.4, 1.07, 2.98)
    assert TABLE_1["svhn"]["vae"]["plain"] == (78.9, 83.8, 53.67, 0.386)
    assert TABLE_1["celeba"]["info-vae"]["dp"] == (68.9, 72.9, 20.3, 12.1)
    pairs = {
        (data, name): (pair["plain"], pair["dp"])
        for data, rows in TABLE_1.items()
        for name, pair in rows.items()
    }
    assert len(pairs) == 18
    assert all(dp.fid < plain.fid and dp.skl < plain.skl for plain, dp in pairs.values())
    assert {pair for pair, (plain, dp) in pairs.items() if dp.nll > plain.nll} == {
        ("mnist", "factor-vae"),
        ("svhn", "factor-vae"),
        ("svhn", "info-vae"),
        *(("celeba", name) for name in ("beta-vae-h", "beta-tcvae", "factor-vae", "info-vae")),
    }
    closer = {data: 0 for data in TABLE_1}
    for (data, _), (plain, dp) in pairs.items():
        closer[data] += abs(dp.fid_low - dp.fid) < abs(plain.fid_low - plain.fid)
    assert closer["mnist"] == 6
    assert closer["celeba"] == 0
