"""A VAE in NumPyro with the networks of an archive: its training steps and importance weights.

``python numpyro_vae.py ARCHIVE`` answers requests, as ``serve.py`` says. The archive (.npz) has
the images ``x``, a draw of ``noise`` per image, and the weights and biases of the layers of
``encoder``, ``decoder`` and, if the prior is decoupled, ``coupling.BLOCK.shift`` and
``coupling.BLOCK.scale``.
"""

import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.handlers import seed
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.util import log_density
from serve import serve

SCANNED = 20
"""How many steps ``lax.scan`` takes in one call."""

Layers = list[tuple[Array, Array]]

archive = dict(np.load(sys.argv[1]))
x = jnp.asarray(archive["x"])
latent_dim = archive["noise"].shape[1]


def layers(name: str) -> Layers:
    """Return the weights (inputs, outputs) and biases of a network of the archive."""
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in archive)
    return [
        (jnp.asarray(archive[f"{name}.{n}.weight"].T), jnp.asarray(archive[f"{name}.{n}.bias"]))
        for n in range(count)
    ]


def perceptron(parameters: Layers, h: Array, activation: str = "relu") -> Array:
    """Return a network's output; the activation stands between its layers."""
    for number, (weight, bias) in enumerate(parameters):
        h = getattr(jax.nn, activation)(h) if number else h
        h = h @ weight + bias
    return h


def network(name: str) -> tuple:
    """Return the functions that ``numpyro.module`` takes."""
    return lambda key, shape: (shape, layers(name)), perceptron


class DecoupledPrior(dist.Distribution):
    """p(z) of z = g^-1(z0), z0 ~ N(0, I), with g a stack of affine couplings."""

    support = dist.constraints.real_vector

    def __init__(self, couplings: list[dict[str, Layers]]) -> None:
        self.couplings = couplings
        super().__init__((), (latent_dim,))

    def log_prob(self, z: Array, intermediates: object = None) -> Array:
        """Return log p(z)."""
        halves = [z[..., : latent_dim // 2], z[..., latent_dim // 2 :]]
        log_det = 0.0
        for block in reversed(range(len(self.couplings))):
            kept, moved = block % 2, 1 - block % 2
            coupling = self.couplings[block]
            shift = jnp.tanh(perceptron(coupling["shift"], halves[kept], "silu"))
            log_scale = jnp.tanh(perceptron(coupling["scale"], halves[kept], "silu"))
            halves[moved] = (halves[moved] - shift) * jnp.exp(-log_scale)
            log_det = log_det - log_scale.sum(-1)
        z0 = jnp.concatenate(halves, -1)
        return dist.Normal(0, 1).log_prob(z0).sum(-1) + log_det


blocks = len({key.split(".")[1] for key in archive if re.match(r"coupling\.", key)})


def prior() -> dist.Distribution:
    """Return p(z): decoupled if the archive has couplings, N(0, I) otherwise."""
    if not blocks:
        return dist.Normal(jnp.zeros(latent_dim), 1).to_event(1)
    initial = [
        {name: layers(f"coupling.{block}.{name}") for name in ("shift", "scale")}
        for block in range(blocks)
    ]
    return DecoupledPrior(numpyro.param("couplings", initial))


def model(x: Array) -> None:
    """Declare p(z) and p(x | z)."""
    decode = numpyro.module("decoder", network("decoder"), (latent_dim,))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior())
        numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)


def posterior(x: Array) -> dist.Distribution:
    """Return q(z | x)."""
    encode = numpyro.module("encoder", network("encoder"), (x.shape[-1],))
    mean, log_variance = jnp.split(encode(x), 2, -1)
    return dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(1)


def guide(x: Array) -> None:
    """Declare q(z | x)."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", posterior(x))


# The latter has the divergence of two Gaussians in closed form.
elbo = Trace_ELBO() if blocks else TraceMeanField_ELBO()
svi = SVI(model, guide, numpyro.optim.Adam(1e-4), elbo)
initial = svi.init(jax.random.key(0), x)
parameters = svi.get_params(initial)
update = jax.jit(svi.update)
states = {"update": initial, "scan": initial}


@jax.jit
def scanned(state: tuple, x: Array) -> tuple:
    """Take many steps in one call."""
    return jax.lax.scan(lambda state, _: svi.update(state, x), state, length=SCANNED)


def take_updates(count: int) -> list[float]:
    """Take steps by one call each, and return their losses."""
    losses = []
    for _ in range(count):
        states["update"], loss = update(states["update"], x)
        losses.append(float(loss))
    return losses


def take_scanned(count: int) -> list[float]:
    """Take at least so many steps under ``lax.scan``, and return their losses."""
    losses: list[float] = []
    while len(losses) < count:
        states["scan"], found = scanned(states["scan"], x)
        losses += found.tolist()
    return losses


def terms() -> dict[str, list[float]]:
    """Return the initial log p(x | z), log p(z) and log q(z | x) at the noise of the archive."""

    @jax.jit
    def evaluate(noise: Array) -> dict[str, Array]:
        with seed(rng_seed=0), numpyro.handlers.substitute(data=parameters):
            q = posterior(x)
            z = q.base_dist.loc + q.base_dist.scale * noise
            decode = numpyro.module("decoder", network("decoder"), (latent_dim,))
            log_p_x = dist.Bernoulli(logits=decode(z)).to_event(1).log_prob(x)
            return {"x": log_p_x, "z": prior().log_prob(z), "q": q.log_prob(z)}

    return {name: values.tolist() for name, values in evaluate(archive["noise"]).items()}


@jax.jit
def log_weights(keys: Array, one: Array) -> Array:
    """Return log p(x, z) - log q(z | x) of the first image for one draw of z per key."""

    def weigh(key: Array) -> Array:
        log_q, trace = log_density(seed(guide, key), (one,), {}, parameters)
        z = trace["z"]["value"]
        return log_density(model, (one,), {}, {**parameters, "z": z})[0] - log_q

    return jax.vmap(weigh)(keys)


keys = iter(jax.random.split(jax.random.key(1), 100_000))


def log_evidence(count: int, samples: int, chunk: int) -> list[float]:
    """Return estimates of log p(x) of the first image."""
    found = []
    for _ in range(count):
        parts = [
            jax.nn.logsumexp(log_weights(jax.random.split(next(keys), chunk), x[:1]))
            for _ in range(samples // chunk)
        ]
        found.append(float(np.logaddexp.reduce(np.array(parts, np.float64))) - math.log(samples))
    return found


if __name__ == "__main__":
    serve(
        {
            "terms": terms,
            "update": take_updates,
            "scan": take_scanned,
            "log_evidence": log_evidence,
        }
    )
