"""``dpvae plot RUN``: pictures of a trained run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.cli.train import check_device
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.metrics import leakage_curve, unit_activity
from pyro_dpvae.models import ClusteringLadderVAE
from pyro_dpvae.plots import (
    cluster_codes,
    latent_figure,
    layer_codes,
    layers_figure,
    leakage_figure,
    pockets_figure,
    traversal_figure,
)
from pyro_dpvae.priors import ProductPrior
from pyro_dpvae.recipes import open_system

__all__ = ["main"]

_CLOUD, _EXTREME = 2000, 200  # points in latent space
_STEPS, _PAIRS = 11, 5  # of pair traversals
_FACTORS, _REACH, _FACTOR_STEPS = 5, 3.0, 7  # of factor traversals; in standard deviations
_THRESHOLDS = 25
_OF_CLUSTER = 12  # draws of each cluster


def main(arguments: Sequence[str]) -> int:
    """Draw a run's pictures, each as PNG and PDF; returns the exit status."""
    parser = ArgumentParser(
        prog="dpvae plot",
        description="Draw a trained run: samples of the prior, its pockets and its leaks; latent "
        "space; traversals, of a ladder also layer by layer, and draws of each layer's "
        "clusters; leakage. Pictures lie in RUN/plots, as PNG and PDF.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=str, help="the run folder")
    parser.add_argument("--count", type=int, default=100, help="samples in a panel")
    parser.add_argument("--root", type=str | None, help="the folder that holds data sets by name")
    parser.add_argument("--seed", type=int, default=0, help="of samples and pairs")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", type=str | None, help="the folder (default: RUN/plots)")
    options = parser.parse_args(list(arguments))
    count = check_positive_int("count", options.count)
    saved = open_system(options.run, check_device(options.device))
    subject = Subject(saved, saved.data(options.root), EvaluationConfig(), progress=False)
    folder = Path(options.out) if options.out else saved.run.path / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.manual_seed(options.seed)
        figures = {
            "samples": _samples(subject, count),
            **_spaces_and_pairs(subject),
            "factors": _factors(subject),
            "leakage": _leakage(subject),
        }
        if isinstance(subject.prior, ProductPrior):
            figures["layers"] = _layers(subject, subject.prior)
        if isinstance(subject.model, ClusteringLadderVAE):
            figures.update(_clusters(subject, subject.model.prior))
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            figure.savefig(folder / f"{name}.{suffix}", dpi=150)
    print(f"{', '.join(figures)}: {folder}")
    return 0


def _samples(subject: Subject, count: int) -> Figure:
    drawn = {
        "prior samples": subject.prior().sample((count,)),
        "low-posterior samples (pockets)": subject.low_posterior(count),
        "high-posterior samples (leaks)": subject.high_posterior(count),
    }
    decoded = {title: _decode(subject, z) for title, z in drawn.items()}
    return pockets_figure(decoded, _points(subject))


def _spaces_and_pairs(subject: Subject) -> dict[str, Figure]:
    """Latent space with the traversals of pairs, and what they decode to.

    A traversal is straight in generation space, and so curved in representation space.
    """
    prior, aggregate = subject.prior, subject.aggregate
    ends = subject.test_means.to(subject.saved.device)
    if len(ends) < 2:
        ends = torch.cat([ends, aggregate.loc[:1]])
    pairs = min(_PAIRS, len(ends) // 2)
    chosen = ends[torch.randperm(len(ends))[: 2 * pairs].to(ends.device)]
    start, end = prior.to_generation(chosen)[0].chunk(2)
    fractions = torch.linspace(0, 1, _STEPS, device=start.device)[:, None]
    lines = [a + fractions * (b - a) for a, b in zip(start, end, strict=False)]
    clouds = {
        "aggregate posterior": aggregate.sample((_CLOUD,)),
        "prior": prior().sample((_CLOUD,)),
        "low-posterior (pockets)": subject.low_posterior(_EXTREME),
        "high-posterior (leaks)": subject.high_posterior(_EXTREME),
    }
    shown = {
        "representation space": (clouds, [prior.to_representation(line) for line in lines]),
        "generation space": (
            {title: prior.to_generation(z)[0] for title, z in clouds.items()},
            lines,
        ),
    }
    symbols = {"representation space": "z", "generation space": "z_0"}
    spaces, curves, names = {}, {}, {}
    for title, (points, paths) in shown.items():
        dims = _most_active(subject, title)
        spaces[title] = {label: cloud[:, dims] for label, cloud in points.items()}
        curves[title] = [path[:, dims] for path in paths]
        first, second = (f"${symbols[title]}$[{dim}]" for dim in dims)
        names[title] = first, second
    rows = [_decode(subject, prior.to_representation(line)) for line in lines]
    labels = [f"pair {number + 1}" for number in range(len(rows))]
    lines_figure = traversal_figure(
        rows, labels, title="held-out pairs, straight in generation space", data=_points(subject)
    )
    return {"latent": latent_figure(spaces, names=names, curves=curves), "pairs": lines_figure}


def _most_active(subject: Subject, space: str) -> list[int]:
    """Return the two coordinates whose means vary most, of one space."""
    if space == "representation space":
        spread = unit_activity(subject.aggregate)
    else:
        spread = subject.generation_spread
    if len(spread) == 1:
        return [0, 0]
    return sorted(spread.topk(2).indices.tolist())


def _factors(subject: Subject) -> Figure:
    """One datum's code, moved along the coordinates of generation space that vary most."""
    means = subject.test_means.to(subject.saved.device)
    code = means[torch.randint(len(means), (1,)).item() :][:1]
    origin = subject.prior.to_generation(code)[0]
    spread, (centre, scale) = subject.generation_spread, subject.base_moments
    rows, labels = [], []
    for dim in spread.topk(min(_FACTORS, len(spread))).indices.tolist():
        moved = origin.repeat(_FACTOR_STEPS, 1)
        steps = torch.linspace(-_REACH, _REACH, _FACTOR_STEPS, device=moved.device)
        moved[:, dim] = centre[dim] + scale[dim] * steps
        rows.append(_decode(subject, subject.prior.to_representation(moved)))
        labels.append(f"$z_0$[{dim}]")
    title = f"one coordinate of generation space, within {_REACH:g} standard deviations"
    return traversal_figure(rows, labels, title=title, data=_points(subject))


def _layers(subject: Subject, prior: ProductPrior) -> Figure:
    """One datum's code, varied layer by layer."""
    means = subject.test_means.to(subject.saved.device)
    origin = means[int(torch.randint(len(means), (1,)))]
    codes = layer_codes(prior, origin)
    return layers_figure({title: _decode(subject, z) for title, z in codes.items()})


def _clusters(subject: Subject, prior: ProductPrior) -> dict[str, Figure]:
    """A row of draws of each cluster of a layer; other layers are drawn from their priors."""
    figures = {}
    for layer in range(1, len(prior.priors) + 1):
        codes = cluster_codes(prior, layer, count=_OF_CLUSTER)
        rows = [_decode(subject, z) for z in codes]
        labels = [f"$y_{{{layer}}}$ = {number}" for number in range(len(rows))]
        title = f"draws of the clusters of layer {layer}"
        data = _points(subject)
        figures[f"clusters_layer_{layer}"] = traversal_figure(rows, labels, title=title, data=data)
    return figures


def _leakage(subject: Subject) -> Figure:
    z = subject.aggregate.sample((_CLOUD,))
    log_p = subject.prior().log_prob(z)
    low, high = float(log_p.quantile(0.001)), float(log_p.quantile(0.999))
    thresholds = torch.linspace(low, high, _THRESHOLDS).tolist()
    curves = {}
    for conditional, title in ((False, "unconditional"), (True, "conditional")):
        curves[title] = leakage_curve(
            subject.prior,
            subject.aggregate,
            thresholds=thresholds,
            samples=5000,
            conditional=conditional,
        )
    return leakage_figure(curves)


def _decode(subject: Subject, z: Tensor) -> Tensor:
    return torch.cat(list(subject.decoded(z))).cpu()


def _points(subject: Subject) -> Tensor | None:
    data = subject.data.train
    return data if isinstance(data, Tensor) and data.shape[1:] == (2,) else None
