"""Total correlation of q(z), estimated from a batch: beta-TCVAE."""

import math
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae.mixture import NEGLIGIBLE
from pyro_dpvae.objectives.penalties.latents import AbstractPenalty, Latents
from pyro_dpvae.objectives.schedules import Weight

__all__ = ["ESTIMATORS", "TotalCorrelation", "log_aggregate", "log_component_weights"]

ESTIMATORS = ("stratified", "weighted", "in-batch")
"""Estimators of q(z) from a batch; see :func:`log_component_weights`."""


def log_component_weights(estimator: str, batch: int, dataset_size: int) -> Tensor:
    """Return log W, (B, B), the weights of a batch's posteriors in an estimate of q(z).

        q(z_i) is estimated by  sum_j W_ij q(z_i | x_j)

    With N data, a batch of B, and M = B - 1,

    - ``stratified``: W_ii = 1/N, one other entry of each row (N - M) / (N M), the rest 1/M. It is
      unbiased for q(z_i), but its logarithm is too low, more so for posteriors far apart.
    - ``weighted``: all 1 / (N B). It is a lower bound of log q(z) in expectation; terms are off by
      several nats, but their gradients are usable.
    - ``in-batch``: all 1/B, the exact q(z) of the batch. The mutual information is at most log B.

    Args:
        estimator: one of ``ESTIMATORS``.
        batch: B, at least 2.
        dataset_size: N, at least B.

    Raises:
        ValueError: if the batch is larger than the data set.

    References:
        Chen et al. (2018), Isolating sources of disentanglement, appendix C.1 (weighted) and C.2
        (stratified, here with the sample's own posterior on the diagonal).

    Example:
        >>> log_component_weights("stratified", 4, 100).exp().sum(1)
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    if batch > dataset_size:
        raise ValueError(
            f"dataset_size must be the number of training data, at least the batch size {batch}; "
            f"got {dataset_size}"
        )
    if estimator == "weighted":
        return torch.full((batch, batch), -math.log(dataset_size * batch), dtype=torch.float64)
    if estimator == "in-batch":
        return torch.full((batch, batch), -math.log(batch), dtype=torch.float64)
    others = batch - 1
    weights = torch.full((batch, batch), 1 / others, dtype=torch.float64)
    weights.fill_diagonal_(1 / dataset_size)
    rows = torch.arange(batch)
    weights[rows, (rows + 1) % batch] = (dataset_size - others) / (dataset_size * others)
    return weights.log()


def log_aggregate(
    log_weights: Float[Tensor, "i j"], log_posterior: Float[Tensor, "i *particles j"]
) -> Float[Tensor, "i *particles"]:
    """Return log sum_j W_ij q(z_i | x_j)."""
    shape = (len(log_weights), *(1,) * (log_posterior.dim() - 2), len(log_weights))
    terms = log_weights.reshape(shape) + log_posterior
    largest = terms.detach().amax(-1, keepdim=True)
    ratios = (terms - largest).clamp(min=NEGLIGIBLE).exp()
    return ratios.sum(-1).log() + largest.squeeze(-1)


@final
class TotalCorrelation(AbstractPenalty):
    """The total correlation of q(z), and the other two parts of the rate in beta-TCVAE.

        KL(q(z | x) || p(z)) = MI + TC + DW,   on average over data, with
        MI = E[log q(z | x) - log q(z)]        the mutual information of x and z,
        TC = E[log q(z) - sum_d log q(z_d)]    the total correlation,
        DW = E[sum_d log q(z_d) - log p(z)]    the divergence of each dimension from the prior.

    The penalty is added to the rate: the objective REC + alpha MI + beta TC + gamma DW consists of
    ``BetaRate(gamma)`` and this penalty with the weights beta - gamma and alpha - gamma, as in
    ``BetaTCELBO``. The terms ``mutual_information``, ``total_correlation`` and
    ``dimension_wise_kl`` are biased, see :func:`log_component_weights`. Coordinates of a flow are
    approximated by normals with mean and variance of 64 samples.

    Args:
        weight: the weight of the total correlation.
        dataset_size: the number N of training data.
        mutual_information: the weight of the mutual information.
        dimension_wise_kl: the weight of the dimension-wise divergence.
        estimator: one of ``ESTIMATORS``.

    Raises:
        ValueError: if ``dataset_size`` is below 1 or the estimator unknown; on a step, if the
            batch has one datum or more data than the data set.
        TypeError: on a step, if the coordinates of q(z | x) have no known densities and its
            samples no gradients.

    References:
        Chen et al. (2018), Isolating sources of disentanglement in VAEs, equations 2 and 4.

    Example:
        >>> TotalCorrelation(5.0, dataset_size=60_000).settings["estimator"]
        'stratified'
    """

    options = ("dataset_size", "estimator")
    smallest_batch: ClassVar[int] = 2

    def __init__(
        self,
        weight: Weight,
        *,
        dataset_size: int,
        mutual_information: Weight = 0.0,
        dimension_wise_kl: Weight = 0.0,
        estimator: str = "stratified",
    ) -> None:
        super().__init__(
            signed=True,
            total_correlation=weight,
            mutual_information=mutual_information,
            dimension_wise_kl=dimension_wise_kl,
        )
        self.dataset_size = check_positive_int("dataset_size", dataset_size)
        self.estimator = check_choice("estimator", estimator, ESTIMATORS)

    def forward(self, latents: Latents) -> dict[str, Float[Tensor, ""]]:
        """Return the three terms."""
        coordinates = latents.pairwise_coordinate_log_posterior()
        joint = latents.pairwise_log_posterior()
        with joint.device:  # a CUDA graph cannot hold a copy from the CPU
            log_weights = log_component_weights(self.estimator, latents.size, self.dataset_size)
        log_weights = log_weights.to(joint)
        log_q = log_aggregate(log_weights, joint).movedim(0, -1)
        log_marginals = log_aggregate(log_weights, coordinates.movedim(-1, 1))
        log_product = log_marginals.sum(1).movedim(0, -1)
        return {
            "mutual_information": (latents.log_posterior - log_q).mean(),
            "total_correlation": (log_q - log_product).mean(),
            "dimension_wise_kl": (log_product - latents.log_prior).mean(),
        }
