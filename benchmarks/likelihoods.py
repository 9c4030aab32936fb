"""The likelihood of MNIST under guides of every kind, with one model and one budget.

``DPVAE_DATA=<root of data sets> python -m benchmarks.likelihoods --json FILE`` trains each guide
with each prior and seed for the same number of steps, and estimates log p(x) of held-out images
by importance sampling. Results go to the file run by run: what it holds is not done again, so an
interrupted study goes on where it was, and two processes may share the work with ``--part 0/2``
and ``--part 1/2``, a file for each. ``--table FILE [FILE ...]`` prints the table of files.

Networks are perceptrons of two layers of 500 ReLUs, as in Park, Kim, Kim (2019). With the
Gaussian likelihood of one learned variance, pixels are in [0, 1], not dequantised; the decoder
starts at the mean image and the variance of the training images around it.
"""

import argparse
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_dpvae.data import Batches, load
from pyro_dpvae.likelihoods import GaussianLearnedVarianceLikelihood
from pyro_dpvae.metrics import log_likelihoods
from pyro_dpvae.recipes import System, build_system
from pyro_dpvae.training import TrainConfig, fit

LATENT, WIDTH = 16, 500
PRIORS = ("standard", "coupling")
LIKELIHOODS = {"gaussian-learned": "grey", "bernoulli": "binary-dynamic"}

GUIDES: dict[str, dict[str, Any]] = {
    "amortized": {"name": "amortized"},
    "semi-amortized, T=4": {"name": "semi-amortized", "steps": 4},
    "flow (IAF)": {"name": "flow", "kind": "iaf", "blocks": 4, "hidden": (WIDTH,)},
    **{f"Laplace, T={t}": {"name": "laplace", "steps": t} for t in (1, 2, 4, 8)},
    **{
        f"recursive mixture, {m}": {"name": "recursive-mixture", "components": m}
        for m in (2, 3, 4)
    },
    "mixture, 4": {"name": "recursive-mixture", "components": 4, "recursive": False},
}

_GROWTH = 0.1  # of a run's steps, for each component that grows


def build(guide: str, prior: str, likelihood: str, images: Tensor) -> System:
    """Return a system whose decoder starts at the mean and variance of images, uint8."""
    system = build_system(
        images.shape[1:],
        latent_dim=LATENT,
        dataset_size=len(images),
        prior={"name": prior},
        likelihood={"name": likelihood},
        network={"name": "mlp", "hidden": (WIDTH, WIDTH)},
        guide=GUIDES[guide],
        objective={"name": "elbo"},
    )
    decoder = system.model.decoder
    if isinstance(decoder.likelihood, GaussianLearnedVarianceLikelihood):
        pixels = images[:10_000].flatten(1) / 255
        last = [m for m in decoder.network.modules() if isinstance(m, nn.Linear)][-1]
        last.bias.data.copy_(pixels.mean(0))
        scale = float((pixels - pixels.mean(0)).square().mean().sqrt())
        decoder.likelihood.raw_scale.data.fill_(math.log(math.expm1(scale)))
    return system


def measure(key: tuple[str, str, int], options: argparse.Namespace) -> dict[str, Any]:
    """Train one guide with one prior and seed, and return what it reaches."""
    guide, prior, seed = key
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    data = load("mnist", root=os.environ["DPVAE_DATA"])
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    system = build(guide, prior, options.likelihood, data.train)
    preprocessing = LIKELIHOODS[options.likelihood]
    train = Batches(
        data.train, batch_size=options.batch_size, preprocessing=preprocessing, seed=seed
    )
    test = Batches(
        data.test[: options.test],
        batch_size=min(100, options.test),
        preprocessing=preprocessing,
        shuffle=False,
    )
    choice = GUIDES[guide]
    grown = choice["components"] - 1 if choice.get("recursive", "components" in choice) else 0
    growth = max(1, round(_GROWTH * options.steps))
    config = TrainConfig(
        steps=options.steps - grown * growth,
        growth_steps=growth,
        learning_rate=options.learning_rate,
        seed=seed,
        evaluate_every=options.steps,
        backend=options.backend,
    )
    start = time.monotonic()
    history = fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=train,
        test=test,
        config=config,
        progress=False,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    seconds = time.monotonic() - start
    for module in (system.model, system.guide):
        module.eval()
    batches = [part for x in test.epoch(0) for part in x.split(50)]
    found = log_likelihoods(
        system.model, system.guide, batches, num_samples=options.samples, progress=False
    )
    log_p = found.log_likelihood
    return {
        "guide": guide,
        "prior": prior,
        "seed": seed,
        "log_p": float(log_p.mean()),
        "standard_error": float(log_p.std() / math.sqrt(len(log_p))),
        "elbo": history.held_out["elbo"],
        "seconds": round(seconds),
    }


def table(paths: list[Path]) -> None:
    """Print the results of files as a table in Markdown: mean ± standard deviation over seeds."""
    runs = [run for path in paths for run in json.loads(path.read_text())["runs"]]
    print("| guide | " + " | ".join(f"{p}: log p(x), ELBO (seeds)" for p in PRIORS) + " |")
    print("|---|" + "---|" * len(PRIORS))
    for guide in GUIDES:
        cells = [
            _cell([r for r in runs if (r["guide"], r["prior"]) == (guide, p)]) for p in PRIORS
        ]
        print(f"| {guide} | " + " | ".join(cells) + " |")


def _cell(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return ""
    likelihoods = [run["log_p"] for run in runs]
    count = f" ({len(runs)})"
    spread = f" ± {statistics.stdev(likelihoods):.1f}" if len(runs) > 1 else ""
    bound = statistics.fmean(run["elbo"] for run in runs)
    return f"{statistics.fmean(likelihoods):.1f}{spread}, {bound:.1f}{count}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.likelihoods")
    parser.add_argument("--json", type=Path, help="where results go, and are looked up")
    parser.add_argument("--table", type=Path, nargs="+", help="print the table of these files")
    parser.add_argument("--likelihood", choices=LIKELIHOODS, default="gaussian-learned")
    parser.add_argument("--steps", type=int, default=1000, help="of each run")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=500, help="held-out images")
    parser.add_argument("--samples", type=int, default=500, help="draws of z for each")
    parser.add_argument("--backend", default="fx")
    parser.add_argument("--guides", nargs="+", choices=GUIDES, default=list(GUIDES))
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run, from the i-th")
    return parser.parse_args()


def main() -> None:
    """Run what is missing from the file, and print the table."""
    options = _options()
    if options.table:
        table(options.table)
        return
    if options.json is None or "DPVAE_DATA" not in os.environ:
        raise SystemExit("give --json FILE, and the root of MNIST in DPVAE_DATA")
    torch.set_num_threads(1)
    settings = {
        name: getattr(options, name)
        for name in ("likelihood", "steps", "batch_size", "learning_rate", "test", "samples")
    }
    content: dict[str, Any] = {"settings": settings, "runs": []}
    if options.json.exists():
        content = json.loads(options.json.read_text())
        if content["settings"] != settings:
            raise SystemExit(
                f"a file holds runs of one budget, and {options.json} has {content['settings']}; "
                "give another file"
            )
    index, count = map(int, options.part.split("/"))
    keys = [(g, p, s) for s in range(options.seeds) for p in PRIORS for g in options.guides]
    done = {(run["guide"], run["prior"], run["seed"]) for run in content["runs"]}
    bar = tqdm([key for key in keys[index::count] if key not in done], unit="run")
    for key in bar:
        bar.set_description(f"{key[0]}, {key[1]}, seed {key[2]}")
        content["runs"].append(measure(key, options))
        written = options.json.with_suffix(".part")
        written.write_text(json.dumps(content, indent=1))
        written.replace(options.json)
    table([options.json])


if __name__ == "__main__":
    main()
