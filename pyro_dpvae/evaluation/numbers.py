"""Numbers as they are printed: with as many digits as their intervals make sense of."""

import math

__all__ = ["plain_number", "with_interval"]

_MINUS = "\N{MINUS SIGN}"
_DIGITS = 4  # of a number whose error is not known


def plain_number(value: int | float, *, decimals: int | None = None) -> str:
    """Return a number as text: with commas between thousands, and four digits by default.

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
    """Return ``value ± half_width``, both rounded to the second digit of the half width.

    A difference that would look equal to its half width, but is not, gets up to two more digits,
    so that the reader sees on which side of zero the interval ends.

    Args:
        value: the middle of the interval.
        half_width: half the interval; NaN if it is unknown, 0 for a count.
        signed: whether the value is a difference, which has a plus sign if it is not negative.

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
    if signed and abs(value) != half_width:
        for _ in range(2):
            decimals += f"{abs(value):.{decimals}f}" == f"{half_width:.{decimals}f}"
    middle, half = (plain_number(one, decimals=decimals) for one in (value, half_width))
    return f"{plus}{middle} ± {half}"


def _order(value: int | float) -> int:
    """Return the power of ten of the first digit."""
    return math.floor(math.log10(abs(value))) if value else 0
