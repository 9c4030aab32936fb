"""Studies over a grid: jobs, paired differences, tables and figures."""

import json
import math
import subprocess
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from papers import priors, systems
from papers.dpvae import jobs, tradeoff
from papers.dpvae.studies import check_arguments
from papers.grid import Key, Measurement, change, difference, flags, job_of, mean, results
from papers.posteriors import guides, mixtures
from pyro_dpvae.data import load
from pyro_dpvae.distributions import DiagonalNormalMixture
from pyro_dpvae.priors import ZukoPrior
from tests.forked_jobs import ForkedProcess
from tests.linear_gaussian import LinearGaussian

FORKS = SimpleNamespace(Popen=ForkedProcess, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
MEASURED = Measurement(
    groups=("elbo", "skl"),
    columns={"skl": "sKL", "probe": "probe"},
    amounts={"latent_samples": 50},
)


def test_differences_are_paired_by_seed() -> None:
    values: dict[Key, dict[str, float]] = {
        ("a", "plain", 0): {"fd": 1.0},
        ("a", "plain", 1): {"fd": 2.0},
        ("a", "plain", 2): {"fd": 9.0},
        ("a", "dp", 0): {"fd": 3.0},
        ("a", "dp", 1): {"fd": 5.0},
    }
    found = difference(values, ("a", "dp"), ("a", "plain"), "fd")
    assert (found.mean, found.count) == (2.5, 2)
    # Student's t of one degree of freedom is 12.7062; the standard error is 0.5.
    assert found.high - found.mean == pytest.approx(6.3531, abs=1e-4)
    assert mean(values, ("a", "plain"), "fd").mean == 4.0
    assert math.isnan(mean(values, ("b", "plain"), "fd").mean)
    assert change(values, ("a", "plain"), ("a", "dp"), "fd") == "4 → 4, +2.5 [-3.85, +8.85]"


def test_a_grid_is_trained_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "subprocess", FORKS)
    options = {"data": "two-moons", "network": "moons", "latent-dim": 2, "likelihood": "gaussian"}
    options |= {"steps": 3, "backend": "eager", "seed": 0}
    grid = {
        ("moons", prior, 0): job_of(
            tmp_path / "runs" / prior,
            flags({**options, "prior": prior, "latent-dim": size}),
            steps=3,
            measurement=MEASURED,
        )
        # Autoregressive priors need at least two coordinates.
        for prior, size in (("standard", 2), ("coupling", 2), ("autoregressive", 1))
    }
    values, status = results(grid, MEASURED, out=tmp_path, at_once=2)
    assert status == 1
    assert "failed: autoregressive: " in capsys.readouterr().out
    for prior in ("standard", "coupling"):
        kept = json.loads((tmp_path / "runs" / prior / "evaluation.json").read_bytes())
        found = values["moons", prior, 0]
        assert found["skl"] == kept["metrics"]["skl"]["value"]
        assert kept["metrics"]["skl"]["settings"]["samples"] == 50
        assert math.isnan(found["probe"])  # was not measured
    assert ("moons", "autoregressive", 0) not in values
    monkeypatch.setattr(jobs, "_Process", lambda *_: pytest.fail("a process was started"))
    del grid["moons", "autoregressive", 0]
    assert results(grid, MEASURED, out=tmp_path, at_once=2) == (values, 0)
    other = {
        key: job_of(
            job.run,
            flags({**options, "prior": key[1], "likelihood": "laplace"}),
            steps=3,
            measurement=MEASURED,
        )
        for key, job in grid.items()
    }
    with pytest.raises(ValueError, match=r"would change .*likelihood.* move that folder away"):
        results(other, MEASURED, out=tmp_path, at_once=2)
    for number, prior in enumerate(("standard", "coupling")):
        path = tmp_path / "runs" / prior / "evaluation.json"
        kept = json.loads(path.read_bytes())
        kept["metrics"]["skl"]["settings"]["network"] = f"classifier-{number}"
        path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"one feature network, got \['classifier-0', "):
        results(grid, MEASURED, out=tmp_path, at_once=2)


def test_the_commands_of_all_studies_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPVAE_DATA", str(tmp_path))
    for weight, data in (("beta", "mnist"), ("gamma", "dsprites"), ("lambda", "mnist")):
        grid = tradeoff.jobs_of(tmp_path, weight, tradeoff.DATA[data])
        assert len({job.run for job in grid.values()}) == len(grid)
        check_arguments([*grid.values()])
    for study in (priors, mixtures):
        grid = study.jobs_of(tmp_path)
        assert len({job.run for job in grid.values()}) == len(grid)
        check_arguments([*grid.values()])
    for name, table in systems.TABLES.items():
        grid = systems.jobs_of(table, tmp_path / name)
        assert len({job.run for job in grid.values()}) == len(grid)
        assert {row.beside for row in table.rows.values()} <= table.rows.keys()
        check_arguments([*grid.values()][: len(table.rows)])
    runs: set[Path] = set()
    for likelihood, data in product(guides.LIKELIHOODS, guides.DATA):
        grid = guides.jobs_of(tmp_path, likelihood, data)
        check_arguments([*grid.values()][: len(grid) // guides.SEEDS])
        assert not runs & {job.run for job in grid.values()}
        runs |= {job.run for job in grid.values()}
    spline = priors.neural_spline(3)
    assert isinstance(spline, ZukoPrior)
    assert spline().log_prob(torch.zeros(2, 3)).shape == (2,)


def test_the_trade_off_has_a_row_per_weight_and_a_line_per_prior() -> None:
    data = tradeoff.DATA["dsprites"]
    columns = tradeoff.measurement_of(data).columns
    values: dict[Key, dict[str, float]] = {
        (f"{weight:g}", prior, seed): dict.fromkeys(
            columns, 1.0 + seed + 10 * (prior != "standard")
        )
        for weight in tradeoff.WEIGHTS["gamma"].values
        for prior in tradeoff.PRIORS
        for seed in range(2)
    }
    header, _, *rows = tradeoff.table(values, "gamma", data).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:3]] == ["gamma", "FD"]
    assert [row.split("|")[1].strip() for row in rows] == ["1", "5", "20", "80"]
    assert "1.5 → 11.5, +10 [+10, +10]" in rows[0]
    figure = tradeoff.tradeoff_figure(values, "gamma", data)
    for panel, name in zip(figure.axes, ("FD", "FD(LP)", "precision"), strict=True):
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("MIG of z", name)
        means = {
            line.get_label(): line.get_xydata()
            for line in panel.lines
            if line.get_linestyle() == "-"
        }
        assert means["N(0, I)"].tolist() == [[1.5, 1.5]] * 4
        assert means["decoupled"].tolist() == [[11.5, 11.5]] * 4


def test_a_decoder_starts_at_the_mean_image(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "x.npz", images=images.to(torch.uint8).numpy())
    source = str(tmp_path / "x.npz")
    seen = load(source).train
    assert isinstance(seen, torch.Tensor)
    grey = seen.double().flatten(1) / 255
    network = guides.mean_image_perceptron((1, 4, 4), 2, (1, 4, 4), source=source)
    *_, bias = network.decoder.parameters()
    torch.testing.assert_close(bias.double(), grey.mean(0), atol=1e-6, rtol=0)


def test_own_posteriors_reach_the_likelihood_where_they_have_its_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mixtures, "GAP_DRAWS", 100)
    monkeypatch.setattr(mixtures, "GAP_STEPS", 200)
    torch.manual_seed(0)
    exact = LinearGaussian()  # p(z | x) is a diagonal normal distribution
    x = exact.data(10)
    with torch.no_grad():
        posterior = exact.guide.posterior(x).base_dist
    loc, scale = posterior.loc[:, None], posterior.scale[:, None]
    encoded = DiagonalNormalMixture(loc.new_zeros(10, 1), loc + 0.5, 2 * scale)
    found = mixtures.gap(exact.model, encoded, x)
    truth = exact.log_prob(x)
    first, gaussian, mixture = found.values()
    assert (first < truth - 0.5).all()
    for own in (gaussian, mixture):
        assert float((own - truth).abs().max()) < 0.2
        assert float((own - truth).mean()) == pytest.approx(0, abs=0.05)


def test_a_decoder_that_ignores_z_leaves_all_to_the_pixels() -> None:
    networks = systems.without_latents((1, 8, 8), 3, (4, 8, 8))
    assert networks.decoder(torch.randn(2, 5, 3)).equal(torch.zeros(2, 5, 4, 8, 8))
    assert networks.encoder(torch.rand(5, 1, 8, 8)).shape == (5, 10)
