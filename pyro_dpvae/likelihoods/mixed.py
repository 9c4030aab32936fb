"""The likelihoods of tables: codes of categories, and columns of several kinds."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_dpvae._checks import check_positive_int, check_trailing_shape
from pyro_dpvae.distributions import expanded
from pyro_dpvae.likelihoods._base import AbstractLikelihood, Values
from pyro_dpvae.likelihoods.bernoulli import BernoulliLikelihood
from pyro_dpvae.likelihoods.counts import NegativeBinomialLikelihood
from pyro_dpvae.likelihoods.location_scale import GaussianLearnedVarianceLikelihood

__all__ = ["CategoricalLikelihood", "MixedLikelihood"]


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


@final
class MixedLikelihood(AbstractLikelihood):
    """Columns of several kinds, independent given z: log p(x) is the sum over groups of columns.

    Continuous columns are Gaussian, with a learned scale for each column. Binary columns are
    Bernoulli, counts negative binomial with a learned dispersion for each column, and categorical
    columns softmax over their codes. Columns are counted from 0. For images, channels replace
    columns.

    The raw values are those of the continuous columns, the binary ones, the counts and the
    categorical ones, in this order.

    Args:
        shape: shape of an item, (D,) or (C, H, W).
        continuous: indices of continuous columns; None takes all that are in no other group.
        binary: indices of columns of 0 and 1.
        count: indices of columns of counts.
        categorical: number of categories of each categorical column, by index.

    Attributes:
        groups: indices of the columns of each group, by name; there is one group of categorical
            columns for each number of categories.

    Raises:
        ValueError: if a column is in several groups or in none, or does not exist. ``log_prob``
            names the group and the columns of data outside their group's support.

    References:
        Nazabal, Olmos, Ghahramani, Valera (2020), Handling incomplete heterogeneous data using
        VAEs, section 3.1; they use a Poisson likelihood for counts, which is a limit of ours.

    Example:
        >>> likelihood = MixedLikelihood((5,), binary=[1], count=[2], categorical={4: 3})
        >>> likelihood.groups["continuous"], likelihood.raw_shape
        ((0, 3), (7,))
        >>> x = likelihood(torch.zeros(7)).sample()
        >>> x[1] in (0, 1), x[4] in (0, 1, 2)
        (True, True)
    """

    rule = "a mixed likelihood takes finite values"
    order: Tensor  # the columns, group by group
    back: Tensor  # the position of each column in ``order``

    def __init__(
        self,
        shape: Sequence[int],
        *,
        continuous: Sequence[int] | None = None,
        binary: Sequence[int] = (),
        count: Sequence[int] = (),
        categorical: Mapping[int | str, int] | None = None,
    ) -> None:
        super().__init__(shape)
        # A configuration in JSON has the columns as strings.
        categories = {int(column): number for column, number in (categorical or {}).items()}
        others = {*binary, *count, *categories}
        if continuous is None:
            continuous = [column for column in range(self.shape[0]) if column not in others]
        groups = {"continuous": continuous, "binary": binary, "count": count}
        self.groups: dict[str, tuple[int, ...]] = {
            name: tuple(columns) for name, columns in groups.items() if columns
        }
        for number in sorted(set(categories.values())):
            columns = [column for column in sorted(categories) if categories[column] == number]
            self.groups[f"categorical of {number}"] = tuple(columns)
        self._check_columns()
        order = torch.tensor([column for columns in self.groups.values() for column in columns])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.likelihoods = nn.ModuleList(
            self._of_group(name, (len(columns), *self.shape[1:]))
            for name, columns in self.groups.items()
        )

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of an item's raw values: ``shape`` with other channels."""
        return (sum(part.raw_shape[0] for part in self._parts()), *self.shape[1:])

    def pixels(self, raw: Values) -> TorchDistributionMixin:
        """Return the distribution of an item."""
        parts = self._parts()
        raws = raw.split([part.raw_shape[0] for part in parts], -len(self.shape))
        distributions = [part(own) for part, own in zip(parts, raws, strict=True)]
        return _Columns(distributions, self.groups, (self.order, self.back), self.shape)

    def start_at(self, data: Float[Tensor, "data ..."]) -> None:
        """Set the scales of continuous columns to the deviation of data around their mean."""
        check_trailing_shape("data", data.shape, self.shape)
        for part, columns in zip(self._parts(), self.groups.values(), strict=True):
            part.start_at(data[:, list(columns)])

    def _parts(self) -> list[AbstractLikelihood]:
        parts = [cast(AbstractLikelihood, part) for part in self.likelihoods]
        # Of a single pixel, if this likelihood is that of one.
        return [part if len(part.shape) == len(self.shape) else part.at_pixel() for part in parts]

    def _check_columns(self) -> None:
        size = self.shape[0]
        every = [column for columns in self.groups.values() for column in columns]
        absent = sorted({column for column in every if not 0 <= column < size})
        if absent:
            raise ValueError(f"columns must be from 0 to {size - 1}, got {absent}")
        twice = sorted({column for column in every if every.count(column) > 1})
        missing = sorted(set(range(size)) - set(every))
        if twice or missing:
            raise ValueError(
                f"each of the {size} columns must be in one group, got {twice} in several groups "
                f"and {missing} in none; leave out continuous, which takes all others"
            )

    @staticmethod
    def _of_group(name: str, shape: tuple[int, ...]) -> AbstractLikelihood:
        if name == "continuous":
            return GaussianLearnedVarianceLikelihood(shape, by_channel=True)
        if name == "binary":
            return BernoulliLikelihood(shape)
        if name == "count":
            return NegativeBinomialLikelihood(shape)
        return CategoricalLikelihood(shape, categories=int(name.rsplit(" ", 1)[1]))


@final
class _Columns(dist.TorchDistribution):
    """Independent groups of columns, each with its own distribution."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        distributions: Sequence[Any],
        groups: Mapping[str, tuple[int, ...]],
        orders: tuple[Tensor, Tensor],
        shape: tuple[int, ...],
    ) -> None:
        self.distributions, self.groups, self.orders = list(distributions), groups, orders
        super().__init__(self.distributions[0].batch_shape, torch.Size(shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "_Columns":
        distributions = [one.expand(torch.Size(batch_shape)) for one in self.distributions]
        return expanded(self, batch_shape, _instance, distributions=distributions)

    @property
    def support(self) -> constraints.Constraint:
        # Each group checks its own columns, and names them.
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        terms = []
        ordered = value.index_select(self._dim, self.orders[0])
        parts = ordered.split([len(columns) for columns in self.groups.values()], self._dim)
        for one, own, (name, columns) in zip(
            self.distributions, parts, self.groups.items(), strict=True
        ):
            try:
                terms.append(one.log_prob(own))
            except ValueError as error:
                # Without a cause, since some error displays would show the cause's text only.
                raise ValueError(f"in the {name} columns {list(columns)}: {error}") from None
        return torch.stack(torch.broadcast_tensors(*terms)).sum(0)

    @property
    def mean(self) -> Tensor:
        return self._joined([one.mean for one in self.distributions])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._joined([one.sample(torch.Size(sample_shape)) for one in self.distributions])

    @property
    def _dim(self) -> int:
        return -len(self.event_shape)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Return values of the groups in the order of the columns."""
        return torch.cat(list(parts), self._dim).index_select(self._dim, self.orders[1])
