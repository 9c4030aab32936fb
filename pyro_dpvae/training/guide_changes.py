"""Changes of the guide between two steps: growth and cluster initialisation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from pyro_dpvae._randomness import random_state, set_random_state
from pyro_dpvae._ranks import on_first_rank
from pyro_dpvae.inference import synchronize
from pyro_dpvae.training.config import Clustering, Growing
from pyro_dpvae.training.guard import diverging

__all__ = ["guide_changes"]


def guide_changes(trainer: Any, *, progress: bool) -> Iterator[dict[str, Any]]:
    """Make the changes of a trainer's guide that are due; yield a record of each.

    Args:
        trainer: the run, with the changes still to come in its ``place``.
        progress: show progress bars.

    Raises:
        KeyboardInterrupt: on a signal; the change is rolled back and due again.
    """
    place, config, guide = trainer.place, trainer.config, trainer.guide

    def whole_or_not(change: Callable[[], None]) -> None:
        # Rank zero makes the change with whole batches, and all ranks copy the result.
        steps = trainer.steps
        with (
            diverging(
                lambda cause: (
                    f"training has diverged after {place.step} steps: {cause}; "
                    f"{steps.guarded.advice}"
                )
            ),
            _undone_if_interrupted(trainer.model, guide),
            trainer.interrupts.at_once(),
        ):
            on_first_rank(change)
        synchronize(trainer.model, guide, trainer.objective)
        steps.changed()

    if place.growth and place.growth[0] <= place.step:
        assert isinstance(guide, Growing)
        whole_or_not(
            lambda: guide.grow(
                trainer.model,
                trainer.train.whole().epoch,
                steps=config.growth_steps,
                learning_rate=config.learning_rate_at(place.step),
                progress=progress,
            )
        )
        place.growth = place.growth[1:]
        yield {"components": guide.active}
    if place.cluster_step is not None and place.cluster_step <= place.step:
        assert isinstance(guide, Clustering)
        whole_or_not(
            lambda: guide.initialise_clusters(
                trainer.model.prior,
                trainer.train.whole().epoch,
                seed=config.seed,
                progress=progress,
            )
        )
        place.cluster_step = None
        yield {"clusters": "from data"}


@contextmanager
def _undone_if_interrupted(*modules: nn.Module) -> Iterator[None]:
    """Restore modules and random states if the body raises or is interrupted."""
    states = [
        {
            name: value.clone() if hasattr(value, "clone") else value
            for name, value in module.state_dict().items()
        }
        for module in modules
    ]
    drawn = random_state()
    try:
        yield
    except BaseException:  # an interrupt as well
        for module, state in zip(modules, states, strict=True):
            module.load_state_dict(state)
        set_random_state(drawn)
        raise
