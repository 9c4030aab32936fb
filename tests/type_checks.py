"""Checks of annotations, by jaxtyping only where an annotation has a shape.

Pytest's option --jaxtyping-packages wraps every function of the library in `jaxtyping.jaxtyped`,
which binds the arguments of each call to keep the sizes of named axes, and checks parameters
twice. Nine functions in ten have no shapes: beartype alone checks the same types of theirs at a
tenth of the cost.
"""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

_by_types: Callable[..., Any] = beartype(
    conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError)
)
_by_shapes = jaxtyping.jaxtyped


def use_cheapest_checks() -> None:
    """Let modules of the library that are imported from now on be checked in this way."""
    jaxtyping.jaxtyped = _checked  # type: ignore[assignment]


def _checked(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    def decorate(target: Any) -> Any:
        annotations = getattr(target, "__annotations__", None)
        if isinstance(target, type) or annotations is None or _have_shapes(annotations.values()):
            return _by_shapes(target, typechecker=typechecker)
        return _by_types(target)

    return decorate


def _have_shapes(annotations: Any) -> bool:
    return any(
        isinstance(part, str)  # not known yet
        or (isinstance(part, type) and issubclass(part, jaxtyping.AbstractArray))
        for annotation in annotations
        for part in _parts(annotation)
    )


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all that its brackets hold."""
    yield annotation
    for part in annotation if isinstance(annotation, list) else get_args(annotation):
        yield from _parts(part)
