"""The subject of an evaluation: a trained run, its data, and shared intermediate results."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import final

import torch
from filelock import FileLock
from safetensors.torch import save
from torch import Tensor

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._files import make_folder, read_tensors, write_whole
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae._ranks import gather_objects, map_over_ranks, on_first_rank
from pyro_dpvae._subsets import spread, stacked
from pyro_dpvae.data import Batches, DataSet, own_batches, shades, to_unit
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.decoders import images
from pyro_dpvae.evaluation.config import EvaluationConfig
from pyro_dpvae.features import (
    AbstractFeatures,
    DomainFeatures,
    InceptionFeatures,
    extract,
    train_domain_network,
)
from pyro_dpvae.features.base import inception_weights
from pyro_dpvae.metrics import high_posterior_samples, low_posterior_samples
from pyro_dpvae.mixture import AggregatePosterior
from pyro_dpvae.mixture.moments import draw_moments
from pyro_dpvae.recipes import Run

__all__ = ["Subject"]

_BATCH = 250
_MOMENT_DRAWS = 2000
_SAMPLED = 5  # low-posterior samples are the least fifth, as in the authors' code


@final
class Subject:
    """A trained run under evaluation.

    Args:
        saved: the run with its system.
        data: its data set.
        config: the settings of the evaluation.
        progress: show progress bars.
    """

    def __init__(
        self, saved: Run, data: DataSet, config: EvaluationConfig, *, progress: bool = True
    ) -> None:
        self.saved, self.data, self.config, self.progress = saved, data, config, progress
        self.model, self.guide = saved.system.model, saved.system.guide
        self.prior = self.model.prior
        self.per_datum: dict[str, Tensor] = {}

    @cached_property
    def aggregate(self) -> AggregatePosterior:
        """q(z) over the training split; for flows, over some evenly spaced items."""
        with forked_rng(self.config.seed):
            return self.saved.aggregate(self.data.train)

    @cached_property
    def test(self) -> Batches:
        """The preprocessed held-out split."""
        return self.saved.batches(self.data.test)

    def train_means(self, count: int) -> Tensor:
        """Return the means of q(z | x) over evenly spaced training data, on the CPU."""
        size = split_size(self.data.train)
        if len(self.aggregate.loc) == size:
            return spread(self.aggregate.loc, count).cpu()
        with forked_rng(self.config.seed):
            return self.saved.means(self.data.train, limit=count).cpu()

    @cached_property
    def test_means(self) -> Tensor:
        """The means of q(z | x) over the held-out split, on the CPU."""
        with forked_rng(self.config.seed):
            return self.saved.means(self.data.test).cpu()

    def low_posterior(self, count: int) -> Tensor:
        """Return the fifth of prior samples with the least q(z)."""
        return low_posterior_samples(
            self.prior, self.aggregate, num_samples=_SAMPLED * count, keep=count
        )

    def high_posterior(self, count: int) -> Tensor:
        """Return the fifth of samples of q(z) with the least p(z)."""
        return high_posterior_samples(
            self.prior, self.aggregate, num_samples=_SAMPLED * count, keep=count
        )

    @cached_property
    def generation_spread(self) -> Tensor:
        """The variance over the training split of each coordinate of g(mean), of shape (L,)."""
        with torch.no_grad():
            return self.prior.to_generation(self.aggregate.loc)[0].var(0)

    @cached_property
    def base_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coordinate under the base distribution."""
        base = self.prior.base()
        with torch.no_grad():
            try:
                return base.mean, base.stddev
            except NotImplementedError:
                with forked_rng(self.config.seed):
                    return draw_moments(base, _MOMENT_DRAWS)

    def decoded(self, z: Tensor) -> Iterator[Tensor]:
        """Yield the means of p(x | z), images as grey values in [0, 1].

        Yields a sample where the mean is not tractable.
        """
        with torch.no_grad():
            for part in z.split(_BATCH):
                yield to_unit(images(self.model.decoder, part), self.saved.preprocessing)

    def sample_features(self, network: AbstractFeatures, z: Tensor, label: str) -> Tensor:
        """Return the features of decoded z; ranks share the work."""

        def features(part: Tensor) -> Tensor:
            return torch.cat(list(extract(network, self.decoded(part), progress=False)))

        return self._in_parts(features, z, label)

    @cached_property
    def reference_images(self) -> Tensor:
        """Evenly spaced images of the training split, uint8 levels or float32 shades."""
        return stacked(self.data.train, self.config.images)

    def reference_features(self, network: AbstractFeatures) -> Tensor:
        """Return the features of the reference images, from the cache if possible."""
        digest = hashlib.sha256(self.reference_images.numpy().tobytes()).hexdigest()[:12]
        path = self.config.cache / "features" / f"{network.name}-{digest}.safetensors"
        # All ranks must agree, even if they have no common cache folder.
        if all(gather_objects(path.exists())):
            return read_tensors(path)["features"]

        def features(images: Tensor) -> Tensor:
            grey = shades(images.to(self.saved.device))
            return torch.cat(list(extract(network, [grey], progress=False)))

        found = self._in_parts(features, self.reference_images, "reference features").contiguous()
        on_first_rank(lambda: write_whole(path, save({"features": found})))
        return found

    def _in_parts(self, features: Callable[[Tensor], Tensor], whole: Tensor, label: str) -> Tensor:
        """Return the features of a tensor, part by part with a progress bar; ranks share them."""
        own = own_batches(whole.split(_BATCH))
        bar = progress_bar(own, label, unit="batch", disable=not self.progress)
        return torch.cat(map_over_ranks(features, bar))

    def inception(self) -> AbstractFeatures:
        """Return the Inception network of FID."""
        config = self.config
        weights = partial(inception_weights, config.inception, download=config.download)
        on_first_rank(weights)  # downloads them if allowed
        return InceptionFeatures(weights()).to(self.saved.device)

    def domain_network(self) -> AbstractFeatures:
        """Return the classifier of labels or factors, from the cache or trained now.

        Raises:
            ValueError: if the data have neither labels nor factors, or are not in memory.
        """
        images, labels = self.data.train, self.data.train_labels
        if labels is None:
            labels = self.data.train_factors
        if labels is None or not isinstance(images, Tensor):
            raise ValueError(
                "a domain network needs images in memory with labels or factors, and "
                f"{self.data.name!r} has none; use the group 'fid', with the Inception network"
            )
        digest = hashlib.sha256(labels.numpy().tobytes()).hexdigest()
        name = f"{self.data.name}-{self.data.digest}-{digest[:8]}"
        path = self.config.cache / "classifiers" / f"{name}.safetensors"

        def train() -> None:
            if path.exists():
                return
            make_folder(path.parent)
            with FileLock(path.with_suffix(".lock")):  # other processes wait for the first
                if not path.exists():
                    network = train_domain_network(
                        self.data.name, images, labels, progress=self.progress
                    )
                    network.save(path)

        on_first_rank(train)
        return DomainFeatures.load(path, self.data.name).to(self.saved.device)
