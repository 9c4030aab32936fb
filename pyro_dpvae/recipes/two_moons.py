"""Two moons, the paper's first picture: one system with either prior, trained and measured."""

from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_dpvae.data import Batches, DataSet, load
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.metrics import Estimate, distance_to_data, low_posterior_samples, symmetric_kl
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.recipes.system import System, build_system
from pyro_dpvae.training import TrainConfig, fit

__all__ = ["MoonsResult", "measure_moons", "train_moons"]

# The paper's figures show thirty; the measurements keep 5 % of their samples.
_LOW = 250
_SAMPLES = 5000


@dataclass(frozen=True)
class MoonsResult:
    """What is drawn and tabled of one system trained on two moons.

    Samples are of shape (count, 2): ``z`` from the prior, ``z_low`` those of least q(z), and
    ``z_data`` from the aggregate posterior; ``z0...`` are their places in generation space, and
    ``x...`` the decoded means of the prior's. ``data`` is what was trained on.
    """

    symmetric_kl: Estimate
    prior_distance: Estimate
    low_distance: Estimate
    z: Tensor
    z_low: Tensor
    z_data: Tensor
    z0: Tensor
    z0_low: Tensor
    z0_data: Tensor
    x: Tensor
    x_low: Tensor
    data: Tensor


def train_moons(
    prior: str, *, beta: float, steps: int, seed: int = 0, progress: bool = True
) -> tuple[System, DataSet]:
    """Train a beta-VAE on two moons with the prior ``standard`` or ``coupling``.

    Networks and latent size are the paper's; the likelihood is a Gaussian of variance 0.01, the
    optimizer Adam at 1e-3 with batches of 100.
    """
    data = load("two-moons")
    pyro.set_rng_seed(seed)
    system = build_system(
        data.item_shape,
        latent_dim=2,
        dataset_size=split_size(data.train),
        prior={"name": prior},
        likelihood={"name": "gaussian", "variance": 0.01},
        network={"name": "moons"},
        guide={"name": "amortized"},
        objective={"name": "beta", "beta": beta},
    )
    train, test = (
        Batches(split, batch_size=100, preprocessing="none", seed=seed)
        for split in (data.train, data.test)
    )
    fit(
        system.model,
        system.guide,
        objective=system.objective,
        train=train,
        test=test,
        config=TrainConfig(steps=steps, seed=seed, evaluate_every=steps),
        device="cpu",  # where the points are, which measure_moons compares it with
        progress=progress,
    )
    return system, data


def measure_moons(system: System, data: DataSet, *, seed: int = 0) -> MoonsResult:
    """Measure how a trained system's prior fits its representations, and what it generates."""
    prior, decoder = system.model.prior, system.model.decoder
    train = data.train
    assert isinstance(train, Tensor)  # two moons are held in memory
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        aggregate = AggregatePosterior.of(system.guide.posterior, [train])
        z = prior().sample((_SAMPLES,))
        z_low = low_posterior_samples(prior, aggregate, num_samples=_SAMPLES, keep=_LOW)
        z_data = aggregate.sample((2000,))
        x, x_low = decoder(z).mean, decoder(z_low).mean
        return MoonsResult(
            symmetric_kl=symmetric_kl(prior, aggregate),
            prior_distance=distance_to_data(x, train),
            low_distance=distance_to_data(x_low, train),
            z=z,
            z_low=z_low,
            z_data=z_data,
            z0=prior.to_generation(z)[0],
            z0_low=prior.to_generation(z_low)[0],
            z0_data=prior.to_generation(z_data)[0],
            x=x,
            x_low=x_low,
            data=train,
        )
