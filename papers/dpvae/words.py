"""The words of the table, the same in a terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from papers.dpvae.budgets import AUTHORS_CODE
from papers.dpvae.claims import COLUMNS

__all__ = [
    "BESIDE",
    "DIFFERENCES",
    "column_titles",
    "counted",
    "features_in_words",
    "notes",
    "number",
    "verdict_line",
]

BESIDE = {"fid": "fid", "fid_low": "fid_low", "skl_nearest": "skl", "nll": "nll"}
"""By column, the column of the paper's table that stands beside it."""

DIFFERENCES = ("fid", "gap", "skl", "probe", "leakage", "leakage_-1", "nll")
"""The differences in the order of the table: those with a verdict, then those without."""


def number(value: float | str | None) -> str:
    """Return a number with four digits; ``-`` for None.

    Example:
        >>> number(137.4), number(0.00123456), number(None), number("inf")
        ('137.4', '0.001235', '-', 'inf')
    """
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.4g}"


def counted(count: int, what: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "seed"), counted(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def column_titles(features: str) -> dict[str, str]:
    """Return the titles of columns and of differences."""
    first, low = COLUMNS[features]
    return {
        "fid": first,
        "fid_low": low,
        "gap": "gap",
        "skl": "sKL",
        "skl_nearest": "sKL 1-NN",
        "nll": "NLL",
        "leakage": "leakage -10",
        "leakage_-10": "leakage -10",
        "leakage_-1": "leakage -1",
        "probe": "probe",
    }


def features_in_words(table: Mapping[str, Any]) -> str:
    """Return the meaning of the columns about samples, and how they relate to the paper's."""
    network = table["network"] or "no run has been measured"
    another_scale = (
        " The paper's FID beside it has another scale: only the signs of differences are "
        "comparable."
    )
    return {
        "fid": f"FID is in Inception features ({network}).",
        "domain": "FD is the Frechet distance in the features of a small classifier of the data "
        f"set ({network}), because the weights of the Inception network of FID were not "
        f"available.{another_scale if any(row['paper'] for row in table['rows']) else ''}",
        "distance": "The distance is that of decoded samples to the nearest training datum; the "
        "paper has no such row.",
    }[table["study"]["features"]]


def verdict_line(claim: Mapping[str, Any]) -> str:
    """Return the verdicts on a claim over all pairs, and on the mean over the pairs."""
    mean = claim["mean"]
    found = number(mean["mean"])
    if mean["low"] is not None:
        found += f" [{number(mean['low'])}, {number(mean['high'])}]"
    return (
        f"{claim['statement']}: holds in {claim['holds']} of {counted(claim['pairs'], 'pair')}, "
        f"does not in {claim['does_not_hold']}, undecided in {claim['undecided']}; mean "
        f"difference over the pairs {found}, {mean['verdict']}"
    )


def notes(table: Mapping[str, Any]) -> list[str]:
    """Return explanations of the numbers, one or two sentences each."""
    study = table["study"]
    first, low = COLUMNS[study["features"]]
    found = [
        features_in_words(table),
        "Differences are those of the model with the decoupled prior minus the model without, "
        f"paired over {counted(study['seeds'], 'seed')}, with 95 % intervals (Student's t). A "
        "claim holds for a pair if the whole interval is on its side, does not hold if the whole "
        "interval is on the other side, and is undecided otherwise. The mean difference over the "
        "pairs is the mean of all pairs for each seed, with the interval over seeds.",
        f"The gap is |{low} - {first}|, per run.",
        "sKL uses exact densities and has the verdict. sKL 1-NN is the nearest-neighbour "
        "estimate, which the paper reports: only these two are comparable.",
        "Leakage at t is E_q[log q(z) - log p(z)] over the aggregate posterior where the density "
        "of z mapped to generation space, log p0(g(z)), is below t; samples above the threshold "
        "count as 0. The threshold is the same for all latent sizes, but the density is not: "
        "under N(0, I) in L dimensions the mean of its logarithm is -1.42 L. For L of 8 or more "
        "nearly all samples count, and the score is nearly the whole KL(q(z) || p(z)) and says "
        "nothing about pockets.",
        "NLL is -log p(x) per held-out datum in nats, by importance sampling. It has no verdict: "
        "the paper does not state the unit of its NLL, and does not report it lower in every row.",
    ]
    if study["variant"] == AUTHORS_CODE:
        found.append(
            "The two configurations of a pair differ in more than the prior. Each keeps its own "
            f"learning rate, and its share of the steps: {study['steps']} stand for 100,000."
        )
    if unknown := _unknown(table["pairs"]):
        found.append(f"Undecided for another reason than the interval: {unknown}.")
    return found


def _unknown(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return the reasons for undecided verdicts other than their intervals."""
    reasons: dict[str, list[str]] = {}
    for pair in pairs:
        for name, entry in pair["differences"].items():
            if reason := entry.get("reason"):
                reasons.setdefault(reason, []).append(f"{pair['regularizer']} {name}")
    return "; ".join(f"{reason} ({', '.join(where)})" for reason, where in reasons.items())
