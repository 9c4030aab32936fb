"""One configuration for Python, command line and files; parts of the user's own by their paths."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pyro_dpvae import RunConfig, open_run, train
from pyro_dpvae.cli import main
from pyro_dpvae.cli.train_options import parsed
from pyro_dpvae.recipes.parts import KINDS
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import StepOptions
from tests.pages import run_command

MOONS: dict[str, Any] = {"data": "two-moons", "latent_dim": 2, "steps": 2, "backend": "eager"}
OWN = "tests.own_parts"


def arguments(options: dict[str, Any]) -> list[str]:
    return [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]


def test_command_line_python_and_file_make_the_same_configuration(tmp_path: Path) -> None:
    parts = {
        "prior": {"name": "coupling", "blocks": 2},
        "objective": {
            "name": "beta",
            "beta": 4,
            "schedule": {"beta": {"name": "linear", "start": 0, "steps": 5}},
        },
        "learning_rate_schedule": {"name": "cosine", "end": 1e-4},
    }
    config = RunConfig(**MOONS, **parts)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**MOONS, **parts}))
    dashed = tmp_path / "dashed.yaml"
    both = {**MOONS, **parts}
    dashed.write_text(yaml.safe_dump({key.replace("_", "-"): both[key] for key in both}))
    assert parsed(["--config", str(file)]).config == config
    assert parsed(["--config", str(dashed)]).config == config
    typed = [
        *arguments(MOONS),
        *("--prior", "coupling", "--prior.blocks", "2"),
        *("--objective", "beta", "--objective.beta=4", "--objective.schedule.beta", "linear"),
        *("--objective.schedule.beta.start", "0", "--objective.schedule.beta.steps", "5"),
        *("--learning-rate-schedule", "cosine", "--learning-rate-schedule.end", "1e-4"),
    ]
    assert parsed(typed).config == config
    assert parsed([one.replace("latent-dim", "latent_dim") for one in typed]).config == config
    assert RunConfig.of(json.loads(json.dumps(config.as_dict()))) == config


def test_every_option_of_a_run_has_a_description_and_its_default_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for one in fields(RunConfig):
        assert f"--{one.name.replace('_', '-')}" in text, one.name
    described = f"{RunConfig.__doc__}{StepOptions.__doc__}"
    assert all(f"{one.name}: " in described for one in fields(RunConfig))


def test_a_name_means_the_part_with_its_defaults_everywhere() -> None:
    for kind, about in KINDS.items():
        config = RunConfig(data="two-moons", **{kind: about.default})
        assert config == RunConfig(data="two-moons", **{kind: {"name": about.default}})
        assert config == RunConfig(data="two-moons")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "couplings"}, "prior must be one of .*coupling.*; got 'couplings'"),
        ({"prior": {"name": "coupling", "bloks": 2}}, r"'prior.bloks' \(did you mean prior.bl"),
        ({"prior": {"name": "standard", "blocks": 2}}, "blocks is an option of prior .*coupling"),
        ({"prior": {"name": "coupling", "blocks": "x"}}, "prior.blocks must be a whole number"),
        ({"guide": 3}, "guide must be a name, or a mapping"),
        ({"steps": 3, "epochs": 2}, "give steps or epochs, not both"),
        ({"data": ""}, "data must not be empty"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"preprocessing": "gray"}, "preprocessing must be one of .*grey"),
        ({"latentdim": 3}, r"no option 'latentdim' of a run \(did you mean latent_dim\?\)"),
        ({"learning_rate_schedule": "up"}, "learning_rate_schedule must be one of constant"),
        ({"objective": {"name": "beta", "schedule": "linear"}}, "must map weights to schedules"),
    ],
)
def test_wrong_options_are_refused_where_they_are_given(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig.of({"data": "two-moons", **options})


def test_a_configuration_names_the_nearest_field() -> None:
    # In a process of its own, since the checks of types in tests refuse arguments before.
    program = """
from pyro_dpvae import RunConfig
from pyro_dpvae.evaluation import EvaluationConfig
from pyro_dpvae.training import TrainConfig
for kind, options in (
    (RunConfig, {"data": "x", "step": 3}), (TrainConfig, {"stps": 3}), (EvaluationConfig, {"n": 3})
):
    try:
        kind(**options)
    except TypeError as error:
        print(error)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.splitlines() == [
        "RunConfig has no 'step' (did you mean steps?)",
        "TrainConfig has no 'stps' (did you mean steps?)",
        "EvaluationConfig has no 'n'",
    ]


def test_python_trains_opens_and_goes_on_as_the_command_line_does(tmp_path: Path) -> None:
    config = RunConfig(**MOONS, prior="standard")
    run = train(config, out=tmp_path / "python", progress=False)
    typed = [*arguments(MOONS), "--prior", "standard", "--out", str(tmp_path / "typed")]
    assert main(["train", *typed]) == 0
    other = open_run(tmp_path / "typed")
    assert run.config == other.config
    assert torch.equal(run.sample(5), other.sample(5))
    more = train(
        replace(run.config, steps=4), out=tmp_path / "python", resume=True, progress=False
    )
    assert main(["train", "--resume", str(tmp_path / "typed"), "--steps", "4"]) == 0
    assert torch.equal(more.sample(5), open_run(tmp_path / "typed").sample(5))
    # Each goes on with what the other one trained.
    assert main(["train", "--resume", str(tmp_path / "python"), "--steps", "5"]) == 0
    with pytest.raises(ValueError, match="would change --prior"):
        train(RunConfig(**{**MOONS, "steps": 9}), out=tmp_path / "python", resume=True)
    with pytest.raises(FileExistsError, match="already contains a run"):
        train(config, out=tmp_path / "python", progress=False)


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("network", {"name": f"{OWN}.Tower", "width": 5}),
        ("network", {"name": f"{OWN}.Tied"}),
        ("prior", {"name": f"{OWN}.few_couplings", "pairs": 2}),
        ("likelihood", {"name": f"{OWN}.narrow", "scale": 0.3}),
        ("guide", {"name": f"{OWN}.plain_guide"}),
        ("objective", {"name": f"{OWN}.doubled", "times": 3.0}),
        ("model", {"name": "pyro_dpvae.models.VAE"}),
    ],
)
def test_a_part_of_ones_own_trains_opens_and_samples(
    part: str, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    typed = [f"--{part}={options['name']}"]
    typed += [f"--{part}.{key}={value}" for key, value in options.items() if key != "name"]
    assert main(["train", *arguments(MOONS), *typed, "--out", str(out)]) == 0
    assert RunFolder(out).config[part] == options
    assert main(["sample", str(out), "--number", "2"]) == 0
    system = open_run(out).system
    if options["name"].endswith("Tower"):
        sizes = {tuple(weight.shape) for weight in system.model.decoder.parameters()}
        assert (5, 2) in sizes
    if options["name"].endswith("Tied"):
        encoder = {id(weight) for weight in system.guide.parameters()}
        assert encoder & {id(weight) for weight in system.model.decoder.parameters()}


def test_every_encoder_of_a_mixture_has_a_network_of_its_own() -> None:
    guide = {"name": "recursive-mixture", "components": 2}
    config = RunConfig(data="two-moons", latent_dim=2, network=f"{OWN}.Tower", guide=guide)
    encoders = config.build((2,), dataset_size=9).guide.components
    first, second = ({id(weight) for weight in one.parameters()} for one in encoders)
    assert first
    assert not first & second


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("network", f"{OWN}.Halfway", "Halfway has no such decoder"),
        ("network", f"{OWN}.Wide", r"raw values of shape \(2,\), got \(7,\)"),
        ("network", "os.system", "os.system is no subclass of torch.nn.modules.module.Module"),
        ("network", "shutil.rmtree", "or of a function annotated to return one"),
        ("prior", f"{OWN}.unannotated", r"'def unannotated\(...\) -> AbstractPrior:'"),
        ("prior", f"{OWN}.of_tensor", "or of a function annotated to return one"),
        ("prior", f"{OWN}.Tower", "a class of pyro_dpvae.priors._base.AbstractPrior"),
        ("prior", "nowhere.Prior", "cannot be imported .*add that folder to PYTHONPATH"),
        ("prior", f"{OWN}.few_coupling", r"has no few_coupling \(did you mean few_couplings\?\)"),
    ],
)
def test_what_is_no_part_is_refused_and_never_called(part: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(data="two-moons", latent_dim=2, **{part: name}).build((2,), dataset_size=9)


def test_an_argument_without_a_type_must_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [*arguments(MOONS), "--network", f"{OWN}.untyped", "--out", str(tmp_path / "run")]
    assert main(["train", *typed]) == 2
    assert "network.width" in capsys.readouterr().err
    assert main(["train", *typed, "--network.width", "7"]) == 0
    assert open_run(tmp_path / "run").config.part("network")["width"] == 7


def test_a_run_with_a_class_that_is_missing_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "nets.py").write_text((Path(__file__).parent / "own_parts.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    typed = [*arguments(MOONS), "--network", "mine.nets.Tower", "--out", str(tmp_path / "run")]
    # In a child, so that this process, which is to miss the class, has never imported it.
    run_command(["dpvae", "train", *typed], tmp_path)
    package.rename(tmp_path / "moved")
    assert main(["sample", str(tmp_path / "run")]) == 2
    assert "mine.nets.Tower cannot be imported" in capsys.readouterr().err


def test_a_sweep_trains_each_combination_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    typed = [*arguments(MOONS), "--prior", "standard", "--objective", "beta", "--out", str(out)]
    several = ["--seeds", "0,1", "--sweep", "objective.beta=1,4", "--sweep", "latent-dim=2,3"]
    assert main(["train", *typed, *several]) == 0
    table = capsys.readouterr().out.splitlines()
    rows = [line for line in table if line.startswith("objective.beta=")]
    names = [f"objective.beta={beta},latent_dim={size}" for beta in (1, 4) for size in (2, 3)]
    assert [row.split()[0] for row in rows] == names
    for name in names:
        runs = [RunFolder(out / name / f"seed-{seed}") for seed in (0, 1)]
        values = [[*run.records()][-1]["held_out"]["elbo"] for run in runs]
        row = next(row for row in rows if row.startswith(name))
        assert f"{sum(values) / 2:.3f} ±" in row
        assert [run.config["seed"] for run in runs] == [0, 1]
    kept = (out / names[0] / "seed-0" / "metrics.jsonl").read_bytes()
    assert main(["train", *typed, *several]) == 0  # nothing is trained again
    assert (out / names[0] / "seed-0" / "metrics.jsonl").read_bytes() == kept
    assert [line for line in capsys.readouterr().out.splitlines() if line in rows] == rows


def test_a_sweep_takes_lists_and_names_of_parts_in_any_order(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    several = ["--sweep", "prior.hidden=[4],[8,8]", "--sweep", "prior=coupling"]
    assert main(["train", *arguments(MOONS), "--out", str(out), *several]) == 0
    for hidden in ([4], [8, 8]):
        text = str(hidden).replace(" ", "")
        config = RunFolder(out / f"prior.hidden={text},prior=coupling" / "seed-0").config
        assert config["prior"]["name"] == "coupling"
        assert config["prior"]["hidden"] == hidden


def test_a_recipe_is_where_a_configuration_starts() -> None:
    found = RunConfig(data="two-moons", recipe="mnist-beta-tcvae-dp", steps=5)
    assert found == RunConfig.from_recipe("mnist-beta-tcvae-dp", data="two-moons", steps=5)
    assert found == RunConfig.of({"data": "two-moons", "recipe": found.recipe, "steps": 5})
    assert (found.objective["name"], found.latent_dim) == ("beta-tc", 2)
    assert RunConfig.of(found.as_dict()) == found
    changed = replace(found, prior="standard", objective="elbo")
    assert (changed.prior, changed.objective["name"]) == ({"name": "standard"}, "elbo")
    with pytest.raises(ValueError, match=r"recipe must be one of .*got 'nonsense'"):
        RunConfig(data="two-moons", recipe="nonsense")


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    found = RunConfig.of(
        {
            "data": "two-moons",
            "seed": np.int64(3),
            "steps": torch.tensor(7),
            "learning_rate": np.float32(0.5),
            "prior": {"name": "coupling", "blocks": np.int64(4)},
        }
    )
    expected = RunConfig(
        data="two-moons",
        seed=3,
        steps=7,
        learning_rate=0.5,
        prior={"name": "coupling", "blocks": 4},
    )
    assert found == expected
    assert json.dumps(found.as_dict()) == json.dumps(expected.as_dict())
    with pytest.raises(ValueError, match="options of prior must be numbers, texts"):
        RunConfig(data="two-moons", prior={"name": "coupling", "blocks": object()})


def test_a_schedule_of_none_is_constant() -> None:
    options: dict[str, Any] = {"name": "beta", "beta": 4.0}
    settings = []
    for schedule in ({}, {"beta": None}, {"beta": {"name": "constant"}}):
        config = RunConfig(**{**MOONS, "objective": {**options, "schedule": schedule}})
        settings.append(config.build((2,), dataset_size=100).objective.settings)
    assert settings[0] == settings[1] == settings[2]


@pytest.mark.parametrize(
    ("several", "message"),
    [
        (["--sweep", "seed=0,1"], "give --seeds 0,1"),
        (["--sweep", "prior.hidden=[4,8"], "must be a number, a text or a list"),
        (["--seeds", "0,x"], "--seeds must be whole numbers"),
        (["--seeds", "0,0"], "--seeds must differ"),
        (["--sweep", "objective.beta"], "--sweep must be KEY=VALUE,VALUE"),
        (["--sweep", "objective.gamma=1,2"], "no option 'objective.gamma'"),
        (["--seeds", "0", "--resume", "x"], "got --resume x; give --out"),
    ],
)
def test_a_wrong_sweep_trains_nothing(
    several: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [] if "--resume" in several else ["--out", str(tmp_path / "out")]
    typed = [*arguments(MOONS), "--objective", "beta", *place, *several]
    assert main(["train", *typed]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_latents_have_the_labels_of_every_split_and_the_format_of_their_ending(
    tmp_path: Path,
) -> None:
    sizes = {"train": 12, "valid": 4, "test": 5}
    arrays = {f"x_{split}": torch.randn(size, 3).numpy() for split, size in sizes.items()}
    labels = {f"y_{split}": torch.arange(size).numpy() % 2 for split, size in sizes.items()}
    np.savez(tmp_path / "v.npz", **arrays, **labels)
    run = str(tmp_path / "run")
    typed = arguments({**MOONS, "data": tmp_path / "v.npz", "batch_size": 4})
    assert main(["train", *typed, "--out", run]) == 0
    file = tmp_path / "new" / "latents.CSV"
    assert main(["encode", run, "--out", str(file)]) == 0
    header, *rows = (line.split(",") for line in file.read_text().splitlines())
    at = header.index("label")
    assert [row[at] for row in rows] == [
        str(number % 2) for size in sizes.values() for number in range(size)
    ]
    assert main(["reconstruct", run, "--out", str(tmp_path / "r.CSV")]) == 0
    assert (tmp_path / "r.CSV").read_text().startswith("x1,x2,x3")
