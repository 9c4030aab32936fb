"""The choice of a checkpoint, and remedies if one is damaged.

No remedy ever tells users to remove an undamaged checkpoint.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyro_dpvae.errors import CheckpointError
from pyro_dpvae.runs.checkpoint import Checkpoint
from pyro_dpvae.runs.identity import restoring

__all__ = ["chosen", "remedy", "undamaged"]


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
    step: Any = max(steps) if which == "last" else which
    if which == "best":  # of a damaged one, the caller's reading raises
        step = next((one.state.get("best") for one in undamaged(checkpoints)), None)
    if step not in steps:
        raise FileNotFoundError(
            f"checkpoint must be 'last', 'best' or a step of {', '.join(map(str, steps))}; "
            f"{folder} has no checkpoint {which}"
        )
    return steps[int(step)]


def undamaged(checkpoints: Sequence[Path]) -> Iterator[Checkpoint]:
    """Yield the checkpoints that can be read, starting from the last."""
    for path in reversed(checkpoints):
        with suppress(CheckpointError):
            yield Checkpoint.read(path)


def remedy(folder: Path, checkpoints: Sequence[Path], run: str) -> str:
    """Return what to do about a checkpoint that cannot be used.

    Args:
        folder: the run folder.
        checkpoints: all checkpoints of the run, in order.
        run: the run's id according to its configuration.
    """
    whole = list(undamaged(checkpoints))
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
