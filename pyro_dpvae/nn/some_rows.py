"""A network evaluated only at the rows that need it, also in a replayed graph."""

from weakref import WeakValueDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["at_some_rows"]

# Operations take tensors and numbers, so a network is passed by its id.
_networks: "WeakValueDictionary[int, nn.Module]" = WeakValueDictionary()


@torch.no_grad()
def at_some_rows(
    network: nn.Module,
    rows: Float[Tensor, "rows inputs"],
    needed: Bool[Tensor, " rows"],
    *,
    like: Float[Tensor, "_ ..."],
) -> Float[Tensor, "rows ..."]:
    """Return a network's values at the needed rows, and zeros for the others, without gradients.

    How many rows are needed may differ from replay to replay of a recorded graph, which sees one
    operation. On a GPU, where the selection would have to wait, all rows are evaluated.

    Args:
        network: (rows, inputs) -> (rows, *out), row by row.
        rows: its inputs.
        needed: the rows to evaluate.
        like: values of the network, of any number of rows, for their shape and dtype.

    Example:
        >>> network = nn.Linear(2, 1)
        >>> like = network(torch.zeros(1, 2))
        >>> needed = torch.tensor([True, False])
        >>> at_some_rows(network, torch.ones(2, 2), needed, like=like)[1]
        tensor([0.])
    """
    _networks[id(network)] = network
    state = [*network.parameters(), *network.buffers()]
    return _at_some_rows(rows, needed, like, state, id(network))


@torch.library.custom_op("pyro_dpvae::at_some_rows", mutates_args=())
def _at_some_rows(
    rows: Tensor, needed: Tensor, like: Tensor, state: list[Tensor], network: int
) -> Tensor:
    module = _networks[network]
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    tensors = dict(zip(names, state, strict=True))
    if rows.device.type != "cpu":
        return functional_call(module, tensors, (rows,)).contiguous()
    values = like.new_zeros((len(rows), *like.shape[1:]))
    places = needed.nonzero().squeeze(-1)
    if len(places):
        values[places] = functional_call(module, tensors, (rows[places],))
    return values


@_at_some_rows.register_fake
def _(rows: Tensor, needed: Tensor, like: Tensor, state: list[Tensor], network: int) -> Tensor:
    return like.new_empty((len(rows), *like.shape[1:]))
