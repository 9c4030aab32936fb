"""Perceptrons of a vector and a context that every unit sees."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pyro_dpvae._checks import check_positive_int
from pyro_dpvae.nn.activations import elu
from pyro_dpvae.nn.batched import at_least_float32

__all__ = ["ConditionedPerceptron", "OneByOne", "autoregressive_masks"]

# Factor of the last layer's weights, so that outputs start near zero but gradients flow.
_INITIAL = 0.01


@final
class ConditionedPerceptron(nn.Module):
    """A perceptron (z, h) -> y with ELUs, whose first layer is W z + V h + b.

    Masks apply only to the weights of z and of hidden units, so that h reaches every unit.
    Optionally there is no h, or a linear map of z is added to the output, past the hidden layers.
    The output starts near zero. In a precision below float32, as under ``torch.autocast``, it is
    returned in float32.

    Args:
        sizes: sizes of z, of the hidden layers, and of y.
        context: size of h; 0 for a function of z alone.
        masks: for each layer, which inputs each unit sees, of shape (units, inputs); None is all.
        direct: which inputs each output sees by the added linear map, of shape (outputs, inputs);
            None adds no such map.

    Raises:
        ValueError: if a size is below 1, there is no hidden layer, or masks do not fit the sizes.

    References:
        Germain, Gregor, Murray, Larochelle (2015), MADE, section 3.2: the masks, and equation 14:
        direct connections. Kingma et al.
        (2016), Improved variational inference with inverse autoregressive flow, section 4: the
        context.

    Example:
        >>> network = ConditionedPerceptron([2, 8, 3], context=4)
        >>> network(torch.zeros(7, 5, 2), network.of_context(torch.zeros(5, 4))).shape
        torch.Size([7, 5, 3])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        context: int,
        masks: Sequence[Bool[Tensor, "_ _"]] | None = None,
        direct: Bool[Tensor, "_ _"] | None = None,
    ) -> None:
        super().__init__()
        for size in sizes:
            check_positive_int("every width of the network", size)
        if len(sizes) < 3:
            raise ValueError(
                "the network has no hidden layer, in which z and the context meet; set hidden to "
                "at least one width"
            )
        shapes = [(outputs, inputs) for inputs, outputs in pairwise(sizes)]
        if masks is not None and [tuple(mask.shape) for mask in masks] != shapes:
            raise ValueError(
                f"masks must have the shapes {shapes} of the weights, got "
                f"{[tuple(mask.shape) for mask in masks]}"
            )
        layers = [
            _MaskedLinear(inputs, outputs, mask=None if masks is None else masks[number])
            for number, (outputs, inputs) in enumerate(shapes)
        ]
        self.layers = nn.ModuleList(layers)
        self.context = None
        if context != 0:
            size = check_positive_int("context", context)
            self.context = nn.Linear(size, sizes[1], bias=False)
        self.direct = None
        if direct is not None:
            self.direct = _MaskedLinear(sizes[0], sizes[-1], mask=direct, bias=False)
        with torch.no_grad():
            layers[-1].weight.mul_(_INITIAL)
            layers[-1].bias.zero_()
            if self.direct is not None:
                self.direct.weight.mul_(_INITIAL)

    def of_context(self, h: Float[Tensor, "*batch context"]) -> Float[Tensor, "*batch units"]:
        """Return V h, the context's part of the first layer, to share it between calls.

        Raises:
            ValueError: if the network has no context.
        """
        if self.context is None:
            raise _without_context()
        return self.context(h)

    def check_context_part(self, context_part: Tensor | None) -> None:
        """Refuse a context where the network has none, and none where it has one.

        Raises:
            ValueError: for either.
        """
        if self.context is None and context_part is not None:
            raise _without_context()
        if self.context is not None and context_part is None:
            raise ValueError(
                f"a network with a context of size {self.context.in_features} needs it on every "
                "call, got none; give it, or build the network with context=0"
            )

    def forward(
        self,
        z: Float[Tensor, "*batch inputs"],
        context_part: Float[Tensor, "*#batch units"] | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """Return y of z and ``of_context(h)``, which broadcasts against z.

        Raises:
            ValueError: if exactly one of network and call has a context.
        """
        self.check_context_part(context_part)
        first, *others = self.layers
        y = first(z) if context_part is None else first(z) + context_part
        for layer in others:
            y = layer(elu(y))
        if self.direct is not None:
            y = y + self.direct(z)
        return at_least_float32(y)


@final
class OneByOne:
    """The outputs of an autoregressive network, one coordinate of z after another.

    Each hidden unit is computed once, as soon as the coordinates that it sees are known, so that
    all outputs take the time of one pass. Tensors are (units, n) here, for n data.

    Args:
        network: with masks of :func:`autoregressive_masks`.
        order: the coordinates, first to last.
        context_part: of the first layer, of shape (n, units).
    """

    def __init__(
        self,
        network: ConditionedPerceptron,
        order: Sequence[int],
        context_part: Float[Tensor, "n units"] | None,
    ) -> None:
        network.check_context_part(context_part)
        *hidden, last = [cast(nn.Linear, layer) for layer in network.layers]
        self._size, places = len(order), list(order)
        self._layers = [(layer.weight, layer.bias) for layer in hidden]
        self._layers[0] = (hidden[0].weight[:, places], hidden[0].bias)
        self._last = last.weight.unflatten(0, (-1, self._size))[:, places]
        self._outputs = len(self._last)
        self._last = self._last.transpose(0, 1).flatten(0, 1)
        self._rest = last.bias.unflatten(0, (-1, self._size))[:, places].T.reshape(-1, 1)
        self._direct = None
        if network.direct is not None:
            weight = network.direct.weight.unflatten(0, (-1, self._size))
            self._direct = weight[:, places][:, :, places]
        self._context_part = None if context_part is None else context_part.T
        self._units: list[tuple[Tensor, int]] = []  # and how many are known

    def outputs(self, found: Float[Tensor, "i n"]) -> Float[Tensor, "outputs n"]:
        """Return the outputs of the next coordinate, given the i before it in the order.

        To be asked for i = 0, 1, 2 ... in turn.
        """
        i, y, new = len(found), found, found
        for number, (weight, bias) in enumerate(self._layers):
            start, stop = (-(-place * len(weight) // self._size) for place in (i, i + 1))
            if number > 0:
                y = self._joined(number - 1, weight.shape[1], new)
            new = torch.addmm(bias[start:stop, None], weight[start:stop, : len(y)], y)
            if number == 0 and self._context_part is not None:
                new = new + self._context_part[start:stop]
            new = elu(new)
        # The new units' part of all outputs to come: a product for each output alone would read
        # all units again.
        rest = self._rest.expand(-1, found.shape[1])
        rest = torch.addmm(rest, self._last[i * self._outputs :, start:stop], new)
        result, self._rest = rest.split([self._outputs, len(rest) - self._outputs])
        if self._direct is not None:
            result = result + self._direct[:, i, :i] @ found
        return at_least_float32(result)

    def _joined(self, number: int, width: int, new: Tensor) -> Tensor:
        """Return the units of a layer known before, followed by new ones."""
        if number == len(self._units):
            self._units.append((new.new_empty(width, new.shape[1]), 0))
        units, start = self._units[number]
        stop = start + len(new)
        if torch.is_grad_enabled():  # products keep the units before for the gradient
            units = torch.cat([units[:start], new])
        else:
            units[start:stop] = new
        self._units[number] = units, stop
        return units[:stop]


def _without_context() -> ValueError:
    return ValueError(
        "a network built with context=0 takes no context, got one; pass None, or build the "
        "network with the context's size"
    )


@final
class _MaskedLinear(nn.Linear):
    """A linear layer whose weights are multiplied with a mask."""

    mask: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, *, mask: Tensor | None, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return nn.functional.linear(y, weight, self.bias)


def autoregressive_masks(
    size: int, hidden: Sequence[int], *, outputs: int, backwards: bool = False
) -> list[Bool[Tensor, "_ _"]]:
    """Return masks with which the outputs of coordinate i see only coordinates before i.

    Each hidden unit has a number m from 0 to L - 1, evenly spread over the layer. It sees the
    first m coordinates, and units with numbers up to m. Units with number 0 see only the context;
    the outputs of the first coordinate depend on them.

    Args:
        size: number L of coordinates.
        hidden: widths of the hidden layers; empty for the mask of direct connections.
        outputs: number of outputs per coordinate; the first L outputs are one of each.
        backwards: reverse the order of coordinates.

    References:
        Germain, Gregor, Murray, Larochelle (2015), MADE, equations 8 and 9, where m starts at 1.

    Example:
        >>> first, last = autoregressive_masks(2, (2,), outputs=1)
        >>> (last.int() @ first.int()).tolist()
        [[0, 0], [1, 0]]
    """
    ranks = torch.arange(size)
    if backwards:
        ranks = ranks.flip(0)
    masks, seen = [], ranks + 1  # coordinate i is seen by units with numbers above i
    for width in hidden:
        check_positive_int("every width of hidden", width)
        numbers = torch.arange(width) * size // width
        masks.append(numbers[:, None] >= seen)
        seen = numbers
    masks.append(ranks.repeat(outputs)[:, None] >= seen)
    return masks
