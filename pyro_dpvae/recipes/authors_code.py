"""The twelve models of the dpVAE paper as its authors' code configures them for MNIST.

Weights are per datum: what weighs a batch in the code is divided by its size. Squared errors of
weight w are a Gaussian of variance 1 / (2 w).
"""

from collections.abc import Mapping
from typing import Any

from pyro_dpvae.recipes.dpvae import COUPLINGS, REGULARIZERS, dpvae_recipe
from pyro_dpvae.recipes.recipe import Recipe, published

__all__ = ["AUTHORS_CODE"]


def _objective(regularizer: str, found: Mapping[str, Any]) -> dict[str, Any]:
    of_batch = found["batch_size"]
    if regularizer == "beta-vae-b":
        schedule = {"capacity": {"name": "linear", "start": 0.0, "steps": 100_000}}
        capacity = 25 / of_batch
        return {"name": "capacity", "gamma": 15.0, "capacity": capacity, "schedule": schedule}
    if regularizer == "beta-tcvae":
        weights = {"alpha": 1 / of_batch, "beta": 4 / of_batch, "gamma": found["gamma"] / of_batch}
        return {"name": "beta-tc", **weights, "estimator": "stratified"}
    own = {
        "factor-vae": {"gamma": 1000 / of_batch},
        "info-vae": {"lambda_": 1 + 999 / of_batch},
    }
    return {**REGULARIZERS[regularizer].objective, **own.get(regularizer, {})}


def _recipe(regularizer: str, prior: str) -> Recipe:
    code, row = published("authors-code")[regularizer], REGULARIZERS[regularizer]
    found = code[prior]
    source = f"the authors' code, config/{found['file']}.json"
    unknown = {
        "preprocessing": "the code jitters contrast and position of half of the training images, "
        "which the paper's text excludes and this library does not do: images as they are",
        "seed": "the code sets none: 0",
    }
    if "unknown" in code:
        unknown["objective"] = f"{source}; {code['unknown']}"
    options = {
        "data": "mnist",
        "preprocessing": "grey",
        "latent_dim": 2,
        "likelihood": {"name": "gaussian", "variance": 1 / (2 * found["weight"])},
        "network": {"name": "mnist-factor" if regularizer == "factor-vae" else "mnist"},
        "batch_size": found["batch_size"],
        "prior": dict(COUPLINGS) if prior == "decoupled" else {"name": "standard"},
        "guide": {"name": "amortized"},
        "objective": _objective(regularizer, found),
        "learning_rate": found["learning_rate"],
        "steps": found.get("steps", 100_000),
        "seed": 0,
    }
    return Recipe(
        f"{getattr(row, prior)} on mnist, as in the authors' code",
        options,
        {option: source for option in options if option not in unknown},
        unknown,
    )


AUTHORS_CODE: dict[str, Recipe] = {
    dpvae_recipe(
        "mnist", regularizer, decoupled=prior == "decoupled", variant="authors-code"
    ): _recipe(regularizer, prior)
    for regularizer in published("authors-code")
    for prior in ("plain", "decoupled")
}
"""The published configurations, differences between pairs and all."""
