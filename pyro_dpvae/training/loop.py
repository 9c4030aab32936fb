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
    """Take steps from where a run stands, until it has so many or ends early.

    Args:
        steps: what takes a step on a batch.
        batches: the training data.
        place: where the run stands; it moves on with each step.
        until: the number of steps of the whole run.
        after_step: does what follows a step, from whether its numbers were finite; returns
            whether training goes on.
        unread: is called with the error where a batch cannot be read, before it is raised.
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
    except Exception as error:  # of the reading alone: a step is taken outside of here
        unread(error)
        raise
