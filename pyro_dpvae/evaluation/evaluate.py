"""Groups of metrics of a trained run, and the file in which they are stored."""

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

import pyro_dpvae.metrics as metrics
from pyro_dpvae._bars import in_time, write_above
from pyro_dpvae._checks import check_choice
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae._ranks import map_over_ranks, on_first_rank, ranks, shared_object
from pyro_dpvae._subsets import evenly_spaced
from pyro_dpvae.data import own_batches
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.decoders.decoder import shows
from pyro_dpvae.distributions import DiagonalNormalMixture, effective_components
from pyro_dpvae.errors import EvaluationWarning
from pyro_dpvae.evaluation import labelled, needs
from pyro_dpvae.evaluation.config import EvaluationConfig
from pyro_dpvae.evaluation.kept import keep, kept_of, kept_per_datum
from pyro_dpvae.evaluation.needs import Need
from pyro_dpvae.evaluation.subject import Subject
from pyro_dpvae.features import AbstractFeatures
from pyro_dpvae.features.base import inception_weights
from pyro_dpvae.importance import ImportanceSampler, log_weights
from pyro_dpvae.metrics.estimate import Estimate, Settings, mean_estimate, sum_estimate
from pyro_dpvae.metrics.pockets import Space

__all__ = ["GROUPS", "applicable", "evaluate_run"]

_ELBO_SAMPLES = 10
_PER_DATUM = ("elbo", "nll")  # groups with a value per datum
_LONG = 30.0  # seconds from which the time of the likelihoods is printed in advance

Estimates = dict[str, Estimate]


@dataclass(frozen=True)
class _Group:
    """Metrics that are measured together, and their requirements.

    Attributes:
        measure: returns the metrics.
        numbers: the EvaluationConfig fields these metrics depend on, besides the seed.
        fixed: further settings that are the same for all configurations.
        needs: requirements on the run.
    """

    measure: Callable[[Subject], Estimates]
    numbers: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()

    def missing(self, subject: Subject) -> list[str]:
        """Return the names of the requirements that a run does not meet."""
        return [what for what, met in self.needs if not met(subject)]


def evaluate_run(
    subject: Subject, groups: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Measure groups of metrics and store them in the run's ``evaluation.json``.

    Metrics that the file has for the same checkpoint, data, labels and settings are not measured
    again, so an interrupted evaluation can be continued. Metrics of another checkpoint or other
    data are dropped. Each group has its own random draws, so that a value does not depend on the
    other groups.

    With several ranks all must call it. They share the work on batches, get the same values as a
    single rank, and rank zero writes.

    Args:
        subject: the run.
        groups: some of ``GROUPS``; by default all that apply except ``fid``. Default groups that
            fail on the data are skipped with a warning.

    Returns:
        The metrics by name: ``{"value", "standard_error", "settings"}``; an unknown standard error
        is None.

    Raises:
        ValueError: for an unknown group, or one that the run's data do not allow; or if the file
            is not an evaluation.
    """
    chosen = applicable(subject) if groups is None else list(dict.fromkeys(groups))
    for name in chosen:
        group = GROUPS[check_choice("metrics", name, GROUPS)]
        if missing := group.missing(subject):
            raise ValueError(
                f"{name} needs {' and '.join(missing)}, and this run on {subject.data.name!r} "
                "has none"
            )
    run = subject.saved.folder
    basis = {"run": subject.saved.checkpoint.digest, "data": subject.data.digest}
    if subject.saved.weights != "raw":
        basis["weights"] = subject.saved.weights
    # Rank zero's, since ranks must agree on what to measure.
    content = shared_object(kept_of(run, basis))
    values = shared_object(sorted(kept_per_datum(run, content)))
    measured: dict[str, dict[str, Any]] = {}
    done: list[str] = []
    for name in chosen:
        numbers, before = numbers_of(name, subject.config), content["groups"].get(name, {})
        inputs = _inputs(name, subject)
        whole = name in values or name not in _PER_DATUM
        same = before.get("numbers") == numbers and before.get("inputs", inputs) == inputs
        if whole and same:
            measured |= {key: content["metrics"][key] for key in before["metrics"]}
            done.append(name)
            continue
        try:
            with forked_rng(subject.config.seed):
                found = GROUPS[name].measure(subject)
        except KeyboardInterrupt as error:
            kept = ", ".join(done) or "nothing yet"
            error.add_note(f"stored in {run.path}: {kept}; the same command continues with {name}")
            raise
        except ValueError as error:
            if groups is not None:
                raise
            warnings.warn(f"{name} is skipped: {error}", category=EvaluationWarning, stacklevel=2)
            continue
        plain = {key: _plain(estimate) for key, estimate in found.items()}
        of_each = subject.per_datum.get(name)
        on_first_rank(
            partial(
                keep,
                *(run, basis, name),
                numbers=numbers,
                metrics=plain,
                inputs=inputs,
                per_datum=of_each,
            )
        )
        measured |= plain
        done.append(name)
    return measured


def applicable(subject: Subject) -> list[str]:
    """Return the groups that the run's data allow, except those that need a download."""
    return [name for name, group in GROUPS.items() if not group.missing(subject) and name != "fid"]


def numbers_of(group: str, config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings that a group's metrics depend on, as ``evaluation.json`` stores them."""
    names = (*GROUPS[group].numbers, "seed")
    numbers = {number: getattr(config, number) for number in names}
    return {**numbers, **GROUPS[group].fixed}


def _inputs(group: str, subject: Subject) -> str | None:
    """Return a digest of what a group uses besides the items of the data; None if nothing."""
    if group == "fid":
        try:
            weights = inception_weights(subject.config.inception)
        except FileNotFoundError:
            return None  # what is stored is of the same weights, for all that is known
        return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    if not {needs.LABELS, needs.CLASSES, needs.FACTORS}.intersection(GROUPS[group].needs):
        return None
    data, digest = subject.data, hashlib.sha256()
    for one in (data.train_labels, data.test_labels, data.train_factors, data.test_factors):
        digest.update(repr(None if one is None else tuple(one.shape)).encode())
        digest.update(b"" if one is None else one.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _plain(estimate: Estimate) -> dict[str, Any]:
    error = estimate.standard_error
    return {
        "value": estimate.value,
        "standard_error": None if math.isnan(error) else error,
        "settings": dict(estimate.settings),
    }


def _elbo(subject: Subject) -> Estimates:
    # Enumerated sites are summed out of both p and q. If q(y | x) is a network's, the bound is
    # tighter than the training's, by KL(q(y | x) || p(y | z)).
    def bound(x: Tensor) -> tuple[Tensor, Tensor | None]:
        found = log_weights(subject.model, subject.guide, x, num_samples=_ELBO_SAMPLES).mean(0)
        with torch.no_grad():
            q = subject.guide.posterior(x)
        mixture = isinstance(q, DiagonalNormalMixture)
        return found.cpu(), q.logits.exp().cpu() if mixture else None

    found = map_over_ranks(bound, own_batches(subject.test))
    bounds = torch.cat([one for one, _ in found])
    subject.per_datum["elbo"] = bounds
    estimates = {"elbo": mean_estimate(bounds, {"samples": _ELBO_SAMPLES, "data": len(bounds)})}
    weights = [one for _, one in found if one is not None]
    if weights:
        number = effective_components(torch.cat(weights))
        settings: Settings = {"components": weights[0].shape[-1], "data": len(bounds)}
        estimates["effective_components"] = Estimate(number, math.nan, settings)
    return estimates


def _likelihood(subject: Subject) -> Estimates:
    config = subject.config
    batches = _spread(subject, config.nll_data)
    if subject.progress:
        _announce_likelihood(subject, batches)
    found = metrics.log_likelihoods(
        subject.model,
        subject.guide,
        batches,
        num_samples=config.nll_samples,
        chunk=config.chunk,
        compile=config.compile,
        progress=subject.progress,
    )
    subject.per_datum["nll"] = -found.log_likelihood
    return {"nll": metrics.negative_log_likelihood(found)}


def _announce_likelihood(subject: Subject, batches: Sequence[Tensor]) -> None:
    """Print how long the likelihoods take, if that is long.

    It is estimated from two chunks of samples of the first batch, after one that is not timed:
    the first chunk takes longer, because it measures how many samples fit.
    """
    config = subject.config
    sampler = ImportanceSampler(subject.model, subject.guide, chunk=config.chunk)
    spent: list[float] = []
    with forked_rng():
        samples = len(next(sampler.chunks(batches[0], num_samples=config.nll_samples)))
        start = time.monotonic()
        for _ in islice(sampler.chunks(batches[0], num_samples=config.nll_samples), 2):
            spent.append(time.monotonic() - start - sum(spent))
    of_batch = spent[0] + spent[-1] * (math.ceil(config.nll_samples / samples) - 1)
    data = sum(map(len, batches))
    seconds = of_batch * data / len(batches[0]) / ranks().count
    if seconds >= _LONG and ranks().index == 0:
        write_above(
            f"nll takes about {in_time(seconds)} for {config.nll_samples} samples of "
            f"{data} data; nll_samples={config.nll_samples // 5} takes a fifth"
        )


def _spread(subject: Subject, count: int) -> Sequence[Tensor]:
    """Return evenly spaced held-out data in batches of 32; the last may be smaller."""
    chosen = evenly_spaced(count, split_size(subject.data.test))
    parts, start = [], 0
    for x in subject.test.epoch(0):
        here = chosen[(chosen >= start) & (chosen < start + len(x))] - start
        parts.append(x[here.to(x.device)])
        start += len(x)
    return torch.cat(parts).split(32)


def _symmetric_kl(subject: Subject) -> Estimates:
    samples = subject.config.latent_samples
    forward, backward = metrics.kl_divergences(
        subject.prior, subject.aggregate, num_samples=samples
    )
    return {
        "skl": sum_estimate(forward, backward),
        "kl_prior": forward,
        "kl_aggregate": backward,
        "skl_halves": metrics.split_half_kl(subject.aggregate, num_samples=samples),
        "skl_nearest": metrics.symmetric_kl(
            subject.prior, subject.aggregate, num_samples=samples, estimator="nearest"
        ),
    }


def _leakage(subject: Subject) -> Estimates:
    found = {}
    forms: tuple[tuple[str, bool, Space], ...] = (
        ("leakage", False, "representation"),
        ("leakage_conditional", True, "representation"),
        ("leakage_generation", False, "generation"),
    )
    for name, conditional, space in forms:
        curve = metrics.leakage_curve(
            subject.prior,
            subject.aggregate,
            num_samples=subject.config.latent_samples,
            conditional=conditional,
            space=space,
        )
        for estimate in curve:
            found[f"{name}_{estimate.settings['threshold']:g}"] = estimate
    return found


def _split(subject: Subject) -> Estimates:
    split = metrics.rate_split(
        subject.prior, subject.aggregate, num_samples=subject.config.latent_samples
    )
    return {**split, "active_units": metrics.active_units(subject.aggregate)}


def _distances(subject: Subject) -> Estimates:
    with torch.no_grad():
        prior = subject.prior().sample((subject.config.latent_samples,))
    low = subject.low_posterior(max(2, subject.config.latent_samples // 5))
    assert isinstance(subject.data.train, Tensor)
    samples = {"distance": prior, "distance_low_posterior": low}
    decoded = {name: torch.cat(list(subject.decoded(z))).cpu() for name, z in samples.items()}
    return {name: metrics.distance_to_data(x, subject.data.train) for name, x in decoded.items()}


def _inception(subject: Subject) -> Estimates:
    found = _feature_metrics(subject, subject.inception())
    names = {"frechet": "fid", "frechet_low_posterior": "fid_low_posterior", "kernel": "kid"}
    return {names.get(name, f"{name}_inception"): value for name, value in found.items()}


def _domain(subject: Subject) -> Estimates:
    found = _feature_metrics(subject, subject.domain_network())
    return {f"{name}_domain": value for name, value in found.items()}


def _feature_metrics(subject: Subject, network: AbstractFeatures) -> Estimates:
    reference = subject.reference_features(network)
    statistics = metrics.FeatureStatistics.of([reference])
    count = subject.config.images
    with torch.no_grad():
        prior = subject.prior().sample((count,))
    samples = subject.sample_features(network, prior, "features of prior samples")
    low = subject.sample_features(
        network, subject.low_posterior(count), "features of low-posterior samples"
    )
    precision, recall = metrics.precision_and_recall(samples, reference)
    found = {
        "frechet": metrics.frechet_estimate(samples, statistics),
        "frechet_low_posterior": metrics.frechet_estimate(low, statistics),
        "kernel": metrics.kernel_distance(samples, reference),
        "precision": precision,
        "recall": recall,
    }
    with torch.no_grad():
        shown = shows(subject.model.decoder, prior[:1])
    common = {"images": f"{shown} of p(x|z)", "reference_split": "train", **network.settings}
    return {name: replace(one, settings={**one.settings, **common}) for name, one in found.items()}


_LATENT = ("latent_samples",)
# Part of the settings, so that values of other data are measured again.
_SPACED = {"data": "evenly spaced"}

GROUPS: dict[str, _Group] = {
    "elbo": _Group(_elbo),
    "skl": _Group(_symmetric_kl, _LATENT),
    "leakage": _Group(_leakage, _LATENT),
    "split": _Group(_split, _LATENT),
    "distance": _Group(_distances, _LATENT, needs=(needs.VECTORS,)),
    "probe": _Group(labelled.probe, fixed=_SPACED, needs=(needs.LABELS,)),
    "layers": _Group(labelled.layers, fixed=_SPACED, needs=(needs.LABELS, needs.LAYERS)),
    "clusters": _Group(labelled.clusters, needs=(needs.LABELS,)),
    "layer-clusters": _Group(labelled.own_clusters, needs=(needs.LABELS, needs.CLUSTERS)),
    "disentanglement": _Group(labelled.disentanglement, needs=(needs.FACTORS,)),
    "domain": _Group(
        _domain, ("images",), _SPACED, (needs.IMAGES, needs.CLASSES, needs.IN_MEMORY)
    ),
    "fid": _Group(_inception, ("images",), _SPACED, needs=(needs.IMAGES,)),
    "nll": _Group(_likelihood, ("nll_samples", "nll_data"), _SPACED),
}
"""The groups of metrics by name."""
