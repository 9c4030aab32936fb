"""What the examples share: their options, data, and the loop over them."""

import argparse
from collections.abc import Iterator
from itertools import count, islice

import pyro
from pyro.infer import SVI
from torch import Tensor, nn
from tqdm import tqdm

from pyro_dpvae.data import Batches, load
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training import choose_device


def options(description: str, *, steps: int, data: str = "mnist") -> argparse.Namespace:
    """Return the options of an example."""
    parser = argparse.ArgumentParser(description=description)
    if data == "mnist":
        parser.add_argument("--data", default=data, help="mnist, fashion-mnist ..., or a file")
        parser.add_argument("--root", help="the folder of data sets (default: DPVAE_DATA)")
    parser.add_argument("--steps", type=int, default=steps, help="of training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", default=".", help="the folder of figures")
    parser.add_argument("--smoke-test", action="store_true", help="3 steps, on small data")
    found = parser.parse_args()
    if found.smoke_test:
        found.data, found.steps = "digits", 3
    found.device = choose_device(found.device)
    print(f"device: {found.device}")
    pyro.set_rng_seed(0)
    return found


def images(found: argparse.Namespace, preprocessing: str = "binary-dynamic") -> Batches:
    """Return the training images in batches of 100."""
    data = load(found.data, root=found.root)
    return Batches(data.train, batch_size=100, preprocessing=preprocessing, device=found.device)


def moons(found: argparse.Namespace) -> tuple[Batches, Tensor]:
    """Return training points of two moons in batches of 100, and the held-out ones."""
    data = load("two-moons")
    train = Batches(data.train, batch_size=100, preprocessing="none", device=found.device)
    return train, data.test.to(found.device)


def train(
    model: nn.Module, guide: nn.Module, objective: RegularizedELBO, batches: Batches, *, steps: int
) -> None:
    """Take a number of steps of plain Pyro inference, where the batches are."""
    for module in (model, guide):
        module.to(batches.device).train()
    objective.to(batches.device)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
    for x in tqdm(islice(endless(batches), steps), total=steps, unit="step"):
        svi.step(x)
    for module in (model, guide):
        module.eval()
    terms = {name: round(float(term), 2) for name, term in objective.terms.items()}
    print(f"nats per datum in the last batch: {terms}")


def endless(batches: Batches) -> Iterator[Tensor]:
    """Yield the batches of one pass after another."""
    for epoch in count():
        yield from batches.epoch(epoch)
