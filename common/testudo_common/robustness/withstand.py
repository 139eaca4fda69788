"""How many rows of a round may be bad, and how likely more are. A row is a group's mean, or one client's update.

A group's mean is bad where one of its members is poisoned: bucketing (Karimireddy et al. 2022) with buckets that
secure aggregation forces. No rule withstands half or more of its rows being bad. A poisoned client that drops out
makes no row bad, and a group that is lost is no row: both are taken not to happen.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from testudo_common.robustness.shares import count_of_share
from testudo_common.robustness.tails import (
    Floats,
    bad_groups,
    bad_in_cohort,
    chance_of_a_bad_group,
    chance_of_more,
    groups_of,
    hits,
    quantile,
)


def bad_rows(
    clients: int, cohort: int, corruption: float, group_size: int, max_failure: float, *, caught: int = 0
) -> int:
    """f: the least number of bad rows that one round exceeds with probability at most ``max_failure``.

    Args:
        clients: N, of the federation; floor(corruption * N) of them are poisoned.
        cohort: n, drawn from them without replacement.
        corruption: Share of the clients, 0 to 1; 0 gives 0.
        group_size: m; 1 where every client is a row.
        max_failure: Probability a round, 0 to 1.
        caught: Poisoned clients that are not asked any more; the cohort is drawn from the others.

    Returns:
        0 to the number of rows; a rule takes it only where it is under half of them.

    Raises:
        PlannerError: More are asked than there are.
    """
    poisoned = max(0, count_of_share(corruption, clients) - caught)
    return quantile(rows(clients - caught, poisoned, cohort, group_size), max_failure)


def failure_of(clients: int, cohort: int, corruption: float, group_size: int, f: int | None = None) -> float:
    """The probability that more than f rows of one round are bad; without f: that half or more are.

    Args:
        clients: As in :func:`bad_rows`.
        cohort: As there.
        corruption: As there.
        group_size: As there.
        f: 0 or more.
    """
    count = max(1, cohort // group_size)
    distribution = rows(clients, count_of_share(corruption, clients), cohort, group_size)
    return chance_of_more(distribution, most_a_rule_withstands(count) if f is None else f)


def most_a_rule_withstands(count: int) -> int:
    """The largest f with 2 f < ``count`` rows."""
    return (count - 1) // 2


def rows(clients: int, bad: int, cohort: int, group_size: int) -> Floats:
    """The probability of 0, 1, 2, ... bad rows, ``float64[rows + 1]``, read-only.

    Args:
        clients: N.
        bad: Poisoned clients, 0..N.
        cohort: n.
        group_size: m; 1 where every client is a row.
    """
    return _rows(clients, bad, cohort, max(1, cohort // group_size))


@lru_cache(maxsize=1024)
def _rows(clients: int, bad: int, cohort: int, count: int) -> Floats:
    distribution = bad_groups(groups_of(cohort, cohort // count), bad, clients)
    distribution.flags.writeable = False  # it is shared by every caller through the cache
    return distribution


def outvoted(clients: int, bad: int, cohort: int, group_size: int, max_failure: float) -> bool:
    """Whether half or more of the rows are bad with probability at most ``max_failure``: whether 2 f < rows.

    Args:
        clients: N.
        bad: Poisoned clients, 0..N.
        cohort: n.
        group_size: m.
        max_failure: 0 to 1.
    """
    count = max(1, cohort // group_size)
    if 2 * min(bad, count) < count:
        return True
    if is_hopeless(clients, bad, cohort // count, max_failure):
        return False
    return chance_of_more(rows(clients, bad, cohort, group_size), most_a_rule_withstands(count)) <= max_failure


@lru_cache(maxsize=65536)
def is_hopeless(clients: int, bad: int, members: int, max_failure: float) -> bool:
    """Whether groups of at least so many members are too often half bad in any cohort, by their mean share alone.

    With P the probability that half or more are bad, the mean share of bad groups is under (1 + P) / 2.

    Args:
        clients: N.
        bad: Poisoned clients, 0..N.
        members: Of the smallest group.
        max_failure: 0 to 1.
    """
    return 2 * chance_of_a_bad_group(clients, bad, members) - 1 > max_failure + 1e-9  # rounding refuses nobody


def most_poisoned(clients: int, cohort: int, group_size: int, max_failure: float) -> int:
    """The most poisoned clients of the federation that are outvoted in a round; fewer are, too.

    Args:
        clients: N.
        cohort: n.
        group_size: m.
        max_failure: Probability a round, in [0, 1).

    Returns:
        0 to N - 1.
    """
    lost = _lost_by_bad(cohort, max(1, cohort // group_size))
    enough, too_many = 0, clients
    while too_many - enough > 1:
        bad = (enough + too_many) // 2
        if float(bad_in_cohort(clients, bad, cohort) @ lost) <= max_failure:
            enough = bad
        else:
            too_many = bad
    return enough


@lru_cache(maxsize=256)
def _lost_by_bad(cohort: int, count: int) -> Floats:
    """The probability that half or more groups are bad, with 0, 1, ..., n poisoned clients in the cohort."""
    withstood = most_a_rule_withstands(count)
    lost = np.ones(cohort + 1)
    if count == cohort:
        lost[: withstood + 1] = 0.0
        return lost
    for bad, distribution in enumerate(hits(groups_of(cohort, cohort // count))):
        lost[bad] = chance_of_more(distribution, withstood)
        if lost[bad] >= 1 - 1e-15:  # and so with more of them
            break
    return lost
