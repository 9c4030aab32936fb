"""The reproduced Table 1: rows, paired differences and verdicts, as plain data."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from papers.dpvae.claims import ABSENT, FAILS, HOLDS, OPEN, Claim, claims_of, mean_interval
from papers.dpvae.paper import SOURCE, TABLE_1
from papers.dpvae.results import COMMON, SAMPLES, Result, results_of
from papers.dpvae.study import Study
from pyro_dpvae.recipes import REGULARIZERS

__all__ = ["over_all", "table_of"]

# Differences that are shown without a verdict: the paper claims nothing about them.
_SHOWN = (
    Claim(name="nll", statement="NLL", column="nll"),
    Claim(name="leakage_-1", statement="leakage at -1", column="leakage_-1"),
)


def table_of(study: Study, out: Path) -> dict[str, Any]:
    """Return the table of a study from the metrics of its runs, as JSON holds it.

    The same runs give the same table, whenever and wherever they were trained: it has no times and
    no paths.

    Raises:
        ValueError: if runs were measured with several feature networks.
    """
    results = results_of(study, out)
    pairs = [
        _pair(
            study,
            regularizer,
            *(results[study.recipe(regularizer, decoupled=one)] for one in (False, True)),
        )
        for regularizer in study.regularizers
    ]
    networks = [one.network for found in results.values() for one in found if one.network]
    return {
        "paper": SOURCE,
        "study": study.as_dict(),
        "network": networks[0] if networks else None,
        "rows": [
            _row(study, regularizer, decoupled, results)
            for regularizer in study.regularizers
            for decoupled in (False, True)
        ],
        "pairs": pairs,
        "claims": [over_all(claim, pairs) for claim in claims_of(study.features)],
    }


def _row(
    study: Study, regularizer: str, decoupled: bool, results: dict[str, list[Result]]
) -> dict[str, Any]:
    recipe = study.recipe(regularizer, decoupled=decoupled)
    names = REGULARIZERS[regularizer]
    kind = "dp" if decoupled else "plain"
    own = study.source is None  # the paper has no numbers of other data
    paper = TABLE_1.get(study.data, {}).get(regularizer, {}).get(kind) if own else None
    found = results[recipe]
    return {
        "recipe": recipe,
        "model": names.decoupled if decoupled else names.plain,
        "paper": None if paper is None else paper._asdict(),
        "means": {
            column: _interval([one.values[column] for one in found])
            for column in (*SAMPLES[study.features], *COMMON)
        },
        "seeds": [
            {"seed": one.seed, "failed": one.failed, "values": _plain(one.values)} for one in found
        ],
    }


def _pair(
    study: Study, regularizer: str, plain: Sequence[Result], decoupled: Sequence[Result]
) -> dict[str, Any]:
    before, after = ([one.values for one in found] for found in (plain, decoupled))
    found: dict[str, Any] = {"regularizer": regularizer, "differences": {}}
    for claim in (*claims_of(study.features), *_SHOWN):
        differences = claim.differences(before, after)
        entry = {"seeds": _plain(differences), **_interval(differences)}
        if claim not in _SHOWN:
            quantities = [claim.quantity(one) for one in (*before, *after)]
            absent = claim.name == "leakage" and not any(quantities)
            verdict = claim.verdict(differences, absent=absent)
            entry |= {"verdict": verdict.verdict, "reason": verdict.reason}
        if claim.name == "gap":
            entry["gaps"] = {
                kind: _interval([claim.quantity(one) for one in values])
                for kind, values in (("plain", before), ("dp", after))
            }
        found["differences"][claim.name] = entry
    return found


def over_all(claim: Claim, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many pairs have which verdict on a claim, and the test of the pairs' mean."""
    entries = [pair["differences"][claim.name] for pair in pairs]
    verdicts = Counter(entry["verdict"] for entry in entries)
    by_seed = zip(*(entry["seeds"] for entry in entries), strict=True)
    means = [float(np.mean([math.nan if d is None else float(d) for d in ds])) for ds in by_seed]
    absent = all(entry["reason"] == ABSENT for entry in entries)
    verdict = claim.verdict(means, absent=absent)
    return {
        "name": claim.name,
        "statement": claim.statement,
        "pairs": len(pairs),
        "holds": verdicts[HOLDS],
        "does_not_hold": verdicts[FAILS],
        "undecided": verdicts[OPEN],
        "mean": {**_interval(means), "verdict": verdict.verdict, "reason": verdict.reason},
    }


def _interval(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None and not math.isnan(value)]
    interval = mean_interval(known)
    return {
        "mean": _plain(interval.mean),
        "low": _plain(interval.low),
        "high": _plain(interval.high),
        "known": len(known),
        "of": len(values),
    }


def _plain(value: Any) -> Any:
    """Return values that JSON can hold: None for NaN, and the text ``inf`` or ``-inf``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
