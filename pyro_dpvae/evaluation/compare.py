"""Comparison of evaluated runs: differences, paired if possible, with intervals."""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from pyro_dpvae.evaluation.kept import kept_per_datum, read_kept, value_of
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.runs.changes import ADDED

__all__ = [
    "Comparison",
    "Difference",
    "compare_runs",
    "compare_seeds",
    "differing",
    "flat",
    "half_width",
    "observed_kind",
]

_LEVEL = 0.95

# Options that do not make groups of seeds; that the data are the same, their digest shows.
_INCIDENTAL = ("seed", "out", "device", "data", "root", "download", "workers")

_UNRELIABLE = 0.05  # the share of data of k-hat above 0.7 from which likelihoods do not compare

_DENSITIES = ("nll", "elbo")
# Likelihoods of discrete values, whose log-probabilities are comparable with each other.
_PROBABILITIES = (
    *("bernoulli", "categorical", "logistic", "logistic-mixture", "negative-binomial"),
    "poisson",
)
_DISCRETE = ("binary", "count", "categorical")  # columns of a mixed likelihood


@dataclass(frozen=True)
class Difference:
    """The difference to the first column, with its 95 % interval.

    Attributes:
        value: the difference.
        half_width: half the width of the interval; NaN if an error is unknown.
        how: the basis of the interval: ``paired data``, ``paired seeds``, ``seeds`` or
            ``standard errors``.
        reliable: whether the interval holds. That of likelihoods does not where k-hat is above
            0.7 for more than 5 % of the data of a run: few draws carry these estimates, and how
            far they are off is not known.
    """

    value: float
    half_width: float
    how: str
    reliable: bool = True


@dataclass(frozen=True)
class Comparison:
    """Metrics in columns of runs, or of groups of runs that differ only in their seeds.

    Attributes:
        columns: their titles.
        values: by metric, the value and standard error of each column, None if not measured.
        differences: by metric, the difference of each further column from the first, or None.
        differing: by dotted name, the options in which the columns' configurations differ.
        members: the runs of each column.
        notes: why metrics that both columns have are without a difference.
    """

    columns: list[str]
    values: dict[str, list[tuple[float, float] | None]]
    differences: dict[str, list[Difference | None]]
    differing: dict[str, list[Any]]
    members: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def intervals(
        self, metrics: Sequence[str] | None = None
    ) -> dict[str, list[tuple[float, float] | None]]:
        """Return values with half their intervals: Student's t over seeds, normal for one run."""
        counts = [len(members) if len(members) > 1 else None for members in self.members]
        return {
            name: [
                None if one is None else (one[0], half_width(one[1], repetitions=count))
                for one, count in zip(self.values[name], counts, strict=True)
            ]
            for name in (self.values if metrics is None else metrics)
        }


def compare_runs(paths: Sequence[str]) -> Comparison:
    """Compare evaluated runs with the first of them.

    Likelihoods and bounds are compared datum by datum, with the interval of the mean difference.
    They have no difference between runs with different preprocessing, or between probabilities and
    densities. Other metrics count as independent; their errors are added in quadrature.

    Raises:
        ValueError: if there are fewer than two runs, or a run is not evaluated, or has other data
            than the first.

    Metrics that a run was measured with in other ways than the first have no difference, and a
    note says why.
    """
    if len(paths) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(paths)}")
    runs = _evaluated(paths)
    left_out = {run.path: _left_out(runs[0], run) for run in runs[1:]}

    def difference(name: str, first: _Group, other: _Group) -> Difference | None:
        return None if name in left_out[other[0].path] else _run_difference(name, *first, *other)

    found = _compared(
        [[run] for run in runs], lambda group, name: value_of(group[0].metrics, name), difference
    )
    reasons = dict.fromkeys(one for unlike in left_out.values() for one in unlike.values())
    return replace(
        found, columns=list(paths), notes=[f"No difference of {reason}." for reason in reasons]
    )


def compare_seeds(paths: Sequence[str]) -> Comparison:
    """Compare groups of evaluated runs, which differ only in their seeds, with the first group.

    Values are means over seeds with their standard errors. Intervals are Student's t intervals of
    the paired differences if the groups have the same seeds, otherwise Welch's.

    Raises:
        ValueError: if there are fewer than two groups, a group has a single run, or a run is not
            evaluated, or with other settings than the first.
    """
    if not paths:
        raise ValueError("a comparison needs at least two groups of runs, got no run")
    runs = _evaluated(paths)
    for run in runs[1:]:
        for reason in _left_out(runs[0], run).values():
            raise ValueError(f"runs must be measured alike, which they are not in {reason}")
    groups: dict[str, list[_Evaluated]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.essential, sort_keys=True), []).append(run)
    grouped = list(groups.values())
    if len(grouped) < 2 or min(map(len, grouped)) < 2:
        raise ValueError(
            "a comparison over seeds needs at least two groups of at least two runs that differ "
            f"only in their seed, got groups of {[len(group) for group in grouped]}"
        )
    for group in grouped:
        seeds = [run.config["seed"] for run in group]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"runs of one group must have different seeds, got {seeds}")
    found = _compared(grouped, _mean_over_seeds, _seed_difference)
    columns = [f"{group[0].path} and {len(group) - 1} more seeds" for group in grouped]
    return replace(found, columns=columns)


def flat(config: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Return the options of a configuration by their dotted names.

    Example:
        >>> flat({"prior": {"name": "coupling", "blocks": 4}, "seed": 0})
        {'prior.name': 'coupling', 'prior.blocks': 4, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{start}{key}.") if nested else {f"{start}{key}": value}
    return found


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the options in which configurations differ, except the run's folder ``out``.

    Returns:
        By dotted name, the value in each configuration; if it has no such option, that by which
        the run was trained, or None.

    Example:
        >>> differing([{"prior": {"name": name}, "seed": 0, "out": name} for name in ("a", "b")])
        {'prior.name': ['a', 'b']}
    """
    options = [flat({**ADDED, **config}) for config in configs]
    names = dict.fromkeys(name for one in options for name in one if name != "out")
    found = {name: [one.get(name) for one in options] for name in names}
    return {name: values for name, values in found.items() if any(v != values[0] for v in values)}


def half_width(error: float | None, *, repetitions: int | None = None) -> float:
    """Return half the width of a 95 % interval; NaN if the standard error is unknown.

    Args:
        error: the standard error of a mean.
        repetitions: the number of values in the mean, for Student's t; None for the normal
            distribution.

    Example:
        >>> round(half_width(1.0), 2), round(half_width(1.0, repetitions=3), 2), half_width(None)
        (1.96, 4.3, nan)
    """
    if error is None:
        return math.nan
    side = (1 + _LEVEL) / 2
    factor = stats.norm.ppf(side) if repetitions is None else stats.t.ppf(side, repetitions - 1)
    return float(factor * error)


def observed_kind(preprocessing: str, likelihood: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of log p(x); likelihoods of different kinds are not comparable.

    Args:
        preprocessing: name of the preprocessing.
        likelihood: the likelihood's name and options.

    Returns:
        The preprocessing, and ``"probability"`` or ``"density"``, or for a mixed likelihood which
        columns have probabilities.

    Example:
        >>> observed_kind("grey", {"name": "laplace"})
        ('grey', 'density')
        >>> observed_kind("none", {"name": "mixed", "binary": [2]})
        ('none', 'density with a probability of columns [2]')
    """
    if likelihood["name"] in _PROBABILITIES:
        return preprocessing, "probability"
    columns = [int(one) for key in _DISCRETE for one in likelihood.get(key) or ()]
    whose = f" with a probability of columns {sorted(columns)}" if columns else ""
    return preprocessing, f"density{whose}"


class _Evaluated:
    """A run folder with its evaluation."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = RunFolder.open(path)
        self.config = self.folder.config
        content = read_kept(self.folder)
        if not content:
            raise ValueError(f"{path} is not evaluated; run: dpvae evaluate {shlex.quote(path)}")
        if content["basis"]["run"] not in self.folder.digests():
            raise ValueError(
                f"the evaluation of {path} belongs to a checkpoint that no longer exists; "
                f"evaluate the run again: dpvae evaluate {shlex.quote(path)}"
            )
        self.metrics: dict[str, dict[str, Any]] = content["metrics"]
        self.groups: dict[str, dict[str, Any]] = content["groups"]
        self.data: str = content["basis"]["data"]
        self.per_datum = kept_per_datum(self.folder, content)

    @property
    def observed(self) -> tuple[str, str]:
        return observed_kind(self.config["preprocessing"], self.config["likelihood"])

    @property
    def essential(self) -> dict[str, Any]:
        options = {**ADDED, **self.config}
        return {k: v for k, v in options.items() if not (k in _INCIDENTAL or v is None)}


_Group = Sequence[_Evaluated]


def _evaluated(paths: Sequence[str]) -> list[_Evaluated]:
    """Return evaluated runs of the same data."""
    runs = [_Evaluated(path) for path in paths]
    for run in runs[1:]:
        if run.data != runs[0].data:
            raise ValueError(
                f"runs must have the same data, got {runs[0].config.get('data')} in "
                f"{runs[0].path} and {run.config.get('data')} with other content in {run.path}"
            )
    return runs


def _compared(
    groups: Sequence[_Group],
    value: Callable[[_Group, str], tuple[float, float] | None],
    difference: Callable[[str, _Group, _Group], Difference | None],
) -> Comparison:
    """Return a comparison of groups of runs with the first of them, without titles."""
    first = groups[0]
    metrics = dict.fromkeys(name for group in groups for run in group for name in run.metrics)

    def judged(name: str, other: _Group) -> Difference | None:
        if name in _DENSITIES and first[0].observed != other[0].observed:
            return None
        found = difference(name, first, other)
        measured = [run.metrics[name] for run in (*first, *other) if name in run.metrics]
        shares = [metric["settings"].get("pareto_k_above_0.7", 0.0) for metric in measured]
        if found is None or max(shares) <= _UNRELIABLE:
            return found
        return replace(found, reliable=False)

    return Comparison(
        [],
        {name: [value(group, name) for group in groups] for name in metrics},
        {name: [judged(name, other) for other in groups[1:]] for name in metrics},
        differing([group[0].config for group in groups]),
        [[run.path for run in group] for group in groups],
    )


def _left_out(first: _Evaluated, other: _Evaluated) -> dict[str, str]:
    """Return the metrics that two runs were measured with in different ways, and in which."""
    reasons: dict[str, str] = {}
    for group in sorted(set(first.groups) & set(other.groups)):
        numbers = [run.groups[group]["numbers"] for run in (first, other)]
        if numbers[0] != numbers[1]:
            ways = ", ".join(
                f"{name} {numbers[0].get(name)} and {numbers[1].get(name)}"
                for name in dict.fromkeys([*numbers[0], *numbers[1]])
                if numbers[0].get(name) != numbers[1].get(name)
            )
            reason = (
                f"{group}: it was measured with {ways} in {first.path} and {other.path}; "
                "evaluate one of them again with the settings of the other"
            )
            reasons |= dict.fromkeys(first.groups[group]["metrics"], reason)
        inputs = [run.groups[group].get("inputs") for run in (first, other)]
        if None not in inputs and inputs[0] != inputs[1] and group != "fid":
            reason = (
                f"{group}: {first.path} was measured with other labels or factors than "
                f"{other.path}; evaluate both again on the same data"
            )
            reasons |= dict.fromkeys(first.groups[group]["metrics"], reason)
    for name in set(first.metrics) & set(other.metrics):
        shown = [run.metrics[name]["settings"].get("images") for run in (first, other)]
        if shown[0] != shown[1]:
            reasons[name] = (
                f"metrics of features: they are of {shown[0]} in {first.path}, and of {shown[1]} "
                f"in {other.path}"
            )
        networks = [run.metrics[name]["settings"].get("network") for run in (first, other)]
        if networks[0] != networks[1]:
            reasons[name] = (
                f"metrics of features: {first.path} has the feature network {networks[0]}, and "
                f"{other.path} {networks[1]}; evaluate both with the same cache folder"
            )
    return reasons


def _run_difference(name: str, first: _Evaluated, other: _Evaluated) -> Difference | None:
    a, b = value_of(first.metrics, name), value_of(other.metrics, name)
    if a is None or b is None:
        return None
    if name in _DENSITIES:
        one, two = (run.per_datum.get(name) for run in (first, other))
        if one is not None and two is not None and len(one) == len(two):
            gaps = (two - one).numpy()
            return _paired(gaps, "paired data")
    return Difference(b[0] - a[0], half_width(math.hypot(a[1], b[1])), "standard errors")


def _of_seeds(group: _Group, name: str) -> Any:
    values = [value_of(run.metrics, name) for run in group]
    known = [value[0] for value in values if value is not None]
    return np.array(known) if len(known) == len(values) else None


def _mean_over_seeds(group: _Group, name: str) -> tuple[float, float] | None:
    values = _of_seeds(group, name)
    return None if values is None else (float(values.mean()), float(stats.sem(values)))


def _seed_difference(name: str, first_group: _Group, group: _Group) -> Difference | None:
    first, other = _of_seeds(first_group, name), _of_seeds(group, name)
    if first is None or other is None:
        return None
    seeds = [[run.config["seed"] for run in runs] for runs in (first_group, group)]
    if sorted(seeds[0]) == sorted(seeds[1]):
        order = [np.argsort(one) for one in seeds]
        return _paired(other[order[1]] - first[order[0]], "paired seeds")
    result = stats.ttest_ind(other, first, equal_var=False)
    low, high = result.confidence_interval(_LEVEL)
    return Difference(float(other.mean() - first.mean()), float(high - low) / 2, "seeds")


def _paired(gaps: Any, how: str) -> Difference:
    width = half_width(stats.sem(gaps), repetitions=len(gaps))
    return Difference(float(gaps.mean()), width, how)
