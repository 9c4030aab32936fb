"""He's initial weights keep the size of a signal; PyTorch's own do not."""

import pytest
import torch
from torch import nn

from pyro_dpvae.nn import ARCHITECTURES
from pyro_dpvae.nn.dpvae import he_start


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3000, 3000), (3000,)),
        (nn.Conv2d(400, 300, 4, stride=2), (400, 10, 10)),
        (nn.Conv2d(400, 300, 3), (400, 7, 7)),
        (nn.ConvTranspose2d(800, 300, 3), (800, 9, 9)),
        (nn.ConvTranspose2d(800, 300, 4, stride=2), (800, 9, 9)),
    ],
)
def test_outputs_have_twice_the_mean_square_of_inputs(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = he_start(nn.Sequential(layer, nn.ReLU()))
    outputs = network[0](torch.randn(1, *shape))
    if outputs.ndim == 4:  # outputs at the border have fewer inputs
        outputs = outputs[..., 3:-3, 3:-3] if isinstance(layer, nn.ConvTranspose2d) else outputs
    # Half of the mean square is left after the ReLU: a deep network keeps it.
    assert outputs.square().mean().item() == pytest.approx(2.0, rel=0.1)


def test_a_layer_without_relu_is_left_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    before = network[2].weight.clone()
    he_start(network)
    assert torch.equal(network[2].weight, before)


@pytest.mark.parametrize(("name", "shape"), [("mnist", (1, 28, 28)), ("svhn", (3, 32, 32))])
def test_the_decoders_of_the_paper_start_with_images_that_depend_on_z(
    name: str, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    decoder = ARCHITECTURES[name].decoder(2, shape)
    spread = decoder(torch.randn(200, 2)).std(0).mean().item()
    for module in decoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()  # PyTorch's own
    assert spread > 20 * decoder(torch.randn(200, 2)).std(0).mean().item()
