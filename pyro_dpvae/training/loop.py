"""The loop of training: epochs of batches, a step on each, and what comes between two steps.

The road of a batch x through one step, and the files that it passes:

    x                                                     data/batches.py, in the epoch's order
    -> q(z | x) = guide.posterior(x),  z ~ q(z | x),
       p(z) = model.prior(),  p(x | z) = model.decoder(z)
                                                          objectives/direct.py; traced.py does it
                                                          for any other Pyro program
    -> Terms(distortion, rates, latents)                  objectives/terms.py; per datum, in nats
    -> loss = mean(distortion) + rate + weighted penalties
                                                          objectives/elbo.py
    -> gradients, and whether all numbers are finite      inference/captured.py, from a recording
    -> the update of the weights, or none                 inference/fused.py

What surrounds a step is elsewhere: the learning rate, the precision and the average of weights in
steps.py, numbers that are not finite in guard.py, and signals, records, evaluation and checkpoints
in trainer.py.
"""

from typing import Protocol

from pyro_dpvae.data import Batches
from pyro_dpvae.training.place import Place
from pyro_dpvae.training.steps import Steps

__all__ = ["Between", "take_steps"]


class Between(Protocol):
    """What happens between two steps."""

    @property
    def ends(self) -> bool:
        """Whether training ends here, before its last step."""

    def after_step(self, finite: bool) -> None:
        """Do what follows a step.

        Args:
            finite: whether the numbers of the step were finite.
        """


def take_steps(
    steps: Steps, batches: Batches, *, place: Place, until: int, between: Between
) -> None:
    """Take steps from where a run stands, until it has so many or ends early.

    Args:
        steps: what takes a step on a batch.
        batches: the training data.
        place: where the run stands; it moves on with each step.
        until: the number of steps of the whole run.
        between: what happens after each step.
    """
    while place.step < until and not between.ends:
        for batch in batches.epoch(place.epoch, place.batch):
            finite = steps.take(place.step, batch)
            place.step += 1
            place.batch += 1
            between.after_step(finite)
            if place.step == until or between.ends:
                return
        place.epoch, place.batch = place.epoch + 1, 0
