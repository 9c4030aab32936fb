"""The matrix products of a recorded graph, each by the fastest library of its processor."""

import copy
import json
import math
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, fx

from pyro_dpvae._caches import cache_folder
from pyro_dpvae._files import write_whole

__all__ = ["ONEDNN", "Layout", "choose_products", "layout_of", "with_opaque_products"]

_aten = torch.ops.aten
ONEDNN: Any = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
"""x W' + b by oneDNN; None where PyTorch was built without it."""

# Smaller products take microseconds by either library.
_LEAST = 2**18  # multiplications

# oneDNN is chosen where it takes at most this part of PyTorch's time. Where both take about as
# long, noise would decide, and a resumed run would round otherwise than the first one.
_GAIN = 0.8
_TURNS, _SHORTEST, _LONGEST = 7, 3e-4, 0.1  # seconds of a turn, and of all turns

# Of the norm: products of a lower precision differ by more.
_TOLERANCE = 1e-5

# Inductor refuses oneDNN's operation with a weight that is no constant, but takes any operation
# that it does not know.
_library = torch.library.Library("pyro_dpvae", "FRAGMENT")
_library.define("onednn_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


@torch.library.impl(_library, "onednn_linear", "CPU")
def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return ONEDNN(x, weight, bias, "none", [], "")


@torch.library.register_fake("pyro_dpvae::onednn_linear")  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


class Layout(NamedTuple):
    """What the speed of a product depends on."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str


def layout_of(x: Tensor) -> Layout:
    """Return the layout of a tensor."""
    return Layout(tuple(x.shape), x.stride(), x.dtype, x.device.type)


def choose_products(traced: fx.GraphModule) -> bool:
    """Let oneDNN compute the products of a graph for which it is faster than PyTorch.

    PyTorch computes float32 products on a CPU by MKL, which on some processors is half as fast as
    oneDNN. Products of each layout are timed once; the choices are kept in the user's cache folder
    by processor, version of PyTorch and number of threads. Contiguous copies of factors and
    transposed products are not tried: with either library they took longer than views.

    Args:
        traced: a graph with the layouts of its tensors in ``meta["layout"]``; it is changed.

    Returns:
        True if a product was replaced, so that results differ by rounding.
    """
    if (
        ONEDNN is None
        or not torch.backends.mkldnn.is_available()
        or torch.get_float32_matmul_precision() != "highest"
    ):
        return False
    graph, choices = traced.graph, _choices(torch.get_num_threads())
    replaced = False
    for node in list(graph.nodes):
        factors = _factors(node)
        if factors is None or not choices.onednn_is_faster(*factors):
            continue
        *bias, a, b = node.args
        weight = b.args[0] if b.target is _aten.t.default else None
        if weight is None:
            with graph.inserting_before(node):
                weight = graph.call_function(_aten.t.default, (b,))
        node.target = ONEDNN
        node.args = (a, weight, *(bias or [None]), "none", [], "")
        if b.target is _aten.t.default and not b.users:
            graph.erase_node(b)
        replaced = True
    choices.save()
    if replaced:
        traced.recompile()
    return replaced


def with_opaque_products(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph whose products by oneDNN are operations that a compiler leaves alone."""
    if all(node.target is not ONEDNN for node in graph.graph.nodes):
        return graph
    changed = copy.deepcopy(graph.graph)
    for node in changed.nodes:
        if node.target is ONEDNN:
            node.target = torch.ops.pyro_dpvae.onednn_linear.default
            node.args = node.args[:3]
    return fx.GraphModule(graph, changed)


def _factors(node: fx.Node) -> tuple[Layout, Layout] | None:
    """Return the layouts of the factors of a product whose library may be chosen."""
    if node.target not in (_aten.mm.default, _aten.addmm.default) or node.kwargs:
        return None
    found = [getattr(one, "meta", {}).get("layout") for one in node.args]
    layouts = [one for one in found if one is not None and one[2:] == (torch.float32, "cpu")]
    if len(layouts) < len(found):
        return None
    *bias, a, b = layouts
    if any((one.shape, one.stride) != ((b.shape[1],), (1,)) for one in bias):
        return None
    return (a, b) if math.prod((*a.shape, b.shape[1])) >= _LEAST else None


@final
class _Choices:
    """For which products oneDNN is faster, as measured here or by an earlier process."""

    def __init__(self, path: Path | None, *, here: str) -> None:
        self._path, self._here = path, here
        self._known, self._measured = self._known_in(self._stored()), False

    def onednn_is_faster(self, a: Layout, b: Layout) -> bool:
        key = f"{a.shape} {a.stride} x {b.shape} {b.stride}"
        if key not in self._known:
            # Twice: while other programs run, a single measurement could be wrong.
            self._known[key] = all(_onednn_is_faster(_like(a), _like(b)) for _ in range(2))
            self._measured = True
        return self._known[key]

    def save(self) -> None:
        """Write what was measured since the last time, where the folder can be written."""
        if self._path is None or not self._measured:
            return
        stored = self._stored()
        # What another process has written meanwhile stands.
        self._known, self._measured = self._known | self._known_in(stored), False
        with suppress(OSError):
            content = stored | {self._here: self._known}
            write_whole(self._path, json.dumps(content, indent=1).encode())

    def _known_in(self, stored: dict[str, Any]) -> dict[str, bool]:
        found = stored.get(self._here)
        return {} if not isinstance(found, dict) else {k: v is True for k, v in found.items()}

    def _stored(self) -> dict[str, Any]:
        """Return the content of the file; nothing where it is absent or damaged."""
        content = None
        if self._path is not None:
            with suppress(OSError, ValueError):
                content = json.loads(self._path.read_text())
        return content if isinstance(content, dict) else {}


@cache
def _choices(threads: int) -> _Choices:
    folder = cache_folder()
    here = f"{_processor()}, torch {torch.__version__}, {threads} threads"
    return _Choices(None if folder is None else folder / "products.json", here=here)


def _processor() -> str:
    """Return the name of the processor, with family and model where the system tells."""
    told: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
    names = (told.get(name, "") for name in ("model name", "cpu family", "model"))
    return " ".join(filter(None, names)) or platform.processor() or platform.machine()


def _like(layout: Layout) -> Tensor:
    """Return a tensor of a layout, with normal values."""
    last = sum((n - 1) * step for n, step in zip(layout.shape, layout.stride, strict=True))
    generator = torch.Generator().manual_seed(0)  # the user's draws stay as they are
    return torch.randn(last + 1, generator=generator).as_strided(layout.shape, layout.stride)


@torch.no_grad()
def _onednn_is_faster(a: Tensor, b: Tensor) -> bool:
    """Time a product by PyTorch and oneDNN in turns."""
    ways: tuple[Callable[[], Tensor], ...] = (
        lambda: torch.mm(a, b),
        lambda: _onednn_linear(a, b.t(), None),
    )
    try:
        expected, found = (multiply() for multiply in ways)
    except RuntimeError:  # a layout that oneDNN does not take
        return False
    if not (found - expected).norm() <= _TOLERANCE * expected.norm():
        return False
    best, start = [math.inf, math.inf], time.perf_counter()
    for turn in range(_TURNS):
        best = [min(t, _seconds(multiply)) for t, multiply in zip(best, ways, strict=True)]
        hopeless = turn > 0 and best[1] > best[0]
        if hopeless or time.perf_counter() - start > _LONGEST:
            break
    return best[1] <= _GAIN * best[0]


def _seconds(multiply: Callable[[], Any]) -> float:
    """Return the time of a product, from as many calls as fill a turn."""
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < _SHORTEST:
        multiply()
        calls += 1
    return elapsed / calls
