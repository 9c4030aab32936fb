"""Callbacks of a training run, and the TensorBoard callback."""

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
    """The parts of a run, as callbacks see them when training starts.

    Attributes:
        model: p(x, z).
        guide: q(z | x).
        objective: the loss.
        config: the training configuration.
        step: the number of steps done at the start: 0, or the step where a resumed run continues.
        records: the records of a resumed run before that step.
    """

    model: nn.Module
    guide: nn.Module
    objective: RegularizedELBO
    config: TrainConfig
    step: int
    records: Sequence[dict[str, Any]] = ()


class AbstractCallback(ABC):  # noqa: B024  # a subclass need not override anything
    """Base class of callbacks for :func:`fit`; every method does nothing here.

    Only rank zero calls callbacks.

    Example:
        >>> class Printed(AbstractCallback):
        ...     def recorded(self, record: dict[str, Any]) -> None:
        ...         print(record["step"], record.get("loss"))
        >>> Printed().recorded({"step": 50, "loss": 1.5})
        50 1.5
    """

    def started(self, context: Context) -> None:  # noqa: B027
        """Called when training begins or resumes."""

    def recorded(self, record: dict[str, Any]) -> None:  # noqa: B027
        """Called when a record is added to the history (and to ``metrics.jsonl``)."""

    def checkpointed(self, path: Path) -> None:  # noqa: B027
        """Called when a checkpoint was written to the folder ``path``."""

    def ended(self, history: Any) -> None:  # noqa: B027
        """Called when training has ended, or stops at an error.

        Every callback is called, even if another raises. The first error of a callback is raised
        afterwards; if training itself failed, it becomes a note of that error.
        """


def end_all(
    callbacks: Iterable[AbstractCallback], history: Any, *, failed: BaseException | None
) -> None:
    """Tell all callbacks that training has ended.

    Args:
        callbacks: every one is called, even if another raises.
        history: the history of the run.
        failed: the error at which training stops; errors of callbacks become its notes.

    Raises:
        Exception: the first error that a callback raised, unless training failed.
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
    """Write records as TensorBoard scalars: ``train/loss``, ``held_out/elbo`` and so on.

    A resumed run continues the same curves: TensorBoard hides what was written after the
    checkpoint's step. If the folder has no event files yet, the earlier records are written first.
    The objective's settings and changed settings are written as texts.

    Args:
        folder: folder of the event files, the argument of ``tensorboard --logdir``.

    Raises:
        ModuleNotFoundError: if TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TensorBoard is missing: TensorBoard(...) needs the package tensorboard; "
                'pip install "pyro-dpvae[tensorboard]"'
            ) from error
        self._make = SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None
        self._purged = 0

    def started(self, context: Context) -> None:
        """Note the step where the run starts; write earlier records if no event file exists."""
        self._purged = context.step + 1 if context.step else 0
        if not any(Path(self._folder).glob("events.out.tfevents.*")):
            self._purged = 0
            for record in context.records:
                self.recorded(record)

    def recorded(self, record: dict[str, Any]) -> None:
        """Write the numbers of a record; the first record opens the event file."""
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
        """Flush the event file, so that it is complete when the checkpoint is."""
        if self._writer is not None:
            self._writer.flush()

    def ended(self, history: Any) -> None:
        """Close the event file, if there is one."""
        if self._writer is not None:
            self._writer.close()


def _scalars(record: Mapping[str, Any], group: str = "train") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record by name, with the names of sections as prefixes.

    Example:
        >>> list(_scalars({"step": 5, "loss": 2.0, "held_out": {"elbo": -1.0}}))
        [('train/loss', 2.0), ('held_out/elbo', -1.0)]
    """
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            yield f"{group}/{name}", value
