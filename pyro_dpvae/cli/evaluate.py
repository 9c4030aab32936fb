"""``dpvae evaluate RUN``: measure a trained run."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae.cli.measuring import measure
from pyro_dpvae.cli.opening import opened_run
from pyro_dpvae.evaluation.compare import half_width
from pyro_dpvae.evaluation.meanings import meaning_of, setting_meaning
from pyro_dpvae.evaluation.metric_rows import folded
from pyro_dpvae.evaluation.numbers import with_interval
from pyro_dpvae.evaluation.table import text_table

__all__ = ["main"]


def main(options: Namespace) -> int:
    """Measure a run, keep the metrics in its folder and print them; returns the exit status."""
    saved = opened_run(options)
    metrics = measure(saved, options, source=options.data)
    if options.json:
        meanings = {name: meaning_of(name) for name in metrics}
        entries = {
            name: {"unit": one.unit or None, "better": one.better or None, **metrics[name]}
            for name, one in meanings.items()
        }
        print(json.dumps(entries, indent=2))
        return 0
    print(_table(metrics))
    report = shlex.join(["dpvae", "report", options.run])
    print(f"kept in {saved.folder.path / 'evaluation.json'}; definitions of the metrics: {report}")
    return 0


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    values = {
        name: [(found["value"], half_width(found["standard_error"]))]
        for name, found in metrics.items()
    }
    shown, note = folded(values)
    rows = [["metric", "value", "unit", "better", "settings"]]
    for name in shown:
        settings = ", ".join(
            f"{key} {_short(value)}" for key, value in metrics[name]["settings"].items()
        )
        meaning = meaning_of(name)
        value = with_interval(*values[name][0], share=meaning.unit == "share")
        rows.append([name, value, meaning.unit, meaning.better, settings])
    used = dict.fromkeys(key for name in shown for key in metrics[name]["settings"])
    words = text_table([[f"  {key}", setting_meaning(key)] for key in used], align="<")
    about = "value ± half its 95 % interval; of a share, value [the ends of its 95 % interval]"
    return "\n".join([text_table(rows, align="<><"), *note, about, "settings:", words])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
