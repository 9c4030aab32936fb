"""Capture of programs: record a function of tensors once, and replay it without its Python."""

from pyro_dpvae.recording.graph import (
    NotRecordableError,
    Recording,
    compile_checked,
    reason,
    record,
)
from pyro_dpvae.recording.guards import Guards, State, differences, surroundings
from pyro_dpvae.recording.rollback import Attributes, agree, rollback, rollback_modules

__all__ = [
    "Attributes",
    "Guards",
    "NotRecordableError",
    "Recording",
    "State",
    "agree",
    "compile_checked",
    "differences",
    "reason",
    "record",
    "rollback",
    "rollback_modules",
    "surroundings",
]
