"""What mixtures of encoders are worth on MNIST, at 3,000 steps, and what they could be worth.

``DPVAE_DATA=<root of data> python -m papers.posteriors.mixtures --json FILE`` trains one model
with a single encoder and with recursive mixtures of two and three, for the same number of steps,
and measures the bound and log p(x) of held-out images. For the single encoder it also measures the
gap: decoder and prior stand, and q(z) of each image is optimised by itself, a Gaussian and a
mixture of two. Results go to the file run by run: what it holds is not done again.
``--table FILE`` prints the table of a file.
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

from pyro_dpvae.data import Batches, load
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.metrics import log_likelihoods
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.objectives._draws import by_component
from pyro_dpvae.recipes import System, build_system
from pyro_dpvae.training import TrainConfig, evaluate_elbo, fit

STEPS, SEEDS, COMPONENTS = 3000, 3, (1, 2, 3)
LATENT, WIDTH, BATCH, GROWTH = 16, 200, 100, 0.005
BOUND_DATA, LIKELIHOOD_DATA, LIKELIHOOD_DRAWS = 1000, 300, 200
GAP_DATA, GAP_STEPS, GAP_DRAWS = 200, 500, 200


def train(
    components: int, seed: int, *, steps: int, width: int = WIDTH, batch_size: int = BATCH
) -> tuple[System, Batches]:
    """Train a model with a mixture of encoders that grows; growth counts among the steps."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    data = load("mnist", root=os.environ["DPVAE_DATA"])
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    mixture = {"name": "recursive-mixture", "components": components}
    system = build_system(
        data.train.shape[1:],
        latent_dim=LATENT,
        dataset_size=len(data.train),
        prior={"name": "standard"},
        likelihood={"name": "bernoulli"},
        network={"name": "mlp", "hidden": (width, width)},
        guide={"name": "amortized"} if components == 1 else mixture,
        objective={"name": "elbo"},
    )
    options: dict[str, Any] = {"preprocessing": "binary-dynamic"}
    batches = Batches(data.train, batch_size=batch_size, seed=seed, **options)
    test = Batches(data.test[:BOUND_DATA], batch_size=batch_size, shuffle=False, **options)
    growth = max(1, round(GROWTH * steps))
    config = TrainConfig(
        steps=steps - (components - 1) * growth,
        growth_steps=growth,
        seed=seed,
        evaluate_every=steps,
        backend="fx",
    )
    fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=batches,
        test=test,
        config=config,
        progress=False,
    )
    system.model.eval()
    system.guide.eval()
    return system, test


def measure(components: int, seed: int, **budget: int) -> dict[str, Any]:
    """Train one mixture and return what it reaches, in nats per image."""
    start = time.monotonic()
    system, test = train(components, seed, **budget)
    seconds = time.monotonic() - start
    bounds = [evaluate_elbo(system.model, system.guide, test, seed=s) for s in range(3)]
    images = torch.cat(list(test.epoch(0)))[:LIKELIHOOD_DATA]
    found = log_likelihoods(
        system.model,
        system.guide,
        images.split(50),
        num_samples=LIKELIHOOD_DRAWS,
        progress=False,
    )
    run: dict[str, Any] = {
        "components": components,
        "seed": seed,
        "elbo": statistics.fmean(bound["elbo"] for bound in bounds),
        "log_p": float(found.log_likelihood.mean()),
        "effective_components": bounds[0].get("effective_components", 1.0),
        "seconds": round(seconds),
    }
    if components == 1 and seed == 0:
        run["gap"] = gap(system, images[:GAP_DATA])
    return run


def gap(system: System, x: Tensor) -> dict[str, dict[str, float]]:
    """Return the bound of the encoder and of each image's own Gaussian and mixture of two."""
    system.model.requires_grad_(False)
    with torch.no_grad():
        q = system.guide.posterior(x).base_dist
    encoded = DiagonalNormalMixture(q.loc.new_zeros(len(x), 1), q.loc[:, None], q.scale[:, None])
    found = {"encoder": encoded, "own Gaussian": optimised(system.model, encoded, x)}
    start = found["own Gaussian"]
    found["own mixture of 2"] = optimised(
        system.model,
        DiagonalNormalMixture(
            start.logits.repeat(1, 2),
            start.loc.repeat(1, 2, 1) + 0.7 * start.scale * torch.randn(len(x), 2, LATENT),
            start.scale.repeat(1, 2, 1),
        ),
        x,
    )
    with torch.no_grad():
        bounds = {
            name: torch.stack([bound(system.model, q, x) for _ in range(GAP_DRAWS)]).mean(0)
            for name, q in found.items()
        }
    return {
        name: {
            "elbo": float(one.mean()),
            "gain": float((one - bounds["encoder"]).mean()),
            "standard_error": float((one - bounds["encoder"]).std() / math.sqrt(len(x))),
        }
        for name, one in bounds.items()
    }


def optimised(model: AbstractVAE, q: DiagonalNormalMixture, x: Tensor) -> DiagonalNormalMixture:
    """Return a mixture for each image that has climbed the image's own bound by Adam."""
    parts = [nn.Parameter(part.clone()) for part in (q.logits, q.loc, q.scale.log())]
    optimizer = torch.optim.Adam(parts, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GAP_STEPS)
    for _ in range(GAP_STEPS):
        logits, loc, log_scale = parts
        q = DiagonalNormalMixture(logits, loc, log_scale.exp())
        loss = -sum(bound(model, q, x).sum() for _ in range(2))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        schedule.step()
    final = [part.detach() for part in parts]
    return DiagonalNormalMixture(final[0], final[1], final[2].exp())


def bound(model: AbstractVAE, q: DiagonalNormalMixture, x: Tensor) -> Tensor:
    """Return the bound of each image, from a draw of each component."""
    terms = [
        weight * (model.prior().log_prob(z) + model.decoder(z).log_prob(x) - q.log_prob(z))
        for z, weight in by_component(q)
    ]
    return torch.stack(terms).mean(0)


def table(path: Path) -> None:
    """Print the results of a file in Markdown: means over seeds, and gains over one encoder."""
    runs = json.loads(path.read_text())["runs"]
    print("| encoders | ELBO | gain | log p(x) | gain | effective components | seconds |")
    print("|---|---|---|---|---|---|---|")
    alone = {run["seed"]: run for run in runs if run["components"] == 1}
    for components in COMPONENTS:
        own = [run for run in runs if run["components"] == components and run["seed"] in alone]
        if not own:
            continue
        cells = [str(components)]
        for name in ("elbo", "log_p"):
            gains = [run[name] - alone[run["seed"]][name] for run in own]
            cells += [_spread([run[name] for run in own]), _spread(gains)]
        cells.append(f"{statistics.fmean(run['effective_components'] for run in own):.2f}")
        cells.append(f"{statistics.fmean(run['seconds'] for run in own):.0f}")
        print("| " + " | ".join(cells) + " |")
    for run in alone.values():
        for name, one in run.get("gap", {}).items():
            error = one["standard_error"]
            print(f"{name}: ELBO {one['elbo']:.2f}, gain {one['gain']:.2f} ± {error:.2f}")


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):.2f} ± {error:.2f}"


def main() -> None:
    """Run what is missing from the file, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m papers.posteriors.mixtures")
    parser.add_argument("--json", type=Path, help="the file of results, and of what is done")
    parser.add_argument("--table", type=Path, help="print the table of this file")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each run")
    parser.add_argument("--width", type=int, default=WIDTH, help="units of each hidden layer")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="images in a step")
    options = parser.parse_args()
    if options.table:
        table(options.table)
        return
    if options.json is None or "DPVAE_DATA" not in os.environ:
        raise SystemExit("give --json FILE, and the root of MNIST in DPVAE_DATA")
    torch.set_num_threads(1)
    budget = {name: getattr(options, name) for name in ("steps", "width", "batch_size")}
    content: dict[str, Any] = {"budget": budget, "runs": []}
    if options.json.exists():
        content = json.loads(options.json.read_text())
        if content["budget"] != budget:
            raise SystemExit(
                f"a file holds runs of one budget, and {options.json} has {content['budget']}; "
                "give another file"
            )
    done = {(run["components"], run["seed"]) for run in content["runs"]}
    for seed in range(SEEDS):
        for components in COMPONENTS:
            if (components, seed) in done:
                continue
            content["runs"].append(measure(components, seed, **budget))
            print(content["runs"][-1], flush=True)
            written = options.json.with_suffix(".part")
            written.write_text(json.dumps(content, indent=1))
            written.replace(options.json)
    table(options.json)


if __name__ == "__main__":
    main()
