"""The options of ``dpvae train`` for what is around its steps, and what they configure."""

from typing import Any

from pyro_dpvae.cli.parts import RATE_SCHEDULE, PartParser
from pyro_dpvae.objectives import SCHEDULES
from pyro_dpvae.training import TrainConfig
from pyro_dpvae.training.config import PRECISIONS
from pyro_dpvae.training.guard import POLICIES
from pyro_dpvae.training.stopping import MONITORS

__all__ = ["add_updates", "resolve_rate", "updates"]

_SAME = (
    "accumulate",
    "average_decay",
    "clip_norm",
    "monitor",
    "nonfinite",
    "patience",
    "precision",
    "warmup_steps",
)


def add_updates(parser: PartParser) -> None:
    """Add the options, in groups."""
    usual = TrainConfig(steps=1)
    group = parser.add_argument_group("updates of the weights")
    assert not callable(usual.learning_rate)
    parser.add_learning_rate(group, usual.learning_rate)
    group.add_argument(
        "--warmup-steps",
        type=int | None,
        help="steps in which the learning rate rises to that at the start (default: none)",
    )
    group.add_argument(
        "--accumulate",
        type=int,
        default=usual.accumulate,
        help="batches whose gradients are summed for one update",
    )
    group.add_argument(
        "--average-decay",
        type=float | None,
        help="keep an exponential moving average of weights, such as 0.999, and evaluate it "
        "(default: none)",
    )
    group.add_argument(
        "--precision",
        choices=list(PRECISIONS),
        default=usual.precision,
        help="of the networks in training; densities are in float32",
    )
    group = parser.add_argument_group("guards")
    group.add_argument(
        "--clip-norm",
        type=float | None,
        help="the greatest norm of a step's gradients, all together (default: none)",
    )
    group.add_argument(
        "--nonfinite",
        choices=list(POLICIES),
        default=usual.nonfinite,
        help="what becomes of a step whose loss or gradients are not finite",
    )
    group = parser.add_argument_group("early stopping and records")
    group.add_argument(
        "--patience",
        type=int | None,
        help="end after so many evaluations without improvement, counted from the end of the "
        "objective's schedules (default: train all steps)",
    )
    group.add_argument(
        "--monitor",
        choices=list(MONITORS),
        default=usual.monitor,
        help="what makes an evaluation better, and a checkpoint the best: the held-out ELBO, or "
        "the objective's own loss on held-out data",
    )
    group.add_argument(
        "--tensorboard", action="store_true", help="write RUN/tensorboard for TensorBoard too"
    )


def resolve_rate(options: dict[str, Any], steps: int) -> None:
    """Write down the steps of the learning rate's schedule, which else would move with a run's."""
    schedule = options[RATE_SCHEDULE]
    if schedule["name"] in SCHEDULES and schedule["steps"] is None:
        schedule["steps"] = steps


def updates(options: dict[str, Any]) -> dict[str, Any]:
    """Return what resolved options give a ``TrainConfig`` around its steps."""
    rate = options["learning_rate"]
    schedule = dict(options[RATE_SCHEDULE])
    name = schedule.pop("name")
    if name in SCHEDULES:
        end, length = schedule.pop("end"), schedule.pop("steps")
        if not end >= 0:
            raise ValueError(f"learning_rate_schedule.end must be 0 or more, got {end}")
        rate = SCHEDULES[name](rate, end, length, **schedule)
    return {"learning_rate": rate, **{key: options[key] for key in _SAME}}
