"""Rules that make one update of several: pure functions of ``float32[n, d]``, robust against f bad rows or plain.

:func:`chain` composes them from names; docstrings of the rules have their f, their kappa and their paper, and
:func:`kappa_bound` has the kappa of a chain.
"""

from testudo_common.robustness.shares import count_of_share
from testudo_server.aggregate.base import Aggregated, Rejected, usable_rows
from testudo_server.aggregate.blocks import Work
from testudo_server.aggregate.bounds import kappa_bound
from testudo_server.aggregate.compose import PRE_AGGREGATORS, RULES, Chain, Settings, chain
from testudo_server.aggregate.rules import mean

__all__ = [
    "PRE_AGGREGATORS",
    "RULES",
    "Aggregated",
    "Chain",
    "Rejected",
    "Settings",
    "Work",
    "chain",
    "count_of_share",
    "kappa_bound",
    "mean",
    "usable_rows",
]
