"""The stored evaluation of a run: metrics in JSON, values per datum as tensors."""

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyro_dpvae.runs import RunFolder
from pyro_dpvae.runs.lock import locked

__all__ = ["keep", "kept_of", "kept_per_datum", "read_kept", "value_of"]

_FILE, _TENSORS = "evaluation.json", "evaluation.safetensors"
_LOCK = ".evaluation.lock"


def keep(
    run: RunFolder,
    basis: Mapping[str, Any],
    group: str,
    *,
    numbers: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    inputs: str | None = None,
    per_datum: Tensor | None = None,
) -> dict[str, Any]:
    """Add a measured group to the run's evaluation; return the whole evaluation.

    Another process may measure other groups of the same run at the same time. So the file is read
    again under a lock, and its metrics of the same basis are preserved. The tensors name their
    origin, because the two files are not written at once.

    Args:
        run: the run folder.
        basis: the digests of the checkpoint and of the data.
        group: name of the group.
        numbers: the settings that its metrics depend on.
        metrics: its metrics by name, each a value with its standard error and settings.
        inputs: the digest of its labels, factors or feature network, if it uses such.
        per_datum: the value of each datum, if the group has such values.
    """
    with locked(run.path, name=_LOCK, wait=True):
        content = kept_of(run, basis)
        for name in content["groups"].get(group, {}).get("metrics", ()):
            content["metrics"].pop(name, None)
        content["groups"][group] = {"numbers": dict(numbers), "metrics": list(metrics)}
        if inputs is not None:
            content["groups"][group]["inputs"] = inputs
        content["metrics"].update(metrics)
        if per_datum is not None:
            tensors = {**kept_per_datum(run, content), group: per_datum}
            run.write_tensors(_TENSORS, tensors, origins=_origins(content))
        run.write(_FILE, content)
    return content


def kept_of(run: RunFolder, basis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's evaluation of one basis; without groups if it has another basis."""
    content = read_kept(run)
    if content.get("basis") != basis:
        return {"basis": dict(basis), "groups": {}, "metrics": {}}
    return content


def kept_per_datum(run: RunFolder, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the stored values per datum, by group, that belong to an evaluation."""
    return run.read_tensors(_TENSORS, origins=_origins(content))


def read_kept(run: RunFolder) -> dict[str, Any]:
    """Return the run's evaluation; an empty dict if there is none.

    Returns:
        ``basis``, the digests of checkpoint and data; ``groups``, the settings and names of
        metrics of each; and ``metrics``, each a value with its standard error and settings.

    Raises:
        ValueError: if the file has other content.
    """
    content = run.read(_FILE)
    if not {"basis", "groups", "metrics"} <= content.keys():
        return {}
    basis, groups, metrics = (content[name] for name in ("basis", "groups", "metrics"))
    whole = (
        _holds(basis, run=str, data=str)
        and _holds(groups)
        and _holds(metrics)
        and all(_holds(entry, numbers=Mapping, metrics=list) for entry in groups.values())
        and all(
            isinstance(name, str) and name in metrics
            for entry in groups.values()
            for name in entry["metrics"]
        )
        and all(
            _holds(entry, value=int | float, standard_error=int | float | None, settings=Mapping)
            for entry in metrics.values()
        )
    )
    if not whole:
        path = run.path / _FILE
        raise ValueError(
            f"{path} is not an evaluation written by 'dpvae evaluate'; remove it, and evaluate "
            f"again: dpvae evaluate {shlex.quote(str(run.path))}"
        )
    return content


def value_of(metrics: Mapping[str, Mapping[str, Any]], name: str) -> tuple[float, float] | None:
    """Return a metric's value and standard error, NaN if that is unknown; None if not measured."""
    if name not in metrics:
        return None
    error = metrics[name]["standard_error"]
    return metrics[name]["value"], math.nan if error is None else error


def _origins(content: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: json.dumps([content["basis"], group["numbers"]], sort_keys=True)
        for name, group in content["groups"].items()
    }


def _holds(content: Any, **kinds: Any) -> bool:
    """Return True for a mapping that has entries of the given kinds."""
    return isinstance(content, Mapping) and all(
        name in content and isinstance(content[name], kind) for name, kind in kinds.items()
    )
