"""What is called as a run goes on: a small protocol, and TensorBoard as one that follows it."""

import json
from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import nn

from pyro_dpvae.objectives import RegularizedELBO
from pyro_dpvae.training.config import TrainConfig

__all__ = ["AbstractCallback", "Context", "TensorBoard", "end_all"]


@dataclass(frozen=True)
class Context:
    """What a run trains, for callbacks.

    Attributes:
        model: p(x, z).
        guide: q(z | x).
        objective: the loss.
        config: how it is trained.
        step: how many steps are done when it starts: 0, or where a stopped run goes on.
        records: what was recorded before that.
    """

    model: nn.Module
    guide: nn.Module
    objective: RegularizedELBO
    config: TrainConfig
    step: int
    records: Sequence[dict[str, Any]] = ()


class AbstractCallback(ABC):  # noqa: B024  # nothing that a subclass must have
    """What :func:`fit` calls as a run goes on; every method does nothing here.

    Among several ranks the first one calls.

    Example:
        >>> class Printed(AbstractCallback):
        ...     def recorded(self, record: dict[str, Any]) -> None:
        ...         print(record["step"], record.get("loss"))
        >>> Printed().recorded({"step": 50, "loss": 1.5})
        50 1.5
    """

    def started(self, context: Context) -> None:  # noqa: B027
        """Training begins, or goes on where a run stopped."""

    def recorded(self, record: dict[str, Any]) -> None:  # noqa: B027
        """A record was added to the history, as ``metrics.jsonl`` holds it."""

    def checkpointed(self, path: Path) -> None:  # noqa: B027
        """A checkpoint was written to a folder."""

    def ended(self, history: Any) -> None:  # noqa: B027
        """Training has ended, with its ``History``, or stops at an error.

        All callbacks hear of it. An error that one raises here comes after, unless training has
        stopped at another, to which it is a note.
        """


def end_all(
    callbacks: Iterable[AbstractCallback], history: Any, *, failed: BaseException | None = None
) -> None:
    """Tell all callbacks that training has ended.

    Args:
        callbacks: all that hear of it, whatever others raise.
        history: of the run.
        failed: at which training stops; what callbacks raise is noted there, and not raised.

    Raises:
        Exception: the first that a callback has raised.
    """
    raised = []
    for callback in callbacks:
        try:
            callback.ended(history)
        except Exception as error:
            raised.append(error)
    if failed is not None:
        for late in raised:
            failed.add_note(f"as training ended, a callback raised {late!r}")
    elif raised:
        raise raised[0]


@final
class TensorBoard(AbstractCallback):
    """Records as TensorBoard's scalars: ``train/loss``, ``held_out/elbo`` and so on.

    A run that goes on after a stop goes on there too: what the stopped one wrote of later steps
    than its checkpoint is hidden, and where it had no files, its records so far come first. The
    settings of the objective are a text, ``objective``, and what has changed as well.

    Args:
        folder: where event files go; ``tensorboard --logdir`` takes it.

    Raises:
        ModuleNotFoundError: if TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TensorBoard's files need the package tensorboard, which is not installed; "
                'pip install "pyro-dpvae[tensorboard]"'
            ) from error
        self._make = SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None
        self._purged = 0

    def started(self, context: Context) -> None:
        """Take down where the run starts, and write the records before, if no file has them."""
        self._purged = context.step + 1 if context.step else 0
        if not any(Path(self._folder).glob("events.out.tfevents.*")):
            self._purged = 0
            for record in context.records:
                self.recorded(record)

    def recorded(self, record: dict[str, Any]) -> None:
        """Write the numbers of a record, the first of them into a new file."""
        if self._writer is None:
            self._writer = self._make(self._folder, purge_step=self._purged)
        step = record["step"]
        for name in record.keys() & {"objective", "changed"}:
            text = json.dumps(record[name], indent=2)
            self._writer.add_text(name, f"```\n{text}\n```", step)
            return
        for name, value in _scalars(record):
            self._writer.add_scalar(name, value, step)

    def checkpointed(self, path: Path) -> None:
        """Write out what is waiting, so that it is there when the checkpoint is."""
        if self._writer is not None:
            self._writer.flush()

    def ended(self, history: Any) -> None:
        """Close the event file, if there is one."""
        if self._writer is not None:
            self._writer.close()


def _scalars(record: Mapping[str, Any], group: str = "train") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record under their names, those of a section under its name.

    Example:
        >>> list(_scalars({"step": 5, "loss": 2.0, "held_out": {"elbo": -1.0}}))
        [('train/loss', 2.0), ('held_out/elbo', -1.0)]
    """
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            yield f"{group}/{name}", value
