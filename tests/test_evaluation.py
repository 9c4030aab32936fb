"""Evaluation, comparison and pictures of trained runs, from the command line."""

import csv
import dataclasses
import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from pyro_dpvae.cli import main
from pyro_dpvae.evaluation import (
    GROUPS,
    EvaluationConfig,
    Subject,
    compare_runs,
    compare_seeds,
    evaluate_run,
    numbers_of,
)
from pyro_dpvae.evaluation.compare import differing, half_width
from pyro_dpvae.evaluation.evaluate import _spread
from pyro_dpvae.evaluation.kept import read_kept
from pyro_dpvae.evaluation.meanings import setting_meaning
from pyro_dpvae.evaluation.numbers import share_interval
from pyro_dpvae.importance import ImportanceSampler, log_mean_exp, log_weights
from pyro_dpvae.metrics.estimate import share_estimate
from pyro_dpvae.plots import LatentSpace, latent_figure, traversal_figure
from pyro_dpvae.plots.samples import image_grid
from pyro_dpvae.recipes import open_run
from pyro_dpvae.recording.graph import Recording
from pyro_dpvae.runs import RunFolder

QUICK = ["--nll-samples", "60", "--nll-data", "40", "--latent-samples", "300", "--images", "120"]


def train(folder: Path, name: str, *arguments: str, steps: int = 30) -> Path:
    out = folder / name
    few = ["--steps", str(steps), "--backend", "eager"]  # to record takes longer than they do
    assert main(["train", *arguments, *few, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on two moons of two priors and two seeds, and one on images."""
    folder = tmp_path_factory.mktemp("runs")
    for prior in ("standard", "coupling"):
        for seed in ("0", "1"):
            arguments = ["--data", "two-moons", "--prior", prior, "--latent-dim", "2"]
            train(folder, f"{prior}-{seed}", *arguments, "--seed", seed)
    images = ["--data", "digits", "--prior", "coupling", "--latent-dim", "3"]
    train(folder, "digits", *images, "--network", "mlp")
    return folder


def evaluate(run: Path, *arguments: str) -> int:
    return main(["evaluate", str(run), *QUICK, "--cache", str(run.parent / "cache"), *arguments])


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> Path:
    for run in sorted(folder.iterdir()):
        if (run / "config.json").exists():
            assert evaluate(run) == 0
    return folder


def test_the_file_holds_every_applicable_metric(evaluated: Path) -> None:
    moons, digits = metrics_of(evaluated / "coupling-0"), metrics_of(evaluated / "digits")
    common = {
        "elbo",
        "nll",
        "skl",
        "skl_halves",
        "skl_nearest",
        "leakage_-90",
        "leakage_conditional_-1",
    }
    common |= {"mutual_information", "total_correlation", "active_units", "probe", "cluster_nmi"}
    assert common | {"distance", "distance_low_posterior"} <= set(moons)
    of_features = {"frechet_domain", "frechet_low_posterior_domain", "kernel_domain"}
    assert common | of_features | {"precision_domain", "recall_domain"} <= set(digits)
    assert not of_features & set(moons)
    assert "fid" not in digits
    for entry in [*moons.values(), *digits.values()]:
        assert set(entry) == {"value", "standard_error", "settings"}
        assert math.isfinite(entry["value"])
    network = digits["frechet_domain"]["settings"]["network"]
    assert network.startswith("digits-classifier-")
    assert digits["nll"]["settings"]["samples"] == 60
    assert digits["nll"]["settings"]["data"] == 40


def test_the_likelihood_is_of_held_out_data_from_all_over_the_split(evaluated: Path) -> None:
    run = evaluated / "coupling-0"
    saved = open_run(run)
    x = torch.cat(list(saved.batches(saved.load_data().test).epoch(0)))
    x = x[[k * len(x) // 40 for k in range(40)]]
    torch.manual_seed(1)
    weights = log_weights(saved.system.model, saved.system.guide, x, num_samples=3000)
    kept = RunFolder(run).read_tensors("evaluation.safetensors")["nll"]
    assert kept.shape == (40,)
    torch.testing.assert_close(-kept, log_mean_exp(weights), rtol=0, atol=1.5)
    found = metrics_of(run)["nll"]
    assert found["value"] == pytest.approx(float(kept.mean()))
    assert found["standard_error"] == pytest.approx(float(kept.std()) / math.sqrt(40))


def test_the_data_of_likelihoods_are_evenly_spaced_and_none_comes_twice(folder: Path) -> None:
    saved = open_run(folder / "coupling-0")
    subject = Subject(saved, saved.load_data(), EvaluationConfig(), progress=False)
    assert isinstance(subject.data.test, torch.Tensor)
    size = len(subject.data.test)
    found = _spread(subject, 40)
    assert [len(part) for part in found] == [32, 8]
    expected = subject.data.test[[k * size // 40 for k in range(40)]]
    assert torch.equal(torch.cat(list(found)), expected)
    assert torch.equal(torch.cat(list(_spread(subject, size + 7))), subject.data.test)


def test_a_likelihood_of_other_data_is_measured_anew(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated / "coupling-0", run)
    content = json.loads((run / "evaluation.json").read_text())
    del content["groups"]["nll"]["numbers"]["data"]  # as it was for the first data
    content["metrics"]["nll"]["value"] = 1e9
    (run / "evaluation.json").write_text(json.dumps(content))
    assert evaluate(run, "--metrics", "nll") == 0
    assert metrics_of(run)["nll"] == metrics_of(evaluated / "coupling-0")["nll"]


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": []},
        {"metrics": {"nll": {"value": "1", "standard_error": None, "settings": {}}}},
        {"groups": {"nll": {"numbers": {}, "metrics": ["elbo"]}}},
        {"basis": {"run": [], "data": ""}},
    ],
)
def test_a_file_of_something_else_is_no_evaluation(change: dict[str, Any], tmp_path: Path) -> None:
    entry = {"value": 1.0, "standard_error": None, "settings": {}}
    content = {
        "basis": {"run": "r", "data": "d"},
        "groups": {"nll": {"numbers": {}, "metrics": ["nll"]}},
        "metrics": {"nll": entry},
    }
    run = RunFolder.create(tmp_path, {})
    assert read_kept(run) == {}
    run.write("evaluation.json", content)
    assert read_kept(run) == content
    run.write("evaluation.json", {**content, **change})
    with pytest.raises(ValueError, match="is not an evaluation written by"):
        read_kept(run)


def test_likelihoods_can_be_compiled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilations: list[Recording] = []
    monkeypatch.setattr(Recording, "compile", lambda self, inputs, **_: compilations.append(self))
    run = tmp_path / "run"
    shutil.copytree(folder / "coupling-0", run)
    (run / "evaluation.json").unlink(missing_ok=True)
    assert evaluate(run, "--metrics", "nll,elbo") == 0
    assert not compilations
    expected = metrics_of(run)
    (run / "evaluation.json").unlink()
    assert evaluate(run, "--metrics", "nll,elbo", "--compile") == 0
    assert len(compilations) == 1  # of 32 data; the other 8 run eagerly
    found = metrics_of(run)
    assert found["elbo"] == expected["elbo"]
    assert found["nll"]["value"] == pytest.approx(expected["nll"]["value"], rel=1e-5)
    # What was measured is kept whether it was compiled or not.
    assert evaluate(run, "--metrics", "nll") == 0
    assert metrics_of(run) == found


def test_what_is_there_is_not_measured_again(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated / "standard-0"
    before = metrics_of(run)
    measured = []
    for name, group in GROUPS.items():

        def watched(subject: Subject, name: str = name, group: Any = group) -> Any:
            measured.append(name)
            return group.measure(subject)

        monkeypatch.setitem(GROUPS, name, dataclasses.replace(group, measure=watched))
    assert evaluate(run) == 0
    assert measured == []
    assert evaluate(run, "--metrics", "skl,split") == 0
    printed = capsys.readouterr().out
    assert "skl_nearest" in printed
    assert measured == []
    # Other numbers make a group be measured again, and leave what does not depend on them.
    assert evaluate(run, "--latent-samples", "301", "--metrics", "skl, nll,skl") == 0
    assert measured == ["skl"]
    assert metrics_of(run)["skl"]["value"] != before["skl"]["value"]
    assert metrics_of(run)["nll"] == before["nll"]
    # A group has its own draws: alone it is what it was among others.
    assert evaluate(run, "--metrics", "skl") == 0
    assert metrics_of(run) == before


def test_another_checkpoint_or_other_data_make_a_new_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    generator = np.random.default_rng(0)
    np.save(path, generator.normal(size=(200, 3)).astype(np.float32))
    run = train(tmp_path, "run", "--data", str(path), "--latent-dim", "2")
    assert evaluate(run, "--metrics", "elbo,skl") == 0
    first = metrics_of(run)
    np.save(path, generator.normal(size=(200, 3), scale=2).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the named data are other ones
        assert evaluate(run, "--metrics", "elbo", "--data", str(path)) == 0
    assert set(metrics_of(run)) == {"elbo"}
    assert metrics_of(run)["elbo"]["value"] < first["elbo"]["value"] - 1
    (run / "config.json").unlink()
    shutil.rmtree(run / "checkpoints")
    train(tmp_path, "run", "--data", str(path), "--latent-dim", "2", "--seed", "3")
    with pytest.raises(ValueError, match="checkpoint that no longer exists"):
        compare_runs([str(run), str(run)])
    second = metrics_of(run)
    assert evaluate(run, "--metrics", "elbo") == 0
    assert metrics_of(run) != second


def test_other_labels_make_groups_of_labels_be_measured_again(tmp_path: Path) -> None:
    path, generator = tmp_path / "data.npz", np.random.default_rng(0)
    labels = np.arange(400) % 2
    x = generator.normal(size=(400, 3)).astype(np.float32) + 3 * labels[:, None]
    np.savez(path, x=x, labels=labels)
    run = train(tmp_path, "run", "--data", str(path), "--latent-dim", "2")
    assert evaluate(run, "--metrics", "probe,elbo") == 0
    first = metrics_of(run)
    assert first["nearest_neighbours"]["value"] > 0.9
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    np.savez(path, x=x, labels=generator.permutation(labels))
    assert evaluate(run, "--metrics", "probe,elbo") == 0
    assert metrics_of(run)["nearest_neighbours"]["value"] < 0.7
    assert metrics_of(run)["elbo"] == first["elbo"]
    found = compare_runs([str(copy), str(run)])
    assert found.differences["probe"] == [None]
    assert found.differences["elbo"][0] is not None
    assert "other labels or factors" in " ".join(found.notes)


def test_clusters_of_a_guide_without_a_mean_are_measured(tmp_path: Path) -> None:
    common = ["--data", "digits", "--latent-dim", "3", "--network", "mlp", "--prior", "mixture"]
    run = train(tmp_path, "run", *common, "--guide", "flow", steps=3)
    assert evaluate(run) == 0
    assert {"cluster_accuracy_layer_1", "frechet_domain", "nll"} <= set(metrics_of(run))


def test_samples_of_an_autoregressive_decoder_are_no_means(tmp_path: Path) -> None:
    common = ["--data", "digits", "--latent-dim", "3", "--network", "mlp"]
    bits = ["--preprocessing", "binary-dynamic", "--likelihood", "bernoulli"]
    lossy = train(tmp_path, "lossy", *common, *bits, "--model", "lossy", steps=3)
    plain = train(tmp_path, "plain", *common, *bits, steps=3)
    for run, shown in ((lossy, "samples of p(x|z)"), (plain, "means of p(x|z)")):
        assert evaluate(run, "--metrics", "domain,elbo") == 0
        assert metrics_of(run)["frechet_domain"]["settings"]["images"] == shown
    found = compare_runs([str(lossy), str(plain)])
    assert found.differences["frechet_domain"] == [None]
    assert found.differences["elbo"][0] is not None
    assert "they are of samples of p(x|z)" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("content", "status"), [("[]", 2), ("{", 2), ("null", 2), ("{}", 0), ('{"basis": {}}', 0)]
)
def test_a_broken_file_is_named_or_made_anew(
    content: str, status: int, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated / "coupling-1"
    kept = (run / "evaluation.json").read_bytes()
    (run / "evaluation.json").write_text(content)
    assert evaluate(run, "--metrics", "skl") == status
    assert ("evaluation.json " in capsys.readouterr().err) == bool(status)
    (run / "evaluation.json").write_bytes(kept)


def test_a_broken_cache_is_named(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (evaluated / "cache" / "classifiers").glob("*.safetensors")
    kept = path.read_bytes()
    path.write_bytes(kept[:100])
    assert evaluate(evaluated / "digits", "--metrics", "domain", "--images", "60") == 2
    assert f"{path} cannot be read as a safetensors file" in capsys.readouterr().err
    path.write_bytes(kept)


@pytest.mark.filterwarnings("always:.* is skipped")
def test_what_fails_on_the_data_is_left_out_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    images = generator.integers(0, 256, (120, 4, 4), dtype=np.uint8)
    factors = generator.integers(0, 3, (120, 1))
    np.savez(path, images=images, factors=factors, labels=np.zeros(120, np.int64))
    arguments = ["--network", "mlp", "--latent-dim", "1", "--prior", "standard"]
    run = train(tmp_path, "run", "--data", str(path), *arguments, "--batch-size", "20")
    assert evaluate(run) == 0
    error = capsys.readouterr().err
    assert "probe is skipped: train_labels must have at least two classes" in error
    assert "dci is skipped" in error
    found = metrics_of(run)
    assert "nll" in found
    assert "mig" not in found
    assert evaluate(run, "--metrics", "probe") == 2


def test_long_likelihoods_say_their_time_in_advance_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path, "run", "--data", "two-moons", "--latent-dim", "2")
    arguments = ("--metrics", "nll", "--nll-samples", "100", "--nll-data", "40")
    monkeypatch.setattr("pyro_dpvae.evaluation.evaluate._LONG", float("inf"))
    assert evaluate(run, *arguments) == 0
    assert "nll takes about" not in capsys.readouterr().err
    found = metrics_of(run)
    (run / "evaluation.json").unlink()
    monkeypatch.setattr("pyro_dpvae.evaluation.evaluate._LONG", 0.0)
    assert evaluate(run, *arguments) == 0
    said = capsys.readouterr().err
    assert "nll takes about 0" in said
    assert "for 100 samples of 40 data; nll_samples=20 takes a fifth" in said
    assert metrics_of(run) == found


def test_the_time_of_likelihoods_is_estimated_without_their_slow_start(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0

    class Slow:
        """8 samples take 100 seconds at first, 10 at the start of a batch, and then 2."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.start = 100.0

        def chunks(self, x: torch.Tensor, *, num_samples: int) -> Iterator[torch.Tensor]:
            nonlocal now
            for seconds in (self.start, *[2.0] * (num_samples // 8 - 1)):
                now += seconds
                self.start = 10.0
                yield torch.zeros(8, len(x))

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("pyro_dpvae.evaluation.evaluate.time", clock)
    monkeypatch.setattr("pyro_dpvae.evaluation.evaluate.ImportanceSampler", Slow)
    run = tmp_path / "run"
    shutil.copytree(folder / "standard-0", run)
    assert evaluate(run, "--metrics", "nll", "--nll-samples", "800", "--nll-data", "64") == 0
    # for each of two batches of 32 data, 10 seconds and 99 chunks of 2 seconds
    assert "nll takes about 06:56 for 800 samples of 64 data" in capsys.readouterr().err


def test_an_interrupted_evaluation_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path, "run", "--data", "two-moons", "--latent-dim", "2")
    real = GROUPS["split"]

    def interrupt(subject: Subject) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(GROUPS, "split", dataclasses.replace(real, measure=interrupt))
    assert evaluate(run) == 130
    kept = metrics_of(run)
    assert "skl" in kept
    assert "mutual_information" not in kept
    monkeypatch.setitem(GROUPS, "split", real)
    assert evaluate(run) == 0
    assert metrics_of(run).items() >= kept.items()
    assert "mutual_information" in metrics_of(run)


def test_fid_uses_the_inception_network(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyro_dpvae.evaluation import subject as rooms
    from pyro_dpvae.features import DomainFeatures

    run = evaluated / "digits"
    # The real network is tested by itself; here a small one takes its place.
    monkeypatch.setattr(rooms, "inception_weights", lambda path, download: path)
    monkeypatch.setattr(
        rooms, "InceptionFeatures", lambda path: DomainFeatures("x", channels=1, classes=[2])
    )
    assert evaluate(run, "--metrics", "fid", "--inception", "weights.pth") == 0
    found = metrics_of(run)
    assert {"fid", "fid_low_posterior", "kid", "precision_inception"} <= set(found)
    assert found["fid"]["settings"]["samples"] == 120
    # The place of the weights is not part of what is asked for, but their content is.
    assert read_kept(RunFolder(run))["groups"]["fid"]["numbers"] == numbers_of(
        "fid", EvaluationConfig(images=120)
    )


@pytest.mark.parametrize(
    ("name", "metrics", "message"),
    [
        ("coupling-0", "domain", "domain needs images, and this run on"),
        ("coupling-0", "fid", "fid needs images, and this run on 'two-moons' has none"),
        ("digits", "disentanglement", "needs factors of variation .*'factors' of a .npz"),
        ("digits", "inception", "metrics must be one of .*got 'inception'"),
        ("digits", "fid", "does not exist; set --inception to the file"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    name: str,
    metrics: str,
    message: str,
    evaluated: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")
    assert evaluate(evaluated / name, "--metrics", metrics, "--seed", "9") == 2
    assert re.search(message, capsys.readouterr().err)


def test_disentanglement_of_a_file_with_factors(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 3, (300, 2))
    images = np.zeros((300, 8, 8), np.uint8)
    images[np.arange(300), factors[:, 0] * 2, factors[:, 1] * 2] = 255
    path = tmp_path / "data.npz"
    np.savez(path, images=images, factors=factors)
    run = train(tmp_path, "run", "--data", str(path), "--network", "mlp", "--latent-dim", "3")
    cache = ("--cache", str(tmp_path / "cache"))
    assert evaluate(run, "--metrics", "disentanglement,domain", "--images", "60", *cache) == 0
    names = {"mig", "sap", "modularity", "factor_vae_score"}
    names |= {"dci_disentanglement", "dci_completeness", "dci_informativeness"}
    names |= {"frechet_domain", "frechet_low_posterior_domain", "kernel_domain"}
    names |= {"precision_domain", "recall_domain"}
    assert set(metrics_of(run)) == names
    for found in metrics_of(run).values():
        assert all(map(setting_meaning, found["settings"]))


def test_likelihoods_are_drawn_in_chunks_of_the_size_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sizes = tmp_path / "run", list[int]()
    shutil.copytree(folder / "standard-0", run)
    eager = ImportanceSampler._eager_chunk

    def noted(self: ImportanceSampler, args: Any, kwargs: Any, size: int, summation: Any) -> Any:
        sizes.append(size)
        return eager(self, args, kwargs, size, summation)

    monkeypatch.setattr(ImportanceSampler, "_eager_chunk", noted)
    assert evaluate(run, "--metrics", "nll", "--chunk", "25", "--seed", "7") == 0
    # Three chunks tell the time of all; then 60 draws of 40 data, in batches of 32.
    assert sizes == [25] * 3 + [25, 25, 10] * 2


def test_counts_below_two_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        EvaluationConfig(chunk=0)
    with pytest.raises(ValueError, match="nll_samples must be at least 2 for a standard error"):
        EvaluationConfig(nll_samples=1)


# Comparison.


def test_runs_are_compared_with_the_first(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(evaluated / name) for name in ("standard-1", "coupling-1")]
    comparison = compare_runs(paths)
    assert comparison.columns == paths
    for metric in ("nll", "elbo"):
        (paired,) = comparison.differences[metric]
        assert paired is not None
        assert paired.how == "paired data"
    a, b = (metrics_of(Path(path))["skl"] for path in paths)
    (difference,) = comparison.differences["skl"]
    assert difference is not None
    assert difference.value == pytest.approx(b["value"] - a["value"])
    assert difference.half_width == pytest.approx(
        1.959964 * math.hypot(a["standard_error"], b["standard_error"]), rel=1e-5
    )
    one, two = (RunFolder(Path(p)).read_tensors("evaluation.safetensors")["nll"] for p in paths)
    (paired,) = comparison.differences["nll"]
    assert paired is not None
    assert paired.how == "paired data"
    assert paired.value == pytest.approx(float((two - one).mean()))
    assert paired.half_width == pytest.approx(
        2.022691 * float((two - one).std()) / math.sqrt(40), rel=1e-4
    )
    assert comparison.differing["prior.name"] == ["standard", "coupling"]
    assert all(option.startswith("prior.") for option in comparison.differing)
    assert main(["compare", *paths]) == 0
    printed = capsys.readouterr().out
    assert "B - A" in printed
    assert "nll" in printed


def test_a_likelihood_that_few_draws_carry_is_marked_and_not_starred(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name in ("standard-1", "coupling-1"):
        shutil.copytree(evaluated / name, tmp_path / name)
        paths.append(str(tmp_path / name))
    for share, reliable in ((0.72, False), (0.0, True)):
        for path in paths:
            file = Path(path) / "evaluation.json"
            content = json.loads(file.read_text())
            last = share if path == paths[1] else 0.0
            content["metrics"]["nll"]["settings"]["pareto_k_above_0.7"] = last
            file.write_text(json.dumps(content))
        found = compare_runs(paths).differences
        assert found["nll"][0] is not None
        assert found["nll"][0].reliable is reliable
        assert found["elbo"][0] is not None
        assert found["elbo"][0].reliable
        assert main(["compare", *paths]) == 0
        (line,) = [
            one for one in capsys.readouterr().out.splitlines() if one.split()[:1] == ["nll"]
        ]
        assert ("unreliable, paired" in line) is not reliable


def test_a_comparison_is_printed_as_it_is_asked_for(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(evaluated / name) for name in ("standard-1", "coupling-1")]
    metrics = [metrics_of(Path(path)) for path in paths]
    capsys.readouterr()
    assert main(["compare", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    nll = found["metrics"]["nll"]
    assert (nll["unit"], nll["better"]) == ("nats", "lower")
    assert [one["value"] for one in nll["values"]] == [one["nll"]["value"] for one in metrics]
    widths = [1.959964 * one["nll"]["standard_error"] for one in metrics]
    for name, sign in (("low", -1), ("high", 1)):
        ends = [
            one["value"] + sign * width for one, width in zip(nll["values"], widths, strict=True)
        ]
        assert [one[name] for one in nll["values"]] == pytest.approx(ends)
    assert nll["differences"][0]["how"] == "paired data"
    assert found["differing"]["prior.name"] == ["standard", "coupling"]
    assert main(["compare", *paths, "--csv"]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(lines) == 2 * len(found["metrics"])
    (line,) = [one for one in lines if (one["metric"], one["runs"]) == ("nll", paths[1])]
    assert float(line["difference"]) == nll["differences"][0]["value"]
    assert float(line["difference_low"]) == nll["differences"][0]["low"]
    assert line["reliable"] == str(nll["differences"][0]["reliable"]).lower()
    probe, own = found["metrics"]["probe"]["values"][0], metrics[0]["probe"]
    oracle = share_interval(own["value"], 1.959964 * own["standard_error"])
    assert (probe["low"], probe["high"]) == pytest.approx(oracle, rel=1e-5)
    assert main(["compare", *paths, "--latex"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == r"\begin{tabular}{lrrrrr}"
    (row,) = [line for line in table if line.startswith("skl & nats & lower & ")]
    assert row.count("$\\pm$") == 3
    assert main(["compare", *paths, "--latex", "--csv"]) == 2
    assert "give one" in capsys.readouterr().err


def test_metrics_are_printed_with_unit_and_direction_and_rows_of_nothing_in_one_line(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated / "coupling-0"
    metrics = metrics_of(run)
    nothing = [name for name, one in metrics.items() if one["standard_error"] is None]
    nothing = [name for name in nothing if metrics[name]["value"] == 0]
    assert "leakage_-90" in nothing
    capsys.readouterr()
    assert evaluate(run) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("elbo ")]
    assert re.match(r"elbo +\S+ ± \S+ +nats +higher +samples 10", line)
    assert not [line for line in lines if line.startswith("leakage_-90 ")]
    assert f"0, with too few draws for an interval: {', '.join(nothing)}" in lines
    assert evaluate(run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["elbo"] == {"unit": "nats", "better": "higher", **metrics["elbo"]}
    assert found["leakage_-90"]["standard_error"] is None


@pytest.mark.parametrize("name", ["coupling-0", "digits"])
def test_settings_are_explained_below_the_metrics(
    evaluated: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert evaluate(evaluated / name) == 0
    lines = capsys.readouterr().out.splitlines()
    used = {key for one in metrics_of(evaluated / name).values() for key in one["settings"]}
    assert "share_below" in used
    for key in used:
        assert setting_meaning(key)
        explained = rf"  {key} +{re.escape(setting_meaning(key))}"
        assert any(re.fullmatch(explained, line) for line in lines)


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (1, 6), (6, 6), (97, 100), (4000, 10_000)])
def test_the_interval_of_a_share_is_wilsons_and_lies_between_0_and_1(
    hits: int, count: int
) -> None:
    error = share_estimate(hits, count, {}).standard_error
    low, high = share_interval(hits / count, half_width(error))
    wilson = binomtest(hits, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wilson.low, wilson.high), abs=1e-6)
    assert 0 <= low < high <= 1
    assert share_interval(0.5, 10.0) == (0.0, 1.0)  # as of two seeds that differ much
    assert share_interval(1.0, 0.0) == (1.0, 1.0)


def test_densities_of_other_things_have_no_difference(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", "digits", "--latent-dim", "3", "--network", "mlp"]
    bits = ["--preprocessing", "binary-dynamic", "--likelihood", "bernoulli"]
    run = train(tmp_path, "bits", *common, *bits)
    assert evaluate(run, "--metrics", "nll,skl") == 0
    comparison = compare_runs([str(evaluated / "digits"), str(run)])
    assert comparison.differences["nll"] == [None]
    assert comparison.differences["skl"][0] is not None
    assert main(["compare", str(evaluated / "digits"), str(evaluated / "coupling-0")]) == 2
    assert "runs must have the same data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "comparable"),
    [
        ("logistic", "logistic-mixture", True),
        ("bernoulli", "logistic-mixture", True),
        ("gaussian", "laplace", True),
        ("logistic", "gaussian", False),
        ("gaussian", {"name": "mixed"}, True),
        ("gaussian", {"name": "mixed", "binary": [2]}, False),
        ({"name": "mixed", "count": [2]}, {"name": "mixed", "binary": [2]}, True),
        ({"name": "mixed", "binary": [1]}, {"name": "mixed", "binary": [2]}, False),
        ({"name": "mixed", "binary": [1]}, {"name": "mixed", "categorical": {"1": 3}}, True),
    ],
)
def test_probabilities_compare_with_probabilities_and_densities_with_densities(
    one: str | dict[str, Any], other: str | dict[str, Any], comparable: bool, tmp_path: Path
) -> None:
    for name, likelihood in (("one", one), ("other", other)):
        options = {"name": likelihood} if isinstance(likelihood, str) else likelihood
        config = {"data": "d", "preprocessing": "grey", "likelihood": options}
        run = RunFolder.create(tmp_path / name, config)
        run.save({}, {"step": 1})
        entry = {"value": 1.0, "standard_error": 0.1, "settings": {}}
        content = {"groups": {}, "metrics": {"nll": entry}}
        run.write(
            "evaluation.json", {"basis": {"run": run.checkpoint().digest, "data": "d"}, **content}
        )
    found = compare_runs([str(tmp_path / "one"), str(tmp_path / "other")])
    assert (found.differences["nll"][0] is not None) == comparable


def test_seeds_are_repetitions(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("standard-0", "standard-1", "coupling-1", "coupling-0")
    paths = [str(evaluated / name) for name in names]
    comparison = compare_seeds(paths)
    assert len(comparison.columns) == 2
    value = {name: metrics_of(evaluated / name)["skl"]["value"] for name in names}
    gaps = np.array([value[f"coupling-{s}"] - value[f"standard-{s}"] for s in (0, 1)])
    (difference,) = comparison.differences["skl"]
    assert difference is not None
    assert difference.how == "paired seeds"
    assert difference.value == pytest.approx(gaps.mean())
    assert difference.half_width == pytest.approx(12.7062 * abs(gaps[0] - gaps[1]) / 2, rel=1e-4)
    mean, error = comparison.values["skl"][0] or (0.0, 0.0)
    both = np.array([value["standard-0"], value["standard-1"]])
    assert mean == pytest.approx(both.mean())
    assert error == pytest.approx(abs(both[0] - both[1]) / 2)
    assert main(["compare", "--seeds", *paths]) == 0
    assert "paired seeds" in capsys.readouterr().out


def test_runs_from_before_an_option_are_of_the_same_group(evaluated: Path, tmp_path: Path) -> None:
    names = ("standard-0", "standard-1", "coupling-0", "coupling-1")
    for name in names:
        shutil.copytree(evaluated / name, tmp_path / name)
    old = tmp_path / "standard-1" / "config.json"
    config = json.loads(old.read_text())
    assert config.pop("optimizer") == "adam"
    assert config.pop("warmup_steps") is None
    old.write_text(json.dumps({**config, "data": "elsewhere/two-moons"}))
    paths = [str(tmp_path / name) for name in names]
    assert compare_seeds(paths).members == [paths[:2], paths[2:]]
    assert set(compare_runs(paths[:2]).differing) == {"seed", "data"}
    assert differing([{"optimizer": "adamax"}, {}]) == {"optimizer": ["adamax", "adam"]}


def test_what_cannot_be_compared_is_refused(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (str(evaluated / name) for name in ("coupling-0", "coupling-1"))
    assert main(["compare", one]) == 2
    assert "needs at least two runs, got 1" in capsys.readouterr().err
    bare = train(tmp_path, "bare", "--data", "two-moons", "--latent-dim", "2")
    capsys.readouterr()
    assert main(["compare", one, str(bare)]) == 2
    assert f"is not evaluated; run: dpvae evaluate {bare}" in capsys.readouterr().err
    assert evaluate(bare, "--metrics", "skl", "--seed", "3") == 0
    assert main(["compare", one, str(bare)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"No difference of skl: .* seed 0 and 3 in .*; evaluate one of them", printed)
    assert re.search(r"skl .* not comparable", printed)
    assert main(["compare", "--seeds", one, other]) == 2
    assert "at least two groups of at least two runs" in capsys.readouterr().err


def test_compare_measures_first_what_is_not_measured(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = evaluated / "coupling-0"
    bare = train(tmp_path, "bare", "--data", "two-moons", "--latent-dim", "2")
    before = (one / "evaluation.json").read_bytes()
    command = ["compare", str(one), str(bare), "--metrics", "skl", *QUICK]
    assert main(command) == 2
    assert "options of an evaluation need --evaluate, got --metrics" in capsys.readouterr().err
    assert main([*command, "--evaluate"]) == 0
    assert "skl" in capsys.readouterr().out
    assert (one / "evaluation.json").read_bytes() == before
    found = metrics_of(bare)
    assert set(found) == {"skl", "kl_prior", "kl_aggregate", "skl_halves", "skl_nearest"}
    assert evaluate(bare, "--metrics", "skl", "--cache", "elsewhere") == 0
    assert metrics_of(bare) == found
    assert main(["compare", "--evaluate", str(one)]) == 2
    assert "needs at least two runs, got 1" in capsys.readouterr().err


# Pictures.


@pytest.mark.parametrize("name", ["coupling-0", "standard-0", "digits"])
def test_pictures_are_drawn_as_png_and_pdf(
    name: str, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plots"
    assert main(["plot", str(evaluated / name), "--number", "9", "--out", str(out)]) == 0
    for picture in ("samples", "latent", "pairs", "factors", "leakage"):
        for suffix in ("png", "pdf"):
            assert (out / f"{picture}.{suffix}").stat().st_size > 3000
    assert "samples, latent, pairs, factors, leakage" in capsys.readouterr().out


def test_pictures_of_longer_vectors_and_one_latent(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32))
    arguments = ["--data", str(path), "--latent-dim", "1", "--prior", "standard"]
    run = train(tmp_path, "run", *arguments)
    assert main(["plot", str(run), "--number", "4"]) == 0
    assert (run / "plots" / "latent.pdf").exists()


def test_evaluation_is_the_same_from_python(evaluated: Path) -> None:
    run = evaluated / "coupling-1"
    saved = open_run(run)
    config = EvaluationConfig(nll_samples=60, nll_data=40, latent_samples=300, images=120)
    found = evaluate_run(Subject(saved, saved.load_data(), config, progress=False), ["skl"])
    assert found["skl"] == metrics_of(run)["skl"]


def test_latent_space_shows_labels_and_numbers_traversals() -> None:
    torch.manual_seed(0)
    cloud, labels = torch.randn(50, 2), torch.arange(50) % 3
    point, line = 0.001 * cloud[:5], torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    clouds = {"prior samples": cloud}
    figure = latent_figure(
        {
            "one": LatentSpace(cloud, clouds, ("a", "b"), [point]),
            "other": LatentSpace(cloud, clouds, ("a", "b"), [point, line]),
        },
        labels,
        label_names=["x", "y", "z"],
    )
    # A traversal that is a point is left out, and the others keep their numbers.
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes] == [
        *([], [], ["2"], []),
    ]
    assert all(left.get_xlim() == right.get_xlim() for left, right in [figure.axes[:2]])
    titles = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert titles == [["x", "y", "z"], ["prior samples"]]
    for index, drawn in enumerate(figure.axes[0].collections):
        assert torch.equal(torch.tensor(drawn.get_offsets()).float(), cloud[labels == index])


def test_a_grid_has_no_row_with_a_single_image_and_white_where_none_is() -> None:
    grid = image_grid(torch.zeros(17, 1, 4, 4))
    assert tuple(grid.shape[:2]) == (3 * 5 - 1, 6 * 5 - 1)  # 6, 6 and 5, not 5, 5, 5 and 2
    assert (grid[10:, 25:] == 1).all()
    assert (grid[:10] < 1).all()


def test_pairs_of_images_lie_between_their_originals() -> None:
    row, ends = torch.rand(3, 1, 4, 4), torch.rand(2, 1, 4, 4)
    figure = traversal_figure([row], ["a"], title="", originals=[ends], steps=["0", "½", "1"])
    (axes,) = figure.axes
    shown = torch.tensor(np.asarray(axes.images[0].get_array())).float()
    assert torch.equal(shown[:, :4], ends[0, 0])
    assert torch.equal(shown[:, 20:], ends[1, 0])
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "datum",
        "0",
        "½",
        "1",
        "datum",
    ]


def test_figures_are_saved_one_by_one(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*parts: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_dpvae.plots.run._latent", interrupt)
    run = evaluated / "standard-0"
    assert main(["plot", str(run), "--number", "4", "--out", str(tmp_path)]) == 130
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "samples.pdf"}
