"""``Run``: a trained run, opened for encoding, sampling and measuring."""

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pyro_dpvae._checks import check_choice, check_positive_int
from pyro_dpvae._randomness import forked_rng, seed_of
from pyro_dpvae._ranks import gather_shares, map_over_ranks, ranks
from pyro_dpvae._subsets import spread
from pyro_dpvae.data import (
    DATA_SETS,
    PREPROCESSING,
    READING,
    Batches,
    DataSet,
    Split,
    load,
    own_batches,
    to_unit,
)
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.data.preprocessing import binarised_bits, standardise, unpacked
from pyro_dpvae.decoders import images
from pyro_dpvae.errors import ConfigError, DataError, DataWarning, UnsupportedError
from pyro_dpvae.guides import AbstractGuide
from pyro_dpvae.metrics import LikelihoodEstimates, log_likelihoods
from pyro_dpvae.mixture import AggregatePosterior, has_product, posterior_means
from pyro_dpvae.models import AbstractVAE
from pyro_dpvae.recipes.config import RunConfig
from pyro_dpvae.recipes.system import System
from pyro_dpvae.runs import Checkpoint, RunFolder

__all__ = ["Run"]

_BATCH = 500
# Every point is scored under the flow of every datum: with all 60,000 of MNIST that takes hours.
_FLOWS = 2000
Items = Tensor | NDArray[Any]


@dataclass(frozen=True)
class Run:
    """A run with its trained system, in evaluation mode.

    Data that methods take are tensors or arrays of items as ``data`` holds them: images as uint8
    levels or as shades in [0, 1], vectors as they are. Images that methods return are shades.

    Attributes:
        folder: the run folder.
        checkpoint: the checkpoint with the weights.
        system: model, guide and objective, with these weights.
        device: the device of the system.
        weights: ``"raw"``, or ``"average"`` for their moving average.
    """

    folder: RunFolder
    checkpoint: Checkpoint
    system: System
    device: torch.device
    weights: str = "raw"

    def __repr__(self) -> str:
        parts = {"prior": getattr(self.model, "prior", None), "guide": self.guide}
        if parts["prior"] is None:  # a program of the user's own
            parts = {"model": self.model, "guide": self.guide}
        named = ", ".join(f"{name}={type(part).__name__}" for name, part in parts.items())
        return f"Run({str(self.folder.path)!r}, step={self.checkpoint.step}, {named})"

    @property
    def model(self) -> AbstractVAE:
        """The model p(x, z)."""
        return self.system.model

    @property
    def guide(self) -> AbstractGuide:
        """The guide q(z | x)."""
        return self.system.guide

    @property
    def config(self) -> RunConfig:
        """The configuration of the run, from ``config.json``.

        Raises:
            ValueError: if your own program has trained the run and written other options into
                the folder; ``folder.config`` has them.
        """
        try:
            return RunConfig.of(self.folder.config)
        except ConfigError as error:
            error.add_note("if a program of your own trained the run, use folder.config")
            raise

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of ``dpvae evaluate`` by name: ``value``, ``standard_error``, ``settings``.

        The mapping is empty if this checkpoint with these weights was not measured.
        """
        measured = self.folder.read("evaluation.json")
        basis = measured.get("basis", {})
        here = basis.get("run") == self.checkpoint.digest
        if not here or basis.get("weights", "raw") != self.weights:
            return {}
        return dict(measured["metrics"])

    @property
    def preprocessing(self) -> str:
        """The name of the preprocessing, one of ``PREPROCESSING``."""
        return str({**self.folder.config, **self.checkpoint.state}["preprocessing"])

    @cached_property
    def data(self) -> DataSet:
        """The data set of the run."""
        return self.load_data()

    def encode(self, x: Items) -> Any:
        """Return q(z | x), of batch shape (batch,) and event shape (L,).

        Args:
            x: data, of shape (batch, *item_shape).
        """
        self._check_parts("encode", guide=("posterior",))
        with torch.no_grad():
            return self.guide.posterior(self._seen(x))

    def reconstruct(self, x: Items) -> Tensor:
        """Return the mean of p(x | z) at the mean z of q(z | x), of the shape of x.

        An autoregressive decoder gives a sample instead of the mean.

        Args:
            x: data, of shape (batch, *item_shape).
        """
        self._check_parts("reconstruct", model=("decoder",), guide=("posterior",))
        return self.decode(posterior_means(self.guide.posterior, [self._seen(x)]))

    def sample(self, count: int, *, draw: bool = False, seed: int = 0) -> Tensor:
        """Return samples of the model, of shape (count, *item_shape).

        Args:
            count: the number of samples.
            draw: whether x is drawn from p(x | z) instead of being its mean. An autoregressive
                decoder always draws.
            seed: the random seed of z, and of x if it is drawn.
        """
        check_positive_int("count", count)
        self._check_parts("sample", model=("prior", "decoder"))
        with torch.no_grad(), forked_rng(seed):
            return self.decode(self.model.prior().sample((count,)), draw=draw)

    def interpolate(
        self, a: Items, b: Items, *, steps: int = 8, space: str = "generation"
    ) -> Tensor:
        """Return the decoded path from one datum to another, of shape (steps, *item_shape).

        The path is the straight line between the means of both posteriors, in one of the two
        latent spaces.

        Args:
            a: the datum where the path starts, of shape (*item_shape).
            b: the datum where it ends.
            steps: the number of points, both ends among them.
            space: ``"generation"`` or ``"representation"``.
        """
        check_choice("space", space, ("generation", "representation"))
        if check_positive_int("steps", steps) < 2:
            raise ValueError("steps must be at least 2, for both ends of the path, got 1")
        self._check_parts("interpolate", model=("prior", "decoder"), guide=("posterior",))
        prior = self.model.prior
        with torch.no_grad():
            pair = self._seen(torch.stack([torch.as_tensor(a), torch.as_tensor(b)]))
            ends = posterior_means(self.guide.posterior, [pair])
            if space == "generation":
                ends = prior.to_generation(ends)[0]
            along = torch.linspace(0, 1, steps, device=ends.device)[:, None]
            z = torch.lerp(ends[0], ends[1], along)
            return self.decode(prior.to_representation(z) if space == "generation" else z)

    def decode(self, z: Float[Tensor, "batch latent"], *, draw: bool = False) -> Tensor:
        """Return the mean of p(x | z), or a sample of it, for representations z."""
        with torch.no_grad():
            x = self.model.decoder(z).sample() if draw else images(self.model.decoder, z)
        return to_unit(x, self.preprocessing).cpu()

    def in_file_units(self, x: Items) -> Tensor:
        """Return items of the run's data, or samples, as before the columns were standardised."""
        centre, scale = self._units or (0.0, 1.0)
        return torch.as_tensor(x) * scale + centre

    def from_file_units(self, x: Items) -> Tensor:
        """Return rows of numbers, as a file has them, standardised like the run's data."""
        centre, scale = self._units or (0.0, 1.0)
        return (torch.as_tensor(x) - centre) / scale

    @property
    def _units(self) -> tuple[Tensor, Tensor] | None:
        """The mean and standard deviation by which columns of the training were standardised."""
        units = self.checkpoint.state.get("units")
        return None if units is None else (torch.tensor(units[0]), torch.tensor(units[1]))

    def log_likelihood(
        self, x: Items, num_samples: int = 1000, *, seed: int = 0
    ) -> LikelihoodEstimates:
        """Estimate log p(x) of each datum by importance sampling.

        Args:
            x: data, of shape (batch, *item_shape).
            num_samples: the number of samples of q(z | x) for each datum.
            seed: the random seed of the samples.
        """
        batches = self._seen(x).split(_BATCH)
        with forked_rng(seed):
            return log_likelihoods(
                self.model, self.guide, batches, num_samples=num_samples, progress=False
            )

    def aggregate_posterior(self) -> AggregatePosterior:
        """Return q(z), the mean of q(z | x) over the training data."""
        return self.aggregate(self.data.train)

    def _check_parts(
        self, method: str, *, model: Sequence[str] = (), guide: Sequence[str] = ()
    ) -> None:
        for part, names in ((self.model, model), (self.guide, guide)):
            if missing := [name for name in names if not hasattr(part, name)]:
                raise UnsupportedError(
                    f"{method} needs the {' and '.join(names)} of a model or guide of this "
                    f"library, got a {type(part).__name__} without {' and '.join(missing)}; call "
                    "run.model and run.guide as your program does, or log_weights(run.model, "
                    "run.guide, x, ...)"
                )

    def _seen(self, x: Items) -> Tensor:
        """Return items after preprocessing, with the noise of the first batch."""
        x, shape = torch.as_tensor(x), tuple(self.checkpoint.state["item_shape"])
        if x.shape[1:] != shape or not len(x):
            raise DataError(
                f"data must have the shape (batch, {', '.join(map(str, shape))}), got "
                f"{tuple(x.shape)}; give items as the run's data hold them, one or more"
            )
        name = self.preprocessing
        if not (x.dtype == torch.uint8 and len(shape) == 3):
            x = x.float()
        shades = x.is_floating_point() and len(shape) == 3 and name != "none"
        if shades and bool((x < 0).any() or (x > 1).any()):
            raise DataError(
                "images must be levels as torch.uint8, or shades from 0 to 1, got "
                f"{float(x.min()):.4g} to {float(x.max()):.4g}; divide levels by 255, or convert "
                "them to torch.uint8"
            )
        if name == "binary-static":
            x = unpacked(binarised_bits(x.cpu()), shape)
        noise = torch.Generator(self.device)
        noise.manual_seed(seed_of(self.folder.config.get("seed", 0), 0, 0, 0))
        return PREPROCESSING[name](x.to(self.device), noise)

    def load_data(self, root: str | None = None, *, source: str | None = None) -> DataSet:
        """Load the data set of the run.

        Args:
            root: the folder of data sets by name; None takes the run's own.
            source: the file or folder, if it has moved; None takes the run's own.

        Raises:
            ValueError: if data are of another shape than the run's, or its configuration does
                not name them; or if its own file or folder holds other values than in training.

        Warns:
            UserWarning: if a source that is named holds other values than those of training.
        """
        named = source is not None
        config, shape = self.folder.config, tuple(self.checkpoint.state["item_shape"])
        source = config.get("data") if source is None else source
        root = config.get("root") if root is None else root
        if not (isinstance(source, str) and isinstance(root, str | None)):
            raise ConfigError(
                f"the configuration of {self.folder.path} must say where its data are, got data "
                f"{source!r} and root {root!r}; name them, load_data(source=...), or use your own "
                "batches, aggregate(x)"
            )
        reading: dict[str, Any] = {name: config.get(name) for name in READING}
        if self._units is not None:  # those of the training, also for other data
            reading["standardise"] = None
        try:
            found = load(source, root=root, **reading)
        except ValueError:  # other data may have no labels
            if not named or reading["labels"] is None:
                raise
            found = load(source, root=root, **{**reading, "labels": None})
        if found.item_shape != shape:
            raise DataError(
                f"data must have the shape of the run's, {shape}, got {found.item_shape} in "
                f"{found.name!r}; name with --data where the run's own are"
            )
        if self._units is not None:
            standardise(found.splits, self._units)
            found = replace(found, units=self._units)
        trained_on = self.checkpoint.state.get("data", found.digest)
        # What comes by name is computed or fetched, and may be rounded otherwise elsewhere.
        if source not in DATA_SETS and found.digest != trained_on:
            what = (
                f"the data of {self.folder.path} must be those that it was trained on, and "
                f"{source} has other values now (digest {found.digest}, in training {trained_on})"
            )
            if not named:
                raise DataError(
                    f"{what}; put the file back, name with --data where it is now, or, if these "
                    f"data are meant, name them: --data {shlex.quote(source)}"
                )
            warnings.warn(
                f"{what}; they are used, as they are named", category=DataWarning, stacklevel=2
            )
        return found

    def batches(self, split: Split, *, batch_size: int = _BATCH) -> Batches:
        """Return the preprocessed batches of a split, in order, with the noise of epoch 0."""
        return Batches(
            split,
            batch_size=min(check_positive_int("batch_size", batch_size), split_size(split)),
            preprocessing=self.preprocessing,
            device=self.device,
            seed=self.folder.config.get("seed", 0),
            shuffle=False,
        )

    def aggregate(self, split: Split) -> AggregatePosterior:
        """Return q(z) over a split, whose batches ranks share.

        If the guide's q(z | x) are normals or mixtures of diagonal normals, all data of the split
        are used. Otherwise, as for flows, each rank uses 2,000 evenly spaced data.
        """
        batches, posterior = self.batches(split), self.system.guide.posterior
        with torch.no_grad(), forked_rng():
            first = posterior(next(batches.epoch(0)))
        if not has_product(first):
            few = self.batches(spread(split, _FLOWS))
            return AggregatePosterior.of(posterior, few.epoch(0))
        if ranks().count == 1:
            return AggregatePosterior.of(posterior, batches.epoch(0))
        collect = partial(gather_shares, device=self.device)
        return AggregatePosterior.of(posterior, own_batches(batches), collect=collect)

    def means(self, split: Split, *, limit: int | None = None) -> Float[Tensor, "data latent"]:
        """Return the means of q(z | x) over a split; a flow's mean is estimated from 64 samples.

        Ranks share the batches.

        Args:
            split: the data.
            limit: the number of data, evenly spaced; None takes all.
        """
        posterior = self.system.guide.posterior
        batches = self.batches(split if limit is None else spread(split, limit))
        means = map_over_ranks(
            lambda x: posterior_means(posterior, [x]).cpu(), own_batches(batches)
        )
        return torch.cat(means).to(self.device)
