"""Programs as graphs: a function of tensors recorded once, and replayed in place of its Python."""

from pyro_dpvae.recording.graph import NotRecordableError, Recording, reason
from pyro_dpvae.recording.survey import (
    Fingerprint,
    Reach,
    Survey,
    differences,
    surroundings,
    survey,
)
from pyro_dpvae.recording.trial import (
    agree,
    check_replay,
    compile_checked,
    record_aside,
    untouched,
)

__all__ = [
    "Fingerprint",
    "NotRecordableError",
    "Reach",
    "Recording",
    "Survey",
    "agree",
    "check_replay",
    "compile_checked",
    "differences",
    "reason",
    "record_aside",
    "surroundings",
    "survey",
    "untouched",
]
