"""The compiled importance sampler against the eager one under one seed."""

import shutil
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.importance import ImportanceSampler, sampler
from pyro_dpvae.metrics import log_likelihoods
from pyro_dpvae.models import VAE
from pyro_dpvae.priors import CouplingPrior
from pyro_dpvae.recording.graph import Recording
from tests.linear_gaussian import LATENT, LinearGaussian


@pytest.fixture
def system() -> tuple[VAE, Any]:
    exact = LinearGaussian()
    prior = CouplingPrior(LATENT, blocks=2, hidden=(8,)).double()
    return VAE(prior, exact.model.decoder), exact.guide


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Leave graphs as they are recorded, and return those that would be compiled."""
    found: list[Recording] = []
    monkeypatch.setattr(Recording, "compile", lambda self, inputs, **_: found.append(self))
    return found


def draws(sampler: ImportanceSampler, batches: Iterable[Tensor], samples: int = 50) -> Tensor:
    """Return the weights of batches under one seed, batches side by side."""
    pyro.set_rng_seed(3)
    return torch.cat(
        [torch.cat(list(sampler.chunks(x, num_samples=samples))) for x in batches], -1
    )


def check_against_eager(
    compiled: ImportanceSampler, batches: Iterable[Tensor], samples: int = 50
) -> None:
    batches = list(batches)
    eager = ImportanceSampler(compiled.model, compiled.guide, chunk=compiled.chunk)
    found, expected = (draws(one, batches, samples) for one in (compiled, eager))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler, g++")
@pytest.mark.usefixtures("inductor")
def test_compiled_weights_are_the_eager_ones(system: tuple[VAE, Any]) -> None:
    x = torch.randn(19, 3, dtype=torch.float64)
    compiled = ImportanceSampler(*system, chunk=16, compile=True)
    check_against_eager(compiled, x.split(8))
    with torch.no_grad():
        for parameter in system[0].parameters():
            parameter.mul_(1.3)
    check_against_eager(compiled, x.split(8))
    assert compiled._made == 1


def test_a_shape_is_recorded_once_and_smaller_ones_run_eagerly(
    system: tuple[VAE, Any], compilations: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[tuple[int, int]] = []
    eagerly = ImportanceSampler._eager_chunk

    def watched(self: Any, args: Any, kwargs: Any, size: int, summation: Any) -> Tensor:
        handled.append((size, len(args[0])))
        return eagerly(self, args, kwargs, size, summation)

    x = torch.randn(19, 3, dtype=torch.float64)
    compiled = ImportanceSampler(*system, chunk=16, compile=True)
    draws(compiled, [x[:8]])
    monkeypatch.setattr(ImportanceSampler, "_eager_chunk", watched)
    draws(compiled, x.split(8))
    assert len(compilations) == 1
    # The last chunk of each batch, and all of the last batch.
    assert handled == [(2, 8), (2, 8), (16, 3), (16, 3), (16, 3), (2, 3)]
    monkeypatch.setattr(sampler, "_CHUNKS_OF_OTHER_SHAPES", 9)
    draws(compiled, [x[:3], x[:3]])
    assert len(compilations) == 2
    check_against_eager(compiled, [x[:8], x[:3]])


def test_replaced_parameters_and_modes_make_a_new_recording(
    system: tuple[VAE, Any], compilations: list[Recording]
) -> None:
    x = torch.randn(8, 3, dtype=torch.float64)
    model = system[0]
    compiled = ImportanceSampler(*system, compile=True)
    check_against_eager(compiled, [x])
    layer = next(m for m in model.prior.modules() if isinstance(m, nn.Linear))
    layer.weight = nn.Parameter(2 * layer.weight.detach())
    pyro.clear_param_store()
    check_against_eager(compiled, [x])
    assert len(compilations) == 2
    model.eval()
    check_against_eager(compiled, [x])
    assert len(compilations) == 3
    torch.set_default_dtype(torch.float64)
    check_against_eager(compiled, [x])
    assert len(compilations) == 4


def test_parameters_of_the_store_are_those_of_now(compilations: list[Recording]) -> None:
    start = [0.0]

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(start[0]))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    x = torch.randn(16)
    compiled = ImportanceSampler(model, guide, compile=True)
    check_against_eager(compiled, [x])
    with torch.no_grad():
        pyro.param("loc").fill_(0.5)
    check_against_eager(compiled, [x])
    assert len(compilations) == 1
    start[0] = 1.0
    pyro.clear_param_store()
    check_against_eager(compiled, [x])
    assert len(compilations) == 2


def branching(z: Tensor) -> Tensor:
    return z if z.mean() > 0 else -z


def drawing_by_numpy(z: Tensor) -> Tensor:
    return z + 0.1 * float(np.random.default_rng().normal()) * (z.dim() > 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (branching, "runs eagerly, because it reads the value of a tensor, by __bool__"),
        (drawing_by_numpy, "runs eagerly, because its replay differs from an eager evaluation"),
    ],
)
def test_what_cannot_be_recorded_runs_eagerly_with_one_warning(
    change: Callable[[Tensor], Tensor], reason: str, compilations: list[Recording]
) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand(x.shape))
            # Of the draws of a chunk alone: the check of two draws at once would refuse others.
            mean = change(z) if z.dim() > 1 and len(z) > 2 else z
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand(x.shape))

    x = torch.randn(16)
    compiled = ImportanceSampler(model, guide, chunk=20, compile=True)
    with pytest.warns(UserWarning, match=reason) as caught:
        weights = draws(compiled, [x, x, x[:4]])
    assert len(caught) == 1
    assert weights.isfinite().all()
    assert not compilations


def test_without_a_compiler_the_recording_is_replayed(
    system: tuple[VAE, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **options: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.compile", fail)
    compiled = ImportanceSampler(*system, compile=True)
    x = torch.randn(8, 3, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"captured but not compiled.*no compiler") as caught:
        check_against_eager(compiled, [x, x])
    assert len(caught) == 1
    assert compiled._made == 1
    system[0].eval()
    check_against_eager(compiled, [x])
    assert compiled._made == 2


def test_numbers_that_keep_changing_end_the_recording(
    system: tuple[VAE, Any], compilations: list[Recording]
) -> None:
    x = torch.randn(8, 3, dtype=torch.float64)
    compiled = ImportanceSampler(*system, compile=True)
    for step in range(8):
        system[0].step = step
        draws(compiled, [x])
    system[0].step = 8
    with pytest.warns(UserWarning, match="'step' of VAE kept changing") as caught:
        check_against_eager(compiled, [x, x])
    assert len(caught) == 1
    assert len(compilations) == 8


def test_likelihoods_are_compiled_where_it_is_asked_for(
    system: tuple[VAE, Any], compilations: list[Recording]
) -> None:
    x = torch.randn(19, 3, dtype=torch.float64)
    found = []
    for compile in (False, True):
        assert not compilations
        pyro.set_rng_seed(0)
        options: dict[str, Any] = {"num_samples": 50, "chunk": 16, "progress": False}
        found.append(log_likelihoods(*system, x.split(8), compile=compile, **options))
    assert len(compilations) == 1
    for name in ("log_likelihood", "effective_samples", "pareto_k"):
        one, other = (getattr(estimates, name) for estimates in found)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
