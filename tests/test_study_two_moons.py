"""The slow study of two moons: beta-dpVAE against beta-VAE, two betas, five seeds.

Run by name, its table on standard output: ``pytest -m slow -s tests/test_study_two_moons.py``.
"""

import statistics

import pytest
from tqdm import tqdm

from pyro_dpvae.recipes import MoonsResult, measure_moons, train_moons

STEPS, SEEDS = 4000, range(5)


def measure(prior: str, beta: float, seed: int) -> MoonsResult:
    system, data = train_moons(prior, beta=beta, steps=STEPS, seed=seed, progress=False)
    return measure_moons(system, data, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_the_decoupled_prior_fits_the_representation(beta: float) -> None:
    results = {
        prior: [measure(prior, beta, seed) for seed in tqdm(SEEDS, desc=f"{prior}, beta {beta:g}")]
        for prior in ("standard", "coupling")
    }
    print("\n| beta | prior | seed | symmetric KL | distance, prior | distance, low-posterior |")
    print("|---|---|---|---|---|---|")
    for prior, runs in results.items():
        for seed, run in zip(SEEDS, runs, strict=True):
            numbers = (run.symmetric_kl, run.prior_distance, run.low_distance)
            cells = " | ".join(str(number) for number in numbers)
            print(f"| {beta:g} | {prior} | {seed} | {cells} |")

    def mean(prior: str, metric: str) -> float:
        return statistics.fmean(getattr(run, metric).value for run in results[prior])

    for plain, decoupled in zip(results["standard"], results["coupling"], strict=True):
        assert decoupled.symmetric_kl.value < plain.symmetric_kl.value
    for metric in ("prior_distance", "low_distance"):
        print(f"{metric}: {mean('standard', metric):.4f} plain, {mean('coupling', metric):.4f} dp")
        assert mean("coupling", metric) < mean("standard", metric)
