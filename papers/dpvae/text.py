"""The table as text for a terminal, at most 120 characters wide."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from papers.dpvae.words import (
    BESIDE,
    DIFFERENCES,
    column_titles,
    notes,
    number,
    verdict_line,
)
from pyro_dpvae.evaluation.table import text_table

__all__ = ["as_text"]

_WIDTH = 119
_SHORT = {"holds": "yes", "does not hold": "no", "undecided": "?"}
_COLUMNS = ("fid", "fid_low", "skl", "skl_nearest", "nll", "leakage_-10", "leakage_-1", "probe")


def as_text(table: Mapping[str, Any]) -> str:
    """Return means over seeds with the paper's numbers in brackets, differences and verdicts."""
    titles = column_titles(table["study"]["features"])
    rows = [["model", *(titles[column] for column in _COLUMNS)]]
    for row in table["rows"]:
        paper = row["paper"] or {}
        beside = {column: paper.get(BESIDE.get(column)) for column in _COLUMNS}
        rows.append([row["model"], *(_cell(row["means"][c], beside[c]) for c in _COLUMNS)])
    differences = [["dp - plain", *(titles[name] for name in DIFFERENCES)]]
    for pair in table["pairs"]:
        entries = [pair["differences"][name] for name in DIFFERENCES]
        differences.append([pair["regularizer"], *map(_difference, entries)])
    return "\n\n".join(
        [
            text_table(rows),
            f"{text_table(differences)}\nyes: the claim holds, no: it does not, ?: undecided",
            _wrapped([verdict_line(claim) for claim in table["claims"]]),
            _wrapped(notes(table)),
        ]
    )


def _cell(found: Mapping[str, Any], paper: float | None) -> str:
    missing = "" if found["known"] == found["of"] else f" {found['known']}/{found['of']}"
    return f"{number(found['mean'])}{missing}" + ("" if paper is None else f" ({paper})")


def _difference(entry: Mapping[str, Any]) -> str:
    missing = "" if entry["known"] == entry["of"] else f" {entry['known']}/{entry['of']}"
    verdict = f" {_SHORT[entry['verdict']]}" if "verdict" in entry else ""
    return f"{number(entry['mean'])}{missing}{verdict}"


def _wrapped(sentences: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(one, _WIDTH, subsequent_indent="  ") for one in sentences)
