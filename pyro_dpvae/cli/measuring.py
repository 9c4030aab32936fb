"""Measuring a run with the settings of a command line."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_dpvae.evaluation import EvaluationConfig, Subject, evaluate_run
from pyro_dpvae.evaluation.config import default_cache
from pyro_dpvae.recipes import Run

__all__ = ["measure"]


def measure(
    saved: Run, options: Namespace, *, source: str | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """Measure a run with the settings of parsed options, and keep the metrics in its folder.

    Args:
        saved: the run, opened.
        options: parsed; they have ``root`` and the fields of ``EvaluationConfig``.
        source: the file or folder of the run's data, if it has moved.

    Returns:
        The metrics by name, each a value with its standard error and settings.
    """
    given = {one.name: options[one.name] for one in fields(EvaluationConfig)}
    cache = Path(options.cache) if options.cache else default_cache()
    config = EvaluationConfig(**{**given, "cache": cache})
    subject = Subject(saved, saved.load_data(options.root, source=source), config)
    groups = None
    if options.metrics is not None:
        groups = [name.strip() for name in options.metrics.split(",")]
    return evaluate_run(subject, groups)
