"""A trained run, opened: its system, its data and its aggregate posterior."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.data import Batches, DataSet, Split, load
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.mixture import AggregatePosterior, posterior_means
from pyro_dpvae.recipes.system import System, build_system
from pyro_dpvae.runs import RunFolder

__all__ = ["SavedSystem", "open_system"]

_BATCH = 500
# Every point is scored under the flow of every datum: with all 60,000 of MNIST that takes hours.
_FLOWS = 2000


@dataclass(frozen=True)
class SavedSystem:
    """A run with its trained system, in evaluation mode.

    Attributes:
        run: the folder.
        system: model, guide and objective, with the checkpoint's weights.
        device: where they are.
    """

    run: RunFolder
    system: System
    device: torch.device

    def data(self, root: str | None = None) -> DataSet:
        """Return the data set of the run, from its own root or another."""
        config = self.run.config
        return load(config["data"], root=root if root is not None else config["root"])

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
        """Return q(z) over a split.

        Over all its data, if the guide's q(z | x) are normals or mixtures of diagonal ones; over
        the first 2,000 otherwise, as with flows.
        """
        batches = self.batches(split).epoch(0)
        return AggregatePosterior.of(self.system.guide.posterior, batches, limit=_FLOWS)

    def means(self, split: Split, *, limit: int | None = None) -> Float[Tensor, "data latent"]:
        """Return the means of q(z | x) over a split; of a flow, those of 64 draws each.

        Args:
            split: the data.
            limit: how many of its data, the first; None takes all.
        """
        batches = self.batches(split).epoch(0)
        return posterior_means(self.system.guide.posterior, batches, limit=limit)


def open_system(path: str | Path, device: torch.device | str = "cpu") -> SavedSystem:
    """Open a run folder: rebuild its system and load its weights.

    Raises:
        FileNotFoundError: if no run with a checkpoint is there.
    """
    run = RunFolder.open(path)
    config, state = run.config, run.state
    kinds = ("model", "prior", "likelihood", "network", "pixels", "guide", "objective")
    system = build_system(
        state["item_shape"],
        latent_dim=config["latent_dim"],
        dataset_size=state["dataset_size"],
        **{kind: config[kind] for kind in kinds if kind in config},
    )
    run.load({"model": system.model, "guide": system.guide})
    for module in (system.model, system.guide):
        module.to(device).eval()
    return SavedSystem(run, system, torch.device(device))
