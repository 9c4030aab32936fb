"""A VAE of pythae with the networks of an archive: its training steps and importance sampling.

``python pythae_vae.py ARCHIVE`` answers requests, as ``serve.py`` says; ``numpyro_vae.py``
describes the archive. pythae has no other prior than N(0, I).
"""

import sys
from tempfile import TemporaryDirectory

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler
from serve import serve
from torch import Tensor, nn

torch.set_num_threads(1)
archive = dict(np.load(sys.argv[1]))
x, noise = torch.from_numpy(archive["x"]), torch.from_numpy(archive["noise"])


def network(name: str) -> nn.Sequential:
    """Return a network of the archive."""
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in archive)
    modules: list[nn.Module] = []
    for number in range(count):
        weight, bias = (archive[f"{name}.{number}.{key}"] for key in ("weight", "bias"))
        layer = nn.Linear(*reversed(weight.shape))
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        modules += [layer] if number == 0 else [nn.ReLU(), layer]
    return nn.Sequential(*modules)


class Encoder(BaseEncoder):
    """x -> the mean and the logarithm of the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network("encoder")

    def forward(self, x: Tensor) -> ModelOutput:
        """Return the parameters of q(z | x)."""
        mean, log_variance = self.network(x).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """z -> the probabilities of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network("decoder")

    def forward(self, z: Tensor) -> ModelOutput:
        """Return the probabilities."""
        return ModelOutput(reconstruction=self.network(z).sigmoid())


def build() -> VAE:
    """Return the model with its initial weights."""
    config = VAEConfig(
        input_dim=(x.shape[1],), latent_dim=noise.shape[1], reconstruction_loss="bce"
    )
    return VAE(config, encoder=Encoder(), decoder=Decoder())


class Batch(list):
    """What the trainer takes for a data loader: one batch."""

    dataset = x


model, untrained = build(), build()
with TemporaryDirectory() as folder:
    configuration = BaseTrainerConfig(output_dir=folder, learning_rate=1e-4, no_cuda=True)
    dataset = BaseDataset(x, torch.zeros(len(x)))
    trainer = BaseTrainer(model, dataset, training_config=configuration)
trainer.set_optimizer()
trainer.callback_handler = CallbackHandler([], model)
trainer.train_loader = Batch([{"data": x}])


def take_steps(count: int) -> list[float]:
    """Take steps by the trainer's own loop, and return their losses, summed over the batch."""
    return [len(x) * trainer.train_step(epoch=1) for _ in range(count)]


@torch.no_grad()
def terms() -> dict[str, list[float]]:
    """Return the initial log p(x | z) and the rate, of which pythae says the batch's mean."""
    encoded = untrained.encoder(x)
    mean, log_variance = encoded.embedding, encoded.log_covariance
    z = mean + (log_variance / 2).exp() * noise
    reconstruction = untrained.decoder(z).reconstruction
    _, distortion, rate = untrained.loss_function(reconstruction, x, mean, log_variance, z)
    return {"x": [-float(distortion)], "rate": [float(rate)]}


@torch.no_grad()
def log_evidence(count: int, samples: int, chunk: int) -> list[float]:
    """Return estimates of log p(x) of the first image."""
    image = x[:1]
    return [
        float(untrained.get_nll(image, n_samples=samples, batch_size=chunk)) for _ in range(count)
    ]


if __name__ == "__main__":
    serve({"terms": terms, "steps": take_steps, "log_evidence": log_evidence})
