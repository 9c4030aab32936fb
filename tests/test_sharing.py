"""Evaluation by several ranks is that of one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_dpvae._ranks import map_over_ranks, on_first_rank, ranks
from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, own_batches
from pyro_dpvae.evaluation import EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.features import AbstractFeatures
from pyro_dpvae.recipes import build_system, open_run
from pyro_dpvae.training import evaluate_elbo
from tests.processes import on_ranks


def test_a_function_of_all_items_is_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    def found(items: range) -> list[tuple[int, float]]:
        def draw(x: Tensor) -> tuple[int, float]:
            return int(x), float(torch.rand(()) + x)

        torch.manual_seed(3)
        own = own_batches([torch.tensor(item) for item in items])
        return [*map_over_ranks(draw, own), (0, float(torch.rand(())))]

    for items in (range(5), range(1), range(0)):
        expected = found(items)
        assert on_ranks(2, lambda items=items: found(items), tmp_path) == [expected, expected]


def test_a_refusal_on_one_rank_is_raised_on_all(tmp_path: Path) -> None:
    def refuse(x: Tensor) -> None:
        if x == 1:
            raise ValueError("not one")

    def refused() -> list[str]:
        found = []
        for run in (
            lambda: map_over_ranks(refuse, own_batches(list(torch.arange(4)))),
            lambda: on_first_rank(lambda: refuse(torch.tensor(1))),
        ):
            with pytest.raises(ValueError, match="not one") as error:
                run()
            found.append(str(error.value))
        return found

    assert on_ranks(2, refused, tmp_path) == [["not one"] * 2] * 2


def test_the_held_out_bound_is_that_of_one_rank(tmp_path: Path) -> None:
    system = build_system(
        (1, 4, 4),
        latent_dim=2,
        dataset_size=50,
        prior={"name": "coupling"},
        likelihood={"name": "bernoulli"},
        network={"name": "mlp"},
        guide={"name": "amortized"},
        objective={"name": "elbo"},
    )
    images = torch.randint(0, 256, (53, 1, 4, 4), dtype=torch.uint8)
    batches = Batches(images, batch_size=10, preprocessing="binary-dynamic", shuffle=False)

    def bound() -> dict[str, float]:
        return evaluate_elbo(system.model, system.guide, batches)

    assert on_ranks(2, bound, tmp_path) == [bound()] * 2


class Flat(AbstractFeatures):
    name, settings = "flat", {}

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def evaluated(run: Path, cache: Path, groups: list[str]) -> tuple[dict[str, Any], Tensor]:
    """Return metrics of a run, and features of its training data and of samples."""
    saved = open_run(run)
    numbers = {"nll_samples": 40, "nll_data": 100, "latent_samples": 200, "images": 600}
    config = EvaluationConfig(**numbers, cache=cache)
    subject = Subject(saved, saved.load_data(), config, progress=False)
    metrics = evaluate_run(subject, groups)
    if not subject.data.is_images:
        return metrics, torch.empty(0)
    torch.manual_seed(0)
    samples = subject.sample_features(Flat(), torch.randn(600, 2), "samples")
    return metrics, torch.cat([samples, subject.reference_features(Flat())])


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (["--data", "digits", "--preprocessing", "dequantised"], ["nll", "split", "probe"]),
        (["--data", "two-moons", "--guide", "flow"], ["elbo", "clusters"]),
        (["--data", "two-moons", "--guide", "recursive-mixture"], ["elbo", "split"]),
    ],
)
def test_an_evaluation_is_that_of_one_rank(
    options: list[str], groups: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small = ["--latent-dim", "2", "--growth-steps", "2", "--steps", "5", "--backend", "eager"]
    assert main(["train", *options, *small, "--out", str(run)]) == 0

    def measured() -> tuple[dict[str, Any], Tensor]:
        return evaluated(run, tmp_path / f"cache-{ranks().count}", groups)

    one, other = on_ranks(2, measured, tmp_path)
    kept = json.loads((run / "evaluation.json").read_text())["metrics"]
    (run / "evaluation.json").unlink()
    metrics, features = measured()
    assert one[0] == other[0] == kept == metrics
    assert torch.equal(one[1], features)
    assert torch.equal(other[1], features)
