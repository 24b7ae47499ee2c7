"""Shares of counts, exact for the decimal number that the config has."""

from __future__ import annotations

from fractions import Fraction


def exact_share(share: float, total: int) -> Fraction:
    """`share` x `total`, with `share` taken as its decimal notation.

    In floating point, 0.29 * 100 is below 29 and 0.28 * 25 above 7, so that rounding down or up,
    or comparing with a count, would be off by one.
    """
    return Fraction(str(share)) * total
