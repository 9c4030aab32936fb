"""``dpvae train`` with any options and configuration files: trains, or says what is wrong."""

import contextlib
import io
import json
import random
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pyro_dpvae.cli import main
from pyro_dpvae.likelihoods import LIKELIHOODS
from pyro_dpvae.nn import ARCHITECTURES, LADDERS, PIXEL_NETWORKS
from pyro_dpvae.objectives import OBJECTIVES
from pyro_dpvae.recipes import GUIDES, MODELS, RECIPES, SYSTEM_PRIORS
from pyro_dpvae.runs import RunFolder
from tests.fuzzing import check_ended, damaged, outcome, scratch

PARTS = {
    "model": [*MODELS],
    "prior": [*SYSTEM_PRIORS],
    "likelihood": [*LIKELIHOODS],
    "network": ["auto", *ARCHITECTURES, *LADDERS],
    "pixels": ["auto", *PIXEL_NETWORKS],
    "guide": [*GUIDES],
    "objective": [*OBJECTIVES],
}
# Numbers that get past the parser, and some of which no part can be made ...
NUMBERS = ["1", "2", "3", "0", "-1", "0.5", "1.5", "-0.5", "1e-3", "1e-30", "1e30", "nan", "inf"]
NUMBERS += ["-inf", "4294967297", "[2,2]", "[0]", "[-1]", "[99999999]"]
# ... and what is no number, or none of any machine's.
OTHERS = ["1e400", "9" * 30, "9" * 5000, "true", "null", "", "x", "é\x00", "[]", "[3,1.5]", "["]
OTHERS += ["[null]", "[[]]", "{}", '{"name": 1}', "--prior", "="]
# Options that say how often something is done: a huge number is a long run, and no fault.
COUNTS = {"steps", "epochs", "growth-steps", "blocks", "num_particles", "depth"}
FIXED = {"--data", "--out", "--config", "--help", "--print-config", "--download", "--root"}


@cache
def options_of(parts: tuple[str, ...]) -> list[str]:
    """Return the options that the help of a choice of parts names, but those of the test."""
    text, state = io.StringIO(), random.getstate()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        main(["train", *parts, "--help"])
    random.setstate(state)  # which hypothesis forbids strategies to change
    return sorted(set(re.findall(r"(--[a-z][\w.-]*)", text.getvalue())) - FIXED)


def values_of(option: str) -> st.SearchStrategy[str]:
    """Return values, of which none asks for a run of years."""
    counted = option.rsplit(".")[-1].removeprefix("--") in COUNTS
    values = [*NUMBERS * 4, *OTHERS]
    return st.sampled_from([one for one in values if not (counted and len(one) > 9)])


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw some parts by name, and values for some of the options that they then have."""
    chosen = draw(st.lists(st.sampled_from([*PARTS]), unique=True, max_size=3))
    parts = [word for part in chosen for word in (f"--{part}", draw(st.sampled_from(PARTS[part])))]
    if draw(st.integers(0, 4)) == 0:
        parts = ["--recipe", draw(st.sampled_from([*RECIPES])), *parts]
    names = options_of(tuple(parts))
    given_options = draw(st.lists(st.sampled_from(names), max_size=3))
    return [*parts, *(f"{option}={draw(values_of(option))}" for option in given_options)]


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, -1, 2**40, 0.5, 1e300, float("nan"), float("inf")]),
    st.sampled_from(["x", "1", "null", "", "é\x00", *SYSTEM_PRIORS, *OBJECTIVES, *GUIDES]),
)
_NAMES = [
    "name",
    "schedule",
    "beta",
    "blocks",
    "hidden",
    "start",
    "end",
    "latent_dims",
    "components",
]
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)
    ),
    max_leaves=6,
)
_KEYS = [
    *PARTS,
    "latent_dim",
    "learning_rate",
    "preprocessing",
    "seed",
    "recipe",
    "config",
    "steps",
]
_KEYS += [
    "epochs",
    "batch_size",
    "backend",
    "device",
    "evaluate_every",
    "prior.blocks",
    "nonesuch",
]
_KEYS += ["out", "data", "resume", "print_config", "download"]
_WHOLE = {
    "prior": {"name": "coupling", "blocks": 2, "hidden": [4]},
    "objective": {
        "name": "beta",
        "beta": 2.0,
        "schedule": {"beta": {"name": "linear", "start": 0.0, "steps": 2}},
    },
    "network": {"name": "mlp", "hidden": [4]},
    "latent_dim": 2,
    "learning_rate": 1e-3,
}
_TEXTS = [
    "&a [*a]",
    "prior: &a {name: *a}",
    "prior: &a\n  name: coupling\n  hidden: [*a]",
    "&a [1, 2]: 3",
    "steps: 2020-01-01",
    "1: 2",
    "prior: {1: 2}",
    "prior: !!python/object/apply:os.getcwd []",
    "prior: !!binary aGVsbG8=",
    "prior: !!set {a, b}",
    "[" * 1500,
    "{prior: " * 1500,
    "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz")),
    "\ufeffsteps: 2",
    "--- 1\n--- 2",
    "%YAML 9.9\n---\nsteps: 2",
    "\x00",
]


@st.composite
def config_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the name and the content of a file of options: any values, or damaged ones."""
    kind = draw(st.sampled_from(["any", "any", "damaged", "text"]))
    ending = draw(st.sampled_from(["yaml", "json"]))
    write = json.dumps if ending == "json" else yaml.safe_dump
    match kind:
        case "any":
            entries = draw(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=3))
            return f"config.{ending}", write({**_WHOLE, **entries}).encode()
        case "damaged":
            return f"config.{ending}", draw(damaged(write(_WHOLE).encode()))
        case _:
            return f"config.{ending}", draw(st.sampled_from(_TEXTS)).encode()


VECTORS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
TINY = ["--batch-size", "4", "--backend", "eager", "--growth-steps", "1"]


def trains_or_says_why(folder: Path, data: str, *arguments: str) -> None:
    """Hold a training to: a run that opens; or a message, and no run or one that goes on."""
    np.save(folder / "vectors.npy", VECTORS)
    np.save(folder / "images.npy", IMAGES)
    out = folder / "run"
    where = ["--data", str(folder / f"{data}.npy"), "--out", str(out)]
    result = outcome("train", *TINY, "--steps=2", *arguments, *where)
    check_ended(result)
    if result.status == 0:
        assert RunFolder.open(out).checkpoint("last").step > 0
    elif out.exists():
        assert "has diverged" in result.error
        check_ended(outcome("train", "--resume", str(out)))


DATA = st.sampled_from(["vectors", "images"])


@given(DATA, command_lines())
def test_any_options_train_or_are_refused(data: str, arguments: list[str]) -> None:
    with scratch() as folder:
        trains_or_says_why(folder, data, *arguments)


@given(DATA, config_files())
def test_any_configuration_file_trains_or_is_refused(data: str, file: tuple[str, bytes]) -> None:
    with scratch(dict([file])) as folder:
        trains_or_says_why(folder, data, "--config", str(folder / file[0]))
