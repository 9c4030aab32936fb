"""The slow study of guides against true posteriors, computed on a grid: three models, three seeds.

Run by name, its tables on standard output: ``pytest -m slow -s tests/test_study_posteriors.py``.
With ``DPVAE_PICTURES`` set to a folder, the picture of seed 0 is written there.
"""

import os
import statistics
from functools import cache
from pathlib import Path

import pytest
from tqdm import tqdm

from papers.posteriors.figure import posteriors_figure
from papers.posteriors.study import POSTERIOR_MODELS, PosteriorResult, measure_posteriors

STEPS = {"curved": 500, "curved, coupling prior": 500, "folded": 1000}
SEEDS = range(3)
DRAWN = {
    "curved": ("amortized", "Laplace, T = 1", "Laplace, T = 4"),
    "curved, coupling prior": ("amortized", "Laplace, T = 1", "Laplace, T = 4"),
    "folded": ("amortized", "recursive mixture of 2", "recursive mixture of 3"),
}


@cache
def study(name: str) -> list[PosteriorResult]:
    seeds = tqdm(SEEDS, desc=name)
    results = [measure_posteriors(name, steps=STEPS[name], seed=seed) for seed in seeds]
    print(f"\n| {name} | mean | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " |")
    print("|---" * (2 + len(SEEDS)) + "|")
    for guide in POSTERIOR_MODELS[name]:
        cells = " | ".join(str(result.kl[guide]) for result in results)
        print(f"| {guide} | {mean(results, guide):.3f} | {cells} |")
    return results


def mean(results: list[PosteriorResult], guide: str) -> float:
    return statistics.fmean(result.kl[guide].value for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curved", "curved, coupling prior"])
def test_each_laplace_step_brings_the_guide_closer(name: str) -> None:
    results = study(name)
    amortized, one, four = (mean(results, guide) for guide in POSTERIOR_MODELS[name])
    assert four < one < amortized


@pytest.mark.slow
def test_a_mixture_beats_one_component_where_the_posterior_has_two_modes() -> None:
    results = study("folded")
    one = mean(results, "amortized")
    for components in (2, 3):
        assert mean(results, f"recursive mixture of {components}") < 0.75 * one


@pytest.mark.slow
def test_the_picture_shows_the_first_seed(tmp_path: Path) -> None:
    results = {name: study(name)[0] for name in DRAWN}
    picture = Path(os.environ.get("DPVAE_PICTURES", tmp_path), "posteriors.png")
    posteriors_figure(results, guides=DRAWN).savefig(picture, dpi=110)
    assert picture.stat().st_size > 50_000
