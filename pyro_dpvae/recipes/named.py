"""The systems of the papers by name: options of ``dpvae train``, and where each comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """A system of a paper, as options.

    Attributes:
        title: what it is, in a line.
        source: where its numbers come from, and which are ours.
        options: of ``dpvae train``, as a configuration file has them.
    """

    title: str
    source: str
    options: Mapping[str, Any]

    def with_prior(self, title: str, **prior: Any) -> "Recipe":
        """Return the recipe with another prior."""
        source = f"{self.source} The prior is that of the dpVAE paper, section 4.2."
        return Recipe(title, source, {**self.options, "prior": prior})


_LADDER = Recipe(
    "variational ladder autoencoder: latents at several depths, independent N(0, I)",
    "Zhao, Song, Ermon (2017) and their code: rungs, networks, absolute errors as a Laplace "
    "likelihood of scale 1/8, batch 100, Adam 2e-4, weight 1 - exp(-t / 2000) of the rate.",
    {
        "model": {"name": "ladder"},
        "prior": {"name": "standard"},
        "likelihood": {"name": "laplace", "scale": 0.125},
        "objective": {
            "name": "beta",
            "beta": 1.0,
            "schedule": {"beta": {"name": "saturating", "start": 0.0, "steps": 20_000}},
        },
        "batch_size": 100,
        "learning_rate": 2e-4,
    },
)

_CLUSTERS = Recipe(
    "variational ladder clustering: the ladder with a Gaussian mixture at each rung",
    "Willetts, Roberts, Holmes (2019) for the model. How q(y) comes about and all numbers are "
    "unknown: these are ours. Clusters start from k-means after 500 steps with little weight on "
    "the rate, as those of Falck et al. (2021) start from a fitted mixture.",
    {
        "model": {"name": "clustering-ladder"},
        "prior": {"name": "mixture", "components": 30, "uniform": True},
        "likelihood": {"name": "bernoulli"},
        "preprocessing": "binary-dynamic",
        "network": {"name": "ladder-mlp", "rungs": [5, 10], "width": 256, "depth": 1},
        "objective": {
            "name": "beta",
            "beta": 1.0,
            "schedule": {"beta": {"name": "delayed", "start": 0.01, "steps": 500}},
        },
        "cluster_step": 500,
        "batch_size": 100,
        "learning_rate": 1e-3,
    },
)

_LOSSY = Recipe(
    "variational lossy autoencoder: a decoder that sees the pixels before, a flow as prior",
    "Chen et al. (2017): 64 latents, 4 mean-only steps of 640 units, 6 masked layers of 12 "
    "filters, 0.01 free nats per data dimension (7.84 in all), Adamax 2e-3, for which Adam 1e-3 "
    "stands. The encoder and the decoder of features are the residual ones of this library.",
    {
        "model": {"name": "lossy", "channels": 4},
        "latent_dim": 64,
        "prior": {
            "name": "autoregressive",
            "blocks": 4,
            "hidden": [640, 640],
            "mean_only": True,
        },
        "likelihood": {"name": "bernoulli"},
        "preprocessing": "binary-dynamic",
        "network": {"name": "residual"},
        "pixels": {"name": "masked"},
        "objective": {"name": "free-bits", "threshold": 7.84},
        "batch_size": 100,
        "learning_rate": 1e-3,
    },
)

_MAE = Recipe(
    "mutual-divergence autoencoder: a strong decoder whose posteriors are held apart",
    "Ma, Zhou, Hovy (2019) and their code: 32 latents, 8 affine steps of 320 units, the small "
    "pixel network; the paper's weights are unknown, and 1 and 0.01 those of a reproduction.",
    {
        "model": {"name": "lossy", "channels": 4},
        "latent_dim": 32,
        "prior": {
            "name": "autoregressive",
            "blocks": 8,
            "hidden": [320],
            "mean_only": False,
            "direct": True,
        },
        "likelihood": {"name": "bernoulli"},
        "preprocessing": "binary-dynamic",
        "network": {"name": "residual"},
        "pixels": {
            "name": "masked",
            "width": 64,
            "kernels": [7, 7, 7, 5, 5, 3, 3],
            "tied": False,
        },
        "objective": {"name": "mae", "eta": 1.0, "gamma": 0.01},
        "batch_size": 100,
        "learning_rate": 1e-3,
    },
)

_LAPLACE = Recipe(
    "variational Laplace autoencoder: a Gaussian at the mode of p(z | x)",
    "Park, Kim, Kim (2019) and their code: two hidden layers of 500, 50 latents, T = 4 damped "
    "by 1/2, batch 128, Adam 5e-4.",
    {
        "latent_dim": 50,
        "prior": {"name": "standard"},
        "likelihood": {"name": "gaussian-learned"},
        "network": {"name": "mlp", "hidden": [500, 500]},
        "guide": {"name": "laplace", "steps": 4, "damping": 0.5, "decay": 1.0},
        "objective": {"name": "elbo"},
        "batch_size": 128,
        "learning_rate": 5e-4,
    },
)

_MIXTURES = Recipe(
    "recursive mixture: components of q(z | x) are added one by one",
    "Kim, Pavlovic (2020) for the method; the networks and numbers are ours.",
    {
        "latent_dim": 20,
        "prior": {"name": "standard"},
        "likelihood": {"name": "bernoulli"},
        "preprocessing": "binary-dynamic",
        "guide": {"name": "recursive-mixture", "components": 3},
        "objective": {"name": "elbo"},
        "batch_size": 128,
        "learning_rate": 5e-4,
    },
)

RECIPES: dict[str, Recipe] = {
    "ladder-vae": _LADDER,
    "ladder-vae-dp": _LADDER.with_prior(
        "ladder autoencoder with a decoupled prior for each rung", name="coupling"
    ),
    "lossy-vae": _LOSSY,
    "lossy-vae-dp": _LOSSY.with_prior("lossy autoencoder with a decoupled prior", name="coupling"),
    "mae": _MAE,
    "mae-dp": _MAE.with_prior(
        "mutual-divergence autoencoder with a decoupled prior", name="coupling"
    ),
    "rme": _MIXTURES,
    "rme-dp": _MIXTURES.with_prior("recursive mixture with a decoupled prior", name="coupling"),
    "vlac": _CLUSTERS,
    "vlac-dp": _CLUSTERS.with_prior(
        "clustering ladder with a mixture pushed through couplings at each rung",
        name="coupling-mixture",
        components=30,
        uniform=True,
    ),
    "vlae-laplace": _LAPLACE,
    "vlae-laplace-dp": _LAPLACE.with_prior(
        "Laplace autoencoder with a decoupled prior", name="coupling"
    ),
}
"""The recipes by the names of the command line."""
