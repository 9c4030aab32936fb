"""The Inception network of FID, with pytorch-fid's weights."""

import hashlib
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from pyro_dpvae.features.base import AbstractFeatures

__all__ = ["InceptionFeatures", "inception_weights"]


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
