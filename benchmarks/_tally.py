"""What a soak counts, and its table."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["Tally", "table"]


@dataclass
class Tally:
    """What happened to one system.

    Attributes:
        configurations: pairs of runs that were compared.
        kills: by SIGKILL.
        in_writing: of these, while a checkpoint was being written.
        resumes: of runs that had a checkpoint.
        checkpoints: held against their digests, after every kill.
        evaluations: of runs at their end.
        peak: the largest memory that a process had, in MiB.
        failures: what went wrong, in words.
    """

    configurations: int = 0
    kills: int = 0
    in_writing: int = 0
    resumes: int = 0
    checkpoints: int = 0
    evaluations: int = 0
    peak: float = 0.0
    failures: list[str] = field(default_factory=list)


def table(tallies: Mapping[str, Tally], seconds: float) -> str:
    """Return the table in Markdown, with the failures below it."""
    rows = {**tallies, "**all**": _sum(list(tallies.values()))}
    lines = [
        f"Soak of {seconds / 60:.1f} minutes, PyTorch {torch.__version__}, one thread of "
        f"{platform.processor() or platform.machine()}.",
        "",
        "| system | runs compared | kills | in writing | resumes | checkpoints verified "
        "| evaluations | peak memory, MiB | failures |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in rows.items():
        numbers = (
            *(one.configurations, one.kills, one.in_writing, one.resumes, one.checkpoints),
            *(one.evaluations, round(one.peak), len(one.failures)),
        )
        lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    failures = [f"- {failure}" for one in tallies.values() for failure in one.failures]
    return "\n".join([*lines, "", *failures, ""])


def _sum(tallies: list[Tally]) -> Tally:
    whole = Tally()
    for one in tallies:
        for name in ("configurations", "kills", "in_writing", "resumes", "checkpoints"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        whole.evaluations += one.evaluations
        whole.peak = max(whole.peak, one.peak)
        whole.failures += one.failures
    return whole
