"""Domain network: features of a small classifier of the data set."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import final

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from pyro_dpvae._bars import bar as progress_bar
from pyro_dpvae._checks import check_positive_int
from pyro_dpvae._files import read_metadata, read_tensors, write_whole
from pyro_dpvae._randomness import forked_rng
from pyro_dpvae.data import shades
from pyro_dpvae.features.base import AbstractFeatures

__all__ = ["DomainFeatures", "train_domain_network"]

_FEATURES = 128
_BATCH, _STEPS, _PATIENCE, _HELD_OUT = 128, 50, 6, 2000


@final
class DomainFeatures(AbstractFeatures):
    """The last hidden layer, of 128 units, of a convolutional classifier of images.

    Distances in its feature space measure how samples differ from the data in what distinguishes
    the classes. They are not FID: the network is named after the data set and its weights. Data
    with factors of variation instead of one label have a classifier of each factor; all share the
    hidden layers.

    Args:
        data: name of the data set.
        channels: number of channels of the images.
        classes: number of classes of the label, or of each factor.
        accuracy: its accuracy on held-out images, the mean over factors; 0 before it is trained.
    """

    def __init__(
        self, data: str, *, channels: int, classes: Sequence[int], accuracy: float = 0.0
    ) -> None:
        super().__init__()
        self.data, self.accuracy = data, accuracy
        self.classes = tuple(check_positive_int("classes", one) for one in classes)
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
        )
        self.hidden = nn.Linear(64 * 16, _FEATURES)
        self.classify = nn.Linear(_FEATURES, sum(self.classes))
        self.to(memory_format=torch.channels_last)  # pooling is far faster so on a CPU
        self._named()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, of shape (batch, 128)."""
        images = images.contiguous(memory_format=torch.channels_last)
        return relu(self.hidden(self.convolutions(images).flatten(1)))

    def logits(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of each factor's classes, of shape (batch, classes)."""
        logits: tuple[Tensor, ...] = self.classify(self(images)).split(self.classes, -1)
        return logits

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, with classes and accuracy as metadata."""
        metadata = {"classes": json.dumps(self.classes), "accuracy": str(self.accuracy)}
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        write_whole(path, save(state, metadata))

    @classmethod
    def load(cls, path: Path, data: str) -> "DomainFeatures":
        """Load a network that :meth:`save` wrote."""
        state, metadata = read_tensors(path), read_metadata(path)
        network = cls(
            data,
            channels=state["convolutions.0.weight"].shape[1],
            classes=json.loads(metadata["classes"]),
            accuracy=float(metadata["accuracy"]),
        )
        network.load_state_dict(state)
        network._named()
        return network

    def _named(self) -> None:
        digest = hashlib.sha256()
        for tensor in self.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        self.name = f"{self.data}-classifier-{digest.hexdigest()[:8]}"
        self.settings = {
            "network": self.name,
            "network_accuracy": round(self.accuracy, 4),
            "resize": "none",
        }


def train_domain_network(
    name: str,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 5000,
    seed: int = 0,
    progress: bool = True,
) -> DomainFeatures:
    """Train a classifier on labelled images, for its features.

    A tenth of the images, at most 2,000, is held out. After every 50 steps the classifier is
    tested on them, and training ends after six tests in a row without an accuracy that is better
    by more than its standard error. With several factors the loss is the sum of their losses, and
    the accuracy the mean of their accuracies.

    Args:
        name: name of the data set.
        images: the training split, uint8 levels or float32 shades of shape (count, channels,
            height, width).
        labels: the class of each image, of shape (count,), or of each factor of each image, of
            shape (count, factors); any integers.
        steps: the largest number of steps, with Adam at 1e-3 and batches of 128.
        seed: random seed of weights, order and held-out images.
        progress: show a progress bar.

    Raises:
        ValueError: if images and labels do not fit each other.
    """
    if (
        images.dim() != 4
        or images.dtype not in (torch.uint8, torch.float32)
        or labels.dim() not in (1, 2)
        or len(labels) != len(images)
    ):
        raise ValueError(
            "a domain network needs uint8 or float32 images (count, channels, height, "
            f"width) and a label or a row of factors for each, got {images.dtype} "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    classes, targets = [], []
    for column in labels.reshape(len(labels), -1).unbind(1):
        found, target = column.unique(return_inverse=True)
        if len(found) < 2:
            raise ValueError(f"a domain network needs at least two classes, got {found.tolist()}")
        classes.append(len(found))
        targets.append(target)
    labels = torch.stack(targets, 1)
    with forked_rng(seed):
        network = DomainFeatures(name, channels=images.shape[1], classes=classes)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        held_out = min(math.ceil(len(images) / 10), _HELD_OUT)
        test, train = torch.randperm(len(images)).split([held_out, len(images) - held_out])
        batches, best, tests = _endless(train), -math.inf, 0
        bar = progress_bar(
            range(0, steps, _STEPS), f"domain network of {name}", unit="test", disable=not progress
        )
        for first in bar:
            network.train()
            for chosen in islice(batches, min(_STEPS, steps - first)):
                logits = network.logits(shades(images[chosen]))
                losses = map(cross_entropy, logits, labels[chosen].unbind(1))
                optimizer.zero_grad()
                torch.stack([*losses]).sum().backward()
                optimizer.step()
            network.eval().accuracy = accuracy = _accuracy(network, images, labels, test)
            tests += 1
            if accuracy > best + math.sqrt(accuracy * (1 - accuracy) / held_out):
                best, tests = accuracy, 0
            if tests == _PATIENCE:
                break
    network._named()
    return network.eval()


def _endless(indices: Tensor) -> Iterator[Tensor]:
    while True:
        yield from indices[torch.randperm(len(indices))].split(_BATCH)


def _accuracy(network: DomainFeatures, images: Tensor, labels: Tensor, chosen: Tensor) -> float:
    with torch.no_grad():
        right = [
            torch.stack([one.argmax(-1) for one in network.logits(shades(images[some]))], 1)
            == labels[some]
            for some in chosen.split(_BATCH)
        ]
    return float(torch.cat(right).double().mean())
