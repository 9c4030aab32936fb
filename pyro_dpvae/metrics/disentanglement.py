"""Disentanglement: scores of z against known factors of variation."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Real
from numpy.typing import NDArray
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.metrics.estimate import Estimate, Settings, share_estimate

__all__ = [
    "DISENTANGLEMENT",
    "constant_factors",
    "dci",
    "factor_vae_score",
    "mig",
    "modularity",
    "sap",
]

_BINS = 20
_RESAMPLES = 20
_COLLAPSED = 0.01  # of the posterior variance
_ROUNDING = 4  # units in the last place of the largest value

Array = NDArray[Any]


def constant_factors(factors: Real[Tensor, "rows factors"]) -> list[int]:
    """Return the columns of factors with one value for all data, which no score uses.

    Example:
        >>> import torch
        >>> constant_factors(torch.tensor([[0, 3], [1, 3]]))
        [1]
    """
    return [f for f in range(factors.shape[1]) if len(factors[:, f].unique()) < 2]


def mig(z: Float[Tensor, "data latent"], factors: Real[Tensor, "rows factors"]) -> Estimate:
    """Return the mutual information gap, in [0, 1].

    For each factor v, it is the difference of the two largest I(z_d; v) over coordinates d,
    divided by H(v); the gap is the mean over factors. Coordinates are cut into 20 bins of equal
    width.

    Raises:
        ValueError: if shapes do not match, factors are not whole numbers, z has one coordinate, or
            no factor varies.

    References:
        Chen et al. (2018), Isolating sources of disentanglement in VAEs, section 4.1.
    """
    from sklearn.metrics import mutual_info_score

    def score(codes: Array, values: Array) -> float:
        information = _information(codes, values)
        top = np.sort(information, 0)[-2:]
        entropies = np.array([mutual_info_score(v, v) for v in values.T])
        # A rare value may be missing in a half of the data.
        varying = [len(np.unique(v)) > 1 for v in values.T]
        gaps = (top[1] - top[0])[varying] / entropies[varying]
        return float(gaps.mean()) if len(gaps) else math.nan

    return _resampled(score, z, factors, {"bins": _BINS}, least=2)[0]


def modularity(z: Float[Tensor, "data latent"], factors: Real[Tensor, "rows factors"]) -> Estimate:
    """Return the modularity, in [0, 1]: how nearly each coordinate depends on a single factor.

    With m_df = I(z_d; v_f) and its largest entry theta_d at coordinate d, it is the mean over d of
    1 - sum over the other f of m_df^2 / (theta_d^2 (F - 1)). A coordinate without information
    counts as 0.

    Raises:
        ValueError: if shapes do not match, factors are not whole numbers, or fewer than two vary.

    References:
        Ridgeway, Mozer (2018), Learning deep disentangled embeddings with the F-statistic loss,
        section 3.
    """

    def score(codes: Array, values: Array) -> float:
        squares = np.square(_information(codes, values))
        largest = squares.max(1)
        others = squares.sum(1) - largest
        with np.errstate(invalid="ignore", divide="ignore"):
            of_coordinate = 1 - others / (largest * (squares.shape[1] - 1))
        return float(np.where(largest > 0, of_coordinate, 0.0).mean())

    return _resampled(score, z, factors, {"bins": _BINS}, least_factors=2)[0]


def sap(z: Float[Tensor, "data latent"], factors: Real[Tensor, "rows factors"]) -> Estimate:
    """Return the separated attribute predictability, in [0, 1].

    For each factor, it is the difference of the two best held-out accuracies of a linear
    classifier on a single coordinate; the score is the mean over factors. Half of the data are
    held out.

    Raises:
        ValueError: as :func:`mig`.

    References:
        Kumar, Sattigeri, Balakrishnan (2018), Variational inference of disentangled latent
        concepts, section 3.
    """
    from sklearn.svm import LinearSVC

    def score(codes: Array, values: Array) -> float:
        half = len(codes) // 2
        scales = codes.std(0) + 1e-12
        accuracies = np.zeros((codes.shape[1], values.shape[1]))
        for f in range(values.shape[1]):
            if len(np.unique(values[:half, f])) < 2:  # all that a classifier can predict
                accuracies[:, f] = (values[half:, f] == values[0, f]).mean()
                continue
            for d in range(codes.shape[1]):
                column = codes[:, d : d + 1] / scales[d]
                machine = LinearSVC(C=0.01, class_weight="balanced", dual=False)
                machine.fit(column[:half], values[:half, f])
                accuracies[d, f] = machine.score(column[half:], values[half:, f])
        top = np.sort(accuracies, 0)[-2:]
        return float((top[1] - top[0]).mean())

    settings: Settings = {"classifier": "linear SVM, C 0.01, balanced"}
    return _resampled(score, z, factors, settings, least=2, resamples=5)[0]


def dci(
    z: Float[Tensor, "data latent"], factors: Real[Tensor, "rows factors"]
) -> dict[str, Estimate]:
    """Return disentanglement, completeness and informativeness, each in [0, 1].

    A random forest predicts each factor from z; R_df is the importance of coordinate d for factor
    f. Disentanglement is 1 - H(row d of R), averaged with the rows' sums as weights; completeness
    is the mean of 1 - H(column f); informativeness is the held-out accuracy. The base of an
    entropy is its number of outcomes. Half of the data are held out.

    Raises:
        ValueError: as :func:`mig`, or if fewer than two factors vary.

    References:
        Eastwood, Williams (2018), A framework for the quantitative evaluation of disentangled
        representations, section 2.
    """
    from sklearn.ensemble import RandomForestClassifier

    def scores(codes: Array, values: Array) -> Array:
        half = len(codes) // 2
        importances, accuracies = [], []
        for f in range(values.shape[1]):
            # Every split may take any coordinate: a random choice would spread the importance.
            forest = RandomForestClassifier(
                30, max_depth=10, max_features=None, min_samples_leaf=5, random_state=0
            )
            forest.fit(codes[:half], values[:half, f])
            importances.append(forest.feature_importances_)
            accuracies.append(forest.score(codes[half:], values[half:, f]))
        relative = np.stack(importances, 1)
        weights = relative.sum(1) / max(relative.sum(), 1e-12)  # no forest may find a split
        disentangled = float((weights * (1 - _entropy_of_rows(relative))).sum())
        complete = float((1 - _entropy_of_rows(relative.T)).mean())
        return np.array([disentangled, complete, np.mean(accuracies)])

    settings: Settings = {"classifier": "random forest of 30, depth 10"}
    names = ("disentanglement", "completeness", "informativeness")
    found = _resampled(scores, z, factors, settings, least=2, least_factors=2, resamples=5)
    return dict(zip(names, found, strict=True))


def factor_vae_score(
    z: Float[Tensor, "data latent"],
    factors: Real[Tensor, "rows factors"],
    *,
    votes: int = 800,
    batch: int = 64,
    seed: int = 0,
    posterior_variance: Float[Tensor, " latent"] | None = None,
) -> Estimate:
    """Return the FactorVAE score: the accuracy of a majority vote of least varying coordinates.

    A vote fixes one factor in a batch of data and names the coordinate of least variance, relative
    to its variance over all data. Half of the votes make a classifier from coordinates to factors;
    the other half test it. Constant coordinates do not take part, nor collapsed ones, whose
    variance is below a hundredth of ``posterior_variance``. These criteria do not depend on a
    coordinate's scale; code of Locatello et al. (2019) leaves out standard deviations below 0.05
    instead.

    Args:
        z: representations, such as the means of q(z | x).
        factors: the factors of each datum, whole numbers.
        votes: the number of votes.
        batch: the number of data in a vote.
        seed: random seed of the votes.
        posterior_variance: the variance of q(z | x) in each coordinate, averaged over data; None
            lets collapsed coordinates take part.

    Raises:
        ValueError: if shapes do not match, factors are not whole numbers, or no factor or no
            coordinate varies.

    References:
        Kim, Mnih (2018), Disentangling by factorising, section 4 and appendix B. Locatello et al.
        (2019), Challenging common assumptions in the unsupervised learning of disentangled
        representations.
    """
    codes, values, left_out = _varying(z, factors)
    check_positive_int("votes", votes)
    spread = codes.var(0)
    rounding = _ROUNDING * torch.finfo(z.dtype).eps * np.abs(codes).max(0)
    active = np.sqrt(spread) > rounding
    if not active.any():
        raise ValueError("z must vary, got one value for all data; train the model longer")
    if posterior_variance is not None:
        active &= spread > _COLLAPSED * posterior_variance.double().cpu().numpy()
        if not active.any():
            raise ValueError(
                f"z must not be collapsed, got less variance than {_COLLAPSED:g} "
                f"posterior_variance in all {len(active)} coordinates; train the model longer, or "
                "lower the weight of the rate"
            )
    codes, spread = codes[:, active], spread[active]
    generator = np.random.default_rng(seed)
    table = np.zeros((2, codes.shape[1], values.shape[1]), np.int64)
    for vote in range(votes):
        factor = generator.integers(values.shape[1])
        value = generator.choice(values[:, factor])
        alike = np.flatnonzero(values[:, factor] == value)
        chosen = generator.choice(alike, batch)
        least = (codes[chosen].var(0) / spread).argmin()
        table[vote % 2, least, factor] += 1
    predicted = table[0].argmax(1)
    hits = table[1][np.arange(len(predicted)), predicted].sum()
    tested = table[1].sum()
    settings = {"votes": votes, "batch": batch, "active": int(active.sum()), **left_out}
    return share_estimate(int(hits), int(tested), settings)


def _information(codes: Array, values: Array) -> Array:
    """Return I(z_d; v_f) in nats, of shape (latent, factors)."""
    from sklearn.metrics import mutual_info_score

    cut = [np.digitize(c, np.histogram_bin_edges(c, _BINS)[1:-1]) for c in codes.T]
    return np.array([[mutual_info_score(c, v) for v in values.T] for c in cut])


def _entropy_of_rows(weights: Array) -> Array:
    """Return the entropy of each row as a distribution, to the base of its length."""
    totals = weights.sum(1, keepdims=True)
    shares = np.where(totals > 0, weights / np.where(totals > 0, totals, 1), 1 / weights.shape[1])
    logs = np.log(np.where(shares > 0, shares, 1))
    return -(shares * logs).sum(1) / np.log(weights.shape[1])


def _resampled(
    score: Callable[[Array, Array], float | Array],
    z: Tensor,
    factors: Tensor,
    settings: Settings,
    *,
    least: int = 1,
    least_factors: int = 1,
    resamples: int = _RESAMPLES,
) -> list[Estimate]:
    """Return the scores of all data and varying factors, with standard errors from halves.

    A mean over half of N data drawn without replacement has the variance (2/N - 1/N) sigma^2
    about that of all: the spread of halves is the standard error itself.
    """
    codes, values, left_out = _varying(z, factors, least=least, least_factors=least_factors)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(codes))
    found = np.atleast_1d(score(codes[order], values[order]))
    halves = []
    for _ in range(resamples):
        chosen = generator.choice(len(codes), len(codes) // 2, replace=False)
        halves.append(np.atleast_1d(score(codes[chosen], values[chosen])))
    errors = np.std(halves, 0, ddof=1)
    settings = {**settings, **left_out, "data": len(codes), "error": f"{resamples} halves"}
    return [Estimate(float(v), float(e), settings) for v, e in zip(found, errors, strict=True)]


def _varying(
    z: Tensor, factors: Tensor, *, least: int = 1, least_factors: int = 1
) -> tuple[Array, Array, Settings]:
    """Check z and factors; return z, the factors that vary, and settings that name the others."""
    if len(z) != len(factors) or len(z) < 4:
        raise ValueError(
            f"z and factors must have a row for each of at least 4 data, got {len(z)} and "
            f"{len(factors)} rows"
        )
    if factors.is_floating_point() and not bool((factors == factors.round()).all()):
        raise ValueError(
            "factors must be whole numbers, got fractions; cut a continuous factor into bins, "
            "for example with torch.bucketize(factor, edges)"
        )
    if z.shape[1] < least:
        raise ValueError(f"z must have at least {least} coordinates, got {z.shape[1]}")
    constant = constant_factors(factors)
    kept = [f for f in range(factors.shape[1]) if f not in constant]
    if len(kept) < least_factors:
        raise ValueError(
            f"factors must have at least {least_factors} columns that vary, got {len(kept)} of "
            f"{factors.shape[1]}"
        )
    left_out: Settings = {"constant_factors": ", ".join(map(str, constant))} if constant else {}
    return z.detach().double().cpu().numpy(), factors[:, kept].cpu().numpy(), left_out


DISENTANGLEMENT: dict[str, Callable[[Tensor, Tensor], Estimate | dict[str, Estimate]]] = {
    "dci": dci,
    "factor-vae-score": factor_vae_score,
    "mig": mig,
    "modularity": modularity,
    "sap": sap,
}
"""Disentanglement scores, by their names on the command line."""
