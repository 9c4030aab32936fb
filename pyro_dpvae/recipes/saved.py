"""A trained run, opened: its system, its data and its aggregate posterior."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._ranks import forked_rng, gather_shares, map_over_ranks, ranks
from pyro_dpvae._subsets import spread
from pyro_dpvae.data import Batches, DataSet, Split, load, own_batches
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.mixture import AggregatePosterior, has_product, posterior_means
from pyro_dpvae.recipes.system import System, build_system
from pyro_dpvae.runs import Checkpoint, RunFolder

__all__ = ["SavedSystem", "open_system"]

_BATCH = 500
# Every point is scored under the flow of every datum: with all 60,000 of MNIST that takes hours.
_FLOWS = 2000


@dataclass(frozen=True)
class SavedSystem:
    """A run with its trained system, in evaluation mode.

    Attributes:
        run: the folder.
        checkpoint: the one that the weights are of.
        system: model, guide and objective, with those weights.
        device: where they are.
        weights: ``"raw"``, as training left them, or ``"average"``, their moving average.
    """

    run: RunFolder
    checkpoint: Checkpoint
    system: System
    device: torch.device
    weights: str = "raw"

    def data(self, root: str | None = None, *, source: str | None = None) -> DataSet:
        """Return the data set of the run.

        Args:
            root: the folder of data sets by name; None takes the run's own.
            source: the file or folder, if it has moved; None takes the run's own.

        Raises:
            ValueError: if data are of another shape than the run's, or its configuration does
                not name them.
        """
        config, shape = self.run.config, tuple(self.checkpoint.state["item_shape"])
        source = config.get("data") if source is None else source
        root = config.get("root") if root is None else root
        if not (isinstance(source, str) and isinstance(root, str | None)):
            raise ValueError(
                f"the configuration of {self.run.path} must say where its data are, got data "
                f"{source!r} and root {root!r}; restore it"
            )
        found = load(source, root=root)
        if found.item_shape != shape:
            raise ValueError(
                f"data must have the shape of the run's, {shape}, got {found.item_shape} in "
                f"{found.name!r}; name with --data where the run's own are"
            )
        return found

    def batches(self, split: Split, *, batch_size: int = _BATCH) -> Batches:
        """Return a split as the model sees it, in order, with the noise of the first pass."""
        return Batches(
            split,
            batch_size=min(check_positive_int("batch_size", batch_size), split_size(split)),
            preprocessing=self.run.config["preprocessing"],
            device=self.device,
            seed=self.run.config["seed"],
            shuffle=False,
        )

    def aggregate(self, split: Split) -> AggregatePosterior:
        """Return q(z) over a split, of which ranks share the batches.

        Over all its data, if the guide's q(z | x) are normals or mixtures of diagonal ones; over
        2,000 evenly spaced ones otherwise, as with flows, on each rank.
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
        """Return the means of q(z | x) over a split; of a flow, those of 64 draws each.

        Ranks share the batches.

        Args:
            split: the data.
            limit: how many of its data, evenly spaced; None takes all.
        """
        posterior = self.system.guide.posterior
        batches = self.batches(split if limit is None else spread(split, limit))
        means = map_over_ranks(
            lambda x: posterior_means(posterior, [x]).cpu(), own_batches(batches)
        )
        return torch.cat(means).to(self.device)


def open_system(
    path: str | Path,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | int = "last",
    weights: str | None = None,
) -> SavedSystem:
    """Open a run folder: rebuild its system and load its weights.

    Args:
        path: the folder.
        device: where the system is to be.
        checkpoint: ``"last"``, ``"best"``, or a step.
        weights: ``"raw"``, as training left them, or ``"average"``, their moving average; None
            takes the average if there is one.

    Raises:
        FileNotFoundError: if no run with such a checkpoint is there.
        ValueError: if the checkpoint is damaged or of another run, or has no such weights.
    """
    run = RunFolder.open(path)
    found = run.checkpoint(checkpoint)
    config, state = run.config, found.state
    kinds = ("model", "prior", "likelihood", "network", "pixels", "guide", "objective")
    system = build_system(
        state["item_shape"],
        latent_dim=config["latent_dim"],
        dataset_size=state["dataset_size"],
        **{kind: config[kind] for kind in kinds if kind in config},
    )
    if weights is None:
        weights = "average" if found.averaged else "raw"
    found.load({"model": system.model, "guide": system.guide}, weights=weights)
    for module in (system.model, system.guide):
        module.to(device).eval()
    return SavedSystem(run, found, system, torch.device(device), weights)
