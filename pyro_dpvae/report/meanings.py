"""What the numbers of an evaluation mean, one line each; docs/numbers.md says more."""

import re
from dataclasses import dataclass
from typing import final

__all__ = ["SECTIONS", "Meaning", "figure_meaning", "meaning_of"]


@final
@dataclass(frozen=True)
class Meaning:
    """A metric in words.

    Attributes:
        title: what it is called.
        text: what it is, in one line.
        better: ``"lower"`` or ``"higher"``, None where neither is.
        share: whether it lies between 0 and 1.
        unit: of its values; empty where they have none.
    """

    title: str
    text: str
    better: str | None = None
    share: bool = False
    unit: str = ""


SECTIONS: dict[str, tuple[str, ...]] = {
    "Likelihood": ("elbo", "nll"),
    "Prior and aggregate posterior": ("skl", "leakage", "split"),
    "Samples": ("distance", "domain", "fid"),
    "Representation": ("probe", "layers", "clusters", "layer-clusters", "disentanglement"),
}
"""The groups of metrics, in the order of reading."""

_LEAK = "E_q[log q(z) - log p(z)] where log p(z) < τ, "

_MEANINGS: dict[str, Meaning] = {
    r"elbo": Meaning("ELBO", "evidence lower bound of held-out data, nats per datum", "higher"),
    r"nll": Meaning(
        "negative log-likelihood",
        "-log p(x) of held-out data by importance sampling, nats per datum",
        "lower",
    ),
    r"skl": Meaning(
        "symmetric KL",
        "KL(p || q) + KL(q || p) of prior and aggregate posterior, from exact densities, in nats",
        "lower",
    ),
    r"skl_nearest": Meaning(
        "symmetric KL, nearest neighbours",
        "the authors' estimate of the same from nearest neighbours, which is biased",
        "lower",
    ),
    r"leakage_conditional_(.+)": Meaning(
        "conditional leakage, τ = {}", _LEAK + "as a mean over that part, in nats", "lower"
    ),
    r"leakage_generation_(.+)": Meaning(
        "leakage in generation space, τ = {}",
        "E_q[log q(z) - log p(z)] where log p0(g(z)) < τ, as a part of the whole, in nats",
        "lower",
    ),
    r"leakage_(.+)": Meaning(
        "leakage, τ = {}", _LEAK + "as a part of the whole, in nats", "lower"
    ),
    r"mutual_information": Meaning(
        "mutual information", "E[log q(z | x) - log q(z)]: what z tells of the datum, in nats"
    ),
    r"total_correlation": Meaning(
        "total correlation",
        "KL(q(z) || prod_d q(z_d)): how far coordinates depend on each other, in nats",
    ),
    r"dimension_wise_kl": Meaning(
        "dimension-wise KL",
        "E[log prod_d q(z_d) - log p(z)]: marginals against the prior, in nats",
    ),
    r"marginal_kl": Meaning(
        "marginal KL", "KL(q(z) || p(z)): how far the aggregate posterior is off, in nats", "lower"
    ),
    r"rate": Meaning("rate", "E[KL(q(z | x) || p(z))]: what a datum's code costs, in nats"),
    r"active_units": Meaning(
        "active units", "coordinates whose posterior mean varies over the data, by more than 0.01"
    ),
    r"distance": Meaning(
        "distance to data", "of decoded prior samples to the nearest training datum", "lower"
    ),
    r"distance_low_posterior": Meaning(
        "distance to data, pockets",
        "the same of low-posterior samples: prior draws of least q(z)",
        "lower",
    ),
    r"probe": Meaning(
        "linear probe",
        "held-out accuracy of a linear classifier on posterior means",
        "higher",
        True,
    ),
    r"nearest_neighbours": Meaning(
        "nearest neighbours",
        "held-out accuracy of ten neighbours on posterior means",
        "higher",
        True,
    ),
    r"probe_layer_(.+)": Meaning(
        "linear probe, layer {}",
        "held-out accuracy from layer {} of the ladder alone, counted from the data",
        "higher",
        True,
    ),
    r"nearest_neighbours_layer_(.+)": Meaning(
        "nearest neighbours, layer {}",
        "held-out accuracy from layer {} of the ladder alone, counted from the data",
        "higher",
        True,
    ),
    r"cluster_accuracy": Meaning(
        "cluster accuracy",
        "k-means on held-out posterior means, each cluster matched with one label",
        "higher",
        True,
    ),
    r"cluster_majority": Meaning(
        "cluster majority",
        "the same where each cluster takes its most frequent label",
        "higher",
        True,
    ),
    r"cluster_nmi": Meaning(
        "cluster information",
        "normalised mutual information of clusters and labels",
        "higher",
        True,
    ),
    r"cluster_accuracy_(.+)": Meaning(
        "cluster accuracy, {}",
        "held-out accuracy where each cluster takes the majority label of the training data",
        "higher",
        True,
    ),
    r"cluster_nmi_(.+)": Meaning(
        "cluster information, {}",
        "normalised mutual information of the ladder's clusters and labels",
        "higher",
        True,
    ),
    r"clusters_used_(.+)": Meaning(
        "clusters used, {}", "clusters that some held-out datum falls into"
    ),
    r"mig": Meaning(
        "mutual information gap",
        "between the two coordinates that know most of a factor, mean over factors",
        "higher",
        True,
    ),
    r"sap": Meaning(
        "separated predictability",
        "gap in predicting a factor from its two best coordinates, mean over factors",
        "higher",
        True,
    ),
    r"modularity": Meaning(
        "modularity", "how nearly each coordinate knows of one factor alone", "higher", True
    ),
    r"factor_vae_score": Meaning(
        "FactorVAE score",
        "accuracy of the majority vote of least varying coordinates",
        "higher",
        True,
    ),
    r"dci_(.+)": Meaning("DCI {}", "{} of codes as predictors of the factors", "higher", True),
}


def _of_features(
    names: tuple[str, ...], titles: tuple[str, ...], where: str
) -> dict[str, Meaning]:
    frechet = "Frechet distance of decoded {} to training images, {}"
    texts = (
        frechet.format("prior samples", where),
        frechet.format("low-posterior samples (pockets)", where),
        f"kernel distance of decoded prior samples to training images, {where}",
        f"share of samples that lie among the data, {where}",
        f"share of the data that lie among samples, {where}",
    )
    return {
        name: Meaning(title, text, *(("higher", True) if "share" in text else ("lower",)))
        for name, title, text in zip(names, titles, texts, strict=True)
    }


_MEANINGS |= _of_features(
    (
        "frechet_domain",
        "frechet_low_posterior_domain",
        "kernel_domain",
        "precision_domain",
        "recall_domain",
    ),
    (
        "Frechet distance, domain",
        "Frechet distance of pockets, domain",
        "kernel distance, domain",
        "precision, domain",
        "recall, domain",
    ),
    "in the features of a classifier of the data set, no Inception network",
)
_MEANINGS |= _of_features(
    ("fid", "fid_low_posterior", "kid", "precision_inception", "recall_inception"),
    ("FID", "FID of pockets, FID(LP)", "KID", "precision, Inception", "recall, Inception"),
    "in the features of pytorch-fid's Inception network",
)


def meaning_of(metric: str) -> Meaning:
    """Return what a metric means; one that is not known has its name for a title.

    Example:
        >>> meaning_of("leakage_-30").title, meaning_of("leakage_-30").better
        ('leakage, τ = −30', 'lower')
    """
    for pattern, meaning in _MEANINGS.items():
        if found := re.fullmatch(pattern, metric):
            parts = [
                part.replace("_", " ").replace("-", "\N{MINUS SIGN}") for part in found.groups()
            ]
            title, text = (one.format(*parts) for one in (meaning.title, meaning.text))
            return Meaning(title, text, meaning.better, meaning.share, _unit(metric, meaning))
    return Meaning(metric.replace("_", " "), "")


_NATS = (
    r"elbo|nll|skl(_nearest)?|leakage_.+|mutual_information|total_correlation"
    r"|dimension_wise_kl|marginal_kl|rate"
)
_COUNTS = {"active_units": "coordinates", "clusters_used": "clusters"}


def _unit(metric: str, meaning: Meaning) -> str:
    if re.fullmatch(_NATS, metric):
        return "nats"
    counted = next((unit for start, unit in _COUNTS.items() if metric.startswith(start)), "")
    if metric.startswith("distance"):
        return "of the data"
    return "share" if meaning.share else counted


_FIGURES = {
    r"samples": "Decoded samples: of the prior; of its pockets, prior draws of least q(z); and of "
    "the leaks, posterior draws of least p(z). A good prior has pockets that look like data.",
    r"latent": "Latent space in the two coordinates that vary most: where aggregate posterior and "
    "prior lie apart there are leaks and pockets.",
    r"pairs": "Each row goes from one held-out datum to another, straight in generation space.",
    r"factors": "Each row moves one coordinate of generation space and keeps the others.",
    r"leakage": "E_q[log q(z) - log p(z)] where log p(z) < τ, with bands of two standard "
    "errors: as a part of the whole and as a mean over that part. Lower is better.",
    r"layers": "Each panel varies one layer of the ladder and keeps the others.",
    r"clusters_layer_(.+)": "A row for each cluster of layer {}: draws that differ in the other "
    "layers.",
}


def figure_meaning(name: str) -> str:
    """Return how to read a figure, in a sentence or two.

    Example:
        >>> figure_meaning("clusters_layer_2")
        'A row for each cluster of layer 2: draws that differ in the other layers.'
    """
    for pattern, text in _FIGURES.items():
        if found := re.fullmatch(pattern, name):
            return text.format(*found.groups())
    return ""
