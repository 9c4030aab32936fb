"""The speed of importance sampling: Pyro's, ours, and hand-written PyTorch.

``python -m benchmarks.importance [--quick] [--json FILE]`` measures on one thread log p(x) of one
binary image from 21,000 draws, under an MLP 784-400-400 with L = 32 and six couplings of two
networks of 2 x 256 units. Every variant runs the same networks; before anything is timed, their
values are compared under one seed.

- ``pyro``: ``vectorized_importance_weights`` as it is called, all draws at once, without
  validation: what others are divided by.
- ``pyro_chunked``: the same in chunks of 1000 draws.
- ``eager``, ``compiled``: ``ImportanceSampler``.
- ``bare``, ``bare_compiled``: the mathematics written out in PyTorch, in chunks of 1000 draws, and
  the same under ``torch.compile``.
- ``pythae``, if it is installed: ``VAE.get_nll``, in chunks of 1000 draws, which has no other
  prior than N(0, I), and so less to compute.

The peak is that of float32 matrix products: the best of ``torch.mm`` at 2048^3 and at the shapes
of the decoder's layers for a chunk. A fraction of it counts the products of ``bare``, or of
pythae's own.
"""

import math
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec

import pyro
import torch
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._alternate import ratios
from benchmarks._program import parse, write
from benchmarks.step import build
from pyro_dpvae import VAE, AmortizedGaussian, StandardNormal
from pyro_dpvae.importance import ImportanceSampler

CHUNK = 1000

Step = Callable[[], Tensor]


def theirs(model: VAE, guide: AmortizedGaussian, x: Tensor, samples: int, chunk: int) -> Step:
    """Return the estimate by Pyro's function."""

    @torch.no_grad()
    def step() -> Tensor:
        parts = []
        with pyro.validation_enabled(False):
            for _ in range(samples // chunk):
                weights, *_ = vectorized_importance_weights(
                    model, guide, x, num_samples=chunk, max_plate_nesting=1, normalized=False
                )
                parts.append(weights.double().logsumexp(0))
        return torch.stack(parts).logsumexp(0).squeeze() - math.log(samples)

    return step


def ours(model: VAE, guide: AmortizedGaussian, x: Tensor, samples: int, *, compiled: bool) -> Step:
    """Return the estimate by ``ImportanceSampler``."""
    sampler = ImportanceSampler(model, guide, compile=compiled)

    def step() -> Tensor:
        parts = [weights.logsumexp(0) for weights in sampler.chunks(x, num_samples=samples)]
        return torch.stack(parts).logsumexp(0).squeeze() - math.log(samples)

    return step


def bare(
    model: VAE,
    guide: AmortizedGaussian,
    x: Tensor,
    samples: int,
    chunk: int,
    *,
    compiled: bool,
) -> Step:
    """Return the estimate in plain PyTorch on the same networks."""
    encoder, decoder, prior = guide.encoder.network, model.decoder.network, model.prior

    def weigh(mean: Tensor, scale: Tensor) -> Tensor:
        noise = torch.randn(chunk, mean.shape[-1])
        z = mean + scale * noise
        z0, log_det = prior.to_generation(z)
        # log p(z) - log q(z | x), of which the constants of the two Gaussians cancel
        rate = 0.5 * (noise.square() - z0.square()).sum(-1) + scale.log().sum() + log_det
        logits = decoder(z)
        losses = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        return (rate - losses.flatten(1).sum(-1)).double().logsumexp(0)

    if compiled:
        weigh = torch.compile(weigh, options={"fallback_random": True})

    @torch.no_grad()
    def step() -> Tensor:
        mean, log_variance = encoder(x).chunk(2, -1)
        scale = (log_variance / 2).exp()
        parts = [weigh(mean, scale) for _ in range(samples // chunk)]
        return torch.stack(parts).logsumexp(0) - math.log(samples)

    return step


def pythae_step(model: VAE, guide: AmortizedGaussian, x: Tensor, samples: int, chunk: int) -> Step:
    """Return pythae's estimate on the same networks, refused if it is not ours."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import (
        ModelOutput,
    )
    from pythae.models.nn import (
        BaseDecoder,
        BaseEncoder,
    )

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = guide.encoder.network

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_variance = self.network(x).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.decoder.network

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    config = VAEConfig(
        input_dim=tuple(x.shape[1:]),
        latent_dim=guide.encoder.latent_dim,
        reconstruction_loss="bce",
    )
    vae = PythaeVAE(config, encoder=Encoder(), decoder=Decoder())

    @torch.no_grad()
    def step() -> Tensor:
        return torch.tensor(vae.get_nll(x, n_samples=samples, batch_size=chunk))

    plain = VAE(StandardNormal(guide.encoder.latent_dim), model.decoder)
    check({"eager": ours(plain, guide, x, samples, compiled=False), "pythae": step}, "eager")
    return step


def check(steps: dict[str, Step], base: str) -> None:
    """Refuse variants that give another estimate than the base under one seed."""
    found = {}
    for variant, step in steps.items():
        pyro.set_rng_seed(1)
        found[variant] = float(step())
    for variant, value in found.items():
        if not abs(value - found[base]) <= 1e-2:
            raise AssertionError(f"{variant} differs from {base}: {found}")


def gemm_peak(model: VAE, chunk: int) -> float:
    """Return the best rate of float32 matrix products, in GFLOP/s."""
    layers = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
    shapes = [(chunk, layer.in_features, layer.out_features) for layer in layers]
    best = 0.0
    for m, k, n in [(2048, 2048, 2048), *shapes]:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        for _ in range(10):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2e-9 * m * k * n / (time.perf_counter() - start))
    return best


def flops(step: Step) -> int:
    """Return the number of operations in the matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    """Measure, print and write."""
    options = parse("importance", quick="a glance without compiled, for a test of this program")
    torch.set_num_threads(1)
    samples, chunk = (200, 100) if options.quick else (21_000, CHUNK)
    rounds, seconds = (2, 0.0) if options.quick else (15, 0.0)
    model, guide, batch = build("mlp")
    system = model, guide, batch[:1]
    steps = {"eager": ours(*system, samples, compiled=False)}
    if not options.quick:
        steps["compiled"] = ours(*system, samples, compiled=True)
    for step in steps.values():
        step()
    # Of the whole process, compiler included, before other variants take theirs.
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    steps["bare"] = bare(*system, samples, chunk, compiled=False)
    if not options.quick:
        steps["bare_compiled"] = bare(*system, samples, chunk, compiled=True)
    steps["pyro"] = theirs(*system, samples, samples)
    steps["pyro_chunked"] = theirs(*system, samples, chunk)
    check(steps, "pyro")
    counts = dict.fromkeys(steps, flops(steps["bare"]))
    if find_spec("pythae") is None:
        print("pythae is not installed, and so not measured")
    else:
        steps["pythae"] = pythae_step(*system, samples, chunk)
        counts["pythae"] = flops(steps["pythae"])
    peak = gemm_peak(model, chunk)
    measured = ratios(steps, base="pyro", rounds=rounds, seconds=seconds)
    peak = max(peak, gemm_peak(model, chunk))
    for variant, found in measured.items():
        duration = found["milliseconds"] / 1000
        found["samples_per_second"] = round(samples / duration)
        found["gemm_fraction"] = round(1e-9 * counts[variant] / duration / peak, 3)
        print(
            f"{variant:14}{found['ratio']:.2f} [{found['q1']:.2f}, {found['q3']:.2f}]"
            f"{found['samples_per_second']:8} samples/s{1e-9 * counts[variant] / duration:7.1f} "
            f"GFLOP/s, {found['gemm_fraction']:.0%} of the peak"
        )
    print(f"peak {peak:.1f} GFLOP/s; memory {rss:.0f} MB")
    results = {"mlp": measured, "gemm_peak_gflops": round(peak, 1), "rss_mb": round(rss)}
    write(results, options=options)


if __name__ == "__main__":
    main()
