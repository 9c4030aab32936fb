"""Guides against true posteriors: models of two latents, fixed while guides are fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyro
import torch
from torch import Tensor, nn

from pyro_dpvae._checks import check_choice
from pyro_dpvae.decoders import Decoder
from pyro_dpvae.encoders import GaussianEncoder
from pyro_dpvae.guides import AbstractGuide, RecursiveMixtureGuide
from pyro_dpvae.inference import CapturedSVI
from pyro_dpvae.likelihoods import GaussianLikelihood
from pyro_dpvae.metrics import Estimate, PosteriorGrid, cell_kl, log_cell_mass, posterior_grid
from pyro_dpvae.metrics.estimate import mean_estimate
from pyro_dpvae.models import VAE
from pyro_dpvae.nn import Batched
from pyro_dpvae.nn.mlp import mlp_decoder, mlp_encoder
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.priors import AbstractPrior, CouplingPrior, StandardNormal
from pyro_dpvae.recipes.guides import GUIDES, GuideParts, build_guide

__all__ = ["POSTERIOR_MODELS", "PosteriorResult", "fixed_model", "measure_posteriors"]

_ONE: Mapping[str, tuple[str, dict[str, int | bool | str]]] = {
    "amortized": ("amortized", {}),
    "Laplace, T = 1": ("laplace", {"steps": 1}),
    "Laplace, T = 4": ("laplace", {"steps": 4}),
}
_MIXTURES: Mapping[str, tuple[str, dict[str, int | bool | str]]] = {
    "amortized": _ONE["amortized"],
    "Laplace, T = 4": _ONE["Laplace, T = 4"],
    "recursive mixture of 2": ("recursive-mixture", {"components": 2, "start": "trunk"}),
    "recursive mixture of 3": ("recursive-mixture", {"components": 3, "start": "trunk"}),
    "plain mixture of 2": ("recursive-mixture", {"components": 2, "recursive": False}),
    "plain mixture of 3": ("recursive-mixture", {"components": 3, "recursive": False}),
}

POSTERIOR_MODELS = {"curved": _ONE, "curved, coupling prior": _ONE, "folded": _MIXTURES}
"""The guides that are fitted to each model: by title, the guide's name and options."""

_WIDTH, _FEATURES = 64, 6  # of the curved decoder
_BATCH, _LEARNING_RATE = 128, 3e-3
_REACH, _SIDE = 10.0, 301


@dataclass(frozen=True)
class PosteriorResult:
    """How far each guide's q(z | x) lies from p(z | x) in one model.

    Attributes:
        kl: KL(q || p) in nats over the test data, by the guide's title.
        shown: the true posterior of one datum, that of median KL under the amortized guide.
        log_cell_mass: log q of that datum in the grid's cells, of shape (1, cells), by title.
    """

    kl: dict[str, Estimate]
    shown: PosteriorGrid
    log_cell_mass: dict[str, Tensor]


def fixed_model(name: str) -> VAE:
    """Build a model of two latents, in float64, whose parameters take no gradient.

    - ``curved``: a perceptron of 64 ReLUs to six values, with weights drawn once, under a
      Gaussian of scale 0.2; the prior is standard.
    - ``curved, coupling prior``: the same decoder under two couplings, with weights drawn once.
    - ``folded``: x ~ N((|z_1|, z_2 + |z_1| / 2), 0.3^2 I), whose posteriors have two modes.

    Raises:
        ValueError: for another name.

    Example:
        >>> fixed_model("folded").decoder(torch.tensor([-1.0, 2.0]).double()).mean
        tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    check_choice("name", name, POSTERIOR_MODELS)
    generator = torch.Generator().manual_seed(0)
    prior: AbstractPrior = StandardNormal(2)
    if name == "folded":
        network, variance = _fold(), 0.3**2
    else:
        network, variance = mlp_decoder(2, (_FEATURES,), hidden=(_WIDTH,)), 0.2**2
        _draw(network, generator)
        if "coupling" in name:
            prior = CouplingPrior(2, blocks=2, hidden=(16,))
            _draw(prior, generator)
    decoder = Decoder(network, GaussianLikelihood(network.out_shape, variance=variance))
    return VAE(prior, decoder).double().requires_grad_(False).eval()


def measure_posteriors(
    name: str, *, steps: int, seed: int = 0, data: int = 200
) -> PosteriorResult:
    """Fit the guides of :data:`POSTERIOR_MODELS` to a fixed model and measure them on fresh data.

    Each guide takes the same number of steps of Adam at 3e-3, on the same draws from the model in
    batches of 128. A mixture that grows has an equal share of them for each number of components,
    half of it for the growth into that number.

    Args:
        name: of the model, as in :func:`fixed_model`.
        steps: of each guide.
        seed: of weights, training data and test data.
        data: how many test data.

    Raises:
        ValueError: for another name.
    """
    model = fixed_model(name)
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        train = model(size=_BATCH * steps).split(_BATCH)
        test = model(size=data)
    grid = posterior_grid(model.prior, model.decoder, test, reach=_REACH, side=_SIDE)
    divergences, masses = {}, {}
    for title, (guide_name, options) in POSTERIOR_MODELS[name].items():
        pyro.set_rng_seed(seed)
        guide = build_guide(GUIDES[guide_name], options, _parts(model)).double()
        _fit(model, guide, train)
        masses[title] = log_cell_mass(guide.eval().posterior, grid)
        divergences[title] = cell_kl(masses[title], grid.log_mass)
    datum = int(divergences["amortized"].argsort()[data // 2])
    settings = {"reach": grid.reach, "side": grid.side, "steps": steps}
    return PosteriorResult(
        kl={title: mean_estimate(values, settings) for title, values in divergences.items()},
        shown=grid.of_datum(datum),
        log_cell_mass={title: mass[datum : datum + 1] for title, mass in masses.items()},
    )


def _parts(model: VAE) -> GuideParts:
    shape = model.decoder(torch.zeros(model.decoder.latent_dim, dtype=torch.double)).event_shape

    network = partial(mlp_encoder, shape, hidden=(64, 64))
    return GuideParts(
        network=network,
        prior=model.prior,
        decoder=model.decoder,
        encoder=lambda: GaussianEncoder(network(), model.decoder.latent_dim),
    )


def _fit(model: VAE, guide: AbstractGuide, batches: Sequence[Tensor]) -> None:
    if not isinstance(guide, RecursiveMixtureGuide):
        _train(model, guide, batches)
        return
    shares = guide.num_components - guide.active + 1
    share = len(batches) // shares
    _train(model, guide, batches[:share])
    for start in range(share, share * shares, share):
        middle = start + share // 2
        growth = list(batches[start:middle])
        rate = _LEARNING_RATE
        guide.grow(model, growth, steps=len(growth), learning_rate=rate, progress=False)
        _train(model, guide, batches[middle : start + share])


def _train(model: VAE, guide: AbstractGuide, batches: Sequence[Tensor]) -> None:
    svi = CapturedSVI(model, guide, pyro.optim.Adam({"lr": _LEARNING_RATE}), RegularizedELBO())
    for batch in batches:
        svi.step(batch)


def _fold() -> Batched:
    """Return z -> (|z_1|, z_2 + |z_1| / 2), of ReLUs."""
    network = mlp_decoder(2, (2,), hidden=(4,))
    split, joined = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        split.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        joined.weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 1.0, -1.0]]))
        split.bias.zero_()
        joined.bias.zero_()
    return network


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights of variance 1 / inputs, and biases of variance 1 / 4."""
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 0.5
            parameter.normal_(0.0, scale, generator=generator)
