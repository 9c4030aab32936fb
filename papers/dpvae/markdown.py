"""The table as a document in Markdown."""

from collections.abc import Mapping
from typing import Any

from papers.dpvae.words import (
    BESIDE,
    DIFFERENCES,
    column_titles,
    counted,
    notes,
    number,
    verdict_line,
)
from pyro_dpvae.evaluation.table import markdown_table

__all__ = ["as_markdown"]

_COLUMNS = ("fid", "fid_low", "skl", "skl_nearest", "nll", "leakage_-10", "leakage_-1", "probe")
_PAPER = {"fid": "FID", "fid_low": "FID(LP)", "skl": "sKL", "nll": "NLL"}


def as_markdown(table: Mapping[str, Any], command: str) -> str:
    """Return the document.

    Args:
        table: as ``table_of`` returns it.
        command: the command that makes the table.
    """
    study = table["study"]
    settings = [
        f"{study['variant']} recipes of {study['data']}, {study['steps']} steps, "
        f"{counted(study['seeds'], 'seed')}",
        f"overrides {', '.join(study['overrides']) or 'none'}",
        *(f"{name} {count}" for name, count in study["evaluation"].items()),
    ]
    parts = [
        f"# Table 1 on {study['source'] or study['data']}",
        f"{table['paper']}. {'; '.join(settings)}.",
        f"```console\n$ {command}\n```",
        _rows(table),
        "Means over seeds, ± half of the 95 % interval.",
        "## With the decoupled prior minus without",
        _differences(table),
        "## Claims",
        "\n".join(f"- {verdict_line(claim)}" for claim in table["claims"]),
        "## What the numbers are",
        "\n".join(f"- {note}" for note in notes(table)),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(table: Mapping[str, Any]) -> str:
    titles = column_titles(table["study"]["features"])
    beside = BESIDE if any(row["paper"] for row in table["rows"]) else {}
    header, rows = ["model"], [[row["model"]] for row in table["rows"]]
    for column in _COLUMNS:
        header.append(titles[column])
        for cells, row in zip(rows, table["rows"], strict=True):
            cells.append(_mean(row["means"][column]))
        if column in beside:
            header.append(f"paper's {_PAPER[beside[column]]}")
            for cells, row in zip(rows, table["rows"], strict=True):
                cells.append(number((row["paper"] or {}).get(beside[column])))
    return markdown_table([header, *rows])


def _differences(table: Mapping[str, Any]) -> str:
    titles = column_titles(table["study"]["features"])
    rows = [["regularizer", *(titles[name] for name in DIFFERENCES)]]
    for pair in table["pairs"]:
        entries = [pair["differences"][name] for name in DIFFERENCES]
        rows.append([pair["regularizer"], *map(_difference, entries)])
    return markdown_table(rows)


def _difference(entry: Mapping[str, Any]) -> str:
    cell = _known(entry, number(entry["mean"]))
    if entry["low"] is not None:
        cell += f" [{number(entry['low'])}, {number(entry['high'])}]"
    if "gaps" in entry:
        before, after = (number(entry["gaps"][kind]["mean"]) for kind in ("plain", "dp"))
        cell += f" ({before} to {after})"
    return f"{cell} {entry['verdict']}" if "verdict" in entry else cell


def _mean(found: Mapping[str, Any]) -> str:
    cell = _known(found, number(found["mean"]))
    if found["low"] is None:
        return cell
    return f"{cell} ± {number((found['high'] - found['low']) / 2)}"


def _known(found: Mapping[str, Any], cell: str) -> str:
    """Return a cell with the number of known seeds, if some are unknown."""
    return cell if found["known"] == found["of"] else f"{cell} ({found['known']}/{found['of']})"
