"""The related systems on real data: ladders, clusters, lossy decoders, mutual divergence.

    DPVAE_DATA=<root of data> python -m papers.systems --table TABLE --out FOLDER

``decoupled`` compares each system with its own prior and with the decoupled prior; ``ladders``,
``clusters``, ``lossy`` and ``mae`` compare variants of one system. Each run is a line of ``dpvae
train``, repeated with three seeds, and the table has means, and differences from the row that it
is compared with, paired by seed, with intervals of 95 %. ``systems.md`` in the folder has the
table and the commands. An interrupted command continues when it is given again.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from papers import grid
from papers.dpvae.jobs import Job
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.nn import ARCHITECTURES

__all__ = ["TABLES", "Row", "Table", "jobs_of", "main", "text_of", "without_latents"]

SEEDS = 3


@dataclass(frozen=True)
class Row:
    """A variant of a system.

    Attributes:
        line: options of ``dpvae train``; ``$DPVAE_DATA`` is the root of data.
        steps: the number of training steps.
        beside: the title of the row with which it is compared; its own is none.
    """

    line: str
    steps: int
    beside: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that are measured alike.

    Attributes:
        measurement: what is measured.
        rows: the rows by title.
    """

    measurement: grid.Measurement
    rows: Mapping[str, Row]


def _rows(lines: Mapping[str, str], steps: int, *, data: Mapping[str, str]) -> dict[str, Row]:
    """Return rows of each data set, which are compared with the first one on the same data."""
    return {
        f"{name}, {title}": Row(f"{common} {line}", steps, f"{name}, {next(iter(lines))}")
        for name, common in data.items()
        for title, line in lines.items()
    }


def _pair(recipe: str, steps: int, line: str = "") -> dict[str, Row]:
    """Return the rows of a recipe with its own prior and with the decoupled prior."""
    lines = {"own prior": f"--recipe {recipe}", "decoupled prior": f"--recipe {recipe}-dp"}
    return _rows(lines, steps, data={recipe: f"--data mnist {line}"})


_ARRAYS = {"static MNIST": "mnist_static_binarized", "Omniglot": "omniglot_28x28"}
_NPZ = {name: f"--data $DPVAE_DATA/{file}.npz" for name, file in _ARRAYS.items()}
_SVHN = "--data $DPVAE_DATA/svhn_10k.npz"

_NUMBERS = {
    "elbo": "ELBO, nats",
    "nll": "-log p(x), nats",
    "rate": "rate, nats",
    "skl": "sKL, nats",
}
_WHOLE = {"frechet_domain": "FD"}
_LAYERS = {f"probe_layer_{layer}": f"probe, layer {layer}" for layer in (1, 2, 3)}
_AMOUNTS = {"latent_samples": 5000, "images": 2000, "nll_samples": 500, "nll_data": 200}

_LADDER_MNIST = (
    "--network ladder-mnist --network.width 16 --objective.schedule.beta.steps 2000 "
    "--objective.schedule.beta.time 200"
)
_MIXTURE = "--model vae --prior mixture --prior.components 30 --prior.uniform true"
_LATE_RATE = (
    "--objective beta --objective.beta 1 --objective.schedule.beta delayed "
    "--objective.schedule.beta.start 0.01"
)
_WARM = "--cluster-step 500 --objective.schedule.beta.steps 500"
_WARM_SVHN = "--cluster-step 1500 --objective.schedule.beta.steps 1500"
_GREY = "--preprocessing grey --likelihood gaussian-learned"
_NETWORK = "--network mlp"
_SMALL = "--network mlp --pixels.width 12 --pixels.kernels [7,5,5,5,3]"

TABLES = {
    "decoupled": Table(
        measurement=grid.Measurement(
            groups=("elbo", "nll", "split", "skl", "domain"),
            columns={**_NUMBERS, **_WHOLE},
            amounts=_AMOUNTS,
        ),
        rows={
            **_pair("vlae-laplace", 2000),
            **_pair("rme", 10_000, _NETWORK),
            **_pair("ladder-vae", 6000, _LADDER_MNIST),
            **_pair("vlac", 6000),
            **_pair("mae", 2000, _SMALL),
            **_pair("lossy-vae", 4000, _NETWORK),
        },
    ),
    "ladders": Table(
        measurement=grid.Measurement(
            groups=("elbo", "layers", "probe", "skl"),
            columns={"elbo": "ELBO, nats", **_LAYERS, "probe": "probe", "skl": "sKL, nats"},
            amounts=_AMOUNTS,
        ),
        rows=_rows(
            {
                "N(0, I) at each layer": "--recipe ladder-vae",
                "couplings at each layer": "--recipe ladder-vae-dp",
                "couplings over all layers": "--recipe ladder-vae-dp --model.joint true",
            },
            6000,
            data={
                "MNIST": f"--data mnist {_LADDER_MNIST}",
                "Fashion-MNIST": f"--data fashion-mnist {_LADDER_MNIST}",
            },
        ),
    ),
    "clusters": Table(
        measurement=grid.Measurement(
            groups=("elbo", "layer-clusters"),
            columns={
                "elbo": "ELBO, nats",
                "cluster_accuracy_layer_1": "accuracy, layer 1",
                "cluster_accuracy_layer_2": "layer 2",
                "cluster_accuracy_layer_3": "layer 3",
                "cluster_accuracy_layer_4": "layer 4",
                "cluster_accuracy_joint": "jointly",
            },
        ),
        rows={
            **_rows(
                {
                    "Gaussian-mixture VAE": f"{_MIXTURE} {_LATE_RATE} {_WARM} --network mlp "
                    "--likelihood bernoulli --preprocessing binary-dynamic",
                    "q(y) by a network": "--recipe vlac",
                    "q(y) = p(y given z)": "--recipe vlac --model.assignment posterior",
                    "couplings, q(y) by a network": "--recipe vlac-dp",
                    "couplings, q(y) = p(y given z)": "--recipe vlac-dp --model.assignment "
                    "posterior",
                },
                6000,
                data={"MNIST": "--data mnist"},
            ),
            **_rows(
                {
                    "Gaussian-mixture VAE": f"{_MIXTURE} {_LATE_RATE} --network svhn "
                    "--latent-dim 31",
                    "q(y) = p(y given z)": "--recipe vlac --model.assignment posterior "
                    "--network ladder-svhn --network.width 16 --network.latent_dims [5,5,5,16] "
                    "--prior.components 100",
                },
                6000,
                data={"SVHN": f"{_SVHN} {_GREY} {_WARM_SVHN}"},
            ),
        },
    ),
    "lossy": Table(
        measurement=grid.Measurement(
            groups=("elbo", "nll", "split"),
            columns={name: _NUMBERS[name] for name in ("elbo", "nll", "rate")},
            amounts={"nll_samples": 500, "nll_data": 200},
        ),
        rows={
            **_rows(
                {
                    "no z": "--network papers.systems.without_latents --objective elbo",
                    "factorised decoder": "--model vae --pixels auto --network mlp",
                    "N(0, I)": "--network mlp --prior standard",
                    "autoregressive prior": "--network mlp",
                    "autoregressive prior, no free bits": "--network mlp --objective elbo",
                    "couplings": "--network mlp --prior coupling",
                    "window 4 x 2": "--network mlp --pixels local --pixels.width 16",
                    "window 7 x 4": "--network mlp --pixels local --pixels.width 16 "
                    "--pixels.columns 7 --pixels.rows 4",
                },
                10_000,
                data={
                    name: f"--recipe lossy-vae {_NPZ[name]} --optimizer adamax "
                    "--learning-rate 2e-3 --average-decay 0.998"
                    for name in _NPZ
                },
            ),
        },
    ),
    "mae": Table(
        measurement=grid.Measurement(
            groups=("elbo", "nll", "split", "probe"),
            columns={
                **{name: _NUMBERS[name] for name in ("elbo", "nll", "rate")},
                "probe": "probe",
                "nearest_neighbours": "nearest neighbours",
            },
            amounts=_AMOUNTS,
        ),
        rows=_rows(
            {
                "plain bound": "--objective elbo",
                "free bits, 5 nats": "--objective free-bits --objective.threshold 5",
                **{
                    f"MAE, eta {eta}, gamma {gamma}": f"--objective mae --objective.eta {eta} "
                    f"--objective.gamma {gamma}"
                    for eta in (0.5, 1, 2)
                    for gamma in (0, 0.01, 0.1)
                },
                "MAE, eta 1, gamma 0.01, couplings": "--objective mae --prior coupling",
            },
            2000,
            data={"MNIST": f"--recipe mae --data mnist {_SMALL}"},
        ),
    ),
}
"""The tables by name."""


def without_latents(
    shape: tuple[int, ...], latent_dim: int, raw_shape: tuple[int, ...]
) -> nn.Module:
    """Return networks whose decoder ignores z, so that pixels are all that pixels see."""

    class Nothing(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.new_zeros(*z.shape[:-1], *raw_shape)

    networks = nn.Module()
    networks.encoder = ARCHITECTURES["mlp"].encoder(shape, hidden=(10,))
    networks.decoder = Nothing()
    return networks


def jobs_of(table: Table, out: Path) -> dict[grid.Key, Job]:
    """Return the job of each row and seed; rows follow one another, and so are whole early."""
    found = {}
    for title, row in table.rows.items():
        for seed in range(SEEDS):
            name = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
            line = row.line.replace("$DPVAE_DATA", os.environ.get("DPVAE_DATA", "."))
            found[title, "", seed] = grid.job_of(
                out / "runs" / f"{name}-seed-{seed}",
                (*shlex.split(line), *grid.flags({"steps": row.steps, "seed": seed})),
                steps=row.steps,
                measurement=table.measurement,
            )
    return found


def text_of(
    table: Table, values: grid.Values, jobs: Mapping[grid.Key, Job], spent: grid.Spent
) -> str:
    """Return means over seeds, differences from another row, and the commands."""
    columns = table.measurement.columns
    rows = [["", "steps", *columns.values(), "training, minutes"]]
    for title, row in table.rows.items():
        case, other = (title, ""), (row.beside, "")
        if grid.of_seeds(values, case, next(iter(columns))):
            cells = [grid.beside(values, case, other, column) for column in columns]
            rows.append([title, f"{row.steps:,}", *cells, grid.minutes(jobs, case, spent)])
    lines = [f"dpvae train {row.line} --steps {row.steps}" for row in table.rows.values()]
    return "\n".join([markdown_table(rows), "", "```text", *lines, "```"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and write the table; returns the exit status."""
    return grid.run_study(
        "papers.systems",
        __doc__ or "",
        jobs_of=lambda options: jobs_of(TABLES[options.table], options.out),
        measurement_of=lambda options: TABLES[options.table].measurement,
        text_of=lambda options, *found: text_of(TABLES[options.table], *found),
        arguments=arguments,
        choices={"table": TABLES},
    )


if __name__ == "__main__":
    raise SystemExit(main())
