"""The paper's figures: what is drawn of trained systems, and the command that draws them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import Namespace
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from papers.dpvae.__main__ import main
from papers.dpvae.command_figures import _job
from papers.dpvae.figures import FIGURES, Subjects, SystemKey
from papers.dpvae.figures.factors import factor_lines
from papers.dpvae.figures.pairs import held_out_pairs, pair_paths
from papers.dpvae.jobs import Failure, Job
from pyro_dpvae import cli
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.recipes import open_run

PLAIN, DECOUPLED = SystemKey("vae", False), SystemKey("vae", True)
LOW, HIGH = "low-posterior samples (pockets)", "high-posterior samples (leaks)"


def opened(folder: Path, data: str) -> Subjects:
    found = {}
    for key, prior in ((PLAIN, "standard"), (DECOUPLED, "coupling")):
        run = str(folder / f"{data}-{prior}")
        arguments = ["--data", data, "--prior", prior, "--latent-dim", "2", "--steps", "20"]
        arguments += ["--backend", "eager"]
        assert cli.main(["train", *arguments, "--out", run]) == 0
        saved = open_run(run)
        config = EvaluationConfig(latent_samples=400)
        found[key] = Subject(saved, saved.load_data(), config, progress=False)
    return found


@pytest.fixture(scope="module")
def moons(tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    return opened(tmp_path_factory.mktemp("moons"), "two-moons")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    return opened(tmp_path_factory.mktemp("digits"), "digits")


def drawn(number: int, subjects: Subjects) -> Figure:
    torch.manual_seed(0)
    with torch.no_grad():
        return FIGURES[number].draw(subjects)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def cloud(axes: Axes, label: str) -> Tensor:
    (found,) = (one for one in axes.collections if one.get_label() == label)
    return torch.tensor(np.asarray(found.get_offsets()), dtype=torch.float32)


def lines(axes: Axes) -> list[NDArray[np.float64]]:
    return [np.asarray(line.get_xydata()) for line in axes.lines]


def bend(path: NDArray[np.float64]) -> float:
    """How far a path of equal steps is from being straight."""
    return float(np.abs(np.diff(path, n=2, axis=0)).max())


def test_figure_1_has_a_row_for_each_prior(moons: Subjects) -> None:
    figure = drawn(1, moons)
    assert [axes.texts[-1].get_text() for axes in figure.axes[::4]] == ["VAE", "dpVAE"]
    assert len(figure.axes) == 8
    assert legend(figure) == ["data / aggregate posterior", "prior samples", LOW]
    plain, _decoupled = figure.axes[:4], figure.axes[4:]
    # N(0, I) is its own generation space.
    assert torch.equal(cloud(plain[1], LOW), cloud(plain[2], LOW))
    assert all(axes.get_aspect() == 1 for axes in figure.axes)
    # Panels of one space can be compared by eye, and say what they leave out.
    for name in ("$x_2$", "$z$[1]"):
        shared = [axes for axes in figure.axes if axes.get_ylabel() == name]
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in shared}) == 1
        for axes in shared:
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            points = torch.cat([cloud(axes, str(one.get_label())) for one in axes.collections])
            (x, y) = points.T
            outside = int(((x < left) | (x > right) | (y < low) | (y > high)).sum())
            said = [text.get_text() for text in axes.texts if "outside" in text.get_text()]
            assert said == ([f"{outside} outside"] if outside else [])


def test_figure_3_shows_samples_of_least_q_and_of_least_p(moons: Subjects) -> None:
    figure = drawn(3, moons)
    assert titles(figure) == ["VAE", "dpVAE"]
    for subject, column in zip(moons.values(), np.reshape(figure.axes, (4, 2)).T, strict=True):
        prior, aggregate = subject.prior, subject.aggregate
        low, high = cloud(column[1], LOW), cloud(column[1], HIGH)
        assert len(low) == len(high) == 250
        with torch.no_grad():
            of_prior = aggregate.log_prob(prior().sample((20_000,)).double())
            of_data = prior().log_prob(aggregate.sample((20_000,)))
            # They are the lowest 5 %, of other draws.
            assert aggregate.log_prob(low.double()).max() < of_prior.quantile(0.07)
            assert prior().log_prob(high).max() < of_data.quantile(0.07)
            decode = subject.model.decoder
            torch.testing.assert_close(cloud(column[2], LOW), decode(low).mean)
            torch.testing.assert_close(cloud(column[3], HIGH), decode(high).mean)


def test_figure_4_ends_at_the_divergence(moons: Subjects) -> None:
    figure = drawn(4, moons)
    assert titles(figure) == ["VAE"]
    assert legend(figure) == ["standard normal prior", "decoupled prior"]
    _zero, *curves = lines(figure.axes[0])
    for subject, curve in zip(moons.values(), curves, strict=True):
        with torch.no_grad():
            z = subject.aggregate.sample((4000,))
            excess = subject.aggregate.log_prob(z.double()) - subject.prior().log_prob(z)
        allowed = 4 * float(excess.std()) * (400**-0.5 + 4000**-0.5)
        assert abs(curve[-1, 1] - float(excess.mean())) < allowed


def test_figure_5_sets_four_kinds_of_samples_in_a_row(digits: Subjects) -> None:
    figure = drawn(5, digits)
    assert titles(figure) == [
        "standard normal prior:\nsamples",
        "standard normal prior:\nlow-posterior samples",
        "decoupled prior:\nsamples",
        "decoupled prior:\nlow-posterior samples",
    ]
    assert figure.axes[0].get_ylabel() == "VAE"
    assert [axes.images[0].get_array().shape for axes in figure.axes] == [(53, 53)] * 4


def test_figure_6_is_straight_in_generation_space(digits: Subjects) -> None:
    figure = drawn(6, digits)
    plain, curved, straight, *decoded = figure.axes
    assert titles(figure) == [
        "VAE: representation space",
        "dpVAE: representation space",
        "dpVAE: generation space",
        "VAE: decoded",
        "dpVAE: decoded",
    ]
    assert len(decoded) == 2
    assert all(bend(path) < 1e-5 for path in (*lines(plain), *lines(straight)))
    prior = digits[DECOUPLED].prior
    means = digits[DECOUPLED].test_means
    for path, line, ends in zip(
        lines(curved), lines(straight), held_out_pairs("digits", len(means)), strict=True
    ):
        np.testing.assert_allclose(path[[0, -1]], means[list(ends)], rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            back = prior.to_generation(torch.tensor(path, dtype=torch.float32))[0]
        np.testing.assert_allclose(back, line, rtol=1e-3, atol=1e-4)


def test_pairs_of_mnist_are_those_of_the_authors() -> None:
    assert held_out_pairs("mnist", 10_000)[-1] == (5678, 8900)
    assert len(held_out_pairs("mnist", 100)) == 5  # of a part of it, others
    assert held_out_pairs("celeba", 4) == [(0, 2), (1, 3)]


def test_figure_8_moves_one_coordinate_by_five(digits: Subjects) -> None:
    subject = digits[DECOUPLED]
    code = pair_paths(subject)[0][0]
    dims, found = factor_lines(subject, code)
    spread = subject.generation_spread
    assert dims == sorted(range(2), key=lambda dim: -float(spread[dim]))
    for dim, line in zip(dims, found, strict=True):
        torch.testing.assert_close(line[3], code)
        torch.testing.assert_close(line[[0, -1], dim], code[dim] + torch.tensor([-5.0, 5.0]))
        assert (line[:, 1 - dim] == code[1 - dim]).all()
    figure = drawn(8, {DECOUPLED: subject})
    assert [axes.get_title()[:14] for axes in figure.axes] == ["held-out datum"] * 3
    rows = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in rows] == [f"$z_0$[{dim}]" for dim in dims]


def test_the_command_draws_from_the_runs_of_a_study_and_trains_none_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    for recipe in ("two-moons-beta-vae-h", "two-moons-beta-vae-h-dp"):
        run = str(study / "runs" / recipe / "seed-0")
        arguments = ["--recipe", recipe, "--steps", "3", "--backend", "eager"]
        assert cli.main(["train", *arguments, "--out", run]) == 0
    command = ["figures", "--only", "1", "--steps", "2", "--runs", str(study)]
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "2 runs of" in said
    assert "two-moons-beta-vae-h: 3 steps, and not the requested 2" in said
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "figure-1.pdf",
        "figure-1.png",
        "logs",
    ]


def test_the_command_trains_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Job] = []

    def train(jobs: list[Job], **_options: object) -> list[Failure]:
        given.extend(jobs)
        (tmp_path / "logs").mkdir(exist_ok=True)
        return [Failure(job.name, 2, tmp_path / "log", "no luck") for job in jobs]

    monkeypatch.setattr("papers.dpvae.command_figures.run_jobs", train)
    command = ["figures", "--only", "3", "--steps", "20", "--seed", "4"]
    assert main([*command, "--override", "batch_size=10", "--out", str(tmp_path)]) == 1
    regularizers = ("beta-vae-h", "factor-vae", "beta-tcvae", "info-vae")
    assert [job.name for job in given] == [f"two-moons-{name}" for name in regularizers]
    assert [job.run for job in given] == [
        tmp_path / "runs" / f"two-moons-{name}" / "seed-4" for name in regularizers
    ]
    arguments = given[0].train
    # In less than the recipe's steps, with the rate of the hour; what a user says comes last.
    assert arguments[:6] == ("--recipe", given[0].name, "--seed", "4", "--steps", "20")
    assert arguments[-2:] == ("--override=learning_rate=0.001", "--override=batch_size=10")
    assert "failed: two-moons-beta-vae-h, log" in capsys.readouterr().out
    # What the same folder has runs of is not drawn under another name.
    assert main([*command, "--override", "batch_size=20", "--out", str(tmp_path)]) == 2
    assert "would change overrides from ['batch_size=10']" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path)]) == 1
    assert given[-1].train[-1] == "--override=batch_size=10"


def test_published_configurations_keep_their_rates_and_proportions() -> None:
    options = Namespace(device="cpu", root=None, out="out", seed=0)
    asked = {"steps": 800, "budget": {"learning_rate": 1e-3}, "overrides": ["batch_size=10"]}
    job = _job("mnist-beta-tcvae-dp-authors-code", asked, options)
    assert job.steps == 1600
    assert job.train[-1] == "--override=batch_size=10"
    assert not any("learning_rate" in one for one in job.train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "two-moons"],
            "data of figures 4 to 8 must be one of celeba, mnist, svhn",
        ),
        (["--only", "1,2"], "only must be one of 1, 3, 4, 5, 6, 8; got '2'"),
        (["--only", "1", "--runs", "nowhere"], "--runs must be the folder of a study"),
    ],
)
def test_the_command_refuses(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["figures", *arguments, "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
