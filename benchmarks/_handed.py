"""What a peer is handed, and what it must then agree with: one model, its terms and its losses."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyro_dpvae import VAE, AmortizedGaussian, CouplingPrior

__all__ = ["STEPS", "check_falls", "check_terms", "hand_over"]

STEPS = 120
"""How many first steps are compared."""

_WINDOWS = 3


def hand_over(model: VAE, guide: AmortizedGaussian, x: Tensor, path: Path) -> None:
    """Write the networks of perceptrons, the images and a draw of noise to an .npz file.

    Its names are those that ``benchmarks/peers/numpyro_vae.py`` lists.
    """
    networks: dict[str, nn.Module] = {
        "encoder": guide.encoder.network,
        "decoder": model.decoder.network,
    }
    if isinstance(model.prior, CouplingPrior):
        for number, coupling in enumerate(model.prior.couplings):
            for part in ("shift", "scale"):
                networks[f"coupling.{number}.{part}"] = getattr(coupling, part)
    arrays = {"x": x.flatten(1), "noise": torch.randn(len(x), guide.encoder.latent_dim)}
    for name, network in networks.items():
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        for number, layer in enumerate(layers):
            arrays[f"{name}.{number}.weight"] = layer.weight
            arrays[f"{name}.{number}.bias"] = layer.bias
    np.savez(path, **{name: value.detach().numpy() for name, value in arrays.items()})


@torch.no_grad()
def check_terms(
    theirs: dict[str, list[float]], model: VAE, guide: AmortizedGaussian, x: Tensor, path: Path
) -> None:
    """Refuse a peer whose densities at the noise that it was handed differ from ours.

    Args:
        theirs: its ``x``, log p(x | z); ``z``, log p(z); ``q``, log q(z | x), in nats for each
            image; or the mean of ``x`` over the images, and that of ``rate``, KL(q(z | x) | p(z))
            in closed form for a standard normal prior.
        model: the model that was handed over.
        guide: the guide that was handed over.
        x: the images.
        path: the file.
    """
    q = guide.posterior(x)
    noise = torch.from_numpy(np.load(path)["noise"])
    z = q.mean + q.stddev * noise
    ours = {
        "x": model.decoder(z).log_prob(x),
        "z": model.prior().log_prob(z),
        "q": q.log_prob(z),
        "rate": 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).sum(-1),
    }
    for name, found in theirs.items():
        one, other = torch.tensor(found), ours[name].flatten()
        if len(one) == 1:
            other = other.mean(0, keepdim=True)
        if not (one - other).abs().max() <= 1e-4 * other.abs().max():
            raise AssertionError(f"the peer's densities {name} are {one}, not {other}")


def check_falls(ours: Sequence[float], theirs: Sequence[float]) -> None:
    """Refuse a peer whose losses, over the first ``STEPS`` steps, do not fall as ours do.

    Both draw their own noise. In each third of the steps, the mean difference must be within six
    of its standard errors, and within a twentieth of how far our losses fell.
    """
    mine = np.array(ours[:STEPS]).reshape(_WINDOWS, -1)
    difference = np.array(theirs[:STEPS]).reshape(_WINDOWS, -1) - mine
    fall = mine[0].mean() - mine[-1].mean()
    errors = difference.std(1, ddof=1) / math.sqrt(difference.shape[1])
    if not (np.abs(difference.mean(1)) <= np.minimum(6 * errors, fall / 20)).all():
        raise AssertionError(
            f"the peer's losses do not fall as ours, by {fall:.1f} in {STEPS} steps: they differ "
            f"by {difference.mean(1)}, with standard errors {errors}"
        )
