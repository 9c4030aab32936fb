"""Changes of the guide between two steps: growth and cluster initialisation."""

from collections.abc import Callable, Iterator
from typing import Any, final

from torch import nn

from pyro_dpvae._ranks import on_first_rank
from pyro_dpvae.data import Batches
from pyro_dpvae.inference import synchronize
from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.config import Clustering, Growing, TrainConfig
from pyro_dpvae.training.events import undone_if_interrupted
from pyro_dpvae.training.guard import finite_parameters
from pyro_dpvae.training.interrupts import Interrupts
from pyro_dpvae.training.place import Place
from pyro_dpvae.training.steps import Steps

__all__ = ["GuideChanges"]


@final
class GuideChanges:
    """Apply the changes of a guide that are due after a step.

    Args:
        model: p(x, z).
        guide: q(z | x).
        objective: the loss.
        train: the batches to train on.
        config: says how the guide changes.
        place: the progress of the run, with the changes still to come.
        steps: restarts its weight average after a change.
        interrupts: the signals; a signal ends a change at once.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        objective: RegularizedELBO,
        *,
        train: Batches,
        config: TrainConfig,
        place: Place,
        steps: Steps,
        interrupts: Interrupts,
    ) -> None:
        self._model, self._guide, self._objective = model, guide, objective
        self._train, self._config, self._place = train, config, place
        self._steps, self._interrupts = steps, interrupts

    def make(self, *, progress: bool) -> Iterator[dict[str, Any]]:
        """Make the changes that are due; yield a record of each.

        Args:
            progress: show progress bars.

        Raises:
            KeyboardInterrupt: on a signal; the change is rolled back and due again.
        """
        place, guide = self._place, self._guide
        if place.growth and place.growth[0] <= place.step:
            assert isinstance(guide, Growing)
            self._whole_or_not(
                lambda: guide.grow(
                    self._model,
                    self._train.whole().epoch,
                    steps=self._config.growth_steps,
                    learning_rate=self._config.learning_rate_at(place.step),
                    progress=progress,
                )
            )
            place.growth = place.growth[1:]
            yield {"components": guide.active}
        if place.cluster_step is not None and place.cluster_step <= place.step:
            assert isinstance(guide, Clustering)
            self._whole_or_not(
                lambda: guide.initialise_clusters(
                    self._model.prior,
                    self._train.whole().epoch,
                    seed=self._config.seed,
                    progress=progress,
                )
            )
            place.cluster_step = None
            yield {"clusters": "from data"}

    def _whole_or_not(self, change: Callable[[], None]) -> None:
        """Let the guide change itself and the model, or roll back.

        Rank zero makes the change with whole batches, and all ranks copy the result.
        """
        with (
            finite_parameters(self._place.step, self._steps.advice),
            undone_if_interrupted(self._model, self._guide),
            self._interrupts.at_once(),
        ):
            on_first_rank(change)
        synchronize(self._model, self._guide, self._objective)
        self._steps.changed()
