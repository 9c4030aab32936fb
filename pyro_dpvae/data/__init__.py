"""Data sets by name, file or folder, and batches of them."""

from pyro_dpvae.data.batches import Batches, own_batches
from pyro_dpvae.data.dataset import DataSet, Split
from pyro_dpvae.data.preprocessing import PREPROCESSING, to_unit
from pyro_dpvae.data.registry import DATA_SETS, load

__all__ = [
    "DATA_SETS",
    "PREPROCESSING",
    "Batches",
    "DataSet",
    "Split",
    "load",
    "own_batches",
    "to_unit",
]
