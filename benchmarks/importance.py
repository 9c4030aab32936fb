"""The speed of importance sampling: Pyro's, ours, and hand-written PyTorch.

``python -m benchmarks.importance [--quick] [--peers] [--json FILE]`` measures, on one thread and
by processor time, log p(x) of one binary image from 21,000 draws, under an MLP 784-400-400 with
L = 32 and six couplings of two networks of 2 x 256 units. Every variant runs the same networks;
before anything is timed, their values are compared under one seed.

- ``pyro``: ``vectorized_importance_weights`` as it is called, all draws at once, without
  validation: what others are divided by.
- ``pyro_chunked``: the same in chunks of 1000 draws.
- ``eager``, ``compiled``: ``ImportanceSampler``.
- ``bare``, ``bare_compiled``: the mathematics written out in PyTorch, in chunks of 1000 draws, and
  the same under ``torch.compile``.

With ``--peers [--environments FOLDER]`` also other libraries, as ``benchmarks.step`` says, whose
densities at the same latents and estimates are compared:

- ``numpyro``: log p(x, z) - log q(z | x) by NumPyro's ``log_density``, under ``jax.vmap`` and
  ``jax.jit``, in chunks of 1000 draws.
- ``pythae``: ``VAE.get_nll``, in chunks of 1000 draws, which has no other prior than N(0, I), and
  so less to compute.

The peak is that of float32 matrix products: the best of any library at 2048^3 and at the shapes of
the model's layers for a chunk. A fraction of it counts the products of ``bare``, or of pythae's
own. At last come the products of one sample by themselves, in each library.
"""

import argparse
import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pyro
import torch
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._alternate import ratios
from benchmarks._handed import check_terms, hand_over
from benchmarks._peers import Peer, PeerStep, interpreter, one_core
from benchmarks._products import rates
from benchmarks._program import beside_peer, parse, text, write
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


def check(steps: dict[str, Step], base: str) -> None:
    """Refuse variants that give another estimate than the base under one seed."""
    found = {}
    for variant, step in steps.items():
        pyro.set_rng_seed(1)
        found[variant] = float(step())
    for variant, value in found.items():
        if not abs(value - found[base]) <= 1e-2:
            raise AssertionError(f"{variant} differs from {base}: {found}")


def check_peer(step: PeerStep, model: VAE, guide: AmortizedGaussian, x: Tensor) -> None:
    """Refuse a peer whose estimate of log p(x) is not within six standard errors of ours."""
    chunks = ImportanceSampler(model, guide).chunks(x, num_samples=step.arguments["samples"])
    log_weights = torch.cat(list(chunks)).squeeze(1)
    weights = (log_weights - log_weights.max()).exp()
    value = float(log_weights.max() + weights.mean().log())
    error = float(weights.std() / weights.mean()) / math.sqrt(len(weights))
    found = step()
    if not abs(found - value) <= 6 * math.sqrt(2) * error:
        raise AssertionError(f"the peer's log p(x) is {found}, not {value} +- {error}")


def beside_peers(
    model: VAE,
    guide: AmortizedGaussian,
    x: Tensor,
    *,
    sizes: Mapping[str, int],
    environments: Path,
    until: ExitStack,
) -> tuple[dict[str, PeerStep], Peer]:
    """Return the peers' estimates, and the peer that computes products.

    Args:
        model: the model.
        guide: the guide.
        x: one image.
        sizes: how many samples, and how many of them in a chunk.
        environments: the folder of the peers' environments.
        until: closes the peers.
    """
    plain = VAE(StandardNormal(guide.encoder.latent_dim), model.decoder)
    folder = Path(until.enter_context(TemporaryDirectory()))
    steps = {}
    for name, one in {"numpyro": model, "pythae": plain}.items():
        path = folder / f"{name}.npz"
        hand_over(one, guide, x, path)
        python = interpreter(name, environments)
        peer = until.enter_context(Peer(python, f"{name}_vae.py", path))
        check_terms(peer.call("terms"), one, guide, x, path)
        steps[name] = PeerStep(peer, "log_evidence", **sizes)
        check_peer(steps[name], one, guide, x)
    python = interpreter("numpyro", environments)
    return steps, until.enter_context(Peer(python, "products.py"))


def product_rates(
    model: VAE, chunk: int, peer: Peer | None
) -> tuple[float, str, dict[str, float]]:
    """Return the best rate of float32 products, its library, and what a sample takes in each.

    Args:
        model: whose linear layers have the shapes, besides 2048^3.
        chunk: the number of samples in a product.
        peer: the script ``products.py``, for NumPy and XLA.

    Returns:
        GFLOP/s, a name, and by library the microseconds of the products of one sample.
    """
    square = rates(torch.randn(2048, 2048), torch.randn(2048, 2048), peer=peer, seconds=0.0)
    best = [(rate, library) for library, rate in square.items()]
    counts = Counter((layer.in_features, layer.out_features) for layer in linear(model))
    times = dict.fromkeys(square, 0.0)
    for (k, n), count in counts.items():
        measured = rates(torch.randn(chunk, k), torch.randn(n, k).T, peer=peer, seconds=0.0)
        for library, rate in measured.items():
            best.append((rate, library))
            times[library] += 2e-3 * k * n * count / rate
    return *max(best), times


def linear(module: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a module."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def flops(step: Step) -> int:
    """Return the number of operations in the matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    """Measure, print and write."""
    options = parse(
        "importance",
        quick="a glance without compiled, for a test of this program",
        peers="NumPyro and pythae",
    )
    with ExitStack() as until:
        if options.peers:
            until.enter_context(one_core())
        measure(options, until)


def measure(options: argparse.Namespace, until: ExitStack) -> None:
    """Measure, print and write; peers run until the end of a block."""
    torch.set_num_threads(1)
    samples, chunk = (200, 100) if options.quick else (21_000, CHUNK)
    rounds, seconds = (2, 0.0) if options.quick else (15, 0.0)
    model, guide, batch = build("mlp")
    system = model, guide, batch[:1]
    steps: dict[str, Step] = {"eager": ours(*system, samples, compiled=False)}
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
    counts = dict.fromkeys([*steps, "numpyro"], flops(steps["bare"]))
    layers = [*linear(guide.encoder), *linear(model.decoder)]
    counts["pythae"] = 2 * samples * sum(layer.weight.numel() for layer in layers)
    products = None
    if options.peers:
        sizes = {"samples": samples, "chunk": chunk}
        given = {"environments": options.environments, "until": until}
        peers, products = beside_peers(*system, sizes=sizes, **given)
        steps |= peers
    before = product_rates(model, chunk, products)
    measured = ratios(steps, base="pyro", rounds=rounds, seconds=seconds, clock=time.process_time)
    after = product_rates(model, chunk, products)
    peak, library, _ = max(before, after, key=lambda found: found[0])
    times = {name: round(min(before[2][name], after[2][name]), 1) for name in after[2]}
    for variant, found in measured.items():
        duration = found["milliseconds"] / 1000
        found["samples_per_second"] = round(samples / duration)
        found["gemm_fraction"] = round(1e-9 * counts[variant] / duration / peak, 3)
        print(
            f"{variant:14}{text(found)}{beside_peer(found, measured)}"
            f"{found['samples_per_second']:8} samples/s{1e-9 * counts[variant] / duration:7.1f} "
            f"GFLOP/s, {found['gemm_fraction']:.0%} of the peak"
        )
    alone = ", ".join(f"{time} µs in {name}" for name, time in times.items())
    print(f"peak {peak:.1f} GFLOP/s, of {library}; memory {rss:.0f} MB")
    print(f"the products of a sample, alone: {alone}")
    results = {"mlp": measured, "gemm_peak_gflops": round(peak, 1), "rss_mb": round(rss)}
    results["products_microseconds"] = times
    write(results, options=options)


if __name__ == "__main__":
    main()
