"""Errors and warnings have a kind by their cause, and programs can rely on it."""

import ast
import warnings
from pathlib import Path

import numpy as np
import pytest

import pyro_dpvae
from pyro_dpvae import errors
from pyro_dpvae.data import load
from pyro_dpvae.recipes import RunConfig, build_system
from pyro_dpvae.runs import RunFolder

PACKAGE = Path(pyro_dpvae.__path__[0])
KINDS = {name for name in errors.__all__ if name.endswith("Error")}


def raised(path: Path) -> set[str]:
    """The classes of errors that a file raises, by itself or as its functions return them."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    made = {
        one.name: ast.unparse(one.returns)
        for one in nodes
        if isinstance(one, ast.FunctionDef) and one.returns is not None
    }
    calls = [one.exc for one in nodes if isinstance(one, ast.Raise)]
    names = [
        one.func.id
        for one in calls
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)
    ]
    return {made.get(name, name) for name in names}


def test_every_kind_is_a_public_name_and_one_of_the_library() -> None:
    for name in errors.__all__:
        kind = getattr(pyro_dpvae, name)
        base = errors.DpvaeError if name in KINDS else errors.DpvaeWarning
        assert issubclass(kind, base)
        assert kind.__mro__[1] is not Exception or kind is errors.DpvaeError


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.joinpath("data").rglob("*.py")), ids=lambda p: p.stem
)
def test_what_data_raise_is_a_kind_of_data_error(path: Path) -> None:
    # An argument of a wrong type, and a package that is not installed, are no matter of data.
    allowed = {"DataError", "MissingDataError", "ReaderError", "TypeError", "ImportError"}
    assert raised(path) <= allowed


def test_every_warning_has_a_kind() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                (kind,) = [one.value for one in node.keywords if one.arg == "category"]
                assert ast.unparse(kind) in errors.__all__, path


def test_errors_are_of_their_kind_and_of_pythons(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.full((4, 2), np.nan))
    with pytest.raises(errors.DataError) as data:
        load(tmp_path / "bad.npy")
    assert isinstance(data.value, ValueError)
    with pytest.raises(errors.MissingDataError) as missing:
        load("mnist", root=tmp_path)
    assert isinstance(missing.value, FileNotFoundError)
    with pytest.raises(errors.ConfigError):
        RunConfig.of({"data": "digits", "stpes": 3})
    run = RunFolder.create(tmp_path / "run", {})
    run.save({}, {"step": 1})
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    path.write_bytes(b"")
    with pytest.raises(errors.CheckpointError):
        run.checkpoint()
    with pytest.raises(errors.UnsupportedError):
        build_system(
            (2,), latent_dim=2, dataset_size=9, prior={"name": "vamp"},
            likelihood={"name": "gaussian"}, network={"name": "mlp"}, guide={"name": "flow"},
            objective={"name": "elbo"},
        )  # fmt: skip


def test_a_kind_of_warning_can_be_silenced_alone(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}] * 4, dtype=object)
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), labels=objects)
    with pytest.warns(errors.DataWarning):
        load(tmp_path / "x.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.DataWarning)
        load(tmp_path / "x.npz")
