"""``dpvae train --resume RUN``: the configuration of a run that goes on, or that starts there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_dpvae._ranks import on_first_rank, shared_object
from pyro_dpvae.data import DATA_SETS, DataSet
from pyro_dpvae.data.dataset import split_size
from pyro_dpvae.runs import Checkpoint, RunFolder

__all__ = [
    "check_data",
    "folder_of",
    "place_of",
    "resumed",
    "which_checkpoint",
    "with_configuration",
]


def with_configuration(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the configuration of the run that it resumes, if there is one.

    Raises:
        ValueError: if the command line names another folder as well, or the configuration is
            damaged.
    """
    given = [argument.partition("=") for argument in arguments]
    resumed = [
        value if equals else arguments[at + 1]
        for at, (option, equals, value) in enumerate(given)
        if option == "--resume" and (equals or at + 1 < len(arguments))
    ]
    if not resumed:
        return list(arguments)
    if any(option == "--out" for option, _, _ in given):
        raise ValueError(
            f"a run goes on in its own folder, got --out beside --resume {resumed[-1]}; give one "
            "of them"
        )
    run = RunFolder(Path(resumed[-1]))
    if not run.exists:
        return list(arguments)
    _ = run.config  # which says what is wrong with it, where a parser says what it finds
    return ["--config", str(run.path / "config.json"), *arguments]


def which_checkpoint(which: str) -> str | int:
    """Return which checkpoint a command line asks for.

    Raises:
        ValueError: if it is neither ``"last"`` nor ``"best"`` nor a step.

    Example:
        >>> which_checkpoint("best"), which_checkpoint("1000")
        ('best', 1000)
    """
    if which in ("last", "best"):
        return which
    if not (which.isascii() and which.isdigit() and len(which) < 10):
        raise ValueError(f"checkpoint must be last, best or a step; got {which!r}")
    return int(which)


def resumed(path: str, which: str | int | None) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from; None where there is none yet.

    Args:
        path: the run folder.
        which: of its checkpoints; None takes the last, if there is one.

    Raises:
        FileNotFoundError: if there is no such one.
        ValueError: if it is damaged or of another run, or the records before it are damaged.
    """
    run = RunFolder(Path(path))
    if which is None and not run.steps():
        return None
    checkpoint = run.checkpoint("last" if which is None else which)
    for _ in run.records(checkpoint.training().get("logged")):
        pass  # what is refused later would come after the configuration has changed
    return checkpoint


def check_data(checkpoint: Checkpoint, source: str, data: DataSet) -> None:
    """Refuse other data than those of a run; files and folders may have moved.

    Raises:
        ValueError: with what differs.
    """
    run, state = RunFolder(checkpoint.path.parents[1]), checkpoint.state
    before = run.config.get("data")
    if source != before and {source, before} & {*DATA_SETS}:
        raise ValueError(
            f"a run goes on with its own data, got --data {source} for one on {before}; train "
            "another run with --out"
        )
    found = (list(data.item_shape), split_size(data.train))
    wanted = (state["item_shape"], state["dataset_size"])
    # What comes by name is computed or fetched, and may be rounded otherwise elsewhere.
    same = source in DATA_SETS or state.get("data", data.digest) == data.digest
    if found != wanted or not same:
        what = "of other values" if found == wanted else f"and not {wanted[1]} of {wanted[0]}"
        raise ValueError(
            f"a run goes on with its own data, got {found[1]} of shape {found[0]} in {source}, "
            f"{what}; name with --data where those of {run.path} are now"
        )


def place_of(run: RunFolder, start: Checkpoint | None, steps: int) -> str:
    """Return what is told of where a resumed run stands, before it goes on.

    Args:
        run: the folder.
        start: the checkpoint that it goes on from, if there is any.
        steps: of the whole run.
    """
    if start is None:
        return (
            f"{run.path} has no checkpoint yet: starts at step 0"
            if run.exists
            else f"starts a run in {run.path}"
        )
    if start.step == steps:
        return f"{run.path} has all its {steps} steps; give more with --steps"
    return f"{run.path} goes on from step {start.step} of {steps}"


def folder_of(options: Mapping[str, Any], *, resume: bool) -> RunFolder:
    """Return the run folder of resolved options: new, or, resumed, with what has changed in them.

    All ranks must call it.

    Raises:
        FileExistsError: if a run is there, and is not to be resumed.
        ValueError: if the options make a resumed run another one.
    """
    config = json.loads(json.dumps(options))  # tuples are lists there
    run = RunFolder(Path(options["out"]))
    if not (resume and shared_object(run.exists)):
        return RunFolder.create(run.path, config)
    on_first_rank(lambda: run.reconfigure(config))
    return run
