"""Networks: tensors in, tensors out; nothing here knows of distributions."""

from pyro_dpvae.nn.architectures import ARCHITECTURES, Architecture, default_architecture
from pyro_dpvae.nn.batched import Batched, at_least_float32

__all__ = ["ARCHITECTURES", "Architecture", "Batched", "at_least_float32", "default_architecture"]
