"""A trained run, opened in Python: what it encodes, decodes, draws and measures."""

import csv
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae import VAE, AmortizedGaussian, CouplingPrior, Decoder, GaussianEncoder
from pyro_dpvae._subsets import stacked
from pyro_dpvae.cli import main
from pyro_dpvae.data import Batches, load
from pyro_dpvae.errors import DataWarning, UnsupportedError
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.plots import drawings_of
from pyro_dpvae.recipes import Run, RunConfig, open_run
from pyro_dpvae.recipes.training import prepare
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit

STEPS = ["--steps", "20", "--backend", "eager", "--latent-dim", "3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each preprocessing, and one of points."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--network", "mlp", "--network.hidden", "[8]", *STEPS]
    kinds = {
        "grey": ["--likelihood", "gaussian"],
        "binary-static": ["--likelihood", "bernoulli"],
        "binary-dynamic": ["--likelihood", "bernoulli"],
        "logit": ["--likelihood", "gaussian"],
    }
    for name, options in kinds.items():
        command = ["train", "--data", "digits", "--preprocessing", name, *options, *small]
        assert main([*command, "--out", str(folder / name)]) == 0
    assert main(["train", "--data", "two-moons", *STEPS, "--out", str(folder / "points")]) == 0
    return {name: folder / name for name in (*kinds, "points")}


@pytest.mark.parametrize("name", ["grey", "binary-static", "binary-dynamic", "logit", "points"])
def test_a_run_sees_data_as_its_training_did(runs: dict[str, Path], name: str) -> None:
    run = open_run(runs[name])
    x = run.data.test[:7]
    seen = next(run.batches(run.data.test, batch_size=7).epoch(0))
    torch.testing.assert_close(run._seen(x), seen)
    with torch.no_grad():
        expected = run.guide.posterior(seen)
    q = run.encode(x)
    torch.testing.assert_close(q.mean, expected.mean)
    assert not q.mean.requires_grad


def test_data_of_other_types_are_the_same_data_and_levels_as_real_numbers_are_refused(
    runs: dict[str, Path],
) -> None:
    run = open_run(runs["grey"])
    levels = run.data.test[:7]
    assert levels.dtype == torch.uint8
    shades = levels.double() / 255
    torch.testing.assert_close(run.encode(shades).mean, run.encode(levels).mean)
    torch.testing.assert_close(run.encode(levels.numpy()).mean, run.encode(levels).mean)
    path = run.interpolate(levels[0].numpy(), levels[1].numpy())
    torch.testing.assert_close(path, run.interpolate(levels[0], levels[1]))
    for wrong in (levels.float(), levels.long()):
        with pytest.raises(ValueError, match=r"from 0 to 1, got 0 to 255; divide levels by 255"):
            run.encode(wrong)
    points = open_run(runs["points"])
    torch.testing.assert_close(
        points.encode(torch.ones(3, 2, dtype=torch.long)).mean,
        points.encode(torch.ones(3, 2)).mean,
    )


@pytest.mark.parametrize("preprocessing", ["grey", "binary-static", "binary-dynamic"])
def test_images_are_read_as_the_file_holds_them_or_refused(
    tmp_path: Path, preprocessing: str
) -> None:
    rng, likelihood = np.random.default_rng(0), "gaussian"
    if preprocessing != "grey":
        likelihood = "bernoulli"
    small = ["--network", "mlp", "--network.hidden", "[8]", *STEPS, "--batch-size", "20"]
    kinds = {"bool": rng.random((60, 6, 6)) < 0.5, "uint16": rng.integers(0, 65535, (60, 6, 6))}
    for name, images in kinds.items():
        np.savez(tmp_path / f"{name}.npz", images=images.astype(name))
        command = ["train", "--data", str(tmp_path / f"{name}.npz"), *small]
        options = ["--preprocessing", preprocessing, "--likelihood", likelihood]
        assert main([*command, *options, "--out", str(tmp_path / name)]) == 0
        run, raw = open_run(tmp_path / name), images.astype(name)[:, None]
        if name == "uint16":
            with pytest.raises(ValueError, match="shades from 0 to 1"):
                run.encode(raw)
            raw = (raw / 65535).astype(np.float32)
            if preprocessing != "grey":  # drawn anew for each place in a batch
                continue
        both = torch.cat([run.encode(part).mean for part in (run.data.train, run.data.test)])
        own = run.encode(raw).mean
        # The splits hold the file's items in another order.
        order = [int((both - one).abs().sum(-1).argmin()) for one in own]
        torch.testing.assert_close(both[order], own, atol=2e-3, rtol=1e-2)
    vectors = tmp_path / "v.npy"
    np.save(vectors, rng.integers(0, 9, (60, 3)))
    assert main(["train", "--data", str(vectors), *STEPS, "--out", str(tmp_path / "v")]) == 0
    run, counts = open_run(tmp_path / "v"), np.arange(6).reshape(2, 3)
    found = [run.encode(counts.astype(kind)).mean for kind in ("uint8", "int64", "float64")]
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_run_prints_what_it_is(runs: dict[str, Path]) -> None:
    run = open_run(runs["points"])
    assert repr(run) == (
        f"Run('{runs['points']}', step=20, prior=CouplingPrior, guide=AmortizedGaussian)"
    )
    assert repr(run.data) == "DataSet('two-moons', train=2000, test=200, item_shape=(2,))"


@pytest.mark.parametrize("name", ["grey", "logit", "points"])
def test_what_a_run_returns_has_the_shape_and_range_of_data(
    runs: dict[str, Path], name: str
) -> None:
    run = open_run(runs[name])
    x = run.data.test[:4]
    for found in (
        run.reconstruct(x),
        run.sample(4),
        run.sample(4, draw=True),
        run.interpolate(x[0], x[1], steps=4),
        run.interpolate(x[0], x[1], steps=4, space="representation"),
    ):
        assert found.shape == x.shape
        if name != "points":
            assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_samples_repeat_by_their_seed_and_leave_random_numbers_alone(
    runs: dict[str, Path],
) -> None:
    run = open_run(runs["grey"])
    state = torch.get_rng_state()
    first, again, other = (run.sample(3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noisy = run.sample(3, seed=5, draw=True)
    assert not torch.equal(noisy, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_paths_are_straight_in_the_space_that_is_asked_for(runs: dict[str, Path]) -> None:
    run = open_run(runs["points"])
    a, b = run.data.test[0], run.data.test[40]
    ends = run.encode(torch.stack([a, b])).mean
    prior = run.model.prior
    with torch.no_grad():
        middle = run.decode(ends.mean(0, keepdim=True))
        z0 = prior.to_generation(ends)[0].mean(0, keepdim=True)
        other = run.decode(prior.to_representation(z0))
    straight = run.interpolate(a, b, steps=3, space="representation")
    torch.testing.assert_close(straight[1], middle[0])
    torch.testing.assert_close(run.interpolate(a, b, steps=3)[1], other[0])
    torch.testing.assert_close(straight[[0, 2]], run.reconstruct(torch.stack([a, b])))


def test_a_run_measures_and_says_what_was_measured(runs: dict[str, Path]) -> None:
    run = open_run(runs["points"])
    assert run.metrics == {}
    found = run.log_likelihood(run.data.test[:50], 200)
    assert found.log_likelihood.shape == (50,)
    assert main(["evaluate", str(runs["points"]), "--metrics", "elbo"]) == 0
    bound = open_run(runs["points"]).metrics["elbo"]
    assert set(bound) == {"value", "standard_error", "settings"}
    # An importance-weighted estimate is above the bound.
    every = run.log_likelihood(run.data.test, 200).log_likelihood.mean()
    assert float(every) > bound["value"]
    assert run.config.data == "two-moons"
    q = run.aggregate_posterior()
    assert q.log_prob(torch.zeros(2, 3)).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.encode(torch.zeros(2)), r"shape \(batch, 2\), got \(2,\); give items"),
        (lambda run: run.sample(0), "count must be at least 1, got 0"),
        (lambda run: run.interpolate(*torch.zeros(2, 2), steps=1), "at least 2, for both ends"),
        (lambda run: run.interpolate(*torch.zeros(2, 2), space="x"), "space must be one of gener"),
    ],
)
def test_what_a_run_cannot_do_is_refused(
    runs: dict[str, Path], call: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(open_run(runs["points"]))  # type: ignore[operator]


def own_parts() -> tuple[VAE, AmortizedGaussian]:
    pyro.clear_param_store()
    decoder = Decoder(nn.Linear(2, 2), GaussianLikelihood((2,)))
    encoder = GaussianEncoder(nn.Sequential(nn.Linear(2, 16), nn.ReLU()), 2)
    return VAE(CouplingPrior(2), decoder), AmortizedGaussian(encoder)


def test_a_run_of_a_program_opens_with_its_parts_and_else_says_which_are_missing(
    tmp_path: Path,
) -> None:
    data = load("two-moons")
    model, guide = own_parts()
    batches = {"batch_size": 100, "preprocessing": "none"}
    fit(
        model,
        guide,
        objective=RegularizedELBO(),
        train=Batches(data.train, **batches),
        test=Batches(data.test, **batches),
        config=TrainConfig(steps=20),
        run=RunFolder.create(tmp_path / "run", {"data": "two-moons", "seed": 0}),
        progress=False,
    )
    with pytest.raises(ValueError, match="must be given together, got one of them"):
        open_run(tmp_path / "run", model=model)
    with pytest.raises(
        ValueError, match=r"trained pyro_dpvae.models.vae.VAE with .*Gaussian; bui"
    ):
        open_run(tmp_path / "run")
    opened: Run = open_run(
        tmp_path / "run", **dict(zip(("model", "guide"), own_parts(), strict=True))
    )
    x: Tensor = data.test[:5]
    with torch.no_grad():
        expected = guide.posterior(x).mean
    torch.testing.assert_close(opened.encode(x).mean, expected)
    assert repr(opened).endswith("step=20, prior=CouplingPrior, guide=AmortizedGaussian)")


class Program(AbstractVAE):
    """A model without a prior and a decoder as its parts."""

    def __init__(self) -> None:
        super(AbstractVAE, self).__init__()
        self.deviation = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, self.deviation.exp()).to_event(1), obs=x)


def test_a_run_of_another_program_says_what_it_has_not(tmp_path: Path) -> None:
    pyro.clear_param_store()
    run = RunFolder.create(tmp_path / "run", {"preprocessing": "zscore", "what": "my own"})
    x = torch.randn(60, 2)
    batches = Batches(x, batch_size=20, preprocessing="none")
    parts = {"model": Program(), "guide": own_parts()[1]}
    fit(
        *parts.values(),
        objective=RegularizedELBO(),
        train=batches,
        test=batches,
        config=TrainConfig(steps=2),
        run=run,
        progress=False,
    )
    opened = open_run(tmp_path / "run", **parts)
    assert repr(opened).endswith("model=Program, guide=AmortizedGaussian)")
    # Of what the program has written and what training has, the latter is so.
    assert opened.preprocessing == "none"
    assert opened.encode(x).mean.shape == (60, 2)
    for method, argument in (("sample", 3), ("reconstruct", x)):
        with pytest.raises(UnsupportedError, match=r"this library, got a Program.*log_weights"):
            getattr(opened, method)(argument)
    with pytest.raises(ValueError, match="there is no option 'what'") as found:
        _ = opened.config
    assert "use folder.config" in "".join(found.value.__notes__)
    with pytest.raises(ValueError, match=r"load_data\(source=...\), or use your own batches"):
        _ = opened.data


def test_figures_of_standardised_columns_are_in_the_units_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([170 + 8 * rng.normal(size=60), rng.normal(size=60), 5 + rng.random(60)], 1)
    names = ("height", "width", "age")
    lines = [",".join(names), *(",".join(map(repr, row)) for row in rows.tolist())]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    command = ["train", "--data", str(tmp_path / "own.csv"), "--standardise", "all", *STEPS]
    assert main([*command, "--batch-size", "20", "--out", str(tmp_path / "run")]) == 0
    run = open_run(tmp_path / "run")
    drawings = drawings_of(Subject(run, run.data, EvaluationConfig(), progress=False), 20)
    for name in ("samples", "pairs", "factors"):
        figure = drawings[name]()
        drawn = [line.get_ydata() for axes in figure.axes for line in axes.lines]
        heights = [values[0] for values in drawn if len(values) == 3]
        assert heights
        assert 100 < np.mean(heights) < 240
    dashed = [line for axes in drawings["pairs"]().axes for line in axes.lines]
    originals = [line.get_ydata() for line in dashed if line.get_linestyle() == "--"]
    assert originals
    for one in originals:
        assert np.abs(rows - one).sum(1).min() < 1e-2


@pytest.mark.parametrize("to", ["npy", "csv", "h5ad"])
def test_latents_of_all_data_come_in_the_order_of_their_file(tmp_path: Path, to: str) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y = np.arange(60) % 4
    header, numbered = "id,p,q,r,kind", enumerate(zip(x.tolist(), y, strict=True))
    lines = [f"s{n},{','.join(map(repr, row))},{kind}" for n, (row, kind) in numbered]
    (tmp_path / "own.csv").write_text("\n".join([header, *lines]))
    run = str(tmp_path / "run")
    train = ["train", "--data", str(tmp_path / "own.csv"), "--labels", "kind", *STEPS]
    assert main([*train, "--batch-size", "20", "--out", run]) == 0
    out = tmp_path / f"latents.{to}"
    assert main(["encode", run, "--out", str(out)]) == 0
    opened = open_run(run)
    with torch.no_grad():
        expected = opened.encode(torch.from_numpy(x)).mean.numpy()
    held_out = set(opened.data.held_out.tolist())
    splits = ["test" if row in held_out else "train" for row in range(60)]
    if to == "npy":
        found, rows = np.load(out), out.with_suffix(".rows.csv")
        about = list(csv.DictReader(rows.read_text().splitlines()))
    elif to == "csv":
        assert b"\r" not in out.read_bytes()
        about = list(csv.DictReader(out.read_text().splitlines()))
        found = np.array([[float(row[f"z{k}"]) for k in (1, 2, 3)] for row in about])
    else:
        anndata = pytest.importorskip("anndata")
        table = anndata.read_h5ad(out)
        found, about = table.X, table.obs.to_dict("records")
        assert list(table.var_names) == ["z1", "z2", "z3"]
        assert list(table.obs_names) == [f"s{n}" for n in range(60)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [row["split"] for row in about] == splits
    assert [row["label"] for row in about] == [str(label) for label in y]
    assert [row["name"] for row in about] == [f"s{n}" for n in range(60)]
    (tmp_path / "unlabelled.csv").write_text(
        "\n".join(line.rpartition(",")[0] for line in [header, *lines])
    )
    other = opened.load_data(source=str(tmp_path / "unlabelled.csv"))
    assert other.train_labels is None
    assert other.digest == opened.data.digest


def test_tables_of_standardised_columns_are_in_the_units_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal([2e5, 0.0], [3e6, 1e-3], (60, 2))
    path, run = tmp_path / "own.csv", str(tmp_path / "run")
    np.savetxt(path, x, delimiter=",", header="price,height", comments="")
    train = ["train", "--data", str(path), *STEPS]
    assert main([*train, "--standardise", "all", "--out", run]) == 0
    assert "should have values near 1" not in capsys.readouterr().err
    with pytest.warns(DataWarning, match="typical values of .* in 'price'"):
        prepare(RunConfig(data=str(path)))
    opened = open_run(run)
    rows = opened.data.train
    assert isinstance(rows, Tensor)
    assert opened.data.places is not None
    of_file = x[opened.data.places[: len(rows)]]
    np.testing.assert_allclose(opened.in_file_units(rows), of_file, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(opened.from_file_units(opened.in_file_units(rows)), rows)
    other = tmp_path / "other.csv"  # standardised by the training data too
    np.savetxt(other, 2 * x, delimiter=",", header="price,height", comments="")
    with pytest.warns(DataWarning, match="other values now"):
        doubled = opened.load_data(source=str(other)).train
    assert isinstance(doubled, Tensor)
    np.testing.assert_allclose(opened.in_file_units(doubled), 2 * of_file, rtol=1e-3, atol=1e-6)
    assert main(["reconstruct", run, "--to", "csv", "--number", "3"]) == 0
    written = np.loadtxt(tmp_path / "run" / "reconstructions.csv", delimiter=",", skiprows=1)
    seen = opened.reconstruct(stacked(opened.data.test, 3))
    expected = seen.numpy() * of_file.std(0) + of_file.mean(0)
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["grey", "points"])
def test_commands_write_what_the_run_returns(
    runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    run, folder = open_run(runs[name]), str(runs[name])
    a, b = run.data.test[2], run.data.test[5]
    made = {
        "reconstruct": (
            ["--number", "4"],
            run.reconstruct(run.data.test[:: len(run.data.test) // 4][:4]),
        ),
        "interpolate": (
            ["--start", "2", "--end", "5", "--steps", "3", "--space", "representation"],
            run.interpolate(a, b, steps=3, space="representation"),
        ),
        "sample": (["--number", "5", "--draw"], run.sample(5, draw=True)),
    }
    for command, (options, expected) in made.items():
        array, picture = tmp_path / f"{command}.npy", tmp_path / f"{command}.png"
        assert (
            main(
                [command, folder, *options, "--out", str(array)]
                + (["--to", "npy"] if command == "sample" else [])
            )
            == 0
        )
        np.testing.assert_allclose(np.load(array), expected.numpy(), rtol=1e-5, atol=1e-5)
        assert main([command, folder, *options, "--to", "png", "--out", str(picture)]) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert (
            main([command, folder, *options, "--to", "csv", "--out", str(tmp_path / "x.csv")]) == 0
        )
        lines = list(csv.reader((tmp_path / "x.csv").read_text().splitlines()))
        assert len(lines) == 1 + len(expected)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("encode RUN --to xlsx", "--to must be one of csv, h5ad, npy; got 'xlsx'"),
        ("encode RUN --out x.png", "ends in .npy or .csv or .h5ad, got 'x.png'; give x.npy"),
        ("sample RUN --to npy --out x.csv", "ends in .npy, got 'x.csv'; give x.npy"),
        ("interpolate RUN --end 4000", "held-out data, from 0 to 199, got 4000"),
        ("interpolate RUN --space z", "space must be one of generation, representation; got 'z'"),
        ("reconstruct RUN --number 0", "number must be at least 1, got 0"),
    ],
)
def test_files_and_places_that_do_not_exist_are_refused(
    runs: dict[str, Path], command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.replace("RUN", str(runs["points"])).split()) == 2
    assert message in capsys.readouterr().err
