"""What is of all ranks, what of each, and what ranks refuse.

It is done by two forked processes, and looked at by the tests afterwards.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_dpvae._ranks import ranks
from pyro_dpvae.inference import AveragingOptim, CapturedSVI, FusedOptim, synchronize
from pyro_dpvae.objectives import (
    MMD,
    BetaTCELBO,
    CapacityRate,
    RegularizedELBO,
)
from tests.rank_cases import (
    CASES,
    SIZE,
    Of,
    assert_same,
    data,
    double,
    error_of,
    own_part,
    start,
    state,
    trained,
    warnings_of,
)


def one_evaluates() -> float | None:
    """The first rank evaluates, and no other waits for it."""
    with double():
        built = start(CASES["beta-tc"])
        if ranks().index > 0:
            return None
        return built.objective.loss(built.model, built.guide, data()[0])


def by_parts() -> tuple[list[str], list[float], list[str]]:
    """Steps of an objective that sees its rank's part, and what one of such warns of."""
    with double():
        built = start(CASES["beta-tc"])
        objective = BetaTCELBO(6.0, dataset_size=100)
        svi = SVI(built.model, built.guide, AveragingOptim(FusedOptim({"lr": 1e-2})), objective)
        found: list[float] = []

        def steps() -> None:
            with own_part() as batches:
                for x in batches:
                    svi.step(x)
                    found.append(float(objective.terms["total_correlation"]))

        said = warnings_of(steps)
        of_data = RegularizedELBO(rate=CapacityRate(1.0, 2.0, per_sample=True))
        return said, found, warnings_of(of_data.begin_step)


def unequal_sizes() -> str:
    built = start(CASES["beta"])
    x = torch.zeros(5 + ranks().index, 2)
    return error_of(lambda: built.objective.loss_and_grads(built.model, built.guide, x))


class Unknown(dist.TorchDistribution):
    """N(loc, 1), which nobody can take apart."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = dist.Normal(self.loc, 1.0).to_event(1).log_prob(value)
        return log_prob

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + torch.randn(*sample_shape, *self.loc.shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Unknown":
        return Unknown(self.loc.expand(*batch_shape, *self.event_shape))


def model(x: Tensor) -> None:
    """One latent for all data, in a plate that subsamples a hundred of them."""
    with pyro.plate("data", 100, subsample=x[:, 0]):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        shift = pyro.param("shift", torch.zeros(2))
        pyro.sample("x", dist.Normal(z + shift, 1.0).to_event(1), obs=x)


def unknown_guide(x: Tensor) -> None:
    with pyro.plate("data", 100, subsample=x[:, 0]):
        pyro.sample("z", Unknown(pyro.param("weight", torch.tensor(0.5)) * x))


def of_unknown_kind() -> tuple[str, float]:
    pyro.clear_param_store()
    x = data()[0, : SIZE // 2].float()
    needs_densities = BetaTCELBO(6.0, dataset_size=100).across_ranks()
    message = error_of(lambda: needs_densities.loss_and_grads(model, unknown_guide, x))
    needs_draws = RegularizedELBO(penalties=[MMD(1.0)]).across_ranks()
    return message, float(needs_draws.loss_and_grads(model, unknown_guide, x))


def scalar_model(x: Tensor) -> None:
    """A latent outside the plate, and a plate that subsamples a hundred data."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("data", 100, subsample=x[:, 0]):
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def scalar_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.full((2,), 0.3))
    pyro.sample("mean", dist.Normal(loc, 0.5).to_event(1))


def global_latent() -> dict[str, Any]:
    with double():
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        objective = RegularizedELBO().across_ranks()
        optim = AveragingOptim(FusedOptim({"lr": 1e-2}))
        svi = SVI(scalar_model, scalar_guide, optim, objective)
        with own_part() as batches:
            losses = [svi.step(x) for x in batches]
        return {"losses": losses, "loc": pyro.param("loc").detach().clone()}


def gradients_of_some() -> dict[str, list[float]]:
    """Each rank has a gradient of other parameters; both start at their own values."""
    pyro.clear_param_store()
    here = ranks().index
    names = ["both", "neither", "second"]
    params = {
        name: pyro.param(name, torch.tensor([float(here)])).unconstrained() for name in names
    }
    optim = AveragingOptim(FusedOptim({"lr": 1.0}, constructor=torch.optim.SGD))
    for steps in range(2):
        params["both"].grad = torch.tensor([1.0 + here])
        params["second"].grad = torch.tensor([4.0]) if here == 1 else None
        params["neither"].grad = None
        # The first rank meets a parameter of the second's again only because that has moved it.
        optim([p for name, p in params.items() if steps == 0 or here == 1 or name != "second"])
    assert params["neither"].grad is None
    return {name: param.tolist() for name, param in params.items()}


def parameters_of_one() -> str:
    pyro.clear_param_store()
    param = pyro.param(f"of rank {ranks().index}", torch.zeros(3)).unconstrained()
    return error_of(lambda: AveragingOptim(FusedOptim({"lr": 1.0}))([param]))


def synchronized() -> tuple[dict[str, Tensor], str]:
    pyro.clear_param_store()
    pyro.set_rng_seed(ranks().index)
    built = CASES["factor"]()
    objective = built.objective
    if ranks().index == 0:  # the adversary of one rank has learned, its optimizer has a state
        x = torch.randn(8, 2)
        warnings_of(lambda: objective.loss_and_grads(built.model, built.guide, x))
    synchronize(built.model, built.guide, objective)
    other_size = nn.Linear(2 + ranks().index, 1)
    return state(built), error_of(lambda: synchronize(other_size, built.guide))


def test_one_rank_may_evaluate_by_itself(of_ranks: Of) -> None:
    assert of_ranks(one_evaluates)[0] == one_evaluates()


def test_without_across_ranks_the_batch_is_the_ranks_own_and_a_warning_says_so(
    of_ranks: Of,
) -> None:
    whole = trained(CASES["beta-tc"])["terms"]
    for said, found, of_data in of_ranks(by_parts):
        for one, terms in zip(found, whole, strict=True):
            assert one != pytest.approx(terms["total_correlation"], rel=0.01)
        assert len(said) == 1
        assert "TotalCorrelation depend on the whole batch" in said[0]
        assert of_data == []


def test_unequal_batches_are_an_error_on_every_rank(of_ranks: Of) -> None:
    for message in of_ranks(unequal_sizes):
        assert "[[(5, 2)], [(6, 2)]], rank by rank" in message


def test_an_unknown_kind_is_refused_by_name_where_its_density_is_needed(of_ranks: Of) -> None:
    losses = []
    for message, loss in of_ranks(of_unknown_kind):
        assert "Unknown cannot be rebuilt across ranks" in message
        losses.append(loss)
    assert losses[0] == losses[1]


def test_latents_and_data_outside_the_batch_count_once(of_ranks: Of) -> None:
    expected = global_latent()
    for rank in of_ranks(global_latent):
        assert_same(rank, expected)


def test_a_gradient_that_some_ranks_have_counts_as_zero_on_others(of_ranks: Of) -> None:
    for rank in of_ranks(gradients_of_some):
        # From the first rank's 0, two steps of rate 1 along means of (1, 2) and of (0, 4).
        assert rank == {"both": [-3.0], "neither": [0.0], "second": [-4.0]}


def test_parameters_of_some_ranks_only_are_named(of_ranks: Of) -> None:
    for message in of_ranks(parameters_of_one):
        assert "'of rank 0': [((3,), 'torch.float32'), None]" in message


def test_a_graph_that_holds_the_optimizer_takes_none_that_averages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    optim = AveragingOptim(FusedOptim({"lr": 1.0}))
    with pytest.raises(ValueError, match="got AveragingOptim; with several ranks, use 'inductor'"):
        CapturedSVI(model, unknown_guide, optim, RegularizedELBO(), backend="cudagraph")


def test_synchronizing_gives_all_ranks_the_first_ones_tensors(of_ranks: Of) -> None:
    (first, message), (second, _) = of_ranks(synchronized)
    assert first["objective.step"] == 1
    assert any("optimizer" in name for name in first)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert "('model.weight', (1, 2), 'torch.float32')" in message
