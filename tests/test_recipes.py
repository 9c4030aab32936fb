"""Systems by the names of papers, and models by the names of the command line."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pyro_dpvae import (
    VAE,
    ClusteringLadderVAE,
    CouplingPrior,
    LadderVAE,
    LossyVAE,
    MixturePrior,
    StandardNormal,
)
from pyro_dpvae.cli import main
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.recipes import (
    DPVAE_DATA_SETS,
    RECIPES,
    REGULARIZERS,
    build_system,
    dpvae_recipe,
    open_run,
)

SYSTEMS = [name for name, recipe in RECIPES.items() if "data" not in recipe.options]

MODELS = {"ladder": LadderVAE, "clustering-ladder": ClusteringLadderVAE, "lossy": LossyVAE}

SMALL = {
    "ladder-vae": ["--objective.schedule.beta.steps", "4"],
    "lossy-vae": ["--latent-dim", "6"],
    "mae": ["--latent-dim", "6", "--pixels.width", "8"],
    "rme": ["--growth-steps", "2"],
    "vlac": ["--cluster-step", "2", "--objective.schedule.beta.steps", "4"],
    "vlae-laplace": ["--latent-dim", "4", "--guide.steps", "1"],
}


SHAPES = {
    "two-moons": (2,),
    "mnist": (1, 28, 28),
    "svhn": (3, 32, 32),
    "celeba": (3, 64, 64),
}


def train(*arguments: str) -> int:
    return main(["train", "--data", "digits", "--backend", "eager", *arguments])


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments, "--print-config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_what_the_command_line_resolves_to(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(["--recipe", name], capsys)
    assert found["recipe"] == name
    for key, value in RECIPES[name].options.items():
        wanted = value if isinstance(value, dict) else {"": value}
        got = found[key] if isinstance(value, dict) else {"": found[key]}
        wanted = {option: value for option, value in wanted.items() if option != "schedule"}
        assert {option: got[option] for option in wanted} == wanted


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_recipe_trains_opens_and_samples(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = SMALL[name.removesuffix("-dp")]
    assert train("--recipe", name, "--steps", "4", *small, "--out", str(out)) == 0
    model = open_run(out).system.model
    options = RECIPES[name].options
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    clusters = [record["step"] for record in records if "clusters" in record]
    assert clusters == ([2] if "vlac" in name else [])
    assert type(model) is MODELS.get(options.get("model", {}).get("name"), VAE)
    assert main(["sample", str(out), "--number", "2"]) == 0
    assert (out / "samples.png").stat().st_size > 1000


def test_a_recipe_yields_to_a_file_and_that_to_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    content = {"recipe": "vlae-laplace", "guide": {"name": "laplace", "steps": 7}, "epochs": 3}
    file.write_text(yaml.safe_dump(content))
    arguments = ["--data", "digits", "--config", str(file)]
    found = printed([*arguments, "--prior", "coupling", "--batch-size", "17"], capsys)
    assert found["guide"]["steps"] == 7
    assert found["epochs"] == 3
    assert found["prior"]["name"] == "coupling"
    assert found["batch_size"] == 17
    assert found["latent_dim"] == 50  # of the recipe
    assert found["guide"]["damping"] == 0.5


def test_a_recipe_of_the_command_line_goes_before_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = printed(["--data", "digits", "--recipe", "ladder-vae"], capsys)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**whole, "seed": 7}))
    found = printed(["--config", str(file), "--recipe", "rme", "--recipe", "vlac"], capsys)
    assert found["recipe"] == "vlac"
    assert found["model"] == {"name": "clustering-ladder", "assignment": "network"}
    assert found["prior"]["components"] == 30
    assert found["cluster_step"] == 500
    assert found["seed"] == 7
    unset = printed(["--config", str(file), "--recipe", "vlac", "--cluster-step", "null"], capsys)
    assert unset["cluster_step"] is None


def test_the_ladders_rate_comes_in_as_stated() -> None:
    options = RECIPES["ladder-vae"].options
    kinds = ("model", "prior", "likelihood", "objective")
    parts = {kind: options[kind] for kind in kinds}
    guide, network = {"name": "amortized"}, {"name": "auto"}
    built = build_system((1, 8, 8), dataset_size=10, guide=guide, network=network, **parts)
    built.objective.step = 1000
    built.objective.begin_step()
    weight = float(built.objective.rate.weight("beta"))
    assert weight == pytest.approx(1 - math.exp(-1000 / 2000), abs=1e-6)


def test_a_part_of_another_name_loses_the_options_of_the_recipes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = printed(["--data", "digits", "--recipe", "mae", "--objective", "beta"], capsys)
    assert found["objective"]["name"] == "beta"
    assert "eta" not in found["objective"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--steps", "500"],
            "must be smaller than steps, got cluster_step=500 and steps=500",
        ),
        (["--steps", "9", "--cluster-step", "2", "--prior.components", "5000"], "5000"),
        (["--model", "ladder", "--prior", "standard"], "components of a MixturePrior"),
    ],
)
def test_clusters_that_cannot_start_are_refused_before_there_is_a_run(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train("--recipe", "vlac", *options, "--out", str(out)) != 0
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "digits", "--recipe", "ladder"]) != 0
    assert "got 'ladder'; did you mean ladder-vae" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_number_has_a_source_or_says_that_it_has_none(name: str) -> None:
    recipe = RECIPES[name]
    numbers = dict(recipe.numbers())
    assert all(recipe.origin(option)[0] for option in numbers)
    for key in (*recipe.sources, *recipe.unknown):  # and none is of a number that is not there
        assert any(option == key or option.startswith(f"{key}.") for option in numbers)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("data", DPVAE_DATA_SETS)
def test_the_papers_pairs_differ_in_their_prior_alone(data: str, regularizer: str) -> None:
    plain, decoupled = (
        dict(RECIPES[dpvae_recipe(data, regularizer, decoupled=decoupled)].options)
        for decoupled in (False, True)
    )
    assert plain.pop("prior") == {"name": "standard"}
    assert decoupled.pop("prior")["name"] == "coupling"
    assert plain == decoupled
    size, count = plain["latent_dim"], 60_000
    parts = {key: plain[key] for key in ("likelihood", "network", "guide", "objective")}
    prior = {"name": "standard"}
    shape = SHAPES[data]
    build = partial(build_system, shape, latent_dim=size, dataset_size=count, prior=prior)
    model = build(**parts).model
    assert model.decoder(torch.zeros(2, size)).mean.shape == (2, *shape)


@pytest.mark.parametrize(
    ("name", "decoupled", "expected"),
    [
        # What weighs a batch as a whole, beside sums over its data, is divided by their number.
        ("vae", False, {"likelihood.variance": 0.5}),
        ("beta-vae-h", True, {"likelihood.variance": 0.05, "objective.beta": 5.0}),
        ("beta-vae-b", False, {"objective.gamma": 15.0, "objective.capacity": 25 / 24}),
        ("beta-tcvae", False, {"objective.beta": 0.04, "objective.gamma": 0.15}),
        ("beta-tcvae", True, {"objective.alpha": 0.01, "objective.gamma": 1.5, "steps": 200_000}),
        ("factor-vae", True, {"objective.gamma": 1000 / 24, "network.name": "mnist-factor"}),
        ("info-vae", True, {"objective.lambda_": 1 + 999 / 24, "learning_rate": 1e-3}),
    ],
)
def test_the_authors_numbers_are_per_datum(
    name: str, decoupled: bool, expected: dict[str, Any]
) -> None:
    recipe = RECIPES[dpvae_recipe("mnist", name, decoupled=decoupled, variant="authors-code")]
    numbers = dict(recipe.numbers())
    assert {option: numbers[option] for option in expected} == pytest.approx(expected)


def test_a_recipe_of_fewer_steps_has_its_schedules_in_proportion() -> None:
    recipe = RECIPES["mnist-beta-vae-b"]
    numbers = dict(recipe.at(1000).numbers())
    assert (numbers["steps"], numbers["objective.schedule.capacity.steps"]) == (1000, 1000)
    assert dict(recipe.numbers())["objective.schedule.capacity.steps"] == 100_000
    with pytest.raises(ValueError, match="needs a number of steps"):
        RECIPES["ladder-vae"].at(10)


def test_the_authors_code_has_mnist_alone() -> None:
    with pytest.raises(ValueError, match="of mnist alone, got 'svhn'"):
        dpvae_recipe("svhn", "vae", decoupled=False, variant="authors-code")


def test_overrides_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--override", "objective.beta=2", "--override=learning_rate=0.01"]
    arguments += ["--override", "prior=standard"]
    found = printed(["--recipe", "mnist-beta-vae-h-dp", *arguments], capsys)
    assert found["objective"]["beta"] == 2
    assert found["learning_rate"] == 0.01
    assert found["prior"] == {"name": "standard"}
    assert main(["train", "--recipe", "mnist-vae", "--override", "beta"]) == 2
    assert "must be KEY=VALUE, got 'beta'" in capsys.readouterr().err


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert main(["recipes", "mnist-info-vae-dp"]) == 0
    known, unknown = capsys.readouterr().out.split("unknown, and chosen:")
    assert "objective.alpha" in known
    assert "objective.lambda_" in unknown
    assert main(["recipes", "mnist-info"]) == 2
    assert "recipe must be one of those" in capsys.readouterr().err


def system(**parts: Any) -> AbstractVAE:
    usual: dict[str, Any] = {
        "latent_dim": None,
        "prior": {"name": "coupling"},
        "likelihood": {"name": "bernoulli"},
        "network": {"name": "auto"},
        "guide": {"name": "amortized"},
        "objective": {"name": "elbo"},
    }
    return build_system((1, 8, 8), dataset_size=10, **{**usual, **parts}).model


def test_each_layer_has_its_prior_or_all_have_one() -> None:
    latent_dims = {"name": "ladder-mlp", "latent_dims": [2, 3]}
    apart = system(model={"name": "ladder"}, network=latent_dims)
    assert isinstance(apart, LadderVAE)
    assert [prior.latent_dim for prior in apart.prior.priors] == [2, 3]
    assert all(isinstance(prior, CouplingPrior) for prior in apart.prior.priors)
    joint = system(model={"name": "ladder", "joint": True}, network=latent_dims)
    assert isinstance(joint, VAE)
    assert isinstance(joint.prior, CouplingPrior)
    assert joint.prior.latent_dim == 5


@pytest.mark.parametrize("guide", ["flow", "recursive-mixture", "semi-amortized"])
def test_a_joint_prior_takes_other_guides(guide: str) -> None:
    assert isinstance(system(model={"name": "ladder", "joint": True}, guide={"name": guide}), VAE)


def test_a_vamp_prior_has_the_guides_encoder() -> None:
    built = build_system(
        (1, 8, 8),
        dataset_size=10,
        prior={"name": "vamp", "components": 3},
        likelihood={"name": "bernoulli"},
        network={"name": "mlp"},
        guide={"name": "amortized"},
        objective={"name": "elbo"},
    )
    assert built.model.prior.encoder is built.guide.encoder
    z = torch.zeros(4, 10)
    parts = built.guide.posterior(built.model.prior.pseudo_inputs)
    expected = torch.logsumexp(parts.log_prob(z.unsqueeze(1)), 1) - torch.tensor(3.0).log()
    torch.testing.assert_close(built.model.prior().log_prob(z), expected)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"network": {"name": "ladder-mlp"}}, "network of a vae model must be one of"),
        ({"model": {"name": "ladder"}, "network": {"name": "mlp"}}, "network of a ladder model"),
        ({"model": {"name": "ladder"}, "latent_dim": 7}, r"its latent_dims \(2, 2, 2\), got 7"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        (
            {
                "model": {"name": "ladder"},
                "network": {"name": "ladder-mlp", "latent_dims": [3, 0]},
            },
            r"every size of \(3, 0\) must be at least 1",
        ),
        ({"pixels": {"name": "local"}}, "pixel networks are part of a lossy model"),
        (
            {"model": {"name": "clustering-ladder"}},
            "CouplingPrior has no clusters",
        ),
        ({"model": {"name": "ladder"}, "guide": {"name": "flow"}}, "with model.joint"),
        (
            {"model": {"name": "lossy"}, "guide": {"name": "laplace"}},
            "expands the likelihood of a network's raw values",
        ),
        ({"model": {"name": "ladder"}, "prior": {"name": "vamp"}}, "layers of a ladder have none"),
        (
            {"prior": {"name": "vamp"}, "guide": {"name": "flow"}},
            "a vamp prior shares the encoder of the guide",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        system(**parts)


def test_a_ladder_with_standard_normals_is_the_ladder_of_the_paper() -> None:
    model = system(model={"name": "ladder"}, prior={"name": "standard"})
    assert isinstance(model, LadderVAE)
    assert all(isinstance(prior, StandardNormal) for prior in model.prior.priors)
    clusters = system(
        model={"name": "clustering-ladder"}, prior={"name": "mixture", "components": 4}
    )
    assert isinstance(clusters.prior.priors[0], MixturePrior)
