"""The robust rules by name, and the fewest rows that each needs. What they compute is the server's."""

from __future__ import annotations

PRE_AGGREGATORS = ("clip", "arc", "nnm", "dedupe", "bucketing")
RULES = (
    "mean",
    "krum",
    "multi_krum",
    "geometric_median",
    "centred_clipping",
    "mda",
    "caf",
    "median",
    "trimmed_mean",
)


def least_rows(rule: str, f: int) -> int:
    """The fewest rows with which ``rule`` withstands ``f`` bad ones: 2f + 1, or 2f + 3 for Krum and Multi-Krum."""
    return 2 * f + (3 if rule in ("krum", "multi_krum") else 1)
