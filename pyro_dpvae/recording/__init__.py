"""Programs as graphs: a function of tensors recorded once, and replayed in place of its Python."""

from pyro_dpvae.recording.fingerprint import Fingerprint, differences, fingerprint, modules_of
from pyro_dpvae.recording.graph import NotRecordableError, Recording, record
from pyro_dpvae.recording.trial import agree, untouched

__all__ = [
    "Fingerprint",
    "NotRecordableError",
    "Recording",
    "agree",
    "differences",
    "fingerprint",
    "modules_of",
    "record",
    "untouched",
]
