"""How many runs of the dpVAE recipes ignore their latents at first, by their initial weights.

A stalled VAE decodes every z to the mean of the data, and its rate is near 0. This study trains
the recipes of images for 300 steps at a learning rate of 1e-3, with He's initial weights, which
the recipes have, and with PyTorch's own, and counts the runs whose rate on 500 held-out data is
below 0.5 nats.

    DPVAE_DATA=<root of data> python -m papers.starts --data mnist --json FILE

Each run takes about 20 seconds on one core, and all 72 of a data set about 25 minutes. Results go
to the file run by run: what it holds is not done again. ``--table FILE`` prints the table of a
file.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path

from torch import nn

from papers import grid
from pyro_dpvae._bars import bar
from pyro_dpvae._files import write_whole
from pyro_dpvae.evaluation.table import markdown_table
from pyro_dpvae.recipes import REGULARIZERS, RunConfig, dpvae_recipe
from pyro_dpvae.recipes.training import prepare
from pyro_dpvae.training import evaluate_elbo

STEPS, SEEDS, HELD_OUT, LEAST_RATE = 300, 3, 500, 0.5
DATA = {"mnist": "mnist", "fashion-mnist": "mnist", "svhn-10k": "svhn"}
FILES = {"svhn-10k": "svhn_10k.npz"}
STARTS = ("he", "pytorch")


def rate_after(data: str, regularizer: str, decoupled: bool, start: str, seed: int) -> float:
    """Train a recipe, and return its rate on held-out data, in nats per datum."""
    recipe = dpvae_recipe(DATA[data], regularizer, decoupled=decoupled)
    options = {
        "data": grid.source_of(FILES.get(data, data)),
        "steps": STEPS,
        "learning_rate": 1e-3,
        "seed": seed,
    }
    config = RunConfig.from_recipe(recipe, **options, device="cpu", log_every=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(config, out=f"{folder}/run")
        system = run.system
        if start == "pytorch":
            for module in (*system.guide.modules(), *system.model.decoder.modules()):
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    module.reset_parameters()
        run.fit(progress=False)
        x = list(islice(run.batches[1].epoch(0), HELD_OUT // run.batches[1].batch_size))
        return evaluate_elbo(system.model, system.guide, x)["rate"]


def table(found: dict[str, float]) -> str:
    """Return the numbers of runs below the least rate, for each start and prior."""
    rows = [["data", "initial weights", "prior", "runs", "stalled", "lowest rate"]]
    for data, start, prior in product(DATA, STARTS, ("standard", "coupling")):
        rates = [rate for key, rate in found.items() if key.startswith(f"{data} {start} {prior} ")]
        if rates:
            stalled = sum(rate < LEAST_RATE for rate in rates)
            numbers = str(len(rates)), str(stalled), f"{min(rates):.2f}"
            rows.append([data, start, prior, *numbers])
    return markdown_table(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the missing runs, or print the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m papers.starts", description=__doc__)
    parser.add_argument("--data", choices=list(DATA), default="mnist")
    parser.add_argument("--json", type=Path, help="file of the results")
    parser.add_argument("--table", type=Path, help="print the table of this file")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(table(json.loads(options.table.read_bytes())))
        return 0
    if options.json is None:
        parser.error("give --json FILE for the results, or --table FILE to print them")
    found = json.loads(options.json.read_bytes()) if options.json.exists() else {}
    cases = list(product(range(SEEDS), REGULARIZERS, ("standard", "coupling"), STARTS))
    for seed, regularizer, prior, start in bar(cases, unit="run"):
        key = f"{options.data} {start} {prior} {regularizer} {seed}"
        if key not in found:
            found[key] = rate_after(options.data, regularizer, prior == "coupling", start, seed)
            write_whole(options.json, json.dumps(found, indent=2).encode())
    print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
