"""A small system on two moons, with a coupling prior."""

from pyro_dpvae.recipes import System, build_system


def moons_system() -> System:
    return build_system(
        (2,),
        latent_dim=2,
        dataset_size=1000,
        prior={"name": "coupling", "blocks": 2},
        likelihood={"name": "gaussian-learned"},
        network={"name": "moons"},
        guide={"name": "amortized"},
        objective={"name": "elbo"},
    )
