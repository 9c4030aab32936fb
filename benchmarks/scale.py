"""What a run on several GPUs is planned from: measured here, then computed for machines assumed.

    python -m benchmarks.scale

Measured, on one thread of a CPU and in its time: steps of the dpVAE paper's networks for SVHN and
CelebA by batch, their floating-point operations and kernels, the bytes that ranks send in a step,
what terms over all pairs of a batch cost, checkpoints, and the rate at which images are read.
Computed, for the GPU and the network that ``ASSUMED`` describes: the time of a step and of 100,000
steps. No GPU is measured.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._program import parse, write
from pyro_dpvae import BetaTCELBO, InfoELBO
from pyro_dpvae.data import Batches, dataset, load
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.objectives.penalties.latents import Latents, LatentSite
from pyro_dpvae.recipes import System, build_system
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit

SYSTEMS: dict[str, tuple[str, tuple[int, int, int], int]] = {
    # network, shape of an image, latent_dim (the paper gives neither; these are usual)
    "svhn": ("svhn", (3, 32, 32), 32),
    "celeba": ("celeba", (3, 64, 64), 64),
}
BATCH, STEPS, DATA = 50, 100_000, 160_000

ASSUMED = {
    "flops": 10e12,  # a second, of small float32 convolutions: a sixth of an H100's 67e12
    "kernel": 6e-6,  # seconds to launch one of a replayed step
    "bandwidth": 100e9,  # bytes a second between two GPUs of a machine: a quarter of NVLink's
    "message": 40e-6,  # seconds that a message takes beside its bytes
}
RANKS = (1, 2, 4, 8)


def built(name: str, objective: str = "elbo") -> tuple[System, tuple[int, int, int]]:
    """Return a dpVAE of a system's networks, and the shape of its images."""
    network, shape, latent_dim = SYSTEMS[name]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    system = build_system(
        shape,
        latent_dim=latent_dim,
        dataset_size=DATA,
        prior={"name": "coupling"},
        likelihood={"name": "gaussian", "variance": 0.5},
        network={"name": network},
        guide={"name": "amortized"},
        objective={"name": objective},
    )
    return system, shape


def seconds(
    run: Callable[[], object], *, rounds: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Return the median time of a call, after one that warms up.

    It is the processor's, which others that use the machine do not lengthen much.
    """
    run()
    times = []
    for _ in range(rounds):
        start = clock()
        run()
        times.append(clock() - start)
    return median(times)


def steps(name: str, *, quick: bool) -> dict[str, Any]:
    """Return what a step takes, by batch: of 1 to 8 ranks that share 50 data."""
    milliseconds, kernels = {}, 0
    for batch in (4,) if quick else (7, 13, 25, 50):
        system, shape = built(name)
        svi = CapturedSVI(system.model, system.guide, FusedOptim({"lr": 1e-4}), system.objective)
        x = torch.rand(batch, *shape)
        for _ in range(3):
            svi.step(x)
        taken = seconds(lambda svi=svi, x=x: svi.step(x), rounds=1 if quick else 5)
        milliseconds[batch] = 1e3 * taken
        (recorded,) = svi._recordings
        kernels = sum(node.op == "call_function" for node in recorded.recording.graph.graph.nodes)
    system, shape = built(name)
    with FlopCounterMode(display=False) as counter:
        x = torch.rand(BATCH, *shape)
        system.objective.differentiable_loss(system.model, system.guide, x).backward()
    modules = (system.model, system.guide)
    parameters = {id(p): p.numel() for module in modules for p in module.parameters()}
    return {
        "milliseconds": milliseconds,
        "gigaflops_per_datum": counter.get_total_flops() / BATCH / 1e9,
        "kernels": kernels,
        "parameters": sum(parameters.values()),
        **{f"sent_{one}": sent(name, one) for one in ("elbo", "beta-tc", "info")},
    }


@contextmanager
def alone_among(ranks: int) -> Iterator[list[int]]:
    """Be one of several ranks of which no other exists; yields the bytes that are gathered."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    gathered: list[int] = []
    gather = torch.distributed.all_gather

    def counted(parts: list[Tensor], own: Tensor, *more: Any, **options: Any) -> Any:
        gathered.append(own.numel() * own.element_size())
        for part in parts:
            part.copy_(own)
        return None

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    torch.distributed.all_gather = counted
    try:
        yield gathered
    finally:
        torch.distributed.all_gather = gather
        torch.distributed.destroy_process_group()


def sent(name: str, objective: str) -> dict[str, float]:
    """Return the messages of a step's objective and their bytes for each datum of a rank."""
    system, shape = built(name, objective)
    with alone_among(2) as gathered:
        loss = system.objective.across_ranks().differentiable_loss
        loss(system.model, system.guide, torch.rand(BATCH, *shape))
    return {"messages": len(gathered), "bytes_per_datum": sum(gathered) / BATCH}


def pairs(*, quick: bool) -> dict[str, dict[int, float]]:
    """Return the milliseconds of penalties with their gradients, by the batch of all ranks."""
    found: dict[str, dict[int, float]] = {"beta-tc": {}, "info": {}}
    for name, objective in (("beta-tc", BetaTCELBO(6.0, dataset_size=DATA)), ("info", InfoELBO())):
        for batch in (8,) if quick else (50, 100, 200, 400, 800):
            loc = torch.randn(batch, 64, requires_grad=True)
            (penalty,) = objective.penalties

            def run(loc: Tensor = loc, penalty: Any = penalty, batch: int = batch) -> None:
                q = dist.Normal(loc, 0.3 * torch.ones_like(loc)).to_event(1)
                prior = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
                z = q.rsample()
                site = LatentSite("z", q, prior, z, q.log_prob(z), prior.log_prob(z))
                sum(penalty(Latents((site,))).values()).backward()

            found[name][batch] = 1e3 * seconds(run, rounds=1 if quick else 5)
    return found


def checkpoint(name: str, folder: Path) -> dict[str, float]:
    """Return the bytes of a checkpoint and the seconds to write one."""
    system, shape = built(name)
    images = torch.randint(256, (8, *shape), dtype=torch.uint8)
    batches = Batches(images, batch_size=4, preprocessing="grey")
    run = RunFolder.create(folder / name, {"data": name})
    modules = {"model": system.model, "guide": system.guide}
    config = TrainConfig(steps=2, backend="eager")
    parts = {**modules, "objective": system.objective}
    fit(**parts, train=batches, test=batches, config=config, run=run, progress=False)
    last = run.checkpoint("last")
    training = last.training()
    size = last.path.stat().st_size

    def save() -> None:
        run.save(parts, {"step": 3}, training=training)

    return {"bytes": size, "seconds": seconds(save, rounds=3, clock=time.perf_counter)}


def reading(folder: Path, *, quick: bool) -> dict[str, float]:
    """Return how many images a second one process reads: of files, and of a mapped array."""
    count = 20 if quick else 1000
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    found = {}
    for kind, size in (("png", (64, 64)), ("jpg", (64, 64)), ("jpg", (178, 218))):
        place = folder / f"{kind}{size[0]}"
        place.mkdir()
        for number, pixels in enumerate(large):  # smooth, as photographs are
            smooth = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            smooth.save(place / f"{number:04}.{kind}")
        found[f"{kind} {size[0]}x{size[1]}"] = _rate(place)
    np.save(folder / "mapped.npy", rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))
    found["mapped 64x64"] = _rate(folder / "mapped.npy")
    return found


def _rate(path: Path) -> float:
    held, dataset.LARGEST_IN_MEMORY = dataset.LARGEST_IN_MEMORY, 0
    try:
        data = load(path).train
    finally:
        dataset.LARGEST_IN_MEMORY = held
    batches = Batches(data, batch_size=10, preprocessing="grey", workers=0)
    start = time.process_time()
    size = sum(len(x) for x in batches.epoch(0))
    return size / (time.process_time() - start)


def planned(found: dict[str, Any], *, ranks: int, batch: int) -> float:
    """Return the computed seconds of a step on the assumed machine.

    The host launches kernels while the GPU computes, so the longer of the two counts; then come
    the gathering of the objective and the averaging of gradients, each way round all ranks.
    """
    flops = found["gigaflops_per_datum"] * 1e9 * batch / ranks
    compute = max(flops / ASSUMED["flops"], found["kernels"] * ASSUMED["kernel"])
    if ranks == 1:
        return compute
    gathered = found["sent_elbo"]
    moved = gathered["bytes_per_datum"] * batch * (ranks - 1) / ranks
    moved += 2 * 4 * found["parameters"] * (ranks - 1) / ranks
    return compute + moved / ASSUMED["bandwidth"] + (gathered["messages"] + 1) * ASSUMED["message"]


def main() -> None:
    """Measure, compute, print and write."""
    options = parse("scale", quick="few data and one round, to test this program")
    torch.set_num_threads(1)
    results: dict[str, Any] = {"assumed": ASSUMED}
    print("measured on one thread of this CPU")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in SYSTEMS:
            found = steps(name, quick=options.quick)
            results[name] = {**found, "checkpoint": checkpoint(name, folder)}
            print(name, *(f"\n  {key}: {value}" for key, value in results[name].items()))
        results["pairs"] = pairs(quick=options.quick)
        results["images a second"] = reading(folder, quick=options.quick)
    for key in ("pairs", "images a second"):
        print(key, *(f"\n  {name}: {value}" for name, value in results[key].items()))
    print(f"computed, not measured, for a machine assumed as {ASSUMED}")
    results["computed"] = {}
    for name in SYSTEMS:
        for ranks in RANKS:
            for batch in (BATCH, 8 * BATCH, 64 * BATCH):
                step = planned(results[name], ranks=ranks, batch=batch)
                hours = step * STEPS * BATCH / batch / 3600
                results["computed"][f"{name} {ranks} {batch}"] = {"step": step, "hours": hours}
                print(
                    f"  {name:8}{ranks} GPUs, batch {batch:5}: step {1e3 * step:7.2f} ms, "
                    f"{STEPS * BATCH:,} data in {hours:6.2f} h, {batch / step:9,.0f} data/s"
                )
    write(results, options=options)


if __name__ == "__main__":
    main()
