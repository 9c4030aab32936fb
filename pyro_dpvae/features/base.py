"""The base class of feature networks, and the Inception network of FID."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._subsets import as_batches
from pyro_dpvae.nn.modes import in_evaluation

__all__ = ["AbstractFeatures", "InceptionFeatures", "extract", "inception_weights"]


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


def inception_weights(path: str | Path | None = None, *, download: bool = False) -> Path:
    """Return the path of the weights of the FID network.

    Args:
        path: file of the weights; by default in torch.hub's cache, where pytorch-fid stores them.
        download: download them to the cache if they are missing (91 MB).

    Raises:
        FileNotFoundError: if they do not exist.
    """
    from pytorch_fid.inception import FID_WEIGHTS_URL

    file = FID_WEIGHTS_URL.rsplit("/", 1)[-1]
    place = Path(path) if path is not None else Path(torch.hub.get_dir()) / "checkpoints" / file
    if not place.is_file() and path is None and download:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(place), progress=True)
    if not place.is_file():
        raise FileNotFoundError(
            f"the weights of FID's Inception network are missing: {place} does not exist; set "
            f"inception to the file, or download=True to fetch {file} (91 MB), or use the group "
            "'domain'"
        )
    return place


@final
class InceptionFeatures(AbstractFeatures):
    """The 2048 pooled features of the Inception network that defines FID.

    Images are resized bilinearly to 299 x 299, and grey images repeated for three channels.

    Args:
        weights: the file of pytorch-fid's weights, from :func:`inception_weights`.

    Raises:
        ValueError: if the file has other content.

    References:
        Heusel et al. (2017), GANs trained by a two time-scale update rule. Szegedy et al.
        (2016), Rethinking the Inception architecture.
    """

    def __init__(self, weights: str | Path) -> None:
        from pytorch_fid import inception  # imports torchvision, which takes seconds

        super().__init__()
        digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:8]
        self.name = f"inception-{digest}"
        # pytorch-fid downloads weights while it builds the network; here they come from the file.
        original = inception.load_state_dict_from_url
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            inception.load_state_dict_from_url = lambda *_args, **_kwargs: state
            self.network: Any = inception.InceptionV3([3], requires_grad=False)
        except Exception as error:  # a file of another kind fails in many ways
            raise ValueError(
                f"{weights} does not hold the weights of pytorch-fid's Inception network: "
                f"{f'{error}'.splitlines()[:1]}"
            ) from error
        finally:
            inception.load_state_dict_from_url = original
        self.settings = {"network": self.name, "resize": "299x299 bilinear", "grey": "repeated"}

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, of shape (batch, 2048)."""
        (features,) = self.network(images.expand(-1, 3, -1, -1))
        return features.flatten(1)
