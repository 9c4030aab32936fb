"""Annotations of the library are checked while tests run, with shapes and without."""

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from pyro_dpvae.metrics import assigned_clusters
from pyro_dpvae.priors import StandardNormal
from tests.type_checks import forget_calls

checked: Callable[..., Any] = jaxtyping.jaxtyped(typechecker=beartype)  # as in the library's files


@checked
def count(text: str) -> int:
    return len(text) if text else None  # type: ignore[return-value]


@checked
def product(x: Float[Tensor, "rows inner"], y: Float[Tensor, "inner columns"]) -> Tensor:
    return x @ y


@checked
def stacked(parts: dict[str, list[Float[Tensor, "rows columns"]]]) -> Float[Tensor, "rows all"]:
    return torch.cat(parts["all"], dim=0)


def test_types_of_arguments_and_results_are_checked() -> None:
    assert count("four") == 4
    with pytest.raises(TypeCheckError):
        count(4)
    with pytest.raises(TypeCheckError):
        count("")


def test_sizes_of_an_axis_agree_among_arguments() -> None:
    assert product(torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)
    with pytest.raises(TypeCheckError):
        product(torch.ones(2, 3), torch.ones(4, 3))


def test_shapes_inside_of_other_types_are_checked() -> None:
    assert stacked({"all": [torch.ones(2, 3)]}).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        stacked({"all": [torch.ones(2, 3), torch.ones(2, 3)]})  # four rows


def test_a_function_in_another_is_checked_where_it_is_defined_first_in_a_test() -> None:
    def define() -> Callable[[int], int]:
        @checked
        def double(number: int) -> int:
            return 2 * number

        return double

    for _ in range(2):
        with pytest.raises(TypeCheckError):
            define()("2")  # type: ignore[arg-type]
        assert define()("2") == "22"  # type: ignore[arg-type, comparison-overlap]
        forget_calls()


def test_the_library_is_checked() -> None:
    with pytest.raises(TypeCheckError):
        StandardNormal("2")  # type: ignore[arg-type]
    with pytest.raises(TypeCheckError):
        assigned_clusters([["2"]])  # type: ignore[list-item]
