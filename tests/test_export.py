"""Export to ArviZ, against the draws' own densities."""

from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

from pyro_dpvae import export
from pyro_dpvae.export import to_arviz
from tests.linear_gaussian import LinearGaussian


def group(tree: Any, name: str) -> Any:
    """A group of either of ArviZ's layouts."""
    return tree[name] if not hasattr(tree, "groups") else getattr(tree, name)


def test_groups_shapes_and_densities() -> None:
    exact = LinearGaussian()
    x = exact.data(5)
    tree = to_arviz(exact.model, exact.guide, x, num_samples=400)
    z = group(tree, "posterior")["z"].values
    assert z.shape == (1, 400, 5, 2)
    assert group(tree, "prior")["z"].values.shape == (1, 400, 5, 2)
    np.testing.assert_array_equal(group(tree, "observed_data")["x"].values, x.numpy())
    found = group(tree, "log_likelihood")["x"].values
    assert found.shape == (1, 400, 5)
    expected = exact.model.decoder(torch.from_numpy(z[0])).log_prob(x).detach()
    np.testing.assert_allclose(found[0], expected)
    q = exact.guide.encoder(x)
    np.testing.assert_allclose(z[0].mean(0), q.mean.detach(), atol=0.2)
    np.testing.assert_allclose(group(tree, "prior")["z"].values.mean(), 0.0, atol=0.1)
    summary = export._arviz().summary(tree, var_names=["z"])
    assert len(summary) == 10
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        to_arviz(exact.model, exact.guide, x, num_samples=0)


def test_masks_factors_and_other_guides(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = LinearGaussian()
    x = exact.data(4).requires_grad_()
    mask = torch.tensor([True, False, True, True])

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", exact.model.prior())
            with poutine.mask(mask=mask):
                pyro.sample("x", exact.model.decoder(z), obs=x)
            pyro.factor("regularizer", -z.square().sum(-1))

    tree = to_arviz(model, exact.guide, x, num_samples=5)
    found = group(tree, "log_likelihood")
    assert list(found.data_vars) == ["x"]
    assert (found["x"].values[..., 1] == 0).all()
    assert (found["x"].values[..., 0] != 0).all()

    def misspelt(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("zz", exact.guide.encoder(x))

    with pytest.raises(ValueError, match=r"the same latent sites, got \['z'\] and \['zz'\]"):
        to_arviz(exact.model, misspelt, x, num_samples=5)


def test_the_layout_follows_the_version_of_arviz(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = LinearGaussian()
    calls: list[dict[str, Any]] = []

    def version_one(data: dict[str, Any]) -> str:
        calls.append(data)
        return "tree"

    monkeypatch.setattr(export._arviz(), "from_dict", version_one)
    assert to_arviz(exact.model, exact.guide, exact.data(3), num_samples=2) == "tree"
    assert set(calls[0]) == {"posterior", "prior", "log_likelihood", "observed_data"}


def test_a_note_that_another_process_wrote_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def collides(name: str) -> str:
        calls.append(name)
        if len(calls) == 1:
            raise FileNotFoundError("daily_warning.tmp")
        return "module"

    monkeypatch.setattr(export, "import_module", collides)
    assert export._arviz() == "module"
    assert calls == ["arviz"] * 2
