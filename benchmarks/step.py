"""The time of a training step: ours, stock Pyro's, and hand-written PyTorch.

``python -m benchmarks.step [--quick] [--json FILE]`` measures on one thread. Every variant trains
the same networks with the same objective; before anything is timed, their losses are compared
under one seed.

- ``bare``: the mathematics written out in PyTorch, with one fused Adam: what others are
  divided by.
- ``stock``: ``pyro.infer.SVI`` with ``Trace_ELBO`` and ``pyro.optim.Adam``.
- ``stock_fused``: the same with ``FusedOptim``.
- ``eager``: ``pyro.infer.SVI`` with this library's ``ELBO`` and ``FusedOptim``.
"""

import copy
from collections.abc import Callable
from functools import partial

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks._program import parse, report
from pyro_dpvae import ELBO, VAE, AmortizedGaussian, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae.inference import FusedOptim
from pyro_dpvae.likelihoods import Bernoulli
from pyro_dpvae.nn import ARCHITECTURES

SYSTEMS: dict[str, tuple[str, dict[str, object], tuple[int, int, int], int, int]] = {
    # architecture, options, shape of an image, latent_dim, batch
    "mlp": ("mlp", {"hidden": (400, 400)}, (1, 28, 28), 32, 100),
    "conv28": ("mnist", {}, (1, 28, 28), 10, 100),
    "conv64": ("celeba", {}, (3, 64, 64), 64, 50),
}
RATE = {"lr": 1e-4}


def build(name: str) -> tuple[VAE, AmortizedGaussian, Tensor]:
    """Return a model and a guide with a coupling prior, and a batch of binary images."""
    pyro.set_rng_seed(0)
    architecture, options, shape, latent_dim, batch = SYSTEMS[name]
    networks = ARCHITECTURES[architecture]
    likelihood = Bernoulli(shape)
    decoder = networks.decoder(latent_dim, likelihood.raw_shape, **options)
    encoder = networks.encoder(shape, 2 * latent_dim, **options)
    model = VAE(CouplingPrior(latent_dim, hidden=(256, 256)), Decoder(decoder, likelihood))
    guide = AmortizedGaussian(GaussianEncoder(encoder))
    return model, guide, torch.bernoulli(torch.rand(batch, *shape))


def bare_step(model: VAE, guide: AmortizedGaussian, x: Tensor) -> Callable[[], Tensor]:
    """Return a step in plain PyTorch on the same networks."""
    parameters = [*model.parameters(), *guide.parameters()]
    optimizer = torch.optim.Adam(parameters, **RATE, fused=True)
    encoder, decoder, prior = guide.encoder.network, model.decoder.network, model.prior

    def step() -> Tensor:
        mean, log_variance = encoder(x).chunk(2, -1)
        scale = (log_variance / 2).exp()
        z = mean + scale * torch.randn_like(mean)
        z0, log_det = prior.to_generation(z)
        # log q(z | x) - log p(z), of which the constants of the two Gaussians cancel
        log_q = -0.5 * ((z - mean) / scale).square().sum(-1) - scale.log().sum(-1)
        rate = log_q + 0.5 * z0.square().sum(-1) - log_det
        distortion = binary_cross_entropy_with_logits(
            decoder(z).reshape(x.shape), x, reduction="sum"
        )
        loss = distortion + rate.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return step


def variants(name: str) -> dict[str, Callable[[], object]]:
    """Return a step of each variant, each with modules of its own."""
    pyro.clear_param_store()
    model, guide, x = build(name)
    made: dict[str, Callable[[], object]] = {}
    optimizers = {
        "stock": (lambda: pyro.optim.Adam(dict(RATE)), Trace_ELBO()),
        "stock_fused": (lambda: FusedOptim(dict(RATE)), Trace_ELBO()),
        "eager": (lambda: FusedOptim(dict(RATE)), ELBO()),
    }
    made["bare"] = bare_step(*copy.deepcopy((model, guide)), x)
    for variant, (optimizer, objective) in optimizers.items():
        pair = copy.deepcopy((model, guide))
        svi = SVI(*pair, optimizer(), loss=objective)

        def step(svi: SVI = svi) -> object:
            return svi.step(x)

        made[variant] = step
    check(made)
    return made


def check(made: dict[str, Callable[[], object]]) -> None:
    """Refuse variants that do not train alike: three steps under one seed."""
    losses = {}
    for variant, step in made.items():
        pyro.set_rng_seed(1)
        losses[variant] = [float(torch.as_tensor(step()).detach()) for _ in range(3)]
    # ELBO takes the entropy of q in closed form, and so has another value and the same gradient.
    for variant in ("stock", "stock_fused"):
        for found, expected in zip(losses[variant], losses["bare"], strict=True):
            if abs(found - expected) > 1e-4 * abs(expected):
                raise AssertionError(f"{variant} does not train as bare does: {losses}")


def main() -> None:
    """Measure, print and write."""
    options = parse("step", quick="a glance, for a test of this program")
    report({name: partial(variants, name) for name in SYSTEMS}, base="bare", options=options)


if __name__ == "__main__":
    main()
