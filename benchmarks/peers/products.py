"""Float32 matrix products by NumPy and by XLA.

``python products.py`` answers requests, as ``serve.py`` says. A product is the list ``[m, k, n,
left, right]`` of its sizes and of whether its factors are stored transposed.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax import Array
from serve import serve

Product = tuple[int, int, int, bool, bool]


def factors(product: Product) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors (m, k) and (k, n) as they are stored."""
    m, k, n, left, right = product
    random = np.random.default_rng(0)
    a = random.standard_normal((k, m) if left else (m, k), np.float32)
    b = random.standard_normal((n, k) if right else (k, n), np.float32)
    return a, b


def by_numpy(products: list[Product]) -> Callable[[], object]:
    """Return a function that computes all products by NumPy, into memory that it keeps."""
    calls = []
    for product in products:
        a, b = factors(product)
        a, b = a.T if product[3] else a, b.T if product[4] else b
        calls.append((a, b, np.empty((product[0], product[2]), np.float32)))

    def compute() -> None:
        for a, b, out in calls:
            np.matmul(a, b, out=out)

    return compute


def by_xla(products: list[Product]) -> Callable[[], object]:
    """Return a function that computes all products in one compiled call."""

    @jax.jit
    def multiply(pairs: list[tuple[Array, Array]]) -> list[Array]:
        return [
            (a.T if left else a) @ (b.T if right else b)
            for (a, b), (_, _, _, left, right) in zip(pairs, products, strict=True)
        ]

    pairs = [tuple(jax.device_put(factor) for factor in factors(one)) for one in products]
    return lambda: jax.block_until_ready(multiply(pairs))


LIBRARIES = {"NumPy": by_numpy, "XLA": by_xla}
made: dict[str, Callable[[], object]] = {}


def prepare(name: str, library: str, products: list[Product]) -> None:
    """Prepare products under a name, so that ``compute`` takes only their time."""
    made[name] = LIBRARIES[library](products)
    made[name]()


def compute(name: str, count: int) -> list[None]:
    """Compute the products of a name so many times."""
    return [made[name]() and None for _ in range(count)]


if __name__ == "__main__":
    serve({"prepare": prepare, "compute": compute})
