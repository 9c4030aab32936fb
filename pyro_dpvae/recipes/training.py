"""``train``: from a configuration to a trained run in its folder."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro

from pyro_dpvae._devices import choose_device
from pyro_dpvae._ranks import on_first_rank, ranks, refusing_together, shared_object
from pyro_dpvae.data import DATA_SETS, Batches, DataSet, scale_caution
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.errors import ConfigError, DataError, DataWarning
from pyro_dpvae.recipes.config import RunConfig
from pyro_dpvae.recipes.opening import open_run
from pyro_dpvae.recipes.run import Run
from pyro_dpvae.recipes.system import System, start_from_data
from pyro_dpvae.runs import Checkpoint, RunFolder
from pyro_dpvae.training import (
    AbstractCallback,
    History,
    TensorBoard,
    TrainConfig,
    check_resumed,
    check_run,
    fit,
)

__all__ = ["PreparedRun", "prepare", "train"]

# Likelihoods of columns whose scale is free, unlike that of counts and of 0 and 1.
_OF_REAL_NUMBERS = ("gaussian", "gaussian-learned", "gaussian-pixel", "laplace", "laplace-learned")


def train(
    config: RunConfig,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    download: bool = False,
    callbacks: Iterable[AbstractCallback] = (),
    progress: bool = True,
) -> Run:
    """Train the parts of a configuration, and return the run; ``dpvae train`` does the same.

    Ctrl-C ends training after the present step, with a checkpoint from which the run goes on.

    Args:
        config: data, parts, and how they are trained.
        out: the run folder; None takes ``runs/DATA-PRIOR-OBJECTIVE``, or ``runs/DATA-RECIPE``.
        resume: whether a run that lies there goes on, as with ``replace(run.config, steps=2000)``
            for more steps. Without it such a folder is refused.
        download: whether a data set by name is fetched into its root if it is missing.
        callbacks: what is called as the run goes on.
        progress: whether a bar is shown.

    Raises:
        ValueError: if data and parts do not fit each other, or the folder holds a run of another
            configuration.
        FileExistsError: if the folder holds a run that is not to be resumed.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.

    Example:
        >>> import tempfile
        >>> from dataclasses import replace
        >>> folder = tempfile.mkdtemp()
        >>> config = RunConfig(data="two-moons", latent_dim=2, steps=2, backend="eager")
        >>> run = train(config, out=f"{folder}/run", progress=False)
        >>> run.sample(3).shape
        torch.Size([3, 2])
        >>> run = train(
        ...     replace(run.config, steps=4), out=f"{folder}/run", resume=True, progress=False
        ... )
        >>> run.checkpoint.step
        4
    """
    prepared = prepare(config, out=out, resume=resume, download=download)
    history = prepared.fit(callbacks, progress=progress)
    if history.signal is not None:
        raise KeyboardInterrupt(
            f"interrupted at step {history.step}; the run goes on by train(config, "
            f"out={str(prepared.folder.path)!r}, resume=True)"
        )
    return open_run(prepared.folder.path, prepared.device)


@dataclass(frozen=True)
class PreparedRun:
    """A run before its first step, checked, with nothing written.

    Attributes:
        config: with the defaults that depend on the data.
        data: the data set.
        system: model, guide and objective, at their start.
        folder: where the run is or will be.
        resume: whether the run of the folder goes on, or the checkpoint that was asked for;
            otherwise the last one is known once the folder is locked.
        start: the checkpoint that it goes on from; None starts at step 0.
        batches: those of training, and those to watch.
        training: how the parts are trained.
    """

    config: RunConfig
    data: DataSet
    system: System
    folder: RunFolder
    resume: bool | Checkpoint
    start: Checkpoint | None
    batches: tuple[Batches, Batches]
    training: TrainConfig

    @property
    def device(self) -> Any:
        """Where the run trains."""
        return self.batches[0].device

    def fit(self, callbacks: Iterable[AbstractCallback] = (), *, progress: bool = True) -> History:
        """Write the run folder and train; all ranks must call it."""
        run, data = self.folder, self.data
        # Before anything is written: its package may be missing.
        boards = [TensorBoard(run.path / "tensorboard")] if self.config.tensorboard else []
        self._write_configuration()
        about: dict[str, Any] = {"data": data.digest}
        if data.columns is not None:
            about["columns"] = list(data.columns)
        if data.units is not None:
            about["units"] = [numbers.tolist() for numbers in data.units]
        return fit(
            self.system.model,
            self.system.guide,
            objective=self.system.objective,
            train=self.batches[0],
            test=self.batches[1],
            config=self.training,
            run=run,
            state=about,
            resume=self.resume,
            device=self.device,
            callbacks=[*boards, *callbacks],
            progress=progress,
        )

    def _write_configuration(self) -> None:
        content, data = self.config.as_dict(), self.data
        exists = bool(self.resume) and shared_object(self.folder.exists)
        if not exists:
            RunFolder.create(self.folder.path, content)
        if data.held_out is not None:
            indices = {"digest": data.digest, "indices": data.held_out.tolist()}
            on_first_rank(lambda: self.folder.write("held-out.json", indices))
        if exists:  # last, so that nothing has changed if the other file cannot be written
            on_first_rank(lambda: self.folder.reconfigure(content))


def prepare(
    config: RunConfig,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint: str | int | None = None,
    download: bool = False,
) -> PreparedRun:
    """Load the data, build the parts and check that they fit; all ranks must call it.

    Args:
        config: of the run.
        out: the run folder; None takes ``runs/DATA-PRIOR-OBJECTIVE``, or ``runs/DATA-RECIPE``.
        resume: whether a run that lies there goes on.
        checkpoint: the checkpoint that it goes on from; None takes the last, if there is one.
        download: whether a data set by name is fetched into its root if it is missing.

    Raises:
        ValueError: if data and parts do not fit each other or the run in the folder.
        FileNotFoundError: if there is no such checkpoint.
    """
    config = _located(config)
    folder = RunFolder(Path("runs") / _title(config) if out is None else out)
    if download:  # by one, from whom others have it
        on_first_rank(lambda: config.load_data(download=True))
    device = choose_device(config.device)
    data = config.load_data()
    start = _start(folder, checkpoint) if resume else None
    if start is not None:
        _check_data(start, config.data, data)
    if config.part("likelihood")["name"] in _OF_REAL_NUMBERS and (caution := scale_caution(data)):
        warnings.warn(caution, category=DataWarning, stacklevel=2)
    config = config.for_data(data)
    assert config.batch_size is not None  # for_data has chosen it
    pyro.set_rng_seed(config.seed)
    system = config.build(data.item_shape, dataset_size=split_size(data.train))
    for module in (system.model, system.guide):
        module.to(device)
    system.objective.to(device)
    here = ranks()
    options: dict[str, Any] = {
        "preprocessing": config.preprocessing,
        "seed": config.seed,
        "workers": config.workers,
        "device": device,
    }
    train = Batches(
        data.train, batch_size=config.batch_size, rank=here.index, ranks=here.count, **options
    )
    watched_size = min(config.batch_size, split_size(data.watched))
    watched = Batches(data.watched, batch_size=watched_size, shuffle=False, **options)
    start_from_data(system, train.epoch(0))
    steps = config.steps_for(len(train), images=data.is_images)
    config = config.for_steps(steps)
    training = config.training(steps)
    with refusing_together():  # before there is a run folder, or what is in it has changed
        check_run(
            system.model, system.guide, objective=system.objective, train=train, config=training
        )
        if start is not None:
            check_resumed(start, config=training, objective=system.objective)
    going_on = resume if start is None or checkpoint is None else start
    batches = train, watched
    return PreparedRun(config, data, system, folder, going_on, start, batches, training)


def _located(config: RunConfig) -> RunConfig:
    """Return the configuration with absolute paths, which a run that goes on elsewhere finds."""
    data, root = config.data, config.root
    if data not in DATA_SETS and os.path.exists(data):
        data = os.path.abspath(data)
    return replace(config, data=data, root=None if root is None else os.path.abspath(root))


def _title(config: RunConfig) -> str:
    data = Path(config.data).stem
    if config.recipe is not None:
        return config.recipe if config.recipe.startswith(f"{data}-") else f"{data}-{config.recipe}"
    return f"{data}-{config.part('prior')['name']}-{config.part('objective')['name']}"


def _start(run: RunFolder, which: str | int | None) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from; None where there is none yet."""
    if which is None and not run.steps():
        return None
    checkpoint = run.checkpoint("last" if which is None else which)
    for _ in run.records(checkpoint.training().get("logged")):
        pass  # what is refused later would come after the configuration has changed
    return checkpoint


def _check_data(checkpoint: Checkpoint, source: str, data: DataSet) -> None:
    """Refuse other data than those of a run; files and folders may have moved."""
    run, state = RunFolder(checkpoint.path.parents[1]), checkpoint.state
    before = run.config.get("data")
    if source != before and {source, before} & {*DATA_SETS}:
        raise ConfigError(
            f"a run goes on with its own data, got data {source} for one on {before}; train "
            "another run in another folder"
        )
    found = (list(data.item_shape), split_size(data.train))
    wanted = (state["item_shape"], state["dataset_size"])
    # What comes by name is computed or fetched, and may be rounded otherwise elsewhere.
    same = source in DATA_SETS or state.get("data", data.digest) == data.digest
    if found != wanted or not same:
        what = "of other values" if found == wanted else f"and not {wanted[1]} of {wanted[0]}"
        raise DataError(
            f"a run goes on with its own data, got {found[1]} of shape {found[0]} in {source}, "
            f"{what}; give as data the path where those of {run.path} are now"
        )
