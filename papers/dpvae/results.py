"""The metrics of the runs of a study, in the columns of the table."""

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
"""By features: the columns about samples, and the metrics that fill them."""

COMMON: dict[str, str] = {
    "skl": "skl",
    "skl_nearest": "skl_nearest",
    "nll": "nll",
    "leakage_-10": "leakage_generation_-10",
    "leakage_-1": "leakage_generation_-1",
    "probe": "probe",
}
"""The other columns, and the metrics that fill them."""


@dataclass(frozen=True)
class Result:
    """The metrics of one run.

    Attributes:
        seed: the seed of the run.
        values: the metric of each column; None if it is missing. A failed run lacks all.
        network: the feature network, if there is one.
    """

    seed: int
    values: dict[str, float | None]
    network: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the run has no metric."""
        return all(value is None for value in self.values.values())


def results_of(study: Study, out: Path) -> dict[str, list[Result]]:
    """Return the results of a study by recipe, one for each seed.

    Raises:
        ValueError: if the runs were measured with several feature networks.
    """
    found = {
        recipe: [_result(study, out, recipe, seed) for seed in range(study.seeds)]
        for recipe in study.recipes
    }
    networks = {one.network for results in found.values() for one in results} - {None}
    if len(networks) > 1:
        raise ValueError(
            f"{study.features} must be measured with one feature network in all runs, got "
            f"{sorted(map(str, networks))} in {out}; evaluate the runs again with one network"
        )
    return found


def measured(run: RunFolder, numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of the last checkpoint of a run; empty unless all groups are there.

    Args:
        run: the run folder.
        numbers: by group of metrics, the settings that they must have been measured with: in one
            table all runs are measured alike.

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
    with suppress(ValueError):  # damaged files, which the job of the run has reported
        if run.steps()[-1:] == [steps_of(recipe, study.steps)]:
            metrics = measured(run, study.numbers)
    values = {
        column: float(metrics[metric]["value"]) if metric in metrics else None
        for column, metric in columns.items()
    }
    settings = metrics.get(columns["fid"], {}).get("settings", {})
    return Result(seed, values, settings.get("network"))
