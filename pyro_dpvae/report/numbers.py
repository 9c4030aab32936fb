"""Numbers as they are printed: with as many digits as their intervals make sense of."""

import math
from collections.abc import Sequence

__all__ = ["finite", "plain_number", "ticks", "with_interval"]

_MINUS = "\N{MINUS SIGN}"
_DIGITS = 4  # of a number whose error is not known


def plain_number(value: int | float, *, decimals: int | None = None) -> str:
    """Return a number to read: thousands set apart, and four digits unless it is said how many.

    Example:
        >>> plain_number(1500), plain_number(0.0123456), plain_number(-2.0), plain_number(1e9)
        ('1,500', '0.01235', '−2', '1e9')
    """
    if not math.isfinite(value):
        return {"inf": "∞", "-inf": f"{_MINUS}∞"}.get(str(value), "not a number")
    if decimals is None and (abs(value) >= 1e6 or 0 < abs(value) < 1e-4):
        mantissa, exponent = f"{value:.3e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    elif decimals is None:
        places = max(0, _DIGITS - 1 - _order(value))
        text = f"{value:,.{places}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = f"{value:,.{decimals}f}"
    return text.replace("-", _MINUS)


def with_interval(value: int | float, half_width: int | float, *, signed: bool = False) -> str:
    """Return a value and half its interval, both to the second digit of that.

    Of a difference that would look like half its interval and is not, digits are added, two at
    most, so that one sees on which side of zero the interval ends.

    Args:
        value: the middle.
        half_width: half the interval; NaN where it is not known, 0 for a count.
        signed: whether it is a difference, with a plus before what is not negative.

    Example:
        >>> with_interval(-1.79273, 0.02613), with_interval(0.5, math.nan, signed=True)
        ('−1.793 ± 0.026', '+0.5')
        >>> with_interval(0.0172, 0.0168, signed=True)
        '+0.0172 ± 0.0168'
    """
    plus = "+" if signed and value >= 0 else ""
    if not math.isfinite(half_width) or half_width == 0:
        return plus + plain_number(value)
    decimals = min(max(0, 1 - _order(half_width)), 8)
    if signed:
        for _ in range(2):
            if (
                abs(value) != half_width
                and f"{abs(value):.{decimals}f}" == f"{half_width:.{decimals}f}"
            ):
                decimals += 1
    value_, half = (plain_number(one, decimals=decimals) for one in (value, half_width))
    return f"{plus}{value_} ± {half}"


def ticks(low: int | float, high: int | float, *, most: int = 6) -> list[float]:
    """Return round numbers within an interval, at equal distances of 1, 2 or 5 times 10^k.

    Args:
        low: where it starts.
        high: where it ends, above ``low``.
        most: how many there may be, roughly.

    Example:
        >>> ticks(0.13, 1.04)
        [0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    places = max(0, 1 - math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, places) + 0.0 for number in range(first, last + 1)]


def finite(values: Sequence[int | float]) -> list[int | float]:
    """Return those that are finite."""
    return [value for value in values if math.isfinite(value)]


def _order(value: int | float) -> int:
    """Return the power of ten of the first digit."""
    return math.floor(math.log10(abs(value))) if value else 0
