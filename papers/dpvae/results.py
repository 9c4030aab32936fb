"""What the runs of a study have measured, in the columns of the table."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papers.dpvae.budgets import steps_of
from papers.dpvae.study import Study, run_path
from pyro_dpvae.evaluation.kept import read_kept
from pyro_dpvae.runs import RunFolder

__all__ = ["COMMON", "SAMPLES", "Result", "measured", "results_of"]

SAMPLES: dict[str, dict[str, str]] = {
    "fid": {"fid": "fid", "fid_low": "fid_low_posterior"},
    "domain": {"fid": "frechet_domain", "fid_low": "frechet_low_posterior_domain"},
    "distance": {"fid": "distance", "fid_low": "distance_low_posterior"},
}
"""By features: the columns of what samples are like, and the metrics that fill them."""

COMMON: dict[str, str] = {
    "skl": "skl",
    "skl_nearest": "skl_nearest",
    "nll": "nll",
    "leakage_-10": "leakage_-10",
    "leakage_-1": "leakage_-1",
    "probe": "probe",
}
"""The other columns, and the metrics that fill them."""


@dataclass(frozen=True)
class Result:
    """What one run has measured.

    Attributes:
        seed: of the run.
        values: by column; None where there is none, all of them where the run has failed.
        network: the feature network, where there is one.
    """

    seed: int
    values: dict[str, float | None]
    network: str | None = None

    @property
    def failed(self) -> bool:
        """Whether nothing is known of the run."""
        return all(value is None for value in self.values.values())


def results_of(study: Study, out: Path) -> dict[str, list[Result]]:
    """Return the results of a study by recipe, one for each seed.

    Raises:
        ValueError: if feature networks differ, so that their numbers do not compare.
    """
    found = {
        recipe: [_result(study, out, recipe, seed) for seed in range(study.seeds)]
        for recipe in study.recipes
    }
    networks = {one.network for results in found.values() for one in results} - {None}
    if len(networks) > 1:
        raise ValueError(
            f"{study.features} must be of one feature network, got {sorted(map(str, networks))} "
            f"in {out}; remove the evaluation.json of the runs, and reproduce again with one"
        )
    return found


def measured(run: RunFolder, numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of a run as they are measured by default; empty if any is not there.

    Args:
        run: the folder; the metrics are of its last checkpoint.
        numbers: by group, what its metrics are to be measured with. Others, as of a user's own
            evaluation, would stand in one table with runs that they do not compare with.

    Raises:
        ValueError: if something in the folder is damaged.
    """
    kept = read_kept(run)
    if not kept:
        return {}
    basis = {key: kept["basis"].get(key, "raw") for key in ("run", "weights")}
    weights = "raw" if run.config.get("average_decay") is None else "average"
    found = {group: entry["numbers"] for group, entry in kept["groups"].items()}
    whole = all(found.get(group) == dict(wanted) for group, wanted in numbers.items())
    same = basis == {"run": run.checkpoint().digest, "weights": weights}
    return dict(kept["metrics"]) if whole and same else {}


def _result(study: Study, out: Path, recipe: str, seed: int) -> Result:
    columns = {**SAMPLES[study.features], **COMMON}
    metrics = {}
    run = RunFolder(run_path(out, recipe, seed))
    with suppress(ValueError):  # damaged: its job has failed and said so
        if run.steps()[-1:] == [steps_of(recipe, study.steps)]:
            metrics = measured(run, study.numbers)
    values = {
        column: float(metrics[metric]["value"]) if metric in metrics else None
        for column, metric in columns.items()
    }
    settings = metrics.get(columns["fid"], {}).get("settings", {})
    return Result(seed, values, settings.get("network"))
