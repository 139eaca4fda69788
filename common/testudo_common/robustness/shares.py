"""Shares of clients as whole numbers of them, and back. Decimal, as they are written; no float is in the way."""

from __future__ import annotations

from fractions import Fraction


def count_of_share(share: float, n: int) -> int:
    """floor(share * n) of the decimal number as it is written: 29 of 100 at 0.29, where ``int(0.29 * 100)`` is 28.

    Args:
        share: 0 to 1.
        n: Rows, clients or members.
    """
    return int(Fraction(repr(float(share))) * n)


def share_of_count(count: int, n: int) -> float:
    """The share with the fewest decimals of which ``count_of_share`` makes ``count``; the lower one of several.

    Args:
        count: 0 to n.
        n: 1 or more.

    Returns:
        In [0, 1]; in [count / n, (count + 1) / n).
    """
    scale = 1
    while -(-count * scale // n) * n >= (count + 1) * scale:
        scale *= 10
    return -(-count * scale // n) / scale


def percent(share: float) -> str:
    """A share for a sentence, such as ``12.5 %``."""
    return f"{100 * share:.6g} %"
