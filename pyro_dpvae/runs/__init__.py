"""Run folders: a configuration, records and checkpoints, each written whole or not at all."""

from pyro_dpvae.runs.changes import CHANGEABLE
from pyro_dpvae.runs.checkpoint import AVERAGE, Checkpoint, Stateful
from pyro_dpvae.runs.folder import RunFolder
from pyro_dpvae.runs.packing import pack, unpack

__all__ = ["AVERAGE", "CHANGEABLE", "Checkpoint", "RunFolder", "Stateful", "pack", "unpack"]
