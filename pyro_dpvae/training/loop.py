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

from collections.abc import Iterator
from typing import Any

__all__ = ["take_steps"]


def take_steps(trainer: Any) -> None:
    """Take a trainer's steps from its place until the run has all its steps or ends early."""
    place, until = trainer.place, trainer.config.steps
    while place.step < until:
        for batch in _read(trainer):
            finite = trainer.steps.take(place.step, batch)
            place.step += 1
            place.batch += 1
            goes_on = trainer.after_step(finite)
            if place.step == until or not goes_on:
                return
        place.epoch, place.batch = place.epoch + 1, 0


def _read(trainer: Any) -> Iterator[Any]:
    try:
        yield from trainer.train.epoch(trainer.place.epoch, trainer.place.batch)
    except Exception as error:  # of reading only: the step runs outside of this generator
        trainer.keep_what_is_trained(error)
        raise
