"""The base class of feature networks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._subsets import as_batches
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["AbstractFeatures", "extract"]


class AbstractFeatures(nn.Module, ABC):
    """A network from images with grey values or colours in [0, 1] to feature vectors.

    Attributes:
        name: name of the network with its weights; metrics of networks with different names are
            not comparable.
        settings: preprocessing of the images, such as the resize.
    """

    name: str
    settings: Mapping[str, int | float | str]

    @abstractmethod
    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Return the features of images."""


def extract(
    network: AbstractFeatures,
    batches: Iterable[Tensor],
    *,
    label: str = "features",
    progress: bool = True,
) -> Iterator[Float[Tensor, "batch features"]]:
    """Yield the features of batches of images, in evaluation mode and on the CPU.

    Raises:
        ValueError: for values outside [0, 1], or tensors that are not images.
    """
    for images in progress_bar(as_batches(batches), label, unit="batch", disable=not progress):
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"features need images (batch, 1 or 3, height, width), got {tuple(images.shape)}"
            )
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"images must have values in [0, 1], got [{low:g}, {high:g}]; clamp or scale them"
            )
        with torch.no_grad(), in_evaluation(network):
            features = network(images).float().cpu()
        yield features
