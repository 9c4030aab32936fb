"""Every guide starts the clusters of a mixture prior from data, and evaluations measure them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_dpvae.data import Batches, DataSet
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder, WeightedGaussianEncoder
from pyro_dpvae.evaluation import EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.evaluation.evaluate import applicable
from pyro_dpvae.guides import (
    AbstractGuide,
    AmortizedGaussian,
    FlowGuide,
    LadderGuide,
    RecursiveMixtureGuide,
)
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.models import VAE, LadderVAE
from pyro_dpvae.nn import Batched
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.priors import (
    AbstractPrior,
    CouplingPrior,
    MixturePrior,
    ProductPrior,
    StandardNormal,
)
from pyro_dpvae.recipes import Run, System
from pyro_dpvae.runs import RunFolder
from pyro_dpvae.training import TrainConfig, fit

CENTRES = 5 * torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
SPREAD, LOG_VARIANCE = 0.4, -4.0


class Known(nn.Module):
    """q(z | x) has the mean x and one variance; further outputs, if any, are 0."""

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        self.more = more
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        mean = x + self.shift
        return torch.cat(
            [mean, torch.full_like(mean, LOG_VARIANCE), x.new_zeros(len(x), self.more)], -1
        )


def known(more: int = 0) -> Batched:
    return Batched(Known(more), in_shape=(3,), out_shape=(6 + more,))


def amortized() -> AbstractGuide:
    encoder = GaussianEncoder(Batched(nn.Identity(), in_shape=(3,), out_shape=(3,)), 3)
    encoder.network = known()
    return AmortizedGaussian(encoder)


def mixture() -> AbstractGuide:
    identity = Batched(nn.Identity(), in_shape=(3,), out_shape=(3,))
    encoders = [WeightedGaussianEncoder(identity, 3) for _ in range(2)]
    for encoder in encoders:
        encoder.network = known(1)
    return RecursiveMixtureGuide(encoders, active=2)


def blobs(size: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(size) % len(CENTRES)
    return CENTRES[labels] + SPREAD * torch.randn(size, 3), labels


def model(prior: AbstractPrior) -> VAE:
    network = Batched(nn.Linear(3, 3), in_shape=(3,), out_shape=(3,))
    return VAE(prior, Decoder(network, GaussianLikelihood((3,), variance=0.5)))


@pytest.mark.parametrize("make", [amortized, mixture])
def test_components_start_at_the_clusters_of_the_data(make: Callable[[], AbstractGuide]) -> None:
    torch.manual_seed(0)
    x, labels = blobs(800)
    prior, guide = MixturePrior(3, components=len(CENTRES)), make()
    state = torch.random.get_rng_state()
    guide.initialise_clusters(prior, x.split(100))
    assert torch.equal(torch.random.get_rng_state(), state)
    nearest = torch.cdist(prior.loc.detach(), CENTRES).argmin(-1)
    assert nearest.sort().values.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(prior.loc, CENTRES[nearest], atol=0.1, rtol=0)
    deviation = (SPREAD**2 + torch.tensor(LOG_VARIANCE).exp()).sqrt()
    torch.testing.assert_close(prior.log_scale.exp(), deviation.expand(4, 3), atol=0, rtol=0.25)
    torch.testing.assert_close(prior.logits.softmax(-1), torch.full((4,), 0.25), atol=0.01, rtol=0)
    assert torch.equal(nearest[prior.responsibilities(x).argmax(-1)], labels)


@pytest.mark.parametrize("kind", ["iaf", "coupling"])
@pytest.mark.parametrize("base", [False, True])
def test_components_start_at_the_clusters_of_a_flow(kind: Any, base: bool) -> None:
    """Its mean has no closed form; a fresh flow is near the normal of its encoder."""
    torch.manual_seed(0)
    x, labels = blobs(800)
    guide = FlowGuide(nn.Identity(), 3, kind=kind, context=2, in_shape=(3,))
    guide.network = known(2)
    mixture_prior = MixturePrior(3, components=len(CENTRES))
    prior = CouplingPrior(3, base=mixture_prior) if base else mixture_prior
    guide.initialise_clusters(prior, x.split(100))
    with torch.no_grad():
        z0 = prior.to_generation(guide.posterior(x).sample())[0]
    found = mixture_prior.responsibilities(z0).argmax(-1)
    groups = [found[labels == label].mode().values.item() for label in range(len(CENTRES))]
    assert sorted(groups) == [0, 1, 2, 3]
    assert (found == torch.tensor(groups)[labels]).float().mean() > 0.95


def test_every_layer_of_a_plain_ladder_starts_from_its_own_means() -> None:
    torch.manual_seed(0)
    x, _ = blobs(400)
    priors = [MixturePrior(1, components=2), MixturePrior(2, components=3)]
    guide = LadderGuide(amortized().encoder, (1, 2))
    guide.initialise_clusters(ProductPrior(priors), [x])
    # The first coordinate alone has clusters at 5, -5 and 0; of two, one holds an end.
    ends = priors[0].loc.detach().flatten().abs().max()
    assert float(ends) == pytest.approx(5.0, abs=0.1)
    rest = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    assert float(torch.cdist(rest, priors[1].loc.detach()).min(-1).values.max()) < 0.1


def test_priors_without_clusters_are_refused_before_anything_changes() -> None:
    guide, (x, _) = amortized(), blobs(8)
    with pytest.raises(ValueError, match=r"components of a MixturePrior.* got StandardNormal"):
        guide.initialise_clusters(StandardNormal(3), [x])
    prior = MixturePrior(3, components=9)
    before = prior.loc.clone()
    with pytest.raises(ValueError, match=r"9 clusters of layer 1 need .* data, got 8"):
        guide.initialise_clusters(prior, [x])
    assert torch.equal(prior.loc, before)


def test_fit_starts_the_clusters_of_a_plain_vae() -> None:
    torch.manual_seed(0)
    x, _ = blobs(200)
    prior = MixturePrior(3, components=len(CENTRES))
    train = Batches(x, batch_size=50, preprocessing="none")
    history = fit(
        model(prior),
        amortized(),
        objective=RegularizedELBO(),
        train=train,
        test=train,
        config=TrainConfig(steps=3, cluster_step=2, backend="eager"),
        progress=False,
    )
    assert [r["step"] for r in history.records if r.get("clusters") == "from data"] == [2]
    nearest = torch.cdist(prior.loc.detach(), CENTRES).min(-1)
    assert nearest.indices.sort().values.tolist() == [0, 1, 2, 3]
    assert float(nearest.values.max()) < 0.2


@pytest.mark.parametrize("ladder", [False, True])
def test_an_evaluation_measures_the_clusters_of_any_mixture_prior(
    ladder: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    x, labels = blobs(200)
    data = DataSet("blobs", x, x[:40], labels, labels[:40])
    guide: AbstractGuide = amortized()
    single = MixturePrior(3, components=len(CENTRES))
    system: VAE = model(single)
    if ladder:
        guide = LadderGuide(guide.encoder, (1, 2))
        priors = [MixturePrior(1, components=3), MixturePrior(2, components=3)]
        system = LadderVAE(priors, system.decoder)
    guide.initialise_clusters(system.prior, [x])
    run = RunFolder.create(tmp_path / "run", {"preprocessing": "none", "seed": 0})
    run.save({"model": system, "guide": guide}, {"step": 1})
    saved = Run(
        run, run.checkpoint(), System(system, guide, RegularizedELBO()), torch.device("cpu")
    )
    subject = Subject(saved, data, EvaluationConfig(), progress=False)
    assert "layer-clusters" in applicable(subject)
    found = {name: one["value"] for name, one in evaluate_run(subject, ["layer-clusters"]).items()}
    if not ladder:
        assert found == {
            "cluster_accuracy_layer_1": 1.0,
            "cluster_hungarian_layer_1": 1.0,
            "cluster_nmi_layer_1": pytest.approx(1.0),
            "clusters_used_layer_1": 4.0,
        }
        return
    # Each layer takes two of the four blobs for one; both layers together tell all apart.
    assert found["cluster_accuracy_layer_1"] == 0.75
    assert found["cluster_hungarian_layer_1"] == 0.75
    assert found["cluster_accuracy_joint"] == 1.0


def test_a_prior_without_clusters_has_none_to_measure(tmp_path: Path) -> None:
    x, labels = blobs(40)
    system, guide = model(StandardNormal(3)), amortized()
    run = RunFolder.create(tmp_path / "run", {"preprocessing": "none", "seed": 0})
    run.save({"model": system, "guide": guide}, {"step": 1})
    saved = Run(
        run, run.checkpoint(), System(system, guide, RegularizedELBO()), torch.device("cpu")
    )
    data = DataSet("blobs", x, x, labels, labels)
    subject = Subject(saved, data, EvaluationConfig(), progress=False)
    assert "layer-clusters" not in applicable(subject)
