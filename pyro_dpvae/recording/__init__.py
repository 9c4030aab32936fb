"""Programs as graphs: a function of tensors recorded once, and replayed in place of its Python."""

from pyro_dpvae.recording.fingerprint import (
    Fingerprint,
    differences,
    fingerprint,
    modules_of,
    surroundings,
)
from pyro_dpvae.recording.graph import NotRecordableError, Recording, reason, record
from pyro_dpvae.recording.trial import agree, check_replay, untouched

__all__ = [
    "Fingerprint",
    "NotRecordableError",
    "Recording",
    "agree",
    "check_replay",
    "differences",
    "fingerprint",
    "modules_of",
    "reason",
    "record",
    "surroundings",
    "untouched",
]
