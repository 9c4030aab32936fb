"""The products of a step: as recorded, and each by the library that computes it fastest here."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks._alternate import time_of
from benchmarks._peers import Peer, PeerStep
from pyro_dpvae.inference import CapturedSVI
from pyro_dpvae.recording.products import ONEDNN

__all__ = ["HERE", "Floor", "Product", "Products", "rates", "shape_of"]

_aten = torch.ops.aten
_MATRICES = {_aten.mm.default: 0, _aten.addmm.default: 1}  # with the place of the first factor
_RECORDED = (
    *_MATRICES,
    ONEDNN,
    _aten.bmm.default,
    _aten.convolution.default,
    _aten.convolution_backward.default,
)


class Products:
    """The products and convolutions of a recorded step as it calls them, and its optimizer's step.

    Args:
        svi: has recorded one step.
        x: the batch of that step.
    """

    def __init__(self, svi: CapturedSVI, x: Tensor) -> None:
        (recorded,) = svi._recordings
        calls: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, object]]] = []

        class Interpreter(torch.fx.Interpreter):
            def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
                if target in _RECORDED:
                    calls.append((target, args, kwargs))
                return super().call_function(target, args, kwargs)

        with torch.no_grad():
            Interpreter(recorded.recording.graph).run(x, *recorded.recording.held)
        for parameter in recorded.layout.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer: Callable[[], object] = svi.optim.optimizer.step
        self._calls = calls

    @torch.no_grad()
    def __call__(self) -> None:
        """Compute the products and take the optimizer's step."""
        for target, args, kwargs in self._calls:
            target(*args, **kwargs)
        self.optimizer()

    @property
    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """The factors of each product of two matrices."""
        found = []
        for target, args, _ in self._calls:
            if target is ONEDNN:  # which takes the second factor transposed
                found.append((args[0], args[1].t()))
            elif (place := _MATRICES.get(target)) is not None:
                found.append(args[place : place + 2])
        return found


Product = tuple[int, int, int, bool, bool]
"""Sizes m, k, n of (m, k) @ (k, n), and whether the factors are stored transposed."""


def _by_onednn(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    # Its operation for a linear layer takes the weight transposed, and allocates the result.
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")


def _by_torch(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    return torch.mm(a, b, out=out)


HERE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"torch.mm": _by_torch}
"""Products by the libraries of this process, with memory for the result; others are peers'."""
if torch.backends.mkldnn.is_available():
    HERE["oneDNN"] = _by_onednn
_PEERS = ("NumPy", "XLA")

# So many products are timed at once if they are small, each of its own memory: the call and the
# clock then count little, and factors come from the caches as in a step.
_AT_ONCE, _LARGE = 10, 10**8


def shape_of(a: Tensor, b: Tensor) -> Product:
    """Return the shape of the product of two matrices."""
    (m, k), n = a.shape, b.shape[1]
    return m, k, n, a.stride(0) == 1 and m > 1, b.stride(0) == 1 and k > 1


@torch.no_grad()
def rates(a: Tensor, b: Tensor, *, peer: Peer | None, seconds: float) -> dict[str, float]:
    """Return by library how fast it multiplies two matrices: the best of five turns, in GFLOP/s.

    Args:
        a: of shape (m, k).
        b: of shape (k, n).
        peer: the script ``products.py``, for NumPy and XLA.
        seconds: how long a turn takes.
    """
    shape = m, k, n, *_ = shape_of(a, b)
    at_once = _AT_ONCE if m * k * n < _LARGE else 1
    copies = [(a.clone(), b.clone(), a.new_empty(m, n)) for _ in range(at_once)]
    steps: dict[str, Callable[[], object]] = {
        library: lambda multiply=multiply: [multiply(*copy) for copy in copies]
        for library, multiply in HERE.items()
    }
    if peer is not None:
        for library in _PEERS:
            name = f"{library} {shape}"
            peer.call("prepare", name=name, library=library, products=[shape] * at_once)
            steps[library] = PeerStep(peer, "compute", name=name)
    best = dict.fromkeys(steps, math.inf)
    for _ in range(5):
        for library, step in steps.items():
            best[library] = min(best[library], time_of(step, seconds, time.process_time))
    return {library: 2e-9 * m * k * n * at_once / found for library, found in best.items()}


@dataclass
class Floor:
    """All products of a step, each by the fastest library, and the step of the optimizer.

    Args:
        products: of the step, without convolutions.
        peer: the script ``products.py``, for NumPy and XLA.
        seconds: how long each turn of the measurement takes by which a library is chosen.

    Attributes:
        rates: GFLOP/s of each distinct product, by library.
    """

    products: Products
    peer: Peer
    seconds: float
    rates: dict[Product, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        examples = {shape_of(*pair): pair for pair in self.products.factors}
        for shape, (a, b) in examples.items():
            self.rates[shape] = rates(a, b, peer=self.peer, seconds=self.seconds)
        mine, theirs = [], {library: [] for library in _PEERS}
        for a, b in self.products.factors:
            library = self.fastest(shape_of(a, b))
            if library in HERE:
                mine.append((HERE[library], a, b, a.new_empty(len(a), b.shape[1])))
            else:
                theirs[library].append(shape_of(a, b))
        self._mine = mine
        self._theirs = []
        for library, products in theirs.items():
            if products:
                name = f"floor {library}"
                self.peer.call("prepare", name=name, library=library, products=products)
                self._theirs.append(PeerStep(self.peer, "compute", name=name))

    def fastest(self, shape: Product) -> str:
        """Return the library that computes a product fastest."""
        return max(self.rates[shape], key=self.rates[shape].__getitem__)

    @property
    def note(self) -> str:
        """How many products each library computes."""
        counts = Counter(self.fastest(shape_of(*pair)) for pair in self.products.factors)
        return ", ".join(f"{library} {count}" for library, count in counts.most_common())

    @torch.no_grad()
    def __call__(self) -> None:
        """Compute what this process computes, and let the peer compute the rest."""
        self._compute_mine()
        for step in self._theirs:
            step()

    def time(self, seconds: float) -> float:
        """Return the processor seconds of all products and of the optimizer's step."""
        share = seconds / (1 + len(self._theirs))
        with torch.no_grad():
            found = time_of(self._compute_mine, share, time.process_time)
        return found + sum(step.time(share) for step in self._theirs)

    def table(self) -> str:
        """Return the rates of all libraries at each distinct product, in Markdown."""
        counts = Counter(shape_of(*pair) for pair in self.products.factors)
        libraries = [*HERE, *_PEERS]
        lines = [f"| product, GFLOP/s | times | {' | '.join(libraries)} |"]
        lines.append("|---" * (2 + len(libraries)) + "|")
        for shape, count in counts.items():
            m, k, n, left, right = shape
            name = f"({m}, {k}){'t' * left} ({k}, {n}){'t' * right}"
            rates = " | ".join(f"{self.rates[shape][library]:.0f}" for library in libraries)
            lines.append(f"| {name} | {count} | {rates} |")
        return "\n".join(lines)

    def _compute_mine(self) -> None:
        for multiply, a, b, out in self._mine:
            multiply(a, b, out)
        self.products.optimizer()
