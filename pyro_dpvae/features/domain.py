"""Domain network: features of a small classifier of the data set."""

import hashlib
from pathlib import Path
from typing import final

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._files import read_tensors, write_whole
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.data import shades
from pyro_dpvae.features.base import AbstractFeatures

__all__ = ["DomainFeatures", "train_domain_network"]

_FEATURES = 128


@final
class DomainFeatures(AbstractFeatures):
    """The last hidden layer, of 128 units, of a convolutional classifier of images.

    Distances in its feature space measure how samples differ from the data in what distinguishes
    the classes. They are not FID: the network is named after the data set and its weights.

    Args:
        data: name of the data set.
        channels: number of channels of the images.
        classes: number of classes.
    """

    def __init__(self, data: str, *, channels: int, classes: int) -> None:
        super().__init__()
        self.data, self.classes = data, check_positive_int("classes", classes)
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
        )
        self.hidden = nn.Linear(64 * 16, _FEATURES)
        self.classify = nn.Linear(_FEATURES, classes)
        self.to(memory_format=torch.channels_last)  # pooling is far faster so on a CPU
        self._named()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, of shape (batch, 128)."""
        images = images.contiguous(memory_format=torch.channels_last)
        return relu(self.hidden(self.convolutions(images).flatten(1)))

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, with the names of data and classes as metadata."""
        metadata = {"data": self.data, "classes": str(self.classes)}
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        write_whole(path, save(state, metadata))

    @classmethod
    def load(cls, path: Path, data: str) -> "DomainFeatures":
        """Load a network that :meth:`save` wrote."""
        state = read_tensors(path)
        network = cls(
            data,
            channels=state["convolutions.0.weight"].shape[1],
            classes=len(state["classify.bias"]),
        )
        network.load_state_dict(state)
        network._named()
        return network

    def _named(self) -> None:
        digest = hashlib.sha256()
        for tensor in self.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        self.name = f"{self.data}-classifier-{digest.hexdigest()[:8]}"
        self.settings = {"network": self.name, "resize": "none"}


def train_domain_network(
    name: str,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> DomainFeatures:
    """Train a classifier on labelled images, for its features.

    Args:
        name: name of the data set.
        images: the training split, uint8 levels or float32 shades of shape (count, channels,
            height, width).
        labels: the class of each image, of shape (count,); any integers.
        epochs: number of epochs, with Adam at 1e-3 and batches of 128.
        seed: random seed of weights and order.
        progress: show a progress bar.

    Raises:
        ValueError: if images and labels do not fit each other.
    """
    if (
        images.dim() != 4
        or images.dtype not in (torch.uint8, torch.float32)
        or labels.shape != (len(images),)
    ):
        raise ValueError(
            "a domain network needs uint8 or float32 images (count, channels, height, "
            f"width) and a label for each, got {images.dtype} "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    found, labels = labels.unique(return_inverse=True)
    if len(found) < 2:
        raise ValueError(f"a domain network needs at least two classes, got {found.tolist()}")
    with forked_rng(seed):
        network = DomainFeatures(name, channels=images.shape[1], classes=len(found))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        order = [torch.randperm(len(images)).split(128) for _ in range(epochs)]
        bar = progress_bar(
            [chosen for epoch in order for chosen in epoch],
            f"domain network of {name}",
            unit="step",
            disable=not progress,
        )
        network.train()
        for chosen in bar:
            logits = network.classify(network(shades(images[chosen])))
            loss = cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network._named()
    return network.eval()
