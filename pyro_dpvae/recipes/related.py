"""The related systems of other papers, each under its own prior and under a decoupled one."""

from pyro_dpvae.recipes.recipe import Recipe

__all__ = ["RELATED"]

_LADDER = Recipe(
    "variational ladder autoencoder: latents at several depths, independent N(0, I)",
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
    {
        "model": "Zhao, Song, Ermon (2017), section 4.2; layers and networks from their code",
        "prior": "Zhao, Song, Ermon (2017)",
        "likelihood": "their code: absolute errors of weight 8",
        "objective": "their code: weight 1 - exp(-t / 2000) of the rate",
        "batch_size": "their code",
        "learning_rate": "their code",
    },
)

_OWN = "no source has it; ours"

_CLUSTERS = Recipe(
    "variational ladder clustering: the ladder with a Gaussian mixture at each layer",
    {
        "model": {"name": "clustering-ladder"},
        "prior": {"name": "mixture", "components": 30, "uniform": True},
        "likelihood": {"name": "bernoulli"},
        "preprocessing": "binary-dynamic",
        "network": {"name": "ladder-mlp", "latent_dims": [5, 10], "width": 256, "depth": 1},
        "objective": {
            "name": "beta",
            "beta": 1.0,
            "schedule": {"beta": {"name": "delayed", "start": 0.01, "steps": 500}},
        },
        "cluster_step": 500,
        "batch_size": 100,
        "learning_rate": 1e-3,
    },
    {
        "model": "Willetts, Roberts, Holmes (2019)",
        "prior.name": "Willetts, Roberts, Holmes (2019)",
    },
    {
        "prior": _OWN,
        "likelihood": _OWN,
        "preprocessing": _OWN,
        "network": _OWN,
        "objective": "no source has it; little weight on the rate until clusters are put in place",
        "cluster_step": "no source has how q(y) comes about; from k-means after 500 steps, as the "
        "clusters of Falck et al. (2021) start from a fitted mixture",
        "batch_size": _OWN,
        "learning_rate": _OWN,
    },
)

_CHEN = "Chen et al. (2017)"
_RESIDUAL = "the paper's are larger; the residual ones of this library"

_LOSSY = Recipe(
    "variational lossy autoencoder: a decoder that sees the pixels before, a flow as prior",
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
    {
        "model.name": _CHEN,
        "latent_dim": f"{_CHEN}, appendix",
        "prior": f"{_CHEN}, appendix: 4 mean-only steps of 640 units",
        "likelihood": _CHEN,
        "preprocessing": _CHEN,
        "pixels": f"{_CHEN}, appendix: 6 masked layers of 12 filters",
        "objective": f"{_CHEN}: 0.01 free nats per data dimension, 7.84 in all",
    },
    {
        "model.channels": "no source has it; 4 maps of features",
        "network": _RESIDUAL,
        "batch_size": _OWN,
        "learning_rate": f"Adam at 1e-3, where {_CHEN} has Adamax at 2e-3 (optimizer=adamax)",
    },
)

_MA = "Ma, Zhou, Hovy (2019) and their code"

_MAE = Recipe(
    "mutual-divergence autoencoder: a strong decoder whose posteriors are held apart",
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
            "width": 24,
            "kernels": [7, 7, 7, 5, 5, 3, 3],
            "tied": False,
        },
        "objective": {"name": "mae", "eta": 1.0, "gamma": 0.01},
        "batch_size": 100,
        "learning_rate": 1e-3,
    },
    {
        "model": _MA,
        "latent_dim": _MA,
        "prior": f"{_MA}: 8 affine steps of 320 units",
        "likelihood": _MA,
        "preprocessing": _MA,
        "pixels": f"{_MA}: the small pixel network",
        "objective.name": _MA,
    },
    {
        "pixels.width": "24 channels where the paper has 64, with which a step of 100 images "
        "takes 6 seconds on a CPU core; --override pixels.width=64",
        "network": _RESIDUAL,
        "objective": "the paper's weights are not in its public text; 1 and 0.01 are those of a "
        "published reproduction",
        "batch_size": _OWN,
        "learning_rate": _OWN,
    },
)

_PARK = "Park, Kim, Kim (2019) and their code"

_LAPLACE = Recipe(
    "variational Laplace autoencoder: a Gaussian at the mode of p(z | x)",
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
    {
        option: _PARK
        for option in (
            "latent_dim",
            "prior",
            "likelihood",
            "network",
            "guide",
            "objective",
            "batch_size",
            "learning_rate",
        )
    },
)

_MIXTURES = Recipe(
    "recursive mixture: components of q(z | x) are added one by one",
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
    {"guide.name": "Kim, Pavlovic (2020)"},
    {
        option: _OWN
        for option in (
            "latent_dim",
            "prior",
            "likelihood",
            "preprocessing",
            "guide",
            "objective",
            "batch_size",
            "learning_rate",
        )
    },
)

RELATED: dict[str, Recipe] = {
    "ladder-vae": _LADDER,
    "ladder-vae-dp": _LADDER.with_prior(
        "ladder autoencoder with a decoupled prior for each layer", name="coupling"
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
        "clustering ladder with a mixture pushed through couplings at each layer",
        name="coupling-mixture",
        components=30,
        uniform=True,
    ),
    "vlae-laplace": _LAPLACE,
    "vlae-laplace-dp": _LAPLACE.with_prior(
        "Laplace autoencoder with a decoupled prior", name="coupling"
    ),
}
"""The six systems, and each as ``...-dp``."""
