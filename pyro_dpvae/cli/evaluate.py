"""``dpvae evaluate RUN``: measure a trained run."""

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae.cli.measuring import measure
from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.evaluation.table import text_table

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Measure a run, keep the metrics in its folder and print them; returns the exit status."""
    saved = opened_run(options)
    metrics = measure(saved, options, source=options.data)
    print(_table(metrics))
    print(f"kept in {saved.folder.path / 'evaluation.json'}")
    return 0


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in metrics.items():
        error = entry["standard_error"]
        spread = "" if error is None else f"+- {error:.4f}"
        shown = ", ".join(f"{key} {_short(value)}" for key, value in entry["settings"].items())
        rows.append([name, f"{entry['value']:.4f}", spread, shown])
    return text_table(rows, align="<><")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
