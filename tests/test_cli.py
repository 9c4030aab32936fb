"""The commands, called as a user calls them."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_dpvae.cli import main
from pyro_dpvae.runs import RunFolder
from tests.children import end_of, fork, wait_for

FAST = ["--steps", "3", "--batch-size", "20", "--latent-dim", "2"]
EAGER = ["--backend", "eager"]  # to record a step takes longer than three of them do


def train(*arguments: str) -> int:
    return main(["train", *arguments, *FAST])


def test_train_and_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    status = train(
        *("--data", "digits", "--prior", "coupling", "--prior.blocks=4"),
        *("--prior.hidden", "[8]", "--objective", "beta", "--objective.beta", "4"),
        *("--likelihood", "logistic", "--network", "mlp", "--network.hidden", "[32]"),
        *("--out", str(out)),
    )
    assert status == 0
    assert "held-out ELBO" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["prior"] == {
        "name": "coupling",
        "blocks": 4,
        "hidden": [8],
        "activation": "silu",
    }
    assert config["objective"]["beta"] == 4
    assert config["preprocessing"] == "grey"
    records = list(RunFolder(out).records())
    assert records[0]["objective"]["rate"] == {"name": "BetaRate", "beta": 4.0}
    logged = next(record for record in records if "loss" in record)
    assert {"step", "loss", "distortion", "rate", "seconds"} <= set(logged)
    assert any(record.get("backend") == "fx" for record in records)
    assert records[-1]["held_out"]["elbo"] < 0
    checkpoint = RunFolder(out).checkpoint()
    assert (checkpoint.step, checkpoint.state["item_shape"]) == (3, [1, 8, 8])
    assert checkpoint.state["dataset_size"] == 1617

    assert main(["sample", str(out), "--number", "7"]) == 0
    samples = np.load(out / "samples.npy")
    assert samples.shape == (7, 1, 8, 8)
    assert 0 <= samples.min() <= samples.max() <= 1
    assert main(["sample", str(out), "--number", "7", "--out", str(tmp_path / "again.png")]) == 0
    assert np.array_equal(np.load(tmp_path / "again.npy"), samples)
    assert main(["sample", str(out), "--number", "7", "--out", str(tmp_path / "rows.csv")]) == 0
    rows = np.loadtxt(tmp_path / "rows.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(rows, samples.reshape(7, -1), rtol=1e-6)


def test_a_run_is_repeated_by_its_seed(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert (
            train("--data", "two-moons", *EAGER, "--seed", seed, "--out", str(tmp_path / name))
            == 0
        )
        assert main(["sample", str(tmp_path / name)]) == 0
    a, b, c = (np.load(tmp_path / name / "samples.npy") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_print_config_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                "--data",
                "two-moons",
                "--prior",
                "standard",
                *FAST,
                *EAGER,
                "--print-config",
            ]
        )
    config = tmp_path / "config.yaml"
    config.write_text(capsys.readouterr().out)
    out = tmp_path / "run"
    assert main(["train", "--config", str(config), "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["prior"] == {"name": "standard"}
    again = str(tmp_path / "again")
    assert main(["train", "--config", str(out / "config.json"), "--out", again]) == 0


@pytest.mark.parametrize(
    ("preprocessing", "likelihood", "network"),
    [
        ("binary-static", "bernoulli", "mlp"),
        ("binary-dynamic", "bernoulli", "residual"),
        ("grey", "continuous-bernoulli", "mlp"),
        ("grey", "logistic", "mlp"),
        ("grey", "logistic-mixture", "residual"),
        ("dequantised", "gaussian-pixel", "mlp"),
        ("logit", "gaussian", "mlp"),
        ("grey", "gaussian-learned", "residual"),
        ("grey", "laplace-learned", "mlp"),
    ],
)
def test_every_likelihood_and_preprocessing(
    tmp_path: Path, network: str, preprocessing: str, likelihood: str
) -> None:
    out = str(tmp_path / "run")
    options = ["--preprocessing", preprocessing, "--likelihood", likelihood, "--network", network]
    options += ["--prior", "standard"]
    assert train("--data", "digits", *options, "--out", out) == 0
    assert main(["sample", out, "--number", "4"]) == 0


def save(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


GREY = np.random.default_rng(0).integers(0, 256, (50, 12, 10), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits", "--likelihood", "bernoulli"], "Bernoulli .*binary-static"),
        (["--data", "digits", "--network", "mnist"], r"28.*got \(1, 8, 8\).*residual"),
        (["--data", "digits", "--preprocessing", "none"], "images need another one"),
        (["--data", "digits", "--preprocessing", "gray"], "preprocessing must be one of"),
        (["--data", "two-moons", "--batch-size", "3000"], "at most .* got 3000 for 2000"),
        (["--data", "two-moons", "--latent-dim", "1"], r"got 1; use StandardNormal\(1\)"),
        (["--data", "two-moons", "--epochs", "2"], "give steps or epochs, not both"),
        (
            ["--data", "two-moons", "--device", "warp"],
            "device must be auto, cpu, or .* got 'warp'",
        ),
        (["--data", "nosuchdata"], "data must be one of .*two-moons.*got 'nosuchdata'"),
        (["--data", "nosuch.npz"], "nosuch.npz does not exist"),
        (["--data", "mnist", "--root", "/nowhere"], "/nowhere.*download"),
        (["--data", "two-moons", "--learning-rate", "0"], "--learning-rate must be positive"),
        (["--data", "two-moons", "--backend", "jit"], "backend must be one of cudagraph, eager"),
        (["--data", "two-moons", "--steps", "0"], "--steps must be at least 1, got 0"),
        (
            ["--data", "two-moons", "--objective.num_particles", "0"],
            "--objective.num_particles must be at",
        ),
        (
            ["--data", "two-moons", "--guide", "flow", "--guide.hidden", "[-1]"],
            "every width of --guide.hidden must be at least 1, got -1",
        ),
    ],
)
def test_bad_input_is_one_clear_error_before_training(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", *FAST, *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.arange(50)}, "these look like labels"),
        ({"images": np.full((50, 4, 4), np.nan)}, "finite, got 800 NaN"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "must not be empty, got an array"),
        ({"images": np.full((50, 4, 4), 2.5)}, r"must lie in \[0, 1\], got \[2.5, 2.5\]"),
        ({"a": GREY, "b": GREY}, "data array is not clear.* got arrays"),
        ({"images": GREY[:, None, :, :, None]}, r"got items of shape \(1, 12, 10, 1\)"),
    ],
)
def test_bad_files_are_refused(
    arrays: dict[str, np.ndarray],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("--data", save(tmp_path, **arrays), "--out", str(tmp_path / "run")) == 2
    assert re.search(message, capsys.readouterr().err)


def test_images_of_any_size_from_a_file(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train("--data", save(tmp_path, images=GREY), *EAGER, "--out", str(out)) == 0
    assert RunFolder(out).checkpoint().state["item_shape"] == [1, 12, 10]


@pytest.mark.parametrize("kind", ["prior", "likelihood", "network", "guide", "objective"])
def test_a_part_of_a_file_that_there_is_not_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{kind}: nonesuch\n")
    arguments = ["--config", str(config), "--data", "two-moons", "--out", str(tmp_path / "run")]
    assert train(*arguments) == 2
    assert f"{kind} must be one of " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b", "must be YAML or JSON, got"),
        ("", "must map options to values, got None"),
        ("[" * 1500, "must be YAML or JSON, got"),
        ("a: &a [x]\n" + "b: &b [*a, *a]\n" + "c: [" + "*b, " * 5000 + "]", "more than 10000"),
        ("steps: 2020-01-01", "values must be numbers, text, lists or mappings"),
        ("1: 2", "names of options must be text, got 1"),
        ("config: other.yaml", "must hold options, got a file in it, 'other.yaml'"),
    ],
)
def test_bad_configurations_are_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert train("--config", str(config), "--data", "two-moons") == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_arrays_of_objects_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert train("--data", str(path), "--out", str(tmp_path / "run")) == 2
    assert "arrays of objects are not unpickled" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["prior", "likelihood", "network", "guide", "objective"])
def test_unknown_parts_are_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "two-moons", f"--{kind}", "nonesuch") == 2
    error = capsys.readouterr().err
    assert re.search(f"error: --{kind} must be one of .*, .*; got 'nonesuch'", error)
    assert ".name" not in error


def test_a_refused_command_line_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--batchsize", "3"], "there is no option --batchsize (did you mean --batch-size?)"),
        (
            ["--prior.variance", "3"],
            "there is no option --prior.variance (variance is an option of likelihood gaussian)",
        ),
        (
            ["--variance", "0.1"],
            "there is no option --variance (variance is an option of likelihood gaussian)",
        ),
        (["--clip-norm", "x"], "--clip-norm must be a number or null; got x"),
        (["--prior.hidden", "[a]"], "--prior.hidden must be a list of whole numbers; got a"),
        (["--steps"], "--steps must be followed by a value"),
    ):
        assert train("--data", "two-moons", *arguments) == 2
        told = f"dpvae train: error: {message}; 'dpvae train --help' lists the options\n"
        assert capsys.readouterr().err == told


def test_a_wrong_value_of_a_file_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"seed": "x"}')
    assert train("--data", "two-moons", "--config", str(tmp_path / "config.json")) == 2
    assert capsys.readouterr().err == "dpvae train: error: seed must be a whole number; got x\n"


def test_an_option_of_another_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "two-moons", "--prior", "standard", "--prior.blocks", "3") == 2
    assert "--prior.blocks" in capsys.readouterr().err


def test_a_run_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert train("--data", "two-moons", *EAGER, "--out", out) == 0
    assert train("--data", "two-moons", *EAGER, "--out", out) == 2
    assert "already contains a run" in capsys.readouterr().err
    assert main(["sample", str(tmp_path)]) == 2
    assert "it has no config.json" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_folder_in_a_file_is_refused_by_name(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as refused:
        RunFolder.create(tmp_path / out, {})
    assert str(refused.value) == (
        f"{tmp_path / out} cannot be a folder: {tmp_path / 'file'} is a file; choose another "
        "folder, or remove the file"
    )


def test_ctrl_c_leaves_a_usable_run(tmp_path: Path) -> None:
    out, told = tmp_path / "run", tmp_path / "told"
    metrics = out / "metrics.jsonl"
    steps = ["--steps", "1000000", "--log-every", "1"]

    def command() -> None:
        # A shell ignores Ctrl-C on behalf of what it runs in the background, tests included.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with told.open("w", buffering=1) as sys.stdout, told.open("a", buffering=1) as sys.stderr:
            status = main(["train", "--data", "two-moons", *EAGER, *steps, "--out", str(out)])
        os._exit(status)

    child = fork(command)
    try:
        wait_for(lambda: metrics.exists() and '"loss"' in metrics.read_text(), child)
    finally:
        os.kill(child, signal.SIGINT)
    assert end_of(child) == 130, told.read_text()
    assert "the run is usable" in told.read_text()
    assert main(["sample", str(out)]) == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("can't allocate memory: x"),
    ],
)
def test_what_does_not_fit_into_memory_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pyro_dpvae.recipes.config.build_system", build)
    assert train("--data", "two-moons") == 2
    assert "error: out of memory" in capsys.readouterr().err


def test_a_diverged_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "two-moons", "--learning-rate", "1e6", "--latent-dim", "2"]
    assert main(["train", *arguments, "--steps", "200", "--out", str(tmp_path / "run")]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"training has diverged at step \d+: .*; lower --learning-rate",
        error,
    )


def test_windows_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["recipes"]) == 2
    assert "must be Linux or macOS, got Windows; use the Windows Subsystem" in (
        capsys.readouterr().err
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert main(["--version"]) == 0
    assert main(["nonesuch"]) == 2
    assert (
        "must be one of compare, data, demo, encode, evaluate, explore, interpolate, plot, "
        "recipes, reconstruct, report, sample, train; got 'nonesuch'" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert "--prior PRIOR" in text or "--prior NAME" in text
    assert "--prior.blocks" in text


def test_the_demo_draws_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "20", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "two-moons.png").stat().st_size > 50_000
    assert capsys.readouterr().out.count("+-") >= 6
