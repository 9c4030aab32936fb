"""The training loop: epochs of batches, a step on each, and the work between two steps.

The path of a batch x through one step, and the files on it:

    x                                                     data/batches.py, in the epoch's order
    -> q(z | x) = guide.posterior(x),  z ~ q(z | x),
       p(z) = model.prior(),  p(x | z) = model.decoder(z)
                                                          objectives/direct.py; traced.py does it
                                                          for any other Pyro program
    -> Terms(distortion, rates, latents)                  objectives/terms.py; per datum, in nats
    -> loss = mean(distortion) + rate + weighted penalties
                                                          objectives/elbo.py
    -> gradients, and whether all numbers are finite      inference/captured.py, by a capture
    -> update of the weights, or a skipped step           inference/fused.py

Other files surround the step: steps.py has the learning rate, precision and weight average,
guard.py handles numbers that are not finite, and trainer.py handles signals, records, evaluation
and checkpoints.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pyro_dpvae.data import Batches
from pyro_dpvae.training.place import Place
from pyro_dpvae.training.steps import Steps

__all__ = ["take_steps"]


def take_steps(
    steps: Steps,
    batches: Batches,
    *,
    place: Place,
    until: int,
    after_step: Callable[[bool], bool],
    unread: Callable[[Exception], object],
) -> None:
    """Take steps from the current place until the run has ``until`` steps or ends early.

    Args:
        steps: takes a step on a batch.
        batches: the training data.
        place: the progress of the run, updated by each step.
        until: the number of steps of the whole run.
        after_step: called after each step with whether it was finite; returns True to continue.
        unread: called with the error if a batch cannot be read, before it is re-raised.
    """
    while place.step < until:
        for batch in _read(batches.epoch(place.epoch, place.batch), unread):
            finite = steps.take(place.step, batch)
            place.step += 1
            place.batch += 1
            goes_on = after_step(finite)
            if place.step == until or not goes_on:
                return
        place.epoch, place.batch = place.epoch + 1, 0


def _read(batches: Iterable[Any], unread: Callable[[Exception], object]) -> Iterator[Any]:
    try:
        yield from batches
    except Exception as error:  # of reading only: the step runs outside of this generator
        unread(error)
        raise
