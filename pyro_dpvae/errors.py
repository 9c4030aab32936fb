"""Errors and warnings by what has caused them.

Each error is also of the kind that Python has for it, such as ``ValueError``. Wrong arguments of
functions remain ``ValueError`` and ``TypeError``.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConfigWarning",
    "DataError",
    "DataWarning",
    "DpvaeError",
    "DpvaeWarning",
    "EagerWarning",
    "EvaluationWarning",
    "MissingDataError",
    "ReaderError",
    "TrainingWarning",
    "UnsupportedError",
]


class DpvaeError(Exception):
    """An error whose cause is in data, a configuration, a checkpoint or a combination of parts."""


class CheckpointError(DpvaeError, ValueError):
    """A checkpoint is damaged, belongs to another run, or does not fit what loads it."""


class ConfigError(DpvaeError, ValueError):
    """A configuration has an unknown option or a wrong value, or would change an existing run."""


class DataError(DpvaeError, ValueError):
    """Data cannot be read, or their values, shape or labels are not as required."""


class MissingDataError(DataError, FileNotFoundError):
    """Data are not where they are looked for."""


class ReaderError(DataError, OSError):
    """A process that reads data has ended."""


class UnsupportedError(DpvaeError, ValueError):
    """Parts, each of them valid, do not work together."""


class DpvaeWarning(UserWarning):
    """A warning of this library; ``warnings.simplefilter`` chooses what becomes of its kinds."""


class ConfigWarning(DpvaeWarning):
    """The configuration file of a run has changed while the run trains."""


class DataWarning(DpvaeWarning):
    """Data, labels or splits are taken in a way that may not be meant."""


class EagerWarning(DpvaeWarning):
    """Steps or samples run slower than asked for, because they cannot be recorded or compiled."""


class EvaluationWarning(DpvaeWarning):
    """A metric is left out, or rests on few data."""


class TrainingWarning(DpvaeWarning):
    """Training skips steps, or its schedules do not fit its length."""
