"""The columns of a page's metrics: runs, or groups of seeds, with differences from the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pyro_dpvae.evaluation import Comparison, Difference, compare_runs, compare_seeds
from pyro_dpvae.evaluation.compare import half_width
from pyro_dpvae.evaluation.table import letter
from pyro_dpvae.report.contents import RunContents

__all__ = ["Column", "columns_of_runs", "columns_of_seeds"]


@final
@dataclass(frozen=True)
class Column:
    """A run, or runs that differ in their seeds.

    Attributes:
        label: a letter.
        members: the folders of its runs.
        values: by metric, the value and half its interval of 95 %, NaN where it is not known.
        differences: by metric, the value less that of the first column.
        incomparable: metrics that it has in common with the first, and that do not compare.
    """

    label: str
    members: Sequence[str]
    values: Mapping[str, tuple[float, float]]
    differences: Mapping[str, Difference]
    incomparable: Sequence[str] = ()


def columns_of_runs(runs: Sequence[RunContents]) -> tuple[list[Column], list[str]]:
    """Return a column for each run, and why some do not compare with the first."""
    columns, notes = [], []
    for index, run in enumerate(runs):
        values = {
            name: (entry["value"], half_width(entry["standard_error"]))
            for name, entry in run.metrics.items()
        }
        differences: dict[str, Difference] = {}
        incomparable: list[str] = []
        if index and values and runs[0].metrics:
            try:
                comparison = compare_runs([runs[0].path, run.path])
                differences, incomparable = _against_first(comparison, 1)
            except (ValueError, OSError) as error:
                notes.append(f"{letter(index)} is not compared with A: {error}")
        columns.append(Column(letter(index), [run.path], values, differences, incomparable))
    return columns, notes


def columns_of_seeds(paths: Sequence[str]) -> list[Column]:
    """Return a column for each group of runs that differ in their seeds alone.

    Raises:
        ValueError: if runs do not form such groups, or are not evaluated alike.
    """
    comparison = compare_seeds(paths)
    columns = []
    for index, members in enumerate(comparison.members):
        values = {
            name: (found[0], half_width(found[1], repetitions=len(members)))
            for name, row in comparison.values.items()
            if (found := row[index]) is not None
        }
        differences, incomparable = _against_first(comparison, index) if index else ({}, [])
        columns.append(Column(letter(index), members, values, differences, incomparable))
    return columns


def _against_first(comparison: Comparison, index: int) -> tuple[dict[str, Difference], list[str]]:
    differences, incomparable = {}, []
    for name, row in comparison.differences.items():
        found = row[index - 1]
        if found is not None:
            differences[name] = found
        elif all(comparison.values[name][at] is not None for at in (0, index)):
            incomparable.append(name)
    return differences, incomparable
