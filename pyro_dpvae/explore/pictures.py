"""Data in the form that the page shows: images as PNG, points and vectors as numbers."""

import base64
import io
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.data import to_unit
from pyro_dpvae.decoders import images
from pyro_dpvae.explore.state import Explored

__all__ = ["decoded", "decodes_to_means", "numbers", "png", "shown"]


def decoded(run: Explored, z: Float[Tensor, " latent"]) -> Tensor:
    """Decode z; images have grey values in [0, 1].

    Returns the mean of p(x | z), or a sample with a fixed seed where the mean is not tractable.
    """
    with torch.no_grad(), forked_rng(0):
        x = images(run.decoder, z.to(run.device)[None])
    return to_unit(x, run.preprocessing)[0].cpu()


def decodes_to_means(run: Explored) -> bool:
    """Return True if :func:`decoded` returns means, False for samples."""
    with torch.no_grad():
        try:
            run.decoder(torch.zeros(1, run.latent_dim, device=run.device)).mean  # noqa: B018
        except NotImplementedError:
            return False
    return True


def shown(x: Tensor) -> dict[str, Any]:
    """Return data for the page: ``{"image": a data: address}`` or ``{"values": ...}``."""
    if x.dim() == 3:
        return {"image": "data:image/png;base64," + base64.b64encode(png(x)).decode()}
    return {"values": numbers(x.mT.flatten() if x.dim() == 2 else x)}  # one feature after another


def png(image: Float[Tensor, "channels height width"]) -> bytes:
    """Return an image with 1 or 3 channels and values in [0, 1] as an 8-bit PNG."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels).save(file, "PNG")
    return file.getvalue()


def numbers(values: Tensor) -> Any:
    """Return numbers for JSON with the digits of 32-bit numbers; None if not finite.

    Example:
        >>> numbers(torch.tensor([0.1, -torch.inf]))
        [0.1, None]
    """
    return _listed(values.float().numpy())


def _listed(values: Any) -> Any:
    if np.ndim(values):
        return [_listed(value) for value in values]
    return float(str(np.float32(values))) if np.isfinite(values) else None
