"""The clustering ladder: its bound, its clusters, their start, and what is measured of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_dpvae.data import DataSet
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import ClusteringEncoder, GaussianEncoder
from pyro_dpvae.evaluation import EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.evaluation.evaluate import applicable
from pyro_dpvae.guides import ClusteringLadderGuide, LadderGuide
from pyro_dpvae.importance import ImportanceSampler
from pyro_dpvae.inference import CapturedSVI, FusedOptim
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import held_out_accuracy, layer_clusters
from pyro_dpvae.models import ClusteringLadderVAE, LadderVAE
from pyro_dpvae.nn import Batched
from pyro_dpvae.objectives import MMD, BetaRate, RegularizedELBO
from pyro_dpvae.plots import cluster_codes, drawings_of
from pyro_dpvae.priors import (
    AbstractPrior,
    CouplingPrior,
    MixturePrior,
    ProductPrior,
    StandardNormal,
)
from pyro_dpvae.recipes import Run, System
from pyro_dpvae.recording.graph import Recording
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.sites import PLATE, layer_site

LATENT_DIMS, CLUSTERS, DATA = (2, 3), (3, 4), 6


def mixtures(*, coupling: bool = False) -> list[AbstractPrior]:
    priors: list[AbstractPrior] = [
        MixturePrior(size, components=number)
        for size, number in zip(LATENT_DIMS, CLUSTERS, strict=True)
    ]
    if coupling:
        base = priors[1]
        priors[1] = CouplingPrior(LATENT_DIMS[1], blocks=2, hidden=(4,), base=base)
    return priors


def linear(inputs: int, outputs: int) -> Batched:
    return Batched(nn.Linear(inputs, outputs), in_shape=(inputs,), out_shape=(outputs,))


def decoder() -> Decoder:
    return Decoder(linear(sum(LATENT_DIMS), DATA), GaussianLikelihood((DATA,), variance=0.5))


def encoder(network: bool) -> ClusteringEncoder | GaussianEncoder:
    if network:
        return ClusteringEncoder(nn.Identity(), LATENT_DIMS, clusters=CLUSTERS, in_shape=(DATA,))
    return GaussianEncoder(nn.Identity(), sum(LATENT_DIMS), in_shape=(DATA,))


def ladder(
    network: bool, *, coupling: bool = False
) -> tuple[ClusteringLadderVAE, ClusteringLadderGuide]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    priors = mixtures(coupling=coupling)
    model = ClusteringLadderVAE(priors, decoder())
    return model, ClusteringLadderGuide(encoder(network), priors)


def data(count: int = 5) -> Tensor:
    return torch.randn(count, DATA, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("coupling", [False, True])
def test_under_p_of_y_given_z_it_is_the_ladder_with_clusters_summed_out(coupling: bool) -> None:
    model, guide = ladder(False, coupling=coupling)
    plain = LadderVAE(list(model.prior.priors), model.decoder)
    pairs = [(model, guide), (plain, LadderGuide(guide.encoder, LATENT_DIMS))]
    found = []
    # The discrepancy's draws too, but under couplings each component is pushed, and one chosen.
    objective = RegularizedELBO(penalties=[] if coupling else [MMD(100.0)])
    for pair in pairs:
        torch.manual_seed(3)
        loss = objective.differentiable_loss(*pair, data())
        parameters = [*model.parameters(), *guide.encoder.parameters()]
        found.append([loss, *torch.autograd.grad(loss, parameters)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("coupling", [False, True])
def test_a_networks_rate_is_that_of_a_loop_over_clusters(coupling: bool) -> None:
    model, guide = ladder(True, coupling=coupling)
    x, objective = data(), RegularizedELBO()
    torch.manual_seed(3)
    objective.loss(model, guide, x)
    torch.manual_seed(3)
    q, shares = guide.posterior(x), guide.cluster_probabilities(x)
    rate = torch.zeros(len(x))
    for prior, part, share in zip(
        model.prior.priors, zip(*parts(q), strict=True), shares, strict=True
    ):
        normal = torch.distributions.Independent(torch.distributions.Normal(*part), 1)
        z = normal.base_dist.loc + normal.base_dist.scale * torch.randn_like(part[0])
        for y, p_y in enumerate(prior.cluster_prior().probs):
            p = prior.conditional(torch.tensor(y))
            inner = (
                -normal.entropy() - p.log_prob(z)
                if coupling and prior.latent_dim == 3
                else kl_divergence(normal, p)
            )
            rate = rate + share[:, y] * (inner + (share[:, y] / p_y).log())
    torch.testing.assert_close(objective.terms["rate"], rate.mean().detach())


def parts(q: Any) -> list[tuple[Tensor, ...]]:
    return [one.split(LATENT_DIMS, -1) for one in (q.base_dist.loc, q.base_dist.scale)]


def test_under_couplings_the_discrepancy_moves_the_components_and_their_map() -> None:
    model, guide = ladder(False, coupling=True)
    objective = RegularizedELBO(rate=BetaRate(0.0), penalties=[MMD(1.0)])
    objective.differentiable_loss(model, guide, data(50)).backward()
    prior = model.prior.priors[1]
    assert (prior.base_prior.loc.grad.abs().sum(-1) > 0).all()
    assert (prior.base_prior.log_scale.grad.abs().sum(-1) > 0).all()
    assert all(p.grad.abs().max() > 0 for p in prior.couplings.parameters())


@pytest.mark.parametrize("network", [False, True])
def test_captured_steps_are_those_of_svi(network: bool) -> None:
    losses = []
    for make in (SVI, CapturedSVI):
        model, guide = ladder(network)
        svi = make(model, guide, FusedOptim({"lr": 1e-2}), RegularizedELBO())
        losses.append([svi.step(data()) for _ in range(5)])
    assert svi.recordings == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_component_wise_generation_draws_from_the_clusters_law() -> None:
    torch.manual_seed(0)
    priors = mixtures(coupling=True)
    prior = ProductPrior(priors)
    codes = cluster_codes(prior, 2, count=2000)
    assert codes.shape == (CLUSTERS[1], 2000, sum(LATENT_DIMS))
    below, own = codes.split(LATENT_DIMS, -1)
    assert (below == below[:1]).all()
    z0 = priors[1].to_generation(own)[0]
    base = priors[1].base_prior()
    error = (z0.mean(1) - base.loc) / base.scale * 2000**0.5
    assert error.abs().max() < 4.5
    ratio = z0.std(1) / base.scale
    assert (ratio - 1).abs().max() < 0.1
    for layer in (0, 3):
        with pytest.raises(ValueError, match="layer must be one of 1 to 2"):
            cluster_codes(prior, layer)


class OwnLogits(nn.Module):
    """The data's first coordinates as means, small variances, and learned logits."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.logits = nn.Sequential(
            nn.Linear(DATA, 64), nn.ReLU(), nn.Linear(64, features - 2 * sum(LATENT_DIMS))
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x[:, : sum(LATENT_DIMS)]
        return torch.cat([mean, torch.full_like(mean, -6.0), self.logits(x)], -1)


@pytest.mark.parametrize("coupling", [False, True])
def test_clusters_start_where_the_data_have_them(coupling: bool) -> None:
    pyro.clear_param_store()
    torch.manual_seed(0)
    features = 2 * sum(LATENT_DIMS) + len(LATENT_DIMS) * max(CLUSTERS)
    assigning = encoder(True)
    assigning.network = Batched(OwnLogits(features), in_shape=(DATA,), out_shape=(features,))
    priors = mixtures(coupling=coupling)
    if coupling:  # so that generation space is another one
        with torch.no_grad():
            for parameter in priors[1].couplings.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    guide = ClusteringLadderGuide(assigning, priors)
    y = torch.randint(12, (600,))
    labels = torch.stack([y % 3, y // 3], -1)
    centres = [
        4 * torch.eye(number)[:, :size] for size, number in zip(LATENT_DIMS, CLUSTERS, strict=True)
    ]
    means = [centre[one] for centre, one in zip(centres, labels.unbind(-1), strict=True)]
    x = torch.cat([*means, torch.zeros(600, 1)], -1) + 0.3 * torch.randn(600, DATA)
    guide.initialise_clusters(
        ProductPrior(priors), x.split(100), steps=200, learning_rate=1e-2, progress=False
    )
    found = torch.stack([one.argmax(-1) for one in guide.cluster_probabilities(x)], -1)
    for layer, number in enumerate(CLUSTERS):
        pairs = torch.stack([found[:, layer], labels[:, layer]], -1).unique(dim=0)
        assert len(pairs) == number  # one cluster for each true one, and the other way round
        z = guide.posterior(x).mean.split(LATENT_DIMS, -1)[layer]
        shares = priors[layer].responsibilities(z)
        assert (shares.argmax(-1) == found[:, layer]).float().mean() > 0.99
        assert shares.max(-1).values.mean() > 0.98
    if not coupling:
        deviations = priors[0].log_scale.exp()
        expected = (0.3**2 + torch.tensor(-6.0).exp()).sqrt().expand_as(deviations)
        torch.testing.assert_close(deviations, expected, rtol=0.15, atol=0)


def test_accuracies_take_the_majority_of_the_training_data() -> None:
    train, labels = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([7, 7, 1, 1, 1, 7])
    test, truth = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([7, 1, 1, 7, 1])
    found = held_out_accuracy(train, labels, test, truth)  # cluster 3 has no training data
    assert found.value == pytest.approx(3 / 5)
    assert found.settings["clusters"] == 4
    # Two layers that split four labels crosswise tell all four apart together.
    clusters = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(5, 1)
    labels = torch.arange(4).repeat(5)
    both = layer_clusters(clusters, labels, clusters, labels)
    values = {name: one.value for name, one in both.items()}
    assert values["cluster_accuracy_layer_2"] == 0.5
    assert values["cluster_accuracy_joint"] == values["cluster_nmi_joint"] == 1.0
    assert values["cluster_nmi_layer_1"] == pytest.approx(2 / 3)  # I = 1, H = 1 and 2 bits
    assert (values["clusters_used_layer_1"], values["clusters_used_joint"]) == (2, 4)
    with pytest.raises(ValueError, match="count from 0, got -1"):
        held_out_accuracy(train, torch.full_like(train, -1), test, truth)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ClusteringLadderVAE([StandardNormal(2), mixtures()[1]], decoder()),
            "StandardNormal has no clusters",
        ),
        (
            lambda: ClusteringLadderGuide(encoder(True), mixtures()[::-1]),
            "the same layers and clusters",
        ),
        (
            lambda: ClusteringLadderGuide(encoder(False), mixtures()[:1]),
            r"add up to the encoder's latent_dim, got \(2,\) and 5",
        ),
        (
            lambda: ClusteringEncoder(linear(DATA, 10), LATENT_DIMS, clusters=CLUSTERS[:1]),
            r"one entry per layer, got latent_dims \(2, 3\) and clusters \(3,\)",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("network", [False, True])
def test_what_clusters_cannot_start_from_is_refused_before_anything_changes(network: bool) -> None:
    model, guide = ladder(network)
    refused = [
        (model.prior, "4 clusters of layer 2 need .* got 3; .* fewer comp"),
        (ProductPrior([model.prior.priors[0], StandardNormal(3)]), "components of a MixturePrior"),
        (ProductPrior(mixtures()[::-1]), r"the same layers, got sizes \(3, 2\) and \(2, 3\)"),
    ]
    if not network:
        refused[1] = (ProductPrior(mixtures()), "build model and guide with the same priors")
    before = [parameter.clone() for parameter in [*model.parameters(), *guide.parameters()]]
    for prior, message in refused:
        with pytest.raises(ValueError, match=message):
            guide.check_clusters(prior, 3)
        with pytest.raises(ValueError, match=message):
            guide.initialise_clusters(prior, [data(3)], progress=False)
    for old, new in zip(before, [*model.parameters(), *guide.parameters()], strict=True):
        assert torch.equal(old, new)
    guide.check_clusters(model.prior, 4)


def test_a_fit_of_logits_keeps_what_shares_their_weights() -> None:
    model, _ = ladder(True)
    priors = list(model.prior.priors)
    network = nn.Sequential(nn.Linear(DATA, 8), nn.Tanh())
    guide = ClusteringLadderGuide(
        ClusteringEncoder(network, LATENT_DIMS, clusters=CLUSTERS), priors
    )
    x = 2 * data(200)
    before = guide.posterior(x)
    guide.initialise_clusters(model.prior, [x], steps=200, learning_rate=1e-2, progress=False)
    assert kl_divergence(before, guide.posterior(x)).mean() < 0.02
    means = before.mean.split(LATENT_DIMS, -1)
    for prior, z, share in zip(priors, means, guide.cluster_probabilities(x), strict=True):
        agree = prior.responsibilities(z).argmax(-1) == share.argmax(-1)
        assert agree.float().mean() > 0.85


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("chunk", [1, 7])
def test_importance_weights_are_those_of_the_ladder_with_clusters_summed_out(
    network: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recording] = []
    monkeypatch.setattr(Recording, "compile", lambda self, inputs, **_: made.append(self))
    model, guide = ladder(network, coupling=True)
    plain = LadderVAE(list(model.prior.priors), model.decoder)
    samplers = [
        ImportanceSampler(plain, Layerwise(guide), chunk=chunk),
        ImportanceSampler(model, guide, chunk=chunk),
        ImportanceSampler(model, guide, chunk=chunk, compile=True),
    ]
    found = []
    for sampler in samplers:
        torch.manual_seed(3)
        found.append(torch.cat(list(sampler.chunks(data(), num_samples=14))))
    assert len(made) == 1
    assert found[0].shape == (14, 5)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)


class Layerwise(nn.Module):
    """A clustering ladder's q(z | x) at its layers' sites, without clusters."""

    def __init__(self, guide: ClusteringLadderGuide) -> None:
        super().__init__()
        self.held = [guide]

    def forward(self, x: Tensor) -> None:
        with pyro.plate(PLATE, len(x)):
            for layer, (loc, scale) in enumerate(
                zip(*parts(self.held[0].posterior(x)), strict=True)
            ):
                pyro.sample(layer_site(layer + 1), dist.Normal(loc, scale).to_event(1))


def test_an_evaluation_has_the_clusters_of_every_layer(tmp_path: Path) -> None:
    model, guide = ladder(True)
    labels = torch.arange(40) % 4
    content = DataSet("blobs", data(40), data(40)[:20], labels, labels[:20])
    run = RunFolder.create(tmp_path / "run", {"preprocessing": "none", "seed": 0})
    run.save({"model": model, "guide": guide}, {"step": 1})
    system = System(model, guide, RegularizedELBO())
    saved = Run(run, run.checkpoint(), system, torch.device("cpu"))
    subject = Subject(saved, content, EvaluationConfig(), progress=False)
    bound = evaluate_run(subject, ["elbo"])["elbo"]  # y summed out, so of the ladder without y
    plain = LadderVAE(list(model.prior.priors), model.decoder)
    exact = -RegularizedELBO(num_particles=20).loss(plain, Layerwise(guide), content.test) / len(
        content.test
    )
    assert bound["value"] == pytest.approx(exact, abs=4 * bound["standard_error"])
    found = evaluate_run(subject, ["layer-clusters"])
    assert "layer-clusters" in applicable(subject)
    kinds = ("cluster_accuracy", "cluster_hungarian", "cluster_nmi", "clusters_used")
    where = ("layer_1", "layer_2", "joint")
    assert set(found) == {f"{kind}_{one}" for kind in kinds for one in where}
    shares = guide.cluster_probabilities(content.test)
    assert found["clusters_used_layer_2"]["value"] == len(shares[1].argmax(-1).unique())
    drawings = drawings_of(subject, 4)
    assert list(drawings)[-2:] == ["clusters_layer_1", "clusters_layer_2"]
    train = guide.cluster_probabilities(content.train)[1].argmax(-1)
    with torch.no_grad():
        labels = [panel.get_ylabel() for panel in drawings["clusters_layer_2"]().axes]
    assert labels == [
        f"$y_{{2}}$ = {number} ({round(100 * float((train == number).float().mean()))} %)"
        for number in range(CLUSTERS[1])
    ]
