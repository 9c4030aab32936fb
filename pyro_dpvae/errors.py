"""Errors by what has caused them, each also of the kind that Python has for it."""

__all__ = ["CheckpointError", "ConfigError", "DataError", "DpvaeError", "UnsupportedError"]


class DpvaeError(Exception):
    """An error whose cause lies in data, a configuration, a checkpoint or a combination of parts.

    Its message says what is required, what was given, and what to do. Wrong arguments of
    functions remain ``ValueError`` and ``TypeError``.
    """


class CheckpointError(DpvaeError, ValueError):
    """A checkpoint that is damaged, belongs to another run, or does not fit what loads it."""


class ConfigError(DpvaeError, ValueError):
    """A configuration that has an unknown option, a wrong value, or another run's values."""


class DataError(DpvaeError, ValueError):
    """Data that cannot be read, or whose values, shape or labels are not as required."""


class UnsupportedError(DpvaeError, ValueError):
    """Parts, each of them valid, that do not work together."""
