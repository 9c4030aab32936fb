"""Which of a run's checkpoints is meant, and what to do where one is refused.

What is whole is never advised to be removed.
"""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.runs.checkpoint import Checkpoint
from pyro_dpvae.runs.identity import restoring

__all__ = ["chosen", "remedy"]


def chosen(folder: Path, which: str | int, checkpoints: Sequence[Path]) -> Path:
    """Return the checkpoint that is meant by ``"last"``, ``"best"`` or a step.

    Args:
        folder: of the run.
        which: the checkpoint.
        checkpoints: all of the run, in order.

    Raises:
        FileNotFoundError: if there is no such one.
    """
    if not checkpoints:
        raise FileNotFoundError(
            f"a trained run has checkpoints, and {folder} has none yet; train it with: dpvae "
            f"train --resume {shlex.quote(str(folder))}"
        )
    steps = {int(path.stem): path for path in checkpoints}
    step = {"last": max(steps), "best": _best(checkpoints)}.get(str(which), which)
    if step not in steps:
        wanted = "best one" if which == "best" else f"one of step {which}"
        raise FileNotFoundError(
            f"checkpoint must be 'last', 'best' or a step of {', '.join(map(str, steps))}, and "
            f"{folder} has no {wanted}"
        )
    return steps[int(step)]


def _best(checkpoints: Sequence[Path]) -> int | None:
    for path in reversed(checkpoints):
        with suppress(CheckpointError):  # it is refused when it is asked for
            best: int | None = Checkpoint.read(path).state.get("best")
            return best
    return None


def remedy(folder: Path, checkpoints: Sequence[Path], run: str) -> str:
    """Return what to do with a run of which a checkpoint is refused.

    Args:
        folder: of the run.
        checkpoints: all of the run, in order.
        run: the name of the run that the configuration makes.
    """
    whole = []
    for path in reversed(checkpoints):
        with suppress(CheckpointError):
            whole.append(Checkpoint.read(path))
    step = next((one.step for one in whole if one.run == run), None)
    if step is not None:
        return (
            f"the checkpoint of step {step} is whole: take it with --checkpoint {step}, or go on "
            f"from it with: dpvae train --resume {shlex.quote(str(folder))} --checkpoint {step}"
        )
    if whole:
        return (
            "the checkpoints are whole: undo that change in config.json, or restore the file "
            f"with: {restoring(folder)}"
        )
    return "there is no other that is whole: train again, in another folder, with --out"
