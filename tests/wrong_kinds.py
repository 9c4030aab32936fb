"""Things of the wrong kind, and what the library says of them: ``python -m tests.wrong_kinds``.

It runs outside of the tests, where annotations are checked before the library is asked.
"""

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_dpvae import VAE, Decoder, GaussianEncoder, RegularizedELBO, StandardNormal
from pyro_dpvae.data import Batches
from pyro_dpvae.likelihoods import AbstractLikelihood, GaussianLikelihood
from pyro_dpvae.nn import Batched
from pyro_dpvae.training import TrainConfig, fit


def decoder() -> Decoder:
    network = Batched(nn.Linear(2, 3), in_shape=(2,), out_shape=(3,))
    return Decoder(network, GaussianLikelihood((3,)))


def fitted(**changed: Any) -> Callable[[], object]:
    data = torch.rand(20, 3)
    batches = Batches(data, batch_size=4, preprocessing="none")
    parts = {
        "model": nn.Linear(1, 1),
        "guide": nn.Linear(1, 1),
        "objective": RegularizedELBO(),
        "train": batches,
        "test": batches,
    }
    return lambda: fit(**{**parts, **changed}, config=TrainConfig(steps=1))


class WithoutRule(AbstractLikelihood):
    scale: ClassVar[float] = 1.0

    def pixels(self, raw: Tensor) -> dist.Normal:
        return dist.Normal(raw, self.scale)


LOADER = DataLoader(TensorDataset(torch.rand(20, 3)))


CASES: dict[str, Callable[[], object]] = {
    "model": fitted(model=lambda x: x),
    "guide": fitted(guide=lambda x: x),
    "objective": fitted(objective=Trace_ELBO()),
    "train": fitted(train=LOADER.dataset),
    "test": fitted(test=[torch.rand(4, 3)]),
    "loader": lambda: Batches(LOADER, batch_size=4, preprocessing="none"),  # type: ignore[arg-type]
    "named": lambda: Batches([{"x": torch.rand(3)}], batch_size=1, preprocessing="none"),  # type: ignore[arg-type]
    "decoder": lambda: VAE(StandardNormal(2), lambda z: z),  # type: ignore[arg-type]
    "network": lambda: GaussianEncoder(lambda x: x, 2, in_shape=(2,)),  # type: ignore[arg-type]
    "prior": lambda: VAE(dist.Normal(0.0, 1.0), decoder()),  # type: ignore[arg-type]
    "likelihood": lambda: WithoutRule((3,)),
}


def message_of(make: Callable[[], object]) -> str:
    try:
        make()
    except TypeError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    print(json.dumps({name: message_of(make) for name, make in CASES.items()}))
