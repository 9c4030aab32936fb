"""Discrete latents summed out exactly: the bound against loops, Pyro and mixture marginals."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO
from torch import Tensor, nn

from pyro_dpvae.importance import log_weights
from pyro_dpvae.importance.weights import Summation, summable, summed_out
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.objectives import MMD, FreeBitsRate, RegularizedELBO, SteinDiscrepancy
from pyro_dpvae.objectives._enumeration import Marginal
from pyro_dpvae.objectives.penalties import AbstractPenalty, Latents
from pyro_dpvae.ownership import OwnedModule
from pyro_dpvae.sites import OBSERVED, PLATE, cluster, layer_site

CLUSTERS, SIZES, BATCH = (3, 4), (2, 1), 5
ENUMERATED = {"enumerate": "parallel"}


class Clusters(OwnedModule):
    """y_l ~ Cat, z_l ~ N(m_l[y_l], s_l[y_l]), x ~ N(tanh(z) W, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.ParameterList(torch.randn(k) for k in CLUSTERS)
        self.loc = nn.ParameterList(
            2 * torch.randn(k, n) for k, n in zip(CLUSTERS, SIZES, strict=True)
        )
        self.scale = nn.ParameterList(
            0.5 + torch.rand(k, n) for k, n in zip(CLUSTERS, SIZES, strict=True)
        )
        self.weight = nn.Parameter(torch.randn(sum(SIZES), 3))

    def given(self, index: int, y: Tensor) -> dist.Independent:
        return dist.Normal(self.loc[index][y], self.scale[index][y]).to_event(1)

    def marginal(self, index: int) -> dist.MixtureSameFamily:
        components = dist.Normal(self.loc[index], self.scale[index]).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits[index]), components)

    def likelihood(self, z: Tensor) -> dist.Independent:
        return dist.Normal(z.tanh() @ self.weight, 1.0).to_event(1)

    def forward(self, x: Tensor) -> None:
        with pyro.plate(PLATE, len(x)):
            z = []
            for index in range(len(CLUSTERS)):
                y = pyro.sample(cluster(index + 1), dist.Categorical(logits=self.logits[index]))
                z.append(pyro.sample(layer_site(index + 1), self.given(index, y)))
            shape = torch.broadcast_shapes(*(part.shape[:-1] for part in z))
            joined = torch.cat([part.expand(*shape, -1) for part in z], -1)
            pyro.sample(OBSERVED, self.likelihood(joined), obs=x)


class Marginals(OwnedModule):
    """The same model with y summed out."""

    def __init__(self, model: Clusters) -> None:
        super().__init__()
        self.held = [model]

    def forward(self, x: Tensor) -> None:
        (model,) = self.held
        with pyro.plate(PLATE, len(x)):
            z = [
                pyro.sample(layer_site(index + 1), model.marginal(index))
                for index in range(len(CLUSTERS))
            ]
            pyro.sample(OBSERVED, model.likelihood(torch.cat(z, -1)), obs=x)


class Guide(OwnedModule):
    """Normals, and y from a network before z, which may depend on it, or p(y | z), or no y."""

    def __init__(self, model: Clusters, order: str, *, opaque: bool = False) -> None:
        super().__init__()
        self.held, self.order, self.opaque = [model], order, opaque
        self.mean = nn.Linear(3, sum(SIZES))
        self.scale = nn.Parameter(0.3 + torch.rand(sum(SIZES)))
        self.clusters = nn.ModuleList(nn.Linear(3, k) for k in CLUSTERS)

    def forward(self, x: Tensor) -> None:
        (model,) = self.held
        means, scales = self.mean(x).split(SIZES, -1), self.scale.split(SIZES)
        with pyro.plate(PLATE, len(x)):
            for index, (loc, scale) in enumerate(zip(means, scales, strict=True)):
                if self.order in ("before", "given"):
                    q_y = _categorical(self.clusters[index](x))
                    y = pyro.sample(cluster(index + 1), q_y, infer=dict(ENUMERATED))
                if self.order == "given":
                    loc = loc + y.unsqueeze(-1) * scale
                q = dist.Normal(loc, scale).to_event(1)
                if self.opaque:  # no entropy or divergence is known of it
                    q = dist.TransformedDistribution(q, [dist.transforms.AffineTransform(0, 1)])
                z = pyro.sample(layer_site(index + 1), q)
                if self.order == "after":
                    p = model.marginal(index)
                    joint = p.mixture_distribution.logits + p.component_distribution.log_prob(
                        z.unsqueeze(-2)
                    )
                    pyro.sample(cluster(index + 1), _categorical(joint), infer=dict(ENUMERATED))


def _categorical(logits: Tensor) -> dist.Categorical:
    return dist.Categorical(logits=logits)


@pytest.fixture
def model() -> Clusters:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    return Clusters()


def data() -> Tensor:
    return torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(1))


def gradients(
    objective: Any, model: Any, guide: Any, of: nn.Module
) -> tuple[Tensor, list[Tensor]]:
    pyro.set_rng_seed(7)
    loss = objective.differentiable_loss(model, guide, data())
    parameters = [p for p in [*of.parameters(), *guide.parameters()] if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return loss.detach(), list(found)


@pytest.mark.parametrize("order", ["before", "given", "after"])
@pytest.mark.parametrize("particles", [1, 3])
def test_loss_and_gradients_are_those_of_pyros_enumeration(
    model: Clusters, order: str, particles: int
) -> None:
    guide = Guide(model, order, opaque=True)
    options: dict[str, Any] = {
        "num_particles": particles,
        "vectorize_particles": particles > 1,
        "max_plate_nesting": 1,
    }
    loss, found = gradients(RegularizedELBO(**options), model, guide, model)
    expected, theirs = gradients(TraceEnum_ELBO(**options), model, guide, model)
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"num_particles": 2}, {"num_particles": 2, "vectorize_particles": True}]
)
def test_terms_are_those_of_a_loop_over_clusters(
    model: Clusters, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guide, x = Guide(model, "before"), data()
    objective = RegularizedELBO(**options)
    sizes, original = [], Clusters.likelihood
    monkeypatch.setattr(
        Clusters, "likelihood", lambda self, z: sizes.append(z.numel()) or original(self, z)
    )
    objective.loss(model, guide, x)
    means, scales = guide.mean(x).split(SIZES, -1), guide.scale.split(SIZES)
    rate = torch.zeros(BATCH)
    for index, (loc, scale) in enumerate(zip(means, scales, strict=True)):
        q_y = guide.clusters[index](x).softmax(-1)
        p_y = model.logits[index].softmax(-1)
        q = torch.distributions.Normal(loc, scale)
        for k in range(CLUSTERS[index]):
            p = torch.distributions.Normal(model.loc[index][k], model.scale[index][k])
            inner = torch.distributions.kl_divergence(q, p).sum(-1)
            rate = rate + q_y[:, k] * (inner + (q_y[:, k] / p_y[k]).log())
    torch.testing.assert_close(objective.terms["rate"], rate.mean().detach())
    # z of q(z | x) has no values of y to its left, so the decoder runs once for all of them.
    particles = 2 if options.get("vectorize_particles") else 1
    assert sizes[-1] == particles * BATCH * sum(SIZES)


def test_under_the_models_own_clusters_the_bound_is_that_of_mixtures(model: Clusters) -> None:
    guide = Guide(model, "after")
    loss, found = gradients(RegularizedELBO(), model, guide, model)
    guide.order = "none"
    expected, theirs = gradients(RegularizedELBO(), Marginals(model), guide, model)
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_values_without_probability_count_nothing(model: Clusters) -> None:
    guide = Guide(model, "before")
    with torch.no_grad():
        for layer in guide.clusters:
            layer.bias[0] = -torch.inf
    loss, found = gradients(RegularizedELBO(), model, guide, model)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in found)


def test_captured_steps_are_those_of_svi() -> None:
    losses = []
    for make in (SVI, CapturedSVI):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model = Clusters()
        svi = make(
            model,
            Guide(model, "after"),
            FusedOptim({"lr": 1e-2}),
            RegularizedELBO(num_particles=2),
        )
        losses.append([svi.step(data()) for _ in range(5)])
        if isinstance(svi, CapturedSVI):
            assert svi.recordings == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class Seen(AbstractPenalty):
    def __init__(self) -> None:
        super().__init__(seen=0.0)
        self.latents: list[Latents] = []

    def forward(self, latents: Latents) -> dict[str, Tensor]:
        self.latents.append(latents)
        return {"seen": torch.zeros(())}


@pytest.mark.parametrize("vectorize", [False, True])
def test_penalties_see_the_marginal_prior(model: Clusters, vectorize: bool) -> None:
    x = torch.randn(4000, 3)
    seen = Seen()
    objective = RegularizedELBO(
        rate=FreeBitsRate(0.1),
        penalties=[seen, MMD(1.0), SteinDiscrepancy(1.0)] if not vectorize else [seen],
        num_particles=2,
        vectorize_particles=vectorize,
    )
    x = x[:50] if not vectorize else x
    objective.loss(model, Guide(model, "before"), x)
    latents = seen.latents[0]
    parts = latents.value.split(SIZES, -1)
    marginals = [model.marginal(index) for index in range(2)]
    expected = sum(p.log_prob(z) for p, z in zip(marginals, parts, strict=True))
    torch.testing.assert_close(latents.log_prior, expected)
    if vectorize:
        drawn = latents.prior_sample()
        assert drawn.shape == latents.value.shape
        mean = torch.cat([p.mean for p in marginals])
        deviation = torch.cat([p.variance for p in marginals]).sqrt()
        error = (drawn.flatten(0, -2).mean(0) - mean) / deviation * 8000**0.5
        assert error.abs().max() < 4


def test_what_cannot_be_summed_is_refused(model: Clusters) -> None:
    class Bad(Guide):
        def forward(self, x: Tensor) -> None:
            with poutine.infer_config(config_fn=self.config):
                super().forward(x)

        config: Any = staticmethod(lambda site: {})

    guide, x = Bad(model, "before"), data()
    guide.config = lambda site: {"enumerate": None}
    with pytest.raises(ValueError, match=r"reparameterised or enumerated.*'y_1'"):
        RegularizedELBO().loss(model, guide, x)
    guide.config = lambda site: {"num_samples": 3} if site["name"] == "y_1" else {}
    with pytest.raises(ValueError, match="every value once, got num_samples=3"):
        RegularizedELBO().loss(model, guide, x)
    with pytest.raises(ValueError, match=r"'z_1' with \['y_1'\]; sample z from q\(z \| x\)"):
        RegularizedELBO(penalties=[MMD(1.0)]).loss(model, Guide(model, "given"), x)


@pytest.mark.parametrize("particles", [1, 2])
def test_draws_of_the_marginal_prior_have_the_gradients_of_its_mean(
    model: Clusters, particles: int
) -> None:
    seen = Seen()
    options = {"num_particles": particles, "vectorize_particles": particles > 1}
    with torch.no_grad():  # close enough for draws in between, which carry the weights' gradient
        for loc in model.loc:
            loc.mul_(0.5)
    objective = RegularizedELBO(penalties=[seen], **options)
    objective.differentiable_loss(model, Guide(model, "before"), torch.randn(8000, 3))
    drawn = seen.latents[0].prior_sample()
    parameters = [*model.logits, *model.loc, *model.scale]
    assert drawn.shape == seen.latents[0].value.shape
    mean = torch.cat([model.marginal(index).mean for index in range(2)])
    square = torch.cat([model.marginal(index).variance for index in range(2)]) + mean.square()
    found = torch.autograd.grad((drawn + drawn.square()).flatten(0, -2).mean(0).sum(), parameters)
    expected = torch.autograd.grad((mean + square).sum(), parameters)
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, exact, rtol=0, atol=0.12 * float(exact.abs().max()))


def test_draws_of_other_components_have_gradients_to_the_chosen_ones() -> None:
    pyro.set_rng_seed(0)
    weights, loc = torch.tensor([0.7, 0.3]).log(), torch.tensor([[-1.0], [3.0]])
    loc.requires_grad_()
    components = dist.Laplace(loc.expand(2, 20_000), 1.0)
    p = Marginal(weights[:, None], components, enumerated=1)
    (found,) = torch.autograd.grad(p.rsample().mean(), loc)
    torch.testing.assert_close(found.squeeze(-1), weights.exp(), rtol=0, atol=0.02)


def clustered(log_prior: Tensor, loc: Tensor) -> Any:
    def model(x: Tensor) -> None:
        with pyro.plate(PLATE, len(x)):
            y = pyro.sample("y", dist.Categorical(logits=log_prior))
            with pyro.plate("pixels", x.shape[1], dim=-2):
                pyro.sample(OBSERVED, dist.Normal(loc[y], 1.0), obs=x.T)

    return model


def test_weights_sum_over_clusters_of_observations_in_inner_plates() -> None:
    pyro.set_rng_seed(0)
    log_prior, loc = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([-1.0, 0.0, 2.0])
    x = torch.randn(4, 3)

    def guide(x: Tensor, mark: dict[str, str] = ENUMERATED) -> None:
        with pyro.plate(PLATE, len(x)):
            pyro.sample("y", dist.Categorical(torch.ones(len(x), 3)), infer=dict(mark))

    densities = dist.Normal(loc, 1.0).log_prob(x[..., None]).sum(1)
    exact = (log_prior + densities).logsumexp(-1).double()
    weights = log_weights(clustered(log_prior, loc), guide, x, num_samples=7)
    torch.testing.assert_close(weights, exact.expand(7, -1), rtol=1e-5, atol=1e-5)
    drawn = log_weights(clustered(log_prior, loc), lambda x: guide(x, {}), x, num_samples=20_000)
    assert all(len(one.unique()) == 3 for one in drawn.T)
    found = drawn.logsumexp(0) - torch.tensor(20_000.0).log()
    torch.testing.assert_close(found, exact, rtol=0, atol=0.03)


def test_a_cluster_is_drawn_where_a_draw_depends_on_it(model: Clusters) -> None:
    guide, x = Guide(model, "given"), data()
    trace = poutine.trace(guide).get_trace(x)
    assert not summable(guide, trace, (x,), {}, Summation("data", 1, len(x))).names
    pyro.set_rng_seed(2)
    weights = log_weights(model, guide, x, num_samples=6, chunk=3)
    pyro.set_rng_seed(2)
    drawn = poutine.infer_config(guide, lambda site: {"enumerate": None})
    assert torch.equal(weights, log_weights(model, drawn, x, num_samples=6, chunk=3))
    trace = poutine.trace(Guide(model, "before")).get_trace(x)
    found = summable(Guide(model, "before"), trace, (x,), {}, Summation("data", 1, len(x)))
    assert found.names == {"y_1", "y_2"}


def test_sums_of_chains_of_clusters_are_those_over_all_values() -> None:
    pyro.set_rng_seed(0)
    terms = [torch.randn(shape) for shape in ((3, 1, 5), (4, 3, 1, 5), (2, 4, 1, 1, 5), (1, 5))]
    found = summed_out([term.double() for term in terms], [-3, -4, -5])
    joint = sum(terms[1:], start=terms[0]).double()
    assert found.shape == (1, 1, 1, 1, 5)
    torch.testing.assert_close(found.flatten(), joint.flatten(0, -2).logsumexp(0))
