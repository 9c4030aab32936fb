"""Networks: tensors in, tensors out; nothing here knows of distributions."""

from pyro_dpvae.nn.architectures import ARCHITECTURES, Architecture, default_architecture
from pyro_dpvae.nn.batched import Batched

__all__ = ["ARCHITECTURES", "Architecture", "Batched", "default_architecture"]
