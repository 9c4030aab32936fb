"""Checks of annotations, by jaxtyping only where an annotation has a shape.

Pytest's option --jaxtyping-packages wraps every function of the library in `jaxtyping.jaxtyped`,
which binds the arguments of each call to keep the sizes of named axes, and checks parameters
twice. Nine functions in ten have no shapes: beartype alone checks the same types of theirs at a
tenth of the cost. Functions with shapes are checked in their first four calls in each test, and
then in every twentieth, because a training loop repeats the same shapes. A function that another
defines anew in each call is checked where it is defined first in a test, and then in every
twentieth: to write its checks takes longer than a hundred calls of it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import count
from types import CodeType, FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

_by_types: Callable[..., Any] = beartype(
    conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError)
)
_by_shapes = jaxtyping.jaxtyped
_FIRST, _EVERY = 4, 20
_calls: dict[int, int] = {}  # by number of the function, in the present test
_definitions: Counter[CodeType] = Counter()  # of functions in functions, in the present test


def forget_calls() -> None:
    """Let the next calls and definitions of each function be checked again."""
    _calls.clear()
    _definitions.clear()


def use_cheapest_checks() -> None:
    """Let modules of the library that are imported from now on be checked in this way."""
    jaxtyping.jaxtyped = _checked  # type: ignore[assignment]


def _checked(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    def decorate(target: Any) -> Any:
        annotations = getattr(target, "__annotations__", None)
        if isinstance(target, FunctionType) and "<locals>" in target.__qualname__:
            _definitions[target.__code__] += 1
            if _definitions[target.__code__] % _EVERY != 1:
                return target
        if isinstance(target, type) or annotations is None:
            return _by_shapes(target, typechecker=typechecker)
        if _have_shapes(annotations.values()):
            return _sometimes(_by_shapes(target, typechecker=typechecker), target)
        return _by_types(target)

    return decorate


_numbers = count()


def _sometimes(checked: Callable[..., Any], target: Callable[..., Any]) -> Callable[..., Any]:
    number = next(_numbers)

    @wraps(checked)
    def call(*arguments: Any, **options: Any) -> Any:
        _calls[number] = calls = _calls.get(number, 0) + 1
        chosen = checked if calls <= _FIRST or calls % _EVERY == 0 else target
        return chosen(*arguments, **options)

    return call


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
