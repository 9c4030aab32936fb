"""The categorical likelihood, for codes of categories without an order."""

from collections.abc import Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values

__all__ = ["CategoricalLikelihood"]


@final
class CategoricalLikelihood(AbstractLikelihood):
    """Codes 0, ..., K - 1 of categories: log p(x) = sum log softmax(l)_x.

    The decoder returns K logits l for each entry: the first ``shape[0]`` raw channels belong to
    category 0, and so on. The ``mean`` of the distribution is the mean of the codes as numbers,
    which is meaningful only if categories are ordered. Samples are categories.

    Args:
        shape: shape of an item, (C, H, W) or (D,).
        categories: number K of categories, at least 2.

    Raises:
        ValueError: if there are fewer than 2 categories.

    Example:
        >>> likelihood = CategoricalLikelihood((5,), categories=4)
        >>> likelihood.raw_shape
        (20,)
        >>> likelihood(torch.zeros(20)).log_prob(torch.zeros(5)) / 5  # log 1/4
        tensor(-1.3863)
    """

    def __init__(self, shape: Sequence[int], *, categories: int = 10) -> None:
        if check_positive_int("categories", categories) < 2:
            raise ValueError("categories must be at least 2, got 1; remove constant columns")
        self.categories = categories
        self.rule = (
            f"a categorical likelihood takes codes 0, 1, ..., {categories - 1} of {categories} "
            "categories"
        )
        self.remedy = "number the categories from 0, and raise categories to their number"
        super().__init__(shape)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of an item's raw values: ``shape`` with more channels."""
        return (self.categories * self.shape[0], *self.shape[1:])

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the categorical distributions of the entries."""
        parts = raw.chunk(self.categories, dim=-len(self.shape))
        return _Codes(logits=torch.stack(parts, -1))


@final
class _Codes(dist.Categorical):
    """Categories as floats, like all other data."""

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_Codes":
        new = _Codes(logits=self.logits.expand(*batch_shape, -1))
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        # Without validation, indices must still be in range.
        return super().log_prob(value.clamp(0, self.logits.shape[-1] - 1))

    @property
    def mean(self) -> Tensor:
        codes = torch.arange(self.logits.shape[-1], dtype=self.logits.dtype)
        return (self.probs * codes.to(self.logits.device)).sum(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return super().sample(torch.Size(sample_shape)).to(self.logits.dtype)
