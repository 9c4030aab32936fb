"""The contents of a run's page: everything is read from its folder, only figures are drawn."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, final

import torch
from matplotlib.figure import Figure

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.evaluation.evaluate import applicable
from pyro_dpvae.evaluation.kept import read_kept
from pyro_dpvae.plots import drawings_of
from pyro_dpvae.recipes import Run, open_run
from pyro_dpvae.runs import RunFolder

__all__ = ["Opening", "RunContents", "contents_of"]


@final
@dataclass(frozen=True, kw_only=True)
class Opening:
    """How runs are opened, and how their figures are drawn.

    Attributes:
        device: the device of models and guides.
        checkpoint: ``"last"``, ``"best"`` or a step.
        weights: ``"raw"``, ``"average"``, or None for the average if there is one.
        root: the folder of data sets by name; None takes that of each run.
        data: the file or folder of the data, if they have moved.
        seed: the random seed of the samples in figures.
        count: the number of samples in a panel; None draws no figures.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoint: str | int = "last"
    weights: str | None = None
    root: str | None = None
    data: str | None = None
    seed: int = 0
    count: int | None = 100


@final
@dataclass(frozen=True)
class RunContents:
    """The contents of the page of one run.

    Attributes:
        path: the run's folder, as the user named it.
        config: the run's configuration.
        records: the records of its training.
        state: the state in the checkpoint, empty if no checkpoint could be read.
        weights: the weights in figures, ``"raw"`` or ``"average"``; empty without a checkpoint.
        parameters: the number of trained numbers; None without a checkpoint.
        latent_dim: the size of z; None without a checkpoint.
        groups: the names of the metrics of each measured group.
        metrics: value, standard error and settings of each metric.
        unmeasured: the groups that the data allow and that were not measured.
        figures: PNG files by name.
        notes: what could not be read or drawn, and why.
    """

    path: str
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    parameters: int | None = None
    latent_dim: int | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unmeasured: Sequence[str] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def step(self) -> int:
        """The number of steps taken, according to records and checkpoint."""
        steps = [record["step"] for record in self.records if isinstance(record.get("step"), int)]
        return max([*steps, self.state.get("step", 0)])

    def curve(self, name: str, *, held_out: bool = False) -> list[tuple[float, float]]:
        """Return a quantity over the steps, of training or of held-out data."""
        found = []
        for record in self.records:
            terms = record.get("held_out", {}) if held_out else record
            value = number(terms.get(name))
            if value is not None and isinstance(record.get("step"), int):
                found.append((float(record["step"]), value))
        return found

    def quantities(self, *, held_out: bool = False) -> list[str]:
        """Return the names of the recorded quantities."""
        names: dict[str, None] = {}
        for record in self.records:
            if held_out:
                names.update(dict.fromkeys(record.get("held_out", {})))
            elif "seconds" in record:
                terms = (key for key, value in record.items() if number(value) is not None)
                names.update(dict.fromkeys(terms))
        return [name for name in names if name not in ("step", "seconds")]


def contents_of(
    path: str, opening: Opening, *, figures: bool = True, progress: bool = True
) -> RunContents:
    """Read a run and draw its figures.

    What cannot be read or drawn becomes a note on the page, and the rest is shown.

    Args:
        path: the run's folder.
        opening: which checkpoint and data to open, and how to draw.
        figures: whether to draw figures.
        progress: whether to show a progress bar.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if its configuration is damaged.
    """
    run = RunFolder.open(path)
    config, notes = run.config, list[str]()
    records: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    saved: Run | None = None
    drawn: dict[str, bytes] = {}
    unmeasured: list[str] = []
    with _noted(notes, "its records are shown up to one that cannot be read"):
        for record in run.records():
            records.append(record)
    with _noted(notes, "its metrics cannot be read"):
        kept = read_kept(run)
    with _noted(notes, "its checkpoint cannot be opened, so there are no figures"):
        saved = open_run(
            path, opening.device, checkpoint=opening.checkpoint, weights=opening.weights
        )
    if kept and kept["basis"]["run"] not in run.digests():
        notes.append(
            "its metrics are of a checkpoint that is no longer there; evaluate it again with "
            f"dpvae evaluate {shlex.quote(path)}"
        )
    elif kept and saved is not None and kept["basis"]["run"] != saved.checkpoint.digest:
        notes.append(
            f"its metrics are of another checkpoint than that of step {saved.checkpoint.step}"
        )
    elif kept and saved is not None:
        weights = kept["basis"].get("weights", "raw")
        if weights != saved.weights:
            notes.append(f"its metrics are of the {weights} weights, and not {saved.weights}")
    if saved is not None:
        with _noted(notes, "its data are not at hand, so there are no figures"):
            data = saved.load_data(opening.root, source=opening.data)
            subject = Subject(saved, data, EvaluationConfig(), progress=False)
            unmeasured = [
                name for name in applicable(subject) if name not in kept.get("groups", ())
            ]
            if figures and opening.count is not None:
                drawn = _drawn(subject, opening.count, opening.seed, notes, progress=progress)
    return RunContents(
        path,
        config,
        records,
        {} if saved is None else saved.checkpoint.state,
        "" if saved is None else saved.weights,
        None if saved is None else _parameters(saved),
        None if saved is None else saved.system.model.prior.latent_dim,
        {name: group["metrics"] for name, group in kept.get("groups", {}).items()},
        kept.get("metrics", {}),
        unmeasured,
        drawn,
        notes,
    )


def number(value: Any) -> float | None:
    """Return a number of a record, in which numbers that are not finite are strings."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None


def _drawn(
    subject: Subject, count: int, seed: int, notes: list[str], *, progress: bool
) -> dict[str, bytes]:
    found = {}
    drawings = drawings_of(subject, count)
    bar = progress_bar(drawings.items(), unit="figure", disable=not progress)
    with torch.no_grad(), forked_rng(seed), bar:
        for name, draw in bar:
            bar.set_description(f"drawing {name} of {subject.saved.folder.path.name}")
            with _noted(notes, f"the figure {name} cannot be drawn"):
                found[name] = _png(draw())
    return found


def _png(figure: Figure) -> bytes:
    """Return a figure as a PNG file that holds no date and no version."""
    file = BytesIO()
    options = {"optimize": True}
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None}, pil_kwargs=options)
    return file.getvalue()


def _parameters(saved: Run) -> int:
    parts = (saved.system.model, saved.system.guide)
    every = {id(one): one.numel() for part in parts for one in part.parameters()}
    return sum(every.values())


@contextmanager
def _noted(notes: list[str], what: str) -> Iterator[None]:
    """Turn an error in a run's contents into a note, and continue."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, ArithmeticError) as error:
        notes.append(f"{what}: {error}")
