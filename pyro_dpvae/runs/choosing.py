"""The choice of a checkpoint, and remedies if one is damaged.

No remedy ever tells users to remove an undamaged checkpoint.
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
    """Return the path of the checkpoint ``"last"``, ``"best"`` or of a step.

    Args:
        folder: the run folder.
        which: the checkpoint.
        checkpoints: all checkpoints of the run, in order.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if not checkpoints:
        raise FileNotFoundError(
            f"{folder} has no checkpoint yet; train the run with: dpvae train --resume "
            f"{shlex.quote(str(folder))}"
        )
    steps = {int(path.stem): path for path in checkpoints}
    step = {"last": max(steps), "best": _best(checkpoints)}.get(str(which), which)
    if step not in steps:
        raise FileNotFoundError(
            f"checkpoint must be 'last', 'best' or a step of {', '.join(map(str, steps))}; "
            f"{folder} has no checkpoint {which}"
        )
    return steps[int(step)]


def _best(checkpoints: Sequence[Path]) -> int | None:
    for path in reversed(checkpoints):
        with suppress(CheckpointError):  # the caller reads the checkpoint and raises
            return Checkpoint.read(path).state.get("best")
    return None


def remedy(folder: Path, checkpoints: Sequence[Path], run: str) -> str:
    """Return what to do about a checkpoint that cannot be used.

    Args:
        folder: the run folder.
        checkpoints: all checkpoints of the run, in order.
        run: the run's id according to its configuration.
    """
    whole = []
    for path in reversed(checkpoints):
        with suppress(CheckpointError):
            whole.append(Checkpoint.read(path))
    step = next((one.step for one in whole if one.run == run), None)
    if step is not None:
        return (
            f"the checkpoint of step {step} is undamaged: use it with --checkpoint {step}, or "
            f"resume with: dpvae train --resume {shlex.quote(str(folder))} --checkpoint {step}"
        )
    if whole:
        return (
            "the checkpoints are undamaged: undo the change in config.json, or restore the file "
            f"with: {restoring(folder)}"
        )
    return "no other checkpoint is undamaged: train again in another folder, with --out"
