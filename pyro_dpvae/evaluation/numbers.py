"""Numbers as they are printed: with as many digits as their intervals make sense of."""

import math

import numpy as np

__all__ = ["interval_ends", "plain_number", "share_interval", "with_interval"]

_MINUS = "\N{MINUS SIGN}"
_DIGITS = 4  # of a number whose error is not known
_NORMAL = 1.959964  # half a 95 % interval in standard errors


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


def share_interval(value: float, half_width: float) -> tuple[float, float]:
    """Return the ends of a 95 % interval of a share, which lie between 0 and 1.

    It is Wilson's interval for the number of trials that has this half width with the standard
    error of Agresti and Coull, which is that of ``metrics.estimate.share_estimate``.

    Args:
        value: the share.
        half_width: half a symmetric 95 % interval.

    Example:
        >>> low, high = share_interval(1.0, 0.2479)  # 6 of 6
        >>> round(low, 2), round(high, 2)
        (0.61, 1.0)
    """
    spread, width = value * (1 - value), 4 * (half_width / _NORMAL) ** 2
    # With c = 4 / trials: width = c (spread + c / 2 + c^2 / 4) / (1 + c)^3, which grows to 1/4.
    roots = np.roots([width - 1 / 4, 3 * width - 1 / 2, 3 * width - spread, width])
    found = roots.real[(abs(roots.imag) < 1e-9) & (roots.real >= 0)]
    if width >= 1 / 4 or not len(found):
        return 0.0, 1.0
    k = float(found.min()) * _NORMAL**2 / 4
    middle, reach = value + k / 2, math.sqrt(k * spread + k**2 / 4)
    return max(0.0, (middle - reach) / (1 + k)), min(1.0, (middle + reach) / (1 + k))


def interval_ends(value: float, half_width: float, *, share: bool) -> tuple[float, float]:
    """Return the ends of a 95 % interval, that of :func:`share_interval` for a share.

    They are NaN if the half width is.
    """
    if share and math.isfinite(half_width) and half_width > 0:
        return share_interval(value, half_width)
    return value - half_width, value + half_width


def with_interval(
    value: int | float, half_width: int | float, *, signed: bool = False, share: bool = False
) -> str:
    """Return ``value ± half_width``, both rounded to the second digit of the half width.

    A share is followed by the ends of its interval instead. A difference that would look equal to
    its half width, but is not, gets up to two more digits, so that the reader sees on which side
    of zero the interval ends.

    Args:
        value: the middle of the interval.
        half_width: half the interval; NaN if it is unknown, 0 for a count.
        signed: whether the value is a difference, which has a plus sign if it is not negative.
        share: whether the value lies between 0 and 1.

    Example:
        >>> with_interval(-1.79273, 0.02613), with_interval(0.5, math.nan, signed=True)
        ('−1.793 ± 0.026', '+0.5')
        >>> with_interval(0.0172, 0.0168, signed=True)
        '+0.0172 ± 0.0168'
        >>> with_interval(1.0, 0.2479, share=True)
        '1.00 [0.61, 1.00]'
    """
    plus = "+" if signed and value >= 0 else ""
    if not math.isfinite(half_width) or half_width == 0:
        return plus + plain_number(value)
    decimals = min(max(0, 1 - _order(half_width)), 8)
    if share:
        ends = interval_ends(value, half_width, share=True)
        middle, low, high = (plain_number(one, decimals=decimals) for one in (value, *ends))
        return f"{middle} [{low}, {high}]"
    if signed and abs(value) != half_width:
        for _ in range(2):
            decimals += f"{abs(value):.{decimals}f}" == f"{half_width:.{decimals}f}"
    middle, half = (plain_number(one, decimals=decimals) for one in (value, half_width))
    return f"{plus}{middle} ± {half}"


def _order(value: int | float) -> int:
    """Return the power of ten of the first digit."""
    return math.floor(math.log10(abs(value))) if value else 0
