"""The related systems on real data: ladders, clusters, lossy decoders, mutual divergence.

``DPVAE_DATA=<root of data sets> python -m benchmarks.systems TABLE --out FOLDER`` trains the runs
of a table by ``dpvae train``, measures them by ``dpvae evaluate``, and prints the table in
Markdown, with the command of each run. A run whose folder is complete is not trained again, and
what is measured is not measured again, so an interrupted study goes on where it was; two processes
may share the runs with ``--part 0/2`` and ``--part 1/2``.
"""

import argparse
import json
import math
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch

from pyro_dpvae.cli import main as dpvae
from pyro_dpvae.runs import RunFolder

MNIST, FASHION = "mnist", "fashion-mnist"


@dataclass(frozen=True)
class Table:
    """Runs that are measured alike.

    Attributes:
        evaluate: options of ``dpvae evaluate``.
        columns: the header of each metric.
        runs: options of ``dpvae train`` by the title of a row.
    """

    evaluate: str
    columns: Mapping[str, str]
    runs: Mapping[str, str]


def _each(data: Mapping[str, str], systems: Mapping[str, str], budget: str) -> dict[str, str]:
    """Return the runs of every system on every data set."""
    return {
        f"{name}, {title}": f"--data {where} {options} {budget}"
        for name, where in data.items()
        for title, options in systems.items()
    }


_LADDERS = {
    "N(0, I) at each layer": "--recipe ladder-vae",
    "couplings at each layer": "--recipe ladder-vae-dp",
    "couplings over all layers": "--recipe ladder-vae-dp --model.joint true",
}
_LADDER_BUDGET = (
    "--network ladder-mnist --network.width 16 --steps 6000 --objective.schedule.beta.steps 2000 "
    "--objective.schedule.beta.time 200"
)
_CLUSTERS = {
    "q(y) by a network": "--recipe vlac",
    "q(y) = p(y given z)": "--recipe vlac --model.assignment posterior",
    "couplings, q(y) by a network": "--recipe vlac-dp",
    "couplings, q(y) = p(y given z)": "--recipe vlac-dp --model.assignment posterior",
}

_STATIC, _OMNIGLOT, _SVHN = (
    f"$DPVAE_DATA/{name}.npz" for name in ("mnist_static_binarized", "omniglot_28x28", "svhn_10k")
)
_FACTORISED = "--recipe lossy-vae --model vae --pixels auto --network mlp"
_LOSSY = {
    "factorised decoder": _FACTORISED,
    "factorised decoder, wide": f"{_FACTORISED} --network.hidden [970,970]",
    "factorised decoder, couplings": f"{_FACTORISED} --prior coupling",
    "masked stack": "--recipe lossy-vae --network mlp",
    "masked stack, couplings": "--recipe lossy-vae-dp --network mlp",
    "window 4 x 2": "--recipe lossy-vae --network mlp --pixels local --pixels.width 16",
}
_MAE = {
    "plain bound": "--recipe mae --objective elbo",
    "MAE": "--recipe mae",
    "MAE, couplings": "--recipe mae-dp",
}
_LAYERS = {f"probe_layer_{layer}": f"probe, layer {layer}" for layer in (1, 2, 3, 4)}

TABLES = {
    "ladders": Table(
        evaluate="--metrics elbo,layers,skl",
        columns={"elbo": "ELBO", **_LAYERS, "skl": "sKL"},
        runs=_each(
            {"MNIST": MNIST, "Fashion-MNIST": FASHION},
            {name: _LADDERS[name] for name in list(_LADDERS)[:2]},
            _LADDER_BUDGET,
        ),
    ),
    "joint-ladder": Table(
        evaluate="--metrics elbo,probe,skl",
        columns={"elbo": "ELBO", "probe": "probe", "skl": "sKL"},
        runs=_each({"MNIST": MNIST}, _LADDERS, _LADDER_BUDGET),
    ),
    "clusters": Table(
        evaluate="--metrics elbo,layer-clusters",
        columns={
            "elbo": "ELBO",
            "cluster_accuracy_layer_1": "accuracy, layer 1",
            "cluster_accuracy_layer_2": "accuracy, layer 2",
            "cluster_accuracy_layer_3": "accuracy, layer 3",
            "cluster_accuracy_layer_4": "accuracy, layer 4",
            "cluster_accuracy_joint": "accuracy, jointly",
            "clusters_used_layer_2": "clusters used, layer 2",
        },
        runs={
            **_each(
                {"MNIST": MNIST},
                _CLUSTERS,
                "--steps 6000 --evaluate-every 6000",
            ),
            **_each(
                {"SVHN": _SVHN},
                {"q(y) = p(y given z)": _CLUSTERS["q(y) = p(y given z)"]},
                "--preprocessing grey --likelihood gaussian-learned --network ladder-svhn "
                "--network.width 16 --network.latent_dims [5,5,5,16] --prior.components 100 "
                "--cluster-step 1500 --objective.schedule.beta.steps 1500 --steps 3000 "
                "--evaluate-every 3000",
            ),
        },
    ),
    "lossy": Table(
        evaluate="--metrics nll --nll-samples 50 --nll-data 200",
        columns={"nll": "-log p(x)", "held_out_elbo": "ELBO", "held_out_rate": "rate"},
        runs={
            **_each({"static MNIST": _STATIC}, _LOSSY, "--steps 2000 --evaluate-every 2000"),
            **_each(
                {"Omniglot": _OMNIGLOT},
                {name: _LOSSY[name] for name in ("factorised decoder", "masked stack")},
                "--steps 2000 --evaluate-every 2000",
            ),
        },
    ),
    "mae": Table(
        evaluate="--metrics nll,probe --nll-samples 50 --nll-data 200",
        columns={
            "nll": "-log p(x)",
            "held_out_elbo": "ELBO",
            "held_out_rate": "rate",
            "probe": "probe",
            "nearest_neighbours": "nearest neighbours",
        },
        runs={
            **_each(
                {"MNIST, reach of 10 pixels": MNIST},
                _MAE,
                "--network mlp --pixels.width 12 --pixels.kernels [7,5,5,5,3] --steps 1000 "
                "--evaluate-every 1000",
            ),
            **_each(
                {"MNIST, reach of 15 pixels": MNIST},
                {name: _MAE[name] for name in ("plain bound", "MAE")},
                "--network mlp --pixels.width 24 --steps 600 --evaluate-every 600",
            ),
        },
    ),
}


def run(title: str, options: str, table: Table, folder: Path) -> dict[str, Any]:
    """Train and measure a run, where that is not done, and return its metrics by name."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    path = folder / name
    if not _complete(path):
        shutil.rmtree(path, ignore_errors=True)
        pyro.clear_param_store()
        line = os.path.expandvars(options)
        if dpvae(["train", *shlex.split(line), "--out", str(path)]):
            raise KeyboardInterrupt
    if dpvae(["evaluate", str(path), *shlex.split(table.evaluate)]):
        raise KeyboardInterrupt
    metrics = json.loads((path / "evaluation.json").read_text())["metrics"]
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["held_out"]
    held_out = {f"held_out_{name}": {"value": value} for name, value in last.items()}
    return {**metrics, **held_out}


def _complete(path: Path) -> bool:
    run = RunFolder(path)
    return run.exists and run.steps()[-1:] == [run.config["steps"]]


def row(title: str, metrics: Mapping[str, Any], table: Table) -> str:
    """Return a row of the table."""
    return f"| {title} | " + " | ".join(_cell(metrics.get(key)) for key in table.columns) + " |"


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    error = entry.get("standard_error")
    digits = 3 if abs(entry["value"]) < 10 else 1
    spread = "" if error is None or math.isnan(error) else f" ± {error:.{digits}f}"
    return f"{entry['value']:.{digits}f}{spread}"


def main() -> None:
    """Run what is missing of a table, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run, from the i-th")
    options = parser.parse_args()
    if "DPVAE_DATA" not in os.environ:
        raise SystemExit("name the root of the data sets in DPVAE_DATA")
    torch.set_num_threads(1)
    table = TABLES[options.table]
    index, count = map(int, options.part.split("/"))
    rows = [
        row(title, run(title, line, table, options.out), table)
        for title, line in list(table.runs.items())[index::count]
    ]
    print("| | " + " | ".join(table.columns.values()) + " |")
    print("|---|" + "---|" * len(table.columns))
    print("\n".join(rows))
    print("\n".join(f"    dpvae train {line}" for line in table.runs.values()))


if __name__ == "__main__":
    main()
